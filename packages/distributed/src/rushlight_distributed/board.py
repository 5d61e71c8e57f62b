"""A board: memory that the ranks of one host share, where each writes its own row and reads the others'.

A plain file that every rank maps and that loses its name at once: nothing is left behind, however the ranks end.
"""

from __future__ import annotations

import mmap
import os
import tempfile

from rushlight_distributed.communicator import Communicator

CELL_BYTES = 8


class Board:
    """One row of `cells` 64-bit integers and `text_bytes` of text for each rank of `comm` on this host.

    Args:
        comm: All its ranks must make the board together.
        cells: Integers per row.
        text_bytes: Room for text per row, a multiple of 8.

    Attributes:
        ranks: The ranks of `comm` that have a row here, in order.
        cell: All integers as one flat view; rank r's row starts at `row(r)`.
    """

    def __init__(self, comm: Communicator, cells: int, text_bytes: int) -> None:
        self.ranks = comm.on_this_host()
        self._row_bytes = cells * CELL_BYTES + text_bytes
        self._text_at = cells * CELL_BYTES
        leads = comm.rank == self.ranks[0]
        path = _make_file(self._row_bytes * len(self.ranks)) if leads else ""
        path = comm.all_gather_object(path)[self.ranks[0]]
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._row_bytes * len(self.ranks))
        comm.barrier()
        if leads:
            os.unlink(path)
        self.cell = memoryview(self._map).cast("q")

    def row(self, rank: int) -> int:
        """Index of the first cell of a rank's row."""
        return self.ranks.index(rank) * self._row_bytes // CELL_BYTES

    def write_text(self, rank: int, at: int, text: str, room: int) -> None:
        start = self.ranks.index(rank) * self._row_bytes + self._text_at + at
        self._map[start : start + room] = text.encode(errors="replace")[: room - 1].ljust(room, b"\0")

    def read_text(self, rank: int, at: int, room: int) -> str:
        start = self.ranks.index(rank) * self._row_bytes + self._text_at + at
        return self._map[start : start + room].partition(b"\0")[0].decode(errors="replace")


def _make_file(size: int) -> str:
    """A file of `size` bytes that are really there: a full /dev/shm would otherwise kill by SIGBUS at a write."""
    for folder in ("/dev/shm", tempfile.gettempdir()):
        path = ""
        try:
            handle, path = tempfile.mkstemp(prefix="rushlight-board-", dir=folder)
            with os.fdopen(handle, "r+b") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
            return path
        except OSError as error:
            if path:
                os.unlink(path)
            failure = error
    raise RuntimeError(f"init_process_group: no room for {size} bytes in /dev/shm nor in {folder}: {failure}")
