"""How Python calls compiled C: every prototype of a C text gets a wrapper that takes NumPy arrays directly.

Note [Calling C]
    `arr.ctypes.data` costs 1 to 3 us and ctypes 60 ns per argument on top: for small tensors more than the work.  So
    every compiled text is extended by one METH_FASTCALL wrapper per `EXPORT` function, about 100 ns for a whole call.
    It reads the array's address from the public head of NumPy's array object and checks type, dtype, byte order,
    contiguity and writability first, so a wrong array is a TypeError and never reaches C.  The few CPython functions it
    needs belong to the stable ABI and are declared by hand: Python's headers are not installed everywhere.  The GIL is
    released during the call.

Prototypes, one `EXPORT` each:

    EXPORT void name(const float *restrict x, OPTIONAL const float *b, STRIDED float *y, const float *const *many, long
    n, double eps)

    `T *`         a C-contiguous array of that dtype (float, double, int64_t, int32_t, uint8_t, bool); without `const`,
    writable `OPTIONAL`    may be None, and is NULL then `STRIDED`     need not be contiguous: strides are passed as
    numbers of their own `T *const *`  a list of such arrays `long`, `int64_t`, `int`, `float`, `double`    numbers
    result        void, long, int64_t, or double
"""

from __future__ import annotations

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

HEADER = '#include "rushlight.h"\n'

_PROTOTYPE = re.compile(r"^EXPORT\s+(void|long|int64_t|double)\s+(\w+)\s*\(([^)]*)\)", re.MULTILINE)
_ARRAY_CODES = {"float": "f", "double": "d", "int64_t": "lq", "int32_t": "i", "uint8_t": "B", "bool": "?"}
_NUMBERS = {"long", "int64_t", "int", "float", "double"}
_RESULTS = {
    "void": "{call}; PyEval_RestoreThread(state); return rl_none();",
    "long": "long r = {call}; PyEval_RestoreThread(state); return PyLong_FromLongLong(r);",
    "int64_t": "int64_t r = {call}; PyEval_RestoreThread(state); return PyLong_FromLongLong(r);",
    "double": "double r = {call}; PyEval_RestoreThread(state); return PyFloat_FromDouble(r);",
}


@dataclass(frozen=True)
class _Argument:
    """One argument of a prototype: how it is declared, and the C that makes it from a Python object."""

    type: str
    convert: str
    is_list: bool = False


class Library:
    """A loaded library: its `EXPORT` functions are attributes, called with arrays, lists of arrays and numbers.

    `float32(x, y, ...)` tells whether all its arguments are C-contiguous float32 arrays (or None): the usual condition
    for a kernel, at the price of one call.
    """

    def __init__(self, shared: ctypes.CDLL) -> None:
        # Held for the life of the process: a library whose workers may live must never be unloaded.
        self._shared = shared
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
    for result, name, arguments in _PROTOTYPE.findall(text):
        methods.append(_wrapper(result, name, arguments))
        names.append(name)
    rows = "".join(f'    {{"{name}", rl_call_{name}, RL_FASTCALL, 0}},\n' for name in (*names, "float32", "rl_address"))
    heads = f"#define RL_HEAD {object.__basicsize__}\n" + '#include "binding.h"\n'
    table = f"rl_method rl_methods[] = {{\n{rows}}};\nconst long rl_method_count = {len(names) + 2};\n"
    return heads + "\n".join(methods) + "\n" + table


def _wrapper(result: str, name: str, arguments: str) -> str:
    parsed = [_argument(name, i, text) for i, text in enumerate(filter(None, map(str.strip, arguments.split(","))))]
    declared = "".join(f"    {a.type} a{i} = {a.convert};\n" for i, a in enumerate(parsed))
    call = f"{name}({', '.join(f'a{i}' for i in range(len(parsed)))})"
    freed = "".join(f"free((void *)a{i}); " for i, a in enumerate(parsed) if a.is_list)
    body = _RESULTS[result].format(call=call).replace("return", f"{freed}return")
    return (
        f"static rl_object *rl_call_{name}(rl_object *self, rl_object *const *args, intptr_t count) {{\n"
        f'    if (count != {len(parsed)}) return rl_wrong_count("{name}", {len(parsed)}, count);\n'
        f"{declared}"
        f"    if (PyErr_Occurred()) {{ {freed}return 0; }}\n"
        f"    void *state = PyEval_SaveThread();\n"
        f"    {body}\n"
        f"}}\n"
    )


def _argument(function: str, i: int, text: str) -> _Argument:
    words = re.sub(r"\b(restrict|__restrict)\b", " ", text).replace("*", " * ").split()
    marks, words = set(words) & {"OPTIONAL", "STRIDED"}, [w for w in words if w not in ("OPTIONAL", "STRIDED")]
    stars, base = words.count("*"), next((w for w in words if w not in ("const", "*")), "")
    where = f'"{function}", {i}'
    if stars == 0 and base in _NUMBERS:
        is_float = base in ("float", "double")
        return _Argument(base, f"PyFloat_AsDouble(args[{i}])" if is_float else f"PyLong_AsLongLong(args[{i}])")
    if stars in (1, 2) and base in _ARRAY_CODES:
        wanted = [f"RL_{mark}" for mark in sorted(marks)] + (["RL_WRITTEN"] if words[0] != "const" else [])
        flags = " | ".join(wanted) or "0"
        maker = "rl_array" if stars == 1 else "rl_array_list"
        declared = " ".join([*(["const"] if words[0] == "const" else []), base, "*" if stars == 1 else "*const *"])
        convert = f'(void *){maker}(args[{i}], "{_ARRAY_CODES[base]}", {flags}, {where})'
        return _Argument(declared, convert, is_list=stars == 2)
    raise ValueError(f"EXPORT {function}: cannot bind argument {i} of type {text!r}; use arrays, lists or numbers")
