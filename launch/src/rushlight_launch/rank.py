"""What runs inside each rank: the user's script as `__main__`, its output and its fate told to the launcher.

Started by mpirun as `python -m rushlight_launch.rank [-m] SCRIPT ARGS…`.  However the script ends, the launcher knows:
an exception or a non-zero exit is reported with its traceback and ends the process at once (finalizing MPI would wait
for ranks that wait for this one); a good end is marked as the very last step, so `os._exit(0)` leaves no mark.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import os
import runpy
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rushlight_launch.channel import ADDRESS, TEXT_BYTES, TOKEN, connect, encode
from rushlight_launch.mpi import RANK_VARIABLES

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    rank = next(int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ)
    address, token = os.environ.pop(ADDRESS), os.environ.pop(TOKEN)
    control = connect(address, token, rank, "control")
    for stream, fd in (("stdout", 1), ("stderr", 2)):
        with connect(address, token, rank, stream) as end:
            os.dup2(end.fileno(), fd)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    control.sendall(encode({"event": "start", "pid": os.getpid(), "host": socket.gethostname()}))
    faulthandler.enable(all_threads=False)
    _die_with_parent()
    threading.Thread(target=_die_with_launcher, args=(control, address), daemon=True, name="rushlight-launch").start()
    # First registered is last run: after every other handler of the program had its say.
    owner = os.getpid()
    atexit.register(lambda: control.sendall(encode({"event": "finished"})) if os.getpid() == owner else None)
    sys.excepthook = _reporter(control)
    try:
        _run(argv)
    except SystemExit as leave:
        if leave.code not in (None, 0):
            _fail(leave)
    except BaseException as error:
        _fail(error)


def _run(argv: list[str]) -> None:
    if argv[0] == "-m":
        sys.argv = argv[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        sys.path[0] = str(Path(argv[0]).resolve().parent)
        runpy.run_path(argv[0], run_name="__main__")


def _fail(error: BaseException) -> None:
    """Report and leave. A library that put its own hook over ours (it may abort the world) has the first word."""
    sys.excepthook(type(error), error, error.__traceback__)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code(error))


def exit_code(error: BaseException) -> int:
    """The code with which Python would have left after `error`, never 0."""
    if isinstance(error, SystemExit):
        return error.code & 0xFF or 1 if isinstance(error.code, int) else 1
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def _of_the_script(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames that start the script."""
    ours = (__file__, runpy.__file__, "<frozen runpy>")
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    return trace


def _reporter(control: socket.socket) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, _of_the_script(trace)))
        if len(text) > TEXT_BYTES:
            text = f"{text[: TEXT_BYTES // 2]}\n[… cut …]\n{text[-TEXT_BYTES // 2 :]}"
        control.sendall(encode({"event": "error", "code": exit_code(error), "text": text}))

    return report


def _die_with_parent() -> None:
    """Linux: a killed mpirun takes its ranks along."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with_launcher(control: socket.socket, address: str) -> None:
    """The launcher never writes: the socket ends when the launcher is gone, and then so are the job and its folder."""
    with contextlib.suppress(OSError):
        while control.recv(1024):
            pass
    if address.startswith("unix:"):
        shutil.rmtree(Path(address.removeprefix("unix:")).parent, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
