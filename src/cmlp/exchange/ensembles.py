"""A chain with several members, however it came in, becomes an estimator of their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core.vocabulary import activation_of
from cmlp.data.labels import check_classes
from cmlp.estimators.classifier import MLPClassifier
from cmlp.estimators.ensemble import MEMBERS_OWN
from cmlp.estimators.inputs import Columns
from cmlp.estimators.labels import Labels
from cmlp.estimators.networks import keep
from cmlp.estimators.regressor import MLPRegressor
from cmlp.exchange.networks import network_of, with_end
from cmlp.formats.building import Builder, joined
from cmlp.formats.chain import Chain, ConversionError


def ensemble_of(chain: Chain, loss: Any = None, parameters: Mapping[str, Any] | None = None) -> Any:
    """Return the estimator of a chain with several members.

    Parameters
    ----------
    chain : Chain
        Without fronts; its means go into the first biases.
    loss : str, optional
        As of :func:`cmlp.exchange.networks.network_of`.
    parameters : mapping, optional
        Further parameters of the estimator, which training goes by.

    Returns
    -------
    MLPClassifier or MLPRegressor
        With the networks in `estimators_`.

    Raises
    ------
    ConversionError
        If a member is no network, or has other layers than the first.
    """
    nets = [network_of(replace(chain, members=(member,)), loss) for member in chain.members]
    wide = np.result_type(*(net.dtype for net in nets))
    nets = [net if net.dtype == wide else net.astype(wide) for net in nets]
    first = nets[0]
    if any((net.sizes, net.activations) != (first.sizes, first.activations) for net in nets):
        raise ConversionError("networks whose mean is taken have different layers")
    shape: dict[str, Any] = {
        "hidden_layer_sizes": first.sizes[1:-1],
        "activation": list(first.activations[:-1]) or "relu",
        "out_activation": first.activations[-1],
        "dtype": first.dtype.name,
        "normalization": first.normalization,
    }
    kind: Any = MLPClassifier
    if not (chain.multilabel or first.activations[-1] == "softmax" or chain.classes is not None):
        kind, shape["loss"] = MLPRegressor, first.loss_name
    ensemble = kind(**{**(parameters or {}), **shape, "n_ensemble": len(nets)})
    if isinstance(ensemble, MLPClassifier) and chain.classes is not None:
        ensemble._known_labels = Labels(chain.classes, chain.multilabel)
    outputs = ensemble._outputs_of(first.sizes[-1])
    names = None if chain.feature_names is None else np.array(chain.feature_names, dtype=object)
    columns, members = Columns(chain.n_in, names), []
    for net in nets:
        member = kind(**ensemble.get_params(deep=False) | MEMBERS_OWN)
        keep(member, columns, outputs, len(net.sizes), network_=net, history_=net.history,
             n_iter_=0, t_=0)  # fmt: skip
        members.append(member)
    keep(ensemble, columns, outputs, len(first.sizes), estimators_=members, n_iter_=0, t_=0)
    return ensemble


def finish_mean(
    members: Sequence[Builder],
    out_activation: Any,
    loss: Any,
    classes: ArrayLike | None,
    input_scale: float,
) -> Any:
    """Return the estimator of collected networks, with the end and the labels that were given."""
    if input_scale != 1:
        raise ConversionError("input_scale is for single networks: scale X before")
    if out_activation is not None:
        out_activation = activation_of(out_activation, "out_activation").name
    chain = joined([with_end(each.chain(), out_activation, loss) for each in members])
    if classes is not None:
        classes = check_classes("classes", classes, max(chain.n_out, 2))
    return ensemble_of(replace(chain, classes=classes), loss)
