"""Compiling CUDA text and launching its kernels, through CuPy.

Note [Arguments of a kernel]
    CuPy hands over what it is given: the type of a number decides how many bytes the kernel finds, so every number is
    a NumPy scalar of the type that the kernel declares.  A structure by value is a NumPy array of size one; one of any
    other size is refused, so `structure` makes one opaque element of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rushlight_tensor.core import cuda
from rushlight_tensor.kernels.cuda_text import source

Kernel = Callable[..., None]
"""`kernel(grid, block, args)`: sizes as tuples; args are device arrays, NumPy scalars, and structures."""

_BLOCK = 256
_MAX_BLOCKS = 65535


def kernel(file: str, name: str) -> Kernel:
    """A kernel of `cuda/<file>`, compiled at first use."""
    return _module(cuda.cupy(), file)(name)


def kernel_from_text(text: str, name: str) -> Kernel:
    """A kernel of generated text, compiled at first use."""
    return _module_of_text(cuda.cupy(), text)(name)


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """Uninitialised memory on the current device."""
    return cuda.cupy().empty(shape, dtype)


def table(values: np.ndarray) -> Any:
    """A copy of a small NumPy array on the current device."""
    return cuda.cupy().asarray(values)


def structure(values: np.ndarray) -> np.ndarray:
    """An array as one argument that a kernel takes by value.  See Note [Arguments of a kernel]."""
    return values.view(np.dtype((np.void, values.nbytes)))


def launch_each(function: Kernel, size: int, args: Sequence[Any]) -> None:
    """Launch a kernel whose grid may have any size, for `size` elements."""
    function((min(_MAX_BLOCKS, (size + _BLOCK - 1) // _BLOCK),), (_BLOCK,), tuple(args))


def launch_rows(function: Kernel, rows: int, n: int, args: Sequence[Any]) -> None:
    """Launch a kernel of `rows.cuh`: one block per row of n elements."""
    threads = min(1024, max(32, (n + 31) // 32 * 32))
    function((rows,), (threads,), tuple(args))


@functools.cache
def _module(cupy: Any, file: str) -> Callable[[str], Kernel]:
    return _compiled(cupy, source(file))


@functools.lru_cache(maxsize=1024)
def _module_of_text(cupy: Any, text: str) -> Callable[[str], Kernel]:
    return _compiled(cupy, text)


def _compiled(cupy: Any, text: str) -> Callable[[str], Kernel]:
    @functools.cache
    def on_device(index: int, name: str) -> Any:  # CuPy binds a function to the device it was taken on
        return module(index).get_function(name)

    @functools.cache
    def module(index: int) -> Any:
        return cupy.RawModule(code=text, options=("-std=c++17",))

    return lambda name: on_device(cupy.cuda.runtime.getDevice(), name)
