"""Linear layers, `x @ w.T + b`, and their gradients: sizes of the C kernels, and the NumPy texts of their records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.kernels.blas import as_rows

Array = Any


def linear(x: Array, w: Array, b: Array | None) -> Array:
    """`x @ w.T + b`.

    Args:
        x: (..., K).
        w: (N, K).
        b: (N,) or None.
    Returns:
        (..., N).
    """
    y = np.matmul(x, w.T)
    return y if b is None else y + b


def linear_backward(g: Array, x: Array, w: Array, needs: tuple[bool, ...]) -> tuple[Array, ...]:
    """Gradients of `linear`, those that are needed: (..., K), (N, K), (N,).

    Args:
        g: (..., N), gradient of the result.
        x: (..., K).
        w: (N, K).
        needs: Which of dx, dw, db to compute.
    """
    n, k = w.shape
    m = math.prod(x.shape[:-1])
    rows, out = g.reshape(m, n), []
    if needs[0]:
        out.append(np.matmul(rows, w).reshape(x.shape))
    if needs[1]:
        out.append(np.matmul(rows.T, x.reshape(m, k)))
    if needs[2]:
        out.append(rows.sum(0))
    return tuple(out)


def linear_sizes(x: Any, w: Any, b: Any) -> dict[str, int] | None:
    """Sizes of `linear`: x and w may lie transposed or apart."""
    if len(w.shape) != 2 or (b is not None and tuple(b.shape) != (w.shape[0],)):
        return None  # a bias that is broadcast
    a, seen = as_rows(x), as_rows(w)
    if a is None or seen is None:
        return None
    sizes = {"m": math.prod(x.shape[:-1]), "n": w.shape[0], "k": w.shape[1]}
    return {**sizes, "tx": a.transposed, "ldx": a.distance, "tw": seen.transposed, "ldw": seen.distance}


def linear_backward_sizes(g: Any, x: Any, w: Any, needs: Any = None) -> dict[str, int] | None:
    """Sizes of `linear_backward`."""
    return linear_sizes(x, w, None)
