/* Matrix products and linear layers, with their gradients. */
#include "gemm.h"

/* c (outer, inner, m, n) = a b; `ta` says that a lies as (k, m), `tb` that b lies as (n, k). */
EXPORT void gemm_f32(
    EXTENT(span(outer, sa0, inner, sa1, pick(ta, k, m), lda, pick(ta, m, k), 1)) const float *a,
    EXTENT(span(outer, sb0, inner, sb1, pick(tb, n, k), ldb, pick(tb, k, n), 1)) const float *b,
    LENGTH(outer * inner * m * n) float *c, long ta, long tb, long m, long n, long k, long lda, long ldb, long outer,
    POSITIVE long inner, long sa0, long sa1, long sb0, long sb1) {
    batched_f32(a, b, 0, c, ta, tb, m, n, k, lda, ldb, n, outer, inner, (long[]){sa0, sa1}, (long[]){sb0, sb1},
        (long[]){inner * m * n, m * n});
}

EXPORT void gemm_f64(
    EXTENT(span(outer, sa0, inner, sa1, pick(ta, k, m), lda, pick(ta, m, k), 1)) const double *a,
    EXTENT(span(outer, sb0, inner, sb1, pick(tb, n, k), ldb, pick(tb, k, n), 1)) const double *b,
    LENGTH(outer * inner * m * n) double *c, long ta, long tb, long m, long n, long k, long lda, long ldb, long outer,
    POSITIVE long inner, long sa0, long sa1, long sb0, long sb1) {
    batched_f64(a, b, 0, c, ta, tb, m, n, k, lda, ldb, n, outer, inner, (long[]){sa0, sa1}, (long[]){sb0, sb1},
        (long[]){inner * m * n, m * n});
}

/* The gradients of c = a b, from that of c: da (outer, inner, m, k) = g b^T, db (outer, inner, k, n) = a^T g. */
#define GEMM_BACKWARD(batched)                                                                                        \
    {                                                                                                                 \
        long of_g[] = {sg0, sg1}, of_a[] = {sa0, sa1}, of_b[] = {sb0, sb1};                                           \
        if (da) batched(g, b, 0, da, tg, !tb, m, k, n, ldg, ldb, k, outer, inner, of_g, of_b,                         \
            (long[]){inner * m * k, m * k});                                                                          \
        if (db) batched(a, g, 0, db, !ta, tg, k, n, m, lda, ldg, n, outer, inner, of_a, of_g,                         \
            (long[]){inner * k * n, k * n});                                                                          \
    }

EXPORT void gemm_backward_f32(
    EXTENT(span(outer, sg0, inner, sg1, pick(tg, n, m), ldg, pick(tg, m, n), 1)) const float *g,
    EXTENT(span(outer, sa0, inner, sa1, pick(ta, k, m), lda, pick(ta, m, k), 1)) const float *a,
    EXTENT(span(outer, sb0, inner, sb1, pick(tb, n, k), ldb, pick(tb, k, n), 1)) const float *b,
    OPTIONAL LENGTH(outer * inner * m * k) float *da, OPTIONAL LENGTH(outer * inner * k * n) float *db, long tg,
    long ta, long tb, long m, long n, long k, long ldg, long lda, long ldb, long outer, POSITIVE long inner, long sg0,
    long sg1, long sa0, long sa1, long sb0, long sb1)
GEMM_BACKWARD(batched_f32)

EXPORT void gemm_backward_f64(
    EXTENT(span(outer, sg0, inner, sg1, pick(tg, n, m), ldg, pick(tg, m, n), 1)) const double *g,
    EXTENT(span(outer, sa0, inner, sa1, pick(ta, k, m), lda, pick(ta, m, k), 1)) const double *a,
    EXTENT(span(outer, sb0, inner, sb1, pick(tb, n, k), ldb, pick(tb, k, n), 1)) const double *b,
    OPTIONAL LENGTH(outer * inner * m * k) double *da, OPTIONAL LENGTH(outer * inner * k * n) double *db, long tg,
    long ta, long tb, long m, long n, long k, long ldg, long lda, long ldb, long outer, POSITIVE long inner, long sg0,
    long sg1, long sa0, long sa1, long sb0, long sb1)
GEMM_BACKWARD(batched_f64)

/* y (m, n) = x (m, k) w (n, k)^T + bias; `tx`, `tw`: they lie as (k, m) and (k, n). */
EXPORT void linear_f32(EXTENT(span(pick(tx, k, m), ldx, pick(tx, m, k), 1)) const float *x,
    EXTENT(span(pick(tw, k, n), ldw, pick(tw, n, k), 1)) const float *w, OPTIONAL LENGTH(n) const float *bias,
    LENGTH(m * n) float *y, long m, long n, long k, long tx, long ldx, long tw, long ldw) {
    batched_f32(x, w, bias, y, tx, !tw, m, n, k, ldx, ldw, n, 1, 1, NO_BATCH, NO_BATCH, NO_BATCH);
}

EXPORT void linear_f64(EXTENT(span(pick(tx, k, m), ldx, pick(tx, m, k), 1)) const double *x,
    EXTENT(span(pick(tw, k, n), ldw, pick(tw, n, k), 1)) const double *w, OPTIONAL LENGTH(n) const double *bias,
    LENGTH(m * n) double *y, long m, long n, long k, long tx, long ldx, long tw, long ldw) {
    batched_f64(x, w, bias, y, tx, !tw, m, n, k, ldx, ldw, n, 1, 1, NO_BATCH, NO_BATCH, NO_BATCH);
}

/* From g (m, n): dx (m, k) = g w, dw (n, k) = g^T x, db (n), its sums. */
#define LINEAR_BACKWARD(batched, sums)                                                                                \
    {                                                                                                                 \
        if (dx) batched(g, w, 0, dx, false, tw, m, k, n, n, ldw, k, 1, 1, NO_BATCH, NO_BATCH, NO_BATCH);              \
        if (dw) batched(g, x, 0, dw, true, tx, n, k, m, n, ldx, k, 1, 1, NO_BATCH, NO_BATCH, NO_BATCH);               \
        if (db) sums(g, db, m, n);                                                                                    \
    }

EXPORT void linear_backward_f32(LENGTH(m * n) const float *g,
    EXTENT(span(pick(tx, k, m), ldx, pick(tx, m, k), 1)) const float *x,
    EXTENT(span(pick(tw, k, n), ldw, pick(tw, n, k), 1)) const float *w, OPTIONAL LENGTH(m * k) float *dx,
    OPTIONAL LENGTH(n * k) float *dw, OPTIONAL LENGTH(n) float *db, long m, long n, long k, long tx, long ldx, long tw,
    long ldw)
LINEAR_BACKWARD(batched_f32, sums_f32)

EXPORT void linear_backward_f64(LENGTH(m * n) const double *g,
    EXTENT(span(pick(tx, k, m), ldx, pick(tx, m, k), 1)) const double *x,
    EXTENT(span(pick(tw, k, n), ldw, pick(tw, n, k), 1)) const double *w, OPTIONAL LENGTH(m * k) double *dx,
    OPTIONAL LENGTH(n * k) double *dw, OPTIONAL LENGTH(n) double *db, long m, long n, long k, long tx, long ldx,
    long tw, long ldw)
LINEAR_BACKWARD(batched_f64, sums_f64)
