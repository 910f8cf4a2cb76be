"""Gradient check: backpropagation compared with central differences of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cmlp.core.layout import Array
from cmlp.core.public import set_module
from cmlp.core.seam import Objective
from cmlp.model import passes
from cmlp.model.parameters import Parameters
from cmlp.model.precision import unrounded
from cmlp.model.state import State

if TYPE_CHECKING:
    from cmlp.data.rows import Data
    from cmlp.training.recipe import Recipe


class CheckedLayer(NamedTuple):
    """The worst entry of a layer's gradient."""

    name: str
    entry: str
    analytic: float
    numeric: float
    error: float
    """Their difference, relative to the largest entry of the layer's gradient."""


@set_module("cmlp")
@dataclass(frozen=True)
class GradientCheck:
    """Result of :meth:`Network.check_gradients`; true if every layer is within the tolerance."""

    layers: list[CheckedLayer]
    tolerance: float

    @property
    def worst(self) -> CheckedLayer:
        """The layer with the largest error."""
        return max(self.layers, key=lambda layer: layer.error)

    def __bool__(self) -> bool:
        return bool(self.worst.error <= self.tolerance)

    def __str__(self) -> str:
        lines = ["layer             worst entry         backprop      difference    error"]
        for layer in self.layers:
            lines.append(
                f"{layer.name:16s}  {layer.entry:16s} {layer.analytic:14.6e} {layer.numeric:14.6e}"
                f"  {layer.error:7.1e}"
            )
        verdict = "all within" if self else f"{self.worst.name}, {self.worst.entry} is beyond"
        return "\n".join([*lines, f"{verdict} {self.tolerance:.1e}"])


def check_gradients(net: State, data: Data, recipe: Recipe, entries: int | None) -> GradientCheck:
    """Compare gradients with differences; see :meth:`Network.check_gradients`.

    The differences are taken in float64, whatever the network's dtype is.
    """
    net = unrounded(net)  # the formulas are checked, not the rounding
    objective = recipe.objective(net.architecture)
    found = passes.backpropagate(net, data, objective)
    slopes = Parameters(net.plan, found.gradient).parts()
    exact = net.astype(np.float64)
    values = exact.parameter_views.parts()
    # Backpropagation rounds in the network's dtype, along sums as long as the batch and the layers.
    length = len(data.X) + max(net.sizes)
    tolerance = max(1e-6, 16 * float(np.finfo(net.dtype).eps) * np.sqrt(length))
    rng = np.random.default_rng(0)
    layers = []
    for heading, names in _names(net):
        parts = [
            (letter, values[name], slopes[name]) for name, letter in names.items() if name in values
        ]
        compared = [part[2] for part in parts]
        if heading in net.front or heading == "periodic":  # a shift has no slope of its own if the
            compared.append(slopes["layers.0.weight"])  # first layer is normalised
        scale = _largest(compared)
        worst = CheckedLayer(heading, "none", 0.0, 0.0, -1.0)
        for letter, part, part_slopes in parts:
            for where in _chosen(part, entries, rng):
                analytic = float(part_slopes[where])
                numeric, error = _difference(exact, data, objective, part, where, analytic)
                error = error / scale if np.isfinite(error) else np.inf
                if error > worst.error:
                    entry = f"{letter}[{', '.join(map(str, where))}]"
                    worst = CheckedLayer(worst.name, entry, analytic, numeric, error)
        layers.append(worst)
    return GradientCheck(layers, tolerance)


def _names(net: State) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what is compared together: a layer or an array of the front, its parts and letters."""
    groups: dict[str, dict[str, str]] = {}
    for name in net.front:  # the four arrays of periodic columns as one: a shift may have no slope
        heading = "periodic" if name.startswith("periodic") else name
        groups.setdefault(heading, {})[f"front.{name}"] = name.removeprefix("periodic.")
    yield from groups.items()
    for number in range(len(net.weights)):
        kinds = LETTERS.items()
        yield f"layer {number + 1}", {f"layers.{number}.{kind}": letter for kind, letter in kinds}


LETTERS = {"weight": "W", "bias": "b", "scale": "gamma", "alpha": "alpha"}
"""What a layer learns, by the names of its parts."""


def _largest(slopes: list[Array]) -> float:
    """Return the largest absolute value that is finite, and at least 1e-8."""
    sizes = np.abs(np.concatenate([part.ravel() for part in slopes])).astype(np.float64)
    return float(np.max(sizes, where=np.isfinite(sizes), initial=1e-8))


def _chosen(
    values: Array, entries: int | None, rng: np.random.Generator
) -> Iterator[tuple[int, ...]]:
    """Yield the places of all entries, or of some that are drawn at random."""
    chosen = np.arange(values.size)
    if entries is not None and entries < values.size:
        chosen = rng.choice(values.size, entries, replace=False)
    for flat in chosen:
        yield tuple(int(i) for i in np.unravel_index(flat, values.shape))


def _difference(
    net: State,
    data: Data,
    objective: Objective,
    values: Array,
    where: tuple[int, ...],
    analytic: float,
) -> tuple[float, float]:
    """Return the central difference by one parameter, and the distance of the analytic slope to it.

    At a kink (a relu whose sum is 0) the slope is any number between the derivatives from the left
    and from the right, so that a slope between them is no error.
    """
    kept = values[where]
    # cbrt(eps) balances the cut-off error (its square) and the rounding error (eps over it).
    h = float(np.cbrt(np.finfo(np.float64).eps)) * max(1.0, abs(float(kept)))
    losses = {}
    for move in (-2, -1, 0, 1, 2):
        values[where] = kept + move * h
        losses[move] = passes.backpropagate(net, data, objective).loss
    values[where] = kept
    central = (losses[1] - losses[-1]) / (2 * h)
    left, right = (
        side * (4 * losses[side] - losses[2 * side] - 3 * losses[0]) / (2 * h) for side in (-1, 1)
    )
    outside = max(min(left, right) - analytic, analytic - max(left, right), 0.0)
    return central, min(abs(analytic - central), outside) if np.isfinite(central) else np.inf
