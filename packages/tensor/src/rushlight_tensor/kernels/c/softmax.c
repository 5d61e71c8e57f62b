/* Softmax and log-softmax of contiguous float32. */
#include "rows.h"

/*
 * Softmax runs over the n elements that lie `inner` apart, x (outer, n, inner): along rows where inner is 1, else TILE
 * columns side by side.
 */
enum { TILE = 64 };
#define EACH_TILE(...) { \
    long tiles = (inner + TILE - 1) / TILE; \
    PARALLEL_FOR(outer * n * inner) \
    for (long t = 0; t < outer * tiles; t++) { \
        long at = t / tiles * n * inner + t % tiles * TILE, left = inner - t % tiles * TILE, w = left < TILE ? left : TILE; \
        __VA_ARGS__ \
    } \
}
/* Every element (j, k) of a tile, its place in memory `i`. */
#define EACH_ROW(...) \
    for (long j = 0; j < n; j++) SIMD for (long k = 0; k < w; k++) { long i = at + j * inner + k; __VA_ARGS__ }

EXPORT void softmax(LENGTH(outer * n * inner) const float *x, LENGTH(outer * n * inner) float *y, long outer, long n,
    long inner) {
    if (inner != 1) EACH_TILE({
        float m[TILE], s[TILE];
        for (long k = 0; k < TILE; k++) m[k] = -INFINITY, s[k] = 0;
        EACH_ROW(m[k] = x[i] > m[k] ? x[i] : m[k];)
        EACH_ROW(float e = vexp(x[i] - m[k]); y[i] = e; s[k] += e;)
        for (long k = 0; k < TILE; k++) s[k] = 1.f / s[k];
        EACH_ROW(y[i] *= s[k];)
    })
    else {
        PARALLEL_FOR(outer * n)
        for (long r = 0; r < outer; r++) {
            const float *xr = x + r * n;
            float *yr = y + r * n, m = row_max(xr, n), s = 0;
            SIMD_SUM(s) for (long j = 0; j < n; j++) { float e = vexp(xr[j] - m); yr[j] = e; s += e; }
            float inverse = 1.f / s;
            SIMD for (long j = 0; j < n; j++) yr[j] *= inverse;
        }
    }
}

/* dx = y (g - sum(g y)) */
EXPORT void softmax_backward(LENGTH(outer * n * inner) const float *g, LENGTH(outer * n * inner) const float *y,
    LENGTH(outer * n * inner) float *dx, long outer, long n, long inner) {
    if (inner != 1) EACH_TILE({
        float s[TILE] = {0};
        EACH_ROW(s[k] += g[i] * y[i];)
        EACH_ROW(dx[i] = y[i] * (g[i] - s[k]);)
    })
    else {
        PARALLEL_FOR(outer * n)
        for (long r = 0; r < outer; r++) {
            const float *gr = g + r * n, *yr = y + r * n;
            float *out = dx + r * n, s = 0;
            SIMD_SUM(s) for (long j = 0; j < n; j++) s += gr[j] * yr[j];
            SIMD for (long j = 0; j < n; j++) out[j] = yr[j] * (gr[j] - s);
        }
    }
}

EXPORT void log_softmax(LENGTH(outer * n * inner) const float *x, LENGTH(outer * n * inner) float *y, long outer, long n,
    long inner) {
    if (inner != 1) EACH_TILE({
        float m[TILE], s[TILE];
        for (long k = 0; k < TILE; k++) m[k] = -INFINITY, s[k] = 0;
        EACH_ROW(m[k] = x[i] > m[k] ? x[i] : m[k];)
        EACH_ROW(s[k] += vexp(x[i] - m[k]);)
        for (long k = 0; k < w; k++) s[k] = logf(s[k]);
        EACH_ROW(y[i] = (x[i] - m[k]) - s[k];)
    })
    else {
        PARALLEL_FOR(outer * n)
        for (long r = 0; r < outer; r++) {
            const float *xr = x + r * n;
            float *yr = y + r * n, m = row_max(xr, n), log_sum = logf(row_sum_exp(xr, m, n));
            SIMD for (long j = 0; j < n; j++) yr[j] = (xr[j] - m) - log_sum;
        }
    }
}

/* dx = g - exp(y) sum(g) */
EXPORT void log_softmax_backward(LENGTH(outer * n * inner) const float *g, LENGTH(outer * n * inner) const float *y,
    LENGTH(outer * n * inner) float *dx, long outer, long n, long inner) {
    if (inner != 1) EACH_TILE({
        float s[TILE] = {0};
        EACH_ROW(s[k] += g[i];)
        EACH_ROW(dx[i] = g[i] - vexp(y[i]) * s[k];)
    })
    else {
        PARALLEL_FOR(outer * n)
        for (long r = 0; r < outer; r++) {
            const float *gr = g + r * n, *yr = y + r * n;
            float *out = dx + r * n, s = 0;
            SIMD_SUM(s) for (long j = 0; j < n; j++) s += gr[j];
            SIMD for (long j = 0; j < n; j++) out[j] = gr[j] - vexp(yr[j]) * s;
        }
    }
}
