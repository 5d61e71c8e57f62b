"""How compiled C is called: every prototype of a C text gets a wrapper that takes NumPy arrays, and a plain entry.

Note [Calling C]
    `arr.ctypes.data` costs 1 to 3 us and ctypes 60 ns per argument on top: for small tensors more than the work.  So
    every compiled text is extended by one METH_FASTCALL wrapper per `EXPORT` function, about 100 ns for a whole call.
    It reads the array's address from the public head of NumPy's array object and checks type, dtype, byte order,
    contiguity and writability first, so a wrong array is a TypeError and never reaches C.  The few CPython functions it
    needs belong to the stable ABI and are declared by hand: Python's headers are not installed everywhere.  The GIL is
    released during the call.

Note [The other way to call C]
    A step that was captured runs without the interpreter, so every kernel has a second entry, the same for all:
    `run(buffers, sizes, numbers)`, each in the order of the prototype.  It checks nothing; `program`, which makes the
    tables that C walks, has checked the lengths against the prototype.
"""

from __future__ import annotations

import ast
import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from rushlight_tensor.kernels import cpu
from rushlight_tensor.kernels.prototype import ARRAY_CODES, Argument, Prototype, c_text, prototypes

# What every compiled text shares at run time: thread count, addresses of cblas_sgemm and cblas_dgemm (0: none),
# id(np.ndarray).
STATE = np.array([cpu.default_threads(), 0, 0, id(np.ndarray)], np.int64)
THREADS, SGEMM, DGEMM = 0, 1, 2

HEADER = f'#include "rushlight.h"\n#define RL_HEAD {object.__basicsize__}\n'
_OWN = ("float32", "rl_address")  # what every library has besides

_RESULTS = {
    "void": "{call}; PyEval_RestoreThread(state); return rl_none();",
    "long": "long r = {call}; PyEval_RestoreThread(state); return PyLong_FromLongLong(r);",
    "int64_t": "int64_t r = {call}; PyEval_RestoreThread(state); return PyLong_FromLongLong(r);",
    "double": "double r = {call}; PyEval_RestoreThread(state); return PyFloat_FromDouble(r);",
}


class Library:
    """A loaded library: its `EXPORT` functions are attributes, called with arrays, lists of arrays and numbers.

    `prototypes` say how they are called, `entries` where C finds them (Note [The other way to call C]);
    `<kernel>.fits` (by `getattr`) tells whether the kernel takes these inputs as they are.  `float32(x, y, ...)` tells
    whether all its arguments are C-contiguous float32 arrays (or None): the usual condition for a kernel, at the price
    of one call.
    """

    def __init__(self, shared: ctypes.CDLL, text: str) -> None:
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
        self.prototypes = {p.name: p for p in prototypes(text)}
        self.entries = _entries(shared)
        probe = np.zeros(3, np.float32)
        try:
            known = self.rl_address(probe) == probe.ctypes.data
        except TypeError:
            known = False
        if not known:
            raise RuntimeError("kernels: this NumPy's array object has an unknown layout; set RUSHLIGHT_CC=none")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the compiled text has no EXPORT function {name!r}")


class _Kernel(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("run", ctypes.c_void_p))


def _entries(shared: ctypes.CDLL) -> dict[str, int]:
    """The addresses of the plain entries, by name."""
    count = ctypes.c_long.in_dll(shared, "rl_kernel_count").value
    return {e.name.decode(): e.run for e in (_Kernel * count).in_dll(shared, "rl_kernels")}


def wrappers(text: str) -> str:
    """The C text that makes the `EXPORT` functions of `text` callable.  See Note [Calling C].

    Raises:
        ValueError: A prototype cannot be bound.
    """
    found = list(prototypes(text))
    callables = {name: f"rl_call_{name}" for name in (*(p.name for p in found), *_OWN)}
    callables |= {f"{p.name}.fits": f"rl_fits_{p.name}" for p in found}
    rows = "".join(f'    {{"{name}", {function}, RL_FASTCALL, 0}},\n' for name, function in callables.items())
    runs = "".join(f'    {{"{p.name}", rl_run_{p.name}}},\n' for p in found)
    tables = (
        f"rl_method rl_methods[] = {{\n{rows}}};\nconst long rl_method_count = {len(callables)};\n"
        f"const rl_kernel rl_kernels[] = {{\n{runs}}};\nconst long rl_kernel_count = {len(found)};\n"
    )
    return '#include "binding.h"\n' + "\n".join(_wrapper(p) + _fits(p) + _entry(p) for p in found) + "\n" + tables


def _wrapper(p: Prototype) -> str:
    """The METH_FASTCALL function: numbers, then what they say of the arrays, then the call."""
    arguments = p.arguments
    passed = [i for i, a in enumerate(arguments) if a.is_given]
    scratch = [i for i, a in enumerate(arguments) if a.is_scratch]
    given = {i: n for n, i in enumerate(passed)}
    places = {a.name: f"a{i}" for i, a in enumerate(arguments)}
    lengths = {i: _lengths(p, a, places) for i, a in enumerate(arguments) if a.stars}
    freed_at_end = [i for i, a in enumerate(arguments) if a.stars == 2 or a.is_scratch]
    lines = [f"    {arguments[i].type} a{i} = 0;\n" for i in freed_at_end]  # freed on every way out
    lines += [f"    long a{i} = rl_threads();\n" for i, a in enumerate(arguments) if a.is_thread_count]
    for i in sorted(passed, key=lambda i: arguments[i].stars):
        a, where = arguments[i], f'"{p.name}", "{arguments[i].name}"'
        declared = f"a{i}" if a.stars == 2 else f"{a.type} a{i}"
        lines.append(f"    {declared} = {_conversion(a, f'args[{given[i]}]', where, lengths.get(i, []))};\n")
        if a.is_integer and ("POSITIVE" in a.marks or a.name in p.measuring):
            least = int("POSITIVE" in a.marks)
            lines.append(f"    if (a{i} < {least}) {{ rl_too_small({where}, {least}, a{i}); goto failed; }}\n")
        if a.stars:
            unless = f" && args[{given[i]}] != &_Py_NoneStruct" if "OPTIONAL" in a.marks else ""
            failed = f"!a{i} && PyErr_Occurred()" if a.stars == 1 else f"!a{i}{unless}"
            lines.append(f"    if ({failed}) goto failed;\n")
    lines.append("    if (PyErr_Occurred()) goto failed;\n")
    for i in scratch:
        lines.append(f"    a{i} = rl_scratch({lengths[i][0]}, sizeof *a{i});\n")
        lines.append(f"    if (!a{i}) goto failed;\n")
    call = f"{p.name}({', '.join(f'a{i}' for i in range(len(arguments)))})"
    freed = "".join(f"free((void *)a{i}); " for i in freed_at_end)
    body = _RESULTS[p.result].format(call=call).replace("return", f"{freed}return")
    return (
        f"static rl_object *rl_call_{p.name}(rl_object *self, rl_object *const *args, intptr_t count) {{\n"
        f'    if (count != {len(passed)}) return rl_wrong_count("{p.name}", {len(passed)}, count);\n'
        f"{''.join(lines)}"
        f"    void *state = PyEval_SaveThread();\n"
        f"    {body}\n"
        f"failed:\n"
        f"    {freed}return 0;\n"
        f"}}\n"
    )


def _fits(p: Prototype) -> str:
    """The function that tells whether the kernel can be given these arrays as inputs: dtypes, order, alignment."""
    inputs = p.inputs
    if (each := p.one_list) is not None:
        return (
            f"static rl_object *rl_fits_{p.name}(rl_object *self, rl_object *const *args, intptr_t count) {{\n"
            f"    for (intptr_t i = 0; i < count; i++)\n"
            f'        if (!rl_fits(args[i], "{ARRAY_CODES[each.base]}", {_flags(each)})) return rl_bool(false);\n'
            f"    return rl_bool(true);\n}}\n"
        )
    tests = "".join(
        f' && rl_fits(args[{i}], "{ARRAY_CODES[a.base]}", {_flags(a)})' for i, a in enumerate(inputs) if a.stars == 1
    )
    return (
        f"static rl_object *rl_fits_{p.name}(rl_object *self, rl_object *const *args, intptr_t count) {{\n"
        f"    return rl_bool(count == {len(inputs)}{tests});\n}}\n"
    )


def _entry(p: Prototype) -> str:
    """The function that C calls.  See Note [The other way to call C]."""
    counts = {"p": 0, "n": 0, "f": 0}
    given = []
    for a in p.arguments:
        row = "p" if a.stars else "n" if a.is_integer else "f"
        given.append(f"{row}[{counts[row]}]")
        counts[row] += 1
    call = f"{p.name}({', '.join(given)})"
    body = f"{call}; return 0;" if p.result in ("void", "double") else f"return {call};"
    return f"static long rl_run_{p.name}(void *const *p, const int64_t *n, const double *f) {{ {body} }}\n"


def _lengths(p: Prototype, a: Argument, places: dict[str, str]) -> list[str]:
    """C expressions: the length of an array; or the count of a list and the array of its lengths."""
    trees = p.trees(a)
    return [c_text(trees[0], places), *[places[each.id] if isinstance(each, ast.Name) else "0" for each in trees[1:]]]


def _conversion(a: Argument, given: str, where: str, lengths: list[str]) -> str:
    """The C that makes an argument from its Python object."""
    if not a.stars:
        return f"PyFloat_AsDouble({given})" if a.base in ("float", "double") else f"PyLong_AsLongLong({given})"
    maker = "rl_array" if a.stars == 1 else "rl_array_list"
    return f'(void *){maker}({given}, "{ARRAY_CODES[a.base]}", {_flags(a)}, {", ".join(lengths)}, {where})'


def _flags(a: Argument) -> str:
    wanted = ["RL_OPTIONAL"] if "OPTIONAL" in a.marks else []
    wanted += ["RL_STRIDED"] if a.kind == "EXTENT" else []
    wanted += ["RL_IMAGE"] if a.is_image else []
    wanted += [] if a.is_input else ["RL_WRITTEN"]
    return " | ".join(wanted) or "0"
