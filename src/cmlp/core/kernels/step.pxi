# One step ------------------------------------------------------------------------------------------

cdef inline int barrier(const Run *run) noexcept nogil:
    """Wait until all threads have finished a phase; 0 if one of them failed to start."""
    return run.n_threads == 1 or barrier_wait(run.team, run.n_threads)


cdef inline bint barrier_or_stop(const Run *run) noexcept nogil:
    """Wait for the other threads; True, for all of them alike, if the caller stops the step."""
    if run.team is not NULL and run.rank == 0:
        relay_stop(run.team)
    barrier(run)
    return stops(run)


cdef inline bint stops(const Run *run) noexcept nogil:
    """Whether the step ends at the last barrier."""
    return run.team is not NULL and stop_relayed(run.team, run.n_threads)


cdef inline double products_of(const Run *run) noexcept nogil:
    """Multiply-adds of one product with every layer's weights, for one row."""
    cdef double total = 0
    cdef Py_ssize_t number
    for number in range(run.n_layers):
        total += <double>run.layers[number].n_in * <double>run.layers[number].n_out
    return total


cdef double total_weight(const Run *run, Py_ssize_t first, Py_ssize_t n) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    if run.weights is NULL:
        return <double>n
    for i in range(first, first + n):
        total += run.weights[row_number(run, i)]
    return total


cdef void gather(
    const Run *run, const Pass *now, Py_ssize_t step, const real[::1] params, real[::1] ws
) noexcept nogil:
    """Copy rows, their targets and their shares of the gradient to the workspace."""
    cdef const Layout *to = &run.to
    cdef uint64_t key = key_of(run.noise.seed, step, 0)
    cdef Py_ssize_t i, row, at, n_out = run.layers[run.n_layers - 1].n_out
    cdef double part
    for i in range(
        share(now.n, run.rank, run.n_threads), share(now.n, run.rank + 1, run.n_threads)
    ):
        row = row_number(run, now.first + i)
        at = to.raw + i * to.raw_stride
        prefetch_target(run, now.first + i + PREFETCH_ROWS)
        gather_row(&run.X, row, ws, at)
        if run.noise.input_noise > 0:
            add_noise(run, ws, at, <uint32_t>((now.done + i) * run.X.width), key)
        if run.front.n_parts:
            expand_row(run, params, ws, &ws[at], i, True)
        gather_target(
            &run.targets, row, ws, to.targets + i * to.target_stride, n_out, to.target_stride,
            &run.objective,
        )
        part = 1 if run.weights is NULL else run.weights[row]
        if run.objective.loss != EXTERNAL:  # an external dC/da is of the whole batch already
            part = part / now.weight if now.weight > 0 else 0
        ws[to.shares + i] = <real>part


cdef inline double dropout_of(const Run *run, Py_ssize_t number) noexcept nogil:
    return run.noise.dropout[number] * run.noise.now if number < run.noise.n_rates else 0.0


cdef double forward_pass(
    const Run *run, const Pass *now, Py_ssize_t step, const real[::1] params, real[::1] ws
) noexcept nogil:
    """Gather, propagate and score the rows of one pass.

    Leaves activations, slopes, costs and the output layer's delta in the workspace, and returns the
    rows' cost, summed by their weights; NaN where the caller stops the step.
    """
    cdef Py_ssize_t number, i, at, last = run.n_layers - 1, code
    cdef Py_ssize_t from_ = run.to.inputs, from_stride = run.to.input_stride
    cdef double cost = 0
    cdef Grid grid
    cdef Drop drop
    cdef const Layer *layer
    cdef const Layer *product
    cdef Layer plain
    gather(run, now, step, params, ws)
    if barrier_or_stop(run):
        return NAN
    for number in range(last + 1):
        layer = &run.layers[number]
        at = run.to.batch * layer.units
        code = layer.activation if number < last else IDENTITY
        drop = Drop(dropout_of(run, number), key_of(run.noise.seed, step, number + 1), now.done)
        if layer.normalization:
            plain = product_of(run, number)
            forward_layer(
                run, &plain, params, ws, from_, from_stride, run.to.activations + at, now.n,
                IDENTITY, -1, NULL,
            )
            barrier(run)
            normalise_forward(run, number, params, ws, now.n, &drop)
        else:
            product = layer
            if number == 0 and run.front.sums:
                plain = product_of(run, number)
                product = &plain
            forward_layer(
                run, product, params, ws, from_, from_stride, run.to.activations + at, now.n, code,
                run.to.slopes + at, &drop,
            )
        if number < last and barrier_or_stop(run):
            return NAN
        from_, from_stride = run.to.activations + at, layer.stride
    grid = grid_of(now.n, run.layers[last].stride, sizeof(real), run, STRIP_VECTORS)
    if grid.column_tiles > 1:  # else each thread finishes the rows that it has computed
        barrier(run)
    at = share(grid.row_tiles, run.rank, run.n_threads) * grid.m
    i = min(now.n, share(grid.row_tiles, run.rank + 1, run.n_threads) * grid.m)
    if at < i:
        output_layer_costs(run, ws, at, i)
    barrier(run)
    for i in range(now.n):  # every thread, in the same order: all see the same sum
        cost += ws[run.to.costs + i] * (
            1 if run.weights is NULL else run.weights[row_number(run, now.first + i)]
        )
    return cost


cdef void backward_layer(
    const Run *run, Py_ssize_t number, const real[::1] params, real[::1] ws, Py_ssize_t n
) noexcept nogil:
    """Compute the delta of the layer before from that of a layer."""
    cdef const Layout *to = &run.to
    cdef const Layer *layer = &run.layers[number]
    cdef const Layer *before = &run.layers[number - 1]
    cdef Py_ssize_t at = to.batch * before.units, slopes = -1, code = before.activation
    if before.alpha:
        code = IDENTITY  # dC/da stays; see :func:`parametric_backward`
    elif not slope_from_output(before.activation) or dropout_of(run, number - 1) > 0:
        slopes = to.slopes + at
    backward_inputs(
        run, layer, params, ws, to.deltas + to.batch * layer.units, to.deltas + at, before.stride,
        n, code, before.parameter, to.activations + at, slopes,
    )


cdef bint backward_pass(
    const Run *run, const Step *step, real[::1] params, real[:, ::1] state, real[::1] grads,
    real[::1] ws, const Pass *now, bint adds, bint last_pass,
) noexcept nogil:
    """Propagate the output layer's delta backward: fused with the update, or into `grads`.

    W is updated only after the barrier that follows the last read of its old value. Returns False
    where the caller stops the step, which it can do as long as no parameter has been updated.
    """
    cdef const Layout *to = &run.to
    cdef Py_ssize_t number, from_, from_stride, last = run.n_layers - 1, n = now.n
    cdef Py_ssize_t end = now.first + n
    cdef const Layer *layer
    cdef Pass next_rows = Pass(0, end, 0, 0)
    if last > 0:
        backward_layer(run, last, params, ws, n)
    for number in range(last, -1, -1):
        layer = &run.layers[number]
        if run.fused:
            barrier(run)
        elif barrier_or_stop(run):
            return False
        if number and run.layers[number - 1].alpha:
            parametric_backward(run, number - 1, ws, n)  # the columns that the next call reads
        if number and run.layers[number - 1].normalization:
            normalise_backward(run, number - 1, params, ws, n)
        if number and (run.layers[number - 1].alpha or run.layers[number - 1].normalization):
            barrier(run)
        from_, from_stride = to.inputs, to.input_stride
        if number:
            from_ = to.activations + to.batch * run.layers[number - 1].units
            from_stride = run.layers[number - 1].stride
        else:
            next_rows.n = min(n, run.n - end)
            if run.front.embeds:
                front_slopes(run, params, ws, n)
                barrier(run)
        backward_weights(
            run, layer, step, params, state, grads, ws, from_, from_stride,
            to.deltas + to.batch * layer.units, n, adds, last_pass,
            &next_rows,
        )
        if number == 0 and run.front.n_parts:
            backward_front(run, step, params, state, grads, ws, n, adds)
        if layer.normalization:
            update_normalization(run, layer, step, params, state, grads, ws, n, adds)
        if layer.alpha:
            update_alphas(run, layer, step, params, state, grads, ws, adds)
        if number > 1:
            backward_layer(run, number - 1, params, ws, n)
    barrier(run)
    return True


cdef inline bint takes_plain_rows(const Run *run) noexcept nogil:
    """Whether the steps of a call are those of :func:`train_row`."""
    cdef Py_ssize_t number
    for number in range(run.n_layers):
        if run.layers[number].stride > OUTER_SIZE or run.layers[number].normalization:
            return False
        if run.layers[number].alpha or run.layers[number].precision:
            return False
    return (
        run.to.batch == 1 and run.fused and run.front.n_parts == 0 and run.n_threads == 1
        and run.objective.l1 == 0 and run.objective.l2 == 0 and run.optimizer.ema == 0
        and run.noise.input_noise == 0 and run.noise.n_rates == 0
    )


cdef inline double train_row(
    const Run *run, const Step *step, real[::1] params, real[:, ::1] state, Py_ssize_t i,
    real[::1] ws,
) noexcept nogil:
    """Do what :func:`train_batch` does, for a single row on one thread, without noise or penalties.

    The same functions are called on that row, with nothing around them: in a small network, what
    other batches need takes as long as the products.
    """
    cdef const Layout *to = &run.to
    cdef const Layer *layer
    cdef Py_ssize_t number, row = row_number(run, i), last = run.n_layers - 1, from_ = to.inputs
    cdef double cost, weight = 1 if run.weights is NULL else run.weights[row]
    gather_row(&run.X, row, ws, to.inputs)
    gather_target(
        &run.targets, row, ws, to.targets, run.layers[last].n_out, to.target_stride, &run.objective
    )
    ws[to.shares] = 1 if weight > 0 else 0
    prefetch_row(run, i + 1)
    for number in range(last + 1):
        layer = &run.layers[number]
        forward_row(
            run, layer, params, ws, &ws[from_], to.activations + layer.units,
            layer.activation if number < last else IDENTITY, to.slopes + layer.units, NULL,
        )
        from_ = to.activations + layer.units
    output_layer_costs(run, ws, 0, 1)
    cost = run.objective.cost_scale * ws[to.costs] * weight
    if not isfinite(cost):
        return cost
    for number in range(last, -1, -1):
        layer = &run.layers[number]
        from_ = to.inputs
        if number:
            backward_layer(run, number, params, ws, 1)
            from_ = to.activations + run.layers[number - 1].units
        backward_row_weights(
            run, layer, step, params, state, ws, from_, to.deltas + layer.units, to.tiles
        )
    return cost


cdef double train_batch(
    const Run *run, const Step *step, real[::1] params, real[:, ::1] state, Py_ssize_t first,
    Py_ssize_t n, real[::1] grads, real[::1] ws,
) noexcept nogil:
    """Take one step on a batch of any size; return its loss times its weight.

    No step is taken if that is not finite: so it is, too, where the caller stops the step.
    """
    cdef Py_ssize_t block, done
    cdef bint penalised = run.objective.l1 != 0 or run.objective.l2 != 0
    cdef double cost = 0, norm = 0, weight = total_weight(run, first, n)
    cdef Pass now
    if penalised:  # the barriers of the forward half publish it
        measure(run, params, run.objective.l1, 0.5 * run.objective.l2, False, ws)
    for block in range(blocks(n, run.to.batch)):
        done = block * run.to.batch
        now = Pass(min(run.to.batch, n - done), first + done, done, weight)
        cost += run.objective.cost_scale * forward_pass(run, &now, step.number, params, ws)
        if block == 0 and penalised:
            cost += total_size(run, ws) * weight
        if not isfinite(cost):
            return cost
        if not backward_pass(
            run, step, params, state, grads, ws, &now, done > 0, done + now.n == n
        ):
            return NAN
    if not run.fused:
        if run.optimizer.clip_norm > 0:
            measure(run, grads, 0, 1, True, ws)
            barrier(run)
            norm = sqrt(total_size(run, ws))
        update_all(run, step[0], norm, params, state, grads)
        barrier(run)
    if run.optimizer.ema > 0:  # parameters change only after the next barrier
        average(run, step, params, state)
    return cost
