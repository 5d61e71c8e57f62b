"""Distances between vectors, and the losses that compare them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import kinds, placement
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.infer import Aval, broadcast_shapes
from rushlight_tensor.core.keywords import legacy_reduction
from rushlight_tensor.core.layout import repeats
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import category, promote_types
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.kernels.cuda_kernels import Rows
from rushlight_tensor.kernels.plan import C, rows
from rushlight_tensor.ops.loss.class_loss import _reduced
from rushlight_tensor.ops.math.activation import logsigmoid
from rushlight_tensor.ops.math.cast import cast, flat, widely
from rushlight_tensor.ops.math.elementwise import exp, log1p, sqrt
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.reduce.reduce import sum
from rushlight_tensor.ops.reduce.vector_norm import distance, norm
from rushlight_tensor.ops.shape.shape import expand


def _normalize_text(x: Any, eps: float) -> Any:
    squares = np.sum(np.square(x, dtype=np.float64), -1, keepdims=True)
    return x / np.maximum(np.sqrt(squares.astype(x.dtype)), x.dtype.type(eps))


def _normalize_rule(g: Any, needs: Any, x: Any, eps: float) -> Any:
    d = (size := norm(x, 2, -1, True)).clamp(min=eps)
    return ((g - where(size < eps, 0.0, x / d * sum(g * (x / d), -1, True))) / d,)


_normalize = Op(
    "normalize",
    kind=kinds.rows(),
    infer=lambda x, eps=1e-12: Aval(x.shape, x.dtype),
    order=placement.COMBINED,
    numpy=_normalize_text,
    c=C("norm", "normalize", rows),
    cuda=Rows("norm.cu", "normalize", "eps"),
    save=("x",),
    vjp=Gradient(_normalize_rule, kernels="normalize_backward"),
    node_name="DivBackward0",
)


def normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Any:
    """`input` over its p-norm along `dim`, which counts as at least `eps`."""
    x, own = input._array, isinstance(dim, int) and isinstance(eps, (int, float)) and p == 2
    own = own and not repeats(x)  # whose result lies as the norms do
    if own and x.ndim and dim in (-1, x.ndim - 1) and x.shape[-1] != 1 and 0 <= eps <= 1 and category(x.dtype) == 2:
        return call(_normalize, (input,), {"eps": float(x.dtype.type(eps))})
    return input / norm(input, p, dim, True).clamp(min=eps).expand_as(input)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """The cosine of the angle between vectors along `dim`; norms count as at least `eps`."""
    common = promote_types(x1._array.dtype, x2._array.dtype)
    if category(common) != 2:
        raise RuntimeError(f"expected common dtype to be floating point, yet common dtype is {dtype_title(common)}")
    shape = broadcast_shapes(x1._array.shape, x2._array.shape)
    return _cosine(*(expand(cast(x, dtype=common), shape) for x in (x1, x2)), dim, eps)


@widely
def _cosine(x1: Any, x2: Any, dim: int, eps: float) -> Any:
    return sum(_directions(x1, dim, eps) * _directions(x2, dim, eps), dim)


def _directions(x: Any, dim: int, eps: float) -> Any:
    """`x` over its norm, at least `eps`; the gradient of the norm does not know of that limit, as in PyTorch."""
    size = norm(x, 2, dim, True)
    exact = size.detach()
    return x / where(exact < eps, size + (eps - exact), size)


def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """The p-norm of `x1 - x2 + eps` along the last dimension."""
    return norm(x1 - x2 + eps, p, -1, keepdim)


_CDIST_MODES = (
    "use_mm_for_euclid_dist_if_necessary",
    "use_mm_for_euclid_dist",
    "donot_use_mm_for_euclid_dist",
)  # which PyTorch chooses by; here the differences are always taken


def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: str = _CDIST_MODES[0]) -> Any:
    """The p-norms between each row of `x1` (..., P, M) and each of `x2` (..., R, M): (..., P, R)."""
    if compute_mode not in _CDIST_MODES:
        raise ValueError(
            f"{compute_mode} is not a valid value for compute_mode: it is one of {', '.join(_CDIST_MODES)}"
        )
    for i, x in enumerate((x1, x2), 1):
        if category(x._array.dtype) != 2:
            raise RuntimeError(f"cdist only supports floating-point dtypes, X{i} got: {dtype_title(x._array.dtype)}")
        if x._array.ndim < 2:
            raise RuntimeError(f"cdist only supports at least 2D tensors, X{i} got: {x._array.ndim}D")
    a, b = x1._array, x2._array
    if a.shape[-1] != b.shape[-1]:
        raise RuntimeError(f"X1 and X2 must have the same number of columns. X1: {a.shape[-1]} X2: {b.shape[-1]}")
    if a.dtype != b.dtype:
        raise RuntimeError(f"expected scalar type {dtype_title(a.dtype)} but found {dtype_title(b.dtype)}")
    return distance(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def hinge_embedding_loss(input: Any, target: Any, *, margin: float = 1.0, reduction: str = "mean") -> Any:
    """`input` where `target` is 1, what it lacks to `margin` where it is -1."""
    apart = where(target == 1, 0.0, (margin - input).clamp(min=0))
    together = where(target == -1, 0.0, input)
    return _reduced(apart + together, reduction)


def margin_ranking_loss(input1: Any, input2: Any, target: Any, *, margin: float = 0.0, reduction: str = "mean") -> Any:
    """What `target * (input1 - input2)` lacks to `margin`; `target` is 1 or -1."""
    return _reduced((-target * (input1 - input2) + margin).clamp(min=0), reduction)


def soft_margin_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """`log(1 + exp(-target * input))`; `target` is 1 or -1."""
    return _reduced(log1p(exp(-target * input)), reduction)


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, *, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    """One minus the cosine of pairs whose `target` is 1; what the cosine of the others is above `margin`."""
    dim = input1._array.ndim - 1
    eps = 1e-12
    dot = sum(input1 * input2, dim)
    squares = (sum(input1 * input1, dim) + eps) * (sum(input2 * input2, dim) + eps)
    cosine = dot / sqrt(squares)
    together = where(target == 1, 1 - cosine, 0.0)
    apart = where(target == -1, (cosine - margin).clamp(min=0), 0.0)
    return _reduced(together + apart, reduction)


def pdist(input: Any, p: float = 2.0) -> Any:
    """The p-norms between all pairs of different rows of (N, M): (N * (N - 1) / 2,)."""
    if category(input._array.dtype) != 2:
        raise RuntimeError("pdist only supports floating-point dtypes")
    if input._array.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input._array.ndim}D")
    n = input._array.shape[0]
    first, second = (wrap(like(input._array, at)) for at in np.triu_indices(n, 1))
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    return distance(input.index_select(0, first) - input.index_select(0, second), p)


def multi_margin_loss(
    input: Any,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """What the score of the target class lacks to `margin` above each other, to the power of `p`, over the classes.

    Args:
        input: (N, C) or (C,) scores.
        target: (N,) or () class indices.
        weight: (C,), the weight of each class.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    at = target.unsqueeze(-1)
    input = flat(input)
    lacking = margin - input.gather(-1, at) + input
    lacking = where(lacking > 0, lacking, 0.0)  # not of NaN, in which relu would keep it
    if p == 2:
        lacking = lacking * lacking
    if weight is not None:
        lacking = lacking * weight.gather(0, target.reshape(-1)).reshape(at.shape)
    return _reduced(lacking.scatter(-1, at, 0.0).sum(-1) / input._array.shape[-1], reduction)


def multilabel_soft_margin_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """The mean over classes of the cross-entropy of each being present, `target` 0 or 1; input (..., C) logits."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    each = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    if weight is not None:
        each = each * weight
    return _reduced(each.mean(-1), reduction)


def triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Any = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """`triplet_margin_loss` under a distance of the caller's, by default `pairwise_distance`."""
    between = pairwise_distance if distance_function is None else distance_function
    near, far = between(anchor, positive), between(anchor, negative)
    if swap:
        far = far.minimum(between(positive, negative))
    return _reduced((near - far + margin).clamp(min=0), reduction)


def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> Any:
    """How much less than `margin` the positive is nearer to the anchor than the negative (Balntas et al., 2016).

    Args:
        swap: Take the negative's distance to the positive where it is the smaller one.
    """
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    return _reduced((near - far + margin).clamp(min=0), reduction)
