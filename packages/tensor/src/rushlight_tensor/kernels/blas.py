"""Matrix products through a private OpenBLAS on the kernels' own threads: sizes of the C kernels, and NumPy texts.

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
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rushlight_tensor.core.infer import Aval, broadcast_shapes
from rushlight_tensor.core.op import REGISTRY
from rushlight_tensor.core.order import contiguous as in_sequence
from rushlight_tensor.core.order import merges
from rushlight_tensor.kernels import cpu
from rushlight_tensor.kernels.arrays import contiguous, on_host
from rushlight_tensor.kernels.binding import DGEMM, SGEMM, STATE
from rushlight_tensor.kernels.compile import scoped_environment

Array = Any

# A dot product of more than 10,000 elements is cut by NumPy's BLAS among its threads, which would show in the bits.
_DOT_PART = 8192


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


def gemm(a: Array, b: Array) -> Array:
    """`a @ b`, for NumPy texts that are made of products: by the record of `matmul`."""
    return REGISTRY["matmul"].cpu(a, b) if on_host(a, b) else np.matmul(a, b)


# ------------------------------------------------------------------------------------------------------- NumPy texts


def matmul(x: Array, y: Array) -> Array:
    """`x @ y`."""
    if x.ndim == y.ndim == 1 and x.size == y.size > _DOT_PART and x.dtype.kind in "fc":
        return _dot(x, y)
    return np.matmul(x, y)


def _dot(x: Array, y: Array) -> Array:
    """The product of two vectors, summed by parts of one length: see Note [Same bits] in `c/rushlight.h`."""
    parts, whole = x.size // _DOT_PART, x.size - x.size % _DOT_PART
    rows, columns = x[:whole].reshape(parts, 1, _DOT_PART), y[:whole].reshape(parts, _DOT_PART, 1)
    return np.asarray(np.matmul(rows, columns).sum(dtype=x.dtype) + np.matmul(x[whole:], y[whole:]), like=x)[()]


def matmul_backward(g: Array, x: Array, y: Array, needs: tuple[bool, ...]) -> tuple[Array, ...]:
    """Gradients of `matmul` by x and y, those that are needed; where batches are broadcast, for each of the results."""
    grads: tuple[Callable[[], Array], ...]
    if y.ndim == 1:
        grads = (lambda: g[..., None] * y, lambda: _rows(g[..., None] * x).sum(0))
    elif x.ndim == 1:
        grads = (
            lambda: np.matmul(g[..., None, :], y.swapaxes(-1, -2))[..., 0, :],
            lambda: x[:, None] * g[..., None, :],
        )
    elif y.ndim == 2:  # a batch of rows: one product for the whole of it
        grads = (lambda: np.matmul(g, y.T), lambda: np.matmul(_rows(x).T, _rows(g)))
    else:
        grads = (lambda: np.matmul(g, y.swapaxes(-1, -2)), lambda: np.matmul(x.swapaxes(-1, -2), g))
    return tuple([make() for need, make in zip(needs, grads, strict=True) if need])


def _rows(x: Array) -> Array:
    """All but the last dimension as one."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


# ------------------------------------------------------------------------------------------------- sizes of C kernels


class Matrix(NamedTuple):
    """How BLAS sees the last two dimensions of an array: whether they lie transposed, and the distance of its rows."""

    transposed: int
    distance: int

    @classmethod
    def of(cls, rows: int, columns: int, down: int, across: int) -> Matrix | None:
        """None where it has to be copied.  `down`, `across`: the strides in elements."""
        if columns == 1:
            across = 1
        if across == 1 and (down >= columns or rows == 1):
            return cls(0, max(down, columns, 1) if rows > 1 else max(columns, 1))
        if down == 1 and (across >= rows or columns == 1):
            return cls(1, max(across, rows, 1))
        return None


def as_rows(x: Any) -> Matrix | None:
    """A description (..., columns) as one matrix.  None where it has to be copied."""
    folded = _folded(*_with_ones(x, False, False))
    return None if folded is None else Matrix.of(*folded[0], *folded[1])


def product(x: Any, y: Any) -> dict[str, int] | None:
    """Sizes of `gemm`, for operands as np.matmul takes them."""
    return _sizes(x, y)


def product_backward(g: Any, x: Any, y: Any, needs: Any = None) -> dict[str, int] | None:
    """Sizes of `gemm_backward`."""
    return _sizes(x, y, g)


def _sizes(x: Any, y: Any, g: Any = None) -> dict[str, int] | None:
    """The sizes of a product, its two batch loops, and where the operands `a`, `b` (and the gradient `g`) lie."""
    row, column = len(x.shape) == 1, len(y.shape) == 1
    given = {"a": _with_ones(x, row, False), "b": _with_ones(y, False, column)}
    if g is not None:
        given["g"] = _with_ones(g, row, column)
    if len(given["b"][0]) == 2 and len(given["a"][0]) > 2:  # a batch of rows: one product for the whole of it
        for name in given.keys() - {"b"}:
            folded = _folded(*given[name])
            if folded is None:
                return None
            given[name] = folded
    (m, k), n = given["a"][0][-2:], given["b"][0][-1]
    batch = broadcast_shapes(given["a"][0][:-2], given["b"][0][:-2])
    loops = two_loops(batch, [batch_strides(batch, *each) for each in given.values()])
    if loops is None:
        return None
    (outer, inner), steps = loops
    sizes = {"m": m, "n": n, "k": k, "outer": outer, "inner": inner}
    for (name, (shape, strides)), (step0, step1) in zip(given.items(), steps, strict=True):
        seen = Matrix.of(*shape[-2:], *strides[-2:])
        if seen is None:
            return None
        sizes |= {f"t{name}": seen.transposed, f"ld{name}": seen.distance, f"s{name}0": step0, f"s{name}1": step1}
    return sizes


_Laid = tuple[tuple[int, ...], tuple[int, ...]]  # shape and strides


def _with_ones(x: Any, row: bool, column: bool) -> _Laid:
    """A description with the rows and columns that vectors have not."""
    strides = in_sequence(x.shape) if x.strides is None or 0 in x.shape else x.strides
    shape: tuple[int, ...] = (*x.shape, 1) if column else tuple(x.shape)
    strides = (*strides, 1) if column else tuple(strides)
    if not row:
        return shape, strides
    return (*shape[:-1], 1, shape[-1]), (*strides[:-1], 0, strides[-1])


def _folded(shape: tuple[int, ...], strides: tuple[int, ...]) -> _Laid | None:
    """All but the last dimension as one; None where they do not lie so."""
    if not merges(shape[:-1], strides[:-1]):
        return None
    down = next((s for n, s in zip(shape[-2::-1], strides[-2::-1], strict=True) if n != 1), shape[-1])
    return (math.prod(shape[:-1]), shape[-1]), (down, strides[-1])


def batch_strides(batch: tuple[int, ...], shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    """The strides along the dimensions of a batch; 0 where the array is broadcast."""
    own = [0 if n == 1 else s for n, s in zip(shape[:-2], strides[:-2], strict=True)]
    return [0] * (len(batch) - len(own)) + own


def two_loops(batch: tuple[int, ...], steps: list[list[int]]) -> tuple[tuple[int, int], list[tuple[int, int]]] | None:
    """A batch as two loops, and the strides of each array along them; None where it cannot be."""
    if any(step < 0 for own in steps for step in own):
        return None
    dims: list[tuple[int, list[int]]] = []
    for n, *own in zip(batch, *steps, strict=True):
        if n == 1:
            continue
        if dims and all(before == n * step for before, step in zip(dims[-1][1], own, strict=True)):
            dims[-1] = (dims[-1][0] * n, own)
        else:
            dims.append((n, own))
    if len(dims) > 2:
        return None
    nothing = (1, [0] * len(steps))
    first, second = [nothing] * (2 - len(dims)) + dims
    if 0 in batch:
        first, second = (0, nothing[1]), nothing
    return (first[0], second[0]), list(zip(first[1], second[1], strict=True))


def in_two_loops(*arrays: Array) -> list[Array]:
    """Operands (and before them the gradient) as copies that `product` has sizes for."""
    packed = [contiguous(a) for a in arrays]
    x, y = packed[-2:]
    if min(x.ndim, y.ndim) > 2 and _sizes(Aval(x.shape, x.dtype), Aval(y.shape, y.dtype)) is None:
        batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        packed[-2:] = [contiguous(np.broadcast_to(a, (*batch, *a.shape[-2:]))) for a in (x, y)]
    return packed
