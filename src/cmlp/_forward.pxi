# Forward propagation -------------------------------------------------------------------------------

cdef void forward_tile(
    Layer layer, const real[::1] params, real[::1] ws, Py_ssize_t from_, Py_ssize_t from_stride,
    Py_ssize_t to, Py_ssize_t m, Py_ssize_t column, Py_ssize_t columns, Py_ssize_t tiles,
    Panel *panel,
) noexcept nogil:
    """z = a W + b for m rows and some columns, which `tiles` tiles share."""
    cdef Py_ssize_t stride = layer.stride
    cdef const real *columns_of_W = panel_columns(
        params, layer.weights, &stride, layer.n_in, column, columns, tiles, ws, panel
    )
    tile(
        m, columns, layer.n_in, &ws[from_], from_stride, 1, columns_of_W, stride,
        &params[layer.bias + column], 0, &ws[to + column], layer.stride,
    )


cdef void forward_hidden(
    Layer layer, const real[::1] params, real[::1] ws, Py_ssize_t from_, Py_ssize_t from_stride,
    Py_ssize_t to, Py_ssize_t slopes, Py_ssize_t n, Py_ssize_t first_row, double dropout,
    uint64_t key, Panel panel, Py_ssize_t rank, Py_ssize_t n_threads,
) noexcept nogil:
    """A hidden layer for n rows, this thread's tiles; slopes < 0 in a prediction."""
    cdef Py_ssize_t step = tile_columns(sizeof(real))
    cdef Py_ssize_t row_tiles = blocks(n, TILE_ROWS)
    cdef Py_ssize_t tiles = row_tiles * blocks(layer.stride, step)
    cdef Py_ssize_t t, row, column, m, columns, i, at, slope
    for t in range(share(tiles, rank, n_threads), share(tiles, rank + 1, n_threads)):
        row, column = t % row_tiles * TILE_ROWS, t // row_tiles * step
        m, columns = min(TILE_ROWS, n - row), min(step, layer.stride - column)
        forward_tile(
            layer, params, ws, from_ + row * from_stride, from_stride,
            to + row * layer.stride, m, column, columns, row_tiles, &panel,
        )
        for i in range(row, row + m):
            at = to + i * layer.stride + column
            slope = slopes + i * layer.stride + column if slopes >= 0 else -1
            activate_part(layer.activation, ws, at, slope, columns)
            if dropout > 0:
                fill_slope(layer.activation, ws, slope, at, columns)
                drop_out(
                    ws, at, slope, columns,
                    <uint32_t>((first_row + i) * layer.n_out + column), key, dropout,
                )


cdef void forward_output(
    Layer layer, const real[::1] params, real[::1] ws, Py_ssize_t from_, Py_ssize_t from_stride,
    Py_ssize_t to, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Weighted sums for the rows from first to last, whole: what follows needs a row at once."""
    cdef Py_ssize_t step = tile_columns(sizeof(real)), block, row, column, i
    cdef Panel none = Panel(0, 0, -1)  # the columns change with every tile
    for block in range(blocks(last - first, TILE_ROWS)):
        row = first + block * TILE_ROWS
        for i in range(blocks(layer.stride, step)):
            column = i * step
            forward_tile(
                layer, params, ws, from_ + row * from_stride, from_stride, to + row * layer.stride,
                min(TILE_ROWS, last - row), column, min(step, layer.stride - column), 1, &none,
            )


cdef void predict_batch(
    const int64_t[:, ::1] plan, const real[::1] params, real[::1] ws, Layout to, Py_ssize_t n,
    bint record_z, real[:, ::1] z, Py_ssize_t z_row,
) noexcept nogil:
    """Activations of every layer, for n gathered rows; the weighted sums as well, if asked."""
    cdef Py_ssize_t number, last = plan.shape[0] - 1, i, j
    cdef Py_ssize_t from_ = to.inputs, from_stride = to.input_stride, at
    cdef Layer layer
    for number in range(last + 1):
        layer = layer_of(plan, number)
        at = to.activations + to.batch * layer.units
        if number < last and not record_z:
            forward_hidden(
                layer, params, ws, from_, from_stride, at, -1, n, 0, 0.0, 0,
                panel_of(to, 0, sizeof(real)), 0, 1,
            )
        else:
            forward_output(layer, params, ws, from_, from_stride, at, 0, n)
            for i in range(n):
                if record_z:
                    for j in range(layer.n_out):
                        z[z_row + i, layer.units + j] = ws[at + i * layer.stride + j]
                if layer.activation == SOFTMAX:
                    shift_row(ws, at + i * layer.stride, layer.n_out)
                    softmax_row(ws, at + i * layer.stride, layer.n_out, layer.stride)
                else:
                    activate_part(layer.activation, ws, at + i * layer.stride, -1, layer.stride)
        from_, from_stride = at, layer.stride
