"""Every record under `vmap`: the same as a loop over the samples, whichever inputs are batched, and where."""

from __future__ import annotations

import numpy as np
import pytest

from rushlight_autograd import grad
from rushlight_autograd.vmap import vmap
from rushlight_tensor.core.tensor import wrap
from tests.ops.harness import R, call, numpy_dtype
from tests.ops.test_registry import DIFFERENTIABLE, PURE, close

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


def with_gradient(op, sample, dtype):
    """Which inputs have a gradient."""
    return [v and numpy_dtype(dtype).kind in "fc" for v in sample.varied()]


def cosines(shape, dtype):
    return np.cos(np.arange(int(np.prod(shape)))).reshape(shape).astype(dtype)


def per_sample(op, sample, dtype, create_graph):
    """The gradients of one sample, as a function of its inputs."""
    moving = with_gradient(op, sample, dtype)

    def gradients(*xs):
        xs = [x.view_as(x).requires_grad_() if m else x for x, m in zip(xs, moving, strict=True)]
        outs = [o for o in call(op, xs, sample.attrs) if o.requires_grad]
        leaves = [x for x, m in zip(xs, moving, strict=True) if m]
        if not outs:
            return ()
        weights = [wrap(cosines(o.shape, o._array.dtype)) for o in outs]
        found = grad(outs, leaves, weights, create_graph=create_graph, allow_unused=True, materialize_grads=True)
        return tuple(g.detach() for g in found)

    return gradients


def as_tensor(x):
    return wrap(np.array(x)) if isinstance(x, np.ndarray) else x


def dtype_of(sample):
    return sample.widest if sample.widest in sample.dtypes else sample.dtypes[0]


@pytest.mark.parametrize(("op", "sample"), [p for p in DIFFERENTIABLE if p.values[1].exact and not p.values[0].random])
def test_gradients_inside_and_outside_are_those_of_a_loop(op, sample):
    dtype = dtype_of(sample)
    rows, moving = versions(sample, dtype), with_gradient(op, sample, dtype)
    if not any(moving):
        return
    arrays = [isinstance(x, np.ndarray) for x in rows[0]]
    for dims in (
        [0 if a else None for a in arrays],
        [0 if i == moving.index(True) else None for i in range(len(arrays))],
    ):
        given = [
            wrap(np.stack([row[i] for row in rows])) if d == 0 else as_tensor(x)
            for i, (x, d) in enumerate(zip(rows[0], dims, strict=True))
        ]
        each = []
        for row in rows:
            xs = [x if d == 0 else same for x, same, d in zip(row, rows[0], dims, strict=True)]
            each.append(per_sample(op, sample, dtype, True)(*map(as_tensor, xs)))
        for create_graph in (True, False):  # in public ops, and by the kernels of gradients
            got = vmap(per_sample(op, sample, dtype, create_graph), in_dims=tuple(dims))(*given)
            assert len(got) == len(each[0])
            for k, g in enumerate(got):
                for i in range(SAMPLES):
                    close(g[i], each[i][k], numpy_dtype(dtype), 512, f"{op.name} {dims} sample {i} gradient {k}")
        if not each[0]:
            continue
        leaves = [x.requires_grad_() for x, m in zip(given, moving, strict=True) if m]
        made = vmap(lambda *xs: call(op, list(xs), sample.attrs), in_dims=tuple(dims))(*given)
        outs = [o for o in made if o.requires_grad]
        weights = [wrap(np.stack([cosines(o.shape[1:], o._array.dtype)] * SAMPLES)) for o in outs]
        outside = grad(outs, leaves, weights, allow_unused=True, materialize_grads=True)
        for k, (g, d) in enumerate(zip(outside, [d for d, m in zip(dims, moving, strict=True) if m], strict=True)):
            parts = np.stack([one[k]._array for one in each])
            close(g, wrap(parts if d == 0 else parts.sum(0)), numpy_dtype(dtype), 512, f"{op.name} {dims} from outside")


WALKED = [p for p in PURE if p.values[1].exact and not p.values[0].random and p.values[0].input_names]


@pytest.mark.parametrize(("op", "sample"), WALKED)
def test_batched_gives_what_a_loop_gives(op, sample):
    dtype = dtype_of(sample)
    for dims in combinations(sample.arrays(dtype)):
        if any(d is not None for d in dims):
            check(op, sample, dtype, dims)
