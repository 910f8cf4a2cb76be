/* The output layer's rows: `n_out` numbers of each count, up to n, a multiple of LANES, there is padding. What
 * is written in whole vectors can be read in whole vectors at once; behind single numbers, a processor
 * waits until they have left for the cache.
 *
 * Included by _simd.h once per number type and width of vector. */

/* Replace rows of weighted sums by exp(z - the row's maximum), and `shifted` by its logarithm (NULL: do
 * not). One row after the other would wait for each exponential. */
FUNCTION void NAME(shifted_exp)(REAL *x, REAL *shifted, ptrdiff_t rows, ptrdiff_t stride,
                                ptrdiff_t n_out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < rows; i++) {
        REAL *z = x + i * stride, top = z[0];
        for (ptrdiff_t j = 1; j < n_out; j++) top = z[j] > top ? z[j] : top;
        for (ptrdiff_t j = 0; j < n; j += LANES) NAME(store)(z + j, NAME(load)(z + j) - top);
    }
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = i * stride; j < i * stride + n; j += LANES) {
            VEC z = NAME(load)(x + j);
            if (shifted) NAME(store)(shifted + j, z);
            NAME(store)(x + j, NAME(v_exp)(z));
        }
}

/* Divide a row by its sum, which is returned. */
FUNCTION double NAME(divide_by_sum)(REAL *x, ptrdiff_t n_out, ptrdiff_t n)
{
    double total = 0;
    for (ptrdiff_t j = 0; j < n_out; j++) total += x[j];
    for (ptrdiff_t j = 0; j < n; j += LANES)
        NAME(store)(x + j, NAME(load)(x + j) * (REAL)(1 / total));
    return total;
}

/* The softmax of rows of few numbers, at most MOST: a lane for each row. */
enum { NAME(MOST) = NARROW_BYTES / sizeof(REAL) };
FUNCTION void NAME(narrow_softmax)(REAL *x, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t n_out)
{
    REAL column[NAME(MOST)][LANES] = {{0}};
    for (; rows > 0; rows -= LANES, x += LANES * stride) {
        ptrdiff_t m = rows < LANES ? rows : LANES;
        VEC total = NAME(splat)(0), top;
        for (ptrdiff_t i = 0; i < m; i++)
            for (ptrdiff_t j = 0; j < n_out; j++) column[j][i] = x[i * stride + j];
        top = NAME(load)(column[0]);
        for (ptrdiff_t j = 1; j < n_out; j++) {
            VEC z = NAME(load)(column[j]);
            top = NAME(v_select)(VEC_LESS(top, z), z, top);
        }
        for (ptrdiff_t j = 0; j < n_out; j++) {
            VEC e = NAME(v_exp)(NAME(load)(column[j]) - top);
            NAME(store)(column[j], e);
            total += e;
        }
        for (ptrdiff_t j = 0; j < n_out; j++) {
            NAME(store)(column[j], NAME(load)(column[j]) / total);
            for (ptrdiff_t i = 0; i < m; i++) x[i * stride + j] = column[j][i];
        }
    }
}

/* delta = part (a - y); zero in the padding, up to `stride`. */
FUNCTION void NAME(difference)(REAL *delta, const REAL *a, const REAL *y, REAL part, ptrdiff_t n_out,
                               ptrdiff_t n, ptrdiff_t stride)
{
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        VEC d = part * (NAME(load)(a + j) - NAME(load)(y + j));
        if (n_out < j + LANES) {
            IVEC lane;
            UNROLL for (int i = 0; i < LANES; i++) ((INT *)&lane)[i] = i;
            d = NAME(v_select)(VEC_LESS(lane, (INT)(n_out - j)), d, NAME(splat)(0));
        }
        NAME(store)(delta + j, d);
    }
    for (ptrdiff_t j = n; j < stride; j += LANES) NAME(store)(delta + j, NAME(splat)(0));
}
