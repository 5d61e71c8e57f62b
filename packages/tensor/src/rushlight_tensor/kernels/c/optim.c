/* Optimizer steps, gradient norms and scaling over whole lists of contiguous float32 arrays: one call per step. */
#include "rushlight.h"

/*
 * A list of arrays is cut into chunks of at most CHUNK elements.  The chunks are what threads share, and in the norm
 * each chunk is one partial sum, so the result does not depend on the number of threads.
 */
enum { CHUNK = 16384, SUMMED = 512 };

typedef struct { long array, from, to; } chunk;

static chunk *cut(const int64_t *sizes, long arrays, long *count, long *total) {
    long n = 0;
    *total = 0;
    for (long a = 0; a < arrays; a++) {
        n += (sizes[a] + CHUNK - 1) / CHUNK;
        *total += sizes[a];
    }
    chunk *chunks = malloc((n + 1) * sizeof *chunks);
    *count = 0;
    if (!chunks) return 0;
    for (long a = 0; a < arrays; a++)
        for (long from = 0; from < sizes[a]; from += CHUNK)
            chunks[(*count)++] = (chunk){a, from, from + CHUNK < sizes[a] ? from + CHUNK : sizes[a]};
    return chunks;
}

#define EACH_CHUNK(...)                                                                                                \
    {                                                                                                                  \
        long count, total;                                                                                             \
        chunk *chunks = cut(sizes, arrays, &count, &total);                                                            \
        if (!chunks) return NO_MEMORY;                                                                                 \
        PARALLEL_FOR(total)                                                                                            \
        for (long c = 0; c < count; c++) {                                                                             \
            long array = chunks[c].array, from = chunks[c].from, n = chunks[c].to - from;                              \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
        free(chunks);                                                                                                  \
        return 0;                                                                                                      \
    }

/*
 * Adam (Kingma and Ba, 2015) and, with `decoupled`, AdamW (Loshchilov and Hutter, 2019), element by element in the
 * order of PyTorch's single-tensor code.  `step_size` and `root_correction` hold one number per array: lr / (1 -
 * beta1^t) and sqrt(1 - beta2^t).
 */
EXPORT status adam(LENGTH(arrays, sizes[i]) float *const *params, LENGTH(arrays, sizes[i]) const float *const *grads,
    LENGTH(arrays, sizes[i]) float *const *means, LENGTH(arrays, sizes[i]) float *const *squares,
    LENGTH(arrays) const int64_t *sizes, LENGTH(arrays) const double *step_sizes,
    LENGTH(arrays) const double *root_corrections, long arrays, double lr, double beta1, double beta2, double eps,
    double weight_decay, long decoupled, long maximize)
EACH_CHUNK(
    float *p = params[array] + from; float *m = means[array] + from; float *v = squares[array] + from;
    const float *g = grads[array] + from;
    float sign = maximize ? -1.f : 1.f; float l2 = decoupled ? 0.f : (float)weight_decay;
    float keep = decoupled ? (float)(1. - lr * weight_decay) : 1.f;
    float step = (float)step_sizes[array]; float root = (float)root_corrections[array];
    float b2 = (float)beta2; float c1 = (float)(1. - beta1); float c2 = (float)(1. - beta2); float tiny = (float)eps;
    SIMD for (long i = 0; i < n; i++) {
        float pi = p[i] * keep; float gi = sign * g[i] + l2 * pi;
        float mi = m[i] + c1 * (gi - m[i]);
        float vi = v[i] * b2 + c2 * gi * gi;
        m[i] = mi; v[i] = vi;
        p[i] = pi - step * (mi / (sqrtf(vi) / root + tiny));
    })

/*
 * SGD with momentum (Sutskever et al., 2013); `buffers` is missing without momentum, `first` makes the buffers
 * from the gradients.
 */
EXPORT status sgd(LENGTH(arrays, sizes[i]) float *const *params, LENGTH(arrays, sizes[i]) const float *const *grads,
    OPTIONAL LENGTH(arrays, sizes[i]) float *const *buffers, LENGTH(arrays) const int64_t *sizes, long arrays,
    double lr, double momentum, double dampening, double weight_decay, long nesterov, long first, long maximize)
EACH_CHUNK(
    float *p = params[array] + from; float *m = buffers ? buffers[array] + from : 0;
    const float *g = grads[array] + from;
    float rate = (float)lr; float keep = (float)momentum; float mix = (float)(1. - dampening);
    float l2 = (float)weight_decay; float sign = maximize ? -1.f : 1.f;
    if (!m) {
        SIMD for (long i = 0; i < n; i++) p[i] -= rate * (sign * g[i] + l2 * p[i]);
    } else if (first) {
        SIMD for (long i = 0; i < n; i++) {
            float gi = sign * g[i] + l2 * p[i];
            m[i] = gi;
            p[i] -= rate * (nesterov ? gi + keep * gi : gi);
        }
    } else {
        SIMD for (long i = 0; i < n; i++) {
            float gi = sign * g[i] + l2 * p[i]; float mi = keep * m[i] + mix * gi;
            m[i] = mi;
            p[i] -= rate * (nesterov ? gi + keep * mi : mi);
        }
    })

/* Sum of the squares of all elements, into `sum`: in double precision, but for runs of SUMMED elements. */
EXPORT status sum_of_squares(LENGTH(arrays, sizes[i]) const float *const *xs, LENGTH(arrays) const int64_t *sizes,
    LENGTH(1) double *sum, long arrays) {
    long count, total;
    chunk *chunks = cut(sizes, arrays, &count, &total);
    double *partial = malloc((count + 1) * sizeof *partial);
    if (!chunks || !partial) { free(chunks); free(partial); return NO_MEMORY; }
    *sum = 0;
    PARALLEL_FOR(total)
    for (long c = 0; c < count; c++) {
        const float *x = xs[chunks[c].array] + chunks[c].from;
        long n = chunks[c].to - chunks[c].from;
        partial[c] = 0;
        for (long from = 0; from < n; from += SUMMED) {
            long to = from + SUMMED < n ? from + SUMMED : n;
            float s = 0;
            SIMD_SUM(s) for (long i = from; i < to; i++) s += x[i] * x[i];
            partial[c] += s;
        }
    }
    for (long c = 0; c < count; c++) *sum += partial[c];
    free(partial);
    free(chunks);
    return 0;
}

EXPORT status scale(LENGTH(arrays, sizes[i]) float *const *xs, LENGTH(arrays) const int64_t *sizes, long arrays,
    double factor)
EACH_CHUNK(float *x = xs[array] + from; float f = (float)factor; SIMD for (long i = 0; i < n; i++) x[i] *= f)
