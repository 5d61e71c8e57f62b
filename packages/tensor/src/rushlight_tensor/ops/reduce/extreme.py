"""Reductions to extremes and truth: max, argmax, median, any, all, and the pairs (values, indices) they return."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds, promote
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import numbers_only, real_only
from rushlight_tensor.core.half_precision import in_float32
from rushlight_tensor.core.infer import Aval, axes, axis, reduced
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.kernels.arrays import accumulate, in_order
from rushlight_tensor.kernels.plan import C
from rushlight_tensor.kernels.reduce import reduction
from rushlight_tensor.ops.index.gather import _put_back
from rushlight_tensor.ops.math.cast import cast
from rushlight_tensor.ops.math.elementwise import maximum, minimum
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.reduce.reduce import _dims, _one_dim_samples, _refuse_empty, amax, amin, sum
from rushlight_tensor.ops.shape.shape import reshape


def _result(name: str, *fields: str) -> Any:
    """A named tuple that prints as those of `torch.return_types`."""

    def show(self: Any) -> str:
        rows = ",\n".join(f"{field}={value!r}" for field, value in zip(fields, self, strict=True))
        return f"torch.return_types.{name}(\n{rows})"

    kind = namedtuple(name, fields)  # type: ignore[misc]
    kind.__repr__ = show  # type: ignore[method-assign]
    kind.__module__ = __name__
    return kind


_MaxPair, _MinPair, _MedianPair = (_result(name, "values", "indices") for name in ("max", "min", "median"))
_CummaxPair, _CumminPair = (_result(name, "values", "indices") for name in ("cummax", "cummin"))
_AminmaxPair = _result("aminmax", "min", "max")


# One value per row


def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest value, as (min, max)."""
    real_only("aminmax_cpu", input)
    over = () if dim is None else dim
    return _AminmaxPair(amin(input, over, keepdim), amax(input, over, keepdim))


# One element per row, with its index


def _picked_aval(name: str) -> Callable[..., tuple[Aval, Aval]]:
    def infer(x: Any, dim: int = -1, keepdim: bool = False) -> tuple[Aval, Aval]:
        axis(dim, len(x.shape))
        shape = reduced(x.shape, dim, keepdim)
        if x.shape:
            _refuse_empty(name, x.shape, dim)
        return Aval(shape, x.dtype), Aval(shape, promote.INT64)

    return infer


def _pick(find: Callable[[Any, int], Any]) -> Callable[..., Any]:
    """A kernel for (values, indices) from one that finds the indices, (..., 1, ...)."""

    def kernel(x: Any, dim: int, keepdim: bool) -> Any:
        if not x.ndim:
            axis(dim, 0)
            return x.copy(), np.zeros_like(x, dtype=np.int64)
        found = find(x, dim)
        values = np.take_along_axis(x, found, dim)
        return (values, found) if keepdim else (values.squeeze(dim), found.squeeze(dim))

    return kernel


def _picked_rule(g: Any, indices: Any, shape: tuple[int, ...], dim: int, keepdim: bool) -> Any:
    """The whole gradient to the element that was picked."""
    if not shape:
        return g[0]
    row = reduced(shape, dim, True)
    at, place = axis(dim, len(shape)), indices if keepdim else reshape(indices, row)
    gradient = g[0] if keepdim else reshape(g[0], row)
    return _put_back(gradient, shape, place, at)


def _picked(name: str, find: Callable[[Any, int], Any], c: C | None = None) -> Op:
    return Op(
        f"{name}_dim",
        kind=kinds.rows("dim"),
        infer=_picked_aval(name),
        numpy=_pick(find),
        c=c,
        real="median_out" if name == "median" else RuntimeError(f"{name}(): does not support complex input"),
        save=("out1", "x.shape"),
        vjp=(_picked_rule,),
        node_name=f"{name.capitalize()}Backward{int(name == 'median')}",
    )


@in_float32
def _find_median(x: Any, dim: int) -> Any:
    """The lower median; the first NaN if there is one."""
    n = x.shape[dim]
    order = np.argsort(x, axis=dim, kind="stable")
    middle = np.take(order, [(n - 1) // 2], axis=dim)
    if x.dtype.kind != "f":
        return middle
    unknown = np.isnan(x)
    return np.where(unknown.any(dim, keepdims=True), np.argmax(unknown, axis=dim, keepdims=True), middle)


_max_dim = _picked("max", in_float32(lambda x, dim: np.argmax(x, axis=dim, keepdims=True)), reduction("pick", least=0))
_min_dim = _picked("min", in_float32(lambda x, dim: np.argmin(x, axis=dim, keepdims=True)), reduction("pick", least=1))
_median_dim = _picked("median", _find_median)


def _of_all_aval(name: str) -> Callable[[Any], Aval]:
    def infer(x: Any) -> Aval:
        if 0 in x.shape:
            raise RuntimeError(
                f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim "
                "with the 'dim' argument."
            )
        return Aval((), x.dtype)

    return infer


def _even_rule(g: Any, x: Any, value: Any) -> Any:
    chosen = (x == value) | ((x != x) & (value != value))
    return where(chosen, g / sum(chosen), 0.0)


def _of_all(name: str, find: Callable[[Any], Any], along: Op, node: int, c: C | None = None) -> Op:
    """Of all elements: the gradient is shared by those that have this value, NaN included.

    Of samples, as in PyTorch, each is a row of `along`, whose gradient goes to the one element that was picked.
    """

    def batch(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
        return along(xs[0].reshape(size, -1), dim=1)[0]

    return Op(
        f"{name}_of_all",
        batch=batch,
        kind=kinds.opaque("its gradient goes to all elements that have the value; that of a row, to one"),
        infer=_of_all_aval(name),
        numpy=find,
        c=c,
        real=f"{name}_all",
        save=("x", "out"),
        vjp=(_even_rule,),
        node_name=f"{name.title()}Backward{node}",
    )


def _median_of_all_kernel(x: Any) -> Any:
    values, _ = _pick(_find_median)(x.reshape(-1), 0, False)
    return values


_max_of_all = _of_all("max", np.max, _max_dim, 1, reduction("extreme", least=0))
_min_of_all = _of_all("min", np.min, _min_dim, 1, reduction("extreme", least=1))
_median_of_all = _of_all("median", _median_of_all_kernel, _median_dim, 0)


def _of_tensor(op: Op, input: Any) -> Any:
    """What is no tensor has no `_array`, which `ops` says in the name of the function instead of that of the op."""
    assert input._array is not None
    return op(input)


def max(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest element; along `dim`: (values, indices); with a tensor for `dim`: the larger of each two."""
    if dim is None and other is None:
        return _of_tensor(_max_of_all, input)
    other = dim if other is None else other
    return maximum(input, other) if isinstance(other, Tensor) else _MaxPair(*_max_dim(input, other, keepdim))


def min(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest element; along `dim`: (values, indices); with a tensor for `dim`: the smaller of each two."""
    if dim is None and other is None:
        return _of_tensor(_min_of_all, input)
    other = dim if other is None else other
    return minimum(input, other) if isinstance(other, Tensor) else _MinPair(*_min_dim(input, other, keepdim))


def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The (lower) median of all elements; along `dim`: (values, indices)."""
    if dim is not None:
        return _MedianPair(*_median_dim(input, dim=dim, keepdim=keepdim))
    real_only("median_cpu", input)
    numbers_only("median_cpu", input)
    return _median_of_all(input) if input._array.size else input.new_full((), float("nan"))


# Indices alone


def _arg_aval(name: str) -> Callable[..., Aval]:
    def infer(x: Any, dim: Any = None, keepdim: bool = False) -> Aval:
        if 0 in x.shape and (dim is None or x.shape[axis(dim, len(x.shape))] == 0):
            which = "to be specified for input.numel() == 0" if dim is None else f"{dim} to have non-zero size"
            raise IndexError(f"{name}(): Expected reduction dim {which}.")
        return Aval(reduced(x.shape, dim, keepdim), promote.INT64)

    return infer


def _arg(name: str, find: Any, c: C) -> Op:
    @in_float32
    def kernel(x: Any, dim: Any, keepdim: bool) -> Any:
        return find(x, axis=dim, keepdims=keepdim) if x.ndim else np.zeros_like(x, dtype=np.int64)

    op = Op(
        name,
        kind=kinds.reduction("dim"),
        batch=_one_dim_samples(lambda: op),
        infer=_arg_aval(name),
        numpy=kernel,
        c=c,
        vjp=None,
        real=RuntimeError(f"{name}(): does not support complex input"),
        numeric=RuntimeError(f"{name}(): does not support bool input"),
    )
    return op


_argmax = _arg("argmax", np.argmax, reduction("place", least=0))
_argmin = _arg("argmin", np.argmin, reduction("place", least=1))


def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the (first) largest element, of all or along `dim`."""
    return _argmax(input, dim=dim, keepdim=keepdim)


def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the (first) smallest element, of all or along `dim`."""
    return _argmin(input, dim=dim, keepdim=keepdim)


# Running extremes


def _running_aval(x: Any, dim: int = 0) -> tuple[Aval, Aval]:
    axis(dim, len(x.shape))
    return Aval(x.shape, x.dtype), Aval(x.shape, promote.INT64)


def _running(name: str, better: Any) -> Op:
    def kernel(x: Any, dim: int) -> Any:
        if not x.ndim:
            axis(dim, 0)
            return x.copy(), np.zeros_like(x, dtype=np.int64)
        values = accumulate(better, x, dim)
        places = np.arange(x.shape[dim], like=x).reshape(-1, *[1] * (x.ndim - dim % x.ndim - 1))
        new = (x == values) | (x != x)
        return in_order(values), in_order(accumulate(np.maximum, np.where(new, places, 0), dim))

    def rule(g: Any, indices: Any, shape: tuple[int, ...], dim: int) -> Any:
        if not shape:
            return g[0]
        at = axis(dim, len(shape))
        rows = (*shape[:at], 1, shape[at], *shape[at + 1 :])
        places = np.arange(shape[at]).reshape(-1, 1, *[1] * (len(shape) - at - 1))
        chosen = indices.reshape(rows) == wrap(like(indices._array, places))
        return sum(where(chosen, g[0].reshape(rows), 0.0), at + 1)

    return Op(
        f"_{name}",
        kind=kinds.rows("dim"),
        infer=_running_aval,
        numpy=kernel,
        real=f"{name}_cpu",
        save=("out1", "x.shape"),
        vjp=(rule,),
        node_name=f"{name.capitalize()}Backward0",
    )


_cummax, _cummin = _running("cummax", np.maximum), _running("cummin", np.minimum)


def cummax(input: Any, dim: int) -> Any:
    """The running maximum along `dim`, as (values, indices)."""
    return _CummaxPair(*_cummax(input, dim=dim))


def cummin(input: Any, dim: int) -> Any:
    """The running minimum along `dim`, as (values, indices)."""
    return _CumminPair(*_cummin(input, dim=dim))


# Truth


def _truth_aval(x: Any, dim: Any = None, keepdim: bool = False) -> Aval:
    return Aval(reduced(x.shape, dim, keepdim), promote.UINT8 if x.dtype == promote.UINT8 else promote.BOOL)


def _truth(name: str, reduce: Any) -> Op:
    def kernel(x: Any, dim: Any, keepdim: bool) -> Any:
        out = reduce(x != 0, axis=None if dim is None else axes(dim, x.ndim), keepdims=keepdim)
        return out.astype(np.uint8) if x.dtype == promote.UINT8 else out

    return Op(name, kind=kinds.reduction("dim"), infer=_truth_aval, numpy=kernel, vjp=None)


_any, _all = _truth("any", np.any), _truth("all", np.all)


def _of_each(input: Any) -> Any:
    """Over no dimension: of each element."""
    out = input != 0
    return cast(out, dtype=input._array.dtype) if input._array.dtype == np.uint8 else out


def any(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether some element over `dim` (None: of all) is not zero."""
    return _of_each(input) if dim in ((), []) else _any(input, dim=_dims(dim), keepdim=keepdim)


def all(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether every element over `dim` (None: of all) is not zero."""
    return _of_each(input) if dim in ((), []) else _all(input, dim=_dims(dim), keepdim=keepdim)


def count_nonzero(input: Any, dim: Any = None) -> Any:
    """The number of elements over `dim` (None: of all) that are not zero, int64."""
    return sum(input != 0, dim)
