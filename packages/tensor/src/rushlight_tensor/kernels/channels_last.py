"""The memory order of images: logically (N, C, H, W), in memory (N, H, W, C), as convolution works on it.

A function of this room takes either order and returns the second, as a (N, C, H, W) view: a chain of convolutions,
norms and pools copies nothing between its links.  Users never see this order: Note [Private order] in `layout.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.kernels.arrays import contiguous, is_plain
from rushlight_tensor.kernels.compile import c_library


def as_image(x: np.ndarray) -> np.ndarray:
    """A (N, C, ...) array whose channels lie innermost in memory: itself where they do, else a copy."""
    y = x.transpose(0, *range(2, x.ndim), 1)
    if is_plain(y):
        return x
    c = c_library("conv")
    if c is None or not c.float32(x):
        return _channels_second(contiguous(y))
    made = empty_image(x.shape, x.dtype)
    c.swap_channels(x, made, x.shape[0], x.shape[1], math.prod(x.shape[2:]))
    return made


def empty_image(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A fresh (N, C, ...) array whose channels lie innermost in memory; contiguous where both orders are one."""
    if 0 not in shape and (shape[1] == 1 or math.prod(shape[2:]) == 1):
        return np.empty(shape, dtype)
    return _channels_second(np.empty((shape[0], *shape[2:], shape[1]), dtype))


def _channels_second(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def new_image(shape: tuple[int, ...], like: np.ndarray, dtype: np.dtype | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A fresh (N, C, H, W) array of the kind of `like`, twice: as kernels see it, and as a result.

    Returns:
        (N, H, W, C), contiguous on the host; and the same memory as (N, C, H, W), contiguous on a device, where no
        kernel asks for the other order.
    """
    n, c, h, w = shape
    if not isinstance(like, np.ndarray):
        image = np.empty_like(like, dtype, order="C", shape=shape)
        return image.transpose(0, 2, 3, 1), image
    memory = np.empty_like(like, dtype, order="C", shape=(n, h, w, c))
    if c == 1 or h * w == 1:
        return memory, memory.reshape(shape)  # both orders are one
    return memory, memory.transpose(0, 3, 1, 2)
