/* Words of bfloat16 in plain C. Their tile is that of arm_words.h; or number by number, in builds for tests
 * (CMLP_DEBUG=1), which have words on every processor, so that the layers are tried with them. */

FUNCTION float word_of(float even, float odd)
{
    uint32_t low, high;
    even = rounded(even), odd = rounded(odd);
    memcpy(&low, &even, sizeof low), memcpy(&high, &odd, sizeof high);
    high |= low >> 16;
    memcpy(&odd, &high, sizeof odd);
    return odd;
}
FUNCTION void words_along(float *to, const float *x, ptrdiff_t n)
{
    for (ptrdiff_t k = 0; k < n; k += 2) to[k / 2] = word_of(x[k], k + 1 < n ? x[k + 1] : 0);
}
FUNCTION void words_across(float *to, const float *x, ptrdiff_t x_row, ptrdiff_t depth, ptrdiff_t n)
{
    for (ptrdiff_t k = 0; k < depth; k += 2, x += 2 * x_row, to += n)
        for (ptrdiff_t j = 0; j < n; j++) to[j] = word_of(x[j], k + 1 < depth ? x[x_row + j] : 0);
}
FUNCTION void words_tiles(float *to, ptrdiff_t rows, ptrdiff_t tiles, const float *x, ptrdiff_t x_row,
                          ptrdiff_t depth)
{
    for (; tiles > 0; tiles--, x += rows, to += (depth + 1) / 2 * rows)
        words_across(to, x, x_row, depth, rows);
}

#ifdef SOFTWARE_WORDS
#define words_run() 1
FUNCTION void word_tile(ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t depth, const float *a,
                        ptrdiff_t a_row, ptrdiff_t a_depth, const float *b, ptrdiff_t b_depth,
                        const float *init, ptrdiff_t init_row, float *c, ptrdiff_t c_row, prefetch_t *ahead)
{
    unsigned before = flush_denormals();
    (void)ahead;
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < vectors * (VECTOR_BYTES / 4); j++) {
            volatile float sum = init ? init[i * init_row + j] : 0;
            for (ptrdiff_t k = 0; k < depth; k++) {
                uint32_t words[2];
                float x[2], y[2];
                memcpy(&words[0], a + i * a_row + k * a_depth, 4), memcpy(&words[1], b + k * b_depth + j, 4);
                for (int half = 0; half < 2; half++) {
                    uint32_t p = words[0] >> 16 << 16, q = words[1] >> 16 << 16;
                    memcpy(&x[half], &p, 4), memcpy(&y[half], &q, 4);
                    words[0] <<= 16, words[1] <<= 16;
                }
                sum = x[0] * y[0] + sum;
                sum = x[1] * y[1] + sum;
            }
            c[i * c_row + j] = sum;
        }
    restore_denormals(before);
}
#else
#include "arm_words.h"
#endif

/* One row, c = init + a B, whose B lies in float32: some rows of it at a time become a panel. */
FUNCTION void word_row(ptrdiff_t vectors, ptrdiff_t depth, const float *a, const float *b,
                       ptrdiff_t b_depth, const float *init, float *c)
{
    enum { ROWS = 32, COLUMNS = TILE_VECTORS * (VECTOR_BYTES / 4) };
    float panel[ROWS / 2 * COLUMNS];
    for (; vectors > 0; vectors -= TILE_VECTORS, b += COLUMNS, c += COLUMNS) {
        ptrdiff_t n = vectors < TILE_VECTORS ? vectors : TILE_VECTORS;
        ptrdiff_t columns = n * (VECTOR_BYTES / 4);
        for (ptrdiff_t k = 0; k < depth; k += ROWS) {
            ptrdiff_t rows = depth - k < ROWS ? depth - k : ROWS;
            words_across(panel, b + k * b_depth, b_depth, rows, columns);
            word_tile(1, n, (rows + 1) / 2, a + k / 2, 0, 1, panel, columns, k ? c : init, 0, c, 0, NULL);
        }
        if (init) init += COLUMNS;
    }
}
