"""Numerical checks of gradients: central differences against what the graph says, in float64.

A complex number is two real ones here, in inputs and in outputs: the Jacobian has a row for each part of an input and
a column for each part of an output.  The gradient of the real part of an output comes from the seed 1, that of its
imaginary part from the seed i, and holds the rows of both parts of the input: Note [Complex gradients] in `graph.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rushlight_autograd.api import grad
from rushlight_autograd.mode import enable_grad, no_grad
from rushlight_tensor.core import cuda
from rushlight_tensor.core.tensor import Tensor, wrap


class GradcheckError(RuntimeError):
    """A gradient differs from its numerical estimate; the message says where and by how much."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
) -> bool:
    """Whether the gradients of `func(*inputs)` agree with central differences.

    Args:
        func: Returns a tensor or a tuple of tensors.
        inputs: Those that require grad are varied; they should be float64 or complex128.
        eps: Step of the differences.
        raise_exception: Raise GradcheckError instead of returning False.
    """
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    wanted = [a for a in args if isinstance(a, Tensor) and a._requires_grad]
    if not wanted:
        raise ValueError("gradcheck expects at least one input tensor to require gradient")
    try:
        _check(func, args, wanted, eps, atol, rtol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether the second derivatives of `func(*inputs)` agree with central differences of its gradients."""
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    wanted = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a._requires_grad]
    outs = [o for o in _outputs(func, args) if o._requires_grad]
    rng = np.random.default_rng(0)
    if grad_outputs is None:
        given = [wrap(cuda.like(o._array, _random(rng, o._array))) for o in outs]
    else:
        given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    for g in given:
        g._requires_grad = True

    def gradients(*both: Any) -> tuple[Any, ...]:
        xs, gs = both[: len(args)], both[len(args) :]
        with enable_grad():
            roots = [o for o in _outputs(func, xs) if o._requires_grad]
            found = grad(roots, [xs[i] for i in wanted], gs, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None and g._requires_grad)

    if not gradients(*args, *given):
        return True
    return gradcheck(gradients, (*args, *given), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception)


def _random(rng: np.random.Generator, like: Any) -> Any:
    values = np.asarray(rng.standard_normal(like.shape))
    return np.asarray(values + 1j * rng.standard_normal(like.shape)) if like.dtype.kind == "c" else values


def _parts(array: Any) -> np.ndarray[Any, Any]:
    """The real numbers in an array, as a vector: real and imaginary parts in turn."""
    host = cuda.to_host(array)
    if host.dtype.kind == "c":
        return np.array(host, np.complex128).reshape(-1).view(np.float64)
    return np.array(host, np.float64).reshape(-1)


def _directions(array: Any) -> tuple[complex, ...]:
    return (1, 1j) if array.dtype.kind == "c" else (1,)


def _outputs(func: Callable[..., Any], args: tuple[Any, ...]) -> list[Tensor]:
    out = func(*args)
    outs = out if isinstance(out, (tuple, list)) else (out,)
    return [o for o in outs if isinstance(o, Tensor) and o._array.dtype.kind in "fc"]


def _check(func: Any, args: tuple[Any, ...], wanted: list[Tensor], eps: float, atol: float, rtol: float) -> None:
    outs = _outputs(func, args)
    for k, out in enumerate(outs):
        numerical = [_differences(func, args, x, k, eps) for x in wanted]
        seeds = [(j, by) for j in range(out._array.size) for by in _directions(out._array)]
        analytic = [np.zeros((_parts(x._array).size, len(seeds))) for x in wanted]
        if out._requires_grad:
            for column, (j, by) in enumerate(seeds):
                seed = np.zeros(out._array.shape, out._array.dtype)
                seed.reshape(-1)[j] = by
                found = grad(out, wanted, wrap(cuda.like(out._array, seed)), retain_graph=True, allow_unused=True)
                for i, g in enumerate(found):
                    if g is not None:
                        analytic[i][:, column] = _parts(g._array)
        for i, (n, a) in enumerate(zip(numerical, analytic, strict=True)):
            if not np.allclose(a, n, rtol=rtol, atol=atol, equal_nan=True):
                worst = float(np.nanmax(np.abs(a - n)))
                raise GradcheckError(
                    f"Jacobian mismatch for output {k} with respect to input {i} (largest difference {worst:.3g}),\n"
                    f"numerical:\n{n}\nanalytical:\n{a}"
                )


def _differences(func: Any, args: tuple[Any, ...], x: Tensor, k: int, eps: float) -> np.ndarray[Any, Any]:
    """The Jacobian of output `k` by central differences, a row per part of `x` (changed in place and put back)."""
    rows = []
    with no_grad():
        for index in np.ndindex(x._array.shape):
            was = x._array[index].copy()
            for by in _directions(x._array):
                sides = []
                for step in (eps, -eps):
                    x._array[index] = was + step * by
                    sides.append(_parts(_outputs(func, args)[k]._array))
                rows.append((sides[0] - sides[1]) / (2 * eps))
            x._array[index] = was
    return np.array(rows).reshape(len(rows), sides[0].size if rows else 0)
