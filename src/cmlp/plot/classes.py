"""Confusion matrices, and the regions in which a network decides for a class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.arrays import array_of
from cmlp.core.errstate import silent
from cmlp.core.formatting import percent
from cmlp.core.layout import Array
from cmlp.data.labels import joined, label_array, places
from cmlp.model.scoring import confusion
from cmlp.plot.models import classes_of, networks_of, predicted
from cmlp.plot.style import (
    AMOUNTS,
    COLOURS,
    MARKER_AREA,
    MARKERS,
    MOST_POINTS,
    NUMBERED_CLASSES,
    axes_for,
    colourbar,
    column_names,
    inches,
    shortened,
    tidy,
)


@silent
def confusion_matrix(
    model: Any, X: Any, y: ArrayLike, *, normalize: str | None = None, ax: Any = None
) -> Any:
    """Draw how the labels were read: a row per true label, a column per label read.

    Cells are shaded by their share of the row, so that rare classes are as visible as frequent
    ones.

    Parameters
    ----------
    model : Network or MLPClassifier
        A fitted network or estimator.
    X, y : array-like
        Rows and their targets, as `fit` takes them.
    normalize : {None, 'true', 'pred', 'all'}
        Numbers in the cells: counts; or per cent of the row, of the column or of all.
    ax : matplotlib Axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib Axes
    """
    if normalize not in (None, "true", "pred", "all"):
        raise ValueError(f"normalize must be None, 'true', 'pred' or 'all', not {normalize!r}")
    truth, read = label_array("y", y), predicted(model, X)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim != 1 or read.ndim != 1:
        raise ValueError("a confusion matrix needs one label per row, y must be (n,)")
    classes = _labels_of(model, truth, read)
    counts = confusion(truth, read, classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [shortened(label) for label in classes]
    side = float(np.clip(0.4 * len(classes) + 1.2, 2.4, 10.5)) + 0.07 * max(map(len, names))
    ax = axes_for(ax, (side + 1.2, side), "compressed")
    from matplotlib.colors import PowerNorm

    # The square root makes single mistakes visible next to a diagonal of hundreds.
    image = ax.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    _name_cells(ax, names)
    if len(classes) <= NUMBERED_CLASSES:
        _number_cells(ax, counts, shares, normalize)
    bar = colourbar(image, ax, "share of the true label", ticks=[0, 0.05, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0", "5%", "25%", "50%", "100%"])
    for spine in ax.spines.values():
        spine.set_color("#BBBBBB")
    return ax


def _labels_of(model: Any, truth: Array, read: Array) -> Array:
    """Return all labels: those of the outputs in their order, then those that have no output."""
    classes = classes_of(model)
    if classes is None:
        classes = joined("y", truth, read)
    unseen = np.unique(truth[places(classes, truth) < 0])
    if len(unseen):
        classes = label_array("y", [*classes.tolist(), *unseen.tolist()])
    return classes


def _name_cells(ax: Any, names: Sequence[str]) -> None:
    """Write the labels along both axes, at most 60 of them; many or long ones are turned."""
    step = -(-len(names) // 60)
    ticks, shown = range(0, len(names), step), names[::step]
    size = float(np.clip(260 / len(ticks), 6.0, 10.0))
    turned = {"rotation": 90} if len(ticks) > 20 else {"rotation": 45, "ha": "right"}
    if max(map(len, names)) <= 3 and len(ticks) <= 26:
        turned = {}
    anchor = "anchor" if "ha" in turned else None
    ax.set_xticks(ticks, shown, fontsize=size, rotation_mode=anchor, **turned)
    ax.set_yticks(ticks, shown, fontsize=size)
    ax.set_xlabel("label read")
    ax.set_ylabel("true label")


def _number_cells(ax: Any, counts: Array, shares: Array, normalize: str | None) -> None:
    """Write counts or per cent into the cells."""
    whole = {
        "true": counts.sum(axis=1, keepdims=True),
        "pred": counts.sum(axis=0, keepdims=True),
        "all": counts.sum(keepdims=True),
    }
    if normalize is None:
        texts = [f"{count:.0f}" for count in counts.flat]
    else:
        parts = (counts / np.maximum(whole[normalize], 1)).ravel().tolist()
        texts = [percent(part, 0 if part == 1 else 1) for part in parts]
    letters = max(4 if normalize else 2, *map(len, texts))
    cell = 72 * inches(ax) / len(counts)
    size = float(np.clip(cell / (0.62 * letters + 0.4), 5.0, 11.0))
    for ((i, j), count), text in zip(np.ndenumerate(counts), texts, strict=True):
        colour = "white" if shares[i, j] > 0.3 else "black" if count else "#999999"
        shown = text if count else "·"
        ax.text(j, i, shown, ha="center", va="center", color=colour, fontsize=size)
    if normalize is not None:
        of = {"true": "the true label", "pred": "the label read", "all": "all rows"}[normalize]
        ax.set_title(f"per cent of {of}", fontsize="medium")


@silent
def decision_regions(
    model: Any, X: Any, y: ArrayLike, *, ax: Any = None, resolution: int = 200
) -> Any:
    """Draw the predictions of a network with two inputs as an area, and the rows as points on it.

    For classes: the colour of the likeliest one, paler where it is less sure; for numbers: the
    predicted number. At most 1,500 rows are drawn.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
        A fitted network or estimator.
    X : array-like, (n, 2)
        Rows, as `fit` takes them.
    y : array-like, (n,)
        Their targets.
    ax : matplotlib Axes, optional
        Where to draw; by default new ones.
    resolution : int
        Points along each axis at which the network predicts.

    Returns
    -------
    matplotlib Axes
    """
    networks = networks_of(model)
    net = networks[0]
    names = column_names(model, X)
    points, y = array_of("X", X).astype(float), label_array("y", y)
    if net.sizes[0] != 2 or points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            f"decision regions need two inputs: the network has {net.sizes[0]}, X is {points.shape}"
        )
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (len(points),):
        raise ValueError(
            f"y must be ({len(points)},), one label or number per row; it is {y.shape}"
        )
    ax = axes_for(ax, (6.0, 4.6))
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.08 * np.where(high > low, high - low, 1)
    across, up = (np.linspace(low[i] - margin[i], high[i] + margin[i], resolution) for i in (0, 1))
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    outputs = np.mean([each.predict(grid) for each in networks], axis=0)
    outputs = outputs.astype(np.float64).reshape(resolution, resolution, -1)
    extent = (across[0], across[-1], up[0], up[-1])
    if len(points) > MOST_POINTS:
        drawn = np.random.default_rng(0).choice(len(points), MOST_POINTS, replace=False)
        points, y = points[drawn], y[drawn]
    if net.architecture.classifies:
        known = classes_of(model)
        _draw_classes(ax, outputs, extent, points, y, np.unique(y) if known is None else known)
    else:
        _draw_numbers(ax, outputs[..., 0], extent, points, y)
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    return tidy(ax, grid=False)


def _draw_classes(
    ax: Any, outputs: Array, extent: Any, points: Array, y: Array, classes: Array
) -> None:
    if outputs.shape[2] == 1:
        outputs = np.concatenate([1 - outputs, outputs], axis=2)
    colours = _class_colours(len(classes))
    best, chance = outputs.argmax(axis=2), 1 / outputs.shape[2]
    sure = np.clip((outputs.max(axis=2) - chance) / (1 - chance), 0, 1)
    strength = (0.08 + 0.37 * sure)[..., None]
    ax.imshow(
        1 - strength * (1 - colours[best]),
        extent=extent, origin="lower", aspect="auto", interpolation="bilinear",
    )  # fmt: skip
    for number in range(len(classes) - (len(classes) == 2)):
        inside = best == number
        if inside.any() and not inside.all():
            ax.contour(inside, [0.5], extent=extent, colors="white", linewidths=1.2)
    place = places(classes, y)
    for number, (label, colour, marker) in enumerate(
        zip(classes, colours, cycle(MARKERS), strict=False)
    ):
        own = points[place == number]
        ax.scatter(
            own[:, 0], own[:, 1], s=26 * MARKER_AREA.get(marker, 1), marker=marker,
            color=[colour], edgecolors="white", linewidths=0.6, label=shortened(label),
        )  # fmt: skip
    _legend_at_right(ax, len(classes))


def _class_colours(n: int) -> Array:
    """Return a colour per class, (n, 3); beyond eight classes come darker, then lighter ones."""
    from matplotlib.colors import to_rgb

    base = np.array([to_rgb(colour) for colour in COLOURS])
    shades = np.concatenate([base, 0.55 * base + 0.02, 0.5 + 0.5 * base])
    return shades[np.arange(n) % len(shades)]


def _draw_numbers(ax: Any, surface: Array, extent: Any, points: Array, y: Array) -> None:
    """Fill the axes with contours of the prediction, and draw the rows in the same colours."""
    low, high = min(surface.min(), y.min()), max(surface.max(), y.max())
    from matplotlib.ticker import MaxNLocator

    levels = MaxNLocator(12).tick_values(low, high if high > low else low + 1)
    image = ax.contourf(surface, levels, extent=extent, cmap=AMOUNTS, extend="neither")
    ax.scatter(
        points[:, 0], points[:, 1], c=y, cmap=AMOUNTS, vmin=levels[0], vmax=levels[-1], s=20,
        edgecolors="white", linewidths=0.4,
    )  # fmt: skip
    ax.figure.colorbar(image, ax=ax, label="predicted (field), true (points)")


def _legend_at_right(ax: Any, n: int) -> None:
    ax.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False,
        ncols=1 + (n - 1) // 16,
    )  # fmt: skip
