"""Gradient clipping, by total norm or by value.

The total norm and the scaling are one op each over all gradients; the factor between them stays a tensor, so nothing
waits for its value and a traced step contains it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rushlight_autograd import no_grad
from rushlight_tensor import Tensor
from rushlight_tensor.core import kinds
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.inplace import mutate
from rushlight_tensor.core.op import Op
from rushlight_tensor.kernels import optim as kernels
from rushlight_tensor.kernels.columns import Columns
from rushlight_tensor.ops.create import zeros


def _total_norm_aval(*xs: Any, norm_type: float = 2.0) -> Aval:
    if norm_type < 0 and any(0 in x.shape for x in xs):
        raise RuntimeError(
            f"linalg.vector_norm cannot compute the {norm_type:g} norm on an empty tensor because the operation does "
            "not have an identity"
        )
    return Aval((), kernels.norm_dtype(*xs))


total_norm = Op(
    "total_norm",
    kind=kinds.opaque("one number of tensors of different shapes"),
    infer=_total_norm_aval,
    numpy=kernels.total_norm,
    c=Columns("optim", "norm_of_all", when=lambda norm_type: norm_type == 2),
    vjp=None,
)


def _scale_out(*xs: Any) -> tuple[()]:
    return ()


scale_all = Op(
    "scale_all",
    kind=kinds.opaque("many tensors of different shapes"),
    writes=lambda count: count - 1,
    infer=_scale_out,
    numpy=kernels.scale_all,
    c=Columns("optim", "scale"),
    vjp=None,
)
"""Multiplies all its inputs but the last, in place, by the last, a 0-d tensor."""


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    params: Iterable[Tensor] = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p.grad for p in params if p.grad is not None]


@no_grad()
def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """The norm of all elements of all tensors together, a 0-d tensor of their common dtype, real.

    Args:
        tensors: One or more tensors.
        norm_type: p of the p-norm; ±inf for the largest and smallest magnitude.
        error_if_nonfinite: Raise RuntimeError where the norm is nan or inf.
        foreach: Accepted for compatibility.
    """
    xs = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not xs:
        return zeros(())
    norm: Tensor = total_norm(*xs, norm_type=float(norm_type))
    if error_if_nonfinite and not math.isfinite(float(norm)):
        raise RuntimeError(
            f"The total norm of order {float(norm_type)} for gradients from `parameters` is non-finite, so it cannot "
            "be clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return norm


@no_grad()
def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale the gradients of `parameters` by max_norm / (total_norm + 1e-6), if that is below 1."""
    grads = _gradients(parameters)
    if grads:
        factor = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)
        mutate(scale_all, (*grads, factor), {})


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:  # fmt: skip
    """Scale the gradients of `parameters` so that their total norm is at most `max_norm`; returns the norm before.

    Args:
        parameters: A tensor or tensors; those without gradient are skipped.
        max_norm: The largest norm.
        norm_type: p of the p-norm.
        error_if_nonfinite: Raise RuntimeError where the norm is nan or inf.
        foreach: Accepted for compatibility.
    """
    params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    norm = get_total_norm(_gradients(params), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(params, max_norm, norm)
    return norm


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Limit every element of the gradients of `parameters` to [-clip_value, clip_value], in place."""
    for grad in _gradients(parameters):
        grad.clamp_(min=-float(clip_value), max=float(clip_value))
