"""Digits CNN and nanoGPT on the first GPU with the losses of the CPU, step by step: within 1e-3, or exit code 1.

`--stand-in` takes the tests' strict stand-in for CuPy instead of a GPU, and few steps: a rehearsal.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np

import rushlight as torch
import rushlight.nn.functional as F
from rushlight_data.digits import Digits
from rushlight_models.cnn import CNN
from rushlight_models.gpt import GPT, GPTConfig
from tests.device.standin import standing_in

TOLERANCE = 1e-3


def digits(on: str, steps: int) -> Iterator[float]:
    """The digits CNN with Adam, 64 images a step."""
    images, labels = zip(*(Digits()[i] for i in range(64 * min(steps, 20))), strict=True)
    x, y = torch.stack(list(images)), torch.tensor([int(label) for label in labels])
    model = CNN(dropout=0.0).to(on)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for i in range(steps):
        at = slice(64 * (i % 20), 64 * (i % 20) + 64)
        yield step(model, optimizer, lambda at=at: F.cross_entropy(model(x[at].to(on)), y[at].to(on)))


def gpt(on: str, steps: int) -> Iterator[float]:
    """A GPT of 4 layers with AdamW and clipping, 12 texts of 64 characters a step; a small one in a rehearsal."""
    layers, width, length, batch = (4, 128, 64, 12) if steps > 5 else (2, 16, 8, 3)
    model = GPT(GPTConfig(vocab_size=65, block_size=length, n_layer=layers, n_head=4, n_embd=width)).to(on)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    text = torch.tensor(np.random.default_rng(0).integers(0, 65, 5000) // 2 * 2)
    for i in range(steps):
        starts = [(i * batch + k) * 7 % (len(text) - length - 1) for k in range(batch)]
        x, y = (torch.stack([text[s + shift : s + shift + length] for s in starts]).to(on) for shift in (0, 1))
        yield step(model, optimizer, lambda x=x, y=y: model(x, y)[1])


def step(model: Any, optimizer: Any, loss: Callable[[], Any]) -> float:
    """One training step; its loss."""
    optimizer.zero_grad()
    value = loss()
    value.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(value)


def main() -> int:
    """Train both on both; 0 if they agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stand-in", action="store_true")
    options = parser.parse_args()
    agree = True
    with standing_in() if options.stand_in else nullcontext():
        for name, train, steps in (("digits CNN", digits, 60), ("nanoGPT", gpt, 40)):
            steps = 3 if options.stand_in else steps
            losses, seconds = {}, {}
            for on in ("cpu", "cuda"):
                torch.manual_seed(0)
                started = time.perf_counter()
                losses[on] = np.array(list(train(on, steps)))
                seconds[on] = time.perf_counter() - started
            worst = float(np.max(np.abs(losses["cuda"] - losses["cpu"]) / np.abs(losses["cpu"])))
            agree &= worst <= TOLERANCE
            print(
                f"{name}: {steps} steps, loss {losses['cuda'][0]:.4f} -> {losses['cuda'][-1]:.4f}, largest relative "
                f"difference {worst:.1e}, CPU {seconds['cpu']:.1f} s, GPU {seconds['cuda']:.1f} s",
                flush=True,
            )
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
