"""Scales of numbers: RealMLP's robust scale and smooth clip, and quantile knots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array

Float64s = NDArray[np.float64]

LARGEST, SMALLEST = float(np.finfo(np.float64).max), float(np.finfo(np.float64).tiny)

FAR = 1e9
"""Scaled numbers are cut off here: the smooth clip is 3 to the last digit, and float32 holds it."""


class Scale(NamedTuple):
    """``f((x - center) * factor)``, with the smooth clip f if `clips` is true."""

    center: float
    factor: float
    clips: bool

    def __call__(self, values: Float64s) -> Float64s:
        """Scale numbers in place and return them; NaN becomes 0, the center's image."""
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            values -= self.center
            values *= self.factor
            np.clip(values, -FAR, FAR, out=values)
            if self.clips:
                smooth_clip(values)
        values[np.isnan(values)] = 0
        return values


def smooth_clip(u: Float64s) -> Float64s:
    """Return u / sqrt(1 + (u/3)^2), which is between -3 and 3, in place; u is at most FAR."""
    t = u / 3
    t *= t
    t += 1
    np.sqrt(t, out=t)
    u /= t
    return u


def robust_scale(low: float, median: float, high: float, least: float, most: float) -> Scale:
    """Return RealMLP's scale, of quartiles and range: by the middle half, else by the range."""
    span = high - low if high > low else (most - least) / 2
    factor = 1 / min(max(span, SMALLEST), LARGEST) if span else 0.0
    return Scale(median, factor, True)


def scale_of(values: Float64s, method: str) -> Scale:
    """Compute the scale of numbers without NaN: "robust", "standard" or "as_is"."""
    if method == "as_is":
        return Scale(0.0, 1.0, False)
    largest = float(np.abs(values).max())
    if method == "standard":
        unit = (
            2.0 ** (math.frexp(largest)[1] - 1) if largest > 1e150 else 1.0
        )  # squares stay finite
        mean = float((values / unit).mean()) * unit
        std = float((values / unit).std()) * unit
        return Scale(mean, min(1 / std, LARGEST) if std > 1e-12 * abs(mean) else 0.0, False)
    unit = 2.0 if largest > 1e300 else 1.0  # quantiles are of differences, which stay finite
    low, median, high = (np.quantile(values / unit, (0.25, 0.5, 0.75)) * unit).tolist()
    return robust_scale(low, median, high, float(values.min()), float(values.max()))


def quantiles_of_counts(values: Float64s, counts: Array, q: Sequence[float]) -> list[float]:
    """Return NumPy's default quantiles of sorted values, of which each occurs so often."""
    ends = np.cumsum(counts)
    found = []
    for place in (float(ends[-1]) - 1) * np.asarray(q, np.float64):
        low = math.floor(place)
        below = values[np.searchsorted(ends, low, "right")]
        above = values[min(int(np.searchsorted(ends, low + 1, "right")), len(values) - 1)]
        found.append(float(below + (above - below) * (place - low)))
    return found


def scale_of_counts(values: Float64s, counts: Array, method: str) -> Scale:
    """Compute the scale of a few sorted values, of which each occurs so often."""
    if method == "as_is":
        return Scale(0.0, 1.0, False)
    if method == "standard":
        with np.errstate(over="ignore", under="ignore"):
            mean = float(np.average(values, weights=counts))
            std = math.sqrt(float(np.average((values - mean) ** 2, weights=counts)))
        return Scale(mean, 1 / std if std else 0.0, False)
    low, median, high = quantiles_of_counts(values, counts, (0.25, 0.5, 0.75))
    there = values[counts > 0]
    return robust_scale(low, median, high, float(there[0]), float(there[-1]))


def knots_of(values: Float64s, n: int) -> Float64s:
    """Return at most `n` knots, sorted: quantiles of the values, each once.

    A value on one row in `n`, or more, has a knot of its own; the other knots are quantiles of the
    rest, with its smallest and largest value.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) > n:
        heavy = counts * n >= len(values)
        rest, ends = distinct[~heavy], np.cumsum(counts[~heavy])
        free = n - int(heavy.sum())
        places = np.linspace(0, int(ends[-1]) - 1, free) if free > 1 else ends[-1:][:free] // 2
        places = np.rint(places)
        knots = rest[np.searchsorted(ends, places, "right")]
        distinct = np.unique(np.concatenate([knots, distinct[heavy]]))
    return distinct[far_apart(distinct)]


NEAREST = 1e-300
"""Smallest distance of two knots: its inverse is finite."""


def far_apart(knots: Float64s) -> NDArray[np.bool_]:
    """Whether each knot is above the one before, so far that the inverse is finite."""
    return np.diff(knots / 2, prepend=-np.inf) >= NEAREST


def place_among(values: Float64s, knots: Float64s) -> Float64s:
    """Return where numbers are among knots: 0 to n - 1, with a fraction between two of them."""
    places = np.arange(len(knots), dtype=np.float64)
    return np.asarray(np.interp(values / 2, knots / 2, places))  # halves: no distance is infinite
