# Nets side by side: a net in each lane of a vector, float32 -----------------------------------------

cdef extern from "simd.h" nogil:
    const int LANE_RATE, LANE_MOMENTUM, LANE_REST_1, LANE_REST_2, LANE_EPSILON, LANE_L1, LANE_L2
    const int LANE_KEEP, LANE_RULES
    void lane_product_f32(
        Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const float *a, Py_ssize_t a_row,
        Py_ssize_t a_depth, const float *b, Py_ssize_t b_depth, Py_ssize_t b_column,
        const float *init, float *c, Py_ssize_t c_row)
    void lane_gather_f32(const float **from_, Py_ssize_t n, float *to)
    void lane_costs_f32(int loss, Py_ssize_t rows, Py_ssize_t n_out, float *z, const float *y,
                        const float *share, float *delta, float *cost)
    void lane_update_f32(int rule, bint penalised, Py_ssize_t n, const float *factor,
                         const float *grads, float *params, float *m, float *v,
                         const float *rules)
    void lane_penalty_f32(Py_ssize_t n, const float *params, const float *rules, double *sums)

cdef enum:
    MAX_LANES = 16
    LANE_BLOCK = 12  # rows of weights that move together: a multiple of a tile's rows and columns

cdef struct Lane:  # a net's place in a call: a row of `lanes`; see `seam.LANE`
    int64_t n, batch  # rows of an epoch, and of a step
    int64_t steps, taken  # of this call and those before it, from the same rows
    int64_t number  # steps before the first of them: of the optimizer
    int64_t rows, rates, losses  # where its own begin
    int64_t failed  # its loss was not finite; that step was not taken

cdef struct Cursor:  # where a net is in its rows, and the powers of beta
    Py_ssize_t size, row, left, loss  # of the next batch; rows left in the epoch
    double power_1, power_2, weight, cost

cdef struct Lanes:  # a call
    const Layer *layers
    Py_ssize_t n_layers, n, widest, units, n_params, batch
    Py_ssize_t rules, ones, shares, costs, inputs, targets, activations, slopes, deltas, grads, size
    const float *X
    const float *Y
    const double *weights
    const int64_t *rows
    int loss, rule
    bint penalised


cdef int lay_out_lanes(Lanes *run, const int64_t[:, ::1] plan, Py_ssize_t batch) except -1:
    """Lay out the workspace: every number has all lanes. Layers must be plain ones."""
    cdef Py_ssize_t number, lanes = vector_lanes(4)
    cdef const Layer *layer
    run.layers, run.n_layers, run.batch = layers_of(plan), layers_in(plan), batch
    layer = run.layers
    run.widest, run.units, run.n_params = 0, 0, 0
    for number in range(run.n_layers):
        layer = &run.layers[number]
        if layer.normalization or layer.alpha or run.n_layers != plan.shape[0]:
            raise ValueError("lanes take plain layers only")
        if number < run.n_layers - 1 and layer.activation == SOFTMAX:
            raise ValueError("softmax is for outputs")
        run.widest = max(run.widest, layer.n_out)
        run.units += layer.n_out
        run.n_params += layer.n_out * (layer.n_in + 1)
    run.rules = 0
    run.ones = run.rules + LANE_RULES * lanes
    run.shares = run.ones + lanes
    run.costs = run.shares + batch * lanes
    run.inputs = run.costs + batch * lanes
    run.targets = run.inputs + batch * run.layers[0].n_in * lanes
    run.activations = run.targets + batch * layer.n_out * lanes
    run.slopes = run.activations + batch * run.units * lanes
    run.deltas = run.slopes + batch * run.units * lanes
    run.grads = run.deltas + batch * run.units * lanes
    run.size = run.grads + LANE_BLOCK * run.widest * lanes
    return 0


cdef int check_lanes(
    const Lanes *run, const int64_t[:, ::1] lanes, const int64_t[::1] rows, Py_ssize_t n_rates,
    Py_ssize_t n_losses,
) except -1:
    """Raise unless each lane's rows, rates and losses lie inside the arrays, and its rows in X."""
    cdef Py_ssize_t l, epochs, n_rows = rows.shape[0]
    cdef const Lane *lane
    if lanes.shape[0] != vector_lanes(4) or lanes.shape[1] * sizeof(int64_t) != sizeof(Lane):
        raise ValueError(f"lanes must be ({vector_lanes(4)}, {sizeof(Lane) // 8})")
    for l in range(lanes.shape[0]):
        lane = <const Lane *>&lanes[l, 0]
        if lane.steps == 0:
            continue
        if lane.n < 1 or not 1 <= lane.batch <= run.batch or not 0 <= lane.taken <= lane.steps:
            raise ValueError(f"lane {l} has no valid rows, batch or steps")
        epochs = blocks(lane.steps, blocks(lane.n, lane.batch))
        if (
            not 0 <= lane.rows <= n_rows or lane.n > n_rows or lane.steps > n_rates
            or epochs > (n_rows - lane.rows) // lane.n
            or not 0 <= lane.rates <= n_rates - lane.steps
            or not 0 <= lane.losses <= n_losses - epochs or lane.number < 0
        ):
            raise ValueError(f"rows, rates or losses of lane {l} lie outside the arrays")
        check_rows(rows[lane.rows:lane.rows + epochs * lane.n], run.n)
    return 0


def train_lanes(
    const int64_t[:, ::1] plan, float[::1] params, float[::1] state, const float[::1] X,
    const float[::1] targets, const double[::1] weights, const int64_t[::1] rows,
    const double[::1] rates, double[::1] losses, int64_t[:, ::1] lanes,
    const double[:, ::1] settings, int loss, int rule, float[::1] workspace, Py_ssize_t most,
):
    """Train a net in each lane of a vector, one step per batch, until one of them is done.

    Parameters
    ----------
    params, state : flat
        Every net's parameters, without padding, and its moments: number i of the net in lane l is
        at ``i * n_lanes + l``.
    X, targets : flat
        The rows of all nets, (n, n_in) and (n, n_out), in order.
    rows, rates, losses : flat
        What `lanes` points into; the sum of each epoch, as of `train_epoch`, is added to `losses`.
    lanes : (n_lanes, 9) array
        See ``seam.LANE``; the steps taken are counted there. A lane without steps is idle.
    settings : (n_lanes, 7) array
        Momentum, beta_1, beta_2, epsilon, l1, l2 and weight decay.
    loss, rule : int
        See ``seam.LANE_LOSSES`` and ``seam.LANE_RULES``.
    most : int
        Steps of a call.

    Returns
    -------
    int
        Steps taken. Where a loss was not finite, none of that step was taken, in no lane, and the
        lane's column `failed` is 1.
    """
    cdef Lanes run
    cdef Py_ssize_t n_lanes = vector_lanes(4), l, batch = 1, n_out
    cdef unsigned int denormals
    memset(&run, 0, sizeof(Lanes))
    check_plan(plan, 16 * params.shape[0], 4)
    for l in range(lanes.shape[0]):
        batch = max(batch, lanes[l, 1])
    if batch > MAX_BATCH or not 0 <= loss <= 2 or not 0 <= rule <= 2:
        raise ValueError("batch, loss or rule is out of range")
    lay_out_lanes(&run, plan, batch)
    run.n, n_out = X.shape[0] // run.layers[0].n_in, last_layer(plan).n_out
    check_size("params", run.n_params * n_lanes, params.shape[0])
    check_size("state", run.n_params * n_lanes * (2 if rule == 2 else 1), state.shape[0])
    check_size("X", run.layers[0].n_in, X.shape[0])
    check_size("targets", run.n * n_out, targets.shape[0])
    check_size("workspace", run.size, workspace.shape[0])
    check_lanes(&run, lanes, rows, rates.shape[0], losses.shape[0])
    if settings.shape[0] != n_lanes or settings.shape[1] != 7:
        raise ValueError(f"settings must be ({n_lanes}, 7)")
    if weights is not None:
        check_size("weights", run.n, weights.shape[0])
        run.weights = &weights[0]
    run.X, run.Y, run.loss, run.rule = &X[0], &targets[0], loss, rule
    run.rows = &rows[0] if rows.shape[0] else NULL
    for l in range(n_lanes):
        if settings[l, 4] != 0 or settings[l, 5] != 0 or settings[l, 6] != 0:
            run.penalised = True
    with nogil:
        denormals = flush_denormals()
        l = take_lane_steps(
            &run, lanes, settings, rates, losses, params, state, workspace, most
        )
        restore_denormals(denormals)
    return l
