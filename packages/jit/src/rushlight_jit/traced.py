"""`jit.trace`: a model as a graph and its weights, in a file that needs no source code of the model to run.

The file is a zip archive: `graph.json` (operations of the registry by name) and `weights.pt`.  Loading runs no code.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rushlight_jit.ir import Graph, Instr, Value
from rushlight_jit.memory import classes
from rushlight_jit.passes import is_counted, optimize
from rushlight_jit.plan import Plan
from rushlight_jit.tracer import TraceError, Tracer, alone, tracing
from rushlight_tensor import files
from rushlight_tensor.core import dispatch, dtypes, labels
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.core.structure import flatten, is_plain, leaves_of, unflatten
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.files.atomic import atomic_write
from rushlight_tensor.random import Generator

_FORMAT = 2


class FileError(RuntimeError):
    """A file that is not a saved trace, or not a whole one."""


class TracedModule:
    """A traced model: call it as the model; `graph` shows it, `save` writes it."""

    def __init__(self, graph: Graph, held: dict[str, Tensor], structure: Any) -> None:
        self._plan = Plan(graph)
        self._held, self._structure = held, structure

    def __call__(self, *args: Any) -> Any:
        tensors = _tensors_of("traced module", args)
        self._check(tensors)
        held = list(self._held.values())
        if dispatch.INTERCEPT is not None or (dispatch.MODE.grad and any(t._requires_grad for t in (*tensors, *held))):
            outs = self._plan.run_recorded(tensors, held)
        else:
            outs = [wrap(a) for a in self._plan.run([t._array for t in tensors])]
        return unflatten(self._structure, list(outs))

    def _check(self, tensors: list[Tensor]) -> None:
        want = self._plan.graph.inputs
        if self._plan.graph.writes():
            arrays = [t._array for t in (*tensors, *self._held.values())]
            if _overlap(arrays, len(tensors)):
                raise RuntimeError(
                    "traced module: an argument shares memory with another one or with a held tensor, and the graph "
                    "writes to memory; pass a clone() of it"
                )
        if len(tensors) != len(want):
            raise RuntimeError(f"traced module: expected {len(want)} tensors, got {len(tensors)}")
        for i, (t, v) in enumerate(zip(tensors, want, strict=True)):
            if t._array.shape != v.shape or t._array.dtype != v.dtype:
                raise RuntimeError(
                    f"traced module: input {i} has shape {list(t._array.shape)} and dtype "
                    f"{t._array.dtype}, but was traced with "
                    f"{list(v.shape)} and {v.dtype}; trace the model again with an example of this kind"
                )

    @property
    def graph(self) -> Graph:
        """The graph, printable."""
        return self._plan.graph

    @property
    def code(self) -> str:
        """The C text of its fused kernels."""
        return self._plan.source()

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The held tensors that require grad, with their names."""
        return ((n, t) for n, t in self._held.items() if t._requires_grad)

    def parameters(self) -> Iterator[Tensor]:
        """The held tensors that require grad."""
        return (t for _, t in self.named_parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """All held tensors by name."""
        return dict(self._held)

    def save(self, f: Any) -> None:
        """Write to a path or a binary file."""
        save(self, f)


def trace(func: Any, example_inputs: Any, *, check_trace: bool = True) -> TracedModule:
    """Record what `func` does with these inputs.

    As in PyTorch the trace holds operations on tensors and nothing of Python: numbers, branches and loops that Python
    decides, training mode, clocks and random numbers of Python are those of this one run (`compile` follows them).
    Gradients do not flow through operations under `no_grad` either way.

    Args:
        func: Module or function of tensors.
        example_inputs: A tensor or a tuple of them; calls must have the same shapes and dtypes.
        check_trace: Run the trace once and compare.
    Raises:
        TraceError: The function reads the value of a tensor, or returns what is neither a tensor nor a plain value.
        RuntimeError: The trace does not give what the function gave; an example is no tensor, or shares its memory.
    """
    args = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    tensors = _tensors_of("trace", args)
    if _overlap([t._array for t in tensors], len(tensors)):
        raise RuntimeError("trace: two example inputs share memory, which later ones need not; pass a clone() of one")
    tracer = Tracer()
    before, dispatch.MODE.grad = dispatch.MODE.grad, False
    try:
        for i, t in enumerate(tensors):
            tracer.input(f"x{i}", t._array)
        owners: dict[int, Tensor] = {}
        if hasattr(func, "named_parameters"):
            for name, t in (*func.named_parameters(), *func.named_buffers()):
                tracer.name(name, dispatch.settle(t))
                owners[id(t._array)] = t
        with alone(), tracing(tracer):
            outs: list[Tensor] = []
            structure = flatten(func(*args), outs)
            tracer.graph.outputs = [tracer.value(t._array) for t in outs]
        if tracer.breaks:  # raised before, but the function has caught it
            raise TraceError(tracer.breaks[0])
        for leaf in leaves_of(structure):
            if not is_plain(leaf):
                kind = type(leaf).__name__
                raise TraceError(f"trace: the function returns a {kind}; return tensors in tuples, lists or dicts")
    finally:
        dispatch.MODE.grad = before
    tracer.describe()
    graph = optimize(tracer.graph)
    held = {v.name: owners[id(a)] if id(a) in owners else wrap(a) for v, a in graph.captured.items()}
    module = TracedModule(graph, held, structure)
    if check_trace and not graph.writes() and not any(is_counted(i) for i in graph.instrs):
        _compare(module, tensors, outs)
    return module


def _tensors_of(who: str, args: tuple[Any, ...]) -> list[Tensor]:
    """The tensors of arguments that hold nothing else, each on memory that may be written to."""
    tensors: list[Tensor] = []
    for leaf in leaves_of(flatten(args, tensors)):
        raise RuntimeError(
            f"{who}: Type '{type(leaf).__name__}' cannot be traced. Only Tensors and (possibly nested) Lists, Dicts, "
            "and Tuples of Tensors can be traced"
        )
    for t in tensors:
        dispatch.settle(t)
    return tensors


def _overlap(arrays: list[Any], first: int) -> bool:
    """Whether one of the first arrays shares memory with any other."""
    of = classes(arrays)
    return any(of.count(c) > 1 for c in of[:first])


def _compare(module: TracedModule, tensors: list[Tensor], outs: list[Tensor]) -> None:
    again = module._plan.run([t._array for t in tensors])
    for i, (t, a) in enumerate(zip(outs, again, strict=True)):
        if not np.allclose(t._array, a, rtol=1e-4, atol=1e-5, equal_nan=True):
            worst = float(np.nanmax(np.abs(np.asarray(t._array, np.float64) - a)))
            raise RuntimeError(
                f"trace: output {i} of the trace differs from the function's by up to {worst:.3g}; "
                "does the function depend on "
                "something that changes between calls?"
            )


def save(module: TracedModule, f: Any) -> None:
    """Write a traced module to a path (atomically) or a binary file."""
    graph = module.graph
    number = {
        v: i for i, v in enumerate((*graph.inputs, *graph.captured, *[o for i in graph.instrs for o in i.outputs]))
    }
    document = {
        "format": _FORMAT,
        "inputs": [_value_out(v) for v in graph.inputs],
        "held": [
            {**_value_out(v), "requires_grad": t._requires_grad}
            for v, t in zip(graph.captured, module._held.values(), strict=True)
        ],
        "instructions": [
            {
                "op": i.op.name,
                "inputs": [{"value": number[x]} if isinstance(x, Value) else _plain_out(x) for x in i.inputs],
                "attrs": {k: _plain_out(v) for k, v in i.attrs.items()},
                "outputs": [_value_out(o) for o in i.outputs],
                "into": i.into,
                "where": i.where,
            }
            for i in graph.instrs
        ],
        "outputs": [number[v] for v in graph.outputs],
        "structure": _structure_out(module._structure),
    }
    weights, out = io.BytesIO(), io.BytesIO()
    files.save({name: wrap(t._array) for name, t in module._held.items()}, weights)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("graph.json", json.dumps(document, indent=1))
        archive.writestr("weights.pt", weights.getvalue())
    if hasattr(f, "write"):
        f.write(out.getvalue())
        return
    with atomic_write(f) as file:
        file.write(out.getvalue())


def load(f: Any) -> TracedModule:
    """Read a traced module.  Raises FileError where the file is not one, is damaged, or needs an unknown operation."""
    data, name = (f.read(), "this file object") if hasattr(f, "read") else (Path(f).read_bytes(), f)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            document = json.loads(archive.read("graph.json"))
            weights = files.load(io.BytesIO(archive.read("weights.pt")))
        if document["format"] != _FORMAT:
            raise FileError(
                f"jit.load: {name}: format {document['format']}, not {_FORMAT}: another version's; save it again"
            )
        graph, held = _graph_in(document, weights)
        return TracedModule(graph, held, _structure_in(document["structure"]))
    except (zipfile.BadZipFile, files.FileFormatError, KeyError, ValueError, IndexError, TypeError) as e:
        raise FileError(f"jit.load: {name} is no saved trace, or a damaged one ({e!r}); save it with jit.save") from e


def _graph_in(document: dict[str, Any], weights: dict[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    graph = Graph()
    graph.inputs = [_value_in(v) for v in document["inputs"]]
    held: dict[str, Tensor] = {}
    for entry in document["held"]:
        v = _value_in(entry)
        t = weights[v.name]
        t._requires_grad = bool(entry["requires_grad"])
        held[v.name] = t
        graph.captured[v] = t._array
    values = [*graph.inputs, *graph.captured]
    for entry in document["instructions"]:
        op = REGISTRY.get(entry["op"])
        if op is None:
            raise FileError(
                f"jit.load: this file uses the operation {entry['op']!r}, which this installation does not have"
            )
        inputs = tuple(
            [values[x["value"]] if isinstance(x, dict) and "value" in x else _plain_in(x) for x in entry["inputs"]]
        )
        outputs = tuple([_value_in(o) for o in entry["outputs"]])
        values.extend(outputs)
        attrs = {k: _plain_in(v) for k, v in entry["attrs"].items()}
        graph.instrs.append(Instr(op, inputs, attrs, outputs, bool(entry["into"]), entry["where"]))
    graph.outputs = [values[i] for i in document["outputs"]]
    return graph, held


def _value_out(v: Value) -> dict[str, Any]:
    return {"name": v.name, "shape": list(v.shape), "dtype": v.dtype.name}


def _value_in(entry: dict[str, Any]) -> Value:
    return Value(entry["name"], Aval(tuple(entry["shape"]), getattr(dtypes, entry["dtype"]).np))


def _plain_out(x: Any) -> Any:
    """A number, or anything else an attribute may be, in JSON: what JSON lacks becomes {"kind": value}."""
    if isinstance(x, float) and (x != x or x in (float("inf"), float("-inf"))):
        return {"float": repr(x)}
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    if isinstance(x, (tuple, list)):
        return {type(x).__name__: [_plain_out(v) for v in x]}
    if isinstance(x, slice):
        return {"slice": [_plain_out(v) for v in (x.start, x.stop, x.step)]}
    if x is Ellipsis:
        return {"ellipsis": True}
    if isinstance(x, (np.dtype, dtypes.dtype)):
        return {"dtype": x.name}
    if isinstance(x, labels.memory_format):
        return {"memory_format": repr(x).removeprefix("torch.")}
    if isinstance(x, Generator):
        return {"generator": "default"}
    if isinstance(x, np.generic):
        return _plain_out(x.item())
    raise RuntimeError(
        f"jit.save: an operation has an attribute of type {type(x).__name__}, which the file format does not hold"
    )


def _plain_in(x: Any) -> Any:
    if not isinstance(x, dict):
        return x
    ((kind, value),) = x.items()
    if kind in ("tuple", "list"):
        items = [_plain_in(v) for v in value]
        return tuple(items) if kind == "tuple" else items
    if kind == "slice":
        return slice(*[_plain_in(v) for v in value])
    if kind == "float":
        return float(value)
    if kind == "dtype":
        return getattr(dtypes, value).np
    if kind == "memory_format":
        return getattr(labels, value)
    return {"ellipsis": Ellipsis, "generator": None}[kind]


def _structure_out(s: Any) -> Any:
    if isinstance(s, str):
        return s
    if len(s) == 3:
        return {"plain": _plain_out(s[2])}
    kind, parts = s
    if kind is dict:
        return {"dict": [[k, _structure_out(v)] for k, v in parts]}
    return {"list" if kind is list else "tuple": [_structure_out(p) for p in parts]}


def _structure_in(s: Any) -> Any:
    if isinstance(s, str):
        return s
    ((kind, parts),) = s.items()
    if kind == "plain":
        value = _plain_in(parts)
        return (type(value), "value", value)
    if kind == "dict":
        return (dict, tuple([(k, _structure_in(v)) for k, v in parts]))
    return (list if kind == "list" else tuple, tuple([_structure_in(p) for p in parts]))
