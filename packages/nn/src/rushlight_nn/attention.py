"""Multi-head attention as one function: projections, masks, heads, output.  Source: Vaswani et al. 2017.

Masks are brought into one form first: a float tensor that is added to the scores, -∞ where nothing may be seen.
"""

from __future__ import annotations

import math
from typing import Any

from rushlight_tensor import Tensor
from rushlight_tensor.core import dtypes
from rushlight_tensor.ops.create import zeros, zeros_like
from rushlight_tensor.ops.linalg.linalg import linear
from rushlight_tensor.ops.norm.softmax import softmax
from rushlight_tensor.ops.random.dropout import dropout
from rushlight_tensor.ops.sequence.attention import scaled_dot_product_attention
from rushlight_tensor.ops.shape.join import cat


def additive_mask(mask: Tensor | None, name: str, dtype: Any) -> Tensor | None:
    """A bool mask (True: hidden) as 0 and -∞; a float mask as it is.  Raises RuntimeError for other dtypes."""
    if mask is None:
        return None
    if mask.dtype is dtypes.bool:
        hidden: Tensor = zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)
        return hidden
    if not mask.dtype.is_floating_point:
        raise RuntimeError(f"only bool and floating types of {name} are supported")
    return mask


def _check_shapes(query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Any, embed_dim: int) -> None:
    """Raises AssertionError with PyTorch's words."""
    dims = query.ndim
    if dims not in (2, 3):
        raise AssertionError(f"query should be unbatched 2D or batched 3D tensor but received {dims}-D query tensor")
    kind = "batched (3-D)" if dims == 3 else "unbatched (2-D)"
    if key.ndim != dims or value.ndim != dims:
        raise AssertionError(f"For {kind} `query`, expected `key` and `value` to be {dims}-D but found {key.ndim}-D "
                             f"and {value.ndim}-D tensors respectively")  # fmt: skip
    if key_padding_mask is not None and key_padding_mask.ndim != dims - 1:
        raise AssertionError(f"For {kind} `query`, expected `key_padding_mask` to be `None` or {dims - 1}-D but found "
                             f"{key_padding_mask.ndim}-D tensor instead")  # fmt: skip
    if query.shape[-1] != embed_dim:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim}, but got {query.shape[-1]}")


def _project(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v from one (3 E, E) weight, in as few products as there are different inputs."""
    e = query.shape[-1]
    if query is key and key is value:
        q, k, v = linear(query, weight, bias).chunk(3, -1)
        return q, k, v
    b_q = b_kv = None
    if bias is not None:
        b_q, b_kv = bias.split([e, 2 * e])
    w_q, w_kv = weight.split([e, 2 * e])
    if key is value:
        k, v = linear(key, w_kv, b_kv).chunk(2, -1)
        return linear(query, w_q, b_q), k, v
    (w_k, w_v), (b_k, b_v) = w_kv.chunk(2), ((None, None) if b_kv is None else b_kv.chunk(2))
    return linear(query, w_q, b_q), linear(key, w_k, b_k), linear(value, w_v, b_v)


def _merged_mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, batch: int, heads: int, targets: int, sources: int
) -> Tensor | None:
    """Both masks as one that broadcasts to (B, H, T, S)."""
    if attn_mask is not None:
        if attn_mask.ndim == 2:
            if tuple(attn_mask.shape) != (targets, sources):
                raise RuntimeError(f"The shape of the 2D attn_mask is torch.Size({list(attn_mask.shape)}), but should "
                                   f"be {(targets, sources)}.")  # fmt: skip
            attn_mask = attn_mask.unsqueeze(0).unsqueeze(0)
        elif attn_mask.ndim == 3:
            expected = (batch * heads, targets, sources)
            if tuple(attn_mask.shape) != expected:
                raise RuntimeError(f"The shape of the 3D attn_mask is torch.Size({list(attn_mask.shape)}), but should "
                                   f"be {expected}.")  # fmt: skip
            attn_mask = attn_mask.reshape(batch, heads, targets, sources)
        else:
            raise RuntimeError(f"attn_mask's dimension {attn_mask.ndim} is not supported")
    if key_padding_mask is None:
        return attn_mask
    if tuple(key_padding_mask.shape) != (batch, sources):
        raise AssertionError(f"expecting key_padding_mask shape of {(batch, sources)}, but got "
                             f"{tuple(key_padding_mask.shape)}")  # fmt: skip
    padding = key_padding_mask.reshape(batch, 1, 1, sources)
    return padding if attn_mask is None else attn_mask + padding


def _widened(mask: Tensor | None, by: int = 1) -> Tensor | None:
    """The mask with columns for keys that were appended and may be seen by all."""
    if mask is None:
        return None
    return cat([mask, zeros(*mask.shape[:-1], by, dtype=mask.dtype, device=mask.device)], -1)


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int, in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float,
    out_proj_weight: Tensor, out_proj_bias: Tensor | None, training: bool = True,
    key_padding_mask: Tensor | None = None, need_weights: bool = True, attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None, static_k: Tensor | None = None, static_v: Tensor | None = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Attention of `num_heads` heads; see `rushlight_nn.MultiheadAttention` for the arguments.

    Args:
        query: (T, B, E) or (T, E).
        key, value: (S, B, E_k), (S, B, E_v) or without B.
        static_k, static_v: (B H, S, E / H), used instead of the projected keys and values.
    Returns:
        The output (T, B, E), and the weights (B, T, S), (B, H, T, S) without averaging, or None.
    """
    _check_shapes(query, key, value, key_padding_mask, embed_dim_to_check)
    batched = query.ndim == 3
    if not batched:
        same_kv, same_qk = value is key, key is query
        query = query.unsqueeze(1)
        key = query if same_qk else key.unsqueeze(1)
        value = key if same_kv else value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    targets, batch, embed = query.shape
    head = embed // num_heads
    if head * num_heads != embed:
        raise AssertionError(f"embed_dim {embed} not divisible by num_heads {num_heads}")
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
                           "`generate_square_subsequent_mask` to create this mask.")  # fmt: skip
    padding = additive_mask(key_padding_mask, "key_padding_mask", query.dtype)
    mask = additive_mask(attn_mask, "attn_mask", query.dtype)
    if use_separate_proj_weight:
        if q_proj_weight is None or k_proj_weight is None or v_proj_weight is None:
            raise AssertionError("use_separate_proj_weight is True but one of q, k, v_proj_weight is None")
        if key.shape[:2] != value.shape[:2]:
            raise AssertionError(
                f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}"
            )
        biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
        q = linear(query, q_proj_weight, biases[0])
        k = linear(key, k_proj_weight, biases[1])
        v = linear(value, v_proj_weight, biases[2])
    else:
        if key.shape != value.shape:
            raise AssertionError(f"key shape {_size(key)} does not match value shape {_size(value)}")
        if in_proj_weight is None:
            raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
        q, k, v = _project(query, key, value, in_proj_weight, in_proj_bias)
    if bias_k is not None and bias_v is not None:
        k = cat([k, bias_k.expand(1, batch, embed)], 0)
        v = cat([v, bias_v.expand(1, batch, embed)], 0)
        mask, padding = _widened(mask), _widened(padding)
    # (T, B, E) -> (B, H, T, E / H)
    q = q.reshape(targets, batch, num_heads, head).permute(1, 2, 0, 3)
    k = _heads(k, static_k, batch, num_heads, head)
    v = _heads(v, static_v, batch, num_heads, head)
    if add_zero_attn:
        nothing = zeros(batch, num_heads, 1, head, dtype=k.dtype, device=k.device)
        k, v = cat([k, nothing], 2), cat([v, nothing], 2)
        mask, padding = _widened(mask), _widened(padding)
    merged = _merged_mask(mask, padding, batch, num_heads, targets, k.shape[2])
    p = dropout_p if training else 0.0
    weights = None
    if need_weights:
        out, weights = _explicit(q, k, v, merged, p)
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        causal = is_causal and padding is None and bias_k is None and not add_zero_attn
        out = scaled_dot_product_attention(q, k, v, None if causal else merged, p, causal)
    out = linear(out.permute(2, 0, 1, 3).reshape(targets, batch, embed), out_proj_weight, out_proj_bias)
    if not batched:
        return out.squeeze(1), None if weights is None else weights.squeeze(0)
    return out, weights


def _size(t: Tensor) -> str:
    return f"torch.Size({list(t.shape)})"


def _heads(x: Tensor, static: Tensor | None, batch: int, heads: int, head: int) -> Tensor:
    if static is not None:
        given: Tensor = static.reshape(batch, heads, -1, head)
        return given
    split: Tensor = x.reshape(x.shape[0], batch, heads, head).permute(1, 2, 0, 3)
    return split


def _explicit(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> tuple[Tensor, Tensor]:
    """Attention that also returns its weights (B, H, T, S), after dropout, as PyTorch returns them."""
    scores = (q * math.sqrt(1.0 / q.shape[-1])) @ k.transpose(-2, -1)
    weights = softmax(scores if mask is None else scores + mask, -1)
    if p > 0.0:
        weights = dropout(weights, p)
    return weights @ v, weights
