"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from rushlight_tensor import Tensor
from rushlight_tensor.ops.shape.join import cat


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of all parameters, one after the other, as a 1-d tensor; differentiable."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Set the parameters from a vector as `parameters_to_vector` makes it.  Raises TypeError if `vec` is no tensor."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {type(vec).__name__}")
    start = 0
    for p in parameters:
        end = start + p.numel()
        p.data = vec[start:end].view(p.shape).data
        start = end
