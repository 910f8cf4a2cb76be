# Backpropagation -----------------------------------------------------------------------------------

cdef void transpose(
    Layer layer, const real[::1] params, real[::1] ws, Py_ssize_t to, Py_ssize_t stride,
    Py_ssize_t rank, Py_ssize_t n_threads,
) noexcept nogil:
    """Copy W, (n_in, n_out), to its transpose at `to`, rows of `stride`; this thread's part.

    Square by square: a cache line is read once and written once.
    """
    cdef Py_ssize_t side = ALIGNMENT // sizeof(real), squares = blocks(layer.n_out, side)
    cdef Py_ssize_t across, down, i, j
    for across in range(share(squares, rank, n_threads), share(squares, rank + 1, n_threads)):
        for down in range(stride // side):
            for j in range(across * side, min(layer.n_out, (across + 1) * side)):
                for i in range(down * side, min(layer.n_in, (down + 1) * side)):
                    ws[to + j * stride + i] = params[layer.weights + i * layer.stride + j]
        for j in range(across * side, min(layer.n_out, (across + 1) * side)):
            for i in range(layer.n_in, stride):
                ws[to + j * stride + i] = 0


cdef void backward_inputs(
    Layer layer, real[::1] ws, Py_ssize_t transposed, Py_ssize_t delta, Py_ssize_t to,
    Py_ssize_t stride, Py_ssize_t n, Py_ssize_t code, Py_ssize_t at, Py_ssize_t slopes,
    Panel panel, Py_ssize_t rank, Py_ssize_t n_threads,
) noexcept nogil:
    """delta_before = (delta W^T) * da/dz, this thread's tiles; slopes >= 0: da/dz is stored there."""
    cdef Py_ssize_t step = tile_columns(sizeof(real))
    cdef Py_ssize_t row_tiles = blocks(n, TILE_ROWS)
    cdef Py_ssize_t tiles = row_tiles * blocks(stride, step)
    cdef Py_ssize_t t, row, column, m, columns, i, j, here, b_stride
    cdef const real *b
    for t in range(share(tiles, rank, n_threads), share(tiles, rank + 1, n_threads)):
        row, column = t % row_tiles * TILE_ROWS, t // row_tiles * step
        m, columns = min(TILE_ROWS, n - row), min(step, stride - column)
        b_stride = stride
        b = panel_columns(
            ws, transposed, &b_stride, layer.n_out, column, columns, row_tiles, ws, &panel
        )
        tile(
            m, columns, layer.n_out, &ws[delta + row * layer.stride], layer.stride, 1,
            b, b_stride, <const real *>NULL, 0, &ws[to + row * stride + column], stride,
        )
        for i in range(row, row + m):
            here = i * stride + column
            if slopes >= 0:
                for j in range(columns):
                    ws[to + here + j] *= ws[slopes + here + j]
            else:
                times_slope_of_output(code, ws, to + here, at + here, columns)
            for j in range(max(<Py_ssize_t>0, layer.n_in - column), columns):
                ws[to + here + j] = 0  # the slope of padding may be anything


cdef void backward_weights(
    Layer layer, Objective objective, Optimizer o, Step step, real[::1] params,
    real[:, ::1] state, real[::1] grads, real[::1] ws, Py_ssize_t from_, Py_ssize_t from_stride,
    Py_ssize_t delta, Py_ssize_t n, Py_ssize_t scratch, bint fused, bint adds, bint penalises,
    Panel panel, Py_ssize_t rank, Py_ssize_t n_threads,
) noexcept nogil:
    """dW = a_before^T delta and db = sum delta, this thread's tiles.

    Fused: every tile is penalised and used for the update at once. Otherwise it goes to `grads`,
    added to what is there if `adds`.
    """
    cdef Py_ssize_t width = tile_columns(sizeof(real))
    cdef Py_ssize_t row_tiles = blocks(layer.n_in, TILE_ROWS)
    cdef Py_ssize_t tiles = row_tiles * blocks(layer.stride, width)
    cdef Py_ssize_t t, row, column, m, columns, i, at, b_stride
    cdef const real *b
    for t in range(share(tiles, rank, n_threads), share(tiles, rank + 1, n_threads)):
        row, column = t % row_tiles * TILE_ROWS, t // row_tiles * width
        m, columns = min(TILE_ROWS, layer.n_in - row), min(width, layer.stride - column)
        at = layer.weights + row * layer.stride + column
        b_stride = layer.stride
        b = panel_columns(ws, delta, &b_stride, n, column, columns, row_tiles, ws, &panel)
        if fused:
            tile(
                m, columns, n, &ws[from_ + row], 1, from_stride, b, b_stride,
                <const real *>NULL, 0, &ws[scratch], width,
            )
            for i in range(m):
                penalise_part(
                    objective, params, at + i * layer.stride, ws, scratch + i * width, columns
                )
                update_part(
                    o, step, params, state, at + i * layer.stride, ws, scratch + i * width, columns,
                    True,
                )
        else:
            tile(
                m, columns, n, &ws[from_ + row], 1, from_stride, b, b_stride,
                &grads[at] if adds else <real *>NULL, layer.stride, &grads[at], layer.stride,
            )
            if penalises:
                for i in range(m):
                    penalise_part(
                        objective, params, at + i * layer.stride, grads, at + i * layer.stride,
                        columns,
                    )
        if row == 0:
            backward_bias(
                layer, o, step, params, state, grads, ws, delta + column, layer.bias + column,
                columns, n, scratch, fused, adds,
            )


cdef void backward_bias(
    Layer layer, Optimizer o, Step step, real[::1] params, real[:, ::1] state, real[::1] grads,
    real[::1] ws, Py_ssize_t delta, Py_ssize_t at, Py_ssize_t columns, Py_ssize_t n,
    Py_ssize_t scratch, bint fused, bint adds,
) noexcept nogil:
    """db = sum of delta over the rows, for some columns."""
    cdef Py_ssize_t i, j
    for j in range(columns):
        ws[scratch + j] = grads[at + j] if adds else 0
    for i in range(n):
        for j in range(columns):
            ws[scratch + j] += ws[delta + i * layer.stride + j]
    if fused:
        update_part(o, step, params, state, at, ws, scratch, columns, False)
    else:
        for j in range(columns):
            grads[at + j] = ws[scratch + j]
