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

/* Zeros for the sums of every block; room for one where there are no rows at all. */
static float *new_sums(long rows, long c) { return calloc((blocks_of(rows) + 1) * 2 * c + 1, sizeof(float)); }

static double total(const float *partial, long blocks, long c, long j) {
    double sum = 0;
    for (long b = 0; b < blocks; b++) sum += partial[b * 2 * c + j];
    return sum;
}

/* Mean and biased variance of each channel, in two passes. */
EXPORT status moments(LENGTH(rows * c) const float *x, LENGTH(c) float *mean, LENGTH(c) float *var, long rows, long c) {
    long per_block = block_rows(rows), blocks = blocks_of(rows);
    float *partial = new_sums(rows, c);
    if (!partial) return NO_MEMORY;
    BLOCK_SUMS(sums[j] += xr[j])
    for (long j = 0; j < c; j++) mean[j] = (float)(total(partial, blocks, c, j) / rows);
    BLOCK_SUMS(float d = xr[j] - mean[j]; sums[c + j] += d * d)
    for (long j = 0; j < c; j++) var[j] = (float)(total(partial, blocks, c, c + j) / rows);
    free(partial);
    return 0;
}

/* y = (x - mean) * rstd * w + b; w and b may be missing. */
EXPORT status normalize(LENGTH(rows * c) const float *x, LENGTH(c) const float *mean, LENGTH(c) const float *rstd,
    OPTIONAL LENGTH(c) const float *w, OPTIONAL LENGTH(c) const float *b, LENGTH(rows * c) float *y, long rows, long c) {
    float *scale = malloc((c + 1) * sizeof *scale);
    if (!scale) return NO_MEMORY;
    for (long j = 0; j < c; j++) scale[j] = rstd[j] * (w ? w[j] : 1.f);
    PARALLEL_FOR(rows * c)
    for (long r = 0; r < rows; r++) {
        const float *xr = x + r * c;
        float *yr = y + r * c;
        if (b) { SIMD for (long j = 0; j < c; j++) yr[j] = (xr[j] - mean[j]) * scale[j] + b[j]; }
        else { SIMD for (long j = 0; j < c; j++) yr[j] = (xr[j] - mean[j]) * scale[j]; }
    }
    free(scale);
    return 0;
}

/*
 * dw = sum(g xhat), db = sum(g); with batch statistics dx = w rstd (g - db / P - xhat dw / P), with running ones dx = w
 * rstd g.
 */
EXPORT status batch_norm_backward(LENGTH(rows * c) const float *g, LENGTH(rows * c) const float *x,
    LENGTH(c) const float *mean, LENGTH(c) const float *rstd, OPTIONAL LENGTH(c) const float *w,
    OPTIONAL LENGTH(rows * c) float *dx, LENGTH(c) float *dw, LENGTH(c) float *db, long rows, long c, long training) {
    long per_block = block_rows(rows), blocks = blocks_of(rows);
    float *partial = new_sums(rows, c), *shift = malloc((c + 1) * sizeof *shift);
    if (!partial || !shift) { free(partial); free(shift); return NO_MEMORY; }
    BLOCK_SUMS(float gj = g[r * c + j]; sums[j] += gj; sums[c + j] += gj * (xr[j] - mean[j]))
    for (long j = 0; j < c; j++) {
        db[j] = (float)total(partial, blocks, c, j);
        dw[j] = (float)(total(partial, blocks, c, c + j) * rstd[j]);
    }
    if (dx) {
        float *scale = partial, *slope = partial + c; /* dx = scale (g - shift - (x - mean) slope) */
        for (long j = 0; j < c; j++) {
            scale[j] = rstd[j] * (w ? w[j] : 1.f);
            slope[j] = training ? rstd[j] * dw[j] / rows : 0;
            shift[j] = training ? db[j] / rows : 0;
        }
        PARALLEL_FOR(rows * c)
        for (long r = 0; r < rows; r++) {
            const float *gr = g + r * c, *xr = x + r * c;
            float *out = dx + r * c;
            SIMD for (long j = 0; j < c; j++) out[j] = scale[j] * (gr[j] - shift[j] - (xr[j] - mean[j]) * slope[j]);
        }
    }
    free(shift);
    free(partial);
    return 0;
}
