"""Results that lie in memory in an order of our own look contiguous: to every view, stride, export and write."""

import copy
import io
import pickle

import numpy as np
import pytest

import rushlight as rl
import rushlight.nn.functional as F
from rushlight import nn
from rushlight_tensor.core.layout import PrivateOrder
from rushlight_tensor.kernels import plan
from rushlight_tensor.kernels.compile import find_compiler

rl.manual_seed(0)
IMAGE, LINE = rl.randn(2, 3, 8, 8), rl.randn(2, 3, 16)
WEIGHT, TAPS = rl.randn(4, 3, 3, 3), rl.randn(4, 3, 3)

MADE = {
    "conv2d": lambda: F.conv2d(IMAGE, WEIGHT),
    "conv2d without a batch": lambda: F.conv2d(IMAGE[0], WEIGHT),
    "conv1d": lambda: F.conv1d(LINE, TAPS),
    "conv1d without a batch": lambda: F.conv1d(LINE[0], TAPS),
    "conv_transpose2d": lambda: F.conv_transpose2d(IMAGE, WEIGHT.transpose(0, 1)),
    "max_pool2d": lambda: F.max_pool2d(IMAGE, 2),
    "indices of max_pool2d": lambda: F.max_pool2d(IMAGE, 2, return_indices=True)[1],
    "avg_pool1d": lambda: F.avg_pool1d(LINE, 2),
    "adaptive": lambda: F.adaptive_avg_pool2d(IMAGE, 4),
    "batch_norm": lambda: F.batch_norm(F.conv2d(IMAGE, WEIGHT), None, None, training=True),
    "batch_norm of a user's image": lambda: F.batch_norm(IMAGE, None, None, training=True),
    "group_norm": lambda: F.group_norm(F.conv2d(IMAGE, WEIGHT), 2),
    "relu": lambda: F.relu(F.conv2d(IMAGE, WEIGHT)),
    "sum of two": lambda: F.conv2d(IMAGE, WEIGHT) + F.conv2d(IMAGE, WEIGHT) * 2,
    "broadcast": lambda: F.conv2d(IMAGE, WEIGHT) + rl.ones(4, 1, 1),
    "mean along one": lambda: F.conv2d(IMAGE, WEIGHT).mean(2),
    "dropout": lambda: F.dropout(F.conv2d(IMAGE, WEIGHT), 0.5),
    "cat": lambda: rl.cat([F.conv2d(IMAGE, WEIGHT), F.conv2d(IMAGE, WEIGHT)], 1),
    "clone": lambda: F.conv2d(IMAGE, WEIGHT).clone(),
    "half": lambda: F.conv2d(IMAGE, WEIGHT).half(),
    "interpolate": lambda: F.interpolate(F.conv2d(IMAGE, WEIGHT), scale_factor=2),
    "large relu": lambda: F.relu(F.conv2d(rl.ones(4, 3, 66, 66), WEIGHT)),
    "in place": lambda: F.conv2d(IMAGE, WEIGHT).relu_().mul_(2),
    "gradient of an image": lambda: _gradient(),
}


def _gradient():
    x = IMAGE.clone().requires_grad_()
    F.conv2d(x, WEIGHT).relu().sum().backward()
    return x.grad


def contiguous_strides(shape):
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


every = pytest.mark.parametrize("make", [pytest.param(m, id=name) for name, m in MADE.items()])


def test_chains_keep_their_order_between_the_links():
    y = F.conv2d(IMAGE, WEIGHT)
    for link in (y, F.relu(y), y + 1, y * y, F.max_pool2d(y, 2), F.batch_norm(y, None, None, training=True)):
        assert type(link._array) is PrivateOrder
        assert np.moveaxis(np.asarray(link._array), 1, -1).flags.c_contiguous
    assert type(F.conv1d(F.conv1d(LINE, TAPS), rl.randn(2, 4, 3))._array) is PrivateOrder


@every
def test_strides_are_those_of_a_contiguous_tensor(make):
    y = make()
    assert y.is_contiguous()
    assert y.stride() == contiguous_strides(y.shape)
    assert y.contiguous() is y
    assert y.storage_offset() == 0


@every
def test_a_write_into_a_view_is_seen(make):
    y = make()
    before = y.clone()
    y.view(-1)[1:3] = 9
    assert (y.reshape(-1)[1:3] == 9).all()
    assert rl.equal(y.reshape(-1)[3:], before.reshape(-1)[3:])
    y.flatten()[0] = 5
    assert y[(0,) * y.ndim].item() == 5
    for view in (y.transpose(0, -1), y[..., 1:], y.unsqueeze(0), y.unbind(0)[0], y.data, y.T):
        view.zero_()
    assert not y.any()


@every
def test_memory_is_shared_with_numpy(make):
    y = make().detach()
    array = y.numpy()
    assert type(array) is np.ndarray
    assert array.flags.c_contiguous
    array[...] = 3
    assert (y == 3).all()
    assert y.data_ptr() == array.__array_interface__["data"][0]
    assert np.from_dlpack(y).flags.c_contiguous


@every
def test_copies_and_files_are_contiguous(make):
    y = make().detach()
    memory = io.BytesIO()
    rl.save(y, memory)
    memory.seek(0)
    for twin in (copy.deepcopy(y), pickle.loads(pickle.dumps(y)), rl.load(memory), rl.tensor(y), rl.as_tensor(y)):
        assert rl.equal(twin, y)
        assert type(twin.numpy()) is np.ndarray
        assert twin.stride() == contiguous_strides(y.shape)


def test_parameter_shares_the_memory_of_its_source():
    y = F.conv2d(IMAGE, WEIGHT)
    p = rl.nn.Parameter(y)
    p.data.zero_()
    assert not y.any()


def test_write_through_a_view_after_a_convolution_is_differentiated():
    x = IMAGE.clone().requires_grad_()
    y = F.conv2d(x, WEIGHT)
    y.view(-1)[:5] = 0
    y.sum().backward()
    expected = IMAGE.clone().requires_grad_()
    z = F.conv2d(expected, WEIGHT)
    (z.reshape(-1)[5:]).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected.grad.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lifted", [False, True], ids=["conv2d", "conv1d"])
def test_input_that_is_changed_after_a_look_is_refused(lifted):
    x, w = (LINE, TAPS) if lifted else (IMAGE, WEIGHT)
    conv = F.conv1d if lifted else F.conv2d
    y = conv(x, w.clone().requires_grad_())
    w2 = rl.randn(2, 4, *w.shape[2:], requires_grad=True)
    z = conv(y, w2)
    y.view(-1)[0] = 7  # settles y: the convolution has saved it
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_a_trace_sees_the_copy():
    def function(x, w):
        y = F.conv2d(x, w)
        y.view(-1)[::2] = 1
        return y * 2

    compiled = rl.compile(function)
    want = function(IMAGE, WEIGHT)
    for _ in range(3):
        np.testing.assert_allclose(compiled(IMAGE, WEIGHT).numpy(), want.numpy(), rtol=1e-5, atol=1e-5)
    assert compiled.traces == 1


def test_compiled_function_writes_into_an_argument_of_private_order():
    def function(y):
        y.view(-1)[0] = 5
        y.mul_(2)
        return y + 1

    compiled = rl.compile(function)
    for _ in range(3):
        y, z = F.conv2d(IMAGE, WEIGHT), F.conv2d(IMAGE, WEIGHT)
        out, want = compiled(y), function(z)
        np.testing.assert_array_equal(y.numpy(), z.numpy())
        np.testing.assert_array_equal(out.numpy(), want.numpy())
    assert compiled.traces == 1


def test_strides_of_other_orders_are_their_own():
    x = IMAGE.permute(0, 2, 3, 1)
    assert not x.is_contiguous()
    assert not (x + 1).is_contiguous()
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        (x + 1).view(-1)


NETWORKS = {
    "images": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), IMAGE),
    "lines": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.AvgPool1d(2)), LINE),
}


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler, or RUSHLIGHT_CC=none: texts make results anew")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_copy_images_only_where_they_enter(name, monkeypatch):
    make, x = NETWORKS[name]
    net = nn.Sequential(make(), (nn.Conv2d if x.ndim == 4 else nn.Conv1d)(4, 4, 1))
    copied = []

    def watching(move):
        def watched(image):
            seen = move(image)
            if not np.shares_memory(seen, image):
                copied.append(image.shape[1])
            return seen

        return watched

    monkeypatch.setattr(plan, "as_image", watching(plan.as_image))
    y = net(x)
    y.backward(F.relu(y + 1))
    assert set(copied) == {3}


def test_memory_formats_that_are_asked_for_are_seen():
    x = IMAGE.to(memory_format=rl.channels_last)
    assert x.stride() == (192, 1, 24, 3)
    assert x.is_contiguous(memory_format=rl.channels_last)
    assert not x.is_contiguous()
    assert rl.equal(x, IMAGE)
    assert x.contiguous(memory_format=rl.channels_last) is x
    assert x.contiguous().is_contiguous()
    for y in (
        F.conv2d(x, WEIGHT),
        F.max_pool2d(x, 2),
        F.relu(x),
        x.double(),
        x.clone(),
        F.conv2d(IMAGE, WEIGHT.to(memory_format=rl.channels_last)),
    ):
        assert y.is_contiguous(memory_format=rl.channels_last)
    assert IMAGE.clone(memory_format=rl.channels_last).stride() == x.stride()
    assert IMAGE.float(memory_format=rl.preserve_format).is_contiguous()
    assert not IMAGE.is_contiguous(memory_format=rl.channels_last)
    assert not F.conv2d(IMAGE, WEIGHT).is_contiguous(memory_format=rl.channels_last)
    net = nn.Conv2d(3, 4, 3).to(memory_format=rl.channels_last)
    assert net.weight.is_contiguous(memory_format=rl.channels_last)
    net(x).sum().backward()
    with pytest.raises(RuntimeError, match="required rank 4 tensor to use channels_last format"):
        rl.ones(2).contiguous(memory_format=rl.channels_last)
    with pytest.raises(TypeError, match=r"must be torch\.memory_format, not str"):
        IMAGE.contiguous(memory_format="channels_last")


@every
def test_as_strided_is_the_same_memory(make):
    y = make()
    y.as_strided((3,), (2,), 1).fill_(9)
    assert y.reshape(-1)[:6].tolist()[1::2] == [9, 9, 9]
    assert y.storage_offset() == 0
    y.view(-1).as_strided((2,), (1,)).fill_(7)
    assert y.reshape(-1)[:2].tolist() == [7, 7]


@every
def test_a_view_first_and_as_strided_after_it(make):
    y = make()
    flat = y.view(-1)
    y.as_strided((2,), (1,)).fill_(7)
    assert flat[:2].tolist() == [7, 7] == y.reshape(-1)[:2].tolist()
    assert y.storage_offset() == flat.storage_offset() == 0


ASKED = {
    "contiguous": lambda y: y.contiguous(memory_format=rl.channels_last),
    "to": lambda y: y.to(memory_format=rl.channels_last),
    "to a dtype": lambda y: y.to(rl.float64, memory_format=rl.channels_last),
    "clone": lambda y: y.clone(memory_format=rl.channels_last),
    "zeros_like": lambda y: rl.zeros_like(y, memory_format=rl.channels_last),
    "and on": lambda y: F.relu(y.contiguous(memory_format=rl.channels_last)),
}


@pytest.mark.parametrize("name", ASKED)
def test_an_order_that_a_user_asks_for_is_no_private_one(name):
    y = ASKED[name](F.conv2d(IMAGE, WEIGHT))
    assert type(y._array) is not PrivateOrder
    assert y.stride() == (144, 1, 24, 4)
    assert not y.is_contiguous()
    assert y.is_contiguous(memory_format=rl.channels_last)
