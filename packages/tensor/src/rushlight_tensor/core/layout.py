"""Order in memory: arrays that lie in an order of our own and look contiguous to everybody else.

Note [Private order]
    Convolution works on memory in (N, H, W, C) order.  Its results keep that order, so that a chain of convolutions,
    norms and pools copies nothing; but in PyTorch they are contiguous, and that is what everybody sees: `stride()` and
    `is_contiguous()` say so, and the first look that would tell the difference (a view, `numpy()`, `data_ptr()`, a
    file) makes it true: `dispatch.settle` copies the elements once and the tensor goes on with the copy.  So nothing
    else may hold the old memory as its own: a view settles its base before it is made, except where it is only read
    and never seen (`dispatch.call(…, hidden=True)`).
    Such an array is marked by its class, which costs the others nothing.  Kernels never see the mark: `dispatch.run`
    takes it off and puts it on results that are not contiguous either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from rushlight_tensor.core import abstract, order
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.labels import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    memory_format,
    preserve_format,
)

_ORDERS = {channels_last: (0, 2, 3, 1), channels_last_3d: (0, 2, 3, 4, 1)}


class PrivateOrder(np.ndarray):
    """An array of which nobody may know how it lies in memory.  See Note [Private order]."""

    __slots__ = ()


def is_private(array: Any) -> bool:
    """Whether an array has the mark; of one without data, whether its description has."""
    return type(array) is PrivateOrder or (type(array) is AbstractArray and array.aval.private)


def private(array: Any) -> Any:
    """The array with the mark, unless it is contiguous anyhow or no NumPy array."""
    if type(array) is not np.ndarray or array.flags.c_contiguous:
        return array
    return array.view(PrivateOrder)


def in_private_order(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` on arrays, whose results lie in an order of their own; of a user's channels-last images, in that one."""

    @wraps(kernel)
    def run(*xs: Any, **attrs: Any) -> Any:
        out = kernel(*xs, **attrs)
        if is_users_order(xs):
            return out
        return tuple([private(z) for z in out]) if type(out) is tuple else private(out)

    return run


def is_users_order(xs: tuple[Any, ...]) -> bool:
    """Whether channels lie side by side in one of these images: it is the user's, or `dispatch.run` marks results."""
    for x in xs:
        if type(x) is np.ndarray and x.ndim == 4 and x.strides[1] == x.itemsize and not x.flags.c_contiguous:
            return True
    return False


def plain(array: Any) -> Any:
    """The array without the mark; of other subclasses of NumPy's array, too, the bare array."""
    return array.view(np.ndarray) if isinstance(array, np.ndarray) and type(array) is not np.ndarray else array


def is_contiguous(array: Any, memory_format: Any = contiguous_format) -> bool:
    """Whether PyTorch's user finds the elements in the order of their indices, or in that of another format."""
    axes = _ORDERS.get(memory_format)
    if axes is None:
        return is_private(array) or bool(array.flags.c_contiguous)
    if array.ndim != len(axes):
        return False
    if is_private(array):  # looks contiguous, which is no other order: with one channel or pixel it has no mark
        return False
    shape, strides = [array.shape[i] for i in axes], [array.strides[i] for i in axes]
    return order.is_contiguous(shape, strides, array.itemsize)


def copy(array: Any, memory_format: Any) -> Any:
    """A copy in a memory format.

    Raises:
        RuntimeError: The format is one for tensors of another rank.
        TypeError: It is no memory format.
    """
    axes = _ORDERS.get(check(memory_format, "clone"))
    if axes is None:
        return array.copy("K" if memory_format is preserve_format else "C")
    if array.ndim != len(axes):
        raise RuntimeError(f"required rank {len(axes)} tensor to use {memory_format._name} format, got {array.ndim}")
    back = (0, len(axes) - 1, *range(1, len(axes) - 1))
    return array.transpose(axes).copy("C").transpose(back)


def image(shape: tuple[int, ...], dtype: Any, *xs: Any) -> Aval:
    """The description of a result of a kernel `in_private_order`, whose inputs are `xs`."""
    strides = order.channels_last(shape)
    for x in xs:
        if not hasattr(x, "shape") or len(x.shape) != 4 or x.strides is None:
            continue
        if (x.device or "").startswith("cuda"):
            return Aval(shape, dtype)
        if x.strides[1] == 1 and not order.is_contiguous(x.shape, x.strides):
            return Aval(shape, dtype, strides)
    return Aval(shape, dtype, strides, private=True)


def is_image(x: Any) -> bool:
    """Whether an array, or a description, is one of images whose channels lie side by side, in whatever order."""
    if len(x.shape) != 4 or x.strides is None:
        return False
    step = 1 if type(x) is Aval else x.itemsize
    axes = _ORDERS[channels_last]
    return order.is_contiguous([x.shape[i] for i in axes], [x.strides[i] for i in axes], step)


def strides_of_copy(x: Any, memory_format: Any) -> tuple[int, ...]:
    """The strides of `copy`, of a description; raises the same errors."""
    axes = _ORDERS.get(check(memory_format, "clone"))
    if axes is None:
        return order.like(x) if memory_format is preserve_format else order.contiguous(x.shape)
    if x.ndim != len(axes):
        raise RuntimeError(f"required rank {len(axes)} tensor to use {memory_format._name} format, got {x.ndim}")
    return order.channels_last(x.shape)


def check(given: Any, name: str) -> Any:
    """`given`, if it is a memory format.  Raises TypeError in PyTorch's words."""
    if isinstance(given, memory_format):
        return given
    raise TypeError(f"{name}(): argument 'memory_format' must be torch.memory_format, not {type(given).__name__}")


def strides(array: Any) -> tuple[int, ...]:
    """The step of each dimension in elements, as PyTorch's user finds it."""
    if is_private(array):
        return order.contiguous(array.shape)
    return abstract.in_elements(array)
