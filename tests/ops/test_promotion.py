"""The dtype of a result, by PyTorch's rules written out, and the error for shapes that do not fit."""

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_autograd import no_grad

I8, U8, I32, I64, F16, F32, F64, B = T.int8, T.uint8, T.int32, T.int64, T.float16, T.float32, T.float64, T.bool


@pytest.mark.parametrize(
    ("x", "y", "sum_dtype", "quotient_dtype"),
    [
        (F32, F32, F32, F32), (F32, F64, F64, F64), (F16, F32, F32, F32), (I32, F16, F16, F16), (F32, I64, F32, F32),
        (I32, I32, I32, F32), (I64, I64, I64, F32), (I32, I64, I64, F32), (U8, I8, T.int16, F32), (B, I8, I8, F32),
        (I32, 2, I32, F32), (I32, 1.5, F32, F32), (I64, 1.5, F32, F32), (F16, 2, F16, F16), (F16, 1.5, F16, F16),
        (F32, 2, F32, F32), (F64, 1.5, F64, F64), (B, 2, I64, F32), (B, 1.5, F32, F32), (U8, 2, U8, F32),
    ],
)  # fmt: skip
def test_dtypes_of_two_operands(x, y, sum_dtype, quotient_dtype):
    a = T.ones(3, dtype=x)
    b = y if isinstance(y, (int, float)) else T.ones(3, dtype=y)
    second = y if isinstance(y, (int, float)) else 1
    for first, other in ((a, b), (b, a)):
        assert (first + other).dtype is sum_dtype
        assert (first / other).dtype is quotient_dtype
        np.testing.assert_array_equal((first + other).to(F64).numpy(), np.full(3, 1.0 + second))
    np.testing.assert_allclose((a / b).to(F64).numpy(), np.full(3, 1.0 / second), rtol=1e-3)
    assert (a == b).dtype is B


@pytest.mark.parametrize("dtype", [I32, I64, U8, B])
def test_functions_of_integers_give_floats(dtype):
    x = T.ones(2, dtype=dtype)
    for function in (T.exp, T.sqrt, T.tanh, T.sigmoid, T.log):
        assert function(x).dtype is F32


def test_only_floating_results_require_grad():
    x = T.tensor([3.0, 1.0, 2.0], requires_grad=True)
    for result in (x.argmax(), x > 1, x.isnan(), x.argsort(), x.long(), x.to(I32), x.bool()):
        assert not result.requires_grad
    assert not any(y.requires_grad for y in x.sort()[1:])
    with no_grad():
        for result in (x * 2, 2 * x, x * x, x.exp(), x.sum(), x[1:].sum(0), T.cat([x, x]), x.sort()[0]):
            assert not result.requires_grad
    y = T.ones(3)
    for result in (x * y, y * x, x * 2, 2 * x, x.exp(), x.sum(), T.cat([y, x])):
        assert result.requires_grad


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda a, b: a + b, r"The size of tensor a \(3\) must match the size of tensor b \(4\) at non-singleton"),
        (lambda a, b: T.where(a > 0, a, b), r"The size of tensor a \(3\) must match the size of tensor b \(4\)"),
        (lambda a, b: T.cat([a.view(1, 3), b.view(1, 4)]), "Sizes of tensors must match except in dimension 0"),
        (lambda a, b: a.view(2, 2), r"shape '\[2, 2\]' is invalid for input of size 3"),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, says):
    with pytest.raises(RuntimeError, match=says):
        call(T.ones(3), T.ones(4))
