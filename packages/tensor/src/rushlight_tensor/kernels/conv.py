"""Two-dimensional convolution and its gradients on logically (N, C, H, W) arrays that lie in memory as (N, H, W, C)."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rushlight_tensor.kernels.arrays import contiguous, on_host
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
    shape = _geometry(x.shape, w.shape, stride, padding, dilation, groups)
    n, k, oh, ow = x.shape[0], w.shape[0], shape[4], shape[5]
    c = _library(x, w, b)
    if c is None:
        return _conv2d_numpy(x, w, b, stride, padding, dilation, groups)
    source = to_channels_last(x)
    memory, y = new_image((n, k, oh, ow), x)
    if y.size:
        bias = b if b is None else np.ascontiguousarray(b)
        c.conv2d(source, contiguous(w), bias, memory, np.array(shape, np.int64))
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
    shape = _geometry(x.shape, w.shape, stride, padding, dilation, groups)
    c = _library(g, x, w)
    g_last = to_channels_last(g)
    db = column_sums(g_last) if needs[2] else None
    if c is None or not g.size:
        dx = _input_gradient_numpy(g_last, w, shape) if needs[0] else None
        return dx, _weight_gradient_numpy(g_last, x, w, shape) if needs[1] else None, db
    packed = np.array(shape, np.int64)
    dx = dw = None
    if needs[0]:
        memory, dx = new_image(x.shape, x)
        c.conv2d_grad_input(g_last, contiguous(w), memory, packed)
    if needs[1]:
        dw = np.empty(w.shape, w.dtype)
        c.conv2d_grad_weight(g_last, to_channels_last(x), dw, packed)
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
        input_shape: (N, C, H, W); several H and W lead to the same OH and OW.
        stride: As for `conv2d`, as are the others.
    Returns:
        (N, C, H, W), a view of (N, H, W, C) memory.
    """
    shape = _geometry(input_shape, w.shape, stride, padding, dilation, groups)
    c = _library(g, w)
    if c is None or not g.size:
        return _input_gradient_numpy(to_channels_last(g), w, shape)
    memory, dx = new_image(input_shape, g)
    c.conv2d_grad_input(to_channels_last(g), contiguous(w), memory, np.array(shape, np.int64))
    return dx


def _library(*arrays: Array | None) -> Library | None:
    if any(x is not None and x.dtype != np.float32 for x in arrays) or not on_host(*arrays) or not load_private_blas():
        return None
    return c_library("conv")


def _geometry(
    x: tuple[int, ...], w: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> tuple[int, ...]:
    """In the order of `geometry` in `c/conv.c`."""
    n, c, h, width = x
    k, _, kh, kw = w
    oh = (h + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    return n, h, width, c, oh, ow, k, kh, kw, *stride, *padding, *dilation, groups


# The NumPy reference: patches as a strided view, one matrix product per group.


def _patches(x: Array, kernel: Size, stride: Size, padding: Size, dilation: Size) -> Array:
    """(N, C, OH, OW, KH, KW), a view of the padded input."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    windows = sliding_window_view(padded, extent, axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _conv2d_numpy(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    n, _, oh, ow = x.shape[0], 0, *_geometry(x.shape, w.shape, stride, padding, dilation, groups)[4:6]
    k, cg, kh, kw = w.shape
    patches = _patches(x, (kh, kw), stride, padding, dilation)
    memory, y = new_image((n, k, oh, ow), x)
    kg = k // groups
    for i in range(groups):
        columns = patches[:, i * cg : (i + 1) * cg].transpose(0, 2, 3, 1, 4, 5).reshape(n * oh * ow, cg * kh * kw)
        product = gemm(columns, w[i * kg : (i + 1) * kg].reshape(kg, -1).T)
        memory[..., i * kg : (i + 1) * kg] = product.reshape(n, oh, ow, kg)
    if b is not None:
        memory += b
    return y


def _input_gradient_numpy(g_last: Array, w: Array, shape: Size) -> Array:
    n, h, width, c, oh, ow, k, kh, kw = shape[:9]
    (sh, sw, ph, pw, dh, dw), groups = shape[9:15], shape[15]
    kg, cg = k // groups, c // groups
    padded = np.zeros_like(g_last, order="C", shape=(n, h + 2 * ph, width + 2 * pw, c))
    for i in range(groups):
        gi, wi = g_last[..., i * kg : (i + 1) * kg].reshape(-1, kg), w[i * kg : (i + 1) * kg]
        for ky, kx in np.ndindex(kh, kw):
            rows = slice(ky * dh, ky * dh + (oh - 1) * sh + 1, sh)
            columns = slice(kx * dw, kx * dw + (ow - 1) * sw + 1, sw)
            padded[:, rows, columns, i * cg : (i + 1) * cg] += gemm(gi, wi[:, :, ky, kx]).reshape(n, oh, ow, cg)
    return padded[:, ph : ph + h, pw : pw + width].transpose(0, 3, 1, 2)


def _weight_gradient_numpy(g_last: Array, x: Array, w: Array, shape: Size) -> Array:
    kg, cg = w.shape[0] // shape[15], w.shape[1]
    patches = _patches(x, w.shape[2:], shape[9:11], shape[11:13], shape[13:15])
    dw = np.empty_like(w, order="C")
    for i in range(shape[15]):
        columns = patches[:, i * cg : (i + 1) * cg].transpose(0, 2, 3, 1, 4, 5).reshape(-1, w[0].size)
        gi = g_last[..., i * kg : (i + 1) * kg].reshape(-1, kg)
        dw[i * kg : (i + 1) * kg] = gemm(gi.T, columns).reshape(kg, *w.shape[1:])
    return dw
