"""Assignments to a network's attributes: what it can predict with and a file can hold is kept.

Anything else is refused when it is assigned.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.arrays import refuse_masked
from cmlp.core.checks import check_input_scale, check_number
from cmlp.core.layout import ACTIVATION, PARAMETER, Array, aligned, layers_of, parameter_of
from cmlp.core.vocabulary import (
    ACTIVATION_PARAMETERS,
    ACTIVATIONS,
    SOLVERS,
    activation_of,
    lookup,
    with_parameter,
)
from cmlp.data.labels import check_classes
from cmlp.data.numbers import as_numbers
from cmlp.model.architecture import (
    check_missing_targets,
    check_normalization_epsilon,
    check_precision,
)
from cmlp.model.history import History
from cmlp.model.parameters import Parameters
from cmlp.model.precision import check_runs
from cmlp.model.state import State

Assign = Callable[[State, Any], None]

# Attributes of a network -------------------------------------------------------------------------


def _activations(net: State, names: Any) -> None:
    """Each layer's activation; the plan has them, too, and is what predicts."""
    net.replace_architecture(net.architecture.with_activations(names))


def _plan(net: State, plan: Any) -> None:
    """A layout that differs from the present one in the activations only."""
    wanted = np.asarray(plan)
    if wanted.shape == net.plan.shape and wanted.dtype == net.plan.dtype:
        pairs = zip(layers_of(net.plan), wanted, strict=False)
        names = [_name_in_plan(given, present) for present, given in pairs]
        architecture = replace(net.architecture, activations=tuple(map(str, names)))
        kept = np.arange(wanted.shape[1]) != PARAMETER  # which is in the names
        if None not in names and np.array_equal(wanted[:, kept], architecture.plan()[:, kept]):
            net.replace_architecture(net.architecture.with_activations(names))
            return
    raise ValueError(
        "plan must be the layout of this network's layers, which only another activation changes: "
        "assign net.activations"
    )


def _name_in_plan(row: NDArray[np.int64], present: NDArray[np.int64]) -> str | None:
    """Return the activation of a plan's row; None if it is not clear.

    It is not where the code has changed and the parameter has not, which is then that of another
    activation.
    """
    entry = {entry.code: entry for entry in ACTIVATIONS}.get(int(row[ACTIVATION]))
    if entry is None or entry.name not in ACTIVATION_PARAMETERS:
        return None if entry is None else entry.name
    if row[ACTIVATION] != present[ACTIVATION] and row[PARAMETER] == present[PARAMETER]:
        return None
    return with_parameter(entry, parameter_of(row)).name


def _params(net: State, params: Any) -> None:
    """All parameters, as the cores read them; the same array if it is fit for them."""
    refuse_masked("params", params)
    flat = np.asarray(params)
    shape = net.params.shape
    if flat.dtype.kind != "f" or flat.shape != shape:
        raise ValueError(
            f"params must be {shape} numbers of {net.dtype}, laid out as they are in net.params; "
            f"they are {flat.shape} of {flat.dtype}. Write single layers by net.weights[0] = W"
        )
    parts = Parameters(net.plan, flat).parts().values()
    padded = sum(map(np.count_nonzero, parts)) < np.count_nonzero(flat)
    if padded or flat.dtype != net.dtype or not (flat.flags.c_contiguous and flat.flags.aligned):
        clean = aligned(shape, net.dtype)
        targets = Parameters(net.plan, clean).parts().values()
        for target, part in zip(targets, parts, strict=True):
            target[...] = narrowed("params", part, net.dtype)
        flat = clean
    net.rebind_attributes(params=flat)


def narrowed(name: str, values: Array, dtype: np.dtype[Any]) -> Array:
    """Return numbers in another type; refuse those that it has not room for."""
    with np.errstate(all="ignore"):
        narrow = values.astype(dtype)
    if np.isinf(narrow).sum() > np.isinf(values).sum():
        raise ValueError(f"{name} holds numbers that are too large for {dtype}")
    return narrow


def _solver(net: State, name: Any) -> None:
    empty = isinstance(name, str) and not name
    net.optimizer_state.solver = "" if empty else lookup("solver", SOLVERS, name).name


def _moments(net: State, moments: Any) -> None:
    fits = isinstance(moments, np.ndarray) and moments.shape[1:] == net.params.shape
    if not (fits and moments.dtype == net.dtype):
        raise ValueError(f"moments must be (n_moments, {len(net.params)}) numbers of {net.dtype}")
    net.optimizer_state.moments = moments


def _count(name: str) -> Assign:
    """Return what assigns a count of steps, which :meth:`OptimizerState.check` examines later."""
    return lambda net, value: setattr(net.optimizer_state, name, value)


def _classes(net: State, labels: Any) -> None:
    least = max(net.sizes[-1], 2)
    net.rebind_attributes(
        classes=None if labels is None else check_classes("classes", labels, least)
    )


def text_list(name: str, names: Any, n: int | None) -> list[str]:
    """Return the names of `n` columns as text, or of none."""
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable | None):
        raise TypeError(f"{name} must be a list of names, not {names!r}")
    refuse_masked(name, names)
    texts = [] if names is None else [str(each) for each in names]
    if texts and n is not None and len(texts) != n:
        raise ValueError(f"{name} must have {n} names, one per input, not {len(texts)}")
    return texts


def _feature_names(net: State, names: Any) -> None:
    net.rebind_attributes(feature_names=text_list("feature_names", names, net.sizes[0]))


def _target_name(net: State, name: Any) -> None:
    refuse_masked("target_name", name)
    net.rebind_attributes(target_name=None if name is None else str(name))


def _of_architecture(name: str, check: Callable[[State, Any], Any]) -> Assign:
    """Return what assigns a value of the architecture, once it is checked."""

    def assign(net: State, value: Any) -> None:
        net.replace_architecture(replace(net.architecture, **{name: check(net, value)}))

    return assign


def _loss_parameter(net: State, value: Any) -> float:
    bounds = {"quantile": (0, 1), "huber": (0, np.inf)}.get(net.loss_name)
    if bounds is None:
        raise AttributeError(f"the loss {net.loss_name} has no parameter to assign")
    return check_number("loss_parameter", value, *bounds)


def _normalization_epsilon(net: State, value: Any) -> float:
    if net.normalization is None:
        raise AttributeError("this network has no normalization, and no epsilon to assign")
    return check_normalization_epsilon(value)


def _precision(net: State, value: Any) -> str | None:
    precision = check_precision(value, net.dtype)
    check_runs(precision)
    return precision


def _history(net: State, record: Any) -> None:
    if not isinstance(record, History):
        if not isinstance(record, dict):
            raise TypeError(f"history must be a History or a dict of lists, not {record!r}")
        record = History({str(key): [float(value) for value in record[key]] for key in record})
    net.rebind_attributes(history=record)


def _fixed(name: str, advice: str) -> Assign:
    def refuse(net: State, value: Any) -> None:
        raise AttributeError(f"{name} cannot be assigned after the network was made; {advice}")

    return refuse


ASSIGNED: dict[str, Assign] = {
    "activations": _activations,
    "plan": _plan,
    "params": _params,
    "input_scale": _of_architecture("input_scale", lambda net, value: check_input_scale(value)),
    "missing_targets": _of_architecture(
        "missing_targets", lambda net, value: check_missing_targets(value, net.loss_name)
    ),
    "loss_parameter": _of_architecture("loss_parameter", _loss_parameter),
    "normalization_epsilon": _of_architecture("normalization_epsilon", _normalization_epsilon),
    "precision": _of_architecture("precision", _precision),
    "classes": _classes,
    "feature_names": _feature_names,
    "target_name": _target_name,
    "history": _history,
    "solver": _solver,
    "moments": _moments,
    "steps": _count("steps"),
    "averaged": _count("average_steps"),
    "rng": lambda net, seed: net.rebind_attributes(rng=np.random.default_rng(seed)),
    "sizes": _fixed("sizes", "make another one: cmlp.Network(sizes)"),
    "dtype": _fixed("dtype", "net.astype(dtype) returns a copy in another one"),
    "parametric_activation": _fixed(
        "parametric_activation", "make another one, with parametric_activation=True"
    ),
    "normalization": _fixed("normalization", "net.folded() returns a copy without 'batch'"),
    "inputs": _fixed("inputs", "make another one: cmlp.Network(sizes, inputs=...)"),
    "weight_init": _fixed("weight_init", "the first weights are drawn"),
    "activation": _fixed("activation", "assign net.activations, one name per layer"),
    "out_activation": _fixed("out_activation", "assign net.activations, one name per layer"),
    "loss": _fixed(
        "loss", "make another one, cmlp.Network(sizes, loss=...), and assign its params"
    ),
    "quantile": _fixed("quantile", "assign net.loss_parameter"),
    "huber_delta": _fixed("huber_delta", "assign net.loss_parameter"),
    "seed": _fixed("seed", "assign net.rng"),
    "loss_row": _fixed("loss_row", "make another one, with loss=..."),
    "custom_loss": _fixed("custom_loss", "make another one, with loss=..."),
    "architecture": _fixed("architecture", "make another one: cmlp.Network(sizes)"),
    "optimizer_state": _fixed("optimizer_state", "assign net.solver, net.moments, net.steps"),
    "workspaces": _fixed("workspaces", "they are scratch of the core"),
    "shown_average": _fixed("shown_average", "assign net.averaged"),
}
"""How an attribute is assigned: checked, so that the network can keep it, or refused."""

TRAINING = {
    "batch_size", "callbacks", "clip_norm", "decay_factors", "dropout", "dropout_schedule", "ema",
    "epochs", "l1", "l2", "learning_rate", "max_time", "momentum", "n_threads", "optimizer",
    "patience", "rate_factors", "schedule", "shuffle", "validation_fraction", "verbose",
    "weight_decay", "weight_decay_schedule",
}  # fmt: skip
"""Settings of a training, which a network does not keep."""


def refuse_unknown(net: State, name: str) -> None:
    """Refuse a setting, a misspelt name, and a name that hides a method.

    A program may have attributes of its own; names that begin with an underscore are internal.
    """
    defined = getattr(type(net), name, None)
    if name.startswith("_") or isinstance(defined, property):
        return  # a property without a setter raises its own error
    if callable(defined):
        raise AttributeError(f"{name} is a method of a network, which cannot be assigned")
    if name in TRAINING:
        raise AttributeError(f"{name} is a parameter of fit: net.fit(X, y, {name}=...)")
    near = difflib.get_close_matches(name, ASSIGNED, 1, 0.8) if name not in vars(net) else []
    if near:
        raise AttributeError(f"a network has no attribute {name!r} to assign; it has {near[0]!r}")


def check_plan(net: State) -> None:
    """Check that the plan, which may have been changed in place, is that of the architecture."""
    if not np.array_equal(net.plan, net.architecture.plan()):
        raise ValueError("plan was changed in place; assign net.activations instead")


# Weights -----------------------------------------------------------------------------------------


def sizes_of(coefs: Any, intercepts: Any) -> list[int]:
    """Return the units of the layers that these weights belong to.

    Raises
    ------
    ValueError
        If they do not fit each other.
    """
    weights, biases = [np.shape(W) for W in coefs], [np.shape(b) for b in intercepts]
    fits = len(weights) == len(biases) > 0 and all(len(shape) == 2 for shape in weights)
    if not (
        fits
        and all(before[1] == after[0] for before, after in pairwise(weights))
        and all(b == W[1:] for W, b in zip(weights, biases, strict=True))
    ):
        raise ValueError(
            "coefs_ needs an array (n_in, n_out) per layer, intercepts_ one of (n_out,), and n_out "
            f"is the next layer's n_in; the shapes are {weights} and {biases}"
        )
    return [weights[0][0], *(shape[1] for shape in weights)]


def write(net: State, coefs: Any, intercepts: Any) -> None:
    """Write weights and biases into a network; None leaves them.

    Raises
    ------
    ValueError
        If they do not fit the network.
    """
    for name, given, views in (
        ("coefs_init", coefs, net.weights),
        ("intercepts_init", intercepts, net.biases),
    ):
        if given is None:
            continue
        shapes = [view.shape for view in views]
        if [np.shape(values) for values in given] != shapes:
            raise ValueError(
                f"{name} must have arrays of the shapes {shapes}, one per layer; the shapes "
                f"are {[np.shape(values) for values in given]}"
            )
        arrays = [narrowed(name, as_numbers(name, values), net.dtype) for values in given]
        for view, values in zip(views, arrays, strict=True):
            view[...] = values


def predict_with(net: State, out_activation: str) -> None:
    """Give a network another activation of its outputs, which it need not be able to train with."""
    row = activation_of(out_activation, "out_activation_")
    _activations(net, (*net.activations[:-1], row.name))
