/* Words of bfloat16 without the instructions: what simd_bfloat16.h does with them, number by number. Builds
 * for tests (CMLP_DEBUG=1) have it on every processor, so that the layers are tried with words. */

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
FUNCTION void word_row(ptrdiff_t vectors, ptrdiff_t depth, const float *a, const float *b,
                       ptrdiff_t b_depth, const float *init, float *c)
{
    for (ptrdiff_t j = 0; j < vectors * (VECTOR_BYTES / 4); j++)
        for (ptrdiff_t k = 0; k < depth; k += 2) {
            float word = word_of(b[k * b_depth + j], k + 1 < depth ? b[(k + 1) * b_depth + j] : 0);
            float pair[16] = {word}, from[16] = {k ? c[j] : init ? init[j] : 0}, sum[16];
            word_tile(1, 1, 1, a + k / 2, 0, 0, pair, 0, from, 0, sum, 0, NULL);
            c[j] = sum[0];
        }
}
