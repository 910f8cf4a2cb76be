/* Products: C = init + A B, a tile or a row at a time.
 *
 * Every matrix product of a network is this one, with A read through two strides:
 *   forward          A(i,k) = activations[i][k]   B = W
 *   input gradient   A(i,k) = delta[i][k]         B = W transposed
 *   weight gradient  A(i,k) = activations[k][i]   B = delta
 * `init` is NULL (zeros), a bias (init_row = 0: the same for all rows), or C itself (add to it).
 *
 * Included by simd.h once per number type and width of vector. */

/* A strip of tiles of a few rows, next to each other: up to STRIP_VECTORS vectors of columns, TILE_VECTORS
 * a tile. The sums of a tile, TILE_SUMS vectors at most, stay in registers for the whole depth, and each
 * output is one chain of multiply-adds in the order of k: a number does not depend on the shape of the
 * tile that it was computed in. A tile of two vectors or more, of a strip with all its rows, leaves the
 * rows of B in `copy`, without gaps, for the strips that follow: rows of a wide matrix lie a power of two
 * apart, fall into few sets of the caches, and evict each other. Such a copy, of one tile's columns after
 * the other's, is read with b_depth = 0. `copy` and `ahead` may be NULL. Up to six rows are addressed from
 * one pointer; of more, every third row has its own, as numbers for all of them would not fit into the
 * processor's registers.
 *
 * If `half`, the last vector's second half is padding: zeros are written there, and nothing is computed.
 * Processors that take two cycles for 64 bytes take one for the half; to the others it is all the same. */
#ifdef HALF
#define WITH_HALF(statement) statement
INLINE HALF NAME(low_half)(VEC x) { HALF y; memcpy(&y, &x, sizeof y); return y; }
#else
#define WITH_HALF(statement)
#endif
#define TILE_STEP(ROWS, VECTORS, half, keep)                                                    \
    for (; b_k != end; b_k += b_step) {                                                         \
        VEC b_kv[VECTORS];                                                                      \
        UNROLL for (int v = 0; v < VECTORS; v++) b_kv[v] = NAME(load)(b_k + v * LANES);         \
        keep                                                                                    \
        UNROLL for (int i = 0; i < ROWS; i++) {                                                 \
            VEC a_ik = NAME(splat)(a_of[i / GROUP][i % GROUP * a_row]);                         \
            UNROLL for (int v = 0; v < WHOLE; v++) sum[i][v] += a_ik * b_kv[v];                 \
            WITH_HALF(HALF a_half = NAME(low_half)(a_ik);)                                      \
            WITH_HALF(if (half) last[i] += a_half * NAME(low_half)(b_kv[VECTORS - 1]);)         \
        }                                                                                       \
        UNROLL for (int i = 0; i < GROUPS; i++) a_of[i] += a_depth;                             \
    }
#define KEEP(VECTORS)                                                                           \
    UNROLL for (int v = 0; v < VECTORS; v++) NAME(store)(copy_k + v * LANES, b_kv[v]);          \
    copy_k += VECTORS * LANES;
#define TILE(ROWS, VECTORS, half)                                                               \
    case TILE_SHAPE(ROWS, VECTORS, half): {                                                     \
        enum { WHOLE = VECTORS - half, GROUP = ROWS > 6 ? 3 : 6 };                              \
        enum { GROUPS = (ROWS + GROUP - 1) / GROUP };                                           \
        const REAL *a_of[GROUPS], *b_k = b;                                                     \
        REAL *copy_k = copy;                                                                    \
        VEC sum[ROWS][VECTORS];                                                                 \
        WITH_HALF(HALF last[ROWS];)                                                             \
        UNROLL for (int i = 0; i < GROUPS; i++) a_of[i] = a + GROUP * i * a_row;                \
        UNROLL for (int i = 0; i < ROWS; i++) {                                                 \
            UNROLL for (int v = 0; v < VECTORS; v++)                                            \
                sum[i][v] = init ? NAME(load)(init + i * init_row + v * LANES)                  \
                                 : NAME(splat)(0);                                              \
            WITH_HALF(last[i] = NAME(low_half)(sum[i][VECTORS - 1]);)                           \
        }                                                                                       \
        for (ptrdiff_t left = depth; left > 0; left -= burst) {                                 \
            const REAL *end = b_k + (left < burst ? left : burst) * b_step;                     \
            if (ahead) prefetch_next(ahead);                                                    \
            if (VECTORS > 1 && ROWS >= TILE_SUMS / TILE_VECTORS && copy)                        \
                TILE_STEP(ROWS, VECTORS, half, KEEP(VECTORS))                                   \
            else                                                                                \
                TILE_STEP(ROWS, VECTORS, half, )                                                \
        }                                                                                       \
        UNROLL for (int i = 0; i < ROWS; i++) {                                                 \
            WITH_HALF(if (half) sum[i][VECTORS - 1] = HALF_AND_ZEROS(last[i]);)                 \
            UNROLL for (int v = 0; v < VECTORS; v++)                                            \
                NAME(store)(c + i * c_row + v * LANES, sum[i][v]);                              \
        }                                                                                       \
    } break;
#define TILES_OF_1_OR_2(half)                                                                   \
    TILE(1, 1, half) TILE(2, 1, half) TILE(3, 1, half)                                          \
    TILE(4, 1, half) TILE(5, 1, half) TILE(6, 1, half)                                          \
    TILE(1, 2, half) TILE(2, 2, half) TILE(3, 2, half)                                          \
    TILE(4, 2, half) TILE(5, 2, half) TILE(6, 2, half)
#define TILES_OF_MORE(half)                                                                     \
    TILE(7, 1, half) TILE(8, 1, half) TILE(9, 1, half)                                          \
    TILE(10, 1, half) TILE(11, 1, half) TILE(12, 1, half)                                       \
    TILE(7, 2, half) TILE(8, 2, half) TILE(9, 2, half)                                          \
    TILE(10, 2, half) TILE(11, 2, half) TILE(12, 2, half)                                       \
    TILE(1, 3, half) TILE(2, 3, half) TILE(3, 3, half) TILE(4, 3, half)                         \
    TILE(5, 3, half) TILE(6, 3, half) TILE(7, 3, half) TILE(8, 3, half)                         \
    TILE(1, 4, half) TILE(2, 4, half) TILE(3, 4, half)                                          \
    TILE(4, 4, half) TILE(5, 4, half) TILE(6, 4, half)

FUNCTION void NAME(tile)(ptrdiff_t rows, ptrdiff_t vectors, int half, ptrdiff_t depth,
                         const REAL *a, ptrdiff_t a_row, ptrdiff_t a_depth,
                         const REAL *b, ptrdiff_t b_depth, REAL *copy,
                         const REAL *init, ptrdiff_t init_row, REAL *c, ptrdiff_t c_row,
                         prefetch_t *ahead)
{
    const ptrdiff_t burst = ahead ? BURST_DEPTH : depth;
    for (; vectors > 0; vectors -= TILE_VECTORS) {
        const ptrdiff_t n = vectors < TILE_VECTORS ? vectors : TILE_VECTORS;
        const ptrdiff_t b_step = b_depth ? b_depth : n * LANES;
        switch (TILE_SHAPE(rows, n, half && n == vectors)) {
            TILES_OF_1_OR_2(0)
#if TILE_SUMS > 12
            TILES_OF_MORE(0)
#endif
#ifdef HALF
            TILES_OF_1_OR_2(1)
            TILES_OF_MORE(1)
#endif
        }
        b += b_depth ? n * LANES : depth * n * LANES, c += n * LANES;
        if (init) init += n * LANES;
        if (copy) copy += depth * n * LANES;
    }
}
#undef WITH_HALF
#undef TILES_OF_1_OR_2
#undef TILES_OF_MORE
#undef TILE
#undef TILE_STEP
#undef KEEP

/* One row, c = init + a B, of many columns: ROW_DEPTH rows of B at a time, which is then read in the order
 * that it lies in, and the sums come from the L1 cache. B is what takes the time: it comes from L2
 * or from beyond it, where this reads at 93 % of the speed of a loop that only adds it up (sums in
 * registers over the whole depth, a stripe of B at a time: 84 %; prefetching rows makes both slower). */
FUNCTION void NAME(wide_row)(ptrdiff_t vectors, ptrdiff_t depth, const REAL *a, const REAL *b,
                             ptrdiff_t b_depth, const REAL *init, REAL *c)
{
    ptrdiff_t k = 0;
    for (ptrdiff_t v = 0; v < vectors; v++)
        NAME(store)(c + v * LANES, init ? NAME(load)(init + v * LANES) : NAME(splat)(0));
    for (; k + ROW_DEPTH <= depth; k += ROW_DEPTH, b += ROW_DEPTH * b_depth) {
        VEC a_k[ROW_DEPTH];
        UNROLL for (int i = 0; i < ROW_DEPTH; i++) a_k[i] = NAME(splat)(a[k + i]);
        for (ptrdiff_t v = 0; v < vectors; v++) {
            VEC even = NAME(load)(c + v * LANES), odd = NAME(splat)(0);
            UNROLL for (int i = 0; i < ROW_DEPTH; i += 2) {
                even += a_k[i] * NAME(load)(b + i * b_depth + v * LANES);
                odd += a_k[i + 1] * NAME(load)(b + (i + 1) * b_depth + v * LANES);
            }
            NAME(store)(c + v * LANES, even + odd);
        }
    }
    for (; k < depth; k++, b += b_depth) {
        VEC a_k = NAME(splat)(a[k]);
        for (ptrdiff_t v = 0; v < vectors; v++)
            NAME(store)(c + v * LANES,
                        NAME(load)(c + v * LANES) + a_k * NAME(load)(b + v * LANES));
    }
}

/* One row, c = init + a B. A narrow one has too few sums to hide the time that a multiply-add takes:
 * PARTS of the depth are then summed side by side. B is read in the order that it lies in. */
#define ROW(PARTS, VECTORS)                                                                     \
    for (; vectors >= VECTORS; vectors -= VECTORS) {                                            \
        VEC sum[PARTS][VECTORS];                                                                \
        ptrdiff_t k = 0;                                                                        \
        UNROLL for (int v = 0; v < VECTORS; v++)                                                \
            UNROLL for (int p = 0; p < PARTS; p++)                                              \
                sum[p][v] = p || !init ? NAME(splat)(0) : NAME(load)(init + v * LANES);         \
        for (; k + PARTS <= depth; k += PARTS)                                                  \
            UNROLL for (int p = 0; p < PARTS; p++) {                                            \
                VEC a_k = NAME(splat)(a[k + p]);                                                \
                UNROLL for (int v = 0; v < VECTORS; v++)                                        \
                    sum[p][v] += a_k * NAME(load)(b + (k + p) * b_depth + v * LANES);           \
            }                                                                                   \
        for (; k < depth; k++)                                                                  \
            UNROLL for (int v = 0; v < VECTORS; v++)                                            \
                sum[0][v] += NAME(splat)(a[k]) * NAME(load)(b + k * b_depth + v * LANES);       \
        UNROLL for (int v = 0; v < VECTORS; v++) {                                              \
            UNROLL for (int p = 1; p < PARTS; p++) sum[0][v] += sum[p][v];                      \
            NAME(store)(c + v * LANES, sum[0][v]);                                              \
        }                                                                                       \
        b += VECTORS * LANES;                                                                   \
        c += VECTORS * LANES;                                                                   \
        if (init) init += VECTORS * LANES;                                                      \
    }

FUNCTION void NAME(row_product)(ptrdiff_t vectors, ptrdiff_t depth, const REAL *a,
                                const REAL *b, ptrdiff_t b_depth, const REAL *init, REAL *c)
{
    ptrdiff_t wide = vectors / ROW_VECTORS * ROW_VECTORS;
    if (wide) {
        NAME(wide_row)(wide, depth, a, b, b_depth, init, c);
        b += wide * LANES, c += wide * LANES, vectors -= wide;
        if (init) init += wide * LANES;
    }
    ROW(1, 8) ROW(2, 4) ROW(4, 2) ROW(8, 1)
}
#undef ROW

/* c[i][:] = a[i] b for some rows: the weight gradient of one row of activations and one of deltas.
   A short b stays in registers. */
FUNCTION void NAME(outer)(ptrdiff_t rows, ptrdiff_t vectors, const REAL *a, const REAL *b, REAL *c)
{
#define OUTER(n)                                                                                \
    if (vectors == n) {                                                                         \
        VEC row[n];                                                                             \
        UNROLL for (int v = 0; v < n; v++) row[v] = NAME(load)(b + v * LANES);                  \
        for (ptrdiff_t i = 0; i < rows; i++, c += n * LANES) {                                  \
            VEC a_i = NAME(splat)(a[i]);                                                        \
            UNROLL for (int v = 0; v < n; v++) NAME(store)(c + v * LANES, a_i * row[v]);        \
        }                                                                                       \
        return;                                                                                 \
    }
    OUTER(1) OUTER(2) OUTER(4) OUTER(8)
#undef OUTER
    for (ptrdiff_t i = 0; i < rows; i++) {
        VEC a_i = NAME(splat)(a[i]);
        for (ptrdiff_t v = 0; v < vectors; v++, c += LANES)
            NAME(store)(c, a_i * NAME(load)(b + v * LANES));
    }
}

/* Multiply-adds in registers, for the machine's peak; returns its floating-point operations. No sum starts
 * at 2, which stays 2: compilers leave that one out. */
FUNCTION double NAME(multiply_adds)(ptrdiff_t rounds)
{
    VEC sum[TILE_SUMS], a = NAME(splat)((REAL)0.5), b = NAME(splat)(1);
    volatile REAL kept; /* without a use, compilers leave the work out */
    UNROLL for (int i = 0; i < TILE_SUMS; i++) sum[i] = NAME(splat)((REAL)(i + 3));
    for (ptrdiff_t round = 0; round < rounds; round++)
        UNROLL for (int i = 0; i < TILE_SUMS; i++) sum[i] = sum[i] * a + b;
    UNROLL for (int i = 1; i < TILE_SUMS; i++) sum[0] += sum[i];
    kept = *(const REAL *)&sum[0];
    (void)kept;
    return 2.0 * (double)rounds * TILE_SUMS * LANES;
}
