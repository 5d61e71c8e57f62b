"""Dropout: elements or whole channels set to zero at random, with the masks of PyTorch's CPU generator."""

from __future__ import annotations

from typing import Any

from rushlight_tensor.core import cuda, kinds, layout
from rushlight_tensor.core.dispatch import call
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.inplace import inplace as write_into
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import category
from rushlight_tensor.kernels.draw import Drawing
from rushlight_tensor.kernels.plan import C, elements
from rushlight_tensor.ops.math.cast import copy
from rushlight_tensor.random import default_generator


def _dropout_aval(x: Any, p: float = 0.5) -> tuple[Aval, Aval]:
    if category(x.dtype) < 2:
        raise RuntimeError("result type Float can't be cast to the desired output type Long")
    return Aval(x.shape, x.dtype), Aval(x.shape, x.dtype)


def _dropout_kernel(x: Any, p: float) -> Any:
    if x.dtype.kind in "iub":
        raise TypeError("dropout of integers")
    noise = _noise(x, p)
    return x * noise, noise


def _no_probability(place: int, *arrays: Any, p: float) -> RuntimeError:
    return RuntimeError(f"dropout: p has to be between 0 and 1, but got {p}")


def _noise(x: Any, p: float) -> Any:
    """Zeros, and ones over 1 - p; drawn in the order of memory, as PyTorch does."""
    noise = layout.empty_like(x)
    default_generator.bernoulli(noise, 1 - p)
    if p < 1:
        noise /= noise.dtype.type(1 - p)
    return noise


def _dropout_on_host(x: Any, p: float) -> Any:
    noise = cuda.like(x, _noise(cuda.to_host(x), p))
    return x * noise, noise


_dropout = Op(
    "dropout",
    kind=kinds.ELEMENTWISE,
    infer=_dropout_aval,
    real="bernoulli_scalar_cpu_",
    numpy=_dropout_kernel,
    c=Drawing(
        "random",
        "dropout",
        elements,
        default_generator,
        _no_probability,
        Drawing("random", "dropout_f64", elements, default_generator, _no_probability),
    ),
    cuda=_dropout_on_host,
    random=True,
    save=("out1",),
    vjp=Gradient(
        lambda g, needs, noise, p: (g * noise,),
        results=lambda known: Aval(known.out1.shape, known.out1.dtype),
        numpy=lambda g, noise, p, needs: g * noise,
        c=C("random", "dropout_backward", elements),
    ),
    side_results=True,
    node_name="MulBackward0",
)


def _applies(input: Any, p: float, training: bool) -> bool:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    return training and p > 0 and input._array.size > 0


def _result(input: Any, out: Any, inplace: bool) -> Any:
    return write_into(copy, input, out) if inplace else out


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Set each element to zero with probability `p`, and divide the others by `1 - p` (Hinton et al., 2012).

    Args:
        training: Without it, return `input`.
        inplace: Write into `input`.
    """
    if not _applies(input, p, training):
        return input
    out = call(_dropout, (input,), {"p": p}) if p < 1 else input * 0.0  # for which PyTorch draws nothing
    return _result(input, out, inplace)


def _channel_dropout(input: Any, p: float, training: bool, inplace: bool) -> Any:
    if not _applies(input, p, training):
        return input
    if p == 1:
        return _result(input, input * 0.0, inplace)
    shape = input._array.shape
    noise = call(_dropout, (input.new_ones((*shape[:2], *[1] * (len(shape) - 2))),), {"p": p})
    return _result(input, input * noise, inplace)


def _batched(input: Any, ndim: int, name: str, p: float, training: bool, inplace: bool) -> Any:
    if input._array.ndim == ndim:
        return _channel_dropout(input, p, training, inplace)
    if input._array.ndim != ndim - 1:
        raise RuntimeError(f"{name}: Expected {ndim - 1}D or {ndim}D input, but received a {input._array.ndim}D input.")
    out = _channel_dropout(input.unsqueeze(0), p, training, False).squeeze(0)
    return _result(input, out, inplace)


def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Set whole channels of (N, C, L) or (C, L) to zero with probability `p`, and divide the others by `1 - p`."""
    return _batched(input, 3, "dropout1d", p, training, inplace)


def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Set whole channels of (N, C, H, W) to zero with probability `p`, and divide the others by `1 - p`."""
    if input._array.ndim < 3:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return _channel_dropout(input, p, training, inplace)


def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Set whole channels of (N, C, D, H, W) or (C, D, H, W) to zero with probability `p`, divide the others by `1 - "
    "p`."""
    return _batched(input, 5, "dropout3d", p, training, inplace)


_ALPHA = 1.7580993408473766  # minus the limit of SELU: what an element is set to


def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """Dropout that keeps mean and variance after SELU (Klambauer et al., 2017)."""
    if not _applies(input, p, training):
        return input
    if p == 1:
        return _result(input, input * 0, inplace)
    a = 1 / ((_ALPHA**2 * p + 1) * (1 - p)) ** 0.5
    noise = input.detach().clone().bernoulli_(1 - p)
    shift = (noise - 1) * (_ALPHA * a) + _ALPHA * a * p
    return _result(input, input * (noise * a) + shift, inplace)
