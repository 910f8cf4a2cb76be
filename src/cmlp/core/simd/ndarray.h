/* NumPy's arrays as they lie in memory: what a call of a microsecond has time for.
 *
 * Acquiring and releasing a buffer takes 70 ns, numpy.empty 170 ns; reading these members takes none, and
 * the function that numpy.empty ends in 50 ns. NumPy's headers would give the same, but every build
 * would then need them. Arrays and dtypes have begun with these members since NumPy 1.0, and a place in the
 * table of functions is never given to another one: modules that were built years ago rely on both.
 * Code that includes this file compares an array with its buffer first, and has a fallback. */
#ifndef CMLP_NDARRAY_H
#define CMLP_NDARRAY_H

#include <Python.h>

typedef struct {
    PyObject_HEAD
    PyTypeObject *scalar;
    char kind, letter, byteorder, flags; /* byteorder: '=' or '|' is ours */
    int number;                          /* of the type: bool 0, int8 1, ..., float64 12, ... */
} dtype_t;

typedef struct {
    PyObject_HEAD
    char *data;
    int ndim;
    Py_ssize_t *shape, *strides; /* in bytes */
    PyObject *base;
    dtype_t *dtype;
} ndarray_t;

enum { NDARRAY_VERSION = 0, NDARRAY_EMPTY = 184 }; /* places in the table */

typedef PyObject *(*ndarray_empty_t)(int ndim, const Py_ssize_t *shape, PyObject *dtype, int fortran);

/* The table's function that makes an array, or NULL for a table of a generation that we do not know. */
static inline ndarray_empty_t ndarray_empty_of(void **table)
{
    unsigned version = ((unsigned (*)(void))table[NDARRAY_VERSION])();
    return version >> 24 == 1 || version >> 24 == 2 ? (ndarray_empty_t)table[NDARRAY_EMPTY] : NULL;
}

#endif
