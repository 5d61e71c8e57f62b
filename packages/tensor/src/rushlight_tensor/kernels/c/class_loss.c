/*
 * Losses of class indices on float32: rows of logits or log-probabilities, a class for each row.  A row whose class is
 * `ignore_index` does not count.  All return 0, or 1 + the first row whose class does not exist.
 */
#include "rows.h"

enum { NONE, SUM, MEAN }; /* what `reduction` is: each row's loss, their sum, or the mean, weighted by class */

/* What the mean is divided by: the weights of the classes of the rows that count; `*wrong` as in all loops here. */
static double divisor(const int64_t *target, const float *w, long rows, long n, long ignore, long reduction, long *wrong) {
    if (reduction != MEAN) return 1;
    double total = 0;
    for (long r = 0; r < rows; r++) {
        long t = READ_ONCE(target[r]);
        if (t == ignore) continue;
        if (t < 0 || t >= n) { *wrong = r < *wrong ? r : *wrong; continue; }
        total += w ? w[t] : 1;
    }
    return total;
}

/* The sum of the rows' losses over `by`, where that is wanted. */
static void reduce(const float *each, float *loss, long rows, long reduction, double by) {
    double sum = 0;
    SIMD_SUM(sum) for (long r = 0; r < rows; r++) sum += each[r];
    *loss = (float)(sum / by); /* 0 / 0 where no row counts: NaN, as in PyTorch */
}

/*
 * Loss of each row against its class, of logits.  `stats` keeps (max, log of the sum) of each row for the gradient: as
 * two numbers, because their sum would round away what the softmax needs when the logits are large.
 *     loss = (1 - smoothing) w[t] (lse - x[t]) + smoothing / n * sum_j w[j] (lse - x[j])
 */
EXPORT long cross_entropy(IMAGE LENGTH(rows * n) const float *x, LENGTH(rows) const int64_t *target,
    OPTIONAL LENGTH(n) const float *w, LENGTH(pick(reduction, 1, rows)) float *loss, LENGTH(2 * rows) float *stats,
    SCRATCH LENGTH(pick(reduction, rows, 0)) float *work, long rows, long n, long reduction, long ignore_index,
    double label_smoothing) {
    long wrong = rows;
    float *each = reduction ? work : loss;
    PARALLEL_FOR_FIRST(rows * n, wrong)
    for (long r = 0; r < rows; r++) {
        const float *xr = x + r * n;
        float m = row_max(xr, n), sum = row_sum_exp(xr, m, n), log_sum = logf(sum);
        long t = READ_ONCE(target[r]);
        stats[2 * r] = m;
        stats[2 * r + 1] = log_sum;
        if (t == ignore_index) { each[r] = 0; continue; }
        if (t < 0 || t >= n) { wrong = r < wrong ? r : wrong; continue; }
        float nll = (log_sum - (xr[t] - m)) * (w ? w[t] : 1.f);
        if (label_smoothing != 0) {
            float all = 0;
            if (w) { SIMD_SUM(all) for (long j = 0; j < n; j++) all += w[j] * (log_sum - (xr[j] - m)); }
            else { SIMD_SUM(all) for (long j = 0; j < n; j++) all += log_sum - (xr[j] - m); }
            nll = (float)(1 - label_smoothing) * nll + (float)(label_smoothing / n) * all;
        }
        each[r] = nll;
    }
    double by = divisor(target, w, rows, n, ignore_index, reduction, &wrong);
    if (reduction && wrong == rows) reduce(each, loss, rows, reduction, by);
    return wrong < rows ? 1 + wrong : 0;
}

/*
 * dx = g_r [ (softmax(x)_j) (sum of the class weights in the loss) - (class weights in the loss)_j ].  The classes may
 * have changed since the forward pass.
 */
EXPORT long cross_entropy_backward(LENGTH(pick(reduction, 1, rows)) const float *g,
    IMAGE LENGTH(rows * n) const float *x, LENGTH(rows) const int64_t *target, OPTIONAL LENGTH(n) const float *w,
    LENGTH(2 * rows) const float *stats, IMAGE LENGTH(rows * n) float *dx, long rows, long n, long reduction,
    long ignore_index, double label_smoothing) {
    long wrong = rows;
    float each = (float)(label_smoothing / n), hit = (float)(1 - label_smoothing), smooth_total = (float)label_smoothing;
    if (w) {
        smooth_total = 0;
        for (long j = 0; j < n; j++) smooth_total += each * w[j];
    }
    double by = divisor(target, w, rows, n, ignore_index, reduction, &wrong);
    PARALLEL_FOR_FIRST(rows * n, wrong)
    for (long r = 0; r < rows; r++) {
        const float *xr = x + r * n;
        float *out = dx + r * n, gr = reduction ? (float)(g[0] / by) : g[r];
        long t = READ_ONCE(target[r]);
        if (t == ignore_index) { memset(out, 0, n * sizeof *out); continue; }
        if (t < 0 || t >= n) { wrong = r < wrong ? r : wrong; continue; }
        float on_target = hit * (w ? w[t] : 1.f), total = (on_target + smooth_total) * gr, m = stats[2 * r],
            log_sum = stats[2 * r + 1];
        SIMD for (long j = 0; j < n; j++) out[j] = vexp((xr[j] - m) - log_sum) * total;
        if (label_smoothing != 0) {
            if (w) { SIMD for (long j = 0; j < n; j++) out[j] -= gr * each * w[j]; }
            else { SIMD for (long j = 0; j < n; j++) out[j] -= gr * each; }
        }
        out[t] -= gr * on_target;
    }
    return wrong < rows ? 1 + wrong : 0;
}

/* Minus the weighted log-probability of each row's class. */
EXPORT long nll_loss(IMAGE LENGTH(rows * n) const float *x, LENGTH(rows) const int64_t *target,
    OPTIONAL LENGTH(n) const float *w, LENGTH(pick(reduction, 1, rows)) float *loss,
    SCRATCH LENGTH(pick(reduction, rows, 0)) float *work, long rows, long n, long reduction, long ignore_index) {
    long wrong = rows;
    float *each = reduction ? work : loss;
    for (long r = 0; r < rows; r++) {
        long t = READ_ONCE(target[r]);
        if (t == ignore_index) each[r] = 0;
        else if (t < 0 || t >= n) wrong = r < wrong ? r : wrong;
        else each[r] = -(w ? w[t] : 1.f) * x[r * n + t];
    }
    double by = divisor(target, w, rows, n, ignore_index, reduction, &wrong);
    if (reduction && wrong == rows) reduce(each, loss, rows, reduction, by);
    return wrong < rows ? 1 + wrong : 0;
}

/* dx is zero but at the classes. */
EXPORT long nll_loss_backward(LENGTH(pick(reduction, 1, rows)) const float *g,
    IMAGE LENGTH(rows * n) const float *x, LENGTH(rows) const int64_t *target, OPTIONAL LENGTH(n) const float *w,
    IMAGE LENGTH(rows * n) float *dx, long rows, long n, long reduction, long ignore_index) {
    long wrong = rows;
    double by = divisor(target, w, rows, n, ignore_index, reduction, &wrong);
    PARALLEL_FOR_FIRST(rows * n, wrong)
    for (long r = 0; r < rows; r++) {
        float *out = dx + r * n, gr = reduction ? (float)(g[0] / by) : g[r];
        long t = READ_ONCE(target[r]);
        memset(out, 0, n * sizeof *out);
        if (t == ignore_index) continue;
        if (t < 0 || t >= n) wrong = r < wrong ? r : wrong;
        else out[t] = -(w ? w[t] : 1.f) * gr;
    }
    return wrong < rows ? 1 + wrong : 0;
}
