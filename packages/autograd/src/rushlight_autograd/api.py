"""`backward` and `grad`: what the user says, checked and handed to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rushlight_autograd import engine
from rushlight_tensor.core import cuda
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.create import zeros_like
from rushlight_tensor.ops.math.cast import cast


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradients of `tensors` to `.grad` of the leaves.

    Args:
        tensors: Roots; each needs a gradient of its own shape unless it has one element.
        grad_tensors: Gradients of the roots; `None` stands for 1.
        retain_graph: Keep the graph for another pass; defaults to `create_graph`.
        create_graph: Record the pass, for higher derivatives.
        inputs: Store gradients in these leaves only.
    Raises:
        RuntimeError: A root that requires no grad, or has several elements and no gradient.
    """
    roots = _sequence(tensors)
    grads = _roots_grads(roots, grad_tensors)
    keep = create_graph if retain_graph is None else retain_graph
    if inputs is None:
        engine.run(roots, grads, retain_graph=keep, create_graph=create_graph)
        return
    leaves = _sequence(inputs)
    if not leaves:
        raise RuntimeError("'inputs' argument to backward() cannot be empty.")
    for leaf, g in zip(
        leaves, engine.run(roots, grads, retain_graph=keep, create_graph=create_graph, inputs=leaves), strict=True
    ):
        if g is not None:
            leaf._grad = g if leaf.grad is None else leaf.grad + g


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of `outputs` with respect to `inputs`; nothing is stored in `.grad`.

    Raises:
        RuntimeError: An input that requires no grad, or that no output depends on (unless `allow_unused`).
    """
    if is_grads_batched:
        raise RuntimeError("grad: is_grads_batched=True is not supported; call grad once per row of grad_outputs")
    roots, wanted = _sequence(outputs), _sequence(inputs)
    for t in wanted:
        if not t._requires_grad:
            raise RuntimeError("One of the differentiated Tensors does not require grad")
    grads = _roots_grads(roots, grad_outputs)
    keep = create_graph if retain_graph is None else retain_graph
    found = engine.run(roots, grads, retain_graph=keep, create_graph=create_graph, inputs=wanted)
    if materialize_grads:
        found = [zeros_like(t) if g is None else g for t, g in zip(wanted, found, strict=True)]
    if any(g is None for g in found) and not allow_unused:
        raise RuntimeError(
            "One of the differentiated Tensors appears to not have been used in the graph. Set allow_unused=True if "
            "this is the desired behavior."
        )
    return tuple(found)


def _sequence(x: Any) -> list[Tensor]:
    return [x] if isinstance(x, Tensor) else list(x)


def _roots_grads(roots: list[Tensor], given: Any) -> list[Tensor]:
    gs = [None] * len(roots) if given is None else [given] if isinstance(given, Tensor) else list(given)
    if len(gs) != len(roots):
        raise RuntimeError(f"got {len(roots)} tensors and {len(gs)} gradients")
    out = []
    for i, (root, g) in enumerate(zip(roots, gs, strict=True)):
        if not root._requires_grad:
            raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn")
        fits = isinstance(g, Tensor) and g._array.shape == root._array.shape
        if fits and g._array.dtype is root._array.dtype:
            pass  # nothing to check or to cast: most gradients
        elif g is None:
            if root._array.size != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            if root._array.dtype.kind == "c":
                raise RuntimeError(
                    f"grad can be implicitly created only for real scalar outputs but got torch.{root.dtype.name}"
                )
            one = np.array(1, root._array.dtype)  # a fifth of what np.ones costs
            g = wrap(cuda.like(root._array, one.reshape(root._array.shape)))
        elif not isinstance(g, Tensor):
            raise TypeError(f"gradients can be either Tensors or None, but got {type(g).__name__}")
        elif not fits:
            raise RuntimeError(
                f"Mismatch in shape: grad_output[{i}] has a shape of {g.shape} and output[{i}] has a "
                f"shape of {root.shape}."
            )
        elif g._array.dtype != root._array.dtype and "c" in (g._array.dtype.kind, root._array.dtype.kind):
            raise RuntimeError(
                "For complex Tensors, both grad_output and output are required to have the same dtype. Mismatch in "
                f"dtype: grad_output[{i}] has a dtype of {g.dtype} and output[{i}] has a dtype of {root.dtype}."
            )
        elif g._array.dtype != root._array.dtype:
            g = cast(g, dtype=root._array.dtype)
        out.append(g)
    return out
