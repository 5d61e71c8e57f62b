"""Replay: a graph as a list of steps on a row of slots, with every array dropped after its last use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rushlight_jit import passes
from rushlight_jit.fuse import Kernel, groups, instrs_of
from rushlight_jit.ir import Graph, Instr, Value
from rushlight_jit.segment import FEWEST, Env, Segment, Step, may_be_part
from rushlight_tensor.core import devices, dispatch, inplace, layout
from rushlight_tensor.core.placement import NUMBER
from rushlight_tensor.core.tensor import Tensor
from rushlight_tensor.kernels import elementwise_cuda

_MOST_ORDERS = 64


class Plan:
    """A graph, ready to run.  `run` takes arrays; `run_recorded` takes tensors and records every operation."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._slot: dict[Value, int] = {}
        for v in (*graph.inputs, *graph.captured):
            self._slot[v] = len(self._slot)
        self.kernels: list[Kernel] = []
        self._steps: list[Step] = []
        self._captured = list(graph.captured.values())
        self._parts = parts = groups(graph)
        if passes.VERIFY is not None:
            passes.VERIFY(graph, graph.part([i for p in parts for i in instrs_of(p)]), "fuse.groups")
        last = self._last_uses(parts)
        self._add_steps(parts, last)
        self._outputs = [self._of(v) for v in graph.outputs]
        self._size = len(self._slot)

    def _add_steps(self, parts: list[Instr | Kernel], last: dict[int, list[Value]]) -> None:
        """A step for each part, and for what is no longer needed after it; those that C may run are in segments."""
        together: list[Instr | Kernel] = []
        for n, part in enumerate(parts):
            if isinstance(part, Kernel) and part.build():
                self.kernels.append(part)
            together.append(part)
            if may_be_part(part) and n + 1 < len(parts):
                continue
            rest = [] if may_be_part(part) else [together.pop()]
            behind = {v for p in [*rest, *parts[n + 1 :]] for v in _reads(p)} | set(self.graph.outputs)
            self._add_segment(together, behind, last)
            for p in rest:
                self._steps += self._steps_of(p, last)
            together = []

    def _add_segment(self, parts: list[Instr | Kernel], behind: set[Value], last: dict[int, list[Value]]) -> None:
        steps = [s for p in parts for s in self._steps_of(p, last)]
        if sum(not isinstance(p, Instr) or not p.op.view for p in parts) < FEWEST:
            self._steps += steps
            return
        made = {o for p in parts for o in p.outputs}
        done = [self._slot[v] for p in parts for v in last.get(id(p), ()) if v not in made]
        self._steps.append(Segment(parts, steps, self._slot, made & behind, done))

    def _steps_of(self, part: Instr | Kernel, last: dict[int, list[Value]]) -> list[Step]:
        if isinstance(part, Kernel) and part.function is not None:
            steps = [self._fused(part)]
        else:
            steps = [self._single(i) for i in instrs_of(part)]
        done = [self._slot[v] for v in last.get(id(part), ())]
        return [*steps, _drop(done)] if done else steps

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """The outputs for these inputs."""
        env: Env = [*arrays, *self._captured]
        env.extend([None] * (self._size - len(env)))
        for step in self._steps:
            step(env)
        return [env[o] for o in self._outputs]

    def run_recorded(self, inputs: Sequence[Tensor], held: Sequence[Tensor]) -> list[Tensor]:
        """The outputs as tensors of the autograd graph, operation by operation.

        Args:
            held: One tensor per captured array, in the graph's order.
        """
        env: dict[Value, Any] = dict(zip((*self.graph.inputs, *self.graph.captured), (*inputs, *held), strict=True))
        for i in self.graph.instrs:
            xs = tuple([env[x] if isinstance(x, Value) else x for x in i.inputs])
            if i.into:
                inplace.inplace(i.op, *xs, **i.attrs)
            elif i.writes:
                inplace.mutate(i.op, xs, i.attrs)
            else:
                out = dispatch.call(i.op, xs, i.attrs)
                env.update(zip(i.outputs, out if isinstance(out, tuple) else (out,), strict=not i.op.side_results))
        return [env[v] for v in self.graph.outputs]

    def only_kernel(self) -> Kernel | None:
        """The fused kernel that is all of it; None where there is more, or less."""
        only = self._parts[0] if len(self._parts) == 1 else None
        return only if isinstance(only, Kernel) and only.function is not None else None

    def in_tables(self) -> list[list[Instr | Kernel]]:
        """The parts that run from C, table by table, once they have been recorded."""
        return [s.parts for s in self._steps if isinstance(s, Segment)]

    def source(self) -> str:
        """The C text of the fused kernels."""
        return "\n".join(k.text for k in self.kernels)

    def _of(self, v: Value) -> int:
        return self._slot.setdefault(v, len(self._slot))

    def _last_uses(self, parts: list[Instr | Kernel]) -> dict[int, list[Value]]:
        keep = {*self.graph.outputs, *self.graph.captured}
        last: dict[Value, int] = {}
        for part in parts:
            for v in (*_reads(part), *part.outputs):
                last[v] = id(part)
        out: dict[int, list[Value]] = {}
        for v, part_id in last.items():
            if v not in keep:
                out.setdefault(part_id, []).append(v)
                self._of(v)
        return out

    def _single(self, i: Instr) -> Step:
        op, attrs = i.op, i.attrs
        picks = [(self._slot[x], None) if isinstance(x, Value) else (-1, x) for x in i.inputs]
        outs = [self._of(o) for o in i.outputs]

        def operands(env: Env) -> list[Any]:
            return [x if s < 0 else env[s] for s, x in picks]

        if i.into:

            def write(env: Env) -> None:
                first, *others = operands(env)
                inplace.write(op, first, others, attrs)

            return write
        if i.writes:

            def mutate(env: Env) -> None:
                dispatch.run(op, operands(env), attrs)

            return mutate

        def execute(env: Env) -> None:
            result = dispatch.run(op, operands(env), attrs)
            for o, z in zip(outs, result if isinstance(result, tuple) else (result,), strict=True):
                env[o] = np.asarray(z) if isinstance(z, np.generic) else z

        return execute

    def _fused(self, k: Kernel) -> Step:
        function, fits, shape = k.function, k.fits, k.shape
        ins = [self._slot[v] for v in k.inputs]
        outs = [(self._of(v), v.dtype) for v in k.outputs]
        rows, columns = k.size

        singles = [self._single(i) for i in k.instrs]
        orders: dict[Any, list[Any]] = {}  # how results lie, by how inputs do

        def in_order(given: list[Any], made: list[Any]) -> list[Any]:
            key = tuple([(type(a), a.strides) for a in given])
            want = orders.get(key)
            if want is None:
                if len(orders) == _MOST_ORDERS:
                    orders.clear()
                want = orders[key] = _orders(k, given)
            return [layout.with_strides(z, s, False) for z, s in zip(made, want, strict=True)]

        def on_device(env: Env) -> None:
            if k.device is None:
                for step in singles:
                    step(env)
                return
            arrays = [env[s] for s in ins]
            for (o, _), op in zip(outs, k.device, strict=True):
                env[o] = elementwise_cuda.launch(op, arrays, {})

        def on_host(env: Env) -> None:
            arrays = given = [env[s] for s in ins]
            if not fits(*arrays):
                arrays = [np.ascontiguousarray(a) if a.flags.aligned else a.copy() for a in given]
            made = [np.empty(shape, dtype) for _, dtype in outs]
            function(*arrays, *made, rows, columns)
            if arrays is not given:
                made = in_order(given, made)
            for (o, _), z in zip(outs, made, strict=True):
                env[o] = z

        on = {"cpu": on_host, "cuda": on_device}

        def fused(env: Env) -> None:
            first = env[ins[0]]
            run = on_host if type(first) is np.ndarray else on[devices.of(first).type]
            run(env)

        return fused


def _reads(part: Instr | Kernel) -> list[Value]:
    return part.inputs if isinstance(part, Kernel) else part.values()


def _orders(k: Kernel, arrays: list[Any]) -> list[Any]:
    """The strides of what a kernel makes, as its operations would have it.  See Note [Order of results]."""
    known = dict(zip(k.inputs, map(layout.operand, arrays), strict=True))
    for i in k.instrs:
        xs = [known[x] if isinstance(x, Value) else None if x is None else NUMBER for x in i.inputs]
        out = i.outputs[0]
        known[out] = out.shape, i.op.order.strides(out.shape, xs, i.attrs)  # type: ignore[union-attr]  # no views
    return [known[v][1] for v in k.outputs]  # type: ignore[index]


def _drop(slots: list[int]) -> Step:
    def drop(env: Env) -> None:
        for s in slots:
            env[s] = None

    return drop
