"""How Python calls compiled C: every prototype of a C text gets a wrapper that takes NumPy arrays directly.

Note [Calling C]
    `arr.ctypes.data` costs 1 to 3 us and ctypes 60 ns per argument on top: for small tensors more than the work.  So
    every compiled text is extended by one METH_FASTCALL wrapper per `EXPORT` function, about 100 ns for a whole call.
    It reads the array's address from the public head of NumPy's array object and checks type, dtype, byte order,
    contiguity and writability first, so a wrong array is a TypeError and never reaches C.  The few CPython functions it
    needs belong to the stable ABI and are declared by hand: Python's headers are not installed everywhere.  The GIL is
    released during the call.

Note [Lengths]
    Every array declares how many elements it has, by the numbers of the same prototype.  The wrapper reads the numbers
    first, works the lengths out in arithmetic that saturates instead of wrapping round, and compares them with the
    arrays that Python passed: a wrong length is a ValueError that names kernel, argument, got and want.  So a kernel
    that stays within its own declaration cannot touch memory that is not its own, whoever calls it; and a prototype
    without lengths is refused when its text is bound.  What a kernel reads *inside* an array (indices, classes) it
    checks itself, at the moment of use: another thread may change them at any time.

Prototypes, one `EXPORT` each:

    EXPORT void name(LENGTH(m * n) const float *restrict x, OPTIONAL LENGTH(n) const float *b,
        EXTENT(span(m, step, n, 1)) float *y, LENGTH(count, sizes[i]) const float *const *many, long m, long n)

    `T *`            a C-contiguous array of that dtype (float, double, int64_t, int32_t, uint8_t, bool), aligned;
                     without `const`, writable
    `LENGTH(e)`      it has exactly `e` elements; for a list, `LENGTH(count, sizes[i])`: how many arrays, and each
                     one's length, where `sizes` is another array argument
    `EXTENT(e)`      it need not be contiguous: from its first element to its last (no stride may be negative) it spans
                     at least `e` elements.  Strides are passed as numbers of their own
    `OPTIONAL`       may be None, and is NULL then
    `T *const *`     a list of such arrays
    `long`, `int64_t`, `float`, `double`  numbers; those that a length names must not be negative
    `POSITIVE long`  a number that is at least 1
    result           void, long, int64_t, double; or `status`, 0 or NO_MEMORY (a MemoryError)

    `e` is made of numbers, `+`, `-`, `*`, `span(n0, step0, n1, step1, …)` (the extent of an array of these sizes and
    strides, 0 where a size is 0) and `pick(condition, a, b)`.
"""

from __future__ import annotations

import ast
import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rushlight_tensor.kernels import cpu

# What every compiled text shares at run time: thread count, addresses of cblas_sgemm and cblas_dgemm (0: none),
# id(np.ndarray).
STATE = np.array([cpu.default_threads(), 0, 0, id(np.ndarray)], np.int64)
THREADS, SGEMM, DGEMM = 0, 1, 2

HEADER = f'#include "rushlight.h"\n#define RL_HEAD {object.__basicsize__}\n'

_PROTOTYPE = re.compile(r"^EXPORT\s+(void|status|long|int64_t|double)\s+(\w+)\s*\(", re.MULTILINE)
_ARRAY_CODES = {"float": "f", "double": "d", "int64_t": "lq", "int32_t": "i", "uint8_t": "B", "bool": "?"}
_NUMBERS = {"long", "int64_t", "float", "double"}
_RESULTS = {
    "void": "{call}; PyEval_RestoreThread(state); return rl_none();",
    "status": "long r = {call}; PyEval_RestoreThread(state); return rl_status({name}, r);",
    "long": "long r = {call}; PyEval_RestoreThread(state); return PyLong_FromLongLong(r);",
    "int64_t": "int64_t r = {call}; PyEval_RestoreThread(state); return PyLong_FromLongLong(r);",
    "double": "double r = {call}; PyEval_RestoreThread(state); return PyFloat_FromDouble(r);",
}
_OPERATORS = {ast.Add: "rl_add", ast.Sub: "rl_sub", ast.Mult: "rl_mul"}


@dataclass(frozen=True)
class _Argument:
    """One argument of a prototype, as it is declared."""

    name: str
    type: str  # of the C variable
    base: str
    stars: int
    marks: frozenset[str]
    kind: str  # of the length: LENGTH, EXTENT, or nothing
    length: str

    @property
    def is_integer(self) -> bool:
        return not self.stars and self.base in ("long", "int64_t")


class Library:
    """A loaded library: its `EXPORT` functions are attributes, called with arrays, lists of arrays and numbers.

    `float32(x, y, ...)` tells whether all its arguments are C-contiguous float32 arrays (or None): the usual condition
    for a kernel, at the price of one call.
    """

    def __init__(self, shared: ctypes.CDLL) -> None:
        # Held for the life of the process: a library whose workers may live must never be unloaded.
        self.shared = shared
        shared.rl_bind(ctypes.c_void_p(STATE.ctypes.data))
        table = ctypes.addressof(ctypes.c_char.in_dll(shared, "rl_methods"))
        make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
            ("PyCFunction_NewEx", ctypes.pythonapi)
        )
        for i in range(ctypes.c_long.in_dll(shared, "rl_method_count").value):
            function: Callable[..., Any] = make(table + i * 4 * ctypes.sizeof(ctypes.c_void_p), None, None)
            setattr(self, function.__name__, function)
        probe = np.zeros(3, np.float32)
        if self.rl_address(probe) != probe.ctypes.data:
            raise RuntimeError("kernels: this NumPy's array object has an unknown layout; set RUSHLIGHT_CC=none")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the compiled text has no EXPORT function {name!r}")


def wrappers(text: str) -> str:
    """The C text that makes the `EXPORT` functions of `text` callable from Python.  See Note [Calling C].

    Raises:
        ValueError: An argument type cannot be bound.
    """
    methods, names = [], []
    for found in _PROTOTYPE.finditer(text):
        methods.append(_wrapper(found[1], found[2], _inside(text, found.end())))
        names.append(found[2])
    rows = "".join(f'    {{"{name}", rl_call_{name}, RL_FASTCALL, 0}},\n' for name in (*names, "float32", "rl_address"))
    table = f"rl_method rl_methods[] = {{\n{rows}}};\nconst long rl_method_count = {len(names) + 2};\n"
    return '#include "binding.h"\n' + "\n".join(methods) + "\n" + table


def _inside(text: str, start: int) -> str:
    """What stands between the bracket that opened before `start` and the one that closes it."""
    depth = 1
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if not depth:
            return text[start:i]
    raise ValueError("an EXPORT prototype has no closing bracket")


def _split(text: str) -> list[str]:
    """The parts between the commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _wrapper(result: str, name: str, text: str) -> str:
    """The METH_FASTCALL function: numbers, then what they say of the arrays, then the call."""
    arguments = [_argument(name, part) for part in _split(text)]
    places = {a.name: i for i, a in enumerate(arguments)}
    where = [f'"{name}", "{a.name}"' for a in arguments]
    lengths = [_lengths(name, a, arguments) for a in arguments]
    measuring = {word for a in arguments for word in re.findall(r"\w+", a.length)}
    lines = [f"    {a.type} a{i} = 0;\n" for i, a in enumerate(arguments) if a.stars == 2]  # freed on every way out
    order = sorted(range(len(arguments)), key=lambda i: arguments[i].stars)
    for i in order:
        a = arguments[i]
        declared = f"a{i}" if a.stars == 2 else f"{a.type} a{i}"
        lines.append(f"    {declared} = {_conversion(a, i, where[i], lengths[i])};\n")
        if a.is_integer and ("POSITIVE" in a.marks or a.name in measuring):
            least = int("POSITIVE" in a.marks)
            lines.append(f"    if (a{i} < {least}) {{ rl_too_small({where[i]}, {least}, a{i}); goto failed; }}\n")
        if a.stars:
            failed = f"!a{i} && PyErr_Occurred()" if a.stars == 1 else f"!a{i}{_unless_none(a, i)}"
            lines.append(f"    if ({failed}) goto failed;\n")
    call = f"{name}({', '.join(f'a{i}' for i in range(len(arguments)))})"
    freed = "".join(f"free((void *)a{places[a.name]}); " for a in arguments if a.stars == 2)
    body = _RESULTS[result].format(call=call, name=f'"{name}"').replace("return", f"{freed}return")
    return (
        f"static rl_object *rl_call_{name}(rl_object *self, rl_object *const *args, intptr_t count) {{\n"
        f'    if (count != {len(arguments)}) return rl_wrong_count("{name}", {len(arguments)}, count);\n'
        f"{''.join(lines)}"
        f"    if (PyErr_Occurred()) goto failed;\n"
        f"    void *state = PyEval_SaveThread();\n"
        f"    {body}\n"
        f"failed:\n"
        f"    {freed}return 0;\n"
        f"}}\n"
    )


def _unless_none(a: _Argument, i: int) -> str:
    return f" && args[{i}] != &_Py_NoneStruct" if "OPTIONAL" in a.marks else ""


def _conversion(a: _Argument, i: int, where: str, lengths: list[str]) -> str:
    """The C that makes an argument from its Python object."""
    if not a.stars:
        return f"PyFloat_AsDouble(args[{i}])" if a.base in ("float", "double") else f"PyLong_AsLongLong(args[{i}])"
    wanted = ["RL_OPTIONAL"] if "OPTIONAL" in a.marks else []
    wanted += ["RL_STRIDED"] if a.kind == "EXTENT" else []
    wanted += [] if a.type.startswith("const") else ["RL_WRITTEN"]
    maker = "rl_array" if a.stars == 1 else "rl_array_list"
    flags = " | ".join(wanted) or "0"
    return f'(void *){maker}(args[{i}], "{_ARRAY_CODES[a.base]}", {flags}, {", ".join(lengths)}, {where})'


def _argument(function: str, text: str) -> _Argument:
    declared = re.match(r"((?:OPTIONAL|POSITIVE|\s)*)(?:(LENGTH|EXTENT)\s*\()?", text)
    assert declared is not None
    kind, length, rest = declared[2] or "", "", text[declared.end() :]
    if kind:
        length = _inside(text, declared.end())
        rest = rest[len(length) + 1 :]
    words = re.sub(r"\b(restrict|__restrict)\b", " ", rest).replace("*", " * ").split()
    stars, base = words.count("*"), next((w for w in words if w not in ("const", "*")), "")
    constant = "const " if words[:1] == ["const"] else ""
    known = base in (_ARRAY_CODES if stars else _NUMBERS) and stars <= 2 and len(words) > 1
    if not known:
        raise ValueError(f"EXPORT {function}: cannot bind an argument {text!r}; use arrays, lists or numbers")
    if stars and not length:
        raise ValueError(
            f"EXPORT {function}: the array {words[-1]!r} declares no length; write LENGTH(...) or EXTENT(...) before it"
        )
    ctype = base if not stars else f"{constant}{base} *" if stars == 1 else f"{constant}{base} *const *"
    return _Argument(words[-1], ctype, base, stars, frozenset(declared[1].split()), kind, length)


def _lengths(function: str, a: _Argument, arguments: list[_Argument]) -> list[str]:
    """C expressions: the length of an array; or the count of a list and the array of its lengths."""
    if not a.stars:
        return []
    parts = _split(a.length)
    trouble = ValueError(f"EXPORT {function}: cannot read the length of {a.name!r}: {a.length!r}")
    if len(parts) != a.stars:
        raise trouble
    places = {other.name: i for i, other in enumerate(arguments)}

    def number(node: ast.expr) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return str(node.value)
        if isinstance(node, ast.Name) and node.id in places and arguments[places[node.id]].is_integer:
            return f"a{places[node.id]}"
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return f"{_OPERATORS[type(node.op)]}({number(node.left)}, {number(node.right)})"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            given = [number(x) for x in node.args]
            if node.func.id == "pick" and len(given) == 3:
                return f"({given[0]} ? {given[1]} : {given[2]})"
            if node.func.id == "span" and len(given) % 2 == 0:
                pairs = zip(given[::2], given[1::2], strict=True)
                total = "1"
                for n, step in pairs:
                    total = f"rl_add({total}, rl_mul(rl_sub({n}, 1), {step}))"
                some = " && ".join(f"{n} > 0" for n in given[::2])
                return f"({some} ? {total} : 0)"
        raise trouble

    try:
        trees = [ast.parse(part, mode="eval").body for part in parts]
    except SyntaxError:
        raise trouble from None
    if a.stars == 1:
        return [number(trees[0])]
    each = trees[1]
    if not (isinstance(each, ast.Subscript) and isinstance(each.value, ast.Name) and each.value.id in places):
        raise trouble
    sizes = arguments[places[each.value.id]]
    if sizes.stars != 1 or sizes.base != "int64_t" or _split(sizes.length) != [parts[0]]:
        raise trouble  # it must have one element for each array of the list
    return [number(trees[0]), f"a{places[sizes.name]}"]
