"""Reductions, norms, sums along a dimension, order, indexing and products: loops over elements, and SciPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special


def over(function: Callable[[list[Any]], Any], every: Any = None) -> Callable[..., Any]:
    """A function of the list of elements that are reduced, over `dim` (None and `every`: all)."""

    def reduce(x: Any, dim: Any = None, keepdim: bool = False, **attrs: Any) -> Any:
        n = x.ndim
        dims = range(n) if dim is None or dim == every else [dim] if isinstance(dim, int) else dim
        gone = sorted({d % n for d in dims}) if n else []
        kept = [d for d in range(n) if d not in gone]
        out = {}
        for at in np.ndindex(*[x.shape[d] for d in kept]):
            where = dict(zip(kept, at, strict=True))
            row = itertools.product(*[[where[d]] if d in where else range(x.shape[d]) for d in range(n)])
            out[at] = function([x[i].item() for i in row], **attrs)
        shape = [1 if d in gone else x.shape[d] for d in range(n)] if keepdim else [x.shape[d] for d in kept]
        return np.array(list(out.values())).reshape(shape)

    return reduce


def total(row: list[Any]) -> Any:
    if any(isinstance(v, complex) for v in row):
        return complex(math.fsum(v.real for v in row), math.fsum(v.imag for v in row))
    return sum(row) if all(isinstance(v, int) for v in row) else math.fsum(row)


def variance(row: list[Any], correction: float = 1) -> float:
    if not row:
        return math.nan
    centre = total(row) / len(row)
    squares = math.fsum(abs(v - centre) ** 2 for v in row)
    return squares / (len(row) - correction) if len(row) > correction else math.inf if squares else math.nan


def p_norm(row: list[Any], p: float = 2.0, distance: bool = False) -> float:
    sizes = [abs(v) for v in row]
    if math.isinf(p):
        return max(sizes) if p > 0 else min(sizes)
    if p == 0:
        return float(sum(v != 0 for v in sizes))
    return math.fsum(v**p for v in sizes) ** (1 / p) if sizes else 0.0


def log_of_sum(row: list[float]) -> float:
    top = max(row, default=-math.inf)
    return top + math.log(math.fsum(math.exp(v - top) for v in row)) if math.isfinite(top) else top


def along(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of vectors, applied along `dim`; 0-d is a vector of one."""

    def apply(x: Any, dim: int = 0, **attrs: Any) -> Any:
        if not x.ndim:
            return np.asarray(function(x.reshape(1), **attrs)).reshape(())
        if not x.size:
            return x
        rows = np.moveaxis(x, dim, -1)
        out = np.array([function(row, **attrs) for row in rows.reshape(-1, rows.shape[-1])])
        return np.moveaxis(out.reshape(*rows.shape[:-1], out.shape[-1]), -1, dim)

    return apply


def running(step: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def accumulate(row: Any, reverse: bool = False) -> list[Any]:
        values = row.tolist()
        out = list(itertools.accumulate(values[::-1] if reverse else values, step))
        return out[::-1] if reverse else out

    return along(accumulate)


def picked(choose: Callable[[list[Any]], int]) -> Callable[..., Any]:
    values = over(lambda row: row[choose(row)])
    places = over(choose)
    return lambda x, dim=-1, keepdim=False: (values(x, dim, keepdim), places(x, dim, keepdim))


def lower_median(row: list[Any]) -> int:
    return sorted(range(len(row)), key=lambda i: (row[i], i))[(len(row) - 1) // 2]


def first_max(row: list[Any]) -> int:
    return row.index(max(row))


def first_min(row: list[Any]) -> int:
    return row.index(min(row))


def running_extreme(wins: Callable[[Any, Any], bool]) -> Callable[..., Any]:
    def places(row: Any) -> list[int]:
        best, out = 0, []
        for i, value in enumerate(row.tolist()):
            best = i if wins(value, row[best]) else best
            out.append(best)
        return out

    find = along(places)

    def both(x: Any, dim: int = 0) -> Any:
        at = find(x, dim).astype(np.int64)
        return (x[()] if not x.ndim else np.take_along_axis(x, at, dim)), at

    return both


def order(row: Any, descending: bool = False) -> list[int]:
    values = row.tolist()
    return sorted(range(len(values)), key=lambda i: (-values[i] if descending else values[i], i))


def product(x: Any, y: Any) -> Any:
    return np.array(_product(x, y))


def _product(x: Any, y: Any) -> Any:
    """Sums of products, written out."""
    if x.ndim == 1 and y.ndim == 1:
        return total([a * b for a, b in zip(x.tolist(), y.tolist(), strict=True)])
    if x.ndim == 1:
        return _squeezed(x[None], y, -2)
    if y.ndim == 1:
        return _squeezed(x, y[:, None], -1)
    shape = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = np.broadcast_to(x, (*shape, *x.shape[-2:])), np.broadcast_to(y, (*shape, *y.shape[-2:]))
    out = np.zeros((*shape, x.shape[-2], y.shape[-1]), np.result_type(x, y))
    for at in np.ndindex(*out.shape):
        *b, i, j = at
        out[at] = total([u * v for u, v in zip(x[(*b, i)].tolist(), y[(*b, slice(None), j)].tolist(), strict=True)])
    return out


def _squeezed(x: Any, y: Any, axis: int) -> Any:
    return np.squeeze(_product(x, y), axis)


def softmax(x: Any, dim: int = -1) -> Any:
    return scipy.special.softmax(x, axis=dim) if x.ndim and x.size else x * 0 + 1


def log_softmax(x: Any, dim: int = -1) -> Any:
    return scipy.special.log_softmax(x, axis=dim) if x.ndim and x.size else x * 0


def positions(index: Any, dim: int) -> Any:
    for at in np.ndindex(*index.shape):
        yield at, (*at[:dim], int(index[at]), *at[dim + 1 :])


def gather(x: Any, index: Any, dim: int = 0) -> Any:
    out = np.zeros(index.shape, x.dtype)
    for at, there in positions(index, dim % max(x.ndim, 1)):
        out[at] = x[there]
    return out


def scattered(combine: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def scatter(x: Any, index: Any, y: Any, dim: int = 0) -> Any:
        out = x.copy()
        for at, there in positions(index, dim % max(x.ndim, 1)):
            out[there] = combine(out[there], np.broadcast_to(y, index.shape)[at])
        return out

    return scatter


def scatter_reduce(x: Any, index: Any, y: Any, dim: int = 0, reduce: str = "prod", include_self: bool = True) -> Any:
    found: dict[Any, list[Any]] = {}
    for at, there in positions(index, dim % max(x.ndim, 1)):
        found.setdefault(there, [x[there]] if include_self else []).append(y[at])
    out = x.copy()
    for there, values in found.items():
        out[there] = {"prod": math.prod, "amax": max, "amin": min}[reduce](values)
    return out


REFERENCES: dict[str, Callable[..., Any]] = {
    "sum": over(total),
    "prod": over(lambda row: math.prod(row, start=1) if row else 1.0),
    "mean": over(lambda row: total(row) / len(row) if row else math.nan),
    "var": over(variance),
    "amax": over(max, ()),
    "amin": over(min, ()),
    "any": over(any),
    "all": over(all),
    "norm2": over(p_norm),
    "norm_p": over(p_norm),
    "logsumexp": over(log_of_sum, ()),
    "argmax": over(first_max),
    "argmin": over(first_min),
    "max_of_all": over(max),
    "min_of_all": over(min),
    "median_of_all": over(lambda row: row[lower_median(row)]),
    "max_dim": picked(first_max),
    "min_dim": picked(first_min),
    "median_dim": picked(lower_median),
    "_cummax": running_extreme(lambda a, b: a >= b),
    "_cummin": running_extreme(lambda a, b: a <= b),
    "cumsum": running(lambda a, b: a + b),
    "cumprod": running(lambda a, b: a * b),
    "logcumsumexp": running(lambda a, b: log_of_sum([a, b])),
    "argsort": lambda x, dim=-1, descending=False: along(order)(x, dim, descending=descending),
    "topk": lambda x, k=1, dim=-1, largest=True: along(lambda row: order(row, largest)[:k])(x, dim),
    "matmul": product,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "linear": lambda x, w, b: product(x, w.T) + (0 if b is None else b),
    "gather": gather,
    "scatter": scattered(lambda old, new: new),
    "scatter_add": scattered(lambda old, new: old + new),
    "scatter_reduce": scatter_reduce,
    "mse_loss": lambda x, y, reduction="mean": {"none": lambda e: e, "sum": np.sum, "mean": np.average}[reduction](
        (x - y) ** 2
    ),
    "total_norm": lambda *xs, norm_type=2.0: p_norm([v for x in xs for v in x.reshape(-1).tolist()], norm_type),
}
