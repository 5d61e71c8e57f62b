"""What autograd shows of a tensor: `.grad`, `.data`, leaves, hooks, `retain_grad`, `backward`.  Bound to Tensor here.

What a user stores or returns from a hook is checked when it comes in, as PyTorch does: optimizers and the engine rely
on gradients of the shape, dtype and device of their tensor.  Inside, `_grad` is stored without a check.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

from rushlight_tensor.core import devices, dispatch
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.graph import RETAIN
from rushlight_tensor.core.inplace import let_go
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.tensor import Hooks, Tensor, View, wrap
from rushlight_tensor.core.views import conjugates
from rushlight_tensor.ops.math.cast import detach


class RemovableHandle:
    """What `register_…hook` returns; `remove()` takes the hook away."""

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, Any]) -> None:
        self.id = next(self._ids)
        self._hooks = hooks

    def remove(self) -> None:
        """Forget the hook; a second call does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


# ----------------------------------------------------------------------------------------------- what is stored


def _get_grad(self: Tensor) -> Tensor | None:
    try:
        return self._grad
    except AttributeError:  # See Note [Unset slots]
        return None


def _set_grad(self: Tensor, value: Tensor | None) -> None:
    if value is None:
        self._grad = None
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"assigned grad expected to be a Tensor or None but got grad of type {type_name(value)}")
    if value is self:
        raise RuntimeError("can't assign Variable as its own grad")
    mine, given = self._array, value._array
    if given.dtype != mine.dtype:
        got, want = _CPP_NAMES.get(given.dtype.name, given.dtype.name), dtype_title(mine.dtype)
        raise RuntimeError(
            f"attempting to assign a gradient with dtype '{got}' to a tensor with grad_dtype '{want}'. The gradient "
            "must match the tensor's dtype; convert it with .to(tensor.dtype) first."
        )
    here, there = devices.of(mine), devices.of(given)
    if here != there:
        raise RuntimeError(
            f"attempting to assign a gradient with device type '{there}' to a tensor with device type '{here}'. "
            "Please ensure that the gradient and the tensor are on the same device"
        )
    if given.shape != mine.shape:
        raise RuntimeError(
            f"attempting to assign a gradient of size '{list(given.shape)}' to a tensor of size '{list(mine.shape)}'. "
            "Please ensure that the gradient and the tensor are the same size"
        )
    self._grad = value


def _del_grad(self: Tensor) -> None:
    self._grad = None


_CPP_NAMES = {
    "float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16",
    "uint8": "unsigned char", "int8": "signed char", "int16": "short int", "int32": "int", "int64": "long int",
    "complex64": "c10::complex<float>", "complex128": "c10::complex<double>",
}  # fmt: skip


def type_name(x: Any) -> str:
    """The name of a value's type as C code prints it: with the module for types that C defines."""
    t = type(x)
    return t.__name__ if t.__flags__ & _HEAP_TYPE or t.__module__ == "builtins" else f"{t.__module__}.{t.__name__}"


_HEAP_TYPE = 1 << 9


def _get_data(self: Tensor) -> Tensor:
    """The elements of `self` without its history; a write to it does not count as a change of `self`."""
    out = detach(self)
    if self._view is not None and conjugates(self):
        return out
    base = self if self._view is None else self._view.base
    # The same storage, with versions of its own
    out._view = None if base is self else View(wrap(base._array), detach, {})
    return out


def _set_data(self: Tensor, other: Tensor) -> None:
    """Give the tensor other memory.

    What saved a leaf for the backward pass sees the new elements, as in PyTorch, unless they differ in shape or dtype:
    then, as for results, the backward pass refuses.
    """
    if not isinstance(other, Tensor):
        raise TypeError(f"Variable data has to be a tensor, but got {type_name(other)}")
    before, after = self._array, dispatch.settle(other)
    if self._requires_grad and after.dtype.kind in "iub":
        raise RuntimeError("data set to a tensor that requires gradients must be floating point or complex dtype")
    if self._view is not None:
        dispatch.sync(self)
        self._view = None
    self._array = after
    if self._node is not None or before.shape != after.shape or before.dtype != after.dtype:
        self._version += 1


# -------------------------------------------------------------------------------------------------------- hooks


def register_hook(self: Tensor, hook: Any) -> RemovableHandle:
    """Call `hook(grad)` when the gradient of this tensor is known; a tensor it returns takes its place.

    After an in-place operation the hook goes on seeing the gradient of the value that it was registered on.

    Raises RuntimeError for a tensor that requires no grad, and in the backward pass for a result that is no tensor of
    the gradient's shape, dtype and device.
    """
    if not self._requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    hooks = _leaf_hooks(self).before if is_leaf(self) else _node_hooks(self)
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


def register_post_accumulate_grad_hook(self: Tensor, hook: Any) -> RemovableHandle:
    """Call `hook(tensor)` after `.grad` of this leaf has its value from a backward pass."""
    if not self._requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    if not is_leaf(self):
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    hooks = _leaf_hooks(self).after
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


def _leaf_hooks(self: Tensor) -> Hooks:
    hooks: Hooks | None = getattr(self, "_hooks", None)
    if hooks is None:
        self._hooks = hooks = Hooks()
    return hooks


def _node_hooks(self: Tensor) -> dict[int, Any]:
    node = dispatch.edge(self)
    if node.hooks is None:
        node.hooks = {}
    hooks: dict[int, Any] = node.hooks
    return hooks


def checked_gradient(given: Any, before: Tensor, hook: Any) -> Tensor:
    """What a hook returned in place of the gradient `before`.

    Raises TypeError where it is no tensor, RuntimeError where it has another shape, dtype or device.
    """
    if not isinstance(given, Tensor):
        raise TypeError(f"expected Variable, but hook returned '{type_name(given)}'")
    a, b = before._array, given._array
    name = getattr(hook, "__name__", "<unknown>")
    if a.dtype != b.dtype:
        raise RuntimeError(f"hook '{name}' has changed the type of value (was {_titled(a)} got {_titled(b)})")
    if devices.of(a) != devices.of(b):
        raise RuntimeError(f"hook '{name}' has moved the value to another device ({devices.of(a)} to {devices.of(b)})")
    if a.shape != b.shape:
        raise RuntimeError(f"hook '{name}' has changed the size of value")
    return given


def _titled(array: Any) -> str:
    title = dtype_title(array.dtype)
    return (
        f"CPU{title}Type" if title.startswith(("B", "C")) and title not in ("Byte", "Char") else f"torch.{title}Tensor"
    )


def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this non-leaf tensor in `.grad` after a backward pass; always that of its last value."""
    if not self._requires_grad:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    if not is_leaf(self):
        _node_hooks(self)[RETAIN] = weakref.ref(self)


def retains_grad(self: Tensor) -> bool:
    """Whether `.grad` of this tensor, which is no leaf, will be kept after a backward pass."""
    return self._node is not None and self._node.hooks is not None and RETAIN in self._node.hooks


def keep_gradient(tensor: Any, g: Tensor) -> None:
    """Add `g`, which hooks may hold, to `.grad` of a tensor that retains it; the engine's side of `retain_grad`."""
    t = tensor()
    if t is not None:  # it is still there
        have = _get_grad(t)
        t._grad = dispatch.CLONE(g, memory_format=contiguous_format) if have is None else have + g


# ------------------------------------------------------------------------------------------------ the graph


def grad_fn(self: Tensor) -> Any:
    """The node that made this tensor; None for leaves."""
    if self._view is not None:
        dispatch.sync(self)
    return self._node


def is_leaf(self: Tensor) -> bool:
    """True for a tensor that no recorded operation made."""
    return grad_fn(self) is None


def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Start (or stop) recording operations on this tensor; returns it."""
    self.requires_grad = requires_grad
    return self


def detach_(self: Tensor) -> Tensor:
    """Forget how this tensor was made.  Raises RuntimeError for views."""
    if self._view is not None and self._view.root is not None:
        raise RuntimeError(
            "Can't detach views in-place. Use detach() instead. If you are using DistributedDataParallel (DDP) for "
            "training, and gradient_as_bucket_view is set as True, gradients are views of DDP buckets, and hence "
            "detach_() cannot be called on these gradients. To fix this error, please refer to the "
            "Optimizer.zero_grad() function in torch/optim/optimizer.py as the solution."
        )
    let_go(self)
    return self


def backward(
    self: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
) -> None:
    """Add the gradients of this tensor to `.grad` of the leaves.  Needs `rushlight_autograd`, which does the work."""
    if BACKWARD is None:
        raise RuntimeError(
            "backward: the autograd engine is not loaded; import rushlight_autograd (or rushlight) first"
        )
    BACKWARD(self, gradient, retain_graph, create_graph, inputs)


BACKWARD: Any = None
"""Set by `rushlight_autograd`; this package does not import what is built on it."""


def bind() -> None:
    """Install all of this on Tensor."""
    properties = {
        "grad": property(_get_grad, _set_grad, _del_grad),
        "data": property(_get_data, _set_data),
        "grad_fn": property(grad_fn),
        "is_leaf": property(is_leaf),
        "retains_grad": property(retains_grad),
        "_base": property(lambda t: None if t._view is None or t._view.root is None else _root_of(t)),
    }
    for name, value in properties.items():
        setattr(Tensor, name, value)
    for fn in (
        requires_grad_, detach_, register_hook, register_post_accumulate_grad_hook, retain_grad, backward,
    ):  # fmt: skip
        setattr(Tensor, fn.__name__, fn)


def _root_of(t: Tensor) -> Tensor:
    assert t._view is not None
    assert t._view.root is not None
    return t._view.root
