"""Optimizer steps in place over lists of arrays, and the gradient norm: one call for all parameters.

Every function takes lists of arrays that belong together by position (parameter, gradient, state).  Contiguous float32
arrays go to C in one call; the others are done one by one in NumPy, by the same formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from rushlight_tensor.core.cuda import is_cuda
from rushlight_tensor.kernels import cuda_kernels
from rushlight_tensor.kernels.arrays import contiguous
from rushlight_tensor.kernels.binding import Library
from rushlight_tensor.kernels.compile import c_library

Arrays = list[np.ndarray]
T = TypeVar("T")


def adam_step(
    params: Arrays,
    grads: Arrays,
    means: Arrays,
    squares: Arrays,
    steps: Sequence[float],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    maximize: bool = False,
) -> None:
    """One step of Adam (Kingma and Ba, 2015), or of AdamW (Loshchilov and Hutter, 2019) when `decoupled`, in place.

    Args:
        params: Updated.
        grads: Read only; same shapes.
        means: Running mean of the gradients, updated.
        squares: Running mean of their squares, updated.
        steps: Number of this step for each parameter, counted from 1.
        lr: Learning rate.
        beta1: Decay of `means`.
        beta2: Decay of `squares`.
        eps: Added to the denominator.
        weight_decay: Shrinks the parameters directly when `decoupled`, else adds to the gradient.
        decoupled: AdamW's weight decay instead of Adam's.
        maximize: Go up the gradient.
    """
    on_device = params and is_cuda(params[0])
    if on_device and all(is_cuda(p) and p.dtype == np.float32 and p.flags.c_contiguous for p in params):
        cuda_kernels.adam_step(
            params, [contiguous(g) for g in grads], means, squares, steps, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
            weight_decay=weight_decay, decoupled=decoupled, maximize=maximize,
        )  # fmt: skip
        return
    step_sizes = [lr / (1 - beta1**t) for t in steps]
    corrections = [math.sqrt(1 - beta2**t) for t in steps]
    c, fast, slow = _split(params, grads, means, squares)
    if c is not None:
        c.adam(
            *(_pick(arrays, fast) for arrays in (params, grads, means, squares)), _sizes(params, fast),
            np.array(_pick(step_sizes, fast)), np.array(_pick(corrections, fast)),
            len(fast), lr, beta1, beta2, eps, weight_decay, decoupled, maximize,
        )  # fmt: skip
    for i in slow:
        p, m, v, g = params[i], means[i], squares[i], -grads[i] if maximize else grads[i]
        if decoupled:
            p *= 1 - lr * weight_decay
        elif weight_decay:
            g = g + weight_decay * p
        m += (1 - beta1) * (g - m)
        v *= beta2
        v += (1 - beta2) * g * g
        p -= step_sizes[i] * (m / (np.sqrt(v) / corrections[i] + eps))


def sgd_step(
    params: Arrays,
    grads: Arrays,
    buffers: Arrays,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    first: bool = False,
    maximize: bool = False,
) -> None:
    """One step of stochastic gradient descent in place, by PyTorch's formula for momentum.

    Args:
        params: Updated.
        grads: Read only; same shapes.
        buffers: Momentum buffers, updated; an empty list without momentum.
        lr: Learning rate.
        momentum: Decay of the buffers.
        dampening: Share of the gradient that does not enter the buffers, except at the first step.
        weight_decay: Adds `weight_decay * param` to the gradient.
        nesterov: Look ahead by one step of the buffer.
        first: The buffers hold nothing yet and are set from the gradients.
        maximize: Go up the gradient.
    """
    c, fast, slow = _split(params, grads, buffers)
    if c is not None:
        c.sgd(
            *(_pick(arrays, fast) if arrays else None for arrays in (params, grads, buffers)), _sizes(params, fast),
            len(fast), lr, momentum, dampening, weight_decay, nesterov, first, maximize,
        )  # fmt: skip
    for i in slow:
        p, g = params[i], -grads[i] if maximize else grads[i]
        if weight_decay:
            g = g + weight_decay * p
        if momentum:
            m = buffers[i]
            if first:
                m[...] = g
            else:
                m *= momentum
                m += (1 - dampening) * g
            g = g + momentum * m if nesterov else m
        p -= lr * g


def sum_of_squares(arrays: Arrays) -> float:
    """Sum of the squares of all elements of all arrays: the gradient norm is its square root."""
    c, fast, slow = _split(arrays)
    total = np.zeros(1)
    if c is not None:
        c.sum_of_squares(_pick(arrays, fast), _sizes(arrays, fast), total, len(fast))
    return total.item() + sum(float(np.sum(np.square(arrays[i], dtype=np.float64))) for i in slow)


def scale(arrays: Arrays, factor: float) -> None:
    """Multiply all arrays by a number, in place."""
    c, fast, slow = _split(arrays)
    if c is not None:
        c.scale(_pick(arrays, fast), _sizes(arrays, fast), len(fast), factor)
    for i in slow:
        arrays[i] *= factor


def _split(*lists: Arrays) -> tuple[Library | None, Sequence[int], Sequence[int]]:
    """The C library and the positions whose arrays all go to C, and those left for NumPy."""
    everything = range(len(lists[0]))
    c = c_library("optim") if everything else None
    if c is None:
        return None, (), everything
    if all(c.float32(*arrays) for arrays in lists):
        return c, everything, ()
    fast = [i for i in everything if c.float32(*(arrays[i] for arrays in lists if arrays))]
    return c if fast else None, fast, [i for i in everything if i not in set(fast)]


def _pick(items: list[T], positions: Sequence[int]) -> list[T]:
    return items if isinstance(positions, range) else [items[i] for i in positions]


def _sizes(arrays: Arrays, positions: Sequence[int]) -> np.ndarray:
    return np.array([arrays[i].size for i in positions], np.int64)
