/* Softmax, log-softmax and cross-entropy of contiguous float32. */
#include "vmath.h"

static float row_max(const float *x, long n) {
    float m = -INFINITY;
    SIMD_MAX(m) for (long j = 0; j < n; j++) m = x[j] > m ? x[j] : m;
    return m;
}

static float row_sum_exp(const float *x, float m, long n) {
    float s = 0;
    SIMD_SUM(s) for (long j = 0; j < n; j++) s += vexp(x[j] - m);
    return s;
}

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

/*
 * Loss of each row against its class; 0 where the class is `ignore`.  `stats` keeps (max, log of the sum) of each row
 * for the gradient: as two numbers, because their sum would round away what the softmax needs when the logits are
 * large.
 *     loss = (1 - smoothing) w[t] (lse - x[t]) + smoothing / n * sum_j w[j] (lse - x[j])
 * Returns the first row whose class does not exist, or -1.
 */
EXPORT long cross_entropy(LENGTH(rows * n) const float *x, LENGTH(rows) const int64_t *target,
    OPTIONAL LENGTH(n) const float *w, LENGTH(rows) float *loss, LENGTH(2 * rows) float *stats, long rows, long n,
    long ignore, double smoothing) {
    long wrong = rows;
    PARALLEL_FOR_FIRST(rows * n, wrong)
    for (long r = 0; r < rows; r++) {
        const float *xr = x + r * n;
        float m = row_max(xr, n), sum = row_sum_exp(xr, m, n), log_sum = logf(sum);
        long t = READ_ONCE(target[r]);
        stats[2 * r] = m;
        stats[2 * r + 1] = log_sum;
        if (t == ignore) { loss[r] = 0; continue; }
        if (t < 0 || t >= n) { wrong = r < wrong ? r : wrong; continue; }
        float nll = (log_sum - (xr[t] - m)) * (w ? w[t] : 1.f);
        if (smoothing > 0) {
            float all = 0;
            if (w) { SIMD_SUM(all) for (long j = 0; j < n; j++) all += w[j] * (log_sum - (xr[j] - m)); }
            else { SIMD_SUM(all) for (long j = 0; j < n; j++) all += log_sum - (xr[j] - m); }
            nll = (float)(1 - smoothing) * nll + (float)(smoothing / n) * all;
        }
        loss[r] = nll;
    }
    return wrong < rows ? wrong : -1;
}

/*
 * dx = g_r [ (softmax(x)_j) (sum of the class weights in the loss) - (class weights in the loss)_j ]; `g` has one
 * number per row.  The classes may have changed since the forward pass: returns as it does.
 */
EXPORT long cross_entropy_backward(LENGTH(rows) const float *g, LENGTH(rows * n) const float *x,
    LENGTH(rows) const int64_t *target, OPTIONAL LENGTH(n) const float *w, LENGTH(2 * rows) const float *stats,
    LENGTH(rows * n) float *dx, long rows, long n, long ignore, double smoothing) {
    long wrong = rows;
    float each = (float)(smoothing / n), hit = (float)(1 - smoothing), smooth_total = (float)smoothing;
    if (w) {
        smooth_total = 0;
        for (long j = 0; j < n; j++) smooth_total += each * w[j];
    }
    PARALLEL_FOR_FIRST(rows * n, wrong)
    for (long r = 0; r < rows; r++) {
        const float *xr = x + r * n;
        float *out = dx + r * n, gr = g[r];
        long t = READ_ONCE(target[r]);
        if (t == ignore) { memset(out, 0, n * sizeof *out); continue; }
        if (t < 0 || t >= n) { wrong = r < wrong ? r : wrong; continue; }
        float on_target = hit * (w ? w[t] : 1.f), total = (on_target + smooth_total) * gr, m = stats[2 * r],
            log_sum = stats[2 * r + 1];
        SIMD for (long j = 0; j < n; j++) out[j] = vexp((xr[j] - m) - log_sum) * total;
        if (smoothing > 0) {
            if (w) { SIMD for (long j = 0; j < n; j++) out[j] -= gr * each * w[j]; }
            else { SIMD for (long j = 0; j < n; j++) out[j] -= gr * each; }
        }
        out[t] -= gr * on_target;
    }
    return wrong < rows ? wrong : -1;
}
