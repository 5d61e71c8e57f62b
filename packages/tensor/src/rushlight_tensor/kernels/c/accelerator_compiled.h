/* The accelerator, continued: `Compiled.__call__` of the jit, and `Hit.meets` and `Hit.run` of its `hits.py`. */
#ifndef ACCELERATOR_COMPILED_H
#define ACCELERATOR_COMPILED_H

extern rl_object *PyType_FromSpecWithBases(rl_spec *, rl_object *), *PyObject_GenericGetDict(rl_object *, void *);
extern rl_object *PyFunction_GetCode(rl_object *), *PyFunction_GetDefaults(rl_object *), *PyFunction_GetKwDefaults(rl_object *);
extern rl_object *PyFunction_GetModule(rl_object *), *PyCell_Get(rl_object *), *PyList_New(intptr_t);
extern intptr_t PyDict_Size(rl_object *);
extern int PyDict_Next(rl_object *, intptr_t *, rl_object **, rl_object **), PyList_Append(rl_object *, rl_object *);
extern char *PyBytes_AsString(rl_object *);

/* What runs, what a read looks at, as in hits.py and reads.py. */
enum { HIT_FUNCTION, HIT_JOINT, HIT_KERNEL };
enum { READ_ITEM, READ_CELL, READ_CODE, READ_DEFAULTS, READ_KWDEFAULTS, READ_MODULE, READ_ATTRIBUTES, READ_CONTENTS, READ_ELEMENTS,
       READ_TENSOR };
/* The words of a hit (`Hit.words`): this, its arguments, its reads, its kernel.  Objects are addresses, which the hit keeps. */
typedef struct { int64_t arguments, reads, how, grad, inference; } rl_hit;
typedef struct { int64_t like, requires_grad, is_leaf, dtype, nd, size, layout[]; } rl_argument; /* layout: shape, then strides */
typedef struct { int64_t kind, owner, key, value; } rl_read;
typedef struct { int64_t entry, inputs, rows, columns, dtype, nd, rest[]; } rl_one_kernel; /* rest: inputs, then shape */
enum { MOST_HELD = 16 };
#define NEXT_ARGUMENT(a) ((const rl_argument *)((a)->layout + 2 * (a)->nd))
#define OBJECT(word) ((rl_object *)(intptr_t)(word))

static struct { int64_t fn, hits, last, small, h_joint, h_run, h_words; } compiled_at;
static rl_object *compiled_type, *compiled_twin, *s_find, *s_inference;
int64_t rl_accelerated = 1; /* 0: Python is to do all of it */
typedef struct { const char *low, *high; } rl_span;
/* The arguments of a call that is compared: their arrays, held, and where they lie. */
typedef struct { int64_t count; rl_object *const *args, *arrays[MOST_HELD]; rl_span spans[MOST_HELD]; } rl_given;

static bool has_attributes(rl_object *x) {
    rl_object *own = PyObject_GenericGetDict(x, 0);
    if (!own) { PyErr_Clear(); return true; }
    bool some = PyDict_Size(own) != 0;
    Py_DecRef(own);
    return some;
}

/* `memory.extent`. */
static rl_span extent(const rl_ndarray *a, int64_t size) {
    rl_span s = {a->data, a->data};
    for (int d = 0; d < a->nd; d++) {
        if (!a->dims[d]) return (rl_span){a->data, a->data};
        *(a->strides[d] < 0 ? &s.low : &s.high) += (a->dims[d] - 1) * a->strides[d];
    }
    s.high += size;
    return s;
}

/* Whether no argument lies in this stretch of memory. */
static bool lies_apart(rl_span s, const rl_given *g, int64_t count) {
    for (int64_t i = 0; i < count; i++) if (s.low < g->spans[i].high && g->spans[i].low < s.high) return false;
    return true;
}

/* Whether the arguments are of the kind of a hit and lie in memory of their own; what follows their words, else NULL.
   Their arrays are held from here on, for whatever is asked next may run Python's garbage collector, and that may run
   anything. */
static const rl_read *same_arguments(const rl_hit *h, rl_given *g) {
    rl_object *const *args = g->args;
    const rl_argument *a = (const rl_argument *)(h + 1);
    for (int64_t i = 0; i < h->arguments; i++, a = NEXT_ARGUMENT(a)) {
        rl_object *x = args[i], *array = TYPE(x) == py.tensor ? SLOT(x, at.t_array) : 0;
        if (!array || TYPE(array) != py.ndarray) return 0;
        const rl_ndarray *z = RL_BODY(rl_ndarray, g->arrays[i] = held(array));
        if (z->descr != OBJECT(a->dtype) || z->nd != a->nd || !(z->flags & NPY_ALIGNED)) return 0;
        for (int d = 0; d < z->nd; d++)
            if (z->dims[d] != a->layout[d] || z->strides[d] != a->layout[z->nd + d]) return 0;
        if ((SLOT(x, at.t_requires) == &_Py_TrueStruct) != a->requires_grad) return 0;
        if ((SLOT(x, at.t_node) == NONE_OBJECT) != a->is_leaf) return 0;
        int64_t like = 0;
        while (args[like] != x) like++;
        if (like != a->like) return 0;
        g->spans[i] = (rl_span){0, 0};
        if (like < i) continue;
        g->spans[i] = extent(z, a->size);
        if (!lies_apart(g->spans[i], g, i)) return 0;
    }
    for (int64_t i = 0; i < h->arguments; i++) if (has_attributes(args[i])) return 0;
    return (const rl_read *)a;
}

static bool same_contents(rl_object *dict, rl_object *was) {
    intptr_t at_dict = 0, i = 0;
    rl_object *key, *value;
    if (2 * PyDict_Size(dict) != PyTuple_Size(was)) return false;
    for (; PyDict_Next(dict, &at_dict, &key, &value); i += 2)
        if (PyTuple_GetItem(was, i) != key || PyTuple_GetItem(was, i + 1) != value) return false;
    return true;
}

static bool same_elements(rl_object *list, rl_object *was) {
    if (PyList_Size(list) != PyTuple_Size(was)) return false;
    for (intptr_t i = PyTuple_Size(was) - 1; i >= 0; i--)
        if (PyList_GetItem(list, i) != PyTuple_GetItem(was, i)) return false;
    return true;
}

/* A tensor that the function refers to: it has the same array, of the same kind, and no argument is it or lies in it. */
static bool same_tensor(rl_object *x, rl_object *array, const int64_t *kind, const rl_given *g) {
    if (SLOT(x, at.t_array) != array || (SLOT(x, at.t_requires) == &_Py_TrueStruct) != kind[0]) return false;
    const rl_ndarray *a = RL_BODY(rl_ndarray, array);
    if ((SLOT(x, at.t_node) == NONE_OBJECT) != kind[1] || a->nd != kind[3]) return false;
    for (int d = 0; d < a->nd; d++) if (a->dims[d] != kind[4 + d] || a->strides[d] != kind[4 + a->nd + d]) return false;
    for (int64_t i = 0; i < g->count; i++) if (g->args[i] == x) return false;
    return lies_apart(extent(a, kind[2]), g, g->count) && !has_attributes(x);
}

/* `reads.is_unchanged`. */
static bool is_unchanged(const rl_read *r, const rl_given *g) {
    rl_object *owner = OBJECT(r->owner), *key = OBJECT(r->key), *value = OBJECT(r->value), *now;
    switch (r->kind) {
    case READ_ITEM: now = PyDict_GetItemWithError(owner, key); return now == value && (now || !PyErr_Occurred());
    case READ_CODE: return PyFunction_GetCode(owner) == value;
    case READ_DEFAULTS: now = PyFunction_GetDefaults(owner); break;
    case READ_KWDEFAULTS: now = PyFunction_GetKwDefaults(owner); break;
    case READ_MODULE: now = PyFunction_GetModule(owner); break;
    case READ_CONTENTS: return same_contents(owner, value);
    case READ_ELEMENTS: return same_elements(owner, value);
    case READ_TENSOR: return same_tensor(owner, value, (const int64_t *)PyBytes_AsString(key), g);
    default:
        now = r->kind == READ_CELL ? PyCell_Get(owner) : PyObject_GenericGetDict(owner, 0);
        if (now) Py_DecRef(now); /* whose owner holds it */
        else PyErr_Clear();
        return now == value;
    }
    return now == value || (!now && value == NONE_OBJECT);
}

/* `Hit.meets`; what follows the reads, else NULL. */
static const int64_t *meets(const rl_hit *h, rl_given *g) {
    if (h->arguments != g->count) return 0;
    const rl_read *r = same_arguments(h, g), *end = r ? r + h->reads : 0;
    if (!r || mode(s_grad, true) != h->grad || mode(s_inference, false) != h->inference) return 0;
    for (; r < end; r++) if (!is_unchanged(r, g)) return 0;
    return (const int64_t *)end;
}

/* What `Plan.run` does with one fused kernel, and `Joint.results` without gradients. */
static rl_object *run_kernel(const rl_one_kernel *k, const rl_given *g) {
    rl_object *out = empty(OBJECT(k->dtype), k->nd, (const intptr_t *)k->rest + k->inputs);
    void *buffers[MOST_HELD + 1];
    if (!out) return 0;
    for (int64_t i = 0; i < k->inputs; i++) /* an argument, by its number, or an array of the hit's */
        buffers[i] = RL_BODY(rl_ndarray, k->rest[i] < g->count ? g->arrays[k->rest[i]] : OBJECT(k->rest[i]))->data;
    buffers[k->inputs] = RL_BODY(rl_ndarray, out)->data;
    void *state = k->rows * k->columns > BLOCK ? PyEval_SaveThread() : 0;
    ((long (*)(void *const *, const int64_t *, const double *))(intptr_t)k->entry)(buffers, &k->rows, 0);
    if (state) PyEval_RestoreThread(state);
    return wrap(out, false);
}

/* `Hit.__call__`; `rest` are the words of its kernel. */
static rl_object *run_hit(rl_object *self, rl_object *hit, const rl_hit *h, const int64_t *rest, const rl_given *g) {
    if (h->how == HIT_FUNCTION) return PyObject_Vectorcall(SLOT(self, compiled_at.fn), g->args, g->count, 0);
    if (SLOT(self, compiled_at.last) != SLOT(hit, compiled_at.h_joint))
        put(self, compiled_at.last, held(SLOT(hit, compiled_at.h_joint)));
    if (h->how == HIT_KERNEL) return run_kernel((const rl_one_kernel *)rest, g);
    rl_object *tensors = PyList_New(0), *out = 0;
    const rl_argument *a = (const rl_argument *)(h + 1);
    for (int64_t i = 0; tensors && i < h->arguments; i++, a = NEXT_ARGUMENT(a))
        if (a->like == i && PyList_Append(tensors, g->args[i])) { drop(tensors); tensors = 0; }
    if (tensors) out = PyObject_Vectorcall(SLOT(hit, compiled_at.h_run), &tensors, 1, 0);
    drop(tensors);
    return out;
}

/* Whether all are tensors on NumPy's arrays, of no more elements together than a replay pays for. */
static bool are_few(rl_object *small, rl_object *const *args, intptr_t count) {
    int64_t most = PyLong_AsLongLong(small), elements = 0;
    for (intptr_t i = 0; i < count; i++) {
        rl_object *array = TYPE(args[i]) == py.tensor ? SLOT(args[i], at.t_array) : 0;
        if (!array || TYPE(array) != py.ndarray) return false;
        const rl_ndarray *a = RL_BODY(rl_ndarray, array);
        int64_t n = 1;
        for (int d = 0; d < a->nd; d++) n *= a->dims[d];
        elements += n;
    }
    return elements <= most;
}

typedef struct { rl_vectorcall call; } rl_compiled; /* behind what the Python class has in its objects */

static rl_object *bound_call(rl_object *method, rl_object *const *args, size_t flags, rl_object *keywords) {
    rl_object *out = method ? PyObject_Vectorcall(method, args, flags, keywords) : 0;
    drop(method);
    return out;
}

/* `Compiled.__call__`. */
static rl_object *by_hits(rl_object *self, rl_object *hits, rl_object *few, rl_object *const *args, size_t flags, rl_object *keywords) {
    intptr_t count = flags << 1 >> 1, known = keywords ? 0 : PyTuple_Size(hits);
    for (intptr_t i = 0; i < known && !intercepted(); i++) {
        rl_object *hit = PyTuple_GetItem(hits, i);
        const rl_hit *h = (const rl_hit *)PyBytes_AsString(SLOT(hit, compiled_at.h_words));
        rl_given g = {count, args, {0}};
        const int64_t *rest = meets(h, &g);
        rl_object *out = rest ? run_hit(self, hit, h, rest, &g) : 0;
        for (int64_t j = 0; j < MOST_HELD && g.arrays[j]; j++) Py_DecRef(g.arrays[j]);
        if (rest) return out;
    }
    if (!keywords && are_few(few, args, count)) /* See Note [Small calls] */
        return PyObject_Vectorcall(SLOT(self, compiled_at.fn), args, flags, 0);
    return bound_call(PyObject_GetAttr(self, s_find), args, flags, keywords);
}

static rl_object *compiled_call(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    rl_object *hits = SLOT(self, compiled_at.hits), *few = SLOT(self, compiled_at.small);
    if (!rl_accelerated || !hits || !few)
        return bound_call(PyMethod_New(compiled_twin, self), args, flags, keywords);
    Py_IncRef(hits), Py_IncRef(few); /* a finaliser may run at any object made here, call this, and others take their place */
    rl_object *out = by_hits(self, hits, few, args, flags, keywords);
    Py_DecRef(hits), Py_DecRef(few);
    return out;
}

/* A class whose objects are those of `base`, of so many bytes, but called through C. */
rl_object *rl_compiled_type(rl_object *base, rl_object *twin, int64_t size, const int64_t *offsets) {
    static rl_member members[] = {{"__vectorcalloffset__", RL_SIZE, 0, RL_READONLY}, {0}};
    static rl_slot slots[] = {{RL_CALL, PyVectorcall_Call}, {RL_MEMBERS, members}, {0}};
    rl_spec spec = {"rushlight_jit.compiled.Compiled", size + sizeof(rl_compiled), 0, RL_DEFAULT | RL_HAS_VECTORCALL, slots};
    members[0].offset = size;
    memcpy(&compiled_at, offsets, sizeof compiled_at);
    compiled_twin = held(twin);
    s_find = PyUnicode_InternFromString("_find"), s_inference = PyUnicode_InternFromString("inference");
    compiled_type = s_find && s_inference ? PyType_FromSpecWithBases(&spec, base) : 0;
    return compiled_type ? held(compiled_type) : 0;
}

rl_object *rl_compiled_new(int64_t size) {
    rl_object *made = PyType_GenericAlloc(compiled_type, 0);
    if (made) *(rl_vectorcall *)((char *)made + size) = compiled_call;
    return made;
}
#endif
