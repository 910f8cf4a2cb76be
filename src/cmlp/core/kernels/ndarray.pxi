# NumPy's arrays, read without their buffers (see ndarray.h) ----------------------------------------

cdef extern from "ndarray.h":
    ctypedef struct dtype_t:
        char byteorder
        int number
    ctypedef struct ndarray_t:
        char *data
        int ndim
        Py_ssize_t *shape
        Py_ssize_t *strides
        dtype_t *dtype
    ctypedef object (*ndarray_empty_t)(
        int ndim, const Py_ssize_t *shape, PyObject *dtype, int fortran
    )
    ndarray_empty_t ndarray_empty_of(void **table)

cdef enum:
    DTYPES = 13  # that gather_row reads; NumPy's numbers for them are 0 to 12

cdef PyObject *ndarray_type = NULL
cdef ndarray_empty_t empty_array = NULL  # NULL: an unknown NumPy, use the buffers
cdef char kinds[DTYPES]
cdef Py_ssize_t sizes[DTYPES]


cdef int find_numpy() except -1:
    """Find NumPy's array type, dtypes and constructor, and compare arrays with their buffers."""
    global ndarray_type, empty_array
    cdef Py_ssize_t number
    cdef Rows seen
    cdef RowBuffer buffer
    cdef ndarray_empty_t found
    ndarray_type = <PyObject *>numpy.ndarray
    try:
        internals = (numpy._core if hasattr(numpy, "_core") else numpy.core)._multiarray_umath
        found = ndarray_empty_of(<void **>PyCapsule_GetPointer(internals._ARRAY_API, NULL))
    except (AttributeError, ValueError):
        return 0
    for letter in "?bBhHiIlLqQfd":
        tried = numpy.zeros((5, 7), letter)[1:4, ::2]
        buffer = RowBuffer(tried, 4)
        number = tried.dtype.num
        if not 0 <= number < DTYPES:
            return 0
        kinds[number], sizes[number] = buffer.rows.kind, buffer.buffer.itemsize
        if see_rows(tried, &seen) != 2 or not (
            seen.data == buffer.rows.data and seen.kind == kinds[number]
            and seen.n == 3 and seen.row_stride == buffer.rows.row_stride
            and seen.width == 4 and seen.column_stride == buffer.rows.column_stride
        ):
            return 0
    if see_rows(tried.astype(tried.dtype.newbyteorder()), &seen) == 0:
        empty_array = found
    return 0


cdef Py_ssize_t see_rows(object array, Rows *rows) noexcept:
    """Describe the rows of a plain array, or its one row; return 2 or 1 dimensions, or 0.

    0: it is something else, of another type, byte order or number of dimensions.
    """
    cdef const ndarray_t *a = <const ndarray_t *><PyObject *>array
    cdef int number
    if <PyObject *>Py_TYPE(array) is not ndarray_type or not 1 <= a.ndim <= 2:
        return 0
    number = a.dtype.number
    if not 0 <= number < DTYPES or not (a.dtype.byteorder == b"=" or a.dtype.byteorder == b"|"):
        return 0
    rows.data, rows.labels, rows.scale, rows.kind = a.data, False, 1, kinds[number]
    rows.indices = rows.indptr = NULL
    rows.stored, rows.wide = 0, False
    rows.n = a.shape[0] if a.ndim == 2 else 1
    rows.row_stride = a.strides[0] if a.ndim == 2 else 0
    rows.width, rows.column_stride = a.shape[a.ndim - 1], a.strides[a.ndim - 1]
    if (<size_t>rows.data | <size_t>rows.row_stride | <size_t>rows.column_stride) % sizes[number]:
        return 0  # not aligned
    return a.ndim
