# Checks of a call's arguments: the last ones before loops that check nothing ----------------------

cdef dict codes = dict(
    identity=IDENTITY, logistic=LOGISTIC, tanh=TANH, relu=RELU, leaky_relu=LEAKY_RELU, elu=ELU,
    selu=SELU, gelu=GELU, silu=SILU, mish=MISH, softplus=SOFTPLUS, hard_sigmoid=HARD_SIGMOID,
    exp=EXP, softmax=SOFTMAX, squared_error=SQUARED, absolute_error=ABSOLUTE, huber=HUBER,
    binary_crossentropy=BINARY, categorical_crossentropy=CATEGORICAL, poisson=POISSON,
    quantile=QUANTILE, sgd=SGD, adam=ADAM, rmsprop=RMSPROP, adamw=ADAM, nadam=NADAM, lion=LION,
    batch=BATCH, layer=LAYERWISE,
)


cdef int check_codes() except -1:
    """Compare the numbers that C and Python both name; raise ImportError if one differs."""
    rows = vocabulary.ACTIVATIONS + vocabulary.LOSSES + vocabulary.SOLVERS
    theirs = {row.name: row.code for row in rows}
    for code, normalization in enumerate(vocabulary.NORMALIZATIONS):
        if normalization is not None:
            theirs[normalization] = code
    mine = (EXTERNAL, MAX_BATCH, TEAM_ABORTED, TEAM_STEPS, TEAM_STOP, TEAM_SIZE, ALIGNMENT,
            LAYER_GROUPS, OTHER_GROUPS, FLOAT32, BFLOAT16, BFLOAT16_EMULATED)
    if codes != theirs or mine != (
        vocabulary.EXTERNAL_LOSS, seam.MAX_BATCH, seam.TEAM_ABORTED, seam.TEAM_STEPS,
        seam.TEAM_STOP, seam.TEAM_SIZE, layout.ALIGNMENT, len(groups.LAYER_GROUPS),
        len(groups.OTHER_GROUPS), *range(len(vocabulary.PRECISIONS)),
    ):
        raise ImportError("the codes of the compiled core differ from those of cmlp.core")
    return 0


cdef int check_plan_shape(const int64_t[:, ::1] plan) except -1:
    if plan.shape[0] < 1 or plan.shape[1] != 13:
        raise ValueError("plan must have one row of 13 integers per layer")
    return 0


cdef inline bint fits_scale(const Layer *layer, Py_ssize_t n_params) noexcept nogil:
    """Whether gamma and the vectors after it lie inside the parameters."""
    cdef Py_ssize_t n = normalization_vectors[layer.normalization]
    return layer.stride <= n_params // n and 0 <= layer.scale <= n_params - n * layer.stride


cdef int check_plan(
    const int64_t[:, ::1] plan, Py_ssize_t n_params, Py_ssize_t itemsize
) except -1:
    """Raise ValueError unless every layer of the plan lies inside the parameters."""
    cdef Py_ssize_t number, lanes = ALIGNMENT // itemsize, units = 0, hidden
    cdef const Layer *layers
    cdef const Layer *layer
    check_plan_shape(plan)
    layers, hidden = layers_of(plan), layers_in(plan) - 1
    for number in range(hidden + 1):
        layer = &layers[number]
        if (
            not 1 <= layer.n_out <= n_params  # first, so that nothing below overflows
            or layer.stride != padded(layer.n_out, lanes)
            or not 1 <= layer.n_in <= n_params // layer.stride
            or not 0 <= layer.weights <= layer.bias <= n_params - layer.stride
            or layer.weights + layer.n_in * layer.stride > layer.bias
            or layer.units != units
            or not IDENTITY <= layer.activation <= SOFTMAX
            or (number and layer.n_in != layers[number - 1].n_out)
            or layer.normalization != (layers.normalization if number < hidden else NOT_NORMALISED)
            or not NOT_NORMALISED <= layer.normalization <= LAYERWISE
            or (layer.normalization and not fits_scale(layer, n_params))
            or (layer.alpha != 0) != (layers.alpha != 0 and number < hidden)
            or not 0 <= layer.alpha <= n_params - layer.stride
            or not FLOAT32 <= layer.precision <= (BFLOAT16_EMULATED if itemsize == 4 else FLOAT32)
        ):
            raise ValueError(f"layer {number} of the plan does not fit {n_params} parameters")
        if layer.precision == BFLOAT16 and not bfloat16_runs:
            raise ValueError(
                f"core {name!r} cannot multiply bfloat16 on this processor: assign "
                "net.precision = 'bfloat16-emulated' for the same numbers, computed in software, "
                "or None for float32"
            )
        units += layer.stride
    if hidden + 1 < plan.shape[0]:
        check_front(plan, n_params, lanes)
    return 0


cdef inline Py_ssize_t size_of_part(const Part *part, Py_ssize_t itemsize) noexcept nogil:
    """Return how many numbers a part's arrays are; -1 for more than 2^40."""
    cdef Py_ssize_t each = part.stride, n = 1
    if part.kind == LEVELS or part.kind == SUMMED:
        n = part.rows
    elif part.kind == PERIODIC:
        each, n = block_of(part, itemsize), part.count
    return each * n if each == 0 or n <= (<Py_ssize_t>1 << 40) // each else -1


cdef int check_front(
    const int64_t[:, ::1] plan, Py_ssize_t n_params, Py_ssize_t lanes
) except -1:
    """Raise ValueError unless the parts lie inside the parameters and fit the first layer."""
    cdef Py_ssize_t n_layers = layers_in(plan), n_parts = plan.shape[0] - n_layers, number
    cdef Py_ssize_t columns = 0, inputs = 0, made, wide, most = 1 << 24
    cdef const Layer *layer = layers_of(plan)
    cdef const Part *parts = <const Part *>&plan[n_layers, 0]
    cdef const Part *part
    for number in range(n_parts):
        part = &parts[number]
        wide = part.rows if part.kind == PERIODIC else part.width
        if (
            not FACTORS <= part.kind <= PLAIN
            or part.first != columns
            or not (part.kind != FACTORS) <= part.count <= <int64_t>most << 8
            or (part.count > 1 and (part.kind == LEVELS or part.kind == SUMMED))
            or not (part.kind != PLAIN) <= part.rows <= most
            or (part.kind == PLAIN and (part.rows or part.width))
            or not (part.kind != PLAIN) <= part.width <= most
            or part.stride != padded(wide, lanes)
            or not 0 <= part.at <= part.end <= n_params
            or not 0 <= part.cumulative <= (part.kind == SUMMED)
            or part.end - part.at != size_of_part(part, ALIGNMENT // lanes)
            or part.unused[0] or part.unused[1] or part.unused[2]
            or (part.kind == SUMMED and part.width != layer.n_out)
            or (part.kind == FACTORS and (
                number + 1 < n_parts or part.width != inputs or part.count or part.rows != 1
            ))
        ):
            raise ValueError(f"part {number} of the front does not fit {n_params} parameters")
        made = 1 if part.kind == PLAIN else part.width + 1 if part.kind == PERIODIC else part.width
        if part.kind == SUMMED or part.kind == FACTORS:
            made = 0
        if part.to != (inputs if made else -1):
            raise ValueError(f"part {number} of the front does not follow the inputs before it")
        columns += part.count
        inputs += made * part.count
        if inputs > layer.n_in:
            raise ValueError(f"the front makes more than {layer.n_in} inputs")
    if layer.n_in != max(inputs, <Py_ssize_t>1):
        raise ValueError(f"the front makes {inputs} inputs, the first layer has {layer.n_in}")
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
    """Compare lengths, check row numbers, and return how many rows the call takes."""
    if targets.n != X.n or (weights is not None and weights.shape[0] != X.n):
        raise ValueError("X, targets and weights differ in length")
    if rows is None:
        return X.n
    check_rows(rows, X.n)
    return rows.shape[0]


cdef int check_schedule(str what, const double[::1] factors, Py_ssize_t n_steps) except -1:
    """Raise ValueError unless a schedule has a factor for each step; None has none."""
    if factors is not None:
        check_size(what, n_steps, factors.shape[0])
    return 0


cdef int check_size(str what, Py_ssize_t expected, Py_ssize_t came) except -1:
    if came < expected:
        raise ValueError(f"{what} needs {expected} numbers, {came} came")
    return 0


cdef int check_state(
    const Optimizer *o, Py_ssize_t n_params, Py_ssize_t moments, Py_ssize_t length
) except -1:
    cdef Py_ssize_t needed = n_moments(o.solver) + (o.ema > 0)
    if moments < needed or length < n_params:
        raise ValueError(f"state must be ({needed}, {n_params})")
    return 0
