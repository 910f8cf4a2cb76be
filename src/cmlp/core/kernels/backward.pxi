# Backpropagation -----------------------------------------------------------------------------------

cdef void backward_inputs(
    const Run *run, const Layer *layer, const real[::1] params, real[::1] ws, Py_ssize_t delta,
    Py_ssize_t to, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t code, double parameter,
    Py_ssize_t a, Py_ssize_t slopes,
) noexcept nogil:
    """delta_before = (delta W^T) * da/dz, this thread's tiles; slopes >= 0: da/dz is stored there.

    `stride` is that of delta_before and of the activations `a` that da/dz is a function of.
    """
    cdef Py_ssize_t lanes = vector_lanes(sizeof(real))
    cdef Py_ssize_t column_tile, column, columns, part, start, depth, i, row, m, at
    cdef Py_ssize_t panel = run.to.panels + run.rank * run.to.panel_size
    cdef Py_ssize_t first, length, from_stride = layer.stride  # the same; of pairs
    cdef bint large = layer.n_in * layer.stride * <Py_ssize_t>sizeof(real) > LARGE
    cdef bint rounds = layer.precision != FLOAT32
    cdef const real *from_ = &ws[delta]
    cdef Grid grid
    cdef Prefetch ahead
    if real is float:
        if rounds:
            from_ = round_rows(run, layer, ws, from_, from_stride, n, layer.n_out)
            from_stride = pair_stride(layer, layer.n_out)
    if n == 1 and not rounds:
        backward_row(run, layer, params, ws, delta, to, stride, code, parameter, a, slopes)
        return
    grid = grid_of(n, stride, sizeof(real), run, STRIP_VECTORS)
    for column_tile in range(grid.column_tiles):
        if not has_tiles(&grid, column_tile):
            continue
        column = column_tile * grid.columns
        columns = min(grid.columns, stride - column)
        for part in range(blocks(layer.n_out, MAX_DEPTH)):
            start = part * MAX_DEPTH
            depth = min(<Py_ssize_t>MAX_DEPTH, layer.n_out - start)
            first, length = start, depth
            row = min(column, layer.n_in)  # columns of W^T are rows of W, then padding
            at = layer.weights + row * layer.stride + start
            if rounds:
                first, length = pairs(layer, start), pairs(layer, depth)
                if real is float:
                    round_transposed(
                        run, layer, ws, panel, columns, layer.n_in - row, depth, &params[at]
                    )
            else:
                pack_rows(
                    &ws[panel], columns // lanes, layer.n_in - row, depth, &params[at], layer.stride
                )
            row = min(column + columns, layer.n_in)
            ahead = prefetch_of(
                &params[layer.weights + row * layer.stride + start],
                min(columns, layer.n_in - row) if large else 0, depth, layer.stride,
                length * grid.row_tiles * grid.across,
            )
            for i in range(
                first_row_tile(&grid, column_tile), last_row_tile(&grid, column_tile)
            ):
                row = i * grid.m
                m = min(grid.m, n - row)
                at = row * stride + column
                tile_of(
                    layer, m, columns, layer.n_in - column, length,
                    from_ + row * from_stride + first, from_stride, 1, &ws[panel], 0,
                    NULL, &ws[to + at] if start else <real *>NULL, stride, &ws[to + at], stride,
                    &ahead,
                )
                if start + depth == layer.n_out:
                    times_slope_of_tile(
                        code, parameter, ws, to + at, a + at, slopes + at if slopes >= 0 else -1, m,
                        columns, stride, layer.n_in - column,
                    )


cdef void backward_row(
    const Run *run, const Layer *layer, const real[::1] params, real[::1] ws, Py_ssize_t delta,
    Py_ssize_t to, Py_ssize_t stride, Py_ssize_t code, double parameter, Py_ssize_t a,
    Py_ssize_t slopes,
) noexcept nogil:
    """Do the same for a single row, whose products with the rows of W need no transpose."""
    cdef Py_ssize_t lanes = ALIGNMENT // sizeof(real), squares = stride // lanes
    cdef Py_ssize_t first = share(squares, run.rank, run.n_threads) * lanes
    cdef Py_ssize_t last = share(squares, run.rank + 1, run.n_threads) * lanes
    if first < last:
        dot_rows(
            min(last, layer.n_in) - first, width_of(layer.n_out, sizeof(real)),
            &params[layer.weights + first * layer.stride], layer.stride, &ws[delta],
            &ws[to + first],
        )
        times_slope_of_tile(
            code, parameter, ws, to + first, a + first, slopes + first if slopes >= 0 else -1, 1,
            last - first, last - first, layer.n_in - first,
        )


cdef inline void times_slope_of_tile(
    Py_ssize_t code, double parameter, real[::1] ws, Py_ssize_t delta, Py_ssize_t a,
    Py_ssize_t slopes, Py_ssize_t m, Py_ssize_t columns, Py_ssize_t stride, Py_ssize_t wanted,
) noexcept nogil:
    """Multiply m rows of some columns by da/dz; columns from `wanted` on are padding: zero."""
    cdef Py_ssize_t i, j, at, lines = m, n = columns
    if columns == stride:  # no gap between the rows
        lines, n = 1, m * columns
    for i in range(lines):
        at = i * stride
        if slopes >= 0:
            for j in range(at, at + n):
                ws[delta + j] *= ws[slopes + j]
        else:
            times_slope_of_output(code, parameter, ws, delta + at, a + at, n)
    if wanted < columns:  # the slope of padding may be anything
        for i in range(m):
            for j in range(delta + i * stride + wanted, delta + i * stride + columns):
                ws[j] = 0


cdef void backward_weights(
    const Run *run, const Layer *layer, const Step *step, real[::1] params, real[:, ::1] state,
    real[::1] grads, real[::1] ws, Py_ssize_t from_, Py_ssize_t from_stride, Py_ssize_t delta,
    Py_ssize_t n, bint adds, bint last_pass, const Pass *next_rows,
) noexcept nogil:
    """dW = a_before^T delta and db = sum delta, this thread's tiles.

    Fused: every tile is penalised and used for the update at once. Otherwise it goes to `grads`,
    added to what is there if `adds`, and penalised in the last pass. The rows
    `next_rows` are prefetched between the tiles.
    """
    cdef Py_ssize_t lanes = vector_lanes(sizeof(real)), stride = layer.stride
    cdef Py_ssize_t column_tile, column, columns, wanted, i, row, m, at, a_stride, b_stride
    cdef Grid grid = grid_of(layer.n_in, stride, sizeof(real), run, gradient_vectors(layer))
    cdef Py_ssize_t scratch = run.to.tiles + run.rank * run.to.tile_size
    cdef Py_ssize_t panel = run.to.panels + run.rank * run.to.panel_size
    cdef Py_ssize_t copies = run.to.copies + run.rank * run.to.copy_size
    cdef bint penalised = run.objective.l1 != 0 or run.objective.l2 != 0
    cdef Step own
    cdef const Step *mine = step_of(
        &run.optimizer, step, factor_row(run, layer, WEIGHT_GROUP), &own
    )
    cdef bint large = layer.n_in * stride * <Py_ssize_t>sizeof(real) > LARGE
    cdef bint rounds = layer.precision != FLOAT32
    cdef Py_ssize_t length = pairs(layer, n) if rounds else n
    # A, which a strip reads from L1 unless rows 2 kB apart share two of its sets; B is copied below.
    cdef bint share_sets = from_stride * <Py_ssize_t>sizeof(real) % SETS_BYTES == 0
    cdef bint copied = grid.column_tiles * (grid.across if share_sets else 1) >= PACK_TILES
    cdef const real *a
    cdef const real *b
    cdef real *copy
    cdef Prefetch ahead
    cdef Prefetch rows = rows_to_prefetch(
        run, next_rows.first, next_rows.n,
        (grid.last - grid.first) * (grid.column_tiles if grid.by_rows else 1),
    )
    if n == 1 and run.fused and stride <= OUTER_SIZE and not rounds:
        backward_row_weights(run, layer, step, params, state, ws, from_, delta, scratch)
        return
    if is_narrow(layer.n_out, sizeof(real)) and not rounds:
        backward_narrow_weights(
            run, layer, step, params, state, grads, ws, from_, from_stride, delta, n, adds,
            last_pass, next_rows,
        )
        return
    if rounds:
        copied, copies = True, run.to.pair_tiles
        if real is float:
            round_tiles(run, layer, ws, &ws[from_], from_stride, n, &grid)
    elif copied:
        pack_tiles(&ws[copies], grid.m, grid.row_tiles, n, &ws[from_], from_stride)
    for column_tile in range(grid.column_tiles):
        if not has_tiles(&grid, column_tile):
            continue
        column = column_tile * grid.columns
        columns = min(grid.columns, stride - column)
        wanted = layer.n_out - column
        b, b_stride = &ws[delta + column], stride
        copy = <real *>NULL
        if columns > lanes and packs_panel(&grid, column_tile):
            copy = &ws[panel]
        if rounds:
            if real is float:
                pairs_across(layer.precision == BFLOAT16, &ws[panel], b, stride, n, columns)
            b, b_stride, copy = &ws[panel], columns, NULL
        for i in range(first_row_tile(&grid, column_tile), last_row_tile(&grid, column_tile)):
            row = i * grid.m
            m = min(grid.m, layer.n_in - row)
            prefetch_next(&rows)
            at = layer.weights + row * stride + column
            a, a_stride = &ws[from_ + row], from_stride
            if copied:
                a, a_stride = &ws[copies + row * length], grid.m
            if run.fused:
                if large:
                    ahead = weights_to_prefetch(
                        run, params, state, at, m, columns, stride, length * grid.across
                    )
                tile_of(
                    layer, m, columns, wanted, length, a, 1, a_stride, b, b_stride, copy,
                    <real *>NULL, 0, &ws[scratch], columns, &ahead if large else NULL,
                )
                if penalised:
                    penalise(
                        &run.objective, params, at, stride, ws, scratch, columns, m, columns
                    )
                update_rows(
                    &run.optimizer, mine, params, state, at, stride, ws, scratch, columns, m,
                    columns, True,
                )
            else:
                tile_of(
                    layer, m, columns, wanted, length, a, 1, a_stride, b, b_stride, copy,
                    &grads[at] if adds else <real *>NULL, stride, &grads[at], stride, NULL,
                )
                if penalised and last_pass:
                    penalise(&run.objective, params, at, stride, grads, at, stride, m, columns)
            if copy is not NULL:
                b, b_stride, copy = &ws[panel], 0, NULL
            if row == 0 and not layer.normalization:
                backward_bias(
                    run, layer, step, params, state, grads, ws, b, b_stride, column, columns,
                    wanted, length, scratch, adds,
                )


cdef void backward_narrow_weights(
    const Run *run, const Layer *layer, const Step *step, real[::1] params, real[:, ::1] state,
    real[::1] grads, real[::1] ws, Py_ssize_t from_, Py_ssize_t from_stride, Py_ssize_t delta,
    Py_ssize_t n, bint adds, bint last_pass, const Pass *next_rows,
) noexcept nogil:
    """Do the same for a layer of few units, whose tiles would be padding for the most part.

    They are those of the transpose, dW^T = delta^T a_before: few rows, whole vectors of inputs.
    """
    cdef Py_ssize_t lanes = vector_lanes(sizeof(real)), block = TILE_VECTORS * lanes
    cdef Py_ssize_t stride = layer.stride, n_blocks = blocks(layer.n_in, block)
    cdef Py_ssize_t first = share(n_blocks, run.rank, run.n_threads)
    cdef Py_ssize_t last = share(n_blocks, run.rank + 1, run.n_threads)
    cdef Py_ssize_t scratch = run.to.tiles + run.rank * run.to.tile_size
    cdef Py_ssize_t panel = run.to.panels + run.rank * run.to.panel_size
    cdef Py_ssize_t number, row, m, columns, at
    cdef bint penalised = run.objective.l1 != 0 or run.objective.l2 != 0
    cdef Step own
    cdef const Step *mine = step_of(
        &run.optimizer, step, factor_row(run, layer, WEIGHT_GROUP), &own
    )
    cdef Prefetch rows = rows_to_prefetch(run, next_rows.first, next_rows.n, last - first)
    for number in range(first, last):
        row = number * block
        m = min(block, layer.n_in - row)
        columns = padded(m, lanes)  # from_stride has room for them
        at = layer.weights + row * stride
        prefetch_next(&rows)
        tile(
            layer.n_out, columns, m, n, &ws[delta], 1, stride, &ws[from_ + row], from_stride,
            NULL, <real *>NULL, 0, &ws[panel], columns, NULL,
        )
        if run.fused:
            transpose_few_columns(m, layer.n_out, &ws[panel], columns, False, &ws[scratch], stride)
            if penalised:
                penalise(&run.objective, params, at, stride, ws, scratch, stride, m, stride)
            update_rows(
                &run.optimizer, mine, params, state, at, stride, ws, scratch, stride, m, stride,
                True,
            )
        else:
            transpose_few_columns(m, layer.n_out, &ws[panel], columns, adds, &grads[at], stride)
            if penalised and last_pass:
                penalise(&run.objective, params, at, stride, grads, at, stride, m, stride)
    if first == 0 < last and not layer.normalization:
        for number in range(blocks(stride, block)):
            at = number * block
            backward_bias(
                run, layer, step, params, state, grads, ws, &ws[delta + at], stride, at,
                min(block, stride - at), layer.n_out - at, n, scratch, adds,
            )


cdef void backward_row_weights(
    const Run *run, const Layer *layer, const Step *step, real[::1] params, real[:, ::1] state,
    real[::1] ws, Py_ssize_t from_, Py_ssize_t delta, Py_ssize_t scratch,
) noexcept nogil:
    """Do the same for a single row, fused: some whole rows of W at a time."""
    cdef Py_ssize_t stride = layer.stride, vectors = stride // vector_lanes(sizeof(real))
    cdef Py_ssize_t m = OUTER_SIZE // stride, at, n
    cdef Py_ssize_t row = share(layer.n_in, run.rank, run.n_threads)
    cdef Py_ssize_t last = share(layer.n_in, run.rank + 1, run.n_threads)
    cdef Step own
    cdef const Step *mine = step_of(
        &run.optimizer, step, factor_row(run, layer, WEIGHT_GROUP), &own
    )
    while row < last:
        n, at = min(m, last - row), layer.weights + row * stride
        outer(n, vectors, &ws[from_ + row], &ws[delta], &ws[scratch])
        if run.objective.l1 != 0 or run.objective.l2 != 0:
            penalise(&run.objective, params, at, stride, ws, scratch, stride, n, stride)
        update_row(&run.optimizer, mine, params, state, at, ws, scratch, n * stride, True)
        row += n
    if run.rank == 0 and not layer.normalization:
        mine = step_of(&run.optimizer, step, factor_row(run, layer, BIAS_GROUP), &own)
        update_row(
            &run.optimizer, mine, params, state, layer.bias, ws, delta, stride,
            run.optimizer.factors is not NULL,
        )


cdef inline Prefetch weights_to_prefetch(
    const Run *run, const real[::1] params, const real[:, ::1] state, Py_ssize_t at, Py_ssize_t m,
    Py_ssize_t columns, Py_ssize_t stride, Py_ssize_t n,
) noexcept nogil:
    """Describe a tile's parameters and moments, which are prefetched while it is computed."""
    cdef Prefetch ahead = prefetch_of(&params[at], m, columns, stride, n)
    if run.optimizer.solver != SGD or run.optimizer.momentum != 0:
        ahead.also[0] = <const char *>&state[0, at] - <const char *>&params[at]
    if n_moments(run.optimizer.solver) > 1:
        ahead.also[1] = <const char *>&state[1, at] - <const char *>&params[at]
    return ahead


cdef void backward_bias(
    const Run *run, const Layer *layer, const Step *step, real[::1] params, real[:, ::1] state,
    real[::1] grads, real[::1] ws, const real *delta, Py_ssize_t stride, Py_ssize_t column,
    Py_ssize_t columns, Py_ssize_t wanted, Py_ssize_t n, Py_ssize_t scratch, bint adds,
) noexcept nogil:
    """db = sum of delta over the rows, for some columns: the gradient of an input that is 1."""
    cdef Py_ssize_t at = layer.bias + column
    cdef Step own
    cdef real one = <real>one_of(layer)
    if run.fused:
        tile_of(
            layer, 1, columns, wanted, n, &one, 0, 0, delta, stride, NULL, <real *>NULL, 0,
            &ws[scratch], columns, NULL,
        )
        update_rows(
            &run.optimizer,
            step_of(&run.optimizer, step, factor_row(run, layer, BIAS_GROUP), &own), params, state,
            at, columns, ws, scratch, columns, 1, columns, False,
        )
    else:
        tile_of(
            layer, 1, columns, wanted, n, &one, 0, 0, delta, stride, NULL,
            &grads[at] if adds else <real *>NULL, 0, &grads[at], columns, NULL,
        )


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
    """dC/dX = delta W^T of the first layer, times X's scale; overwrites the gathered inputs."""
    cdef real scale = <real>run.X.scale
    cdef Py_ssize_t i, j, inputs = run.to.inputs, stride = run.to.input_stride
    if run.front.n_parts:
        front_gradient_of_x(run, params, ws, n, dX, row)
        return
    backward_inputs(
        run, &run.layers[0], params, ws, run.to.deltas, inputs, stride, n, IDENTITY, 0, inputs, -1
    )
    for i in range(n):
        for j in range(dX.shape[1]):
            dX[row + i, j] = ws[inputs + i * stride + j] * scale
