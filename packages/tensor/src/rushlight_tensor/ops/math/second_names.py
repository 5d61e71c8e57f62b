"""Elementwise functions made of others, and PyTorch's second names of operations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import dtypes, kinds, promote
from rushlight_tensor.core.dispatch import floats_only, numbers_only, real_only
from rushlight_tensor.core.infer import Aval, real_dtype, unary_bool, unary_float
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.promote import same, to_float
from rushlight_tensor.ops.math.arithmetic import clamp, div, sub
from rushlight_tensor.ops.math.cast import _zeros, cast, widely
from rushlight_tensor.ops.math.complex import complex, conj, imag, real
from rushlight_tensor.ops.math.elementwise import _sub, abs, mul, neg, pow, rsqrt, trunc
from rushlight_tensor.ops.math.select import ge, gt, le, lt, ne, where

# Hyperbolic

asinh = Op(
    "asinh",
    infer=unary_float,
    promote=to_float,
    numpy=np.arcsinh,
    expr="asinh({x})",
    save=("x",),
    vjp=(lambda g, x: g * rsqrt(x * x + 1),),
    onnx="Asinh",
)


def _acosh_rule(g: Any, x: Any) -> Any:
    if x._array.dtype.kind == "c":  # the root of a product may be the other one
        return g * rsqrt(x - 1) * rsqrt(x + 1)
    return g * rsqrt(x * x - 1)


acosh = Op(
    "acosh",
    infer=unary_float,
    promote=to_float,
    numpy=np.arccosh,
    expr="acosh({x})",
    save=("x",),
    vjp=(_acosh_rule,),
    onnx="Acosh",
)
atanh = Op(
    "atanh",
    infer=unary_float,
    promote=to_float,
    numpy=np.arctanh,
    expr="atanh({x})",
    save=("x",),
    vjp=(lambda g, x: g / (1 - x * x),),
    onnx="Atanh",
)
signbit = Op(
    "signbit",
    infer=unary_bool,
    promote=same,
    real=NotImplementedError("signbit is not implemented for complex tensors."),
    numpy=np.signbit,
    expr="signbit({x})",
    vjp=None,
)


def _angle_kernel(x: Any) -> Any:
    if x.dtype.kind == "c":
        return np.angle(x)
    return np.where(x != x, x, np.where(x < 0, x.dtype.type(math.pi), x.dtype.type(0)))


def _angle_aval(x: Any) -> Aval:
    return Aval(x.shape, real_dtype(promote.to_float((x,))))


def _angle_rule(g: Any, x: Any) -> Any:
    """A step across the number, over its distance; nothing for real numbers."""
    if x._array.dtype.kind != "c":
        return _zeros(g)
    zero = x == 0
    return where(zero, 0.0, g * 1j / conj(where(zero, 1.0, x)))


angle = Op(
    "angle",
    kind=kinds.ELEMENTWISE,
    infer=_angle_aval,
    promote=to_float,
    numpy=_angle_kernel,
    save=("x",),
    vjp=(_angle_rule,),
    wirtinger=True,
)
"""The argument of complex numbers; of real ones 0, pi where negative, NaN where NaN."""


def polar(abs: Any, angle: Any) -> Any:
    """Complex numbers from their absolute values and arguments, which are floats of one dtype."""
    complex.infer(abs._array, angle._array)  # says what does not fit
    return complex(abs * angle.cos(), abs * angle.sin())


# Compositions


def nan_to_num(input: Any, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Any:
    """`input` with numbers in place of NaN and the infinities; by default 0 and the largest finite ones."""
    dtype = input._array.dtype
    if promote.category(dtype) < 2:
        return input.clone()
    if dtype.kind == "c":
        return complex(*[nan_to_num(part, nan, posinf, neginf) for part in (real(input), imag(input))])
    limit = float(dtypes.finfo(dtypes.from_numpy(dtype)).max)
    out = where(input != input, 0.0 if nan is None else nan, input)
    out = where(out == math.inf, limit if posinf is None else posinf, out)
    return where(out == -math.inf, -limit if neginf is None else neginf, out)


def frac(input: Any) -> Any:
    """What `trunc` cuts off."""
    real_only("frac_cpu", input)
    floats_only("frac_cpu", input)
    return input - trunc(input)


def deg2rad(input: Any) -> Any:
    """Degrees as radians."""
    real_only(RuntimeError("deg2rad is not supported for complex tensors."), input)
    return input * (math.pi / 180)


def rad2deg(input: Any) -> Any:
    """Radians as degrees."""
    real_only(RuntimeError("rad2deg is not supported for complex tensors."), input)
    return input * (180 / math.pi)


def float_power(input: Any, exponent: Any) -> Any:
    """`input ** exponent` in float64, or complex128 where one of them is complex."""
    kind = promote.result_type([getattr(t, "_array", t) for t in (input, exponent)]).kind
    dtype = np.dtype(np.complex128 if kind == "c" else np.float64)
    base, power = (cast(t, dtype=dtype) if hasattr(t, "_array") else dtype.type(t).item() for t in (input, exponent))
    return pow(base, power)


def fmax(input: Any, other: Any) -> Any:
    """The larger of each two; NaN only where both are."""
    real_only(RuntimeError("fmax not implemented for complex tensors."), input, other)
    return where(input >= other, input, where(other == other, other, input))


def fmin(input: Any, other: Any) -> Any:
    """The smaller of each two; NaN only where both are."""
    real_only(RuntimeError("fmin not implemented for complex tensors."), input, other)
    return where(input <= other, input, where(other == other, other, input))


def heaviside(input: Any, values: Any) -> Any:
    """0 below zero, 1 above it, `values` at it."""
    real_only(RuntimeError("heaviside is not yet implemented for complex tensors."), input, values)
    if not hasattr(values, "_array"):
        raise TypeError(f"heaviside(): argument 'values' (position 2) must be Tensor, not {type(values).__name__}")
    if input._array.dtype != values._array.dtype:
        raise RuntimeError("heaviside is not yet implemented for tensors with different dtypes.")
    return where(input == 0, values, cast(input > 0, dtype=input._array.dtype))


def ldexp(input: Any, other: Any) -> Any:
    """`input * 2 ** other`."""
    if promote.category(input._array.dtype) == 2:
        numbers_only("ldexp_cpu_exp", other)
    common = to_float([input._array, getattr(other, "_array", other)])
    scale = pow(2.0, other)
    return input * (cast(scale, dtype=common) if hasattr(scale, "_array") else scale)


def rsub(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """`other - alpha * input`."""
    return (
        sub(other, input, alpha=alpha)
        if hasattr(other, "_array")
        else _sub(other, input if alpha == 1 else input * alpha)
    )


def clamp_min(input: Any, min: Any) -> Any:
    """`input`, at least `min`."""
    return clamp(input, min=min)


def clamp_max(input: Any, max: Any) -> Any:
    """`input`, at most `max`."""
    return clamp(input, max=max)


def isposinf(input: Any) -> Any:
    """Whether an element is +infinity."""
    real_only(RuntimeError("isposinf does not support complex inputs."), input)
    return input == math.inf


def isneginf(input: Any) -> Any:
    """Whether an element is -infinity."""
    real_only(RuntimeError("isneginf does not support complex inputs."), input)
    return input == -math.inf


def numel(input: Any) -> int:
    """The number of elements."""
    return int(input._array.size)


@widely
def sinc(input: Any) -> Any:
    """`sin(pi x) / (pi x)`, and 1 at 0."""
    x = input * math.pi
    small = abs(x) < 0.05  # where the gradient of the quotient is the difference of two large numbers
    s, away = where(small, x * x, 0.0), where(small, 1.0, x)
    series = 1 - s / 6 * (1 - s / 20 * (1 - s / 42 * (1 - s / 72)))
    return where(small, series, away.sin() / away)


# Second names


def clip(input: Any, min: Any = None, max: Any = None) -> Any:
    """`clamp`."""
    return clamp(input, min, max)


def absolute(input: Any) -> Any:
    """`abs`."""
    return abs(input)


def negative(input: Any) -> Any:
    """`neg`."""
    return neg(input)


def positive(input: Any) -> Any:
    """`input` itself.  Raises RuntimeError for bool."""
    if input._array.dtype.kind == "b":
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


def fix(input: Any) -> Any:
    """`trunc`."""
    return trunc(input)


def subtract(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """`sub`."""
    return sub(input, other, alpha=alpha)


def multiply(input: Any, other: Any) -> Any:
    """`mul`."""
    return mul(input, other)


def divide(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """`div`."""
    return div(input, other, rounding_mode=rounding_mode)


def true_divide(input: Any, other: Any) -> Any:
    """`div`."""
    return div(input, other)


def not_equal(input: Any, other: Any) -> Any:
    """`ne`."""
    return ne(input, other)


def less(input: Any, other: Any) -> Any:
    """`lt`."""
    return lt(input, other)


def less_equal(input: Any, other: Any) -> Any:
    """`le`."""
    return le(input, other)


def greater(input: Any, other: Any) -> Any:
    """`gt`."""
    return gt(input, other)


def greater_equal(input: Any, other: Any) -> Any:
    """`ge`."""
    return ge(input, other)


def arcsin(input: Any) -> Any:
    """`asin`."""
    return input.asin()


def arccos(input: Any) -> Any:
    """`acos`."""
    return input.acos()


def arctan(input: Any) -> Any:
    """`atan`."""
    return input.atan()


def arctan2(input: Any, other: Any) -> Any:
    """`atan2`."""
    return input.atan2(other)


def arcsinh(input: Any) -> Any:
    """`asinh`."""
    return asinh(input)


def arccosh(input: Any) -> Any:
    """`acosh`."""
    return acosh(input)


def arctanh(input: Any) -> Any:
    """`atanh`."""
    return atanh(input)
