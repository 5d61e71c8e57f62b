"""`compile(module)` is a module: the original's parameters, state, modes and attributes, run as a graph."""

import copy
import pickle

import pytest

import rushlight as torch
from rushlight import nn


def pair():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    return model, torch.compile(model)


def test_compiled_module_is_a_module_with_the_parameters_of_the_original():
    model, fast = pair()
    assert isinstance(fast, nn.Module)
    assert fast._orig_mod is model
    assert list(fast.parameters()) == list(model.parameters())
    assert [n for n, _ in fast.named_parameters()] == [f"_orig_mod.{n}" for n, _ in model.named_parameters()]
    assert list(fast.state_dict()) == [f"_orig_mod.{n}" for n in model.state_dict()]
    assert repr(fast).startswith("OptimizedModule(\n  (_orig_mod): Sequential(")
    torch.optim.SGD(fast.parameters(), lr=0.1)


def test_modes_and_attributes_are_those_of_the_original():
    model, fast = pair()
    assert fast.training
    fast.eval()
    assert not model.training
    assert not model[0].training
    model.train()
    assert fast.training
    fast.scale = 3
    assert (model.scale, fast.scale) == (3, 3)
    del fast.scale
    with pytest.raises(AttributeError, match="'Sequential' object has no attribute 'scale'"):
        fast.scale  # noqa: B018 - raises


def test_compiled_module_replays_and_says_what_it_runs():
    model, fast = pair()
    for k in (1.0, 2.0, 3.0):
        x = torch.randn(4, 2) * k
        twin = copy.deepcopy(model)
        assert torch.allclose(fast(x), twin(x))
    assert fast.traces == 1
    assert fast.breaks == []
    assert "linear" in str(fast.graph)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_compiled_modules_of_their_own(again):
    model, fast = pair()
    fast(torch.ones(2, 2))
    twin = again(fast)
    assert type(twin) is type(fast)
    assert twin._orig_mod is not model
    with torch.no_grad():
        twin._orig_mod[0].weight.zero_()
    fast.eval()
    twin.eval()
    x = torch.ones(2, 2)
    assert torch.allclose(fast(x), model(x))
    assert torch.allclose(twin(x), twin._orig_mod(x))
    assert not torch.allclose(fast(x), twin(x))
