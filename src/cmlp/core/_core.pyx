# cython: language_level=3
"""The network's arithmetic, compiled: the twin of ``reference``, function by function.

a) One body for float32 and float64 (fused types), and one source for every instruction-set level:
   setup.py compiles this file as ``_core_baseline``, ``_core_avx2`` and ``_core_avx512``. The level
   shows only in ``simd.h``, through the width of a vector and the shapes of a tile.
b) Below the ``def`` functions there is no allocation, no validation, no exception and no Python:
   callers pass arrays that they checked, and one ``workspace`` for everything in between. What does
   not depend on the number type is described by a ``Run``, once per call.
c) A matrix product is a grid of register tiles (``simd_tile.h``). What follows a product runs on the
   tile while it is in the L1 cache: the activation behind the forward product, da/dz behind the
   input gradient, penalty and optimizer behind the weight gradient, so that no gradient array is
   written or read. Clipping needs the whole gradient first, and batches over MAX_BATCH rows add
   theirs up part by part: these two use `grads`. Operands that many tiles read are copied next to
   each other first (``simd_pack.h``).
d) Threads share every phase by output tile, and meet at a barrier between phases. Each number is one
   chain of sums on one thread, so the result does not depend on the number of threads. An OpenMP
   region costs more than a small phase, and does not survive a fork.
e) Rows are padded to 64 bytes. Loops run over the padding, which saves every remainder loop; the
   padding of W, b and delta is zero and stays zero (0 - eta * 0), that of activations is noise that
   nothing reads. Rows of up to 16 bytes have functions of their own (``*_narrow_*``).
f) Loops index memoryviews, so that the debug build (CMLP_DEBUG=1) checks their bounds; a failed check
   is printed, as nothing below the seam can raise, and pytest makes a failure of it. Only products,
   copies and the vector functions take addresses.
g) ``Predictor`` is the one class: a prediction of one row takes less than it takes to acquire the
   arrays of a function's call. It cannot be pickled, so that no file names a core.

Letters: n rows of X; m rows of a tile; i inputs, j outputs (units) of a layer; at, to: offsets.
"""

from libc.math cimport INFINITY, NAN, expm1, fabs, fmax, isfinite, log, sqrt, sqrtf
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.object cimport PyObject, Py_TYPE
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_INCREF

cimport cython

import numpy

from cmlp.core import layout, vocabulary
from cmlp.core.arrays import array_of
from cmlp.core.seam import SparseRows as RowsInPython

cdef extern from "barrier.h" nogil:
    int barrier_wait(int64_t *team, int64_t n_threads)
    int64_t ATOMIC_ADD(int64_t *counter)
    void ATOMIC_STORE(int64_t *to, int64_t value)
    void relay_stop(int64_t *team)
    int stop_relayed(int64_t *team, int64_t n_threads)
    const int TEAM_STEPS

cdef extern from "ndarray.h":
    ctypedef struct dtype_t:
        char byteorder
        int number
    ctypedef struct ndarray_t:
        char *data
        int ndim
        Py_ssize_t *shape
        Py_ssize_t *strides
        dtype_t *dtype
    ctypedef object (*ndarray_empty_t)(
        int ndim, const Py_ssize_t *shape, PyObject *dtype, int fortran
    )
    ndarray_empty_t ndarray_empty_of(void **table)

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

ctypedef fused place:  # what columns and beginnings of sparse rows are
    int32_t
    int64_t

include "kernels/vectors.pxi"

name = __name__.rpartition("_")[2]
vector_bytes = vector_lanes(4) * 4

cdef enum:
    IDENTITY, LOGISTIC, TANH, RELU, LEAKY_RELU, ELU, SELU, GELU, SILU, MISH, SOFTPLUS
    HARD_SIGMOID, EXP, SOFTMAX

cdef enum:
    SQUARED, ABSOLUTE, HUBER, BINARY, CATEGORICAL, POISSON, QUANTILE, EXTERNAL

cdef enum:
    SGD, ADAM, RMSPROP, NADAM, LION

cdef enum:
    NOT_NORMALISED, BATCH, LAYERWISE

cdef enum:
    MAX_BATCH = 1024  # rows of one pass; larger batches add up passes
    PREDICT_BATCH = 128  # rows of one pass of a prediction: they fit the caches
    MAX_THREADS = 1024
    MAX_DEPTH = 2048  # of a panel: 512 kB of four AVX-512 vectors, half an L2 cache
    OUTER_SIZE = 2048  # numbers of a gradient of one row that are used at a time; they stay in L1
    PACK_TILES = 4  # tiles that read an operand before a copy of it pays
    LONG_PASS = 60_000  # million operations of a pass, from which on it can be stopped anywhere
    LARGE = 1 << 17  # bytes of a matrix from which on it is fetched ahead; a part of an L2 cache
    PREFETCH_ROWS = 4  # that far ahead of the row that is being gathered
    SMALL = 20_000  # multiply-adds of a prediction that keeps the GIL: it is let go in as much time
    KEPT = 1 << 22  # bytes of a workspace that stays from one prediction to the next
    ALIGNMENT = 64

cdef Py_ssize_t[5] tile_rows = [0, TILE_ROWS, TILE_SUMS // 2, TILE_SUMS // 3, TILE_SUMS // 4]
cdef double LEAKY_SLOPE = vocabulary.LEAKY_SLOPE
cdef double NADAM_DECAY = vocabulary.NADAM_DECAY
cdef Py_ssize_t NADAM_STEPS = vocabulary.NADAM_STEPS
cdef double NORMALIZATION_EPS = vocabulary.NORMALIZATION_EPS
cdef double NORMALIZATION_MOMENTUM = vocabulary.NORMALIZATION_MOMENTUM
cdef double SELU_SCALE = vocabulary.SELU_SCALE
cdef double SELU_FLOOR = vocabulary.SELU_SCALE * vocabulary.SELU_ALPHA


# What crosses the seam -----------------------------------------------------------------------------

cdef struct Layer:  # a row of the plan
    int64_t n_in, n_out, stride, weights, bias, activation, units  # bias < 0: there is none
    int64_t normalization, scale

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

cdef struct Noise:
    uint64_t seed
    double input_noise
    const double *dropout  # one rate per hidden layer; NULL: none
    Py_ssize_t n_rates

cdef struct Rows:  # rows of X or y, read through any strides and from any number type
    const char *data
    Py_ssize_t n, width, row_stride, column_stride
    char kind
    bint labels
    double scale  # every number is multiplied by it
    const char *indices  # of sparse rows: columns of the numbers; NULL: rows are dense
    const char *indptr  # where each row begins among them
    Py_ssize_t stored  # numbers
    bint wide  # indices and indptr are int64, not int32

cdef Rows NO_ROWS = Rows(NULL, 0, 0, 0, 0, 0, False, 1, NULL, NULL, 0, False)

cdef struct Layout:  # of the workspace, in numbers
    Py_ssize_t batch, input_stride, target_stride
    Py_ssize_t inputs, targets, activations, slopes, deltas, shares, costs
    Py_ssize_t sums, n_sums, tiles, tile_size, panels, panel_size, copies, copy_size
    Py_ssize_t normalised, statistics, units, size

cdef struct Run:  # one call: all that its phases need to know
    const Layer *layers
    Py_ssize_t n_layers
    Rows X, targets
    Py_ssize_t n  # rows that the call is about
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

cdef struct Pass:  # some rows of a batch that go through the network together
    Py_ssize_t n, first, done  # how many; the first one's place in `rows`, and in its batch
    double weight  # of the whole batch

cdef struct Step:  # what an update of one step needs, worked out once
    Py_ssize_t number
    double rate, decay, scale
    double ahead  # of Nadam: the rate of the gradient itself, beside that of its mean

cdef struct Grid:  # a product, cut into tiles; a thread works on some of them, column by column
    Py_ssize_t m, vectors, columns  # of a tile; the last ones may be smaller
    Py_ssize_t row_tiles, column_tiles, first, last
    bint by_rows


cdef inline const Layer *layers_of(const int64_t[:, ::1] plan) noexcept nogil:
    return <const Layer *>&plan[0, 0]


cdef inline Py_ssize_t padded(Py_ssize_t n, Py_ssize_t multiple) noexcept nogil:
    return blocks(n, multiple) * multiple


cdef inline Py_ssize_t blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """How many blocks of a size n things take; the last may be smaller."""
    return n // size + (n % size != 0)


cdef inline Py_ssize_t share(Py_ssize_t n, Py_ssize_t rank, Py_ssize_t n_threads) noexcept nogil:
    """Where the part of a thread begins, of n things; it ends where the next one's begins."""
    return n * rank if n_threads == 1 else n * rank // n_threads


cdef Layout layout_of(
    const int64_t[:, ::1] plan, Py_ssize_t batch_size, Py_ssize_t n_threads, Py_ssize_t itemsize
) noexcept nogil:
    cdef Layout to
    cdef const Layer *layers = layers_of(plan)
    cdef const Layer *last = &layers[plan.shape[0] - 1]
    cdef Py_ssize_t lanes = ALIGNMENT // itemsize, units = last.units + last.stride, number
    cdef Py_ssize_t columns = TILE_VECTORS * vector_lanes(itemsize), widest = layers[0].n_in
    columns = max(columns, NARROW_BYTES // itemsize)  # of a panel
    to.batch = min(batch_size, MAX_BATCH)
    to.input_stride = padded(layers[0].n_in, lanes)
    to.target_stride = last.stride
    to.n_sums = 0
    for number in range(plan.shape[0]):
        widest = max(widest, layers[number].n_out)
        to.n_sums += layers[number].n_in + 1
    to.inputs = 0
    to.targets = to.inputs + to.batch * to.input_stride
    to.activations = to.targets + to.batch * to.target_stride
    to.slopes = to.activations + to.batch * units
    to.deltas = to.slopes + to.batch * units
    to.shares = to.deltas + to.batch * units
    to.costs = to.shares + padded(to.batch, lanes)
    to.sums = to.costs + padded(to.batch, lanes)
    to.tiles = to.sums + padded(to.n_sums, lanes)
    to.tile_size = max(<Py_ssize_t>OUTER_SIZE, TILE_SUMS * vector_lanes(itemsize))
    to.panels = to.tiles + n_threads * to.tile_size
    to.panel_size = min(padded(max(widest, to.batch), lanes), MAX_DEPTH) * columns
    to.copies = to.panels + n_threads * to.panel_size
    to.copy_size = padded(widest + TILE_ROWS, lanes) * to.batch + 2 * lanes
    to.normalised = to.size = to.copies + n_threads * to.copy_size
    to.units = units
    if plan.shape[0] > 1 and layers[0].normalization:
        to.statistics = to.normalised + to.batch * units
        to.size = to.statistics + padded(
            STATISTICS * units + plan.shape[0] * to.batch, lanes
        )
    return to


cdef inline Grid grid_of(
    Py_ssize_t n, Py_ssize_t stride, Py_ssize_t itemsize, const Run *run
) noexcept nogil:
    """Cut n rows of `stride` columns into tiles, and find this thread's share of them."""
    cdef Py_ssize_t lanes = vector_lanes(itemsize), vectors = stride // lanes, tiles
    cdef Grid grid
    grid.column_tiles, grid.vectors = 1, vectors
    if vectors > TILE_VECTORS:
        grid.vectors = blocks(vectors, blocks(vectors, TILE_VECTORS))
        grid.column_tiles = blocks(vectors, grid.vectors)
    grid.columns = grid.vectors * lanes
    grid.m = tile_rows[grid.vectors]
    grid.row_tiles = blocks(n, grid.m)
    # By rows, a thread goes on with what it has computed itself; by columns, it reads less of B.
    grid.by_rows = grid.column_tiles < PACK_TILES and grid.row_tiles >= PACK_TILES * run.n_threads
    tiles = grid.row_tiles if grid.by_rows else grid.row_tiles * grid.column_tiles
    grid.first = share(tiles, run.rank, run.n_threads)
    grid.last = share(tiles, run.rank + 1, run.n_threads)
    return grid


cdef inline Py_ssize_t first_row_tile(const Grid *grid, Py_ssize_t column_tile) noexcept nogil:
    """This thread's first tile in a column of tiles; see :func:`last_row_tile`."""
    return grid.first if grid.by_rows else max(grid.first - column_tile * grid.row_tiles, 0)


cdef inline Py_ssize_t last_row_tile(const Grid *grid, Py_ssize_t column_tile) noexcept nogil:
    return grid.last if grid.by_rows else min(
        grid.last - column_tile * grid.row_tiles, grid.row_tiles
    )


cdef inline bint has_tiles(const Grid *grid, Py_ssize_t column_tile) noexcept nogil:
    """Whether this thread has work in a column of tiles."""
    return first_row_tile(grid, column_tile) < last_row_tile(grid, column_tile)


cdef int check_plan_shape(const int64_t[:, ::1] plan) except -1:
    if plan.shape[0] < 1 or plan.shape[1] != 9:
        raise ValueError("plan must have one row of 9 integers per layer")
    return 0


cdef inline bint fits_scale(const Layer *layer, Py_ssize_t n_params) noexcept nogil:
    """Whether gamma, and what is kept with it, lies inside the parameters."""
    cdef Py_ssize_t rows = 3 if layer.normalization == BATCH else 1
    return layer.stride <= n_params // rows and (
        0 <= layer.scale <= n_params - rows * layer.stride
    )


cdef int check_plan(
    const int64_t[:, ::1] plan, Py_ssize_t n_params, Py_ssize_t itemsize
) except -1:
    """The last guard in front of unchecked loops: a plan that stays inside its parameters."""
    cdef Py_ssize_t number, lanes = ALIGNMENT // itemsize, units = 0
    cdef const Layer *layer
    check_plan_shape(plan)
    for number in range(plan.shape[0]):
        layer = &layers_of(plan)[number]
        if (
            not 1 <= layer.n_out <= n_params  # first, so that nothing below overflows
            or layer.stride != padded(layer.n_out, lanes)
            or not 1 <= layer.n_in <= n_params // layer.stride
            or not 0 <= layer.weights <= layer.bias <= n_params - layer.stride
            or layer.weights + layer.n_in * layer.stride > layer.bias
            or layer.units != units
            or not IDENTITY <= layer.activation <= SOFTMAX
            or (number and layer.n_in != plan[number - 1, 1])
            or layer.normalization != (plan[0, 7] if number < plan.shape[0] - 1 else 0)
            or not NOT_NORMALISED <= layer.normalization <= LAYERWISE
            or (layer.normalization and not fits_scale(layer, n_params))
        ):
            raise ValueError(f"layer {number} of the plan does not fit {n_params} parameters")
        units += layer.stride
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


cdef object SparseRows = RowsInPython
cdef int64_t NOTHING = 0  # an address for no numbers


cdef class RowBuffer:
    """Holds the buffer of X or y for the time of a call, and describes it without Python."""
    cdef Py_buffer buffer
    cdef bint held
    cdef Rows rows
    cdef object places  # of sparse rows: memoryviews of their columns and beginnings

    def __cinit__(self, array, Py_ssize_t width, bint labels=False, double scale=1):
        if type(array) is SparseRows and not labels:
            self.hold_sparse(array, width, scale)
            return
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
            scale, NULL, NULL, 0, False,
        )

    cdef int hold_sparse(self, array, Py_ssize_t width, double scale) except -1:
        """The same for sparse rows: three vectors, whose content the loops look at themselves."""
        cdef const int32_t[::1] indices, indptr
        cdef const int64_t[::1] wide_indices, wide_indptr
        PyObject_GetBuffer(array.data, &self.buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        self.held = True
        cdef str kind = self.buffer.format.decode()
        if kind not in ("f", "d") or self.buffer.ndim != 1:
            raise ValueError(f"cannot read sparse numbers of format {kind!r}")
        if array.shape[1] != width:
            raise ValueError(f"expected rows of {width} numbers")
        cdef Rows rows = Rows(
            <const char *>self.buffer.buf, 0, width, 0, 0, <char>ord(kind), False, scale,
            NULL, NULL, self.buffer.shape[0], array.indices.dtype.itemsize == 8,
        )
        cdef Py_ssize_t n_places, n_starts
        if rows.wide:
            wide_indices, wide_indptr = array.indices, array.indptr
            self.places = (wide_indices, wide_indptr)
            n_places, n_starts = wide_indices.shape[0], wide_indptr.shape[0]
            rows.indices = <const char *>&wide_indices[0] if n_places else <const char *>&NOTHING
            rows.indptr = <const char *>&wide_indptr[0] if n_starts else NULL
        else:
            indices, indptr = array.indices, array.indptr
            self.places = (indices, indptr)
            n_places, n_starts = indices.shape[0], indptr.shape[0]
            rows.indices = <const char *>&indices[0] if n_places else <const char *>&NOTHING
            rows.indptr = <const char *>&indptr[0] if n_starts else NULL
        if n_starts < 1 or n_places != rows.stored:
            raise ValueError(
                f"{rows.stored} sparse numbers need as many columns, and beginnings of the rows"
            )
        rows.n = n_starts - 1
        self.rows = rows
        return 0

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)


include "kernels/activations.pxi"
include "kernels/gather.pxi"
include "kernels/losses.pxi"
include "kernels/forward.pxi"
include "kernels/predict.pxi"
include "kernels/updates.pxi"
include "kernels/normalization.pxi"
include "kernels/backward.pxi"
include "kernels/step.pxi"


# The seam: what Python calls -----------------------------------------------------------------------

cdef Run run_of(
    const int64_t[:, ::1] plan, Rows X, Rows targets, const double[::1] weights,
    const int64_t[::1] rows, Layout to,
):
    """Describe a call, whose arrays the caller holds; no noise, one thread."""
    cdef Run run
    run.layers, run.n_layers = layers_of(plan), plan.shape[0]
    run.X, run.targets, run.to = X, targets, to
    run.n, run.weights, run.rows = X.n, NULL, NULL
    if weights is not None and weights.shape[0]:
        run.weights = &weights[0]
    if rows is not None:
        run.n = rows.shape[0]
        if run.n:
            run.rows = &rows[0]
    run.objective = Objective(0, 0, 0, 0, 0, False, False, 1)
    run.optimizer = Optimizer(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    run.noise = Noise(0, 0, NULL, 0)
    run.fused, run.learns, run.rank, run.n_threads, run.team = False, False, 0, 1, NULL
    return run


cdef int join_team(Run *run, int64_t[::1] team) except -1:
    if team is not None:
        check_size("team", 16, team.shape[0])
        run.team = &team[0]
    return 0


cdef Objective read_objective(object o) except *:
    return Objective(
        o.loss, o.parameter, o.label_smoothing, o.l1, o.l2, o.missing, o.per_batch, o.cost_scale
    )


cdef Optimizer read_optimizer(object o) except *:
    return Optimizer(
        o.solver, o.nesterov, o.momentum, o.beta_1, o.beta_2, o.epsilon, o.weight_decay,
        o.clip_norm, o.ema, o.ema_start,
    )


cdef Noise read_noise(object o, const double[::1] dropout) except *:
    cdef Noise noise = Noise(o.seed, o.input_noise, NULL, dropout.shape[0])
    if noise.n_rates:
        noise.dropout = &dropout[0]
    return noise


def workspace_size(
    const int64_t[:, ::1] plan not None, Py_ssize_t batch_size, Py_ssize_t n_threads=1
):
    """Scratch numbers that a batch needs."""
    check_plan_shape(plan)
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


def product(
    Py_ssize_t n, Py_ssize_t depth, Py_ssize_t width, real[::1] arrays, Py_ssize_t repeats=1
):
    """Multiply two matrices as the layers do, for measurements.

    `arrays` holds (n, depth), (depth, width) and the result (n, width), one after the other, and
    behind them room for a copy: ``min(depth, 2048) * 64`` numbers. There are two rows at least, and
    `width` is a multiple of 64 bytes.
    """
    if min(n - 1, depth, width) < 1 or width * sizeof(real) % ALIGNMENT:
        raise ValueError("n must be at least 2, depth 1, and width a multiple of 64 bytes")
    if max(n, depth, width) > 1 << 20:
        raise ValueError("matrices for measurements have at most 2^20 rows and columns")
    cdef Layer layer = Layer(depth, width, width, n * depth, -1, IDENTITY, 0, 0, 0)
    cdef Run run
    run.rank, run.n_threads = 0, 1
    run.to.panels, run.to.panel_size = n * depth + depth * width + n * width, 0
    check_size("arrays", run.to.panels + min(<Py_ssize_t>MAX_DEPTH, depth) * 64, arrays.shape[0])
    cdef Py_ssize_t repeat
    with nogil:
        for repeat in range(repeats):
            forward_layer(
                &run, &layer, arrays, arrays, 0, depth, n * depth + depth * width, n, IDENTITY, -1,
                NULL,
            )


def multiply_adds(Py_ssize_t rounds, *, bint double_precision=False):
    """Multiply and add as fast as this core can; returns the floating-point operations done."""
    cdef double done
    with nogil:
        done = multiply_adds_f64(rounds) if double_precision else multiply_adds_f32(rounds)
    return done


def predict(
    const int64_t[:, ::1] plan, const real[::1] params, X, const int64_t[::1] rows,
    real[:, ::1] out, real[::1] workspace, double input_scale=1.0,
):
    """Write the output activations of the given rows of X (None: all) to `out`, (rows, n_out).

    Here and below, X is multiplied by `input_scale` as its rows are gathered.
    """
    check_plan(plan, params.shape[0], sizeof(real))
    cdef const Layer *last = &layers_of(plan)[plan.shape[0] - 1]
    cdef Layout to = layout_of(plan, PREDICT_BATCH, 1, sizeof(real))
    cdef RowBuffer source = RowBuffer(X, plan[0, 0], scale=input_scale)
    cdef Run run = run_of(plan, source.rows, NO_ROWS, None, rows, to)
    check_size("workspace", to.size, workspace.shape[0])
    if rows is not None:
        check_rows(rows, source.rows.n)
    if out.shape[0] != run.n or out.shape[1] != last.n_out:
        raise ValueError(f"out must be ({run.n}, {last.n_out})")
    if run.n:
        with nogil:
            predict_rows(&run, params, workspace, &out[0, 0], False)


def forward(
    const int64_t[:, ::1] plan, const real[::1] params, X, real[:, ::1] z, real[:, ::1] a,
    real[::1] workspace, double input_scale=1.0,
):
    """Write every layer's weighted sums and activations to the records `z` and `a`.

    A record has one row per row of X; layer l's units start at column ``plan[l, UNITS]``.
    """
    check_plan(plan, params.shape[0], sizeof(real))
    cdef const Layer *last = &layers_of(plan)[plan.shape[0] - 1]
    cdef const Layer *layer
    cdef Layout to = layout_of(plan, PREDICT_BATCH, 1, sizeof(real))
    cdef RowBuffer source = RowBuffer(X, plan[0, 0], scale=input_scale)
    cdef Run run = run_of(plan, source.rows, NO_ROWS, None, None, to)
    cdef Py_ssize_t block, start, m, i, j, number, at, x_stride
    cdef const real *x
    check_size("workspace", to.size, workspace.shape[0])
    if min(z.shape[0], a.shape[0]) < run.n:
        raise ValueError(f"a record of {run.n} rows was expected")
    check_size("a record's row", last.units + last.stride, min(z.shape[1], a.shape[1]))
    with nogil:
        for block in range(blocks(run.n, PREDICT_BATCH)):
            start = block * PREDICT_BATCH
            m = min(<Py_ssize_t>PREDICT_BATCH, run.n - start)
            x = bring_rows(&run, workspace, start, m, &x_stride)
            predict_pass(&run, params, workspace, x, x_stride, m, True, z, start)
            for number in range(run.n_layers):
                layer = &run.layers[number]
                for i in range(m):
                    at = to.activations + to.batch * layer.units + i * layer.stride
                    for j in range(layer.n_out):
                        a[start + i, layer.units + j] = workspace[at + j]


def evaluate(
    const int64_t[:, ::1] plan, const real[::1] params, X, targets, const int64_t[::1] rows,
    objective, noise, Py_ssize_t step, real[:, ::1] out, real[::1] row_loss, real[::1] workspace,
    double input_scale=1.0, int64_t[::1] team=None,
):
    """Write the outputs to `out` (unless it has no rows) and the cost of each row to `row_loss`.

    With `noise`, these are what :func:`gradient` sees at this `step`; so they are with 'batch',
    whose statistics are those of the rows, where :func:`predict` and :func:`forward` have the
    running ones. ``team[TEAM_STOP]``, set from another thread, ends the call early.
    """
    check_plan(plan, params.shape[0], sizeof(real))
    cdef const Layer *last = &layers_of(plan)[plan.shape[0] - 1]
    cdef RowBuffer source = RowBuffer(X, plan[0, 0], scale=input_scale)
    cdef RowBuffer labels = RowBuffer(targets, last.n_out, True)
    cdef const double[::1] dropout = noise.dropout, weights = None
    cdef Py_ssize_t n = check_data(source.rows, labels.rows, weights, rows)
    # Statistics of a batch are those of the same passes as in `gradient`.
    cdef Py_ssize_t batch = max(n, 1) if plan[0, 7] == BATCH else PREDICT_BATCH
    cdef Layout to = layout_of(plan, batch, 1, sizeof(real))
    cdef Run run = run_of(plan, source.rows, labels.rows, weights, rows, to)
    run.objective, run.noise = read_objective(objective), read_noise(noise, dropout)
    cdef Py_ssize_t block, start, i, j, at
    cdef Pass now
    check_size("workspace", to.size, workspace.shape[0])
    check_size("row_loss", n, row_loss.shape[0])
    if out.shape[0] and (out.shape[0] != n or out.shape[1] != last.n_out):
        raise ValueError(f"out must be ({n}, {last.n_out}) or empty")
    join_team(&run, team)
    with nogil:
        for block in range(blocks(n, to.batch)):
            start = block * to.batch
            now = Pass(min(to.batch, n - start), start, start, n)
            forward_pass(&run, &now, step, params, workspace)
            if stops(&run):
                break
            for i in range(now.n):
                row_loss[start + i] = workspace[to.costs + i]
                if out.shape[0]:
                    at = to.activations + to.batch * last.units + i * last.stride
                    for j in range(last.n_out):
                        out[start + i, j] = workspace[at + j]


def gradient(
    const int64_t[:, ::1] plan, real[::1] params, X, targets, const double[::1] weights,
    const int64_t[::1] rows, objective, noise, Py_ssize_t step, real[::1] grads,
    real[:, ::1] deltas, real[:, ::1] dX, real[::1] workspace, double input_scale=1.0,
    bint learns=False, int64_t[::1] team=None,
):
    """Write the gradient of the objective on one batch to `grads`, laid out like `params`.

    The chain rule, layer by layer from the last: ``dW = a_before^T delta``, ``db = sum delta``,
    ``delta_before = (delta W^T) * da/dz``. Each row counts by its weight, divided by the sum of the
    batch's weights. With rows in `deltas` (a record) and `dX`, these are written as well; dX is
    the derivative by X as it came, before the scale. If it `learns`, the running statistics of
    'batch' in `params` follow those of the batch. ``team[TEAM_STOP]``, set from another thread,
    ends the call early.

    Returns
    -------
    float
        The weighted mean loss of the batch, plus the penalties; NaN if the call was stopped.
    """
    check_plan(plan, params.shape[0], sizeof(real))
    cdef const Layer *first = layers_of(plan)
    cdef const Layer *last = &first[plan.shape[0] - 1]
    cdef RowBuffer source = RowBuffer(X, first.n_in, scale=input_scale)
    cdef RowBuffer labels = RowBuffer(targets, last.n_out, True)
    cdef Py_ssize_t n = check_data(source.rows, labels.rows, weights, rows)
    cdef Layout to = layout_of(plan, max(n, 1), 1, sizeof(real))
    cdef const double[::1] dropout = noise.dropout
    cdef Run run = run_of(plan, source.rows, labels.rows, weights, rows, to)
    run.objective, run.noise = read_objective(objective), read_noise(noise, dropout)
    run.learns = learns
    join_team(&run, team)
    cdef Step now
    cdef real[:, ::1] no_state = None
    cdef Py_ssize_t block, done, number
    cdef double cost = 0, weight
    cdef Pass part
    check_size("workspace", to.size, workspace.shape[0])
    check_size("grads", params.shape[0], grads.shape[0])
    if deltas.shape[0]:
        check_size("deltas", n, deltas.shape[0])
        check_size("a row of deltas", last.units + last.stride, deltas.shape[1])
    if dX.shape[0] and (dX.shape[0] != n or dX.shape[1] != first.n_in):
        raise ValueError(f"dX must be ({n}, {first.n_in}) or empty")
    weight = total_weight(&run, 0, n)
    if run.objective.per_batch:
        share_penalties(&run.objective, weight)
    if n == 0:
        grads[:] = 0
        for number in range(run.n_layers):
            penalise(
                &run.objective, params, first[number].weights, first[number].stride, grads,
                first[number].weights, first[number].stride, first[number].n_in,
                first[number].stride,
            )
    with nogil:
        now = plan_step(&run.optimizer, step, 0)
        for block in range(blocks(n, to.batch)):
            done = block * to.batch
            part = Pass(min(to.batch, n - done), done, done, weight)
            cost += forward_pass(&run, &part, step, params, workspace)
            if stops(&run) or not backward_pass(
                &run, &now, params, no_state, grads, workspace, &part, done > 0,
                done + part.n == n,
            ):
                cost = NAN
                break
            if deltas.shape[0]:
                record_deltas(&run, workspace, part.n, deltas, done)
            if dX.shape[0]:
                input_gradient(&run, params, workspace, part.n, dX, done)
        cost = run.objective.cost_scale * cost / weight if weight > 0 else 0
        cost += penalty_of(&run, params)
    return cost


cdef void record_deltas(
    const Run *run, const real[::1] ws, Py_ssize_t n, real[:, ::1] deltas, Py_ssize_t row
) noexcept nogil:
    cdef Py_ssize_t number, i, j, at
    cdef const Layer *layer
    for number in range(run.n_layers):
        layer = &run.layers[number]
        for i in range(n):
            at = run.to.deltas + run.to.batch * layer.units + i * layer.stride
            for j in range(layer.n_out):
                deltas[row + i, layer.units + j] = ws[at + j]


cdef void input_gradient(
    const Run *run, const real[::1] params, real[::1] ws, Py_ssize_t n, real[:, ::1] dX,
    Py_ssize_t row,
) noexcept nogil:
    """dC/dX = delta W^T of the first layer, by the scale of X; where the inputs were gathered."""
    cdef real scale = <real>run.X.scale
    cdef Py_ssize_t i, j, inputs = run.to.inputs, stride = run.to.input_stride
    backward_inputs(
        run, &run.layers[0], params, ws, run.to.deltas, inputs, stride, n, IDENTITY, inputs, -1
    )
    for i in range(n):
        for j in range(dX.shape[1]):
            dX[row + i, j] = ws[inputs + i * stride + j] * scale


def update(
    const int64_t[:, ::1] plan, real[::1] params, real[::1] grads, real[:, ::1] state, optimizer,
    Py_ssize_t step, double learning_rate,
):
    """Take one step against the gradient.

    `grads` may be used up; `state` is (n_moments, len(params)), with one more row for the mean of
    the parameters if ``optimizer.ema``; `step` counts the steps before this one. Decoupled decay
    (``weight_decay``) touches weights only.
    """
    check_plan(plan, params.shape[0], sizeof(real))
    cdef Py_ssize_t lanes = vector_lanes(sizeof(real))
    cdef double norm = 0
    cdef Step now
    cdef Run run = run_of(
        plan, NO_ROWS, NO_ROWS, None, None, layout_of(plan, 1, 1, sizeof(real))
    )
    run.optimizer = read_optimizer(optimizer)
    check_size("grads", params.shape[0], grads.shape[0])
    check_state(&run.optimizer, params.shape[0], state.shape[0], state.shape[1])
    with nogil:
        if run.optimizer.clip_norm > 0:
            norm = sqrt(size_of(&grads[0], grads.shape[0] // lanes * lanes, 0, 1))
        now = plan_step(&run.optimizer, step, learning_rate)
        update_all(&run, now, norm, params, state, grads)
        if run.optimizer.ema > 0:
            average(&run, &now, params, state)


cdef int check_state(
    const Optimizer *o, Py_ssize_t n_params, Py_ssize_t moments, Py_ssize_t length
) except -1:
    cdef Py_ssize_t needed = n_moments(o.solver) + (o.ema > 0)
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
    double input_scale=1.0,
    double[::1] losses=None,
):
    """Take one step per batch of `rows`, in order; batch i uses ``learning_rates[i]``.

    With `losses`, `rows` are as many epochs of equal length, and no batch is of two: each one's sum
    is written there.

    Returns
    -------
    loss : float
        Sum over the batches of the batch's loss times its weight (``per_batch``: its rows).
    n_steps : int
        Steps taken: fewer than there are batches if a loss was not finite, or if another thread
        has set ``team[TEAM_STOP]``; the step that saw it was not taken.
    """
    check_plan(plan, params.shape[0], sizeof(real))
    cdef Py_ssize_t n_out = plan[plan.shape[0] - 1, 1]
    cdef RowBuffer source = RowBuffer(X, plan[0, 0], scale=input_scale)
    cdef RowBuffer labels = RowBuffer(targets, n_out, True)
    cdef const double[::1] dropout = noise.dropout
    cdef Py_ssize_t n = check_data(source.rows, labels.rows, weights, rows), number = 0, start = 0
    cdef Py_ssize_t n_epochs = 1 if losses is None else losses.shape[0], epoch = 0, end, size
    if rows is None:
        raise ValueError("rows must be given")
    if n_epochs < 1 or n % n_epochs:
        raise ValueError(f"{n} rows are not {n_epochs} epochs of equal length")
    end = n // n_epochs
    if batch_size < 1 or not 0 <= rank < n_threads <= MAX_THREADS:
        raise ValueError("batch_size, rank or n_threads is out of range")
    if n_threads > 1 and team is None:
        raise ValueError("several threads need a team to meet in")
    batch_size = min(batch_size, max(end, 1))
    cdef Py_ssize_t n_steps = n_epochs * blocks(end, batch_size)
    cdef Layout to = layout_of(plan, batch_size, n_threads, sizeof(real))
    cdef Run run = run_of(plan, source.rows, labels.rows, weights, rows, to)
    run.objective, run.noise = read_objective(objective), read_noise(noise, dropout)
    run.optimizer = read_optimizer(optimizer)
    run.fused = (
        batch_size <= to.batch and run.optimizer.clip_norm == 0
        and 6 * products_of(&run) * batch_size < LONG_PASS * 1e6
    )
    run.learns, run.rank, run.n_threads = True, rank, n_threads
    check_state(&run.optimizer, params.shape[0], state.shape[0], state.shape[1])
    check_size("workspace", to.size, workspace.shape[0])
    check_size("learning_rates", n_steps, learning_rates.shape[0])
    if not run.fused:
        check_size("grads", params.shape[0], grads.shape[0])
    join_team(&run, team)
    cdef Step now
    cdef double total = 0, in_epoch = 0, cost, weight = 0
    cdef Objective whole = run.objective
    cdef unsigned int denormals
    cdef bint plain_rows = takes_plain_rows(&run)
    with nogil:
        denormals = flush_denormals()
        if not meet(&run):
            n_steps = 0  # one of the team does not come: nobody begins
        for number in range(n_steps):
            size = min(batch_size, end - start)
            now = plan_step(&run.optimizer, step + number, learning_rates[number])
            if whole.per_batch:
                weight = total_weight(&run, start, size)
                run.objective = whole
                share_penalties(&run.objective, weight)
            if plain_rows:
                cost = train_row(&run, &now, params, state, start, workspace)
            else:
                cost = train_batch(&run, &now, params, state, start, size, grads, workspace)
            if not isfinite(cost):
                break
            if whole.per_batch and weight > 0:
                cost *= size / weight
            total += cost
            in_epoch += cost
            start += size
            if rank == 0 and run.team is not NULL:
                run.team[TEAM_STEPS] = number + 1
            if start == end:
                if rank == 0 and losses is not None:
                    losses[epoch] = in_epoch
                in_epoch, epoch, end = 0, epoch + 1, end + n // n_epochs
        else:
            number = n_steps
        restore_denormals(denormals)
    return total, number


find_numpy()
