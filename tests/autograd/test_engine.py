"""The backward pass: what arrives where, what is kept, what is refused."""

import gc
import threading
import weakref

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_autograd import (
    Function,
    backward,
    enable_grad,
    grad,
    inference_mode,
    no_grad,
    queue_callback,
    set_grad_enabled,
)

pytestmark = pytest.mark.usefixtures("text")


def leaf(*values, dtype=T.float64):
    return T.tensor(values, dtype=dtype, requires_grad=True)


def test_gradients_add_up_over_uses_and_over_passes():
    x = leaf(1.0, 2.0)
    (x * x + x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3.0, 5.0])
    (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [5.0, 7.0])


def test_gradient_of_a_broadcast_is_summed_to_the_shape_of_its_input():
    x, y = T.ones(3, 1, requires_grad=True), T.ones(4, requires_grad=True)
    (x * y * 2).sum().backward()
    assert x.grad.shape == (3, 1)
    np.testing.assert_array_equal(x.grad.numpy(), np.full((3, 1), 8.0))
    np.testing.assert_array_equal(y.grad.numpy(), np.full(4, 6.0))


def test_gradient_keeps_the_dtype_of_its_leaf():
    x, y = leaf(1.0, dtype=T.float32), leaf(2.0, dtype=T.float64)
    (x * y).sum().backward()
    assert x.grad.dtype is T.float32
    assert y.grad.dtype is T.float64


def test_two_leaves_never_share_a_gradient():
    x, y = leaf(1.0), leaf(2.0)
    (x + y).sum().backward()
    x.grad.mul_(10)
    assert y.grad.item() == 1.0


def test_gradient_given_by_the_user_is_not_adopted():
    x, g = leaf(1.0), T.tensor([5.0], dtype=T.float64)
    x.backward(g)
    x.grad.mul_(2)
    assert g.item() == 5.0


def test_graph_is_freed_by_reference_count_alone():
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        hidden = x * 2
        view = hidden.view(2, 1)
        view.mul_(3)
        view.tanh_()
        out = T.exp(hidden)
        dead = [weakref.ref(o) for o in (hidden, view, out, out.grad_fn, hidden.grad_fn)]
        out.sum().backward(retain_graph=True)
        del hidden, view, out
        assert [ref() for ref in dead] == [None] * 5
    finally:
        gc.enable()


def test_second_pass_over_a_freed_graph_is_refused():
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


def test_retained_graph_can_be_walked_again():
    x = leaf(3.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 12.0


def test_deep_graph_needs_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.sum().backward()
    assert x.grad.item() == 1.0
    del y


def test_grad_returns_gradients_and_stores_none():
    x, y = leaf(2.0), leaf(3.0)
    z = (x * y).sum()
    gx, gy = grad(z, (x, y))
    assert (gx.item(), gy.item(), x.grad, y.grad) == (3.0, 2.0, None, None)


def test_grad_of_an_intermediate_result():
    x = leaf(2.0)
    h = x * x
    (g,) = grad((h * h).sum(), h)
    assert g.item() == 8.0


def test_unused_input_is_an_error_unless_allowed():
    x, y = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        grad((x * 2).sum(), y)
    assert grad((x * 2).sum(), y, allow_unused=True) == (None,)
    (zeros,) = grad((x * 2).sum(), y, materialize_grads=True)
    assert zeros.item() == 0.0


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_higher_derivatives(order):
    x = leaf(2.0)
    (g,) = grad((x**5).sum(), x, create_graph=True)
    for _ in range(order - 1):
        (g,) = grad(g.sum(), x, create_graph=True)
    coefficient, power = [(5, 4), (20, 3), (60, 2), (120, 1)][order - 1]
    assert g.item() == pytest.approx(coefficient * 2.0**power)


def test_roots_without_graph_or_with_many_elements_are_refused():
    with pytest.raises(RuntimeError, match="does not require grad"):
        T.ones(1).backward()
    with pytest.raises(RuntimeError, match="only for scalar outputs"):
        (leaf(1.0, 2.0) * 1).backward()
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        (leaf(1.0, 2.0) * 1).backward(T.ones(3, dtype=T.float64))


def test_integer_tensors_cannot_require_grad():
    with pytest.raises(RuntimeError, match="floating point"):
        T.tensor([1], requires_grad=True)


def test_several_roots_at_once():
    x = leaf(2.0)
    h = x * x
    backward([h, h * 3], [T.ones(1, dtype=T.float64), T.ones(1, dtype=T.float64)])
    assert x.grad.item() == 16.0


def test_hooks_see_and_replace_gradients():
    x = leaf(1.0)
    seen = []
    h = x * 3
    h.register_hook(lambda g: seen.append(g.item()))
    handle = h.register_hook(lambda g: g * 10)
    (h * 2).sum().backward(retain_graph=True)
    assert (seen, x.grad.item()) == ([2.0], 60.0)
    handle.remove()
    x.grad = None
    x.register_hook(lambda g: g + 1)
    (h * 2).sum().backward()
    assert x.grad.item() == 7.0


def test_post_accumulate_hook_runs_once_when_the_gradient_is_final():
    x = leaf(1.0)
    seen = []
    x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.item()))
    (x * 2 + x * 3 + x).sum().backward()
    assert seen == [6.0]


def test_leaf_is_final_before_earlier_layers_run():
    order = []
    w1, w2 = leaf(1.0), leaf(1.0)
    w1.register_post_accumulate_grad_hook(lambda p: order.append("w1"))
    w2.register_post_accumulate_grad_hook(lambda p: order.append("w2"))
    h = leaf(1.0) * w1
    h.register_hook(lambda g: order.append("h"))
    (h * w2).sum().backward()
    assert order == ["w2", "h", "w1"] or order == ["h", "w2", "w1"]
    assert order.index("w2") < order.index("w1")


def test_callback_runs_at_the_end_of_the_pass():
    x = leaf(1.0)
    order = []

    def hook(p):
        queue_callback(lambda: order.append("end"))
        order.append("hook")

    x.register_post_accumulate_grad_hook(hook)
    (x * 2).sum().backward()
    assert order == ["hook", "end"]
    with pytest.raises(RuntimeError, match="no backward pass"):
        queue_callback(lambda: None)


def test_retain_grad_keeps_the_gradient_of_a_result():
    x = leaf(2.0)
    h = x * x
    h.retain_grad()
    (h * 3).sum().backward()
    assert h.grad.item() == 3.0


def test_modes_nest_and_belong_to_their_thread():
    x = leaf(1.0)
    with no_grad():
        assert not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
        seen = []
        other = threading.Thread(target=lambda: seen.append((x * 2).requires_grad))
        other.start()
        other.join()
        assert seen == [True]
    with inference_mode():
        assert not (x * 2).requires_grad
    with set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_mode_as_decorator_also_of_generators():
    x = leaf(1.0)

    @no_grad()
    def plain():
        return (x * 2).requires_grad

    @no_grad
    def bare():
        return (x * 2).requires_grad

    @no_grad()
    def steps():
        yield (x * 2).requires_grad
        yield (x * 2).requires_grad

    assert not plain()
    assert not bare()
    for inside in steps():
        assert not inside
        assert (x * 2).requires_grad


def test_mode_is_put_back_after_an_error():
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0  # noqa: B018
    assert (leaf(1.0) * 1).requires_grad


def test_leaves_share_no_gradient_that_a_rule_passed_on_or_only_viewed():
    for through in (lambda t: t, T.t):
        x, y = (T.ones(2, 3, dtype=T.float64, requires_grad=True) for _ in range(2))
        ((through(x) + through(y)) * 2).sum().backward()
        x.grad.zero_()
        np.testing.assert_array_equal(y.grad.numpy(), np.full((2, 3), 2.0))


def test_root_given_twice_counts_twice():
    x = T.ones(3, dtype=T.float64, requires_grad=True)
    y = x * 2
    backward([y, y], [T.ones(3, dtype=T.float64), T.full((3,), 10.0, dtype=T.float64)])
    np.testing.assert_array_equal(x.grad.numpy(), np.full(3, 22.0))


def test_one_of_several_results_as_a_root_and_inside_the_graph():
    x = T.ones(4, dtype=T.float64, requires_grad=True)
    first, second = x.split(2)
    ones = T.ones(2, dtype=T.float64)
    backward([first, first * 2, second * 5], [ones, ones, ones])
    np.testing.assert_array_equal(x.grad.numpy(), [3.0, 3.0, 5.0, 5.0])


def test_callback_waits_for_the_outermost_pass():
    order = []

    def inside(g):
        queue_callback(lambda: order.append("callback"))
        z = T.ones(2, requires_grad=True)
        with enable_grad():
            (z * 3).sum().backward()
        order.append("inner pass")

    x = T.ones(2, requires_grad=True)
    h = x * 2
    h.register_hook(inside)
    x.register_hook(lambda g: order.append("leaf"))
    h.sum().backward()
    assert order == ["inner pass", "leaf", "callback"]


def test_callback_of_an_inner_pass_runs_at_the_end_of_the_outermost():
    order = []

    def inside(g):
        z = T.ones(2, requires_grad=True)
        z.register_hook(lambda g: queue_callback(lambda: order.append("callback")))
        with enable_grad():
            (z * 3).sum().backward()
        order.append("inner pass")

    h = T.ones(2, requires_grad=True) * 2
    h.register_hook(inside)
    h.sum().backward()
    assert order == ["inner pass", "callback"]


def test_gradient_of_another_dtype_from_a_function_becomes_that_of_the_leaf():
    class Wide(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g.to(T.float64) * 2

    x = T.ones(2, requires_grad=True)
    Wide.apply(x).sum().backward()
    assert x.grad.dtype is T.float32
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 2.0])


def test_a_gradient_that_the_user_has_put_there_is_added_to_or_refused():
    """In any order in memory; not where elements lie on one another, and then it stays as it was."""
    values = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    x = T.tensor(values, requires_grad=True)
    x.grad = T.ones(3, 2).t()
    (x * x).sum().backward()
    assert x.grad.tolist() == [[3.0, 5.0, 7.0], [9.0, 11.0, 13.0]]
    for given in (T.tensor(1.0).expand(2, 3), T.ones(3).expand(2, 3)):
        x = T.tensor(values, requires_grad=True)
        x.grad = given
        with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
            (x * x).sum().backward()
        assert x.grad is given
        assert given.tolist() == [[1.0] * 3] * 2
