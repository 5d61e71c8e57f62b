"""Where code comes from: ours, a library whose functions depend on their arguments alone, or the user's."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar, cast

from rushlight_tensor.core.straight import module_of

OURS = frozenset({"rushlight_tensor", "rushlight_autograd", "rushlight_jit", "rushlight_nn"})
"""Packages whose functions do what their operations do; the others may speak to files, ranks and optimizers."""

PURE = frozenset(
    [
        "_abc",
        "_bisect",
        "_collections",
        "_collections_abc",
        "_functools",
        "_heapq",
        "_operator",
        "_struct",
        "_weakref",
        "abc",
        "array",
        "bisect",
        "builtins",
        "cmath",
        "collections",
        "contextlib",
        "copy",
        "copyreg",
        "dataclasses",
        "enum",
        "fractions",
        "functools",
        "genericpath",
        "heapq",
        "importlib",
        "itertools",
        "json",
        "keyword",
        "math",
        "numbers",
        "operator",
        "posixpath",
        "pprint",
        "re",
        "reprlib",
        "statistics",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "weakref",
        "_weakrefset",
        "_json",
        "_sre",
    ]
)
"""Modules of Python whose functions depend on their arguments alone."""

F = TypeVar("F", bound=Callable[..., Any])


def remembered(function: F) -> F:
    """A cache of the results for the classes or code last asked about."""
    return cast(F, functools.lru_cache(4096)(function))


_STDLIB = (sysconfig.get_paths()["stdlib"] + os.sep, "<frozen ")
_SITE = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
_FILES: dict[str, bool] = {}


def top(module: Any) -> str:
    """The package of a module's name."""
    return module.split(".", 1)[0] if isinstance(module, str) else ""


def is_ours(module: Any) -> bool:
    """Whether a module is part of the framework that a trace sees through."""
    return top(module) in OURS


def in_stdlib(path: str) -> bool:
    """Whether a source file belongs to Python itself."""
    found = _FILES.get(path)
    if found is None:
        found = _FILES[path] = path.startswith(_STDLIB) and not any(s in path for s in _SITE)
    return found


def is_library_code(code: CodeType, module: Any) -> bool:
    """Whether a function is ours, NumPy's or Python's: what it does is known, its code need not be walked."""
    return is_ours(module) or top(module) == "numpy" or in_stdlib(code.co_filename)


def is_library_module(module: Any) -> bool:
    """The same for a module."""
    name = module.__name__
    if is_ours(name) or top(name) == "numpy":
        return True
    return top(name) in sys.stdlib_module_names and in_stdlib(getattr(module, "__file__", None) or "<frozen ")


@remembered
def is_library_class(cls: type) -> bool:
    """The same for a class."""
    name = top(cls.__module__)
    if name in OURS or name in ("numpy", "builtins"):
        return True
    module = sys.modules.get(name)
    if module is None or name not in sys.stdlib_module_names:
        return False
    path = getattr(module, "__file__", None)
    return path is None or in_stdlib(path) or path.endswith(".so")


def place(frame: FrameType | None) -> str:
    """`file.py:12` of the innermost frame from here on that is the user's."""
    while frame is not None and (is_ours(module_of(frame)) or in_stdlib(frame.f_code.co_filename)):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
