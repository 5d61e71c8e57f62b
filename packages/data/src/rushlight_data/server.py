"""The clean process that forks workers: it never initialised MPI, has no threads, ends with the training process."""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import signal
import socket
import sys
from typing import Any

import numpy as np

from rushlight_data.channel import Channel, Closed, Frame
from rushlight_data.start import Surroundings, reaped, receive_plan
from rushlight_data.worker import PAGE_BYTES, Place, leave_to_trainer, work


def serve(fd: int) -> None:
    """Answer the requests of the training process on the socket `fd` until it hangs up.

    `("start", number, modules, surroundings)`, with descriptors of the worker's socket, page, crash log and of the
    training process, is answered with a process id; `("reap", pid)` with whether that process has ended and its
    wait status.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, leave_to_trainer)  # a preempted job must not lose its workers before it has ended
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    channel = Channel(socket.socket(fileno=fd))
    with contextlib.suppress(Closed):
        while True:
            frame = channel.receive()
            request, *arguments = frame.message
            answer = _start(channel, frame, *arguments) if request == "start" else reaped(*arguments)
            channel.send(answer)


def _start(channel: Channel, frame: Frame, number: int, modules: set[str], surroundings: Surroundings) -> int:
    surroundings.take_on()
    for name in modules:
        if name not in sys.modules:  # here once, rather than in every worker
            with contextlib.suppress(Exception):  # the worker will meet the same error and report it
                importlib.import_module(name)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            channel.sock.close()
            _be_worker(frame.fds, number)
        finally:
            os._exit(1)
    for fd in frame.fds:
        os.close(fd)
    return pid


def _be_worker(fds: list[int], number: int) -> None:
    sock_fd, page_fd, crash_log_fd, *rest = fds
    page: Any = np.frombuffer(mmap.mmap(page_fd, PAGE_BYTES), dtype=np.int64)
    os.close(page_fd)
    channel = Channel(socket.socket(fileno=sock_fd))
    place = Place(number, channel, page, crash_log_fd, rest[0] if rest else -1, set(), by_value=True)
    work(place, lambda: receive_plan(channel))
