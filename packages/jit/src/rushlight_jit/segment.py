"""Steps of a plan that C runs by itself: kernels and views, one after another, as one table.

Note [Segments]
    A segment is recorded when it is replayed the second time: its kernels note the arrays that they are given
    (`kernels.program`), and every array is found again in one of three kinds of memory: that of a value that comes in
    from outside, of one that somebody needs afterwards, which is fresh for each run, or of one that only the segment
    sees, which lies where nobody else's is at that time (`_packed`) and goes when the run is over.  From then on a run
    is: look whether what comes in lies as it did, allocate, fill in addresses, one call.  The kernels and their sizes
    are those of eager work, and so are the bits.
    Where anything does not fit (an op that turns out to run as NumPy's text, an input that had to be copied, values
    from outside that overlap, so that one address has two meanings) the steps run one by one, as they do when a
    kernel reports something wrong, so that the error is the op's.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_jit.fuse import Kernel
from rushlight_jit.ir import Instr, Value
from rushlight_jit.memory import extent, overlap
from rushlight_jit.tracer import ALONE
from rushlight_tensor.core import dispatch, layout
from rushlight_tensor.kernels import plan, program
from rushlight_tensor.kernels.binding import STATE, THREADS
from rushlight_tensor.kernels.compile import c_library, has_compiler
from rushlight_tensor.kernels.table import ALIGNED, GIVEN, WORK, Place, Table

FEWEST = 3  # kernels: a table costs as much as two calls
_TRIES, _REFUSAL = 12, 4  # what a refusal takes from the tries; overlap takes one

Env = list[Any]
Step = Callable[[Env], None]


def may_be_part(part: Instr | Kernel) -> bool:
    """Whether a part of a plan may run from C, as far as can be told before it has run."""
    if isinstance(part, Kernel):
        return part.function is not None
    op = part.op
    if part.writes or op.random or op.communicates or len(part.outputs) == 0:
        return False
    return op.view or op is dispatch.CLONE or op.name in _planned()


@functools.cache
def _planned() -> frozenset[str]:
    """The records that have a kernel with a plan; none where there is no compiler."""
    return frozenset([p.op.name for p in plan.PLANNED] if has_compiler() else [])


class _Refused(Exception):
    """These calls make no table, at least not this time."""


class Segment:
    """A run of parts.

    Args:
        parts: What it does.
        steps: The same, one by one, and what is dropped in between.
        slots: Where the plan keeps its values.
        needed: Those that are needed afterwards.
        done: The slots of those that came in and are not.
    """

    def __init__(
        self, parts: list[Instr | Kernel], steps: list[Step], slots: dict[Value, int], needed: set[Value],
        done: list[int],
    ) -> None:  # fmt: skip
        self.parts, self._steps, self._slots, self._done = parts, steps, slots, done
        made = [o for p in parts for o in p.outputs]
        takes = [v for p in parts for v in (p.inputs if isinstance(p, Kernel) else p.values())]
        self._inputs = [v for v in dict.fromkeys(takes) if v not in set(made)]
        self._views = [p for p in parts if isinstance(p, Instr) and p.op.view]
        wanted = set(needed)
        for p in reversed(self._views):  # are made anew, of memory that has to be there
            if wanted.intersection(p.outputs):
                wanted.update(p.values())
        viewed = {o for p in self._views for o in p.outputs}
        self._views = [p for p in self._views if wanted.intersection(p.outputs)]
        self._wanted = [v for v in made if v in wanted and v not in viewed]
        self._run: _Bound | None = None
        self._tries = _TRIES
        self._seen = False

    def __call__(self, env: Env) -> None:
        run = self._run
        if run is not None and run.table.threads == STATE[THREADS]:
            run(env)
        elif self._seen and self._tries > 0 and all(isinstance(env[self._slots[v]], np.ndarray) for v in self._inputs):
            self._record(env)
        else:
            self._seen = True
            self.by_steps(env)

    def by_steps(self, env: Env) -> None:
        """Everything, one by one."""
        for step in self._steps:
            step(env)

    def _record(self, env: Env) -> None:
        """A run whose kernels note themselves, and the table that they make."""
        if self._overlap(env) or not ALONE.acquire(blocking=False):
            self._tries -= 1
            self.by_steps(env)
            return
        before = [env[self._slots[v]] for v in self._inputs]
        known = dict(zip(self._inputs, before, strict=True))
        try:
            with program.recording() as recorded:
                for part in self.parts:
                    _run_part(part, known)
            self._run, self._tries = _Bound(self, known, recorded.calls), _TRIES
        except (_Refused, RuntimeError):  # also the user's error, which the steps raise again
            self._tries -= _REFUSAL
        finally:
            ALONE.release()
        self.by_steps(env)

    def _overlap(self, env: Env) -> bool:
        """Whether two values from outside share memory, so that one address has two meanings."""
        spans = sorted(s for v in self._inputs if (s := extent(env[self._slots[v]]))[0] < s[1])
        return any(overlap(a, b) for a, b in itertools.pairwise(spans))


def _run_part(part: Instr | Kernel, known: dict[Value, Any]) -> None:
    """One part, on arrays, while a program records."""
    if isinstance(part, Kernel):
        arrays = [known[v] for v in part.inputs]
        if not part.fits(*arrays):
            raise _Refused
        made = [np.empty(part.shape, v.dtype) for v in part.outputs]
        given = [*arrays, *made, *part.size]
        part.function(*given)
        plan.RECORDER.add(part, given)
        known.update(zip(part.outputs, made, strict=True))
        return
    result = dispatch.execute(part.op, [known[x] if isinstance(x, Value) else x for x in part.inputs], part.attrs)
    known.update(zip(part.outputs, result if isinstance(result, tuple) else (result,), strict=True))


class _Block:
    """Memory that calls write to: where it was, from which call to which it is in use."""

    __slots__ = ("first", "high", "last", "low")

    def __init__(self, low: int, high: int, first: int) -> None:
        self.low, self.high, self.first, self.last = low, high, first, first


class _Bound:
    """The table of a segment, and how its blocks are found in each run."""

    def __init__(self, segment: Segment, known: dict[Value, Any], calls: list[Any]) -> None:
        if len(calls) < FEWEST:
            raise _Refused
        self._segment = segment
        slots = segment._slots
        self._inputs = [(slots[v], type(a), a.shape, a.strides, a.dtype) for v in segment._inputs for a in [known[v]]]
        self._outside = [extent(known[v]) for v in segment._inputs]
        self._starts = [_start(known[v]) for v in segment._inputs]
        self._blocks = _written(calls, self._outside)
        homes = [self._block(known[v]) for v in segment._wanted]
        self._homes = [id(b) for b in homes]
        fresh = {id(b): b for b in homes}
        self._given = {key: GIVEN + len(self._inputs) + n for n, key in enumerate(fresh)}
        self._fresh = [(b.high - b.low) for b in fresh.values()]
        places, room = _packed([b for b in self._blocks if id(b) not in self._given])
        self._at = places
        self._results = [self._result(slots[v], known[v]) for v in segment._wanted]
        self.table = Table(calls, self._locate, room)
        self._steps = [_view_step(p, slots) for p in segment._views]
        library = c_library("program")
        assert library is not None
        self._address = library.rl_address

    def _block(self, array: Any) -> _Block:
        low, high = extent(array)
        for b in self._blocks:
            if b.low <= low and high <= b.high and low < high:
                return b
        raise _Refused  # nobody has written it: an op that returns what it was given, or an array without elements

    def _is_alone(self, b: _Block) -> bool:
        """Whether only one result lies in a block."""
        return self._homes.count(id(b)) == 1

    def _locate(self, array: Any) -> Place:
        low, high = extent(array)
        if low == high:
            return WORK, 0
        at = _start(array)
        for n, (start, end) in enumerate(self._outside):
            if start <= low and high <= end:
                return GIVEN + n, at - self._starts[n]
        b = self._block(array)
        if id(b) in self._given:
            return self._given[id(b)], at - b.low
        return WORK, self._at[id(b)] + at - b.low

    def _result(self, slot: int, z: Any) -> tuple[Any, ...]:
        """How a result is made of its block: (slot, block, whether it is all of it, and its description)."""
        b = self._block(z)
        whole = type(z) is np.ndarray and z.flags.c_contiguous and z.nbytes == b.high - b.low and self._is_alone(b)
        n = self._given[id(b)] - GIVEN - len(self._inputs)
        return slot, n, whole, z.shape, z.dtype, z.strides, _start(z) - b.low, layout.is_private(z)

    def __call__(self, env: Env) -> None:
        address, blocks = self._address, []
        for slot, kind, shape, strides, dtype in self._inputs:
            a = env[slot]
            if type(a) is not kind or a.shape != shape or a.strides != strides or a.dtype != dtype:
                self._segment.by_steps(env)
                return
            at = address(a if kind is np.ndarray else a.view(np.ndarray))
            if at % dtype.itemsize:
                self._segment.by_steps(env)
                return
            blocks.append(at)
        memory: list[Any] = [None] * len(self._fresh)
        for _, n, whole, shape, dtype, *_ in self._results:
            if memory[n] is None:
                memory[n] = np.empty(shape, dtype) if whole else np.empty(self._fresh[n], np.uint8)
        filled = self.table.fill([*blocks, *map(address, memory)])
        if self.table.run(filled)[0] >= 0:
            self._segment.by_steps(env)
            return
        for slot, n, whole, shape, dtype, strides, offset, private in self._results:
            z = memory[n] if whole else np.ndarray(shape, dtype, memory[n], offset, strides)
            env[slot] = layout.private(z) if private else z
        for step in self._steps:
            step(env)
        for slot in self._segment._done:
            env[slot] = None


def _start(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def _view_step(part: Instr, slots: dict[Value, int]) -> Step:
    ins, outs = [slots[x] if isinstance(x, Value) else -1 for x in part.inputs], [slots[o] for o in part.outputs]

    def view(env: Env) -> None:
        result = dispatch.run(
            part.op, [x if s < 0 else env[s] for s, x in zip(ins, part.inputs, strict=True)], part.attrs
        )
        for o, z in zip(outs, result if isinstance(result, tuple) else (result,), strict=True):
            env[o] = z

    return view


def _written(calls: list[Any], outside: list[tuple[int, int]]) -> list[_Block]:
    """The memory that calls write to, with the first and the last call that touches each piece."""
    blocks: list[_Block] = []
    for n, (kernel, given) in enumerate(calls):
        passed = [a for a in kernel.prototype.arguments if a.is_given]
        for a, value in zip(passed, given, strict=True):
            for array in (value if isinstance(value, list) else [value]) if a.stars else []:
                span = (0, 0) if array is None else extent(array)
                if span[0] == span[1]:
                    continue
                inside = any(start <= span[0] and span[1] <= end for start, end in outside)
                found = [b for b in blocks if overlap(span, (b.low, b.high))]
                if found and (inside or len(found) > 1 or not (found[0].low <= span[0] and span[1] <= found[0].high)):
                    raise _Refused
                if found:
                    found[0].last = n
                elif a.is_result and not a.is_read and not any(overlap(span, o) for o in outside):
                    blocks.append(_Block(*span, n))
                elif not inside or a.is_result:
                    raise _Refused  # a write to what comes from outside, or an array that comes from nowhere
    return blocks


def _packed(blocks: list[_Block]) -> tuple[dict[int, int], int]:
    """Where each block lies in one piece of memory: apart from those that are in use at the same time; and its size."""
    places: dict[int, int] = {}
    room = 0
    for b in sorted(blocks, key=lambda b: b.low - b.high):  # the largest first
        size = -(-(b.high - b.low) // ALIGNED) * ALIGNED
        taken = sorted(
            (places[id(o)], places[id(o)] + o.high - o.low)
            for o in blocks
            if id(o) in places and o.first <= b.last and b.first <= o.last
        )
        at = 0
        for start, end in taken:
            if start - at >= size:
                break
            at = max(at, -(-end // ALIGNED) * ALIGNED)
        places[id(b)] = at
        room = max(room, at + size)
    return places, room
