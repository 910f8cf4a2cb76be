# A call, described once: layers, settings, workspace, and each thread's share of the work ---------

cdef extern from "barrier.h" nogil:
    const int TEAM_ABORTED, TEAM_STEPS, TEAM_STOP, TEAM_SIZE
    int barrier_wait(int64_t *team, int64_t n_threads)
    int64_t ATOMIC_ADD(int64_t *counter)
    void ATOMIC_STORE(int64_t *to, int64_t value)
    void relay_stop(int64_t *team)
    int stop_relayed(int64_t *team, int64_t n_threads)

cdef enum:  # the vocabulary's codes; see :func:`check_codes`
    IDENTITY, LOGISTIC, TANH, RELU, LEAKY_RELU, ELU, SELU, GELU, SILU, MISH, SOFTPLUS
    HARD_SIGMOID, EXP, SOFTMAX

cdef enum:
    SQUARED, ABSOLUTE, HUBER, BINARY, CATEGORICAL, POISSON, QUANTILE, EXTERNAL

cdef enum:
    SGD, ADAM, RMSPROP, NADAM, LION

cdef enum:
    NOT_NORMALISED, BATCH, LAYERWISE

cdef enum:  # the groups of parameters of a layer, and how many there are without a layer
    WEIGHT_GROUP, BIAS_GROUP, SCALE_GROUP, ALPHA_GROUP, LAYER_GROUPS

cdef enum:  # those of the front
    INPUT_GROUP, EMBEDDING_GROUP, PERIODIC_GROUP, OTHER_GROUPS

cdef enum:  # parts of the front; see layout and front
    FACTORS = -5, SUMMED, LEVELS, PERIODIC, PLAIN

cdef enum:  # in the place of a bias
    NO_BIAS = -1, IN_PLACE = -2  # none; the sums to add to are there already

cdef enum:
    MAX_BATCH = 1024  # rows of one pass; larger batches add up passes (seam.MAX_BATCH)
    PREDICT_BATCH = 128  # rows of one pass of a prediction: they fit the caches
    MAX_THREADS = 1024
    MAX_DEPTH = 2048  # of a panel: 512 kB of four AVX-512 vectors, half an L2 cache
    OUTER_SIZE = 2048  # numbers of a gradient of one row that are used at a time; they stay in L1
    PACK_TILES = 4  # tiles that read an operand before a copy of it pays
    SETS_BYTES = 2048  # a stride of half the lines that an L1 cache finds by their address
    LONG_PASS = 60_000  # million operations of a pass, from which on it can be stopped anywhere
    LARGE = 1 << 17  # bytes of a matrix from which on it is fetched ahead; a part of an L2 cache
    PREFETCH_ROWS = 4  # that far ahead of the row that is being gathered
    SMALL = 20_000  # multiply-adds of a prediction that keeps the GIL: it is let go in as much time
    KEPT = 1 << 22  # bytes of a workspace that stays from one prediction to the next
    STEPS_BLOCK = 32  # columns of a cumulative table that are updated together
    MEASURED = 4096  # numbers of the front that are measured together
    ALIGNMENT = 64

cdef Py_ssize_t[5] tile_rows = [0, TILE_ROWS, TILE_SUMS // 2, TILE_SUMS // 3, TILE_SUMS // 4]
cdef double NADAM_DECAY = vocabulary.NADAM_DECAY
cdef Py_ssize_t NADAM_STEPS = vocabulary.NADAM_STEPS
cdef double NORMALIZATION_MOMENTUM = vocabulary.NORMALIZATION_MOMENTUM
cdef Py_ssize_t[3] normalization_vectors = list(map(len, vocabulary.NORMALIZATION_VECTORS.values()))
cdef double SELU_SCALE = vocabulary.SELU_SCALE
cdef double SELU_FLOOR = vocabulary.SELU_SCALE * vocabulary.SELU_ALPHA


cdef struct Layer:  # a row of the plan
    int64_t n_in, n_out, stride, weights, bias, activation, units  # bias < 0: there is none
    int64_t normalization, scale, alpha  # alpha 0: the activation is not parametric
    double parameter, epsilon  # of the activation, of the normalisation
    int64_t precision  # of the operands of its products

cdef struct Part:  # a row of the plan after the layers', as long as those
    int64_t kind, first, count, to, rows, width, stride, at, end, cumulative
    int64_t[3] unused

cdef struct Front:
    const Part *parts
    Py_ssize_t n_parts, n_columns, wave_stride, n_sums
    const Part *factors  # NULL: none
    bint sums, embeds, empty  # adds to the first layer's sums; needs dC/dy; the layer has no inputs

cdef struct Objective:
    int loss
    double parameter, label_smoothing, l1, l2
    bint missing
    bint per_batch
    double cost_scale

cdef struct Optimizer:
    int solver
    bint nesterov
    double momentum, beta_1, beta_2, epsilon, weight_decay, clip_norm, ema
    Py_ssize_t ema_start
    const double *factors  # (phi, rho) of each group of each layer; NULL: (1, 1 for weights else 0)
    double decay_now  # factor of weight_decay in this step

cdef struct Noise:
    uint64_t seed
    double input_noise
    const double *dropout  # one rate per hidden layer; NULL: none
    Py_ssize_t n_rates
    double now  # factor of the rates in this step

cdef struct Layout:  # of the workspace, in numbers
    Py_ssize_t batch, input_stride, target_stride
    Py_ssize_t inputs, targets, activations, slopes, deltas, shares, costs
    Py_ssize_t sums, n_sums, tiles, tile_size, panels, panel_size, copies, copy_size
    Py_ssize_t normalised, statistics, units, differences, alphas, size
    Py_ssize_t raw, raw_stride, values, input_deltas, waves, wave_stride  # of the front
    Py_ssize_t pairs, pair_stride, pair_tiles  # of rounded operands

cdef struct Run:  # one call, with all that its phases need
    const Layer *layers
    Py_ssize_t n_layers
    Front front
    Rows X, targets
    Py_ssize_t n  # rows that the call takes
    const double *weights  # of the rows; NULL: they count alike
    const int64_t *rows  # which, in order; NULL: all
    Objective objective
    Optimizer optimizer
    Noise noise
    Layout to
    bint fused  # the optimizer works on the tiles of the gradient
    bint learns  # running statistics of a normalisation
    Py_ssize_t rank, n_threads
    int64_t *team

cdef struct Drop:  # of one hidden layer
    double rate
    uint64_t key
    Py_ssize_t done  # the first row's place in its batch

cdef struct Pass:  # rows of a batch that are propagated together
    Py_ssize_t n, first, done  # how many; the first one's place in `rows`, and in its batch
    double weight  # of the whole batch

cdef struct Step:  # what the updates of one step need, computed once
    Py_ssize_t number
    double rate, decay, scale
    double ahead  # of Nadam: the rate of the gradient itself; `rate` is that of its mean

cdef struct Grid:  # a product, cut into tiles; a thread works on some of them, column by column
    Py_ssize_t m, vectors, columns  # of a strip of tiles; the last ones may be smaller
    Py_ssize_t across  # tiles in a strip
    Py_ssize_t row_tiles, column_tiles, first, last
    bint by_rows


cdef inline const Layer *layers_of(const int64_t[:, ::1] plan) noexcept nogil:
    return <const Layer *>&plan[0, 0]


cdef inline Py_ssize_t layers_in(const int64_t[:, ::1] plan) noexcept nogil:
    """Return how many rows of the plan are layers: those after them have no fan-in."""
    cdef Py_ssize_t n = plan.shape[0]
    while n > 1 and plan[n - 1, 0] <= 0:
        n -= 1
    return n


cdef inline bint rounds_products(const Layer *layers, Py_ssize_t n_layers) noexcept nogil:
    """Whether operands of any product are rounded."""
    cdef Py_ssize_t number
    for number in range(n_layers):
        if layers[number].precision:
            return True
    return False


cdef inline const Layer *last_layer(const int64_t[:, ::1] plan) noexcept nogil:
    return &layers_of(plan)[layers_in(plan) - 1]


cdef inline Py_ssize_t padded(Py_ssize_t n, Py_ssize_t multiple) noexcept nogil:
    return blocks(n, multiple) * multiple


cdef inline Py_ssize_t blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """Return how many blocks of a size hold n things; the last may be smaller."""
    return n // size + (n % size != 0)


cdef inline Py_ssize_t share(Py_ssize_t n, Py_ssize_t rank, Py_ssize_t n_threads) noexcept nogil:
    """Return where a thread's part of n things begins; it ends where the next one's begins."""
    return n * rank if n_threads == 1 else n * rank // n_threads


cdef Layout layout_of(
    const int64_t[:, ::1] plan, Py_ssize_t batch_size, Py_ssize_t n_threads, Py_ssize_t itemsize
) noexcept nogil:
    cdef Layout to
    cdef const Layer *layers = layers_of(plan)
    cdef Py_ssize_t n_layers = layers_in(plan)
    cdef const Layer *last = &layers[n_layers - 1]
    cdef Front front = front_of(plan)
    cdef Py_ssize_t lanes = ALIGNMENT // itemsize, units = last.units + last.stride, number
    cdef Py_ssize_t columns = STRIP_VECTORS * vector_lanes(itemsize), widest = layers[0].n_in
    memset(&to, 0, sizeof(Layout))
    columns = max(columns, NARROW_BYTES // itemsize)  # of a panel
    to.batch = min(batch_size, MAX_BATCH)
    to.input_stride = padded(layers[0].n_in, lanes)
    to.target_stride, to.n_sums = last.stride, front.n_sums
    for number in range(n_layers):
        widest = max(widest, layers[number].n_out)
        to.n_sums += layers[number].n_in + 1
    to.targets = to.inputs + to.batch * to.input_stride
    to.activations = to.targets + to.batch * to.target_stride
    to.slopes = to.activations + to.batch * units
    to.deltas = to.slopes + to.batch * units
    to.shares = to.deltas + to.batch * units
    to.costs = to.shares + padded(to.batch, lanes)
    to.sums = to.costs + padded(to.batch, lanes)
    to.tiles = to.sums + padded(to.n_sums, lanes)
    to.tile_size = max(<Py_ssize_t>OUTER_SIZE, TILE_ROWS * STRIP_VECTORS * vector_lanes(itemsize))
    to.panels = to.tiles + n_threads * to.tile_size
    to.panel_size = min(padded(max(widest, to.batch), lanes), MAX_DEPTH) * columns
    if rounds_products(layers, n_layers):
        to.panel_size *= 2  # see :func:`round_transposed`
    to.copies = to.panels + n_threads * to.panel_size
    to.copy_size = padded(widest + TILE_ROWS, lanes) * to.batch + 2 * lanes
    to.normalised = to.size = to.copies + n_threads * to.copy_size
    to.units = units
    if n_layers > 1 and layers[0].normalization:
        to.statistics = to.normalised + to.batch * units
        to.size = to.statistics + padded(
            STATISTICS * units + n_layers * to.batch, lanes
        )
    if layers[0].alpha:
        to.differences = to.size
        to.alphas = to.differences + to.batch * units
        to.size = to.alphas + units
    lay_out_front(&to, &front, lanes)
    if rounds_products(layers, n_layers):
        to.pairs, to.pair_stride = to.size, padded(widest, lanes)
        to.pair_tiles = to.pairs + to.batch * to.pair_stride
        to.size = to.pair_tiles + padded(widest + TILE_ROWS, lanes) * padded(to.batch, 2)
    return to


cdef inline Grid grid_of(
    Py_ssize_t n, Py_ssize_t stride, Py_ssize_t itemsize, const Run *run, Py_ssize_t most
) noexcept nogil:
    """Cut n rows of `stride` columns into strips of `most` vectors; find this thread's share."""
    cdef Py_ssize_t lanes = vector_lanes(itemsize), vectors = stride // lanes, tiles
    cdef Grid grid
    grid.column_tiles, grid.vectors = 1, vectors
    if vectors > most:
        grid.vectors = blocks(vectors, blocks(vectors, most))
        if grid.vectors > TILE_VECTORS:
            grid.vectors = padded(grid.vectors, TILE_VECTORS)
        grid.column_tiles = blocks(vectors, grid.vectors)
    grid.columns, grid.across = grid.vectors * lanes, blocks(grid.vectors, TILE_VECTORS)
    grid.m = tile_rows[min(grid.vectors, TILE_VECTORS)]
    grid.row_tiles = blocks(n, grid.m)
    # By rows, a thread continues with what it has computed itself; by columns, it reads less of B.
    grid.by_rows = grid.column_tiles < PACK_TILES and grid.row_tiles >= PACK_TILES * run.n_threads
    tiles = grid.row_tiles if grid.by_rows else grid.row_tiles * grid.column_tiles
    grid.first = share(tiles, run.rank, run.n_threads)
    grid.last = share(tiles, run.rank + 1, run.n_threads)
    return grid


cdef inline Py_ssize_t first_row_tile(const Grid *grid, Py_ssize_t column_tile) noexcept nogil:
    """Return this thread's first tile in a column of tiles; see :func:`last_row_tile`."""
    return grid.first if grid.by_rows else max(grid.first - column_tile * grid.row_tiles, 0)


cdef inline Py_ssize_t last_row_tile(const Grid *grid, Py_ssize_t column_tile) noexcept nogil:
    return grid.last if grid.by_rows else min(
        grid.last - column_tile * grid.row_tiles, grid.row_tiles
    )


cdef inline bint has_tiles(const Grid *grid, Py_ssize_t column_tile) noexcept nogil:
    """Whether this thread has work in a column of tiles."""
    return first_row_tile(grid, column_tile) < last_row_tile(grid, column_tile)


cdef inline bint packs_panel(const Grid *grid, Py_ssize_t column_tile) noexcept nogil:
    """Whether this thread's first tile of a column, then a whole one, copies B for the others."""
    return grid.column_tiles > 1 and (
        last_row_tile(grid, column_tile) - first_row_tile(grid, column_tile) >= PACK_TILES
    )


cdef Run run_of(
    const int64_t[:, ::1] plan, Rows X, Rows targets, const double[::1] weights,
    const int64_t[::1] rows, Layout to,
):
    """Describe a call, whose arrays the caller holds: without noise, on one thread."""
    cdef Run run
    memset(&run, 0, sizeof(Run))
    run.layers, run.n_layers, run.front = layers_of(plan), layers_in(plan), front_of(plan)
    run.X, run.targets, run.to = X, targets, to
    run.n, run.n_threads, run.objective.cost_scale = X.n, 1, 1
    if weights is not None and weights.shape[0]:
        run.weights = &weights[0]
    if rows is not None:
        run.n = rows.shape[0]
        if run.n:
            run.rows = &rows[0]
    return run


cdef int join_team(Run *run, int64_t[::1] team) except -1:
    if team is not None:
        check_size("team", TEAM_SIZE, team.shape[0])
        run.team = &team[0]
    return 0


cdef Objective read_objective(object o) except *:
    return Objective(
        o.loss, o.parameter, o.label_smoothing, o.l1, o.l2, o.missing, o.per_batch, o.cost_scale
    )


cdef Optimizer read_optimizer(
    object o, const double[:, ::1] factors, Py_ssize_t n_layers
) except *:
    """Read the settings; `factors`, which the caller holds, are those of `o`."""
    cdef Optimizer optimizer = Optimizer(
        o.solver, o.nesterov, o.momentum, o.beta_1, o.beta_2, o.epsilon, o.weight_decay,
        o.clip_norm, o.ema, o.ema_start, NULL, 1,
    )
    if factors.shape[0]:
        if factors.shape[0] != n_layers * LAYER_GROUPS + OTHER_GROUPS or factors.shape[1] != 2:
            raise ValueError(f"factors must be ({n_layers * LAYER_GROUPS + OTHER_GROUPS}, 2)")
        optimizer.factors = &factors[0, 0]
    return optimizer


cdef Noise read_noise(object o, const double[::1] dropout) except *:
    cdef Noise noise = Noise(o.seed, o.input_noise, NULL, dropout.shape[0], 1)
    if noise.n_rates:
        noise.dropout = &dropout[0]
    return noise
