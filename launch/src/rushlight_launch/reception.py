"""Who may speak to the launcher: strangers wait at the door, few at a time and briefly, and nothing of theirs is read.

Whoever floods the port can only make ranks try again: a connection that has not introduced itself holds 37 bytes and a
file descriptor, for ten seconds at most and only while newer ones leave it room.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from rushlight_launch.channel import ANSWER_BYTES, CHALLENGE_BYTES, WELCOME, Listener, introduced

STRANGERS = 256
PATIENCE_S = 10.0
_PER_TURN = 16  # few enough that a rank's answer is heard before newcomers take its place


@dataclass
class _Stranger:
    end: socket.socket
    since: float
    challenge: bytes = field(default_factory=lambda: secrets.token_bytes(CHALLENGE_BYTES))
    said: bytes = b""


class Reception:
    """Accepts connections of a listener and hands over those that belong to the job, each rank's three once.

    Args:
        selector: Whose loop calls the functions that are registered with it.
        ranks: How many there are.
        welcome: Called with the socket, the rank and the stream.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: Listener,
        ranks: int,
        welcome: Callable[[socket.socket, int, str], None],
    ) -> None:
        self._selector, self._token, self._ranks, self._welcome = selector, listener.token, ranks, welcome
        self._strangers: dict[socket.socket, _Stranger] = {}  # the oldest first
        self._known: set[tuple[int, str]] = set()
        for door in listener.sockets:
            selector.register(door, selectors.EVENT_READ, partial(self._knock, door))

    def tidy(self) -> None:
        """Close what has waited too long."""
        late = time.monotonic() - PATIENCE_S
        while self._strangers and next(iter(self._strangers.values())).since < late:
            self._turn_away()

    def _knock(self, door: socket.socket) -> None:
        for _ in range(_PER_TURN):
            try:
                end, _ = door.accept()
            except BlockingIOError:
                return
            except OSError:  # it has gone again, or there is no descriptor left
                self._turn_away()
                return
            if len(self._strangers) >= STRANGERS:
                self._turn_away()
            end.setblocking(False)
            stranger = _Stranger(end, time.monotonic())
            self._strangers[end] = stranger
            self._selector.register(end, selectors.EVENT_READ, partial(self._listen, stranger))
            with contextlib.suppress(OSError):
                end.send(stranger.challenge)

    def _listen(self, stranger: _Stranger) -> None:
        try:
            data = stranger.end.recv(ANSWER_BYTES - len(stranger.said))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        stranger.said += data
        if data and len(stranger.said) < ANSWER_BYTES:
            return
        who = introduced(self._token, stranger.challenge, stranger.said) if data else None
        if who is None or who[0] >= self._ranks or who in self._known or not self._greet(stranger.end):
            self._turn_away(stranger.end)
            return
        del self._strangers[stranger.end]
        self._selector.unregister(stranger.end)
        self._known.add(who)
        self._welcome(stranger.end, *who)

    @staticmethod
    def _greet(end: socket.socket) -> bool:
        try:
            return end.send(WELCOME) == 1
        except OSError:
            return False

    def _turn_away(self, end: socket.socket | None = None) -> None:
        """Close a stranger's connection, by default the one that has waited longest."""
        if end is None:
            end = next(iter(self._strangers), None)
        if end is not None and self._strangers.pop(end, None) is not None:
            self._selector.unregister(end)
            end.close()
