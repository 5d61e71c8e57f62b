"""The loader's arguments, and iteration in the training process."""

import multiprocessing

import numpy as np
import pytest

from rushlight_data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
    get_worker_info,
)
from rushlight_tensor import tensor
from rushlight_tensor.random import Generator, get_rng_state, manual_seed
from tests.data.samples import Count, Numbers


def test_batches_in_order():
    assert [batch.tolist() for batch in DataLoader(Numbers(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [batch.tolist() for batch in DataLoader(Numbers(5), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert len(DataLoader(Numbers(5), 2)) == len(iter(DataLoader(Numbers(5), 2))) == 3
    assert len(DataLoader(Numbers(5), 2, drop_last=True)) == 2


def test_a_list_is_a_dataset():
    assert next(iter(DataLoader([1.0, 2.0], 2))).tolist() == [1.0, 2.0]
    assert list(DataLoader([])) == []


def test_without_batches_samples_come_one_by_one():
    assert list(DataLoader(Numbers(3), batch_size=None)) == [0, 1, 2]
    assert len(DataLoader(Numbers(3), batch_size=None)) == 3
    sample = next(iter(DataLoader([(np.zeros(2), "a")], batch_size=None)))
    assert [sample[0].tolist(), sample[1]] == [[0.0, 0.0], "a"]


def test_batch_sampler_and_sampler():
    batches = BatchSampler(SequentialSampler(range(5)), 2, drop_last=False)
    loader = DataLoader(Numbers(5), batch_sampler=batches)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4]]
    assert loader.batch_size is None
    assert len(loader) == 3
    assert [batch.tolist() for batch in DataLoader(Numbers(5), 2, sampler=[4, 1, 3])] == [[4, 1], [3]]
    assert [batch.tolist() for batch in DataLoader(Numbers(5), batch_sampler=[[4], [1, 3]])] == [[4], [1, 3]]


def test_collate_fn():
    assert list(DataLoader(Numbers(3), 2, collate_fn=tuple)) == [(0, 1), (2,)]
    assert list(DataLoader(Numbers(2), None, collate_fn=str)) == ["0", "1"]


def test_shuffle_is_new_in_each_epoch_and_repeats_with_the_seed():
    loader = DataLoader(Numbers(40), 40, shuffle=True)
    manual_seed(0)
    first, second = next(iter(loader)).tolist(), next(iter(loader)).tolist()
    manual_seed(0)
    assert next(iter(loader)).tolist() == first != second
    assert sorted(second) == list(range(40))
    generator = Generator().manual_seed(4)
    alone = [next(iter(DataLoader(Numbers(40), 40, shuffle=True, generator=generator))).tolist() for _ in range(2)]
    assert alone[0] != alone[1]


def test_an_epoch_draws_a_base_seed_when_it_begins():
    loader = DataLoader(Numbers(3))
    before = get_rng_state().tolist()
    batches = iter(loader)
    after = get_rng_state().tolist()
    list(batches)
    assert before != after == get_rng_state().tolist()


def test_iterable_datasets():
    assert [batch.tolist() for batch in DataLoader(Count(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [batch.tolist() for batch in DataLoader(Count(5), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Count(3), None)) == [0, 1, 2]
    assert len(DataLoader(Count(5, length=5), 2)) == 3
    with pytest.raises(TypeError, match="len"):
        len(DataLoader(Count(5)))


def test_an_iterable_dataset_with_a_wrong_length_is_told():
    loader = DataLoader(Count(3, length=2), None)
    assert sum(1 for _ in loader) == 3
    assert len(loader) == 2
    with pytest.warns(UserWarning, match="was reported to be 2 "):
        assert list(loader) == [0, 1, 2]


def test_many_at_once():
    class Many(Numbers):
        def __getitems__(self, indices):
            return [10 * i for i in indices]

    assert next(iter(DataLoader(Many(3), 3))).tolist() == [0, 10, 20]


def test_two_iterations_at_once_do_not_mix():
    loader = DataLoader(Numbers(4), 2)
    assert [(a.tolist(), b.tolist()) for a, b in zip(loader, loader, strict=True)] == [([0, 1],) * 2, ([2, 3],) * 2]


def test_errors_come_through_and_the_epoch_goes_on():
    batches = iter(DataLoader(Numbers(6, fail_at=2, error=KeyError("bad")), 2))
    next(batches)
    with pytest.raises(KeyError, match="bad"):
        next(batches)
    assert next(batches).tolist() == [4, 5]


def test_stop_iteration_in_a_dataset_does_not_end_the_epoch_silently():
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(DataLoader(Numbers(6, fail_at=2, error=StopIteration()), 2))


def test_no_worker_here():
    assert get_worker_info() is None


def test_gradients_flow_through_a_loader_without_workers():
    x = tensor([[1.0], [2.0]], requires_grad=True)
    (batch,) = next(iter(DataLoader(TensorDataset(x), 2)))
    assert batch.requires_grad


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_workers": -1}, ValueError, "num_workers option should be non-negative"),
        ({"num_workers": 1.5}, TypeError, "num_workers should be an integer"),
        ({"timeout": -1}, ValueError, "timeout option should be non-negative"),
        ({"prefetch_factor": 2}, ValueError, "prefetch_factor option could only be specified in multiprocessing"),
        ({"prefetch_factor": -1, "num_workers": 1}, ValueError, "prefetch_factor option should be non-negative"),
        ({"persistent_workers": True}, ValueError, "persistent_workers option needs num_workers > 0"),
        ({"sampler": [0], "shuffle": True}, ValueError, "sampler option is mutually exclusive with shuffle"),
        ({"batch_sampler": [[0]], "batch_size": 2}, ValueError, "batch_sampler option is mutually exclusive"),
        ({"batch_size": None, "drop_last": True}, ValueError, "mutually exclusive with drop_last"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"batch_size": 1.5}, ValueError, "positive integer"),
        ({"multiprocessing_context": "fork"}, ValueError, "num_workers > 0"),
        ({"multiprocessing_context": "bad", "num_workers": 1}, ValueError, "valid start method in"),
        ({"multiprocessing_context": 5, "num_workers": 1}, TypeError, "valid context object"),
    ],
)
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        DataLoader(Numbers(3), **arguments)


@pytest.mark.parametrize("arguments", [{"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}])
def test_iterable_datasets_have_their_own_order(arguments):
    with pytest.raises(ValueError, match="DataLoader with IterableDataset: expected unspecified"):
        DataLoader(Count(3), **arguments)


@pytest.mark.parametrize(
    "name", ["batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"]
)
def test_what_may_not_be_changed_later(name):
    loader = DataLoader(Numbers(3))
    with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is initialized"):
        setattr(loader, name, None)


def test_timeout_needs_workers():
    with pytest.raises(ValueError, match="set num_workers > 0"):
        iter(DataLoader(Numbers(3), timeout=1))


def test_contexts_of_multiprocessing_are_taken():
    context = multiprocessing.get_context("fork")
    assert DataLoader(Numbers(3), num_workers=1, multiprocessing_context=context).multiprocessing_context is context


def test_pin_memory_without_a_gpu_is_told(monkeypatch):
    monkeypatch.setattr("rushlight_tensor.core.cuda.is_available", lambda: False)
    with pytest.warns(UserWarning, match="no accelerator is found"):
        next(iter(DataLoader(Numbers(3), pin_memory=True)))


def test_annotations_take_an_item_type():
    assert DataLoader[int] is not None
    assert IterableDataset[int] is not None
