"""Containers behave as the lists and dictionaries that they look like."""

import pytest

import rushlight_nn as nn
import rushlight_tensor as T


def test_sequential_as_a_list():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert len(net) == 3
    assert isinstance(net[-1], nn.Linear)
    assert isinstance(net[:2], nn.Sequential)
    assert list(net[1:].state_dict()) == ["2.weight", "2.bias"]
    net.append(nn.ReLU()).insert(0, nn.Identity()).extend([nn.Tanh()])
    assert [type(m).__name__ for m in net] == ["Identity", "Linear", "ReLU", "Linear", "ReLU", "Tanh"]
    assert isinstance(net.pop(0), nn.Identity)
    del net[-1]
    net[0] = nn.Linear(5, 3)
    assert net[0].in_features == 5
    assert len(net + net) == 2 * len(net)
    assert len(nn.Sequential(nn.ReLU()) * 3) == 3
    assert [n for n, _ in net.named_children()] == ["0", "1", "2", "3"]


def test_sequential_of_names():
    from collections import OrderedDict

    net = nn.Sequential(OrderedDict([("first", nn.Linear(2, 2)), ("second", nn.ReLU())]))
    assert net.first is net[0]
    assert list(net.state_dict()) == ["first.weight", "first.bias"]


def test_module_list():
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    layers += [nn.ReLU()]
    layers.insert(1, nn.Tanh())
    assert [type(m).__name__ for m in layers] == ["Linear", "Tanh", "Linear", "Linear", "ReLU"]
    assert isinstance(layers[1:3], nn.ModuleList)
    assert len(layers + [nn.ReLU()]) == 6
    del layers[1]
    assert "1.weight" in layers.state_dict()
    with pytest.raises(IndexError, match="index 9 is out of range"):
        layers[9]
    with pytest.raises(TypeError, match="should be called with an iterable"):
        layers.extend(3)
    with pytest.raises(NotImplementedError):
        layers(T.zeros(1))


def test_module_dict():
    layers = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.ReLU()})
    layers["c"] = nn.Tanh()
    layers.update([("a", nn.Linear(2, 2))])
    assert list(layers) == list(layers.keys()) == ["a", "b", "c"]
    assert layers["a"].in_features == 2
    assert "b" in layers
    assert isinstance(layers.pop("b"), nn.ReLU)
    assert len(layers) == 2
    layers.clear()
    assert len(layers) == 0


def test_parameter_list_and_dict():
    plist = nn.ParameterList([T.zeros(2), nn.Parameter(T.ones(1))])
    plist.append(T.zeros(3))
    assert all(isinstance(p, nn.Parameter) for p in plist)
    assert list(plist.state_dict()) == ["0", "1", "2"]
    assert len(plist[1:]) == 2
    plist[0] = T.ones(4)
    assert plist[0].shape == (4,)
    pdict = nn.ParameterDict({"w": T.zeros(2)})
    pdict["b"] = T.zeros(1)
    assert [n for n, _ in pdict.named_parameters()] == ["w", "b"]
    assert pdict.pop("b").shape == (1,)
    assert "b" not in pdict
    assert pdict.get("b") is None
