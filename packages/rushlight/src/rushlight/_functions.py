"""Functions that PyTorch has twice: `torch.batch_norm` takes other arguments than `torch.nn.functional.batch_norm`.

What stands here is the form without `nn.functional`: arguments in the order of the kernels, reductions as numbers.
"""

from __future__ import annotations

from typing import Any

from rushlight_nn import functional as F
from rushlight_tensor import Tensor
from rushlight_tensor.ops.shape.split import split as _split

_REDUCTIONS = ("none", "mean", "sum")


def _reduction(number: int) -> str:
    if number not in (0, 1, 2):
        raise ValueError(f"{number} is not a valid value for reduction: 0 is none, 1 mean, 2 sum")
    return _REDUCTIONS[number]


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """`nn.functional.dropout`, with all arguments given."""
    out: Tensor = F.dropout(input, p, train)
    return out


def alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """`nn.functional.alpha_dropout`, with all arguments given."""
    out: Tensor = F.alpha_dropout(input, p, train)
    return out


def batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    training: bool, momentum: float, eps: float, cudnn_enabled: bool,
) -> Tensor:  # fmt: skip
    """`nn.functional.batch_norm`, the weights before the running statistics."""
    out: Tensor = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return out


def instance_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    use_input_stats: bool, momentum: float, eps: float, cudnn_enabled: bool,
) -> Tensor:  # fmt: skip
    """`nn.functional.instance_norm`, the weights before the running statistics."""
    out: Tensor = F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return out


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """`nn.functional.group_norm`."""
    out: Tensor = F.group_norm(input, num_groups, weight, bias, eps)
    return out


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:  # fmt: skip
    """`nn.functional.layer_norm`."""
    out: Tensor = F.layer_norm(input, normalized_shape, weight, bias, eps)
    return out


def embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    """`nn.functional.embedding`, the table before the indices; -1 is no padding."""
    padding = None if padding_idx == -1 else padding_idx
    out: Tensor = F.embedding(indices, weight, padding, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
    return out


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None, reduction: int = 1
) -> Tensor:
    """`nn.functional.binary_cross_entropy_with_logits`."""
    out: Tensor = F.binary_cross_entropy_with_logits(
        input, target, weight, reduction=_reduction(reduction), pos_weight=pos_weight
    )
    return out


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = 1
) -> Tensor:
    """`nn.functional.cosine_embedding_loss`."""
    out: Tensor = F.cosine_embedding_loss(input1, input2, target, margin, reduction=_reduction(reduction))
    return out


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: int = 1) -> Tensor:
    """`nn.functional.hinge_embedding_loss`."""
    out: Tensor = F.hinge_embedding_loss(input, target, margin, reduction=_reduction(reduction))
    return out


def kl_div(input: Tensor, target: Tensor, reduction: int = 0, *, log_target: bool = False) -> Tensor:
    """`nn.functional.kl_div`, by default unreduced."""
    how = _reduction(reduction)
    out: Tensor = F.kl_div(input, target, reduction="none", log_target=log_target)
    return out if how == "none" else out.mean() if how == "mean" else out.sum()


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int = 1
) -> Tensor:
    """`nn.functional.margin_ranking_loss`."""
    out: Tensor = F.margin_ranking_loss(input1, input2, target, margin, reduction=_reduction(reduction))
    return out


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int) -> Tensor:
    """`nn.functional.poisson_nll_loss`, with all arguments given."""
    out: Tensor = F.poisson_nll_loss(input, target, log_input, full, eps=eps, reduction=_reduction(reduction))
    return out


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6,
    swap: bool = False, reduction: int = 1,
) -> Tensor:  # fmt: skip
    """`nn.functional.triplet_margin_loss`."""
    out: Tensor = F.triplet_margin_loss(
        anchor, positive, negative, margin, p, eps, swap, reduction=_reduction(reduction)
    )
    return out


def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """`nn.functional.softmax`, over a dimension that has to be given."""
    out: Tensor = F.softmax(input, dim, dtype=dtype)
    return out


def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """`nn.functional.log_softmax`, over a dimension that has to be given."""
    out: Tensor = F.log_softmax(input, dim, dtype=dtype)
    return out


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """`Tensor.split`."""
    parts: tuple[Tensor, ...] = _split(tensor, split_size_or_sections, dim)
    return parts
