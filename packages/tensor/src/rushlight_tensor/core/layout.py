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
        for x in xs:  # one whose channels lie side by side is the user's, or `dispatch.run` marks the results
            if type(x) is np.ndarray and x.ndim == 4 and x.strides[1] == x.itemsize and not x.flags.c_contiguous:
                return out
        return tuple([private(z) for z in out]) if type(out) is tuple else private(out)

    return run


def plain(array: Any) -> Any:
    """The array without the mark; of other subclasses of NumPy's array, too, the bare array."""
    return array.view(np.ndarray) if isinstance(array, np.ndarray) and type(array) is not np.ndarray else array


def is_contiguous(array: Any, memory_format: Any = contiguous_format) -> bool:
    """Whether PyTorch's user finds the elements in the order of their indices, or in that of another format."""
    order = _ORDERS.get(memory_format)
    if order is None:
        return type(array) is PrivateOrder or bool(array.flags.c_contiguous)
    if array.ndim != len(order):
        return False
    if (
        type(array) is PrivateOrder
    ):  # looks contiguous, which is no other order: with one channel or pixel it has no mark
        return False
    return bool(array.transpose(order).flags.c_contiguous)


def copy(array: Any, memory_format: Any) -> Any:
    """A copy in a memory format.

    Raises:
        RuntimeError: The format is one for tensors of another rank.
        TypeError: It is no memory format.
    """
    order = _ORDERS.get(check(memory_format, "clone"))
    if order is None:
        return array.copy("K" if memory_format is preserve_format else "C")
    if array.ndim != len(order):
        raise RuntimeError(f"required rank {len(order)} tensor to use {memory_format._name} format, got {array.ndim}")
    back = (0, len(order) - 1, *range(1, len(order) - 1))
    return array.transpose(order).copy("C").transpose(back)


def check(given: Any, name: str) -> Any:
    """`given`, if it is a memory format.  Raises TypeError in PyTorch's words."""
    if isinstance(given, memory_format):
        return given
    raise TypeError(f"{name}(): argument 'memory_format' must be torch.memory_format, not {type(given).__name__}")


def strides(array: Any) -> tuple[int, ...]:
    """The step of each dimension in elements, as PyTorch's user finds it."""
    if type(array) is not PrivateOrder:
        return tuple([s // array.itemsize for s in array.strides])
    out, step = [], 1
    for n in reversed(array.shape):
        out.append(step)
        step *= n  # never 0: NumPy calls what is empty contiguous, and so it has no mark
    return tuple(reversed(out))
