/* The Python side of a kernel library; included after the kernels, before their generated wrappers.  See binding.py. */
#ifndef BINDING_H
#define BINDING_H

typedef struct rl_object rl_object;
typedef rl_object *(*rl_fastcall)(rl_object *, rl_object *const *, intptr_t);
typedef struct { const char *name; rl_fastcall function; int flags; const char *doc; } rl_method;
enum { RL_FASTCALL = 0x0080 };
typedef struct { const char *name; long (*run)(void *const *buffers, const int64_t *sizes, const double *numbers); } rl_kernel;

/* CPython's stable ABI. */
extern rl_object _Py_NoneStruct, _Py_TrueStruct, _Py_FalseStruct;
extern rl_object *PyExc_TypeError, *PyExc_ValueError;
extern rl_object *PyErr_Format(rl_object *, const char *, ...);
extern rl_object *PyErr_Occurred(void);
extern rl_object *PyErr_NoMemory(void);
extern rl_object *PyList_GetItem(rl_object *, intptr_t);
extern rl_object *PyLong_FromLongLong(long long);
extern rl_object *PyFloat_FromDouble(double);
extern intptr_t PyList_Size(rl_object *);
extern long long PyLong_AsLongLong(rl_object *);
extern double PyFloat_AsDouble(rl_object *);
extern void Py_IncRef(rl_object *);
extern void *PyEval_SaveThread(void);
extern void PyEval_RestoreThread(void *);

/*
 * The public heads of NumPy's array and descriptor objects; RL_HEAD is the size of a bare Python object, its type comes
 * last.
 */
typedef struct { char *data; int nd; intptr_t *dims, *strides; rl_object *base, *descr; int flags; } rl_ndarray;
typedef struct { rl_object *typeobj; char kind, type, byteorder; } rl_descr;
#define RL_BODY(type, object) ((const type *)((const char *)(object) + RL_HEAD))
#define RL_TYPE(object) (*(const int64_t *)((const char *)(object) + RL_HEAD - sizeof(void *)))
enum { RL_OPTIONAL = 1, RL_STRIDED = 2, RL_WRITTEN = 4, RL_IMAGE = 8, RL_CODE_SHIFT = 8 };
/* The size of an element, from its type code. */
#define RL_ITEM_SIZE(wanted) ((wanted) >> RL_CODE_SHIFT == 'f' || (wanted) >> RL_CODE_SHIFT == 'i' ? 4 : \
    (wanted) >> RL_CODE_SHIFT == 'B' || (wanted) >> RL_CODE_SHIFT == '?' ? 1 : 8)
enum { NPY_C_CONTIGUOUS = 0x1, NPY_ALIGNED = 0x100, NPY_WRITEABLE = 0x400 };

static rl_object *rl_none(void) { Py_IncRef(&_Py_NoneStruct); return &_Py_NoneStruct; }

static rl_object *rl_wrong_count(const char *name, long wanted, long got) {
    return PyErr_Format(PyExc_TypeError, "%s: takes %ld arguments, got %ld", name, wanted, got);
}

/* Whether the channels of (N, C, ...) lie innermost: contiguous as (N, ..., C), or no elements at all. */
static bool rl_channels_inside(const rl_ndarray *array, intptr_t size) {
    intptr_t step = size;
    for (int d = 0; d < array->nd; d++)
        if (array->dims[d] == 0) return true;
    for (int i = 0; i < array->nd; i++) {
        int d = i == 0 ? 1 : i == array->nd - 1 ? 0 : array->nd - i;
        if (array->dims[d] != 1 && array->strides[d] != step) return false;
        step *= array->dims[d];
    }
    return true;
}

static bool rl_is_array(const rl_object *object, const char *codes, int wanted) {
    if (RL_TYPE(object) != rl_state[3]) return false;
    const rl_ndarray *array = RL_BODY(rl_ndarray, object);
    const rl_descr *descr = RL_BODY(rl_descr, array->descr);
    bool image = wanted & RL_IMAGE && array->nd > 2;
    int flags = NPY_ALIGNED | (wanted & RL_STRIDED || image ? 0 : NPY_C_CONTIGUOUS) |
        (wanted & RL_WRITTEN ? NPY_WRITEABLE : 0);
    return strchr(codes, descr->type) && descr->byteorder != '>' && (array->flags & flags) == flags &&
        (!image || rl_channels_inside(array, RL_ITEM_SIZE(*codes << RL_CODE_SHIFT)));
}

static rl_object *rl_bool(bool yes) {
    rl_object *answer = yes ? &_Py_TrueStruct : &_Py_FalseStruct;
    Py_IncRef(answer);
    return answer;
}

static bool rl_fits(const rl_object *object, const char *codes, int wanted) {
    return object == &_Py_NoneStruct ? wanted & RL_OPTIONAL : rl_is_array(object, codes, wanted);
}

/* Arithmetic on lengths: what would wrap round stays at the largest number, which no array has. */
static int64_t rl_mul(int64_t a, int64_t b) {
    int64_t r;
    return __builtin_mul_overflow(a, b, &r) ? INT64_MAX : r;
}
static int64_t rl_add(int64_t a, int64_t b) {
    int64_t r;
    return __builtin_add_overflow(a, b, &r) ? INT64_MAX : r;
}
static int64_t rl_sub(int64_t a, int64_t b) { return a == INT64_MAX ? a : a > b ? a - b : 0; }
static int64_t rl_div(int64_t a, int64_t b) { return a == INT64_MAX ? a : b ? a / b : 0; }
static int64_t rl_ceil(int64_t a, int64_t b) { return a == INT64_MAX ? a : b ? a / b + (a % b != 0) : 0; }
static int64_t rl_least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t rl_most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Memory to work in, for one call. */
static void *rl_scratch(int64_t count, size_t size) {
    void *made = count > INT64_MAX / 64 ? 0 : aligned_alloc(64, (count * size / 64 + 1) * 64);
    if (!made) PyErr_NoMemory();
    return made;
}

/* How many elements an array has; with strides, how many it spans: -1 where one is negative or cuts an element. */
static int64_t rl_length(const rl_ndarray *array, int wanted) {
    int64_t n = 1, span = 1, size = 0;
    for (int d = 0; d < array->nd; d++) n *= array->dims[d];
    if (!(wanted & RL_STRIDED) || n == 0) return n;
    size = RL_ITEM_SIZE(wanted);
    for (int d = 0; d < array->nd; d++) {
        if (array->dims[d] == 1) continue;
        if (array->strides[d] < 0 || array->strides[d] % size) return -1;
        span += (array->dims[d] - 1) * (array->strides[d] / size);
    }
    return span;
}

static void rl_wrong_length(const char *name, const char *argument, int64_t want, int64_t got, int wanted) {
    if (got < 0)
        PyErr_Format(PyExc_ValueError, "%s: argument %s has a negative stride or one within an element", name, argument);
    else if (want == INT64_MAX)
        PyErr_Format(PyExc_ValueError, "%s: argument %s has %lld elements, its sizes ask for more than 2^63", name,
            argument, (long long)got);
    else
        PyErr_Format(PyExc_ValueError, "%s: argument %s %s %lld elements, its sizes ask for %s%lld", name, argument,
            wanted & RL_STRIDED ? "spans" : "has", (long long)got, wanted & RL_STRIDED ? "at least " : "",
            (long long)want);
}

static void rl_too_small(const char *name, const char *argument, long least, long got) {
    if (!PyErr_Occurred()) /* a number that is none became -1 */
        PyErr_Format(PyExc_ValueError, "%s: argument %s must be at least %ld, got %ld", name, argument, least, got);
}

static void *rl_array(rl_object *object, const char *codes, int wanted, int64_t want, const char *name,
    const char *argument) {
    if (object == &_Py_NoneStruct && wanted & RL_OPTIONAL) return 0;
    if (!rl_is_array(object, codes, wanted)) {
        PyErr_Format(PyExc_TypeError, "%s: argument %s: need a%s%s array of type code '%s', got %R", name, argument,
            wanted & RL_WRITTEN ? " writable" : "",
            wanted & RL_STRIDED ? " strided" : wanted & RL_IMAGE ? " channels-last" : " C-contiguous", codes, object);
        return 0;
    }
    const rl_ndarray *array = RL_BODY(rl_ndarray, object);
    int64_t got = rl_length(array, wanted | *codes << RL_CODE_SHIFT);
    if (wanted & RL_STRIDED ? got >= want && got >= 0 : got == want) return array->data;
    rl_wrong_length(name, argument, want, got, wanted);
    return 0;
}

/* A fresh table of addresses, freed by the wrapper.  Without `lengths`, each array has one element. */
static void *rl_array_list(rl_object *list, const char *codes, int wanted, int64_t count, const int64_t *lengths,
    const char *name, const char *argument) {
    if (list == &_Py_NoneStruct && wanted & RL_OPTIONAL) return 0;
    intptr_t got = PyList_Size(list);
    if (got != count) {
        if (got < 0) PyErr_Format(PyExc_TypeError, "%s: argument %s: need a list of arrays, got %R", name, argument, list);
        else PyErr_Format(PyExc_ValueError, "%s: argument %s: a list of %lld arrays, need %lld", name, argument,
            (long long)got, (long long)count);
        return 0;
    }
    void **table = malloc((count + 1) * sizeof *table);
    if (!table) { PyErr_NoMemory(); return 0; }
    for (intptr_t j = 0; j < count; j++) {
        int64_t want = lengths ? lengths[j] : 1;
        table[j] = rl_array(PyList_GetItem(list, j), codes, wanted & ~RL_OPTIONAL, want, name, argument);
        if (!table[j] && PyErr_Occurred()) { free(table); return 0; }
    }
    return table;
}

/* Whether all arguments are C-contiguous float32 arrays, or None. */
static rl_object *rl_call_float32(rl_object *self, rl_object *const *args, intptr_t count) {
    rl_object *answer = &_Py_TrueStruct;
    for (intptr_t i = 0; i < count; i++)
        if (args[i] != &_Py_NoneStruct && !rl_is_array(args[i], "f", 0)) answer = &_Py_FalseStruct;
    Py_IncRef(answer);
    return answer;
}

static rl_object *rl_call_rl_address(rl_object *self, rl_object *const *args, intptr_t count) {
    if (count != 1) return rl_wrong_count("rl_address", 1, count);
    if (RL_TYPE(args[0]) != rl_state[3])
        return PyErr_Format(PyExc_TypeError, "rl_address: need an array, got %R", args[0]);
    return PyLong_FromLongLong((long long)RL_BODY(rl_ndarray, args[0])->data);
}

void rl_bind(const int64_t *state) { rl_state = state; }

#endif
