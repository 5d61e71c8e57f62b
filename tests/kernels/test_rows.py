"""Kernels over rows and over elements: float32 against the NumPy text in double precision."""

import math

import numpy as np
import pytest

from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.kernels.threads import get_num_threads, set_num_threads

# Kernels do not quieten NumPy themselves: whoever calls them has done so (quiet.py).
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

rng = np.random.default_rng(1)
SHAPES = [(1, 1), (3, 7), (5, 1000), (2, 3, 65), (300, 128), (0, 4)]


def rows(name, **attrs):
    """What a record does on a CPU with rows along the last dimension: its C kernel on float32, else its NumPy text."""
    return lambda *xs, **more: REGISTRY[name].cpu(*xs, **{**attrs, **more})


softmax, softmax_backward = rows("softmax", dim=-1), rows("softmax_backward", dim=-1, needs=(True,))
log_softmax = rows("log_softmax", dim=-1)
log_softmax_backward = rows("log_softmax_backward", dim=-1, needs=(True,))
layer_norm = rows("layer_norm", dims=1, eps=1e-5)
layer_norm_backward = rows("layer_norm_backward", dims=1, eps=1e-5, needs=(True, True, True))
rms_norm = rows("rms_norm", dims=1, eps=1e-5)
rms_norm_backward = rows("rms_norm_backward", dims=1, eps=1e-5, needs=(True, True))


def gelu(x, approximate="none"):
    return REGISTRY["gelu" if approximate == "none" else "gelu_tanh"].cpu(x)


def gelu_backward(g, x, approximate):
    return REGISTRY["gelu_backward" if approximate == "none" else "gelu_tanh_backward"].cpu(g, x, needs=(True,))


def cross_entropy(x, target, weight=None, reduction="mean", ignore_index=-100, label_smoothing=0.0):
    attrs = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return REGISTRY["cross_entropy"].cpu(x, target, weight, **attrs)


def cross_entropy_backward(g, x, target, stats, weight=None, **options):
    attrs = {"reduction": "mean", "ignore_index": -100, "label_smoothing": 0.0, "needs": (True, False, False)} | options
    return REGISTRY["cross_entropy_backward"].cpu(g, x, target, weight, stats, **attrs)[0]


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def agree(single, double, tolerance=2e-5):
    for x, y in zip(single, double, strict=True):
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * max(1.0, np.abs(y).max(initial=0)))


def doubles(*arrays):
    return [x if x is None or x.dtype != np.float32 else x.astype(np.float64) for x in arrays]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", ["w and b", "w", "none"])
def test_layer_norm(shape, affine):
    x, g, n = normal(*shape) * 3 + 1, normal(*shape), shape[-1]
    w, b = (None if affine == "none" else normal(n)), (normal(n) if affine == "w and b" else None)
    single, double = layer_norm(x, w, b), layer_norm(*doubles(x, w, b))
    agree(single, double, 1e-4)
    agree(layer_norm_backward(g, x, w, *single[1:]), layer_norm_backward(*doubles(g, x, w), *double[1:]), 1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [True, False])
def test_rms_norm(shape, weighted):
    x, g, w = normal(*shape) * 3 + 1, normal(*shape), normal(shape[-1]) if weighted else None
    single, double = rms_norm(x, w), rms_norm(*doubles(x, w))
    agree(single, double, 1e-4)
    agree(rms_norm_backward(g, x, w, single[1]), rms_norm_backward(*doubles(g, x, w), double[1]), 1e-4)


@pytest.mark.parametrize("shape", [*SHAPES, (4, 0)])
def test_softmax_and_log_softmax(shape):
    x, g = normal(*shape) * 10, normal(*shape)
    for forward, backward in ((softmax, softmax_backward), (log_softmax, log_softmax_backward)):
        y = forward(x)
        agree([y], [forward(x.astype(float))])
        agree([backward(g, y)], [backward(g.astype(float), y.astype(float))])


def test_softmax_of_infinities_and_nan():
    x = np.array([[0, -np.inf, 1], [-np.inf] * 3, [np.inf, 0, 0], [np.nan, 0, 0]], np.float32)
    y = softmax(x)
    np.testing.assert_allclose(y[0], [1 / (1 + math.e), 0, math.e / (1 + math.e)], rtol=1e-6)
    assert np.isnan(y[1:]).all()
    assert np.isneginf(log_softmax(x)[0, 1])


CASES = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "smoothed": {"label_smoothing": 0.1},
    "ignored": {"ignore_index": 3, "reduction": "mean"},
    "weighted": {"weight": normal(11) ** 2},
    "everything": {"weight": normal(11) ** 2, "label_smoothing": 0.2, "ignore_index": 0, "reduction": "none"},
}


@pytest.mark.parametrize("case", CASES)
def test_cross_entropy(case):
    options = CASES[case]
    x, target = normal(200, 11) * 5, rng.integers(0, 11, 200)
    in_double = {key: value.astype(float) if key == "weight" else value for key, value in options.items()}
    loss, stats = cross_entropy(x, target, **options)
    expected, expected_stats = cross_entropy(x.astype(float), target, **in_double)
    agree([np.asarray(loss)], [expected])
    g = np.asarray(rng.standard_normal(np.shape(loss)), np.float32)
    single = cross_entropy_backward(g, x, target, stats, **options)
    double = cross_entropy_backward(g.astype(float), x.astype(float), target, expected_stats, **in_double)
    agree([single], [double])


def test_cross_entropy_gradient_is_its_derivative():
    x, target = rng.standard_normal((3, 4)), np.array([1, 3, 0])
    _, stats = cross_entropy(x, target, label_smoothing=0.1)
    gradient = cross_entropy_backward(np.ones(()), x, target, stats, label_smoothing=0.1)
    for at in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[at] = 1e-6
        up, down = (cross_entropy(x + sign * step, target, label_smoothing=0.1)[0] for sign in (1, -1))
        assert gradient[at] == pytest.approx((up - down) / 2e-6, abs=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wrong", [11, -1])
def test_class_that_does_not_exist_is_refused(dtype, wrong):
    with pytest.raises(IndexError, match=f"Target {wrong} is out of bounds"):
        cross_entropy(np.zeros((3, 11), dtype), np.array([0, wrong, 1]))


def test_loss_over_no_rows_is_nan_as_in_pytorch():
    assert np.isnan(cross_entropy(np.zeros((2, 3), np.float32), np.full(2, -100))[0])


def ulps(y, exact):
    finite = np.isfinite(exact) & (np.abs(exact) < np.finfo(np.float32).max)
    return (np.abs(y.astype(float) - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(float))[finite].max()


RANGE = np.concatenate([np.linspace(-104, 88.7, 200_000), np.linspace(-9, 9, 200_000), rng.standard_normal(50_000)])


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid"])
def test_large_arrays_are_right_to_a_few_last_digits(name):
    x = (RANGE if name == "exp" else RANGE[np.abs(RANGE) < 87]).astype(np.float32)
    exact = {"exp": np.exp, "tanh": np.tanh, "sigmoid": lambda v: 1 / (1 + np.exp(-v))}[name](x.astype(float))
    assert ulps(REGISTRY[name].cpu(x), exact) <= 3


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_the_gradient_of_gelu_far_out_is_one_or_none(approximate):
    x = np.array([10.0, 14.0, 50.0, 1e4, 1e12], np.float32)
    far = x if approximate == "tanh" else np.append(x, np.float32([1e20, 1e38, 3e38]))
    for sign, want in ((1, 1.0), (-1, 0.0)):
        got = gelu_backward(np.ones_like(far), sign * far, approximate)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_gelu_is_right_to_its_last_digits():
    x = RANGE[np.abs(RANGE) < 12].astype(np.float32)
    exact = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.astype(float)])
    error = np.abs(gelu(x) - exact) / np.maximum(1, np.abs(exact))
    assert error.max() <= 2e-7


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_and_its_gradient(approximate):
    x, g = np.concatenate([normal(3000) * 3, [0, 30, -30, 1e4, -1e4]]).astype(np.float32), normal(3005)
    agree([gelu(x, approximate)], [gelu(x.astype(float), approximate)], 1e-6)
    single = gelu_backward(g, x, approximate)
    agree([single], [gelu_backward(g.astype(float), x.astype(float), approximate)], 2e-6)


SPECIAL = {
    "exp": [np.nan, np.inf, 0, 1, np.inf, 0],
    "tanh": [np.nan, 1, -1, 0, 1, -1],
    "sigmoid": [np.nan, 1, 0, 0.5, 1, 0],
    "silu": [np.nan, np.inf, np.nan, 0, 1e30, 0],
    "relu": [np.nan, np.inf, 0, 0, 1e30, 0],
    "erf": [np.nan, 1, -1, 0, 1, -1],
}


@pytest.mark.parametrize("name", SPECIAL)
def test_nan_and_infinity_pass_through_functions(name):
    x = np.array([np.nan, np.inf, -np.inf, 0, 1e30, -1e30] * 5000, np.float32)
    np.testing.assert_array_equal(REGISTRY[name].cpu(x)[:6], np.array(SPECIAL[name], np.float32))


def test_relu_gradient_at_zero_is_zero():
    x = np.tile(np.array([-1, 0, 2], np.float32), 10_000)
    np.testing.assert_array_equal(
        REGISTRY["relu_backward"].cpu(np.ones_like(x), REGISTRY["relu"].cpu(x), needs=(True,))[:3], [0, 0, 1]
    )


def test_bits_depend_neither_on_alignment_nor_on_threads():
    """A sum whose vector loop starts at an aligned address would round differently for a shifted copy."""
    x, g, w = normal(700, 129), normal(700, 129), normal(129)
    before, results = get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            for offset in (0, 1, 3, 7):
                moved = [np.empty(a.size + offset, np.float32)[offset:].reshape(a.shape) for a in (x, g, w)]
                for to, a in zip(moved, (x, g, w), strict=True):
                    to[...] = a
                mx, mg, mw = moved
                y, mean, rstd = layer_norm(mx, mw, None)
                p = softmax(mx)
                arrays = (
                    y,
                    *layer_norm_backward(mg, mx, mw, mean, rstd),
                    p,
                    softmax_backward(mg, p),
                    gelu(mx),
                )
                results.add(tuple(a.tobytes() for a in arrays))
    finally:
        set_num_threads(before)
    assert len(results) == 1


def test_strided_input_is_taken_as_it_is():
    x = normal(40, 60)[::2, ::3]
    agree([softmax(x)], [softmax(x.astype(float))])
    agree([gelu(x)], [gelu(x.astype(float))], 1e-6)
    agree(layer_norm(x, None, None), layer_norm(x.astype(float), None, None), 1e-4)


@pytest.mark.parametrize("offset", [-1e4, -200.0, 0.0, 200.0, 1e4])
def test_softmax_of_rows_far_from_zero(offset):
    x = rng.standard_normal((5, 33)).astype(np.float32)
    shifted = x + np.float32(offset)
    exact = (shifted - shifted.max(-1, keepdims=True)).astype(float)
    sums = np.exp(exact).sum(-1, keepdims=True)
    np.testing.assert_allclose(softmax(shifted), np.exp(exact) / sums, rtol=1e-5)
    np.testing.assert_allclose(log_softmax(shifted), exact - np.log(sums), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("smoothing", [-1.0, -0.3, 0.1, 1.5])
def test_smoothing_is_one_formula_in_c_and_numpy(smoothing):
    """The function takes 0 to 1; for a record's other numbers C left half of the formula out, NumPy all but half."""
    op = REGISTRY["cross_entropy"]
    x, target = np.random.default_rng(0).standard_normal((4, 3)).astype("f"), np.array([2, 0, 2, 1])
    attrs = {"reduction": "sum", "ignore_index": 0, "label_smoothing": smoothing}
    by_c, by_numpy = (run(x, target, None, **attrs) for run in (op.cpu, op.numpy))
    np.testing.assert_allclose(by_c[0], by_numpy[0], rtol=1e-5)
    needs = (True, False, False)
    given = [np.float32(1.0).reshape(()), x, target, None, np.asarray(by_c[1])]
    back = op.backward
    np.testing.assert_allclose(*(run(*given, **attrs, needs=needs)[0] for run in (back.cpu, back.numpy)), rtol=1e-4)
