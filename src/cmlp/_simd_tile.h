/* The register tile: C = init + A B for up to TILE_ROWS rows and one or two vectors of columns.
 *
 * Every matrix product of a network is this one, with A read through two strides:
 *   forward          A(i,k) = activations[i][k]   B = W
 *   input gradient   A(i,k) = delta[i][k]         B = W transposed
 *   weight gradient  A(i,k) = activations[k][i]   B = delta
 * The sums stay in registers for the whole depth, and each output is one chain of multiply-adds in
 * the order of k: a number does not depend on the shape of the tile that it was computed in.
 * `init` is NULL (zeros), a bias (init_row = 0: the same for all rows), or C itself (add to it).
 *
 * Included by _simd.h once per number type. */

#define TILE_BODY(ROWS, VECTORS)                                                        \
    {                                                                                   \
        VEC sum[ROWS][VECTORS];                                                         \
        UNROLL for (int i = 0; i < ROWS; i++)                                           \
            UNROLL for (int v = 0; v < VECTORS; v++)                                    \
                sum[i][v] = init ? NAME(load)(init + i * init_row + v * LANES)          \
                                 : NAME(splat)(0);                                      \
        for (ptrdiff_t k = 0; k < depth; k++) {                                         \
            VEC b_k[VECTORS];                                                           \
            UNROLL for (int v = 0; v < VECTORS; v++)                                    \
                b_k[v] = NAME(load)(b + k * b_depth + v * LANES);                       \
            UNROLL for (int i = 0; i < ROWS; i++) {                                     \
                VEC a_ik = NAME(splat)(a[i * a_row + k * a_depth]);                     \
                UNROLL for (int v = 0; v < VECTORS; v++) sum[i][v] += a_ik * b_k[v];    \
            }                                                                           \
        }                                                                               \
        UNROLL for (int i = 0; i < ROWS; i++)                                           \
            UNROLL for (int v = 0; v < VECTORS; v++)                                    \
                NAME(store)(c + i * c_row + v * LANES, sum[i][v]);                      \
    }

#define TILE_CASE(ROWS)                                                                 \
    case ROWS:                                                                          \
        if (vectors == 2) TILE_BODY(ROWS, 2) else TILE_BODY(ROWS, 1)                    \
        break;

FUNCTION void NAME(tile)(ptrdiff_t rows, ptrdiff_t vectors, ptrdiff_t depth,
                       const REAL *a, ptrdiff_t a_row, ptrdiff_t a_depth,
                       const REAL *b, ptrdiff_t b_depth,
                       const REAL *init, ptrdiff_t init_row,
                       REAL *c, ptrdiff_t c_row)
{
    switch (rows) {
        TILE_CASE(1) TILE_CASE(2) TILE_CASE(3) TILE_CASE(4) TILE_CASE(5) TILE_CASE(6)
#if TILE_ROWS > 6
        TILE_CASE(7) TILE_CASE(8) TILE_CASE(9) TILE_CASE(10) TILE_CASE(11) TILE_CASE(12)
#endif
    }
}

#undef TILE_BODY
#undef TILE_CASE
