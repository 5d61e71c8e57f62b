"""Layers of networks: convolution, pools, norms, attention, recurrences and losses, written out or by SciPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.signal
import scipy.special


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> list[list[int]]:
    """The places of each window along one dimension, those in the padding included."""
    span = dilation * (kernel - 1) + 1
    room = size + 2 * padding - span
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return [[i * stride - padding + k * dilation for k in range(kernel)] for i in range(count)]


def conv2d(
    x: Any, w: Any, bias: Any, stride: Any = (1, 1), padding: Any = (0, 0), dilation: Any = (1, 1), groups: int = 1
) -> Any:
    """Each channel by SciPy's correlation of the padded image with the kernel spread out."""
    n, c, oc = x.shape[0], x.shape[1], w.shape[0]
    padded = np.zeros((n, c, *[s + 2 * p for s, p in zip(x.shape[2:], padding, strict=True)]), x.dtype)
    padded[:, :, padding[0] : padding[0] + x.shape[2], padding[1] : padding[1] + x.shape[3]] = x
    wide = np.zeros((*w.shape[:2], *[d * (k - 1) + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]), w.dtype)
    wide[:, :, :: dilation[0], :: dilation[1]] = w
    out = []
    for image, o in itertools.product(range(n), range(oc)):
        first = o // (oc // groups) * (c // groups)
        planes = [
            scipy.signal.correlate2d(padded[image, first + i], wide[o, i].conj(), "valid")[:: stride[0], :: stride[1]]
            for i in range(c // groups)
        ]
        out.append(sum(planes) + (0 if bias is None else bias[o]))
    sizes = [len(windows(x.shape[2 + i], w.shape[2 + i], stride[i], padding[i], dilation[i], False)) for i in (0, 1)]
    return np.array(out, x.dtype).reshape(n, oc, *sizes)


def linear_adjoint(forward: Callable[[Any], Any], g: Any, shape: tuple[int, ...]) -> Any:
    """The gradient of a linear function: how much each unit input adds to the weighted sum of the outputs."""
    out = np.zeros(shape, g.dtype)
    for at in np.ndindex(*shape):
        unit = np.zeros(shape, g.dtype)
        unit[at] = 1
        out[at] = (forward(unit) * g).sum()
    return out


def pooled(choose: Callable[..., Any]) -> Callable[..., Any]:
    def pool(
        x: Any,
        kernel: Any,
        stride: Any,
        padding: Any = (0, 0),
        dilation: Any = (1, 1),
        ceil_mode: bool = False,
        **how: Any,
    ) -> Any:
        rows, columns = (
            windows(x.shape[2 + i], kernel[i], stride[i], padding[i], dilation[i], ceil_mode) for i in (0, 1)
        )
        shape = (*x.shape[:2], len(rows), len(columns))
        cells = [choose(x[n, c], rows[i], columns[j], padding, **how) for n, c, i, j in np.ndindex(*shape)]
        return np.array(cells).reshape(*shape, -1)

    return pool


def largest(image: Any, rows: list[int], columns: list[int], padding: Any) -> list[float]:
    h, w = image.shape
    inside = [(i, j) for i in rows for j in columns if 0 <= i < h and 0 <= j < w]
    i, j = max(inside, key=lambda at: image[at])
    return [image[i, j], i * w + j]


def average(
    image: Any, rows: list[int], columns: list[int], padding: Any, count_include_pad: bool = True, divisor: Any = None
) -> float:
    h, w = image.shape
    rows = [i for i in rows if i < h + padding[0]]
    columns = [j for j in columns if j < w + padding[1]]
    inside = [image[i, j] for i in rows for j in columns if 0 <= i < h and 0 <= j < w]
    return math.fsum(inside) / (divisor or (len(rows) * len(columns) if count_include_pad else len(inside)))


def max_pool(x: Any, **window: Any) -> Any:
    both = pooled(largest)(x, **window)
    return both[..., 0], both[..., 1].astype(np.int64)


def standard(rows: Any, eps: float) -> Any:
    return np.array([(r - np.average(r)) / math.sqrt(np.average((r - np.average(r)) ** 2) + eps) for r in rows])


def layer_norm(x: Any, w: Any, b: Any, dims: int = 1, eps: float = 1e-5) -> Any:
    shape = x.shape[x.ndim - dims :]
    out = standard(x.reshape(-1, math.prod(shape)), eps).reshape(x.shape) if x.size else x
    return out * (1 if w is None else w) + (0 if b is None else b)


def rms_norm(x: Any, w: Any, dims: int = 1, eps: float = 1e-5) -> Any:
    rows = x.reshape(-1, math.prod(x.shape[x.ndim - dims :])) if x.size else x
    out = np.array([r / np.sqrt(np.average(r**2) + eps) for r in rows]).reshape(x.shape)
    return out * (1 if w is None else w)


def normalize(x: Any, eps: float = 1e-12) -> Any:
    sizes = [max(math.hypot(*row), eps) for row in x.reshape(-1, x.shape[-1])] if x.size else []
    return x / np.array(sizes).reshape(*x.shape[:-1], 1) if x.size else x


def channels(x: Any) -> Any:
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def column(v: Any, x: Any) -> Any:
    return np.reshape(v, (1, -1, *[1] * (x.ndim - 2)))


def batch_norm(x: Any, w: Any, b: Any, centre: Any, var: Any, training: bool = False, eps: float = 1e-5) -> Any:
    if training:
        centre, var = moments(x)
    out = (x - column(centre, x)) / np.sqrt(column(var, x) + eps)
    return out * (1 if w is None else column(w, x)) + (0 if b is None else column(b, x))


def moments(x: Any) -> Any:
    return np.array([np.average(r) for r in channels(x)]), np.array([np.var(r) for r in channels(x)])


def attention(q: Any, k: Any, v: Any, mask: Any, is_causal: bool = False, scale: float = 1.0) -> Any:
    scores = np.einsum("...td,...sd->...ts", q, k, optimize=False) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if is_causal:
        t, s = np.indices(scores.shape[-2:])
        scores = np.where(s <= t, scores, -np.inf)
    with np.errstate(invalid="ignore"):
        weights = np.nan_to_num(scipy.special.softmax(scores, axis=-1))
    return np.einsum("...ts,...sd->...td", weights, v, optimize=False)


def lstm(x: Any, h: Any, c: Any, w: Any, reverse: bool = False) -> Any:
    out = np.zeros((2, *x.shape[:2], w.shape[1]), x.dtype)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        i, f, g, o = np.split(x[t] + np.einsum("bh,gh->bg", h, w), 4, -1)
        c = scipy.special.expit(f) * c + scipy.special.expit(i) * np.tanh(g)
        h = scipy.special.expit(o) * np.tanh(c)
        out[:, t] = h, c
    return out


def gru(x: Any, h: Any, w: Any, b: Any, reverse: bool = False) -> Any:
    out = np.zeros((*x.shape[:2], w.shape[1]), x.dtype)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        (xr, xz, xn), (ar, az, an) = np.split(x[t], 3, -1), np.split(np.einsum("bh,gh->bg", h, w) + b, 3, -1)
        r, z = scipy.special.expit(xr + ar), scipy.special.expit(xz + az)
        h = out[t] = (1 - z) * np.tanh(xn + r * an) + z * h
    return out


def class_loss(smoothed: bool) -> Callable[..., Any]:
    def loss(
        x: Any,
        target: Any,
        weight: Any,
        reduction: str = "mean",
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
    ) -> Any:
        rows = x.reshape(1, -1) if x.ndim == 1 else np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
        classes = rows.shape[1]
        each, shares = [], []
        for row, t in zip(rows, target.reshape(-1).tolist(), strict=True):
            w = np.ones(classes) if weight is None else weight
            logp = scipy.special.log_softmax(row) if smoothed else row
            counts = t != ignore_index
            even = -label_smoothing / classes * math.fsum(w * logp)
            each.append((-(1 - label_smoothing) * w[t] * logp[t] + even) if counts else 0.0)
            shares.append(w[t] if counts else 0.0)
        if reduction == "none":
            return np.array(each).reshape(target.shape)
        whole = math.fsum(each)
        return np.array(whole / math.fsum(shares) if reduction == "mean" else whole)

    return loss


def col2im(x: Any, output_size: Any, window: Any) -> Any:
    kernel, dilation, padding, stride = window
    rows, columns = (windows(output_size[i], kernel[i], stride[i], padding[i], dilation[i], False) for i in (0, 1))
    n, c = x.shape[0], x.shape[1] // math.prod(kernel)
    out = np.zeros((n, c, *output_size), x.dtype)
    patches = x.reshape(n, c, *kernel, len(rows), len(columns))
    for image, ch, a, b, i, j in np.ndindex(*patches.shape):
        y, z = rows[i][a], columns[j][b]
        if 0 <= y < output_size[0] and 0 <= z < output_size[1]:
            out[image, ch, y, z] += patches[image, ch, a, b, i, j]
    return out


REFERENCES: dict[str, Callable[..., Any]] = {
    "conv2d": conv2d,
    "conv2d_input_gradient": lambda g, w, input_shape, **how: linear_adjoint(
        lambda x: conv2d(x, w, None, **how), g, input_shape
    ),
    "conv2d_weight_gradient": lambda g, x, weight_shape, **how: linear_adjoint(
        lambda w: conv2d(x, w, None, **how), g, weight_shape
    ),
    "max_pool2d": lambda x, **window: max_pool(x, **window)[0],
    "max_pool2d_with_indices": max_pool,
    "avg_pool2d": lambda x, **window: pooled(average)(x, **window)[..., 0],
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "normalize": normalize,
    "batch_norm": batch_norm,
    "batch_norm_moments": moments,
    "scaled_dot_product_attention": attention,
    "lstm_sequence": lstm,
    "gru_sequence": gru,
    "cross_entropy": class_loss(True),
    "nll_loss": class_loss(False),
    "col2im": col2im,
}
