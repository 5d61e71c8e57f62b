"""Checkpointing: a segment of the graph forgets what its nodes saved, and runs again when one of them needs it.

Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.

Note [One graph]
    The segment is recorded like any other code: its nodes are part of the graph of the whole, so a leaf that is used
    inside and outside, or in several segments, is finished once, and hooks and `grad()` see what they would see without
    a checkpoint.  Only what the nodes saved is taken away at the end of the forward (`graph.PACKED` says whose they
    are).  The first node whose gradient is due runs the segment again: the nodes that are made then, in the same order,
    hand what they saved to the old ones; and the run stops when the last of these has its own (early stop).
    Inside the second run a nested checkpoint keeps everything: its nodes belong to the outermost segment.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from rushlight_autograd import engine
from rushlight_autograd.mode import enable_grad
from rushlight_tensor.core import dispatch, inplace
from rushlight_tensor.core.dispatch import MODE
from rushlight_tensor.core.graph import PACKED, Node, stale_text, version
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.random import default_generator


class CheckpointError(RuntimeError):
    """The second run of a segment did something else than the first."""


class _Enough(BaseException):
    """Ends the second run; no `except Exception` of the user holds it up."""


class _Collector:
    """An interceptor that executes as usual and reports the nodes of this thread that save arrays."""

    outer: Any = None

    def __init__(self, on_node: Callable[[Node], None]) -> None:
        self.on_node = on_node
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        dispatch.enter_intercept(self)

    def __exit__(self, *exc: object) -> None:
        dispatch.leave_intercept(self)

    def execute(self, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
        outer = self.outer
        return dispatch.run(op, arrays, attrs) if outer is None else outer.execute(op, arrays, attrs)

    def write(self, op: Any, array: Any, others: list[Any], attrs: dict[str, Any]) -> None:
        (inplace.write if self.outer is None else self.outer.write)(op, array, others, attrs)

    def mutate(self, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> None:
        (dispatch.run if self.outer is None else self.outer.mutate)(op, arrays, attrs)

    def read(self, x: Tensor) -> None:
        if self.outer is not None:
            self.outer.read(x)

    def stored(self, leaf: Tensor) -> None:
        if self.outer is not None:
            self.outer.stored(leaf)

    def communicates(self, what: str) -> None:
        if self.outer is not None:
            self.outer.communicates(what)

    def recorded(self, node: Node) -> None:
        if self.outer is not None:
            self.outer.recorded(node)
        if threading.get_ident() == self._thread and _described(node)[1]:
            self.on_node(node)


class _Again(threading.local):
    running = False


_AGAIN = _Again()  # whether this thread is in the second run of a segment


class _Segment:
    """A function, what it was called with, and the nodes that it recorded."""

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], keep_rng: bool, check: bool
    ) -> None:
        self.fn, self.args, self.kwargs, self.check = fn, args, kwargs, check
        self.versions = [version(a) if isinstance(a, Tensor) else None for a in args]
        self.rng = default_generator.get_state() if keep_rng else None
        self.nodes: list[Any] = []  # weak references, or the graph could not be freed
        self.saw: list[Any] = []

    def first(self, context: Any) -> Any:
        """Run the function, and let its nodes forget what they saved."""
        made: list[tuple[Node, Any]] = []
        with _Collector(lambda node: made.append((node, _described(node)))), context:
            out = self.fn(*self.args, **self.kwargs)
        for node, saw in made:
            self.nodes.append(weakref.ref(node))
            self.saw.append(saw)
            node.saved = None
            PACKED[node] = self
        return out

    def refill(self) -> None:
        """Run the function again, and give its nodes what they had saved.

        Raises:
            RuntimeError: An input was changed in place since.
            CheckpointError: The second run saved something else.
        """
        for a, v in zip(self.args, self.versions, strict=True):
            if isinstance(a, Tensor) and version(a) != v:
                raise RuntimeError(stale_text(a, "checkpoint"))
        made: list[tuple[Node, Any]] = []
        before = _AGAIN.running, (None if self.rng is None else default_generator.get_state())
        _AGAIN.running = True
        if self.rng is not None:
            default_generator.set_state(self.rng)
        try:
            with _Collector(lambda node: self._take(made, node)), enable_grad():
                engine.users(self._run)
        except _Enough:
            pass
        finally:
            _AGAIN.running = before[0]
            if before[1] is not None:
                default_generator.set_state(before[1])
        self._hand_over(made)

    def _run(self) -> None:
        self.fn(*self.args, **self.kwargs)

    def _take(self, made: list[tuple[Node, Any]], node: Node) -> None:
        made.append((node, _described(node)))
        if len(made) == len(self.nodes):
            raise _Enough

    def _hand_over(self, made: list[tuple[Node, Any]]) -> None:
        if len(made) < len(self.nodes):
            raise CheckpointError(
                "torch.utils.checkpoint: A different number of tensors was saved during the original forward and "
                f"recomputation.\nNumber of operations that saved during forward: {len(self.nodes)}\nNumber of "
                f"operations that saved during recomputation: {len(made)}"
            )
        for i, (ref, saw, (new, sees)) in enumerate(zip(self.nodes, self.saw, made, strict=True)):
            old = ref()
            if old is None:
                continue
            if self.check and sees != saw:
                raise CheckpointError(
                    "torch.utils.checkpoint: Recomputed values for the following tensors have different metadata than "
                    f"during the forward pass.\noperation at position {i}:\nsaved metadata: {saw}\n"
                    f"recomputed metadata: {sees}"
                )
            old.saved, old.versions, old.stale = new.saved, new.versions, new.stale
            PACKED.pop(old, None)


def _described(node: Node) -> Any:
    """What both runs must agree on: the operation, and shapes and dtypes of what it saved."""
    arrays = [getattr(item, "_array", item) for item in node.saved or ()]
    return node.name(), tuple((tuple(a.shape), str(a.dtype)) for a in arrays if hasattr(a, "dtype"))


def checkpoint(
    fn: Any,
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    context_fn: Callable[[], tuple[Any, Any]] | None = None,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """`fn(*args)` without keeping what its gradient needs: the backward pass runs `fn` again.

    Args:
        fn: Must compute the same both times; random numbers are repeated when `preserve_rng_state`.
        use_reentrant, debug, early_stop: Accepted for PyTorch's signature; there is one implementation.
        context_fn: Two context managers, for the first run and for the second.
        determinism_check: "default" compares shapes and dtypes of both runs, "none" does not.
    Raises:
        RuntimeError: In the backward pass, where an input was changed in place since, or (CheckpointError) the second
            run did something else than the first.
    """
    first, second = context_fn() if context_fn is not None else (contextlib.nullcontext(), None)
    if not MODE.grad or _AGAIN.running:
        with first:
            return fn(*args, **kwargs)
    if second is not None:
        fn = _inside(second, fn)
    return _Segment(fn, args, kwargs, preserve_rng_state, determinism_check != "none").first(first)


def _inside(context: Any, fn: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with context if _AGAIN.running else contextlib.nullcontext():
            return fn(*args, **kwargs)

    return call


def checkpoint_sequential(
    functions: Iterable[Callable[[Any], Any]],
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
) -> Any:
    """The functions one after the other, in so many segments of equal length, all but the last of them checkpointed."""
    steps = list(functions)
    length = max(len(steps) // segments, 1)
    starts = [i * length for i in range(segments)]

    def run(start: int, end: int) -> Callable[[Any], Any]:
        def forward(x: Any) -> Any:
            for step in steps[start:end]:
                x = step(x)
            return x

        return forward

    for start in starts[:-1]:
        input = checkpoint(run(start, start + length), input, preserve_rng_state=preserve_rng_state)
    return run(starts[-1], len(steps))(input)
