/*
 * Two-dimensional convolution on NHWC float32: forward, input gradient, weight gradient.
 *
 * Note [Direct convolution]
 *     A tile of pixels times a block of output channels is held in registers while all taps and input channels stream
 *     by, so no patch matrix is ever written.  Weights are packed so that the block's channels lie side by side.  The
 *     input rows of a task are copied once into a padded buffer, which removes every border case from the inner loop.
 *     The weight gradient has the pixels as its long dimension and is left to BLAS, over patches of a few hundred
 *     pixels at a time; so is the input gradient of a strided convolution.
 */
#include "gemm.h"

#if defined(__AVX512F__)
enum { LANES = 16, PIXELS = 14 }; /* 28 accumulators, 2 weights and 1 input in 32 registers */
#elif defined(__AVX__)
enum { LANES = 8, PIXELS = 6 };
#else
enum { LANES = 4, PIXELS = 6 };
#endif
enum { CHANNELS = 2 * LANES, TASK_FLOATS = 65536, PATCH_FLOATS = 131072, MIN_PIXELS = 256, MAX_PARTIALS = 16,
    SMALL_IMAGE = 64 };

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef float loose __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

typedef struct {
    int64_t n, h, w, c, oh, ow, k, kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
} geometry;

/* One tile: MR pixels, NV vectors of output channels; `columns` of them exist. */
#define TILE(MR, NV)                                                                                                   \
    static __attribute__((noinline)) void tile_##MR##_##NV(const float *const *x, const int64_t *taps, long tap_count, \
                                                           long c, const float *w, const float *bias, float *y,        \
                                                           long y_step, long columns) {                                \
        vec sum[MR][NV];                                                                                               \
        _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++)                                                          \
            _Pragma("GCC unroll 2") for (int v = 0; v < NV; v++) sum[i][v] = (vec){0};                                 \
        for (long t = 0; t < tap_count; t++) {                                                                         \
            const float *p[MR];                                                                                        \
            _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++) p[i] = x[i] + taps[t];                               \
            for (long j = 0; j < c; j++, w += NV * LANES) {                                                            \
                vec b[NV];                                                                                             \
                _Pragma("GCC unroll 2") for (int v = 0; v < NV; v++) b[v] = *(const loose *)(w + v * LANES);           \
                _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++) {                                                \
                    float a = p[i][j];                                                                                 \
                    _Pragma("GCC unroll 2") for (int v = 0; v < NV; v++) sum[i][v] += a * b[v];                        \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        float lines[MR][NV * LANES];                                                                                   \
        _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++)                                                          \
            _Pragma("GCC unroll 2") for (int v = 0; v < NV; v++) *(loose *)(lines[i] + v * LANES) = sum[i][v];         \
        for (long i = 0; i < MR; i++)                                                                                  \
            for (long j = 0; j < columns; j++) y[i * y_step + j] = bias ? lines[i][j] + bias[j] : lines[i][j];         \
    }
#define TILES(MR) TILE(MR, 1) TILE(MR, 2)
typedef void (*tile)(const float *const *, const int64_t *, long, long, const float *, const float *, float *, long, long);
/* A few sizes, each of them some tenths of a second of compile time; the rest of a row is made of smaller ones. */
TILES(1) TILES(2) TILES(4)
#if defined(__AVX512F__)
TILES(8) TILES(14)
static const long TILE_PIXELS[] = {0, 1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 14};
static const tile NARROW[] = {[1] = tile_1_1, [2] = tile_2_1, [4] = tile_4_1, [8] = tile_8_1, [14] = tile_14_1};
static const tile WIDE[] = {[1] = tile_1_2, [2] = tile_2_2, [4] = tile_4_2, [8] = tile_8_2, [14] = tile_14_2};
#else
TILES(6)
static const long TILE_PIXELS[] = {0, 1, 2, 2, 4, 4, 6};
static const tile NARROW[] = {[1] = tile_1_1, [2] = tile_2_1, [4] = tile_4_1, [6] = tile_6_1};
static const tile WIDE[] = {[1] = tile_1_2, [2] = tile_2_2, [4] = tile_4_2, [6] = tile_6_2};
#endif

/*
 * Whether every number below fits into a long with room to spare: paddings, strides and dilations are the user's, and
 * belong to no array whose size would bound them.  What does not fit would find no memory anyway.
 */
static bool fits(const geometry *s) {
    double tall = (s->oh - 1.) * s->stride_h + (s->kh - 1.) * s->dilation_h + 2. * s->pad_h + s->h;
    double broad = (s->ow - 1.) * s->stride_w + (s->kw - 1.) * s->dilation_w + 2. * s->pad_w + s->w;
    double all = (tall + 1) * (broad + 1) * (s->c + s->k + 1.);
    return all * sizeof(float) < 0x1p56 && (s->n + 1.) * (s->oh + 1.) * (s->ow + 1.) * (s->k + 1.) < 0x1p56;
}

static bool empty(const geometry *s) { return !(s->n && s->h && s->w && s->c && s->oh && s->ow && s->k && s->kh && s->kw); }

INLINE long blocks_of(long channels) { return (channels + CHANNELS - 1) / CHANNELS; }
INLINE float *line_from(float *x) { return (float *)(((uintptr_t)x + 63) / 64 * 64); } /* the next line of the cache */
/* The last block is packed half as wide when it holds no more than that. */
INLINE long block_width(long channels, long block) { return channels - block * CHANNELS <= LANES ? LANES : CHANNELS; }

/*
 * Weights (K, C / groups, KH, KW) to [group][block][tap][input channel][CHANNELS], zeros where no output channel is.
 * `backward` packs for the input gradient: inputs and outputs change places and the taps are reversed.
 */
static void pack_weights(const float *w, float *packed, const geometry *s, bool backward) {
    long cg = s->c / s->groups, kg = s->k / s->groups, taps = s->kh * s->kw;
    long in = backward ? kg : cg, out = backward ? cg : kg, blocks = blocks_of(out);
    long in_step = backward ? cg * taps : taps, out_step = backward ? taps : cg * taps;
    PARALLEL_FOR(s->groups * blocks * taps * in * CHANNELS)
    for (long task = 0; task < s->groups * blocks * taps; task++) {
        long tap = task % taps, block = task / taps % blocks, group = task / taps / blocks;
        long width = block_width(out, block), valid = least(width, out - block * CHANNELS);
        const float *from = w + group * kg * cg * taps + block * CHANNELS * out_step;
        from += backward ? taps - 1 - tap : tap;
        float *to = packed + ((group * blocks + block) * taps * CHANNELS) * in + tap * in * width;
        for (long i = 0; i < in; i++)
            for (long j = 0; j < width; j++) to[i * width + j] = j < valid ? from[i * in_step + j * out_step] : 0;
    }
}

/* Rows `top`.. of an image, `rows` of them and `width` pixels from `left` on; zeros outside of the image. */
static void copy_padded(const float *image, float *to, long h, long w, long c, long top, long left, long rows,
    long width) {
    long from = left < 0 ? -left : 0, until = least(width, w - left);
    for (long r = 0; r < rows; r++, to += width * c) {
        if (top + r < 0 || top + r >= h || until <= from) { memset(to, 0, width * c * sizeof *to); continue; }
        memset(to, 0, from * c * sizeof *to);
        memcpy(to + from * c, image + ((top + r) * w + left + from) * c, (until - from) * c * sizeof *to);
        memset(to + until * c, 0, (width - until) * c * sizeof *to);
    }
}

/* How many output rows a task takes, so that its input rows stay in the second-level cache. */
static long task_rows(const geometry *s, long budget) {
    long row_floats = ((s->ow - 1) * s->stride_w + (s->kw - 1) * s->dilation_w + 1) * s->c;
    long rows = (budget / row_floats - (s->kh - 1) * s->dilation_h - 1) / s->stride_h + 1;
    return rows < 1 ? 1 : least(rows, s->oh);
}

/* All tiles of one task and one group: `pixels` output pixels in a row of memory. */
static void convolve_pixels(const float *x, const int64_t *offsets, long pixels, const int64_t *taps,
    long tap_count, long in, const float *packed, const float *bias, float *y, long out, long y_step) {
    for (long block = 0; block < blocks_of(out); block++) {
        long width = block_width(out, block), columns = least(width, out - block * CHANNELS);
        const float *w = packed + block * tap_count * in * CHANNELS, *b = bias ? bias + block * CHANNELS : 0;
        const tile *tiles = width == LANES ? NARROW : WIDE;
        for (long p = 0, step; p < pixels; p += step) {
            const float *at[PIXELS];
            long left = pixels - p; /* two even tiles at the end rather than a full one and a rest */
            step = TILE_PIXELS[left >= 2 * PIXELS || left <= PIXELS ? least(PIXELS, left) : (left + 1) / 2];
            for (long i = 0; i < step; i++) at[i] = x + offsets[p + i];
            tiles[step](at, taps, tap_count, in, w, b, y + p * y_step + block * CHANNELS, y_step, columns);
        }
    }
}

/* What `convolve` works in, beside packed weights: for each thread so many floats, and so many offsets. */
typedef struct { float *padded; int64_t *offsets; long floats, places, threads; } workspace;

/* Returns 1 if the work does not fit. */
static long convolve(const float *x, const float *packed, const float *bias, float *y, const geometry *s,
    const workspace *work) {
    long rows_per_task = task_rows(s, TASK_FLOATS), tasks_per_image = (s->oh + rows_per_task - 1) / rows_per_task;
    long in = s->c / s->groups, out = s->k / s->groups, tap_count = s->kh * s->kw;
    long width = (s->ow - 1) * s->stride_w + (s->kw - 1) * s->dilation_w + 1, row = width * s->c;
    long in_rows = (rows_per_task - 1) * s->stride_h + (s->kh - 1) * s->dilation_h + 1;
    /* Several small images make one task, so that weights from the cache serve more pixels. */
    long together = tasks_per_image > 1 ? 1 : least(s->n, 1 + SMALL_IMAGE / (s->oh * s->ow));
    long pixels = rows_per_task * s->ow;
    double products = (double)s->n * s->oh * s->ow * s->k * in * tap_count;
    if (together * in_rows * row > work->floats || tap_count + together * pixels > work->places) return 1;
    _Pragma("omp parallel num_threads((int)work->threads) if (products > 200000)")
    {
        float *padded = work->padded + rl_thread() * work->floats;
        int64_t *taps = work->offsets + rl_thread() * work->places, *offsets = taps + tap_count;
        for (long t = 0; t < tap_count; t++)
            taps[t] = t / s->kw * s->dilation_h * row + t % s->kw * s->dilation_w * s->c;
        for (long p = 0; p < together * pixels; p++) {
            long in_row = p / pixels * in_rows + p % pixels / s->ow * s->stride_h;
            offsets[p] = in_row * row + p % s->ow * s->stride_w * s->c;
        }
        _Pragma("omp for schedule(dynamic, 1)")
        for (long task = 0; task < (s->n + together - 1) / together * tasks_per_image; task++) {
            long image = task / tasks_per_image * together, top = task % tasks_per_image * rows_per_task;
            long images = least(together, s->n - image), rows = least(rows_per_task, s->oh - top);
            long rows_in = (rows - 1) * s->stride_h + (s->kh - 1) * s->dilation_h + 1;
            for (long i = 0; i < images; i++)
                copy_padded(x + (image + i) * s->h * s->w * s->c, padded + i * in_rows * row, s->h, s->w, s->c,
                            top * s->stride_h - s->pad_h, -s->pad_w, rows_in, width);
            for (long g = 0; g < s->groups; g++)
                convolve_pixels(padded + g * in, offsets, images * rows * s->ow, taps, tap_count, in,
                                packed + g * blocks_of(out) * tap_count * in * CHANNELS, bias ? bias + g * out : 0,
                                y + ((image * s->oh + top) * s->ow) * s->k + g * out, out, s->k);
        }
    }
    return 0;
}

/*
 * Note [Scratch of convolutions]
 *     What a kernel works in is measured by the shape alone, in the prototype, and the kernel looks whether it has
 *     enough before it starts: PADDED is what `convolve` copies of the input, for one task, PLACES where its taps and
 *     pixels are.  Both hold for the image of any task: one that reads at most TASK_FLOATS, or a single row of pixels.
 *     The BACK_ ones are the same for the input gradient at stride 1, which is a convolution of g; blocks of channels
 *     are at most 32 wide, of the last one 31 may be zeros.
 */
#define pick(condition, a, b) ((condition) ? (a) : (b))
#define SIZES long n, long h, long width, long cg, long oh, long ow, long kg, long kh, long kw, \
    POSITIVE long stride_h, POSITIVE long stride_w, long pad_h, long pad_w, POSITIVE long dilation_h, \
    POSITIVE long dilation_w, POSITIVE long groups, long threads
#define GEOMETRY {n, h, width, cg * groups, oh, ow, kg * groups, kh, kw, stride_h, stride_w, pad_h, pad_w, dilation_h, \
    dilation_w, groups}
#define X_SIZE (n * h * width * groups * cg)
#define Y_SIZE (n * oh * ow * groups * kg)
#define W_SIZE (groups * kg * cg * kh * kw)
#define WINDOW_ROWS ((kh - 1) * dilation_h + 1)
#define ROW ((ow - 1) * stride_w + (kw - 1) * dilation_w + 1) * cg * groups
#define OF_ONE_TASK least(((oh - 1) * stride_h + WINDOW_ROWS) * ROW, most(65536, WINDOW_ROWS * ROW))
#define PADDED (least(n, 64 / (oh * ow) + 1) * OF_ONE_TASK)
#define PLACES (kh * kw + least(oh * ow, most(65536, ow)) + 64)
#define PACKED (groups * kh * kw * cg * (kg + 31))

/* Channels are counted per group: `cg` of the input, `kg` of the result. 1: the numbers are too large for any memory. */
EXPORT long conv2d(IMAGE LENGTH(X_SIZE) const float *x, LENGTH(W_SIZE) const float *w,
    OPTIONAL LENGTH(groups * kg) const float *bias, IMAGE LENGTH(Y_SIZE) float *y,
    SCRATCH LENGTH(PACKED) float *packed, SCRATCH LENGTH(threads * PADDED) float *padded,
    SCRATCH LENGTH(threads * PLACES) int64_t *offsets, SIZES) {
    const geometry given = GEOMETRY, *s = &given;
    if (empty(s)) { /* sums over nothing */
        for (long i = 0; i < n * oh * ow * s->k; i++) y[i] = bias ? bias[i % s->k] : 0;
        return 0;
    }
    if (!fits(s)) return 1;
    const workspace work = {padded, offsets, PADDED, PLACES, threads};
    pack_weights(w, packed, s, false);
    return convolve(x, packed, bias, y, s, &work);
}

/* Stride 1: the gradient is a convolution of g with the reversed weights, whose inputs and outputs change places. */
static long input_gradient_unit_stride(const float *g, const float *w, float *dx, const geometry *s, float *packed,
    const workspace *work) {
    geometry back = *s;
    back.h = s->oh, back.w = s->ow, back.c = s->k, back.oh = s->h, back.ow = s->w, back.k = s->c;
    back.pad_h = (s->kh - 1) * s->dilation_h - s->pad_h;
    back.pad_w = (s->kw - 1) * s->dilation_w - s->pad_w;
    pack_weights(w, packed, s, true);
    return convolve(g, packed, 0, dx, &back, work);
}

/*
 * Any stride: products of g with the weights are patches; each is added where it was taken from.  One task is one
 * image.
 */
static long input_gradient_strided(const float *g, const float *w, float *dx, const geometry *s, float *matrix,
    const workspace *work) {
    long in = s->c / s->groups, out = s->k / s->groups, taps = s->kh * s->kw, patch = taps * in;
    if (s->ow * patch > work->floats) return 1;
    for (long i = 0; i < s->k; i++) /* (K, taps, input channels) */
        for (long j = 0; j < in; j++)
            for (long t = 0; t < taps; t++) matrix[(i * taps + t) * in + j] = w[(i * in + j) * taps + t];
    _Pragma("omp parallel num_threads((int)work->threads)")
    {
        float *patches = work->padded + rl_thread() * work->floats;
        _Pragma("omp for schedule(dynamic, 1)")
        for (long image = 0; image < s->n; image++) {
            float *d = dx + image * s->h * s->w * s->c;
            memset(d, 0, s->h * s->w * s->c * sizeof *d);
            for (long task = 0; task < s->groups * s->oh; task++) {
                long group = task / s->oh, oy = task % s->oh;
                const float *gr = g + ((image * s->oh + oy) * s->ow) * s->k + group * out;
                sgemm(false, false, s->ow, patch, out, gr, s->k, matrix + group * out * patch, patch, 0, patches,
                    patch);
                const float *from = patches;
                for (long ox = 0; ox < s->ow; ox++)
                    for (long ky = 0; ky < s->kh; ky++) {
                        long iy = oy * s->stride_h - s->pad_h + ky * s->dilation_h, ix = ox * s->stride_w - s->pad_w;
                        float *to = d + (iy * s->w + ix) * s->c + group * in;
                        for (long kx = 0; kx < s->kw; kx++, ix += s->dilation_w, to += s->dilation_w * s->c, from += in)
                            if (iy >= 0 && iy < s->h && ix >= 0 && ix < s->w)
                                SIMD for (long j = 0; j < in; j++) to[j] += from[j];
                    }
            }
        }
    }
    return 0;
}

static long input_gradient(const float *g, const float *w, float *dx, const geometry *s, float *packed,
    const workspace *work) {
    if (empty(s)) {
        memset(dx, 0, s->n * s->h * s->w * s->c * sizeof *dx);
        return 0;
    }
    if (s->stride_h == 1 && s->stride_w == 1) return input_gradient_unit_stride(g, w, dx, s, packed, work);
    return input_gradient_strided(g, w, dx, s, packed, work);
}

#define BACK_ROW ((width + (kw - 1) * dilation_w) * kg * groups)
#define BACK_PADDED \
    least(n, 64 / (h * width) + 1) * least((h + (kh - 1) * dilation_h) * BACK_ROW, most(65536, WINDOW_ROWS * BACK_ROW))
#define BACK_FLOATS pick((stride_h - 1) + (stride_w - 1), ow * kh * kw * cg, BACK_PADDED)
#define BACK_PLACES (kh * kw + least(h * width, most(65536, width)) + 64)
#define BACK_PACKED (groups * kh * kw * kg * (cg + 31))

/* The size of g is its own: several sizes of the input lead to one of the result. */
EXPORT long conv2d_input_gradient(IMAGE LENGTH(Y_SIZE) const float *g, LENGTH(W_SIZE) const float *w,
    IMAGE LENGTH(X_SIZE) float *dx, SCRATCH LENGTH(BACK_PACKED) float *packed,
    SCRATCH LENGTH(threads * BACK_FLOATS) float *padded, SCRATCH LENGTH(threads * BACK_PLACES) int64_t *offsets, SIZES) {
    const geometry given = GEOMETRY, *s = &given;
    if (!empty(s) && !fits(s)) return 1;
    const workspace work = {padded, offsets, empty(s) ? 0 : BACK_FLOATS, empty(s) ? 0 : BACK_PLACES, threads};
    return input_gradient(g, w, dx, s, packed, &work);
}

/*
 * `count` rows of taps from row `ky` on, of all output pixels in `rows` rows, one group: (rows * OW, count * KW * in).
 */
static void copy_patches(const float *padded, float *to, const geometry *s, long rows, long width, long in, long ky,
    long count) {
    for (long p = 0; p < rows * s->ow; p++)
        for (long y = ky; y < ky + count; y++) {
            long at = (p / s->ow * s->stride_h + y * s->dilation_h) * width + p % s->ow * s->stride_w;
            const float *row = padded + at * s->c;
            if (in == s->c && s->dilation_w == 1) {
                for (long i = 0; i < s->kw * in; i++) to[i] = row[i];
                to += s->kw * in;
            } else
                for (long kx = 0; kx < s->kw; kx++, to += in) memcpy(to, row + kx * s->dilation_w * s->c,
                    in * sizeof *to);
        }
}

/*
 * sums (patch, out) += patches (pixels, patch)^T g (pixels, out), or = where they are `fresh`; BLAS is slow where the patch is tiny and the pixels
 * many.
 */
static void add_products(const float *patches, long patch, const float *g, long out, long g_step, long pixels,
    float *sums, bool fresh, float *scratch) {
    if (patch > 2 * PIXELS) {
        sgemm(true, false, patch, out, pixels, patches, patch, g, g_step, fresh ? 0 : 1, sums, out);
        return;
    }
    float *turned = scratch, *packed = line_from(turned + patch * pixels);
    float *product = packed + pixels * blocks_of(out) * CHANNELS;
    int64_t offsets[2 * PIXELS], no_tap = 0;
    for (long i = 0; i < patch; i++) {
        offsets[i] = i * pixels;
        for (long p = 0; p < pixels; p++) turned[i * pixels + p] = patches[p * patch + i];
    }
    for (long block = 0; block < blocks_of(out); block++) {
        long columns = block_width(out, block), valid = least(columns, out - block * CHANNELS);
        float *to = packed + block * pixels * CHANNELS;
        for (long p = 0; p < pixels; p++)
            for (long j = 0; j < columns;
                j++) to[p * columns + j] = j < valid ? g[p * g_step + block * CHANNELS + j] : 0;
    }
    convolve_pixels(turned, offsets, patch, &no_tap, 1, pixels, packed, 0, product, out, out);
    if (fresh) memcpy(sums, product, patch * out * sizeof *sums);
    else SIMD for (long i = 0; i < patch * out; i++) sums[i] += product[i];
}

/*
 * Sum of the partial gradients [part][band][group][tap][input][output] into (K, C / groups, KH, KW), in the order of
 * the parts.
 */
static void add_partials(const float *partials, long parts, long bands, float *dw, const geometry *s) {
    long in = s->c / s->groups, out = s->k / s->groups, taps = s->kh * s->kw / bands, size = s->k * in * taps * bands;
    PARALLEL_FOR(size * parts)
    for (long row = 0; row < size / out; row++) {
        long j = row % in, tap = row / in % taps, group = row / in / taps % s->groups,
            band = row / in / taps / s->groups;
        for (long i = 0; i < out; i++) {
            float sum = 0;
            for (long p = 0; p < parts; p++) sum += partials[p * size + row * out + i];
            dw[((group * out + i) * in + j) * taps * bands + band * taps + tap] = sum;
        }
    }
}

/*
 * What the weight gradient works in.  A patch is at most 28 numbers, or a row of taps: at least that, or all of them
 * where these are few; so many patches are taken at a time, and partial sums made.  Each of five pieces begins a line of the cache.
 */
#define PATCH most(least(kh * kw * cg, 28), kw * cg)
#define LEAST_PATCH pick(most(kh * kw * cg, 12) - 12, kw * cg, kh * kw * cg)
#define CAPACITY (most(131072 / (LEAST_PATCH * groups), 256) + ow)
#define PATCHES (most(131072, 256 * PATCH * groups) + ow * PATCH * groups)
#define TURNED pick(most(kw * cg, 28) - 28, 0, CAPACITY * (kg + 59) + 28 * kg)
#define WEIGHT_FLOATS (OF_ONE_TASK + PATCHES + TURNED + 80)
#define PARTIALS (least(least(n, 16), least(n * oh * ow / 256 + 1, 16777216 / W_SIZE + 1)) * W_SIZE)

/*
 * A task is one band of taps (a row of them, or all where they are few) over one part of the images.  How many parts
 * there are depends on the shape only: enough pixels in each for an efficient product, and all partial sums under 64
 * MiB.  Returns 1 if the work does not fit.
 */
static long weight_gradient(const float *g, const float *x, float *dw, const geometry *s, float *partials,
    long partial_floats, const workspace *work) {
    long in = s->c / s->groups, out = s->k / s->groups, bands = s->kh * s->kw * in > 2 * PIXELS ? s->kh : 1,
        band_rows = s->kh / bands;
    if (empty(s)) {
        memset(dw, 0, s->k * in * s->kh * s->kw * sizeof *dw);
        return 0;
    }
    long patch = band_rows * s->kw * in, slice = s->groups * patch * out, size = bands * slice;
    long broad = (s->ow - 1) * s->stride_w + (s->kw - 1) * s->dilation_w + 1, row_patches = s->ow * patch * s->groups;
    long by_cache = PATCH_FLOATS / (patch * s->groups), wanted = most(by_cache, MIN_PIXELS);
    long capacity_rows = (wanted + s->ow - 1) / s->ow, step_rows = least(capacity_rows, task_rows(s, TASK_FLOATS));
    long capacity = capacity_rows * s->ow, in_rows = (step_rows - 1) * s->stride_h + (s->kh - 1) * s->dilation_h + 1;
    long by_pixels = s->n * s->oh * s->ow / MIN_PIXELS + 1, by_memory = (1 << 24) / size + 1;
    long parts = least(least(s->n, MAX_PARTIALS), least(by_pixels, by_memory));
    long read = in_rows * broad * s->c, taken = capacity_rows * row_patches;
    long turned = patch > 2 * PIXELS ? 0 : capacity * (patch + blocks_of(out) * CHANNELS) + patch * out;
    if (parts * size > partial_floats || read + taken + turned + 80 > work->floats) return 1;
    _Pragma("omp parallel num_threads((int)work->threads) if ((double)s->n * s->oh * s->ow * size > 200000)")
    {
        float *padded = line_from(work->padded + rl_thread() * work->floats), *patches = line_from(padded + read);
        float *scratch = line_from(patches + taken);
        _Pragma("omp for schedule(dynamic, 1)")
        for (long task = 0; task < parts * bands; task++) {
            long band = task % bands, part = task / bands, filled = 0, first = s->n * part / parts,
                last = s->n * (part + 1) / parts;
            float *sums = partials + part * size + band * slice;
            bool fresh = true;
            long end = last * s->oh; /* output rows are numbered through all images */
            for (long row = first * s->oh, rows; row < end; row += rows) {
                long top = row % s->oh;
                rows = least(least(step_rows, s->oh - top), capacity_rows - filled);
                copy_padded(x + row / s->oh * s->h * s->w * s->c, padded, s->h, s->w, s->c,
                    top * s->stride_h - s->pad_h, -s->pad_w,
                            (rows - 1) * s->stride_h + (s->kh - 1) * s->dilation_h + 1, broad);
                for (long group = 0; group < s->groups; group++)
                    copy_patches(padded + group * in, patches + (group * capacity + filled * s->ow) * patch, s, rows,
                        broad, in, band * band_rows, band_rows);
                filled += rows;
                if (filled < capacity_rows && row + rows < end) continue;
                for (long group = 0; group < s->groups; group++)
                    add_products(patches + group * capacity * patch, patch,
                        g + (row + rows - filled) * s->ow * s->k + group * out, out, s->k, filled * s->ow,
                        sums + group * patch * out, fresh, scratch);
                filled = 0;
                fresh = false;
            }
        }
    }
    add_partials(partials, parts, bands, dw, s);
    return 0;
}

EXPORT long conv2d_weight_gradient(IMAGE LENGTH(Y_SIZE) const float *g, IMAGE LENGTH(X_SIZE) const float *x,
    LENGTH(W_SIZE) float *dw, SCRATCH LENGTH(PARTIALS) float *partials,
    SCRATCH LENGTH(threads * WEIGHT_FLOATS) float *patches, SIZES) {
    const geometry given = GEOMETRY, *s = &given;
    if (!empty(s) && !fits(s)) return 1;
    const workspace work = {patches, 0, empty(s) ? 0 : WEIGHT_FLOATS, 0, threads};
    return weight_gradient(g, x, dw, s, partials, empty(s) ? 0 : PARTIALS, &work);
}

/* All gradients; `db` is that of the bias. */
EXPORT long conv2d_backward(IMAGE LENGTH(Y_SIZE) const float *g, IMAGE LENGTH(X_SIZE) const float *x,
    LENGTH(W_SIZE) const float *w, OPTIONAL IMAGE LENGTH(X_SIZE) float *dx, OPTIONAL LENGTH(W_SIZE) float *dw,
    OPTIONAL LENGTH(groups * kg) float *db, SCRATCH LENGTH(most(PARTIALS, BACK_PACKED)) float *shared,
    SCRATCH LENGTH(threads * most(WEIGHT_FLOATS, BACK_FLOATS)) float *each,
    SCRATCH LENGTH(threads * BACK_PLACES) int64_t *offsets, SIZES) {
    const geometry given = GEOMETRY, *s = &given;
    if (!empty(s) && !fits(s)) return 1;
    workspace work = {each, offsets, empty(s) ? 0 : most(WEIGHT_FLOATS, BACK_FLOATS), empty(s) ? 0 : BACK_PLACES, threads};
    if (db) sums_f32(g, db, n * oh * ow, s->k);
    if (dx && input_gradient(g, w, dx, s, shared, &work)) return 1;
    return dw ? weight_gradient(g, x, dw, s, shared, empty(s) ? 0 : PARTIALS, &work) : 0;
}

/* (N, C, P) to (N, P, C), in blocks that fit the first-level cache. */
EXPORT void swap_channels(LENGTH(n * c * p) const float *x, IMAGE LENGTH(n * c * p) float *y, long n, long c, long p) {
    enum { BLOCK = 32 };
    PARALLEL_FOR(n * c * p)
    for (long task = 0; task < n * ((p + BLOCK - 1) / BLOCK); task++) {
        long image = task / ((p + BLOCK - 1) / BLOCK), from = task % ((p + BLOCK - 1) / BLOCK) * BLOCK,
            to = least(p, from + BLOCK);
        const float *src = x + image * c * p;
        float *dst = y + image * c * p;
        for (long block = 0; block < c; block += BLOCK)
            for (long i = from; i < to; i++)
                for (long j = block; j < least(c, block + BLOCK); j++) dst[i * c + j] = src[j * p + i];
    }
}
