# One step ------------------------------------------------------------------------------------------

cdef double penalty_of(
    const int64_t[:, ::1] plan, Objective objective, const real[::1] params
) noexcept nogil:
    cdef double absolute = 0, squared = 0, w
    cdef Py_ssize_t number, j
    cdef Layer layer
    if objective.l1 == 0 and objective.l2 == 0:
        return 0
    for number in range(plan.shape[0]):
        layer = layer_of(plan, number)
        for j in range(layer.weights, layer.weights + layer.n_in * layer.stride):
            w = params[j]
            absolute += fabs(w)
            squared += w * w
    return objective.l1 * absolute + 0.5 * objective.l2 * squared


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


cdef double run_batch(
    const int64_t[:, ::1] plan, real[::1] params, real[:, ::1] state, Rows X, Rows targets,
    const double[::1] weights, const int64_t[::1] rows, Py_ssize_t first, Py_ssize_t n,
    Objective objective, Optimizer o, Step step, Noise noise, const double[::1] dropout,
    real[::1] grads, real[::1] ws, Layout to, bint fused, bint adds, bint penalises,
    Py_ssize_t first_row, double weight, Py_ssize_t rank, Py_ssize_t n_threads, int64_t *team,
) noexcept nogil:
    """Forward and back for at most `to.batch` rows; returns the rows' cost, summed by their weights.

    Where that is not finite, the backward half is not run.
    """
    cdef Py_ssize_t number, i, row, m, last = plan.shape[0] - 1, at, slopes
    cdef Py_ssize_t from_ = to.inputs, from_stride = to.input_stride, delta
    cdef Py_ssize_t scratch = to.tiles + rank * tile_size(sizeof(real)), row_tiles
    cdef double cost = 0, rate
    cdef Layer layer = layer_of(plan, last), before

    gather_batch(
        X, targets, weights, rows, first, n, layer.n_out, objective, noise,
        key_of(noise.seed, step.number, 0), first_row, weight, ws, to, rank, n_threads,
    )
    for number in range(1, last + 1):
        layer = layer_of(plan, number)
        transpose(
            layer, params, ws, to.transposed + layer.transposed,
            layer_of(plan, number - 1).stride, rank, n_threads,
        )
    barrier_wait(team, n_threads)

    for number in range(last):
        layer = layer_of(plan, number)
        rate = dropout[number] if number < dropout.shape[0] else 0
        at = to.batch * layer.units
        forward_hidden(
            layer, number, params, ws, from_, from_stride, to.activations + at, to.slopes + at, n,
            first_row, rate, key_of(noise.seed, step.number, number + 1), rank, n_threads,
        )
        from_, from_stride = to.activations + at, layer.stride
        barrier_wait(team, n_threads)

    layer = layer_of(plan, last)
    at = to.activations + to.batch * layer.units
    slopes = to.slopes + to.batch * layer.units
    delta = to.deltas + to.batch * layer.units
    row_tiles = blocks(n, TILE_ROWS)
    for number in range(share(row_tiles, rank, n_threads), share(row_tiles, rank + 1, n_threads)):
        row = number * TILE_ROWS
        m = min(n, row + TILE_ROWS)
        forward_output(layer, params, ws, from_, from_stride, at, row, m)
        for i in range(row, m):
            ws[to.costs + i] = <real>finish_row(
                layer, objective, ws, at + i * layer.stride, to.targets + i * to.target_stride,
                slopes + i * layer.stride, delta + i * layer.stride, ws[to.shares + i],
            )
    barrier_wait(team, n_threads)
    for i in range(n):  # every thread, in the same order: all see the same sum
        cost += ws[to.costs + i] * (
            1 if weights is None else weights[row_number(rows, first + i)]
        )
    if not isfinite(cost):
        return cost

    for number in range(last, -1, -1):
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
                n, before.activation, from_, slopes, rank, n_threads,
            )
        backward_weights(
            layer, objective, o, step, params, state, grads, ws, from_, from_stride, delta, n,
            scratch, fused, adds, penalises, rank, n_threads,
        )
        barrier_wait(team, n_threads)
    return cost


cdef double whole_gradient(
    const int64_t[:, ::1] plan, real[::1] params, real[:, ::1] state, Rows X, Rows targets,
    const double[::1] weights, const int64_t[::1] rows, Py_ssize_t first, Py_ssize_t n,
    Objective objective, Optimizer o, Step step, Noise noise, const double[::1] dropout,
    real[::1] grads, real[::1] ws, Layout to, double weight, Py_ssize_t rank,
    Py_ssize_t n_threads, int64_t *team,
) noexcept nogil:
    """The gradient of a batch of any size to `grads`, in passes; returns the rows' summed cost."""
    cdef Py_ssize_t block, done, m
    cdef double cost = 0
    for block in range(blocks(n, to.batch)):
        done = block * to.batch
        m = min(to.batch, n - done)
        cost += run_batch(
            plan, params, state, X, targets, weights, rows, first + done, m, objective, o, step,
            noise, dropout, grads, ws, to, False, done > 0, done + m == n, done, weight, rank,
            n_threads, team,
        )
        if not isfinite(cost):
            break
    return cost
