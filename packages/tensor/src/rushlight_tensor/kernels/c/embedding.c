/* Rows of a table by index, and the gradient, which adds up what comes back for each row. */
#include "rushlight.h"

/* y[i] = w[index[i]].  Returns 1 + the place of the first index that names no row. */
EXPORT long embedding(LENGTH(rows * d) const float *w, LENGTH(count) const int64_t *index, LENGTH(count * d) float *y,
    long count, long d, long rows) {
    long wrong = count;
    PARALLEL_FOR_FIRST(count * d, wrong)
    for (long i = 0; i < count; i++) {
        long row = READ_ONCE(index[i]);
        if (row < 0 || row >= rows) { wrong = i < wrong ? i : wrong; continue; }
        const float *from = w + row * d;
        float *to = y + i * d;
        SIMD for (long j = 0; j < d; j++) to[j] = from[j];
    }
    return wrong < count ? 1 + wrong : 0;
}

/*
 * dw[o, r] = sum of g[o, i] where index[i] == r, and zero for r == padding_idx; `wrap`: negative indices count from the
 * end.  The work is cut into slices of columns, each added up in the order of the indices: see Note [Same bits].
 * Returns as `embedding` does.
 */
EXPORT long embedding_backward(LENGTH(outer * count * d) const float *g, LENGTH(count) const int64_t *index,
    LENGTH(outer * rows * d) float *dw, long outer, long count, long d, long rows, long padding_idx, long wrap) {
    enum { SLICE = 64 };
    long wrong = count, slices = d > SLICE ? (d + SLICE - 1) / SLICE : 1; /* indices are looked at in any case */
    PARALLEL_FOR(outer * rows * d)
    for (long r = 0; r < outer * rows; r++) memset(dw + r * d, 0, d * sizeof *dw);
    PARALLEL_FOR_FIRST(outer * count * d, wrong)
    for (long task = 0; task < (outer ? outer : 1) * slices; task++) {
        long o = task / slices, from = task % slices * SLICE, to = !outer ? from : from + SLICE < d ? from + SLICE : d;
        for (long i = 0; i < count; i++) {
            long row = READ_ONCE(index[i]);
            if (row < 0 && wrap) row += rows;
            if (row == padding_idx && row >= 0) continue;
            if (row < 0 || row >= rows) { wrong = i < wrong ? i : wrong; continue; }
            float *out = dw + (o * rows + row) * d;
            const float *in = g + (o * count + i) * d;
            SIMD for (long j = from; j < to; j++) out[j] += in[j];
        }
    }
    return wrong < count ? 1 + wrong : 0;
}
