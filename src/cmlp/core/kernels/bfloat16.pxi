# Products of operands that are rounded to bfloat16 ---------------------------------------------------
# Both operands of a product are rounded just before it: the rows of A for all threads together, each
# panel of B by the thread that uses it. What lies in the workspace otherwise is float32.

cdef extern from "simd.h" nogil:
    const int FLOAT32, BFLOAT16, BFLOAT16_EMULATED
    const float PAIR_OF_ONES
    bint words_run()  # whether this core and the processor multiply words
    void pairs_along(bint words, float *to, const float *x, Py_ssize_t n)
    void pairs_across(bint words, float *to, const float *x, Py_ssize_t x_row, Py_ssize_t depth,
                      Py_ssize_t n)
    void pairs_tiles(bint words, float *to, Py_ssize_t rows, Py_ssize_t tiles, const float *x,
                     Py_ssize_t x_row, Py_ssize_t depth)
    void pair_tile(bint words, Py_ssize_t rows, Py_ssize_t vectors, bint half, Py_ssize_t depth,
                   const float *a, Py_ssize_t a_row, Py_ssize_t a_depth, const float *b,
                   Py_ssize_t b_depth, const float *init, Py_ssize_t init_row, float *c,
                   Py_ssize_t c_row, Prefetch *ahead)
    void word_row(Py_ssize_t vectors, Py_ssize_t depth, const float *a, const float *b,
                  Py_ssize_t b_depth, const float *init, float *c)


cdef inline Py_ssize_t pairs(const Layer *layer, Py_ssize_t depth) noexcept nogil:
    """Return what a product counts for a depth: words, or numbers, of which there are two a pair."""
    return blocks(depth, 2) * (1 if layer.precision == BFLOAT16 else 2)


cdef inline Py_ssize_t pair_stride(const Layer *layer, Py_ssize_t depth) noexcept nogil:
    return padded(pairs(layer, depth), ALIGNMENT // sizeof(float))


cdef inline float one_of(const Layer *layer) noexcept nogil:
    """Return the first operand of a product that adds the rows of the second one up."""
    return PAIR_OF_ONES if layer.precision == BFLOAT16 else 1


cdef inline Py_ssize_t gradient_vectors(const Layer *layer) noexcept nogil:
    """Return the vectors of a strip of a weight gradient; three, of words, unless one is left over.

    With 32 registers, tiles of 8 x 3 read less of B than those of 6 x 4: 2 to 5 % faster.
    """
    if layer.precision == BFLOAT16 and TILE_VECTORS > 3:
        if layer.stride // vector_lanes(sizeof(float)) % 3 != 1:
            return 3
    return STRIP_VECTORS


cdef inline void tile_of(
    const Layer *layer, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t wanted, Py_ssize_t depth,
    const real *a, Py_ssize_t a_row, Py_ssize_t a_depth, const real *b, Py_ssize_t b_depth,
    real *copy, const real *init, Py_ssize_t init_row, real *c, Py_ssize_t c_row, Prefetch *ahead,
) noexcept nogil:
    """See :func:`tile`; of a layer with rounded products, A, B and the depth are of pairs."""
    cdef Py_ssize_t lanes = vector_lanes(sizeof(real))
    if real is float:
        if layer.precision:
            pair_tile(
                layer.precision == BFLOAT16, rows, columns // lanes,
                HALVES and columns - wanted >= lanes // 2, depth, a, a_row, a_depth, b, b_depth,
                init, init_row, c, c_row, ahead,
            )
            return
    tile(
        rows, columns, wanted, depth, a, a_row, a_depth, b, b_depth, copy, init, init_row, c, c_row,
        ahead,
    )


cdef const float *round_rows(
    const Run *run, const Layer *layer, float[::1] ws, const float *a, Py_ssize_t a_stride,
    Py_ssize_t n, Py_ssize_t depth,
) noexcept nogil:
    """Round A for a product along its rows; returns where the pairs are, `pair_stride` apart."""
    cdef Py_ssize_t i, stride = pair_stride(layer, depth)
    for i in range(share(n, run.rank, run.n_threads), share(n, run.rank + 1, run.n_threads)):
        pairs_along(
            layer.precision == BFLOAT16, &ws[run.to.pairs + i * stride], a + i * a_stride, depth
        )
    barrier(run)
    return &ws[run.to.pairs]


cdef void round_tiles(
    const Run *run, const Layer *layer, float[::1] ws, const float *a, Py_ssize_t a_stride,
    Py_ssize_t n, const Grid *grid,
) noexcept nogil:
    """Round A for a weight gradient, whose depth is the rows: one tile after the other, [depth][m]."""
    cdef Py_ssize_t first = share(grid.row_tiles, run.rank, run.n_threads)
    cdef Py_ssize_t last = share(grid.row_tiles, run.rank + 1, run.n_threads)
    pairs_tiles(
        layer.precision == BFLOAT16, &ws[run.to.pair_tiles + first * grid.m * pairs(layer, n)],
        grid.m, last - first, a + first * grid.m, a_stride, n,
    )
    barrier(run)


cdef void round_transposed(
    const Run *run, const Layer *layer, float[::1] ws, Py_ssize_t panel, Py_ssize_t columns,
    Py_ssize_t rows, Py_ssize_t depth, const float *w,
) noexcept nogil:
    """Round W for an input gradient: its rows become the columns of a panel, [depth][columns]."""
    cdef Py_ssize_t i, stride = pair_stride(layer, depth), at = panel + run.to.panel_size // 2
    for i in range(min(rows, columns)):
        pairs_along(layer.precision == BFLOAT16, &ws[at + i * stride], w + i * layer.stride, depth)
    pack_rows_f32(
        &ws[panel], columns // vector_lanes(sizeof(float)), rows, pairs(layer, depth), &ws[at],
        stride,
    )
