"""`compile(fn)`: trace once per kind of input, fuse, replay; with gradients where they are wanted.

Note [Guards]
    A trace is kept under everything that may have decided it: structure, shapes, dtypes and `requires_grad` of the
    tensors, every other argument, grad mode, and of whatever the function refers to (its closure, its globals, its
    own object): Python numbers, strings and flags, the training flags and attributes of modules, and the identity of
    the arrays of tensors.  A call that differs in any of these is traced anew.  A function that steps an optimizer is
    refused: its learning rate and schedule live in Python.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from rushlight_jit.ir import Graph, Value
from rushlight_jit.passes import memory_of, optimize, written
from rushlight_jit.plan import Plan
from rushlight_jit.structure import flatten, unflatten
from rushlight_jit.tracer import TraceError, Tracer, tracing
from rushlight_tensor import dispatch, gradient
from rushlight_tensor.graph import CustomNode, Slot
from rushlight_tensor.inplace import touch
from rushlight_tensor.promote import category
from rushlight_tensor.tensor import Tensor, wrap

_PLAIN = (bool, int, float, str, type(None))


class Compiled:
    """A function that is traced, fused and replayed.  `graph` and `source()` show what the last call ran."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self._traces: dict[Any, _Trace] = {}
        self._last: _Trace | None = None
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if dispatch.INTERCEPT is not None:  # inside another trace: part of that one
            return self._fn(*args, **kwargs)
        tensors: list[Tensor] = []
        structure = flatten((args, kwargs), tensors)
        for t in tensors:
            dispatch.settle(t)  # what the trace writes into is seen by whoever holds the argument
        grad = dispatch.MODE.grad
        kinds = tuple(
            [(t._array.shape, t._array.dtype, grad and t._requires_grad, t._array.flags.c_contiguous) for t in tensors]
        )
        key = (structure, kinds, grad, _surroundings(self._fn))
        try:
            trace = self._traces.get(key)
        except TypeError as e:
            raise TypeError(
                f"compile: an argument of {self._name()} cannot be compared with that of a later call: {e}"
            ) from e
        if trace is None:
            trace = self._traces[key] = self._last = _Trace(self._fn, structure, tensors, grad)
            made, trace.made = trace.made, []
            return trace.results(
                tensors, made
            )  # tracing has run the function: once is enough for what it writes or draws
        self._last = trace
        return trace(tensors)

    def _name(self) -> str:
        return getattr(self._fn, "__name__", type(self._fn).__name__)

    @property
    def traces(self) -> int:
        """How many different kinds of call have been traced."""
        return len(self._traces)

    @property
    def graph(self) -> Graph:
        """The optimised graph that the last call ran.  Raises RuntimeError before the first call."""
        if self._last is None:
            raise RuntimeError(f"compile: {self._name()} has not been called yet; its graph depends on the inputs")
        return self._last.forward.graph

    def source(self) -> str:
        """The C text of the fused kernels of the last call, forward and backward."""
        self.graph  # noqa: B018 - raises before the first call
        assert self._last is not None
        backward = self._last.backward
        return self._last.forward.source() + ("" if backward is None else "\n" + backward.source())


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

    Args:
        model: Function of tensors and plain values; traced once per kind of input (see Note [Guards]).
        fullgraph, dynamic, backend, mode, options: Accepted for PyTorch's signature: the whole function is always one
        graph,
            shapes are always static, and there is one backend.
        disable: Return `model` as it is.
    Raises:
        TraceError: On the first call, where the function reads a value; the message names the line.
    """
    if model is None:
        return functools.partial(compile, disable=disable)
    return model if disable else Compiled(model)


class _Trace:
    """One kind of call: the plan of the forward pass and, where gradients are wanted, that of the backward pass."""

    def __init__(self, fn: Callable[..., Any], structure: Any, tensors: list[Tensor], grad: bool) -> None:
        tracer = Tracer()
        inside = [_stand_in(t, grad) for t in tensors]
        values = [tracer.input(f"x{i}", t._array) for i, t in enumerate(inside)]
        with tracing(tracer):
            args, kwargs = unflatten(structure, list(inside))
            result = fn(*args, **kwargs)
            outs: list[Tensor] = []
            self.structure = flatten(result, outs)
            outputs = [tracer.value(t._array) for t in outs]
            forward_length = len(tracer.graph.instrs)
            mine = {id(t) for t in inside}
            self.leaves = [t for t in tracer.leaves.values() if id(t) not in mine]
            self.roots = [i for i, t in enumerate(outs) if t._requires_grad]
            self.wanted = [i for i, t in enumerate(inside) if t._requires_grad]
            gradients, seeds = self._trace_backward(tracer, outs, [inside[i] for i in self.wanted])
        _refuse_steps(tracer.graph)
        self.shapes = [v.shape for v in outputs]
        self._split(tracer.graph, forward_length, values, outputs, seeds, gradients)
        self.made = [tracer.arrays[v] for v in self.forward.graph.outputs]

    def _trace_backward(
        self, tracer: Tracer, outs: list[Tensor], inputs: list[Tensor]
    ) -> tuple[list[Value | None], list[Value]]:
        """Trace the backward pass; returns the gradients of inputs and leaves, and those that it begins with."""
        roots = [outs[i] for i in self.roots]
        if not roots:
            return [], []
        targets = [*inputs, *self.leaves]
        before = [t.grad for t in targets]
        seeds = [wrap(t._array.copy()) for t in roots]
        values = [tracer.input(f"g{i}", t._array) for i, t in enumerate(seeds)]
        for t in targets:
            t.grad = None
        try:
            gradient.BACKWARD(roots, seeds, False, False, targets)
            return [None if t.grad is None else tracer.value(t.grad._array) for t in targets], values
        finally:
            for t, g in zip(targets, before, strict=True):
                t.grad = g

    def _split(
        self, graph: Graph, length: int, inputs: list[Value], outputs: list[Value], seeds: list[Value],
        gradients: list[Value | None],
    ) -> None:  # fmt: skip
        """Cut the joint graph in two: what the second half needs of the first is kept between the passes."""
        first, second = Graph(), Graph()
        first.inputs, first.captured, first.instrs, first.outputs = (
            inputs,
            graph.captured,
            graph.instrs[:length],
            outputs,
        )
        self.backward: Plan | None = None
        kept: list[Value] = []
        if seeds:
            second.captured, second.instrs = graph.captured, graph.instrs[length:]
            second.outputs = [g for g in gradients if g is not None]
            made = {o for i in first.instrs for o in i.outputs} | set(inputs)
            second.inputs = [*seeds, *made]
            second = optimize(second)
            needed = dict.fromkeys(v for i in second.instrs for v in i.values() if v in made)
            needed.update(dict.fromkeys(v for v in second.outputs if v in made))
            kept = list(needed)
            second.inputs = [*seeds, *kept]
            self.backward = Plan(second)
        first.outputs = [*outputs, *kept]
        self.forward = Plan(optimize(first))
        self.count = len(outputs)
        changing, root = written(first), memory_of(first)
        self.changed_inputs = [i for i, v in enumerate(inputs) if root[v] in changing]
        places = iter(range(len(second.outputs)))
        self.gradient_places = [None if g is None else next(places) for g in gradients]

    def __call__(self, tensors: list[Tensor]) -> Any:
        return self.results(tensors, self.forward.run([t._array for t in tensors]))

    def results(self, tensors: list[Tensor], made: list[Any]) -> Any:
        """What the function returns, from the outputs of the forward plan; with their place in the graph."""
        for i in self.changed_inputs:
            touch(tensors[i])
        results = [wrap(a) for a in made[: self.count]]
        if self.backward is not None:
            targets = [*[tensors[i] for i in self.wanted], *self.leaves]
            node = _CompiledNode(
                tuple([dispatch.edge(t) for t in targets]), tuple([self.shapes[i] for i in self.roots])
            )
            node.trace, node.saved, node.versions = self, tuple(made[self.count :]), ()
            for slot, i in enumerate(self.roots):
                results[i]._node, results[i]._requires_grad = Slot(node, slot, self.shapes[i]), True
        return unflatten(self.structure, results)


class _CompiledNode(CustomNode):
    """A compiled call in the graph: its gradients come from the second half of the trace."""

    __slots__ = ("trace",)

    trace: _Trace

    def name(self) -> str:
        return "CompiledBackward"

    def apply(self, g: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        if dispatch.MODE.grad:
            raise RuntimeError(
                "compile: a second derivative through a compiled function is not available; call the original function"
            )
        if self.saved is None:
            raise RuntimeError("Trying to backward through the graph a second time; specify retain_graph=True")
        plan = self.trace.backward
        assert plan is not None
        begin = plan.graph.inputs[: len(g)]
        seeds = [np.zeros(v.shape, v.dtype) if t is None else t._array for v, t in zip(begin, g, strict=True)]
        made = plan.run([*seeds, *self.saved])
        return tuple(
            [
                None if p is None or not need else wrap(made[p])
                for p, need in zip(self.trace.gradient_places, needs, strict=True)
            ]
        )


def _stand_in(t: Tensor, grad: bool) -> Tensor:
    """A leaf on the memory of an argument, so that the trace begins there."""
    out = wrap(t._array[...])
    out._requires_grad = grad and t._requires_grad and category(t._array.dtype) >= 2
    return out


def _refuse_steps(graph: Graph) -> None:
    """Raise TraceError for the step of an optimizer; running statistics of a norm, also a mutation, are replayed."""
    for i in graph.instrs:
        if i.writes == "all" and i.op.home.startswith("rushlight_optim"):
            raise TraceError(
                f"{i.where}: {i.op.name} depends on what Python keeps (learning rate, schedule), which a replay would "
                "not follow; call the optimizer outside the compiled function"
            )


def _surroundings(fn: Any) -> tuple[Any, ...]:
    """What a function refers to, as a value to compare.  See Note [Guards]."""
    out: list[Any] = []
    seen: set[int] = set()
    _describe(fn, out, seen, 0)
    return tuple(out)


def _describe(x: Any, out: list[Any], seen: set[int], depth: int) -> None:
    if isinstance(x, _PLAIN):
        out.append((type(x), x))
    elif isinstance(x, Tensor):
        out.append((id(x._array), x._requires_grad))
    elif id(x) in seen or depth > 6:
        return
    elif isinstance(x, (FunctionType, MethodType)):
        seen.add(id(x))
        function = x.__func__ if isinstance(x, MethodType) else x
        if isinstance(x, MethodType):
            _describe(x.__self__, out, seen, depth + 1)
        if function.__module__.split(".")[0].startswith("rushlight"):
            return
        for cell in function.__closure__ or ():
            _describe(cell.cell_contents, out, seen, depth + 1)
        for name in function.__code__.co_names:
            if name in function.__globals__:
                _describe(function.__globals__[name], out, seen, depth + 1)
    elif hasattr(x, "named_modules") and hasattr(x, "training"):
        seen.add(id(x))
        for _, module in x.named_modules():
            seen.add(id(module))
            for value in vars(module).values():
                if isinstance(value, (*_PLAIN, Tensor)) or (isinstance(value, dict) and _holds_tensors(value)):
                    _describe(value, out, seen, depth + 1)
    elif isinstance(x, (list, tuple, dict)):
        seen.add(id(x))
        out.append(len(x))
        for item in x.values() if isinstance(x, dict) else x:
            _describe(item, out, seen, depth + 1)


def _holds_tensors(d: dict[Any, Any]) -> bool:
    return any(isinstance(v, Tensor) for v in d.values())
