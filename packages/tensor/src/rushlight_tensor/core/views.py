"""The straight line for view operations: NumPy array in, view out, one record, and nothing else.

As `straight.fast_path` for arithmetic, see Note [The straight line]: a view costs NumPy 0.1 µs, and a recurrent network
takes thousands of them.  Other devices, interceptors and errors go through `dispatch.call`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.core import dispatch, graph
from rushlight_tensor.core.dispatch import MODE, call, edge
from rushlight_tensor.core.graph import SHAPE, Node
from rushlight_tensor.core.tensor import ClosedView, Tensor, View

_new: Any = object.__new__


def view_path(op: Any, layout: str = "") -> Callable[[Tensor, dict[str, Any]], Tensor]:
    """`op(x, **attrs)` for a view op that saves nothing but the shape of its input.

    `layout` names what the accelerator can work out by itself: "slice", "shape" or "permutation".
    """
    cpu = op.cpu
    assert op.view, f"{op.name} is no view"
    assert op.vjp is not None, f"{op.name} stops gradients, and the views made here do not"
    assert all(kind == SHAPE for kind, _ in op.saves), f"{op.name} saves more than a shape"
    shape_saved = bool(op.saves)

    def fast(x: Tensor, attrs: dict[str, Any]) -> Tensor:
        if dispatch.INTERCEPT is not None or not isinstance(x, Tensor):
            return call(op, (x,), attrs)
        a = x._array
        if type(a) is not np.ndarray:
            return call(op, (x,), attrs)
        try:
            z = cpu(a, **attrs)
        except Exception:
            return call(op, (x,), attrs)  # which says what is wrong
        t = _new(Tensor)
        t._array = z
        t._version = 0
        above = x._view
        grad = MODE.grad
        if grad and (above is None or above.closed is None):
            v = _new(View)
        else:  # See Note [Versions and views]
            v = _new(ClosedView)
            v.closed = above.closed if grad and above is not None else "inference" if MODE.inference else "no_grad"
            v.dead = x._requires_grad and not grad
        t._view = v
        v.parent = x
        v.op = op
        v.attrs = attrs
        if above is None:
            v.base = v.root = x
            v.version = x._version
        else:
            v.base = base = above.base
            v.root = x if above.root is None else above.root
            v.version = base._version
        if not x._requires_grad:
            t._node, t._requires_grad = None, False
        elif grad:
            n = _new(Node)
            n.op, n.attrs, n.hooks, n.stale = op, attrs, None, False
            n.shape = z.shape
            n.edges = (edge(x),)
            if shape_saved:
                n.saved, n.versions = (a.shape,), (None,)
            else:
                n.saved = n.versions = ()
            t._node, t._requires_grad = n, True
        else:
            t._node, t._requires_grad = None, True
        return t

    fast.op, fast.layout = op, layout  # type: ignore[attr-defined]
    return fast


def conjugates(x: Tensor) -> int:
    """How many conjugations there are between `x` and the memory that PyTorch's user takes it for a view of.

    Note [Conjugates]
        PyTorch's `conj()` is a view with a bit that says "conjugated"; here it computes, and its result lies in memory
        of its own.  It carries the record of a view all the same: its version is that of its base, as in PyTorch, and
        what would be lost is refused: writes to it or to views of it, and `numpy()`, which PyTorch refuses as well.
        `resolve_conj()` gives a tensor for that.  What remains: it does not show writes to its base that come later.
    """
    n = 0
    while x._view is not None:
        n += x._view.op is graph.CONJUGATE
        x = x._view.parent
    return n
