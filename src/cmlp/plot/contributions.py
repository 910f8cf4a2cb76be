"""What features add to answers: bars of their size, and a point for each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.errstate import silent
from cmlp.core.formatting import significant
from cmlp.core.layout import Array
from cmlp.explain.attributions import Attributions
from cmlp.plot.style import (
    AMOUNTS,
    COLOURS,
    GREY,
    MOST_POINTS,
    axes_for,
    colourbar,
    ink,
    shortened,
    tidy,
)

KINDS = (None, "bars", "points")

LANES = 90
"""Points of a row that are nearer than this part of the width are drawn above each other."""


@silent
def attributions(
    found: Attributions,
    *,
    kind: str | None = None,
    answer: Any = None,
    features: int = 12,
    ax: Any = None,
) -> Any:
    """Draw attributions: the features with the largest ones, one below the other.

    Parameters
    ----------
    found : Attributions
        What :func:`cmlp.attributions` returned.
    kind : {None, 'bars', 'points'}
        'bars': the mean absolute value over the rows, a colour for each answer; of a single row,
        its values with their signs. 'points': a point for each row, of at most 1,500, coloured by
        the feature's value among all rows (grey: no number). By default points, and bars for
        several answers or for a single row.
    answer : str or label, optional
        Of several answers, the one to draw: its name, or its number.
    features : int
        How many to draw at most; of a single row, the others are drawn as one bar.
    ax : matplotlib Axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib Axes
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be None, 'bars' or 'points', not {kind!r}")
    values, names = found.values, found.output_names
    if values.ndim == 3 and answer is not None:
        place = _place_of(answer, names)
        values, names = values[:, :, place], [names[place]]
    if kind == "points" and values.ndim == 3:
        raise ValueError(f"points are of one answer: choose it, answer={names[0]!r}")
    if kind is None:
        kind = "bars" if values.ndim == 3 or len(values) == 1 else "points"
    sizes = np.abs(values).mean(axis=0).reshape(values.shape[1], -1).sum(axis=1)
    order = np.argsort(-sizes, kind="stable")[:features]
    height = 0.34 * (len(order) + (len(values) == 1 and len(order) < len(sizes))) + 1.0
    ax = axes_for(ax, (6.4, height))
    (_bars if kind == "bars" else _points)(ax, found, values, order, names)
    ax.axvline(0, color=ink(ax), lw=0.8, zorder=0)
    ax.tick_params(axis="y", length=0)
    return tidy(ax, grid=False)


def _place_of(answer: Any, names: list[str]) -> int:
    """Return the number of an answer, which is its name or its number."""
    if str(answer) in names:
        return names.index(str(answer))
    if isinstance(answer, int) and 0 <= answer < len(names):
        return answer
    raise ValueError(f"answer must be one of {', '.join(map(repr, names))}, not {answer!r}")


def _bars(
    ax: Any, found: Attributions, values: Array, order: NDArray[np.int64], names: list[str]
) -> None:
    single = len(values) == 1
    amounts = values[0] if single else np.abs(values).mean(axis=0)
    amounts = amounts.reshape(len(amounts), -1)
    rest = np.setdiff1d(np.arange(len(amounts)), order) if single else order[:0]
    shown = [amounts[order]] + [amounts[rest].sum(axis=0, keepdims=True)] * bool(len(rest))
    widths = np.concatenate(shown)
    left = {sign: np.zeros(len(widths)) for sign in (1, -1)}
    places = np.arange(len(widths))
    for number in range(widths.shape[1]):
        width = widths[:, number]
        begin = np.where(width < 0, left[-1], left[1])
        colour: Any = COLOURS[number % len(COLOURS)]
        if single and widths.shape[1] == 1:
            colour = [COLOURS[0] if each >= 0 else COLOURS[1] for each in width]
        ax.barh(
            places, width, left=begin, height=0.7, color=colour, label=shortened(names[number]),
            hatch="//" if number >= len(COLOURS) else None, edgecolor="white", linewidth=0,
        )  # fmt: skip
        left[1], left[-1] = left[1] + np.maximum(width, 0), left[-1] + np.minimum(width, 0)
    labels = [shortened(found.feature_names[place]) for place in order]
    if single:
        labels = [
            f"{label} = {_cell(found.data[0, place])}"
            for label, place in zip(labels, order, strict=True)
        ]
    others = [f"{len(rest):,} others"] if len(rest) else []
    ax.set_yticks(places, labels + others)
    ax.set_ylim(len(widths) - 0.5, -0.5)
    what = "attribution" if single else "mean |attribution|"
    ax.set_xlabel(f"{what} ({found.output})")
    if widths.shape[1] > 1:
        ax.legend(frameon=False, loc="lower right")


def _points(
    ax: Any, found: Attributions, values: Array, order: NDArray[np.int64], names: list[str]
) -> None:
    rows = np.arange(len(values))
    if len(rows) > MOST_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_POINTS, replace=False))
    drawn = values[rows]
    span = float(np.ptp(drawn[:, order])) or 1.0
    image = None
    from matplotlib import colormaps

    colours = colormaps[AMOUNTS].with_extremes(bad=GREY)
    for place, feature in enumerate(order):
        x = drawn[:, feature]
        y = place + _spread(np.round(x * (LANES / span)))
        ranks = _ranks(found.data[:, feature])
        if ranks is None:
            ax.scatter(x, y, s=9, color=GREY, linewidths=0)
        else:
            image = ax.scatter(
                x, y, s=9, c=ranks[rows], cmap=colours, vmin=0, vmax=1, linewidths=0,
                plotnonfinite=True,
            )  # fmt: skip
    ax.set_yticks(np.arange(len(order)), [shortened(found.feature_names[each]) for each in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    about = f" to {shortened(names[0])}" if len(found.output_names) > 1 else ""
    ax.set_xlabel(f"attribution{about} ({found.output})")
    if image is not None:
        bar = colourbar(image, ax, "value of the feature", ticks=[0, 1])
        bar.ax.set_yticklabels(["low", "high"])


def _spread(lanes: Array) -> NDArray[np.float64]:
    """Return heights, within 0.4 of 0, that keep points of the same lane apart."""
    heights = np.zeros(len(lanes))
    _, inverse, counts = np.unique(lanes, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    first = np.repeat(np.cumsum(counts) - counts, counts)
    number = np.arange(len(lanes)) - first  # 0, 1, 2, ... become 0, 1, -1, 2, -2, ...
    heights[order] = np.where(number % 2, number + 1, -number) / 2
    return heights * min(0.06, 0.8 / max(int(counts.max()), 1))


def _ranks(cells: Array) -> NDArray[np.float64] | None:
    """Return how large numbers are among all, from 0 to 1, NaN for gaps; None without numbers."""
    if cells.dtype == object and any(isinstance(cell, (str, bytes)) for cell in cells):
        return None
    try:
        numbers = cells.astype(np.float64)
    except (TypeError, ValueError):
        return None
    known = np.isfinite(numbers)
    if not known.any():
        return None
    _, place = np.unique(numbers, return_inverse=True)
    ranks = place / max(int(place[known].max()), 1)
    return np.asarray(np.where(known, ranks, np.nan))


def _cell(cell: Any) -> str:
    """Write the value of a feature."""
    number = isinstance(cell, (float, np.floating)) and not isinstance(cell, bool)
    return significant(float(cell), 3) if number else shortened(cell)
