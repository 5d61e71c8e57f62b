"""Whether a replay pays: what its kernels save, against what it costs to find out that a trace applies.

Note [Small calls]
    A compiled call looks at its arguments and at all that the function refers to, some 8 µs and more (Note [Guards]);
    an eager op on four numbers takes 0.13 µs.  So a chain of a few small ops is faster as it is.  The function itself
    is always right, whatever has changed since, so a call of this kind needs no guards either: what is compared is
    the number of elements.  The verdict follows from the graph and from the figures below, never from a clock, as fused
    kernels may round otherwise and a program has to give the same numbers each time.

The figures are microseconds on one core (AMD Zen 5, 2025, `benchmarks/chains.py`); their ratios are what counts.
"""

from __future__ import annotations

import math

from rushlight_jit.ir import Instr
from rushlight_jit.joint import Joint
from rushlight_jit.plan import Plan

_CALL, _TOKEN, _TENSOR = 7.0, 0.5, 0.6  # finding the trace; per value that the function refers to, per argument
_NODE, _BACKWARD = 2.0, 17.0  # recording a call; running its backward pass beside eager's
_OP, _RECORDED = 0.12, 0.25  # an eager op on few elements; recorded, or in the backward pass
_ELEMENT = 0.06e-3  # what an op of a chain costs per element that a fused kernel does not pay
_COPY = 0.15e-3  # per element of a gradient, which the engine copies: to it, a compiled call is a user's function
_CALLED, _TABLE = 0.4, 4.0  # what a kernel costs less as one call of a table; filling in a table
_STEP = 1.2  # what an op that is not fused costs more in a replay than in the function


def pays(joint: Joint, tensors: int, tokens: int) -> bool:
    """Whether a replay is faster than the function.

    Args:
        joint: The trace.
        tensors: How many arguments there are.
        tokens: How many values are compared on each call.
    """
    cost = _CALL + _TOKEN * tokens + _TENSOR * tensors
    if joint.backward is None:
        return _saved(joint.forward, _OP) > cost
    saved = _saved(joint.forward, _RECORDED) + _saved(joint.backward, _RECORDED)
    copied = sum(math.prod(v.shape) for v in joint.backward.graph.outputs)
    return saved > cost + _NODE + _BACKWARD + _COPY * copied


def _saved(plan: Plan, op: float) -> float:
    fused = sum(len(k.instrs) * (op + _ELEMENT * math.prod(k.shape)) for k in plan.kernels)
    inside = {id(i) for k in plan.kernels for i in k.instrs}
    tables = [[p for p in t if isinstance(p, Instr) and not p.op.view] for t in plan.in_tables()]
    inside.update(id(i) for t in tables for i in t)
    steps = sum(not i.op.view and id(i) not in inside for i in plan.graph.instrs)
    return fused + _CALLED * sum(map(len, tables)) - _TABLE * len(tables) - _STEP * steps
