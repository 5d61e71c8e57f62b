"""What a look at code and classes says: the names in a function, and where the objects of a class keep their state."""

from __future__ import annotations

import dis
import re
import types
from typing import Any

from rushlight_jit.origin import is_library_class, is_ours, remembered

_WORD = re.compile(r"[^\W\d]\w*")


@remembered
def names_of(code: types.CodeType) -> tuple[frozenset[str], frozenset[str], tuple[types.CodeType, ...]]:
    """The globals and modules that code reads, every name that it contains, and the code of its inner functions."""
    globals_ = {i.argval for i in dis.get_instructions(code) if i.opname.endswith(("_GLOBAL", "_NAME"))}
    names, inner = {part for n in code.co_names for part in n.split(".")}, []
    stack = list(code.co_consts)
    while stack:
        c = stack.pop()
        if isinstance(c, types.CodeType):
            inner.append(c)
            more = names_of(c)
            globals_ |= more[0]
            names |= more[1]
        elif isinstance(c, str) and len(c) < 200:
            names.update(_WORD.findall(c) if not _is_text(c) else ())
        elif isinstance(c, (tuple, frozenset)):
            stack.extend(c)
    return frozenset(globals_), frozenset(names), tuple(inner)


def _is_text(c: str) -> bool:
    """A docstring or message, not a (dotted) name."""
    return not c.replace(".", "").replace("_", "").isalnum()


@remembered
def library_names(cls: type) -> frozenset[str]:
    """The names in the code of a library class: attributes that its methods read."""
    out: set[str] = set()
    for c in cls.__mro__[:-1]:
        if is_library_class(c):
            for v in vars(c).values():
                f = getattr(v, "fget", None) or getattr(v, "__func__", v)
                if isinstance(f, types.FunctionType):
                    out |= names_of(f.__code__)[1]
    return frozenset(out)


@remembered
def hides_state(cls: type[Any]) -> bool:
    """Whether objects of this class hold something in C that Python cannot see: their size says so."""
    members = sum(isinstance(v, types.MemberDescriptorType) for c in cls.__mro__ for v in vars(c).values())
    pointers = members + (cls.__weakrefoffset__ > 0) + (cls.__dictoffset__ > 0)
    return cls.__basicsize__ > object.__basicsize__ + pointers * object.__basicsize__ // 2 or cls.__itemsize__ > 0


@remembered
def slots_of(cls: type) -> tuple[tuple[str, Any], ...]:
    """The slots of a class that are the user's, or ours."""
    own = [c for c in cls.__mro__ if not is_library_class(c) or is_ours(c.__module__)]
    return tuple([(k, v) for c in own for k, v in vars(c).items() if isinstance(v, types.MemberDescriptorType)])
