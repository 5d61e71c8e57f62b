"""Values that were silently wrong once, one test per bug; the expected ones are PyTorch's."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

import rushlight as torch
import rushlight.nn.functional as F


def test_circular_padding_wraps_around_what_is_left_after_cutting():
    x = torch.arange(4.0).reshape(1, 1, 4)
    assert F.pad(x, (-1, 2), mode="circular").tolist() == [[[1, 2, 3, 1, 2]]]
    assert F.pad(x, (2, -1), mode="circular").tolist() == [[[1, 2, 0, 1, 2]]]
    assert F.pad(x, (4, 4), mode="circular").tolist() == [[[0, 1, 2, 3] * 3]]


def test_cosine_similarity_broadcasts_before_it_measures():
    x, y = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0], [-2.0]])
    np.testing.assert_allclose(F.cosine_similarity(x, y).numpy(), [7 / 50**0.5, -7 / 50**0.5], rtol=1e-6)


def test_cosine_similarity_of_short_vectors_limits_each_norm():
    x = torch.tensor([[3e-9, 4e-9]], requires_grad=True)
    y = torch.tensor([[3.0, 4.0]])
    out = F.cosine_similarity(x, y)
    out.backward()
    np.testing.assert_allclose(out.item(), 0.5, rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), [[3e7, 4e7]], rtol=1e-5)


def test_covariance_and_correlation_of_one_variable_are_numbers():
    x = torch.tensor([[1.0, 2.0, 4.0]])
    assert torch.cov(x).shape == torch.corrcoef(x).shape == ()
    assert torch.corrcoef(x).item() == 1


def test_nan_of_a_quantile_takes_the_gradient():
    x = torch.tensor([1.0, float("nan"), 2.0], requires_grad=True)
    torch.quantile(x, 0.5).backward()
    assert x.grad.tolist() == [0, 1, 0]


def test_variance_and_its_gradient_of_complex_numbers():
    z = torch.tensor([3 + 4j, 1 - 2j], requires_grad=True)
    z.var().backward()
    assert z.var().item() == 20
    assert z.grad.tolist() == [2 + 6j, -2 - 6j]


def test_running_log_of_sums_spans_more_than_float_does():
    x = torch.tensor([-1000.0, 0.0, 1000.0], requires_grad=True)
    out = torch.logcumsumexp(x, 0)
    out.sum().backward()
    assert out.tolist() == [-1000, 0, 1000]
    assert x.grad.tolist() == [1, 1, 1]


def test_polygamma_far_left_of_zero_ends():
    """It counted up from there in steps of one: for -1e10 that took days."""
    x = torch.tensor([-1e10 + 0.5, -3e38, -np.inf, -300.25], dtype=torch.float64)
    values = torch.polygamma(2, x).tolist()
    assert values[1:3] == [-np.inf, -np.inf]
    np.testing.assert_allclose(values[::3], [0.0, float(mpmath.psi(2, -300.25))], rtol=1e-9, atol=1e-3)


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_weights_of_classes_have_no_gradient(loss):
    x, y = torch.zeros(2, 3, requires_grad=True), torch.tensor([0, 2])
    with pytest.raises(RuntimeError, match="not differentiable with respect to argument 'weight'"):
        loss(x, y, torch.ones(3, requires_grad=True))
    with torch.no_grad():
        loss(x, y, torch.ones(3, requires_grad=True))


def test_kinds_of_dtypes_are_asked_of_the_module():
    assert [torch.is_floating_point(t) for t in (torch.zeros(1), torch.zeros(1, dtype=torch.int32))] == [True, False]
    assert [torch.is_complex(t) for t in (torch.zeros(1), torch.zeros(1, dtype=torch.cfloat))] == [False, True]
