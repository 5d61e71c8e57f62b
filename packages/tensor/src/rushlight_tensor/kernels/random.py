"""Samplers: arrays are filled with random numbers from a source, by one C kernel each, or by NumPy's text.

The C text (`c/random.c`) and the NumPy text give the same bits: the numbers of a seed do not depend on a compiler.

Note [Sources]
    A source (`random.stream.Stream`) is a state in memory, which every kernel is given to read and write: `words`,
    those of NumPy's MT19937 where NumPy has them, so that both texts go on where the other one was; and `kept`, the
    second one of a pair of normals.  Whoever draws holds its `lock`: results go by the order of calls, never by
    threads.  A draw is therefore a kernel call as any other: a program that holds it (Note [Programs] in `program.py`)
    draws the next numbers each time it runs, and holds the locks of its sources meanwhile.

Note [One rounding]
    PyTorch's kernels are compiled with fused multiply-adds, which round once.  NumPy has none.  For float32 the product
    is exact in float64, and adding there and rounding to float32 differs only where the float64 sum lies on a tie, once
    in about 2**29 operations; for float64 the rounding errors of product and sum are computed exactly (Dekker, Knuth)
    and added back.

Note [The C library's functions]
    NumPy's vectorised float64 `log`, `cos`, … may differ from the C library's in the last bit.  PyTorch's generator
    calls the C library, and so does Python's `math`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.core.promote import FLOAT32
from rushlight_tensor.kernels import plan
from rushlight_tensor.kernels.compile import c_library

Array = np.ndarray[Any, np.dtype[Any]]

_CHUNK = 1 << 13  # elements per step of the NumPy text: a dozen float64 temporaries stay in the second-level cache
_TWO_PI = 2 * math.pi
_FLOAT64 = np.dtype(np.float64)
_LARGE = 2.0**960
_LOW24, _LOW53 = np.uint64(2**24 - 1), np.uint64(2**53 - 1)
_PAIRS = ("normal_few", "log_normal")  # samplers that keep the second of a pair
_f32 = np.float32


def fma32(a: Any, b: Any, c: Any) -> Array:
    """`a * b + c` of float32 numbers, rounded once.  See Note [One rounding]."""
    return np.asarray(np.multiply(a, b, dtype=np.float64) + np.asarray(c, dtype=np.float64)).astype(_f32)


def fma64(a: Array, b: float, c: float) -> Array:
    """`a * b + c` of float64 numbers, rounded once.  See Note [One rounding]."""
    if b == 1.0 or c == 0.0:
        return a * b + c  # one of the two roundings is exact
    if abs(b) > _LARGE:  # its halves below would overflow
        return np.asarray(fma64(a, b * 2.0**-64, c * 2.0**-64) * 2.0**64)
    product = a * b
    splitter = 134217729.0  # 2**27 + 1
    a_high = splitter * a - (splitter * a - a)
    b_high = splitter * b - (splitter * b - b)
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    total = product + c
    taken = total - product
    return np.asarray(total + (((product - (total - taken)) + (c - taken)) + error))


def libm(function: Callable[[float], float], x: Array) -> Array:
    """A function of `math` on every element of a float64 array.  See Note [The C library's functions]."""
    return np.fromiter(map(function, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)


# What is drawn.  Of `source` see Note [Sources]; its lock is held by the caller.


def sample(sampler: str, source: Any, x: Array, *numbers: float) -> None:
    """Fill a one-dimensional contiguous float32 or float64 array; `numbers` are those of the kernel `sampler`."""
    name = sampler if x.dtype == FLOAT32 else f"{sampler}_f64"
    given = [source.words, *([source.kept] if sampler in _PAIRS else []), x, x.size, *numbers]
    if _by_kernel(name, source, given) < 0:
        _TEXTS[sampler](source, x, *numbers)


def unit(source: Any, n: int, dtype: np.dtype[Any] = _FLOAT64) -> Array:
    """n numbers in [0, 1), float32 or float64."""
    x = np.empty(n, dtype)
    sample("uniform", source, x, 0.0, 1.0)
    return x


def bernoulli_each(source: Any, x: Array, p: Array) -> bool:
    """Fill with ones where a number in [0, 1) is below `p`, of the same dtype and size, else zeros.

    Returns whether all of `p` are probabilities; nothing is drawn where they are not.
    """
    name = "bernoulli_each" if p.dtype == FLOAT32 else "bernoulli_each_f64"
    said = _by_kernel(name, source, [source.words, p, x, x.size])
    if said < 0:
        if not ((p >= 0) & (p <= 1)).all():
            return False
        x[...] = unit(source, x.size, p.dtype) < p
    return said <= 0


def integers(source: Any, x: Array, span: int, low: int, wide: bool) -> None:
    """Fill an int64 array with draws, or `wide` ones of 64 bits, modulo `span` (at most 2**64), plus `low`."""
    if _by_kernel("integers", source, [source.words, x, x.size, wide, _as_int64(span), _as_int64(low)]) >= 0:
        return
    for start in range(0, x.size, _CHUNK):
        part = x[start : start + _CHUNK].view(np.uint64)
        draws = _draws(source, part.size, wide)
        part[...] = draws if span == 2**64 else draws % np.uint64(span)
        part += np.uint64(low % 2**64)


def permutation(source: Any, items: Array, wide: bool) -> None:
    """Fill an int64 array with 0 … n-1 in random order: Fisher-Yates from the front; with `wide` draws inside out."""
    n = items.size
    if _by_kernel("permutation", source, [source.words, items, n, wide]) >= 0:
        return
    order = list(range(n))
    for i, draw in enumerate(_draws(source, n if wide else max(n - 1, 0), wide).tolist()):
        j = draw % (i + 1) if wide else i + draw % (n - i)
        order[i], order[j] = (order[j], i) if wide else (order[j], order[i])
    items[...] = order


def refuse_recording(why: str) -> None:
    """Tell a recording that draws go through memory of no kernel's, and would be missing in its program."""
    if (recorder := plan.RECORDER) is not None:
        recorder.refuse(why)


def _by_kernel(name: str, source: Any, given: list[Any]) -> int:
    """What the kernel returned, 0 for nothing; -1: there is none, and NumPy's text is to do it."""
    library = None if source.words is None else c_library("random")
    if library is None:
        refuse_recording(f"random numbers ({name}) are drawn by NumPy's text")
        return -1
    said = getattr(library, name)(*given)
    if (recorder := plan.RECORDER) is not None and not said:
        recorder.drawn(library, name, given, source)
    return said or 0


def _as_int64(value: int) -> int:
    """The same bits as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


# NumPy's texts, named as the kernels.


def _draws(source: Any, n: int, wide: bool = False) -> Array:
    """n draws of 32 bits, or of 64, as uint64."""
    if not wide:
        return np.asarray(source.draws(n))
    pairs = source.draws(2 * n)
    high = pairs[0::2] << np.uint64(32)
    high |= pairs[1::2]
    return np.asarray(high)


def _unit(source: Any, x: Array) -> None:
    for start in range(0, x.size, _CHUNK):
        part = x[start : start + _CHUNK]
        if x.dtype == FLOAT32:
            np.multiply((_draws(source, part.size) & _LOW24).astype(FLOAT32), _f32(2.0**-24), part)
        else:
            np.multiply(_draws(source, part.size, True) & _LOW53, 2.0**-53, out=part)


def _uniform(source: Any, x: Array, low: float, high: float) -> None:
    _unit(source, x)
    if low == 0.0 and high == 1.0:
        return
    if x.dtype == FLOAT32:
        x[...] = fma32(x, _f32(high) - _f32(low), _f32(low))
    else:
        x[...] = fma64(x, high - low, low)
    x[x >= x.dtype.type(high)] = low  # rounded up to the excluded end


def _normal(source: Any, x: Array, rest: int, mean: float, std: float) -> None:
    whole = x.size // 16 * 16
    _unit(source, x[:whole])
    _normal_blocks(x[:whole], mean, std)
    if x.size > whole:
        _unit(source, np.empty(rest, x.dtype))
        last = np.empty(16, x.dtype)
        _unit(source, last)
        _normal_blocks(last, mean, std)
        x[-16:] = last


def _normal_blocks(x: Array, mean: float, std: float) -> None:
    """Turn uniform numbers into normal ones, in blocks of 16: 8 for the radii, then 8 for the angles."""
    for start in range(0, x.size, _CHUNK):
        part = x[start : start + _CHUNK].reshape(-1, 2, 8)
        if x.dtype == _f32:
            radius = np.sqrt(_f32(-2) * _log32(_f32(1) - part[:, 0]))
            sine, cosine = _sincos32(_f32(_TWO_PI) * part[:, 1])
            part[:, 0] = fma32(radius * cosine, _f32(std), _f32(mean))
            part[:, 1] = fma32(radius * sine, _f32(std), _f32(mean))
        else:
            radius, angle = np.sqrt(-2.0 * libm(math.log, 1.0 - part[:, 0])), _TWO_PI * part[:, 1]
            part[:, 0] = fma64(radius * libm(math.cos, angle), std, mean)
            part[:, 1] = fma64(radius * libm(math.sin, angle), std, mean)


def _pairs(source: Any, n: int) -> Array:
    """n standard normals in float64; the second of the last pair is kept for the next call."""
    value, is_kept = source.kept.tolist()
    values = [value] if is_kept and n else []
    unit = np.empty((n - len(values) + 1) // 2 * 2)
    _unit(source, unit)
    uniform = unit.tolist()
    for i in range(0, len(uniform), 2):
        radius, angle = math.sqrt(-2.0 * math.log1p(-uniform[i + 1])), _TWO_PI * uniform[i]
        values += [radius * math.cos(angle), radius * math.sin(angle)]
    if n:
        source.kept[:] = (values[-1] if uniform else value, len(values) > n)
    return np.array(values[:n], _FLOAT64)


def _normal_few(source: Any, x: Array, mean: float, std: float) -> None:
    x[...] = fma64(_pairs(source, x.size), std, mean)


def _log_normal(source: Any, x: Array, mean: float, std: float) -> None:
    x[...] = libm(_exp, fma64(_pairs(source, x.size), std, mean))


def _bernoulli(source: Any, x: Array, p: float) -> None:
    x[...] = _unit64(source, x.size) < p


def _exponential(source: Any, x: Array, rate: float) -> None:
    x[...] = -1.0 / rate * libm(math.log1p, -_unit64(source, x.size))


def _geometric(source: Any, x: Array, p: float) -> None:
    x[...] = np.ceil(libm(math.log, np.maximum(_unit64(source, x.size), 2.0**-1074)) / math.log(1 - p))


def _cauchy(source: Any, x: Array, median: float, sigma: float) -> None:
    x[...] = fma64(libm(math.tan, math.pi * (_unit64(source, x.size) - 0.5)), sigma, median)


def _unit64(source: Any, n: int) -> Array:
    x = np.empty(n, _FLOAT64)
    _unit(source, x)
    return x


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


_TEXTS: dict[str, Callable[..., None]] = {
    "uniform": _uniform, "normal": _normal, "normal_few": _normal_few, "log_normal": _log_normal,
    "bernoulli": _bernoulli, "exponential": _exponential, "geometric": _geometric, "cauchy": _cauchy,
}  # fmt: skip


# The float32 functions of Note [PyTorch's float32 normals] in c/random.c.

_LOG = (
    -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip


def _log32(x: Array) -> Array:
    bits = x.view(np.int32)
    e = ((bits >> 23) - 126).astype(_f32)
    m = ((bits & 0x007FFFFF) | 0x3F000000).view(_f32)  # in [0.5, 1)
    small = m < _f32(0.707106781186547524)
    e -= small
    m = (m - _f32(1)) + np.where(small, m, _f32(0))
    z = m * m
    y = np.full_like(m, _f32(7.0376836292e-2))
    for coefficient in _LOG:
        y = fma32(y, m, _f32(coefficient))
    y = fma32(y * m, z, e * _f32(-2.12194440e-4))
    y = fma32(z, _f32(-0.5), y)
    return fma32(e, _f32(0.693359375), m + y)


def _sincos32(x: Array) -> tuple[Array, Array]:
    """Sine and cosine of float32 angles in [0, 2 pi]."""
    j = ((x * _f32(1.27323954473516)).astype(np.int32) + 1) & ~1
    k = j.astype(_f32)
    for part in (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8):
        x = fma32(k, _f32(part), x)
    z = x * x
    c = fma32(z, _f32(2.443315711809948e-005), _f32(-1.388731625493765e-003))
    c = fma32(c, z, _f32(4.166664568298827e-002))
    c = fma32(c * z, z, -(z * _f32(0.5))) + _f32(1)
    s = fma32(z, _f32(-1.9515295891e-4), _f32(8.3321608736e-3))
    s = fma32(s, z, _f32(-1.6666654611e-1))
    s = fma32(s * z, x, x)
    swapped = (j & 2) != 0
    first, second = np.where(swapped, c, s), np.where(swapped, s, c)
    return np.where((j & 4) != 0, -first, first), np.where(((j - 2) & 4) != 0, second, -second)
