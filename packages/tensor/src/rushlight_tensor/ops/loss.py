"""Losses of classes and of regression.  Cross-entropy, negative log-likelihood and mean squares have fused "
"gradients."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from rushlight_tensor.dispatch import call
from rushlight_tensor.graph import dtype_title
from rushlight_tensor.half import aux_in_float32, in_float32, wide
from rushlight_tensor.infer import Aval, broadcast_shapes
from rushlight_tensor.kernels.cross_entropy import cross_entropy as cross_entropy_kernel
from rushlight_tensor.kernels.cross_entropy import cross_entropy_backward as cross_entropy_backward_kernel
from rushlight_tensor.op import AS_CPU, Op, fused
from rushlight_tensor.ops.activation import logsigmoid, xlogy
from rushlight_tensor.ops.elementwise import abs, exp, log, square
from rushlight_tensor.ops.reduce import mean, sum
from rushlight_tensor.ops.select import where
from rushlight_tensor.ops.shape import reshape
from rushlight_tensor.ops.softmax import log_softmax, softmax
from rushlight_tensor.promote import category, same
from rushlight_tensor.state import Size


def _reduced(loss: Any, reduction: str) -> Any:
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum(loss)
    _check_reduction(reduction)
    return loss


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")


# Classes given by index.  A class dimension is dimension 1, or 0 of a vector; the kernels see rows of logits.


def _class_aval(input: Any, target: Any, weight: Any) -> tuple[Aval, tuple[int, ...]]:
    """Check what both losses of class indices ask for; the classes and the shape of one loss per row."""
    x, t = input.shape, target.shape
    if category(input.dtype) < 2:
        kernel = "log_softmax_lastdim_kernel_impl"
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{dtype_title(input.dtype)}'")
    if not x:
        raise RuntimeError("input tensor should be 1D or more: the last dimension, or dimension 1, holds the classes")
    if target.dtype.name not in ("int64", "uint8"):
        raise RuntimeError(f"expected target dtype to be Long or Byte, but got {dtype_title(target.dtype)}")
    classes = x[1] if len(x) > 1 else x[0]
    each = (x[0], *x[2:]) if len(x) > 1 else ()
    if len(x) > 1 and (not t or t[0] != x[0]):
        raise ValueError(f"Expected input batch_size ({x[0]}) to match target batch_size ({t[0] if t else 1}).")
    if t != each:
        if len(x) <= 2:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        raise RuntimeError(f"Expected target size {list(each)}, got {list(t)}")
    if weight is not None and weight.shape != (classes,):
        raise RuntimeError(
            f"weight tensor should be defined either for all {classes} classes or no classes but got weight tensor of "
            f"shape: {list(weight.shape)}"
        )
    return Aval((math.prod(each), classes), input.dtype), each


def _rows(x: Any) -> Any:
    """(N, C, d1, …) as rows of classes (N * d1 * …, C)."""
    if x.ndim == 2:
        return x
    return x.reshape(1, -1) if x.ndim == 1 else np.moveaxis(x, 1, -1).reshape(x.size // max(x.shape[1], 1), x.shape[1])


def _from_rows(rows: Any, shape: tuple[int, ...]) -> Any:
    if len(shape) == 2:
        return rows
    return rows.reshape(shape) if len(shape) == 1 else np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def _cross_entropy_aval(
    input: Any,
    target: Any,
    weight: Any,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> tuple[Aval, Aval]:
    rows, each = _class_aval(input, target, weight)
    return Aval(each if reduction == "none" else (), input.dtype), Aval((rows.shape[0], 2), wide(input.dtype))


@aux_in_float32
def _cross_entropy_kernel(
    x: Any, target: Any, weight: Any, reduction: str, ignore_index: int, label_smoothing: float
) -> Any:
    if x.ndim != 2 or target.dtype != np.int64 or target.shape != x.shape[:1] or x.dtype.kind != "f":
        _class_aval(x, target, weight)
    if weight is not None:
        _class_aval(x, target, weight)
    loss, stats = cross_entropy_kernel(
        _rows(x), target.reshape(-1).astype(np.int64, copy=False), weight, reduction, ignore_index, label_smoothing
    )
    return loss.reshape(target.shape) if reduction == "none" else loss, stats


def _cross_entropy_backward_aval(
    g: Any,
    input: Any,
    target: Any,
    weight: Any,
    stats: Any,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    needs: Any = (True, False, False),
) -> tuple[Aval]:
    return (Aval(input.shape, input.dtype),)


@in_float32
def _cross_entropy_backward_kernel(
    g: Any,
    x: Any,
    target: Any,
    weight: Any,
    stats: Any,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    needs: Any,
) -> Any:
    t = target.reshape(-1).astype(np.int64, copy=False)
    g = g.reshape(-1) if reduction == "none" else g
    dx = cross_entropy_backward_kernel(g, _rows(x), t, stats, weight, reduction, ignore_index, label_smoothing)
    return (_from_rows(dx, x.shape),)


def _wanted_aval(
    target: Any,
    weight: Any,
    like: Any,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Aval:
    return Aval(like.shape, like.dtype)


def _wanted_kernel(
    target: Any, weight: Any, like: Any, reduction: str, ignore_index: int, label_smoothing: float
) -> Any:
    """What each log-probability is multiplied by: weights at the targets, spread by smoothing, over the total "
    "weight."""
    classes = like.shape[1] if like.ndim > 1 else like.shape[0]
    w = np.ones_like(like, shape=(classes,)) if weight is None else weight
    t = target.reshape(-1).astype(np.int64)
    counts = t != ignore_index
    t = np.where(counts, t, 0)
    rows = np.zeros_like(like, shape=(t.size, classes)) + label_smoothing / classes * w
    rows[np.arange(t.size, like=t), t] += (1 - label_smoothing) * w[t]
    rows *= counts[:, None]
    if reduction == "mean":
        rows = rows / (w[t] * counts).sum()
    return _from_rows(rows, like.shape).astype(like.dtype, copy=False)


_wanted = Op("class_weights", infer=_wanted_aval, cpu=_wanted_kernel, cuda=AS_CPU, vjp=None)


def _per_class(g: Any, x: Any, reduction: str) -> Any:
    """The gradient of the losses, to be broadcast against the logits."""
    shape = x._array.shape
    return g if reduction != "none" or len(shape) < 2 else reshape(g, shape[0], 1, *shape[2:])


def _cross_entropy_rule(
    g: Any,
    needs: Any,
    x: Any,
    target: Any,
    weight: Any,
    stats: Any,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
) -> Any:
    dim = 1 if x._array.ndim > 1 else 0
    attrs = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
    wanted = call(_wanted, (target, weight, x.detach()), attrs)
    dx = softmax(x, dim) * sum(wanted, dim, True) - wanted
    return dx * _per_class(g, x, reduction), None, None


_cross_entropy_backward = Op(
    "cross_entropy_backward",
    infer=_cross_entropy_backward_aval,
    cpu=_cross_entropy_backward_kernel,
    cuda=AS_CPU,
    vjp=None,
)
_cross_entropy = Op(
    "cross_entropy",
    infer=_cross_entropy_aval,
    cpu=_cross_entropy_kernel,
    cuda=AS_CPU,
    save=("input", "target", "weight", "out1"),
    vjp=fused(_cross_entropy_backward, _cross_entropy_rule),
    aux=True,
    node_name="NllLossBackward0",
)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """The cross-entropy of logits against class indices or class probabilities.

    Args:
        input: (C,), (N, C) or (N, C, d1, …) logits.
        target: Class indices (), (N,) or (N, d1, …), int64; or probabilities of the shape of `input`.
        weight: (C,), the weight of each class.
        ignore_index: The class index that does not count.
        reduction: "mean" (weighted, over those that count), "sum" or "none".
        label_smoothing: The share of each target that is spread over all classes, 0 to 1.
    Raises:
        ValueError: Batch sizes differ, or the reduction is unknown.
        RuntimeError: Other shapes or dtypes do not fit.
        IndexError: A class does not exist.
    """
    if reduction not in ("mean", "sum", "none"):
        _check_reduction(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing:g}")
    if target._array.shape == input._array.shape:
        return _cross_entropy_of_probabilities(input, target, weight, reduction, label_smoothing)
    attrs = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return call(_cross_entropy, (input, target, weight), attrs)


def _cross_entropy_of_probabilities(x: Any, target: Any, weight: Any, reduction: str, smoothing: float) -> Any:
    if category(target._array.dtype) < 2:
        got = dtype_title(target._array.dtype)
        raise RuntimeError(f"Expected floating point type for target with class probabilities, got {got}")
    shape = x._array.shape
    dim = 1 if len(shape) > 1 else 0
    if smoothing > 0:
        target = target * (1 - smoothing) + smoothing / shape[dim]
    logp = log_softmax(x, dim)
    if weight is not None:
        logp = logp * reshape(weight, -1, *[1] * (len(shape) - dim - 1))
    each = -sum(logp * target, dim)
    return sum(each) / math.prod(each._array.shape) if reduction == "mean" else _reduced(each, reduction)


# Negative log-likelihood


def _nll_aval(input: Any, target: Any, weight: Any, reduction: str = "mean", ignore_index: int = -100) -> Aval:
    each = _class_aval(input, target, weight)[1]
    return Aval(each if reduction == "none" else (), input.dtype)


@in_float32
def _nll_kernel(x: Any, target: Any, weight: Any, reduction: str, ignore_index: int) -> Any:
    _class_aval(x, target, weight)
    rows, t = _rows(x), target.reshape(-1).astype(np.int64, copy=False)
    counts = t != ignore_index
    wrong = counts & ((t < 0) | (t >= rows.shape[1]))
    if wrong.any():
        raise IndexError(f"Target {t[wrong][0]} is out of bounds.")
    t = np.where(counts, t, 0)
    w = counts.astype(x.dtype) if weight is None else weight[t] * counts
    each = np.where(counts, -w * rows[np.arange(t.size, like=t), t], x.dtype.type(0))
    if reduction == "none":
        return each.reshape(target.shape)
    return each.sum() / w.sum() if reduction == "mean" else each.sum()


def _nll_backward_aval(
    g: Any,
    input: Any,
    target: Any,
    weight: Any,
    reduction: str = "mean",
    ignore_index: int = -100,
    needs: Any = (True, False, False),
) -> tuple[Aval]:
    return (Aval(input.shape, input.dtype),)


@in_float32
def _nll_backward_kernel(
    g: Any, x: Any, target: Any, weight: Any, reduction: str, ignore_index: int, needs: Any
) -> Any:
    wanted = _wanted_kernel(target, weight, x, reduction, ignore_index, 0.0)
    if reduction == "none" and x.ndim > 1:
        g = np.expand_dims(g, 1)
    return (-wanted * g,)


def _nll_rule(g: Any, needs: Any, x: Any, target: Any, weight: Any, reduction: str, ignore_index: int) -> Any:
    attrs = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": 0.0}
    return -call(_wanted, (target, weight, x.detach()), attrs) * _per_class(g, x, reduction), None, None


_nll_backward = Op("nll_loss_backward", infer=_nll_backward_aval, cpu=_nll_backward_kernel, cuda=AS_CPU, vjp=None)
_nll = Op(
    "nll_loss",
    infer=_nll_aval,
    cpu=_nll_kernel,
    cuda=AS_CPU,
    save=("input", "target", "weight"),
    vjp=fused(_nll_backward, _nll_rule),
)


def nll_loss(input: Any, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """Minus the log-probability of each target class.

    Args:
        input: (C,), (N, C) or (N, C, d1, …) log-probabilities.
        target: (), (N,) or (N, d1, …) class indices, int64.
        weight: (C,), the weight of each class.
        ignore_index: The class index that does not count.
        reduction: "mean" (weighted, over those that count), "sum" or "none".
    """
    _check_reduction(reduction)
    return call(_nll, (input, target, weight), {"reduction": reduction, "ignore_index": ignore_index})


# Squares and absolute values


def _mse_aval(input: Any, target: Any, reduction: str = "mean") -> Aval:
    if category(input.dtype) < 2:
        raise NotImplementedError(f"\"mse_cpu\" not implemented for '{dtype_title(input.dtype)}'")
    shape = broadcast_shapes(input.shape, target.shape)
    return Aval(shape if reduction == "none" else (), input.dtype)


@in_float32
def _mse_kernel(x: Any, y: Any, reduction: str) -> Any:
    if x.dtype.kind in "iub":
        raise TypeError("mse_loss of integers")
    away = np.square(x - y)
    return away if reduction == "none" else away.mean() if reduction == "mean" else away.sum()


def _mse_backward_aval(g: Any, input: Any, target: Any, reduction: str = "mean", needs: Any = ()) -> tuple[Aval, ...]:
    shape = broadcast_shapes(input.shape, target.shape)
    return tuple(Aval(shape, input.dtype) for need in needs if need)


@in_float32
def _mse_backward_kernel(g: Any, x: Any, y: Any, reduction: str, needs: Any) -> Any:
    away = x - y
    dx = away * (g * x.dtype.type(2 / max(away.size, 1) if reduction == "mean" else 2))
    return (dx, -dx) if needs == (True, True) else (dx if needs[0] else -dx,)


def _mse_rule(g: Any, needs: Any, x: Any, y: Any, reduction: str) -> Any:
    away = x - y
    dx = away * (g * (2 / max(away._array.size, 1) if reduction == "mean" else 2))
    return dx, -dx


_mse_backward = Op("mse_loss_backward", infer=_mse_backward_aval, cpu=_mse_backward_kernel, cuda=AS_CPU, vjp=None)
_mse = Op(
    "mse_loss",
    infer=_mse_aval,
    promote=same,
    cpu=_mse_kernel,
    cuda=AS_CPU,
    save=("input", "target"),
    vjp=fused(_mse_backward, _mse_rule),
)


def _warn_of_sizes(input: Any, target: Any) -> None:
    if input._array.shape != target._array.shape:
        warnings.warn(
            f"Using a target size ({Size(target._array.shape)}) that is different to the input size "
            f"({Size(input._array.shape)}). This will likely lead to incorrect results due to broadcasting. Please "
            "ensure they have the same size.",
            stacklevel=3,
        )


def _weighted(each: Any, weight: Any, reduction: str) -> Any:
    """`each` times its weights, reduced; a mean is over the sum of the weights."""
    if weight is None:
        return _reduced(each, reduction)
    if weight._array.shape != each._array.shape:
        raise ValueError("Weights and input must have the same size.")
    each = each * weight
    return sum(each) / sum(weight) if reduction == "mean" else _reduced(each, reduction)


def mse_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Any:
    """The squares of the differences: their mean, sum or themselves."""
    if input._array.shape != target._array.shape:
        _warn_of_sizes(input, target)
    if weight is not None:
        return _weighted(square(input - target), weight, reduction)
    if reduction not in ("mean", "sum", "none"):
        _check_reduction(reduction)
    return call(_mse, (input, target), {"reduction": reduction})


def l1_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Any:
    """The absolute values of the differences: their mean, sum or themselves."""
    _warn_of_sizes(input, target)
    return _weighted(abs(input - target), weight, reduction)


def smooth_l1_loss(input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Any:
    """Squares over `2 * beta` below `beta`, absolute values less `beta / 2` above (Girshick, 2015)."""
    _warn_of_sizes(input, target)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    away = abs(input - target)
    if beta == 0:
        return _reduced(away, reduction)
    return _reduced(where(away < beta, away * away * (0.5 / beta), away - 0.5 * beta), reduction)


def huber_loss(input: Any, target: Any, *, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Any:
    """Half squares up to `delta`, straight lines from there (Huber, 1964)."""
    _warn_of_sizes(input, target)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    away = abs(input - target)
    return _weighted(where(away <= delta, away * away * 0.5, (away - 0.5 * delta) * delta), weight, reduction)


# Probabilities


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> Any:
    """`-(y log(x) + (1 - y) log(1 - x))` of probabilities; logarithms are at least -100.

    Raises RuntimeError for a probability outside [0, 1], ValueError where the sizes differ.
    """
    if input._array.shape != target._array.shape:
        raise ValueError(
            f"Using a target size ({Size(target._array.shape)}) that is different to the input size "
            f"({Size(input._array.shape)}) is deprecated. Please ensure they have the same size."
        )
    _check_reduction(reduction)
    each = _bce(input, target)
    return _reduced(each if weight is None else each * weight, reduction)


def _bce_aval(input: Any, target: Any) -> Aval:
    return Aval(input.shape, input.dtype)


@in_float32
def _bce_kernel(x: Any, y: Any) -> Any:
    if not ((x >= 0) & (x <= 1)).all():
        raise RuntimeError("all elements of input should be between 0 and 1")
    return (y - 1) * np.maximum(np.log1p(-x), -100) - y * np.maximum(np.log(x), -100)


def _bce_rule(g: Any, x: Any, y: Any) -> Any:
    return g * (x - y) / ((1 - x) * x).clamp(min=1e-12)


def _bce_target_rule(g: Any, x: Any, y: Any) -> Any:
    return g * (log(1 - x).clamp(min=-100) - log(x).clamp(min=-100))


_bce = Op(
    "binary_cross_entropy",
    infer=_bce_aval,
    promote=same,
    cpu=_bce_kernel,
    cuda=AS_CPU,
    save=("input", "target"),
    vjp=(_bce_rule, _bce_target_rule),
)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """`binary_cross_entropy` of `sigmoid(input)`, without overflow.

    Args:
        pos_weight: The weight of positive targets, broadcast against `target`.
    """
    if input._array.shape != target._array.shape:
        raise ValueError(
            f"Target size ({Size(target._array.shape)}) must be the same as input size ({Size(input._array.shape)})"
        )
    positive = logsigmoid(input)
    if pos_weight is not None:
        each = (1 - target) * input - (1 + (pos_weight - 1) * target) * positive
    else:
        each = (1 - target) * input - positive
    return _reduced(each if weight is None else each * weight, reduction)


def kl_div(input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Any:
    """The divergence of the distribution `target` from the one whose logarithm is `input`, element by element.

    Args:
        reduction: "batchmean" (the definition), "mean" (over all elements), "sum" or "none".
        log_target: `target` is a logarithm too.
    """
    each = exp(target) * (target - input) if log_target else xlogy(target, target) - target * input
    if reduction == "batchmean":
        return sum(each) / each._array.shape[0] if each._array.ndim else sum(each)
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size."
            "'batchmean' divides only by the batch size, and aligns with the KL div math definition."
            "'mean' will be changed to behave the same as 'batchmean' in the next major release.",
            stacklevel=2,
        )
    return _reduced(each, reduction)


def poisson_nll_loss(
    input: Any,
    target: Any,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Any:
    """The negative log-likelihood of counts `target` under Poisson rates `input`, or `exp(input)` with `log_input`.

    Args:
        full: Add Stirling's approximation of log(target!).
        eps: Keeps the logarithm of a rate finite.
    """
    each = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        stirling = target * log(target) - target + 0.5 * log(target * (2 * math.pi))
        each = each + where(target <= 1, 0.0, stirling)
    return _reduced(each, reduction)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """The negative log-likelihood of `target` under normal distributions of mean `input` and variance `var`.

    Args:
        full: Add the constant.
        eps: The least variance; it does not change the gradient.
    """
    if isinstance(var, (int, float)):
        var = input.new_full((), float(var))
    if input._array.shape != var._array.shape and input._array.shape[:-1] == var._array.shape:
        var = var.unsqueeze(-1)
    if bool((var < 0).any()):
        raise ValueError("var has negative entry/entries")
    low = var.detach() < eps
    var = where(low, var + (eps - var.detach()), var)
    each = 0.5 * (log(var) + square(input - target) / var)
    return _reduced(each + 0.5 * math.log(2 * math.pi) if full else each, reduction)
