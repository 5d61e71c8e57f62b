"""Layer norm and RMS norm over trailing dimensions, with gradients: the NumPy texts of their records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.kernels.arrays import mean_of

Array = Any


def layer_norm(x: Array, w: Array | None, b: Array | None, dims: int, eps: float) -> tuple[Array, Array, Array]:
    """Normalise each row to mean 0 and variance 1, then `* w + b` (Ba, Kiros and Hinton, 2016).

    Args:
        x: (*lead, *row); a row is the last `dims` dimensions.
        w: (*row) or None.
        b: (*row) or None.
        dims: How many dimensions a row has.
        eps: Added to the variance.
    Returns:
        y like x, and the rows' mean and 1 / standard deviation, (rows,), for `layer_norm_backward`.
    """
    xs = _rows(x, dims)
    mean = mean_of(xs, -1)
    centred = xs - mean[:, None]
    rstd = 1 / np.sqrt(mean_of(np.square(centred), -1) + xs.dtype.type(eps))
    y = (centred * rstd[:, None]).reshape(x.shape)
    y = y if w is None else y * w
    return y if b is None else y + b, mean, rstd


def layer_norm_backward(
    g: Array, x: Array, w: Array | None, mean: Array, rstd: Array, dims: int, eps: float, needs: tuple[bool, ...]
) -> tuple[Array, ...]:
    """Gradients of `layer_norm` by x, w and b, those that are needed; g like x, the others as they were there."""
    row = x.shape[x.ndim - dims :]
    gs, xs = _rows(g, dims), _rows(x, dims)
    normed = (xs - mean[:, None]) * rstd[:, None]
    out = []
    if needs[0]:
        gw = gs if w is None else gs * w.reshape(-1)
        dx = rstd[:, None] * (gw - mean_of(gw, -1, True) - normed * mean_of(gw * normed, -1, True))
        out.append(dx.reshape(x.shape))
    if needs[1]:
        out.append((gs * normed).sum(0).reshape(row))
    if needs[2]:
        out.append(gs.sum(0).reshape(row))
    return tuple(out)


def rms_norm(x: Array, w: Array | None, dims: int, eps: float) -> tuple[Array, Array]:
    """`x / sqrt(mean(x^2) + eps) * w` over rows (Zhang and Sennrich, 2019); see `layer_norm`.

    Returns:
        y like x, and 1 / root mean square, (rows,), for `rms_norm_backward`.
    """
    xs = _rows(x, dims)
    rstd = 1 / np.sqrt(mean_of(np.square(xs), -1) + xs.dtype.type(eps))
    y = (xs * rstd[:, None]).reshape(x.shape)
    return y if w is None else y * w, rstd


def rms_norm_backward(
    g: Array, x: Array, w: Array | None, rstd: Array, dims: int, eps: float, needs: tuple[bool, ...]
) -> tuple[Array, ...]:
    """Gradients of `rms_norm` by x and w, those that are needed."""
    gs, xs, scale = _rows(g, dims), _rows(x, dims), rstd[:, None]
    out = []
    if needs[0]:
        gw = gs if w is None else gs * w.reshape(-1)
        out.append((scale * (gw - xs * scale**2 * mean_of(gw * xs, -1, True))).reshape(x.shape))
    if needs[1]:
        out.append((gs * xs * scale).sum(0).reshape(x.shape[x.ndim - dims :]))
    return tuple(out)


def _rows(x: Array, dims: int) -> Array:
    at = x.ndim - dims
    return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))
