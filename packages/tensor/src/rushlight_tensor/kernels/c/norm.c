/* Layer norm and RMS norm over rows of contiguous float32. */
#include "rushlight.h"

/*
 * Sums over rows are made per block of rows, then over the blocks, in an order that the shape alone decides: at most 64
 * blocks, of at least 16 rows (as the length of their scratch says).
 */
static long block_rows(long rows) {
    long even = (rows + 63) / 64;
    return even > 16 ? even : 16;
}

static void add_blocks(const float *partial, long blocks, long stride, float *out, long n) {
    memset(out, 0, n * sizeof *out);
    for (long b = 0; b < blocks; b++)
        SIMD for (long j = 0; j < n; j++) out[j] += partial[b * stride + j];
}

/* y = (x - mean) * rstd * w + b, row by row; w and b may be missing. */
EXPORT void layer_norm(LENGTH(rows * n) const float *x, OPTIONAL LENGTH(n) const float *w, OPTIONAL LENGTH(n) const float *b,
    LENGTH(rows * n) float *y, LENGTH(rows) float *mean, LENGTH(rows) float *rstd, long rows, long n, double eps) {
    PARALLEL_FOR(rows * n)
    for (long r = 0; r < rows; r++) {
        const float *xr = x + r * n;
        float *yr = y + r * n, sum = 0, squares = 0;
        SIMD_SUM(sum) for (long j = 0; j < n; j++) sum += xr[j];
        float mu = sum / n;
        SIMD_SUM(squares) for (long j = 0; j < n; j++) { float d = xr[j] - mu; squares += d * d; }
        float scale = 1.f / sqrtf(squares / n + (float)eps);
        if (w && b) { SIMD for (long j = 0; j < n; j++) yr[j] = (xr[j] - mu) * scale * w[j] + b[j]; }
        else if (w) { SIMD for (long j = 0; j < n; j++) yr[j] = (xr[j] - mu) * scale * w[j]; }
        else if (b) { SIMD for (long j = 0; j < n; j++) yr[j] = (xr[j] - mu) * scale + b[j]; }
        else { SIMD for (long j = 0; j < n; j++) yr[j] = (xr[j] - mu) * scale; }
        mean[r] = mu;
        rstd[r] = scale;
    }
}

/* dw and db (may be missing, as w) are sums over the rows; dx needs two sums over each row. */
EXPORT void layer_norm_backward(LENGTH(rows * n) const float *g, LENGTH(rows * n) const float *x,
    OPTIONAL LENGTH(n) const float *w, LENGTH(rows) const float *mean, LENGTH(rows) const float *rstd,
    OPTIONAL LENGTH(rows * n) float *dx, OPTIONAL LENGTH(n) float *dw, OPTIONAL LENGTH(n) float *db,
    SCRATCH LENGTH(ceil(rows, most(ceil(rows, 64), 16)) * 2 * n) float *partial, long rows, long n) {
    long per_block = block_rows(rows), blocks = (rows + per_block - 1) / per_block;
    PARALLEL_FOR(rows * n)
    for (long block = 0; block < blocks; block++) {
        float *sum_w = partial + block * 2 * n, *sum_b = sum_w + n;
        if (dw || db) memset(sum_w, 0, 2 * n * sizeof *sum_w);
        for (long r = block * per_block; r < rows && r < (block + 1) * per_block; r++) {
            const float *gr = g + r * n, *xr = x + r * n;
            float mu = mean[r], scale = rstd[r], s1 = 0, s2 = 0;
            if (dw || db) {
                SIMD for (long j = 0; j < n; j++) { sum_w[j] += gr[j] * ((xr[j] - mu) * scale); sum_b[j] += gr[j]; }
            }
            if (!dx) continue;
            float *out = dx + r * n;
            if (w) { SIMD for (long j = 0; j < n; j++) out[j] = gr[j] * w[j]; }
            else memcpy(out, gr, n * sizeof *out);
            SIMD_SUM(s1, s2) for (long j = 0; j < n; j++) { s1 += out[j]; s2 += out[j] * ((xr[j] - mu) * scale); }
            s1 /= n;
            s2 /= n;
            SIMD for (long j = 0; j < n; j++) out[j] = scale * (out[j] - s1 - (xr[j] - mu) * scale * s2);
        }
    }
    if (dw) add_blocks(partial, blocks, 2 * n, dw, n);
    if (db) add_blocks(partial + n, blocks, 2 * n, db, n);
}

/* y = x * rstd * w with rstd = 1 / sqrt(mean(x^2) + eps) */
EXPORT void rms_norm(LENGTH(rows * n) const float *x, OPTIONAL LENGTH(n) const float *w, LENGTH(rows * n) float *y,
    LENGTH(rows) float *rstd, long rows, long n, double eps) {
    PARALLEL_FOR(rows * n)
    for (long r = 0; r < rows; r++) {
        const float *xr = x + r * n;
        float *yr = y + r * n, squares = 0;
        SIMD_SUM(squares) for (long j = 0; j < n; j++) squares += xr[j] * xr[j];
        float scale = 1.f / sqrtf(squares / n + (float)eps);
        if (w) { SIMD for (long j = 0; j < n; j++) yr[j] = xr[j] * scale * w[j]; }
        else { SIMD for (long j = 0; j < n; j++) yr[j] = xr[j] * scale; }
        rstd[r] = scale;
    }
}

EXPORT void rms_norm_backward(LENGTH(rows * n) const float *g, LENGTH(rows * n) const float *x,
    OPTIONAL LENGTH(n) const float *w, LENGTH(rows) const float *rstd, OPTIONAL LENGTH(rows * n) float *dx,
    OPTIONAL LENGTH(n) float *dw, SCRATCH LENGTH(ceil(rows, most(ceil(rows, 64), 16)) * n) float *partial, long rows,
    long n) {
    long per_block = block_rows(rows), blocks = (rows + per_block - 1) / per_block;
    PARALLEL_FOR(rows * n)
    for (long block = 0; block < blocks; block++) {
        float *sum_w = partial + block * n;
        if (dw) memset(sum_w, 0, n * sizeof *sum_w);
        for (long r = block * per_block; r < rows && r < (block + 1) * per_block; r++) {
            const float *gr = g + r * n, *xr = x + r * n;
            float scale = rstd[r], s = 0;
            if (dw) { SIMD for (long j = 0; j < n; j++) sum_w[j] += gr[j] * xr[j] * scale; }
            if (!dx) continue;
            float *out = dx + r * n;
            if (w) { SIMD for (long j = 0; j < n; j++) out[j] = gr[j] * w[j]; }
            else memcpy(out, gr, n * sizeof *out);
            SIMD_SUM(s) for (long j = 0; j < n; j++) s += out[j] * xr[j];
            s = s / n * scale * scale;
            SIMD for (long j = 0; j < n; j++) out[j] = scale * (out[j] - xr[j] * s);
        }
    }
    if (dw) add_blocks(partial, blocks, n, dw, n);
}

/* y = x / d, d = max(norm, eps); squares are added in double, and overflow where PyTorch's do. */
EXPORT void normalize(LENGTH(rows * n) const float *x, LENGTH(rows * n) float *y, long rows, long n, double eps) {
    PARALLEL_FOR(rows * n)
    for (long r = 0; r < rows; r++) {
        double s = 0;
        SIMD_SUM(s) for (long j = r * n; j < (r + 1) * n; j++) s += (double)x[j] * x[j];
        float size = sqrtf((float)s), d = size < (float)eps ? (float)eps : size;
        SIMD for (long j = r * n; j < (r + 1) * n; j++) y[j] = x[j] / d;
    }
}

/* dx = (g - y sum(g y)) / d, or g / d where d is eps. */
EXPORT void normalize_backward(LENGTH(rows * n) const float *g, LENGTH(rows * n) const float *x,
    LENGTH(rows * n) float *dx, long rows, long n, double eps) {
    PARALLEL_FOR(rows * n)
    for (long r = 0; r < rows; r++) {
        double s = 0, t = 0;
        SIMD_SUM(s, t) for (long j = r * n; j < (r + 1) * n; j++) { s += (double)x[j] * x[j]; t += (double)g[j] * x[j]; }
        float size = sqrtf((float)s), least = (float)eps, d = size < least ? least : size, along = size < least ? 0 : t / d;
        SIMD for (long j = r * n; j < (r + 1) * n; j++) dx[j] = (g[j] - x[j] / d * along) / d;
    }
}
