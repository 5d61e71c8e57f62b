/* Rows of a table by index: the gradient, which adds up what comes back for each row. */
#include "rushlight.h"

/*
 * dw[r] = sum of g[i] where index[i] == r, and zero for r == padding; indices are known to be valid. The work is cut
 * into slices of columns, each added up in the order of the indices: see Note [Same bits].
 */
EXPORT void embedding_backward(const float *g, const int64_t *index, float *dw, long count, long d, long rows,
    long padding) {
    enum { SLICE = 64 };
    PARALLEL_FOR(rows * d)
    for (long r = 0; r < rows; r++) memset(dw + r * d, 0, d * sizeof *dw);
    PARALLEL_FOR(count * d)
    for (long from = 0; from < d; from += SLICE) {
        long to = from + SLICE < d ? from + SLICE : d;
        for (long i = 0; i < count; i++) {
            if (index[i] == padding) continue;
            float *out = dw + index[i] * d;
            const float *in = g + i * d;
            SIMD for (long j = from; j < to; j++) out[j] += in[j];
        }
    }
}
