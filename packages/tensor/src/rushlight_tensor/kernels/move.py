"""Sizes of the kernels of `c/move.c`, which move elements of 4 or 8 bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rushlight_tensor.core.infer import axis
from rushlight_tensor.kernels.plan import C, as_they_lie

Sizes = dict[str, int]


def moving(name: str, sizes: Callable[..., Sizes | None], wrong: Callable[..., Exception] | None = None) -> C:
    """The kernel `name` for dtypes of 4 bytes and, as `name_8`, of 8; what it cannot take as it lies is NumPy's."""
    wide = C("move", f"{name}_8", sizes, wrong, halves=False, pack=as_they_lie)
    return C("move", name, sizes, wrong, halves=False, pack=as_they_lie, other=wide)


def joined(*xs: Any, dim: int) -> Sizes:
    """Of `cat`: empty vectors count for nothing."""
    solid = [x.shape for x in xs if x.shape != (0,)] or [(0,)]
    return _side_by_side(xs, math.prod(solid[0][: axis(dim, len(solid[0]))]))


def stacked(*xs: Any, dim: int) -> Sizes:
    """Of `stack`."""
    return _side_by_side(xs, math.prod(xs[0].shape[: axis(dim, len(xs[0].shape) + 1)]))


def _side_by_side(xs: tuple[Any, ...], outer: int) -> Sizes:
    total = sum(math.prod(x.shape) for x in xs)
    return {"many": len(xs), "outer": max(outer, 1), "width": total // max(outer, 1)}


def picked(x: Any, index: Any, dim: int, **attrs: Any) -> Sizes | None:
    """Of `index_select`; None for what has no dimensions, which the NumPy text refuses."""
    if not x.shape:
        return None
    return {**_around(x.shape, axis(dim, len(x.shape))), "count": math.prod(index.shape)}


def gathered(x: Any, index: Any, dim: int, **attrs: Any) -> Sizes | None:
    """Of `gather` and its gradient; None where `index` is smaller in a way that leaves more than a rectangle."""
    shape, part = attrs.get("x_shape", x.shape), index.shape
    at = axis(dim, len(shape))
    if shape[1:at] != part[1:at] or shape[at + 2 :] != part[at + 2 :]:
        return None
    whole, found = _around(shape, at), _around(part, at)
    return {**found, "n": whole["n"], "count": found["n"], "outers": whole["outer"], "wide": whole["inner"]}


def _around(shape: tuple[int, ...], at: int) -> Sizes:
    return {"outer": math.prod(shape[:at]), "n": shape[at], "inner": math.prod(shape[at + 1 :])}


def chosen(condition: Any, x: Any, y: Any) -> Sizes | None:
    """Of `where`: as many elements as the condition has, or a single one; None for all other broadcasting."""
    shape = condition.shape
    alike = [len(z.shape) <= len(shape) and (z.shape == shape or math.prod(z.shape) == 1) for z in (x, y)]
    if x.dtype != y.dtype or not all(alike):
        return None
    return {"n": math.prod(shape), "each_a": int(x.shape == shape), "each_b": int(y.shape == shape)}
