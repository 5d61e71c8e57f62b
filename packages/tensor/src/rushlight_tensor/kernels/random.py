"""Transforms of uniform draws, on NumPy arrays: normals (Box-Muller), scaling with one rounding, a shuffle.

The C text (`c/random.c`) and the NumPy text give the same bits: the numbers of a seed do not depend on a compiler.

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

from rushlight_tensor.kernels.compile import c_library

Array = np.ndarray[Any, np.dtype[Any]]

_CHUNK = 1 << 13  # elements per step of the NumPy text: a dozen float64 temporaries stay in the second-level cache
_TWO_PI = 2 * math.pi
_f32 = np.float32


def fma32(a: Any, b: Any, c: Any) -> Array:
    """`a * b + c` of float32 numbers, rounded once.  See Note [One rounding]."""
    return np.asarray(np.multiply(a, b, dtype=np.float64) + np.asarray(c, dtype=np.float64)).astype(_f32)


def fma64(a: Array, b: float, c: float) -> Array:
    """`a * b + c` of float64 numbers, rounded once.  See Note [One rounding]."""
    if b == 1.0 or c == 0.0:
        return a * b + c  # one of the two roundings is exact
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


def log1p(x: Array) -> Array:
    """`log1p` of a contiguous float64 array, in place.  See Note [The C library's functions]."""
    library = c_library("random")
    if library is not None:
        library.log1p_all(x, x.size)
    else:
        x[...] = libm(math.log1p, x)
    return x


def normal_blocks(x: Array, mean: float, std: float) -> None:
    """Turn uniform numbers into normal ones, in place, in blocks of 16: 8 for the radii, then 8 for the angles.

    Args:
        x: (16 n,) contiguous float32 or float64, in [0, 1).
    """
    library = c_library("random")
    if library is not None:
        kernel = library.normal_blocks if x.dtype == _f32 else library.normal_blocks64
        kernel(x, x.size // 16, mean, std)
        return
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


def normal_pairs(x: Array) -> None:
    """Turn pairs (angle, radius) of uniform numbers into pairs of standard normals, in place.

    Args:
        x: (2 n,) contiguous float64, in [0, 1).
    """
    library = c_library("random") if x.size > 64 else None
    if library is not None:
        library.normal_pairs(x, x.size // 2)
        return
    values = x.tolist()
    for i in range(0, len(values), 2):
        radius, angle = math.sqrt(-2.0 * math.log1p(-values[i + 1])), _TWO_PI * values[i]
        values[i], values[i + 1] = radius * math.cos(angle), radius * math.sin(angle)
    x[...] = values


def permutation(n: int, draws: Array) -> Array:
    """0 … n-1 shuffled (Fisher-Yates from the front).

    Args:
        draws: (n - 1,) uint64; element i decides by its remainder modulo n - i.
    Returns:
        (n,) int64.
    """
    items = np.arange(n)
    library = c_library("random") if n > 64 else None
    if library is not None:
        library.shuffle(items, draws.view(np.int64), n - 1)
        return items
    order = items.tolist()
    for i, draw in enumerate(draws.tolist()):
        j = i + draw % (n - i)
        order[i], order[j] = order[j], order[i]
    return np.array(order, dtype=np.int64)


def insert_shuffled(items: Array, draws: Array, start: int) -> None:
    """Put start, start + 1, … at random places among the numbers before them (Fisher-Yates inside out), in place.

    Args:
        items: (n,) int64, the first `start` already shuffled.
        draws: uint64, one per number to put.
    """
    library = c_library("random")
    if library is not None:
        library.insert_shuffled(items[: start + draws.size], draws.view(np.int64), start, draws.size)
        return
    for i, draw in enumerate(draws.tolist(), start):
        j = draw % (i + 1)
        items[i] = items[j]
        items[j] = i


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
