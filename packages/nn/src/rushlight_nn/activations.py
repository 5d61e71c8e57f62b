"""The activation functions with PyTorch's `inplace` argument."""

from __future__ import annotations

from typing import Any

from rushlight_tensor import Tensor
from rushlight_tensor.core.inplace import inplace as into
from rushlight_tensor.core.op import Op
from rushlight_tensor.ops.math import activation as a


def _run(op: Op, input: Tensor, inplace: bool, **attrs: Any) -> Tensor:
    out: Tensor = into(op, input, **attrs) if inplace else op(input, **attrs)
    return out


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)."""
    return _run(a.relu, input, inplace)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x σ(x)."""
    return _run(a.silu, input, inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x tanh(softplus(x))."""
    return _run(a.mish, input, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """The scaled exponential linear unit."""
    return _run(a.selu, input, inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x clipped to [0, 6]."""
    return _run(a.relu6, input, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x relu6(x + 3) / 6."""
    return _run(a.hardswish, input, inplace)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """relu6(x + 3) / 6."""
    return _run(a.hardsigmoid, input, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, `negative_slope` x elsewhere."""
    return _run(a.leaky_relu, input, inplace, negative_slope=negative_slope)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, α (eˣ - 1) elsewhere."""
    return _run(a.elu, input, inplace, alpha=alpha)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, α (e^(x/α) - 1) elsewhere."""
    return _run(a.celu, input, inplace, alpha=alpha)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x clipped to [min_val, max_val]."""
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    return _run(a.hardtanh, input, inplace, min_val=min_val, max_val=max_val)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, `value` elsewhere."""
    return _run(a.threshold, input, inplace, threshold=threshold, value=value)
