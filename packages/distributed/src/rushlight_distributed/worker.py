"""Work that was started and not yet waited for, and the thread that does it.

Note [Blocking calls in a thread]
    `MPI_Iallreduce` makes no progress while the program computes (open-mpi/ompi#9759, and measured), a thread with the
    blocking call does.  So asynchronous collectives are blocking ones, in one thread per group, in the order of their
    start: the order that all ranks share.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from datetime import timedelta


class Work:
    """A collective that was started with `async_op=True`; `wait()` before the result is used."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run, self._done = run, threading.Event()
        self._error: BaseException | None = None
        self._told = False

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Block until it is done; True.

        Raises:
            RuntimeError: It failed, or is not done after `timeout`.
        """
        if not self._done.wait(None if timeout is None else timeout.total_seconds()):
            assert timeout is not None
            raise RuntimeError(f"Work.wait: the collective is not done after {timeout.total_seconds():g} s")
        if self._error is not None:
            self._told = True
            raise self._error
        return True

    def is_completed(self) -> bool:
        return self._done.is_set()

    def is_success(self) -> bool:
        return self._done.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        self._told = True
        return self._error

    def _perform(self, failed: list[Work]) -> None:
        try:
            self._run()
        except BaseException as error:
            self._error = error
            failed.append(self)  # whoever sees that it is done finds it here
        finally:
            self._done.set()


class Worker:
    """A thread that performs works one after another; started with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._works: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: Work | None = None
        self._failed: list[Work] = []

    def start(self, run: Callable[[], None]) -> Work:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, daemon=True, name=self._name)
            self._thread.start()
        self._last = work = Work(run)
        self._works.put(work)
        return work

    def drain(self) -> None:
        """Block until all that was started is done; its errors are told by `Work.wait`."""
        last = self._last
        if last is not None:
            last._done.wait()
            self._last = None

    def tell_failure(self) -> None:
        """Raise the first error that nobody has been told."""
        while self._failed:
            work = self._failed.pop(0)
            if work._error is not None and not work._told:
                work._told = True
                raise work._error

    def _loop(self) -> None:
        while True:
            self._works.get()._perform(self._failed)
