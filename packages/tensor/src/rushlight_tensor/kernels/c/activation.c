/* Elementwise maps over contiguous float32, and the gradients of the activations. */
#include "vmath.h"

/*
 * Elements are worked through in blocks of a fixed size: whether an element falls into vector code or into a scalar
 * remainder, where the compiler may round differently, depends on its index only.
 */
#define MAP(...)                                                                                                     \
    {                                                                                                                \
        enum { BLOCK = 4096 };                                                                                       \
        PARALLEL_FOR(n)                                                                                              \
        for (long from = 0; from < n; from += BLOCK) {                                                               \
            long to = from + BLOCK < n ? from + BLOCK : n;                                                           \
            SIMD for (long i = from; i < to; i++) { __VA_ARGS__; }                                                   \
        }                                                                                                            \
    }

EXPORT void exp_f32(LENGTH(n) const float *x, LENGTH(n) float *y, long n) MAP(y[i] = vexp(x[i]))
EXPORT void tanh_f32(LENGTH(n) const float *x, LENGTH(n) float *y, long n) MAP(y[i] = vtanh(x[i]))
EXPORT void sigmoid_f32(LENGTH(n) const float *x, LENGTH(n) float *y, long n) MAP(y[i] = vsigmoid(x[i]))
EXPORT void silu_f32(LENGTH(n) const float *x, LENGTH(n) float *y, long n) MAP(y[i] = x[i] / (1.f + vexp(-x[i])))
EXPORT void relu_f32(LENGTH(n) const float *x, LENGTH(n) float *y, long n) MAP(y[i] = x[i] < 0.f ? 0.f : x[i])
EXPORT void erf_f32(LENGTH(n) const float *x, LENGTH(n) float *y, long n) MAP(y[i] = verf(x[i]))
EXPORT void relu_backward_f32(LENGTH(n) const float *g, LENGTH(n) const float *y, LENGTH(n) float *dx, long n) MAP(dx[i] = y[i] <= 0.f ? 0.f : g[i])

EXPORT void silu_backward_f32(LENGTH(n) const float *g, LENGTH(n) const float *x, LENGTH(n) float *dx, long n)
MAP(float s = vsigmoid(x[i]); dx[i] = g[i] * (s * (1.f + x[i] * (1.f - s))))

EXPORT void gelu_erf(LENGTH(n) const float *x, LENGTH(n) float *y, long n) MAP(y[i] = x[i] * vnormal_cdf(x[i]))

#define INV_SQRT_2PI 0.39894228040143268f

EXPORT void gelu_erf_backward(LENGTH(n) const float *g, LENGTH(n) const float *x, LENGTH(n) float *dx, long n)
MAP(float v = x[i]; float exponent = -.5f * v * v;
    float density = INV_SQRT_2PI * vexp_bounded(exponent < -87.f ? -87.f : exponent);
    dx[i] = g[i] * (vnormal_cdf(v) + v * (exponent < -87.f ? 0.f : density)))

/* 0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3) */
#define GELU_SCALE 0.79788456080286536f
#define GELU_CUBIC 0.044715f

EXPORT void gelu_tanh(LENGTH(n) const float *x, LENGTH(n) float *y, long n)
MAP(float v = x[i]; y[i] = .5f * v * (1.f + vtanh(GELU_SCALE * (v + GELU_CUBIC * v * v * v))))

EXPORT void gelu_tanh_backward(LENGTH(n) const float *g, LENGTH(n) const float *x, LENGTH(n) float *dx, long n)
MAP(float v = x[i]; float t = vtanh(GELU_SCALE * (v + GELU_CUBIC * v * v * v));
    float du = GELU_SCALE * (1.f + 3.f * GELU_CUBIC * v * v);
    dx[i] = g[i] * (.5f * (1.f + t) + .5f * v * (1.f - t * t) * du))
