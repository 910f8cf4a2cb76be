# One step ------------------------------------------------------------------------------------------

cdef double total_weight(
    const double[::1] weights, const int64_t[::1] rows, Py_ssize_t first, Py_ssize_t n
) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    if weights is None:
        return <double>n
    for i in range(first, first + n):
        total += weights[row_number(rows, i)]
    return total


cdef void gather_batch(
    Rows X, Rows targets, const double[::1] weights, const int64_t[::1] rows, Py_ssize_t first,
    Py_ssize_t n, Py_ssize_t n_out, Objective objective, Noise noise, uint64_t key,
    Py_ssize_t first_row, double weight, real[::1] ws, Layout to, Py_ssize_t rank,
    Py_ssize_t n_threads,
) noexcept nogil:
    """Bring n rows, their targets and their shares of the gradient to the workspace."""
    cdef Py_ssize_t i, row, at
    cdef double part
    for i in range(share(n, rank, n_threads), share(n, rank + 1, n_threads)):
        row = row_number(rows, first + i)
        at = to.inputs + i * to.input_stride
        gather_row(&X, row, ws, at)
        if noise.input_noise > 0:
            add_input_noise(
                ws, at, X.width, <uint32_t>((first_row + i) * X.width), key, noise.input_noise
            )
        gather_target(
            &targets, row, ws, to.targets + i * to.target_stride, n_out, to.target_stride, objective
        )
        part = 1 if weights is None else weights[row]
        if objective.loss != EXTERNAL:  # an external dC/da is of the whole batch already
            part = part / weight if weight > 0 else 0
        ws[to.shares + i] = <real>part


cdef void transpose_all(
    const int64_t[:, ::1] plan, const real[::1] params, real[::1] ws, Layout to, Py_ssize_t rank,
    Py_ssize_t n_threads,
) noexcept nogil:
    """W^T of every layer but the first, for the way back; before any of them is updated."""
    cdef Py_ssize_t number
    cdef Layer layer
    for number in range(1, plan.shape[0]):
        layer = layer_of(plan, number)
        transpose(
            layer, params, ws, to.transposed + layer.transposed,
            layer_of(plan, number - 1).stride, rank, n_threads,
        )


cdef double forward_batch(
    const int64_t[:, ::1] plan, const real[::1] params, Rows X, Rows targets,
    const double[::1] weights, const int64_t[::1] rows, Py_ssize_t first, Py_ssize_t n,
    Objective objective, Noise noise, const double[::1] dropout, Py_ssize_t step, real[::1] ws,
    Layout to, Py_ssize_t first_row, double weight, Py_ssize_t rank, Py_ssize_t n_threads,
    int64_t *team,
) noexcept nogil:
    """Gather, propagate and score at most `to.batch` rows: rows[first : first + n].

    `first_row` is the first one's place in its batch, `weight` the batch's whole weight. Leaves
    activations, slopes, costs and the output layer's delta in the workspace, and returns the rows'
    cost, summed by their weights.
    """
    cdef Py_ssize_t number, i, row, end, at, last = plan.shape[0] - 1
    cdef Py_ssize_t from_ = to.inputs, from_stride = to.input_stride, row_tiles
    cdef double cost = 0, rate
    cdef Layer layer = layer_of(plan, last)
    gather_batch(
        X, targets, weights, rows, first, n, layer.n_out, objective, noise,
        key_of(noise.seed, step, 0), first_row, weight, ws, to, rank, n_threads,
    )
    barrier_wait(team, n_threads)

    for number in range(last):
        layer = layer_of(plan, number)
        rate = dropout[number] if number < dropout.shape[0] else 0
        at = to.batch * layer.units
        forward_hidden(
            layer, params, ws, from_, from_stride, to.activations + at, to.slopes + at, n,
            first_row, rate, key_of(noise.seed, step, number + 1),
            panel_of(to, rank, sizeof(real)), rank, n_threads,
        )
        from_, from_stride = to.activations + at, layer.stride
        barrier_wait(team, n_threads)

    layer = layer_of(plan, last)
    at = to.batch * layer.units
    row_tiles = blocks(n, TILE_ROWS)
    for number in range(share(row_tiles, rank, n_threads), share(row_tiles, rank + 1, n_threads)):
        row = number * TILE_ROWS
        end = min(n, row + TILE_ROWS)
        forward_output(layer, params, ws, from_, from_stride, to.activations + at, row, end)
        for i in range(row, end):
            ws[to.costs + i] = <real>finish_row(
                layer, objective, ws, to.activations + at + i * layer.stride,
                to.targets + i * to.target_stride, to.slopes + at + i * layer.stride,
                to.deltas + at + i * layer.stride, ws[to.shares + i],
            )
    barrier_wait(team, n_threads)
    for i in range(n):  # every thread, in the same order: all see the same sum
        cost += ws[to.costs + i] * (
            1 if weights is None else weights[row_number(rows, first + i)]
        )
    return cost


cdef void backward_batch(
    const int64_t[:, ::1] plan, real[::1] params, real[:, ::1] state, Py_ssize_t n,
    Objective objective, Optimizer o, Step step, const double[::1] dropout, real[::1] grads,
    real[::1] ws, Layout to, bint fused, bint adds, bint penalises, Py_ssize_t rank,
    Py_ssize_t n_threads, int64_t *team,
) noexcept nogil:
    """The way back from the output layer's delta: fused with the update, or to `grads`."""
    cdef Py_ssize_t number, at, delta, from_, from_stride, slopes
    cdef Py_ssize_t scratch = to.tiles + rank * tile_size(sizeof(real))
    cdef Layer layer, before
    for number in range(plan.shape[0] - 1, -1, -1):
        layer = layer_of(plan, number)
        delta = to.deltas + to.batch * layer.units
        from_, from_stride = to.inputs, to.input_stride
        if number:
            before = layer_of(plan, number - 1)
            at = to.batch * before.units
            from_, from_stride = to.activations + at, before.stride
            slopes = -1
            if not slope_from_output(before.activation) or (
                number - 1 < dropout.shape[0] and dropout[number - 1] > 0
            ):
                slopes = to.slopes + at
            backward_inputs(
                layer, ws, to.transposed + layer.transposed, delta, to.deltas + at, before.stride,
                n, before.activation, from_, slopes, panel_of(to, rank, sizeof(real)), rank,
                n_threads,
            )
        backward_weights(
            layer, objective, o, step, params, state, grads, ws, from_, from_stride, delta, n,
            scratch, fused, adds, penalises, panel_of(to, rank, sizeof(real)), rank, n_threads,
        )
        barrier_wait(team, n_threads)


cdef double train_batch(
    const int64_t[:, ::1] plan, real[::1] params, real[:, ::1] state, Rows X, Rows targets,
    const double[::1] weights, const int64_t[::1] rows, Py_ssize_t first, Py_ssize_t n,
    Objective objective, Optimizer o, Step step, Noise noise, const double[::1] dropout,
    real[::1] grads, real[::1] ws, Layout to, bint fused, double weight, Py_ssize_t rank,
    Py_ssize_t n_threads, int64_t *team,
) noexcept nogil:
    """One step on a batch of any size; returns its loss times its weight.

    Takes no step if that is not finite.
    """
    cdef Py_ssize_t block, done, m
    cdef bint penalised = objective.l1 != 0 or objective.l2 != 0
    cdef double cost = 0, norm = 0
    # The barriers of the forward half publish both.
    transpose_all(plan, params, ws, to, rank, n_threads)
    if penalised:
        measure(
            plan, params, objective.l1, 0.5 * objective.l2, False, ws, to.sums, rank, n_threads
        )
    for block in range(blocks(n, to.batch)):
        done = block * to.batch
        m = min(to.batch, n - done)
        cost += forward_batch(
            plan, params, X, targets, weights, rows, first + done, m, objective, noise, dropout,
            step.number, ws, to, done, weight, rank, n_threads, team,
        )
        if block == 0 and penalised:
            cost += total_size(ws, to) * weight
        if not isfinite(cost):
            return cost
        backward_batch(
            plan, params, state, m, objective, o, step, dropout, grads, ws, to, fused, done > 0,
            done + m == n, rank, n_threads, team,
        )
    if not fused:
        if o.clip_norm > 0:
            measure(plan, grads, 0, 1, True, ws, to.sums, rank, n_threads)
            barrier_wait(team, n_threads)
            norm = sqrt(total_size(ws, to))
        update_all(plan, o, step, norm, params, state, grads, rank, n_threads)
        barrier_wait(team, n_threads)
    return cost
