"""Shared memory blocks: where a worker puts its batches, and when that memory may be used again.

Note [Blocks]
    A block is an anonymous file (`memfd_create`) mapped by the worker that made it and by the training process, which
    gets its descriptor once.  It has no name, so whatever is killed, nothing can stay behind in /dev/shm; nor does a
    small /dev/shm limit it.  Pages are reserved when the block is made: running out of memory is an error there, not a
    SIGBUS at the first write.

    Both sides see a block through a `Lease`, an object that NumPy keeps alive as the base of every array and view cut
    from it.  When the training process drops its last array, the block's number travels back to the worker with the
    next task; when the worker holds none either, the block takes the next batch.  So a loop that drops its batches runs
    in a handful of blocks whose pages stay warm, and a loop that keeps them keeps its memory, safely.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

SMALL_BYTES = 32 * 1024  # below this a copy through the socket is quicker than a block
_ALIGN_BYTES = 64
_MOST_PLACED = 32  # blocks of their own in one batch; each costs a file descriptor on both sides
MOST_LEASES = 64  # blocks of one worker that the training process may hold; further batches are copied out


def anonymous_file(nbytes: int) -> int:
    """Descriptor of an unnamed file with `nbytes` of reserved memory.  Raises OSError when there is not enough."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("rushlight_data", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
            fd = os.dup(file.fileno())
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, nbytes)
        else:
            os.ftruncate(fd, nbytes)
    except OSError:
        os.close(fd)
        raise
    return fd


class Lease:
    """A loan of mapped memory: `numpy.asarray(lease)` is its bytes, `release` is called when its last view is gone."""

    __slots__ = ("__array_interface__", "_memory", "_release")

    def __init__(self, memory: np.ndarray, release: Callable[[], Any]) -> None:
        self._memory = memory
        self._release = release
        self.__array_interface__ = {
            "version": 3,
            "shape": memory.shape,
            "typestr": "|u1",
            "data": (memory.__array_interface__["data"][0], False),
        }

    def __del__(self) -> None:
        self._release()


class _Block:
    __slots__ = ("held_here", "held_there", "memory", "number")

    def __init__(self, number: int, memory: np.ndarray) -> None:
        self.number = number
        self.memory = memory
        self.held_here = False
        self.held_there = False

    def lease(self) -> np.ndarray:
        self.held_here = True
        return np.asarray(Lease(self.memory, self._dropped_here))

    def _dropped_here(self) -> None:
        self.held_here = False


class Pool:
    """A worker's blocks: gives memory to batches and takes it back.  See Note [Blocks]."""

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._placed: dict[int, _Block] = {}  # of the batch that is being made, by address
        self._made = 0
        self.new: list[tuple[int, int, int]] = []  # (number, bytes, descriptor) the training process has not seen
        self.forgotten: list[int] = []  # numbers it may unmap
        self._failure: OSError | None = None  # why a request for memory failed
        self._warned = False

    def begin(self) -> None:
        """Forget what was placed: the batch is sent, or given up."""
        self._placed.clear()

    def take_warning(self) -> str | None:
        """Why batches could not use shared memory, once."""
        if self._failure is None or self._warned:
            return None
        self._warned = True
        return str(self._failure)

    def place(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        """An array in shared memory for a part of the batch, or None where it is small or there is no memory."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if nbytes < SMALL_BYTES or len(self._placed) == _MOST_PLACED:
            return None
        block = self._take(nbytes)
        if block is None:
            return None
        array = block.lease()
        self._placed[array.__array_interface__["data"][0]] = block
        return array[:nbytes].view(dtype).reshape(shape)

    def pack(self, buffers: list[np.ndarray]) -> list[tuple[int, int, int]] | None:
        """Where each buffer of a finished batch lies: (block, offset, bytes).

        What `place` gave stays where it is, the rest is copied into one block.  None: send them through the socket.
        """
        placed: list[_Block | None] = []
        rest_bytes = 0
        for buffer in buffers:
            block = self._placed.get(buffer.__array_interface__["data"][0])
            placed.append(block)
            rest_bytes += 0 if block else _aligned(buffer.nbytes)
        common = None
        if rest_bytes and (any(placed) or rest_bytes >= SMALL_BYTES):
            common = self._take(rest_bytes)
        where, offset = [], 0
        for buffer, block in zip(buffers, placed, strict=True):
            if block is not None:
                where.append((block.number, 0, buffer.nbytes))
            elif common is not None:
                common.memory[offset : offset + buffer.nbytes] = buffer
                where.append((common.number, offset, buffer.nbytes))
                offset += _aligned(buffer.nbytes)
            else:
                return None
        for number, _, _ in where:
            self._blocks[number].held_there = True
        return where

    def returned(self, numbers: Iterable[int]) -> None:
        """The training process has dropped these blocks."""
        for number in numbers:
            if number in self._blocks:
                self._blocks[number].held_there = False

    def _take(self, nbytes: int) -> _Block | None:
        taken = self._placed.values()
        free = [b for b in self._blocks.values() if not (b.held_here or b.held_there or b in taken)]
        fitting = [block for block in free if len(block.memory) >= nbytes]
        if fitting:
            return min(fitting, key=lambda block: len(block.memory))
        if free:  # all too small: batches have grown, give one back for the one to be made
            smallest = min(free, key=lambda block: len(block.memory))
            del self._blocks[smallest.number]
            self.forgotten.append(smallest.number)
        size = _rounded(nbytes)
        try:
            fd = anonymous_file(size)
            memory = np.frombuffer(mmap.mmap(fd, size), dtype=np.uint8)
        except OSError as error:
            self._failure = error
            return None
        block = self._blocks[self._made] = _Block(self._made, memory)
        self.new.append((self._made, size, fd))
        self._made += 1
        return block


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGN_BYTES) * _ALIGN_BYTES


def _rounded(nbytes: int) -> int:
    """A little more than asked, so that batches of slightly different sizes share blocks: up to 1/8, in whole pages."""
    step = max(mmap.PAGESIZE, 1 << max(0, nbytes.bit_length() - 4))
    return -(-nbytes // step) * step


class Mapped:
    """The training process's view of one worker's blocks."""

    def __init__(self) -> None:
        self._memory: dict[int, np.ndarray] = {}
        self._leased: set[int] = set()
        self._released: deque[int] = deque()

    def add(self, number: int, nbytes: int, fd: int) -> None:
        """Map a block from its descriptor, which is closed."""
        self._memory[number] = np.frombuffer(mmap.mmap(fd, nbytes), dtype=np.uint8)
        os.close(fd)

    def forget(self, numbers: Iterable[int]) -> None:
        """Unmap blocks that the worker gave up; memory that arrays still use stays until they are gone."""
        for number in numbers:
            self._memory.pop(number, None)

    def buffers(self, where: list[tuple[int, int, int]]) -> list[np.ndarray]:
        """Bytes of a batch's arrays in the blocks; copies once too many blocks are held."""
        numbers = {number for number, _, _ in where}
        if len(self._leased) + len(numbers) > MOST_LEASES:
            copies = [self._memory[number][offset : offset + n].copy() for number, offset, n in where]
            self._released.extend(numbers)
            return copies
        leased = {number: self._lease(number) for number in numbers}
        return [leased[number][offset : offset + n] for number, offset, n in where]

    def released(self) -> list[int]:
        """Numbers of blocks dropped since the last call, for the worker to use again."""
        return [self._released.popleft() for _ in range(len(self._released))]

    def _lease(self, number: int) -> np.ndarray:
        self._leased.add(number)

        def release() -> None:  # runs in whichever thread drops the last view; both steps are atomic
            self._leased.discard(number)
            self._released.append(number)

        return np.asarray(Lease(self._memory[number], release))


_pool: Pool | None = None  # of this process, when it is a worker


def open_pool() -> Pool:
    """Make this process a worker: collation places its results in the returned pool."""
    global _pool
    _pool = Pool()
    return _pool


def in_worker() -> bool:
    """Whether this process is a loader's worker."""
    return _pool is not None


def place(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    """Shared memory for an array of the batch this worker is making; None where ordinary memory will do."""
    return None if _pool is None else _pool.place(shape, dtype)
