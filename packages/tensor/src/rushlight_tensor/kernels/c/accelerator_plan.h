/* The accelerator, continued: the plans of `kernels/plan.py`. */
#ifndef ACCELERATOR_PLAN_H
#define ACCELERATOR_PLAN_H

extern rl_object *PyObject_Call(rl_object *, rl_object *, rl_object *);
extern int PyObject_RichCompareBool(rl_object *, rl_object *, int);
enum { EQUAL = 2, MOST_ARRAYS = 16, MOST_SIZES = 24, MOST_PLANS = 4, PLAN_DIMS = 6, SMALL_SCRATCH = 4096, RELEASE = 8192 };

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
#endif
