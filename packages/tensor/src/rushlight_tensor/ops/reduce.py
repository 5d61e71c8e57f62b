"""Reductions: sums, extremes and what is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor import dtypes, promote
from rushlight_tensor.infer import Aval, axes, reduced, sizes
from rushlight_tensor.op import AS_CPU, Op
from rushlight_tensor.ops.cast import cast
from rushlight_tensor.ops.shape import expand, reshape


def _sum_aval(x: Any, dim: Any = None, keepdim: bool = False) -> Aval:
    dtype = promote.INT64 if promote.category(x.dtype) < 2 else x.dtype
    return Aval(reduced(x.shape, dim, keepdim), dtype)


def _sum_kernel(x: Any, dim: Any, keepdim: bool) -> Any:
    if type(dim) is int and keepdim is False and -x.ndim <= dim < x.ndim and x.dtype.kind == "f":
        return np.add.reduce(x, axis=dim)
    over = None if dim is None else axes(dim, x.ndim)
    out = np.int64 if x.dtype.kind in "iub" else x.dtype
    return np.sum(x, axis=over, keepdims=keepdim, dtype=out)


def _spread(g: Any, shape: tuple[int, ...], dim: Any, keepdim: bool) -> Any:
    """A gradient of a reduction, repeated over the elements that were reduced."""
    if not keepdim and dim is not None:
        g = reshape(g, reduced(shape, dim, True))
    return expand(g, shape)


_sum = Op(
    "sum",
    infer=_sum_aval,
    cpu=_sum_kernel,
    cuda=AS_CPU,
    save=("x.shape",),
    vjp=(lambda g, shape, dim, keepdim: _spread(g, shape, dim, keepdim),),
)


def sum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The sum over `dim` (an int, several, or None for all); integers add up as int64.

    Args:
        dtype: Convert to this dtype first.
    """
    if dtype is not None:
        input = cast(input, dtype=dtypes.to_numpy(dtype))
    return _sum(input, tuple(dim) if isinstance(dim, (list, tuple)) else dim, keepdim)


def sum_to_size(input: Any, *size: Any) -> Any:
    """`input` summed over the dimensions that broadcasting to its shape would add to `size` or stretch from 1."""
    shape = sizes(size)
    have = input._array.shape
    lead = len(have) - len(shape)
    over = (*range(lead), *[lead + i for i, n in enumerate(shape) if n == 1 and have[lead + i] != 1])
    if over:
        input = _sum(input, over, False)
    return input if input._array.shape == shape else reshape(input, shape)
