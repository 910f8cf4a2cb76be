"""Groups of parameters, which may have rates and decay of their own.

An optimizer's factors are a table, (phi, rho) of each group: those of the first layer, of the
second one and so on, and then those that belong to no layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmlp.core.front import front_views
from cmlp.core.layout import Array, alpha_views, layer_views, layers_of, normalization_views

LAYER_GROUPS = ("weights", "biases", "scales", "alphas")
"""Groups of parameters that each layer has, in the order of an optimizer's factors."""

OTHER_GROUPS = ("inputs", "embeddings", "periodic")
"""Groups of the front: the factors of the inputs, the tables of levels, the four arrays of periodic
columns."""

DECAYING = ("weights", "embeddings")
"""Groups that weight decay shrinks if nothing else is told."""

_BY_NAME = {"factors": "inputs", "levels": "embeddings", "summed": "embeddings"}


def factor_row(plan: NDArray[np.int64], group: str, layer: int = 0) -> int:
    """Return which row of ``Optimizer.factors``, (phi, rho), belongs to a group of a layer."""
    if group in LAYER_GROUPS:
        return layer * len(LAYER_GROUPS) + LAYER_GROUPS.index(group)
    return len(layers_of(plan)) * len(LAYER_GROUPS) + OTHER_GROUPS.index(group)


def default_factors(plan: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the factors that change nothing: all rates times 1, decay of weights and tables."""
    groups = (*len(layers_of(plan)) * LAYER_GROUPS, *OTHER_GROUPS)
    return np.array([(1.0, float(group in DECAYING)) for group in groups])


def group_views(plan: NDArray[np.int64], flat: Array) -> list[tuple[int, Array]]:
    """Cut what a solver moves into groups, each with its row of ``Optimizer.factors``."""
    views: list[tuple[int, Array]] = []
    for layer, (W, b) in enumerate(layer_views(plan, flat)):
        views += [(factor_row(plan, "weights", layer), W), (factor_row(plan, "biases", layer), b)]
    for layer, (gamma, *_) in enumerate(normalization_views(plan, flat)):
        views.append((factor_row(plan, "scales", layer), gamma))
    for layer, alpha in enumerate(alpha_views(plan, flat)):
        views.append((factor_row(plan, "alphas", layer), alpha))
    for name, part in front_views(plan, flat).items():
        kind = name.split(".")[0]
        views.append((factor_row(plan, _BY_NAME.get(kind, kind)), part))
    return views
