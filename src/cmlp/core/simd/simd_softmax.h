/* The output layer's rows: `n_out` numbers of each count, up to n, a multiple of LANES, there is padding. What
 * is written in whole vectors can be read in whole vectors at once; after single numbers, a processor
 * waits until they have left for the cache. LANES rows go together: their sums are made by a transposition,
 * and what there is one of in a row (its share, a logarithm) is computed for all of them at once.
 *
 * Included by simd.h once per number type and width of vector. */

/* The last vector of a row, with `other` instead of padding. */
INLINE VEC NAME(but_padding)(VEC last, ptrdiff_t n_out, VEC other)
{
    IVEC lane;
    UNROLL for (int i = 0; i < LANES; i++) ((INT *)&lane)[i] = i;
    return NAME(v_select)(VEC_LESS(lane, (INT)((n_out - 1) % LANES + 1)), last, other);
}

/* Replace m rows of weighted sums, LANES at most, by exp(z - top), where top is the largest of the row,
 * and `shifted` by z - top (NULL: do not). Returns the sums of the rows, and less one in `rest`: without
 * the one of the largest z, small ones keep their digits. */
INLINE VEC NAME(shifted_exp)(REAL *x, REAL *shifted, ptrdiff_t m, ptrdiff_t stride, ptrdiff_t n_out,
                             ptrdiff_t n, VEC *rest)
{
    const VEC zero = NAME(splat)(0);
    VEC row[LANES] = {{0}}, ones[LANES] = {{0}}, sum, sum_of_ones;
    REAL top[LANES];
    for (ptrdiff_t i = 0; i < m; i++) {
        REAL *z = x + i * stride, *last = z + n - LANES;
        row[i] = NAME(but_padding)(NAME(load)(last), n_out, NAME(splat)(-INFINITY));
        NAME(store)(last, row[i]);
        for (; z < last; z += LANES) row[i] = NAME(larger)(NAME(load)(z), row[i]);
    }
    NAME(store)(top, NAME(maxima)(row));
    for (ptrdiff_t i = 0; i < m; i++) {
        row[i] = zero;
        for (ptrdiff_t j = i * stride; j < i * stride + n; j += LANES) {
            VEC z = NAME(load)(x + j) - top[i], e = NAME(v_exp)(z);
            IVEC below = VEC_LESS(z, zero);
            if (shifted) NAME(store)(shifted + j, z);
            NAME(store)(x + j, e);
            row[i] += NAME(v_select)(below, e, zero);
            ones[i] += NAME(v_select)(below, zero, e); /* or NaN */
        }
    }
    sum = NAME(sums)(row), sum_of_ones = NAME(sums)(ones);
    *rest = (sum_of_ones - 1) + sum;
    return sum_of_ones + sum;
}

/* Replace rows of weighted sums by their softmax. */
FUNCTION void NAME(softmax)(REAL *x, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t n_out, ptrdiff_t n)
{
    REAL part[LANES];
    VEC rest;
    for (; rows > 0; rows -= LANES, x += LANES * stride) {
        ptrdiff_t m = rows < LANES ? rows : LANES;
        NAME(store)(part, 1 / NAME(shifted_exp)(x, NULL, m, stride, n_out, n, &rest));
        for (ptrdiff_t i = 0; i < m; i++)
            for (ptrdiff_t j = i * stride; j < i * stride + n; j += LANES)
                NAME(store)(x + j, NAME(load)(x + j) * part[i]);
    }
}

/* The same, with each row's cross-entropy y (log(sum of exp(z)) - z) to its targets, from the weighted sums
 * z, and delta = share (softmax - y), zero in the padding up to `stride`. */
FUNCTION void NAME(softmax_costs)(REAL *x, const REAL *y, const REAL *share, REAL *delta, REAL *cost,
                                  ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t n_out, ptrdiff_t n)
{
    for (ptrdiff_t first = 0; first < rows; first += LANES) {
        ptrdiff_t m = rows - first < LANES ? rows - first : LANES;
        VEC costs[LANES] = {{0}}, rest, sum;
        REAL part[LANES], log_sum[LANES];
        sum = NAME(shifted_exp)(x + first * stride, delta + first * stride, m, stride, n_out, n, &rest);
        NAME(store)(part, 1 / sum);
        NAME(store)(log_sum, NAME(v_log)(sum, rest));
        for (ptrdiff_t i = 0; i < m; i++) {
            ptrdiff_t j = (first + i) * stride, last = j + n;
            for (; j < last; j += LANES) {
                VEC softmax = NAME(load)(x + j) * part[i], t = NAME(load)(y + j);
                IVEC not_zero = VEC_LESS(t, NAME(splat)(0)) | VEC_LESS(NAME(splat)(0), t);
                costs[i] += NAME(v_select)(not_zero, t * (log_sum[i] - NAME(load)(delta + j)), t);
                NAME(store)(x + j, softmax);
                NAME(store)(delta + j, share[first + i] * (softmax - t));
            }
            for (; j < last - n + stride; j += LANES) NAME(store)(delta + j, NAME(splat)(0));
        }
        NAME(store)(part, NAME(sums)(costs));
        for (ptrdiff_t i = 0; i < m; i++) cost[first + i] = part[i];
    }
}

/* The softmax of rows of few numbers, at most MOST: a lane for each row. */
enum { NAME(MOST) = NARROW_BYTES / sizeof(REAL) };
FUNCTION void NAME(softmax_few_columns)(REAL *x, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t n_out)
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
    REAL *last = delta + n - LANES;
    for (ptrdiff_t j = 0; j < n; j += LANES)
        NAME(store)(delta + j, part * (NAME(load)(a + j) - NAME(load)(y + j)));
    NAME(store)(last, NAME(but_padding)(NAME(load)(last), n_out, NAME(splat)(0)));
    for (ptrdiff_t j = n; j < stride; j += LANES) NAME(store)(delta + j, NAME(splat)(0));
}
