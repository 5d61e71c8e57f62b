"""Orders of samples, on one rank and on many."""

import pytest

from rushlight_data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    set_world,
)
from rushlight_tensor.random import Generator, get_rng_state, manual_seed


def seeded(seed=0):
    return Generator().manual_seed(seed)


def test_sequential_and_random_visit_each_sample_once():
    assert list(SequentialSampler(range(5))) == [0, 1, 2, 3, 4]
    assert sorted(RandomSampler(range(50))) == list(range(50))


def test_a_new_order_in_each_epoch_and_the_same_for_the_same_seed():
    sampler = RandomSampler(range(50))
    manual_seed(3)
    first, second = list(sampler), list(sampler)
    manual_seed(3)
    assert list(sampler) == first != second


def test_random_draws_one_seed_at_the_first_sample():
    sampler = iter(RandomSampler(range(5)))
    before = get_rng_state().tolist()
    next(sampler)
    after = get_rng_state().tolist()
    list(sampler)
    assert before != after == get_rng_state().tolist()


def test_random_with_num_samples_repeats_whole_orders():
    drawn = list(RandomSampler(range(4), num_samples=10, generator=seeded()))
    assert sorted(drawn[:4]) == sorted(drawn[4:8]) == [0, 1, 2, 3]
    assert len(drawn) == 10
    assert len(list(RandomSampler(range(100), num_samples=3))) == 3


def test_random_with_replacement():
    drawn = list(RandomSampler(range(3), replacement=True, num_samples=70, generator=seeded()))
    assert len(drawn) == 70
    assert set(drawn) == {0, 1, 2}


def test_random_refuses_bad_arguments():
    with pytest.raises(ValueError, match="num_samples=0"):
        RandomSampler([])
    with pytest.raises(ValueError, match=r"num_samples=2\.0"):
        RandomSampler([1], num_samples=2.0)
    with pytest.raises(TypeError, match="replacement=1"):
        RandomSampler([1], replacement=1)


def test_subset_random_permutes_indices():
    assert sorted(SubsetRandomSampler([7, 3, 9])) == [3, 7, 9]
    assert len(SubsetRandomSampler([7, 3, 9])) == 3


def test_weighted_random_follows_weights():
    drawn = list(WeightedRandomSampler([0.0, 3.0, 1.0], 400, generator=seeded()))
    assert drawn.count(0) == 0
    assert 250 < drawn.count(1) < 350
    assert sorted(WeightedRandomSampler([1, 1, 1], 3, replacement=False)) == [0, 1, 2]


def test_weighted_random_refuses_bad_arguments():
    with pytest.raises(ValueError, match="1d sequence"):
        WeightedRandomSampler([[1.0, 2.0]], 2)
    with pytest.raises(ValueError, match="num_samples=0"):
        WeightedRandomSampler([1.0], 0)
    with pytest.raises(RuntimeError, match="without replacement"):
        list(WeightedRandomSampler([1.0, 2.0], 5, replacement=False))


def test_batches():
    assert list(BatchSampler(range(7), 3, drop_last=False)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(BatchSampler(range(7), 3, drop_last=True)) == [[0, 1, 2], [3, 4, 5]]
    assert len(BatchSampler(range(7), 3, drop_last=False)) == 3
    assert len(BatchSampler(range(7), 3, drop_last=True)) == 2
    assert len(BatchSampler(range(6), 3, drop_last=False)) == 2


def test_batches_refuse_bad_arguments():
    for bad in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="batch_size should be a positive integer"):
            BatchSampler(range(7), bad, drop_last=False)
    with pytest.raises(ValueError, match="drop_last should be a boolean"):
        BatchSampler(range(7), 2, drop_last=1)


def test_a_sampler_without_iter_says_so():
    with pytest.raises(NotImplementedError, match="__iter__"):
        iter(Sampler())


@pytest.mark.parametrize("n", [1, 2, 3, 10, 23])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
class TestDistributed:
    def shares(self, n, world, **kwargs):
        samplers = [DistributedSampler(range(n), world, rank, **kwargs) for rank in range(world)]
        shares = [list(sampler) for sampler in samplers]
        assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
        return shares

    def test_equal_shares_cover_all(self, n, world):
        shares = self.shares(n, world)
        assert len({len(share) for share in shares}) == 1
        assert {i for share in shares for i in share} == set(range(n))

    def test_drop_last_repeats_nothing(self, n, world):
        given = [i for share in self.shares(n, world, drop_last=True) for i in share]
        assert len(given) == len(set(given)) == n // world * world

    def test_exact_gives_every_sample_once(self, n, world):
        shares = self.shares(n, world, exact=True)
        assert sorted(i for share in shares for i in share) == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def test_the_order_does_not_depend_on_the_world(self, n, world):
        whole = self.shares(n, 1)[0]
        shares = self.shares(n, world, exact=True)
        assert [shares[i % world][i // world] for i in range(n)] == whole


def test_distributed_order_changes_with_the_epoch_only():
    sampler = DistributedSampler(range(100), 2, 0)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(DistributedSampler(range(100), 2, 0, seed=1)) == list(sampler)
    assert list(DistributedSampler(range(6), 2, 1, shuffle=False)) == [1, 3, 5]


def test_distributed_asks_the_process_group():
    with pytest.raises(ValueError, match="init_process_group"):
        DistributedSampler(range(3))
    set_world(1, 4)
    try:
        sampler = DistributedSampler(range(8), shuffle=False)
        assert list(sampler) == [1, 5]
    finally:
        set_world(None, None)


def test_distributed_refuses_bad_arguments():
    with pytest.raises(ValueError, match=r"Invalid rank 2.*\[0, 1\]"):
        DistributedSampler(range(3), 2, 2)
    with pytest.raises(ValueError, match="choose one"):
        DistributedSampler(range(3), 2, 1, drop_last=True, exact=True)
