"""Every record under `vmap`: the same as a loop over the samples, whichever inputs are batched, and where."""

from __future__ import annotations

import numpy as np
import pytest

from rushlight_autograd.vmap import vmap
from rushlight_tensor.core.tensor import wrap
from tests.ops.harness import R, call, numpy_dtype
from tests.ops.test_registry import PURE, close

SAMPLES = 3


def versions(sample, dtype):
    """The inputs of each sample: other random numbers, indices in another order, numbers and None as they are."""
    out = []
    for i in range(SAMPLES):
        rng = np.random.default_rng(i)
        out.append([x.make(rng, numpy_dtype(dtype)) if isinstance(x, R) else other(x, i) for x in sample.inputs])
    return out


def other(x, i):
    flipped = i and isinstance(x, np.ndarray) and x.dtype.kind in "iu"
    return np.asarray(np.flip(x)) if flipped else x


def combinations(row):
    """Which inputs are batched, and where: all in front, all behind, each one alone."""
    arrays = [isinstance(x, np.ndarray) for x in row]
    yield [0 if a else None for a in arrays]
    if sum(arrays) == 1:
        yield [-1 if a else None for a in arrays]
        return
    yield [(-1 if i % 2 else min(1, row[i].ndim)) if a else None for i, a in enumerate(arrays)]
    for i in [i for i, a in enumerate(arrays) if a][:4]:
        yield [0 if k == i else None for k in range(len(row))]


def check(op, sample, dtype, dims):
    rows = versions(sample, dtype)
    given = [
        np.ascontiguousarray(np.stack([row[i] for row in rows], d)) if d is not None else x
        for i, (x, d) in enumerate(zip(rows[0], dims, strict=True))
    ]
    held = [x for x, d in zip(given, dims, strict=True) if d is None]
    places = [d for d in dims if d is not None]

    def one(*xs):
        batched, rest = iter(xs), iter(held)
        every = [next(batched) if d is not None else next(rest) for d in dims]
        return call(op, [wrap(x) if isinstance(x, np.ndarray) else x for x in every], sample.attrs)

    try:
        got = vmap(one, in_dims=tuple(places))(*[wrap(x) for x, d in zip(given, dims, strict=True) if d is not None])
    except (RuntimeError, ValueError):
        assert op.view, op.name
        assert any(places), op.name  # a view that memory in this order does not allow
        return
    for i, row in enumerate(rows):
        xs = [x if d is not None else first for x, first, d in zip(row, rows[0], dims, strict=True)]
        want = call(op, [wrap(x) if isinstance(x, np.ndarray) else x for x in xs], sample.attrs)
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            assert g.shape == (SAMPLES, *w.shape)
            assert g.dtype == w.dtype
            close(g[i], w, numpy_dtype(dtype), 64, f"{op.name} {dims} sample {i}")


WALKED = [p for p in PURE if p.values[1].exact and not p.values[0].random and p.values[0].input_names]


@pytest.mark.parametrize(("op", "sample"), WALKED)
def test_batched_gives_what_a_loop_gives(op, sample):
    dtype = sample.widest if sample.widest in sample.dtypes else sample.dtypes[0]
    for dims in combinations(sample.arrays(dtype)):
        if any(d is not None for d in dims):
            check(op, sample, dtype, dims)
