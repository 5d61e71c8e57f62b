"""The line between the launcher and its ranks: three sockets per rank (stdout, stderr, control).

Sockets and not mpirun's forwarding, because they keep each rank's bytes apart, show a progress bar as it moves, survive
a SIGKILL of the rank with nothing lost, and end at the moment when the rank ends.  After the introduction the sockets
of stdout and stderr carry bytes; on the control socket one line of JSON per event follows:

    {"event": "start", "pid", "host"}
    {"event": "error", "code", "text"}      an uncaught exception or a SystemExit other than 0, with its traceback
    {"event": "finished"}                   the last thing a rank does when all went well

Note [Introduction]
    The port may be seen by strangers.  The launcher speaks first: a challenge of its own for each connection.  The
    answer has a fixed size: a MAC of challenge and content under the job's token, and the content, a rank's number and
    a stream's.  Nothing of it is looked at unless the MAC is right; the token itself never travels, and an answer that
    was overheard fits no other challenge.  One byte says welcome.  A rank that gets none tries again, since a launcher
    under attack may have shown it the door to make room (`reception.py`).
    The token reaches the ranks in their environment, which only their user can read; a command line all can see.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import socket
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

ADDRESS, TOKEN = "RUSHLIGHT_LAUNCH_ADDRESS", "RUSHLIGHT_LAUNCH_TOKEN"
STREAMS = ("stdout", "stderr", "control")

CHALLENGE_BYTES = 32
_CONTENT = struct.Struct(">IB")  # the rank, and which of STREAMS
ANSWER_BYTES = hashlib.sha256().digest_size + _CONTENT.size
WELCOME = b"\x06"
LINE_BYTES = 1 << 20  # of one event
TEXT_BYTES = 1 << 18  # of a traceback in it
CONNECT_TIMEOUT_S = 30.0
_TRY_TIMEOUT_S = 5.0


class Listener:
    """The launcher's end: a unix socket on one host, TCP on given addresses when ranks are on several.

    Args:
        addresses: Those of this host to listen on; none for a unix socket.

    Attributes:
        folder: On one host, a folder that is in memory and gone with the job; else None.
        sockets: To accept from.
    """

    def __init__(self, addresses: list[str]) -> None:
        self.token = secrets.token_hex(32)
        self._folder = None if addresses else tempfile.TemporaryDirectory(prefix="rushlight-", dir=memory_folder())
        self.folder = None if self._folder is None else self._folder.name
        if self._folder is None:
            self.sockets = [_bound(address) for address in addresses]
            ends = [end.getsockname() for end in self.sockets]
            self.address = "tcp:" + ",".join(f"{end[0]}:{end[1]}" for end in ends)
        else:
            path = str(Path(self._folder.name) / "launch")
            self.sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)]
            self.sockets[0].bind(path)
            self.sockets[0].listen(1024)
            self.address = f"unix:{path}"
        for end in self.sockets:
            end.setblocking(False)

    def close(self) -> None:
        for end in self.sockets:
            end.close()
        if self._folder is not None:
            self._folder.cleanup()


def _bound(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, 0), family=family, backlog=1024)


def memory_folder() -> str:
    """Where files are memory: /dev/shm if there is one, else the temporary folder."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


def answer(token: str, challenge: bytes, rank: int, stream: str) -> bytes:
    """What a rank says to a challenge.  See Note [Introduction]."""
    content = _CONTENT.pack(rank, STREAMS.index(stream))
    return hmac.digest(token.encode(), challenge + content, "sha256") + content


def introduced(token: str, challenge: bytes, said: bytes) -> tuple[int, str] | None:
    """The rank and the stream of an answer; None unless it was made with the token."""
    mac, content = said[: -_CONTENT.size], said[-_CONTENT.size :]
    if not hmac.compare_digest(mac, hmac.digest(token.encode(), challenge + content, "sha256")):
        return None
    rank, stream = _CONTENT.unpack(content)
    return (rank, STREAMS[stream]) if stream < len(STREAMS) else None


def connect(address: str, token: str, rank: int, stream: str) -> socket.socket:
    """A rank's end of one socket, introduced to the launcher. OSError if it cannot be reached."""
    kind, _, where = address.partition(":")
    places = where.split(",") if kind == "tcp" else [where]
    until = time.monotonic() + CONNECT_TIMEOUT_S
    failure: OSError = ConnectionError(f"no launcher at {address}")
    while True:
        for place in places:
            try:
                return _welcomed(kind, place, token, rank, stream)
            except OSError as error:
                failure = error
        if time.monotonic() > until:
            raise failure
        time.sleep(0.05)


def _welcomed(kind: str, place: str, token: str, rank: int, stream: str) -> socket.socket:
    if kind == "unix":
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        host, _, port = place.rpartition(":")
        end = socket.create_connection((host, int(port)), timeout=_TRY_TIMEOUT_S)
    with contextlib.ExitStack() as unless_welcome:
        unless_welcome.callback(end.close)
        end.settimeout(_TRY_TIMEOUT_S)
        if kind == "unix":
            end.connect(place)
        challenge = b""
        while len(challenge) < CHALLENGE_BYTES:
            challenge += _some(end, CHALLENGE_BYTES - len(challenge))
        end.sendall(answer(token, challenge, rank, stream))
        if _some(end, 1) != WELCOME:
            raise ConnectionError(f"{place} is not this job's launcher")
        end.settimeout(None)
        unless_welcome.pop_all()
    return end


def _some(end: socket.socket, count: int) -> bytes:
    data = end.recv(count)
    if not data:
        raise ConnectionError("the launcher closed the connection")
    return data


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """One message; an empty one for bytes that are none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
