"""Layer norm and RMS norm over the trailing elements of an array, with gradients."""

from __future__ import annotations

import math

import numpy as np

from rushlight_tensor.core.cuda import is_cuda
from rushlight_tensor.kernels import cuda_kernels
from rushlight_tensor.kernels.arrays import mean_of
from rushlight_tensor.kernels.compile import c_library

Array = np.ndarray


def layer_norm(x: Array, w: Array | None, b: Array | None, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """Normalise each row to mean 0 and variance 1, then `* w + b` (Ba, Kiros and Hinton, 2016).

    Args:
        x: (..., N); a norm over several dimensions is this after a reshape.
        w: (N,) or None.
        b: (N,) or None; needs `w`.
        eps: Added to the variance.
    Returns:
        y (..., N), and the rows' mean (...) and 1 / standard deviation (...) for `layer_norm_backward`.
    """
    c = c_library("norm")
    if c is None or not c.float32(x, w, b) or (b is not None and w is None):
        return cuda_kernels.layer_norm(x, w, b, eps) if is_cuda(x) else _layer_norm_numpy(x, w, b, eps)
    y, mean, rstd = (
        np.empty(x.shape, np.float32),
        np.empty(x.shape[:-1], np.float32),
        np.empty(x.shape[:-1], np.float32),
    )
    c.layer_norm(x, w, b, y, mean, rstd, mean.size, x.shape[-1], eps)
    return y, mean, rstd


def layer_norm_backward(
    g: Array, x: Array, w: Array | None, mean: Array, rstd: Array, needs: tuple[bool, bool, bool] = (True, True, True)
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of `layer_norm`.

    Args:
        g: (..., N), gradient of y.
        x: (..., N).
        w: (N,) or None.
        mean: (...), from the forward pass.
        rstd: (...), from the forward pass.
        needs: Which of dx, dw, db to compute.
    Returns:
        dx (..., N), dw (N,), db (N,); None where not needed.
    """
    c = c_library("norm")
    if c is None or not c.float32(g, x, w, mean, rstd):
        if is_cuda(x):
            return cuda_kernels.layer_norm_backward(g, x, w, mean, rstd, needs)
        return _layer_norm_backward_numpy(g, x, w, mean, rstd, needs)
    n = x.shape[-1]
    dx = np.empty(x.shape, np.float32) if needs[0] else None
    dw = np.empty(n, np.float32) if needs[1] else None
    db = np.empty(n, np.float32) if needs[2] else None
    c.layer_norm_backward(g, x, w, mean, rstd, dx, dw, db, mean.size, n)
    return dx, dw, db


def rms_norm(x: Array, w: Array | None, eps: float) -> tuple[Array, Array]:
    """`x / sqrt(mean(x^2) + eps) * w` over rows (Zhang and Sennrich, 2019).

    Args:
        x: (..., N).
        w: (N,) or None.
        eps: Added to the mean square.
    Returns:
        y (..., N), and 1 / root mean square (...) for `rms_norm_backward`.
    """
    c = c_library("norm")
    if c is None or not c.float32(x, w):
        rstd = 1 / np.sqrt(mean_of(np.square(x), -1) + x.dtype.type(eps))
        y = x * rstd[..., None]
        return y if w is None else y * w, rstd
    y, rstd = np.empty(x.shape, np.float32), np.empty(x.shape[:-1], np.float32)
    c.rms_norm(x, w, y, rstd, rstd.size, x.shape[-1], eps)
    return y, rstd


def rms_norm_backward(
    g: Array, x: Array, w: Array | None, rstd: Array, needs: tuple[bool, bool] = (True, True)
) -> tuple[Array | None, Array | None]:
    """Gradients of `rms_norm`: dx (..., N) and dw (N,); None where not needed."""
    c = c_library("norm")
    if c is None or not c.float32(g, x, w, rstd):
        scale = rstd[..., None]
        gw = g if w is None else g * w
        dx = scale * (gw - x * scale**2 * mean_of(gw * x, -1, True)) if needs[0] else None
        return dx, (g * x * scale).reshape(math.prod(x.shape[:-1]), x.shape[-1]).sum(0) if needs[1] else None
    dx = np.empty(x.shape, np.float32) if needs[0] else None
    dw = np.empty(x.shape[-1], np.float32) if needs[1] else None
    c.rms_norm_backward(g, x, w, rstd, dx, dw, rstd.size, x.shape[-1])
    return dx, dw


def _layer_norm_numpy(x: Array, w: Array | None, b: Array | None, eps: float) -> tuple[Array, Array, Array]:
    mean = mean_of(x, -1)
    centred = x - mean[..., None]
    rstd = 1 / np.sqrt(mean_of(np.square(centred), -1) + x.dtype.type(eps))
    y = centred * rstd[..., None]
    y = y if w is None else y * w
    return y if b is None else y + b, mean, rstd


def _layer_norm_backward_numpy(
    g: Array, x: Array, w: Array | None, mean: Array, rstd: Array, needs: tuple[bool, bool, bool]
) -> tuple[Array | None, Array | None, Array | None]:
    normed = (x - mean[..., None]) * rstd[..., None]
    gw = g if w is None else g * w
    dx = None
    if needs[0]:
        dx = rstd[..., None] * (gw - mean_of(gw, -1, True) - normed * mean_of(gw * normed, -1, True))
    dw = (g * normed).reshape(math.prod(x.shape[:-1]), x.shape[-1]).sum(0) if needs[1] else None
    return dx, dw, g.reshape(math.prod(x.shape[:-1]), x.shape[-1]).sum(0) if needs[2] else None
