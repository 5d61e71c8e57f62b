"""The folder of a job is that job's alone.

Note [One job in a folder]
    Results, checkpoints and logs of two jobs in one folder would take each other's place, and a resumed job would pair
    the words of one with the weights of the other.  So the default name is claimed by making the folder, and gets a
    number where another job begun in the same second has it; a folder that the user names is refused while another job
    is at work in it, and where it holds checkpoints that this job does not go on from.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rushlight_train import checkpoint


class FolderTaken(RuntimeError):
    """The folder is another job's; the message says what to do."""


def claim(name: str) -> str:
    """Make a folder that was not there, of this name or with the first free number behind it; returns its name."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    for i in itertools.count(1):
        here = path if i == 1 else path.with_name(f"{path.name}-{i}")
        try:
            here.mkdir()
        except FileExistsError:
            continue
        return str(here)
    raise AssertionError("there is always another number")


@contextmanager
def held(folder: Path, resume_from: str | None) -> Iterator[None]:
    """Keep other jobs out of the folder; raises FolderTaken where one is in it, or has left its checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / ".running", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderTaken(f"{_shown(folder)}: another job is at work there; {_ELSEWHERE}") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system without locks
                raise
        old = list(checkpoint.every(folder / "checkpoints"))
        if old and not (resume_from and Path(resume_from).resolve() == old[-1].resolve()):
            raise FolderTaken(
                f"{_shown(folder)} holds the checkpoints of an earlier job, up to {old[-1].name}; "
                f"resume_from={_shown(folder)} goes on with it; otherwise remove it, or {_ELSEWHERE}"
            )
        yield
    finally:
        os.close(fd)  # and with it the lock; the file stays, since the next job may hold it already


_ELSEWHERE = "name another folder with hydra.run.dir (of a sweep: hydra.sweep.dir)"


def _shown(folder: Path) -> str:
    return os.path.relpath(folder)
