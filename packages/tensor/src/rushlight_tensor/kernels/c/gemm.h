/* Products through the private BLAS, cut into tiles for our own threads; sums of columns. */
#ifndef GEMM_H
#define GEMM_H
#include "rushlight.h"

/*
 * Note [Tiles]
 *     A product is cut into tiles, and one thread computes a tile with one call of BLAS.  The tiles follow from the
 *     sizes alone, never from the number of threads: OpenBLAS adds up in an order that depends on where a matrix ends
 *     (the Haswell kernels treat its last 16 columns, and rows beyond a multiple of 24, in their own way), so another
 *     cut would give other bits.  No common unit mends that: the kernels differ.
 *
 *     What a tile costs is that its operands are packed again.  Packing one number takes as long as some ten
 *     multiplications, and a tile packs one number per `rows` of them and one per `columns`: so sides are halved as long
 *     as packing grows by at most one number in REPACKED multiplications (then one thread loses about 3 %, 1 % with
 *     AVX2), and a tile keeps TILE_WORK multiplications (a call costs 1.5 us).  The first halving is free of the first
 *     condition: it costs one thread up to a tenth of the time of a small product, and saves two threads half of it.
 */
enum { REPACKED = 768, FEW = 8, MIN_SIDE = 32 };
#define TILE_WORK 4e6
#define HALF_WORK 1e6

typedef struct { long by_rows, by_columns; } tiling;

static tiling tiles_of(long m, long n, long k, long items) {
    tiling t = {1, 1};
    for (;;) {
        double down = (2. * t.by_rows - 1) / m + (t.by_columns - 1.) / n; /* what is packed again, after halving rows */
        double across = (t.by_rows - 1.) / m + (2. * t.by_columns - 1) / n;
        double work = (double)m * n * k / (2 * t.by_rows * t.by_columns);
        bool rows = down < across, first = t.by_rows * t.by_columns == 1 && items < FEW;
        if ((rows ? m / t.by_rows : n / t.by_columns) < MIN_SIDE || work < (first ? HALF_WORK : TILE_WORK)) return t;
        if (!first && (rows ? down : across) * REPACKED > 1) return t;
        if (rows) t.by_rows *= 2;
        else t.by_columns *= 2;
    }
}

/* Where part `i` of `parts` begins: at whole registers of every kernel, as far as the length allows. */
INLINE long part_start(long length, long parts, long i) {
    enum { UNIT = 16 };
    return i == parts ? length : (length * i / parts + UNIT / 2) / UNIT * UNIT;
}

/*
 * y (rows) = a x, where a has `rows` rows of k numbers, or lies transposed. BLAS would pack a matrix that it reads only
 * once. Long sums are made of parts, so that they lose no more digits than those of BLAS.
 */
enum { SUM_PART = 4096, AT_ONCE = 4 };
#define MATRIX_VECTOR(T, NAME)                                                                                        \
    static void NAME(bool transposed, long rows, long k, const T *restrict a, long lda, const T *restrict x,          \
                     T *restrict y) {                                                                                 \
        memset(y, 0, rows * sizeof *y);                                                                               \
        for (long from = 0; from < k; from += SUM_PART) {                                                             \
            long to = from + SUM_PART < k ? from + SUM_PART : k, r = 0, i = from;                                     \
            for (; !transposed && r + AT_ONCE <= rows; r += AT_ONCE) {                                                \
                const T *a0 = a + r * lda, *a1 = a0 + lda, *a2 = a1 + lda, *a3 = a2 + lda;                            \
                T s0 = 0, s1 = 0, s2 = 0, s3 = 0;                                                                     \
                SIMD_SUM(s0, s1, s2, s3) for (long j = from; j < to; j++) {                                           \
                    s0 += a0[j] * x[j]; s1 += a1[j] * x[j]; s2 += a2[j] * x[j]; s3 += a3[j] * x[j];                   \
                }                                                                                                     \
                y[r] += s0; y[r + 1] += s1; y[r + 2] += s2; y[r + 3] += s3;                                           \
            }                                                                                                         \
            for (; !transposed && r < rows; r++) {                                                                    \
                T sum = 0;                                                                                            \
                SIMD_SUM(sum) for (long j = from; j < to; j++) sum += a[r * lda + j] * x[j];                          \
                y[r] += sum;                                                                                          \
            }                                                                                                         \
            for (; transposed && i + AT_ONCE <= to; i += AT_ONCE) {                                                   \
                const T *a0 = a + i * lda, *a1 = a0 + lda, *a2 = a1 + lda, *a3 = a2 + lda;                            \
                T x0 = x[i], x1 = x[i + 1], x2 = x[i + 2], x3 = x[i + 3];                                             \
                SIMD for (long j = 0; j < rows; j++) y[j] += (x0 * a0[j] + x1 * a1[j]) + (x2 * a2[j] + x3 * a3[j]);   \
            }                                                                                                         \
            for (; transposed && i < to; i++) SIMD for (long j = 0; j < rows; j++) y[j] += x[i] * a[i * lda + j];     \
        }                                                                                                             \
    }

MATRIX_VECTOR(float, matrix_vector_f32)
MATRIX_VECTOR(double, matrix_vector_f64)

/*
 * A batch of products with two batch dimensions, each with its own stride; `ta` and `tb` say that an operand lies
 * transposed. `bias` (n numbers) is added to every row while its tile is still in the cache.
 */
#define BATCHED_GEMM(T, NAME, GEMM, MATRIX_VECTOR)                                                                    \
    static void NAME(const T *a, const T *b, const T *bias, T *c, bool ta, bool tb, long m, long n, long k, long lda, \
                     long ldb, long ldc, long outer, long inner, const long *sa, const long *sb, const long *sc) {    \
        if (m == 0 || n == 0) return;                                                                                 \
        tiling cut = tiles_of(m, n, k, outer * inner);                                                                \
        long tiles = cut.by_rows * cut.by_columns, tasks = outer * inner * tiles;                                     \
        bool shared = tasks > 1 && (double)m * n * k * outer * inner > 3e5;                                           \
        bool column = n == 1 && (tb || ldb == 1) && ldc == 1, row = m == 1 && (!ta || lda == 1);                      \
        if (tiles == 1 && !column && !row && !bias && !shared) { /* many small ones */                                \
            for (long o = 0; o < outer; o++)                                                                          \
                for (long i = 0; i < inner; i++)                                                                      \
                    GEMM(ta, tb, m, n, k, a + o * sa[0] + i * sa[1], lda, b + o * sb[0] + i * sb[1], ldb, 0,          \
                        c + o * sc[0] + i * sc[1], ldc);                                                              \
            return;                                                                                                   \
        }                                                                                                             \
        _Pragma("omp parallel for schedule(dynamic, 1) num_threads(rl_threads()) if (shared)")                        \
        for (long task = 0; task < tasks; task++) {                                                                   \
            long item = task / tiles, o = item / inner, i = item % inner;                                             \
            long down = task % tiles / cut.by_columns, across = task % cut.by_columns;                                \
            long top = part_start(m, cut.by_rows, down), rows = part_start(m, cut.by_rows, down + 1) - top;           \
            long left = part_start(n, cut.by_columns, across);                                                        \
            long columns = part_start(n, cut.by_columns, across + 1) - left;                                          \
            const T *pa = a + o * sa[0] + i * sa[1] + (ta ? top : top * lda);                                         \
            const T *pb = b + o * sb[0] + i * sb[1] + (tb ? left * ldb : left);                                       \
            T *pc = c + o * sc[0] + i * sc[1] + top * ldc + left;                                                     \
            if (column) MATRIX_VECTOR(ta, rows, k, pa, lda, pb, pc);                                                  \
            else if (row) MATRIX_VECTOR(!tb, columns, k, pb, ldb, pa, pc);                                            \
            else GEMM(ta, tb, rows, columns, k, pa, lda, pb, ldb, 0, pc, ldc);                                        \
            if (!bias) continue;                                                                                      \
            for (long r = 0; r < rows; r++)                                                                           \
                SIMD for (long j = 0; j < columns; j++) pc[r * ldc + j] += bias[left + j];                            \
        }                                                                                                             \
    }

BATCHED_GEMM(float, batched_f32, sgemm, matrix_vector_f32)
BATCHED_GEMM(double, batched_f64, dgemm, matrix_vector_f64)

static const long NO_BATCH[2];

/* out (n) = sums of the columns of g (m, n) */
#define COLUMN_SUMS(T, NAME)                                                                                          \
    static void NAME(const T *g, T *out, long m, long n) {                                                            \
        enum { BLOCK = 256 };                                                                                         \
        PARALLEL_FOR(m * n)                                                                                           \
        for (long from = 0; from < n; from += BLOCK) {                                                                \
            long width = n - from < BLOCK ? n - from : BLOCK;                                                         \
            T sums[BLOCK] = {0};                                                                                      \
            for (long r = 0; r < m; r++)                                                                              \
                SIMD for (long j = 0; j < width; j++) sums[j] += g[r * n + from + j];                                 \
            memcpy(out + from, sums, width * sizeof *out);                                                            \
        }                                                                                                             \
    }

COLUMN_SUMS(float, sums_f32)
COLUMN_SUMS(double, sums_f64)

#endif
