/* Transforms of uniform draws: normals (Box-Muller), log1p, a shuffle.  Same bits as the NumPy text in random.py.

   Every sum of a product is written as fma, so no compiler can fuse one more or one less: the bits depend on it. */

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

#define LANES 512

/* Uniform numbers become normal ones in blocks of 16: 8 radii, 8 angles. */
EXPORT void normal_blocks(LENGTH(16 * blocks) float *x, long blocks, float mean, float std) {
    long n = 16 * blocks;
    float u1[LANES], u2[LANES], first[LANES], second[LANES];
    for (long start = 0; start < n; start += 2 * LANES) {
        long half = (n - start < 2 * LANES ? n - start : 2 * LANES) / 2;
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

EXPORT void normal_blocks64(LENGTH(16 * blocks) double *x, long blocks, double mean, double std) {
    for (double *at = x; at < x + 16 * blocks; at += 16)
        for (int i = 0; i < 8; i++) {
            double radius = sqrt(-2. * log(1. - at[i])), angle = 6.283185307179586 * at[i + 8];
            at[i] = __builtin_fma(radius * cos(angle), std, mean);
            at[i + 8] = __builtin_fma(radius * sin(angle), std, mean);
        }
}

/* Pairs (angle, radius) of uniform numbers become pairs of standard normals. */
EXPORT void normal_pairs(LENGTH(2 * pairs) double *x, long pairs) {
    for (double *at = x; at < x + 2 * pairs; at += 2) {
        double radius = sqrt(-2. * log1p(-at[1])), angle = 6.283185307179586 * at[0];
        at[0] = radius * cos(angle);
        at[1] = radius * sin(angle);
    }
}

EXPORT void log1p_all(LENGTH(n) double *x, long n) {
    for (long i = 0; i < n; i++) x[i] = log1p(x[i]);
}

/* Fisher-Yates inside out: numbers start … start + n - 1 join those before them. */
EXPORT void insert_shuffled(LENGTH(start + n) int64_t *items, LENGTH(n) const int64_t *draws, long start, long n) {
    for (long i = start; i < start + n; i++) {
        long j = (long)((uint64_t)draws[i - start] % (uint64_t)(i + 1));
        items[i] = items[j];
        items[j] = i;
    }
}

/* Fisher-Yates from the front; draws has one number of the whole range for each but the last. */
EXPORT void shuffle(LENGTH(rest + 1) int64_t *items, LENGTH(rest) const int64_t *draws, long rest) {
    long n = rest + 1;
    for (long i = 0; i < rest; i++) {
        long j = i + (long)((uint64_t)draws[i] % (uint64_t)(n - i));
        int64_t item = items[i];
        items[i] = items[j];
        items[j] = item;
    }
}
