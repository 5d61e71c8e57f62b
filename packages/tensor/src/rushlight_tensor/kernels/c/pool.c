/* Max and average pooling on NHWC float32; windows are vectorised over the channels. */
#include "rushlight.h"

/* In the order of pool.py's `_geometry`. */
typedef struct {
    int64_t n, h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
} geometry;

INLINE long larger(long a, long b) { return a > b ? a : b; }
INLINE long smaller(long a, long b) { return a < b ? a : b; }

/* `index` holds the position iy * W + ix of each maximum, the first one of several; NaN counts as the largest. */
EXPORT void max_pool(const float *x, float *y, int32_t *index, const int64_t *shape) {
    const geometry *s = (const geometry *)shape;
    PARALLEL_FOR(s->n * s->oh * s->ow * s->c * s->kh * s->kw)
    for (long row = 0; row < s->n * s->oh; row++) {
        const float *image = x + row / s->oh * s->h * s->w * s->c;
        for (long ox = 0; ox < s->ow; ox++) {
            float *best = y + (row * s->ow + ox) * s->c;
            int32_t *where = index + (row * s->ow + ox) * s->c;
            for (long j = 0; j < s->c; j++) { best[j] = -INFINITY; where[j] = -1; }
            for (long t = 0; t < s->kh * s->kw; t++) {
                long iy = row % s->oh * s->stride_h - s->pad_h + t / s->kw * s->dilation_h;
                long ix = ox * s->stride_w - s->pad_w + t % s->kw * s->dilation_w;
                if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
                int32_t at = (int32_t)(iy * s->w + ix);
                const float *from = image + (long)at * s->c;
                SIMD for (long j = 0; j < s->c; j++) {
                    bool take = from[j] > best[j] || from[j] != from[j] || where[j] < 0;
                    best[j] = take ? from[j] : best[j];
                    where[j] = take ? at : where[j];
                }
            }
        }
    }
}

EXPORT void max_pool_backward(const float *g, const int32_t *index, float *dx, const int64_t *shape) {
    const geometry *s = (const geometry *)shape;
    PARALLEL_FOR(s->n * s->h * s->w * s->c)
    for (long image = 0; image < s->n; image++) {
        float *d = dx + image * s->h * s->w * s->c;
        memset(d, 0, s->h * s->w * s->c * sizeof *d);
        for (long p = image * s->oh * s->ow; p < (image + 1) * s->oh * s->ow; p++)
            for (long j = 0; j < s->c; j++) d[index[p * s->c + j] * s->c + j] += g[p * s->c + j];
    }
}

/* The window of an output position inside the image, and how many elements its mean is over. */
typedef struct { long y0, y1, x0, x1, count; } window;

static window window_of(const geometry *s, long oy, long ox, bool count_padding, long divisor) {
    long top = oy * s->stride_h - s->pad_h, left = ox * s->stride_w - s->pad_w;
    long bottom = smaller(top + s->kh, s->h + s->pad_h), right = smaller(left + s->kw, s->w + s->pad_w);
    window v = {larger(top, 0), smaller(bottom, s->h), larger(left, 0), smaller(right, s->w), divisor};
    if (!divisor) v.count = count_padding ? (bottom - top) * (right - left) : (v.y1 - v.y0) * (v.x1 - v.x0);
    return v;
}

EXPORT void avg_pool(const float *x, float *y, const int64_t *shape, long count_padding, long divisor) {
    const geometry *s = (const geometry *)shape;
    PARALLEL_FOR(s->n * s->oh * s->ow * s->c * s->kh * s->kw)
    for (long row = 0; row < s->n * s->oh; row++)
        for (long ox = 0; ox < s->ow; ox++) {
            window v = window_of(s, row % s->oh, ox, count_padding, divisor);
            float *out = y + (row * s->ow + ox) * s->c;
            memset(out, 0, s->c * sizeof *out);
            for (long iy = v.y0; iy < v.y1; iy++)
                for (long ix = v.x0; ix < v.x1; ix++) {
                    const float *from = x + ((row / s->oh * s->h + iy) * s->w + ix) * s->c;
                    SIMD for (long j = 0; j < s->c; j++) out[j] += from[j];
                }
            SIMD for (long j = 0; j < s->c; j++) out[j] /= v.count;
        }
}

EXPORT void avg_pool_backward(const float *g, float *dx, const int64_t *shape, long count_padding, long divisor) {
    const geometry *s = (const geometry *)shape;
    PARALLEL_FOR(s->n * s->h * s->w * s->c)
    for (long image = 0; image < s->n; image++) {
        memset(dx + image * s->h * s->w * s->c, 0, s->h * s->w * s->c * sizeof *dx);
        for (long p = 0; p < s->oh * s->ow; p++) {
            window v = window_of(s, p / s->ow, p % s->ow, count_padding, divisor);
            const float *from = g + (image * s->oh * s->ow + p) * s->c;
            for (long iy = v.y0; iy < v.y1; iy++)
                for (long ix = v.x0; ix < v.x1; ix++) {
                    float *to = dx + ((image * s->h + iy) * s->w + ix) * s->c;
                    SIMD for (long j = 0; j < s->c; j++) to[j] += from[j] / v.count;
                }
        }
    }
}
