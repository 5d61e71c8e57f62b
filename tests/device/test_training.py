"""Whole models train on a device with the host's losses: MLP, digits CNN, nanoGPT, recurrent layers, transformers."""

from __future__ import annotations

import numpy as np
import pytest

import rushlight as torch
import rushlight.distributed as dist
import rushlight.nn.functional as F
from rushlight import nn
from rushlight_models.cnn import CNN
from rushlight_models.gpt import GPT, GPTConfig
from tests.cuda.machines import ONE_OF_EACH, using


@pytest.fixture(autouse=True, params=ONE_OF_EACH)
def machine(request):
    with using(request.param) as machine:
        yield machine


class Classifier(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, y):
        return F.cross_entropy(self.net(x), y)


class Tagger(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.table, self.layer, self.head = nn.Embedding(11, 6), layer, nn.Linear(10, 11)

    def forward(self, x):
        return F.cross_entropy(self.head(self.layer(self.table(x))[0]).reshape(-1, 11), x.reshape(-1))


class Squares(Classifier):
    def forward(self, *xs):
        return self.net(*xs).pow(2).mean()


def mlp():
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 4))
    return Classifier(net), (torch.randn(6, 8), torch.arange(6) % 4)


def cnn():
    return Classifier(CNN()), (torch.rand(8, 1, 8, 8), torch.arange(8) % 10)


def gpt():
    config = GPTConfig(vocab_size=17, block_size=8, n_layer=2, n_head=2, n_embd=16)
    return GPT(config), (torch.randint(0, 17, (3, 8)), torch.randint(0, 17, (3, 8)))


def recurrent(kind):
    return Tagger(kind(6, 5, 2, bidirectional=True, batch_first=True)), (torch.randint(0, 11, (3, 7)),)


def transformer():
    return Squares(nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)), (torch.randn(2, 5, 8),) * 2


MODELS = {
    "mlp": mlp,
    "digits CNN": cnn,
    "nanoGPT": gpt,
    "LSTM": lambda: recurrent(nn.LSTM),
    "GRU": lambda: recurrent(nn.GRU),
    "RNN": lambda: recurrent(nn.RNN),
    "transformer": transformer,
}
STEPS = 3


def losses(make, on, optimizer=torch.optim.AdamW, **options):
    """Losses of a few steps; parameters, gradients and state are where the model is."""
    torch.manual_seed(0)
    model, batch = make()
    model = model.cuda() if on == "cuda" else model
    batch = [x.to(on) for x in batch]
    steps = optimizer(model.parameters(), **{"lr": 1e-2, **options})
    seen = []
    for _ in range(STEPS):
        steps.zero_grad()
        out = model(*batch)
        loss = out[1] if isinstance(out, tuple) else out
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.step()
        seen.append(loss.item())
    held = [*model.parameters(), *(p.grad for p in model.parameters()), *model.buffers()]
    held += [v for state in steps.state.values() for v in state.values() if isinstance(v, torch.Tensor) and v.ndim]
    assert {x.device.type for x in held} == {on}
    return seen


@pytest.mark.parametrize("name", MODELS)
def test_model_trains_with_the_losses_of_the_host(name):
    np.testing.assert_allclose(losses(MODELS[name], "cuda"), losses(MODELS[name], "cpu"), rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        ("SGD", {"maximize": True}),
        ("Adam", {"amsgrad": True}),
        ("Adam", {"weight_decay": 0.1}),
        ("AdamW", {"maximize": True}),
        ("RMSprop", {"momentum": 0.9}),
        ("Adagrad", {}),
        ("Adadelta", {}),
        ("Adamax", {}),
        ("NAdam", {}),
        ("RAdam", {}),
    ],
)
def test_optimizers_do_the_steps_of_the_host(name, options):
    got, wanted = (losses(mlp, on, getattr(torch.optim, name), **options) for on in ("cuda", "cpu"))
    np.testing.assert_allclose(got, wanted, rtol=1e-3)


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0, float("inf")])
def test_gradient_norms(norm):
    def total(on):
        torch.manual_seed(0)
        layer = nn.Linear(3, 3).to(on)
        layer(torch.ones(2, 3).to(on)).sum().backward()
        found = nn.utils.clip_grad_norm_(layer.parameters(), 1.0, norm_type=norm, error_if_nonfinite=True)
        nn.utils.clip_grad_value_(layer.parameters(), 0.1)
        assert {found.device.type, layer.weight.grad.device.type} == {on}
        return [found.item(), *layer.weight.grad.flatten().tolist()]

    np.testing.assert_allclose(total("cuda"), total("cpu"), rtol=1e-5)


def test_state_of_an_optimizer_through_a_file(tmp_path):
    layer = nn.Linear(3, 3).cuda()
    steps = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2, 3, device="cuda")).sum().backward()
    steps.step()
    torch.save({"model": layer.state_dict(), "steps": steps.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt")
    again = nn.Linear(3, 3).cuda()
    more = torch.optim.Adam(again.parameters())
    again.load_state_dict(state["model"])
    more.load_state_dict(state["steps"])
    again.weight.grad = torch.ones_like(again.weight)
    more.step()
    here = nn.Linear(3, 3)
    here.load_state_dict(torch.load(tmp_path / "state.pt", map_location="cpu")["model"])
    assert here.weight.device.type == "cpu"


def test_distributed_training_in_a_world_of_one_stages_through_the_host():
    dist.init_process_group()
    try:
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).cuda()
        parallel = nn.parallel.DistributedDataParallel(model)
        for _ in range(2):
            parallel(torch.ones(3, 4, device="cuda")).sum().backward()
            assert {p.grad.device.type for p in model.parameters()} == {"cuda"}
        x = torch.ones(3, device="cuda")
        dist.all_reduce(x)
        dist.broadcast(x, 0)
        gathered = [torch.zeros(3, device="cuda")]
        dist.all_gather(gathered, x)
        assert (x.device.type, gathered[0].tolist()) == ("cuda", [1, 1, 1])
    finally:
        dist.destroy_process_group()
