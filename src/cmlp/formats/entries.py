"""Entries of a model file's JSON, checked by exact types: nothing reaches a parser of code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as short
from typing import Any

from cmlp.core.vocabulary import SOLVERS

NUMBER = (int, float)  # exactly: True is no number

SOLVER_NAMES = ["", *(row.name for row in SOLVERS)]


def entries(
    record: object, what: str, kinds: Mapping[str, tuple[type, ...]], older: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the entries of a JSON object that are known, each of exactly one of its types.

    Parameters
    ----------
    older : mapping
        What files lack that were written before there was such an entry.
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


def check_name(what: str, name: str, names: Sequence[Any]) -> None:
    if name not in names:
        raise ValueError(f"unknown {what} {short(name)}")
