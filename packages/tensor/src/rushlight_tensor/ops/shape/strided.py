"""as_strided: any arrangement of the memory of a tensor, with its gradient.

Positions are counted in the memory of the tensor that owns it, flattened, as PyTorch counts them in the storage.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import cuda
from rushlight_tensor.core.dispatch import settle
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.op import AS_CPU, Op
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.kernels.arrays import add_at
from rushlight_tensor.ops.shape.shape import _become, view


def storage_offset(self: Tensor) -> int:
    """The distance of the first element from the start of the memory it shares, in elements."""
    array = settle(self)
    base = array if self._view is None else self._view.base._array
    return (cuda.address(array) - cuda.address(base)) // self._array.itemsize


def _last(size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> int:
    return offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))


def _strided_aval(x: Any, size: Any = (), stride: Any = (), offset: int = 0) -> Aval:
    if len(size) != len(stride):
        raise RuntimeError(f"mismatch in length of strides and shape: {list(size)} and {list(stride)}")
    if any(s < 0 for s in stride) or offset < 0:
        raise RuntimeError(f"as_strided: Negative strides are not supported, got strides: {list(stride)}")
    if 0 not in size and _last(size, stride, offset) >= x.shape[0]:
        raise RuntimeError(
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset} reach element "
            f"{_last(size, stride, offset)}, which is out of bounds for storage of {x.shape[0]} elements"
        )
    return Aval(tuple(size), x.dtype)


def _strided_kernel(x: Any, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> Any:
    _strided_aval(x, size, stride, offset)
    tricks = np.lib.stride_tricks if isinstance(x, np.ndarray) else cuda.cupy().lib.stride_tricks
    return tricks.as_strided(x[offset:], size, [s * x.strides[0] for s in stride])


def _gathered_aval(g: Any, n: int = 0, stride: Any = (), offset: int = 0) -> Aval:
    return Aval((n,), g.dtype)


def _gathered_kernel(g: Any, n: int, stride: tuple[int, ...], offset: int) -> Any:
    at = np.full((), offset)
    for size, step in zip(g.shape, stride, strict=True):
        at = at[..., None] + np.arange(size) * step
    out = np.zeros_like(g, shape=(n,))
    add_at(out, cuda.like(g, at).reshape(-1), g.reshape(-1))
    return out


def _strided_rule(g: Any, shape: tuple[int, ...], size: Any, stride: Any, offset: int) -> Any:
    return _gathered(g, shape[0], stride, offset)


_strided = Op(
    "as_strided",
    infer=_strided_aval,
    cpu=_strided_kernel,
    cuda=AS_CPU,
    view=True,
    save=("x.shape",),
    vjp=(_strided_rule,),
)

_gathered = Op(
    "as_strided_backward",
    infer=_gathered_aval,
    cpu=_gathered_kernel,
    cuda=AS_CPU,
    save=("g.shape",),
    vjp=(lambda g, size, n, stride, offset: _strided(g, size, stride, offset),),
)


def as_strided(input: Any, size: Any, stride: Any, storage_offset: int | None = None) -> Any:
    """The elements at `offset + i stride[0] + j stride[1] + …` of the memory of `input`, as a view of this size.

    Raises RuntimeError where that reaches beyond the memory, or where the memory does not lie in order.
    """
    settle(input)  # or its base would move to other memory without it
    owner = input if input._view is None else input._view.base
    offset = _offset(input) if storage_offset is None else storage_offset
    return _strided(view(owner, -1), tuple(size), tuple(stride), offset)


def as_strided_(input: Any, size: Any, stride: Any, storage_offset: int | None = None) -> Any:
    """`as_strided` in place."""
    return _become(input, as_strided(input, size, stride, storage_offset))


_offset = storage_offset
