"""Calls drawn from a prototype alone: any numbers, and arrays of just the lengths that it declares for them.

A kernel that reads or writes outside of its declaration meets a guard zone here, or the sanitizer.
"""

from __future__ import annotations

import ast
import os
import re
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rushlight_tensor.kernels import prototype
from rushlight_tensor.kernels.compile import SOURCES

SANITIZED = "fsanitize" in os.environ.get("RUSHLIGHT_CFLAGS", "")
GUARD = 64  # elements on either side, where no sanitizer puts zones of its own
MOST = 50_000  # elements of all arrays of a call
SMALL = st.sampled_from([0, 1, 1, 2, 2, 3, 4, 5, 7, 8, 13, 17, 33, 65])
LOOSE = st.sampled_from([-3, -1, 0, 0, 1, 1, 2, 3, 8, 100, 2**31 - 1])
INDEX = st.sampled_from([-(2**31), -100, -2, -1, 0, 1, 2, 3, 5, 100, 2**31 - 1])


def prototypes() -> dict[str, tuple[str, list[Any]]]:
    """For each EXPORT function of the kernels: the file it stands in, and its arguments."""
    found = {}
    for path in sorted(SOURCES.glob("*.c")):
        for p in prototype.prototypes(path.read_text()):
            found[p.name] = (path.stem, list(p.arguments))
    return found


def _span(*pairs: int) -> int:
    if any(n <= 0 for n in pairs[::2]):
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(pairs[::2], pairs[1::2], strict=True))


def length(expression: str, numbers: dict[str, Any]) -> int:
    """What a length of a prototype is for these numbers."""
    names = {"span": _span, "pick": lambda c, a, b: a if c else b, "most": max, "least": min, **numbers}
    return int(eval(compile(ast.parse(expression.strip(), mode="eval"), "length", "eval"), {"__builtins__": {}}, names))


class Guarded:
    """Arrays with zones around them whose content must stay; none where the sanitizer watches."""

    def __init__(self, seed: int) -> None:
        self.rng, self.zones = np.random.default_rng(seed), []

    def array(self, dtype: str, n: int, indices: list[int]) -> np.ndarray:
        if SANITIZED:
            inner = np.empty(n, dtype)  # from malloc, of just this size
        else:
            whole = np.full((n + 2 * GUARD) * np.dtype(dtype).itemsize, 0xA5, np.uint8).view(dtype)
            inner = whole[GUARD : GUARD + n]
            self.zones += [whole[:GUARD].view(np.uint8), whole[GUARD + n :].view(np.uint8)]
        if dtype[0] == "f":
            inner[...] = self.rng.standard_normal(n)
        elif dtype[0] == "i":
            inner[...] = self.rng.choice(indices, n)
        else:
            inner[...] = self.rng.integers(0, 2, n)
        return inner

    def check(self) -> None:
        for zone in self.zones:
            assert (zone == 0xA5).all(), "wrote outside of an array"


def draw_call(data: Any, arguments: list[Any]) -> tuple[list[Any], Guarded] | None:
    """Arguments for a call, or None where they would be too large."""
    measuring = {word for a in arguments for word in re.findall(r"\w+", a.length)}
    numbers: dict[str, Any] = {}
    for a in arguments:
        if a.stars or not a.is_given:
            continue
        if not a.is_integer:
            numbers[a.name] = data.draw(st.sampled_from([0.0, 0.5, 1.0, -1.0, 1e-5]), a.name)
        elif a.name in measuring:
            numbers[a.name] = data.draw(SMALL, a.name)
        else:
            numbers[a.name] = data.draw(LOOSE, a.name)
        if a.name.startswith("ld") or a.name.endswith("_row"):  # else BLAS complains, in many words, and does nothing
            numbers[a.name] = max(65, numbers[a.name])
        if "POSITIVE" in a.marks:
            numbers[a.name] = max(1, numbers[a.name])
    guarded = Guarded(data.draw(st.integers(0, 2**32 - 1), "seed"))
    indices = data.draw(st.lists(INDEX, min_size=1, max_size=4), "indices")
    values: dict[str, Any] = dict(numbers)
    total = 0
    parts = [prototype.split(a.length) for a in arguments if a.stars == 2]
    lists = {sizes.split("[")[0]: count for count, sizes in parts if sizes != "1"}
    for name, count in lists.items():
        values[name] = np.array(data.draw(st.lists(SMALL, min_size=numbers[count], max_size=numbers[count])), np.int64)
    for a in arguments:
        if not a.stars or a.name in values or a.is_scratch:
            continue
        optional = "OPTIONAL" in a.marks and data.draw(st.booleans(), f"no {a.name}")
        parts = prototype.split(a.length)
        if a.stars == 1:
            sizes = [length(parts[0], numbers)]
        else:
            sizes = values[parts[1].split("[")[0]].tolist() if parts[1] != "1" else [1] * length(parts[0], numbers)
        total += sum(sizes)
        if total > MOST:
            return None
        made = [guarded.array(prototype.DTYPES[a.base].str[1:], n, indices) for n in sizes]
        values[a.name] = None if optional else made[0] if a.stars == 1 else made
    return [values[a.name] for a in arguments if a.is_given], guarded
