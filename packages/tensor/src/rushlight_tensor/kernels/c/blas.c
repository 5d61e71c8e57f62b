/* Matrix products and linear layers through the private BLAS, cut into tiles for our own threads. */
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
 * A batch of products with two batch dimensions, each with its own stride; `ta` and `tb` say that an operand lies
 * transposed. `bias` (n numbers) is added to every row while its tile is still in the cache.
 */
#define BATCHED_GEMM(T, NAME, GEMM)                                                                                   \
    static void NAME(const T *a, const T *b, const T *bias, T *c, bool ta, bool tb, long m, long n, long k, long lda, \
                     long ldb, long ldc, long outer, long inner, const long *sa, const long *sb, const long *sc) {    \
        if (m == 0 || n == 0) return;                                                                                 \
        tiling cut = tiles_of(m, n, k, outer * inner);                                                                \
        long tiles = cut.by_rows * cut.by_columns, tasks = outer * inner * tiles;                                     \
        bool shared = tasks > 1 && (double)m * n * k * outer * inner > 3e5;                                           \
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
            GEMM(ta, tb, rows, columns, k, pa, lda, pb, ldb, 0, pc, ldc);                                             \
            if (!bias) continue;                                                                                      \
            for (long r = 0; r < rows; r++)                                                                           \
                SIMD for (long j = 0; j < columns; j++) pc[r * ldc + j] += bias[left + j];                            \
        }                                                                                                             \
    }

BATCHED_GEMM(float, batched_f32, sgemm)
BATCHED_GEMM(double, batched_f64, dgemm)

EXPORT void gemm_f32(
    EXTENT(span(outer, sa0, inner, sa1, pick(ta, k, m), lda, pick(ta, m, k), 1)) const float *a,
    EXTENT(span(outer, sb0, inner, sb1, pick(tb, n, k), ldb, pick(tb, k, n), 1)) const float *b,
    EXTENT(span(outer, sc0, inner, sc1, m, ldc, n, 1)) float *c, long ta, long tb, long m, long n,
    long k, long lda, long ldb, long ldc, long outer, POSITIVE long inner, long sa0, long sa1, long sb0, long sb1,
    long sc0, long sc1) {
    batched_f32(a, b, 0, c, ta, tb, m, n, k, lda, ldb, ldc, outer, inner, (long[]){sa0, sa1}, (long[]){sb0, sb1},
        (long[]){sc0, sc1});
}

EXPORT void gemm_f64(
    EXTENT(span(outer, sa0, inner, sa1, pick(ta, k, m), lda, pick(ta, m, k), 1)) const double *a,
    EXTENT(span(outer, sb0, inner, sb1, pick(tb, n, k), ldb, pick(tb, k, n), 1)) const double *b,
    EXTENT(span(outer, sc0, inner, sc1, m, ldc, n, 1)) double *c, long ta, long tb, long m, long n,
    long k, long lda, long ldb, long ldc, long outer, POSITIVE long inner, long sa0, long sa1, long sb0, long sb1,
    long sc0, long sc1) {
    batched_f64(a, b, 0, c, ta, tb, m, n, k, lda, ldb, ldc, outer, inner, (long[]){sa0, sa1}, (long[]){sb0, sb1},
        (long[]){sc0, sc1});
}

static const long NO_BATCH[2];

/* y (m, n) = x (m, k) w (n, k)^T + bias */
EXPORT void linear(LENGTH(m * k) const float *x, LENGTH(n * k) const float *w, OPTIONAL LENGTH(n) const float *bias,
    LENGTH(m * n) float *y, long m, long n, long k) {
    batched_f32(x, w, bias, y, false, true, m, n, k, k, k, n, 1, 1, NO_BATCH, NO_BATCH, NO_BATCH);
}

/* dx (m, k) = g (m, n) w (n, k) */
EXPORT void linear_grad_input(LENGTH(m * n) const float *g, LENGTH(n * k) const float *w, LENGTH(m * k) float *dx,
    long m, long n, long k) {
    batched_f32(g, w, 0, dx, false, false, m, k, n, n, k, k, 1, 1, NO_BATCH, NO_BATCH, NO_BATCH);
}

/* dw (n, k) = g (m, n)^T x (m, k) */
EXPORT void linear_grad_weight(LENGTH(m * n) const float *g, LENGTH(m * k) const float *x, LENGTH(n * k) float *dw,
    long m, long n, long k) {
    batched_f32(g, x, 0, dw, true, false, n, k, m, n, k, k, 1, 1, NO_BATCH, NO_BATCH, NO_BATCH);
}

/* out (n) = sums of the columns of g (m, n) */
EXPORT void column_sums(LENGTH(m * n) const float *g, LENGTH(n) float *out, long m, long n) {
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
