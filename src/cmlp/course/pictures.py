"""Pictures of the lessons; each draws into new axes (or into `ax`) and returns them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from cmlp.course.nets import X_TWO, Y_TWO, descend, sigmoid, two_two_one
from cmlp.plot.style import COLOURS, GREY, MARKERS, axes_for, ink, pyplot, tidy

BLUE, RED, GREEN = COLOURS[:3]


def activations(ax: Any = None) -> Any:
    """Draw sigmoid and ReLU over z, and the sigmoid of a unit with two biases.

    Parameters
    ----------
    ax : pair of matplotlib axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    pair of matplotlib axes
    """
    left, right = (
        pyplot().subplots(1, 2, figsize=(9, 3), layout="constrained")[1] if ax is None else ax
    )
    z = np.linspace(-5, 5, 201)
    left.plot(z, sigmoid(z), color=BLUE, label="sigmoid: 1 / (1 + exp(-z))")
    left.plot(z, np.maximum(z, 0) / 5, color=RED, ls="--", label="ReLU: max(z, 0), divided by 5")
    left.set(xlabel="weighted sum z", ylabel="activation a")
    for b, colour, style in ((0, BLUE, "-"), (2, GREEN, "--"), (-2, RED, ":")):
        right.plot(z, sigmoid(z + b), color=colour, ls=style, label=f"bias b = {b}")
    right.set(xlabel="input x (weight 1)", ylabel="sigmoid(x + b)")
    for each in (left, right):
        tidy(each)
        each.legend(frameon=False)
    return left, right


def network(sizes: Any, ax: Any = None) -> Any:
    """Draw a network as columns of units, at most 16 of a layer, and its lines.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, units of each layer.
    ax : matplotlib axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib axes
    """
    ax = axes_for(ax, (9, 4))
    columns = [np.linspace(1, 0, min(n, 16)) if n > 1 else np.array([0.5]) for n in sizes]
    for x, (before, after) in enumerate(pairwise(columns)):
        lines = np.array([[(x, p), (x + 1, q)] for p in before for q in after])
        ax.plot(lines[:, :, 0].T, lines[:, :, 1].T, color=GREY, lw=0.4, alpha=0.5, zorder=1)
    for x, (n, ys) in enumerate(zip(sizes, columns, strict=True)):
        ax.scatter([x] * len(ys), ys, s=90, color=COLOURS[x % 3], edgecolor="white", zorder=2)
        what = "inputs" if x == 0 else "outputs" if x == len(sizes) - 1 else "units"
        shape = f"\nW is ({sizes[x - 1]}, {n})" if x else ""
        ax.text(x, -0.12, f"{n} {what}{shape}", ha="center", va="top")
        if n > 16:
            ax.text(x, 1.06, f"(16 of {n} drawn)", ha="center", color=GREY)
    ax.set(xlim=(-0.4, len(sizes) - 0.6), ylim=(-0.35, 1.12))
    ax.axis("off")
    return ax


def outputs(a: Any, y: Any, ax: Any = None) -> Any:
    """Draw outputs next to their target, with the differences.

    Parameters
    ----------
    a, y : array_like, shape (n,)
        Outputs, and the target of each.
    ax : matplotlib axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib axes
    """
    ax = axes_for(ax, (7, 3))
    a, y, places = np.asarray(a), np.asarray(y), np.arange(len(a))
    ax.bar(places, a, 0.6, color=BLUE, label="output a")
    ax.plot(places, y, "_", color=RED, ms=26, mew=3, label="target y")
    ax.vlines(places, np.minimum(a, y), np.maximum(a, y), color=RED, lw=1.5, label="difference")
    cost = 0.5 * float(((a - y) ** 2).sum())
    ax.set(xlabel="output", ylim=(0, 1.35), xticks=places, title=f"cost {cost:.3f}")
    ax.legend(frameon=False, ncols=3, loc="upper center")
    return tidy(ax)


def digit(pixels: Any, title: str = "", ax: Any = None) -> Any:
    """Draw a digit.

    Parameters
    ----------
    pixels : array_like, shape (64,)
        From 0 to 16.
    title : str
        Above the picture.
    ax : matplotlib axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib axes
    """
    ax = axes_for(ax, (1.8, 2))
    ax.imshow(np.reshape(pixels, (8, 8)), cmap="Greys", vmin=0, vmax=16)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    return ax


def digits(pixels: Any, titles: Any) -> Any:
    """Draw up to eight digits in a row.

    Parameters
    ----------
    pixels : array_like, shape (n, 64)
        From 0 to 16.
    titles : sequence of str
        Above each picture.

    Returns
    -------
    array of matplotlib axes
    """
    n = min(len(pixels), 8)
    axes = pyplot().subplots(1, n, figsize=(1.15 * n, 1.6), layout="constrained", squeeze=False)[1][
        0
    ]
    for ax, image, title in zip(axes, pixels, titles, strict=False):
        digit(image, str(title), ax)
    return axes


def valley(paths: Any, ax: Any = None) -> Any:
    """Draw the valley ``C = (w1^2 + 10 w2^2) / 2`` from above, with paths of gradient descent.

    Parameters
    ----------
    paths : dict of str to array_like, shape (n, 2)
        The points of each path, by what the legend calls it.
    ax : matplotlib axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib axes
    """
    ax = axes_for(ax, (7, 4))
    w1, w2 = np.meshgrid(np.linspace(-2.5, 2.5, 101), np.linspace(-2.2, 2.2, 101))
    lines = ax.contour(w1, w2, (w1**2 + 10 * w2**2) / 2, levels=[0.1, 0.5, 1, 2, 4, 7, 11, 16, 22],
                       colors=GREY, linewidths=0.7)  # fmt: skip
    ax.clabel(lines, fontsize=7)
    for n, (label, path) in enumerate(paths.items()):
        x, y = np.asarray(path).T
        ax.plot(x, y, color=COLOURS[n], marker=MARKERS[n], ms=4, lw=1.2, label=label)
    ax.plot(0, 0, "*", color=ink(ax), ms=10)
    ax.set(xlabel="$w_1$", ylabel="$w_2$", xlim=(-2.5, 2.5), ylim=(-2.2, 2.2))
    ax.legend(framealpha=0.9, edgecolor="none", loc="lower left")
    return ax


def backpropagation(trace: Any, ax: Any = None) -> Any:
    """Draw a network of 2-2-1 with the numbers of one step: forwards in blue, backwards in red.

    Parameters
    ----------
    trace : Trace
        Of one row, from ``net.trace_step``.
    ax : matplotlib axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib axes
    """
    ax = axes_for(ax, (7.6, 4.8))
    hidden, last = trace.layers
    places: list[list[tuple[float, float]]] = [[(0, 1), (0, 0)], [(1, 1), (1, 0)], [(2, 0.5)]]
    for before, after, layer in ((0, 1, hidden), (1, 2, last)):
        for i, p in enumerate(places[before]):
            for j, q in enumerate(places[after]):
                ax.annotate("", q, p, arrowprops={"arrowstyle": "-", "color": GREY}, zorder=1)
                x, y = (0.6 * np.array(p) + 0.4 * np.array(q)).tolist()
                text = f"w {layer.weights[i, j]:g}\ndC/dw {layer.dweights[i, j]:.4f}"
                ax.text(x, y, text, fontsize=9, ha="center", va="center",
                        bbox={"fc": "white", "ec": "none", "pad": 1}, color="black")  # fmt: skip
    for i, (x, y) in enumerate(places[0]):
        ax.text(x, y, f"x = {trace.X[0, i]:g}", ha="center", va="center", color="white",
                bbox={"boxstyle": "round", "fc": GREY, "ec": "none"})  # fmt: skip
    for layer, spots in ((hidden, places[1]), (last, places[2])):
        for j, (x, y) in enumerate(spots):
            inside = f"z {layer.z[0, j]:.4f}\na {layer.a[0, j]:.4f}"
            ax.text(x, y, inside, ha="center", va="center", color="white",
                    bbox={"boxstyle": "round", "fc": BLUE, "ec": "none"})  # fmt: skip
            text = f"b {layer.biases[j]:g}   delta {layer.delta[0, j]:.4f}"
            top = y == 1  # there the lines leave downwards
            at, side = (y + 0.1, "bottom") if top else (y - 0.12, "top")
            ax.text(x, at, text, ha="center", va=side, color=RED, fontsize=9)
    ax.text(2.42, 0.5, f"y = {trace.y[0, 0]:g}\nC = {trace.loss:.4f}", ha="center", va="center")
    ax.set(xlim=(-0.25, 2.65), ylim=(-0.35, 1.2))
    ax.axis("off")
    return ax


def batches(ax: Any = None) -> Any:
    """Draw paths of two weights: steps of all rows, of 32, of single rows.

    Parameters
    ----------
    ax : matplotlib axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib axes
    """
    from cmlp.network import Network

    ax = axes_for(ax, (7, 4))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(256, 2)) * [1.0, 0.5]
    y = X @ [1.0, -2.0] + rng.normal(0, 0.5, 256)
    settings = (("all 256 rows", 256, 0.3, 12), ("32 rows", 32, 0.3, 3), ("1 row", 1, 0.1, 1))
    for n, (label, size, rate, epochs) in enumerate(settings):
        net = Network([2, 1], out_activation="identity", loss="squared_error", seed=0)
        net.weights[0] = np.zeros((2, 1))
        path = [net.weights[0].ravel().copy()]
        for _ in range(epochs):
            for rows in np.array_split(rng.permutation(256), 256 // size):
                net.step(X[rows], y[rows], learning_rate=rate, momentum=0)
                path.append(net.weights[0].ravel().copy())
        w1, w2 = np.array(path).T
        ax.plot(w1, w2, color=COLOURS[n], marker=MARKERS[n], ms=3, lw=0.8,
                label=f"{label}: {len(path) - 1} steps")  # fmt: skip
    ax.plot(1, -2, "*", color=ink(ax), ms=12)
    ax.set(xlabel="$w_1$", ylabel="$w_2$", title="The target is the star")
    ax.legend(frameon=False)
    return ax


def cross_entropy(ax: Any = None) -> Any:
    """Draw the binary cross-entropy of ``y = 1`` over p, with ``1 - y`` and with the slip.

    Parameters
    ----------
    ax : matplotlib axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib axes
    """
    ax = tidy(axes_for(ax, (7, 3.4)))
    p = np.linspace(0.005, 0.995, 400)
    ax.plot(p, -np.log(p), color=BLUE, label="-log p, which is right")
    slip = -(np.log(p) + 2 * np.log(1 - p))
    ax.plot(p, slip, color=RED, ls="--", label="with 1 + y: lowest at p = 1/3")
    ax.plot(p, 0.5 * (1 - p) ** 2, color=GREEN, ls=":", label="squared difference")
    ax.set(xlabel="p, the output for y = 1", ylabel="cost", ylim=(0, 6))
    ax.legend(frameon=False)
    return ax


def cost_over(weight: tuple[int, int, int] = (1, 0, 0), ax: Any = None) -> Any:
    """Draw the cost of lesson 5's network over one weight, with the tangent.

    Parameters
    ----------
    weight : (layer, input, unit)
        Counted from 0.
    ax : matplotlib axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib axes
    """
    ax = tidy(axes_for(ax, (6, 3.2)))
    layer, i, j = weight
    net = two_two_one()
    at = float(net.weights[layer][i, j])
    slope = float(net.gradients(X_TWO[:1], Y_TWO[:1]).weights[layer][i, j])
    cost = net.loss(X_TWO[:1], Y_TWO[:1])
    values, costs = np.linspace(at - 3, at + 3, 61), []
    for value in values:
        net.weights[layer][i, j] = value
        costs.append(net.loss(X_TWO[:1], Y_TWO[:1]))
    ax.plot(values, costs, color=BLUE, label="cost")
    near = np.array([at - 1.5, at + 1.5])
    ax.plot(near, cost + slope * (near - at), color=RED, ls="--", label=f"slope {slope:.4f}")
    ax.plot(at, cost, "o", color=RED)
    ax.set(xlabel="the weight", ylabel="C")
    ax.legend(frameon=False)
    return ax


def descents(ax: Any = None) -> Any:
    """Draw four learning rates in the valley; with the largest one the steps lead out of it.

    Parameters
    ----------
    ax : matplotlib axes, optional
        Where to draw; by default new ones.

    Returns
    -------
    matplotlib axes
    """
    rates = {0.02: 40, 0.05: 40, 0.19: 20, 0.22: 4}
    return valley(
        {f"rate {rate}, {n} steps": descend((2, 1), rate, n) for rate, n in rates.items()}, ax
    )
