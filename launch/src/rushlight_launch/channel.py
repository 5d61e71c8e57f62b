"""The line between the launcher and its ranks: three sockets per rank (stdout, stderr, control).

Sockets and not mpirun's forwarding, because they keep each rank's bytes apart, show a progress bar as it moves, survive
a SIGKILL of the rank with nothing lost, and end at the moment when the rank ends.  A socket opens with one line of
JSON, `{"token", "rank", "stream"}`; on the control socket one line of JSON per event follows:

    {"event": "start", "pid", "host"}
    {"event": "error", "code", "text"}      an uncaught exception or a SystemExit other than 0, with its traceback
    {"event": "finished"}                   the last thing a rank does when all went well
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Any

ADDRESS, TOKEN = "RUSHLIGHT_LAUNCH_ADDRESS", "RUSHLIGHT_LAUNCH_TOKEN"
STREAMS = ("stdout", "stderr", "control")


class Listener:
    """The launcher's end: a unix socket on one host, TCP when ranks are on several.

    Attributes:
        folder: On one host, a folder that is in memory and gone with the job; else None.
    """

    def __init__(self, *, several_hosts: bool) -> None:
        self.token = secrets.token_hex(16)
        self._folder = None if several_hosts else tempfile.TemporaryDirectory(prefix="rushlight-", dir=memory_folder())
        self.folder = None if self._folder is None else self._folder.name
        if self._folder is None:
            self.socket = socket.create_server(("", 0))
            self.address = f"tcp:{socket.gethostname()}:{self.socket.getsockname()[1]}"
        else:
            path = str(Path(self._folder.name) / "launch")
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.bind(path)
            self.socket.listen(1024)
            self.address = f"unix:{path}"

    def close(self) -> None:
        self.socket.close()
        if self._folder is not None:
            self._folder.cleanup()


def memory_folder() -> str:
    """Where files are memory: /dev/shm if there is one, else the temporary folder."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


def connect(address: str, token: str, rank: int, stream: str) -> socket.socket:
    """A rank's end of one socket, introduced to the launcher."""
    kind, _, where = address.partition(":")
    if kind == "unix":
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.connect(where)
    else:
        host, _, port = where.rpartition(":")
        end = socket.create_connection((host, int(port)), timeout=30)
        end.settimeout(None)
    end.sendall(encode({"token": token, "rank": rank, "stream": stream}))
    return end


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """One message; an empty one for bytes that are none, as from a stranger on the port."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
