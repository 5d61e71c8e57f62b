"""Who owns a gradient: what hooks, users and retained results hold is not what `.grad` goes on being added to."""

import numpy as np
import pytest

import rushlight_tensor as T
from rushlight_autograd import backward

pytestmark = pytest.mark.usefixtures("text")


def leaf(*values):
    return T.tensor(values, dtype=T.float64, requires_grad=True)


@pytest.mark.parametrize("function", [lambda a, b: a + b, lambda a, b: a - (-b), lambda a, b: T.cat([a, b])])
def test_leaves_below_a_hook_that_makes_a_new_gradient_do_not_share_it(function):
    a, b = leaf(1.0, 1.0), leaf(1.0, 1.0)
    for _ in range(3):
        h = function(a, b)
        h.register_hook(lambda g: g * 2)
        h.sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), [6.0, 6.0])
    np.testing.assert_array_equal(b.grad.numpy(), [6.0, 6.0])


@pytest.mark.parametrize("at", ["result", "leaf", "one of several results"])
def test_gradient_that_a_hook_returns_and_keeps_is_not_added_to(at):
    x, given = leaf(1.0, 1.0), T.ones(2, dtype=T.float64)
    if at == "leaf":
        x.register_hook(lambda g: given)
    for _ in range(3):
        y = x + 1
        if at == "result":
            y.register_hook(lambda g: given)
        elif at != "leaf":
            y = x.view(1, 2).unbind(0)[0]
            y.register_hook(lambda g: given)
        y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3.0, 3.0])
    np.testing.assert_array_equal(given.numpy(), [1.0, 1.0])


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    "answer", [lambda g: None, lambda g: g, lambda g: g * 1, lambda g: g.view(2, 1).view(2)], ids=range(4)
)
def test_what_the_hook_of_a_leaf_saw_and_returned_stays_as_it_was(answer, create_graph):
    x, kept = leaf(1.0, 1.0), []

    def hook(g):
        out = answer(g)
        kept.extend([g] if out is None else [g, out])
        return out

    x.register_hook(hook)
    (x * x).sum().backward(create_graph=create_graph)
    assert x.grad.requires_grad == create_graph
    x.grad.detach().zero_()
    (x * x).sum().backward(create_graph=create_graph)
    for g in kept:
        np.testing.assert_array_equal(g.detach().numpy(), [2.0, 2.0])


def test_retained_gradient_is_not_what_a_hook_kept():
    x, kept = leaf(1.0, 1.0), []
    y = x * 2
    y.retain_grad()
    y.register_hook(kept.append)
    (y * y).sum().backward()
    y.grad.zero_()
    np.testing.assert_array_equal(kept[0].detach().numpy(), [4.0, 4.0])
    np.testing.assert_array_equal(x.grad.numpy(), [8.0, 8.0])


def test_gradient_given_to_a_maximum_of_a_number_is_not_adopted():
    x, g = T.tensor(2.0, requires_grad=True), T.tensor(1.0)
    largest = x.max(0)[0]
    for _ in range(3):
        backward([largest], [g], retain_graph=True)
    assert (x.grad.item(), g.item()) == (3.0, 1.0)


def test_a_gradient_that_is_a_view_of_what_was_given_is_not_added_to():
    x, given = T.ones(2, 3).requires_grad_(), T.ones(6)
    x.view(6).backward(given)
    x.view(6).backward(given)
    given.mul_(5)
    np.testing.assert_array_equal(x.grad.numpy(), np.full((2, 3), 2.0))
    np.testing.assert_array_equal(given.numpy(), np.full(6, 5.0))
    x.grad = None
    x.view(6).backward(given)
    given.zero_()
    np.testing.assert_array_equal(x.grad.numpy(), np.full((2, 3), 5.0))
