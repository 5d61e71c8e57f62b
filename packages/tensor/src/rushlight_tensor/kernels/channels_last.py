"""The memory order of images: logically (N, C, H, W), in memory (N, H, W, C), as convolution works on it.

A function of this room takes either order and returns the second, as a (N, C, H, W) view: a chain of convolutions,
norms and pools copies nothing between its links.
"""

from __future__ import annotations

import numpy as np

from rushlight_tensor.kernels.arrays import contiguous
from rushlight_tensor.kernels.compile import c_library


def to_channels_last(x: np.ndarray) -> np.ndarray:
    """The (N, H, W, C) contiguous array of a (N, C, H, W) one: a view where memory already lies so, else a copy."""
    y = x.transpose(0, 2, 3, 1)
    if y.flags.c_contiguous:
        return y
    c = c_library("conv")
    if c is None or not c.float32(x):
        return contiguous(y)
    n, channels, h, w = x.shape
    y = np.empty((n, h, w, channels), x.dtype)
    c.swap_channels(x, y, n, channels, h * w)
    return y


def new_image(shape: tuple[int, ...], like: np.ndarray, dtype: np.dtype | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A fresh (N, H, W, C) array of the kind of `like`, and its (N, C, H, W) view, whose shape is given."""
    n, c, h, w = shape
    memory = np.empty_like(like, dtype, order="C", shape=(n, h, w, c))
    return memory, memory.transpose(0, 3, 1, 2)
