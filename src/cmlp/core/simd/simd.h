/* Vectors for the compiled core: one body of C for every processor and both number types.
 *
 * A. The vector is the widest one that the compiler's target has (the build makes one core per level);
 *    it is a compiler vector type (GCC, clang), so `a * b + c` is plain C and the compiler schedules it.
 *    No intrinsics but for bfloat16: nothing else needs an instruction that the compilers do not find
 *    by themselves.
 * B. A compiler without vector types (MSVC) gets the same code with vectors of one lane. Only what C
 *    spells differently for a scalar has two definitions: the types and VEC_LESS.
 * C. Template by inclusion: the files at the end are read with REAL = float and with double, each with wide
 *    and with narrow vectors. NAME(f) is f_f32 or f_f64, f_narrow_f32 or f_narrow_f64.
 *
 * Never compile this with -ffast-math: rounding tricks and the handling of NaN rely on IEEE rules. */
#ifndef CMLP_SIMD_H
#define CMLP_SIMD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16 /* SSE2, NEON */
#endif
#define INLINE static inline __attribute__((always_inline, unused))
#define FUNCTION static __attribute__((unused))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#else
#define INLINE static inline
#define FUNCTION static
#define UNROLL
#endif

/* The empty asm is a side effect: without one, GCC takes callers for pure and leaves the calls out. */
#ifdef __GNUC__
#define PREFETCH_TO(level, address) \
    (__extension__({ __builtin_prefetch(address, 0, 4 - level); __asm__ volatile(""); }))
#else
#define PREFETCH_TO(level, address)
#endif
#define PREFETCH(address) PREFETCH_TO(1, address)

/* Vectors that the sums of a tile take, and its widest row: 6 x 4 (8 x 3, 12 x 2, 12 x 1) where there
 * are 32 registers, 6 x 2 where there are 16. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define TILE_SUMS 24
#define TILE_VECTORS 4
#else
#define TILE_SUMS 12
#define TILE_VECTORS 2
#endif
#if defined(__AVX512F__)
#define HALVES 1 /* tiles may end in half a vector */
#else
#define HALVES 0
#endif
#define TILE_ROWS (TILE_SUMS / 2)
/* Tiles next to each other make a strip, of rows of 256 bytes at most: what follows their product, an
 * activation or an update, is done for all of them at once. */
#ifdef VECTOR_BYTES
#define STRIP_VECTORS (256 / VECTOR_BYTES)
#else
#define STRIP_VECTORS (4 * TILE_VECTORS)
#endif
#define TILE_SHAPE(rows, vectors, half) ((half) * 128 + (vectors) * 16 + (rows))

/* Vectors that a thread takes of a product with one row, and rows of B that it takes at a time. */
#define ROW_VECTORS 16
#define ROW_DEPTH 8

/* A row of a few numbers is not worth a wide vector: storing 64 bytes takes two cycles, and a division as
 * long as its vector is wide. Rows that fit these bytes have functions of their own, *_narrow_*. */
#define NARROW_BYTES 16

/* vec holds numbers, ivec their bits or a comparison (all ones or zero in each lane), uvec bits that are
 * shifted; loose is a vec at any address. */
#ifdef VECTOR_BYTES
#define VECTOR_TYPES(T, REAL, INT, UINT, BYTES)                                                       \
    typedef REAL vec_##T __attribute__((vector_size(BYTES)));                                         \
    typedef INT ivec_##T __attribute__((vector_size(BYTES)));                                         \
    typedef UINT uvec_##T __attribute__((vector_size(BYTES)));                                        \
    typedef REAL loose_##T __attribute__((vector_size(BYTES), aligned(1), may_alias));
#define VEC_LESS(a, b) ((IVEC)((a) < (b)))
#else
#define VECTOR_TYPES(T, REAL, INT, UINT, BYTES) \
    typedef REAL vec_##T, loose_##T;     \
    typedef INT ivec_##T;                \
    typedef UINT uvec_##T;
#define VEC_LESS(a, b) (-(IVEC)((a) < (b)))
#endif
/* Memory that is needed soon: `left` lines, the next one at `at`, in rows of `lines` lines. Rows lie
 * `stride` bytes apart, or, with numbers, where each one's number puts it from `base` on; more such
 * memory lies `also` bytes further on (0: none). It is prefetched in bursts: all at once, it would hold up
 * what is needed now. */
enum { LINE = 64, BURST_DEPTH = 16 };
typedef struct {
    const char *at, *base;
    const int64_t *numbers;
    ptrdiff_t left, lines, done, stride, also[2], burst;
} prefetch_t;

INLINE void prefetch_next(prefetch_t *ahead)
{
    for (ptrdiff_t b = ahead->burst; b > 0 && ahead->left > 0; b--) {
        if (ahead->numbers) PREFETCH_TO(2, ahead->at);
        else PREFETCH(ahead->at);
        if (ahead->also[0]) PREFETCH(ahead->at + ahead->also[0]);
        if (ahead->also[1]) PREFETCH(ahead->at + ahead->also[1]);
        ahead->at += LINE;
        ahead->left--;
        if (++ahead->done == ahead->lines) {
            ahead->done = 0;
            if (!ahead->numbers) ahead->base += ahead->stride, ahead->at = ahead->base;
            else if (ahead->left) ahead->at = ahead->base + *++ahead->numbers * ahead->stride;
        }
    }
}

VECTOR_TYPES(f32, float, int32_t, uint32_t, VECTOR_BYTES)
VECTOR_TYPES(f64, double, int64_t, uint64_t, VECTOR_BYTES)
#if HALVES
VECTOR_TYPES(half_f32, float, int32_t, uint32_t, VECTOR_BYTES / 2)
VECTOR_TYPES(half_f64, double, int64_t, uint64_t, VECTOR_BYTES / 2)
#endif
VECTOR_TYPES(narrow_f32, float, int32_t, uint32_t, NARROW_BYTES)
VECTOR_TYPES(narrow_f64, double, int64_t, uint64_t, NARROW_BYTES)
#define LANES ((int)(sizeof(VEC) / sizeof(REAL)))

#define REAL float
#define INT int32_t
#define REAL_BITS 32
#define NAME(x) x##_f32
#define VEC vec_f32
#define IVEC ivec_f32
#define UVEC uvec_f32
#if HALVES
#define HALF vec_half_f32
#define HALF_AND_ZEROS(x) ((VEC){(x)[0], (x)[1], (x)[2], (x)[3], (x)[4], (x)[5], (x)[6], (x)[7]})
#endif
#include "simd_math.h"
#include "simd_tile.h"
#include "simd_pack.h"
#include "simd_softmax.h"
#include "simd_waves.h"
#include "simd_parametric.h"
#include "simd_lanes.h"
#undef NAME
#undef VEC
#undef IVEC
#undef UVEC
#undef HALF
#undef HALF_AND_ZEROS
#define NAME(x) x##_narrow_f32
#define VEC vec_narrow_f32
#define IVEC ivec_narrow_f32
#define UVEC uvec_narrow_f32
#include "simd_math.h"
#include "simd_tile.h"
#include "simd_pack.h"
#include "simd_softmax.h"
#undef REAL
#undef INT
#undef REAL_BITS
#undef NAME
#undef VEC
#undef IVEC
#undef UVEC

#define REAL double
#define INT int64_t
#define REAL_BITS 64
#define NAME(x) x##_f64
#define VEC vec_f64
#define IVEC ivec_f64
#define UVEC uvec_f64
#if HALVES
#define HALF vec_half_f64
#define HALF_AND_ZEROS(x) ((VEC){(x)[0], (x)[1], (x)[2], (x)[3]})
#endif
#include "simd_math.h"
#include "simd_tile.h"
#include "simd_pack.h"
#include "simd_softmax.h"
#include "simd_waves.h"
#include "simd_parametric.h"
#undef NAME
#undef VEC
#undef IVEC
#undef UVEC
#undef HALF
#undef HALF_AND_ZEROS
#define NAME(x) x##_narrow_f64
#define VEC vec_narrow_f64
#define IVEC ivec_narrow_f64
#define UVEC uvec_narrow_f64
#include "simd_math.h"
#include "simd_tile.h"
#include "simd_pack.h"
#include "simd_softmax.h"
#undef REAL
#undef INT
#undef REAL_BITS
#undef NAME
#undef VEC
#undef IVEC
#undef UVEC
#undef LANES

/* Numbers below the normal range (1e-38, 1e-308) count as zero until `restore_denormals`: moments
 * of units that have died stay there, and processors are slow with them. */
INLINE unsigned flush_denormals(void)
{
#if defined(__SSE2__) || defined(_M_X64)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040); /* flush to zero, denormals are zero */
    return before;
#else
    return 0;
#endif
}
INLINE void restore_denormals(unsigned before)
{
#if defined(__SSE2__) || defined(_M_X64)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

#include "simd_bfloat16.h"

/* Prefetch `bytes` bytes now. */
INLINE void prefetch(const char *at, ptrdiff_t bytes)
{
    for (const char *end = at + bytes; at < end; at += LINE) PREFETCH(at);
}

/* Numbers of `itemsize` bytes in a vector. */
INLINE ptrdiff_t vector_lanes(size_t itemsize)
{
    return (ptrdiff_t)((itemsize == sizeof(float) ? sizeof(vec_f32) : sizeof(vec_f64)) / itemsize);
}

#endif
