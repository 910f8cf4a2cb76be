"""Entries of a model file's JSON, checked by exact types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as short
from typing import Any

from cmlp.core.vocabulary import SOLVERS

NUMBER = (int, float)  # exactly these: True is not a number

SOLVER_NAMES = ["", *(row.name for row in SOLVERS)]


def entries(
    record: object, what: str, kinds: Mapping[str, tuple[type, ...]], older: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the known entries of a JSON object, each of exactly one of its types.

    Parameters
    ----------
    older : mapping
        Values of entries that older files lack.
    """
    if type(record) is not dict:
        raise TypeError(f"{what} must be a JSON object, not {short(record)}")
    found = {**older, **record}
    for key, types in kinds.items():
        if key not in found:
            raise ValueError(f"{what} lacks {key!r}")
        if type(found[key]) not in types:
            expected = " or ".join(kind.__name__ for kind in types)
            raise TypeError(f"{key} of {what} must be {expected}, not {short(found[key])}")
    return {key: found[key] for key in kinds}


def in_order(record: Mapping[str, Any], kinds: Mapping[str, object]) -> dict[str, Any]:
    """Return entries in the order of a table, so that equal networks make equal files."""
    return {key: record[key] for key in kinds if key in record}


def check_name(what: str, name: str, names: Sequence[Any]) -> None:
    """Check that a name is one of those known."""
    if name not in names:
        raise ValueError(f"unknown {what} {short(name)}")
