"""GPT: a decoder-only transformer over tokens, in nanoGPT's form.  Source: Radford et al. 2019."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rushlight_nn import GELU, Dropout, Embedding, LayerNorm, Linear, Module, ModuleList, init
from rushlight_nn import functional as F
from rushlight_tensor import Tensor, arange


@dataclass(frozen=True)
class GPTConfig:
    """Sizes and options of a GPT.

    Args:
        vocab_size: Number of tokens.
        block_size: Longest sequence.
        n_layer, n_head, n_embd: Layers, heads, features.
        dropout: Dropout probability.
        bias: Whether linear layers and norms have biases.
    """

    vocab_size: int = 65
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = False

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"GPTConfig: n_embd must be a multiple of n_head, got {self.n_embd} and {self.n_head}")


class CausalSelfAttention(Module):
    """Each position attends to itself and to those before it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = Dropout(config.dropout)
        self.n_head = config.n_head
        self.n_embd = config.n_embd
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q = q.view(b, t, self.n_head, c // self.n_head).transpose(1, 2)  # (B, H, T, D)
        k = k.view(b, t, self.n_head, c // self.n_head).transpose(1, 2)
        v = v.view(b, t, self.n_head, c // self.n_head).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(b, t, c)  # (B, T, C)
        out: Tensor = self.resid_dropout(self.c_proj(y))
        return out


class MLP(Module):
    """Two linear layers with GELU between them, four times as wide inside."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.gelu = GELU()
        self.c_proj = Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.c_proj(self.gelu(self.c_fc(x))))
        return out


class Block(Module):
    """Attention and MLP, each normalised before and added to its input."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class GPT(Module):
    """Token and position embeddings, blocks, a norm, and logits by the token embedding's own weight.

    Shapes:
        tokens (B, T) with T ≤ block_size, logits (B, T, vocab_size)
    """

    def __init__(self, config: GPTConfig | None = None, **options: Any) -> None:
        super().__init__()
        if config is None:
            config = GPTConfig(**options)
        elif options:
            raise TypeError(f"GPT: give a GPTConfig or its options, not both; got config and {sorted(options)}")
        self.config = config
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.block_size, config.n_embd)
        self.drop = Dropout(config.dropout)
        self.h = ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight  # one tensor for both: Press and Wolf 2016
        self.apply(self._init_weights)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):  # the residual sum has 2 n_layer terms
                init.normal_(parameter, mean=0.0, std=0.02 / math.sqrt(2 * config.n_layer))

    @staticmethod
    def _init_weights(module: Module) -> None:
        if isinstance(module, Linear):
            init.normal_(module.weight, mean=0.0, std=0.02)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, Embedding):
            init.normal_(module.weight, mean=0.0, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Any:
        """The logits, or with `targets` (B, T) the logits and the mean cross-entropy."""
        t = tokens.shape[1]
        if t > self.config.block_size:
            raise ValueError(f"GPT: a sequence has {t} tokens, the model takes {self.config.block_size}; cut it")
        positions = arange(t, device=tokens.device)
        x = self.drop(self.wte(tokens) + self.wpe(positions))  # (B, T, C)
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        if targets is None:
            return logits
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))
        return logits, loss
