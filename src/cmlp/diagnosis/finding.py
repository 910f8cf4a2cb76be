"""Finding: one thing that a diagnosis reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cmlp.core.public import set_module

SEVERITIES = ("error", "warning", "note")
"""Nothing can be learned; learning suffers; worth knowing, and harmless as a rule."""


@set_module("cmlp")
@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    code : str
        What kind it is, such as 'unscaled-inputs'; stays the same from version to version.
    severity : {'error', 'warning', 'note'}
        Nothing can be learned; learning suffers; worth knowing, and harmless as a rule.
    value : float
        The number that was measured; `meaning` tells which.
    meaning : str
        What was measured, and what it does to the training.
    advice : str
        What to change, and to what.
    parameter : str or None
        The parameter that the advice is about, if it is one of the model's.
    suggestion : object
        A value for it.
    names : tuple of str
        The columns, layers or classes concerned.
    """

    code: str
    severity: str
    value: float
    meaning: str
    advice: str
    parameter: str | None = None
    suggestion: Any = None
    names: tuple[str, ...] = ()
