# Rows of X or y, of any number type, dense or sparse -----------------------------------------------

ctypedef fused sample:  # what a row of X or y may hold
    float
    double
    int8_t
    uint8_t
    int16_t
    uint16_t
    int32_t
    uint32_t
    int64_t
    uint64_t

ctypedef fused place:  # what columns and beginnings of sparse rows are
    int32_t
    int64_t

cdef struct Rows:  # rows of X or y, read through any strides and from any number type
    const char *data
    Py_ssize_t n, width, row_stride, column_stride
    char kind
    bint labels
    double scale  # every number is multiplied by it
    const char *indices  # of sparse rows: columns of the numbers; NULL: rows are dense
    const char *indptr  # where each row begins among them
    Py_ssize_t stored  # numbers
    bint wide  # indices and indptr are int64 instead of int32

cdef Rows NO_ROWS  # all zeros


cdef object SparseRows = seam.SparseRows
cdef int64_t NOTHING = 0  # an address for no numbers


cdef class RowBuffer:
    """Holds the buffer of X or y during a call, and describes its rows in C."""
    cdef Py_buffer buffer
    cdef bint held
    cdef Rows rows
    cdef object places  # of sparse rows: memoryviews of their columns and beginnings

    def __cinit__(self, array, Py_ssize_t width, bint labels=False, double scale=1):
        if type(array) is SparseRows and not labels:
            self.hold_sparse(array, width, scale)
            return
        PyObject_GetBuffer(array, &self.buffer, PyBUF_STRIDES | PyBUF_FORMAT)
        self.held = True
        cdef bint flat = labels and self.buffer.ndim == 1
        if not flat and (self.buffer.ndim != 2 or self.buffer.shape[1] != width):
            raise ValueError(f"expected rows of {width} numbers")
        cdef str kinds = "fd?bBhHiIlLqQ"
        cdef str kind = self.buffer.format.decode()
        if kind not in kinds or len(kind) != 1:
            raise ValueError(f"cannot read numbers of format {kind!r}")
        if kind not in "fd":  # integers by their size: 'l' is 4 or 8 bytes
            kind = ("B", "H", "I", "Q")[self.buffer.itemsize.bit_length() - 1] \
                if kind in "?BHILQ" else ("b", "h", "i", "q")[self.buffer.itemsize.bit_length() - 1]
        if flat and kind != "q":
            raise ValueError("labels must be int64")
        memset(&self.rows, 0, sizeof(Rows))
        self.rows.data, self.rows.kind = <const char *>self.buffer.buf, <char>ord(kind)
        self.rows.n, self.rows.row_stride = self.buffer.shape[0], self.buffer.strides[0]
        self.rows.width, self.rows.labels, self.rows.scale = 1, flat, scale
        if not flat:
            self.rows.width, self.rows.column_stride = width, self.buffer.strides[1]

    cdef int hold_sparse(self, array, Py_ssize_t width, double scale) except -1:
        """Do the same for sparse rows: three vectors, whose content the loops check themselves."""
        cdef const int32_t[::1] indices, indptr
        cdef const int64_t[::1] wide_indices, wide_indptr
        PyObject_GetBuffer(array.data, &self.buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        self.held = True
        cdef str kind = self.buffer.format.decode()
        if kind not in ("f", "d") or self.buffer.ndim != 1:
            raise ValueError(f"cannot read sparse numbers of format {kind!r}")
        if array.shape[1] != width:
            raise ValueError(f"expected rows of {width} numbers")
        cdef Rows rows
        cdef Py_ssize_t n_places, n_starts
        memset(&rows, 0, sizeof(Rows))
        rows.data, rows.kind = <const char *>self.buffer.buf, <char>ord(kind)
        rows.width, rows.scale, rows.stored = width, scale, self.buffer.shape[0]
        rows.wide = array.indices.dtype.itemsize == 8
        if rows.wide:
            wide_indices, wide_indptr = array.indices, array.indptr
            self.places = (wide_indices, wide_indptr)
            n_places, n_starts = wide_indices.shape[0], wide_indptr.shape[0]
            rows.indices = <const char *>&wide_indices[0] if n_places else <const char *>&NOTHING
            rows.indptr = <const char *>&wide_indptr[0] if n_starts else NULL
        else:
            indices, indptr = array.indices, array.indptr
            self.places = (indices, indptr)
            n_places, n_starts = indices.shape[0], indptr.shape[0]
            rows.indices = <const char *>&indices[0] if n_places else <const char *>&NOTHING
            rows.indptr = <const char *>&indptr[0] if n_starts else NULL
        if n_starts < 1 or n_places != rows.stored:
            raise ValueError(
                f"{rows.stored} sparse numbers need as many columns, and beginnings of the rows"
            )
        rows.n = n_starts - 1
        self.rows = rows
        return 0

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)
