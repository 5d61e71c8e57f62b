"""The straight line: unary and binary ops without attributes, from operands to a recorded result in one function.

Note [The straight line]
    `x * y` on four numbers costs NumPy 0.25 µs; all that happens here has to fit into a fraction of a microsecond more
    (`benchmarks/overhead.py`).  So the closures below handle one case, NumPy arrays of one dtype, and hand everything
    else to `dispatch.call`: other dtypes, other devices, an interceptor, odd operands.  They test by trying
    (`x._array`) or by identity (`is`), and read no thread-local unless a gradient is wanted.

Note [A module without a name]
    A ufunc that divides by zero warns in the name of the module whose frame calls it.  For a frame whose module has no
    name (`__name__` is None, as at interpreter shutdown) Python drops the warning before it looks at any filter; so
    this module takes its name off when it is loaded, and ufuncs called here never warn.  Nothing else is free: a look
    at NumPy's error state would cost 24 ns per op, Note [Quiet numerics] 17.  Where that state says "raise" (or calls
    back into code that raises), the op runs again, quietly, on the general path; with "call", "print" and "log" the
    user's own function sees the event, and the result is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

from rushlight_tensor import dispatch
from rushlight_tensor.dispatch import MODE, call, edge, sync
from rushlight_tensor.graph import INPUT, OUT, Node, save
from rushlight_tensor.promote import same
from rushlight_tensor.quiet import quiet
from rushlight_tensor.tensor import Tensor

ndarray = np.ndarray
_new = object.__new__
_NO_ATTRS: dict[str, Any] = {}
_HERE = __name__


def fast_path(op: Any) -> Callable[..., Tensor] | None:
    """The straight line for unary and binary ops without attributes; `None` for the others."""
    if op.defaults or op.view or op.variadic:
        return None
    if op.arity == 1 and (op.vjp is not None or op.promote is not None) and not hasattr(op.promote, "refuses"):
        return _unary(op)
    if op.arity == 2 and op.promote is not None:
        return _binary(op)
    return None


def _binary(op: Any) -> Callable[[Any, Any], Tensor]:
    cpu = op.cpu
    is_ufunc = type(cpu) is np.ufunc
    may_widen = op.promote is not same and op.vjp is not None  # true_divide makes float64 of two ints
    both = op.saves == ((INPUT, 0), (INPUT, 1))
    nothing = op.saves == ()
    refused = op.refuses + getattr(op.promote, "refuses", "")
    differentiable = op.vjp is not None

    def fast(a: Tensor, b: Any) -> Tensor:  # See Note [The straight line]
        if type(b) is Tensor or isinstance(b, Tensor):
            x = a._array
            y = b._array
            if x.dtype is not y.dtype or dispatch.INTERCEPT is not None or type(x) is not ndarray:
                return call(op, (a, b), {})
            if refused and x.dtype.kind in refused:
                return call(op, (a, b), {})
            grad = differentiable and (a._requires_grad or b._requires_grad) and MODE.grad
        elif type(b) is float or type(b) is int:
            x = a._array
            y = b
            if x.dtype.kind != "f" or dispatch.INTERCEPT is not None or type(x) is not ndarray:
                return call(op, (a, b), {})
            grad = differentiable and a._requires_grad and MODE.grad
        else:
            return call(op, (a, b), {})
        try:
            z = cpu(x, y) if is_ufunc else quiet(cpu, x, y)
        except Exception:  # shapes, devices: `call` explains; NumPy's error state: Note [A module without a name]
            return call(op, (a, b), {})
        if type(z) is not ndarray:
            if not isinstance(z, np.generic):
                return call(op, (a, b), {})
            z = np.asarray(z)  # NumPy gives a scalar for 0-d operands
        if may_widen and z.dtype is not x.dtype:
            return call(op, (a, b), {})
        t = _new(Tensor)
        t._array = z
        t._view = None
        t._version = 0
        if not grad:
            t._node = None
            t._requires_grad = False
            return t
        n = _new(Node)
        n.op = op
        n.attrs = _NO_ATTRS
        n.hooks = None
        n.shape = z.shape
        if y is b:
            n.edges = (a._node or a, None)
        else:
            n.edges = (a._node or (a if a._requires_grad else None), b._node or (b if b._requires_grad else None))
        if both:
            n.saved = (a, b)
            n.versions = (
                a._version if a._view is None else sync(a),
                None if y is b else b._version if b._view is None else sync(b),
            )
        elif nothing:
            n.saved = n.versions = ()
        else:
            n.stale = False
            save(n, (a, b), (z,))
        if a._view is not None or (y is not b and b._view is not None):
            n.edges = (edge(a), edge(b))
        t._node = n
        t._requires_grad = True
        return t

    return _named(fast, op)


def _unary(op: Any) -> Callable[[Any], Tensor]:
    cpu = op.cpu
    is_ufunc = type(cpu) is np.ufunc
    small = getattr(cpu, "small", None)  # the ufunc that a kernel for large arrays leaves small ones to
    limit = getattr(cpu, "limit", 0)
    one = op.saves == ((INPUT, 0),)
    out = op.saves == ((OUT, 0),)
    differentiable = op.vjp is not None

    def fast(a: Any) -> Tensor:  # See Note [The straight line]
        if not isinstance(a, Tensor) or dispatch.INTERCEPT is not None:
            return call(op, (a,), {})
        x = a._array
        if type(x) is not ndarray or x.dtype.kind != "f":
            return call(op, (a,), {})
        try:
            z = cpu(x) if is_ufunc else small(x) if small is not None and x.size < limit else quiet(cpu, x)
        except Exception:
            return call(op, (a,), {})
        if type(z) is not ndarray:
            z = np.asarray(z)
        t = _new(Tensor)
        t._array = z
        t._view = None
        t._version = 0
        if differentiable and a._requires_grad and MODE.grad:
            n = _new(Node)
            n.op = op
            n.attrs = _NO_ATTRS
            n.hooks = None
            n.stale = False
            n.shape = z.shape
            version = a._version if a._view is None else sync(a)
            if one:
                n.saved = (a,)
                n.versions = (version,)
            elif out:
                n.saved = (z,)
                n.versions = (None,)
            else:
                save(n, (a,), (z,))
            n.edges = (a._node or (a if a._view is None else edge(a)),)
            t._node = n
            t._requires_grad = True
        else:
            t._node = None
            t._requires_grad = False
        return t

    return _named(fast, op)


def _named(fast: Callable[..., Tensor], op: Any) -> Callable[..., Tensor]:
    fast.__module__ = _HERE
    return fast


def module_of(frame: FrameType) -> str:
    """The name of a frame's module, also where it is this one."""
    name: str | None = frame.f_globals.get("__name__", "")
    return _HERE if name is None else name


globals()["__name__"] = None  # See Note [A module without a name]
