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

// What NumPy's floor_divide and remainder say of signs, zeros and infinities; the remainder has the sign of y.
template <typename T> __device__ __forceinline__ T floored_quotient(T x, T y) {
    if (y == 0) return x / y;
    T rest = fmod(x, y), quotient = (x - rest) / y;
    if (rest != 0 && (y < 0) != (rest < 0)) quotient -= 1;
    if (quotient == 0) return copysign(T(0), x / y);
    T whole = floor(quotient);
    return quotient - whole > T(0.5) ? whole + 1 : whole;
}
template <typename T> __device__ __forceinline__ T floored_rest(T x, T y) {
    T rest = fmod(x, y);
    if (rest == 0) return copysign(T(0), y);
    return (y < 0) != (rest < 0) ? rest + y : rest;
}
__device__ __forceinline__ float floor_divide(float x, float y) { return floored_quotient(x, y); }
__device__ __forceinline__ double floor_divide(double x, double y) { return floored_quotient(x, y); }
__device__ __forceinline__ float floor_remainder(float x, float y) { return floored_rest(x, y); }
__device__ __forceinline__ double floor_remainder(double x, double y) { return floored_rest(x, y); }
__device__ __forceinline__ long long floor_divide(long long x, long long y) {
    if (y == 0) return 0;
    long long quotient = x / y;
    return quotient - (x % y != 0 && (x < 0) != (y < 0));
}
__device__ __forceinline__ long long floor_remainder(long long x, long long y) {
    return y == 0 ? 0 : x - floor_divide(x, y) * y;
}
