"""Reductions to one number per row: sum, mean, product, variance, extremes, norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.core import dispatch, dtypes, kinds, promote
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.half_precision import in_float32, wide
from rushlight_tensor.core.infer import Aval, axes, axis, real_dtype, reduced, sizes
from rushlight_tensor.core.keywords import also_as
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.kernels.arrays import in_order
from rushlight_tensor.kernels.reduce import reduction
from rushlight_tensor.ops.math.cast import cast
from rushlight_tensor.ops.math.elementwise import exp, sqrt
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.shape.shape import expand, reshape

_LONG = 1024  # from this many rows on, a sum down the columns goes through partial sums: NumPy adds row by row there


def _dims(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, list) else dim


def _sum_aval(x: Any, dim: Any = None, keepdim: bool = False) -> Aval:
    dtype = promote.INT64 if promote.category(x.dtype) < 2 else x.dtype
    return Aval(reduced(x.shape, dim, keepdim), dtype)


def _add_up(x: Any, over: Any, keepdim: Any = False) -> Any:
    """`x.sum`; NumPy's warnings count as ours then: Note [The straight line] in `straight.py`."""
    add: Any = np.add
    return add.reduce(x, over, keepdims=keepdim) if type(x) is np.ndarray else x.sum(over, keepdims=keepdim)


def _sum_kernel(x: Any, dim: Any, keepdim: bool) -> Any:
    out: Any
    over = dim if type(dim) is int and -x.ndim <= dim < x.ndim else _over(x, dim)
    if x.dtype.kind in "iub":
        out = np.sum(x, axis=over, keepdims=keepdim, dtype=np.int64)
    elif type(over) is int and x.shape[over] >= _LONG and over % x.ndim != x.ndim - 1:
        out = _sum_down(x, over % x.ndim, keepdim)
    else:
        out = _add_up(x, over, keepdim)
    return out if x.ndim <= 2 else in_order(out)


def _over(x: Any, dim: Any) -> Any:
    return None if dim is None else axes(dim, x.ndim)


def _sum_down(x: Any, at: int, keepdim: bool) -> Any:
    """A sum in two levels, whose rounding errors grow as sqrt(n) instead of n."""
    n = x.shape[at]
    rows = math.isqrt(n)
    whole = n // rows * rows
    head, tail = (x[(slice(None),) * at + (part,)] for part in (slice(0, whole), slice(whole, n)))
    blocks = head.reshape(*x.shape[:at], whole // rows, rows, *x.shape[at + 1 :])
    out = _add_up(_add_up(blocks, at + 1), at, keepdim)
    return out + _add_up(tail, at, keepdim) if whole < n else out


def _spread(g: Any, shape: tuple[int, ...], dim: Any, keepdim: bool) -> Any:
    """A gradient of a reduction, repeated over the elements that were reduced."""
    if not keepdim and dim is not None:
        g = reshape(g, reduced(shape, dim, True))
    return expand(g, shape)


def _numbered(name: str) -> Callable[[Any], str]:
    """PyTorch's name of a node of a reduction: 0 over everything, 1 over some dimensions."""
    return lambda n: f"{name}Backward{int(n.attrs['dim'] is not None)}"


_sum = Op(
    "sum",
    kind=kinds.reduction("dim"),
    infer=_sum_aval,
    numpy=_sum_kernel,
    c=reduction("sum", average=0),
    save=("x.shape",),
    vjp=(lambda g, shape, dim, keepdim: _spread(g, shape, dim, keepdim),),
    node_name=_numbered("Sum"),
    onnx="ReduceSum",
)


def _in_dtype(input: Any, dtype: Any) -> Any:
    if dtype is None or input._array.dtype == dtypes.to_numpy(dtype):
        return input
    wanted = dtypes.to_numpy(dtype)
    if input._requires_grad and dispatch.MODE.grad and promote.category(wanted) < 2:
        raise RuntimeError(f"Autograd not support dtype: {dtype_title(wanted)}")
    return cast(input, dtype=wanted)


def sum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The sum over `dim` (an int, several, or None for all); integers add up as int64.

    Args:
        dtype: Convert to this dtype first.
    """
    return _in_dtype(call(_sum, (_in_dtype(input, dtype),), {"dim": _dims(dim), "keepdim": keepdim}), dtype)


@also_as("size")
def sum_to_size(input: Any, *size: Any) -> Any:
    """`input` summed over the dimensions that broadcasting to its shape would add to `size` or stretch from 1."""
    shape = sizes(size)
    if not shape:
        return sum(input)
    have = input._array.shape
    lead = len(have) - len(shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(shape, have[lead:], strict=True)):
        raise RuntimeError(f"size {{{list(shape)}}} is not expandable to size {{{list(have)}}}.")
    over = (*range(lead), *[lead + i for i, n in enumerate(shape) if n == 1 and have[lead + i] != 1])
    if over:
        input = _sum(input, over, False)
    return input if input._array.shape == shape else reshape(input, shape)


def _count(shape: tuple[int, ...], dim: Any) -> int:
    return math.prod(shape[d] for d in axes(dim, len(shape))) if shape else 1


def _mean_aval(x: Any, dim: Any = None, keepdim: bool = False) -> Aval:
    if promote.category(x.dtype) < 2:
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. "
            f"Got: {dtype_title(x.dtype)}"
        )
    return Aval(reduced(x.shape, dim, keepdim), x.dtype)


def _mean_kernel(x: Any, dim: Any, keepdim: bool) -> Any:
    if x.dtype.kind in "iub":
        raise TypeError("mean of integers")
    total = _sum_kernel(x, dim, keepdim)
    return total / total.dtype.type(x.size if dim is None else _count(x.shape, dim))


def _mean_backward(g: Any, x_shape: Any, dim: Any, keepdim: bool, needs: Any) -> Any:
    part = g / g.dtype.type(_count(x_shape, dim))
    if dim is None and type(part) is not np.ndarray and isinstance(part, np.generic):
        return np.full(x_shape, part)
    if not keepdim and dim is not None:
        part = part.reshape(reduced(x_shape, dim, True))
    return np.broadcast_to(part, x_shape)


def _mean_rule(g: Any, needs: Any, shape: Any, dim: Any, keepdim: bool) -> Any:
    return (_spread(g / _count(shape, dim), shape, dim, keepdim),)


_mean = Op(
    "mean",
    kind=kinds.reduction("dim"),
    infer=_mean_aval,
    numpy=_mean_kernel,
    c=reduction("sum", average=1),
    save=("x.shape",),
    vjp=Gradient(_mean_rule, numpy=_mean_backward, c=reduction("spread", average=1)),
    node_name=_numbered("Mean"),
    onnx="ReduceMean",
)


def mean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The mean over `dim` (an int, several, or None for all).  Raises RuntimeError for integers."""
    return call(_mean, (_in_dtype(input, dtype),), {"dim": _dims(dim), "keepdim": keepdim})


# Products


def _prod_aval(x: Any, dim: Any = None, keepdim: bool = False) -> Aval:
    return _sum_aval(x, dim, keepdim)


@in_float32
def _prod_kernel(x: Any, dim: Any, keepdim: bool) -> Any:
    return in_order(np.prod(x, axis=dim, keepdims=keepdim, dtype=np.int64 if x.dtype.kind in "iub" else x.dtype))


@in_float32
def _prod_backward(g: Any, x: Any, dim: Any, keepdim: bool, needs: Any) -> Any:
    if not x.ndim:
        return g.copy()
    if not keepdim:
        g = g.reshape(reduced(x.shape, dim, True))
    if not (x == 0).any():
        return in_order(g * (np.prod(x, axis=dim, keepdims=True) / x))
    rows = x.reshape(-1) if dim is None else np.moveaxis(x, dim, -1)
    others = _others(rows).reshape(x.shape) if dim is None else np.moveaxis(_others(rows), -1, dim)
    return in_order(g * others)


def _others(x: Any) -> Any:
    """For each element of a row the product of the others: that of those before times that of those behind."""
    one = np.ones_like(x[..., :1])
    before = np.concatenate((one, np.cumprod(x[..., :-1], -1)), -1)
    behind = np.concatenate((one, np.cumprod(np.flip(x[..., 1:], -1), -1)), -1)
    return before * np.flip(behind, -1)


def _prod_rule(g: Any, needs: Any, x: Any, dim: Any, keepdim: bool) -> Any:
    """In public ops: each element's gradient is the product of the row with 1 in its place, exact for zeros."""
    shape = x._array.shape
    if not shape:
        return (g,)
    at = 0 if dim is None else axis(dim, len(shape))
    rows = reshape(x, -1) if dim is None else x
    outer, n, inner = shape[:at], rows._array.shape[at], () if dim is None else shape[at + 1 :]
    if dim is None:
        outer = ()
    eye = wrap(like(x._array, np.eye(n, dtype=bool).reshape(n, n, *[1] * len(inner))))
    table = where(eye, 1.0, reshape(rows, *outer, 1, n, *inner))
    others = _prod(table, dim=len(outer) + 1)
    return (_spread(g, shape, dim, keepdim) * reshape(others, shape),)


def _one_dim_samples(op: Callable[[], Op]) -> Callable[..., Any]:
    """The batching rule of a reduction over one dimension or all, which does not take several."""

    def batch(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
        (x,) = xs
        rank = x._array.ndim - 1
        if attrs["dim"] is None or not rank:
            return op()(reshape(x, (size, -1)), dim=1)
        return op()(x, dim=attrs["dim"] % rank + 1, keepdim=attrs["keepdim"])

    return batch


_prod = Op(
    "prod",
    kind=kinds.reduction("dim"),
    batch=_one_dim_samples(lambda: _prod),
    infer=_prod_aval,
    numpy=_prod_kernel,
    save=("x",),
    vjp=Gradient(_prod_rule, kind=kinds.linear("dim"), numpy=_prod_backward),
    node_name=_numbered("Prod"),
    onnx="ReduceProd",
)


def prod(input: Any, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The product over `dim`, or of all elements; integers multiply as int64.  Raises TypeError for several `dim`."""
    if isinstance(dim, (tuple, list)):
        raise TypeError(f"prod(): argument 'dim' (position 2) must be int, not {type(dim).__name__}")
    return _in_dtype(_prod(_in_dtype(input, dtype), dim=dim, keepdim=keepdim), dtype)


# Variance


def _var_aval(x: Any, dim: Any = None, keepdim: bool = False, correction: float = 1) -> Aval:
    if promote.category(x.dtype) < 2:
        raise RuntimeError("std and var only support floating point and complex dtypes")
    return Aval(reduced(x.shape, dim, keepdim), real_dtype(x.dtype))


@in_float32
def _var_kernel(x: Any, dim: Any, keepdim: bool, correction: float) -> Any:
    if x.dtype.kind in "iub":
        raise TypeError("variance of integers")
    away = x - _mean_kernel(x, dim, True)
    squares = np.square(away.real) + np.square(away.imag) if x.dtype.kind == "c" else np.square(away)
    total = _sum_kernel(squares, dim, keepdim)
    return total / total.dtype.type(max(_count(x.shape, dim) - correction, 0))


def _var_rule(g: Any, x: Any, dim: Any, keepdim: bool, correction: float) -> Any:
    n = _count(x._array.shape, dim) - correction
    away = x - call(_mean, (x,), {"dim": dim, "keepdim": True})
    return _spread(g * (2 / n if n else math.inf), x._array.shape, dim, keepdim) * away


_var = Op(
    "var",
    kind=kinds.reduction("dim"),
    infer=_var_aval,
    numpy=_var_kernel,
    save=("x",),
    vjp=(_var_rule,),
    wirtinger=True,
    node_name=_numbered("Var"),
)


def _variance(input: Any, dim: Any, correction: Any, keepdim: bool) -> Any:
    return call(_var, (input,), {"dim": dim, "keepdim": keepdim, "correction": correction})


def _overload(dim: Any, unbiased: Any, correction: Any) -> tuple[Any, Any]:
    """PyTorch's three ways to say it: `var(unbiased)`, `var(dim, unbiased)`, `var(dim, correction=…)`."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased or unbiased is None else 0
    return _dims(dim), correction


def _sqrt(v: Any) -> Any:
    """`sqrt` with the gradient 0 at 0, as that of PyTorch's std and norm."""
    flat = v == 0
    return where(flat, 0.0, sqrt(where(flat, 1.0, v)))


def _widely(input: Any) -> Any:
    """Half types in float32: their variance may be too large where its root is not."""
    dtype = wide(input._array.dtype)
    return input if dtype == input._array.dtype else cast(input, dtype=dtype)


def _deviation(variance: Any, input: Any) -> Any:
    out = _sqrt(variance)
    dtype = real_dtype(input._array.dtype)
    return out if dtype == out._array.dtype else cast(out, dtype=dtype)


def var(input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """The variance over `dim`: the sum of squares about the mean, over n - `correction` (default 1)."""
    dim, correction = _overload(dim, unbiased, correction)
    return _variance(input, dim, correction, keepdim)


def std(input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """The square root of `var`."""
    return _deviation(var(_widely(input), dim, unbiased, keepdim, correction=correction), input)


def var_mean(
    input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """The variance and the mean over `dim`."""
    dim, correction = _overload(dim, unbiased, correction)
    return _variance(input, dim, correction, keepdim), mean(input, dim, keepdim)


def std_mean(
    input: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """The standard deviation and the mean over `dim`."""
    dim, correction = _overload(dim, unbiased, correction)
    return _deviation(_variance(_widely(input), dim, correction, keepdim), input), mean(input, dim, keepdim)


# Extremes: one value per row


def _refuse_empty(name: str, shape: tuple[int, ...], dim: Any) -> None:
    for d in axes(dim, len(shape)):
        if shape[d] == 0:
            raise IndexError(f"{name}(): Expected reduction dim {d} to have non-zero size.")


def _extreme_aval(name: str) -> Callable[..., Aval]:
    def infer(x: Any, dim: Any = (), keepdim: bool = False) -> Aval:
        out = Aval(reduced(x.shape, dim, keepdim), x.dtype)
        _refuse_empty(name, x.shape, dim)
        return out

    return infer


def _shared_rule(g: Any, x: Any, out: Any, dim: Any, keepdim: bool) -> Any:
    """Equal extremes share the gradient, as in PyTorch."""
    shape = x._array.shape
    chosen = cast(x == _spread(out, shape, dim, keepdim), dtype=g._array.dtype)
    return chosen * _spread(g / sum(chosen, dim, keepdim), shape, dim, keepdim)


def _extreme(name: str, reduce: Any, least: int) -> Op:
    return Op(
        name,
        kind=kinds.reduction("dim"),
        node_name=lambda n: f"M{name[2:]}Backward1" if n.attrs["dim"] == () else f"{name.capitalize()}Backward0",
        infer=_extreme_aval(name),
        numpy=lambda x, dim, keepdim: reduce(x, axis=axes(dim, x.ndim), keepdims=keepdim),
        c=reduction("extreme", least=least),
        real=f"{name[1:]}_values_cpu",
        save=("x", "out"),
        vjp=(_shared_rule,),
    )


_amax, _amin = _extreme("amax", np.max, 0), _extreme("amin", np.min, 1)


def amax(input: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The largest value over `dim`, `()` for all; equal ones share the gradient."""
    return _amax(input, dim=_dims(dim), keepdim=keepdim)


def amin(input: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The smallest value over `dim`, `()` for all; equal ones share the gradient."""
    return _amin(input, dim=_dims(dim), keepdim=keepdim)


# Log of sums


def _logsumexp_aval(x: Any, dim: Any = (), keepdim: bool = False) -> Aval:
    return Aval(reduced(x.shape, dim, keepdim), x.dtype)


@in_float32
def _logsumexp_kernel(x: Any, dim: Any, keepdim: bool) -> Any:
    over = axes(dim, x.ndim)
    size = x.real  # of complex numbers: an imaginary part would come back 2 pi off
    top = size.max(over, keepdims=True) if x.size else np.zeros_like(size, shape=reduced(x.shape, dim, True))
    top = np.where(np.isfinite(top), top, size.dtype.type(0))
    out = np.log(_add_up(np.exp(x - top), over, True)) + top
    return out if keepdim else out.reshape(reduced(x.shape, dim, False))


def _logsumexp_rule(g: Any, x: Any, out: Any, dim: Any, keepdim: bool) -> Any:
    shape = x._array.shape
    return _spread(g, shape, dim, keepdim) * exp(x - _spread(out, shape, dim, keepdim))


_logsumexp = Op(
    "logsumexp",
    kind=kinds.reduction("dim"),
    infer=_logsumexp_aval,
    numpy=_logsumexp_kernel,
    save=("x", "out"),
    vjp=(_logsumexp_rule,),
    onnx="ReduceLogSumExp",
)


def logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Any:
    """`log(sum(exp(input), dim))` without overflow."""
    if promote.category(input._array.dtype) < 2:
        input = cast(input, dtype=dtypes.get_default_dtype().np)
    return _logsumexp(input, dim=_dims(dim), keepdim=keepdim)


# NaN aside


def nansum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """`sum` with NaN as zero, of the dtype of `input`: what becomes of NaN in `dtype` plays no part."""
    kind = input._array.dtype.kind
    if kind == "c":
        raise RuntimeError("nansum on CPU does not support complex inputs")
    if kind in "biu":
        return sum(input, dim, keepdim, dtype=dtype)
    if dtype is not None and dtypes.to_numpy(dtype).kind == "c" and input._array.size:
        raise NotImplementedError(f"\"nansum_cpu\" not implemented for '{dtype_title(dtypes.to_numpy(dtype))}'")
    return sum(where(input != input, 0, input), dim, keepdim, dtype=dtype)


def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The mean of the elements that are not NaN."""
    if promote.category(input._array.dtype) < 2:
        got = dtype_title(input._array.dtype)
        raise RuntimeError(f"nanmean(): expected input to have floating point or complex dtype but got {got}")
    if dtype is not None and promote.category(dtypes.to_numpy(dtype)) < 2:
        got = dtype_title(dtypes.to_numpy(dtype))
        raise RuntimeError(
            "nanmean(): could not infer output dtype. Optional dtype must be either a floating point or complex "
            f"dtype. Got: {got}"
        )
    return nansum(input, dim, keepdim, dtype=dtype) / sum(input == input, dim, keepdim)
