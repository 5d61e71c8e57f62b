/* Optimizer steps, gradient norms and scaling over whole lists of contiguous float32 arrays: one call per step. */
#include "rushlight.h"

/*
 * A list of arrays is worked through in chunks of at most CHUNK elements.  The chunks are what threads share, and in the
 * norm each chunk is one partial sum, so the result does not depend on the number of threads.
 */
enum { CHUNK = 16384, SUMMED = 512 };

static long chunks_of(long size) { return (size + CHUNK - 1) / CHUNK; }

static long all_chunks(const int64_t *sizes, long arrays, long *total) {
    long count = 0;
    *total = 0;
    for (long a = 0; a < arrays; a++) {
        count += chunks_of(sizes[a]);
        *total += sizes[a];
    }
    return count;
}

/* The array of chunk c, of those of a whole list; `*from` is where it begins there. */
static long array_of(const int64_t *sizes, long c, long *from) {
    long a = 0;
    for (; c >= chunks_of(sizes[a]); a++) c -= chunks_of(sizes[a]);
    *from = c * CHUNK;
    return a;
}

/* The gradient with weight decay; without, not even 0 times a parameter, which may be infinite. */
#define DECAYED(g, p) (l2 != 0.f ? (g) + l2 * (p) : (g))

#define EACH_CHUNK(...)                                                                                                \
    {                                                                                                                  \
        long total, count = all_chunks(sizes, arrays, &total);                                                         \
        PARALLEL_FOR(total)                                                                                            \
        for (long c = 0; c < count; c++) {                                                                             \
            long from, array = array_of(sizes, c, &from), left = sizes[array] - from, n = left < CHUNK ? left : CHUNK; \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    }

/*
 * Adam (Kingma and Ba, 2015) and, with `decoupled`, AdamW (Loshchilov and Hutter, 2019), element by element in the
 * order of PyTorch's single-tensor code.  `steps` counts the steps of each array.
 */
EXPORT void adam(INOUT LENGTH(arrays, sizes[i]) float *const *params, INOUT LENGTH(arrays, 1) float *const *steps,
    INOUT LENGTH(arrays, sizes[i]) float *const *means, INOUT LENGTH(arrays, sizes[i]) float *const *squares,
    LENGTH(arrays, sizes[i]) const float *const *grads, LENGTH(arrays) const int64_t *sizes, long arrays, double lr,
    double beta1, double beta2, double eps, double weight_decay, long decoupled, long maximize) {
    for (long a = 0; a < arrays; a++) steps[a][0] += 1;
    EACH_CHUNK(
    float *p = params[array] + from; float *m = means[array] + from; float *v = squares[array] + from;
    const float *g = grads[array] + from;
    float sign = maximize ? -1.f : 1.f; float l2 = decoupled ? 0.f : (float)weight_decay;
    float keep = decoupled ? (float)(1. - lr * weight_decay) : 1.f;
    double t = steps[array][0];
    float step = (float)(lr / (1. - pow(beta1, t))); float root = (float)sqrt(1. - pow(beta2, t));
    float b2 = (float)beta2; float c1 = (float)(1. - beta1); float c2 = (float)(1. - beta2); float tiny = (float)eps;
    SIMD for (long i = 0; i < n; i++) {
        float pi = p[i] * keep; float gi = DECAYED(sign * g[i], pi);
        float mi = m[i] + c1 * (gi - m[i]);
        float vi = v[i] * b2 + c2 * gi * gi;
        m[i] = mi; v[i] = vi;
        p[i] = pi - step * (mi / (sqrtf(vi) / root + tiny));
    })
}

/*
 * SGD with momentum (Sutskever et al., 2013); `buffers` is missing without momentum, `first` makes the buffers
 * from the gradients.
 */
EXPORT void sgd(INOUT LENGTH(arrays, sizes[i]) float *const *params,
    INOUT OPTIONAL LENGTH(arrays, sizes[i]) float *const *buffers, LENGTH(arrays, sizes[i]) const float *const *grads,
    LENGTH(arrays) const int64_t *sizes, long arrays, double lr, double momentum, double dampening, double weight_decay, long nesterov, long first, long maximize)
EACH_CHUNK(
    float *p = params[array] + from; float *m = buffers ? buffers[array] + from : 0;
    const float *g = grads[array] + from;
    float rate = (float)lr; float keep = (float)momentum; float mix = (float)(1. - dampening);
    float l2 = (float)weight_decay; float sign = maximize ? -1.f : 1.f;
    if (!m) {
        SIMD for (long i = 0; i < n; i++) p[i] -= rate * DECAYED(sign * g[i], p[i]);
    } else if (first) {
        SIMD for (long i = 0; i < n; i++) {
            float gi = DECAYED(sign * g[i], p[i]);
            m[i] = gi;
            p[i] -= rate * (nesterov ? gi + keep * gi : gi);
        }
    } else {
        SIMD for (long i = 0; i < n; i++) {
            float gi = DECAYED(sign * g[i], p[i]); float mi = keep * m[i] + mix * gi;
            m[i] = mi;
            p[i] -= rate * (nesterov ? gi + keep * mi : mi);
        }
    })

/*
 * The root of the sum of the squares of all elements: in double precision, but for runs of SUMMED elements.  There are at
 * most `total / CHUNK + arrays` chunks; `total` is the number of all elements.
 */
EXPORT void norm_of_all(LENGTH(arrays, sizes[i]) const float *const *xs, LENGTH(1) float *norm,
    LENGTH(arrays) const int64_t *sizes, SCRATCH LENGTH(ceil(total, 16384) + arrays) double *partial, long arrays,
    long total) {
    long found, count = all_chunks(sizes, arrays, &found);
    double sum = 0;
    if (found != total) { *norm = NAN; return; }
    PARALLEL_FOR(total)
    for (long c = 0; c < count; c++) {
        long start, array = array_of(sizes, c, &start), left = sizes[array] - start, n = left < CHUNK ? left : CHUNK;
        const float *x = xs[array] + start;
        partial[c] = 0;
        for (long from = 0; from < n; from += SUMMED) {
            long to = from + SUMMED < n ? from + SUMMED : n;
            float s = 0;
            SIMD_SUM(s) for (long i = from; i < to; i++) s += x[i] * x[i];
            partial[c] += s;
        }
    }
    for (long c = 0; c < count; c++) sum += partial[c];
    *norm = (float)sqrt(sum);
}

/* All arrays times one number. */
EXPORT void scale(INOUT LENGTH(arrays, sizes[i]) float *const *xs, LENGTH(1) const float *factor,
    LENGTH(arrays) const int64_t *sizes, long arrays)
EACH_CHUNK(float *x = xs[array] + from; float f = *factor; SIMD for (long i = 0; i < n; i++) x[i] *= f)
