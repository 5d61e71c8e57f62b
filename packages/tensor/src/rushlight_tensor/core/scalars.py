"""Python numbers on their way into a dtype: where PyTorch fills it checks them, where it computes they wrap around."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import dtypes

_C_NAMES = {
    "uint8": "uint8_t", "int8": "int8_t", "int16": "int16_t", "int32": "int", "int64": "int64_t",
    "float16": "c10::Half", "bfloat16": "c10::BFloat16", "float32": "float", "float64": "double",
}  # fmt: skip
_LIMITS = {d.np: (np.iinfo(d.np).min, np.iinfo(d.np).max) for d in dtypes.ALL if d.np.kind in "iu"}
_LARGEST = {d.np: dtypes.finfo(d).max for d in dtypes.ALL if d.is_floating_point}


def wrapped(value: int, dtype: np.dtype[Any]) -> int:
    """An integer operand as it is in an integer dtype: bits above are dropped.  Raises OverflowError beyond 64 bits."""
    low, high = _LIMITS[dtype]
    if low <= value <= high:
        return value
    if not -(1 << 63) <= value < 1 << 64:
        raise OverflowError("int too big to convert")
    return (value - low) % (high - low + 1) + low


def checked(value: Any, dtype: np.dtype[Any], name: str | None = None) -> Any:
    """A number to fill a tensor of `dtype` with, as one that NumPy converts without a loss.

    Raises RuntimeError where it is out of range (an unsigned dtype also takes integers as far below zero as its largest
    is above it; they wrap around), OverflowError for an int beyond 64 bits.
    """
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise OverflowError("int too big to convert")
    if _overflows(value, dtype):
        raise RuntimeError(
            f"value cannot be converted to type {name or _C_NAMES.get(dtype.name, dtype.name)} without overflow"
        )
    if dtype.kind in "bc":
        return bool(value) if dtype.kind == "b" else value
    return wrapped(int(value.real), dtype) if dtype.kind in "iu" else value.real


def _overflows(value: Any, dtype: np.dtype[Any]) -> bool:
    if dtype.kind in "bc":
        return False
    if isinstance(value, complex):
        if value.imag != 0:
            return True
        value = value.real
    if dtype.kind not in "iu":
        return math.isfinite(value) and abs(value) > _LARGEST[dtype]
    low, high = _LIMITS[dtype]
    lowest = -high if low == 0 and isinstance(value, int) else low
    return not lowest <= value <= high  # NaN compares as False


def fits(data: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> None:
    """Check the Python numbers of `tensor(data, dtype=…)`, here an array, before they are converted."""
    if dtype.kind not in "iu" or data.dtype == dtype or data.dtype.kind == "b" or not data.size:
        return
    if data.dtype.kind == "c":
        raise TypeError("'complex' object cannot be interpreted as an integer; give its real part")
    low, high = _LIMITS[dtype]
    low = low or (0 if data.dtype.kind == "f" else -high)
    for value in (data.max(), data.min()):
        if not low <= value <= high:
            if dtype.itemsize == 8 and data.dtype.kind != "f":
                raise ValueError("Overflow when unpacking long long")
            raise RuntimeError(f"value cannot be converted to type {dtype.name} without overflow")
