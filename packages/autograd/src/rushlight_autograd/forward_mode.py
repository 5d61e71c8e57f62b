"""Forward mode: a tangent travels with each tensor, `jvp` of a function is what arrives with its results.

Where the tangents of an op come from, in the order in which it is asked (`rule_of`):

    `jvp` of the record          its own rule
    view                         the op itself, of the tangent
    linear in each input         the op with one input replaced by its tangent, summed
    elementwise, real            each rule of the gradient, of the tangent: the Jacobian is diagonal, so it is symmetric
    all others                   the gradient, which is linear in what comes in, differentiated with respect to that
    no gradient                  no tangent
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_autograd.api import grad
from rushlight_autograd.levels import Level, at, decomposed, leaf, results, said
from rushlight_autograd.mode import enable_grad
from rushlight_tensor.core import cuda, dispatch, inplace, kinds
from rushlight_tensor.core.abstract import AbstractArray
from rushlight_tensor.core.dispatch import MODE, node_for
from rushlight_tensor.core.graph import pull, rules
from rushlight_tensor.core.labels import contiguous_format
from rushlight_tensor.core.layout import PrivateOrder
from rushlight_tensor.core.lifted import Lifted, bottom, spread
from rushlight_tensor.core.promote import category
from rushlight_tensor.core.structure import flatten, leaves_of, unflatten, without_leaves
from rushlight_tensor.core.tensor import Tensor, View, wrap
from rushlight_tensor.ops.math.cast import cast, clone
from rushlight_tensor.ops.math.elementwise import _add as add
from rushlight_tensor.ops.reduce.reduce import sum_to_size
from rushlight_tensor.ops.shape.shape import expand

Tangents = list[Tensor | None]
Rule = Callable[[Any, tuple[Any, ...], Tangents, tuple[Tensor, ...], dict[str, Any]], Any]


class Dual(Lifted):
    """A tensor and its tangent; None is a tangent of zeros.  A view knows its `source`, which may get one later."""

    __slots__ = ("_tangent", "source")

    def __init__(self, level: Any, value: Tensor, tangent: Tensor | None, source: Any = None) -> None:
        super().__init__(level, value, value._array.shape)
        self._tangent, self.source = tangent, source

    @property
    def tangent(self) -> Tensor | None:
        if self._tangent is None and self.source is not None:
            base, op, attrs, i = self.source
            if base.tangent is not None:
                self._tangent = results(op, (base.tangent,), attrs)[i]
        return self._tangent

    def writable_tangent(self) -> Tensor:
        """The tangent's memory, which that of a view shares with its base."""
        if self.tangent is None:
            if self.source is None:
                self._tangent = _zeros(self.value)
            else:
                self.source[0].writable_tangent()
        found = self.tangent
        assert found is not None
        return found


class Forward(Level):
    """A running `jvp`.

    Note [Tangents that are written]
        `b = zeros(3); b[0] = x` gives `b` a tangent.  Before the write `b`, what it is a view of, and the other views
        of that become tensors of this level, all on the memory that they have; when the level ends they are given back
        their arrays, which hold the values.
    """

    def __init__(self) -> None:
        self._taken_in: list[tuple[Tensor, Any]] = []

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        for x, array in self._taken_in:
            x._array = array

    def receive(self, x: Tensor) -> None:
        base = x if x._view is None else x._view.base
        if x._requires_grad or base._requires_grad:
            raise RuntimeError("jvp: a tensor with a tangent is written into one from outside that requires grad")
        views = [v for v in gc.get_referrers(base) if isinstance(v, View) and v.base is base]
        for t in (x, *gc.get_referrers(*views)) if views else (x,):
            if isinstance(t, Tensor) and (t is x or t._view in views):
                self._take_in(t)

    def _take_in(self, x: Tensor) -> Dual:
        """`x` and what it is a view of as tensors of this level."""
        a = x._array
        if isinstance(a, Dual) and a.level is self:
            return a
        self._taken_in.append((x, a))
        view = x._view
        if view is None:
            x._array = Dual(self, wrap(a), None)
        else:
            parent = self._take_in(view.parent)
            with at(self.below):
                shown = results(view.op, (parent.value,), view.attrs)
            i = next(i for i, z in enumerate(shown) if z._array.shape == a.shape and _address(z._array) == _address(a))
            x._array = Dual(self, shown[i], None, (parent, view.op, view.attrs, i))
        return x._array

    def __repr__(self) -> str:
        return "jvp"

    def lift(self, x: Tensor) -> Dual:
        return Dual(self, x, None)

    def read(self, array: Lifted, by: str) -> Any:
        with at(self.below):
            return dispatch.look(array.value, by)

    def run(self, op: Any, xs: list[Any], attrs: dict[str, Any]) -> Any:
        if op.vjp is None and op.forward is not None and any(isinstance(x, Dual) and x.tangent is not None for x in xs):
            return decomposed(self, op, xs, attrs)
        with at(self.below):
            values = tuple([x.value if isinstance(x, Dual) else x for x in xs])
            outs = results(op, values, attrs)
            tangents = self._tangents(op, xs, values, outs, attrs)
        if op.view and op.vjp is not None and tangents[0] is None:  # `detach` cuts: what it shows has no tangent
            duals = [Dual(self, z, None, (xs[0], op, attrs, i)) for i, z in enumerate(outs)]
        else:
            duals = [Dual(self, z, t) for z, t in zip(outs, tangents, strict=True)]
        return tuple(duals) if op.side_results or len(duals) > 1 or said(op, xs, attrs)[1] else duals[0]

    def _tangents(
        self, op: Any, xs: list[Any], values: Any, outs: tuple[Tensor, ...], attrs: dict[str, Any]
    ) -> Tangents:
        given = [x.tangent if isinstance(x, Dual) else None for x in xs]
        if all(t is None for t in given) or op.vjp is None:
            return [None] * len(outs)
        made = rule_of(op, values, outs)(op, values, given, outs, attrs)
        made = made if isinstance(made, (tuple, list)) else (made,)
        made = [_fitting(t, z) for t, z in zip(made, outs, strict=False)]
        if not op.view:  # a rule may hand on what it was given, and who writes into one tangent must not change two
            made = [clone(t) if t is not None and any(_shares(t, g) for g in given) else t for t in made]
            made = [t if t is None else _lying_as(t, z) for t, z in zip(made, outs, strict=False)]
        return [*made, *[None] * (len(outs) - len(made))]

    def write(self, op: Any, xs: list[Any], attrs: dict[str, Any]) -> None:
        with at(self.below):
            values = tuple([x.value if isinstance(x, Dual) else x for x in xs])
            tangent = None
            if any(isinstance(x, Dual) and x.tangent is not None for x in xs):
                outs = results(op, values, attrs)
                tangent = self._tangents(op, xs, values, outs, attrs)[0]
                memory = xs[0].writable_tangent()
                inplace.inplace(dispatch.COPY, memory, _zeros(memory) if tangent is None else tangent)
                inplace.inplace(dispatch.COPY, values[0], outs[0])
            else:
                inplace.inplace(op, *values, **attrs)

    def mutate(self, op: Any, xs: list[Any], attrs: dict[str, Any]) -> None:
        if any(x.tangent is not None for x in xs[: op.written(len(xs), attrs)]):
            raise RuntimeError(f"jvp: {op.name} writes into a tensor that has a tangent, and has no derivative itself")
        with at(self.below):
            inplace.mutate(op, tuple([x.value for x in xs]), attrs)


def _address(array: Any) -> int:
    return cuda.address(bottom(array))


def _lying_as(tangent: Tensor, x: Tensor) -> Tensor:
    """A tangent with the strides of its tensor, so that each view of that is one of the tangent, too."""
    a, like = tangent._array, x._array
    if not like.size or type(like) is PrivateOrder or type(a) is PrivateOrder:  # which have the order of their indices
        return tangent
    moves = [(n, s, step) for n, s, step in zip(like.shape, a.strides, like.strides, strict=True) if n > 1]
    if all(s == step for _, s, step in moves):
        return tangent
    if any(not step for *_, step in moves):  # expanded: elements of one memory, which may have different tangents
        return clone(tangent, memory_format=contiguous_format)
    spread: Tensor = dispatch.SPREAD(tangent, stride=tuple([s // like.itemsize for s in like.strides]))
    return spread


def _shares(x: Tensor, y: Tensor | None) -> bool:
    if y is None:
        return False
    a, b = bottom(x._array), bottom(y._array)
    return not isinstance(a, AbstractArray) and bool(np.may_share_memory(a, b))


def _zeros(x: Tensor) -> Tensor:
    a = x._array
    return spread(expand(wrap(cuda.like(a, np.zeros((), a.dtype))), a.shape).clone(), a)


def _fitting(tangent: Tensor | None, out: Tensor) -> Tensor | None:
    """A tangent in the dtype and shape of what it belongs to, or None where that has none."""
    if tangent is None or category(out._array.dtype) < 2:
        return None
    if tangent._array.dtype != out._array.dtype:
        tangent = cast(tangent, dtype=out._array.dtype)
    if tangent._array.shape != out._array.shape:
        tangent = expand(tangent, out._array.shape)
    return tangent


# ---------------------------------------------------------------------------------------------------------- the rules


def rule_of(op: Any, xs: Any, outs: tuple[Tensor, ...]) -> Rule:
    """How tangents go through an op of such inputs and results."""
    if op.jvp is not None:
        return op.jvp
    if isinstance(op.kind, kinds.View):
        return itself
    if isinstance(op.kind, kinds.Linear):
        return one_by_one
    complexes = any(isinstance(t, Tensor) and t._array.dtype.kind == "c" for t in (*xs, *outs))
    if isinstance(op.kind, kinds.Elementwise) and not (complexes and op.wirtinger):
        return by_rules
    return twice


def itself(op: Any, xs: Any, tangents: Tangents, outs: tuple[Tensor, ...], attrs: dict[str, Any]) -> Any:
    """Of an op that is linear in the inputs that have tangents, together: the op of these."""
    moved = [
        x if not isinstance(x, Tensor) or category(x._array.dtype) < 2 else _zeros(x) if t is None else t
        for x, t in zip(xs, tangents, strict=True)
    ]
    return results(op, tuple(moved), attrs)


def one_by_one(op: Any, xs: Any, tangents: Tangents, outs: tuple[Tensor, ...], attrs: dict[str, Any]) -> Any:
    """Of a product: the op with each of the first two inputs replaced by its tangent; a third is added."""
    bias = tangents[2] if len(xs) > 2 else None
    total: Any = None
    for i, t in enumerate(tangents[:2]):
        if t is not None:
            moved = (*xs[:i], t, *xs[i + 1 : 2], *(bias if k == 2 else None for k in range(2, len(xs))))
            (part,) = results(op, moved, attrs)
            total, bias = part if total is None else add(total, part), None
    if total is None:
        (total,) = results(op, (_zeros(xs[0]), xs[1], bias), attrs)
    return total


def by_rules(op: Any, xs: Any, tangents: Tangents, outs: tuple[Tensor, ...], attrs: dict[str, Any]) -> Any:
    """Of an elementwise op: the sum of what its gradient's rules make of the tangents."""
    total: Any = None
    recorded = MODE.grad and _any_requires_grad(*xs)
    for i, t in enumerate(tangents):
        if t is None:
            continue
        rule = op.vjp[i] if isinstance(op.vjp, tuple) else None
        if isinstance(op.vjp, tuple) and rule is None:
            continue
        node = node_for(op, xs, attrs, tuple([o._array for o in outs]))
        wanted = [x if k == i else None for k, x in enumerate(xs)]
        part = rules(node, t, wanted, recorded)[i]
        part = _fitting(part, outs[0])
        if part is not None:
            total = part if total is None else add(total, part)
    return total


def twice(op: Any, xs: Any, tangents: Tangents, outs: tuple[Tensor, ...], attrs: dict[str, Any]) -> Any:
    """The gradient g → Jᵀg is linear in g: its own gradient with respect to g, for the tangents, is J t."""
    recorded, wants = MODE.grad, _any_requires_grad(*xs, *tangents)
    with enable_grad():
        seeds: list[Any] = [_seed(z) for z in (outs[:1] if op.side_results else outs)]
        node = node_for(op, xs, attrs, tuple([o._array for o in outs]))
        several = len(outs) > 1 and not op.side_results
        wanted = [None if t is None else x for x, t in zip(xs, tangents, strict=True)]
        found = pull(node, tuple(seeds) if several else seeds[0], wanted, True)
        pairs = [(v, t) for v, t in zip(found, tangents, strict=False) if v is not None and t is not None]
        pairs = [(_summed(v, t), t) for v, t in pairs if v._requires_grad]
        leaves = [s for s in seeds if s is not None]
        if not pairs or not leaves:
            return [None] * len(seeds)
        made = grad([v for v, _ in pairs], leaves, [t for _, t in pairs], create_graph=recorded, allow_unused=True)
    given = iter([t if t is None or wants else wrap(t._array) for t in made])  # else the graph is of the seeds alone
    return [None if s is None else next(given) for s in seeds]


def _any_requires_grad(*xs: Any) -> bool:
    return any(isinstance(x, Tensor) and x._requires_grad for x in xs)


def _seed(out: Tensor) -> Tensor | None:
    return leaf(_zeros(out)) if category(out._array.dtype) >= 2 else None


def _summed(v: Tensor, like: Tensor) -> Tensor:
    shape = like._array.shape
    return v if v._array.shape == shape else sum_to_size(v, shape)


# ------------------------------------------------------------------------------------------------------- of functions


def jvp(
    func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> tuple[Any, ...]:
    """(func(*primals), its Jacobian times `tangents`), in one pass and without a graph.

    Args:
        func: Takes and returns tensors, in tuples, lists and dicts of any depth.
        primals: The arguments of `func`, a tuple.
        tangents: Of the same structure.
        strict: Every result has to depend on the primals; else one that does not has the tangent zero.
        has_aux: `func` returns (results, other); `other` is returned as the third part, without tangents.
    Raises:
        RuntimeError: Primals and tangents do not belong together, `func` returns what is no tensor, or it is `strict`
            and a result is independent of the primals.
    """
    head = "jvp(f, primals, tangents): "
    if not isinstance(primals, tuple):
        raise RuntimeError(f"{head}Expected primals to be a tuple. E.g. it should be valid to call f(*primals).")
    xs: list[Tensor] = []
    ts: list[Tensor] = []
    structure = flatten(primals, xs)
    if without_leaves(structure) != without_leaves(flatten(tangents, ts)) or len(xs) != len(ts):
        raise RuntimeError(
            f"{head}Expected primals and tangents to have the same python structure. For example, if primals is a "
            "tuple of 3 tensors, tangents also must be."
        )
    _check(head, structure, xs, ts)
    moving = [_lying_as(clone(t), x) for x, t in zip(xs, ts, strict=True)]  # writes inside are not into the caller's
    with Forward() as level:
        out = func(*unflatten(structure, [wrap(Dual(level, x, t)) for x, t in zip(xs, moving, strict=True)]))
        aux: Any = None
        if has_aux:
            if not (isinstance(out, tuple) and len(out) == 2):
                raise RuntimeError(f"{head}output of function f should be a tuple: (output, aux) if has_aux is True")
            out, aux = out
        made: list[Tensor] = []
        shape = flatten(out, made)
        for other in leaves_of(shape):
            raise RuntimeError(f"{head}expected f(*primals) to return only tensors, got unsupported type {type(other)}")
        if strict and not all(_depends(level, z) for z in made):
            raise RuntimeError(
                "jvp(f, primals, tangents, strict=True): The output of f is independent of the inputs. This is not "
                "allowed with strict=True."
            )
        split = [_parts(level, z) for z in made]
        extra: list[Tensor] = []
        aux_shape = flatten(aux, extra)
        aux = unflatten(aux_shape, [_parts(level, z)[0] for z in extra])
    values, moved = (unflatten(shape, [pair[i] for pair in split]) for i in (0, 1))
    return (values, moved, aux) if has_aux else (values, moved)


def _check(head: str, structure: Any, xs: list[Tensor], ts: list[Tensor]) -> None:
    for other in leaves_of(structure):
        raise RuntimeError(f"{head}Expected primals to only contain Tensors, got {type(other)}")
    if not xs:
        raise RuntimeError(f"{head}Expected primals to contain at least one Tensor.")
    for x, t in zip(xs, ts, strict=True):
        if category(x._array.dtype) < 2:
            raise ValueError(f"Expected primal to be floating point or complex, but got: {x.dtype}")
        if x._array.shape != t._array.shape:
            raise RuntimeError(
                "Trying to set a forward gradient that has a different size than that of the original Tensor, this is "
                f"not supported. Tensor is of size {list(x._array.shape)} while the given forward gradient is of size "
                f"{list(t._array.shape)}."
            )


def _depends(level: Forward, x: Tensor) -> bool:
    """Whether a result has a tangent at this level."""
    a = x._array
    return isinstance(a, Dual) and a.level is level and a.tangent is not None


def _parts(level: Forward, x: Tensor) -> tuple[Tensor, Tensor]:
    """A result and its tangent, on the level below."""
    a = x._array
    mine = isinstance(a, Dual) and a.level is level
    value = a.value if mine else x
    with at(level.below):
        tangent = a.tangent if mine else None
        return value, _zeros(value) if tangent is None else tangent
