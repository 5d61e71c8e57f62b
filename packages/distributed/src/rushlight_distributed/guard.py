"""The guard: one rank fails, all stop; a rank that leaves early or never comes is named.

Note [How a rank ends]
    * By an uncaught exception: `sys.excepthook` prints the traceback and aborts the world, at once.  (Finalizing MPI,
      as Python's normal end would, waits for the others, which wait for this rank.)
    * By the end of its program or `sys.exit`: an exit handler marks the rank as leaving, waits until all ranks are
      (they may still compute, so without limit), and finalizes MPI.  If another rank waits for this one in a
      collective, it waits in vain: that rank's watchdog ends the job.  Python does not tell exit handlers the exit
      code, so `sys.exit(3)` is noticed in the same way, or by the starter at the end.
    * By a signal or `os._exit`: mpirun notices, and so do the watchdogs of the same host, by the missing process.

The watchdog is a thread that looks four times a second at what this rank waits in, if it waits.
"""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rushlight_distributed.board import Board, Mirror
from rushlight_distributed.communicator import MpiCommunicator
from rushlight_distributed.contract import BETWEEN, Contract, ContractError, Site, disagreement, line_of
from rushlight_tensor.core.straight import module_of

TICK_S = 0.25
SURE_S = 2.0  # a circle of waiting ranks is reported when it has lasted so long
FAR_S = 4.0  # what other hosts tell may be a second old: only a wait that is longer counts
WARN_S = 5.0  # then at twice the time again

# Cells: what the rank does, its process, and what it waits in: since when, for whom (a set of places among the ranks of
# its host, as bits), in which contract, under which number, with which fingerprint.
_STATE, _PID, _SINCE_MS, _WAITS_FOR, _CONTRACT, _NUMBER, _FINGERPRINT, _CELLS = range(8)
_RUNNING, _LEAVING = 1, 2
_MIRROR_TICKS = 4
_WHERE_BYTES = 256


class Guard:
    """Made once per process, when MPI comes up; lives until the process ends."""

    def __init__(self, mpi: Any, *, finalizes: bool) -> None:
        self._mpi, self._finalizes = mpi, finalizes
        self._comm = mpi.COMM_WORLD.Dup()
        self.rank: int = self._comm.Get_rank()
        self.size: int = self._comm.Get_size()
        self.timeout_s = float("inf")
        self.contracts: list[Contract] = []
        self.before_leaving: list[Callable[[], None]] = []
        self._board = Board(MpiCommunicator(self._comm), _CELLS, _WHERE_BYTES, everyone=True)
        several_hosts = len(self._board.here) < self.size
        self._mirror = Mirror(self._board, MpiCommunicator(mpi.COMM_WORLD.Dup())) if several_hosts else None
        self._row = self._board.row(self.rank)
        self._board.cell[self._row + _STATE], self._board.cell[self._row + _PID] = _RUNNING, os.getpid()
        self._owner, self._over = os.getpid(), threading.Event()
        self._waits: dict[Contract, tuple[int, float, float]] = {}  # number, since when, when to warn next
        self._previous_hook = sys.excepthook
        sys.excepthook = self._on_exception
        atexit.register(self._leave)
        threading.Thread(target=self._watch, daemon=True, name="rushlight-watchdog").start()

    # -- how this rank ends -------------------------------------------------------------------------------------------

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if os.getpid() != self._owner:  # a child process of this rank has no MPI
            self._previous_hook(kind, error, trace)
            return
        if isinstance(error, ContractError):
            trace = _without_our_end(trace)
        if self._previous_hook is sys.__excepthook__:
            head = f"rank {self.rank} of {self.size} ends the job:\n"
            # In one piece: other ranks may be failing on the same line at the same time.
            sys.stderr.write(head + "".join(traceback.format_exception(kind, error, trace)))
        else:
            self._previous_hook(kind, error, trace)
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        self.abort(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else code or 1)

    def abort(self, code: int) -> None:
        """End all ranks, now."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(0.05)  # mpirun reads this rank's last words before it reads that the job is over
        if not self._mpi.Is_finalized():
            self._mpi.COMM_WORLD.Abort(code)
        os._exit(code)

    def _leave(self) -> None:
        if os.getpid() != self._owner or self._mpi.Is_finalized():
            return
        for prepare in self.before_leaving:
            try:
                prepare()
            except Exception as error:
                self._on_exception(type(error), error, error.__traceback__)
        self._board.cell[self._row + _STATE] = _LEAVING
        everyone = self._comm.Ibarrier()
        pause_s = 0.0005
        while not everyone.Test():
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.05)
        self._over.set()
        for contract in self.contracts:
            try:
                contract.settle()
            except ContractError as error:
                self._on_exception(ContractError, error, None)
        if self._finalizes:
            self._mpi.Finalize()

    # -- the watchdog -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        suspected = ""
        for turn in itertools.count():
            if self._over.wait(TICK_S):
                return
            if self._mirror is not None and turn % _MIRROR_TICKS == 0:
                self._mirror.turn()
            try:
                found = self._look()
            except ContractError as error:
                found = str(error)
            # Seen twice, since a single look may fall between two writes of another rank. The first line says what is
            # wrong; the others, where the ranks are, may change while they move.
            what = found.partition("\n")[0]
            if what and what == suspected and not self._over.is_set():
                self._on_exception(ContractError, ContractError(found), _trace_to(_main_frames()))
            suspected = what

    def _look(self) -> str:
        """Why this rank waits in vain; empty if it does not."""
        now, vain, bits, since = time.monotonic(), "", 0, 0.0
        inside: tuple[int, int, int] = (0, 0, 0)
        self._tell_where()
        for contract in list(self.contracts):
            number = contract.pending()
            known = self._waits.get(contract)
            if not number:
                self._waits.pop(contract, None)
                continue
            if known is None or known[0] != number:
                self._waits[contract] = known = (number, now, now + WARN_S)
            waited_s = now - known[1]
            if waited_s < 2 * TICK_S:
                continue
            if number > 0:
                contract.compare()
                inside = (contract.id, number, contract.fingerprint())
            missing = contract.missing()
            late = missing or self._late_elsewhere(contract, number)
            vain = vain or self._in_vain(contract, missing, late, waited_s)
            if number > 0 and waited_s > FAR_S:
                self._compare_far(contract, number)
            if now >= known[2] and late:
                self._waits[contract] = (number, known[1], now + 2 * waited_s)
                sys.stderr.write(self._waiting(contract, late, f"has waited {waited_s:.0f} s") + "\n")
            for rank in missing:
                bits |= 1 << self._board.here.index(rank)
            since = max(since, known[1])
        cell, row = self._board.cell, self._row
        cell[row + _SINCE_MS] = int(since * 1000)
        cell[row + _WAITS_FOR] = bits & (1 << 62) - 1 if self._main_thread_waits() else 0
        cell[row + _CONTRACT], cell[row + _NUMBER], cell[row + _FINGERPRINT] = inside
        return vain or self._deadlock(now)

    def _in_vain(self, contract: Contract, missing: list[int], late: list[int], waited_s: float) -> str:
        for rank in late:
            pid = self._board.cell[self._board.row(rank) + _PID]
            near = rank in missing
            if self._board.cell[self._board.row(rank) + _STATE] == _LEAVING and (near or waited_s > FAR_S):
                why = f"rank {rank} has left: it came to the end of its program, or called sys.exit"
            elif near and not _alive(pid):
                why = f"rank {rank} is gone: its process {pid} was killed, or called os._exit"
            else:
                continue
            return self._waiting(contract, [rank], "waits in vain") + f"\n  {why}"
        if waited_s > self.timeout_s and late:
            return self._waiting(contract, late, f"has waited longer than the time limit of {self.timeout_s:g} s")
        return ""

    def _late_elsewhere(self, contract: Contract, number: int) -> list[int]:
        """Ranks of other hosts that are not known to be in the same collective."""
        cell, late = self._board.cell, []
        for rank in contract.far:
            row = self._board.row(rank)
            if (cell[row + _CONTRACT], cell[row + _NUMBER]) != (contract.id, number):
                late.append(rank)
        return late

    def _compare_far(self, contract: Contract, number: int) -> None:
        """Raise ContractError if a rank of another host waits in something else under the same number."""
        cell = self._board.cell
        for rank in contract.far:
            row = self._board.row(rank)
            same_place = (cell[row + _CONTRACT], cell[row + _NUMBER]) == (contract.id, number)
            if same_place and cell[row + _FINGERPRINT] != contract.fingerprint():
                raise disagreement(number, contract.name, {self.rank: contract.here(), rank: self._where(rank).strip()})

    def _deadlock(self, now: float) -> str:
        """The ranks of this host in a circle of waits, this rank among them, that has lasted long enough."""

        def circle_through(path: list[int]) -> list[int]:
            row = self._board.row(path[-1])
            waits_for = self._board.cell[row + _WAITS_FOR]
            if not waits_for or now - self._board.cell[row + _SINCE_MS] / 1000 < SURE_S:
                return []
            for place, rank in enumerate(self._board.here):
                if waits_for >> place & 1:
                    found = path if rank == self.rank else [] if rank in path else circle_through([*path, rank])
                    if found:
                        return found
            return []

        circle = circle_through([self.rank])
        if not circle:
            return ""
        places = "\n".join(f"  rank {rank}{self._where(rank)}" for rank in circle)
        return f"ranks wait for one another in different collectives, for ever:\n{places}"

    def _waiting(self, contract: Contract, missing: list[int], how: str) -> str:
        lines = [f"rank {self.rank} {how} in {contract.here()}, {contract.name}, for:"]
        for rank in missing:
            last = "" if rank in contract.far else f"; last in {contract.last_of(rank)}"
            lines.append(f"  rank {rank}{self._where(rank)}{last}")
        return "\n".join(lines)

    # -- where the ranks are ------------------------------------------------------------------------------------------

    def _tell_where(self) -> None:
        frame = next((f for f in _main_frames() if not module_of(f).startswith(BETWEEN)), None)
        inside = ""
        for contract in list(self.contracts):
            if contract.pending() and self._main_thread_waits():
                inside = f", in {contract.here().partition(' at ')[0]}"
        if frame is not None:
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}{inside}"
            self._board.write_text(self.rank, 0, where, _WHERE_BYTES)

    def _where(self, rank: int) -> str:
        row = self._board.row(rank)
        if self._board.cell[row + _STATE] == _LEAVING:
            return ""
        near = rank in self._board.here
        stopped = " (its process is stopped)" if near and _state(self._board.cell[row + _PID]) in ("T", "t") else ""
        return f" is at {self._board.read_text(rank, 0, _WHERE_BYTES) or 'its start'}{stopped}"

    @staticmethod
    def _main_thread_waits() -> bool:
        """Whether the main thread is inside this package; if only a background thread is, the program goes on."""
        return any(module_of(frame).startswith("rushlight_distributed") for frame in _main_frames()[:8])


@contextmanager
def waiting_aloud(who: str, what: str, site: Site | None) -> Iterator[None]:
    """While all ranks must come for anything to be known of them: say after 5, 10, 20 … s that this one waits."""
    over = threading.Event()

    def speak() -> None:
        waited_s = WARN_S
        while not over.wait(waited_s - (waited_s / 2 if waited_s > WARN_S else 0)):
            sys.stderr.write(
                f"{who} has waited {waited_s:.0f} s in {what} at {line_of(site)}: not all other ranks call it\n"
            )
            waited_s *= 2

    threading.Thread(target=speak, daemon=True, name="rushlight-waiting").start()
    try:
        yield
    finally:
        over.set()


def _state(pid: int) -> str:
    """Linux's letter for what a process does; empty elsewhere."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) not in ("Z", "X")


def _without_our_end(trace: TracebackType | None) -> TracebackType | None:
    """The traceback up to the line of the program that called this package."""
    at, last = trace, None
    while at is not None:
        if not module_of(at.tb_frame).startswith(BETWEEN):
            last = at
        at = at.tb_next
    if last is not None:
        last.tb_next = None
    return trace


def _main_frames() -> list[FrameType]:
    """Where the main thread is, from the inside out.

    CPython 3.11 makes the object of an outer frame when it is asked for; a collection meanwhile may let the main thread
    run on, and what comes then may be anything.  So nothing is collected here, and what is no frame ends the walk.
    """
    frames: list[FrameType] = []
    collects = gc.isenabled()
    gc.disable()
    try:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        while type(frame) is FrameType:
            frames.append(frame)
            frame = frame.f_back
    finally:
        if collects:
            gc.enable()
    return frames


def _trace_to(frames: list[FrameType]) -> TracebackType | None:
    """A traceback that ends where a thread is."""
    trace: TracebackType | None = None
    for frame in frames:
        trace = TracebackType(trace, frame, frame.f_lasti, frame.f_lineno)
    return trace
