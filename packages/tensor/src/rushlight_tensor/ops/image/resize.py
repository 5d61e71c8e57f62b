"""Images in other sizes: interpolation as sums of picked elements, one dimension after another, and pixel shuffles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import real_only
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.ops.image.pool import adaptive_avg_pool1d, adaptive_avg_pool2d, weighted
from rushlight_tensor.ops.math.cast import as_image, clone
from rushlight_tensor.ops.shape.shape import movedim, permute, reshape

_MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "area": (1, 2),
}


def _output_sizes(
    have: tuple[int, ...], size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], list[float | None]]:
    """The sizes of the result, and the scale of each dimension where it is given and not to be recomputed."""
    n = len(have)
    if size is None and scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    given = size if size is not None else scale_factor
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,) * n
    if len(values) != n:
        raise ValueError(
            f"Input and output must have the same number of spatial dimensions, but got {have} and {values}"
        )
    if size is not None:
        return tuple(int(v) for v in values), [None] * n
    sizes = tuple(math.floor(m * f) for m, f in zip(have, values, strict=True))
    return sizes, [None] * n if recompute else [float(f) for f in values]


def _sources(n: int, m: int, scale: float | None, align_corners: bool) -> np.ndarray[Any, Any]:
    """For each of `m` elements its place among `n`, as a real number."""
    i = np.arange(m, dtype=np.float64)
    if align_corners:
        return i * ((n - 1) / (m - 1)) if m > 1 else i * 0
    return (i + 0.5) * (1 / scale if scale else n / m) - 0.5


def _linear_weights(n: int, at: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """The two elements that each is between, and their weights."""
    at = np.maximum(at, 0)
    low = np.minimum(at.astype(np.int64), n - 1)
    return np.stack([low, np.minimum(low + 1, n - 1)], 1), np.stack([1 - (at - low), at - low], 1)


def _cubic_weights(n: int, at: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """The four elements around each, and their weights: Keys' cubic convolution with a = -0.75."""
    a, base = -0.75, np.floor(at).astype(np.int64)
    near_ones = base[:, None] + np.arange(-1, 3)
    x = np.abs(at[:, None] - near_ones)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.clip(near_ones, 0, n - 1), np.where(x <= 1, near, far)


def _nearest(n: int, m: int, scale: float | None, exact: bool) -> np.ndarray[Any, Any]:
    i = np.arange(m, dtype=np.float32) + np.float32(0.5 if exact else 0)
    step = np.float32(1 / scale if scale else n / m)
    return np.minimum(np.floor(i * step).astype(np.int64), n - 1)


def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """`input` (N, C, L) or (N, C, H, W) resampled to another size.

    Args:
        size: The new sizes; or
        scale_factor: what the sizes are multiplied by.
        mode: "nearest", "nearest-exact", "area"; "linear" for (N, C, L); "bilinear", "bicubic" for (N, C, H, W).
        align_corners: The first and last elements keep their places.
        recompute_scale_factor: Use the ratio of the sizes instead of `scale_factor`.
    """
    real_only(f"upsample_{'nearest' if mode.startswith('nearest') else mode}{input._array.ndim - 2}d", input)
    shape = input._array.shape
    spatial = len(shape) - 2
    if spatial not in _MODES.get(mode, ()):
        raise NotImplementedError(
            f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {len(shape)}D) for the modes: nearest | "
            f"linear | bilinear | bicubic | trilinear | lanczos | area | nearest-exact (got {mode})"
        )
    if antialias:
        raise NotImplementedError("interpolate: antialias is not supported; leave it out")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | trilinear"
        )
    sizes, scales = _output_sizes(shape[2:], size, scale_factor, recompute_scale_factor)
    if min(*shape[2:], *sizes) <= 0:
        have, want = (
            ", ".join(f"{d}: {n}" for d, n in zip("DHW"[-spatial:], part, strict=True)) for part in (shape[2:], sizes)
        )
        raise RuntimeError(f"Input and output sizes should be greater than 0, but got input ({have}) output ({want})")
    out = input
    if mode == "area":
        return adaptive_avg_pool1d(input, sizes) if spatial == 1 else adaptive_avg_pool2d(input, sizes)
    if mode.startswith("nearest"):
        for dim, (n, m, scale) in enumerate(zip(shape[2:], sizes, scales, strict=True), 2):
            at = _nearest(n, m, scale, mode == "nearest-exact")
            out = out.index_select(dim, wrap(like(input._array, at)))
        return as_image(out, input)
    weights: Callable[..., Any] = _cubic_weights if mode == "bicubic" else _linear_weights
    for dim, (n, m, scale) in zip(range(-spatial, 0), zip(shape[2:], sizes, scales, strict=True), strict=True):
        places = _sources(n, m, scale, bool(align_corners))
        if n != m or (places != np.arange(n)).any():
            out = weighted(out, dim, *weights(n, places))
    return clone(input) if out is input else as_image(out, input)


def _image(name: str, x: Any) -> None:
    if x._array.ndim < 3:
        raise RuntimeError(
            f"{name} expects input to have at least 3 dimensions, but got input with {x._array.ndim} dimension(s)"
        )


def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """(..., C * r * r, H, W) to (..., C, H * r, W * r) (Shi et al., 2016)."""
    _image("pixel_shuffle", input)
    *lead, c, h, w = input._array.shape
    r = upscale_factor
    if r <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    if c % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, "
            f"but input.size(-3)={c} is not divisible by {r * r}"
        )
    x = reshape(input, *lead, c // (r * r), r, r, h, w)
    n = len(lead)
    x = permute(x, *range(n), n, n + 3, n + 1, n + 4, n + 2)
    return as_image(reshape(clone(x, memory_format=contiguous_format), *lead, c // (r * r), h * r, w * r), input)


def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """(..., C, H * r, W * r) to (..., C * r * r, H, W)."""
    _image("pixel_unshuffle", input)
    *lead, c, h, w = input._array.shape
    r = downscale_factor
    if r <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    if h % r or w % r:
        raise RuntimeError(
            f"pixel_unshuffle expects height and width to be divisible by downscale_factor, but got {h}x{w} and {r}"
        )
    x = reshape(input, *lead, c, h // r, r, w // r, r)
    n = len(lead)
    x = permute(x, *range(n), n, n + 2, n + 4, n + 1, n + 3)
    return as_image(reshape(clone(x, memory_format=contiguous_format), *lead, c * r * r, h // r, w // r), input)


def channel_shuffle(input: Any, groups: int) -> Any:
    """(N, C, ...) with the channels of `groups` groups interleaved (Zhang et al., 2018)."""
    n, c, *rest = input._array.shape
    if groups <= 0:
        raise RuntimeError(f"Number of groups to divide channels in must be positive. Value of groups:{groups}")
    if c % groups:
        raise RuntimeError(f"Number of channels must be divisible by groups. Got {c} channels and {groups} groups.")
    x = movedim(reshape(input, n, groups, c // groups, *rest), 1, 2)
    return as_image(reshape(clone(x, memory_format=contiguous_format), n, c, *rest), input)
