"""The numbers of a seed are fixed for ever: values recorded from PyTorch 2.13, checked without it."""

from __future__ import annotations

import pickle
import threading
import zlib

import ml_dtypes
import numpy as np
import pytest

from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.kernels import random as kernels
from rushlight_tensor.random import Generator, stream
from rushlight_tensor.random import generator as random
from tests.random.streams import PROGRAM, bits

# CRC-32 over all results of one sampler and dtype, in the order of PROGRAM, seed 0.  float64 results of the C library's
# log, cos, … are left out: their last bit belongs to that library.
GOLDEN = {
    ("uniform", "float32"): 0xC3547277,
    ("uniform", "float64"): 0x7DA1131E,
    ("uniform", "float16"): 0x23415BA2,
    ("uniform", "bfloat16"): 0x341955AC,
    ("uniform", "complex64"): 0xC961CF86,
    ("uniform", "complex128"): 0xD5EF9225,
    ("normal", "float32"): 0xD706A830,
    ("normal", "float16"): 0x713C3108,
    ("normal", "bfloat16"): 0x4DCC3BF0,
    ("normal", "complex64"): 0x0AB3FFE2,
    ("full_range", "float32"): 0x8A2DC973,
    ("full_range", "float64"): 0x13AF4D6F,
    ("full_range", "float16"): 0x1B975DF9,
    ("full_range", "bfloat16"): 0x9975E143,
    ("full_range", "int64"): 0x514A5DFA,
    ("full_range", "int32"): 0x8E6283E7,
    ("full_range", "int16"): 0x16CC19C5,
    ("full_range", "int8"): 0x65CAF92F,
    ("full_range", "uint8"): 0x6E8744BA,
    ("full_range", "bool"): 0xB246A655,
    ("integers", "float32"): 0x9ED02338,
    ("integers", "float64"): 0x717A394F,
    ("integers", "float16"): 0x602E1D36,
    ("integers", "bfloat16"): 0x4B7C1DA2,
    ("integers", "int64"): 0xB6F98D61,
    ("integers", "int32"): 0x4149E028,
    ("integers", "int16"): 0x1797600B,
    ("integers", "int8"): 0x3C0AC2CC,
    ("integers", "uint8"): 0x96FC9EFF,
    ("bernoulli", "float32"): 0x6F411561,
    ("bernoulli", "float64"): 0x362C0089,
    ("bernoulli", "float16"): 0xB136BEAD,
    ("bernoulli", "bfloat16"): 0xA7E72C27,
    ("bernoulli", "int64"): 0xC36D9AD0,
    ("bernoulli", "int32"): 0x5C2C3DC9,
    ("bernoulli", "int16"): 0x75124906,
    ("bernoulli", "int8"): 0xF0FF5345,
    ("bernoulli", "bool"): 0x4EEFDAEB,
    ("exponential", "float32"): 0x8B3E6781,
    ("exponential", "float16"): 0x372AF46C,
    ("exponential", "bfloat16"): 0xEE329F24,
    ("geometric", "float32"): 0x35579427,
    ("geometric", "int64"): 0x58C6B153,
    ("cauchy", "float32"): 0x406A7EF0,
    ("cauchy", "float16"): 0xB341698D,
    ("cauchy", "bfloat16"): 0x97E5FEAD,
    ("log_normal", "float32"): 0x95A8AA34,
    ("log_normal", "float16"): 0x33CA2A88,
    ("log_normal", "bfloat16"): 0xB1CDE089,
}
GOLDEN_STATE = 0x64AB60B9


def generator(seed=0):
    return Generator().manual_seed(seed)


def test_the_whole_program_gives_the_recorded_bits():
    ours, found = generator(), {}
    for draw in PROGRAM:
        dtype = np.dtype(ml_dtypes.bfloat16 if draw.dtype == "bfloat16" else draw.dtype)
        result = getattr(ours, draw.sampler)(np.empty(draw.size, dtype), *draw.args)
        key = (draw.sampler, draw.dtype)
        found[key] = zlib.crc32(bits(result), found.get(key, 0))
    assert {key: found[key] for key in GOLDEN} == GOLDEN
    assert zlib.crc32(bits(ours.get_state()._array)) == GOLDEN_STATE


def test_numbers_that_people_know_by_sight():
    g = generator()
    uniform = g.uniform(np.empty(5, np.float32))
    assert [f"{x:.4f}" for x in uniform] == ["0.4963", "0.7682", "0.0885", "0.1320", "0.3074"]
    assert g.normal(np.empty(3, np.float32)).tolist() == [0.5507453083992004, 0.2703641355037689, 0.6472479701042175]
    block = g.normal(np.empty(16, np.float32))
    assert block[:3].tolist() == [0.5238832831382751, -0.6658713221549988, 0.8503773808479309]
    assert g.integers(np.empty(8, np.int64), 0, 10).tolist() == [0, 1, 2, 3, 0, 5, 5, 2]
    assert g.permutation(np.empty(8, np.int64)).tolist() == [7, 2, 6, 1, 0, 3, 4, 5]
    assert g.bernoulli(np.empty(10, np.float32), 0.5).tolist() == [1, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    assert g.multinomial(np.float32([1, 2, 3, 4]), 3).tolist() == [1, 0, 2]


@pytest.mark.parametrize("n", [0, 1, 3, 16, 1025, 9001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_compiled_and_numpy_text_give_the_same_bits(monkeypatch, dtype, n):
    if kernels.c_library("random") is None:
        pytest.skip("needs a C compiler, found none")

    def program():
        ours = generator(4)
        ours.normal(np.empty(5))  # a normal is kept
        p = (np.arange(n) % 7 / 6).astype(dtype)
        draws = [(name, args) for name, args in SAMPLERS for _ in range(2)]
        made = [bits(getattr(ours, name)(np.empty(n, dtype), *args)) for name, args in draws]
        made += [bits(ours.bernoulli(np.empty(n, dtype), p)), bits(ours.uniform(np.empty((n, 2), dtype).T))]
        return [*made, bits(ours.permutation(np.empty(n, np.int64))), bits(ours.get_state()._array)]

    with np.errstate(over="ignore"):  # of half types
        compiled = program()
        monkeypatch.setattr(kernels, "c_library", lambda name: None)
        assert program() == compiled


SAMPLERS: list[tuple[str, tuple[float, ...]]] = [
    ("uniform", ()), ("uniform", (-0.3, 1.9)), ("normal", (0.1, 0.3)), ("log_normal", (0.5, 0.7)),
    ("bernoulli", (0.3,)), ("exponential", (1.5,)), ("geometric", (0.3,)), ("cauchy", (1.0, 2.5)),
    ("full_range", ()), ("integers", (-7, 100)),
]  # fmt: skip


def test_uniform_numbers_of_a_range_near_the_largest_are_finite(monkeypatch):
    compiled = generator().uniform(np.empty(200), -1e307, 1.5e308)
    assert np.isfinite(compiled).all()
    monkeypatch.setattr(kernels, "c_library", lambda name: None)
    assert bits(generator().uniform(np.empty(200), -1e307, 1.5e308)) == bits(compiled)


def test_a_generator_whose_state_does_not_lie_as_known_is_numpys_alone(monkeypatch):
    expected = generator().normal(np.empty(100, np.float32))
    monkeypatch.setattr(stream, "_lie_as_known", lambda: False)
    ours = generator()
    assert ours.words is None
    assert bits(ours.normal(np.empty(100, np.float32))) == bits(expected)


def test_numpy_and_compiled_text_draw_from_one_state(monkeypatch):
    whole, ours = generator().uniform(np.empty(3000, np.float32)), generator()
    first = ours.uniform(np.empty(1001, np.float32))
    with monkeypatch.context() as without:
        without.setattr(kernels, "c_library", lambda name: None)
        second = ours.uniform(np.empty(1001, np.float32))
    assert bits(np.concatenate([first, second, ours.uniform(np.empty(998, np.float32))])) == bits(whole)


def test_permutations_too_long_for_32_bits_are_shuffled_inside_out(monkeypatch):
    monkeypatch.setattr(random, "_WIDE_PERMUTATION", 0)
    expected, words = [], generator(5).draws(140_000).tolist()
    for i, (high, low) in enumerate(zip(words[::2], words[1::2], strict=True)):
        expected.append(i)
        j = (high << 32 | low) % (i + 1)
        expected[i], expected[j] = expected[j], i
    assert generator(5).permutation(np.empty(70_000, np.int64)).tolist() == expected
    monkeypatch.setattr(kernels, "c_library", lambda name: None)
    assert generator(5).permutation(np.empty(70_000, np.int64)).tolist() == expected


def test_large_fills_equal_the_same_draws_in_small_pieces():
    whole = generator().uniform(np.empty(200_000, np.float32))
    g = generator()
    pieces = [g.uniform(np.empty(n, np.float32)) for n in (1, 65_535, 65_536, 65_537, 3391)]
    np.testing.assert_array_equal(whole, np.concatenate(pieces))


def test_state_restores_the_stream_and_the_kept_normal():
    g = generator(7)
    g.normal(np.empty(3))
    state = g.get_state()
    first = g.normal(np.empty(5)), g.uniform(np.empty(9))
    again = Generator().set_state(state)
    assert [bits(again.normal(np.empty(5))), bits(again.uniform(np.empty(9)))] == list(map(bits, first))
    assert again.initial_seed() == 7


def test_generators_can_be_copied_and_pickled():
    g = generator(7)
    g.normal(np.empty(3))
    for copy in (g.clone_state(), pickle.loads(pickle.dumps(g))):
        assert bits(copy.get_state()._array) == bits(g.get_state()._array)
        copy.uniform(np.empty(1))
        assert bits(copy.get_state()._array) != bits(g.get_state()._array)


def test_reseeding_forgets_the_kept_normal():
    g = generator(1)
    g.normal(np.empty(1))
    assert bits(g.manual_seed(1).normal(np.empty(2))) == bits(generator(1).normal(np.empty(2)))


@pytest.mark.parametrize("seed", [1.5, "a", True, None])
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(RuntimeError, match="manual_seed expected a long, but got"):
        generator().manual_seed(seed)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_beyond_64_bits_is_refused(seed):
    with pytest.raises(ValueError, match="Overflow when unpacking long long"):
        generator().manual_seed(seed)


def test_the_module_functions_are_those_of_the_default_generator():
    state = random.get_rng_state()
    try:
        assert random.manual_seed(-1) is random.default_generator
        assert random.initial_seed() == 2**64 - 1
        assert random.manual_seed(1.5).initial_seed() == 1
        assert random.seed() == random.initial_seed()
        assert random.seed() != random.seed()
    finally:
        random.set_rng_state(state)
    assert bits(random.get_rng_state()._array) == bits(state._array)


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        (np.zeros(10, np.uint8), RuntimeError, "of size 5056 but found the input RNG state size to be 10"),
        (np.zeros(5056, np.float32), TypeError, "must be a torch.ByteTensor"),
        (np.zeros(5056, np.uint8), RuntimeError, "Invalid mt19937 state"),
    ],
)
def test_a_state_that_is_none_is_refused(state, error, words):
    g = generator(3)
    with pytest.raises(error, match=words):
        g.set_state(wrap(state))
    assert bits(g.uniform(np.empty(3))) == bits(generator(3).uniform(np.empty(3)))


def test_unknown_devices_are_refused():
    with pytest.raises(
        RuntimeError, match="Expected one of cpu, cuda, meta device type at start of device string: foo"
    ):
        Generator("foo")


def test_threads_share_a_generator_without_losing_or_doubling_a_draw():
    g = generator(0)
    parts = []

    def draw():
        for _ in range(200):
            parts.append(g.uniform(np.empty(7, np.float32)))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    expected = generator(0).uniform(np.empty(7 * len(parts), np.float32)).reshape(-1, 7)
    assert sorted(map(bits, parts)) == sorted(map(bits, expected))


@pytest.mark.parametrize(
    ("weights", "count", "words"),
    [
        ([0.5, 0.5], 3, "without replacement: 3 samples of 2"),
        ([0.0, 0.0], 1, "sum of probabilities <= 0"),
        ([-1.0, 1.0], 1, "element < 0"),
        ([np.nan, 1.0], 1, "element < 0"),
        ([np.inf, 1.0], 1, "element < 0"),
        ([1.0], 0, "n_sample <= 0"),
        ([[[1.0]]], 1, "prob_dist must be 1 or 2 dim"),
    ],
)
def test_multinomial_refuses_what_is_no_distribution(weights, count, words):
    with pytest.raises(RuntimeError, match=words):
        generator().multinomial(np.array(weights, np.float32), count)


def test_multinomial_never_draws_what_has_weight_zero():
    weights = np.float32([0, 1, 0, 2, 0])
    for replacement in (False, True):
        drawn = generator().multinomial(np.tile(weights, (2000, 1)), 2, replacement)
        assert set(drawn.ravel().tolist()) == {1, 3}


def test_the_upper_end_of_a_range_is_excluded_after_rounding_too():
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32):
        x = generator().uniform(np.empty(100_000, dtype), 1.0, 1.01)
        assert x.max() < np.asarray(1.01).astype(dtype)
