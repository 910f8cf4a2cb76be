"""What is examined in the layers: units without effect, gradients that vanish or explode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from cmlp.core.layout import UNITS, Array, layers_of
from cmlp.data.rows import Data
from cmlp.diagnosis.finding import Finding
from cmlp.diagnosis.sample import rows_within
from cmlp.diagnosis.subject import Subject, Trained
from cmlp.model import passes
from cmlp.model.parameters import Parameters, cut_record
from cmlp.model.state import State


def layer_name(net: State, number: int) -> str:
    n_out = net.sizes[number + 1]
    return f"layer {number + 1} ({n_out} {net.activations[number]} units)"


def _some_rows(net: State, data: Data) -> Data:
    """Take fewer rows, so that all activations of a wide network fit."""
    n = rows_within(int(layers_of(net.plan)[-1, UNITS]) + net.sizes[-1])
    weights = None if data.weights is None or not data.weights[:n].any() else data.weights[:n]
    return Data(data.X[:n], data.targets[:n], weights)


DEAD_SHARE = 0.5
"""Share of a layer's units that are off on all rows; healthy layers of 32 units have up to 0.25."""


FLAT_SLOPE, FLAT_ROWS, SATURATED_SHARE = 0.05, 0.95, 0.3
"""A unit is saturated if its slope is below a twentieth of the steepest on 95 % of the rows;
healthy layers have almost none."""


def units(subject: Subject, trained: Trained) -> Iterator[Finding]:
    """Report layers with units that are off, or at the end of their range, on all rows."""
    net, data = trained.net, trained.data
    rows = _some_rows(net, data).X
    dead: list[tuple[float, int, str]] = []
    saturated: list[tuple[float, int, str]] = []
    for number, a in enumerate(passes.forward(net, rows)[1][:-1]):
        name, layer = net.activations[number], layer_name(net, number)
        if name in ("relu", "leaky_relu:0", "elu:0"):
            off = (a == 0).all(axis=0)
            dead.append((float(off.mean()), int(off.sum()), layer))
        elif name in FLATNESS and not net.parametric_activation:
            flat = (FLATNESS[name](a) < FLAT_SLOPE).mean(axis=0) > FLAT_ROWS
            saturated.append((float(flat.mean()), int(flat.sum()), layer))
    rate = subject.model.word("learning_rate")
    slower = subject.rate / 10
    if worst := [entry for entry in dead if entry[0] >= DEAD_SHARE]:
        share, count, layer = max(worst)
        blocked = share == 1
        yield Finding(
            "dead-units", "error" if blocked else "warning", share,
            f"{count} units of {layer} are 0 on all of {len(rows):,} rows: "
            + ("nothing passes, and the output is the same for every row."
               if blocked else "their output is constant, and no gradient can revive them."),
            f"Train again with {rate}={slower:g}, or activation='leaky_relu'; and scale X.",
            rate, slower, tuple(entry[2] for entry in worst),
        )  # fmt: skip
    if worst := [entry for entry in saturated if entry[0] >= SATURATED_SHARE]:
        share, count, layer = max(worst)
        yield Finding(
            "saturated-units", "warning", share,
            f"{count} units of {layer} are at the end of their range, where the slope is nearly "
            f"0, on {FLAT_ROWS:.0%} of the rows and more: they hardly learn.",
            f"Scale X to about 1; then train again with {rate}={slower:g}, or "
            "activation='relu'.",
            rate, slower, tuple(entry[2] for entry in worst),
        )  # fmt: skip


FLATNESS: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda a: 1 - a * a,
    "logistic": lambda a: 4 * a * (1 - a),
    "hard_sigmoid": lambda a: ((a > 0) & (a < 1)).astype(a.dtype),
}
"""Slope relative to the steepest, from a layer's activations."""


def gradient_norms(net: State, data: Data) -> tuple[list[float], list[float]]:
    """Return the Euclidean norms of dC/dz and dC/dW, layer by layer."""
    found = passes.backpropagate(net, data, net.architecture.objective(), deltas=True)
    deltas = cut_record(net.plan, found.deltas)
    dweights = Parameters(net.plan, found.gradient).weights
    return [_norm(delta) for delta in deltas], [_norm(dW) for dW in dweights]


def _norm(values: Array) -> float:
    return float(np.sqrt(np.sum(np.square(values, dtype=np.float64))))


GRADIENT_RATIO = 1e-3
"""Norm of the first layer's deltas to the last hidden layer's (or the reverse); four healthy
logistic layers begin at 0.02, and ratios grow towards 1 as they learn."""


def gradients(subject: Subject, trained: Trained) -> Iterator[Finding]:
    """Report gradients that vanish or explode between the layers."""
    net = trained.net
    if len(net.sizes) < 4:
        return  # one hidden layer: nothing to compare
    norms = gradient_norms(net, _some_rows(net, trained.data))[0]
    first, last = norms[0], norms[-2]
    if not (math.isfinite(first) and first > 0 and last > 0):
        return  # dead layers, or a loss of exactly 0
    ratio = first / last
    shown = f"The gradient at layer 1 is {ratio:.2g} times that at layer {len(norms) - 1}"
    bounded = any(name in ("logistic", "tanh", "hard_sigmoid") for name in net.activations[:-1])
    if ratio < GRADIENT_RATIO:
        yield Finding(
            "vanishing-gradients", "warning", ratio,
            f"{shown}: the first layers hardly learn.",
            ("Use activation='relu'" if bounded else "Use weight_init='he_normal'")
            + ", or fewer layers.",
            "activation" if bounded else "weight_init", "relu" if bounded else "he_normal",
        )  # fmt: skip
    elif ratio > 1 / GRADIENT_RATIO:
        yield Finding(
            "exploding-gradients", "warning", ratio,
            f"{shown}: its weights jump while the last ones hardly move.",
            "Use weight_init='auto' and clip_norm=1, or fewer layers.",
            "clip_norm", 1.0,
        )  # fmt: skip
