"""Whole slices along a dimension, picked or written by a vector of positions: index_select and its in-place kin."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core.infer import axis, broadcast_shapes
from rushlight_tensor.core.inplace import inplace
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.ops.index.gather import _gather, _index_aval, _index_put, _index_select, _long_only
from rushlight_tensor.ops.index.index import _fill_value
from rushlight_tensor.ops.math.cast import clone
from rushlight_tensor.ops.math.elementwise import remainder
from rushlight_tensor.ops.shape.shape import expand, reshape


def index_select(input: Any, dim: int, index: Any) -> Any:
    """The slices of `input` along `dim` at the positions of a 1-d index (a copy)."""
    if index._array.ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    _index_aval(index._array, "index_select")
    index = reshape(index, 1) if index._array.ndim == 0 else index
    if input._array.ndim == 0:
        if index._array.size != 1:
            raise RuntimeError(
                f"index_select(): Index to scalar can have only 1 value, got {index._array.size} value(s)"
            )
        return reshape(_index_select(reshape(input, 1), index, axis(dim, 0), False), ())
    return _index_select(input, index, dim, False)


def take(input: Any, index: Any) -> Any:
    """The elements of the flattened `input` at the positions of `index`, in its shape."""
    n = input._array.size
    _long_only(index, "take(): Expected a long tensor for index, but got {}")
    if isinstance(index._array, np.ndarray):
        bad = index._array[(index._array < -n) | (index._array >= n)]
        if bad.size:
            raise IndexError(f"out of range: tried to access index {bad.flat[0]} on a tensor of {n} elements.")
    return _index_select(reshape(input, -1), index, 0)


def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Any:
    """`gather` that broadcasts; without `dim` it takes from the flattened `input`."""
    _long_only(indices, "torch.take_along_dim(): dtype of indices should be Long but got {}")
    if dim is None:
        return _gather(reshape(input, -1), reshape(indices, -1), 0)
    if input._array.ndim != indices._array.ndim:
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{input._array.ndim} dimensions for input, and {indices._array.ndim} dimensions for indices"
        )
    d = axis(dim, input._array.ndim)
    a, b = list(input._array.shape), list(indices._array.shape)
    a[d] = b[d] = 1
    common = list(broadcast_shapes(tuple(a), tuple(b)))
    a, b = list(common), list(common)
    a[d], b[d] = input._array.shape[d], indices._array.shape[d]
    return _gather(expand(input, a), _counted_from_the_front(expand(indices, b), a[d]), d)


def _counted_from_the_front(indices: Any, n: int) -> Any:
    """Indices modulo `n`, as PyTorch takes them in `take_along_dim`."""
    return remainder(indices, n) if n else indices


def _source(name: str, x: Any, dim: int, index: Any, source: Any, error: type[Exception]) -> tuple[int, Any, Any]:
    if index._array.ndim > 1:
        raise IndexError(f"{name}(): Index should have dimension 1 or 0 (got {index._array.ndim})")
    index = reshape(index, 1) if index._array.ndim == 0 else index
    d = axis(dim, x._array.ndim)
    if source._array.ndim == 0:
        source = reshape(source, 1)
    shape, want = source._array.shape, (*x._array.shape[:d], index._array.size, *x._array.shape[d + 1 :])
    if len(shape) > d and shape[d] != index._array.size:
        raise error(
            f"{name}(): Number of indices ({index._array.size}) should be equal to source.size(dim): ({shape[d]}), for "
            f"dim: {d}"
        )
    if shape != want:
        raise RuntimeError(f"{name}(): source has shape {list(shape)}, but self and index ask for {list(want)}")
    if isinstance(index._array, np.ndarray) and index._array.size and (least := index._array.min()) < 0:
        raise IndexError(f"index {least} is out of bounds for dimension {d} with size {x._array.shape[d]}")
    return d, index, source


def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Any:
    """A copy of `input` with `alpha * source` added to its slices along `dim`; repeated positions add up."""
    return index_add_(clone(input, memory_format=contiguous_format), dim, index, source, alpha=alpha)


def index_add_(input: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Any:
    """`index_add` in place."""
    x = reshape(input, 1) if input._array.ndim == 0 else input
    d, index, source = _source("index_add_", x, dim, index, source, RuntimeError)
    inplace(_index_put, x, index, source if alpha == 1 else source * alpha, dim=d, accumulate=True)
    return input


def index_copy(input: Any, dim: int, index: Any, source: Any) -> Any:
    """A copy of `input` with its slices along `dim` replaced by those of `source`."""
    return index_copy_(clone(input, memory_format=contiguous_format), dim, index, source)


def index_copy_(input: Any, dim: int, index: Any, source: Any) -> Any:
    """`index_copy` in place."""
    _long_only(index, "index_copy_(): Expected a long tensor for index, but got {}")
    x = reshape(input, 1) if input._array.ndim == 0 else input
    d, index, source = _source("index_copy_", x, dim, index, source, IndexError)
    inplace(_index_put, x, index, source, dim=d, accumulate=False)
    return input


def index_fill(input: Any, dim: int, index: Any, value: Any) -> Any:
    """A copy of `input` with its slices along `dim` filled with a number."""
    return index_fill_(clone(input), dim, index, value)


def index_fill_(input: Any, dim: int, index: Any, value: Any) -> Any:
    """`index_fill` in place."""
    _long_only(index, "index_fill_(): Expected dtype int64 for index.", IndexError)
    value = _fill_value("index_fill_", input, value)
    x = reshape(input, 1) if input._array.ndim == 0 else input
    index = reshape(index, 1) if index._array.ndim == 0 else index
    inplace(_index_put, x, index, value, dim=axis(dim, x._array.ndim), accumulate=False)
    return input
