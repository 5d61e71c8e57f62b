"""Every sample once per epoch, on any number of ranks, from any place in an epoch on."""

from hypothesis import given
from hypothesis import strategies as st

from rushlight_train.batches import Batches


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5), st.integers(0, 3))
def test_each_sample_counts_once_and_all_ranks_make_the_same_steps(count, batch, world, epoch):
    seen, steps = [], set()
    for rank in range(world):
        batches = Batches(count, batch, rank, world, seed=7)
        batches.start(epoch)
        lists = list(batches)
        steps.add(len(lists))
        for i, indices in enumerate(lists):
            assert indices, "a rank without samples would not take part in the collectives"
            seen += indices[: batches.share(i)]
            assert len(indices) == max(batches.share(i), 1)
    assert sorted(seen) == list(range(count))
    assert len(steps) == 1


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    def union(world):
        ranks = [Batches(50, 8, r, world, seed=1) for r in range(world)]
        for b in ranks:
            b.start(3)
        steps = enumerate(zip(*ranks, strict=True))
        return [sorted(x for r, b in zip(ranks, step, strict=True) for x in b[: r.share(i)]) for i, step in steps]

    assert union(1) == union(2) == union(4)


def test_an_epoch_can_be_entered_in_the_middle():
    whole = Batches(50, 8, 1, 2, seed=1)
    whole.start(2)
    later = Batches(50, 8, 1, 2, seed=1)
    later.start(2, skip=3)
    assert list(later) == list(whole)[3:]
    assert len(later) == len(whole) - 3


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed, epoch):
        b = Batches(50, 50, 0, 1, seed)
        b.start(epoch)
        return next(iter(b))

    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1)}) == 4
    assert next(iter(Batches(50, 50, 0, 1, None))) == list(range(50))
