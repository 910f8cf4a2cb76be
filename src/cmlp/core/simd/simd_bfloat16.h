/* Products of operands that are rounded to bfloat16, the first 16 bits of a float32; sums are float32.
 *
 * Two numbers that are neighbours along the depth make a pair, (even, odd), and a sum takes a pair as
 * s = fma(odd, odd', s); s = fma(even, even', s), each rounded to nearest even: so does vdpbf16ps. Denormal
 * numbers are zero, results too. An odd depth ends with (even, 0), on both sides.
 * Where the processor has the instruction, a pair is a word: 32 bits of an array of floats, the even number
 * in the low half; ARM's instruction sums words in its own way, see arm_words.h. Elsewhere a pair is two
 * floats, the odd one first: the tile of float32 then computes the bits of vdpbf16ps, as a product of two
 * rounded numbers is exact. `words` tells which. */

enum { FLOAT32, BFLOAT16, BFLOAT16_EMULATED }; /* vocabulary.PRECISIONS */
#define PAIR_OF_ONES 0x1.007fp+0f /* two bfloat16 of 1, 0x3f803f80, read as a float */

/* The nearest bfloat16; denormals become zero, NaN stays NaN. */
INLINE float rounded(float x)
{
    uint32_t bits, even;
    memcpy(&bits, &x, sizeof bits);
    even = bits + 0x7fff + (bits >> 16 & 1);
    even = (bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : even;
    even = bits & 0x7f800000 ? even & 0xffff0000 : bits & 0x80000000;
    memcpy(&x, &even, sizeof x);
    return x;
}

#if defined(__AARCH64EL__) && defined(__linux__) && !defined(SOFTWARE_WORDS) && \
    (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 10)
#define ARM_WORDS 1
#endif
#if defined(__AVX512BW__) && (__GNUC__ >= 10 || __clang_major__ >= 9) && !defined(SOFTWARE_WORDS)
#define WORDS 1
#include <cpuid.h>
#include <immintrin.h>
#define WITH_WORDS __attribute__((target("avx512bf16")))

/* Whether the processor has the instructions, AVX512_BF16; that it has those of this level is known. */
FUNCTION int words_run(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || eax < 1) return 0; /* the last subleaf */
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && eax >> 5 & 1;
}

INLINE __mmask16 first_lanes(ptrdiff_t n) { return (__mmask16)(n < 16 ? (1 << n) - 1 : 0xffff); }

WITH_WORDS FUNCTION void words_along(float *to, const float *x, ptrdiff_t n)
{
    for (; n >= 32; n -= 32, x += 32, to += 16)
        _mm512_storeu_si512(
            to, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x)));
    if (n <= 0) return;
    __m512 low = _mm512_maskz_loadu_ps(first_lanes(n), x), high = _mm512_setzero_ps();
    if (n > 16) high = _mm512_maskz_loadu_ps(first_lanes(n - 16), x + 16);
    _mm512_mask_storeu_epi32(to, first_lanes((n + 1) / 2), (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* The words of two vectors. */
WITH_WORDS static inline __attribute__((always_inline)) __m512i interleaved(__m512 even, __m512 odd)
{
    const __m512i turn = _mm512_add_epi32(
        _mm512_mullo_epi32(_mm512_set1_epi32(0x00010001),
                           _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)),
        _mm512_set1_epi32(0x00100000));
    return _mm512_permutexvar_epi16(turn, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

WITH_WORDS FUNCTION void words_across(float *to, const float *x, ptrdiff_t x_row, ptrdiff_t depth,
                                      ptrdiff_t n)
{
    for (; depth > 1; depth -= 2, x += 2 * x_row)
        for (ptrdiff_t j = 0; j < n; j += 16, to += 16)
            _mm512_storeu_si512(
                to, interleaved(_mm512_loadu_ps(x + j), _mm512_loadu_ps(x + x_row + j)));
    for (ptrdiff_t j = 0; depth > 0 && j < n; j += 16, to += 16)
        _mm512_storeu_si512(to, interleaved(_mm512_loadu_ps(x + j), _mm512_setzero_ps()));
}

/* Four tiles at a time: a row, of which each takes a part of a line, is then brought once. Their rows, 12,
 * 8 or 6 words, are stored without a mask, which some processors are slow with. */
WITH_WORDS FUNCTION void words_tiles(float *to, ptrdiff_t rows, ptrdiff_t tiles, const float *x,
                                     ptrdiff_t x_row, ptrdiff_t depth)
{
    const ptrdiff_t size = (depth + 1) / 2 * rows;
    for (; tiles > 0; tiles -= 4, x += 4 * rows, to += 4 * size)
        for (ptrdiff_t k = 0; k < depth; k += 2)
            for (ptrdiff_t i = 0; i < 4 && i < tiles; i++) {
                const float *even = x + k * x_row + i * rows;
                float *at = to + i * size + k / 2 * rows;
                __m512 odd = _mm512_setzero_ps();
                if (k + 1 < depth) odd = _mm512_loadu_ps(even + x_row);
                __m512i words = interleaved(_mm512_loadu_ps(even), odd);
                if (rows == 6) {
                    _mm_storeu_si128((__m128i *)at, _mm512_castsi512_si128(words));
                    _mm_storel_epi64((__m128i *)(at + 4), _mm512_extracti32x4_epi32(words, 1));
                    continue;
                }
                _mm256_storeu_si256((__m256i *)at, _mm512_castsi512_si256(words));
                if (rows == 12)
                    _mm_storeu_si128((__m128i *)(at + 8), _mm512_extracti32x4_epi32(words, 2));
            }
}

/* tile_f32 of words: see simd_tile.h. */
#define WORD_TILE(ROWS, VECTORS)                                                                \
    case TILE_SHAPE(ROWS, VECTORS, 0): {                                                        \
        enum { THIRDS = (ROWS + 2) / 3 };                                                       \
        const float *a_third[THIRDS], *b_k = b;                                                 \
        __m512 sum[ROWS][VECTORS];                                                              \
        UNROLL for (int i = 0; i < THIRDS; i++) a_third[i] = a + 3 * i * a_row;                 \
        UNROLL for (int i = 0; i < ROWS; i++)                                                   \
            UNROLL for (int v = 0; v < VECTORS; v++)                                            \
                sum[i][v] = init ? _mm512_loadu_ps(init + i * init_row + v * 16)                \
                                 : _mm512_setzero_ps();                                         \
        for (ptrdiff_t k = 0; k < depth;) {                                                     \
            ptrdiff_t end = k + BURST_DEPTH < depth ? k + BURST_DEPTH : depth;                  \
            if (ahead) prefetch_next(ahead);                                                    \
            for (; k < end; k++, b_k += b_depth) {                                              \
                __m512i b_kv[VECTORS];                                                          \
                UNROLL for (int v = 0; v < VECTORS; v++)                                        \
                    b_kv[v] = _mm512_loadu_si512(b_k + v * 16);                                 \
                UNROLL for (int i = 0; i < ROWS; i++) {                                         \
                    int word;                                                                   \
                    memcpy(&word, a_third[i / 3] + i % 3 * a_row, sizeof word);                 \
                    __m512i a_ik = _mm512_set1_epi32(word);                                     \
                    UNROLL for (int v = 0; v < VECTORS; v++)                                    \
                        sum[i][v] = _mm512_dpbf16_ps(sum[i][v], (__m512bh)a_ik,                 \
                                                     (__m512bh)b_kv[v]);                        \
                }                                                                               \
                UNROLL for (int i = 0; i < THIRDS; i++) a_third[i] += a_depth;                  \
            }                                                                                   \
        }                                                                                       \
        UNROLL for (int i = 0; i < ROWS; i++)                                                   \
            UNROLL for (int v = 0; v < VECTORS; v++)                                            \
                _mm512_storeu_ps(c + i * c_row + v * 16, sum[i][v]);                            \
    } break;
WITH_WORDS FUNCTION void word_tile(ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t depth, const float *a,
                                   ptrdiff_t a_row, ptrdiff_t a_depth, const float *b, ptrdiff_t b_depth,
                                   const float *init, ptrdiff_t init_row, float *c, ptrdiff_t c_row,
                                   prefetch_t *ahead)
{
    ptrdiff_t most = vectors < 3 ? 12 : vectors == 3 ? 8 : 6, n;
    for (; rows; rows -= n, a += n * a_row, c += n * c_row) { /* few shapes: the last rows are several */
        n = rows >= most ? most : vectors < 3 && rows >= 8 ? 8 : rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
        switch (TILE_SHAPE(n, vectors, 0)) {
            WORD_TILE(12, 1) WORD_TILE(8, 1) WORD_TILE(4, 1) WORD_TILE(2, 1) WORD_TILE(1, 1)
            WORD_TILE(12, 2) WORD_TILE(8, 2) WORD_TILE(4, 2) WORD_TILE(2, 2) WORD_TILE(1, 2)
            WORD_TILE(8, 3) WORD_TILE(4, 3) WORD_TILE(2, 3) WORD_TILE(1, 3)
            WORD_TILE(6, 4) WORD_TILE(4, 4) WORD_TILE(2, 4) WORD_TILE(1, 4)
        }
        if (init) init += n * init_row;
    }
}
#undef WORD_TILE

/* One row, c = init + a B, whose B lies in float32 and is read once: it is rounded on the way. */
#define WORD_ROW(VECTORS)                                                                       \
    for (; vectors >= VECTORS; vectors -= VECTORS, b += VECTORS * 16, c += VECTORS * 16) {      \
        __m512 sum[VECTORS];                                                                    \
        UNROLL for (int v = 0; v < VECTORS; v++)                                                \
            sum[v] = init ? _mm512_loadu_ps(init + v * 16) : _mm512_setzero_ps();               \
        for (ptrdiff_t k = 0; k < depth; k += 2) {                                              \
            const float *even = b + k * b_depth, *odd = even + b_depth;                         \
            int word;                                                                           \
            memcpy(&word, a + k / 2, sizeof word);                                              \
            UNROLL for (int v = 0; v < VECTORS; v++)                                            \
                sum[v] = _mm512_dpbf16_ps(                                                      \
                    sum[v], (__m512bh)_mm512_set1_epi32(word),                                  \
                    (__m512bh)interleaved(_mm512_loadu_ps(even + v * 16),                       \
                                          k + 1 < depth ? _mm512_loadu_ps(odd + v * 16)         \
                                                        : _mm512_setzero_ps()));                \
        }                                                                                       \
        UNROLL for (int v = 0; v < VECTORS; v++) _mm512_storeu_ps(c + v * 16, sum[v]);          \
        if (init) init += VECTORS * 16;                                                         \
    }
WITH_WORDS FUNCTION void word_row(ptrdiff_t vectors, ptrdiff_t depth, const float *a, const float *b,
                                ptrdiff_t b_depth, const float *init, float *c)
{
    WORD_ROW(4)
    WORD_ROW(1)
}
#undef WORD_ROW
#elif defined(SOFTWARE_WORDS) || defined(ARM_WORDS)
#define WORDS 1
#include "software_words.h"
#else
#define WORDS 0
#define words_run() 0
#define words_along(to, x, n) ((void)0)
#define words_across(to, x, x_row, depth, n) ((void)0)
#define words_tiles(to, rows, tiles, x, x_row, depth) ((void)0)
#define word_tile(...) ((void)0)
#define word_row(vectors, depth, a, b, b_depth, init, c) ((void)(init))
#endif

/* The pairs of n numbers of a row, whose neighbours are neighbours along the depth. */
FUNCTION void pairs_along(int words, float *to, const float *x, ptrdiff_t n)
{
    if (words) {
        words_along(to, x, n);
        return;
    }
    for (ptrdiff_t k = 0; k + 1 < n; k += 2) to[k] = rounded(x[k + 1]), to[k + 1] = rounded(x[k]);
    if (n % 2) to[n - 1] = 0, to[n] = rounded(x[n - 1]);
}

/* The pairs of n columns, whole vectors, of `depth` rows, x_row apart: [word][n], or [number][n]. */
FUNCTION void pairs_across(int words, float *to, const float *x, ptrdiff_t x_row, ptrdiff_t depth,
                           ptrdiff_t n)
{
    if (words) {
        words_across(to, x, x_row, depth, n);
        return;
    }
    for (ptrdiff_t k = 0; k < depth; k += 2, x += 2 * x_row, to += 2 * n) {
        for (ptrdiff_t j = 0; j < n; j++) to[j] = k + 1 < depth ? rounded(x[x_row + j]) : 0;
        for (ptrdiff_t j = 0; j < n; j++) to[n + j] = rounded(x[j]);
    }
}

/* The pairs of tiles of `rows` columns (6, 8, 12: see simd_tile.h), one tile after the other. Of the last
 * one some may be padding; reads up to two vectors beyond it. */
FUNCTION void pairs_tiles(int words, float *to, ptrdiff_t rows, ptrdiff_t tiles, const float *x,
                          ptrdiff_t x_row, ptrdiff_t depth)
{
    if (words) {
        words_tiles(to, rows, tiles, x, x_row, depth);
        return;
    }
    for (; tiles > 0; tiles--, x += rows, to += (depth + depth % 2) * rows)
        pairs_across(0, to, x, x_row, depth, rows);
}

/* C = init + A B of pairs: the depth counts words, or numbers. */
FUNCTION void pair_tile(int words, ptrdiff_t rows, ptrdiff_t vectors, int half, ptrdiff_t depth,
                        const float *a, ptrdiff_t a_row, ptrdiff_t a_depth, const float *b,
                        ptrdiff_t b_depth, const float *init, ptrdiff_t init_row, float *c,
                        ptrdiff_t c_row, prefetch_t *ahead)
{
    for (; words && vectors > 0; vectors -= TILE_VECTORS) { /* as in tile_f32 */
        ptrdiff_t n = vectors < TILE_VECTORS ? vectors : TILE_VECTORS;
        ptrdiff_t columns = n * (ptrdiff_t)(sizeof(vec_f32) / sizeof(float));
        word_tile(rows, n, depth, a, a_row, a_depth, b, b_depth ? b_depth : columns, init, init_row, c,
                  c_row, ahead);
        b += b_depth ? columns : depth * columns, c += columns;
        if (init) init += columns;
    }
    if (words) return;
    unsigned before = flush_denormals();
    tile_f32(rows, vectors, half, depth, a, a_row, a_depth, b, b_depth, NULL, init, init_row, c, c_row,
             ahead);
    restore_denormals(before);
}
