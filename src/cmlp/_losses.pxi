# Losses --------------------------------------------------------------------------------------------

cdef inline double x_log_y(double x, double y) noexcept nogil:
    return x * log(y) if x != 0 else 0.0


cdef inline bint from_logits(int loss, Py_ssize_t activation) noexcept nogil:
    """Whether loss and output activation belong together: cost from z, delta = a - y."""
    return (
        (loss == BINARY and activation == LOGISTIC)
        or (loss == CATEGORICAL and activation == SOFTMAX)
        or (loss == POISSON and activation == EXP)
    )


cdef void shift_row(real[::1] ws, Py_ssize_t at, Py_ssize_t n) noexcept nogil:
    """Subtract the largest number of a row, so that no exponential overflows."""
    cdef Py_ssize_t j
    cdef real top = ws[at]
    for j in range(at + 1, at + n):
        top = ws[j] if ws[j] > top else top
    for j in range(at, at + n):
        ws[j] -= top


cdef double softmax_row(real[::1] ws, Py_ssize_t at, Py_ssize_t n, Py_ssize_t stride) noexcept nogil:
    """Replace a shifted row by its softmax; returns the log of the sum of its exponentials."""
    cdef Py_ssize_t j
    cdef real inverse
    cdef double total = 0
    for j in range(at + n, at + stride):
        ws[j] = 0
    vector_exp(&ws[at], stride)
    for j in range(at, at + n):
        total += ws[j]
    inverse = <real>(1 / total)
    for j in range(at, at + n):
        ws[j] *= inverse
    return log(total)


cdef double cost_from_logits(
    int loss, real[::1] ws, Py_ssize_t at, Py_ssize_t y, Py_ssize_t delta, Py_ssize_t n,
    Py_ssize_t stride,
) noexcept nogil:
    """Turn a row of weighted sums into activations; returns the row's cost, computed from the sums.

    Small terms are added to small terms, so that a nearly right answer keeps its digits.
    """
    cdef Py_ssize_t j
    cdef double cost = 0, log_total, z
    if loss == CATEGORICAL:
        shift_row(ws, at, n)
    for j in range(n):
        ws[delta + j] = ws[at + j]  # delta keeps z until it is overwritten
    if loss == CATEGORICAL:
        log_total = softmax_row(ws, at, n, stride)
        for j in range(n):
            if ws[y + j] != 0:
                cost += ws[y + j] * (log_total - ws[delta + j])
    elif loss == BINARY:
        # -(y log p + (1 - y) log(1 - p)) with p = logistic(z) is max(z, 0) - y z + log(1 + e^-|z|)
        for j in range(n):
            z = ws[delta + j]
            cost += fmax(z, 0) - ws[y + j] * z
            ws[delta + j] = -ws[at + j] if ws[at + j] > 0 else ws[at + j]
        for j in range(n, stride):
            ws[delta + j] = 0
        vector_softplus(&ws[delta], <real *>NULL, stride)
        for j in range(n):
            cost += ws[delta + j]
        vector_logistic(&ws[at], stride)
    else:
        # a - y + y log(y / a) with log a = z is y (e^d - 1 - d) with d = z - log y
        vector_exp(&ws[at], stride)
        for j in range(n):
            if ws[y + j] > 0:
                z = ws[delta + j] - log(ws[y + j])
                cost += ws[y + j] * (expm1(z) - z)
            else:
                cost += ws[at + j]
    return cost


cdef inline double clipped(double x, double low, double high) noexcept nogil:
    """x between low and high; a NaN stays one, which fmin and fmax would not let through."""
    x = x if not x < low else low
    return x if not x > high else high


cdef double cost_and_slope(
    Objective objective, double a, double y, double eps, double *slope
) noexcept nogil:
    """Cost of one output, and dC/da."""
    cdef double r = a - y, q = objective.parameter, p
    if r != r:  # a NaN has no sign to be lost in
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


cdef double finish_row(
    Layer layer, Objective objective, real[::1] ws, Py_ssize_t at, Py_ssize_t y, Py_ssize_t slope,
    Py_ssize_t delta, real row_share,
) noexcept nogil:
    """Output layer of one row: activation, cost, and delta = share * dC/dz. Returns the cost."""
    cdef Py_ssize_t j, n = layer.n_out
    cdef double cost = 0, da, along = 0
    cdef double eps = 1.1920928955078125e-07 if real is float else 2.220446049250313e-16
    if from_logits(objective.loss, layer.activation):
        cost = cost_from_logits(objective.loss, ws, at, y, delta, n, layer.stride)
        for j in range(n):
            ws[delta + j] = row_share * (ws[at + j] - ws[y + j])
    else:
        if layer.activation == SOFTMAX:
            shift_row(ws, at, n)
            softmax_row(ws, at, n, layer.stride)
        else:
            activate_part(layer.activation, ws, at, slope, layer.stride)
            fill_slope(layer.activation, ws, slope, at, layer.stride)
        for j in range(n):
            cost += cost_and_slope(objective, ws[at + j], ws[y + j], eps, &da)
            ws[delta + j] = row_share * <real>da
        if layer.activation == SOFTMAX:  # every output depends on every weighted sum of its row
            for j in range(n):
                along += ws[delta + j] * ws[at + j]
            for j in range(n):
                ws[delta + j] = ws[at + j] * (ws[delta + j] - <real>along)
        else:
            for j in range(n):
                ws[delta + j] *= ws[slope + j]
    for j in range(n, layer.stride):
        ws[delta + j] = 0
    return cost
