"""MultiheadAttention: the layer."""

from __future__ import annotations

from typing import Any

from rushlight_nn import init
from rushlight_nn.attention import multi_head_attention_forward
from rushlight_nn.modules.linear import NonDynamicallyQuantizableLinear
from rushlight_nn.modules.module import Module
from rushlight_nn.parameter import Parameter
from rushlight_tensor import Tensor
from rushlight_tensor.ops.create import empty


class MultiheadAttention(Module):
    """Scaled dot-product attention in `num_heads` subspaces.  Source: Vaswani et al. 2017.

    Args:
        embed_dim: E, features of query and output; a multiple of `num_heads`.
        num_heads: H.
        dropout: Dropout probability of the attention weights.
        bias: Whether the projections have biases.
        add_bias_kv: Append a learned key and value to the sequence.
        add_zero_attn: Append a zero key and value to the sequence.
        kdim, vdim: Features of key and value; `embed_dim` if omitted.
        batch_first: Inputs are (B, T, E) instead of (T, B, E).
    """

    in_proj_weight: Tensor | None
    in_proj_bias: Tensor | None
    q_proj_weight: Tensor | None
    k_proj_weight: Tensor | None
    v_proj_weight: Tensor | None
    bias_k: Tensor | None
    bias_v: Tensor | None

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, add_bias_kv: bool = False,
        add_zero_attn: bool = False, kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError("embed_dim and num_heads must be greater than 0, got "
                             f"embed_dim={embed_dim} and num_heads={num_heads} instead")  # fmt: skip
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError("embed_dim must be divisible by num_heads")
        same = self._qkv_same_embed_dim
        shapes: dict[str, tuple[int, ...] | None] = {
            "q_proj_weight": None if same else (embed_dim, embed_dim),
            "k_proj_weight": None if same else (embed_dim, self.kdim),
            "v_proj_weight": None if same else (embed_dim, self.vdim),
            "in_proj_weight": (3 * embed_dim, embed_dim) if same else None,
            "in_proj_bias": (3 * embed_dim,) if bias else None,
        }
        for name, shape in shapes.items():
            new = None if shape is None else Parameter(empty(shape, device=device, dtype=dtype))
            self.register_parameter(name, new)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        for name in ("bias_k", "bias_v"):
            new = Parameter(empty(1, 1, embed_dim, device=device, dtype=dtype)) if add_bias_kv else None
            self.register_parameter(name, new)
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """`(output, weights)`.

        Args:
            query: (T, B, E), (B, T, E) if `batch_first`, or (T, E).
            key, value: (S, B, kdim) and (S, B, vdim), or as for query.
            key_padding_mask: (B, S), True or -∞ for keys to ignore.
            need_weights: Also return the attention weights; without them a faster kernel runs.
            attn_mask: (T, S) or (B H, T, S), True or -∞ where a key is hidden from a query.
            average_attn_weights: Return the mean of the weights over heads (B, T, S) instead of (B, H, T, S).
            is_causal: A hint that `attn_mask` is the causal mask.
        """
        if self.batch_first and query.ndim == 3:
            same_kv, same_qk = value is key, key is query
            query = query.transpose(0, 1)
            key = query if same_qk else key.transpose(0, 1)
            value = key if same_kv else value.transpose(0, 1)
        output, weights = multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, self.in_proj_weight, self.in_proj_bias,
            self.bias_k, self.bias_v, self.add_zero_attn, self.dropout, self.out_proj.weight, self.out_proj.bias,
            training=self.training, key_padding_mask=key_padding_mask, need_weights=need_weights, attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim, q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight, v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights, is_causal=is_causal,
        )  # fmt: skip
        return (output.transpose(0, 1) if self.batch_first and output.ndim == 3 else output), weights
