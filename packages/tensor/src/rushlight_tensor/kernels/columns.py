"""How a record over many arrays calls its C kernel: columns of equally many arrays, one call for all of them.

As `plan`, for optimizer steps and norms: the inputs of the record are columns (the parameters, each kind of state, the
gradients), and the prototype takes each column as a list.  Nothing is kept from call to call but the function: shapes
are checked by `infer` each time, pointers are taken anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rushlight_tensor.kernels import plan
from rushlight_tensor.kernels.binding import Library
from rushlight_tensor.kernels.compile import c_library
from rushlight_tensor.kernels.prototype import Argument, Prototype

_LIST, _OPTIONAL, _ARRAY, _RESULT, _SIZES, _COUNT, _TOTAL, _ATTRIBUTE = range(8)


class Columns:
    """The C kernel of a record over columns of arrays.

    Args:
        file: The C text, under `c/`.
        name: Its `EXPORT` function: lists, then arrays, in the order of the record's inputs; its results; `sizes`, the
            sizes of the first column; numbers, `arrays` (how many a column has), `total` (the elements of the first
            column), and attributes.
        columns: From the attributes, how many columns there are, where not all lists of the prototype are given.
        when: From the attributes, whether the kernel does that; else the NumPy text does.
        each: The arrays of one place stand for themselves: what C cannot take is done by the NumPy text, the rest by C.
    """

    __slots__ = ("columns", "each", "file", "name", "when")

    def __init__(
        self,
        file: str,
        name: str,
        columns: Callable[..., int] | None = None,
        when: Callable[..., bool] | None = None,
        each: bool = False,
    ) -> None:
        self.file, self.name, self.columns, self.when, self.each = file, name, columns, when, each

    def bind(self, op: Any) -> Callable[..., Any]:
        """The `cpu` of a record."""
        return PlannedColumns(op, self).run


class PlannedColumns:
    """A record over columns, with its C kernel."""

    __slots__ = ("_lists", "_others", "_template", "entry", "kernel", "op", "prototype")

    source: Any = None  # it draws from no generator
    prototype: Prototype
    entry: int
    _template: list[tuple[int, str]]

    def __init__(self, op: Any, kernel: Columns) -> None:
        self.op, self.kernel = op, kernel
        self._lists: list[Argument] | None = None
        self._others = 0

    def run(self, *arrays: Any, **attrs: Any) -> Any:
        """The result, and what the record writes."""
        found = self.op.infer(*arrays, **attrs)
        c = c_library(self.kernel.file) if arrays else None
        if c is None or (self.kernel.when is not None and not self.kernel.when(**attrs)):
            return self._by_text(arrays, attrs)
        if self._lists is None:
            self._load(c)
        if c.float32(*arrays):
            return self._by_kernel(c, arrays, attrs, found)
        if not self.kernel.each:
            return self._by_text(arrays, attrs)
        n = len(arrays) // self._count(attrs)
        rows = [arrays[i::n] for i in range(n)]
        fast = [row for row in rows if c.float32(*row)]
        slow = [row for row in rows if not c.float32(*row)]
        if fast:
            self._by_kernel(c, _in_columns(fast), attrs, found)
        return self._by_text(_in_columns(slow), attrs)

    def _load(self, c: Library) -> None:
        self.prototype, self.entry = c.prototypes[self.kernel.name], c.entries[self.kernel.name]
        given = [a for a in self.prototype.arguments if a.is_input or "INOUT" in a.marks]
        self._others = sum(a.stars == 1 and a.name != "sizes" for a in given)
        self._template = [(_kind(a), a.name) for a in self.prototype.arguments if not a.is_scratch]
        self._lists = [a for a in given if a.stars == 2]  # last: another thread that sees it goes on with the others

    def _count(self, attrs: dict[str, Any]) -> int:
        assert self._lists is not None
        return len(self._lists) if self.kernel.columns is None else self.kernel.columns(**attrs)

    def _by_kernel(self, c: Library, arrays: Sequence[Any], attrs: dict[str, Any], found: Any) -> Any:
        count = self._count(attrs)
        n = (len(arrays) - self._others) // count
        missing = len(self._lists or ()) - count
        sizes = np.array([x.size for x in arrays[:n]], np.int64)
        at, made = 0, None
        given: list[Any] = []
        for kind, name in self._template:
            if kind == _ATTRIBUTE:
                given.append(attrs[name])
            elif kind == _COUNT:
                given.append(n)
            elif kind == _SIZES:
                given.append(sizes)
            elif kind == _OPTIONAL and missing:
                missing -= 1
                given.append(None)
            elif kind in (_LIST, _OPTIONAL):
                given.append(list(arrays[at : at + n]))
                at += n
            elif kind == _ARRAY:
                given.append(arrays[at])
                at += 1
            elif kind == _TOTAL:
                given.append(int(sizes.sum()))
            else:
                made = np.empty(found.shape, found.dtype)
                given.append(made)
        getattr(c, self.kernel.name)(*given)
        if (recorder := plan.RECORDER) is not None:
            recorder.add(self, given)
        return found if made is None else made

    def _by_text(self, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
        if (recorder := plan.RECORDER) is not None:
            recorder.refuse(f"{self.op.name} runs as NumPy's text")
        return self.op.numpy(*arrays, **attrs)


def _kind(a: Argument) -> int:
    """What an argument of the prototype is made from."""
    if a.stars == 2:
        return _OPTIONAL if "OPTIONAL" in a.marks else _LIST
    if a.stars:
        return _SIZES if a.name == "sizes" else _RESULT if a.is_result and "INOUT" not in a.marks else _ARRAY
    return {"arrays": _COUNT, "total": _TOTAL}.get(a.name, _ATTRIBUTE)


def _in_columns(rows: Sequence[Sequence[Any]]) -> list[Any]:
    return [x for column in zip(*rows, strict=True) for x in column]
