"""`equal`, `isclose`, `allclose`: what counts as the same."""

import pytest

import rushlight_tensor as T


def test_closeness_of_special_values():
    inf, nan = float("inf"), float("nan")
    a, b = T.tensor([1.0, 1.0, inf, -inf, nan, 0.0]), T.tensor([1.0, 1.1, inf, inf, nan, -0.0])
    assert T.isclose(a, b).tolist() == [True, False, True, False, False, True]
    assert T.isclose(a, b, equal_nan=True).tolist() == [True, False, True, False, True, True]
    assert T.isclose(a, b, rtol=0.2).tolist()[1]
    assert T.isclose(T.tensor([1, 2]), T.tensor([1, 3])).tolist() == [True, False]
    assert T.isclose(T.tensor([True]), T.tensor([True])).tolist() == [True]


def test_equality_of_tensors():
    assert T.equal(T.ones(2), T.ones(2))
    assert not T.equal(T.ones(2), T.ones(2, 1))
    assert not T.equal(T.ones(2), T.tensor([1.0, 2.0]))
    assert T.allclose(T.ones(2), T.ones(2) + 1e-9)
    assert T.equal(T.zeros(0), T.zeros(0))


def test_closeness_of_different_dtypes_is_refused():
    with pytest.raises(RuntimeError, match="float32 did not match float64"):
        T.isclose(T.ones(1), T.ones(1, dtype=T.float64))
