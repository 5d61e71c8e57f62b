"""Atomic files: a path holds the old content or the whole new one, whatever happens while it is written.

The content goes to a file in the same folder that has no name yet (Linux: `O_TMPFILE`, it vanishes with the process) or
a temporary one, is flushed to the disk, and takes the place of the old file in one step.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file object for the new content of `path`; the change is made when the block ends without an exception.

    Permissions of an existing file are kept; a symbolic link stays one.  Devices and pipes are written directly.

    Raises:
        OSError: The folder cannot be written or is full; the old content is untouched and nothing is left behind.
    """
    target = os.path.realpath(os.fspath(path))
    try:
        mode: int | None = os.stat(target).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        with open(target, "wb") as file:
            yield file
        return
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "the parent directory does not exist; make it first", folder)
    temporary = os.path.join(folder, f".{name}.{os.urandom(8).hex()}.tmp")
    descriptor, named = _open_new(folder, temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if mode is not None:
                os.fchmod(descriptor, stat.S_IMODE(mode))
            os.fsync(descriptor)
            if not named:
                _give_name(descriptor, temporary)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _open_new(folder: str, temporary: str) -> tuple[int, bool]:
    """A descriptor of a new file, and whether it has its temporary name already."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):  # a file system without nameless files
            return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666), False
    return os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666), True


def _give_name(descriptor: int, temporary: str) -> None:
    folder = os.open(os.path.dirname(temporary), os.O_RDONLY | os.O_DIRECTORY)
    try:  # `src_dir_fd` makes Python call linkat(), which alone can follow the link in /proc
        os.link(f"/proc/self/fd/{descriptor}", temporary, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _sync_folder(folder: str) -> None:
    with suppress(OSError):  # some network file systems refuse it
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
