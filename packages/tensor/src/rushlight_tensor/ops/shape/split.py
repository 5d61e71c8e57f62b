"""Cutting a tensor into pieces: views, whose gradients are put together once.

Note [One gradient for all pieces]
    A slice by itself has a gradient of the size of the whole tensor, zero outside.  With n pieces that is n tensors and
    n additions, for what one concatenation does; so pieces that are made together have one node.  Where one of them is
    written to, it is remade as the slice that it also is, see Note [Versions and views].
"""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, dispatch, kinds
from rushlight_tensor.core.infer import Aval, axis
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.shape.join import _cat, stack
from rushlight_tensor.ops.shape.slicing import _ALL, _at, _dim_of, _numpy_index, _slice


def _split_aval(x: Any, sizes: Any = (), dim: int = 0) -> tuple[Aval, ...]:
    return tuple([Aval((*x.shape[:dim], n, *x.shape[dim + 1 :]), x.dtype) for n in sizes])


def _split_kernel(x: Any, sizes: tuple[int, ...], dim: int) -> tuple[Any, ...]:
    return tuple(np.split(x, list(itertools.accumulate(sizes))[:-1], axis=dim))


def _filled(g: tuple[Any, ...], shapes: list[tuple[int, ...]]) -> list[Any]:
    """The gradients of all pieces, zeros for those that nothing depends on."""
    like = next(t for t in g if t is not None)._array
    return [
        wrap(cuda.like(like, np.zeros(shape, like.dtype))) if t is None else t
        for t, shape in zip(g, shapes, strict=True)
    ]


def _split_rule(g: tuple[Any, ...], shape: tuple[int, ...], sizes: tuple[int, ...], dim: int) -> Any:
    return _cat(*_filled(g, [(*shape[:dim], n, *shape[dim + 1 :]) for n in sizes]), dim=dim)


_split = Op(
    "split",
    kind=kinds.view("dim"),
    infer=_split_aval,
    numpy=_split_kernel,
    view=True,
    save=("x.shape",),
    vjp=(_split_rule,),
    onnx="Split",
)


def _unbind_aval(x: Any, dim: int = 0) -> tuple[Aval, ...]:
    return tuple([Aval((*x.shape[:dim], *x.shape[dim + 1 :]), x.dtype)] * x.shape[dim])


def _unbind_kernel(x: Any, dim: int) -> tuple[Any, ...]:
    moved = np.moveaxis(x, dim, 0)
    return tuple([moved[i, ...] for i in range(moved.shape[0])])


def _unbind_rule(g: tuple[Any, ...], shape: tuple[int, ...], dim: int) -> Any:
    return stack(_filled(g, [(*shape[:dim], *shape[dim + 1 :])] * shape[dim]), dim)


_unbind = Op(
    "unbind",
    kind=kinds.view("dim"),
    infer=_unbind_aval,
    numpy=_unbind_kernel,
    view=True,
    save=("x.shape",),
    vjp=(_unbind_rule,),
)


def _pieces(
    x: Tensor, places: list[Any], op: Op, attrs: dict[str, Any] | None, several: bool = True
) -> tuple[Any, ...]:
    """The slices of `x` at `places`, all of which `op(x, **attrs)` makes.  See Note [One gradient for all pieces].

    `several`: they count as results of one function, into which PyTorch does not let anybody write.
    """
    recorded = x._requires_grad and dispatch.MODE.grad and dispatch.INTERCEPT is None
    if not recorded or attrs is None or (len(places) < 2 and not several):
        return tuple([_at(x, *at) for at in places])
    outs = []
    array = dispatch.settle(x)
    for at in places:
        made = array[_numpy_index(at)] if type(array) is np.ndarray else dispatch.run(_slice, [array], {"at": at})
        piece = wrap(made)
        piece._view = dispatch.view_of(x, _slice, {"at": at}, several)
        outs.append(piece)
    if outs:
        dispatch.record(op, (x,), attrs, tuple(outs), several=True)
    return tuple(outs)


def unbind(input: Any, dim: int = 0) -> tuple[Any, ...]:
    """The slices along `dim`, as views."""
    if input._array.ndim == 0:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    dim = axis(dim, input._array.ndim)
    whole = [_ALL] * dim
    return _pieces(input, [(*whole, i) for i in range(input._array.shape[dim])], _unbind, {"dim": dim})


def split(input: Any, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None) -> tuple[Any, ...]:
    """Views of consecutive pieces along `dim`: of one size (the last may be smaller), or of the sizes given."""
    if split_size_or_sections is None:
        split_size_or_sections = split_size
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


def split_with_sizes(input: Any, split_sizes: Any, dim: int = 0) -> tuple[Any, ...]:
    """`split` into pieces of the sizes given."""
    return split(input, list(split_sizes), dim)


def _split_at(x: Any, ends: list[int], dim: int, several: bool = True) -> tuple[Any, ...]:
    whole = [_ALL] * dim
    bounds = list(itertools.pairwise([0, *ends, x._array.shape[dim]]))
    places = [(*whole, (a, max(a, b), None)) for a, b in bounds]
    disjoint = all(a <= b for a, b in bounds)
    attrs = {"sizes": tuple([b - a for a, b in bounds]), "dim": dim} if disjoint else None
    return _pieces(x, places, _split, attrs, several)


def chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    """At most `chunks` views of equal size along `dim`; the last may be smaller."""
    dim = _dim_of(input, dim, "chunk")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    n = input._array.shape[dim]
    if n == 0:
        return _split_at(input, [0] * (chunks - 1), dim)
    return split(input, -(-n // chunks), dim)


def tensor_split(
    input: Any, indices_or_sections: Any = None, dim: int = 0, *, sections: Any = None, indices: Any = None
) -> tuple[Any, ...]:
    """Views along `dim`: so many of nearly equal size, or cut at the indices given."""
    dim = _dim_of(input, dim, "tensor_split")
    indices_or_sections = _one_of("tensor_split", indices_or_sections, sections, indices)
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, (list, tuple)):
        n = input._array.shape[dim]
        ends = [min(n, e) if e >= 0 else max(0, e + n) for e in indices_or_sections]
        return _split_at(input, ends, dim, several=False)
    if indices_or_sections <= 0:
        raise RuntimeError(f"number of sections must be larger than 0, got {indices_or_sections}")
    small, larger = divmod(input._array.shape[dim], indices_or_sections)
    lengths = [small + (i < larger) for i in range(indices_or_sections)]
    return _split_at(input, list(itertools.accumulate(lengths))[:-1], dim, several=False)


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


def _one_of(function: str, *given: Any) -> Any:
    """PyTorch has three names for one argument."""
    found = [value for value in given if value is not None]
    if len(found) != 1:
        raise TypeError(f"{function}() takes one of indices_or_sections, sections and indices, got {len(found)}")
    return found[0]


def hsplit(
    input: Any, indices_or_sections: Any = None, *, sections: Any = None, indices: Any = None
) -> tuple[Any, ...]:
    """`tensor_split` into equal parts, or at indices, along dimension 1 (0 for vectors)."""
    parts = _one_of("hsplit", indices_or_sections, sections, indices)
    return _split_along(input, parts, min(1, input._array.ndim - 1), "hsplit", 1)


def vsplit(
    input: Any, indices_or_sections: Any = None, *, sections: Any = None, indices: Any = None
) -> tuple[Any, ...]:
    """`tensor_split` into equal parts, or at indices, along dimension 0."""
    parts = _one_of("vsplit", indices_or_sections, sections, indices)
    return _split_along(input, parts, 0, "vsplit", 2)


def dsplit(
    input: Any, indices_or_sections: Any = None, *, sections: Any = None, indices: Any = None
) -> tuple[Any, ...]:
    """`tensor_split` into equal parts, or at indices, along dimension 2."""
    parts = _one_of("dsplit", indices_or_sections, sections, indices)
    return _split_along(input, parts, 2, "dsplit", 3)
