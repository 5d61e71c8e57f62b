// Sum and maximum over the last axis: one block per row of n elements.
#include "rows.cuh"

template <typename Op, typename T> __device__ void reduce_row(const T *x, T *y, long long n,
    typename Computing<T>::type neutral) {
    typedef typename Computing<T>::type R;
    __shared__ R shared[32];
    x += blockIdx.x * n;
    R value = neutral;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) value = Op::of(value, R(load(x[j])));
    value = block_reduce<Op>(value, neutral, shared);
    if (threadIdx.x == 0) store(y[blockIdx.x], value);
}

#define DEFINE(T, NAME)                                                                                                \
    extern "C" __global__ void sum_##NAME(const T *x, T *y, long long n) { reduce_row<Sum>(x, y, n, 0); }              \
    extern "C" __global__ void max_##NAME(const T *x, T *y, long long n) { reduce_row<Max>(x, y, n, MINUS_INFINITY); }
FOR_EACH_FLOAT(DEFINE)
