"""Reductions that are told a `dtype`: every pair of dtypes, with NaN, of vectors, single numbers and nothing."""

from __future__ import annotations

import itertools
import math

import pytest

pytest.importorskip("torch")  # before what is only half there without it

from tests.parity.test_dtype_rules import DTYPES, F, check

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's, of values that it would rather not see

WITH_NAN = {"f": [1.5, math.nan, 2.6], "c": [1 + 2j, complex(math.nan, 1), -1j]}
WITHOUT = {"b": [True, False, True], "u": [0, 3, 200], "i": [-7, 2, 3], "f": [-1.5, 1.25, 0.5], "c": [1 + 2j, 0j, -1j]}
FLOATS, SOFT = ("float16", "bfloat16", "float32", "float64"), ("softmax", "log_softmax", "softmin")
OPS = {
    **{n: lambda m, x, d, n=n: [getattr(m, n)(x, **k, dtype=d) for k in ({}, {"dim": -1}, {"dim": 0, "keepdim": True})]
       for n in ("sum", "nansum", "mean", "nanmean", "prod")},
    **{n: lambda m, x, d, n=n: getattr(m, n)(x, -1, dtype=d) for n in ("cumsum", "cumprod")},
    **{f"norm {p}": lambda m, x, d, p=p: (m.norm(x, p, dtype=d), m.norm(x, p, 0, True, dtype=d))
       for p in (2, 1, 0, 3.0, math.inf, -math.inf, -1.0, "fro")},
    **{n: lambda m, x, d, n=n: getattr(F(m), n)(x, -1, dtype=d) for n in SOFT},
}  # fmt: skip


def shaped(m, values, dtype, shape):
    values = {"vector": values, "number": values[1], "nothing": []}[shape]
    return m.tensor(values, dtype=getattr(m, dtype))


@pytest.mark.parametrize("name", OPS)
def test_every_pair_of_dtypes(name):
    for have, wanted, shape in itertools.product(DTYPES, (*DTYPES, None), ("vector", "number", "nothing")):
        kind = "f" if have == "bfloat16" else have[0]
        integer = (wanted or have) not in FLOATS
        if name in SOFT and shape == "nothing" and integer:
            continue  # PyTorch refuses these where there are any
        for values in (WITHOUT, WITH_NAN):
            if kind not in values or (values is WITH_NAN and integer and name in ("sum", "prod", "cumsum", "cumprod")):
                continue  # what becomes of NaN in an integer is the processor's
            told = check(
                lambda m, x, d: OPS[name](m, x, d and getattr(m, d)),
                lambda m, h=have, v=values[kind], s=shape: shaped(m, v, h, s),
                lambda m, w=wanted: w,
            )
            assert told is None, (have, wanted, shape)


def test_nansum_in_integers_takes_nan_for_nothing():
    assert check(lambda m: m.tensor([1.5, math.nan, 2.6]).nansum(dtype=m.int32)) is None


def test_norms_of_nothing():
    for p, shape, dim in itertools.product(
        (-math.inf, -2.0, -0.5, 0, 0.5, 1, 2, math.inf), ((0,), (2, 0), (0, 2), (0, 0)), (None, 0, -1, (0, 1))
    ):
        if dim != (0, 1) or len(shape) == 2:
            assert check(lambda m, p=p, s=shape, d=dim: m.norm(m.zeros(s), p, d)) is None, (p, shape, dim)
