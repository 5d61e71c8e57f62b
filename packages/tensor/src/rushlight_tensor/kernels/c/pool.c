/* Max and average pooling on NHWC float32; windows are vectorised over the channels. */
#include "rushlight.h"

typedef struct {
    int64_t n, h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
} geometry;

INLINE long larger(long a, long b) { return a > b ? a : b; }
INLINE long smaller(long a, long b) { return a < b ? a : b; }

/* The taps of a window from `start` on that lie on one of `size` elements. */
typedef struct { long from, to; } span;

static span taps_inside(long start, long size, long taps, long dilation) {
    long from = start < 0 ? (-start + dilation - 1) / dilation : 0;
    long to = start < size ? (size - 1 - start) / dilation + 1 : 0;
    return (span){from, smaller(to, taps)};
}

/* `index` holds the position iy * W + ix of each maximum, the first one of several; NaN counts as the largest.  A
 * window that holds no element at all gives -infinity and the position -1. */
EXPORT void max_pool(IMAGE LENGTH(n * h * w * c) const float *x, IMAGE LENGTH(n * oh * ow * c) float *y,
    IMAGE LENGTH(n * oh * ow * c) int32_t *index, long n, long h, long w, long c, long oh, long ow, POSITIVE long kh, POSITIVE long kw,
    POSITIVE long stride_h, POSITIVE long stride_w, long pad_h, long pad_w,
    POSITIVE long dilation_h, POSITIVE long dilation_w) {
    const geometry given = {n, h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w}, *s = &given;
    PARALLEL_FOR((double)s->n * s->oh * s->ow * s->c * s->kh * s->kw)
    for (long row = 0; row < s->n * s->oh; row++) {
        const float *image = x + row / s->oh * s->h * s->w * s->c;
        long top = row % s->oh * s->stride_h - s->pad_h;
        span y_taps = taps_inside(top, s->h, s->kh, s->dilation_h);
        for (long ox = 0; ox < s->ow; ox++) {
            long left = ox * s->stride_w - s->pad_w;
            span x_taps = taps_inside(left, s->w, s->kw, s->dilation_w);
            float *best = y + (row * s->ow + ox) * s->c;
            int32_t *where = index + (row * s->ow + ox) * s->c;
            for (long j = 0; j < s->c; j++) { best[j] = -INFINITY; where[j] = -1; }
            for (long ty = y_taps.from; ty < y_taps.to; ty++)
                for (long tx = x_taps.from; tx < x_taps.to; tx++) {
                    int32_t at = (int32_t)((top + ty * s->dilation_h) * s->w + left + tx * s->dilation_w);
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

/* The same with the positions as users know them, in 64 bits. */
EXPORT void max_pool_with_indices(IMAGE LENGTH(n * h * w * c) const float *x, IMAGE LENGTH(n * oh * ow * c) float *y,
    IMAGE LENGTH(n * oh * ow * c) int64_t *index, SCRATCH LENGTH(n * oh * ow * c) int32_t *work, long n, long h, long w,
    long c, long oh, long ow, POSITIVE long kh, POSITIVE long kw, POSITIVE long stride_h, POSITIVE long stride_w,
    long pad_h, long pad_w, POSITIVE long dilation_h, POSITIVE long dilation_w) {
    max_pool(x, y, work, n, h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w);
    PARALLEL_FOR(n * oh * ow * c)
    for (long i = 0; i < n * oh * ow * c; i++) index[i] = work[i];
}

/* Each g goes to the position of its maximum, or nowhere (-1).  Returns 0, or 1 + the first index that is no position. */
#define TO_MAXIMA(T)                                                                                                  \
    {                                                                                                                 \
        long positions = h * w, wrong = n * oh * ow * c, none = wrong;                                                \
        PARALLEL_FOR_FIRST(n * h * w * c, wrong)                                                                      \
        for (long image = 0; image < n; image++) {                                                                    \
            float *d = dx + image * positions * c;                                                                    \
            memset(d, 0, positions * c * sizeof *d);                                                                  \
            for (long p = image * oh * ow; p < (image + 1) * oh * ow; p++)                                            \
                for (long j = 0; j < c; j++) {                                                                        \
                    long i = p * c + j, at = *(const volatile T *)&index[i];                                          \
                    if (at >= 0 && at < positions) d[at * c + j] += g[i];                                             \
                    else if (at != -1) wrong = smaller(wrong, i);                                                     \
                }                                                                                                     \
        }                                                                                                             \
        return wrong < none ? 1 + wrong : 0;                                                                          \
    }

EXPORT long max_pool_backward(IMAGE LENGTH(n * oh * ow * c) const float *g,
    IMAGE LENGTH(n * oh * ow * c) const int32_t *index, IMAGE LENGTH(n * h * w * c) float *dx, long n, long h, long w,
    long c, long oh, long ow)
TO_MAXIMA(int32_t)

EXPORT long max_pool_with_indices_backward(IMAGE LENGTH(n * oh * ow * c) const float *g,
    IMAGE LENGTH(n * oh * ow * c) const int64_t *index, IMAGE LENGTH(n * h * w * c) float *dx, long n, long h, long w,
    long c, long oh, long ow)
TO_MAXIMA(int64_t)

/* The window of an output position inside the image, and how many elements its mean is over. */
typedef struct { long y0, y1, x0, x1; float count; } window;

static window window_of(const geometry *s, long oy, long ox, bool count_padding, long divisor) {
    long top = oy * s->stride_h - s->pad_h, left = ox * s->stride_w - s->pad_w;
    long bottom = smaller(top + s->kh, s->h + s->pad_h), right = smaller(left + s->kw, s->w + s->pad_w);
    window v = {larger(top, 0), smaller(bottom, s->h), larger(left, 0), smaller(right, s->w), divisor};
    double h = count_padding ? bottom - top : v.y1 - v.y0, w = count_padding ? right - left : v.x1 - v.x0;
    if (!divisor) v.count = h * w; /* in double: the sizes of windows that are nowhere near the image may be anything */
    return v;
}

EXPORT void avg_pool(IMAGE LENGTH(n * h * w * c) const float *x, IMAGE LENGTH(n * oh * ow * c) float *y, long n, long h, long w,
    long c, long oh, long ow, POSITIVE long kh, POSITIVE long kw, POSITIVE long stride_h, POSITIVE long stride_w,
    long pad_h, long pad_w,
    long count_padding, long divisor) {
    const geometry given = {n, h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w, 1, 1}, *s = &given;
    PARALLEL_FOR((double)s->n * s->oh * s->ow * s->c * s->kh * s->kw)
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

EXPORT void avg_pool_backward(IMAGE LENGTH(n * oh * ow * c) const float *g, IMAGE LENGTH(n * h * w * c) float *dx, long n, long h,
    long w, long c, long oh, long ow, POSITIVE long kh, POSITIVE long kw, POSITIVE long stride_h, POSITIVE long stride_w,
    long pad_h, long pad_w,
    long count_padding, long divisor) {
    const geometry given = {n, h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w, 1, 1}, *s = &given;
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
