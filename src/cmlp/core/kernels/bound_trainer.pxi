# The seam's class of training steps ----------------------------------------------------------------

@cython.final
cdef class BoundTrainer:
    """BoundTrainer(plan, params, state, objective, optimizer, noise, input_scale, limits)
--

    Take training steps, one batch a call, with the preparations made once.

    What :func:`train_epoch` takes at every call is read here once: a step writes to `params` and
    `state`, always these arrays and on this core. `limits` are those of what needs no closer look,
    see :class:`cmlp.core.seam.Limits`. A trainer is for one thread at a time, and cannot be pickled
    or copied.

    Attributes
    ----------
    steps : int
        Steps taken with this state; the caller writes it before a step, and reads it after one.
    """

    cdef const int64_t[:, ::1] plan
    cdef float[::1] params_f32, workspace_f32  # either these; a gradient is before the workspace
    cdef float[:, ::1] state_f32
    cdef double[::1] params_f64, workspace_f64  # or these
    cdef double[:, ::1] state_f64
    cdef double[::1] numbers  # for the targets as they are checked, the weights, the labels
    cdef Run run
    cdef int64_t calls  # under way
    cdef Py_ssize_t n_in, n_out, n_params, n_gradient, itemsize, room, most_rows, most_room
    cdef double scale, low, high, work
    cdef double largest_x, largest_y  # of a batch that is to be bounded
    cdef bint plain, has_bounds, is_sure
    cdef object dtype, held  # arrays of the optimizer and the noise
    cdef public Py_ssize_t steps

    def __cinit__(
        self, plan not None, params, state, objective, optimizer, noise, double input_scale, limits
    ):
        cdef const int64_t[:, ::1] given = plan
        cdef const double[::1] dropout = noise.dropout
        cdef const double[:, ::1] factors = optimizer.factors
        cdef Py_ssize_t moments
        check_plan_shape(given)
        self.plan = numpy.array(given)  # a copy: what has been checked stays so
        self.held = noise.dropout, optimizer.factors
        if in_doubles(params):
            self.params_f64, self.state_f64 = params, state
            self.n_params, moments = self.state_f64.shape[1], self.state_f64.shape[0]
        else:
            self.params_f32, self.state_f32 = params, state
            self.n_params, moments = self.state_f32.shape[1], self.state_f32.shape[0]
        self.itemsize, self.dtype = params.itemsize, params.dtype
        self.n_params = min(self.n_params, <Py_ssize_t>len(params))
        check_plan(self.plan, self.n_params, self.itemsize)
        self.run = run_of(
            self.plan, NO_ROWS, NO_ROWS, None, None, layout_of(self.plan, 1, 1, self.itemsize)
        )
        self.run.to.batch = 0
        self.run.objective, self.run.noise = read_objective(objective), read_noise(noise, dropout)
        self.run.optimizer = read_optimizer(optimizer, factors, layers_in(self.plan))
        check_state(&self.run.optimizer, self.n_params, moments, self.n_params)
        if self.run.objective.per_batch or self.run.optimizer.ema > 0:
            raise ValueError("single steps have no penalties per batch and no mean of the weights")
        self.run.fused, self.run.learns = self.run.optimizer.clip_norm == 0, True
        self.n_gradient = 0 if self.run.fused and not self.run.front.n_parts else self.n_params
        self.n_in, self.n_out = self.run.front.n_columns, last_layer(self.plan).n_out
        self.has_bounds = has_bounds(&self.run)
        self.work = 3 * products_of(&self.run)
        self.scale, self.plain, self.low, self.high = (
            input_scale, limits.plain, limits.low, limits.high
        )
        # A pass of more rows than these has gradients of several passes, or can be stopped inside.
        self.most_rows = min(<Py_ssize_t>limits.rows, <Py_ssize_t>MAX_BATCH)
        self.most_rows = min(self.most_rows, <Py_ssize_t>(LONG_PASS * 5e5 / self.work))
        self.most_room, self.room, self.calls, self.steps = limits.bytes // self.itemsize, 0, 0, 0
        if 0 < limits.reserved <= self.most_rows:
            self.lay_out(limits.reserved)

    def __reduce__(self):
        raise TypeError("a trainer cannot be pickled or copied: do so with its network")

    @cython.binding(False)  # the quickest way to call a method, and the same in every build
    @cython.always_allow_keywords(False)
    def take(self, X, y, weights, double rate, rng, bint encoded, bint surely):
        """Take one step on rows X, (n, n_in), with targets y; return their loss times its weight.

        `weights` are those of the rows, (n,), or None. `rng` draws the seed of noise. Targets that
        are `encoded` for the core are read as they are. If the loss is not finite, no step is
        taken.

        None is returned, and nothing has changed, where something needs a closer look: arrays
        of another kind or shape, a number that may not be finite, a target out of range, too many
        rows; or another thread is in a call. The caller then checks X and y itself. None is also
        returned if the weights have to be finite `surely` after the step, and bounds on the numbers
        in it do not prove that they are.
        """
        cdef double cost
        if empty_array is NULL or ATOMIC_ADD(&self.calls):
            return None
        try:
            if surely and not (self.has_bounds and weights is None):
                return None
            if not self.prepare(X, y, weights, encoded, surely):
                return None
            if self.run.noise.n_rates or self.run.noise.input_noise > 0:
                self.run.noise.seed = rng.integers(2**63)
            if self.run.n * self.work < SMALL:
                cost = self.train(rate, surely)
            else:
                with nogil:
                    cost = self.train(rate, surely)
            if not self.is_sure:
                return None
            if isfinite(cost):
                self.steps += 1
        finally:
            ATOMIC_STORE(&self.calls, 0)
        return cost

    cdef double train(self, double rate, bint surely) noexcept nogil:
        """Take the step; if it has to be a safe one, only if `is_sure` is true afterwards."""
        cdef unsigned int denormals = flush_denormals()
        cdef Step now = plan_step(&self.run.optimizer, self.steps, rate)
        cdef double cost = 0
        self.is_sure = not surely or self.stays_finite(&now)
        if not self.is_sure:
            pass
        elif self.itemsize == 4:
            cost = train_once(
                &self.run, &now, self.params_f32, self.state_f32, self.workspace_f32,
                self.n_gradient,
            )
        else:
            cost = train_once(
                &self.run, &now, self.params_f64, self.state_f64, self.workspace_f64,
                self.n_gradient,
            )
        restore_denormals(denormals)
        return cost

    cdef bint stays_finite(self, const Step *now) noexcept nogil:
        if self.itemsize == 4:
            return stays_finite(
                &self.run, now, self.params_f32, self.state_f32, self.largest_x, self.largest_y
            )
        return stays_finite(
            &self.run, now, self.params_f64, self.state_f64, self.largest_x, self.largest_y
        )

    cdef int prepare(self, X, y, weights, bint encoded, bint bounds) except -1:
        """Describe the batch, and return whether a step can be taken on it as it is.

        If it has to have `bounds`, the largest numbers of X and y are found.
        """
        cdef Rows x, targets
        cdef Py_ssize_t n
        if see_rows(X, &x) != 2 or x.width != self.n_in or not 1 <= x.n <= self.most_rows:
            return False
        n = x.n
        if n == 1 and self.run.layers.normalization == BATCH:
            return False
        if n != self.run.to.batch and not self.lay_out(n):
            return False
        self.run.X, self.run.n, self.run.rows = x, n, NULL
        self.run.X.scale = self.scale
        self.largest_y = 1
        if not self.see_targets(y, &targets, encoded):
            return False
        self.run.targets, self.run.weights = targets, NULL
        if weights is not None and not self.see_weights(weights):
            return False
        if x.kind != b"f" and x.kind != b"d":
            self.largest_x = fmax(self.scale, 1) * largest_integer(x.kind)
            return True  # integers are finite
        if bounds:
            self.largest_x = fmax(self.scale, 1) * (
                largest_of(&self.run, self.workspace_f32[self.n_gradient:]) if self.itemsize == 4
                else largest_of(&self.run, self.workspace_f64[self.n_gradient:])
            )
            return True
        if self.itemsize == 4:
            return is_moderate(&self.run, self.workspace_f32[self.n_gradient:])
        return is_moderate(&self.run, self.workspace_f64[self.n_gradient:])

    cdef bint see_targets(self, object y, Rows *targets, bint encoded) noexcept:
        """Describe targets; False for those that are not class numbers, or numbers in the range."""
        cdef Py_ssize_t dimensions = see_rows(y, targets), n = self.run.n, i
        cdef Rows column = targets[0]
        cdef int64_t *labels
        if dimensions == 0 or (<const ndarray_t *><PyObject *>y).dtype.number == 0:  # truth values
            return False
        if dimensions == 1:
            targets.n, targets.row_stride = column.width, column.column_stride
            targets.width, targets.column_stride = 1, 0
        if targets.n != n:
            return False
        if targets.width > 1 or self.n_out == 1:
            return (
                targets.width == self.n_out and (self.n_out > 1 or self.plain or encoded)
                and self.in_range(targets)
            )
        if not (self.plain or encoded) or column.kind == b"f" or column.kind == b"d":
            return False
        if column.kind != b"q":
            column.width, column.column_stride = n, targets.row_stride  # as if it were a row
            gather_row(&column, 0, self.numbers, 0)
            labels = <int64_t *>&self.numbers[self.numbers.shape[0] - n]
            for i in range(n):
                if not 0 <= self.numbers[i] < self.n_out:
                    return False
                labels[i] = <int64_t>self.numbers[i]
            targets.data, targets.row_stride = <const char *>labels, sizeof(int64_t)
        targets.kind, targets.labels = b"q", True
        return labels_below(targets, self.n_out)

    cdef bint in_range(self, const Rows *targets) noexcept:
        """Whether all numbers are in the range, and each row of probabilities adds up to 1."""
        cdef Py_ssize_t i, j
        cdef double total, value
        for i in range(targets.n):
            gather_row(targets, i, self.numbers, 0)
            total = 0
            for j in range(targets.width):
                value = self.numbers[j]
                total += value
                self.largest_y = fmax(self.largest_y, fabs(value))
                if not (
                    self.low <= value <= self.high
                    or (self.run.objective.missing and value != value)
                ):
                    return False
            if self.run.objective.loss == CATEGORICAL and not fabs(total - 1) < 9e-4:
                return False
        return True

    cdef bint see_weights(self, object weights) noexcept:
        """Describe the rows' weights; False unless they are real numbers from 0 on, not all 0."""
        cdef Rows rows
        cdef Py_ssize_t n = self.run.n, at = self.numbers.shape[0] - 2 * n, i
        cdef double total = 0
        if see_rows(weights, &rows) != 1 or rows.width != n:
            return False
        gather_row(&rows, 0, self.numbers, at)
        for i in range(at, at + n):
            if not 0 <= self.numbers[i] < 1e200:
                return False
            total += self.numbers[i]
        self.run.weights = &self.numbers[at]
        return total > 0

    cdef int lay_out(self, Py_ssize_t n) except -1:
        """Make the workspace ready for n rows; False if that takes more room than is allowed."""
        cdef Layout to = layout_of(self.plan, n, 1, self.itemsize)
        cdef Py_ssize_t size = to.size + self.n_gradient
        if size > self.most_room:
            return False
        if size > self.room:
            self.room = self.run.to.batch = 0
            if self.itemsize == 4:
                self.workspace_f32 = layout.aligned((size,), self.dtype)
            else:
                self.workspace_f64 = layout.aligned((size,), self.dtype)
            self.numbers = layout.aligned((3 * n + self.n_out,), numpy.float64)
            self.room = size
        self.run.to = to
        return True


cdef bint is_moderate(const Run *run, real[::1] ws) noexcept:
    """Whether no number of X can be too large, or NaN."""
    cdef Py_ssize_t stride
    cdef const real *x = bring_rows(run, ws, 0, run.n, &stride)
    return moderate_rows(run, x, stride, run.n)


cdef bint labels_below(const Rows *targets, Py_ssize_t n_out) noexcept:
    """Whether all labels, of int64, are class numbers."""
    cdef Py_ssize_t i
    cdef int64_t label
    for i in range(targets.n):
        label = (<const int64_t *>(targets.data + i * targets.row_stride))[0]
        if not 0 <= label < n_out:
            return False
    return True


cdef double largest_of(const Run *run, real[::1] ws) noexcept:
    """Return the largest absolute value in X, before its scale, as :func:`magnitude` does."""
    cdef Py_ssize_t stride, i
    cdef const real *x = bring_rows(run, ws, 0, run.n, &stride)
    cdef double most = 0, found
    if stride == run.X.width:
        return magnitude(x, run.n * stride)
    for i in range(run.n):
        found = magnitude(x + i * stride, run.X.width)
        if not isfinite(found):
            return found
        most = fmax(most, found)
    return most


cdef double train_once(
    const Run *run, const Step *now, real[::1] params, real[:, ::1] state, real[::1] ws,
    Py_ssize_t n_gradient,
) noexcept nogil:
    """Take a step on all rows of a call, by the function that :func:`train_epoch` takes.

    A gradient of so many numbers is before the workspace: what a front leaves in it is zero.
    """
    if takes_plain_rows(run):
        return train_row(run, now, params, state, 0, ws)
    return train_batch(
        run, now, params, state, 0, run.n, ws[:n_gradient], ws[n_gradient:]
    )


def blend(params, others, double part):
    """Move numbers a part of the way to others: ``params += part * (others - params)``.

    Both are vectors of one length and number type.
    """
    cdef Py_buffer mine, theirs
    PyObject_GetBuffer(params, &mine, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT)
    try:
        PyObject_GetBuffer(others, &theirs, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        try:
            if mine.len != theirs.len or mine.format[0] != theirs.format[0]:
                raise ValueError(f"{theirs.len} bytes cannot be blended into {mine.len}")
            if mine.format[0] == b"f":
                blend_in(<float *>mine.buf, <const float *>theirs.buf, mine.len // 4, part)
            elif mine.format[0] == b"d":
                blend_in(<double *>mine.buf, <const double *>theirs.buf, mine.len // 8, part)
            else:
                raise ValueError("only float32 and float64 can be blended")
        finally:
            PyBuffer_Release(&theirs)
    finally:
        PyBuffer_Release(&mine)


cdef void blend_in(real *params, const real *others, Py_ssize_t n, double part) noexcept nogil:
    cdef Py_ssize_t i
    cdef real rate = <real>part
    for i in range(n):
        params[i] += rate * (others[i] - params[i])
