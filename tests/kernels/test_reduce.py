"""Kernels of reductions: the dimensions that they know, the accuracy of sums, NaN, ties, pieces, threads."""

import itertools
import math

import numpy as np
import pytest

import rushlight as rl
from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.kernels.compile import find_compiler
from rushlight_tensor.kernels.reduce import levels

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler, or RUSHLIGHT_CC=none")
SHAPES = [(8, 8), (3, 4, 5, 6), (2, 1, 3), (1,), (), (70, 3, 65), (1000, 130), (3, 70001), (70001, 3), (5, 40000, 2)]


def cases():
    for shape in SHAPES:
        for count in range(len(shape) + 1):
            yield from [(shape, over) for over in itertools.combinations(range(len(shape)), count)]


@pytest.mark.parametrize(("shape", "over"), [*cases()])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reductions_over_all_choices_of_dimensions(shape, over, dtype):
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)  # whole numbers: sums are exact
    for name, find in {"sum": np.sum, "amax": np.max, "amin": np.min}.items():
        got = REGISTRY[name].cpu(x, dim=over if over else None, keepdim=False)
        want = find(x, axis=over or None)
        assert got.dtype == x.dtype
        assert np.array_equal(got, want), name
    if len(over) == 1:
        for name, find in {"max_dim": np.argmax, "min_dim": np.argmin}.items():
            values, indices = REGISTRY[name].cpu(x, dim=over[0], keepdim=False)
            assert np.array_equal(indices, find(x, over[0])), name  # the first of equal ones
            assert np.array_equal(values, (np.max if name == "max_dim" else np.min)(x, over[0]))


@needs_compiler
@pytest.mark.parametrize(("shape", "over"), [((25, 70001), 1), ((999, 301), 1), ((301, 999), 0), ((70001, 25), 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_are_no_less_accurate_than_pairwise_ones(shape, over, dtype):
    x = np.random.default_rng(1).random(shape).astype(dtype)
    got = np.atleast_1d(REGISTRY["sum"].cpu(x, dim=over, keepdim=False))
    exact = [math.fsum(row) for row in np.moveaxis(x, over, -1).reshape(-1, x.shape[over]).tolist()]
    pairwise = np.atleast_1d(np.ascontiguousarray(np.moveaxis(x, over, -1)).sum(-1))
    assert np.abs(got - exact).mean() <= 1.05 * np.abs(pairwise - exact).mean()


@pytest.mark.parametrize("n", [1, 7, 8, 31, 64, 257, 40000])
@pytest.mark.parametrize("inner", [1, 3, 64, 100])
def test_a_nan_is_the_extreme_and_its_place_the_first_one(n, inner):
    for first in {0, n // 2, n - 1}:
        x = rl.zeros(2, n, inner)
        x[1, first:, inner - 1] = math.nan
        x[1, :first, 0] = math.inf
        for name in ("max", "min"):
            values, indices = getattr(x, name)(1)
            assert values.isnan().sum() == 1
            assert indices[1, inner - 1] == first
            assert getattr(x, name)().isnan()
            assert getattr(x, f"a{name}")(1).isnan().sum() == 1


@needs_compiler
@pytest.mark.parametrize("shape", [(1 << 17,), (3, 70001), (70001, 3), (40, 3, 999)])
def test_reductions_do_not_depend_on_threads(shape):
    x, before, found = rl.randn(shape), rl.get_num_threads(), []
    dims = (0, 2) if len(shape) == 3 else len(shape) - 1
    for threads in (1, 2):
        rl.set_num_threads(threads)
        found.append([x.sum().item(), x.mean(dims).tolist(), x.amax(dims).tolist(), x.argmin(0).tolist()])
    rl.set_num_threads(before)
    assert found[0] == found[1]


def test_dimensions_that_alternate_too_often_are_none():
    assert levels((2, 3, 4, 5), (0, 2)) == {"before": 2, "outer": 3, "n": 4, "inner": 5}
    assert levels((2, 3, 4, 5), (1, 3)) is None
    assert levels((2, 1, 4, 5), (0, 2)) == {"before": 1, "outer": 1, "n": 8, "inner": 5}
    assert levels((0, 3), ()) == {"before": 1, "outer": 1, "n": 1, "inner": 0}
