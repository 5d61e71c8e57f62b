"""Steps that C runs by itself: bitwise what eager gives, from the third call on, whatever happens in between."""

import gc
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rushlight as rl
import rushlight.nn.functional as F
from rushlight_jit import compile, segment, trace
from rushlight_jit.plan import Plan
from rushlight_jit.segment import Segment
from rushlight_tensor.kernels.compile import find_compiler
from rushlight_tensor.kernels.table import Table
from tests.kernels.test_program import IMAGE_STEPS, STEPS, arguments

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler, RUSHLIGHT_CC=none or none found")

MATRIX, BIAS, TABLE = rl.randn(16, 16), rl.randn(16), rl.randn(10, 16)


def tables(plan):
    return [s for s in plan._steps if isinstance(s, Segment) and s._run is not None]


def of(compiled):
    joint = compiled._last
    return tables(joint.forward) + ([] if joint.backward is None else tables(joint.backward))


def same(a, b):
    assert a.dtype == b.dtype
    assert a.stride() == b.stride()
    np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def mlp(x):
    return F.softmax(F.linear(F.layer_norm(F.linear(F.softmax(x, -1), MATRIX, BIAS), (16,)), MATRIX), -1)


def long(step):
    """The step between others, so that what it makes is only seen by C."""
    return lambda x, w, b: step(F.softmax(F.layer_norm(x, x.shape[1:]), 1), w, b)


@pytest.mark.parametrize("name", [*STEPS, *IMAGE_STEPS])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_planned_kernel_in_a_table_gives_eager_bits(name, threads, monkeypatch):
    monkeypatch.setattr(segment, "FEWEST", 1)
    step = long((STEPS | IMAGE_STEPS)[name])
    fast, before = compile(step, fullgraph=True), rl.get_num_threads()
    rl.set_num_threads(threads)
    try:
        for seed in range(4):
            xs, again = arguments(name, seed), arguments(name, seed)
            got, want = fast(*xs), step(*again)
            for a, b in zip(*[o if isinstance(o, tuple) else (o,) for o in (got, want)], strict=True):
                same(a, b)
            first, second = (o[0] if isinstance(o, tuple) else o for o in (got, want))
            g = rl.randn(first.shape)
            pairs = zip(*[rl.autograd.grad(o, v, g, allow_unused=True) for o, v in ((first, xs), (second, again))],
                        strict=True)  # fmt: skip
            for a, b in pairs:
                assert (a is None) == (b is None)
                if a is not None:
                    same(a, b)
    finally:
        rl.set_num_threads(before)
    assert fast.traces == 1
    assert of(fast), "nothing has run from C"


def replayed(function, *xs, times=4):
    fast = compile(function, fullgraph=True)
    for _ in range(times):
        out = fast(*xs)
        del out
    assert of(fast)
    return fast


def test_a_segment_is_one_call_of_c():
    fast = replayed(mlp, rl.randn(8, 16))
    ((only,),) = [of(fast)]
    assert len(only.parts) == 5
    assert [type(s) for s in fast._last.forward._steps] == [Segment]


def test_results_are_not_overwritten_by_the_next_call():
    xs = [rl.randn(8, 16) for _ in range(4)]
    fast = replayed(mlp, xs[0])
    outs = [fast(x) for x in xs]
    for x, out in zip(xs, outs, strict=True):
        same(out, mlp(x))
        assert out._array.flags.owndata


def test_two_threads_run_one_table():
    fast = replayed(mlp, rl.randn(8, 16))
    xs = [[rl.randn(8, 16) for _ in range(200)] for _ in range(2)]
    wanted = [[mlp(x).tolist() for x in each] for each in xs]
    got = [[], []]

    def work(i):
        got[i] = [fast(x).tolist() for x in xs[i]]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == wanted


def test_two_threads_record_at_once():
    for _ in range(5):
        fast, x, wrong = compile(mlp), rl.randn(8, 16), []
        want, go = mlp(x).tolist(), threading.Barrier(4)

        def work(fast=fast, x=x, want=want, go=go, wrong=wrong):
            go.wait()
            wrong.extend(1 for _ in range(20) if fast(x).tolist() != want)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong


def test_a_table_is_made_anew_for_another_number_of_threads():
    """It has scratch for so many."""
    before = rl.get_num_threads()
    rl.set_num_threads(1)
    try:
        x = rl.randn(8, 16)
        fast = replayed(mlp, x)
        (one,) = of(fast)
        made = one._run
        rl.set_num_threads(2)
        for _ in range(2):
            same(fast(x), mlp(x))
        assert one._run is not made
        assert one._run.table.threads == 2
    finally:
        rl.set_num_threads(before)


def test_a_kernel_that_finds_something_wrong_raises_what_it_does_in_eager():
    def step(i):
        return F.softmax(F.layer_norm(F.softmax(F.embedding(i, TABLE), -1), (16,)), -1)

    fine, bad = rl.tensor([1, 2, 3]), rl.tensor([1, 20, 3])
    fast = replayed(step, fine)
    with pytest.raises(IndexError) as eager:
        step(bad)
    for _ in range(2):
        with pytest.raises(IndexError, match=str(eager.value)):
            fast(bad)
        same(fast(fine), step(fine))
    new = compile(step, fullgraph=True)
    new(fine)
    new(fine)
    with pytest.raises(IndexError, match=str(eager.value)):  # while it is recorded
        new(bad)
    same(new(fine), step(fine))


def product(x, y):
    return F.softmax(F.softmax(F.softmax(x, -1) @ F.softmax(y, -1), -1), -1)


def test_a_trace_tells_two_arguments_apart_that_were_one_when_it_was_recorded():
    """An address that two values share would stand for one of them."""
    x, y = rl.randn(16, 16), rl.randn(16, 16)
    fast = trace(product, (x, y))
    for pair in ((x, x), (x, x), (x, x), (x, y), (x, y), (x, y), (y, x), (x, x)):
        same(fast(*pair), product(*pair))
    assert tables(fast._plan)


def test_a_trace_takes_arguments_that_lie_otherwise(monkeypatch):
    x, y = rl.randn(16, 16), rl.randn(16, 16)
    fast = trace(product, (x, y))
    raw = np.zeros(16 * 16 * 4 + 1, np.uint8)
    odd = raw[1:].view(np.float32).reshape(16, 16)
    odd[...] = x.numpy()
    for _ in range(4):
        fast(x, y)
    assert tables(fast._plan)
    ran, run = [], Table.run
    monkeypatch.setattr(Table, "run", lambda table, filled: ran.append(1) or run(table, filled))
    for other in (x.t().contiguous().t(), rl.randn(32, 16)[::2], rl.from_numpy(odd)):
        same(fast(other, y), product(other, y))
        assert not ran
        same(fast(x, y), product(x, y))
        assert len(ran) == 1
        ran.clear()


def test_views_of_what_only_c_sees_come_out_right():
    def step(x):
        h = F.softmax(F.layer_norm(F.softmax(x, -1), (16,)), -1)
        return h.t(), h.view(4, 32)[1:]

    def apart(x):
        a, b = step(x)
        return a.exp(), b.exp()

    fast = compile(apart, fullgraph=True)
    for _ in range(4):
        x = rl.randn(8, 16)
        for a, b in zip(fast(x), apart(x), strict=True):
            same(a, b)
    assert of(fast)


def test_a_segment_between_other_steps_leaves_nothing_behind():
    def step(x):
        h = x.sort(-1).values
        h = F.softmax(F.layer_norm(F.softmax(h, -1), (16,)), -1)
        return h.sort(-1).values, (h * 1.5).cumsum(0)

    fast = replayed(step, rl.randn(8, 16))
    x = rl.randn(8, 16)
    for a, b in zip(fast(x), step(x), strict=True):
        same(a, b)


def test_what_only_c_sees_takes_the_memory_of_two_at_a_time():
    def step(x):
        for _ in range(10):
            x = F.softmax(x, -1)
        return x

    x = rl.randn(64, 64)
    fast = replayed(step, x)
    (one,) = of(fast)
    assert one._run.table.work_bytes < 3 * x.numpy().nbytes
    same(fast(x), step(x))


def test_a_table_goes_with_its_function():
    fast = replayed(mlp, rl.randn(8, 16))
    del fast
    gc.collect()
    assert not [p for p in gc.get_objects() if type(p) is Plan and tables(p)]


BLOCK = st.tuples(st.integers(1, 5000), st.integers(0, 20), st.integers(0, 6))


@settings(max_examples=200)
@given(st.lists(BLOCK, max_size=25))
def test_blocks_in_use_at_the_same_time_lie_apart(blocks):
    made = []
    for size, first, more in blocks:
        b = segment._Block(0, size, first)
        b.last = first + more
        made.append(b)
    places, room = segment._packed(made)
    for i, a in enumerate(made):
        assert places[id(a)] % segment.ALIGNED == 0
        assert places[id(a)] + a.high <= room
        for b in made[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert places[id(a)] >= places[id(b)] + b.high or places[id(b)] >= places[id(a)] + a.high
