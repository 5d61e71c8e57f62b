/* Rows of a table by index: the gradient, which adds up what comes back for each row. */
#include "rushlight.h"

/*
 * dw[r] = sum of g[i] where index[i] == r, and zero for r == padding.  The work is cut into slices of columns, each
 * added up in the order of the indices: see Note [Same bits].  Returns the first index that names no row, or -1.
 */
EXPORT long embedding_backward(LENGTH(count * d) const float *g, LENGTH(count) const int64_t *index,
    LENGTH(rows * d) float *dw, long count, long d, long rows, long padding) {
    enum { SLICE = 64 };
    long wrong = count;
    PARALLEL_FOR(rows * d)
    for (long r = 0; r < rows; r++) memset(dw + r * d, 0, d * sizeof *dw);
    PARALLEL_FOR_FIRST(count * d, wrong)
    for (long from = 0; from == 0 || from < d; from += SLICE) { /* the indices are looked at in any case */
        long to = from + SLICE < d ? from + SLICE : d;
        for (long i = 0; i < count; i++) {
            long row = READ_ONCE(index[i]);
            if (row == padding && padding >= 0) continue;
            if (row < 0 || row >= rows) { wrong = i < wrong ? i : wrong; continue; }
            float *out = dw + row * d;
            const float *in = g + i * d;
            SIMD for (long j = from; j < to; j++) out[j] += in[j];
        }
    }
    return wrong < count ? wrong : -1;
}
