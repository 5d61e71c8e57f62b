/* LSTM and GRU over a whole sequence: the loop over time, with one product and one pass over the gates per step. */
#include "gemm.h"
#include "vmath.h"

/*
 * Gates of an LSTM lie as i, f, g, o, those of a GRU as r, z, n, `hidden` columns each.  A step's product is cut into
 * four tasks whatever the number of threads: see Note [Same bits].
 */
enum { GATES = 4, PARTS = 4 };

/* y (rows, n) = x (rows, k) w + beta y, in four parts of the columns; `w` is (n, k) if `transposed`, else (k, n). */
static void product(bool transposed, long rows, long n, long k, const float *x, const float *w, float beta, float *y) {
    bool shared = (double)rows * n * k > 3e5;
    _Pragma("omp parallel for schedule(static) num_threads(rl_threads()) if (shared)")
    for (long part = 0; part < PARTS; part++) {
        long from = n * part / PARTS, width = n * (part + 1) / PARTS - from;
        if (width && rows) sgemm(false, transposed, rows, width, k, x, k, transposed ? w + from * k : w + from,
            transposed ? k : n, beta, y + from, n);
    }
}

/* before (steps, batch, hidden): the state that each step began with. */
static void states_before(const float *h0, const float *hs, long steps, long size, bool reverse, float *before) {
    if (steps == 0) return;
    memcpy(before + (reverse ? steps - 1 : 0) * size, h0, size * sizeof *before);
    memcpy(before + (reverse ? 0 : size), hs + (reverse ? size : 0), (steps - 1) * size * sizeof *before);
}

/*
 * x (steps, batch, 4 hidden): projected inputs.  h0, c0 (batch, hidden).  w (4 hidden, hidden).
 * states (2, steps, batch, hidden): h and c of every step.  gates: as x, after their nonlinearities.
 */
EXPORT void lstm_forward(LENGTH(steps * batch * 4 * hidden) const float *x, LENGTH(batch * hidden) const float *h0,
    LENGTH(batch * hidden) const float *c0, LENGTH(4 * hidden * hidden) const float *w,
    LENGTH(2 * steps * batch * hidden) float *states, LENGTH(steps * batch * 4 * hidden) float *gates, long steps,
    long batch, long hidden, long reverse) {
    long size = batch * hidden, wide = GATES * hidden;
    float *hs = states, *cs = states + steps * size;
    const float *h_before = h0, *c_before = c0;
    for (long s = 0; s < steps; s++) {
        long t = reverse ? steps - 1 - s : s;
        float *gate = gates + t * batch * wide, *h = hs + t * size, *c = cs + t * size;
        memcpy(gate, x + t * batch * wide, batch * wide * sizeof *gate);
        product(true, batch, wide, hidden, h_before, w, 1.f, gate);
        PARALLEL_FOR(batch * wide)
        for (long b = 0; b < batch; b++) {
            float *gi = gate + b * wide, *gf = gi + hidden, *gg = gf + hidden, *go = gg + hidden;
            const float *cb = c_before + b * hidden;
            float *hb = h + b * hidden, *cn = c + b * hidden;
            SIMD for (long j = 0; j < hidden; j++) {
                float i = vsigmoid(gi[j]), f = vsigmoid(gf[j]), g = vtanh(gg[j]), o = vsigmoid(go[j]);
                float now = f * cb[j] + i * g;
                gi[j] = i; gf[j] = f; gg[j] = g; go[j] = o;
                cn[j] = now;
                hb[j] = o * vtanh(now);
            }
        }
        h_before = h;
        c_before = c;
    }
}

/*
 * grad (2, steps, batch, hidden): gradients of the states.  dx: as gates, the gradients of the projected inputs.
 * dh, dc (batch, hidden): the gradients of h0 and c0.  dw: that of w, one product over all steps at once.
 */
EXPORT void lstm_backward(LENGTH(2 * steps * batch * hidden) const float *grad,
    LENGTH(steps * batch * 4 * hidden) const float *x, LENGTH(batch * hidden) const float *h0,
    LENGTH(batch * hidden) const float *c0, LENGTH(4 * hidden * hidden) const float *w,
    LENGTH(2 * steps * batch * hidden) const float *states, LENGTH(steps * batch * 4 * hidden) const float *gates,
    OPTIONAL LENGTH(steps * batch * 4 * hidden) float *dx, OPTIONAL LENGTH(batch * hidden) float *dh,
    OPTIONAL LENGTH(batch * hidden) float *dc, OPTIONAL LENGTH(4 * hidden * hidden) float *dw,
    SCRATCH LENGTH(steps * batch * 4 * hidden) float *own_dx, SCRATCH LENGTH(2 * batch * hidden) float *own_state,
    SCRATCH LENGTH(steps * batch * hidden) float *before_steps, long steps, long batch, long hidden, long reverse) {
    long size = batch * hidden, wide = GATES * hidden;
    dx = dx ? dx : own_dx, dh = dh ? dh : own_state, dc = dc ? dc : own_state + size;
    memset(dh, 0, size * sizeof *dh);
    memset(dc, 0, size * sizeof *dc);
    const float *cs = states + steps * size;
    for (long s = steps - 1; s >= 0; s--) {
        long t = reverse ? steps - 1 - s : s, before = reverse ? t + 1 : t - 1;
        const float *gate = gates + t * batch * wide, *c = cs + t * size, *cb = s ? cs + before * size : c0;
        const float *gh = grad + t * size, *gc = gh + steps * size;
        float *out = dx + t * batch * wide;
        PARALLEL_FOR(batch * wide)
        for (long b = 0; b < batch; b++) {
            const float *gi = gate + b * wide, *gf = gi + hidden, *gg = gf + hidden, *go = gg + hidden;
            float *di = out + b * wide, *df = di + hidden, *dg = df + hidden, *d_o = dg + hidden;
            long row = b * hidden;
            SIMD for (long j = 0; j < hidden; j++) {
                float i = gi[j], f = gf[j], g = gg[j], o = go[j], th = vtanh(c[row + j]);
                float h = dh[row + j] + gh[row + j];
                float cell = dc[row + j] + gc[row + j] + h * o * (1.f - th * th);
                di[j] = cell * g * i * (1.f - i);
                df[j] = cell * cb[row + j] * f * (1.f - f);
                dg[j] = cell * i * (1.f - g * g);
                d_o[j] = h * th * o * (1.f - o);
                dc[row + j] = cell * f;
            }
        }
        product(false, batch, hidden, wide, out, w, 0.f, dh);
    }
    if (!dw) return;
    states_before(h0, states, steps, size, reverse, before_steps);
    batched_f32(dx, before_steps, 0, dw, true, false, wide, hidden, steps * batch, wide, hidden, hidden, 1, 1, NO_BATCH,
        NO_BATCH, NO_BATCH);
}

/*
 * x (steps, batch, 3 hidden): projected inputs.  h0 (batch, hidden).  w (3 hidden, hidden), bias (3 hidden).
 * hs (steps, batch, hidden).  kept (steps, batch, 4 hidden): r, z, n, and the recurrent part of n.
 */
EXPORT void gru_forward(LENGTH(steps * batch * 3 * hidden) const float *x, LENGTH(batch * hidden) const float *h0,
    LENGTH(3 * hidden * hidden) const float *w, LENGTH(3 * hidden) const float *bias,
    LENGTH(steps * batch * hidden) float *hs, LENGTH(steps * batch * 4 * hidden) float *kept,
    SCRATCH LENGTH(batch * 3 * hidden) float *scratch, long steps, long batch, long hidden, long reverse) {
    long size = batch * hidden, wide = 3 * hidden;
    const float *h_before = h0;
    for (long s = 0; s < steps; s++) {
        long t = reverse ? steps - 1 - s : s;
        float *h = hs + t * size;
        for (long b = 0; b < batch; b++) memcpy(scratch + b * wide, bias, wide * sizeof *scratch);
        product(true, batch, wide, hidden, h_before, w, 1.f, scratch);
        PARALLEL_FOR(batch * wide)
        for (long b = 0; b < batch; b++) {
            const float *xr = x + (t * batch + b) * wide, *xz = xr + hidden, *xn = xz + hidden;
            const float *ar = scratch + b * wide, *az = ar + hidden, *an = az + hidden;
            float *kr = kept + (t * batch + b) * 4 * hidden, *kz = kr + hidden, *kn = kz + hidden, *ka = kn + hidden;
            const float *hb = h_before + b * hidden;
            float *out = h + b * hidden;
            SIMD for (long j = 0; j < hidden; j++) {
                float r = vsigmoid(xr[j] + ar[j]), z = vsigmoid(xz[j] + az[j]), n = vtanh(xn[j] + r * an[j]);
                kr[j] = r; kz[j] = z; kn[j] = n; ka[j] = an[j];
                out[j] = n + z * (hb[j] - n);
            }
        }
        h_before = h;
    }
}

/*
 * grad, hs (steps, batch, hidden).  dx, da (steps, batch, 3 hidden): gradients of the projected inputs and of the
 * recurrent parts.  dh (batch, hidden), dw, db: gradients of h0, w and the bias.
 */
EXPORT void gru_backward(LENGTH(steps * batch * hidden) const float *grad,
    LENGTH(steps * batch * 3 * hidden) const float *x, LENGTH(batch * hidden) const float *h0,
    LENGTH(3 * hidden * hidden) const float *w, LENGTH(3 * hidden) const float *bias,
    LENGTH(steps * batch * hidden) const float *hs, LENGTH(steps * batch * 4 * hidden) const float *kept,
    OPTIONAL LENGTH(steps * batch * 3 * hidden) float *dx, OPTIONAL LENGTH(batch * hidden) float *dh,
    OPTIONAL LENGTH(3 * hidden * hidden) float *dw, OPTIONAL LENGTH(3 * hidden) float *db,
    SCRATCH LENGTH(steps * batch * 3 * hidden) float *own_dx, SCRATCH LENGTH(steps * batch * 3 * hidden) float *da,
    SCRATCH LENGTH(2 * batch * hidden) float *own_state, SCRATCH LENGTH(steps * batch * hidden) float *before_steps,
    long steps, long batch, long hidden, long reverse) {
    long size = batch * hidden, wide = 3 * hidden;
    float *scratch = own_state + size;
    dx = dx ? dx : own_dx, dh = dh ? dh : own_state;
    memset(dh, 0, size * sizeof *dh);
    for (long s = steps - 1; s >= 0; s--) {
        long t = reverse ? steps - 1 - s : s, before = reverse ? t + 1 : t - 1;
        const float *h_before = s ? hs + before * size : h0;
        PARALLEL_FOR(batch * wide)
        for (long b = 0; b < batch; b++) {
            const float *kr = kept + (t * batch + b) * 4 * hidden, *kz = kr + hidden, *kn = kz + hidden;
            const float *ka = kn + hidden, *g = grad + t * size + b * hidden, *hb = h_before + b * hidden;
            float *xr = dx + (t * batch + b) * wide, *xz = xr + hidden, *xn = xz + hidden;
            float *ar = da + (t * batch + b) * wide, *az = ar + hidden, *an = az + hidden;
            float *carry = dh + b * hidden;
            SIMD for (long j = 0; j < hidden; j++) {
                float r = kr[j], z = kz[j], n = kn[j], d = carry[j] + g[j];
                float dz = d * (hb[j] - n) * z * (1.f - z), dn = d * (1.f - z) * (1.f - n * n);
                float dr = dn * ka[j] * r * (1.f - r);
                xr[j] = ar[j] = dr;
                xz[j] = az[j] = dz;
                xn[j] = dn;
                an[j] = dn * r;
                carry[j] = d * z;
            }
        }
        product(false, batch, hidden, wide, da + t * batch * wide, w, 0.f, scratch);
        SIMD for (long j = 0; j < size; j++) dh[j] += scratch[j];
    }
    if (db) sums_f32(da, db, steps * batch, wide);
    if (!dw) return;
    states_before(h0, hs, steps, size, reverse, before_steps);
    batched_f32(da, before_steps, 0, dw, true, false, wide, hidden, steps * batch, wide, hidden, hidden, 1, 1, NO_BATCH,
        NO_BATCH, NO_BATCH);
}
