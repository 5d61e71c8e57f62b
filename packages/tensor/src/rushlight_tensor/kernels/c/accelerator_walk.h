/* The accelerator, continued: `graph.pull_bare`, and `_count` and `_Walk._walk` of `engine.py`. */
#ifndef ACCELERATOR_WALK_H
#define ACCELERATOR_WALK_H

/* `graph.pull_bare` of a record whose rules are arithmetic: `(node, gradient, edges) -> gradients`. */
typedef struct {
    char head[RL_HEAD];
    rl_vectorcall call;
    rl_object *twin;
    const rl_entry *entry;
    int saves, saved[3];
} rl_pull;

/* The arrays that a rule reads, after the gradient; held in `read`, for another thread may take them from their tensors or
   walk the same graph.  False where they are not plain, or have changed: Python explains. */
static bool unpack_arrays(const rl_pull *u, rl_object *n, const rl_ndarray *g, int type, char **p, rl_object **read,
                          double *number, int *variant) {
    rl_object *saved = SLOT(n, at.n_saved), *versions = SLOT(n, at.n_versions);
    if (!saved || saved == NONE_OBJECT || PyTuple_Size(saved) != u->saves) return false;
    for (int i = 0; i < u->saves; i++) {
        rl_object *item = PyTuple_GetItem(saved, i), *v = PyTuple_GetItem(versions, i);
        int other;
        if (is_number(item)) {
            if (i == 0 || fabs(*number = PyFloat_AsDouble(item)) > 1e15) return PyErr_Clear(), false;
            *variant = SECOND, p[i + 1] = (char *)number;
            continue;
        }
        if (v != NONE_OBJECT) {
            if (!is_a(item, py.tensor) || version(item) != v) return false;
            item = SLOT(item, at.t_array);
        } else if (SLOT(n, at.n_stale) != &_Py_FalseStruct) return false;
        const rl_ndarray *a = plain(item, &other);
        if (!a || other != type || !same_shape(a, g)) return false;
        p[i + 1] = a->data, read[i] = held(item);
    }
    return true;
}

static rl_object *pull(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    const rl_pull *u = (const rl_pull *)self;
    const rl_entry *e = u->entry;
    rl_object *edges, *read[MOST_SAVED] = {0}, *out = 0;
    int type, variant = NONE, size;
    if (!is_rule_call(args, flags, keywords, e->inputs)) return PyObject_Vectorcall(u->twin, args, flags, keywords);
    edges = args[2];
    double number;
    char *p[MOST_OPERANDS];
    int step[MOST_OPERANDS];
    const rl_ndarray *g = plain(args[1], &type);
    if (!g || !unpack_arrays(u, args[0], g, type, p, read, &number, &variant)) goto twin;
    for (int i = 0; i < e->inputs; i++)
        if (PyTuple_GetItem(edges, i) != NONE_OBJECT && (e->rules[i] == PYTHON ||
            (e->rules[i] == COMPUTED && !e->gradients[i][type][variant]))) goto twin;
    size = type == F32 ? 4 : 8;
    intptr_t n = 1;
    for (int d = 0; d < g->nd; d++) n *= g->dims[d];
    p[0] = g->data;
    for (int i = 0; i < MOST_OPERANDS; i++) step[i] = i == 2 && variant == SECOND ? 0 : size;
    out = PyTuple_New(e->inputs);
    for (int i = 0; out && i < e->inputs; i++) {
        rl_object *made = held(NONE_OBJECT);
        if (PyTuple_GetItem(edges, i) != NONE_OBJECT) {
            Py_DecRef(made);
            made = e->rules[i] == GIVEN ? held(args[1]) : empty(py.dtypes[type], g->nd, g->dims);
            if (!made) { Py_DecRef(out); out = 0; break; }
            p[u->saves + 1] = RL_BODY(rl_ndarray, made)->data;
            if (e->rules[i] == COMPUTED) run(e->gradients[i][type][variant], p, step, u->saves + 2, n);
        }
        PyTuple_SetItem(out, i, made);
    }
    for (int i = 0; i < u->saves; i++) drop(read[i]);
    return out;
twin:
    for (int i = 0; i < u->saves; i++) drop(read[i]);
    return PyObject_Vectorcall(u->twin, args, flags, keywords);
}

/* What is still to be visited, with a reference each. */
typedef struct { rl_object **items; intptr_t count, room; } rl_stack;

static bool push(rl_stack *s, rl_object *item) {
    if (s->count == s->room) {
        void *more = realloc(s->items, (s->room = 2 * s->room + 64) * sizeof *s->items);
        if (!more) { PyErr_NoMemory(); return false; }
        s->items = more;
    }
    s->items[s->count++] = held(item);
    return true;
}

static rl_object *done(rl_stack *s, bool fine) {
    while (s->count) Py_DecRef(s->items[--s->count]);
    free(s->items);
    return fine ? rl_none() : 0;
}

static bool push_all(rl_stack *s, rl_object *list) {
    for (intptr_t i = 0; i < PyList_Size(list); i++) if (!push(s, PyList_GetItem(list, i))) return false;
    return true;
}

/* `dict[key] += by`, of which a missing key starts at `start`; the new value, or -1 with an error. */
static long long count_up(rl_object *dict, rl_object *key, rl_object *old, long long by) {
    rl_object *now = PyLong_FromLongLong((old ? PyLong_AsLongLong(old) : 0) + by);
    if (!now) return -1;
    long long value = PyDict_SetItem(dict, key, now) < 0 ? -1 : PyLong_AsLongLong(now);
    Py_DecRef(now);
    return value;
}

/* `engine._count` without targets: (starts, pending). */
static rl_object *count(rl_object *self, rl_object *const *args, intptr_t given) {
    rl_stack stack = {0};
    if (given != 2 || TYPE(args[0]) != &PyList_Type || TYPE(args[1]) != &PyDict_Type)
        return PyErr_Format(PyExc_TypeError, "count: takes a list and a dict");
    rl_object *pending = args[1];
    bool fine = push_all(&stack, args[0]);
    while (fine && stack.count) {
        rl_object *n = stack.items[--stack.count], *edges = is_a(n, py.tensor) ? 0 : held(SLOT(n, at.n_edges));
        for (intptr_t i = 0; fine && edges && i < PyTuple_Size(edges); i++) {
            rl_object *e = PyTuple_GetItem(edges, i), *old = e == NONE_OBJECT ? 0 : PyDict_GetItemWithError(pending, e);
            if (e == NONE_OBJECT) continue;
            fine = (old || push(&stack, e)) && count_up(pending, e, old, 1) > 0;
        }
        drop(edges), Py_DecRef(n);
    }
    return done(&stack, fine);
}

/* The sum of two gradients; `into`: in the memory of the first, which nobody else holds. */
static rl_object *sum(rl_object *have, rl_object *more, bool into) {
    int type, other;
    const rl_ndarray *x = plain(have, &type), *y = plain(more, &other);
    if (!x || !y || type != other || !same_shape(x, y) || !(x->flags & NPY_WRITEABLE))
        return into ? PyNumber_InPlaceAdd(have, more) : PyNumber_Add(have, more);
    if (!into) return compute(&rl_entries[RL_ADD], type, have, more, 0);
    char *p[3] = {x->data, y->data, x->data};
    int size = type == F32 ? 4 : 8, step[3] = {size, size, size};
    intptr_t n = 1;
    for (int d = 0; d < x->nd; d++) n *= x->dims[d];
    run(rl_entries[RL_ADD].loops[type][NONE], p, step, 3, n);
    return held(have);
}

static rl_object *owned(rl_object *array) {
    int type;
    const rl_ndarray *a = plain(array, &type);
    rl_object *copy = empty(py.dtypes[type], a->nd, a->dims);
    intptr_t n = type == F32 ? 4 : 8;
    for (int d = 0; d < a->nd; d++) n *= a->dims[d];
    if (copy && n) memcpy(RL_BODY(rl_ndarray, copy)->data, a->data, n);
    return copy;
}

/* `_Walk._arrive`: one gradient of `n` comes to what an edge leads to.  Whatever is not plain or does not fit: Python. */
static bool arrive(rl_object *pass, rl_object *n, rl_object *g, rl_object *e, rl_object *ge, rl_object *arrived) {
    bool inner = is_a(e, py.node), fits;
    int type;
    const rl_ndarray *a = plain(ge, &type);
    if ((fits = a != 0)) {
        rl_object *shape = inner ? SLOT(e, at.n_shape) : SLOT(e, at.t_array);
        if (inner) {
            fits = PyTuple_Size(shape) == a->nd;
            for (int d = 0; fits && d < a->nd; d++) {
                rl_object *size = PyTuple_GetItem(shape, d); /* a tuple itself where there are several results */
                fits = TYPE(size) == &PyLong_Type && PyLong_AsLongLong(size) == a->dims[d];
            }
        } else fits = TYPE(shape) == py.ndarray && same_shape(a, RL_BODY(rl_ndarray, shape));
    }
    rl_object *result, *have = fits ? PyDict_GetItemWithError(arrived, e) : 0;
    if (!fits) result = PyObject_CallMethodObjArgs(pass, s_arrive, n, g, e, ge, (rl_object *)0);
    else if (have) result = sum(held(have), ge, !inner), Py_DecRef(have);
    else if (!inner && (ge == g || a->base || SLOT(n, at.n_op) == NONE_OBJECT)) result = owned(ge);
    else result = held(ge);
    if (!result) return false;
    bool fine = !fits || PyDict_SetItem(arrived, e, result) >= 0;
    Py_DecRef(result);
    return fine;
}

/* `_Walk._finish_leaf`: the first gradient of a leaf without hooks is stored here, everything else by Python. */
static bool finish_leaf(rl_object *pass, rl_object *leaf, rl_object *g, bool detailed) {
    bool bare = TYPE(g) == py.ndarray;
    rl_object *t = bare ? wrap(held(g), true) : PyObject_CallMethodObjArgs(pass, s_tensor, g, (rl_object *)0);
    if (!t) return false;
    rl_object *own = SLOT(leaf, at.t_array), *hooks = SLOT(leaf, at.t_hooks);
    if (bare && !detailed && (!hooks || hooks == NONE_OBJECT) && SLOT(leaf, at.t_grad) == NONE_OBJECT &&
        SLOT(leaf, at.t_requires) == &_Py_TrueStruct && TYPE(own) == py.ndarray && RL_BODY(rl_ndarray, own)->descr == RL_BODY(rl_ndarray, g)->descr &&
        (RL_BODY(rl_ndarray, own)->flags & RL_BODY(rl_ndarray, g)->flags & NPY_C_CONTIGUOUS)) {
        put(leaf, at.t_grad, t);
        return true;
    }
    rl_object *result = PyObject_CallMethodObjArgs(pass, s_leaf, leaf, t, (rl_object *)0);
    Py_DecRef(t);
    drop(result);
    return result != 0;
}

/* The gradients of one node: a sequence, as Python's rules return it. */
static rl_object *gradients(rl_object *pass, rl_object *n, rl_object *g, rl_object *edges, rl_object *wrapped, bool detailed) {
    rl_object *op = SLOT(n, at.n_op), *args[3] = {n, g, edges};
    if (detailed || SLOT(n, at.n_hooks) != NONE_OBJECT || TYPE(g) == &PyDict_Type || TYPE(n) == py.slot)
        return PyObject_CallMethodObjArgs(pass, s_detail, n, g, (rl_object *)0);
    rl_object *rule = op == NONE_OBJECT || SLOT(op, at.o_pull) == NONE_OBJECT ? wrapped : SLOT(op, at.o_pull);
    return TYPE(rule) == pull_type ? pull(rule, args, 3, 0) : PyObject_Vectorcall(rule, args, 3, 0);
}

/* `_Walk._walk` of bare gradients: (pass, ready, arrived, pending, retain_graph, with targets, _pull_wrapped). */
static rl_object *walk(rl_object *self, rl_object *const *args, intptr_t given) {
    if (given != 7 || TYPE(args[1]) != &PyList_Type || TYPE(args[2]) != &PyDict_Type || TYPE(args[3]) != &PyDict_Type)
        return PyErr_Format(PyExc_TypeError, "walk: takes what `_Walk._walk` gives it");
    rl_object *pass = args[0], *arrived = args[2], *pending = args[3];
    bool keep = args[4] == &_Py_TrueStruct, detailed = args[5] == &_Py_TrueStruct, fine;
    rl_stack ready = {0};
    fine = push_all(&ready, args[1]);
    while (fine && ready.count) {
        rl_object *n = ready.items[--ready.count], *g = PyDict_GetItemWithError(arrived, n), *edges, *found = 0;
        if (g) Py_IncRef(g), PyDict_DelItem(arrived, n);
        if (is_a(n, py.tensor)) {
            fine = !g || finish_leaf(pass, n, g, detailed);
            drop(g), Py_DecRef(n);
            continue;
        }
        edges = held(SLOT(n, at.n_edges));
        intptr_t last = PyTuple_Size(edges);
        if (g) {
            fine = (found = gradients(pass, n, g, edges, args[6], detailed)) != 0;
            intptr_t made = fine ? PySequence_Size(found) : 0;
            if (made < last) last = made;
        }
        rl_object *saved = SLOT(n, at.n_saved);
        if (fine && !keep && saved && saved != NONE_OBJECT && PyTuple_Size(saved)) put(n, at.n_saved, held(NONE_OBJECT));
        for (intptr_t i = 0; fine && i < last; i++) {
            rl_object *e = PyTuple_GetItem(edges, i), *left = e == NONE_OBJECT ? 0 : PyDict_GetItemWithError(pending, e);
            if (!left) continue;
            rl_object *ge = found ? PySequence_GetItem(found, i) : 0;
            fine = (ge || !found) && (!ge || ge == NONE_OBJECT || arrive(pass, n, g, e, ge, arrived));
            drop(ge);
            long long now = fine ? count_up(pending, e, PyDict_GetItemWithError(pending, e), -1) : -1;
            fine = fine && now >= 0 && (now > 0 || push(&ready, e));
        }
        drop(found), drop(g), Py_DecRef(edges), Py_DecRef(n);
    }
    return done(&ready, fine);
}

#endif
