"""`compile(fn)`: trace once per kind of input, fuse, replay; with gradients where they are wanted.

Note [Kinds of call]
    A trace is kept under everything that may have decided it: structure, shapes, strides, dtypes, device and
    `requires_grad` of the tensors, which of them share memory, every other argument, the modes, and whatever the
    function refers to (Note [Guards]).  A call that differs in any of these is traced anew.

Note [What runs as it is]
    Tracing runs the function, so its first call is right whatever it does.  Where Python decided by a value, or did
    what a replay would leave out (`breaks` says what and where), no trace is kept, and such calls go on running the
    function itself.  With `fullgraph=True` they are errors instead.  A function that was broken off too often, or has
    too many kinds of call, is not traced any more, which is logged once, as a warning.  Nor is a call on so few
    elements that a replay takes longer than the function (Note [Small calls]).  A call like one of the last is not even
    searched for (Note [Hits]).
"""

from __future__ import annotations

import functools
import gc
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rushlight_jit import worth
from rushlight_jit.guards import Walk, closure, difference, walk
from rushlight_jit.hits import MOST_HITS, Hit, hit_of
from rushlight_jit.ir import Graph
from rushlight_jit.joint import Joint
from rushlight_jit.memory import classes, extent, own, touches
from rushlight_jit.tracer import ALONE, TraceError, Tracer, tracing
from rushlight_jit.watch import Watch
from rushlight_tensor.core import devices, dispatch, dtypes
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.structure import flatten, is_plain, leaves_of, without_leaves
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.kernels import entry

MOST_TRACES, MOST_BREAKS = 64, 8
_TRIES = 8  # hits that are made of one trace: where none of them lasts, no more are

_ndarray = np.ndarray
_log = logging.getLogger(__name__)


def _name_of(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


class Compiled:
    """A function that is traced, fused and replayed.

    `graph` and `source()` show what the last call ran that was not a small one, `breaks` why calls could not be traced.
    """

    __slots__ = ("__dict__", "__weakref__", "_fn", "_hits", "_last", "_small")

    def __new__(cls, *args: Any, **kwargs: Any) -> Compiled:
        return entry.new(cls, Compiled, Hit)

    def __init__(self, fn: Callable[..., Any], fullgraph: bool = False) -> None:
        self._fn, self._fullgraph = fn, fullgraph
        self._traces: dict[Any, list[_Entry]] = {}
        self._names: list[frozenset[str]] = []
        self._hits: tuple[Hit, ...] = ()
        self._last: Joint | None = None
        self.breaks: list[str] = []
        self._gave_up = False
        self._small, self._large = -1, math.inf  # elements of arguments: up to so many, and from so many on
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """In C as well: see Note [Entries]."""
        if not kwargs:
            for hit in self._hits:
                if hit.meets(args):
                    self._last = hit.joint or self._last
                    return hit(args)
            if self._is_small(args):
                return self._fn(*args)
        return self._find(*args, **kwargs)

    def _is_small(self, args: tuple[Any, ...]) -> bool:
        """See Note [Small calls]."""
        count = 0
        for x in args if self._small >= 0 else ():
            if type(x) is not Tensor or type(x._array) is not _ndarray:
                return False
            count += x._array.size
        return count <= self._small

    def _find(self, /, *args: Any, **kwargs: Any) -> Any:
        """The call by its trace, which is made if there is none yet."""
        if dispatch.INTERCEPT is not None:  # inside another trace: part of that one
            return self._fn(*args, **kwargs)
        call = _Call(args, kwargs)
        if call.without_data:
            return self._fn(*args, **kwargs)
        for names in self._names:
            found = walk(self._fn, call.leaves, names, call.tensors)
            for known in self._traces.get((call.kind, tuple(found.tokens)), ()):
                if known.meets(call):
                    self._keep(known.hit(self._fn, call, found))
                    if known.joint is None:
                        return self._as_it_is(call)
                    self._last = known.joint
                    return known.joint(call.tensors)
        if len(self._traces) < MOST_TRACES and len(self.breaks) < MOST_BREAKS:
            return self._trace(call)
        self._give_up()
        return self._as_it_is(call)

    def _keep(self, hit: Hit | None) -> None:
        """Compare calls with this one first, from now on."""
        if hit is not None and (hit.joint is not None or not self._fullgraph):
            self._hits = (hit, *self._hits[: MOST_HITS - 1])

    def _as_it_is(self, call: _Call) -> Any:
        if self._fullgraph:
            raise TraceError(f"compile: {_name_of(self._fn)} is not replayed: {self._why()}")
        return self._fn(*call.args, **call.kwargs)

    def _why(self) -> str:
        return self.breaks[-1] if self.breaks else f"more than {MOST_TRACES} kinds of call"

    def _give_up(self) -> None:
        """Say, once, that from now on new kinds of call are no faster than the function itself."""
        if not self._gave_up:
            self._gave_up = True
            _log.warning("compile: %s is not traced any more, new kinds of call run as they are: %s",
                         _name_of(self._fn), self._why())  # fmt: skip

    def _trace(self, call: _Call) -> Any:
        """The first call of its kind: run the function and keep its trace, if it can stand for the next one."""
        before = closure(self._fn, call.leaves, call.tensors, _name_of(self._fn))
        if _without_data(before.tensors.values()):
            return self._fn(*call.args, **call.kwargs)
        attempt = _Attempt(self._fn, call, before, self._fullgraph)
        if not ALONE.acquire(blocking=False):  # another thread is tracing: the next call may try
            return self._fn(*call.args, **call.kwargs)
        try:
            result = attempt.run()
        finally:
            ALONE.release()
        if attempt.breaks:
            if self._fullgraph:
                raise TraceError(f"compile: {attempt.breaks[0]}")
            self.breaks.append(attempt.breaks[0])
        if before.names not in self._names:
            self._names.append(before.names)
        made = _Entry(attempt.joint, before, call)
        self._traces.setdefault((call.kind, tuple(before.tokens)), []).append(made)
        self._last = attempt.joint or self._last
        if attempt.joint is not None and not self._fullgraph:
            pays = worth.pays(attempt.joint, call.tensors, len(before.tokens))
            self._learn(call, pays)
            if not pays and type(self) is not Compiled:  # else comparing takes as long as searching
                hit = made.hit(self._fn, call, before)
                self._keep(hit if hit is not None and worth.hit_pays(hit, call.tensors) else None)
        return result

    def _learn(self, call: _Call, pays: bool) -> None:
        """Which calls are small: up to the most elements that did not pay, where no fewer have."""
        if not all(type(t._array) is _ndarray for t in call.tensors):
            return
        count = sum([t._array.size for t in call.tensors])
        if pays:
            self._large = min(self._large, count)
        if count < self._large:
            self._small = max(self._small, count)
        elif self._small >= self._large:
            self._small = -1

    def _guarded(self) -> Any:
        return self._fn

    def __reduce__(self) -> Any:
        return Compiled, (self._fn, self._fullgraph)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A compiled function in a class is a method."""
        return self if instance is None else functools.partial(self, instance)

    @property
    def traces(self) -> int:
        """How many different kinds of call are replayed."""
        return sum(e.joint is not None for entries in self._traces.values() for e in entries)

    @property
    def graph(self) -> Graph:
        """The optimised graph that the last call ran.  Raises RuntimeError where there is none."""
        return self._joint().forward.graph

    def source(self) -> str:
        """The C text of the fused kernels of the last call, forward and backward."""
        joint = self._joint()
        return joint.forward.source() + ("" if joint.backward is None else "\n" + joint.backward.source())

    def _joint(self) -> Joint:
        if self._last is not None:
            return self._last
        if self.breaks:
            raise RuntimeError(f"compile: {_name_of(self._fn)} has no graph, it runs as it is: {self.breaks[-1]}")
        raise RuntimeError(f"compile: {_name_of(self._fn)} has not been called yet; its graph depends on the inputs")


def compile(
    model: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: Any = None,
    disable: bool = False,
) -> Any:
    """A function (or module) that runs `model` as one graph with fused kernels; also a decorator.

    Never silently wrong: what a graph cannot stand for runs as it is, and `breaks` of the result says what that was
    (Note [What runs as it is]).

    Args:
        model: Function of tensors and other values; traced once per kind of call.
        fullgraph: Raise TraceError, with the user's line, instead of running `model` as it is; no call is too small.
        dynamic, options: Accepted for PyTorch's signature: shapes are always static.
        backend, mode: One of PyTorch's names; all mean the same, as there is one backend.
        disable: Return `model` as it is.
    Returns:
        For a module a module (`_orig_mod` is the original), else a `Compiled`.
    """
    _check_choices(mode, backend)
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph, disable=disable)
    if not callable(model):
        raise AssertionError(f"A callable function is expected, but {type(model)} is provided.")
    if disable:
        return model
    run = Compiled(model, fullgraph)
    as_module = getattr(type(model), "_compiled_as", None)
    return run if as_module is None else as_module(model, run)


_MODES = (None, "default", "lite", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")
_BACKENDS = (None, "inductor", "cudagraphs", "aot_eager", "eager")


def _check_choices(mode: Any, backend: Any) -> None:
    """A name that PyTorch does not know is a mistake; a backend of the user's own would never be called."""
    if mode not in _MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(m for m in _MODES if m)}")
    if backend not in _BACKENDS:
        raise RuntimeError(
            f"Invalid backend: {backend!r}; there is one, and {', '.join(b for b in _BACKENDS if b)} all name it: "
            "leave the argument out"
        )


class _Entry:
    """What one kind of call runs: a trace, or the function itself.

    Args:
        joint: The trace.
        before: The walk before it, which has met the tensors that the function refers to, and keeps what ids stand for.
        call: That which was traced.
    """

    __slots__ = ("_held", "_keep", "_overlaps", "_own", "_spans", "_tries", "joint")

    def __init__(self, joint: Joint | None, before: Walk, call: _Call) -> None:
        held = [t._array for t in before.tensors.values()]
        self.joint, self._keep = joint, before.keep
        self._held, self._own = {id(a) for a in held}, own(held)
        self._spans = [extent(a) for a in held]
        self._overlaps = call.overlaps(self._spans)
        self._tries = _TRIES

    def hit(self, fn: Any, call: _Call, found: Walk) -> Hit | None:
        """What is compared with the next call, if that can be; `found` is this call's walk."""
        if not self._tries or call.kwargs:
            return None
        self._tries -= 1
        again = walk(fn, call.leaves, found.names, call.tensors, look=True)
        if again.reads is None or again.tokens != found.tokens:
            return None
        return hit_of(call.args, again.reads, self.joint, fn)

    def meets(self, call: _Call) -> bool:
        """Whether the arguments lie in the same memory of these tensors as they did."""
        if not self._held:
            return True
        if self._own and not any(map(any, self._overlaps)):  # then they are others, with memory of their own
            arrays = [t._array for t in call.tensors]
            if own(arrays) and self._held.isdisjoint(map(id, arrays)):
                return True
        return bool(call.overlaps(self._spans) == self._overlaps)


def _without_data(tensors: Iterable[Tensor]) -> bool:
    """Whether some tensors are on "meta", where nothing runs that could be replayed."""
    return any(type(t._array) is AbstractArray for t in tensors)


class _Call:
    """The arguments of a call: their tensors, each once, the other leaves, and what is known of them beforehand."""

    __slots__ = ("args", "kind", "kwargs", "leaves", "order", "structure", "tensors", "without_data")

    def __init__(self, args: Any, kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs
        if not kwargs and {*map(type, args)} <= {Tensor}:
            given = list(args)
            self.structure, shape = _of_tensors(len(args))
            self.leaves: list[Any] = []
        else:
            given = []
            self.structure = flatten((args, kwargs), given)
            self.leaves, shape = leaves_of(self.structure), without_leaves(self.structure)
        unique = {id(t): t for t in given}
        self.tensors = given if len(unique) == len(given) else list(unique.values())
        place = {key: i for i, key in enumerate(unique)}
        self.order = tuple([place[id(t)] for t in given])
        arrays = [dispatch.settle(t) for t in self.tensors]  # what is written into is seen by whoever holds them
        self.without_data = _without_data(self.tensors)
        kinds = tuple([_kind(t) for t in self.tensors])
        self.kind = shape, self.order, kinds, () if self.without_data else classes(arrays), _modes()

    def overlaps(self, spans: list[tuple[int, int]]) -> Any:
        """Which of these stretches of memory each argument lies in."""
        return [touches(t._array, spans) for t in self.tensors]


@functools.cache
def _of_tensors(count: int) -> tuple[Any, Any]:
    """The structure of a call with so many tensors and nothing else, and what `without_leaves` leaves of it."""
    structure = flatten((tuple([wrap(np.empty(0))] * count), {}), [])
    return structure, without_leaves(structure)


def _kind(t: Tensor) -> Any:
    a = t._array
    on = "cpu" if type(a) is _ndarray else str(devices.of(a))
    return type(t), a.shape, a.strides, a.dtype, on, t._requires_grad, t._node is None


def _modes() -> Any:
    return dispatch.MODE.grad, dispatch.MODE.inference, dtypes.get_default_dtype().name


class _Attempt:
    """One run of the function under the tracer, and all that speaks against keeping what it traced."""

    def __init__(self, fn: Any, call: _Call, before: Walk, strict: bool) -> None:
        self._fn, self._call, self._before = fn, call, before
        self._tracer = Tracer(strict=strict)
        self.breaks: list[str] = []
        self.joint: Joint | None = None

    def run(self) -> Any:
        """What the function returns."""
        call, tracer = self._call, self._tracer
        for t in (*call.tensors, *self._before.tensors.values()):
            dispatch.edge(t)  # views find their place in the graph now, not within the trace
        alive = _arrays_alive()
        values = [tracer.input(f"x{i}", t._array) for i, t in enumerate(call.tensors)]
        state = self._state()
        with self._watching():
            result = self._fn(*call.args, **call.kwargs)
        outs: list[Tensor] = []
        structure = flatten(result, outs)
        self.breaks += tracer.breaks
        self._check(structure, outs, alive)
        self._compare(state)
        if self.breaks:
            return result
        held = self._before.tensors
        joint = Joint(tracer, call.tensors, values, outs, structure, held, self._watching)
        self.breaks += tracer.breaks
        if joint.aliases:
            self.breaks.append(
                f"{_place_of(self._fn)}: a result shares memory with an argument, a tensor that the function refers "
                "to, or another result; return a clone() of it"
            )
        if self.breaks:
            return result
        made, joint.made = joint.made, []
        self.joint = joint
        return joint.results(call.tensors, made)  # tracing has run the function: once is enough for what it writes

    @contextmanager
    def _watching(self) -> Iterator[None]:
        with tracing(self._tracer), Watch(self._before.codes, self.breaks.append):
            yield

    def _state(self) -> Any:
        """What a run may change about tensors, beside their elements."""
        tensors = [*self._call.tensors, *self._before.tensors.values()]
        return _modes(), [(t, *_of_tensor(t)) for t in tensors]

    def _compare(self, before: Any) -> None:
        """Find out what the run has changed in Python, which a replay would not."""
        here = _place_of(self._fn)
        modes, tensors = before
        if modes != _modes():
            self.breaks.append(f"{here}: the function leaves another grad mode or default dtype behind; use a context")
        for t, *was in tensors:
            if any(a is not b and (type(a) is not tuple or a != b) for a, b in zip(was, _of_tensor(t), strict=True)):
                shape = list(t._array.shape)
                self.breaks.append(
                    f"{here}: the memory, gradient, hooks or requires_grad of a tensor {shape} from outside is changed "
                    "(by .data, .grad, requires_grad_(), or a write that is differentiated); return it instead"
                )
                break
        again: list[Tensor] = []
        structure = flatten((self._call.args, self._call.kwargs), again)
        same = without_leaves(structure) == without_leaves(self._call.structure)
        if not same or [id(t) for t in again] != [id(self._call.tensors[i]) for i in self._call.order]:
            self.breaks.append(f"{here}: a list or dict among the arguments is changed; return a new one")
        after = walk(self._fn, self._call.leaves, self._before.names, self._call.tensors, _name_of(self._fn))
        path = difference(self._before, after)
        if path is not None:
            self.breaks.append(f"{here}: {path} is changed by the function; return the new value instead")

    def _check(self, structure: Any, outs: list[Tensor], alive: set[int]) -> None:
        """Find out whether all that was read and all that is returned is known."""
        here = _place_of(self._fn)
        for i in self._tracer.graph.instrs:
            if i.op.scheduled:
                why = "depends on what Python keeps (learning rate, schedule), which a replay would not follow"
                self.breaks.insert(0, f"{i.where}: {i.op.name} {why}; call the optimizer outside the compiled function")
        for leaf in leaves_of(structure):
            if not is_plain(leaf):
                self.breaks.append(f"{here}: returns a {type(leaf).__name__}; return tensors in tuples, lists or dicts")
        self.breaks += [f"{here}: {why}" for why in self._before.unknown]
        for a in self._tracer.graph.captured.values():
            if id(a) in alive and id(a) not in self._before.tensors:
                self.breaks.append(
                    f"{here}: a tensor {list(a.shape)} was reached in a way that compile cannot follow; pass it as an "
                    "argument, or refer to it by name"
                )


def _of_tensor(t: Tensor) -> tuple[Any, ...]:
    grad, hooks = getattr(t, "_grad", None), getattr(t, "_hooks", None)
    return t._array, t._array.shape, t._requires_grad, t._node, grad, hooks


def _arrays_alive() -> set[int]:
    """The arrays of all tensors that exist before a trace."""
    return {id(t._array) for t in gc.get_objects() if issubclass(type(t), Tensor) and hasattr(t, "_array")}


def _place_of(fn: Any) -> str:
    """`file.py:12` where a function, or the forward of a module, begins."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    found = getattr(fn, "__func__", fn)
    if not hasattr(found, "__code__"):
        found = getattr(type(fn), "forward", None) or vars(type(fn)).get("__call__", fn)
    code = getattr(found, "__code__", None)
    return type(fn).__name__ if code is None else f"{code.co_filename}:{code.co_firstlineno}"
