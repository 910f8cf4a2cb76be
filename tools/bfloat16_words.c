/* Compares the products of words, which use the processor's bfloat16 instructions, with the definition and,
 * on x86, with their emulation in float32, bit by bit: all kinds of pairs, and every shape of tile.
 *
 *     cc -O2 -std=gnu11 -mavx2 -mfma -mbmi -mbmi2 -mf16c -mlzcnt -mavx512f -mavx512cd -mavx512vl \
 *        -mavx512bw -mavx512dq -ffp-contract=fast -fno-trapping-math -static \
 *        -I src/cmlp/core/simd tools/bfloat16_words.c -lm -o words && ./words [rounds]
 *
 * It needs a processor with AVX512_BF16, or an emulator of one: Bochs 3 has such models (cpu:
 * model=sapphire_rapids), and boots a Linux kernel whose initial file system is this program as /init.
 * For ARM it is compiled without the -m, and needs FEAT_BF16, or qemu-aarch64 -cpu max.
 * The last line tells how many numbers were compared, and how many differ. */
#include "simd.h"

#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>

#if !WORDS
#error "compile for ARM, or with the flags of the level avx512, see setup.py"
#endif

enum { DEPTH = 80, LANES = VECTOR_BYTES / 4, COLUMNS = 4 * LANES, ROWS = 12 };

static uint64_t state = 0x9e3779b97f4a7c15u;
static uint32_t random_bits(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}
static float of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Numbers near 1; of all exponents that neither overflow in a sum; tiny ones, denormals among them; any. */
static float random_number(int kind)
{
    uint32_t bits = random_bits();
    if (kind == 0) return of_bits((bits & 0x80ffffff) | 0x3f000000);
    if (kind == 1) return of_bits((bits & 0x80000000) | (bits & 0x7fffffff) % 0x5e000000);
    if (kind == 2) return of_bits(bits & 0x80ffffff) * (bits & 1 ? 1 : 0x1p20f);
    return of_bits(bits);
}

static long compared, differ;
static void compare(const char *what, float found, float expected)
{
    compared++;
    if (bits_of(found) == bits_of(expected) || (found != found && expected != expected)) return;
    if (differ++ < 20) printf("%s: %08x, expected %08x\n", what, bits_of(found), bits_of(expected));
}

static float flushed(float x)
{
    return bits_of(x) & 0x7f800000 ? x : of_bits(bits_of(x) & 0x80000000);
}

#ifdef ARM_WORDS
enum { TOGETHER = 4 }; /* numbers along the depth; zeros make them up */

/* x + y, rounded to odd. */
static float add(float x, float y)
{
    feclearexcept(FE_ALL_EXCEPT);
    fesetround(FE_TOWARDZERO);
    volatile float sum = flushed(x);
    sum += flushed(y);
    fesetround(FE_TONEAREST);
    if (fetestexcept(FE_OVERFLOW)) return copysignf(INFINITY, sum);
    return flushed(of_bits(bits_of(sum) | !!fetestexcept(FE_INEXACT)));
}

/* s and the product of two words, as bfmmla computes it. */
static float with_word(float odd, float odd_too, float even, float even_too, float s)
{
    return add(s, add(flushed(flushed(odd) * flushed(odd_too)), flushed(flushed(even) * flushed(even_too))));
}
#else
enum { TOGETHER = 2 };

/* s + a b with one rounding. */
static float multiply_add(float a, float b, float s)
{
    return flushed(fmaf(flushed(a), flushed(b), flushed(s)));
}

/* s and the product of two words, as vdpbf16ps computes it. */
static float with_word(float odd, float odd_too, float even, float even_too, float s)
{
    return multiply_add(even, even_too, multiply_add(odd, odd_too, s));
}
#endif

/* A word and its numbers; NULL: none was to be written there. */
static void compare_word(const char *what, float word, const float *odd, const float *even)
{
    compare(what, of_bits(bits_of(word) & 0xffff0000), odd ? *odd : of_bits(0x55550000));
    compare(what, of_bits(bits_of(word) << 16), even ? *even : of_bits(0x55550000));
}

static void check_conversions(int kind)
{
    static float x[77 + 16 * DEPTH], words[DEPTH * COLUMNS], two[2 * DEPTH * COLUMNS];
    for (int n = 1; n <= 77; n++) {
        for (int k = 0; k < n; k++) x[k] = random_number(kind);
        memset(words, 0x55, sizeof words);
        pairs_along(1, words, x, n);
        pairs_along(0, two, x, n);
        for (int k = 0; k < 48; k++)
            compare_word("along", words[k], 2 * k < n ? &two[2 * k] : NULL,
                         2 * k < n ? &two[2 * k + 1] : NULL);
    }
    for (int i = 0; i < 77 + 16 * DEPTH; i++) x[i] = random_number(kind);
    for (int depth = 1; depth <= 9; depth++) {
        int n = depth / 2 + depth % 2;
        for (int columns = LANES; columns <= COLUMNS; columns += LANES) {
            memset(words, 0x55, sizeof words);
            pairs_across(1, words, x, 80, depth, columns);
            pairs_across(0, two, x, 80, depth, columns);
            for (int i = 0; i < n * columns + 16; i++) {
                float *odd = &two[i / columns * 2 * columns + i % columns];
                int there = i < n * columns;
                compare_word("across", words[i], there ? odd : NULL, there ? odd + columns : NULL);
            }
        }
        for (int rows = 6; rows <= 12; rows += rows == 6 ? 2 : 4)
            for (int tiles = 1; tiles <= 6; tiles++) {
                memset(words, 0x55, sizeof words);
                pairs_tiles(1, words, rows, tiles, x, 80, depth);
                pairs_tiles(0, two, rows, tiles, x, 80, depth);
                for (int i = 0; i < tiles * n * rows + 16; i++) {
                    float *odd = &two[i / rows * 2 * rows + i % rows];
                    int there = i < tiles * n * rows;
                    compare_word("tiles", words[i], there ? odd : NULL, there ? odd + rows : NULL);
                }
            }
    }
}

static void check_tile(int rows, int vectors, int depth, int kind)
{
    static float A[ROWS][DEPTH], At[DEPTH + 2][ROWS], B[DEPTH][COLUMNS], init[ROWS][COLUMNS];
    static float a[ROWS][DEPTH], at[DEPTH * ROWS], b[DEPTH][COLUMNS], c[4][ROWS][COLUMNS];
    int n = vectors * LANES, with_init = random_bits() % 2;
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < depth; k++) A[i][k] = At[k][i] = random_number(kind);
    for (int k = 0; k < depth; k++)
        for (int j = 0; j < n; j++) B[k][j] = random_number(kind);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < n; j++) init[i][j] = random_number(kind);
    for (int words = 0; words < 2; words++) {
        for (int i = 0; i < rows; i++) pairs_along(words, a[i], A[i], depth);
        pairs_across(words, b[0], B[0], COLUMNS, depth, n);
        pair_tile(words, rows, vectors, 0, (depth + 1) / 2 * (words ? 1 : 2), a[0], DEPTH, 1, b[0], n,
                  with_init ? init[0] : NULL, COLUMNS, c[words][0], COLUMNS, NULL);
    }
    int as_tiles = rows == 6 || rows == 8 || rows == 12; /* A as that of a weight gradient */
    if (as_tiles) {
        pairs_tiles(1, at, rows, 1, At[0], ROWS, depth);
        pair_tile(1, rows, vectors, 0, (depth + 1) / 2, at, 1, rows, b[0], n,
                  with_init ? init[0] : NULL, COLUMNS, c[3][0], COLUMNS, NULL);
    }
    for (int i = 0; i < rows; i++)
        word_row(vectors, depth, a[i], B[0], COLUMNS, with_init ? init[i] : NULL, c[2][i]);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < n; j++) {
            float sum = with_init ? init[i][j] : 0;
            float x[DEPTH + TOGETHER] = {0}, y[DEPTH + TOGETHER] = {0};
            for (int k = 0; k < depth; k++) x[k] = rounded(A[i][k]), y[k] = rounded(B[k][j]);
            for (int k = 0; k < depth || k % TOGETHER; k += 2)
                sum = with_word(x[k + 1], y[k + 1], x[k], y[k], sum);
            compare("words", c[1][i][j], sum);
#ifndef ARM_WORDS
            compare("emulation", c[0][i][j], sum);
#endif
            compare("one row", c[2][i][j], sum);
            if (as_tiles) compare("words of tiles", c[3][i][j], sum);
        }
}

int main(int n_arguments, char **arguments)
{
    const int most[5] = {0, 12, 12, 8, 6};
    int rounds = n_arguments > 1 ? atoi(arguments[1]) : 3;
    if (!words_run()) {
        printf("this processor has no instructions for bfloat16\n");
        return 2;
    }
    for (int round = 0; round < rounds; round++)
        for (int kind = 0; kind < 4; kind++) {
            check_conversions(kind);
            for (int vectors = 1; vectors <= 4; vectors++)
                for (int rows = 1; rows <= most[vectors]; rows++)
                    check_tile(rows, vectors, 1 + (int)(random_bits() % DEPTH), kind);
        }
    printf("%ld numbers compared, %ld differ\n", compared, differ);
    return differ != 0;
}
