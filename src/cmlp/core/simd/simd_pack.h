/* Copies that put what a tile reads next to each other: rows of a wide matrix lie a power of two apart,
 * fall into few sets of the caches, and evict each other.
 *
 * Included by simd.h once per number type and width of vector. */

/* One step of a transposition: x and y swap their blocks off the diagonal, `S` numbers wide. */
#ifdef VECTOR_BYTES
#if defined(__clang__)
#define PICK(x, y, j) ((j) < LANES ? (x)[j] : (y)[(j) - LANES])
#define EXCHANGE(x, y, S)                                                                       \
    {                                                                                           \
        VEC x_new, y_new;                                                                       \
        UNROLL for (int j = 0; j < LANES; j++) {                                                \
            x_new[j] = PICK(x, y, j & S ? LANES + j - S : j);                                   \
            y_new[j] = PICK(x, y, j & S ? LANES + j : j + S);                                   \
        }                                                                                       \
        x = x_new, y = y_new;                                                                   \
    }
#else
#define EXCHANGE(x, y, S)                                                                       \
    {                                                                                           \
        IVEC x_from, y_from;                                                                    \
        UNROLL for (int j = 0; j < LANES; j++) {                                                \
            x_from[j] = j & S ? LANES + j - S : j;                                              \
            y_from[j] = j & S ? LANES + j : j + S;                                              \
        }                                                                                       \
        VEC x_new = __builtin_shuffle(x, y, x_from);                                            \
        y = __builtin_shuffle(x, y, y_from);                                                    \
        x = x_new;                                                                              \
    }
#endif
#else
#define EXCHANGE(x, y, S)
#endif
#define ROUND(S)                                                                                \
    if (S < LANES) UNROLL for (int i = 0; i < LANES; i++)                                       \
        if (!(i & S)) EXCHANGE(x[i], x[(i + S) % LANES], S)

/* Transpose a square of LANES vectors, in log2(LANES) rounds. */
INLINE void NAME(transpose)(VEC x[])
{
    ROUND(1) ROUND(2) ROUND(4) ROUND(8)
}

/* The sum, or the largest number, of each of LANES vectors, in the order of the vectors: a transposition
 * that folds on the way. */
#define FOLD_ROUND(S, FOLD)                                                                     \
    if (S < LANES) UNROLL for (int i = 0; i < LANES; i += 2 * S) {                              \
        VEC low = x[i], high = x[(i + S) % LANES];                                              \
        EXCHANGE(low, high, S)                                                                  \
        x[i] = FOLD(low, high);                                                                 \
    }
#define FOLD_ALL(FOLD) FOLD_ROUND(1, FOLD) FOLD_ROUND(2, FOLD) FOLD_ROUND(4, FOLD) FOLD_ROUND(8, FOLD)
#define ADD(a, b) ((a) + (b))
INLINE VEC NAME(sums)(VEC x[])
{
    FOLD_ALL(ADD)
    return x[0];
}
INLINE VEC NAME(larger)(VEC a, VEC b) { return NAME(v_select)(VEC_LESS(a, b), b, a); }
INLINE VEC NAME(maxima)(VEC x[])
{
    FOLD_ALL(NAME(larger))
    return x[0];
}
#undef ADD
#undef FOLD_ALL
#undef FOLD_ROUND
#undef ROUND
#undef EXCHANGE
#ifdef PICK
#undef PICK
#endif

/* panel[k][i] = w[i][k] for `vectors` vectors of rows i, of which `rows` are there (the rest are zero),
 * and k below depth; for each tile one after the other. The panel must have room for the last one's depth up
 * to a multiple of LANES. */
FUNCTION void NAME(pack_rows)(REAL *panel, ptrdiff_t vectors, ptrdiff_t rows, ptrdiff_t depth,
                              const REAL *w, ptrdiff_t w_row)
{
    VEC x[LANES];
    for (; vectors > 0; vectors -= TILE_VECTORS, rows -= TILE_VECTORS * LANES) {
        ptrdiff_t n = vectors < TILE_VECTORS ? vectors : TILE_VECTORS;
        for (ptrdiff_t v = 0; v < n; v++, w += LANES * w_row)
            for (ptrdiff_t k = 0; k < depth; k += LANES) {
                UNROLL for (int i = 0; i < LANES; i++)
                    x[i] = v * LANES + i < rows ? NAME(load)(w + i * w_row + k) : NAME(splat)(0);
                NAME(transpose)(x);
                UNROLL for (int i = 0; i < LANES; i++)
                    NAME(store)(panel + ((k + i) * n + v) * LANES, x[i]);
            }
        panel += depth * n * LANES;
    }
}

/* out[i] = sum over k of w[i][k] x[k]: the input gradient of one row, without a transpose. `vectors` is
 * the depth; rows beyond `rows` give zero, up to a multiple of LANES. */
FUNCTION void NAME(dot_rows)(ptrdiff_t rows, ptrdiff_t vectors, const REAL *w, ptrdiff_t w_row,
                             const REAL *x, REAL *out)
{
    ptrdiff_t first = 0;
    for (; first + LANES <= rows; first += LANES, w += LANES * w_row) {
        VEC sum[LANES];
        UNROLL for (int i = 0; i < LANES; i++) sum[i] = NAME(load)(w + i * w_row) * NAME(load)(x);
        for (ptrdiff_t v = 1; v < vectors; v++) {
            VEC x_v = NAME(load)(x + v * LANES);
            UNROLL for (int i = 0; i < LANES; i++)
                sum[i] += NAME(load)(w + i * w_row + v * LANES) * x_v;
        }
        NAME(store)(out + first, NAME(sums)(sum));
    }
    if (first < rows) {
        VEC sum[LANES];
        for (int i = 0; i < LANES; i++) sum[i] = NAME(splat)(0);
        for (ptrdiff_t i = 0; i < rows - first; i++)
            for (ptrdiff_t v = 0; v < vectors; v++)
                sum[i] += NAME(load)(w + i * w_row + v * LANES) * NAME(load)(x + v * LANES);
        NAME(store)(out + first, NAME(sums)(sum));
    }
}

/* c[i][j] = init[j] + sum over k of a[i][k] b[k][j], for few columns j, with the same dot products; a tile
 * would compute a whole vector of columns. The depth is a vector at least; what is left of it after whole
 * vectors is added number by number. The columns of b, b_depth apart in a row, are copied to `copy`. */
FUNCTION void NAME(product_few_columns)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const REAL *a,
                                        ptrdiff_t a_row, const REAL *b, ptrdiff_t b_depth, REAL *copy,
                                        const REAL *init, REAL *c, ptrdiff_t c_row)
{
    ptrdiff_t vectors = depth / LANES;
    REAL sum[LANES];
    for (ptrdiff_t j = 0; j < columns; j++)
        for (ptrdiff_t k = 0; k < depth; k++) copy[j * depth + k] = b[k * b_depth + j];
    for (; rows > 0; rows -= LANES, a += LANES * a_row, c += LANES * c_row)
        for (ptrdiff_t j = 0; j < columns; j++) {
            const REAL *b_j = copy + j * depth;
            ptrdiff_t m = rows < LANES ? rows : LANES;
            NAME(dot_rows)(m, vectors, a, a_row, b_j, sum);
            for (ptrdiff_t i = 0; i < m; i++) {
                for (ptrdiff_t k = vectors * LANES; k < depth; k++) sum[i] += a[i * a_row + k] * b_j[k];
                c[i * c_row + j] = sum[i] + init[j];
            }
        }
}

/* c[i][j] = t[j][i] for `rows` rows of c, of `columns` numbers, with zeros after them up to c_row; added
 * to what is there, if `adds`. The rows of t are t_row long, a multiple of LANES. */
FUNCTION void NAME(transpose_few_columns)(ptrdiff_t rows, ptrdiff_t columns, const REAL *t, ptrdiff_t t_row,
                                          int adds, REAL *c, ptrdiff_t c_row)
{
    VEC x[LANES];
    for (ptrdiff_t first = 0; first < rows; first += LANES)
        for (ptrdiff_t j = 0; j < c_row; j += LANES) {
            ptrdiff_t m = rows - first < LANES ? rows - first : LANES;
            UNROLL for (int i = 0; i < LANES; i++)
                x[i] = j + i < columns ? NAME(load)(t + (j + i) * t_row + first) : NAME(splat)(0);
            NAME(transpose)(x);
            for (ptrdiff_t i = 0; i < m; i++) {
                REAL *to = c + (first + i) * c_row + j;
                NAME(store)(to, adds ? NAME(load)(to) + x[i] : x[i]);
            }
        }
}

/* The first operand of a weight gradient, A(i,k) = a[k][i]: tiles of `rows` numbers i, one after the
 * other, each as [k][rows]. Writes up to two vectors more than there are tiles. */
FUNCTION void NAME(pack_tiles)(REAL *to, ptrdiff_t rows, ptrdiff_t tiles, ptrdiff_t depth,
                               const REAL *a, ptrdiff_t a_depth)
{
    for (ptrdiff_t tile = 0; tile < tiles; tile++)
        for (ptrdiff_t k = 0; k < depth; k++, to += rows)
            for (ptrdiff_t i = 0; i < rows; i += LANES)
                NAME(store)(to + i, NAME(load)(a + k * a_depth + tile * rows + i));
}
