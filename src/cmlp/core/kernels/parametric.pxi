# Parametric activations -----------------------------------------------------------------------------
# a = z + alpha (f(z) - z), one alpha per unit. The forward pass of a training keeps f - z, times what
# dropout multiplies a by, in the workspace's `differences`.

cdef extern from "simd.h" nogil:
    void bend_f32(float *a, const float *f, const float *alpha, Py_ssize_t n)
    void bend_f64(double *a, const double *f, const double *alpha, Py_ssize_t n)
    void bend_with_slopes_f32(float *a, float *slope, float *by_alpha, const float *f,
                              const float *df, const float *alpha, Py_ssize_t n)
    void bend_with_slopes_f64(double *a, double *slope, double *by_alpha, const double *f,
                              const double *df, const double *alpha, Py_ssize_t n)
    void add_bent_f32(float *dalpha, float *delta, const float *slope, const float *by_alpha,
                      Py_ssize_t n)
    void add_bent_f64(double *dalpha, double *delta, const double *slope, const double *by_alpha,
                      Py_ssize_t n)

cdef enum:
    CHUNK = 1024  # numbers that are activated together; a tile has room for two CHUNKs


cdef void activate_parametric(
    const Run *run, const Layer *layer, Py_ssize_t code, const real[::1] params, real[::1] ws,
    Py_ssize_t at, Py_ssize_t slopes, Py_ssize_t row, Py_ssize_t m, Py_ssize_t column,
    Py_ssize_t columns, const Drop *drop,
) noexcept nogil:
    """Activate m rows of some columns; with `slopes`, keep da/dz and da/dalpha, too."""
    cdef Py_ssize_t i, start, n, group, part, slope
    cdef Py_ssize_t n_rows = max(<Py_ssize_t>CHUNK // columns, <Py_ssize_t>1)
    for group in range(blocks(m, n_rows)):
        i = group * n_rows
        for part in range(blocks(columns, CHUNK)):
            start = part * CHUNK
            n = min(<Py_ssize_t>CHUNK, columns - start)
            bend_part(
                run, code, layer.parameter, params, layer.alpha + column + start, ws,
                at + i * layer.stride + start,
                slopes + i * layer.stride + start if slopes >= 0 else -1,
                min(n_rows, m - i), n, layer.stride,
            )
    if drop is not NULL and drop.rate > 0:
        for i in range(m):
            slope = slopes + i * layer.stride
            drop_out_parametric(
                drop, ws, at + i * layer.stride, slope,
                slope - run.to.slopes + run.to.differences, columns,
                <uint32_t>((drop.done + row + i) * layer.n_out + column),
            )


cdef void bend_part(
    const Run *run, Py_ssize_t code, double parameter, const real[::1] params, Py_ssize_t alpha,
    real[::1] ws, Py_ssize_t at, Py_ssize_t slope, Py_ssize_t m, Py_ssize_t n, Py_ssize_t stride,
) noexcept nogil:
    """Replace m rows of n weighted sums, CHUNK at most, by their activations."""
    cdef Py_ssize_t f = run.to.tiles + run.rank * run.to.tile_size, df = f + CHUNK, i
    cdef Py_ssize_t kept = slope - run.to.slopes + run.to.differences
    for i in range(m):
        memcpy(&ws[f + i * n], &ws[at + i * stride], n * sizeof(real))
    activate_part(code, parameter, ws, f, df if slope >= 0 else -1, m * n)
    if slope >= 0:
        fill_slope(code, parameter, ws, df, f, m * n)
    for i in range(m):
        if real is float and slope >= 0:
            bend_with_slopes_f32(
                &ws[at], &ws[slope], &ws[kept], &ws[f], &ws[df], &params[alpha], n
            )
        elif real is float:
            bend_f32(&ws[at], &ws[f], &params[alpha], n)
        elif slope >= 0:
            bend_with_slopes_f64(
                &ws[at], &ws[slope], &ws[kept], &ws[f], &ws[df], &params[alpha], n
            )
        else:
            bend_f64(&ws[at], &ws[f], &params[alpha], n)
        at += stride
        slope += stride if slope >= 0 else 0
        kept += stride
        f += n
        df += n


cdef void drop_out_parametric(
    const Drop *drop, real[::1] ws, Py_ssize_t at, Py_ssize_t slope, Py_ssize_t kept, Py_ssize_t n,
    uint32_t counter,
) noexcept nogil:
    """Do what :func:`drop_out` does, for da/dalpha, too."""
    cdef Py_ssize_t j
    cdef uint32_t threshold = <uint32_t>(drop.rate * 4294967296.0)
    cdef real factor = <real>(1.0 / (1.0 - drop.rate)), scale
    for j in range(n):
        scale = factor if hash_of(counter + <uint32_t>j, drop.key) >= threshold else 0
        ws[at + j] *= scale
        ws[slope + j] *= scale
        ws[kept + j] *= scale


cdef void parametric_backward(
    const Run *run, Py_ssize_t number, real[::1] ws, Py_ssize_t n
) noexcept nogil:
    """Turn dC/da of a layer into dC/dz, this thread's columns, and leave dC/dalpha in `alphas`.

    Rows are added up in order, so that the sums do not depend on the number of threads. Callers
    must place a barrier after this.
    """
    cdef const Layer *layer = &run.layers[number]
    cdef Py_ssize_t i, j, at, units = run.to.batch * layer.units
    cdef Py_ssize_t delta = run.to.deltas + units, slope = run.to.slopes + units
    cdef Py_ssize_t kept = run.to.differences + units, to = run.to.alphas + layer.units
    cdef Py_ssize_t first = first_column(run, layer, run.rank, sizeof(real))
    cdef Py_ssize_t last = first_column(run, layer, run.rank + 1, sizeof(real))
    for j in range(first, last):
        ws[to + j] = 0
    for i in range(n):
        at = i * layer.stride + first
        if first == last:
            break
        if real is float:
            add_bent_f32(
                &ws[to + first], &ws[delta + at], &ws[slope + at], &ws[kept + at], last - first
            )
        else:
            add_bent_f64(
                &ws[to + first], &ws[delta + at], &ws[slope + at], &ws[kept + at], last - first
            )
    for j in range(max(first, layer.n_out), last):  # the slope of padding may be anything
        ws[to + j] = 0
        for i in range(n):
            ws[delta + i * layer.stride + j] = 0


cdef void update_alphas(
    const Run *run, const Layer *layer, const Step *step, real[::1] params, real[:, ::1] state,
    real[::1] grads, const real[::1] ws, bint adds,
) noexcept nogil:
    """Use dC/dalpha, or write it to `grads`: all of this thread's columns."""
    cdef Step own
    cdef Py_ssize_t j, first = first_column(run, layer, run.rank, sizeof(real))
    cdef Py_ssize_t n_columns = first_column(run, layer, run.rank + 1, sizeof(real)) - first
    cdef Py_ssize_t at = layer.alpha + first, source = run.to.alphas + layer.units + first
    if run.fused:
        update_rows(
            &run.optimizer,
            step_of(&run.optimizer, step, factor_row(run, layer, ALPHA_GROUP), &own), params,
            state, at, n_columns, ws, source, n_columns, 1, n_columns, False,
        )
    else:
        for j in range(n_columns):
            grads[at + j] = ws[source + j] + (grads[at + j] if adds else 0)
