"""Matrix products through a private OpenBLAS on the kernels' own threads; NumPy's matmul for what is small or unusual.

Note [Private BLAS]
    The wheel `scipy-openblas64` is a copy of OpenBLAS of its own: NumPy's is not touched.  Its kernels are chosen when
    it is loaded, by an environment variable that is set only for that moment.  On AMD processors with AVX-512 OpenBLAS
    would choose AVX2 kernels, half as fast on Zen 5.  It is loaded with one thread: see Note [One pool] in
    `c/rushlight.h`.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from rushlight_tensor.kernels import cpu
from rushlight_tensor.kernels.arrays import on_host
from rushlight_tensor.kernels.binding import DGEMM, SGEMM, STATE, Library
from rushlight_tensor.kernels.compile import c_library, scoped_environment

# Up to this many multiplications np.matmul is as fast, and NumPy's own BLAS does not wake a second thread pool.
_SMALL = 2**18
# A dot product of more than 10,000 elements is cut by NumPy's BLAS among its threads, which would show in the bits.
_DOT_PART = 8192


@functools.cache
def blas_library() -> Library | None:
    """The compiled kernels of `c/blas.c` with the private BLAS behind them; None where either is missing."""
    return c_library("blas") if load_private_blas() else None


@functools.cache
def load_private_blas() -> bool:
    """Load the private OpenBLAS and publish its addresses to all kernels; False where the wheel is not installed."""
    spec = importlib.util.find_spec("scipy_openblas64")  # importing it would load the library with the wrong kernels
    if spec is None or not spec.submodule_search_locations:
        return False
    files = sorted(Path(spec.submodule_search_locations[0], "lib").glob("libscipy_openblas64_.*"))
    files = [file for file in files if file.suffix in (".so", ".dylib")]
    if not files:
        return False
    wanted = {"OPENBLAS_NUM_THREADS": "1"}
    if cpu.is_amd() and cpu.has("avx512f", "avx512vl", "avx512dq", "avx512bw"):
        wanted["OPENBLAS_CORETYPE"] = "SkylakeX"
    try:
        with scoped_environment(wanted):
            library = ctypes.CDLL(str(files[0]))
    except OSError:
        return False
    library.scipy_openblas_set_num_threads64_(1)  # should the user's OPENBLAS_NUM_THREADS have said more
    for place, function in ((SGEMM, library.scipy_cblas_sgemm64_), (DGEMM, library.scipy_cblas_dgemm64_)):
        STATE[place] = ctypes.cast(function, ctypes.c_void_p).value or 0
    return True


def gemm(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """`a @ b` as np.matmul defines it; transposed views and batches of views are multiplied without copying them.

    Args:
        a: (..., M, K).
        b: (..., K, N), batch dimensions broadcast against those of `a`.
        out: (..., M, N) of the result's dtype; made fresh when None.
    Returns:
        The product, in `out` if given.
    Raises:
        ValueError: As np.matmul, for shapes that do not fit.
    """
    if a.size * b.shape[-1] <= _SMALL:
        return np.matmul(a, b, out=out)
    dtype = a.dtype
    if not on_host(a, b, out) or a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        if out is None and a.ndim == b.ndim == 1 and a.size == b.size > _DOT_PART and a.dtype.char in "fdFD":
            return _dot(a, b) if on_host(a, b) else np.matmul(a, b)
        return np.matmul(a, b, out=out)
    if b.dtype != dtype or dtype.char not in "fd":
        return np.matmul(a, b, out=out)
    if out is not None and not out.flags.aligned:
        return np.matmul(a, b, out=out)
    m, k = a.shape[-2:]
    n = b.shape[-1]
    c = blas_library()
    if c is None:
        return np.matmul(a, b, out=out)
    if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous and out is None:  # one tall product instead of many
        return gemm(a.reshape(-1, k), b).reshape(*a.shape[:-1], n)
    batch = a.shape[:-2] if a.shape[:-2] == b.shape[:-2] else np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if out is None:
        out = np.empty((*batch, m, n), dtype)
    multiply = c.gemm_f32 if dtype.char == "f" else c.gemm_f64
    size = dtype.itemsize
    if not batch and out.flags.c_contiguous:
        a, ta, lda = _layout(a, m, k, size)
        b, tb, ldb = _layout(b, k, n, size)
        multiply(a, b, out, ta, tb, m, n, k, lda, ldb, n, 1, 1, 0, 0, 0, 0, 0, 0)
        return out
    plan = _batch_plan(a, b, out, batch, size)
    if plan is None:
        return np.matmul(a, b, out=out)
    multiply(*plan)
    return out


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of two vectors, summed by parts of one length: see Note [Same bits] in `c/rushlight.h`."""
    parts, whole = a.size // _DOT_PART, a.size - a.size % _DOT_PART
    rows, columns = a[:whole].reshape(parts, 1, _DOT_PART), b[:whole].reshape(parts, _DOT_PART, 1)
    return np.asarray(np.matmul(rows, columns).sum(dtype=a.dtype) + np.matmul(a[whole:], b[whole:]))[()]


def _layout(x: np.ndarray, rows: int, columns: int, size: int) -> tuple[np.ndarray, bool, int]:
    """How BLAS sees the last two dimensions: (array, lies transposed, leading dimension); copied if it must be."""
    if not x.flags.aligned:
        x = x.copy()
    down, across = x.strides[-2:]
    if across == size and (down >= columns * size or rows == 1):
        return x, False, max(down // size, columns, 1) if rows > 1 else max(columns, 1)
    if down == size and (across >= rows * size or columns == 1):
        return x, True, max(across // size, rows, 1) if columns > 1 else max(rows, 1)
    return np.ascontiguousarray(x), False, max(columns, 1)


def _batch_plan(
    a: np.ndarray, b: np.ndarray, out: np.ndarray, batch: tuple[int, ...], size: int
) -> tuple[Any, ...] | None:
    """The C call for a batch whose strides fit two loops; None where they do not."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    a, ta, lda = _layout(a, m, k, size)
    b, tb, ldb = _layout(b, k, n, size)
    if out.strides[-1] != size or out.strides[-2] < n * size:
        return None
    loops = [1, *batch][-2:] if len(batch) <= 2 else None
    if loops is None:
        outer = int(np.prod(batch[:-1]))
        a, b = (_flatten_batch(x, batch) for x in (a, b))
        flat = out.reshape(outer, batch[-1], m, n)
        if not np.shares_memory(flat, out):
            return None
        out, loops = flat, [outer, batch[-1]]
        a, ta, lda = _layout(a, m, k, size)
        b, tb, ldb = _layout(b, k, n, size)
    steps = [step // size for x in (a, b, out) for step in _batch_strides(x, loops)]
    return a, b, out, ta, tb, m, n, k, lda, ldb, max(out.strides[-2] // size, n), *loops, *steps


def _flatten_batch(x: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(x, (*batch, *x.shape[-2:])).reshape(-1, batch[-1], *x.shape[-2:])


def _batch_strides(x: np.ndarray, loops: list[int]) -> tuple[int, int]:
    """Byte strides of the two batch loops; 0 where the array is broadcast."""
    steps = [0, 0]
    for i in range(1, min(x.ndim - 2, 2) + 1):
        steps[-i] = x.strides[-2 - i] if x.shape[-2 - i] == loops[-i] and loops[-i] > 1 else 0
    return steps[0], steps[1]
