# The seam's one class -------------------------------------------------------------------------------

@cython.final
cdef class Predictor:
    """Predictor(plan, params, input_scale=1.0, batch_size=1)
--

    Compute a network's outputs, call after call, with the preparations made once.

    Called with x, one row (n_in,) or up to `batch_size` rows (n, n_in), it returns the outputs,
    (n_out,) or (n, n_out), in an array that the next call overwrites; or it writes them to `out`.
    Other dtypes than the network's are converted. NaN and infinity are not checked.

    Every call reads `params`, always this array and on this core. A predictor is for one thread at
    a time, and cannot be pickled or copied.

    Raises
    ------
    ValueError
        If `x` or `out` has another shape, or `out` another dtype.
    TypeError
        If `x` does not hold real numbers.
    RuntimeError
        If another thread is in a call.
    """

    cdef const int64_t[:, ::1] plan
    cdef const float[::1] params_f32  # one of the two
    cdef const double[::1] params_f64
    cdef float[::1] workspace_f32
    cdef double[::1] workspace_f64
    cdef Run run
    cdef int64_t calls  # under way
    cdef Py_ssize_t n_in, n_out, itemsize, batch_size, room, work
    cdef double scale
    cdef bint ready  # the workspace is laid out for rows that are read where they are
    cdef object dtype, out, row  # the outputs; the first row of them
    cdef char *out_data

    def __cinit__(self, plan not None, params, double input_scale=1, batch_size=1):
        cdef const int64_t[:, ::1] given = plan
        cdef const Layer *layers
        cdef Py_ssize_t n_params, number
        check_plan_shape(given)
        self.plan = numpy.array(given)  # a copy: what has been checked stays so
        self.dtype = numpy.dtype(memoryview(params).format)
        self.itemsize = self.dtype.itemsize
        if self.dtype.char == "f":
            self.params_f32 = params
            n_params = self.params_f32.shape[0]
        else:
            self.params_f64 = params
            n_params = self.params_f64.shape[0]
        check_plan(self.plan, n_params, self.itemsize)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; it is {batch_size}")
        layers = layers_of(self.plan)
        self.run = run_of(
            self.plan, NO_ROWS, NO_ROWS, None, None, layout_of(self.plan, 1, 1, self.itemsize)
        )
        self.run.to.batch = 0
        self.batch_size, self.calls, self.room, self.work = batch_size, 0, 0, 0
        self.scale = input_scale
        self.n_in, self.n_out = self.run.front.n_columns, last_layer(self.plan).n_out
        for number in range(self.run.n_layers):
            self.work += layers[number].n_in * layers[number].stride
        self.out = numpy.empty((batch_size, self.n_out), self.dtype)[:]  # a view: not resized
        self.row = self.out[0]
        self.out_data = data_of(self.out)

    def __reduce__(self):
        raise TypeError("a predictor cannot be pickled or copied: do so with its network")

    @cython.binding(False)  # the quickest way to call a method, and the same in every build
    @cython.always_allow_keywords(False)
    def outputs(self, X):
        """Return the outputs of rows X, (n, n_in), in a new array (n, n_out); or None.

        None: X is no array of such rows, is empty, or may hold NaN or infinity; or another thread
        is in a call. The caller then checks X itself.
        """
        cdef Rows rows
        cdef object out
        if (
            empty_array is NULL or see_rows(X, &rows) != 2
            or rows.width != self.n_in or rows.n < 1
        ):
            return None
        cdef Py_ssize_t[2] shape = [rows.n, self.n_out]
        Py_INCREF(self.dtype)  # the function takes a reference
        out = empty_array(2, shape, <PyObject *>self.dtype, 0)
        if ATOMIC_ADD(&self.calls):
            return None
        try:
            if not self.predict(&rows, (<ndarray_t *><PyObject *>out).data, True):
                return None
            if self.room > KEPT // self.itemsize:
                self.forget_workspace()
        finally:
            ATOMIC_STORE(&self.calls, 0)
        return out

    def __call__(self, x, out=None):
        cdef Rows rows
        cdef RowBuffer source  # keeps the buffer
        cdef Py_ssize_t ndim = see_rows(x, &rows) if empty_array is not NULL else 0
        cdef Py_buffer target
        if ndim == 0:
            x = as_rows(x, self.dtype)
            ndim = x.ndim
            if 1 <= ndim <= 2 and x.shape[ndim - 1] == self.n_in:
                source = RowBuffer(x if ndim == 2 else x[None], self.n_in)
                rows = source.rows
            else:
                rows.n, rows.width = 0, -1
        if rows.width != self.n_in or (out is None and rows.n > self.batch_size):
            raise ValueError(
                f"x must be ({self.n_in},) or (n, {self.n_in}) with n up to {self.batch_size}; "
                f"its shape is {x.shape}"
            )
        if out is None:
            self.enter(&rows, self.out_data)
            if ndim == 1:
                return self.row
            return self.out if rows.n == self.batch_size else self.out[:rows.n]
        PyObject_GetBuffer(out, &target, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT)
        try:
            if (
                target.ndim != ndim or target.shape[ndim - 1] != self.n_out
                or target.shape[0] != (rows.n if ndim == 2 else self.n_out)
                or target.format.decode() != self.dtype.char
            ):
                expected = (rows.n, self.n_out)[2 - ndim:]
                raise ValueError(f"out must be {expected}, {self.dtype}")
            self.enter(&rows, <char *>target.buf)
        finally:
            PyBuffer_Release(&target)
        return out

    cdef int enter(self, const Rows *rows, char *out) except -1:
        """Call :func:`predict`, unless a call is under way."""
        if ATOMIC_ADD(&self.calls):
            raise RuntimeError(
                "another thread is calling this predictor; give each thread one of its own"
            )
        try:
            self.predict(rows, out, False)
        finally:
            ATOMIC_STORE(&self.calls, 0)
        return 0

    cdef int predict(self, const Rows *rows, char *out, bint checked) except -1:
        """Write the outputs of some rows; 0 if they are `checked` and one may not be finite."""
        cdef bint done, ready
        if rows.n == 0:
            return True
        self.run.X, self.run.n = rows[0], rows.n
        self.run.X.scale = self.scale
        if self.itemsize == 4:
            ready = is_contiguous(&self.run, self.params_f32)
        else:
            ready = is_contiguous(&self.run, self.params_f64)
        if ready != self.ready or self.run.to.batch != min(rows.n, <Py_ssize_t>PREDICT_BATCH):
            self.lay_out(rows.n, ready)
        if rows.n * self.work < SMALL:
            done = self.compute(out, checked)
        else:
            with nogil:
                done = self.compute(out, checked)
        return done

    cdef bint compute(self, char *out, bint checked) noexcept nogil:
        if self.itemsize == 4:
            return predict_rows(
                &self.run, self.params_f32, self.workspace_f32, <float *>out, checked
            )
        return predict_rows(
            &self.run, self.params_f64, self.workspace_f64, <double *>out, checked
        )

    cdef int lay_out(self, Py_ssize_t n, bint ready) except -1:
        """Make the workspace ready for n rows: of a full one, inputs, activations and panels."""
        cdef const Layer *last = &self.run.layers[self.run.n_layers - 1]
        cdef Py_ssize_t batch = min(n, <Py_ssize_t>PREDICT_BATCH)
        cdef Layout to = layout_of(self.plan, batch, 1, self.itemsize)
        if self.run.front.n_parts == 0:
            to.activations = 0 if ready else batch * to.input_stride
            to.panels = to.activations + batch * (last.units + last.stride)
            if self.run.layers.alpha:  # whose activations pass through a tile
                to.tiles = to.panels
                to.panels += to.tile_size
            to.pairs = to.panels + to.panel_size
            to.size = to.pairs + batch * to.pair_stride
        if to.size > self.room:
            self.forget_workspace()
            if self.itemsize == 4:
                self.workspace_f32 = layout.aligned((to.size,), self.dtype)
            else:
                self.workspace_f64 = layout.aligned((to.size,), self.dtype)
            self.room = to.size
        self.run.to, self.ready = to, ready
        return 0

    cdef void forget_workspace(self):
        self.workspace_f32, self.workspace_f64 = None, None
        self.room = self.run.to.batch = 0


cdef char *data_of(object array) except NULL:
    """Return the address of an array's numbers; the array is never resized."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, PyBUF_SIMPLE)
    PyBuffer_Release(&buffer)
    return <char *>buffer.buf


cdef object as_rows(object x, object dtype):
    """Convert anything that holds real numbers; refuse masked entries."""
    x = array_of("x", x)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"x must hold real numbers; its dtype is {x.dtype}")
    return numpy.require(x, dtype, "AE")
