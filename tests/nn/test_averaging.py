"""Averaged models: the mean is one, the original stays untouched."""

import numpy as np
import pytest

import rushlight_nn as nn
import rushlight_tensor as T
from rushlight_autograd import no_grad
from rushlight_nn.averaging import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn, update_bn


def set_to(model, value):
    with no_grad():
        for p in model.parameters():
            p.fill_(value)


def test_an_equal_mean_of_what_it_was_given():
    model = nn.Linear(2, 2)
    mean = AveragedModel(model)
    for value in (1.0, 2.0, 6.0):
        set_to(model, value)
        mean.update_parameters(model)
    assert mean.n_averaged.item() == 3
    np.testing.assert_allclose(mean.module.weight.detach().numpy(), 3.0, rtol=1e-6)
    assert (model.weight.detach().numpy() == 6.0).all()
    assert mean(T.ones(1, 2)).shape == (1, 2)


def test_an_exponential_mean():
    model = nn.Linear(2, 2)
    one, all_at_once = (
        AveragedModel(model, avg_fn=get_ema_avg_fn(0.9)),
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    )
    for value in (1.0, 2.0):
        set_to(model, value)
        one.update_parameters(model)
        all_at_once.update_parameters(model)
    for mean in (one, all_at_once):
        np.testing.assert_allclose(mean.module.bias.detach().numpy(), 1.1, rtol=1e-6)


def test_statistics_of_batch_norm_are_made_anew():
    model = nn.Sequential(nn.BatchNorm1d(2)).eval()
    data = [T.full((4, 2), 3.0) + T.tensor([[-1.0], [1.0], [-1.0], [1.0]]) for _ in range(3)]
    update_bn(data, model)
    np.testing.assert_allclose(model[0].running_mean.numpy(), 3.0, rtol=1e-6)
    assert model[0].momentum == 0.1
    assert not model.training


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="Invalid decay value 2"):
        get_ema_avg_fn(2)
    with pytest.raises(AssertionError, match="Only one of avg_fn and multi_avg_fn"):
        AveragedModel(nn.Linear(1, 1), avg_fn=get_ema_avg_fn(), multi_avg_fn=get_ema_multi_avg_fn())
