"""A stand-in for the module `cupy`: strict arrays, CUDA text that runs on the CPU, one device."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from rushlight_tensor.core import cuda
from tests.cuda_on_cpu.runner import FORWARD, RawModule
from tests.device import strict


class _Room:
    """`cupy.linalg` and its like."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}{name}"
        if any(f.startswith(f"{path}.") for f in strict.TABLE["functions"]):
            return _Room(f"{path}.")
        return strict.function(path)


class Cupy(_Room):
    """What our code may ask of the module.

    Args:
        order: In which order the lanes of a kernel run; see `cuda_on_cpu.runner`.
    """

    ndarray = strict.ndarray

    def __init__(self, order: int = FORWARD) -> None:
        super().__init__("")
        self.order = order
        runtime = SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: 0, deviceSynchronize=lambda: None)
        self.cuda = SimpleNamespace(
            is_available=lambda: True, runtime=runtime, Device=lambda index=0: nullcontext(SimpleNamespace(id=index))
        )

    def get_default_memory_pool(self) -> SimpleNamespace:
        """A pool that keeps nothing."""
        return SimpleNamespace(free_all_blocks=lambda: None)

    def RawModule(self, *, code: str, options: tuple[str, ...] = ()) -> RawModule:
        """CUDA text, compiled for the CPU."""
        return RawModule(code=code, options=options, order=self.order)

    def empty(self, shape: Any, dtype: Any = float, order: str = "C") -> strict.ndarray:
        """Memory filled with bytes that show where a kernel forgot to write."""
        memory = np.empty(shape, dtype, order)
        if memory.size:
            memory.reshape(-1, order="A")[...] = np.frombuffer(b"\xab" * memory.itemsize, memory.dtype)[0]
        return strict.ndarray(memory)

    def asnumpy(self, a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
        """A copy on the host."""
        return a.get(order=order) if isinstance(a, strict.ndarray) else np.asarray(a)


_in_order = functools.cache(Cupy)  # a module keeps its compiled kernels


@contextmanager
def standing_in(order: int = FORWARD) -> Iterator[Cupy]:
    """Let CUDA tensors live on the stand-in."""
    with mock.patch.object(cuda, "cupy", return_value=_in_order(order)):
        yield _in_order(order)
