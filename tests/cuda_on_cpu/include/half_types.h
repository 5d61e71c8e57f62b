// float16 and bfloat16: stored in 16 bits, computed in float, rounded to nearest even.
#pragma once
#include <cstdint>
#include <cstring>

struct __half {
    _Float16 value;
    __half() = default;
    __half(float f) : value(static_cast<_Float16>(f)) {}
    operator float() const { return static_cast<float>(value); }
};
typedef __half half;
inline float __half2float(__half h) { return h; }
inline __half __float2half(float f) { return __half(f); }

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float f) {
        uint32_t x;
        memcpy(&x, &f, sizeof x);
        bool is_nan = (x & 0x7fffffff) > 0x7f800000;
        bits = is_nan ? 0x7fff : (x + 0x7fff + ((x >> 16) & 1)) >> 16;
    }
    operator float() const {
        uint32_t x = uint32_t(bits) << 16;
        float f;
        memcpy(&f, &x, sizeof f);
        return f;
    }
};
inline float __bfloat162float(__nv_bfloat16 h) { return h; }
inline __nv_bfloat16 __float2bfloat16(float f) { return f; }
