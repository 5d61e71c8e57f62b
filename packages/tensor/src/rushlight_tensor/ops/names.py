"""Elementwise functions made of others, and PyTorch's second names of operations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor import dtypes, promote
from rushlight_tensor.dispatch import floats_only, numbers_only, real_only, refuse
from rushlight_tensor.infer import Aval, binary_float, real_dtype, unary_bool, unary_float
from rushlight_tensor.op import AS_CPU, Op
from rushlight_tensor.ops.arithmetic import clamp, div, sub
from rushlight_tensor.ops.cast import cast
from rushlight_tensor.ops.complex import complex, conj, imag, real
from rushlight_tensor.ops.elementwise import _sub, abs, exp, log, log1p, mul, neg, pow, rsqrt, sqrt, trunc
from rushlight_tensor.ops.select import ge, gt, le, lt, ne, where
from rushlight_tensor.promote import same, to_float
from rushlight_tensor.tensor import wrap

# Hyperbolic

asinh = Op(
    "asinh",
    infer=unary_float,
    promote=to_float,
    cpu=np.arcsinh,
    expr="asinh({x})",
    save=("x",),
    vjp=(lambda g, x: g * rsqrt(x * x + 1),),
)
acosh = Op(
    "acosh",
    infer=unary_float,
    promote=to_float,
    cpu=np.arccosh,
    expr="acosh({x})",
    save=("x",),
    vjp=(lambda g, x: g * rsqrt(x - 1) * rsqrt(x + 1),),  # of the product, the root may be the other one
)
atanh = Op(
    "atanh",
    infer=unary_float,
    promote=to_float,
    cpu=np.arctanh,
    expr="atanh({x})",
    save=("x",),
    vjp=(lambda g, x: g / (1 - x * x),),
)
signbit = Op(
    "signbit",
    infer=unary_bool,
    promote=same,
    real=NotImplementedError("signbit is not implemented for complex tensors."),
    cpu=np.signbit,
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
        return wrap(np.zeros_like(g._array))
    zero = x == 0
    return where(zero, 0.0, g * 1j / conj(where(zero, 1.0, x)))


angle = Op(
    "angle",
    infer=_angle_aval,
    promote=to_float,
    cpu=_angle_kernel,
    cuda=AS_CPU,
    save=("x",),
    vjp=(_angle_rule,),
    wirtinger=True,
)
"""The argument of complex numbers; of real ones 0, pi where negative, NaN where NaN."""


def polar(abs: Any, angle: Any) -> Any:
    """Complex numbers from their absolute values and arguments."""
    return complex(abs * angle.cos(), abs * angle.sin())


# Compositions


def _together(kernel: str, integers: bool, *xs: Any) -> list[Any]:
    """The operands in their common dtype, which is not complex; where `integers` may stand for floats, a float."""
    common = promote.result_type([getattr(x, "_array", x) for x in xs])
    if common.kind == "c" or (not integers and promote.category(common) < 2):
        refuse(kernel, common)
    if promote.category(common) < 2:
        common = dtypes.get_default_dtype().np
    return [cast(x, dtype=common) if hasattr(x, "_array") and x._array.dtype != common else x for x in xs]


def hypot(input: Any, other: Any) -> Any:
    """`sqrt(input ** 2 + other ** 2)`."""
    input, other = _together("hypot_cpu", False, input, other)
    return sqrt(input * input + other * other)


def _copysign_rule(g: Any, x: Any, y: Any, out: Any) -> Any:
    zero = x == 0
    return where(zero, 0.0, g * (out / where(zero, 1.0, x)))


copysign = Op(
    "copysign",
    infer=binary_float,
    promote=to_float,
    real="copysign_cpu",
    cpu=np.copysign,
    expr="copysign({x}, {y})",
    save=("x", "y", "out"),
    vjp=(_copysign_rule, lambda g, x, y, out: wrap(np.zeros_like(g._array))),
)


def nan_to_num(input: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """`input` with numbers in place of NaN and the infinities; by default 0 and the largest finite ones."""
    dtype = input._array.dtype
    if promote.category(dtype) < 2:
        return input.clone()
    if dtype.kind == "c":
        return complex(*[nan_to_num(part, nan, posinf, neginf) for part in (real(input), imag(input))])
    limit = float(dtypes.finfo(dtypes.from_numpy(dtype)).max)
    out = where(input != input, nan, input)
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


def logaddexp2(input: Any, other: Any) -> Any:
    """`log2(2 ** input + 2 ** other)` without overflow."""
    input, other = _together("logaddexp2_cpu", False, input, other)
    return (input * math.log(2)).logaddexp(other * math.log(2)) / math.log(2)


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


def logit(input: Any, eps: float | None = None) -> Any:
    """`log(x / (1 - x))`; with `eps`, of `input` limited to [eps, 1 - eps]."""
    real_only("logit_cpu", input)
    if eps is not None:
        input = input.clamp(eps, 1 - eps)
    input = cast(input, dtype=to_float([input._array]))
    return log(input / (1 - input))


def xlogy(input: Any, other: Any) -> Any:
    """`input * log(other)`, and 0 where `input` is 0, unless `other` is NaN."""
    real_only("xlogy_cpu", input, other)
    input, other = _together("xlogy_cpu", True, input, other)
    zero = (input == 0) & ((other <= 0) | (other == math.inf))
    return input * log(where(zero, 1.0, other))


def logaddexp(input: Any, other: Any) -> Any:
    """`log(exp(input) + exp(other))` without overflow."""
    common = same([input._array, other._array])
    if promote.category(common) < 2:
        refuse("logaddexp_cpu", common)
    input, other = (cast(x, dtype=common) for x in (input, other))
    if common.kind == "c":  # the larger real part decides what could overflow
        first = real(input) >= real(other)
        top, low = where(first, input, other), where(first, other, input)
        return top + log1p(exp(low - top))
    top = where(input > other, input, other)
    return where(input == other, input + math.log(2), top + log1p(exp(-abs(input - other))))


def sinc(input: Any) -> Any:
    """`sin(pi x) / (pi x)`, and 1 at 0."""
    zero = input == 0
    x = where(zero, 1.0, input) * math.pi
    return where(zero, 1.0, x.sin() / x)


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
