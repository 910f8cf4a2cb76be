# Activations ---------------------------------------------------------------------------------------

cdef inline bint slope_from_output(Py_ssize_t code) noexcept nogil:
    """Whether da/dz is a function of a; otherwise the forward pass stores it."""
    return not GELU <= code <= SOFTPLUS


cdef void activate_part(
    Py_ssize_t code, double parameter, real[::1] ws, Py_ssize_t at, Py_ssize_t slope_at,
    Py_ssize_t n,
) noexcept nogil:
    """Replace n weighted sums at `at` by their activations; store da/dz at `slope_at` (-1: do not).

    Only the activations whose slope is not a function of their output store it. `parameter` is the
    slope of leaky ReLU, the alpha of ELU.
    """
    cdef Py_ssize_t j
    cdef real a, s
    cdef real *x = &ws[at]
    cdef real *slope = &ws[slope_at] if slope_at >= 0 else NULL
    if code == RELU:
        for j in range(at, at + n):
            a = ws[j]
            ws[j] = a if not a < 0 else 0  # a NaN stays one
    elif code == LEAKY_RELU:
        s = <real>parameter
        for j in range(at, at + n):
            a = ws[j]
            ws[j] = a if a > 0 else s * a
    elif code == HARD_SIGMOID:
        for j in range(at, at + n):
            a = ws[j] / <real>6 + <real>0.5
            a = a if not a < 0 else 0
            ws[j] = a if not a > 1 else 1
    elif code == LOGISTIC:
        vector_logistic(x, n)
    elif code == TANH:
        vector_tanh(x, n)
    elif code == EXP:
        vector_exp(x, n)
    elif code == SOFTPLUS:
        vector_softplus(x, slope, n)
    elif code == GELU:
        vector_gelu(x, slope, n)
    elif code == SILU:
        vector_silu(x, slope, n)
    elif code == MISH:
        vector_mish(x, slope, n)
    elif code == ELU or code == SELU:
        activate_exponential(code, parameter, ws, at, n)


cdef void activate_exponential(
    Py_ssize_t code, double parameter, real[::1] ws, Py_ssize_t at, Py_ssize_t n
) noexcept nogil:
    """Apply ELU or SELU, some vectors at a time; the numbers above zero are kept on the stack."""
    cdef real above = 1 if code == ELU else <real>SELU_SCALE
    cdef real floor = <real>parameter if code == ELU else <real>SELU_FLOOR
    cdef Py_ssize_t block, k, m
    cdef real[ALIGNMENT] positive
    cdef real *x = &ws[at]
    for block in range(blocks(n, ALIGNMENT)):
        m = min(<Py_ssize_t>ALIGNMENT, n - block * ALIGNMENT)
        for k in range(m):
            positive[k] = x[k]
            x[k] = x[k] if not x[k] > 0 else 0
        vector_expm1(x, m)
        for k in range(m):
            x[k] = above * positive[k] if positive[k] > 0 else floor * x[k]
        x += m


cdef void times_slope_of_output(
    Py_ssize_t code, double parameter, real[::1] ws, Py_ssize_t delta, Py_ssize_t at, Py_ssize_t n
) noexcept nogil:
    """Multiply n numbers at `delta` by da/dz, where that is a function of the activation at `at`."""
    cdef Py_ssize_t j
    cdef real a, low, one = 1  # a literal would be a double, and so would be what it meets
    if code == RELU or code == LEAKY_RELU:
        low = 0 if code == RELU else <real>parameter
        for j in range(n):
            ws[delta + j] *= 1 if ws[at + j] > 0 else low
    elif code == LOGISTIC:
        for j in range(n):
            a = ws[at + j]
            ws[delta + j] *= a * (one - a)
    elif code == TANH:
        for j in range(n):
            a = ws[at + j]
            ws[delta + j] *= one - a * a
    elif code == ELU:
        low = <real>parameter
        for j in range(n):
            a = ws[at + j]
            ws[delta + j] *= one if a > 0 else a + low
    elif code == SELU:
        for j in range(n):
            a = ws[at + j]
            ws[delta + j] *= <real>SELU_SCALE if a > 0 else a + <real>SELU_FLOOR
    elif code == HARD_SIGMOID:
        for j in range(n):
            a = ws[at + j]
            ws[delta + j] *= <real>(1.0 / 6.0) if a > 0 and a < 1 else 0
    elif code == EXP:
        for j in range(n):
            ws[delta + j] *= ws[at + j]


cdef void fill_slope(
    Py_ssize_t code, double parameter, real[::1] ws, Py_ssize_t slope, Py_ssize_t at, Py_ssize_t n
) noexcept nogil:
    """Write da/dz to `slope`, from the activation at `at` where it is a function of that."""
    cdef Py_ssize_t j
    if slope_from_output(code):
        for j in range(n):
            ws[slope + j] = 1
        times_slope_of_output(code, parameter, ws, slope, at, n)


def activate(Py_ssize_t code, values, double parameter=0.0):
    """Replace the numbers in ``values[0]`` by their activation, fill ``values[1]`` with da/dz."""
    if in_doubles(values):
        return activate_in[double](code, values, parameter)
    return activate_in[float](code, values, parameter)


cdef activate_in(Py_ssize_t code, real[:, ::1] values, double parameter):
    cdef Py_ssize_t n = values.shape[1]
    if values.shape[0] != 2 or n == 0 or n * sizeof(real) % ALIGNMENT:
        raise ValueError("values must be (2, n), with n numbers a multiple of 64 bytes")
    if not IDENTITY <= code < SOFTMAX:
        raise ValueError(f"activation {code} is not applied number by number")
    cdef real[::1] ws = <real[:2 * n]>&values[0, 0]
    with nogil:
        activate_part(code, parameter, ws, 0, n, n)
        fill_slope(code, parameter, ws, n, 0, n)
