"""Iterating with workers: which task goes to whom, results in order, and what happens when a worker fails.

Note [Order of tasks]
    Batch n goes to worker n modulo the number of workers, as long as all of them have samples left, whatever their
    speed: which worker's random stream a sample sees must not depend on timing.  Every worker has up to
    `prefetch_factor` tasks; a new one is handed out whenever a batch is taken.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import time
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

from rushlight_data.channel import Closed, Frame, loads
from rushlight_data.start import Worker, start_workers
from rushlight_data.worker import BATCH, DATA, EPOCH, EXHAUSTED, FAILED, POSITION, Failure, Plan

_ORDERLY_END_S = 1.0  # what workers get to finish their sample before they are killed
_STALL_NOTICE_S = 60.0
_MOST_INDICES_SHOWN = 8


class WorkerIterator:
    """One loader's workers, and the iteration over one epoch of batches at a time.

    Args:
        plan: What the workers do.
        method: How they are started; None: the safe way.
        prefetch: Tasks that a worker has at a time.
        timeout_s: How long to wait for a batch; 0: as long as it takes.
        in_order: Whether batches come in the sampler's order, rather than as they get ready.
        persistent: Keep the workers at the end of an epoch.
    """

    def __init__(
        self, plan: Plan, method: str | None, prefetch: int, timeout_s: float, in_order: bool, persistent: bool
    ) -> None:
        self._prefetch = max(1, prefetch)
        self._timeout_s = timeout_s
        self._in_order = in_order
        self._persistent = persistent
        self._failed = False
        self._epoch = -1
        self.owner = os.getpid()
        self.workers = start_workers(plan, method)
        self.close = weakref.finalize(self, _end, self.workers, self.owner)  # also at exit
        self._poll = select.poll()
        self._by_fd: dict[int, Worker] = {}
        for worker in self.workers:
            for fd in (worker.channel.fileno(), worker.pidfd):
                if fd >= 0:
                    self._poll.register(fd, select.POLLIN)
                    self._by_fd[fd] = worker

    def start_epoch(self, tasks: Iterator[Any]) -> None:
        """Begin an epoch: `tasks` gives the indices of one batch after the other."""
        self._epoch += 1
        self._tasks = tasks
        self._handed_out = 0  # tasks, and so the number of the next one
        self._given = 0  # the number of the next batch in order
        self._pending: dict[int, tuple[Worker, Any]] = {}  # number → who does it, indices
        self._ready: dict[int, Any] = {}
        self._active = list(self.workers)
        self._turn = 0
        for worker in self.workers:
            worker.page[EPOCH] = self._epoch  # tasks of an epoch that was given up are skipped
        for _ in range(self._prefetch * len(self.workers)):
            self._hand_out()

    def __iter__(self) -> WorkerIterator:
        return self

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            RuntimeError: When a worker died, or after `timeout_s`.
            Exception: What the dataset or collate_fn raised in a worker; of the same type, if that is made from a text.
        """
        if self._failed:
            raise RuntimeError(
                "this DataLoader iterator has ended because a worker failed; iterate over the loader anew"
            )
        if not self.close.alive:
            raise StopIteration
        try:
            number = self._await_next()
        except BaseException:  # Ctrl-C, timeout, death: nobody waits for what the workers are doing
            self._failed = True
            if self.close.detach() is not None:
                _end(self.workers, self.owner, 0.0)
            raise
        if number is None:
            if not self._persistent:
                self.close()
            raise StopIteration
        self._given = number + 1 if self._in_order else self._given
        result = self._ready.pop(number)
        self._hand_out()
        if isinstance(result, BaseException):
            try:
                raise result
            finally:
                del result  # or the traceback keeps this frame, the frame the exception: a cycle
        return result

    def _hand_out(self) -> None:
        if not self._active:
            return
        task = next(self._tasks, _NO_TASK)
        if task is _NO_TASK:
            return
        if self._in_order:  # See Note [Order of tasks]
            worker = self._active[self._turn % len(self._active)]
            self._turn = (self._turn + 1) % len(self._active)
        else:
            busy = [w.number for w, _ in self._pending.values()]
            worker = min(self._active, key=lambda w: busy.count(w.number))
        self._pending[self._handed_out] = (worker, task)
        worker.channel.post((worker.blocks.released(), self._epoch, self._handed_out, task))
        self._handed_out += 1

    def _await_next(self) -> int | None:
        """Wait until a batch can be given; its number, or None at the end of the epoch."""
        began = time.monotonic()
        noticed = False
        while True:
            if self._in_order:
                while (
                    self._given < self._handed_out
                    and self._given not in self._pending
                    and self._given not in self._ready
                ):
                    self._given += 1  # a task that came after its worker's last sample
                if self._given in self._ready:
                    return self._given
            elif self._ready:
                return min(self._ready)
            if not self._pending:
                return None
            waited = time.monotonic() - began
            if self._timeout_s and waited >= self._timeout_s:
                raise RuntimeError(f"DataLoader timed out after {self._timeout_s} seconds {self._waiting_for()}")
            if waited >= _STALL_NOTICE_S and not noticed:
                noticed = True
                warnings.warn(
                    f"DataLoader has waited for {waited:.0f} s {self._waiting_for()}", RuntimeWarning, stacklevel=3
                )
            self._take_messages(min(_STALL_NOTICE_S, self._timeout_s - waited if self._timeout_s else _STALL_NOTICE_S))

    def _take_messages(self, timeout_s: float) -> None:
        for worker in self.workers:
            if not worker.channel.flush():
                timeout_s = min(timeout_s, 0.01)  # a large task is half sent
        events = self._poll.poll(timeout_s * 1000)
        gone = None
        for worker in {self._by_fd[fd].number: self._by_fd[fd] for fd, _ in events}.values():
            try:
                for frame in worker.channel.poll():
                    self._take(worker, frame)
            except Closed:
                gone = worker
            if worker.pidfd >= 0 and worker.wait(0):
                gone = worker
        if gone is not None:
            raise RuntimeError(_death(gone, {n: task for n, (worker, task) in self._pending.items() if worker is gone}))

    def _take(self, worker: Worker, frame: Frame) -> None:
        epoch, number, kind, body, *rest = frame.message
        where, sizes, new, forgotten, warning = rest or (None, [], [], [], None)
        for (block, nbytes), fd in zip(new, frame.fds, strict=True):
            worker.blocks.add(block, nbytes, fd)
        worker.blocks.forget(forgotten)
        if warning is not None:
            _warn_once(warning)
        buffers = worker.blocks.buffers(where) if where is not None else _cut(frame.tail, sizes)
        if epoch != self._epoch:
            return  # of an epoch that was given up; dropping the buffers returns their memory
        _, task = self._pending.pop(number)
        if kind == DATA:
            self._ready[number] = loads(body, buffers)
        elif kind == FAILED:
            self._ready[number] = _revived(body, worker, number, task)
        elif kind == EXHAUSTED:
            self._retire(worker)
            self._hand_out()

    def _retire(self, worker: Worker) -> None:
        """An iterable dataset's worker has no more samples: its tasks will not be answered, others get new ones."""
        if worker in self._active:
            position = self._active.index(worker)
            self._active.remove(worker)
            self._turn -= position < self._turn
        for number in [n for n, (who, _) in self._pending.items() if who is worker]:
            del self._pending[number]

    def _waiting_for(self) -> str:
        number = min(self._pending)
        worker, task = self._pending[number]
        return f"waiting for worker {worker.number} (pid {worker.pid}), {_doing(worker, {number: task})}"


_NO_TASK = object()


def _cut(tail: memoryview, sizes: list[int]) -> list[memoryview]:
    buffers, start = [], 0
    for size in sizes:
        buffers.append(tail[start : start + size])
        start += size
    return buffers


def _end(workers: list[Worker], owner: int, grace_s: float = _ORDERLY_END_S) -> None:
    """Let workers end, kill those that do not in time, leave no zombie and no descriptor."""
    if os.getpid() != owner:
        return  # a copy in a forked child: these are its parent's
    for worker in workers:
        with contextlib.suppress(OSError):
            worker.channel.close()
    deadline = time.monotonic() + grace_s
    for worker in workers:
        if not worker.wait(deadline - time.monotonic()):
            worker.kill()
            worker.wait(5.0)
        worker.close()


# ------------------------------------------------------------------------------------------------------ what went wrong


class _Verbatim(str):
    """A text that KeyError shows as it is, rather than quoted and with its line breaks escaped."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _revived(failure: Failure, worker: Worker, number: int, task: Any) -> BaseException:
    """A worker's exception, to be raised in the training process."""
    sample = "" if failure.sample is None else f" at sample {failure.sample}"
    text = (
        f"Caught {failure.name} in DataLoader worker process {worker.number} (pid {worker.pid}){sample} of batch "
        f"{number} ({_shown(task)}).\nOriginal {failure.text}"
    )
    try:
        kind = pickle.loads(failure.kind)
        if issubclass(kind, Exception) and not issubclass(kind, (StopIteration, StopAsyncIteration)):
            revived = kind(_Verbatim(text) if issubclass(kind, KeyError) else text)
            if isinstance(revived, Exception):
                return revived
    except Exception:  # a type of the worker's own, or one that is not made from a text
        pass
    return RuntimeError(text)


def _death(worker: Worker, tasks: dict[int, Any]) -> str:
    """Who died, of what, and doing what."""
    worker.wait(1.0)
    end = "ended unexpectedly"
    if worker.status is not None and os.WIFSIGNALED(worker.status):
        number = os.WTERMSIG(worker.status)
        end = f"is killed by signal: {signal.strsignal(number)} ({signal.Signals(number).name})"
        if number in (signal.SIGKILL, signal.SIGBUS):
            end += f", often a sign of too little memory ({_memory_available()} available now)"
    elif worker.status is not None:
        end = f"exited unexpectedly with exit code {os.WEXITSTATUS(worker.status)}"
    text = f"DataLoader worker {worker.number} (pid {worker.pid}) {end}, {_doing(worker, tasks)}"
    crash = os.pread(worker.crash_log_fd, 4096, 0).rstrip(b"\0").decode(errors="replace")
    return f"{text}\nIts traceback:\n{crash}" if crash else text


def _doing(worker: Worker, tasks: dict[int, Any]) -> str:
    """What a worker is or was loading, from the page it shares."""
    number, position = int(worker.page[BATCH]), int(worker.page[POSITION])
    if number not in tasks:
        return f"before it began with batch {min(tasks)} ({_shown(tasks[min(tasks)])})" if tasks else "between batches"
    task = tasks[number]
    sample = f"sample {task[position]}, " if isinstance(task, (list, tuple)) and 0 <= position < len(task) else ""
    return f"loading {sample}batch {number} ({_shown(task)})"


def _shown(task: Any) -> str:
    if not isinstance(task, (list, tuple)):
        return "of an iterable dataset" if task is None else f"index {task!r}"
    if all(index is None for index in task):
        return f"{len(task)} samples of an iterable dataset"
    more = ", …" if len(task) > _MOST_INDICES_SHOWN else ""
    return "indices " + ", ".join(repr(index) for index in task[:_MOST_INDICES_SHOWN]) + more


def _memory_available() -> str:
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable"):
                return f"{int(line.split()[1]) / 2**20:.1f} GiB"
    return "unknown"


_warned = False


def _warn_once(failure: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"shared memory for batches cannot be had ({failure}); they are sent through a pipe, which is slower; "
            "lower batch_size, num_workers or prefetch_factor, or give the machine more memory",
            RuntimeWarning,
            stacklevel=5,
        )
