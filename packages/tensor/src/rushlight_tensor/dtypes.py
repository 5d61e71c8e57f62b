"""Data types under PyTorch's names, each a thin label on a NumPy dtype."""

from __future__ import annotations

import builtins
from typing import Any

import ml_dtypes
import numpy as np


class dtype:
    """A data type; prints as PyTorch's, compares by identity, and knows its NumPy dtype as `.np`."""

    __slots__ = ("is_complex", "is_floating_point", "is_signed", "itemsize", "name", "np")

    def __init__(
        self, name: str, np_dtype: Any, *, floating: builtins.bool = False, complex: builtins.bool = False
    ) -> None:
        self.name, self.np = name, np.dtype(np_dtype)
        self.itemsize = self.np.itemsize
        self.is_floating_point, self.is_complex = floating, complex
        self.is_signed = self.np.kind not in "ub"

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str:
        return self.name if self.name != "bool" else "bool_"


float16 = half = dtype("float16", np.float16, floating=True)
bfloat16 = dtype("bfloat16", ml_dtypes.bfloat16, floating=True)
float32 = float = dtype("float32", np.float32, floating=True)
float64 = double = dtype("float64", np.float64, floating=True)
int8 = dtype("int8", np.int8)
int16 = short = dtype("int16", np.int16)
int32 = int = dtype("int32", np.int32)
int64 = long = dtype("int64", np.int64)
uint8 = dtype("uint8", np.uint8)
uint16 = dtype("uint16", np.uint16)
uint32 = dtype("uint32", np.uint32)
uint64 = dtype("uint64", np.uint64)
bool = bool_ = dtype("bool", np.bool_)
complex64 = cfloat = dtype("complex64", np.complex64, complex=True)
complex128 = cdouble = dtype("complex128", np.complex128, complex=True)

ALL = (
    float16, bfloat16, float32, float64, int8, int16, int32, int64,
    uint8, uint16, uint32, uint64, bool, complex64, complex128,
)  # fmt: skip
_BY_NUMPY = {d.np: d for d in ALL}
_default = float32


def from_numpy(np_dtype: Any) -> dtype:
    """The dtype of a NumPy dtype.  Raises TypeError for those that PyTorch does not have (object, str, …)."""
    found = _BY_NUMPY.get(np_dtype)
    if found is None:  # byte-swapped or aliased spellings (longlong) are equal in value to one of ours
        native = np.dtype(np_dtype).newbyteorder("=")
        found = _BY_NUMPY.get(native) or (
            _BY_NUMPY.get(np.dtype(f"{native.kind}{native.itemsize}")) if native.kind in "iu" else None
        )
    if found is None:
        known = ", ".join(d.name for d in ALL)
        raise TypeError(f"can't convert np.ndarray of type {np_dtype}. The only supported types are: {known}.")
    return found


def to_numpy(of: Any) -> np.dtype[Any]:
    """The NumPy dtype of a dtype, of a NumPy dtype, or of Python's `float`, `int`, `bool`."""
    if isinstance(of, dtype):
        return of.np
    python = _PYTHON.get(of)
    return python.np if python is not None else from_numpy(np.dtype(of)).np


_PYTHON: dict[Any, dtype] = {type(0.0): float64, type(0): int64, type(True): bool, type(0j): complex128}


def get_default_dtype() -> dtype:
    """The dtype of tensors made from Python floats; float32 unless set."""
    return _default


def set_default_dtype(d: dtype) -> None:
    """Set the dtype of tensors made from Python floats.  Raises TypeError unless `d` is a floating point dtype."""
    global _default
    if not (isinstance(d, dtype) and d.is_floating_point):
        raise TypeError(f"only floating-point types are supported as the default type; got {d!r}")
    _default = d


class finfo:
    """Limits of a floating point dtype: `bits, eps, max, min, tiny, smallest_normal, resolution`."""

    def __init__(self, of: dtype | None = None) -> None:
        d = of or _default
        if not d.is_floating_point:
            raise TypeError(f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle '{d}'")
        info: Any = ml_dtypes.finfo(d.np)  # type: ignore[no-untyped-call]
        self.dtype, self.bits = d.name, d.itemsize * 8
        self.eps, self.max, self.min = _number(info.eps), _number(info.max), _number(info.min)
        self.tiny = self.smallest_normal = _number(info.smallest_normal)
        self.resolution = _number(info.resolution)


class iinfo:
    """Limits of an integer dtype: `bits, max, min`."""

    def __init__(self, of: dtype) -> None:
        if of.np.kind not in "iu":
            raise TypeError(f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{of}'")
        info = np.iinfo(of.np)
        self.dtype, self.bits, self.max, self.min = of.name, info.bits, info.max, info.min


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else np.float64(value).item()
