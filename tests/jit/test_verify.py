"""The verifier tells a pass that breaks a graph: faults are planted in passes, one of each kind."""

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_jit import compile, passes, plan, verify
from rushlight_jit.ir import Instr, Value
from rushlight_tensor.core.infer import Aval

WEIGHT = np.ones((3, 3), np.float32)


def program(x, state):
    """Something of everything: a view, two writes, a draw, what is the same twice, and what nobody uses."""
    row = x.t()[0]
    state.add_(row)
    before = state * 2.0
    state.mul_(row)
    h = (x * x).exp() + (x * x).exp()
    x.sin()
    return h + T.rand(3, 3), before + state


def graph():
    fast = compile(program)
    rng = np.random.default_rng(0)
    fast(*(T.tensor(rng.standard_normal(s).astype(np.float32)) for s in ((3, 3), (3,))))
    assert not fast.breaks
    return fast.graph


def changed(i, **new):
    parts = {name: getattr(i, name) for name in ("op", "inputs", "attrs", "outputs", "into", "where")}
    return Instr(**{**parts, **new})


def find(instrs, name, writes=False):
    return next(n for n, i in enumerate(instrs) if i.op.name == name and bool(i.writes) == writes)


def edit(change):
    """A pass that changes the list of instructions."""

    def run(g):
        instrs = list(g.instrs)
        change(instrs)
        return g.part(instrs)

    return run


def replace(name, **new):
    def change(instrs):
        n = find(instrs, name)
        instrs[n] = changed(instrs[n], **{k: v(instrs[n]) for k, v in new.items()})

    return edit(change)


def move(name, writes, to):
    """The instruction stands before the one that `to` names."""

    def change(instrs):
        i = instrs.pop(find(instrs, name, writes))
        instrs.insert(find(instrs, *to), i)

    return edit(change)


def fewer_outputs(g):
    out = g.part(list(g.instrs))
    out.outputs = g.outputs[:1]
    return out


def swapped_outputs(g):
    out = g.part(list(g.instrs))
    out.outputs = g.outputs[::-1]
    return out


def other_root(g):
    out = g.part(list(g.instrs))
    view = next(i for i in g.instrs if i.op.view)
    out.memory = {**g.memory, view.outputs[0]: view.outputs[0]}
    return out


def one_memory(g):
    out = g.part(list(g.instrs))
    exp = next(i for i in g.instrs if i.op.name == "exp")
    out.memory = {**g.memory, exp.outputs[0]: g.memory[g.inputs[1]]}
    return out


def other_capture(g):
    out = g.part(list(g.instrs))
    out.captured = {Value("w", g.inputs[0].aval): WEIGHT}
    return out


def _renamed(v, **new):
    return Value(v.name, v.aval._replace(**new))


def draw_dropped(g):
    """Another value stands in for what was drawn."""
    instrs = list(g.instrs)
    n = next(n for n, i in enumerate(instrs) if i.op.random)
    drawn = instrs.pop(n).outputs[0]
    return g.part([changed(i, inputs=tuple(g.inputs[0] if v is drawn else v for v in i.inputs)) for i in instrs])


def read_moved(g):
    """`state * 2` stands behind the second write to `state`."""
    instrs = list(g.instrs)
    n = next(n for n, i in enumerate(instrs) if i.op.name == "mul" and i.inputs[1] == 2.0)
    write = find(instrs, "mul", True)
    assert n < write
    instrs.insert(write, instrs.pop(n))
    return g.part(instrs)


FAULTS = {
    "a result that is used is dropped": (edit(lambda s: s.pop(find(s, "exp"))), "not there yet"),
    "a result that is returned is dropped": (edit(lambda s: s.pop()), "nobody makes"),
    "a write is dropped": (edit(lambda s: s.pop(find(s, "add", True))), "effects were"),
    "a write is doubled": (edit(lambda s: s.insert(0, s[find(s, "mul", True)])), "not there yet|effects were"),
    "writes change places": (move("mul", True, ("add", True)), "effects were"),
    "a draw is dropped with its use": (draw_dropped, "effects were"),
    "a read moves behind a write": (read_moved, "stood behind 1 writes"),
    "a value is made twice": (edit(lambda s: s.append(s[find(s, "exp")])), "there already"),
    "a use stands before its value": (edit(lambda s: s.insert(0, s.pop(find(s, "exp")))), "not there yet"),
    "an output is lost": (fewer_outputs, "outputs are others"),
    "outputs change places": (swapped_outputs, "outputs are others"),
    "a view gets memory of its own": (other_root, "lies in the memory"),
    "a result gets an input's memory": (one_memory, "lies in the memory"),
    "an array is captured that was not": (other_capture, "holds another array|is new"),
    "an op becomes another": (replace("exp", op=lambda i: T.REGISTRY["sum"],
        attrs=lambda i: dict(T.REGISTRY["sum"].defaults)), "exp|sum"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_pass_is_told(fault, monkeypatch):
    faulty, why = FAULTS[fault]
    right = graph()
    verify.after(right, passes.optimize(right), "all")
    with pytest.raises(verify.GraphError, match=why):
        verify.after(right, faulty(right), fault)


@pytest.mark.parametrize(
    "new",
    [{"shape": (3, 1)}, {"dtype": np.dtype(np.float64)}, {"strides": (1, 3)}, {"device": "cuda"}],
    ids=lambda new: next(iter(new)),
)
def test_a_result_that_is_described_wrongly_is_told(new):
    right = graph()
    last = right.instrs[find(right.instrs, "exp")]
    wrong = _renamed(last.outputs[0], **new)
    instrs = [
        changed(i, outputs=(wrong,) if i is last else i.outputs,
                inputs=tuple(wrong if v is last.outputs[0] else v for v in i.inputs))
        for i in right.instrs
    ]  # fmt: skip
    with pytest.raises(verify.GraphError, match="exp"):
        verify.well_formed(right.part(instrs))


def test_a_region_reads_only_its_own_inputs():
    right, inner = graph(), graph()
    right.instrs[0].regions = (inner,)
    verify.well_formed(passes.optimize(right))
    inner.captured = {Value("w", Aval(WEIGHT.shape, WEIGHT.dtype)): WEIGHT}
    with pytest.raises(verify.GraphError, match="a region reads"):
        verify.well_formed(passes.eliminate_copies(right))


def test_the_passes_of_a_compilation_are_verified(monkeypatch):
    monkeypatch.setattr(passes, "PASSES", (*passes.PASSES, edit(lambda s: s.pop(0))))
    with pytest.raises(verify.GraphError):
        compile(lambda x: x.exp() * 2.0 + x)(T.ones(3))


def test_fusion_is_verified(monkeypatch):
    monkeypatch.setattr(plan, "groups", lambda g: g.instrs[::-1])
    with pytest.raises(verify.GraphError, match=r"fuse\.groups"):
        compile(lambda x: x.sum(0) * 2.0 + x)(T.ones(3, 3))
