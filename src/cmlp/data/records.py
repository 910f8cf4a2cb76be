"""Entries of a file's JSON, checked by exact types."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

NUMBER = (int, float)  # exactly these: True is not a number


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
