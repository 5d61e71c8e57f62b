"""Convolution, pooling and batch norm: float32 against the NumPy text in double precision, in both memory orders."""

import numpy as np
import pytest

from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.kernels.threads import get_num_threads, set_num_threads

rng = np.random.default_rng(4)
MAX = ("kernel", "stride", "padding", "dilation", "ceil_mode")
WINDOW = ("stride", "padding", "dilation", "groups")
MEAN = ("kernel", "stride", "padding", "ceil_mode", "count_include_pad", "divisor")


def attributes(how):
    return dict(zip(WINDOW, how or ((1, 1), (0, 0), (1, 1), 1), strict=True))


def conv2d(x, w, b=None, *how):
    return REGISTRY["conv2d"].cpu(x, w, b, **attributes(how))


def conv2d_backward(g, x, w, *how):
    return REGISTRY["conv2d_backward"].cpu(g, x, w, **attributes(how), needs=(True, True, True))


def conv2d_input_gradient(g, w, shape, *how):
    return REGISTRY["conv2d_input_gradient"].cpu(g, w, input_shape=shape, **attributes(how))


def conv2d_weight_gradient(g, x, shape, *how):
    return REGISTRY["conv2d_weight_gradient"].cpu(g, x, weight_shape=shape, **attributes(how))


def max_pool2d(x, *how):
    return REGISTRY["max_pool2d"].cpu(x, **dict(zip(MAX, how, strict=True)))


def max_pool2d_backward(g, index, shape, *how):
    attrs = dict(zip(MAX, how, strict=True))
    return REGISTRY["max_pool2d_backward"].cpu(g, index, x_shape=shape, needs=(True,), **attrs)


def avg_pool2d(x, *how):
    return REGISTRY["avg_pool2d"].cpu(x, **dict(zip(MEAN, how, strict=True)))


def avg_pool2d_backward(g, shape, *how):
    attrs = dict(zip(MEAN, how, strict=True))
    return REGISTRY["avg_pool2d_backward"].cpu(g, x_shape=shape, needs=(True,), **attrs)


def image(n, c, h, w, last=False):
    x = rng.standard_normal((n, h, w, c)).astype(np.float32).transpose(0, 3, 1, 2)
    return x if last else np.ascontiguousarray(x)


def agree(single, double, tolerance=1e-5):
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=tolerance, atol=tolerance * max(1.0, np.abs(double).max(initial=0)))


CONVOLUTIONS = {  # n, c, h, w, k, (kh, kw), stride, padding, dilation, groups
    "3x3": (2, 3, 8, 8, 5, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    "strided, channels beyond one block": (2, 16, 9, 7, 33, (3, 3), (2, 2), (1, 1), (1, 1), 1),
    "dilated, uneven": (3, 8, 12, 11, 24, (3, 2), (1, 2), (0, 1), (2, 1), 1),
    "groups": (2, 12, 10, 10, 18, (3, 3), (1, 1), (1, 1), (1, 1), 3),
    "depthwise, strided": (2, 12, 10, 10, 12, (3, 3), (2, 1), (1, 1), (1, 1), 12),
    "one input channel": (4, 1, 28, 28, 32, (3, 3), (1, 1), (0, 0), (1, 1), 1),
    "1x1": (3, 64, 5, 5, 100, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    "1x1, strided": (2, 10, 6, 6, 7, (1, 1), (2, 2), (0, 0), (1, 1), 1),
    "rows in several tasks": (1, 3, 40, 300, 16, (7, 7), (2, 2), (3, 3), (1, 1), 1),
    "more padding than kernel": (2, 4, 6, 6, 3, (3, 3), (1, 1), (4, 4), (1, 1), 1),
    "kernel as large as the image": (5, 4, 6, 6, 3, (6, 6), (1, 1), (0, 0), (1, 1), 1),
    "no images": (0, 4, 6, 6, 3, (3, 3), (1, 1), (0, 0), (1, 1), 1),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("last", [False, True])
def test_convolution_and_its_gradients(name, last):
    n, c, h, w, k, kernel, *how, groups = CONVOLUTIONS[name]
    x, weight, b = image(n, c, h, w, last), image(k, c // groups, *kernel), rng.standard_normal(k).astype(np.float32)
    double = [a.astype(np.float64) for a in (x, weight, b)]
    y, expected = conv2d(x, weight, b, *how, groups), conv2d(*double, *how, groups)
    agree(y, expected)
    g = image(*y.shape, last)
    gradients = conv2d_backward(g, x, weight, *how, groups)
    for got, wanted in zip(gradients, conv2d_backward(g.astype(float), *double[:2], *how, groups), strict=True):
        agree(got, wanted)
    np.testing.assert_array_equal(conv2d_input_gradient(g, weight, x.shape, *how, groups), gradients[0])
    np.testing.assert_array_equal(conv2d_weight_gradient(g, x, weight.shape, *how, groups), gradients[1])


def test_convolution_gradient_is_its_derivative():
    x, w, how = rng.standard_normal((1, 2, 4, 5)), rng.standard_normal((3, 2, 2, 3)), ((2, 1), (1, 0), (1, 2), 1)
    g = rng.standard_normal(conv2d(x, w, None, *how).shape)
    dx, dw, db = conv2d_backward(g, x, w, *how)
    direction_x, direction_w = rng.standard_normal(x.shape), rng.standard_normal(w.shape)
    up = (conv2d(x + 1e-6 * direction_x, w, None, *how) * g).sum() - (conv2d(x, w, None, *how) * g).sum()
    assert up / 1e-6 == pytest.approx((dx * direction_x).sum(), rel=1e-4)
    assert (conv2d(x, direction_w, None, *how) * g).sum() == pytest.approx((dw * direction_w).sum())
    np.testing.assert_allclose(db, g.sum((0, 2, 3)))


def test_chain_of_convolutions_stays_in_channels_last_memory():
    y = conv2d(image(2, 3, 8, 8), image(4, 3, 3, 3))
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    assert max_pool2d(y, (2, 2), (2, 2), (0, 0), (1, 1), False)[0].transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("size", [4, 40])
def test_activations_keep_the_memory_order_of_images(size):
    x, g = image(2, 5, size, size, last=True), image(2, 5, size, size, last=True)

    def results(x, g):
        forward = [REGISTRY[name].cpu(x) for name in ("relu", "gelu", "exp")]
        return forward + [REGISTRY[name].cpu(g, x, needs=(True,)) for name in ("relu_backward", "gelu_backward")]

    expected = results(*[np.ascontiguousarray(a) for a in (x, g)])
    for got, wanted in zip(results(x, g), expected, strict=True):
        assert got.transpose(0, 2, 3, 1).flags.c_contiguous
        np.testing.assert_array_equal(got, wanted)


def test_operands_that_lie_otherwise_give_the_same_bits():
    x, g = (rng.standard_normal((4, 5, 6)).astype(np.float32) for _ in range(2))
    backward = REGISTRY["silu_backward"].cpu
    expected = backward(g, x, needs=(True,))
    for order in ((2, 0, 1), (1, 0, 2), (2, 1, 0)):
        turned = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
        np.testing.assert_array_equal(backward(g, turned, needs=(True,)), expected)
        alike = np.ascontiguousarray(g.transpose(order)).transpose(np.argsort(order))
        made = backward(alike, turned, needs=(True,))
        np.testing.assert_array_equal(made, expected)
        assert made.strides == turned.strides
        np.testing.assert_array_equal(backward(g[::2, ::-1], turned[::2, ::-1], needs=(True,)), expected[::2, ::-1])
    np.testing.assert_allclose(
        backward(g[:1], x, needs=(True,)), backward(np.repeat(g[:1], 4, 0), x, needs=(True,)), 1e-5, 1e-7
    )


def test_convolution_bits_do_not_depend_on_threads():
    x, w = image(6, 20, 13, 13), image(40, 20, 3, 3)
    before, results = get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            y = conv2d(x, w)
            mean, var = REGISTRY["batch_norm_moments"].cpu(y)
            results.add(tuple(a.tobytes() for a in (y, *conv2d_backward(y, x, w), mean, var)))
    finally:
        set_num_threads(before)
    assert len(results) == 1


POOLS = {  # h, w, kernel, stride, padding, dilation, ceil_mode
    "2x2": (8, 8, (2, 2), (2, 2), (0, 0), (1, 1), False),
    "uneven, ceil": (9, 11, (3, 2), (2, 3), (1, 1), (1, 1), True),
    "overlapping, dilated": (12, 7, (3, 3), (1, 1), (1, 1), (2, 2), False),
    "last window starts in the padding": (5, 5, (2, 2), (2, 2), (1, 1), (1, 1), True),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("c", [1, 19])
def test_max_pool_with_ties(name, c):
    h, w, *how = POOLS[name]
    x = np.round(image(3, c, h, w) * 2)  # many equal elements: the first one wins
    y, index = max_pool2d(x, *how)
    expected, expected_index = max_pool2d(x.astype(float), *how)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_array_equal(
        np.take_along_axis(x.reshape(3, c, -1), index.reshape(3, c, -1), 2), y.reshape(3, c, -1)
    )
    g = image(*y.shape)
    agree(max_pool2d_backward(g, index, x.shape, *how), max_pool2d_backward(g.astype(float), index, x.shape, *how))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_wins_in_max_pool(dtype):
    x = np.ones((1, 1, 2, 2), dtype)
    x[0, 0, 0, 1] = np.nan
    assert np.isnan(max_pool2d(x, *POOLS["2x2"][2:])[0]).all()


@pytest.mark.parametrize("name", [name for name, how in POOLS.items() if how[5] == (1, 1)])
@pytest.mark.parametrize("counting", [(True, None), (False, None), (True, 5)])
def test_average_pool(name, counting):
    h, w, kernel, stride, padding, _, ceil_mode = POOLS[name]
    x, how = image(3, 7, h, w), (kernel, stride, padding, ceil_mode, *counting)
    y = avg_pool2d(x, *how)
    agree(y, avg_pool2d(x.astype(float), *how))
    g = image(*y.shape)
    dx = avg_pool2d_backward(g, x.shape, *how)
    agree(dx, avg_pool2d_backward(g.astype(float), x.shape, *how))
    assert (g * y).sum() == pytest.approx((dx * x).sum(), rel=1e-3)  # a linear map and its transpose


@pytest.mark.parametrize("shape", [(50, 7), (4, 16, 9, 9), (1000, 64)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape, training):
    x, g = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    x = x * 3 + 10
    w, b = (rng.standard_normal(shape[1]).astype(np.float32) for _ in range(2))
    results = []
    for dtype in (np.float32, np.float64):
        xd, gd, wd, bd = (a.astype(dtype) for a in (x, g, w, b))
        mean, var = REGISTRY["batch_norm_moments"].cpu(xd)
        how = {"training": training, "eps": 1e-5}
        norm, backward = REGISTRY["batch_norm"].cpu, REGISTRY["batch_norm_backward"].cpu
        needed = backward(gd, xd, wd, mean, var, **how, needs=(True, True, True, False, False))
        (only_dw,) = backward(gd, xd, wd, mean, var, **how, needs=(False, True, False, False, False))
        np.testing.assert_array_equal(only_dw, needed[1])
        results.append(
            [mean, var, norm(xd, wd, bd, mean, var, **how), norm(xd, None, None, mean, var, **how), *needed]
        )  # fmt: skip
    for got, wanted in zip(*results, strict=True):
        agree(got, wanted, 1e-4)
