"""Batch norm and its gradient over all dimensions but the second, on (N, C) and on logically (N, C, H, W) arrays."""

from __future__ import annotations

import numpy as np

from rushlight_tensor.kernels.arrays import contiguous, mean_of
from rushlight_tensor.kernels.binding import Library
from rushlight_tensor.kernels.channels_last import to_channels_last
from rushlight_tensor.kernels.compile import c_library

Array = np.ndarray


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel.

    Args:
        x: (N, C) or (N, C, H, W), the latter in any memory order.
    Returns:
        Mean (C,) and variance (C,).
    """
    flat = _channels_inside(x)
    library = _library(flat)
    if library is None:
        mean = mean_of(flat, 0)
        return mean, mean_of(np.square(flat - mean), 0)
    mean, var = np.empty(flat.shape[1], np.float32), np.empty(flat.shape[1], np.float32)
    library.moments(flat, mean, var, *flat.shape)
    return mean, var


def normalize(x: Array, mean: Array, rstd: Array, w: Array | None, b: Array | None) -> Array:
    """`(x - mean) * rstd * w + b` by channel (Ioffe and Szegedy, 2015).

    Args:
        x: (N, C) or (N, C, H, W).
        mean: (C,), of the batch or the running one.
        rstd: (C,), `1 / sqrt(var + eps)`.
        w: (C,) or None.
        b: (C,) or None.
    Returns:
        Array of x's shape.
    """
    flat = _channels_inside(x)
    library = _library(flat, mean, rstd, w, b)
    if library is None:
        y = (flat - mean) * (rstd if w is None else rstd * w)
        return _channels_second(y if b is None else y + b, x.shape)
    y = np.empty(flat.shape, np.float32)
    library.normalize(flat, mean, rstd, w, b, y, *flat.shape)
    return _channels_second(y, x.shape)


def batch_norm_backward(
    g: Array, x: Array, mean: Array, rstd: Array, w: Array | None, training: bool, needs_dx: bool = True
) -> tuple[Array | None, Array, Array]:
    """Gradients of `normalize`, where mean and rstd are those of `x` itself when `training`.

    Args:
        g: Gradient of the result, of x's shape.
        x: (N, C) or (N, C, H, W).
        mean: (C,), as for the forward pass, as are rstd and w.
        training: Whether mean and rstd came from `x`, and so pass gradients on.
        needs_dx: Whether to compute dx.
    Returns:
        dx of x's shape or None, dw (C,), db (C,).
    """
    flat, g_flat = _channels_inside(x), _channels_inside(g)
    rows, c = flat.shape
    library = _library(flat, g_flat, mean, rstd, w)
    if library is None:
        normed = (flat - mean) * rstd
        dw, db = (g_flat * normed).sum(0), g_flat.sum(0)
        inner = g_flat - db / rows - normed * (dw / rows) if training else g_flat
        dx = inner * (rstd if w is None else rstd * w) if needs_dx else None
    else:
        dx = np.empty(flat.shape, np.float32) if needs_dx else None
        dw, db = np.empty(c, np.float32), np.empty(c, np.float32)
        library.batch_norm_backward(g_flat, flat, mean, rstd, w, dx, dw, db, rows, c, training)
    return None if dx is None else _channels_second(dx, x.shape), dw, db


def _library(*arrays: Array | None) -> Library | None:
    c = c_library("batch_norm")
    return c if c is not None and c.float32(*arrays) else None


def _channels_inside(x: Array) -> Array:
    """(P, C) of (N, C) or (N, C, H, W): without a copy where memory already lies so."""
    return (
        contiguous(x) if x.ndim == 2 else to_channels_last(x).reshape(x.shape[0] * x.shape[2] * x.shape[3], x.shape[1])
    )


def _channels_second(flat: Array, shape: tuple[int, ...]) -> Array:
    if len(shape) == 2:
        return flat
    n, c, h, w = shape
    return flat.reshape(n, h, w, c).transpose(0, 3, 1, 2)
