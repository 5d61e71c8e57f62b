"""Random streams against PyTorch's: every sampler, every dtype, one after the other on one generator, bit for bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import rushlight
import rushlight_tensor as rl
from rushlight_nn import functional as F
from rushlight_tensor.core.dtypes import to_numpy
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.random import Generator
from tests.random.streams import FLOATS, PROGRAM, bits

torch = pytest.importorskip("torch")


def numpy_dtype(name):
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def torch_bits(t):
    t = t.contiguous()
    return bits((t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy())


def both(seed):
    return torch.Generator().manual_seed(seed), Generator().manual_seed(seed)


def same_state(theirs, ours):
    return bits(theirs.get_state().numpy()) == bits(ours.get_state()._array)


def test_the_whole_program_gives_the_same_bits_and_states():
    theirs, ours = both(3)
    for draw in PROGRAM:
        target = torch.empty(draw.size, dtype=getattr(torch, draw.dtype))
        want = getattr(target, draw.method)(*draw.args, generator=theirs)
        got = getattr(ours, draw.sampler)(np.empty(draw.size, numpy_dtype(draw.dtype)), *draw.args)
        assert bits(got) == torch_bits(want), draw
        assert same_state(theirs, ours), draw


@pytest.mark.parametrize("seed", [0, 1, -1, -5, 2**31, 2**32 + 7, 2**63, 2**64 - 1, -(2**63)])
def test_seeds_count_modulo_two_to_the_32_and_are_kept_as_64_bits(seed):
    theirs, ours = both(seed)
    assert theirs.initial_seed() == ours.initial_seed()
    assert same_state(theirs, ours)
    assert torch_bits(torch.rand(700, generator=theirs)) == bits(ours.uniform(np.empty(700, np.float32)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sampler", ["uniform", "normal", "bernoulli", "integers"])
@pytest.mark.parametrize(
    ("shape", "order", "cut"),
    [
        ((6, 5), (1, 0), ()),
        ((40, 30), (1, 0), ()),
        ((20, 30), (0, 1), (slice(None), slice(None, None, 2))),
        ((4, 5, 6), (2, 0, 1), ()),
        ((4, 5, 6), (1, 2, 0), (slice(1, None), slice(None, None, 2))),
    ],
)
def test_targets_that_are_not_contiguous_fill_in_the_order_of_memory(dtype, sampler, shape, order, cut):
    theirs, ours = both(1)
    args = {"uniform": (), "normal": (), "bernoulli": (0.4,), "integers": (0, 50)}[sampler]
    want = torch.zeros(shape, dtype=getattr(torch, dtype)).permute(order)[cut]
    got = np.zeros(shape, numpy_dtype(dtype)).transpose(order)[cut]
    getattr(want, "random_" if sampler == "integers" else sampler + "_")(*args, generator=theirs)
    getattr(ours, sampler)(got, *args)
    assert bits(got) == torch_bits(want)


@pytest.mark.parametrize("dtype", FLOATS)
def test_bernoulli_with_a_probability_per_element(dtype):
    theirs, ours = both(2)
    p = torch.rand(30, 20, generator=theirs).to(getattr(torch, dtype))
    ours.uniform(np.empty((30, 20), np.float32))
    array = np.frombuffer(torch_bits(p), numpy_dtype(dtype)).reshape(30, 20)
    want = torch.zeros(20, 30).t().bernoulli_(p, generator=theirs)
    assert bits(ours.bernoulli(np.zeros((20, 30), np.float32).T, array)) == torch_bits(want)
    want = torch.bernoulli(p, generator=theirs)
    assert bits(ours.bernoulli(np.empty((30, 20), array.dtype), array)) == torch_bits(want)


@pytest.mark.parametrize("n", [0, 1, 2, 10, 64, 65, 1000, 70000])
def test_permutations(n):
    theirs, ours = both(5)
    for _ in range(2):
        assert bits(ours.permutation(np.empty(n, np.int64))) == torch_bits(torch.randperm(n, generator=theirs))
        assert same_state(theirs, ours)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(10,), (4, 10), (3, 1000)])
@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_multinomial(dtype, shape, replacement, count):
    theirs, ours = both(6)
    weights = torch.rand(shape, generator=theirs, dtype=getattr(torch, dtype))
    array = ours.uniform(np.empty(shape, dtype))
    want = torch.multinomial(weights, count, replacement, generator=theirs)
    assert bits(ours.multinomial(array, count, replacement)) == torch_bits(want)
    assert same_state(theirs, ours)


def test_a_million_normals():
    for dtype in ("float32", "float64"):
        theirs, ours = both(8)
        want = torch.randn(1_000_003, generator=theirs, dtype=getattr(torch, dtype))
        assert bits(ours.normal(np.empty(1_000_003, dtype))) == torch_bits(want)


def test_states_travel_both_ways():
    theirs, ours = both(9)
    for n in (0, 3, 623, 1, 1000):
        torch.randn(n, generator=theirs)
        ours.set_state(wrap(theirs.get_state().numpy().copy()))
        assert bits(ours.normal(np.empty(7, np.float32))) == torch_bits(torch.randn(7, generator=theirs))
        ours.uniform(np.empty(n))
        theirs.set_state(torch.from_numpy(ours.get_state()._array))
        assert bits(ours.normal(np.empty(2000))) == torch_bits(torch.randn(2000, generator=theirs, dtype=torch.float64))


WRONG = [
    ("float32", "uniform_", "uniform", (2, 1)),
    ("float32", "uniform_", "uniform", (0, float("inf"))),
    ("float32", "uniform_", "uniform", (float("nan"), 1)),
    ("float16", "uniform_", "uniform", (-60000, 60000)),
    ("int64", "uniform_", "uniform", ()),
    ("float32", "normal_", "normal", (0, -1)),
    ("int64", "normal_", "normal", ()),
    ("float32", "bernoulli_", "bernoulli", (1.5,)),
    ("float32", "exponential_", "exponential", (0,)),
    ("int64", "exponential_", "exponential", ()),
    ("float32", "geometric_", "geometric", (0,)),
    ("float32", "cauchy_", "cauchy", (0, -1)),
    ("float32", "log_normal_", "log_normal", (0, -1)),
    ("float32", "random_", "integers", (5, 3)),
    ("uint8", "random_", "integers", (0, 300)),
    ("int32", "random_", "integers", (0, 2**40)),
    ("bool", "random_", "integers", (0, 3)),
    ("complex64", "random_", "integers", (0, 3)),
]


@pytest.mark.parametrize(("dtype", "method", "sampler", "args"), WRONG)
def test_mistakes_raise_the_same_type_and_start_with_the_same_words(dtype, method, sampler, args):
    with pytest.raises(Exception) as theirs:
        getattr(torch.empty(3, dtype=getattr(torch, dtype)), method)(*args)
    with pytest.raises(type(theirs.value)) as ours:
        getattr(Generator(), sampler)(np.empty(3, to_numpy(np.dtype(dtype))), *args)
    assert str(ours.value).startswith(str(theirs.value).split(":")[0][:60])


CALLS = [
    lambda t: t.rand(2, 3),
    lambda t: t.rand([]),
    lambda t: t.randn((4, 5)),
    lambda t: t.randn(2, dtype=t.complex64),
    lambda t: t.randint(10, (3,)),
    lambda t: t.randint(low=3, high=9, size=(3,)),
    lambda t: t.randint(-3, 9, (2, 2), dtype=t.int32),
    lambda t: t.randint(2**40, (2, 2)),
    lambda t: t.randperm(9),
    lambda t: t.randperm(9, dtype=t.float32),
    lambda t: t.normal(0.0, 2.0, (3,)),
    lambda t: t.normal(t.zeros(3, 1), t.ones(4)),
    lambda t: t.normal(t.arange(20.0), 2.0),
    lambda t: t.normal(2.0, t.arange(4.0)),
    lambda t: t.bernoulli(t.rand(5)),
    lambda t: t.bernoulli(t.zeros(5), 0.3),
    lambda t: t.rand_like(t.zeros(3, 4).transpose(0, 1)),
    lambda t: t.randn_like(t.zeros(30, 4).transpose(0, 1)),
    lambda t: t.rand_like(t.zeros(6, 8)[:, ::2]),
    lambda t: t.randint_like(t.zeros(3), 5),
    lambda t: t.zeros(5).uniform_(-1, 2),
    lambda t: t.zeros(20).normal_(1, 2),
    lambda t: t.zeros(5).bernoulli_(),
    lambda t: t.zeros(5, 6).bernoulli_(t.rand(6)),
    lambda t: t.zeros(5).exponential_(),
    lambda t: t.zeros(5).geometric_(0.3),
    lambda t: t.zeros(5).cauchy_(),
    lambda t: t.zeros(5).log_normal_(),
    lambda t: t.zeros(5, dtype=t.int64).random_(),
    lambda t: t.zeros(5, dtype=t.int64).random_(7),
    lambda t: t.zeros(5, dtype=t.int64).random_(-5, 7),
    lambda t: t.zeros(5, dtype=t.int64).random_(-5, None),
    lambda t: t.multinomial(t.rand(3, 5), 2),
    lambda t: t.multinomial(t.rand(5), 7, True),
    lambda t: t.rand(2, out=t.zeros(2)),
]


def test_functions_of_tensors_draw_the_same_one_after_the_other():
    state = rl.get_rng_state()
    try:
        torch.manual_seed(0)
        rl.manual_seed(0)
        for _ in range(2):
            for i, call in enumerate(CALLS):
                want, got = call(torch), call(rl)
                assert bits(got._array) == torch_bits(want), i
                assert got.stride() == want.stride(), i
                assert repr(got.dtype) == repr(want.dtype), i
    finally:
        rl.set_rng_state(state)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout_masks_follow_the_memory_of_their_input(p):
    state = rl.get_rng_state()
    try:
        for shape in ((4, 5), (3, 40), (2, 3, 4)):
            torch.manual_seed(1)
            rl.manual_seed(1)
            for swapped in (False, True):
                x, y = torch.ones(shape), rl.ones(shape)
                if swapped:
                    x, y = x.transpose(0, 1), y.transpose(0, 1)
                want = torch.nn.functional.dropout(x, p)
                assert bits(F.dropout(y, p)._array) == torch_bits(want)
    finally:
        rl.set_rng_state(state)


FILLED = {
    "uniform_": (), "normal_": (), "bernoulli_": (0.5,), "exponential_": (), "random_": (9,), "geometric_": (0.3,),
    "cauchy_": (), "log_normal_": (),
}  # fmt: skip


@pytest.mark.parametrize("of", ["convolution", "pool", "transposed convolution"])
@pytest.mark.parametrize("name", FILLED)
def test_numbers_filled_into_results_of_convolution(name, of):  # which lie in memory in an order of their own
    def filled(m):
        f, x = m.nn.functional, m.ones(2, 3, 6, 5)
        y = f.conv2d(x, m.ones(4, 3, 3, 3)) if of == "convolution" else f.conv_transpose2d(x, m.ones(3, 4, 2, 2))
        y = f.max_pool2d(y, 2) if of == "pool" else y
        m.manual_seed(0)
        return getattr(y, name)(*FILLED[name]).numpy()

    np.testing.assert_allclose(filled(rushlight), filled(torch), rtol=1e-6)
