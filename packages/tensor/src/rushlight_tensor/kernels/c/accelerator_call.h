/* The accelerator, continued: `dispatch.call` and `Op.__call__`. */
#ifndef ACCELERATOR_CALL_H
#define ACCELERATOR_CALL_H

extern rl_object *PyDict_Copy(rl_object *);
extern rl_object *PyExc_Exception;
extern void PyErr_Fetch(rl_object **, rl_object **, rl_object **), PyErr_Restore(rl_object *, rl_object *, rl_object *);
extern void PyErr_NormalizeException(rl_object **, rl_object **, rl_object **);
extern int PyContext_Enter(rl_object *), PyContext_Exit(rl_object *), PyErr_ExceptionMatches(rl_object *);
extern int PyDict_Contains(rl_object *, rl_object *);
extern intptr_t PyDict_Size(rl_object *);

/* What the accelerator knows of a record: callable as `dispatch.call` is, with inputs and attributes. */
typedef struct {
    char head[RL_HEAD];
    rl_vectorcall call;
    rl_object *op, *twin, *defaults, *names, *saves, *numbers; /* attributes that its loops take */
    const rl_entry *entry; /* of an elementwise op with attributes */
    int arity, promotes, differentiable, auxiliary, order, effects;
    char refuses[8];
} rl_record;

/* An elementwise op with attributes, on arrays of one dtype and shape.  NULL, without error, where that is not so. */
static rl_object *by_loop(rl_record *r, rl_object *const *arrays, int count, rl_object *attrs) {
    const rl_entry *e = r->entry;
    const rl_ndarray *a[2], *first;
    double numbers[MOST_OPERANDS];
    char *p[MOST_OPERANDS];
    int type, other, step[MOST_OPERANDS] = {0}, k = 0, taken = PyTuple_Size(r->numbers);
    intptr_t n = 1;
    if (count != e->inputs || count + taken >= MOST_OPERANDS) return 0;
    for (; k < count; k++) {
        if (!(a[k] = plain(arrays[k], k ? &other : &type)) || (k && (other != type || !same_shape(a[0], a[1])))) return 0;
        p[k] = a[k]->data, step[k] = type == F32 ? 4 : 8;
    }
    if (!e->loops[type][NONE]) return 0;
    for (int i = 0; i < taken; i++, k++) {
        rl_object *value = PyDict_GetItemWithError(attrs, PyTuple_GetItem(r->numbers, i));
        if (!value || !is_number(value) || !to_number(value, type, &numbers[i])) return 0;
        p[k] = (char *)&numbers[i];
    }
    first = a[0];
    rl_object *out = empty(e->to_bool ? py.boolean : py.dtypes[type], first->nd, first->dims);
    if (!out) return 0;
    for (int d = 0; d < first->nd; d++) n *= first->dims[d];
    p[k] = RL_BODY(rl_ndarray, out)->data, step[k] = e->to_bool ? 1 : type == F32 ? 4 : 8;
    run(e->loops[type][NONE], p, step, k + 1, n);
    return out;
}

/* How the results of a record lie (`placement.py`): in the order of their indices, in that of contiguous inputs, in it unless
   these are images of one channel or of one pixel, or not even then. */
enum { IN_ORDER, AS_INPUTS, AS_IMAGES, MOVED };

/* Whether these are images that lie in both orders at once: their strides decide.  `_lie_both_ways` in `layout.py`. */
static int lie_both_ways(const rl_ndarray *a) {
    int one = a->nd > 3 && a->nd < 6;
    for (int d = 2; d < a->nd; d++) one = one && a->dims[d] == 1;
    return one || (a->nd > 3 && a->dims[1] == 1);
}

/* `lay`, which is called where results, or inputs that they may follow, are not contiguous.  Takes over `result`. */
static rl_object *laid(rl_record *r, rl_object *result, rl_object *const *arrays, int count, rl_object *attrs) {
    bool several = TYPE(result) == &PyTuple_Type, fine = r->order != MOVED;
    for (intptr_t i = 0; fine && i < (several ? PyTuple_Size(result) : 1); i++) {
        rl_object *z = several ? PyTuple_GetItem(result, i) : result;
        fine = !is_a(z, py.ndarray) || RL_BODY(rl_ndarray, z)->flags & NPY_C_CONTIGUOUS;
    }
    for (int i = 0; fine && r->order != IN_ORDER && i < count; i++) {
        if (TYPE(arrays[i]) != py.ndarray) continue;
        const rl_ndarray *a = RL_BODY(rl_ndarray, arrays[i]);
        fine = a->flags & NPY_C_CONTIGUOUS && !(r->order == AS_IMAGES && lie_both_ways(a));
    }
    if (fine) return result;
    rl_object *given = tuple(count, arrays), *out = 0;
    if (given)
        out = PyObject_CallMethodObjArgs(py.dispatch_module, s_lay, r->op, result, given, attrs, (rl_object *)0);
    drop(given), Py_DecRef(result);
    return out;
}

/* `dispatch.explain` of the error that is set; it stays where nothing better is known. */
static void explain(rl_record *r, rl_object *const *arrays, int count, rl_object *attrs) {
    rl_object *type, *error, *trace, *given = 0, *said = 0;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (error && (given = tuple(count, arrays)))
        said = PyObject_CallMethodObjArgs(py.dispatch_module, s_explain, r->op, given, attrs, error, (rl_object *)0);
    drop(given), drop(said);
    if (PyErr_Occurred()) drop(type), drop(error), drop(trace);
    else PyErr_Restore(type, error, trace);
}

/* The kernel on arrays that are held, quietly.  NULL, without error, where `dispatch.run` is to do it. */
static rl_object *execute_held(rl_record *r, rl_object *const *arrays, int count, rl_object *attrs) {
    rl_object *cpu = SLOT(r->op, at.o_cpu), *given, *out;
    if (r->entry && (out = by_loop(r, arrays, count, attrs))) return out;
    PyErr_Clear();
    if (PyContext_Enter(py.quiet) < 0) { PyErr_Clear(); return 0; }
    if (TYPE(cpu) == planned_type) out = planned((rl_planned *)cpu, arrays, count, attrs);
    else {
        given = tuple(count, arrays);
        out = given ? PyObject_Call(cpu, given, attrs) : 0;
        drop(given);
    }
    rl_object *bare = out;
    if (PyContext_Exit(py.quiet) < 0) bare = 0;
    if (bare) return laid(r, bare, arrays, count, attrs);
    drop(out);
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return 0;
    if (r->effects) explain(r, arrays, count, attrs); /* it may have drawn or written: not again */
    else PyErr_Clear(); /* Python runs it again, and explains */
    return 0;
}

/* The same; another thread may take the arrays from their tensors meanwhile. */
static rl_object *execute(rl_record *r, rl_object *const *arrays, int count, rl_object *attrs) {
    rl_object *own[MOST_ARRAYS];
    for (int i = 0; i < count; i++) own[i] = held(arrays[i]);
    rl_object *out = execute_held(r, own, count, attrs);
    for (int i = 0; i < count; i++) Py_DecRef(own[i]);
    return out;
}

INLINE rl_object *array_of(rl_object *x) { return is_a(x, py.tensor) ? SLOT(x, at.t_array) : x; }

/* `graph.save`. */
static bool save(rl_record *r, rl_object *n, rl_object *const *xs, int inputs, rl_object *const *results) {
    rl_object *items[MOST_ARRAYS], *versions[MOST_ARRAYS];
    int count = PyTuple_Size(r->saves), made = 0;
    for (; made < count; made++) {
        rl_object *which = PyTuple_GetItem(r->saves, made);
        int kind = int_at(which, 0), i = int_at(which, 1);
        versions[made] = NONE_OBJECT;
        if (kind >= SAVE_OUT) {
            items[made] = held(results[i]);
            if (is_a(results[i], py.tensor)) versions[made] = version(results[i]);
        }
        else if (i < 0) {
            rl_object *shapes[MOST_ARRAYS];
            int k = 0;
            for (; k < inputs && (shapes[k] = PyObject_GetAttr(array_of(xs[k]), s_shape)); k++);
            items[made] = k == inputs ? tuple(inputs, shapes) : 0;
            while (k) Py_DecRef(shapes[--k]);
        }
        else if (kind == SAVE_INPUT || !is_a(xs[i], py.tensor)) {
            bool tensor = is_a(xs[i], py.tensor);
            items[made] = kind == SAVE_SHAPE ? PyTuple_New(0) : held(xs[i]);
            if (tensor) versions[made] = version(xs[i]);
        } else items[made] = PyObject_GetAttr(SLOT(xs[i], at.t_array), kind == SAVE_SHAPE ? s_shape : s_dtype);
        if (!items[made]) break;
    }
    if (made == count) SLOT(n, at.n_versions) = tuple(count, versions), SLOT(n, at.n_saved) = tuple(count, items);
    bool fine = made == count && SLOT(n, at.n_saved) && SLOT(n, at.n_versions);
    while (made) Py_DecRef(items[--made]);
    return fine;
}

/* `node_for`; of each result its array, or a tensor that has no node.  Takes over `shape`. */
static rl_object *node_for(rl_record *r, rl_object *const *xs, int count, rl_object *attrs, rl_object *const *results, rl_object *shape) {
    rl_object *edges[MOST_ARRAYS], *n = shape ? PyType_GenericAlloc(py.node, 0) : 0;
    if (!n) { drop(shape); return 0; }
    bool fine = save(r, n, xs, count, results);
    for (int i = 0; i < count; i++) edges[i] = is_a(xs[i], py.tensor) ? edge(xs[i]) : NONE_OBJECT;
    SLOT(n, at.n_edges) = tuple(count, edges);
    SLOT(n, at.n_op) = held(r->op);
    SLOT(n, at.n_attrs) = held(attrs);
    SLOT(n, at.n_hooks) = held(NONE_OBJECT);
    SLOT(n, at.n_stale) = held(&_Py_FalseStruct);
    SLOT(n, at.n_shape) = shape;
    if (fine && SLOT(n, at.n_edges)) return n;
    Py_DecRef(n);
    return 0;
}

/* `t` is a result of the node, which it takes over. */
static bool made_by(rl_object *t, rl_object *n) {
    if (!n) return false;
    put(t, at.t_node, n);
    put(t, at.t_requires, held(&_Py_TrueStruct));
    return true;
}

/* `record` of the only result that is a tensor, `t`; `result` is what the kernel returned. */
static bool record_one(rl_record *r, rl_object *t, rl_object *const *xs, int count, rl_object *attrs, rl_object *result) {
    rl_object *results[MOST_ARRAYS] = {SLOT(t, at.t_array)};
    for (int i = 1; r->auxiliary && i < PyTuple_Size(result); i++) results[i] = PyTuple_GetItem(result, i);
    return made_by(t, node_for(r, xs, count, attrs, results, PyObject_GetAttr(results[0], s_shape)));
}

INLINE bool is_differentiable(rl_object *array) { return strchr("fVc", RL_BODY(rl_descr, RL_BODY(rl_ndarray, array)->descr)->kind) != 0; }

/* `several`, of arrays alone; NULL, without error, where there is something else among them. */
static rl_object *several(rl_record *r, rl_object *const *xs, int count, rl_object *attrs, rl_object *result, bool grad) {
    rl_object *outs[MOST_ARRAYS], *results[MOST_ARRAYS], *shapes[MOST_ARRAYS], *n = 0, *out = 0;
    intptr_t many = PyTuple_Size(result), made = 0, shaped = 0;
    bool fine = true;
    for (intptr_t i = 0; i < many; i++) if (many > MOST_ARRAYS || TYPE(PyTuple_GetItem(result, i)) != py.ndarray) return 0;
    for (; fine && made < many; made += fine) {
        rl_object *array = PyTuple_GetItem(result, made);
        fine = (outs[made] = wrap(held(array), false)) != 0;
        if (fine) results[made] = is_differentiable(array) ? array : outs[made];
    }
    for (; fine && grad && shaped < many; shaped += fine)
        fine = (shapes[shaped] = PyObject_GetAttr(PyTuple_GetItem(result, shaped), s_shape)) != 0;
    if (fine && grad) fine = (n = node_for(r, xs, count, attrs, results, tuple(many, shapes))) != 0;
    for (intptr_t i = 0; fine && grad && i < many; i++) {
        if (results[i] == outs[i]) continue;
        rl_object *given[3] = {n, PyLong_FromLongLong(i), shapes[i]};
        fine = given[1] && made_by(outs[i], PyObject_Vectorcall(py.slot, given, 3, 0));
        drop(given[1]);
    }
    if (fine) out = tuple(many, outs);
    while (made) Py_DecRef(outs[--made]);
    while (shaped) Py_DecRef(shapes[--shaped]);
    drop(n);
    return out;
}

/* Whether all inputs are what the kernel takes as it is: their arrays, and whether a gradient is recorded. */
static bool operands(rl_record *r, rl_object *const *xs, int count, rl_object **arrays, bool *grad) {
    rl_object *common = 0;
    *grad = false;
    for (int i = 0; i < count; i++) {
        arrays[i] = xs[i];
        if (!is_a(xs[i], py.tensor)) {
            if (xs[i] != NONE_OBJECT || r->promotes) return false;
            continue;
        }
        rl_object *array = arrays[i] = SLOT(xs[i], at.t_array);
        if (!array || TYPE(array) != py.ndarray) return false;
        rl_object *dtype = RL_BODY(rl_ndarray, array)->descr;
        if (r->promotes ? (common && dtype != common) || (dtype != py.dtypes[F32] && dtype != py.dtypes[F64])
                        : strchr(r->refuses, RL_BODY(rl_descr, dtype)->kind) != 0) return false;
        common = dtype;
        *grad = *grad || SLOT(xs[i], at.t_requires) == &_Py_TrueStruct;
    }
    *grad = *grad && r->differentiable && grad_mode();
    for (int i = 0; *grad && i < count; i++) if (arrays[i] != xs[i] && !synced(xs[i])) return false;
    return true;
}

/* `dispatch.call` in Python. */
static rl_object *general_call(rl_record *r, rl_object *const *xs, int count, rl_object *attrs) {
    rl_object *given = tuple(count, xs);
    rl_object *t = given ? PyObject_CallMethodObjArgs(py.dispatch_module, s_call, r->op, given, attrs, (rl_object *)0) : 0;
    drop(given);
    return t;
}

/* `dispatch.call`. */
static rl_object *call(rl_record *r, rl_object *const *xs, int count, rl_object *attrs) {
    rl_object *arrays[MOST_ARRAYS], *result = 0, *t;
    bool grad;
    if (count <= MOST_ARRAYS && !intercepted() && operands(r, xs, count, arrays, &grad)) {
        result = execute(r, arrays, count, attrs);
        if (!result && PyErr_Occurred()) return 0;
    }
    if (!result) return general_call(r, xs, count, attrs);
    rl_object *first = r->auxiliary ? PyTuple_GetItem(result, 0) : result;
    if (!r->auxiliary && TYPE(result) == &PyTuple_Type) {
        if ((t = several(r, xs, count, attrs, result, grad)) || PyErr_Occurred()) { Py_DecRef(result); return t; }
        rl_object *given = tuple(count, xs);
        t = given ? PyObject_CallMethodObjArgs(py.dispatch_module, s_several, r->op, given, attrs, result,
            grad ? &_Py_TrueStruct : &_Py_FalseStruct, (rl_object *)0) : 0;
        drop(given), Py_DecRef(result);
        return t;
    }
    first = is_a(first, py.ndarray) ? held(first) : PyObject_CallMethodObjArgs(py.dispatch_module, s_array, first, (rl_object *)0);
    if (first && grad && !is_a(first, py.ndarray)) { /* it has moved to a device */
        drop(first), Py_DecRef(result);
        return general_call(r, xs, count, attrs);
    }
    t = wrap(first, false);
    if (t && grad && (r->auxiliary || is_differentiable(first)) && !record_one(r, t, xs, count, attrs, result)) { Py_DecRef(t); t = 0; }
    Py_DecRef(result);
    return t;
}

/* The same, called as `dispatch.call` calls it: (inputs, attributes). */
static rl_object *record_call(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    rl_object *xs[MOST_ARRAYS];
    rl_record *r = (rl_record *)self;
    if ((flags << 1 >> 1) != 2 || keywords || TYPE(args[0]) != &PyTuple_Type || TYPE(args[1]) != &PyDict_Type)
        return PyErr_Format(PyExc_TypeError, "a record's path takes a tuple of inputs and a dict of attributes; call the op");
    intptr_t count = PyTuple_Size(args[0]);
    if (count > MOST_ARRAYS)
        return PyObject_CallMethodObjArgs(py.dispatch_module, s_call, r->op, args[0], args[1], (rl_object *)0);
    for (intptr_t i = 0; i < count; i++) xs[i] = PyTuple_GetItem(args[0], i);
    return call(r, xs, count, args[1]);
}

/* `fused.pull_bare`: (node, gradient, edges), by the record of the backward op. */
typedef struct {
    char head[RL_HEAD];
    rl_vectorcall call;
    rl_object *twin, *record, *names; /* of the saved things that are attributes; else None */
} rl_fused;

static rl_object *fused_call(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    rl_fused *u = (rl_fused *)self;
    if (!is_rule_call(args, flags, keywords, -1)) return PyObject_Vectorcall(u->twin, args, flags, keywords);
    rl_object *n = args[0], *edges = args[2], *saved = SLOT(n, at.n_saved), *versions = SLOT(n, at.n_versions);
    rl_object *arrays[MOST_ARRAYS] = {args[1]}, *needs[MOST_ARRAYS], *attrs = 0, *wanted = 0, *out = 0, *given;
    intptr_t count = 1, inputs = PyTuple_Size(edges), next = 0;
    if (TYPE(args[1]) != py.ndarray || RL_BODY(rl_descr, RL_BODY(rl_ndarray, args[1])->descr)->kind == 'c') goto twin;
    if (!saved || saved == NONE_OBJECT || SLOT(n, at.n_stale) != &_Py_FalseStruct) goto twin;
    if (PyTuple_Size(saved) != PyTuple_Size(u->names) || PyTuple_Size(saved) >= MOST_ARRAYS || inputs > MOST_ARRAYS) goto twin;
    for (intptr_t i = 0; i < inputs; i++)
        needs[i] = PyTuple_GetItem(edges, i) == NONE_OBJECT ? &_Py_FalseStruct : &_Py_TrueStruct;
    if (!(attrs = PyDict_Copy(SLOT(n, at.n_attrs)))) return 0;
    if (!(wanted = tuple(inputs, needs)) || PyDict_SetItem(attrs, s_needs, wanted) < 0) goto failed;
    if (saved != SLOT(n, at.n_saved)) goto twin; /* making these may have run a finalizer; what follows runs none */
    for (intptr_t i = 0; i < PyTuple_Size(saved); i++) {
        rl_object *item = PyTuple_GetItem(saved, i), *v = PyTuple_GetItem(versions, i), *name = PyTuple_GetItem(u->names, i);
        if (name != NONE_OBJECT) {
            if (PyDict_SetItem(attrs, name, item) < 0) goto failed;
            continue;
        }
        if (v != NONE_OBJECT) {
            if (!is_a(item, py.tensor) || version(item) != v) goto twin;
            item = SLOT(item, at.t_array);
        }
        if (item != NONE_OBJECT && TYPE(item) != py.ndarray) goto twin;
        arrays[count++] = item;
    }
    if (!(out = execute((rl_record *)u->record, arrays, count, attrs))) {
        if (PyErr_Occurred()) goto failed;
        goto twin;
    }
    if (TYPE(out) != &PyTuple_Type) given = tuple(1, &out);
    else if (PyTuple_Size(out) == inputs) given = held(out);
    else {
        for (intptr_t i = 0; i < inputs; i++)
            needs[i] = needs[i] == &_Py_TrueStruct ? PyTuple_GetItem(out, next++) : NONE_OBJECT;
        given = tuple(inputs, needs);
    }
    Py_DecRef(out), Py_DecRef(wanted), Py_DecRef(attrs);
    return given;
failed:
    drop(wanted), drop(attrs);
    return 0;
twin:
    drop(wanted), drop(attrs);
    return PyObject_Vectorcall(u->twin, args, flags, keywords);
}

/* `Op.__call__`: (op, inputs and attributes in order, attributes by name). */
static rl_object *op_call(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    intptr_t given = (intptr_t)(flags << 1 >> 1), named = keywords ? PyTuple_Size(keywords) : 0;
    rl_object *twin = ((rl_fast *)self)->twin, *attrs, *out;
    rl_object *hot = given > 0 && is_a(args[0], py.record) ? SLOT(args[0], at.o_hot) : 0, *straight;
    rl_record *r = (rl_record *)hot;
    if (!hot || TYPE(hot) != record_type || r->arity < 0 || !(straight = SLOT(args[0], at.o_fast)))
        return PyObject_Vectorcall(twin, args, flags, keywords);
    if (straight != NONE_OBJECT && !named && given > 1 && given - 1 == r->arity && is_a(args[1], py.tensor))
        return PyObject_Vectorcall(straight, args + 1, given - 1, 0);
    if (given - 1 < r->arity || given - 1 - r->arity > PyTuple_Size(r->names) || straight != NONE_OBJECT)
        return PyObject_Vectorcall(twin, args, flags, keywords);
    if (!(attrs = PyDict_Copy(r->defaults))) return 0;
    bool fine = true;
    for (intptr_t i = 1 + r->arity; fine && i < given; i++)
        fine = PyDict_SetItem(attrs, PyTuple_GetItem(r->names, i - 1 - r->arity), args[i]) >= 0;
    for (intptr_t i = 0; fine && i < named; i++) {
        rl_object *name = PyTuple_GetItem(keywords, i);
        fine = PyDict_Contains(r->defaults, name) == 1 && PyDict_SetItem(attrs, name, args[given + i]) >= 0;
    }
    PyErr_Clear();
    out = fine ? call(r, args + 1, r->arity, attrs) : PyObject_Vectorcall(twin, args, flags, keywords);
    Py_DecRef(attrs);
    return out;
}
#endif
