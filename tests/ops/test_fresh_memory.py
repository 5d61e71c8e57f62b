"""No result holds what its memory held before: every op, forward and gradient, gives the same bits in used memory."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest

from rushlight_tensor.kernels import accelerator, plan
from tests.ops.test_threads import CASES, outcome

M_PERTURB = -6  # malloc.h: what is allocated is filled with the complement of this byte
FILL = 0xFE  # -1.7e38 in float32, and no index


@pytest.fixture
def filled(monkeypatch):
    """A function: from now on fresh arrays, and what C allocates to work in, hold one byte all over."""
    plain, alike = np.empty, np.empty_like
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None

    def fill(x):
        if x.dtype != object:
            x.reshape(-1, order="A").view(np.uint8)[:] = FILL
        return x

    def empty(*args, **given):
        return fill(plain(*args, **given))

    def begin():
        monkeypatch.setattr(np, "empty", empty)
        monkeypatch.setattr(np, "empty_like", lambda *args, **given: fill(alike(*args, **given)))
        monkeypatch.setattr(plan, "_empty", empty)
        if mallopt is not None:
            mallopt(M_PERTURB, 0xFF ^ FILL)

    with accelerator.held_off():  # which makes arrays of its own
        yield begin
    if mallopt is not None:
        mallopt(M_PERTURB, 0)


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_bits_do_not_depend_on_what_fresh_memory_held(name, sample, filled):
    dtypes = [d for d in ("float32", "float64") if d in sample.dtypes] or sample.dtypes[:1]
    want = [outcome(name, sample, dtype) for dtype in dtypes]
    filled()
    for dtype, bits in zip(dtypes, want, strict=True):
        assert outcome(name, sample, dtype) == bits, f"{dtype}: other bits in used memory"
