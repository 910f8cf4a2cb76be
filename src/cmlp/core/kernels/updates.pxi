# Updates -------------------------------------------------------------------------------------------

cdef inline Py_ssize_t n_moments(int solver) noexcept nogil:
    """Return how many arrays a rule carries from step to step."""
    return 2 if solver == ADAM or solver == NADAM else 1


cdef inline double nadam_momentum(const Optimizer *o, Py_ssize_t t) noexcept nogil:
    return o.beta_1 * (1 - 0.5 * NADAM_DECAY ** <double>t)


cdef void plan_nadam(const Optimizer *o, Step *step) noexcept nogil:
    """Set the rates of Nadam's mean gradient and of the gradient itself, corrected for bias."""
    cdef Py_ssize_t i, t = step.number + 1
    cdef double product = 1 if t <= NADAM_STEPS else 0, following = nadam_momentum(o, t + 1)
    cdef double rate = step.rate * sqrt(1 - o.beta_2 ** <double>t)
    if t <= NADAM_STEPS:
        for i in range(1, t + 1):
            product *= nadam_momentum(o, i)
    step.rate = rate * following / (1 - product * following)
    step.ahead = rate * (1 - nadam_momentum(o, t)) / (1 - product)


cdef Step plan_step(const Optimizer *o, Py_ssize_t number, double learning_rate) noexcept nogil:
    cdef Step step = Step(
        number, learning_rate, learning_rate * (o.weight_decay * o.decay_now), 1.0, 0.0
    )
    if o.solver == NADAM:
        plan_nadam(o, &step)
    if o.solver == ADAM:
        step.rate = (
            learning_rate * sqrt(1 - o.beta_2 ** <double>(number + 1))
            / (1 - o.beta_1 ** <double>(number + 1))
        )
    return step


cdef inline const Step *step_of(
    const Optimizer *o, const Step *step, Py_ssize_t row, Step *own
) noexcept nogil:
    """Return the step of a group of parameters: `step` itself, or `own`, with the group's factors.

    Decay that spares biases and scales is the business of the caller where there are no factors.
    """
    cdef const double *factor
    if o.factors is NULL:
        return step
    factor, own[0] = o.factors + 2 * row, step[0]
    own.rate *= factor[0]
    own.ahead *= factor[0]
    own.decay *= factor[1]
    return own


cdef inline Py_ssize_t factor_row(
    const Run *run, const Layer *layer, Py_ssize_t group
) noexcept nogil:
    return (layer - run.layers) * LAYER_GROUPS + group


cdef inline void share_penalties(Objective *objective, double weight) noexcept nogil:
    """Divide the penalties by the weight of a batch; rows that weigh nothing have none."""
    objective.l1 = objective.l1 / weight if weight > 0 else 0
    objective.l2 = objective.l2 / weight if weight > 0 else 0


cdef void penalise(
    const Objective *objective, const real[::1] params, Py_ssize_t at, Py_ssize_t stride,
    real[::1] grads, Py_ssize_t g_at, Py_ssize_t g_stride, Py_ssize_t m, Py_ssize_t n,
) noexcept nogil:
    """Add the gradient of ``l1 sum|W| + l2/2 sum W^2`` for m rows of n weights."""
    cdef real l1 = <real>objective.l1, l2 = <real>objective.l2, w
    cdef Py_ssize_t i, j, p, g
    if n == stride and n == g_stride:  # no gaps between the rows
        m, n = 1, m * n
    for i in range(m):
        p, g = at + i * stride, g_at + i * g_stride
        if l2 != 0:
            for j in range(n):
                grads[g + j] += l2 * params[p + j]
        if l1 != 0:
            for j in range(n):
                w = params[p + j]
                grads[g + j] += l1 if w > 0 else (-l1 if w < 0 else 0)


cdef inline void update_rows(
    const Optimizer *o, const Step *step, real[::1] params, real[:, ::1] state, Py_ssize_t at,
    Py_ssize_t stride, const real[::1] grads, Py_ssize_t g_at, Py_ssize_t g_stride, Py_ssize_t m,
    Py_ssize_t n, bint decays,
) noexcept nogil:
    """Move m rows of n parameters against their gradient; `decays`: they are weights, not biases.

    With factors every group may decay: a group's step has its own, which may be 0.
    """
    cdef Py_ssize_t i
    decays = decays or o.factors is not NULL
    if n == stride and n == g_stride:  # no gaps between the rows
        m, n = 1, m * n
    for i in range(m):
        update_row(
            o, step, params, state, at + i * stride, grads, g_at + i * g_stride, n, decays
        )


cdef void update_row(
    const Optimizer *o, const Step *step, real[::1] params, real[:, ::1] state, Py_ssize_t at,
    const real[::1] grads, Py_ssize_t g_at, Py_ssize_t n, bint decays,
) noexcept nogil:
    if decays and step.decay != 0:
        decay_row(step, params, at, n)
    if o.solver == SGD and o.momentum == 0:
        descend(step, params, at, grads, g_at, n)
    elif o.solver == SGD:
        descend_with_momentum(o, step, params, state, at, grads, g_at, n)
    elif o.solver == ADAM:
        adam(o, step, params, state, at, grads, g_at, n)
    elif o.solver == NADAM:
        nadam(o, step, params, state, at, grads, g_at, n)
    elif o.solver == LION:
        lion(o, step, params, state, at, grads, g_at, n)
    else:
        rmsprop(o, step, params, state, at, grads, g_at, n)


cdef void decay_row(
    const Step *step, real[::1] params, Py_ssize_t at, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t j
    cdef real keep = <real>(1 - step.decay)
    for j in range(n):
        params[at + j] *= keep


cdef void descend(
    const Step *step, real[::1] params, Py_ssize_t at, const real[::1] grads, Py_ssize_t g_at,
    Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef real eta = <real>step.rate, scale = <real>step.scale
    for j in range(n):
        params[at + j] -= eta * (scale * grads[g_at + j])


cdef void descend_with_momentum(
    const Optimizer *o, const Step *step, real[::1] params, real[:, ::1] state, Py_ssize_t at,
    const real[::1] grads, Py_ssize_t g_at, Py_ssize_t n,
) noexcept nogil:
    """v = mu v - eta g; w += v, or Nesterov's mu v - eta g with the new v."""
    cdef Py_ssize_t j
    cdef real eta = <real>step.rate, scale = <real>step.scale, mu = <real>o.momentum, g, v
    if o.nesterov:
        for j in range(n):
            g = eta * (scale * grads[g_at + j])
            v = mu * state[0, at + j] - g
            state[0, at + j] = v
            params[at + j] += mu * v - g
    else:
        for j in range(n):
            g = eta * (scale * grads[g_at + j])
            v = mu * state[0, at + j] - g
            state[0, at + j] = v
            params[at + j] += v


cdef void adam(
    const Optimizer *o, const Step *step, real[::1] params, real[:, ::1] state, Py_ssize_t at,
    const real[::1] grads, Py_ssize_t g_at, Py_ssize_t n,
) noexcept nogil:
    """Kingma & Ba 2015, in their efficient form: the bias correction is in the rate."""
    cdef Py_ssize_t j
    cdef real eta = <real>step.rate, scale = <real>step.scale, epsilon = <real>o.epsilon, g, m, v
    cdef real rest_1 = <real>(1 - o.beta_1), rest_2 = <real>(1 - o.beta_2)
    for j in range(n):
        g = scale * grads[g_at + j]
        m = state[0, at + j] + rest_1 * (g - state[0, at + j])
        v = state[1, at + j] + rest_2 * (g * g - state[1, at + j])
        state[0, at + j] = m
        state[1, at + j] = v
        params[at + j] -= eta * m / (root(v) + epsilon)


cdef void rmsprop(
    const Optimizer *o, const Step *step, real[::1] params, real[:, ::1] state, Py_ssize_t at,
    const real[::1] grads, Py_ssize_t g_at, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef real eta = <real>step.rate, scale = <real>step.scale, epsilon = <real>o.epsilon, g, v
    cdef real rest_2 = <real>(1 - o.beta_2)
    for j in range(n):
        g = scale * grads[g_at + j]
        v = state[0, at + j] + rest_2 * (g * g - state[0, at + j])
        state[0, at + j] = v
        params[at + j] -= eta * g / (root(v) + epsilon)


cdef void nadam(
    const Optimizer *o, const Step *step, real[::1] params, real[:, ::1] state, Py_ssize_t at,
    const real[::1] grads, Py_ssize_t g_at, Py_ssize_t n,
) noexcept nogil:
    """Dozat 2016: Adam that steps along its next mean, with momentum that grows by a schedule."""
    cdef Py_ssize_t j
    cdef real eta = <real>step.rate, ahead = <real>step.ahead, scale = <real>step.scale
    cdef real rest_1 = <real>(1 - o.beta_1), rest_2 = <real>(1 - o.beta_2)
    cdef real epsilon = <real>o.epsilon, g, m, v
    for j in range(n):
        g = scale * grads[g_at + j]
        m = state[0, at + j] + rest_1 * (g - state[0, at + j])
        v = state[1, at + j] + rest_2 * (g * g - state[1, at + j])
        state[0, at + j] = m
        state[1, at + j] = v
        params[at + j] -= (eta * m + ahead * g) / (root(v) + epsilon)


cdef void lion(
    const Optimizer *o, const Step *step, real[::1] params, real[:, ::1] state, Py_ssize_t at,
    const real[::1] grads, Py_ssize_t g_at, Py_ssize_t n,
) noexcept nogil:
    """Chen et al. 2023: every parameter moves by the rate, in the direction of a mean."""
    cdef Py_ssize_t j
    cdef real eta = <real>step.rate, scale = <real>step.scale, g, c, m
    cdef real rest_1 = <real>(1 - o.beta_1), rest_2 = <real>(1 - o.beta_2)
    for j in range(n):
        g, m = scale * grads[g_at + j], state[0, at + j]
        c = m + rest_1 * (g - m)
        state[0, at + j] = m + rest_2 * (g - m)
        params[at + j] -= eta if c > 0 else (-eta if c < 0 else 0)


cdef void average(
    const Run *run, const Step *step, const real[::1] params, real[:, ::1] state
) noexcept nogil:
    """Update the exponential mean of the parameters after a step, this thread's part of it.

    Adam's correction of the bias is in the rate: the first mean is the parameters themselves.
    """
    cdef const Optimizer *o = &run.optimizer
    cdef Py_ssize_t j, row = n_moments(o.solver), lines = blocks(params.shape[0], 16)
    cdef real rate = <real>(
        (1 - o.ema) / (1 - o.ema ** <double>(step.number - o.ema_start + 1))
    )
    for j in range(
        share(lines, run.rank, run.n_threads) * 16,
        min(share(lines, run.rank + 1, run.n_threads) * 16, params.shape[0]),
    ):
        state[row, j] += rate * (params[j] - state[row, j])


cdef void measure(
    const Run *run, const real[::1] values, double l1, double l2, bint biases, real[::1] ws
) noexcept nogil:
    """Measure every row of weights (and the biases, or 0 for them), this thread's share.

    Rows are summed in order afterwards: the result does not depend on the number of threads.
    """
    cdef Py_ssize_t number, i, to = run.to.sums
    cdef const Layer *layer
    for number in range(run.n_layers):
        layer = &run.layers[number]
        for i in range(
            share(layer.n_in, run.rank, run.n_threads),
            share(layer.n_in, run.rank + 1, run.n_threads),
        ):
            ws[to + i] = <real>size_of(
                &values[layer.weights + i * layer.stride], layer.stride, l1, l2
            )
        to += layer.n_in
        if run.rank == 0:
            ws[to] = <real>size_of(&values[layer.bias], layer.stride, l1, l2) if biases else 0
            if biases and layer.normalization:
                ws[to] += <real>size_of(&values[layer.scale], layer.stride, l1, l2)
            if biases and layer.alpha:
                ws[to] += <real>size_of(&values[layer.alpha], layer.stride, l1, l2)
        to += 1
    if biases:
        measure_front(run, values, to, ws)
    elif run.rank == 0:
        for i in range(to, to + run.front.n_sums):
            ws[i] = 0


cdef double total_size(const Run *run, const real[::1] ws) noexcept nogil:
    """Add up what the threads have measured; callers place a barrier before this."""
    cdef Py_ssize_t i
    cdef double total = 0
    for i in range(run.to.sums, run.to.sums + run.to.n_sums):
        total += ws[i]
    return total


cdef double penalty_of(const Run *run, const real[::1] params) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t number
    cdef const Layer *layer
    if run.objective.l1 == 0 and run.objective.l2 == 0:
        return 0
    for number in range(run.n_layers):
        layer = &run.layers[number]
        total += size_of(
            &params[layer.weights], layer.n_in * layer.stride, run.objective.l1,
            0.5 * run.objective.l2,
        )
    return total


cdef void update_all(
    const Run *run, Step step, double norm, real[::1] params, real[:, ::1] state, real[::1] grads,
) noexcept nogil:
    """Clip and update from a gradient of this norm; every thread takes some rows of every layer."""
    cdef const Optimizer *o = &run.optimizer
    cdef Py_ssize_t number, first, n
    cdef const Layer *layer
    cdef Step own
    if o.clip_norm > 0 and norm > o.clip_norm:
        step.scale = o.clip_norm / norm
    for number in range(run.n_layers):
        layer = &run.layers[number]
        first = share(layer.n_in, run.rank, run.n_threads)
        n = share(layer.n_in, run.rank + 1, run.n_threads) - first
        first = layer.weights + first * layer.stride
        update_rows(
            o, step_of(o, &step, factor_row(run, layer, WEIGHT_GROUP), &own), params, state, first,
            layer.stride, grads, first, layer.stride, n, layer.stride, True,
        )
        if run.rank:
            continue
        update_vector(run, layer, BIAS_GROUP, layer.bias, &step, params, state, grads)
        if layer.normalization:
            update_vector(run, layer, SCALE_GROUP, layer.scale, &step, params, state, grads)
        if layer.alpha:
            update_vector(run, layer, ALPHA_GROUP, layer.alpha, &step, params, state, grads)
    update_front(run, &step, params, state, grads)


cdef void update_vector(
    const Run *run, const Layer *layer, Py_ssize_t group, Py_ssize_t at, const Step *step,
    real[::1] params, real[:, ::1] state, const real[::1] grads,
) noexcept nogil:
    """Update a vector of a layer, with one number per unit."""
    cdef const Optimizer *o = &run.optimizer
    cdef Step own
    update_rows(
        o, step_of(o, step, factor_row(run, layer, group), &own), params, state, at, layer.stride,
        grads, at, layer.stride, 1, layer.stride, False,
    )
