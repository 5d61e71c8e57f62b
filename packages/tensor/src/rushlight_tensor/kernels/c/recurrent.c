/* LSTM over a whole sequence: the loop over time, with one product and one pass over the gates per step. */
#include "rushlight.h"
#include "vmath.h"

/*
 * Gates lie as i, f, g, o, `hidden` columns each.  A step's product is cut by gate, four tasks whatever the number of
 * threads: see Note [Same bits].
 */
enum { GATES = 4 };

/* y (rows, n) += or = x (rows, k) w, in four parts of the columns; `w` is (n, k) if `transposed`, else (k, n). */
static void product(bool transposed, long rows, long n, long k, const float *x, const float *w, float beta, float *y) {
    bool shared = (double)rows * n * k > 3e5;
    _Pragma("omp parallel for schedule(static) num_threads(rl_threads()) if (shared)")
    for (long part = 0; part < GATES; part++) {
        long from = n * part / GATES, width = n * (part + 1) / GATES - from;
        if (width) sgemm(false, transposed, rows, width, k, x, k, transposed ? w + from * k : w + from,
            transposed ? k : n, beta, y + from, n);
    }
}

/*
 * x (steps, batch, 4 hidden): projected inputs.  h0, c0 (batch, hidden).  w (4 hidden, hidden).
 * states (2, steps, batch, hidden): h and c of every step.  gates: as x, after their nonlinearities.
 */
EXPORT void lstm_forward(const float *x, const float *h0, const float *c0, const float *w, float *states, float *gates,
    long steps, long batch, long hidden, long reverse) {
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
 * dh, dc (batch, hidden): start at zero, end as the gradients of h0 and c0.
 */
EXPORT void lstm_backward(const float *grad, const float *gates, const float *states, const float *c0, const float *w,
    float *dx, float *dh, float *dc, long steps, long batch, long hidden, long reverse) {
    long size = batch * hidden, wide = GATES * hidden;
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
}
