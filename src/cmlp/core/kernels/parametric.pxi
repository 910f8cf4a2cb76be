# Parametric activations -----------------------------------------------------------------------------
# a = z + alpha (f(z) - z), one alpha per unit. The forward pass of a training keeps f - z, times what
# dropout multiplies a by, in the workspace's `differences`.

cdef enum:
    CHUNK = 128  # sums that are kept on the stack; a multiple of every vector


cdef inline void activate_parametric(
    const Run *run, const Layer *layer, Py_ssize_t code, const real[::1] params, real[::1] ws,
    Py_ssize_t at, Py_ssize_t slopes, Py_ssize_t row, Py_ssize_t m, Py_ssize_t column,
    Py_ssize_t columns, const Drop *drop,
) noexcept nogil:
    """Activate m rows of some columns; with `slopes`, keep da/dz and da/dalpha, too."""
    cdef Py_ssize_t i, block, start, n, x, slope = -1, kept = -1
    for i in range(m):
        for block in range(blocks(columns, CHUNK)):
            start = block * CHUNK
            n = min(<Py_ssize_t>CHUNK, columns - start)
            x = at + i * layer.stride + start
            if slopes >= 0:
                slope = slopes + i * layer.stride + start
                kept = slope - run.to.slopes + run.to.differences
            bend_part(code, params, layer.alpha + column + start, ws, x, slope, kept, n)
        if drop is not NULL and drop.rate > 0:
            slope = slopes + i * layer.stride
            drop_out_parametric(
                drop, ws, at + i * layer.stride, slope,
                slope - run.to.slopes + run.to.differences, columns,
                <uint32_t>((drop.done + row + i) * layer.n_out + column),
            )


cdef void bend_part(
    Py_ssize_t code, const real[::1] params, Py_ssize_t alpha, real[::1] ws, Py_ssize_t at,
    Py_ssize_t slope, Py_ssize_t kept, Py_ssize_t n,
) noexcept nogil:
    """Replace n weighted sums, CHUNK at most, by their activations."""
    cdef real[CHUNK] z
    cdef real one = 1
    cdef Py_ssize_t j
    for j in range(n):
        z[j] = ws[at + j]
    activate_part(code, ws, at, slope, n)
    if slope < 0:
        for j in range(n):
            ws[at + j] = z[j] + params[alpha + j] * (ws[at + j] - z[j])
        return
    fill_slope(code, ws, slope, at, n)
    for j in range(n):
        ws[kept + j] = ws[at + j] - z[j]
        ws[at + j] = z[j] + params[alpha + j] * ws[kept + j]
        ws[slope + j] = one + params[alpha + j] * (ws[slope + j] - one)


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
        at = i * layer.stride
        for j in range(first, last):
            ws[to + j] += ws[delta + at + j] * ws[kept + at + j]
            ws[delta + at + j] *= ws[slope + at + j]
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
