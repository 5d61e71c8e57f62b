"""Running a function inside fused kernels, and numbers at which an expression may differ from its op."""

import re

import numpy as np

from rushlight_jit import fuse
from rushlight_jit.compiled import Compiled

TINY, LARGE = np.finfo(np.float32).tiny, np.finfo(np.float32).max


class Runs:
    """Counts what fused kernels run: `ops` holds the names of the operations in kernels that were really called."""

    def __init__(self, monkeypatch):
        self.ops, self.count = set(), 0
        build = fuse.Kernel.build

        def counting(kernel):
            if not build(kernel):
                return False
            function = kernel.function

            def run(*args):
                self.count += 1
                self.ops.update(i.op.name for i in kernel.instrs)
                return function(*args)

            kernel.function = run
            return True

        monkeypatch.setattr(fuse.Kernel, "build", counting)


def replayed(function, *xs):
    """What the second call of a compiled function gives, which is a replay, and the compiled function."""
    fast = Compiled(function, fullgraph=True)
    fast(*xs)
    out = fast(*xs)
    assert fast.traces == 1
    return out, fast


def specials(op=None, attrs=None):
    """Zeros, infinities, nan, denormals, both sides of the numbers in the op's expression and attributes, and more."""
    at = {
        0.5,
        1.0,
        2.0,
        3.0,
        20.0,
        88.72,
        103.97,
        1e4,
        16777217.0,
        3e9,
        1e20,
        TINY,
        1e-40,
        1e-45,
        LARGE,
        1e-7,
        np.pi,
        7.25,
    }
    if op is not None:
        at |= {float(n) for n in re.findall(r"(?<![\w.])\d+\.?\d*(?:e-?\d+)?", op.expr)}
    at |= {abs(float(v)) for v in (attrs or {}).values() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    numbers = np.array(sorted(v for v in at if v < np.inf), np.float32)
    with np.errstate(all="ignore"):
        sides = [numbers, np.nextafter(numbers, np.float32(np.inf)), np.nextafter(numbers, np.float32(0))]
    between = np.arange(0.13, 8, 0.37, np.float32)  # a moved kink shows where neither side of it is
    sides = np.concatenate([*sides, between])
    return np.concatenate([sides, -sides, np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)])


def distance(got, want, scale=None):
    """Where two arrays differ, and by how many units in the last place; infinity where one is nan, infinite, or -0.0.

    Args:
        scale: In units of this size, where the result is smaller.
    """
    assert got.dtype == want.dtype, (got.dtype, want.dtype)
    if got.dtype == np.bool_:
        return np.where(got == want, 0.0, np.inf)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    same &= (np.signbit(got) == np.signbit(want)) | np.isnan(want) | (want != 0)
    with np.errstate(all="ignore"):
        step = np.spacing(np.maximum(np.abs(want), TINY if scale is None else scale)).astype(np.float64)
        gap = np.abs(got.astype(np.float64) - want.astype(np.float64)) / step
    comparable = np.isfinite(got) & np.isfinite(want) & ~((want == 0) & (got == 0) & (scale is None))
    return np.where(same, 0.0, np.where(comparable, gap, np.inf))
