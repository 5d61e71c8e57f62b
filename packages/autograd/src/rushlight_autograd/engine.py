"""The backward pass: from the gradients of some results to those of the leaves, each node once, in order.

Note [Order of the backward pass]
    A first walk counts, for every node and leaf, how many gradients will arrive; a node runs when the last one has.
    So a leaf's gradient is stored, and its hooks run, at the earliest moment at which it is final: this is what lets
    data parallelism send it while the rest of the pass goes on.

Note [Who owns a gradient]
    A rule may return what it was given (`add`), a view, or something that was saved.  Only an array that the rule has
    freshly made is stored in `.grad` as it is; everything else is copied, or two leaves would share their gradient.
    What it was given is what its node's hooks made of what arrived.  Hooks may keep what they see and return, so what
    has been through those of a leaf, or of a tensor that retains its gradient, is stored as a copy, too.

Note [Bare gradients]
    Unless the pass itself is recorded (`create_graph`) or traced, gradients travel as arrays, and become tensors for
    the rules and hooks that need them; those without data always are.  See also Note [Arithmetic rules].
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rushlight_autograd import anomaly
from rushlight_tensor.core import dispatch, hot, placement
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.dispatch import MODE, edge
from rushlight_tensor.core.graph import RETAIN, Node, Slot, pull
from rushlight_tensor.core.inplace import inplace, touch
from rushlight_tensor.core.layout import empty_like, strides
from rushlight_tensor.core.quiet import loud, restore, silence
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.methods.gradient import checked_gradient, keep_gradient, type_name
from rushlight_tensor.ops.math.cast import cast, clone
from rushlight_tensor.ops.math.elementwise import _add as add
from rushlight_tensor.ops.reduce.reduce import _sum, sum_to_size


class _Pass(threading.local):
    callbacks: list[Callable[[], None]] | None = None
    silence: Any = None  # what hands a user's function its own error state of NumPy, see Note [Quiet numerics]


_PASS = _Pass()


def queue_callback(fn: Callable[[], None]) -> None:
    """Call `fn` once, at the end of the (outermost) backward pass that is running.

    Raises RuntimeError when none is.
    """
    if _PASS.callbacks is None:
        raise RuntimeError("queue_callback: no backward pass is running in this thread; call it from a gradient hook")
    _PASS.callbacks.append(fn)


def users(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`, a function of the user that the pass calls: in the user's error state of NumPy."""
    return fn(*args) if _PASS.silence is None else loud(_PASS.silence, fn, *args)


def run(
    roots: Sequence[Tensor],
    grads: Sequence[Tensor],
    *,
    retain_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor] | None = None,
) -> list[Tensor | None]:
    """Run the graph backward from `roots`.

    Args:
        roots: Tensors that require grad.
        grads: The gradient of each root, of its shape.
        retain_graph: Keep what the nodes saved, so that the graph can be walked again.
        create_graph: Record the pass itself, for higher derivatives.
        inputs: Return the gradients of these and store none; `None` stores into `.grad` of the leaves.
    """
    before = (MODE.grad, _PASS.callbacks, _PASS.silence)
    callbacks: list[Callable[[], None]] = [] if _PASS.callbacks is None else _PASS.callbacks
    token = silence()
    MODE.grad, _PASS.callbacks, _PASS.silence = create_graph, callbacks, token
    try:
        found = _Walk(create_graph, retain_graph, inputs).from_roots(roots, grads)
        if before[1] is None:
            for fn in callbacks:
                users(fn)
        return found
    finally:
        MODE.grad, _PASS.callbacks, _PASS.silence = before
        restore(token)


class _Walk:
    """One backward pass: what has arrived where, and how much is still to come."""

    __slots__ = ("arrived", "bare", "create_graph", "found", "pending", "retain_graph", "targets")

    def __init__(self, create_graph: bool, retain_graph: bool, inputs: Sequence[Tensor] | None) -> None:
        self.create_graph, self.retain_graph = create_graph, retain_graph
        self.bare = not create_graph and dispatch.INTERCEPT is None
        self.targets = None if inputs is None else [edge(t) for t in inputs]
        self.arrived: dict[Any, Any] = {}
        self.pending: dict[Any, int] = {}
        self.found: dict[Any, Tensor] = {}

    def from_roots(self, roots: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor | None]:
        for root in roots:
            if type(root._array) is AbstractArray:
                self.bare = False
        starts = []
        for root, t in zip(roots, grads, strict=True):
            e = edge(root)
            if e is None:  # a view of something that requires grad, made while nothing was recorded
                raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
            g = t._array if self.bare else t
            if type(e) is Slot:
                self._fill_slot(e, g)
                e = e.parent
            elif e in self.arrived:
                self.arrived[e] = self.arrived[e] + g
            else:
                self.arrived[e] = g if isinstance(e, Node) else self._own(g)
            starts.append(e)
        self.pending = _count(starts, self.targets)
        once = starts if len(starts) == 1 else dict.fromkeys(starts)
        self._walk([e for e in once if self.pending[e] == 0])
        if self.targets is None:
            return []
        return [self.found.get(e) for e in self.targets]

    def _walk(self, ready: list[Any]) -> None:  # the hot loop of the backward pass
        arrived, pending, targets, bare = self.arrived, self.pending, self.targets, self.bare
        if bare and hot.walk is not None:
            hot.walk(self, ready, arrived, pending, self.retain_graph, targets is not None, _pull_wrapped)
            return
        while ready:
            n = ready.pop()
            g = arrived.pop(n, None)
            if isinstance(n, Tensor):
                if g is not None:
                    self._finish_leaf(n, wrap(np.asarray(g) if isinstance(g, np.generic) else g) if bare else g)
                continue
            edges = n.edges
            op = n.op
            if g is None:
                gradients: Any = [None] * len(edges)
            elif n.hooks is not None or targets is not None or type(n) is Slot or type(g) is dict:
                gradients = self._node_in_detail(n, g)
            elif bare:
                if op is not None and op.pull_bare is not None:
                    gradients = op.pull_bare(n, g, edges)
                else:
                    gradients = _pull_wrapped(n, g, edges)
            else:
                gradients = self._pull(n, g, edges)
            if not self.retain_graph and n.saved:
                n.saved = None
            for e, ge in zip(edges, gradients):  # noqa: B905 - one rule per input is checked when an op is declared
                if e is None:
                    continue
                left = pending.get(e)
                if left is None:
                    continue
                if ge is not None:
                    self._arrive(n, g, e, ge)
                pending[e] = left = left - 1
                if left == 0:
                    ready.append(e)

    def _arrive(self, n: Node, g: Any, e: Any, ge: Any) -> None:
        """A gradient of the node `n`, whose own is `g`, comes to what its edge `e` leads to."""
        inner, bare = isinstance(e, Node), self.bare
        shape = e.shape if inner else e._array.shape
        if ge.shape != shape:
            if ge.shape[-len(shape) :] != shape or not shape:
                _check_reducible(n, e, ge.shape, shape)
            ge = _sum_array_to(ge, shape) if bare else sum_to_size(ge, shape)
        have = self.arrived.get(e)
        if have is None:
            if not inner and (not bare or ge is g or ge.base is not None or n.op is None):
                ge = self._own(ge)
            self.arrived[e] = ge
        elif inner or not bare:
            self.arrived[e] = have + ge
        else:
            have += ge
            self.arrived[e] = have

    def _node_in_detail(self, n: Node, g: Any) -> Any:
        """The steps of the hot loop for nodes with hooks, several results, or gradients that were asked for by name."""
        if type(g) is dict:
            g = tuple([self._tensor(g.get(i)) for i in range(len(n.shape))])
        else:
            g = self._tensor(g)
        if n.hooks is not None:
            g = _call_hooks(n.hooks, g)
        given = [t._array for t in (g if type(g) is tuple else (g,)) if t is not None]
        if self.targets is not None and any(n is t for t in self.targets):
            self.found[n] = g
        if type(n) is Slot:
            self._fill_slot(n, g._array if self.bare else g)
            return (None,)
        wanted = [e if e is not None and e in self.pending else None for e in n.edges]
        if self.targets is not None and not any(e is not None for e in wanted):
            return [None] * len(n.edges)
        out = self._pull(n, g, wanted)
        if not self.bare:
            return out
        found = [t if t is None else t._array for t in out]
        for i, e in enumerate(wanted):
            if isinstance(e, Tensor) and any(found[i] is a for a in given):
                found[i] = self._own(found[i])
        return found

    def _pull(self, n: Node, g: Any, edges: Sequence[Any]) -> Sequence[Any]:
        recorder = anomaly.current()
        if recorder is None:
            return pull(n, g, edges, self.create_graph)
        try:
            out = pull(n, g, edges, self.create_graph)
        except RuntimeError as e:
            raise RuntimeError(f"{e}\n{recorder.origin(n)}") from e
        recorder.pulled(n, out)
        return out

    def _tensor(self, g: Any) -> Any:
        if g is None or isinstance(g, Tensor):
            return g
        return wrap(np.asarray(g) if isinstance(g, np.generic) else g)

    def _fill_slot(self, slot: Slot, g: Any) -> None:
        parts = self.arrived.setdefault(slot.parent, {})
        parts[slot.index] = parts[slot.index] + g if slot.index in parts else g

    def _own(self, g: Any) -> Any:
        """A gradient that nobody else holds.  See Note [Who owns a gradient]."""
        if not self.bare:
            return clone(g)
        if isinstance(g, np.generic):
            return np.array(g)
        if not isinstance(g, np.ndarray):
            return g.copy()
        own = empty_like(g)
        own[...] = g
        return own

    def _ordered(self, g: Tensor, leaf: Tensor) -> Tensor:
        """`g`, or a copy, in the order in memory that PyTorch gives to the gradient of this leaf."""
        want = placement.gradient(leaf._array.shape, strides(leaf._array))
        if placement.alike(leaf._array.shape, strides(g._array), want):
            return g
        out: Tensor = dispatch.SPREAD(g, want)
        return out

    def _finish_leaf(self, leaf: Tensor, g: Tensor) -> None:
        hooks = getattr(leaf, "_hooks", None)
        if g._array.dtype != leaf._array.dtype:
            g = cast(g, dtype=leaf._array.dtype)
        if hooks is not None and hooks.before:
            g = _call_hooks(hooks.before, g)
        if self.targets is not None:
            self.found[leaf] = g
            return
        if not leaf._requires_grad:  # frozen since
            return
        if (watch := dispatch.INTERCEPT) is not None:
            watch.stored(leaf)
        have = leaf._grad
        if have is None:
            leaf._grad = clone(g) if hooks is not None and hooks.before else g
            if not (g._array.flags.c_contiguous and leaf._array.flags.c_contiguous):
                leaf._grad = self._ordered(leaf._grad, leaf)
        elif not self.bare:
            leaf._grad = have + g
        else:
            try:
                have._array += g._array
                touch(have)
            except ValueError:  # a gradient that the user gave: expanded, or of a shape that the leaf had before
                inplace(add, have, g)
        if hooks is not None and hooks.after:
            _call_after(hooks.after, leaf)


def _check_reducible(n: Node, e: Any, got: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raise RuntimeError, in PyTorch's words, for a gradient that cannot be summed to the `shape` of its input."""
    lead = len(got) - len(shape)
    if lead < 0 or any(a not in (1, b) for a, b in zip(shape, got[lead:], strict=True)):
        at = next(i for i, other in enumerate(n.edges) if other is e)
        raise RuntimeError(
            f"Function {n.name()} returned an invalid gradient at index {at} - got {list(got)} but expected shape "
            f"compatible with {list(shape)}"
        )


def _pull_wrapped(n: Node, g: Any, edges: Sequence[Any]) -> list[Any]:
    given = np.asarray(g) if isinstance(g, np.generic) else g
    tensors = pull(n, wrap(given), edges, False)
    return [t if t is None else g if t._array is given else t._array for t in tensors]


def _sum_array_to(g: Any, shape: tuple[int, ...]) -> Any:
    lead = g.ndim - len(shape)
    over = (*range(lead), *[lead + i for i, n in enumerate(shape) if n == 1 and g.shape[lead + i] != 1])
    out = dispatch.run(_sum, [g], {"dim": over, "keepdim": False}) if over else g
    return out.reshape(shape)


def _count(starts: list[Any], targets: list[Any] | None) -> dict[Any, int]:
    """How many gradients each reachable node and leaf will get; with targets, only those on a way to one of them."""
    pending: dict[Any, int] = dict.fromkeys(starts, 0)
    stack = list(pending)
    if targets is None and hot.count is not None:
        hot.count(stack, pending)
        return pending
    order = []
    while stack:
        n = stack.pop()
        if isinstance(n, Tensor):
            continue
        order.append(n)
        for e in n.edges:
            if e is None:
                continue
            if e in pending:
                pending[e] += 1
            else:
                pending[e] = 1
                stack.append(e)
    if targets is None:
        return pending
    useful = set(targets)
    changed = True
    while changed:  # `order` is not topological; a few rounds settle it
        changed = False
        for n in reversed(order):
            if n not in useful and any(e in useful for e in n.edges):
                useful.add(n)
                changed = True
    useful.update(starts)
    counts = {e: 0 for e in pending if e in useful}
    for n in order:
        if n in counts:
            for e in n.edges:
                if e in counts:
                    counts[e] += 1
    return counts


def _call_hooks(hooks: dict[int, Any], g: Tensor) -> Tensor:
    retained = hooks.get(RETAIN)
    for fn in list(hooks.values()):
        if fn is not retained:
            out = users(fn, g)
            if out is not None:
                g = checked_gradient(out, g, fn)
    if retained is not None:
        keep_gradient(retained, g)
    return g


def _call_after(hooks: dict[int, Any], leaf: Tensor) -> None:
    for fn in list(hooks.values()):
        out = users(fn, leaf)
        if out is not None and out is not leaf:
            if not isinstance(out, Tensor):
                raise TypeError(f"expected Variable, but hook returned '{type_name(out)}'")
            raise RuntimeError("Tensor post accumulate grad hooks should return None.")
