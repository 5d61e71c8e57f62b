/*
 * Elementary functions without branches or calls, so that a loop over them becomes vector code.
 *
 * Errors, against the correctly rounded result (tests/kernels/test_activation.py): vexp 2 ulp, also where the result is
 * subnormal; vtanh 2 ulp; vsigmoid 3 ulp; verf and vnormal_cdf 2e-7 absolute.  NaN gives NaN, infinities their limits.
 * Polynomials: minimax fits on the intervals named below.
 */
#ifndef VMATH_H
#define VMATH_H
#include "rushlight.h"

INLINE float power_of_two(int32_t n) {
    uint32_t bits = (uint32_t)(n + 127) << 23; /* whatever n became of a NaN */
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* e^r for the remainder of x after n halvings or doublings, |r| <= ln(2) / 2. */
INLINE float exp_of_remainder(float x, float n) {
    float r = x - n * 0.693359375f; /* ln 2 in two parts */
    r = r + n * 2.12194440e-4f;
    float p = 1.395032242e-3f;
    p = p * r + 8.368816570e-3f;
    p = p * r + 4.166620909e-2f;
    p = p * r + 1.666651961e-1f;
    p = p * r + 5.000000094e-1f;
    return p * r * r + r + 1.f;
}

INLINE float vexp(float x) {
    x = x < -104.f ? -104.f : x; /* comparisons with NaN are false: it stays */
    x = x > 89.f ? 89.f : x;
    float n = rintf(x * 1.44269504088896341f);
    int32_t whole = (int32_t)n, half = whole >> 1; /* in two steps: 2^n alone over- and underflows too early */
    return exp_of_remainder(x, n) * power_of_two(half) * power_of_two(whole - half);
}

/* vexp for arguments known to lie in [-87, 88]. */
INLINE float vexp_bounded(float x) {
    float n = rintf(x * 1.44269504088896341f);
    return exp_of_remainder(x, n) * power_of_two((int32_t)n);
}

/* What NumPy's floor_divide and remainder say of signs, zeros and infinities; the remainder has the sign of y. */
INLINE float floor_dividef(float x, float y) {
    if (y == 0.f) return x / y;
    float rest = fmodf(x, y), quotient = (x - rest) / y;
    if (rest != 0.f && (y < 0.f) != (rest < 0.f)) quotient -= 1.f;
    if (quotient == 0.f) return copysignf(0.f, x / y);
    float whole = floorf(quotient);
    return quotient - whole > .5f ? whole + 1.f : whole;
}

INLINE float floor_remainderf(float x, float y) {
    float rest = fmodf(x, y);
    if (rest == 0.f) return copysignf(0.f, y);
    return (y < 0.f) != (rest < 0.f) ? rest + y : rest;
}

INLINE float vsigmoid(float x) { return 1.f / (1.f + vexp(-x)); }

INLINE float vtanh(float x) {
    float a = fabsf(x), s = x * x;
    float p = -5.717025824e-3f; /* (tanh(x) / x - 1) / x^2 for |x| <= 0.625 */
    p = p * s + 2.065056849e-2f;
    p = p * s - 5.374349168e-2f;
    p = p * s + 1.333149120e-1f;
    p = p * s - 3.333328392e-1f;
    float small = x + x * s * p;
    float large = copysignf(1.f - 2.f / (vexp(2.f * a) + 1.f), x);
    return a < 0.625f ? copysignf(small, x) : large;
}

INLINE float verf(float x) {
    float a = fabsf(x), s = x * x;
    float p = 7.853853192e-5f; /* erf(x) / x in x^2 for |x| <= 1 */
    p = p * s - 8.010191153e-4f;
    p = p * s + 5.188327404e-3f;
    p = p * s - 2.685381179e-2f;
    p = p * s + 1.128358515e-1f;
    p = p * s - 3.761262582e-1f;
    p = p * s + 1.128379166e+0f;
    float t = a > 4.f ? 4.f : a; /* erf(4) rounds to 1 */
    float q = 1.888249036e-4f; /* ln(1 - erf(x)) for 1 <= x <= 4 */
    q = q * t - 2.972454182e-3f;
    q = q * t + 2.194047734e-2f;
    q = q * t - 1.033274428e-1f;
    q = q * t - 6.378829814e-1f;
    q = q * t - 1.127251516e+0f;
    q = q * t - 3.004142526e-4f;
    float large = copysignf(1.f - vexp_bounded(q), x);
    return a < 1.f ? x * p : large;
}

/* Standard normal distribution function: one polynomial for ln(Phi(-a)), 0 <= a <= 6; Phi(-6) = 1e-9 counts as 0. */
INLINE float vnormal_cdf(float x) {
    float a = fabsf(x), t = a > 6.f ? 6.f : a;
    float q = -1.199125887e-6f;
    q = q * t + 1.910544145e-5f;
    q = q * t - 9.463672634e-5f;
    q = q * t - 1.676804082e-4f;
    q = q * t + 4.978287455e-3f;
    q = q * t - 3.643643296e-2f;
    q = q * t - 3.182850166e-1f;
    q = q * t - 7.978868221e-1f;
    q = q * t - 6.931471482e-1f;
    float tail = vexp_bounded(q);
    tail = a > 6.f ? 0.f : tail;
    return x < 0.f ? tail : 1.f - tail;
}

#endif
