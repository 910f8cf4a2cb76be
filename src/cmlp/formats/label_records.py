"""Class labels in a model file: text, bytes, truth values and numbers of exact types."""

from __future__ import annotations

import re
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.layout import Array
from cmlp.data.records import NUMBER, entries

_LABEL_DTYPES = {
    dtype.str: dtype
    for code in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
    for dtype in (np.dtype(f"<{code}"), np.dtype(f">{code}"))
}
"""Dtypes of numeric labels, by their names in a file."""


_TEXT_DTYPE = re.compile(r"(?:[<>]U|\|S)([1-9][0-9]{0,8})", re.ASCII)
"""Dtype of text or bytes: the kind, and the length of the longest label."""


MAX_LABELS, MAX_WASTE = 2**24, 64
"""Bytes that labels may take as an array, in which each is as long as the longest; or so many times
their size in the file, if that is more."""


def label_record(classes: ArrayLike) -> dict[str, Any]:
    """Describe labels for :func:`read_classes`."""
    if np.ma.is_masked(classes):
        raise ValueError("classes has masked entries, which are no labels")
    array = np.asarray(classes)
    if array.ndim != 1:
        raise ValueError(f"classes must be (n,), one label per output; its shape is {array.shape}")
    if array.dtype.kind not in "iubfUS" or array.dtype.char == "g":
        array = _of_one_type(array)
    labels = array.tolist()
    if array.dtype.kind in "US":
        array = np.array(labels)  # as wide as its longest label
    if array.dtype.kind == "S":
        labels = [label.decode("latin-1") for label in labels]
    return {"dtype": array.dtype.str, "labels": labels}


def _of_one_type(array: Array) -> Array:
    """Turn objects of one kind into an array of text, bytes, truth values or numbers."""
    kinds: set[type] = set()
    if array.dtype.kind in "OT":  # T: NumPy's text of variable length
        labels = [each.item() if isinstance(each, np.generic) else each for each in array.tolist()]
        kinds = {type(label) for label in labels}
        for kind in (str, bytes, bool, float):
            if all(issubclass(each, kind) for each in kinds):
                # by the base: str(label) of an enumeration's member is another text
                plain = [kind.__str__(each) if kind is str else kind(each) for each in labels]
                made: Array = np.array(plain)
                if kind is not float and made.tolist() != plain:
                    raise ValueError("labels of text cannot end with a null character")
                return made
        if all(issubclass(each, int) for each in kinds):
            for limits in (np.iinfo(np.int64), np.iinfo(np.uint64)):
                if limits.min <= min(labels) and max(labels) <= limits.max:
                    return np.array([int(label) for label in labels], limits.dtype)
        elif kinds == {int, float} and all(float(label) == label for label in labels):
            return np.array(labels, np.float64)
    names = ", ".join(sorted(kind.__name__ for kind in kinds)) or str(array.dtype)
    raise ValueError(
        f"classes holds labels of type {names}; a file keeps text, bytes, True and False, whole "
        "numbers of 64 bits and floats, all of one type"
    )


def read_classes(record: object, n: int) -> Array:
    """Return labels in the order of the outputs: `n` of them, each once."""
    about = entries(record, "the labels", {"dtype": (str,), "labels": (list,)}, {})
    name, labels = about["dtype"], about["labels"]
    if len(labels) != n:
        raise ValueError(f"{n} labels expected, {len(labels)} came")
    text = _TEXT_DTYPE.fullmatch(name)
    if text:
        classes = _text_labels(labels, bytes if name[1] == "S" else str, int(text[1]))
    elif name in _LABEL_DTYPES:
        classes = _number_labels(labels, _LABEL_DTYPES[name])
    else:
        raise ValueError(f"labels cannot be of the dtype {short(name)}")
    if len(set(classes.tolist())) < n:
        raise ValueError("labels must differ from each other, and NaN is none")
    if classes.dtype.kind == "f" and not np.isfinite(classes).all():
        raise ValueError("labels must be finite")
    return classes


def _number_labels(labels: list[Any], dtype: np.dtype[Any]) -> Array:
    """Return numeric labels, unless the dtype would change them."""
    kinds = {"b": (bool,), "f": NUMBER}.get(dtype.kind, (int,))
    if not all(type(label) in kinds for label in labels):
        raise TypeError(f"labels of {dtype} expected, {short(labels)} came")
    if dtype.kind in "iu":
        range_ = np.iinfo(dtype)
        if not (range_.min <= min(labels) and max(labels) <= range_.max):
            raise ValueError(f"labels out of the range of {dtype}")
    with np.errstate(all="ignore"):
        classes = np.array(labels if dtype.kind != "f" else list(map(float, labels)), dtype)
    if classes.tolist() != labels or (classes != classes).any():
        raise ValueError(f"labels that are no numbers of {dtype}, or NaN")
    return classes


def _text_labels(labels: list[Any], kind: type, length: int) -> Array:
    """Return labels of text or bytes, whose longest has this length."""
    if not all(type(label) is str for label in labels):
        raise TypeError(f"labels of text expected, {short(labels)} came")
    longest = max(map(len, labels))
    if longest != length:
        raise ValueError(f"labels of up to {length} letters expected, {longest} came")
    room = longest * len(labels) * (4 if kind is str else 1)
    if room > max(MAX_LABELS, MAX_WASTE * sum(map(len, labels))):
        raise ValueError(
            f"{len(labels):,} labels as long as the longest, of {longest:,} letters, take "
            f"{room:,} bytes; shorten it"
        )
    values = labels if kind is str else [label.encode("latin-1") for label in labels]
    classes = np.array(values)
    if classes.tolist() != values:
        raise ValueError("labels of text cannot end with a null character")
    return classes
