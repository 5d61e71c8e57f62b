"""An interpreter of the pickle opcodes that files of tensors consist of.  It imports nothing and calls nothing by name.

A `.pt` file describes its contents in pickle's language, in which a file can also tell Python's `pickle` to run any
program.  Here a name in the file is a key of a fixed table (`Names`), and every opcode that PyTorch does not write is
refused.

Note [Budget]
    One byte of a pickle can make an object of 64 bytes.  So the cost of containers is added up, and a file that asks
    for more than twice its own size (and 24 MB) is refused: no file with data in it comes near.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from rushlight_tensor.files.errors import FileFormatError

Names = Mapping[tuple[str, str], Any]
"""What `(module, name)` in a file stands for: a `Function`, or a value."""

_FREE_BYTES = 24 << 20
_SCALARS = (str, int, float, bool, type(None), bytes, complex)


class Function:
    """A function that a file may apply: it checks its arguments and raises ValueError or TypeError for wrong ones."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class Unpickler:
    """Reads one pickle.

    Args:
        data: The pickle.
        names: The table of names.
        persistent: What a persistent id, a tuple, stands for.
        budget_bytes: How much memory its containers may take.  See Note [Budget].
        what: The file, for messages.
    """

    def __init__(
        self, data: bytes, names: Names, persistent: Callable[[Any], Any], budget_bytes: int, what: str
    ) -> None:
        self._data, self._names, self._persistent, self._what = data, names, persistent, what
        self._budget = budget_bytes + _FREE_BYTES
        self._at = 0
        self._cost = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []

    def load(self) -> Any:
        """The object.  Raises FileFormatError for anything but a well-formed pickle of the known opcodes and names."""
        try:
            return self._run()
        except (IndexError, struct.error, UnicodeDecodeError, ValueError, TypeError, OverflowError) as e:
            raise FileFormatError(f"{self._what}: its pickle is damaged at byte {self._at}: {e}") from e

    def _run(self) -> Any:
        data, opcodes, size = self._data, _OPCODES, len(self._data)
        while True:
            if self._at >= size:
                self._fail("it has no end")
            code = data[self._at]
            self._at += 1
            if code == _STOP:
                if len(self._stack) != 1 or self._marks:
                    self._fail("it ends with unfinished objects")
                return self._stack[0]
            handler = opcodes.get(code)
            if handler is None:
                self._fail(
                    f"opcode {bytes([code])!r} at byte {self._at - 1} is not one that a file of tensors needs; "
                    "in PyTorch, load it and save its state_dict() with the default pickle protocol"
                )
            handler(self)
            if self._cost + 8 * len(self._stack) + 8 * len(self._memo) > self._budget:
                self._fail("it asks for far more objects than a file of its size can describe")

    def _fail(self, why: str) -> NoReturn:
        raise FileFormatError(f"{self._what}: its pickle is refused: {why}")

    # ------------------------------------------------------------------------------------------------------ bytes

    def _take(self, n: int) -> bytes:
        start = self._at
        if n < 0 or start + n > len(self._data):
            self._fail(f"{n} bytes expected at byte {start}, it has {len(self._data)}")
        self._at = start + n
        return self._data[start : self._at]

    def _number(self, format: str, n: int) -> Any:
        return struct.unpack(format, self._take(n))[0]

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at)
        if end < 0 or end - self._at > 1000:
            self._fail("a name has no end")
        line = self._data[self._at : end].decode()
        self._at = end + 1
        return line

    # ---------------------------------------------------------------------------------------------------- opcodes

    def _proto(self) -> None:
        version = self._take(1)[0]
        if version != 2:
            self._fail(f"it has pickle protocol {version}, PyTorch's default is 2; save it with that")

    def _mark(self) -> None:
        self._cost += 40
        self._marks.append(len(self._stack))

    def _above_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            self._fail("an object is missing")
        return self._stack.pop()

    def _push(self, value: Any, cost: int = 0) -> None:
        self._cost += cost
        self._stack.append(value)

    def _global(self) -> None:
        key = self._line(), self._line()
        if key not in self._names:
            self._fail(
                f"it refers to {'.'.join(key)}, which a file of tensors does not need and which could run code; save "
                "state_dict() and plain containers (in PyTorch: torch.save(model.state_dict(), path))"
            )
        self._push(self._names[key])

    def _reduce(self) -> None:
        args, function = self._pop(), self._pop()
        if not isinstance(function, Function) or type(args) is not tuple:
            self._fail(f"it applies something that is no function: {type(function).__name__}")
        self._push(function.call(*args), 64)

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        # What state_dict() attaches to itself; nothing else may be set.
        if type(target) is not OrderedDict or type(state) is not dict or set(state) != {"_metadata"}:
            self._fail(f"it sets attributes of a {type(target).__name__}; only _metadata of an OrderedDict is known")
        if not isinstance(state["_metadata"], dict):
            self._fail("_metadata is no dictionary")
        vars(target).update(state)
        self._push(target)

    def _persid(self) -> None:
        pid = self._pop()
        self._push(self._persistent(pid))

    def _tuple(self, n: int) -> None:
        if len(self._stack) - (self._marks[-1] if self._marks else 0) < n:
            self._fail("an object is missing")
        items = tuple(self._stack[len(self._stack) - n :])
        del self._stack[len(self._stack) - n :]
        self._push(items, 48 + 8 * n)

    def _tuple_of_mark(self) -> None:
        items = tuple(self._above_mark())
        self._push(items, 48 + 8 * len(items))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            self._fail(f"it appends to a {type(target).__name__}")
        self._cost += 8 * len(items)
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) not in (dict, OrderedDict, Counter) or len(items) % 2:
            self._fail(f"it sets {len(items)} keys and values of a {type(target).__name__}")
        self._cost += 8 * len(items)
        for i in range(0, len(items), 2):
            target[hashable(items[i])] = items[i + 1]

    def _put(self, index: int) -> None:
        if index == len(self._memo):
            self._memo.append(self._stack[-1])
        elif index < len(self._memo):
            self._memo[index] = self._stack[-1]
        else:
            self._fail(f"object {index} is noted before object {len(self._memo)}")

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _long(self) -> None:
        self._push(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def _unicode(self) -> None:
        self._push(self._take(self._number("<I", 4)).decode("utf-8", "surrogatepass"))


def hashable(key: Any) -> Any:
    """`key`, if it is plain data that can be one; raises TypeError otherwise."""
    if isinstance(key, _SCALARS) or (type(key) is tuple and all(isinstance(k, _SCALARS) for k in key)):
        return key
    raise TypeError(f"a {type(key).__name__} is no key of a dictionary here; use strings, numbers or tuples of these")


_STOP = ord(".")
_OPCODES: dict[int, Callable[[Unpickler], Any]] = {
    0x80: Unpickler._proto,
    ord("("): Unpickler._mark,
    ord("N"): lambda u: u._push(None),
    0x88: lambda u: u._push(True),
    0x89: lambda u: u._push(False),
    ord("K"): lambda u: u._push(u._take(1)[0]),
    ord("M"): lambda u: u._push(u._number("<H", 2)),
    ord("J"): lambda u: u._push(u._number("<i", 4)),
    0x8A: Unpickler._long,
    ord("G"): lambda u: u._push(u._number(">d", 8)),
    ord("X"): Unpickler._unicode,
    ord(")"): lambda u: u._push(()),
    0x85: lambda u: u._tuple(1),
    0x86: lambda u: u._tuple(2),
    0x87: lambda u: u._tuple(3),
    ord("t"): Unpickler._tuple_of_mark,
    ord("]"): lambda u: u._push([], 64),
    ord("a"): lambda u: u._append([u._pop()]),
    ord("e"): lambda u: u._append(u._above_mark()),
    ord("}"): lambda u: u._push({}, 64),
    ord("s"): lambda u: u._set_items([u._pop(), u._pop()][::-1]),
    ord("u"): lambda u: u._set_items(u._above_mark()),
    ord("c"): Unpickler._global,
    ord("R"): Unpickler._reduce,
    ord("b"): Unpickler._build,
    ord("Q"): Unpickler._persid,
    ord("q"): lambda u: u._put(u._take(1)[0]),
    ord("r"): lambda u: u._put(u._number("<I", 4)),
    ord("h"): lambda u: u._get(u._take(1)[0]),
    ord("j"): lambda u: u._get(u._number("<I", 4)),
}
