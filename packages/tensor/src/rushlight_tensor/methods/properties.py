"""What a tensor is and where: properties, conversion to Python and NumPy, devices and dtypes.  Bound to Tensor here."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, devices, dispatch, dtypes, infer, layout
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.dispatch import read
from rushlight_tensor.core.inplace import inplace
from rushlight_tensor.core.labels import contiguous_format, preserve_format
from rushlight_tensor.core.lifted import Lifted
from rushlight_tensor.core.scalars import checked
from rushlight_tensor.core.size import Size
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.core.views import conjugates
from rushlight_tensor.ops.math.cast import cast, clone, contiguous, copy, to_device
from rushlight_tensor.ops.shape.strided import storage_offset

_new_tuple = tuple.__new__  # without the checks of `Size`, for shapes of arrays


def item(self: Tensor) -> Any:
    """The one element as a Python number.  Raises RuntimeError for more than one element, or none that is known."""
    if type(self._array) is AbstractArray:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")
    array = read(self)
    if array.size != 1:
        raise RuntimeError(f"a Tensor with {array.size} elements cannot be converted to Scalar")
    value = array.item()
    return value if isinstance(value, (int, float, complex)) else float(value)


def _bool(self: Tensor) -> bool:
    if type(self._array) is AbstractArray:
        return bool(item(self))
    array = read(self)
    if array.size == 1:
        return bool(array.item())
    if array.size == 0:
        raise RuntimeError("Boolean value of Tensor with no values is ambiguous")
    raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous; use .any() or .all()")


def _index(self: Tensor) -> int:
    if dtypes.from_numpy(self._array.dtype).is_floating_point:
        raise TypeError("only integer tensors of a single element can be converted to an index")
    return int(item(self))


def _iter(self: Tensor) -> Any:
    if self._array.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(self.unbind(0))


def _contains(self: Tensor, element: Any) -> bool:
    return bool((self == element).any())


def numpy(self: Tensor, *, force: bool = False) -> np.ndarray[Any, Any]:
    """The array itself, sharing memory.  Raises RuntimeError for tensors that require grad, TypeError for CUDA tensors.

    Args:
        force: Detach and copy to the host first, where needed.
    """
    if self._requires_grad and dispatch.MODE.grad and not force:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
    if not isinstance(self._array, (np.ndarray, Lifted)) and not force:
        raise TypeError(
            f"can't convert {devices.of(self._array)} device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )
    if self._view is not None and conjugates(self) and not force:
        raise RuntimeError(
            "Can't call numpy() on Tensor that has conjugate bit set. Use tensor.resolve_conj().numpy() instead."
        )
    array = read(self)
    if array.dtype.kind == "V" and not force:
        raise TypeError("Got unsupported ScalarType BFloat16; convert it with .float() first")
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _array_protocol(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
    array = numpy(self)
    return np.array(array, dtype=dtype) if copy else np.asarray(array, dtype=dtype)


def tolist(self: Tensor) -> Any:
    """The elements as nested Python lists, or a number."""
    return read(self).tolist()


def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The tensor with another dtype and/or on another device; itself where nothing changes.

    `to(dtype)`, `to(device)`, `to(device, dtype)`, `to(other)`, with `dtype=`, `device=`, `copy=`, `non_blocking=`.
    """
    dtype, device, again = kwargs.pop("dtype", None), kwargs.pop("device", None), kwargs.pop("copy", False)
    kwargs.pop("non_blocking", None)
    memory_format = kwargs.pop("memory_format", None)
    if kwargs:
        raise TypeError(f"to() received an invalid combination of arguments: unexpected {sorted(kwargs)}")
    flags = [a for a in args if isinstance(a, bool)]
    again = again or (len(flags) > 1 and flags[1])
    for a in args:
        if isinstance(a, Tensor):
            dtype, device = a._array.dtype, devices.of(a._array)
        elif isinstance(a, (dtypes.dtype, np.dtype)) or a in (float, int):
            dtype = a
        elif isinstance(a, (str, devices.device)) or type(a) is int:
            device = a
        elif a is not None and not isinstance(a, bool):
            raise TypeError(f"to() received an invalid argument: {a!r}; give a dtype, a device or a tensor")
    out = self
    if dtype is not None and dtypes.to_numpy(dtype) != out._array.dtype:
        out = cast(out, dtype=dtypes.to_numpy(dtype))
    if device is not None and not _is_on(out._array, devices.device(device)):
        out = to_device(out, to=str(devices.device(device)), back=str(devices.of(out._array)))
    if memory_format not in (None, preserve_format):
        out = contiguous(out, memory_format)
    return clone(out) if again and out is self else out


def _is_on(array: Any, d: devices.device) -> bool:
    here = devices.of(array)
    return here.type == d.type and (d.index is None or here.type != "cuda" or here.index == d.index)


def cpu(self: Tensor) -> Tensor:
    """The tensor in host memory."""
    return to(self, devices.CPU)


def to_cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """The tensor on a CUDA device.  Raises RuntimeError, as PyTorch, where there is none."""
    return to(self, devices.device("cuda" if device is None else device))


def _dtype_method(d: dtypes.dtype) -> Any:
    def method(self: Tensor, memory_format: Any = preserve_format) -> Tensor:
        return to(self, d, memory_format=memory_format)

    method.__doc__ = f"The tensor as {d!r}."
    return method


def zero_(self: Tensor) -> Tensor:
    """Fill with zeros, in place."""
    return inplace(copy, self, 0)


def fill_(self: Tensor, value: Any) -> Tensor:
    """Fill with a number or 0-d tensor, in place."""
    if isinstance(value, Tensor) and value._array.ndim:
        raise RuntimeError(
            f"fill_ only supports 0-dimension value tensor but got tensor with {value._array.ndim} dimensions."
        )
    if not isinstance(value, Tensor):
        if not isinstance(value, (int, float, complex, np.generic)):
            raise TypeError(f"fill_(): argument 'value' must be Number, not {type(value).__name__}")
        value = checked(value.item() if isinstance(value, np.generic) else value, self._array.dtype)
    return inplace(copy, self, value)


def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite with the elements of `src`, broadcast and converted; `src` may be on another device."""
    if isinstance(src, Tensor):
        src = to(src, devices.of(self._array))
        if src._array.dtype != self._array.dtype:
            src = cast(src, dtype=self._array.dtype)
    return inplace(copy, self, src)


def stride(self: Tensor, dim: int | None = None) -> Any:
    """The step of each dimension, in elements."""
    steps = layout.strides(self._array)
    return steps if dim is None else steps[dim]


def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or one size of it."""
    if dim is None:
        return _new_tuple(Size, self._array.shape)
    return self._array.shape[infer.axis(dim, self._array.ndim)]


def is_contiguous(self: Tensor, memory_format: Any = contiguous_format) -> bool:
    """Whether the elements lie in memory in the order of their indices, or in that of another format."""
    return layout.is_contiguous(self._array, layout.check(memory_format, "is_contiguous"))


def data_ptr(self: Tensor) -> int:
    """The address of the first element."""
    a = dispatch.settle(self)
    return 0 if type(a) is AbstractArray else cuda.address(a)


def _get_device(self: Tensor) -> int:
    index = devices.of(self._array).index
    return -1 if index is None else index


def bind() -> None:
    """Install all of this on Tensor."""
    properties = {
        "shape": lambda t: _new_tuple(Size, t._array.shape),
        "ndim": lambda t: t._array.ndim,
        "dtype": lambda t: dtypes.from_numpy(t._array.dtype),
        "device": lambda t: devices.of(t._array),
        "is_cuda": lambda t: devices.of(t._array).type == "cuda",
        "is_meta": lambda t: devices.of(t._array).type == "meta",
        "itemsize": lambda t: t._array.itemsize,
        "nbytes": lambda t: t._array.nbytes,
    }
    for name, getter in properties.items():
        setattr(Tensor, name, property(getter))
    methods: dict[str, Any] = {
        "__bool__": _bool, "__float__": lambda t: float(item(t)), "__int__": lambda t: int(item(t)),
        "__index__": _index,
        "__complex__": lambda t: complex(item(t)), "__iter__": _iter, "__contains__": _contains,
        "__array__": _array_protocol,
        "cuda": to_cuda,
        "dim": lambda t: t._array.ndim, "numel": lambda t: t._array.size, "nelement": lambda t: t._array.size,
        "element_size": lambda t: t._array.itemsize, "is_floating_point": lambda t: t.dtype.is_floating_point,
        "is_complex": lambda t: t.dtype.is_complex, "type_as": lambda t, other: to(t, other),
        "get_device": _get_device,
    }  # fmt: skip
    for fn in (
        item, numpy, tolist, to, cpu, zero_, fill_, copy_, stride, storage_offset, size, is_contiguous, contiguous,
        data_ptr,
    ):  # fmt: skip
        methods[fn.__name__] = fn
    for name in ("float", "double", "half", "bfloat16", "long", "int", "short", "bool"):
        methods[name] = _dtype_method(getattr(dtypes, name))
    for name, fn in methods.items():
        setattr(Tensor, name, fn)
