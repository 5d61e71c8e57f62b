"""Properties of every layer: saved and loaded, copied, pickled, switched, differentiated."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import rushlight_nn as nn
import rushlight_tensor as T
from tests.nn.layers import EXAMPLES, NOT_CALLED

EVERY = [pytest.param(e, id=f"{name}-{i}") for name, group in EXAMPLES.items() for i, e in enumerate(group)]


def layer(example):
    T.manual_seed(0)
    return example.make(nn)


def tensors(result):
    if isinstance(result, T.Tensor):
        return [result]
    return [t for part in result if part is not None for t in tensors(part)]


def output(module, example, requires_grad=False):
    T.manual_seed(1)
    return tensors(module(*example.arguments(T, requires_grad)))


def test_every_layer_has_an_example():
    layers = {n for n, v in vars(nn).items() if inspect.isclass(v) and issubclass(v, nn.Module)}
    assert layers - NOT_CALLED == {n.partition("-")[0] for n in EXAMPLES}


@pytest.mark.parametrize("example", EVERY)
def test_state_dict_round_trip(example):
    module = layer(example)
    T.manual_seed(5)
    other = example.make(nn)
    assert str(other.load_state_dict(module.state_dict())) == "<All keys matched successfully>"
    module.eval(), other.eval()
    for a, b in zip(output(module, example), output(other, example), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("example", EVERY)
def test_a_copy_computes_the_same_and_shares_nothing(example, again):
    module = layer(example)
    copied = again(module)
    assert repr(copied) == repr(module)
    for a, b in zip(output(module, example), output(copied, example), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    for p, q in zip(module.parameters(), copied.parameters(), strict=True):
        assert type(q) is nn.Parameter
        assert q.requires_grad == p.requires_grad
        assert not np.shares_memory(p.detach().numpy(), q.detach().numpy())


@pytest.mark.parametrize("example", EVERY)
def test_train_and_eval_reach_every_part(example):
    module = layer(example)
    assert all(m.training for m in module.modules())
    assert module.eval() is module
    assert not any(m.training for m in module.modules())
    assert all(m.training for m in module.train().modules())


@pytest.mark.parametrize("example", EVERY)
def test_gradients_reach_inputs_and_parameters(example):
    module = layer(example).eval()
    arguments = example.arguments(T, requires_grad=True)
    total = sum((t * t).sum() for t in tensors(module(*arguments)) if t.requires_grad)
    if isinstance(total, int):
        pytest.skip("nothing to differentiate: all inputs are constant")
    total.backward()
    for name, p in module.named_parameters():
        assert p.grad is not None, name
        assert p.grad.shape == p.shape
        assert np.isfinite(p.grad.numpy()).all(), name
    for x in arguments:
        assert x.grad is None or np.isfinite(x.grad.numpy()).all()
    module.zero_grad()
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("example", EVERY)
def test_double_precision_all_the_way(example):
    module = layer(example).double()
    assert all(p.dtype is T.float64 for p in module.parameters())
    arguments = [a.double() if a.is_floating_point() else a for a in example.arguments(T)]
    assert all(t.dtype is T.float64 for t in tensors(module(*arguments)) if t.is_floating_point())


@pytest.mark.parametrize("example", EVERY)
def test_hooks_see_the_call_and_go_away(example):
    module = layer(example).eval()
    plain = output(module, example)
    seen = []
    handles = [
        module.register_forward_pre_hook(lambda m, args: seen.append("before")),
        module.register_forward_hook(lambda m, args, out: seen.append("after")),
    ]
    hooked = output(module, example)
    for handle in handles:
        handle.remove()
    output(module, example)
    assert seen == ["before", "after"]
    for a, b in zip(plain, hooked, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
