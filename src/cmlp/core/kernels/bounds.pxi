# What a step can reach -----------------------------------------------------------------------------

cdef inline double magnitude(const real *x, Py_ssize_t n) noexcept nogil:
    """Return the largest absolute value of n numbers; NaN or infinity if there is one of these.

    Without their sign, floats have the order of the integers of the same bits, NaN above infinity:
    a loop of integers becomes one of vectors.
    """
    cdef Py_ssize_t i
    cdef int32_t word, most = 0
    cdef int64_t long_word, long_most = 0
    cdef real found
    if real is float:
        for i in range(n):
            memcpy(&word, &x[i], sizeof(word))
            word &= INT32_MAX
            most = word if word > most else most
        memcpy(&found, &most, sizeof(found))
    else:
        for i in range(n):
            memcpy(&long_word, &x[i], sizeof(long_word))
            long_word &= INT64_MAX
            long_most = long_word if long_word > long_most else long_most
        memcpy(&found, &long_most, sizeof(found))
    return found


def largest(array):
    """Return the largest absolute value of a flat array; NaN if there is one.

    One pass of the memory, where NumPy takes two and a copy of the absolute values.
    """
    return largest_in[double](array) if in_doubles(array) else largest_in[float](array)


cdef double largest_in(const real[::1] array) except? -1:
    cdef double found
    if array.shape[0] == 0:
        return 0
    with nogil:
        found = magnitude(&array[0], array.shape[0])
    return found


cdef inline bint none_negative(const real *x, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef Py_ssize_t below = 0
    for i in range(n):
        below += x[i] < 0
    return below == 0


cdef inline double largest_integer(char kind) noexcept nogil:
    """Return a bound of the integers of a type."""
    if kind == b"b" or kind == b"B":
        return 255
    if kind == b"h" or kind == b"H":
        return 65535
    return 4294967295 if kind == b"i" or kind == b"I" else 18446744073709551615.0


cdef bint has_bounds(const Run *run) noexcept nogil:
    """Whether :func:`stays_finite` knows everything that happens in a step."""
    cdef Py_ssize_t number, last = run.n_layers - 1
    cdef const Layer *layer
    cdef const Layer *output = &run.layers[last]
    for number in range(run.n_layers):
        layer = &run.layers[number]
        if layer.normalization or layer.alpha or layer.precision:
            return False
        if number < last and layer.activation >= EXP:
            return False
        if fabs(layer.parameter) > 2:  # the slope of leaky ReLU, the alpha of ELU
            return False
    if not (output.activation == SOFTMAX or output.activation == LOGISTIC):
        if run.objective.loss != SQUARED or output.activation != IDENTITY:
            return False
    elif not from_logits(run.objective.loss, output.activation):
        return False
    return (
        run.fused and not run.front.n_parts and not run.objective.missing
        and (run.optimizer.solver == SGD or run.optimizer.solver == ADAM)
        and run.optimizer.factors is NULL
        and not run.noise.n_rates and run.noise.input_noise == 0
    )


cdef bint stays_finite(
    const Run *run, const Step *step, const real[::1] params, const real[:, ::1] state, double x,
    double y,
) noexcept nogil:
    """Whether a step can leave no number that is not finite, by bounds on all numbers in it.

    `x` and `y` are the largest inputs and targets. A sum of n products is at most n times the
    largest one; hidden activations are at most ``2 |z| + 2``, and their slopes 2; a bias is
    multiplied by 1. The limit leaves more room than all roundings need.
    """
    cdef const Optimizer *o = &run.optimizer
    cdef double limit = (3.4e38 if real is float else 1.7e308) / 1024
    cdef Py_ssize_t n = state.shape[1], number, last = run.n_layers - 1
    cdef double w = magnitude(&params[0], n), v = magnitude(&state[0, 0], n), v2 = 0
    cdef double a = x, most = fmax(x, 1), z = 0, d, most_d, g, change
    if o.solver == ADAM:
        v2 = magnitude(&state[1, 0], n)
    if not (w <= limit and v <= limit and v2 <= limit and x <= limit and y <= limit):
        return False
    if not (step.rate <= limit and fabs(step.decay) <= limit and run.objective.l2 <= limit):
        return False  # infinite as floats, and then NaN where the weights are 0
    for number in range(run.n_layers):
        z = w * (run.layers[number].n_in * a + 1)
        if not z <= limit:
            return False
        if number < last:
            a = 2 * z + 2
            most = fmax(most, a)
    d = most_d = y + (z if run.objective.loss == SQUARED else 1)
    for number in range(last, 0, -1):
        d *= 2 * w * run.layers[number].n_out
        most_d = fmax(most_d, d)
    g = most * most_d + run.objective.l1 + run.objective.l2 * w
    if not g <= limit:
        return False  # whatever the rate that it is multiplied by
    if o.solver == ADAM:
        if not g * g + 2 * v2 <= limit or not none_negative(&state[1, 0], n):
            return False
        change = step.rate * (2 * v + g) / fmin(0.5 * o.epsilon, 1)  # before it is divided, too
    else:
        change = 2 * (o.momentum * v + step.rate * g)
    return change + w * (1 + fabs(step.decay)) <= limit and most_d <= limit
