"""Losses of class indices and their gradients: the NumPy texts of their records.

Logits are (C,), (N, C) or (N, C, d1, …), targets (), (N,) or (N, d1, …): rows of classes, and a class for each row.
A row whose class is `ignore_index` does not count.  The mean is over the rows that do, by the weights of their classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.kernels.arrays import on_host
from rushlight_tensor.kernels.softmax import _shifted

Array = Any


def cross_entropy(
    x: Array, target: Array, weight: Array | None, reduction: str, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array]:
    """Cross-entropy of logits against class indices.

    Args:
        x: The logits.
        target: The classes.
        weight: (C,), the weight of each class, or None.
        reduction: "none", "sum" or "mean".
        ignore_index: The class of rows that do not count.
        label_smoothing: Share of the target spread evenly over all classes, 0 to 1.
    Returns:
        The loss, () or like the target, and each row's (max, log of the sum of exponentials) (rows, 2).
    Raises:
        IndexError: A class does not exist; on a GPU its loss is NaN instead, or another's.
    """
    x = class_rows(x)
    shifted = _shifted(x, -1)
    log_sum = np.log(np.exp(shifted).sum(-1))
    stats = np.stack([x.max(-1) if x.size else x.sum(-1), log_sum], 1)
    logp = shifted - log_sum[:, None]
    t, counts = _counted(target, ignore_index, x.shape[1])
    w = np.ones_like(x, shape=x.shape[1]) if weight is None else weight
    each = -(1 - label_smoothing) * _of_class(w, t) * _of_class(logp, t)
    if label_smoothing:
        each = each - label_smoothing / max(x.shape[1], 1) * (logp * w).sum(-1)
    return reduced(np.where(counts, each, 0), target, weight, reduction, ignore_index), stats


def cross_entropy_backward(
    g: Array,
    x: Array,
    target: Array,
    weight: Array | None,
    stats: Array,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    needs: Any = None,
) -> tuple[Array]:
    """Gradient of `cross_entropy` by the logits; g is () or like the target, `stats` from the forward pass."""
    rows = class_rows(x)
    t, counts = _counted(target, ignore_index, rows.shape[1])
    wanted = _wanted(rows, t, counts, weight, label_smoothing)
    dx = np.exp(rows - stats[:, :1] - stats[:, 1:]) * wanted.sum(-1, keepdims=True) - wanted
    g = row_gradients(g, target, weight, reduction, ignore_index)
    return (from_class_rows(np.where(counts[:, None], dx * g, 0), x.shape),)


def nll_loss(x: Array, target: Array, weight: Array | None, reduction: str, ignore_index: int) -> Array:
    """Minus the weighted log-probability of each row's class; see `cross_entropy`."""
    x = class_rows(x)
    t, counts = _counted(target, ignore_index, x.shape[1])
    picked = _of_class(x, t)
    each = np.where(counts, -picked if weight is None else -_of_class(weight, t) * picked, 0)
    return reduced(each, target, weight, reduction, ignore_index)


def nll_loss_backward(
    g: Array, x: Array, target: Array, weight: Array | None, reduction: str, ignore_index: int, needs: Any = None
) -> tuple[Array]:
    """Gradient of `nll_loss` by the log-probabilities."""
    rows = class_rows(x)
    t, counts = _counted(target, ignore_index, rows.shape[1])
    g = row_gradients(g, target, weight, reduction, ignore_index).reshape(-1)
    dx = np.zeros_like(rows, order="C")
    if rows.shape[1]:
        dx[np.arange(t.size, like=t), t] = np.where(counts, -g if weight is None else -weight[t] * g, 0)
    return (from_class_rows(dx, x.shape),)


def class_weights(
    target: Array, weight: Array | None, like: Array, reduction: str, ignore_index: int, label_smoothing: float
) -> Array:
    """What each log-probability is multiplied by: weights at the targets, spread by smoothing, over the total
    weight."""
    rows = class_rows(like)
    t, counts = _counted(target, ignore_index, rows.shape[1])
    total = _total_weight(target, weight, ignore_index) if reduction == "mean" else 1
    return from_class_rows(_wanted(rows, t, counts, weight, label_smoothing, total), like.shape)


def no_class(place: int, target: Array) -> IndexError:
    """The error of a class that does not exist."""
    return IndexError(f"Target {target.reshape(-1)[place]} is out of bounds.")


def class_rows(x: Array) -> Array:
    """The logits as (rows, C)."""
    if x.ndim < 3:
        return x.reshape(1, -1) if x.ndim == 1 else x
    return np.moveaxis(x, 1, -1).reshape(math.prod(x.shape[2:], start=x.shape[0]), x.shape[1])


def from_class_rows(rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `class_rows`."""
    if len(shape) < 3:
        return rows.reshape(shape)
    return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def reduced(each: Array, target: Array, weight: Array | None, reduction: str, ignore_index: int) -> Array:
    """The losses of the rows as the loss: of the shape of the target, or ()."""
    if reduction == "none":
        return each.reshape(target.shape)
    total = np.sum(each, dtype=np.float64)
    return total if reduction == "sum" else total / _total_weight(target, weight, ignore_index)


def row_gradients(g: Array, target: Array, weight: Array | None, reduction: str, ignore_index: int) -> Array:
    """The gradient of each row's loss, (rows, 1) or () for all."""
    if reduction == "none":
        return g.reshape(-1, 1)
    return g if reduction == "sum" else (g / _total_weight(target, weight, ignore_index)).astype(g.dtype)


def _total_weight(target: Array, weight: Array | None, ignore_index: int) -> Any:
    counts = target != ignore_index
    if weight is None:
        return counts.sum(dtype=np.float64)
    return np.where(counts, _of_class(weight, np.where(counts, target, 0)), 0).sum(dtype=np.float64)


def _counted(target: Array, ignore_index: int, classes: int) -> tuple[Array, Array]:
    """The class of each row, 0 where it does not count; and whether it does."""
    t = target.reshape(-1).astype(np.int64, copy=False)
    counts = t != ignore_index
    if on_host(t):  # elsewhere nobody waits for the answer
        wrong = counts & ((t < 0) | (t >= classes))
        if wrong.any():
            raise no_class(int(np.argmax(wrong)), t)
    return np.where(counts, t, 0), counts


def _wanted(rows: Array, t: Array, counts: Array, weight: Array | None, smoothing: float, total: Any = 1) -> Array:
    """The share of each class in the loss of its row, times its weight, over `total`; (rows, C)."""
    w = np.ones_like(rows, shape=rows.shape[1]) if weight is None else weight
    wanted = np.zeros_like(rows, order="C")
    if smoothing:
        wanted += np.where(counts[:, None], smoothing / max(rows.shape[1], 1) * w / total, 0)
    if rows.shape[1]:  # no weight at all makes NaN where the targets are, and zero elsewhere
        wanted[np.arange(t.size, like=t), t] += (1 - smoothing) * np.where(counts, w[t] / total, 0)
    return wanted


def _of_class(x: Array, t: Array) -> Array:
    """The element of each row's class, of weights (C,) or rows (rows, C); where there is no class, no row counts."""
    if not x.shape[-1]:
        return np.zeros_like(x, shape=t.shape)
    return x[t] if x.ndim == 1 else x[np.arange(t.size, like=t), t]
