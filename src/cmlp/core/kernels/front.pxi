# The front: what happens to X's columns before the first layer ------------------------------------------
# X's rows are gathered to `raw`; `values` is what becomes of them, `inputs` the same times the factors;
# summed tables go to the place of the first layer's sums, whose product is added to them. The gradients
# of these arrays have a place in `grads` also where the optimizer is fused: every row of a table moves.

cdef Front front_of(const int64_t[:, ::1] plan) noexcept nogil:
    """Describe the rows after the layers; checked by :func:`check_front`."""
    cdef Front front
    cdef Py_ssize_t number, n_layers = layers_in(plan)
    cdef const Part *part
    memset(&front, 0, sizeof(Front))
    front.n_columns = layers_of(plan).n_in
    if n_layers == plan.shape[0]:
        return front
    front.parts, front.n_parts = <const Part *>&plan[n_layers, 0], plan.shape[0] - n_layers
    front.n_columns = 0
    for number in range(front.n_parts):
        part = &front.parts[number]
        front.n_columns += part.count
        front.sums |= part.kind == SUMMED
        front.embeds |= part.kind == FACTORS or part.kind == LEVELS or part.kind == PERIODIC
        front.empty |= part.kind != SUMMED
        if part.kind == FACTORS:
            front.factors = part
        if part.kind == PERIODIC:
            front.wave_stride += 2 * part.count * part.stride
        front.n_sums += blocks(part.end - part.at, MEASURED)
    front.empty = not front.empty
    return front


cdef void lay_out_front(Layout *to, const Front *front, Py_ssize_t lanes) noexcept nogil:
    """Add what the front needs to a workspace."""
    to.raw, to.raw_stride, to.values = to.inputs, to.input_stride, to.inputs
    if front.n_parts == 0:
        return
    to.raw, to.raw_stride = to.size, padded(front.n_columns, lanes)
    to.size += to.batch * to.raw_stride
    if front.factors is not NULL:
        to.values = to.size
        to.size += to.batch * to.input_stride
    to.input_deltas = to.size
    to.waves = to.input_deltas + to.batch * to.input_stride
    to.wave_stride = front.wave_stride
    to.size = to.waves + to.batch * to.wave_stride


# Forward -----------------------------------------------------------------------------------------------

cdef void expand_row(
    const Run *run, const real[::1] params, real[::1] ws, const real *x, Py_ssize_t i, bint keeps
) noexcept nogil:
    """Turn a row of X into the inputs and the sums of the first layer, row i of the workspace.

    If it `keeps` the waves, backpropagation finds those of this row.
    """
    cdef const Layout *to = &run.to
    cdef const Layer *layer = &run.layers[0]
    cdef Py_ssize_t number, j, at, values = to.values + i * to.input_stride
    cdef Py_ssize_t inputs = to.inputs + i * to.input_stride, block
    cdef Py_ssize_t sums = to.activations + i * layer.stride
    cdef Py_ssize_t waves = to.waves + (i * to.wave_stride if keeps else 0)
    cdef const Part *part
    if run.front.sums:
        for j in range(layer.stride):
            ws[sums + j] = 0 if layer.normalization else params[layer.bias + j]
    if run.front.empty:
        ws[inputs] = 0
    for number in range(run.front.n_parts):
        part = &run.front.parts[number]
        at = values + part.to
        if part.kind == PLAIN:
            for j in range(part.count):
                ws[at + j] = x[part.first + j]
        elif part.kind == LEVELS:
            for j in range(part.width):
                ws[at + j] = 0
            embed(part, params, x[part.first], ws, at, part.width)
        elif part.kind == SUMMED:
            embed(part, params, x[part.first], ws, sums, part.stride)
        elif part.kind == PERIODIC:
            block = part.at
            for j in range(part.count):
                embed_periodic(part, params, block, x[part.first + j], ws, waves, at)
                block += block_of(part, sizeof(real))
                at += part.width + 1
                if keeps:
                    waves += 2 * part.stride
        else:
            for j in range(part.width):
                ws[inputs + j] = ws[values + j] * params[part.at + j]


cdef const real *expand_rows(
    const Run *run, const real[::1] params, real[::1] ws, const real *x, Py_ssize_t *stride,
    Py_ssize_t n,
) noexcept nogil:
    """Do that for n rows of a prediction, and return where the first layer's inputs are."""
    cdef Py_ssize_t i
    if run.front.n_parts == 0:
        return x
    for i in range(n):
        expand_row(run, params, ws, x + i * stride[0], i, False)
    stride[0] = run.to.input_stride
    return &ws[run.to.inputs]


cdef void add_noise(
    const Run *run, real[::1] ws, Py_ssize_t at, uint32_t counter, uint64_t key
) noexcept nogil:
    """Add noise to a row of X, but to numbers of rows of tables."""
    cdef Py_ssize_t number
    cdef const Part *part
    if run.front.n_parts == 0:
        add_input_noise(ws, at, run.X.width, counter, key, run.noise.input_noise)
    for number in range(run.front.n_parts):
        part = &run.front.parts[number]
        if part.kind == PLAIN or part.kind == PERIODIC:
            add_input_noise(
                ws, at + part.first, part.count, counter + <uint32_t>part.first, key,
                run.noise.input_noise,
            )


# Backward ----------------------------------------------------------------------------------------------

cdef void front_slopes(
    const Run *run, const real[::1] params, real[::1] ws, Py_ssize_t n
) noexcept nogil:
    """dC/dy = delta W^T of the first layer, this thread's tiles."""
    cdef Py_ssize_t at = run.to.input_deltas
    backward_inputs(
        run, &run.layers[0], params, ws, run.to.deltas, at, run.to.input_stride, n, IDENTITY, 0, at,
        -1,
    )


cdef void scale_slopes(
    const Run *run, const Step *step, real[::1] params, real[:, ::1] state, real[::1] grads,
    real[::1] ws, Py_ssize_t n, bint adds,
) noexcept nogil:
    """Of y = s h: ds = sum dC/dy h, and dC/dh = dC/dy s in its place; this thread's inputs."""
    cdef const Part *part = run.front.factors
    cdef Py_ssize_t lanes = ALIGNMENT // sizeof(real), stride = run.to.input_stride
    cdef Py_ssize_t first = share(stride // lanes, run.rank, run.n_threads) * lanes
    cdef Py_ssize_t last = share(stride // lanes, run.rank + 1, run.n_threads) * lanes
    cdef Py_ssize_t i, j, h, dy, end = min(last, <Py_ssize_t>part.width)
    if first == last:
        return
    if not adds:
        for j in range(part.at + first, part.at + last):
            grads[j] = 0
    for i in range(n):
        h, dy = run.to.values + i * stride, run.to.input_deltas + i * stride
        for j in range(first, end):
            grads[part.at + j] += ws[dy + j] * ws[h + j]
            ws[dy + j] *= params[part.at + j]
    if run.fused:
        update_part(run, step, params, state, grads, part, part.at + first, 1, last - first)


cdef inline void update_part(
    const Run *run, const Step *step, real[::1] params, real[:, ::1] state,
    const real[::1] grads, const Part *part, Py_ssize_t at, Py_ssize_t m, Py_ssize_t n,
) noexcept nogil:
    """Move m rows of n parameters of a part, which lie `stride` numbers apart."""
    cdef Step own
    cdef bint is_table = part.kind == LEVELS or part.kind == SUMMED
    cdef Py_ssize_t group = PERIODIC_GROUP
    if part.kind == FACTORS:
        group = INPUT_GROUP
    elif is_table:
        group = EMBEDDING_GROUP
    update_rows(
        &run.optimizer,
        step_of(&run.optimizer, step, run.n_layers * LAYER_GROUPS + group, &own), params, state,
        at, part.stride, grads, at, part.stride, m, n, is_table,
    )


cdef void update_sums(
    const Run *run, const Step *step, real[::1] params, real[:, ::1] state, real[::1] grads,
    const Part *part, Py_ssize_t first, Py_ssize_t columns,
) noexcept nogil:
    """Move some columns of a summed table; of a cumulative one, the steps from row to row.

    A row is the sum of the steps up to it, so the gradient of a step is the sum of those of all
    rows from it on. Row 0 stays.
    """
    cdef Py_ssize_t at, stride = part.stride, i, block, n
    if not part.cumulative:
        update_part(
            run, step, params, state, grads, part, part.at + first, part.rows, columns
        )
        return
    for block in range(blocks(columns, STEPS_BLOCK)):  # each stays in the L1 cache
        at = part.at + first + block * STEPS_BLOCK
        n = min(<Py_ssize_t>STEPS_BLOCK, columns - block * STEPS_BLOCK)
        for i in range(part.rows - 1, 0, -1):
            if i + 1 < part.rows:
                add_row(&grads[at + i * stride], &grads[at + (i + 1) * stride], <real>1, n)
            add_row(&params[at + i * stride], &params[at + (i - 1) * stride], <real>-1, n)
        update_part(run, step, params, state, grads, part, at + stride, part.rows - 1, n)
        for i in range(1, part.rows):
            add_row(&params[at + i * stride], &params[at + (i - 1) * stride], <real>1, n)


cdef void backward_front(
    const Run *run, const Step *step, real[::1] params, real[:, ::1] state, real[::1] grads,
    real[::1] ws, Py_ssize_t n, bint adds,
) noexcept nogil:
    """Write the gradients of the front, added if it `adds`; fused, update its arrays.

    Threads divide the columns of summed tables; of other tables and of periodic columns, one is one
    thread's. Every number is a chain of sums in the order of the rows.
    """
    cdef const Layer *layer = &run.layers[0]
    cdef Py_ssize_t lanes = ALIGNMENT // sizeof(real), lines = layer.stride // lanes
    cdef Py_ssize_t first = share(lines, run.rank, run.n_threads) * lanes
    cdef Py_ssize_t columns = share(lines, run.rank + 1, run.n_threads) * lanes - first
    cdef Py_ssize_t number, j, turn = 0, waves = run.to.waves, slopes, block
    cdef const Part *part
    if run.front.factors is not NULL:
        scale_slopes(run, step, params, state, grads, ws, n, adds)
        barrier(run)
    for number in range(run.front.n_parts):
        part = &run.front.parts[number]
        slopes = run.to.input_deltas + part.to
        if part.kind == SUMMED and columns > 0:
            table_gradient(
                run, part, ws, run.to.deltas + first, layer.stride, n, grads, first, columns, adds
            )
            if run.fused:
                update_sums(run, step, params, state, grads, part, first, columns)
        elif part.kind == LEVELS:
            if turn % run.n_threads == run.rank:
                table_gradient(
                    run, part, ws, slopes, run.to.input_stride, n, grads, 0, part.width, adds
                )
                if run.fused:
                    update_part(
                        run, step, params, state, grads, part, part.at, part.rows, part.stride
                    )
            turn += 1
        elif part.kind == PERIODIC:
            block = part.at
            for j in range(part.count):
                if turn % run.n_threads == run.rank:
                    periodic_gradient(
                        run, part, params, block, ws, run.to.raw + part.first + j, waves, slopes, n,
                        grads, adds,
                    )
                    if run.fused:
                        update_part(
                            run, step, params, state, grads, part, block, 1,
                            block_of(part, sizeof(real)),
                        )
                turn += 1
                block += block_of(part, sizeof(real))
                waves += 2 * part.stride
                slopes += part.width + 1


cdef void front_gradient_of_x(
    const Run *run, const real[::1] params, real[::1] ws, Py_ssize_t n, real[:, ::1] dX,
    Py_ssize_t row,
) noexcept nogil:
    """dC/dX by way of the front, times X's scale; after :func:`backward_front`, one thread."""
    cdef real scale = <real>run.X.scale
    cdef Py_ssize_t number, i, j, x, waves, slopes, block
    cdef const Part *part
    if not run.front.embeds:
        front_slopes(run, params, ws, n)
    for i in range(n):
        waves = run.to.waves + i * run.to.wave_stride
        for number in range(run.front.n_parts):
            part = &run.front.parts[number]
            slopes = run.to.input_deltas + i * run.to.input_stride + part.to
            x = run.to.raw + i * run.to.raw_stride + part.first
            block = part.at
            for j in range(part.count):
                if part.kind == PLAIN:
                    dX[row + i, part.first + j] = ws[slopes + j] * scale
                elif part.kind == PERIODIC:
                    dX[row + i, part.first + j] = scale * periodic_slope(
                        part, params, block, ws, waves, slopes
                    )
                    block += block_of(part, sizeof(real))
                    waves += 2 * part.stride
                    slopes += part.width + 1
                elif part.kind == LEVELS:
                    dX[row + i, part.first] = table_slope(
                        part, params, ws[x], ws, slopes, part.width
                    )
                elif part.kind == SUMMED:
                    dX[row + i, part.first] = table_slope(
                        part, params, ws[x], ws, run.to.deltas + i * run.layers[0].stride,
                        part.width,
                    )


# Updates from a whole gradient ---------------------------------------------------------------------------

cdef void measure_front(
    const Run *run, const real[::1] values, Py_ssize_t to, real[::1] ws
) noexcept nogil:
    """Measure the squares of the front's arrays, this thread's share of their pieces."""
    cdef Py_ssize_t number, piece, n, at
    cdef const Part *part
    for number in range(run.front.n_parts):
        part = &run.front.parts[number]
        n = blocks(part.end - part.at, MEASURED)
        for piece in range(share(n, run.rank, run.n_threads), share(n, run.rank + 1, run.n_threads)):
            at = part.at + piece * MEASURED
            ws[to + piece] = <real>size_of(
                &values[at], min(<Py_ssize_t>MEASURED, part.end - at), 0, 1
            )
        to += n


cdef void update_front(
    const Run *run, const Step *step, real[::1] params, real[:, ::1] state, real[::1] grads
) noexcept nogil:
    """Update from a whole gradient; every thread takes some of every array."""
    cdef Py_ssize_t lanes = ALIGNMENT // sizeof(real), number, lines, first, last
    cdef const Part *part
    for number in range(run.front.n_parts):
        part = &run.front.parts[number]
        if part.cumulative:
            lines = part.stride // lanes
            first = share(lines, run.rank, run.n_threads) * lanes
            last = share(lines, run.rank + 1, run.n_threads) * lanes
            if first < last:
                update_sums(run, step, params, state, grads, part, first, last - first)
            continue
        lines = (part.end - part.at) // lanes
        first = share(lines, run.rank, run.n_threads) * lanes
        last = share(lines, run.rank + 1, run.n_threads) * lanes
        if first < last:
            update_part(run, step, params, state, grads, part, part.at + first, 1, last - first)
