# Forward propagation -------------------------------------------------------------------------------

cdef inline void forward_layer(
    const Run *run, const Layer *layer, const real[::1] params, real[::1] ws, Py_ssize_t from_,
    Py_ssize_t from_stride, Py_ssize_t to, Py_ssize_t n, Py_ssize_t code, Py_ssize_t slopes,
    const Drop *drop,
) noexcept nogil:
    """a = f(a_before W + b) for n rows of the workspace; see :func:`forward_rows`."""
    forward_rows(
        run, layer, params, ws, &ws[from_], from_stride, to, n, code, slopes, drop
    )


cdef void forward_rows(
    const Run *run, const Layer *layer, const real[::1] params, real[::1] ws, const real *a,
    Py_ssize_t a_stride, Py_ssize_t to, Py_ssize_t n, Py_ssize_t code, Py_ssize_t slopes,
    const Drop *drop,
) noexcept nogil:
    """f(a W + b) for n rows from anywhere, this thread's tiles; IDENTITY leaves the weighted sums.

    da/dz goes to `slopes`, unless that is below 0; units are dropped, unless `drop` is NULL.
    """
    cdef Py_ssize_t lanes = vector_lanes(sizeof(real)), stride = layer.stride, b_stride
    cdef Py_ssize_t column_tile, column, columns, part, start, depth, i, row, m, at
    cdef Py_ssize_t first, length  # the same as start and depth; of pairs
    cdef Py_ssize_t panel = run.to.panels + run.rank * run.to.panel_size
    cdef bint large = layer.n_in * stride * <Py_ssize_t>sizeof(real) > LARGE
    cdef const real *b
    cdef const real *bias
    cdef real *copy
    cdef bint there = layer.bias == IN_PLACE, rounds = layer.precision != FLOAT32
    cdef bint single = n == 1 and layer.precision == BFLOAT16
    cdef Grid grid
    cdef Prefetch ahead
    if real is float:
        if rounds:
            a = round_rows(run, layer, ws, a, a_stride, n, layer.n_in)
            a_stride = pair_stride(layer, layer.n_in)
    if n == 1 and not rounds:
        forward_row(run, layer, params, ws, a, to, code, slopes, drop)
        return
    if (
        not rounds and is_narrow(layer.n_out, sizeof(real)) and layer.bias >= 0
        and lanes <= layer.n_in <= MAX_DEPTH
    ):
        forward_narrow(run, layer, params, ws, a, a_stride, to, n, code, slopes, drop)
        return
    grid = grid_of(n, stride, sizeof(real), run, STRIP_VECTORS)
    for column_tile in range(grid.column_tiles):
        if not has_tiles(&grid, column_tile):
            continue
        column = column_tile * grid.columns
        columns = min(grid.columns, stride - column)
        bias = &params[layer.bias + column] if layer.bias >= 0 else <const real *>NULL
        for part in range(blocks(layer.n_in, MAX_DEPTH)):
            start = part * MAX_DEPTH
            depth = min(<Py_ssize_t>MAX_DEPTH, layer.n_in - start)
            first, length = start, depth
            b, b_stride = &params[layer.weights + start * stride + column], stride
            copy = <real *>NULL
            if columns > lanes and packs_panel(&grid, column_tile):
                copy = &ws[panel]  # the first tile makes it
            if real is float:
                if rounds:
                    first, length = pairs(layer, start), pairs(layer, depth)
                    if single:
                        word_row(
                            columns // lanes, depth, a + first, b, stride,
                            <const real *>&ws[to + column] if start or there else bias,
                            &ws[to + column],
                        )
                    else:
                        pairs_across(
                            layer.precision == BFLOAT16, &ws[panel], b, stride, depth, columns
                        )
                    b, b_stride, copy = &ws[panel], columns, NULL
            ahead = prefetch_of(  # the next panel, if there is one
                &params[layer.weights + start * stride + column + columns],
                depth if large and column + columns < stride else 0, columns, stride,
                length * grid.row_tiles * grid.across,
            )
            for i in range(
                first_row_tile(&grid, column_tile), last_row_tile(&grid, column_tile)
            ):
                row = i * grid.m
                m = min(grid.m, n - row)
                at = row * stride + column
                if not single:
                    tile_of(
                        layer, m, columns, layer.n_out - column, length,
                        a + row * a_stride + first, a_stride, 1, b, b_stride, copy,
                        <const real *>&ws[to + at] if start or there else bias,
                        stride if start or there else 0,
                        &ws[to + at], stride, &ahead,
                    )
                if copy is not NULL:
                    b, b_stride, copy = &ws[panel], 0, NULL
                if start + depth == layer.n_in:
                    activate_tile(
                        run, layer, code, params, ws, to + at, slopes + at if slopes >= 0 else -1,
                        row, m, column, columns, drop,
                    )


cdef void forward_narrow(
    const Run *run, const Layer *layer, const real[::1] params, real[::1] ws, const real *a,
    Py_ssize_t a_stride, Py_ssize_t to, Py_ssize_t n, Py_ssize_t code, Py_ssize_t slopes,
    const Drop *drop,
) noexcept nogil:
    """Do the same for a layer of few units, whose tiles would be padding for the most part."""
    cdef Py_ssize_t stride = layer.stride, at
    cdef Py_ssize_t panel = run.to.panels + run.rank * run.to.panel_size
    cdef Grid grid = grid_of(n, stride, sizeof(real), run, STRIP_VECTORS)  # who has which rows
    cdef Py_ssize_t row = grid.first * grid.m, m = min(n, grid.last * grid.m) - row
    if m <= 0:
        return
    at = to + row * stride
    product_few_columns(
        m, layer.n_out, layer.n_in, a + row * a_stride, a_stride, &params[layer.weights], stride,
        &ws[panel], &params[layer.bias], &ws[at], stride,
    )
    activate_tile(
        run, layer, code, params, ws, at, slopes + row * stride if slopes >= 0 else -1, row, m, 0,
        stride, drop,
    )


cdef void forward_row(
    const Run *run, const Layer *layer, const real[::1] params, real[::1] ws, const real *a,
    Py_ssize_t to, Py_ssize_t code, Py_ssize_t slopes, const Drop *drop,
) noexcept nogil:
    """Do the same for a single row; threads share it by blocks of whole vectors."""
    cdef Py_ssize_t block = ROW_VECTORS * vector_lanes(sizeof(real))
    cdef Py_ssize_t n_blocks = blocks(layer.stride, block)
    cdef Py_ssize_t first = share(n_blocks, run.rank, run.n_threads) * block
    cdef Py_ssize_t last = min(
        share(n_blocks, run.rank + 1, run.n_threads) * block, width_of(layer.n_out, sizeof(real))
    )
    cdef const real *init = NULL
    if first < last:
        if layer.bias >= 0:
            init = &params[layer.bias + first]
        elif layer.bias == IN_PLACE:
            init = &ws[to + first]
        row_product(
            last - first, layer.n_in, a, &params[layer.weights + first], layer.stride, init,
            &ws[to + first],
        )
        activate_tile(  # in whole vectors
            run, layer, code, params, ws, to + first, slopes + first if slopes >= 0 else -1, 0, 1, first,
            padded(last - first, vector_lanes(sizeof(real))), drop,
        )


cdef inline void activate_tile(
    const Run *run, const Layer *layer, Py_ssize_t code, const real[::1] params, real[::1] ws,
    Py_ssize_t at, Py_ssize_t slopes, Py_ssize_t row, Py_ssize_t m, Py_ssize_t column,
    Py_ssize_t columns, const Drop *drop,
) noexcept nogil:
    """Activate m rows of some columns; as one long row, where there is no gap between them."""
    cdef Py_ssize_t i, stride = layer.stride
    if layer.alpha and (code != IDENTITY or slopes >= 0):
        activate_parametric(run, layer, code, params, ws, at, slopes, row, m, column, columns, drop)
        return
    if columns == stride:
        activate_part(code, layer.parameter, ws, at, slopes, m * columns)
    else:
        for i in range(m):
            activate_part(
                code, layer.parameter, ws, at + i * stride,
                slopes + i * stride if slopes >= 0 else -1, columns,
            )
    if drop is not NULL and drop.rate > 0:
        for i in range(m):
            fill_slope(
                code, layer.parameter, ws, slopes + i * stride, at + i * stride, columns
            )
            drop_out(
                drop, ws, at + i * stride, slopes + i * stride, columns,
                <uint32_t>((drop.done + row + i) * layer.n_out + column),
            )


cdef void predict_pass(
    const Run *run, const real[::1] params, real[::1] ws, const real *x, Py_ssize_t x_stride,
    Py_ssize_t n, bint record_z, real[:, ::1] z, Py_ssize_t z_row,
) noexcept nogil:
    """Compute every layer's activations of n rows; copy the weighted sums to z if `record_z`."""
    cdef Py_ssize_t number, i, j, code, at, row
    cdef const Layer *layer
    cdef const Layer *product
    cdef Layer plain
    for number in range(run.n_layers):
        layer = &run.layers[number]
        at = run.to.activations + run.to.batch * layer.units
        code = IDENTITY if record_z or layer.activation == SOFTMAX else layer.activation
        if layer.normalization:
            code, plain = IDENTITY, product_of(run, number)
            forward_rows(run, &plain, params, ws, x, x_stride, at, n, code, -1, NULL)
            for i in range(n):
                row = at + i * layer.stride
                if layer.normalization == BATCH:
                    apply_running(layer, params, ws, row)
                else:
                    normalise_row(layer, params, ws, row, row)
        else:
            product = layer
            if number == 0 and run.front.sums:
                plain = product_of(run, number)
                product = &plain
            forward_rows(run, product, params, ws, x, x_stride, at, n, code, -1, NULL)
        if record_z:
            for i in range(n):
                for j in range(layer.n_out):
                    z[z_row + i, layer.units + j] = ws[at + i * layer.stride + j]
        if layer.activation == SOFTMAX:
            softmax_rows(ws, at, n, layer.n_out, layer.stride)
        elif code != layer.activation:
            activate_tile(
                run, layer, layer.activation, params, ws, at, -1, 0, n, 0, layer.stride, NULL
            )
        x, x_stride = &ws[at], layer.stride
