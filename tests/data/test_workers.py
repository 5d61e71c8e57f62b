"""Loading with worker processes: the same batches as without, wherever the workers come from."""

import os
import sys
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from rushlight_data import DataLoader, TensorDataset, blocks, default_collate
from rushlight_data.parallel import WorkerIterator
from rushlight_tensor import tensor
from rushlight_tensor.random import manual_seed
from tests.data.samples import Count, Images, Numbers, Uneven, Unpicklable, Who

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine with one core

START = pytest.mark.parametrize("start", [None, "spawn"])


def plain(batch):
    """A batch as lists, for comparing."""
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [plain(value) for value in batch]
    return batch.tolist() if hasattr(batch, "tolist") else batch


def open_files():
    return len(os.listdir("/proc/self/fd"))


def children():
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@START
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_those_without_workers(start, workers):
    expected = [plain(batch) for batch in DataLoader(Images(23), 5)]
    loader = DataLoader(Images(23), 5, num_workers=workers, multiprocessing_context=start)
    assert len(expected) == len(loader) == 5
    for _ in range(2):
        assert [plain(batch) for batch in loader] == expected


def test_the_same_seed_gives_the_same_order_with_and_without_workers():
    orders = []
    for workers in (0, 1, 2):
        manual_seed(7)
        orders.append([plain(batch) for batch in DataLoader(Numbers(30), 4, shuffle=True, num_workers=workers)])
    assert orders[0] == orders[1] == orders[2]


@START
def test_every_worker_is_seeded_by_base_seed_and_number(start):
    def run():
        manual_seed(5)
        loader = DataLoader(Who(8), batch_size=None, num_workers=2, multiprocessing_context=start)
        return [sample[:6] for sample in loader]

    samples = run()
    assert samples == run()
    assert [sample[0] for sample in samples] == [0, 1] * 4
    base_seed = samples[0][2]
    for number, count, seed, initial_seed, *_ in samples:
        assert (count, seed, initial_seed) == (2, base_seed + number, base_seed + number)
    assert len({sample[4] for sample in samples}) == len({sample[5] for sample in samples}) == 8


def test_workers_end_with_the_epoch_unless_they_are_persistent():
    before = children()
    loader = DataLoader(Who(4), batch_size=None, num_workers=2)
    pids = [{sample[6] for sample in loader} for _ in range(2)]
    assert not pids[0] & pids[1]
    assert children() == before
    loader = DataLoader(Who(4), batch_size=None, num_workers=2, persistent_workers=True)
    pids = [{sample[6] for sample in loader} for _ in range(2)]
    assert pids[0] == pids[1] == children() - before
    del loader
    assert children() == before


def test_an_early_break_ends_the_workers_at_once():
    before = children()
    for _ in DataLoader(Images(1000), 2, num_workers=2):
        break
    assert children() == before


def test_a_new_epoch_of_persistent_workers_after_a_break():
    loader = DataLoader(Numbers(40), 2, num_workers=2, persistent_workers=True)
    for stop in (1, 3, 0):
        for i, batch in enumerate(loader):
            assert batch.tolist() == [2 * i, 2 * i + 1]
            if i == stop:
                break
    assert len(list(loader)) == 20


@START
def test_batches_that_are_kept_keep_their_values(start):
    loader = DataLoader(Images(2 * (blocks.MOST_LEASES + 20)), 2, num_workers=1, multiprocessing_context=start)
    batches = list(loader)
    assert all((batch["image"].numpy() == batch["label"].numpy()[:, None, None, None]).all() for batch in batches)
    assert all((batch["turned"].numpy()[i] == batch["image"].numpy()[i].T).all() for batch in batches for i in (0, 1))


def test_memory_is_used_again_and_given_back():
    before = open_files()
    loader = DataLoader(Images(400), 2, num_workers=2, persistent_workers=True)
    most = 0
    for batch in loader:
        assert batch["image"].shape == (2, 3, 40, 40)
        most = max(most, open_files())
    assert most < before + 40
    del loader, batch
    assert open_files() == before


KINDS = [
    np.zeros((0, 3)),
    np.array(3.5),
    np.array([{"a": 1}], dtype=object),
    np.zeros(5000, dtype=[("a", "i4"), ("b", "f8")]),
    np.ones(40_000, dtype=ml_dtypes.bfloat16),
    np.arange(100_000).reshape(100, 1000).T,
    np.arange(100_000)[::2],
    np.array(["abc"] * 20_000),
    np.arange(10, dtype=">i4"),
    np.array(["2020-01-01"] * 9000, dtype="datetime64[D]"),
    np.ma.masked_array(np.arange(20_000.0), mask=np.arange(20_000) % 2 == 0),
    np.broadcast_to(np.float32(3), (200, 200)),
    tensor(1.0),
    tensor(np.zeros((0, 4))),
    tensor(np.arange(60_000).reshape(200, 300)).t(),
    b"x" * 200_000,
    2**80,
    None,
    Counter("hello"),
]


@START
def test_whatever_a_sample_is_it_arrives(start):
    loader = DataLoader(KINDS, None, num_workers=1, multiprocessing_context=start, collate_fn=lambda sample: sample)
    for sample, arrived in zip(KINDS, loader, strict=True):
        assert type(arrived) is type(sample)
        assert getattr(arrived, "dtype", None) == getattr(sample, "dtype", None)
        np.testing.assert_array_equal(np.asarray(arrived), np.asarray(sample))


def test_batches_may_be_written_to():
    for batch in DataLoader(Images(8), 4, num_workers=1):
        batch["image"].numpy()[:] += 1


def test_growing_and_shrinking_batches():
    sizes = [1, 30, 200, 3, 150, 1, 260, 260, 5]
    dataset = TensorDataset(tensor(np.arange(300 * 100).reshape(300, 100)))
    loader = DataLoader(dataset, batch_sampler=[list(range(size)) for size in sizes], num_workers=1)
    for size, (batch,) in zip(sizes, loader, strict=True):
        assert (batch.numpy() == np.arange(size * 100).reshape(size, 100)).all()


def test_shared_memory_has_no_name():
    batches = iter(DataLoader(Images(16), 4, num_workers=1))
    batch = next(batches)
    maps = Path("/proc/self/maps").read_text() + Path(f"/proc/{batches._batches.workers[0].pid}/maps").read_text()
    assert "memfd:rushlight_data" in maps
    assert "/dev/shm" not in maps
    assert batch["image"].shape == (4, 3, 40, 40)


@START
def test_iterable_datasets_are_shared_out(start):
    loader = DataLoader(Count(11), 2, num_workers=2, multiprocessing_context=start)
    assert [plain(batch) for batch in loader] == [[0, 2], [1, 3], [4, 6], [5, 7], [8, 10], [9]]
    assert [plain(b) for b in DataLoader(Count(11), 2, drop_last=True, num_workers=2)][-1] == [8, 10]
    loader = DataLoader(Count(7), None, num_workers=3, persistent_workers=True, multiprocessing_context=start)
    for _ in range(2):
        assert list(loader) == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("lengths", "order"),
    [
        ((1, 4, 4), [0, 100, 200, 101, 201, 102, 202, 103, 203]),
        ((3, 0, 5), [0, 200, 1, 201, 2, 202, 203, 204]),
        ((2, 5, 1), [0, 100, 200, 1, 101, 102, 103, 104]),
    ],
)
def test_workers_without_more_samples_are_passed_over_in_pytorchs_order(lengths, order):
    for ahead in (1, 3):
        loader = DataLoader(Uneven(lengths), batch_size=1, num_workers=3, prefetch_factor=ahead)
        assert [batch.item() for batch in loader] == order


def test_the_next_task_goes_to_whom_it_would_have_gone_when_another_worker_retires():
    for turn in range(4):
        for gone in range(4):
            iterator = object.__new__(WorkerIterator)
            iterator._active, iterator._turn, iterator._pending = [*range(4)], turn, {}
            iterator._retire(gone)
            expected = turn if turn != gone else (turn + 1) % 4
            assert iterator._active[iterator._turn % 3] == expected


def test_batches_that_a_worker_keeps_are_not_written_over():
    assert [
        int(wrong) for _, wrong in DataLoader(Numbers(64), batch_size=4, num_workers=1, collate_fn=kept_and_checked)
    ] == [0] * 16


_KEPT = []


def kept_and_checked(batch):
    """The batch, of a size that travels in shared memory, and how many earlier ones are no longer what they were."""
    made = default_collate([tensor(np.full(20_000, float(i))) for i in batch])
    _KEPT.append((made, float(batch[0])))
    return made, sum(t[0, 0].item() != first for t, first in _KEPT)


def test_an_iterable_dataset_that_does_not_share_is_told():
    loader = DataLoader(Count(3, length=2), None, num_workers=1)
    assert len(loader) == 2
    with pytest.warns(UserWarning, match="get_worker_info"):
        list(loader)


def test_batches_as_they_get_ready():
    loader = DataLoader(Numbers(30), 3, num_workers=2, in_order=False)
    assert sorted(i for batch in loader for i in batch.tolist()) == list(range(30))


def test_batches_as_they_get_ready_are_asked_of_whoever_has_least_to_do():
    loader = DataLoader(Who(6), 1, num_workers=3, in_order=False, prefetch_factor=2)
    assert sorted(batch[0].item() for batch in loader) == [0, 0, 1, 1, 2, 2]


def test_prefetch_factor_bounds_the_tasks_ahead():
    asked = []

    class Asked(list):
        def __iter__(self):
            for i in range(20):
                asked.append(i)
                yield [i]

    batches = iter(DataLoader(Numbers(20), batch_sampler=Asked(), num_workers=2, prefetch_factor=3))
    assert len(asked) == 6
    next(batches)
    assert len(asked) == 7


def test_worker_init_fn_runs_in_each_worker():
    def init(number):
        np.random.seed(number)

    values = [s[5] for s in DataLoader(Who(4), None, num_workers=2, worker_init_fn=init)]
    expected = [np.random.RandomState(number).rand(2).tolist() for number in (0, 1)]
    assert values == [expected[0][0], expected[1][0], expected[0][1], expected[1][1]]


def test_what_a_script_defines_reaches_workers_of_a_clean_process():
    scale = 3

    class Local(Numbers):
        def __getitem__(self, index):
            return scale * index

    Local.__module__ = "__main__"  # as in a script
    Local.__getitem__.__module__ = "__main__"
    loader = DataLoader(Local(4), 4, num_workers=1, multiprocessing_context="spawn", collate_fn=lambda batch: batch)
    assert list(loader) == [[0, 3, 6, 9]]


@START
def test_workers_have_the_surroundings_of_the_training_process(start, tmp_path, monkeypatch):
    list(DataLoader(Numbers(2), num_workers=1, multiprocessing_context=start))  # the clean process runs already
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SURROUNDINGS", "new")
    monkeypatch.setattr(sys, "argv", ["program", "--option"])
    monkeypatch.syspath_prepend(tmp_path / "more")
    loader = DataLoader([0], None, num_workers=1, multiprocessing_context=start, collate_fn=surroundings)
    assert list(loader) == [surroundings(0)]


def surroundings(_):
    return os.getcwd(), os.environ["SURROUNDINGS"], sys.argv, sys.path, repr(tensor(1.0).dtype)


def test_a_large_dataset_reaches_workers_of_a_clean_process():
    array = np.random.rand(64, 5000)
    loader = DataLoader(TensorDataset(tensor(array)), 16, num_workers=2, multiprocessing_context="spawn")
    assert (np.concatenate([batch.numpy() for (batch,) in loader]) == array).all()


def test_a_large_task_does_not_block_either_side():
    tasks = [list(range(60_000))] * 6
    loader = DataLoader(Numbers(60_000), batch_sampler=tasks, num_workers=1, collate_fn=bytes_of)
    assert [len(batch) for batch in loader] == [600_000] * 6


def bytes_of(batch):
    return b"0123456789" * len(batch)


def test_a_failing_sample_is_named_with_the_workers_traceback():
    batches = iter(DataLoader(Numbers(12, fail_at=5, error=ValueError("no such image")), 2, num_workers=2))
    assert [next(batches).tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="Caught ValueError in DataLoader worker process 0") as caught:
        next(batches)
    text = str(caught.value)
    assert "at sample 5 of batch 2 (indices 4, 5)" in text
    assert "samples.py" in text
    assert text.endswith("ValueError: no such image\n")
    assert [batch.tolist() for batch in batches] == [[6, 7], [8, 9], [10, 11]]


def test_a_key_error_is_shown_with_its_line_breaks():
    with pytest.raises(KeyError) as caught:
        list(DataLoader(Numbers(2, fail_at=0, error=KeyError("k")), 2, num_workers=1))
    assert "\nOriginal Traceback" in str(caught.value)


@START
@pytest.mark.parametrize(
    "error",
    [
        Unpicklable(1, 2),
        UnicodeDecodeError("utf8", b"a", 0, 1, "x"),
        StopIteration("x"),
        SystemExit(3),
        GeneratorExit(),
    ],
)
def test_odd_exceptions_become_a_runtime_error_with_their_name(error, start):
    loader = DataLoader(Numbers(4, fail_at=1, error=error), 2, num_workers=1, multiprocessing_context=start)
    with pytest.raises(RuntimeError, match=f"Caught {type(error).__name__} in DataLoader worker process 0"):
        list(loader)


def test_an_exception_type_of_the_script_is_found_again():
    class Mine(Exception):
        pass

    Mine.__module__ = "__main__"
    loader = DataLoader(Numbers(2, 0, Mine("x")), 2, num_workers=1, multiprocessing_context="spawn")
    with pytest.raises(Mine):
        list(loader)


def test_a_batch_that_cannot_be_sent_is_named():
    loader = DataLoader(Numbers(2), 2, num_workers=1, collate_fn=lambda batch: lambda: batch)
    with pytest.raises(TypeError, match=r"the batch \(a function\) cannot be sent to the training process"):
        list(loader)


def test_gradients_do_not_leave_a_worker():
    dataset = TensorDataset(tensor([[1.0], [2.0]], requires_grad=True))
    with pytest.raises(RuntimeError, match=r"requires grad.*x\.detach\(\)|gradient history"):
        list(DataLoader([dataset[0], dataset[1]], 2, num_workers=1))


def test_a_failing_worker_init_fn_is_reported():
    def init(number):
        raise OSError("no disk")

    with pytest.raises(OSError, match=r"Caught OSError in DataLoader worker process 0[\s\S]*no disk"):
        list(DataLoader(Numbers(2), 2, num_workers=1, worker_init_fn=init))


def test_a_dataset_that_cannot_be_pickled_is_named():
    dataset = Numbers(2)
    with Path(os.devnull).open() as dataset.file:
        with pytest.raises(
            RuntimeError, match=r"cannot send its dataset.*open files and connections in worker_init_fn"
        ):
            list(DataLoader(dataset, 2, num_workers=1, multiprocessing_context="spawn"))
        assert len(list(DataLoader(dataset, 2, num_workers=1))) == 1


def test_no_tasks_at_all():
    assert list(DataLoader(Numbers(0), 2, num_workers=2)) == []


def test_iterators_are_made_anew_after_use():
    batches = iter(DataLoader(Numbers(2), 2, num_workers=1))
    assert isinstance(batches._batches, WorkerIterator)
    assert len(list(batches)) == 1
    assert list(batches) == []
