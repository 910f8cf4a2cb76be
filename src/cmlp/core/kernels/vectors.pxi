# The C of simd.h, one name for both number types --------------------------------------------------

cdef extern from "simd.h" nogil:
    const Py_ssize_t TILE_SUMS, TILE_ROWS, TILE_VECTORS, STRIP_VECTORS, ROW_VECTORS, LINE, BURST_DEPTH
    const Py_ssize_t NARROW_BYTES
    const bint HALVES
    ctypedef struct Prefetch "prefetch_t":
        const char *at
        const char *base
        const int64_t *numbers
        Py_ssize_t left, lines, done, stride, burst
        Py_ssize_t[2] also
    void prefetch_next(Prefetch *ahead)
    void tile_f32(Py_ssize_t rows, Py_ssize_t vectors, bint half, Py_ssize_t depth,
                  const float *a, Py_ssize_t a_row, Py_ssize_t a_depth,
                  const float *b, Py_ssize_t b_depth, float *copy,
                  const float *init, Py_ssize_t init_row, float *c, Py_ssize_t c_row,
                  Prefetch *ahead)
    void tile_f64(Py_ssize_t rows, Py_ssize_t vectors, bint half, Py_ssize_t depth,
                  const double *a, Py_ssize_t a_row, Py_ssize_t a_depth,
                  const double *b, Py_ssize_t b_depth, double *copy,
                  const double *init, Py_ssize_t init_row, double *c, Py_ssize_t c_row,
                  Prefetch *ahead)
    void row_product_f32(Py_ssize_t vectors, Py_ssize_t depth, const float *a, const float *b,
                         Py_ssize_t b_depth, const float *init, float *c)
    void row_product_narrow_f32(Py_ssize_t vectors, Py_ssize_t depth, const float *a,
                                const float *b, Py_ssize_t b_depth, const float *init, float *c)
    void row_product_f64(Py_ssize_t vectors, Py_ssize_t depth, const double *a, const double *b,
                         Py_ssize_t b_depth, const double *init, double *c)
    void row_product_narrow_f64(Py_ssize_t vectors, Py_ssize_t depth, const double *a,
                                const double *b, Py_ssize_t b_depth, const double *init,
                                double *c)
    void dot_rows_f32(Py_ssize_t rows, Py_ssize_t vectors, const float *w, Py_ssize_t w_row,
                      const float *x, float *out)
    void dot_rows_narrow_f32(Py_ssize_t rows, Py_ssize_t vectors, const float *w,
                             Py_ssize_t w_row, const float *x, float *out)
    void dot_rows_f64(Py_ssize_t rows, Py_ssize_t vectors, const double *w, Py_ssize_t w_row,
                      const double *x, double *out)
    void dot_rows_narrow_f64(Py_ssize_t rows, Py_ssize_t vectors, const double *w,
                             Py_ssize_t w_row, const double *x, double *out)
    double multiply_adds_f32(Py_ssize_t rounds)
    double multiply_adds_f64(Py_ssize_t rounds)
    void outer_f32(Py_ssize_t rows, Py_ssize_t vectors, const float *a, const float *b, float *c)
    void outer_f64(Py_ssize_t rows, Py_ssize_t vectors, const double *a, const double *b,
                   double *c)
    void pack_rows_f32(float *panel, Py_ssize_t vectors, Py_ssize_t rows, Py_ssize_t depth,
                       const float *w, Py_ssize_t w_row)
    void pack_rows_f64(double *panel, Py_ssize_t vectors, Py_ssize_t rows, Py_ssize_t depth,
                       const double *w, Py_ssize_t w_row)
    void pack_tiles_f32(float *to, Py_ssize_t rows, Py_ssize_t tiles, Py_ssize_t depth,
                        const float *a, Py_ssize_t a_depth)
    void pack_tiles_f64(double *to, Py_ssize_t rows, Py_ssize_t tiles, Py_ssize_t depth,
                        const double *a, Py_ssize_t a_depth)
    void prefetch(const char *at, Py_ssize_t n_bytes)
    unsigned int flush_denormals()
    void restore_denormals(unsigned int before)
    bint moderate_f32(const float *x, Py_ssize_t n, float scale)
    bint moderate_f64(const double *x, Py_ssize_t n, double scale)
    double size_of_f32(const float *x, Py_ssize_t n, float l1, float l2)
    double size_of_f64(const double *x, Py_ssize_t n, double l1, double l2)
    void exp_n_f32(float *x, Py_ssize_t n)
    void exp_n_f64(double *x, Py_ssize_t n)
    void expm1_n_f32(float *x, Py_ssize_t n)
    void expm1_n_f64(double *x, Py_ssize_t n)
    void logistic_n_f32(float *x, Py_ssize_t n)
    void logistic_n_f64(double *x, Py_ssize_t n)
    void tanh_n_f32(float *x, Py_ssize_t n)
    void tanh_n_f64(double *x, Py_ssize_t n)
    void softmax_f32(float *x, Py_ssize_t rows, Py_ssize_t stride,
                     Py_ssize_t n_out, Py_ssize_t n)
    void softmax_costs_f32(float *x, const float *y, const float *share,
                           float *delta, float *cost, Py_ssize_t rows,
                           Py_ssize_t stride, Py_ssize_t n_out, Py_ssize_t n)
    void softmax_narrow_f32(float *x, Py_ssize_t rows, Py_ssize_t stride,
                     Py_ssize_t n_out, Py_ssize_t n)
    void softmax_costs_narrow_f32(float *x, const float *y, const float *share,
                           float *delta, float *cost, Py_ssize_t rows,
                           Py_ssize_t stride, Py_ssize_t n_out, Py_ssize_t n)
    void softmax_few_columns_f32(float *x, Py_ssize_t rows, Py_ssize_t stride, Py_ssize_t n_out)
    void transpose_few_columns_f32(Py_ssize_t rows, Py_ssize_t columns, const float *t,
                                   Py_ssize_t t_row, bint adds, float *c, Py_ssize_t c_row)
    void product_few_columns_f32(Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth,
                                 const float *a, Py_ssize_t a_row, const float *b,
                                 Py_ssize_t b_depth, float *copy, const float *init, float *c,
                                 Py_ssize_t c_row)
    void softmax_f64(double *x, Py_ssize_t rows, Py_ssize_t stride,
                     Py_ssize_t n_out, Py_ssize_t n)
    void softmax_costs_f64(double *x, const double *y, const double *share,
                           double *delta, double *cost, Py_ssize_t rows,
                           Py_ssize_t stride, Py_ssize_t n_out, Py_ssize_t n)
    void softmax_narrow_f64(double *x, Py_ssize_t rows, Py_ssize_t stride,
                     Py_ssize_t n_out, Py_ssize_t n)
    void softmax_costs_narrow_f64(double *x, const double *y, const double *share,
                           double *delta, double *cost, Py_ssize_t rows,
                           Py_ssize_t stride, Py_ssize_t n_out, Py_ssize_t n)
    void softmax_few_columns_f64(double *x, Py_ssize_t rows, Py_ssize_t stride, Py_ssize_t n_out)
    void transpose_few_columns_f64(Py_ssize_t rows, Py_ssize_t columns, const double *t,
                                   Py_ssize_t t_row, bint adds, double *c, Py_ssize_t c_row)
    void product_few_columns_f64(Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth,
                                 const double *a, Py_ssize_t a_row, const double *b,
                                 Py_ssize_t b_depth, double *copy, const double *init, double *c,
                                 Py_ssize_t c_row)
    void difference_f32(float *delta, const float *a, const float *y, float part,
                        Py_ssize_t n_out, Py_ssize_t n, Py_ssize_t stride)
    void difference_narrow_f32(float *delta, const float *a, const float *y, float part,
                               Py_ssize_t n_out, Py_ssize_t n, Py_ssize_t stride)
    void difference_f64(double *delta, const double *a, const double *y, double part,
                        Py_ssize_t n_out, Py_ssize_t n, Py_ssize_t stride)
    void difference_narrow_f64(double *delta, const double *a, const double *y, double part,
                               Py_ssize_t n_out, Py_ssize_t n, Py_ssize_t stride)
    void softplus_n_f32(float *x, float *slope, Py_ssize_t n)
    void softplus_n_f64(double *x, double *slope, Py_ssize_t n)
    void gelu_n_f32(float *x, float *slope, Py_ssize_t n)
    void gelu_n_f64(double *x, double *slope, Py_ssize_t n)
    void silu_n_f32(float *x, float *slope, Py_ssize_t n)
    void silu_n_f64(double *x, double *slope, Py_ssize_t n)
    void mish_n_f32(float *x, float *slope, Py_ssize_t n)
    void mish_n_f64(double *x, double *slope, Py_ssize_t n)
    Py_ssize_t vector_lanes(size_t itemsize)


cdef inline void tile(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t wanted, Py_ssize_t depth,
    const real *a, Py_ssize_t a_row, Py_ssize_t a_depth, const real *b, Py_ssize_t b_depth,
    real *copy, const real *init, Py_ssize_t init_row, real *c, Py_ssize_t c_row, Prefetch *ahead,
) noexcept nogil:
    """C = init + A B, some rows and whole vectors of columns; those from `wanted` on are padding."""
    cdef Py_ssize_t lanes = vector_lanes(sizeof(real)), vectors = columns // lanes
    cdef bint half = HALVES and columns - wanted >= lanes // 2
    if real is float:
        tile_f32(
            rows, vectors, half, depth, a, a_row, a_depth, b, b_depth, copy, init, init_row, c,
            c_row, ahead,
        )
    else:
        tile_f64(
            rows, vectors, half, depth, a, a_row, a_depth, b, b_depth, copy, init, init_row, c,
            c_row, ahead,
        )


cdef inline Prefetch prefetch_of(
    const real *first, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t stride, Py_ssize_t depth
) noexcept nogil:
    """Describe rows of a matrix that are needed after `depth` multiply-adds of tiles."""
    cdef Prefetch ahead
    ahead.at = ahead.base = <const char *>first
    ahead.numbers, ahead.done, ahead.also[0], ahead.also[1] = NULL, 0, 0, 0
    ahead.lines, ahead.stride = blocks(columns * sizeof(real), LINE), stride * sizeof(real)
    ahead.left = max(rows, 0) * ahead.lines
    ahead.burst = blocks(ahead.left, blocks(depth, BURST_DEPTH))
    return ahead


cdef inline bint is_narrow(Py_ssize_t n, Py_ssize_t itemsize) noexcept nogil:
    """Whether rows of n numbers are for the functions with narrow vectors, here and below."""
    return n * itemsize <= NARROW_BYTES


cdef inline Py_ssize_t width_of(Py_ssize_t n, Py_ssize_t itemsize) noexcept nogil:
    """Numbers of the vectors that hold a row of n."""
    return NARROW_BYTES // itemsize if is_narrow(n, itemsize) else padded(n, vector_lanes(itemsize))


cdef inline void row_product(
    Py_ssize_t width, Py_ssize_t depth, const real *a, const real *b, Py_ssize_t b_depth,
    const real *init, real *c,
) noexcept nogil:
    if is_narrow(width, sizeof(real)):
        if real is float:
            row_product_narrow_f32(1, depth, a, b, b_depth, init, c)
        else:
            row_product_narrow_f64(1, depth, a, b, b_depth, init, c)
    elif real is float:
        row_product_f32(width // vector_lanes(4), depth, a, b, b_depth, init, c)
    else:
        row_product_f64(width // vector_lanes(8), depth, a, b, b_depth, init, c)


cdef inline void dot_rows(
    Py_ssize_t rows, Py_ssize_t width, const real *w, Py_ssize_t w_row, const real *x, real *out
) noexcept nogil:
    if is_narrow(width, sizeof(real)):
        if real is float:
            dot_rows_narrow_f32(rows, 1, w, w_row, x, out)
        else:
            dot_rows_narrow_f64(rows, 1, w, w_row, x, out)
    elif real is float:
        dot_rows_f32(rows, width // vector_lanes(4), w, w_row, x, out)
    else:
        dot_rows_f64(rows, width // vector_lanes(8), w, w_row, x, out)


cdef inline void outer(
    Py_ssize_t rows, Py_ssize_t vectors, const real *a, const real *b, real *c
) noexcept nogil:
    if real is float:
        outer_f32(rows, vectors, a, b, c)
    else:
        outer_f64(rows, vectors, a, b, c)


cdef inline void pack_rows(
    real *panel, Py_ssize_t vectors, Py_ssize_t rows, Py_ssize_t depth, const real *w,
    Py_ssize_t w_row,
) noexcept nogil:
    if real is float:
        pack_rows_f32(panel, vectors, rows, depth, w, w_row)
    else:
        pack_rows_f64(panel, vectors, rows, depth, w, w_row)


cdef inline void pack_tiles(
    real *to, Py_ssize_t rows, Py_ssize_t tiles, Py_ssize_t depth, const real *a,
    Py_ssize_t a_depth,
) noexcept nogil:
    if real is float:
        pack_tiles_f32(to, rows, tiles, depth, a, a_depth)
    else:
        pack_tiles_f64(to, rows, tiles, depth, a, a_depth)


cdef inline bint moderate(const real *x, Py_ssize_t n, double scale) noexcept nogil:
    if real is float:
        return moderate_f32(x, n, <float>scale)
    else:
        return moderate_f64(x, n, scale)


cdef inline double size_of(const real *x, Py_ssize_t n, double l1, double l2) noexcept nogil:
    """Sum of ``l1 |x| + l2 x^2`` over whole vectors."""
    if real is float:
        return size_of_f32(x, n, <float>l1, <float>l2)
    else:
        return size_of_f64(x, n, l1, l2)


cdef inline real root(real x) noexcept nogil:
    return sqrtf(x) if real is float else sqrt(x)


cdef inline void vector_exp(real *x, Py_ssize_t n) noexcept nogil:
    if real is float:
        exp_n_f32(x, n)
    else:
        exp_n_f64(x, n)


cdef inline void softmax(
    real *x, Py_ssize_t rows, Py_ssize_t stride, Py_ssize_t n_out
) noexcept nogil:
    cdef Py_ssize_t width = width_of(n_out, sizeof(real))
    if is_narrow(n_out, sizeof(real)):
        if real is float:
            softmax_narrow_f32(x, rows, stride, n_out, width)
        else:
            softmax_narrow_f64(x, rows, stride, n_out, width)
    elif real is float:
        softmax_f32(x, rows, stride, n_out, width)
    else:
        softmax_f64(x, rows, stride, n_out, width)


cdef inline void softmax_costs(
    real *x, const real *y, const real *share, real *delta, real *cost, Py_ssize_t rows,
    Py_ssize_t stride, Py_ssize_t n_out,
) noexcept nogil:
    cdef Py_ssize_t width = width_of(n_out, sizeof(real))
    if is_narrow(n_out, sizeof(real)):
        if real is float:
            softmax_costs_narrow_f32(x, y, share, delta, cost, rows, stride, n_out, width)
        else:
            softmax_costs_narrow_f64(x, y, share, delta, cost, rows, stride, n_out, width)
    elif real is float:
        softmax_costs_f32(x, y, share, delta, cost, rows, stride, n_out, width)
    else:
        softmax_costs_f64(x, y, share, delta, cost, rows, stride, n_out, width)


cdef inline void softmax_few_columns(
    real *x, Py_ssize_t rows, Py_ssize_t stride, Py_ssize_t n_out
) noexcept nogil:
    if real is float:
        softmax_few_columns_f32(x, rows, stride, n_out)
    else:
        softmax_few_columns_f64(x, rows, stride, n_out)


cdef inline void product_few_columns(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const real *a, Py_ssize_t a_row,
    const real *b, Py_ssize_t b_depth, real *copy, const real *init, real *c, Py_ssize_t c_row,
) noexcept nogil:
    if real is float:
        product_few_columns_f32(rows, columns, depth, a, a_row, b, b_depth, copy, init, c, c_row)
    else:
        product_few_columns_f64(rows, columns, depth, a, a_row, b, b_depth, copy, init, c, c_row)


cdef inline void transpose_few_columns(
    Py_ssize_t rows, Py_ssize_t columns, const real *t, Py_ssize_t t_row, bint adds, real *c,
    Py_ssize_t c_row,
) noexcept nogil:
    if real is float:
        transpose_few_columns_f32(rows, columns, t, t_row, adds, c, c_row)
    else:
        transpose_few_columns_f64(rows, columns, t, t_row, adds, c, c_row)


cdef inline void difference(
    real *delta, const real *a, const real *y, real part, Py_ssize_t n_out, Py_ssize_t stride
) noexcept nogil:
    cdef Py_ssize_t width = width_of(n_out, sizeof(real))
    if is_narrow(n_out, sizeof(real)):
        if real is float:
            difference_narrow_f32(delta, a, y, part, n_out, width, stride)
        else:
            difference_narrow_f64(delta, a, y, part, n_out, width, stride)
    elif real is float:
        difference_f32(delta, a, y, part, n_out, width, stride)
    else:
        difference_f64(delta, a, y, part, n_out, width, stride)


cdef inline void vector_expm1(real *x, Py_ssize_t n) noexcept nogil:
    if real is float:
        expm1_n_f32(x, n)
    else:
        expm1_n_f64(x, n)


cdef inline void vector_logistic(real *x, Py_ssize_t n) noexcept nogil:
    if real is float:
        logistic_n_f32(x, n)
    else:
        logistic_n_f64(x, n)


cdef inline void vector_tanh(real *x, Py_ssize_t n) noexcept nogil:
    if real is float:
        tanh_n_f32(x, n)
    else:
        tanh_n_f64(x, n)


cdef inline void vector_softplus(real *x, real *slope, Py_ssize_t n) noexcept nogil:
    if real is float:
        softplus_n_f32(x, slope, n)
    else:
        softplus_n_f64(x, slope, n)


cdef inline void vector_gelu(real *x, real *slope, Py_ssize_t n) noexcept nogil:
    if real is float:
        gelu_n_f32(x, slope, n)
    else:
        gelu_n_f64(x, slope, n)


cdef inline void vector_silu(real *x, real *slope, Py_ssize_t n) noexcept nogil:
    if real is float:
        silu_n_f32(x, slope, n)
    else:
        silu_n_f64(x, slope, n)


cdef inline void vector_mish(real *x, real *slope, Py_ssize_t n) noexcept nogil:
    if real is float:
        mish_n_f32(x, slope, n)
    else:
        mish_n_f64(x, slope, n)
