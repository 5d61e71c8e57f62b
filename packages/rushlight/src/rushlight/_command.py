"""What `python -m rushlight.as_torch` does: runs a program as `python` would, with rushlight under the name `torch`.

The program is the process's own `__main__`, so classes of it pickle and spawned workers find it again; what it raises
leaves as from `python`, and a traceback begins with the program's first line.
"""

from __future__ import annotations

import builtins
import code
import io
import os
import pkgutil
import runpy
import sys
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, SourceFileLoader
from types import CodeType, TracebackType
from typing import Any

from rushlight._alias import install

USAGE = "usage: python -m rushlight.as_torch (SCRIPT | -m MODULE | -c CODE | -) [ARGS…]"

_Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def main(words: list[str]) -> None:
    """Run the program that `words` name, in `__main__`; returns or raises as it does."""
    first, rest = (words[0], words[1:]) if words else ("", [])
    if first in ("-h", "--help"):
        print(USAGE)
        return
    if first in ("-m", "-c") and not rest:
        _refuse(f"Argument expected for the {first} option\n{USAGE}")
    if len(first) > 1 and first[0] == "-" and first not in ("-m", "-c"):
        _refuse(f"unknown option {first}; those of Python itself stand before -m rushlight.as_torch\n{USAGE}")
    install()
    sys.excepthook = _from_the_program(sys.excepthook)
    if first == "-m":
        sys.argv = rest  # its first word becomes the module's path
        _look_in(os.getcwd())
        _empty_main()
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]  # what `python -m` calls
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        _look_in("")
        _run(compile(rest[0], "<string>", "exec", dont_inherit=True))
    elif first in ("", "-"):
        sys.argv = words or [""]
        _look_in("")
        _from_stdin()
    else:
        sys.argv = words
        _script(first)


def _refuse(why: str) -> None:
    print(f"rushlight.as_torch: {why}", file=sys.stderr)
    raise SystemExit(2)


def _script(path: str) -> None:
    if pkgutil.get_importer(path) is not None:  # a folder or archive with a __main__.py
        _look_in(os.path.abspath(path))
        _empty_main()
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]
        return
    file = os.path.abspath(path)
    try:
        with io.open_code(file) as stream:
            text = stream.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {file!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    _look_in(os.path.dirname(os.path.realpath(path)))
    program = compile(text, file, "exec", dont_inherit=True)
    _run(program, __file__=file, __cached__=None, __loader__=SourceFileLoader("__main__", file))


def _from_stdin() -> None:
    if sys.stdin.isatty():
        code.interact(banner=f"rushlight as torch, Python {sys.version.split()[0]}", local=_empty_main(), exitmsg="")
    else:
        _run(compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True), __file__="<stdin>")


def _look_in(folder: str) -> None:
    """Where the program's neighbours are found: in place of what `python -m` had put there."""
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _empty_main(**names: Any) -> dict[str, Any]:
    """The namespace of `__main__` as a program finds it; what stood there has started this one."""
    space = vars(sys.modules["__main__"])
    space.clear()
    space.update(
        {"__name__": "__main__", "__doc__": None, "__package__": None, "__spec__": None, "__annotations__": {}}
    )
    space.update({"__builtins__": builtins, "__loader__": BuiltinImporter, **names})
    return space


def _run(program: CodeType, **names: Any) -> None:
    exec(program, _empty_main(**names))


def _from_the_program(hook: _Hook) -> _Hook:
    """A hook for what nobody caught, which passes on the traceback without the frames that started the program."""

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        rest, frame = trace, trace
        while frame is not None:
            if frame.tb_frame.f_code.co_filename == __file__:
                rest = frame.tb_next
            frame = frame.tb_next
        hook(kind, error.with_traceback(rest), rest)

    return excepthook
