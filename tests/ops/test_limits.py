"""Gradients where limits meet and quotients are rounded, and curvature at the bottom of a loss."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight_nn.functional as F
import rushlight_tensor as rl
from rushlight_autograd import grad


def test_limits_that_are_equal_count_once():
    x = rl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    m = rl.tensor(2.0, requires_grad=True)
    dx, dm = grad(rl.clamp(x, m, m).sum(), (x, m))
    assert dx.tolist() == [0, 1, 0]
    assert dm.item() == 1


@pytest.mark.parametrize("mode", ["trunc", "floor"])
def test_rounded_quotients_by_zero_have_the_gradient_zero(mode):
    x, y = (rl.tensor([1.0, 0.0, -3.0], requires_grad=True), rl.tensor([0.0, 0.0, 2.0], requires_grad=True))
    for g in grad(rl.div(x, y, rounding_mode=mode).sum(), (x, y)):
        np.testing.assert_array_equal(g.numpy(), np.zeros(3))


@pytest.mark.parametrize("loss", [F.huber_loss, F.smooth_l1_loss])
def test_losses_are_curved_at_their_bottom(loss):
    x = rl.zeros(3, requires_grad=True)
    (g,) = grad(loss(x, rl.zeros(3), reduction="sum"), x, create_graph=True)
    assert grad(g.sum(), x)[0].tolist() == [1, 1, 1]
