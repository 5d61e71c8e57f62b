"""Two-dimensional convolution and its gradients on logically (N, C, H, W) arrays that lie in memory as (N, H, W, C)."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rushlight_tensor.kernels.arrays import contiguous, in_order, on_host
from rushlight_tensor.kernels.binding import Library
from rushlight_tensor.kernels.blas import gemm, load_private_blas
from rushlight_tensor.kernels.channels_last import new_image, to_channels_last
from rushlight_tensor.kernels.compile import c_library
from rushlight_tensor.kernels.linear import column_sums

Array = np.ndarray
Pair = tuple[int, ...]  # of two
Size = tuple[int, ...]


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Two-dimensional cross-correlation with zero padding.

    Args:
        x: (N, C, H, W), in any memory order.
        w: (K, C / groups, KH, KW).
        b: (K,) or None.
        stride: Steps of the window, (vertical, horizontal) as all pairs.
        padding: Zeros added on both sides.
        dilation: Distance of the taps.
        groups: Number of independent parts of the channels.
    Returns:
        (N, K, OH, OW), a view of (N, OH, OW, K) memory.
    """
    out = _out_sizes(x.shape, w.shape, stride, padding, dilation)
    shape = _geometry(x.shape, w.shape, out, stride, padding, dilation, groups)
    c = _library(x, w, b)
    if c is None or not (x.size and w.size):
        return _conv2d_numpy(x, w, b, shape)
    source = to_channels_last(x)
    memory, y = new_image((x.shape[0], w.shape[0], *out), x)
    c.conv2d(source, contiguous(w), b if b is None else contiguous(b), memory, *shape)
    return y


def conv2d_backward(
    g: Array,
    x: Array,
    w: Array,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    needs: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of `conv2d`.

    Args:
        g: (N, K, OH, OW), gradient of the result, in any memory order.
        x: (N, C, H, W), as for the forward pass, as are the others.
        needs: Which of dx, dw, db to compute.
    Returns:
        dx (N, C, H, W) as a view of (N, H, W, C) memory, dw (K, C / groups, KH, KW), db (K,); None where not needed.
    """
    shape = _geometry(x.shape, w.shape, g.shape[2:], stride, padding, dilation, groups)
    c = _library(g, x, w)
    g_last = to_channels_last(g)
    db = column_sums(g_last) if needs[2] else None
    if c is None or not (g.size and x.size and w.size):
        dx = _input_gradient_numpy(g_last, w, shape) if needs[0] else None
        return dx, _weight_gradient_numpy(g_last, x, w, shape) if needs[1] else None, db
    dx = dw = None
    if needs[0]:
        memory, dx = new_image(x.shape, x)
        c.conv2d_grad_input(g_last, contiguous(w), memory, *shape)
    if needs[1]:
        dw = np.empty(w.shape, w.dtype)
        c.conv2d_grad_weight(g_last, to_channels_last(x), dw, *shape)
    return dx, dw, db


def conv2d_input_gradient(
    g: Array,
    w: Array,
    input_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """The gradient of `conv2d` by its input, which is also the transposed convolution of `g`.

    Args:
        g: (N, K, OH, OW).
        w: (K, C / groups, KH, KW).
        input_shape: (N, C, H, W); several H and W lead to the same OH and OW, what lies beyond them is zero.
        stride: As for `conv2d`, as are the others.
    Returns:
        (N, C, H, W), a view of (N, H, W, C) memory.
    """
    shape = _geometry(input_shape, w.shape, g.shape[2:], stride, padding, dilation, groups)
    c = _library(g, w)
    if c is None or not (g.size and w.size and min(input_shape)):
        return _input_gradient_numpy(to_channels_last(g), w, shape)
    memory, dx = new_image(input_shape, g)
    c.conv2d_grad_input(to_channels_last(g), contiguous(w), memory, *shape)
    return dx


def _library(*arrays: Array | None) -> Library | None:
    if any(x is not None and x.dtype != np.float32 for x in arrays) or not on_host(*arrays) or not load_private_blas():
        return None
    return c_library("conv")


def _out_sizes(x: Size, w: Size, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    return tuple([(x[i] + 2 * padding[i - 2] - dilation[i - 2] * (w[i] - 1) - 1) // stride[i - 2] + 1 for i in (2, 3)])


def _geometry(x: Size, w: Size, out: Size, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Size:
    """What the kernels of `c/conv.c` are given after the arrays; channels are counted per group.

    Raises:
        ValueError: The channels of input and weight do not agree.
    """
    n, c, h, width = x
    k, cg, kh, kw = w
    if cg * groups != c or k % groups:
        raise ValueError(f"convolution of {c} channels in {groups} groups with a weight of sizes {w}")
    return n, h, width, cg, *out, k // groups, kh, kw, *stride, *padding, *dilation, groups


# The NumPy reference: patches as a strided view, one matrix product per group.


def _patches(x: Array, out: Size, kernel: Size, stride: Size, padding: Size, dilation: Size) -> Array:
    """(N, C, OH, OW, KH, KW), a view of the padded input."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    windows = sliding_window_view(padded, extent, axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]][:, :, : out[0], : out[1]]


def _columns(x: Array, shape: Size) -> list[Array]:
    """The patches of each group as a matrix, (N * OH * OW, C / groups * KH * KW)."""
    cg, out, kernel, groups = shape[3], shape[4:6], shape[7:9], shape[15]
    patches = _patches(x, out, kernel, shape[9:11], shape[11:13], shape[13:15])
    parts = [patches[:, i * cg : (i + 1) * cg].transpose(0, 2, 3, 1, 4, 5) for i in range(groups)]
    return [part.reshape(x.shape[0] * math.prod(out), cg * math.prod(kernel)) for part in parts]


def _conv2d_numpy(x: Array, w: Array, b: Array | None, shape: Size) -> Array:
    n, out, kg = x.shape[0], shape[4:6], shape[6]
    memory, y = new_image((n, w.shape[0], *out), x)
    if w.size:
        for i, columns in enumerate(_columns(x, shape)):
            product = gemm(columns, w[i * kg : (i + 1) * kg].reshape(kg, -1).T)
            memory[..., i * kg : (i + 1) * kg] = product.reshape(n, *out, kg)
    else:
        memory[...] = 0  # sums over nothing
    if b is not None:
        memory += b
    return y


def _input_gradient_numpy(g_last: Array, w: Array, shape: Size) -> Array:
    n, h, width, cg, oh, ow, kg, kh, kw = shape[:9]
    (sh, sw, ph, pw, dh, dw), groups = shape[9:15], shape[15]
    padded = np.zeros_like(g_last, order="C", shape=(n, h + 2 * ph, width + 2 * pw, cg * groups))
    for i in range(groups if g_last.size else 0):
        gi, wi = g_last[..., i * kg : (i + 1) * kg].reshape(-1, kg), w[i * kg : (i + 1) * kg]
        for ky, kx in np.ndindex(kh, kw):
            rows = slice(ky * dh, ky * dh + (oh - 1) * sh + 1, sh)
            columns = slice(kx * dw, kx * dw + (ow - 1) * sw + 1, sw)
            padded[:, rows, columns, i * cg : (i + 1) * cg] += gemm(gi, wi[:, :, ky, kx]).reshape(n, oh, ow, cg)
    return in_order(padded[:, ph : ph + h, pw : pw + width]).transpose(0, 3, 1, 2)


def _weight_gradient_numpy(g_last: Array, x: Array, w: Array, shape: Size) -> Array:
    kg = shape[6]
    dw = np.zeros_like(w, order="C")
    if not (w.size and g_last.size):
        return dw
    for i, columns in enumerate(_columns(x, shape)):
        gi = g_last[..., i * kg : (i + 1) * kg].reshape(-1, kg)
        dw[i * kg : (i + 1) * kg] = gemm(gi.T, columns).reshape(kg, *w.shape[1:])
    return dw
