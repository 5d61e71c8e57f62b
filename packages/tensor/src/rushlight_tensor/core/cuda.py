"""The one module that knows CuPy, and it imports it only when a CUDA tensor is first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from rushlight_tensor.core import abstract
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.lifted import Lifted, bottom

NUMPY_TEXT = object()
"""`cuda` of most records: `numpy` is written in NumPy's public functions, which CuPy arrays take over as they are."""


LAUNCH: Any = None
"""Runs an elementwise op by its expression: `(op, arrays, attrs) -> array`; set by `kernels.elementwise_cuda`."""


class NoCudaError(AssertionError, RuntimeError):
    """There is no CuPy; PyTorch raises AssertionError where it was built without CUDA."""


class TwoDevicesError(RuntimeError):
    """Host and device arrays among the inputs of one op."""


@cache
def cupy() -> Any:
    """The CuPy module.  Raises RuntimeError, in PyTorch's words, where there is none or it finds no GPU."""
    try:
        import cupy as cp
    except ImportError as e:
        raise NoCudaError(
            "Torch not compiled with CUDA enabled: CuPy is not installed; pip install 'rushlight-tensor[cuda]'"
        ) from e
    if not cp.cuda.is_available():
        raise RuntimeError("No CUDA GPUs are available: CuPy found no device or no driver; use device='cpu'")
    return cp


def is_available() -> bool:
    """Whether CUDA tensors can be made here."""
    try:
        cupy()
    except RuntimeError:
        return False
    return True


def device_count() -> int:
    """The number of CUDA devices; 0 where there are none."""
    return int(cupy().cuda.runtime.getDeviceCount()) if is_available() else 0


def current_device() -> int:
    """The number of the CUDA device that kernels run on.  Raises RuntimeError where there is none."""
    return int(cupy().cuda.runtime.getDevice())


def synchronize(device: Any = None) -> None:
    """Wait until a CUDA device (by number; the current one) has done all that was asked of it."""
    with cupy().cuda.Device(current_device() if device is None else getattr(device, "index", device) or 0):
        cupy().cuda.runtime.deviceSynchronize()


def empty_cache() -> None:
    """Give the memory that freed arrays left behind back to the device; nothing where there is none."""
    if is_available():
        cupy().get_default_memory_pool().free_all_blocks()


def is_cuda(array: Any) -> bool:
    """Whether an array lives on a CUDA device; NumPy's numbers, which its arithmetic makes of 0-d arrays, do not."""
    host = (np.ndarray, np.generic, AbstractArray)
    return not isinstance(array, host) and not isinstance(bottom(array), host)


def address(array: Any) -> int:
    """Where the first element is, on whatever device; for an array without data, in its memory."""
    array = bottom(array)
    if type(array) is AbstractArray:
        return array.offset
    return int(array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data.ptr)


def bytes_behind(array: Any) -> tuple[Any, Any]:
    """The array that owns the memory of a CUDA array, and all of it as bytes."""
    owner = array if array.base is None else array.base
    flat = cupy().lib.stride_tricks.as_strided(owner, (owner.size,), (owner.itemsize,))
    return owner, flat.view(np.uint8)


def view_of_bytes(memory: Any, start: int, like: Any) -> Any:
    """The view of bytes on a CUDA device, from `start` on, that has dtype, shape and strides of a NumPy array."""
    first = memory[start : start + like.itemsize].view(like.dtype)
    return cupy().lib.stride_tricks.as_strided(first, like.shape, like.strides)


def to_device(array: Any, index: int) -> Any:
    """A copy of `array` on CUDA device `index`, or itself if it is there already."""
    if type(array) is AbstractArray:
        abstract.no_data()
    cp = cupy()
    if index >= cp.cuda.runtime.getDeviceCount():
        raise RuntimeError(f"CUDA error: invalid device ordinal: cuda:{index}, found {device_count()} device(s)")
    if is_cuda(array) and array.device.id == index:
        return array
    with cp.cuda.Device(index):
        return cp.asarray(array)


def to_host(array: Any) -> Any:
    """The array in host memory; itself if it is there already.  Raises NotImplementedError where there is no data."""
    if type(array) is AbstractArray:
        abstract.no_data()
    return array if isinstance(array, np.ndarray) else cupy().asnumpy(array)


def like(other: Any, array: Any) -> Any:
    """`array` (NumPy) on the device of `other`."""
    other = bottom(other)
    if type(other) is AbstractArray:
        return abstract.like(array, other.aval.device or abstract.META)
    return array if other is None or isinstance(other, np.ndarray) else to_device(array, other.device.id)


def run(op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    """Run an op on CuPy arrays: a generated elementwise kernel, the op's own launcher, or its NumPy text on CuPy.

    Complex numbers have no generated kernels; elementwise ops of them are CuPy's.
    """
    if any(isinstance(a, Lifted) for a in arrays):
        raise RuntimeError(f"{op.name}: a tensor of a vmap or jvp that has ended; return it from the function")
    if any(isinstance(a, np.ndarray) for a in arrays):
        raise TwoDevicesError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda and cpu! ({op.name})"
        )
    generated = op.expr if op.expr is not None else op.cuda
    if isinstance(generated, str) and not any(hasattr(a, "dtype") and a.dtype.kind == "c" for a in arrays):
        return LAUNCH(op, arrays, attrs)
    if op.cuda is NUMPY_TEXT or isinstance(generated, str):
        return op.numpy(*arrays, **attrs)
    if op.cuda is None:
        raise RuntimeError(f"{op.name}: no CUDA kernel yet; move its inputs with .cpu()")
    return op.cuda(*arrays, **attrs)
