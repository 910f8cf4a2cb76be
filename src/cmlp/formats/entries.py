"""Names and the order of entries of a model file's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as short
from typing import Any

from cmlp.core.vocabulary import SOLVERS

SOLVER_NAMES = ["", *(row.name for row in SOLVERS)]


def in_order(record: Mapping[str, Any], kinds: Mapping[str, object]) -> dict[str, Any]:
    """Return entries in the order of a table, so that equal networks make equal files."""
    return {key: record[key] for key in kinds if key in record}


def check_name(what: str, name: str, names: Sequence[Any]) -> None:
    """Check that a name is one of those known."""
    if name not in names:
        raise ValueError(f"unknown {what} {short(name)}")
