"""Passes: graph in, graph out.

Each keeps the meaning; an instruction that writes is never moved, merged or dropped.  What a pass has to keep is
written down in `verify.py`, which looks at every pass in the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_jit.ir import Graph, Instr, Value
from rushlight_tensor.core import dispatch


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
        i = Instr(i.op, inputs, i.attrs, i.outputs, i.into, i.where, i.regions)
        stable = not any(root[v] in changing for v in (*i.values(), *i.outputs))
        if not i.writes and not i.regions and stable and not is_counted(i) and not any(o in results for o in i.outputs):
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


def eliminate_copies(graph: Graph) -> Graph:
    """Drop copies of what nobody changes: the engine copies gradients that others may hold as well.

    Where the copy is a result, what was copied is made in its place; else its uses read what was copied.
    """
    if not any(i.op is dispatch.CLONE for i in graph.instrs):
        return graph
    root, changing, results = memory_of(graph), written(graph), set(graph.outputs)
    shared = Counter(root.values())
    maker = {o: i for i in graph.instrs for o in i.outputs if not is_counted(i)}
    stands_for: dict[Value, Value] = {}

    def found(x: Any) -> Any:
        while isinstance(x, Value) and x in stands_for:
            x = stands_for[x]
        return x

    def alone(v: Value) -> bool:
        return v in maker and root[v] is v and shared[v] == 1

    def spare(source: Value, made: Value) -> bool:
        if not alone(made) or not _lie_alike(source, made) or not changing.isdisjoint((root[source], made)):
            return False
        return made not in results or (alone(source) and source not in results)

    kept = []
    for i in graph.instrs:
        if i.op is dispatch.CLONE and i.outputs and spare(source := found(i.inputs[0]), made := i.outputs[0]):
            if made in results:
                stands_for[source] = made
            else:
                stands_for[made] = source
        else:
            kept.append(i)
    return graph.part(
        [
            Instr(i.op, tuple(map(found, i.inputs)), i.attrs, tuple(map(found, i.outputs)), i.into, i.where, i.regions)
            for i in kept
        ]
    )


def _lie_alike(a: Value, b: Value) -> bool:
    return a.aval.device is not None and a.aval._replace(offset=0) == b.aval._replace(offset=0)


VERIFY: Callable[[Graph, Graph, str], None] | None = None
"""Looks at what each pass made: `(before, after, name of the pass)`; None where nobody does."""

PASSES = (eliminate_common_subexpressions, eliminate_copies, eliminate_dead_code)


def optimize(graph: Graph) -> Graph:
    """The passes in their order."""
    for change in PASSES:
        before, graph = graph, change(graph)
        if VERIFY is not None:
            VERIFY(before, graph, change.__name__)
    return graph
