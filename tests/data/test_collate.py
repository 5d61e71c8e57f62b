"""Samples to batches, by PyTorch's rules."""

import collections

import ml_dtypes
import numpy as np
import pytest

from rushlight_data import default_collate, default_convert
from rushlight_tensor import Tensor, tensor

Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("batch", "values", "dtype"),
    [
        ([1, 2], [1, 2], "int64"),
        ([1.0, 2.0], [1.0, 2.0], "float64"),
        ([True, False], [True, False], "bool"),
        ([True, 2], [1, 2], "int64"),
        ([1, 2.5], [1.0, 2.5], "float32"),
        ([np.float32(1), np.float32(2)], [1.0, 2.0], "float32"),
        ([np.bool_(True)], [True], "bool"),
        ([np.array([1, 2]), np.array([3, 4])], [[1, 2], [3, 4]], "int64"),
        ([tensor([1.0]), tensor([2.0])], [[1.0], [2.0]], "float32"),
        ([tensor(1), tensor(2.0)], [1.0, 2.0], "float32"),
    ],
)
def test_numbers_arrays_and_tensors_become_one_tensor(batch, values, dtype):
    out = default_collate(batch)
    assert isinstance(out, Tensor)
    assert out.tolist() == values
    assert str(out.dtype) == f"torch.{dtype}"


def test_structures_are_kept():
    batch = [{"a": 1, "b": [1, (2, "x")]}, {"a": 3, "b": [4, (5, "y")]}]
    out = default_collate(batch)
    assert out["a"].tolist() == [1, 3]
    assert [out["b"][0].tolist(), out["b"][1][0].tolist(), out["b"][1][1]] == [[1, 4], [2, 5], ("x", "y")]
    assert type(out["b"][1]) is list

    point = default_collate([Point(1, 2), Point(3, 4)])
    assert isinstance(point, Point)
    assert point.y.tolist() == [2, 4]


def test_the_type_of_mappings_and_sequences_is_kept_where_it_can():
    ordered = default_collate([collections.OrderedDict(a=1)])
    assert type(ordered) is collections.OrderedDict
    assert ordered["a"].tolist() == [1]
    assert type(default_collate([collections.deque([1, 2])])) is collections.deque
    assert [part.tolist() for part in default_collate([range(3), range(3)])] == [[0, 0], [1, 1], [2, 2]]


def test_texts_stay_a_list():
    assert default_collate(["a", "b"]) == ["a", "b"]
    assert default_collate([b"a"]) == [b"a"]


def test_samples_are_not_changed():
    sample = {"a": 1}
    default_collate([sample, {"a": 2}])
    assert sample == {"a": 1}
    listed = [1, [2.0]]
    default_collate([listed, [3, [4.0]]])
    assert listed == [1, [2.0]]
    default_convert(held := [np.ones(1)])
    assert type(held[0]) is np.ndarray


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([None], TypeError, "found <class 'NoneType'>; return one of those"),
        ([object()], TypeError, "numpy arrays, numbers, dicts or lists; found <class 'object'>"),
        ([np.array("a")], TypeError, "found <U1"),
        ([np.datetime64(1, "s")], TypeError, "datetime64"),
        ([{1, 2}], TypeError, "<class 'set'>"),
        ([np.zeros(2), np.zeros(1)], RuntimeError, r"got \[2\] at entry 0 and \[1\] at entry 1"),
        ([tensor([1]), tensor([1, 2])], RuntimeError, "stack expects each tensor to be equal size"),
        ([[1, 2], [3]], RuntimeError, r"should be of equal size, but got sizes \[2, 1\]"),
        ([{"a": 1}, {"b": 1}], KeyError, "a"),
        ([np.array([1], dtype=">i4")], ValueError, "byte order"),
        ([], IndexError, "empty batch"),
    ],
)
def test_what_has_no_rule_is_refused(batch, error, message):
    with pytest.raises(error, match=message):
        default_collate(batch)


def test_gradients_flow_through_a_batch():
    x = tensor([1.0, 2.0], requires_grad=True)
    out = default_collate([x, x])
    assert out.requires_grad


def test_extension_dtypes():
    out = default_collate([np.array([1, 2], dtype=ml_dtypes.bfloat16)] * 2)
    assert str(out.dtype) == "torch.bfloat16"


def test_convert_turns_arrays_into_tensors_and_leaves_the_rest():
    out = default_convert({"a": np.zeros(2), "b": (1, np.float32(2)), "c": "text", "d": [np.array(["s"])]})
    assert isinstance(out["a"], Tensor)
    assert out["b"][0] == 1
    assert isinstance(out["b"][1], Tensor)
    assert type(out["b"]) is list
    assert out["c"] == "text"
    assert isinstance(out["d"][0], np.ndarray)
    point = default_convert(Point(1, np.zeros(1)))
    assert isinstance(point, Point)
    assert isinstance(point.y, Tensor)
    x = tensor([1.0])
    assert default_convert(x) is x


def test_convert_shares_memory():
    array = np.zeros(3)
    default_convert(array).numpy()[0] = 5
    assert array[0] == 5
