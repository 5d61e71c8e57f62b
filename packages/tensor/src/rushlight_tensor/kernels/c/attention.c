/* Scaled dot-product attention, softmax(q k^T * scale) v, without ever holding the whole (T, S) matrix of one head. */
#include "vmath.h"

/*
 * Note [Attention by blocks]
 *     A task is one head.  Its queries are taken in blocks of QUERIES rows: scores of a block against all keys that it
 *     may see, softmax, product with the values.  For the backward pass only the logarithm of each row's sum (and its
 *     maximum) is kept, and the probabilities are computed again (Dao et al., 2022, on a CPU's terms).  With `causal`,
 *     query i sees keys 0..i, so a block needs the keys up to its last row only, and half of the work falls away.
 */
enum { QUERIES = 64 };

typedef struct { long batch, head, row; } strides; /* in elements; the last dimension is contiguous */

INLINE const float *at(const float *x, strides s, long b, long h) { return x + b * s.batch + h * s.head; }
INLINE float *out_at(float *x, strides s, long b, long h) { return x + b * s.batch + h * s.head; }

/* What all kernels are told: how large, and where the batches, heads and rows of each array begin. */
#define SIZES long batch, long heads, long queries, long keys, long depth, long value_depth, long causal, double scale, \
    long threads, long q_batch, long q_head, long q_row, long k_batch, long k_head, long k_row, long v_batch, \
    long v_head, long v_row

/* In place: scores to probabilities, row by row; keys that a row must not see get 0. */
static void softmax_block(float *restrict p, float *restrict stats, long rows, long keys, long first, bool causal,
    float scale) {
    float sign = scale < 0 ? -1.f : 1.f;
    for (long i = 0; i < rows; i++) {
        float *row = p + i * keys, m = -INFINITY, sum = 0;
        long seen = causal ? least(first + i + 1, keys) : keys;
        SIMD_MAX(m) for (long j = 0; j < seen; j++) m = sign * row[j] > m ? sign * row[j] : m;
        m *= sign; /* the score whose product with the scale is the largest: its exponent is 0, not a rounding error */
        SIMD_SUM(sum) for (long j = 0; j < seen; j++) { float e = vexp((row[j] - m) * scale); row[j] = e; sum += e; }
        float inverse = 1.f / sum;
        SIMD for (long j = 0; j < seen; j++) row[j] *= inverse;
        if (seen < keys) memset(row + seen, 0, (keys - seen) * sizeof *row);
        stats[2 * i] = m;
        stats[2 * i + 1] = inverse;
    }
}

/* No mask: that is left to the NumPy text. */
EXPORT void attention(EXTENT(span(batch, q_batch, heads, q_head, queries, q_row, depth, 1)) const float *q,
    EXTENT(span(batch, k_batch, heads, k_head, keys, k_row, depth, 1)) const float *k,
    EXTENT(span(batch, v_batch, heads, v_head, keys, v_row, value_depth, 1)) const float *v,
    OPTIONAL LENGTH(0) const float *mask,
    EXTENT(span(batch, out_batch, heads, out_head, queries, out_row, value_depth, 1)) float *out,
    LENGTH(2 * batch * heads * queries) float *stats, SCRATCH LENGTH(threads * 64 * keys) float *scores, SIZES,
    long out_batch, long out_head, long out_row) {
    strides sq = {q_batch, q_head, q_row}, sk = {k_batch, k_head, k_row}, sv = {v_batch, v_head, v_row};
    strides so = {out_batch, out_head, out_row};
    long work = batch * heads * queries * keys * depth;
    _Pragma("omp parallel num_threads((int)threads) if (work > 16384)")
    {
        float *p = scores + rl_thread() * QUERIES * keys;
        _Pragma("omp for schedule(dynamic, 1)")
        for (long task = 0; task < batch * heads; task++) {
            long b = task / heads, h = task % heads;
            const float *qh = at(q, sq, b, h), *kh = at(k, sk, b, h), *vh = at(v, sv, b, h);
            float *oh = out_at(out, so, b, h);
            for (long first = 0; first < queries; first += QUERIES) {
                long rows = least(QUERIES, queries - first), seen = causal ? least(keys, first + rows) : keys;
                sgemm(false, true, rows, seen, depth, qh + first * sq.row, sq.row, kh, sk.row, 0, p, seen);
                softmax_block(p, stats + 2 * (task * queries + first), rows, seen, first, causal, (float)scale);
                sgemm(false, false, rows, value_depth, seen, p, seen, vh, sv.row, 0, oh + first * so.row, so.row);
            }
        }
    }
}

/* ds = p (dp - sum(p dp)) scale, with dp = g v^T; p comes from the scores and the row's saved (max, 1 / sum). */
static void score_gradient(float *restrict p, float *restrict dp, const float *restrict stats, long rows, long keys,
    long first, bool causal, float scale) {
    for (long i = 0; i < rows; i++) {
        float *row = p + i * keys, *d = dp + i * keys, m = stats[2 * i], inverse = stats[2 * i + 1], sum = 0;
        long seen = causal ? least(first + i + 1, keys) : keys;
        SIMD_SUM(sum) for (long j = 0; j < seen; j++) {
            float e = vexp((row[j] - m) * scale) * inverse;
            row[j] = e;
            sum += e * d[j];
        }
        SIMD for (long j = 0; j < seen; j++) d[j] = row[j] * (d[j] - sum) * scale;
        if (seen < keys) {
            memset(row + seen, 0, (keys - seen) * sizeof *row);
            memset(d + seen, 0, (keys - seen) * sizeof *d);
        }
    }
}

static void clear(float *x, long row_step, long rows, long n) {
    for (long r = 0; r < rows; r++) memset(x + r * row_step, 0, n * sizeof *x);
}

EXPORT void attention_backward(
    EXTENT(span(batch, g_batch, heads, g_head, queries, g_row, value_depth, 1)) const float *g,
    EXTENT(span(batch, q_batch, heads, q_head, queries, q_row, depth, 1)) const float *q,
    EXTENT(span(batch, k_batch, heads, k_head, keys, k_row, depth, 1)) const float *k,
    EXTENT(span(batch, v_batch, heads, v_head, keys, v_row, value_depth, 1)) const float *v,
    OPTIONAL LENGTH(0) const float *mask, LENGTH(2 * batch * heads * queries) const float *stats,
    OPTIONAL EXTENT(span(batch, dq_batch, heads, dq_head, queries, dq_row, depth, 1)) float *dq,
    OPTIONAL EXTENT(span(batch, dk_batch, heads, dk_head, keys, dk_row, depth, 1)) float *dk,
    OPTIONAL EXTENT(span(batch, dv_batch, heads, dv_head, keys, dv_row, value_depth, 1)) float *dv,
    SCRATCH LENGTH(threads * 128 * keys) float *scores, SIZES, long g_batch, long g_head, long g_row,
    long dq_batch, long dq_head, long dq_row, long dk_batch, long dk_head, long dk_row,
    long dv_batch, long dv_head, long dv_row) {
    strides s[7] = {{g_batch, g_head, g_row}, {q_batch, q_head, q_row}, {k_batch, k_head, k_row},
        {v_batch, v_head, v_row}, {dq_batch, dq_head, dq_row}, {dk_batch, dk_head, dk_row},
        {dv_batch, dv_head, dv_row}};
    long work = batch * heads * queries * keys * depth;
    _Pragma("omp parallel num_threads((int)threads) if (work > 16384)")
    {
        float *p = scores + rl_thread() * 2 * QUERIES * keys, *dp = p + QUERIES * keys;
        _Pragma("omp for schedule(dynamic, 1)")
        for (long task = 0; task < batch * heads; task++) {
            long b = task / heads, h = task % heads;
            const float *gh = at(g, s[0], b, h), *qh = at(q, s[1], b, h), *kh = at(k, s[2], b, h);
            const float *vh = at(v, s[3], b, h);
            float *dqh = dq ? out_at(dq, s[4], b, h) : 0, *dkh = dk ? out_at(dk, s[5], b, h) : 0;
            float *dvh = dv ? out_at(dv, s[6], b, h) : 0;
            if (causal || !queries) { /* keys beyond the first block are first reached by a later one */
                if (dk) clear(dkh, s[5].row, keys, depth);
                if (dv) clear(dvh, s[6].row, keys, value_depth);
            }
            for (long first = 0; first < queries; first += QUERIES) {
                long rows = least(QUERIES, queries - first), seen = causal ? least(keys, first + rows) : keys;
                const float *qb = qh + first * s[1].row, *gb = gh + first * s[0].row;
                float beta = causal || first ? 1.f : 0.f;
                sgemm(false, true, rows, seen, depth, qb, s[1].row, kh, s[2].row, 0, p, seen);
                sgemm(false, true, rows, seen, value_depth, gb, s[0].row, vh, s[3].row, 0, dp, seen);
                score_gradient(p, dp, stats + 2 * (task * queries + first), rows, seen, first, causal, (float)scale);
                if (dv) sgemm(true, false, seen, value_depth, rows, p, seen, gb, s[0].row, beta, dvh, s[6].row);
                if (dq) sgemm(false, false, rows, depth, seen, dp, seen, kh, s[2].row, 0, dqh + first * s[4].row, s[4].row);
                if (dk) sgemm(true, false, seen, depth, rows, dp, seen, qb, s[1].row, beta, dkh, s[5].row);
            }
        }
    }
}
