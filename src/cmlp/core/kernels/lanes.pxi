# Nets side by side: a net in each lane of a vector, float32 -----------------------------------------

cdef extern from "simd.h" nogil:
    const int LANE_RATE, LANE_MOMENTUM, LANE_REST_1, LANE_REST_2, LANE_EPSILON, LANE_L1, LANE_L2
    const int LANE_KEEP, LANE_RULES
    void lane_product_f32(
        Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth, const float *a, Py_ssize_t a_row,
        Py_ssize_t a_depth, const float *b, Py_ssize_t b_depth, Py_ssize_t b_column,
        const float *init, Py_ssize_t init_row, float *c, Py_ssize_t c_row)
    void lane_gather_f32(const float **from_, Py_ssize_t n, float *to)
    void lane_costs_f32(int loss, Py_ssize_t rows, Py_ssize_t n_out, float *z, const float *y,
                        const float *share, float *delta, float *cost)
    void lane_update_f32(int rule, bint penalised, Py_ssize_t n, const float *factor,
                         const float *grads, float *params, float *m, float *v,
                         const float *rules)
    void lane_penalty_f32(Py_ssize_t n, const float *params, const float *rules, double *sums)

cdef enum:
    MAX_LANES = 16
    LANE_SETTINGS = 9  # numbers of a net; see seam.LANE_SETTINGS
    LANE_ADAM = 2  # of the rules
    LANE_ROWS = 32  # rows of a pass, see seam.LANE_ROWS
    LANE_BLOCK = 12  # rows of weights that move together: a multiple of a tile's rows and columns

cdef struct Lane:  # a net's place in a call: a row of `lanes`; see `seam.LANE`
    int64_t n, batch  # rows of an epoch, and of a step
    int64_t steps, taken  # of this call and those before it, from the same rows
    int64_t number  # steps before the first of them: of the optimizer
    int64_t rows, rates, losses, settings  # where its own begin, the last three among the numbers
    int64_t failed  # its loss was not finite; that step was not taken

cdef struct Cursor:  # where a net is in its rows, and the powers of beta
    Py_ssize_t size, row, left, loss  # of the next batch; rows left in the epoch
    double power_1, power_2, weight, cost

cdef struct Lanes:  # a call
    const Layer *layers
    Py_ssize_t n_layers, n, widest, units, n_params, batch, rows_of_pass
    Py_ssize_t state, rules, ones, shares, costs, inputs, targets, activations, slopes, deltas
    Py_ssize_t grads, size  # of the memory, in numbers; it begins with the parameters
    const float *X
    const float *Y
    const double *weights
    const int64_t *rows
    double *numbers
    Lane *lanes
    int loss, rule
    bint penalised


cdef int lay_out_lanes(Lanes *run, const int64_t[:, ::1] plan) except -1:
    """Lay out the memory: every number has all lanes. Layers must be plain ones."""
    cdef Py_ssize_t number, lanes = vector_lanes(4), batch = min(run.batch, <Py_ssize_t>LANE_ROWS)
    cdef const Layer *layer = layers_of(plan)
    run.layers, run.n_layers = layer, layers_in(plan)
    for number in range(run.n_layers):
        layer = &run.layers[number]
        if (
            layer.normalization or layer.alpha or layer.precision or run.n_layers != plan.shape[0]
            or (number < run.n_layers - 1 and layer.activation == SOFTMAX)
        ):
            raise ValueError("lanes take plain layers only")
        run.widest = max(run.widest, layer.n_out)
        run.units += layer.n_out
        run.n_params += layer.n_out * (layer.n_in + 1)
    run.state = run.n_params * lanes
    run.rules = run.state * (3 if run.rule == LANE_ADAM else 2)
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
    if run.batch > batch:
        run.size = run.grads + run.state
    run.rows_of_pass = batch
    return 0


cdef int check_lanes(Lanes *run, const int64_t[::1] rows, Py_ssize_t n_numbers) except -1:
    """Raise unless what each lane points to lies inside the arrays, and its rows in X."""
    cdef Py_ssize_t l, epochs, n_rows = rows.shape[0]
    cdef const Lane *lane
    cdef const double *settings
    for l in range(vector_lanes(4)):
        lane = &run.lanes[l]
        if not 0 <= lane.settings <= n_numbers - LANE_SETTINGS:
            raise ValueError("a lane's settings lie outside the numbers")
        settings = run.numbers + lane.settings
        if settings[4] != 0 or settings[5] != 0 or settings[6] != 0:
            run.penalised = True
        if lane.steps == 0:
            continue
        if lane.n < 1 or not 1 <= lane.batch <= run.batch or not 0 <= lane.taken <= lane.steps:
            raise ValueError("a lane has no valid rows, batch or steps")
        epochs = blocks(lane.steps, blocks(lane.n, lane.batch))
        if (
            not 0 <= lane.rows <= n_rows or lane.n > n_rows or lane.steps > n_numbers
            or epochs > (n_rows - lane.rows) // lane.n or lane.number < 0
            or not 0 <= lane.rates <= n_numbers - lane.steps
            or not 0 <= lane.losses <= n_numbers - epochs
        ):
            raise ValueError("a lane's rows, rates or losses lie outside the arrays")
        check_rows(rows[lane.rows:lane.rows + epochs * lane.n], run.n)
    return 0


def train_lanes(
    const int64_t[:, ::1] plan, float[::1] memory, const float[::1] data,
    const double[::1] weights, const int64_t[::1] rows, double[::1] numbers, int64_t[::1] lanes,
    int loss, int rule, Py_ssize_t most,
):
    """Train a net in each lane of a vector, one step per batch, until one of them is done.

    Parameters
    ----------
    memory : flat
        Every net's parameters, without padding, and its moments: number i of the net in lane l is
        at ``i * n_lanes + l``. Then scratch; see ``seam.lane_memory``.
    data : flat
        The rows of all nets, X, (n, n_in), and after them the targets, (n, n_out).
    weights : (n,) array or None
    rows, numbers : flat
        What `lanes` points into: rows; and rates, losses and settings. The sum of each epoch, as of
        `train_epoch`, is added to the losses.
    lanes : flat
        For each lane what ``seam.LANE`` lists; the steps taken are counted there. A lane without
        steps is idle.
    loss, rule : int
        See ``seam.LANE_LOSSES`` and ``seam.LANE_RULES``.
    most : int
        Steps of a call.

    Returns
    -------
    int
        Steps taken. Where a loss was not finite, none of that step was taken, in no lane, and the
        lane's number `failed` is 1.
    """
    cdef Lanes run
    cdef Py_ssize_t l, n_in, n_out
    cdef unsigned int denormals
    memset(&run, 0, sizeof(Lanes))
    check_plan(plan, 16 * memory.shape[0], 4)
    check_size("lanes", vector_lanes(4) * (sizeof(Lane) // 8), lanes.shape[0])
    run.lanes, run.loss, run.rule, run.batch = <Lane *>&lanes[0], loss, rule, 1
    for l in range(vector_lanes(4)):
        run.batch = max(run.batch, run.lanes[l].batch)
    if run.batch > MAX_BATCH or not 0 <= loss <= 2 or not 0 <= rule <= LANE_ADAM:
        raise ValueError("batch, loss or rule is out of range")
    lay_out_lanes(&run, plan)
    n_in, n_out = run.layers[0].n_in, last_layer(plan).n_out
    run.n = data.shape[0] // (n_in + n_out)
    check_size("memory", run.size, memory.shape[0])
    check_size("data", n_in + n_out, data.shape[0])
    check_size("numbers", LANE_SETTINGS, numbers.shape[0])
    run.numbers = &numbers[0]
    check_lanes(&run, rows, numbers.shape[0])
    if weights is not None:
        check_size("weights", run.n, weights.shape[0])
        run.weights = &weights[0]
    run.X, run.Y = &data[0], &data[run.n * n_in]
    run.rows = &rows[0] if rows.shape[0] else NULL
    with nogil:
        denormals = flush_denormals()
        l = take_lane_steps(&run, memory, most)
        restore_denormals(denormals)
    return l
