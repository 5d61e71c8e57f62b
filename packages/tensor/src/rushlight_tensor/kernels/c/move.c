/* Elements that are moved, not computed: joined, picked by index, chosen by condition.  Of any dtype of 4 or 8 bytes. */
#include "rushlight.h"

/* PARALLEL_FOR_FIRST of two loops, over `outer` and over the indices. */
#define EACH_PLACE(wrong) RL_PRAGMA(omp parallel for collapse(2) schedule(static) num_threads(rl_threads()) \
    if (outer * count * inner > 16384) reduction(min : wrong))

#define T uint32_t
#define OF(name) name##_32
#include "move_of.h"
#undef T
#undef OF
#define T uint64_t
#define OF(name) name##_64
#include "move_of.h"
#undef T
#undef OF
#define T float
#define OF(name) name##_float
#include "move_of.h"
#undef T
#undef OF
#define T double
#define OF(name) name##_double
#include "move_of.h"
#undef T
#undef OF

/* Arrays of (outer, as many as they have) side by side: y (outer, width). */
EXPORT void cat(LENGTH(many, sizes[i]) const uint32_t *const *xs, LENGTH(many) const int64_t *sizes,
    LENGTH(outer * width) uint32_t *y, long many, POSITIVE long outer, long width) {
    cat_32(xs, sizes, y, many, outer, width);
}

EXPORT void cat_8(LENGTH(many, sizes[i]) const uint64_t *const *xs, LENGTH(many) const int64_t *sizes,
    LENGTH(outer * width) uint64_t *y, long many, POSITIVE long outer, long width) {
    cat_64(xs, sizes, y, many, outer, width);
}

/* y[o, i] = x[o, index[i]], rows of `inner` elements; `wrap`: negative indices count from the end.  Returns 1 + the place of
   the first index that names nothing. */
EXPORT long index_select(LENGTH(outer * n * inner) const uint32_t *x, LENGTH(count) const int64_t *index,
    LENGTH(outer * count * inner) uint32_t *y, long outer, long n, long count, long inner, long wrap) {
    return index_select_32(x, index, y, outer, n, count, inner, wrap);
}

EXPORT long index_select_8(LENGTH(outer * n * inner) const uint64_t *x, LENGTH(count) const int64_t *index,
    LENGTH(outer * count * inner) uint64_t *y, long outer, long n, long count, long inner, long wrap) {
    return index_select_64(x, index, y, outer, n, count, inner, wrap);
}

/* y[o, j, i] = x[o, index[o, j, i], i], where x may have more rows and columns, `outers` and `wide`.  Returns as `index_select`
   does. */
EXPORT long gather(LENGTH(most(outer, outers) * n * most(inner, wide)) const uint32_t *x, LENGTH(outer * count * inner) const int64_t *index,
    LENGTH(outer * count * inner) uint32_t *y, long outer, long n, long count, long inner, long outers, long wide) {
    return gather_32(x, index, y, outer, n, count, inner, outers, wide);
}

EXPORT long gather_8(LENGTH(most(outer, outers) * n * most(inner, wide)) const uint64_t *x, LENGTH(outer * count * inner) const int64_t *index,
    LENGTH(outer * count * inner) uint64_t *y, long outer, long n, long count, long inner, long outers, long wide) {
    return gather_64(x, index, y, outer, n, count, inner, outers, wide);
}

/* dx[o, index[o, j, i], i] += g[o, j, i], from zero, in the order of j.  Returns as `index_select` does. */
EXPORT long gather_backward(LENGTH(outer * count * inner) const float *g, LENGTH(outer * count * inner) const int64_t *index,
    LENGTH(most(outer, outers) * n * most(inner, wide)) float *dx, long outer, long n, long count, long inner, long outers,
    long wide) {
    return gather_backward_float(g, index, dx, outer, n, count, inner, outers, wide);
}

EXPORT long gather_backward_f64(LENGTH(outer * count * inner) const double *g, LENGTH(outer * count * inner) const int64_t *index,
    LENGTH(most(outer, outers) * n * most(inner, wide)) double *dx, long outer, long n, long count, long inner, long outers,
    long wide) {
    return gather_backward_double(g, index, dx, outer, n, count, inner, outers, wide);
}

/* y = c ? a : b; an operand of which there is not one for `each` is a single element. */
#define CHOOSE(T) { \
    if (each_a && each_b) { PARALLEL_FOR(n) for (long i = 0; i < n; i++) y[i] = c[i] ? a[i] : b[i]; } \
    else if (each_a) { T v = *b; PARALLEL_FOR(n) for (long i = 0; i < n; i++) y[i] = c[i] ? a[i] : v; } \
    else if (each_b) { T v = *a; PARALLEL_FOR(n) for (long i = 0; i < n; i++) y[i] = c[i] ? v : b[i]; } \
    else { T v = *a, w = *b; PARALLEL_FOR(n) for (long i = 0; i < n; i++) y[i] = c[i] ? v : w; } \
}

EXPORT void where(LENGTH(n) const bool *c, LENGTH(pick(each_a, n, 1)) const uint32_t *a,
    LENGTH(pick(each_b, n, 1)) const uint32_t *b, LENGTH(n) uint32_t *y, long n, long each_a, long each_b) CHOOSE(uint32_t)

EXPORT void where_8(LENGTH(n) const bool *c, LENGTH(pick(each_a, n, 1)) const uint64_t *a,
    LENGTH(pick(each_b, n, 1)) const uint64_t *b, LENGTH(n) uint64_t *y, long n, long each_a, long each_b) CHOOSE(uint64_t)
