"""User-defined differentiable functions: `class F(Function)` with a `forward` and a `backward` of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight_autograd import engine
from rushlight_autograd.mode import no_grad
from rushlight_tensor.core import cuda, dispatch, dtypes
from rushlight_tensor.core.dispatch import MODE, edge
from rushlight_tensor.core.graph import CustomNode, Slot, refill, stale_text, version, watch
from rushlight_tensor.core.inplace import rebase, touch, writable
from rushlight_tensor.core.tensor import ClosedView, Tensor, View, wrap
from rushlight_tensor.methods.gradient import type_name
from rushlight_tensor.ops.math.cast import cast, detach


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
        for i, t in enumerate(tensors):
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    f"save_for_backward can only save variables, but argument {i} is of type {type(t).__name__}"
                )
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

    __slots__ = ("ctx", "dtypes", "function", "outputs")

    ctx: FunctionCtx
    dtypes: tuple[Any, ...]
    function: type[Function]
    outputs: int

    def name(self) -> str:
        return f"{self.function.__name__}Backward"

    def unpacked(self) -> tuple[Any, ...]:
        """The saved tensors, with the outputs among them back in their place in the graph."""
        if self.saved is None:
            refill(self)
        assert self.saved is not None
        out: list[Any] = []
        for item, v in zip(self.saved, self.versions, strict=True):
            if isinstance(item, _Output):
                t = wrap(item.array)
                if self.stale:
                    raise RuntimeError(stale_text(t, self.function.__name__))
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
                wrap(cuda.like(like, np.zeros(shape, like.dtype))) if t is None and shape is not None else t
                for t, shape in zip(gs, shapes, strict=True)
            )
        self.ctx._node = lambda: self
        try:
            out = engine.users(self.function.backward, self.ctx, *gs)
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
        for x in grads:
            if x is not None and not isinstance(x, Tensor):
                raise RuntimeError(f"expected Variable or None (got {type_name(x)})")
        return tuple([
            self._of_input(i, x) if need and x is not None else None
            for i, (x, need) in enumerate(zip(grads, needs, strict=True))
        ])  # fmt: skip

    def _of_input(self, i: int, g: Tensor) -> Tensor:
        """The gradient of input `i` in its dtype; the engine sees to its shape."""
        got, want = g._array.dtype, self.dtypes[i]
        if got == want:
            return g
        if (got.kind == "c") != (want.kind == "c"):
            raise RuntimeError(
                f"function {self.name()} returned a gradient of dtype {dtypes.from_numpy(got)} for input {i} of dtype "
                f"{dtypes.from_numpy(want)}: one is complex, the other is not; return the real part"
            )
        return cast(g, dtype=want)


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
        if grad:
            _check_dirty(ctx._dirty, outs)
        for d in ctx._dirty:
            if grad:
                if d._requires_grad and d._node is None and d._view is None:
                    raise RuntimeError("a leaf Variable that requires grad has been used in an in-place operation.")
                writable(d)
            touch(d)
        if grad:
            of_inputs = tuple([a._array.dtype if isinstance(a, Tensor) else None for a in args])
            _record(cls, ctx, args, edges, outs, of_inputs)
        return outs if several else outs[0]


def _check_dirty(dirty: tuple[Tensor, ...], outs: tuple[Any, ...]) -> None:
    """Raise RuntimeError, as PyTorch, where a write could not be recorded."""
    if any(not any(d is o for o in outs) for d in dirty):
        raise RuntimeError(
            "Some elements marked as dirty during the forward method were not returned as output. The inputs that are "
            "modified inplace must all be outputs of the Function."
        )
    if len(outs) > 1 and any(d._view is not None for d in dirty):
        raise RuntimeError(
            "If your Function modifies inplace an input that is a view of another Tensor, your Function cannot return "
            "more than one Tensor. This is not supported by the current autograd engine. You should either make sure "
            "the input is not a view (using .clone() for example) or make your Function only return one Tensor "
            "(potentially splitting it into two Functions: one doing the inplace that returns a single Tensor and a "
            "second one that does the other operations)."
        )


def _record(
    cls: type[Function], ctx: FunctionCtx, args: tuple[Any, ...], edges: tuple[Any, ...], outs: tuple[Any, ...],
    of_inputs: tuple[Any, ...],
) -> None:  # fmt: skip
    tensors = [o for o in outs if isinstance(o, Tensor)]
    if not tensors:
        return
    shapes: Any = tuple([o._array.shape if isinstance(o, Tensor) else None for o in outs])
    node = FunctionNode(edges, shapes[0] if len(outs) == 1 else shapes)
    node.function, node.ctx, node.outputs, node.dtypes = cls, ctx, len(outs), of_inputs
    saved: list[Any] = []
    versions: list[int | None] = []
    for t in ctx._save:
        index = next((i for i, o in enumerate(outs) if o is t), None)
        saved.append(t if index is None else _Output(t._array, index))
        versions.append(version(t) if index is None and isinstance(t, Tensor) else None)
        if index is not None:
            watch(t, node)
    node.saved, node.versions = tuple(saved), tuple(versions)
    dirty = ctx._dirty
    ctx._save = ctx._dirty = ()
    constant, ctx._constant = ctx._constant, ()
    if (at := dispatch.INTERCEPT) is not None:
        at.recorded(node)
    for i, o in enumerate(outs):
        if isinstance(o, Tensor) and o._array.dtype.kind in "fcV" and not any(o is c for c in constant):
            made: Any = node if len(outs) == 1 else Slot(node, i, o._array.shape)
            if any(o is d for d in dirty):
                rebase(o, made, next(k for k, a in enumerate(args) if a is o))
                continue
            o._node, o._requires_grad = made, True
            if o._view is not None:
                o._view = _made_inside(o._view, "function" if len(tensors) == 1 else "many")


def _made_inside(view: View, why: str) -> View:
    """The record of a view that `forward` returns: whoever wrote to it would bypass the function's own gradient."""
    parent = view.parent
    closed = ClosedView(parent, view.op, view.attrs, why)
    closed.root = parent if closed.root is None else closed.root
    return closed
