"""Attributes that people set on tensors: kept with the tensor, costing nothing to those without, shadowing nothing."""

import pytest

import rushlight_tensor as T
from rushlight_nn import Parameter

pytestmark = pytest.mark.usefixtures("text")


@pytest.mark.parametrize(
    "make", [lambda: T.ones(2), lambda: T.ones(2) * 2, lambda: Parameter(T.ones(2)), lambda: T.ones(3)[1:]]
)
def test_any_attribute_may_be_set_read_and_deleted(make):
    w = make()
    assert not hasattr(w, "tag")
    assert vars(w) == {}
    w.tag = "embedding"
    assert (w.tag, vars(w)) == ("embedding", {"tag": "embedding"})
    del w.tag
    with pytest.raises(AttributeError):
        w.tag  # noqa: B018
    assert not hasattr(w * 1, "tag")


@pytest.mark.parametrize("name", ["shape", "dtype", "device", "grad_fn", "is_leaf", "ndim", "T"])
def test_properties_are_not_shadowed(name):
    w = T.ones(2)
    with pytest.raises(AttributeError):
        setattr(w, name, 3)
    assert vars(w) == {}


def test_results_of_fast_paths_have_no_gradient_until_asked():  # Note [Unset slots]
    y = T.ones(2) * 2
    assert y.grad is None
    y.requires_grad_()
    (y * 3).sum().backward()
    assert y.grad.tolist() == [3.0, 3.0]
    z = T.ones(2) * 2
    z.grad = T.ones(2)
    assert z.grad.tolist() == [1.0, 1.0]
    del z.grad
    assert z.grad is None
