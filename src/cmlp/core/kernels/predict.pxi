# Prediction: rows in, outputs out -------------------------------------------------------------------

cdef inline bint is_contiguous(const Run *run, const real[::1] like) noexcept nogil:
    """Whether X needs no gathering: same dtype, contiguous, aligned, unscaled, all rows."""
    cdef char kind = b"f" if real is float else b"d"
    return (
        run.rows is NULL and run.X.scale == 1
        and run.X.kind == kind and run.X.column_stride == sizeof(real)
        and (<size_t>run.X.data | <size_t>run.X.row_stride) % sizeof(real) == 0
    )


cdef const real *bring_rows(
    const Run *run, real[::1] ws, Py_ssize_t start, Py_ssize_t n, Py_ssize_t *stride
) noexcept nogil:
    """Return where n rows of X are: in X itself, or gathered in the workspace."""
    cdef Py_ssize_t i
    if is_contiguous(run, ws):
        stride[0] = run.X.row_stride // <Py_ssize_t>sizeof(real)
        return <const real *>(run.X.data + start * run.X.row_stride)
    for i in range(start, start + n):
        prefetch_row(run, i + PREFETCH_ROWS)
        gather_row(
            &run.X, row_number(run, i), ws, run.to.raw + (i - start) * run.to.raw_stride
        )
    stride[0] = run.to.raw_stride
    return &ws[run.to.raw]


cdef bint moderate_rows(
    const Run *run, const real *x, Py_ssize_t stride, Py_ssize_t n
) noexcept nogil:
    """Whether all numbers of n rows, before the scale, are at most half of the largest float."""
    cdef Py_ssize_t i, width = run.X.width
    cdef double factor = 2 / min(run.X.scale, 1.0)
    if stride == width:
        return moderate(x, n * width, factor)
    for i in range(n):
        if not moderate(x + i * stride, width, factor):
            return False
    return True


cdef bint predict_rows(
    const Run *run, const real[::1] params, real[::1] ws, real *out, bint checked
) noexcept nogil:
    """Write the outputs of all rows of a call, side by side.

    If `checked`, stop at a number that may not be finite, and return False.
    """
    cdef const Layer *last = &run.layers[run.n_layers - 1]
    cdef Py_ssize_t start, m, i, j, stride, at = run.to.activations + run.to.batch * last.units
    cdef Py_ssize_t n_out = last.n_out, batch = run.to.batch, block
    cdef real[:, ::1] no_record = None
    cdef const real *x
    for block in range(blocks(run.n, batch)):
        start = block * batch
        m = min(batch, run.n - start)
        x = bring_rows(run, ws, start, m, &stride)
        if checked and not moderate_rows(run, x, stride, m):
            return False
        x = expand_rows(run, params, ws, x, &stride, m)
        predict_pass(run, params, ws, x, stride, m, False, no_record, 0)
        for i in range(m):
            for j in range(n_out):
                out[(start + i) * n_out + j] = ws[at + i * last.stride + j]
    return True
