"""Output of many ranks on one terminal: whole lines, each with its rank in front, and one log file per rank.

A stream or log that cannot be written to (`| head`, a full disk) is given up, with a word on stderr; the job goes on.
"""

from __future__ import annotations

import codecs
import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO

_LAST_WORDS_BYTES = 4096


class Console:
    """Writes ranks' bytes to the log files and, line by line, to the launcher's own streams.

    Args:
        log_dir: Folder for `rank0.log`, `rank1.log`, …, and `mpirun.log`.
        show: "all" prints every rank's lines behind `[rank 1] `; "rank0" prints rank 0's bytes as they come (a progress
            bar moves) and leaves the others to their logs; "none" prints nothing.
        streams: Where "stdout" and "stderr" go.
    """

    def __init__(self, log_dir: Path, show: str, streams: dict[str, IO[str]]) -> None:
        self._log_dir, self._show, self._streams = log_dir, show, streams
        self._logs: dict[str, BinaryIO] = {}
        self._decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in streams}
        self._given_up: dict[str, str] = {}  # what cannot be written to, and why
        self._unfinished: dict[tuple[int, str], bytes] = {}
        self._last_words: dict[int, bytes] = {}

    def write(self, rank: int, stream: str, data: bytes) -> None:
        self.log(f"rank{rank}", data)
        if stream == "stderr":
            self._last_words[rank] = (self._last_words.get(rank, b"") + data)[-_LAST_WORDS_BYTES:]
        if self._show == "rank0" and rank == 0:
            self._print(stream, data)
        elif self._show == "all":
            *lines, rest = (self._unfinished.get((rank, stream), b"") + data).split(b"\n")
            self._unfinished[rank, stream] = rest
            self._print(stream, b"".join(self._labelled(rank, line) for line in lines))

    def log(self, name: str, data: bytes) -> None:
        self._unless_given_up(f"{name}.log", lambda: self._append(name, data))

    @property
    def gaps(self) -> str:
        """Which logs are not complete, and why; empty when all are."""
        logs = [f"{what}: {why}" for what, why in self._given_up.items() if what not in self._streams]
        return f" (cut short: {', '.join(logs)})" if logs else ""

    def last_words(self, rank: int) -> str:
        """The end of what the rank wrote to stderr."""
        return self._last_words.get(rank, b"").decode(errors="replace")

    def close(self) -> None:
        for (rank, stream), rest in sorted(self._unfinished.items()):
            if rest:
                self._print(stream, self._labelled(rank, rest))
        for log in self._logs.values():
            with contextlib.suppress(OSError):
                log.close()

    @staticmethod
    def _labelled(rank: int, line: bytes) -> bytes:
        # A bar redraws its line with "\r": of the redrawn states the last is the one that stays.
        return f"[rank {rank}] ".encode() + line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n"

    def _append(self, name: str, data: bytes) -> None:
        if name not in self._logs:
            self._logs[name] = (self._log_dir / f"{name}.log").open("wb", buffering=0)
        _write_all(self._logs[name], data)

    def _print(self, stream: str, data: bytes) -> None:
        self._unless_given_up(stream, lambda: self._show_on(stream, data))

    def _show_on(self, stream: str, data: bytes) -> None:
        target = self._streams[stream]
        binary = getattr(target, "buffer", None)
        if isinstance(binary, (io.BufferedIOBase, io.RawIOBase)):  # raw: PYTHONUNBUFFERED
            target.flush()
            _write_all(binary, data)
        else:
            target.write(self._decoders[stream].decode(data))
        target.flush()

    def _unless_given_up(self, what: str, write: Callable[[], None]) -> None:
        if what in self._given_up:
            return
        try:
            write()
        except OSError as error:
            self._given_up[what] = error.strerror or str(error)
            elsewhere = f"; its output is in {self._log_dir}" if what in self._streams else ""
            notice = f"rushlight launch: cannot write to {what} ({self._given_up[what]}), the job goes on{elsewhere}\n"
            self._print("stderr", notice.encode())


def _write_all(file: BinaryIO | io.BufferedIOBase | io.RawIOBase, data: bytes) -> None:
    """`file.write(data)`, also where the file is not buffered and takes a part at a time."""
    while data:
        data = data[file.write(data) or 0 :]
