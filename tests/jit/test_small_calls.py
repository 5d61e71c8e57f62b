"""Calls that are too small for a replay to pay run as they are, all others are replayed; needless copies go."""

import sys

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_autograd import grad
from rushlight_jit import compile, worth
from rushlight_jit.compiled import Compiled
from rushlight_tensor.kernels.compile import find_compiler
from rushlight_tensor.ops.math.cast import clone

PAYS = worth.pays  # the real one, which `conftest` takes out

WITH_COMPILER = pytest.mark.skipif(
    find_compiler() is None, reason="needs a C compiler, RUSHLIGHT_CC=none or none found"
)


@pytest.fixture(autouse=True)
def _as_they_are(_small_calls_are_replayed, monkeypatch):
    monkeypatch.setattr(worth, "pays", PAYS)


class Chain:
    """Products and sums in turn, as they are and compiled."""

    def __init__(self, length, **how):
        def function(x, y):
            h = x
            for i in range(length):
                h = h + y if i % 2 else h * y
            return h

        self.eager, self.fast = function, compile(function, **how)

    def replays(self, *xs):
        """Whether a second call of this kind is a replay; it is right, too."""
        self.fast(*xs)
        ran = set()
        sys.setprofile(lambda frame, event, arg: ran.add(frame.f_code))
        try:
            got = self.fast(*xs)
        finally:
            sys.setprofile(None)
        np.testing.assert_allclose(got.detach().numpy(), self.eager(*xs).detach().numpy(), rtol=1e-5)
        return self.eager.__code__ not in ran


def pair(*shape, requires_grad=False):
    rng = np.random.default_rng(0)
    x, y = (T.tensor(rng.uniform(0.5, 1, shape).astype(np.float32)) for _ in range(2))
    return x.requires_grad_(requires_grad), y


@WITH_COMPILER
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(("length", "shape", "pays"), [
    (2, (4,), False), (8, (64, 64), False), (32, (4,), False), (8, (512, 512), True), (32, (256, 256), True),
])  # fmt: skip
def test_a_chain_is_replayed_where_that_pays(length, shape, pays, requires_grad):
    chain = Chain(length)
    by_hit = type(chain.fast) is not Compiled and (not requires_grad or length == 32)  # what C finds is found at once
    assert chain.replays(*pair(*shape, requires_grad=requires_grad)) == (pays or by_hit)


@WITH_COMPILER
@pytest.mark.parametrize("lies", [lambda x: x.t(), lambda x: x[:, ::2], lambda x: x[:1].expand(x.shape)])
def test_a_chain_on_what_does_not_lie_in_order_is_replayed_sooner(lies):
    x = T.ones(64, 64)
    y = lies(T.ones(64, 64))
    assert Chain(16).replays(x[: y.shape[0], : y.shape[1]].contiguous(), y)


@WITH_COMPILER
def test_one_graph_is_promised_for_calls_of_every_size():
    assert Chain(2, fullgraph=True).replays(*pair(4))


@WITH_COMPILER
def test_a_small_call_does_not_make_a_large_one_small():
    chain = Chain(8)
    for shape in ((4,), (512, 512), (3,), (4,)):
        by_hit = shape == (4,) and type(chain.fast) is not Compiled  # the first small one is traced
        assert chain.replays(*pair(*shape)) == (shape == (512, 512) or by_hit)


def test_no_trace_is_made_of_smaller_calls():
    chain = Chain(4)
    for n in (50, *range(1, 50)):
        x, y = pair(n)
        np.testing.assert_array_equal(chain.fast(x, y).numpy(), chain.eager(x, y).numpy())
    assert chain.fast.traces == 1


FACTOR = 2.0


def test_a_small_call_follows_what_has_changed_since(monkeypatch):
    fast = compile(lambda x: x * FACTOR)
    x = T.ones(3)
    for factor in (2.0, 3.0, 5.0, 2.0):
        monkeypatch.setitem(globals(), "FACTOR", factor)
        assert fast(x).tolist() == [factor] * 3


@pytest.mark.parametrize("order", ["ascending", "descending", "mixed"])
def test_the_bound_lies_below_everything_that_pays(order):
    fast = compile(lambda x: x)
    verdicts = {4: False, 10: False, 20: True, 30: False, 40: True}
    counts = {
        "ascending": sorted,
        "descending": lambda c: sorted(c, reverse=True),
        "mixed": lambda c: [30, 4, 40, 20, 10],
    }

    class Call:
        tensors: tuple

    for n in counts[order](list(verdicts)):
        call = Call()
        call.tensors = (T.zeros(n),)
        fast._learn(call, verdicts[n])
    assert fast._small < 20
    assert fast._large == 20


def test_copies_that_nobody_needs_are_dropped():
    def function(x, y):
        return clone(clone(x * y) + y) * 2.0, clone(x), clone(x * y)

    fast = compile(function, fullgraph=True)
    x, y = pair(3, requires_grad=True)
    fast(x, y)
    out = fast(x, y)
    names = [i.op.name for i in fast.graph.instrs]
    assert names.count("clone") == 1  # of an argument
    for a, b in zip(out, function(x, y), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    assert len({a._array.ctypes.data for a in (x, y, *out)}) == 5
    got, want = (grad(f(x, y)[0], [x], T.ones(3))[0] for f in (fast, function))
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6)


def test_a_copy_of_what_is_written_to_stays():
    def function(x, y):
        h = x * y
        before = clone(h)
        h.add_(1.0)
        return before * 1.0, h * 1.0

    fast = compile(function, fullgraph=True)
    x, y = pair(3)
    for _ in range(2):
        for a, b in zip(fast(x, y), function(x, y), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_gradients_of_a_compiled_call_are_not_shared():
    fast = compile(lambda x, y: x + y, fullgraph=True)
    for _ in range(2):
        x, y = pair(3)
        x.requires_grad_()
        y.requires_grad_()
        g = T.ones(3)
        fast(x, y).backward(g)
        x.grad.mul_(2.0)
        assert (y.grad.tolist(), g.tolist()) == ([1.0] * 3, [1.0] * 3)
