"""A loader goes on in the middle of an epoch as if there had been no break."""

import pytest

from rushlight_data import BatchSampler, DataLoader, DistributedSampler, RandomSampler
from rushlight_tensor import rand
from rushlight_tensor.random import Generator, get_rng_state, manual_seed, set_rng_state
from tests.data.samples import Count, Numbers

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

EPOCHS, SAMPLES, BATCH = 3, 10, 3
SHORT = EPOCHS * (SAMPLES // BATCH + 1)


def make(workers, **arguments):
    persistent = arguments.pop("persistent", False) and workers > 0
    return DataLoader(
        Numbers(SAMPLES), BATCH, shuffle=True, num_workers=workers, persistent_workers=persistent, **arguments
    )


def train(loader, job, stop=None):
    """What a run sees: batches and random numbers of its own (dropout); and its state after `stop` steps in all."""
    seen = []
    while job["epoch"] < EPOCHS:
        for batch in loader:
            seen.append((batch.tolist(), rand(2).tolist()))
            job["steps"] += 1
            if job["steps"] == stop:
                return seen, {"loader": loader.state_dict(), "random": get_rng_state(), "job": dict(job)}
        job["epoch"] += 1
    return seen, None


def go_on(loader, state, stop=None):
    manual_seed(99)
    set_rng_state(state["random"])
    loader.load_state_dict(state["loader"])
    return train(loader, dict(state["job"]), stop)


# Persistent workers draw one base seed in all, others one in every epoch, as do loaders without workers.
@pytest.mark.parametrize(
    ("before", "after", "persistent"),
    [(0, 0, False), (0, 2, False), (2, 0, False), (1, 2, False), (1, 2, True), (2, 1, True)],
)
def test_after_each_batch_and_for_any_number_of_workers(before, after, persistent):
    manual_seed(1)
    whole, _ = train(make(before, persistent=persistent), {"epoch": 0, "steps": 0})
    for stop in range(1, SHORT, 1 if before == after == 0 else 3):
        manual_seed(1)
        first, state = train(make(before, persistent=persistent), {"epoch": 0, "steps": 0}, stop)
        rest, _ = go_on(make(after, persistent=persistent), state)
        assert first + rest == whole


def test_twice_and_three_times():
    manual_seed(1)
    whole, _ = train(make(0), {"epoch": 0, "steps": 0})
    manual_seed(1)
    seen, state = train(make(0), {"epoch": 0, "steps": 0}, 2)
    for stop in (3, 5):
        more, state = go_on(make(0), state, stop)
        seen += more
    more, state = go_on(make(0), state)
    assert seen + more == whole


def test_with_a_generator_of_its_own():
    def fresh():
        return make(0, generator=Generator().manual_seed(3))

    manual_seed(1)
    whole, _ = train(fresh(), {"epoch": 0, "steps": 0})
    for stop in range(1, SHORT):
        manual_seed(1)
        first, state = train(fresh(), {"epoch": 0, "steps": 0}, stop)
        rest, _ = go_on(fresh(), state)
        assert first + rest == whole


def test_with_replacement_and_with_a_batch_sampler():
    def fresh():
        sampler = RandomSampler(range(100), replacement=True, num_samples=90)
        return DataLoader(Numbers(100), batch_sampler=BatchSampler(sampler, 7, drop_last=True))

    manual_seed(1)
    whole, _ = train(fresh(), {"epoch": 0, "steps": 0})
    manual_seed(1)
    first, state = train(fresh(), {"epoch": 0, "steps": 0}, 9)
    assert first + go_on(fresh(), state)[0] == whole


def test_with_a_distributed_sampler():
    sampler = DistributedSampler(range(20), 2, 1)
    sampler.set_epoch(4)
    loader = DataLoader(Numbers(20), 3, sampler=sampler)
    whole = [batch.tolist() for batch in loader]
    batches = iter(loader)
    first = [next(batches).tolist()]
    other = DataLoader(Numbers(20), 3, sampler=sampler)
    other.load_state_dict(loader.state_dict())
    assert first + [batch.tolist() for batch in other] == whole
    assert [batch.tolist() for batch in other] == whole


def test_between_epochs_there_is_nothing_to_go_on_with():
    loader = make(0)
    assert loader.state_dict()["random"] is None
    assert len(list(loader)) == 4
    state = loader.state_dict()
    assert state == {"batches": 0, "base_seed": None, "random": None}
    other = make(0)
    other.load_state_dict(state)
    assert len(list(other)) == 4


def test_what_cannot_go_on_says_so():
    with pytest.raises(TypeError, match="the position in Count, an IterableDataset, is not known"):
        DataLoader(Count(3)).state_dict()
    with pytest.raises(ValueError, match=r"got the keys \['epoch'\]"):
        make(0).load_state_dict({"epoch": 3})
