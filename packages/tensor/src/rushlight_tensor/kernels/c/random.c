/* Random numbers: MT19937, and what is made of its draws.  Same bits as the NumPy text in random.py.

   Every sum of a product is written as fma, so no compiler can fuse one more or one less: the bits depend on it. */
#include "rushlight.h"

/* The state of NumPy's MT19937 in its own memory: 624 words, and how many of them have been drawn. */
enum { WORDS = 624, SHIFT = 397, PART = 512 };
#define STATE INOUT LENGTH(625) uint32_t *state

INLINE uint32_t twisted(uint32_t word, uint32_t next) {
    uint32_t y = (word & 0x80000000u) | (next & 0x7fffffffu);
    return (y >> 1) ^ (-(next & 1u) & 0x9908b0dfu);
}

static void refill(uint32_t *s) {
    for (int i = 0; i < WORDS - SHIFT; i++) s[i] = s[i + SHIFT] ^ twisted(s[i], s[i + 1]);
    for (int i = WORDS - SHIFT; i < WORDS - 1; i++) s[i] = s[i + SHIFT - WORDS] ^ twisted(s[i], s[i + 1]);
    s[WORDS - 1] = s[SHIFT - 1] ^ twisted(s[WORDS - 1], s[0]);
}

/* The next n draws. */
static void draw(uint32_t *state, uint32_t *out, long n) {
    while (n > 0) {
        uint32_t at = state[WORDS];
        if (at >= WORDS) refill(state), at = 0;
        long k = least(n, WORDS - at);
        SIMD for (long i = 0; i < k; i++) {
            uint32_t y = state[at + i];
            y ^= y >> 11;
            y ^= y << 7 & 0x9d2c5680u;
            y ^= y << 15 & 0xefc60000u;
            out[i] = y ^ y >> 18;
        }
        state[WORDS] = at + (uint32_t)k, out += k, n -= k;
    }
}

INLINE uint64_t two_words(const uint32_t *draws, long i) { return (uint64_t)draws[2 * i] << 32 | draws[2 * i + 1]; }

/* Numbers in [0, 1): 24 low bits of a draw, 53 of two. */
static void unit_float(uint32_t *state, float *x, long n) {
    uint32_t draws[PART];
    for (long from = 0; from < n; from += PART) {
        long k = least(PART, n - from);
        draw(state, draws, k);
        SIMD for (long i = 0; i < k; i++) x[from + i] = (float)(int32_t)(draws[i] & 0xffffffu) * 0x1p-24f;
    }
}

static void unit_double(uint32_t *state, double *x, long n) {
    uint32_t draws[2 * PART];
    for (long from = 0; from < n; from += PART) {
        long k = least(PART, n - from);
        draw(state, draws, 2 * k);
        SIMD for (long i = 0; i < k; i++)
            x[from + i] = (double)(int64_t)(two_words(draws, i) & ((1ull << 53) - 1)) * 0x1p-53;
    }
}

/* Note [PyTorch's float32 normals]
       log, sin and cos are those of Cephes (Moshier) in the order of operations of Pommier's SSE version with fused multiply-adds,
       the ones that PyTorch's vectorised kernels use: their last bits differ from the C library's in one number of six. */
INLINE float cephes_log(float x) {
    int32_t bits, small;
    memcpy(&bits, &x, 4);
    float e = (float)((bits >> 23) - 126);
    bits = (bits & 0x007fffff) | 0x3f000000;
    float m;
    memcpy(&m, &bits, 4); /* in [0.5, 1) */
    small = m < 0.707106781186547524f;
    e -= small ? 1.f : 0.f;
    m = (m - 1.f) + (small ? m : 0.f);
    float z = m * m;
    float y = 7.0376836292E-2f;
    y = __builtin_fmaf(y, m, -1.1514610310E-1f);
    y = __builtin_fmaf(y, m, 1.1676998740E-1f);
    y = __builtin_fmaf(y, m, -1.2420140846E-1f);
    y = __builtin_fmaf(y, m, 1.4249322787E-1f);
    y = __builtin_fmaf(y, m, -1.6668057665E-1f);
    y = __builtin_fmaf(y, m, 2.0000714765E-1f);
    y = __builtin_fmaf(y, m, -2.4999993993E-1f);
    y = __builtin_fmaf(y, m, 3.3333331174E-1f);
    y = __builtin_fmaf(y * m, z, e * -2.12194440e-4f);
    y = __builtin_fmaf(z, -0.5f, y);
    return __builtin_fmaf(e, 0.693359375f, m + y);
}

/* For x in [0, 2 pi]. */
INLINE void cephes_sincos(float x, float *sine, float *cosine) {
    int32_t j = ((int32_t)(x * 1.27323954473516f) + 1) & ~1;
    float k = (float)j;
    x = __builtin_fmaf(k, -0.78515625f, x);
    x = __builtin_fmaf(k, -2.4187564849853515625e-4f, x);
    x = __builtin_fmaf(k, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = __builtin_fmaf(2.443315711809948E-005f, z, -1.388731625493765E-003f);
    c = __builtin_fmaf(c, z, 4.166664568298827E-002f);
    c = __builtin_fmaf(c * z, z, -(z * 0.5f)) + 1.f;
    float s = __builtin_fmaf(-1.9515295891E-4f, z, 8.3321608736E-3f);
    s = __builtin_fmaf(s, z, -1.6666654611E-1f);
    s = __builtin_fmaf(s * z, x, x);
    int swapped = (j & 2) != 0;
    float first = swapped ? c : s, second = swapped ? s : c;
    *sine = (j & 4) ? -first : first;
    *cosine = ((j - 2) & 4) ? second : -second;
}

/* Uniform numbers become normal ones in blocks of 16: 8 radii, 8 angles. */
static void normal_blocks_float(float *x, long n, float mean, float std) {
    float u1[PART], u2[PART], first[PART], second[PART];
    for (long start = 0; start < n; start += 2 * PART) {
        long half = (n - start < 2 * PART ? n - start : 2 * PART) / 2;
        float *at = x + start;
        for (long i = 0; i < half; i += 8) {
            memcpy(u1 + i, at + 2 * i, 32);
            memcpy(u2 + i, at + 2 * i + 8, 32);
        }
        SIMD for (long i = 0; i < half; i++) {
            float sine, cosine, radius = sqrtf(-2.f * cephes_log(1.f - u1[i]));
            cephes_sincos(6.283185307179586f * u2[i], &sine, &cosine);
            first[i] = __builtin_fmaf(radius * cosine, std, mean);
            second[i] = __builtin_fmaf(radius * sine, std, mean);
        }
        for (long i = 0; i < half; i += 8) {
            memcpy(at + 2 * i, first + i, 32);
            memcpy(at + 2 * i + 8, second + i, 32);
        }
    }
}

static void normal_blocks_double(double *x, long n, double mean, double std) {
    for (double *at = x; at < x + n; at += 16)
        for (int i = 0; i < 8; i++) {
            double radius = sqrt(-2. * log(1. - at[i])), angle = 6.283185307179586 * at[i + 8];
            at[i] = __builtin_fma(radius * cos(angle), std, mean);
            at[i + 8] = __builtin_fma(radius * sin(angle), std, mean);
        }
}

/* The next of a pair of standard normals; `kept` holds the second one, and whether it does. */
static double next_normal(uint32_t *state, double *kept) {
    double unit[2];
    if (kept[1] != 0) { kept[1] = 0; return kept[0]; }
    unit_double(state, unit, 2);
    double radius = sqrt(-2. * log1p(-unit[1])), angle = 6.283185307179586 * unit[0];
    kept[0] = radius * sin(angle), kept[1] = 1;
    return radius * cos(angle);
}

#define T double
#define OF(name) name##_double
#define FMA __builtin_fma
#include "random_of.h"
#undef T
#undef OF
#undef FMA
#define T float
#define OF(name) name##_float
#define FMA __builtin_fmaf
#include "random_of.h"

/* In [low, high). */
EXPORT void uniform(STATE, LENGTH(n) float *x, long n, float low, float high) {
    uniform_float(state, x, n, low, high);
}
EXPORT void uniform_f64(STATE, LENGTH(n) double *x, long n, double low, double high) {
    uniform_double(state, x, n, low, high);
}

/* Normals, for n >= 16 in blocks; an incomplete last block takes `rest` draws, and then the last 16 are made anew. */
EXPORT void normal(STATE, LENGTH(n) float *x, long n, long rest, float mean, float std) {
    normal_float(state, x, n, rest, mean, std);
}
EXPORT void normal_f64(STATE, LENGTH(n) double *x, long n, long rest, double mean, double std) {
    normal_double(state, x, n, rest, mean, std);
}

/* Normals in pairs. */
EXPORT void normal_few(STATE, INOUT LENGTH(2) double *kept, LENGTH(n) float *x, long n, double mean, double std) {
    normal_few_float(state, kept, x, n, mean, std);
}
EXPORT void normal_few_f64(STATE, INOUT LENGTH(2) double *kept, LENGTH(n) double *x, long n, double mean, double std) {
    normal_few_double(state, kept, x, n, mean, std);
}

/* exp of them. */
EXPORT void log_normal(STATE, INOUT LENGTH(2) double *kept, LENGTH(n) float *x, long n, double mean, double std) {
    log_normal_float(state, kept, x, n, mean, std);
}
EXPORT void log_normal_f64(STATE, INOUT LENGTH(2) double *kept, LENGTH(n) double *x, long n, double mean, double std) {
    log_normal_double(state, kept, x, n, mean, std);
}

/* Ones with probability p, else zeros. */
EXPORT void bernoulli(STATE, LENGTH(n) float *x, long n, double p) {
    bernoulli_float(state, x, n, p);
}
EXPORT void bernoulli_f64(STATE, LENGTH(n) double *x, long n, double p) {
    bernoulli_double(state, x, n, p);
}

/* Of mean 1 / rate. */
EXPORT void exponential(STATE, LENGTH(n) float *x, long n, double rate) {
    exponential_float(state, x, n, rate);
}
EXPORT void exponential_f64(STATE, LENGTH(n) double *x, long n, double rate) {
    exponential_double(state, x, n, rate);
}

/* How many trials until the first success. */
EXPORT void geometric(STATE, LENGTH(n) float *x, long n, double p) {
    geometric_float(state, x, n, p);
}
EXPORT void geometric_f64(STATE, LENGTH(n) double *x, long n, double p) {
    geometric_double(state, x, n, p);
}

EXPORT void cauchy(STATE, LENGTH(n) float *x, long n, double median, double sigma) {
    cauchy_float(state, x, n, median, sigma);
}
EXPORT void cauchy_f64(STATE, LENGTH(n) double *x, long n, double median, double sigma) {
    cauchy_double(state, x, n, median, sigma);
}

/* The same, each with a probability of its own; 1 + the place of one that is none, before anything is drawn. */
EXPORT long bernoulli_each(STATE, LENGTH(n) const float *p, LENGTH(n) float *x, long n) {
    return bernoulli_each_float(state, p, x, n);
}
EXPORT long bernoulli_each_f64(STATE, LENGTH(n) const double *p, LENGTH(n) double *x, long n) {
    return bernoulli_each_double(state, p, x, n);
}

/* y = x noise, where the noise is 0 with probability p, else 1 / (1 - p); 1, and nothing is drawn, where p is none. */
EXPORT long dropout(STATE, LENGTH(n) const float *x, LENGTH(n) float *y, LENGTH(n) float *noise, long n, double p) {
    if (!(p >= 0 && p <= 1)) return 1;
    dropout_float(state, x, y, noise, n, p);
    return 0;
}
EXPORT long dropout_f64(STATE, LENGTH(n) const double *x, LENGTH(n) double *y, LENGTH(n) double *noise, long n, double p) {
    if (!(p >= 0 && p <= 1)) return 1;
    dropout_double(state, x, y, noise, n, p);
    return 0;
}

EXPORT void dropout_backward(LENGTH(n) const float *g, LENGTH(n) const float *noise, LENGTH(n) float *gx, long n) {
    PARALLEL_FOR(n) for (long i = 0; i < n; i++) gx[i] = g[i] * noise[i];
}

/* Draws, or `wide` ones of 64 bits, modulo `span` (0: 2**64), plus `low`. */
EXPORT void integers(STATE, LENGTH(n) int64_t *x, long n, long wide, long span, long low) {
    uint32_t draws[2 * PART];
    for (long from = 0; from < n; from += PART) {
        long k = least(PART, n - from);
        draw(state, draws, wide ? 2 * k : k);
        for (long i = 0; i < k; i++) {
            uint64_t value = wide ? two_words(draws, i) : draws[i];
            x[from + i] = (int64_t)((span ? value % (uint64_t)span : value) + (uint64_t)low);
        }
    }
}

/* 0 … n - 1 in random order: Fisher-Yates from the front, or, with `wide` draws, inside out. */
EXPORT void permutation(STATE, LENGTH(n) int64_t *items, long n, long wide) {
    uint32_t draws[2 * PART];
    for (long i = 0; i < n; i++) items[i] = i;
    for (long from = 0, end = wide ? n : n - 1; from < end; from += PART) {
        long k = least(PART, end - from);
        draw(state, draws, wide ? 2 * k : k);
        for (long i = from; i < from + k; i++) {
            uint64_t places = wide ? i + 1 : n - i, value = wide ? two_words(draws, i - from) : draws[i - from];
            long j = (wide ? 0 : i) + (long)(value % places);
            int64_t item = wide ? i : items[i];
            items[i] = items[j];
            items[j] = item;
        }
    }
}
