# The steps of nets side by side: see lanes.pxi ------------------------------------------------------

cdef Cursor place_of(const Lane *lane, const double *setting) noexcept nogil:
    """Find a net's next batch; `setting`: see ``seam.LANE_SETTINGS``."""
    cdef Cursor at
    cdef Py_ssize_t per_epoch, in_epoch
    memset(&at, 0, sizeof(Cursor))
    if lane.taken < lane.steps:
        per_epoch = blocks(lane.n, lane.batch)
        in_epoch = lane.taken % per_epoch * lane.batch
        at.loss = lane.losses + lane.taken // per_epoch
        at.row = lane.rows + lane.taken // per_epoch * lane.n + in_epoch
        at.left = lane.n - in_epoch
        at.size = min(lane.batch, at.left)
        at.power_1 = setting[1] ** <double>(lane.number + lane.taken)
        at.power_2 = setting[2] ** <double>(lane.number + lane.taken)
    return at


cdef inline void advance(Lane *lane, Cursor *at) noexcept nogil:
    lane.taken += 1
    at.row += at.size
    at.left -= at.size
    if at.left == 0:
        at.left = lane.n
        at.loss += 1
    at.size = min(lane.batch, at.left) if lane.taken < lane.steps else 0


cdef inline void share_lane_penalties(
    const Lanes *run, const Cursor *at, Py_ssize_t l, float[::1] ws
) noexcept nogil:
    """Write the penalties of a net's step, those per batch divided by its weight."""
    cdef const double *settings = run.numbers + run.lanes[l].settings
    cdef double part = 1
    if settings[8] != 0:
        part = 1 / at.weight if at.weight > 0 else 0
    ws[run.rules + LANE_L1 * vector_lanes(4) + l] = <float>(settings[4] * part)
    ws[run.rules + LANE_L2 * vector_lanes(4) + l] = <float>(settings[5] * part)


cdef void weigh_lanes(const Lanes *run, Cursor *cursors, float[::1] ws) noexcept nogil:
    """Find the weight of each net's next batch, and its share of the penalties."""
    cdef Py_ssize_t i, l
    cdef Cursor *at
    for l in range(vector_lanes(4)):
        at = &cursors[l]
        at.weight, at.cost = at.size, 0
        if run.weights is not NULL:
            at.weight = 0
            for i in range(at.size):
                at.weight += run.weights[run.rows[at.row + i]]
        share_lane_penalties(run, at, l, ws)


cdef void gather_lanes(
    const Lanes *run, const Cursor *cursors, Py_ssize_t first, Py_ssize_t n, float[::1] ws
) noexcept nogil:
    """Copy n of each net's rows, targets and shares; a net with fewer gets one without a share."""
    cdef Py_ssize_t i, l, row, lanes = vector_lanes(4)
    cdef Py_ssize_t n_in = run.layers[0].n_in, n_out = run.layers[run.n_layers - 1].n_out
    cdef const float *x[MAX_LANES]
    cdef const float *y[MAX_LANES]
    cdef double[MAX_LANES] part  # of a row of weight 1; one division, not one for each row
    cdef const Cursor *at
    cdef float share
    for l in range(lanes):
        part[l] = 1 / cursors[l].weight if cursors[l].weight > 0 else 0
    for i in range(n):
        for l in range(lanes):
            at, row, share = &cursors[l], 0, 0
            if first + i < at.size:
                row, share = run.rows[at.row + first + i], <float>part[l]
                if run.weights is not NULL and at.weight > 0:
                    share = <float>(run.weights[row] / at.weight)
            x[l], y[l] = run.X + row * n_in, run.Y + row * n_out
            ws[run.shares + i * lanes + l] = share
        lane_gather_f32(x, n_in, &ws[run.inputs + i * n_in * lanes])
        lane_gather_f32(y, n_out, &ws[run.targets + i * n_out * lanes])


cdef bint lanes_forward(
    const Lanes *run, Cursor *cursors, Py_ssize_t first, Py_ssize_t n, float[::1] ws
) noexcept nogil:
    """Propagate and score; leaves the output layer's delta, returns whether all costs are finite."""
    cdef Py_ssize_t number, i, l, row, lanes = vector_lanes(4), at = 0, w = 0
    cdef Py_ssize_t from_ = run.inputs, done = 0
    cdef const Layer *layer = run.layers
    cdef double[MAX_LANES] penalties
    cdef double scale
    cdef bint finite = True
    memset(penalties, 0, sizeof(penalties))
    for number in range(run.n_layers):
        layer = &run.layers[number]
        at = run.rows_of_pass * done * lanes
        lane_product_f32(
            n, layer.n_out, layer.n_in, &ws[from_], layer.n_in * lanes, lanes, &ws[w],
            layer.n_out * lanes, lanes, &ws[w + layer.n_in * layer.n_out * lanes], 0,
            &ws[run.activations + at], layer.n_out * lanes,
        )
        if run.penalised and first == 0:
            lane_penalty_f32(layer.n_in * layer.n_out, &ws[w], &ws[run.rules], penalties)
        if number < run.n_layers - 1:
            activate_part(
                layer.activation, layer.parameter, ws, run.activations + at, run.slopes + at,
                n * layer.n_out * lanes,
            )
        from_ = run.activations + at
        done += layer.n_out
        w += (layer.n_in + 1) * layer.n_out * lanes
    lane_costs_f32(
        run.loss, n, layer.n_out, &ws[from_], &ws[run.targets], &ws[run.shares],
        &ws[run.deltas + at], &ws[run.costs],
    )
    for l in range(lanes):
        scale = run.numbers[run.lanes[l].settings + 7]
        if cursors[l].size:
            cursors[l].cost += penalties[l] * cursors[l].weight
        for i in range(min(n, cursors[l].size - first)):
            row = cursors[l].row + first + i
            cursors[l].cost += scale * ws[run.costs + i * lanes + l] * (
                1 if run.weights is NULL else run.weights[run.rows[row]]
            )
        finite = finite and isfinite(cursors[l].cost)
    return finite


cdef void lanes_backward(
    const Lanes *run, Py_ssize_t first, Py_ssize_t n, float[::1] ws
) noexcept nogil:
    """Propagate delta backward; some rows of weights move once the delta before them is known.

    In a batch of several passes nothing moves: the gradient is written, or added to.
    """
    cdef Py_ssize_t number, block, k, m, lanes = vector_lanes(4), width, before, here, from_
    cdef Py_ssize_t w = run.n_params * lanes, done = run.units, grads = run.grads
    cdef bint moves = run.batch == run.rows_of_pass
    cdef const Layer *layer
    for number in range(run.n_layers - 1, -1, -1):
        layer = &run.layers[number]
        width = layer.n_out * lanes
        done -= layer.n_out
        w -= (layer.n_in + 1) * width
        here, from_ = run.deltas + run.rows_of_pass * done * lanes, run.inputs
        before = run.rows_of_pass * (done - layer.n_in) * lanes
        if number:
            from_ = run.activations + before
        # From the last rows on: the next step begins with the first, which are then still in L1.
        for block in range(blocks(layer.n_in, LANE_BLOCK) - 1, -1, -1):
            k = block * LANE_BLOCK
            m = min(<Py_ssize_t>LANE_BLOCK, layer.n_in - k)
            if number:
                lane_product_f32(
                    n, m, layer.n_out, &ws[here], width, lanes, &ws[w + k * width], lanes, width,
                    NULL, 0, &ws[run.deltas + before + k * lanes], layer.n_in * lanes,
                )
            learn_rows(run, layer, first, n, k, m, from_, here, w, ws)
        if number:
            times_lane_slopes(&run.layers[number - 1], ws, run, before, n * layer.n_in * lanes)
        if not moves:
            grads = run.grads + w + layer.n_in * width
        lane_product_f32(
            1, layer.n_out, n, &ws[run.ones], 0, 0, &ws[here], width, lanes,
            &ws[grads] if first else NULL, 0, &ws[grads], width,
        )
        if moves:
            move_lanes(run, False, layer.n_out, run.ones, grads, w + layer.n_in * width, ws)


cdef inline void learn_rows(
    const Lanes *run, const Layer *layer, Py_ssize_t first, Py_ssize_t n, Py_ssize_t k,
    Py_ssize_t m, Py_ssize_t from_, Py_ssize_t here, Py_ssize_t w, float[::1] ws,
) noexcept nogil:
    """Move m rows of a layer's weights, k and the following, or find their gradient."""
    cdef Py_ssize_t lanes = vector_lanes(4), width = layer.n_out * lanes, j, grads = run.grads
    if run.batch == 1:  # the gradient is a product of two vectors: it is not written
        for j in range(k, k + m):
            move_lanes(
                run, run.penalised, layer.n_out, from_ + j * lanes, here, w + j * width, ws,
            )
        return
    if run.batch > run.rows_of_pass:
        grads += w + k * width
    lane_product_f32(
        m, layer.n_out, n, &ws[from_ + k * lanes], lanes, layer.n_in * lanes, &ws[here], width,
        lanes, &ws[grads] if first else NULL, width, &ws[grads], width,
    )
    if run.batch == run.rows_of_pass:
        move_lanes(run, run.penalised, m * layer.n_out, run.ones, grads, w + k * width, ws)


cdef void move_all_lanes(const Lanes *run, float[::1] ws) noexcept nogil:
    """Move all parameters against the gradient that several passes have added up."""
    cdef Py_ssize_t number, w = 0, lanes = vector_lanes(4), n
    cdef const Layer *layer
    for number in range(run.n_layers):
        layer = &run.layers[number]
        n = layer.n_in * layer.n_out
        move_lanes(run, run.penalised, n, run.ones, run.grads + w, w, ws)
        w += n * lanes
        move_lanes(run, False, layer.n_out, run.ones, run.grads + w, w, ws)
        w += layer.n_out * lanes


cdef inline void times_lane_slopes(
    const Layer *layer, float[::1] ws, const Lanes *run, Py_ssize_t at, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t j, delta = run.deltas + at, slope = run.slopes + at
    if slope_from_output(layer.activation):
        times_slope_of_output(
            layer.activation, layer.parameter, ws, delta, run.activations + at, n
        )
    else:
        for j in range(n):
            ws[delta + j] *= ws[slope + j]


cdef inline void move_lanes(
    const Lanes *run, bint penalised, Py_ssize_t n, Py_ssize_t factor, Py_ssize_t grads,
    Py_ssize_t at, float[::1] ws,
) noexcept nogil:
    cdef Py_ssize_t moments = run.state + at, second = run.n_params * vector_lanes(4)
    lane_update_f32(
        run.rule, penalised, n, &ws[factor], &ws[grads], &ws[at], &ws[moments],
        &ws[moments + second] if run.rule == LANE_ADAM else NULL, &ws[run.rules],
    )


cdef void read_rules(const Lanes *run, float[::1] ws) noexcept nogil:
    """Write what does not change from step to step."""
    cdef Py_ssize_t l, lanes = vector_lanes(4)
    cdef float *rules = &ws[run.rules]
    cdef const double *settings
    for l in range(lanes):
        settings = run.numbers + run.lanes[l].settings
        rules[LANE_MOMENTUM * lanes + l] = <float>settings[0]
        rules[LANE_REST_1 * lanes + l] = <float>(1 - settings[1])
        rules[LANE_REST_2 * lanes + l] = <float>(1 - settings[2])
        rules[LANE_EPSILON * lanes + l] = <float>settings[3]
        rules[LANE_RULES * lanes + l] = 1  # the ones that follow


cdef void plan_lanes(const Lanes *run, Cursor *cursors, float[::1] ws) noexcept nogil:
    """Write the rates of a step, as :func:`plan_step`."""
    cdef Py_ssize_t l, lanes = vector_lanes(4)
    cdef double rate
    cdef const double *settings
    for l in range(lanes):
        rate, settings = 0, run.numbers + run.lanes[l].settings
        if cursors[l].size:
            rate = run.numbers[run.lanes[l].rates + run.lanes[l].taken]
        ws[run.rules + LANE_KEEP * lanes + l] = <float>(1 - rate * settings[6])
        if run.rule == LANE_ADAM and cursors[l].size:
            cursors[l].power_1 *= settings[1]
            cursors[l].power_2 *= settings[2]
            rate *= sqrt(1 - cursors[l].power_2) / (1 - cursors[l].power_1)
        ws[run.rules + LANE_RATE * lanes + l] = <float>rate


cdef Py_ssize_t take_lane_steps(Lanes *run, float[::1] ws, Py_ssize_t most) noexcept nogil:
    """Take steps until a net has taken its last one, or one fails; return how many were taken."""
    cdef Cursor[MAX_LANES] cursors
    cdef Py_ssize_t l, n, m, number, block, first, lanes = vector_lanes(4)
    cdef bint ended = False
    for l in range(lanes):
        cursors[l] = place_of(&run.lanes[l], run.numbers + run.lanes[l].settings)
    read_rules(run, ws)
    for number in range(most):
        n = 0
        for l in range(lanes):
            n = max(n, cursors[l].size)
        if n == 0 or ended:
            return number
        weigh_lanes(run, cursors, ws)
        plan_lanes(run, cursors, ws)
        for block in range(blocks(n, run.rows_of_pass)):
            first = block * run.rows_of_pass
            m = min(run.rows_of_pass, n - first)
            gather_lanes(run, cursors, first, m, ws)
            if not lanes_forward(run, cursors, first, m, ws):
                for l in range(lanes):
                    run.lanes[l].failed = not isfinite(cursors[l].cost)
                return number
            lanes_backward(run, first, m, ws)
        if run.batch > run.rows_of_pass:
            move_all_lanes(run, ws)
        for l in range(lanes):
            if cursors[l].size:
                run.numbers[cursors[l].loss] += cursors[l].cost
                advance(&run.lanes[l], &cursors[l])
                ended = ended or run.lanes[l].taken == run.lanes[l].steps
    return most
