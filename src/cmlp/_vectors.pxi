# The C of _simd.h, one name for both number types --------------------------------------------------

cdef extern from "_simd.h" nogil:
    const Py_ssize_t TILE_SUMS, TILE_ROWS, TILE_VECTORS, ROW_VECTORS, LINE, BURST_DEPTH
    ctypedef struct Ahead "ahead_t":
        const char *at
        const char *base
        const int64_t *numbers
        Py_ssize_t left, lines, done, stride, burst
        Py_ssize_t[2] also
    void ask_ahead(Ahead *ahead)
    void tile_f32(Py_ssize_t rows, Py_ssize_t vectors, Py_ssize_t depth,
                  const float *a, Py_ssize_t a_row, Py_ssize_t a_depth,
                  const float *b, Py_ssize_t b_depth, float *copy,
                  const float *init, Py_ssize_t init_row, float *c, Py_ssize_t c_row,
                  Ahead *ahead)
    void tile_f64(Py_ssize_t rows, Py_ssize_t vectors, Py_ssize_t depth,
                  const double *a, Py_ssize_t a_row, Py_ssize_t a_depth,
                  const double *b, Py_ssize_t b_depth, double *copy,
                  const double *init, Py_ssize_t init_row, double *c, Py_ssize_t c_row,
                  Ahead *ahead)
    void row_product_f32(Py_ssize_t vectors, Py_ssize_t depth, const float *a, const float *b,
                         Py_ssize_t b_depth, const float *init, float *c)
    void row_product_f64(Py_ssize_t vectors, Py_ssize_t depth, const double *a, const double *b,
                         Py_ssize_t b_depth, const double *init, double *c)
    void dot_rows_f32(Py_ssize_t rows, Py_ssize_t vectors, const float *w, Py_ssize_t w_row,
                      const float *x, float *out)
    void dot_rows_f64(Py_ssize_t rows, Py_ssize_t vectors, const double *w, Py_ssize_t w_row,
                      const double *x, double *out)
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
    void exp_n_f32(float *x, Py_ssize_t n)
    void exp_n_f64(double *x, Py_ssize_t n)
    void expm1_n_f32(float *x, Py_ssize_t n)
    void expm1_n_f64(double *x, Py_ssize_t n)
    void logistic_n_f32(float *x, Py_ssize_t n)
    void logistic_n_f64(double *x, Py_ssize_t n)
    void tanh_n_f32(float *x, Py_ssize_t n)
    void tanh_n_f64(double *x, Py_ssize_t n)
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
    Py_ssize_t rows, Py_ssize_t vectors, Py_ssize_t depth,
    const real *a, Py_ssize_t a_row, Py_ssize_t a_depth, const real *b, Py_ssize_t b_depth,
    real *copy, const real *init, Py_ssize_t init_row, real *c, Py_ssize_t c_row, Ahead *ahead,
) noexcept nogil:
    if real is float:
        tile_f32(
            rows, vectors, depth, a, a_row, a_depth, b, b_depth, copy, init, init_row, c, c_row,
            ahead,
        )
    else:
        tile_f64(
            rows, vectors, depth, a, a_row, a_depth, b, b_depth, copy, init, init_row, c, c_row,
            ahead,
        )


cdef inline Ahead ahead_of(
    const real *first, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t stride, Py_ssize_t depth
) noexcept nogil:
    """Some rows of a matrix that are needed after `depth` multiply-adds of tiles."""
    cdef Ahead ahead
    ahead.at = ahead.base = <const char *>first
    ahead.numbers, ahead.done, ahead.also[0], ahead.also[1] = NULL, 0, 0, 0
    ahead.lines, ahead.stride = blocks(columns * sizeof(real), LINE), stride * sizeof(real)
    ahead.left = max(rows, 0) * ahead.lines
    ahead.burst = blocks(ahead.left, blocks(depth, BURST_DEPTH))
    return ahead


cdef inline void row_product(
    Py_ssize_t vectors, Py_ssize_t depth, const real *a, const real *b, Py_ssize_t b_depth,
    const real *init, real *c,
) noexcept nogil:
    if real is float:
        row_product_f32(vectors, depth, a, b, b_depth, init, c)
    else:
        row_product_f64(vectors, depth, a, b, b_depth, init, c)


cdef inline void dot_rows(
    Py_ssize_t rows, Py_ssize_t vectors, const real *w, Py_ssize_t w_row, const real *x, real *out
) noexcept nogil:
    if real is float:
        dot_rows_f32(rows, vectors, w, w_row, x, out)
    else:
        dot_rows_f64(rows, vectors, w, w_row, x, out)


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


cdef inline real root(real x) noexcept nogil:
    return sqrtf(x) if real is float else sqrt(x)


cdef inline void vector_exp(real *x, Py_ssize_t n) noexcept nogil:
    if real is float:
        exp_n_f32(x, n)
    else:
        exp_n_f64(x, n)


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
