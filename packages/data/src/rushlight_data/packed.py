"""A list that worker processes share: its items lie pickled in one array."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, overload

import numpy as np

T = TypeVar("T")


class PackedList(Sequence[T]):
    """A read-only list of picklable items, for datasets with millions of paths, texts or boxes.

    Who reads a Python object writes to it, namely its reference count.  So a forked worker that goes through a plain
    list copies it page by page, and every worker ends with a list of its own.  Reading this one makes a new object each
    time and writes nothing, and a worker from a clean process maps the same memory.

    Args:
        items: What the list holds; an item is a copy of what was given.
    Raises:
        TypeError, pickle.PicklingError: For an item that cannot be pickled.
    """

    def __init__(self, items: Iterable[T]) -> None:
        stream = io.BytesIO()
        ends = [0]
        for item in items:
            stream.write(pickle.dumps(item, protocol=5))
            ends.append(stream.tell())
        self._bytes = np.frombuffer(stream.getbuffer(), dtype=np.uint8)
        self._ends = np.array(ends, dtype=np.int64)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"index {index} is out of range for a list of {count} items")
        index %= count
        return pickle.loads(memoryview(self._bytes[self._ends[index] : self._ends[index + 1]]))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __repr__(self) -> str:
        return f"PackedList({len(self)} items, {self._bytes.nbytes} bytes)"
