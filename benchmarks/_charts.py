"""Charts of results, with matplotlib: on white, in colours for colour-blind readers, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._report import versions

COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9",
    "#D55E00", "#000000", "#999999", "#F0E442",
)  # fmt: skip
"""Okabe and Ito's and a grey, the strongest first."""

MARKERS = "osD^vPX*<"

WIDTH = 9.0
"""Inches; text of 9 points is then readable in a README, which shows about 850 pixels."""

Groups = Mapping[str, Mapping[str, float]]
"""Value by series (a colour) by group (a row of bars); a series may be missing in a group."""

Lines = Mapping[str, list[tuple[float, float]]]
"""Points by series."""


def bars(file: str, about: dict[str, Any], title: str, panels: Mapping[str, Groups]) -> None:
    """Draw ratios as horizontal bars from 1 on a logarithmic axis, panels side by side."""
    plt = _pyplot()
    series = list(
        dict.fromkeys(s for groups in panels.values() for g in groups.values() for s in g)
    )
    groups = list(dict.fromkeys(g for panel in panels.values() for g in panel))
    height, gap = 1.0, 1.0
    block = len(series) * height + gap
    figure, grid = plt.subplots(
        1,
        len(panels),
        figsize=(WIDTH, 1.5 + 0.155 * block * len(groups)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    axes = list(grid.flat)
    values = [v for panel in panels.values() for g in panel.values() for v in g.values()]
    low, high = min(1.0, *values), max(1.0, *values)
    for axis, (name, panel) in zip(axes, panels.items(), strict=True):
        for row, group in enumerate(groups):
            for number, one in enumerate(series):
                value = panel.get(group, {}).get(one)
                if value is None:
                    continue
                y = row * block + number * height
                axis.barh(y, value - 1, left=1, height=0.86 * height, color=_colour(number))
                axis.annotate(
                    f"{value:#.2g}" if value < 9.95 else f"{value:,.0f}",
                    (value, y),
                    xytext=(3 if value >= 1 else -3, 0),
                    textcoords="offset points",
                    ha="left" if value >= 1 else "right",
                    va="center",
                    fontsize=7.5,
                )
        axis.set_xscale("log")
        axis.set_xlim(low / (2 if low < 1 else 1.1), high * 2)
        axis.axvline(1, color="black", linewidth=1)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_title(name, fontsize=10)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
        axis.xaxis.set_minor_formatter(lambda value, _: "")
        axis.tick_params(axis="y", length=0)
    middle = (len(series) - 1) * height / 2
    axes[0].set_yticks([row * block + middle for row in range(len(groups))], groups)
    axes[0].set_ylim(len(groups) * block - gap / 2 - height / 2, -gap / 2 - height / 2)
    handles = [plt.Rectangle((0, 0), 1, 1, color=_colour(number)) for number in range(len(series))]
    _finish(figure, axes, file, about, title, handles, series)


def lines(
    file: str,
    about: dict[str, Any],
    title: str,
    panels: Mapping[str, Lines],
    labels: tuple[str, str],
    *,
    percent: bool = False,
) -> None:
    """Draw values against sizes on a logarithmic axis, panels side by side."""
    plt = _pyplot()
    series = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH, 0.8 + 2.9 * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    axes = list(grid.flat)
    highest = max(y for panel in panels.values() for points in panel.values() for _, y in points)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis, (name, panel) in zip(axes, panels.items(), strict=False):
        for one, points in panel.items():
            number = series.index(one)
            x, y = zip(*points, strict=True)
            marker = MARKERS[number % len(MARKERS)]
            axis.plot(x, y, color=_colour(number), marker=marker, markersize=4)
        ticks = sorted({x for points in panel.values() for x, _ in points})
        ticks = ticks[:: -(-len(ticks) // 7)]
        axis.set_xscale("log")
        axis.set_xticks(ticks, [_short(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_ylim(0, 1.05 * highest)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel(labels[0], fontsize=9)
        if percent:
            axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    for axis in axes[::columns]:
        axis.set_ylabel(labels[1], fontsize=9)
    handles = [
        plt.Line2D(
            [], [], color=_colour(number), marker=MARKERS[number % len(MARKERS)], markersize=4
        )
        for number in range(len(series))
    ]
    _finish(figure, axes, file, about, title, handles, series)


def _pyplot() -> Any:
    """Import matplotlib for files only."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cmlp"  # the same results give the same file
    import matplotlib.pyplot as plt

    return plt


def _short(value: float) -> str:
    """Write a size in few characters: 64, 10k, 1M."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if value >= factor and value % (factor / 10) == 0:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _finish(
    figure: Any,
    axes: Any,
    file: str,
    about: dict[str, Any],
    title: str,
    handles: list[Any],
    names: list[str],
) -> None:
    """Add title, machine and legend, and write the file."""
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
        axis.set_axisbelow(True)
    figure.legend(  # with the title: constrained layout reserves space for one element on top
        handles,
        names,
        title=title,
        title_fontproperties={"weight": "bold", "size": 11},
        loc="outside upper center",
        ncols=min(6, len(names)),
        frameon=False,
        fontsize=9,
    )
    figure.supxlabel(
        f"{about['cpu']}, {about['core']} core; {versions(about)}",
        fontsize=7.5,
        color="#555555",
    )
    metadata = {"Date": None} if file.endswith(".svg") else None
    figure.savefig(file, facecolor="white", dpi=110, metadata=metadata)
