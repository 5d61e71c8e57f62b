"""What a walk has read of Python's state, so that the next call can see that nothing of it is another object.

Note [Reads]
    A walk (Note [Guards]) is slow because it describes values.  But it is a function of what it reads: entries of
    dicts, cells of closures, the code and the defaults of functions, the arrays of tensors.  Where each of these reads
    would give the very object that it gave before, and all other objects on the way are immutable, the walk would give
    the same tokens, so nobody has to walk.  Objects that are others may still be equal; then the walk decides, as
    before.
    Whatever a walk meets that may change in other ways (objects with attributes, classes of users, sets, arrays) ends
    the list: `Walk.reads` is None, and each call walks.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CellType
from typing import Any, NamedTuple

import numpy as np

from rushlight_tensor.core.tensor import Tensor

ITEM, CELL, CODE, DEFAULTS, KWDEFAULTS, MODULE, ATTRIBUTES, CONTENTS, ELEMENTS, TENSOR = range(10)  # as in the C text


class Read(NamedTuple):
    """One look at something that may change."""

    kind: int
    owner: Any
    key: Any
    value: Any


class Absent:
    """What is read where there is nothing."""


def contents(cell: CellType) -> Any:
    """What is in a cell of a closure, or `Absent`."""
    try:
        return cell.cell_contents
    except ValueError:
        return Absent


_NOW: dict[int, Callable[[Any, Any], Any]] = {
    ITEM: lambda owner, key: owner.get(key, Absent),
    CELL: lambda owner, _: contents(owner),
    CODE: lambda owner, _: owner.__code__,
    DEFAULTS: lambda owner, _: owner.__defaults__,
    KWDEFAULTS: lambda owner, _: owner.__kwdefaults__,
    MODULE: lambda owner, _: owner.__module__,
    ATTRIBUTES: lambda owner, _: owner.__dict__,
}


def flat(owner: Any) -> tuple[Any, ...]:
    """All that a dict or a list holds, in order."""
    return tuple([x for pair in owner.items() for x in pair] if isinstance(owner, dict) else owner)


def kind_of(x: Tensor) -> bytes:
    """What the walk sees of a tensor beside its array."""
    a = x._array
    return np.array([x._requires_grad, x._node is None, a.itemsize, a.ndim, *a.shape, *a.strides], np.int64).tobytes()


def is_unchanged(read: Read) -> bool:
    """Whether a look shows the same objects again."""
    kind, owner, key, value = read
    if kind == TENSOR:
        return owner._array is value and kind_of(owner) == key and not getattr(owner, "__dict__", None)
    if kind < CONTENTS:
        return _NOW[kind](owner, key) is value
    now = flat(owner)
    return len(now) == len(value) and all(map(lambda a, b: a is b, now, value))
