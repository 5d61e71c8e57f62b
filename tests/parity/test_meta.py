"""`device="meta"`: tensors without data look, compute and refuse as PyTorch's do."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest

import rushlight as rl
from tests.parity.outcome import outcome

torch = pytest.importorskip("torch")


def seen(value):
    """What there is to see of a result without values."""
    if isinstance(value, (list, tuple)) and not hasattr(value, "numel"):
        return [seen(v) for v in value]
    if not hasattr(value, "is_meta"):
        return value
    return str(value.device), str(value.dtype), tuple(value.shape), value.stride(), value.requires_grad


def both(function):
    ours, theirs = (outcome(lambda t: seen(function(t)), t) for t in (rl, torch))
    if isinstance(ours, tuple) and ours and ours[0] == "TwoDevicesError":  # which is one
        ours = ("RuntimeError", *ours[1:])
    return ours, theirs


MAKE = {
    "empty": lambda t: t.empty(2, 3, device="meta"),
    "empty channels last": lambda t: t.empty(2, 3, 4, 5, device="meta", memory_format=t.channels_last),
    "zeros": lambda t: t.zeros(2, 3, device="meta", dtype=t.float64),
    "ones": lambda t: t.ones((2, 0), device="meta", requires_grad=True),
    "full": lambda t: t.full((2,), 3, device=t.device("meta")),
    "tensor": lambda t: t.tensor([[1.0, 2.0]], device="meta"),
    "tensor of ints": lambda t: t.tensor(3, device="meta:0"),
    "as_tensor": lambda t: t.as_tensor([True], device="meta"),
    "arange": lambda t: t.arange(5, device="meta"),
    "linspace": lambda t: t.linspace(0, 1, 5, device="meta"),
    "eye": lambda t: t.eye(3, device="meta"),
    "rand": lambda t: t.rand(3, device="meta"),
    "randn": lambda t: t.randn(3, 2, device="meta", requires_grad=True),
    "randint": lambda t: t.randint(0, 5, (3,), device="meta"),
    "randperm": lambda t: t.randperm(4, device="meta"),
    "zeros_like": lambda t: t.zeros_like(t.ones(3, 2).t(), device="meta"),
    "empty_like": lambda t: t.empty_like(t.empty(3, 2, device="meta").t()),
    "rand_like": lambda t: t.rand_like(t.empty(3, 2, device="meta")),
    "new": lambda t: t.empty(3, device="meta").new_zeros(2),
    "to": lambda t: t.ones(2, 3).t().to("meta"),
    "to with dtype": lambda t: t.ones(2, 3).to("meta", t.float16),
    "to itself": lambda t: (lambda x: x.to("meta") is x)(t.empty(2, device="meta")),
}


@pytest.mark.parametrize("name", MAKE)
def test_tensors_without_data_are_made(name):
    ours, theirs = both(MAKE[name])
    assert ours == theirs


X = {
    "x": lambda t: t.empty(2, 3, device="meta"),
    "transposed": lambda t: t.empty(3, 2, device="meta").t(),
    "with grad": lambda t: t.empty(2, 3, device="meta", requires_grad=True),
}
USE = {
    "add": lambda t, x: x + 1,
    "add both": lambda t, x: x + x.t().contiguous().t(),
    "number of the host": lambda t, x: t.tensor(2.0) * x,
    "matmul": lambda t, x: x @ x.t(),
    "sum": lambda t, x: x.sum(0),
    "keepdim": lambda t, x: x.mean(1, keepdim=True),
    "max": lambda t, x: tuple(x.max(0)),
    "softmax": lambda t, x: x.softmax(0),
    "cumsum": lambda t, x: x.cumsum(0),
    "sort": lambda t, x: tuple(x.contiguous().sort(0)),
    "where": lambda t, x: t.where(x > 0, x, 0.0),
    "cat": lambda t, x: t.cat([x, x]),
    "stack": lambda t, x: t.stack([x, x], 1),
    "index": lambda t, x: x[1, 1:],
    "rows by index": lambda t, x: x[t.tensor([0, 1, 0])],
    "mask of the host": lambda t, x: x[:, t.tensor([True, False, True])],
    "gather": lambda t, x: x.gather(0, t.zeros(1, 3, dtype=t.int64, device="meta")),
    "bool": lambda t, x: (x > 0).any(),
    "half": lambda t, x: x.half() * 2,
    "int": lambda t, x: x.int(),
    "promotion": lambda t, x: x.half() + t.ones(3, dtype=t.float64, device="meta"),
    "reshape": lambda t, x: x.reshape(-1),
    "expand": lambda t, x: x[:, :1].expand(2, 4),
    "unbind": lambda t, x: x.unbind(1),
    "list": lambda t, x: list(x),
    "offset": lambda t, x: x[1, 1:].storage_offset(),
    "clone": lambda t, x: x.clone(),
    "contiguous": lambda t, x: x.contiguous(),
    "data_ptr": lambda t, x: x.data_ptr(),
    "device": lambda t, x: str(x.device),
    "get_device": lambda t, x: x.get_device(),
    "repr": lambda t, x: repr(x),
    "repr of a result": lambda t, x: repr(x * 2),
    "repr of ints": lambda t, x: repr(x.long()[0]),
    "repr of a number": lambda t, x: f"{x[0, 0].detach()}",
    "normal_": lambda t, x: x.detach().normal_(),
    "dropout": lambda t, x: t.nn.functional.dropout(x),
    "bernoulli": lambda t, x: t.bernoulli(x.detach().contiguous()),
    "multinomial": lambda t, x: t.multinomial(x.detach(), 2),
    "copy_": lambda t, x: x.detach().copy_(t.ones(2, 3)),
    "fill_": lambda t, x: x.detach().fill_(3),
    "one_hot": lambda t, x: t.nn.functional.one_hot(x.long().contiguous(), 4),
    "linear": lambda t, x: t.nn.functional.linear(x, t.empty(4, 3, device="meta")),
    "layer_norm": lambda t, x: t.nn.functional.layer_norm(x, (3,)),
    "deepcopy": lambda t, x: copy.deepcopy(x),
    "pickle": lambda t, x: pickle.loads(pickle.dumps(x)),
    "grad": lambda t, x: t.autograd.grad((x.requires_grad_() ** 2).sum(), x)[0].shape,
    "second": lambda t, x: t.autograd.grad(
        t.autograd.grad((x.requires_grad_() ** 3).sum(), x, create_graph=True)[0].sum(), x
    ),
    # refused
    "item": lambda t, x: x.sum().item(),
    "if": lambda t, x: bool(x.sum() > 0),
    "float": lambda t, x: float(x.sum()),
    "tolist": lambda t, x: x.detach().tolist(),
    "numpy": lambda t, x: x.detach().numpy(),
    "cpu": lambda t, x: x.cpu(),
    "to cpu": lambda t, x: x.to("cpu"),
    "copy to the host": lambda t, x: t.ones(2, 3).copy_(x),
    "two devices": lambda t, x: x + t.ones(2, 3),
    "two devices, reversed": lambda t, x: t.ones(2, 3) + x,
    "two devices, where": lambda t, x: t.where(x > 0, x, t.ones(2, 3)),
    "shapes": lambda t, x: x + t.empty(4, device="meta"),
    "leaf": lambda t, x: x.detach().requires_grad_().add_(1),
    "larger": lambda t, x: x.detach()[0].add_(x),
    "view": lambda t, x: x.t().view(-1) if x.is_contiguous() else x.view(-1),
    "nonzero": lambda t, x: x.nonzero(),
    "mask": lambda t, x: x[x > 0],
    "masked_select": lambda t, x: t.masked_select(x, x > 0),
    "unique": lambda t, x: x.unique(),
    "bincount": lambda t, x: t.bincount(x.long().reshape(-1)),
    "equal": lambda t, x: t.equal(x, x),
    "format": lambda t, x: f"{x.sum():.2f}",
    "dlpack": lambda t, x: x.detach().__dlpack__(),
}


SAID_OTHERWISE = (
    "two devices", "two devices, reversed", "two devices, where", "shapes", "larger", "nonzero", "mask",
    "masked_select", "unique", "bincount", "equal", "dlpack",
)  # fmt: skip
"""Where the type of the error is PyTorch's, and the text says more, or as for tensors with data."""


@pytest.mark.parametrize("of", X)
@pytest.mark.parametrize("name", USE)
def test_tensors_without_data_are_used(name, of):
    ours, theirs = both(lambda t: USE[name](t, X[of](t)))
    if name in SAID_OTHERWISE:
        assert type(ours) is type(theirs)
        ours, theirs = ours[0], theirs[0]
    assert ours == theirs


def test_nothing_is_drawn():
    for t in (rl, torch):
        t.manual_seed(0)
        wanted = t.rand(1).item()
        t.manual_seed(0)
        x = t.randn(3, device="meta")
        t.nn.functional.dropout(x.normal_())
        t.randperm(3, device="meta")
        assert t.rand(1).item() == wanted


def test_the_default_device_is_chosen_by_a_context():
    def made(t):
        with t.device("meta"):
            layer = t.nn.Linear(2, 3)
            with t.device("cpu"):
                inner = t.ones(2)
            there = t.from_numpy(np.zeros(2, np.float32))
            return [layer.weight, inner, there, t.arange(3), t.rand(2), t.tensor(1.0), t.ones(3, device="cpu")]

    ours, theirs = both(made)
    assert ours == theirs
    assert rl.ones(1).device.type == "cpu"


def test_the_default_device_can_be_set():
    def made(t):
        t.set_default_device("meta")
        try:
            return [str(t.get_default_device()), t.ones(2), t.nn.Linear(2, 3).bias]
        finally:
            t.set_default_device(None)

    ours, theirs = both(made)
    assert ours == theirs
    assert rl.ones(1).device.type == "cpu"


def state(t):
    t.manual_seed(0)
    return t.nn.Linear(2, 3).state_dict()


MODULES = {
    "to": lambda t: list(t.nn.Linear(2, 3).to("meta").parameters()),
    "to the host": lambda t: t.nn.Linear(2, 3, device="meta").to("cpu"),
    "to_empty": lambda t: list(t.nn.Linear(2, 3, device="meta").to_empty(device="cpu").parameters()),
    "of no memory": lambda t: t.nn.Linear(10**5, 10**6, device="meta").weight,
    "batch norm": lambda t: list(t.nn.BatchNorm2d(3, device="meta").state_dict().values()),
    "assign": lambda t: (lambda m: (m.load_state_dict(state(t), assign=True), list(m.parameters()))[1])(
        t.nn.Linear(2, 3, device="meta")
    ),
    "copy into nothing": lambda t: (lambda m: (m.load_state_dict(state(t)), list(m.parameters()))[1])(
        t.nn.Linear(2, 3, device="meta")
    ),
    "copy nothing": lambda t: t.nn.Linear(2, 3).load_state_dict(t.nn.Linear(2, 3, device="meta").state_dict()),
    "train": lambda t: train(t),
    "lstm": lambda t: (lambda o: (o[0], *o[1]))(t.nn.LSTM(3, 4, 2, device="meta")(t.ones(5, 2, 3, device="meta"))),
    "gru": lambda t: gradients(t, t.nn.GRU(3, 4, device="meta"), t.ones(5, 2, 3, device="meta")),
    "transformer": lambda t: gradients(
        t, t.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, device="meta"), t.ones(2, 5, 8, device="meta")
    ),
    "clip_grad_norm_": lambda t: (
        gradients(t, m := t.nn.Linear(3, 2, device="meta"), t.ones(4, 3, device="meta")),
        t.nn.utils.clip_grad_norm_(m.parameters(), 1.0),
    ),
    "initialised": lambda t: [
        getattr(t.nn.init, name)(t.empty(3, 3, device="meta"))
        for name in ("xavier_uniform_", "kaiming_normal_", "trunc_normal_", "orthogonal_", "zeros_")
    ],
    "convolution looks contiguous": lambda t: t.nn.Conv2d(3, 4, 3, device="meta")(t.ones(2, 3, 8, 8, device="meta")),
    "deepcopy": lambda t: list(copy.deepcopy(t.nn.Linear(2, 3, device="meta")).parameters()),
}


def gradients(t, module, x):
    out = module(x)
    (out[0] if isinstance(out, tuple) else out).sum().backward()
    return [p.grad for p in module.parameters()]


def train(t):
    with t.device("meta"):
        model = t.nn.Sequential(
            t.nn.Conv2d(3, 4, 3),
            t.nn.BatchNorm2d(4),
            t.nn.ReLU(),
            t.nn.MaxPool2d(2),
            t.nn.Flatten(),
            t.nn.Linear(36, 5),
        )
        x, y = t.rand(2, 3, 8, 8), t.zeros(2, dtype=t.int64)
    optimizer = t.optim.Adam(model.parameters())
    loss = t.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return [loss, *[p.grad for p in model.parameters()]]


@pytest.mark.parametrize("name", MODULES)
def test_modules_without_data(name):
    ours, theirs = both(MODULES[name])
    assert ours == theirs


def test_files_hold_no_data_of_them():
    def again(t):
        file = io.BytesIO()
        t.save({"w": t.empty(3, 2, device="meta").t()}, file)
        file.seek(0)
        return t.load(file)["w"]

    ours, theirs = both(again)
    assert ours == theirs
