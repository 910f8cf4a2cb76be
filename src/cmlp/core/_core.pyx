# cython: language_level=3
"""The network's arithmetic, compiled: the twin of ``reference``, function by function.

This file is the seam, with what a call of each function does; what they share is in ``kernels``.
The NumPy twin has the formulas, and ``cmlp.core`` the letters and shapes. Decisions:

a) One body for float32 and float64 (fused types, in the functions ``*_in``; the ``def`` before each
   reads the arguments once for both, which keeps a level 47 kB smaller, compressed), and one source
   for every instruction-set level: setup.py compiles this file as ``_core_baseline``,
   ``_core_avx2`` and ``_core_avx512``. The level shows only in ``simd.h``, through the width of a
   vector and the shapes of a tile.
b) Below the ``def`` functions there is no allocation, no validation, no exception and no Python:
   callers pass arrays that they checked, and one ``workspace`` for everything in between. What does
   not depend on the number type is described by a ``Run``, once per call.
c) A matrix product is a grid of register tiles (``simd_tile.h``). What follows a product runs on the
   tile while it is in the L1 cache: the activation after the forward product, da/dz after the
   input gradient, penalty and optimizer after the weight gradient, so that no gradient array is
   written or read. Clipping needs the whole gradient first, and batches over MAX_BATCH rows add
   theirs up part by part: these two use `grads`. Operands that many tiles read are copied next to
   each other first (``simd_pack.h``).
d) Threads share every phase by output tile, and meet at a barrier between phases. Each number is one
   chain of sums on one thread, so the result does not depend on the number of threads. An OpenMP
   region costs more than a small phase, and does not survive a fork.
e) Rows are padded to 64 bytes. Loops run over the padding, which saves every remainder loop; the
   padding of W, b and delta is zero and stays zero (0 - eta * 0), that of activations is noise that
   nothing reads. Rows of up to 16 bytes have functions of their own (``*_narrow_*``).
f) Loops index memoryviews, so that the debug build (CMLP_DEBUG=1) checks their bounds; a failed
   check is printed, as nothing below the seam can raise, and pytest turns that into a failure. Only
   products, copies and the vector functions take addresses.
g) ``Predictor`` and ``BoundTrainer`` are classes: a prediction of one row, or a step of a small net,
   takes less than it takes to acquire the arrays of a function's call. They cannot be pickled, so that
   no file names a core.

More letters: m rows of a tile; at, to: offsets; ws: the workspace.
"""

from libc.math cimport INFINITY, NAN, expm1, fabs, fmax, fmin, isfinite, log, sqrt, sqrtf
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdint cimport INT32_MAX, INT64_MAX
from libc.string cimport memcpy, memset
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.object cimport PyObject, Py_TYPE
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_INCREF

cimport cython

import numpy

from cmlp.core import groups, layout, seam, vocabulary
from cmlp.core.arrays import array_of

ctypedef fused real:
    float
    double

name = __name__.rpartition("_")[2]

include "kernels/vectors.pxi"
include "kernels/rows.pxi"
include "kernels/run.pxi"
include "kernels/guards.pxi"
include "kernels/bfloat16.pxi"
include "kernels/activations.pxi"
include "kernels/noise.pxi"
include "kernels/gather.pxi"
include "kernels/embed.pxi"
include "kernels/periodic.pxi"
include "kernels/front.pxi"
include "kernels/losses.pxi"
include "kernels/forward.pxi"
include "kernels/predict.pxi"
include "kernels/ndarray.pxi"
include "kernels/predictor.pxi"
include "kernels/updates.pxi"
include "kernels/normalization.pxi"
include "kernels/parametric.pxi"
include "kernels/backward.pxi"
include "kernels/step.pxi"
include "kernels/lanes.pxi"
include "kernels/lanes_step.pxi"
include "kernels/bounds.pxi"
include "kernels/bound_trainer.pxi"

vector_bytes = vector_lanes(4) * 4
cdef bint bfloat16_runs = words_run()
bfloat16 = bfloat16_runs


# The seam: what Python calls -----------------------------------------------------------------------

cdef bint in_doubles(array) except -1:
    """Whether an array holds float64. One of neither type is refused as it is bound."""
    if not hasattr(array, "itemsize"):
        raise TypeError(f"arrays were expected, of float32 or float64, not {type(array).__name__}")
    return array.itemsize == 8


def workspace_size(
    const int64_t[:, ::1] plan not None, Py_ssize_t batch_size, Py_ssize_t n_threads=1
):
    """Return how many scratch numbers a batch needs."""
    check_plan_shape(plan)
    if not 1 <= n_threads <= MAX_THREADS:
        raise ValueError(f"n_threads must be from 1 to {MAX_THREADS}")
    batch_size = max(batch_size, PREDICT_BATCH)
    return max(
        layout_of(plan, batch_size, n_threads, 4).size,
        layout_of(plan, batch_size, n_threads, 8).size,
    )


def product(Py_ssize_t n, Py_ssize_t depth, Py_ssize_t width, arrays, Py_ssize_t repeats=1):
    """Multiply two matrices as the layers do, for measurements.

    `arrays` holds (n, depth), (depth, width) and the result (n, width), one after the other, and
    then room for a copy: ``min(depth, 2048) * 64`` numbers. There are two rows at least, and
    `width` is a multiple of 64 bytes.
    """
    if in_doubles(arrays):
        return product_in[double](n, depth, width, arrays, repeats)
    return product_in[float](n, depth, width, arrays, repeats)


cdef product_in(
    Py_ssize_t n, Py_ssize_t depth, Py_ssize_t width, real[::1] arrays, Py_ssize_t repeats,
):
    if min(n - 1, depth, width) < 1 or width * sizeof(real) % ALIGNMENT:
        raise ValueError("n must be at least 2, depth 1, and width a multiple of 64 bytes")
    if max(n, depth, width) > 1 << 20:
        raise ValueError("matrices for measurements have at most 2^20 rows and columns")
    cdef Layer layer
    cdef Run run
    memset(&layer, 0, sizeof(Layer))
    memset(&run, 0, sizeof(Run))
    layer.n_in, layer.n_out, layer.stride = depth, width, width
    layer.weights, layer.bias, run.n_threads = n * depth, -1, 1
    run.to.panels = n * depth + depth * width + n * width
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
    const int64_t[:, ::1] plan, params, X, const int64_t[::1] rows, out, workspace,
    double input_scale=1.0,
):
    """Write the output activations of the given rows of X (None: all) to `out`, (rows, n_out).

    Here and below, X is multiplied by `input_scale` as its rows are gathered.
    """
    if in_doubles(params):
        return predict_in[double](plan, params, X, rows, out, workspace, input_scale)
    return predict_in[float](plan, params, X, rows, out, workspace, input_scale)


cdef predict_in(
    const int64_t[:, ::1] plan, const real[::1] params, X, const int64_t[::1] rows,
    real[:, ::1] out, real[::1] workspace, double input_scale,
):
    check_plan(plan, params.shape[0], sizeof(real))
    cdef const Layer *first = layers_of(plan)
    cdef const Layer *last = last_layer(plan)
    cdef Layout to = layout_of(plan, PREDICT_BATCH, 1, sizeof(real))
    cdef RowBuffer source = RowBuffer(X, front_of(plan).n_columns, scale=input_scale)
    cdef Run run = run_of(plan, source.rows, NO_ROWS, None, rows, to)
    check_size("workspace", to.size, workspace.shape[0])
    if rows is not None:
        check_rows(rows, source.rows.n)
    if out.shape[0] != run.n or out.shape[1] != last.n_out:
        raise ValueError(f"out must be ({run.n}, {last.n_out})")
    if run.n:
        with nogil:
            predict_rows(&run, params, workspace, &out[0, 0], False)


def forward(const int64_t[:, ::1] plan, params, X, z, a, workspace, double input_scale=1.0):
    """Write every layer's weighted sums and activations to the records `z` and `a`.

    A record has one row per row of X; layer l's units start at column ``plan[l, UNITS]``.
    """
    if in_doubles(params):
        return forward_in[double](plan, params, X, z, a, workspace, input_scale)
    return forward_in[float](plan, params, X, z, a, workspace, input_scale)


cdef forward_in(
    const int64_t[:, ::1] plan, const real[::1] params, X, real[:, ::1] z, real[:, ::1] a,
    real[::1] workspace, double input_scale,
):
    check_plan(plan, params.shape[0], sizeof(real))
    cdef const Layer *first = layers_of(plan)
    cdef const Layer *last = last_layer(plan)
    cdef const Layer *layer
    cdef Layout to = layout_of(plan, PREDICT_BATCH, 1, sizeof(real))
    cdef RowBuffer source = RowBuffer(X, front_of(plan).n_columns, scale=input_scale)
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
            x = expand_rows(&run, params, workspace, x, &x_stride, m)
            predict_pass(&run, params, workspace, x, x_stride, m, True, z, start)
            for number in range(run.n_layers):
                layer = &run.layers[number]
                for i in range(m):
                    at = to.activations + to.batch * layer.units + i * layer.stride
                    for j in range(layer.n_out):
                        a[start + i, layer.units + j] = workspace[at + j]


def evaluate(
    const int64_t[:, ::1] plan, params, X, targets, const int64_t[::1] rows, objective, noise,
    Py_ssize_t step, out, row_loss, workspace, double input_scale=1.0, int64_t[::1] team=None,
    Py_ssize_t first_row=0,
):
    """Write the outputs to `out` (unless it has no rows) and the cost of each row to `row_loss`.

    With `noise`, these are what :func:`gradient` computes at this `step`; so they are with
    'batch', whose statistics are those of the rows, where :func:`predict` and :func:`forward` use
    the running ones. ``team[TEAM_STOP]``, set from another thread, ends the call early. Noise is
    that of rows `first_row` on of a batch.
    """
    if in_doubles(params):
        return evaluate_in[double](
            plan, params, X, targets, rows, objective, noise, step, out, row_loss, workspace,
            input_scale, team, first_row,
        )
    return evaluate_in[float](
        plan, params, X, targets, rows, objective, noise, step, out, row_loss, workspace,
        input_scale, team, first_row,
    )


cdef evaluate_in(
    const int64_t[:, ::1] plan, const real[::1] params, X, targets, const int64_t[::1] rows,
    objective, noise, Py_ssize_t step, real[:, ::1] out, real[::1] row_loss, real[::1] workspace,
    double input_scale, int64_t[::1] team, Py_ssize_t first_row,
):
    check_plan(plan, params.shape[0], sizeof(real))
    cdef const Layer *first = layers_of(plan)
    cdef const Layer *last = last_layer(plan)
    cdef RowBuffer source = RowBuffer(X, front_of(plan).n_columns, scale=input_scale)
    cdef RowBuffer labels = RowBuffer(targets, last.n_out, True)
    cdef const double[::1] dropout = noise.dropout, weights = None
    cdef Py_ssize_t n = check_data(source.rows, labels.rows, weights, rows)
    # Statistics of a batch are those of the same passes as in `gradient`.
    cdef Py_ssize_t batch = max(n, 1) if first.normalization == BATCH else PREDICT_BATCH
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
            now = Pass(min(to.batch, n - start), start, first_row + start, n)
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
    const int64_t[:, ::1] plan, params, X, targets, const double[::1] weights,
    const int64_t[::1] rows, objective, noise, Py_ssize_t step, grads, deltas, dX, workspace,
    double input_scale=1.0, bint learns=False, int64_t[::1] team=None, Py_ssize_t first_row=0,
    Py_ssize_t rank=0, Py_ssize_t n_threads=1, double whole=0.0,
):
    """Write the gradient of the objective on one batch to `grads`, laid out like `params`.

    The chain rule, layer by layer from the last: ``dW = a_before^T delta``, ``db = sum delta``,
    ``delta_before = (delta W^T) * da/dz``. Each row counts by its weight, divided by the sum of the
    batch's weights. With rows in `deltas` (a record) and `dX`, these are written as well; dX is
    the derivative by X before the scale. If it `learns`, the running statistics of 'batch' in
    `params` are updated with those of the batch. ``team[TEAM_STOP]``, set from another thread,
    ends the call early. Dropout and noise are those of rows `first_row` on of a batch, of which
    other machines have the rest, and whose weight is `whole`, if above 0. Several threads call with
    a `team`, each with its `rank`; deltas and dX are for one.

    Returns
    -------
    float
        The weighted mean loss of the batch, plus the penalties; NaN if the call was stopped.
    """
    if in_doubles(params):
        return gradient_in[double](
            plan, params, X, targets, weights, rows, objective, noise, step, grads, deltas, dX,
            workspace, input_scale, learns, team, first_row, rank, n_threads, whole,
        )
    return gradient_in[float](
        plan, params, X, targets, weights, rows, objective, noise, step, grads, deltas, dX,
        workspace, input_scale, learns, team, first_row, rank, n_threads, whole,
    )


cdef gradient_in(
    const int64_t[:, ::1] plan, real[::1] params, X, targets, const double[::1] weights,
    const int64_t[::1] rows, objective, noise, Py_ssize_t step, real[::1] grads,
    real[:, ::1] deltas, real[:, ::1] dX, real[::1] workspace, double input_scale, bint learns,
    int64_t[::1] team, Py_ssize_t first_row, Py_ssize_t rank, Py_ssize_t n_threads, double whole,
):
    check_plan(plan, params.shape[0], sizeof(real))
    cdef const Layer *first = layers_of(plan)
    cdef const Layer *last = last_layer(plan)
    cdef RowBuffer source = RowBuffer(X, front_of(plan).n_columns, scale=input_scale)
    cdef RowBuffer labels = RowBuffer(targets, last.n_out, True)
    cdef Py_ssize_t n = check_data(source.rows, labels.rows, weights, rows)
    if not 0 <= rank < n_threads <= MAX_THREADS or (n_threads > 1 and team is None):
        raise ValueError("rank or n_threads is out of range, or the threads have no team")
    cdef Layout to = layout_of(plan, max(n, 1), n_threads, sizeof(real))
    cdef const double[::1] dropout = noise.dropout
    cdef Run run = run_of(plan, source.rows, labels.rows, weights, rows, to)
    run.objective, run.noise = read_objective(objective), read_noise(noise, dropout)
    run.learns, run.rank, run.n_threads = learns, rank, n_threads
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
    if dX.shape[0] and (dX.shape[0] != n or dX.shape[1] != run.front.n_columns):
        raise ValueError(f"dX must be ({n}, {run.front.n_columns}) or empty")
    weight = whole if whole > 0 else total_weight(&run, 0, n)
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
        if not barrier(&run):
            n = 0  # a thread failed to start
        for block in range(blocks(n, to.batch)):
            done = block * to.batch
            part = Pass(min(to.batch, n - done), done, first_row + done, weight)
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


def update(
    const int64_t[:, ::1] plan, params, grads, state, optimizer, Py_ssize_t step,
    double learning_rate,
):
    """Take one step against the gradient.

    `grads` may be overwritten; `state` is (n_moments, len(params)), with one more row for the mean
    of the parameters if ``optimizer.ema``; `step` counts the steps before this one. Decoupled decay
    (``weight_decay``) applies to weights and tables of levels only, unless ``optimizer.factors``
    has others.
    """
    if in_doubles(params):
        return update_in[double](plan, params, grads, state, optimizer, step, learning_rate)
    return update_in[float](plan, params, grads, state, optimizer, step, learning_rate)


cdef update_in(
    const int64_t[:, ::1] plan, real[::1] params, real[::1] grads, real[:, ::1] state, optimizer,
    Py_ssize_t step, double learning_rate,
):
    check_plan(plan, params.shape[0], sizeof(real))
    cdef Py_ssize_t lanes = vector_lanes(sizeof(real))
    cdef double norm = 0
    cdef Step now
    cdef Run run = run_of(
        plan, NO_ROWS, NO_ROWS, None, None, layout_of(plan, 1, 1, sizeof(real))
    )
    cdef const double[:, ::1] factors = optimizer.factors
    run.optimizer = read_optimizer(optimizer, factors, layers_in(plan))
    check_size("grads", params.shape[0], grads.shape[0])
    check_state(&run.optimizer, params.shape[0], state.shape[0], state.shape[1])
    with nogil:
        if run.optimizer.clip_norm > 0:
            norm = sqrt(size_of(&grads[0], grads.shape[0] // lanes * lanes, 0, 1))
        now = plan_step(&run.optimizer, step, learning_rate)
        update_all(&run, now, norm, params, state, grads)
        if run.optimizer.ema > 0:
            average(&run, &now, params, state)


def train_epoch(
    const int64_t[:, ::1] plan, params, state, X, targets, const double[::1] weights,
    const int64_t[::1] rows, Py_ssize_t batch_size, const double[::1] learning_rates,
    Py_ssize_t step, objective, optimizer, noise, grads, workspace, Py_ssize_t rank=0,
    Py_ssize_t n_threads=1, int64_t[::1] team=None, double input_scale=1.0,
    double[::1] losses=None, const double[::1] dropout_factors=None,
    const double[::1] decay_factors=None,
):
    """Take one step per batch of `rows`, in order; batch i uses ``learning_rates[i]``.

    With `losses`, `rows` are as many epochs of equal length, no batch crosses from one into the
    next, and each epoch's sum is written there. `dropout_factors` and `decay_factors` multiply the
    rates of dropout, which must stay below 1, and the weight decay: one factor per step.

    Returns
    -------
    loss : float
        Sum over the batches of the batch's loss times its weight (``per_batch``: its rows).
    n_steps : int
        Steps taken: fewer than there are batches if a loss was not finite, or if another thread
        has set ``team[TEAM_STOP]``; the step in which that happened is not taken.
    """
    if in_doubles(params):
        return train_epoch_in[double](
            plan, params, state, X, targets, weights, rows, batch_size, learning_rates, step,
            objective, optimizer, noise, grads, workspace, rank, n_threads, team, input_scale,
            losses, dropout_factors, decay_factors,
        )
    return train_epoch_in[float](
        plan, params, state, X, targets, weights, rows, batch_size, learning_rates, step,
        objective, optimizer, noise, grads, workspace, rank, n_threads, team, input_scale, losses,
        dropout_factors, decay_factors,
    )


cdef train_epoch_in(
    const int64_t[:, ::1] plan, real[::1] params, real[:, ::1] state, X, targets,
    const double[::1] weights, const int64_t[::1] rows, Py_ssize_t batch_size,
    const double[::1] learning_rates, Py_ssize_t step, objective, optimizer, noise,
    real[::1] grads, real[::1] workspace, Py_ssize_t rank, Py_ssize_t n_threads, int64_t[::1] team,
    double input_scale, double[::1] losses, const double[::1] dropout_factors,
    const double[::1] decay_factors,
):
    check_plan(plan, params.shape[0], sizeof(real))
    cdef const Layer *first = layers_of(plan)
    cdef Py_ssize_t n_out = last_layer(plan).n_out
    cdef RowBuffer source = RowBuffer(X, front_of(plan).n_columns, scale=input_scale)
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
    cdef const double[:, ::1] factors = optimizer.factors
    run.optimizer = read_optimizer(optimizer, factors, layers_in(plan))
    run.fused = (
        batch_size <= to.batch and run.optimizer.clip_norm == 0
        and 6 * products_of(&run) * batch_size < LONG_PASS * 1e6
    )
    run.learns, run.rank, run.n_threads = True, rank, n_threads
    check_state(&run.optimizer, params.shape[0], state.shape[0], state.shape[1])
    check_size("workspace", to.size, workspace.shape[0])
    check_size("learning_rates", n_steps, learning_rates.shape[0])
    check_schedule("dropout_factors", dropout_factors, n_steps)
    check_schedule("decay_factors", decay_factors, n_steps)
    if not run.fused or run.front.n_parts:
        check_size("grads", params.shape[0], grads.shape[0])
    join_team(&run, team)
    cdef Step now
    cdef double total = 0, in_epoch = 0, cost, weight = 0
    cdef Objective whole = run.objective
    cdef unsigned int denormals
    cdef bint plain_rows = takes_plain_rows(&run)
    with nogil:
        denormals = flush_denormals()
        if not barrier(&run):
            n_steps = 0  # a thread failed to start: run no step
        for number in range(n_steps):
            size = min(batch_size, end - start)
            if dropout_factors is not None:
                run.noise.now = dropout_factors[number]
            if decay_factors is not None:
                run.optimizer.decay_now = decay_factors[number]
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


check_codes()
find_numpy()
