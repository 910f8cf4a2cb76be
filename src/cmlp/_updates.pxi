# Updates -------------------------------------------------------------------------------------------

cdef Step plan_step(Optimizer o, Py_ssize_t number, double learning_rate) noexcept nogil:
    cdef Step step = Step(number, learning_rate, learning_rate * o.weight_decay, 1.0)
    if o.solver == ADAM:
        step.rate = (
            learning_rate * sqrt(1 - o.beta_2 ** <double>(number + 1))
            / (1 - o.beta_1 ** <double>(number + 1))
        )
    return step


cdef void penalise_part(
    Objective objective, const real[::1] params, Py_ssize_t at, real[::1] grads, Py_ssize_t g,
    Py_ssize_t n,
) noexcept nogil:
    """Add the gradient of ``l1 sum|W| + l2/2 sum W^2``."""
    cdef real l1 = <real>objective.l1, l2 = <real>objective.l2, w
    cdef Py_ssize_t j
    if l2 != 0:
        for j in range(n):
            grads[g + j] += l2 * params[at + j]
    if l1 != 0:
        for j in range(n):
            w = params[at + j]
            grads[g + j] += l1 if w > 0 else (-l1 if w < 0 else 0)


cdef void update_part(
    Optimizer o, Step step, real[::1] params, real[:, ::1] state, Py_ssize_t at,
    const real[::1] grads, Py_ssize_t gradient, Py_ssize_t n, bint decays,
) noexcept nogil:
    """Move n parameters at `at` against their gradient; `decays`: they are weights, not biases."""
    cdef Py_ssize_t j
    cdef real g, v, m, eta = <real>step.rate, scale = <real>step.scale
    cdef real keep = <real>(1 - step.decay), mu = <real>o.momentum, epsilon = <real>o.epsilon
    cdef real rest_1 = <real>(1 - o.beta_1), rest_2 = <real>(1 - o.beta_2)
    if decays and step.decay != 0:
        for j in range(n):
            params[at + j] *= keep
    if o.solver == SGD and mu == 0:
        for j in range(n):
            params[at + j] -= eta * (scale * grads[gradient + j])
    elif o.solver == SGD:
        for j in range(n):
            g = eta * (scale * grads[gradient + j])
            v = mu * state[0, at + j] - g
            state[0, at + j] = v
            params[at + j] += mu * v - g if o.nesterov else v
    elif o.solver == ADAM:
        for j in range(n):
            g = scale * grads[gradient + j]
            m = state[0, at + j] + rest_1 * (g - state[0, at + j])
            v = state[1, at + j] + rest_2 * (g * g - state[1, at + j])
            state[0, at + j] = m
            state[1, at + j] = v
            params[at + j] -= eta * m / (sqrt(v) + epsilon)
    else:
        for j in range(n):
            g = scale * grads[gradient + j]
            v = state[0, at + j] + rest_2 * (g * g - state[0, at + j])
            state[0, at + j] = v
            params[at + j] -= eta * g / (sqrt(v) + epsilon)


cdef double size_of_row(
    const real[::1] values, Py_ssize_t at, Py_ssize_t n, double l1, double l2
) noexcept nogil:
    """Sum of ``l1 |v| + l2 v^2`` over a padded row, in eight sums side by side."""
    cdef double[8] part
    cdef double v, total = 0
    cdef Py_ssize_t block, k
    for k in range(8):
        part[k] = 0
    for block in range(n // 8):
        for k in range(8):
            v = values[at + 8 * block + k]
            part[k] += l1 * fabs(v) + l2 * v * v
    for k in range(8):
        total += part[k]
    return total


cdef void measure(
    const int64_t[:, ::1] plan, const real[::1] values, double l1, double l2, bint biases,
    real[::1] ws, Py_ssize_t to, Py_ssize_t rank, Py_ssize_t n_threads,
) noexcept nogil:
    """The size of every row of weights (and of the biases, or 0), this thread's share of them.

    Rows are summed in order afterwards: the result does not depend on the number of threads.
    """
    cdef Py_ssize_t number, i
    cdef Layer layer
    for number in range(plan.shape[0]):
        layer = layer_of(plan, number)
        for i in range(share(layer.n_in, rank, n_threads), share(layer.n_in, rank + 1, n_threads)):
            ws[to + i] = <real>size_of_row(
                values, layer.weights + i * layer.stride, layer.stride, l1, l2
            )
        to += layer.n_in
        if rank == 0:
            ws[to] = <real>size_of_row(values, layer.bias, layer.stride, l1, l2) if biases else 0
        to += 1


cdef double total_size(const real[::1] ws, Layout to) noexcept nogil:
    """The sum of what the threads have measured, behind a barrier."""
    cdef Py_ssize_t i
    cdef double total = 0
    for i in range(to.sums, to.sums + to.n_sums):
        total += ws[i]
    return total


cdef double penalty_of(
    const int64_t[:, ::1] plan, Objective objective, const real[::1] params
) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t number
    cdef Layer layer
    if objective.l1 == 0 and objective.l2 == 0:
        return 0
    for number in range(plan.shape[0]):
        layer = layer_of(plan, number)
        total += size_of_row(
            params, layer.weights, layer.n_in * layer.stride, objective.l1, 0.5 * objective.l2
        )
    return total


cdef void update_all(
    const int64_t[:, ::1] plan, Optimizer o, Step step, double norm, real[::1] params,
    real[:, ::1] state, const real[::1] grads, Py_ssize_t rank, Py_ssize_t n_threads,
) noexcept nogil:
    """Clip and update from a gradient of this norm; every thread takes some rows of every layer."""
    cdef Py_ssize_t number, first, n
    cdef Layer layer
    if o.clip_norm > 0 and norm > o.clip_norm:
        step.scale = o.clip_norm / norm
    for number in range(plan.shape[0]):
        layer = layer_of(plan, number)
        first = share(layer.n_in, rank, n_threads)
        n = (share(layer.n_in, rank + 1, n_threads) - first) * layer.stride
        first = layer.weights + first * layer.stride
        if n:
            update_part(o, step, params, state, first, grads, first, n, True)
        if rank == 0:
            update_part(
                o, step, params, state, layer.bias, grads, layer.bias, layer.stride, False
            )
