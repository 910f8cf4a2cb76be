# Gathering a batch ---------------------------------------------------------------------------------

cdef inline void convert_row(
    const sample *first, Py_ssize_t stride, real scale, real[::1] ws, Py_ssize_t at, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t j
    if stride == sizeof(sample):
        for j in range(n):
            ws[at + j] = <real>first[j] * scale
    else:
        for j in range(n):
            ws[at + j] = <real>(<const sample *>(<const char *>first + j * stride))[0] * scale


cdef inline void add_sparse_row(
    const Rows *source, const sample *data, const place *indices, const place *indptr,
    Py_ssize_t row, real[::1] ws, Py_ssize_t at,
) noexcept nogil:
    """Add the numbers of a sparse row to zeros; indices outside the row are ignored."""
    cdef Py_ssize_t k, last = min(<Py_ssize_t>indptr[row + 1], source.stored)
    cdef Py_ssize_t column
    cdef real scale = <real>source.scale
    for k in range(max(<Py_ssize_t>indptr[row], 0), last):
        column = indices[k]
        if 0 <= column < source.width:
            ws[at + column] += <real>data[k] * scale


cdef void gather_sparse_row(
    const Rows *source, Py_ssize_t row, real[::1] ws, Py_ssize_t at
) noexcept nogil:
    cdef Py_ssize_t j
    cdef const float *floats = <const float *>source.data
    cdef const double *doubles = <const double *>source.data
    cdef const int32_t *indices = <const int32_t *>source.indices
    cdef const int32_t *indptr = <const int32_t *>source.indptr
    cdef const int64_t *wide_indices = <const int64_t *>source.indices
    cdef const int64_t *wide_indptr = <const int64_t *>source.indptr
    for j in range(at, at + source.width):
        ws[j] = 0
    if source.kind == b"f" and source.wide:
        add_sparse_row(source, floats, wide_indices, wide_indptr, row, ws, at)
    elif source.kind == b"f":
        add_sparse_row(source, floats, indices, indptr, row, ws, at)
    elif source.wide:
        add_sparse_row(source, doubles, wide_indices, wide_indptr, row, ws, at)
    else:
        add_sparse_row(source, doubles, indices, indptr, row, ws, at)


cdef void gather_row(const Rows *source, Py_ssize_t row, real[::1] ws, Py_ssize_t at) noexcept nogil:
    if source.indices is not NULL:
        gather_sparse_row(source, row, ws, at)
        return
    cdef const char *first = source.data + row * source.row_stride
    cdef Py_ssize_t stride = source.column_stride, n = source.width
    cdef real scale = <real>source.scale
    if source.kind == b"f":
        convert_row(<const float *>first, stride, scale, ws, at, n)
    elif source.kind == b"B":
        convert_row(<const uint8_t *>first, stride, scale, ws, at, n)
    elif source.kind == b"d":
        convert_row(<const double *>first, stride, scale, ws, at, n)
    elif source.kind == b"q":
        convert_row(<const int64_t *>first, stride, scale, ws, at, n)
    elif source.kind == b"i":
        convert_row(<const int32_t *>first, stride, scale, ws, at, n)
    elif source.kind == b"h":
        convert_row(<const int16_t *>first, stride, scale, ws, at, n)
    elif source.kind == b"b":
        convert_row(<const int8_t *>first, stride, scale, ws, at, n)
    elif source.kind == b"H":
        convert_row(<const uint16_t *>first, stride, scale, ws, at, n)
    elif source.kind == b"I":
        convert_row(<const uint32_t *>first, stride, scale, ws, at, n)
    else:
        convert_row(<const uint64_t *>first, stride, scale, ws, at, n)


cdef void gather_target(
    const Rows *source, Py_ssize_t row, real[::1] ws, Py_ssize_t at, Py_ssize_t n_out,
    Py_ssize_t stride, const Objective *objective,
) noexcept nogil:
    """Copy one row of targets; a label becomes a one-hot row, and both are smoothed."""
    cdef Py_ssize_t j
    cdef int64_t label
    cdef real uniform, smoothing = <real>objective.label_smoothing
    for j in range(at, at + stride):
        ws[j] = 0
    if source.labels:
        label = (<const int64_t *>(source.data + row * source.row_stride))[0]
        if 0 <= label < n_out:
            ws[at + label] = 1
    else:
        gather_row(source, row, ws, at)
    if smoothing != 0:
        uniform = <real>(1.0 / n_out if objective.loss == CATEGORICAL else 0.5)
        for j in range(at, at + n_out):
            ws[j] += smoothing * (uniform - ws[j])


cdef inline Py_ssize_t row_number(const Run *run, Py_ssize_t i) noexcept nogil:
    return i if run.rows is NULL else run.rows[i]


cdef inline void prefetch_row(const Run *run, Py_ssize_t i) noexcept nogil:
    """Prefetch a row that is gathered soon: shuffled rows lie anywhere in memory."""
    if i < run.n and 0 < run.X.column_stride <= 8:
        prefetch(
            run.X.data + row_number(run, i) * run.X.row_stride, run.X.width * run.X.column_stride
        )


cdef inline void prefetch_target(const Run *run, Py_ssize_t i) noexcept nogil:
    """Prefetch the beginning of a row's target, and its weight."""
    if i < run.n:
        prefetch(run.targets.data + row_number(run, i) * run.targets.row_stride, 1)
        if run.weights is not NULL:
            prefetch(<const char *>&run.weights[row_number(run, i)], 1)


cdef inline Prefetch rows_to_prefetch(
    const Run *run, Py_ssize_t first, Py_ssize_t n, Py_ssize_t tiles
) noexcept nogil:
    """Describe the rows of X that this thread gathers next, of n from `first` on.

    Prefetched tile by tile, they arrive while the batch before is in computation.
    """
    cdef Prefetch ahead
    cdef Py_ssize_t mine = share(n, run.rank, run.n_threads)
    ahead.base = ahead.at = run.X.data
    ahead.numbers, ahead.stride = NULL, run.X.row_stride
    ahead.lines = blocks(run.X.width * run.X.column_stride, LINE)
    ahead.left, ahead.done, ahead.also[0], ahead.also[1], ahead.burst = 0, 0, 0, 0, 0
    if 0 < run.X.column_stride <= 8 and run.rows is not NULL and n > 0:
        ahead.left = (share(n, run.rank + 1, run.n_threads) - mine) * ahead.lines
    if ahead.left:
        ahead.numbers = &run.rows[first + mine]
        ahead.at = ahead.base + ahead.numbers[0] * ahead.stride
        ahead.burst = blocks(ahead.left, max(tiles, 1))
    return ahead
