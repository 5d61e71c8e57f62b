"""Batching: how an op runs on many samples at once, from its kind.

Tensors of the level below carry the samples as their first dimension; what is the same for all samples carries none.
Rules, in the order in which they are asked (`rule_of`):

    none of the inputs is batched    the op itself, once
    `batch` of the record            its own rule
    elementwise                      ranks are aligned: a batched (B, 3) meets a (2, 3) as (B, 1, 3)
    reduction, view, linear, rows    dimensions are counted one further, shapes begin with B
    the kernel of a gradient         the same in public ops
    all others                       one sample after the other
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rushlight_autograd.levels import Level, at, decomposed, results, said
from rushlight_tensor.core import dispatch, inplace, kinds
from rushlight_tensor.core.lifted import Lifted
from rushlight_tensor.core.tensor import Tensor, wrap
from rushlight_tensor.ops.math.cast import clone
from rushlight_tensor.ops.shape.join import stack
from rushlight_tensor.ops.shape.samples import _aligned, _in_front, _merged
from rushlight_tensor.ops.shape.shape import expand, reshape
from rushlight_tensor.ops.shape.slicing import select
from rushlight_tensor.random import default_generator

Rule = Callable[[Any, int, list[bool], list[Any], dict[str, Any]], Any]


class Batched(Lifted):
    """A tensor with the samples as its first dimension, or (`batched` is False) one that is the same for all."""

    __slots__ = ("batched",)

    def __init__(self, level: Any, value: Tensor, batched: bool) -> None:
        shape = value._array.shape
        super().__init__(level, value, shape[1:] if batched else shape)
        self.batched = batched


class Batch(Level):
    """A running `vmap` over `size` samples.

    `randomness` says what random ops do: "error", "different" numbers for each sample, or the "same" for all.
    """

    def __init__(self, size: int, randomness: str = "error") -> None:
        self.size, self.randomness = size, randomness

    def __repr__(self) -> str:
        return f"vmap over {self.size} samples"

    def receive(self, x: Tensor) -> None:
        """Nothing: `write` refuses what has no room for all samples."""

    def lift(self, x: Tensor) -> Batched:
        return Batched(self, x, False)

    def spread(self, made: Tensor, like: Lifted) -> Tensor:
        assert isinstance(like, Batched)
        below = super().spread(made, like)
        if not like.batched:
            return below
        with at(self.below):
            own = clone(expand(below, (self.size, *below._array.shape)))
        return wrap(Batched(self, own, True))

    def takes(self, op: Any) -> bool:
        return bool(op.random)

    def read(self, array: Lifted, by: str) -> Any:
        assert isinstance(array, Batched)
        if not array.batched:
            with at(self.below):
                return dispatch.look(array.value, by)
        if by:
            raise RuntimeError(
                "vmap: We do not support batching operators that can output dynamic shape. Attempted to vmap over "
                f"{by}, whose result depends on values, and these differ between samples."
            )
        raise RuntimeError(
            "vmap: the values of a tensor are asked for (.item(), bool(), tolist(), numpy(), printing, or a result "
            "whose size depends on them), and these differ between samples. Keep to operations on tensors, such as "
            "torch.where."
        )

    def run(self, op: Any, xs: list[Any], attrs: dict[str, Any]) -> Any:
        batched = [isinstance(x, Batched) and x.batched for x in xs]
        values = [x.value if isinstance(x, Batched) else x for x in xs]
        if op.random:
            rule = self._random_rule(op, batched)
        else:
            rule = rule_of(op, batched) if any(batched) else None
            if rule is None and any(batched) and op.forward is not None:
                return decomposed(self, op, list(xs), attrs)
            rule = rule or (_by_sample if any(batched) else None)
        with at(self.below):
            if rule is None:
                made, with_samples = results(op, tuple(values), attrs), False
            else:
                found = rule(op, self.size, batched, values, attrs)
                made, with_samples = found if isinstance(found, tuple) else (found,), True
        shapes, several = said(op, xs, attrs)
        if with_samples:
            with at(self.below):
                made = self._shaped(op, made, shapes)
        arrays = tuple([Batched(self, z, with_samples) for z in made])
        return arrays if op.side_results or several else arrays[0]

    def _random_rule(self, op: Any, batched: list[bool]) -> Rule | None:
        if self.randomness == "error":
            raise RuntimeError(
                f"vmap: called random operation while in randomness error mode. Please either use the 'same' or "
                f"'different' randomness flags on vmap or perform the randomness operation out of vmap ({op.name})"
            )
        if self.randomness == "same":
            return _same_numbers if any(batched) else None
        return _different_numbers

    def _shaped(self, op: Any, made: tuple[Tensor, ...], shapes: list[tuple[int, ...]]) -> tuple[Tensor, ...]:
        """The results as (B, *what one sample would give): a rule may have merged or added dimensions.

        What is kept for the gradient (`aux`) may have another size than here: its form may follow from how the inputs
        lie, and those of all samples together may lie in another way than those of one.  Then the rule has shaped it.
        """
        wanted = [(self.size, *shape) for shape in shapes]
        fitting = [
            z if z._array.shape == s or (i and op.side_results and z._array.size != math.prod(s)) else reshape(z, s)
            for i, (z, s) in enumerate(zip(made, wanted, strict=False))
        ]
        return (*fitting, *made[len(fitting) :])

    def write(self, op: Any, xs: list[Any], attrs: dict[str, Any]) -> None:
        batched = [isinstance(x, Batched) and x.batched for x in xs]
        values = [x.value if isinstance(x, Batched) else x for x in xs]
        if any(batched) and not batched[0]:
            raise RuntimeError(
                f"vmap: {op.name}_(self, *extra_args) is not possible because there exists a Tensor `other` in "
                "extra_args that has more elements than `self`. This happened due to `other` being vmapped over but "
                f"`self` not being vmapped over in a vmap. Please try to use out-of-place operators instead of "
                f"{op.name}_."
            )
        with at(self.below):
            if op.random and self.randomness != "different":
                self._random_rule(op, batched)
                made = _same_numbers(op, self.size, batched, values, attrs)
                inplace.inplace(dispatch.COPY, values[0], made[0])
            elif isinstance(op.kind, kinds.Elementwise):
                inplace.inplace(op, *_aligned(batched, values), **attrs)
            else:
                made = (rule_of(op, batched) or _by_sample)(op, self.size, batched, values, attrs)
                inplace.inplace(dispatch.COPY, values[0], made[0] if isinstance(made, tuple) else made)

    def mutate(self, op: Any, xs: list[Any], attrs: dict[str, Any]) -> None:
        batched = [isinstance(x, Batched) and x.batched for x in xs]
        count = op.written(len(xs), attrs)
        if any(batched) and not all(batched[:count]):
            raise RuntimeError(f"vmap: {op.name} writes into a tensor that is the same for all samples; batch it, too")
        with at(self.below):
            for i in range(self.size if any(batched) else 1):
                inplace.mutate(op, _sample(i, batched, [x.value for x in xs]), attrs)


# ------------------------------------------------------------------------------------------------ the rules of kinds


def rule_of(op: Any, batched: list[bool]) -> Rule | None:
    """The rule for an op with such inputs, or None where nothing says it."""
    if op.batch is not None:
        return _own
    kind = op.kind
    if isinstance(kind, kinds.Linear) and op.arity > 1:  # a product, of which each input may be batched
        return None
    shared = any(b for b, name in zip(batched, op.input_names, strict=False) if name in kind.shared)
    return None if shared else RULES.get(type(kind))


def _own(op: Any, size: int, batched: list[bool], xs: list[Any], attrs: dict[str, Any]) -> Any:
    made = op.batch(size, batched, xs, attrs)
    return _by_sample(op, size, batched, xs, attrs) if made is None else made


def _elementwise(op: Any, size: int, batched: list[bool], xs: list[Any], attrs: dict[str, Any]) -> Any:
    if op.kind.first and not batched[0]:
        xs, batched = [*_in_front(size, [False], xs[:1]), *xs[1:]], [True, *batched[1:]]
    return results(op, tuple(_aligned(batched, xs)), attrs)


def _further(op: Any, size: int, batched: list[bool], xs: list[Any], attrs: dict[str, Any]) -> Any:
    """All inputs with the samples in front, dimensions counted one further, shapes that begin with their number."""
    kind, given = op.kind, xs
    own = op.input_names
    shared = [not op.variadic and own[i] in kind.shared for i in range(len(xs))]
    xs = _in_front(size, [b or s for b, s in zip(batched, shared, strict=True)], xs)
    ranks = {x._array.ndim for x, s in zip(xs, shared, strict=True) if isinstance(x, Tensor) and not s}
    if kind.dims and (len(ranks) > 1 and not kind.shapes):  # as in PyTorch, `cat` takes empty vectors among matrices
        return _by_sample(op, size, batched, given, attrs)
    rank = len(attrs[kind.shapes[0]]) if kind.shapes else next(x for x in xs if isinstance(x, Tensor))._array.ndim - 1
    if not rank and isinstance(kind, kinds.Linear):
        return _by_sample(op, size, batched, given, attrs)
    attrs = {**attrs, **{name: (size, *attrs[name]) for name in kind.shapes}}
    if not rank and kind.dims:  # one number: seen as a row of one
        attrs.update(dict.fromkeys(kind.shapes, (size, 1)))
        xs = [
            reshape(x, (size, 1)) if isinstance(x, Tensor) and x._array.ndim == 1 and not s else x
            for x, s in zip(xs, shared, strict=True)
        ]
        if "keepdim" in attrs:
            attrs["keepdim"] = True
    attrs.update({name: _shifted(attrs[name], max(rank, 1)) for name in kind.dims})
    return results(op, tuple(xs), attrs)


def _shifted(dim: Any, rank: int) -> Any:
    if dim is None or dim == ():
        return tuple(range(1, rank + 1))
    if isinstance(dim, int):
        return dim % rank + 1
    return tuple([d % rank + 1 for d in dim])


def _rows(op: Any, size: int, batched: list[bool], xs: list[Any], attrs: dict[str, Any]) -> Any:
    """`_further`; an op that takes just so many dimensions gets the samples in its first one."""
    if not op.kind.folds:
        return _further(op, size, batched, xs, attrs)
    xs = [_merged(x, 0) if isinstance(x, Tensor) else x for x in _in_front(size, batched, xs)]
    shapes = {name: (size * attrs[name][0], *attrs[name][1:]) for name in op.kind.shapes}
    return results(op, tuple(xs), {**attrs, **shapes})


RULES: dict[type[kinds.Kind], Rule] = {
    kinds.Elementwise: _elementwise,
    kinds.Reduction: _further,
    kinds.Rows: _rows,
    kinds.View: _further,
    kinds.Linear: _further,
}


# ---------------------------------------------------------------------------------------------------- one at a time


def _sample(i: int, batched: list[bool], xs: list[Any]) -> tuple[Any, ...]:
    return tuple([select(x, 0, i) if b else x for x, b in zip(xs, batched, strict=True)])


def _by_sample(op: Any, size: int, batched: list[bool], xs: list[Any], attrs: dict[str, Any]) -> Any:
    made = [results(op, _sample(i, batched, xs), attrs) for i in range(size)]
    return tuple([stack(list(column)) for column in zip(*made, strict=True)])


# ----------------------------------------------------------------------------------------------------- random numbers


def _different_numbers(op: Any, size: int, batched: list[bool], xs: list[Any], attrs: dict[str, Any]) -> Any:
    """One draw for all samples together, as in PyTorch."""
    if "shape" in attrs:
        return results(op, tuple(xs), {**attrs, "shape": (size, *attrs["shape"])})
    if not any(batched):
        xs = _in_front(size, batched, xs)
        batched = [isinstance(x, Tensor) for x in xs]
    rule = rule_of(op, batched)
    assert rule is not None, f"{op.name}: a random op whose kind says nothing of samples"
    return rule(op, size, batched, xs, attrs)


def _same_numbers(op: Any, size: int, batched: list[bool], xs: list[Any], attrs: dict[str, Any]) -> Any:
    """The numbers that one sample would get, for each of them."""
    generator = attrs.get("generator") or default_generator
    state = generator.get_state()
    made = []
    for i in range(size):
        generator.set_state(state)
        made.append(results(op, _sample(i, batched, xs), attrs))
    return tuple([stack(list(column)) for column in zip(*made, strict=True)])
