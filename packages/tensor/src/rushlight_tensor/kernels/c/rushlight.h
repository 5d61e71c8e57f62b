/* What every kernel text sees: the marks that binding.py reads, the thread count, and the private BLAS. */
#ifndef RUSHLIGHT_H
#define RUSHLIGHT_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT
#define OPTIONAL
#define POSITIVE
#define INOUT
#define SCRATCH
#define IMAGE
#define LENGTH(...)
#define EXTENT(...)
#define INLINE static inline __attribute__((always_inline))

/* binding.STATE: shared by all libraries of the process, written by Python. */
static const volatile int64_t *rl_state;

INLINE int rl_threads(void) { return (int)rl_state[0]; }

/* Which thread of a parallel region this is, for its part of the scratch: below the number that the region asked for. */
#ifdef _OPENMP
extern int omp_get_thread_num(void);
INLINE int rl_thread(void) { return omp_get_thread_num(); }
#else
INLINE int rl_thread(void) { return 0; }
#endif

/* Lengths of prototypes are made of these as well. */
INLINE long least(long a, long b) { return a < b ? a : b; }
INLINE long most(long a, long b) { return a > b ? a : b; }

/*
 * Note [One pool]
 *     Loops are split over OpenMP's threads only, and BLAS runs on one thread inside them: two pools whose idle threads
 *     spin slow each other down by 10x and more.
 *
 * Note [Same bits]
 *     Work is cut by shape, never by the number of threads or by an address, and partial sums are added in a fixed
 *     order. So a kernel's result depends on its input alone: on 1, 2 or 64 threads, at any alignment.
 */
#define RL_PRAGMA(text) _Pragma(#text)
/* A loop over independent rows; `work` is the total number of elements, small loops stay on the calling thread. */
#define PARALLEL_FOR(work) RL_PRAGMA(omp parallel for schedule(static) num_threads(rl_threads()) if ((work) > 16384))
/* The same, keeping the first row that is wrong: the smallest `row` that the loop assigns. */
#define PARALLEL_FOR_FIRST(work, row) \
    RL_PRAGMA(omp parallel for schedule(static) num_threads(rl_threads()) if ((work) > 16384) reduction(min : row))
/*
 * A region of one thread costs GNU's OpenMP 0.7 us, several times what a small kernel computes: it makes a team first.
 * The linker hands us its calls (`--wrap`), and where no region is open yet, the body of one thread is a plain call.
 */
#ifdef RL_WRAP_GOMP
extern int omp_in_parallel(void);
extern void __real_GOMP_parallel(void (*)(void *), void *, unsigned, unsigned);
__attribute__((visibility("hidden"))) void __wrap_GOMP_parallel(void (*body)(void *), void *data, unsigned threads,
    unsigned flags) {
    if (threads == 1 && !omp_in_parallel()) body(data);
    else __real_GOMP_parallel(body, data, threads, flags);
}
#endif
/* An index as it is now, read a single time: what was checked is what is used, whatever another thread writes. */
#define READ_ONCE(place) (*(const volatile int64_t *)&(place))
/* A sum in the order that vector registers give; NaN and infinity pass through it unharmed. */
#define SIMD_SUM(...) RL_PRAGMA(omp simd reduction(+ : __VA_ARGS__))
#define SIMD_MAX(...) RL_PRAGMA(omp simd reduction(max : __VA_ARGS__))
#define SIMD RL_PRAGMA(omp simd)

typedef void (*rl_sgemm)(int, int, int, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *,
    int64_t, float, float *, int64_t);
typedef void (*rl_dgemm)(int, int, int, int64_t, int64_t, int64_t, double, const double *, int64_t, const double *,
    int64_t, double, double *, int64_t);

/*
 * C = op(A) op(B) + beta C on the calling thread, row-major; `ta`, `tb` say that an operand is stored transposed. An
 * empty sum (k == 0) has rows of no elements, where BLAS wants a distance of 1 all the same.
 */
#define RL_DISTANCE(ld, k) ((k) == 0 && (ld) == 0 ? 1 : (ld))
INLINE void sgemm(bool ta, bool tb, long m, long n, long k, const float *a, long lda, const float *b, long ldb,
    float beta, float *c, long ldc) {
    ((rl_sgemm)rl_state[1])(101, ta ? 112 : 111, tb ? 112 : 111, m, n, k, 1.f, a, RL_DISTANCE(lda, k),
        b, RL_DISTANCE(ldb, k), beta, c, ldc);
}

INLINE void dgemm(bool ta, bool tb, long m, long n, long k, const double *a, long lda, const double *b, long ldb,
    double beta, double *c, long ldc) {
    ((rl_dgemm)rl_state[2])(101, ta ? 112 : 111, tb ? 112 : 111, m, n, k, 1., a, RL_DISTANCE(lda, k),
        b, RL_DISTANCE(ldb, k), beta, c, ldc);
}

#endif
