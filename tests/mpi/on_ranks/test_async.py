"""Collectives that are started: they run in their order, read memory when it is their turn, and write it before `wait`.

Every case starts an earlier collective on the same memory and does not wait for it; a copy taken too early would miss
its result.
"""

import time

import numpy as np
import pytest

import rushlight_distributed as dist
import rushlight_tensor as T
from rushlight_distributed import ReduceOp
from rushlight_distributed.group import default_group
from rushlight_tensor.core.tensor import wrap
from tests.mpi.ranks import RANK, SIZE

pytestmark = pytest.mark.mpi(min_size=2)

RANKS = SIZE * (SIZE - 1) / 2  # sum of all ranks


@pytest.fixture(autouse=True)
def slow_thread():
    """The group's thread is busy while the test starts its collectives."""
    work = default_group()._worker.start(lambda: time.sleep(0.02))
    yield
    work.wait()


def plain(shape):
    return T.zeros(*shape) + float(RANK)


def with_gaps(shape):
    return wrap(np.full((*shape[:-1], 2 * shape[-1]), RANK, np.float32)[..., ::2])


def transposed(shape):
    return wrap(np.full(shape[::-1], RANK, np.float32).T)


def backwards(shape):
    return wrap(np.full(shape, RANK, np.float32)[..., ::-1])


MAKERS = [plain, with_gaps, transposed, backwards]
SHAPE = (SIZE, 3)


@pytest.mark.parametrize("make", MAKERS)
class TestReadsWhatEarlierOnesWrote:
    def start(self, make):
        """A tensor of ranks that a collective under way turns into their sum."""
        x = make(SHAPE)
        return x, [dist.all_reduce(x, async_op=True)]

    def finish(self, works, tensor, expected):
        for work in works:
            assert work.wait()
        np.testing.assert_array_equal(tensor._array, expected)

    def test_all_reduce(self, make):
        x, works = self.start(make)
        works += [dist.all_reduce(x, async_op=True) for _ in range(2)]
        self.finish(works, x, RANKS * SIZE * SIZE)

    def test_reduce(self, make):
        x, works = self.start(make)
        works.append(dist.reduce(x, 0, async_op=True))
        self.finish(works, x, RANKS * SIZE if RANK == 0 else RANKS)

    def test_broadcast(self, make):
        x, works = self.start(make)
        x2 = make(SHAPE)
        works += [dist.all_reduce(x2, ReduceOp.MAX, async_op=True), dist.broadcast(x2, 0, async_op=True)]
        self.finish(works, x, RANKS)
        assert (x2._array == SIZE - 1).all()

    def test_all_gather(self, make):
        x, works = self.start(make)
        outs = [make(SHAPE) for _ in range(SIZE)]
        works.append(dist.all_gather(outs, x, async_op=True))
        for out in outs:
            self.finish(works, out, RANKS)

    def test_all_gather_into_tensor(self, make):
        x, works = self.start(make)
        out = make((SIZE * SIZE, 3))
        works.append(dist.all_gather_into_tensor(out, x, async_op=True))
        self.finish(works, out, RANKS)

    def test_gather(self, make):
        x, works = self.start(make)
        outs = [make(SHAPE) for _ in range(SIZE)]
        works.append(dist.gather(x, outs if RANK == 0 else None, 0, async_op=True))
        for out in outs:
            self.finish(works, out, RANKS if RANK == 0 else RANK)

    def test_scatter(self, make):
        x, works = self.start(make)
        out = make(SHAPE)
        works.append(dist.scatter(out, [x] * SIZE if RANK == 0 else None, 0, async_op=True))
        self.finish(works, out, RANKS)

    def test_reduce_scatter(self, make):
        x, works = self.start(make)
        out = make(SHAPE)
        works.append(dist.reduce_scatter(out, [x] * SIZE, async_op=True))
        self.finish(works, out, RANKS * SIZE)

    def test_reduce_scatter_tensor(self, make):
        x, works = self.start(make)
        out = make((1, 3))
        works.append(dist.reduce_scatter_tensor(out, x, async_op=True))
        self.finish(works, out, RANKS * SIZE)

    def test_all_to_all(self, make):
        x, works = self.start(make)
        outs = [make(SHAPE) for _ in range(SIZE)]
        works.append(dist.all_to_all(outs, [x] * SIZE, async_op=True))
        for out in outs:
            self.finish(works, out, RANKS)

    def test_all_to_all_single(self, make):
        x, works = self.start(make)
        out = make(SHAPE)
        works.append(dist.all_to_all_single(out, x, async_op=True))
        self.finish(works, out, RANKS)

    def test_a_collective_that_waits_comes_after_those_that_were_started(self, make):
        x, works = self.start(make)
        dist.all_reduce(x)
        self.finish(works, x, RANKS * SIZE)

    def test_views_of_one_memory_that_overlap(self, make):
        base = make((4, 6))
        works = [dist.all_reduce(view, async_op=True) for view in (base[:3], base[1:], base[:, ::2])]
        expected = np.full((4, 6), float(RANK))
        everyone = [np.full((4, 6), float(r)) for r in range(SIZE)]
        for cut in (np.s_[:3], np.s_[1:], np.s_[:, ::2]):
            total = sum(e[cut] for e in everyone)
            for e in everyone:
                e[cut] = total
            expected[cut] = total
        self.finish(works, base, expected)


def test_results_leave_what_lies_between_strides_alone():
    wide = T.full((4, 4), -1.0)
    view = wide[:, ::2]
    view._array[...] = RANK
    dist.all_reduce(view, async_op=True).wait()
    assert wide[:, ::2].tolist() == [[RANKS, RANKS]] * 4
    assert wide[:, 1::2].tolist() == [[-1.0, -1.0]] * 4


def test_tensors_that_require_grad_are_written_as_pytorch_does():
    leaf = T.ones(2, requires_grad=True)
    inner = leaf * float(RANK)
    dist.all_reduce(leaf)
    dist.all_reduce(inner)
    assert leaf.requires_grad
    assert leaf.tolist() == [SIZE, SIZE]
    assert inner.tolist() == [RANKS, RANKS]
    out = [T.zeros(2, requires_grad=True) for _ in range(SIZE)]
    dist.all_gather(out, inner)
    assert all(o.is_leaf and o.requires_grad and o.tolist() == [RANKS, RANKS] for o in out)


def test_error_of_a_started_collective_comes_with_wait():
    outs, parts = [T.zeros(2 + (RANK == 0)) for _ in range(SIZE)], [T.zeros(2) for _ in range(SIZE)]
    work = dist.all_to_all(outs, parts, async_op=True)
    with pytest.raises(dist.ContractError, match=r"which has room for float32\[3\]"):
        work.wait()
    assert not work.is_success()
    dist.barrier()
