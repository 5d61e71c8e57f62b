"""Type promotion by PyTorch's rules: tensors with dimensions decide first, then 0-d tensors, then Python numbers.

A lower rank changes the result only when its category (bool < integer < float < complex) is higher, and then to the
default dtype of that category.  Source: PyTorch documentation, "Tensor Attributes".
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from rushlight_tensor.core import dtypes
from rushlight_tensor.core.scalars import checked

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT16, FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)
BOOL, INT64, UINT8 = np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.uint8)
_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}  # ml_dtypes' bfloat16 has kind "V"


def category(dtype: np.dtype[Any]) -> int:
    """0 bool, 1 integer, 2 floating point, 3 complex."""
    return _RANK[dtype.kind]


def promote_types(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that holds both, as `torch.promote_types`: a float beats any integer whatever their widths."""
    if a == b:
        return a
    ca, cb = category(a), category(b)
    if ca != cb and max(ca, cb) == 2:
        return a if ca > cb else b
    if ca != cb and max(ca, cb) == 3:
        real, cplx = (b, a) if ca > cb else (a, b)
        return np.result_type(cplx, np.complex128) if real == np.dtype(np.float64) else cplx
    if ca == cb == 2 and BFLOAT16 in (a, b):
        return np.result_type(FLOAT32, *(d for d in (a, b) if d != BFLOAT16))
    if ca == cb == 1 and a.kind != b.kind and np.result_type(a, b).kind == "f":
        raise RuntimeError(f"Promotion for uint64 and a signed type is not supported: {a} and {b}; cast one with .to()")
    return np.result_type(a, b)


def _of_number(x: Any) -> int:
    return 0 if isinstance(x, bool) else 1 if isinstance(x, int) else 2 if isinstance(x, float) else 3


def _default_of(category_: int, floating: np.dtype[Any]) -> np.dtype[Any]:
    if category_ == 3:
        return np.dtype(np.complex128 if floating.itemsize == 8 else np.complex64)
    return (BOOL, INT64, floating)[category_]


def result_type(xs: Any) -> np.dtype[Any]:
    """The common dtype of arrays (or `Aval`s) and Python numbers.

    Args:
        xs: Objects with `dtype` and `shape`, or Python numbers.
    """
    dims: np.dtype[Any] | None = None
    zero: np.dtype[Any] | None = None
    number = -1
    for x in xs:
        if isinstance(x, (int, float, complex)):
            number = max(number, _of_number(x))
        elif len(x.shape):
            dims = x.dtype if dims is None else promote_types(dims, x.dtype)
        else:
            zero = x.dtype if zero is None else promote_types(zero, x.dtype)
    result = dims
    if dims is not None and zero is not None and category(dims) == 2 and category(zero) == 3:
        zero = _default_of(3, dims)  # as precise as the tensor with dimensions
    if result is None or (zero is not None and category(zero) > category(result)):
        result = zero if zero is not None else result
    if result is None or number > category(result):
        default = dtypes.get_default_dtype().np
        result = _default_of(number, default if result is None or category(result) < 2 else result)
    return result


def same(xs: Any) -> np.dtype[Any]:
    """Policy of `add`, `mul`, `maximum`, comparisons: compute in the common dtype."""
    return result_type(xs)


def floating(kernel: str) -> Any:
    """Policy of functions that exist for floating point and complex only, under PyTorch's name of the kernel."""

    def policy(xs: Any) -> np.dtype[Any]:
        common = result_type(xs)
        if category(common) < 2:
            raise NotImplementedError(f"\"{kernel}\" not implemented for '{dtypes.dtype_title(common)}'")
        return common

    policy.refuses = "biu"  # type: ignore[attr-defined]  # asked on the straight line
    return policy


def to_float(xs: Any) -> np.dtype[Any]:
    """Policy of `exp`, `div`, `mean`: compute in the common dtype, or the default dtype where that is an integer."""
    common = result_type(xs)
    return common if category(common) >= 2 else dtypes.get_default_dtype().np


def difference(xs: Any) -> np.dtype[Any]:
    """Policy of `sub`: the common dtype.  Raises RuntimeError for bools, as PyTorch."""
    bools = [type(x) is bool or getattr(x, "dtype", None) == BOOL for x in xs]
    if all(bools):
        raise RuntimeError(
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
            "operator instead."
        )
    if any(bools):
        raise RuntimeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, "
            "use the `~` or `logical_not()` operator instead."
        )
    return result_type(xs)


def power(xs: Any) -> np.dtype[Any]:
    """Policy of `pow`: the common dtype.

    Raises NotImplementedError, as PyTorch, where that is bool by a tensor as exponent; RuntimeError where a number as
    exponent of integers is negative or out of range.
    """
    common, exponent = result_type(xs), xs[1]
    if common.kind == "b" and hasattr(exponent, "dtype"):
        raise NotImplementedError("\"pow\" not implemented for 'Bool'")
    if common.kind in "iu" and not hasattr(exponent, "dtype"):
        if exponent < 0:
            raise RuntimeError("Integers to negative integer powers are not allowed.")
        checked(exponent, common)
    return common


power.refuses = "b"  # type: ignore[attr-defined]  # asked on the straight line, where no policy runs
