"""The NumPy text of kernels runs on arrays that are not NumPy's: a strict stand-in for CuPy's.

CuPy takes over NumPy's functions by the array protocols, and refuses to mix its arrays with NumPy's.
"""

import numpy as np
import pytest

from rushlight_tensor.kernels import attention, batch_norm, blas, conv, linear, norm, optim, pool, softmax

rng = np.random.default_rng(8)


class OnDevice:
    """An array that NumPy can only reach through the protocols."""

    def __init__(self, array):
        self.array = array

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return wrap(getattr(ufunc, method)(*map(unwrap, inputs), **unwrap(kwargs)))

    def __array_function__(self, function, types, args, kwargs):
        if function is np.asarray:  # np.asarray(constants, like=x): how constants get to the device
            return OnDevice(np.array(*args, **kwargs))
        return wrap(function(*unwrap(args), **unwrap(kwargs)))

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __getattr__(self, name):
        if name == "ctypes" or name.startswith("__array"):
            raise AttributeError(name)
        value = getattr(self.array, name)
        return wrap(value) if not callable(value) else lambda *a, **k: wrap(value(*unwrap(a), **unwrap(k)))

    def __getitem__(self, key):
        return wrap(self.array[unwrap(key)])

    def __setitem__(self, key, value):
        self.array[unwrap(key)] = unwrap(value)

    def __bool__(self):
        return bool(self.array)

    def __float__(self):
        return float(self.array)

    def __len__(self):
        return len(self.array)


def _operator(name):
    return lambda self, *other: wrap(getattr(self.array, name)(*map(unwrap, other)))


BINARY = "add sub mul truediv pow matmul and or radd rsub rmul rtruediv lt le gt ge eq ne"
for _name in BINARY.split():
    setattr(OnDevice, f"__{_name}__", _operator(f"__{_name}__"))
for _name in ["neg", "invert"]:
    setattr(OnDevice, f"__{_name}__", _operator(f"__{_name}__"))


def _in_place(name):
    def change(self, other):
        getattr(self.array, name)(unwrap(other))
        return self

    return change


for _name in ["iadd", "isub", "imul", "itruediv"]:
    setattr(OnDevice, f"__{_name}__", _in_place(f"__{_name}__"))


def unwrap(value):
    if isinstance(value, (tuple, list)):
        return type(value)(map(unwrap, value))
    if isinstance(value, dict):
        return {name: unwrap(v) for name, v in value.items()}
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value.array if isinstance(value, OnDevice) else value


def wrap(value):
    if isinstance(value, tuple):
        return tuple(map(wrap, value))
    return OnDevice(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic)) else value


@pytest.fixture(autouse=True)
def without_cuda_kernels(monkeypatch):
    """Where there is a CUDA kernel, the NumPy text is not used on a GPU."""
    monkeypatch.setattr(softmax, "is_cuda", lambda x: False)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def compare(function, *arrays, **options):
    """The same call on NumPy's arrays and on the device's."""
    expected = function(*arrays, **options)
    got = function(*(OnDevice(a.copy(order="K")) if isinstance(a, np.ndarray) else a for a in arrays), **options)
    pairs = zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]
    for there, here in pairs:
        if here is not None:
            assert isinstance(there, OnDevice)
            np.testing.assert_allclose(there.array, here, rtol=1e-4, atol=1e-4)
    return expected


def test_products():
    compare(blas.gemm, normal(100, 90), normal(90, 80))
    compare(linear.linear, normal(3, 50, 70), normal(60, 70), normal(60))
    compare(linear.linear_backward, normal(3, 50, 60), normal(3, 50, 70), normal(60, 70))


@pytest.mark.parametrize("causal", [True, False])
def test_attention(causal):
    q, k, v, g = (normal(2, 3, 20, 8) for _ in range(4))
    compare(lambda *a: attention.attention(*a, causal=causal)[0], q, k, v)
    compare(
        lambda g, *a: attention.attention_backward(g, *a, attention.attention(*a, causal=causal)[1], causal), g, q, k, v
    )


@pytest.mark.parametrize(("stride", "groups"), [((1, 1), 1), ((2, 1), 2)])
def test_convolution(stride, groups):
    x, w, b = normal(2, 4, 9, 8), normal(6, 4 // groups, 3, 3), normal(6)
    y = compare(conv.conv2d, x, w, b, stride, (1, 1), (1, 1), groups)
    compare(conv.conv2d_backward, normal(*y.shape), x, w, stride, (1, 1), (1, 1), groups)


@pytest.mark.parametrize("how", [((2, 2), (2, 2)), ((3, 3), (2, 2), (1, 1))])
def test_pools(how):
    x = normal(2, 3, 8, 8)
    y, index = compare(pool.max_pool2d, x, *how)
    compare(pool.max_pool2d_backward, normal(*y.shape), index, x.shape)
    compare(pool.avg_pool2d, x, *how)
    compare(pool.avg_pool2d_backward, normal(*y.shape), x.shape, *how)


def test_batch_norm():
    x, g, w, b = normal(4, 5, 6, 6), normal(4, 5, 6, 6), normal(5), normal(5)
    mean, var = compare(batch_norm.moments, x)
    compare(batch_norm.normalize, x, mean, 1 / np.sqrt(var), w, b)
    compare(batch_norm.batch_norm_backward, g, x, mean, 1 / np.sqrt(var), w, True)


def test_rms_norm():
    x, w = normal(5, 40), normal(40)
    _, rstd = compare(norm.rms_norm, x, w, 1e-6)
    compare(norm.rms_norm_backward, normal(5, 40), x, w, rstd)


def test_sgd_and_the_gradient_norm():
    params, grads = [normal(4, 3), normal(7)], [normal(4, 3), normal(7)]
    there = [[OnDevice(a.copy()) for a in arrays] for arrays in (params, grads)]
    assert optim.sum_of_squares(there[1]) == pytest.approx(optim.sum_of_squares(grads), rel=1e-5)
    optim.scale(there[1], 0.5)
    optim.scale(grads, 0.5)
    optim.sgd_step(*there, [], lr=0.1, weight_decay=0.1)
    optim.sgd_step(params, grads, [], lr=0.1, weight_decay=0.1)
    for got, wanted in zip(there[0], params, strict=True):
        np.testing.assert_allclose(got.array, wanted, rtol=1e-5)
