"""Where integers differ from floats on the CPU: division by zero is an error, powers and shifts are bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.kernels.arrays import like


def dividing(ufunc: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """`ufunc`, a division or a remainder.  Raises RuntimeError, as PyTorch, where an integer is divided by zero."""

    def kernel(x: Any, y: Any) -> Any:
        array = y if hasattr(y, "dtype") else x
        if array.dtype.kind in "iu" and not np.all(y) and np.size(x) and np.size(y):
            raise RuntimeError("ZeroDivisionError")
        return ufunc(x, y)

    return kernel


def power(x: Any, y: Any) -> Any:
    """`x ** y` of bools and integers: of negative powers only those of 1 and -1 are integers, the others are 0."""
    if x.dtype.kind == "b":
        return np.logical_or(x, np.logical_not(y))
    negative = np.less(y, 0)
    if not np.any(negative):
        return np.power(x, y)
    one = np.where(np.equal(x, 1), 1, np.where(np.equal(x, -1), 1 - 2 * (np.bitwise_and(y, 1)), 0))
    return np.where(negative, one, np.power(x, np.where(negative, 0, y))).astype(np.result_type(x, y))


def shift_left(x: Any, y: Any) -> Any:
    """`x << y`; 0 where `y` is negative or as large as the number of bits."""
    x, y, bits = _same(x, y)
    outside = (y < 0) | (y >= bits)
    return np.where(outside, x.dtype.type(0), np.left_shift(x, np.where(outside, y.dtype.type(0), y)))


def shift_right(x: Any, y: Any) -> Any:
    """`x >> y`; all sign bits where `y` is negative or as large as the number of bits."""
    x, y, bits = _same(x, y)
    most = y.dtype.type(bits - 1 if x.dtype.kind == "i" else bits)
    far = np.where((y < 0) | (y > most), most, y)
    shifted = np.right_shift(x, np.minimum(far, y.dtype.type(bits - 1)))
    return np.where(far >= bits, x.dtype.type(0), shifted)


def _same(x: Any, y: Any) -> tuple[Any, Any, int]:
    array = x if hasattr(x, "dtype") else y
    x, y = (v if hasattr(v, "dtype") else like(array, np.asarray(v, array.dtype)) for v in (x, y))
    return x, y, array.dtype.itemsize * 8
