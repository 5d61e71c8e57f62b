"""Watching a trace: which Python code and which C functions it calls, and whether a replay may leave them out.

Note [What runs in a trace]
    The walk of `guards` has met code; this sees that no other code ran, and that nothing ran whose result depends on
    more than its arguments (clocks, random numbers, files, the environment) or whose effect a replay would lack
    (printing, hooks, seeds, collectives).  The interpreter's profile events tell of every call, whoever makes it.
    The garbage collector waits until the trace is done: what it calls (`gc.callbacks`, finalizers of others' objects)
    would be taken for a part of the function, now and then.
"""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable
from types import CodeType, FrameType, ModuleType
from typing import Any

from rushlight_jit.origin import PURE, in_stdlib, is_library_class, is_ours, place, top
from rushlight_tensor import random
from rushlight_tensor.core import dtypes
from rushlight_tensor.core.straight import module_of
from rushlight_tensor.methods import gradient
from rushlight_tensor.methods import properties as state
from rushlight_tensor.random.stream import Stream

_EFFECTS = frozenset({"print", "input", "open", "breakpoint", "__import__", "id"})  # of the builtins
_FILES = ("numpy.lib._npyio", "numpy.lib.npyio", "numpy.lib.format", "numpy.random")


@functools.cache
def _our_effects() -> dict[CodeType, str]:
    """Our functions that do something which no operation says."""
    functions = [
        gradient.register_hook, gradient.register_post_accumulate_grad_hook, gradient.retain_grad, state.data_ptr,
        dtypes.set_default_dtype,
    ]  # fmt: skip
    functions += [f for c in (Stream, random.Generator) for n, f in vars(c).items() if n in _STREAM_STATE]
    return {f.__code__: f.__name__ for f in functions if hasattr(f, "__code__")}


_STREAM_STATE = frozenset({"manual_seed", "seed", "set_state", "get_state", "initial_seed", "clone_state"})


class Watch:
    """A context in which `broken(reason)` is called for whatever a replay could not stand for.

    Args:
        codes: All code that the walk has met.
        broken: Told the reason, with the line.
    """

    def __init__(self, codes: set[CodeType], broken: Callable[[str], None]) -> None:
        self._codes = {id(c) for c in codes}
        self._keep: list[CodeType] = [*codes]
        self._broken = broken
        self._plain: set[int] = set()  # code that may run; ids, as hashing code is slow
        self._users: set[int] = set()

    def __enter__(self) -> Watch:
        self._before, self._collects = sys.getprofile(), gc.isenabled()
        gc.disable()
        sys.setprofile(self._event)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(self._before)
        if self._collects:
            gc.enable()

    def _event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            if id(frame.f_code) not in self._plain:
                self._python(frame)
        elif event == "c_call" and id(frame.f_code) in self._users:
            why = _effect_of(arg)
            if why:
                self._broken(f"{place(frame)}: {why}")

    def _python(self, frame: FrameType) -> None:
        code, module = frame.f_code, module_of(frame)
        caller = frame.f_back
        if str(module).startswith("namedtuple_"):
            pass  # a constructor that Python has generated
        elif is_ours(module):
            name = _our_effects().get(code)
            if name is not None:
                self._broken(
                    f"{place(frame)}: {name}() has an effect, or depends on something, that is no operation; call it "
                    "outside"
                )
                return
        elif id(code) in self._codes:
            self._users.add(id(code))
        elif in_stdlib(code.co_filename):
            if top(module) not in PURE and caller is not None and id(caller.f_code) in self._users:
                self._broken(f"{place(caller)}: {module}.{code.co_qualname}() {_DEPENDS}")
            return  # judged by who calls, each time
        elif top(module) == "numpy":
            if str(module).startswith(_FILES):
                self._broken(f"{place(frame)}: {module}.{code.co_qualname}() {_DEPENDS}")
                return
        elif self._imported_by_us(caller):
            return
        else:
            self._users.add(id(code))
            self._broken(
                f"{place(caller)}: {code.co_qualname}() ({code.co_filename}:{code.co_firstlineno}) was reached in a "
                "way that compile cannot follow; call it by name, or through an attribute"
            )
        self._plain.add(id(code))
        self._keep.append(code)

    def _imported_by_us(self, frame: FrameType | None) -> bool:
        """Whether code runs because one of our modules is loaded at this moment."""
        importing = False
        while frame is not None and id(frame.f_code) not in self._users:
            if is_ours(module_of(frame)):
                return importing
            importing = importing or frame.f_code.co_filename.startswith("<frozen importlib")
            frame = frame.f_back
        return False


_DEPENDS = "depends on, or changes, more than its arguments; call it outside and pass what it gives"


def _effect_of(function: Any) -> str | None:
    """Why a replay cannot leave out a C function that the user's code calls; None where it can."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__qualname__", None) or repr(function)
    if owner is None or isinstance(owner, ModuleType):
        module = getattr(function, "__module__", None) or getattr(owner, "__name__", "builtins")
        if top(module) == "builtins":
            return f"{name}() {_DEPENDS}" if name in _EFFECTS else None
    else:
        cls = owner if isinstance(owner, type) else type(owner)
        if not is_library_class(cls) and cls.__module__ != "builtins":
            return None if _from_python(cls) else f"{name}() of {cls.__module__} {_DEPENDS}"
        module = cls.__module__
    if top(module) in PURE or is_ours(module):
        return None
    if top(module) == "numpy" and not str(module).startswith(_FILES):
        return None
    return f"{module}.{name}() {_DEPENDS}"


def _from_python(cls: type) -> bool:
    """Whether a class was made by a class statement on classes that the walk of `guards` knows."""
    return all(not is_library_class(c) or top(c.__module__) in PURE or is_ours(c.__module__) for c in cls.__mro__)
