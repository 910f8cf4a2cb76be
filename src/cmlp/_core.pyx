# cython: language_level=3
"""The network's arithmetic, compiled: the twin of ``_reference.py``, function by function.

a) One body for float32 and float64 (fused types), and one source for every instruction-set level:
   setup.py compiles this file as ``_core_baseline``, ``_core_avx2`` and ``_core_avx512``. The level
   shows only in ``_simd.h``, through the width of a vector and the rows of a tile.
b) Below the ``def`` functions there is no allocation, no validation, no exception and no Python:
   callers pass arrays that they checked, and one ``workspace`` for everything in between.
c) A matrix product is a grid of register tiles (``_simd_tile.h``). What follows a product runs on the
   tile while it is in the L1 cache: the activation behind the forward product, da/dz behind the
   input gradient, penalty and optimizer behind the weight gradient, so that no gradient array is
   written or read. Clipping needs the whole gradient first, and batches over MAX_BATCH rows add
   theirs up part by part: these two use `grads`.
d) Threads share every phase by output tile, and meet at a barrier between phases. Each number is one
   chain of sums on one thread, so the result does not depend on the number of threads. An OpenMP
   region costs more than a small phase, and does not survive a fork.
e) Rows are padded to 64 bytes. Loops run over the padding, which saves every remainder loop; the
   padding of W, b and delta is zero and stays zero (0 - eta * 0), that of activations is noise that
   nothing reads.
f) Loops index memoryviews, so that the debug build (CMLP_DEBUG=1) checks their bounds; a failed check
   is printed, as nothing below the seam can raise, and pytest makes a failure of it. Only the tiles
   and the vector functions take addresses.

Letters: n rows of X; m rows of a tile; i inputs, j outputs (units) of a layer; at, to: offsets.
"""

from libc.math cimport INFINITY, expm1, fabs, fmax, isfinite, log, sqrt
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer,
)

from cmlp import _spec as spec

cdef extern from "_simd.h" nogil:
    const Py_ssize_t TILE_ROWS
    void tile_f32(Py_ssize_t rows, Py_ssize_t vectors, Py_ssize_t depth,
                  const float *a, Py_ssize_t a_row, Py_ssize_t a_depth,
                  const float *b, Py_ssize_t b_depth,
                  const float *init, Py_ssize_t init_row, float *c, Py_ssize_t c_row)
    void tile_f64(Py_ssize_t rows, Py_ssize_t vectors, Py_ssize_t depth,
                  const double *a, Py_ssize_t a_row, Py_ssize_t a_depth,
                  const double *b, Py_ssize_t b_depth,
                  const double *init, Py_ssize_t init_row, double *c, Py_ssize_t c_row)
    void exp_n_f32(float *x, Py_ssize_t n)
    void exp_n_f64(double *x, Py_ssize_t n)
    void expm1_n_f32(float *x, Py_ssize_t n)
    void expm1_n_f64(double *x, Py_ssize_t n)
    void logistic_n_f32(float *x, Py_ssize_t n)
    void logistic_n_f64(double *x, Py_ssize_t n)
    void tanh_n_f32(float *x, Py_ssize_t n)
    void tanh_n_f64(double *x, Py_ssize_t n)
    void softplus_n_f32(float *x, float *slope, Py_ssize_t n)
    void softplus_n_f64(double *x, double *slope, Py_ssize_t n)
    void gelu_n_f32(float *x, float *slope, Py_ssize_t n)
    void gelu_n_f64(double *x, double *slope, Py_ssize_t n)
    void silu_n_f32(float *x, float *slope, Py_ssize_t n)
    void silu_n_f64(double *x, double *slope, Py_ssize_t n)
    void mish_n_f32(float *x, float *slope, Py_ssize_t n)
    void mish_n_f64(double *x, double *slope, Py_ssize_t n)
    Py_ssize_t vector_lanes(size_t itemsize)

cdef extern from "_barrier.h" nogil:
    int barrier_wait(int64_t *team, int64_t n_threads)
    const int TEAM_STEPS

ctypedef fused real:
    float
    double

ctypedef fused sample:  # what a row of X or y may hold
    float
    double
    int8_t
    uint8_t
    int16_t
    uint16_t
    int32_t
    uint32_t
    int64_t
    uint64_t

name = __name__.rpartition("_")[2]
vector_bytes = vector_lanes(4) * 4

cdef enum:
    IDENTITY, LOGISTIC, TANH, RELU, LEAKY_RELU, ELU, SELU, GELU, SILU, MISH, SOFTPLUS
    HARD_SIGMOID, EXP, SOFTMAX

cdef enum:
    SQUARED, ABSOLUTE, HUBER, BINARY, CATEGORICAL, POISSON, QUANTILE, EXTERNAL

cdef enum:
    SGD, ADAM, RMSPROP

cdef enum:
    MAX_BATCH = 1024  # rows of one pass; larger batches add up passes
    PREDICT_BATCH = 128  # rows of one pass of a prediction: they fit the caches
    MAX_THREADS = 1024
    MAX_PANEL = 4096  # rows of a packed panel: 512 kB of two AVX-512 vectors, half an L2 cache
    PACK_TILES = 4  # tiles that use a panel before its copy pays
    ALIGNMENT = 64

cdef double LEAKY_SLOPE = spec.LEAKY_SLOPE
cdef double SELU_SCALE = spec.SELU_SCALE
cdef double SELU_FLOOR = spec.SELU_SCALE * spec.SELU_ALPHA


# What crosses the seam -----------------------------------------------------------------------------

cdef struct Layer:
    Py_ssize_t n_in, n_out, stride, weights, bias, activation, units, transposed

cdef struct Objective:
    int loss
    double parameter, label_smoothing, l1, l2

cdef struct Optimizer:
    int solver
    bint nesterov
    double momentum, beta_1, beta_2, epsilon, weight_decay, clip_norm

cdef struct Noise:
    uint64_t seed
    double input_noise

cdef struct Rows:  # rows of X or y, read through any strides and from any number type
    const char *data
    Py_ssize_t n, width, row_stride, column_stride
    char kind
    bint labels

cdef struct Layout:  # of the workspace, in numbers
    Py_ssize_t batch, input_stride, target_stride
    Py_ssize_t inputs, targets, activations, slopes, deltas, transposed, shares, costs
    Py_ssize_t sums, n_sums, tiles, panels, panel_depth, size

cdef struct Panel:  # a copy of the columns that a thread works on
    Py_ssize_t at, depth, column

cdef struct Step:  # what an update of one step needs, worked out once
    Py_ssize_t number
    double rate, decay, scale


cdef Objective read_objective(object o) except *:
    return Objective(o.loss, o.parameter, o.label_smoothing, o.l1, o.l2)


cdef Optimizer read_optimizer(object o) except *:
    return Optimizer(
        o.solver, o.nesterov, o.momentum, o.beta_1, o.beta_2, o.epsilon, o.weight_decay, o.clip_norm
    )


cdef inline Layer layer_of(const int64_t[:, ::1] plan, Py_ssize_t number) noexcept nogil:
    return Layer(
        plan[number, 0], plan[number, 1], plan[number, 2], plan[number, 3],
        plan[number, 4], plan[number, 5], plan[number, 6], plan[number, 7],
    )


cdef inline Py_ssize_t padded(Py_ssize_t n, Py_ssize_t multiple) noexcept nogil:
    return blocks(n, multiple) * multiple


cdef inline Py_ssize_t blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """How many blocks of a size n things take; the last may be smaller."""
    return n // size + (n % size != 0)


cdef inline Py_ssize_t share(Py_ssize_t n, Py_ssize_t rank, Py_ssize_t n_threads) noexcept nogil:
    """Where the part of a thread begins, of n things; it ends where the next one's begins."""
    return n * rank // n_threads


cdef Layout layout_of(
    const int64_t[:, ::1] plan, Py_ssize_t batch_size, Py_ssize_t n_threads, Py_ssize_t itemsize
) noexcept nogil:
    cdef Layout to
    cdef Layer first = layer_of(plan, 0), last = layer_of(plan, plan.shape[0] - 1)
    cdef Py_ssize_t lanes = ALIGNMENT // itemsize, units = last.units + last.stride
    to.batch = min(batch_size, MAX_BATCH)
    to.input_stride = padded(first.n_in, lanes)
    to.target_stride = last.stride
    to.inputs = 0
    to.targets = to.inputs + to.batch * to.input_stride
    to.activations = to.targets + to.batch * to.target_stride
    to.slopes = to.activations + to.batch * units
    to.deltas = to.slopes + to.batch * units
    to.transposed = to.deltas + to.batch * units
    to.shares = to.transposed + last.transposed + last.n_out * padded(last.n_in, lanes)
    to.costs = to.shares + padded(to.batch, lanes)
    to.sums = to.costs + padded(to.batch, lanes)
    to.n_sums = n_rows(plan)
    to.tiles = to.sums + padded(to.n_sums, lanes)
    to.panels = to.tiles + n_threads * tile_size(itemsize)
    to.panel_depth = min(widest(plan, to.batch), MAX_PANEL)
    to.size = to.panels + n_threads * to.panel_depth * tile_columns(itemsize)
    return to


cdef Py_ssize_t n_rows(const int64_t[:, ::1] plan) noexcept nogil:
    """Rows of weights and biases."""
    cdef Py_ssize_t number, n = 0
    for number in range(plan.shape[0]):
        n += plan[number, 0] + 1
    return n


cdef Py_ssize_t widest(const int64_t[:, ::1] plan, Py_ssize_t batch) noexcept nogil:
    """The longest sum in any product."""
    cdef Py_ssize_t number, depth = batch
    for number in range(plan.shape[0]):
        depth = max(depth, max(<Py_ssize_t>plan[number, 0], <Py_ssize_t>plan[number, 1]))
    return depth


cdef inline Panel panel_of(Layout to, Py_ssize_t rank, Py_ssize_t itemsize) noexcept nogil:
    """A thread's place for a panel, empty."""
    return Panel(to.panels + rank * to.panel_depth * tile_columns(itemsize), to.panel_depth, -1)


cdef inline Py_ssize_t tile_columns(Py_ssize_t itemsize) noexcept nogil:
    return 2 * vector_lanes(itemsize)


cdef inline Py_ssize_t tile_size(Py_ssize_t itemsize) noexcept nogil:
    return padded(TILE_ROWS * tile_columns(itemsize), ALIGNMENT)


cdef int check_plan(
    const int64_t[:, ::1] plan, Py_ssize_t n_params, Py_ssize_t itemsize
) except -1:
    """The last guard in front of unchecked loops: a plan that stays inside its parameters."""
    cdef Py_ssize_t number, lanes = ALIGNMENT // itemsize, units = 0, transposed = 0
    cdef Layer layer, before = Layer(0, 0, 0, 0, 0, 0, 0, 0)
    if plan.shape[0] < 1 or plan.shape[1] != 8:
        raise ValueError("plan must have one row of 8 integers per layer")
    for number in range(plan.shape[0]):
        layer = layer_of(plan, number)
        if (
            not 1 <= layer.n_out <= n_params  # first, so that nothing below overflows
            or layer.stride != padded(layer.n_out, lanes)
            or not 1 <= layer.n_in <= n_params // layer.stride
            or not 0 <= layer.weights <= layer.bias <= n_params - layer.stride
            or layer.weights + layer.n_in * layer.stride > layer.bias
            or layer.units != units or layer.transposed != transposed
            or not IDENTITY <= layer.activation <= SOFTMAX
            or (number and layer.n_in != before.n_out)
        ):
            raise ValueError(f"layer {number} of the plan does not fit {n_params} parameters")
        units += layer.stride
        transposed += layer.n_out * padded(layer.n_in, lanes)
        before = layer
    return 0


cdef int check_rows(const int64_t[::1] rows, Py_ssize_t n) except -1:
    cdef Py_ssize_t i
    cdef int64_t low = 0, high = -1
    for i in range(rows.shape[0]):
        low = min(low, rows[i])
        high = max(high, rows[i])
    if low < 0 or high >= n:
        raise IndexError(f"rows run from {low} to {high}, but X has {n}")
    return 0


cdef Py_ssize_t check_data(
    Rows X, Rows targets, const double[::1] weights, const int64_t[::1] rows
) except -1:
    """Lengths and row numbers; returns how many rows the call is about."""
    if targets.n != X.n or (weights is not None and weights.shape[0] != X.n):
        raise ValueError("X, targets and weights differ in length")
    if rows is None:
        return X.n
    check_rows(rows, X.n)
    return rows.shape[0]


cdef int check_size(str what, Py_ssize_t expected, Py_ssize_t came) except -1:
    if came < expected:
        raise ValueError(f"{what} needs {expected} numbers, {came} came")
    return 0


cdef class RowBuffer:
    """Holds the buffer of X or y for the time of a call, and describes it without Python."""
    cdef Py_buffer buffer
    cdef bint held
    cdef Rows rows

    def __cinit__(self, array, Py_ssize_t width, bint labels=False):
        PyObject_GetBuffer(array, &self.buffer, PyBUF_STRIDES | PyBUF_FORMAT)
        self.held = True
        cdef bint flat = labels and self.buffer.ndim == 1
        if not flat and (self.buffer.ndim != 2 or self.buffer.shape[1] != width):
            raise ValueError(f"expected rows of {width} numbers")
        cdef str kinds = "fd?bBhHiIlLqQ"
        cdef str kind = self.buffer.format.decode()
        if kind not in kinds or len(kind) != 1:
            raise ValueError(f"cannot read numbers of format {kind!r}")
        if kind not in "fd":  # integers by their size: 'l' is 4 or 8 bytes
            kind = ("B", "H", "I", "Q")[self.buffer.itemsize.bit_length() - 1] \
                if kind in "?BHILQ" else ("b", "h", "i", "q")[self.buffer.itemsize.bit_length() - 1]
        if flat and kind != "q":
            raise ValueError("labels must be int64")
        self.rows = Rows(
            <const char *>self.buffer.buf, self.buffer.shape[0], 1 if flat else width,
            self.buffer.strides[0], 0 if flat else self.buffer.strides[1], <char>ord(kind), flat,
        )

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)


# One name for both number types --------------------------------------------------------------------

cdef inline void tile(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth,
    const real *a, Py_ssize_t a_row, Py_ssize_t a_depth, const real *b, Py_ssize_t b_depth,
    const real *init, Py_ssize_t init_row, real *c, Py_ssize_t c_row,
) noexcept nogil:
    cdef Py_ssize_t vectors = columns // vector_lanes(sizeof(real))
    if real is float:
        tile_f32(rows, vectors, depth, a, a_row, a_depth, b, b_depth, init, init_row, c, c_row)
    else:
        tile_f64(rows, vectors, depth, a, a_row, a_depth, b, b_depth, init, init_row, c, c_row)


cdef inline const real *panel_columns(
    const real[::1] b, Py_ssize_t at, Py_ssize_t *stride, Py_ssize_t depth, Py_ssize_t column,
    Py_ssize_t columns, Py_ssize_t tiles, real[::1] ws, Panel *panel,
) noexcept nogil:
    """Where a tile finds its columns of B, whose rows begin at `at`, `stride` apart.

    Rows of a wide matrix lie a power of two apart: they fall into few sets of the caches, and evict
    each other. If enough tiles share the columns, they are copied to a panel without gaps, once.
    """
    cdef Py_ssize_t k, j
    if tiles < PACK_TILES or depth > panel.depth or stride[0] <= 2 * columns:
        return &b[at + column]
    if panel.column != column:
        for k in range(depth):
            for j in range(columns):
                ws[panel.at + k * columns + j] = b[at + k * stride[0] + column + j]
        panel.column = column
    stride[0] = columns
    return &ws[panel.at]


cdef inline void vector_exp(real *x, Py_ssize_t n) noexcept nogil:
    if real is float:
        exp_n_f32(x, n)
    else:
        exp_n_f64(x, n)


cdef inline void vector_expm1(real *x, Py_ssize_t n) noexcept nogil:
    if real is float:
        expm1_n_f32(x, n)
    else:
        expm1_n_f64(x, n)


cdef inline void vector_logistic(real *x, Py_ssize_t n) noexcept nogil:
    if real is float:
        logistic_n_f32(x, n)
    else:
        logistic_n_f64(x, n)


cdef inline void vector_tanh(real *x, Py_ssize_t n) noexcept nogil:
    if real is float:
        tanh_n_f32(x, n)
    else:
        tanh_n_f64(x, n)


cdef inline void vector_softplus(real *x, real *slope, Py_ssize_t n) noexcept nogil:
    if real is float:
        softplus_n_f32(x, slope, n)
    else:
        softplus_n_f64(x, slope, n)


cdef inline void vector_gelu(real *x, real *slope, Py_ssize_t n) noexcept nogil:
    if real is float:
        gelu_n_f32(x, slope, n)
    else:
        gelu_n_f64(x, slope, n)


cdef inline void vector_silu(real *x, real *slope, Py_ssize_t n) noexcept nogil:
    if real is float:
        silu_n_f32(x, slope, n)
    else:
        silu_n_f64(x, slope, n)


cdef inline void vector_mish(real *x, real *slope, Py_ssize_t n) noexcept nogil:
    if real is float:
        mish_n_f32(x, slope, n)
    else:
        mish_n_f64(x, slope, n)


include "_activations.pxi"
include "_gather.pxi"
include "_losses.pxi"
include "_forward.pxi"
include "_updates.pxi"
include "_backward.pxi"
include "_step.pxi"
# The seam: what Python calls -----------------------------------------------------------------------

def workspace_size(
    const int64_t[:, ::1] plan not None, Py_ssize_t batch_size, Py_ssize_t n_threads=1
):
    """Scratch numbers that a batch needs."""
    if plan.shape[0] < 1 or plan.shape[1] != 8:
        raise ValueError("plan must have one row of 8 integers per layer")
    if not 1 <= n_threads <= MAX_THREADS:
        raise ValueError(f"n_threads must be from 1 to {MAX_THREADS}")
    batch_size = max(batch_size, PREDICT_BATCH)
    return max(
        layout_of(plan, batch_size, n_threads, 4).size,
        layout_of(plan, batch_size, n_threads, 8).size,
    )


def activate(Py_ssize_t code, real[:, ::1] values):
    """Replace the numbers in ``values[0]`` by their activation, fill ``values[1]`` with da/dz."""
    cdef Py_ssize_t n = values.shape[1]
    if values.shape[0] != 2 or n == 0 or n * sizeof(real) % ALIGNMENT:
        raise ValueError("values must be (2, n), with n numbers a multiple of 64 bytes")
    if not IDENTITY <= code < SOFTMAX:
        raise ValueError(f"activation {code} is not applied number by number")
    cdef real[::1] ws = <real[:2 * n]>&values[0, 0]
    with nogil:
        activate_part(code, ws, 0, n, n)
        fill_slope(code, ws, n, 0, n)


def predict(
    const int64_t[:, ::1] plan, const real[::1] params, X, const int64_t[::1] rows,
    real[:, ::1] out, real[::1] workspace,
):
    """Write the output activations of the given rows of X (None: all) to `out`, (rows, n_out)."""
    cdef real[:, ::1] no_record = None
    run_forward(plan, params, X, rows, out, no_record, no_record, workspace)


def forward(
    const int64_t[:, ::1] plan, const real[::1] params, X, real[:, ::1] z, real[:, ::1] a,
    real[::1] workspace,
):
    """Write every layer's weighted sums and activations to the records `z` and `a`.

    A record has one row per row of X; layer l's units start at column ``plan[l, UNITS]``.
    """
    cdef real[:, ::1] no_out = None
    cdef const int64_t[::1] all_rows = None
    run_forward(plan, params, X, all_rows, no_out, z, a, workspace)


cdef int run_forward(
    const int64_t[:, ::1] plan, const real[::1] params, X, const int64_t[::1] rows,
    real[:, ::1] out, real[:, ::1] z, real[:, ::1] a, real[::1] workspace,
) except -1:
    check_plan(plan, params.shape[0], sizeof(real))
    cdef Layer first = layer_of(plan, 0), last = layer_of(plan, plan.shape[0] - 1), layer
    cdef Layout to = layout_of(plan, PREDICT_BATCH, 1, sizeof(real))
    cdef RowBuffer source = RowBuffer(X, first.n_in)
    cdef Py_ssize_t n = source.rows.n if rows is None else rows.shape[0]
    cdef Py_ssize_t block, start, m, i, j, number, at
    cdef bint record = z is not None
    check_size("workspace", to.size, workspace.shape[0])
    if rows is not None:
        check_rows(rows, source.rows.n)
    if record:
        if min(z.shape[0], a.shape[0]) < n:
            raise ValueError(f"a record of {n} rows was expected")
        check_size("a record's row", last.units + last.stride, min(z.shape[1], a.shape[1]))
    elif out.shape[0] != n or out.shape[1] != last.n_out:
        raise ValueError(f"out must be ({n}, {last.n_out})")
    with nogil:
        for block in range(blocks(n, PREDICT_BATCH)):
            start = block * PREDICT_BATCH
            m = min(<Py_ssize_t>PREDICT_BATCH, n - start)
            for i in range(m):
                gather_row(
                    &source.rows, start + i if rows is None else rows[start + i], workspace,
                    to.inputs + i * to.input_stride,
                )
            predict_batch(plan, params, workspace, to, m, record, z, start)
            for number in range(0 if record else plan.shape[0] - 1, plan.shape[0]):
                layer = layer_of(plan, number)
                for i in range(m):
                    at = to.activations + to.batch * layer.units + i * layer.stride
                    for j in range(layer.n_out):
                        if record:
                            a[start + i, layer.units + j] = workspace[at + j]
                        else:
                            out[start + i, j] = workspace[at + j]
    return 0


def evaluate(
    const int64_t[:, ::1] plan, const real[::1] params, X, targets, const int64_t[::1] rows,
    objective, noise, Py_ssize_t step, real[:, ::1] out, real[::1] row_loss, real[::1] workspace,
):
    """Write the outputs to `out` (unless it has no rows) and the cost of each row to `row_loss`.

    With `noise`, these are what :func:`gradient` sees at this `step`.
    """
    check_plan(plan, params.shape[0], sizeof(real))
    cdef Layer last = layer_of(plan, plan.shape[0] - 1)
    cdef Layout to = layout_of(plan, PREDICT_BATCH, 1, sizeof(real))
    cdef RowBuffer source = RowBuffer(X, layer_of(plan, 0).n_in)
    cdef RowBuffer labels = RowBuffer(targets, last.n_out, True)
    cdef Objective goal = read_objective(objective)
    cdef Noise sources = Noise(noise.seed, noise.input_noise)
    cdef const double[::1] dropout = noise.dropout, weights = None
    cdef Py_ssize_t n = check_data(source.rows, labels.rows, weights, rows)
    cdef Py_ssize_t block, start, m, i, j, at
    check_size("workspace", to.size, workspace.shape[0])
    check_size("row_loss", n, row_loss.shape[0])
    if out.shape[0] and (out.shape[0] != n or out.shape[1] != last.n_out):
        raise ValueError(f"out must be ({n}, {last.n_out}) or empty")
    with nogil:
        for block in range(blocks(n, PREDICT_BATCH)):
            start = block * PREDICT_BATCH
            m = min(<Py_ssize_t>PREDICT_BATCH, n - start)
            forward_batch(
                plan, params, source.rows, labels.rows, weights, rows, start, m, goal, sources,
                dropout, step, workspace, to, start, n, 0, 1, NULL,
            )
            for i in range(m):
                row_loss[start + i] = workspace[to.costs + i]
                if out.shape[0]:
                    at = to.activations + to.batch * last.units + i * last.stride
                    for j in range(last.n_out):
                        out[start + i, j] = workspace[at + j]


def gradient(
    const int64_t[:, ::1] plan, real[::1] params, X, targets, const double[::1] weights,
    const int64_t[::1] rows, objective, noise, Py_ssize_t step, real[::1] grads,
    real[:, ::1] deltas, real[:, ::1] dX, real[::1] workspace,
):
    """Write the gradient of the objective on one batch to `grads`, laid out like `params`.

    The chain rule, layer by layer from the last: ``dW = a_before^T delta``, ``db = sum delta``,
    ``delta_before = (delta W^T) * da/dz``. Each row counts by its weight, divided by the sum of the
    batch's weights. With rows in `deltas` (a record) and `dX`, these are written as well.

    Returns
    -------
    float
        The weighted mean loss of the batch, plus the penalties.
    """
    check_plan(plan, params.shape[0], sizeof(real))
    cdef Layer first = layer_of(plan, 0), last = layer_of(plan, plan.shape[0] - 1)
    cdef RowBuffer source = RowBuffer(X, first.n_in), labels = RowBuffer(targets, last.n_out, True)
    cdef Py_ssize_t n = check_data(source.rows, labels.rows, weights, rows)
    cdef Layout to = layout_of(plan, max(n, 1), 1, sizeof(real))
    cdef Objective goal = read_objective(objective)
    cdef Optimizer no_update = Optimizer(0, 0, 0, 0, 0, 0, 0, 0)
    cdef Step now = plan_step(no_update, step, 0)
    cdef Noise sources = Noise(noise.seed, noise.input_noise)
    cdef const double[::1] dropout = noise.dropout
    cdef real[:, ::1] no_state = None
    cdef Py_ssize_t block, done, m
    cdef double cost = 0, weight
    check_size("workspace", to.size, workspace.shape[0])
    check_size("grads", params.shape[0], grads.shape[0])
    if deltas.shape[0]:
        check_size("deltas", n, deltas.shape[0])
        check_size("a row of deltas", last.units + last.stride, deltas.shape[1])
    if dX.shape[0] and (dX.shape[0] != n or dX.shape[1] != first.n_in):
        raise ValueError(f"dX must be ({n}, {first.n_in}) or empty")
    if n == 0:
        grads[:] = 0
        for block in range(plan.shape[0]):
            first = layer_of(plan, block)
            penalise_part(
                goal, params, first.weights, grads, first.weights, first.n_in * first.stride
            )
    with nogil:
        weight = total_weight(weights, rows, 0, n)
        transpose_all(plan, params, workspace, to, 0, 1)
        for block in range(blocks(n, to.batch)):
            done = block * to.batch
            m = min(to.batch, n - done)
            cost += forward_batch(
                plan, params, source.rows, labels.rows, weights, rows, done, m, goal, sources,
                dropout, step, workspace, to, done, weight, 0, 1, NULL,
            )
            backward_batch(
                plan, params, no_state, m, goal, no_update, now, dropout, grads, workspace, to,
                False, done > 0, done + m == n, 0, 1, NULL,
            )
            if deltas.shape[0]:
                record_deltas(plan, workspace, to, m, deltas, done)
            if dX.shape[0]:
                input_gradient(first, params, workspace, to, m, dX, done)
        cost = cost / weight if weight > 0 else 0
        cost += penalty_of(plan, goal, params)
    return cost


cdef void record_deltas(
    const int64_t[:, ::1] plan, const real[::1] ws, Layout to, Py_ssize_t n, real[:, ::1] deltas,
    Py_ssize_t row,
) noexcept nogil:
    cdef Py_ssize_t number, i, j, at
    cdef Layer layer
    for number in range(plan.shape[0]):
        layer = layer_of(plan, number)
        for i in range(n):
            at = to.deltas + to.batch * layer.units + i * layer.stride
            for j in range(layer.n_out):
                deltas[row + i, layer.units + j] = ws[at + j]


cdef void input_gradient(
    Layer first, const real[::1] params, real[::1] ws, Layout to, Py_ssize_t n, real[:, ::1] dX,
    Py_ssize_t row,
) noexcept nogil:
    """dC/dX = delta W^T of the first layer, through the place of the gathered inputs."""
    cdef Py_ssize_t i, j
    transpose(first, params, ws, to.transposed, to.input_stride, 0, 1)
    backward_inputs(
        first, ws, to.transposed, to.deltas, to.inputs, to.input_stride, n, IDENTITY, to.inputs,
        -1, panel_of(to, 0, sizeof(real)), 0, 1,
    )
    for i in range(n):
        for j in range(first.n_in):
            dX[row + i, j] = ws[to.inputs + i * to.input_stride + j]


def update(
    const int64_t[:, ::1] plan, real[::1] params, real[::1] grads, real[:, ::1] state, optimizer,
    Py_ssize_t step, double learning_rate,
):
    """Take one step against the gradient.

    `grads` may be used up; `state` is (n_moments, len(params)); `step` counts the steps before this
    one. Decoupled decay (``weight_decay``) touches weights only.
    """
    cdef double norm = 0
    cdef Optimizer o = read_optimizer(optimizer)
    check_plan(plan, params.shape[0], sizeof(real))
    check_size("grads", params.shape[0], grads.shape[0])
    check_state(o, params.shape[0], state.shape[0], state.shape[1])
    with nogil:
        if o.clip_norm > 0:
            norm = sqrt(size_of_row(grads, 0, grads.shape[0] // 8 * 8, 0, 1))
        update_all(plan, o, plan_step(o, step, learning_rate), norm, params, state, grads, 0, 1)


cdef int check_state(
    Optimizer o, Py_ssize_t n_params, Py_ssize_t moments, Py_ssize_t length
) except -1:
    cdef Py_ssize_t needed = 2 if o.solver == ADAM else 1
    if moments < needed or length < n_params:
        raise ValueError(f"state must be ({needed}, {n_params})")
    return 0


def train_epoch(
    const int64_t[:, ::1] plan,
    real[::1] params,
    real[:, ::1] state,
    X,
    targets,
    const double[::1] weights,
    const int64_t[::1] rows,
    Py_ssize_t batch_size,
    const double[::1] learning_rates,
    Py_ssize_t step,
    objective,
    optimizer,
    noise,
    real[::1] grads,
    real[::1] workspace,
    Py_ssize_t rank=0,
    Py_ssize_t n_threads=1,
    int64_t[::1] team=None,
):
    """Take one step per batch of `rows`, in order; batch i uses ``learning_rates[i]``.

    Returns
    -------
    loss : float
        Sum over the batches of the batch's loss times its weight.
    n_steps : int
        Steps taken: fewer than there are batches if a loss was not finite, in which case the step
        that saw it was not taken.
    """
    cdef Optimizer o = read_optimizer(optimizer)
    cdef Objective goal = read_objective(objective)
    cdef Noise sources = Noise(noise.seed, noise.input_noise)
    cdef const double[::1] dropout = noise.dropout
    check_plan(plan, params.shape[0], sizeof(real))
    cdef Layer first = layer_of(plan, 0), last = layer_of(plan, plan.shape[0] - 1)
    cdef RowBuffer source = RowBuffer(X, first.n_in), labels = RowBuffer(targets, last.n_out, True)
    cdef Py_ssize_t n = check_data(source.rows, labels.rows, weights, rows), number = 0, start, m
    if rows is None:
        raise ValueError("rows must be given")
    if batch_size < 1 or not 0 <= rank < n_threads <= MAX_THREADS:
        raise ValueError("batch_size, rank or n_threads is out of range")
    if n_threads > 1 and team is None:
        raise ValueError("several threads need a team to meet in")
    batch_size = min(batch_size, max(n, 1))
    cdef Layout to = layout_of(plan, batch_size, n_threads, sizeof(real))
    cdef bint fused = batch_size <= to.batch and o.clip_norm == 0
    check_state(o, params.shape[0], state.shape[0], state.shape[1])
    check_size("workspace", to.size, workspace.shape[0])
    check_size("learning_rates", blocks(n, batch_size), learning_rates.shape[0])
    if not fused:
        check_size("grads", params.shape[0], grads.shape[0])
    if team is not None:
        check_size("team", 16, team.shape[0])
    cdef int64_t *meeting = NULL if team is None else &team[0]
    cdef Step now
    cdef double total = 0, cost, weight
    with nogil:
        if not barrier_wait(meeting, n_threads):
            n = 0  # one of the team does not come: nobody begins
        for number in range(blocks(n, batch_size)):
            start = number * batch_size
            m = min(batch_size, n - start)
            weight = total_weight(weights, rows, start, m)
            now = plan_step(o, step + number, learning_rates[number])
            cost = train_batch(
                plan, params, state, source.rows, labels.rows, weights, rows, start, m, goal, o,
                now, sources, dropout, grads, workspace, to, fused, weight, rank, n_threads,
                meeting,
            )
            if not isfinite(cost):
                break
            total += cost
            if rank == 0 and meeting is not NULL:
                meeting[TEAM_STEPS] = number + 1
        else:
            number = blocks(n, batch_size)
    return total, number
