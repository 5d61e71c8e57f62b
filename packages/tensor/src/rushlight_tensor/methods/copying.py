"""Copies of tensors by Python's `copy` and `pickle`: strides, shared memory, gradients and attributes, as in PyTorch.

Note [What is copied]
    `deepcopy` copies the memory that a tensor lies in, once per call, and puts every tensor that shares it at the same
    place of the copy: views go on sharing, also those in another dtype, strides and offsets stay.  The memory is the
    array at the end of NumPy's `base` chain, and known to `deepcopy` by it, so that an array and the tensor on it go on
    sharing, too.  Pickling
    writes the elements between the first and the last one of each tensor, with its strides; sharing ends there.
    Hooks and the graph are not copied; gradients by `deepcopy` only, attributes by both.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, devices, dispatch
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.dispatch import read
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.tensor import Tensor, View, wrap, wrap_as
from rushlight_tensor.kernels.arrays import memory_behind, owner_of
from rushlight_tensor.ops.math.cast import detach


def _gapless(array: Any) -> bool:
    order = np.argsort([-step for step in array.strides], kind="stable")
    return bool(array.transpose(order).flags.c_contiguous)


def _copied(array: Any, memo: dict[int, Any]) -> tuple[Any, Any]:
    """The array at its place in a copy of the memory that it lies in; and that memory, as bytes, where it is more."""
    if type(array) is AbstractArray:
        return _copied_description(array, memo)
    if type(array) is not np.ndarray:
        return array.copy(), None
    owner = owner_of(array)
    if type(owner) is not np.ndarray or not _gapless(owner):
        return array.copy("K"), None
    if id(owner) not in memo:
        memo[id(owner)] = owner.copy("K")
        memo.setdefault(id(memo), []).append(owner)  # alive as long as its id stands for it
    if owner is array:
        return memo[id(owner)], None
    memory, at = memory_behind(memo[id(owner)])[0], cuda.address(array) - cuda.address(owner)
    out = np.ndarray(array.shape, array.dtype, memory, at, array.strides)
    out.flags.writeable = out.flags.writeable and array.flags.writeable
    return out, None if array.size * array.itemsize == memory.size else memory


def _copied_description(array: AbstractArray, memo: dict[int, Any]) -> tuple[Any, Any]:
    """The same of an array without data."""
    owner = array if array.base is None else array.base
    if id(owner) not in memo:
        memo[id(owner)] = AbstractArray(owner.aval)
        memo.setdefault(id(memo), []).append(owner)
    memory = memo[id(owner)]
    return (memory, None) if owner is array else (AbstractArray(array.aval, memory, array.offset), memory)


def _deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(self) in memo:
        found: Tensor = memo[id(self)]
        return found
    if self._node is not None:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment"
        )
    if (watch := dispatch.INTERCEPT) is not None:
        watch.read(self)  # a trace would bake the copy in
    array, memory = _copied(dispatch.settle(self), memo)
    out: Tensor = wrap_as(type(self), array)
    if memory is not None:
        out._view = View(wrap(memory), detach, {})  # offsets count in all of it: Note [Storage] in `strided.py`
    memo[id(self)] = out
    out._requires_grad = self._requires_grad
    if self.grad is not None:
        out._grad = copy.deepcopy(self.grad, memo)
    if self.__dict__:
        out.__dict__.update(copy.deepcopy(self.__dict__, memo))
    return out


def _copy(self: Tensor) -> Tensor:
    """A second tensor on the same memory, with the same attributes."""
    out: Tensor = wrap_as(type(self), dispatch.settle(self))
    out._requires_grad = self._requires_grad
    out.__dict__.update(self.__dict__)
    return out


def warn_of_hooks(t: Tensor) -> None:
    """PyTorch's warning: hooks of a tensor are not written with it."""
    hooks = getattr(t, "_hooks", None)
    for hook in () if hooks is None else hooks.before.values():
        warnings.warn(f"backward hook {hook!r} on tensor will not be serialized.", UserWarning, stacklevel=4)


def _reduce(self: Tensor) -> Any:
    warn_of_hooks(self)
    if type(dispatch.settle(self)) is AbstractArray:
        return _rebuild_abstract, (type(self), self._array.aval, self._requires_grad, self.__dict__)
    array = read(self)
    part, where = array, None
    if array.size and array.strides != np.empty_like(array, order="C").strides and min(array.strides) >= 0:
        span = sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)) // array.itemsize + 1
        part = np.lib.stride_tricks.as_strided(array, (span,), (array.itemsize,))
        where = (array.shape, array.strides)
    return _rebuild, (type(self), part, where, str(devices.of(self._array)), self._requires_grad, self.__dict__)


def _rebuild(
    cls: type[Tensor], part: Any, where: Any, device: str, requires_grad: bool, attributes: dict[str, Any]
) -> Tensor:
    array = part if where is None else np.ndarray(where[0], part.dtype, part, 0, where[1])
    return _completed(wrap_as(cls, devices.place(array, device)), requires_grad, attributes)


def _rebuild_abstract(cls: type[Tensor], aval: Aval, requires_grad: bool, attributes: dict[str, Any]) -> Tensor:
    return _completed(wrap_as(cls, AbstractArray(aval)), requires_grad, attributes)


def _completed(out: Tensor, requires_grad: bool, attributes: dict[str, Any]) -> Tensor:
    out._requires_grad = requires_grad
    out.__dict__.update(attributes)
    return out


def bind() -> None:
    """Install all of this on Tensor."""
    for name, fn in {"__deepcopy__": _deepcopy, "__copy__": _copy, "__reduce__": _reduce}.items():
        setattr(Tensor, name, fn)
