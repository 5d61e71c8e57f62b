"""In place: operations that write into memory that exists, and what that means for views and for the graph.

inplace(op, x, …)  the result goes into the memory of x, whose place in the graph is taken by the new node
mutate(op, xs)     an op that returns nothing and only writes into its inputs: the step of an optimizer
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda, describe, dispatch
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.dispatch import MODE, call, edge, follow, node_for, recorded, run, sync
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.graph import CustomNode, Node, Slot, Stale, closed_text, pull, refill, stale_text, watch
from rushlight_tensor.core.infer import binary_bool, unary_bool, unary_real
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.layout import PrivateOrder, is_contiguous, plain, repeats, strides
from rushlight_tensor.core.lifted import Lifted
from rushlight_tensor.core.promote import category, same, to_float
from rushlight_tensor.core.quiet import hush
from rushlight_tensor.core.scalars import wrapped
from rushlight_tensor.core.tensor import ClosedView, Tensor, View, wrap
from rushlight_tensor.core.views import conjugates


def inplace(op: Any, x: Tensor, *others: Any, **attrs: Any) -> Tensor:
    """`x = op(x, *others)` in the memory of `x`.  Raises RuntimeError for leaves that require grad, as PyTorch."""
    if dispatch.LIFT is not None:
        others = dispatch.LIFT(others, x)
    wants = x._requires_grad
    if op.vjp is not None:
        for t in others:
            wants = wants or (isinstance(t, Tensor) and t._requires_grad)
    wants = wants and MODE.grad
    if wants:
        writable(x)
    if x._view is not None and conjugates(x):
        raise RuntimeError(
            f"{op.name}_: writes to a conjugate do not reach the tensor that it was made of; write to that, or to "
            "the copy that resolve_conj() gives"
        )
    attrs = {**op.defaults, **attrs}
    ys = operands_into(op, x, others)
    if ys is None:
        return composed(_widened(op), x, *others, **attrs)
    xs = (x, *ys)
    n = None  # made before the change, for the versions
    if wants:
        n = Overwritten((edge(x),), x._array.shape) if op.vjp is None else node_for(op, xs, attrs, (x._array,))
    if n is not None and n.saved is not None and any(item is x for item in n.saved):
        _keep_what_was(n, x)
    _write(op, x, [y._array if isinstance(y, Tensor) else y for y in ys], attrs)
    touch(x)
    if n is None:
        return x
    if x._view is not None and n.op is not None and n.op.saves_out:
        watch(x, n)
    recorded(n)
    rebase(x, n)
    return x


def rebase(x: Tensor, n: Any, at: int = 0) -> None:
    """Let `n`, which wrote over its operand `at` in the memory of `x`, take the place of `x` in the graph.

    Where `x` is a view, that is a part of its root's.
    """
    root = None if x._view is None else x._view.root
    changed = x if root is None else root
    first = not changed._requires_grad
    if root is None:
        follow(x, n)
        x._requires_grad = True
    else:
        follow(root, WriteNode(root, x, n, at))
        root._requires_grad = x._requires_grad = True
        sync(x)
    if first:
        _tell_views(changed, x)


def _keep_what_was(n: Node, x: Tensor) -> None:
    """Let `n`, which writes into `x`, save a copy of it: `x` itself would make a cycle.

    Where `x` is another operand, too, that is stale after the write, as in PyTorch.
    """
    assert n.saved is not None
    before = stale = None
    saved, versions = list(n.saved), list(n.versions)
    for at, (item, (_, i)) in enumerate(zip(n.saved, n.op.saves, strict=True)):
        if item is x and i == 0:
            before = dispatch.CLONE(x) if before is None else before
            saved[at], versions[at] = before, 0
        elif item is x:
            stale = Stale(stale_text(x, n.op.name)) if stale is None else stale
            saved[at], versions[at] = stale, None
    n.saved, n.versions = tuple(saved), tuple(versions)


def composed(fn: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`x = fn(x, …)` in the memory of `x`, for a function that is made of ops.

    Raises RuntimeError where the result does not fit into the dtype or shape of `x`.
    """
    was = x
    if MODE.grad and any(isinstance(t, Tensor) and t._requires_grad for t in (x, *args, *kwargs.values())):
        writable(x)
        root = None if x._view is None else x._view.root
        # the gradient of a view that is written to goes to its root, past the node and the hooks that the view had
        old = x if root is None or not root._requires_grad else dispatch.replay(x, root)
        was = dispatch.CLONE(old)  # what is saved of it must not be overwritten
    result = fn(was, *args, **kwargs)
    if x._array.dtype.kind == "c" != result._array.dtype.kind:
        raise RuntimeError(f"In-place {fn.__name__} is not supported for complex tensors.")
    if category(result._array.dtype) > category(x._array.dtype):
        got, into = (dtype_title(t._array.dtype) for t in (result, x))
        raise RuntimeError(f"result type {got} can't be cast to the desired output type {into}")
    return inplace(dispatch.COPY, x, result)


def writable(x: Tensor) -> None:
    """Raise RuntimeError, as PyTorch, where a write to `x` could not be recorded: leaves, their views, closed views."""
    view = x._view
    if view is not None and view.root is not None:
        if view.closed is not None:
            raise RuntimeError(closed_text(x, "is being"))
        if view.root._requires_grad and view.root._node is None:
            raise RuntimeError("a view of a leaf Variable that requires grad is being used in an in-place operation.")
    if x._requires_grad and x._node is None:
        raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")


def _users(x: Tensor) -> int:
    """How many references there are to the array that owns the memory of `x`; each view has one.

    Inside a transform that says nothing: a view there holds a view of the tensor below.
    """
    if isinstance(x._array, Lifted):
        return sys.maxsize
    memory = x._array if x._array.base is None else x._array.base
    return sys.getrefcount(memory)


_ALONE = _users(wrap(np.zeros(1)))  # the tensor itself, and what calling costs in this version of Python


def _tell_views(root: Tensor, written: Tensor) -> None:
    """Bring the other views of `root` up to date, which has just come to require grad: they do now, too.

    Ops look at the flag of a tensor alone, and views are not listed anywhere.  They are looked for among all objects,
    which takes milliseconds, but only where the memory has other users than `root` and the views on the way to what
    was `written`.
    """
    known = _ALONE
    at = written
    while at is not root and at._view is not None:
        known += 1
        sync(at)  # those on the way are known
        at = at._view.parent
    if _users(root) <= known:
        return
    views = [v for v in gc.get_referrers(root) if isinstance(v, View) and v.root is root]
    for t in gc.get_referrers(*views):
        if isinstance(t, Tensor) and t._view in views:
            if isinstance(t._view, ClosedView):  # which says so when it is used
                t._requires_grad = t._view.dead = True
            else:
                sync(t)


_ANY_FLOAT = (same, to_float)  # rules that take floats of every dtype, and give that dtype


def operands_into(op: Any, x: Tensor, others: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The other operands, cast for an in-place op whose result has to fit into the dtype of `x`.

    None: the common dtype is another one, though its results may be cast; operands that are cast first would be others
    (300 is 44 to uint8, and float32's 1e5 is inf to float16).
    """
    if len(others) == 1 and op.promote in _ANY_FLOAT and type(x._array) is np.ndarray and x._array.dtype.kind == "f":
        y = others[0]  # what nearly all calls are: nothing to promote
        if type(y) is float or type(y) is int:
            return others
        if isinstance(y, Tensor) and y._array.dtype is x._array.dtype and type(y._array) is np.ndarray:
            return others
    if op.infer is unary_real and x._array.dtype.kind == "c":
        raise RuntimeError(f"In-place {op.name} is not supported for complex tensors.")
    ys = tuple([dispatch.operand(op, i + 1, y) for i, y in enumerate(others)])
    if type(x._array) is not np.ndarray and op.promote is not None:
        ys = dispatch.numbers_moved((x, *ys))[1:]
    if op.promote is None:
        return ys
    common = op.promote([x._array, *[y._array if isinstance(y, Tensor) else y for y in ys]])
    if common.kind in op.refuses:
        dispatch.admit(op, common)
    if op.infer in (binary_bool, unary_bool):
        return tuple([_into(y, common) for y in ys])  # the result is bool, which fits into any dtype
    if category(common) > category(x._array.dtype):
        got, into = (dtype_title(d) for d in (common, x._array.dtype))
        raise RuntimeError(f"result type {got} can't be cast to the desired output type {into}")
    if common != x._array.dtype and op.into is None:
        return None
    return tuple([_into(y, x._array.dtype) for y in ys])


def _widened(op: Any) -> Any:
    """`op` as a function for `composed`: its own promotion computes in the common dtype."""

    def run(*xs: Any, **attrs: Any) -> Any:
        return call(op, xs, attrs)

    run.__name__ = op.name
    return run


def _into(y: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(y, Tensor):
        return y if y._array.dtype == dtype else dispatch.CAST(y, dtype=dtype)
    return wrapped(y, dtype) if dtype.kind in "iu" and isinstance(y, int) else y


def _write(op: Any, x: Tensor, ys: list[Any], attrs: dict[str, Any]) -> None:
    """Compute into the memory of `x`."""
    array = x._array
    if (at := dispatch.INTERCEPT) is not None:
        at.write(op, array, ys, attrs)
        return
    write(op, array, ys, attrs)


def write(op: Any, array: Any, ys: list[Any], attrs: dict[str, Any]) -> None:
    """`array[...] = op(array, *ys)`, without a temporary where the kernel can."""
    array = plain(array) if type(array) is PrivateOrder else array
    without_data = type(array) is AbstractArray
    for y in ys:
        if type(y) is PrivateOrder:
            ys = [plain(y) for y in ys]
            break
        without_data = without_data or type(y) is AbstractArray
    if without_data:
        _refuse_repeated(op, array, ys)
        describe.write(op, array, ys, attrs)
        return
    if not (type(array) is not np.ndarray or array.flags.writeable):
        array = _unlocked(op, array, ys)
    if type(array) is np.ndarray:
        if op.into is not None:
            hush(op.into, array, *ys, **attrs)
            return
        if type(op.cpu) is np.ufunc and array.dtype.kind == "f":
            try:
                hush(op.cpu, array, *ys, out=array)
                return
            except (ValueError, TypeError):
                pass  # explained below
    result = run(op, [array, *ys], attrs, seen=False)
    if result.shape != array.shape:
        raise RuntimeError(
            f"output with shape {list(array.shape)} doesn't match the broadcast shape {list(result.shape)}"
        )
    hush(array.__setitem__, ..., result)


def _unlocked(op: Any, array: Any, ys: list[Any]) -> Any:
    """A read-only array to write into: NumPy locks what was expanded, although its parts may be written to.

    Raises RuntimeError where elements share memory (unless all get one number), and where the memory itself is locked.
    """
    _refuse_repeated(op, array, ys)
    try:
        array = array[...]
        array.flags.writeable = True
    except ValueError:
        raise RuntimeError(f"{op.name}_: this tensor shares read-only memory (from_numpy); clone() it first") from None
    return array


def _refuse_repeated(op: Any, array: Any, ys: list[Any]) -> None:
    """Raise RuntimeError where elements share memory and may get different numbers."""
    if repeats(array) and not (op is dispatch.COPY and all(np.ndim(y) == 0 for y in ys)):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )


def mutate(op: Any, xs: tuple[Tensor, ...], attrs: dict[str, Any]) -> None:
    """Run an op that returns nothing and writes into its first inputs, such as the step of an optimizer."""
    attrs = {**op.defaults, **attrs}
    arrays = [x._array for x in xs]
    if (at := dispatch.INTERCEPT) is not None:
        at.mutate(op, arrays, attrs)
    else:
        run(op, arrays, attrs)
    for x in xs[: op.written(len(xs), attrs)]:
        if x._view is None and x._node is None:
            x._version += 1  # parameters and their state, mostly
        else:
            touch(x)


def touch(x: Tensor) -> None:
    """Note that the memory of `x` was changed: the version moves on, and a node that saved it as its result is stale.

    See Note [What a node holds].
    """
    owner = x if x._view is None else x._view.base
    owner._version += 1
    node = owner._node
    if node is not None and node.op is not None and node.op.saves_out:
        (node.parent if type(node) is Slot else node).stale = True


def let_go(x: Tensor) -> None:
    """Forget how `x` was made; writes to it are still noted where it was saved as a result."""
    node = x._node
    if node is not None and node.op is not None and node.op.saves_out:
        watch(x, node.parent if type(node) is Slot else node)
    x._node, x._requires_grad = None, False


class Overwritten(CustomNode):
    """What an op without gradient left in place of `x`, such as a comparison: `x` has no influence any more."""

    __slots__ = ()

    def apply(self, g: Tensor, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        return (wrap(cuda.like(g._array, np.zeros(self.shape, g._array.dtype))),)


def _twin(n: Node) -> Node:
    """The same node again: the place of what it saved in a graph of its gradient, which can be freed without `n`."""
    if n.op is None:
        return n
    if n.saved is None:
        refill(n)
    twin: Node = object.__new__(Node)
    twin.op, twin.attrs, twin.edges, twin.shape, twin.hooks = n.op, n.attrs, n.edges, n.shape, None
    twin.saved, twin.versions, twin.stale = n.saved, n.versions, n.stale
    return twin


class WriteNode(CustomNode):
    """`root` after its view was written over, as operand `at` of `inner`: a gradient splits into the parts of these.

    The views that led to what was written are made again of the gradient, so that has to lie in memory as `root` did.
    """

    __slots__ = ("at", "inner", "path", "strides")

    def __init__(self, root: Tensor, view: Tensor, inner: Node, at: int) -> None:
        super().__init__((edge(root), *inner.edges[:at], *inner.edges[at + 1 :]), root._array.shape)
        self.inner, self.at = inner, at
        self.strides = None if is_contiguous(root._array) else strides(root._array)
        path = []
        t = view
        while t is not root:
            assert t._view is not None
            path.append((t._view.op, t._view.attrs))
            t = t._view.parent
        self.path = tuple(reversed(path))

    def name(self) -> str:
        return "CopySlices"

    def apply(self, g: Tensor, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        if self.strides is None:
            whole = dispatch.CLONE(g, memory_format=contiguous_format)
        else:
            whole = dispatch.SPREAD(g, self.strides)
        part = whole
        for op, attrs in self.path:
            part = call(op, (part,), attrs)  # one view: those of several are closed, and not written into
        at = self.at
        wanted = [e if need else None for e, need in zip(self.edges[1:], needs[1:], strict=True)]
        remains = None if self.inner.op is dispatch.COPY else self.inner.edges[at] or True  # else it is zero
        node = _twin(self.inner) if MODE.grad else self.inner
        inner = pull(node, dispatch.CLONE(part), [*wanted[:at], remains, *wanted[at:]], MODE.grad)
        before = inner[at]
        if before is None:
            before = wrap(cuda.like(part._array, np.zeros((), part._array.dtype)))
        inplace(dispatch.COPY, part, before)
        return (whole, *inner[:at], *inner[at + 1 :])
