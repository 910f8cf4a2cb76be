/* Products of words on ARM, by bfmmla: to 2 x 2 sums it adds those of two rows and two columns, two words of
 * each. A word is taken as s = s + (odd odd' + even even'), where each + is rounded to odd (bits that do not
 * fit set the last one), denormal numbers are zero, and results of such a size too: not the bits of the
 * emulation, but within its bound, see docs/precision.md. */
#include <arm_neon.h>
#include <sys/auxv.h>

/* Whether the processor has the instructions, FEAT_BF16. */
FUNCTION int words_run(void) { return getauxval(26) >> 14 & 1; } /* AT_HWCAP2, HWCAP2_BF16 */

/* Halves of two vectors: of x to the left, of y to the right. */
#define LOWER(x, y) vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(x), vreinterpretq_f64_f32(y)))
#define UPPER(x, y) vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(x), vreinterpretq_f64_f32(y)))

/* One or two words, from b_k and a_k on. */
#define WORD_STEP(ROWS, VECTORS, two)                                                           \
    bfloat16x8_t rows[ROWS / 2];                                                                \
    UNROLL for (int i = 0; i < ROWS / 2; i++) {                                                 \
        const float *first = a_k + 2 * i * a_row, *second = first + a_row;                      \
        rows[i] = vreinterpretq_bf16_f32((float32x4_t){                                         \
            first[0], two ? first[a_depth] : 0, second[0], two ? second[a_depth] : 0});         \
    }                                                                                           \
    UNROLL for (int v = 0; v < VECTORS; v++) {                                                  \
        float32x4_t x = vld1q_f32(b_k + 4 * v), y = vdupq_n_f32(0);                             \
        if (two) y = vld1q_f32(b_k + b_depth + 4 * v);                                          \
        bfloat16x8_t left = vreinterpretq_bf16_f32(vzip1q_f32(x, y));                           \
        bfloat16x8_t right = vreinterpretq_bf16_f32(vzip2q_f32(x, y));                          \
        UNROLL for (int i = 0; i < ROWS / 2; i++) {                                             \
            sum[i][2 * v] = vbfmmlaq_f32(sum[i][2 * v], rows[i], left);                         \
            sum[i][2 * v + 1] = vbfmmlaq_f32(sum[i][2 * v + 1], rows[i], right);                \
        }                                                                                       \
    }
#define WORD_TILE(ROWS, VECTORS)                                                                \
    case TILE_SHAPE(ROWS, VECTORS, 0): {                                                        \
        const float *a_k = a, *b_k = b;                                                         \
        float32x4_t sum[ROWS / 2][2 * VECTORS];                                                 \
        UNROLL for (int i = 0; i < ROWS / 2; i++)                                               \
            UNROLL for (int v = 0; v < VECTORS; v++) {                                          \
                float32x4_t x = vdupq_n_f32(0), y = x;                                          \
                if (init) {                                                                     \
                    x = vld1q_f32(init + 2 * i * init_row + 4 * v);                             \
                    y = vld1q_f32(init + (2 * i + 1) * init_row + 4 * v);                       \
                }                                                                               \
                sum[i][2 * v] = LOWER(x, y), sum[i][2 * v + 1] = UPPER(x, y);                   \
            }                                                                                   \
        for (ptrdiff_t k = 1; k < depth;) {                                                     \
            ptrdiff_t end = k + BURST_DEPTH < depth ? k + BURST_DEPTH : depth;                  \
            if (ahead) prefetch_next(ahead);                                                    \
            for (; k < end; k += 2, a_k += 2 * a_depth, b_k += 2 * b_depth) {                   \
                WORD_STEP(ROWS, VECTORS, 1)                                                     \
            }                                                                                   \
        }                                                                                       \
        if (depth % 2) {                                                                        \
            WORD_STEP(ROWS, VECTORS, 0)                                                         \
        }                                                                                       \
        UNROLL for (int i = 0; i < ROWS / 2; i++)                                               \
            UNROLL for (int v = 0; v < VECTORS; v++) {                                          \
                float *at = c + 2 * i * c_row + 4 * v;                                          \
                vst1q_f32(at, LOWER(sum[i][2 * v], sum[i][2 * v + 1]));                         \
                vst1q_f32(at + c_row, UPPER(sum[i][2 * v], sum[i][2 * v + 1]));                 \
            }                                                                                   \
    } break;
__attribute__((target("arch=armv8.2-a+bf16"))) FUNCTION void word_tile(
    ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t depth, const float *a, ptrdiff_t a_row,
    ptrdiff_t a_depth, const float *b, ptrdiff_t b_depth, const float *init, ptrdiff_t init_row, float *c,
    ptrdiff_t c_row, prefetch_t *ahead)
{
    ptrdiff_t most = vectors < 3 ? 12 : vectors == 3 ? 8 : 6, n;
    for (; rows > 0; rows -= n, a += n * a_row, c += n * c_row) { /* few shapes: the last rows are several */
        n = rows >= most ? most : vectors < 3 && rows >= 8 ? 8 : rows >= 4 ? 4 : 2;
        if (rows == 1) a_row = init_row = c_row = 0; /* that row twice */
        switch (TILE_SHAPE(n, vectors, 0)) {
            WORD_TILE(12, 1) WORD_TILE(8, 1) WORD_TILE(4, 1) WORD_TILE(2, 1)
            WORD_TILE(12, 2) WORD_TILE(8, 2) WORD_TILE(4, 2) WORD_TILE(2, 2)
            WORD_TILE(8, 3) WORD_TILE(4, 3) WORD_TILE(2, 3)
            WORD_TILE(6, 4) WORD_TILE(4, 4) WORD_TILE(2, 4)
        }
        if (init) init += n * init_row;
    }
}
#undef WORD_TILE
#undef WORD_STEP
#undef LOWER
#undef UPPER
