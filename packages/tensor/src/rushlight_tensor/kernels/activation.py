"""Elementwise functions of large float32 arrays on all threads, and the activations with their gradients.

The plain functions (`exp`, `tanh`, `sigmoid`, `silu`, `relu`, `add`, `sub`, `mul`, `div`) are NumPy's below `LARGE`
elements, where it is as fast, and for every other dtype and layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from rushlight_tensor.kernels.compile import c_library

LARGE = 16384
_ERF = np.frompyfunc(math.erf, 1, 1)


def _unary(name: str, reference: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    kernel_name = f"{name}_f32"

    def function(x: np.ndarray) -> np.ndarray:
        if x.size >= LARGE and (c := c_library("activation")) is not None and c.float32(x):
            y = np.empty(x.shape, np.float32)
            getattr(c, kernel_name)(x, y, x.size)
            return y
        return reference(x)

    function.__name__ = name
    function.__doc__ = f"`{name}` of every element; same shape and dtype."
    return function


def _binary(name: str, reference: np.ufunc) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    kernel_name = f"{name}_f32"

    def function(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if x.size >= LARGE and x.shape == y.shape and (c := c_library("activation")) is not None and c.float32(x, y):
            z = np.empty(x.shape, np.float32)
            getattr(c, kernel_name)(x, y, z, x.size)
            return z
        return reference(x, y)

    function.__name__ = name
    function.__doc__ = f"np.{reference.__name__} of two arrays, with its broadcasting and dtypes."
    return function


def _sigmoid_numpy(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


exp = _unary("exp", np.exp)
tanh = _unary("tanh", np.tanh)
sigmoid = _unary("sigmoid", _sigmoid_numpy)
silu = _unary("silu", lambda x: x * _sigmoid_numpy(x))
relu = _unary("relu", lambda x: np.maximum(x, 0))
add = _binary("add", np.add)
sub = _binary("sub", np.subtract)
mul = _binary("mul", np.multiply)
div = _binary("div", np.true_divide)


def relu_backward(g: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of `relu` from its result (or its input): `g` where `y > 0`, else 0."""
    if (c := c_library("activation")) is not None and c.float32(g, y) and g.shape == y.shape:
        dx = np.empty(y.shape, np.float32)
        c.relu_backward_f32(g, y, dx, y.size)
        return dx
    return np.where(y <= 0, g.dtype.type(0), g)


def gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """Gaussian error linear unit (Hendrycks and Gimpel, 2016).

    Args:
        x: Floating-point array of any shape.
        approximate: "none" for `x * Phi(x)`, "tanh" for its approximation by a hyperbolic tangent.
    Returns:
        Array of the same shape and dtype.
    """
    c = c_library("activation")
    if c is None or not c.float32(x):
        return _gelu_numpy(x, approximate)
    y = np.empty(x.shape, np.float32)
    (c.gelu_tanh if approximate == "tanh" else c.gelu_erf)(x, y, x.size)
    return y


def gelu_backward(g: np.ndarray, x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """Gradient of `gelu`: `g` times its derivative at `x`."""
    c = c_library("activation")
    if c is None or not c.float32(g, x):
        return g * _gelu_derivative_numpy(x, approximate)
    dx = np.empty(x.shape, np.float32)
    (c.gelu_tanh_backward if approximate == "tanh" else c.gelu_erf_backward)(g, x, dx, x.size)
    return dx


def erf(x: np.ndarray) -> np.ndarray:
    """The error function of every element.

    NumPy has none: large arrays go through the C kernel of `gelu`'s polynomial, the others through math.erf, in double
    precision.
    """
    c = c_library("activation") if x.size >= 64 else None
    if c is not None and c.float32(x):
        y = np.empty(x.shape, np.float32)
        c.erf_f32(x, y, x.size)
        return y
    return np.asarray(_ERF(x), np.float64).astype(x.dtype)


_GELU_SCALE, _GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715


def _gelu_numpy(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        return (0.5 * x * (1 + np.tanh(_GELU_SCALE * (x + _GELU_CUBIC * x**3)))).astype(x.dtype)
    return (0.5 * x * (1 + erf(x * math.sqrt(0.5)))).astype(x.dtype)


def _gelu_derivative_numpy(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        t = np.tanh(_GELU_SCALE * (x + _GELU_CUBIC * x**3))
        slope = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * x**2)
        return (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope).astype(x.dtype)
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return (0.5 * (1 + erf(x * math.sqrt(0.5))) + x * density).astype(x.dtype)
