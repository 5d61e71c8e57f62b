"""C text to a loaded library: compiled once per machine at first use, cached on disk, or None where that is impossible.

The user decides by environment variables: `RUSHLIGHT_CC=none` turns compiled kernels off, any other value names the
compiler (else `$CC`, `cc`, `gcc`, `clang` are tried); `RUSHLIGHT_CACHE` names the cache folder.

Note [Cache]
    A file is named `<key>-<digest>.so`.  The key covers everything that decides the machine code: text, headers,
    compiler, flags and processor.  The digest is that of the file's own bytes, so a truncated or damaged file is
    recognised before it is mapped (mapping it would end the process with SIGBUS) and built again.  A build happens in a
    private folder inside the cache and is renamed into place: a killed compiler leaves a folder that the next build
    removes, never a half-written library.  A lock file lets many processes that start cold wait for one of them; where
    locks do not work they all compile, and the last rename wins. A cache that cannot be written (read-only home, full
    disk, mounted noexec) is still read, then the next folder is tried.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rushlight_tensor.kernels import binding, cpu
from rushlight_tensor.kernels.memory import keep_freed_pages

SOURCES = Path(__file__).parent / "c"

_FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-pipe", "-w")
# No -ffast-math: NaN and infinity must behave.  These two only give up errno and floating-point traps, which nobody
# reads.
_SAFE_MATH = ("-fno-math-errno", "-fno-trapping-math")
# Peeling a loop until its array is aligned would make a sum's order, and so its bits, depend on the address.
_GCC_ONLY = ("--param", "vect-max-peeling-for-alignment=0")
_WAIT_FOR_OTHER_BUILD_S = 60.0
_ABANDONED_BUILD_S = 3600.0

_lock = threading.Lock()
_environment_lock = threading.Lock()
for _each in (_lock, _environment_lock):  # held by another thread at a fork, it would be held in the child for ever
    os.register_at_fork(after_in_child=_each._at_fork_reinit)  # type: ignore[attr-defined]
_loaded: dict[str, binding.Library | None] = {}
_warned = False


@dataclass(frozen=True)
class Compiler:
    """A C compiler: its command, and what tells it from another version of itself."""

    command: tuple[str, ...]
    identity: str

    def flag_sets(self) -> Iterator[tuple[str, ...]]:
        """The flags to try in turn: everything, without gcc's own, without OpenMP, without naming the processor."""
        native = ("-march=native", *(("-mprefer-vector-width=512",) if cpu.has("avx512f") else ()))
        common = _FLAGS + _SAFE_MATH
        yield (*common, *native, "-fopenmp", *_GCC_ONLY)
        yield (*common, *native, "-fopenmp")
        yield (*common, *native, "-fopenmp-simd")
        yield (*common, "-fopenmp-simd")


class CompileError(Exception):
    """The compiler refused the text; the message is the start of what it said."""


@functools.cache
def find_compiler() -> Compiler | None:
    """The compiler to use, or None: silently with `RUSHLIGHT_CC=none`, with one warning where there is none."""
    wish = os.environ.get("RUSHLIGHT_CC", "")
    if wish.lower() == "none":
        return None
    candidates = [wish] if wish else [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    for candidate in filter(None, candidates):
        command = shlex.split(candidate)
        program = shutil.which(command[0])
        if program:
            real = os.path.realpath(program)
            status = os.stat(real)
            return Compiler((program, *command[1:]), f"{real} {candidate} {status.st_size} {status.st_mtime_ns}")
    tried = ", ".join(filter(None, candidates))
    _warn_once(f"no C compiler found (tried {tried}); install gcc or clang, or set RUSHLIGHT_CC")
    return None


@functools.cache
def c_library(name: str) -> binding.Library | None:
    """The kernels of `c/<name>.c`, compiled if need be; None where NumPy has to do the work.

    Args:
        name: A file's name under `kernels/c/`, without the suffix.
    Returns:
        A `Library` whose attributes are the file's `EXPORT` functions (see `binding`), or None.
    """
    keep_freed_pages()
    if find_compiler() is None:
        return None
    return compile_c((SOURCES / f"{name}.c").read_text())


def compile_c(text: str) -> binding.Library | None:
    """Compile C text whose `EXPORT` functions become callables on NumPy arrays; None where that is impossible.

    The text may include the headers of `kernels/c/` (`rushlight.h`, `vmath.h`).  The same text is compiled and loaded
    once.

    Args:
        text: C source, with at least one `EXPORT` function (see `binding` for the prototypes it reads).
    Returns:
        A `Library`, or None after a warning that says why (none with `RUSHLIGHT_CC=none`).
    Raises:
        ValueError: An `EXPORT` prototype has an argument type that cannot be bound.
    """
    compiler = find_compiler()
    if compiler is None:
        return None
    source = binding.HEADER + text + "\n" + binding.wrappers(text)
    key = _key(source, compiler)
    with _lock:
        if key not in _loaded:
            shared = _cached_or_built(key, source, compiler)
            _loaded[key] = None if shared is None else binding.Library(shared)
        return _loaded[key]


def _key(source: str, compiler: Compiler) -> str:
    headers = [path.read_text() for path in sorted(SOURCES.glob("*.h"))]
    parts = [source, *headers, compiler.identity, repr(list(compiler.flag_sets())), *cpu.description()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def cache_folders() -> tuple[Path, Path]:
    """Where compiled libraries may lie: the user's cache, and a per-user folder for temporary files."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    chosen = os.environ.get("RUSHLIGHT_CACHE") or os.path.join(home, "rushlight")
    return Path(chosen), Path(tempfile.gettempdir()) / f"rushlight-{os.getuid()}"


def _cached_or_built(key: str, source: str, compiler: Compiler) -> ctypes.CDLL | None:
    chosen, temporary = cache_folders()
    folders = [chosen, temporary] if _is_ours(temporary) else [chosen]
    for folder in folders:
        shared = _find(folder, key)
        if shared is not None:
            return shared
    troubles = []
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _one_builder(folder / f"{key}.lock"):
                return _find(folder, key) or _build(folder, key, source, compiler)
        except (OSError, CompileError) as error:
            troubles.append(f"{folder}: {error}")
            if isinstance(error, CompileError):
                break
    _warn_once("; ".join(troubles))
    return None


def _is_ours(folder: Path) -> bool:
    """Code is loaded from there, and anyone could have made the folder of this name under /tmp."""
    try:
        return folder.stat().st_uid in (os.getuid(), 0)
    except OSError:
        return True


def _find(folder: Path, key: str) -> ctypes.CDLL | None:
    """The cached library, if it is whole and loads.  See Note [Cache]."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(key) and name.endswith(".so")]
    except OSError:
        return None
    for name in names:
        path = folder / name
        try:
            if path.name == _sealed_name(key, path):
                return _load(path)
            path.unlink()
        except OSError:
            continue
    return None


def _sealed_name(key: str, path: Path) -> str:
    return f"{key}-{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}.so"


def _build(folder: Path, key: str, source: str, compiler: Compiler) -> ctypes.CDLL:
    """Compile in a private folder, move the result into the cache, load it from there."""
    _remove_abandoned_builds(folder)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=folder, ignore_cleanup_errors=True) as workplace:
        made = Path(workplace) / "kernel.so"
        _run_compiler(compiler, source, made)
        path = folder / _sealed_name(key, made)
        os.replace(made, path)
    return _load(path)  # an OSError here: the folder is mounted noexec


def _load(path: Path) -> ctypes.CDLL:
    """Load a library; the first one brings OpenMP, which reads its environment at that moment.

    By default an idle OpenMP thread spins for milliseconds and takes the core from whatever runs between two kernels
    (on 2 cores, 8 ms instead of 0.2 when another library has threads too).  About 0.1 ms is enough from one kernel to
    the next.
    """
    with scoped_environment({"GOMP_SPINCOUNT": "20000"}):
        return ctypes.CDLL(str(path))


@contextmanager
def scoped_environment(wanted: dict[str, str]) -> Iterator[None]:
    """Set environment variables that the user has not set, for the moment in which a library reads them."""
    with _environment_lock:
        added = [name for name in wanted if name not in os.environ]
        os.environ.update({name: wanted[name] for name in added})
        try:
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)


def _run_compiler(compiler: Compiler, source: str, made: Path) -> None:
    said = []
    for flags in compiler.flag_sets():
        command = [*compiler.command, *flags, "-I", str(SOURCES), "-x", "c", "-", "-o", str(made), "-lm"]
        environment = {**os.environ, "TMPDIR": str(made.parent), "LC_ALL": "C"}
        done = subprocess.run(command, input=source.encode(), capture_output=True, env=environment)
        if done.returncode == 0:
            return
        text = done.stderr.decode(errors="replace").strip()
        if "No space left" in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        said.append(text or f"ended with status {done.returncode}")
    raise CompileError(f"{shlex.join(compiler.command)} failed: {said[-1][:500]}")


def _remove_abandoned_builds(folder: Path) -> None:
    for path in folder.glob(".build-*"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_BUILD_S:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue


@contextmanager
def _one_builder(path: Path) -> Iterator[None]:
    """Wait while another process builds the same library; correctness needs no lock, so any trouble ends the wait."""
    with open(path, "w") as file:
        deadline = time.monotonic() + _WAIT_FOR_OTHER_BUILD_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:
                break  # a file system without locks
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _warn_once(why: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"rushlight runs without compiled kernels, slower: {why}", UserWarning, stacklevel=3)
