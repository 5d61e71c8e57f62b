"""Max and average pooling and their gradients, on logically (N, C, H, W) arrays; see `channels_last`."""

from __future__ import annotations

import numpy as np

from rushlight_tensor.kernels.arrays import add_at, contiguous, like, on_host
from rushlight_tensor.kernels.binding import Library
from rushlight_tensor.kernels.channels_last import new_image, to_channels_last
from rushlight_tensor.kernels.compile import c_library

Array = np.ndarray
Pair = tuple[int, ...]  # of two

_MOST_POSITIONS = 2**31 - 1


def pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False) -> int:
    """Length of a pooled dimension: with `ceil_mode`, windows that hang over the end count if they start inside."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    return out - 1 if ceil_mode and (out - 1) * stride >= size + padding else out


def max_pool2d(
    x: Array, kernel: Pair, stride: Pair, padding: Pair = (0, 0), dilation: Pair = (1, 1), ceil_mode: bool = False
) -> tuple[Array, Array]:
    """Largest element of each window; NaN counts as the largest.

    Args:
        x: (N, C, H, W), in any memory order.
        kernel: Window, (vertical, horizontal) as all pairs.
        stride: Steps of the window.
        padding: Positions added on both sides, which never win.
        dilation: Distance of the window's elements.
        ceil_mode: Let windows hang over the end.
    Returns:
        The maxima (N, C, OH, OW), and their positions y * W + x in the image, int32 of the same shape; a window that
        holds no element, between the padding, gives -inf and -1.
    """
    shape = _geometry(x.shape, kernel, stride, padding, dilation, ceil_mode)
    n, c = x.shape[:2]
    if x.shape[2] * x.shape[3] > _MOST_POSITIONS:
        raise RuntimeError(f"max_pool2d: an image of {x.shape[2:]} has more positions than an index of 32 bits")
    source = to_channels_last(x)
    memory, y = new_image((n, c, *shape[4:6]), x)
    index_memory, index = new_image((n, c, *shape[4:6]), x, np.dtype(np.int32))
    library = _library(x)
    if library is not None:
        library.max_pool(source, memory, index_memory, *shape)
    else:
        _max_pool_numpy(source, memory, index_memory, shape)
    return y, index


def max_pool2d_backward(g: Array, index: Array, input_shape: tuple[int, ...]) -> Array:
    """Gradient of `max_pool2d`: each g goes to the position of its maximum, where there is one.

    Args:
        g: (N, C, OH, OW).
        index: (N, C, OH, OW) int32, from the forward pass.
        input_shape: (N, C, H, W).
    Returns:
        (N, C, H, W).
    Raises:
        RuntimeError: A position lies outside of the image: the indices were changed in between.
    """
    n, c, h, w = input_shape
    if index.shape != g.shape or (n, c) != g.shape[:2]:
        raise RuntimeError(f"max_pool2d: a gradient of {g.shape} with indices of {index.shape} for {input_shape}")
    g_last, index_last = to_channels_last(g), contiguous(index.transpose(0, 2, 3, 1))
    memory, dx = new_image(input_shape, g)
    library = _library(g)
    oh, ow = g.shape[2:]
    if library is not None:
        wrong = library.max_pool_backward(g_last, index_last, memory, n, h, w, c, oh, ow)
        if wrong >= 0:
            raise _no_position(index_last.reshape(-1)[wrong], h, w)
        return dx
    memory[...] = 0
    if on_host(g):
        outside = (index_last < -1) | (index_last >= h * w)
        if outside.any():
            raise _no_position(index_last[outside][0], h, w)
    if memory.size:
        first = like(g, np.arange(n)[:, None, None, None] * (h * w * c) + np.arange(c))  # of each image, each channel
        at = first + np.maximum(index_last, 0).astype(np.int64) * c
        given = np.where(index_last < 0, g.dtype.type(0), g_last)
        flat = memory if memory.flags.c_contiguous else np.zeros_like(g_last, shape=memory.shape)
        add_at(flat.reshape(-1), at.reshape(-1), given.reshape(-1))
        if flat is not memory:
            memory[...] = flat
    return dx


def _no_position(index: int, h: int, w: int) -> RuntimeError:
    return RuntimeError(f"Found an invalid max index: {index} (input sizes are of size {h}x{w})")


def avg_pool2d(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Array:
    """Mean of each window.

    Args:
        x: (N, C, H, W), in any memory order.
        kernel: Window, (vertical, horizontal) as all pairs.
        stride: Steps of the window.
        padding: Zeros added on both sides.
        ceil_mode: Let windows hang over the end.
        count_include_pad: The padding counts as elements of the mean.
        divisor: Divide by this instead of the number of elements.
    Returns:
        (N, C, OH, OW).
    """
    shape = _geometry(x.shape, kernel, stride, padding, (1, 1), ceil_mode)
    source = to_channels_last(x)
    memory, y = new_image((*x.shape[:2], *shape[4:6]), x)
    library = _library(x)
    if library is not None:
        library.avg_pool(source, memory, *shape[:12], count_include_pad, divisor or 0)
        return y
    memory[...] = 0
    for image, out in _windows(shape):
        memory[:, *out] += source[:, *image]
    memory /= like(x, _counts(shape, count_include_pad, divisor)[..., None].astype(x.dtype))
    return y


def avg_pool2d_backward(
    g: Array,
    input_shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Array:
    """Gradient of `avg_pool2d`: each g is spread evenly over its window; g (N, C, OH, OW), result (N, C, H, W)."""
    shape = _geometry(input_shape, kernel, stride, padding, (1, 1), ceil_mode)
    g_last = to_channels_last(g)
    memory, dx = new_image(input_shape, g)
    library = _library(g)
    if library is not None:
        library.avg_pool_backward(g_last, memory, *shape[:12], count_include_pad, divisor or 0)
        return dx
    memory[...] = 0
    shares = g_last / like(g, _counts(shape, count_include_pad, divisor)[..., None].astype(g.dtype))
    for image, out in _windows(shape):
        memory[:, *image] += shares[:, *out]
    return dx


def _library(x: Array) -> Library | None:
    return c_library("pool") if x.dtype == np.float32 and on_host(x) else None


def _geometry(
    x: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[int, ...]:
    """What the kernels of `c/pool.c` are given after the arrays."""
    n, c, h, w = x
    oh, ow = (
        pooled_size(size, kernel[i], stride[i], padding[i], dilation[i], ceil_mode) for i, size in enumerate((h, w))
    )
    return n, h, w, c, oh, ow, *kernel, *stride, *padding, *dilation


def _windows(shape: tuple[int, ...]) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """For each element of the window: where the inputs at that element lie, and the outputs they belong to."""
    h, w, oh, ow, kh, kw = *shape[1:3], *shape[4:8]
    return [
        ((iy, ix), (oy, ox))
        for iy, oy in (_slices(h, oh, ky, shape[8], shape[10], shape[12]) for ky in _taps(h, oh, kh, *shape[8:14:2]))
        for ix, ox in (_slices(w, ow, kx, shape[9], shape[11], shape[13]) for kx in _taps(w, ow, kw, *shape[9:14:2]))
    ]


def _taps(size: int, out: int, taps: int, stride: int, padding: int, dilation: int) -> range:
    """The elements of a window that lie inside the image for some output: others may be very many."""
    first = max(0, -(((out - 1) * stride - padding) // dilation))
    return range(first, min(taps, (size - 1 + padding) // dilation + 1))


def _slices(size: int, out: int, tap: int, stride: int, padding: int, dilation: int) -> tuple[slice, slice]:
    start = tap * dilation - padding
    first = max(0, -(start // stride))
    last = min(out, (size - 1 - start) // stride + 1)
    last = max(first, last)
    return slice(first * stride + start, max(0, (last - 1) * stride + start + 1), stride), slice(first, last)


def _counts(shape: tuple[int, ...], count_include_pad: bool, divisor: int | None) -> Array:
    """(OH, OW), what the sum of each window is divided by."""
    h, w, oh, ow, kh, kw, sh, sw, ph, pw = *shape[1:3], *shape[4:12]
    if divisor:
        return np.full((oh, ow), divisor)
    lengths = []
    for size, out, k, s, p in ((h, oh, kh, sh, ph), (w, ow, kw, sw, pw)):
        start = np.arange(out) * s - p
        end = np.minimum(start + k, size + p)
        lengths.append(end - start if count_include_pad else np.minimum(end, size) - np.maximum(start, 0))
    return np.outer(*lengths)


def _max_pool_numpy(source: Array, memory: Array, index: Array, shape: tuple[int, ...]) -> None:
    numbers = np.arange(source.shape[1] * source.shape[2], dtype=np.int32)
    positions = like(source, numbers.reshape(source.shape[1:3]))
    memory[...] = np.iinfo(memory.dtype).min if memory.dtype.kind in "iu" else -np.inf
    index[...] = -1
    for image, out in _windows(shape):
        candidates, best, where = source[:, *image], memory[:, *out], index[:, *out]
        take = (candidates > best) | np.isnan(candidates) | (where < 0)
        np.copyto(best, candidates, where=take)
        np.copyto(where, positions[image][None, :, :, None], where=take)
