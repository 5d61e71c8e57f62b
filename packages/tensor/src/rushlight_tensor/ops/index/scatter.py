"""Writing single elements along a dimension: scatter, overwriting, adding, or reducing what meets at one position."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, kinds, promote
from rushlight_tensor.core.dispatch import refuse
from rushlight_tensor.core.half_precision import wide
from rushlight_tensor.core.infer import Aval, axis
from rushlight_tensor.core.inplace import composed, inplace
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.scalars import checked
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.kernels.arrays import combine_at
from rushlight_tensor.ops.index.gather import (
    _copied,
    _gather,
    _index_aval,
    _scatter,
    _scatter_add,
    _scatter_aval,
    _scatter_positions,
    _scatter_rule,
    _zeros,
    flatly,
)
from rushlight_tensor.ops.math.cast import widely
from rushlight_tensor.ops.math.complex import real
from rushlight_tensor.ops.shape.shape import expand, reshape
from rushlight_tensor.ops.shape.slicing import _slice


def scatter(input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Any:
    """`input` with `out[index[i][j]][j] = src[i][j]` for `dim` 0, and so on; `src` may be a number.

    Args:
        reduce: "add" or "multiply" instead of overwriting.
    """
    return _scattered(False, input, dim, index, value if src is None else src, reduce)


def scatter_(input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Any:
    """`scatter` in place."""
    return _scattered(True, input, dim, index, value if src is None else src, reduce)


def _scattered(in_place: bool, x: Any, dim: int, index: Any, src: Any, reduce: str | None) -> Any:
    if not isinstance(src, Tensor):
        src = expand(
            wrap(cuda.like(x._array, np.asarray(checked(src, x._array.dtype), dtype=x._array.dtype))),
            index._array.shape,
        )
    if reduce == "multiply":
        args = (x, dim, index, src, "prod")
        return composed(scatter_reduce, *args) if in_place else scatter_reduce(*args)
    if reduce not in (None, "add"):
        raise RuntimeError(f"reduce argument must be either add or multiply, got {reduce}")
    return _write(_scatter if reduce is None else _scatter_add, in_place, x, dim, index, src)


def _write(op: Op, in_place: bool, x: Any, dim: int, index: Any, src: Any, **attrs: Any) -> Any:
    """Run a scatter op, after what PyTorch allows of shapes: a 0-d target, and a source larger than the index."""
    _index_aval(index._array, "scatter")
    target = reshape(x, 1) if x._array.ndim == 0 else x
    axis(dim, target._array.ndim)
    if index._array.ndim == 0:
        index, src = reshape(index, 1), reshape(src, 1)
    have, want = src._array.shape, index._array.shape
    if have != want and len(have) == len(want) and all(n >= m for n, m in zip(have, want, strict=True)):
        src = _slice(src, tuple([(None, m, None) for m in want]))
    if in_place:
        inplace(op, target, index, src, dim=dim, **attrs)
        return x
    out = op(target, index, src, dim=dim, **attrs)
    return out if target is x else reshape(out, ())


def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Any:
    """`input` with `out[index[i][j]][j] += src[i][j]` for `dim` 0, and so on; repeated positions add up."""
    return _write(_scatter_add, False, input, dim, index, src)


def scatter_add_(input: Any, dim: int, index: Any, src: Any) -> Any:
    """`scatter_add` in place."""
    return _write(_scatter_add, True, input, dim, index, src)


# Reductions


def _scatter_reduce_aval(
    x: Any, index: Any, y: Any, dim: int = 0, reduce: str = "prod", include_self: bool = True
) -> Aval:
    return _scatter_aval(x, index, y, dim)


def _identity(dtype: np.dtype[Any], reduce: str) -> Any:
    if reduce == "prod":
        return 1
    lowest = reduce == "amax"
    if promote.category(dtype) == 2:
        return -np.inf if lowest else np.inf
    if dtype.kind == "b":
        return not lowest
    return np.iinfo(dtype).min if lowest else np.iinfo(dtype).max


def _scatter_reduce_into(x: Any, index: Any, y: Any, dim: int, reduce: str, include_self: bool) -> None:
    if reduce != "prod" and x.dtype.kind == "c":
        refuse(f"scatter_gather_tensor_cpu_reduce_{reduce}", x.dtype)
    at = _scatter_positions(x, index, y, dim)
    if not include_self:
        x[at] = _identity(x.dtype, reduce)
    ufunc = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}[reduce]
    if isinstance(x, np.ndarray) and wide(x.dtype) == x.dtype:
        ufunc.at(x, at, y)
    else:
        flatly(functools.partial(combine_at, ufunc), x, at, y)


def _scatter_reduce_x(g: Any, x: Any, index: Any, y: Any, out: Any, dim: int, reduce: str, include_self: bool) -> Any:
    if reduce == "prod":
        ones = (x == 0).to(x._array.dtype) + x  # where x is 0, the product of the others
        gx = g * _scatter_reduce(ones, index, y, dim, reduce, include_self) / ones
    else:
        gx = (x == out).to(g._array.dtype) * _share(g, x, index, y, out, dim)
    return gx if include_self else _scatter_rule(gx, index, dim)


def _scatter_reduce_y(g: Any, x: Any, index: Any, y: Any, out: Any, dim: int, reduce: str, include_self: bool) -> Any:
    if reduce != "prod":
        hit = (y == _gather(out, index, dim)).to(g._array.dtype)
        return hit * _gather(_share(g, x, index, y, out, dim), index, dim)
    zero = (y == 0).to(y._array.dtype)
    zeros_here = _gather(_scatter_add(_zeros(y, x._array.shape), index, zero, dim), index, dim)
    others = _scatter_reduce(x, index, y + zero, dim, reduce, include_self)  # the product without the zeros of y
    alone = (zeros_here == zero).to(y._array.dtype)  # no zero, or this is the only one
    return alone * _gather(g * others, index, dim) / (y + zero)


def _share(g: Any, x: Any, index: Any, y: Any, out: Any, dim: int) -> Any:
    """The gradient of an extreme, divided among all that are equal to it."""
    dtype = g._array.dtype
    hit = (y == _gather(out, index, dim)).to(dtype)
    return g / _scatter_add((x == out).to(dtype), index, hit, dim).clamp(1)


_scatter_reduce = Op(
    "scatter_reduce",
    kind=kinds.rows("dim"),
    infer=_scatter_reduce_aval,
    numpy=_copied(_scatter_reduce_into),
    into=_scatter_reduce_into,
    save=("x", "index", "y", "out"),
    vjp=(_scatter_reduce_x, None, _scatter_reduce_y),
)


def scatter_reduce(input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Any:
    """`input` with the elements of `src` that go to one position reduced to one.

    Args:
        reduce: "sum", "prod", "mean", "amax" or "amin".
        include_self: Whether the old element counts too.
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise RuntimeError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    if reduce not in ("sum", "mean"):
        return _write(_scatter_reduce, False, input, dim, index, src, reduce=reduce, include_self=include_self)
    base = input if include_self else _scattered(False, input, dim, index, 0, None)
    if reduce == "sum":
        return scatter_add(base, dim, index, src)
    return _scatter_mean(base, dim, index, src, include_self)


@widely
def _scatter_mean(base: Any, dim: int, index: Any, src: Any, include_self: bool) -> Any:
    ones = _zeros(base, base._array.shape) + 1
    before = ones if include_self else _scattered(False, ones, dim, index, 0, None)
    count = scatter_add(before, dim, index, _zeros(src, src._array.shape) + 1)
    count = (real(count) if count._array.dtype.kind == "c" else count).clamp(1)
    total = scatter_add(base, dim, index, src)
    return total / count if promote.category(base._array.dtype) >= 2 else total // count


def scatter_reduce_(input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Any:
    """`scatter_reduce` in place."""
    return composed(scatter_reduce, input, dim, index, src, reduce, include_self=include_self)
