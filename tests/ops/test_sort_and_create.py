"""Order, counts and creation: NumPy is the reference; data that is no tensor is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rushlight_tensor as rl
from rushlight_autograd import grad

ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=st.integers(-3, 3))


@given(ARRAYS, st.booleans(), st.data())
def test_sort_is_stable_both_ways(array, descending, data):
    dim = data.draw(st.integers(-array.ndim, array.ndim - 1))
    values, indices = rl.tensor(array).sort(dim, descending, stable=True)
    np.testing.assert_array_equal(np.take_along_axis(array, indices.numpy(), dim), values.numpy())
    order = np.argsort(-array if descending else array, axis=dim, kind="stable")
    np.testing.assert_array_equal(indices.numpy(), order)


@given(hnp.arrays(np.float32, (3, 40), elements=st.integers(-50, 50)), st.integers(0, 40), st.booleans())
def test_topk_are_the_first_k_of_the_sorted_values(array, k, largest):
    values, indices = rl.tensor(array).topk(k, largest=largest)
    want = np.sort(array, axis=1)
    np.testing.assert_array_equal(values.numpy(), (want[:, ::-1] if largest else want)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(array, indices.numpy(), 1), values.numpy())
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "uint8"])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("descending", [False, True])
def test_large_sorts_are_stable_too(dtype, dim, descending):
    array = (np.random.default_rng(0).integers(0, 40, (30, 50)) - (0 if dtype == "uint8" else 20)).astype(dtype)
    if array.dtype.kind == "f":
        array[3, 4], array[:, 7], array[5] = np.inf, -0.0, np.nan
    order = rl.argsort(rl.tensor(array), dim, descending, stable=True).numpy()
    wide = array.astype(np.float64)
    wide[np.isinf(wide)] = 1e200
    down = np.where(np.isnan(wide), -1e300, -wide)  # NaN comes before infinity
    want = np.argsort(down if descending else wide, axis=dim, kind="stable")
    np.testing.assert_array_equal(order, want)


def test_numbers_far_apart_sort_as_well():
    x = rl.tensor(np.array([2**40, -(2**40), 0] * 100))
    assert x.sort().values.tolist() == sorted(x.tolist())


def test_nan_counts_as_largest():
    x = rl.tensor([1.0, float("nan"), 3.0])
    assert x.argsort().tolist() == [0, 2, 1]
    assert x.argsort(descending=True).tolist() == [1, 2, 0]
    assert x.topk(2).indices.tolist() == [1, 2]


def test_gradients_of_sorted_values_return_to_their_places():
    x = rl.tensor([3.0, 1.0, 2.0], requires_grad=True)
    (g,) = grad((x.sort().values * rl.tensor([10.0, 20.0, 30.0])).sum(), x)
    assert g.tolist() == [30, 10, 20]


@given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=2), elements=st.integers(0, 5)))
def test_unique_inverse_and_counts_belong_together(array):
    values, inverse, counts = rl.unique(rl.tensor(array), return_inverse=True, return_counts=True)
    assert values.tolist() == sorted(set(array.flatten().tolist()))
    np.testing.assert_array_equal(values[inverse].numpy(), array)
    np.testing.assert_array_equal(counts.numpy(), np.bincount(array.flatten())[values.numpy()])


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 7))
def test_arange_counts_as_range(start, end, step):
    if start <= end:
        assert rl.arange(start, end, step).tolist() == list(range(start, end, step))
        np.testing.assert_array_equal(rl.arange(start, end, float(step)).numpy(), np.arange(start, end, step))
    else:
        assert rl.arange(start, end, -step).tolist() == list(range(start, end, -step))


def test_linspace_ends_are_exact():
    x = rl.linspace(0.1, 0.7, 33)
    assert x[0] == np.float32(0.1)
    assert x[-1] == np.float32(0.7)
    assert rl.linspace(3, 4, 1).tolist() == [3]
    assert rl.linspace(0, 10, 4, dtype=rl.int64).tolist() == [0, 3, 6, 10]


def test_new_tensors_take_dtype_and_device_over():
    x = rl.zeros(2, dtype=rl.float64)
    for made in (x.new_zeros(3), x.new_ones((2, 1)), x.new_full((2,), 7), x.new_tensor([1, 2]), x.new_empty(2)):
        assert made.dtype is rl.float64
    assert rl.full_like(x, 3, dtype=rl.int32).dtype is rl.int32
    assert rl.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ([[1, 2], [3]], ValueError, "expected sequence of length 2 at dim 1"),
        ([[1, 2], 3], ValueError, "got a number"),
        (["a"], ValueError, "too many dimensions 'str'"),
        ("a", TypeError, "invalid data type 'str'"),
        ([None], RuntimeError, "Could not infer dtype of NoneType"),
        (np.array(["a"]), TypeError, "can't convert np.ndarray of type"),
    ],
)
def test_data_that_is_no_tensor_is_refused(data, error, text):
    with pytest.raises(error, match=text):
        rl.tensor(data)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: rl.zeros(2, -1), "non-negative"),
        (lambda: rl.empty((-1,)), "non-negative"),
        (lambda: rl.arange(0, 3, 0), "step must be nonzero"),
        (lambda: rl.arange(3, 0), "inconsistent with step sign"),
        (lambda: rl.linspace(0, 1, -1), "number of steps must be non-negative"),
        (lambda: rl.eye(-1), "n must be greater or equal to 0"),
    ],
)
def test_impossible_sizes_are_refused(make, text):
    with pytest.raises(RuntimeError, match=text):
        make()


def test_memory_is_exchanged_with_numpy_through_dlpack():
    x = rl.zeros(3)
    array = np.from_dlpack(x)
    x[1] = 5
    assert array.tolist() == [0, 5, 0]
    y = rl.from_dlpack(np.arange(3.0))
    assert y.dtype is rl.float64
    with pytest.raises(BufferError, match="require gradient"):
        np.from_dlpack(rl.zeros(2, requires_grad=True))
    with pytest.raises(AttributeError, match="non-CUDA"):
        x.__cuda_array_interface__  # noqa: B018
