# Periodic embedding of numbers: u = 2 pi w x + b, e = V cos(u) + d ------------------------------------
# The arrays of a column are one block, rows of `stride` numbers: w, b, V (width of them), and then d.

cdef extern from "simd.h" nogil:
    void waves_f32(float *sines, float *cosines, const float *block, float x, Py_ssize_t n,
                   Py_ssize_t stride)
    void waves_f64(double *sines, double *cosines, const double *block, double x, Py_ssize_t n,
                   Py_ssize_t stride)
    void periodic_f32(float *e, const float *cosines, const float *block, Py_ssize_t stride,
                      Py_ssize_t width)
    void periodic_f64(double *e, const double *cosines, const double *block, Py_ssize_t stride,
                      Py_ssize_t width)
    void add_periodic_f32(float *grads, const float *block, const float *sines,
                          const float *cosines, const float *de, float x, Py_ssize_t stride,
                          Py_ssize_t width)
    void add_periodic_f64(double *grads, const double *block, const double *sines,
                          const double *cosines, const double *de, double x, Py_ssize_t stride,
                          Py_ssize_t width)
    float periodic_slope_f32(const float *block, const float *sines, const float *de,
                             Py_ssize_t stride, Py_ssize_t width)
    double periodic_slope_f64(const double *block, const double *sines, const double *de,
                              Py_ssize_t stride, Py_ssize_t width)


cdef inline Py_ssize_t block_of(const Part *part, Py_ssize_t itemsize) noexcept nogil:
    """Return how many numbers the four arrays of one column are."""
    return (2 + part.width) * part.stride + padded(part.width, ALIGNMENT // itemsize)


cdef void embed_periodic(
    const Part *part, const real[::1] params, Py_ssize_t block, real x, real[::1] ws,
    Py_ssize_t waves, Py_ssize_t to,
) noexcept nogil:
    """Write e and, after it, x; sines and cosines stay at `waves`."""
    cdef Py_ssize_t n = part.rows, stride = part.stride, width = part.width
    if real is float:
        waves_f32(&ws[waves], &ws[waves + stride], &params[block], x, n, stride)
        periodic_f32(&ws[to], &ws[waves + stride], &params[block], stride, width)
    else:
        waves_f64(&ws[waves], &ws[waves + stride], &params[block], x, n, stride)
        periodic_f64(&ws[to], &ws[waves + stride], &params[block], stride, width)
    ws[to + width] = x


cdef void periodic_gradient(
    const Run *run, const Part *part, const real[::1] params, Py_ssize_t block,
    const real[::1] ws, Py_ssize_t x, Py_ssize_t waves, Py_ssize_t delta, Py_ssize_t n,
    real[::1] grads, bint adds,
) noexcept nogil:
    """Write the gradients of one column's block, in the order of the rows.

    `x`, `waves` and `delta` are where its number, its sines and its dC/de of the first row are.
    """
    cdef Py_ssize_t i, stride = part.stride, width = part.width
    if not adds:
        for i in range(block, block + block_of(part, sizeof(real))):
            grads[i] = 0
    for i in range(n):
        if real is float:
            add_periodic_f32(
                &grads[block], &params[block], &ws[waves], &ws[waves + stride], &ws[delta], ws[x],
                stride, width,
            )
        else:
            add_periodic_f64(
                &grads[block], &params[block], &ws[waves], &ws[waves + stride], &ws[delta], ws[x],
                stride, width,
            )
        x += run.to.raw_stride
        waves += run.to.wave_stride
        delta += run.to.input_stride


cdef inline real periodic_slope(
    const Part *part, const real[::1] params, Py_ssize_t block, const real[::1] ws,
    Py_ssize_t waves, Py_ssize_t delta,
) noexcept nogil:
    """Return dC/dx of one number: along the waves, and of x itself."""
    cdef real along
    if real is float:
        along = periodic_slope_f32(
            &params[block], &ws[waves], &ws[delta], part.stride, part.width
        )
    else:
        along = periodic_slope_f64(
            &params[block], &ws[waves], &ws[delta], part.stride, part.width
        )
    return along + ws[delta + part.width]
