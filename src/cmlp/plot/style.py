"""Style: axes, colours, sizes and names that the pictures share."""

from __future__ import annotations

from typing import Any

from cmlp.data import frames
from cmlp.plot.models import networks_of

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#332288",
)  # fmt: skip
"""Okabe's and Ito's without the yellow, which is hardly visible on white, and an indigo; the
strongest first."""


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


# Paper and ink -----------------------------------------------------------------------------------


def pyplot() -> Any:
    """Import matplotlib's pyplot."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"cmlp.plot needs matplotlib ({error}): pip install 'cmlp[plot]'"
        ) from None
    return plt


def axes_for(ax: Any, size: tuple[float, float], layout: str = "constrained") -> Any:
    """Return the user's axes, or those of a new figure."""
    plt = pyplot()
    return plt.subplots(figsize=size, layout=layout)[1] if ax is None else ax


def tidy(ax: Any, grid: bool = True) -> Any:
    """Remove the frame at the top and at the right, and draw a faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(axis="y", color=GREY, alpha=0.2, lw=0.7)
        ax.set_axisbelow(True)
    return ax


def ink(ax: Any) -> Any:
    """Return the colour of the text: black, or white in a dark style."""
    return ax.xaxis.label.get_color()


def logarithmic(ax: Any) -> None:
    """Scale y by its logarithm, with plain numbers at 1, 2 and 5 (over many decades at 1 only)."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    many = high > 1000 * low
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if many else (1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def colourbar(image: Any, ax: Any, label: str, **kwargs: Any) -> Any:
    """Put a bar next to an image, as high as it and a fifth of an inch wide."""
    inch = 1 / inches(ax)
    room = ax.inset_axes((1 + 0.12 * inch, 0, 0.2 * inch, 1))
    bar = ax.figure.colorbar(image, cax=room, **kwargs)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return bar


def inches(ax: Any) -> float:
    """Return the width of axes; that of a new figure's before it is laid out is nearly right."""
    return float(ax.get_window_extent().width / ax.figure.dpi)


def shortened(label: Any) -> str:
    """Return a label as text that axes have room for."""
    name = str(label)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def column_names(model: Any, X: Any) -> list[str]:
    """Return the names of two columns."""
    for names in (
        frames.column_names(X),
        getattr(model, "feature_names_in_", ()),
        networks_of(model)[0].feature_names,
    ):
        if len(names) == 2:
            return [shortened(name) for name in names]
    return ["feature 0", "feature 1"]
