// Layer norm: one block per row forward and for dx, one thread per column for dw and db.
#include "rows.cuh"

template <typename T, typename R>
__device__ void layer_norm_row(const T *x, const T *w, const T *b, T *y, R *mean, R *rstd, long long n, R eps) {
    __shared__ R shared[32];
    x += blockIdx.x * n;
    y += blockIdx.x * n;
    R sum = 0, squares = 0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) sum += load(x[j]);
    R mu = block_reduce<Sum>(sum, R(0), shared) / n;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) squares += (load(x[j]) - mu) * (load(x[j]) - mu);
    R scale = 1 / sqrt(block_reduce<Sum>(squares, R(0), shared) / n + eps);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        R value = (load(x[j]) - mu) * scale;
        if (w) value *= load(w[j]);
        if (b) value += load(b[j]);
        store(y[j], value);
    }
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = mu;
        rstd[blockIdx.x] = scale;
    }
}

template <typename T, typename R>
__device__ void layer_norm_dx_row(const T *g, const T *x, const T *w, const R *mean, const R *rstd, T *dx,
    long long n) {
    __shared__ R shared[32];
    g += blockIdx.x * n;
    x += blockIdx.x * n;
    dx += blockIdx.x * n;
    R mu = mean[blockIdx.x], scale = rstd[blockIdx.x], s1 = 0, s2 = 0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        R gw = load(g[j]) * (w ? R(load(w[j])) : R(1));
        s1 += gw;
        s2 += gw * (load(x[j]) - mu) * scale;
    }
    s1 = block_reduce<Sum>(s1, R(0), shared) / n;
    s2 = block_reduce<Sum>(s2, R(0), shared) / n;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        R gw = load(g[j]) * (w ? R(load(w[j])) : R(1));
        store(dx[j], scale * (gw - s1 - (load(x[j]) - mu) * scale * s2));
    }
}

// A block takes 32 columns; its 32 x 8 threads share the rows, and their sums are added in a fixed order.
template <typename T, typename R>
__device__ void layer_norm_columns(const T *g, const T *x, const R *mean, const R *rstd, T *dw, T *db, long long rows,
    long long n) {
    __shared__ R sums_w[8][32], sums_b[8][32];
    long long column = blockIdx.x * 32ll + threadIdx.x;
    R sw = 0, sb = 0;
    if (column < n)
        for (long long r = threadIdx.y; r < rows; r += 8) {
            R gj = load(g[r * n + column]);
            sw += gj * (load(x[r * n + column]) - mean[r]) * rstd[r];
            sb += gj;
        }
    sums_w[threadIdx.y][threadIdx.x] = sw;
    sums_b[threadIdx.y][threadIdx.x] = sb;
    __syncthreads();
    if (threadIdx.y == 0 && column < n) {
        for (int i = 1; i < 8; i++) {
            sw += sums_w[i][threadIdx.x];
            sb += sums_b[i][threadIdx.x];
        }
        store(dw[column], sw);
        store(db[column], sb);
    }
}

#define DEFINE(T, NAME)                                                                                                \
    extern "C" __global__ void layer_norm_##NAME(const T *x, const T *w, const T *b, T *y, Computing<T>::type *mean,   \
                                                 Computing<T>::type *rstd, long long n, double eps) {                  \
        layer_norm_row(x, w, b, y, mean, rstd, n, Computing<T>::type(eps));                                            \
    }                                                                                                                  \
    extern "C" __global__ void layer_norm_dx_##NAME(const T *g, const T *x, const T *w,                                \
                                                    const Computing<T>::type *mean,                                    \
                                                    const Computing<T>::type *rstd, T *dx, long long n) {              \
        layer_norm_dx_row(g, x, w, mean, rstd, dx, n);                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void layer_norm_columns_##NAME(const T *g, const T *x, const Computing<T>::type *mean,       \
                                                         const Computing<T>::type *rstd, T *dw, T *db, long long rows, \
                                                         long long n) {                                                \
        layer_norm_columns(g, x, mean, rstd, dw, db, rows, n);                                                         \
    }
FOR_EACH_FLOAT(DEFINE)

// y = x / d, d = max(norm, eps), and its gradient, (g - y sum(g y)) / d, or g / d where d is eps.
#define NORMALIZE(T, NAME)                                                                                             \
    extern "C" __global__ void normalize_##NAME(const T *x, T *y, long long n, double eps) {                           \
        typedef Computing<T>::type R;                                                                                  \
        R least = eps, d = sqrt(row_sum<R>(n, [=](long long j) { return R(load(x[j])) * load(x[j]); }));               \
        EACH_OF_ROW(j, n) store(y[j], load(x[j]) / (d < least ? least : d));                                           \
    }                                                                                                                  \
    extern "C" __global__ void normalize_backward_##NAME(const T *g, const T *x, T *dx, long long n, double eps) {     \
        typedef Computing<T>::type R;                                                                                  \
        R least = eps, size = sqrt(row_sum<R>(n, [=](long long j) { return R(load(x[j])) * load(x[j]); }));            \
        R d = size < least ? least : size;                                                                             \
        R s = row_sum<R>(n, [=](long long j) { return load(g[j]) * (load(x[j]) / d); });                               \
        EACH_OF_ROW(j, n) store(dx[j], (load(g[j]) - load(x[j]) / d * (size < least ? 0 : s)) / d);                    \
    }
FOR_EACH_FLOAT(NORMALIZE)
