"""SIGINT and SIGTERM, taken down for whoever is at work, who then ends it in order.

Note [One signal ends all of it]
    A command may run many jobs, and a signal may come at any time: while ranks run, between two jobs, while the next
    one is prepared.  The outermost `caught` installs the handlers, and every one inside it sees the same `Stop`; so no
    moment is left in which a signal ends one job only, or is lost.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Stop:
    """What came so far: `by` is the name of the first signal, empty before."""

    by: str = ""

    @property
    def exit_code(self) -> int:
        """A shell's code for it, 0 while nothing came."""
        return 128 + signal.Signals[self.by] if self.by else 0


_outermost: Stop | None = None


@contextlib.contextmanager
def caught() -> Iterator[Stop]:
    """Take down SIGINT and SIGTERM meanwhile; outside the main thread, which alone may install handlers, do nothing."""
    global _outermost
    if _outermost is not None or threading.current_thread() is not threading.main_thread():
        yield _outermost or Stop()
        return
    stop = _outermost = Stop()

    def take(number: int, _: object) -> None:
        stop.by = stop.by or signal.Signals(number).name

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        _outermost = None
        for number, handler in before.items():
            signal.signal(number, handler)
