"""Guards: everything that a function reads from Python, as a value to compare with that of the next call.

Note [Guards]
    A trace holds operations, not the Python that chose them.  So it is kept under everything that may have decided it:
    a walk from the function over the names in its code: globals, closures, defaults, attributes of modules, objects
    and classes, elements of containers, other functions, and so on.  Numbers and strings count by value, tensors by
    the identity of their memory (its contents may change), NumPy arrays by their bytes.  An attribute counts where any
    code that the walk has met contains its name, or code that could make a name (`getattr`, `vars`).  What cannot be
    described (a generator, a file, an object with state hidden in C) is `unknown`, and the function is then not
    replayed.  The walk is complete only if it has met all code that runs: `watch.Watch` sees to that.
"""

from __future__ import annotations

import builtins
import collections
import enum
import functools
import hashlib
import logging
import re
import sys
import types
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

from rushlight_jit import reads
from rushlight_jit.inspection import hides_state, library_names, names_of, slots_of
from rushlight_jit.origin import is_library_class, is_library_code, is_library_module, is_ours, remembered, top
from rushlight_jit.reads import Absent, Read, contents, flat, kind_of
from rushlight_tensor.core import dispatch
from rushlight_tensor.core.tensor import Tensor

Token = Any

_ATOMS = frozenset({bool, int, str, bytes, type(None), type(Ellipsis), type(NotImplemented)})
_BY_REPR = frozenset({float, complex, range, slice, re.Pattern})
_IMMUTABLE = ("datetime", "decimal", "fractions", "pathlib", "uuid")  # modules of values that compare by value
_BY_IDENTITY = (
    types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType,
    types.GetSetDescriptorType, types.MemberDescriptorType, types.CodeType, np.ufunc, logging.Logger,
    type(vars(collections.namedtuple("Pair", "a"))["a"]),
)  # fmt: skip
_SEEN_IN_LIBRARIES = (
    int, float, str, bytes, type(None), list, tuple, dict, set, type, types.FunctionType, types.BuiltinFunctionType,
    types.ModuleType,
)  # fmt: skip
_MAKES_NAMES = frozenset(
    {"getattr", "vars", "dir", "__dict__", "__getattribute__", "attrgetter", "asdict", "astuple", "fields", "dumps",
     "__getstate__"}
)  # fmt: skip
_REACHES_ALL = frozenset({"globals", "eval", "exec", "__import__"})
_CONSTRUCTION = frozenset({"__init__", "__new__", "__init_subclass__", "__del__", "__class_getitem__"})
_ABOUT_CLASS = frozenset(
    {"__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__qualname__", "__slots__",
     "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__abstractmethods__", "_abc_impl",
     "__parameters__", "__orig_bases__", "__firstlineno__", "__static_attributes__", "__hash__", "__getstate__"}
)  # fmt: skip
MOST_TOKENS, DEEPEST, MOST_BYTES = 100_000, 60, 1 << 26


@remembered
def _describer(cls: type) -> Any:
    """The method of `Walk` for objects of this class."""
    return next((describe for kind, describe in _KINDS if issubclass(cls, kind)), Walk._instance)


class _TooMuch(Exception):
    """The walk has met more than can be compared on each call."""


class Walk:
    """One walk: `tokens` to compare, and what was met on the way.

    Args:
        names: Attribute names that count; `closure` finds them.
        explain: Note the path of every token, for messages.
        look: Note all reads, too.
    """

    def __init__(self, names: frozenset[str] = frozenset(), explain: bool = False, look: bool = False) -> None:
        self.names = names
        self.everything = not names.isdisjoint(_MAKES_NAMES)
        self.tokens: list[Token] = []
        self.paths: list[str] | None = [] if explain else None
        self.keep: list[Any] = []  # an id stands for an object only while it lives
        self.found: set[str] = set()
        self.codes: set[types.CodeType] = set()
        self.tensors: dict[int, Tensor] = {}
        self.unknown: list[str] = []
        self.reads: list[Read] | None = [] if look else None  # See Note [Reads]
        self._seen: dict[int, int] = {}

    def visit(self, x: Any, path: str, depth: int = 0) -> None:
        """Describe `x`, known to people as `path` (empty where nothing is to be explained)."""
        t = type(x)
        if t in _ATOMS:
            self._emit((t, x), path)
            return
        if t in _BY_REPR:
            if t is slice:
                self.reads = None
            self._emit((t, repr(x)), path)
            return
        n = self._seen.get(id(x))
        if n is not None:
            self._emit(("again", n), path)
            return
        self._seen[id(x)] = len(self._seen)
        self.keep.append(x)
        if depth > DEEPEST:
            self._unknown(x, path, "it is nested too deeply to be compared on each call; pass what the function needs")
            return
        if len(self.tokens) > MOST_TOKENS:
            raise _TooMuch
        describe = _describer(t)
        if describe not in _LOOKING:
            self.reads = None
        describe(self, x, path, depth + 1)

    def _look(self, kind: int, owner: Any, key: Any, value: Any) -> Any:
        """Note a read; returns what it gave."""
        if self.reads is not None:
            self.reads.append(Read(kind, owner, key, value))
        return value

    def _item(self, space: Any, key: str) -> Any:
        """What stands under a name, or `Absent`."""
        if type(space) is not dict:
            self.reads = None
        return self._look(reads.ITEM, space, key, space.get(key, Absent))

    def _emit(self, token: Token, path: str) -> None:
        self.tokens.append(token)
        if self.paths is not None:
            self.paths.append(path)

    def _unknown(self, x: Any, path: str, why: str) -> None:
        self._emit(("unknown", id(x)), path)
        self.unknown.append(f"{path} ({type(x).__module__}.{type(x).__qualname__}): {why}")

    # Values

    def _tensor(self, x: Tensor, path: str, depth: int) -> None:
        a = dispatch.settle(x)
        self.keep.append(a)
        self.tensors[id(a)] = x
        self._emit((id(a), a.shape, a.strides, x._requires_grad, x._node is None), path)
        if type(a) is np.ndarray and self.names.isdisjoint({"_version", "grad_fn", "grad"}):
            self._look(reads.TENSOR, x, kind_of(x) if self.reads is not None else None, a)
        else:
            self.reads = None
        if "_version" in self.names:
            self._emit(x._version if x._view is None else x._view.base._version, path and f"{path}._version")
        if "grad_fn" in self.names:
            self._emit(id(x._node), path and f"{path}.grad_fn")
        if "grad" in self.names:
            self.visit(getattr(x, "_grad", None), path and f"{path}.grad", depth)
        if own := getattr(x, "__dict__", None):
            self.reads = None
            self._attributes(own.items(), self.names, path, depth)

    def _ndarray(self, x: Any, path: str, depth: int) -> None:
        if x.dtype.hasobject:
            self._emit((x.shape, x.dtype.str), path)
            self._items(x, path, depth)
        elif x.nbytes > MOST_BYTES:
            self._unknown(x, path, "a NumPy array of this size is not compared on each call; make it a tensor")
        else:
            data = x.tobytes()
            digest = data if len(data) <= 64 else hashlib.blake2b(data, digest_size=16).digest()
            self._emit((x.shape, x.dtype.str, digest), path)

    def _scalar(self, x: Any, path: str, depth: int) -> None:
        if x.dtype.kind == "V":  # it can be written to
            self.reads = None
        self._emit((type(x), x.dtype.str, x.tobytes()), path)

    def _dtype(self, x: Any, path: str, depth: int) -> None:
        self._emit((np.dtype, repr(x)), path)

    def _identity(self, x: Any, path: str, depth: int) -> None:
        self._emit(id(x), path)

    def _enum(self, x: Any, path: str, depth: int) -> None:
        self._emit((id(type(x)), x.name), path)
        self.visit(x._value_, path and f"{path}.value", depth)
        self._class(type(x), path, depth)

    def ask(self, tensors: Iterable[Tensor]) -> None:
        """What code may ask of tensors that are arguments, beside what they are, and whether it knows them already."""
        self._emit(tuple([self._seen.get(id(x)) for x in tensors]), "")
        if not self.names.isdisjoint({"grad", "_version"}):
            self.reads = None
            self._emit(
                tuple(
                    [
                        (getattr(x, "_grad", None) is None, x._version if "_version" in self.names else 0)
                        for x in tensors
                    ]
                ),
                "",
            )
        for x in tensors:
            if own := getattr(x, "__dict__", None):
                self.reads = None
                self._attributes(own.items(), self.names, "an argument", 1)

    # Containers

    def _sequence(self, x: Any, path: str, depth: int) -> None:
        if type(x) is list:
            self._look(reads.ELEMENTS, x, None, flat(x))
        elif type(x) is not tuple:
            self.reads = None
        self._emit((id(type(x)), len(x)), path)
        self._items(x, path, depth)
        self._rest(x, path, depth)

    def _items(self, x: Iterable[Any], path: str, depth: int) -> None:
        for i, item in enumerate(x.flat if isinstance(x, np.ndarray) else x):
            self.visit(item, path and f"{path}[{i}]", depth)

    def _mapping(self, x: Any, path: str, depth: int) -> None:
        self._emit((id(type(x)), len(x)), path)
        if type(x) is dict and x is not sys.modules:
            self._look(reads.CONTENTS, x, None, flat(x))
        else:
            self.reads = None
        if x is not sys.modules:
            for k, v in x.items():
                self.visit(k, path and f"the key {k!r} of {path}", depth)
                self.visit(v, path and f"{path}[{k!r}]", depth)
        if isinstance(x, collections.defaultdict):
            self.visit(x.default_factory, path and f"{path}.default_factory", depth)
        self._rest(x, path, depth)

    def _set(self, x: Any, path: str, depth: int) -> None:
        if all(type(e) in _ATOMS for e in x):
            self._emit((id(type(x)), tuple([(type(e), e) for e in x])), path)  # in the order of a loop over it
        else:
            self._sequence(x, path, depth)

    def _bytes(self, x: Any, path: str, depth: int) -> None:
        self._emit((type(x), bytes(x)), path)

    # Code

    def _function(self, f: types.FunctionType, path: str, depth: int) -> None:
        code = self._look(reads.CODE, f, None, f.__code__)
        self._emit(id(code), path)
        self.keep.append(code)
        names = code.co_freevars
        for name, cell in zip(names, f.__closure__ or (), strict=True):
            value = self._look(reads.CELL, cell, None, contents(cell))
            if value is Absent:
                self._emit("empty", path and name)
            else:
                self.visit(value, path and name, depth)
        self.visit(self._look(reads.DEFAULTS, f, None, f.__defaults__), path and f"{f.__name__}.__defaults__", depth)
        self.visit(
            self._look(reads.KWDEFAULTS, f, None, f.__kwdefaults__), path and f"{f.__name__}.__kwdefaults__", depth
        )
        if is_library_code(code, self._look(reads.MODULE, f, None, f.__module__)):
            return
        globals_, mentioned, _ = names_of(code)
        self._met(code)
        self.found |= mentioned
        space = f.__globals__
        for name in sorted(globals_):
            if (value := self._item(space, name)) is not Absent:
                self.visit(value, path and name, depth)
            elif name in _REACHES_ALL:
                self._unknown(f, path, f"{name}() reaches what no code names; write it out")
            elif (module := self._imported(name, space)) is not None:
                self.visit(module, path and name, depth)
            elif self._item(vars(builtins), name) is Absent:
                self._emit(("missing", name), path and name)
        own = self._look(reads.ATTRIBUTES, f, None, f.__dict__)
        self._look(reads.CONTENTS, own, None, flat(own))
        if own:
            self._attributes(own.items(), self.names, path, depth)

    def _imported(self, name: str, space: dict[str, Any]) -> types.ModuleType | None:
        """The module that an `import` in a function means, if it is loaded."""
        package = self._item(space, "__package__")
        package = "" if package is Absent else package or ""
        while package:
            if (found := self._item(sys.modules, f"{package}.{name}")) is not Absent:
                return found
            package = package.rpartition(".")[0]
        for key in dict.fromkeys((name, name.split(".")[0])):
            if (found := self._item(sys.modules, key)) is not Absent and found:
                return found
        return None

    def _met(self, code: types.CodeType) -> None:
        if code not in self.codes:
            self.codes.add(code)
            for inner in names_of(code)[2]:
                self._met(inner)

    def _method(self, m: Any, path: str, depth: int) -> None:
        self._emit("method", path)
        self.visit(m.__func__, path, depth)
        self.visit(m.__self__, path and f"{path}.__self__", depth)

    def _builtin(self, f: Any, path: str, depth: int) -> None:
        owner = f.__self__
        self._emit((f.__module__, f.__qualname__), path)
        if owner is not None and not isinstance(owner, types.ModuleType):
            self.visit(owner, path and f"{path}.__self__", depth)

    def _partial(self, p: Any, path: str, depth: int) -> None:
        self._emit("partial", path)
        for part in ("func", "args", "keywords"):
            self.visit(getattr(p, part), path and f"{path}.{part}", depth)
        self._rest(p, path, depth)

    def _descriptor(self, d: Any, path: str, depth: int) -> None:
        self._emit(id(type(d)), path)
        for part in ("fget", "fset", "__func__", "func", "args", "keywords", "__wrapped__"):
            if (f := getattr(d, part, None)) is not None:
                self.visit(f, path, depth)

    def _module(self, m: types.ModuleType, path: str, depth: int) -> None:
        self._emit(id(m), path)
        space = vars(m)
        wanted, library = self.names, is_library_module(m)
        if not library and not self.names.isdisjoint({"getattr", "vars", "__dict__", "dir"}):
            wanted = wanted | {n for n in space if not n.startswith("__")}
        if wanted is not self.names:
            self.reads = None
        self._item(space, "__name__"), self._item(space, "__file__")
        for name in sorted(wanted):
            if (value := self._item(space, name)) is Absent:
                value = self._item(sys.modules, f"{m.__name__}.{name}")
                if value is Absent or value is None:
                    continue
            self._emit(name, path)
            if library and not isinstance(value, _SEEN_IN_LIBRARIES) and m.__name__ != "numpy.random":
                self._identity(value, path, depth)  # a stream, a lock: its use is seen by `watch`
            else:
                self.visit(value, path and f"{path}.{name}", depth)

    def _class(self, cls: type, path: str, depth: int) -> None:
        self._emit(id(cls), path)
        self.keep.append(cls)
        name = cls.__qualname__
        names = self.names | library_names(cls)
        for c in cls.__mro__[:-1]:
            if is_library_class(c):
                if is_ours(c.__module__):
                    self._emit(tuple([(k, v) for k, v in vars(c).items() if type(v) in _ATOMS and k in names]), "")
                    if shared := vars(c).get("_guarded_too"):
                        self.visit(shared, path and f"{c.__qualname__}", depth)
                continue
            if c is not cls:
                self._emit(id(c), path)
            self.found.update(vars(c).get("__match_args__", ()))
            for key, value in list(vars(c).items()):
                counts = self.everything or key in names or self._is_operator(key, value)
                if key in _ABOUT_CLASS or not counts:
                    continue
                self._emit(key, path)
                self.visit(value, path and f"{name}.{key}", depth)
        if not is_library_class(type(cls)):
            self.visit(type(cls), path and f"type({name})", depth)

    @staticmethod
    def _is_operator(key: str, value: Any) -> bool:
        """What Python calls without naming it: `__getattr__`, `__add__`, and the constructor of a dataclass."""
        if not key.startswith("__") or not key.endswith("__"):
            return False
        generated = isinstance(value, types.FunctionType) and value.__code__.co_filename == "<string>"
        return key not in _CONSTRUCTION or generated

    # Objects

    def _instance(self, x: Any, path: str, depth: int) -> None:
        cls = type(x)
        guarded = getattr(cls, "_guarded", None)
        if guarded is None and top(cls.__module__) == "rushlight_tensor" and not hasattr(x, "__dict__"):
            self._emit(id(x), path)  # an op, a dtype, a generator
            return
        self.reads = None
        if guarded is not None and is_ours(cls.__module__):  # a compiled function: what it stands for
            self._emit(id(cls), path)
            self.visit(guarded(x), path, depth)
        elif cls.__module__ in _IMMUTABLE:
            self._emit((cls, repr(x)), path)
        elif cls.__module__.startswith("numpy.random") or hides_state(cls):
            self._unknown(x, path, "it holds what Python cannot look at; pass what the function needs of it as a value")
        else:
            self._class_once(cls, path, depth)
            self._rest(x, path, depth)

    def _class_once(self, cls: type, path: str, depth: int) -> None:
        if id(cls) not in self._seen:
            self._seen[id(cls)] = len(self._seen)
            self._class(cls, path, depth)
        else:
            self._emit(id(cls), path)

    def _rest(self, x: Any, path: str, depth: int) -> None:
        """The attributes of an object, beside what its kind is known to hold."""
        cls = type(x)
        own = getattr(x, "__dict__", None)
        slots = slots_of(cls)
        if not is_library_class(cls):
            self._class_once(cls, path, depth)
        elif not own and not slots:
            return
        names = self.names | library_names(cls) if own or slots else self.names
        if own:
            self._attributes(list(own.items()), names, path, depth)
        for key, slot in slots:
            try:
                value = slot.__get__(x, cls)
            except AttributeError:  # not set, whatever a class of that name may have
                continue
            self._attributes([(key, value)], names, path, depth)

    def _attributes(self, items: Iterable[tuple[str, Any]], names: frozenset[str], path: str, depth: int) -> None:
        for key, value in items:
            if self.everything or key in names:
                self._emit(key, path)
                self.visit(value, path and f"{path}.{key}", depth)


_KINDS: tuple[tuple[Any, Any], ...] = (
    (Tensor, Walk._tensor),
    (types.FunctionType, Walk._function),
    (types.MethodType, Walk._method),
    (enum.Enum, Walk._enum),
    ((list, tuple, collections.deque), Walk._sequence),
    ((dict, types.MappingProxyType), Walk._mapping),
    (types.ModuleType, Walk._module),
    (type, Walk._class),
    (types.BuiltinFunctionType, Walk._builtin),
    (np.ndarray, Walk._ndarray),
    (np.generic, Walk._scalar),
    (np.dtype, Walk._dtype),  # each dtype is of a class of its own
    ((set, frozenset), Walk._set),
    (functools.partial, Walk._partial),
    ((property, staticmethod, classmethod, functools.cached_property, functools.partialmethod), Walk._descriptor),
    (type(functools.lru_cache(lambda: 0)), Walk._descriptor),
    (weakref.ref, lambda walk, x, path, depth: walk.visit(x(), path, depth)),
    (_BY_IDENTITY, Walk._identity),
    (bytearray, Walk._bytes),
    (
        (bool, int, str, bytes, float, complex),
        lambda walk, x, path, depth: (
            walk._emit((id(type(x)), repr(x)), path),
            walk._rest(x, path, depth),
        ),
    ),
)

_LOOKING: tuple[Any, ...] = (
    Walk._builtin, Walk._function, Walk._identity, Walk._instance, Walk._mapping, Walk._method, Walk._module,
    Walk._scalar, Walk._sequence, Walk._tensor,
)  # fmt: skip
"""Those that note all they read of what may change."""


def walk(
    fn: Any, leaves: Iterable[Any], names: frozenset[str], tensors: Iterable[Tensor] = (), explain: str = "",
    look: bool = False,
) -> Walk:  # fmt: skip
    """The walk from a function and the arguments that are no tensors.

    Args:
        tensors: Those that are: of them counts here what their kind does not say, if code may ask for it.
        explain: What messages call the function; empty for the walk of each call.
        look: Note all reads, too.
    """
    out = Walk(names, bool(explain), look)
    try:
        out.visit(fn, explain)
        for leaf in leaves:
            out.visit(leaf, explain and "an argument")
        out.ask(tensors)
    except _TooMuch:
        out.unknown.append(f"{explain} refers to more than {MOST_TOKENS} values; pass what it needs as arguments")
    return out


def closure(fn: Any, leaves: list[Any], tensors: list[Tensor], explain: str) -> Walk:
    """The walk with all the names that count: code names attributes, which hold code, which names more."""
    names: frozenset[str] = frozenset()
    while True:
        found = walk(fn, leaves, names, tensors, explain)
        if found.found <= names:
            return found
        names |= found.found


def difference(before: Walk, after: Walk) -> str | None:
    """The path of the first thing that has changed between two walks with the same names; None where nothing has."""
    if before.tokens == after.tokens:
        return None
    assert before.paths is not None
    for token, again, path in zip(before.tokens, after.tokens, before.paths, strict=False):
        if token != again:
            return path
    return before.paths[-1] if before.paths else ""
