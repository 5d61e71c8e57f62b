"""NumPy's functions that need care when the arrays may be CuPy's.

Note [One text for both]
    The NumPy text of a kernel is also what runs on a GPU where there is no CUDA kernel: CuPy takes over NumPy's
    functions by the array protocols.  It refuses to mix the two kinds, so such a text makes new arrays from old ones
    (`empty_like`, `like=`) and never by their shape alone.  CuPy has few methods of ufuncs, and none of them in all
    dtypes; what stands in for them is here.  tests/device holds every op against what CuPy knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import cuda
from rushlight_tensor.core.half_precision import wide

Array = np.ndarray


def on_host(*arrays: Array | None) -> bool:
    """Whether C can be given these arrays: NumPy's own, not CuPy's, nor subclasses."""
    return all(x is None or type(x) is np.ndarray for x in arrays)


def is_plain(x: Array) -> bool:
    """Whether memory lies in C order, each element at an address that is a multiple of its size."""
    flags = x.flags
    return bool(flags.c_contiguous and (type(x) is not np.ndarray or flags.aligned))


def contiguous(x: Array) -> Array:
    """`x`, or a copy of it in C order and aligned; unlike np.ascontiguousarray also of a CuPy array."""
    return x if is_plain(x) else x.copy(order="C")


def in_order(x: Array) -> Array:
    """A fresh result, copied where NumPy has put it into another order than that of its indices."""
    return x if x.flags.c_contiguous else x.copy(order="C")


def like(x: Array, values: Any) -> Array:
    """A NumPy array of constants as an array of the kind of `x`."""
    return np.asarray(values, like=x)


def owner_of(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array that owns the memory of a NumPy array: the last of those that are views of one another."""
    owner, below = x, x.base
    while below is not None:  # between arrays there may stand what `as_strided` makes them from
        owner = below if isinstance(below, np.ndarray) else owner
        below = getattr(below, "base", None)
    return owner


def memory_behind(x: Array) -> tuple[Array, int]:
    """All of the memory that `x` lies in, as bytes, and where in them its first element is."""
    if not isinstance(x, np.ndarray):
        owner, memory = cuda.bytes_behind(x)
        return memory, cuda.address(x) - cuda.address(owner)
    owner = owner_of(x)
    length = 0
    if owner.size:
        length = 1 + sum((n - 1) * s for n, s in zip(owner.shape, owner.strides, strict=True)) // owner.itemsize
    flat = np.lib.stride_tricks.as_strided(owner, (length,), (owner.itemsize,))
    return flat.view(np.uint8), cuda.address(x) - cuda.address(owner)


def add_at(x: Array, at: Array, y: Array) -> None:
    """`x[at] += y` for vectors and flat positions, each as often as it occurs."""
    if (to := wide(x.dtype)) != x.dtype:  # a half type would stop where one more is less than a rounding
        _elsewhere(x, at, y, to)
    elif isinstance(x, np.ndarray):
        np.add.at(x, at, y)
    elif x.dtype.kind in "fiu" and x.dtype.itemsize >= 4:
        cuda.cupy().add.at(x, at, y)
    elif x.dtype.kind == "c":
        add_at(x.real, at, y.real)
        add_at(x.imag, at, y.imag)
    else:  # CuPy adds no bytes and no shorts
        _elsewhere(x, at, y, np.dtype(np.int64))


def _elsewhere(x: Array, at: Array, y: Array, dtype: np.dtype[Any]) -> None:
    """`add_at` in a wider dtype, rounded once."""
    total = x.astype(dtype)
    add_at(total, at, y.astype(dtype))
    x[...] = total.astype(x.dtype)


def combine_at(ufunc: np.ufunc, x: Array, at: Array, y: Array) -> None:
    """`x[at] = ufunc(x[at], y)` for vectors and flat positions, each as often as it occurs; `ufunc` is associative."""
    if (to := wide(x.dtype)) != x.dtype:
        total = x.astype(to)
        combine_at(ufunc, total, at, y.astype(to))
        x[...] = total.astype(x.dtype)
        return
    if isinstance(x, np.ndarray):
        ufunc.at(x, at, y)
        return
    if not at.size:
        return
    order = np.argsort(at)
    at, y = at[order], y[order]
    y = accumulate(ufunc, y, 0, at)
    last = np.ones_like(at, dtype=bool)
    last[:-1] = at[1:] != at[:-1]
    at = at[last]
    x[at] = ufunc(x[at], y[last])


def accumulate(ufunc: np.ufunc, x: Array, axis: int, runs: Array | None = None) -> Array:
    """`ufunc.accumulate(x, axis)`; where `runs` (as long as the axis) changes, it begins anew."""
    if isinstance(x, np.ndarray) and runs is None:
        return ufunc.accumulate(x, axis=axis)
    x = np.moveaxis(x.copy(), axis, 0)
    step = 1
    while step < len(x):  # after each pass, an element stands for twice as many before it
        new = ufunc(x[step:], x[:-step])
        if runs is not None:
            here = (runs[step:] == runs[:-step]).reshape(-1, *[1] * (x.ndim - 1))
            new = np.where(here, new, x[step:])
        x[step:] = new
        step *= 2
    return np.moveaxis(x, 0, axis)


def mean_of(x: Array, axis: int, keepdims: bool = False) -> Array:
    """The mean along an axis; of no elements NaN, without the warning that np.mean gives."""
    return np.asarray(x.sum(axis, keepdims=keepdims) / x.dtype.type(x.shape[axis]), like=x)
