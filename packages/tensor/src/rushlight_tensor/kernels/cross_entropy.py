"""Softmax and negative log-likelihood of class indices in one pass, with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core.cuda import is_cuda
from rushlight_tensor.kernels import cuda_kernels
from rushlight_tensor.kernels.arrays import contiguous
from rushlight_tensor.kernels.compile import c_library
from rushlight_tensor.kernels.softmax import _shifted

Array = np.ndarray


def cross_entropy(
    x: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> tuple[Array, Array]:
    """Cross-entropy of logits against class indices.

    Args:
        x: (N, C) logits.
        target: (N,) int64 classes; rows whose class is `ignore_index` do not count.
        weight: (C,) of x's dtype, the weight of each class, or None.
        reduction: "none", "sum", or "mean": over the rows that count, weighted.
        ignore_index: The class that marks a row to be ignored.
        label_smoothing: Share of the target spread evenly over all classes, 0 to 1.
    Returns:
        The loss, () or (N,) for "none", and each row's (max, log of the sum of exponentials) (N, 2) for the gradient.
    Raises:
        IndexError: A class does not exist; on a GPU its loss is NaN instead.
    """
    if is_cuda(x):
        each, stats = cuda_kernels.cross_entropy(x, target, weight, ignore_index, label_smoothing)
    else:
        each, stats = _losses(x, target, weight, ignore_index, label_smoothing)
    if reduction == "none":
        return each, stats
    total = np.add.reduce(each)
    if reduction == "mean":
        total = total / _total_weight(target, weight, ignore_index)  # 0 / 0 where no row counts: NaN, as in PyTorch
    return total.astype(x.dtype)[...], stats


def cross_entropy_backward(
    g: Array,
    x: Array,
    target: Array,
    stats: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Array:
    """Gradient of `cross_entropy` by the logits.

    Args:
        g: () or (N,) for "none", gradient of the loss.
        x: (N, C), as for the forward pass, as are the others.
        stats: (N, 2), from the forward pass.
    Returns:
        (N, C).
    Raises:
        IndexError: A class does not exist: the targets were changed since the forward pass.
    """
    rows, n = x.shape
    if reduction == "mean":
        g = g / _total_weight(target, weight, ignore_index)
    if is_cuda(x):
        g = contiguous(np.broadcast_to(g, (rows,)).astype(stats.dtype))
        return cuda_kernels.cross_entropy_backward(g, x, target, stats, weight, ignore_index, label_smoothing)
    g = np.full(rows, g, x.dtype) if g.ndim == 0 else contiguous(g)
    c = c_library("softmax")
    if c is None or not c.float32(g, x, stats, weight) or target.dtype != np.int64:
        return _gradient_numpy(g, x, target, stats, weight, ignore_index, label_smoothing)
    dx = np.empty(x.shape, np.float32)
    target = contiguous(target)
    wrong = c.cross_entropy_backward(g, x, target, weight, stats, dx, rows, n, ignore_index, label_smoothing)
    if wrong >= 0:
        raise IndexError(f"Target {target[wrong]} is out of bounds.")
    return dx


def _losses(x: Array, target: Array, weight: Array | None, ignore_index: int, smoothing: float) -> tuple[Array, Array]:
    rows, n = x.shape
    c = c_library("softmax")
    if c is None or not c.float32(x, weight) or target.dtype != np.int64:
        return _losses_numpy(x, target, weight, ignore_index, smoothing)
    target = contiguous(target)
    each, stats = np.empty(rows, np.float32), np.empty((rows, 2), np.float32)
    wrong = c.cross_entropy(x, target, weight, each, stats, rows, n, ignore_index, smoothing)
    if wrong >= 0:
        raise IndexError(f"Target {target[wrong]} is out of bounds.")
    return each, stats


def _total_weight(target: Array, weight: Array | None, ignore_index: int) -> Any:
    counts = target != ignore_index
    if weight is not None:
        if not is_cuda(target):  # looking would wait for it
            check_targets(target, counts, weight.shape[0])
        return weight[target[counts]].sum(dtype=np.float64)
    return counts.sum(dtype=np.float64) if is_cuda(counts) else np.float64(np.count_nonzero(counts))


def check_targets(target: Array, counts: Array, classes: int) -> None:
    """Raises IndexError where a class that counts does not exist."""
    wrong = counts & ((target < 0) | (target >= classes))
    if wrong.any():
        raise IndexError(f"Target {target[wrong][0]} is out of bounds.")


def _losses_numpy(
    x: Array, target: Array, weight: Array | None, ignore_index: int, smoothing: float
) -> tuple[Array, Array]:
    counts = target != ignore_index
    check_targets(target, counts, x.shape[1])
    shifted = _shifted(x, -1)
    log_sum = np.log(np.exp(shifted).sum(-1))
    logp = shifted - log_sum[:, None]
    w = np.ones_like(x, shape=x.shape[1]) if weight is None else weight
    t = np.where(counts, target, 0)
    losses = -(1 - smoothing) * w[t] * logp[np.arange(len(t)), t]
    if smoothing > 0:
        losses = losses - smoothing / max(x.shape[1], 1) * (logp * w).sum(-1)
    stats = np.stack([x.max(-1) if x.size else x.sum(-1), log_sum], 1)
    return np.where(counts, losses, 0).astype(x.dtype), stats


def _gradient_numpy(
    g: Array, x: Array, target: Array, stats: Array, weight: Array | None, ignore_index: int, smoothing: float
) -> Array:
    counts = target != ignore_index
    check_targets(target, counts, x.shape[1])
    w = np.ones_like(x, shape=x.shape[1]) if weight is None else weight
    t = np.where(counts, target, 0)
    wanted = np.broadcast_to(smoothing / max(x.shape[1], 1) * w, x.shape).copy()
    wanted[np.arange(len(t)), t] += (1 - smoothing) * w[t]
    dx = np.exp(x - stats[:, :1] - stats[:, 1:]) * wanted.sum(-1, keepdims=True) - wanted
    return np.where(counts[:, None], dx * g[:, None], 0).astype(x.dtype)
