"""Norms of vectors: one record for the Euclidean one, one for all others, and their gradients at zeros and ties.

Note [Norms at zero]
    A p-norm has no derivative where the vector is zero, for p < 1 not even where one element is.  PyTorch's gradient
    is zero there, for every p, and equal extremes share that of p = inf.  So the rules below divide by nothing that is
    zero: first they put 1 in its place, then 0 in the result.
    For p = 0 there is no gradient at all: the leaf keeps its `.grad`.  The distances `cdist` and `pdist` are norms with
    the attribute `distance`: p = 0 gives zeros, and each of equal extremes gets the whole gradient.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import dtypes, kinds, promote
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.half_precision import in_float32
from rushlight_tensor.core.infer import Aval, axes, real_dtype, reduced
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.ops.math.cast import _zeros, cast
from rushlight_tensor.ops.math.elementwise import abs, pow, sgn
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.reduce.reduce import _count, _dims, _in_dtype, _spread, _sum_kernel, sum


def _norm2_aval(x: Any, dim: Any = None, keepdim: bool = False) -> Aval:
    return Aval(reduced(x.shape, dim, keepdim), real_dtype(x.dtype))


@in_float32
def _norm2_kernel(x: Any, dim: Any, keepdim: bool) -> Any:
    if _count(x.shape, dim) == 1:  # whose square could overflow
        return np.abs(x).reshape(reduced(x.shape, dim, keepdim))
    return np.sqrt(_sum_kernel(np.square(np.abs(x) if x.dtype.kind == "c" else x), dim, keepdim))


def _norm2_rule(g: Any, x: Any, out: Any, dim: Any, keepdim: bool) -> Any:
    shape = x._array.shape
    flat = out == 0
    scale = where(flat, 0.0, g / where(flat, 1.0, out))
    return x * _spread(scale, shape, dim, keepdim)


_norm2 = Op(
    "norm2",
    kind=kinds.reduction("dim"),
    infer=_norm2_aval,
    numpy=_norm2_kernel,
    save=("x", "out"),
    vjp=(_norm2_rule,),
    wirtinger=True,
    node_name="LinalgVectorNormBackward0",
    onnx="ReduceL2",
)


def _refuse_empty(shape: tuple[int, ...], dim: Any, p: float) -> None:
    """Raise PyTorch's error for a norm of nothing, of an order that has no value for it."""
    over = range(len(shape)) if dim is None else dim if isinstance(dim, tuple) else (dim,)
    empty = [d for d in over if shape and shape[d] == 0]
    if empty:
        where_ = "an empty tensor" if dim is None else f"the dimension {empty[0]}"
        because = "" if dim is None else "this dimension is empty and "
        raise RuntimeError(
            f"linalg.vector_norm cannot compute the {p:g} norm on {where_} because {because}the operation does not "
            "have an identity"
        )


def _norm_p_aval(x: Any, dim: Any = None, keepdim: bool = False, p: float = 2.0, distance: bool = False) -> Aval:
    if p < 0 or p == math.inf:
        _refuse_empty(x.shape, dim, p)
    return _norm2_aval(x, dim, keepdim)


@in_float32
def _norm_p_kernel(x: Any, dim: Any, keepdim: bool, p: float, distance: bool) -> Any:
    if p < 0 and not x.size:
        _refuse_empty(x.shape, dim, p)
    size = np.abs(x)
    if math.isinf(p):
        reduce: Any = np.max if p > 0 else np.min
        return reduce(size, axis=axes(dim, x.ndim), keepdims=keepdim)
    if p == 0:
        return _sum_kernel((x != 0).astype(size.dtype), dim, keepdim)
    if _count(x.shape, dim) == 1:
        return size.reshape(reduced(x.shape, dim, keepdim))
    if p == 1:
        return _sum_kernel(size, dim, keepdim)
    return np.power(_sum_kernel(np.power(size, p), dim, keepdim), size.dtype.type(1 / p))


def _norm_p_rule(g: Any, needs: Any, x: Any, out: Any, dim: Any, keepdim: bool, p: float, distance: bool) -> Any:
    if p == 0:
        return (_zeros(x) if distance else None,)
    shape = x._array.shape
    g, norm_ = (_spread(t, shape, dim, keepdim) for t in (g, out))
    if p == 1:
        return (sgn(x) * g,)
    size = abs(x)
    if math.isinf(p):
        chosen = (size == norm_) | ((x != x) & (norm_ != norm_))
        among = cast(chosen, dtype=g._array.dtype)
        count = 1 if distance or not shape else sum(among, dim, True)
        return (sgn(x) * (among / count * g),)
    if p < 1:  # the size of an element that is 0 has no power
        zero = x == 0
        part = where(zero, 0.0, pow(where(zero, 1.0, size), p - 1))
        return (sgn(x) * part * g * pow(norm_, 1 - p),)
    flat = norm_ == 0
    scale = where(flat, 0.0, g / pow(where(flat, 1.0, norm_), p - 1))
    return (sgn(x) * pow(size, p - 1) * scale if p < 2 else x * pow(size, p - 2) * scale,)


_norm_p = Op(
    "norm_p",
    kind=kinds.reduction("dim"),
    infer=_norm_p_aval,
    numpy=_norm_p_kernel,
    save=("x", "out"),
    vjp=Gradient(_norm_p_rule),
    wirtinger=True,
    node_name="LinalgVectorNormBackward0",
)


def _check_wider(have: np.dtype[Any], wanted: np.dtype[Any]) -> None:
    """Raise PyTorch's error for a `dtype` that a norm of such elements is not computed in."""
    title = dtype_title(wanted)
    if promote.category(wanted) < 2:
        raise RuntimeError(f"linalg.vector_norm: dtype should be floating point or complex, but got {title}")
    for name, kind in ("real", "fV"), ("complex", "c"):
        if have.kind in kind and wanted.kind not in kind:
            raise RuntimeError(f"linalg.vector_norm: dtype should be {name} for {name} inputs, but got {title}")
    if promote.promote_types(have, wanted) != wanted:
        raise RuntimeError(
            f"linalg.vector_norm: the dtype of the input ({dtype_title(have)}) should be convertible without narrowing "
            f"to the specified dtype ({title})"
        )


def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The p-norm of the elements over `dim`: `p` a number, ±inf, or "fro" (2).  Raises RuntimeError for integers.

    Args:
        dtype: Convert to this dtype first: a wider one, real for real numbers and complex for complex ones.
    """
    if promote.category(input._array.dtype) < 2:
        raise RuntimeError(
            "linalg.vector_norm: Expected a floating point or complex tensor as input. "
            f"Got {dtype_title(input._array.dtype)}"
        )
    if dtype is not None:
        _check_wider(input._array.dtype, dtypes.to_numpy(dtype))
        input = _in_dtype(input, dtype)
    attrs = {"dim": _dims(dim), "keepdim": keepdim}
    if p == "fro" or p is None or p == 2:
        return call(_norm2, (input,), attrs)
    if p == "nuc":
        raise RuntimeError("norm: p='nuc' needs a singular value decomposition, which is not supported; use 'fro'")
    return call(_norm_p, (input,), {**attrs, "p": float(p), "distance": False})


def distance(apart: Any, p: float) -> Any:
    """The p-norm along the last dimension, for `cdist` and `pdist`: Note [Norms at zero]."""
    if p < 0:
        raise RuntimeError("cdist only supports non-negative p values")
    if p == 2:
        return call(_norm2, (apart,), {"dim": -1, "keepdim": False})
    return call(_norm_p, (apart,), {"dim": -1, "keepdim": False, "p": float(p), "distance": True})


def dist(input: Any, other: Any, p: float = 2) -> Any:
    """The p-norm of `input - other`."""
    return norm(input - other, p)
