"""Losses of classes: cross-entropy and negative log-likelihood, with kernels for their gradients."""

from __future__ import annotations

import math
from typing import Any

from rushlight_tensor.core import kinds, placement
from rushlight_tensor.core.dispatch import MODE, call
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.half_precision import wide
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.layout import image
from rushlight_tensor.core.op import REGISTRY, Gradient, Op
from rushlight_tensor.core.promote import category
from rushlight_tensor.kernels import class_loss as kernels
from rushlight_tensor.kernels import cuda_kernels
from rushlight_tensor.kernels.arrays import in_order
from rushlight_tensor.kernels.plan import C
from rushlight_tensor.ops.math.elementwise import maximum
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.norm.softmax import log_softmax, softmax
from rushlight_tensor.ops.reduce.reduce import mean, sum
from rushlight_tensor.ops.shape.samples import _in_front, _merged
from rushlight_tensor.ops.shape.shape import reshape


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
    if category(input.dtype) != 2:
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


def _logit_grads(known: Any) -> tuple[Aval]:
    """The gradient of logits: those of images lie as convolution works on them."""
    x = known.input
    return (image(x.shape, x.dtype, x) if len(x.shape) > 2 else Aval(x.shape, x.dtype),)


_REDUCTIONS = ("none", "sum", "mean")


def _sizes(x: Any, target: Any, *others: Any, reduction: str, **attrs: Any) -> dict[str, int]:
    """Sizes of the kernels of losses: rows, of how many classes, and what is made of them."""
    return {
        "rows": math.prod(target.shape),
        "n": x.shape[1] if len(x.shape) > 1 else x.shape[0],
        "reduction": _REDUCTIONS.index(reduction),
    }


def _backward_sizes(g: Any, *inputs: Any, **attrs: Any) -> dict[str, int]:
    return _sizes(*inputs, **attrs)


def _no_class(place: int, x: Any, target: Any, *others: Any, **attrs: Any) -> IndexError:
    return kernels.no_class(place, target)


def _no_class_now(place: int, g: Any, *inputs: Any, **attrs: Any) -> IndexError:
    return _no_class(place, *inputs)


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


def _check_smoothing(share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {share:g}")


def _wanted_aval(
    target: Any,
    weight: Any,
    like: Any,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Aval:
    return Aval(like.shape, like.dtype)


def _as_more_rows(size: int, batched: Any, x: Any, target: Any) -> tuple[Any, Any]:
    """Logits and targets of all samples as those of one: (S, C) and (S,), or (S N, C, …) and (S N, …)."""
    x, target = _in_front(size, batched, (x, target))
    return (x, target) if x._array.ndim == 2 else (_merged(x, 0), _merged(target, 0))


def _wanted_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    target, weight, logits = xs
    if weight is not None:
        return None
    x, t = _as_more_rows(size, (batched[2], batched[0]), logits, target)
    rows = call(_wanted, (t, None, x), {**attrs, "reduction": "sum"}).reshape(size, -1)
    if attrs["reduction"] != "mean":
        return rows
    counts = sum((t != attrs["ignore_index"]).reshape(size, -1), 1, True)
    return rows / maximum(counts, counts.new_ones(()))  # where nothing counts there are zeros


def _loss_samples(name: str) -> Any:
    """The batching rule of a loss of class indices: one loss per row, and means of these."""

    def batch(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
        logits, target, weight = xs
        if batched[2]:
            return None
        x, t = _as_more_rows(size, batched[:2], logits, target)
        made = call(REGISTRY[name], (x, t, weight), {**attrs, "reduction": "none"}, whole=True)
        each, *kept = made if type(made) is tuple else (made,)
        if attrs["reduction"] == "none":
            return (each, *kept)
        total = sum(each.reshape(size, -1), 1)
        if attrs["reduction"] == "mean":
            counts = t != attrs["ignore_index"]
            of_rows = counts if weight is None else where(counts, weight[where(counts, t, 0)], 0.0)
            total = total / sum(of_rows.reshape(size, -1), 1)
        return (total, *kept)

    return batch


def _wanted_text(target: Any, weight: Any, like: Any, **attrs: Any) -> Any:
    return in_order(kernels.class_weights(target, weight, like, **attrs)).astype(like.dtype, copy=False)


_wanted = Op(
    "class_weights",
    kind=kinds.opaque("a mean over rows that is divided by the weights of their targets"),
    batch=_wanted_samples,
    infer=_wanted_aval,
    numpy=_wanted_text,
    vjp=None,
)


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


_cross_entropy = Op(
    "cross_entropy",
    kind=kinds.opaque("a mean over rows that is divided by the weights of their targets"),
    batch=_loss_samples("cross_entropy"),
    infer=_cross_entropy_aval,
    numpy=kernels.cross_entropy,
    c=C("class_loss", "cross_entropy", _sizes, _no_class),
    cuda=cuda_kernels.cross_entropy,
    save=("input", "target", "weight", "out1"),
    vjp=Gradient(
        _cross_entropy_rule,
        results=_logit_grads,
        order=placement.IMAGE,
        numpy=kernels.cross_entropy_backward,
        c=C("class_loss", "cross_entropy_backward", _backward_sizes, _no_class_now),
        cuda=cuda_kernels.cross_entropy_backward,
    ),
    side_results=True,
    node_name="NllLossBackward0",
    onnx="SoftmaxCrossEntropyLoss",
)


def _constant(weight: Any) -> Any:
    """The weights of the classes.  Raises RuntimeError, as PyTorch, where a gradient is wanted for them."""
    if weight is not None and weight._requires_grad and MODE.grad:
        raise RuntimeError(
            "The function 'nll_loss_forward' is not differentiable with respect to argument 'weight'. This input "
            "cannot have requires_grad True."
        )
    return weight


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
    _check_smoothing(label_smoothing)
    if target._array.shape == input._array.shape:
        return _cross_entropy_of_probabilities(input, target, weight, reduction, label_smoothing)
    attrs = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return call(_cross_entropy, (input, target, _constant(weight)), attrs)


def _cross_entropy_of_probabilities(x: Any, target: Any, weight: Any, reduction: str, smoothing: float) -> Any:
    if category(target._array.dtype) < 2:
        got = dtype_title(target._array.dtype)
        raise RuntimeError(f"Expected floating point type for target with class probabilities, got {got}")
    shape = x._array.shape
    dim = 1 if len(shape) > 1 else 0
    classes = shape[dim] if shape else 1
    if smoothing > 0:
        target = target * (1 - smoothing) + smoothing / max(classes, 1)
    logp = log_softmax(x, dim)
    if weight is not None:
        logp = logp * reshape(weight, -1, *[1] * (len(shape) - dim - 1))
    each = -sum(logp * target, dim)
    if reduction != "mean":
        return _reduced(each, reduction)
    return sum(each) / (math.prod(shape) // max(classes, 1))  # of no classes: as of no rows, NaN


# Negative log-likelihood


def _nll_aval(input: Any, target: Any, weight: Any, reduction: str = "mean", ignore_index: int = -100) -> Aval:
    each = _class_aval(input, target, weight)[1]
    return Aval(each if reduction == "none" else (), input.dtype)


def _nll_rule(g: Any, needs: Any, x: Any, target: Any, weight: Any, reduction: str, ignore_index: int) -> Any:
    attrs = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": 0.0}
    return -call(_wanted, (target, weight, x.detach()), attrs) * _per_class(g, x, reduction), None, None


_nll = Op(
    "nll_loss",
    kind=kinds.opaque("a mean over rows that is divided by the weights of their targets"),
    batch=_loss_samples("nll_loss"),
    infer=_nll_aval,
    numpy=kernels.nll_loss,
    c=C("class_loss", "nll_loss", _sizes, _no_class),
    save=("input", "target", "weight"),
    flat=True,
    vjp=Gradient(
        _nll_rule,
        results=_logit_grads,
        order=placement.IMAGE,
        numpy=kernels.nll_loss_backward,
        c=C("class_loss", "nll_loss_backward", _backward_sizes, _no_class_now),
    ),
    onnx="NegativeLogLikelihoodLoss",
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
    return call(_nll, (input, target, _constant(weight)), {"reduction": reduction, "ignore_index": ignore_index})
