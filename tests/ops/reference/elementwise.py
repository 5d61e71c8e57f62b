"""Elementwise functions, one number at a time: mpmath at 40 digits where they are transcendental, else Python's.

Nothing of rushlight is imported here, and none of NumPy's functions that it calls is called.
"""

from __future__ import annotations

import cmath
import math
import operator
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np

mp.mp.dps = 40
INF, NAN = math.inf, math.nan


def each(function: Callable[..., Any], result: Any = None) -> Callable[..., Any]:
    """`function` of Python numbers on arrays that broadcast; attributes are handed through."""

    def on_arrays(*xs: Any, **attrs: Any) -> np.ndarray[Any, Any]:
        arrays = np.broadcast_arrays(*[np.asarray(x) for x in xs])
        out = [function(*[a[i].item() for a in arrays], **attrs) for i in np.ndindex(arrays[0].shape)]
        common = np.result_type(*[a for a in arrays if a.ndim or len(arrays) == 1] or arrays)
        kind = result or (complex if common.kind == "c" else float)
        if out and result is None and all(isinstance(v, (bool, int)) for v in out):
            kind = common if common.kind in "biu" else float
            out = [v % 2 ** (8 * common.itemsize) for v in out] if common.kind == "u" else out
        return np.array(out, dtype=kind).reshape(arrays[0].shape)

    return on_arrays


def precise(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of mpmath: NaN of NaN and outside the domain, a complex number of a complex one."""

    def of_numbers(*xs: Any) -> Any:
        if any(isinstance(x, complex) for x in xs):
            return complex(function(*[mp.mpmathify(x) for x in xs]))
        if any(math.isnan(x) for x in xs):
            return NAN
        try:
            value = function(*[mp.mpf(x) for x in xs])
        except (ValueError, ZeroDivisionError, TypeError):
            return NAN
        if isinstance(value, mp.mpc):
            return float(value.real) if value.imag == 0 else NAN
        return float(value)

    return each(of_numbers)


def at_infinity(function: Callable[..., Any], above: float, below: float) -> Callable[..., Any]:
    """`function` of finite numbers, with its limits at +inf and -inf."""
    inner = precise(function)
    return each(lambda x: above if x == INF else below if x == -INF else inner(x).item())


def known_nan(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of Python numbers that are not NaN, and NaN of those."""
    return each(lambda *xs, **attrs: NAN if any(x != x for x in xs) else function(*xs, **attrs))


def divide(x: Any, y: Any) -> Any:
    if y != 0 or isinstance(x, complex) or isinstance(y, complex):
        return x / y
    return NAN if x == 0 or x != x else math.copysign(INF, x) * math.copysign(1.0, y)


def floor_divide(x: float, y: float) -> Any:
    if isinstance(x, int) and isinstance(y, int):
        return x // y
    if y == 0:
        return divide(x, y)
    if math.isinf(x) or x != x or y != y:
        return NAN
    return (
        float(math.floor(mp.mpf(x) / mp.mpf(y))) if not math.isinf(y) else float(-1 if x and (x < 0) != (y < 0) else 0)
    )


def limited(x: Any, low: Any, high: Any) -> Any:
    for bound, beyond in ((low, np.less), (high, np.greater)):
        if bound is not None:
            x = np.where(beyond(x, bound) | (bound != bound), bound, x)
    return x


def power(x: Any, y: Any) -> Any:
    if isinstance(x, int) and isinstance(y, int):
        return x**y
    if isinstance(x, complex) or isinstance(y, complex):
        return complex(mp.power(mp.mpmathify(x), mp.mpmathify(y)))
    try:
        return math.pow(x, y)
    except OverflowError:
        return INF
    except ValueError:
        return INF if x == 0 else NAN


def rounded(x: float) -> float:
    return float(round(x)) if math.isfinite(x) else x


def whole(function: Callable[[float], int]) -> Callable[..., Any]:
    return each(lambda x: math.copysign(float(function(x)), x) if math.isfinite(x) else x)


def bigger(x: Any, y: Any) -> Any:
    return NAN if x != x or y != y else max(x, y)


def smaller(x: Any, y: Any) -> Any:
    return NAN if x != x or y != y else min(x, y)


def direction(x: complex) -> complex:
    return x / abs(x) if x else 0j


def root(x: Any) -> Any:
    return cmath.sqrt(x) if isinstance(x, complex) else math.sqrt(x) if x >= 0 else NAN


def softplus(x: mp.mpf) -> mp.mpf:
    return mp.log1p(mp.exp(x))


def logistic(x: Any) -> Any:
    return 1 / (1 + mp.exp(-x))


def elu(x: Any, alpha: float = 1.0, scale: float = 1.0) -> Any:
    return x * scale if x > 0 else scale * alpha * math.expm1(x)


def soft(x: float, lambd: float) -> float:
    return x - lambd if x > lambd else x + lambd if x < -lambd else 0.0


def normal(x: Any) -> Any:
    return mp.ncdf(x)


def tanh_gelu(x: Any) -> Any:
    return x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)))


def log_sum(base: Any) -> Callable[[Any, Any], Any]:
    return lambda x, y: mp.log(mp.power(base, x) + mp.power(base, y)) / mp.log(base)


def logit(x: Any, eps: float | None = None) -> Any:
    if eps is not None:
        x = np.clip(x, eps, 1 - eps)
    return each(
        lambda v: NAN if not 0 <= v <= 1 else INF if v == 1 else -INF if v == 0 else float(mp.log(v / (1 - mp.mpf(v))))
    )(x)


def inverse_erf(x: Any) -> Any:
    return mp.erfinv(x) if abs(x) < 1 else mp.inf * x if abs(x) == 1 else mp.nan


SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)

REFERENCES: dict[str, Callable[..., Any]] = {
    "add": each(operator.add),
    "sub": each(operator.sub),
    "mul": each(operator.mul),
    "neg": each(operator.neg),
    "div": each(divide, None),
    "floor_divide": each(floor_divide),
    "div_floor": each(floor_divide),
    "div_trunc": each(lambda x, y: float(np.trunc(divide(x, y)))),
    "clamp_tensor": limited,
    "pow": each(power),
    "remainder": each(
        lambda x, y: x % y if isinstance(x, int) else (math.fmod(x, y) and x - y * floor_divide(x, y)) or 0.0
    ),
    "fmod": each(lambda x, y: int(math.fmod(x, y)) if isinstance(x, int) and isinstance(y, int) else math.fmod(x, y)),
    "maximum": each(bigger),
    "minimum": each(smaller),
    "atan2": each(math.atan2),
    "abs": each(abs),
    "sgn": each(direction),
    "conj": each(lambda z: z.conjugate()),
    "angle": each(
        lambda z: cmath.phase(z) if isinstance(z, complex) else z if z != z else math.pi if z < 0 else 0.0, float
    ),
    "real": each(lambda z: z.real, float),
    "imag": each(lambda z: z.imag, float),
    "complex": each(complex, complex),
    "sign": each(lambda x: type(x)((x > 0) - (x < 0))),
    "floor": whole(math.floor),
    "ceil": whole(math.ceil),
    "trunc": whole(math.trunc),
    "round": whole(round),
    "exp": at_infinity(mp.exp, INF, 0.0),
    "exp2": at_infinity(lambda x: mp.power(2, x), INF, 0.0),
    "expm1": at_infinity(mp.expm1, INF, -1.0),
    "log": at_infinity(lambda x: mp.log(x) if x else -mp.inf, INF, NAN),
    "log2": at_infinity(lambda x: mp.log(x, 2) if x else -mp.inf, INF, NAN),
    "log10": at_infinity(lambda x: mp.log10(x) if x else -mp.inf, INF, NAN),
    "log1p": at_infinity(lambda x: mp.log(1 + x) if x != -1 else -mp.inf, INF, NAN),
    "sqrt": each(root),
    "rsqrt": each(lambda x: divide(1.0, root(x))),
    "reciprocal": each(lambda x: divide(1.0, x)),
    "sin": at_infinity(mp.sin, NAN, NAN),
    "cos": at_infinity(mp.cos, NAN, NAN),
    "tan": at_infinity(mp.tan, NAN, NAN),
    "asin": at_infinity(mp.asin, NAN, NAN),
    "acos": at_infinity(mp.acos, NAN, NAN),
    "atan": at_infinity(mp.atan, math.pi / 2, -math.pi / 2),
    "sinh": at_infinity(mp.sinh, INF, -INF),
    "cosh": at_infinity(mp.cosh, INF, INF),
    "tanh": at_infinity(mp.tanh, 1.0, -1.0),
    "asinh": at_infinity(mp.asinh, INF, -INF),
    "acosh": at_infinity(mp.acosh, INF, NAN),
    "atanh": at_infinity(lambda x: mp.atanh(x) if abs(x) != 1 else mp.inf * mp.re(x), NAN, NAN),
    "eq": each(operator.eq, bool),
    "ne": each(operator.ne, bool),
    "lt": each(operator.lt, bool),
    "le": each(operator.le, bool),
    "gt": each(operator.gt, bool),
    "ge": each(operator.ge, bool),
    "logical_and": each(lambda x, y: bool(x) and bool(y), bool),
    "logical_or": each(lambda x, y: bool(x) or bool(y), bool),
    "logical_xor": each(lambda x, y: bool(x) != bool(y), bool),
    "logical_not": each(operator.not_, bool),
    "isnan": each(lambda x: x != x, bool),
    "isinf": each(lambda x: x in (INF, -INF), bool),
    "isfinite": each(lambda x: x - x == 0, bool),
    "signbit": each(lambda x: math.copysign(1, x) < 0, bool),
    "where": each(lambda c, x, y: x if c else y),
    "masked_fill": each(lambda x, m, y: y if m else x),
    "clamp": known_nan(lambda x, min=-INF, max=INF: min_of(max_of(x, min), max)),
    "relu": known_nan(lambda x: x if x > 0 else type(x)(0)),
    "leaky_relu": known_nan(lambda x, negative_slope=0.01: x if x > 0 else x * negative_slope),
    "hardtanh": known_nan(lambda x, min_val=-1.0, max_val=1.0: min_of(max_of(x, min_val), max_val)),
    "relu6": known_nan(lambda x: type(x)(min_of(max_of(x, 0), 6))),
    "threshold": each(lambda x, threshold, value: value if x <= threshold else x),
    "elu": known_nan(elu),
    "celu": known_nan(lambda x, alpha=1.0: x if x > 0 else alpha * math.expm1(x / alpha)),
    "selu": known_nan(lambda x: elu(x, *SELU)),
    "sigmoid": at_infinity(logistic, 1.0, 0.0),
    "logsigmoid": at_infinity(lambda x: -softplus(-x), 0.0, -INF),
    "silu": at_infinity(lambda x: x * logistic(x), INF, NAN),
    "softplus": known_nan(
        lambda x, beta=1.0, threshold=20.0: (
            x if x * beta > threshold else 0.0 if x == -INF else float(softplus(x * mp.mpf(beta)) / beta)
        )
    ),
    "mish": at_infinity(lambda x: x * mp.tanh(softplus(x)), INF, NAN),
    "hardsigmoid": known_nan(lambda x: min_of(max_of(x / 6 + 0.5, 0.0), 1.0)),
    "hardswish": known_nan(lambda x: x * min_of(max_of(x + 3, 0.0), 6.0) / 6),
    "softsign": each(lambda x: NAN if x in (INF, -INF) else x / (1 + abs(x))),
    "tanhshrink": at_infinity(lambda x: x - mp.tanh(x), INF, -INF),
    "softshrink": known_nan(lambda x, lambd=0.5: soft(x, lambd)),
    "hardshrink": known_nan(lambda x, lambd=0.5: x if abs(x) > lambd else 0.0),
    "erf": at_infinity(mp.erf, 1.0, -1.0),
    "erfc": at_infinity(mp.erfc, 0.0, 2.0),
    "erfinv": precise(inverse_erf),
    "gelu": at_infinity(lambda x: x * normal(x), INF, NAN),
    "gelu_tanh": at_infinity(tanh_gelu, INF, NAN),
    "hypot": each(math.hypot),
    "copysign": each(math.copysign),
    "logaddexp": precise(log_sum(mp.e)),
    "logaddexp2": precise(log_sum(2)),
    "xlogy": known_nan(lambda x, y: 0.0 if x == 0 else NAN if y < 0 else x * float(mp.log(y)) if y else -INF * x),
    "logit": logit,
    "lgamma": at_infinity(lambda x: mp.re(mp.loggamma(x)) if x > 0 or x != mp.floor(x) else mp.inf, INF, INF),
    "digamma": each(lambda x: precise(mp.digamma)(x).item() if x else -math.copysign(INF, x)),
    "trigamma": precise(lambda x: mp.psi(1, x)),
    "polygamma": lambda x, n: precise(lambda v: mp.psi(n, v))(x),
    "mse_loss": None,
    "binary_cross_entropy": each(
        lambda x, y: -(y * max(float(mp.log(x)), -100) + (1 - y) * max(float(mp.log(1 - mp.mpf(x))), -100))
    ),
    **{
        f"bitwise_{n}": each(f)
        for n, f in {
            "and": operator.and_,
            "or": operator.or_,
            "xor": operator.xor,
            "not": lambda x: (not x) if isinstance(x, bool) else ~x,
        }.items()
    },
    "isin": lambda x, y: np.array(
        [v.item() in np.asarray(y).tolist() if np.ndim(y) else v == y for v in np.asarray(x).reshape(-1)], bool
    ).reshape(np.shape(x)),
}
del REFERENCES["mse_loss"]


def min_of(x: Any, y: Any) -> Any:
    return x if x < y else y


def max_of(x: Any, y: Any) -> Any:
    return x if x > y else y
