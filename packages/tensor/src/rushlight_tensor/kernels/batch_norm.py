"""Batch norm, its gradient and its statistics, over all dimensions but the second: the NumPy texts of their records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.kernels.arrays import mean_of

Array = Any


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel, (C,), of (N, C, ...)."""
    flat = _by_channel(x)
    mean = mean_of(flat, 0)
    return mean, mean_of(np.square(flat - mean), 0)


def update(
    running_mean: Array, running_var: Array, centre: Array, var: Array, momentum: float, correction: float
) -> tuple[()]:
    """Move the running statistics towards those of a batch, whose variance is multiplied by `correction`."""
    for running, new, factor in ((running_mean, centre, momentum), (running_var, var, momentum * correction)):
        running *= running.dtype.type(1 - momentum)
        running += (new * new.dtype.type(factor)).astype(running.dtype, copy=False)
    return ()


def batch_norm(
    x: Array, weight: Array | None, bias: Array | None, centre: Array, var: Array, training: bool, eps: float
) -> Array:
    """`(x - centre) / sqrt(var + eps) * weight + bias` by channel (Ioffe and Szegedy, 2015).

    Args:
        x: (N, C, ...).
        weight: (C,) or None.
        bias: (C,) or None.
        centre: (C,), of the batch or the running one.
        var: (C,), likewise, biased.
        training: Whether they are those of the batch, for the gradient.
        eps: Added to the variance.
    """
    flat, rstd = _by_channel(x), _rstd(var, eps)
    y = (flat - centre) * (rstd if weight is None else rstd * weight)
    return _as_channels(y if bias is None else y + bias, x.shape)


def batch_norm_backward(
    g: Array,
    x: Array,
    weight: Array | None,
    centre: Array,
    var: Array,
    training: bool,
    eps: float,
    needs: tuple[bool, ...],
) -> tuple[Array, ...]:
    """Gradients of `batch_norm` by x, weight and bias, those that are needed.

    Where centre and var are those of `x` itself, when `training`, they pass gradients on.
    """
    flat, gs, rstd = _by_channel(x), _by_channel(g), _rstd(var, eps)
    normed = (flat - centre) * rstd
    dw, db = (gs * normed).sum(0), gs.sum(0)
    made = []
    if needs[0]:
        inner = gs - db / len(flat) - normed * (dw / len(flat)) if training else gs
        made.append(_as_channels(inner * (rstd if weight is None else rstd * weight), x.shape))
    return (*made, *[d for d, need in zip((dw, db), needs[1:3], strict=True) if need])


def _rstd(var: Array, eps: float) -> Array:
    return 1 / np.sqrt(var + var.dtype.type(eps))


def _by_channel(x: Array) -> Array:
    """(P, C) of (N, C, ...): samples or pixels."""
    return np.moveaxis(x, 1, -1).reshape(math.prod(x.shape[2:], start=x.shape[0]), x.shape[1])


def _as_channels(flat: Array, shape: tuple[int, ...]) -> Array:
    return np.moveaxis(flat.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
