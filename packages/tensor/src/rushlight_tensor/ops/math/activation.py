"""Activations: elementwise functions of neural networks, each an expression, a kernel and a gradient.

Gradients at kinks are PyTorch's: see Note [Gradients at kinks] in `elementwise.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core.dispatch import floats_only, real_only
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.half_precision import in_float32
from rushlight_tensor.core.infer import Aval, axis, unary_float, unary_same
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import category, floating, same, to_float
from rushlight_tensor.kernels import activation as kernels
from rushlight_tensor.kernels.plan import C, elements
from rushlight_tensor.ops.math.cast import flat
from rushlight_tensor.ops.math.complex import conj, real
from rushlight_tensor.ops.math.elementwise import _NO_CLAMP, abs, clip_expr, exp, sgn, tanh
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.shape.shape import reshape

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _float_only(kernel: str) -> Any:
    """The shape rule of functions that exist for floating point only, under the name of PyTorch's kernel."""

    def infer(x: Any) -> Aval:
        _check_float(kernel, x)
        return unary_same(x)

    return infer


def _check_float(kernel: str, x: Any) -> None:
    if category(x.dtype) != 2:
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{dtype_title(x.dtype)}'")


def _floating(kernel: str, compute: Any) -> Any:
    """The kernel of such a function."""

    @in_float32
    def run(x: Any, **attrs: Any) -> Any:
        if x.dtype.kind != "f":
            _check_float(kernel, x)
        return compute(x, **attrs)

    return run


# relu and its relatives


def _relu_aval(x: Any) -> Aval:
    if x.dtype.kind == "b":
        raise RuntimeError("Boolean inputs not supported for relu")
    return unary_same(x)


relu = Op(
    "relu",
    infer=_relu_aval,
    promote=same,
    real=_NO_CLAMP,
    numpy=kernels.relu,
    c=C("activation", "relu_f32", elements),
    expr="{x} < 0 ? 0 : {x}",
    save=("out",),
    flat=True,
    vjp=Gradient(
        lambda g, needs, out: (where(out <= 0, 0.0, g),),
        numpy=kernels.relu_backward,
        c=C("activation", "relu_backward_f32", elements),
        expr="{y} <= 0 ? 0 : {g}",
    ),
    onnx="Relu",
)


def _leaky_aval(x: Any, negative_slope: float = 0.01) -> Aval:
    _check_float("leaky_relu_cpu", x)
    return unary_same(x)


leaky_relu = Op(
    "leaky_relu",
    infer=_leaky_aval,
    promote=same,
    real="leaky_relu_cpu",
    numpy=_floating("leaky_relu_cpu", lambda x, negative_slope: np.where(x > 0, x, x * negative_slope)),
    expr="{x} > 0 ? {x} : {x} * {negative_slope}",
    save=("x",),
    flat=True,
    vjp=(lambda g, x, negative_slope: where(x > 0, g, g * negative_slope),),
    onnx="LeakyRelu",
)


def _hardtanh_aval(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Aval:
    return unary_same(x)


_NO_BOOLS = RuntimeError("Bool inputs not supported for hardtanh")


def _hardtanh_kernel(x: Any, min_val: float, max_val: float) -> Any:
    if x.dtype.kind == "u" and min_val < 0:
        raise RuntimeError("cannot do hardtanh on an unsigned type with negative limits")
    return np.clip(x, x.dtype.type(min_val), x.dtype.type(max_val))


hardtanh = Op(
    "hardtanh",
    infer=_hardtanh_aval,
    promote=same,
    real=_NO_CLAMP,
    numeric=_NO_BOOLS,
    numpy=in_float32(_hardtanh_kernel),
    expr=clip_expr("min_val", "max_val"),
    save=("x",),
    flat=True,
    vjp=(lambda g, x, min_val, max_val: where((x > min_val) & (x < max_val), g, 0.0),),
)

relu6 = Op(
    "relu6",
    infer=unary_same,
    promote=same,
    real=_NO_CLAMP,
    numeric=_NO_BOOLS,
    numpy=in_float32(lambda x: np.clip(x, x.dtype.type(0), x.dtype.type(6))),
    expr="{x} < 0 ? 0 : {x} > 6 ? 6 : {x}",
    save=("x",),
    flat=True,
    vjp=(lambda g, x: where((x > 0) & (x < 6), g, 0.0),),
    node_name="HardtanhBackward0",
)


def _threshold_aval(x: Any, threshold: float = 0.0, value: float = 0.0) -> Aval:
    return unary_same(x)


threshold = Op(
    "threshold",
    infer=_threshold_aval,
    promote=same,
    real="threshold_cpu",
    numeric="threshold_cpu",
    numpy=in_float32(lambda x, threshold, value: np.where(x <= threshold, x.dtype.type(value), x)),
    expr="{x} <= {threshold} ? {value} : {x}",
    save=("x",),
    flat=True,
    vjp=(lambda g, x, threshold, value: where(x <= threshold, 0.0, g),),
)


def prelu(input: Any, weight: Any) -> Any:
    """`input` where positive, else `weight * input`; `weight` has one element, or one per channel (dimension 1)."""
    n, shape = weight._array.size, input._array.shape
    if input._array.dtype != weight._array.dtype:
        got, of = dtype_title(input._array.dtype), dtype_title(weight._array.dtype)
        raise RuntimeError(f"prelu: Type promoting not supported. Got {got} and {of}")
    if weight._array.ndim > 1:
        raise RuntimeError(
            f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight._array.ndim}"
        )
    floats_only("prelu_cpu", input)
    if n != 1:
        channels = shape[1] if len(shape) > 1 else 1
        if n != channels:
            raise RuntimeError(
                f"Mismatch of parameter numbers and input channel size. Found parameter numbers = {n} and channel size "
                f"= {channels}."
            )
        weight = reshape(weight, -1, *[1] * (len(shape) - 2))
    else:
        weight = reshape(weight, ())
    above, zero = input > 0, input == 0
    input, weight = flat(input), flat(weight)
    below = where(zero, weight.detach() * input, weight * where(above | zero, 0.0, input))
    return where(above, input, below)  # at 0 the slope is `weight`, but does not change with it, as in PyTorch


# Exponential units


def _elu_aval(x: Any, alpha: float = 1.0) -> Aval:
    _check_float("elu_cpu", x)
    return unary_same(x)


elu = Op(
    "elu",
    infer=_elu_aval,
    promote=same,
    numpy=_floating("elu_cpu", lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(0, x)))),
    expr="{x} > 0 ? {x} : {alpha} * expm1({x})",
    save=("x",),
    vjp=(lambda g, x, alpha: where(x > 0, g, g * alpha * exp(where(x >= 0, 0.0, x))),),
    onnx="Elu",
)

celu = Op(
    "celu",
    infer=_elu_aval,
    promote=same,
    numpy=_floating("elu_cpu", lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(0, x) / alpha))),
    expr="{x} > 0 ? {x} : {alpha} * expm1({x} / {alpha})",
    save=("x",),
    vjp=(lambda g, x, alpha: where(x > 0, g, g * exp(where(x >= 0, 0.0, x) / alpha)),),
    onnx="Celu",
)

selu = Op(
    "selu",
    infer=_float_only("elu_cpu"),
    promote=same,
    numpy=_floating("elu_cpu", lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(0, x)))),
    expr=f"{_SELU_SCALE} * ({{x}} > 0 ? {{x}} : {_SELU_ALPHA} * expm1({{x}}))",
    save=("x",),
    vjp=(lambda g, x: g * _SELU_SCALE * where(x > 0, 1.0, _SELU_ALPHA * exp(where(x >= 0, 0.0, x))),),
    node_name="EluBackward0",
    onnx="Selu",
)

# The logistic function and what is made of it

sigmoid = Op(
    "sigmoid",
    infer=unary_float,
    promote=to_float,
    numpy=kernels.sigmoid,
    c=C("activation", "sigmoid_f32", elements),
    expr="1 / (1 + exp(-{x}))",
    save=("out",),
    vjp=(lambda g, out: g * ((1 - out) * out),),
    onnx="Sigmoid",
)

logsigmoid = Op(
    "logsigmoid",
    infer=_float_only("log_sigmoid_cpu"),
    promote=same,
    numpy=_floating("log_sigmoid_cpu", lambda x: np.minimum(0, x) - np.log1p(np.exp(-np.abs(x)))),
    expr="({x} < 0 ? {x} : 0) - log1p(exp({x} < 0 ? {x} : -{x}))",
    save=("x",),
    vjp=(lambda g, x: g * sigmoid(-x),),
    node_name="LogSigmoidBackward0",
)


def _silu_rule(g: Any, needs: Any, x: Any) -> Any:
    s = sigmoid(x)
    return (g * (s * (1 + x * (1 - s))),)


def _silu_aval(x: Any) -> Aval:
    if x.dtype.kind != "c":
        _check_float("silu_cpu", x)
    return unary_same(x)


silu = Op(
    "silu",
    infer=_silu_aval,
    promote=same,
    numpy=kernels.silu,
    c=C("activation", "silu_f32", elements),
    expr="{x} / (1 + exp(-{x}))",
    save=("x",),
    vjp=Gradient(
        _silu_rule,
        numpy=kernels.silu_backward,
        c=C("activation", "silu_backward_f32", elements),
        expr="{g} * (1 / (1 + exp(-{x})) * (1 + {x} * (1 - 1 / (1 + exp(-{x})))))",
    ),
)


def _softplus_aval(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Aval:
    _check_float("softplus_cpu", x)
    return unary_same(x)


def _softplus_kernel(x: Any, beta: float, threshold: float) -> Any:
    scaled = x * beta
    return np.where(scaled > threshold, x, np.log1p(np.exp(np.minimum(scaled, threshold))) / beta)


softplus = Op(
    "softplus",
    infer=_softplus_aval,
    promote=same,
    numpy=_floating("softplus_cpu", _softplus_kernel),
    expr="{x} * {beta} > {threshold} ? {x} : log1p(exp({x} * {beta})) / {beta}",
    save=("x",),
    vjp=(lambda g, x, beta, threshold: where(x * beta > threshold, g, g * sigmoid(x * beta)),),
)


def _mish_kernel(x: Any) -> Any:
    return x * np.tanh(_softplus_kernel(x, 1.0, 20.0))


def _mish_rule(g: Any, x: Any) -> Any:
    t = tanh(softplus(x))
    return g * (t + x * (1 - t * t) * sigmoid(x))


mish = Op(
    "mish",
    infer=_float_only("mish_cpu"),
    promote=same,
    numpy=_floating("mish_cpu", _mish_kernel),
    expr="{x} * tanh({x} > 20 ? {x} : log1p(exp({x})))",
    save=("x",),
    vjp=(_mish_rule,),
    onnx="Mish",
)

# Straight lines

hardsigmoid = Op(
    "hardsigmoid",
    infer=_float_only("hardsigmoid_cpu"),
    promote=same,
    numpy=_floating("hardsigmoid_cpu", lambda x: np.clip(x + 3, 0, 6) / 6),
    expr="({x} + 3 < 0 ? 0 : {x} + 3 > 6 ? 6 : {x} + 3) / 6",
    save=("x",),
    flat=True,
    vjp=(lambda g, x: where((x > -3) & (x < 3), g / 6, 0.0),),
)

hardswish = Op(
    "hardswish",
    infer=_float_only("hardswish_cpu"),
    promote=same,
    numpy=_floating("hardswish_cpu", lambda x: x * np.clip(x + 3, 0, 6) / 6),
    expr="{x} * ({x} + 3 < 0 ? 0 : {x} + 3 > 6 ? 6 : {x} + 3) / 6",
    save=("x",),
    vjp=(lambda g, x: where(x <= -3, 0.0, where(x >= 3, g, g * (x / 3 + 0.5))),),
    onnx="HardSwish",
)


def _softsign_rule(g: Any, x: Any) -> Any:
    far = 1 + abs(x)
    if x._array.dtype.kind == "c":
        return g / far - sgn(x) * real(conj(x) * g) / (far * far)
    return g / (far * far)


softsign = Op(
    "softsign",
    infer=unary_float,
    promote=to_float,
    numpy=in_float32(lambda x: x / (1 + np.abs(x))),
    expr="{x} / (1 + ({x} < 0 ? -{x} : {x}))",
    save=("x",),
    vjp=(_softsign_rule,),
    wirtinger=True,
    onnx="Softsign",
)

tanhshrink = Op(
    "tanhshrink",
    infer=unary_float,
    promote=to_float,
    numpy=in_float32(lambda x: x - tanh.cpu(x)),
    expr="{x} - tanh({x})",
    save=("x",),
    vjp=(lambda g, x: g * (tanh(x) * tanh(x)),),
)


def _shrink_aval(x: Any, lambd: float = 0.5) -> Aval:
    return unary_same(x)


softshrink = Op(
    "softshrink",
    infer=_shrink_aval,
    promote=floating("softshrink_check"),
    real="softshrink_check",
    numpy=in_float32(
        lambda x, lambd: np.where(x > lambd, x - lambd, np.where(x < -lambd, x + lambd, x * 0)).astype(x.dtype)
    ),
    expr="{x} > {lambd} ? {x} - {lambd} : {x} < -{lambd} ? {x} + {lambd} : {x} * 0",
    save=("x",),
    flat=True,
    vjp=(lambda g, x, lambd: where((x < -lambd) | (x > lambd), g, 0.0),),
)

hardshrink = Op(
    "hardshrink",
    infer=_shrink_aval,
    promote=floating("hardshrink_cpu"),
    real="hardshrink_cpu",
    numpy=in_float32(lambda x, lambd: np.where((x >= -lambd) & (x <= lambd), x.dtype.type(0), x)),
    expr="{x} >= -{lambd} && {x} <= {lambd} ? 0 : {x}",
    save=("x",),
    flat=True,
    vjp=(lambda g, x, lambd: where((x < -lambd) | (x > lambd), g, 0.0),),
)

# The Gaussian

_INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)
_SCALE, _CUBIC = math.sqrt(2 / math.pi), 0.044715


def _erf_rule(g: Any, x: Any) -> Any:
    return g * (exp(-(x * x)) * (2 / math.sqrt(math.pi)))


_ERFC = np.frompyfunc(math.erfc, 1, 1)

erf = Op(
    "erf",
    infer=unary_float,
    promote=to_float,
    real="erf_vml_cpu",
    numpy=kernels.erf,
    c=C("activation", "erf_f32", elements),
    expr="erf({x})",
    save=("x",),
    vjp=(_erf_rule,),
    onnx="Erf",
)
erfc = Op(
    "erfc",
    infer=unary_float,
    promote=to_float,
    real="erfc_vml_cpu",
    numpy=in_float32(lambda x: np.asarray(_ERFC(x), np.float64).astype(x.dtype)),
    expr="erfc({x})",
    save=("x",),
    vjp=(lambda g, x: -_erf_rule(g, x),),
)


def _erf_gelu_rule(g: Any, needs: Any, x: Any) -> Any:
    return (g * (0.5 * (1 + erf(x * math.sqrt(0.5))) + x * exp(x * x * -0.5) * _INV_SQRT_2PI),)


def _tanh_gelu_rule(g: Any, needs: Any, x: Any) -> Any:
    t = tanh((x + x * x * x * _CUBIC) * _SCALE)
    slope = (1 + x * x * (3 * _CUBIC)) * _SCALE
    return (g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope),)


_gelu = Op(
    "gelu",
    infer=_float_only("GeluKernelImpl"),
    promote=same,
    numpy=kernels.gelu,
    c=C("activation", "gelu_erf", elements),
    expr=f"0.5 * {{x}} * (1 + erf({{x}} * {math.sqrt(0.5)}))",
    save=("x",),
    vjp=Gradient(
        _erf_gelu_rule,
        numpy=kernels.gelu_backward,
        c=C("activation", "gelu_erf_backward", elements),
        expr=f"{{g}} * (0.5 * (1 + erf({{x}} * {math.sqrt(0.5)})) + "
        f"{{x}} * exp(-0.5 * {{x}} * {{x}}) * {_INV_SQRT_2PI})",
    ),
    onnx="Gelu",
)

_ARGUMENT = f"tanh({_SCALE} * ({{x}} + {_CUBIC} * {{x}} * {{x}} * {{x}}))"
_TANH_X = _ARGUMENT

_gelu_tanh = Op(
    "gelu_tanh",
    infer=_float_only("GeluKernelImpl"),
    promote=same,
    numpy=kernels.gelu_tanh,
    c=C("activation", "gelu_tanh", elements),
    expr=f"0.5 * {{x}} * (1 + {_TANH_X})",
    save=("x",),
    vjp=Gradient(
        _tanh_gelu_rule,
        numpy=kernels.gelu_tanh_backward,
        c=C("activation", "gelu_tanh_backward", elements),
        expr=f"{{g}} * (0.5 * (1 + {_TANH_X}) + 0.5 * {{x}} * (1 - {_TANH_X} * {_TANH_X}) * {_SCALE} * "
        f"(1 + {3 * _CUBIC} * {{x}} * {{x}}))",
    ),
    node_name="GeluBackward0",
)


def gelu(input: Any, *, approximate: str = "none") -> Any:
    """The Gaussian error linear unit `x * Phi(x)` (Hendrycks and Gimpel, 2016).

    Args:
        approximate: "none", or "tanh" for its approximation by a hyperbolic tangent.
    """
    if approximate == "none":
        return _gelu(input)
    if approximate != "tanh":
        raise RuntimeError("approximate argument must be either none or tanh.")
    return _gelu_tanh(input)


# Compositions


def glu(input: Any, dim: int = -1) -> Any:
    """The first half of `input` along `dim`, times the sigmoid of the second (Dauphin et al., 2017)."""
    real_only("glu_cpu", input)
    floats_only("glu_cpu", input)
    at = axis(dim, input._array.ndim)
    if not input._array.ndim:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    n = input._array.shape[at]
    if n % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {at} is size {n}")
    a, b = input.chunk(2, at)
    return a * sigmoid(b)
