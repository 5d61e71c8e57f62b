"""Functions of two numbers with care at their corners: hypot, copysign, logaddexp, xlogy; and logit.

Each is a record, not made of others: `log(exp(x) + exp(y))` overflows, `x * log(y)` is NaN at (0, 0), and what autograd
makes of such a composition is wrong where two branches meet.  The gradients are PyTorch's, at these corners too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds
from rushlight_tensor.core.half_precision import in_float32
from rushlight_tensor.core.infer import Aval, binary_float, binary_promoted, unary_float
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.promote import floating, to_float
from rushlight_tensor.ops.math.cast import _zeros
from rushlight_tensor.ops.math.complex import real
from rushlight_tensor.ops.math.elementwise import exp, exp2, log1p
from rushlight_tensor.ops.math.select import where

hypot = Op(
    "hypot",
    infer=binary_promoted,
    promote=floating("hypot_cpu"),
    real="hypot_cpu",
    numpy=np.hypot,
    expr="hypot({x}, {y})",
    save=("x", "y", "out"),
    vjp=(lambda g, x, y, out: g * (x / out), lambda g, x, y, out: g * (y / out)),
)


def _copysign_rule(g: Any, x: Any, y: Any, out: Any) -> Any:
    zero = x == 0
    return where(zero, 0.0, g * (out / where(zero, 1.0, x)))


copysign = Op(
    "copysign",
    infer=binary_float,
    promote=to_float,
    real="copysign_cpu",
    numpy=np.copysign,
    expr="copysign({x}, {y})",
    save=("x", "y", "out"),
    vjp=(_copysign_rule, lambda g, x, y, out: _zeros(g)),
)


# Logarithms of sums


_logaddexp = Op(
    "logaddexp",
    infer=binary_promoted,
    promote=floating("logaddexp_cpu"),
    real="logaddexp_cpu",
    numpy=np.logaddexp,
    expr="{x} == {y} ? {x} + log(2.0) : ({x} > {y} ? {x} : {y}) + log1p(exp({x} > {y} ? {y} - {x} : {x} - {y}))",
    save=("x", "y"),
    vjp=(lambda g, x, y: g / (1 + exp(y - x)), lambda g, x, y: g / (1 + exp(x - y))),
)

logaddexp2 = Op(
    "logaddexp2",
    infer=binary_promoted,
    promote=floating("logaddexp2_cpu"),
    real="logaddexp2_cpu",
    numpy=np.logaddexp2,
    expr="{x} == {y} ? {x} + 1 : ({x} > {y} ? {x} : {y}) + "
    f"log1p(exp2({{x}} > {{y}} ? {{y}} - {{x}} : {{x}} - {{y}})) * {1 / math.log(2)!r}",
    save=("x", "y"),
    vjp=(lambda g, x, y: g / (1 + exp2(y - x)), lambda g, x, y: g / (1 + exp2(x - y))),
)


def logaddexp(input: Any, other: Any) -> Any:
    """`log(exp(input) + exp(other))` without overflow."""
    if input._array.dtype.kind != "c" and other._array.dtype.kind != "c":
        return _logaddexp(input, other)
    first = real(input) >= real(other)  # the larger real part decides what could overflow
    top, low = where(first, input, other), where(first, other, input)
    return top + log1p(exp(low - top))


# Products with a logarithm


def _xlogy_kernel(x: Any, y: Any) -> Any:
    if not hasattr(y, "dtype"):
        return _xlogy_arrays(x, x.dtype.type(y))
    return _xlogy_arrays(x if hasattr(x, "dtype") else y.dtype.type(x), y)


@in_float32
def _xlogy_arrays(x: Any, y: Any) -> Any:
    out = x * np.log(y)
    return np.where((x == 0) & (y == y), out.dtype.type(0), out)


def _xlogy_x(g: Any, x: Any, y: Any) -> Any:
    zero = (x == 0) & (y <= 0)
    return where(zero, 0.0, xlogy(g, y))


xlogy = Op(
    "xlogy",
    infer=binary_float,
    promote=to_float,
    real="xlogy_cpu",
    numpy=_xlogy_kernel,
    expr="{x} == 0 && {y} == {y} ? 0 : {x} * log({y})",
    save=("x", "y"),
    vjp=(_xlogy_x, lambda g, x, y: g * x / y),
)
"""`x * log(y)`, and 0 where `x` is 0, unless `y` is NaN."""


def _logit_aval(x: Any, eps: float | None = None) -> Aval:
    return unary_float(x)


@in_float32
def _logit_kernel(x: Any, eps: float | None) -> Any:
    z = x if eps is None else np.clip(x, x.dtype.type(eps), x.dtype.type(1 - eps))
    return np.log(z / (1 - z))


def _logit_rule(g: Any, x: Any, eps: float | None) -> Any:
    low, high = (0, 1) if eps is None else (eps, 1 - eps)
    inside = (x >= low) & (x <= high)
    return where(inside, g / (x * (1 - x)), math.nan if eps is None else 0.0)


logit = Op(
    "logit",
    kind=kinds.ELEMENTWISE,
    infer=_logit_aval,
    promote=to_float,
    real="logit_cpu",
    numpy=_logit_kernel,
    save=("x",),
    vjp=(_logit_rule,),
)
"""`log(x / (1 - x))`; with `eps`, of `x` limited to [eps, 1 - eps]."""
