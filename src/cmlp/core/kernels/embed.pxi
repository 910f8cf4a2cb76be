# Tables of levels ------------------------------------------------------------------------------------

cdef extern from "simd.h" nogil:
    void add_row_f32(float *to, const float *row, float factor, Py_ssize_t n)
    void add_row_f64(double *to, const double *row, double factor, Py_ssize_t n)
    void add_between_f32(float *to, const float *row, const float *next, float f, Py_ssize_t n)
    void add_between_f64(double *to, const double *row, const double *next, double f, Py_ssize_t n)


cdef inline void add_row(real *to, const real *row, real factor, Py_ssize_t n) noexcept nogil:
    if real is float:
        add_row_f32(to, row, factor, n)
    else:
        add_row_f64(to, row, factor, n)


cdef inline void add_between(
    real *to, const real *row, const real *next, real f, Py_ssize_t n
) noexcept nogil:
    if real is float:
        add_between_f32(to, row, next, f, n)
    else:
        add_between_f64(to, row, next, f, n)


cdef inline Py_ssize_t row_of(real x, Py_ssize_t n, real *fraction) noexcept nogil:
    """Return a row number c of a table of n; x is that fraction of the way to the next one.

    NaN and what is below 0 are row 0, what is above the last row is that row. Where the fraction is
    above 0, there is a next row.
    """
    cdef Py_ssize_t c
    fraction[0] = 0
    if not x > 0:
        return 0
    if x >= <real>(n - 1):
        return n - 1
    c = <Py_ssize_t>x
    fraction[0] = x - <real>c
    return c


cdef inline void embed(
    const Part *part, const real[::1] params, real x, real[::1] ws, Py_ssize_t at, Py_ssize_t n
) noexcept nogil:
    """Add (1 - f) E[c] + f E[c + 1] to n numbers of the workspace."""
    cdef real f
    cdef Py_ssize_t row = part.at + row_of(x, part.rows, &f) * part.stride
    if f > 0:
        add_between(&ws[at], &params[row], &params[row + part.stride], f, n)
    else:
        add_row(&ws[at], &params[row], <real>1, n)


cdef void table_gradient(
    const Run *run, const Part *part, const real[::1] ws, Py_ssize_t delta, Py_ssize_t stride,
    Py_ssize_t n, real[::1] grads, Py_ssize_t first, Py_ssize_t columns, bint adds,
) noexcept nogil:
    """Write dC/dE of some columns, from dC/de of n rows: a chain of sums in the order of the rows."""
    cdef Py_ssize_t i, j, row
    cdef real f
    if not adds:
        for i in range(part.rows):
            row = part.at + i * part.stride + first
            for j in range(row, row + columns):
                grads[j] = 0
    for i in range(n):
        row = row_of(ws[run.to.raw + i * run.to.raw_stride + part.first], part.rows, &f)
        row = part.at + row * part.stride + first
        add_row(&grads[row], &ws[delta + i * stride], 1 - f, columns)
        if f > 0:
            add_row(&grads[row + part.stride], &ws[delta + i * stride], f, columns)


cdef real table_slope(
    const Part *part, const real[::1] params, real x, const real[::1] ws, Py_ssize_t delta,
    Py_ssize_t n,
) noexcept nogil:
    """Return dC/dx: the slope from row c to the next one, 0 outside the table and at its end."""
    cdef real f, total = 0
    cdef Py_ssize_t j, row
    if not 0 <= x < <real>(part.rows - 1):
        return 0
    row = part.at + row_of(x, part.rows, &f) * part.stride
    for j in range(n):
        total += ws[delta + j] * (params[row + part.stride + j] - params[row + j])
    return total
