"""Compiling CUDA text and launching its kernels: on a GPU through CuPy, in tests on the CPU through a twin of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from rushlight_tensor import cuda
from rushlight_tensor.kernels.cuda_text import source

Kernel = Callable[..., None]
"""`kernel(grid, block, args)`: sizes as tuples; args are device arrays, NumPy scalars, NumPy arrays as structs."""

_BLOCK = 256
_MAX_BLOCKS = 65535


class Runner(Protocol):
    """What compiles and launches kernels, and makes the arrays they work on."""

    def __hash__(self) -> int:
        """Runners are told apart by identity: each has its own compiled kernels."""

    def compile(self, text: str) -> Callable[[str], Kernel]:
        """Compile CUDA text; the result gives the kernel of a name."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uninitialised memory that kernels can reach."""

    def table(self, values: np.ndarray) -> Any:
        """A copy of a small NumPy array that kernels can reach."""

    def address(self, array: Any) -> int:
        """Where a kernel finds the first element."""


class CupyRunner:
    """Runs kernels on the current GPU."""

    def compile(self, text: str) -> Callable[[str], Kernel]:
        cupy = cuda.cupy()

        @functools.cache
        def on_device(index: int, name: str) -> Any:  # CuPy binds a function to the device it was taken on
            return module(index).get_function(name)

        @functools.cache
        def module(index: int) -> Any:
            return cupy.RawModule(code=text, options=("-std=c++17",))

        return lambda name: on_device(cupy.cuda.runtime.getDevice(), name)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return cuda.cupy().empty(shape, dtype)

    def table(self, values: np.ndarray) -> Any:
        return cuda.cupy().asarray(values)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)


_runner: Runner = CupyRunner()


def runner() -> Runner:
    """What kernels run on now."""
    return _runner


@contextmanager
def running_on(other: Runner) -> Iterator[None]:
    """Run kernels somewhere else for a while: the tests' CPU runner."""
    global _runner
    before, _runner = _runner, other
    try:
        yield
    finally:
        _runner = before


def kernel(file: str, name: str) -> Kernel:
    """A kernel of `cuda/<file>`, compiled at first use."""
    return _module(_runner, file)(name)


def kernel_from_text(text: str, name: str) -> Kernel:
    """A kernel of generated text, compiled at first use."""
    return _module_of_text(_runner, text)(name)


def launch_each(function: Kernel, size: int, args: Sequence[Any]) -> None:
    """Launch a kernel whose grid may have any size, for `size` elements."""
    function((min(_MAX_BLOCKS, (size + _BLOCK - 1) // _BLOCK),), (_BLOCK,), tuple(args))


def launch_rows(function: Kernel, rows: int, n: int, args: Sequence[Any]) -> None:
    """Launch a kernel of `rows.cuh`: one block per row of n elements."""
    threads = min(1024, max(32, (n + 31) // 32 * 32))
    function((rows,), (threads,), tuple(args))


@functools.cache
def _module(on: Runner, file: str) -> Callable[[str], Kernel]:
    return on.compile(source(file))


@functools.lru_cache(maxsize=1024)
def _module_of_text(on: Runner, text: str) -> Callable[[str], Kernel]:
    return on.compile(text)
