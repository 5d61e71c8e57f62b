"""The training steps that are compared: one text each, run under rushlight and under PyTorch.

A program takes the framework (`rushlight` or `torch`) and returns a function that does one step.  Models come from
`rushlight_models`; for PyTorch the same files are loaded with their imports changed (`twin`).
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

Step = Callable[[], Any]


def twin(framework: ModuleType, name: str) -> ModuleType:
    """`rushlight_models.<name>`, or the same text on PyTorch."""
    if framework.__name__ == "rushlight":
        return importlib.import_module(f"rushlight_models.{name}")
    full = f"torch_twin_{name}"
    if full not in sys.modules:
        spec = importlib.util.find_spec(f"rushlight_models.{name}")
        assert spec is not None
        assert spec.origin is not None
        with open(spec.origin) as f:
            text = re.sub(r"\brushlight_nn\b", "torch.nn", f.read())
        module = ModuleType(full)
        sys.modules[full] = module
        exec(compile(re.sub(r"\brushlight_tensor\b", "torch", text), spec.origin, "exec"), module.__dict__)
    return sys.modules[full]


def _classifier_step(framework: Any, model: Any, x: Any, y: Any) -> Step:
    """One step of a classifier: cross-entropy, Adam."""
    optimizer = framework.optim.Adam(model.parameters(), lr=1e-3)
    loss_fn = framework.nn.CrossEntropyLoss()
    x, y = framework.from_numpy(x), framework.from_numpy(y)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def find(framework: Any, name: str) -> Step:
    """The program of a name: a training step of this file, or one of `small_ops`."""
    ops = small_ops(framework)
    return ops[name] if name in ops else globals()[name](framework)


def small_ops(framework: Any) -> dict[str, Step]:
    """Single calls on few elements, where all the time is overhead; `…, grad` are recorded."""
    x, g = framework.ones(4), framework.ones(4, requires_grad=True)
    m, mg = framework.ones(8, 8), framework.ones(8, 8, requires_grad=True)
    index = framework.tensor([1, 0, 3])

    def chain() -> None:
        y = g
        for _ in range(100):
            y = y * g
        y.sum().backward()
        g.grad = None

    calls: dict[str, Step] = {
        "add": lambda: x + x,
        "mul by a number": lambda: x * 2.0,
        "exp": lambda: x.exp(),
        "add, grad": lambda: g + g,
        "mul, grad": lambda: g * g,
        "exp, grad": lambda: g.exp(),
        "add in place": lambda: x.add_(0.0),
        "matmul": lambda: m @ m,
        "matmul, grad": lambda: mg @ mg,
        "sum": lambda: m.sum(),
        "sum along one": lambda: m.sum(1),
        "view": lambda: m.view(64),
        "x[i]": lambda: m[1],
        "x[i], grad": lambda: mg[1],
        "x[index]": lambda: m[index],
        "transpose": lambda: m.t(),
        "cat": lambda: framework.cat([m, m]),
        "clamp": lambda: x.clamp(0, 1),
        "softmax": lambda: m.softmax(1),
        "relu": lambda: framework.relu(m),
        "100 mul, forward + backward": chain,
    }
    return {name: _without_result(call) for name, call in calls.items()}


def _without_result(call: Step) -> Step:
    def step() -> None:
        call()

    return step


def tiny_mlp(framework: Any) -> Step:
    """64-64-10, batch 32, cross-entropy, Adam."""
    framework.manual_seed(0)
    nn = framework.nn
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    rng = np.random.default_rng(0)
    return _classifier_step(framework, model, rng.standard_normal((32, 64)).astype(np.float32), rng.integers(0, 10, 32))


def digits_cnn(framework: Any) -> Step:
    """The main job's network on 8×8 digits, batch 64, Adam; without dropout, whose masks would differ as steps do."""
    framework.manual_seed(0)
    model = twin(framework, "cnn").CNN(dropout=0.0)
    rng = np.random.default_rng(0)
    return _classifier_step(framework, model, rng.random((64, 1, 8, 8), np.float32), rng.integers(0, 10, 64))


def nano_gpt(framework: Any) -> Step:
    """4 layers, d 128, 4 heads, T 64, batch 12, vocabulary 65, AdamW, gradients clipped to norm 1."""
    framework.manual_seed(0)
    gpt = twin(framework, "gpt")
    model = gpt.GPT(gpt.GPTConfig(vocab_size=65, block_size=64, n_layer=4, n_head=4, n_embd=128))
    optimizer = framework.optim.AdamW(model.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)
    x = framework.from_numpy(rng.integers(0, 65, (12, 64)))
    y = framework.from_numpy(rng.integers(0, 65, (12, 64)))

    def step() -> Any:
        optimizer.zero_grad()
        _, loss = model(x, y)
        loss.backward()
        framework.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return step
