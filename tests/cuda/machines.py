"""Where CUDA tests run: on the CPU, with lanes in three orders, and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from rushlight_tensor import cuda
from rushlight_tensor.kernels.cuda_launch import CupyRunner, Runner, running_on
from tests.cuda_on_cpu.runner import FORWARD, REVERSE, SHUFFLED, CpuRunner, device, why_not


class Machine:
    """Something that runs kernels."""

    runner: Runner

    def missing(self) -> str | None:
        """Why this machine cannot be used here."""
        raise NotImplementedError

    def put(self, values: Any) -> Any:
        """A copy of a NumPy array as device memory, in its own memory order."""
        raise NotImplementedError

    def get(self, array: Any) -> np.ndarray:
        """The array as NumPy's."""
        raise NotImplementedError

    def run(self, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
        """Call a function of device arrays with NumPy arrays; its results come back as NumPy's."""
        result = function(*(self.put(a) if isinstance(a, np.ndarray) else a for a in arrays), **options)
        if not isinstance(result, tuple):
            return self.get(result)
        return tuple(a if a is None else self.get(a) for a in result)


class Cpu(Machine):
    """Kernels run on the CPU; device arrays are NumPy arrays."""

    def __init__(self, order: int) -> None:
        self.runner = CpuRunner(order)

    def missing(self) -> str | None:
        return why_not()

    def put(self, values: Any) -> Any:
        return device(values)

    def get(self, array: Any) -> np.ndarray:
        return np.asarray(array)


class Gpu(Machine):
    """Kernels run on the first GPU."""

    runner = CupyRunner()

    def missing(self) -> str | None:
        return None if cuda.is_available() else "needs a GPU, found 0"

    def put(self, values: Any) -> Any:
        return cuda.cupy().array(values, order="K")

    def get(self, array: Any) -> np.ndarray:
        return cuda.to_host(array)


MACHINES = {
    "cpu-forward": Cpu(FORWARD),
    "cpu-reverse": Cpu(REVERSE),
    "cpu-shuffled": Cpu(SHUFFLED),
    "gpu": Gpu(),
}


@contextmanager
def using(name: str) -> Iterator[Machine]:
    """Run kernels on one of the machines, or skip the test."""
    machine = MACHINES[name]
    if machine.missing():
        pytest.skip(str(machine.missing()))
    with running_on(machine.runner):
        yield machine
