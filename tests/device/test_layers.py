"""Every layer on a device does what it does on the host: results, and gradients of inputs and parameters."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight_nn as nn
import rushlight_tensor as T
from tests.cuda.machines import ONE_OF_EACH, WHOLE, using
from tests.nn.layers import EXAMPLES

EVERY = [
    pytest.param(e, id=f"{name}-{i}")
    for name, group in EXAMPLES.items()
    for i, e in enumerate(group if WHOLE else group[:1])
]


@pytest.fixture(params=ONE_OF_EACH)
def machine(request):
    with using(request.param) as machine:
        yield machine


def tensors(value):
    if isinstance(value, T.Tensor):
        return [value]
    return [t for part in value if part is not None for t in tensors(part)] if isinstance(value, (tuple, list)) else []


def moved(value, on):
    if isinstance(value, T.Tensor):
        there = value.detach().to(on)
        return there.requires_grad_(value.requires_grad)
    return type(value)(moved(v, on) for v in value) if isinstance(value, (tuple, list)) else value


def run(example, on):
    T.manual_seed(0)
    module = example.make(nn).to(on)
    T.manual_seed(1)
    arguments = [moved(a, on) for a in example.arguments(T, True)]
    outs = tensors(module(*arguments))
    floats = [o for o in outs if o.requires_grad]
    if floats:
        sum((o * o).sum() for o in floats).backward()
    leaves = [*tensors(arguments), *module.parameters()]
    return outs + [x.grad for x in leaves if x.grad is not None]


@pytest.mark.parametrize("example", EVERY)
def test_layer_on_a_device(machine, example):
    for got, wanted in zip(run(example, "cuda"), run(example, "cpu"), strict=True):
        assert (got.device.type, got.dtype, got.shape) == ("cuda", wanted.dtype, wanted.shape)
        np.testing.assert_allclose(got.detach().cpu().numpy(), wanted.detach().numpy(), rtol=1e-3, atol=1e-4)
