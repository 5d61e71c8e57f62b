"""An array without data: the third kind of array that a Tensor may hold, beside NumPy's and CuPy's.

It has what every kind has (shape, dtype, strides, …) and no elements: ops on it run their descriptions
(`describe.py`), and whatever asks for a value is refused.  `device("meta")` is where such arrays live.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, NoReturn

import numpy as np

from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.order import contiguous, is_contiguous

META = "meta"


class Flags(NamedTuple):
    """The flags of memory that are asked for, under NumPy's names."""

    c_contiguous: bool
    f_contiguous: bool
    writeable: bool


class AbstractArray:
    """What is known of an array, and which memory it would lie in.

    As with NumPy's views, `base` is the array that owns the memory, None for the owner itself: two arrays share memory
    if they have one owner.  `offset` counts bytes from the start of it.
    """

    __slots__ = ("__weakref__", "aval", "base", "offset")

    __array_ufunc__ = None  # NumPy's ufuncs refuse it

    def __init__(self, aval: Aval, base: AbstractArray | None = None, offset: int = 0) -> None:
        strides = contiguous(aval.shape) if aval.strides is None else aval.strides
        self.aval = aval._replace(strides=strides, device=aval.device or META, offset=0)
        self.base, self.offset = base, offset

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.aval.dtype

    @property
    def ndim(self) -> int:
        return len(self.aval.shape)

    @property
    def size(self) -> int:
        return math.prod(self.aval.shape)

    @property
    def itemsize(self) -> int:
        return self.aval.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """In bytes, as those of the other kinds of array."""
        assert self.aval.strides is not None
        return tuple([step * self.itemsize for step in self.aval.strides])

    @property
    def flags(self) -> Flags:
        shape, strides = self.aval.shape, self.strides
        repeated = any(n > 1 and step == 0 for n, step in zip(shape, strides, strict=True))
        return Flags(
            is_contiguous(shape, strides, self.itemsize),
            is_contiguous(shape[::-1], strides[::-1], self.itemsize),
            not repeated,
        )

    def __len__(self) -> int:
        return self.aval.shape[0]

    def __repr__(self) -> str:
        return f"<{self.aval}>"

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        no_data()


def no_data(by: str = "") -> NoReturn:
    """Raise NotImplementedError, in PyTorch's words: somebody wants the elements, `by` what function."""
    why = f"{by}(): what it returns depends on values, and here are none. " if by else ""
    raise NotImplementedError(f"{why}Cannot copy out of meta tensor; no data!")


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> AbstractArray:
    """A new array without data, in the order of its indices."""
    return AbstractArray(Aval(shape, dtype))


def like(array: Any, device: str = META) -> AbstractArray:
    """A description of `array`, of any kind, as one of its own; gaps between its elements are left out."""
    return AbstractArray(of(array)._replace(device=device))


def of(array: Any) -> Aval:
    """The description of an array of any kind, but for its device."""
    if isinstance(array, AbstractArray):
        return array.aval
    return Aval(array.shape, array.dtype, in_elements(array))


def in_elements(array: Any) -> tuple[int, ...]:
    """The strides of an array of any kind in elements; where there are none, as if they lay in order."""
    if not array.size:
        return contiguous(array.shape)
    steps = [step // array.itemsize for step in array.strides]
    if 0 in steps and 1 in array.shape:  # NumPy's for a dimension that was put in; PyTorch's is what follows it
        following = 1
        for d in reversed(range(len(steps))):
            if array.shape[d] == 1 and steps[d] == 0:
                steps[d] = following
            following = array.shape[d] * steps[d]
    return tuple(steps)
