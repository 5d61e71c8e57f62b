"""In-place operations and views in the graph: one named test for each way in which they once went wrong."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight_tensor as rl
from rushlight_autograd import grad
from rushlight_tensor.core import kinds
from rushlight_tensor.core.op import REGISTRY


def test_a_function_in_place_keeps_what_its_gradient_needs():
    x, w = rl.tensor([0.5, 1.0], requires_grad=True), rl.tensor(3.0, requires_grad=True)
    y = x * 1
    y.sin_().mul_(w)  # sin needs its argument, mul the factor that it overwrites
    gx, gw = grad(y.sum(), (x, w))
    np.testing.assert_allclose(gx.numpy(), 3 * np.cos([0.5, 1.0]), rtol=1e-6)
    np.testing.assert_allclose(gw.item(), np.sin([0.5, 1.0]).sum(), rtol=1e-6)


def test_multiplying_by_itself_in_place():
    x = rl.tensor([2.0, 3.0], requires_grad=True)
    y = x * 1
    y.mul_(y)
    assert y.tolist() == [4, 9]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # the factor is not what it was
        grad(y.sum(), x)


def test_overwriting_through_a_view_passes_no_gradient_to_the_old_values():
    x = rl.ones(4, requires_grad=True)
    y = x * 2
    y[1:3] = 5.0
    assert grad(y.sum(), x)[0].tolist() == [2, 0, 0, 2]


def test_a_view_made_before_its_base_requires_grad_takes_part():
    x = rl.ones(2, requires_grad=True)
    base = rl.zeros(2, 2)
    row, column, detached = base[0], base.t()[1], base.detach()
    base[0] = x * 3
    assert row.requires_grad
    assert column.requires_grad
    assert not detached.requires_grad
    assert grad((row * rl.tensor([1.0, 2.0])).sum() + column.sum(), x)[0].tolist() == [3, 9]


def test_one_view_of_a_tensor_that_is_overwritten_takes_part():
    x = rl.ones(2, requires_grad=True)
    base = rl.zeros(2)
    first = base[:1]
    base.copy_(x * 3)
    assert first.requires_grad
    assert grad(first.sum(), x)[0].tolist() == [3, 0]


def test_what_an_in_place_op_on_a_view_has_saved_goes_stale():
    x = rl.ones(2, 2, requires_grad=True)
    y = x * 1
    row = y[0]
    row.exp_()  # has saved its result
    row.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_pieces_are_told_apart_when_they_are_written_to():
    x = rl.ones(6, requires_grad=True)
    y = x * 1
    pieces = y.tensor_split(3)
    pieces[1].mul_(5)
    pieces[2].mul_(7)
    assert grad(y.sum(), x, retain_graph=True)[0].tolist() == [1, 1, 5, 5, 7, 7]
    assert grad((pieces[1] * pieces[2]).sum(), x)[0].tolist() == [0, 0, 35, 35, 35, 35]


IN_PLACE = [
    op
    for op in REGISTRY.values()
    if isinstance(op.kind, kinds.Elementwise)
    and hasattr(rl.Tensor, f"{op.name}_")
    and op.attr_names == ()
    and "mask" not in op.input_names
]


def written(op, x, others):
    """What the op leaves in `x`, or the error that it refuses with."""
    try:
        x = getattr(x, f"{op.name}_")(*others)
        return (x.double() if x.dtype == rl.bfloat16 else x).numpy()
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return repr(error)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64", "complex64"])
@pytest.mark.parametrize("op", IN_PLACE, ids=lambda op: op.name)
def test_in_place_on_elements_that_lie_apart(op, dtype):
    """NumPy's AVX-512 loop of `negative` is wrong where they lie 16 or 64 bytes apart.

    What an op refuses side by side it refuses apart, in the same words; an op with a gradient refuses no floats.
    """
    for step in range(1, 20):
        numbers = np.arange(step * 37) % 11
        base = (numbers / 12 + 0.05 if dtype[0] in "fc" else numbers + 1).astype(dtype)
        others = [rl.tensor(np.full(37, 2, dtype))] * (op.arity - 1)
        want = written(op, rl.tensor(base[::step].copy()), others)
        assert op.vjp is None or dtype[0] != "f" or isinstance(want, np.ndarray), want
        np.testing.assert_array_equal(written(op, rl.tensor(base)[::step], others), want)


TWO_OPERANDS = [op for op in IN_PLACE if op.arity == 2 and hasattr(rl.Tensor, op.name)]
NUMBERS = {"uint8": [9, 7, 250, 3], "int8": [9, -7, 120, 3], "int32": [-5, 300, 257, 2], "int64": [70000, 259, -3, 2]}
DTYPES = ["uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


def of_dtype(name):
    return rl.tensor(NUMBERS.get(name, [0.25, 7e4, -3.0, 2.0])).to(getattr(rl, name))


@pytest.mark.parametrize("own", DTYPES)
@pytest.mark.parametrize("op", TWO_OPERANDS, ids=lambda op: op.name)
def test_in_place_is_computed_in_the_common_dtype_and_cast_once(op, own):
    """uint8's 9 modulo int32's -5 was 9 modulo 251, and what is finite beside float32 was inf beside float16's inf."""
    for other in DTYPES:
        x, y = of_dtype(own), of_dtype(other)
        got = written(op, x.clone(), [y])
        try:
            want = getattr(x, op.name)(y)
        except (RuntimeError, NotImplementedError) as error:
            want = repr(error)
        if isinstance(want, str):
            assert got == want
        elif isinstance(got, str):
            assert "can't be cast to the desired output type" in got
            assert want.dtype.is_floating_point
            assert not x.dtype.is_floating_point
        else:
            np.testing.assert_array_equal(got, want.to(x.dtype).double().numpy(), err_msg=other)


@pytest.mark.parametrize("name", ["logical_and_", "logical_or_", "logical_xor_", "eq_", "lt_"])
def test_an_op_without_gradient_records_nothing_for_what_it_is_compared_with(name):
    """A node without an input was left, whose name could not be said."""
    y, w = rl.tensor([1.0, 0.0, 2.0], requires_grad=True), rl.ones(3, requires_grad=True)
    x = rl.ones(3)
    getattr(x, name)(y)
    assert not x.requires_grad
    assert x.grad_fn is None
    assert grad((x * w).sum(), w)[0].tolist() == x.tolist()
    z = w * 1
    getattr(z, name)(y)  # what is overwritten has no influence any more
    assert z.grad_fn is not None
    assert grad(z.sum(), w)[0].tolist() == [0, 0, 0]
