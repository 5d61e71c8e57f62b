"""Cutting: slices of a tensor as views, and the functions that return one or several of them.

Note [What `at` says]
    `_slice(x, at)` is basic indexing.  `at` has one entry per dimension, from the first: an int selects, a tuple
    (start, stop, step) cuts as a Python slice does, None adds a dimension of size 1.  The dimensions that it does not
    reach are whole.
"""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np

from rushlight_tensor.infer import Aval, axis
from rushlight_tensor.op import AS_CPU, Op
from rushlight_tensor.tensor import Tensor
from rushlight_tensor.views import view_path


def _slice_aval(x: Any, at: Any = ()) -> Aval:
    shape: list[int] = []
    dim = 0
    for e in at:
        if e is None:
            shape.append(1)
            continue
        if dim >= len(x.shape):
            if not x.shape:
                raise IndexError(
                    "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to "
                    "convert a 0-dim tensor to a number"
                )
            raise IndexError(f"too many indices for tensor of dimension {len(x.shape)}")
        n = x.shape[dim]
        if type(e) is tuple:
            shape.append(len(range(*slice(*e).indices(n))))
        elif not -n <= e < n:
            raise IndexError(f"index {e} is out of bounds for dimension {dim} with size {n}")
        dim += 1
    return Aval((*shape, *x.shape[dim:]), x.dtype)


def _numpy_index(at: Any) -> tuple[Any, ...]:
    return (*[slice(*e) if type(e) is tuple else e for e in at], ...)  # the Ellipsis keeps 0-d results arrays


def _slice_kernel(x: Any, at: Any) -> Any:
    if len(at) == 1 and x.ndim > 1:
        e = at[0]
        return x[slice(*e) if type(e) is tuple else e]
    return x[_numpy_index(at)]


def _slice_put_aval(g: Any, shape: Any = (), at: Any = ()) -> Aval:
    return Aval(shape, g.dtype)


def _slice_put_kernel(g: Any, shape: tuple[int, ...], at: Any) -> Any:
    out = np.zeros_like(g, shape=shape)
    out[_numpy_index(at)] = g
    return out


_slice = Op(
    "slice",
    infer=_slice_aval,
    cpu=_slice_kernel,
    cuda=AS_CPU,
    view=True,
    save=("x.shape",),
    vjp=(lambda g, shape, at: _slice_put(g, shape, at),),
)

_slice_put = Op(
    "slice_backward",
    infer=_slice_put_aval,
    cpu=_slice_put_kernel,
    cuda=AS_CPU,
    vjp=(lambda g, shape, at: _slice(g, at),),
)

_ALL = (None, None, None)
_view_of = view_path(_slice)


def _at(x: Any, *at: Any) -> Any:
    """The view `x[at]`."""
    return _view_of(x, {"at": at})


def _cut(x: Any, dim: int, start: int | None, stop: int | None, step: int | None = None) -> Any:
    """`x[start:stop:step]` along `dim` (from the front)."""
    return _at(x, *[_ALL] * dim, (start, stop, step))


def narrow(input: Any, dim: int, start: Any, length: int) -> Any:
    """`length` elements of dimension `dim` from `start` on (a view).  Raises RuntimeError where they do not exist."""
    dim = _dim_of(input, dim, "narrow")
    n, start = input._array.shape[dim], operator.index(start)
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -n <= start <= n:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-n}, {n}], but got {start})")
    start = start + n if start < 0 else start
    if start + length > n:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return _cut(input, dim, start, start + length)


def select(input: Any, dim: int, index: int) -> Any:
    """Element `index` of dimension `dim`, which disappears (a view)."""
    if input._array.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    d = axis(dim, input._array.ndim)
    n, index = input._array.shape[d], operator.index(index)
    if not -n <= index < n:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(input._array.shape)} at dimension {dim}"
        )
    return _at(input, *[_ALL] * d, index)


def unbind(input: Any, dim: int = 0) -> tuple[Any, ...]:
    """The slices along `dim`, as views."""
    if input._array.ndim == 0:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    dim = axis(dim, input._array.ndim)
    whole = [_ALL] * dim
    return tuple([_at(input, *whole, i) for i in range(input._array.shape[dim])])


def _dim_of(x: Any, dim: int, name: str) -> int:
    if x._array.ndim == 0:
        raise RuntimeError(f"{name}() cannot be applied to a 0-dim tensor.")
    return axis(dim, x._array.ndim)


def split(input: Any, split_size_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    """Views of consecutive pieces along `dim`: of one size (the last may be smaller), or of the sizes given."""
    dim = _dim_of(input, dim, "split")
    n = input._array.shape[dim]
    if not isinstance(split_size_or_sections, (list, tuple)):
        size = operator.index(split_size_or_sections)
        if size < 0:
            raise RuntimeError(f"split expects split_size be non-negative, but got split_size={size}")
        if size == 0 and n:
            raise RuntimeError(f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}")
        ends = list(range(size, n, size)) if size else []
        return _split_at(input, ends, dim)
    sections = [operator.index(s) for s in split_size_or_sections]
    if sum(sections) != n or any(s < 0 for s in sections):
        raise RuntimeError(
            f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension {dim}), but "
            f"got split_sizes={sections}"
        )
    return _split_at(input, list(itertools.accumulate(sections))[:-1], dim) if sections else ()


def _split_at(x: Any, ends: list[int], dim: int) -> tuple[Any, ...]:
    bounds = [0, *ends, x._array.shape[dim]]
    return tuple([_cut(x, dim, a, max(a, b)) for a, b in itertools.pairwise(bounds)])


def chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    """At most `chunks` views of equal size along `dim`; the last may be smaller."""
    dim = _dim_of(input, dim, "chunk")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    n = input._array.shape[dim]
    if n == 0:
        return _split_at(input, [0] * (chunks - 1), dim)
    return split(input, -(-n // chunks), dim)


def tensor_split(input: Any, indices_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    """Views along `dim`: so many of nearly equal size, or cut at the indices given."""
    dim = _dim_of(input, dim, "tensor_split")
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, (list, tuple)):
        n = input._array.shape[dim]
        ends = [min(n, e) if e >= 0 else max(0, e + n) for e in indices_or_sections]
        return _split_at(input, ends, dim)
    if indices_or_sections <= 0:
        raise RuntimeError(f"number of sections must be larger than 0, got {indices_or_sections}")
    small, larger = divmod(input._array.shape[dim], indices_or_sections)
    lengths = [small + (i < larger) for i in range(indices_or_sections)]
    return _split_at(input, list(itertools.accumulate(lengths))[:-1], dim)


def _split_along(input: Any, indices_or_sections: Any, dim: int, name: str, least: int) -> tuple[Any, ...]:
    if input._array.ndim < least:
        raise RuntimeError(
            f"torch.{name} requires a tensor with at least {least} dimension, but got a tensor with "
            f"{input._array.ndim} dimensions!"
        )
    n = input._array.shape[dim]
    if isinstance(indices_or_sections, int) and (indices_or_sections <= 0 or n % indices_or_sections):
        raise RuntimeError(
            f"torch.{name} attempted to split along dimension {dim}, but the size of the dimension {n} is not "
            f"divisible by the split_size {indices_or_sections}!"
        )
    return tensor_split(input, indices_or_sections, dim)


def hsplit(input: Any, indices_or_sections: Any) -> tuple[Any, ...]:
    """`tensor_split` into equal parts, or at indices, along dimension 1 (0 for vectors)."""
    return _split_along(input, indices_or_sections, min(1, input._array.ndim - 1), "hsplit", 1)


def vsplit(input: Any, indices_or_sections: Any) -> tuple[Any, ...]:
    """`tensor_split` into equal parts, or at indices, along dimension 0."""
    return _split_along(input, indices_or_sections, 0, "vsplit", 2)


def dsplit(input: Any, indices_or_sections: Any) -> tuple[Any, ...]:
    """`tensor_split` into equal parts, or at indices, along dimension 2."""
    return _split_along(input, indices_or_sections, 2, "dsplit", 3)
