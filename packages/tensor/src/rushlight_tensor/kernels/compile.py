"""C text to a loaded library: compiled once per machine at first use, cached on disk, or None where that is impossible.

The user decides by environment variables: `RUSHLIGHT_CC=none` turns compiled kernels off, any other value names the
compiler (else `$CC`, `cc`, `gcc`, `clang` are tried); `RUSHLIGHT_CFLAGS` is added to its flags, after ours
(`-march=x86-64-v3` for code that other machines run, too); `RUSHLIGHT_CACHE` names the cache folder (see `cache`).  A
cache that cannot be used or written (another user's, a read-only home, a full disk, mounted noexec) is passed over for
a folder of the user among the temporary files, with one warning where the user had named it.  A `CC` that cannot be
run is passed over with a warning, too.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rushlight_tensor.kernels import binding, cpu
from rushlight_tensor.kernels.cache import Folder, UntrustedFolder
from rushlight_tensor.kernels.memory import keep_freed_pages

SOURCES = Path(__file__).parent / "c"

_FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-pipe", "-w")
# No -ffast-math: NaN and infinity must behave.  These two only give up errno and floating-point traps, which nobody
# reads.
_SAFE_MATH = ("-fno-math-errno", "-fno-trapping-math")
# Peeling a loop until its array is aligned would make a sum's order, and so its bits, depend on the address.
# GNU's OpenMP goes through rushlight.h, which spares small work the making of a team.
_GCC_ONLY = ("--param", "vect-max-peeling-for-alignment=0", "-Wl,--wrap=GOMP_parallel", "-DRL_WRAP_GOMP")

_lock = threading.Lock()
_environment_lock = threading.Lock()
for _each in (_lock, _environment_lock):  # held by another thread at a fork, it would be held in the child for ever
    os.register_at_fork(after_in_child=_each._at_fork_reinit)  # type: ignore[attr-defined]
_loaded: dict[str, binding.Library | None] = {}
_warned: set[str] = set()


@dataclass(frozen=True)
class Compiler:
    """A C compiler: its command, and what tells it from another version of itself."""

    command: tuple[str, ...]
    identity: str

    def flag_sets(self) -> Iterator[tuple[str, ...]]:
        """The flags to try in turn: everything, without gcc's own, without OpenMP, without naming the processor.

        The user's come last, where they win.
        """
        native = ("-march=native", *(("-mprefer-vector-width=512",) if cpu.has("avx512f") else ()))
        common, wished = _FLAGS + _SAFE_MATH, user_flags()
        yield (*common, *native, "-fopenmp", *_GCC_ONLY, *wished)
        yield (*common, *native, "-fopenmp", *wished)
        yield (*common, *native, "-fopenmp-simd", *wished)
        yield (*common, "-fopenmp-simd", *wished)


class CompileError(Exception):
    """The compiler refused the text; the message is the start of what it said."""


def user_flags() -> tuple[str, ...]:
    """The flags in `RUSHLIGHT_CFLAGS`.

    Raises:
        RuntimeError: Its quotes do not match.
    """
    wish = os.environ.get("RUSHLIGHT_CFLAGS", "")
    try:
        return tuple(shlex.split(wish))
    except ValueError as error:
        raise RuntimeError(f"RUSHLIGHT_CFLAGS: expects flags as in a shell, got {wish!r} ({error}); unset it") from None


@functools.cache
def find_compiler() -> Compiler | None:
    """The compiler to use, or None: silently with `RUSHLIGHT_CC=none`, with one warning where there is none."""
    compiler = _found_compiler()
    if compiler is None and os.environ.get("RUSHLIGHT_CC", "").lower() != "none":
        tried = ", ".join(_candidates())
        _warn_slow(f"no C compiler found (tried {tried}); install gcc or clang, or set RUSHLIGHT_CC")
    if compiler is not None:
        _tell_of_wishes(compiler)
    return compiler


def _tell_of_wishes(compiler: Compiler) -> None:
    """Warn of what the user asked for and does not get."""
    wish = os.environ.get("CC", "").strip()
    if wish and not os.environ.get("RUSHLIGHT_CC") and shutil.which(shlex.split(wish)[0]) is None:
        _warn_once(f"CC={wish} cannot be run; rushlight compiles its kernels with {compiler.command[0]}")
    chosen = os.environ.get("RUSHLIGHT_CACHE", "")
    if chosen:
        mine, other = cache_folders()
        try:
            with suppress(UntrustedFolder), Folder(mine, create=True):  # an untrusted one has its own warning
                pass
        except OSError as error:
            _warn_once(f"RUSHLIGHT_CACHE={chosen} cannot be used ({error}); rushlight keeps its kernels in {other}")


def has_compiler() -> bool:
    """Whether C text can be compiled; says nothing where it cannot."""
    return _found_compiler() is not None


def _candidates() -> list[str]:
    wish = os.environ.get("RUSHLIGHT_CC", "")
    return list(filter(None, [wish] if wish else [os.environ.get("CC", ""), "cc", "gcc", "clang"]))


@functools.cache
def _found_compiler() -> Compiler | None:
    if os.environ.get("RUSHLIGHT_CC", "").lower() == "none":
        return None
    for candidate in _candidates():
        command = shlex.split(candidate)
        program = shutil.which(command[0])
        if program:
            real = os.path.realpath(program)
            status = os.stat(real)
            return Compiler(
                (os.path.abspath(program), *command[1:]), f"{real} {candidate} {status.st_size} {status.st_mtime_ns}"
            )
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
        text: C source, with at least one `EXPORT` function (see `prototype` for what it may take).
    Returns:
        A `Library`, or None after a warning that says why (none with `RUSHLIGHT_CC=none`).
    Raises:
        ValueError: An `EXPORT` prototype has an argument type that cannot be bound.
    """
    compiler = find_compiler()
    if compiler is None:
        return None
    source, key = _source_and_key(text, compiler)
    with _lock:
        if key not in _loaded:
            shared = _cached_or_built(key, source, compiler)
            _loaded[key] = None if shared is None else binding.Library(shared, text)
        return _loaded[key]


def cached_c(text: str) -> binding.Library | None:
    """`compile_c` if the library is in the cache; None, without a word, where it would have to be compiled."""
    compiler = _found_compiler()
    if compiler is None:
        return None
    _, key = _source_and_key(text, compiler)
    with _lock:
        for path in () if key in _loaded else cache_folders():
            with suppress(OSError, UntrustedFolder), Folder(path) as folder:
                shared = folder.find(key, _load)
                if shared is not None:
                    _loaded[key] = binding.Library(shared, text)
                    break
        return _loaded.get(key)


def _source_and_key(text: str, compiler: Compiler) -> tuple[str, str]:
    source = binding.HEADER + text + "\n" + binding.wrappers(text)
    return source, _key(source, compiler)


def _key(source: str, compiler: Compiler) -> str:
    headers = [path.read_text() for path in sorted(SOURCES.glob("*.h"))]
    parts = [source, *headers, compiler.identity, repr(list(compiler.flag_sets())), *cpu.description()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def cache_folders() -> tuple[Path, Path]:
    """Where compiled libraries may lie: the user's cache, and a per-user folder for temporary files."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    chosen = os.environ.get("RUSHLIGHT_CACHE") or os.path.join(home, "rushlight")
    return Path(chosen).absolute(), Path(tempfile.gettempdir()) / f"rushlight-{os.geteuid()}"


def _cached_or_built(key: str, source: str, compiler: Compiler) -> ctypes.CDLL | None:
    folders, troubles = [], []
    for path in cache_folders():
        try:
            with Folder(path) as folder:
                shared = folder.find(key, _load)
            if shared is not None:
                return shared
        except UntrustedFolder as error:
            troubles.append(str(error))
            _warn_once(f"rushlight does not use its kernel cache: {error}")
            continue
        except OSError:
            pass  # it does not exist yet, or cannot be read
        folders.append(path)
    for path in folders:
        try:
            with Folder(path, create=True) as folder, folder.one_builder(key):
                return folder.find(key, _load) or folder.build(
                    key, functools.partial(_run_compiler, compiler, source), _load
                )
        except (OSError, UntrustedFolder) as error:
            troubles.append(f"{path}: {error}")
        except CompileError as error:
            troubles.append(str(error))
            break
    _warn_slow("; ".join(troubles))
    return None


def _load(path: str) -> ctypes.CDLL:
    """Load a library; the first one brings OpenMP, which reads its environment at that moment.

    By default an idle OpenMP thread spins for milliseconds and takes the core from whatever runs between two kernels
    (on 2 cores, 8 ms instead of 0.2 when another library has threads too).  About 0.1 ms is enough from one kernel to
    the next.
    """
    with scoped_environment({"GOMP_SPINCOUNT": "20000"}):
        return ctypes.CDLL(path)


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


def _run_compiler(compiler: Compiler, source: str, folder: Path, name: str) -> None:
    """Compile into a file of this name; the compiler runs in the folder and keeps its temporary files there."""
    said = []
    for flags in compiler.flag_sets():
        command = [*compiler.command, *flags, "-I", str(SOURCES), "-x", "c", "-", "-o", name, "-lm"]
        environment = {**os.environ, "TMPDIR": ".", "LC_ALL": "C"}
        done = subprocess.run(command, input=source.encode(), capture_output=True, env=environment, cwd=folder)
        if done.returncode == 0:
            return
        text = done.stderr.decode(errors="replace").strip()
        if "No space left" in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        said.append(text or f"ended with status {done.returncode}")
    wished = f" with RUSHLIGHT_CFLAGS={shlex.join(user_flags())!r}" if user_flags() else ""
    raise CompileError(f"{shlex.join(compiler.command)} failed{wished}: {said[-1][:500]}")


def _warn_slow(why: str) -> None:
    _warn_once(f"rushlight runs without compiled kernels, slower: {why}", kind="slow")


def _warn_once(text: str, kind: str | None = None) -> None:
    """Warn once per text, or once per kind."""
    if (kind or text) not in _warned:
        _warned.add(kind or text)
        warnings.warn(text, UserWarning, stacklevel=3)
