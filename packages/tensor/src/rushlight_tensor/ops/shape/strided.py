"""as_strided: any arrangement of the memory that a tensor lies in, with its gradient.

Note [Storage]
    What PyTorch calls a storage is the memory of the tensor that owns it, `View.base`: offsets count from its first
    element, whatever way leads from there to the tensor (slices, `detach()`, another dtype).  The gradient of
    `as_strided` is that of its argument alone: elements outside of this are in the same memory, but not its.  A result
    that is brought up to date with its base (`sync`) is made from the base, though, as in PyTorch.  So the record
    says where the result begins relative to the argument, and works on whatever array lies in memory as that does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, dispatch, kinds, layout, placement
from rushlight_tensor.core.dispatch import settle
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.core.views import conjugates
from rushlight_tensor.kernels.arrays import add_at, memory_behind
from rushlight_tensor.ops.shape.shape import _become


def _storage(x: Any) -> tuple[int, int]:
    """The address and the length in bytes of the storage of `x`."""
    array = settle(x)
    owner = array if x._view is None else x._view.base._array
    start, length = cuda.address(owner), _span(owner.shape, owner.strides, owner.itemsize)
    own = _span(array.shape, array.strides, array.itemsize)
    if not start <= cuda.address(array) <= start + length - own:  # the base has other data since, or is a conjugate's
        return cuda.address(array), own
    return start, length


def storage_offset(self: Any) -> int:
    """The distance of the first element from the start of the memory it shares, in elements."""
    return (cuda.address(settle(self)) - _storage(self)[0]) // self._array.itemsize


def _span(size: tuple[int, ...], steps: tuple[int, ...], unit: int = 1) -> int:
    """How much memory there is from the first element to the end of the last one."""
    return 0 if 0 in size else unit + sum((n - 1) * s for n, s in zip(size, steps, strict=True))


def _overlaps(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether elements may share memory."""
    end = 1
    for step, n in sorted((s, n) for n, s in zip(size, stride, strict=True) if n > 1):
        if step < end:
            return True
        end = step * (n - 1) + end
    return False


def _places(size: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    """Where each element lies, counted from the first."""
    at = np.zeros((), np.int64)
    for n, step in zip(size, stride, strict=True):
        at = at[..., None] + np.arange(n) * step
    return at


def _strided_aval(x: Any, size: Any = (), stride: Any = (), offset: int = 0, own: Any = ()) -> Aval:
    return Aval(tuple(size), x.dtype, tuple(stride), offset=offset * x.dtype.itemsize)


def _strided_kernel(x: Any, size: tuple[int, ...], stride: tuple[int, ...], offset: int, own: Any) -> Any:
    if 0 in size:
        return np.empty_like(x, shape=size)
    if any(n > 1 and step != s * x.itemsize for n, step, s in zip(x.shape, x.strides, own, strict=True)):
        raise RuntimeError(f"as_strided: a tensor with strides of {x.strides} bytes does not lie as {own} elements")
    memory, start = memory_behind(x)
    start += offset * x.itemsize
    steps = [s * x.itemsize for s in stride]
    if start < 0 or start + _span(size, tuple(steps), x.itemsize) > memory.size:
        raise RuntimeError(f"as_strided: sizes {list(size)}, strides {list(stride)} reach beyond the memory")
    if not isinstance(x, np.ndarray):
        return cuda.cupy().lib.stride_tricks.as_strided(memory[start : start + x.itemsize].view(x.dtype), size, steps)
    out = np.ndarray(size, x.dtype, memory, start, steps)
    if any(n > 1 and step == 0 for n, step in zip(size, steps, strict=True)):
        out.flags.writeable = False  # as what was expanded: Python asks before it writes
    return out


def _strided_rule(g: Any, shape: tuple[int, ...], size: Any, stride: Any, offset: int, own: Any) -> Any:
    out = _gathered(g, shape, own, stride, -offset)
    if not _overlaps(shape, own):
        return out
    at = _places(shape, own)
    return out / wrap(cuda.like(g._array, np.bincount(at.reshape(-1))[at].astype(g._array.dtype)))


def _strided_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    step = xs[0]._array.strides[0] // xs[0]._array.itemsize
    size_, stride, own = (size, *attrs["size"]), (step, *attrs["stride"]), (step, *attrs["own"])
    return dispatch.call(_strided, tuple(xs), {**attrs, "size": size_, "stride": stride, "own": own})


_strided = Op(
    "as_strided",
    kind=kinds.view(),
    batch=_strided_samples,
    infer=_strided_aval,
    numpy=_strided_kernel,
    view=True,
    save=("x.shape",),
    vjp=(_strided_rule,),
)
"""What begins `offset` elements after the first of `x`, which has strides `own` (for the gradient)."""


def _gathered_aval(g: Any, size: Any = (), stride: Any = (), own: Any = (), offset: int = 0) -> Aval:
    return Aval(tuple(size), g.dtype)


def _gathered_kernel(g: Any, size: tuple[int, ...], stride: Any, own: Any, offset: int) -> Any:
    given, wanted = _places(g.shape, own), _places(size, stride) + offset
    if not given.size or not wanted.size:
        return np.zeros_like(g, shape=size)
    low = min(given.min(), wanted.min())
    memory = np.zeros_like(g, shape=(int(max(given.max(), wanted.max()) - low) + 1,))
    add_at(memory, cuda.like(g, given - low).reshape(-1), g.reshape(-1))
    return memory[cuda.like(g, wanted - low)]


_gathered = Op(
    "as_strided_backward",
    kind=kinds.opaque("elements of one memory, wherever they lie in it"),
    infer=_gathered_aval,
    numpy=_gathered_kernel,
    save=("g.shape",),
    vjp=(lambda g, shape, size, stride, own, offset: _gathered(g, shape, own, stride, -offset),),
)
"""The elements of `g`, which has strides `own`, summed in their memory, and what is then found from `offset` on."""


def _spread_aval(x: Any, stride: Any = ()) -> Aval:
    return Aval(x.shape, x.dtype, tuple(stride))


def _spread_kernel(x: Any, stride: tuple[int, ...]) -> Any:
    memory = np.zeros_like(x, shape=(_span(x.shape, stride),))
    if not x.size:
        return np.empty_like(x)
    tricks = np.lib.stride_tricks if isinstance(x, np.ndarray) else cuda.cupy().lib.stride_tricks
    out = tricks.as_strided(memory, x.shape, [s * x.itemsize for s in stride])
    out[...] = x
    return out


_spread = Op(
    "clone_strided",
    kind=kinds.opaque("how one sample lies in its memory"),
    infer=_spread_aval,
    order=placement.GIVEN,
    numpy=_spread_kernel,
    vjp=(lambda g, stride: g,),
)
"""A copy that lies in memory with these strides."""
dispatch.SPREAD = _spread


def as_strided(input: Any, size: Any, stride: Any, storage_offset: int | None = None) -> Any:
    """The elements at `offset + i stride[0] + j stride[1] + …` of the storage of `input`, as a view of this size.

    Args:
        storage_offset: From the start of the storage, in elements; that of `input` where it is not given.
    Raises:
        RuntimeError: That reaches beyond the storage, or sizes and strides do not fit together.
    """
    array = settle(input)
    size, stride = tuple(size), tuple(stride)
    start, length = _storage(input)
    here = (cuda.address(array) - start) // array.itemsize
    offset = here if storage_offset is None else storage_offset
    if len(size) != len(stride):
        raise RuntimeError(f"mismatch in length of strides and shape: {list(size)} and {list(stride)}")
    if any(s < 0 for s in stride):
        raise RuntimeError(f"as_strided: Negative strides are not supported at the moment, got strides: {list(stride)}")
    if offset < 0:
        raise RuntimeError(f"Tensor: invalid storage offset {offset}")
    needed = (offset + _span(size, stride)) * array.itemsize
    if 0 not in size and needed > length:
        raise RuntimeError(
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset}, and itemsize "
            f"{array.itemsize} requiring a storage size of {needed} are out of bounds for storage of size {length}"
        )
    if dispatch.INTERCEPT is not None and input._view is not None:
        dispatch.INTERCEPT.read(input)  # where it lies in its storage is nothing that a trace could know
    attrs = {"size": size, "stride": stride, "offset": offset - here, "own": layout.strides(array)}
    out = dispatch.call(_strided, (input,), attrs)
    root = out._view.root
    if root is not input and root._array.dtype == array.dtype and not conjugates(input):
        before = (cuda.address(root._array) - start) // array.itemsize
        out._view.parent = root  # See Note [Storage]
        out._view.attrs = {**attrs, "offset": offset - before, "own": layout.strides(root._array)}
    return out


def as_strided_(input: Any, size: Any, stride: Any, storage_offset: int | None = None) -> Any:
    """`as_strided` in place."""
    return _become(input, as_strided, size, stride, storage_offset)
