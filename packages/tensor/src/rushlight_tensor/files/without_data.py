"""Tensors without data in `.pt` files: PyTorch writes their description alone, as a call of one function."""

from __future__ import annotations

from typing import Any

from rushlight_tensor.core import dtypes, layout
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.files.pickler import Call, Named

NAME = ("torch._utils", "_rebuild_meta_tensor_no_storage")


def call(x: Tensor, requires_grad: bool) -> Call:
    """What stands in a file for `x`."""
    array = x._array
    dtype = Named("torch", dtypes.from_numpy(array.dtype).name)
    return Call(Named(*NAME), (dtype, tuple(array.shape), layout.strides(array), requires_grad))


def rebuilt(dtype: Any, size: Any, stride: Any, requires_grad: Any) -> Tensor:
    """The tensor that a file describes.  Raises ValueError where it describes none."""
    sizes = all(type(v) is tuple and all(type(n) is int and n >= 0 for n in v) for v in (size, stride))
    if not (isinstance(dtype, dtypes.dtype) and sizes and len(size) == len(stride) and type(requires_grad) is bool):
        raise ValueError(f"a tensor without data is said to have dtype {dtype!r}, size {size!r}, stride {stride!r}")
    t = wrap(AbstractArray(Aval(size, dtype.np, stride)))
    t.requires_grad = requires_grad
    return t
