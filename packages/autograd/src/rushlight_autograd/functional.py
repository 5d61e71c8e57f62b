"""Derivatives of functions: Jacobian, Hessian, and their products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_autograd.api import grad
from rushlight_autograd.mode import enable_grad
from rushlight_tensor.core import cuda
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.create import ones_like, zeros_like
from rushlight_tensor.ops.math.cast import clone, detach
from rushlight_tensor.ops.shape.join import stack


def _leaves(inputs: Any) -> tuple[Tensor, ...]:
    out = []
    for x in (inputs,) if isinstance(inputs, Tensor) else tuple(inputs):
        leaf = clone(detach(x))
        leaf.requires_grad = True
        out.append(leaf)
    return tuple(out)


def _zeros(x: Tensor) -> Tensor:
    return zeros_like(x)


def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False) -> Any:
    """d func / d inputs: shape (*output, *input) for each output and input, nested in tuples as PyTorch does."""
    with enable_grad():
        xs = _leaves(inputs) if not create_graph else ((inputs,) if isinstance(inputs, Tensor) else tuple(inputs))
        out = func(*xs)
    blocks = []
    for y in out if isinstance(out, tuple) else (out,):
        rows: list[list[Any]] = [[] for _ in xs]
        for j in range(y._array.size):
            seed = np.zeros(y._array.shape, y._array.dtype)
            seed.reshape(-1)[j] = 1
            found = grad(
                y, xs, wrap(cuda.like(y._array, seed)), retain_graph=True, create_graph=create_graph, allow_unused=True
            )
            for row, x, g in zip(rows, xs, found, strict=True):
                row.append(_zeros(x) if g is None else g)
        blocks.append(tuple(_stacked(row, y, x) for row, x in zip(rows, xs, strict=True)))
    per_output = [b[0] if isinstance(inputs, Tensor) else b for b in blocks]
    return tuple(per_output) if isinstance(out, tuple) else per_output[0]


def _stacked(rows: list[Tensor], y: Tensor, x: Tensor) -> Tensor:
    shape = (*y._array.shape, *x._array.shape)
    return stack(rows).reshape(shape) if rows else x.new_zeros(shape)


def hessian(func: Callable[..., Any], inputs: Any) -> Any:
    """The second derivatives of a scalar function, nested as the Jacobian of its gradient."""
    single = isinstance(inputs, Tensor)

    def gradient(*xs: Tensor) -> Any:
        with enable_grad():
            found = grad(func(*xs), xs, create_graph=True, allow_unused=True)
        gs = tuple(_zeros(x) if g is None else g for x, g in zip(xs, found, strict=True))
        return gs[0] if single else gs

    return jacobian(gradient, inputs)


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None) -> tuple[Any, Any]:
    """(func(*inputs), v^T J); `v` may be left out for a scalar output."""
    with enable_grad():
        xs = _leaves(inputs)
        out = func(*xs)
    found = grad(out, xs, v, allow_unused=True, materialize_grads=True)
    return detach(out), found[0] if isinstance(inputs, Tensor) else found


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None) -> tuple[Any, Any]:
    """(func(*inputs), J v), by differentiating the product with a dummy vector twice."""
    with enable_grad():
        xs = _leaves(inputs)
        out = func(*xs)
        dummy = _zeros(out)
        dummy.requires_grad = True
        pulled: Any = grad(out, xs, dummy, create_graph=True, allow_unused=True, materialize_grads=True)
        vs = [ones_like(x) for x in xs] if v is None else [v] if isinstance(v, Tensor) else list(v)
        parts = [(p * w).sum() for p, w in zip(pulled, vs, strict=True) if p._requires_grad]
    if not parts:
        return detach(out), _zeros(out)
    total = parts[0]
    for p in parts[1:]:
        total = total + p
    (g,) = grad(total, dummy, allow_unused=True, materialize_grads=True)
    return detach(out), g


def hvp(func: Callable[..., Any], inputs: Any, v: Any) -> tuple[Any, Any]:
    """(func(*inputs), H v) for a scalar function."""
    with enable_grad():
        xs = _leaves(inputs)
        out = func(*xs)
        gs: Any = grad(out, xs, create_graph=True, allow_unused=True, materialize_grads=True)
    vs = (v,) if isinstance(v, Tensor) else tuple(v)
    found = grad(gs, xs, vs, allow_unused=True, materialize_grads=True)
    return detach(out), found[0] if isinstance(inputs, Tensor) else found
