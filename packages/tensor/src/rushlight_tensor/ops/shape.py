"""Shape: views of the same elements in another arrangement.  All of them share memory with their input where they can."""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

import numpy as np

from rushlight_tensor.infer import Aval, axes, axis, resolve, sizes
from rushlight_tensor.infer import broadcast_shapes as _broadcast
from rushlight_tensor.op import AS_CPU, Op
from rushlight_tensor.ops.cast import clone
from rushlight_tensor.state import Size
from rushlight_tensor.tensor import Tensor


def _view_aval(x: Any, shape: Any = ()) -> Aval:
    return Aval(resolve(x.shape, shape), x.dtype)


def _view_kernel(x: Any, shape: tuple[int, ...]) -> Any:
    return x.reshape(shape, copy=False) if isinstance(x, np.ndarray) else _cupy_view(x, shape)


def _cupy_view(x: Any, shape: tuple[int, ...]) -> Any:
    out = x.reshape(shape)
    if x.size and out.data.ptr != x.data.ptr:
        raise ValueError("view would copy")
    return out


_view = Op(
    "view",
    infer=_view_aval,
    cpu=_view_kernel,
    cuda=AS_CPU,
    view=True,
    save=("x.shape",),
    vjp=(lambda g, before, shape: reshape(g, before),),
)


def view(x: Any, *shape: Any) -> Any:
    """The elements of `x` under another shape, never a copy.  Raises RuntimeError where the strides do not allow it."""
    want = resolve(x._array.shape, sizes(shape))
    try:
        return _view(x, want)
    except (ValueError, RuntimeError):
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        ) from None


def reshape(x: Any, *shape: Any) -> Any:
    """The elements of `x` under another shape: a view where the strides allow it, else a copy."""
    want = sizes(shape)
    try:
        return _view(x, want)
    except (ValueError, RuntimeError):
        return _view(clone(x, contiguous=True), resolve(x._array.shape, want))


def _permute_aval(x: Any, dims: Any = ()) -> Aval:
    if sorted(axis(d, len(x.shape)) for d in dims) != list(range(len(x.shape))):
        raise RuntimeError(
            f"permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {len(x.shape)} is not equal to len(dims) = {len(dims)}"
        )
    return Aval(tuple(x.shape[d] for d in dims), x.dtype)


_permute = Op(
    "permute",
    infer=_permute_aval,
    cpu=lambda x, dims: x.transpose(dims),
    cuda=AS_CPU,
    view=True,
    vjp=(lambda g, dims: _permute(g, tuple([int(d) for d in np.argsort([d % len(dims) for d in dims])])),),
)


def permute(x: Any, *dims: Any) -> Any:
    """The dimensions of `x` in another order (a view)."""
    return _permute(x, sizes(dims))


def transpose(x: Any, dim0: int, dim1: int) -> Any:
    """`x` with two dimensions exchanged (a view)."""
    n = x._array.ndim
    a, b = axis(dim0, n), axis(dim1, n)
    order = list(range(n))
    if n:
        order[a], order[b] = b, a
    return _permute(x, tuple(order))


def _expand_aval(x: Any, shape: Any = ()) -> Aval:
    lead = len(shape) - len(x.shape)
    fits = lead >= 0 and all(n in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True))
    if not fits:
        raise RuntimeError(
            f"The expanded size of the tensor {list(shape)} must match the existing size {list(x.shape)} at "
            "non-singleton dimensions; only dimensions of size 1 expand"
        )
    return Aval(tuple(shape), x.dtype)


_expand = Op(
    "expand",
    infer=_expand_aval,
    cpu=lambda x, shape: np.broadcast_to(x, shape),
    cuda=AS_CPU,
    view=True,
    vjp=(lambda g, shape: g,),  # the engine sums it to the input's shape
)


def expand(x: Any, *shape: Any) -> Any:
    """`x` repeated along dimensions of size 1, without a copy; -1 keeps a size."""
    want = sizes(shape)
    lead = len(want) - x._array.ndim
    if lead < 0 or any(n == -1 for n in want[:lead]):
        raise RuntimeError(f"expand: cannot expand {list(x._array.shape)} to {list(want)}: too few or unknown sizes")
    return _expand(x, tuple([x._array.shape[i - lead] if n == -1 else n for i, n in enumerate(want)]))


# ------------------------------------------------------------------------------------------------- basic indexing
#
# `at` has one entry per dimension, from the first: an int selects, (start, stop, step) cuts as a Python slice does, None
# adds a dimension of size 1.  Dimensions that it does not reach are whole.


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


def _slice_put_aval(g: Any, shape: Any = (), at: Any = ()) -> Aval:
    return Aval(shape, g.dtype)


def _slice_put_kernel(g: Any, shape: tuple[int, ...], at: Any) -> Any:
    out = np.zeros_like(g, shape=shape)
    out[_numpy_index(at)] = g
    return out


_slice = Op(
    "slice",
    infer=_slice_aval,
    cpu=lambda x, at: x[_numpy_index(at)],
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


def _cut(x: Any, dim: int, start: int | None, stop: int | None, step: int | None = None) -> Any:
    """`x[start:stop:step]` along `dim` (from the front)."""
    return _slice(x, (*[_ALL] * dim, (start, stop, step)))


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
    return _slice(input, (*[_ALL] * d, index))


def unbind(input: Any, dim: int = 0) -> tuple[Any, ...]:
    """The slices along `dim`, as views."""
    if input._array.ndim == 0:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    dim = axis(dim, input._array.ndim)
    return tuple([_slice(input, (*[_ALL] * dim, i)) for i in range(input._array.shape[dim])])


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


# ------------------------------------------------------------------------------------------ dimensions, by name


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """The dimensions `start_dim` to `end_dim` as one; 0-d becomes 1-d.  A view where the strides allow it."""
    shape = input._array.shape
    if not shape:
        return reshape(input, 1)
    a, b = axis(start_dim, len(shape)), axis(end_dim, len(shape))
    if a > b:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    return input if a == b else reshape(input, (*shape[:a], math.prod(shape[a : b + 1]), *shape[b + 1 :]))


def ravel(input: Any) -> Any:
    """All elements in one dimension."""
    return reshape(input, -1)


def unflatten(input: Any, dim: int, sizes: Any) -> Any:
    """Dimension `dim` as several, of the sizes given; one of them may be -1."""
    shape = input._array.shape
    d = axis(dim, len(shape))
    try:
        parts = resolve((shape[d],), tuple(sizes))
    except RuntimeError:
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {dim} ({shape[d]}) in the "
            "input tensor"
        ) from None
    return view(input, (*shape[:d], *parts, *shape[d + 1 :]))


def squeeze(input: Any, dim: Any = None) -> Any:
    """`input` without its dimensions of size 1, or without those of `dim` that are (a view)."""
    shape = input._array.shape
    drop = axes(dim, len(shape)) if dim != () else ()
    return _view(input, tuple([n for i, n in enumerate(shape) if n != 1 or i not in drop]))


def unsqueeze(input: Any, dim: int) -> Any:
    """`input` with a dimension of size 1 inserted at `dim` (a view)."""
    at = axis(dim, input._array.ndim + 1)
    return _slice(input, (*[_ALL] * at, None))


def movedim(input: Any, source: Any, destination: Any) -> Any:
    """Dimensions moved to other places, the rest in their order (a view)."""
    n = input._array.ndim
    src, dst = ([d] if isinstance(d, int) else list(d) for d in (source, destination))
    if len(src) != len(dst):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({src} dims) should contain the same number of dims as "
            f"destination ({dst} dims)"
        )
    src, dst = [axis(d, n) for d in src], [axis(d, n) for d in dst]
    for name, dims in (("source", src), ("destination", dst)):
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{name}` ({dims})")
    order = [d for d in range(n) if d not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return _permute(input, tuple(order))


def moveaxis(input: Any, source: Any, destination: Any) -> Any:
    """`movedim` under NumPy's name."""
    return movedim(input, source, destination)


def swapaxes(input: Any, axis0: int, axis1: int) -> Any:
    """`transpose` under NumPy's name."""
    return transpose(input, axis0, axis1)


def swapdims(input: Any, dim0: int, dim1: int) -> Any:
    """`transpose` under another name."""
    return transpose(input, dim0, dim1)


def t(input: Any) -> Any:
    """The transpose of a matrix; 0-d and 1-d tensors as they are."""
    n = input._array.ndim
    if n > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {n}D")
    return _permute(input, tuple(range(n))[::-1])


def adjoint(input: Any) -> Any:
    """The conjugate transpose of the last two dimensions."""
    if input._array.dtype.kind == "c":
        raise RuntimeError("adjoint: complex tensors have no conjugate view here; use x.conj().transpose(-2, -1)")
    return _matrices(input, "mH")


def _matrices(x: Any, name: str) -> Any:
    if x._array.ndim < 2:
        raise RuntimeError(
            f"tensor.{name} is only supported on matrices or batches of matrices. Got {x._array.ndim}-D tensor."
        )
    return transpose(x, -2, -1)


PROPERTIES = {
    "T": lambda x: _permute(x, tuple(range(x._array.ndim))[::-1]),
    "H": t,
    "mT": lambda x: _matrices(x, "mT"),
    "mH": adjoint,
}
"""Views that are attributes of a tensor."""


def expand_as(input: Any, other: Any) -> Any:
    """`input` expanded to the shape of `other`."""
    return expand(input, other._array.shape)


def view_as(input: Any, other: Any) -> Any:
    """`input` viewed in the shape of `other`."""
    return view(input, other._array.shape)


def reshape_as(input: Any, other: Any) -> Any:
    """`input` in the shape of `other`."""
    return reshape(input, other._array.shape)


def broadcast_to(input: Any, size: Any) -> Any:
    """`input` expanded to `size`."""
    return expand(input, size)


def broadcast_shapes(*shapes: Any) -> Any:
    """The shape that tensors of these shapes broadcast to."""
    return Size(_broadcast(*[(s,) if isinstance(s, int) else tuple(s) for s in shapes]))


def broadcast_tensors(*tensors: Any) -> tuple[Any, ...]:
    """The tensors, expanded to their common shape."""
    shape = _broadcast(*[x._array.shape for x in tensors])
    return tuple([expand(x, shape) for x in tensors])


def atleast_1d(*tensors: Any) -> Any:
    """0-d tensors as 1-d."""
    return _at_least(tensors, lambda x: reshape(x, 1) if x._array.ndim == 0 else x)


def atleast_2d(*tensors: Any) -> Any:
    """Tensors of fewer dimensions with leading ones: (n,) becomes (1, n)."""
    return _at_least(tensors, lambda x: reshape(x, (1, x._array.size)) if x._array.ndim < 2 else x)


def atleast_3d(*tensors: Any) -> Any:
    """Tensors of fewer dimensions as 3-d: (n,) becomes (1, n, 1), (m, n) becomes (m, n, 1)."""

    def three(x: Any) -> Any:
        shape = x._array.shape
        return reshape(x, (1, x._array.size, 1)) if len(shape) < 2 else reshape(x, (*shape, 1)) if len(shape) == 2 else x

    return _at_least(tensors, three)


def _at_least(tensors: tuple[Any, ...], fn: Any) -> Any:
    if len(tensors) == 1:
        return tuple([fn(x) for x in tensors[0]]) if isinstance(tensors[0], (list, tuple)) else fn(tensors[0])
    return tuple([fn(x) for x in tensors])
