"""One job: start the ranks, pass on what they say, and tell the truth about how they ended.

Note [How a job ended]
mpirun's exit code alone proves nothing: it is 0 when a rank of MPICH leaves with `os._exit(0)`, or when a node of Open
MPI is lost.  So a job succeeded when mpirun says 0 *and* every rank left its mark "finished".  The guilty rank is the
first that reported an error or whose control socket ended without the mark; what falls after it was pulled down by it.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from rushlight_launch.channel import ADDRESS, LINE_BYTES, TOKEN, Listener, decode
from rushlight_launch.console import Console
from rushlight_launch.interfaces import hosts_of, listening_addresses
from rushlight_launch.mpi import LaunchError, Mpi, environment, exported_names, files_in, find_mpi
from rushlight_launch.reception import STRANGERS, Reception
from rushlight_launch.signals import Stop, caught

START_TIMEOUT_S = 60.0
GRACE_S = 2.0  # what mpirun gets to end a failed job by itself, and then what its ranks get after SIGTERM
DRAIN_S = 1.0  # what the sockets get to end after mpirun did: a stray grandchild may hold them open

Show = Literal["all", "rank0", "none"]


@dataclass(frozen=True)
class LaunchResult:
    """How a job ended.

    Attributes:
        exit_code: 0 only if every rank finished; else the guilty rank's, 128 + signal, or 124 after the time limit.
        failed_rank: The first rank that failed; None when there was none or it is unknown.
        report: What to tell the user about the failure, the guilty rank's traceback last; empty on success.
        log_dir: Folder with `rank<k>.log`.
        wall_s: Seconds from start to end.
        stopped_by: The signal, SIGINT or SIGTERM, that ended it; empty where the job ended by itself.
    """

    exit_code: int
    failed_rank: int | None
    report: str
    log_dir: Path
    wall_s: float
    stopped_by: str = ""


@dataclass
class _Rank:
    started: bool = False
    finished: bool = False
    lost: bool = False
    pid: int = 0
    host: str = ""
    error: dict[str, Any] | None = None


@dataclass
class _Connection:
    end: socket.socket
    rank: int
    stream: str
    pending: bytes = b""  # the beginning of a line on the control socket


def launch(
    script: str,
    args: Sequence[str] = (),
    *,
    ranks: int,
    hostfile: str | None = None,
    timeout_s: float | None = None,
    log_dir: str | os.PathLike[str] | None = None,
    module: bool = False,
    show: Show = "all",
    env: Mapping[str, str] | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
) -> LaunchResult:
    """Run a Python script on `ranks` MPI processes and wait for its end.

    Args:
        script: Path of a Python file, or a module's name with `module=True`.
        args: The script's arguments.
        ranks: Number of processes, at least 1.
        hostfile: The MPI's own hostfile; without one all ranks run on this host.
        timeout_s: Limit for the whole job in seconds; None for no limit.
        log_dir: Folder for the logs; `outputs/launch/<time>-<script>` by default.
        show: See `Console`.
        env: Variables on top of this process's own.
        start_timeout_s: When no rank has started after so many seconds, the job is started once more, then given up.

    Raises:
        LaunchError: The job cannot be started as asked. A job that ran and failed is no exception: see the result.
    """
    _check(script, ranks, hostfile, module, timeout_s)
    mpi = find_mpi()
    folder = _log_folder(log_dir, script)
    words = [sys.executable, "-m", "rushlight_launch.rank", *(["-m"] if module else []), script, *args]
    with caught() as stop:
        for attempt in (1, 2):
            if stop.by:
                report = f"rushlight launch: stopped by {stop.by} before any rank was started\n"
                return LaunchResult(stop.exit_code, None, report, folder, 0.0, stop.by)
            job = _Job(ranks, Console(folder, show, {"stdout": sys.stdout, "stderr": sys.stderr}), stop)
            wanted = {**os.environ, **(env or {})}
            result = job.run(mpi, words, hostfile, environment(wanted, ranks), timeout_s, start_timeout_s, folder)
            if attempt == 2 or not job.never_started:
                return result
    raise AssertionError("unreachable")


def _check(script: str, ranks: int, hostfile: str | None, module: bool, timeout_s: float | None) -> None:
    if ranks < 1:
        raise LaunchError(f"number of ranks must be at least 1, got {ranks}")
    if timeout_s is not None and timeout_s <= 0:
        raise LaunchError(f"timeout must be positive, got {timeout_s}")
    if not module and not Path(script).is_file():
        raise LaunchError(f"script not found: {script} (from {os.getcwd()}); give a Python file, or -m MODULE")
    if hostfile is not None and not Path(hostfile).is_file():
        raise LaunchError(f"hostfile not found: {hostfile}; it holds one host per line, such as `node1 slots=4`")


def _log_folder(log_dir: str | os.PathLike[str] | None, script: str) -> Path:
    now = datetime.now()
    name = f"{now:%Y-%m-%d_%H-%M-%S}-{now.microsecond // 1000:03d}-{Path(script).stem}"
    folder = Path(log_dir) if log_dir is not None else Path("outputs") / "launch" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise LaunchError(f"cannot write logs to {folder}: {error.strerror}; choose another --log-dir") from None
    return folder


@dataclass
class _Job:
    size: int
    console: Console
    stop: Stop = field(default_factory=Stop)  # a signal that asks for the end
    ranks: list[_Rank] = field(init=False)
    failures: list[int] = field(default_factory=list)  # ranks in the order in which they failed
    notices: dict[str, bytes] = field(default_factory=lambda: {"stdout": b"", "stderr": b""})  # mpirun's own words
    stopped_by: str = ""  # why the launcher ended the job: a signal's name, or a limit
    never_started: bool = False

    def __post_init__(self) -> None:
        self.ranks = [_Rank() for _ in range(self.size)]
        self._selector = selectors.DefaultSelector()
        self._open = 2  # mpirun's pipes, and the ranks' sockets

    def run(
        self,
        mpi: Mpi,
        words: list[str],
        hostfile: str | None,
        env: dict[str, str],
        timeout_s: float | None,
        start_timeout_s: float,
        folder: Path,
    ) -> LaunchResult:
        began = time.monotonic()
        listener = Listener([] if hostfile is None else listening_addresses(hosts_of(hostfile)))
        env |= {ADDRESS: listener.address, TOKEN: listener.token}
        if listener.folder is not None:
            env = {**files_in(listener.folder), **env}
        _allow_files(3 * self.size + STRANGERS)
        try:
            self._reception = Reception(self._selector, listener, self.size, self._welcome)
            process = subprocess.Popen(
                mpi.command(self.size, hostfile, exported_names(env)) + words,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches the launcher only, which then ends the job in order
            )
            for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
                assert pipe is not None
                self._selector.register(pipe, selectors.EVENT_READ, partial(self._notice, name, pipe))
            self._watch(process, began, timeout_s, start_timeout_s)
            code = process.wait()
        finally:
            for key in list(self._selector.get_map().values()):
                self._selector.unregister(key.fileobj)
                if not isinstance(key.fileobj, int):
                    key.fileobj.close()  # type: ignore[attr-defined]
            listener.close()
            self.console.close()
        return self._result(code, folder, time.monotonic() - began)

    # -- while it runs ------------------------------------------------------------------------------------------------

    def _watch(
        self, process: subprocess.Popen[bytes], began: float, timeout_s: float | None, start_timeout_s: float
    ) -> None:
        """Serve the sockets until mpirun has ended; end it when it must not go on."""
        failed_at = 0.0
        while process.poll() is None:
            self._serve(0.05)
            now = time.monotonic()
            if self.failures and not failed_at:
                failed_at = now
            self.stopped_by = self.stopped_by or self.stop.by
            if timeout_s is not None and now - began > timeout_s:
                self.stopped_by = f"the time limit of {timeout_s:g} s"
            if now - began > start_timeout_s and not any(r.started for r in self.ranks):
                self.never_started = True
                self.stopped_by = f"the start limit: no rank started within {start_timeout_s:g} s"
            if self.stopped_by or (failed_at and now - failed_at > GRACE_S):
                self._end(process)
        until = time.monotonic() + DRAIN_S
        while self._open and time.monotonic() < until:
            self._serve(0.05)

    def _serve(self, wait_s: float) -> None:
        for key, _ in self._selector.select(wait_s):
            if self._selector.get_map().get(key.fd) is key:  # an earlier one of this round may have closed it
                key.data()
        self._reception.tidy()

    def _welcome(self, end: socket.socket, rank: int, stream: str) -> None:
        self._open += 1
        self._selector.register(end, selectors.EVENT_READ, partial(self._receive, _Connection(end, rank, stream)))

    def _notice(self, name: str, pipe: IO[bytes]) -> None:
        data = os.read(pipe.fileno(), 65536)
        if data:
            self.notices[name] += data
            self.console.log("mpirun", data)
        else:
            self._selector.unregister(pipe)
            pipe.close()
            self._open -= 1

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.end.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data and connection.stream != "control":
            self.console.write(connection.rank, connection.stream, data)
            return
        *lines, connection.pending = (connection.pending + data).split(b"\n")
        for line in lines:
            self._event(connection.rank, decode(line))
        if not data or len(connection.pending) > LINE_BYTES:
            self._selector.unregister(connection.end)
            connection.end.close()
            self._open -= 1
            if connection.stream == "control":
                self._lost(connection.rank)

    def _event(self, number: int, event: dict[str, Any]) -> None:
        rank = self.ranks[number]
        match event:
            case {"event": "start", "pid": int(pid), "host": str(host)}:
                rank.started, rank.pid, rank.host = True, pid, host
            case {"event": "error", "code": int(), "text": str()}:
                rank.error = event
                self._failed(number)
            case {"event": "finished"}:
                rank.finished = True

    def _lost(self, number: int) -> None:
        rank = self.ranks[number]
        rank.lost = True
        if not rank.finished and rank.error is None:
            self._failed(number)

    def _failed(self, number: int) -> None:
        if not self.stop.by:  # else it was pulled down by the end that the user asked for
            self.failures.append(number)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """SIGTERM, then SIGKILL, to mpirun and all it started on this host."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            until = time.monotonic() + GRACE_S
            while process.poll() is None and time.monotonic() < until:
                self._serve(0.05)
            if process.poll() is not None:
                break
        here = socket.gethostname()
        for rank in self.ranks:
            # Its control socket is still open, so the pid is still its own.
            if rank.started and not rank.lost and rank.host == here:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank.pid, signal.SIGKILL)

    # -- when it is over ----------------------------------------------------------------------------------------------

    def _result(self, code: int, folder: Path, wall_s: float) -> LaunchResult:
        guilty = None if self.stopped_by and not self._reported() else next(iter(self.failures), None)
        if code == 0 and not self.stopped_by and guilty is None and all(r.finished for r in self.ranks):
            return LaunchResult(0, None, "", folder, wall_s)
        where = f"after {wall_s:.1f} s; logs: {folder}{self.console.gaps}\n"
        said = self.notices["stderr"].decode(errors="replace")
        if guilty is not None:
            exit_code, what, text = self._explain(guilty, code)
            others = f"; the other {self.size - 1} were stopped" if self.size > 1 else ""
            report = f"rushlight launch: rank {guilty} {what}{others} {where}{text}"
            return LaunchResult(exit_code, guilty, report, folder, wall_s)
        if self.stopped_by:
            signalled = self.stopped_by == self.stop.by
            exit_code = self.stop.exit_code if signalled else 124
            missing = ", ".join(str(i) for i, r in enumerate(self.ranks) if not r.finished) or "none"
            report = f"rushlight launch: stopped by {self.stopped_by}, ranks not finished: {missing}; {where}"
            report = said + report if self.never_started else report
            return LaunchResult(exit_code, None, report, folder, wall_s, self.stop.by if signalled else "")
        if "not enough slots" in said:
            raise LaunchError(f"too few slots for {self.size} ranks; add hosts or slots to the hostfile\n{said}")
        started = sum(r.started for r in self.ranks)
        report = f"rushlight launch: mpirun ended with {code}, {started} of {self.size} ranks had started; {where}"
        return LaunchResult(_positive(code) or 1, None, said + report, folder, wall_s)

    def _reported(self) -> bool:
        return bool(self.failures) and self.ranks[self.failures[0]].error is not None

    def _explain(self, guilty: int, code: int) -> tuple[int, str, str]:
        error = self.ranks[guilty].error
        if error is not None:
            return error["code"], f"failed with exit code {error['code']}", error["text"]
        told = re.search(
            rb"EXIT STRING: .*\(signal (\d+)\)", self.notices["stdout"]
        )  # of MPICH, whose code is the signal
        code, words = 128 + int(told[1]) if told else _positive(code), self.console.last_words(guilty)
        text = f"The last it wrote to stderr:\n{words}" if words else ""
        if code > 128:
            with contextlib.suppress(ValueError):
                return code, f"was killed by {signal.Signals(code - 128).name}", text
        return code or 1, f"left without finishing (killed, or os._exit; mpirun's exit code is {code})", text


def _allow_files(count: int) -> None:
    """Room for so many descriptors, where the system's limit for this process can be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 128
    if soft != resource.RLIM_INFINITY and soft < needed:
        ceiling = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, ceiling), hard))


def _positive(code: int) -> int:
    """A shell's form of an exit status, where Python counts signals below zero."""
    return 128 - code if code < 0 else code
