"""Two-dimensional convolution and its gradients on (N, C, H, W) arrays: sizes of the C kernels, and NumPy texts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rushlight_tensor.kernels.arrays import contiguous, in_order
from rushlight_tensor.kernels.blas import gemm
from rushlight_tensor.kernels.channels_last import new_image

Array = Any
Pair = tuple[int, ...]  # of two
Size = tuple[int, ...]
Geometry = dict[str, int]


def geometry(x: Size, w: Size, out: Size, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Geometry:
    """The sizes of the kernels of `c/conv.c`, for shapes of input, weight and result; channels per group."""
    (n, _, h, width), (k, cg, kh, kw), (oh, ow) = x, w, out[2:]
    return {
        "n": n, "h": h, "width": width, "cg": cg, "oh": oh, "ow": ow, "kg": k // groups, "kh": kh, "kw": kw,
        "stride_h": stride[0], "stride_w": stride[1], "pad_h": padding[0], "pad_w": padding[1],
        "dilation_h": dilation[0], "dilation_w": dilation[1], "groups": groups,
    }  # fmt: skip


def result_shape(x: Size, w: Size, stride: Pair, padding: Pair, dilation: Pair) -> Size:
    """The shape of a convolution's result."""
    sizes = zip(x[2:], w[2:], stride, padding, dilation, strict=True)
    return x[0], w[0], *[(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]


def no_memory(place: int, *arrays: Array, **attrs: Any) -> MemoryError:
    """The error of a kernel whose numbers are beyond all memory."""
    return MemoryError(f"convolution: no memory for images this far padded: {attrs}")


# ------------------------------------------------------------------------------------------------------- NumPy texts
# Patches as a strided view, one matrix product per group.


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """Two-dimensional cross-correlation with zero padding.

    Args:
        x: (N, C, H, W).
        w: (K, C / groups, KH, KW).
        b: (K,) or None.
        stride: Steps of the window, (vertical, horizontal) as all pairs.
        padding: Zeros added on both sides.
        dilation: Distance of the taps.
        groups: Number of independent parts of the channels.
    Returns:
        (N, K, OH, OW).
    """
    shape = result_shape(x.shape, w.shape, stride, padding, dilation)
    s = geometry(x.shape, w.shape, shape, stride, padding, dilation, groups)
    memory, y = new_image(shape, x)
    kg = s["kg"]
    if w.size:
        for i, columns in enumerate(_columns(x, s)):
            product = gemm(columns, w[i * kg : (i + 1) * kg].reshape(kg, -1).T)
            memory[..., i * kg : (i + 1) * kg] = product.reshape(*memory.shape[:3], kg)
    else:
        memory[...] = 0  # sums over nothing
    if b is not None:
        memory += b
    return y


def conv2d_input_gradient(
    g: Array, w: Array, input_shape: Size, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """The gradient of `conv2d` by its input, which is also the transposed convolution of `g`.

    Args:
        g: (N, K, OH, OW).
        w: (K, C / groups, KH, KW).
        input_shape: (N, C, H, W); several H and W lead to the same OH and OW, what lies beyond them is zero.
        stride: As for `conv2d`, as are the others.
    Returns:
        (N, C, H, W).
    """
    (n, c, h, width), (_, cg, kh, kw), (oh, ow) = input_shape, w.shape, g.shape[2:]
    (sh, sw), (ph, pw), (dh, dw), kg = stride, padding, dilation, w.shape[0] // groups
    g = _pixels(g)
    padded = np.zeros_like(g, order="C", shape=(n, h + 2 * ph, width + 2 * pw, c))
    for i in range(groups if g.size else 0):
        gi, wi = g[..., i * kg : (i + 1) * kg].reshape(-1, kg), w[i * kg : (i + 1) * kg]
        for ky, kx in np.ndindex(kh, kw):
            rows = slice(ky * dh, ky * dh + (oh - 1) * sh + 1, sh)
            columns = slice(kx * dw, kx * dw + (ow - 1) * sw + 1, sw)
            padded[:, rows, columns, i * cg : (i + 1) * cg] += gemm(gi, wi[:, :, ky, kx]).reshape(n, oh, ow, cg)
    return in_order(padded[:, ph : ph + h, pw : pw + width]).transpose(0, 3, 1, 2)


def conv2d_weight_gradient(
    g: Array, x: Array, weight_shape: Size, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """The gradient of `conv2d` by its weight: g (N, K, OH, OW), x (N, C, H, W), result (K, C / groups, KH, KW)."""
    dw = np.zeros_like(x, order="C", shape=weight_shape)
    if not (dw.size and g.size):
        return dw
    s = geometry(x.shape, weight_shape, g.shape, stride, padding, dilation, groups)
    kg, g = s["kg"], _pixels(g)
    for i, columns in enumerate(_columns(x, s)):
        gi = g[..., i * kg : (i + 1) * kg].reshape(-1, kg)
        dw[i * kg : (i + 1) * kg] = gemm(gi.T, columns).reshape(kg, *weight_shape[1:])
    return dw


def conv2d_backward(g: Array, x: Array, w: Array, needs: tuple[bool, ...], **how: Any) -> tuple[Array, ...]:
    """The gradients of `conv2d` by input, weight and bias, those that are needed; `how`: its attributes."""
    grads = []
    if needs[0]:
        grads.append(conv2d_input_gradient(g, w, x.shape, **how))
    if needs[1]:
        grads.append(conv2d_weight_gradient(g, x, w.shape, **how))
    if needs[2]:
        grads.append(_pixels(g).reshape(-1, g.shape[1]).sum(0))
    return tuple(grads)


def _pixels(x: Array) -> Array:
    """(N, C, H, W) as (N, H, W, C), contiguous."""
    return contiguous(x.transpose(0, 2, 3, 1))


def _patches(x: Array, s: Geometry) -> Array:
    """(N, C, OH, OW, KH, KW), a view of the padded input."""
    padded = np.pad(x, ((0, 0), (0, 0), (s["pad_h"],) * 2, (s["pad_w"],) * 2))
    extent = (s["dilation_h"] * (s["kh"] - 1) + 1, s["dilation_w"] * (s["kw"] - 1) + 1)
    windows = sliding_window_view(padded, extent, axis=(2, 3))
    windows = windows[:, :, :: s["stride_h"], :: s["stride_w"], :: s["dilation_h"], :: s["dilation_w"]]
    return windows[:, :, : s["oh"], : s["ow"]]


def _columns(x: Array, s: Geometry) -> list[Array]:
    """The patches of each group as a matrix, (N * OH * OW, C / groups * KH * KW)."""
    cg, patches = s["cg"], _patches(x, s)
    parts = [patches[:, i * cg : (i + 1) * cg].transpose(0, 2, 3, 1, 4, 5) for i in range(s["groups"])]
    rows = s["n"] * s["oh"] * s["ow"]
    return [part.reshape(rows, cg * s["kh"] * s["kw"]) for part in parts]
