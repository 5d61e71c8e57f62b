"""The models against the same text on PyTorch: same seed, same losses."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import rushlight_models as models
import rushlight_nn as nn
import rushlight_optim as optim
import rushlight_tensor as T

torch = pytest.importorskip("torch")


def twin(name):
    """A file of `rushlight_models` with its imports changed to PyTorch's."""
    full = f"torch_twin_of_{name}"
    if full not in sys.modules:
        spec = find_spec(f"rushlight_models.{name}")
        text = Path(spec.origin).read_text()
        for ours, theirs in (("rushlight_nn", "torch.nn"), ("rushlight_tensor", "torch")):
            text = re.sub(rf"\b{ours}\b", theirs, text)
        sys.modules[full] = ModuleType(full)
        exec(compile(text, full, "exec"), sys.modules[full].__dict__)
    return sys.modules[full]


IMAGES = np.random.RandomState(0).rand(32, 1, 8, 8).astype(np.float32)
LABELS = np.random.RandomState(1).randint(0, 10, 32)
TOKENS = np.random.RandomState(2).randint(0, 20, (4, 13))

CASES = {
    "mlp": ("mlp", lambda m: m.MLP(64, [32], 10, dropout=0.2)),
    "cnn": ("cnn", lambda m: m.CNN(channels=8, hidden=32, dropout=0.25)),
    "resnet": ("resnet", lambda m: m.ResNet18(in_channels=1, width=4)),
    "lstm": ("lstm", lambda m: m.LSTMLanguageModel(20, 16, 24, 2, dropout=0.1)),
    "gpt": ("gpt", lambda m: m.GPT(m.GPTConfig(20, 12, n_layer=2, n_head=2, n_embd=16, dropout=0.1, bias=True))),
}


def losses(namespace, layers, optimizers, module, make, steps, optimizer):
    """The losses of a training run from seed 0."""
    namespace.manual_seed(0)
    model = make(module)
    opt = getattr(optimizers, optimizer)(model.parameters(), lr=1e-3)
    images, labels, tokens = (namespace.tensor(a) for a in (IMAGES, LABELS, TOKENS))
    name, seen = type(model).__name__, []
    for _ in range(steps):
        if name == "GPT":
            _, loss = model(tokens[:, :-1], tokens[:, 1:])
        elif name == "LSTMLanguageModel":
            logits, _ = model(tokens[:, :-1])
            loss = layers.functional.cross_entropy(logits.reshape(-1, 20), tokens[:, 1:].reshape(-1))
        else:
            loss = layers.functional.cross_entropy(model(images), labels)
        opt.zero_grad()
        loss.backward()
        layers.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        seen.append(loss.item())
    return seen


@pytest.mark.parametrize(("name", "steps", "tolerance"), [
    ("mlp", 50, 1e-5), ("cnn", 50, 1e-5), ("lstm", 30, 1e-5), ("gpt", 30, 1e-5), ("resnet", 4, 1e-3),
])  # fmt: skip
def test_same_seed_same_losses(name, steps, tolerance):
    file, make = CASES[name]
    ours = losses(T, nn, optim, models, make, steps, "AdamW")
    theirs = losses(torch, torch.nn, torch.optim, twin(file), make, steps, "AdamW")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_models_print_as_pytorchs_and_load_its_weights(name):
    file, make = CASES[name]
    theirs = make(twin(file))
    ours = make(models)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict({k: T.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
