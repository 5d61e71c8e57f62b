"""Second derivatives where they are easily wrong: flat functions, kinks, targets without weight, parts that repeat."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight

torch = pytest.importorskip("torch")

X = np.array([[0.0, 1.0, -1.0, 2.0], [-0.5, 0.0, 0.3, -1.0]])
FUNCTIONS = {
    "elu": lambda m, f, x: f.elu(x),
    "elu of alpha": lambda m, f, x: f.elu(x, 0.3),
    "celu": lambda m, f, x: f.celu(x, 0.7),
    "selu": lambda m, f, x: f.selu(x),
    "prelu": lambda m, f, x: f.prelu(x, m.full((1,), 0.3, dtype=x.dtype)),
    "prelu of channels": lambda m, f, x: f.prelu(x, m.arange(4, dtype=x.dtype)),
    "leaky_relu": lambda m, f, x: f.leaky_relu(x, 0.3),
    "relu": lambda m, f, x: f.relu(x),
    "softshrink": lambda m, f, x: f.softshrink(x),
    "huber_loss": lambda m, f, x: f.huber_loss(x, m.zeros_like(x)),
    "huber_loss of delta": lambda m, f, x: f.huber_loss(x, m.zeros_like(x), delta=2.0, reduction="sum"),
    "smooth_l1_loss": lambda m, f, x: f.smooth_l1_loss(x, m.zeros_like(x)),
    "smooth_l1_loss of beta": lambda m, f, x: f.smooth_l1_loss(x, m.zeros_like(x), beta=0.4, reduction="none"),
    "huber_loss with weights": lambda m, f, x: f.huber_loss(
        x, m.zeros_like(x), weight=m.arange(8, dtype=x.dtype).reshape(2, 4)
    ),
    "prelu of itself": lambda m, f, x: f.prelu(x, x[0]),
    "fmod by zero": lambda m, f, x: m.fmod(m.ones_like(x), x)[x != 0],
    "fmod": lambda m, f, x: m.fmod(x * x, x[:, :1] + 0.3),
    "remainder": lambda m, f, x: m.remainder(x * x, x[:, :1] + 0.3),
    "rounded quotient": lambda m, f, x: m.div(x, x, rounding_mode="trunc") + x,
    "floor of a quotient": lambda m, f, x: m.div(x, x, rounding_mode="floor") + x,
    "conv1d": lambda m, f, x: f.conv1d(x[None], m.ones(3, 2, 2, dtype=x.dtype)),
    "conv2d": lambda m, f, x: f.conv2d(x[None, None], m.ones(3, 1, 2, 2, dtype=x.dtype)),
    "conv2d of itself": lambda m, f, x: f.conv2d(x[None, None], x[None, None, :, :2]),
    "conv_transpose2d": lambda m, f, x: f.conv_transpose2d(x[None, None], m.ones(1, 3, 2, 2, dtype=x.dtype)),
    "cross_entropy": lambda m, f, x: f.cross_entropy(x, m.tensor([0, -100])),
    "cross_entropy of nothing": lambda m, f, x: f.cross_entropy(x, m.tensor([-100, -100])),
    "cross_entropy smoothed": lambda m, f, x: f.cross_entropy(x, m.tensor([3, -100]), label_smoothing=0.2),
    "cross_entropy, sum of nothing": lambda m, f, x: f.cross_entropy(x, m.tensor([-100, -100]), reduction="sum"),
    "nll_loss": lambda m, f, x: f.nll_loss(x, m.tensor([1, 3]), m.arange(4, dtype=x.dtype)),
    "nll_loss without weight": lambda m, f, x: f.nll_loss(x, m.tensor([0, 0]), m.arange(4, dtype=x.dtype)),
    "nll_loss of nothing": lambda m, f, x: f.nll_loss(x, m.tensor([-100, -100])),
    "nll_loss of each": lambda m, f, x: f.nll_loss(x, m.tensor([0, -100]), reduction="none"),
    "circular": lambda m, f, x: f.pad(x[None], (2, 1), mode="circular"),
    "circular and cut": lambda m, f, x: f.pad(x[None], (-1, 2), mode="circular"),
}  # fmt: skip


def derivatives(m, name):
    """The value, the gradient, whether it has one itself, and that; and the gradient without `create_graph`."""
    x = m.tensor(X, requires_grad=True)
    y = FUNCTIONS[name](m, m.nn.functional, x)
    c = m.arange(1, y.numel() + 1, dtype=x.dtype).reshape(y.shape)
    (once,) = m.autograd.grad((y * c).sum(), x, retain_graph=True)
    (g,) = m.autograd.grad((y * c).sum(), x, create_graph=True)
    second = m.autograd.grad((g * g).sum(), x, allow_unused=True)[0] if g.requires_grad else None
    if g.requires_grad and second is None:  # of convolution with constant weights: none in PyTorch, zeros here
        second = m.zeros_like(x)
    return [None if t is None else t.detach().numpy() for t in (y, once, g, second)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_and_second_derivatives(name):
    for want, got in zip(derivatives(torch, name), derivatives(rushlight, name), strict=True):
        assert (want is None) == (got is None)
        if want is not None:
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("widths", [(-2, 4), (-3, 3), (-1, 4), (-2, 3), (-1, 3)])
def test_circular_padding_of_what_is_left(widths):  # PyTorch's gradient forgets elements that come three times
    x = rushlight.tensor(X[None], requires_grad=True)
    want = torch.nn.functional.pad(torch.tensor(X[None]), widths, mode="circular")
    y = rushlight.nn.functional.pad(x, widths, mode="circular")
    np.testing.assert_array_equal(y.detach().numpy(), want.numpy())
    y.sum().backward()
    assert x.grad.sum().item() == y.numel()
