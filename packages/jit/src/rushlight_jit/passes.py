"""Passes: graph in, graph out.

Each keeps the meaning; an instruction that writes is never moved, merged or dropped.
"""

from __future__ import annotations

from typing import Any

from rushlight_jit.ir import Graph, Instr, Value
from rushlight_tensor.random import Generator


def memory_of(graph: Graph) -> dict[Value, Value]:
    """For every value, the value whose memory it shares: itself, or where a chain of views began."""
    root: dict[Value, Value] = {v: v for v in (*graph.inputs, *graph.captured)}
    for i in graph.instrs:
        first = i.inputs[0] if i.inputs else None
        for out in i.outputs:
            root[out] = root[first] if i.op.view and isinstance(first, Value) else out
    return root


def written(graph: Graph) -> set[Value]:
    """The memory that instructions write to."""
    root = memory_of(graph)
    out: set[Value] = set()
    for i in graph.instrs:
        if i.writes == "first":
            out.add(root[i.inputs[0]])
        elif i.writes == "all":
            out.update(root[v] for v in i.values())
    return out


def is_random(instr: Instr) -> bool:
    """Whether an instruction draws random numbers: it must run exactly as often as in the function."""
    return "generator" in instr.op.defaults or any(isinstance(v, Generator) for v in instr.attrs.values())


def eliminate_dead_code(graph: Graph) -> Graph:
    """Drop instructions whose results nobody uses."""
    live = set(graph.outputs)
    kept = []
    for i in reversed(graph.instrs):
        if i.writes or is_random(i) or any(o in live for o in i.outputs):
            live.update(i.values())
            kept.append(i)
    out = Graph()
    out.inputs, out.outputs, out.instrs = graph.inputs, graph.outputs, kept[::-1]
    out.captured = {v: a for v, a in graph.captured.items() if v in live}
    return out


def eliminate_common_subexpressions(graph: Graph) -> Graph:
    """Compute what is the same only once; nothing that is random or touches memory that is written to."""
    root, changing = memory_of(graph), written(graph)
    results = set(graph.outputs)
    seen: dict[Any, tuple[Value, ...]] = {}
    same: dict[Value, Value] = {}
    kept = []
    for i in graph.instrs:
        inputs = tuple([same.get(x, x) if isinstance(x, Value) else x for x in i.inputs])
        i = Instr(i.op, inputs, i.attrs, i.outputs, i.writes, i.where)
        stable = not any(root[v] in changing for v in (*i.values(), *i.outputs))
        if not i.writes and stable and not is_random(i) and not any(o in results for o in i.outputs):
            key = (i.op.name, tuple([(type(x).__name__, x) for x in inputs]), repr(sorted(i.attrs.items())))
            found = seen.get(key)
            if found is not None:
                same.update(zip(i.outputs, found, strict=True))
                continue
            seen[key] = i.outputs
        kept.append(i)
    out = Graph()
    out.inputs, out.outputs, out.captured, out.instrs = graph.inputs, graph.outputs, graph.captured, kept
    return out


def optimize(graph: Graph) -> Graph:
    """The passes in their order."""
    return eliminate_dead_code(eliminate_common_subexpressions(graph))
