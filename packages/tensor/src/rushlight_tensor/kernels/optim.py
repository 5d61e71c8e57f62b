"""Optimizer steps and the norm of many arrays: the NumPy texts of records whose kernels are in `c/optim.c`."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from rushlight_tensor.core.half_precision import wide
from rushlight_tensor.core.infer import real_dtype
from rushlight_tensor.core.promote import promote_types

Array = Any


def adam(
    p: Array, step: Array, m: Array, v: Array, g: Array, *, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    """A step of Adam (Kingma and Ba, 2015), or of AdamW (Loshchilov and Hutter, 2019) when `decoupled`, in place.

    Args:
        p: The parameter, updated.
        step: Counts the steps, one number.
        m: Running mean of the gradient, updated.
        v: Running mean of its square, updated.
        g: The gradient.
        lr: Learning rate.
        beta1: Decay of `m`.
        beta2: Decay of `v`.
        eps: Added to the denominator.
        weight_decay: Shrinks the parameter directly when `decoupled`, else adds to the gradient.
        decoupled: AdamW's weight decay instead of Adam's.
        maximize: Go up the gradient.
    """
    step += 1
    t = float(step)
    g = -g if maximize else g
    if decoupled:
        p *= 1 - lr * weight_decay
    elif weight_decay:
        g = g + weight_decay * p
    m += (1 - beta1) * (g - m)
    v *= beta2
    v += (1 - beta2) * g * g
    p -= lr / (1 - beta1**t) * (m / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps))


def sgd(
    p: Array, *rest: Array, lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool,
    first: bool, maximize: bool,
) -> None:  # fmt: skip
    """A step of stochastic gradient descent in place, by PyTorch's formula for momentum.

    Args:
        p: The parameter, updated.
        rest: The momentum buffer, updated (none without momentum), and the gradient.
        lr: Learning rate.
        momentum: Decay of the buffer.
        dampening: Share of the gradient that does not enter the buffer, except at the first step.
        weight_decay: Adds `weight_decay * p` to the gradient.
        nesterov: Look ahead by one step of the buffer.
        first: The buffer holds nothing yet and is set from the gradient.
        maximize: Go up the gradient.
    """
    g = -rest[-1] if maximize else rest[-1]
    if weight_decay:
        g = g + weight_decay * p
    if momentum:
        m = rest[0]
        if first:
            m[...] = g
        else:
            m *= momentum
            m += (1 - dampening) * g
        g = g + momentum * m if nesterov else m
    p -= lr * g


def total_norm(*xs: Array, norm_type: float) -> Array:
    """The p-norm of all elements of all arrays together, a 0-d array of their common dtype, real."""
    if math.isinf(norm_type):
        most = norm_type > 0
        parts = [float(abs(x).max() if most else abs(x).min()) if x.size else 0.0 for x in xs]
        norm = max(parts) if most else min(parts)
        norm = math.nan if any(math.isnan(p) for p in parts) else norm
    elif norm_type == 0:
        norm = float(sum(int((x != 0).any()) for x in xs))
    elif norm_type == 2:
        norm = math.sqrt(sum(float(np.sum(np.square(abs(x), dtype=np.float64))) for x in xs))
    else:
        norm = sum(float((abs(x).astype(np.float64) ** norm_type).sum()) for x in xs) ** (1.0 / norm_type)
    return np.asarray(norm, dtype=norm_dtype(*xs), like=xs[0])


def norm_dtype(*xs: Any) -> np.dtype[Any]:
    """The dtype of a norm of all of `xs`: that of the most precise one."""
    first: np.dtype[Any] = xs[0].dtype
    kinds = {x.dtype for x in xs}
    return real_dtype(functools.reduce(promote_types, kinds)) if len(kinds) > 1 else real_dtype(first)


def scale_all(*xs: Array) -> tuple[()]:
    """Multiply all arrays but the last, in place, by the last, a number."""
    factor = float(xs[-1])
    for x in xs[:-1]:
        if wide(x.dtype) == x.dtype:
            x *= factor
        else:  # a half's factor is not rounded to a half first
            x[...] = x.astype(wide(x.dtype)) * factor
    return ()
