"""User-defined differentiable functions: `class F(Function)` with a `forward` and a `backward` of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_autograd.mode import no_grad
from rushlight_tensor import cuda, dispatch
from rushlight_tensor.dispatch import MODE, edge
from rushlight_tensor.graph import CustomNode, Slot, stale_text, version
from rushlight_tensor.inplace import touch
from rushlight_tensor.ops.cast import detach
from rushlight_tensor.tensor import Tensor, wrap


class FunctionCtx:
    """What `forward` leaves for `backward`: saved tensors, and any attribute that the user sets."""

    needs_input_grad: tuple[bool, ...]

    def __init__(self) -> None:
        self._save: tuple[Any, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._constant: tuple[Tensor, ...] = ()
        self._materialize = True
        self._node: Any = None

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep inputs or outputs for `backward`, with a check that they are not changed in place meanwhile."""
        self._save = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say that `forward` changed these inputs in place."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that these outputs have no gradient."""
        self._constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` gets zeros (the default) or `None` for outputs that were not used."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved.  Raises RuntimeError when it was freed, or changed in place since."""
        return self._node().unpacked()


class FunctionNode(CustomNode):
    """A call of a user's function in the graph."""

    __slots__ = ("ctx", "function", "outputs")

    ctx: FunctionCtx
    function: type[Function]
    outputs: int

    def name(self) -> str:
        return f"{self.function.__name__}Backward"

    def unpacked(self) -> tuple[Any, ...]:
        """The saved tensors, with the outputs among them back in their place in the graph."""
        if self.saved is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved tensors after they have "
                "already been freed). Specify retain_graph=True if you need to backward through the "
                "graph a second time."
            )
        out: list[Any] = []
        for item, v in zip(self.saved, self.versions, strict=True):
            if isinstance(item, _Output):
                t = wrap(item.array)
                if MODE.grad:
                    t._node, t._requires_grad = (
                        (self if self.outputs == 1 else Slot(self, item.index, item.array.shape)),
                        True,
                    )
                out.append(t)
            else:
                if v is not None and version(item) != v:
                    raise RuntimeError(stale_text(item, self.function.__name__))
                out.append(item)
        return tuple(out)

    def apply(self, g: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        gs = g if isinstance(g, tuple) else (g,)
        shapes = self.shape if isinstance(g, tuple) else (self.shape,)
        if self.ctx._materialize:
            like = next(t for t in gs if t is not None)._array
            gs = tuple(
                wrap(cuda.like(like, np.zeros(shape, like.dtype))) if t is None else t
                for t, shape in zip(gs, shapes, strict=True)
            )
        self.ctx._node = lambda: self
        try:
            out = self.function.backward(self.ctx, *gs)
        finally:
            self.ctx._node = None  # or node and context would hold each other
        grads = out if isinstance(out, tuple) else (out,)
        if len(grads) > len(needs) and all(x is None for x in grads[len(needs) :]):
            grads = grads[: len(needs)]
        if len(grads) != len(needs):
            raise RuntimeError(
                f"function {self.name()} returned an incorrect number of gradients (expected "
                f"{len(needs)}, got {len(grads)})"
            )
        return tuple(x if need else None for x, need in zip(grads, needs, strict=True))


class _Output:
    """An output that was saved: its array, and which one it is."""

    __slots__ = ("array", "index")

    def __init__(self, array: Any, index: int) -> None:
        self.array, self.index = array, index


class Function:
    """Base of user-defined functions: override `forward(ctx, …)` and `backward(ctx, *grads)`, call with `apply(…)`.

    Also PyTorch's second form: `forward(…)` without ctx, and `setup_context(ctx, inputs, output)`.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute the outputs.  Operations inside are not recorded."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Fill the context, in the form where `forward` does not get it."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """One gradient per argument of `forward`, `None` where there is none."""
        raise NotImplementedError("You must implement the backward function for use with autograd.Function.")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run the function and record it."""
        ctx = FunctionCtx()
        grad = MODE.grad and any(isinstance(a, Tensor) and a._requires_grad for a in args)
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a._requires_grad for a in args)
        edges = tuple([edge(a) for a in args])
        with no_grad():
            if cls.setup_context is Function.setup_context:
                result = cls.forward(ctx, *args, **kwargs)
            else:
                result = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, result)
        several = isinstance(result, tuple)
        outs = tuple(result) if several else (result,)
        outs = tuple(
            detach(o) if any(o is a for a in args) and not any(o is d for d in ctx._dirty) else o for o in outs
        )
        for d in ctx._dirty:
            touch(d)
        if grad:
            _record(cls, ctx, edges, outs)
        return outs if several else outs[0]


def _record(cls: type[Function], ctx: FunctionCtx, edges: tuple[Any, ...], outs: tuple[Any, ...]) -> None:
    tensors = [o for o in outs if isinstance(o, Tensor)]
    if not tensors:
        return
    shapes: Any = tuple([o._array.shape if isinstance(o, Tensor) else () for o in outs])
    node = FunctionNode(edges, shapes[0] if len(outs) == 1 else shapes)
    node.function, node.ctx, node.outputs = cls, ctx, len(outs)
    saved: list[Any] = []
    versions: list[int | None] = []
    for t in ctx._save:
        index = next((i for i, o in enumerate(outs) if o is t), None)
        saved.append(t if index is None else _Output(t._array, index))
        versions.append(version(t) if index is None and isinstance(t, Tensor) else None)
    node.saved, node.versions = tuple(saved), tuple(versions)
    ctx._save = ctx._dirty = ()
    constant, ctx._constant = ctx._constant, ()
    if dispatch.INTERCEPT is not None:
        dispatch.INTERCEPT.recorded(node)
    for i, o in enumerate(outs):
        if isinstance(o, Tensor) and o._array.dtype.kind in "fcV" and not any(o is c for c in constant):
            o._node = node if len(outs) == 1 else Slot(node, i, o._array.shape)
            o._requires_grad = True
