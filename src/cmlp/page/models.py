"""A program's model on the page: a network, or the first one of an estimator, and its rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cmlp.network import Network
from cmlp.page.build import Own


def own_of(model: Any, X: Any, y: Any, X_val: Any = None, y_val: Any = None) -> Own:
    """Return a network and rows as it takes them.

    Parameters
    ----------
    model : Network or estimator
        An estimator has been fitted; of several networks the first is taken.
    X, y, X_val, y_val : array-like
        As the model takes them.

    Raises
    ------
    TypeError, ValueError
        If it is another kind of model, or the rows do not fit it.
    """
    if (X_val is None) != (y_val is None):
        raise ValueError("rows that are held out need both X_val and y_val")
    own = Own(model, X, y, X_val, y_val)
    if not isinstance(model, Network):
        own = _of_estimator(model, own)
    net = own.net.astype(own.net.dtype)
    net.encode_rows(own.X, own.y)
    if own.X_val is not None:
        net.encode_rows(own.X_val, own.y_val, suffix="_val")
    return own


def _of_estimator(model: Any, given: Own) -> Own:
    from cmlp.estimators.mlp import MLP
    from cmlp.estimators.tabular.estimator import Tabular

    if not isinstance(model, (MLP, Tabular)):
        raise TypeError(f"play takes a Network or an estimator of cmlp, not {type(model).__name__}")
    model._check_is_fitted()
    if isinstance(model, MLP):
        return replace(given, net=model._networks()[0])
    X, y = _encoded(model, given.X, given.y)
    X_val, y_val = (
        (None, None) if given.X_val is None else _encoded(model, given.X_val, given.y_val)
    )
    names = tuple(map(str, getattr(model, "classes_", ())))
    return Own(model.network_, X, y, X_val, y_val, names)


def _encoded(model: Any, X: Any, y: Any) -> tuple[Any, Any]:
    """Return rows and targets as the first network of a tabular estimator takes them."""
    rows = model._rows(X, y, None)
    encoded = model._read_targets(rows, model._known_targets()).encoded
    scale = model._members[0].scale
    return model.encoder_.transform(rows.X), encoded if scale is None else scale.to_network(encoded)
