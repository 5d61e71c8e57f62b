"""The .cu kernels against NumPy: every dtype, sizes around a warp and a block, on the machines of `machines`."""

from itertools import chain

import ml_dtypes
import numpy as np
import pytest

from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.kernels import class_loss, cuda_kernels, norm, optim, softmax
from tests.cuda.machines import MACHINES, using

rng = np.random.default_rng(5)
DTYPES = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "float16": 4e-3, "bfloat16": 3e-2}
SHAPES = [(3, 1), (2, 3, 31), (2, 33), (1, 1000), (2, 2100), (0, 4)]


@pytest.fixture(params=MACHINES)
def on(request):
    with using(request.param) as machine:
        yield machine


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def normal(dtype, *shape):
    return rng.standard_normal(shape).astype(DTYPES[dtype])


def agree(got, wanted, dtype):
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * max(1.0, np.abs(wanted).max(initial=0)))


def exact(*arrays):
    return [a if a is None else np.asarray(a, np.float64) for a in arrays]


@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_family(on, dtype, shape):
    x, g = normal(dtype, *shape), normal(dtype, *shape)
    for name in ("softmax", "log_softmax"):
        y = on.run(REGISTRY[name].cuda, x, dim=-1)
        assert y.dtype == x.dtype
        agree(y, getattr(softmax, name)(*exact(x), -1), dtype)
        dx = on.run(REGISTRY[f"{name}_backward"].cuda, g, y, dim=-1)
        agree(dx, getattr(softmax, f"{name}_backward")(*exact(g, y), -1), dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_reductions(on, dtype, shape):
    x = normal(dtype, *shape)
    agree(on.run(cuda_kernels.row_sum, x), exact(x)[0].sum(-1), dtype)
    agree(on.run(cuda_kernels.row_max, x), exact(x)[0].max(-1), dtype)


def test_nan_wins_in_a_maximum(on):
    x = normal("float32", 2, 100)
    x[0, 37] = np.nan
    assert np.isnan(on.run(cuda_kernels.row_max, x)).tolist() == [True, False]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(on, dtype, shape, affine):
    x, g, n = normal(dtype, *shape), normal(dtype, *shape), shape[-1]
    w, b = (normal(dtype, n), normal(dtype, n)) if affine else (None, None)
    y, mean, rstd = on.run(cuda_kernels.layer_norm, x, w, b, 1, 1e-3)
    expected = norm.layer_norm(*exact(x, w, b), 1, 1e-3)
    agree(y, expected[0], dtype)
    statistics = "float64" if dtype == "float64" else "float32"
    agree(mean, expected[1].reshape(mean.shape), statistics)
    agree(rstd, expected[2].reshape(rstd.shape), statistics)
    all_of_them = (True, True, True)
    gradients = on.run(cuda_kernels.layer_norm_backward, g, x, w, mean, rstd, 1, 1e-3, all_of_them)
    for got, wanted in zip(
        gradients, norm.layer_norm_backward(*exact(g, x, w), *expected[1:], 1, 1e-3, all_of_them), strict=True
    ):
        agree(got, wanted, dtype)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "ignore_index": 2}])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_cross_entropy(on, dtype, options, weighted, reduction):
    options = {"reduction": reduction, "ignore_index": -100, "label_smoothing": 0.0} | options
    x, target = normal(dtype, 3, 70, 3), rng.integers(0, 70, (3, 3))
    target[0] = 2
    w = np.abs(normal(dtype, 70)) if weighted else None
    loss, stats = on.run(cuda_kernels.cross_entropy, x, target, w, **options)
    assert loss.dtype == x.dtype
    double_x, double_w = exact(x, w)
    expected, expected_stats = class_loss.cross_entropy(double_x, target, double_w, **options)
    agree(loss, expected, dtype)
    g = normal(dtype, *np.shape(expected))
    (dx,) = on.run(cuda_kernels.cross_entropy_backward, g, x, target, w, stats, **options)
    (wanted,) = class_loss.cross_entropy_backward(*exact(g), double_x, target, double_w, expected_stats, **options)
    agree(dx, wanted, dtype)


def test_class_that_does_not_exist_gives_nan(on):
    losses, _ = on.run(
        cuda_kernels.cross_entropy, normal("float32", 3, 5), np.array([0, 5, -1]), None, "none", -100, 0.0
    )
    assert np.isnan(losses).tolist() == [False, True, True]


def adam_state(make):
    """Parameters, counters, two running means and gradients for arrays of several sizes, one of them empty."""
    generator = np.random.default_rng(6)
    arrays = [generator.standard_normal(shape).astype(np.float32) for shape in [(3,), (0,), (40, 30), (1,)] * 2]
    zeros = [[np.zeros_like(a) for a in arrays[:4]] for _ in range(2)]
    counters = [np.array(n, np.float32) for n in (0, 0, 0, 3)]
    return [[make(a) for a in group] for group in (arrays[:4], counters, *zeros, arrays[4:])]


@pytest.mark.parametrize("decoupled", [True, False])
def test_adam(on, decoupled):
    options = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "decoupled": decoupled}
    ours, reference = adam_state(on.put), adam_state(lambda a: a.astype(np.float64))
    options["maximize"] = False
    for _ in range(2):
        cuda_kernels.adam(*ours, **options)
        for row in zip(*reference, strict=True):
            optim.adam(*row, **options)
    for got, wanted in zip(chain(*ours), chain(*reference), strict=True):
        agree(on.get(got), wanted, "float32")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [1e-12, 100.0])
def test_normalize(on, dtype, shape, eps):
    x, g = normal(dtype, *shape), normal(dtype, *shape)
    y = on.run(REGISTRY["normalize"].cuda, x, eps=eps)
    assert y.dtype == x.dtype
    agree(y, REGISTRY["normalize"].numpy(*exact(x), eps=eps), dtype)
    dx = on.run(REGISTRY["normalize_backward"].cuda, g, x, eps=eps)
    agree(dx, REGISTRY["normalize_backward"].numpy(*exact(g, x), eps=eps, needs=(True,)), dtype)
