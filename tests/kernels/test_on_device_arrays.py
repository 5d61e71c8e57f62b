"""The NumPy text of kernels runs on arrays that are not NumPy's: larger ones than the samples of the registry."""

import numpy as np
import pytest

from rushlight_tensor.kernels import attention, batch_norm, blas, conv, linear, norm, optim, pool
from tests.cuda.machines import ONE_OF_EACH, using

rng = np.random.default_rng(8)


@pytest.fixture(params=ONE_OF_EACH)
def machine(request):
    with using(request.param) as machine:
        yield machine


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def compare(machine, function, *arrays, **options):
    """The same call on NumPy's arrays and on the device's."""
    expected = function(*arrays, **options)
    got = machine.run(function, *arrays, **options)
    pairs = zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]
    for there, here in pairs:
        if here is not None:
            assert there.dtype == here.dtype
            np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-4)
    return expected


def test_products(machine):
    compare(machine, blas.matmul, normal(100, 90), normal(90, 80))
    compare(machine, blas.matmul, normal(20_001), normal(20_001))
    compare(machine, linear.linear, normal(3, 50, 70), normal(60, 70), normal(60))
    needs = (True, True, True)
    compare(machine, linear.linear_backward, normal(3, 50, 60), normal(3, 50, 70), normal(60, 70), needs=needs)


@pytest.mark.parametrize("causal", [True, False])
def test_attention(machine, causal):
    q, k, v, g = (normal(2, 3, 20, 8) for _ in range(4))
    how = {"is_causal": causal, "scale": 0.3}
    compare(machine, lambda *a: attention.attention(*a, None, **how)[0], q, k, v)
    compare(
        machine,
        lambda g, *a: attention.attention_backward(
            g, *a, None, attention.attention(*a, None, **how)[1], needs=(True, True, True, False), **how
        ),
        g,
        q,
        k,
        v,
    )


@pytest.mark.parametrize(("stride", "groups"), [((1, 1), 1), ((2, 1), 2)])
def test_convolution(machine, stride, groups):
    x, w, b = normal(2, 4, 9, 8), normal(6, 4 // groups, 3, 3), normal(6)
    y = compare(machine, conv.conv2d, x, w, b, stride, (1, 1), (1, 1), groups)
    how = {"stride": stride, "padding": (1, 1), "dilation": (1, 1), "groups": groups}
    compare(machine, conv.conv2d_backward, normal(*y.shape), x, w, needs=(True, True, True), **how)


@pytest.mark.parametrize("how", [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1))])
def test_pools(machine, how):
    x = normal(2, 3, 8, 8)
    y, index = compare(machine, pool.max_pool2d, x, *how, (1, 1), False)
    compare(machine, pool.max_pool2d_backward, normal(*y.shape), index, x.shape)
    compare(machine, pool.avg_pool2d, x, *how, False, True, None)
    compare(machine, pool.avg_pool2d_backward, normal(*y.shape), x.shape, *how, False, True, None)


def test_batch_norm(machine):
    x, g, w, b = normal(4, 5, 6, 6), normal(4, 5, 6, 6), normal(5), normal(5)
    mean, var = compare(machine, batch_norm.moments, x)
    compare(machine, batch_norm.batch_norm, x, w, b, mean, var, True, 1e-5)
    needs = (True, True, True, False, False)
    compare(machine, batch_norm.batch_norm_backward, g, x, w, mean, var, True, 1e-5, needs)


def test_rms_norm(machine):
    x, w = normal(5, 40), normal(40)
    _, rstd = compare(machine, norm.rms_norm, x, w, 1, 1e-6)
    compare(machine, norm.rms_norm_backward, normal(5, 40), x, w, rstd, 1, 1e-6, (True, True))


def test_sgd_and_the_gradient_norm(machine):
    params, grads = [normal(4, 3), normal(7)], [normal(4, 3), normal(7)]
    there = [[machine.put(a) for a in arrays] for arrays in (params, grads)]
    norm_there = optim.total_norm(*there[1], norm_type=2.0)
    assert float(machine.get(norm_there)) == pytest.approx(float(optim.total_norm(*grads, norm_type=2.0)), rel=1e-5)
    options = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.1, "nesterov": False}
    for some in (there, (params, grads)):
        optim.scale_all(*some[1], machine.put(np.array(0.5, np.float32)) if some is there else np.array(0.5))
        for p, g in zip(*some, strict=True):
            optim.sgd(p, g, first=False, maximize=False, **options)
    for got, wanted in zip(there[0], params, strict=True):
        np.testing.assert_allclose(machine.get(got), wanted, rtol=1e-5)
