/* The texts of reduce.c for one type: T, with names that end as OF(name) says. */

INLINE bool OF(better)(T x, T than, bool least) { return (least ? x < than : x > than) | (x != x); } /* NaN wins */

/* ------------------------------------------------------------------------------------------------------------- sums */

/*
 * Sums are kept in double, and by halves: of blocks for which one addition after the other is few.  So they are NumPy's
 * pairwise ones or better.
 */
static double OF(row_sum)(const T *x, long n) {
    if (n > SUM_BLOCK) {
        long half = (n / SUM_BLOCK + 1) / 2 * SUM_BLOCK;
        return OF(row_sum)(x, half) + OF(row_sum)(x + half, n - half);
    }
    double sums[LANES] = {0};
    if (n < 8) {
        for (long i = 0; i < n; i++) sums[0] += x[i];
        return sums[0];
    }
    long whole = n / LANES * LANES;
    for (long i = 0; i < whole; i += LANES) SIMD for (int l = 0; l < LANES; l++) sums[l] += x[i + l];
    for (long i = whole; i < n; i++) sums[i - whole] += x[i];
    for (int w = LANES / 2; w; w /= 2) for (int l = 0; l < w; l++) sums[l] += sums[l + w];
    return sums[0];
}

INLINE void OF(add_rows)(const T *x, long n, long step, int w, double *sums) {
    for (int k = 0; k < w; k++) sums[k] = 0;
    for (long j = 0; j < n; j++) SIMD for (int k = 0; k < w; k++) sums[k] += x[j * step + k];
}

/* Of `w` columns. */
static void OF(column_sums)(const T *x, long n, long step, int w, double *sums) {
    if (n > SUM_ROWS) {
        long half = (n / SUM_ROWS + 1) / 2 * SUM_ROWS;
        double others[TILE];
        OF(column_sums)(x, half, step, w, sums);
        OF(column_sums)(x + half * step, n - half, step, w, others);
        for (int k = 0; k < w; k++) sums[k] += others[k];
    } else if (w == TILE) OF(add_rows)(x, n, step, TILE, sums);
    else OF(add_rows)(x, n, step, w, sums);
}

INLINE void OF(sum_tile)(const rl_levels *l, const T *x, T *y, double *work, long task) {
    const rl_tile t = tile_of(l, task);
    double sums[TILE], *part = work + t.piece * l->outer * l->inner + t.out;
    if (l->inner == 1) sums[0] = OF(row_sum)(x + t.in, t.n);
    else OF(column_sums)(x + t.in, t.n, l->inner, t.w, sums);
    for (int k = 0; k < t.w; k++) {
        if (l->pieces == 1) y[t.out + k] = (T)(sums[k] / l->by);
        else part[k] = sums[k];
    }
}

static void OF(sums)(const rl_levels *l, const T *x, T *y, double *work) {
    long outs = l->outer * l->inner;
    EACH(l->work, l->tasks, task, OF(sum_tile)(l, x, y, work, task))
    if (l->pieces == 1) return; /* none: an empty sum */
    EACH(l->pieces * outs, (outs + TILE - 1) / TILE, t, {
        double sums[TILE];
        int w = outs - t * TILE < TILE ? outs - t * TILE : TILE;
        column_sums_double(work + t * TILE, l->pieces, outs, w, sums);
        for (int k = 0; k < w; k++) y[t * TILE + k] = (T)(sums[k] / l->by);
    })
}

/* --------------------------------------------------------------------------------------------------------- extremes */

INLINE T OF(row_best)(const T *x, long n, bool least) {
    T best = least ? INFINITY : -INFINITY;
    int64_t unknown = 0;
    if (least) RL_PRAGMA(omp simd reduction(min : best) reduction(| : unknown))
        for (long i = 0; i < n; i++) best = x[i] < best ? x[i] : best, unknown |= x[i] != x[i];
    else RL_PRAGMA(omp simd reduction(max : best) reduction(| : unknown))
        for (long i = 0; i < n; i++) best = x[i] > best ? x[i] : best, unknown |= x[i] != x[i];
    return unknown ? NAN : best;
}

INLINE void OF(column_best)(const T *x, long n, long step, int w, bool least, T *best) {
    for (int k = 0; k < w; k++) best[k] = least ? INFINITY : -INFINITY;
    for (long j = 0; j < n; j++) SIMD for (int k = 0; k < w; k++) {
        T v = x[j * step + k];
        best[k] = OF(better)(v, best[k], least) ? v : best[k];
    }
}

INLINE void OF(best_tile)(const rl_levels *l, const T *x, T *y, T *work, bool least, long task) {
    const rl_tile t = tile_of(l, task);
    T *out = l->pieces == 1 ? y + t.out : work + t.piece * l->outer * l->inner + t.out, best[TILE];
    if (l->inner == 1) best[0] = OF(row_best)(x + t.in, t.n, least);
    else if (t.w == TILE) OF(column_best)(x + t.in, t.n, l->inner, TILE, least, best);
    else OF(column_best)(x + t.in, t.n, l->inner, t.w, least, best);
    for (int k = 0; k < t.w; k++) out[k] = best[k];
}

INLINE void OF(bests)(const rl_levels *l, const T *x, T *y, T *work, bool least) {
    long outs = l->outer * l->inner;
    EACH(l->work, l->tasks, task, OF(best_tile)(l, x, y, work, least, task))
    if (l->pieces == 1) return;
    EACH(l->pieces * outs, (outs + TILE - 1) / TILE, t, {
        T best[TILE];
        int w = outs - t * TILE < TILE ? outs - t * TILE : TILE;
        OF(column_best)(work + t * TILE, l->pieces, outs, w, least, best);
        for (int k = 0; k < w; k++) y[t * TILE + k] = best[k];
    })
}

/* Where the first of n elements stands that is `best`: it is among them, unless another thread writes meanwhile; then
 * any place will do that is inside. */
INLINE long OF(first)(const T *x, long n, T best) {
    long at = 0;
    if (best != best) while (at < n - 1 && x[at] == x[at]) at++;
    else while (at < n - 1 && x[at] != best) at++;
    return at;
}

static long OF(first_of)(const T *x, long n, T best) {
    long from = 0;
    for (; n - from >= TILE; from += TILE) {
        int found = 0;
        RL_PRAGMA(omp simd reduction(| : found))
        for (int l = 0; l < TILE; l++) found |= x[from + l] == best;
        if (found || best != best) break;
    }
    if (from == n) from -= TILE;
    return from + OF(first)(x + from, n - from, best);
}

/* The first of the best elements of n rows of `w` columns, and their values where somebody wants them. */
INLINE void OF(find_columns)(const T *x, long n, long step, int w, bool least, T *values, int64_t *indices) {
    T best[TILE];
    int64_t at[TILE];
    for (int k = 0; k < w; k++) best[k] = x[k], at[k] = 0;
    for (long j = 1; j < n; j++) SIMD for (int k = 0; k < w; k++) {
        T v = x[j * step + k];
        bool is = OF(better)(v, best[k], least) & (best[k] == best[k]);
        best[k] = is ? v : best[k], at[k] = is ? j : at[k];
    }
    for (int k = 0; k < w; k++) {
        indices[k] = at[k];
        if (values) values[k] = best[k];
    }
}

INLINE void OF(find_tile)(long outer, long n, long inner, const T *x, T *values, int64_t *indices, bool least, long task) {
    long tiles = (inner + TILE - 1) / TILE, from = task % tiles * TILE, out = task / tiles * inner + from;
    int w = inner - from < TILE ? inner - from : TILE;
    x += task / tiles * n * inner + from;
    if (inner > 1) { OF(find_columns)(x, n, inner, w, least, values ? values + out : 0, indices + out); return; }
    T best = OF(row_best)(x, n, least);
    long at = OF(first_of)(x, n, best);
    indices[out] = at;
    if (values) values[out] = x[at];
}

INLINE void OF(find)(long outer, long n, long inner, const T *x, T *values, int64_t *indices, bool least) {
    if (!n) return; /* refused before */
    EACH(outer * n * inner, outer * ((inner + TILE - 1) / TILE), task,
        OF(find_tile)(outer, n, inner, x, values, indices, least, task))
}

/* -------------------------------------------------------------------------------------------------------- gradients */

/* y (before, outer, n, inner) = g (outer, inner) / by */
static void OF(spread)(const T *g, T *y, long before, long outer, long n, long inner, T by) {
    EACH(before * outer * n * inner, before * outer, task, {
        T *to = y + task * n * inner;
        const T *from = g + task % outer * inner;
        if (inner == 1) {
            T v = from[0] / by;
            SIMD for (long j = 0; j < n; j++) to[j] = v;
        } else for (long j = 0; j < n; j++) SIMD for (long k = 0; k < inner; k++) to[j * inner + k] = from[k] / by;
    })
}
