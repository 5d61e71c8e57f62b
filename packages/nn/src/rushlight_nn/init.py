"""Initial values of parameters; each draws from the generator as PyTorch does, so a seed gives the same weights.

Every function fills its tensor in place, without recording, and returns it.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from rushlight_autograd import no_grad
from rushlight_tensor import Generator, Tensor
from rushlight_tensor.ops.create import empty, empty_like, eye, from_numpy
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.random.draws import randperm

_GAINS = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}
_LINEAR = (
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sigmoid",
)  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity's layer scales its weights to keep the variance.

    Args:
        nonlinearity: `linear`, `conv2d`, …, `sigmoid`, `tanh`, `relu`, `leaky_relu` or `selu`.
        param: The negative slope of `leaky_relu`; 0.01 if omitted.
    Raises:
        ValueError: Unknown nonlinearity, or a slope that is no number.
    Source: He et al. 2015, https://arxiv.org/abs/1502.01852.
    """
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity in _GAINS:
        return _GAINS[nonlinearity]
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    receptive_field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive_field, tensor.shape[0] * receptive_field


def _fan(tensor: Tensor, mode: str) -> int:
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]


def _is_empty(tensor: Tensor) -> bool:
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return True
    return False


@no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with values from U(a, b)."""
    filled: Tensor = tensor.uniform_(a, b, generator=generator)
    return filled


@no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with values from N(mean, std²)."""
    filled: Tensor = tensor.normal_(mean, std, generator=generator)
    return filled


@no_grad()
def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Fill with values from N(mean, std²) cut to [a, b]."""
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn("mean is more than 2 std from [a, b] in nn.init.trunc_normal_. "
                      "The distribution of values may be incorrect.", stacklevel=2)  # fmt: skip
    below, above = ((1.0 + math.erf((bound - mean) / std / math.sqrt(2.0))) / 2.0 for bound in (a, b))
    if above - below > 0.3:
        return _by_redrawing(tensor, mean, std, a, b, generator)
    return _by_rejection(tensor, mean, std, a, b, generator)


def _by_redrawing(tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any) -> Tensor:
    """Draw from the whole distribution, and again where a value lies outside."""
    low, high = (tensor.new_tensor(bound, device="cpu").item() for bound in (a, b))
    tensor.normal_(mean, std, generator=generator)
    while not tensor.is_meta:
        outside = (tensor < low) | (tensor > high)
        if not outside.any():
            break
        tensor.copy_(where(outside, empty_like(tensor).normal_(mean, std, generator=generator), tensor))
    return tensor


def _by_rejection(tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any) -> Tensor:
    """Draw evenly from [a, b] and keep a value with its density as probability: for a cut far in the tails."""
    log_peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2
    tensor.uniform_(a, b, generator=generator)
    candidates, draws = tensor.clone(), empty_like(tensor)
    pending = None
    while not tensor.is_meta:
        log_density = ((candidates - mean) / std).pow(2) * -0.5 - log_peak
        refused = draws.uniform_(generator=generator).log() > log_density
        pending = refused if pending is None else pending & refused
        if not pending.any():
            break
        candidates.uniform_(a, b, generator=generator)
        tensor.copy_(where(pending, candidates, tensor))
    return tensor


@no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with `val`."""
    filled: Tensor = tensor.fill_(val)
    return filled


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return constant_(tensor, 0.0)


@no_grad()
def eye_(tensor: Tensor) -> Tensor:
    """Make a 2-d tensor the identity matrix."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    filled: Tensor = tensor.copy_(eye(*tensor.shape, dtype=tensor.dtype))
    return filled


@no_grad()
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Make a 3-, 4- or 5-d convolution weight pass as many input channels through as it can."""
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    if tensor.shape[0] % groups:
        raise ValueError("dim 0 must be divisible by groups")
    per_group = tensor.shape[0] // groups
    centre = tuple(size // 2 for size in tensor.shape[2:])
    tensor.zero_()
    for group in range(groups):
        for channel in range(min(per_group, tensor.shape[1])):
            tensor[(group * per_group + channel, channel, *centre)] = 1.0
    return tensor


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill from U(-a, a), a = gain √(6 / (fan_in + fan_out)).  Source: Glorot and Bengio 2010."""
    bound = math.sqrt(3.0) * gain * math.sqrt(2.0 / float(sum(_calculate_fan_in_and_fan_out(tensor))))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill from N(0, s²), s = gain √(2 / (fan_in + fan_out)).  Source: Glorot and Bengio 2010."""
    std = gain * math.sqrt(2.0 / float(sum(_calculate_fan_in_and_fan_out(tensor))))
    return normal_(tensor, 0.0, std, generator)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Fill from U(-b, b), b = gain √(3 / fan).  `a` is leaky_relu's slope.  Source: He et al. 2015."""
    if _is_empty(tensor):
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    bound = math.sqrt(3.0) * std
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Fill from N(0, s²), s = gain / √fan.  `a` is leaky_relu's slope.  Source: He et al. 2015."""
    if _is_empty(tensor):
        return tensor
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)), generator)


@no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with a (semi-)orthogonal matrix, dimensions after the first flattened.  Source: Saxe et al. 2013."""
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    flat = empty(rows, columns, dtype=tensor.dtype).normal_(0, 1, generator=generator)
    matrix = flat.cpu().numpy()
    q, r = np.linalg.qr(matrix.T if rows < columns else matrix)
    q = q * np.sign(np.diagonal(r))  # makes the distribution uniform over the orthogonal group
    q = q.T if rows < columns else q
    filled: Tensor = tensor.copy_(from_numpy(q.reshape(tensor.shape))).mul_(gain)
    return filled


@no_grad()
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Fill a matrix from N(0, std²) and set the fraction `sparsity` of each column to 0.  Source: Martens 2010."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    n_zeros = math.ceil(sparsity * rows)
    tensor.normal_(0, std, generator=generator)
    for column in range(columns):
        tensor[randperm(rows)[:n_zeros], column] = 0
    return tensor
