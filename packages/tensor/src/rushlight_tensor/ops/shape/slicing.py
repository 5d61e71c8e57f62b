"""Basic indexing: a part of a tensor as a view, and the functions that return one.

Note [What `at` says]
    `_slice(x, at)` is basic indexing.  `at` has one entry per dimension, from the first: an int selects, a tuple
    (start, stop, step) cuts as a Python slice does, None adds a dimension of size 1.  The dimensions that it does not
    reach are whole.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.infer import Aval, axis
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.views import view_path

CHECKS_ARGUMENTS = True  # see `ops`


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


def _slice_rule(g: Any, shape: tuple[int, ...], at: Any) -> Any:
    if all(e is None or e == _ALL for e in at):  # every element is there, so nothing has to be filled in
        return call(_slice, (g,), {"at": tuple([0 if e is None else _ALL for e in at])}, hidden=True)
    return _slice_put(g, shape, at)


_ALL = (None, None, None)


def _slice_node(n: Any) -> str:
    """PyTorch takes an index apart, so the last entry that says something names the node."""
    last = next((e for e in reversed(n.attrs["at"]) if e != _ALL), _ALL)
    return "UnsqueezeBackward0" if last is None else "SliceBackward0" if type(last) is tuple else "SelectBackward0"


def _slice_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    return call(_slice, tuple(xs), {"at": (_ALL, *attrs["at"])})


def _slice_put_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    return call(_slice_put, tuple(xs), {"shape": (size, *attrs["shape"]), "at": (_ALL, *attrs["at"])})


_slice = Op(
    "slice",
    kind=kinds.view(),
    batch=_slice_samples,
    infer=_slice_aval,
    numpy=_slice_kernel,
    view=True,
    save=("x.shape",),
    vjp=(_slice_rule,),
    node_name=_slice_node,
)

_slice_put = Op(
    "slice_backward",
    kind=kinds.linear(shapes=("shape",)),
    batch=_slice_put_samples,
    infer=_slice_put_aval,
    numpy=_slice_put_kernel,
    vjp=(lambda g, shape, at: _slice(g, at),),
)

_slice.view_of = view_path(_slice, "slice")


def _at(x: Any, *at: Any) -> Any:
    """The view `x[at]`."""
    return _slice.view_of(x, {"at": at})


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


def _dim_of(x: Any, dim: int, name: str) -> int:
    if x._array.ndim == 0:
        raise RuntimeError(f"{name}() cannot be applied to a 0-dim tensor.")
    return axis(dim, x._array.ndim)


def _part_of(part: Any, src: Any) -> Any:
    """`part`, which `src` is to be written to.  Raises RuntimeError where it is not of the same size."""
    if part._array.shape != src._array.shape:
        raise RuntimeError(
            "expected src to have a size equal to the slice of self. "
            f"src size = {list(src._array.shape)}, slice size = {list(part._array.shape)}"
        )
    return part
