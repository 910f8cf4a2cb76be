# Updates -------------------------------------------------------------------------------------------

cdef Step plan_step(Optimizer o, Py_ssize_t number, double learning_rate) noexcept nogil:
    cdef Step step = Step(number, learning_rate, learning_rate, learning_rate * o.weight_decay, 1.0)
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


cdef double norm_of(const real[::1] grads) noexcept nogil:
    cdef Py_ssize_t j
    cdef double total = 0
    for j in range(grads.shape[0]):
        total += <double>grads[j] * grads[j]
    return sqrt(total)


cdef void update_all(
    const int64_t[:, ::1] plan, Optimizer o, Step step, real[::1] params, real[:, ::1] state,
    const real[::1] grads, Py_ssize_t rank, Py_ssize_t n_threads,
) noexcept nogil:
    """Clip and update from a whole gradient; every thread takes some rows of every layer."""
    cdef Py_ssize_t number, first, n
    cdef Layer layer
    cdef double norm
    if o.clip_norm > 0:
        norm = norm_of(grads)
        if norm > o.clip_norm:
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
