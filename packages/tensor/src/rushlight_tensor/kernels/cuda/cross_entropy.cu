// Cross-entropy of logits against class indices: one block per row; see c/softmax.c for the formulas.
#include "rows.cuh"

// loss[row] stays NaN where the class does not exist: a kernel cannot raise, the launcher looks.
template <typename T, typename R>
__device__ void cross_entropy_row(const T *x, const long long *target, const T *w, R *loss, R *stats, long long n,
    long long ignore, R smoothing) {
    __shared__ R shared[32];
    x += blockIdx.x * n;
    R m = MINUS_INFINITY, sum = 0, all = 0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) m = Max::of(m, R(load(x[j])));
    m = block_reduce<Max>(m, R(MINUS_INFINITY), shared);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) sum += exp(load(x[j]) - m);
    R log_sum = log(block_reduce<Sum>(sum, R(0), shared));
    if (smoothing != 0)
        for (long long j = threadIdx.x; j < n; j += blockDim.x)
            all += (w ? R(load(w[j])) : R(1)) * (log_sum - (load(x[j]) - m));
    all = block_reduce<Sum>(all, R(0), shared);
    if (threadIdx.x != 0) return;
    long long t = target[blockIdx.x];
    stats[2 * blockIdx.x] = m;
    stats[2 * blockIdx.x + 1] = log_sum;
    if (t == ignore) loss[blockIdx.x] = 0;
    else if (t < 0 || t >= n) loss[blockIdx.x] = -MINUS_INFINITY + MINUS_INFINITY;
    else {
        R nll = (log_sum - (load(x[t]) - m)) * (w ? R(load(w[t])) : R(1));
        loss[blockIdx.x] = (1 - smoothing) * nll + smoothing / n * all;
    }
}

template <typename T, typename R>
__device__ void cross_entropy_backward_row(const R *g, const T *x, const long long *target, const T *w,
    const R *stats, T *dx, long long n, long long ignore, R smoothing) {
    __shared__ R shared[32];
    x += blockIdx.x * n;
    dx += blockIdx.x * n;
    long long t = target[blockIdx.x];
    R m = stats[2 * blockIdx.x], log_sum = stats[2 * blockIdx.x + 1], gr = t == ignore ? R(0) : g[blockIdx.x];
    R each = smoothing / n, weights = 0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x)
        weights += each * (w ? R(load(w[j])) : R(1)) + (j == t ? (1 - smoothing) * (w ? R(load(w[j])) : R(1)) : R(0));
    weights = block_reduce<Sum>(weights, R(0), shared);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        R wanted = (each + (j == t ? 1 - smoothing : R(0))) * (w ? R(load(w[j])) : R(1));
        store(dx[j], t == ignore ? R(0) : gr * (exp(load(x[j]) - m - log_sum) * weights - wanted));
    }
}

#define DEFINE(T, NAME)                                                                                                \
    extern "C" __global__ void cross_entropy_##NAME(const T *x, const long long *target, const T *w,                   \
                                                    Computing<T>::type *loss, Computing<T>::type *stats, long long n,  \
                                                    long long ignore, double smoothing) {                              \
        cross_entropy_row(x, target, w, loss, stats, n, ignore, Computing<T>::type(smoothing));                        \
    }                                                                                                                  \
    extern "C" __global__ void cross_entropy_backward_##NAME(                                                          \
        const Computing<T>::type *g, const T *x, const long long *target, const T *w, const Computing<T>::type *stats, \
        T *dx, long long n, long long ignore, double smoothing) {                                                      \
        cross_entropy_backward_row(g, x, target, w, stats, dx, n, ignore, Computing<T>::type(smoothing));              \
    }
FOR_EACH_FLOAT(DEFINE)
