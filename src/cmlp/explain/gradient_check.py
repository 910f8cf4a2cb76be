"""Backpropagation compared with central differences of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cmlp.core.layout import Array
from cmlp.core.seam import Objective
from cmlp.model import passes
from cmlp.model.parameters import Parameters
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
    """See :meth:`Network.check_gradients`.

    The differences are taken in float64, whatever the network's dtype is.
    """
    objective = recipe.objective(net.architecture)
    grads = Parameters(net.plan, passes.backpropagate(net, data, objective).gradient)
    exact = net.astype(np.float64)
    # Backpropagation rounds in the network's dtype, along sums as long as the batch and the layers.
    length = len(data.X) + max(net.sizes)
    tolerance = max(1e-6, 16 * float(np.finfo(net.dtype).eps) * np.sqrt(length))
    rng = np.random.default_rng(0)
    layers = []
    parts = zip(grads.weights, grads.biases, exact.weights, exact.biases, strict=True)
    scales = list(zip(grads.scales, exact.scales, strict=True))
    for number, (dW, db, W, b) in enumerate(parts, 1):
        letters = [("W", W, dW), ("b", b, db)]
        letters += [("gamma", gamma, slopes) for slopes, gamma in scales[number - 1 : number]]
        sizes = np.abs(np.concatenate([slopes.ravel() for _, _, slopes in letters]))
        sizes = sizes.astype(np.float64)
        scale = float(np.max(sizes, where=np.isfinite(sizes), initial=1e-8))
        worst = CheckedLayer(f"layer {number}", "none", 0.0, 0.0, -1.0)
        for letter, values, slopes in letters:
            chosen = np.arange(values.size)
            if entries is not None and entries < values.size:
                chosen = rng.choice(values.size, entries, replace=False)
            for flat in chosen:
                where = tuple(int(i) for i in np.unravel_index(flat, values.shape))
                analytic = float(slopes[where])
                numeric, error = _difference(exact, data, objective, values, where, analytic)
                error = error / scale if np.isfinite(error) else np.inf
                if error > worst.error:
                    entry = f"{letter}[{', '.join(map(str, where))}]"
                    worst = CheckedLayer(worst.name, entry, analytic, numeric, error)
        layers.append(worst)
    return GradientCheck(layers, tolerance)


def _difference(
    net: State,
    data: Data,
    objective: Objective,
    values: Array,
    where: tuple[int, ...],
    analytic: float,
) -> tuple[float, float]:
    """Return the central difference by one parameter, and how far the analytic slope is from it.

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
