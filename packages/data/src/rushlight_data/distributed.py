"""Sampling on many ranks: which rank visits which samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sized

from rushlight_data.sampler import Sampler, permutation
from rushlight_tensor.random import Generator


class DistributedSampler(Sampler[int]):
    """This rank's share of the samples: every `num_replicas`-th index of one order that all ranks agree on.

    By default all ranks get equally many: some samples are repeated, or with `drop_last` left out, to make it even.
    With `exact=True` every sample is given out once, whatever the number of ranks, and the ranks' lengths may differ by
    one: for evaluation, where repeating samples would change the result.  (In training, ranks with different numbers of
    batches wait for one another forever.)

    Args:
        dataset: What is sampled from; only its length is used.
        num_replicas, rank: World size and rank; those of the process group unless given.
        shuffle: Whether the order is random: a permutation from `seed + epoch`.
        seed: The same number on all ranks.
        drop_last: Leave out the tail instead of repeating samples.
        exact: Neither repeat nor leave out.
    Raises:
        ValueError: For a rank outside the world, `exact` with `drop_last`, or when there is no process group to ask.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        *,
        exact: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            if _World.place is None:
                raise ValueError(
                    "Default process group has not been initialized, please make sure to call init_process_group, "
                    "or give num_replicas and rank."
                )
            rank = _World.place[0] if rank is None else rank
            num_replicas = _World.place[1] if num_replicas is None else num_replicas
        if rank >= num_replicas or rank < 0:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        if exact and drop_last:
            raise ValueError("exact=True gives out every sample once; drop_last=True leaves some out: choose one")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.drop_last = drop_last
        self.exact = exact
        self.shuffle = shuffle
        self.seed = seed
        count = len(dataset)
        if exact:
            self.num_samples = len(range(rank, count, num_replicas))
            self.total_size = count
        else:
            self.num_samples = count // num_replicas if drop_last else math.ceil(count / num_replicas)
            self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        count = len(self.dataset)
        if self.shuffle:
            generator = Generator()
            generator.manual_seed(self.seed + self.epoch)
            order = permutation(count, generator)
        else:
            order = list(range(count))
        if self.total_size > count:  # repeat from the start, several times when there are more ranks than samples
            order = list(itertools.islice(itertools.cycle(order), self.total_size))
        return iter(order[self.rank : self.total_size : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the coming epoch; without it every epoch has the same one."""
        self.epoch = epoch


class _World:
    """Rank and size of the process group, told by `set_world`: this package lies below the distributed one."""

    place: tuple[int, int] | None = None


def set_world(rank: int | None, size: int | None) -> None:
    """Tell samplers the process group's rank and size (None, None when it ends)."""
    _World.place = None if rank is None or size is None else (rank, size)
