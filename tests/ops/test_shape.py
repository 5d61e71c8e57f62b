"""Views, joining and repeating: memory is shared where it should be, and writes go where they should."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rushlight_tensor as rl
from rushlight_autograd import no_grad
from rushlight_tensor import REGISTRY

SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=4).map(tuple)


def numbers(shape, dtype=np.float32):
    return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)


def same(tensor, array):
    assert tuple(tensor.shape) == array.shape
    np.testing.assert_array_equal(tensor.numpy(), array)


@given(SHAPES, st.randoms(use_true_random=False))
def test_permute_and_its_inverse_give_the_tensor_back(shape, rng):
    order = list(range(len(shape)))
    rng.shuffle(order)
    x = rl.tensor(numbers(shape))
    y = x.permute(order)
    same(y, numbers(shape).transpose(order))
    same(y.permute([order.index(i) for i in range(len(order))]), numbers(shape))


@given(SHAPES, st.integers(1, 3), st.randoms(use_true_random=False))
def test_split_and_cat_are_inverse(shape, size, rng):
    if not shape:
        return
    dim = rng.randrange(len(shape))
    x = rl.tensor(numbers(shape))
    pieces = x.split(size, dim)
    assert all(p._base is x for p in pieces)
    same(rl.cat(pieces, dim), numbers(shape))
    same(rl.stack(x.unbind(dim), dim) if shape[dim] else x, numbers(shape))


@given(SHAPES, st.lists(st.integers(1, 3), min_size=4, max_size=5))
def test_repeat_is_numpy_s_tile(shape, times):
    same(rl.tensor(numbers(shape)).repeat(*times), np.tile(numbers(shape), times))


@given(SHAPES)
def test_reshape_of_any_view_has_the_elements_in_order(shape):
    x = rl.tensor(numbers(shape))
    same(x.permute(tuple(range(len(shape)))[::-1]).reshape(-1), numbers(shape).T.reshape(-1))
    same(x.flatten(), numbers(shape).reshape(-1))


def test_reshape_is_a_view_where_it_can_be_and_a_copy_where_not():
    x = rl.zeros(2, 3)
    x.reshape(6)[0] = 1
    x.t().reshape(6)[1] = 2
    same(x, np.array([[1, 0, 0], [0, 0, 0]], np.float32))


def test_a_view_keeps_its_base_alive_and_the_base_not_the_view():
    gc.disable()
    try:
        x = rl.zeros(3)
        y = x[1:]
        view = weakref.ref(y)
        del y
        assert view() is None
        y, base = x[1:], weakref.ref(x)
        del x
        assert base() is not None
        del y
        assert base() is None
    finally:
        gc.enable()


def test_writes_through_pieces_reach_the_tensor_and_its_gradient():
    x = rl.ones(4, requires_grad=True)
    y = x * 1
    with pytest.raises(RuntimeError, match="Output 1 of Split is a view and is being modified inplace"):
        y.split(2)[1].mul_(3)
    first, second = y.tensor_split(2)
    first.mul_(3)
    second[0] = 5.0
    same(y.detach(), np.array([3, 3, 5, 1], np.float32))
    y.sum().backward()
    same(x.grad, np.array([3, 3, 0, 1], np.float32))


def test_diagonal_and_windows_are_written_through():
    x = rl.zeros(3, 3)
    x.diagonal(1)[...] = rl.tensor([1.0, 2.0])
    same(x, np.diag(np.array([1, 2], np.float32), 1))
    y = rl.zeros(5)
    windows = y.unfold(0, 3, 1)
    windows[1, 1] = 7
    assert windows[0, 2] == 7
    assert y[2] == 7


def test_expanded_memory_is_not_written_to():
    x = rl.zeros(1, 3).expand(2, 3)
    with pytest.raises(RuntimeError, match="clone"):
        x.add_(1)


def test_shape_changes_in_place():
    x = rl.zeros(2, 3)
    assert x.unsqueeze_(0) is x
    assert tuple(x.shape) == (1, 2, 3)
    assert tuple(x.squeeze_(0).t_().shape) == (3, 2)
    assert tuple(x.transpose_(0, 1).shape) == (2, 3)
    y = rl.ones(3, requires_grad=True)
    z = y * 2
    z.unsqueeze_(0)
    (z * rl.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    same(y.grad, np.array([2, 4, 6], np.float32))
    with pytest.raises(RuntimeError, match="leaf"):
        y.unsqueeze_(0)
    with no_grad():
        y.unsqueeze_(0)


def test_a_gradient_that_is_not_contiguous_reaches_a_write_through_a_flat_view():
    x = rl.tensor(numbers((2, 3)), requires_grad=True)
    y = x * 1
    y.view(6)[1:3] *= 2
    (y.t() * rl.tensor(numbers((3, 2)))).sum().backward()
    same(x.grad, numbers((3, 2)).T * np.array([[1, 2, 2], [1, 1, 1]], np.float32))


def test_cat_promotes_and_leaves_out_empty_vectors():
    out = rl.cat([rl.zeros(0), rl.ones(2, 2), rl.ones(1, 2, dtype=rl.int64)])
    assert out.dtype is rl.float32
    assert tuple(out.shape) == (3, 2)
    with pytest.raises(RuntimeError, match="Expected size 2 but got size 3 for tensor number 1"):
        rl.cat([rl.ones(1, 2), rl.ones(1, 3)])


def test_bytes_read_as_another_dtype():
    x = rl.tensor([1.0, -2.0])
    assert x.view(rl.int32).tolist() == [0x3F800000, -0x40000000]
    assert tuple(x.view(rl.uint8).shape) == (8,)
    x.view(rl.int32)[0] = 0
    assert x.tolist() == [0.0, -2.0]
    with pytest.raises(RuntimeError, match="divisible"):
        rl.zeros(3).view(rl.float64)


@pytest.mark.parametrize("shape", [(2, 1, 3), (0, 1, 3)])
@pytest.mark.parametrize(("name", "attrs"), [("unbind", {"dim": 1}), ("split", {"sizes": (1,), "dim": 1})])
def test_one_piece_is_a_tuple_to_its_gradient(name, attrs, shape):
    """The rule was given the gradient itself and took its first dimension for pieces."""
    x = rl.randn(*shape).requires_grad_()
    (piece,) = REGISTRY[name](x, **attrs)
    weights = rl.randn(*piece.shape)
    piece.backward(weights)
    np.testing.assert_array_equal(x.grad.numpy(), weights.numpy().reshape(shape))
