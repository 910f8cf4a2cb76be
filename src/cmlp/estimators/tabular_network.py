"""The networks of a tabular estimator: made from its encoder's columns and its preset."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.estimators.parameters import parameters_at_fault
from cmlp.estimators.presets import Preset
from cmlp.estimators.targets import Outputs
from cmlp.network import Network
from cmlp.training.recipe import Recipe

ONE_HOT_LIMIT = 256
"""Levels of a column, each with a column of its own, as long as networks have no table of levels:
the less frequent ones share the last."""


def encoder_settings(
    preset: Preset, classifies: bool, max_categories: int | None
) -> dict[str, Any]:
    """Return what the encoder is told by a preset, and by the estimator's `max_categories`."""
    statistics = "classification" if classifies else "regression"
    return {
        "max_categories": min(max_categories or ONE_HOT_LIMIT, ONE_HOT_LIMIT),
        "max_one_hot": max(preset.max_one_hot, ONE_HOT_LIMIT),
        "numbers": preset.numbers,
        "n_knots": preset.n_knots,
        "date_parts": preset.date_parts,
        "target_statistics": statistics if preset.target_statistics else None,
        "prior": preset.prior,
        "n_permutations": preset.n_permutations,
    }


@parameters_at_fault()
def build_network(
    columns: list[Any],
    preset: Preset,
    outputs: Outputs,
    seed: int,
    *,
    dtype: Any = "float32",
    **loss_options: Any,
) -> Network:
    """Make an untrained network for encoded rows.

    Parameters
    ----------
    columns : list of OutputColumn
        The encoder's, one per column of the encoded matrix.
    seed : int
        Of its first weights and its training.
    **loss_options
        quantile, huber_delta.
    """
    given = preset.hidden_layer_sizes
    hidden = [int(size) for size in (given if np.iterable(given) else [given])]
    net = Network(
        [len(columns), *hidden, outputs.n],
        preset.activation,
        None,
        outputs.loss,
        preset.weight_init,
        dtype,
        seed,
        missing_targets=outputs.masks,
        **loss_options,
    )
    net.feature_names = [str(column.name) for column in columns]
    return net


@parameters_at_fault()
def recipe_of(preset: Preset) -> Recipe:
    """Return how a step is taken."""
    return Recipe(
        solver=preset.solver,
        learning_rate=preset.learning_rate_init,
        beta_1=preset.beta_1,
        beta_2=preset.beta_2,
        epsilon=preset.epsilon,
        weight_decay=preset.weight_decay,
        dropout=preset.dropout,
        label_smoothing=preset.label_smoothing,
        clip_norm=preset.clip_norm,
    )
