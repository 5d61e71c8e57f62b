"""Gradients at ties, zeros and kinks: PyTorch's, written down here as it gave them (and compared in `tests/parity`)."""

from __future__ import annotations

import math

import numpy as np
import pytest

import rushlight as torch
import rushlight.nn.functional as F

NAN, INF = math.nan, math.inf
T = [2.0, 1.0, 2.0, NAN]

CASES = {  # what is summed up, the leaf, its gradient
    "max of all shares": (lambda x: x.max(), [1.0, 3.0, 3.0], [0, 0.5, 0.5]),
    "max of all shares among NaN": (lambda x: x.max(), T, [0, 0, 0, 1]),
    "median of all shares": (lambda x: x.median(), [2.0, 1.0, 2.0, 5.0], [0.5, 0, 0.5, 0]),
    "max along a dimension picks": (lambda x: x.max(0)[0], [1.0, 3.0, 3.0], [0, 1, 0]),
    "amax shares": (lambda x: x.amax(0), [1.0, 3.0, 3.0], [0, 0.5, 0.5]),
    "maximum shares": (lambda x: torch.maximum(x, torch.tensor([2.0, 2.0, 1.0, 0.0])), T, [0.5, 0, 1, 1]),
    "minimum beside NaN": (lambda x: torch.minimum(x, torch.tensor([NAN, 2.0, 1.0, 0.0])), T, [1, 1, 0, 1]),
    "clamp takes its bounds": (lambda x: x.clamp(1, 2), [0.0, 1.0, 2.0, NAN], [0, 1, 1, 0]),
    "logaddexp of equals": (lambda x: torch.logaddexp(x, x.detach()), [0.0, 5.0], [0.5, 0.5]),
    "logaddexp2 of equals": (lambda x: torch.logaddexp2(x, x.detach()), [0.0, 5.0], [0.5, 0.5]),
    "atan2 at the origin": (lambda x: torch.atan2(x, x.detach()), [0.0, 1.0], [0, 0.5]),
    "xlogy at zero": (lambda x: torch.xlogy(x, torch.tensor([0.0, 1.0, 2.0])), [0.0, 0.0, 1.0], [0, 0, math.log(2)]),
    "copysign at zero": (lambda x: torch.copysign(x, torch.tensor(-1.0)), [0.0, 2.0, -2.0], [0, -1, 1]),
    "logit outside": (lambda x: torch.logit(x), [0.5, 1.0, 2.0], [4, INF, NAN]),
    "logit with eps": (lambda x: torch.logit(x, 0.1), [0.5, 0.05, 2.0], [4, 0, 0]),
    "remainder by the floor that was taken": (lambda x: torch.remainder(torch.tensor([20.0]), x), [0.1], [-199]),
    "prod with one zero": (lambda x: x.prod(), [2.0, 0.0, 3.0], [0, 6, 0]),
    "prod with two zeros": (lambda x: x.prod(), [0.0, 0.0, 3.0], [0, 0, 0]),
    "step of an infinite gradient": (lambda x: x.floor() * INF, [1.5], [0]),
    "multi_margin_loss at the margin": (
        lambda x: F.multi_margin_loss(x, torch.tensor(0), reduction="sum"),
        [1.0, 0.0],
        [0, 0],
    ),
    "adaptive max pool picks the first": (
        lambda x: F.adaptive_max_pool1d(x.reshape(1, 1, 5), 2),
        [1.0, 1.0, 1.0, 0.0, 0.0],
        [1, 0, 1, 0, 0],
    ),
    # of NaN PyTorch's loops say one thing and what is left over behind them another: these are its loops'
    "elu beside NaN": (lambda x: F.elu(x), [NAN, 0.0, 1.0], [NAN, 1, 1]),
    "celu beside NaN": (lambda x: F.celu(x, 2.0), [NAN, 0.0, 1.0], [NAN, 1, 1]),
    "selu beside NaN": (lambda x: F.selu(x), [NAN, 1.0], [NAN, 1.05070098]),
    "hardswish beside NaN": (lambda x: F.hardswish(x), [NAN, -3.0, 3.0], [NAN, 0, 1]),
    "hardtanh beside NaN": (lambda x: F.hardtanh(x), [NAN, -1.0, 0.5, 1.0], [0, 0, 1, 0]),
    "relu6 beside NaN": (lambda x: F.relu6(x), [NAN, 0.0, 3.0, 6.0], [0, 0, 1, 0]),
}
for p in (0.5, 1.0, 1.5, 2.0, 3.0, INF, -INF, -1.0):
    CASES[f"norm {p} of zeros"] = (lambda x, p=p: x.norm(p), [0.0, 0.0], [0, 0])
    CASES[f"normalize {p} of zeros"] = (lambda x, p=p: F.normalize(x, p, 0) * 1e-12, [0.0, 0.0], [1, 1])
    if p > 0:
        CASES[f"cdist {p} of equals"] = (lambda x, p=p: torch.cdist(x[None], x.detach()[None], p), [1.0, 2.0], [0, 0])
        CASES[f"pairwise {p} of equals"] = (
            lambda x, p=p: F.pairwise_distance(x, x.detach(), p, eps=0.0),
            [1.0, 2.0],
            [0, 0],
        )
CASES["norm 0.5 with one zero"] = (lambda x: x.norm(0.5), [0.0, 4.0], [0, 1])
CASES["norm inf shares"] = (lambda x: x.norm(INF), [3.0, -3.0, 1.0], [0.5, -0.5, 0])
CASES["cdist inf does not"] = (lambda x: torch.cdist(x[None], torch.zeros(1, 3), INF), [3.0, -3.0, 1.0], [1, -1, 0])


@pytest.mark.parametrize("name", CASES)
def test_gradient_where_there_is_none(name):
    function, values, want = CASES[name]
    x = torch.tensor(values, requires_grad=True)
    function(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.array(want, np.float32), rtol=2e-6, atol=1e-7)


def test_norm_of_order_zero_has_no_gradient():
    x = torch.tensor([0.0, 2.0], requires_grad=True)
    y = x.norm(0)
    assert y.requires_grad
    y.backward()
    assert x.grad is None


def test_corners_do_not_overflow():
    x = torch.tensor([1e30, 3e38, -INF])
    assert torch.equal(torch.hypot(x, x)[:1], torch.tensor([2**0.5 * 1e30]))
    np.testing.assert_array_equal(torch.logaddexp(x, x).numpy(), np.array([1e30, 3e38, -INF], np.float32))
