"""Scaled dot-product attention (Vaswani et al., 2017) and its gradients: sizes of the C kernels, and NumPy texts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core.order import contiguous as in_sequence
from rushlight_tensor.core.promote import FLOAT32
from rushlight_tensor.kernels.arrays import contiguous, in_order
from rushlight_tensor.kernels.blas import Matrix, batch_strides, gemm, load_private_blas, two_loops
from rushlight_tensor.kernels.compile import c_library
from rushlight_tensor.kernels.softmax import softmax, softmax_backward

Array = Any
Batch = tuple[int, ...]


def has_kernels() -> bool:
    """Whether there are kernels in C, which keep other things for the gradient than the NumPy text does."""
    return load_private_blas() is not False and c_library("attention") is not None


def as_pair(batch: Batch) -> tuple[int, int]:
    """Any batch as (B, H)."""
    return math.prod(batch[:-1]), math.prod(batch[-1:])


def sizes(batch: Batch, **xs: Any) -> dict[str, int] | None:
    """Sizes of the kernels: the batch as two loops, and where in each of them an array (..., rows, columns) begins.

    None where one must be copied: its columns lie apart, or its batch is no two loops.
    """
    rows, steps = {}, []
    for name, x in xs.items():
        strides = in_sequence(x.shape) if x.strides is None else x.strides
        seen = Matrix.of(*x.shape[-2:], *strides[-2:])
        if 0 in x.shape or seen is None or seen.transposed:
            return None
        rows[f"{name}_row"] = seen.distance
        steps.append(batch_strides(batch, x.shape, strides))
    loops = two_loops(batch, steps)
    if loops is None:
        return None
    (b, h), begins = loops
    found = {"batch": b, "heads": h, **rows}
    for name, (of_batch, of_head) in zip(xs, begins, strict=True):
        found |= {f"{name}_batch": of_batch, f"{name}_head": of_head}
    return found


def packed(*arrays: Array) -> Any:
    """What the kernels take, where the inputs had no sizes; a mask is work for the NumPy text."""
    mask = arrays[-1 if len(arrays) == 4 else -2]
    if mask is not None or arrays[0].dtype != FLOAT32:
        return arrays
    return [a if a is None else contiguous(a) for a in arrays]


# ------------------------------------------------------------------------------------------------------- NumPy texts


def attention(q: Array, k: Array, v: Array, mask: Array | None, is_causal: bool, scale: float) -> tuple[Array, Array]:
    """`softmax(q @ k.T * scale + mask) @ v`.

    Args:
        q: (..., T, D).
        k: (..., S, D).
        v: (..., S, E).
        mask: Broadcast against (..., T, S): bool (True: may be seen) or floating point (added); None for none.
        is_causal: Query i sees keys 0 to i only.
        scale: What the products are multiplied by.
    Returns:
        (..., T, E), and the probabilities (B, H, T, S, 1), for the gradient.
    """
    batch = _batch(q, k, v)
    q, k, v = (_four(x, batch) for x in (q, k, v))
    scores = gemm(q, k.swapaxes(-1, -2)) * q.dtype.type(scale)
    if mask is not None and mask.ndim > 2:
        mask = _four(mask, batch)
    if is_causal and mask is None and scores.size:
        mask = np.tril(np.ones_like(scores[0, 0], dtype=bool))
    if mask is not None and mask.dtype == bool:
        scores = np.where(mask, scores, q.dtype.type(-np.inf))
    elif mask is not None:
        scores = scores + mask.astype(q.dtype)
    p = softmax(scores, -1)
    if mask is not None:  # a row that may see nothing is zero, as in PyTorch
        p = np.where((scores == -np.inf).all(-1, keepdims=True), q.dtype.type(0), p)
    out = gemm(p, v)
    return out.reshape(*batch, *out.shape[-2:]), in_order(p)[..., None]


def attention_backward(
    g: Array, q: Array, k: Array, v: Array, mask: Array | None, saved: Array, is_causal: bool, scale: float, needs: Any
) -> tuple[Array, ...]:
    """Gradients of `attention` by q, k and v, those that are needed; `saved` is its second result, or the kernel's."""
    batch = _batch(q, k, v)
    g, q, k, v = (_four(x, batch) for x in (g, q, k, v))
    p = saved[..., 0] if saved.ndim == 5 else _probabilities(q, k, saved, is_causal, scale)
    ds = softmax_backward(gemm(g, v.swapaxes(-1, -2)), p, -1) * q.dtype.type(scale)
    factors = ((ds, k), (ds.swapaxes(-1, -2), q), (p.swapaxes(-1, -2), g))
    made = [gemm(a, b) for (a, b), need in zip(factors, needs, strict=False) if need]
    return tuple([d.reshape(*batch, *d.shape[-2:]) for d in made])


def _probabilities(q: Array, k: Array, stats: Array, is_causal: bool, scale: float) -> Array:
    """The probabilities, from each row's largest score and 1 / sum."""
    p = np.exp((gemm(q, k.swapaxes(-1, -2)) - stats[..., :1]) * q.dtype.type(scale)) * stats[..., 1:]
    return np.tril(p) if is_causal else p


def _batch(q: Array, k: Array, v: Array) -> Batch:
    return np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])


def _four(x: Array, batch: Batch) -> Array:
    """(*batch, rows, columns) as (B, H, rows, columns), broadcast."""
    if x.ndim == 4 and x.shape[:2] == batch:
        return x
    x = np.broadcast_to(x, (*batch, *x.shape[-2:]))
    return x if len(batch) == 2 else x.reshape(*as_pair(batch), *x.shape[-2:])
