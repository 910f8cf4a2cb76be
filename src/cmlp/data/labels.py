"""Labels of any type and in any order: read with every digit, compared, and found among classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.arrays import array_of
from cmlp.core.layout import Array

EXACT = 2**53
"""Whole numbers below it are exact as float64."""


def label_array(name: str, values: Any) -> Array:
    """Return an array of the labels in `values`, with every digit of whole numbers.

    Objects become text or numbers if all are of one kind; otherwise they stay objects, which
    :func:`not_labels` describes.
    """
    array = array_of(name, values)
    if not hasattr(values, "__array__"):  # of a list, NumPy makes text of None next to text,
        large = array.dtype.kind == "f" and array.size and not np.abs(array).max() < EXACT
        if array.dtype.kind == "U" or large:  # and floats of 7 and 2**63
            array = np.asarray(values, dtype=object)
    if array.dtype.kind == "T":  # NumPy's text of any length
        array = array.astype(object)
    if array.dtype == object:
        return _of_one_kind(array)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # it has more digits than float64
        narrow = array.astype(np.float64)
        if (narrow == array).all() or not (np.isfinite(array) & (array == np.rint(array))).all():
            return narrow
        found = _whole(list(map(int, array.ravel())))
        return narrow if found is None else found.reshape(array.shape)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _of_one_kind(array: Array) -> Array:
    """Turn objects into text, truth values or numbers, if all of them are of one kind."""
    values = array.ravel().tolist()
    kinds = set(map(type, values))
    if not kinds <= {str, int, float, bool}:
        values = [_plain(value) for value in values]
        kinds = set(map(type, values))
    found: Array | None = None
    if not kinds:
        return array
    if kinds <= {str} or kinds <= {bytes} or kinds <= {bool}:
        found = np.array(values)
        if not kinds <= {bool} and found.tolist() != values:
            return array  # NumPy takes zeros at the end of a text for padding
    elif all(issubclass(kind, int) for kind in kinds):
        found = _whole(values)
    elif all(issubclass(kind, (int, float)) for kind in kinds):
        large = any(isinstance(value, int) and abs(value) >= EXACT for value in values)
        whole = large and all(float(value).is_integer() for value in values)
        found = _whole([int(value) for value in values]) if whole else np.array(values, np.float64)
    return array if found is None else found.reshape(array.shape)


def _plain(value: Any) -> Any:
    """Return Python's own object of a NumPy scalar, or the text of an enumeration's member."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return str.__str__(value) if isinstance(value, str) else value


def _whole(values: Sequence[int]) -> Array | None:
    """Return integers as int64, or as uint64 where they need it; None if neither holds them."""
    low, high = min(values), max(values)
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.array(values, dtype)
    return None


def is_missing(value: Any) -> bool:
    """Whether an object stands for a missing value: None, NaN, or one of pandas' kinds."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def not_labels(name: str, array: Array) -> ValueError:
    """Return the error for an array whose entries cannot be labels."""
    kinds: set[type] = set()
    if array.dtype == object:
        kinds = {type(_plain(value)) for value in array.ravel().tolist()}
    if kinds and all(issubclass(kind, int) for kind in kinds):
        return ValueError(
            f"{name} holds whole numbers that need more than 64 bits; pass them as text: "
            f"[str(label) for label in {name}]"
        )
    if kinds and (kinds <= {str} or kinds <= {bytes}):
        return ValueError(
            f"{name} holds text that ends in \\0, which NumPy does not keep: strip it"
        )
    if len(kinds) > 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        return ValueError(f"{name} mixes labels of different types ({names}); use one type")
    what = next((kind.__name__ for kind in kinds), str(array.dtype))
    return ValueError(f"{name} holds labels of type {what}; use text or numbers")


def places(classes: Array, labels: Array) -> NDArray[np.int64]:
    """Return each label's place among the classes, which may have any order; -1: not there."""
    if not _compares(classes.dtype, labels.dtype):  # Python compares 1, 1.0 and 2**63 exactly
        table = {label: place for place, label in enumerate(classes.tolist())}
        found, inverse = np.unique(labels, return_inverse=True)
        known = np.array([table.get(label, -1) for label in found.tolist()], np.int64)
        return known[inverse.reshape(labels.shape)]
    last = len(classes) - 1
    place = np.minimum(np.searchsorted(classes, labels), last)
    if (classes[place] != labels).any():  # some are no classes, or those are not sorted
        order = np.argsort(classes, kind="stable")
        place = order[np.minimum(np.searchsorted(classes, labels, sorter=order), last)]
        place = np.where(classes[place] == labels, place, -1)
    return place.astype(np.int64, copy=False)


def equal(a: Array, b: Array) -> NDArray[np.bool_]:
    """Compare labels one by one."""
    if not _compares(a.dtype, b.dtype):
        a, b = a.astype(object), b.astype(object)
    return np.asarray(a == b)


def _compares(a: np.dtype[Any], b: np.dtype[Any]) -> bool:
    """Whether NumPy compares numbers or texts of these types without rounding any of them."""
    if a.kind in "iub" and b.kind in "iub":
        return np.promote_types(a, b).kind != "f"  # int64 and uint64 meet in float64
    return a.kind == b.kind


def joined(name: str, a: Array, b: Array) -> Array:
    """Return the labels of both, sorted, each once."""
    if _compares(a.dtype, b.dtype):
        return np.union1d(a, b)
    both = label_array(name, [*a.tolist(), *b.tolist()])
    if both.dtype == object:
        raise not_labels(name, both)
    return np.unique(both)


def check_classes(name: str, labels: Any, n: int | None = None) -> Array:
    """Return labels given in the order of the outputs as an array: `n` of them, each once."""
    classes = label_array(name, labels)
    if classes.ndim != 1:
        raise ValueError(f"{name} must be a list of labels, but its shape is {classes.shape}")
    if classes.dtype.kind not in "iubfUS":
        raise not_labels(name, classes)
    if classes.dtype.kind == "f" and not np.isfinite(classes).all():
        raise ValueError(f"{name} must not hold NaN or infinity: {classes.tolist()}")
    if classes.dtype.kind == "f" and classes.tolist() != list(labels):
        raise ValueError(
            f"{name} holds fractions next to whole numbers of more digits than a float has; pass "
            f"them as text: [str(label) for label in {name}]"
        )
    if n is not None and len(classes) != n:
        raise ValueError(
            f"{name} must have {n} labels, in the order of the outputs, not {len(classes)}"
        )
    found, counts = np.unique(classes, return_counts=True)
    if len(found) < len(classes):
        raise ValueError(
            f"{name} must hold each label once; {found[counts > 1].tolist()} occur twice"
        )
    return classes
