/* The texts of random.c for one type: T, with names that end as OF(name) says, and its FMA. */

/* x[from + i] for every i, from 53 bits each, `u`. */
#define OF_UNIT(...) \
    for (long from = 0; from < n; from += PART) { \
        double unit[PART]; \
        long k = least(PART, n - from); \
        unit_double(state, unit, k); \
        for (long i = 0; i < k; i++) { double u = unit[i]; x[from + i] = (T)(__VA_ARGS__); } \
    }

static void OF(uniform)(uint32_t *state, T *x, long n, T low, T high) {
    T span = high - low;
    for (long from = 0; from < n; from += PART) {
        T *at = x + from;
        long k = least(PART, n - from);
        OF(unit)(state, at, k);
        SIMD for (long i = 0; i < k; i++) {
            T value = FMA(at[i], span, low);
            at[i] = value >= high ? low : value; /* rounded up to the excluded end */
        }
    }
}

static void OF(normal)(uint32_t *state, T *x, long n, long rest, T mean, T std) {
    T unit[16];
    long whole = n / 16 * 16;
    for (long from = 0; from < whole; from += PART) {
        long k = least(PART, whole - from);
        OF(unit)(state, x + from, k);
        OF(normal_blocks)(x + from, k, mean, std);
    }
    if (n == whole || n < 16) return;
    OF(unit)(state, unit, most(0, least(rest, 16)));
    OF(unit)(state, unit, 16);
    OF(normal_blocks)(unit, 16, mean, std);
    memcpy(x + n - 16, unit, sizeof unit);
}

static void OF(normal_few)(uint32_t *state, double *kept, T *x, long n, double mean, double std) {
    for (long i = 0; i < n; i++) x[i] = (T)__builtin_fma(next_normal(state, kept), std, mean);
}

static void OF(log_normal)(uint32_t *state, double *kept, T *x, long n, double mean, double std) {
    for (long i = 0; i < n; i++) x[i] = (T)exp(__builtin_fma(next_normal(state, kept), std, mean));
}

static void OF(bernoulli)(uint32_t *state, T *x, long n, double p) { OF_UNIT(u < p) }

static void OF(exponential)(uint32_t *state, T *x, long n, double rate) {
    double mean = -1. / rate;
    OF_UNIT(mean * log1p(-u))
}

static void OF(geometric)(uint32_t *state, T *x, long n, double p) {
    double failing = log(1. - p);
    OF_UNIT(ceil(log(u > 0 ? u : 0x1p-1074) / failing))
}

static void OF(cauchy)(uint32_t *state, T *x, long n, double median, double sigma) {
    OF_UNIT(__builtin_fma(tan(3.141592653589793 * (u - .5)), sigma, median))
}

static long OF(bernoulli_each)(uint32_t *state, const T *p, T *x, long n) {
    T unit[PART];
    for (long i = 0; i < n; i++) if (!(p[i] >= 0 && p[i] <= 1)) return 1 + i;
    for (long from = 0; from < n; from += PART) {
        long k = least(PART, n - from);
        OF(unit)(state, unit, k);
        for (long i = 0; i < k; i++) x[from + i] = unit[i] < p[from + i];
    }
    return 0;
}

static void OF(dropout)(uint32_t *state, const T *x, T *y, T *noise, long n, double p) {
    double keep = 1. - p;
    T scale = 1 / (T)keep;
    for (long from = 0; from < n; from += PART) {
        double unit[PART];
        long k = least(PART, n - from);
        unit_double(state, unit, k);
        SIMD for (long i = 0; i < k; i++) {
            T kept = unit[i] < keep ? scale : 0;
            noise[from + i] = kept;
            y[from + i] = x[from + i] * kept;
        }
    }
}

#undef OF_UNIT
