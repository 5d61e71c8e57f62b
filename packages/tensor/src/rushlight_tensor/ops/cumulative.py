"""Running sums and products along a dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor import promote
from rushlight_tensor.cuda import like
from rushlight_tensor.dispatch import floats_only
from rushlight_tensor.half_precision import in_float32
from rushlight_tensor.infer import Aval, axis
from rushlight_tensor.op import AS_CPU, Op
from rushlight_tensor.ops.elementwise import exp, log
from rushlight_tensor.ops.reduce import _in_dtype, _sum, amax
from rushlight_tensor.ops.select import where
from rushlight_tensor.ops.shape import reshape
from rushlight_tensor.tensor import wrap


def _cumulative_aval(x: Any, dim: int = 0, reverse: bool = False) -> Aval:
    axis(dim, len(x.shape))
    return Aval(x.shape, promote.INT64 if promote.category(x.dtype) < 2 else x.dtype)


def _cumulative(accumulate: Any) -> Callable[..., Any]:
    @in_float32
    def kernel(x: Any, dim: int, reverse: bool) -> Any:
        dtype = np.int64 if x.dtype.kind in "iub" else x.dtype
        if not x.ndim:
            return x.astype(dtype)
        if not reverse:
            return accumulate(x, axis=dim, dtype=dtype)
        return np.flip(accumulate(np.flip(x, dim), axis=dim, dtype=dtype), dim)

    return kernel


_cumsum = Op(
    "cumsum",
    infer=_cumulative_aval,
    cpu=_cumulative(np.cumsum),
    cuda=AS_CPU,
    vjp=(lambda g, dim, reverse: _cumsum(g, dim=dim, reverse=not reverse),),
)


def cumsum(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """The running sum along `dim`; integers add up as int64."""
    return _in_dtype(_cumsum(_in_dtype(input, dtype), dim=dim), dtype)


def _cumprod_rule(g: Any, x: Any, dim: int, reverse: bool) -> Any:
    """Row k of the table is the running product with 1 in place of element k: exact for zeros, n times the memory."""
    shape = x._array.shape
    if not shape:
        return g
    at = axis(dim, len(shape))
    n, outer, inner = shape[at], shape[:at], shape[at + 1 :]
    ones = [1] * len(inner)
    eye = wrap(like(x._array, np.eye(n, dtype=bool).reshape(n, n, *ones)))
    seen = wrap(like(x._array, np.triu(np.ones((n, n), bool)).reshape(n, n, *ones)))
    table = _cumprod(where(eye, 1.0, reshape(x, *outer, 1, n, *inner)), dim=at + 1)
    return _sum(where(seen, table, 0.0) * reshape(g, *outer, 1, n, *inner), dim=at + 1)


_cumprod = Op(
    "cumprod", infer=_cumulative_aval, cpu=_cumulative(np.cumprod), cuda=AS_CPU, save=("x",), vjp=(_cumprod_rule,)
)


def cumprod(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """The running product along `dim`; integers multiply as int64."""
    return _in_dtype(_cumprod(_in_dtype(input, dtype), dim=dim), dtype)


def logcumsumexp(input: Any, dim: int) -> Any:
    """`log(cumsum(exp(input), dim))`, shifted by the largest element."""
    floats_only("logcumsumexp_out_cpu", input)
    top = amax(input.detach(), dim, True)
    return log(cumsum(exp(input - top), dim)) + top
