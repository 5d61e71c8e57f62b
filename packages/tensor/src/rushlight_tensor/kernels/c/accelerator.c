/*
 * The hot path: what `straight.py`, `graph.py` and the walk of `engine.py` do for plain tensors, with the interpreter
 * left out.  Every function has the name of its Python twin, which is the reference and takes over, by `twin`, whatever
 * is not plain: other dtypes, layouts and devices, interceptors, hooks, views whose base was written to, errors.
 * `kernels/accelerator.py` makes the loops from the records, fills in `rl`, and says when Python is to do all of it.
 */
#include <stddef.h>
#include "vmath.h"
#include "binding.h"

typedef rl_object *(*rl_vectorcall)(rl_object *, rl_object *const *, size_t, rl_object *);
typedef struct { int slot; void *function; } rl_slot;
typedef struct { const char *name; int size, item_size; unsigned flags; rl_slot *slots; } rl_spec;
typedef struct { const char *name; int type; intptr_t offset; int flags; const char *doc; } rl_member;
enum { RL_CALL = 50, RL_DEALLOC = 52, RL_DESCR_GET = 54, RL_MEMBERS = 72, RL_OBJECT = 16, RL_SIZE = 19, RL_READONLY = 1 };
enum { RL_NO_NEW = 1 << 7, RL_HAS_VECTORCALL = 1 << 11, RL_IS_METHOD = 1 << 17, RL_DEFAULT = 1 << 18 };

/* Of CPython, beside what binding.h names: all of it exported since 3.11. */
extern rl_object *PyType_FromSpec(rl_spec *), *PyType_GenericAlloc(rl_object *, intptr_t);
extern rl_object *PyObject_Vectorcall(rl_object *, rl_object *const *, size_t, rl_object *);
extern rl_object *PyVectorcall_Call(rl_object *, rl_object *, rl_object *);
extern rl_object *PyObject_CallMethodObjArgs(rl_object *, rl_object *, ...), *PyObject_GetAttr(rl_object *, rl_object *);
extern rl_object *PyMethod_New(rl_object *, rl_object *), *PyCFunction_NewEx(rl_method *, rl_object *, rl_object *);
extern rl_object *PyDict_GetItemWithError(rl_object *, rl_object *), *PyUnicode_InternFromString(const char *);
extern rl_object *PyTuple_New(intptr_t), *PyTuple_GetItem(rl_object *, intptr_t), *PySequence_GetItem(rl_object *, intptr_t);
extern rl_object *PyNumber_Add(rl_object *, rl_object *), *PyNumber_InPlaceAdd(rl_object *, rl_object *);
extern rl_object PyFloat_Type, PyLong_Type, PyDict_Type, PyList_Type, PyTuple_Type;
extern int PyType_IsSubtype(rl_object *, rl_object *), PyTuple_SetItem(rl_object *, intptr_t, rl_object *);
extern int PyDict_SetItem(rl_object *, rl_object *, rl_object *), PyDict_DelItem(rl_object *, rl_object *);
extern intptr_t PyTuple_Size(rl_object *), PySequence_Size(rl_object *);
extern void Py_DecRef(rl_object *), PyErr_Clear(void), PyObject_Free(void *), *PyThreadState_Get(void);
extern void *PyCapsule_GetPointer(rl_object *, const char *);
extern uint64_t PyThreadState_GetID(void *);

/* No contraction of products and sums: NumPy's bits. */
#ifdef __clang__
#define EXACT
#pragma clang fp contract(off)
#else
#define EXACT __attribute__((optimize("fp-contract=off")))
#endif

/* A loop over `n` elements: addresses of its operands, then of its result. */
typedef void (*rl_loop)(char *const *, intptr_t);
enum { F32, F64, DTYPES };
/* Which operand is a single element. */
enum { NONE, FIRST, SECOND, VARIANTS };
/* A rule of a gradient: it gives what it was given, computes, or is left to Python. */
enum { PYTHON, GIVEN, COMPUTED };
typedef struct {
    int inputs, to_bool;
    rl_loop loops[DTYPES][VARIANTS];
    int rules[2];
    rl_loop gradients[2][DTYPES][VARIANTS]; /* of each input; SECOND: the second saved thing is a number */
} rl_entry;
extern const rl_entry rl_entries[];
enum { RL_ADD = 0 }; /* the entry that sums */

/* Where the slots of our classes are, found by looking; in the order of accelerator.py. */
static struct {
    int64_t t_array, t_grad, t_hooks, t_node, t_requires, t_version, t_view;
    int64_t v_base, v_version, v_root, v_parent, v_op, v_attrs;
    int64_t n_op, n_attrs, n_edges, n_hooks, n_saved, n_shape, n_stale, n_versions;
    int64_t o_pull, o_cpu, o_fast, o_hot;
    int64_t p_fits;
} at;
/* Objects of Python that live as long as the process. */
static struct {
    rl_object *tensor, *node, *slot, *view, *ndarray, *dtypes[DTYPES], *boolean, *dispatch, *mode, *zero, *no_attrs, *capsule;
    rl_object *dispatch_module, *quiet, *plans, *describe, *record;
} py;
static rl_object *s_intercept, *s_grad, *s_dict, *s_detail, *s_arrive, *s_leaf, *s_tensor, *s_recorder, *s_shape, *s_dtype;
static rl_object *s_call, *s_explain, *s_several, *s_array, *s_needs, *s_lay, *s_at, *s_dims, *s_bounds[3];
static rl_object *fast_type, *pull_type, *planned_type, *record_type, *fused_type;
/* What an item of `save` refers to, as in graph.py. */
enum { SAVE_INPUT, SAVE_SHAPE, SAVE_DTYPE, SAVE_OUT };
static rl_object *(*new_array)(rl_object *, rl_object *, int, const intptr_t *, const intptr_t *, void *, int, rl_object *);

#define NONE_OBJECT (&_Py_NoneStruct)
#define TYPE(object) (*(rl_object **)((char *)(object) + RL_HEAD - sizeof(void *)))
#define SLOT(object, offset) (*(rl_object **)((char *)(object) + (offset)))
INLINE rl_object *held(rl_object *object) { Py_IncRef(object); return object; }
INLINE void drop(rl_object *object) { if (object) Py_DecRef(object); }
INLINE bool is_a(rl_object *object, rl_object *type) { return TYPE(object) == type || PyType_IsSubtype(TYPE(object), type); }

/* ------------------------------------------------------------------------------------------------------- arrays */

/* The head of a bare, native, C-contiguous array of float32 or float64; NULL for everything else. */
static const rl_ndarray *plain(rl_object *object, int *type) {
    if (!object || TYPE(object) != py.ndarray) return 0;
    const rl_ndarray *a = RL_BODY(rl_ndarray, object);
    if ((a->flags & (NPY_C_CONTIGUOUS | NPY_ALIGNED)) != (NPY_C_CONTIGUOUS | NPY_ALIGNED)) return 0;
    *type = a->descr == py.dtypes[F32] ? F32 : F64;
    return a->descr == py.dtypes[*type] ? a : 0;
}

INLINE bool same_shape(const rl_ndarray *x, const rl_ndarray *y) {
    if (x->nd != y->nd) return false;
    for (int d = 0; d < x->nd; d++) if (x->dims[d] != y->dims[d]) return false;
    return true;
}

static rl_object *empty(rl_object *dtype, int nd, const intptr_t *dims) {
    return new_array(py.ndarray, held(dtype), nd, dims, 0, 0, 0, 0);
}

enum { BLOCK = 4096, MOST_OPERANDS = 5, MOST_SAVED = 3, MOST_DIMS = 16 };

/* A loop over everything: on all threads where it pays, in blocks of a fixed size.  `step`: bytes, 0 where one element. */
static void run(rl_loop loop, char *const *p, const int *step, int operands, intptr_t n) {
    if (n <= BLOCK) { loop(p, n); return; }
    void *state = PyEval_SaveThread();
    PARALLEL_FOR(n)
    for (intptr_t from = 0; from < n; from += BLOCK) {
        char *q[MOST_OPERANDS];
        for (int i = 0; i < operands; i++) q[i] = p[i] + from * step[i];
        loop(q, from + BLOCK < n ? BLOCK : n - from);
    }
    PyEval_RestoreThread(state);
}

/* The loops of an entry on two arrays of different shapes, row by row.  Returns NULL, without error, if they do not fit. */
static rl_object *broadcast(const rl_entry *e, int type, const rl_ndarray *x, const rl_ndarray *y) {
    int nd = x->nd > y->nd ? x->nd : y->nd, size = type == F32 ? 4 : 8, out_size = e->to_bool ? 1 : size;
    intptr_t dims[MOST_DIMS], at_x[MOST_DIMS], at_y[MOST_DIMS], step_x = size, step_y = size, n = 1;
    if (nd > MOST_DIMS) return 0;
    for (int d = nd - 1; d >= 0; d--) {
        intptr_t a = d < nd - x->nd ? 1 : x->dims[d - nd + x->nd], b = d < nd - y->nd ? 1 : y->dims[d - nd + y->nd];
        if (a != b && a != 1 && b != 1) return 0;
        dims[d] = a == 1 ? b : a;
        at_x[d] = a == 1 ? 0 : step_x, at_y[d] = b == 1 ? 0 : step_y;
        step_x *= a, step_y *= b, n *= dims[d];
    }
    intptr_t inner = 1, index[MOST_DIMS] = {0};
    int outer = nd, row_x = 0, row_y = 0; /* the last dimensions that both read alike are one row */
    for (; outer > 0; outer--) {
        int d = outer - 1;
        if (dims[d] == 1) continue;
        if (inner > 1 && (row_x != (at_x[d] != 0) || row_y != (at_y[d] != 0))) break;
        row_x = at_x[d] != 0, row_y = at_y[d] != 0, inner *= dims[d];
    }
    rl_loop loop = e->loops[type][row_x && row_y ? NONE : row_y ? FIRST : SECOND];
    rl_object *out = loop ? empty(e->to_bool ? py.boolean : py.dtypes[type], nd, dims) : 0;
    if (!out || !n) return out;
    char *p[3] = {x->data, y->data, RL_BODY(rl_ndarray, out)->data};
    for (;;) {
        loop(p, inner);
        int d = outer - 1;
        for (; d >= 0; d--) {
            p[0] += at_x[d], p[1] += at_y[d];
            if (++index[d] < dims[d]) break;
            p[0] -= at_x[d] * dims[d], p[1] -= at_y[d] * dims[d], index[d] = 0;
        }
        if (d < 0) return out;
        p[2] += inner * out_size;
    }
}

/* The result of an entry; an operand that is NULL is `number`.  Returns NULL, without error, where Python is to say why. */
static rl_object *compute(const rl_entry *e, int type, rl_object *ox, rl_object *oy, const void *number) {
    const rl_ndarray *x = ox ? RL_BODY(rl_ndarray, ox) : 0, *y = oy ? RL_BODY(rl_ndarray, oy) : 0, *of = x ? x : y;
    rl_loop loop = e->loops[type][e->inputs == 1 || (x && y) ? NONE : x ? SECOND : FIRST];
    if (!loop) return 0;
    if (x && y && !same_shape(x, y)) return broadcast(e, type, x, y);
    rl_object *out = empty(e->to_bool ? py.boolean : py.dtypes[type], of->nd, of->dims);
    if (!out) return 0;
    char *result = RL_BODY(rl_ndarray, out)->data;
    int size = type == F32 ? 4 : 8, width = e->to_bool ? 1 : size;
    char *p[3] = {x ? x->data : (char *)number, e->inputs == 1 ? result : y ? y->data : (char *)number, result};
    int step[3] = {x ? size : 0, e->inputs == 1 ? width : y ? size : 0, width};
    intptr_t n = 1;
    for (int d = 0; d < of->nd; d++) n *= of->dims[d];
    Py_IncRef(ox ? ox : oy); /* another thread may take them from their tensors meanwhile */
    if (ox && oy) Py_IncRef(oy);
    run(loop, p, step, e->inputs + 1, n);
    drop(ox), drop(oy);
    return out;
}

/* A Python number in the arithmetic of `type`, as NumPy takes it; false where it is too large. */
static bool to_number(rl_object *object, int type, void *number) {
    double value = TYPE(object) == &PyLong_Type ? (double)PyLong_AsLongLong(object) : PyFloat_AsDouble(object);
    if (value == -1. && PyErr_Occurred()) { PyErr_Clear(); return false; }
    if (type == F32) *(float *)number = (float)value;
    else *(double *)number = value;
    return true;
}

INLINE bool is_number(rl_object *object) { return TYPE(object) == &PyFloat_Type || TYPE(object) == &PyLong_Type; }

/* ---------------------------------------------------------------------------------------------- tensors and nodes */

/* MODE.grad and the like, by name: this thread's dict of a threading.local is looked up once per thread state, whose number
   is never reused.  `otherwise`: what the class says. */
static bool mode(rl_object *name, bool otherwise) {
    static _Thread_local uint64_t known;
    static _Thread_local rl_object *values; /* borrowed: it lives as long as the thread state */
    uint64_t now = PyThreadState_GetID(PyThreadState_Get()) + 1;
    if (now != known) {
        rl_object *found = PyObject_GetAttr(py.mode, s_dict);
        if (!found) { PyErr_Clear(); return otherwise; }
        values = found, known = now;
        Py_DecRef(found);
    }
    rl_object *value = PyDict_GetItemWithError(values, name);
    return value ? value == &_Py_TrueStruct : otherwise;
}

static bool grad_mode(void) { return mode(s_grad, true); }

INLINE bool intercepted(void) { return PyDict_GetItemWithError(py.dispatch, s_intercept) != NONE_OBJECT; }

/* `wrap`, which takes over the array; with `_grad` and `_hooks` unset (Note [Unset slots]) unless it is a gradient. */
static rl_object *wrap(rl_object *array, bool gradient) {
    rl_object *t = array ? PyType_GenericAlloc(py.tensor, 0) : 0;
    if (!t) { drop(array); return 0; }
    SLOT(t, at.t_array) = array;
    SLOT(t, at.t_view) = held(NONE_OBJECT);
    SLOT(t, at.t_node) = held(NONE_OBJECT);
    SLOT(t, at.t_requires) = held(&_Py_FalseStruct);
    SLOT(t, at.t_version) = held(py.zero);
    if (gradient) SLOT(t, at.t_grad) = held(NONE_OBJECT), SLOT(t, at.t_hooks) = held(NONE_OBJECT);
    return t;
}

static void put(rl_object *object, int64_t offset, rl_object *value) {
    rl_object *old = SLOT(object, offset);
    SLOT(object, offset) = value;
    drop(old);
}

static rl_object *tuple(int n, rl_object *const *items) {
    for (int i = 0; i < n; i++) Py_IncRef(items[i]); /* first: making the tuple may run a finalizer */
    rl_object *t = PyTuple_New(n);
    for (int i = 0; i < n; i++) t ? (void)PyTuple_SetItem(t, i, items[i]) : Py_DecRef(items[i]);
    return t;
}

/* `graph.version`, borrowed. */
INLINE rl_object *version(rl_object *x) {
    rl_object *view = SLOT(x, at.t_view);
    return SLOT(view == NONE_OBJECT ? x : SLOT(view, at.v_base), at.t_version);
}

/* Whether a tensor is no view, or an open one that needs no `sync`. */
INLINE bool synced(rl_object *x) {
    rl_object *view = SLOT(x, at.t_view);
    return view == NONE_OBJECT || (TYPE(view) == py.view && SLOT(view, at.v_version) == version(x));
}

/* Whether a call is (node, gradient, edges), of so many inputs. */
INLINE bool is_rule_call(rl_object *const *args, size_t flags, rl_object *keywords, intptr_t inputs) {
    return (flags << 1 >> 1) == 3 && !keywords && is_a(args[0], py.node) && TYPE(args[2]) == &PyTuple_Type &&
        (inputs < 0 || PyTuple_Size(args[2]) == inputs);
}

INLINE rl_object *edge(rl_object *x) {
    if (SLOT(x, at.t_requires) != &_Py_TrueStruct) return NONE_OBJECT;
    return SLOT(x, at.t_node) == NONE_OBJECT ? x : SLOT(x, at.t_node);
}

/* A record's straight line: callable as a function and as a method. */
typedef struct {
    char head[RL_HEAD];
    rl_vectorcall call;
    rl_object *op, *twin, *name, *shape, *versions; /* shape and versions of the last result that was recorded */
    const rl_entry *entry;
    int reflected, differentiable, saves, saved[3]; /* of `saved`: 0, 1 an input, 2 the result */
} rl_fast;

static rl_object *shape_of(rl_fast *f, const rl_ndarray *z) {
    bool same = f->shape && PyTuple_Size(f->shape) == z->nd;
    for (int d = 0; same && d < z->nd; d++) same = PyLong_AsLongLong(PyTuple_GetItem(f->shape, d)) == z->dims[d];
    if (same) return held(f->shape);
    rl_object *shape = PyTuple_New(z->nd);
    for (int d = 0; shape && d < z->nd; d++) PyTuple_SetItem(shape, d, PyLong_FromLongLong(z->dims[d]));
    if (!shape) return 0;
    rl_object *old = f->shape;
    f->shape = held(shape);
    drop(old);
    return shape;
}

/* Mostly they are those of the last time: none, or 0. */
static rl_object *versions_of(rl_fast *f, rl_object *const *versions) {
    bool same = f->versions != 0;
    for (int i = 0; same && i < f->saves; i++) same = PyTuple_GetItem(f->versions, i) == versions[i];
    if (same) return held(f->versions);
    rl_object *made = tuple(f->saves, versions), *old = f->versions;
    f->versions = made ? held(made) : 0;
    drop(old);
    return made;
}

/* Make `t` the result of a new node.  Returns false with an error. */
static bool record(rl_fast *f, rl_object *t, int inputs, rl_object *const *xs) {
    rl_object *edges[2], *saved[3], *versions[3], *z = SLOT(t, at.t_array);
    rl_object *n = PyType_GenericAlloc(py.node, 0);
    if (!n) return false;
    for (int i = 0; i < f->saves; i++) {
        saved[i] = f->saved[i] == 2 ? z : xs[f->saved[i]];
        versions[i] = f->saved[i] == 2 || is_number(saved[i]) ? NONE_OBJECT : version(saved[i]);
    }
    SLOT(n, at.n_versions) = versions_of(f, versions);
    for (int i = 0; i < inputs; i++) edges[i] = is_number(xs[i]) ? NONE_OBJECT : edge(xs[i]);
    SLOT(n, at.n_edges) = tuple(inputs, edges);
    SLOT(n, at.n_op) = held(f->op);
    SLOT(n, at.n_attrs) = held(py.no_attrs);
    SLOT(n, at.n_hooks) = held(NONE_OBJECT);
    SLOT(n, at.n_stale) = held(&_Py_FalseStruct);
    SLOT(n, at.n_shape) = shape_of(f, RL_BODY(rl_ndarray, z));
    SLOT(n, at.n_saved) = tuple(f->saves, saved);
    if (!SLOT(n, at.n_shape) || !SLOT(n, at.n_edges) || !SLOT(n, at.n_saved) || !SLOT(n, at.n_versions)) {
        Py_DecRef(n);
        return false;
    }
    put(t, at.t_node, n);
    put(t, at.t_requires, held(&_Py_TrueStruct));
    return true;
}

/* `straight._binary` and `straight._unary`. */
static rl_object *fast(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    rl_fast *f = (rl_fast *)self;
    int inputs = f->entry->inputs, type = 0, other = 0;
    if ((intptr_t)(flags << 1 >> 1) != inputs || keywords) goto twin;
    rl_object *xs[2] = {args[0], args[inputs - 1]}, *arrays[2] = {0, 0}, *t;
    double number;
    if (f->reflected) xs[0] = args[1], xs[1] = args[0];
    bool grad = false, numbers = false;
    for (int i = 0; i < inputs; i++) {
        if (is_a(xs[i], py.tensor)) {
            int *which = arrays[0] ? &other : &type;
            if (!plain(SLOT(xs[i], at.t_array), which)) goto twin;
            arrays[i] = SLOT(xs[i], at.t_array);
            grad = grad || SLOT(xs[i], at.t_requires) == &_Py_TrueStruct;
        } else if (is_number(xs[i])) numbers = true;
        else goto twin;
    }
    if (inputs == 1 ? !arrays[0] : numbers ? !arrays[0] == !arrays[1] : type != other) goto twin;
    if (intercepted() || (numbers && !to_number(xs[arrays[0] ? 1 : 0], type, &number))) goto twin;
    grad = grad && f->differentiable && grad_mode();
    for (int i = 0; grad && i < inputs; i++) if (arrays[i] && !synced(xs[i])) goto twin;
    t = compute(f->entry, type, arrays[0], arrays[1], &number);
    if (!t) {
        if (PyErr_Occurred()) return 0;
        goto twin;
    }
    if ((t = wrap(t, false)) && grad && !record(f, t, inputs, xs)) { Py_DecRef(t); return 0; }
    return t;
twin:
    return PyObject_Vectorcall(f->twin, args, flags, keywords);
}

static rl_object *fast_get(rl_object *self, rl_object *object, rl_object *type) {
    return object && object != NONE_OBJECT ? PyMethod_New(self, object) : held(self);
}

#include "accelerator_plan.h"
#include "accelerator_call.h"
#include "accelerator_walk.h"
#include "accelerator_views.h"
#include "accelerator_compiled.h"

/* ------------------------------------------------------------------------------------------------------------ loading */

static void kept(rl_object *self) {} /* never freed: the process has as many of them as records */

#define MEMBERS(type) static rl_member type##_members[] = { \
    {"__vectorcalloffset__", RL_SIZE, offsetof(type, call), RL_READONLY}, \
    {"__wrapped__", RL_OBJECT, offsetof(type, twin), RL_READONLY}, {0}}; \
    static rl_slot type##_slots[] = {{RL_CALL, PyVectorcall_Call}, {RL_MEMBERS, type##_members}, {RL_DEALLOC, kept}, {0}}; \
    static rl_spec type##_spec = {"rushlight_tensor.accelerated_" #type, sizeof(type), 0, \
        RL_DEFAULT | RL_NO_NEW | RL_HAS_VECTORCALL, type##_slots}
MEMBERS(rl_pull);
MEMBERS(rl_planned);
MEMBERS(rl_record);
MEMBERS(rl_fused);
/* These two are methods as well. */
static rl_member fast_members[] = {
    {"__vectorcalloffset__", RL_SIZE, offsetof(rl_fast, call), RL_READONLY},
    {"__wrapped__", RL_OBJECT, offsetof(rl_fast, twin), RL_READONLY},
    {"__name__", RL_OBJECT, offsetof(rl_fast, name), RL_READONLY},
    {0},
};
static rl_slot fast_slots[] = {{RL_CALL, PyVectorcall_Call}, {RL_DEALLOC, kept}, {RL_DESCR_GET, fast_get},
    {RL_MEMBERS, fast_members}, {0}};
static rl_spec fast_spec = {"rushlight_tensor.accelerated", sizeof(rl_fast), 0,
    RL_DEFAULT | RL_NO_NEW | RL_HAS_VECTORCALL | RL_IS_METHOD, fast_slots};
static rl_method walk_method = {"walk", walk, RL_FASTCALL}, count_method = {"count", count, RL_FASTCALL};

/* Take the objects and offsets that accelerator.py found. */
rl_object *rl_start(rl_object *const *objects, const int64_t *offsets) {
    memcpy(&py, objects, sizeof py);
    memcpy(&at, offsets, sizeof at);
    for (size_t i = 0; i < sizeof py / sizeof *objects; i++) Py_IncRef(objects[i]);
    struct { rl_object **place; const char *text; } names[] = {{&s_intercept, "INTERCEPT"}, {&s_grad, "grad"},
        {&s_dict, "__dict__"}, {&s_detail, "_node_in_detail"}, {&s_arrive, "_arrive"}, {&s_leaf, "_finish_leaf"},
        {&s_tensor, "_tensor"}, {&s_recorder, "RECORDER"}, {&s_shape, "shape"}, {&s_dtype, "dtype"}, {&s_call, "general"}, {&s_explain, "explain"},
        {&s_several, "several"}, {&s_array, "_array"}, {&s_needs, "needs"}, {&s_lay, "lay"}, {&s_at, "at"}, {&s_dims, "dims"},
        {&s_bounds[0], "start"}, {&s_bounds[1], "stop"}, {&s_bounds[2], "step"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!(*names[i].place = PyUnicode_InternFromString(names[i].text))) return 0;
    struct { rl_object **place; rl_spec *spec; } types[] = {{&fast_type, &fast_spec}, {&pull_type, &rl_pull_spec},
        {&planned_type, &rl_planned_spec}, {&record_type, &rl_record_spec}, {&fused_type, &rl_fused_spec}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!(*types[i].place = PyType_FromSpec(types[i].spec))) return 0;
    void **numpy = PyCapsule_GetPointer(py.capsule, 0);
    if (!numpy) return 0;
    memcpy(&new_array, numpy + 94, sizeof new_array); /* PyArray_NewFromDescr, part of NumPy's ABI */
    memcpy(&set_base, numpy + 282, sizeof set_base); /* PyArray_SetBaseObject */
    rl_object *made[2] = {PyCFunction_NewEx(&walk_method, 0, 0), PyCFunction_NewEx(&count_method, 0, 0)};
    return made[0] && made[1] ? tuple(2, made) : 0;
}

#define MAKE(type, of) type *made = (type *)PyType_GenericAlloc(of, 0); if (!made) return 0

/* The straight line of an op, from its entry and its Python text. */
rl_object *rl_fast_path(rl_object *op, rl_object *twin, rl_object *name, int64_t entry, const int64_t *how) {
    MAKE(rl_fast, fast_type);
    made->call = fast, made->op = held(op), made->twin = held(twin), made->name = held(name), made->entry = &rl_entries[entry];
    made->reflected = how[0], made->differentiable = how[1], made->saves = how[2];
    for (int i = 0; i < made->saves; i++) made->saved[i] = how[3 + i];
    return (rl_object *)made;
}

/* Its rules, likewise. */
rl_object *rl_pull_bare(rl_object *twin, int64_t entry, int64_t saves) {
    MAKE(rl_pull, pull_type);
    made->call = pull, made->twin = held(twin), made->entry = &rl_entries[entry], made->saves = saves;
    return (rl_object *)made;
}

rl_object *rl_plans_of(rl_object *planned, rl_object *twin) {
    MAKE(rl_planned, planned_type);
    made->call = planned_call, made->planned = held(planned), made->twin = held(twin);
    return (rl_object *)made;
}

/* What `dispatch.call` and `Op.__call__` have to know of a record; `how`: arity, promotes, differentiable, aux, loops,
   order, and whether it draws numbers or writes into its inputs. */
rl_object *rl_record_of(rl_object *op, rl_object *twin, rl_object *const *parts, const int64_t *how, const char *refuses) {
    MAKE(rl_record, record_type);
    made->call = record_call, made->op = held(op), made->twin = held(twin);
    made->defaults = held(parts[0]), made->names = held(parts[1]), made->saves = held(parts[2]);
    made->numbers = held(parts[3]), made->entry = how[4] < 0 ? 0 : &rl_entries[how[4]];
    made->arity = how[0], made->promotes = how[1], made->differentiable = how[2], made->auxiliary = how[3], made->effects = how[6];
    made->order = how[5];
    strncpy(made->refuses, refuses, sizeof made->refuses - 1);
    return (rl_object *)made;
}

rl_object *rl_fused_pull(rl_object *twin, rl_object *record, rl_object *names) {
    MAKE(rl_fused, fused_type);
    made->call = fused_call, made->twin = held(twin), made->record = held(record), made->names = held(names);
    return (rl_object *)made;
}

rl_object *rl_op_call(rl_object *twin, rl_object *name) {
    MAKE(rl_fast, fast_type);
    made->call = op_call, made->twin = held(twin), made->name = held(name);
    return (rl_object *)made;
}

/* A view op and a function that makes such views; `how`: which of both texts, how the view is made, that its shape is saved. */
rl_object *rl_view_path(rl_object *op, rl_object *twin, rl_object *name, const int64_t *how) {
    static const rl_vectorcall texts[] = {view_path, getitem, view, transpose};
    MAKE(rl_fast, fast_type);
    made->call = texts[how[0]], made->op = held(op), made->twin = held(twin), made->name = held(name);
    made->saved[0] = how[1], made->saves = how[2];
    return (rl_object *)made;
}
