"""Softmax and log-softmax along the last axis, with gradients from their results."""

from __future__ import annotations

import numpy as np

from rushlight_tensor.core.cuda import is_cuda
from rushlight_tensor.kernels import cuda_kernels
from rushlight_tensor.kernels.compile import c_library


def softmax(x: np.ndarray) -> np.ndarray:
    """`exp(x) / sum(exp(x))` along the last axis, without overflow; x (..., N)."""
    c = c_library("softmax")
    if c is None or not c.float32(x):
        if is_cuda(x):
            return cuda_kernels.softmax(x)
        e = _shifted(x)
        np.exp(e, out=e)
        e /= e.sum(-1, keepdims=True)
        return e
    y = np.empty(x.shape, np.float32)
    c.softmax(x, y, *_rows(x))
    return y


def softmax_backward(g: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of `softmax` from its result: `y * (g - sum(g * y))`; g, y (..., N)."""
    c = c_library("softmax")
    if c is None or not c.float32(g, y):
        if is_cuda(y):
            return cuda_kernels.softmax_backward(g, y)
        return y * (g - np.sum(g * y, -1, keepdims=True))
    dx = np.empty(y.shape, np.float32)
    c.softmax_backward(g, y, dx, *_rows(y))
    return dx


def log_softmax(x: np.ndarray) -> np.ndarray:
    """`log(softmax(x))` along the last axis, without underflow; x (..., N)."""
    c = c_library("softmax")
    if c is None or not c.float32(x):
        if is_cuda(x):
            return cuda_kernels.log_softmax(x)
        shifted = _shifted(x)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    y = np.empty(x.shape, np.float32)
    c.log_softmax(x, y, *_rows(x))
    return y


def log_softmax_backward(g: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of `log_softmax` from its result: `g - exp(y) * sum(g)`; g, y (..., N)."""
    c = c_library("softmax")
    if c is None or not c.float32(g, y):
        if is_cuda(y):
            return cuda_kernels.log_softmax_backward(g, y)
        return g - np.exp(y) * g.sum(-1, keepdims=True)
    dx = np.empty(y.shape, np.float32)
    c.log_softmax_backward(g, y, dx, *_rows(y))
    return dx


def _rows(x: np.ndarray) -> tuple[int, int]:
    n = x.shape[-1]
    return (x.size // n if n else 0), n


def _shifted(x: np.ndarray) -> np.ndarray:
    """Rows minus their maximum.  A row of -inf becomes NaN, as its softmax is."""
    if x.shape[-1] == 0:
        return x.copy()
    with np.errstate(invalid="ignore"):
        return x - x.max(-1, keepdims=True)
