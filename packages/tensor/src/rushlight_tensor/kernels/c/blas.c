/* Matrix products and linear layers through the private BLAS, cut into pieces for our own threads. */
#include "rushlight.h"

/*
 * Note [Pieces]
 *     A product is cut along its longer side into pieces of whole 16-row units, one per thread, but never so small that
 *     a piece falls under 10^6 multiplications: below that OpenBLAS takes other kernels, with other rounding, and the
 *     result would depend on the number of threads.  Above it the bits are the same however a product is cut
 *     (tests/kernels/test_blas.py).
 */
enum { UNIT = 16 };
#define PIECE_WORK 1000000.

static long pieces_of(long m, long n, long k) {
    long units = (m > n ? m : n) / UNIT, pieces = rl_threads();
    double unit_work = (double)UNIT * (m > n ? n : m) * k;
    if (m < 2 || n < 2) return 1;
    while (pieces > 1 && (units / pieces) * unit_work <= PIECE_WORK) pieces--;
    return pieces;
}

/* The rows (or columns) of piece `i`: whole units, the last piece takes what is left over. */
static void piece_bounds(long length, long pieces, long i, long *from, long *to) {
    long units = length / UNIT;
    *from = units * i / pieces * UNIT;
    *to = i + 1 == pieces ? length : units * (i + 1) / pieces * UNIT;
}

/*
 * A batch of products with two batch dimensions, each with its own stride; `ta` and `tb` say that an operand lies
 * transposed. `bias` (n numbers) is added to every row while its piece is still in the cache.
 */
#define BATCHED_GEMM(T, NAME, GEMM)                                                                                   \
    static void NAME(const T *a, const T *b, const T *bias, T *c, bool ta, bool tb, long m, long n, long k, long lda, \
                     long ldb, long ldc, long outer, long inner, const long *sa, const long *sb, const long *sc) {    \
        bool many = outer * inner >= 4 * rl_threads();                                                                \
        long pieces = many ? 1 : pieces_of(m, n, k), tasks = outer * inner * pieces;                                  \
        bool shared = tasks > 1 && (double)m * n * k * outer * inner > 3e5;                                           \
        if (m == 0 || n == 0) return;                                                                                 \
        _Pragma("omp parallel for schedule(dynamic, 1) num_threads(rl_threads()) if (shared)")                        \
        for (long task = 0; task < tasks; task++) {                                                                   \
            long item = task / pieces, from, to, o = item / inner, i = item % inner;                                  \
            const T *pa = a + o * sa[0] + i * sa[1], *pb = b + o * sb[0] + i * sb[1];                                 \
            T *pc = c + o * sc[0] + i * sc[1];                                                                        \
            piece_bounds(m > n ? m : n, pieces, task % pieces, &from, &to);                                           \
            bool by_rows = m > n;                                                                                     \
            long rows = by_rows ? to - from : m, columns = by_rows ? n : to - from;                                   \
            if (by_rows) { pa += ta ? from : from * lda; pc += from * ldc; }                                          \
            else { pb += tb ? from * ldb : from; pc += from; }                                                        \
            GEMM(ta, tb, rows, columns, k, pa, lda, pb, ldb, 0, pc, ldc);                                             \
            if (!bias) continue;                                                                                      \
            const T *piece_bias = bias + (by_rows ? 0 : from);                                                        \
            for (long r = 0; r < rows; r++)                                                                           \
                SIMD for (long j = 0; j < columns; j++) pc[r * ldc + j] += piece_bias[j];                             \
        }                                                                                                             \
    }

BATCHED_GEMM(float, batched_f32, sgemm)
BATCHED_GEMM(double, batched_f64, dgemm)

EXPORT void gemm_f32(STRIDED const float *a, STRIDED const float *b, STRIDED float *c, long ta, long tb, long m,
    long n, long k, long lda, long ldb, long ldc, long outer, long inner, long sa0, long sa1, long sb0, long sb1,
    long sc0, long sc1) {
    batched_f32(a, b, 0, c, ta, tb, m, n, k, lda, ldb, ldc, outer, inner, (long[]){sa0, sa1}, (long[]){sb0, sb1},
        (long[]){sc0, sc1});
}

EXPORT void gemm_f64(STRIDED const double *a, STRIDED const double *b, STRIDED double *c, long ta, long tb, long m,
    long n, long k, long lda, long ldb, long ldc, long outer, long inner, long sa0, long sa1, long sb0, long sb1,
    long sc0, long sc1) {
    batched_f64(a, b, 0, c, ta, tb, m, n, k, lda, ldb, ldc, outer, inner, (long[]){sa0, sa1}, (long[]){sb0, sb1},
        (long[]){sc0, sc1});
}

static const long NO_BATCH[2];

/* y (m, n) = x (m, k) w (n, k)^T + bias */
EXPORT void linear(const float *x, const float *w, OPTIONAL const float *bias, float *y, long m, long n, long k) {
    batched_f32(x, w, bias, y, false, true, m, n, k, k, k, n, 1, 1, NO_BATCH, NO_BATCH, NO_BATCH);
}

/* dx (m, k) = g (m, n) w (n, k) */
EXPORT void linear_grad_input(const float *g, const float *w, float *dx, long m, long n, long k) {
    batched_f32(g, w, 0, dx, false, false, m, k, n, n, k, k, 1, 1, NO_BATCH, NO_BATCH, NO_BATCH);
}

/* dw (n, k) = g (m, n)^T x (m, k) */
EXPORT void linear_grad_weight(const float *g, const float *x, float *dw, long m, long n, long k) {
    batched_f32(g, x, 0, dw, true, false, n, k, m, n, k, k, 1, 1, NO_BATCH, NO_BATCH, NO_BATCH);
}

/* out (n) = sums of the columns of g (m, n) */
EXPORT void column_sums(const float *g, float *out, long m, long n) {
    enum { BLOCK = 256 };
    PARALLEL_FOR(m * n)
    for (long from = 0; from < n; from += BLOCK) {
        long width = n - from < BLOCK ? n - from : BLOCK;
        float sums[BLOCK] = {0};
        for (long r = 0; r < m; r++)
            SIMD for (long j = 0; j < width; j++) sums[j] += g[r * n + from + j];
        memcpy(out + from, sums, width * sizeof *out);
    }
}
