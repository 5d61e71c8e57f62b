"""Max and average pooling of images (N, C, H, W) and their gradients: the NumPy texts of their records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rushlight_tensor.kernels.arrays import add_at, like, on_host

Array = Any
Pair = tuple[int, ...]  # of two
Places = tuple[slice, slice]  # of rows and columns

MOST_POSITIONS = 2**31 - 1  # of an image, that an index of 32 bits can tell


def pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False) -> int:
    """Length of a pooled dimension: with `ceil_mode`, windows that hang over the end count if they start inside."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    return out - 1 if ceil_mode and (out - 1) * stride >= size + padding else out


def geometry(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1), ceil_mode: bool = False
) -> dict[str, int]:
    """The sizes of the kernels of `c/pool.c`, for images of a shape."""
    names = ("n", "c", "h", "w", "kh", "kw", "stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w")
    s = dict(zip(names, (*shape, *kernel, *stride, *padding, *dilation), strict=True))
    for i, (out, size) in enumerate((("oh", s["h"]), ("ow", s["w"]))):
        s[out] = pooled_size(size, kernel[i], stride[i], padding[i], dilation[i], ceil_mode)
    return s


def max_pool2d(
    x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[Array, Array]:
    """Largest element of each window; NaN counts as the largest.

    Args:
        x: (N, C, H, W).
        kernel: Window, (vertical, horizontal) as all pairs.
        stride: Steps of the window.
        padding: Positions added on both sides, which never win.
        dilation: Distance of the window's elements.
        ceil_mode: Let windows hang over the end.
    Returns:
        The maxima (N, C, OH, OW), and their positions y * W + x in the image, int32 of the same shape; a window that
        holds no element, between the padding, gives -inf and -1.
    """
    s = geometry(x.shape, kernel, stride, padding, dilation, ceil_mode)
    positions = like(x, np.arange(s["h"] * s["w"], dtype=np.int32).reshape(s["h"], s["w"]))
    y, index = _new(x, s), _new(x, s, np.dtype(np.int32))
    y[...] = np.iinfo(y.dtype).min if y.dtype.kind in "iu" else -np.inf
    index[...] = -1
    for image, out in _windows(s):
        candidates, best, where = x[:, :, *image], y[:, :, *out], index[:, :, *out]
        take = (candidates > best) | np.isnan(candidates) | (where < 0)
        np.copyto(best, candidates, where=take)
        np.copyto(where, positions[image], where=take)
    return y, index


def max_pool2d_backward(g: Array, indices: Array, x_shape: tuple[int, ...], **window: Any) -> Array:
    """Gradient of `max_pool2d`: each g goes to the position of its maximum, where there is one.

    Args:
        g: (N, C, OH, OW).
        indices: Of the same shape, from the forward pass.
        x_shape: (N, C, H, W).
        window: As for the forward pass; nothing depends on it.
    Raises:
        RuntimeError: A position lies outside of the image: the indices were changed in between.
    """
    n, c, h, w = x_shape
    if on_host(g):
        outside = (indices < -1) | (indices >= h * w)
        if outside.any():
            raise no_position(int(np.argmax(outside.transpose(0, 2, 3, 1))), g, indices, x_shape)
    dx = np.zeros_like(g, shape=x_shape, order="C")
    if dx.size:
        first = like(g, np.arange(n * c).reshape(n, c, 1, 1) * (h * w))  # of each image and channel
        at = first + np.maximum(indices, 0)
        add_at(dx.reshape(-1), at.reshape(-1), np.where(indices < 0, g.dtype.type(0), g).reshape(-1))
    return dx


def no_position(place: int, g: Array, indices: Array, x_shape: tuple[int, ...], **window: Any) -> RuntimeError:
    """The error of an index that is no position; places count the channels fastest."""
    index = indices.transpose(0, 2, 3, 1).reshape(-1)[place]
    return RuntimeError(f"Found an invalid max index: {index} (input sizes are of size {x_shape[2]}x{x_shape[3]})")


def avg_pool2d(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Array:
    """Mean of each window.

    Args:
        x: (N, C, H, W).
        kernel: Window, (vertical, horizontal) as all pairs.
        stride: Steps of the window.
        padding: Zeros added on both sides.
        ceil_mode: Let windows hang over the end.
        count_include_pad: The padding counts as elements of the mean.
        divisor: Divide by this instead of the number of elements.
    Returns:
        (N, C, OH, OW).
    """
    s = geometry(x.shape, kernel, stride, padding, (1, 1), ceil_mode)
    y = _new(x, s)
    y[...] = 0
    for image, out in _windows(s):
        y[:, :, *out] += x[:, :, *image]
    return y / like(x, _counts(s, count_include_pad, divisor).astype(x.dtype))


def avg_pool2d_backward(
    g: Array,
    x_shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
    needs: Any = None,
) -> Array:
    """Gradient of `avg_pool2d`: each g is spread evenly over its window; g (N, C, OH, OW), result (N, C, H, W)."""
    s = geometry(x_shape, kernel, stride, padding, (1, 1), ceil_mode)
    dx = np.zeros_like(g, shape=x_shape, order="C")
    shares = g / like(g, _counts(s, count_include_pad, divisor).astype(g.dtype))
    for image, out in _windows(s):
        dx[:, :, *image] += shares[:, :, *out]
    return dx


def _new(x: Array, s: dict[str, int], dtype: Any = None) -> Array:
    return np.empty_like(x, dtype, order="C", shape=(s["n"], s["c"], s["oh"], s["ow"]))


def _windows(s: dict[str, int]) -> Iterator[tuple[Places, Places]]:
    """For each element of the window: where the inputs at that element lie, and the outputs they belong to."""
    rows, columns = (
        (s[size], s[out], s[k], s[f"stride_{size}"], s[f"pad_{size}"], s[f"dilation_{size}"])
        for size, out, k in (("h", "oh", "kh"), ("w", "ow", "kw"))
    )
    for ky in _taps(*rows):
        iy, oy = _slices(*rows[:2], ky, *rows[3:])
        for kx in _taps(*columns):
            ix, ox = _slices(*columns[:2], kx, *columns[3:])
            yield (iy, ix), (oy, ox)


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


def _counts(s: dict[str, int], count_include_pad: bool, divisor: int | None) -> Array:
    """(OH, OW), what the sum of each window is divided by."""
    if divisor:
        return np.full((s["oh"], s["ow"]), divisor)
    lengths = []
    for size, out, k in (("h", "oh", "kh"), ("w", "ow", "kw")):
        n, padding = s[size], s[f"pad_{size}"]
        start = np.arange(s[out]) * s[f"stride_{size}"] - padding
        end = np.minimum(start + s[k], n + padding)
        lengths.append(end - start if count_include_pad else np.minimum(end, n) - np.maximum(start, 0))
    return np.outer(*lengths)
