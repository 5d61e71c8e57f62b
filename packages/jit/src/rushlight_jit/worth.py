"""Whether a replay pays: what its kernels save, against what it costs to find out that a trace applies.

Note [Small calls]
    A compiled call looks at its arguments and at all that the function refers to, some 8 µs and more (Note [Guards]);
    an eager op on four numbers takes 0.13 µs.  So a chain of a few small ops is faster as it is.  The function itself
    is always right, whatever has changed since, so a call of this kind needs no guards either: what is compared is
    the number of elements.  A call like one of the last is found in 0.2 µs (Note [Hits]), where C looks: so two ops on
    four numbers are replayed, if they are like those that were traced.  The verdict follows from the graph and from the
    figures below, never from a clock, as fused kernels may round otherwise and a program has to give the same numbers
    each time.

The figures are microseconds on one core (AMD Zen 5, 2025, `benchmarks/chains.py`); their ratios are what counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rushlight_jit.hits import Hit
from rushlight_jit.ir import Instr, Value
from rushlight_jit.joint import Joint
from rushlight_jit.plan import Plan
from rushlight_tensor.core.tensor import Tensor

_CALL, _TOKEN, _TENSOR = 7.0, 0.5, 0.6  # finding the trace; per value that the function refers to, per argument
_HIT, _READ, _RUN = 0.08, 0.01, 3.0  # a hit in C that runs a kernel; per read; running a plan otherwise
_OP, _RECORDED = 0.12, 0.25  # an eager op on few elements; recorded, or in the backward pass
_STRIDED = 2.3  # what it takes longer where an operand does not lie in order
_NODE = 2.0  # recording a call
_BACKWARD = 17.0, 5.5  # running its backward pass beside eager's; and where a hit has left the caches as they were
_MOVE = 12.0, 2.5  # putting operands in order, and the result where it belongs; likewise
_ELEMENT = 0.06e-3  # what an op of a chain costs per element that a fused kernel does not pay
_COPY = 0.15e-3  # per element of a gradient, which the engine copies: to it, a compiled call is a user's function
_CALLED, _TABLE = 0.4, 4.0  # what a kernel costs less as one call of a table; filling in a table
_STEP = 1.2  # what an op that is not fused costs more in a replay than in the function


def pays(joint: Joint, tensors: Sequence[Tensor], tokens: int) -> bool:
    """Whether a replay is faster than the function.

    Args:
        joint: The trace.
        tensors: The arguments, each once.
        tokens: How many values are compared on each call.
    """
    return _gain(joint, tensors, False) > _CALL + _TOKEN * tokens + _TENSOR * len(tensors)


def hit_pays(hit: Hit, tensors: Sequence[Tensor]) -> bool:
    """The same where the next call is like this one, and C sees that it is."""
    assert hit.joint is not None
    return _gain(hit.joint, tensors, True) > _HIT + _READ * hit.reads + (0 if hit.kernel else _RUN)


def _gain(joint: Joint, tensors: Sequence[Tensor], hit: bool) -> float:
    """What a replay takes less than the function, but for finding it."""
    inputs = zip(joint.forward.graph.inputs, tensors, strict=True)
    odd = {v for v, t in inputs if not t._array.flags.c_contiguous}
    recorded = joint.backward is not None
    saved = _saved(joint.forward, _RECORDED if recorded else _OP, odd, _MOVE[hit])
    if joint.backward is None:
        return saved
    saved += _saved(joint.backward, _RECORDED, odd, _MOVE[hit])
    copied = sum(math.prod(v.shape) for v in joint.backward.graph.outputs)
    return saved - _NODE - _BACKWARD[hit] - _COPY * copied


def _saved(plan: Plan, op: float, odd: set[Value], move: float) -> float:
    """What a plan takes less than its operations; values in `odd` do not lie in order, nor do results of them alone."""
    fused = 0.0
    for k in plan.kernels:
        strided = [i for i in k.instrs if _is_odd(i, odd)]
        each = op + _ELEMENT * math.prod(k.shape)
        fused += len(k.instrs) * each + len(strided) * _STRIDED - (move if odd.intersection(k.inputs) else 0)
    inside = {id(i) for k in plan.kernels for i in k.instrs}
    tables = [[p for p in t if isinstance(p, Instr) and not p.op.view] for t in plan.in_tables()]
    inside.update(id(i) for t in tables for i in t)
    steps = sum(not i.op.view and id(i) not in inside for i in plan.graph.instrs)
    return fused + _CALLED * sum(map(len, tables)) - _TABLE * len(tables) - _STEP * steps


def _is_odd(i: Instr, odd: set[Value]) -> bool:
    """Whether an op reads a value that does not lie in order; if it reads no other, nor does its result."""
    found = [v in odd for v in i.values()]
    if all(found):
        odd.update(i.outputs)
    return any(found)
