"""The loader against PyTorch's: the same samples in the same order from the same seed, the same types and errors."""

import collections
import contextlib
import inspect
import random

import numpy as np
import pytest

import rushlight_data as ours
from rushlight_tensor import Tensor, tensor
from rushlight_tensor.random import Generator, get_rng_state, manual_seed
from tests.data.samples import Who

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torch.utils.data")

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

Point = collections.namedtuple("Point", "x y")


def both(seed, run):
    """What `run(package, generator, tensor)` gives under both, and whether the random streams went equally far."""
    manual_seed(seed)
    torch.manual_seed(seed)
    mine = run(ours, Generator().manual_seed(seed), tensor)
    reference = run(theirs, torch.Generator().manual_seed(seed), torch.tensor)
    assert get_rng_state().tolist() == torch.get_rng_state().tolist()
    return mine, reference


def plain(value):
    if isinstance(value, (Tensor, torch.Tensor)):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return type(value).__name__, {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, collections.deque)):
        return type(value).__name__, [plain(v) for v in value]
    return value


@pytest.mark.parametrize("seed", [0, 1, 12345])
@pytest.mark.parametrize("n", [1, 10, 1000])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_samples": 3},
        {"num_samples": 2500},
        {"replacement": True},
        {"replacement": True, "num_samples": 70},
    ],
)
@pytest.mark.parametrize("own_generator", [False, True])
def test_random_sampler(seed, n, arguments, own_generator):
    def run(package, generator, _):
        sampler = package.RandomSampler(range(n), generator=generator if own_generator else None, **arguments)
        return [list(sampler), list(sampler)]

    mine, reference = both(seed, run)
    assert mine == reference


def test_subset_and_weighted_samplers():
    def run(package, generator, _):
        weights = [0.1, 3.0, 0.0, 2.0, 1.0]
        return [
            list(package.SubsetRandomSampler([4, 8, 15, 16, 23, 42])),
            list(package.SubsetRandomSampler([4, 8, 15, 16, 23, 42], generator=generator)),
            list(package.WeightedRandomSampler(weights, 50)),
            list(package.WeightedRandomSampler(weights, 4, replacement=False, generator=generator)),
            list(package.WeightedRandomSampler(weights, 20, generator=generator)),
        ]

    mine, reference = both(3, run)
    assert mine == reference


@pytest.mark.parametrize("n", [1, 7, 64])
@pytest.mark.parametrize("world", [1, 3, 10])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_distributed_sampler(n, world, drop_last, shuffle):
    def run(package, *_):
        orders = []
        for rank in range(world):
            sampler = package.DistributedSampler(range(n), world, rank, shuffle, seed=5, drop_last=drop_last)
            for epoch in (0, 3):
                sampler.set_epoch(epoch)
                orders.append((len(sampler), list(sampler)))
        return orders

    mine, reference = both(0, run)
    assert mine == reference


@pytest.mark.parametrize("lengths", [[7, 3], [0.5, 0.5], [0.3, 0.3, 0.4], [0.11] * 9 + [0.01]])
def test_random_split(lengths):
    def run(package, generator, _):
        splits = [package.random_split(range(10), lengths), package.random_split(range(10), lengths, generator)]
        return [[list(part.indices) for part in split] for split in splits]

    empty = pytest.warns(UserWarning, match="Length of split at index 9 is 0")
    with empty if len(lengths) > 9 else contextlib.nullcontext():
        mine, reference = both(4, run)
    assert mine == reference


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("arguments", [{}, {"shuffle": True}, {"shuffle": True, "drop_last": True}])
def test_loader_gives_the_same_batches_for_the_same_seed(workers, own_generator, arguments):
    def run(package, generator, make):
        x = make(np.random.RandomState(0).rand(50, 3).tolist())
        dataset = package.TensorDataset(x, make(list(range(50))))
        given = generator if own_generator else None
        loader = package.DataLoader(dataset, 8, num_workers=workers, generator=given, **arguments)
        return [[plain(batch) for batch in loader] for _ in range(2)]

    mine, reference = both(11, run)
    assert mine == reference


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_have_the_same_seeds_and_random_numbers(persistent):
    class Same(Who):
        def __getitem__(self, index):
            info = ours.get_worker_info() or theirs.get_worker_info()
            return info.id, info.num_workers, info.seed, float(np.random.rand()), random.random()

    def run(package, *_):
        loader = package.DataLoader(Same(9), None, num_workers=2, persistent_workers=persistent, shuffle=True)
        return [list(map(list, loader)) for _ in range(2)]

    mine, reference = both(2, run)
    assert mine == reference


BATCHES = [
    [1, 2],
    [1.5, 2.5],
    [1, 2.5],
    [True, False],
    ["a", "b"],
    [np.float32(1), np.float32(2)],
    [np.uint8(3)],
    [np.array([1, 2]), np.array([3, 4])],
    [np.array(1.0), np.array(2.0)],
    [(1, "a"), (2, "b")],
    [[1, 2], [3, 4]],
    [{"a": 1, "b": [1, 2.0]}, {"a": 2, "b": [3, 4.0]}],
    [collections.OrderedDict(a=1)],
    [collections.deque([1, 2])],
    [range(3), range(3)],
    [Point(1, 2.0), Point(3, 4.0)],
]


@pytest.mark.parametrize("batch", BATCHES, ids=repr)
def test_collate(batch):
    assert plain(ours.default_collate(batch)) == plain(theirs.default_collate(batch))


@pytest.mark.parametrize("batch", [*BATCHES, [None], [{1}], [np.array(["a"])], [np.zeros(1), "s"]], ids=repr)
def test_convert(batch):
    assert plain(ours.default_convert(batch[0])) == plain(theirs.default_convert(batch[0]))


@pytest.mark.parametrize(
    "batch",
    [
        [None],
        [object()],
        [np.array("a")],
        [{1}],
        [1j],
        [np.zeros(2), np.zeros(1)],
        [[1], [1, 2]],
        [{"a": 1}, {"b": 1}],
        [],
    ],
    ids=lambda batch: repr(batch).partition(" at 0x")[0],  # two processes collect the same names
)
def test_collate_refuses_with_the_same_type_of_error(batch):
    with pytest.raises(Exception) as reference:
        theirs.default_collate(batch)
    with pytest.raises(reference.type):
        ours.default_collate(batch)


class Uneven:
    """An iterable dataset whose workers have different numbers of samples."""

    def samples(self, info):
        return iter(range(5 + 3 * info.id)) if info else iter(range(5))


class OurUneven(Uneven, ours.IterableDataset):
    def __iter__(self):
        return self.samples(ours.get_worker_info())


class TheirUneven(Uneven, theirs.IterableDataset):
    def __iter__(self):
        return self.samples(theirs.get_worker_info())


@pytest.mark.parametrize("batch_size", [None, 1, 2])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_iterable_datasets(batch_size, workers):
    mine = ours.DataLoader(OurUneven(), batch_size, num_workers=workers)
    reference = theirs.DataLoader(TheirUneven(), batch_size, num_workers=workers)
    assert [plain(batch) for batch in mine] == [plain(batch) for batch in reference]


REFUSED = [
    {"num_workers": -1},
    {"timeout": -1},
    {"prefetch_factor": 2},
    {"prefetch_factor": -1, "num_workers": 1},
    {"persistent_workers": True},
    {"sampler": [0], "shuffle": True},
    {"batch_sampler": [[0]], "batch_size": 2},
    {"batch_sampler": [[0]], "shuffle": True},
    {"batch_sampler": [[0]], "drop_last": True},
    {"batch_size": None, "drop_last": True},
    {"batch_size": 0},
    {"batch_size": True},
    {"multiprocessing_context": "fork"},
    {"multiprocessing_context": "bad", "num_workers": 1},
    {"multiprocessing_context": 5, "num_workers": 1},
]


@pytest.mark.parametrize("arguments", REFUSED, ids=repr)
def test_the_loader_refuses_the_same_arguments(arguments):
    with pytest.raises((ValueError, TypeError)) as reference:
        theirs.DataLoader([1, 2, 3], **arguments)
    with pytest.raises(reference.type) as mine:
        ours.DataLoader([1, 2, 3], **arguments)
    assert str(mine.value) == str(reference.value)


def test_signatures_are_the_same():
    for name in ("DataLoader", "RandomSampler", "WeightedRandomSampler", "BatchSampler", "SubsetRandomSampler"):
        mine = inspect.signature(getattr(ours, name)).parameters
        reference = inspect.signature(getattr(theirs, name)).parameters
        assert [(p.name, p.default, p.kind) for p in mine.values()] == [
            (p.name, p.default, p.kind) for p in reference.values()
        ]


def test_the_package_has_pytorchs_names():
    ours_lacks = {name for name in theirs.__all__ if not hasattr(ours, name)}
    pipes = {name for name in ours_lacks if "Pipe" in name or "datapipe" in name or "determin" in name}
    assert ours_lacks - pipes <= {"DataChunk", "_DatasetKind", "argument_validation", "runtime_validation"} | {
        "runtime_validation_disabled"
    }
