"""Whole training steps, eager, on all cores: tiny MLP, digits CNN, nanoGPT."""

from __future__ import annotations

import torch

import rushlight
from benchmarks.harness import Row, run
from benchmarks.programs import both, digits_cnn, nano_gpt, tiny_mlp


def main() -> None:
    """Measure with as many threads as PyTorch uses."""
    rushlight.set_num_threads(torch.get_num_threads())
    w = ("torch", "rushlight")
    rows = [
        Row("tiny MLP 64-64-10, Adam", both(tiny_mlp), 50, (*w, 2.0)),
        Row("digits CNN, batch 64, Adam", both(digits_cnn), 3, (*w, 1.0)),
        Row("nanoGPT, AdamW, clip", both(nano_gpt), 3, (*w, 1.0)),
    ]
    run("steps", rows)


if __name__ == "__main__":
    main()
