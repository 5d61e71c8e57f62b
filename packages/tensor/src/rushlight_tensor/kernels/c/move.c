/* Elements that are moved, not computed: joined, picked by index, chosen by condition.  Of any dtype of 4 or 8 bytes. */
#include "rushlight.h"

/* PARALLEL_FOR_FIRST of two loops, over `outer` and over the indices. */
#define EACH_PLACE(wrong) RL_PRAGMA(omp parallel for collapse(2) schedule(static) num_threads(rl_threads()) \
    if (outer * count * inner > 16384) reduction(min : wrong))

/* Single elements of rows: to[i] = from[index[i]].  Returns the first i that is wrong, or `count`. */
#define TAKE(T) \
INLINE long take_##T(const T *from, const int64_t *index, T *to, long count, long n, bool wrap) { \
    long wrong = count; \
    for (long i = count - 1; i >= 0; i--) { \
        int64_t at = READ_ONCE(index[i]); \
        at += wrap && at < 0 ? n : 0; \
        bool fine = (uint64_t)at < (uint64_t)n; \
        if (fine) to[i] = from[at]; \
        else wrong = i; \
    } \
    return wrong; \
}
TAKE(uint32_t)
TAKE(uint64_t)

/* Arrays of (outer, as many as they have) side by side: y (outer, width). */
EXPORT void cat(LENGTH(many, sizes[i]) const uint32_t *const *xs, LENGTH(many) const int64_t *sizes,
    LENGTH(outer * width) uint32_t *y, long many, POSITIVE long outer, long width) {
    for (long i = 0, at = 0, w; i < many; i++, at += w) {
        w = sizes[i] / outer < width - at ? sizes[i] / outer : width - at;
        for (long o = 0; o < outer && w; o++) memcpy(y + o * width + at, xs[i] + o * w, w * sizeof *y);
    }
}

EXPORT void cat_8(LENGTH(many, sizes[i]) const uint64_t *const *xs, LENGTH(many) const int64_t *sizes,
    LENGTH(outer * width) uint64_t *y, long many, POSITIVE long outer, long width) {
    for (long i = 0, at = 0, w; i < many; i++, at += w) {
        w = sizes[i] / outer < width - at ? sizes[i] / outer : width - at;
        for (long o = 0; o < outer && w; o++) memcpy(y + o * width + at, xs[i] + o * w, w * sizeof *y);
    }
}

/* y[o, i] = x[o, index[i]], rows of `inner` elements; `wrap`: negative indices count from the end.  Returns 1 + the place of
   the first index that names nothing. */
EXPORT long index_select(LENGTH(outer * n * inner) const uint32_t *x, LENGTH(count) const int64_t *index,
    LENGTH(outer * count * inner) uint32_t *y, long outer, long n, long count, long inner, long wrap) {
    long wrong = count;
    if (inner == 1 && outer) {
        PARALLEL_FOR_FIRST(outer * count, wrong)
        for (long o = 0; o < outer; o++) {
            long found = take_uint32_t(x + o * n, index, y + o * count, count, n, wrap);
            wrong = found < wrong ? found : wrong;
        }
        return wrong < count ? 1 + wrong : 0;
    }
    long all = outer ? outer : 1; /* indices are looked at in any case */
    EACH_PLACE(wrong)
    for (long o = 0; o < all; o++) for (long i = 0; i < count; i++) {
        long row = READ_ONCE(index[i]);
        if (row < 0 && wrap) row += n;
        if (row < 0 || row >= n) wrong = i < wrong ? i : wrong;
        else if (outer) {
            const uint32_t *from = x + (o * n + row) * inner;
            uint32_t *to = y + (o * count + i) * inner;
            SIMD for (long j = 0; j < inner; j++) to[j] = from[j];
        }
    }
    return wrong < count ? 1 + wrong : 0;
}

EXPORT long index_select_8(LENGTH(outer * n * inner) const uint64_t *x, LENGTH(count) const int64_t *index,
    LENGTH(outer * count * inner) uint64_t *y, long outer, long n, long count, long inner, long wrap) {
    long wrong = count;
    if (inner == 1 && outer) {
        PARALLEL_FOR_FIRST(outer * count, wrong)
        for (long o = 0; o < outer; o++) {
            long found = take_uint64_t(x + o * n, index, y + o * count, count, n, wrap);
            wrong = found < wrong ? found : wrong;
        }
        return wrong < count ? 1 + wrong : 0;
    }
    long all = outer ? outer : 1; /* indices are looked at in any case */
    EACH_PLACE(wrong)
    for (long o = 0; o < all; o++) for (long i = 0; i < count; i++) {
        long row = READ_ONCE(index[i]);
        if (row < 0 && wrap) row += n;
        if (row < 0 || row >= n) wrong = i < wrong ? i : wrong;
        else if (outer) {
            const uint64_t *from = x + (o * n + row) * inner;
            uint64_t *to = y + (o * count + i) * inner;
            SIMD for (long j = 0; j < inner; j++) to[j] = from[j];
        }
    }
    return wrong < count ? 1 + wrong : 0;
}

/* y[o, j, i] = x[o, index[o, j, i], i], where x may have more rows and columns, `outers` and `wide`.  Returns as `index_select`
   does. */
EXPORT long gather(LENGTH(most(outer, outers) * n * most(inner, wide)) const uint32_t *x, LENGTH(outer * count * inner) const int64_t *index,
    LENGTH(outer * count * inner) uint32_t *y, long outer, long n, long count, long inner, long outers, long wide) {
    long step = inner > wide ? inner : wide;
    long wrong = outer * count * inner;
    if (inner == 1 && step == 1) {
        PARALLEL_FOR_FIRST(outer * count, wrong)
        for (long o = 0; o < outer; o++) {
            long found = take_uint32_t(x + o * n, index + o * count, y + o * count, count, n, false);
            wrong = found < count && o * count + found < wrong ? o * count + found : wrong;
        }
        return wrong < outer * count ? 1 + wrong : 0;
    }
    EACH_PLACE(wrong)
    for (long o = 0; o < outer; o++) for (long j = 0; j < count; j++) {
        const uint32_t *from = x + o * n * step;
        for (long i = 0, place = (o * count + j) * inner; i < inner; i++, place++) {
            long at = READ_ONCE(index[place]);
            if (at < 0 || at >= n) wrong = place < wrong ? place : wrong;
            else y[place] = from[at * step + i];
        }
    }
    return wrong < outer * count * inner ? 1 + wrong : 0;
}

EXPORT long gather_8(LENGTH(most(outer, outers) * n * most(inner, wide)) const uint64_t *x, LENGTH(outer * count * inner) const int64_t *index,
    LENGTH(outer * count * inner) uint64_t *y, long outer, long n, long count, long inner, long outers, long wide) {
    long step = inner > wide ? inner : wide;
    long wrong = outer * count * inner;
    if (inner == 1 && step == 1) {
        PARALLEL_FOR_FIRST(outer * count, wrong)
        for (long o = 0; o < outer; o++) {
            long found = take_uint64_t(x + o * n, index + o * count, y + o * count, count, n, false);
            wrong = found < count && o * count + found < wrong ? o * count + found : wrong;
        }
        return wrong < outer * count ? 1 + wrong : 0;
    }
    EACH_PLACE(wrong)
    for (long o = 0; o < outer; o++) for (long j = 0; j < count; j++) {
        const uint64_t *from = x + o * n * step;
        for (long i = 0, place = (o * count + j) * inner; i < inner; i++, place++) {
            long at = READ_ONCE(index[place]);
            if (at < 0 || at >= n) wrong = place < wrong ? place : wrong;
            else y[place] = from[at * step + i];
        }
    }
    return wrong < outer * count * inner ? 1 + wrong : 0;
}

/* dx[o, index[o, j, i], i] += g[o, j, i], from zero, in the order of j.  Returns as `index_select` does. */
EXPORT long gather_backward(LENGTH(outer * count * inner) const float *g, LENGTH(outer * count * inner) const int64_t *index,
    LENGTH(most(outer, outers) * n * most(inner, wide)) float *dx, long outer, long n, long count, long inner, long outers,
    long wide) {
    long step = inner > wide ? inner : wide;
    for (long o = outer; o < outers; o++) memset(dx + o * n * step, 0, n * step * sizeof *dx);
    long wrong = outer * count * inner;
    PARALLEL_FOR_FIRST(outer * count * inner, wrong)
    for (long o = 0; o < outer; o++) {
        float *to = dx + o * n * step;
        memset(to, 0, n * step * sizeof *to);
        for (long place = o * count * inner, j = 0; j < count; j++) for (long i = 0; i < inner; i++, place++) {
            long at = READ_ONCE(index[place]);
            if (at < 0 || at >= n) wrong = place < wrong ? place : wrong;
            else to[at * step + i] += g[place];
        }
    }
    return wrong < outer * count * inner ? 1 + wrong : 0;
}

EXPORT long gather_backward_f64(LENGTH(outer * count * inner) const double *g, LENGTH(outer * count * inner) const int64_t *index,
    LENGTH(most(outer, outers) * n * most(inner, wide)) double *dx, long outer, long n, long count, long inner, long outers,
    long wide) {
    long step = inner > wide ? inner : wide;
    for (long o = outer; o < outers; o++) memset(dx + o * n * step, 0, n * step * sizeof *dx);
    long wrong = outer * count * inner;
    PARALLEL_FOR_FIRST(outer * count * inner, wrong)
    for (long o = 0; o < outer; o++) {
        double *to = dx + o * n * step;
        memset(to, 0, n * step * sizeof *to);
        for (long place = o * count * inner, j = 0; j < count; j++) for (long i = 0; i < inner; i++, place++) {
            long at = READ_ONCE(index[place]);
            if (at < 0 || at >= n) wrong = place < wrong ? place : wrong;
            else to[at * step + i] += g[place];
        }
    }
    return wrong < outer * count * inner ? 1 + wrong : 0;
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
