"""Samples of ops between complex numbers and their parts; all others are tried in complex by `test_complex`."""

from __future__ import annotations

from tests.ops.harness import COMPLEX, R, sample

PAIRS = ("float64", "float32")


def one(*dtypes: str) -> list:
    return [sample(R(*shape)).but(dtypes=dtypes) for shape in ((3, 4), (), (0, 2))]


SAMPLES = {
    "conj": one(*COMPLEX),
    "real": one(*COMPLEX),
    "imag": one(*COMPLEX),
    "angle": one(*COMPLEX),
    "sgn": one(*COMPLEX),
    "view_as_real": one(*COMPLEX),
    "view_as_complex": [
        sample(R(3, 2)).but(dtypes=PAIRS),
        sample(R(2)).but(dtypes=PAIRS),
        sample(R(0, 2)).but(dtypes=PAIRS),
    ],
    "complex": [sample(R(3, 4), R(4)).but(dtypes=PAIRS), sample(R(), R()).but(dtypes=PAIRS)],
}
