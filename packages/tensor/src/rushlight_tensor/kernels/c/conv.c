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
#include "rushlight.h"

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
    static __attribute__((noinline)) void tile_##MR##_##NV(const float *const *x, const long *taps, long tap_count,    \
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
typedef void (*tile)(const float *const *, const long *, long, long, const float *, const float *, float *, long, long);
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

INLINE long smaller(long a, long b) { return a < b ? a : b; }
INLINE long blocks_of(long channels) { return (channels + CHANNELS - 1) / CHANNELS; }
/* The last block is packed half as wide when it holds no more than that. */
INLINE long block_width(long channels, long block) { return channels - block * CHANNELS <= LANES ? LANES : CHANNELS; }

/*
 * Weights (K, C / groups, KH, KW) to [group][block][tap][input channel][CHANNELS], zeros where no output channel is.
 * `backward` packs for the input gradient: inputs and outputs change places and the taps are reversed.
 */
static float *pack_weights(const float *w, const geometry *s, bool backward) {
    long cg = s->c / s->groups, kg = s->k / s->groups, taps = s->kh * s->kw;
    long in = backward ? kg : cg, out = backward ? cg : kg, blocks = blocks_of(out);
    long in_step = backward ? cg * taps : taps, out_step = backward ? taps : cg * taps;
    long floats = (s->groups * blocks * taps * in * CHANNELS + 31) / 16 * 16; /* whole lines of 64 bytes */
    float *packed = aligned_alloc(64, floats * sizeof *packed);
    if (!packed) return 0;
    PARALLEL_FOR(s->groups * blocks * taps * in * CHANNELS)
    for (long task = 0; task < s->groups * blocks * taps; task++) {
        long tap = task % taps, block = task / taps % blocks, group = task / taps / blocks;
        long width = block_width(out, block), valid = smaller(width, out - block * CHANNELS);
        const float *from = w + group * kg * cg * taps + block * CHANNELS * out_step;
        from += backward ? taps - 1 - tap : tap;
        float *to = packed + ((group * blocks + block) * taps * CHANNELS) * in + tap * in * width;
        for (long i = 0; i < in; i++)
            for (long j = 0; j < width; j++) to[i * width + j] = j < valid ? from[i * in_step + j * out_step] : 0;
    }
    return packed;
}

/* Rows `top`.. of an image, `rows` of them and `width` pixels from `left` on; zeros outside of the image. */
static void copy_padded(const float *image, float *to, long h, long w, long c, long top, long left, long rows,
    long width) {
    long from = left < 0 ? -left : 0, until = smaller(width, w - left);
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
    return rows < 1 ? 1 : smaller(rows, s->oh);
}

/* All tiles of one task and one group: `pixels` output pixels in a row of memory. */
static void convolve_pixels(const float *x, const long *offsets, long pixels, const long *taps, long tap_count,
    long in, const float *packed, const float *bias, float *y, long out, long y_step) {
    for (long block = 0; block < blocks_of(out); block++) {
        long width = block_width(out, block), columns = smaller(width, out - block * CHANNELS);
        const float *w = packed + block * tap_count * in * CHANNELS, *b = bias ? bias + block * CHANNELS : 0;
        const tile *tiles = width == LANES ? NARROW : WIDE;
        for (long p = 0, step; p < pixels; p += step) {
            const float *at[PIXELS];
            long left = pixels - p; /* two even tiles at the end rather than a full one and a rest */
            step = TILE_PIXELS[left >= 2 * PIXELS || left <= PIXELS ? smaller(PIXELS, left) : (left + 1) / 2];
            for (long i = 0; i < step; i++) at[i] = x + offsets[p + i];
            tiles[step](at, taps, tap_count, in, w, b, y + p * y_step + block * CHANNELS, y_step, columns);
        }
    }
}

static status convolve(const float *x, const float *packed, const float *bias, float *y, const geometry *s) {
    long rows_per_task = task_rows(s, TASK_FLOATS), tasks_per_image = (s->oh + rows_per_task - 1) / rows_per_task;
    long in = s->c / s->groups, out = s->k / s->groups, tap_count = s->kh * s->kw;
    long width = (s->ow - 1) * s->stride_w + (s->kw - 1) * s->dilation_w + 1, row = width * s->c;
    long in_rows = (rows_per_task - 1) * s->stride_h + (s->kh - 1) * s->dilation_h + 1;
    /* Several small images make one task, so that weights from the cache serve more pixels. */
    long together = tasks_per_image > 1 ? 1 : smaller(s->n, 1 + SMALL_IMAGE / (s->oh * s->ow));
    long pixels = rows_per_task * s->ow, *taps = malloc((tap_count + 1) * sizeof *taps);
    double work = (double)s->n * s->oh * s->ow * s->k * in * tap_count;
    bool failed = false;
    if (!taps) return NO_MEMORY;
    for (long t = 0; t < tap_count; t++) taps[t] = t / s->kw * s->dilation_h * row + t % s->kw * s->dilation_w * s->c;
    _Pragma("omp parallel num_threads(rl_threads()) if (work > 200000)")
    {
        float *padded = malloc((together * in_rows * row + 1) * sizeof *padded);
        long *offsets = malloc((together * pixels + 1) * sizeof *offsets);
        bool ready = padded && offsets;
        if (!ready) failed = true; /* every thread that fails writes the same */
        for (long p = 0; ready && p < together * pixels; p++) {
            long in_row = p / pixels * in_rows + p % pixels / s->ow * s->stride_h;
            offsets[p] = in_row * row + p % s->ow * s->stride_w * s->c;
        }
        _Pragma("omp for schedule(dynamic, 1)")
        for (long task = 0; task < (s->n + together - 1) / together * tasks_per_image; task++) {
            if (!ready) continue;
            long image = task / tasks_per_image * together, top = task % tasks_per_image * rows_per_task;
            long images = smaller(together, s->n - image), rows = smaller(rows_per_task, s->oh - top);
            long rows_in = (rows - 1) * s->stride_h + (s->kh - 1) * s->dilation_h + 1;
            for (long i = 0; i < images; i++)
                copy_padded(x + (image + i) * s->h * s->w * s->c, padded + i * in_rows * row, s->h, s->w, s->c,
                            top * s->stride_h - s->pad_h, -s->pad_w, rows_in, width);
            for (long g = 0; g < s->groups; g++)
                convolve_pixels(padded + g * in, offsets, images * rows * s->ow, taps, tap_count, in,
                                packed + g * blocks_of(out) * tap_count * in * CHANNELS, bias ? bias + g * out : 0,
                                y + ((image * s->oh + top) * s->ow) * s->k + g * out, out, s->k);
        }
        free(padded);
        free(offsets);
    }
    free(taps);
    return failed ? NO_MEMORY : 0;
}

/* Channels are counted per group: `cg` of the input, `kg` of the result. */
EXPORT status conv2d(LENGTH(n * h * width * groups * cg) const float *x,
    LENGTH(groups * kg * cg * kh * kw) const float *w, OPTIONAL LENGTH(groups * kg) const float *bias,
    LENGTH(n * oh * ow * groups * kg) float *y, long n, long h, long width, long cg,
    long oh, long ow, long kg, long kh, long kw, POSITIVE long stride_h, POSITIVE long stride_w, long pad_h, long pad_w,
    POSITIVE long dilation_h, POSITIVE long dilation_w, POSITIVE long groups) {
    const geometry given = {n, h, width, cg * groups, oh, ow, kg * groups, kh, kw, stride_h, stride_w, pad_h, pad_w,
        dilation_h, dilation_w, groups}, *s = &given;
    if (empty(s)) { /* sums over nothing */
        for (long i = 0; i < n * oh * ow * s->k; i++) y[i] = bias ? bias[i % s->k] : 0;
        return 0;
    }
    float *packed = fits(s) ? pack_weights(w, s, false) : 0;
    if (!packed) return NO_MEMORY;
    status done = convolve(x, packed, bias, y, s);
    free(packed);
    return done;
}

/* Stride 1: the gradient is a convolution of g with the reversed weights, whose inputs and outputs change places. */
static status input_gradient_unit_stride(const float *g, const float *w, float *dx, const geometry *s) {
    geometry back = *s;
    back.h = s->oh, back.w = s->ow, back.c = s->k, back.oh = s->h, back.ow = s->w, back.k = s->c;
    back.pad_h = (s->kh - 1) * s->dilation_h - s->pad_h;
    back.pad_w = (s->kw - 1) * s->dilation_w - s->pad_w;
    float *packed = pack_weights(w, s, true);
    if (!packed) return NO_MEMORY;
    status done = convolve(g, packed, 0, dx, &back);
    free(packed);
    return done;
}

/*
 * Any stride: products of g with the weights are patches; each is added where it was taken from.  One task is one
 * image.
 */
static status input_gradient_strided(const float *g, const float *w, float *dx, const geometry *s) {
    long in = s->c / s->groups, out = s->k / s->groups, taps = s->kh * s->kw, patch = taps * in;
    float *matrix = malloc((s->k * patch + 1) * sizeof *matrix); /* (K, taps, input channels) */
    bool failed = false;
    if (!matrix) return NO_MEMORY;
    for (long i = 0; i < s->k; i++)
        for (long j = 0; j < in; j++)
            for (long t = 0; t < taps; t++) matrix[(i * taps + t) * in + j] = w[(i * in + j) * taps + t];
    _Pragma("omp parallel num_threads(rl_threads())")
    {
        float *patches = malloc((s->ow * patch + 1) * sizeof *patches);
        if (!patches) failed = true;
        _Pragma("omp for schedule(dynamic, 1)")
        for (long image = 0; image < s->n; image++) {
            if (!patches) continue;
            float *d = dx + image * s->h * s->w * s->c;
            memset(d, 0, s->h * s->w * s->c * sizeof *d);
            for (long task = 0; task < s->groups * s->oh; task++) {
                long group = task / s->oh, oy = task % s->oh;
                const float *gr = g + ((image * s->oh + oy) * s->ow) * s->k + group * out;
                sgemm(false, false, s->ow, patch, out, gr, s->k, matrix + group * out * patch, patch, 0, patches,
                    patch);
                for (long ox = 0; ox < s->ow; ox++)
                    for (long t = 0; t < taps; t++) {
                        long iy = oy * s->stride_h - s->pad_h + t / s->kw * s->dilation_h;
                        long ix = ox * s->stride_w - s->pad_w + t % s->kw * s->dilation_w;
                        if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
                        float *to = d + (iy * s->w + ix) * s->c + group * in;
                        const float *from = patches + ox * patch + t * in;
                        SIMD for (long j = 0; j < in; j++) to[j] += from[j];
                    }
            }
        }
        free(patches);
    }
    free(matrix);
    return failed ? NO_MEMORY : 0;
}

/* The size of g is its own: several sizes of the input lead to one of the result. */
EXPORT status conv2d_grad_input(LENGTH(n * oh * ow * groups * kg) const float *g,
    LENGTH(groups * kg * cg * kh * kw) const float *w, LENGTH(n * h * width * groups * cg) float *dx,
    long n, long h, long width, long cg,
    long oh, long ow, long kg, long kh, long kw, POSITIVE long stride_h, POSITIVE long stride_w, long pad_h, long pad_w,
    POSITIVE long dilation_h, POSITIVE long dilation_w, POSITIVE long groups) {
    const geometry given = {n, h, width, cg * groups, oh, ow, kg * groups, kh, kw, stride_h, stride_w, pad_h, pad_w,
        dilation_h, dilation_w, groups}, *s = &given;
    memset(dx, 0, s->n * s->h * s->w * s->c * sizeof *dx);
    if (empty(s)) return 0;
    if (!fits(s)) return NO_MEMORY;
    return stride_h == 1 && stride_w == 1 ? input_gradient_unit_stride(g, w, dx, s) : input_gradient_strided(g, w, dx, s);
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
 * sums (patch, out) += patches (pixels, patch)^T g (pixels, out); BLAS is slow where the patch is tiny and the pixels
 * many.
 */
static void add_products(const float *patches, long patch, const float *g, long out, long g_step, long pixels,
    float *sums, float *scratch) {
    if (patch > 2 * PIXELS) {
        sgemm(true, false, patch, out, pixels, patches, patch, g, g_step, 1, sums, out);
        return;
    }
    float *turned = scratch, *packed = turned + patch * pixels, *product = packed + pixels * blocks_of(out) * CHANNELS;
    long offsets[2 * PIXELS], no_tap = 0;
    for (long i = 0; i < patch; i++) {
        offsets[i] = i * pixels;
        for (long p = 0; p < pixels; p++) turned[i * pixels + p] = patches[p * patch + i];
    }
    for (long block = 0; block < blocks_of(out); block++) {
        long columns = block_width(out, block), valid = smaller(columns, out - block * CHANNELS);
        float *to = packed + block * pixels * CHANNELS;
        for (long p = 0; p < pixels; p++)
            for (long j = 0; j < columns;
                j++) to[p * columns + j] = j < valid ? g[p * g_step + block * CHANNELS + j] : 0;
    }
    convolve_pixels(turned, offsets, patch, &no_tap, 1, pixels, packed, 0, product, out, out);
    SIMD for (long i = 0; i < patch * out; i++) sums[i] += product[i];
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
 * A task is one band of taps (a row of them, or all where they are few) over one part of the images.  How many parts
 * there are depends on the shape only: enough pixels in each for an efficient product, and all partial sums under 64
 * MiB.
 */
EXPORT status conv2d_grad_weight(LENGTH(n * oh * ow * groups * kg) const float *g,
    LENGTH(n * h * width * groups * cg) const float *x, LENGTH(groups * kg * cg * kh * kw) float *dw,
    long n, long h, long width, long cg,
    long oh, long ow, long kg, long kh, long kw, POSITIVE long stride_h, POSITIVE long stride_w, long pad_h, long pad_w,
    POSITIVE long dilation_h, POSITIVE long dilation_w, POSITIVE long groups) {
    const geometry given = {n, h, width, cg * groups, oh, ow, kg * groups, kh, kw, stride_h, stride_w, pad_h, pad_w,
        dilation_h, dilation_w, groups}, *s = &given;
    memset(dw, 0, s->k * cg * s->kh * s->kw * sizeof *dw);
    if (empty(s)) return 0;
    if (!fits(s)) return NO_MEMORY;
    bool failed = false;
    long in = s->c / s->groups, out = s->k / s->groups, bands = s->kh * s->kw * in > 2 * PIXELS ? s->kh : 1,
        band_rows = s->kh / bands;
    long patch = band_rows * s->kw * in, slice = s->groups * patch * out, size = bands * slice;
    long broad = (s->ow - 1) * s->stride_w + (s->kw - 1) * s->dilation_w + 1, row_patches = s->ow * patch * s->groups;
    long by_cache = PATCH_FLOATS / (patch * s->groups), wanted = by_cache > MIN_PIXELS ? by_cache : MIN_PIXELS;
    long capacity_rows = (wanted + s->ow - 1) / s->ow, step_rows = smaller(capacity_rows, task_rows(s, TASK_FLOATS));
    long capacity = capacity_rows * s->ow, in_rows = (step_rows - 1) * s->stride_h + (s->kh - 1) * s->dilation_h + 1;
    long by_pixels = s->n * s->oh * s->ow / MIN_PIXELS + 1, by_memory = (1 << 24) / size + 1;
    long parts = smaller(smaller(s->n, MAX_PARTIALS), smaller(by_pixels, by_memory));
    float *partials = calloc(parts * size, sizeof *partials);
    if (!partials) return NO_MEMORY;
    _Pragma("omp parallel num_threads(rl_threads()) if ((double)s->n * s->oh * s->ow * size > 200000)")
    {
        float *padded = malloc((in_rows * broad * s->c + 1) * sizeof *padded);
        float *patches = malloc((capacity_rows * row_patches + 1) * sizeof *patches);
        long scratch_floats = capacity * (2 * PIXELS + blocks_of(out) * CHANNELS) + 2 * PIXELS * out + 1;
        float *scratch = malloc(scratch_floats * sizeof *scratch);
        bool ready = padded && patches && scratch;
        if (!ready) failed = true;
        _Pragma("omp for schedule(dynamic, 1)")
        for (long task = 0; task < parts * bands; task++) {
            if (!ready) continue;
            long band = task % bands, part = task / bands, filled = 0, first = s->n * part / parts,
                last = s->n * (part + 1) / parts;
            long end = last * s->oh; /* output rows are numbered through all images */
            for (long row = first * s->oh, rows; row < end; row += rows) {
                long top = row % s->oh;
                rows = smaller(smaller(step_rows, s->oh - top), capacity_rows - filled);
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
                        g + (row + rows - filled) * s->ow * s->k + group * out,
                                 out, s->k, filled * s->ow,
                                     partials + part * size + band * slice + group * patch * out, scratch);
                filled = 0;
            }
        }
        free(padded);
        free(patches);
        free(scratch);
    }
    if (!failed) add_partials(partials, parts, bands, dw, s);
    free(partials);
    return failed ? NO_MEMORY : 0;
}

/* (N, C, P) to (N, P, C), in blocks that fit the first-level cache. */
EXPORT void swap_channels(LENGTH(n * c * p) const float *x, IMAGE LENGTH(n * c * p) float *y, long n, long c, long p) {
    enum { BLOCK = 32 };
    PARALLEL_FOR(n * c * p)
    for (long task = 0; task < n * ((p + BLOCK - 1) / BLOCK); task++) {
        long image = task / ((p + BLOCK - 1) / BLOCK), from = task % ((p + BLOCK - 1) / BLOCK) * BLOCK,
            to = smaller(p, from + BLOCK);
        const float *src = x + image * c * p;
        float *dst = y + image * c * p;
        for (long block = 0; block < c; block += BLOCK)
            for (long i = from; i < to; i++)
                for (long j = block; j < smaller(c, block + BLOCK); j++) dst[i * c + j] = src[j * p + i];
    }
}
