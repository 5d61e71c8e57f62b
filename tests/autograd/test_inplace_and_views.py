"""In-place operations and views: shared memory, versions, and the graph that follows them."""

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_autograd import no_grad


def leaf(*values):
    return T.tensor(values, dtype=T.float64, requires_grad=True)


def test_view_shares_memory_and_version():
    x = T.zeros(2, 3)
    v = x.view(3, 2)
    v.add_(1)
    np.testing.assert_array_equal(x.numpy(), np.ones((2, 3)))
    assert x._version == 1


def test_saved_input_changed_in_place_is_refused():
    x = leaf(1.0, 2.0)
    h = x * 1
    y = h * h
    h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_saved_result_changed_in_place_is_refused_also_under_no_grad_and_through_a_view():
    for change in (lambda y: y.mul_(2), lambda y: y.view(2, 1).mul_(2), lambda y: y.detach().mul_(2)):
        x = leaf(1.0, 2.0)
        y = T.exp(x)
        with no_grad():
            change(y)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_change_of_a_value_that_no_gradient_needs_is_fine():
    x = leaf(1.0, 2.0)
    h = x * 1
    y = h + 5
    h.mul_(3)
    (y + h).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4.0, 4.0])


def test_inplace_on_base_reaches_a_view_made_before():
    x = leaf(1.0, 2.0)
    base = x * 1
    view = base.view(2, 1)
    base.mul_(5)
    (view * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [10.0, 10.0])


def test_inplace_on_a_view_reaches_the_base():
    x = T.ones(2, 3, dtype=T.float64, requires_grad=True)
    base = x * 1
    base.permute(1, 0).mul_(T.tensor([[1.0], [2.0], [3.0]], dtype=T.float64))
    base.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[1.0, 2.0, 3.0]] * 2)


def test_inplace_with_a_tensor_that_requires_grad_makes_a_plain_tensor_require_it():
    w = leaf(2.0)
    x = T.ones(1, dtype=T.float64)
    x.add_(w)
    assert x.requires_grad
    x.sum().backward()
    assert w.grad.item() == 1.0


def test_leaves_that_require_grad_are_protected():
    w = T.ones(2, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        w.add_(1)
    with pytest.raises(RuntimeError, match="a view of a leaf Variable"):
        w.view(4).add_(1)
    with no_grad():
        w.add_(1)
    np.testing.assert_array_equal(w.detach().numpy(), np.full((2, 2), 2.0))


def test_result_must_fit_into_the_target():
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type"):
        T.tensor([1]).add_(0.5)
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        T.ones(3).add_(T.ones(2, 3))


def test_elements_that_share_memory_are_not_written_to_one_by_one():
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor refers to a single memory"):
        T.ones(1).expand(3).add_(1)
    x = T.ones(3)
    x.expand(2, 3)[0].add_(1)
    np.testing.assert_array_equal(x.numpy(), [2.0, 2.0, 2.0])
    x.expand(2, 3).zero_()
    np.testing.assert_array_equal(x.numpy(), [0.0, 0.0, 0.0])


def test_read_only_memory_is_refused():
    array = np.ones(3)
    array.flags.writeable = False
    with pytest.raises(RuntimeError, match="read-only"):
        T.from_numpy(array).add_(1)
    np.testing.assert_array_equal(array, np.ones(3))


def test_data_shares_memory_outside_the_graph():
    w = T.ones(2, requires_grad=True)
    w.data.mul_(3)
    np.testing.assert_array_equal(w.detach().numpy(), [3.0, 3.0])
    w.data = T.zeros(2)
    np.testing.assert_array_equal(w.detach().numpy(), [0.0, 0.0])


def test_gradient_of_a_chain_of_inplace_writes_agrees_with_the_functional_form():
    x = leaf(0.5, 1.0, 1.5, 2.0)
    h = x * 1
    h.view(2, 2).permute(1, 0).mul_(2)
    h.div_(4)
    h.view(4).sub_(x)
    (h * h).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * (-0.5) * (-0.5) * x.detach().numpy())


def test_write_through_a_view_of_a_view_reaches_the_one_on_the_way():
    w = leaf(5.0, 7.0)
    view = T.zeros(4, dtype=T.float64).view(2, 2)
    view.view(4)[:2].copy_(w)
    assert view.requires_grad
    (view * 3).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [3.0, 3.0])


def test_square_in_place_has_its_gradient():
    w = leaf(5.0, 7.0)
    y = w * 1
    y.square_()
    y.sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [10.0, 14.0])


@pytest.mark.parametrize(
    "function",
    [T.sin, T.exp, lambda v: v * v, lambda v: v * 2, lambda v: 2 / v, lambda v: v.sum(0), lambda v: T.cat([v, v])],
)  # fmt: skip
def test_view_made_before_a_write_to_its_base_can_be_used_by_every_path(function):
    x, y = leaf(0.5, 1.0), leaf(0.5, 1.0)
    base = x * 1
    view = base.view(2, 1)
    base.mul_(3)
    function(view).sum().backward()
    function((y * 3).view(2, 1)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-12)


def test_view_made_under_no_grad_gets_no_gradient_of_its_own():
    x = leaf(1.0, 2.0)
    with no_grad():
        view = x.view(2, 1)
    (view * x.view(2, 1)).sum().backward()
    assert view.grad is None
    np.testing.assert_array_equal(x.grad.numpy(), [1.0, 2.0])


def test_retained_gradient_is_that_of_the_latest_value():
    x = leaf(1.0, 2.0)
    h = x * 1
    h.retain_grad()
    h.mul_(3)
    (h * 5).sum().backward()
    np.testing.assert_array_equal(h.grad.numpy(), [5.0, 5.0])
    np.testing.assert_array_equal(x.grad.numpy(), [15.0, 15.0])


def test_view_that_is_looked_at_under_no_grad_keeps_its_place_in_the_graph():
    x = leaf(1.0, 2.0)
    base = x * 1
    view = base.view(2, 1)
    base.mul_(5)
    with no_grad():
        assert view.grad_fn is not None
    (view * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [10.0, 10.0])


def test_result_without_gradient_in_place_cuts_the_influence_of_what_was_there():
    x = leaf(1.0, 2.0)
    h = x * 3
    h.gt_(4)
    (h * 5).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0.0, 0.0])
