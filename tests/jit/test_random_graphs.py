"""Random programs with views and in-place writes: compiled equals eager, and every pass keeps a valid graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rushlight_tensor as T
from rushlight_autograd import grad
from rushlight_jit import compile, passes, verify
from rushlight_jit.ir import Graph, Instr, Value
from rushlight_tensor import REGISTRY
from rushlight_tensor.core import kinds
from rushlight_tensor.core.infer import Aval, unary_same
from rushlight_tensor.core.op import Op

UNARY = ["tanh", "sigmoid", "neg", "abs", "relu", "sin"]
BINARY = ["add", "sub", "mul", "maximum"]
VIEWS = [
    lambda t: t[1:],
    lambda t: t[:, ::2],
    lambda t: t.t(),
    lambda t: t.reshape(-1),
    lambda t: t[0],
    lambda t: t.detach(),
]
INPLACE = ["add_", "mul_", "sub_", "copy_"]

STEP = st.one_of(
    st.tuples(st.just("unary"), st.sampled_from(UNARY), st.integers(0, 30)),
    st.tuples(st.just("binary"), st.sampled_from(BINARY), st.integers(0, 30), st.integers(0, 30)),
    st.tuples(
        st.just("number"), st.sampled_from(["add", "mul"]), st.integers(0, 30), st.sampled_from([0.5, -0.0, 2, True])
    ),
    st.tuples(st.just("view"), st.integers(0, len(VIEWS) - 1), st.integers(0, 30)),
    st.tuples(st.just("inplace"), st.sampled_from(INPLACE), st.integers(0, 30), st.integers(0, 30)),
    st.tuples(st.just("sum"), st.integers(0, 30)),
)


def program(steps, held):
    """A function of two tensors that does these steps on the tensors it has, where their shapes allow it."""

    def function(x, y):
        pool = [x, y, *held]
        for kind, *how in steps:
            if kind == "unary":
                pool.append(getattr(T, how[0])(pool[how[1] % len(pool)]))
            elif kind == "number":
                pool.append(getattr(T, how[0])(pool[how[1] % len(pool)], how[2]))
            elif kind == "sum":
                pool.append(pool[how[0] % len(pool)].sum(-1, keepdim=True) if pool[how[0] % len(pool)].ndim else x)
            elif kind == "view":
                t = pool[how[1] % len(pool)]
                if t.ndim == 2 and min(t.shape) > 1:
                    pool.append(VIEWS[how[0]](t))
            else:
                a, b = pool[how[1] % len(pool)], pool[how[2] % len(pool)]
                if kind == "binary" and (a.shape == b.shape or b.ndim == 0 or b.shape == a.shape[-1:]):
                    pool.append(getattr(T, how[0])(a, b))
                elif kind == "inplace" and a.shape == b.shape and how[1] % len(pool) > 2:  # not x, y and the weight
                    getattr(a, how[0])(b)
        return [t * 1 for t in pool[4:]]

    return function


def outcome(call, x, y, held):
    """What a program gives, and its gradients; or that it raises."""
    try:
        outs = call(x, y)
        wanted = [o for o in outs if o.requires_grad]
        leaves = [x, y, held[0]]
        seeds = [T.ones(*o.shape) * (i + 1) for i, o in enumerate(wanted)]
        gradients = grad(wanted, leaves, seeds, allow_unused=True) if wanted else []
    except RuntimeError:
        return None
    return [o.detach().numpy().copy() for o in outs], [None if g is None else g.numpy() for g in gradients]


def tensors(seed):
    rng = np.random.default_rng(seed)
    return [T.tensor(rng.standard_normal((3, 3)).astype(np.float32)).requires_grad_() for _ in range(2)]


def state():
    rng = np.random.default_rng(9)
    w, buffer = (T.tensor(rng.standard_normal((3, 3)).astype(np.float32)) for _ in range(2))
    return [w.requires_grad_(), buffer]


def agree(steps):
    """Compare a program with itself compiled, three times; whether it was replayed."""
    steps = [tuple(step) for step in steps]  # hypothesis' own list is one that compile cannot look into
    mine, theirs = state(), state()
    eager, fast = program(steps, theirs), compile(program(steps, mine))
    for seed in range(3):
        got = outcome(fast, *tensors(seed), mine)
        want = outcome(eager, *tensors(seed), theirs)
        assert (got is None) == (want is None)
        if want is None:
            return False
        for a, b in zip(got[0], want[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(got[1], want[1], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(mine[1].detach().numpy(), theirs[1].detach().numpy(), rtol=1e-4, atol=1e-5)
    return fast.traces > 0


def test_compiled_program_gives_what_the_program_gives():
    replayed = []

    @settings(max_examples=25, deadline=None)
    @given(st.lists(STEP, min_size=2, max_size=14))
    def run(steps):
        replayed.append(agree(steps))

    run()
    assert sum(replayed) > len(replayed) // 2, "most programs ran as they are: nothing was compared"


def test_every_pass_keeps_a_valid_graph(monkeypatch):
    seen = []

    def counted(before, after, name):
        verify.after(before, after, name)
        seen.append((name, len(before.instrs) - len(after.instrs)))

    monkeypatch.setattr(passes, "VERIFY", counted)

    @settings(max_examples=12, deadline=None)
    @given(st.lists(STEP, min_size=4, max_size=16))
    def run(steps):
        held = state()
        fast = compile(program(steps, held))
        outcome(fast, *tensors(0), held)

    run()
    assert {name for name, _ in seen} == {"fuse.groups", *(p.__name__ for p in passes.PASSES)}
    assert sum(fewer for _, fewer in seen) > 0, "the passes had nothing to do"


def test_a_zero_and_a_negative_zero_are_not_one_expression():
    fast = compile(lambda x: (1 / (x * 0.0), 1 / (x * -0.0), x * 1, x * True))
    x = T.tensor([1.0, 2.0])
    for _ in range(2):
        a, b, *_ = fast(x)
        assert a.tolist() == [np.inf, np.inf]
        assert b.tolist() == [-np.inf, -np.inf]


@pytest.mark.parametrize("effect", ["communicates", "random", "none"])
def test_an_op_with_an_effect_stays_as_often_as_it_was_written(effect):
    op = Op("effect_for_test", kind=kinds.opaque("for this test"), infer=unary_same, numpy=np.copy, vjp=None,
            random=effect == "random", communicates=effect == "communicates")  # fmt: skip
    try:
        graph = Graph()
        x, *made = (Value(name, Aval((2,), np.dtype(np.float32))) for name in "xabc")
        graph.inputs = [x]
        graph.instrs = [Instr(op, (x,), {}, (v,), False, "") for v in made]
        graph.outputs = [made[0]]
        kept = passes.eliminate_dead_code(passes.eliminate_common_subexpressions(graph))
        assert len(kept.instrs) == (1 if effect == "none" else 3)
    finally:
        del REGISTRY["effect_for_test"]
