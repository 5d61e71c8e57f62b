"""Running sums and products along a dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.core import dtypes, kinds, promote
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.half_precision import in_float32
from rushlight_tensor.core.infer import Aval, axis
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.kernels.arrays import accumulate, in_order
from rushlight_tensor.ops.math.complex import real
from rushlight_tensor.ops.math.elementwise import exp, log
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.reduce.reduce import _in_dtype, _sum, amax
from rushlight_tensor.ops.shape.shape import reshape


def _cumulative_aval(x: Any, dim: int = 0, reverse: bool = False) -> Aval:
    axis(dim, len(x.shape))
    return Aval(x.shape, promote.INT64 if promote.category(x.dtype) < 2 else x.dtype)


def _cumulative(accumulate: Any) -> Callable[..., Any]:
    @in_float32
    def kernel(x: Any, dim: int, reverse: bool) -> Any:
        dtype = np.dtype(np.int64) if x.dtype.kind in "iub" else x.dtype
        if not x.ndim:
            axis(dim, 0)
            return x.astype(dtype)
        x = np.flip(x, dim) if reverse else x
        out = accumulate(x, axis=dim, dtype=np.promote_types(dtype, np.float64) if dtype.kind in "fc" else dtype)
        return in_order((np.flip(out, dim) if reverse else out).astype(dtype, copy=False))

    return kernel


_cumsum = Op(
    "cumsum",
    kind=kinds.rows("dim"),
    infer=_cumulative_aval,
    numpy=_cumulative(np.cumsum),
    vjp=(lambda g, dim, reverse: _cumsum(g, dim=dim, reverse=not reverse),),
    onnx="CumSum",
)


def _running(op: Op, input: Any, dim: int, dtype: Any) -> Any:
    """`op` along `dim`, computed in `dtype`, which PyTorch does not do in bools."""
    shape = input._array.shape
    if shape and 0 not in shape and dtype is not None and dtypes.to_numpy(dtype).kind == "b":
        raise NotImplementedError(f"\"{op.name}_out_cpu\" not implemented for 'Bool'")
    return _in_dtype(op(_in_dtype(input, dtype), dim=dim), dtype)


def cumsum(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """The running sum along `dim`; integers add up as int64."""
    return _running(_cumsum, input, dim, dtype)


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
    "cumprod",
    kind=kinds.rows("dim"),
    infer=_cumulative_aval,
    numpy=_cumulative(np.cumprod),
    save=("x",),
    vjp=(_cumprod_rule,),
)


def cumprod(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """The running product along `dim`; integers multiply as int64."""
    return _running(_cumprod, input, dim, dtype)


def _log_running(x: Any, dim: int, reverse: bool) -> Any:
    if not x.ndim:
        axis(dim, 0)
        return x.copy()
    if reverse:
        return in_order(np.flip(accumulate(np.logaddexp, np.flip(x, dim), dim), dim))
    return in_order(accumulate(np.logaddexp, x, dim))


@in_float32
def _log_running_backward(g: Any, x: Any, out: Any, dim: int, reverse: bool, needs: Any) -> Any:
    """`exp(x) * cumsum(g / exp(out))` from the other end, in logarithms, so that nothing overflows."""
    zero = g.dtype.type(0)
    parts = [np.exp(_log_running(np.log(np.maximum(part, zero)) - out, dim, not reverse) + x) for part in (g, -g)]
    return in_order(parts[0] - parts[1])


def _logcumsumexp_rule(g: Any, needs: Any, x: Any, out: Any, dim: int, reverse: bool) -> Any:
    """The same as a table of `exp(x) / exp(out)` for each pair along `dim`."""
    shape = x._array.shape
    if not shape:
        return (g,)
    at = axis(dim, len(shape))
    n, outer, inner = shape[at], shape[:at], shape[at + 1 :]
    seen = np.triu(np.ones((n, n), bool)).reshape(n, n, *[1] * len(inner))
    mask = wrap(like(x._array, np.swapaxes(seen, 0, 1) if reverse else seen))
    apart = reshape(x, *outer, n, 1, *inner) - reshape(out, *outer, 1, n, *inner)
    share = where(mask, exp(where(mask, apart, 0.0)), 0.0)
    return (_sum(share * reshape(g, *outer, 1, n, *inner), dim=at + 1),)


_logcumsumexp = Op(
    "logcumsumexp",
    kind=kinds.rows("dim"),
    infer=_cumulative_aval,
    numpy=in_float32(_log_running),
    real="logcumsumexp",
    save=("x", "out"),
    vjp=Gradient(_logcumsumexp_rule, numpy=_log_running_backward),
)


def logcumsumexp(input: Any, dim: int) -> Any:
    """`log(cumsum(exp(input), dim))` without overflow."""
    if input._array.dtype.kind == "c":
        top = amax(real(input.detach()), dim, True)
        return log(cumsum(exp(input - top), dim)) + top
    return _logcumsumexp(input, dim=dim)
