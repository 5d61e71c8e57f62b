/* The kernels of move.c for one type of elements: include with T and OF defined. */

/* Single elements of rows: to[i] = from[index[i]].  Returns the first i that is wrong, or `count`. */
INLINE long OF(take)(const T *from, const int64_t *index, T *to, long count, long n, bool wrap) {
    long wrong = count;
    for (long i = count - 1; i >= 0; i--) {
        int64_t at = READ_ONCE(index[i]);
        at += wrap && at < 0 ? n : 0;
        bool fine = (uint64_t)at < (uint64_t)n;
        if (fine) to[i] = from[at];
        else wrong = i;
    }
    return wrong;
}

INLINE void OF(cat)(const T *const *xs, const int64_t *sizes, T *y, long many, long outer, long width) {
    for (long i = 0, at = 0, w; i < many; i++, at += w) {
        w = sizes[i] / outer < width - at ? sizes[i] / outer : width - at;
        for (long o = 0; o < outer && w; o++) memcpy(y + o * width + at, xs[i] + o * w, w * sizeof *y);
    }
}

INLINE long OF(index_select)(const T *x, const int64_t *index, T *y, long outer, long n, long count, long inner, long wrap) {
    long wrong = count;
    if (inner == 1 && outer) {
        PARALLEL_FOR_FIRST(outer * count, wrong)
        for (long o = 0; o < outer; o++) {
            long found = OF(take)(x + o * n, index, y + o * count, count, n, wrap);
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
            const T *from = x + (o * n + row) * inner;
            T *to = y + (o * count + i) * inner;
            SIMD for (long j = 0; j < inner; j++) to[j] = from[j];
        }
    }
    return wrong < count ? 1 + wrong : 0;
}

INLINE long OF(gather)(const T *x, const int64_t *index, T *y, long outer, long n, long count, long inner,
    long outers, long wide) {
    long step = inner > wide ? inner : wide;
    long wrong = outer * count * inner;
    if (inner == 1 && step == 1) {
        PARALLEL_FOR_FIRST(outer * count, wrong)
        for (long o = 0; o < outer; o++) {
            long found = OF(take)(x + o * n, index + o * count, y + o * count, count, n, false);
            wrong = found < count && o * count + found < wrong ? o * count + found : wrong;
        }
        return wrong < outer * count ? 1 + wrong : 0;
    }
    EACH_PLACE(wrong)
    for (long o = 0; o < outer; o++) for (long j = 0; j < count; j++) {
        const T *from = x + o * n * step;
        for (long i = 0, place = (o * count + j) * inner; i < inner; i++, place++) {
            long at = READ_ONCE(index[place]);
            if (at < 0 || at >= n) wrong = place < wrong ? place : wrong;
            else y[place] = from[at * step + i];
        }
    }
    return wrong < outer * count * inner ? 1 + wrong : 0;
}

INLINE long OF(gather_backward)(const T *g, const int64_t *index, T *dx, long outer, long n, long count, long inner,
    long outers, long wide) {
    long step = inner > wide ? inner : wide;
    for (long o = outer; o < outers; o++) memset(dx + o * n * step, 0, n * step * sizeof *dx);
    long wrong = outer * count * inner;
    PARALLEL_FOR_FIRST(outer * count * inner, wrong)
    for (long o = 0; o < outer; o++) {
        T *to = dx + o * n * step;
        memset(to, 0, n * step * sizeof *to);
        for (long place = o * count * inner, j = 0; j < count; j++) for (long i = 0; i < inner; i++, place++) {
            long at = READ_ONCE(index[place]);
            if (at < 0 || at >= n) wrong = place < wrong ? place : wrong;
            else to[at * step + i] += g[place];
        }
    }
    return wrong < outer * count * inner ? 1 + wrong : 0;
}
