"""Averaged models against PyTorch's `optim.swa_utils`."""

import numpy as np
import pytest

import rushlight_nn as nn
import rushlight_tensor as T
from rushlight_nn import averaging

torch = pytest.importorskip("torch")
swa_utils = torch.optim.swa_utils

KINDS = {
    "equal": lambda u: {},
    "ema": lambda u: {"avg_fn": u.get_ema_avg_fn(0.9)},
    "ema-at-once": lambda u: {"multi_avg_fn": u.get_ema_multi_avg_fn(0.9), "use_buffers": True},
    "swa": lambda u: {"avg_fn": u.get_swa_avg_fn()},
}


@pytest.mark.parametrize("kind", KINDS)
def test_averages_are_pytorchs(kind):
    found = []
    for namespace, layers, utils in ((T, nn, averaging), (torch, torch.nn, swa_utils)):
        namespace.manual_seed(0)
        model = layers.Sequential(layers.Linear(3, 4), layers.BatchNorm1d(4))
        mean = utils.AveragedModel(model, **KINDS[kind](utils))
        for step in range(4):
            with namespace.no_grad() if namespace is torch else averaging.no_grad():
                for p in model.parameters():
                    p.copy_(p * 0.5 + step)
            model(namespace.randn(5, 3))
            mean.update_parameters(model)
        utils.update_bn([namespace.randn(6, 3) for _ in range(3)], mean)
        state = mean.state_dict()
        found.append((list(state), [v.numpy() for v in state.values()]))
    assert found[0][0] == found[1][0]
    for a, b in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
