"""Padding, and images cut into columns of patches and put together again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds, placement
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.op import Op
from rushlight_tensor.core.scalars import checked
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.ops.math.cast import as_image, clone, flat
from rushlight_tensor.ops.shape.shape import permute, reshape, unsqueeze

Widths = tuple[tuple[int, int], ...]


def _pad_aval(x: Any, widths: Widths = (), value: float = 0.0) -> Aval:
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, widths, strict=True))
    for n, made, (before, after) in zip(x.shape, shape, widths, strict=True):
        if made < 0 or min(before + n, after + n) < 0:
            raise RuntimeError(
                f"The input size {n}, plus negative padding {before} and {after}, resulted in a negative output size"
            )
    return Aval(shape, x.dtype)


def _pad_kernel(x: Any, widths: Widths, value: float) -> Any:
    shape = _pad_aval(x, widths).shape
    out = np.full_like(x, value, shape=shape, order="C")
    into = tuple(slice(max(b, 0), n - max(a, 0)) for n, (b, a) in zip(shape, widths, strict=True))
    of = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, widths, strict=True))
    out[into] = x[of]
    return out


def _pad_rule(g: Any, widths: Widths, value: float) -> Any:
    return call(_pad, (g,), {"widths": tuple((-b, -a) for b, a in widths), "value": 0.0})


def _pad_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    return call(_pad, tuple(xs), {**attrs, "widths": ((0, 0), *attrs["widths"])})


_pad = Op(
    "constant_pad_nd",
    kind=kinds.rows(),
    batch=_pad_samples,
    infer=_pad_aval,
    order=placement.FORMAT,
    numpy=_pad_kernel,
    vjp=(_pad_rule,),
    onnx="Pad",
)

_SUPPORTED = """
Supported combinations for non-constant padding:
  - 2D or 3D input: padding size = 2 (pads last dimension)
  - 3D or 4D input: padding size = 4 (pads last 2 dimensions)
  - 4D or 5D input: padding size = 6 (pads last 3 dimensions)"""


def _wrapped(n: int, before: int, after: int) -> Any:
    """In PyTorch's order: first what is kept is put in its place, then each border is copied from what is there."""
    size, left, right = n + before + after, max(before, 0), max(after, 0)
    at = np.arange(-before, n + after).clip(0, n - 1)
    at[left : size - right] = np.arange(max(-before, 0), n + min(after, 0))
    kept = size - left - right
    if kept > 0:  # less than a border where the other side is cut off: it comes several times
        at[:left] = at[left + (np.arange(left) - left) % kept]
        at[size - right :] = at[left + np.arange(right) % kept]
    else:
        at[:left] = at[size - left - right : size - right]
        at[size - right :] = at[left : left + right]
    return at


def _positions(n: int, before: int, after: int, mode: str) -> Any:
    """For each element of the padded dimension, which one it copies."""
    i = np.arange(-before, n + after)
    if mode == "circular":
        return _wrapped(n, before, after)
    if mode == "replicate":
        return np.clip(i, 0, n - 1)
    period = max(2 * (n - 1), 1)
    i = np.abs(i) % period
    return np.minimum(i, period - i) if n > 1 else i * 0


def pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """`input` with elements added before and after its last dimensions.

    Args:
        pad: (before, after) of the last dimension, then of the one before it, and so on; negative: cut off.
        mode: "constant", "reflect" (without the edge), "replicate" or "circular".
        value: The constant, default 0.
    """
    shape = input._array.shape
    given = tuple(pad)
    if len(given) % 2:
        raise RuntimeError("Padding length must be divisible by 2")
    if len(given) > 2 * len(shape):
        raise RuntimeError(
            "Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(given)} and input of dimension {len(shape)}"
        )
    count = len(given) // 2
    widths = tuple((given[2 * i], given[2 * i + 1]) for i in reversed(range(count)))
    if mode == "constant":
        whole = ((0, 0),) * (len(shape) - count) + widths
        if isinstance(value, complex):
            raise TypeError("pad(): argument 'value' must be float, not complex")
        number = checked(0.0 if value is None else float(value), input._array.dtype)
        return call(_pad, (input,), {"widths": whole, "value": number})
    if value:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if len(shape) not in (count + 1, count + 2):
        raise NotImplementedError(
            f"Padding size {len(given)} is not supported for {len(shape)}D input tensor.{_SUPPORTED}"
        )
    given_input, input = input, input if mode == "circular" else flat(input)
    if not any(map(any, widths)):
        input = clone(input, memory_format=contiguous_format)
    for dim, (before, after) in enumerate(widths, len(shape) - count):
        n = shape[dim]
        if mode == "reflect" and max(before, after) >= n:
            raise RuntimeError(
                "Argument #4: Padding size should be less than the corresponding input dimension, but got: padding "
                f"({before}, {after}) at dimension {dim} of input {list(shape)}"
            )
        if mode == "circular" and max(before, after) > n:
            raise RuntimeError("Padding value causes wrapping around more than once.")
        made = n + before + after
        if made < 0 and mode == "circular":
            raise RuntimeError("Negative padding value is resulting in an empty dimension")
        if made < 0:
            raise RuntimeError(f"input (W: {n}) is too small. Calculated output W: {made}")
        if before or after:
            at = _positions(n, before, after, mode)
            input = input.index_select(dim, wrap(like(input._array, at)))
    return input if mode == "circular" else as_image(input, given_input)


# Patches


def _pairs(*values: Any) -> list[tuple[int, int]]:
    return [(v, v) if isinstance(v, int) else tuple(v) for v in values]


def _check_window(kernel: Any, dilation: Any, padding: Any, stride: Any) -> None:
    for name, values in (("kernel size", kernel), ("dilation", dilation), ("stride", stride)):
        if len(values) != 2 or min(values) <= 0:
            got = ", ".join(f"{side}: {v}" for side, v in zip(("height", "width"), values, strict=False))
            raise RuntimeError(f"{name} should be greater than zero, but got {got}")
    if len(padding) != 2 or min(padding) < 0:
        raise RuntimeError(f"padding should be non-negative, but got {list(padding)}")


def _counts(size: tuple[int, int], window: tuple[tuple[int, int], ...]) -> list[int]:
    kernel, dilation, padding, stride = window
    return [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True)
    ]


def im2col(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """The patches of (N, C, H, W) as columns (N, C * KH * KW, L); `unfold` of `nn.functional`."""
    if input._array.ndim == 3:
        return im2col(unsqueeze(input, 0), kernel_size, dilation, padding, stride).squeeze(0)
    if input._array.ndim != 4:
        raise RuntimeError(f"Expected 3D or 4D (batch mode) tensor for im2col, got {list(input._array.shape)}")
    kernel, dilation, padding, stride = window = _pairs(kernel_size, dilation, padding, stride)
    _check_window(*window)
    n, c, *size = input._array.shape
    if 0 in (c, *size):
        raise RuntimeError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, "
            f"but got: {list(input._array.shape)}"
        )
    if min(_counts(tuple(size), tuple(window))) <= 0:
        raise RuntimeError(
            f"Given input with spatial size {tuple(size)}, kernel_size={kernel}, dilation={dilation}, "
            f"padding={padding}, calculated shape of the array of sliding blocks is not positive"
        )
    x = pad(input, (padding[1], padding[1], padding[0], padding[0])) if max(padding) else input
    for i in range(2):
        x = x.unfold(2 + i, dilation[i] * (kernel[i] - 1) + 1, stride[i])
    x = x[..., :: dilation[0], :: dilation[1]]  # (N, C, OH, OW, KH, KW)
    x = clone(permute(x, 0, 1, 4, 5, 2, 3), memory_format=contiguous_format)
    return reshape(x, n, c * math.prod(kernel), math.prod(x._array.shape[4:]))


def _col2im_aval(x: Any, output_size: tuple[int, int] = (0, 0), window: Any = ()) -> Aval:
    n, columns, length = x.shape
    if columns % math.prod(window[0]):
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got input.size(1)="
            f"{columns} and kernel_size={window[0]}."
        )
    want = math.prod(_counts(output_size, window))
    if want != length:
        raise RuntimeError(
            f"Given output_size={output_size} and window {window}, expected size of input's dimension 2 to match the "
            f"calculated number of sliding blocks {want}, but got input.size(2)={length}."
        )
    return Aval((n, columns // math.prod(window[0]), *output_size), x.dtype)


def _col2im_kernel(x: Any, output_size: tuple[int, int], window: Any) -> Any:
    n, c, h, w = _col2im_aval(x, output_size, window).shape
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = window
    oh, ow = _counts(output_size, window)
    patches = x.reshape(n, c, kh, kw, oh, ow)
    out = np.zeros_like(x, shape=(n, c, h + 2 * ph, w + 2 * pw))
    for i in range(kh):
        for j in range(kw):
            out[:, :, i * dh : i * dh + oh * sh : sh, j * dw : j * dw + ow * sw : sw] += patches[:, :, i, j]
    return out[:, :, ph : ph + h, pw : pw + w].copy()


def _col2im_rule(g: Any, output_size: tuple[int, int], window: Any) -> Any:
    return im2col(g, *window)


_col2im = Op(
    "col2im",
    kind=kinds.rows(folds=True),
    infer=_col2im_aval,
    numpy=_col2im_kernel,
    vjp=(_col2im_rule,),
    onnx="Col2Im",
)


def col2im(input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """Columns of patches (N, C * KH * KW, L) summed into an image (N, C, *output_size); `fold` of `nn.functional`."""
    if input._array.ndim == 2:
        return col2im(unsqueeze(input, 0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    if input._array.ndim != 3:
        raise RuntimeError(f"Expected 2D or 3D (batch mode) tensor for col2im, got {list(input._array.shape)}")
    size, *window = _pairs(output_size, kernel_size, dilation, padding, stride)
    _check_window(*window)
    return call(_col2im, (input,), {"output_size": size, "window": tuple(window)})
