"""Creation: tensors from data, and filled with a rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import abstract, cuda, devices, dispatch, dtypes, placement
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.dispatch import read
from rushlight_tensor.core.infer import sizes
from rushlight_tensor.core.keywords import factory
from rushlight_tensor.core.labels import contiguous_format, preserve_format
from rushlight_tensor.core.layout import empty_like as empty_like_in_order
from rushlight_tensor.core.layout import is_contiguous, strides
from rushlight_tensor.core.lifted import spread
from rushlight_tensor.core.quiet import hushed, quietly
from rushlight_tensor.core.scalars import checked, fits
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.math.cast import clone, contiguous

CHECKS_ARGUMENTS = True  # see `ops`


def _array_of(data: Any, dtype: Any = None) -> np.ndarray[Any, Any]:
    """A new NumPy array from numbers, nested sequences, arrays and tensors, with PyTorch's default dtypes.

    Raises ValueError for ragged sequences, and ValueError, TypeError or RuntimeError for what is not a number.
    """
    if isinstance(data, Tensor):
        data = read(data)
    want = None if dtype is None else dtypes.to_numpy(dtype)
    data = data.item() if isinstance(data, np.generic) and want is not None else data
    if isinstance(data, (np.ndarray, np.generic)):
        dtypes.from_numpy(data.dtype)
        return quietly(np.array, data, dtype=want)
    try:
        array = np.array(_plain(data))
    except ValueError as e:
        raise ValueError(_ragged(data)) from e
    if array.dtype.kind == "O" and all(isinstance(v, int) for v in array.flat):
        if want is None or want.kind in "iu":
            raise ValueError("Overflow when unpacking long long")
        array = array.astype(want)
    if array.dtype.kind in "OUSMm":
        raise _refusal(data)
    if want is None:
        if array.size == 0 or (array.dtype.kind == "f" and not _has_arrays(data)):
            want = dtypes.get_default_dtype().np
        elif array.dtype.kind == "c" and not _has_arrays(data):
            want = np.dtype(np.complex128 if dtypes.get_default_dtype().itemsize == 8 else np.complex64)
        elif array.dtype.kind == "u" and not _has_arrays(data):
            raise ValueError("Overflow when unpacking long long")
    if want is None:
        return array
    if not _has_arrays(data):
        fits(array, want)
        if array.dtype.kind == "c" and want.kind not in "bc":
            raise TypeError("must be real number, not complex")
    return array if want == array.dtype else quietly(array.astype, want)


def _plain(data: Any) -> Any:
    if isinstance(data, Tensor):
        return read(data)
    if isinstance(data, (list, tuple)) and data and not isinstance(data[0], (int, float, bool)):
        return [_plain(d) for d in data]
    return data


def _has_arrays(data: Any) -> bool:
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (Tensor, np.ndarray, np.generic))


def _refusal(data: Any) -> Exception:
    """The error, of PyTorch's type, for data that is no number."""
    odd = data
    while isinstance(odd, (list, tuple)) and odd:
        odd = next((d for d in odd if not isinstance(d, (int, float))), odd[0])
    name, why = type(odd).__name__, "a tensor holds numbers and bools; convert the data first"
    if isinstance(data, str):
        return TypeError(f"new(): invalid data type {name!r}: {why}")
    if isinstance(odd, str):
        return ValueError(f"too many dimensions {name!r}: {why}")
    return RuntimeError(f"Could not infer dtype of {name}: {why}")


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


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Tensor:
    """A tensor with a copy of `data`: Python floats become the default dtype, ints int64.

    Args:
        data: Number, nested lists, NumPy array or tensor.
        dtype: Converted to this instead.
        device: "cpu" or "cuda[:index]".
        requires_grad: Record operations on it.
        pin_memory: Accepted for PyTorch's signature; host memory is pageable here.
    """
    if isinstance(data, Tensor):
        return _with_grad(data.detach().to(device=device, dtype=dtype, copy=True), requires_grad)
    return _with_grad(_fresh(_array_of(data, dtype), device), requires_grad)


@factory()
def scalar_tensor(s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A 0-d tensor with the number `s`, of the default dtype unless one is given."""
    return full((), s, dtype=dtype or dtypes.get_default_dtype(), device=device, requires_grad=requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing memory where dtype and device allow it."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    if isinstance(data, np.ndarray) and (dtype is None or data.dtype == dtypes.to_numpy(dtype)):
        return wrap(devices.place(from_numpy(data)._array, device))
    return tensor(data, dtype=dtype, device=device)


def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """`obj` as a tensor: sharing memory where it can (`copy=None`), never (`True`), or necessarily (`False`)."""
    shared = as_tensor(obj, dtype, device)
    source = obj._array if isinstance(obj, Tensor) else obj
    alias = isinstance(source, type(shared._array)) and shared._array.size and np.shares_memory(source, shared._array)
    if copy is False and not alias:
        raise ValueError("can't alias arbitrary sequence into a tensor; give a tensor or an array of this dtype")
    out = clone(shared.detach()) if copy and alias else shared
    return _with_grad(out, requires_grad)


def from_numpy(ndarray: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on the memory of a NumPy array.  Raises TypeError for dtypes and strides that PyTorch refuses."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    if not ndarray.dtype.isnative:
        raise ValueError(
            "given numpy array has byte order different from the native byte order. Conversion between byte orders is "
            "currently not supported."
        )
    if ndarray.strides and min(ndarray.strides) < 0:
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative strides are not "
            "currently supported. (You can probably work around this by making a copy of your array with array.copy().)"
        )
    dtypes.from_numpy(ndarray.dtype)
    return wrap(ndarray.view(np.ndarray))


def _fresh(array: Any, device: Any) -> Tensor:
    """A tensor on a new array; a trace sees a copy of a constant, so that each replay writes to memory of its own."""
    t = wrap(devices.place(array, device))
    return t if dispatch.INTERCEPT is None else clone(t)


def _filled(shape: tuple[int, ...], value: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    d = dtypes.get_default_dtype().np if dtype is None else dtypes.to_numpy(dtype)
    _checked(shape)
    array: Any
    if devices.without_data(device):
        array = abstract.empty(shape, d)
    elif value == 0:
        array = np.zeros(shape, d)
    else:
        array = quietly(np.full, shape, value if _is_half(d) and isinstance(value, float) else checked(value, d), d)
    t = _fresh(array, device)
    return _with_grad(t, requires_grad)


def _is_half(d: np.dtype[Any]) -> bool:
    """Whether PyTorch fills with infinity what is too large for it."""
    return d.itemsize == 2 and d.kind in "fV"


@factory("size")
def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return _filled(sizes(size), 0, dtype, device, requires_grad)


@factory("size")
def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return _filled(sizes(size), 1, dtype, device, requires_grad)


@factory()
def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor filled with `fill_value`, of its kind of dtype unless one is given."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    return _filled(sizes((size,)), fill_value, dtype or _dtype_of(fill_value), device, requires_grad)


def _dtype_of(value: Any) -> Any:
    return dtypes.from_numpy(_array_of(value).dtype)


@factory()
def zeros_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, memory_format: Any = None
) -> Tensor:
    """Zeros of the shape, dtype and device of `input`."""
    made = zeros(input._array.shape, **_as(input, dtype, device))
    return _like(_laid_out(made, input, memory_format), input, requires_grad)


@factory()
def ones_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, memory_format: Any = None
) -> Tensor:
    """Ones of the shape, dtype and device of `input`."""
    made = ones(input._array.shape, **_as(input, dtype, device))
    return _like(_laid_out(made, input, memory_format), input, requires_grad)


@factory("size")
def empty(
    *size: Any,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = contiguous_format,
) -> Tensor:
    """A tensor whose elements are whatever was in memory."""
    shape = _checked(sizes(size))
    d = dtypes.get_default_dtype().np if dtype is None else dtypes.to_numpy(dtype)
    array: Any = abstract.empty(shape, d) if devices.without_data(device) else np.empty(shape, d)
    return _with_grad(contiguous(_fresh(array, device), memory_format), requires_grad)


@factory()
def empty_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, memory_format: Any = None
) -> Tensor:
    """`empty` with the shape, dtype and device of `input`."""
    made = empty(input._array.shape, **_as(input, dtype, device))
    return _like(_laid_out(made, input, memory_format), input, requires_grad)


@factory()
def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """`full` with the shape, dtype and device of `input`."""
    made = full(input._array.shape, fill_value, **_as(input, dtype, device))
    return _like(_laid_out(made, input, memory_format), input, requires_grad)


def _laid_out(made: Tensor, input: Tensor, memory_format: Any) -> Tensor:
    """`made` in a memory format, or (`None`, `preserve_format`) in the order of `input`."""
    if memory_format not in (None, preserve_format):
        return contiguous(made, memory_format)
    if not is_contiguous(input._array):
        if type(made._array) is AbstractArray:
            steps = placement.like(input._array.shape, strides(input._array))
            return wrap(AbstractArray(made._array.aval._replace(strides=steps)))
        ordered = empty_like_in_order(input._array, made._array.dtype)
        ordered[...] = cuda.to_host(made._array)
        return wrap(cuda.like(made._array, ordered))
    return made


def _like(made: Tensor, input: Tensor, requires_grad: bool) -> Tensor:
    """`made` for `input`, which is a tensor of many where a transform runs: each has memory of its own."""
    return _with_grad(spread(made, input._array), requires_grad)


def _as(x: Tensor, dtype: Any, device: Any) -> dict[str, Any]:
    """dtype and device of `x`, unless others are asked for."""
    return {"dtype": dtype or x._array.dtype, "device": device or devices.of(x._array)}


@factory("size")
def new_zeros(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """`zeros` of the dtype and on the device of `input`."""
    return _like(zeros(*size, **_as(input, dtype, device)), input, requires_grad)


@factory("size")
def new_ones(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """`ones` of the dtype and on the device of `input`."""
    return _like(ones(*size, **_as(input, dtype, device)), input, requires_grad)


@factory("size")
def new_empty(input: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """`empty` of the dtype and on the device of `input`."""
    return _like(empty(*size, **_as(input, dtype, device)), input, requires_grad)


@factory()
def new_full(
    input: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`full` of the dtype and on the device of `input`."""
    return _like(full(size, fill_value, **_as(input, dtype, device)), input, requires_grad)


@factory()
def new_tensor(
    input: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`tensor(data)` of the dtype and on the device of `input`."""
    return tensor(data, **_as(input, dtype, device), requires_grad=requires_grad)


@factory()
def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """The identity matrix (n, m), with ones on the diagonal."""
    for name, value in (("n", n), ("m", n if m is None else m)):
        if value < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {value}")
    d = dtypes.get_default_dtype().np if dtype is None else dtypes.to_numpy(dtype)
    return _with_grad(_fresh(np.eye(n, m, dtype=d), device), requires_grad)


# Sequences


@factory()
@hushed
def arange(
    start: Any = None,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`start`, `start + step`, … up to `end`, which is left out; `arange(end)` starts at 0.

    Integers give int64, anything else the default dtype.
    """
    if start is None or end is None:
        start, end = 0, start if end is None else end
    if end is None:
        raise TypeError("arange() missing 1 required positional argument: 'end'")
    start, end, step = (v.item() if isinstance(v, (Tensor, np.generic)) else v for v in (start, end, step))
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) / step < 0:
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    floats = any(isinstance(v, float) for v in (start, end, step))
    d = dtypes.to_numpy(dtype) if dtype is not None else dtypes.get_default_dtype().np if floats else np.dtype(np.int64)
    if d.kind == "b":
        dispatch.refuse("arange_cpu", d)
    if d == np.int64 and floats:
        start, end, step = (int(v) for v in (start, end, step))
        floats = False
        if step == 0:
            raise RuntimeError("step must be nonzero: it is less than one, and the dtype int64")
    n = math.ceil((end - start) / step) if floats else len(range(start, end, step))
    at = np.arange(n)
    if d.kind in "iu":
        values = int(start) + at * int(step)
    else:  # as PyTorch's vector code: blocks of 8, whose first element is rounded
        block = at - at % 8 if d == np.float32 else at
        block[n - n % 8 :] = at[n - n % 8 :]
        values = (start + step * block).astype(d).astype(np.float64) + (at - block) * step
    return _with_grad(_fresh(values.astype(d), device), requires_grad)


@factory()
@hushed
def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`steps` values in equal distances, from `start` to `end`, both included."""
    return _with_grad(_fresh(_spaced(start, end, steps, dtype), device), requires_grad)


@factory()
@hushed
def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`base` to the powers of `linspace(start, end, steps)`."""
    powers = _spaced(start, end, steps, dtypes.float64)
    d = dtypes.get_default_dtype().np if dtype is None else dtypes.to_numpy(dtype)
    return _with_grad(_fresh(np.power(float(base), powers).astype(d), device), requires_grad)


def _spaced(start: Any, end: Any, steps: int, dtype: Any) -> np.ndarray[Any, Any]:
    """From both ends to the middle, as PyTorch: the ends are exact, and the values symmetric."""
    start, end = (v.item() if isinstance(v, (Tensor, np.generic)) else v for v in (start, end))
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    d = dtypes.get_default_dtype().np if dtype is None else dtypes.to_numpy(dtype)
    if d.kind == "b":
        dispatch.refuse("linspace_cpu", d)
    if steps <= 1:
        return np.full(steps, start, d)
    if d.kind in "iu":
        start, end = checked(start, d), checked(end, d)
    within = d if d.kind == "f" else np.dtype(np.float32)
    first, last = within.type(start), within.type(end)
    step = np.float64(within.type((last - first) / within.type(steps - 1)))
    at = np.arange(steps)
    values = np.where(at < steps // 2, first + step * at, last - step * (steps - 1 - at))
    return values.astype(d)


def _checked(shape: tuple[int, ...]) -> tuple[int, ...]:
    if any(n < 0 for n in shape):
        raise RuntimeError(f"Dimension size must be non-negative: cannot create a tensor with sizes {list(shape)}")
    return shape


def _with_grad(t: Tensor, requires_grad: bool) -> Tensor:
    if requires_grad:
        t.requires_grad = True
    return t


# Exchange without a copy


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor on the memory of any object with `__dlpack__` (PyTorch, CuPy, JAX, …)."""
    if ext_tensor.__dlpack_device__()[0] == 1:
        return wrap(np.from_dlpack(ext_tensor))
    return wrap(cuda.cupy().from_dlpack(ext_tensor))


def _dlpack(self: Tensor, **options: Any) -> Any:
    if self._requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    if type(self._array) is AbstractArray:
        raise BufferError("Cannot pack tensors on meta")
    return read(self).__dlpack__(**options)


def _cuda_array_interface(self: Tensor) -> Any:
    if devices.of(self._array).type != "cuda":
        raise AttributeError("Can't get __cuda_array_interface__ on non-CUDA tensor; use .cuda() first")
    if self._requires_grad:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad; use var.detach() first")
    return self._array.__cuda_array_interface__


PROTOCOLS = {
    "__dlpack__": _dlpack,
    "__dlpack_device__": lambda self: self._array.__dlpack_device__(),
    "__cuda_array_interface__": property(_cuda_array_interface),
}
"""How other libraries look at a tensor."""
