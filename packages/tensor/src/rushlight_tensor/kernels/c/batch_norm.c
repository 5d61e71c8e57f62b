/* Batch norm on (P, C) float32: P samples or pixels, C channels side by side. */
#include "rushlight.h"

/*
 * Sums over P are made per block, then over the blocks in double precision, in an order that the shape alone decides.
 */
enum { MAX_BLOCKS = 64, MIN_BLOCK_ROWS = 64 };

static long block_rows(long rows) {
    long even = (rows + MAX_BLOCKS - 1) / MAX_BLOCKS;
    return even > MIN_BLOCK_ROWS ? even : MIN_BLOCK_ROWS;
}

#define BLOCK_SUMS(...)                                                                                                \
    PARALLEL_FOR(rows * c)                                                                                             \
    for (long block = 0; block < blocks; block++) {                                                                    \
        float *sums = partial + block * 2 * c;                                                                         \
        for (long r = block * per_block; r < rows && r < (block + 1) * per_block; r++) {                               \
            const float *xr = x + r * c;                                                                               \
            SIMD for (long j = 0; j < c; j++) { __VA_ARGS__; }                                                         \
        }                                                                                                              \
    }

static long blocks_of(long rows) { return (rows + block_rows(rows) - 1) / block_rows(rows); }

static double total(const float *partial, long blocks, long c, long j) {
    double sum = 0;
    for (long b = 0; b < blocks; b++) sum += partial[b * 2 * c + j];
    return sum;
}

/* Mean and biased variance of each channel, in two passes. */
EXPORT void moments(IMAGE LENGTH(rows * c) const float *x, LENGTH(c) float *mean, LENGTH(c) float *var,
    SCRATCH LENGTH(2 * c * ceil(rows, most(ceil(rows, 64), 64))) float *partial, long rows, long c) {
    long per_block = block_rows(rows), blocks = blocks_of(rows);
    memset(partial, 0, 2 * c * blocks * sizeof *partial);
    BLOCK_SUMS(sums[j] += xr[j])
    for (long j = 0; j < c; j++) mean[j] = (float)(total(partial, blocks, c, j) / rows);
    BLOCK_SUMS(float d = xr[j] - mean[j]; sums[c + j] += d * d)
    for (long j = 0; j < c; j++) var[j] = (float)(total(partial, blocks, c, c + j) / rows);
}

/* Running statistics move towards those of a batch. */
EXPORT void batch_norm_update(INOUT LENGTH(c) float *running_mean, INOUT LENGTH(c) float *running_var,
    LENGTH(c) const float *mean, LENGTH(c) const float *var, long c, double momentum, double correction) {
    float kept = (float)(1 - momentum), share = (float)momentum, of_var = (float)(momentum * correction);
    for (long j = 0; j < c; j++) {
        running_mean[j] = running_mean[j] * kept + mean[j] * share;
        running_var[j] = running_var[j] * kept + var[j] * of_var;
    }
}

INLINE float rstd_of(float var, double eps) { return 1.f / sqrtf(var + (float)eps); }

/* y = (x - mean) / sqrt(var + eps) * w + b; w and b may be missing. */
EXPORT void batch_norm(IMAGE LENGTH(rows * c) const float *x, OPTIONAL LENGTH(c) const float *w,
    OPTIONAL LENGTH(c) const float *b, LENGTH(c) const float *mean, LENGTH(c) const float *var,
    IMAGE LENGTH(rows * c) float *y, SCRATCH LENGTH(c) float *scale, long rows, long c, double eps) {
    for (long j = 0; j < c; j++) scale[j] = rstd_of(var[j], eps) * (w ? w[j] : 1.f);
    PARALLEL_FOR(rows * c)
    for (long r = 0; r < rows; r++) {
        const float *xr = x + r * c;
        float *yr = y + r * c;
        if (b) { SIMD for (long j = 0; j < c; j++) yr[j] = (xr[j] - mean[j]) * scale[j] + b[j]; }
        else { SIMD for (long j = 0; j < c; j++) yr[j] = (xr[j] - mean[j]) * scale[j]; }
    }
}

/*
 * dw = sum(g xhat), db = sum(g); with batch statistics dx = w rstd (g - db / P - xhat dw / P), with running ones dx = w
 * rstd g.
 */
EXPORT void batch_norm_backward(IMAGE LENGTH(rows * c) const float *g, IMAGE LENGTH(rows * c) const float *x,
    OPTIONAL LENGTH(c) const float *w, LENGTH(c) const float *mean, LENGTH(c) const float *var,
    OPTIONAL IMAGE LENGTH(rows * c) float *dx, OPTIONAL LENGTH(c) float *dw, OPTIONAL LENGTH(c) float *db,
    SCRATCH LENGTH(2 * c * ceil(rows, most(ceil(rows, 64), 64))) float *partial, SCRATCH LENGTH(3 * c) float *work,
    long rows, long c, long training, double eps) {
    long per_block = block_rows(rows), blocks = blocks_of(rows);
    memset(partial, 0, 2 * c * blocks * sizeof *partial);
    BLOCK_SUMS(float gj = g[r * c + j]; sums[j] += gj; sums[c + j] += gj * (xr[j] - mean[j]))
    float *scale = work, *slope = work + c, *shift = work + 2 * c; /* dx = scale (g - shift - (x - mean) slope) */
    for (long j = 0; j < c; j++) {
        float rstd = rstd_of(var[j], eps), of_b = (float)total(partial, blocks, c, j),
            of_w = (float)(total(partial, blocks, c, c + j) * rstd);
        if (db) db[j] = of_b;
        if (dw) dw[j] = of_w;
        scale[j] = rstd * (w ? w[j] : 1.f);
        slope[j] = training ? rstd * of_w / rows : 0;
        shift[j] = training ? of_b / rows : 0;
    }
    if (!dx) return;
    PARALLEL_FOR(rows * c)
    for (long r = 0; r < rows; r++) {
        const float *gr = g + r * c, *xr = x + r * c;
        float *out = dx + r * c;
        SIMD for (long j = 0; j < c; j++) out[j] = scale[j] * (gr[j] - shift[j] - (xr[j] - mean[j]) * slope[j]);
    }
}
