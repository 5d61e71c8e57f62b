"""From a call to a result: promote, execute, wrap, record.  The general path, which every op may take.

    call(op, xs, attrs)  promote → execute → wrap → record

Most calls of small ops take a shorter way, see Note [The straight line] in `straight.py`.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Protocol

import numpy as np

from rushlight_tensor.core import abstract, cuda, describe, devices
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.graph import OUT_OF_MANY, RETAIN, Node, Slot, Stale, closed_text, save, version
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.layout import PrivateOrder, is_private, lay, plain, private
from rushlight_tensor.core.lifted import Lifted
from rushlight_tensor.core.placement import CONTIGUOUS
from rushlight_tensor.core.promote import category
from rushlight_tensor.core.quiet import is_busy, quiet, quietly
from rushlight_tensor.core.scalars import wrapped
from rushlight_tensor.core.tensor import ClosedView, Tensor, View, wrap

ndarray = np.ndarray
_NUMBERS = (int, float, complex)  # bool is an int


class _Mode(threading.local):
    grad = True
    inference = False


MODE = _Mode()
"""Grad mode of this thread."""


class Interceptor(Protocol):
    """Who wants to see every operation: the tracer, anomaly mode.

    Its methods stand in for ours while it is installed.
    """

    def execute(self, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
        """Do, or stand in for, `run(op, arrays, attrs)`."""

    def write(self, op: Any, array: Any, others: list[Any], attrs: dict[str, Any]) -> None:
        """Do, or stand in for, `inplace.write(…)`: the result of the op goes into `array`."""

    def mutate(self, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> None:
        """Do, or stand in for, an op that only writes into `arrays`."""

    def recorded(self, node: Node) -> None:
        """A node was made."""

    def stored(self, leaf: Tensor) -> None:
        """A gradient is about to be stored in the `.grad` of a leaf."""

    def read(self, x: Tensor) -> None:
        """Python is about to look at the values of `x`."""

    def communicates(self, what: str) -> None:
        """Data are about to be exchanged with other processes."""


INTERCEPT: Any = None
"""The `Interceptor`, if any; every fast path tests it.  Who calls it reads it once: another thread may take it out."""


def set_intercept(interceptor: Interceptor | None) -> Interceptor | None:
    """Install an interceptor for all threads, or none; returns the one before."""
    global INTERCEPT
    old, INTERCEPT = INTERCEPT, interceptor
    return old


LIFT: Any = None
"""While a transform runs, what lifts tensors of the levels below: `(xs, written=None) -> xs`.

See Note [Levels] in `lifted.py`.
"""


def set_lift(lift: Any) -> None:
    """Set `LIFT`."""
    global LIFT
    LIFT = lift


_CHAIN = threading.Lock()
os.register_at_fork(after_in_child=_CHAIN._at_fork_reinit)  # type: ignore[attr-defined]  # or held there for ever


def enter_intercept(interceptor: Any) -> None:
    """Install an interceptor in front of what is installed, which becomes its `outer`."""
    with _CHAIN:
        interceptor.outer = set_intercept(interceptor)


def leave_intercept(interceptor: Any) -> None:
    """Take an interceptor out.  Those of several threads stand one behind the other, and leave in any order."""
    with _CHAIN:
        if INTERCEPT is interceptor:
            set_intercept(interceptor.outer)
            return
        inner = INTERCEPT
        while inner is not None and getattr(inner, "outer", None) is not interceptor:
            inner = getattr(inner, "outer", None)
        if inner is not None:
            inner.outer = interceptor.outer


_new = object.__new__


# ------------------------------------------------------------------------------------------------- the general path


def call(op: Any, xs: tuple[Any, ...], attrs: dict[str, Any], hidden: bool = False, whole: bool = False) -> Any:
    """Run any op on tensors (or, where it promotes, Python numbers), with a complete set of attributes.

    `hidden`: of a view, that it is only read and never seen, or that nobody else holds what it is a view of.  See Note
    [Private order].  `whole`: of an op with `aux`, all its results.
    """
    if op.hot is not None and not whole:
        return op.hot(xs, attrs)
    return general(op, xs, attrs, hidden, whole)


def general(op: Any, xs: tuple[Any, ...], attrs: dict[str, Any], hidden: bool = False, whole: bool = False) -> Any:
    """`call`, by Python."""
    xs = operands(op, xs)
    if LIFT is not None:
        xs = LIFT(xs)
    if op.view and not hidden:
        settle(xs[0])
    grad = False
    arrays = []
    for x in xs:
        if isinstance(x, Tensor):
            arrays.append(x._array)
            grad = grad or x._requires_grad
        else:
            arrays.append(x)
    watch = INTERCEPT
    try:
        result = run(op, arrays, attrs) if watch is None else watch.execute(op, arrays, attrs)
    except cuda.TwoDevicesError:
        moved = numbers_moved(xs)
        if moved is xs or (op.promote is None and op.expr is None):
            raise
        return call(op, moved, attrs)
    grad = grad and op.vjp is not None and MODE.grad
    if op.side_results:
        out = wrap(_array(result[0]))
        if grad:
            out._node, out._requires_grad = recorded(node_for(op, xs, attrs, result)), True
        return (out, *[wrap(_array(z)) for z in result[1:]]) if whole else out
    if type(result) is tuple:
        return several(op, xs, attrs, result, grad)
    out = wrap(result if type(result) is ndarray else _array(result))
    if op.view:
        out._view = view_of(xs[0], op, attrs)
        out._requires_grad = op.vjp is not None and xs[0]._requires_grad
    if grad and category(out._array.dtype) >= 2:
        record(op, xs, attrs, (out,))
    return out


def several(op: Any, xs: tuple[Any, ...], attrs: dict[str, Any], result: tuple[Any, ...], grad: bool) -> Any:
    """The tensors of an op with several results."""
    outs = tuple([wrap(_array(z)) for z in result])
    if op.view:
        for o in outs:
            o._view = view_of(xs[0], op, attrs, several=True)
    if grad:
        record(op, xs, attrs, outs, several=True)
    return outs


def execute(op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    """Run the kernel: ours, or whatever the interceptor makes of it."""
    if (watch := INTERCEPT) is not None:
        return watch.execute(op, arrays, attrs)
    return run(op, arrays, attrs)


def run(op: Any, arrays: list[Any], attrs: dict[str, Any], seen: bool = True) -> Any:
    """Run the kernel of the device that the arrays are on; results that will be `seen` lie as PyTorch's do.

    Raises the user's error where shapes or dtypes do not fit.
    """
    hidden = False
    for a in arrays:
        if type(a) is ndarray or a is None or isinstance(a, _NUMBERS):
            continue
        if type(a) is PrivateOrder:
            hidden = True
            continue
        result = _run_elsewhere(op, arrays, attrs)
        break
    else:
        if hidden:
            return _run_private(op, arrays, attrs, seen)
        try:
            result = quiet(op.cpu, *arrays, **attrs)
        except Exception as e:
            if not is_busy(e):
                explain(op, arrays, attrs, e)
                raise
            result = quietly(_run_kernel, op, arrays, attrs)
    order = op.order
    if order is None or not seen:
        return result
    if type(result) is ndarray:
        if (order is CONTIGUOUS or result.ndim < 2) and result.flags.c_contiguous:
            return result
    elif isinstance(result, np.generic):
        return result
    return lay(op, result, arrays, attrs)


def _run_private(op: Any, arrays: list[Any], attrs: dict[str, Any], seen: bool) -> Any:
    """`run` where some arrays lie in an order that users do not know.  See Note [Private order]."""
    bare = []
    for a in arrays:
        if type(a) is PrivateOrder:
            a = np.array(a, order="C") if op.random else a.view(ndarray)  # draws go by the order that is seen
        bare.append(a)
    result = run(op, bare, attrs, seen=False)
    if op.order is None:  # a view
        return tuple([private(z) for z in result]) if type(result) is tuple else private(result)
    return lay(op, result, arrays, attrs) if seen else result


def _run_kernel(op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    try:
        return op.cpu(*arrays, **attrs)
    except Exception as e:
        explain(op, arrays, attrs, e)
        raise


def _run_elsewhere(op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    """`run` where some arrays are not NumPy's own."""
    kinds = {type(a) for a in arrays}
    if AbstractArray in kinds:
        try:
            return describe.run(op, arrays, attrs)
        except cuda.TwoDevicesError:
            raise
        except Exception as e:
            explain(op, arrays, attrs, e)
            raise
    if any(isinstance(a, ndarray) and type(a) is not ndarray for a in arrays):
        return _run_marked(op, arrays, attrs)
    return cuda.run(op, arrays, attrs)


def _run_marked(op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    """`run` where some arrays are of a subclass of NumPy's that is not ours."""
    kept = (ndarray, PrivateOrder)
    return run(op, [a if type(a) in kept else plain(a) for a in arrays], attrs, seen=False)


def numbers_moved(xs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs, 0-d tensors of the host moved to the device of the others, as PyTorch does for elementwise ops."""
    there = next((x._array for x in xs if isinstance(x, Tensor) and not isinstance(x._array, ndarray)), None)
    if there is None:
        return xs
    on = str(devices.of(there))
    at = [isinstance(x, Tensor) and not x._array.ndim and isinstance(x._array, ndarray) for x in xs]
    if not any(at):
        return xs
    return tuple([call(MOVE, (x,), {"to": on, "back": "cpu"}) if move else x for x, move in zip(xs, at, strict=True)])


def settle(x: Tensor) -> Any:
    """The array of `x`, whose elements now lie where PyTorch's user expects them.  See Note [Private order]."""
    if type(x._array) is not ndarray and is_private(x._array):
        view = x._view
        if view is None:
            x._array = execute(CLONE, [x._array], {"memory_format": contiguous_format})
        else:  # of a result that only `x` shows: the two go on in one memory
            x._array = execute(view.op, [settle(view.parent)], view.attrs)
    return x._array


def read(x: Tensor, by: str = "") -> Any:
    """The array of `x` on the host, for Python to look at.  While tracing this is where a value leaves the trace.

    Raises NotImplementedError where there are no values; `by` names the function that needs them.
    """
    return cuda.to_host(look(x, by))


def look(x: Tensor, by: str = "") -> Any:
    """The same, where it is: the array of `x` for NumPy's functions."""
    if (watch := INTERCEPT) is not None:
        watch.read(x)
    array = settle(x)
    if type(array) is AbstractArray:
        abstract.no_data(by)
    return array.level.read(array, by) if isinstance(array, Lifted) else array


def explain(op: Any, arrays: list[Any], attrs: dict[str, Any], error: Exception) -> None:
    """A kernel has failed: raise what `infer` says of these shapes and dtypes, or the error under the op's name."""
    avals: list[Any] = [Aval(a.shape, a.dtype) if hasattr(a, "shape") else a for a in arrays]
    try:
        op.infer(*avals, **attrs)
    except (RuntimeError, ValueError, IndexError, TypeError) as why:
        raise why from None
    if isinstance(error, (ValueError, TypeError)) and not str(error).startswith(op.name):
        shapes = ", ".join(str(a.shape) if hasattr(a, "shape") else repr(a) for a in avals)
        raise RuntimeError(f"{op.name}: {error} (inputs: {shapes})") from error


def _array(z: Any) -> Any:
    return np.asarray(z) if isinstance(z, np.generic) else z


def operands(op: Any, xs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs as tensors of the dtypes that the op computes in; Python numbers stay numbers where they may."""
    for x in xs:
        if not isinstance(x, Tensor) and (x is not None or op.promote is not None):
            xs = tuple([operand(op, i, x) for i, x in enumerate(xs)])
            break
    if op.promote is None:
        refused = op.refuses
        if refused:
            for x in xs:
                if x is not None and x._array.dtype.kind in refused:
                    admit(op, x._array.dtype)
        return xs
    common = op.promote([x._array if isinstance(x, Tensor) else x for x in xs])
    if common.kind in op.refuses:
        admit(op, common)
    on = next((x._array for x in xs if isinstance(x, Tensor)), None)
    out = []
    for x in xs:
        if isinstance(x, Tensor):
            out.append(x if x._array.dtype == common else CAST(x, dtype=common))
        elif on is None or common.kind not in "fiu" or (common.kind != "f" and isinstance(x, bool)):
            out.append(wrap(cuda.like(on, np.asarray(x, dtype=common))))  # NumPy cannot be left to guess
        else:
            out.append(x if common.kind == "f" else wrapped(x, common))
    return tuple(out)


def admit(op: Any, common: np.dtype[Any]) -> None:
    """Raise PyTorch's error where `op` does not take the dtype that it would compute in."""
    if common.kind in op.refuses:
        refuse(op.real if common.kind == "c" else op.numeric, common)


def refuse(why: Any, dtype: np.dtype[Any]) -> None:
    """Raise what PyTorch says of a kind of dtype that an op does not take: its field `real` or `numeric`."""
    if isinstance(why, str):
        raise NotImplementedError(f"\"{why}\" not implemented for '{dtype_title(dtype)}'")
    raise type(why)(*why.args)


def real_only(real: str | Exception, *xs: Any) -> None:
    """The same for functions that are made of ops: they say here what a record says in its field."""
    for x in xs:
        if isinstance(x, Tensor) and x._array.dtype.kind == "c":
            refuse(real, x._array.dtype)


def numbers_only(numeric: str | Exception, *xs: Any) -> None:
    """The same for `numeric`."""
    for x in xs:
        if isinstance(x, Tensor) and x._array.dtype.kind == "b":
            refuse(numeric, x._array.dtype)


def floats_only(kernel: str, *xs: Any) -> None:
    """The same for functions that take neither bools nor integers."""
    for x in xs:
        if isinstance(x, Tensor) and category(x._array.dtype) < 2:
            refuse(kernel, x._array.dtype)


CAST: Any = None
CLONE: Any = None
COPY: Any = None
MOVE: Any = None
SPREAD: Any = None
"""The ops that convert, copy, write, move, and copy into given strides; set by `ops`, because all this is
differentiable."""


def operand(op: Any, i: int, x: Any) -> Any:
    if isinstance(x, Tensor) or (x is None and op.promote is None):
        return x
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, _NUMBERS) and (op.promote is not None or op is COPY):
        return x
    if isinstance(x, ndarray) and i:  # beside a tensor, as NumPy's operators have it
        return wrap(x)
    if isinstance(x, Stale):
        x.complain()
    name = op.input_names[min(i, op.arity - 1)]
    name = {"x": "input", "y": "other"}.get(name, name)
    raise TypeError(f"{op.name}(): argument {name!r} (position {i + 1}) must be Tensor, not {_type_name(x)}")


def _type_name(x: Any) -> str:
    return "numpy.ndarray" if isinstance(x, ndarray) else type(x).__name__


# ------------------------------------------------------------------------------------------------------- recording


def edge(x: Any) -> Any:
    """What a gradient for `x` is sent to: its node, the leaf itself, or None."""
    if not isinstance(x, Tensor) or not x._requires_grad:
        return None
    if x._view is not None:
        sync(x)
        if x._view.dead and x._node is None:
            return None
    return x._node or x


def node_for(op: Any, xs: tuple[Any, ...], attrs: dict[str, Any], arrays: tuple[Any, ...]) -> Node:
    """A node for `op(*xs)`, whose results are `arrays`."""
    n = _new(Node)
    n.op, n.attrs, n.hooks, n.stale = op, attrs, None, False
    n.shape = arrays[0].shape
    n.edges = tuple([edge(x) for x in xs])
    save(n, xs, arrays)
    return n


def recorded(n: Node) -> Node:
    """Tell the interceptor of a new node, when its results are there."""
    if (watch := INTERCEPT) is not None:
        watch.recorded(n)
    return n


def record(
    op: Any, xs: tuple[Any, ...], attrs: dict[str, Any], outs: tuple[Tensor, ...], several: bool = False
) -> None:
    """Make `outs` the results of a new node; one result is no tuple to its rule, unless the op has `several`."""
    n = recorded(node_for(op, xs, attrs, tuple([o._array for o in outs])))
    if len(outs) == 1 and not several:
        outs[0]._node, outs[0]._requires_grad = n, True
        return
    n.shape = tuple([o._array.shape for o in outs])
    for i, o in enumerate(outs):
        if category(o._array.dtype) >= 2:
            o._node, o._requires_grad = Slot(n, i, o._array.shape), True
        elif (OUT_OF_MANY, i) in op.saves:  # indices: they have no node that a write could mark as stale
            at = op.saves.index((OUT_OF_MANY, i))
            assert n.saved is not None
            n.saved = (*n.saved[:at], o, *n.saved[at + 1 :])
            n.versions = (*n.versions[:at], version(o), *n.versions[at + 1 :])


# ------------------------------------------------------------------------------------------------ views, in place


def view_of(parent: Tensor, op: Any, attrs: dict[str, Any], several: bool = False) -> View:
    """The record of a view that is made now, which may be closed.  See Note [Versions and views]."""
    above = parent._view
    if op.vjp is None:
        return View(parent, op, attrs)
    if not MODE.grad:
        why = "inference" if MODE.inference else "no_grad"
    elif several:
        why = "many"
    elif above is not None and above.closed is not None:
        why = above.closed
    else:
        return View(parent, op, attrs)
    view = ClosedView(parent, op, attrs, why)
    view.dead = not MODE.grad and parent._requires_grad
    return view


def sync(v: Tensor) -> int:
    """Bring a view's node up to date with changes of its base; returns the version.  Note [Versions and views]

    Raises RuntimeError where that is impossible, because the view is closed.
    """
    view = v._view
    assert view is not None
    now = view.base._version
    if view.version != now:
        root = view.root
        if root is not None and root._requires_grad:
            if view.closed is not None:
                raise RuntimeError(closed_text(v, "its base or another view of its base has been"))
            before, MODE.grad = MODE.grad, True
            try:
                out = replay(v, root)
            finally:
                MODE.grad = before
            if out._array.shape == v._array.shape:  # or the base got other data
                follow(v, out._node)
                v._requires_grad = out._requires_grad
        view.version = now
    return now


def follow(x: Tensor, node: Any) -> None:
    """`node` makes the new value of `x`; hooks stay with the old one, a retained gradient is always that of the new."""
    old = x._node
    if old is not None and old.hooks is not None and RETAIN in old.hooks:
        if node.hooks is None:
            node.hooks = {}
        node.hooks[RETAIN] = old.hooks.pop(RETAIN)
    x._node = node


def replay(v: Tensor, root: Tensor) -> Tensor:
    """The view `v`, made again from `root` by the same operations (with gradients, where the mode has them)."""
    view = v._view
    if v is root or view is None:
        return root
    parent = replay(view.parent, root)
    out: Tensor = call(view.op, (parent,), view.attrs)  # one view: those of several are closed, and are not made again
    return out
