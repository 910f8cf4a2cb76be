"""Pictures of trainings and networks, with matplotlib: ``pip install 'cmlp[plot]'``.

Every function takes a fitted :class:`~cmlp.Network`, MLPClassifier or MLPRegressor, draws into
`ax` (or into a new figure, by way of ``plt.subplots``) and returns what it drew into; nothing is
shown, closed or set for other pictures. Classes and curves differ by colour, and by marker or line
style as well, in colours that colour-blind readers tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import array_of, joined, label_array, places
from ._case import network_of, networks_of, rows_of
from ._errstate import silent
from ._examinations import gradient_norms as _norms
from ._numbers import percent, score, significant

__all__ = [
    "activations",
    "confusion_matrix",
    "decision_regions",
    "first_layer_weights",
    "gradient_norms",
    "loss_curve",
    "validation_curve",
]

Array = NDArray[Any]

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#332288",
)  # fmt: skip
"""Okabe's and Ito's without the yellow, which white paper swallows, and
an indigo; strongest first."""

MARKERS = "osD^vPX*<>p"
MARKER_AREA = {"*": 2.6, "P": 1.6, "X": 1.6, "^": 1.3, "v": 1.3, "<": 1.3, ">": 1.3}
"""Areas that make markers look equally large; eleven of them meet 24 shades in ever new pairs."""

AMOUNTS, DIFFERENCES = "cividis", "RdBu_r"
"""Colour maps for what begins at 0, and for what has a sign; both keep their order for the
colour-blind."""

GREY = "#666666"

NUMBERED_CLASSES = 30
"""Up to so many classes, a confusion matrix has numbers in its cells."""

LONGEST_NAME = 18
"""Letters of a name that axes show."""

MOST_POINTS = 1500
"""Rows that are drawn as points: more of them hide each other."""


# Curves ------------------------------------------------------------------------------------------


@silent
def loss_curve(
    model: Any, *, ax: Any = None, log: bool | None = None, learning_rate: bool = False
) -> Any:
    """Draw the training loss of every epoch, and the validation loss; the best epoch is marked.

    Parameters
    ----------
    model : Network, MLPClassifier, MLPRegressor or History
    ax : matplotlib Axes, optional
    log : bool, optional
        A logarithmic axis; by default where the losses span more than a factor of 30.
    learning_rate : bool
        Draw that as well, with an axis of its own on the right.

    Returns
    -------
    matplotlib Axes
    """
    history = _history(model)
    curves = [("training", "loss"), ("validation", "val_loss")]
    ax = _curves(history, curves, ax)
    values = np.concatenate([history[key] for _, key in curves if key in history])
    known = values[np.isfinite(values)]
    if log or (log is None and known.size and 0 < known.max() > 30 * known.min() > 0):
        _logarithmic(ax)
    ax.set_ylabel("loss")
    decisive = "val_loss" if _has(history, "val_loss") else "loss"
    _mark_best(ax, history, decisive, int(np.nanargmin(history[decisive])))
    if learning_rate and _has(history, "learning_rate"):
        other = ax.twinx()
        epochs, rates = history["epoch"], history["learning_rate"]
        other.plot(epochs, rates, color=GREY, ls=":", lw=1.5, label="learning rate")
        other.set_ylabel("learning rate", color=GREY)
        other.tick_params(axis="y", colors=GREY)
        other.set_ylim(bottom=0)
        other.spines["top"].set_visible(False)
        handles = [*ax.get_lines(), *other.get_lines()]
        ax.legend(handles=[h for h in handles if h.get_label()[0] != "_"], frameon=False)
    else:
        ax.legend(frameon=False)
    return ax


@silent
def validation_curve(model: Any, *, ax: Any = None) -> Any:
    """Draw the score (accuracy or R2) on the validation rows after every epoch.

    Parameters
    ----------
    model : Network, MLPClassifier, MLPRegressor or History
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the training had no validation rows.
    """
    history = _history(model)
    if not _has(history, "val_score"):
        raise ValueError(
            "there are no validation scores: fit with X_val and y_val, or with validation_fraction "
            "(an estimator: early_stopping=True)"
        )
    ax = _curves(history, [("validation", "val_score")], ax)
    ax.set_ylabel(_metric(model, history))
    _mark_best(ax, history, "val_score", int(np.nanargmax(history["val_score"])))
    ax.legend(frameon=False)
    return ax


def _metric(model: Any, history: Any) -> str:
    """Name the validation score."""
    scoring = getattr(model, "scoring", None)
    kind = {"classifier": "accuracy", "regressor": "r2"}.get(getattr(model, "_estimator_type", ""))
    if scoring is not None:
        name = scoring if isinstance(scoring, str) else "score"
    else:
        name = getattr(history, "metric", "") or kind or "score"
    return {"r2": "R²", "loss": "negative loss"}.get(name, name.replace("_", " "))


def _curves(history: dict[str, list[float]], curves: Sequence[tuple[str, str]], ax: Any) -> Any:
    """Draw one line per (name, key) that the history has."""
    if not _has(history, "loss"):
        raise ValueError("there is no curve: fit the model first (solver='lbfgs' keeps none)")
    ax = _axes(ax, (6.4, 4.0))
    for (name, key), colour, style in zip(curves, COLOURS, ("-", "--"), strict=False):
        if _has(history, key):
            few = "o" if len(history[key]) < 3 else None
            ax.plot(history["epoch"], history[key], color=colour, ls=style, marker=few, label=name)
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return _tidy(ax)


def _mark_best(ax: Any, history: dict[str, list[float]], key: str, at: int) -> None:
    epoch, value = history["epoch"][at], history[key][at]
    shown = score(value, 3) if key == "val_score" else significant(value)
    ax.axvline(epoch, color=GREY, lw=0.8, ls=(0, (1, 3)), zorder=0)
    ax.plot(
        epoch, value, ls="", marker="o", ms=8, mfc="none", mec=_ink(ax), mew=1.5,
        label=f"best: {shown} in epoch {epoch:.0f}",
    )  # fmt: skip


def _history(model: Any) -> Any:
    if isinstance(model, dict):
        return model
    history = getattr(model, "history_", None)  # of an ensemble it is the mean
    return networks_of(model)[0].history if history is None else history


def _has(history: dict[str, list[float]], key: str) -> bool:
    return bool(np.isfinite(history.get(key, [])).any())


# Classes -----------------------------------------------------------------------------------------


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
    X, y : array-like
    normalize : {None, 'true', 'pred', 'all'}
        Numbers in the cells: counts; or per cent of the row, of the column or of all.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    if normalize not in (None, "true", "pred", "all"):
        raise ValueError(f"normalize must be None, 'true', 'pred' or 'all', not {normalize!r}")
    truth, read = label_array("y", y), _predicted(model, X)
    if truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if truth.ndim != 1 or read.ndim != 1:
        raise ValueError("a confusion matrix needs one label per row, y must be (n,)")
    known = _classes(model)
    classes = joined("y", truth, read) if known is None else known
    unseen = np.unique(truth[places(classes, truth) < 0])
    if len(unseen):  # behind those that have an output, in the outputs' order
        classes = label_array("y", [*classes.tolist(), *unseen.tolist()])
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (places(classes, truth), places(classes, read)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_short(label) for label in classes]
    longest = max(map(len, names))
    side = float(np.clip(0.4 * len(classes) + 1.2, 2.4, 10.5)) + 0.07 * longest
    ax = _axes(ax, (side + 1.2, side), "compressed")
    from matplotlib.colors import PowerNorm

    # The square root makes single mistakes visible beside a diagonal of hundreds.
    image = ax.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    ticks = np.arange(0, len(classes), -(-len(classes) // 60))
    shown = [names[tick] for tick in ticks]
    size = float(np.clip(260 / len(ticks), 6.0, 10.0))
    turned = {"rotation": 90} if len(ticks) > 20 else {"rotation": 45, "ha": "right"}
    if longest <= 3 and len(ticks) <= 26:
        turned = {}
    ax.set_xticks(
        ticks, shown, fontsize=size, rotation_mode="anchor" if "ha" in turned else None, **turned
    )
    ax.set_yticks(ticks, shown, fontsize=size)
    ax.set_xlabel("label read")
    ax.set_ylabel("true label")
    if len(classes) <= NUMBERED_CLASSES:
        _number_cells(ax, counts, shares, normalize)
    bar = _colourbar(image, ax, "share of the true label", ticks=[0, 0.05, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0", "5%", "25%", "50%", "100%"])
    for spine in ax.spines.values():
        spine.set_color("#BBBBBB")
    return ax


def _number_cells(ax: Any, counts: Array, shares: Array, normalize: str | None) -> None:
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
    cell = 72 * _inches(ax) / len(counts)
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
    """Draw what a network of two inputs answers, and the rows in front.

    For classes: the colour of the likeliest one, paler where it is less sure; for numbers: the
    predicted number. At most 1,500 rows are drawn.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
    X : array-like, (n, 2)
    y : array-like, (n,)
    ax : matplotlib Axes, optional
    resolution : int
        Points along each axis at which the network is asked.

    Returns
    -------
    matplotlib Axes
    """
    networks = networks_of(model)
    net = networks[0]
    names = _column_names(model, X)
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
    ax = _axes(ax, (6.0, 4.6))
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
    if net.loss_row is not None and net.loss_row.classifies:
        known = _classes(model)
        _draw_classes(ax, outputs, extent, points, y, np.unique(y) if known is None else known)
    else:
        _draw_numbers(ax, outputs[..., 0], extent, points, y)
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    return _tidy(ax, grid=False)


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
            color=[colour], edgecolors="white", linewidths=0.6, label=_short(label),
        )  # fmt: skip
    _legend_beside(ax, len(classes))


def _class_colours(n: int) -> Array:
    """Return a colour per class, (n, 3); beyond eight classes come darker, then lighter ones."""
    from matplotlib.colors import to_rgb

    base = np.array([to_rgb(colour) for colour in COLOURS])
    shades = np.concatenate([base, 0.55 * base + 0.02, 0.5 + 0.5 * base])
    return shades[np.arange(n) % len(shades)]


def _draw_numbers(ax: Any, surface: Array, extent: Any, points: Array, y: Array) -> None:
    low, high = min(surface.min(), y.min()), max(surface.max(), y.max())
    from matplotlib.ticker import MaxNLocator

    levels = MaxNLocator(12).tick_values(low, high if high > low else low + 1)
    image = ax.contourf(surface, levels, extent=extent, cmap=AMOUNTS, extend="neither")
    ax.scatter(
        points[:, 0], points[:, 1], c=y, cmap=AMOUNTS, vmin=levels[0], vmax=levels[-1], s=20,
        edgecolors="white", linewidths=0.4,
    )  # fmt: skip
    ax.figure.colorbar(image, ax=ax, label="predicted (field), true (points)")


def _legend_beside(ax: Any, n: int) -> None:
    ax.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False,
        ncols=1 + (n - 1) // 16,
    )  # fmt: skip


# Inside the network ------------------------------------------------------------------------------


@silent
def first_layer_weights(
    model: Any, shape: Sequence[int] | None = None, *, units: int = 64, ax: Any = None
) -> Any:
    """Draw what each unit of the first layer looks for: its weights, as a small image.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
    shape : (int, int), optional
        Height and width of an input; found where the inputs make a square.
    units : int
        How many to draw at most: those with the largest weights.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    net = network_of(model)
    weights = np.asarray(net.weights[0], np.float64)
    height, width = _image_shape(weights.shape[0], shape)
    n = min(units, weights.shape[1])
    order = np.sort(np.argsort(-np.square(weights).sum(axis=0), kind="stable")[:n])
    columns = _columns(n, np.sqrt(1.3 * n * height / width))
    rows = -(-n // columns)
    numbered = n <= 36
    across = max(1, round(0.12 * max(height, width)))
    down = max(1, round(0.3 * max(height, width))) if numbered else across
    board = np.full((rows * (height + down) - down, columns * (width + across) - across), np.nan)
    places = []
    for place, unit in enumerate(order):
        top, left = (height + down) * (place // columns), (width + across) * (place % columns)
        board[top : top + height, left : left + width] = weights[:, unit].reshape(height, width)
        places.append((top, left))
    limit = float(np.percentile(np.abs(weights[:, order]), 99.5)) or 1.0
    ratio = board.shape[0] / board.shape[1]
    width_inches = float(np.clip(7.0 / ratio, 3.0, 6.0))
    ax = _axes(ax, (width_inches + 1.4, width_inches * ratio + 0.6), "compressed")
    image = ax.imshow(board, cmap=DIFFERENCES, vmin=-limit, vmax=limit, interpolation="nearest")
    if numbered:
        for unit, (top, left) in zip(order, places, strict=True):
            ax.text(left - 0.5, top - 0.6, str(unit), fontsize=7, color=GREY, va="bottom")
    ax.set_axis_off()
    total = weights.shape[1]
    which = f"{n} of {total:,}" if n < total else f"{n}"
    pad = 14 if numbered else 6
    ax.set_title(f"weights of the first layer, {which} units", fontsize="medium", pad=pad)
    _colourbar(image, ax, "weight", extend="both")
    return ax


def _columns(n: int, wanted: float) -> int:
    """Return a number of columns near the wanted one, such that few places stay empty."""
    near = range(max(1, round(0.75 * wanted)), min(n, round(1.35 * wanted) + 1) + 1)
    return min(near, key=lambda columns: (-n % columns, abs(columns - wanted)))


@silent
def activations(
    model: Any, x: ArrayLike, *, shape: Sequence[int] | None = None, figure: Any = None
) -> Any:
    """Draw one row on its way through the layers: a cell per unit, the outputs as bars.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
    x : array-like, (n_in,)
    shape : (int, int), optional
        Height and width of the inputs, to draw them as an image; found where they make a square
        of at least 8x8.
    figure : matplotlib Figure or SubFigure, optional

    Returns
    -------
    matplotlib Figure
    """
    net = network_of(model)
    row = array_of("x", x).astype(np.float64).reshape(-1)
    if len(row) != net.sizes[0]:
        raise ValueError(f"x must be one row of {net.sizes[0]} numbers; it has {row.size}")
    side = round(np.sqrt(len(row)))
    if shape is None and side >= 8 and side * side == len(row):
        shape = (side, side)
    layers = [a[0].astype(np.float64) for a in net.forward(row[None], return_all=True).a]
    if figure is None:
        figure = _pyplot().figure(figsize=(2.3 * len(net.sizes) + 1.4, 3.1), layout="constrained")
    ratios = [1.0] * len(layers) + [1.25]
    panels = figure.subplots(1, len(layers) + 1, width_ratios=ratios, squeeze=False)[0]
    given = _grid(row) if shape is None else row.reshape(_image_shape(len(row), shape))
    _cells(panels[0], given, f"input\n{len(row):,} numbers", "gray" if shape else None)
    for number, (panel, a) in enumerate(zip(panels[1:], layers[:-1], strict=False), 1):
        name = net.activations[number - 1]
        _cells(panel, _grid(a), f"layer {number}\n{len(a):,} {name} units", None)
    _output_bars(panels[-1], layers[-1], _output_names(model, net), net)
    return figure


def _grid(values: Array) -> Array:
    """Lay units out in rows, nearly square; what is left of the last row is NaN."""
    columns = int(np.ceil(np.sqrt(len(values))))
    cells = np.full((-(-len(values) // columns), columns), np.nan)
    cells.flat[: len(values)] = values
    return cells


def _cells(ax: Any, cells: Array, title: str, cmap: str | None) -> None:
    low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
    limit = max(abs(low), abs(high)) or 1.0
    signed = low < 0 < high
    if cmap is None:
        cmap = DIFFERENCES if signed else AMOUNTS
    if signed:
        low, high = -limit, limit
    else:
        low, high = min(low, 0.0), max(high, 0.0) or (1.0 if low == 0 else 0.0)
    image = ax.imshow(cells, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    rows, columns = cells.shape
    if rows * columns <= 400:  # a fine line between cells, while there is room for one
        ax.set_xticks(np.arange(1, columns) - 0.5, minor=True)
        ax.set_yticks(np.arange(1, rows) - 0.5, minor=True)
        ax.grid(which="minor", color="white", lw=0.6)
        ax.tick_params(which="minor", length=0)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(title, fontsize="medium")
    bar = ax.figure.colorbar(image, ax=ax, location="bottom", fraction=0.06, pad=0.04, shrink=0.9)
    bar.ax.xaxis.get_major_locator().set_params(nbins=3)
    bar.ax.tick_params(labelsize="small")
    bar.outline.set_visible(False)


def _output_bars(ax: Any, values: Array, names: list[str], net: Any) -> None:
    title = f"output\n{len(values):,} {net.activations[-1]} unit{'s' * (len(values) > 1)}"
    shown = np.arange(len(values))
    if len(values) > 12:
        shown = np.argsort(-values, kind="stable")[:12]
        title += ", the largest 12"
    classes = net.activations[-1] == "softmax"
    winner = values.argmax() if classes else -1
    colours = [COLOURS[1] if unit == winner else COLOURS[0] for unit in shown]
    ax.barh(np.arange(len(shown)), values[shown], color=colours, height=0.75)
    ax.axvline(0, color=_ink(ax), lw=0.8)
    ax.set_yticks(np.arange(len(shown)), [names[unit] for unit in shown])
    bounded = net.activations[-1] in ("softmax", "logistic", "hard_sigmoid")
    for place, unit in enumerate(shown):
        ax.annotate(
            score(values[unit], 3) if bounded else f"{values[unit]:.3g}",
            (max(values[unit], 0), place), xytext=(3, 0), textcoords="offset points",
            va="center", fontsize="small",
        )  # fmt: skip
    spare = max(0, 5 - len(shown)) / 2  # a few bars need not fill the height
    ax.set_ylim(len(shown) - 0.4 + spare, -0.6 - spare)
    low, high = min(0.0, values.min()), max(0.0, values.max())
    ax.set_xlim(low - (0.05 * (high - low) if low < 0 else 0), high + 0.35 * ((high - low) or 1))
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(title, fontsize="medium")


def _output_names(model: Any, net: Any) -> list[str]:
    known = _classes(model)
    if known is not None and len(known) == net.sizes[-1]:
        return [_short(label) for label in known]
    if known is not None and len(known) == 2 and net.sizes[-1] == 1:
        return [_short(known[1])]
    if net.sizes[-1] == 1:
        return [_short(net.target_name or "y")]
    return [str(number) for number in range(net.sizes[-1])]


@silent
def gradient_norms(
    model: Any, X: Any, y: ArrayLike, *, sample_weight: ArrayLike | None = None, ax: Any = None
) -> Any:
    """Draw how large the gradient is in each layer, on at most 4,096 of the rows.

    Norms that fall by orders of magnitude towards the first layer vanish, norms that grow explode.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
    X, y : array-like
    sample_weight : array-like, optional
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    net, data = rows_of(model, X, y, sample_weight)
    deltas, dweights = _norms(net, data)
    ax = _axes(ax, (1.1 * len(deltas) + 3.4, 3.8))
    layers = np.arange(1, len(deltas) + 1)
    curves = (("sums, ||dC/dz||", deltas), ("weights, ||dC/dW||", dweights))
    for (name, norms), colour, marker, style, aside in zip(
        curves, COLOURS, MARKERS, ("-", "--"), (-0.06, 0.06), strict=False
    ):
        shown = np.where(np.array(norms) > 0, norms, np.nan)
        ax.plot(layers, shown, color=colour, marker=marker, ls=style, ms=7, label=name)
        for layer in layers[np.isnan(shown)]:
            ax.annotate(
                "0",
                (layer + aside, 0.02),
                xycoords=("data", "axes fraction"),
                ha="center",
                color=colour,
            )
    if np.any(np.array([deltas, dweights]) > 0):
        _logarithmic(ax)
    names = zip(layers, net.sizes[1:], net.activations, strict=True)
    ax.set_xticks(layers, [f"{layer}\n{size}\n{name}" for layer, size, name in names])
    ax.set_xlim(0.6, len(deltas) + 0.4)
    ax.set_xlabel("layer")
    ax.set_ylabel("norm of the gradient")
    ax.legend(frameon=False)
    return _tidy(ax)


# Paper and ink -----------------------------------------------------------------------------------


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"cmlp.plot needs matplotlib ({error}): pip install 'cmlp[plot]'"
        ) from None
    return plt


def _axes(ax: Any, size: tuple[float, float], layout: str = "constrained") -> Any:
    plt = _pyplot()
    return plt.subplots(figsize=size, layout=layout)[1] if ax is None else ax


def _tidy(ax: Any, grid: bool = True) -> Any:
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(axis="y", color=GREY, alpha=0.2, lw=0.7)
        ax.set_axisbelow(True)
    return ax


def _ink(ax: Any) -> Any:
    """Return the colour of the text: black, or white in a dark style."""
    return ax.xaxis.label.get_color()


def _logarithmic(ax: Any) -> None:
    """Scale y by its logarithm, with plain numbers at 1, 2 and 5 (over many decades at 1 only)."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    many = high > 1000 * low
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if many else (1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def _colourbar(image: Any, ax: Any, label: str, **kwargs: Any) -> Any:
    """Put a bar beside an image, as high as it and a fifth of an inch wide."""
    inch = 1 / _inches(ax)
    beside = ax.inset_axes((1 + 0.12 * inch, 0, 0.2 * inch, 1))
    bar = ax.figure.colorbar(image, cax=beside, **kwargs)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return bar


def _inches(ax: Any) -> float:
    """Return the width of axes; that of a new figure's before it is laid out is nearly right."""
    return float(ax.get_window_extent().width / ax.figure.dpi)


def _short(label: Any) -> str:
    name = str(label)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _image_shape(n_in: int, shape: Sequence[int] | None) -> tuple[int, int]:
    """Check the shape of an input as an image, or find that of a square."""
    if shape is None:
        side = round(np.sqrt(n_in))
        if side * side != n_in:
            raise ValueError(
                f"{n_in} inputs make no square image; say which they make: shape=(height, width), "
                f"(1, {n_in}) for a line"
            )
        return side, side
    height, width = (int(length) for length in shape)
    if height * width != n_in:
        raise ValueError(
            f"shape={tuple(shape)} has {height * width} pixels, but there are {n_in} inputs"
        )
    return height, width


# Models ------------------------------------------------------------------------------------------


def _predicted(model: Any, X: Any) -> Array:
    predict = model.predict_classes if hasattr(model, "predict_classes") else model.predict
    return np.asarray(predict(X))


def _classes(model: Any) -> Array | None:
    classes = getattr(model, "classes_", None)
    return getattr(model, "classes", None) if classes is None else classes


def _column_names(model: Any, X: Any) -> list[str]:
    for names in (
        getattr(X, "columns", None),
        getattr(model, "feature_names_in_", None),
        networks_of(model)[0].feature_names,
    ):
        if names is not None and len(names) == 2:
            return [_short(name) for name in names]
    return ["feature 0", "feature 1"]
