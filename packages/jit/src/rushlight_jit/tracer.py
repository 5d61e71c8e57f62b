"""The tracer: runs a function as it is and writes down every operation.  Python's own control flow leaves no trace.

Note [What a trace may not see]
    A trace holds the operations of one run.  Where Python looks at a value (`if x.sum() > 0`, `x.item()`), another
    input might have taken another way, so that is an error that names the user's line.  Shapes, dtypes and Python
    numbers may be looked at: `compile` makes them part of the key under which a trace is kept.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rushlight_jit.ir import Graph, Instr, Value
from rushlight_jit.memory import extent, overlap
from rushlight_jit.origin import place
from rushlight_tensor.core import abstract, devices, dispatch, inplace, layout
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.tensor import Tensor

ALONE = threading.Lock()
"""Held while a function is traced, or a segment recorded: one at a time, or each would see the other's operations."""
os.register_at_fork(after_in_child=ALONE._at_fork_reinit)  # type: ignore[attr-defined]  # or held there for ever


class TraceError(RuntimeError):
    """The function did something that a trace cannot hold; the message names the user's line."""


class Tracer:
    """An interceptor that executes every operation of its thread and appends it to `graph`.

    Args:
        strict: Raise where the function does what a trace cannot hold; else `breaks` tells it, and the run goes on.
    """

    def __init__(self, strict: bool = True) -> None:
        self.breaks: list[str] = []
        self._strict = strict
        self._spans: dict[Value, tuple[int, int]] = {}  # of the memory that each root stands for
        self.graph = Graph()
        self.leaves: dict[int, Tensor] = {}
        self._of: dict[int, Value] = {}
        self.arrays: dict[Value, Any] = {}  # kept: an id stands for an array only while the array lives
        self._thread = threading.get_ident()

    # Naming arrays

    def input(self, name: str, array: Any) -> Value:
        """Declare an input of the function."""
        value = self._new(name, array)
        self.graph.inputs.append(value)
        return value

    def name(self, name: str, array: Any) -> None:
        """Declare an array that the function holds, such as a parameter, under a name."""
        if id(array) not in self._of:
            self.graph.captured[self._new(name, array)] = array

    def value(self, array: Any) -> Value:
        """The value that an array stands for; an array never seen before is one that the function holds."""
        found = self._of.get(id(array))
        if found is None:
            self.name(f"c{len(self.graph.captured)}", array)
            found = self._of[id(array)]
        return found

    def _new(self, name: str, array: Any, among: Iterable[Value] | None = None) -> Value:
        value = Value(name, Aval(array.shape, array.dtype))
        self._of[id(array)] = value
        self.arrays[value] = array
        span = extent(array)
        self.graph.memory[value] = root = self._root_of(span, among) or value
        before = self._spans.get(root)
        self._spans[root] = span if before is None else (min(before[0], span[0]), max(before[1], span[1]))
        return value

    def _root_of(self, span: tuple[int, int], among: Iterable[Value] | None) -> Value | None:
        """The root of the memory that a new array lies in; its own neighbours become one with it.

        Args:
            among: Where to look: the operands of what made the array; None for everywhere.
        """
        memory = self.graph.memory
        roots = self._spans if among is None else dict.fromkeys(memory[v] for v in among)
        found = [r for r in roots if overlap(span, self._spans[r])]
        for other in found[1:]:
            low, high = self._spans.pop(other)
            self._spans[found[0]] = (min(low, self._spans[found[0]][0]), max(high, self._spans[found[0]][1]))
            for v, r in memory.items():
                if r is other:
                    memory[v] = found[0]
        return found[0] if found else None

    def describe(self) -> None:
        """Say of all values where they lie, too: after the run, as calls are slow while they are watched."""
        for v, a in self.arrays.items():
            if v.aval.device is None:
                on = "cpu" if isinstance(a, np.ndarray) else str(devices.of(a))
                v.aval = Aval(a.shape, a.dtype, abstract.in_elements(a), on, layout.is_private(a))

    def _operand(self, x: Any) -> Any:
        return self.value(x) if hasattr(x, "dtype") and hasattr(x, "shape") else x

    # dispatch.Interceptor

    def execute(self, op: Op, arrays: list[Any], attrs: dict[str, Any]) -> Any:
        result = dispatch.run(op, arrays, attrs)
        if threading.get_ident() != self._thread:
            return result
        several = isinstance(result, tuple)
        outs = tuple(np.asarray(z) if isinstance(z, np.generic) else z for z in (result if several else (result,)))
        inputs = tuple([self._operand(a) for a in arrays])
        count = len(self.graph.instrs)
        names = [f"{count}.{i}" if several else f"{count}" for i in range(len(outs))]
        operands = [x for x in inputs if isinstance(x, Value)]
        values = tuple(self._new(n, z, operands) for n, z in zip(names, outs, strict=True))
        self.graph.instrs.append(Instr(op, inputs, attrs, values, False, user_line()))
        return outs if several else outs[0]

    def write(self, op: Op, array: Any, others: list[Any], attrs: dict[str, Any]) -> None:
        inputs = tuple([self._operand(a) for a in (array, *others)])
        inplace.write(op, array, others, attrs)
        if threading.get_ident() == self._thread:
            self.graph.instrs.append(Instr(op, inputs, attrs, (), True, user_line()))

    def mutate(self, op: Op, arrays: list[Any], attrs: dict[str, Any]) -> None:
        inputs = tuple([self._operand(a) for a in arrays])
        dispatch.run(op, arrays, attrs)
        if threading.get_ident() == self._thread:
            self.graph.instrs.append(Instr(op, inputs, attrs, (), False, user_line()))

    def recorded(self, node: Any) -> None:
        for e in node.edges:
            if isinstance(e, Tensor):
                self.leaves[id(e)] = e

    def stored(self, leaf: Tensor) -> None:
        if threading.get_ident() == self._thread:
            self._broken(
                f"{user_line(with_code=True)}: backward() stores into .grad, which a replay would not do; use "
                "autograd.grad() inside, or call backward() on the result of the compiled function"
            )

    def read(self, x: Tensor) -> None:
        if threading.get_ident() == self._thread:
            self._broken(
                f"{user_line(with_code=True)}: the value of a tensor is read while the function is traced (by if, "
                "while, bool(), float(), int(), .item(), .numpy(), copying or printing), but a trace holds operations, "
                "not decisions; use where() on tensors, or leave this part out of the traced function"
            )

    def communicates(self, what: str) -> None:
        if threading.get_ident() == self._thread:
            self._broken(
                f"{user_line(with_code=True)}: {what} exchanges data with other ranks, which a replay would not do; "
                "call it on what the function takes or returns"
            )

    def _broken(self, why: str) -> None:
        self.breaks.append(why)
        if self._strict:
            raise TraceError(why)


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other thread traces; does not wait inside of a trace, where `tracing` will raise."""
    if dispatch.INTERCEPT is not None:
        yield
        return
    with ALONE:
        yield


@contextmanager
def tracing(tracer: Tracer) -> Iterator[None]:
    """Install the tracer.  Raises RuntimeError inside another trace or anomaly mode."""
    if dispatch.INTERCEPT is not None:
        raise RuntimeError(
            f"cannot trace here: {type(dispatch.INTERCEPT).__name__} is watching already; leave the "
            "outer trace or anomaly mode"
        )
    dispatch.enter_intercept(tracer)
    try:
        yield
    finally:
        dispatch.leave_intercept(tracer)


def user_line(with_code: bool = False) -> str:
    """`file.py:12` of the innermost frame that is not ours, with the whole path or without."""
    found = place(sys._getframe(1))
    return found if with_code else found.rsplit("/", 1)[-1]
