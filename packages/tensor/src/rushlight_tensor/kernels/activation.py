"""Activations and their gradients, elementary functions: the NumPy texts of their records.

The C texts are those of `c/vmath.h` at every size, as in fused kernels and in `c/accelerator.c`: one arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = Any

_ERF = np.frompyfunc(math.erf, 1, 1)
_GELU_SCALE, _GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715


def sigmoid(x: Array) -> Array:
    """`1 / (1 + exp(-x))`."""
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    """`x * sigmoid(x)`."""
    return x / (1 + np.exp(-x)) if x.dtype.kind == "c" else x * sigmoid(x)


def silu_backward(g: Array, y: Array, needs: Any = None) -> Array:
    """Gradient of `silu` at `y`, its input."""
    s = sigmoid(y)
    return g * (s * (1 + y * (1 - s)))


def relu(x: Array) -> Array:
    """`max(0, x)`."""
    return np.maximum(x.dtype.type(0), x)  # in this order -0.0 stays, as in C and in PyTorch


def relu_backward(g: Array, y: Array, needs: Any = None) -> Array:
    """Gradient of `relu` from its result (or its input): `g` where `y > 0`, else 0."""
    dx = np.broadcast_to(g, y.shape).copy(order="K")
    dx[y <= 0] = 0
    return dx


def erf(x: Array) -> Array:
    """The error function, computed in double precision: NumPy has none."""
    return np.asarray(_ERF(x), np.float64).astype(x.dtype)


def gelu(x: Array) -> Array:
    """`x * Phi(x)`, the Gaussian error linear unit (Hendrycks and Gimpel, 2016)."""
    return (0.5 * x * (1 + erf(x * math.sqrt(0.5)))).astype(x.dtype)


def gelu_backward(g: Array, y: Array, needs: Any = None) -> Array:
    """Gradient of `gelu` at `y`, its input."""
    density = np.exp(-0.5 * y * y) / math.sqrt(2 * math.pi)
    return g * (0.5 * (1 + erf(y * math.sqrt(0.5))) + y * density).astype(y.dtype)


def gelu_tanh(x: Array) -> Array:
    """The approximation of `gelu` by a hyperbolic tangent."""
    return (0.5 * x * (1 + np.tanh(_GELU_SCALE * (x + _GELU_CUBIC * x**3)))).astype(x.dtype)


def gelu_tanh_backward(g: Array, y: Array, needs: Any = None) -> Array:
    """Gradient of `gelu_tanh` at `y`, its input."""
    t = np.tanh(_GELU_SCALE * (y + _GELU_CUBIC * y**3))
    slope = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * y**2)
    return g * (0.5 * (1 + t) + 0.5 * y * (1 - t * t) * slope).astype(y.dtype)
