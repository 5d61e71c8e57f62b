"""The levels of transforms: which one an op belongs to, and what enters and leaves them.  Note [Levels] in `lifted.py`.

A transform is a subclass of `Level` that says how an op runs on its arrays; `with level:` puts it on top.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rushlight_tensor.core import dispatch, inplace
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.lifted import Lifted, spread
from rushlight_tensor.core.tensor import Tensor, wrap


class _Here(threading.local):
    top: Level | None = None


_HERE = _Here()


class Level(ABC):
    """One running transform.  The abstract methods are what each kind of transform has to say."""

    below: Level | None

    def __enter__(self) -> Any:
        self.below = _HERE.top
        _HERE.top = self
        _INTERCEPTOR.enter()
        return self

    def __exit__(self, *exc: object) -> None:
        _HERE.top = self.below
        _INTERCEPTOR.leave()

    @abstractmethod
    def lift(self, x: Tensor) -> Lifted:
        """A tensor from below as an array that is the same in every sample and depends on no input."""

    @abstractmethod
    def run(self, op: Any, xs: list[Any], attrs: dict[str, Any]) -> Any:
        """The results of an op as arrays of this level; `xs` are lifted arrays, numbers and None."""

    @abstractmethod
    def write(self, op: Any, xs: list[Any], attrs: dict[str, Any]) -> None:
        """Put the result of an op into the memory of its first input."""

    @abstractmethod
    def mutate(self, op: Any, xs: list[Any], attrs: dict[str, Any]) -> None:
        """Run an op that writes into its inputs."""

    @abstractmethod
    def receive(self, x: Tensor) -> None:
        """A tensor from below is about to be written into with one of this level."""

    @abstractmethod
    def read(self, array: Lifted, by: str) -> Any:
        """The elements, for Python to look at; `by` names the function that needs them."""

    def spread(self, made: Tensor, like: Lifted) -> Tensor:
        """A fresh tensor from below, with memory for all that `like`, of this level, stands for."""
        with at(self.below):
            return spread(made, like.value._array)

    def takes(self, op: Any) -> bool:
        """Whether an op belongs to this level although none of its inputs does."""
        return False

    def lifted(self, arrays: list[Any]) -> list[Any]:
        """All arrays as arrays of this level."""
        return [self._lifted(a) if hasattr(a, "dtype") else a for a in arrays]

    def _lifted(self, a: Any) -> Lifted:
        return a if isinstance(a, Lifted) and a.level is self else self.lift(wrap(a))


@contextmanager
def at(level: Level | None) -> Iterator[None]:
    """Run what a rule does on the level that its tensors belong to."""
    before = _HERE.top
    _HERE.top = level
    try:
        yield
    finally:
        _HERE.top = before


def current() -> Level | None:
    """The innermost transform of this thread."""
    return _HERE.top


def leaf(x: Tensor) -> Tensor:
    """A tensor with a graph of its own on the current level."""
    top = _HERE.top
    out = wrap(x._array if top is None else top._lifted(x._array))
    out.requires_grad = True
    return out


def raised(xs: tuple[Any, ...], written: Tensor | None = None) -> tuple[Any, ...]:
    """Tensors from below that require grad, lifted: their graph is not that of this level.

    With a tensor that `xs` are to be written into: if that is from below, the level may have to take it in.
    """
    top = _HERE.top
    if top is None:
        return xs
    if written is not None and not _is_of(written, top):
        if not any(isinstance(x, Tensor) and _is_of(x, top) for x in xs):
            return xs
        top.receive(written)
    return tuple([wrap(top.lift(x)) if _is_from_below(x, top) else x for x in xs])


def _is_of(x: Tensor, level: Level) -> bool:
    return isinstance(x._array, Lifted) and x._array.level is level


def _is_from_below(x: Any, top: Level) -> bool:
    return isinstance(x, Tensor) and x._requires_grad and not _is_of(x, top)


class _Interceptor:
    """Stands in front of all kernels while a transform runs; what belongs to no level goes on to `outer`."""

    outer: Any = None

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                dispatch.enter_intercept(self)
                dispatch.set_lift(raised)

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                dispatch.set_lift(None)
                dispatch.leave_intercept(self)

    def execute(self, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
        level = _level_of(op, arrays)
        if level is None:
            return dispatch.run(op, arrays, attrs) if self.outer is None else self.outer.execute(op, arrays, attrs)
        return level.run(op, level.lifted(arrays), attrs)

    def write(self, op: Any, array: Any, others: list[Any], attrs: dict[str, Any]) -> None:
        level = _level_of(op, [array, *others])
        if level is None:
            (inplace.write if self.outer is None else self.outer.write)(op, array, others, attrs)
        else:
            level.write(op, level.lifted([array, *others]), attrs)

    def mutate(self, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> None:
        level = _level_of(op, arrays)
        if level is None:
            (dispatch.run if self.outer is None else self.outer.mutate)(op, arrays, attrs)
        else:
            level.mutate(op, level.lifted(arrays), attrs)

    def read(self, x: Tensor) -> None:
        if self.outer is not None:
            self.outer.read(x)

    def stored(self, leaf: Tensor) -> None:
        if self.outer is not None:
            self.outer.stored(leaf)

    def communicates(self, what: str) -> None:
        if self.outer is not None:
            self.outer.communicates(what)

    def recorded(self, node: Any) -> None:
        if self.outer is not None:
            self.outer.recorded(node)


_INTERCEPTOR = _Interceptor()


def _level_of(op: Any, arrays: list[Any]) -> Level | None:
    """The innermost level that one of the arrays belongs to, or that takes ops without one."""
    level = _HERE.top
    while level is not None:
        if level.takes(op) or any(isinstance(a, Lifted) and a.level is level for a in arrays):
            return level
        level = level.below
    if any(isinstance(a, Lifted) for a in arrays):
        raise RuntimeError(f"{op.name}: a tensor of a vmap or jvp that has ended; return it from the function")
    return None


def results(op: Any, xs: tuple[Any, ...], attrs: dict[str, Any]) -> tuple[Tensor, ...]:
    """All results of an op, those that are kept for the gradient included, as tensors."""
    out = dispatch.call(op, xs, attrs, whole=True)
    return out if type(out) is tuple else (out,)


def decomposed(level: Level, op: Any, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    """What the kernel of a gradient computes, as its forward op says it in public ops, on this level."""
    several = said(op, arrays, attrs)[1]
    attrs = dict(attrs)
    needs = attrs.pop("needs")
    g, *saved = [wrap(a) if hasattr(a, "dtype") else a for a in arrays]
    rule = op.forward.vjp
    given = iter(saved)
    saved = [next(given) if name is None else attrs.pop(name) for name in rule.as_attrs]
    needs = tuple(needs) or (True,) * op.forward.arity
    with at(level):
        made = rule.rule(g, needs, *saved, **attrs)
    wanted = tuple([d._array for d, need in zip(made, needs, strict=False) if need and d is not None])
    return wanted if several else wanted[0]


def said(op: Any, xs: list[Any], attrs: dict[str, Any]) -> tuple[list[tuple[int, ...]], bool]:
    """The shapes of an op's results, and whether they come as a tuple.  Raises the user's shape errors."""
    found = op.infer(*[Aval(x.shape, x.dtype) if hasattr(x, "dtype") else x for x in xs], **attrs)
    return ([found.shape], False) if isinstance(found, Aval) else ([aval.shape for aval in found], True)
