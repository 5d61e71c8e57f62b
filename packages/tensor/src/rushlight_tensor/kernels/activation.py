"""Elementwise functions of float32 arrays on all threads, and the activations with their gradients.

The plain functions (`exp`, `tanh`, `sigmoid`, `silu`, `relu`) are those of `c/vmath.h` at every size and in every
layout, as in fused kernels and in `c/accelerator.c`: one arithmetic.  Other dtypes are NumPy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from rushlight_tensor.kernels.compile import c_library

_ERF = np.frompyfunc(math.erf, 1, 1)


def _run(kernel: str, x: np.ndarray, *others: np.ndarray) -> np.ndarray | None:
    """A kernel of `c/activation.c` over arrays that lie alike in memory, as does the result; None where C cannot do it.

    Images lie in memory as `channels_last` says: their result must stay in that order.
    """
    c = c_library("activation")
    if c is None:
        return None
    if c.float32(x, *others):
        y = np.empty(x.shape, np.float32)
        getattr(c, kernel)(x, *others, y, x.size)
        return y
    if x.ndim != 4:
        return None
    images = [image.transpose(0, 2, 3, 1) for image in (x, *others)]
    if not c.float32(*images):
        return None
    y = np.empty(images[0].shape, np.float32)
    getattr(c, kernel)(*images, y, y.size)
    return y.transpose(0, 3, 1, 2)


def _unary(name: str, reference: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    kernel = f"{name}_f32"

    def function(x: np.ndarray) -> np.ndarray:
        y = _run(kernel, x)
        if y is None and type(x) is np.ndarray and x.dtype == np.float32:
            order = sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))  # the result lies as `x` does
            if (y := _run(kernel, np.ascontiguousarray(x.transpose(order)))) is not None:
                y = y.transpose(np.argsort(order))
        return reference(x) if y is None else y

    function.__name__ = name
    function.__doc__ = f"`{name}` of every element; same shape and dtype."
    return function


def _sigmoid_numpy(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


exp = _unary("exp", np.exp)
tanh = _unary("tanh", np.tanh)
sigmoid = _unary("sigmoid", _sigmoid_numpy)
silu = _unary("silu", lambda x: x * _sigmoid_numpy(x))
_ZERO = np.float32(0)  # a Python number costs NumPy 0.1 us more
# In this order -0.0 stays, as in C and in PyTorch.
relu = _unary("relu", lambda x: np.maximum(_ZERO if x.dtype.char == "f" else 0, x))


def relu_backward(g: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gradient of `relu` from its result (or its input): `g` where `y > 0`, else 0."""
    if g.shape == y.shape and (dx := _run("relu_backward_f32", g, y)) is not None:
        return dx
    dx = np.broadcast_to(g, y.shape).copy(order="K")
    dx[y <= 0] = 0
    return dx


def silu_backward(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gradient of `silu`: `g` times its derivative at `x`."""
    if g.shape == x.shape and (dx := _run("silu_backward_f32", g, x)) is not None:
        return dx
    s = _sigmoid_numpy(x)
    return g * (s * (1 + x * (1 - s)))


def gelu(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """Gaussian error linear unit (Hendrycks and Gimpel, 2016).

    Args:
        x: Floating-point array of any shape.
        approximate: "none" for `x * Phi(x)`, "tanh" for its approximation by a hyperbolic tangent.
    Returns:
        Array of the same shape and dtype.
    """
    y = _run("gelu_tanh" if approximate == "tanh" else "gelu_erf", x)
    return _gelu_numpy(x, approximate) if y is None else y


def gelu_backward(g: np.ndarray, x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """Gradient of `gelu`: `g` times its derivative at `x`."""
    dx = _run("gelu_tanh_backward" if approximate == "tanh" else "gelu_erf_backward", g, x)
    return g * _gelu_derivative_numpy(x, approximate) if dx is None else dx


def erf(x: np.ndarray) -> np.ndarray:
    """The error function of every element.

    NumPy has none: large arrays go through the C kernel of `gelu`'s polynomial, the others through math.erf, in double
    precision.
    """
    if x.size >= 64 and (y := _run("erf_f32", x)) is not None:
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
