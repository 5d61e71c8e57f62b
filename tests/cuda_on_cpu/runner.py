"""Runs CUDA text on the CPU: the same kernels, compiled by g++, one fibre per CUDA thread.

`RawModule` stands in for CuPy's: arguments are taken as CuPy takes them, and also held against what the kernel
declares.  Lanes run in one of several orders, which brings races between them to light; divergent barriers and
impossible launches are errors.  Not modelled: tensor cores, PTX, asynchronous copies, out-of-bounds accesses, the weak
order of memory.
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
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

INCLUDE = Path(__file__).parent / "include"
FORWARD, REVERSE, SHUFFLED = 0, 1, 2

_SYSTEM_INCLUDE = re.compile(r"#include <cuda_(fp16|bf16)\.h>")
_DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+([\w:]+)\s+(\w+)\s*\[\s*\]\s*;")
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')
_FLAGS = ("-O1", "-std=c++17", "-fPIC", "-pthread", "-w", "-x", "c++")


def why_not() -> str | None:
    """Why CUDA text cannot run on this machine's CPU, or None if it can."""
    if os.environ.get("RUSHLIGHT_CC", "").lower() == "none":
        return "RUSHLIGHT_CC=none"
    if os.uname().machine != "x86_64":
        return f"the runner's fibres need x86-64, this is {os.uname().machine}"
    return None if shutil.which("g++") else "needs g++ to run CUDA text on the CPU"


class RawModule:
    """CuPy's `RawModule`, on the CPU.

    Args:
        code: CUDA text.
        options: NVRTC's, which are not g++'s.
        order: In which order lanes run: FORWARD, REVERSE, or SHUFFLED and above, each number another shuffle.
    """

    def __init__(self, *, code: str, options: tuple[str, ...] = (), order: int = FORWARD) -> None:
        self.library, self.order = _build(code), order

    def get_function(self, name: str) -> Callable[..., None]:
        """The kernel of a name: `kernel(grid, block, args, shared_mem=0)`."""
        function, declared = (
            getattr(self.library, f"on_cpu_launch_{name}"),
            getattr(self.library, f"on_cpu_takes_{name}"),
        )
        declared.restype = ctypes.c_char_p
        return functools.partial(_launch, self.library, function, self.order, declared().decode().split(), name)


_BY_VALUE = {np.dtype(c).type for c in "?bhilqBHILQefdFD"}


def _launch(
    library: Any, function: Any, order: int, declared: list[str], name: str,
    grid: tuple, block: tuple, args: tuple, shared_mem: int = 0,
) -> None:  # fmt: skip
    if len(args) != len(declared):
        raise TypeError(f"{name} takes {len(declared)} arguments ({' '.join(declared)}), got {len(args)}")
    kept = [
        _argument(a, wanted, f"{name}, argument {i}") for i, (a, wanted) in enumerate(zip(args, declared, strict=True))
    ]
    table = (ctypes.c_void_p * len(kept))(*(ctypes.addressof(a) for a in kept))
    sizes = [(ctypes.c_uint * 3)(*(*size, 1, 1)[:3]) for size in (grid, block)]
    library.on_cpu_set_order(order)
    if function(*sizes, ctypes.c_size_t(shared_mem), table, 2):
        raise RuntimeError(library.on_cpu_error().decode())


def _argument(value: Any, wanted: str, where: str) -> Any:
    """What CuPy makes of an argument; TypeError where CuPy refuses it, or the kernel would read other bytes."""
    if hasattr(value, "data") and hasattr(value.data, "ptr"):
        if wanted != "pointer":
            raise TypeError(f"{where}: an array, where the kernel declares {wanted}")
        return ctypes.c_void_p(value.data.ptr)
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise TypeError(
                f"{where}: an array of shape {value.shape} as a kernel parameter; only numpy.ndarrays of size one can "
                "be passed by value"
            )
    elif type(value) not in _BY_VALUE:
        if isinstance(value, bool):
            value = np.bool_(value)
        elif isinstance(value, (int, float)):
            value = (np.int64 if isinstance(value, int) else np.float64)(value)
        else:
            raise TypeError(f"{where}: Unsupported type {type(value)}")
    kind = {"V": "struct", "b": "bool", "f": "float", "i": "int", "u": "int"}[value.dtype.kind] + str(8 * value.nbytes)
    null = wanted == "pointer" and kind == "int64" and value == 0
    if kind != wanted and not null:
        raise TypeError(f"{where}: {kind}, where the kernel declares {wanted}")
    return ctypes.create_string_buffer(value.tobytes(), value.nbytes)


_LIBRARIES: dict[str, ctypes.CDLL] = {}


def _build(text: str) -> ctypes.CDLL:
    if text not in _LIBRARIES:
        _LIBRARIES[text] = _compile([text])
    return _LIBRARIES[text]


def build_together(texts: Iterable[str]) -> None:
    """Compile many generated texts, which begin alike, in few goes: most of what g++ takes is the beginning.

    Texts with a kernel of one name go into different libraries.
    """
    groups: list[tuple[set[str], list[str]]] = []
    for text in dict.fromkeys(texts):
        names = set(_KERNEL.findall(text))
        group = next((g for g in groups if not g[0] & names and len(g[1]) < _TOGETHER), None)
        if group is None:
            groups.append(group := (set(), []))
        group[0].update(names)
        group[1].append(text)
    with ThreadPoolExecutor(2) as pool:
        for (_, members), library in zip(groups, pool.map(lambda g: _compile(g[1]), groups), strict=True):
            _LIBRARIES.update(dict.fromkeys(members, library))


_TOGETHER = 40


def _compile(texts: list[str]) -> ctypes.CDLL:
    head = texts[0].partition('\nextern "C" __global__')[0] if len(texts) > 1 else ""
    text = head + "".join(t[len(head) :] for t in texts)
    names = list(dict.fromkeys(_KERNEL.findall(_preprocessed_names(text))))
    text = _DYNAMIC_SHARED.sub(r"\1 *\2 = reinterpret_cast<\1 *>(on_cpu::here->dynamic_shared);", text)
    body = '#include "cuda.h"\n' + _SYSTEM_INCLUDE.sub("", text)
    body += "\n" + "".join(f"ON_CPU_EXPORT({name})\n" for name in names)
    headers = _headers()
    path = headers / f"{hashlib.sha256(body.encode()).hexdigest()[:24]}.so"
    if not path.exists():
        with _fresh(path) as made:
            _gxx([*_FLAGS, "-shared", "-I", str(headers), "-I", str(INCLUDE), "-", "-o", made], body)
    library = ctypes.CDLL(str(path))
    library.on_cpu_error.restype = ctypes.c_char_p
    return library


@functools.cache
def _headers() -> Path:
    """The folder of what these headers and flags make; they are compiled there once, for most of the time is theirs."""
    content = "".join(path.read_text() for path in sorted(INCLUDE.iterdir())) + repr(_FLAGS)
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"rushlight-cuda-on-cpu-{os.getuid()}-{key}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.geteuid() or folder.is_symlink():
        raise RuntimeError(f"{folder} is another user's; set TMPDIR to a folder of your own")
    if not (folder / "cuda.h.gch").exists():
        with _fresh(folder / "cuda.h") as made:
            Path(made).write_text('#include "builtins.h"\n#include "half_types.h"\n')
        flags = [f if f != "c++" else "c++-header" for f in _FLAGS]
        with _fresh(folder / "cuda.h.gch") as made:
            _gxx([*flags, "-I", str(INCLUDE), str(folder / "cuda.h"), "-o", made])
    return folder


@contextmanager
def _fresh(path: Path) -> Iterator[str]:
    """A name to write to, which becomes `path` when all is written: other processes may do the same now."""
    made = f"{path}.{os.getpid()}.{threading.get_ident()}"
    yield made
    os.replace(made, path)


def _gxx(arguments: list[str], text: str = "") -> None:
    done = subprocess.run(["g++", *arguments], input=text.encode(), capture_output=True)
    if done.returncode:
        raise RuntimeError(f"g++ refused the CUDA text:\n{done.stderr.decode()[:3000]}")


def _preprocessed_names(text: str) -> str:
    """The text with its macros expanded, because kernels for several dtypes are defined through them."""
    plain = _SYSTEM_INCLUDE.sub("", text)
    return subprocess.run(["g++", "-E", "-P", "-x", "c++", "-D__global__=__global__", "-"],
                          input=plain.encode(), capture_output=True, check=True).stdout.decode()  # fmt: skip
