"""Softmax and log-softmax along a dimension, with gradients from their results."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from rushlight_tensor.core import dtypes, kinds
from rushlight_tensor.core.dtypes import dtype_title
from rushlight_tensor.core.infer import Aval, axis
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.op import Gradient, Op
from rushlight_tensor.core.promote import category
from rushlight_tensor.kernels import softmax as kernels
from rushlight_tensor.kernels.cuda_kernels import Rows
from rushlight_tensor.kernels.plan import C, along
from rushlight_tensor.ops.math.cast import cast
from rushlight_tensor.ops.math.elementwise import exp, log
from rushlight_tensor.ops.reduce.reduce import sum


def _aval(name: str) -> Callable[..., Aval]:
    def infer(input: Any, dim: int = -1) -> Aval:
        axis(dim, len(input.shape))
        if category(input.dtype) != 2:
            raise NotImplementedError(
                f"\"{name}_lastdim_kernel_impl\" not implemented for '{dtype_title(input.dtype)}'"
            )
        return Aval(input.shape, input.dtype)

    return infer


def _softmax_rule(g: Any, needs: Any, out: Any, dim: int) -> Any:
    return (out * (g - sum(g * out, dim, True)),)


def _log_softmax_rule(g: Any, needs: Any, out: Any, dim: int) -> Any:
    return (g - exp(out) * sum(g, dim, True),)


_softmax = Op(
    "softmax",
    kind=kinds.rows("dim"),
    infer=_aval("softmax"),
    numpy=kernels.softmax,
    c=C("softmax", "softmax", along),
    cuda=Rows("softmax.cu", "softmax"),
    save=("out",),
    vjp=Gradient(
        _softmax_rule,
        numpy=kernels.softmax_backward,
        c=C("softmax", "softmax_backward", along),
        cuda=Rows("softmax.cu", "softmax_backward"),
    ),
    onnx="Softmax",
)
_log_softmax = Op(
    "log_softmax",
    kind=kinds.rows("dim"),
    infer=_aval("log_softmax"),
    numpy=kernels.log_softmax,
    c=C("softmax", "log_softmax", along),
    cuda=Rows("softmax.cu", "log_softmax"),
    save=("out",),
    vjp=Gradient(
        _log_softmax_rule,
        numpy=kernels.log_softmax_backward,
        c=C("softmax", "log_softmax_backward", along),
        cuda=Rows("softmax.cu", "log_softmax_backward"),
    ),
    onnx="LogSoftmax",
)


def _dim(name: str, dim: int | None, ndim: int, stacklevel: int) -> int:
    if dim is not None:
        return dim
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if ndim in (0, 1, 3) else 1


def softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """`exp(input) / sum(exp(input), dim)`, without overflow.

    Args:
        dtype: Convert to this dtype first.
    """
    if dtype is not None:
        input = cast(input, dtype=dtypes.to_numpy(dtype))
    return _softmax(input, dim=_dim("softmax", dim, input._array.ndim, _stacklevel))


def log_softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """`log(softmax(input, dim))`, without underflow.

    Args:
        dtype: Convert to this dtype first.
    """
    if dtype is not None:
        input = cast(input, dtype=dtypes.to_numpy(dtype))
    return _log_softmax(input, dim=_dim("log_softmax", dim, input._array.ndim, _stacklevel))


def _of_dim(fn: Any) -> Any:
    def method(self: Any, dim: int, dtype: Any = None) -> Any:
        return fn(self, dim, dtype=dtype)

    method.__name__ = method.__qualname__ = fn.__name__
    method.__doc__ = fn.__doc__
    return method


METHODS = {"softmax": _of_dim(softmax), "log_softmax": _of_dim(log_softmax)}
"""Methods have no dimension by default, as the functions of `nn.functional` do."""


def softmin(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """The softmax of `-input` along `dim`."""
    return softmax(-input, _dim("softmin", dim, input._array.ndim, _stacklevel), dtype=dtype)


def gumbel_softmax(logits: Any, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Any:
    """A random softmax that approaches a one-hot choice as `tau` goes to 0 (Jang, Gu and Poole, 2017).

    Args:
        hard: Return the choice itself, with the gradient of the soft one.
    """
    noise = -log(logits.detach().clone(memory_format=contiguous_format).exponential_())
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    chosen = soft.detach() == soft.detach().amax(dim, True)
    return cast(chosen, dtype=soft._array.dtype) - soft.detach() + soft
