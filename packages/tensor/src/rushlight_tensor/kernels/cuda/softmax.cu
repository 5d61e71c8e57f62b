// Softmax, log-softmax and their gradients: one block per row of n elements.
#include "rows.cuh"

template <typename T> __device__ void softmax_row(const T *x, T *y, long long n, bool logarithm) {
    typedef typename Computing<T>::type R;
    __shared__ R shared[32];
    x += blockIdx.x * n;
    y += blockIdx.x * n;
    R m = MINUS_INFINITY, sum = 0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) m = Max::of(m, R(load(x[j])));
    m = block_reduce<Max>(m, R(MINUS_INFINITY), shared);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) sum += exp(load(x[j]) - m);
    sum = block_reduce<Sum>(sum, R(0), shared);
    R log_sum = log(sum);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        R shifted = load(x[j]) - m;
        store(y[j], logarithm ? shifted - log_sum : exp(shifted) / sum);
    }
}

// Softmax: dx = y (g - sum(g y)); its logarithm: dx = g - exp(y) sum(g).
template <typename T> __device__ void softmax_backward_row(const T *g, const T *y, T *dx, long long n, bool logarithm) {
    typedef typename Computing<T>::type R;
    __shared__ R shared[32];
    g += blockIdx.x * n;
    y += blockIdx.x * n;
    dx += blockIdx.x * n;
    R sum = 0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) sum += logarithm ? R(load(g[j])) : load(g[j]) * load(y[j]);
    sum = block_reduce<Sum>(sum, R(0), shared);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        R gj = load(g[j]), yj = load(y[j]);
        store(dx[j], logarithm ? gj - exp(yj) * sum : yj * (gj - sum));
    }
}

#define DEFINE(T, NAME)                                                                                                \
    extern "C" __global__ void softmax_##NAME(const T *x, T *y, long long n) { softmax_row(x, y, n, false); }          \
    extern "C" __global__ void log_softmax_##NAME(const T *x, T *y, long long n) { softmax_row(x, y, n, true); }       \
    extern "C" __global__ void softmax_backward_##NAME(const T *g, const T *y, T *dx, long long n) {                   \
        softmax_backward_row(g, y, dx, n, false);                                                                      \
    }                                                                                                                  \
    extern "C" __global__ void log_softmax_backward_##NAME(const T *g, const T *y, T *dx, long long n) {               \
        softmax_backward_row(g, y, dx, n, true);                                                                       \
    }
FOR_EACH_FLOAT(DEFINE)
