// Element types: how each is loaded into the type it is computed in, and stored again.
#include <cuda_fp16.h>
#include <cuda_bf16.h>

template <typename T> struct Computing { typedef T type; };
template <> struct Computing<__half> { typedef float type; };
template <> struct Computing<__nv_bfloat16> { typedef float type; };

template <typename T> __device__ __forceinline__ T load(T x) { return x; }
__device__ __forceinline__ long long load(int x) { return x; }
__device__ __forceinline__ long long load(short x) { return x; }
__device__ __forceinline__ long long load(signed char x) { return x; }
__device__ __forceinline__ long long load(unsigned char x) { return x; }
__device__ __forceinline__ long long load(bool x) { return x; }
__device__ __forceinline__ float load(__half x) { return __half2float(x); }
__device__ __forceinline__ float load(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T, typename V> __device__ __forceinline__ void store(T &to, V x) { to = static_cast<T>(x); }
template <typename V> __device__ __forceinline__ void store(__half &to, V x) {
    to = __float2half(static_cast<float>(x));
}
template <typename V> __device__ __forceinline__ void store(__nv_bfloat16 &to, V x) {
    to = __float2bfloat16(static_cast<float>(x));
}

// A grid of any size covers all elements.
#define EACH(i, size)                                                                                                  \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (size);                                   \
         i += (long long)gridDim.x * blockDim.x)
