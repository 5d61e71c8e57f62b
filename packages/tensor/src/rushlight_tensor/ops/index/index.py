"""Indexing: `x[…]` and `x[…] = …` in all their forms, and the functions that select, fill and write by index.

Note [How an index is read]
    An index is first cut into its basic part (ints, slices, None, Ellipsis), which makes a view, and the tensors that
    are left.  These become one flat index into the dimensions that they stand for, flattened to one, so that reading
    is one `_index_select` and writing one `_index_put`, whatever the index was.  As in PyTorch, the dimensions of the
    index stand where the tensors stood, or first if there was something between them.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, dispatch, kinds, order, placement
from rushlight_tensor.core.dispatch import look
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.infer import Aval, axis, broadcast_shapes
from rushlight_tensor.core.inplace import inplace
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.layout import is_contiguous
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.quiet import quietly
from rushlight_tensor.core.scalars import checked
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.index.gather import _flat_index, _index_put, _index_select, _stable
from rushlight_tensor.ops.math.cast import cast, clone, copy
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.shape.shape import _permute, _view, expand, reshape
from rushlight_tensor.ops.shape.slicing import _ALL, _at, _part_of, _slice

# ---------------------------------------------------------------------------------------------- reading an index

_Parts = tuple[tuple[Any, ...], list[tuple[int, Tensor]]]


def _parse(x: Tensor, index: Any) -> _Parts:
    """The basic part of an index, and the tensors with the dimension of the basic result they index."""
    plain = _plain(index)
    if plain is not None:
        return plain, []
    items = index if isinstance(index, tuple) else tuple(index) if _is_tuple_in_disguise(index) else (index,)
    items = tuple([_entry(e) for e in items])
    spare = x._array.ndim - sum(_width(e) for e in items)
    if spare < 0:
        if x._array.ndim == 0 and not any(isinstance(e, Tensor) for e in items):
            _slice.infer(Aval((), x._array.dtype), at=(0,))
        raise IndexError(f"too many indices for tensor of dimension {x._array.ndim}")
    at: list[Any] = []
    tensors: list[tuple[int, Tensor]] = []
    dim = 0  # of the basic result
    for e in items:
        if e is Ellipsis:
            at += [_ALL] * spare
            dim += spare
            spare = 0
        elif isinstance(e, bool):  # one, or none, of a dimension that it makes
            tensors.append((dim, wrap(cuda.like(x._array, np.zeros(int(e), np.int64)))))
            at.append(None)
            dim += 1
        elif isinstance(e, Tensor):
            _check_mask(x, e, dim, at)
            tensors.append((dim, e))
            at += [_ALL] * _width(e)
            dim += _width(e)
        else:
            at.append(e)
            dim += type(e) is not int
    while at and at[-1] is _ALL:
        at.pop()
    return tuple(at), tensors


def _plain(index: Any) -> tuple[Any, ...] | None:
    """An index of ints, slices and None alone, in the form that `_slice` takes: most of them are."""
    at: list[Any] = []
    for e in index if type(index) is tuple else (index,):
        if type(e) is int or e is None:
            at.append(e)
        elif type(e) is slice:
            at.append(_bounds(e))
        else:
            return None
    return tuple(at)


def _is_tuple_in_disguise(index: Any) -> bool:
    """PyTorch reads a short list that holds sequences, slices or tensors as a tuple."""
    if not isinstance(index, list) or len(index) >= 32:
        return False
    return any(e is None or e is Ellipsis or isinstance(e, (slice, list, tuple, Tensor, np.ndarray)) for e in index)


def _entry(e: Any) -> Any:
    """One entry in the form that `_slice` takes, or an index tensor."""
    if type(e) is int or e is None or e is Ellipsis or isinstance(e, bool):
        return e
    if isinstance(e, slice):
        return _bounds(e)
    if isinstance(e, np.bool_):
        return bool(e)
    if isinstance(e, (list, tuple, range, np.ndarray)):
        e = _tensor_of(e)
    if isinstance(e, Tensor):
        kind = e._array.dtype.kind
        if kind == "b" or (kind == "i" and e._array.dtype.itemsize >= 4) or e._array.dtype == np.uint8:
            if not e._array.ndim and (kind != "i" or dispatch.INTERCEPT is None):
                return bool(look(e, "index")) if kind == "b" else int(look(e, "index"))
            return cast(e, dtype=np.dtype(np.bool_)) if kind == "u" else e
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    if isinstance(e, str):
        raise TypeError(f"new(): invalid data type 'str': index by numbers, slices and tensors, not {e!r}")
    try:
        return operator.index(e)
    except TypeError:
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
            f"(got {type(e).__name__})"
        ) from None


def _bounds(s: slice) -> tuple[Any, Any, Any]:
    if s.start is None and s.stop is None and s.step is None:
        return _ALL
    start, stop, step = (v if v is None or type(v) is int else operator.index(v) for v in (s.start, s.stop, s.step))
    if step is not None and step <= 0:
        raise ValueError("step must be greater than zero")
    return start, stop, step


def _tensor_of(data: Any) -> Tensor:
    array = np.asarray(data)
    if array.size == 0:
        array = array.astype(np.int64)
    elif array.dtype.kind in "iu":
        array = array.astype(np.int64, copy=False)
    elif array.dtype.kind == "f" and not isinstance(data, np.ndarray):
        array = array.astype(np.int64)
    elif array.dtype.kind != "b":
        raise IndexError(f"tensors used as indices must be long, int, byte or bool tensors, got {array.dtype}")
    return wrap(array)


def _width(e: Any) -> int:
    """How many dimensions of the tensor an entry stands for."""
    if e is None or e is Ellipsis or isinstance(e, bool):
        return 0
    return e._array.ndim if isinstance(e, Tensor) and e._array.dtype.kind == "b" else 1


def _check_mask(x: Tensor, mask: Tensor, dim: int, at: list[Any]) -> None:
    if mask._array.dtype.kind != "b":
        return
    here = sum(e is not None for e in at)
    shape = x._array.shape[here : here + mask._array.ndim]
    if shape != mask._array.shape:
        raise IndexError(
            f"The shape of the mask {list(mask._array.shape)} at index {dim} does not match the shape of the indexed "
            f"tensor {list(x._array.shape)} at index {here}"
        )


def _beside(index: Tensor, x: Tensor) -> Tensor:
    """`index` on the device of `x`."""
    return index if type(index._array) is type(x._array) else index.to(x.device)


def _address(x: Tensor, tensors: list[tuple[int, Tensor]]) -> tuple[tuple[int, ...] | None, int, int, Tensor]:
    """What the index tensors mean: (order for the dimensions of `x`, the first of them, how many, flat index)."""
    if len(tensors) == 1:
        dim, index = tensors[0]
        if index._array.dtype.kind == "b":
            return None, dim, index._array.ndim, _beside(wrap(np.flatnonzero(_stable(look(index, "index")))), x)
        return None, dim, 1, _beside(index, x)
    dims: list[int] = []
    indices: list[Tensor] = []
    for dim, index in tensors:
        parts = (
            [wrap(i) for i in np.nonzero(_stable(look(index, "index")))] if index._array.dtype.kind == "b" else [index]
        )
        dims += range(dim, dim + len(parts))
        indices += [_beside(i, x) for i in parts]
    flat = _flat_index(*indices, sizes=tuple([x._array.shape[d] for d in dims]))
    if dims == list(range(dims[0], dims[0] + len(dims))):
        return None, dims[0], len(dims), flat
    return (*dims, *[d for d in range(x._array.ndim) if d not in dims]), 0, len(dims), flat


def _merged(shape: tuple[int, ...], dim: int, count: int) -> tuple[int, ...]:
    return (*shape[:dim], math.prod(shape[dim : dim + count]), *shape[dim + count :])


def _getitem(self: Tensor, index: Any) -> Tensor:
    if type(index) is int:
        return _at(self, index)
    at, tensors = _parse(self, index)
    x = _at(self, *at) if at or not tensors else self
    if not tensors:
        return x
    order, dim, count, flat = _address(x, tensors)
    if order is not None:
        x = _permute(x, order)
    if count != 1:
        x = reshape(x, _merged(x._array.shape, dim, count))
    return dispatch.call(_index_select, (x, flat), {"dim": dim, "wrap": True})


# ---------------------------------------------------------------------------------------------- writing by index


def _setitem(self: Tensor, index: Any, value: Any) -> None:
    if not isinstance(value, Tensor):
        value = _number(self, value)
    if isinstance(index, (bool, np.bool_)):  # of a dimension that it makes, all or nothing
        if index:
            whole = self.unsqueeze(0)
            whole.copy_(_without_leading_ones(value, whole._array.ndim))
        return
    at, tensors = _parse(self, index)
    x = _at(self, *at) if at or not tensors else self
    if tensors:
        _put(x, tensors, value, False)
        return
    value = _without_leading_ones(value, x._array.ndim)
    x.copy_(value)


def _number(x: Tensor, value: Any) -> Tensor:
    """A Python or NumPy number as a 0-d tensor for `x`."""
    if not isinstance(value, (int, float, complex, np.generic)):
        raise TypeError(f"can't assign a {type(value).__name__} to a torch.{dtype_title(x._array.dtype)}Tensor")
    number = checked(value.item() if isinstance(value, np.generic) else value, x._array.dtype)
    return wrap(cuda.like(x._array, quietly(np.asarray, number, dtype=x._array.dtype)))


def _without_leading_ones(value: Tensor, ndim: int) -> Tensor:
    shape = value._array.shape
    extra = len(shape) - ndim
    if extra > 0 and all(n == 1 for n in shape[:extra]):
        return reshape(value, shape[extra:])
    return value


def _put(x: Tensor, tensors: list[tuple[int, Tensor]], value: Tensor, accumulate: bool) -> None:
    """`x[tensors] = value` in place, or `+=` with repeated positions adding up."""
    first, mask = tensors[0]
    if mask._array.dtype.kind == "b" and len(tensors) == 1 and value._array.size == 1 and not accumulate:
        rest = x._array.ndim - first - mask._array.ndim
        mask = reshape(mask, (*mask._array.shape, *[1] * rest)) if rest else mask
        inplace(_masked_fill, x, mask.to(x.device), _fill_value("index_put_", x, reshape(value, ())))
        return
    order, dim, count, flat = _address(x, tensors)
    if order is not None:
        x = _permute(x, order)
    shape = _merged(x._array.shape, dim, count)
    value = _without_leading_ones(value, len(shape) - 1 + flat._array.ndim)
    try:
        target = x if count == 1 else _view(x, shape)
    except (ValueError, RuntimeError):  # the strides do not allow to merge the dimensions
        whole = _index_put(reshape(x, shape), flat, value, dim, accumulate)
        inplace(copy, x, reshape(whole, x._array.shape))
        return
    inplace(_index_put, target, flat, value, dim=dim, accumulate=accumulate)


def index_put_(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """`input[indices] = values` for index tensors; with `accumulate`, `+=` where repeated positions add up."""
    for i, e in enumerate(indices):
        if not isinstance(e, Tensor):
            raise TypeError(f"expected Tensor as element {i} in argument 0, but got {type(e).__name__}")
    at, tensors = _parse(input, tuple(indices))
    _put(_at(input, *at) if at else input, tensors or [(0, wrap(np.zeros(1, np.int64)))], values, accumulate)
    return input


def index_put(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """A copy of `input` after `index_put_`."""
    return index_put_(clone(input), indices, values, accumulate)


def put_(input: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """Write `source` to the positions `index` of the flattened `input`, in place."""
    if not is_contiguous(input._array):
        return input.copy_(reshape(put_(reshape(clone(input), -1), index, source, accumulate), input._array.shape))
    index_put_(reshape(input, -1), (reshape(index, -1),), reshape(source, -1), accumulate)
    return input


def select_scatter(input: Any, src: Any, dim: int, index: int) -> Any:
    """A copy of `input` with `src` in place of element `index` of dimension `dim`."""
    out = clone(input)
    _part_of(out.select(dim, index), src).copy_(src)
    return out


def slice_scatter(
    input: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """A copy of `input` with `src` in place of `[start:end:step]` along `dim`."""
    out = clone(input)
    _part_of(_at(out, *[_ALL] * axis(dim, input._array.ndim), (start, end, step)), src).copy_(src)
    return out


# ------------------------------------------------------------------------------------------------------------ masks


def _fill_value(name: str, x: Any, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return _number(x, value)
    if value._array.ndim:
        raise RuntimeError(
            f"{name} only supports a 0-dimensional value tensor, but got tensor with {value._array.ndim} dimension(s)."
        )
    if value._array.dtype == x._array.dtype:
        return value
    if value._array.dtype.kind == "c" and dispatch.INTERCEPT is None:
        checked(value.item(), x._array.dtype)
    return cast(value, dtype=x._array.dtype)


def _masked_fill_aval(x: Any, mask: Any, y: Any) -> Aval:
    if mask.dtype.kind != "b":
        raise RuntimeError(f"masked_fill_ only supports boolean masks, but got mask with dtype {mask.dtype}")
    shape = broadcast_shapes(x.shape, mask.shape)
    return Aval(shape, x.dtype, order.like(x) if shape == x.shape else order.contiguous(shape))


def _masked_fill_into(x: Any, mask: Any, y: Any) -> None:
    if mask.dtype.kind != "b":
        _masked_fill_aval(x, mask, y)
    try:
        np.copyto(x, y, where=mask)
    except ValueError:
        shape = _masked_fill_aval(x, mask, y).shape
        raise RuntimeError(
            f"output with shape {list(x.shape)} doesn't match the broadcast shape {list(shape)}"
        ) from None


def _masked_fill_kernel(x: Any, mask: Any, y: Any) -> Any:
    out = x.copy("K") if x.ndim >= mask.ndim else np.broadcast_to(x, np.broadcast_shapes(x.shape, mask.shape)).copy()
    try:
        np.copyto(out, y, where=mask)
    except ValueError:
        out = np.broadcast_to(x, np.broadcast_shapes(x.shape, mask.shape)).copy()
        np.copyto(out, y, where=mask)
    return out


def _masked_fill_rule(g: Any, mask: Any) -> Any:
    return _masked_fill(g, mask, wrap(cuda.like(g._array, np.zeros((), g._array.dtype))))


_masked_fill = Op(
    "masked_fill",
    kind=kinds.INTO_FIRST,
    infer=_masked_fill_aval,
    order=placement.CONTIGUOUS,
    numpy=_masked_fill_kernel,
    into=_masked_fill_into,
    save=("mask",),
    vjp=(_masked_fill_rule, None, lambda g, mask: where(mask, g, 0.0)),
)


def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """`value` (a number or 0-d tensor) where the bool `mask` holds, `input` elsewhere; both broadcast."""
    return _masked_fill(input, mask, _fill_value("masked_fill_", input, value))


def masked_fill_(input: Any, mask: Any, value: Any) -> Any:
    """`masked_fill` in place."""
    return inplace(_masked_fill, input, mask, _fill_value("masked_fill_", input, value))


def masked_select(input: Any, mask: Any) -> Any:
    """The elements of `input` where the bool `mask` holds, in one dimension; both broadcast."""
    if mask._array.dtype.kind != "b":
        raise RuntimeError(f"masked_select: expected BoolTensor for mask, got {mask._array.dtype}")
    shape = broadcast_shapes(input._array.shape, mask._array.shape)
    flat = wrap(np.flatnonzero(np.broadcast_to(_stable(look(mask, "masked_select")), shape)))
    return _index_select(reshape(expand(input, shape), -1), flat, 0)


def masked_scatter(input: Any, mask: Any, source: Any) -> Any:
    """A copy of `input`, broadcast with `mask`; where that holds, the elements are those of `source`, in order."""
    shape = broadcast_shapes(input._array.shape, mask._array.shape)
    return masked_scatter_(clone(expand(input, shape), memory_format=contiguous_format), mask, source)


def masked_scatter_(input: Any, mask: Any, source: Any) -> Any:
    """`masked_scatter` in place."""
    if mask._array.dtype.kind != "b":
        raise RuntimeError(f"masked_scatter_ only supports boolean masks, but got mask with dtype {mask._array.dtype}")
    if input._array.dtype != source._array.dtype:
        have, got = (dtype_title(t._array.dtype) for t in (input, source))
        raise RuntimeError(f"masked_scatter: expected self and source to have same dtypes but got {have} and {got}")
    if broadcast_shapes(input._array.shape, mask._array.shape) != input._array.shape:
        raise RuntimeError(
            f"masked_scatter_: the mask of shape {list(mask._array.shape)} does not broadcast to the tensor of shape "
            f"{list(input._array.shape)}; use the form without _"
        )
    if not input._array.ndim:
        masked_scatter_(reshape(input, 1), reshape(mask, 1), source)
        return input
    at = np.nonzero(np.broadcast_to(_stable(look(mask, "masked_scatter")), input._array.shape))
    count = at[0].size
    if source._array.size < count:
        raise RuntimeError(f"masked_scatter: source has too few elements, mask asks for {count}")
    return index_put_(input, [wrap(i) for i in at], _slice(reshape(source, -1), ((None, count, None),)))


def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """The indices of the elements that are not zero: (n, ndim), or with `as_tuple` one vector for each dimension."""
    array = look(input, "nonzero")
    if array.ndim == 0 and not as_tuple:
        return wrap(np.zeros((int(array != 0), 0), np.int64))
    parts = np.nonzero(_stable(array.reshape(1) if array.ndim == 0 else array))
    return tuple([wrap(i) for i in parts]) if as_tuple else wrap(np.stack(parts, axis=1))


def argwhere(input: Any) -> Any:
    """`nonzero` as an (n, ndim) tensor."""
    return nonzero(input)


SYNTAX = {
    "__getitem__": _getitem,
    "__setitem__": _setitem,
    "where": lambda self, condition, other: where(condition, self, other),
}
"""Methods that Python's syntax calls, and one whose arguments are in another order than those of its function."""
