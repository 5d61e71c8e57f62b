"""Scaled dot-product attention (Vaswani et al., 2017): one kernel, or a composition where weights are dropped."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds, order, placement
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.half_precision import wide
from rushlight_tensor.core.infer import Aval, broadcast_shapes
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import FLOAT32
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.kernels import attention as kernels
from rushlight_tensor.kernels.plan import C
from rushlight_tensor.ops.linalg.linalg import _C_NAMES, matmul
from rushlight_tensor.ops.math.cast import widely
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.norm.softmax import softmax
from rushlight_tensor.ops.random.dropout import dropout
from rushlight_tensor.ops.reduce.reduce import sum
from rushlight_tensor.ops.shape.samples import _aligned
from rushlight_tensor.ops.shape.shape import reshape, transpose

Sizes = tuple[int, ...]


def _attention_aval(
    query: Any, key: Any, value: Any, attn_mask: Any, is_causal: bool = False, scale: float = 1.0
) -> tuple[Aval, Aval]:
    batch = _checked_batch(query, key, value, attn_mask)
    t, s, e = query.shape[-2], key.shape[-2], value.shape[-1]
    pair, kept = kernels.as_pair(batch), wide(query.dtype)
    by_kernel = (
        attn_mask is None
        and kept == FLOAT32
        and not any(0 in x.shape or (x.device or "").startswith("cuda") for x in (query, key, value))
        and kernels.has_kernels()
    )
    saved = Aval((*pair, t, 2) if by_kernel else (*pair, t, s, 1), kept)
    return _laid(placement.ATTENDED, (*batch, t, e), query.dtype, query, key, value), saved


def _laid(rule: Any, shape: Sizes, dtype: Any, *xs: Any) -> Aval:
    """A result where PyTorch's lies: the kernels write it there."""
    seen = [(x.shape, order.contiguous(x.shape) if x.strides is None or x.private else x.strides) for x in xs]
    return Aval(shape, dtype, rule.strides(shape, seen, {}))


def _attention_sizes(q: Any, k: Any, v: Any, mask: Any, is_causal: bool, scale: float) -> Any:
    if mask is not None:
        return None
    out = _attention_aval(q, k, v, mask)[0]
    return _all_sizes(is_causal, out.shape[:-2], q=q, k=k, v=v, out=out)


def _all_sizes(is_causal: bool, batch: Sizes, **xs: Any) -> Any:
    found = kernels.sizes(batch, **xs)
    if found is None:
        return None
    (t, d), (s, e) = xs["q"].shape[-2:], xs["v"].shape[-2:]
    return {"queries": t, "keys": s, "depth": d, "value_depth": e, "causal": is_causal, **found}


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


def _attention_grads(known: Any) -> tuple[Aval, ...]:
    three = (known.query, known.key, known.value)
    batch = broadcast_shapes(*[t.shape[:-2] for t in three])
    rule = placement.ATTENDED_BACK
    return tuple([_laid(rule, (*batch, *t.shape[-2:]), t.dtype, known.g, *three) for t in three])


def _backward_sizes(
    g: Any, q: Any, k: Any, v: Any, mask: Any, saved: Any, is_causal: bool, scale: float, needs: Any
) -> Any:
    if mask is not None or len(saved.shape) == 5:
        return None
    made = _attention_grads(SimpleNamespace(g=g, query=q, key=k, value=v))
    grads = dict(zip(("dq", "dk", "dv"), made, strict=True))
    return _all_sizes(is_causal, made[0].shape[:-2], g=g, q=q, k=k, v=v, **grads)


def _weights(q: Any, k: Any, mask: Any, is_causal: bool, scale: float) -> Any:
    """(..., T, S), the softmax of the scores; rows that may see nothing are zero."""
    scores = matmul(q * scale, transpose(k, -1, -2))
    if is_causal:
        mask = wrap(like(q._array, np.tri(*scores._array.shape[-2:], dtype=np.bool_)))
    if mask is not None:
        scores = where(mask, scores, -math.inf) if mask._array.dtype.kind == "b" else scores + mask
    if mask is None or is_causal:
        return softmax(scores, -1)
    seen = (scores != -math.inf).any(-1, True)  # twice, or the gradient of the others would be NaN
    return where(seen, softmax(where(seen, scores, 0.0), -1), 0.0)


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
    numpy=kernels.attention,
    c=C("attention", "attention", _attention_sizes, blas=True, pack=kernels.packed),
    save=("query", "key", "value", "attn_mask", "out1"),
    vjp=Gradient(
        _attention_rule,
        results=_attention_grads,
        kind=kinds.linear(),
        order=placement.ATTENDED_BACK,
        numpy=kernels.attention_backward,
        c=C("attention", "attention_backward", _backward_sizes, blas=True, pack=kernels.packed),
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
        return _composed(query, key, value, attn_mask, is_causal, scale, dropout_p)
    return call(_attention, (query, key, value, attn_mask), {"is_causal": is_causal, "scale": scale})


@widely
def _composed(q: Any, k: Any, v: Any, mask: Any, is_causal: bool, scale: float, dropout_p: float) -> Any:
    return matmul(dropout(_weights(q, k, mask, is_causal, scale), dropout_p), v)
