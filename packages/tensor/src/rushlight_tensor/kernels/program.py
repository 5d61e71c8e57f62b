"""A captured step: the kernel calls of a piece of eager work, run again from C alone, in the same memory.

Note [Programs]
    While a `Program` records, every planned kernel notes itself with the arrays that it was given.  `seal()` makes a
    table of addresses of them (Note [Tables] in `table.py`).  `run()` is one call of C without the GIL, which walks the
    table; the results are in the same arrays as those of the recording.  So inputs are changed in place, results are
    read where they were, and the bits are those of eager work: it is the same kernels on the same sizes.
    Whatever else the recording thread does to arrays, an op without a plan, a write, a look at a value, would be left
    out, so it is refused by name while it is done.  Views are no work: they are headers of memory that is there.
    Other threads go on as if nothing were recorded: nothing of theirs is noted, and nothing is refused.

    The lengths of all arrays have been checked when they were recorded, by the wrappers; nothing in the table changes
    afterwards, and the program holds every array that it names.  Scratch belongs to the program: one piece of memory
    for all calls, as large as the largest needs; kernels use as many threads as there were when the table was made.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rushlight_tensor.core import dispatch, inplace
from rushlight_tensor.core.layout import plain
from rushlight_tensor.kernels import accelerator, plan
from rushlight_tensor.kernels.binding import STATE, THREADS
from rushlight_tensor.kernels.columns import PlannedColumns
from rushlight_tensor.kernels.compile import c_library
from rushlight_tensor.kernels.draw import Sampled
from rushlight_tensor.kernels.reduce import levels
from rushlight_tensor.kernels.table import Call, Kernel, Table, at_its_address


class Program:
    """A list of kernel calls, on arrays that it keeps."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self.calls: list[Call] = []
        self._table: Table | None = None
        self._filled: list[Any] = []
        self._locks: dict[int, Any] = {}  # of the generators that it draws from

    def __len__(self) -> int:
        return len(self.calls)

    def add(self, planned: Any, arguments: list[Any]) -> None:
        """A kernel has run: the arguments of its prototype (without scratch), inputs, results, sizes and numbers."""
        if self.is_recording():
            self._note(Kernel(planned.op.name, planned.prototype, planned.entry), arguments)
            if planned.source is not None:
                self._locks[id(planned.source)] = planned.source.lock

    def drawn(self, library: Any, name: str, given: list[Any], source: Any) -> None:
        """A sampler, a kernel of no plan, has run on these arguments, and drawn from a generator."""
        if self.is_recording():
            self._call(library, name, given)
            self._locks[id(source)] = source.lock

    def _note(self, kernel: Kernel, arguments: list[Any]) -> None:
        if self._table is not None:
            raise RuntimeError("program: its table is made, nothing can be recorded any more; start another recording")
        self.calls.append((kernel, arguments))

    def moved(self, name: str, before: Any, after: Any) -> None:
        """An input of an op has been copied into the order that its kernel reads.

        Raises:
            RuntimeError: There is no kernel for that: neither contiguous images into their order, nor repetition.
        """
        if not self.is_recording():
            return
        library = c_library("conv")
        if library is None or not library.float32(before):
            if not self._repeated(before, after):
                self.refuse(f"{name}: an input had to be copied into another order")
            return
        n, channels, *size = before.shape
        self._call(library, "swap_channels", [before, after, n, channels, math.prod(size)])

    def copied(self, before: Any, after: Any) -> None:
        """An array has been copied.  Raises RuntimeError where no kernel does that: other dtypes and orders."""
        if not self.is_recording():
            return
        library, before, after = c_library("program"), plain(before), plain(after)
        axes = sorted(range(after.ndim), key=lambda d: -after.strides[d])
        same, other = before.transpose(axes), after.transpose(axes)
        if library is not None and library.float32(same, other):
            self._call(library, "copy", [same, other, same.size])
        elif self._repeated(before, after):
            return
        elif before.ndim == 4 and library is not None and library.float32(before.transpose(0, 2, 3, 1), after):
            n, channels, *size = before.shape
            images = c_library("conv")
            self._call(images, "swap_channels", [before.transpose(0, 2, 3, 1), after, n, math.prod(size), channels])
        else:
            self.refuse(f"{before.dtype} in another order than C's has been copied")

    def _repeated(self, before: Any, after: Any) -> bool:
        """Note the copy of an array whose elements stand for several, as `expand` makes them; False where it cannot."""
        reduce, repeats = c_library("reduce"), tuple([d for d, step in enumerate(before.strides) if not step])
        once = before[tuple([slice(0, 1) if d in repeats else slice(None) for d in range(before.ndim)])]
        found = levels(before.shape, repeats) if repeats else None
        if reduce is None or found is None or not reduce.float32(once, after):
            return False
        self._call(reduce, "spread", [once, after, *found.values(), 0])
        return True

    def _call(self, library: Any, name: str, given: list[Any]) -> None:
        self._note(Kernel(name, library.prototypes[name], library.entries[name]), given)

    def refuse(self, why: str) -> None:
        """Raise RuntimeError: this work of the recording thread is no kernel call, so a program would leave it out."""
        if self.is_recording():
            raise RuntimeError(f"program: {why}; it cannot be part of a program that runs from C")

    def is_recording(self) -> bool:
        """Whether this is the thread whose work is recorded."""
        return threading.get_ident() == self._thread

    def seal(self) -> None:
        """Make the table.  Nothing can be recorded afterwards."""
        self._table = Table(self.calls, at_its_address)
        self._filled = self._table.fill()

    def run(self) -> None:
        """Run all calls in order.

        Raises:
            RuntimeError: A kernel reported something wrong; the message says which call.
        """
        if self._table is None or self._table.threads != STATE[THREADS]:
            self.seal()
        assert self._table is not None
        with ExitStack() as held:
            for _, lock in sorted(self._locks.items()):  # in one order, whoever else takes several
                held.enter_context(lock)
            stopped, said = self._table.run(self._filled)
        if stopped >= 0:
            name = self.calls[stopped][0].name
            raise RuntimeError(f"program: call {stopped} ({name}) of {len(self.calls)} reported {said}")


class _Watch:
    """Sees every operation while a program records, and refuses what would be missing in it.  See Note [Programs]."""

    outer: Any = None

    def __init__(self, program: Program) -> None:
        self.program = program

    def _admit(self, op: Any, what: str) -> None:
        planned = isinstance(getattr(op.cpu, "__self__", None), (plan.Planned, PlannedColumns, Sampled))
        if not planned and not op.view:
            self.program.refuse(f"{op.name} {what}")

    def execute(self, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
        if op is not dispatch.CLONE:
            self._admit(op, "has no kernel with a plan")
        made = (self.outer.execute if self.outer else dispatch.run)(op, arrays, attrs)
        if op is dispatch.CLONE:
            self.program.copied(arrays[0], made)
        return made

    def mutate(self, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> None:
        self._admit(op, "has no kernel with a plan")
        (self.outer.mutate if self.outer else dispatch.run)(op, arrays, attrs)

    def write(self, op: Any, array: Any, others: list[Any], attrs: dict[str, Any]) -> None:
        if not isinstance(getattr(op.cpu, "__self__", None), Sampled):  # whose kernel fills what it is given
            self.program.refuse(f"{op.name} writes into a tensor")
        (self.outer.write if self.outer else inplace.write)(op, array, others, attrs)

    def recorded(self, node: Any) -> None:
        if self.outer:
            self.outer.recorded(node)

    def stored(self, leaf: Any) -> None:
        if self.outer:
            self.outer.stored(leaf)

    def read(self, x: Any) -> None:
        self.program.refuse("a value is looked at")
        if self.outer:
            self.outer.read(x)

    def communicates(self, what: str) -> None:
        self.program.refuse(f"{what} exchanges data")
        if self.outer:
            self.outer.communicates(what)


_turn = threading.Lock()  # held by who records


def _in_child() -> None:
    """After a fork: a recording of a thread that is not there goes on for nobody."""
    recorder, watch = plan.RECORDER, dispatch.INTERCEPT
    if recorder is not None and recorder.is_recording():
        return
    _turn._at_fork_reinit()  # type: ignore[attr-defined]
    plan.RECORDER = None
    while watch is not None:
        if isinstance(watch, _Watch):
            dispatch.leave_intercept(watch)
        watch = getattr(watch, "outer", None)


os.register_at_fork(after_in_child=_in_child)


@contextmanager
def recording() -> Iterator[Program]:
    """Record the kernels that this thread runs in the block.  What others run meanwhile is theirs, see Note [Programs].

    Raises:
        RuntimeError: A recording is going on, in whichever thread; nothing is changed.
    """
    if not _turn.acquire(blocking=False):
        raise RuntimeError("program: a recording is going on in this process, one at a time; enter when it has ended")
    try:
        with accelerator.held_off():  # it would run kernels of its own and say nothing
            made = Program()
            watch = _Watch(made)
            dispatch.enter_intercept(watch)
            plan.RECORDER = made
            try:
                yield made
            finally:
                plan.RECORDER = None
                dispatch.leave_intercept(watch)
    finally:
        _turn.release()
