"""Scaled dot-product attention (Vaswani et al., 2017): one kernel, or a composition where weights are dropped."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rushlight_tensor.core import kinds, order, placement
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.half_precision import aux_in_float32, in_float32, wide
from rushlight_tensor.core.infer import Aval, broadcast_shapes
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import FLOAT32
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.kernels import attention as kernels
from rushlight_tensor.ops.linalg.linalg import _C_NAMES, matmul
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.norm.softmax import softmax
from rushlight_tensor.ops.random.dropout import dropout
from rushlight_tensor.ops.reduce.reduce import sum
from rushlight_tensor.ops.shape.samples import _aligned
from rushlight_tensor.ops.shape.shape import reshape, transpose


def _attention_aval(
    query: Any, key: Any, value: Any, attn_mask: Any, is_causal: bool = False, scale: float = 1.0
) -> tuple[Aval, Aval]:
    batch = _checked_batch(query, key, value, attn_mask)
    q, k, v = (_Four.of(x, batch) for x in (query, key, value))
    t, s, e = query.shape[-2], key.shape[-2], value.shape[-1]
    in_c = attn_mask is None and s and q.fits and k.fits and v.fits and kernels.library() is not None
    saved = Aval((*q.batch, t, 2) if in_c else (*q.batch, t, s, 1), wide(query.dtype))
    return Aval((*batch, t, e), query.dtype), saved


class _Four(NamedTuple):
    """What `_four` makes of a description: (B, H, rows, columns), and its steps; see there."""

    batch: tuple[int, int]
    fits: bool

    @classmethod
    def of(cls, x: Any, batch: tuple[int, ...]) -> _Four:
        shape = (*batch, *x.shape[-2:])
        lead = len(shape) - len(x.shape)
        own = order.contiguous(x.shape) if x.strides is None else x.strides
        if wide(x.dtype) != x.dtype:
            own = order.like(x)
        steps = [0] * lead + [0 if n != m else s for n, m, s in zip(x.shape, shape[lead:], own, strict=True)]
        if len(batch) > 2 and not order.merges(shape[: len(batch) - 1], steps[: len(batch) - 1]):
            steps = list(order.contiguous(shape))
        rows = shape[-2] * shape[-1]
        steps = [rows, rows][len(batch) :] + steps
        b, h, row, column = steps[len(steps) - 4 :] if len(batch) < 3 else (1, *steps[-3:])
        fits = (
            wide(x.dtype) == FLOAT32
            and 0 not in shape
            and not (x.device or "").startswith("cuda")
            and column == 1
            and row >= shape[-1]
            and min(b, h, row) > 0
        )
        return cls((math.prod(batch[:-1]), math.prod(batch[-1:])), fits)


def _checked_batch(query: Any, key: Any, value: Any, attn_mask: Any) -> tuple[int, ...]:
    """The dimensions before the last two, broadcast, when all inputs are as they should be."""
    dims = [len(t.shape) for t in (query, key, value)]
    if min(dims) < 2:
        raise RuntimeError(
            f"Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: {dims[0]} key.dim: "
            f"{dims[1]} and value.dim: {dims[2]} instead."
        )
    if not query.dtype == key.dtype == value.dtype:
        q, k, v = (_C_NAMES.get(t.dtype.name, t.dtype.name) for t in (query, key, value))
        raise RuntimeError(
            f"Expected query, key, and value to have the same dtype, but got query.dtype: {q} key.dtype: {k} and "
            f"value.dtype: {v} instead."
        )
    batch = broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    for a, b in (
        (query.shape[-1], (key.shape[-1], key.shape[-2])),
        (key.shape[-2], (value.shape[-2], value.shape[-1])),
    ):
        if a != b[0]:
            n = math.prod(batch)
            raise RuntimeError(
                f"Expected size for first two dimensions of batch2 tensor to be: [{n}, {a}] but got: [{n}, {b[0]}]."
            )
    if attn_mask is not None:
        if attn_mask.dtype.kind != "b" and attn_mask.dtype != query.dtype:
            m, q = (_C_NAMES.get(t.dtype.name, t.dtype.name) for t in (attn_mask, query))
            raise RuntimeError(
                f"Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: {m} "
                f"and  query.dtype: {q} instead."
            )
        broadcast_shapes(attn_mask.shape, (*batch, query.shape[-2], key.shape[-2]))
    return batch


def _four(x: Any, batch: tuple[int, ...]) -> Any:
    """(*batch, rows, columns) as (B, H, rows, columns), broadcast."""
    if x.ndim == 4 and x.shape[:2] == batch:
        return x
    x = np.broadcast_to(x, (*batch, *x.shape[-2:]))
    if len(batch) < 2:
        return x.reshape(*[1] * (2 - len(batch)), *x.shape)
    return x if len(batch) == 2 else x.reshape(math.prod(batch[:-1]), *x.shape[-3:])


def _batch(q: Any, k: Any, v: Any) -> tuple[int, ...]:
    return (
        q.shape[:-2]
        if q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        else broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    )


@aux_in_float32
def _attention_kernel(q: Any, k: Any, v: Any, mask: Any, is_causal: bool, scale: float) -> Any:
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise TypeError("attention of these")
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError("attention of these sizes")
    if mask is not None:
        _checked_batch(q, k, v, mask)
    batch = _batch(q, k, v)
    if mask is not None and mask.ndim > 2:
        mask = _four(mask, batch)
    out, saved = kernels.attention(_four(q, batch), _four(k, batch), _four(v, batch), mask, is_causal, scale)
    return out if len(batch) == 2 else out.reshape(*batch, *out.shape[-2:]), saved


def _attention_of_one_dtype(q: Any, k: Any, v: Any, *rest: Any, **attrs: Any) -> Any:
    if not q.dtype == k.dtype == v.dtype:
        raise TypeError("attention of these")  # before half precision becomes float32; a mask may stay that
    return _attention_kernel(q, k, v, *rest, **attrs)


def _attention_grads(known: Any) -> tuple[Aval, ...]:
    three = (known.query, known.key, known.value)
    batch = _batch(*three)
    return tuple([Aval((*batch, *t.shape[-2:]), t.dtype) for t in three])


@in_float32
def _attention_backward_kernel(
    g: Any, q: Any, k: Any, v: Any, mask: Any, saved: Any, is_causal: bool, scale: float, needs: Any
) -> Any:
    batch = _batch(q, k, v)
    grads = kernels.attention_backward(
        _four(g, batch), _four(q, batch), _four(k, batch), _four(v, batch), saved, is_causal, scale
    )
    return tuple(
        [
            d if len(batch) == 2 else d.reshape(*batch, *d.shape[-2:])
            for d, need in zip(grads, needs, strict=False)
            if need
        ]
    )


def _weights(q: Any, k: Any, mask: Any, is_causal: bool, scale: float) -> Any:
    """(..., T, S), the softmax of the scores; rows that may see nothing are zero."""
    scores = matmul(q * scale, transpose(k, -1, -2))
    if is_causal:
        mask = wrap(like(q._array, np.tri(*scores._array.shape[-2:], dtype=np.bool_)))
    if mask is None:
        return softmax(scores, -1)
    if mask._array.dtype.kind != "b":
        return softmax(scores + mask, -1)
    weights = softmax(where(mask, scores, -math.inf), -1)
    return weights if is_causal else where(mask.any(-1, True), weights, 0.0)


def _attention_rule(
    g: Any, needs: Any, q: Any, k: Any, v: Any, mask: Any, saved: Any, is_causal: bool, scale: float
) -> Any:
    p = _weights(q, k, mask, is_causal, scale)
    dp = matmul(g, transpose(v, -1, -2))
    ds = p * (dp - sum(dp * p, -1, True)) * scale
    return matmul(ds, k), matmul(transpose(ds, -1, -2), q), matmul(transpose(p, -1, -2), g), None


def _attention_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    if not any(batched[:3]):  # a mask does not make the batch larger
        xs, batched = (xs[0].expand(size, *xs[0]._array.shape), *xs[1:]), (True, *batched[1:])
    out, saved = call(_attention, tuple(_aligned(batched, xs)), attrs, whole=True)
    batch = out._array.shape[1:-2]  # of one sample, whose four dimensions are here among those of all samples
    pair = (math.prod(batch[:-1]), math.prod(batch[-1:]))
    return out, reshape(saved, (size, *pair, *saved._array.shape[2:]))


_attention = Op(
    "scaled_dot_product_attention",
    kind=kinds.rows(),
    batch=_attention_samples,
    infer=_attention_aval,
    real="softmax_lastdim_kernel_impl",
    order=placement.ATTENDED,
    numpy=_attention_of_one_dtype,
    save=("query", "key", "value", "attn_mask", "out1"),
    vjp=Gradient(
        _attention_rule,
        results=_attention_grads,
        kind=kinds.linear(),
        order=placement.ATTENDED_BACK,
        numpy=_attention_backward_kernel,
    ),
    side_results=True,
    node_name="ScaledDotProductFlashAttentionForCpuBackward0",
)


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """`softmax(query @ key.T * scale + attn_mask) @ value`.

    Args:
        query: (..., T, D).
        key: (..., S, D).
        value: (..., S, E).
        attn_mask: Broadcast against (..., T, S): bool (True: may be seen), or floating point, added; or None.
        dropout_p: The probability that a weight is dropped; applied whenever it is above 0.
        is_causal: Query i sees keys 0 to i only; excludes a mask.
        scale: Default `1 / sqrt(D)`.
        enable_gqa: Heads (dimension -3) of key and value serve several heads of the query each.
    Returns:
        (..., T, E).
    """
    if attn_mask is not None and is_causal:
        raise RuntimeError("_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
    if scale is None:
        scale = 1 / math.sqrt(query._array.shape[-1]) if query._array.ndim and query._array.shape[-1] else 1.0
    if enable_gqa:
        repeats = query._array.shape[-3] // key._array.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    if dropout_p > 0 or (attn_mask is not None and attn_mask._requires_grad):
        return matmul(dropout(_weights(query, key, attn_mask, is_causal, scale), dropout_p), value)
    return call(_attention, (query, key, value, attn_mask), {"is_causal": is_causal, "scale": scale})
