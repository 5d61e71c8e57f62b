"""The gradient of a table whose rows were taken by index."""

from __future__ import annotations

import numpy as np

from rushlight_tensor.kernels.arrays import add_at, contiguous, on_host
from rushlight_tensor.kernels.compile import c_library


def embedding_backward(g: np.ndarray, index: np.ndarray, rows: int, padding: int = -1) -> np.ndarray:
    """For each row of the table, the sum of the gradients of its uses.

    Args:
        g: (count, D).
        index: (count,) integers, 0 to `rows` - 1.
        rows: Number of rows of the table.
        padding: The row that gets zeros; -1 for none.
    Returns:
        (rows, D) of g's dtype.
    Raises:
        IndexError: An index names no row: they were changed since the forward pass.
    """
    c = c_library("embedding")
    if c is not None and c.float32(g):
        dw = np.empty((rows, g.shape[1]), np.float32)
        at = contiguous(index.astype(np.int64, copy=False))
        wrong = c.embedding_backward(g, at, dw, at.size, g.shape[1], rows, padding)
        if wrong >= 0:
            raise IndexError(f"embedding: index {at[wrong]} is out of range for {rows} rows")
        return dw
    dw = np.zeros_like(g, shape=(rows, g.shape[1]), order="C")
    if not on_host(g):  # the way below asks how many there are, and waits for the answer
        at = index.astype(np.int64)[:, None] * g.shape[1] + np.arange(g.shape[1], like=index)
        add_at(dw.reshape(-1), at.reshape(-1), g.reshape(-1))
        if 0 <= padding < rows:
            dw[padding] = 0
        return dw
    wrong = (index < 0) | (index >= rows)
    if wrong.any():
        raise IndexError(f"embedding: index {index[wrong][0]} is out of range for {rows} rows")
    order = np.argsort(index, kind="stable")
    sorted_index = index[order]
    starts = np.flatnonzero(
        np.concatenate([np.ones_like(sorted_index[:1], dtype=bool), sorted_index[1:] != sorted_index[:-1]])
    )
    if len(starts):
        dw[sorted_index[starts]] = np.add.reduceat(g[order], starts, axis=0)
    if 0 <= padding < rows:
        dw[padding] = 0
    return dw
