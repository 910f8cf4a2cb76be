# Losses --------------------------------------------------------------------------------------------

cdef inline double x_log_y(double x, double y) noexcept nogil:
    return x * log(y) if x != 0 else 0.0


cdef inline bint from_logits(int loss, Py_ssize_t activation) noexcept nogil:
    """Whether loss and output activation are a pair: cost from z, delta = a - y."""
    return (
        (loss == BINARY and activation == LOGISTIC)
        or (loss == CATEGORICAL and activation == SOFTMAX)
        or (loss == POISSON and activation == EXP)
    )


cdef void softmax_rows(
    real[::1] ws, Py_ssize_t at, Py_ssize_t n, Py_ssize_t n_out, Py_ssize_t stride
) noexcept nogil:
    """Replace n rows of weighted sums by their softmax."""
    if n > 1 and is_narrow(n_out, sizeof(real)):
        softmax_few_columns(&ws[at], n, stride, n_out)
    else:
        softmax(&ws[at], n, stride, n_out)


cdef inline bint is_missing(const Objective *objective, real y) noexcept nogil:
    return objective.missing and y != y


cdef void logits_to_costs(
    const Run *run, const Layer *layer, real[::1] ws, Py_ssize_t at, Py_ssize_t y,
    Py_ssize_t delta, Py_ssize_t costs, Py_ssize_t n,
) noexcept nogil:
    """Turn n rows of weighted sums into logistic or exp; their costs are computed from the sums.

    Small terms are added to small terms, so that a nearly right answer keeps its digits. Until
    the end, `delta` holds the weighted sums z.
    """
    cdef Py_ssize_t i, j, row, stride = layer.stride, n_out = layer.n_out
    cdef int loss = run.objective.loss
    cdef double cost, z
    for j in range(n * stride):
        ws[delta + j] = ws[at + j]
    if loss == BINARY:
        vector_logistic(&ws[at], n * stride)
    else:
        vector_exp(&ws[at], n * stride)
    for i in range(n):
        cost, row = 0, i * stride
        if loss == BINARY:
            # -(y log p + (1 - y) log(1 - p)) is max(z, 0) - y z + log(1 + e^-|z|)
            for j in range(row, row + n_out):
                if is_missing(&run.objective, ws[y + j]):
                    ws[delta + j] = -INFINITY  # whose softplus is 0
                    continue
                z = ws[delta + j]
                cost += fmax(z, 0) - ws[y + j] * z
                ws[delta + j] = <real>-fabs(z)
            vector_softplus(&ws[delta + row], <real *>NULL, stride)
            for j in range(row, row + n_out):
                cost += ws[delta + j]
        else:
            # a - y + y log(y / a) with log a = z is y (e^d - 1 - d) with d = z - log y
            for j in range(row, row + n_out):
                if ws[y + j] > 0:
                    z = ws[delta + j] - log(ws[y + j])
                    cost += ws[y + j] * (expm1(z) - z)
                elif not is_missing(&run.objective, ws[y + j]):
                    cost += ws[at + j]
        ws[costs + i] = <real>cost


cdef inline double clipped(double x, double low, double high) noexcept nogil:
    """Return x between low and high; NaN stays NaN, which fmin and fmax would replace."""
    x = x if not x < low else low
    return x if not x > high else high


cdef double cost_and_slope(
    const Objective *objective, double a, double y, double eps, double *slope
) noexcept nogil:
    """Cost of one output, and dC/da."""
    cdef double r = a - y, q = objective.parameter, p
    if is_missing(objective, y):
        slope[0] = 0
        return 0
    if r != r:  # comparisons with NaN are false: none below would return it
        slope[0] = r
        return r
    if objective.loss == SQUARED:
        slope[0] = r
        return 0.5 * r * r
    if objective.loss == ABSOLUTE:
        slope[0] = (r > 0) - (r < 0)
        return fabs(r)
    if objective.loss == HUBER:
        slope[0] = clipped(r, -q, q)
        return 0.5 * r * r if fabs(r) <= q else q * (fabs(r) - 0.5 * q)
    if objective.loss == BINARY:
        p = clipped(a, eps, 1 - eps)
        slope[0] = (p - y) / (p * (1 - p))
        return -(y * log(p) + (1 - y) * log(1 - p))
    if objective.loss == CATEGORICAL:
        p = clipped(a, eps, INFINITY)
        slope[0] = -y / p
        return -y * log(p)
    if objective.loss == POISSON:
        p = clipped(a, eps, INFINITY)
        slope[0] = 1 - y / p
        return r + x_log_y(y, y / p)
    if objective.loss == QUANTILE:
        slope[0] = 1 - q if r > 0 else (-q if r < 0 else 0)
        return fmax(-q * r, (1 - q) * r)
    slope[0] = y  # an external loss: the target is dC/da
    return 0


cdef void outputs_to_costs(
    const Run *run, const Layer *layer, real[::1] ws, Py_ssize_t at, Py_ssize_t y,
    Py_ssize_t slope, Py_ssize_t delta, Py_ssize_t costs, Py_ssize_t n,
) noexcept nogil:
    """Do the same for a loss and an activation that are no pair; write dC/dz to `delta`."""
    cdef Py_ssize_t i, j, row, stride = layer.stride, n_out = layer.n_out
    cdef double cost, da, along
    cdef double eps = 1.1920928955078125e-07 if real is float else 2.220446049250313e-16
    if layer.activation == SOFTMAX:
        softmax_rows(ws, at, n, n_out, stride)
    else:
        activate_part(layer.activation, layer.parameter, ws, at, slope, n * stride)
        fill_slope(layer.activation, layer.parameter, ws, slope, at, n * stride)
    for i in range(n):
        cost, along, row = 0, 0, i * stride
        for j in range(row, row + n_out):
            cost += cost_and_slope(&run.objective, ws[at + j], ws[y + j], eps, &da)
            ws[delta + j] = <real>da
        if layer.activation == SOFTMAX:  # every output depends on every weighted sum of its row
            for j in range(row, row + n_out):
                along += ws[delta + j] * ws[at + j]
            for j in range(row, row + n_out):
                ws[delta + j] = ws[at + j] * (ws[delta + j] - <real>along)
        else:
            for j in range(row, row + n_out):
                ws[delta + j] *= ws[slope + j]
        ws[costs + i] = <real>cost


cdef void output_layer_costs(
    const Run *run, real[::1] ws, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Compute activation, cost and delta = share of the row * dC/dz of some rows' outputs."""
    cdef const Layer *layer = &run.layers[run.n_layers - 1]
    cdef const Layout *to = &run.to
    cdef Py_ssize_t i, j, row, at, y, delta, units = to.batch * layer.units + first * layer.stride
    cdef real part
    at, delta = to.activations + units, to.deltas + units
    y = to.targets + first * to.target_stride
    cdef bint belong = from_logits(run.objective.loss, layer.activation)
    if belong and layer.activation == SOFTMAX:
        softmax_costs(
            &ws[at], &ws[y], &ws[to.shares + first], &ws[delta], &ws[to.costs + first],
            last - first, layer.stride, layer.n_out,
        )
        return
    if belong:
        logits_to_costs(run, layer, ws, at, y, delta, to.costs + first, last - first)
    else:
        outputs_to_costs(
            run, layer, ws, at, y, to.slopes + units, delta, to.costs + first, last - first
        )
    for i in range(last - first):
        part = ws[to.shares + first + i]
        row = i * layer.stride
        if belong:
            difference(
                &ws[delta + row], &ws[at + row], &ws[y + row], part, layer.n_out, layer.stride
            )
            if run.objective.missing:
                for j in range(row, row + layer.n_out):
                    if ws[y + j] != ws[y + j]:
                        ws[delta + j] = 0
        else:
            for j in range(row, row + layer.n_out):
                ws[delta + j] *= part
            for j in range(row + layer.n_out, row + layer.stride):
                ws[delta + j] = 0
