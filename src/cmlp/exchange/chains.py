"""Every kind of model as a :class:`cmlp.formats.chain.Chain`: what exits take."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.estimators.mlp import MLP
from cmlp.estimators.tabular.estimator import Tabular
from cmlp.formats.chain import (
    Chain,
    ConversionError,
    Member,
    Unit,
    check,
    check_names,
    member_of,
    with_scaler,
)
from cmlp.formats.raw_rows import RawRows, raw_rows_of
from cmlp.network import Network

SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
"""Classes of scikit-learn that are a mean and a factor per column."""


def chain_of(model: Any) -> Chain:
    """Return a model's neutral form.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        A pipeline of scalers that ends in one of the others. Of a tabular estimator: from encoded
        rows, ``model.encoder_.transform(X)``, on.

    Raises
    ------
    ConversionError
        If it is none of these, or is not fitted; the message names the part.
    """
    if isinstance(model, Network):
        return check_names(check(_of_network(model)))
    if isinstance(model, MLP):
        return check_names(check(_of_estimator(model)))
    if isinstance(model, Tabular):
        return check_names(check(_of_tabular(model)))
    steps = getattr(model, "steps", None)
    if not isinstance(steps, list) or not steps:
        raise ConversionError(
            "expected a Network, an estimator of cmlp, or a Pipeline of scalers that ends in one "
            f"of them, not {type(model).__name__}"
        )
    if isinstance(steps[-1][1], Tabular):
        raise ConversionError(
            "a pipeline that ends in a tabular model cannot leave: its scalers are before the "
            "encoding of rows; pass the tabular model alone"
        )
    chain = chain_of(steps[-1][1])
    for name, step in reversed(steps[:-1]):
        if step is None or step == "passthrough":
            continue
        chain = with_scaler(chain, *_scaling(name, step))
    return chain


def raw_rows(model: Any) -> RawRows | None:
    """Return how a tabular model encodes its rows; None of another model."""
    return raw_rows_of(model.encoder_) if isinstance(model, Tabular) else None


def _scaling(name: str, step: Any) -> tuple[Array, Array]:
    """Return the mean and the factor of each column, of a fitted scaler."""
    kind = type(step).__name__
    if kind not in SCALERS:
        raise ConversionError(
            f"step {name!r} of the pipeline is a {kind}; only {', '.join(SCALERS)} can leave with "
            "the network. Apply other steps before, or keep the pipeline"
        )
    n = getattr(step, "n_features_in_", None)
    if n is None:
        raise ConversionError(f"step {name!r} of the pipeline is not fitted")
    zeros, ones = np.zeros(n), np.ones(n)
    if getattr(step, "clip", False):
        raise ConversionError(f"step {name!r} of the pipeline clips; only clip=False can leave")
    if kind == "MinMaxScaler":  # x scale + min
        return -step.min_ / step.scale_, step.scale_
    mean = getattr(step, "center_" if kind == "RobustScaler" else "mean_", None)
    if not getattr(step, "with_mean", True):  # there is a mean_, too, which is not subtracted
        mean = None
    scale = getattr(step, "scale_", None)
    return zeros if mean is None else mean, ones if scale is None else 1 / scale


def _of_network(net: Network) -> Chain:
    names = tuple(map(str, net.feature_names)) or None
    classes = net.classes
    if classes is None and net.loss_row is not None and net.loss_row.classifies:
        classes = np.arange(max(net.sizes[-1], 2))
        if net.activations[-1] == "logistic" and net.sizes[-1] > 1:
            return Chain(net.sizes[0], (member_of(net),), None, None, True, names, net.target_name)
    return Chain(net.sizes[0], (member_of(net),), None, classes, False, names, net.target_name)


def _of_estimator(estimator: Any) -> Chain:
    fitted = list(getattr(estimator, "estimators_", [estimator]))
    if not all(hasattr(each, "network_") for each in fitted):
        raise ConversionError(f"this {type(estimator).__name__} is not fitted: call fit first")
    members = tuple(member_of(each.network_) for each in fitted)
    names = getattr(estimator, "feature_names_in_", None)
    labels = estimator._labels if estimator._estimator_type == "classifier" else None
    return Chain(
        fitted[0].network_.sizes[0],
        members,
        classes=None if labels is None else np.asarray(labels.classes),
        multilabel=labels is not None and labels.multilabel,
        feature_names=None if names is None else tuple(map(str, names)),
    )


def _of_tabular(estimator: Any) -> Chain:
    if not hasattr(estimator, "networks_"):
        raise ConversionError(f"this {type(estimator).__name__} is not fitted: call fit first")
    if len(estimator.encoders_) > 1:
        raise ConversionError("members with encoders of their own cannot leave together")
    members: list[Member] = []
    for each in estimator._members:
        scale, unit = each.scale, None
        if scale is not None:
            unit = Unit(scale.spread, scale.centre, scale.low, scale.high)
        members.append(member_of(each.network, unit))
    labels = getattr(estimator, "_labels", None)
    return Chain(
        estimator.network_.sizes[0],
        tuple(members),
        classes=None if labels is None else np.asarray(labels.classes),
        multilabel=labels is not None and labels.multilabel,
        feature_names=tuple(map(str, estimator.network_.feature_names)) or None,
    )
