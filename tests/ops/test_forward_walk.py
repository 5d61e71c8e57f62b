"""Every differentiable record in forward mode: against central differences, against its gradient, and over it."""

from __future__ import annotations

import numpy as np
import pytest

from rushlight_autograd import grad
from rushlight_autograd.forward_mode import jvp
from rushlight_tensor.core.tensor import wrap
from tests.ops.harness import call, tensors
from tests.ops.test_registry import DIFFERENTIABLE

STEP = 1e-6


def prepared(op, sample):
    """The op as a function of its varied inputs that gives real or complex results alone; these, and tangents."""
    dtype = sample.widest if sample.widest in sample.dtypes else sample.dtypes[0]
    arrays = sample.arrays(dtype)
    varied = [v and x.dtype.kind in "fc" for v, x in zip(sample.varied(), arrays, strict=True)]
    given = [x for x, v in zip(arrays, varied, strict=True) if v]

    def function(*xs):
        moving = iter(xs)
        every = [next(moving) if v else x for x, v in zip(tensors(arrays), varied, strict=True)]
        return tuple(o for o in call(op, every, sample.attrs) if o.dtype.is_floating_point or o.dtype.is_complex)

    rng = np.random.default_rng(1)
    return function, given, [noise(rng, x) for x in given]


def noise(rng, like):
    out = np.asarray(rng.standard_normal(like.shape))
    return out + 1j * rng.standard_normal(like.shape) if like.dtype.kind == "c" else out.astype(like.dtype)


def wrapped(arrays):
    return tuple(wrap(np.array(x)) for x in arrays)


def inner(xs, ys):
    """The real inner product of two lists, that of pairs for complex numbers."""
    return sum(float(np.sum(np.real(np.conj(x._array) * y._array))) for x, y in zip(xs, ys, strict=True))


def alone(tangents):
    """All tangents together, then each of the first four by itself."""
    yield tangents
    if len(tangents) > 1:
        for i in range(min(len(tangents), 4)):
            yield [t if k == i else np.zeros_like(t) for k, t in enumerate(tangents)]


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_jvp_agrees_with_differences_and_with_the_gradient(op, sample):
    function, given, tangents = prepared(op, sample)
    if not given or any(x.size == 0 for x in given):
        return
    rng = np.random.default_rng(2)
    for along in alone(tangents):
        values, moved = jvp(function, wrapped(given), wrapped(along))
        for value, want, t in zip(values, function(*wrapped(given)), moved, strict=True):
            np.testing.assert_array_equal(value._array, want._array)
            assert (t.shape, t.dtype) == (value.shape, value.dtype)
            assert not t.requires_grad
        ahead, behind = (
            function(*wrapped([x + way * STEP * t for x, t in zip(given, along, strict=True)])) for way in (1, -1)
        )
        for a, b, t in zip(ahead, behind, moved, strict=True):
            difference = (a._array - b._array) / (2 * STEP)
            size = max(1.0, np.abs(difference).max(initial=0))
            np.testing.assert_allclose(t._array, difference, rtol=1e-5, atol=1e-5 * size, err_msg=op.name)
        xs = wrapped(given)
        for x in xs:
            x.requires_grad = True
        outs = function(*xs)
        rooted = [i for i, o in enumerate(outs) if o.requires_grad]
        gs = wrapped([noise(rng, outs[i].detach()._array) for i in rooted])
        pulled = grad([outs[i] for i in rooted], xs, gs, allow_unused=True, materialize_grads=True)
        left, right = inner(gs, [moved[i] for i in rooted]), inner(pulled, wrapped(along))
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9 * max(1.0, abs(right)), err_msg=op.name)


@pytest.mark.parametrize(("op", "sample"), [p for p in DIFFERENTIABLE if p.values[1].second])
def test_jvp_of_the_gradient_is_the_second_derivative(op, sample):
    function, given, tangents = prepared(op, sample)
    if not given or any(x.size == 0 for x in given):
        return
    rng = np.random.default_rng(2)
    weights = [noise(rng, o._array) for o in function(*wrapped(given))]

    def gradient(*xs):
        xs = [x.view_as(x).requires_grad_() for x in xs]
        outs = function(*xs)
        rooted = [(o, w) for o, w in zip(outs, wrapped(weights), strict=True) if o.requires_grad]
        if not rooted:
            return ()
        found = grad([o for o, _ in rooted], xs, [w for _, w in rooted], create_graph=create, allow_unused=True,
                     materialize_grads=True)  # fmt: skip
        return tuple(found)

    for create in (True, False):  # in public ops, and by the kernels of gradients
        _, moved = jvp(gradient, wrapped(given), wrapped(tangents))
        create = True
        xs = wrapped(given)
        for x in xs:
            x.requires_grad = True
        found = gradient(*xs)
        if not any(g.requires_grad for g in found):
            assert all(not m._array.any() for m in moved)
            return
        rooted = [(g, t) for g, t in zip(found, wrapped(tangents), strict=True) if g.requires_grad]
        want = grad([g for g, _ in rooted], xs, [t for _, t in rooted], allow_unused=True, materialize_grads=True)
        for m, w in zip(moved, want, strict=True):  # the Hessian is symmetric
            size = max(1.0, np.abs(w._array).max(initial=0))
            np.testing.assert_allclose(m._array, w._array, rtol=1e-8, atol=1e-8 * size, err_msg=op.name)
