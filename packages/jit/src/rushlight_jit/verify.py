"""What every graph is, and what a pass leaves as it was: `passes.VERIFY` while the tests run.

A pass that breaks a graph shows much later, as a wrong number or not at all.  So each is looked at where it ends.
"""

from __future__ import annotations

from typing import Any

from rushlight_jit.ir import Graph, Instr, Value
from rushlight_jit.passes import is_counted, memory_of
from rushlight_tensor.core import dispatch
from rushlight_tensor.core.abstract import META
from rushlight_tensor.core.describe import describe
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.order import contiguous


class GraphError(AssertionError):
    """A graph that is none, or a pass that has changed what a graph means."""


def after(before: Graph, graph: Graph, name: str) -> None:
    """Raise GraphError where a pass has made no graph of a graph, or one that means something else."""
    try:
        well_formed(graph)
        _outside_kept(before, graph)
        _effects_kept(before, graph)
        _memory_kept(before, graph)
        _reads_kept(before, graph)
    except GraphError as e:
        raise GraphError(f"{name}: {e}\nbefore: {before}\nafter: {graph}") from None


def well_formed(graph: Graph) -> None:
    """Raise GraphError unless every value is defined once, before its use, and is what its op makes."""
    known: set[Value] = set()
    root = memory_of(graph)
    for v in (*graph.inputs, *graph.captured):
        _expect(v not in known, f"{v} is an input twice")
        known.add(v)
    for v, array in graph.captured.items():
        _expect((v.shape, v.dtype) == (array.shape, array.dtype), f"{v.typed()} holds an array that is none")
    for i in graph.instrs:
        for v in i.values():
            _expect(v in known, f"{i!r} uses {v}, which is not there yet")
        for o in i.outputs:
            _expect(o not in known, f"{i!r} makes {o}, which is there already")
            known.add(o)
        _is_what_it_makes(i)
        for region in i.regions:
            well_formed(region)
            _expect(not region.captured, f"{i!r}: a region reads {list(region.captured)}, which is none of its inputs")
        _lies_where_it_may(i, root)
    for v in graph.outputs:
        _expect(v in known, f"the graph returns {v}, which nobody makes")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise GraphError(otherwise)


def _is_what_it_makes(i: Instr) -> None:
    """The results are described as `infer` and the kind of the op say."""
    if i.writes:
        _expect(i.outputs == (), f"{i!r} writes, and makes something")
        return
    known = all(v.aval.device is not None for v in i.values())
    xs = [x.aval._replace(offset=0) if isinstance(x, Value) else x for x in i.inputs]
    said = describe(i.op, xs, i.attrs) if known else i.op.infer(*xs, **i.attrs)
    said = (said,) if type(said) is Aval else said
    _expect(len(said) == len(i.outputs), f"{i!r} makes {len(said)} results")
    for o, a in zip(i.outputs, said, strict=True):
        _expect((o.shape, o.dtype) == (tuple(a.shape), a.dtype), f"{i!r}: {o} is {a.dtype}{list(a.shape)}")
        if known and i.values() and META not in (a.device, o.aval.device):
            _expect(o.aval.device == a.device, f"{i!r}: {o} is on {a.device}, not on {o.aval.device}")
            _expect(_steps(o.aval) == _steps(a), f"{i!r}: {o} has the strides {a.strides}, not {o.aval.strides}")


def _steps(a: Aval) -> Any:
    """The strides that users see: where private memory lies is left to the kernel, compiled or not."""
    if a.strides is None or 0 in a.shape:
        return None
    seen = contiguous(a.shape) if a.private else a.strides
    return [s for n, s in zip(a.shape, seen, strict=True) if n > 1]


def _lies_where_it_may(i: Instr, root: dict[Value, Value]) -> None:
    """A view lies in the memory of its first input; other results in their own, or in that of an input."""
    for o in i.outputs:
        if i.op.view and isinstance(i.inputs[0], Value):
            fine = root[o] is root[i.inputs[0]] or 0 in o.shape
        else:
            fine = root[o] is o or root[o] in {root[v] for v in i.values()}
        _expect(fine, f"{i!r}: {o} lies in the memory of {root[o]}")


def _outside_kept(before: Graph, graph: Graph) -> None:
    """Inputs and outputs are the same, and nothing is captured that was not."""
    _expect(graph.inputs == before.inputs, "the inputs are others")
    _expect(graph.outputs == before.outputs, "the outputs are others")
    for v, array in graph.captured.items():
        _expect(before.captured.get(v) is array, f"{v} holds another array")


def _effects_kept(before: Graph, graph: Graph) -> None:
    """What writes, draws or communicates is there as often as it was, in the same order, on the same memory."""
    had, has = (_effects(g) for g in (before, graph))
    _expect(had == has, f"effects were {[e[0] for e in had]} and are {[e[0] for e in has]}")


def _effects(graph: Graph) -> list[Any]:
    root = memory_of(graph)
    return [
        (i.op.name, i.into, id(i.attrs), i.outputs, [root[v] for v in i.inputs[: i.writes]])
        for i in graph.instrs
        if i.writes or is_counted(i)
    ]


def _memory_kept(before: Graph, graph: Graph) -> None:
    """Values share memory with each other as they did."""
    had, has = memory_of(before), memory_of(graph)
    for v, r in has.items():
        _expect(v in had, f"{v} is new")
        _expect(had[v] is r, f"{v} lay in the memory of {had[v]}, and lies in that of {r}")


def _reads_kept(before: Graph, graph: Graph) -> None:
    """Whoever reads memory stands behind the same writes to it as before; what was a copy may be made in its place."""
    had, copies = _behind(before), {o for i in before.instrs if i.op is dispatch.CLONE for o in i.outputs}
    for key, count in _behind(graph).items():
        fine = had[key] == count if key in had else key[0] in copies
        _expect(fine, f"{key[0]!r} stood behind {had.get(key)} writes to what it reads, not {count}")


def _behind(graph: Graph) -> dict[tuple[Value, str, int], int]:
    """For each result and each operand of the op that makes it: how many writes to that memory stand before."""
    root = memory_of(graph)
    writes: dict[Value, int] = {}
    out: dict[tuple[Value, str, int], int] = {}
    for i in graph.instrs:
        if not i.op.view:
            reads = [(n, root[v]) for n, v in enumerate(i.inputs) if isinstance(v, Value)]
            out.update({(o, i.op.name, n): writes.get(r, 0) for o in i.outputs for n, r in reads})
        for v in i.inputs[: i.writes]:
            writes[root[v]] = writes.get(root[v], 0) + 1
    return out
