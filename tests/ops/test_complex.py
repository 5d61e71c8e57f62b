"""Complex numbers, over the registry: an op either refuses them by name or has PyTorch's gradients of them.

Which it is, nobody writes down: every sample is tried.  `gradcheck` takes both parts of every number by themselves.
"""

from __future__ import annotations

import numpy as np
import pytest

import rushlight_tensor as rl
from rushlight_autograd import grad, gradcheck, gradgradcheck
from rushlight_tensor import REGISTRY, tensor
from tests.ops.harness import COMPLEX, call, numpy_dtype, tensors
from tests.ops.test_registry import EVERY_SAMPLE, SMALL, along_a_line, close, widened

REAL = [
    p
    for p in EVERY_SAMPLE
    if p.values[1].exact and not p.values[1].mutates and {"float64", "complex128"} & set(p.values[1].dtypes)
]


def refused(op, sample):
    """Whether the op takes no complex numbers; then it says so."""
    why = ""
    try:
        call(op, tensors(sample.arrays("complex64")), sample.attrs)
    except (RuntimeError, TypeError, ValueError) as e:
        why = str(e)
    if why:
        assert "complex" in why.lower(), f"{op.name} refuses complex numbers without saying so: {why}"
        return True
    assert op.real is None, f"{op.name} says that it refuses complex numbers, and does not"
    return False


@pytest.mark.parametrize(("op", "sample"), REAL)
def test_first_and_second_derivative_of_complex_numbers(op, sample):
    if refused(op, sample) or op.vjp is None or not sample.grad:
        return
    xs = tensors(sample.arrays("complex128"), sample.varied())
    leaves = [x for x in xs if getattr(x, "requires_grad", False)]

    def outputs(*args):
        return tuple(o for o in call(op, list(args), sample.attrs) if o.dtype.is_floating_point or o.dtype.is_complex)

    if not leaves or any(x.numel() == 0 for x in (*leaves, *outputs(*xs))):
        return
    if sum(x.numel() for x in leaves) <= SMALL:
        checks = [(outputs, xs)]
    else:
        zero = tensor(0.0, dtype=rl.complex128, requires_grad=True)
        checks = [(along_a_line(outputs, xs, seed), zero) for seed in (0, 1)]
    for function, arguments in checks:
        assert gradcheck(function, arguments)
        if sample.second:
            assert gradgradcheck(function, arguments)


@pytest.mark.parametrize(("op", "sample"), REAL)
def test_complex64_agrees_with_complex128(op, sample):
    if refused(op, sample):
        return
    results = []
    arrays = sample.arrays("complex64")
    for inputs in (arrays, widened(arrays)):
        xs = tensors(inputs, sample.varied() if sample.grad else None)
        leaves = [x for x in xs if getattr(x, "requires_grad", False)]
        outs = call(op, xs, sample.attrs)
        roots = [o for o in outs if o.requires_grad]
        weights = [tensor(np.cos(np.arange(o.numel())).reshape(o.shape), dtype=o.dtype) for o in roots]
        grads = grad(roots, leaves, weights, allow_unused=True) if roots else ()
        assert all(g is None or g.dtype == x.dtype for g, x in zip(grads, leaves, strict=False))
        results.append(((outs, sample.ulps), (grads, 4 * sample.ulps)))
    for (got, ulps), (want, _) in zip(*results, strict=True):
        for g, w in zip(got, want, strict=True):
            assert (g is None) == (w is None)
            if g is not None:
                close(g, w, numpy_dtype(COMPLEX[1]), ulps)


def test_real_leaf_of_a_complex_computation_gets_the_real_part():
    x = tensor([3.0, 4.0], requires_grad=True)
    (x * (1 + 2j)).abs().sum().backward()
    assert x.grad.dtype == rl.float32
    np.testing.assert_allclose(x.grad.numpy(), np.full(2, 5**0.5), rtol=1e-6)


def test_complex_leaf_with_a_real_consumer_gets_a_complex_gradient():
    z = tensor([3 + 4j, 1 - 2j], requires_grad=True)
    (z.real * 2 + z.imag).sum().backward()
    np.testing.assert_array_equal(z.grad.numpy(), np.full(2, 2 + 1j, np.complex64))


def test_gradient_of_a_complex_root_is_asked_for():
    z = tensor([1 + 1j], requires_grad=True)
    with pytest.raises(RuntimeError, match="only for real scalar outputs but got torch"):
        (z * 2).backward()
    with pytest.raises(RuntimeError, match="both grad_output and output are required to have the same dtype"):
        (z * 2).backward(tensor([1.0]))


def test_parts_are_views():
    z = tensor([1 + 2j, 3 + 4j])
    z.real.mul_(10)
    z.imag = tensor([5.0, 6.0])
    rl.view_as_real(z)[0, 0] = 7.0
    np.testing.assert_array_equal(z.numpy(), np.array([7 + 5j, 30 + 6j], np.complex64))
    with pytest.raises(RuntimeError, match="imag is not implemented for tensors with non-complex dtypes"):
        _ = tensor([1.0]).imag


@pytest.mark.parametrize("name", ["lt", "maximum", "floor", "sign", "argsort", "relu", "amax"])
def test_what_needs_an_order_is_refused_in_place_and_by_every_way_in(name):
    op = REGISTRY[name]
    z = tensor([1 + 1j, 2j])
    xs = (z, z) if op.arity == 2 else (z,)
    with pytest.raises(RuntimeError, match="omplex"):
        op(*xs)
    with pytest.raises(RuntimeError, match="omplex"):
        op(*[tensor([1.0 + 1j, 2.0])] * op.arity)
    with pytest.raises(RuntimeError, match="omplex"):
        getattr(z, name)(*xs[1:])
