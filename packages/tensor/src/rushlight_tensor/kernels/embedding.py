"""Rows of a table by index, and the gradient that adds up what comes back: the NumPy texts of their records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.kernels.arrays import add_at, on_host

Array = Any


def embedding(weight: Array, indices: Array, padding_idx: int) -> Array:
    """The rows of `weight`, (rows, D), that `indices` names; (*indices.shape, D)."""
    if on_host(indices) and indices.size and not (indices.min() >= 0 and indices.max() < weight.shape[0]):
        raise no_row(0, weight, indices)
    return weight.take(indices, axis=0)


def no_row(place: int, weight: Array, indices: Array, **attrs: Any) -> IndexError:
    """The error of an index that names no row."""
    return IndexError("index out of range in self")


def embedding_backward(g: Array, indices: Array, weight_shape: tuple[int, int], padding_idx: int, needs: Any) -> Array:
    """For each row of the table, the sum of the gradients of its uses.

    Args:
        g: (*indices.shape, D).
        indices: Integers, 0 to rows - 1.
        weight_shape: (rows, D).
        padding_idx: The row that gets zeros; -1 for none.
    Returns:
        (rows, D) of g's dtype.
    Raises:
        IndexError: An index names no row: they were changed since the forward pass.
    """
    rows, d = weight_shape
    g, at = g.reshape(math.prod(indices.shape), d), indices.reshape(-1)
    dw = np.zeros_like(g, shape=weight_shape, order="C")
    if on_host(g):
        wrong = (at < 0) | (at >= rows)
        if wrong.any():
            raise changed(int(np.argmax(wrong)), g, indices, weight_shape)
        _add_runs(dw, at, g)
    else:  # which asks nothing that would have to wait for an answer
        flat = at.astype(np.int64)[:, None] * d + np.arange(d, like=at)
        add_at(dw.reshape(-1), flat.reshape(-1), g.reshape(-1))
    if 0 <= padding_idx < rows:
        dw[padding_idx] = 0
    return dw


def changed(place: int, g: Array, indices: Array, weight_shape: tuple[int, int], **attrs: Any) -> IndexError:
    """The error of an index that names no row any more."""
    return IndexError(f"embedding: index {indices.reshape(-1)[place]} is out of range for {weight_shape[0]} rows")


def _add_runs(dw: Array, at: Array, g: Array) -> None:
    """`dw[at] += g`, by sorting: each row is a sum of neighbours."""
    order = np.argsort(at, kind="stable")
    at = at[order]
    starts = np.flatnonzero(np.concatenate([np.ones_like(at[:1], dtype=bool), at[1:] != at[:-1]]))
    if len(starts):
        dw[at[starts]] = np.add.reduceat(g[order], starts, axis=0)
