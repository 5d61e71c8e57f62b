"""Samples of copies, elementwise arithmetic, comparison and choice."""

from __future__ import annotations

import numpy as np

from rushlight_tensor.core.labels import channels_last, contiguous_format
from tests.ops.harness import EVERY, FLOATS, INTS, R, Sample, sample

NUMBERS = (*FLOATS, *INTS)
BITS = (*INTS, "bool")


def one(
    low: float = -2.0, high: float = 2.0, dtypes: tuple[str, ...] = (*FLOATS, "int64"), ulps: float = 16.0
) -> list[Sample]:
    """Unary: a matrix, a 0-d and an empty tensor."""
    shapes = ((3, 4), (), (0, 2))
    return [sample(R(*shape, low=low, high=high)).but(dtypes=dtypes, ulps=ulps) for shape in shapes]


def two(
    low: float = -2.0, high: float = 2.0, dtypes: tuple[str, ...] = (*FLOATS, "int64"), number: float = 1.5
) -> list[Sample]:
    """Binary: equal shapes, broadcast ones, 0-d, empty, and with a number on either side."""

    def pair(*shapes: tuple[int, ...]) -> Sample:
        return sample(*[R(*shape, low=low, high=high) for shape in shapes]).but(dtypes=dtypes)

    number_right = sample(R(3, low=low, high=high), number).but(dtypes=dtypes)
    number_left = sample(number, R(3, low=low, high=high)).but(dtypes=dtypes)
    return [
        pair((3, 4), (3, 4)),
        pair((3, 1), (2, 1, 4)),
        pair((), (2,)),
        pair((), ()),
        pair((0, 3), (1, 3)),
        number_right,
        number_left,
    ]


def truth(samples: list[Sample]) -> list[Sample]:
    return [s.but(grad=False) for s in samples]


def steps(samples: list[Sample]) -> list[Sample]:
    """Functions with jumps: float64 may fall on another side than what was rounded, but the samples do not."""
    return [s.but(second=False) for s in samples]


WHERE = np.eye(3, 4, dtype=bool)

SAMPLES = {
    "cast": [
        sample(R(3, 4), dtype=np.dtype(np.float64)).but(dtypes=EVERY),
        sample(R(3, 4), dtype=np.dtype(np.float32)).but(
            dtypes=("float64", "float16", "bfloat16", "int64", "bool"), grad=False
        ),
        sample(R(), dtype=np.dtype(np.int64)).but(grad=False),
        sample(R(0), dtype=np.dtype(np.float64)),
    ],
    "clone": [
        sample(R(3, 4)).but(dtypes=EVERY),
        sample(R(2, 3), memory_format=contiguous_format),
        sample(R(2, 3, 2, 2), memory_format=channels_last),
        sample(R()),
        sample(R(0, 2)),
    ],
    "alias": [sample(R(3, 4)).but(dtypes=EVERY), sample(R())],
    "detach": [sample(R(3, 4)).but(dtypes=EVERY), sample(R())],
    "copy": [
        sample(R(3, 4), R(3, 4)).but(dtypes=EVERY),
        sample(R(3, 4), R(4)),
        sample(R(3, 4), np.arange(4)),
        sample(R(0, 4), R(4)),
    ],
    "to_device": [sample(R(3, 4)).but(dtypes=EVERY, shares=True)],
    # arithmetic
    "add": two(dtypes=EVERY),
    "sub": two(dtypes=NUMBERS),
    "mul": two(dtypes=EVERY),
    "div": two(0.5, 2),
    "floor_divide": truth(two(1, 5, NUMBERS, 2)),
    "div_floor": steps(two(1, 5, NUMBERS, 2)),
    "div_trunc": steps(two(0.5, 5, FLOATS, 2)),
    "remainder": steps(two(0.7, 5, NUMBERS, 2)),
    "fmod": steps(two(0.7, 5, NUMBERS, 2)),
    "pow": [
        *two(0.5, 2, (*FLOATS, "int64"), 2),
        sample(R(3, 4), 2),
        sample(R(3, 4), 3.0),
        sample(R(3, 4, low=0.2), 0.5),
        sample(R(3, 4, low=0.2), -1.5),
        sample(R(3, 4), 0),
    ],
    "neg": one(dtypes=NUMBERS),
    "maximum": two(dtypes=EVERY),
    "minimum": two(dtypes=EVERY),
    "atan2": two(0.2, 2),
    "copysign": two(0.2, 2),
    "hypot": two(0.2, 2, FLOATS),
    "logaddexp": two(dtypes=FLOATS),
    "logaddexp2": two(dtypes=FLOATS),
    "xlogy": two(0.2, 2),
    "logit": [*one(0.1, 0.9, FLOATS), sample(R(3, 4, low=-0.2, high=1.2), eps=0.25).but(second=False)],
    "clamp": steps([sample(R(3, 4), min=-1.0, max=0.7), sample(R(2, 3), max=0.3), sample(R(0, 2), min=0.0)]),
    "clamp_tensor": steps(
        [
            sample(R(3, 4), R(3, 4, high=0.0), R(4, low=0.0)).but(dtypes=EVERY),
            sample(R(3, 4), R(3, 4), None),
            sample(R(3, 1), None, R(4)),
            sample(R(3, 4), R(4), R(3, 4)),
            sample(R(0, 2), R(), None),
        ]
    ),
    # sign, rounding
    "abs": one(dtypes=NUMBERS),
    "sign": steps(one(dtypes=NUMBERS)),
    "floor": steps(one()),
    "ceil": steps(one()),
    "trunc": steps(one()),
    "round": steps(one()),
    # exponentials, roots, logarithms
    "exp": one(),
    "exp2": one(),
    "expm1": one(),
    "log": one(0.2),
    "log2": one(0.2),
    "log10": one(0.2),
    "log1p": one(-0.7),
    "sqrt": one(0.2),
    "rsqrt": one(0.2),
    "reciprocal": one(0.4),
    # trigonometry
    "sin": one(),
    "cos": one(),
    "tan": one(-1, 1),
    "asin": one(-0.8, 0.8),
    "acos": one(-0.8, 0.8),
    "atan": one(),
    "sinh": one(),
    "cosh": one(),
    "tanh": one(),
    # comparison, logic
    **{name: truth(two(dtypes=EVERY, number=1)) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{name: two(dtypes=EVERY, number=1) for name in ("logical_and", "logical_or", "logical_xor")},
    "logical_not": one(dtypes=EVERY),
    **{name: one(dtypes=EVERY) for name in ("isnan", "isinf", "isfinite")},
    **{name: two(dtypes=BITS, number=1) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")},
    "bitwise_not": one(dtypes=BITS),
    **{name: two(dtypes=INTS, number=1) for name in ("bitwise_left_shift", "bitwise_right_shift")},
    "where": [
        sample(WHERE, R(3, 4), R(3, 4)).but(dtypes=EVERY),
        sample(WHERE, R(), R(4)),
        sample(WHERE[:, :1], R(4), R(3, 1)),
        sample(np.array(True), R(), R()),
        sample(np.zeros((0, 2), bool), R(2), R(0, 2)),
    ],
    # reduction
    "sum": [
        sample(R(3, 4)).but(dtypes=EVERY),
        sample(R(3, 4), dim=1),
        sample(R(3, 4, 2), dim=(0, -1), keepdim=True),
        sample(R()),
        sample(R(0, 3), dim=0),
        sample(R(2, 0)),
    ],
}
