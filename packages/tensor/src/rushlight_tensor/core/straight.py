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

from rushlight_tensor.core import dispatch
from rushlight_tensor.core.dispatch import MODE, call, edge, sync
from rushlight_tensor.core.graph import INPUT, OUT, Node, save
from rushlight_tensor.core.kinds import Elementwise
from rushlight_tensor.core.layout import lay
from rushlight_tensor.core.promote import same
from rushlight_tensor.core.quiet import quiet
from rushlight_tensor.core.tensor import Tensor

ndarray = np.ndarray
_new = object.__new__
_NO_ATTRS: dict[str, Any] = {}
_HERE = __name__


def fast_path(op: Any) -> Callable[..., Tensor] | None:
    """The straight line for unary and binary ops without attributes; `None` for the others."""
    if op.defaults or op.view or op.variadic:
        return None
    if (
        op.arity == 1
        and isinstance(op.kind, Elementwise)
        and (op.vjp is not None or op.promote is not None)
        and not hasattr(op.promote, "refuses")
    ):
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

    def fast(input: Tensor, other: Any) -> Tensor:  # See Note [The straight line]
        if type(other) is Tensor or isinstance(other, Tensor):
            x = input._array
            y = other._array
            if x.dtype is not y.dtype or dispatch.INTERCEPT is not None or type(x) is not ndarray:
                return call(op, (input, other), {})
            if refused and x.dtype.kind in refused:
                return call(op, (input, other), {})
            grad = differentiable and (input._requires_grad or other._requires_grad) and MODE.grad
        elif type(other) is float or type(other) is int:
            x = input._array
            y = other
            if x.dtype.kind != "f" or dispatch.INTERCEPT is not None or type(x) is not ndarray:
                return call(op, (input, other), {})
            grad = differentiable and input._requires_grad and MODE.grad
        else:
            return call(op, (input, other), {})
        try:
            z = cpu(x, y) if is_ufunc else quiet(cpu, x, y)
        except Exception:  # shapes, devices: `call` explains; NumPy's error state: Note [A module without a name]
            return call(op, (input, other), {})
        if type(z) is not ndarray:
            if not isinstance(z, np.generic):
                return call(op, (input, other), {})
            z = np.asarray(z)  # NumPy gives a scalar for 0-d operands
        elif z.ndim > 1 and not (x.flags.c_contiguous and (y is other or y.flags.c_contiguous)):
            z = lay(op, z, (x, y), _NO_ATTRS)  # NumPy's order is not PyTorch's where elements are repeated
        if may_widen and z.dtype is not x.dtype:
            return call(op, (input, other), {})
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
        if y is other:
            n.edges = (input._node or input, None)
        else:
            n.edges = (
                input._node or (input if input._requires_grad else None),
                other._node or (other if other._requires_grad else None),
            )
        if both:
            n.saved = (input, other)
            n.versions = (
                input._version if input._view is None else sync(input),
                None if y is other else other._version if other._view is None else sync(other),
            )
        elif nothing:
            n.saved = n.versions = ()
        else:
            n.stale = False
            save(n, (input, other), (z,))
        if input._view is not None or (y is not other and other._view is not None):
            n.edges = (edge(input), edge(other))
        t._node = n
        t._requires_grad = True
        return t

    return _named(fast, op)


def _unary(op: Any) -> Callable[[Any], Tensor]:
    cpu = op.cpu
    is_ufunc = type(cpu) is np.ufunc
    one = op.saves == ((INPUT, 0),)
    out = op.saves == ((OUT, 0),)
    differentiable = op.vjp is not None

    def fast(input: Any) -> Tensor:  # See Note [The straight line]
        if not isinstance(input, Tensor) or dispatch.INTERCEPT is not None:
            return call(op, (input,), {})
        x = input._array
        if type(x) is not ndarray or x.dtype.kind != "f":
            return call(op, (input,), {})
        try:
            z = cpu(x) if is_ufunc else quiet(cpu, x)
        except Exception:
            return call(op, (input,), {})
        if type(z) is not ndarray:
            z = np.asarray(z)
        elif z.ndim > 1 and not x.flags.c_contiguous:
            z = lay(op, z, (x,), _NO_ATTRS)
        t = _new(Tensor)
        t._array = z
        t._view = None
        t._version = 0
        if differentiable and input._requires_grad and MODE.grad:
            n = _new(Node)
            n.op = op
            n.attrs = _NO_ATTRS
            n.hooks = None
            n.stale = False
            n.shape = z.shape
            version = input._version if input._view is None else sync(input)
            if one:
                n.saved = (input,)
                n.versions = (version,)
            elif out:
                n.saved = (z,)
                n.versions = (None,)
            else:
                save(n, (input,), (z,))
            n.edges = (input._node or (input if input._view is None else edge(input)),)
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
