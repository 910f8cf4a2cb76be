"""The network of an estimator: made from its parameters, and compared with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cmlp.core.checks import check_dtype, plain
from cmlp.core.errors import InvalidParameterError
from cmlp.core.vocabulary import NORMALIZATION_EPS
from cmlp.estimators.inputs import Columns
from cmlp.estimators.parameters import parameters_at_fault, refuse
from cmlp.estimators.targets import Outputs, Task
from cmlp.model.architecture import (
    check_normalization_epsilon,
    loss_parameters,
    resolve_hidden,
    resolve_loss,
)
from cmlp.model.assignment import write
from cmlp.model.initialise import draw_like_sklearn
from cmlp.network import Network


def hidden_sizes(estimator: Any) -> list[int]:
    """Return the units of the hidden layers."""
    given = estimator.hidden_layer_sizes
    sizes = [plain(size) for size in (given if np.iterable(given) else [given])]
    if not all(type(size) is int for size in sizes):
        expected = "an array-like or an int in the range [1, inf)"
        raise refuse(estimator, "hidden_layer_sizes", expected)
    if min(sizes, default=1) < 1:
        raise InvalidParameterError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return sizes


@parameters_at_fault()
def new_network(
    estimator: Any,
    columns: Columns,
    outputs: Outputs,
    *,
    hidden: list[int] | None = None,
    weight_init: str = "zeros",
    seed: int = 0,
) -> Network:
    """Make a network as the parameters describe it; `hidden` replaces their layers."""
    hidden = hidden_sizes(estimator) if hidden is None else hidden
    net = Network(
        [columns.n, *hidden, outputs.n],
        estimator.activation,
        estimator.out_activation,
        outputs.loss,
        weight_init,
        estimator.dtype,
        seed,
        **loss_options(estimator),
        input_scale=estimator.input_scale,
        missing_targets=outputs.masks,
        normalization=estimator.normalization,
        inputs=None,
        normalization_epsilon=estimator.normalization_epsilon,
        precision=estimator.precision,
    )
    net.classes = outputs.classes
    net.feature_names = [] if columns.names is None else [str(name) for name in columns.names]
    return net


def first_network(estimator: Any, task: Task, random: np.random.RandomState) -> Network:
    """Make the network that a training begins with: scikit-learn's first weights, or others."""
    auto = estimator.weight_init == "auto"
    needs_seed = not auto or estimator.input_noise or np.any(estimator.dropout)
    net = new_network(
        estimator,
        task.columns,
        task.targets.outputs,
        weight_init="zeros" if auto else estimator.weight_init,
        seed=int(random.randint(2**31 - 1)) if needs_seed else 0,
    )
    if auto:
        draw_like_sklearn(net.weights, net.biases, net.activations[:-1], random)
    if task.once or estimator.warm_start:
        assigned = vars(estimator).get("_assigned", {})
        write(net, assigned.get("coefs_"), assigned.get("intercepts_"))
    write(net, *task.init)
    return net


def check_continues(estimator: Any, net: Network, task: Task) -> None:
    """Check that a network whose training continues is the one that the parameters describe."""
    outputs = task.targets.outputs
    described = (task.columns.n, *hidden_sizes(estimator), outputs.n)
    if net.sizes != described:
        raise ValueError(
            f"the fitted network has the layers {net.sizes}, but the parameters and y require "
            f"{described}; set warm_start=False to begin anew"
        )
    check_described(estimator, net, outputs)


def keep(estimator: Any, columns: Columns, outputs: Outputs, n_layers: int, **more: Any) -> None:
    """Write what a fit has learned about X and y, and `more`, into an estimator.

    In one step, as other threads may predict: labels and network belong together.
    """
    vars(estimator).update(
        n_features_in_=columns.n,
        n_outputs_=outputs.n,
        n_layers_=n_layers,
        _names=columns.names,
        _known_labels=outputs.labels,
        _misfit="",
        **more,
    )


@parameters_at_fault()
def check_described(estimator: Any, net: Network, outputs: Outputs) -> None:
    """Check that a network has what the parameters, which may have changed, describe."""
    if net.architecture.unsuited:
        raise ValueError(net.architecture.unsuited)
    row, out = resolve_loss(outputs.loss, estimator.out_activation, net.sizes[-1])
    hidden = tuple(resolve_hidden(estimator.activation, len(net.sizes) - 2))
    parameters = loss_parameters(*loss_options(estimator).values())
    epsilon = NORMALIZATION_EPS
    if estimator.normalization is not None:
        epsilon = check_normalization_epsilon(estimator.normalization_epsilon)
    both = {
        "activation": (net.activations[:-1], hidden),
        "loss": (net.loss_name, "custom" if row is None else row.name),
        "out_activation": (net.activations[-1], out),
        "quantile or huber_delta": (net.loss_parameter, parameters.get(net.loss_name, 0.0)),
        "input_scale": (net.input_scale, float(estimator.input_scale)),
        "dtype": (net.dtype.name, check_dtype(estimator.dtype).name),
        "normalization": (net.normalization, estimator.normalization),
        "normalization_epsilon": (net.normalization_epsilon, epsilon),
        "precision": (net.precision, estimator.precision),
    }
    for name, (has, described) in both.items():
        if has != described:
            raise ValueError(
                f"the fitted network has {name}={has!r}, but the parameters require {described!r};"
                " set that parameter to what the network has, or fit anew (warm_start=False)"
            )
    if row is None and outputs.loss is not net.architecture.custom_loss:
        net.replace_architecture(replace(net.architecture, custom_loss=outputs.loss))


def loss_options(estimator: Any) -> dict[str, Any]:
    """Return the parameters of losses, which a classifier does not have."""
    return {
        "quantile": getattr(estimator, "quantile", 0.5),
        "huber_delta": getattr(estimator, "huber_delta", 1.0),
    }
