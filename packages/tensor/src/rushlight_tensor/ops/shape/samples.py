"""What batching rules of records are made of: samples are the first dimension, and go to where a kernel takes them.

A rule gets `(size, batched, xs, attrs)`, see `batch` in `core/op.py`.
"""

from __future__ import annotations

from typing import Any

from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.ops.shape.shape import expand, permute, reshape


def _aligned(batched: Any, xs: Any, rank: int = 0) -> list[Any]:
    """`xs` for broadcasting: batched tensors get dimensions of size 1 behind the first, up to the largest rank."""
    for x, b in zip(xs, batched, strict=True):
        if isinstance(x, Tensor):
            rank = max(rank, x._array.ndim - b)
    return [
        reshape(x, (x._array.shape[0], *[1] * (rank + 1 - x._array.ndim), *x._array.shape[1:]))
        if b and x._array.ndim <= rank
        else x
        for x, b in zip(xs, batched, strict=True)
    ]


def _in_front(size: int, batched: Any, xs: Any) -> list[Any]:
    """`xs`, all tensors with the samples in front."""
    return [
        expand(x, (size, *x._array.shape)) if isinstance(x, Tensor) and not b else x
        for x, b in zip(xs, batched, strict=True)
    ]


def _merged(x: Any, dim: int) -> Any:
    """(B, …) with the samples merged into dimension `dim` of one sample, as its outer part."""
    if x is None:
        return None
    n = x._array.ndim
    x = permute(x, (*range(1, dim + 1), 0, *range(dim + 1, n))) if dim else x
    shape = x._array.shape
    return reshape(x, (*shape[:dim], shape[dim] * shape[dim + 1], *shape[dim + 2 :]))


def _parted(x: Any, dim: int, size: int) -> Any:
    """`_merged` undone: the samples in front again."""
    shape = x._array.shape
    x = reshape(x, (*shape[:dim], size, shape[dim] // size, *shape[dim + 1 :]))
    return permute(x, (dim, *[d for d in range(len(shape) + 1) if d != dim])) if dim else x
