"""Reading and writing at positions that a tensor holds: slices along a dimension, and single elements along one.

    _index_select(x, index, dim)  whole slices of `x`; `index` has any shape, which takes the place of `dim`
    _index_put(x, index, y, dim)  its counterpart: overwrite such slices, or add to them
    _gather, _scatter, …          one element along `dim` for each element of `index`
    _flat_index                   several index tensors as one, into their flattened dimensions

Note [Adding at positions]
    NumPy's `add.at` takes 2 ns per element for one index array on flat memory and ten times that for everything else,
    so positions are first made flat.  Elements that are hit several times add up in the order in which they come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, kinds, placement, promote
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.infer import Aval, axis, broadcast_shapes
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.kernels.arrays import add_at, contiguous, in_order
from rushlight_tensor.kernels.move import gathered, moving, picked
from rushlight_tensor.kernels.plan import C
from rushlight_tensor.ops.shape.samples import _aligned
from rushlight_tensor.ops.shape.shape import expand, permute, reshape

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def _check_range(index: Any, n: int, dim: int, lowest: int = 0, error: type[Exception] = RuntimeError) -> None:
    """Raise PyTorch's error for positions outside [lowest, n).  On a GPU nobody waits for the answer."""
    if not isinstance(index, np.ndarray) or not index.size:
        return
    if lowest == 0 and index.dtype.kind == "i":  # seen as unsigned, negative ones are too large as well
        largest = np.maximum.reduce(index.view(_UNSIGNED[index.dtype.itemsize]), axis=None)
    else:
        largest = index.max()
    if largest >= n or (lowest and index.min() < lowest):
        bad = index[(index < lowest) | (index >= n)].flat[0]
        raise error(f"index {bad} is out of bounds for dimension {dim} with size {n}")


def _positions(index: Any, n: int) -> Any:
    """`index` with negative values counted from the end."""
    return np.where(index < 0, index + n, index) if index.size and index.min() < 0 else index


def _add_at(x: Any, at: tuple[Any, ...], y: Any) -> None:
    """`x[at] += y` for open grids of positions.  See Note [Adding at positions]."""
    flatly(add_at, x, at, y)


def flatly(combine: Any, x: Any, at: tuple[Any, ...], y: Any) -> None:
    """`combine(x, at, y)` of vectors and flat positions, for open grids of positions."""
    out = contiguous(x)
    flat: Any = 0
    step = 1
    for i, n in zip(reversed(at), reversed(x.shape), strict=True):
        flat = flat + i * step
        step *= n
    combine(out.reshape(-1), flat.reshape(-1), np.broadcast_to(y, flat.shape).reshape(-1))
    if out is not x:
        x[...] = out


def _grid(shape: Sequence[int], ndim: int, first: int, like: Any) -> list[Any]:
    """Positions 0…n-1 for each of `shape`, along dimension `first`, `first + 1`, … of `ndim`."""
    return [cuda.like(like, _count_along(n, first + i, ndim)) for i, n in enumerate(shape)]


@lru_cache(maxsize=64)
def _count_along(n: int, dim: int, ndim: int) -> Any:
    """0…n-1 along one of `ndim` dimensions."""
    return np.arange(n).reshape([n if d == dim else 1 for d in range(ndim)])


# ---------------------------------------------------------------------------------------------------------- slices


def _index_aval(index: Any, name: str) -> None:
    if index.dtype.kind != "i" or index.dtype.itemsize < 4:
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index, got {index.dtype}")


def _long_only(index: Any, error: str, kind: type[Exception] = RuntimeError) -> None:
    if index._array.dtype != promote.INT64:
        raise kind(error.format(dtype_title(index._array.dtype)))


def _index_select_aval(x: Any, index: Any, dim: int = 0, wrap: bool = True) -> Aval:
    _index_aval(index, "index_select")
    d = axis(dim, len(x.shape))
    return Aval((*x.shape[:d], *index.shape, *x.shape[d + 1 :]), x.dtype)


def _index_select_kernel(x: Any, index: Any, dim: int, wrap: bool) -> Any:
    if not x.ndim:  # which NumPy takes for one slice
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    if not wrap and isinstance(index, np.ndarray) and index.size and index.min() < 0:
        raise IndexError("index out of range in self")
    try:
        if not x.size:  # NumPy looks at no index then; the C kernel does
            _check_range(index, x.shape[dim], dim, -x.shape[dim], IndexError)
        return x.take(index, axis=dim)
    except IndexError:
        if not wrap:
            raise IndexError("index out of range in self") from None
        _check_range(index, x.shape[dim], dim, -x.shape[dim], IndexError)
        raise


def _no_slice(place: int, x: Any, index: Any, dim: int, wrap: bool) -> IndexError:
    """The error of an index that names no slice."""
    return _index_changed(place, x, index, x.shape, dim) if wrap else IndexError("index out of range in self")


def _index_select_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    x, index = xs
    rank = x._array.ndim - batched[0]
    dim = axis(attrs["dim"], rank)
    if not batched[1] and rank:
        return call(_index_select, (x, index), {**attrs, "dim": dim + 1})
    if not rank:
        return None
    if batched[0]:  # rows of its own for each sample
        n, lead, rest = x._array.shape[dim + 1], x._array.shape[: dim + 1], x._array.shape[dim + 2 :]
        at = index + n * (index < 0) if attrs["wrap"] else index
        at = reshape(at, (size, *[1] * dim, index._array.size // size, *[1] * len(rest)))
        return _gather(x, expand(at, (*lead, at._array.shape[dim + 1], *rest)), dim + 1)
    out = call(_index_select, (x, index), {**attrs, "dim": dim})  # (…, B, n, …)
    return permute(out, (dim, *[d for d in range(out._array.ndim) if d != dim]))


_index_select = Op(
    "index_select",
    kind=kinds.rows("dim", shared=("index",)),
    batch=_index_select_samples,
    infer=_index_select_aval,
    order=placement.PICKED,
    numpy=_index_select_kernel,
    c=moving("index_select", picked, _no_slice),
    save=("x.shape", "index"),
    vjp=(lambda g, shape, index, dim, wrap: _index_select_backward(g, index, shape, dim), None),
    onnx="Gather",
)


def _index_select_backward_aval(g: Any, index: Any, shape: Any = (), dim: int = 0) -> Aval:
    at = axis(dim, len(shape))
    if any(n < 0 for n in shape) or g.shape != (*shape[:at], *index.shape, *shape[at + 1 :]):
        raise RuntimeError(f"index_select: a gradient of {g.shape} for an index of {index.shape} into {shape}")
    return Aval(shape, g.dtype)


def _index_select_backward_kernel(g: Any, index: Any, shape: tuple[int, ...], dim: int) -> Any:
    _check_range(index, shape[dim], dim, -shape[dim], IndexError)  # it may have been changed since the forward pass
    out = np.zeros_like(g, shape=shape, order="C")
    _add_slices(out, index, g, dim)
    return out


def _index_select_sizes(g: Any, index: Any, shape: tuple[int, ...], dim: int) -> dict[str, int]:
    """Sizes of the kernel: for each place before `dim`, a table with a row for each index."""
    at = axis(dim, len(shape))
    outer, d = math.prod(shape[:at]), math.prod(shape[at + 1 :])
    return {"outer": outer, "count": math.prod(index.shape), "rows": shape[at], "d": d, "padding_idx": -1, "wrap": 1}


def _index_changed(place: int, g: Any, index: Any, shape: tuple[int, ...], dim: int) -> IndexError:
    """The error of an index that names nothing any more."""
    return IndexError(f"index {index.reshape(-1)[place]} is out of bounds for dimension {dim} with size {shape[dim]}")


_index_select_backward = Op(
    "index_select_backward",
    kind=kinds.rows("dim", shapes=("shape",), shared=("index",)),
    infer=_index_select_backward_aval,
    numpy=_index_select_backward_kernel,
    c=C("embedding", "embedding_backward", _index_select_sizes, _index_changed, halves=False),
    save=("index",),
    vjp=(lambda g, index, shape, dim: _index_select(g, index, dim), None),
)


def _add_slices(x: Any, index: Any, y: Any, dim: int) -> None:
    dim %= x.ndim
    after = x.shape[dim + 1 :]
    ndim = dim + index.ndim + len(after)
    at = _positions(index, x.shape[dim]).reshape((*index.shape, *[1] * len(after)))
    _add_at(x, (*_grid(x.shape[:dim], ndim, 0, x), at, *_grid(after, ndim, dim + index.ndim, x)), y)


def _index_put_aval(x: Any, index: Any, y: Any, dim: int = 0, accumulate: bool = False) -> Aval:
    if x.dtype != y.dtype:
        raise RuntimeError(
            "Index put requires the source and destination dtypes match, got "
            f"{dtype_title(x.dtype)} for the destination and {dtype_title(y.dtype)} for the source."
        )
    target = _index_select_aval(x, index, dim).shape
    if not _fits(y.shape, target):
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(y.shape)} cannot be broadcast to indexing result of shape "
            f"{list(target)}"
        )
    return Aval(x.shape, x.dtype)


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    lead = len(target) - len(shape)
    return lead >= 0 and all(n in (1, m) for n, m in zip(shape, target[lead:], strict=True))


def _stable(index: Any) -> Any:
    """A copy: NumPy looks at positions and masks twice, and another thread may change them in between."""
    return index.copy() if isinstance(index, np.ndarray) else index


def _index_put_into(x: Any, index: Any, y: Any, dim: int, accumulate: bool) -> None:
    if x.dtype != y.dtype:
        _index_put_aval(x, index, y, dim, accumulate)
    try:
        index = _stable(index)
        _check_range(index, x.shape[dim], dim, -x.shape[dim], IndexError)
        if accumulate:
            _add_slices(x, index, y, dim)
        else:
            x[(*[slice(None)] * (dim % x.ndim), index)] = y
    except ValueError:
        _index_put_aval(x, index, y, dim, accumulate)
        raise


def _index_put_kernel(x: Any, index: Any, y: Any, dim: int, accumulate: bool) -> Any:
    out = x.copy()
    _index_put_into(out, index, y, dim, accumulate)
    return out


def _index_put_rule(g: Any, index: Any, dim: int, accumulate: bool) -> Any:
    zero = wrap(cuda.like(g._array, np.zeros((), g._array.dtype)))
    return g if accumulate else _index_put(g, index, zero, dim)


def _index_put_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    x, index, y = xs
    if batched[1] or x._array.ndim == batched[0]:
        return None
    x = x if batched[0] else expand(x, (size, *x._array.shape))
    rank = x._array.ndim - 1
    (y,) = _aligned((batched[2],), (y,), rank - 1 + index._array.ndim)
    return call(_index_put, (x, index, y), {**attrs, "dim": axis(attrs["dim"], rank) + 1})


_index_put = Op(
    "index_put",
    kind=kinds.rows("dim", shared=("index",)),
    batch=_index_put_samples,
    infer=_index_put_aval,
    numpy=_index_put_kernel,
    into=_index_put_into,
    save=("index",),
    vjp=(_index_put_rule, None, lambda g, index, dim, accumulate: _index_select(g, index, dim)),
)


def _flat_index_aval(*indices: Any, sizes: Any = ()) -> Aval:
    try:
        shape = broadcast_shapes(*[i.shape for i in indices])
    except RuntimeError:
        shapes = ", ".join(str(list(i.shape)) for i in indices)
        raise IndexError(
            f"shape mismatch: indexing tensors could not be broadcast together with shapes {shapes}"
        ) from None
    return Aval(shape, promote.INT64)


def _flat_index_kernel(*indices: Any, sizes: tuple[int, ...]) -> Any:
    if isinstance(indices[0], np.ndarray):
        try:
            return np.ravel_multi_index(indices, sizes)
        except ValueError:  # negative, out of range, or no common shape
            for dim, (i, n) in enumerate(zip(indices, sizes, strict=True)):
                _check_range(i, n, dim, -n, IndexError)
    flat = 0
    for i, n in zip(indices, sizes, strict=True):
        flat = flat * n + np.where(i < 0, i + n, i)
    return flat


_flat_index = Op("flat_index", kind=kinds.ELEMENTWISE, infer=_flat_index_aval, numpy=_flat_index_kernel, vjp=None)


# -------------------------------------------------------------------------------------------------------- elements


def _along(x: Any, index: Any, dim: int) -> tuple[Any, ...]:
    """The positions that `index` means: its own along `dim`, where each element stands along the others."""
    at: list[Any] = _grid(index.shape, index.ndim, 0, x)
    at[dim] = index
    return tuple(at)


def _gather_aval(x: Any, index: Any, dim: int = 0, alike: bool = False) -> Aval:
    _index_aval(index, "gather")
    if len(x.shape) != len(index.shape):
        raise RuntimeError("Index tensor must have the same number of dimensions as input tensor")
    d = axis(dim, len(x.shape))
    for k, (n, m) in enumerate(zip(index.shape, x.shape, strict=True)):
        if n > m and k != d:
            raise RuntimeError(
                f"Size does not match at dimension {k} expected index {list(index.shape)} to be no larger than self "
                f"{list(x.shape)} apart from dimension {d}"
            )
    return Aval(index.shape, x.dtype)


@lru_cache(maxsize=16)
def _row_starts(shape: tuple[int, ...]) -> Any:
    """The flat position of the first element of each row."""
    return np.arange(math.prod(shape[:-1])) * shape[-1]


def _gather_kernel(x: Any, index: Any, dim: int, alike: bool) -> Any:
    if index.ndim != x.ndim or index.dtype.kind != "i":
        raise ValueError("index does not fit")
    dim %= x.ndim
    _check_range(index, x.shape[dim], dim)
    if index.shape[:dim] == x.shape[:dim] and dim == x.ndim - 1 and x.flags.c_contiguous:
        start = _row_starts(x.shape).reshape((*index.shape[:dim], 1))
        return x.reshape(-1).take(index + cuda.like(x, start))  # one flat index: faster than one per dimension
    return in_order(x[_along(x, index, dim)])


def _no_element(place: int, x: Any, index: Any, dim: int, x_shape: Any = None, **attrs: Any) -> RuntimeError:
    """The error of an index that names no element."""
    size = (x.shape if x_shape is None else x_shape)[dim]
    return RuntimeError(f"index {index.reshape(-1)[place]} is out of bounds for dimension {dim} with size {size}")


def _gather_backward(g: Any, index: Any, x_shape: Any, dim: int, alike: bool, needs: Any) -> Any:
    out = np.zeros_like(g, shape=x_shape, order="C")
    _scatter_add_into(out, index, g, dim)
    return out


_gather = Op(
    "gather",
    kind=kinds.rows("dim"),
    infer=_gather_aval,
    order=placement.GATHERED,
    numpy=_gather_kernel,
    c=moving("gather", gathered, _no_element),
    save=("x.shape", "index"),
    vjp=Gradient(
        lambda g, needs, shape, index, dim, alike: (_scatter_add(_zeros(g, shape), index, g, dim), None),
        results=lambda known: Aval(known.x_shape, known.g.dtype),
        numpy=_gather_backward,
        c=C(
            "move",
            "gather_backward",
            gathered,
            _no_element,
            halves=False,
            other=C("move", "gather_backward_f64", gathered, _no_element, halves=False),
        ),
    ),
    onnx="GatherElements",
)


def _put_back(g: Any, shape: tuple[int, ...], index: Any, dim: int) -> Any:
    """The gradient of `_gather`: `g` where it took an element of `shape` along `dim`, else zeros."""
    vjp = _gather.vjp
    assert isinstance(vjp, Gradient)
    return vjp.pull(g, (True, False), shape, index, dim=dim, alike=False)[0]


def _zeros(like: Any, shape: tuple[int, ...]) -> Tensor:
    return wrap(cuda.like(like._array, np.zeros(shape, like._array.dtype)))


def _scatter_aval(x: Any, index: Any, y: Any, dim: int = 0) -> Aval:
    _index_aval(index, "scatter")
    if x.dtype != y.dtype:
        raise RuntimeError(f"scatter(): Expected self.dtype to be equal to src.dtype, got {x.dtype} and {y.dtype}")
    if not len(x.shape) == len(index.shape) == len(y.shape):
        raise RuntimeError("Index tensor must have the same number of dimensions as self tensor")
    d = axis(dim, len(x.shape))
    if (
        any(n > m and k != d for k, (n, m) in enumerate(zip(index.shape, x.shape, strict=True)))
        or index.shape != y.shape
    ):
        raise RuntimeError(
            f"Expected index {list(index.shape)} to be no larger than self {list(x.shape)} apart from dimension {d} "
            f"and to be no larger size than src {list(y.shape)}"
        )
    return Aval(x.shape, x.dtype)


def _scatter_positions(x: Any, index: Any, y: Any, dim: int) -> tuple[Any, ...]:
    if x.dtype != y.dtype or x.ndim != index.ndim or index.shape != y.shape or index.dtype.kind != "i":
        _scatter_aval(x, index, y, dim)
    dim %= x.ndim
    index = _stable(index)
    _check_range(index, x.shape[dim], dim)
    return _along(x, index, dim)


def _scatter_into(x: Any, index: Any, y: Any, dim: int) -> None:
    try:
        x[_scatter_positions(x, index, y, dim)] = y
    except IndexError:
        _scatter_aval(x, index, y, dim)
        raise


def _scatter_add_into(x: Any, index: Any, y: Any, dim: int) -> None:
    at = _scatter_positions(x, index, y, dim)
    _scatter_aval(x, index, y, dim)  # flat positions would not notice
    _add_at(x, at, y)


def _copied(into: Any) -> Any:
    """The kernel that writes into a copy of its first input."""

    def kernel(x: Any, *others: Any, **attrs: Any) -> Any:
        out = x.copy()
        into(out, *others, **attrs)
        return out

    return kernel


def _scatter_rule(g: Any, index: Any, dim: int) -> Any:
    return _scatter(g, index, expand(_zeros(g, ()), index._array.shape), dim)


_scatter = Op(
    "scatter",
    kind=kinds.rows("dim"),
    infer=_scatter_aval,
    numpy=_copied(_scatter_into),
    into=_scatter_into,
    save=("index",),
    vjp=(_scatter_rule, None, lambda g, index, dim: _gather(g, index, dim)),
    onnx="ScatterElements",
)

_scatter_add = Op(
    "scatter_add",
    kind=kinds.rows("dim"),
    infer=_scatter_aval,
    numpy=_copied(_scatter_add_into),
    into=_scatter_add_into,
    save=("index",),
    vjp=(lambda g, index, dim: g, None, lambda g, index, dim: _gather(g, index, dim)),
)


def gather(input: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    """`out[i][j] = input[index[i][j]][j]` for `dim` 0, and so on: one element along `dim` for each of `index`.

    Args:
        index: int32 or int64, with the dimensions of `input`, no larger than it except along `dim`.
        sparse_grad: Accepted for PyTorch's signature; gradients are dense.
    """
    _index_aval(index._array, "gather")
    if input._array.ndim == 0:
        return reshape(_gather(reshape(input, 1), reshape(index, -1), axis(dim, 0)), index._array.shape)
    return _gather(input, index, dim)
