"""Data types under PyTorch's names, each a thin label on a NumPy dtype."""

from __future__ import annotations

import builtins
from typing import Any, NoReturn, cast

import ml_dtypes
import numpy as np

from rushlight_tensor.core.labels import Label, TorchType


class dtype(Label):
    """A data type; prints as PyTorch's, compares by identity, and knows its NumPy dtype as `.np`."""

    __slots__ = ("is_complex", "is_floating_point", "is_signed", "itemsize", "name", "np")

    name: str
    np: Any  # an np.dtype; the name is taken
    itemsize: builtins.int
    is_floating_point: builtins.bool
    is_complex: builtins.bool
    is_signed: builtins.bool

    def __setattr__(self, name: str, value: object) -> NoReturn:
        if name in dir(dtype):
            raise AttributeError(f"attribute '{name}' of 'torch.dtype' objects is not writable")
        raise AttributeError(f"'torch.dtype' object has no attribute '{name}'")

    def __reduce__(self) -> str:
        return self.name if self.name != "bool" else "bool_"

    def to_complex(self) -> dtype:
        """The complex dtype of this precision.  Raises RuntimeError for integers and bool."""
        if self is float16:
            raise RuntimeError("torch.complex32 does not exist here, NumPy lacks it; use .float() first")
        found = self if self.is_complex else _COMPLEX.get(self.name)
        if found is None:
            raise RuntimeError(f"Unknown Complex ScalarType for {dtype_title(self.np)}")
        return found

    def to_real(self) -> dtype:
        """The dtype of the real part; itself where it is not complex."""
        return float64 if self.itemsize == 16 else float32 if self.is_complex else self


def _declare(name: str, np_dtype: Any) -> dtype:
    d: dtype = object.__new__(cast(Any, dtype))
    of = np.dtype(np_dtype)
    values = {
        "_name": name, "name": name, "np": of, "itemsize": of.itemsize, "is_signed": of.kind not in "ub",
        "is_floating_point": of.kind in "fV", "is_complex": of.kind == "c",
    }  # fmt: skip
    for slot, value in values.items():
        object.__setattr__(d, slot, value)
    return d


float16 = half = _declare("float16", np.float16)
bfloat16 = _declare("bfloat16", ml_dtypes.bfloat16)
float32 = float = _declare("float32", np.float32)
float64 = double = _declare("float64", np.float64)
int8 = _declare("int8", np.int8)
int16 = short = _declare("int16", np.int16)
int32 = int = _declare("int32", np.int32)
int64 = long = _declare("int64", np.int64)
uint8 = _declare("uint8", np.uint8)
uint16 = _declare("uint16", np.uint16)
uint32 = _declare("uint32", np.uint32)
uint64 = _declare("uint64", np.uint64)
bool = bool_ = _declare("bool", np.bool_)
complex64 = cfloat = _declare("complex64", np.complex64)
complex128 = cdouble = _declare("complex128", np.complex128)

ALL = (
    float16, bfloat16, float32, float64, int8, int16, int32, int64,
    uint8, uint16, uint32, uint64, bool, complex64, complex128,
)  # fmt: skip
NAMES = {
    **{d.name: d for d in ALL},
    "half": float16, "float": float32, "double": float64, "short": int16, "int": int32, "long": int64,
    "cfloat": complex64, "cdouble": complex128,
}  # fmt: skip
"""Every name under which PyTorch knows a dtype that NumPy can hold."""

_COMPLEX = {"float64": complex128, "float32": complex64, "bfloat16": complex64}
_TITLES = {
    "float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16", "uint8": "Byte",
    "int8": "Char", "int16": "Short", "int32": "Int", "int64": "Long", "bool": "Bool", "uint16": "UInt16",
    "uint32": "UInt32", "uint64": "UInt64", "complex64": "ComplexFloat", "complex128": "ComplexDouble",
}  # fmt: skip
_BY_NUMPY = {d.np: d for d in ALL}
_default = float32


def dtype_title(d: np.dtype[Any]) -> str:
    """What PyTorch's messages call a dtype: "Float", "Long", "ComplexDouble"."""
    return _TITLES.get(d.name, d.name)


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
    """The NumPy dtype of a dtype, of a NumPy dtype, or of Python's `float`, `int`, `bool`, `complex`."""
    if isinstance(of, dtype):
        return of.np
    if isinstance(of, np.dtype):
        return from_numpy(of).np
    python = _PYTHON.get(of) if isinstance(of, type) else None
    if python is None:
        got = of.__name__ if isinstance(of, type) else type(of).__name__
        raise TypeError(f"argument 'dtype' must be torch.dtype, not {got}")
    return python.np


_PYTHON: dict[Any, dtype] = {type(0.0): float64, type(0): int64, type(True): bool, type(0j): complex128}


def get_default_dtype() -> dtype:
    """The dtype of tensors made from Python floats; float32 unless set."""
    return _default


def set_default_dtype(d: dtype) -> None:
    """Set the dtype of tensors made from Python floats.  Raises TypeError unless `d` is a floating point dtype."""
    global _default
    if not isinstance(d, dtype):
        raise TypeError(f"invalid dtype object: only floating-point types are supported as the default type; got {d!r}")
    if not d.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type; got {d!r}")
    _default = d


class finfo(metaclass=TorchType):
    """Limits of a floating point dtype: `bits, eps, max, min, tiny, smallest_normal, resolution`."""

    def __init__(self, type: dtype | None = None) -> None:
        d = (_default if type is None else _expect("finfo", type)).to_real()
        if not d.is_floating_point:
            raise TypeError(f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle '{d}'")
        info: Any = ml_dtypes.finfo(d.np)  # type: ignore[no-untyped-call]
        self.dtype, self.bits = d.name, d.itemsize * 8
        self.eps, self.max, self.min = _number(info.eps), _number(info.max), _number(info.min)
        self.tiny = self.smallest_normal = _number(info.smallest_normal)
        self.resolution = builtins.float(f"1e-{info.precision}")

    def __repr__(self) -> str:
        shown = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        return f"finfo({', '.join(f'{n}={getattr(self, n):.6g}' for n in shown)}, dtype={self.dtype})"


class iinfo(metaclass=TorchType):
    """Limits of an integer dtype: `bits, max, min`."""

    def __init__(self, type: dtype) -> None:
        of = _expect("iinfo", type)
        if of is bool:
            raise TypeError("torch.bool is not supported by torch.iinfo")
        if of.np.kind not in "iu":
            raise TypeError(f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{of}'")
        info = np.iinfo(of.np)
        self.dtype, self.bits, self.max, self.min = of.name, info.bits, info.max, info.min

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:.6g}, max={self.max:.6g}, dtype={self.dtype})"


def _expect(function: str, d: Any) -> dtype:
    if not isinstance(d, dtype):
        got = d.__class__.__name__
        raise TypeError(f"{function}(): argument 'type' (position 1) must be torch.dtype, not {got}")
    return d


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else np.float64(value).item()
