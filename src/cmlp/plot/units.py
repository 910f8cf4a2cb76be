"""Inside the network: first-layer weights, activations of one row, norms of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.arrays import array_of
from cmlp.core.errstate import silent
from cmlp.core.formatting import score
from cmlp.core.layout import Array
from cmlp.diagnosis import of_units
from cmlp.plot.models import classes_of, network_of, rows_of
from cmlp.plot.style import (
    AMOUNTS,
    COLOURS,
    DIFFERENCES,
    GREY,
    MARKERS,
    axes_for,
    colourbar,
    ink,
    logarithmic,
    pyplot,
    shortened,
    tidy,
)


@silent
def first_layer_weights(
    model: Any, shape: Sequence[int] | None = None, *, units: int = 64, ax: Any = None
) -> Any:
    """Draw the weights of each unit of the first layer as a small image.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
        A fitted network or estimator.
    shape : (int, int), optional
        Height and width of an input; found where the inputs make a square.
    units : int
        How many to draw at most: those with the largest weights.
    ax : matplotlib Axes, optional
        Where to draw; by default new ones.

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
    ax = axes_for(ax, (width_inches + 1.4, width_inches * ratio + 0.6), "compressed")
    image = ax.imshow(board, cmap=DIFFERENCES, vmin=-limit, vmax=limit, interpolation="nearest")
    if numbered:
        for unit, (top, left) in zip(order, places, strict=True):
            ax.text(left - 0.5, top - 0.6, str(unit), fontsize=7, color=GREY, va="bottom")
    ax.set_axis_off()
    total = weights.shape[1]
    which = f"{n} of {total:,}" if n < total else f"{n}"
    pad = 14 if numbered else 6
    ax.set_title(f"weights of the first layer, {which} units", fontsize="medium", pad=pad)
    colourbar(image, ax, "weight", extend="both")
    return ax


def _columns(n: int, wanted: float) -> int:
    """Return a number of columns near the wanted one, such that few places stay empty."""
    near = range(max(1, round(0.75 * wanted)), min(n, round(1.35 * wanted) + 1) + 1)
    return min(near, key=lambda columns: (-n % columns, abs(columns - wanted)))


@silent
def activations(
    model: Any, x: ArrayLike, *, shape: Sequence[int] | None = None, figure: Any = None
) -> Any:
    """Draw the activations of all layers for one row: a cell per unit, the outputs as bars.

    Parameters
    ----------
    model : Network, MLPClassifier or MLPRegressor
        A fitted network or estimator.
    x : array-like, (n_in,)
        The inputs of one row.
    shape : (int, int), optional
        Height and width of the inputs, to draw them as an image; found where they make a square
        of at least 8x8.
    figure : matplotlib Figure or SubFigure, optional
        Where to draw; by default a new one.

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
        figure = pyplot().figure(figsize=(2.3 * len(net.sizes) + 1.4, 3.1), layout="constrained")
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
    """Draw a layer's numbers as cells, with a colour bar below."""
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
    """Draw the outputs as bars, at most the 12 largest."""
    title = f"output\n{len(values):,} {net.activations[-1]} unit{'s' * (len(values) > 1)}"
    shown = np.arange(len(values))
    if len(values) > 12:
        shown = np.argsort(-values, kind="stable")[:12]
        title += ", the largest 12"
    classes = net.activations[-1] == "softmax"
    winner = values.argmax() if classes else -1
    colours = [COLOURS[1] if unit == winner else COLOURS[0] for unit in shown]
    ax.barh(np.arange(len(shown)), values[shown], color=colours, height=0.75)
    ax.axvline(0, color=ink(ax), lw=0.8)
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
    """Return what the outputs are called: labels, the target's name, or numbers."""
    known = classes_of(model)
    if known is not None and len(known) == net.sizes[-1]:
        return [shortened(label) for label in known]
    if known is not None and len(known) == 2 and net.sizes[-1] == 1:
        return [shortened(known[1])]
    if net.sizes[-1] == 1:
        return [shortened(net.target_name or "y")]
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
        A fitted network or estimator.
    X, y : array-like
        Rows and their targets, as `fit` takes them.
    sample_weight : array-like, optional
        How much each row counts; by default all alike.
    ax : matplotlib Axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib Axes
    """
    net, data = rows_of(model, X, y, sample_weight)
    deltas, dweights = of_units.gradient_norms(net, data)
    ax = axes_for(ax, (1.1 * len(deltas) + 3.4, 3.8))
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
        logarithmic(ax)
    names = zip(layers, net.sizes[1:], net.activations, strict=True)
    ax.set_xticks(layers, [f"{layer}\n{size}\n{name}" for layer, size, name in names])
    ax.set_xlim(0.6, len(deltas) + 0.4)
    ax.set_xlabel("layer")
    ax.set_ylabel("norm of the gradient")
    ax.legend(frameon=False)
    return tidy(ax)


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
