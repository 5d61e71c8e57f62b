"""What a call costs beside the arithmetic: four elements, one thread, against NumPy and PyTorch.

Bars: over raw NumPy at most 0.7 us without grad and 1.2 us with; 1.2 times PyTorch's speed; 1.5 times for a chain of
100 `mul` forward and backward.
"""

from __future__ import annotations

import numpy as np
import torch

import rushlight
from benchmarks.harness import Row, run

FOUR = np.ones(4, np.float32)


def chain(x):
    """A hundred products and their gradient."""
    y = x
    for _ in range(100):
        y = y * x
    y.sum().backward()
    x.grad = None


def main() -> None:
    """Measure, print, and say what the overhead over NumPy is."""
    torch.set_num_threads(1)
    t, r = torch.ones(4), rushlight.ones(4)
    tg, rg = torch.ones(4, requires_grad=True), rushlight.ones(4, requires_grad=True)
    w = ("torch", "rushlight")
    rows = [
        Row("add", {"numpy": lambda: FOUR + FOUR, "torch": lambda: t + t, "rushlight": lambda: r + r}, 5000, (*w, 1.2)),
        Row("mul", {"numpy": lambda: FOUR * FOUR, "torch": lambda: t * t, "rushlight": lambda: r * r}, 5000, (*w, 1.2)),
        Row(
            "exp",
            {"numpy": lambda: np.exp(FOUR), "torch": lambda: t.exp(), "rushlight": lambda: r.exp()},
            5000,
            (*w, 1.2),
        ),
        Row(
            "mul by a number",
            {"numpy": lambda: FOUR * 2.0, "torch": lambda: t * 2.0, "rushlight": lambda: r * 2.0},
            5000,
            (*w, 1.2),
        ),
        Row(
            "add, grad",
            {"numpy": lambda: FOUR + FOUR, "torch": lambda: tg + tg, "rushlight": lambda: rg + rg},
            5000,
            (*w, 1.2),
        ),
        Row(
            "mul, grad",
            {"numpy": lambda: FOUR * FOUR, "torch": lambda: tg * tg, "rushlight": lambda: rg * rg},
            5000,
            (*w, 1.2),
        ),
        Row(
            "exp, grad",
            {"numpy": lambda: np.exp(FOUR), "torch": lambda: tg.exp(), "rushlight": lambda: rg.exp()},
            5000,
            (*w, 1.2),
        ),
        Row("100 mul, forward + backward", {"torch": lambda: chain(tg), "rushlight": lambda: chain(rg)}, 50, (*w, 1.5)),
    ]
    for record in run("overhead", rows):
        seconds = record["seconds"]
        if "numpy" in seconds:
            over = (seconds["rushlight"] - seconds["numpy"]) * 1e6
            bar = 1.2 if "grad" in record["name"] else 0.7
            print(
                f"  {record['name']:<34} over NumPy {over:.2f} us (bar {bar} "
                f"us){'' if over <= bar else '  below the bar'}"
            )


if __name__ == "__main__":
    main()
