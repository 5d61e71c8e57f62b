"""Writes the pickle of a `.pt` file: plain containers, numbers and tensors, in the opcodes that `unpickler` reads.

What cannot be written is refused with its place in the object: `cannot save state['optimizer'][0]: …`.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from rushlight_tensor.files.unpickler import hashable

_BATCH = 1000  # items per opcode, as pickle's own
_MAX_DEPTH = 200


class Named(NamedTuple):
    """A name in the file, such as `torch FloatStorage`."""

    module: str
    name: str


class Call(NamedTuple):
    """The result of a named function in the file."""

    function: Named
    args: tuple[Any, ...]


class Persistent(NamedTuple):
    """What the reader finds by this id."""

    pid: tuple[Any, ...]


class Pickler:
    """Turns an object into a pickle.

    Args:
        reduce: `(object, place) -> Named | Call | Persistent | None` for objects that are not plain; None refuses them.
    """

    def __init__(self, reduce: Callable[[Any, str], Any]) -> None:
        self._reduce = reduce
        self._out = bytearray(b"\x80\x02")
        self._memo: dict[Any, int] = {}
        self._alive: list[Any] = []  # the memo goes by id, so nothing in it may be freed

    def dump(self, value: Any) -> bytes:
        """The pickle of `value`.  Raises TypeError for what cannot be saved, ValueError for data nested too deep."""
        self._save(value, "", 0)
        return bytes(self._out + b".")

    def _save(self, value: Any, place: str, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError(f"cannot save {_named(place)[:80]} …: nested beyond {_MAX_DEPTH}, or in itself")
        key = value if isinstance(value, Named) else (str, value) if type(value) is str else id(value)
        if key in self._memo:
            self._get(self._memo[key])
            return
        writer = _WRITERS.get(type(value))
        if writer is not None:
            writer(self, value, place, depth + 1)
            return
        reduced = self._reduce(value, place)
        if reduced is None:
            raise TypeError(
                f"cannot save {_named(place)}: it is a {type(value).__module__}.{type(value).__qualname__}; a file "
                "holds tensors, numbers, strings, lists, tuples, dicts and sets. Save a state_dict() instead"
            )
        self._save(reduced, place, depth + 1)
        self._put(id(value), value)

    def _put(self, key: Any, value: Any) -> None:
        index = len(self._memo)
        self._out += b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index)
        self._memo[key] = index
        self._alive.append(value)

    def _get(self, index: int) -> None:
        self._out += b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index)

    def _none(self, value: None, place: str, depth: int) -> None:
        self._out += b"N"

    def _bool(self, value: bool, place: str, depth: int) -> None:
        self._out += b"\x88" if value else b"\x89"

    def _int(self, value: int, place: str, depth: int) -> None:
        if 0 <= value < 256:
            self._out += b"K" + bytes([value])
        elif -(2**31) <= value < 2**31:
            self._out += b"J" + struct.pack("<i", value)
        else:
            n = (value.bit_length() >> 3) + 1
            if n > 255:
                raise ValueError(f"cannot save {_named(place)}: an integer of {n} bytes, 255 fit; save it as a string")
            self._out += b"\x8a" + bytes([n]) + value.to_bytes(n, "little", signed=True)

    def _float(self, value: float, place: str, depth: int) -> None:
        self._out += b"G" + struct.pack(">d", value)

    def _str(self, value: str, place: str, depth: int) -> None:
        encoded = value.encode("utf-8", "surrogatepass")
        self._out += b"X" + struct.pack("<I", len(encoded)) + encoded
        self._put((str, value), value)

    def _tuple(self, value: tuple[Any, ...], place: str, depth: int) -> None:
        self._items_of_tuple(value, place, depth)
        if value:
            self._put(id(value), value)

    def _items_of_tuple(self, value: tuple[Any, ...], place: str, depth: int) -> None:
        if len(value) > 3:
            self._out += b"("
        for i, item in enumerate(value):
            self._save(item, f"{place}[{i}]", depth)
        self._out += (b")", b"\x85", b"\x86", b"\x87")[len(value)] if len(value) <= 3 else b"t"

    def _list(self, value: list[Any], place: str, depth: int) -> None:
        self._out += b"]"
        self._put(id(value), value)
        for start in range(0, len(value), _BATCH):
            self._out += b"("
            for i, item in enumerate(value[start : start + _BATCH], start):
                self._save(item, f"{place}[{i}]", depth)
            self._out += b"e"

    def _dict(self, value: dict[Any, Any], place: str, depth: int) -> None:
        self._out += b"}"
        self._put(id(value), value)
        self._items_of_dict(value, place, depth)

    def _items_of_dict(self, value: dict[Any, Any], place: str, depth: int) -> None:
        items = list(value.items())
        for start in range(0, len(items), _BATCH):
            self._out += b"("
            for key, item in items[start : start + _BATCH]:
                try:
                    hashable(key)
                except TypeError as e:
                    raise TypeError(f"cannot save {_named(place)}: {e}") from None
                self._save(key, f"{place} key {key!r}", depth)
                self._save(item, f"{place}[{key!r}]", depth)
            self._out += b"u"

    def _ordered(self, value: OrderedDict[Any, Any], place: str, depth: int) -> None:
        self._call(Call(Named("collections", "OrderedDict"), ()), place, depth)
        self._put(id(value), value)
        self._items_of_dict(value, place, depth)
        extra = vars(value)
        if extra:
            if set(extra) != {"_metadata"}:
                raise TypeError(f"cannot save {_named(place)}: an OrderedDict with attributes {sorted(extra)}")
            self._dict({"_metadata": extra["_metadata"]}, place, depth)
            self._out += b"b"

    def _set(self, value: set[Any], place: str, depth: int) -> None:
        for item in value:
            try:
                hashable(item)
            except TypeError as e:
                raise TypeError(f"cannot save {_named(place)}: {e}") from None
        self._call(Call(Named("__builtin__", "set"), (sorted(value, key=repr),)), place, depth)
        self._put(id(value), value)

    def _counter(self, value: Counter[Any], place: str, depth: int) -> None:
        self._call(Call(Named("collections", "Counter"), (dict(value),)), place, depth)
        self._put(id(value), value)

    def _complex(self, value: complex, place: str, depth: int) -> None:
        self._call(Call(Named("__builtin__", "complex"), (value.real, value.imag)), place, depth)

    def _bytes(self, value: bytes, place: str, depth: int) -> None:
        self._call(Call(Named("_codecs", "encode"), (value.decode("latin1"), "latin1")), place, depth)

    def _name(self, value: Named, place: str, depth: int) -> None:
        self._out += b"c" + f"{value.module}\n{value.name}\n".encode()
        self._put(value, value)

    def _call(self, value: Call, place: str, depth: int) -> None:
        self._save(value.function, place, depth)
        self._items_of_tuple(value.args, place, depth)
        self._out += b"R"

    def _persid(self, value: Persistent, place: str, depth: int) -> None:
        self._items_of_tuple(value.pid, place, depth)
        self._out += b"Q"


def _named(place: str) -> str:
    return f"state{place}" if place else "this object"


_WRITERS: dict[type, Callable[[Pickler, Any, str, int], None]] = {
    type(None): Pickler._none,
    bool: Pickler._bool,
    int: Pickler._int,
    float: Pickler._float,
    str: Pickler._str,
    complex: Pickler._complex,
    bytes: Pickler._bytes,
    tuple: Pickler._tuple,
    list: Pickler._list,
    dict: Pickler._dict,
    OrderedDict: Pickler._ordered,
    Counter: Pickler._counter,
    set: Pickler._set,
    Named: Pickler._name,
    Call: Pickler._call,
    Persistent: Pickler._persid,
}
