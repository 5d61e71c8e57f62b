"""Modules of PyTorch that are not filled here: they can be imported, and say so when one of their names is used.

`outlines.txt` lists PyTorch's modules beside those of `names.txt`, each with its names.  A name that PyTorch has in a
larger module, too (`torch.optim.adamw.AdamW`), is what stands there here, if anything does; every other one is a class,
so that it serves as an annotation, as a base, in `isinstance` and in `except`.  Calling it, a subclass of it, or asking
it for something is the error.
"""

from __future__ import annotations

import importlib
from abc import ABCMeta
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from rushlight._marks import ELSEWHERE
from rushlight._private import PRIVATE

HERE: Mapping[str, Any] = {**ELSEWHERE, **PRIVATE}  # in modules that do not have them by themselves
# Questions about machines and libraries that are never here have an answer, and it is no.
_NEVER_HERE = ("torch.backends.", "torch.mps", "torch.mtia", "torch.xpu")
_ANSWERS: dict[str, Any] = {
    "is_available": lambda: False, "is_built": lambda: False, "device_count": lambda: 0, "version": lambda: None,
    "allow_tf32": False, "benchmark": False, "deterministic": False, "enabled": False,
}  # fmt: skip


@cache
def outlined() -> Mapping[str, Mapping[str, str]]:
    """Module -> its names -> where else PyTorch has the same, or ""; read when a name is missed for the first time."""
    text = Path(__file__).with_name("outlines.txt").read_text(encoding="utf-8")
    sections = (section.partition("]") for section in text.split("\n[")[1:])
    return {title: dict(word.partition("=")[::2] for word in names.split()) for title, _, names in sections}


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message about a name that there is not: what its writer may have meant."""
    public = [candidate for candidate in names if not candidate.startswith("_")]
    found = get_close_matches(name, public, 1, 0.75)
    return f"; did you mean '{found[0]}'?" if found else ""


class _Absent(ABCMeta):
    """The class of names without what they name."""

    _names: str

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(_not_here(cls._names))

    def __bool__(cls) -> bool:
        raise NotImplementedError(_not_here(cls._names))

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"no '{name}': {_not_here(cls._names)}", name=name)


def _not_here(names: str) -> str:
    return (
        f"{names} is PyTorch's, and rushlight has only its name yet, for programs that import it without needing it; "
        "leave out what asks for it, or run this part with PyTorch"
    )


def absent(place: str) -> Any:
    """What stands for `place` ("torch.fx.Tracer") where rushlight does not have it."""
    module, _, name = place.rpartition(".")
    bases = (Exception,) if name.endswith(("Error", "Exception")) else ()
    space = {"_names": place, "__module__": module, "__class_getitem__": classmethod(lambda cls, item: cls)}
    return _Absent(name, bases, space)


def _resolved(module: str, name: str, place: str, facade: str) -> Any:
    """The object that a name of the outline `module` stands for; `place` is where PyTorch has it, too."""
    if place:
        home, _, other = place.replace("torch", facade, 1).rpartition(".")
        have = vars(importlib.import_module(home))
        if other in have:
            return have[other]
    if f"{module}.{name}" in HERE:
        return HERE[f"{module}.{name}"]
    if name in _ANSWERS and f"{module}.".startswith(_NEVER_HERE):
        return _ANSWERS[name]
    return absent(f"{module}.{name}")


class Outline(ModuleType):
    """A module with the names that PyTorch's `theirs` ("torch.fx") has, each made when it is asked for.

    It can be called, in vain: `torch.multiprocessing.spawn` is a module, and a function of the module above it.
    """

    def __init__(self, name: str, theirs: str, facade: str) -> None:
        super().__init__(name, f"PyTorch's `{theirs}` by its names alone: rushlight has not filled it yet.")
        names = {name: place for name, place in outlined()[theirs].items() if name != "-"}
        vars(self).update(_theirs=theirs, _facade=facade, _names=names, __all__=list(names))

    def __getattr__(self, name: str) -> Any:
        of = vars(self)
        module, names = of["_theirs"], of["_names"]
        if f"{module}.{name}" in outlined():
            return importlib.import_module(f"{self.__name__}.{name}")
        if name not in names and f"{module}.{name}" not in HERE:
            hint = "" if name.startswith("__") else nearest(name, names)
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'{hint}", name=name)
        value = of[name] = _resolved(module, name, names.get(name, ""), of["_facade"])
        return value

    def __dir__(self) -> list[str]:
        return [*vars(self), *vars(self)["_names"]]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(_not_here(vars(self)["_theirs"]))
