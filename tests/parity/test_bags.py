"""F.embedding_bag: every form of it, offsets that are none, and what it costs with many bags."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import rushlight
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore")

MODES = ("sum", "mean", "max")
BAGS = [  # indices, offsets, whether the last is the end
    ([1, 2, 0, 2], [0], False), ([1, 2, 0, 2], [0, 0, 3, 4], False), ([1, 1, 1, 0], [0, 2], False),
    ([1, 2, 0, 2], [0, 1, 1, 4], True), ([1, 2], [0, 2], True), ([], [0], False), ([], [0, 0], True), ([], [0], True),
    ([[1, 2], [0, 1], [2, 2]], None, False), ([[1, 2]], None, True),
]  # fmt: skip
TABLE = [[1.0, -2.0], [3.0, 0.5], [3.0, 4.0]]


def bags(m, indices, offsets, last, mode, padding, dtypes=("int64", "int64"), weights=None, dtype="float32"):
    """The result, and the gradients of the table and of the weights."""
    table = m.tensor(TABLE, dtype=getattr(m, dtype), requires_grad=True)
    at = m.tensor(indices, dtype=getattr(m, dtypes[0]))
    offsets = None if offsets is None else m.tensor(offsets, dtype=getattr(m, dtypes[1]))
    if weights:
        weights = (m.arange(at.numel()) + 1.0).to(table.dtype).reshape(at.shape).requires_grad_()
    given = {"mode": mode, "include_last_offset": last, "padding_idx": padding, "per_sample_weights": weights or None}
    out = m.nn.functional.embedding_bag(at, table, offsets, **given)
    (out * (m.arange(out.numel()).reshape(out.shape) + 1).to(out.dtype)).sum().backward()
    return out, table.grad, None if weights is None else weights.grad


KINDS = [(mode, dtype) for mode in MODES for dtype in ("float32", "float64", "bfloat16")]
KINDS.remove(("mean", "bfloat16"))  # which PyTorch rounds more than once


@pytest.mark.parametrize(("mode", "dtype"), KINDS)
def test_bags_of_every_kind(mode, dtype):
    for (indices, offsets, last), padding in itertools.product(BAGS, (None, 0, -1)):
        for dtypes in itertools.product(("int64", "int32"), repeat=2):
            args = (indices, offsets, last, mode, padding, dtypes, None, dtype)
            theirs, ours = (outcome(lambda m, a=args: bags(m, *a), m) for m in (torch, rushlight))
            assert ours == theirs, args


@pytest.mark.parametrize("padding", [None, 2])
def test_weighted_bags(padding):
    for indices, offsets, last in BAGS:
        args = (indices, offsets, last, "sum", padding, ("int64", "int64"), True)
        theirs, ours = (outcome(lambda m, a=args: bags(m, *a), m) for m in (torch, rushlight))
        assert ours == theirs, args


REFUSED = {
    "an end beyond the indices": lambda m, f, i, w: f(i, w, m.tensor([0, 5])),
    "a last offset beyond the indices": lambda m, f, i, w: f(i, w, m.tensor([0, 3]), include_last_offset=True),
    "a first that is not 0": lambda m, f, i, w: f(i, w, m.tensor([1])),
    "a negative first": lambda m, f, i, w: f(i, w, m.tensor([-1])),
    "no last offset": lambda m, f, i, w: f(i, w, m.tensor([], dtype=m.int64), include_last_offset=True),
    "offsets of two dimensions": lambda m, f, i, w: f(i, w, m.tensor([[0]])),
    "no offsets": lambda m, f, i, w: f(i, w),
    "offsets of a batch": lambda m, f, i, w: f(i.reshape(1, 2), w, m.tensor([0])),
    "three dimensions": lambda m, f, i, w: f(i.reshape(1, 1, 2), w),
    "one number": lambda m, f, i, w: f(i[0], w, m.tensor([0])),
    "padding beyond the table": lambda m, f, i, w: f(i, w, m.tensor([0]), padding_idx=3),
    "an index beyond the table": lambda m, f, i, w: f(i + 1, w, m.tensor([0])),
    "a negative index": lambda m, f, i, w: f(i - 2, w, m.tensor([0]), mode="sum"),
    "weights of another shape": lambda m, f, i, w: f(
        i, w, m.tensor([0]), mode="sum", per_sample_weights=m.tensor([0.5])
    ),
    "weights of another dtype": lambda m, f, i, w: f(
        i, w, m.tensor([0]), mode="sum", per_sample_weights=m.tensor([0.5, 2.0], dtype=m.float16)
    ),
    "a weighted mean": lambda m, f, i, w: f(i, w, m.tensor([0]), per_sample_weights=m.tensor([0.5, 2.0])),
    "offsets that are floats": lambda m, f, i, w: f(i, w, m.tensor([0.0])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    def case(m):
        return REFUSED[name](m, m.nn.functional.embedding_bag, m.tensor([1, 2]), m.zeros(3, 2))

    theirs, ours = (outcome(case, m) for m in (torch, rushlight))
    assert theirs[0].endswith("Error")
    assert ours[0] == theirs[0], ours


def test_offsets_that_decrease_are_refused():
    """PyTorch reads what it finds there."""
    for offsets in ([0, 2, 1], [0, -1], [0, 3, 1]):
        with pytest.raises(RuntimeError, match="do not decrease"):
            rushlight.nn.functional.embedding_bag(
                rushlight.tensor([1, 2]), rushlight.zeros(3, 2), rushlight.tensor(offsets)
            )


def test_nan_is_the_largest_where_it_comes_first():
    for rows in itertools.product((1.0, 2.0, math.nan, -math.inf, math.inf), repeat=3):

        def largest(m, rows=rows):
            w = m.tensor(rows).reshape(3, 1).requires_grad_()
            y = m.nn.functional.embedding_bag(m.tensor([0, 1, 2]), w, m.tensor([0, 0]), mode="max")
            y.sum().backward()
            return y.isnan(), y.nan_to_num(), w.grad

        assert outcome(largest, rushlight) == outcome(largest, torch), rows


@pytest.mark.parametrize("mode", MODES)
def test_the_work_grows_with_the_indices_not_with_the_square_of_the_bags(mode):
    """The graph has as many nodes for many bags as for few, and each is linear."""
    made = []
    for bags_ in (50, 400):
        w = rushlight.zeros(10, 4, requires_grad=True)
        at = rushlight.tensor(np.arange(bags_ * 2) % 10)
        y = rushlight.nn.functional.embedding_bag(at, w, rushlight.arange(bags_) * 2, mode=mode)
        nodes, seen = [y.grad_fn], set()
        while nodes:
            node = nodes.pop()
            if node is not None and id(node) not in seen:
                seen.add(id(node))
                nodes += [n for n, _ in getattr(node, "next_functions", ())]
        made.append(len(seen))
    assert made[0] == made[1]
