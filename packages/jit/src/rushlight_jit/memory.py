"""Memory: which arrays overlap, whatever tensors and views stand before them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_ndarray = np.ndarray


def extent(array: Any) -> tuple[int, int]:
    """The addresses of the first byte of an array and of the first one after it; equal for an empty array."""
    size = array.size
    start = array.__array_interface__["data"][0] if hasattr(array, "__array_interface__") else array.data.ptr
    if size == 0:
        return start, start
    low = high = start
    for n, step in zip(array.shape, array.strides, strict=True):
        if step < 0:
            low += (n - 1) * step
        else:
            high += (n - 1) * step
    return low, high + array.itemsize


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two extents have a byte in common."""
    return a[0] < b[1] and b[0] < a[1]


def own(arrays: Iterable[Any]) -> bool:
    """Whether each is an array of NumPy's with memory of its own: two of them overlap only if they are one."""
    return all(type(a) is _ndarray and a.flags.owndata for a in arrays)


def classes(arrays: Sequence[Any]) -> tuple[int, ...]:
    """For each array the number of the first one in its class: arrays that overlap, directly or through others."""
    count = len(arrays)
    if count < 2 or (own(arrays) and len({id(a) for a in arrays}) == count):
        return tuple(range(count))
    spans = [extent(a) for a in arrays]
    order = sorted(range(len(spans)), key=spans.__getitem__)
    out = list(range(len(spans)))
    head, end = -1, -1
    for i in order:
        low, high = spans[i]
        if low == high:
            continue
        if low < end:
            out[i] = head
            end = max(end, high)
        else:
            head, end = i, high
    first: dict[int, int] = {}
    return tuple([first.setdefault(h, i) for i, h in enumerate(out)])


def touches(array: Any, others: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Which of these extents the array overlaps."""
    mine = extent(array)
    return tuple([i for i, other in enumerate(others) if overlap(mine, other)])
