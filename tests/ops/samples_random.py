"""Samples of the random records: only shapes, dtypes and memory can be held against `infer`."""

from __future__ import annotations

import numpy as np

from tests.ops.harness import FLOATS, INTS, R, Sample, sample


def _random(*inputs: object, **attrs: object) -> Sample:
    return sample(*inputs, **attrs).but(exact=False, grad=False)


_F32, _I64 = np.dtype(np.float32), np.dtype(np.int64)

SAMPLES: dict[str, list[Sample]] = {
    "random_draw": [
        _random(shape=(3, 4), dtype=_F32),
        _random(shape=(), dtype=_F32, sampler="normal", args=(0.0, 2.0)),
        _random(shape=(0, 3), dtype=_F32, sampler="bernoulli", args=(0.5,)),
        _random(shape=(7,), dtype=_I64, sampler="permutation"),
    ],
    "random_like": [
        _random(R(3, 4)),
        _random(R(20), sampler="normal"),
        _random(R(3, 4), sampler="integers", args=(0, 5)).but(dtypes=(*FLOATS, *INTS)),
        _random(R(3), dtype=_I64, sampler="integers", args=(0, 5)),
    ],
    "bernoulli_like": [_random(R(3, 4), R(3, 4, low=0.0, high=1.0)), _random(R(3, 4), R(4, low=0.0, high=1.0))],
    "multinomial": [_random(R(5, low=0.1), num_samples=2), _random(R(3, 5, low=0.1), num_samples=7, replacement=True)],
}
