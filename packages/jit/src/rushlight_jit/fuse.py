"""Fusion: chains of elementwise operations become one C kernel, one pass over memory, no intermediate arrays.

Note [What fuses]
    Operations with an `expr` on float32, one after another, all of the same result shape.  An operand may be of that
    shape, a single element, one row or one column of it; comparisons may stay inside as float 0 and 1.  A value that
    is used outside the group becomes an output of the kernel.  Groups never reach across an instruction that writes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from rushlight_jit.ir import Graph, Instr, Value
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.op import Op
from rushlight_tensor.kernels.c_expressions import in_float
from rushlight_tensor.kernels.compile import compile_c
from rushlight_tensor.kernels.cuda_text import attributes_of

FLOAT32 = np.dtype(np.float32)
BOOL = np.dtype(np.bool_)
LONGEST_EXPRESSION = 4000

_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class DeviceOp:
    """One output of a fused group as an elementwise record of its own, for `kernels.elementwise_cuda`."""

    name: str
    expr: str
    input_names: tuple[str, ...]
    out: Aval

    def infer(self, *_: Aval) -> Aval:
        """The output's shape and dtype."""
        return self.out


class Kernel:
    """A fused group: what it replaces, what it reads and makes, its C text, and its outputs as expressions for CUDA."""

    __slots__ = (
        "device",
        "entry",
        "fits",
        "function",
        "inputs",
        "instrs",
        "outputs",
        "prototype",
        "shape",
        "size",
        "text",
    )
    source: Any = None
    """Drawing is never fused; see `Planned.source`."""

    def __init__(self, instrs: list[Instr], inputs: list[Value], outputs: list[Value]) -> None:
        self.instrs, self.inputs, self.outputs = instrs, inputs, outputs
        self.shape = outputs[0].shape
        self.size = int(np.prod(self.shape[:-1], dtype=np.int64)), self.shape[-1] if self.shape else 1
        self.text = _c_text(self)
        self.device = _device_ops(self)
        self.function: Any = None
        self.fits: Any = None
        self.prototype: Any = None
        self.entry = 0

    @property
    def op(self) -> Op:
        """What stands for the group in messages: its last op."""
        return self.instrs[-1].op

    def build(self) -> bool:
        """Compile; False where there is no compiler, and the operations run one by one."""
        library = compile_c(self.text)
        if library is None:
            return False
        self.function, self.fits = library.fused, getattr(library, "fused.fits")
        self.prototype, self.entry = library.prototypes["fused"], library.entries["fused"]
        return True


def groups(graph: Graph) -> list[Instr | Kernel]:
    """The instructions in order, with every fusible group of two or more replaced by a kernel."""
    uses: dict[Value, list[Instr]] = {}
    for i in graph.instrs:
        for v in i.values():
            uses.setdefault(v, []).append(i)
    results = set(graph.outputs)
    out: list[Instr | Kernel] = []
    group: list[Instr] = []

    def close() -> None:
        if len(group) < 2:
            out.extend(group)
        else:
            out.append(_kernel(list(group), uses, results))
        group.clear()

    for i in graph.instrs:
        if _fusible(i):
            if group and (group[0].outputs[0].shape != i.outputs[0].shape):
                close()
            group.append(i)
        else:
            if group and not _independent(i, group):
                close()
            out.append(i)  # before the open group, if there is one: it needs nothing from it
    close()
    return out


def instrs_of(part: Instr | Kernel) -> list[Instr]:
    """What a part stands for."""
    return part.instrs if isinstance(part, Kernel) else [part]


def _independent(i: Instr, group: list[Instr]) -> bool:
    made = {o for g in group for o in g.outputs}
    return not i.writes and not any(v in made for v in i.values())


def _fusible(i: Instr) -> bool:
    if i.writes or i.op.expr is None or len(i.outputs) != 1:
        return False
    out = i.outputs[0]
    if out.dtype not in (FLOAT32, BOOL):
        return False
    for x in i.inputs:
        if isinstance(x, Value):
            if x.dtype not in (FLOAT32, BOOL) or _access(x.shape, out.shape) is None:
                return False
        elif x is None:
            return False
    used = attributes_of(i.op.expr, i.op.input_names)
    return all(isinstance(i.attrs[name], (int, float)) for name in used) and (
        any(isinstance(x, Value) and x.dtype == FLOAT32 for x in i.inputs)
    )


def _access(shape: tuple[int, ...], of: tuple[int, ...]) -> str | None:
    """How an operand is read in a loop over rows and columns of the result; None where that does not do."""
    size = int(np.prod(shape, dtype=np.int64))
    if size == 1:
        return "[0]"
    if shape == of:
        return "[i]"
    trimmed = shape
    while trimmed and trimmed[0] == 1:
        trimmed = trimmed[1:]
    if trimmed == of[-1:]:
        return "[column]"
    if len(shape) == len(of) and shape[-1] == 1 and shape[:-1] == of[:-1]:
        return "[row]"
    return None


def _kernel(group: list[Instr], uses: dict[Value, list[Instr]], results: set[Value]) -> Kernel:
    inside = set(map(id, group))
    made = {i.outputs[0] for i in group}
    inputs = list(dict.fromkeys(v for i in group for v in i.values() if v not in made))
    outputs = [
        i.outputs[0]
        for i in group
        if i.outputs[0] in results or any(id(u) not in inside for u in uses.get(i.outputs[0], ()))
    ]
    return Kernel(group, inputs, outputs or [group[-1].outputs[0]])


def _filled(instr: Instr, names: dict[Value, str]) -> str:
    """The op's `expr` with its operands and attributes filled in."""
    operands = dict(zip(instr.op.input_names, instr.inputs, strict=True))

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        x = operands[name] if name in operands else instr.attrs[name]
        return names[x] if isinstance(x, Value) else f"({float(x)!r})"

    assert instr.op.expr is not None
    text = _NAME.sub(fill, instr.op.expr)
    return re.sub(r"\((-?)inf\)", r"(\1INFINITY)", text).replace("(nan)", "(NAN)")


def expression(instr: Instr, names: dict[Value, str]) -> str:
    """The op's `expr` in C's float arithmetic."""
    return in_float(_filled(instr, names))


def _device_ops(kernel: Kernel) -> list[DeviceOp] | None:
    """Each output as one nested expression of the inputs; None where values that are used often make it too long."""
    inputs = tuple(f"in{n}" for n in range(len(kernel.inputs)))
    nested = {v: f"{{{name}}}" for v, name in zip(kernel.inputs, inputs, strict=True)}
    for i in kernel.instrs:
        nested[i.outputs[0]] = f"({_filled(i, nested)})"
        if len(nested[i.outputs[0]]) > LONGEST_EXPRESSION:
            return None
    return [DeviceOp("fused", nested[v], inputs, Aval(v.shape, v.dtype)) for v in kernel.outputs]


def _c_text(kernel: Kernel) -> str:
    names = {v: f"in{n}" for n, v in enumerate(kernel.inputs)}
    types = {FLOAT32: "float", BOOL: "bool"}
    lengths = {"[0]": "1", "[i]": "rows * columns", "[column]": "columns", "[row]": "rows"}
    shape = kernel.shape
    arguments = [
        f"LENGTH({lengths[_access(v.shape, shape) or '']}) const {types[v.dtype]} *p{n}"
        for n, v in enumerate(kernel.inputs)
    ]
    arguments += [f"LENGTH(rows * columns) {types[v.dtype]} *q{n}" for n, v in enumerate(kernel.outputs)]
    body = []
    for n, v in enumerate(kernel.inputs):
        body.append(f"float in{n} = p{n}{_access(v.shape, shape)};")
    for n, i in enumerate(kernel.instrs):
        names[i.outputs[0]] = f"t{n}"
        body.append(f"float t{n} = {expression(i, names)};")
    body += [f"q{n}[i] = {names[v]};" for n, v in enumerate(kernel.outputs)]
    lines = "\n            ".join(body)
    return f"""#include "vmath.h"
EXPORT void fused({", ".join(arguments)}, long rows, long columns) {{
    PARALLEL_FOR(rows * columns)
    for (long row = 0; row < rows; row++) {{
        SIMD for (long column = 0; column < columns; column++) {{
            long i = row * columns + column;
            {lines}
        }}
    }}
}}
"""
