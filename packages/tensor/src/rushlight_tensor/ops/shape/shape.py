"""Shape: the same elements in another arrangement, as views wherever the strides allow it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import dtypes, kinds
from rushlight_tensor.core.dispatch import MODE, call, follow, sync
from rushlight_tensor.core.infer import Aval, axes, axis, resolve, sizes
from rushlight_tensor.core.infer import broadcast_shapes as _broadcast
from rushlight_tensor.core.inplace import touch, writable
from rushlight_tensor.core.keywords import named
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.size import Size
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.core.views import view_path
from rushlight_tensor.ops.math.cast import clone
from rushlight_tensor.ops.math.complex import conj
from rushlight_tensor.ops.shape.slicing import _ALL, _at, _slice


def _view_aval(x: Any, shape: Any = ()) -> Aval:
    return Aval(resolve(x.shape, shape), x.dtype)


def _view_kernel(x: Any, shape: tuple[int, ...]) -> Any:
    if type(x) is np.ndarray:
        return x.reshape(shape) if x.flags.c_contiguous else x.reshape(shape, copy=False)
    return _cupy_view(x, shape)


def _cupy_view(x: Any, shape: tuple[int, ...]) -> Any:
    out = x.reshape(shape)
    if x.size and out.data.ptr != x.data.ptr:
        raise ValueError("view would copy")
    return out


def _view_rule(g: Any, before: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    try:
        return call(_view, (g,), {"shape": before}, hidden=True)
    except (ValueError, RuntimeError):
        return reshape(g, before)


_view = Op(
    "view",
    kind=kinds.view(shapes=("shape",)),
    infer=_view_aval,
    numpy=_view_kernel,
    view=True,
    save=("x.shape",),
    vjp=(_view_rule,),
    onnx="Reshape",
)

CHECKS_ARGUMENTS = True  # see `ops`
_view.view_of = view_path(_view, "shape")


def view(input: Any, *shape: Any, **given: Any) -> Any:
    """The elements of `input` in another shape, never a copy.  Raises RuntimeError where the strides do not allow it.

    With a dtype instead of a shape: the bytes of `input` read as that dtype.
    """
    if given:
        shape = (*shape, *named("view", given, "size", "dtype"))
    if len(shape) == 1 and isinstance(shape[0], dtypes.dtype):
        return _view_dtype(input, dtype=shape[0].np)
    want = resolve(input._array.shape, sizes(shape))
    try:
        return _view.view_of(input, {"shape": want})
    except (ValueError, RuntimeError):
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        ) from None


def _view_dtype_aval(x: Any, dtype: Any = None) -> Aval:
    old, new = x.dtype.itemsize, dtype.itemsize
    if old == new:
        return Aval(x.shape, dtype)
    if not x.shape:
        raise RuntimeError("self.dim() cannot be 0 to view it as a dtype of another size")
    if x.shape[-1] * old % new:
        raise RuntimeError(
            f"self.size(-1) must be divisible by {new // old} to view {x.dtype} as {dtype} (different element sizes), "
            f"but got {x.shape[-1]}"
        )
    return Aval((*x.shape[:-1], x.shape[-1] * old // new), dtype)


_view_dtype = Op(
    "view_dtype",
    kind=kinds.view(),
    infer=_view_dtype_aval,
    numpy=lambda x, dtype: x.view(dtype),
    view=True,
    vjp=None,
)


def reshape(input: Any, *shape: Any, **given: Any) -> Any:
    """The elements of `input` under another shape: a view where the strides allow it, else a copy."""
    if given:
        shape = (*shape, *named("reshape", given, "shape"))
    want = sizes(shape)
    try:
        return _view.view_of(input, {"shape": want})
    except (ValueError, RuntimeError):
        return _view(clone(input, memory_format=contiguous_format), resolve(input._array.shape, want))


def _permute_aval(x: Any, dims: Any = ()) -> Aval:
    if sorted(axis(d, len(x.shape)) for d in dims) != list(range(len(x.shape))):
        raise RuntimeError(
            f"permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {len(x.shape)} is not equal to len(dims) = {len(dims)}"
        )
    return Aval(tuple(x.shape[d] for d in dims), x.dtype)


def _permute_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    rank = len(attrs["dims"])
    return call(_permute, tuple(xs), {"dims": (0, *[d % rank + 1 for d in attrs["dims"]])})


_permute = Op(
    "permute",
    kind=kinds.view("dims"),
    batch=_permute_samples,
    infer=_permute_aval,
    numpy=lambda x, dims: x.transpose(dims),
    view=True,
    vjp=(lambda g, dims: _permute(g, tuple([int(d) for d in np.argsort([d % len(dims) for d in dims])])),),
    onnx="Transpose",
)


_permute.view_of = view_path(_permute, "permutation")


def permute(input: Any, *dims: Any, **given: Any) -> Any:
    """The dimensions of `input` in another order (a view)."""
    if given:
        dims = (*dims, *named("permute", given, "dims"))
    return _permute.view_of(input, {"dims": sizes(dims)})


def transpose(input: Any, dim0: int, dim1: int) -> Any:
    """`input` with two dimensions exchanged (a view)."""
    n = input._array.ndim
    a, b = axis(dim0, n), axis(dim1, n)
    order = list(range(n))
    if n:
        order[a], order[b] = b, a
    return _permute.view_of(input, {"dims": tuple(order)})


def _expand_aval(x: Any, shape: Any = ()) -> Aval:
    lead = len(shape) - len(x.shape)
    fits = lead >= 0 and all(n in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True))
    if not fits:
        raise RuntimeError(
            f"The expanded size of the tensor {list(shape)} must match the existing size {list(x.shape)} at "
            "non-singleton dimensions; only dimensions of size 1 expand"
        )
    return Aval(tuple(shape), x.dtype)


def _expand_kernel(x: Any, shape: tuple[int, ...]) -> Any:
    if type(x) is not np.ndarray or not x.flags.c_contiguous or x.dtype.kind == "V" or 0 in shape:
        return np.broadcast_to(x, shape)
    lead = len(shape) - x.ndim  # from here on the same as NumPy's function, for a third of what that costs
    steps = [0] * lead
    for n, m, step in zip(x.shape, shape[lead:], x.strides, strict=True):
        if n != m and n != 1:
            raise ValueError("sizes do not broadcast")
        steps.append(step if n == m else 0)
    out = np.ndarray(shape, x.dtype, x, 0, steps)
    out.flags.writeable = False
    return out


def _expand_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    (x,) = xs
    own, shape = x._array.shape[1:], attrs["shape"]
    x = call(_slice, (x,), {"at": (_ALL, *[None] * (len(shape) - len(own)))}) if len(own) < len(shape) else x
    return call(_expand, (x,), {"shape": (size, *shape)})


_expand = Op(
    "expand",
    kind=kinds.view(shapes=("shape",)),
    batch=_expand_samples,
    infer=_expand_aval,
    numpy=_expand_kernel,
    view=True,
    vjp=(lambda g, shape: g,),
    onnx="Expand",  # the engine sums it to the input's shape
)


_expand.view_of = view_path(_expand)


def expand(input: Any, *shape: Any, **given: Any) -> Any:
    """`input` repeated along dimensions of size 1, without a copy; -1 keeps a size."""
    if given:
        shape = (*shape, *named("expand", {k: v for k, v in given.items() if k != "implicit"}, "size"))
    want = sizes(shape)
    lead = len(want) - input._array.ndim
    if lead < 0 or any(n == -1 for n in want[:lead]):
        raise RuntimeError(
            f"expand: cannot expand {list(input._array.shape)} to {list(want)}: too few or unknown sizes"
        )
    return _expand.view_of(
        input, {"shape": tuple([input._array.shape[i - lead] if n == -1 else n for i, n in enumerate(want)])}
    )


# ------------------------------------------------------------------------------------------ dimensions, by name


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """The dimensions `start_dim` to `end_dim` as one; 0-d becomes 1-d.  A view where the strides allow it."""
    shape = input._array.shape
    a, b = axis(start_dim, len(shape)), axis(end_dim, len(shape))
    if not shape:
        return reshape(input, 1)
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
    if not shape:
        raise RuntimeError(f"unflatten: Dimension specified as {dim} but tensor has no dimensions")
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
    return _view.view_of(input, {"shape": tuple([n for i, n in enumerate(shape) if n != 1 or i not in drop])})


def lift(input: Any, dim: int) -> Any:
    """`unsqueeze` for a kernel that only reads: the order in memory stays private.  Note [Private order]"""
    return call(_slice, (input,), {"at": (*[_ALL] * dim, None)}, hidden=True)


def drop(input: Any, dim: int) -> Any:
    """`squeeze` of a result that nobody else holds: the order in memory stays private."""
    shape = input._array.shape
    return call(_view, (input,), {"shape": shape[:dim] + shape[dim + 1 :]}, hidden=True)


def unsqueeze(input: Any, dim: int) -> Any:
    """`input` with a dimension of size 1 inserted at `dim` (a view)."""
    at = axis(dim, input._array.ndim + 1)
    return _at(input, *[_ALL] * at, None)


def movedim(input: Any, source: Any, destination: Any) -> Any:
    """Dimensions moved to other places, the rest in their order (a view)."""
    n = input._array.ndim
    src, dst = [[d] if isinstance(d, int) else list(d) for d in (source, destination)]
    if len(src) != len(dst):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({src} dims) should contain the same number of dims "
            f"as destination ({dst} dims)"
        )
    src, dst = [axis(d, n) for d in src], [axis(d, n) for d in dst]
    for name, dims in (("source", src), ("destination", dst)):
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{name}` ({dims})")
    order = [d for d in range(n) if d not in src]
    if n == 0:
        return _permute.view_of(input, {"dims": ()})
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return _permute.view_of(input, {"dims": tuple(order)})


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
    return _permute.view_of(input, {"dims": tuple(range(n))[::-1]})


def adjoint(input: Any) -> Any:
    """The conjugate transpose of the last two dimensions, a view of real ones; see Note [Conjugates] in `views.py`."""
    return conj(_matrices(input, "mH"))


def _matrices(x: Any, name: str) -> Any:
    if x._array.ndim < 2:
        raise RuntimeError(
            f"tensor.{name} is only supported on matrices or batches of matrices. Got {x._array.ndim}-D tensor."
        )
    return transpose(x, -2, -1)


def _become(x: Any, make: Any, *args: Any) -> Any:
    """Let `x` itself be what a view operation makes of it, `make(x, *args)`; its elements stay where they are."""
    if x._view is not None:
        sync(x)
    if x._requires_grad and MODE.grad:
        writable(x)
    before = x
    if x._view is not None:  # `x` is going to be a view of what it was until now
        before = wrap(x._array)
        before._view, before._node, before._requires_grad = x._view, x._node, x._requires_grad
    made = make(before, *args)
    touch(x)
    if x._requires_grad and MODE.grad:
        follow(x, made._node)
    if before is not x:
        x._view = made._view
        x._view.version = x._view.base._version
    x._array = made._array
    return x


def squeeze_(input: Any, dim: Any = None) -> Any:
    """`squeeze` in place."""
    return _become(input, squeeze, dim)


def unsqueeze_(input: Any, dim: int) -> Any:
    """`unsqueeze` in place."""
    return _become(input, unsqueeze, dim)


def transpose_(input: Any, dim0: int, dim1: int) -> Any:
    """`transpose` in place."""
    return _become(input, transpose, dim0, dim1)


def t_(input: Any) -> Any:
    """`t` in place."""
    return _become(input, t)


def swapaxes_(input: Any, axis0: int, axis1: int) -> Any:
    """`transpose_` under NumPy's name."""
    return transpose_(input, axis0, axis1)


def swapdims_(input: Any, dim0: int, dim1: int) -> Any:
    """`transpose_` under another name."""
    return transpose_(input, dim0, dim1)


PROPERTIES = {
    "T": lambda x: _permute.view_of(x, {"dims": tuple(range(x._array.ndim))[::-1]}),
    "H": lambda x: conj(t(x) if x._array.ndim else x),
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
    return tuple([x if x._array.shape == shape else expand(x, shape) for x in tensors])


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
        if len(shape) > 2:
            return x
        return reshape(x, (*shape, 1) if len(shape) == 2 else (1, x._array.size, 1))

    return _at_least(tensors, three)


def _at_least(tensors: tuple[Any, ...], fn: Any) -> Any:
    if len(tensors) == 1:
        return tuple([fn(x) for x in tensors[0]]) if isinstance(tensors[0], (list, tuple)) else fn(tensors[0])
    return tuple([fn(x) for x in tensors])
