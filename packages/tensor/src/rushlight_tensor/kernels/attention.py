"""Scaled dot-product attention, forward and backward (Vaswani et al., 2017)."""

from __future__ import annotations

import math

import numpy as np

from rushlight_tensor.kernels.arrays import contiguous, in_order, on_host
from rushlight_tensor.kernels.binding import Library
from rushlight_tensor.kernels.blas import gemm, load_private_blas
from rushlight_tensor.kernels.compile import c_library
from rushlight_tensor.kernels.softmax import softmax, softmax_backward

Array = np.ndarray


def attention(
    q: Array, k: Array, v: Array, mask: Array | None = None, causal: bool = False, scale: float | None = None
) -> tuple[Array, Array]:
    """`softmax(q @ k.T * scale + mask) @ v`.

    The heads may be views of one (B, T, H * D) array: nothing is copied, and the result then lies in memory as (B, T,
    H, E), so that the merge of the heads that follows is free too.

    Args:
        q: (B, H, T, D).
        k: (B, H, S, D).
        v: (B, H, S, E).
        mask: Broadcast against (B, H, T, S): bool (True: may be seen) or floating point (added); None for none.
        causal: Query i sees keys 0 to i only.
        scale: Default `1 / sqrt(D)`.
    Returns:
        (B, H, T, E), and what `attention_backward` needs: each row's (max, 1 / sum) (B, H, T, 2), or the probabilities
        (B, H, T, S, 1) where NumPy did the work.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    b, h, t, d = q.shape
    s, e = v.shape[-2:]
    out = _empty_like(q, (b, h, t, e))
    c = library() if mask is None and s and _fits(q, k, v) else None
    if c is None:
        return _attention_numpy(q, k, v, mask, causal, scale, out)
    stats = np.empty((b, h, t, 2), np.float32)
    c.attention(q, k, v, out, stats, b, h, t, s, d, e, causal, scale, *_steps(q, k, v, out))
    return out, stats


def library() -> Library | None:
    """The kernels in C, where they can be used at all."""
    return None if load_private_blas() is False else c_library("attention")


def attention_backward(
    g: Array, q: Array, k: Array, v: Array, saved: Array, causal: bool = False, scale: float | None = None
) -> tuple[Array, Array, Array]:
    """Gradients of `attention`.

    Args:
        g: (B, H, T, E), gradient of the result.
        q: (B, H, T, D), as for the forward pass, as are k and v.
        saved: The forward pass's second result.
        causal: As for the forward pass.
        scale: As for the forward pass.
    Returns:
        dq, dk, dv, each lying in memory as its input does.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    b, h, t, d = q.shape
    s, e = v.shape[-2:]
    if saved.ndim == 5 or not _fits(q, k, v) or (c := c_library("attention")) is None:
        return _attention_backward_numpy(g, q, k, v, saved[..., 0], scale)
    if not _fits(g):
        g = contiguous(g.astype(np.float32, copy=False))
    dq, dk, dv = (_empty_like(x, x.shape) for x in (q, k, v))
    c.attention_backward(
        g, q, k, v, saved, dq, dk, dv, b, h, t, s, d, e, causal, scale, *_steps(g, q, k, v, dq, dk, dv)
    )
    return dq, dk, dv


def _fits(*arrays: Array) -> bool:
    """Whether C can read them: float32, last dimension contiguous, rows that do not overlap."""
    return on_host(*arrays) and all(
        x.flags.aligned
        and x.dtype == np.float32
        and x.size
        and x.strides[3] == 4
        and x.strides[2] >= 4 * x.shape[3]
        and min(x.strides) > 0
        for x in arrays
    )


def _empty_like(x: Array, shape: tuple[int, ...]) -> Array:
    """Fresh (B, H, T, D) memory in the order of `x`: heads inside rows, as after a split, or rows inside heads."""
    b, h, t, d = shape
    if x.strides[1] < x.strides[2]:
        return np.empty_like(x, shape=(b, t, h, d), order="C").transpose(0, 2, 1, 3)
    return np.empty_like(x, shape=shape, order="C")


def _steps(*arrays: Array) -> list[int]:
    return [step // 4 for x in arrays for step in x.strides[:3]]


def _attention_numpy(
    q: Array, k: Array, v: Array, mask: Array | None, causal: bool, scale: float, out: Array
) -> tuple[Array, Array]:
    scores = gemm(q, k.swapaxes(-1, -2)) * q.dtype.type(scale)
    if causal:
        mask = np.tril(np.ones_like(scores[0, 0], dtype=bool)) if mask is None and scores.size else mask
    if mask is not None and mask.dtype == bool:
        scores = np.where(mask, scores, q.dtype.type(-np.inf))
    elif mask is not None:
        scores = scores + mask.astype(q.dtype)
    p = softmax(scores, -1)
    if mask is not None:  # a row that may see nothing is zero, as in PyTorch
        p = np.where((scores == -np.inf).all(-1, keepdims=True), q.dtype.type(0), p)
    out[...] = gemm(p, v)
    return out, in_order(p)[..., None]


def _attention_backward_numpy(
    g: Array, q: Array, k: Array, v: Array, p: Array, scale: float
) -> tuple[Array, Array, Array]:
    ds = softmax_backward(gemm(g, v.swapaxes(-1, -2)), p, -1) * q.dtype.type(scale)
    made = (_empty_like(q, q.shape), _empty_like(k, k.shape), _empty_like(v, v.shape))
    for out, (a, b) in zip(made, ((ds, k), (ds.swapaxes(-1, -2), q), (p.swapaxes(-1, -2), g)), strict=True):
        out[...] = gemm(a, b)
    return made
