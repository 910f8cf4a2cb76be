"""Checks of single numbers, with messages that name the parameter."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Return a number without its NumPy type, for messages."""
    return value.item() if isinstance(value, np.generic) else value


def check_number(
    name: str, value: Any, low: float, high: float = np.inf, *, open_high: bool = False
) -> float:
    """Return a parameter as a float within ``[low, high]`` (or ``[low, high)``)."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, UserWarning):  # the last where warnings are errors: masked
        raise TypeError(f"{name} must be a number, not {plain(value)!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, not {plain(value)!r}")
    if not (low <= number < high if open_high else low <= number <= high):
        upper = "" if high == np.inf else f" and {'below' if open_high else 'at most'} {high:g}"
        raise ValueError(f"{name} must be at least {low:g}{upper}; it is {plain(value)!r}")
    return number


def check_input_scale(value: Any) -> float:
    """Return a factor of the inputs as a float that is finite and above zero also as a float32."""
    return check_number("input_scale", value, 1e-37, 1e37)


def check_integer(name: str, value: Any, low: int) -> int:
    """Return a parameter as an int of at least `low`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, not {plain(value)!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}; it is {value}")
    return int(value)


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """Return one of the two number types that the cores have."""
    if dtype is not None:  # NumPy reads None as float64
        with contextlib.suppress(TypeError, ValueError, SyntaxError):  # NumPy parses text
            found: np.dtype[Any] = np.dtype(dtype)
            if found in (np.float32, np.float64) and found.isnative:
                return found
    raise ValueError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
