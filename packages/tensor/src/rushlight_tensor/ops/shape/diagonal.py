"""Diagonals, triangles and sliding windows: views with strides of their own, and what is made of them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, kinds
from rushlight_tensor.core.half_precision import in_float32
from rushlight_tensor.core.infer import Aval, axis
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.index.gather import _zeros
from rushlight_tensor.ops.index.index import _masked_fill
from rushlight_tensor.ops.math.cast import clone
from rushlight_tensor.ops.shape.slicing import _part_of

# Diagonals


def _diagonal_aval(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Aval:
    a, b = axis(dim1, len(x.shape)), axis(dim2, len(x.shape))
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    n = max(0, min(x.shape[a] + min(offset, 0), x.shape[b] - max(offset, 0)))
    return Aval((*[s for d, s in enumerate(x.shape) if d not in (a, b)], n), x.dtype)


def _diagonal_kernel(x: Any, offset: int, dim1: int, dim2: int) -> Any:
    out = np.diagonal(x, offset, dim1, dim2)
    if isinstance(out, np.ndarray):
        out.flags.writeable = x.flags.writeable  # NumPy hands out a read-only view
    return out


def _diagonal_put_aval(g: Any, shape: Any = (), offset: int = 0, dim1: int = 0, dim2: int = 1) -> Aval:
    return Aval(shape, g.dtype)


def _diagonal_put_kernel(g: Any, shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Any:
    out = np.zeros_like(g, shape=shape)
    _diagonal_kernel(out, offset, dim1, dim2)[...] = g
    return out


_diagonal = Op(
    "diagonal",
    kind=kinds.view("dim1", "dim2"),
    infer=_diagonal_aval,
    numpy=_diagonal_kernel,
    view=True,
    save=("x.shape",),
    vjp=(lambda g, shape, offset, dim1, dim2: _diagonal_put(g, shape, offset, dim1, dim2),),
)

_diagonal_put = Op(
    "diagonal_backward",
    kind=kinds.linear("dim1", "dim2", shapes=("shape",)),
    infer=_diagonal_put_aval,
    numpy=_diagonal_put_kernel,
    vjp=(lambda g, shape, offset, dim1, dim2: _diagonal(g, offset, dim1, dim2),),
)


def diagonal(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The elements where the indices of `dim1` and `dim2` differ by `offset`, as the last dimension (a view)."""
    return _diagonal(input, offset, dim1, dim2)


def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Zeros, with the last dimension of `input` on the diagonal of two new ones at `dim1` and `dim2`."""
    shape = input._array.shape
    n = len(shape) + 1
    a, b = axis(dim1, n), axis(dim2, n)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    size = shape[-1] + abs(offset)
    rest = iter(shape[:-1])
    return _diagonal_put(input, tuple([size if d in (a, b) else next(rest) for d in range(n)]), offset, a, b)


def diag(input: Any, diagonal: int = 0) -> Any:
    """A vector as the diagonal of a matrix; the diagonal of a matrix as a vector (a copy)."""
    n = input._array.ndim
    if n not in (1, 2):
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {n}D")
    return diag_embed(input, diagonal) if n == 1 else clone(_diagonal(input, diagonal))


def diagflat(input: Any, offset: int = 0) -> Any:
    """All elements of `input` on the diagonal of a matrix."""
    return diag_embed(input.reshape(-1), offset)


def fill_diagonal_(input: Any, fill_value: float, wrap: bool = False) -> Any:
    """Write a number to the main diagonal, in place; with `wrap`, again below the square of a tall matrix."""
    shape = input._array.shape
    if len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
        raise RuntimeError(f"fill_diagonal_ needs a matrix, or equal sizes in more dimensions; got {list(shape)}")
    if len(shape) > 2:
        for i in range(shape[0]):
            input[(i,) * len(shape)] = fill_value
        return input
    period = shape[1] + 1 if wrap else shape[0]
    for start in range(0, shape[0], max(period, 1)):
        input[start:].diagonal().fill_(fill_value)
    return input


def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """A copy of `input` with `src` on a diagonal."""
    out = clone(input)
    _part_of(_diagonal(out, offset, dim1, dim2), src).copy_(src)
    return out


# Triangles


def _triangle(x: Any, diagonal: int, lower: bool, name: str) -> Any:
    shape = x._array.shape
    if len(shape) < 2:
        raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")
    mask = _outside(shape[-2], shape[-1], diagonal, lower)
    return _masked_fill(x, wrap(cuda.like(x._array, mask)), _zeros(x, ()))


@lru_cache(maxsize=16)
def _outside(rows: int, columns: int, diagonal: int, lower: bool) -> Any:
    """Where a triangle is not."""
    inside: Any = np.tri(rows, columns, diagonal if lower else diagonal - 1, dtype=np.bool_)
    return ~inside if lower else inside


def tril(input: Any, diagonal: int = 0) -> Any:
    """The last two dimensions on and below `diagonal`; zeros above."""
    return _triangle(input, diagonal, True, "tril")


def triu(input: Any, diagonal: int = 0) -> Any:
    """The last two dimensions on and above `diagonal`; zeros below."""
    return _triangle(input, diagonal, False, "triu")


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The indices (2, n) of the elements on and below a diagonal of a (row, col) matrix, by rows."""
    return wrap(np.stack(np.tril_indices(row, offset, col))).to(device=device, dtype=dtype)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The indices (2, n) of the elements on and above a diagonal of a (row, col) matrix, by rows."""
    return wrap(np.stack(np.triu_indices(row, offset, col))).to(device=device, dtype=dtype)


# Windows


def _unfold_aval(x: Any, dimension: int = 0, size: int = 1, step: int = 1) -> Aval:
    shape = x.shape or (1,)
    dim = axis(dimension, len(shape))
    if size > shape[dim]:
        raise RuntimeError(f"maximum size for tensor at dimension {dim} is {shape[dim]} but size is {size}")
    if size < 0:
        raise RuntimeError(f"size is {size} but must be >= 0")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    count = (shape[dim] - size) // step + 1
    return Aval((size,) if not x.shape else (*shape[:dim], count, *shape[dim + 1 :], size), x.dtype)


def _unfold_kernel(x: Any, dimension: int, size: int, step: int) -> Any:
    shape = _unfold_aval(x, dimension, size, step).shape
    if x.ndim == 0:
        return x.reshape(1)[:size]
    dim = dimension % x.ndim
    strides = (*x.strides[:dim], x.strides[dim] * step, *x.strides[dim + 1 :], x.strides[dim])
    if not isinstance(x, np.ndarray):
        return cuda.cupy().lib.stride_tricks.as_strided(x, shape, strides)
    if x.flags.writeable:
        return np.lib.stride_tricks.as_strided(x, shape, strides)
    x = x[...]
    try:
        x.flags.writeable = True
    except ValueError:  # its memory is locked
        return np.lib.stride_tricks.as_strided(x, shape, strides)
    windows = np.lib.stride_tricks.as_strided(x, shape, strides)[...]
    windows.flags.writeable = False  # as what was expanded is: `inplace` can undo that
    return windows


def _fold_aval(g: Any, shape: Any = (), dimension: int = 0, size: int = 1, step: int = 1) -> Aval:
    return Aval(shape, g.dtype)


@in_float32
def _fold_kernel(g: Any, shape: tuple[int, ...], dimension: int, size: int, step: int) -> Any:
    out = np.zeros_like(g, shape=shape)
    if not shape:
        return out + g.sum(axis=0)
    dim = dimension % len(shape)
    count = g.shape[dim]
    for k in range(size):  # windows overlap; elements at one place of all windows do not
        out[(*[slice(None)] * dim, slice(k, k + (count - 1) * step + 1, step))] += g[..., k]
    return out


_unfold = Op(
    "unfold",
    kind=kinds.view("dimension"),
    infer=_unfold_aval,
    numpy=_unfold_kernel,
    view=True,
    save=("x.shape",),
    vjp=(lambda g, shape, dimension, size, step: _fold(g, shape, dimension, size, step),),
)

_fold = Op(
    "unfold_backward",
    kind=kinds.linear("dimension", shapes=("shape",)),
    infer=_fold_aval,
    numpy=_fold_kernel,
    vjp=(lambda g, shape, dimension, size, step: _unfold(g, dimension, size, step),),
)


def unfold(input: Any, dimension: int, size: int, step: int) -> Any:
    """All windows of `size` elements along a dimension, `step` apart, as a new last dimension (a view)."""
    return _unfold(input, dimension, size, step)
