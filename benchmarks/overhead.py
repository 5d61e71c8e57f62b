"""What a call costs beside the arithmetic: small tensors, one thread, against NumPy and PyTorch.

Bars, over four elements: not above NumPy's own time on the arrays without grad, 1.3 times it with; 2.3 times PyTorch's
speed without grad, 2.8 times with; 2.5 times for a chain of 100 `mul` forward and backward; 2 times for row ops forward
and backward; every further small op as fast as PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as torch_functional

import rushlight
import rushlight.nn.functional as functional
from benchmarks.harness import Row, run

FOUR = np.ones(4, np.float32)
AGAINST = ("torch", "rushlight")

Program = Callable[..., Any]


def pair(name: str, make: Callable[[Any, Any], Callable[[], Any]], bar: float, calls: int = 2000, **more: Any) -> Row:
    """A row of one program, made for each of the two libraries from its module and its `functional`."""
    programs = {**more, "torch": make(torch, torch_functional), "rushlight": make(rushlight, functional)}
    return Row(name, programs, calls, (*AGAINST, bar))


def elementwise() -> list[Row]:
    """Ops on four numbers, beside NumPy."""
    programs: dict[str, tuple[Program, Callable[[], Any]]] = {
        "add": (lambda x: x + x, lambda: np.add(FOUR, FOUR)),
        "mul": (lambda x: x * x, lambda: np.multiply(FOUR, FOUR)),
        "exp": (lambda x: x.exp(), lambda: np.exp(FOUR)),
        "mul by a number": (lambda x: x * 2.0, lambda: np.multiply(FOUR, 2.0)),
    }
    rows = []
    for grad, bar in ((False, 2.3), (True, 2.8)):
        for name, (program, numpy) in programs.items():

            def make(t: Any, f: Any, program: Program = program, grad: bool = grad) -> Callable[[], Any]:
                x = t.ones(4, requires_grad=grad)
                return lambda: program(x)

            rows.append(pair(f"{name}, grad" if grad else name, make, bar, 5000, numpy=numpy))
    return rows


def chain(t: Any, f: Any) -> Callable[[], None]:
    """A hundred products and their gradient."""
    x = t.ones(4, requires_grad=True)

    def step() -> None:
        y = x
        for _ in range(100):
            y = y * x
        y.sum().backward()
        x.grad = None

    return step


def rows_op(program: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any], Callable[[], None]]:
    """A row op on 8 rows of 16, forward and backward."""

    def make(t: Any, f: Any) -> Callable[[], None]:
        x, w, b = t.ones(8, 16, requires_grad=True), t.ones(16, requires_grad=True), t.zeros(16, requires_grad=True)
        g = t.ones(8, 16)

        def step() -> None:
            program(f, x, (w, b)).backward(g)
            x.grad = w.grad = b.grad = None

        return step

    return make


def small_ops() -> list[Row]:
    """Twenty ops on small tensors, without grad and, where there is one, with it."""
    index = [2, 0, 1, 3]
    programs: dict[str, Callable[[Any, Any, Any, Any, Any], Any]] = {
        "matmul 8x8": lambda t, f, x, i, m: x @ x,
        "sum": lambda t, f, x, i, m: x.sum(),
        "sum of dim 1": lambda t, f, x, i, m: x.sum(1),
        "mean": lambda t, f, x, i, m: x.mean(),
        "max": lambda t, f, x, i, m: x.max(),
        "max of dim 1": lambda t, f, x, i, m: x.max(1),
        "cat": lambda t, f, x, i, m: t.cat([x, x]),
        "stack": lambda t, f, x, i, m: t.stack([x, x]),
        "clamp": lambda t, f, x, i, m: x.clamp(-1.0, 1.0),
        "x[i]": lambda t, f, x, i, m: x[2],
        "x[i, j]": lambda t, f, x, i, m: x[2, 3],
        "x[a:b]": lambda t, f, x, i, m: x[2:5],
        "index_select": lambda t, f, x, i, m: x.index_select(0, i),
        "gather": lambda t, f, x, i, m: x.gather(1, i.view(-1, 1)),
        "where": lambda t, f, x, i, m: t.where(m, x, x),
        "view": lambda t, f, x, i, m: x.view(64),
        "transpose": lambda t, f, x, i, m: x.transpose(0, 1),
        "softmax": lambda t, f, x, i, m: f.softmax(x, -1),
        "embedding": lambda t, f, x, i, m: f.embedding(i, x),
        "dropout": lambda t, f, x, i, m: f.dropout(x, 0.5, True),
        "mse_loss": lambda t, f, x, i, m: f.mse_loss(x, x),
        "cross_entropy": lambda t, f, x, i, m: f.cross_entropy(x[:4], i),
    }
    rows = []
    for grad in (False, True):
        for name, program in programs.items():

            def make(t: Any, f: Any, program: Any = program, grad: bool = grad) -> Callable[[], Any]:
                x = t.tensor(np.linspace(-2, 2, 64, dtype=np.float32).reshape(8, 8), requires_grad=grad)
                i, m = t.tensor(index), t.ones(8, 8, dtype=t.bool)
                return lambda: program(t, f, x, i, m)

            rows.append(pair(f"{name}, grad" if grad else name, make, 1.0))
    return rows


def main() -> None:
    """Measure, print, and say what is above NumPy."""
    torch.set_num_threads(1)
    rows = [
        *elementwise(),
        pair("100 mul, forward + backward", chain, 2.5, 50),
        pair("softmax 8x16, forward + backward", rows_op(lambda f, x, w: f.softmax(x, -1)), 2.0, 500),
        pair("layer_norm 8x16, forward + backward", rows_op(lambda f, x, w: f.layer_norm(x, (16,), *w)), 2.0, 500),
        *small_ops(),
    ]
    for record in run("overhead", rows):
        seconds = record["seconds"]
        if "numpy" in seconds:
            ratio, bar = seconds["rushlight"] / seconds["numpy"], 1.3 if "grad" in record["name"] else 1.0
            print(f"  {record['name']:<34} {ratio:.2f} of NumPy (bar {bar}){'' if ratio <= bar else '  above the bar'}")


if __name__ == "__main__":
    main()
