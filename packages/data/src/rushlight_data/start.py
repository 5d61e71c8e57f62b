"""Starting worker processes: from which process they descend, and how their end is noticed.

Note [How workers start]
    Scripts written for PyTorch on Linux define their dataset at the top level, have no `if __name__ == "__main__"`
    guard, and put lambdas and open files into their datasets: they count on workers being forked.  So that is what
    happens, as long as it is safe.  After MPI_Init it is not: fabrics register memory for the network card, and a fork
    makes the card write to pages that the process no longer sees.  Therefore

        fork     by default: the worker is a copy of the training process; nothing needs to be picklable.
        server   when the process was started by mpirun or srun, MPI is initialised, on macOS, or when asked for
                 ("spawn", "forkserver"): one clean Python process per training process, started on first use by
                 vfork + exec (which copies no pages), without MPI's variables, forks the workers.

    A worker from the server gets its dataset pickled.  It never runs the user's script: what `__main__` defines travels
    by value (cloudpickle), so that scripts need no guard here either.  Large arrays of the dataset travel once, in an
    anonymous file that all workers map copy-on-write.

    A forked worker has one thread, whatever its parent had.  OpenBLAS prepares for that by itself; an OpenMP pool does
    not, but a team of one thread never asks for the pool, so kernels use one thread in a forked child.  Locks that
    other threads may hold at the fork are made anew in the child, by those who own them.

    Every worker holds a descriptor of the training process (a pidfd) and ends when that process does, even by SIGKILL
    and in the midst of loading; the training process holds one of every worker, and so learns of a death at once.
    Kernels before 5.3 have no pidfds: there the connection that breaks tells of a death, and the parent that changes.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rushlight_data.blocks import SMALL_BYTES, Mapped, anonymous_file
from rushlight_data.channel import Channel, Closed, dumps, loads
from rushlight_data.worker import PAGE_BYTES, Place, Plan, work
from rushlight_tensor.core.dtypes import dtype, get_default_dtype, set_default_dtype

# Where an mpirun tells a rank its number; as in rushlight_distributed.mpi, which stands above this package.
_LAUNCHED = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PALS_RANKID")
_ASK_AGAIN_S = 0.005
_MPI_VARIABLES = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPI_", "MV2_COMM_WORLD_", "PALS_")


@dataclass(slots=True)
class Worker:
    """A worker as the training process sees it."""

    number: int
    pid: int
    channel: Channel
    page: np.ndarray
    crash_log_fd: int
    pidfd: int  # readable when the worker has ended; -1 where the system has no such thing
    reap: Callable[[], tuple[bool, int | None]]  # whether it has ended, and its wait status where that can be known
    blocks: Mapped = field(default_factory=Mapped)
    status: int | None = None
    ended: bool = False

    def wait(self, timeout_s: float) -> bool:
        """Wait for the worker's end; whether it has come."""
        deadline = time.monotonic() + timeout_s
        if self.pidfd >= 0 and not self.ended:
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            poll.poll(max(0, timeout_s * 1000))
        while not self.ended:
            self.ended, self.status = self.reap()
            if not self.ended and time.monotonic() >= deadline:
                break
            time.sleep(0 if self.ended else _ASK_AGAIN_S)
        return self.ended

    def kill(self) -> None:
        """End the worker now."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Give back descriptors; memory that batches still use stays."""
        self.channel.close()
        for fd in (self.crash_log_fd, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self.crash_log_fd = self.pidfd = -1


def why_not_fork() -> str | None:
    """Why this process must not be forked; None when it may."""
    for name in _LAUNCHED:
        if name in os.environ:
            return f"this process was started by an MPI launcher ({name} is set)"
    if mpi_is_initialized():
        return "MPI is initialised in this process"
    if sys.platform == "darwin":
        return "system libraries of macOS do not survive a fork"
    return None


def mpi_is_initialized() -> bool:
    """Whether mpi4py has initialised MPI in this process (it is not imported for the question)."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized()


def start_workers(plan: Plan, method: str | None) -> list[Worker]:
    """Start `plan.num_workers` workers.  See Note [How workers start].

    Args:
        method: "fork", "spawn" or "forkserver"; None: the safe one.
    Raises:
        RuntimeError: When they cannot be started, such as for a dataset that cannot be pickled.
    """
    if not hasattr(os, "fork"):
        raise RuntimeError("worker processes need a system with fork; use num_workers=0")
    reason = why_not_fork() if method is None else None
    if method in ("spawn", "forkserver"):
        reason = f"multiprocessing_context={method!r} was asked for"
    if method == "fork" and mpi_is_initialized():
        warnings.warn(
            "workers are forked from a process in which MPI is initialised, as multiprocessing_context='fork' asks; "
            "this crashes on InfiniBand and similar fabrics; leave multiprocessing_context out",
            RuntimeWarning,
            stacklevel=4,
        )
    workers: list[Worker] = []
    try:
        if reason is None:
            for number in range(plan.num_workers):
                workers.append(_fork(plan, number, workers))
        else:
            _start_from_server(plan, reason, workers)
    except BaseException:
        for worker in workers:
            worker.kill()
            worker.wait(1.0)
            worker.close()
        raise
    return workers


# ----------------------------------------------------------------------------------------------------------------- fork


def _fork(plan: Plan, number: int, siblings: list[Worker]) -> Worker:
    ours, theirs = socket.socketpair()
    page = np.frombuffer(mmap.mmap(-1, PAGE_BYTES), dtype=np.int64)
    crash_log_fd = anonymous_file(PAGE_BYTES)
    trainer_pidfd = _pidfd(os.getpid())
    sys.stdout.flush()  # what is buffered would be written by both processes
    sys.stderr.flush()
    with signals_held_back() as mask, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)  # 3.12: there are threads
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                for sibling in siblings:
                    sibling.channel.sock.close()  # no Worker.close, which hangs up for the training process too
                channel = Channel(theirs)
                work(Place(number, channel, page, crash_log_fd, trainer_pidfd, mask, by_value=False), lambda: plan)
            finally:
                os._exit(1)
    theirs.close()
    if trainer_pidfd >= 0:
        os.close(trainer_pidfd)
    return Worker(number, pid, Channel(ours), page, crash_log_fd, _pidfd(pid), lambda: reaped(pid))


@contextlib.contextmanager
def signals_held_back() -> Iterator[set[Any]]:
    """No signal reaches this process, nor a child started meanwhile until it wants to; gives the mask of before.

    A worker would run the training process's handlers, such as the one that writes a checkpoint, until it has its own.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def reaped(pid: int) -> tuple[bool, int | None]:
    """Whether a child has ended, and its wait status where that is known."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # SIGCHLD is ignored, or the user's own code waits for any child
        return True, None
    return (True, status) if ended else (False, None)


def _pidfd(pid: int) -> int:
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return -1


# --------------------------------------------------------------------------------------------------------------- server


def _start_from_server(plan: Plan, reason: str, workers: list[Worker]) -> None:
    try:
        payload, buffers, modules = dumps(plan, by_value=True)
    except Exception as error:
        raise RuntimeError(
            f"DataLoader cannot send its dataset to worker processes: {error}. The dataset, collate_fn and "
            f"worker_init_fn must be picklable because {reason}, so workers start from a clean process; open files "
            "and connections in worker_init_fn or at the first __getitem__, or use num_workers=0"
        ) from error
    total = sum(buffer.nbytes for buffer in buffers)
    arrays_fd = -1
    try:
        if total >= SMALL_BYTES:
            arrays_fd = anonymous_file(total)
            room = np.frombuffer(mmap.mmap(arrays_fd, total), dtype=np.uint8)
            np.concatenate(buffers, out=room)
        sizes = [buffer.nbytes for buffer in buffers]
        server = _Server.running()
        for number in range(plan.num_workers):
            worker = server.start(number, modules)
            workers.append(worker)
            with contextlib.suppress(Closed):  # a dead worker is reported with the first batch
                if arrays_fd >= 0:
                    worker.channel.send((payload, sizes), fds=[arrays_fd])
                else:
                    worker.channel.send((payload, sizes), tail=buffers)
    finally:
        if arrays_fd >= 0:
            os.close(arrays_fd)


def receive_plan(channel: Channel) -> Plan:
    """In a worker from the server: the plan that `_start_from_server` sends."""
    frame = channel.receive()
    payload, sizes = frame.message
    data: Any = frame.tail
    if frame.fds:
        data = memoryview(mmap.mmap(frame.fds[0], sum(sizes), access=mmap.ACCESS_COPY))
        os.close(frame.fds[0])
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    plan: Plan = loads(payload, [data[end - size : end] for size, end in zip(sizes, ends, strict=True)])
    return plan


@dataclass(slots=True)
class Surroundings:
    """What a forked worker would have inherited, for one from the server: as it is when the worker is started."""

    directory: str
    environment: dict[str, str]
    path: list[str]
    arguments: list[str]
    default_dtype: dtype

    @classmethod
    def here(cls) -> Surroundings:
        """Those of this process, without MPI's variables."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_MPI_VARIABLES)}
        # Should the dataset import mpi4py, it must not become an MPI process; and a worker has one thread.
        environment |= {"MPI4PY_RC_INITIALIZE": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        path = [entry or os.getcwd() for entry in sys.path]
        return cls(os.getcwd(), environment, path, sys.argv, get_default_dtype())

    def take_on(self) -> None:
        """Make them those of this process."""
        os.chdir(self.directory)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path[:] = self.path
        sys.argv[:] = self.arguments
        set_default_dtype(self.default_dtype)


class _Server:
    """The training process's connection to the clean process that forks workers for it."""

    _current: _Server | None = None
    _lock = threading.RLock()

    def __init__(self) -> None:
        if not sys.executable:
            raise RuntimeError("DataLoader cannot start workers: sys.executable is not set; use num_workers=0")
        ours, theirs = socket.socketpair()
        here = Surroundings.here()
        code = f"import sys; sys.path[:] = {here.path!r}; "
        code += f"from rushlight_data.server import serve; serve({theirs.fileno()})"
        self.pid = os.getpid()
        with signals_held_back():
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=here.environment,
            )
        theirs.close()
        self.channel = Channel(ours)
        atexit.register(self.stop)

    @classmethod
    def running(cls) -> _Server:
        """The server of this process, started when there is none."""
        with cls._lock:
            current = cls._current
            if current is None or current.pid != os.getpid() or current.process.poll() is not None:
                current = cls._current = _Server()
            return current

    def start(self, number: int, modules: set[str]) -> Worker:
        """A new worker, which waits for its plan."""
        ours, theirs = socket.socketpair()
        page_fd, crash_log_fd = anonymous_file(PAGE_BYTES), anonymous_file(PAGE_BYTES)
        trainer_pidfd = _pidfd(os.getpid())
        fds = [theirs.fileno(), page_fd, crash_log_fd]
        pid = self._ask(("start", number, modules, Surroundings.here()), fds + [trainer_pidfd] * (trainer_pidfd >= 0))
        page = np.frombuffer(mmap.mmap(page_fd, PAGE_BYTES), dtype=np.int64)
        theirs.close()
        os.close(page_fd)
        if trainer_pidfd >= 0:
            os.close(trainer_pidfd)
        # The server does not wait for its children until asked to: until then the process id is the worker's.
        return Worker(number, pid, Channel(ours), page, crash_log_fd, _pidfd(pid), lambda: self._reap(pid))

    def _ask(self, request: tuple[Any, ...], fds: list[int]) -> Any:
        with self._lock:
            try:
                self.channel.send(request, fds=fds)
                return self.channel.receive().message
            except Closed as error:
                status = self.process.wait()
                raise RuntimeError(
                    f"DataLoader: the process that starts workers (pid {self.process.pid}) ended with status {status}; "
                    "its output is above"
                ) from error

    def _reap(self, pid: int) -> tuple[bool, int | None]:
        try:
            answer: tuple[bool, int | None] = self._ask(("reap", pid), [])
        except RuntimeError:  # the server has ended, and the worker does when its connection does
            return True, None
        return answer

    def stop(self) -> None:
        """End the server, which ends when its connection does."""
        if self.pid == os.getpid():
            self.channel.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2.0)
