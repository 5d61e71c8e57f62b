"""What stands for an array inside `vmap` and `jvp`: a tensor of the level below, and how it is seen from above.

Note [Levels]
    A transform is a level.  Inside, a Tensor holds a `Lifted` instead of an array, and a `Lifted` holds a Tensor of the
    level below (which may itself hold a `Lifted`).  An op on lifted arrays runs by a rule, in public ops on the tensors
    below; recording stands above execution, so each level has a graph of its own: what is differentiated inside a
    transform is differentiated per sample, what is differentiated outside sees the ops of the rule.  A tensor from
    below that requires grad is lifted when it meets an op (`dispatch.LIFT`), or its graph would be that of two levels.
    The rules are in `rushlight_autograd`: `batching.py` and `forward_mode.py`.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np

from rushlight_tensor.core.abstract import Flags
from rushlight_tensor.core.layout import strides
from rushlight_tensor.core.order import is_contiguous
from rushlight_tensor.core.tensor import Tensor


class Lifted:
    """A tensor of the level below as an array of this one.

    `shape` is what is seen here: that of `value`, without the dimension of the samples where there is one.
    """

    __slots__ = ("level", "shape", "value")

    __array_ufunc__ = None  # NumPy's ufuncs refuse it

    def __init__(self, level: Any, value: Tensor, shape: tuple[int, ...]) -> None:
        self.level, self.value, self.shape = level, value, shape

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.value._array.dtype
        return dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """In bytes, within one sample, as a user finds them: what is below settles itself, Note [Private order]."""
        seen = strides(self.value._array)
        return tuple([step * self.itemsize for step in seen[len(seen) - len(self.shape) :]])

    @property
    def flags(self) -> Flags:
        shape, steps, size = self.shape, self.strides, self.itemsize
        return Flags(is_contiguous(shape, steps, size), is_contiguous(shape[::-1], steps[::-1], size), True)

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"NumPy was given the array of a {self.level}, and can only compute on those of records")

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.level} of {self.value._array!r}>"


def spread(made: Tensor, like: Any) -> Tensor:
    """A fresh tensor, with memory for all that the array `like` stands for: inside `vmap`, for every sample."""
    return like.level.spread(made, like) if isinstance(like, Lifted) else made


def bottom(array: Any) -> Any:
    """The NumPy or CuPy array under all levels."""
    while isinstance(array, Lifted):
        array = array.value._array
    return array
