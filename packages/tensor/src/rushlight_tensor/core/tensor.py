"""The Tensor: an array with what autograd has to know about it.  This module imports nothing of ours.

`_array` is a NumPy or CuPy array, so that views share memory by nature.  The slots are private; PyTorch's names for
them (`data`, `requires_grad`, `grad_fn`, …) are properties, and operations become methods in `methods/bind.py`.

Note [Versions and views]
    A tensor that owns its memory counts the in-place operations on it in `_version`.  A view has a `View` record
    instead, which names the tensor it was made from and the operation that made it; its version is that of its base.
    Whoever saves a tensor for the backward pass notes the version; whoever reads it back compares.  When the base was
    changed in place since the view was made, the view's `_node` is out of date and is made anew from the record.
    That is impossible for a view that was made while nothing was recorded, by a function of several results or by a
    user's function: such a view is closed, and writing to it while gradients are recorded is PyTorch's error.

Note [Unset slots]
    Every op makes a tensor, few of them ever hold a gradient or hooks.  The fast paths leave `_grad` and `_hooks`
    unset, which pays for the room that `__dict__` takes; setting `requires_grad` fills them in, and `wrap` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np


class View:
    """How a view came to be: `op(parent, **attrs)`, and the version of the base for which the view's node is valid.

    `base` owns the memory; `root` is where the differentiable part of the way from there begins, which is the base
    unless a `detach()` lies between, and the view itself where that is the last step (`root is None`).
    """

    __slots__ = ("attrs", "base", "op", "parent", "root", "version")

    closed: str | None = None
    dead: bool = False

    def __init__(self, parent: Tensor, op: Any, attrs: dict[str, Any]) -> None:
        self.parent, self.op, self.attrs = parent, op, attrs
        above = parent._view
        self.base: Tensor = parent if above is None else above.base
        self.root: Tensor | None = None
        if op.vjp is not None:
            self.root = parent if above is None or above.root is None else above.root
        self.version: int = self.base._version


class ClosedView(View):
    """A view that must not be written to while gradients are recorded.

    `closed` says why: made in "no_grad" or "inference" mode, by a "function" of the user, or as one of "many" results.
    It is `dead` when it requires grad only because its base does: no gradient goes through it.
    """

    __slots__ = ("closed", "dead")

    closed: str
    dead: bool

    def __init__(self, parent: Tensor, op: Any, attrs: dict[str, Any], closed: str) -> None:
        super().__init__(parent, op, attrs)
        self.closed, self.dead = closed, False


class Hooks:
    """What a user asked to be called with the gradient of a leaf: before it is stored, and after."""

    __slots__ = ("after", "before")

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}
        self.after: dict[int, Any] = {}


class Tensor:
    """A multi-dimensional array with a dtype, a device and, where it is asked for, a gradient.

    `Tensor(2, 3)` and `Tensor([1.0, 2.0])` are PyTorch's legacy constructors (float32); use `tensor(…)`, `zeros(…)`.
    """

    __slots__ = (
        "__dict__", "__weakref__", "_array", "_grad", "_hooks", "_node", "_requires_grad", "_version", "_view",
    )  # fmt: skip

    _array: Any
    _grad: Tensor | None  # See Note [Unset slots]
    _requires_grad: bool
    _node: Any
    _version: int
    _view: View | None
    _hooks: Hooks | None

    __array_priority__: ClassVar[int] = 1000  # NumPy leaves `array * tensor` to us

    def __new__(cls, *data: Any) -> Tensor:
        if len(data) == 1 and isinstance(data[0], Tensor):
            array = data[0]._array
        elif len(data) == 1 and not isinstance(data[0], int):
            with np.errstate(all="ignore"):
                array = np.array(data[0], dtype=np.float32)
        else:
            array = np.zeros(data or (0,), dtype=np.float32)
        return wrap_as(cls, array)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients of this tensor are recorded."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise RuntimeError("requires_grad must be a bool")
        if not value and self._node is not None:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in "
                "a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            )
        if value and self._array.dtype.kind in "iub":
            raise RuntimeError("only Tensors of floating point and complex dtype can require gradients")
        self._requires_grad = bool(value)
        if value:
            self._grad, self._hooks = getattr(self, "_grad", None), getattr(self, "_hooks", None)
            if isinstance(self._view, ClosedView):
                self._view.dead = False

    def __len__(self) -> int:
        if self._array.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return len(self._array)

    __hash__ = object.__hash__

    if TYPE_CHECKING:  # Operations are bound in `methods/bind.py`, one table for all of them.

        @property
        def data(self) -> Tensor: ...
        @data.setter
        def data(self, value: Tensor) -> None: ...
        @property
        def grad(self) -> Tensor | None: ...
        @grad.setter
        def grad(self, value: Tensor | None) -> None: ...

        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def __float__(self) -> float: ...
        def __int__(self) -> int: ...


_new = object.__new__


def wrap(array: Any) -> Tensor:
    """A tensor on `array` itself: no copy, no check, no gradient."""
    t = _new(Tensor)
    t._array = array
    t._grad = t._node = t._view = t._hooks = None
    t._requires_grad = False
    t._version = 0
    return t


def wrap_as(cls: type[Tensor], array: Any) -> Any:
    """`wrap` for a subclass, such as a Parameter."""
    t = _new(cls)
    t._array = array
    t._grad = t._node = t._view = t._hooks = None
    t._requires_grad = False
    t._version = 0
    return t
