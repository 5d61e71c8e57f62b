// Reductions over a block of threads, for kernels in which one block works on one row.
#include "types.cuh"

struct Sum {
    template <typename T> __device__ __forceinline__ static T of(T a, T b) { return a + b; }
};
// The larger one; NaN wins.
struct Max {
    template <typename T> __device__ __forceinline__ static T of(T a, T b) { return a > b || a != a ? a : b; }
};

// `Op` over the values of all threads, in an order that the block's size alone decides.  All threads must call it, in
// blocks of whole warps; `shared` has room for one value per warp and may be used again at once.
template <typename Op, typename T> __device__ __forceinline__ T block_reduce(T value, T neutral, T *shared) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    for (int step = 16; step > 0; step /= 2) value = Op::of(value, __shfl_xor_sync(0xffffffffu, value, step));
    if (lane == 0) shared[warp] = value;
    __syncthreads();
    value = lane < warps ? shared[lane] : neutral;
    for (int step = 16; step > 0; step /= 2) value = Op::of(value, __shfl_xor_sync(0xffffffffu, value, step));
    __syncthreads();
    return value;
}

// Every element j of the row of n that is this block's; and the sum of what `term` makes of them, for all threads.
#define EACH_OF_ROW(j, n)                                                                                              \
    for (long long j = blockIdx.x * (n) + threadIdx.x; j < (blockIdx.x + 1) * (n); j += blockDim.x)
template <typename R, typename Term> __device__ __forceinline__ R row_sum(long long n, Term term) {
    __shared__ R shared[32];
    R sum = 0;
    EACH_OF_ROW(j, n) sum += term(j);
    return block_reduce<Sum>(sum, R(0), shared);
}

#define MINUS_INFINITY (-(1.0f / 0.0f))

// One kernel per element type, named <name>_<dtype>.
#define FOR_EACH_FLOAT(DEFINE)                                                                                         \
    DEFINE(float, float32) DEFINE(double, float64) DEFINE(__half, float16) DEFINE(__nv_bfloat16, bfloat16)
