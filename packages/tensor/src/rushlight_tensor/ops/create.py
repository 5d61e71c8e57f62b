"""Creation: tensors from data, and filled with a rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor import devices, dispatch, dtypes
from rushlight_tensor.infer import sizes
from rushlight_tensor.ops.cast import clone
from rushlight_tensor.tensor import Tensor, wrap


def _array_of(data: Any, dtype: Any = None) -> np.ndarray[Any, Any]:
    """A new NumPy array from numbers, nested sequences, arrays and tensors, with PyTorch's default dtypes.

    Raises ValueError for ragged sequences and TypeError for what is not a number.
    """
    if isinstance(data, Tensor):
        data = data._array if isinstance(data._array, np.ndarray) else data._array.get()
    want = None if dtype is None else dtypes.to_numpy(dtype)
    if isinstance(data, (np.ndarray, np.generic)):
        dtypes.from_numpy(data.dtype)
        return np.array(data, dtype=want)
    try:
        array = np.array(_plain(data))
    except ValueError as e:
        raise ValueError(_ragged(data)) from e
    if array.dtype.kind in "OUSMm":
        raise TypeError(f"new(): invalid data type {_odd(data)!r}: a tensor holds numbers and bools; convert the data first")
    if want is None:
        if array.size == 0 or (array.dtype.kind == "f" and not _has_arrays(data)):
            want = dtypes.get_default_dtype().np
        elif array.dtype.kind == "c" and not _has_arrays(data):
            want = np.dtype(np.complex128 if dtypes.get_default_dtype().itemsize == 8 else np.complex64)
    return array if want is None else array.astype(want, copy=False)


def _plain(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data._array
    if isinstance(data, (list, tuple)) and data and not isinstance(data[0], (int, float, bool)):
        return [_plain(d) for d in data]
    return data


def _has_arrays(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (Tensor, np.ndarray, np.generic))


def _odd(data: Any) -> str:
    while isinstance(data, (list, tuple)) and data:
        data = next((d for d in data if not isinstance(d, (int, float))), data[0])
    return type(data).__name__


def _ragged(data: Any, at: str = "") -> str:
    lengths = [len(d) if isinstance(d, (list, tuple)) else None for d in data]
    for i, n in enumerate(lengths):
        if n != lengths[0]:
            got = "a number" if n is None else f"length {n}"
            return (
                f"expected sequence of length {lengths[0]} at dim {at.count('[') + 1} (got {got} at data{at}[{i}]); "
                "pad the rows to one length first"
            )
    for i, d in enumerate(data):
        if isinstance(d, (list, tuple)):
            text = _ragged(d, f"{at}[{i}]")
            if text:
                return text
    return "" if at else "the sequences are not of one length"


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A tensor with a copy of `data`: Python floats become the default dtype, ints int64.

    Args:
        data: Number, nested lists, NumPy array or tensor.
        dtype: Converted to this instead.
        device: "cpu" or "cuda[:index]".
        requires_grad: Record operations on it.
        pin_memory: Accepted for PyTorch's signature; host memory is pageable here.
    """
    t = _fresh(_array_of(data, dtype), device)
    if requires_grad:
        t.requires_grad = True
    return t


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory where dtype and device allow it."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)  # type: ignore[no-any-return]
    if isinstance(data, np.ndarray) and (dtype is None or data.dtype == dtypes.to_numpy(dtype)):
        return wrap(devices.place(from_numpy(data)._array, device))
    return tensor(data, dtype=dtype, device=device)


def from_numpy(ndarray: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on the memory of a NumPy array.  Raises TypeError for dtypes and strides that PyTorch refuses."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    if not ndarray.dtype.isnative:
        raise ValueError(
            "given numpy array has byte order different from the native byte order. Conversion between byte orders is "
            "currently not supported."
        )
    dtypes.from_numpy(ndarray.dtype)
    return wrap(ndarray.view(np.ndarray))


def _fresh(array: Any, device: Any) -> Tensor:
    """A tensor on a new array; a trace sees a copy of a constant, so that each replay has memory of its own to write to."""
    t = wrap(devices.place(array, device))
    return t if dispatch.INTERCEPT is None else clone(t)  # type: ignore[no-any-return]


def _filled(shape: tuple[int, ...], value: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    d = dtypes.get_default_dtype().np if dtype is None else dtypes.to_numpy(dtype)
    if any(n < 0 for n in shape):
        raise RuntimeError(f"Trying to create tensor with negative dimension {min(shape)}: {list(shape)}")
    t = _fresh(np.zeros(shape, d) if value == 0 else np.full(shape, value, d), device)
    if requires_grad:
        t.requires_grad = True
    return t


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return _filled(sizes(size), 0, dtype, device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return _filled(sizes(size), 1, dtype, device, requires_grad)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with `fill_value`, of its kind of dtype unless one is given."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    return _filled(sizes((size,)), fill_value, dtype or _dtype_of(fill_value), device, requires_grad)


def _dtype_of(value: Any) -> Any:
    return dtypes.from_numpy(_array_of(value).dtype)


def zeros_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of the shape, dtype and device of `input`."""
    return zeros(input._array.shape, dtype=dtype or input._array.dtype, device=device or devices.of(input._array), requires_grad=requires_grad)


def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of the shape, dtype and device of `input`."""
    return ones(input._array.shape, dtype=dtype or input._array.dtype, device=device or devices.of(input._array), requires_grad=requires_grad)
