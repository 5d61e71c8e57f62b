"""Order in memory: arrays that lie in an order of our own and look contiguous to everybody else.

Note [Private order]
    Convolution works on memory in (N, H, W, C) order.  Its results keep that order, so that a chain of convolutions,
    norms and pools copies nothing; but in PyTorch they are contiguous, and that is what everybody sees: `stride()` and
    `is_contiguous()` say so, and the first look that would tell the difference (a view, `numpy()`, `data_ptr()`, a
    file) makes it true: `dispatch.settle` copies the elements once and the tensor goes on with the copy.  So nothing
    else may hold the old memory as its own: a view settles its base before it is made, except where it is only read
    and never seen (`dispatch.call(…, private=True)`).
    Such an array is marked by its class, which costs the others nothing.  Kernels never see the mark: `dispatch.run`
    takes it off and puts it on results that are not contiguous either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np


class PrivateOrder(np.ndarray):
    """An array of which nobody may know how it lies in memory.  See Note [Private order]."""

    __slots__ = ()


def private(array: Any) -> Any:
    """The array with the mark, unless it is contiguous anyhow or no NumPy array."""
    if type(array) is not np.ndarray or array.flags.c_contiguous:
        return array
    return array.view(PrivateOrder)


def in_private_order(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` on arrays, whose results lie in an order of their own."""

    @wraps(kernel)
    def run(*xs: Any, **attrs: Any) -> Any:
        out = kernel(*xs, **attrs)
        return tuple([private(z) for z in out]) if type(out) is tuple else private(out)

    return run


def plain(array: Any) -> Any:
    """The array without the mark; of other subclasses of NumPy's array, too, the bare array."""
    return array.view(np.ndarray) if isinstance(array, np.ndarray) and type(array) is not np.ndarray else array


def is_contiguous(array: Any) -> bool:
    """Whether PyTorch's user finds the elements in the order of their indices."""
    return type(array) is PrivateOrder or bool(array.flags.c_contiguous)


def strides(array: Any) -> tuple[int, ...]:
    """The step of each dimension in elements, as PyTorch's user finds it."""
    if type(array) is not PrivateOrder:
        return tuple([s // array.itemsize for s in array.strides])
    out, step = [], 1
    for n in reversed(array.shape):
        out.append(step)
        step *= max(n, 1)
    return tuple(reversed(out))
