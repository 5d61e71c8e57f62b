"""Kernels over rows and the Adam step on device arrays: what `softmax`, `norm` and others are on a CPU.

They take and return what their CPU twins do.  float16 and bfloat16 are computed in float32, as are the statistics they
return.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.core.infer import Aval
from rushlight_tensor.kernels.class_loss import class_rows, from_class_rows, reduced, row_gradients
from rushlight_tensor.kernels.cuda_launch import empty, kernel, launch_each, launch_rows, table

Array = Any


class Rows:
    """The CUDA kernel of a record that works along rows: one block each, `(*inputs, *results, n, *numbers)`.

    A row is the last dimension, or the record's attribute `dim`; `infer` of the record says what results there are.

    Args:
        file: The CUDA text, under `cuda/`.
        name: Its kernels are called that and a dtype.
        numbers: Attributes that it is given as double.
    """

    __slots__ = ("file", "infer", "name", "numbers")

    infer: Callable[..., Any]

    def __init__(self, file: str, name: str, *numbers: str) -> None:
        self.file, self.name, self.numbers = file, name, numbers

    def beside(self, name: str) -> Rows:
        """Another kernel of the same text, called alike."""
        return Rows(self.file, name, *self.numbers)

    def bind(self, op: Any) -> Callable[..., Any]:
        """The `cuda` of a record."""
        self.infer = op.infer
        return self.run

    def run(self, *arrays: Array, **attrs: Any) -> Any:
        """The results, each contiguous."""
        dim, shaped = attrs.get("dim", -1), bool(arrays[0].shape)
        attrs |= {"dim": -1} if "dim" in attrs else {}
        xs: list[Array] = [_contiguous(np.moveaxis(x, dim, -1) if shaped else x.reshape(1)) for x in arrays]
        found = self.infer(*[Aval(x.shape, x.dtype) for x in xs], **attrs)
        made = [empty(a.shape, a.dtype) for a in ((found,) if type(found) is Aval else found)]
        rows, n = math.prod(xs[0].shape[:-1]), xs[0].shape[-1]
        if rows:
            numbers = [np.float64(attrs[name]) for name in self.numbers]
            launch_rows(kernel(self.file, f"{self.name}_{xs[0].dtype}"), rows, n, [*xs, *made, np.int64(n), *numbers])
        out = [_contiguous(np.moveaxis(z, -1, dim)) if shaped else z.reshape(()) for z in made]
        return out[0] if type(found) is Aval else tuple(out)


def row_sum(x: Array) -> Array:
    """Sum over the last axis; x (..., N), result (...)."""
    return _reduce("sum", x)


def row_max(x: Array) -> Array:
    """Maximum over the last axis, NaN where there is one; x (..., N), result (...)."""
    return _reduce("max", x)


def layer_norm(x: Array, w: Array | None, b: Array | None, dims: int, eps: float) -> tuple[Array, Array, Array]:
    """See `norm.layer_norm`; mean and rstd are float32 for the 16-bit dtypes."""
    x, (w, b), n = _contiguous(x), (_contiguous(w), _contiguous(b)), math.prod(x.shape[x.ndim - dims :])
    rows = math.prod(x.shape[: x.ndim - dims])
    y = empty(x.shape, x.dtype)
    mean, rstd = (empty((rows,), _computing(x)) for _ in range(2))
    args = [x, _pointer(w), _pointer(b), y, mean, rstd, np.int64(n), np.float64(eps)]
    if rows and n:
        launch_rows(kernel("norm.cu", f"layer_norm_{x.dtype}"), rows, n, args)
    return y, mean, rstd


def layer_norm_backward(
    g: Array, x: Array, w: Array | None, mean: Array, rstd: Array, dims: int, eps: float, needs: tuple[bool, ...]
) -> tuple[Array, ...]:
    """See `norm.layer_norm_backward`."""
    g, x, w = _contiguous(g), _contiguous(x), _contiguous(w)
    row = x.shape[x.ndim - dims :]
    rows, n = len(mean), math.prod(row)
    out = []
    if needs[0]:
        dx = empty(x.shape, x.dtype)
        args = [g, x, _pointer(w), mean, rstd, dx, np.int64(n)]
        if rows and n:
            launch_rows(kernel("norm.cu", f"layer_norm_dx_{x.dtype}"), rows, n, args)
        out.append(dx)
    if needs[1] or needs[2]:
        dw, db = empty(row, x.dtype), empty(row, x.dtype)
        if n:
            function = kernel("norm.cu", f"layer_norm_columns_{x.dtype}")
            function(((n + 31) // 32,), (32, 8), (g, x, mean, rstd, dw, db, np.int64(rows), np.int64(n)))
        out += [d for d, need in zip((dw, db), needs[1:], strict=True) if need]
    return tuple(out)


def cross_entropy(
    x: Array, target: Array, weight: Array | None, reduction: str, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array]:
    """See `class_loss.cross_entropy`; the statistics are float32 for the 16-bit dtypes.

    A class that does not exist gives NaN: reading the classes to raise would make the CPU wait for the GPU.
    """
    dtype = x.dtype
    x, t, weight = _contiguous(class_rows(x)), _classes(target), _contiguous(weight)
    rows, n = x.shape
    losses, stats = empty((rows,), _computing(x)), empty((rows, 2), _computing(x))
    numbers = [np.int64(n), np.int64(ignore_index), np.float64(label_smoothing)]
    _launch_rows("cross_entropy.cu", "cross_entropy", x, [x, t, _pointer(weight), losses, stats, *numbers])
    loss = reduced(losses, target, _wide(weight), reduction, ignore_index)
    return loss.astype(dtype, copy=False), stats


def cross_entropy_backward(
    g: Array,
    x: Array,
    target: Array,
    weight: Array | None,
    stats: Array,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    needs: Any = None,
) -> tuple[Array]:
    """See `class_loss.cross_entropy_backward`."""
    rows: Array = _contiguous(class_rows(x))
    t, weight = _classes(target), _contiguous(weight)
    g = row_gradients(g.astype(stats.dtype), target, _wide(weight), reduction, ignore_index)
    g = _contiguous(np.broadcast_to(g.reshape(-1), (rows.shape[0],)))
    dx = empty(rows.shape, x.dtype)
    numbers = [np.int64(rows.shape[1]), np.int64(ignore_index), np.float64(label_smoothing)]
    args = [g, rows, t, _pointer(weight), stats, dx, *numbers]
    _launch_rows("cross_entropy.cu", "cross_entropy_backward", rows, args)
    return (_contiguous(from_class_rows(dx, x.shape)),)


def adam(
    params: list[Array], steps: list[Array], means: list[Array], squares: list[Array], grads: list[Array], *,
    lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool, maximize: bool,
) -> None:  # fmt: skip
    """See `optim.adam`, over columns; all arrays contiguous float32."""
    if not params or sum(p.size for p in params) == 0:
        return
    counts = [step.item() + 1 for step in steps]
    for step, count in zip(steps, counts, strict=True):
        step.fill(count)
    tables = [table(np.array([a.data.ptr for a in arrays], np.int64)) for arrays in (params, grads, means, squares)]
    ends = np.cumsum([p.size for p in params], dtype=np.int64)
    step_sizes = table(np.array([lr / (1 - beta1**t) for t in counts]))
    corrections = table(np.array([math.sqrt(1 - beta2**t) for t in counts]))
    settings = [np.float64(v) for v in (lr, beta1, beta2, eps, weight_decay)]
    launch_each(
        kernel("optim.cu", "adam_float32"),
        int(ends[-1]),
        [*tables, table(ends), step_sizes, corrections, np.int64(len(params)), *settings,
         np.int32(decoupled), np.int32(maximize)],
    )  # fmt: skip


def _reduce(name: str, x: Array) -> Array:
    x = _contiguous(x)
    y = empty(x.shape[:-1], x.dtype)
    rows = math.prod(x.shape[:-1])
    if rows:
        launch_rows(kernel("reduce.cu", f"{name}_{x.dtype}"), rows, x.shape[-1], [x, y, np.int64(x.shape[-1])])
    return y


def _launch_rows(file: str, name: str, x: Array, args: list[Any]) -> None:
    n = x.shape[-1]
    if x.size:
        launch_rows(kernel(file, f"{name}_{x.dtype}"), x.size // n, n, args)


def _contiguous(x: Array | None) -> Array | None:
    return x if x is None or x.flags.c_contiguous else x.copy(order="C")


def _classes(target: Array) -> Array:
    return _contiguous(target.reshape(-1).astype(np.int64, copy=False))


def _wide(x: Array | None) -> Array | None:
    return x if x is None else x.astype(_computing(x), copy=False)


def _pointer(x: Array | None) -> Any:
    """An array, or the null pointer."""
    return np.int64(0) if x is None else x


def _computing(x: Array) -> np.dtype:
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
