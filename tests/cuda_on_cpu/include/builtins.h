// The part of CUDA C++ that kernels use: qualifiers, indices, barriers, shuffles, atomics, math.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "launch.h"

using std::signbit; // CUDA has it without a namespace; here it is no macro, but a function

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __constant__ static
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static thread_local // an OS thread runs one block at a time

#define threadIdx (on_cpu::here->current->thread)
#define blockIdx (on_cpu::here->block)
#define blockDim (on_cpu::here->block_size)
#define gridDim (on_cpu::here->grid_size)
#define warpSize 32

#define __syncthreads() on_cpu::wait(on_cpu::State::AT_BLOCK, __COUNTER__)
inline void __syncwarp(unsigned mask = ~0u) { on_cpu::wait(on_cpu::State::AT_WARP, 0, mask); }
inline void __threadfence() {}

namespace on_cpu {

inline unsigned lane() { return here->current->index % WARP; }

// Every lane of `mask` puts its value down and takes that of lane `from`; its own where there is none.
template <class T> T exchange(unsigned mask, T value, unsigned from, bool exists) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles move up to 8 bytes");
    Block &b = *here;
    Fibre *me = b.current;
    uint8_t set = b.turn[me->index] ^= 1;
    memcpy(&b.exchanged[set][me->index], &value, sizeof value);
    wait(State::AT_WARP, 0, mask);
    unsigned source = me->index / WARP * WARP + from;
    if (exists && source < b.fibres.size()) memcpy(&value, &b.exchanged[set][source], sizeof value);
    return value;
}

} // namespace on_cpu

template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    unsigned me = on_cpu::lane();
    return on_cpu::exchange(mask, value, (me & ~(width - 1)) | (from & (width - 1)), true);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32) {
    unsigned me = on_cpu::lane(), from = me + step;
    return on_cpu::exchange(mask, value, from, (from & ~(width - 1)) == (me & ~(width - 1)));
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned step, int width = 32) {
    unsigned me = on_cpu::lane();
    return on_cpu::exchange(mask, value, me - step, (me & (width - 1)) >= step);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int step, int = 32) {
    return on_cpu::exchange(mask, value, on_cpu::lane() ^ step, true);
}

template <class T, class Change> T on_cpu_atomic(T *at, Change change) {
    T before, after;
    __atomic_load(at, &before, __ATOMIC_RELAXED);
    do after = change(before);
    while (!__atomic_compare_exchange(at, &before, &after, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}
template <class T> T atomicAdd(T *at, T value) {
    return on_cpu_atomic(at, [=](T old) { return T(old + value); });
}
template <class T> T atomicMax(T *at, T value) {
    return on_cpu_atomic(at, [=](T old) { return old < value ? value : old; });
}

// CUDA's math functions are overloaded for float and double in the global namespace; <cmath> has them in std.
#define ON_CPU_MATH(f)                                                                                                 \
    inline float f(float x) { return std::f(x); }
ON_CPU_MATH(exp) ON_CPU_MATH(exp2) ON_CPU_MATH(expm1) ON_CPU_MATH(log) ON_CPU_MATH(log2) ON_CPU_MATH(log10)
ON_CPU_MATH(log1p) ON_CPU_MATH(sqrt) ON_CPU_MATH(sin) ON_CPU_MATH(cos) ON_CPU_MATH(tan) ON_CPU_MATH(asin)
ON_CPU_MATH(acos) ON_CPU_MATH(atan) ON_CPU_MATH(sinh) ON_CPU_MATH(cosh) ON_CPU_MATH(tanh) ON_CPU_MATH(asinh)
ON_CPU_MATH(acosh) ON_CPU_MATH(atanh) ON_CPU_MATH(erf) ON_CPU_MATH(erfc) ON_CPU_MATH(floor) ON_CPU_MATH(ceil)
ON_CPU_MATH(trunc) ON_CPU_MATH(rint)
#undef ON_CPU_MATH
inline float pow(float x, float y) { return std::pow(x, y); }
inline float fmod(float x, float y) { return std::fmod(x, y); }
inline float copysign(float x, float y) { return std::copysign(x, y); }
inline float atan2(float y, float x) { return std::atan2(y, x); }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline double rsqrt(double x) { return 1. / std::sqrt(x); }

inline double erfinv(double y) { // Newton's steps from Winitzki's approximation
    if (!(y > -1 && y < 1)) return y == 1 || y == -1 ? y * INFINITY : NAN;
    double l = std::log1p(-y * y), a = 2 / (M_PI * 0.147) + l / 2;
    double z = std::copysign(std::sqrt(std::sqrt(a * a - l / 0.147) - a), y);
    for (int i = 0; i < 4; i++) {
        double error = std::erf(z) - y;
        z -= error / (2 / std::sqrt(M_PI) * std::exp(-z * z) + z * error);
    }
    return z;
}
inline float erfinv(float y) { return float(erfinv(double(y))); }
