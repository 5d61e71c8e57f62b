"""Kernel calls as C walks them: rows of addresses, some of which are filled in anew for each run.

Note [Tables]
    A row says where its kernel, its buffers, its sizes and its numbers are.  All words of a table, rows and pointers to
    buffers, are kept as (block, offset): block 0 is address 0, so that offsets are addresses; block 1 is the table
    itself, which its rows point into; block 2 is the memory that the calls share for scratch and for what only they
    see; the others are given with each run.  `fill` adds them up, all words at once, into a table of its own: one
    `Table` serves many threads.

    Nothing is checked here and in C.  Whoever records the calls has had them checked by the kernels' wrappers, and
    whoever gives other blocks gives such as are not smaller, and lie as well.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rushlight_tensor.kernels.binding import STATE, THREADS
from rushlight_tensor.kernels.compile import c_library
from rushlight_tensor.kernels.prototype import DTYPES, Prototype

ALIGNED = 64
ABSOLUTE, ITSELF, WORK, GIVEN = range(4)  # blocks; those that are given begin at the last
_WORDS_IN_ROW = 4  # run, buffers, sizes, numbers: `rl_call` in program.c

Place = tuple[int, int]
"""A block, and an offset in bytes."""


class Kernel(NamedTuple):
    """What a row calls."""

    name: str
    prototype: Prototype
    entry: int


Call = tuple[Kernel, list[Any]]
"""A kernel and its arguments without scratch: arrays, lists of arrays, None, numbers."""


class Table:
    """The rows of some calls.

    Args:
        calls: In order.
        locate: Where an array is to be found in a run; `at_its_address` where that does not change.
        room: The bytes of block 2 that `locate` has given away.
    """

    def __init__(self, calls: Sequence[Call], locate: Callable[[Any], Place], room: int = 0) -> None:
        self._locate, self._start = locate, _rounded(room)
        self.threads = int(STATE[THREADS])
        """How many threads kernels are told of, and have scratch for."""
        self._words: list[Place] = [(ABSOLUTE, 0)] * (_WORDS_IN_ROW * len(calls))
        self._lists: list[tuple[int, list[Place]]] = []  # pointers to arrays of a list, and who points to them
        sizes: list[int] = []
        numbers: list[float] = []
        scratch = [self._scratch(kernel.prototype, given) for kernel, given in calls]
        places = [self._row(*call, room, sizes, numbers) for call, room in zip(calls, scratch, strict=True)]
        for word, pointers in self._lists:
            self._words[word] = (ITSELF, 8 * len(self._words))
            self._words += pointers
        self._sizes, self._numbers = np.array(sizes or [0], np.int64), np.array(numbers or [0], np.float64)
        for n, ((kernel, _), (buffers, s, f)) in enumerate(zip(calls, places, strict=True)):
            own = (self._sizes.ctypes.data + 8 * s, self._numbers.ctypes.data + 8 * f)
            row = ((ABSOLUTE, kernel.entry), (ITSELF, 8 * buffers), *[(ABSOLUTE, a) for a in own])
            self._words[_WORDS_IN_ROW * n : _WORDS_IN_ROW * (n + 1)] = row
        self._which = np.array([b for b, _ in self._words], np.intp)
        self._offsets = np.array([o for _, o in self._words], np.uint64)
        self._count, self._kept = ctypes.c_long(len(calls)), [given for _, given in calls if locate is at_its_address]
        self.work_bytes = self._start + max(map(sum, scratch), default=0) + ALIGNED
        library = c_library("program")
        assert library is not None, "kernels were recorded, so there is a compiler"
        self._run, self._address = library.shared.run_program, library.rl_address

    def fill(self, blocks: Sequence[int] = ()) -> list[Any]:
        """The rows with their addresses, ready to run, and what they point into; `blocks` are addresses."""
        work, words = np.empty(self.work_bytes, np.uint8), np.empty(len(self._which), np.uint64)
        start = self._address(work)
        bases = np.array([0, self._address(words), start + -start % ALIGNED, *blocks], np.uint64)
        np.take(bases, self._which, out=words, mode="clip")
        np.add(words, self._offsets, out=words)
        return [words, work]

    def run(self, filled: list[Any]) -> tuple[int, int]:
        """Run all calls; which of them reported something wrong (-1 for none), and what."""
        said = ctypes.c_long()
        rows = ctypes.c_void_p(self._address(filled[0]))
        return self._run(rows, self._count, ctypes.byref(said)), said.value

    def _scratch(self, prototype: Prototype, given: list[Any]) -> list[int]:
        """The bytes of each piece of scratch of a call, rounded up."""
        passed = [a for a in prototype.arguments if a.is_given]
        sizes = {a.name: int(value) for a, value in zip(passed, given, strict=True) if a.is_integer}
        return [
            _rounded(prototype.length(a, sizes, self.threads) * DTYPES[a.base].itemsize) + ALIGNED
            for a in prototype.arguments
            if a.is_scratch
        ]

    def _row(self, kernel: Kernel, given: list[Any], scratch: list[int], sizes: list[int], numbers: list[float]) -> Any:
        """Append what a call is given; where its buffers, its sizes and its numbers begin."""
        pieces, left, start = iter(scratch), iter(given), self._start
        began = len(self._words), len(sizes), len(numbers)
        for a in kernel.prototype.arguments:
            if a.is_scratch:
                self._words.append((WORK, start))
                start += next(pieces)
                continue
            value = self.threads if a.is_thread_count else next(left)
            if not a.stars:
                (sizes if a.is_integer else numbers).append(value)
            elif isinstance(value, list):
                self._lists.append((len(self._words), [self._place(x) for x in value]))
                self._words.append((ABSOLUTE, 0))
            else:
                self._words.append(self._place(value))
        return began

    def _place(self, array: Any) -> Place:
        return (ABSOLUTE, 0) if array is None else self._locate(array)


def at_its_address(array: Any) -> Place:
    """The place of an array that is there for good; the table keeps it."""
    return ABSOLUTE, int(array.ctypes.data)


def _rounded(count: int) -> int:
    return -(-count // ALIGNED) * ALIGNED
