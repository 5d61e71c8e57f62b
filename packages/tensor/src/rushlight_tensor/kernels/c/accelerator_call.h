/* The accelerator, continued: `dispatch.call`, `Op.__call__`, and the plans of `kernels/plan.py`. */
#ifndef ACCELERATOR_CALL_H
#define ACCELERATOR_CALL_H

extern rl_object *PyObject_Call(rl_object *, rl_object *, rl_object *), *PyDict_Copy(rl_object *), *PyObject_Str(rl_object *);
extern rl_object *PyExc_Exception;
extern void PyErr_Fetch(rl_object **, rl_object **, rl_object **), PyErr_Restore(rl_object *, rl_object *, rl_object *);
extern void PyErr_NormalizeException(rl_object **, rl_object **, rl_object **);
extern int PyContext_Enter(rl_object *), PyContext_Exit(rl_object *), PyErr_ExceptionMatches(rl_object *);
extern int PyObject_RichCompareBool(rl_object *, rl_object *, int), PyDict_Contains(rl_object *, rl_object *);
extern intptr_t PyDict_Size(rl_object *);
extern const char *PyUnicode_AsUTF8AndSize(rl_object *, intptr_t *);
enum { EQUAL = 2, MOST_ARRAYS = 16, MOST_SIZES = 24, MOST_PLANS = 4, PLAN_DIMS = 6, SMALL_SCRATCH = 4096, RELEASE = 8192 };

/* --------------------------------------------------------------------------------------------------------- plans */

/* An array as a plan knows it; no dtype: None. */
typedef struct { rl_object *dtype; int nd, ordered; intptr_t dims[PLAN_DIMS], strides[PLAN_DIMS]; } rl_look;
/* What a buffer of the kernel is: an input, a result, nothing, memory to work in, the list of all inputs and their lengths, or
   the state of a generator. */
typedef struct { enum { INPUT, RESULT, NOTHING, SCRATCH_MEMORY, LIST, LENGTHS, DRAWN_FROM } kind; int index; int64_t bytes; } rl_buffer;
typedef long (*rl_entry_point)(void *const *, const int64_t *, const double *);
typedef struct {
    int holders; /* the ring of its record, and calls that run it: others may go on meanwhile, and replace it there */
    int inputs, results, buffers, deciding, numbers, single;
    rl_look looks[MOST_ARRAYS], made[MOST_ARRAYS];
    rl_buffer buffer[MOST_ARRAYS];
    int64_t sizes[MOST_SIZES], scratch;
    rl_object *names[MOST_ARRAYS], *values[MOST_ARRAYS]; /* of the attributes that decide */
    rl_object *number_names[MOST_ARRAYS];
    rl_object *lengths; /* an array, or None */
    rl_object *drawn; /* None; or the state of a generator, and how its lock is taken and given back */
    rl_entry_point run;
} rl_plan;

/* `Planned.run`: callable as it, and by `execute` with its attributes in a dict. */
typedef struct {
    char head[RL_HEAD];
    rl_vectorcall call;
    rl_object *planned, *twin;
    rl_plan *plans[MOST_PLANS];
    rl_object *fits; /* `_fits` of the record when the plans were kept: whether there is a compiler may change */
    int next;
    uint64_t missed, hopeless; /* the shapes of the last call without a plan, and some that can have none */
} rl_planned;

static bool look_at(rl_look *look, rl_object *object) {
    look->dtype = 0;
    if (object == NONE_OBJECT) return true;
    if (TYPE(object) != py.ndarray) return false;
    const rl_ndarray *a = RL_BODY(rl_ndarray, object);
    if (a->nd > PLAN_DIMS || !(a->flags & NPY_ALIGNED)) return false;
    look->dtype = a->descr, look->nd = a->nd, look->ordered = a->flags & NPY_C_CONTIGUOUS;
    for (int d = 0; d < a->nd; d++) look->dims[d] = a->dims[d], look->strides[d] = a->strides[d];
    return true;
}

static bool looks_like(const rl_look *look, rl_object *object) {
    if (!look->dtype || object == NONE_OBJECT) return !look->dtype && object == NONE_OBJECT;
    if (TYPE(object) != py.ndarray) return false;
    const rl_ndarray *a = RL_BODY(rl_ndarray, object);
    if (a->descr != look->dtype || a->nd != look->nd || !(a->flags & NPY_ALIGNED)) return false;
    if ((a->flags & NPY_C_CONTIGUOUS) != look->ordered) return false;
    for (int d = 0; d < a->nd; d++) if (a->dims[d] != look->dims[d]) return false;
    for (int d = 0; !look->ordered && d < a->nd; d++) if (a->strides[d] != look->strides[d]) return false;
    return true;
}

static void release(rl_plan *plan) {
    if (!plan || --plan->holders) return;
    for (int i = 0; i < plan->inputs; i++) drop(plan->looks[i].dtype);
    for (int i = 0; i < plan->results; i++) drop(plan->made[i].dtype);
    for (int i = 0; i < plan->deciding; i++) drop(plan->names[i]), drop(plan->values[i]);
    for (int i = 0; i < plan->numbers; i++) drop(plan->number_names[i]);
    drop(plan->lengths), drop(plan->drawn);
    free(plan);
}

/* Whether two attributes are equal, and of the same types: `_types` in plan.py. */
static bool is_same_value(rl_object *a, rl_object *b) {
    if (a == b || TYPE(a) != TYPE(b)) return a == b;
    if (TYPE(a) != &PyTuple_Type) return PyObject_RichCompareBool(a, b, EQUAL) == 1;
    intptr_t n = PyTuple_Size(a);
    if (n != PyTuple_Size(b)) return false;
    while (n--) if (!is_same_value(PyTuple_GetItem(a, n), PyTuple_GetItem(b, n))) return false;
    return true;
}

/* The plan for these inputs, if it is known, to be released by who asked.  NULL, without error, if not. */
static rl_plan *find_plan(rl_planned *p, rl_object *const *arrays, int count, rl_object *attrs) {
    if (SLOT(p->planned, at.p_fits) != p->fits) return 0;
    for (int k = 0; k < MOST_PLANS && p->plans[k]; k++) {
        rl_plan *plan = p->plans[k];
        bool same = plan->inputs == count;
        plan->holders++; /* comparing may run Python */
        for (int i = 0; same && i < count; i++) same = looks_like(&plan->looks[i], arrays[i]);
        for (int i = 0; same && i < plan->deciding; i++) {
            rl_object *value = PyDict_GetItemWithError(attrs, plan->names[i]);
            same = value && is_same_value(value, plan->values[i]);
        }
        if (same) return plan;
        release(plan);
    }
    return 0;
}

INLINE int64_t elements_of(rl_object *array) {
    if (array == NONE_OBJECT) return 0;
    const rl_ndarray *a = RL_BODY(rl_ndarray, array);
    int64_t n = 1;
    for (int d = 0; d < a->nd; d++) n *= a->dims[d];
    return n;
}

/* Whether the generator of a plan is ours now: who draws in another thread has let go of the interpreter, and is not waited for. */
static bool take(const rl_plan *plan) {
    if (plan->drawn == NONE_OBJECT) return true;
    rl_object *wait = &_Py_FalseStruct, *taken = PyObject_Vectorcall(PyTuple_GetItem(plan->drawn, 1), &wait, 1, 0);
    drop(taken);
    return taken == &_Py_TrueStruct;
}

static void give_back(const rl_plan *plan) {
    if (plan->drawn != NONE_OBJECT) drop(PyObject_Vectorcall(PyTuple_GetItem(plan->drawn, 2), 0, 0, 0));
}

/* The results of a plan: an array, or a tuple.  NULL, without error, where the kernel has something to say: Python asks it. */
static rl_object *run_plan(const rl_plan *plan, rl_object *const *arrays, rl_object *attrs) {
    rl_object *made[MOST_ARRAYS], *out = 0;
    void *p[MOST_ARRAYS], *list[MOST_ARRAYS], *work = 0;
    double f[MOST_ARRAYS];
    char small[SMALL_SCRATCH] __attribute__((aligned(64))), *place = small;
    int64_t elements = 0;
    int done = 0;
    long said = 1;
    for (; done < plan->results; done++) {
        const rl_look *look = &plan->made[done];
        if (!(made[done] = empty(look->dtype, look->nd, look->dims))) goto failed;
    }
    for (int i = 0; i < plan->numbers; i++) {
        rl_object *value = PyDict_GetItemWithError(attrs, plan->number_names[i]);
        f[i] = value ? PyFloat_AsDouble(value) : -1.;
        if (!value || (f[i] == -1. && PyErr_Occurred())) goto failed;
    }
    if (plan->scratch > SMALL_SCRATCH && !(place = work = aligned_alloc(64, plan->scratch))) goto failed;
    for (int i = 0; i < plan->buffers; i++) {
        const rl_buffer *b = &plan->buffer[i];
        rl_object *array = b->kind == INPUT ? arrays[b->index] : b->kind == RESULT ? made[b->index] :
            b->kind == LENGTHS ? plan->lengths : b->kind == DRAWN_FROM ? PyTuple_GetItem(plan->drawn, 0) : NONE_OBJECT;
        p[i] = array == NONE_OBJECT ? 0 : RL_BODY(rl_ndarray, array)->data;
        if (b->kind == SCRATCH_MEMORY) p[i] = place, place += b->bytes;
        if (b->kind == LIST) {
            for (int k = 0; k < plan->inputs; k++) list[k] = RL_BODY(rl_ndarray, arrays[k])->data;
            p[i] = list;
        }
        elements += elements_of(array);
    }
    if (!take(plan)) goto failed;
    if (elements > RELEASE) { /* `execute` holds the arrays, `planned` the plan */
        void *state = PyEval_SaveThread();
        said = plan->run(p, plan->sizes, f);
        PyEval_RestoreThread(state);
    } else said = plan->run(p, plan->sizes, f);
    give_back(plan);
    if (!said) out = plan->single ? held(made[0]) : tuple(plan->results, made);
failed:
    PyErr_Clear();
    free(work);
    while (done) Py_DecRef(made[--done]);
    return out;
}

/* Put a plan, or none, in the place of another. */
static void replace(rl_plan **place, rl_plan *plan) {
    rl_plan *old = *place;
    *place = plan;
    release(old);
}

INLINE int64_t int_at(rl_object *sequence, intptr_t i) { return PyLong_AsLongLong(PyTuple_GetItem(sequence, i)); }

/* Keep what accelerator.py says of a call that has gone well, `_described`: (entry, sizes, buffers, results, names of what
   decides, names of numbers, single, lengths of a list, what it draws from), or None. */
static void keep_plan(rl_planned *p, rl_object *const *arrays, int count, rl_object *attrs, rl_object *said) {
    if (SLOT(p->planned, at.p_fits) != p->fits) {
        for (int k = 0; k < MOST_PLANS; k++) replace(&p->plans[k], 0);
        p->fits = SLOT(p->planned, at.p_fits); /* owned by its library, which is never unloaded */
    }
    rl_plan *plan = TYPE(said) == &PyTuple_Type ? calloc(1, sizeof *plan) : 0;
    p->hopeless = plan ? p->hopeless : p->missed;
    if (!plan) return;
    plan->holders = 1;
    rl_object *part[9];
    for (int i = 0; i < 9; i++) part[i] = PyTuple_GetItem(said, i);
    plan->lengths = held(part[7]), plan->drawn = held(part[8]);
    plan->run = (rl_entry_point)PyLong_AsLongLong(part[0]);
    for (int i = 0; i < PyTuple_Size(part[1]); i++) plan->sizes[i] = int_at(part[1], i);
    bool fine = true;
    for (; fine && plan->inputs < count; plan->inputs++) {
        fine = look_at(&plan->looks[plan->inputs], arrays[plan->inputs]);
        if (plan->looks[plan->inputs].dtype) Py_IncRef(plan->looks[plan->inputs].dtype);
    }
    for (; plan->buffers < PyTuple_Size(part[2]); plan->buffers++) {
        rl_object *item = PyTuple_GetItem(part[2], plan->buffers);
        rl_buffer *b = &plan->buffer[plan->buffers];
        b->kind = int_at(item, 0), b->index = int_at(item, 1), b->bytes = int_at(item, 2);
        if (b->kind == SCRATCH_MEMORY) plan->scratch += b->bytes;
    }
    for (; fine && plan->results < PyTuple_Size(part[3]); plan->results++) {
        fine = look_at(&plan->made[plan->results], PyTuple_GetItem(part[3], plan->results)) && plan->made[plan->results].ordered;
        if (plan->made[plan->results].dtype) Py_IncRef(plan->made[plan->results].dtype);
    }
    for (; plan->deciding < PyTuple_Size(part[4]); plan->deciding++) {
        plan->names[plan->deciding] = held(PyTuple_GetItem(part[4], plan->deciding));
        plan->values[plan->deciding] = held(PyDict_GetItemWithError(attrs, plan->names[plan->deciding]));
    }
    for (; plan->numbers < PyTuple_Size(part[5]); plan->numbers++)
        plan->number_names[plan->numbers] = held(PyTuple_GetItem(part[5], plan->numbers));
    plan->single = part[6] == &_Py_TrueStruct;
    if (!fine || PyErr_Occurred()) { PyErr_Clear(); release(plan); p->hopeless = p->missed; return; }
    int next = p->next;
    p->next = (next + 1) % MOST_PLANS;
    replace(&p->plans[next], plan);
}

/* Stands for the shapes of a call: two calls in a row that look alike are worth a plan, a new shape every time is not. */
static uint64_t shapes_seen(rl_object *const *arrays, int count) {
    uint64_t seen = count + 1;
    for (int i = 0; i < count; i++) {
        if (TYPE(arrays[i]) != py.ndarray) continue;
        const rl_ndarray *a = RL_BODY(rl_ndarray, arrays[i]);
        seen = seen * 1000003 + a->nd + (uint64_t)a->descr;
        for (int d = 0; d < a->nd; d++) seen = seen * 1000003 + a->dims[d];
    }
    return seen;
}

/* `Planned.run` on arrays and a dict.  NULL with an error. */
static rl_object *planned(rl_planned *p, rl_object *const *arrays, int count, rl_object *attrs) {
    bool recording = PyDict_GetItemWithError(py.plans, s_recorder) != NONE_OBJECT;
    rl_plan *plan = recording ? 0 : find_plan(p, arrays, count, attrs);
    rl_object *out = plan ? run_plan(plan, arrays, attrs) : 0, *given = out ? 0 : tuple(count, arrays);
    release(plan);
    if (out || !given) return out;
    out = PyObject_Call(p->twin, given, attrs);
    uint64_t seen = shapes_seen(arrays, count);
    bool again = seen == p->missed && seen != p->hopeless;
    p->missed = seen;
    if (out && again && !plan && !recording) {
        rl_object *args[4] = {p->planned, given, attrs, out}, *said = PyObject_Vectorcall(py.describe, args, 4, 0);
        if (said) keep_plan(p, arrays, count, attrs, said);
        else PyErr_Clear();
        drop(said);
    }
    Py_DecRef(given);
    return out;
}

static rl_object *planned_call(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    return PyObject_Vectorcall(((rl_planned *)self)->twin, args, flags, keywords); /* by Python, which `planned` is for */
}

/* ------------------------------------------------------------------------------------------------- the general path */

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
