"""Normalisation: of rows (layer, RMS, group, instance) and of channels over a batch (batch norm)."""

from __future__ import annotations

import math
from functools import wraps
from typing import Any

import numpy as np

from rushlight_tensor.core import kinds, placement
from rushlight_tensor.core.dispatch import call, refuse
from rushlight_tensor.core.half_precision import wide
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.inplace import mutate
from rushlight_tensor.core.layout import image
from rushlight_tensor.core.op import REGISTRY, Gradient, Op
from rushlight_tensor.core.promote import FLOAT32
from rushlight_tensor.core.size import Size
from rushlight_tensor.kernels import batch_norm as channel_kernels
from rushlight_tensor.kernels import cuda_kernels
from rushlight_tensor.kernels import norm as row_kernels
from rushlight_tensor.kernels.plan import C, rows
from rushlight_tensor.ops.math.cast import as_image, cast, contiguous, flat, unrecorded, widely
from rushlight_tensor.ops.math.elementwise import rsqrt
from rushlight_tensor.ops.reduce.reduce import mean, sum
from rushlight_tensor.ops.shape.pad import pad
from rushlight_tensor.ops.shape.samples import _aligned, _in_front, _merged, _parted
from rushlight_tensor.ops.shape.shape import drop, lift, reshape

# Rows.  The last `dims` dimensions are one row for the kernels.


def _check_rows(input: Any, weight: Any, bias: Any, dims: int) -> None:
    shape = input.shape
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None and t.shape != shape[len(shape) - dims :]:
            got, want = list(t.shape), list(shape[len(shape) - dims :])
            raise RuntimeError(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape {got} and "
                f"normalized_shape = {want}"
            )


def _layer_norm_aval(input: Any, weight: Any, bias: Any, dims: int = 1, eps: float = 1e-5) -> tuple[Aval, ...]:
    _check_rows(input, weight, bias, dims)
    lead = (math.prod(input.shape[: len(input.shape) - dims]),)
    stats = Aval(lead, wide(input.dtype))
    return Aval(input.shape, input.dtype), stats, stats


def _row_grads(known: Any) -> tuple[Aval, ...]:
    x = known.input
    row = Aval(x.shape[len(x.shape) - known.dims :], x.dtype)
    return Aval(x.shape, x.dtype), row, row


def _in_float32(rule: Any) -> Any:
    """A rule `(g, needs, x, weight, ...)` that takes squares: of half types in float32, which can hold them."""

    @wraps(rule)
    def run(g: Any, needs: Any, x: Any, *saved: Any, **attrs: Any) -> Any:
        half = x._array.dtype
        if half == wide(half):
            return rule(g, needs, x, *saved, **attrs)
        given = [t if t is None else cast(t, dtype=FLOAT32) for t in (g, x, *saved)]
        dx, *rest = rule(given[0], needs, *given[1:], **attrs)
        return (dx if dx is None else cast(dx, dtype=half), *rest)

    return run


@_in_float32
def _layer_norm_rule(g: Any, needs: Any, x: Any, weight: Any, centre: Any, rstd: Any, dims: int, eps: float) -> Any:
    n = x._array.ndim
    over, lead = tuple(range(n - dims, n)), tuple(range(n - dims))
    away = x - mean(x, over, True)
    scale = rsqrt(mean(away * away, over, True) + eps)
    normed = away * scale
    gw = g if weight is None else g * weight
    dx = scale * (gw - mean(gw, over, True) - normed * mean(gw * normed, over, True)) if needs[0] else None
    dw = (sum(g * normed, lead) if lead else g * normed) if needs[1] else None
    return dx, dw, (sum(g, lead) if lead else g) if needs[2] else None


def _row_norm_samples(name: str) -> Any:
    """The batching rule of a norm of rows: weights that differ between samples are applied afterwards."""

    def batch(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
        x, *scales = xs
        (x,) = _in_front(size, batched[:1], (x,))
        if not any(batched[1:]):
            return call(REGISTRY[name], (x, *scales), attrs, whole=True)
        y, *kept = call(REGISTRY[name], (x, *[None] * len(scales)), attrs, whole=True)
        y, *scales = _aligned((True, *batched[1:]), (y, *scales))
        y = y if scales[0] is None else y * scales[0]
        return (y if len(scales) < 2 or scales[1] is None else y + scales[1], *kept)

    return batch


_layer_norm = Op(
    "layer_norm",
    kind=kinds.rows(shared=("weight", "bias")),
    batch=_row_norm_samples("layer_norm"),
    infer=_layer_norm_aval,
    real="LayerNormKernelImpl",
    numpy=row_kernels.layer_norm,
    c=C("norm", "layer_norm", rows),
    cuda=cuda_kernels.layer_norm,
    save=("input", "weight", "out1", "out2"),
    vjp=Gradient(
        _layer_norm_rule,
        results=_row_grads,
        kind=kinds.linear(),
        numpy=row_kernels.layer_norm_backward,
        c=C("norm", "layer_norm_backward", rows),
        cuda=cuda_kernels.layer_norm_backward,
    ),
    side_results=True,
    node_name="NativeLayerNormBackward0",
    onnx="LayerNormalization",
)


def _row_dims(input: Any, normalized_shape: Any, star: str) -> int:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    have = input._array.shape
    if not shape or have[len(have) - len(shape) :] != shape or len(shape) > len(have):
        want = ", ".join(map(str, shape))
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape [*{star}{want}], but got input of "
            f"size{list(have)}"
        )
    return len(shape)


def layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Normalise to mean 0 and variance 1 over the last dimensions (Ba, Kiros and Hinton, 2016).

    Args:
        input: (..., *normalized_shape).
        normalized_shape: The sizes of these dimensions.
        weight: Of that shape, multiplied to the result.
        bias: Of that shape, added to it.
        eps: Added to the variance.
    """
    _floats("LayerNormKernelImpl", input)
    dims = _row_dims(input, normalized_shape, ", ")
    return call(_layer_norm, (input, weight, bias), {"dims": dims, "eps": eps})


def _rms_norm_aval(input: Any, weight: Any, dims: int = 1, eps: float = 1e-5) -> tuple[Aval, ...]:
    _check_rows(input, weight, None, dims)
    lead = (math.prod(input.shape[: len(input.shape) - dims]),)
    return Aval(input.shape, input.dtype), Aval(lead, wide(input.dtype))


@_in_float32
def _rms_norm_rule(g: Any, needs: Any, x: Any, weight: Any, rstd: Any, dims: int, eps: float) -> Any:
    n = x._array.ndim
    over, lead = tuple(range(n - dims, n)), tuple(range(n - dims))
    scale = rsqrt(mean(x * x, over, True) + eps)
    normed = x * scale
    gw = g if weight is None else g * weight
    dx = scale * (gw - normed * mean(gw * normed, over, True)) if needs[0] else None
    return dx, (sum(g * normed, lead) if lead else g * normed) if needs[1] else None


_rms_norm = Op(
    "rms_norm",
    kind=kinds.rows(shared=("weight",)),
    batch=_row_norm_samples("rms_norm"),
    infer=_rms_norm_aval,
    order=placement.FORMAT,
    numpy=row_kernels.rms_norm,
    c=C("norm", "rms_norm", rows),
    save=("input", "weight", "out1"),
    vjp=Gradient(
        _rms_norm_rule,
        results=_row_grads,
        kind=kinds.linear(),
        numpy=row_kernels.rms_norm_backward,
        c=C("norm", "rms_norm_backward", rows),
    ),
    side_results=True,
)


def rms_norm(input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """Divide by the root of the mean square over the last dimensions (Zhang and Sennrich, 2019).

    Args:
        input: (..., *normalized_shape).
        normalized_shape: The sizes of these dimensions.
        weight: Of that shape, multiplied to the result.
        eps: Added to the mean square; default: the machine epsilon of the dtype.
    """
    _floats("rms_norm", input)
    dims = _row_dims(input, normalized_shape, "")
    if eps is None:
        eps = float(np.finfo(np.float32 if input._array.dtype.itemsize == 2 else input._array.dtype).eps)
    return call(_rms_norm, (input, weight), {"dims": dims, "eps": eps})


def _floats(kernel: str, x: Any) -> None:
    if x._array.dtype.kind in "biu":
        refuse(kernel, x._array.dtype)


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    """`x * weight + bias` by channel (dimension 1), of the dtype of `x`."""
    ones, dtype = [1] * (x._array.ndim - 2), x._array.dtype
    if weight is not None:
        x = x * reshape(weight, -1, *ones)
    x = x if bias is None else x + reshape(bias, -1, *ones)
    return x if x._array.dtype == dtype else cast(x, dtype=dtype)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Normalise each sample's channels in `num_groups` groups (Wu and He, 2018).

    Args:
        input: (N, C, ...).
        weight: (C,) or None.
        bias: (C,) or None.
        eps: Added to the variance.
    """
    _floats("GroupNormKernelImpl", input)
    shape = input._array.shape
    if len(shape) < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {len(shape)}")
    n, c = shape[:2]
    if num_groups <= 0:
        raise RuntimeError(f"Expected num groups to be greater than 0, got {num_groups}")
    if n * c // num_groups * math.prod(shape[2:]) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(shape)}")
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None and t._array.shape != (c,):
            raise RuntimeError(
                f"Expected {name} to be a vector of size equal to the number of channels in input, but got {name} of "
                f"shape {list(t._array.shape)} and input of shape {list(shape)}"
            )
    if c % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(shape)} and num_groups={num_groups}"
        )
    grouped = reshape(input, n * num_groups, (c // num_groups) * math.prod(shape[2:]))
    out = call(_layer_norm, (grouped, None, None), {"dims": 1, "eps": eps})
    return as_image(_affine(reshape(out, shape), weight, bias), input)


# Channels


def _check_channels(x: Any) -> None:
    if len(x.shape) < 2:
        raise RuntimeError(f"batch_norm: expected an input (N, C, ...), got shape {x.shape}")


def _moments_aval(input: Any) -> tuple[Aval, Aval]:
    _check_channels(input)
    each = Aval(input.shape[1:2], wide(input.dtype))  # of half types float32: a variance may be too large for them
    return each, each


def _channels(x: Any, *others: Any, **attrs: Any) -> dict[str, int]:
    """Sizes of kernels over channels: `c` of them side by side, in `rows` samples or pixels."""
    return {"rows": math.prod(x.shape[2:], start=x.shape[0]), "c": x.shape[1]}


def _moments_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    return tuple([_parted(m, 0, size) for m in call(_moments, (_merged(xs[0], 1),), attrs)])


_moments = Op(
    "batch_norm_moments",
    kind=kinds.opaque("channels are the second dimension, and statistics are over all others"),
    batch=_moments_samples,
    infer=_moments_aval,
    real="batch_norm",
    numpy=channel_kernels.moments,
    c=C("batch_norm", "moments", _channels),
    vjp=None,
)


def _update_aval(
    running_mean: Any, running_var: Any, centre: Any, var: Any, momentum: float = 0.1, correction: float = 1.0
) -> tuple[()]:
    for p in (running_var, centre, var):
        if p.shape != running_mean.shape:
            raise RuntimeError(f"batch_norm: statistics of shape {p.shape} beside those of {running_mean.shape}")
    return ()


_update = Op(
    "batch_norm_update",
    kind=kinds.opaque("running statistics of channels"),
    writes=2,
    infer=_update_aval,
    numpy=channel_kernels.update,
    c=C("batch_norm", "batch_norm_update", lambda running_mean, *others, **attrs: {"c": math.prod(running_mean.shape)}),
    vjp=None,
)


def _batch_norm_aval(
    input: Any, weight: Any, bias: Any, centre: Any, var: Any, training: bool = False, eps: float = 1e-5
) -> Aval:
    for name, p in (("running_mean", centre), ("running_var", var), ("weight", weight), ("bias", bias)):
        if p is not None and p.shape != input.shape[1:2]:
            raise RuntimeError(f"{name} should contain {input.shape[1]} elements, not {p.shape}")
    return _channels_aval(input, input)


def _channels_aval(x: Any, *xs: Any) -> Aval:
    """The shape of `x`; images lie as convolution leaves them."""
    _check_channels(x)
    return image(x.shape, x.dtype, *xs) if len(x.shape) > 2 else Aval(x.shape, x.dtype)


def _channel_grads(known: Any) -> tuple[Aval, ...]:
    x = known.input
    channel = Aval(x.shape[1:2], x.dtype if known.weight is None else known.weight.dtype)
    return _channels_aval(x, known.g, x), channel, channel


@_in_float32
def _batch_norm_rule(g: Any, needs: Any, x: Any, weight: Any, centre: Any, var: Any, training: bool, eps: float) -> Any:
    shape = x._array.shape
    over = (0, *range(2, len(shape)))
    column = (-1, *[1] * (len(shape) - 2))
    if training:
        away = x - mean(x, over, True)
        scale = rsqrt(mean(away * away, over, True) + eps)
    else:
        away = x - reshape(centre, *column)
        scale = rsqrt(reshape(var, *column) + eps)
    normed = away * scale
    gw = g if weight is None else g * reshape(weight, *column)
    inner = gw - mean(gw, over, True) - normed * mean(gw * normed, over, True) if training else gw
    return inner * scale, sum(g * normed, over), sum(g, over), None, None


def _batch_norm_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    """The channels of all samples are the channels of one."""
    x, *channels = _in_front(size, batched, xs)
    return _parted(call(_batch_norm, (_merged(x, 1), *[_merged(p, 0) for p in channels]), attrs), 1, size)


_batch_norm = Op(
    "batch_norm",
    kind=kinds.opaque("channels are the second dimension, and statistics are over all others"),
    batch=_batch_norm_samples,
    infer=_batch_norm_aval,
    real="batch_norm",
    order=placement.IMAGE,
    numpy=channel_kernels.batch_norm,
    c=C("batch_norm", "batch_norm", _channels),
    save=("input", "weight", "centre", "var"),
    vjp=Gradient(
        _batch_norm_rule,
        results=_channel_grads,
        order=placement.IMAGE,
        numpy=channel_kernels.batch_norm_backward,
        c=C("batch_norm", "batch_norm_backward", _channels),
    ),
    node_name="NativeBatchNormBackward0",
    onnx="BatchNormalization",
)


def _as_images(x: Any) -> Any:
    """(N, C, ...) as (N, C) or (N, C, H, W), which the kernels take."""
    shape = x._array.shape
    if len(shape) in (2, 4):
        return x
    return lift(contiguous(x), 2) if len(shape) == 3 else reshape(x, *shape[:3], math.prod(shape[3:]))


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalise each channel over the batch (Ioffe and Szegedy, 2015).

    Args:
        input: (N, C, ...).
        running_mean: (C,), used when not training; updated in place when training; or None.
        running_var: (C,), likewise.
        weight: (C,) or None.
        bias: (C,) or None.
        training: Use the statistics of the batch.
        momentum: The weight of the batch in the running statistics.
        eps: Added to the variance.
    Raises:
        ValueError: Training on one value per channel.
        RuntimeError: Sizes do not fit, or there are no statistics.
    """
    shape = input._array.shape
    _check_channels(input._array)
    _floats("batch_norm", input)
    for name, t in (
        ("running_mean", running_mean),
        ("running_var", running_var),
        ("weight", weight),
        ("bias", bias),
    ):
        if t is not None and t._array.size != shape[1]:
            raise RuntimeError(f"{name} should contain {shape[1]} elements not {t._array.size}")
        if t is None and not training and name.startswith("running"):
            raise RuntimeError(f"{name} must be defined in evaluation mode")
    x = _as_images(input)
    centre, var = running_mean, running_var
    if not training:
        x = flat(x)
    if training:
        n = shape[0] * math.prod(shape[2:])
        if n == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {Size(shape)}")
        training = n > 0
        if training:
            centre, var = _moments(unrecorded(x))
        else:  # no value has no moments: any will do, and the running ones stay
            centre, var = input.new_zeros(shape[1]), input.new_ones(shape[1])
        if running_mean is not None and training:
            attrs = {"momentum": momentum, "correction": n / (n - 1)}
            mutate(_update, (running_mean, running_var, centre, var), attrs)
    out = call(_batch_norm, (x, weight, bias, centre, var), {"training": training, "eps": eps})
    return out if x is input else drop(out, 2) if len(shape) == 3 else reshape(out, shape)


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Normalise each channel of each sample (Ulyanov, Vedaldi and Lempitsky, 2016).

    Args:
        input: (N, C, ...).
        running_mean: (C,), used without input statistics, else updated in place; or None.
        running_var: (C,), likewise.
        weight: (C,) or None.
        bias: (C,) or None.
        use_input_stats: Use the statistics of the input.
        momentum: The weight of the input in the running statistics.
        eps: Added to the variance.
    """
    _floats("batch_norm", input)
    shape = input._array.shape
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    n = math.prod(shape[2:])
    if n == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {Size(shape)}")
    if running_mean is not None and input._array.size:
        images = reshape(input.detach(), 1, shape[0] * shape[1], 1, n)
        centre, var = (mean(reshape(s, shape[0], shape[1]), 0) for s in _moments(images))
        mutate(_update, (running_mean, running_var, centre, var), {"momentum": momentum, "correction": n / (n - 1)})
    return group_norm(contiguous(input), shape[1], weight, bias, eps)


@widely
def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """Divide by `(k + alpha * mean of squares of `size` neighbouring channels) ** beta` (Krizhevsky et al., 2012)."""
    shape = input._array.shape
    if len(shape) < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {len(shape)} dimensions)")
    if not input._array.size:
        return input
    squares = pad((input * input).movedim(1, -1), (size // 2, (size - 1) // 2))
    total = sum(squares.unfold(-1, size, 1), -1).movedim(-1, 1)
    return input / (total * (alpha / size) + k) ** beta
