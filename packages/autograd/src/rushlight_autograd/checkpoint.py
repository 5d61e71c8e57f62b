"""Checkpointing: keep the inputs of a segment only, and run it again in the backward pass.

Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rushlight_autograd import engine
from rushlight_autograd.mode import enable_grad
from rushlight_tensor.dispatch import MODE, edge
from rushlight_tensor.graph import CustomNode, Slot
from rushlight_tensor.ops.cast import detach
from rushlight_tensor.random import default_generator
from rushlight_tensor.tensor import Tensor, wrap


class _Segment(CustomNode):
    """A segment of the graph that is known by its function and its inputs."""

    __slots__ = ("args", "fn", "kwargs", "rng")

    args: tuple[Any, ...]
    fn: Callable[..., Any]
    kwargs: dict[str, Any]
    rng: Tensor | None

    def name(self) -> str:
        return "CheckpointBackward"

    def apply(self, g: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        if engine.collecting():
            raise RuntimeError(
                "checkpoint: gradients of parameters inside cannot be returned by grad(); call backward() instead"
            )
        gs = g if isinstance(g, tuple) else (g,)
        now = None
        if self.rng is not None:
            now = default_generator.get_state()
            default_generator.set_state(self.rng)
        try:
            args, outs = _run(self.fn, self.args, self.kwargs)
        finally:
            if now is not None:
                default_generator.set_state(now)
        pairs = [
            (o, t)
            for o, t in zip(outs, gs, strict=True)
            if t is not None and isinstance(o, Tensor) and o._requires_grad
        ]
        engine.run([o for o, _ in pairs], [t for _, t in pairs], retain_graph=False, create_graph=False)
        return tuple(a.grad if isinstance(a, Tensor) and need else None for a, need in zip(args, needs, strict=True))


def _run(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], tuple[Any, ...]]:
    """Run the segment on detached inputs, recording; returns these inputs and the outputs."""
    inside = []
    for a in args:
        if isinstance(a, Tensor):
            d = detach(a)
            d._requires_grad = a._requires_grad
            inside.append(d)
        else:
            inside.append(a)
    with enable_grad():
        out = fn(*inside, **kwargs)
    return inside, out if isinstance(out, tuple) else (out,)


def checkpoint(
    fn: Any, *args: Any, use_reentrant: bool | None = None, preserve_rng_state: bool = True, **kwargs: Any
) -> Any:
    """`fn(*args)` without keeping what its gradient needs: the backward pass runs `fn` again.

    Args:
        fn: Must compute the same both times; random numbers are repeated when `preserve_rng_state`.
        use_reentrant: Accepted for PyTorch's signature; there is one implementation.
    Raises:
        RuntimeError: In the backward pass of `grad()`, which cannot see parameters used inside.
    """
    if not MODE.grad:
        return fn(*args, **kwargs)
    rng = default_generator.get_state() if preserve_rng_state else None
    _, outs = _run(fn, args, kwargs)
    several = len(outs) > 1
    if not any(isinstance(o, Tensor) and o._requires_grad for o in outs):
        return outs if several else outs[0]
    shapes: Any = tuple([o._array.shape if isinstance(o, Tensor) else () for o in outs])
    node = _Segment(tuple([edge(a) for a in args]), shapes if several else shapes[0])
    node.fn, node.args, node.kwargs, node.rng = fn, args, kwargs, rng
    results = []
    for i, o in enumerate(outs):
        if isinstance(o, Tensor) and o._requires_grad:
            fresh = wrap(o._array)
            fresh._node, fresh._requires_grad = (Slot(node, i, o._array.shape) if several else node), True
            results.append(fresh)
        else:
            results.append(o)
    return tuple(results) if several else results[0]
