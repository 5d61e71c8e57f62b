"""Arithmetic with the arguments and the rules of dtypes that PyTorch gives it, made of the records in `elementwise`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import floats_only, numbers_only, real_only, refuse
from rushlight_tensor.core.half_precision import wide
from rushlight_tensor.core.infer import Aval, broadcast_shapes
from rushlight_tensor.core.inplace import composed, inplace
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import BOOL, category, difference, result_type
from rushlight_tensor.core.scalars import checked
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.math.cast import cast, factor, scale, widely
from rushlight_tensor.ops.math.elementwise import (
    _NO_CLAMP,
    _add,
    _clamp,
    _div,
    _div_floor,
    _div_trunc,
    _round,
    _sub,
    floor_divide,
    fmod,
    pow,
)
from rushlight_tensor.ops.math.elementwise import abs as _abs
from rushlight_tensor.ops.math.select import where

CHECKS_ARGUMENTS = True  # see `ops`


def _common(*xs: Any) -> np.dtype[Any]:
    return result_type([getattr(x, "_array", x) for x in xs if x is not None])


def _times(alpha: Any, input: Any, other: Any) -> Any:
    """`alpha * other`, as `add` and `sub` compute it: in the common dtype.  Raises RuntimeError where it cannot be."""
    if type(alpha) is int and alpha == 1:
        return other
    common = _common(input, other)
    alpha = scale(alpha, common)
    if hasattr(other, "_array") and other._array.dtype != common:
        other = cast(other, dtype=common)
    return other * alpha if common != BOOL or hasattr(other, "_array") else bool(other and alpha)


@widely
def _add_times(input: Any, other: Any, alpha: Any) -> Any:
    return _add(input, _times(alpha, input, other))


@widely
def _sub_times(input: Any, other: Any, alpha: Any) -> Any:
    difference([getattr(x, "_array", x) for x in (input, other)])  # the product of a bool may be none
    return _sub(input, _times(alpha, input, other))


def add(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """`input + alpha * other`."""
    return _add(input, other) if type(alpha) is int and alpha == 1 else _add_times(input, other, alpha)


def add_(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """`input += alpha * other`, in place."""
    if type(alpha) is int and alpha == 1:
        return inplace(_add, input, other)
    if wide(input._array.dtype) != input._array.dtype:  # the sum is rounded, and not the product
        return composed(add, input, other, alpha=alpha)
    return inplace(_add, input, _times(alpha, input, other))


def sub(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """`input - alpha * other`.  Raises RuntimeError for bools."""
    return _sub(input, other) if type(alpha) is int and alpha == 1 else _sub_times(input, other, alpha)


def sub_(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """`input -= alpha * other`, in place."""
    if type(alpha) is int and alpha == 1:
        return inplace(_sub, input, other)
    if wide(input._array.dtype) != input._array.dtype:
        return composed(sub, input, other, alpha=alpha)
    difference([getattr(x, "_array", x) for x in (input, other)])
    return inplace(_sub, input, _times(alpha, input, other))


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """`input / other`; with `rounding_mode` "floor" or "trunc" rounded, and in the common dtype."""
    if rounding_mode is None:
        return _div(input, other)
    if rounding_mode == "floor":
        return _div_floor(input, other)
    if rounding_mode != "trunc":
        raise RuntimeError(
            f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'"
        )
    common = _common(input, other)
    if common.kind in "bc":
        refuse("div_trunc_cpu", common)
    if category(common) < 2:
        x, y = (cast(t, dtype=common) if hasattr(t, "_array") else t for t in (input, other))
        return floor_divide(x - fmod(x, y), y)
    return _div_trunc(input, other)


def div_(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """`div`, in place."""
    if rounding_mode is None:
        return inplace(_div, input, other)
    return composed(div, input, other, rounding_mode=rounding_mode)


def round(input: Any, *, decimals: int = 0) -> Any:
    """The nearest integers, halves to the even one; with `decimals`, the nearest multiples of 10 ** -decimals."""
    if decimals == 0:
        return _round(input)
    floats_only("round_cpu", input)
    scale = 10.0 ** (decimals if decimals > 0 else -decimals)
    return _div(_round(input * scale), scale) if decimals > 0 else _round(input / scale) * scale


def square(input: Any) -> Any:
    """`input * input`."""
    return pow(input, 2)


_BOUND = (int, float, type(None))


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """`input` limited to [min, max] (numbers, tensors or None), in their common dtype; at equality the gradient goes to
    `input`."""
    numbers = type(min) in _BOUND and type(max) in _BOUND and min is not max
    if numbers and isinstance(input, Tensor) and input._array.dtype.kind == "f":  # what most calls are
        return _clamp(input, -math.inf if min is None else float(min), math.inf if max is None else float(max))
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    tensor = hasattr(min, "_array") or hasattr(max, "_array")
    kernel = "maximum_cpu" if hasattr(min, "_array") else "minimum_cpu"
    why = kernel if tensor else _NO_CLAMP
    real_only(why, input, min, max)
    common = _common(input, min, max)
    if common == BOOL and not tensor:
        refuse("clamp_scalar_cpu", common)
    x, low, high = (_in_dtype(input, v, common) for v in (input, min, max))
    if not tensor and category(common) == 2:
        return _clamp(x, -math.inf if min is None else float(min), math.inf if max is None else float(max))
    return _clamp_tensor(x, low, high)


def _in_dtype(on: Any, x: Any, common: np.dtype[Any]) -> Any:
    if x is None or (hasattr(x, "_array") and x._array.dtype == common):
        return x
    if hasattr(x, "_array"):
        return cast(x, dtype=common)
    return wrap(like(on._array, np.asarray(checked(x, common) if common.kind in "iu" else x, common)))


def _clamp_tensor_aval(x: Any, low: Any, high: Any) -> Aval:
    return Aval(broadcast_shapes(x.shape, *[v.shape for v in (low, high) if v is not None]), x.dtype)


def _clamp_tensor_kernel(x: Any, low: Any, high: Any) -> Any:
    out = x if low is None else np.maximum(x, low)
    return out if high is None else np.minimum(out, high)


def _clamp_tensor_rule(g: Any, needs: tuple[bool, ...], x: Any, low: Any, high: Any) -> tuple[Any, ...]:
    """PyTorch's: where the limits cross, or are equal, `high` counts as the one that was met."""
    here = (x >= low if high is None else x <= high) if low is None or high is None else (x >= low) & (x <= high)
    below = low is not None and (x < low if high is None else (x < low) & (low < high))
    above = high is not None and (x > high if low is None else (x > high) | (high < low))
    return tuple([where(at, g, 0.0) if need else None for at, need in zip((here, below, above), needs, strict=True)])


_clamp_tensor = Op(
    "clamp_tensor",
    kind=kinds.ELEMENTWISE,
    infer=_clamp_tensor_aval,
    real=_NO_CLAMP,
    numpy=_clamp_tensor_kernel,
    save=("x", "low", "high"),
    vjp=Gradient(_clamp_tensor_rule),
    flat=True,
)


def lerp(input: Any, end: Any, weight: Any) -> Any:
    """`input + weight * (end - input)`, of tensors of one dtype; a weight without dimensions may be of another."""
    own = input._array.dtype
    if not hasattr(end, "_array"):
        raise TypeError(f"lerp(): argument 'end' must be Tensor, not {type(end).__name__}")
    for name, x in (("end", end), ("weight", weight)):
        if hasattr(x, "_array") and x._array.dtype != own and not (x is weight and x._array.ndim == 0):
            raise RuntimeError(f"expected dtype {own} for `{name}` but got dtype {x._array.dtype}")
    if hasattr(weight, "_array"):
        common = _common(input, end, weight)
        if category(common) < 2:
            floats_only("lerp_kernel_tensor", input)
        return _lerp(_in_dtype(input, input, common), _in_dtype(input, end, common), weight)
    floats_only("lerp_kernel_scalar", input)
    return _lerp(input, end, factor(weight, own))


@widely
def _lerp(input: Any, end: Any, weight: Any) -> Any:
    """From the nearer end, so that both are met exactly."""
    back = input - end  # which lies as PyTorch's result does
    if not hasattr(weight, "_array"):
        return input - weight * back if math.hypot(weight.real, weight.imag) < 0.5 else back * (1 - weight) + end
    near = _abs(weight.detach()) < 0.5
    return back * where(near, -weight, 1 - weight) + where(near, input, end)


@widely
def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Any:
    """`input + value * tensor1 * tensor2`."""
    common = _common(input, tensor1, tensor2)
    if common == BOOL:
        numbers_only("addcmul_cpu_out", input)
    value = factor(value, common)
    tensor1, tensor2 = (_in_dtype(input, t, common) for t in (tensor1, tensor2))  # the product is not of theirs alone
    return input + (tensor1 * tensor2 if value == 1 else value * tensor1 * tensor2)


@widely
def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Any:
    """`input + value * tensor1 / tensor2`.  Raises RuntimeError where both of these are integers."""
    if category(_common(tensor1, tensor2)) < 2:
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported. Give floats, or say which division is meant: "
            "input + value * torch.div(tensor1, tensor2, rounding_mode='trunc')"
        )
    common = _common(input, tensor1, tensor2)
    tensor1, tensor2 = (_in_dtype(input, t, common) for t in (tensor1, tensor2))
    return input + factor(value, common) * (tensor1 / tensor2)
