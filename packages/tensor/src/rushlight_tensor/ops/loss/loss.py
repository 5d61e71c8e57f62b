"""Losses of regression and of probabilities; that of mean squares has a kernel for its gradient."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds, placement
from rushlight_tensor.core.dispatch import call, real_only
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.half_precision import in_float32
from rushlight_tensor.core.infer import Aval, broadcast_shapes
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import category, same
from rushlight_tensor.core.size import Size
from rushlight_tensor.kernels.arrays import mean_of
from rushlight_tensor.ops.loss.class_loss import _check_reduction, _reduced
from rushlight_tensor.ops.math.activation import logsigmoid
from rushlight_tensor.ops.math.arithmetic import square
from rushlight_tensor.ops.math.cast import widely
from rushlight_tensor.ops.math.corners import xlogy
from rushlight_tensor.ops.math.elementwise import abs, exp, log
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.reduce.reduce import mean, sum
from rushlight_tensor.ops.shape.samples import _aligned
from rushlight_tensor.ops.shape.shape import expand

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
    return away if reduction == "none" else mean_of(away.reshape(-1), 0) if reduction == "mean" else away.sum()


def _mse_grads(known: Any) -> tuple[Aval, ...]:
    away = Aval(broadcast_shapes(known.input.shape, known.target.shape), known.input.dtype)
    return away, away


@in_float32
def _mse_backward_kernel(g: Any, x: Any, y: Any, reduction: str, needs: Any) -> Any:
    away = x - y
    dx = away * (g * x.dtype.type(2 / max(away.size, 1) if reduction == "mean" else 2))
    return (dx, -dx) if needs == (True, True) else (dx if needs[0] else -dx,)


def _mse_rule(g: Any, needs: Any, x: Any, y: Any, reduction: str) -> Any:
    away = x - y
    dx = away * (g * (2 / max(away._array.size, 1) if reduction == "mean" else 2))
    return dx, -dx


def _mse_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    each = call(_mse, tuple(_aligned(batched, xs)), {"reduction": "none"})
    if attrs["reduction"] == "none":
        return each
    each = each.reshape(size, -1)
    return mean(each, 1) if attrs["reduction"] == "mean" else sum(each, 1)


_mse = Op(
    "mse_loss",
    kind=kinds.opaque("elementwise, but `reduction` may make one number of all"),
    batch=_mse_samples,
    infer=_mse_aval,
    promote=same,
    real="mse_cpu",
    order=placement.COMBINED,
    numpy=_mse_kernel,
    save=("input", "target"),
    vjp=Gradient(
        _mse_rule,
        results=_mse_grads,
        order=placement.COMBINED,
        numpy=_mse_backward_kernel,
    ),
)


def _warn_of_sizes(input: Any, target: Any) -> None:
    if input._array.shape != target._array.shape:
        warnings.warn(
            f"Using a target size ({Size(target._array.shape)}) that is different to the input size "
            f"({Size(input._array.shape)}). This will likely lead to incorrect results due to broadcasting. Please "
            "ensure they have the same size.",
            stacklevel=3,
        )


def _together(input: Any, target: Any) -> tuple[Any, Any]:
    """Both in their common shape, where that decides the dtype: PyTorch expands before it promotes."""
    if input._array.dtype != target._array.dtype and input._array.shape != target._array.shape:
        shape = broadcast_shapes(input._array.shape, target._array.shape)
        return expand(input, shape), expand(target, shape)
    return input, target


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
        input, target = _together(input, target)
    if weight is not None:
        return _weighted(square(input - target), weight, reduction)
    if reduction not in ("mean", "sum", "none"):
        _check_reduction(reduction)
    return call(_mse, (input, target), {"reduction": reduction})


def l1_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Any:
    """The absolute values of the differences: their mean, sum or themselves."""
    _warn_of_sizes(input, target)
    input, target = _together(input, target)
    return _weighted(abs(input - target), weight, reduction)


@widely
def smooth_l1_loss(input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Any:
    """Squares over `2 * beta` below `beta`, absolute values less `beta / 2` above (Girshick, 2015)."""
    _warn_of_sizes(input, target)
    real_only("smooth_l1_cpu", input, target)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    input, target = _together(input, target)
    away = input - target
    if beta == 0:
        return _reduced(abs(away), reduction)
    return _reduced(_bowl(away, beta, 0.5 / beta, abs(away) - 0.5 * beta), reduction)


def _bowl(away: Any, width: float, steep: float, line: Any) -> Any:
    """`line` from `width` on, `steep` times the square nearer than that, as of NaN.

    The square is of the difference itself, which gives it a second derivative at 0; but of none that is infinite: the
    gradient would be 0 times that.
    """
    far = abs(away.detach()) >= width
    near = where(far, 0.0, away)
    return where(far, line, near * near * steep)


@widely
def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Any:
    """Half squares up to `delta`, straight lines from there (Huber, 1964)."""
    _warn_of_sizes(input, target)
    real_only("huber_cpu", input, target)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    input, target = _together(input, target)
    away = input - target
    each = _bowl(away, delta, 0.5, (abs(away) - 0.5 * delta) * delta)
    if weight is not None and weight._array.shape != each._array.shape:
        raise ValueError("Weights and input must have the same size.")
    return _reduced(each if weight is None else each * weight, reduction)  # a mean over elements, not over weights


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
    kind=kinds.ELEMENTWISE,
    order=placement.LIKE,  # whatever the target's
    infer=_bce_aval,
    promote=same,
    real="binary_cross_entropy",
    numpy=_bce_kernel,
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
    real_only(RuntimeError("kl_div: Complex inputs not supported."), input, target)
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
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
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
