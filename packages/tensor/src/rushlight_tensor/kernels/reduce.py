"""Sizes of the kernels of `c/reduce.c`, from the dimensions that a reduction names."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

from rushlight_tensor.core.infer import axes
from rushlight_tensor.kernels.plan import C, as_they_lie

_TILE, _TASKS, _PIECE = 64, 32, 32768  # columns side by side; so many tasks are cut no further; elements of a piece


def levels(shape: tuple[int, ...], over: tuple[int, ...]) -> dict[str, int] | None:
    """`shape` as (before, outer, n, inner), of which `before` and `n` are `over`; None where that cannot be."""
    found, at = [1, 1, 1, 1], 3
    runs = groupby([(d in over, n) for d, n in enumerate(shape) if n != 1], key=lambda one: one[0])
    for goes, sizes in [(goes, math.prod(n for _, n in run)) for goes, run in runs][::-1]:
        at -= goes == at % 2  # `before` and `n` stand at even places
        if at < 0:
            return None
        found[at] = sizes
        at -= 1
    if found[0] > 1 and found[2] < 4:
        return None  # hardly less to keep in between than there is
    return dict(zip(("before", "outer", "n", "inner"), found, strict=True))


def reduction(name: str, **more: int) -> C:
    """The kernel `name` of `c/reduce.c` for float32 and, as `name_f64`, float64.

    What does not lie in C order is left to NumPy, which goes along it in the order in which it lies.

    Args:
        more: Further sizes.
    """

    def sizes(x: Any, *others: Any, dim: Any = None, x_shape: Any = None, **attrs: Any) -> dict[str, int] | None:
        shape = x.shape if x_shape is None else x_shape
        found = levels(shape, axes(dim, len(shape)))
        return None if found is None else {**found, **more, "step": _step(**found)}

    double = C("reduce", f"{name}_f64", sizes, pack=as_they_lie)
    return C("reduce", name, sizes, pack=as_they_lie, other=double)


def _step(before: int, outer: int, n: int, inner: int) -> int:
    """How many rows are a piece of work, where there are too few others."""
    tasks = before * outer * -(-inner // _TILE)
    whole = tasks >= _TASKS or before * outer * n * inner <= _PIECE
    return max(n if whole else _PIECE // min(inner, _TILE), 1)
