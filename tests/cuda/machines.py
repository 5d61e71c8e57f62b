"""Where CUDA tests run: on the strict stand-in for CuPy, lanes in three orders, and on a GPU where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rushlight_tensor.core import cuda
from tests.cuda_on_cpu.runner import FORWARD, REVERSE, SHUFFLED, why_not
from tests.device.standin import standing_in


@dataclass(frozen=True)
class Machine:
    """Something that runs kernels: the stand-in, with lanes in this order, or the first GPU."""

    order: int | None

    def missing(self) -> str | None:
        """Why this machine cannot be used here."""
        if self.order is not None:
            return why_not()
        return None if cuda.is_available() else "needs a GPU, found 0"

    def put(self, values: Any) -> Any:
        """A copy of a NumPy array as device memory, in its own memory order."""
        return cuda.cupy().array(values, order="K")

    def get(self, array: Any) -> np.ndarray:
        """The array as NumPy's."""
        return np.asarray(cuda.to_host(array))

    def run(self, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
        """Call a function of device arrays with NumPy arrays; its results come back as NumPy's."""
        result = function(*(self.put(a) if isinstance(a, np.ndarray) else a for a in arrays), **options)
        if not isinstance(result, tuple):
            return self.get(result)
        return tuple(a if a is None else self.get(a) for a in result)


MACHINES = {
    "cpu-forward": Machine(FORWARD),
    "cpu-reverse": Machine(REVERSE),
    "cpu-shuffled": Machine(SHUFFLED),
    "gpu": Machine(None),
}
WHOLE = os.environ.get("RUSHLIGHT_DEVICE") == "whole"
"""Whether every sample is tried in every dtype (`make test-device`), or the first of each op in its first dtype."""

ONE_OF_EACH = ("cpu-reverse", "gpu")
"""For tests that are not about the order of lanes."""


@contextmanager
def using(name: str) -> Iterator[Machine]:
    """Let CUDA tensors live on one of the machines, or skip the test."""
    machine = MACHINES[name]
    if machine.missing():
        pytest.skip(str(machine.missing()))
    with nullcontext() if machine.order is None else standing_in(machine.order):
        yield machine
