"""Special functions: the inverse error function, and the logarithm of the gamma function with its derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds
from rushlight_tensor.core.half_precision import in_float32
from rushlight_tensor.core.infer import unary_float
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.promote import to_float
from rushlight_tensor.ops.math.elementwise import exp

_ERF, _LGAMMA = np.frompyfunc(math.erf, 1, 1), np.frompyfunc(lambda x: _log_gamma(x), 1, 1)
_STEPS = 16  # from x + 16 on, the asymptotic series below have float64's precision


def _log_gamma(x: float) -> float:
    if math.isinf(x) or (x <= 0 and x == math.floor(x)):
        return math.inf
    return math.lgamma(x)


@in_float32
def _lgamma_kernel(x: Any) -> Any:
    return np.asarray(_LGAMMA(x), np.float64).astype(x.dtype)


@in_float32
def _erfinv_kernel(x: Any) -> Any:
    """Winitzki's approximation, then Newton's steps in double precision."""
    y = x.astype(np.float64)
    inside = np.clip(y, -1 + 2**-53, 1 - 2**-53)
    log = np.log1p(-inside * inside)
    part = 2 / (math.pi * 0.147) + log / 2
    z = np.sign(inside) * np.sqrt(np.sqrt(part * part - log / 0.147) - part)
    for _ in range(4):
        error = np.asarray(_ERF(z), np.float64) - inside
        z = z - error / (2 / math.sqrt(math.pi) * np.exp(-z * z) + z * error)
    z = np.where(np.abs(y) == 1, np.copysign(math.inf, y), z)
    return np.where(np.abs(y) > 1, math.nan, z).astype(x.dtype)


@in_float32
def _digamma_kernel(x: Any) -> Any:
    y = x.astype(np.float64)
    reflected = y <= 0
    z = np.where(reflected, 1 - y, y)
    total = np.zeros_like(z)
    for _ in range(_STEPS):
        total -= 1 / z
        z = z + 1
    w = 1 / (z * z)
    series = w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w * (1 / 132)))))
    total += np.log(z) - 0.5 / z - series
    pole = reflected & (y == np.floor(y))
    total = np.where(reflected, total - math.pi / np.tan(math.pi * np.where(pole, 0.5, y)), total)
    total = np.where(pole, np.where(y == 0, np.copysign(math.inf, -y), math.nan), total)
    return total.astype(x.dtype)


@in_float32
def _trigamma_kernel(x: Any) -> Any:
    y = x.astype(np.float64)
    reflected = y <= 0
    z = np.where(reflected, 1 - y, y)
    total = np.zeros_like(z)
    for _ in range(_STEPS):
        total += 1 / (z * z)
        z = z + 1
    w = 1 / (z * z)
    total += 1 / z + w / 2 + w / z * (1 / 6 - w * (1 / 30 - w * (1 / 42 - w * (1 / 30 - w * (5 / 66)))))
    sine = np.sin(math.pi * y)
    return np.where(reflected, (math.pi / sine) ** 2 - total, total).astype(x.dtype)


def _polygamma_aval(x: Any, n: int = 2) -> Any:
    return unary_float(x)


_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)


@in_float32
def _polygamma_kernel(x: Any, n: int) -> Any:
    """`n! (-1) ** (n + 1)` times Hurwitz's zeta of n + 1: a sum up to 16, then the series of Euler and Maclaurin.

    Left of zero by reflection, as digamma and trigamma.  Source: DLMF 5.15.6, 25.11.
    """
    given, s = x.astype(np.float64), n + 1
    reflected = given <= 0
    y = np.where(reflected, 1 - given, given)
    total = np.zeros_like(y)
    for _ in range(_STEPS):
        total += np.where(y < _STEPS, y**-s, 0.0)
        y = np.where(y < _STEPS, y + 1, y)
    total += y ** (1 - s) / n + 0.5 * y**-s
    term = s * y ** (-s - 1)
    for k, b in enumerate(_BERNOULLI, 1):
        total += b / math.factorial(2 * k) * term
        term = term * (s + 2 * k - 1) * (s + 2 * k) / (y * y)
    sign = (-1) ** s
    total = sign * math.factorial(n) * total
    mirrored = (-1) ** n * total - math.pi ** (n + 1) * _cotangent(given, n)
    pole = reflected & (given == np.floor(given))
    return np.where(pole, sign * math.inf, np.where(reflected, mirrored, total)).astype(x.dtype)


def _cotangent(y: Any, n: int) -> Any:
    """The n-th derivative of cot at pi y: a polynomial of cot, by `cot' = -(1 + cot^2)`."""
    coefficients = [0.0, 1.0]  # of cot itself, lowest first
    for _ in range(n):
        slope = [k * c for k, c in enumerate(coefficients)][1:]
        coefficients = [-(a + b) for a, b in zip([*slope, 0.0, 0.0], [0.0, 0.0, *slope], strict=True)]
    cot = 1 / np.tan(math.pi * (y - np.round(y)))
    total = np.zeros_like(cot)
    for c in reversed(coefficients):
        total = total * cot + c
    return total


_polygamma = Op(
    "polygamma",
    kind=kinds.ELEMENTWISE,
    infer=_polygamma_aval,
    promote=to_float,
    real="polygamma",
    numpy=_polygamma_kernel,
    save=("x",),
    vjp=(lambda g, x, n: g * _polygamma(x, n=n + 1),),
)
_trigamma = Op(
    "trigamma",
    kind=kinds.ELEMENTWISE,
    infer=unary_float,
    promote=to_float,
    real="polygamma",
    numpy=_trigamma_kernel,
    save=("x",),
    vjp=(lambda g, x: g * _polygamma(x, n=2),),
)
digamma = Op(
    "digamma",
    kind=kinds.ELEMENTWISE,
    infer=unary_float,
    promote=to_float,
    real="digamma",
    numpy=_digamma_kernel,
    save=("x",),
    vjp=(lambda g, x: g * _trigamma(x),),
)
lgamma = Op(
    "lgamma",
    infer=unary_float,
    promote=to_float,
    real="lgamma_vml_cpu",
    numpy=_lgamma_kernel,
    expr="lgamma({x})",
    save=("x",),
    vjp=(lambda g, x: g * digamma(x),),
)
erfinv = Op(
    "erfinv",
    kind=kinds.ELEMENTWISE,
    infer=unary_float,
    promote=to_float,
    real="erfinv_vml_cpu",
    numpy=_erfinv_kernel,
    cuda="erfinv({x})",
    save=("out",),
    vjp=(lambda g, out: g * (math.sqrt(math.pi) / 2) * exp(out * out),),
)


def polygamma(n: int, input: Any) -> Any:
    """The n-th derivative of `digamma`."""
    if n < 0:
        raise RuntimeError("polygamma(n, x) does not support negative n.")
    return digamma(input) if n == 0 else _trigamma(input) if n == 1 else _polygamma(input, n=n)
