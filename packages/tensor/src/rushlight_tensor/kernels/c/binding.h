/* The Python side of a kernel library; included after the kernels, before their generated wrappers.  See binding.py. */

typedef struct rl_object rl_object;
typedef rl_object *(*rl_fastcall)(rl_object *, rl_object *const *, intptr_t);
typedef struct { const char *name; rl_fastcall function; int flags; const char *doc; } rl_method;
enum { RL_FASTCALL = 0x0080 };

/* CPython's stable ABI. */
extern rl_object _Py_NoneStruct, _Py_TrueStruct, _Py_FalseStruct;
extern rl_object *PyExc_TypeError;
extern rl_object *PyErr_Format(rl_object *, const char *, ...);
extern rl_object *PyErr_Occurred(void);
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
enum { RL_OPTIONAL = 1, RL_STRIDED = 2, RL_WRITTEN = 4 };
enum { NPY_C_CONTIGUOUS = 0x1, NPY_ALIGNED = 0x100, NPY_WRITEABLE = 0x400 };

static rl_object *rl_none(void) { Py_IncRef(&_Py_NoneStruct); return &_Py_NoneStruct; }

static rl_object *rl_wrong_count(const char *name, long wanted, long got) {
    return PyErr_Format(PyExc_TypeError, "%s: takes %ld arguments, got %ld", name, wanted, got);
}

static bool rl_is_array(const rl_object *object, const char *codes, int wanted) {
    if (RL_TYPE(object) != rl_state[3]) return false;
    const rl_ndarray *array = RL_BODY(rl_ndarray, object);
    const rl_descr *descr = RL_BODY(rl_descr, array->descr);
    int flags = NPY_ALIGNED | (wanted & RL_STRIDED ? 0 : NPY_C_CONTIGUOUS) | (wanted & RL_WRITTEN ? NPY_WRITEABLE : 0);
    return strchr(codes, descr->type) && descr->byteorder != '>' && (array->flags & flags) == flags;
}

static void *rl_array(rl_object *object, const char *codes, int wanted, const char *name, int i) {
    if (object == &_Py_NoneStruct && wanted & RL_OPTIONAL) return 0;
    if (rl_is_array(object, codes, wanted)) return RL_BODY(rl_ndarray, object)->data;
    PyErr_Format(PyExc_TypeError, "%s: argument %d: need a%s%s array of type code '%s', got %R", name, i,
                 wanted & RL_WRITTEN ? " writable" : "", wanted & RL_STRIDED ? " strided" : " C-contiguous", codes,
                     object);
    return 0;
}

/* A fresh table of addresses, freed by the wrapper. */
static void *rl_array_list(rl_object *list, const char *codes, int wanted, const char *name, int i) {
    intptr_t count = PyList_Size(list);
    if (count < 0) {
        PyErr_Format(PyExc_TypeError, "%s: argument %d: need a list of arrays, got %R", name, i, list);
        return 0;
    }
    void **table = malloc((count + 1) * sizeof *table);
    for (intptr_t j = 0; j < count; j++) table[j] = rl_array(PyList_GetItem(list, j), codes, wanted, name, i);
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
    return PyLong_FromLongLong((long long)RL_BODY(rl_ndarray, args[0])->data);
}

void rl_bind(const int64_t *state) { rl_state = state; }
