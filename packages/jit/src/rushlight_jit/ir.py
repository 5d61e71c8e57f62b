"""The graph of a traced function: values, instructions, and a form that people can read.

graph(%x: float32[4, 3], %w: float32[3, 2]) {
  %0: float32[4, 2] = matmul(%x, %w)    # model.py:12
  return %0
}
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.op import Op


class Value:
    """The result of an instruction, an input, or an array that the function holds; `name` is for people.

    `aval` describes it.  In a graph from a file that is its shape and dtype alone; else layout and device are known,
    too.  Which memory it lies in says `Graph.memory`.
    """

    __slots__ = ("aval", "name")

    def __init__(self, name: str, aval: Aval) -> None:
        self.name, self.aval = name, aval

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.aval.dtype

    def __repr__(self) -> str:
        return f"%{self.name}"

    def typed(self) -> str:
        """The value with its dtype and shape."""
        return f"%{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


class Instr:
    """One operation: `outputs = op(*inputs, **attrs)`, or, where it `writes`, an operation into the memory of inputs.

    `into`: the result goes into the memory of the first input (`inplace.write`), and there are no outputs.  An op that
    writes by itself, such as the step of an optimizer, says so in its record.

    `regions`: graphs that the operation runs when it sees fit, the branches of a choice or the body of a loop.  A
    region reads nothing but its own inputs, which the instruction takes among its `inputs`; so uses, lifetimes and
    memory follow from the instruction alone.  No operation has any yet: this is their place.
    """

    __slots__ = ("attrs", "inputs", "into", "op", "outputs", "regions", "where")

    def __init__(
        self,
        op: Op,
        inputs: tuple[Any, ...],
        attrs: dict[str, Any],
        outputs: tuple[Value, ...],
        into: bool,
        where: str,
        regions: tuple[Graph, ...] = (),
    ) -> None:
        self.regions = regions
        self.op, self.inputs, self.attrs, self.outputs, self.into, self.where = (
            op,
            inputs,
            attrs,
            outputs,
            into,
            where,
        )

    def values(self) -> list[Value]:
        """The inputs that are values (the others are numbers or None)."""
        return [x for x in self.inputs if isinstance(x, Value)]

    @property
    def writes(self) -> int:
        """How many of its first inputs it writes into."""
        return 1 if self.into else self.op.written(len(self.inputs), self.attrs)

    def __repr__(self) -> str:
        args = [repr(x) for x in self.inputs] + [f"{k}={_short(v)}" for k, v in self.attrs.items()]
        name = self.op.name + ("_" if self.into else "!" if self.writes else "")
        text = f"{name}({', '.join(args)})"
        return f"{', '.join(o.typed() for o in self.outputs)} = {text}" if self.outputs else text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Graph:
    """Inputs, the arrays that the function holds (`captured`), instructions in order, and outputs."""

    __slots__ = ("captured", "inputs", "instrs", "memory", "outputs")

    def __init__(self) -> None:
        self.inputs: list[Value] = []
        self.captured: dict[Value, Any] = {}
        self.instrs: list[Instr] = []
        self.outputs: list[Value] = []
        self.memory: dict[Value, Value] = {}  # whose memory a value was seen to share; see `passes.memory_of`

    def part(self, instrs: list[Instr]) -> Graph:
        """A graph of these instructions on the same memory."""
        out = Graph()
        out.inputs, out.outputs, out.captured = self.inputs, self.outputs, self.captured
        out.instrs, out.memory = instrs, self.memory
        return out

    def writes(self) -> bool:
        """Whether any instruction changes memory."""
        return any(i.writes for i in self.instrs)

    def __str__(self) -> str:
        head = ", ".join(v.typed() for v in (*self.inputs, *self.captured))
        rows = [f"  {i!r}" for i in self.instrs]
        width = max((len(r) for r in rows if len(r) < 100), default=0)
        body = [f"{r:<{width}}  # {i.where}" if i.where else r for r, i in zip(rows, self.instrs, strict=True)]
        return "\n".join([f"graph({head}) {{", *body, f"  return {', '.join(map(repr, self.outputs))}", "}"])
