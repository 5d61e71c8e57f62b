/* The accelerator, continued: `views.view_path`, and the functions that make most views. */
#ifndef ACCELERATOR_VIEWS_H
#define ACCELERATOR_VIEWS_H

extern rl_object *PyDict_New(void), PySlice_Type;
static int (*set_base)(rl_object *, rl_object *);

/* Where a view lies: what `_slice_kernel`, `_view_kernel` and `permute` make of an array. */
typedef struct { int nd; intptr_t dims[MOST_DIMS], strides[MOST_DIMS], offset; } rl_layout;
enum { AS_SLICE, AS_SHAPE, AS_PERMUTATION };

/* Reads an int that is exactly one; false for everything else. */
static bool exact_int(rl_object *object, intptr_t *value) {
    if (TYPE(object) != &PyLong_Type) return false;
    *value = PyLong_AsLongLong(object);
    if (*value == -1 && PyErr_Occurred()) { PyErr_Clear(); return false; }
    return true;
}

/* `slice.indices` of a step that is positive: the first, and how many. */
static bool cut(rl_object *at, intptr_t n, intptr_t *start, intptr_t *count, intptr_t *step) {
    rl_object *a = PyTuple_GetItem(at, 0), *b = PyTuple_GetItem(at, 1), *c = PyTuple_GetItem(at, 2);
    intptr_t stop = n;
    *start = 0, *step = 1;
    if ((a != NONE_OBJECT && !exact_int(a, start)) || (b != NONE_OBJECT && !exact_int(b, &stop)) ||
        (c != NONE_OBJECT && !exact_int(c, step)) || *step < 1) return false;
    if (*start < 0) *start = *start + n < 0 ? 0 : *start + n;
    if (stop < 0) stop = stop + n < 0 ? 0 : stop + n;
    if (stop > n) stop = n;
    *count = stop > *start ? (stop - *start - 1) / *step + 1 : 0;
    if (!*count) *start = 0, *step = 1;
    return true;
}

static bool sliced(const rl_ndarray *a, rl_object *at, rl_layout *to) {
    intptr_t entries = PyTuple_Size(at), i, d = 0;
    for (i = 0; i < entries; i++) {
        rl_object *e = PyTuple_GetItem(at, i);
        intptr_t index, step;
        if (to->nd >= MOST_DIMS) return false;
        if (e == NONE_OBJECT) { to->dims[to->nd] = 1, to->strides[to->nd++] = 0; continue; }
        if (d >= a->nd) return false;
        if (TYPE(e) == &PyTuple_Type) {
            if (PyTuple_Size(e) != 3 || !cut(e, a->dims[d], &index, &to->dims[to->nd], &step)) return false;
            if (__builtin_mul_overflow(a->strides[d], step, &to->strides[to->nd++])) return false;
        } else {
            if (!exact_int(e, &index) || index < -a->dims[d] || index >= a->dims[d]) return false;
            if (index < 0) index += a->dims[d];
        }
        to->offset += index * a->strides[d++];
    }
    for (; d < a->nd; d++) {
        if (to->nd >= MOST_DIMS) return false;
        to->dims[to->nd] = a->dims[d], to->strides[to->nd++] = a->strides[d];
    }
    return true;
}

static bool reshaped(const rl_ndarray *a, rl_object *shape, rl_layout *to) {
    intptr_t n = 1, step = 1, have = 1;
    if (!(a->flags & NPY_C_CONTIGUOUS) || PyTuple_Size(shape) > MOST_DIMS) return false;
    for (int d = 0; d < a->nd; d++) have *= a->dims[d];
    to->nd = PyTuple_Size(shape);
    for (int d = 0; d < to->nd; d++) {
        if (!exact_int(PyTuple_GetItem(shape, d), &to->dims[d]) || to->dims[d] < 1 || to->dims[d] > have) return false;
        if (__builtin_mul_overflow(n, to->dims[d], &n)) return false;
    }
    if (n != have) return false;
    for (int d = to->nd - 1; d >= 0; d--) to->strides[d] = step, step *= to->dims[d];
    return true; /* strides in elements, as yet */
}

static bool permuted(const rl_ndarray *a, rl_object *dims, rl_layout *to) {
    bool seen[MOST_DIMS] = {0};
    if (PyTuple_Size(dims) != a->nd || a->nd > MOST_DIMS) return false;
    for (; to->nd < a->nd; to->nd++) {
        intptr_t d;
        if (!exact_int(PyTuple_GetItem(dims, to->nd), &d) || d < -a->nd || d >= a->nd) return false;
        if (d < 0) d += a->nd;
        if (seen[d]) return false;
        seen[d] = true;
        to->dims[to->nd] = a->dims[d], to->strides[to->nd] = a->strides[d];
    }
    return true;
}

/* The bytes of an element of NumPy's numbers; 0 for everything else. */
static int64_t item_size(rl_object *dtype) {
    switch (RL_BODY(rl_descr, dtype)->type) {
        case '?': case 'b': case 'B': return 1;
        case 'e': case 'h': case 'H': return 2;
        case 'f': case 'i': case 'I': return 4;
        case 'd': case 'q': case 'Q': case 'F': return 8;
        case 'l': case 'L': return sizeof(long);
        default: return 0;
    }
}

/* The array of a view.  NULL, without error, where Python is to make it. */
static rl_object *view_array(rl_object *array, int how, rl_object *attribute, int64_t item_size) {
    const rl_ndarray *a = RL_BODY(rl_ndarray, array);
    rl_layout to = {0};
    if (TYPE(attribute) != &PyTuple_Type) return 0;
    if (!(how == AS_SLICE ? sliced : how == AS_SHAPE ? reshaped : permuted)(a, attribute, &to)) return 0;
    if (how == AS_SHAPE) for (int d = 0; d < to.nd; d++) to.strides[d] *= item_size;
    rl_object *out = new_array(py.ndarray, held(a->descr), to.nd, to.dims, to.strides, a->data + to.offset,
        a->flags & NPY_WRITEABLE, 0);
    if (out && set_base(out, held(array)) >= 0) return out;
    PyErr_Clear();
    drop(out);
    return 0;
}

/* What a view op is: `fast.saves` says that its node keeps the shape of the input, `fast.saved` how the view is made. */
static rl_object *view_of(rl_fast *f, rl_object *x, rl_object *name, rl_object *attribute) {
    rl_object *array = SLOT(x, at.t_array), *above = SLOT(x, at.t_view), *z, *t, *v, *n, *attrs, *items[2] = {0};
    if (!array || TYPE(array) != py.ndarray || intercepted() || !synced(x) || !grad_mode()) return 0;
    int64_t size = item_size(RL_BODY(rl_ndarray, array)->descr);
    if ((f->saved[0] == AS_SHAPE && !size) || !(z = view_array(array, f->saved[0], attribute, size))) return 0;
    bool grad = SLOT(x, at.t_requires) == &_Py_TrueStruct, fine = true;
    if (!(t = wrap(z, false))) return 0;
    if (!(attrs = PyDict_New()) || PyDict_SetItem(attrs, name, attribute) < 0) goto failed;
    if (!(v = PyType_GenericAlloc(py.view, 0))) goto failed;
    bool first = above == NONE_OBJECT;
    rl_object *base = first ? x : SLOT(above, at.v_base), *root = first ? x : SLOT(above, at.v_root);
    SLOT(v, at.v_base) = held(base);
    SLOT(v, at.v_root) = held(root == NONE_OBJECT ? x : root);
    SLOT(v, at.v_version) = held(SLOT(base, at.t_version));
    SLOT(v, at.v_parent) = held(x);
    SLOT(v, at.v_op) = held(f->op);
    SLOT(v, at.v_attrs) = held(attrs);
    put(t, at.t_view, v);
    if (grad) {
        if (!(n = PyType_GenericAlloc(py.node, 0))) goto failed;
        rl_object *to = edge(x);
        items[0] = NONE_OBJECT;
        SLOT(n, at.n_edges) = tuple(1, &to);
        SLOT(n, at.n_versions) = tuple(f->saves, items);
        items[0] = f->saves ? PyObject_GetAttr(array, s_shape) : 0;
        SLOT(n, at.n_saved) = f->saves && !items[0] ? 0 : tuple(f->saves, items);
        SLOT(n, at.n_shape) = PyObject_GetAttr(z, s_shape);
        SLOT(n, at.n_op) = held(f->op);
        SLOT(n, at.n_attrs) = held(attrs);
        SLOT(n, at.n_hooks) = held(NONE_OBJECT);
        SLOT(n, at.n_stale) = held(&_Py_FalseStruct);
        fine = SLOT(n, at.n_edges) && SLOT(n, at.n_versions) && SLOT(n, at.n_saved) && SLOT(n, at.n_shape);
        drop(items[0]);
        put(t, at.t_node, n);
        put(t, at.t_requires, held(&_Py_TrueStruct));
    }
    if (fine) { Py_DecRef(attrs); return t; }
failed:
    drop(attrs), Py_DecRef(t);
    return 0;
}

/* Where the one attribute of a view op stands in its dict. */
INLINE rl_object *view_name(const rl_fast *f) { return f->saved[0] == AS_SLICE ? s_at : f->saved[0] == AS_SHAPE ? s_shape : s_dims; }

/* `fast` of `view_path`: (x, attrs). */
static rl_object *view_path(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    rl_fast *f = (rl_fast *)self;
    rl_object *name = view_name(f), *attribute, *t = 0;
    if ((flags << 1 >> 1) == 2 && !keywords && is_a(args[0], py.tensor) && TYPE(args[1]) == &PyDict_Type && (attribute = PyDict_GetItemWithError(args[1], name)) && PyDict_Size(args[1]) == 1)
        t = view_of(f, args[0], name, attribute);
    return t || PyErr_Occurred() ? t : PyObject_Vectorcall(f->twin, args, flags, keywords);
}

/* An entry of an index, as `_plain` takes it: an int, None, or the bounds of a slice.  NULL for everything else. */
static rl_object *plain_entry(rl_object *e) {
    rl_object *bounds[3] = {0}, *made = 0;
    intptr_t value;
    if (e == NONE_OBJECT || TYPE(e) == &PyLong_Type) return held(e);
    if (TYPE(e) != &PySlice_Type) return 0;
    bool fine = true;
    for (int i = 0; i < 3; i++) {
        bounds[i] = PyObject_GetAttr(e, s_bounds[i]);
        fine = fine && bounds[i] && (bounds[i] == NONE_OBJECT || (exact_int(bounds[i], &value) && (i < 2 || value > 0)));
    }
    if (fine) made = tuple(3, bounds);
    for (int i = 0; i < 3; i++) drop(bounds[i]);
    return made;
}

/* `_getitem`, of ints, slices and None. */
static rl_object *getitem(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    rl_fast *f = (rl_fast *)self;
    if ((flags << 1 >> 1) != 2 || keywords || !is_a(args[0], py.tensor))
        return PyObject_Vectorcall(f->twin, args, flags, keywords);
    rl_object *index = args[1], *entries[MOST_DIMS], *attribute = 0, *t = 0;
    bool many = TYPE(index) == &PyTuple_Type;
    intptr_t count = many ? PyTuple_Size(index) : 1, made = 0;
    if (count > MOST_DIMS) return PyObject_Vectorcall(f->twin, args, flags, keywords);
    for (; made < count; made++)
        if (!(entries[made] = plain_entry(many ? PyTuple_GetItem(index, made) : index))) break;
    if (made == count && (attribute = tuple(count, entries))) t = view_of(f, args[0], s_at, attribute);
    while (made) Py_DecRef(entries[--made]);
    drop(attribute);
    return t || PyErr_Occurred() ? t : PyObject_Vectorcall(f->twin, args, flags, keywords);
}

/* `resolve`: the sizes as a tuple, -1 worked out.  NULL, without error, where Python is to say what is wrong. */
static rl_object *resolved(rl_object *x, rl_object *const *sizes, intptr_t count) {
    rl_object *array = SLOT(x, at.t_array), *all[MOST_DIMS], *made;
    intptr_t known = 1, missing = -1, total = 1, size;
    if (!array || TYPE(array) != py.ndarray || count > MOST_DIMS) return 0;
    for (intptr_t i = 0; i < count; i++) {
        if (!exact_int(sizes[i], &size) || size < -1 || (size == -1 && missing >= 0)) return 0;
        if (size == -1) missing = i;
        else if (__builtin_mul_overflow(known, size, &known)) return 0;
        all[i] = sizes[i];
    }
    if (missing < 0) return tuple(count, all);
    const rl_ndarray *a = RL_BODY(rl_ndarray, array);
    for (int d = 0; d < a->nd; d++) total *= a->dims[d];
    if (!known || total % known || !(all[missing] = PyLong_FromLongLong(total / known))) return 0;
    made = tuple(count, all);
    Py_DecRef(all[missing]);
    return made;
}

/* `view` and `reshape`, to sizes that are given one by one. */
static rl_object *view(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    rl_fast *f = (rl_fast *)self;
    intptr_t count = (intptr_t)(flags << 1 >> 1) - 1;
    rl_object *attribute, *t = 0;
    if (count < 1 || keywords || TYPE(args[1]) != &PyLong_Type || !is_a(args[0], py.tensor))
        return PyObject_Vectorcall(f->twin, args, flags, keywords);
    if ((attribute = resolved(args[0], args + 1, count))) t = view_of(f, args[0], s_shape, attribute);
    drop(attribute);
    return t || PyErr_Occurred() ? t : PyObject_Vectorcall(f->twin, args, flags, keywords);
}

/* `transpose` of two dimensions. */
static rl_object *transpose(rl_object *self, rl_object *const *args, size_t flags, rl_object *keywords) {
    rl_fast *f = (rl_fast *)self;
    rl_object *array, *order[MOST_DIMS], *attribute = 0, *t = 0;
    intptr_t a, b, n;
    if ((flags << 1 >> 1) != 3 || keywords || !is_a(args[0], py.tensor) || !exact_int(args[1], &a) || !exact_int(args[2], &b) ||
        !(array = SLOT(args[0], at.t_array)) || TYPE(array) != py.ndarray) return PyObject_Vectorcall(f->twin, args, flags, keywords);
    n = RL_BODY(rl_ndarray, array)->nd;
    if (n <= MOST_DIMS && a >= -n && a < n && b >= -n && b < n) {
        a = a < 0 ? a + n : a, b = b < 0 ? b + n : b;
        for (intptr_t d = 0; d < n; d++) order[d] = PyLong_FromLongLong(d == a ? b : d == b ? a : d);
        attribute = tuple(n, order);
        for (intptr_t d = 0; d < n; d++) Py_DecRef(order[d]);
    }
    if (attribute) t = view_of(f, args[0], s_dims, attribute);
    drop(attribute);
    return t || PyErr_Occurred() ? t : PyObject_Vectorcall(f->twin, args, flags, keywords);
}

#endif
