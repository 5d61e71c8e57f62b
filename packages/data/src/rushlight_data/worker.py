"""A worker process: what it does from its start to its end, and what it tells the training process.

The training process sends tasks `(released blocks, epoch, batch number, indices)`; the worker answers each with one
message `(epoch, batch number, kind, body, …)`, except those of an epoch that was given up meanwhile.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import random
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from rushlight_data import blocks
from rushlight_data.channel import Channel, Closed, dumps
from rushlight_data.fetch import Exhausted, make_fetch
from rushlight_tensor.random import manual_seed

DATA, EXHAUSTED, FAILED = range(3)  # kinds of answers

# What the page that a worker shares with the training process holds, as int64.
BATCH, POSITION, EPOCH = range(3)  # batch and place in it being loaded (-1: none), written by the worker; current epoch
PAGE_BYTES = 4096

_ASK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Who a worker process is: its number, how many there are, its seed and its copy of the dataset."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


@dataclass(slots=True)
class Plan:
    """What a worker is to do."""

    dataset: Any
    batched: bool
    collate_fn: Callable[[Any], Any]
    drop_last: bool
    init_fn: Callable[[int], Any] | None
    num_workers: int
    base_seed: int


@dataclass(slots=True)
class Place:
    """What a worker process is given by whoever starts it; descriptors are its own."""

    number: int
    channel: Channel
    page: np.ndarray
    crash_log_fd: int  # for the traceback of a crash such as a segmentation fault
    trainer_pidfd: int  # of the training process; -1 where the system has no such thing
    signal_mask: set[Any]  # to be set when signals can be taken
    by_value: bool  # this process has another `__main__` than the training process


@dataclass(slots=True)
class Failure:
    """An exception in a worker, as far as it can travel."""

    kind: bytes  # its pickled type
    name: str
    text: str  # the traceback
    sample: Any  # index of the sample being loaded; None where it is not known


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker process: who it is.  In the training process: None."""
    return _info


def work(place: Place, get_plan: Callable[[], Plan]) -> None:
    """Answer tasks until the training process hangs up or is gone, then end this process without its exit handlers.

    `get_plan` is called in the worker, so that its errors are reported as the dataset's are.
    """
    status = 1
    try:
        _settle(place)
        _answer(place, get_plan)
    except Closed:
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _settle(place: Place) -> None:
    """Become a process of its own: signals, garbage, random streams, and an end when the training process ends."""
    for number in signal.valid_signals():
        # What the training process handles (Ctrl-C; SIGTERM before a preemption) is its business: it decides when to
        # end.  Not SIG_IGN, which programs that the dataset starts would inherit.
        if callable(signal.getsignal(number)):
            signal.signal(number, leave_to_trainer)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, place.signal_mask)
    faulthandler.enable(place.crash_log_fd, all_threads=False)
    gc.freeze()  # a collection would write to every inherited object, and so copy the parent's memory page by page
    threading.Thread(target=_end_with, args=(place.trainer_pidfd, os.getppid()), daemon=True).start()


def leave_to_trainer(*_: Any) -> None:
    """A signal handler that does nothing."""


def _end_with(trainer_pidfd: int, parent: int) -> None:
    """Wait until the training process is gone, however it ended, and end this process in the midst of what it does."""
    if trainer_pidfd >= 0:
        poll = select.poll()
        poll.register(trainer_pidfd, select.POLLIN)
        poll.poll()
    while trainer_pidfd < 0 and os.getppid() == parent:  # the training process, or the server, which ends with it
        time.sleep(_ASK_AGAIN_S)
    os._exit(1)


def _seed(plan: Plan, worker: int) -> WorkerInfo:
    seed = plan.base_seed + worker
    random.seed(seed)
    manual_seed(seed)
    lock: Any = cast(Any, np.random).get_bit_generator().lock
    lock._at_fork_reinit()  # another thread may have been drawing at the fork
    words = [worker, plan.base_seed & 0xFFFFFFFF, plan.base_seed >> 32, 0]
    np.random.seed(np.random.SeedSequence(words).generate_state(4))  # PyTorch's, number for number
    return WorkerInfo(worker, plan.num_workers, seed, plan.dataset)


def _answer(place: Place, get_plan: Callable[[], Plan]) -> None:
    """The worker's loop; ends with Closed."""
    global _info
    channel, page = place.channel, place.page
    pool = blocks.open_pool()
    fetch: Callable[[Any], Any] | None = None
    broken: Failure | None = None
    fetch_epoch = exhausted_epoch = -1
    try:
        plan = get_plan()
        _info = _seed(plan, place.number)
        if plan.init_fn is not None:
            plan.init_fn(place.number)
    except Closed:
        raise
    except BaseException as error:
        broken = _failure(error, None, place.by_value)
    while True:
        released, epoch, number, indices = channel.receive().message
        pool.returned(released)
        if epoch < page[EPOCH] or epoch == exhausted_epoch:
            continue
        page[BATCH], page[POSITION] = number, -1
        if broken is not None:
            channel.send((epoch, number, FAILED, broken))
            continue
        try:
            if fetch is None or fetch_epoch != epoch:
                fetch, fetch_epoch = None, epoch
                fetch = make_fetch(plan.dataset, plan.batched, plan.collate_fn, plan.drop_last, page[POSITION:])
            _send(fetch(indices), epoch, number, pool, place)
        except Closed:
            raise
        except Exhausted:
            exhausted_epoch = epoch
            channel.send((epoch, number, EXHAUSTED, None))
        except BaseException as error:
            channel.send((epoch, number, FAILED, _failure(error, _sample(plan, indices, page), place.by_value)))
        finally:
            pool.begin()
        page[BATCH] = -1


def _sample(plan: Plan, indices: Any, page: np.ndarray) -> Any:
    if not plan.batched:
        return indices
    position = int(page[POSITION])
    return indices[position] if position >= 0 else None


def _send(data: Any, epoch: int, number: int, pool: blocks.Pool, place: Place) -> None:
    try:
        body, buffers, _ = dumps(data, place.by_value)
    except Exception as error:
        raise TypeError(
            f"the batch (a {type(data).__name__}) cannot be sent to the training process: {error}; "
            "return tensors, arrays, numbers, strings or picklable objects from the dataset and collate_fn"
        ) from error
    where = pool.pack(buffers)
    new, pool.new = pool.new, []
    forgotten, pool.forgotten = pool.forgotten, []
    tail = buffers if where is None else []
    message = (
        epoch, number, DATA, body, where, [part.nbytes for part in tail],
        [(n, nbytes) for n, nbytes, _ in new], forgotten, pool.take_warning(),
    )  # fmt: skip
    try:
        place.channel.send(message, tail, [fd for _, _, fd in new])
    finally:
        for _, _, fd in new:
            os.close(fd)


def _failure(error: BaseException, sample: Any, by_value: bool) -> Failure:
    kind = type(error)
    try:
        pickled = dumps(kind, by_value)[0]
    except Exception:  # a type that only the worker knows
        pickled = dumps(RuntimeError, by_value)[0]
    try:
        sample = sample if sample is None or isinstance(sample, int) else repr(sample)
        text = "".join(traceback.format_exception(error))
    except Exception as another:  # an exception whose __str__ fails
        lines = traceback.format_tb(error.__traceback__)
        text = f"Traceback (most recent call last):\n{''.join(lines)}{kind.__name__} (its text: {another!r})\n"
    return Failure(pickled, kind.__name__, text, sample)
