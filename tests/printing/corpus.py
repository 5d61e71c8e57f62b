"""Arrays whose printed form is hard to get right: notations, signs, holes, shapes, lengths."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np

SHAPES = [
    (), (1,), (5,), (20,), (3, 4), (2, 3, 4), (1001,), (40, 40), (2, 1000), (11, 11, 11), (0,), (0, 3), (2, 0),
    (1, 1, 1, 1), (7, 200), (3, 2, 2, 2, 2),
]  # fmt: skip
FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
INTEGERS = [np.int64, np.int32, np.int16, np.int8, np.uint8, np.uint16, np.uint32]
SCALES = [1, 1e-3, 1e-5, 1e5, 1e9, 1e-30, 1e30]
OPTIONS = [
    {}, {"precision": 2}, {"precision": 8, "linewidth": 120}, {"edgeitems": 1, "threshold": 10}, {"sci_mode": True},
    {"sci_mode": False}, {"linewidth": 20}, {"profile": "short"}, {"profile": "full"}, {"edgeitems": 0, "threshold": 5},
]  # fmt: skip


def _cast(array, dtype):
    with np.errstate(all="ignore"):
        return np.asarray(array).astype(dtype)


def _floating(rng, shape, dtype):
    for scale in SCALES:
        plain = _cast(rng.standard_normal(shape) * scale, dtype)
        whole = _cast(np.round(plain.astype(np.float64)), dtype)
        yield from (plain, whole)
        for source in (plain, whole):
            if source.size > 2:
                holes = source.copy().reshape(-1)
                holes[rng.randint(0, holes.size, 2)] = np.nan
                holes[rng.randint(0, holes.size)] = np.inf
                holes[0], holes[1] = -np.inf, -0.0
                yield holes.reshape(shape)
    yield _cast(rng.choice([0.0, -0.0, 1, 2.5, 1e4], size=shape), dtype)
    yield from (np.zeros(shape, dtype), _cast(np.full(shape, np.nan), dtype), _cast(np.full(shape, -np.inf), dtype))


def _complex(rng, shape, dtype):
    for scale in (1, 1e5, 1e-6):
        yield _cast(rng.standard_normal(shape) + 1j * rng.standard_normal(shape) * scale, dtype)
    yield _cast(rng.randint(-5, 5, shape) + 1j * rng.randint(-5, 5, shape), dtype)
    odd = [1, complex(np.nan, -1), complex(-0.0, -0.0), complex(2, -np.inf)]
    yield _cast(rng.choice(odd, size=shape), dtype)


def arrays(limit=2000):
    """All of them, of at most `limit` elements; the same ones each time."""
    rng = np.random.RandomState(0)  # its numbers never change
    for shape, dtype in itertools.product(SHAPES, FLOATS):
        if np.prod(shape) <= limit:
            yield from _floating(rng, shape, dtype)
    for shape, dtype in itertools.product(SHAPES, INTEGERS):
        if np.prod(shape) <= limit:
            info = np.iinfo(dtype)
            yield np.asarray(rng.randint(info.min, info.max, shape, dtype))
            yield _cast(rng.randint(0, 5, shape), dtype)
    for shape in SHAPES:
        if np.prod(shape) <= limit:
            yield _cast(rng.randint(0, 2, shape), bool)
            yield from itertools.chain(_complex(rng, shape, np.complex64), _complex(rng, shape, np.complex128))
