"""Convolution: three kernels, each made of the others' gradients, which give the transposed convolution too.

Note [Channels last]
    The kernels work on memory in (N, H, W, C) order and return (N, C, H, W) views of it: a chain of convolutions, norms
    and pools copies nothing.  Nobody else sees that order: Note [Private order] in `layout.py`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rushlight_tensor.core import kinds, placement
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.layout import image
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.kernels import conv as kernels
from rushlight_tensor.kernels.plan import C
from rushlight_tensor.ops.linalg.linalg import _C_NAMES
from rushlight_tensor.ops.math.cast import contiguous
from rushlight_tensor.ops.reduce.reduce import sum
from rushlight_tensor.ops.shape.pad import pad
from rushlight_tensor.ops.shape.samples import _in_front, _merged, _parted
from rushlight_tensor.ops.shape.shape import drop, lift, reshape

Sizes = tuple[int, ...]

_MOST = 2**61


def _sizes(value: Any, n: int, name: str) -> Sizes:
    """One integer, or one per dimension."""
    values = (value,) * n if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values *= n
    if len(values) != n:
        raise RuntimeError(
            f"expected {name} to be a single integer value or a list of {n} values to match the convolution "
            f"dimensions, but got {name}={list(values)}"
        )
    return values


def _check_dtypes(x: Any, weight: Any, bias: Any) -> None:
    if x.dtype != weight.dtype:
        a, b = dtype_title(x.dtype), dtype_title(weight.dtype)
        raise RuntimeError(
            f"Input type (torch.{a}Tensor) and weight type (torch.{b}Tensor) should be the same or input should be a "
            "MKLDNN tensor and weight is a dense tensor"
        )
    if bias is not None and bias.dtype != x.dtype:
        a, b = (_C_NAMES.get(t.dtype.name, t.dtype.name) for t in (x, bias))
        raise RuntimeError(f"Input type ({a}) and bias type ({b}) should be the same")


def _check(x: Sizes, weight: Sizes, groups: int, transposed: bool, n: int) -> None:
    """Channels of input and weight.  `x` is (N, C, ...)."""
    if len(weight) != n + 2:
        raise RuntimeError(
            f"expected a {n + 2}-dimensional weight for a convolution in {n} dimensions, got {list(weight)}"
        )
    if groups <= 0:
        raise RuntimeError("non-positive groups is not supported")
    if weight[0] < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but got weight of size "
            f"{list(weight)} instead"
        )
    if weight[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight of "
            f"size [{list(weight)}] instead"
        )
    channels = weight[0] if transposed else weight[1] * groups
    if x[1] != channels:
        given = "transposed=1" if transposed else f"groups={groups}"
        raise RuntimeError(
            f"Given {given}, weight of size {list(weight)}, expected input{list(x)} to have {channels} channels, but "
            f"got {x[1]} channels instead"
        )


@lru_cache(256)  # of sizes alone, the same at every step
def _check_window(x: Sizes, weight: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> None:
    """What a window may be: PyTorch's limits, which keep sums of these numbers within 64 bits."""
    if min(stride) <= 0:
        raise RuntimeError("non-positive stride is not supported")
    if min(padding) < 0:
        raise RuntimeError("negative padding is not supported")
    if min(dilation) <= 0:
        raise RuntimeError(f"dilation should be greater than zero, but got {list(dilation)}")
    if min(weight[2:]) <= 0:
        kernel = ", ".join(f"{name}: {k}" for name, k in zip(("height", "width"), (1, *weight[2:])[-2:], strict=True))
        raise RuntimeError(f"kernel size should be greater than zero, but got {kernel}")
    if max(*stride, *padding, *dilation) >= _MOST:
        raise RuntimeError(f"expected stride, padding and dilation below 2**61, got {stride}, {padding}, {dilation}")
    if 0 in x[2:] and 0 not in x[:2]:
        raise RuntimeError(f"Only zero batch or zero channel inputs are supported, but got input shape: {list(x)}")


@lru_cache(256)
def _check_result(
    g: Sizes, x: Sizes, weight: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> None:
    """Whether `g` can be the result of a convolution of `x`, or its gradient; the last rows of `x` may be unused."""
    _check_window((1, 1), weight, stride, padding, dilation)
    spatial = zip(g[2:], x[2:], weight[2:], stride, padding, dilation, strict=True)
    covered = all((out - 1) * s + d * (k - 1) + 1 <= n + 2 * p for out, n, k, s, p, d in spatial if out)
    if len(g) != len(x) or g[:2] != (x[0], weight[0]) or weight[1] * groups != x[1] or not covered:
        raise RuntimeError(
            f"convolution: a result of {list(g)} does not fit an input of {list(x)} and a weight of {list(weight)} "
            f"(stride={stride}, padding={padding}, dilation={dilation}, groups={groups})"
        )


def _check_bias(weight: Sizes, bias: Any, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise RuntimeError(
            f"Given weight of size {list(weight)}, expected bias to be 1-dimensional with {channels} elements, but got "
            f"bias of size {list(bias.shape)} instead"
        )


def _out_sizes(x: Sizes, weight: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> Sizes:
    """The spatial sizes of a convolution's result."""
    _check_window((1, 1), weight, stride, padding, dilation)
    padded = [n + 2 * p for n, p in zip(x[2:], padding, strict=True)]
    extent = [d * (k - 1) + 1 for k, d in zip(weight[2:], dilation, strict=True)]
    if any(e > n for e, n in zip(extent, padded, strict=True)):
        have, want = (" x ".join(map(str, sizes)) for sizes in (padded, extent))
        raise RuntimeError(
            f"Calculated padded input size per channel: ({have}). Kernel size: ({want}). Kernel size can't be greater "
            "than actual input size"
        )
    _check_window(x, weight, stride, padding, dilation)
    return tuple([(n - e) // s + 1 for n, e, s in zip(padded, extent, stride, strict=True)])


# The three kernels


def _conv2d_aval(
    input: Any,
    weight: Any,
    bias: Any,
    stride: Sizes = (1, 1),
    padding: Sizes = (0, 0),
    dilation: Sizes = (1, 1),
    groups: int = 1,
) -> Aval:
    _check(input.shape, weight.shape, groups, False, 2)
    _check_dtypes(input, weight, bias)
    _check_bias(weight.shape, bias, weight.shape[0])
    sizes = _out_sizes(input.shape, weight.shape, stride, padding, dilation)
    return image((input.shape[0], weight.shape[0], *sizes), input.dtype, input, weight)


def _conv2d_sizes(x: Any, weight: Any, bias: Any, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int) -> Any:
    out = kernels.result_shape(x.shape, weight.shape, stride, padding, dilation)
    return kernels.geometry(x.shape, weight.shape, out, stride, padding, dilation, groups)


def _input_gradient_aval(
    g: Any,
    weight: Any,
    input_shape: Sizes = (),
    stride: Sizes = (1, 1),
    padding: Sizes = (0, 0),
    dilation: Sizes = (1, 1),
    groups: int = 1,
) -> Aval:
    _check(g.shape, weight.shape, groups, True, 2)
    _check_dtypes(g, weight, None)
    _check_window(g.shape, weight.shape, stride, padding, dilation)
    _check_result(g.shape, input_shape, weight.shape, stride, padding, dilation, groups)
    return image(input_shape, g.dtype, g, weight)


def _input_gradient_sizes(g: Any, weight: Any, input_shape: Sizes, **how: Any) -> dict[str, int]:
    return kernels.geometry(input_shape, weight.shape, g.shape, **how)


def _weight_gradient_aval(
    g: Any,
    x: Any,
    weight_shape: Sizes = (),
    stride: Sizes = (1, 1),
    padding: Sizes = (0, 0),
    dilation: Sizes = (1, 1),
    groups: int = 1,
) -> Aval:
    _check_result(g.shape, x.shape, weight_shape, stride, padding, dilation, groups)
    return Aval(weight_shape, x.dtype)


def _weight_gradient_sizes(g: Any, x: Any, weight_shape: Sizes, **how: Any) -> dict[str, int]:
    return kernels.geometry(x.shape, weight_shape, g.shape, **how)


def _grads(known: Any) -> tuple[Aval, ...]:
    g, x, shape = known.g, known.input, known.weight.shape
    _check_result(g.shape, x.shape, shape, known.stride, known.padding, known.dilation, known.groups)
    return image(x.shape, g.dtype, g, x, known.weight), Aval(shape, g.dtype), Aval(shape[:1], g.dtype)


def _backward_sizes(g: Any, x: Any, weight: Any, needs: Any, **how: Any) -> dict[str, int]:
    return kernels.geometry(x.shape, weight.shape, g.shape, **how)


def _rule(g: Any, needs: Any, x: Any, weight: Any, **geometry: Any) -> Any:
    dx = _input_gradient(g, weight, input_shape=x._array.shape, **geometry) if needs[0] else None
    dw = _weight_gradient(g, x, weight_shape=weight._array.shape, **geometry) if needs[1] else None
    return dx, dw, sum(g, (0, 2, 3)) if needs[2] else None


def _cropped(y: Any, g: Any) -> Any:
    """A result in the sizes of `g`: an input with output padding has room for more windows than were there."""
    h, w = g._array.shape[2:]
    return y if y._array.shape[2:] == (h, w) else y[:, :, :h, :w]


# Samples.  Where the weight is the same for all, they are more images; else more groups of channels.


def _conv2d_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    x, weight, bias = xs
    if not batched[1] and not batched[2]:
        return _parted(call(_conv2d, (_merged(x, 0), weight, bias), attrs), 0, size)
    x, weight, bias = _in_front(size, batched, xs)
    attrs = {**attrs, "groups": size * attrs["groups"]}
    return _parted(call(_conv2d, (_merged(x, 1), _merged(weight, 0), _merged(bias, 0)), attrs), 1, size)


def _input_gradient_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    g, weight = xs
    n, c, *rest = attrs["input_shape"]
    if not batched[1]:
        attrs = {**attrs, "input_shape": (size * n, c, *rest)}
        return _parted(call(_input_gradient, (_merged(g, 0), weight), attrs), 0, size)
    g, weight = _in_front(size, batched, xs)
    attrs = {**attrs, "input_shape": (n, size * c, *rest), "groups": size * attrs["groups"]}
    return _parted(call(_input_gradient, (_merged(g, 1), _merged(weight, 0)), attrs), 1, size)


def _weight_gradient_samples(size: int, batched: Any, xs: Any, attrs: Any) -> Any:
    g, x = _in_front(size, batched, xs)
    n, *rest = attrs["weight_shape"]
    attrs = {**attrs, "weight_shape": (size * n, *rest), "groups": size * attrs["groups"]}
    return _parted(call(_weight_gradient, (_merged(g, 1), _merged(x, 1)), attrs), 0, size)


_conv2d = Op(
    "conv2d",
    kind=kinds.linear(),
    batch=_conv2d_samples,
    infer=_conv2d_aval,
    order=placement.CONVOLVED,
    numpy=kernels.conv2d,
    c=C("conv", "conv2d", _conv2d_sizes, kernels.no_memory, blas=True),
    save=("input", "weight"),
    flat=True,
    vjp=Gradient(
        _rule,
        results=_grads,
        order=placement.CONVOLVED_BACK,
        numpy=kernels.conv2d_backward,
        c=C("conv", "conv2d_backward", _backward_sizes, kernels.no_memory, blas=True),
    ),
    node_name="ConvolutionBackward0",
    onnx="Conv",
)
_input_gradient = Op(
    "conv2d_input_gradient",
    kind=kinds.linear(shapes=("input_shape",)),
    batch=_input_gradient_samples,
    infer=_input_gradient_aval,
    order=placement.CONVOLVED,
    numpy=kernels.conv2d_input_gradient,
    c=C("conv", "conv2d_input_gradient", _input_gradient_sizes, kernels.no_memory, blas=True),
    save=("g", "weight"),
    flat=True,
    vjp=(
        lambda gg, g, weight, input_shape, **geometry: _cropped(_conv2d(gg, weight, None, **geometry), g),
        lambda gg, g, weight, input_shape, **geometry: _weight_gradient(
            g, gg, weight_shape=weight._array.shape, **geometry
        ),
    ),
    node_name="ConvolutionBackward0",
    onnx="ConvTranspose",
)
_weight_gradient = Op(
    "conv2d_weight_gradient",
    kind=kinds.linear(),  # the shape of a weight does not grow with samples
    batch=_weight_gradient_samples,
    infer=_weight_gradient_aval,
    order=placement.CONVOLVED,
    numpy=kernels.conv2d_weight_gradient,
    c=C("conv", "conv2d_weight_gradient", _weight_gradient_sizes, kernels.no_memory, blas=True),
    save=("g", "x"),
    vjp=(
        lambda gw, g, x, weight_shape, **geometry: _cropped(_conv2d(x, gw, None, **geometry), g),
        lambda gw, g, x, weight_shape, **geometry: _input_gradient(g, gw, input_shape=x._array.shape, **geometry),
    ),
)


# What PyTorch names.  One dimension is two, the first of size 1.


def _batched(input: Any, weight: Any, n: int, name: str) -> Any:
    """(N, C, ...): a batch of one is added where there is none."""
    ndim = input._array.ndim
    if ndim not in (n + 1, n + 2):
        raise RuntimeError(
            f"Expected {n + 1}D (unbatched) or {n + 2}D (batched) input to {name}, but got input of size: "
            f"{list(input._array.shape)}"
        )
    if weight._array.ndim != n + 2:
        raise RuntimeError(f"{name}: expected a {n + 2}D weight, but got weight of size: {list(weight._array.shape)}")
    return input if ndim == n + 2 else lift(input, 0)


def _padding(x: Any, padding: Any, weight: Sizes, stride: Sizes, dilation: Sizes, n: int) -> tuple[Any, Sizes]:
    """The widths, and the input: "same" may need one more zero at the end of a dimension."""
    if not isinstance(padding, str):
        return x, _sizes(padding, n, "padding")
    if padding == "valid":
        return x, (0,) * n
    if padding != "same":
        raise RuntimeError(f"Invalid padding string: '{padding}'")
    if max(stride) != 1:
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    totals = [d * (k - 1) for k, d in zip(weight[2:], dilation, strict=True)]
    if any(total % 2 for total in totals):
        x = pad(x, [width for total in reversed(totals) for width in (0, total % 2)])
    return x, tuple([total // 2 for total in totals])


def _convolve(
    n: int, name: str, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    x = _batched(input, weight, n, name)
    shape = weight._array.shape
    stride, dilation = _sizes(stride, n, "stride"), _sizes(dilation, n, "dilation")
    x, padding = _padding(x, padding, shape, stride, dilation, n)
    if n == 1:
        _check(x._array.shape, shape, groups, False, 1)
        _out_sizes(x._array.shape, shape, stride, padding, dilation)
        x, weight = lift(contiguous(x), 2), lift(weight, 2)  # in PyTorch, too, permuted lines do not make an image
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    out = call(_conv2d, (x, weight, bias), attrs)
    if n == 1:
        out = drop(out, 2)
    return out if input._array.ndim == n + 2 else drop(out, 0)


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Two-dimensional cross-correlation.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight: (K, C / groups, KH, KW).
        bias: (K,) or None.
        stride: Steps of the window.
        padding: Zeros on both sides; or "same" or "valid".
        dilation: Distance of the window's elements.
        groups: Number of independent parts of the channels.
    Returns:
        (N, K, OH, OW).
    Raises:
        RuntimeError: Sizes or dtypes do not fit.
    """
    return _convolve(2, "conv2d", input, weight, bias, stride, padding, dilation, groups)


def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """One-dimensional cross-correlation: (N, C, L) or (C, L) with (K, C / groups, KL); see `conv2d`."""
    return _convolve(1, "conv1d", input, weight, bias, stride, padding, dilation, groups)


def _transposed(
    n: int,
    name: str,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Any:
    x = _batched(input, weight, n, name)
    shape, w = x._array.shape, weight._array.shape
    _check(shape, w, groups, True, n)
    if not w[1]:
        raise RuntimeError(f"non-empty 2D or 4D weight tensor expected, but got: {list(w)}")
    stride, dilation = _sizes(stride, n, "stride"), _sizes(dilation, n, "dilation")
    padding, extra = _sizes(padding, n, "padding"), _sizes(output_padding, n, "output_padding")
    _check_window(shape, w, stride, padding, dilation)
    if min(extra) < 0:
        raise RuntimeError("negative output_padding is not supported")
    if any(e >= s and e >= d for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise RuntimeError(
            f"output padding must be smaller than either stride or dilation, but got output_padding={extra}, "
            f"stride={stride}, dilation={dilation}"
        )
    _check_bias(w, None if bias is None else bias._array, w[1] * groups)
    sizes = [
        (size - 1) * s - 2 * p + d * (k - 1) + e + 1
        for size, k, s, p, e, d in zip(shape[2:], w[2:], stride, padding, extra, dilation, strict=True)
    ]
    if min(sizes) <= 0:
        raise RuntimeError(
            "Given input size per channel: ({}). Calculated output size per channel: ({}). Output size is too "
            "small".format(*(" x ".join(map(str, part)) for part in (shape[2:], sizes)))
        )
    if n == 1:
        x, weight, sizes = lift(contiguous(x), 2), lift(weight, 2), [1, *sizes]
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    out = call(_input_gradient, (x, weight), {"input_shape": (shape[0], w[1] * groups, *sizes), **attrs})
    if bias is not None:
        out = out + reshape(bias, -1, 1, 1)
    if n == 1:
        out = drop(out, 2)
    return out if input._array.ndim == n + 2 else drop(out, 0)


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """The gradient of `conv2d` by its input, as a layer of its own.

    Args:
        input: (N, K, H, W) or (K, H, W).
        weight: (K, C / groups, KH, KW).
        bias: (C,) or None.
        stride: Steps of the convolution.
        padding: Of the convolution: what is cut off both sides of the result.
        output_padding: Added to the sizes of the result.
        groups: Number of independent parts of the channels.
        dilation: Distance of the window's elements.
    Returns:
        (N, C, OH, OW).
    """
    name = "conv_transpose2d"
    return _transposed(2, name, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """The gradient of `conv1d` by its input, as a layer of its own; see `conv_transpose2d`."""
    name = "conv_transpose1d"
    return _transposed(1, name, input, weight, bias, stride, padding, output_padding, groups, dilation)
