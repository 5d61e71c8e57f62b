"""A board: memory that the ranks of one host share, where each writes its own row and reads the others'.

A plain file that every rank maps and that loses its name at once: nothing is left behind, however the ranks end.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence

from rushlight_distributed.communicator import Communicator, Pending

CELL_BYTES = 8


class Board:
    """One row of `cells` 64-bit integers and `text_bytes` of text for each rank of `comm` on this host.

    Args:
        comm: All its ranks must make the board together.
        cells: Integers per row.
        text_bytes: Room for text per row, a multiple of 8.
        everyone: Rows for the ranks of all hosts; a `Mirror` keeps those of the others.

    Attributes:
        here: The ranks of `comm` on this host, in order.
        ranks: The ranks that have a row.
        cell: All integers as one flat view; rank r's row starts at `row(r)`.
    """

    def __init__(self, comm: Communicator, cells: int, text_bytes: int, *, everyone: bool = False) -> None:
        self.here = comm.on_this_host()
        self.ranks = list(range(comm.size)) if everyone else self.here
        self._row_bytes = cells * CELL_BYTES + text_bytes
        self._text_at = cells * CELL_BYTES
        leads = comm.rank == self.here[0]
        path = make_file(self._row_bytes * len(self.ranks), ("/dev/shm", tempfile.gettempdir())) if leads else ""
        path = comm.all_gather_object(path)[self.here[0]]
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._row_bytes * len(self.ranks))
        comm.barrier()
        if leads:
            os.unlink(path)
        self.cell = memoryview(self._map).cast("q")

    def row(self, rank: int) -> int:
        """Index of the first cell of a rank's row."""
        return self._begin(rank) // CELL_BYTES

    def write_text(self, rank: int, at: int, text: str, room: int) -> None:
        start = self._begin(rank) + self._text_at + at
        self._map[start : start + room] = text.encode(errors="replace")[: room - 1].ljust(room, b"\0")

    def read_text(self, rank: int, at: int, room: int) -> str:
        start = self._begin(rank) + self._text_at + at
        return self._map[start : start + room].partition(b"\0")[0].decode(errors="replace")

    def copy_row(self, rank: int) -> bytes:
        return self._map[self._begin(rank) : self._begin(rank) + self._row_bytes]

    def paste_row(self, rank: int, row: bytes) -> None:
        self._map[self._begin(rank) : self._begin(rank) + self._row_bytes] = row

    def _begin(self, rank: int) -> int:
        return self.ranks.index(rank) * self._row_bytes


class Mirror:
    """Brings the rows of other hosts' ranks to a board: now and then, one rank per host sends its host's rows."""

    def __init__(self, board: Board, comm: Communicator) -> None:
        self._board, self._comm = board, comm
        leaders = set(comm.all_gather_object(board.here[0]))
        self._others = sorted(leaders - {comm.rank}) if comm.rank in leaders else []
        self._sent: dict[int, Pending] = {}

    def turn(self) -> None:
        """Send this host's rows to the other hosts, and take theirs in."""
        if not self._others:
            return
        rows = {rank: self._board.copy_row(rank) for rank in self._board.here}
        for other in self._others:
            if other not in self._sent or self._sent[other].done():
                self._sent[other] = self._comm.post(rows, other)
        for news in self._comm.collect():
            for rank, row in news.items():
                self._board.paste_row(rank, row)


def make_file(size: int, folders: Sequence[str]) -> str:
    """A file of `size` bytes that are really there: a full /dev/shm would otherwise kill by SIGBUS at a write.

    Raises:
        OSError: There is no room in any of the folders.
    """
    failure = OSError("no folder")
    for folder in folders:
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
            failure = error
            if path:
                os.unlink(path)
    raise OSError(failure.errno, f"no room for {size} bytes of memory that ranks share: {failure}", ", ".join(folders))
