"""Passes: graph in, graph out.

Each keeps the meaning; an instruction that writes is never moved, merged or dropped.  What a pass has to keep is
written down in `verify.py`, which looks at every pass in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_jit.ir import Graph, Instr, Value


def memory_of(graph: Graph) -> dict[Value, Value]:
    """For every value, one value that stands for its memory: the same for all that share it.

    The tracer has seen which do (`Graph.memory`): arguments and captured arrays may, too.  Where it was not there, in a
    graph from a file, results of view operations share the memory of their input.
    """
    root: dict[Value, Value] = {v: graph.memory.get(v, v) for v in (*graph.inputs, *graph.captured)}
    for i in graph.instrs:
        first = i.inputs[0] if i.inputs else None
        for out in i.outputs:
            seen = graph.memory.get(out)
            root[out] = seen or (root[first] if i.op.view and isinstance(first, Value) else out)
    return root


def written(graph: Graph) -> set[Value]:
    """The memory that instructions write to."""
    root = memory_of(graph)
    out: set[Value] = set()
    for i in graph.instrs:
        out.update(root[v] for v in i.inputs[: i.writes] if isinstance(v, Value))
    return out


def is_counted(instr: Instr) -> bool:
    """Whether an instruction must run exactly as often as in the function: it draws random numbers, or communicates."""
    return instr.op.random or instr.op.communicates


def eliminate_dead_code(graph: Graph) -> Graph:
    """Drop instructions whose results nobody uses."""
    live = set(graph.outputs)
    kept = []
    for i in reversed(graph.instrs):
        if i.writes or is_counted(i) or any(o in live for o in i.outputs):
            live.update(i.values())
            kept.append(i)
    out = graph.part(kept[::-1])
    out.captured = {v: a for v, a in graph.captured.items() if v in live}
    return out


def eliminate_common_subexpressions(graph: Graph) -> Graph:
    """Compute what is the same only once; nothing that is random, communicates or touches memory that is written to."""
    root, changing = memory_of(graph), written(graph)
    results = set(graph.outputs)
    seen: dict[Any, tuple[Value, ...]] = {}
    same: dict[Value, Value] = {}
    kept = []
    for i in graph.instrs:
        inputs = tuple([same.get(x, x) if isinstance(x, Value) else x for x in i.inputs])
        i = Instr(i.op, inputs, i.attrs, i.outputs, i.into, i.where)
        stable = not any(root[v] in changing for v in (*i.values(), *i.outputs))
        if not i.writes and stable and not is_counted(i) and not any(o in results for o in i.outputs):
            key = (i.op.name, _literal(inputs), _literal(tuple(sorted(i.attrs.items()))))
            found = seen.get(key)
            if found is not None:
                same.update(zip(i.outputs, found, strict=True))
                continue
            seen[key] = i.outputs
        kept.append(i)
    return graph.part(kept)


def _literal(x: Any) -> Any:
    """An operand or attribute as a value that is equal for the same one alone: -0.0 is not 0.0, and 1 is not True."""
    if isinstance(x, (tuple, list)):
        return type(x), tuple([_literal(e) for e in x])
    if isinstance(x, (float, complex)):
        return type(x), repr(x)
    if isinstance(x, (Value, bool, int, str, type(None), type(Ellipsis), np.dtype)):
        return type(x), x
    return type(x), repr(x) if isinstance(x, slice) else id(x)


VERIFY: Callable[[Graph, Graph, str], None] | None = None
"""Looks at what each pass made: `(before, after, name of the pass)`; None where nobody does."""

PASSES = (eliminate_common_subexpressions, eliminate_dead_code)


def optimize(graph: Graph) -> Graph:
    """The passes in their order."""
    for change in PASSES:
        before, graph = graph, change(graph)
        if VERIFY is not None:
            VERIFY(before, graph, change.__name__)
    return graph
