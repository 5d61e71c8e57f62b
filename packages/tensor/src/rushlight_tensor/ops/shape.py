"""Shape: views of the same elements in another arrangement, and the ops that put tensors together."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.infer import Aval, axis, resolve, sizes
from rushlight_tensor.op import AS_CPU, Op
from rushlight_tensor.ops.cast import clone


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
