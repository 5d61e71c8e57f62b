"""Chains of elementwise ops, compiled against eager: every length, size, broadcast and order in memory.

The bar is 1 everywhere: a compiled function is never slower.  Where the chain is too small for a replay to pay, the
compiled function runs it as it is (*Note [Small calls]* in `rushlight_jit/worth.py`), and the row shows what it costs
to call a function through an object.  `docs/chains.md` holds figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rushlight
from benchmarks.harness import Row, run

LENGTHS = (2, 4, 8, 16, 32)
SIZES = ((), (4,), (5, 7), (64, 64), (127, 129), (512, 512), (1000003,))
KINDS: dict[str, Callable[[Any], Any]] = {
    "row": lambda x: x[:1].contiguous(),
    "column": lambda x: x[:, :1].contiguous(),
    "scalar": lambda x: x[0, 0].clone(),
    "transposed": lambda x: rushlight.rand(*x.shape[::-1]).t(),
    "gaps": lambda x: rushlight.rand(x.shape[0], 2 * x.shape[1])[:, ::2],
}
"""What the second operand is, made from one that is like the first."""


def chain(length: int) -> Callable[[Any, Any], Any]:
    """Products and sums of two operands in turn."""

    def function(x: Any, y: Any) -> Any:
        h = x
        for i in range(length):
            h = h + y if i % 2 else h * y
        return h

    return function


def programs(length: int, x: Any, y: Any, grad: bool) -> dict[str, Callable[[], Any]]:
    """One chain as it is and compiled; forward, or forward and backward."""
    function = chain(length)
    x, g = x.clone().requires_grad_(grad), rushlight.ones(x.shape)

    def program(f: Callable[[Any, Any], Any]) -> Callable[[], Any]:
        if not grad:
            return lambda: f(x, y)

        def step() -> None:
            f(x, y).backward(g)
            x.grad = None

        return step

    out = {"eager": program(function), "compiled": program(rushlight.compile(chain(length)))}
    for _ in range(3):
        out["compiled"]()  # traced, built, replayed
    return out


def row(name: str, length: int, x: Any, y: Any, grad: bool) -> Row:
    """A row; small programs are called more often."""
    calls = max(3, min(2000, 4_000_000 // (length * (x.numel() + 1000))))
    label = f"{name}, {length} ops{', grad' if grad else ''}"
    return Row(label, programs(length, x, y, grad), calls, ("eager", "compiled", 1.0))


def rows() -> list[Row]:
    """The table."""
    rushlight.set_num_threads(1)
    out = []
    for grad in (False, True):
        for size in SIZES:
            out += [row(str(list(size)), n, rushlight.rand(size), rushlight.rand(size), grad) for n in LENGTHS]
        for kind, make in KINDS.items():
            for size in ((8, 8), (256, 250)):
                x = rushlight.rand(size)
                out += [row(f"{list(size)} {kind}", n, x, make(rushlight.rand(size)), grad) for n in (2, 8, 32)]
    return out


def main() -> None:
    """Measure, print, and list what is below the bar."""
    records = run("chains", rows(), 9)
    below = [(r["ratio"], r["name"]) for r in records if r["ratio"] < 1]
    print(f"  {len(records) - len(below)} of {len(records)} rows are not slower compiled")
    for ratio, name in sorted(below):
        print(f"  {name:<34} {ratio:.2f}")


if __name__ == "__main__":
    main()
