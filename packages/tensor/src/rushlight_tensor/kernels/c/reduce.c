/* Reductions of x (before, outer, n, inner) over `before` and `n`: sums, extremes, their places, and the way back. */
#include "rushlight.h"

/* Columns side by side; accumulators of a row; elements of a row, and rows, that are added one after the other. */
enum { TILE = 64, LANES = 32, SUM_BLOCK = 256, SUM_ROWS = 8 };

/* A loop over independent tasks; a small one is no parallel region at all. */
#define EACH(work, tasks, task, ...) { \
    long count_ = (tasks); \
    if ((work) > 16384 && count_ > 1) { PARALLEL_FOR(work) for (long task = 0; task < count_; task++) __VA_ARGS__; } \
    else for (long task = 0; task < count_; task++) __VA_ARGS__; \
}

/*
 * How the work is cut: `before` pieces, and of these pieces of `step` rows; each is reduced for itself, tile by tile,
 * and then the pieces are.
 */
typedef struct { long outer, n, inner, step, chunks, tiles, pieces, tasks, work; double by; } rl_levels;
typedef struct { long piece, in, out, n; int w; } rl_tile;

INLINE rl_levels levels(long before, long outer, long n, long inner, long step) {
    rl_levels l = {outer, n, inner, step, n / step + (n % step != 0), (inner + TILE - 1) / TILE};
    l.pieces = before * l.chunks, l.tasks = l.pieces * outer * l.tiles, l.work = before * outer * n * inner, l.by = 1;
    return l;
}

INLINE rl_tile tile_of(const rl_levels *l, long task) {
    if (l->pieces == 1 && l->tiles == 1) return (rl_tile){0, task * l->n * l->inner, task * l->inner, l->n, l->inner};
    long tile = task % l->tiles, o = task / l->tiles % l->outer, piece = task / l->tiles / l->outer;
    long row = piece % l->chunks * l->step, left = l->n - row, wide = l->inner - tile * TILE;
    long in = ((piece / l->chunks * l->outer + o) * l->n + row) * l->inner + tile * TILE;
    return (rl_tile){piece, in, o * l->inner + tile * TILE, left < l->step ? left : l->step, wide < TILE ? wide : TILE};
}

#define T double
#define OF(name) name##_double
#include "reduce_of.h"
#undef T
#undef OF
#define T float
#define OF(name) name##_float
#include "reduce_of.h"
#undef T
#undef OF

/* The sum, or with `average` the mean. */
EXPORT void sum(LENGTH(before * outer * n * inner) const float *x, LENGTH(outer * inner) float *y,
    SCRATCH LENGTH(pick(before * ceil(n, step) - 1, before * ceil(n, step) * outer * inner, 0)) double *work, long before,
    long outer, long n, long inner, POSITIVE long step, long average) {
    rl_levels l = levels(before, outer, n, inner, step);
    if (average) l.by = before * n;
    sums_float(&l, x, y, work);
}

EXPORT void sum_f64(LENGTH(before * outer * n * inner) const double *x, LENGTH(outer * inner) double *y,
    SCRATCH LENGTH(pick(before * ceil(n, step) - 1, before * ceil(n, step) * outer * inner, 0)) double *work, long before,
    long outer, long n, long inner, POSITIVE long step, long average) {
    rl_levels l = levels(before, outer, n, inner, step);
    if (average) l.by = before * n;
    sums_double(&l, x, y, work);
}

/* The largest, or `least`, element; a NaN where there is one. */
EXPORT void extreme(LENGTH(before * outer * n * inner) const float *x, LENGTH(outer * inner) float *y,
    SCRATCH LENGTH(pick(before * ceil(n, step) - 1, before * ceil(n, step) * outer * inner, 0)) float *work, long before,
    long outer, long n, long inner, POSITIVE long step, long least) {
    rl_levels l = levels(before, outer, n, inner, step);
    if (least) bests_float(&l, x, y, work, true);
    else bests_float(&l, x, y, work, false);
}

EXPORT void extreme_f64(LENGTH(before * outer * n * inner) const double *x, LENGTH(outer * inner) double *y,
    SCRATCH LENGTH(pick(before * ceil(n, step) - 1, before * ceil(n, step) * outer * inner, 0)) double *work, long before,
    long outer, long n, long inner, POSITIVE long step, long least) {
    rl_levels l = levels(before, outer, n, inner, step);
    if (least) bests_double(&l, x, y, work, true);
    else bests_double(&l, x, y, work, false);
}

/* The same of x (outer, n, inner), and where it stands first. */
EXPORT void pick(LENGTH(outer * n * inner) const float *x, LENGTH(outer * inner) float *values,
    LENGTH(outer * inner) int64_t *indices, long outer, long n, long inner, long least) {
    if (least) find_float(outer, n, inner, x, values, indices, true);
    else find_float(outer, n, inner, x, values, indices, false);
}

EXPORT void pick_f64(LENGTH(outer * n * inner) const double *x, LENGTH(outer * inner) double *values,
    LENGTH(outer * inner) int64_t *indices, long outer, long n, long inner, long least) {
    if (least) find_double(outer, n, inner, x, values, indices, true);
    else find_double(outer, n, inner, x, values, indices, false);
}

/* Where it stands alone. */
EXPORT void place(LENGTH(outer * n * inner) const float *x, LENGTH(outer * inner) int64_t *indices, long outer,
    long n, long inner, long least) {
    if (least) find_float(outer, n, inner, x, 0, indices, true);
    else find_float(outer, n, inner, x, 0, indices, false);
}

EXPORT void place_f64(LENGTH(outer * n * inner) const double *x, LENGTH(outer * inner) int64_t *indices, long outer,
    long n, long inner, long least) {
    if (least) find_double(outer, n, inner, x, 0, indices, true);
    else find_double(outer, n, inner, x, 0, indices, false);
}

/* The gradient of `sum`: y (before, outer, n, inner) repeats g. */
EXPORT void spread(LENGTH(outer * inner) const float *g, LENGTH(before * outer * n * inner) float *y, long before,
    long outer, long n, long inner, long average) {
    spread_float(g, y, before, outer, n, inner, average ? before * n : 1);
}

EXPORT void spread_f64(LENGTH(outer * inner) const double *g, LENGTH(before * outer * n * inner) double *y, long before,
    long outer, long n, long inner, long average) {
    spread_double(g, y, before, outer, n, inner, average ? before * n : 1);
}
