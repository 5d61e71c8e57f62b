"""Softmax and log-softmax along a dimension, with gradients from their results: the NumPy texts of their records."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def softmax(x: Array, dim: int) -> Array:
    """`exp(x) / sum(exp(x))` along a dimension, without overflow."""
    e = np.exp(_shifted(x, dim))
    return e / e.sum(_axis(x, dim), keepdims=True)


def softmax_backward(g: Array, y: Array, dim: int, needs: Any = None) -> Array:
    """Gradient of `softmax` from its result: `y * (g - sum(g * y))`."""
    return y * (g - np.sum(g * y, _axis(y, dim), keepdims=True))


def log_softmax(x: Array, dim: int) -> Array:
    """`log(softmax(x))` along a dimension, without underflow."""
    shifted = _shifted(x, dim)
    return shifted - np.log(np.exp(shifted).sum(_axis(x, dim), keepdims=True))


def log_softmax_backward(g: Array, y: Array, dim: int, needs: Any = None) -> Array:
    """Gradient of `log_softmax` from its result: `g - exp(y) * sum(g)`."""
    return g - np.exp(y) * g.sum(_axis(y, dim), keepdims=True)


def _axis(x: Array, dim: int) -> int | None:
    """The axis; `None` where there is none to name."""
    return dim if x.ndim else None


def _shifted(x: Array, dim: int) -> Array:
    """`x` minus its maximum.  -inf alone becomes NaN, as its softmax is."""
    if not x.ndim or x.shape[dim] == 0:
        return x - x
    return x - x.max(dim, keepdims=True)
