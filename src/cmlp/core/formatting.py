"""Numbers as text: digits at any size, and 0, 1 and 100 % only for what is exactly that."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cmlp.core.layout import Array

DIGITS = 4
"""Significant digits of the numbers in an array."""


LAYOUT: dict[str, Any] = {"threshold": 200, "edgeitems": 4, "max_line_width": 96}
"""NumPy's options for an array; larger ones are shortened to their edges."""


def number(value: float, decimals: int = 4) -> str:
    """Write a number with so many decimals, or with an exponent where these do not show it.

    Decimals show a number if at least two of its digits are among them, or all that it has, and if
    there are at most twice as many digits before the point.
    """
    value = float(value) + 0.0  # -0.0 becomes 0.0
    fixed = f"{value:.{decimals}f}"
    shows = abs(value) >= 10.0 ** (1 - decimals) or float(fixed) == value
    if not math.isfinite(value) or (shows and abs(value) < 10.0 ** (2 * decimals)):
        return fixed
    return f"{value:.{decimals - 1}e}"


def score(value: float, decimals: int = 4) -> str:
    """Write an accuracy or R2 as :func:`number` does; a score below 1 is not rounded to 1."""
    text = number(value, decimals)
    if value == 1 or float(text) != 1:
        return text
    return f"{value:.{_first_place(1 - value)}f}"


def percent(share: float, decimals: int = 0) -> str:
    """Write a share in per cent, with more decimals where it would be rounded to 0 % or 100 %."""
    value = 100 * float(share)
    text = f"{value:.{decimals}f}"
    if not math.isfinite(value):
        return text
    if abs(value) >= 1e6 or (value and float(text) == 0):
        return f"{value:.2g}"
    if value != 100 and float(text) == 100:
        return f"{value:.{_first_place(100 - value)}f}"
    return text


def _first_place(value: float) -> int:
    """Return the decimal place of the first digit: 2 for 0.03."""
    return -math.floor(math.log10(abs(value)) + 1e-6)  # a difference may have lost a little


def significant(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits; below 1e10 without an exponent."""
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text and abs(value) < 1e10 else text


def count(number: float) -> str:
    """Write a number short: 950, 12.3k, 4.56M."""
    for size, unit in ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")):
        text = f"{number / size:.3g}"
        if float(text) < 1000:
            return f"{text}{unit}"
    return f"{number:.3g}"


def array(values: Array) -> str:
    """Write an array: four decimals where they show every number, else four digits of each.

    No number but 0 is written as 0. Where all numbers are nearly the same, there are as many digits
    as it takes to tell them apart.
    """
    values = np.asarray(values)
    if values.dtype.kind != "f":
        return _laid_out(values)
    values = values + 0.0  # -0.0 becomes 0.0
    shown: list[float] = []

    def note(x: Any) -> str:
        shown.append(float(x))
        return "-"

    _laid_out(values, formatter={"float_kind": note})
    digits = _digits(shown, np.finfo(values.dtype).precision)
    sizes = [abs(x) for x in shown if x and math.isfinite(x)] or [1.0]
    if digits == DIGITS and min(sizes) >= 1e-3 and max(sizes) < 1e6:
        plain = {"precision": 4, "suppress_small": True, "floatmode": "maxprec", "sign": "-"}
        return _laid_out(values, formatter={}, **plain)  # whatever the user's print options are
    width = max(len(significant(x, digits)) for x in shown)
    return _laid_out(
        values, formatter={"float_kind": lambda x: significant(x, digits).rjust(width)}
    )


def _laid_out(values: Array, **how: Any) -> str:
    return np.array2string(values, **LAYOUT, **how)


def _digits(shown: list[float], precision: int) -> int:
    """Return how many digits tell numbers apart that are equal in their first three.

    Numbers that differ only by rounding, in a dtype of that `precision`, count as equal.
    """
    known = [x for x in shown if math.isfinite(x)]
    largest = max(map(abs, known), default=0.0)
    span = max(known, default=0.0) - min(known, default=0.0)
    if not 0 < span < math.inf:
        return DIGITS
    equal = math.floor(math.log10(largest / span))
    return min(DIGITS + equal, precision + 1) if 3 <= equal < precision else DIGITS
