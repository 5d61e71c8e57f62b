"""Indexing, reading and writing: where NumPy and PyTorch mean the same, NumPy is the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rushlight_tensor as rl
from rushlight_autograd import no_grad
from rushlight_tensor import REGISTRY


def numbers(shape, dtype=np.float32):
    return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)


def same(tensor, array):
    assert tuple(tensor.shape) == array.shape
    np.testing.assert_array_equal(tensor.detach().numpy(), array)


BASIC = hnp.array_shapes(max_dims=4, max_side=4, min_dims=1).flatmap(
    lambda shape: st.tuples(st.just(shape), hnp.basic_indices(shape, allow_newaxis=True))
)


def positive_steps(index):
    entries = index if isinstance(index, tuple) else (index,)
    return all(not isinstance(e, slice) or e.step is None or e.step > 0 for e in entries)


@given(BASIC)
def test_basic_indices_are_numpy_s_and_views(case):
    shape, index = case
    array, x = numbers(shape), rl.tensor(numbers(shape))
    if not positive_steps(index):
        with pytest.raises(ValueError, match="step must be greater than zero"):
            x[index]
        return
    same(x[index], array[index])
    assert x[index]._base is x
    array[index] = -1
    x[index] = -1
    same(x, array)


@given(hnp.array_shapes(max_dims=3, max_side=4, min_dims=1), st.data())
def test_integer_and_bool_indices_are_numpy_s(shape, data):
    array = numbers(shape)
    dims = data.draw(st.integers(1, len(shape)))
    parts = hnp.integer_array_indices(shape[:dims], result_shape=st.just((2, 3)))
    index = data.draw(parts)
    x = rl.tensor(array)
    ours = tuple(rl.tensor(i) for i in index)
    same(x[ours], array[index])
    mask = data.draw(hnp.arrays(np.bool_, shape))
    same(x[rl.tensor(mask)], array[mask])
    x[rl.tensor(mask)], array[mask] = 7, 7
    same(x, array)
    x.index_put_(ours, rl.tensor(1.0), accumulate=True)
    np.add.at(array, index, 1)
    same(x, array)


def test_gradients_of_repeated_positions_add_up():
    x = rl.tensor(numbers((3, 2)), requires_grad=True)
    x[rl.tensor([0, 2, 0, 0])].sum().backward()
    same(x.grad, np.array([[3, 3], [0, 0], [1, 1]], np.float32))


def test_written_places_pass_no_gradient_and_the_source_gets_it():
    x = rl.ones(4, requires_grad=True)
    source = rl.tensor([2.0, 3.0], requires_grad=True)
    y = x * 5
    y[rl.tensor([1, 3])] = source
    y[0] = 0.0
    (y * rl.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    same(x.grad, np.array([0, 0, 15, 0], np.float32))
    same(source.grad, np.array([2, 4], np.float32))


def test_augmented_assignment_through_an_index_tensor():
    x = rl.zeros(3)
    x[rl.tensor([0, 2])] += 2
    x[x > 1] *= 3
    assert x.tolist() == [6, 0, 6]


def test_writing_where_dimensions_cannot_be_merged_in_place():
    array = numbers((2, 3, 4))
    x = rl.tensor(array).permute(2, 0, 1)  # dimensions 0 and 1 do not merge
    i, j = np.array([0, 3]), np.array([1, 0])
    x[rl.tensor(i), rl.tensor(j)] = rl.tensor([[-1.0, -2.0, -3.0]])
    expected = numbers((2, 3, 4)).transpose(2, 0, 1)
    expected[i, j] = np.array([[-1, -2, -3]])
    same(x, expected)


def test_leaves_are_written_to_without_grad_only():
    x = rl.zeros(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        x[0] = 1
    with pytest.raises(RuntimeError, match="leaf"):
        x[rl.tensor([0])] = 1
    with no_grad():
        x[0] = 1
    assert x.tolist() == [1, 0]


def test_a_saved_tensor_that_is_written_by_index_is_refused_in_the_backward_pass():
    x = rl.ones(3, requires_grad=True)
    y = x * 2
    z = (y * y).sum()
    y[1] = 0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_what_python_and_numpy_offer_as_an_index():
    x = rl.tensor(numbers((3, 4)))
    for index in (np.int64(1), rl.tensor(1), np.array(1)):
        same(x[index], numbers((3, 4))[1])
    same(x[np.array([2, 0])], numbers((3, 4))[[2, 0]])
    same(x[range(2)], numbers((3, 4))[:2])
    same(x[rl.tensor(1) : rl.tensor(3)], numbers((3, 4))[1:3])
    same(x[np.array([True, False, True])], numbers((3, 4))[[0, 2]])
    assert x[True, 0].tolist() == [[0, 1, 2, 3]]
    assert x[2, 3].item() == 11
    assert [row.tolist() for row in x][1] == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        (5, IndexError, "index 5 is out of bounds for dimension 0 with size 3"),
        ((0, -5), IndexError, "index -5 is out of bounds for dimension 1 with size 4"),
        ((0, 0, 0), IndexError, "too many indices for tensor of dimension 2"),
        (rl.tensor([9]), IndexError, "index 9 is out of bounds"),
        ((slice(None), rl.tensor([0, -5])), IndexError, "index -5 is out of bounds"),
        ((rl.tensor([0]), rl.tensor([4])), IndexError, "index 4 is out of bounds"),
        (rl.tensor([0.5]), IndexError, "must be long, int, byte or bool"),
        (rl.tensor([True]), IndexError, "shape of the mask"),
        ((rl.tensor([0, 1]), rl.tensor([0, 1, 2])), IndexError, "could not be broadcast together"),
        (1.5, IndexError, "only integers, slices"),
        ("a", TypeError, "invalid data type 'str'"),
        (slice(None, None, -1), ValueError, "step must be greater than zero"),
    ],
)
def test_a_wrong_index_is_refused_with_what_is_wrong(index, error, text):
    x = rl.zeros(3, 4)
    with pytest.raises(error, match=text):
        x[index]
    with pytest.raises(error, match=text):
        x[index] = 1.0
    assert not x.any()


def test_gather_and_scatter_refuse_positions_outside():
    x = rl.zeros(3, 4)
    for bad in (4, -1):
        with pytest.raises(RuntimeError, match=f"index {bad} is out of bounds for dimension 1 with size 4"):
            x.gather(1, rl.tensor([[bad]]))
        with pytest.raises(RuntimeError, match=f"index {bad} is out of bounds for dimension 1 with size 4"):
            x.scatter_(1, rl.tensor([[bad]]), 1.0)
    with pytest.raises(IndexError, match="index out of range in self"):
        x.index_select(0, rl.tensor([-1]))


def test_scatter_in_place_makes_one_hot_vectors():
    x = rl.zeros(3, 4).scatter_(1, rl.tensor([[1], [3], [0]]), 1.0)
    same(x, np.eye(4, dtype=np.float32)[[1, 3, 0]])


def test_adding_at_positions_is_exact_for_integers_and_half_precision():
    for dtype in (rl.int64, rl.int8, rl.float16, rl.bfloat16):
        x = rl.zeros(3, dtype=dtype).index_add_(0, rl.tensor([1, 1, 2]), rl.ones(3, dtype=dtype))
        assert x.tolist() == [0, 2, 1]


def test_true_beside_index_tensors_is_broadcast_with_them():
    x = rl.arange(24.0).reshape(2, 3, 4)
    assert x[True, rl.tensor([1, 0])].shape == (2, 3, 4)
    assert x[True, rl.tensor([1, 0])].tolist() == x[rl.tensor([1, 0])].tolist()
    assert x[True, True].shape == (1, 2, 3, 4)
    assert x[rl.tensor(False), rl.tensor([[1]])].shape == (1, 0, 3, 4)
    x[True, rl.tensor([1])] = 0.0
    assert x.sum().item() == sum(range(12))


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("bad", [4, -5, -(2**63)])
def test_an_index_that_names_nothing_is_refused_where_nothing_is_picked(bad, wrap):
    """C looked at it and NumPy did not."""
    op, x, index = REGISTRY["index_select"], np.zeros((0, 4, 2), "f"), np.array([0, bad])
    for run in (op.cpu, op.numpy):
        with pytest.raises(IndexError):
            run(x, index, dim=1, wrap=wrap)


def test_an_index_into_a_large_empty_dimension_is_compared_not_looked_up():
    x = rl.zeros(0, 10**13, dtype=rl.bool)
    assert x.index_select(1, rl.tensor([0, 10**13 - 1])).shape == (0, 2)
    assert x[:, [0, -1]].shape == (0, 2)
    for wrong in (10**13, -(10**13) - 1):
        with pytest.raises(IndexError):
            x.index_select(1, rl.tensor([wrong]))
        with pytest.raises(IndexError):
            x[:, [wrong]]
