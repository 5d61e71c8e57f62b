"""One long program of random calls, as data: the golden test and the comparison with PyTorch both run it."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8")


class Draw(NamedTuple):
    """One call: `method` of a Tensor in PyTorch, `sampler` of our Generator, with the same arguments."""

    method: str
    sampler: str
    dtype: str
    size: int
    args: tuple[Any, ...]


_KINDS: list[tuple[str, str, tuple[str, ...], tuple[Any, ...]]] = [
    ("uniform_", "uniform", (*FLOATS, "complex64", "complex128"), ()),
    ("uniform_", "uniform", FLOATS, (-0.3, 1.9)),
    ("uniform_", "uniform", FLOATS, (1.0, 1.01)),
    ("normal_", "normal", (*FLOATS, "complex64", "complex128"), ()),
    ("normal_", "normal", FLOATS, (0.1, 0.3)),
    ("random_", "full_range", (*FLOATS, *INTEGERS, "uint8", "bool"), ()),
    ("random_", "integers", (*FLOATS, *INTEGERS, "uint8"), (0, 100)),
    ("random_", "integers", INTEGERS, (-7, 100)),
    ("random_", "integers", ("int64",), (-5, 2**28 - 6)),
    ("random_", "integers", ("int64", "float64"), (-5, 2**28 - 5)),
    ("random_", "integers", ("int64",), (-(2**62), 2**63 - 1)),
    ("bernoulli_", "bernoulli", (*FLOATS, *INTEGERS, "bool"), (0.3,)),
    ("exponential_", "exponential", FLOATS, (1.5,)),
    ("geometric_", "geometric", ("float32", "int64"), (0.3,)),
    ("cauchy_", "cauchy", FLOATS, (1.0, 2.5)),
    ("log_normal_", "log_normal", FLOATS, (0.5, 0.7)),
]
SIZES = (0, 1, 2, 5, 15, 16, 17, 31, 33, 100, 624, 1000)

# Each size runs through all kinds twice: every call finds the stream at another place, with and without a kept normal.
PROGRAM = [
    Draw(method, sampler, dtype, size, args)
    for size, _, (method, sampler, dtypes, args) in itertools.product(SIZES, range(2), _KINDS)
    for dtype in dtypes
]


def bits(array: np.ndarray[Any, Any]) -> bytes:
    """The bytes of an array, for bit by bit comparison."""
    return np.ascontiguousarray(array).tobytes()
