"""Which samples a rank sees in which step: each sample once per epoch, however many ranks there are.

Note [Global batches]
    The order of an epoch is drawn from (seed, epoch), the same on every rank, and cut into global batches; rank r
    takes every world-th sample of a batch from the r-th on.  The last batch may be short, and leave a rank with fewer
    samples or none: then it takes one with weight 0, so that all ranks make the same steps.  Sums are divided by the
    size of the *global* batch, so the averaged gradient is that of the whole batch.  `skip` begins in the middle of
    an epoch, where a checkpoint was written.
"""

from __future__ import annotations

from collections.abc import Iterator

from rushlight_tensor import Generator, randperm


class Batches:
    """Lists of sample indices for one rank; iterate after `start(epoch)`.

    Args:
        count: Samples in the data set.
        batch_size: Samples of a global batch.
        seed: Decides the order; None keeps the data set's own.
    """

    def __init__(self, count: int, batch_size: int, rank: int, world: int, seed: int | None) -> None:
        self.count, self.batch_size, self.rank, self.world, self.seed = count, batch_size, rank, world, seed
        self._order = list(range(count))
        self._first = 0

    def start(self, epoch: int, skip: int = 0) -> None:
        """Draw the order of an epoch, and leave out its first `skip` batches."""
        self._first = skip
        if self.seed is not None:
            g = Generator()
            g.manual_seed((self.seed * 1_000_003 + epoch) % 2**64)
            self._order = randperm(self.count, generator=g).tolist()

    def __len__(self) -> int:
        return -(-self.count // self.batch_size) - self._first

    def size(self, i: int) -> int:
        """Samples in the global batch number `i` of the epoch."""
        return min(self.batch_size, self.count - i * self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for i in range(self._first, self._first + len(self)):
            whole = self._order[i * self.batch_size : i * self.batch_size + self.size(i)]
            yield whole[self.rank :: self.world] or whole[:1]

    def share(self, i: int) -> int:
        """How many samples of global batch `i` count for this rank; 0 where it was given one for company only."""
        return len(range(self.rank, self.size(i), self.world))
