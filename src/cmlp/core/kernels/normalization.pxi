# Normalisation of hidden layers -----------------------------------------------------------------------
# zhat = (z - mean) / sqrt(variance + eps), y = gamma zhat + beta, a = f(y). With 'batch', mean and
# variance are those of a unit over the rows of a pass; with 'layer', of a row over the units. z = a W
# has no bias: beta is in its place.

cdef enum:  # vectors as long as a record's row, in the part of the workspace for statistics
    MEAN, VARIANCE, INVERSE, D_BETA, D_GAMMA, STATISTICS


cdef inline Layer product_of(const Run *run, Py_ssize_t number) noexcept nogil:
    """Return a layer without its bias: a normalised one, or the first one onto summed tables."""
    cdef Layer plain = run.layers[number]
    plain.bias = IN_PLACE if number == 0 and run.front.sums else NO_BIAS
    return plain


cdef inline Py_ssize_t statistic(const Run *run, const Layer *layer, int which) noexcept nogil:
    return run.to.statistics + which * run.to.units + layer.units


cdef inline Py_ssize_t row_inverses(const Run *run, Py_ssize_t number) noexcept nogil:
    """Return where 1 / sqrt(variance + eps) of each row is, of a layer normalised by rows."""
    return run.to.statistics + STATISTICS * run.to.units + number * run.to.batch


cdef inline Py_ssize_t first_column(
    const Run *run, const Layer *layer, Py_ssize_t rank, Py_ssize_t itemsize
) noexcept nogil:
    """Return where a thread's columns begin, in whole cache lines."""
    cdef Py_ssize_t lanes = ALIGNMENT // itemsize
    return share(layer.stride // lanes, rank, run.n_threads) * lanes


cdef void normalise_columns(
    const Run *run, const Layer *layer, const real[::1] params, real[::1] ws, Py_ssize_t n,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Normalise some units by their statistics over n rows; y replaces z, zhat is kept."""
    cdef Py_ssize_t i, j, at, z = run.to.activations + run.to.batch * layer.units
    cdef Py_ssize_t kept = run.to.normalised + run.to.batch * layer.units, stride = layer.stride
    cdef Py_ssize_t mean = statistic(run, layer, MEAN), variance = statistic(run, layer, VARIANCE)
    cdef Py_ssize_t inverse = statistic(run, layer, INVERSE)
    cdef real part = <real>(1.0 / n), epsilon = <real>layer.epsilon, centred
    for i in range(n):
        for j in range(max(first, layer.n_out), last):  # products leave anything in the padding
            ws[z + i * stride + j] = 0
    for j in range(first, last):
        ws[mean + j] = 0
        ws[variance + j] = 0
    for i in range(n):
        at = z + i * stride
        for j in range(first, last):
            ws[mean + j] += ws[at + j]
    for j in range(first, last):
        ws[mean + j] *= part
    for i in range(n):
        at = z + i * stride
        for j in range(first, last):
            centred = ws[at + j] - ws[mean + j]
            ws[variance + j] += centred * centred
    for j in range(first, last):
        ws[variance + j] *= part
        ws[inverse + j] = 1 / root(ws[variance + j] + epsilon)
    for i in range(n):
        at = i * stride
        for j in range(first, last):
            ws[kept + at + j] = (ws[z + at + j] - ws[mean + j]) * ws[inverse + j]
        for j in range(first, last):
            ws[z + at + j] = (
                params[layer.scale + j] * ws[kept + at + j] + params[layer.bias + j]
            )


cdef real sum_of_row(const real[::1] ws, Py_ssize_t at, Py_ssize_t n) noexcept nogil:
    """Sum a padded row, in eight sums side by side."""
    cdef real[8] part
    cdef real total = 0
    cdef Py_ssize_t block, k
    for k in range(8):
        part[k] = 0
    for block in range(n // 8):
        for k in range(8):
            part[k] += ws[at + 8 * block + k]
    for k in range(8):
        total += part[k]
    return total


cdef real dot_of_rows(
    const real[::1] ws, Py_ssize_t a, Py_ssize_t b, Py_ssize_t n
) noexcept nogil:
    """Sum the products of two padded rows, in eight sums side by side."""
    cdef real[8] part
    cdef real total = 0
    cdef Py_ssize_t block, k
    for k in range(8):
        part[k] = 0
    for block in range(n // 8):
        for k in range(8):
            part[k] += ws[a + 8 * block + k] * ws[b + 8 * block + k]
    for k in range(8):
        total += part[k]
    return total


cdef real normalise_row(
    const Layer *layer, const real[::1] params, real[::1] ws, Py_ssize_t z, Py_ssize_t kept
) noexcept nogil:
    """Normalise a row by its statistics over the units: zhat to `kept`, or to z; y replaces z.

    The padding of z may be anything, as products leave it; that of zhat and y is 0. Returns
    1 / sqrt(variance + eps).
    """
    cdef Py_ssize_t j
    cdef real mean, inverse
    for j in range(layer.n_out, layer.stride):
        ws[z + j] = 0
    mean = sum_of_row(ws, z, layer.stride) / <real>layer.n_out
    for j in range(layer.n_out):
        ws[kept + j] = ws[z + j] - mean
    for j in range(layer.n_out, layer.stride):
        ws[kept + j] = 0
    inverse = dot_of_rows(ws, kept, kept, layer.stride) / <real>layer.n_out
    inverse = 1 / root(inverse + <real>layer.epsilon)
    for j in range(layer.stride):
        ws[kept + j] *= inverse
    for j in range(layer.stride):
        ws[z + j] = params[layer.scale + j] * ws[kept + j] + params[layer.bias + j]
    return inverse


cdef void apply_running(
    const Layer *layer, const real[::1] params, real[::1] ws, Py_ssize_t z
) noexcept nogil:
    """Normalise a row by the running statistics of its units; y replaces z."""
    cdef Py_ssize_t j, gamma = layer.scale
    cdef Py_ssize_t mean = gamma + layer.stride, variance = mean + layer.stride
    cdef real epsilon = <real>layer.epsilon
    for j in range(layer.stride):
        ws[z + j] = (
            params[gamma + j] * (ws[z + j] - params[mean + j])
            / root(params[variance + j] + epsilon) + params[layer.bias + j]
        )


cdef void normalise_forward(
    const Run *run, Py_ssize_t number, const real[::1] params, real[::1] ws, Py_ssize_t n,
    const Drop *drop,
) noexcept nogil:
    """Replace the weighted sums of n rows by activations, this thread's part of them."""
    cdef const Layer *layer = &run.layers[number]
    cdef Py_ssize_t i, first, last, stride = layer.stride, units = run.to.batch * layer.units
    cdef Py_ssize_t at = run.to.activations + units, slopes = run.to.slopes + units
    if layer.normalization == BATCH:
        first = first_column(run, layer, run.rank, sizeof(real))
        last = first_column(run, layer, run.rank + 1, sizeof(real))
        if first < last:
            normalise_columns(run, layer, params, ws, n, first, last)
            activate_tile(
                run, layer, layer.activation, params, ws, at + first, slopes + first, 0, n, first,
                last - first, drop,
            )
        return
    first = share(n, run.rank, run.n_threads)
    last = share(n, run.rank + 1, run.n_threads)
    for i in range(first, last):
        ws[row_inverses(run, number) + i] = normalise_row(
            layer, params, ws, at + i * stride, run.to.normalised + units + i * stride
        )
    if first < last:
        activate_tile(
            run, layer, layer.activation, params, ws, at + first * stride,
            slopes + first * stride, first, last - first, 0, stride, drop,
        )


cdef void normalise_backward(
    const Run *run, Py_ssize_t number, const real[::1] params, real[::1] ws, Py_ssize_t n
) noexcept nogil:
    """Turn dC/dy of a layer into dC/dz, and leave dC/dgamma and dC/dbeta with the statistics.

    Callers must place a barrier after this.
    """
    cdef const Layer *layer = &run.layers[number]
    cdef Py_ssize_t i, j, at, stride = layer.stride, units = run.to.batch * layer.units
    cdef Py_ssize_t delta = run.to.deltas + units, kept = run.to.normalised + units
    cdef Py_ssize_t d_beta = statistic(run, layer, D_BETA)
    cdef Py_ssize_t d_gamma = statistic(run, layer, D_GAMMA)
    cdef Py_ssize_t inverse = statistic(run, layer, INVERSE)
    cdef Py_ssize_t first = first_column(run, layer, run.rank, sizeof(real))
    cdef Py_ssize_t last = first_column(run, layer, run.rank + 1, sizeof(real))
    cdef real part = <real>(1.0 / n)
    for j in range(first, last):
        ws[d_beta + j] = 0
        ws[d_gamma + j] = 0
    for i in range(n):
        at = i * stride
        for j in range(first, last):
            ws[d_beta + j] += ws[delta + at + j]
            ws[d_gamma + j] += ws[delta + at + j] * ws[kept + at + j]
    if layer.normalization == BATCH:
        for i in range(n):
            at = i * stride
            for j in range(first, last):
                ws[delta + at + j] = params[layer.scale + j] * ws[inverse + j] * (
                    ws[delta + at + j] - part * ws[d_beta + j]
                    - part * ws[d_gamma + j] * ws[kept + at + j]
                )
        return
    barrier(run)  # all columns of a row have been added up before it changes
    for i in range(share(n, run.rank, run.n_threads), share(n, run.rank + 1, run.n_threads)):
        row_backward(
            layer, params, ws, delta + i * stride, kept + i * stride,
            ws[row_inverses(run, number) + i],
        )


cdef void row_backward(
    const Layer *layer, const real[::1] params, real[::1] ws, Py_ssize_t delta, Py_ssize_t kept,
    real inverse,
) noexcept nogil:
    """dC/dz of one row that was normalised over its units; its padding stays 0."""
    cdef Py_ssize_t j
    cdef real mean, along
    for j in range(layer.stride):
        ws[delta + j] *= params[layer.scale + j]
    mean = sum_of_row(ws, delta, layer.stride) / <real>layer.n_out
    along = dot_of_rows(ws, delta, kept, layer.stride) / <real>layer.n_out
    for j in range(layer.n_out):
        ws[delta + j] = inverse * (ws[delta + j] - mean - along * ws[kept + j])


cdef void update_normalization(
    const Run *run, const Layer *layer, const Step *step, real[::1] params, real[:, ::1] state,
    real[::1] grads, const real[::1] ws, Py_ssize_t n, bint adds,
) noexcept nogil:
    """Use dC/dbeta and dC/dgamma, or write them to `grads`; update the running statistics.

    All of this thread's columns. The running variance is that without bias.
    """
    cdef Py_ssize_t j, k, at, source, width = layer.stride
    cdef Py_ssize_t first = first_column(run, layer, run.rank, sizeof(real))
    cdef Py_ssize_t n_columns = first_column(run, layer, run.rank + 1, sizeof(real)) - first
    cdef Step own
    cdef real rate = <real>NORMALIZATION_MOMENTUM, unbiased = <real>(n / max(n - 1.0, 1.0))
    for k in range(2):
        at = (layer.scale if k else layer.bias) + first
        source = statistic(run, layer, D_GAMMA if k else D_BETA) + first
        if run.fused:
            update_rows(
                &run.optimizer,
                step_of(
                    &run.optimizer, step,
                    factor_row(run, layer, SCALE_GROUP if k else BIAS_GROUP), &own,
                ),
                params, state, at, n_columns, ws, source, n_columns, 1, n_columns, False,
            )
        else:
            for j in range(n_columns):
                grads[at + j] = ws[source + j] + (grads[at + j] if adds else 0)
    if layer.normalization != BATCH:
        return
    for k in range(1, 3):
        at = layer.scale + k * width + first
        source = statistic(run, layer, MEAN if k == 1 else VARIANCE) + first
        if not run.fused:
            for j in range(n_columns):
                grads[at + j] = 0
        if run.learns and n > 1:
            for j in range(n_columns):
                params[at + j] += rate * (
                    ws[source + j] * (1 if k == 1 else unbiased) - params[at + j]
                )
