"""Runs CUDA text on the CPU: the same kernels, compiled by g++, one fibre per CUDA thread.

It takes part in `rushlight_tensor.kernels.cuda_launch` as a `Runner` whose device arrays are NumPy arrays.  Lanes run
in one of several orders, which brings races between them to light; divergent barriers and impossible launches are
errors.  Not modelled: tensor cores, PTX, asynchronous copies, out-of-bounds accesses, the weak order of memory.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

INCLUDE = Path(__file__).parent / "include"
FORWARD, REVERSE, SHUFFLED = 0, 1, 2

_SYSTEM_INCLUDE = re.compile(r"#include <cuda_(fp16|bf16)\.h>")
_DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+([\w:]+)\s+(\w+)\s*\[\s*\]\s*;")
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')
_FLAGS = ("-O1", "-std=c++17", "-shared", "-fPIC", "-pthread", "-w", "-x", "c++")


def why_not() -> str | None:
    """Why CUDA text cannot run on this machine's CPU, or None if it can."""
    if os.environ.get("RUSHLIGHT_CC", "").lower() == "none":
        return "RUSHLIGHT_CC=none"
    if os.uname().machine != "x86_64":
        return f"the runner's fibres need x86-64, this is {os.uname().machine}"
    return None if shutil.which("g++") else "needs g++ to run CUDA text on the CPU"


class CpuRunner:
    """A `Runner` on the CPU.

    Args:
        order: In which order lanes run: FORWARD, REVERSE, or SHUFFLED and above, each number another shuffle.
    """

    def __init__(self, order: int = FORWARD) -> None:
        self.order = order

    def compile(self, text: str) -> Callable[[str], Callable[..., None]]:
        """Compile CUDA text; the result gives the kernel of a name."""
        library = _build(text)

        @functools.cache
        def kernel(name: str) -> Callable[..., None]:
            function = getattr(library, f"on_cpu_launch_{name}")
            return functools.partial(_launch, library, function, self.order)

        return kernel

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Memory filled with bytes that show where a kernel forgot to write."""
        memory = np.empty(shape, dtype)
        memory.view(np.uint8 if shape else memory.dtype)[...] = 0xAB if shape else memory.dtype.type(85)
        return memory.view(DeviceArray)

    def table(self, values: np.ndarray) -> np.ndarray:
        """A copy that kernels reach by address."""
        return device(values)

    def address(self, array: np.ndarray) -> int:
        """Where the first element is."""
        return int(array.ctypes.data)


class DeviceArray(np.ndarray):
    """A NumPy array that stands for device memory: kernels get its address, while a plain one is passed by value."""


def device(values: Any) -> DeviceArray:
    """A copy of an array as device memory, in its own memory order."""
    values = np.asarray(values)
    return values.copy(order="K").view(DeviceArray)


def _launch(
    library: Any, function: Any, order: int, grid: tuple, block: tuple, args: tuple, shared_mem: int = 0
) -> None:
    kept = [_argument(a) for a in args]
    table = (ctypes.c_void_p * len(kept))(*(ctypes.addressof(a) for a in kept))
    sizes = [(ctypes.c_uint * 3)(*(*size, 1, 1)[:3]) for size in (grid, block)]
    library.on_cpu_set_order(order)
    if function(*sizes, ctypes.c_size_t(shared_mem), table, 2):
        raise RuntimeError(library.on_cpu_error().decode())


def _argument(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, (np.ndarray, np.generic)):
        return ctypes.create_string_buffer(value.tobytes(), max(1, value.nbytes))
    raise TypeError(f"kernel arguments are device arrays and NumPy scalars, got {type(value).__name__}")


@functools.cache
def _build(text: str) -> ctypes.CDLL:
    names = list(dict.fromkeys(_KERNEL.findall(_preprocessed_names(text))))
    text = _DYNAMIC_SHARED.sub(r"\1 *\2 = reinterpret_cast<\1 *>(on_cpu::here->dynamic_shared);", text)
    body = '#include "builtins.h"\n#include "half_types.h"\n' + _SYSTEM_INCLUDE.sub("", text)
    body += "\n" + "".join(f"ON_CPU_EXPORT({name})\n" for name in names)
    headers = "".join(path.read_text() for path in sorted(INCLUDE.iterdir()))
    key = hashlib.sha256((body + headers + repr(_FLAGS)).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"rushlight-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{key}.so"
    if not path.exists():
        made = folder / f"{key}.{os.getpid()}"
        command = ["g++", *_FLAGS, "-I", str(INCLUDE), "-", "-o", str(made)]
        done = subprocess.run(command, input=body.encode(), capture_output=True)
        if done.returncode:
            raise RuntimeError(f"g++ refused the CUDA text:\n{done.stderr.decode()[:3000]}")
        os.replace(made, path)
    library = ctypes.CDLL(str(path))
    library.on_cpu_error.restype = ctypes.c_char_p
    return library


def _preprocessed_names(text: str) -> str:
    """The text with its macros expanded, because kernels for several dtypes are defined through them."""
    plain = _SYSTEM_INCLUDE.sub("", text)
    return subprocess.run(["g++", "-E", "-P", "-x", "c++", "-D__global__=__global__", "-"],
                          input=plain.encode(), capture_output=True, check=True).stdout.decode()  # fmt: skip
