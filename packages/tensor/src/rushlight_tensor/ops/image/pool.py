"""Pooling: the largest or the mean of each window.  One dimension is two, the first of size 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_tensor.core import kinds, placement
from rushlight_tensor.core.cuda import like
from rushlight_tensor.core.dispatch import MODE, call, real_only, refuse
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.layout import image
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import INT64
from rushlight_tensor.core.tensor import wrap
from rushlight_tensor.kernels import pool as kernels
from rushlight_tensor.kernels.plan import C
from rushlight_tensor.ops.index.gather import _index_select
from rushlight_tensor.ops.math.cast import as_image, contiguous, flat
from rushlight_tensor.ops.math.select import where
from rushlight_tensor.ops.shape.join import stack
from rushlight_tensor.ops.shape.shape import drop, lift, reshape, squeeze, unsqueeze

Sizes = tuple[int, ...]

_INT32 = np.dtype(np.int32)
_MOST = 2**31 - 1  # what PyTorch takes for a number of a window


def _pooled(shape: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool) -> Sizes:
    """The sizes of the result.  Raises RuntimeError where no window fits, or more than half of one is padding."""
    if max(*kernel, *stride, *padding, *dilation) > _MOST:
        raise RuntimeError("value cannot be converted to type int without overflow")
    if 0 in stride:
        raise RuntimeError("stride should not be zero")
    for name, letter, values in (
        ("kernel size", "k", kernel),
        ("stride", "d", stride),
        ("dilation", "dilation", dilation),
    ):
        if min(values) <= 0:
            got = f"{letter}H: {values[0]} {letter}W: {values[1]}"
            raise RuntimeError(f"{name} should be greater than zero, but got {got}")
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        if p < 0:
            raise RuntimeError(f"pad must be non-negative, but got pad: {p}")
        if p > (d * (k - 1) + 1) // 2:
            raise RuntimeError(
                f"pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k} and "
                f"dilation={d}"
            )
    if 0 in shape[1:]:
        raise RuntimeError(
            f"Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but got:{list(shape)}"
        )
    sizes = [
        kernels.pooled_size(n, k, s, p, d, ceil_mode)
        for n, k, s, p, d in zip(shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    if min(sizes) <= 0:
        have, made = ("x".join(map(str, (shape[1], *part))) for part in (shape[2:], sizes))
        raise RuntimeError(f"Given input size: ({have}). Calculated output size: ({made}). Output size is too small")
    return (*shape[:2], *sizes)


# Max


def _max_aval(
    x: Any,
    kernel: Sizes = (),
    stride: Sizes = (),
    padding: Sizes = (0, 0),
    dilation: Sizes = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Aval, Aval]:
    shape = _pooled(x.shape, kernel, stride, padding, dilation, ceil_mode)
    if x.shape[2] * x.shape[3] > kernels.MOST_POSITIONS:
        raise RuntimeError(f"max_pool2d: an image of {x.shape[2:]} has more positions than an index of 32 bits")
    return image(shape, x.dtype, x), image(shape, _INT32, x)


def _max_sizes(x: Any, **window: Any) -> dict[str, int]:
    return kernels.geometry(x.shape, **window)


def _max_grad(known: Any) -> Aval:
    window = (known.kernel, known.stride, known.padding, known.dilation, known.ceil_mode)
    given, indices = known.g.shape, known.out1.shape
    if given != _pooled(known.x_shape, *window) or given != indices:
        raise RuntimeError(f"max_pool2d: a gradient of {given} with indices of {indices} for {known.x_shape}")
    return image(known.x_shape, known.g.dtype, known.g, known.out1)


def _max_backward_sizes(g: Any, indices: Any, x_shape: Sizes, needs: Any, **window: Any) -> dict[str, int]:
    return kernels.geometry(x_shape, **window)


def _max_again(gg: Any, indices: Any, x_shape: Sizes, **window: Any) -> Any:
    """What lies at the maxima; zero where a window held no element."""
    at = indices.flatten(2).long()
    found = where(at >= 0, gg.flatten(2).gather(2, at.clamp(0)), 0.0)
    return reshape(found, indices._array.shape)


_max_pool2d = Op(
    "max_pool2d",
    kind=kinds.rows(folds=True),
    infer=_max_aval,
    real="max_pool2d",
    numeric="max_pool2d",
    order=placement.IMAGE,
    numpy=kernels.max_pool2d,
    c=C("pool", "max_pool", _max_sizes),
    save=("out1", "x.shape"),
    flat=True,
    vjp=Gradient(
        results=_max_grad,
        order=placement.IMAGE,
        numpy=kernels.max_pool2d_backward,
        c=C(
            "pool",
            "max_pool_backward",
            _max_backward_sizes,
            kernels.no_position,
            other=C("pool", "max_pool_with_indices_backward", _max_backward_sizes, kernels.no_position),
        ),
        save=("out1",),
        vjp=(_max_again, None),
    ),
    side_results=True,
    node_name="MaxPool2DWithIndicesBackward0",
    onnx="MaxPool",
)


def _max_indices_aval(
    x: Any,
    kernel: Sizes = (),
    stride: Sizes = (),
    padding: Sizes = (0, 0),
    dilation: Sizes = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Aval, Aval]:
    out, indices = _max_aval(x, kernel, stride, padding, dilation, ceil_mode)
    return out, indices._replace(dtype=INT64)


def _max_indices_rule(g: Any, indices: Any, shape: Sizes, **window: Any) -> Any:
    return _max_pool2d.backward(g[0], indices, x_shape=shape, **window)


_max_pool2d_with_indices = Op(
    "max_pool2d_with_indices",
    kind=kinds.rows(folds=True),
    infer=_max_indices_aval,
    real="max_pool2d",
    numeric="max_pool2d",
    order=placement.IMAGE,
    numpy=kernels.max_pool2d,
    c=C("pool", "max_pool_with_indices", _max_sizes),
    save=("out1", "x.shape"),
    flat=True,
    vjp=(_max_indices_rule,),
    node_name="MaxPool2DWithIndicesBackward0",
)


def _windows(n: int, **given: Any) -> dict[str, Sizes]:
    """Each number as a pair; for one dimension the first of the pair changes nothing."""
    neutral = {"kernel": 1, "stride": 1, "padding": 0, "dilation": 1}
    out = {}
    for name, value in given.items():
        values = (value,) * n if isinstance(value, int) else tuple(value)
        if len(values) == 1:
            values *= n
        if len(values) != n:
            raise RuntimeError(f"pooling: {name} must be one number or {n}, got {list(values)}")
        out[name] = (neutral[name], *values) if n == 1 else values
    return out


def _images(input: Any, n: int, name: str) -> Any:
    """(N, C, H, W) of an input with `n` spatial dimensions, with or without a batch."""
    ndim = input._array.ndim
    if ndim not in (n + 1, n + 2):
        if name == "max_pool2d":
            raise RuntimeError("non-empty 3D or 4D (batch mode) tensor expected for input")
        raise RuntimeError(
            f"{name}: Expected {n + 1}D or {n + 2}D (batch mode) tensor with optional 0 dim batch size for input, but "
            f"got:{list(input._array.shape)}"
        )
    x = input if ndim == n + 2 else lift(input, 0)
    return x if n == 2 else lift(x, 2)


def _back(out: Any, input: Any, n: int) -> Any:
    if n == 1:
        out = drop(out, 2)
    return out if input._array.ndim == n + 2 else drop(out, 0)


def _max_pool(
    n: int,
    name: str,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    x = _images(input, n, name)
    stride = kernel_size if stride is None or stride == [] or stride == () else stride
    attrs: dict[str, Any] = _windows(n, kernel=kernel_size, stride=stride, padding=padding, dilation=dilation)
    attrs["ceil_mode"] = ceil_mode
    if not return_indices:
        if n == 1 and not (input._requires_grad and MODE.grad):  # PyTorch's kernel without indices
            x = contiguous(x)
        return _back(call(_max_pool2d, (x,), attrs), input, n)
    values, indices = call(_max_pool2d_with_indices, (x,), attrs)
    return _back(values, input, n), _back(indices, input, n)


def max_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of (N, C, H, W) or (C, H, W); NaN counts as the largest.

    Args:
        kernel_size: The window.
        stride: Its steps; default: its size.
        padding: Positions added on both sides, which never win.
        dilation: Distance of the window's elements.
        ceil_mode: Let windows hang over the end.
        return_indices: Return (values, indices), positions in the flattened image.
    """
    name = "max_pool2d"
    return _max_pool(2, name, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of (N, C, L) or (C, L); see `max_pool2d`."""
    name = "max_pool1d"
    return _max_pool(1, name, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


# Mean


def _avg_aval(
    x: Any,
    kernel: Sizes = (),
    stride: Sizes = (),
    padding: Sizes = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Aval:
    if x.dtype.kind in "biu":
        refuse("avg_pool2d", x.dtype)
    return image(_pooled(x.shape, kernel, stride, padding, (1, 1), ceil_mode), x.dtype, x)


def _avg_sizes(
    x: Any, count_include_pad: bool, divisor: int | None, x_shape: Sizes = (), needs: Any = None, **window: Any
) -> dict[str, int]:
    """Sizes of the mean and of its gradient, which is told the shape of the images."""
    sizes = kernels.geometry(x_shape or x.shape, **window)
    return {**sizes, "count_padding": count_include_pad, "divisor": divisor or 0}


def _avg_grad(known: Any) -> Aval:
    given = known.g.shape
    if given != _pooled(known.x_shape, known.kernel, known.stride, known.padding, (1, 1), known.ceil_mode):
        raise RuntimeError(f"avg_pool2d: a gradient of {given} for {known.x_shape}")
    return image(known.x_shape, known.g.dtype, known.g)


_avg_pool2d = Op(
    "avg_pool2d",
    kind=kinds.rows(folds=True),
    infer=_avg_aval,
    real="avg_pool2d",
    order=placement.IMAGE,
    numpy=kernels.avg_pool2d,
    c=C("pool", "avg_pool", _avg_sizes),
    save=("x.shape",),
    flat=True,
    vjp=Gradient(
        results=_avg_grad,
        order=placement.IMAGE,
        numpy=kernels.avg_pool2d_backward,
        c=C("pool", "avg_pool_backward", _avg_sizes),
        vjp=(lambda gg, x_shape, needs, **window: _avg_pool2d(gg, **window),),
    ),
    node_name="AvgPool2DBackward0",
    onnx="AveragePool",
)


def _avg_pool(
    n: int,
    name: str,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Any:
    x = _images(input, n, name)
    stride = kernel_size if stride is None or stride == [] or stride == () else stride
    if divisor == 0:
        raise RuntimeError("divisor must be not zero")
    attrs: dict[str, Any] = _windows(n, kernel=kernel_size, stride=stride, padding=padding)
    attrs |= {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad, "divisor": divisor}
    return _back(call(_avg_pool2d, (x,), attrs), input, n)


def avg_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The mean of each window of (N, C, H, W) or (C, H, W).

    Args:
        kernel_size: The window.
        stride: Its steps; default: its size.
        padding: Zeros added on both sides.
        ceil_mode: Let windows hang over the end.
        count_include_pad: The padding counts as elements of the mean.
        divisor_override: Divide by this instead of the number of elements.
    """
    name = "avg_pool2d"
    return _avg_pool(2, name, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window of (N, C, L) or (C, L); see `avg_pool2d`."""
    return _avg_pool(1, "avg_pool1d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


# To a given size


def _target(input: Any, output_size: Any, n: int, name: str) -> Sizes:
    shape = input._array.shape
    if len(shape) not in (n + 1, n + 2):
        raise RuntimeError(f"{name}(): Expected {n + 1}D or {n + 2}D tensor, but got {list(shape)}")
    want = (output_size,) * n if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if len(want) != n:
        raise RuntimeError(f"{name}: output_size must be {n}")
    sizes = tuple([have if size is None else size for size, have in zip(want, shape[-n:], strict=True)])
    if min(sizes) < 0:
        got = ", ".join(map(str, sizes))
        raise RuntimeError(f"{name}: elements of output_size must be greater than or equal to 0 but received {{{got}}}")
    for i, size in enumerate(shape):
        if size == 0 and i >= len(shape) - n - ("max" in name and i != 0):
            raise RuntimeError(
                f"{name}(): Expected input to have non-zero size for non-batch dimensions, but input has sizes "
                f"{list(shape)} with dimension {i} being empty"
            )
    return sizes


def _even(have: Sizes, want: Sizes) -> Sizes | None:
    """The window that divides the input evenly, if there is one."""
    if min(want) > 0 and all(n % m == 0 and n for n, m in zip(have, want, strict=True)):
        return tuple([n // m for n, m in zip(have, want, strict=True)])
    return None


def _edges(n: int, m: int) -> list[tuple[int, int]]:
    """Where each of `m` windows over `n` elements starts and ends."""
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def weighted(input: Any, dim: int, at: Any, weights: Any) -> Any:
    """Along `dim` (negative) the sums over k of `weights[i, k]` times the element `at[i, k]`.

    They are picked, for a product with a matrix of zeros elsewhere would spread an inf or a NaN over all (0 · inf).
    """
    array = input._array
    axis = array.ndim + dim
    table = weights.astype(array.dtype)
    out = None
    for places, row in zip(at.T, table.T, strict=True):
        part = _index_select(input, wrap(like(array, places)), axis, False)
        part = part * wrap(like(array, row.reshape((-1,) + (1,) * (-1 - dim))))
        out = part if out is None else out + part
    return out


def _means(input: Any, dim: int, m: int) -> Any:
    """Along `dim` (negative) the means of `m` windows."""
    edges = _edges(input._array.shape[dim], m)
    widest = max([end - start for start, end in edges], default=1)
    at, weights = np.zeros((m, widest), np.int64), np.zeros((m, widest))
    for i, (start, end) in enumerate(edges):
        at[i] = np.minimum(np.arange(start, start + widest), end - 1)
        weights[i] = 1 / (end - start)
        weights[i, end - start - 1 :] /= widest - (end - start) + 1  # the last element is picked so often
    return weighted(input, dim, at, weights)


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    """The means of windows that divide (..., H, W) into `output_size`; None keeps a size."""
    real_only("adaptive_avg_pool2d", input)
    want = _target(input, output_size, 2, "adaptive_avg_pool2d")
    have = input._array.shape[-2:]
    window = _even(have, want)
    if window is not None:
        return avg_pool2d(input, window)
    return as_image(_means(_means(flat(input), -2, want[0]), -1, want[1]), input)


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Any:
    """The means of windows that divide (..., L) into `output_size`."""
    real_only("adaptive_avg_pool2d", input)
    (want,) = _target(input, output_size, 1, "adaptive_avg_pool1d")
    n = input._array.shape[-1]
    window = _even((n,), (want,))
    if window is not None:
        return avg_pool1d(input, window)
    return _means(flat(input), -1, want)


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The largest elements of windows that divide (..., H, W) into `output_size`; None keeps a size.

    Args:
        return_indices: Return (values, indices); the sizes must divide evenly for it.
    """
    real_only("adaptive_max_pool2d", input)
    want = _target(input, output_size, 2, "adaptive_max_pool2d")
    have = input._array.shape[-2:]
    window = _even(have, want)
    if window is not None:
        return max_pool2d(input, window, return_indices=return_indices)
    if return_indices:
        raise NotImplementedError(f"adaptive_max_pool2d: indices need {want} to divide {have}; pad or crop the input")
    input = flat(input)
    if 0 in want:
        return reshape(input[..., :0, :0], *input._array.shape[:-2], *want)
    cells = [
        input[..., top:bottom, left:right].flatten(-2).max(-1)[0]  # of equal ones the first takes the gradient
        for top, bottom in _edges(have[0], want[0])
        for left, right in _edges(have[1], want[1])
    ]
    return as_image(reshape(stack(cells, -1), *input._array.shape[:-2], *want), input)


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The largest elements of windows that divide (..., L) into `output_size`."""
    (want,) = _target(input, output_size, 1, "adaptive_max_pool1d")
    out = adaptive_max_pool2d(unsqueeze(input, -2), (1, want), return_indices)
    return tuple(squeeze(t, -2) for t in out) if return_indices else squeeze(out, -2)
