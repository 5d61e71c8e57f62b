"""One kind of call of a compiled function: its forward and backward pass, traced together, cut in two, replayed.

Note [Joint trace]
    The function runs on the caller's own tensors, so whatever happens this run is what the function does, and its
    results can be given out as they are where no trace may be kept.  Then the backward pass is traced behind it, with
    the caller's tensors cut from the graph that they came from.  What the second half needs of the first is kept
    between the passes, together with the versions of all memory that others can write to.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from rushlight_jit.ir import Graph, Value
from rushlight_jit.passes import memory_of, optimize, written
from rushlight_jit.plan import Plan
from rushlight_jit.tracer import Tracer
from rushlight_tensor.core import cuda, dispatch
from rushlight_tensor.core.graph import CustomNode, Slot, stale_text, version
from rushlight_tensor.core.inplace import touch
from rushlight_tensor.core.structure import unflatten
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.methods import gradient


class Joint:
    """The plans of a forward pass and, where gradients are wanted, of its backward pass.

    Args:
        tracer: Has seen the forward pass.
        inputs: The tensors among the arguments, each once, and their values in the graph.
        outs: The tensors among the results.
        structure: How the results are made of them.
        held: Tensors that the function refers to, by the identity of their arrays.
        watching: The context in which operations are traced.
    """

    def __init__(
        self, tracer: Tracer, inputs: list[Tensor], values: list[Value], outs: list[Tensor], structure: Any,
        held: dict[int, Tensor], watching: Callable[[], AbstractContextManager[Any]],
    ) -> None:  # fmt: skip
        self.structure = structure
        outputs = [tracer.value(t._array) for t in outs]
        length = len(tracer.graph.instrs)
        mine = {id(t) for t in inputs}
        captured = [held[id(a)] for a in tracer.graph.captured.values() if id(a) in held]
        inner = [t for t in captured if t._requires_grad and t._node is not None]  # results of ops outside
        leaves = {id(t): t for t in (*tracer.leaves.values(), *inner) if id(t) not in mine}
        self.leaves = list(leaves.values()) if dispatch.MODE.grad else []
        self.roots = [i for i, t in enumerate(outs) if t._requires_grad]
        self.wanted = [i for i, t in enumerate(inputs) if t._requires_grad] if dispatch.MODE.grad else []
        with watching():
            gradients, seeds = self._trace_backward(tracer, outs, [inputs[i] for i in self.wanted])
        tracer.describe()
        self.shapes = [v.shape for v in outputs]
        self._split(tracer.graph, length, values, outputs, seeds, gradients)
        self._watch_memory(tracer, values, held)
        self.made = [tracer.arrays[v] for v in self.forward.graph.outputs]

    def _trace_backward(
        self, tracer: Tracer, outs: list[Tensor], inputs: list[Tensor]
    ) -> tuple[list[Value | None], list[Value]]:
        """Trace the backward pass; returns the gradients of inputs and leaves, and those that it begins with."""
        roots = [outs[i] for i in self.roots]
        self.roots_of: list[set[int]] = []
        if not roots:
            return [], []
        targets = [*inputs, *self.leaves]
        before = [getattr(t, "_grad", None) for t in targets]
        seeds = [wrap(t._array.copy()) for t in roots]
        values = [tracer.input(f"g{i}", t._array) for i, t in enumerate(seeds)]
        for t in targets:
            t._grad = None
        try:
            with _cut_off(targets):
                self.roots_of = _roots_of(roots, targets)
                gradient.BACKWARD(roots, seeds, True, False, targets)
            return [None if t._grad is None else tracer.value(t._grad._array) for t in targets], values
        finally:
            for t, g in zip(targets, before, strict=True):
                t._grad = g

    def _split(
        self, graph: Graph, length: int, inputs: list[Value], outputs: list[Value], seeds: list[Value],
        gradients: list[Value | None],
    ) -> None:  # fmt: skip
        """Cut the joint graph in two: what the second half needs of the first is kept between the passes."""
        first, second = graph.part(graph.instrs[:length]), graph.part(graph.instrs[length:])
        first.inputs, first.outputs = inputs, outputs
        self.backward: Plan | None = None
        kept: list[Value] = []
        if seeds:
            made = {o for i in first.instrs for o in i.outputs} | set(inputs)
            second.inputs, second.outputs = [*seeds, *made], [g for g in gradients if g is not None]
            second = optimize(second)
            needed = dict.fromkeys(v for i in second.instrs for v in i.values() if v in made)
            needed.update(dict.fromkeys(v for v in second.outputs if v in made))
            kept = list(needed)
            second.inputs = [*seeds, *kept]
            self.backward = Plan(second)
        first.outputs = [*outputs, *kept]
        self.forward = Plan(optimize(first))
        self.count, self.kept = len(outputs), kept
        places = iter(range(len(second.outputs)))
        self.gradient_places = [None if g is None else next(places) for g in gradients]

    def _watch_memory(self, tracer: Tracer, inputs: list[Value], held: dict[int, Tensor]) -> None:
        """Which tensors the forward pass writes to, and which must not change until the backward pass has run."""
        graph = self.forward.graph
        root, changing = memory_of(tracer.graph), written(graph)
        self.held = [(v, held[id(a)]) for v, a in tracer.graph.captured.items() if id(a) in held]
        self.changed_inputs = [i for i, v in enumerate(inputs) if root[v] in changing]
        self.changed_held = [t for v, t in self.held if root[v] in changing]
        needed: set[Value] = {root[v] for v in self.kept}
        if self.backward is not None:
            needed |= {root[v] for i in self.backward.graph.instrs for v in i.values() if v in root}
        self.needed_inputs = [i for i, v in enumerate(inputs) if root[v] in needed]
        self.needed_held = [t for v, t in self.held if root[v] in needed]
        self.needed_outputs = [i for i, v in enumerate(graph.outputs[: self.count]) if root[v] in needed]
        self.aliases = _outside_alias(graph.outputs[: self.count], root, {*inputs, *tracer.graph.captured})

    def __call__(self, tensors: list[Tensor]) -> Any:
        made = self.forward.run([t._array for t in tensors])
        for i in self.changed_inputs:
            touch(tensors[i])
        for t in self.changed_held:
            touch(t)
        return self.results(tensors, made)

    def results(self, tensors: list[Tensor], made: list[Any]) -> Any:
        """What the function returns, from the outputs of the forward plan; with their place in the graph."""
        results = [wrap(a) for a in made[: self.count]]
        if self.backward is not None:
            targets = [*[tensors[i] for i in self.wanted], *self.leaves]
            shapes = tuple([self.shapes[i] for i in self.roots])
            node = CompiledNode(tuple([dispatch.edge(t) for t in targets]), shapes)
            node.joint, node.saved = self, tuple(made[self.count :])
            watched = [*[tensors[i] for i in self.needed_inputs], *self.needed_held]
            node.watched = [(t, version(t)) for t in watched]
            node.results = [weakref.ref(results[i]) for i in self.needed_outputs]
            for slot, i in enumerate(self.roots):
                results[i]._node, results[i]._requires_grad = Slot(node, slot, self.shapes[i]), True
        return unflatten(self.structure, results)


class CompiledNode(CustomNode):
    """A compiled call in the graph: its gradients come from the second half of the trace."""

    __slots__ = ("joint", "results", "watched")

    joint: Joint
    watched: list[tuple[Tensor, int]]
    results: list[weakref.ref[Tensor]]

    def name(self) -> str:
        return "CompiledBackward"

    def apply(self, g: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        if dispatch.MODE.grad:
            raise RuntimeError(
                "compile: a second derivative through a compiled function is not available; call the original function"
            )
        if self.saved is None:
            raise RuntimeError("Trying to backward through the graph a second time; specify retain_graph=True")
        self._check()
        joint = self.joint
        plan = joint.backward
        assert plan is not None
        begin = plan.graph.inputs[: len(g)]
        like = next((t._array for t in g if t is not None), None)
        seeds = [
            cuda.like(like, np.zeros(v.shape, v.dtype)) if t is None else t._array
            for v, t in zip(begin, g, strict=True)
        ]
        made = plan.run([*seeds, *self.saved])
        arrived = {i for i, t in enumerate(g) if t is not None}
        return tuple(
            [
                wrap(made[p]) if p is not None and need and not arrived.isdisjoint(of) else None
                for p, need, of in zip(joint.gradient_places, needs, joint.roots_of, strict=True)
            ]
        )

    def _check(self) -> None:
        """Raise where memory that the backward pass reads has been written to."""
        changed = [t for t, v in self.watched if version(t) != v]
        changed += [t for r in self.results if (t := r()) is not None and version(t) != 0]
        if changed:
            raise RuntimeError(stale_text(changed[0], "a compiled function"))


@contextmanager
def _cut_off(tensors: list[Tensor]) -> Iterator[None]:
    """For a while these tensors are where the graph begins, and their hooks wait for the pass that is real."""
    nodes = [e for t in tensors if not isinstance(e := dispatch.edge(t), Tensor) and e is not None]
    before = [(n, n.edges, n.hooks) for n in dict.fromkeys(nodes)]
    hooks = [(t, getattr(t, "_hooks", None)) for t in tensors]
    try:
        for n, _, _ in before:
            n.edges, n.hooks = (), None
        for t in tensors:
            t._hooks = None
        yield
    finally:
        for n, edges, own in before:
            n.edges, n.hooks = edges, own
        for t, h in hooks:
            t._hooks = h


def _roots_of(roots: list[Tensor], targets: list[Tensor]) -> list[set[int]]:
    """For each target, the results that its gradient may come from: where none of them has one it is None, not 0."""
    out: list[set[int]] = [set() for _ in targets]
    for i, root in enumerate(roots):
        seen = {dispatch.edge(root)}
        stack = list(seen)
        while stack:
            n = stack.pop()
            new = [] if isinstance(n, Tensor) else [e for e in n.edges if e is not None and e not in seen]
            seen.update(new)
            stack += new
        for of, t in zip(out, targets, strict=True):
            if dispatch.edge(t) in seen:
                of.add(i)
    return out


def _outside_alias(outputs: list[Value], root: dict[Value, Value], outside: set[Value]) -> bool:
    """Whether a result is memory that the caller has already, or that of another result."""
    roots = [root[v] for v in outputs]
    return any(r in outside for r in roots) or len(set(roots)) < len(roots)
