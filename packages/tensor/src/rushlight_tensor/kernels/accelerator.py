"""The hot path in C (`c/accelerator.c`): loops made from the records, objects handed over, Python's text as fallback.

Note [The accelerator]
    An op on four numbers costs 0.25 µs in NumPy and twice that in Python around it; in C, where the same is done
    without an interpreter, less than NumPy alone.  The C functions have the names of their Python twins and take the
    plain case only: float32 and float64 arrays that are C-contiguous, tensors whose views need no `sync`, no
    interceptor.  Everything else they hand to the twin, which is kept in the same object.  So Python is the reference,
    and what runs where there is no compiler, with `RUSHLIGHT_CC=none`, in a free-threaded build, or where objects do
    not lie in memory as `offsets` expects; `RUSHLIGHT_ACCELERATOR=none` turns off this alone, not the kernels.
    Nothing is compiled by an import: a library that is in the cache is loaded, else the first op that would use it
    compiles it, once per machine.

Note [Loops from records]
    A record's `expr` is the loop, where it is made of arithmetic, exactly rounded functions, and those of `vmath.h`;
    its `vjp`, where that is arithmetic, is the loop of the gradient (`arithmetic_rules`).  So that results are NumPy's
    bits, products and sums are not contracted.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from rushlight_tensor.core import dispatch, hot, placement
from rushlight_tensor.core.graph import INPUT, OUT, Node, Slot
from rushlight_tensor.core.infer import Aval
from rushlight_tensor.core.op import REGISTRY, Gradient, Op
from rushlight_tensor.core.quiet import QUIET
from rushlight_tensor.core.tensor import Tensor, View, wrap
from rushlight_tensor.kernels import compile, plan
from rushlight_tensor.kernels.arithmetic_rules import Symbol, text_of
from rushlight_tensor.kernels.c_expressions import VECTOR_FORMS, functions_of, in_float
from rushlight_tensor.kernels.cuda_text import attributes_of
from rushlight_tensor.kernels.prototype import ARRAY_CODES, Prototype

_EXACT = {"sqrt", "floor", "ceil", "trunc", "rint"}  # functions that are rounded correctly everywhere
_VECTOR = {"exp", "tanh"}
_DTYPES: dict[str, np.dtype[Any]] = {"float": np.dtype(np.float32), "double": np.dtype(np.float64)}
_NONE, _FIRST, _SECOND = range(3)  # which operand is one element; as in the C text
_PYTHON, _GIVEN, _COMPUTED = range(3)  # what a rule does; likewise
_FORWARD = -1
_LAYOUTS = ("slice", "shape", "permutation")  # how a view is made; likewise
_TEXTS = ("view_path", "getitem", "view", "transpose")  # what makes views, by the names of its C

_IN_ORDER, _AS_INPUTS, _AS_IMAGES, _MOVED = range(4)  # how results lie; likewise
_READ, _MADE, _NOTHING, _SCRATCH, _LIST, _LENGTHS, _STATE = range(7)  # what a buffer of a kernel is; likewise
_MOST_ARRAYS, _MOST_SIZES, _ALIGNED = 16, 24, 64  # room in the C text, and what scratch is aligned to

# Classes whose slots C reads, and these.
_SLOTS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (Tensor, ("_array", "_grad", "_hooks", "_node", "_requires_grad", "_version", "_view")),
    (View, ("base", "version", "root", "parent", "op", "attrs")),
    (Node, ("op", "attrs", "edges", "hooks", "saved", "shape", "stale", "versions")),
    (Op, ("pull_bare", "cpu", "fast", "hot")),
    (plan.Planned, ("_fits",)),
)

# Where an accelerated function stands: owner, name, Python's text, C's.
_places: list[tuple[Any, str, Any, Any]] = []
LOADED: _Library | None = None  # whose objects are ours
WAKE: Callable[[], None] | None = None  # loads it, where else the first op would
_wanted = True  # whether C is to run what it can
_holders: list[int] = []  # threads that need Python to run everything meanwhile
_lock = threading.RLock()


@dataclass
class _Entry:
    """One op's row of the table of loops."""

    op: Op
    to_bool: bool
    rules: list[int]
    loops: dict[tuple[int, str, int], str]  # of which gradient, C type, which operand is one element: name of the loop

    def text(self) -> str:
        """The row in C."""

        def table(names: list[str]) -> str:
            return "{" + ", ".join(names) + "}"

        def rows(of: int) -> str:
            return table([table([self.loops.get((of, t, one), "0") for one in range(3)]) for t in _DTYPES])

        rules, gradients = table([str(r) for r in self.rules]), table([rows(0), rows(1)])
        columns = (str(self.op.arity), str(int(self.to_bool)), rows(_FORWARD), rules, gradients)
        return f"    {table(list(columns))}, /* {self.op.name} */\n"


def _has_loop(op: Op) -> bool:
    if op.expr is None or op.variadic or set("&|^~%") & set(op.expr.replace("&&", "").replace("||", "")):
        return False
    if op.fast is None:  # with attributes, which the kernel takes as numbers; it is the reference in the last bit, too
        numbers = [op.defaults[name] for name in attributes_of(op.expr, op.input_names)]
        plain = op.arity <= 2 and len(numbers) <= 2 and all(type(x) in (int, float) for x in numbers)
        return plain and functions_of(op.expr) <= _EXACT
    stored = all(kind in (INPUT, OUT) for kind, _ in op.saves) and len(op.saves) <= 3
    return stored and functions_of(op.expr) <= _EXACT | _VECTOR


def _loop(name: str, ctype: str, out: str, expression: str, operands: dict[str, str]) -> str:
    """A C function; `operands`: their names in the expression, and the type of each that is one element, else ""."""
    body = [
        f"const {one} {x} = *(const {one} *)p[{i}];" if one else f"const T *restrict {x} = (const T *)p[{i}];"
        for i, (x, one) in enumerate(operands.items())
    ]
    vector = any(f"{form}(" in expression for form in VECTOR_FORMS.values())
    return (
        f"static {'' if vector else 'EXACT '}void {name}(char *const *p, intptr_t n) {{\n    typedef {ctype} T;\n"
        f"    {' '.join(body)} {out} *restrict out = ({out} *)p[{len(operands)}];\n"
        f"    SIMD for (intptr_t i = 0; i < n; i++) out[i] = {expression};\n}}\n"
    )


def _entry(op: Op, lines: list[str]) -> _Entry:
    """The row of an op; the loops that it names are added to `lines`."""
    result = op.infer(*[Aval((1,), np.dtype(np.float32)) for _ in op.input_names])
    entry = _Entry(op, result.dtype.kind == "b", [_PYTHON, _PYTHON], {})
    assert op.expr is not None
    by_loops = op.fast is not None and isinstance(op.vjp, tuple) and op.pull_bare is not None and not op.wirtinger
    for ctype in _DTYPES:
        if ctype == "double" and not (by_loops and functions_of(op.expr) <= _EXACT):
            continue  # rare, and each loop takes the compiler 10 ms
        for one in range(3 if op.arity == 2 and op.fast is not None else 1):
            if one == _FIRST and entry.to_bool:
                continue  # Python turns `2 < x` round
            operands = {x: ctype if one == i + 1 else "" for i, x in enumerate(op.input_names)}
            operands |= dict.fromkeys(attributes_of(op.expr, op.input_names), ctype)
            filled = op.expr.format(**{x: x if single else f"{x}[i]" for x, single in operands.items()})
            name = f"{op.name}_{ctype}_{one}"
            text = in_float(filled) if ctype == "float" else filled
            lines.append(_loop(name, ctype, "bool" if entry.to_bool else ctype, text, operands))
            entry.loops[_FORWARD, ctype, one] = name
    if by_loops and isinstance(op.vjp, tuple):
        for i, rule in enumerate(op.vjp):
            _add_rule(entry, i, rule, lines)
    return entry


def _add_rule(entry: _Entry, i: int, rule: Any, lines: list[str]) -> None:
    saves = entry.op.saves
    names = ["g", *[f"s{k}" for k in range(len(saves))]]
    with_number = i == 0 and len(saves) == 2 and saves[1] == (INPUT, 1)
    for one in (_NONE, _SECOND) if with_number else (_NONE,):
        operands = {x: "double" if one == _SECOND and x == "s1" else "" for x in names}
        text = text_of(rule, [Symbol(x if t else f"{x}[i]", number=bool(t)) for x, t in operands.items()])
        if text is None:
            return
        entry.rules[i] = _COMPUTED if text else _GIVEN
        for ctype in _DTYPES if text else ():
            name = f"{entry.op.name}_gradient{i}_{ctype}_{one}"
            lines.append(_loop(name, ctype, ctype, text, operands))
            entry.loops[i, ctype, one] = name


def _text() -> tuple[str, list[_Entry]]:
    """The whole C text, and the rows of its table; that of `add` comes first."""
    lines: list[str] = []
    ops = [op for op in REGISTRY.values() if _has_loop(op)]
    ops.sort(key=lambda op: (op.expr != "{x} + {y}", op.name))
    entries = [_entry(op, lines) for op in ops]
    table = "".join(e.text() for e in entries)
    source = (compile.SOURCES / "accelerator.c").read_text()
    return f"{source}\n{''.join(lines)}\nconst rl_entry rl_entries[] = {{\n{table}}};\n", entries


# ----------------------------------------------------------------------------------------------------------- loading


def offsets(cls: type, names: tuple[str, ...]) -> list[int]:
    """Where the slots of a class lie in its objects: marks are put into one, and looked for.

    Raises:
        RuntimeError: They are not to be seen.
    """
    marks = {name: object() for name in names}
    probe: Any = object.__new__(cls)
    for name, mark in marks.items():
        setattr(probe, name, mark)
    size = ctypes.sizeof(ctypes.c_void_p)
    words = np.frombuffer(ctypes.string_at(id(probe), cls.__basicsize__ // size * size), np.uintp)
    found = [np.flatnonzero(words == id(mark)) for mark in marks.values()]
    if any(len(places) != 1 for places in found):
        raise RuntimeError(f"the slots of {cls.__name__} do not lie in its objects")
    return [int(places[0]) * size for places in found]


def _is_known_python() -> bool:
    return (
        platform.python_implementation() == "CPython"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and object.__basicsize__ == 2 * ctypes.sizeof(ctypes.c_void_p)
    )


class _Library:
    """The C functions of a loaded accelerator."""

    def __init__(self, shared: ctypes.CDLL) -> None:
        self.shared = shared
        at = [offset for cls, names in _SLOTS for offset in offsets(cls, names)]
        capsule = np._core._multiarray_umath._ARRAY_API  # type: ignore[attr-defined]
        objects = (
            Tensor, Node, Slot, View, np.ndarray, *_DTYPES.values(), np.dtype(bool), vars(dispatch), dispatch.MODE,
            0, {}, capsule, dispatch, QUIET, vars(plan), _described, Op,
        )  # fmt: skip
        of, integer, table = ctypes.py_object, ctypes.c_int64, ctypes.c_void_p

        def bound(name: str, *arguments: Any) -> Any:
            return ctypes.PYFUNCTYPE(of, *arguments)((name, shared))

        self.walk, self.count = bound("rl_start", table, table)(_objects(*objects), _int64(*at))
        self._fast_path = bound("rl_fast_path", of, of, of, integer, table)
        self._pull_bare = bound("rl_pull_bare", of, integer, integer)
        self._record_of = bound("rl_record_of", of, of, table, table, ctypes.c_char_p)
        self._view_path = bound("rl_view_path", of, of, of, table)
        self.plans_of = bound("rl_plans_of", of, of)
        self.fused_pull = bound("rl_fused_pull", of, of, of)
        self.op_call = bound("rl_op_call", of, of)

    def fast_path(self, op: Op, twin: Any, row: int, reflected: bool = False) -> Any:
        """An object that is called like `twin`."""
        saved = [i if kind == INPUT else 2 for kind, i in op.saves]
        return self._fast_path(op, twin, op.name, row, _int64(reflected, op.vjp is not None, len(saved), *saved))

    def pull_bare(self, op: Op, row: int) -> Any:
        """An object that is called like `op.pull_bare`."""
        return self._pull_bare(op.pull_bare, row, len(op.saves))

    def view_path(self, path: Any, twin: Any, text: str) -> Any:
        """An object that is called like `twin`, which makes views by `path`, a `views.view_path`."""
        how = _int64(_TEXTS.index(text), _LAYOUTS.index(path.layout), bool(path.op.saves))
        return self._view_path(path.op, twin, text, how)

    def record(self, op: Op, row: int) -> Any:
        """An object that is called like `dispatch.general`, of this op; `row`: its loops, -1 if it has none."""
        numbers = () if row < 0 or op.fast is not None else attributes_of(str(op.expr), op.input_names)
        parts = _objects(op.defaults, op.attr_names, op.saves, tuple(numbers))
        loops = -1 if op.fast is not None else row
        arity = -1 if op.variadic else op.arity
        effects = bool(op.random or op.writes)
        how = _int64(arity, op.promote is not None, op.vjp is not None, op.side_results, loops, _order(op), effects)
        return self._record_of(op, dispatch.general, parts, how, op.refuses.encode())


def _order(op: Op) -> int:
    """Whether results follow the order of inputs, for `laid` in the C text."""
    if op.order is None or op.order is placement.CONTIGUOUS:
        return _IN_ORDER
    return _MOVED if op.order.moves else _AS_IMAGES if op.order.images else _AS_INPUTS


def _objects(*values: Any) -> Any:
    return (ctypes.py_object * len(values))(*values)


def _int64(*values: int) -> Any:
    return (ctypes.c_int64 * len(values))(*values)


def _described(planned: Any, arrays: tuple[Any, ...], attrs: dict[str, Any], result: Any) -> Any:
    """What C needs to repeat a call of `Planned.run` that has just gone well; None where only Python can.

    The wrapper has checked all lengths for these shapes, so C need not.
    """
    fits, operands = planned._fits, planned.operands(arrays)
    if planned.other is not None and fits is not plan._never and not fits(*operands):
        return _described(planned.other, arrays, attrs, result)
    kernel: Prototype = planned.prototype
    found, source = planned.plan_of(arrays, attrs), planned.source
    told = kernel.result not in ("void", "long") or any(
        (a.stars > 1 and a is not kernel.one_list) or ("INOUT" in a.marks and source is None) or a.is_thread_count
        for a in kernel.arguments
    )
    many = len(kernel.arguments) > _MOST_ARRAYS or len(kernel.sizes) > _MOST_SIZES
    if found is None or told or many or not fits(*operands):
        return None
    sizes = dict(zip(kernel.sizes, found.sizes, strict=True))
    buffers, inputs, results = [], 0, iter(found.places)
    for a in kernel.arguments:
        if a.is_scratch:
            wanted = kernel.length(a, sizes) * np.dtype(ARRAY_CODES[a.base][0]).itemsize
            buffers.append((_SCRATCH, 0, (wanted // _ALIGNED + 1) * _ALIGNED))
        elif kernel.one_list is not None and a.is_input:
            buffers.append((_LIST if a.stars > 1 else _LENGTHS, 0, 0))
        elif "INOUT" in a.marks:
            buffers.append((_STATE, 0, 0))
        elif a.is_input:
            buffers.append((_READ, inputs, 0))
            inputs += 1
        elif a.stars:
            place = next(results)
            buffers.append((_NOTHING, 0, 0) if place < 0 else (_MADE, place, 0))
    made = (result,) if found.single else result
    drawn = None if source is None else (source.words, source.lock.acquire, source.lock.release)
    return (
        planned.entry, found.sizes, tuple(buffers), made, planned.deciding, kernel.numbers, found.single, found.lengths,
        drawn,
    )  # fmt: skip


def _has_record(op: Op) -> bool:
    """Whether C may run the op as `dispatch.call` does: it is no view, and what it promotes to is what floats are."""
    if op.view or op.communicates or len(op.saves) >= _MOST_ARRAYS:
        return False
    try:
        return op.promote is None or all(
            op.promote([Aval((2,), d) for _ in range(max(op.arity, 1))]) == d for d in _DTYPES.values()
        )
    except (NotImplementedError, RuntimeError):  # it takes no floats
        return False


def _places_of(library: _Library, entries: list[_Entry], twins: dict[Op, Any]) -> list[tuple[Any, str, Any, Any]]:
    """Where to put what: into the records, the methods of Tensor that are them, and the engine."""
    found: list[tuple[Any, str, Any, Any]] = [
        (hot, "walk", None, library.walk),
        (hot, "count", None, library.count),
        (ctypes.c_int64.in_dll(library.shared, "rl_accelerated"), "value", 0, 1),
        (Op, "__call__", Op.__call__, library.op_call(Op.__call__, "__call__")),
    ]
    rows = {e.op: i for i, e in enumerate(entries)}
    fast = {op: library.fast_path(op, twins[op], row) for op, row in rows.items() if twins[op] is not None}
    for e in entries:
        if e.op not in fast:
            continue
        found.append((e.op, "fast", twins[e.op], fast[e.op]))
        if any(rule != _PYTHON for rule in e.rules):
            found.append((e.op, "pull_bare", e.op.pull_bare, library.pull_bare(e.op, rows[e.op])))
    found += _methods(library, rows, fast, twins)
    found += _views(library)
    records = {op: library.record(op, rows.get(op, -1)) for op in REGISTRY.values() if _has_record(op)}
    found += [(op, "hot", None, record) for op, record in records.items()]
    found += [(p.op, "cpu", p.op.cpu, library.plans_of(p, p.op.cpu)) for p in plan.PLANNED]
    for op in REGISTRY.values():
        if isinstance(op.vjp, Gradient) and op.backward in records:
            pull = library.fused_pull(op.pull_bare, records[op.backward], op.vjp.as_attrs)
            found.append((op, "pull_bare", op.pull_bare, pull))
    return found


def _views(library: _Library) -> list[Any]:
    """The straight lines of view ops, and the methods that make views of plain arguments."""
    paths = {op.view_of.layout: op.view_of for op in REGISTRY.values() if op.view_of is not None and op.view_of.layout}
    found: list[Any] = [(p.op, "view_of", p, library.view_path(p, p, "view_path")) for p in paths.values()]
    methods = {
        "__getitem__": ("slice", "getitem"),
        "view": ("shape", "view"),
        "transpose": ("permutation", "transpose"),
    }
    for name, (layout, text) in methods.items():
        twin = vars(Tensor)[name]
        found.append((Tensor, name, twin, library.view_path(paths[layout], twin, text)))
    return found


def _methods(library: _Library, rows: dict[Op, int], fast: dict[Op, Any], twins: dict[Op, Any]) -> list[Any]:
    found = []
    stands = {id(twins[op]): op for op in fast}
    for name, value in vars(Tensor).items():
        op = stands.get(id(value))
        reflects = getattr(value, "reflects", None)
        if op is not None:
            found.append((Tensor, name, twins[op], fast[op]))
        elif reflects in fast:
            found.append((Tensor, name, value, library.fast_path(reflects, value, rows[reflects], reflected=True)))
    return found


def _agrees(library: _Library, entries: list[_Entry], twins: dict[Op, Any]) -> bool:
    """Whether tensors, nodes and gradients that C makes are Python's: a layout that is none of ours is seen here."""
    row = next(i for i, e in enumerate(entries) if e.op.name == "mul")
    op = entries[row].op
    twin = twins[op]
    x, y = (wrap(np.array(values, np.float32)) for values in ([[1.5, -2.0]], [[3.0], [0.5]]))
    x._requires_grad = True
    for operands in ((x, x), (x, y), (y, y), (x, 2.0)):
        theirs, ours = twin(*operands), library.fast_path(op, twin, row)(*operands)
        if not np.array_equal(theirs._array, ours._array) or ours._array.dtype != np.float32:
            return False
        a, b = theirs._node, ours._node
        if (a is None) != (b is None) or ours._requires_grad != theirs._requires_grad or ours._version != 0:
            return False
        if a is not None and (a.edges, a.saved, a.versions, a.shape, a.op) != (
            b.edges,
            b.saved,
            b.versions,
            b.shape,
            b.op,
        ):
            return False
    return True


def _install(shared: Any, entries: list[_Entry], twins: dict[Op, Any]) -> None:
    global LOADED
    try:
        library = _Library(shared)
        fine = _agrees(library, entries, twins)
    except (AttributeError, RuntimeError):
        fine = False
    if fine:
        LOADED = library
        _places[:] = _places_of(library, entries, twins)
        _put()


def use(accelerated: bool) -> bool:
    """Let C run what it can, or Python everything; nothing where there is no library.  Returns what was before."""
    global _wanted
    with _lock:
        before, _wanted = bool(_places) and _wanted, accelerated
        _put()
    return before


@contextmanager
def held_off() -> Iterator[None]:
    """Inside, Python runs everything, in all threads, whatever `use` says; the last who leaves ends that."""
    me = threading.get_ident()
    with _lock:
        _holders.append(me)
        _put()
    try:
        yield
    finally:
        with _lock:
            _holders.remove(me)
            _put()


def _in_child() -> None:
    """After a fork: only this thread is there, others hold neither lock nor accelerator."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined]
    me = threading.get_ident()
    if any(holder != me for holder in _holders):
        _holders[:] = [holder for holder in _holders if holder == me]
        _put()


os.register_at_fork(after_in_child=_in_child)


def _put() -> None:
    """Put C's functions or Python's where they stand; with the lock held."""
    accelerated = _wanted and not _holders
    for owner, name, twin, fast in _places:
        setattr(owner, name, fast if accelerated else twin)


def is_loaded() -> bool:
    """Whether there is a library whose objects are ours."""
    return bool(_places)


def start() -> None:
    """At import: load what is in the cache, or let the first op compile it.  See Note [The accelerator]."""
    wish = os.environ.get("RUSHLIGHT_ACCELERATOR", "")
    if wish.lower() not in ("", "none"):
        raise RuntimeError(f"RUSHLIGHT_ACCELERATOR: expects none, or nothing; got {wish!r}; unset it")
    if wish or not _is_known_python() or not compile.has_compiler():
        return
    text, entries = _text()
    twins = {e.op: e.op.fast for e in entries}
    library = compile.cached_c(text)
    if library is not None:
        _install(library.shared, entries, twins)
    else:
        _let_the_first_compile(text, entries, twins)


def _let_the_first_compile(text: str, entries: list[_Entry], twins: dict[Op, Any]) -> None:
    global WAKE

    def wake() -> None:
        with _lock:
            if _places[:1] != places[:1]:
                return  # another thread has done it
            with held_off():
                _places.clear()
                library = compile.compile_c(text)
                if library is not None:
                    _install(library.shared, entries, twins)

    def waking(op: Op) -> Any:
        @functools.wraps(twins[op])
        def fast(*xs: Any, **attrs: Any) -> Any:
            wake()
            return op.fast(*xs, **attrs)  # type: ignore[misc]

        return fast

    made = {id(twin): (twin, waking(op)) for op, twin in twins.items() if twin is not None}
    places: list[Any] = [(op, "fast", *made[id(twin)]) for op, twin in twins.items() if twin is not None]
    places += [(Tensor, name, *made[id(value)]) for name, value in vars(Tensor).items() if id(value) in made]
    WAKE = wake
    _places[:] = places
    _put()
