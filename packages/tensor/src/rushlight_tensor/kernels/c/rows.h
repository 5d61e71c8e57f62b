/* Sums over one row of float32, for softmax and its losses. */
#ifndef ROWS_H
#define ROWS_H
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

#endif
