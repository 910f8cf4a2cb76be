"""Arrays from what users pass, unless entries are masked."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.core.layout import Array


def refuse_masked(name: str, values: Any, deep: bool = True) -> None:
    """Raise ValueError for masked entries, also in a list or an array of objects.

    `deep` checks the lists within a list, too, which takes as long as to make an array of them.
    """
    if _has_masked(values, deep):
        raise ValueError(f"{name} has masked entries; fill them first: {name}.filled(value)")


def _has_masked(values: Any, deep: bool = True) -> bool:
    if isinstance(values, np.ma.MaskedArray):
        return bool(np.ma.is_masked(values))
    if isinstance(values, np.ndarray):
        if values.dtype != object:
            return False
        values = values.ravel().tolist()
    if not isinstance(values, (list, tuple)):
        return False
    inside = (list, tuple, np.ndarray) if deep else np.ndarray
    kinds = set(map(type, values))
    return any(issubclass(kind, inside) for kind in kinds) and any(map(_has_masked, values))


def array_of(name: str, values: Any) -> Array:
    """Return an array of `values`, as NumPy makes it, unless entries are masked."""
    refuse_masked(name, values, deep=False)
    try:
        array = np.asarray(values)
    except UserWarning:  # of a masked entry in a list of lists, where warnings are errors
        refuse_masked(name, values)
        raise
    if array.dtype == object:
        refuse_masked(name, array)
    elif hasattr(values, "__array__"):
        return array
    elif array.dtype.kind == "U" or (array.dtype.kind == "f" and np.isnan(array.sum())):
        refuse_masked(name, values)  # in a list of lists it has become text, or NaN
    return array
