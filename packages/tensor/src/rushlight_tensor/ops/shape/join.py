"""Putting tensors together, and repeating, turning and shifting one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from rushlight_tensor.core import dtypes, kinds, layout, order, placement, promote
from rushlight_tensor.core.dispatch import call, read
from rushlight_tensor.core.infer import Aval, axes, axis, sizes
from rushlight_tensor.core.keywords import also_as
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.layout import operand
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.kernels.move import joined, moving, stacked
from rushlight_tensor.ops.index.along import index_select
from rushlight_tensor.ops.math.cast import clone
from rushlight_tensor.ops.shape.samples import _in_front
from rushlight_tensor.ops.shape.shape import (
    atleast_1d,
    atleast_2d,
    atleast_3d,
    expand,
    flatten,
    reshape,
    transpose,
    unsqueeze,
)
from rushlight_tensor.ops.shape.slicing import _ALL, _at, _cut, select

# Concatenation


def _cat_aval(*xs: Any, dim: int = 0) -> Aval:
    if not xs:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    for i, x in enumerate(xs):
        if not x.shape:
            raise RuntimeError(f"zero-dimensional tensor (at position {i}) cannot be concatenated")
    solid = [(i, x.shape) for i, x in enumerate(xs) if x.shape != (0,)] or [(0, (0,))]
    first = solid[0][1]
    d = axis(dim, len(first))
    for i, shape in solid:
        if len(shape) != len(first):
            raise RuntimeError(f"Tensors must have same number of dimensions: got {len(first)} and {len(shape)}")
        for k, (n, m) in enumerate(zip(first, shape, strict=True)):
            if n != m and k != d:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {d}. Expected size {n} but got size {m} for "
                    f"tensor number {i} in the list."
                )
    total = sum(shape[d] for _, shape in solid)
    shape = (*first[:d], total, *first[d + 1 :])
    strides = order.channels_last(shape) if all(layout.is_image(x) for x in xs) else None
    return Aval(shape, promote.result_type(xs), strides)


def _cat_kernel(*xs: Any, dim: int) -> Any:
    try:
        out = np.concatenate(xs, axis=dim)
    except ValueError:
        solid = [x for x in xs if x.shape != (0,)]  # PyTorch leaves out empty vectors, whatever the other shapes
        if not solid or len(solid) == len(xs):
            raise
        out = np.concatenate(solid, axis=dim)
    if out.flags.c_contiguous or (out.ndim == 4 and all(layout.is_image(x) for x in xs)):
        return out
    return out.copy(order="C")


def _cat_rule(g: Any, needs: tuple[bool, ...], shapes: Any, dim: int) -> tuple[Any, ...]:
    dim = axis(dim, g.ndim)
    out, at = [], 0
    for need, shape in zip(needs, shapes, strict=True):
        skipped = shape == (0,) and g.ndim > 1
        size = 0 if skipped else shape[dim]
        piece = _cut(g, dim, at, at + size) if need else None
        out.append(reshape(piece, 0) if skipped and need else piece)
        at += size
    return tuple(out)


_cat = Op(
    "cat",
    kind=kinds.rows("dim"),
    infer=_cat_aval,
    order=placement.JOINED,
    numpy=_cat_kernel,
    c=moving("cat", joined),
    promote=promote.same,
    save=("xs.shape",),
    vjp=Gradient(_cat_rule),
    onnx="Concat",
)


def _stack_aval(*xs: Any, dim: int = 0) -> Aval:
    first = xs[0].shape
    for i, x in enumerate(xs):
        if x.shape != first:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first)} at entry 0 and {list(x.shape)} at "
                f"entry {i}"
            )
    at = axis(dim, len(first) + 1)
    return Aval((*first[:at], len(xs), *first[at:]), promote.result_type(xs))


def _stack_rule(g: Any, needs: tuple[bool, ...], dim: int) -> tuple[Any, ...]:
    return tuple([select(g, dim, i) if need else None for i, need in enumerate(needs)])


def _stack_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    xs = _in_front(size, batched, xs)
    return call(_stack, tuple(xs), {"dim": axis(attrs["dim"], xs[0]._array.ndim) + 1})


_stack = Op(
    "stack",
    kind=kinds.opaque("its dimension is one of the result, that no input has"),
    batch=_stack_samples,
    infer=_stack_aval,
    numpy=lambda *xs, dim: np.stack(xs, dim),
    c=moving("cat", stacked),
    promote=promote.same,
    vjp=Gradient(_stack_rule),
)


def cat(tensors: Any, dim: int = 0) -> Any:
    """The tensors one after the other along `dim`, other sizes equal; empty 1-d tensors are left out."""
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(
            f"cat(): argument 'tensors' (position 1) must be tuple of Tensors, not {type(tensors).__name__}"
        )
    if not tensors:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    for x in tensors:
        if type(x) is not Tensor and not isinstance(x, Tensor):
            i = next(i for i, x in enumerate(tensors) if not isinstance(x, Tensor))
            raise TypeError(f"expected Tensor as element {i} in argument 0, but got {type(x).__name__}")
    return call(_cat, tuple(tensors), {"dim": dim})


def concat(tensors: Any, dim: int = 0) -> Any:
    """`cat` under another name."""
    return cat(tensors, dim)


def concatenate(tensors: Any, dim: int = 0) -> Any:
    """`cat` under NumPy's name."""
    return cat(tensors, dim)


def stack(tensors: Any, dim: int = 0) -> Any:
    """Tensors of one shape along a new dimension."""
    if len(tensors) == 0:
        raise RuntimeError("stack expects a non-empty TensorList")
    if tensors[0]._array.ndim > 3 and all(placement.suggests_channels_last(operand(x._array)) for x in tensors):
        return _stack_of_images(tensors, dim)
    return call(_stack, tuple(tensors), {"dim": dim})


def _stack_of_images(tensors: Any, dim: int) -> Any:
    """Images keep their order."""
    shape = _stack_aval(*[x._array for x in tensors], dim=dim).shape
    at = axis(dim, len(shape))
    if at == len(shape) - 1:
        return call(_cat, tuple([unsqueeze(x, at) for x in tensors]), {"dim": at})
    return reshape(cat(tensors, at), shape)


def hstack(tensors: Any) -> Any:
    """Side by side: along dimension 1, vectors along dimension 0."""
    xs = atleast_1d(list(tensors))
    return cat(xs, 0 if xs and xs[0]._array.ndim == 1 else 1)


def vstack(tensors: Any) -> Any:
    """On top of each other: along dimension 0; vectors are rows."""
    return cat(atleast_2d(list(tensors)), 0)


def dstack(tensors: Any) -> Any:
    """Behind each other: along dimension 2."""
    return cat(atleast_3d(list(tensors)), 2)


def column_stack(tensors: Any) -> Any:
    """Side by side, vectors as columns."""
    return cat([reshape(x, (x._array.size, 1)) if x._array.ndim < 2 else x for x in tensors], 1)


def row_stack(tensors: Any) -> Any:
    """`vstack` under another name."""
    return vstack(tensors)


def block_diag(*tensors: Any) -> Any:
    """The matrices along the diagonal of a larger one, zeros outside; vectors are rows."""
    for i, x in enumerate(tensors):
        if x._array.ndim > 2:
            raise RuntimeError(
                "torch.block_diag: Input tensors must have 2 or fewer dimensions. "
                f"Input {i} has {x._array.ndim} dimensions"
            )
    if not tensors:
        return wrap(np.zeros((1, 0), dtypes.get_default_dtype().np))
    blocks = [atleast_2d(x) for x in tensors]
    width = sum(b._array.shape[1] for b in blocks)
    rows, left = [], 0
    for b in blocks:
        n, m = b._array.shape
        rows.append(cat([b.new_zeros(n, left), b, b.new_zeros(n, width - left - m)], 1))
        left += m
    return cat(rows, 0)


def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Any:
    """All combinations of `r` elements of a vector, in order, as rows."""
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(input._array.size), r)), np.int64).reshape(-1, r)
    return input[wrap(rows)]


# Repetition


@also_as("repeats")
def repeat(input: Any, *repeats: Any) -> Any:
    """The whole tensor, so many times along each dimension; more repeats than dimensions add leading ones."""
    times, shape = sizes(repeats), input._array.shape
    if len(times) < len(shape):
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    if any(r < 0 for r in times):
        raise RuntimeError(f"Trying to create tensor with negative dimension: repeats {list(times)}")
    shape = (1,) * (len(times) - len(shape)) + shape
    out = reshape(input, [s for n in shape for s in (1, n)])
    out = expand(out, [s for r, n in zip(times, shape, strict=True) for s in (r, n)])
    return reshape(clone(out, memory_format=contiguous_format), [r * n for r, n in zip(times, shape, strict=True)])


@also_as("dims")
def tile(input: Any, *dims: Any) -> Any:
    """`repeat`, where fewer numbers than dimensions stand for the last ones."""
    times = sizes(dims)
    return repeat(input, (1,) * (input._array.ndim - len(times)) + times)


def repeat_interleave(input: Any, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Any:
    """Each element (of the flat tensor, or along `dim`) several times in a row.

    Args:
        repeats: An int for all, or an integer tensor with one count each.
        output_size: Accepted for PyTorch's signature; the size is known here.
    """
    if dim is None:
        input, dim = reshape(input, -1), 0
    d = axis(dim, input._array.ndim)
    n = input._array.shape[d]
    if not isinstance(repeats, Tensor):
        if repeats < 0:
            raise RuntimeError(f"repeats can not be negative, got {repeats}")
        out = unsqueeze(input, d + 1)
        shape = list(out._array.shape)
        shape[d + 1] = repeats
        return flatten(clone(expand(out, shape), memory_format=contiguous_format), d, d + 1)
    counts = read(repeats, "repeat_interleave")
    if counts.ndim > 1 or counts.dtype.kind not in "iu":
        raise RuntimeError("repeats has to be a 0-dim or 1-dim tensor of integers")
    if counts.size not in (1, n):
        raise RuntimeError(
            f"repeats must have the same size as input along dim, but got repeats.size(0) = {counts.size} and "
            f"input.size({d}) = {n}"
        )
    if (counts < 0).any():
        raise RuntimeError("repeats can not be negative")
    return index_select(input, d, wrap(np.repeat(np.arange(n), counts)).to(input.device))


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Any, ...]:
    """Grids of the coordinates that vectors span, one per vector (views).

    Args:
        indexing: "ij": dimension i of each grid runs along vector i; "xy": the first two are exchanged.
    """
    xs = tuple(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    for x in xs:
        if x._array.ndim > 1:
            raise RuntimeError(
                f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {list(x._array.shape)}"
            )
        if x._array.dtype != xs[0]._array.dtype:
            raise RuntimeError("meshgrid expects all tensors to have the same dtype")
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    swap = indexing == "xy" and len(xs) > 1
    if swap:
        xs = (xs[1], xs[0], *xs[2:])
    shape = [x._array.size for x in xs]
    grids = [expand(reshape(x, [-1 if j == i else 1 for j in range(len(xs))]), shape) for i, x in enumerate(xs)]
    return tuple([grids[1], grids[0], *grids[2:]] if swap else grids)


def cartesian_prod(*tensors: Any) -> Any:
    """All combinations of elements of the vectors, as rows."""
    if len(tensors) == 1:
        return tensors[0]
    return stack([reshape(g, -1) for g in meshgrid(*tensors)], 1)


# Order


@also_as("dims")
def flip(input: Any, *dims: Any) -> Any:
    """The elements in reverse order along `dims` (a copy)."""
    if not dims:
        raise TypeError('flip() missing 1 required positional arguments: "dims"')
    want = sizes(dims)
    turn = axes(want, input._array.ndim) if want else ()
    at = tuple([(None, None, -1) if d in turn else _ALL for d in range(input._array.ndim)])
    return clone(_at(input, *at))


def fliplr(input: Any) -> Any:
    """`flip` along dimension 1."""
    return flip(input, 1)


def flipud(input: Any) -> Any:
    """`flip` along dimension 0."""
    return flip(input, 0)


def roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    """The elements moved on by `shifts` along `dims`, and round the end; without `dims` as one flat tensor."""
    steps = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if dims is None or dims == ():
        if len(steps) != 1:
            raise RuntimeError(f"shifts and dimensions must align. shifts: {len(steps)}, dims:0")
        return reshape(roll(reshape(input, -1), steps, 0), input._array.shape)
    over = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(over) != len(steps):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(steps)}, dims:{len(over)}")
    out = input
    for shift, dim in zip(steps, over, strict=True):
        d = axis(dim, input._array.ndim)
        n = input._array.shape[d]
        if n == 0:
            continue
        at = (n - shift) % n
        out = _cat(_cut(out, d, at, None), _cut(out, d, None, at), dim=d)
    return clone(out) if out is input else out


def rot90(input: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    """Turned by `k` quarters from the first of two dimensions towards the second (a copy)."""
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    a, b = (axis(d, input._array.ndim) for d in dims)
    if a == b:
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}")
    k %= 4
    if k == 0:
        return clone(input)
    if k == 2:
        return flip(input, a, b)
    return transpose(flip(input, b), a, b) if k == 1 else flip(transpose(input, a, b), b)
