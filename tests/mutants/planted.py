"""Faults that the tests have to notice, one at a time: `make mutants`.

Each is a text that occurs once in its file, what is planted in its place, and the narrow tests that should fail then.
One that survives needs a test, or a reason why nothing can show it.
"""

from __future__ import annotations

from dataclasses import dataclass

TENSOR = "packages/tensor/src/rushlight_tensor/"
AUTOGRAD = "packages/autograd/src/rushlight_autograd/"
JIT = "packages/jit/src/rushlight_jit/"
DATA = "packages/data/src/rushlight_data/"
DISTRIBUTED = "packages/distributed/src/rushlight_distributed/"
LAUNCH = "launch/src/rushlight_launch/"
TRAIN = "services/train/src/rushlight_train/"


@dataclass(frozen=True)
class Fault:
    """A fault to plant.

    Attributes:
        file: Where, from the root of the repository.
        text: What stands there; exactly once.
        planted: What is put in its place.
        tests: pytest's arguments; in what they name, something should fail.
        ranks: Run them on so many MPI ranks; 0: in one process.
        reason: Why the fault may survive.
    """

    file: str
    text: str
    planted: str
    tests: tuple[str, ...]
    ranks: int = 0
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.file.rsplit('/', 1)[-1]}: {_line(self.text)} -> {_line(self.planted)}"


def _line(text: str) -> str:
    short = " ".join(text.split())
    return short if len(short) < 60 else short[:57] + "..."


def _faults(file: str, tests: str, *planted: tuple[str, ...], ranks: int = 0) -> list[Fault]:
    """Faults of one file that the same tests should notice, or those that a fault names as its third."""
    return [Fault(file, f[0], f[1], tuple((f[2] if len(f) > 2 else tests).split()), ranks) for f in planted]


ENGINE = "tests/autograd"
TWINS = "tests/kernels/test_accelerator.py"
WALK = "tests/jit/test_fused_walk.py::test_expression_gives_what_the_op_gives"
READ = "tests/jit/test_fused_walk.py::test_operands_are_read_where_they_lie"
LITERALS = "tests/jit/test_fused_walk.py::test_numbers_become_literals"

PLANTED: list[Fault] = [
    # ------------------------------------------------------------------------------------------------ dispatch
    *_faults(
        TENSOR + "core/straight.py", f"{ENGINE} tests/ops/test_saved.py tests/ops/test_promotion.py tests/ops/test_integer_rules.py",
        ("(input._requires_grad or other._requires_grad) and MODE.grad", "input._requires_grad and MODE.grad"),
        ("grad = differentiable and input._requires_grad and MODE.grad", "grad = differentiable and input._requires_grad"),
        ('if x.dtype.kind != "f" or dispatch.INTERCEPT is not None', "if dispatch.INTERCEPT is not None"),
        ("if may_widen and z.dtype is not x.dtype:", "if False:"),
        ("n.edges = (edge(input), edge(other))", "pass"),
        ("n.saved = (z,)", "n.saved = (x,)"),
        ("version = input._version if input._view is None else sync(input)", "version = input._version"),
        ("if refused and x.dtype.kind in refused:", "if False:"),
    ),
    *_faults(
        TENSOR + "core/placement.py", "tests/ops/test_order.py tests/parity/test_order.py",
        ("return 1 if s > t else -1", "return -1 if s > t else 1"),
        ("if shape[a] > shape[b]:", "if False:"),
        ("return strides if is_dense(shape, strides) else contiguous(shape)", "return contiguous(shape)"),
        ("(d == 0 and least == strides[1])", "False"),
    ),
    *_faults(
        TENSOR + "core/layout.py", "tests/ops/test_order.py tests/parity/test_order.py",
        ("not (rule.images and _lie_both_ways(arrays))", "True"),
        ("            _VERDICTS.clear()", "            pass"),
    ),
    *_faults(
        TENSOR + "core/dispatch.py", f"{ENGINE} tests/ops/test_private_order.py tests/ops/test_saved.py tests/ops/test_promotion.py",
        ("grad = grad and op.vjp is not None and MODE.grad", "grad = grad and op.vjp is not None"),
        ("if op.view and not hidden:\n        settle(xs[0])", "pass"),
        ("return lay(op, result, arrays, attrs)\n", "return result\n", "tests/ops/test_order.py"),
        ("return lay(op, result, arrays, attrs) if seen else result", "return result", "tests/ops/test_private_order.py"),
        ('np.array(a, order="C") if op.random else a.view(ndarray)', "a.view(ndarray)", "tests/parity/test_order.py"),
        ("if grad and category(out._array.dtype) >= 2:", "if grad:"),
        ("        raise why from None", "        pass"),
        ("out.append(x if x._array.dtype == common else CAST(x, dtype=common))", "out.append(x)"),
        ("if x._view.dead and x._node is None:", "if False:"),
        ("node.hooks[RETAIN] = old.hooks.pop(RETAIN)", "pass"),
        ("            before, MODE.grad = MODE.grad, True", "            before = MODE.grad"),
        ("view.dead = not MODE.grad and parent._requires_grad", "view.dead = False"),
        ("o._view = view_of(xs[0], op, attrs, several=True)", "o._view = view_of(xs[0], op, attrs)"),
    ),
    # --------------------------------------------------------------------------------------------------- graph
    *_faults(
        TENSOR + "core/graph.py", f"{ENGINE} tests/ops/test_complex.py tests/ops/test_second.py tests/ops/test_saved.py",
        ("elif v is not None and version(item) != v:", "elif False:"),
        ("elif (a._version if a._view is None else a._view.base._version) == va:", "elif True:"),
        ("elif (b._version if b._view is None else b._view.base._version) == vb:", "elif True:"),
        ("if (item._version if item._view is None else item._view.base._version) != v:", "if False:"),
        ("if n.stale and n.op.saves_out:", "if False:"),
        ("None if to_y is None else rule_y(g, x, y),", "None if to_y is None else rule_x(g, x, y),"),
        ("if op.flat and create_graph and found[0] is not None and edges[0] is not True:", "if False:"),
        ("if _is_complex(g) and not op.wirtinger:", "if False:"),
        ("return x._version if x._view is None else x._view.base._version", "return x._version"),
        ("                node.stale = True", "                pass"),
        ('(*getattr(now, "nodes", ()), weakref.ref(n))', "(weakref.ref(n),)"),
        ("t._node, t._requires_grad = (n if kind == OUT else Slot(n, i, item.shape)), True", "pass"),
    ),
    # -------------------------------------------------------------------------------------------------- engine
    *_faults(
        AUTOGRAD + "engine.py", ENGINE,
        ("                pending[e] += 1", "                pass"),
        ("            have += ge", "            have = ge"),
        ("ge is g or ge.base is not None or n.op is None", "ge.base is not None or n.op is None"),
        ("ge is g or ge.base is not None or n.op is None", "ge is g or n.op is None"),
        ("if not self.retain_graph and n.saved:", "if False:"),
        ("            g = _call_hooks(hooks.before, g)", "            _call_hooks(hooks.before, g)"),
        ("                have._array += g._array", "                have._array[...] = g._array"),
        ("parts[slot.index] + g if slot.index in parts else g", "g"),
        ("        if before[1] is None:", "        if True:"),
        ("n == 1 and g.shape[lead + i] != 1])", "False])"),
        ("self.arrived[e] = self.arrived[e] + g", "self.arrived[e] = g"),
        ("        if fn is not retained:", "        if True:"),
        ("                    counts[e] += 1", "                    counts[e] = 1"),
        ("            self.found[leaf] = g\n            return", "            self.found[leaf] = g"),
        ("leaf._grad = clone(g) if hooks is not None and hooks.before else g", "leaf._grad = g"),
        ("if isinstance(e, Tensor) and any(found[i] is a for a in given):", "if False:"),
        ("[] if _PASS.callbacks is None else _PASS.callbacks", "[]"),
        ("except ValueError:  # a gradient that", "except KeyError:  # a gradient that"),
    ),
    Fault(
        AUTOGRAD + "engine.py", "            g = cast(g, dtype=leaf._array.dtype)", "            pass", (ENGINE,), 0,
        "rules and Function give the dtype of their input already; this is the net for a rule that does not",
    ),
    # ------------------------------------------------------------------------------------------------ in place
    *_faults(
        TENSOR + "core/inplace.py", f"{ENGINE} tests/ops/test_writes.py",
        ("before = dispatch.CLONE(x) if before is None else before", "before = x"),
        ("    touch(x)\n    if n is None:", "    if n is None:"),
        ("    if x._requires_grad and x._node is None:", "    if False:"),
        ("        if view.root._requires_grad and view.root._node is None:", "        if False:"),
        ("    if first:\n        _tell_views(changed, x)", "    pass"),
        ("    if category(common) > category(x._array.dtype):", "    if False:"),
        ("    if repeats(array) and not", "    if False and not"),
        ("    owner._version += 1", "    pass"),
        ("(node.parent if type(node) is Slot else node).stale = True", "pass"),
        ("        watch(x, n)\n", "        pass\n"),
        ("watch(x, node.parent if type(node) is Slot else node)", "pass"),
        ("dispatch.CLONE(g, memory_format=contiguous_format)", "dispatch.CLONE(g)"),
        ("return (wrap(cuda.like(g._array, np.zeros(self.shape, g._array.dtype))),)", "return (g,)"),
        ("        inplace(dispatch.COPY, part, before)", "        pass"),
        ("self.path = tuple(reversed(path))", "self.path = tuple(path)"),
    ),
    # ----------------------------------------------------------------------------------------------------- jit
    *_faults(
        JIT + "passes.py", "tests/jit/test_compile.py",
        ("return instr.op.random", "return False"),
        ("if i.writes or is_counted(i) or any(", "if is_counted(i) or any("),
        ("stable = not any(", "stable = True or any("),
        ("_literal(tuple(sorted(i.attrs.items())))", "None"),
        ("and not any(o in results for o in i.outputs):", "and True:"),
        ("(float, complex)):\n        return type(x), repr(x)", "(float, complex)):\n        return x"),
    ),
    *_faults(
        JIT + "guards.py", "tests/jit/test_compile.py",
        ("(id(a), a.shape, a.strides, x._requires_grad, x._node is None)", "(id(a), a.shape, a.strides, x._node is None)"),
        ("self.visit(x.default_factory, path", "self.visit(None, path"),
        ('("fget", "fset", "__func__", "func", "args", "keywords", "__wrapped__")', '("fget", "__func__", "args", "keywords", "__wrapped__")'),
        ('("fget", "fset", "__func__", "func", "args", "keywords", "__wrapped__")', '("fget", "fset", "__func__", "func", "__wrapped__")'),
    ),
    *_faults(
        TENSOR + "kernels/c_expressions.py", f"{WALK}[erf-0] {WALK}[exp-0]",
        ('"erf": "verf"', '"erf": "vtanh"'),
        ('"exp": "vexp"', '"exp": "vexp_bounded"'),
    ),
    *_faults(
        TENSOR + "kernels/plan.py", "tests/kernels/test_program.py",
        ("key = (arrays[0].shape, *[a.strides for a in arrays])", "key = (arrays[0].shape, arrays[0].strides)"),
        ("if self._moves:  # what", "if False:  # what", "tests/kernels/test_plan_keys.py"),
        ("        if self._strided:\n            shapes +=", "        if False:\n            shapes +=", "tests/kernels/test_plan_keys.py"),
        ("(*shapes, *decided, *map(_types, decided))", "(*shapes, *decided)", "tests/kernels/test_plan_keys.py"),
        ("(*shapes, *decided, *map(_types, decided))", "(*shapes, *decided[1:], *map(_types, decided))", "tests/kernels/test_plan_keys.py"),
    ),
    *_faults(
        TENSOR + "kernels/program.py", "tests/kernels/test_program.py",
        ("if not _turn.acquire(blocking=False):", "if plan.RECORDER is not None or not (_turn.locked() or _turn.acquire()):"),
        ("return threading.get_ident() == self._thread", "return True"),
    ),
    *_faults(
        TENSOR + "core/straight.py", "tests/ops/test_order.py",
        ("elif z.ndim > 1 and not (x.flags.c_contiguous and (y is other or y.flags.c_contiguous)):", "elif y is not other and z.ndim > 1:"),
        ("elif z.ndim > 1 and not x.flags.c_contiguous:", "elif not (is_ufunc or x.flags.c_contiguous):"),
    ),
    *_faults(
        TENSOR + "core/lifted.py", "tests/autograd/test_vmap.py",
        ("seen = strides(self.value._array)", "seen = [s // self.itemsize for s in self.value._array.strides]"),
        ("return like.level.spread(made, like) if isinstance(like, Lifted) else made", "return made"),
    ),
    *_faults(
        TENSOR + "kernels/c/accelerator.c", TWINS,
        ("if (arrays[i] && !synced(xs[i])) goto twin;", ";"),
        ("return value ? value == &_Py_TrueStruct : otherwise;", "return otherwise;"),
        ("SLOT(n, at.n_shape) = shape_of(f, RL_BODY(rl_ndarray, z));", "SLOT(n, at.n_shape) = tuple(0, 0);"),
        ("a == 1 ? 0 : step_x", "step_x"),
        ("if (f->reflected) xs[0] = args[1], xs[1] = args[0];", ""),
        ("static void put(rl_object *object, int64_t offset, rl_object *value) {\n    rl_object *old = SLOT(object, offset);", "static void put(rl_object *object, int64_t offset, rl_object *value) {\n    rl_object *old = held(SLOT(object, offset));"),
    ),
    *_faults(
        TENSOR + "kernels/c/accelerator_walk.h", TWINS,
        ("version(item) != v) return false;", "false) return false;"),
        ("result = owned(ge);", "result = held(ge);"),
        ("Py_DecRef(result);\n    return fine;", "return fine;"),
        ("(!hooks || hooks == NONE_OBJECT)", "true"),
        ("if (!left) continue;", "if (!left) break;"),
        ("RL_BODY(rl_ndarray, own)->descr == RL_BODY(rl_ndarray, g)->descr", "true"),
        ("SLOT(leaf, at.t_requires) == &_Py_TrueStruct", "true"),
        ("(RL_BODY(rl_ndarray, own)->flags & RL_BODY(rl_ndarray, g)->flags & NPY_C_CONTIGUOUS)", "true"),
    ),
    *_faults(
        TENSOR + "kernels/c/random_of.h", "tests/random/test_random_tensors.py",
        ("value >= high ? low : value", "value"),
    ),
    *_faults(
        TENSOR + "kernels/c/accelerator_plan.h", TWINS,
        ("a->dims[d] != look->dims[d]", "false"),
        ("a->strides[d] != look->strides[d]", "false"),
        ("if (TYPE(a) != &PyTuple_Type) return", "return", "tests/kernels/test_plan_keys.py"),
        ("a->descr != look->dtype ||", "", "tests/kernels/test_plan_keys.py"),
        ("    if (SLOT(p->planned, at.p_fits) != p->fits) return 0;\n", ""),
        ("while (done) Py_DecRef(made[--done]);", ""),
    ),
    *_faults(
        TENSOR + "kernels/c/accelerator_call.h", TWINS,
        ("    for (int i = 0; i < count; i++) own[i] = held(arrays[i]);\n    rl_object *out = execute_held(r, own, count, attrs);\n    for (int i = 0; i < count; i++) Py_DecRef(own[i]);\n", "    rl_object *out = execute_held(r, arrays, count, attrs); (void)own;\n"),
        ("(common && dtype != common)", "false"),
        ("if (r->effects) explain(r, arrays, count, attrs);", "if (false) explain(r, arrays, count, attrs);"),
    ),
    *_faults(
        TENSOR + "kernels/c/accelerator_views.h", TWINS,
        ("if (!*count) *start = 0, *step = 1;", ""),
        ("a->flags & NPY_WRITEABLE, 0);", "NPY_WRITEABLE, 0);"),
        ("SLOT(v, at.v_root) = held(root == NONE_OBJECT ? x : root);", "SLOT(v, at.v_root) = held(x);"),
    ),
    *_faults(
        TENSOR + "kernels/c/accelerator_compiled.h", "tests/jit/test_hits.py",
        ("if (z->descr != OBJECT(a->dtype) || z->nd != a->nd", "if (z->nd != a->nd"),
        ("|| !(z->flags & NPY_ALIGNED)", ""),
        ("z->dims[d] != a->layout[d] || ", ""),
        (" || z->strides[d] != a->layout[z->nd + d]", ""),
        ("if ((SLOT(x, at.t_requires) == &_Py_TrueStruct) != a->requires_grad) return 0;", ""),
        ("if ((SLOT(x, at.t_node) == NONE_OBJECT) != a->is_leaf) return 0;", ""),
        ("if (like != a->like) return 0;", ""),
        ("if (!lies_apart(g->spans[i], g, i)) return 0;", ""),
        ("if (has_attributes(args[i])) return 0;", ";"),
        ("mode(s_grad, true) != h->grad || ", ""),
        (" || mode(s_inference, false) != h->inference", ""),
        ("if (2 * PyDict_Size(dict) != PyTuple_Size(was)) return false;", ""),
        ("PyTuple_GetItem(was, i) != key || ", ""),
        ("if (PyList_Size(list) != PyTuple_Size(was)) return false;", ""),
        ("case READ_CODE: return PyFunction_GetCode(owner) == value;", "case READ_CODE: return true;"),
        ("i < known && !intercepted()", "i < known"),
        ("for (int64_t j = 0; j < MOST_HELD && g.arrays[j]; j++) Py_DecRef(g.arrays[j]);", ""),
        ("if (SLOT(x, at.t_array) != array || (SLOT(x, at.t_requires) == &_Py_TrueStruct) != kind[0])", "if (SLOT(x, at.t_array) != array)"),
        ("if ((SLOT(x, at.t_node) == NONE_OBJECT) != kind[1] || a->nd != kind[3]) return false;", ""),
        ("if (g->args[i] == x) return false;", ";"),
        ("return lies_apart(extent(a, kind[2]), g, g->count) && !has_attributes(x);", "return !has_attributes(x);"),
        ("return lies_apart(extent(a, kind[2]), g, g->count) && !has_attributes(x);", "return lies_apart(extent(a, kind[2]), g, g->count);"),
        ("put(self, compiled_at.last, held(SLOT(hit, compiled_at.h_joint)));", ";"),
        ("if (a->like == i && PyList_Append", "if (PyList_Append"),
        ("Py_IncRef(hits), Py_IncRef(few);", ""),
        ("    Py_DecRef(hits), Py_DecRef(few);\n", ""),
    ),
    *_faults(
        JIT + "hits.py", "tests/jit/test_hits.py",
        (" or dispatch.INTERCEPT is not None:", ":"),
        ("_order_of(args) != self._order or ", ""),
        ("lie_apart([args[i] for i in self._unique], self._reads) and ", ""),
        ("not getattr(x, \"__dict__\", None) and ", ""),
        (" and x._array.flags.aligned", ""),
        (", Read(ITEM, vars(dtypes), \"_default\", dtypes.get_default_dtype())]", "]"),
        ("or joint.backward is not None ", ""),
        ("fits = len(inputs) <= _MOST_ARGUMENTS and found.fits(*[arrays[i] if isinstance(i, int) else i for i in inputs])", "fits = True"),
        ("x._requires_grad, x._node is None", "x._requires_grad, True"),
    ),
    *_faults(
        JIT + "guards.py", "tests/jit/test_hits.py",
        ("value = self._look(reads.CELL, cell, None, contents(cell))", "value = contents(cell)"),
        ("self._look(reads.DEFAULTS, f, None, f.__defaults__)", "f.__defaults__"),
        ("self._look(reads.KWDEFAULTS, f, None, f.__kwdefaults__)", "f.__kwdefaults__"),
        ("own = self._look(reads.ATTRIBUTES, f, None, f.__dict__)", "own = f.__dict__"),
        ("self._look(reads.CONTENTS, own, None, flat(own))", ""),
        ("self._look(reads.CONTENTS, x, None, flat(x))", "pass"),
        ("self._look(reads.ELEMENTS, x, None, flat(x))", "pass"),
        ("        if describe not in _LOOKING:\n            self.reads = None\n", ""),
        ("return self._look(reads.ITEM, space, key, space.get(key, Absent))", "return space.get(key, Absent)"),
    ),
    *_faults(
        JIT + "fuse.py", "tests/jit/test_compile.py",
        ('return "[row]"', 'return "[column]"', READ),
        ('return "[column]"', 'return "[row]"', READ),
        ("return not i.writes and not any(v in made for v in i.values())", "return not any(v in made for v in i.values())"),
        ("return not i.writes and not any(v in made for v in i.values())", "return not i.writes"),
        ("if group and (group[0].outputs[0].shape != i.outputs[0].shape):", "if False:"),
        ("if i.outputs[0] in results or any(", "if any("),
        ("return names[x] if isinstance(x, Value) else f\"({float(x)!r})\"", "return names[x] if isinstance(x, Value) else f\"{float(x)!r}\"", LITERALS),
    ),
    *_faults(
        JIT + "plan.py", "tests/jit/test_compile.py",
        ("arrays = [np.ascontiguousarray(a) if a.flags.aligned else a.copy() for a in given]", "arrays = list(given)", READ),
        ("keep = {*self.graph.outputs, *self.graph.captured}", "keep = {*self.graph.captured}"),
    ),
    *_faults(
        JIT + "segment.py", "tests/jit/test_segments.py",
        ("if self._overlap(env) or not ALONE", "if not ALONE"),
        ("if id(o) in places and o.first <= b.last and b.first <= o.last", "if False"),
        ("if found:\n                    found[0].last = n", "if False:\n                    found[0].last = n"),
        ("a.strides != strides or ", ""),
        ("if at % dtype.itemsize:", "if False:"),
        ("run.table.threads == STATE[THREADS]", "True"),
        ("wanted.update(p.values())", "pass"),
    ),
    *_faults(
        JIT + "passes.py", "tests/jit/test_small_calls.py",
        ("return made not in results or (alone(source) and source not in results)", "return True"),
        (" or not changing.isdisjoint((root[source], made))", ""),
    ),
    # -------------------------------------------------------------------------------------------- expr of records
    *_faults(
        TENSOR + "ops/math/activation.py", "",
        ('expr="1 / (1 + exp(-{x}))"', 'expr="1 / (1 + exp({x}))"', f"{WALK}[sigmoid-0]"),
        ("{x} * {beta} > {threshold} ? {x} : log1p", "{x} * {beta} > {threshold} ? 0 : log1p", f"{WALK}[softplus-0] {WALK}[softplus-1]"),
        ("{x} * ({x} + 3 < 0 ? 0 : {x} + 3 > 6", "{x} * ({x} + 3 < 0 ? 0 : {x} + 3 > 5", f"{WALK}[hardswish-0]"),
        ('expr="{x} > 0 ? {x} : {x} * {negative_slope}"', 'expr="{x} > -1 ? {x} : {x} * {negative_slope}"', f"{WALK}[leaky_relu-0]"),
        ('expr="{x} <= {threshold} ? {value} : {x}"', 'expr="{x} < {threshold} ? {value} : {x}"', f"{WALK}[threshold-0] {WALK}[threshold-1]"),
        ('expr="{x} >= -{lambd} && {x} <= {lambd} ? 0 : {x}"', 'expr="{x} > -{lambd} && {x} < {lambd} ? 0 : {x}"', f"{WALK}[hardshrink-0] {WALK}[hardshrink-1]"),
        ('expr="{x} > 0 ? {x} : {alpha} * expm1({x} / {alpha})"', 'expr="{x} > 0 ? {x} : expm1({x} / {alpha})"', f"{WALK}[celu-0] {WALK}[celu-1]"),
    ),
    # ------------------------------------------------------------------------------------- kernels: NumPy and C text
    *_faults(
        TENSOR + "kernels/c/gemm.h", "tests/kernels/test_blas.py",
        ("long part_start(long length, long parts, long i) {", "long part_start(long length, long parts, long i) { parts += 0 * rl_threads(); if (rl_threads() > 1 && i && i < parts) return (length * i / parts + 8) / 16 * 16 - 16;"),
        ("pc[r * ldc + j] += bias[left + j];", "pc[r * ldc + j] += bias[j];"),
        ("+ (tb ? left * ldb : left);", "+ left;"),
        ("y[r] += sum;", "y[r] = sum;"),
    ),
    *_faults(
        TENSOR + "kernels/c/norm.c", "tests/kernels/test_rows.py",
        ("out[j] = scale * (out[j] - s1 - (xr[j] - mu) * scale * s2)", "out[j] = scale * (out[j] - (xr[j] - mu) * scale * s2)"),
        ("r < rows && r < (block + 1) * per_block; r++) {\n            const float *gr = g + r * n, *xr = x + r * n;\n            float mu", "r + 1 < rows && r < (block + 1) * per_block; r++) {\n            const float *gr = g + r * n, *xr = x + r * n;\n            float mu"),
    ),
    *_faults(
        TENSOR + "kernels/c/activation.c", "tests/kernels/test_rows.py",
        ("(exponent < -87.f ? 0.f : density)", "density"),
    ),
    *_faults(
        TENSOR + "kernels/c/rows.h", "tests/kernels/test_rows.py",
        ("float m = -INFINITY;", "float m = 0;"),
    ),
    *_faults(
        TENSOR + "kernels/c/class_loss.c", "tests/kernels/test_rows.py",
        ("if (t == ignore_index) { each[r] = 0; continue; }", ""),
    ),
    *_faults(
        TENSOR + "kernels/c/attention.c", "tests/kernels/test_attention_and_optim.py",
        ("if (causal || !queries) {", "if (!queries) {"),
        ("float beta = causal || first ? 1.f : 0.f;", "float beta = causal ? 1.f : 0.f;"),
    ),
    *_faults(
        TENSOR + "kernels/c/attention.c", "tests/kernels/test_attention_and_optim.py",
        ("m *= sign;", ""),
        ("sign * row[j] > m ? sign * row[j] : m", "row[j] > m ? row[j] : m"),
    ),
    *_faults(
        TENSOR + "kernels/c/move_of.h", "tests/ops/test_fresh_memory.py",
        ("for (long o = outer; o < outers; o++) memset", "for (long o = outer + 1; o < outers; o++) memset"),
    ),
    *_faults(
        TENSOR + "kernels/c/recurrent.c", "tests/nn/test_recurrent.py",
        ("hs + (reverse ? size : 0), (steps - 1)", "hs, (steps - 1)"),
        ("memcpy(before + (reverse ? steps - 1 : 0) * size", "memcpy(before"),
    ),
    *_faults(
        TENSOR + "kernels/c/batch_norm.c", "tests/ops/test_registry.py::test_ops_that_write_into_their_inputs_agree_with_float64",
        ("(float)(momentum * correction)", "(float)momentum"),
    ),
    *_faults(
        TENSOR + "kernels/c/embedding.c", "tests/kernels/test_embedding.py",
        ("row == padding_idx && row >= 0", "row == padding_idx"),
    ),
    *_faults(
        TENSOR + "ops/math/cast.py", "tests/ops/test_rounded_once.py",
        ("x if x._array.dtype == half else cast(x, dtype=half)", "x"),
        ("any(type(x) is complex for x in values)", "any(x._array.dtype != half for x in values if hasattr(x, \"_array\"))"),
        ("promote.result_type([x._array for x in values if hasattr(x, \"_array\")])", "next((x._array.dtype for x in values if hasattr(x, \"_array\")))"),
    ),
    *_faults(
        TENSOR + "kernels/c/optim.c", "tests/kernels/test_attention_and_optim.py",
        ("float l2 = decoupled ? 0.f : (float)weight_decay;", "float l2 = (float)weight_decay;"),
        ("double t = steps[array][0];", "double t = steps[0][0];"),
    ),
    *_faults(
        TENSOR + "kernels/c/vmath.h", "tests/kernels/test_rows.py tests/kernels/test_attention_and_optim.py tests/ops/test_closeness.py",
        ("x = x > 89.f ? 89.f : x;", "x = x > 80.f ? 80.f : x;"),
        ("return a < 0.625f ? copysignf(small, x) : large;", "return large;"),
    ),
    *_faults(
        TENSOR + "kernels/cache.py", "tests/kernels/test_cache.py",
        ("if status.st_uid != user or mode & 0o077:", "if status.st_uid != user:"),
        ("if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:", "if not stat.S_ISREG(status.st_mode):"),
        ('return digest is not None and name == f"{key}-{digest}.so"', "return digest is not None"),
        ("                    if age_s > _ABANDONED_BUILD_S:", "                    if True:"),
    ),
    *_faults(
        TENSOR + "kernels/blas.py", "tests/kernels/test_blas.py",
        ("down >= columns or rows == 1", "down >= 0 or rows == 1"),
        ("across >= rows or columns == 1", "across >= 0 or columns == 1"),
    ),
    # -------------------------------------------------------------------------------------------------- loader
    *_faults(
        DATA + "parallel.py", "tests/data/test_workers.py",
        ("            self._turn -= position < self._turn", "            pass"),
    ),
    *_faults(
        DATA + "blocks.py", "tests/data/test_workers.py",
        ("not (b.held_here or b.held_there", "not (b.held_there"),
    ),
    *_faults(
        DATA + "dataloader.py", "tests/data/test_dataloader.py tests/data/test_resume.py",
        ("        progress.given += 1", "        progress.given += 0"),
        ("            progress.finished = True", "            pass"),
        ("rest = itertools.islice(indices, int(state[\"batches\"]), None)", "rest = itertools.islice(indices, 0, None)"),
        ("            stream.set_state(now)", "            pass"),
        ("raise RuntimeError(\"the dataset or collate_fn raised StopIteration\") from error", "raise"),
    ),
    *_faults(
        DATA + "sampler.py", "tests/data/test_samplers.py",
        ("yield from permutation(n, generator)[: self.num_samples % n]", "pass"),
    ),
    *_faults(
        DATA + "distributed.py", "tests/data/test_samplers.py",
        ("generator.manual_seed(self.seed + self.epoch)", "generator.manual_seed(self.seed)"),
        ("order[self.rank : self.total_size : self.num_replicas]", "order[self.rank * self.num_samples : (self.rank + 1) * self.num_samples]"),
    ),
    *_faults(
        DISTRIBUTED + "collectives.py", "tests/mpi/on_ranks/test_collectives.py",
        ("    touch(output)\n    return _all_to_all(", "    return _all_to_all("),
        ("        _touch_all(gather_list)", "        pass"),
        ranks=2,
    ),
    *_faults(
        DISTRIBUTED + "contract.py", "tests/mpi/on_ranks/test_contract.py",
        ("            del self._known[self._keys[text]]", "            pass"),
        ranks=2,
    ),
    *_faults(
        DISTRIBUTED + "worker.py", "tests/mpi/test_alone.py",
        ("            failed.append(self)", "            pass"),
    ),
    *_faults(
        DATA + "collate.py", "tests/data/test_collate.py",
        ("clone = copy.copy(like)\n            for i", "clone = like\n            for i"),
    ),
    *_faults(
        DATA + "parallel.py", "tests/data/test_workers.py",
        ("worker = min(self._active, key=lambda w: busy.count(w.number))", "worker = self._active[0]"),
    ),
    *_faults(
        TRAIN + "folder.py", "tests/train/test_folder.py",
        ("if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):", "if True:"),
    ),
    # ------------------------------------------------------------------------------------------------- launcher
    *_faults(
        LAUNCH + "runner.py", "tests/launch/test_launch.py",
        ("if not self.stop.by:  # else", "if True:  # else"),
        ("start_new_session=True", "start_new_session=False"),
        ("return 128 - code if code < 0 else code", "return code"),
    ),
    *_faults(
        LAUNCH + "rank.py", "tests/launch/test_launch.py",
        (" if os.getpid() == owner else None", ""),
    ),
    *_faults(
        LAUNCH + "console.py", "tests/launch/test_output.py",
        ("        except OSError as error:", "        except KeyError as error:"),
        ("isinstance(binary, (io.BufferedIOBase, io.RawIOBase))", "isinstance(binary, io.BufferedIOBase)"),
        ("self._decoders[stream].decode(data)", 'data.decode(errors="replace")'),
    ),
    # --------------------------------------------------------------------------------------------- checkpoints
    *_faults(
        AUTOGRAD + "checkpoint.py", "tests/autograd/test_functions_and_checks.py",
        ("if not MODE.grad or _AGAIN.running:", "if not MODE.grad:"),
        ("new.saved, new.versions, new.stale", "new.saved, new.versions, False"),
    ),
    *_faults(
        TRAIN + "checkpoint.py", "tests/train/test_checkpoint.py",
        ("            if _sha256(path / name) != digest:", "            if False:"),
        ("    for old in list(every(folder))[:-keep]:", "    for old in list(every(folder))[:-keep - 1]:"),
        ("        if job.get(\"model\") == model and job.get(\"data\") == data:", "        if job.get(\"model\") == model:"),
        ("    found = sorted(outputs.glob(\"**/checkpoints/step_*/job.json\"), key=lambda p: p.stat().st_mtime)", "    found = sorted(outputs.glob(\"**/checkpoints/step_*/job.json\"))"),
        ("    return {k: _put_tensors(v, tensors) for k, v in value}", "    return {str(k): _put_tensors(v, tensors) for k, v in value}"),
        ("    finally:\n        shutil.rmtree(workplace, ignore_errors=True)\n    for old", "    finally:\n        pass\n    for old"),
    ),
    # ---------------------------------------------------------------------------------------------- transforms
    *_faults(
        AUTOGRAD + "batching.py", "tests/ops/test_batching_walk.py",
        ("return dim % rank + 1", "return dim % rank"),
        ("return tuple(range(1, rank + 1))", "return tuple(range(0, rank + 1))"),
        ("        generator.set_state(state)\n", "        pass\n", "tests/autograd/test_vmap.py"),
    ),
    *_faults(
        AUTOGRAD + "levels.py", "tests/autograd/test_vmap.py",
        ("return tuple([wrap(top.lift(x)) if _is_from_below(x, top) else x for x in xs])", "return xs"),
    ),
    *_faults(
        AUTOGRAD + "forward_mode.py", "tests/autograd/test_vmap.py",
        ("made = [clone(t) if t is not None and any(_shares(t, g) for g in given) else t for t in made]", "pass"),
        ("made = [t if t is None else _lying_as(t, z) for t, z in zip(made, outs, strict=False)]", "pass"),
        ("            x._array = array\n", "            pass\n"),
        ("total, bias = part if total is None else add(total, part), None", "total = part if total is None else add(total, part)", "tests/ops/test_forward_walk.py"),
    ),
    *_faults(
        TENSOR + "core/kinds.py", "tests/ops/test_batching_walk.py",
        ("INTO_FIRST = Elementwise(first=True)", "INTO_FIRST = Elementwise()"),
    ),
    # ------------------------------------------------------------------------------------------- descriptions
    *_faults(
        TENSOR + "core/order.py", "tests/ops/test_descriptions.py tests/ops/test_order.py",
        ("            if s[b] <= s[a]:", "            if s[b] >= s[a]:"),
        ("own = [0 if n == 1 else abs(s) for n", "own = [abs(s) for n"),
        ("return packed(shape, (1, *range(len(shape) - 1, 1, -1), 0))", "return packed(shape, (1, *range(2, len(shape)), 0))"),
        ("        step = step * max(shape[i], 1)", "        step = step * shape[i]", "tests/parity/test_meta.py tests/ops/test_descriptions.py tests/ops/test_order.py"),
        ("        if stride != step:", "        if stride > step:"),
    ),
    *_faults(
        TENSOR + "core/describe.py", "tests/ops/test_descriptions.py",
        ("if (a.private or (marked and not op.random)) and (", "if a.private and ("),
        ("offset=cuda.address(z) - start", "offset=0"),
        ("    owner = above if above.base is None else above.base", "    owner = above"),
        ("above.offset + a.offset", "a.offset"),
        ("    if device == META and type(said)", "    if device != META and type(said)", "tests/parity/test_meta.py"),
        ("    if result.shape != array.shape:", "    if False:", "tests/parity/test_meta.py"),
        ("elif here != device or type(a) is not AbstractArray:", "elif False:", "tests/parity/test_meta.py"),
    ),
    *_faults(
        TENSOR + "core/symbol.py", "tests/ops/test_symbolic_sizes.py",
        ("_LEAST = 2", "_LEAST = 1"),
        ("        if times % by:\n            return None", "        pass"),
        ("        if (difference.least() or 0) > 0 or", "        if"),
        ("        if least is not None and least >= by:", "        if least is not None and least >= 0:"),
        ("                return None\n            left.remove(factor)", "                continue\n            left.remove(factor)"),
    ),
    *_faults(
        TENSOR + "core/dispatch.py", "tests/ops/test_descriptions.py",
        ("        abstract.no_data(by)", "        abstract.no_data()"),
    ),
    *_faults(
        TENSOR + "core/devices.py", "tests/parity/test_meta.py",
        ("        _DEFAULT.stack = _DEFAULT.stack[:-1]", "        pass"),
        ("        _choose((*_DEFAULT.stack, self))", "        _choose((self, *_DEFAULT.stack))"),
    ),
    # ------------------------------------------------------------------------------------------------- reducer
    *_faults(
        DISTRIBUTED + "reducer.py", "tests/mpi/on_ranks/test_ddp.py",
        ("scale = view.dtype.type(1 / self._group.size())", "scale = view.dtype.type(1)"),
        ("return np.dtype(np.float32) if dtype.itemsize == 2 else dtype", "return dtype"),
        ("        kept = {i: self._params[i].grad for i, anywhere in enumerate(used) if not anywhere}", "        kept = {}"),
        ("        if unused and not self._find_unused:", "        if False:"),
        ("            if not self.enabled:\n                return", "            pass"),
        ("            if self._seen[i]:", "            if False:"),
        ("while self._next < len(self.buckets) and self.buckets[self._next].missing == 0:", "if bucket.missing == 0:"),
        ("        touch(tensor)\n", "        pass\n"),
        ("            self._group.finish()", "            pass"),
        ("(cap_bytes if buckets else min(FIRST_BUCKET_BYTES, cap_bytes)), wire", "cap_bytes, wire"),
        ("or wire != dtype or need", "or need"),
        ("param._array.dtype == view.dtype", "True"),
        ("np.zeros(self._params[i].shape, self._params[i]._array.dtype) if have is None else have._array", "np.ones(self._params[i].shape, self._params[i]._array.dtype) if have is None else have._array"),
        ranks=2,
    ),
    Fault(
        DISTRIBUTED + "reducer.py", "            touch(grad)", "            pass", ("tests/mpi/on_ranks/test_ddp.py",), 2,
        "the engine counts the same change when it adds up the gradient; only a hook that saves it in between could see",
    ),
]  # fmt: skip
