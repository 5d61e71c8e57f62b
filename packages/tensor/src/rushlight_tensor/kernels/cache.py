"""A folder of compiled libraries into which nobody else can have put anything: what is loaded is what was built.

Note [Cache]
    A file is named `<key>-<digest>.so`.  The key covers everything that decides the machine code: text, headers,
    compiler, flags and processor.  The digest is that of the file's own bytes, so a truncated or damaged file is
    recognised before it is mapped (mapping it would end the process with SIGBUS) and built again.  A build happens in a
    private folder inside the cache and is renamed into place: a killed compiler leaves a folder that the next build
    removes, never a half-written library.  A lock file lets many processes that start cold wait for one of them; where
    locks do not work they all compile, and the last rename wins.

Note [Whose code is loaded]
    Names and digests can be worked out by anybody, so they prove nothing; the folder does.  It is opened without
    following a link, and through that descriptor it must be a directory of the effective user with mode 0700: then
    nobody else (but root) can write, rename or replace anything in it, and a file that has its digest when it is read
    still has it when it is mapped.  Everything is done relative to the descriptor, the compiler's work included, so it
    does not matter who owns the folders above or what they do to the path meanwhile.  A folder whose user is root, or
    whom the user named in `RUSHLIGHT_CACHE`, is no exception: a cache shared by several users would be code of all for
    all.  Files have to be regular ones of the effective user, too, not writable by others: a wide folder may have been
    narrowed after something was put into it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_WAIT_FOR_OTHER_BUILD_S = 60.0
_ABANDONED_BUILD_S = 3600.0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would wait for a writer


class UntrustedFolder(Exception):
    """Somebody else may have put files into the folder; the message says why and what to do."""


class Folder:
    """An open cache folder.  See Note [Whose code is loaded]; use as a context manager."""

    def __init__(self, path: Path, create: bool = False) -> None:
        """Open the folder, made with mode 0700 if `create`.

        Raises:
            UntrustedFolder: It is not the effective user's alone.
            OSError: It does not exist or cannot be made.
        """
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
        if path.is_symlink():
            raise UntrustedFolder(f"{path} is a symbolic link; {_ADVICE}")
        self.path = path
        self._descriptor = os.open(path, _DIRECTORY)
        status = os.fstat(self._descriptor)
        mode, user = stat.S_IMODE(status.st_mode), os.geteuid()
        if status.st_uid != user or mode & 0o077:
            os.close(self._descriptor)
            whose = f"belongs to uid {status.st_uid}" if status.st_uid != user else f"has mode {mode:04o}"
            raise UntrustedFolder(f"{path} {whose}, so libraries in it need not be those of uid {user}; {_ADVICE}")

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)

    def find(self, key: str, load: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL | None:
        """The library of this key, if it is whole and loads; what is damaged or not ours is removed."""
        for name in os.listdir(self._descriptor):
            if not (name.startswith(key) and name.endswith(".so")):
                continue
            with suppress(OSError):  # a cache that cannot be written, or mounted noexec
                if self._is_sealed(key, name):
                    return load(self._reached(name))
                os.unlink(name, dir_fd=self._descriptor)
        return None

    def build(self, key: str, make: Callable[[Path, str], None], load: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
        """Compile in a private folder, move the result into the cache, load it from there.

        Args:
            key: What the library is found by.
            make: Called with a folder to run the compiler in, and the name of the file to make there.
            load: Called with the library's path.
        Raises:
            OSError: The folder cannot be written, or is mounted noexec.
        """
        self._remove_abandoned_builds()
        workplace = f".build-{secrets.token_hex(8)}"
        os.mkdir(workplace, mode=0o700, dir_fd=self._descriptor)
        try:
            make(Path(self._reached(workplace)), "kernel.so")
            made = f"{workplace}/kernel.so"
            os.chmod(made, 0o700, dir_fd=self._descriptor)  # whatever the umask
            digest = _digest(made, self._descriptor)
            if digest is None:
                raise OSError(f"{made}: not what the compiler made")
            name = f"{key}-{digest}.so"
            os.replace(made, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        finally:
            shutil.rmtree(workplace, ignore_errors=True, dir_fd=self._descriptor)
        return load(self._reached(name))

    @contextmanager
    def one_builder(self, key: str) -> Iterator[None]:
        """Wait while another process builds the same; correctness needs no lock, so any trouble ends the wait."""
        name = f"{key}.lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=self._descriptor)
        try:
            deadline = time.monotonic() + _WAIT_FOR_OTHER_BUILD_S
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.005)
                except OSError:
                    break  # a file system without locks
            yield
        finally:
            os.close(file)
            with suppress(OSError):
                os.unlink(name, dir_fd=self._descriptor)

    def _is_sealed(self, key: str, name: str) -> bool:
        digest = _digest(name, self._descriptor)
        return digest is not None and name == f"{key}-{digest}.so"

    def _reached(self, name: str) -> str:
        """A path that leads through the open descriptor; the folder's own path where the system has no such paths."""
        through = f"/proc/self/fd/{self._descriptor}"
        return f"{through if os.path.isdir(through) else self.path}/{name}"

    def _remove_abandoned_builds(self) -> None:
        for name in os.listdir(self._descriptor):
            if name.startswith(".build-"):
                with suppress(OSError):
                    age_s = time.time() - os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mtime
                    if age_s > _ABANDONED_BUILD_S:
                        shutil.rmtree(name, ignore_errors=True, dir_fd=self._descriptor)


_ADVICE = "name a folder of your own with RUSHLIGHT_CACHE, or remove this one (it is made again with mode 0700)"


def _digest(name: str, folder: int) -> str | None:
    """The digest of a file's bytes; None for a file that others may have written, or that is no file."""
    try:
        file = os.open(name, _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            return None
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        with open(file, "rb", closefd=False) as stream:
            return hashlib.sha256(stream.read()).hexdigest()[:32]
    finally:
        os.close(file)
