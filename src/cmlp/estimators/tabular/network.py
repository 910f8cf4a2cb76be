"""The networks of a tabular estimator: made from its encoder's columns and its preset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmlp.core.vocabulary import activation_of
from cmlp.estimators.parameters import parameters_at_fault
from cmlp.estimators.tabular.presets import Preset
from cmlp.estimators.targets import Outputs
from cmlp.model.inputs import Inputs
from cmlp.network import Network
from cmlp.training.recipe import Recipe

LAST_LAYER = 0.3
"""Times the last layer's first weights: the first predictions are near the mean."""


def encoder_settings(preset: Preset, max_categories: int | None) -> dict[str, Any]:
    """Return what the encoder is told by a preset, and by the estimator's `max_categories`."""
    return {
        "max_categories": max_categories,
        "max_one_hot": preset.max_one_hot,
        "min_rows": preset.min_rows,
        "numbers": preset.numbers,
        "n_knots": preset.n_knots if preset.numeric_embedding == "piecewise" else None,
        "date_parts": preset.date_parts,
    }


def inputs_of(columns: Sequence[Any], preset: Preset) -> Inputs | None:
    """Return what becomes of encoded columns before the first layer.

    Parameters
    ----------
    columns : sequence of OutputColumn
    """
    places = {i: column.n_levels for i, column in enumerate(columns) if column.use == "position"}
    codes = {i: column.n_levels for i, column in enumerate(columns) if column.use == "code"}
    numbers = [i for i, column in enumerate(columns) if column.use == "number" and column.source]
    size = preset.embedding_size
    inputs = Inputs(
        periodic=tuple(numbers) if preset.numeric_embedding == "periodic" else (),
        levels={i: (n, size) for i, n in codes.items()} if size else {},
        summed=places if size else places | codes,
        cumulative=tuple(places),
    )
    return None if inputs.is_plain else inputs


@parameters_at_fault()
def build_network(
    columns: list[Any],
    preset: Preset,
    outputs: Outputs,
    seed: int,
    *,
    dtype: Any = "float32",
    precision: str | None = None,
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
        "he_normal",
        dtype,
        seed,
        missing_targets=outputs.masks,
        inputs=inputs_of(columns, preset),
        precision=precision,
        **loss_options,
    )
    draw_weights(net)
    net.feature_names = [str(column.name) for column in columns]
    return net


def draw_weights(net: Network) -> None:
    """Draw first weights of variance 2 / n_in; what tables are summed counts all their rows.

    Of a table whose rows are sums of steps from knot to knot, it is the steps that are drawn. The
    first row of a table, of what is missing, begins at 0.
    """
    rng, inputs = net.rng, net.architecture.inputs
    cumulative = () if inputs is None else inputs.cumulative
    tables = {name: E for name, E in net.front.items() if name.startswith("summed.")}
    n_rows = sum(len(E) for E in tables.values())
    for number, (W, name) in enumerate(zip(net.weights, net.activations, strict=True)):
        last = number == len(net.weights) - 1
        n_in = len(W) + (n_rows + 1 if number == 0 else 0)
        name = net.activations[number - 1] if last and number else name
        gain = 1.0 if name == "selu" else 2.0
        if name.startswith("leaky_relu:"):
            gain = activation_of(name).gain
        deviation = np.sqrt(gain / n_in)
        W[...] = rng.normal(0, LAST_LAYER * deviation if last else deviation, W.shape)
        if number:
            continue
        for key, E in tables.items():
            drawn = rng.normal(0, deviation, E.shape)
            drawn[0] = 0
            if int(key.partition(".")[2]) in cumulative:
                np.cumsum(drawn, axis=0, out=drawn)
            E[...] = drawn
    for name, E in net.front.items():
        if name.startswith("levels."):
            E[0] = 0


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
        rate_factors={"embeddings": preset.rate_of_tables},
    )
