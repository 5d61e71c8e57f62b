// What generated elementwise kernels use; see cuda_text.py.
#include "types.cuh"

// Shape of the result and strides (in elements) of each input in one argument; a broadcast dimension has stride 0.
template <int INPUTS> struct Layout {
    long long size, dims, shape[8], strides[INPUTS][8];

    __device__ __forceinline__ long long offset(int input, long long i) const {
        long long at = 0;
        for (long long d = dims - 1; d >= 0; d--) {
            at += i % shape[d] * strides[input][d];
            i /= shape[d];
        }
        return at;
    }
};

// The roundings and powers of integers.
__device__ __forceinline__ long long floor(long long x) { return x; }
__device__ __forceinline__ long long ceil(long long x) { return x; }
__device__ __forceinline__ long long trunc(long long x) { return x; }
__device__ __forceinline__ long long rint(long long x) { return x; }
__device__ __forceinline__ long long fmod(long long x, long long y) { return y == 0 ? 0 : x % y; }
__device__ __forceinline__ long long pow(long long x, long long n) {
    long long result = 1;
    if (n < 0) return x == 1 ? 1 : x == -1 ? (n % 2 ? -1 : 1) : 0;
    for (; n; n >>= 1, x *= x)
        if (n & 1) result *= x;
    return result;
}

template <typename T> __device__ __forceinline__ T floor_divide(T x, T y) { // from the remainder, which is exact
    if (y == 0) return x / y;
    T rest = fmod(x, y), quotient = (x - rest) / y;
    if (rest != 0 && (y < 0) != (rest < 0)) quotient -= 1;
    T whole = floor(quotient);
    return quotient == 0 ? copysign(T(0), x / y) : quotient - whole > T(0.5) ? whole + 1 : whole;
}
__device__ __forceinline__ long long floor_divide(long long x, long long y) {
    if (y == 0) return 0;
    long long quotient = x / y;
    return quotient - (x % y != 0 && (x < 0) != (y < 0));
}
