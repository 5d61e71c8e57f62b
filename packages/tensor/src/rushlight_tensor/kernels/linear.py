"""Linear layers: `x @ w.T + b` and its gradients, one BLAS call each on our own threads."""

from __future__ import annotations

import math

import numpy as np

from rushlight_tensor.kernels.arrays import contiguous
from rushlight_tensor.kernels.blas import blas_library, gemm
from rushlight_tensor.kernels.compile import c_library


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """`x @ w.T + b`.

    Args:
        x: (..., K).
        w: (N, K).
        b: (N,) or None.
    Returns:
        (..., N).
    """
    n, k = w.shape
    c = blas_library()
    if c is None or not c.float32(x, w, b):
        y = gemm(x, w.T) if x.ndim > 1 else np.matmul(x, w.T)
        return y if b is None else y + b
    y = np.empty((*x.shape[:-1], n), np.float32)
    c.linear(x, w, b, y, math.prod(x.shape[:-1]), n, k)
    return y


def linear_backward(
    g: np.ndarray, x: np.ndarray, w: np.ndarray, needs: tuple[bool, bool, bool] = (True, True, True)
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients of `linear`.

    Args:
        g: (..., N), gradient of the result.
        x: (..., K).
        w: (N, K).
        needs: Which of dx, dw, db to compute.
    Returns:
        dx (..., K), dw (N, K), db (N,); None where not needed.
    """
    n, k = w.shape
    m = math.prod(x.shape[:-1])
    c = blas_library()
    fits = c is not None and c.float32(g, x, w)
    if c is not None and not fits:
        g = contiguous(g)
        fits = c.float32(g, x, w)
    if c is None or not fits:
        flat = g.reshape(m, n)
        dx = gemm(flat, w).reshape(x.shape) if needs[0] else None
        dw = gemm(flat.T, x.reshape(m, k)) if needs[1] else None
        return dx, dw, column_sums(g) if needs[2] else None
    dx = np.empty(x.shape, np.float32) if needs[0] else None
    dw = np.empty((n, k), np.float32) if needs[1] else None
    if dx is not None:
        c.linear_grad_input(g, w, dx, m, n, k)
    if dw is not None:
        c.linear_grad_weight(g, x, dw, m, n, k)
    return dx, dw, column_sums(g) if needs[2] else None


def column_sums(g: np.ndarray) -> np.ndarray:
    """Sum over all axes but the last: the gradient of a bias; g (..., N), result (N,)."""
    n = g.shape[-1]
    c = c_library("blas")
    if c is None or not c.float32(g):
        return g.reshape(math.prod(g.shape[:-1]), n).sum(0)
    sums = np.empty(n, np.float32)
    c.column_sums(g, sums, math.prod(g.shape[:-1]), n)
    return sums
