"""Elementwise arithmetic and functions: each op is a NumPy ufunc, one C expression and a gradient.

Broadcasting appears nowhere below: autograd sums a gradient to the shape of the input it belongs to.

Note [Gradients at kinks]
    Where a function has no derivative (`relu` at 0, `abs` at 0) the value is PyTorch's, not the mathematically
    symmetric one, because saved training runs depend on it.
"""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds
from rushlight_tensor.core.half_precision import in_float32
from rushlight_tensor.core.infer import binary_float, binary_promoted, unary_float, unary_real, unary_same
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.promote import difference, power, same, to_float
from rushlight_tensor.kernels import integers
from rushlight_tensor.kernels.plan import C, elements
from rushlight_tensor.ops.math.cast import _zeros
from rushlight_tensor.ops.math.complex import conj, imag, real
from rushlight_tensor.ops.math.select import where

# Arithmetic

_add = Op(
    "add",
    infer=binary_promoted,
    promote=same,
    numpy=np.add,
    expr="{x} + {y}",
    vjp=(lambda g: g, lambda g: g),
    onnx="Add",
)

_sub = Op(
    "sub",
    infer=binary_promoted,
    promote=difference,
    numpy=np.subtract,
    expr="{x} - {y}",
    vjp=(lambda g: g, lambda g: -g),
    onnx="Sub",
)

mul = Op(
    "mul",
    infer=binary_promoted,
    promote=same,
    numpy=np.multiply,
    expr="{x} * {y}",
    save=("x", "y"),
    vjp=(lambda g, x, y: g * y, lambda g, x, y: g * x),
    onnx="Mul",
)

_div = Op(
    "div",
    infer=binary_float,
    promote=to_float,
    numpy=np.true_divide,
    expr="{x} / {y}",
    save=("x", "y"),
    vjp=(lambda g, x, y: g / y, lambda g, x, y: -g * (x / y / y)),  # y * y may be too large, or too small
    onnx="Div",
)

CHECKS_ARGUMENTS = True  # see `ops`


def _nothing(g: Any, *saved: Any) -> Any:
    return _zeros(g)


def _no_derivative(g: Any, *saved: Any) -> Any:
    raise RuntimeError("derivative for aten::floor_divide is not implemented: use div(x, y, rounding_mode='floor')")


def _floor_division(name: str, rule: Any) -> Op:
    return Op(
        name,
        kind=kinds.ELEMENTWISE,
        infer=binary_promoted,
        promote=same,
        real="div_floor_cpu",
        numeric="div_floor_cpu",
        numpy=integers.dividing(np.floor_divide),
        expr="floor_divide({x}, {y})",
        vjp=(rule, rule),
    )


floor_divide = _floor_division("floor_divide", _no_derivative)
_div_floor = _floor_division("div_floor", _nothing)
_div_trunc = Op(
    "div_trunc",
    kind=kinds.ELEMENTWISE,
    infer=binary_float,
    promote=to_float,
    real="div_trunc_cpu",
    numpy=lambda x, y: np.trunc(np.true_divide(x, y)),
    expr="trunc({x} / {y})",
    vjp=(_nothing, _nothing),
)

remainder = Op(
    "remainder",
    infer=binary_promoted,
    promote=same,
    real="remainder_cpu",
    numeric="remainder_cpu",
    numpy=integers.dividing(np.remainder),
    expr="floor_remainder({x}, {y})",
    save=("x", "y"),
    vjp=(lambda g, x, y: g, lambda g, x, y: -g * _div_floor(x, y)),
)

fmod = Op(
    "fmod",
    infer=binary_promoted,
    promote=same,
    real="fmod_cpu",
    numeric="fmod_cpu",
    numpy=integers.dividing(np.fmod),
    expr="fmod({x}, {y})",
    save=("x", "y"),
    vjp=(lambda g, x, y: g, lambda g, x, y: -g * _div_trunc(x, y)),
)


def _pow_x(g: Any, x: Any, y: Any, out: Any) -> Any:
    if isinstance(y, (int, float, complex)):
        return _nothing(g) if y == 0 else g * (y * pow(x, y - 1))
    return where(y == 0, 0.0, g * (y * pow(x, y - 1)))


def _pow_y(g: Any, x: Any, y: Any, out: Any) -> Any:
    complex_ = y._array.dtype.kind == "c"
    if isinstance(x, (int, float, complex)):
        slope = g * (out * _log_of_number(x, complex_))
        if x != 0:
            return slope
    else:
        slope = g * (out * log(x))
    flat = (real(y) >= 0) & (imag(y) == 0) if complex_ else y >= 0  # where the base is 0
    return where(flat if isinstance(x, (int, float, complex)) else (x == 0) & flat, 0.0, slope)


def _log_of_number(x: complex, complex_: bool) -> complex:
    """The logarithm that `log` gives a tensor of `x`."""
    if x == 0:
        return -math.inf
    if isinstance(x, complex) or (complex_ and x == x):
        return cmath.log(x)
    return math.log(x) if x > 0 else math.nan


def _pow_kernel(x: Any, y: Any) -> Any:
    if isinstance(y, (int, float)) and x.dtype.kind == "f":
        if y == 2:
            return np.square(x)
        if y == 0.5:
            return np.sqrt(x)
    if (y if isinstance(x, (int, float)) else x).dtype.kind in "biu":
        return integers.power(x if isinstance(x, np.ndarray) else np.asarray(x, y.dtype), y)
    return np.power(x, y)


pow = Op(
    "pow",
    infer=binary_promoted,
    keywords=("input", "exponent"),
    promote=power,
    numpy=_pow_kernel,
    expr="pow({x}, {y})",
    save=("x", "y", "out"),
    vjp=(_pow_x, _pow_y),
    onnx="Pow",
)


def _negate(array: Any) -> None:
    """In place.  NumPy 2.4's AVX-512 loop of `negative` is wrong where elements lie 16 or 64 bytes apart."""
    if array.dtype.kind in "fi":
        np.multiply(array, array.dtype.type(-1), out=array)
    else:
        np.negative(array, out=array)


neg = Op(
    "neg",
    infer=unary_same,
    promote=same,
    numeric=RuntimeError(
        "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use the "
        "`~` or `logical_not()` operator instead."
    ),
    numpy=np.negative,
    into=_negate,
    expr="-{x}",
    vjp=(lambda g: -g,),
    onnx="Neg",
)

maximum = Op(
    "maximum",
    infer=binary_promoted,
    promote=same,
    real=RuntimeError("maximum not implemented for complex tensors."),
    numpy=np.maximum,
    expr="{x} != {x} || {x} > {y} ? {x} : {y}",
    save=("x", "y"),
    vjp=(lambda g, x, y: _share(g, x, y, x < y), lambda g, x, y: _share(g, x, y, x > y)),
    onnx="Max",
)

minimum = Op(
    "minimum",
    infer=binary_promoted,
    promote=same,
    real=RuntimeError("minimum not implemented for complex tensors."),
    numpy=np.minimum,
    expr="{x} != {x} || {x} < {y} ? {x} : {y}",
    save=("x", "y"),
    vjp=(lambda g, x, y: _share(g, x, y, x > y), lambda g, x, y: _share(g, x, y, y > x)),
    onnx="Min",
)


def _share(g: Any, x: Any, y: Any, loses: Any) -> Any:
    """The loser gets nothing; equals share the gradient, and both get it beside NaN, as in PyTorch."""
    return where(x == y, g * 0.5, where(loses, 0.0, g))


def _across(x: Any, y: Any) -> Any:
    squares = x * x + y * y
    zero = squares == 0  # no direction, and no gradient
    return where(zero, 0.0, 1 / where(zero, 1.0, squares))


atan2 = Op(
    "atan2",
    infer=binary_float,
    promote=to_float,
    real="atan2_cpu",
    numpy=np.arctan2,
    expr="atan2({x}, {y})",
    save=("x", "y"),
    vjp=(lambda g, x, y: g * _across(x, y) * y, lambda g, x, y: -g * _across(x, y) * x),
)

# Sign, rounding


def _abs_rule(g: Any, x: Any) -> Any:
    return g * (sgn(x) if x._array.dtype.kind == "c" else sign(x))


abs = Op(
    "abs",
    infer=unary_real,
    promote=same,
    numeric="abs_cpu",
    numpy=np.absolute,
    expr="{x} <= 0 ? 0 - {x} : {x}",
    save=("x",),
    vjp=(_abs_rule,),
    wirtinger=True,
    onnx="Abs",
)


def _sgn_rule(g: Any, x: Any, out: Any) -> Any:
    """What is across `x` of a change turns its direction; at 0 nothing does."""
    zero = out == 0
    across = g - out * real(conj(out) * g)
    return where(zero, 0.0, across / where(zero, 1.0, abs(x)))


_sgn = Op(
    "sgn",
    kind=kinds.ELEMENTWISE,
    infer=unary_same,
    promote=same,
    numpy=np.sign,
    save=("x", "out"),
    vjp=(_sgn_rule,),
    wirtinger=True,
)


def sgn(input: Any) -> Any:
    """`input / abs(input)`, 0 at 0: the direction of a complex number, the sign of a real one."""
    return _sgn(input) if input._array.dtype.kind == "c" else sign(input)


def _sign_kernel(x: Any) -> Any:
    if x.dtype.kind == "b":
        return x.copy()
    out = np.sign(x)
    return out if x.dtype.kind in "iu" else np.where(x == x, out, x.dtype.type(0))  # that of nan is 0


sign = Op(
    "sign",
    infer=unary_same,
    promote=same,
    real=NotImplementedError(
        "Unlike NumPy, torch.sign is not intended to support complex numbers. Please use torch.sgn instead."
    ),
    numpy=_sign_kernel,
    expr="({x} > 0) - ({x} < 0)",
    vjp=(_nothing,),
    onnx="Sign",
)


def _rounding(name: str, ufunc: np.ufunc, onnx: str | None = None) -> Op:
    """Numbers to whole numbers, in steps whose slope is zero."""
    return Op(
        name,
        infer=unary_same,
        promote=same,
        real=NotImplementedError(f"{name} is not supported for complex inputs"),
        numeric=f"{name}_vml_cpu",
        numpy=ufunc,
        expr=f"{name}({{x}})",
        vjp=(_nothing,),
        onnx=onnx,
    )


floor = _rounding("floor", np.floor, "Floor")
ceil = _rounding("ceil", np.ceil, "Ceil")
trunc = _rounding("trunc", np.trunc)


def _round_kernel(x: Any) -> Any:
    return x.copy() if x.dtype.kind in "iu" else np.rint(x)  # which would make integers floats


_round = Op(
    "round",
    infer=unary_same,
    promote=same,
    real="round_vml_cpu",
    numeric="round_vml_cpu",
    numpy=_round_kernel,
    expr="rint({x})",
    vjp=(_nothing,),
    onnx="Round",
)

# Exponentials, roots, logarithms

exp = Op(
    "exp",
    infer=unary_float,
    promote=to_float,
    numpy=np.exp,
    c=C("activation", "exp_f32", elements),
    expr="exp({x})",
    save=("out",),
    vjp=(lambda g, out: g * out,),
    onnx="Exp",
)
exp2 = Op(
    "exp2",
    infer=unary_float,
    promote=to_float,
    numpy=np.exp2,
    expr="exp2({x})",
    save=("out",),
    vjp=(lambda g, out: g * out * math.log(2),),
)
expm1 = Op(
    "expm1",
    infer=unary_float,
    promote=to_float,
    numpy=np.expm1,
    expr="expm1({x})",
    save=("out",),
    vjp=(lambda g, out: g * (out + 1),),
)
log = Op(
    "log",
    infer=unary_float,
    promote=to_float,
    numpy=np.log,
    expr="log({x})",
    save=("x",),
    vjp=(lambda g, x: g / x,),
    onnx="Log",
)
log2 = Op(
    "log2",
    infer=unary_float,
    promote=to_float,
    numpy=np.log2,
    expr="log2({x})",
    save=("x",),
    vjp=(lambda g, x: g / (x * math.log(2)),),
)
log10 = Op(
    "log10",
    infer=unary_float,
    promote=to_float,
    numpy=np.log10,
    expr="log10({x})",
    save=("x",),
    vjp=(lambda g, x: g / (x * math.log(10)),),
)
log1p = Op(
    "log1p",
    infer=unary_float,
    promote=to_float,
    numpy=np.log1p,
    expr="log1p({x})",
    save=("x",),
    vjp=(lambda g, x: g / (1 + x),),
)
sqrt = Op(
    "sqrt",
    infer=unary_float,
    promote=to_float,
    numpy=np.sqrt,
    expr="sqrt({x})",
    save=("out",),
    vjp=(lambda g, out: g / (2 * out),),
    onnx="Sqrt",
)
rsqrt = Op(
    "rsqrt",
    infer=unary_float,
    promote=to_float,
    numpy=lambda x: np.reciprocal(np.sqrt(x)),
    expr="1 / sqrt({x})",
    save=("out",),
    vjp=(lambda g, out: g * (out * out * out) * -0.5,),
)
reciprocal = Op(
    "reciprocal",
    infer=unary_float,
    promote=to_float,
    numpy=np.reciprocal,
    expr="1 / {x}",
    save=("out",),
    vjp=(lambda g, out: -g * (out * out),),
    onnx="Reciprocal",
)

# Trigonometry

sin = Op(
    "sin",
    infer=unary_float,
    promote=to_float,
    numpy=np.sin,
    expr="sin({x})",
    save=("x",),
    vjp=(lambda g, x: g * cos(x),),
    onnx="Sin",
)
cos = Op(
    "cos",
    infer=unary_float,
    promote=to_float,
    numpy=np.cos,
    expr="cos({x})",
    save=("x",),
    vjp=(lambda g, x: -g * sin(x),),
    onnx="Cos",
)
tan = Op(
    "tan",
    infer=unary_float,
    promote=to_float,
    numpy=np.tan,
    expr="tan({x})",
    save=("out",),
    vjp=(lambda g, out: g * (1 + out * out),),
    onnx="Tan",
)
asin = Op(
    "asin",
    infer=unary_float,
    promote=to_float,
    numpy=np.arcsin,
    expr="asin({x})",
    save=("x",),
    vjp=(lambda g, x: g * rsqrt(1 - x * x),),
    onnx="Asin",
)
acos = Op(
    "acos",
    infer=unary_float,
    promote=to_float,
    numpy=np.arccos,
    expr="acos({x})",
    save=("x",),
    vjp=(lambda g, x: -g * rsqrt(1 - x * x),),
    onnx="Acos",
)
atan = Op(
    "atan",
    infer=unary_float,
    promote=to_float,
    numpy=np.arctan,
    expr="atan({x})",
    save=("x",),
    vjp=(lambda g, x: g / (1 + x * x),),
    onnx="Atan",
)
sinh = Op(
    "sinh",
    infer=unary_float,
    promote=to_float,
    numpy=np.sinh,
    expr="sinh({x})",
    save=("x",),
    vjp=(lambda g, x: g * cosh(x),),
    onnx="Sinh",
)
cosh = Op(
    "cosh",
    infer=unary_float,
    promote=to_float,
    numpy=np.cosh,
    expr="cosh({x})",
    save=("x",),
    vjp=(lambda g, x: g * sinh(x),),
    onnx="Cosh",
)
tanh = Op(
    "tanh",
    infer=unary_float,
    promote=to_float,
    numpy=np.tanh,
    c=C("activation", "tanh_f32", elements),
    expr="tanh({x})",
    save=("out",),
    vjp=(lambda g, out: g * (1 - out * out),),
    onnx="Tanh",
)

# Compositions need no record: they get CPU, CUDA, gradients and the compiler from what they are made of.


_NO_CLAMP = NotImplementedError("clamp is not supported for complex types")


def clip_expr(low: str, high: str) -> str:
    """`np.clip` between two attributes: NaN where x or a bound is; of bounds that cross, the upper holds."""
    text = "{x} != {x} ? {x} : LOW != LOW ? LOW : !(LOW <= HIGH) ? HIGH : {x} < LOW ? LOW : {x} > HIGH ? HIGH : {x}"
    return text.replace("LOW", f"{{{low}}}").replace("HIGH", f"{{{high}}}")


def _clamp_aval(x: Any, min: float = -math.inf, max: float = math.inf) -> Any:
    return unary_same(x)


_clamp = Op(
    "clamp",
    infer=_clamp_aval,
    promote=same,
    real=_NO_CLAMP,
    numpy=in_float32(lambda x, min, max: np.clip(x, x.dtype.type(min), x.dtype.type(max))),
    expr=clip_expr("min", "max"),
    save=("x",),
    vjp=(lambda g, x, min, max: where((x >= min) & (x <= max), g, 0.0),),
    flat=True,
    onnx="Clip",
)
