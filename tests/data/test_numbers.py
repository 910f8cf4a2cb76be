"""Arrays that the cores read, and names of columns in any kind of table."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cmlp.data.frames import column_names, first_names, listed
from cmlp.data.numbers import BLOCK, READABLE, first_not_finite, is_finite, readable

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


@pytest.mark.parametrize("n", [1, 100, BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_number_that_is_not_finite(n, dtype, bad):
    X = np.ones((n, 2), dtype)
    assert is_finite(X) and first_not_finite(X, dtype) is None
    X[n // 2 :, 1] = bad
    assert not is_finite(X) and first_not_finite(X, dtype) == (n // 2, 1)


@pytest.mark.parametrize("n", [1, 3 * BLOCK])
def test_large_numbers(n):
    """Their sum is infinite, though all are finite as float64."""
    X = np.full((n, 2), 1e308)
    assert is_finite(X) and first_not_finite(X, FLOAT64) is None
    assert not is_finite(X, FLOAT32) and first_not_finite(X, FLOAT32) == (0, 0)


def test_missing_numbers_are_accepted_and_others_are_found():
    y = np.array([1, np.nan, np.inf])
    assert first_not_finite(y, FLOAT64, missing=True) == (2,)
    assert first_not_finite(y[:2], FLOAT64, missing=True) is None


def test_arrays_are_copied_only_if_the_cores_cannot_read_them():
    for letter in READABLE:
        array = np.ones(3, letter)
        assert readable(array) is array
    for dtype, expected in (
        (">f8", FLOAT64),
        ("float16", FLOAT32),
        (">i2", FLOAT32),
        (">i8", FLOAT64),
    ):
        assert readable(np.ones(3, dtype)).dtype == expected


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_a_native_byte_order_that_is_named(dtype):
    """It is in the format of the array's buffer, which the cores compare; nothing is copied."""
    array = np.ones(3, np.dtype(dtype).newbyteorder("<" if sys.byteorder == "little" else ">"))
    assert memoryview(array).format[0] in "<>"
    read = readable(array)
    assert memoryview(read).format == memoryview(np.ones(1, dtype)).format
    assert np.shares_memory(read, array) and read.dtype == array.dtype


def test_names_of_columns():
    """In pyarrow's tables `columns` are the data."""
    arrow = SimpleNamespace(column_names=["a", "b"], columns=[[1, 2], [3, 4]])
    assert column_names(arrow) == column_names(SimpleNamespace(columns=["a", "b"])) == ["a", "b"]
    assert column_names(np.ones((2, 2))) == []
    assert first_names(None, [], np.array(["x", 1], object), ["y"]) == ["x", "1"]
    assert first_names(None, []) == []


def test_long_lists_are_cut():
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(range(1237), 2, repr) == "0, 1 and 1,235 more"
