"""Estimators from scikit-learn's, which train on from there."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.estimators.chains import SCALERS, chain_of
from cmlp.estimators.classifier import MLPClassifier
from cmlp.estimators.entering import network_of
from cmlp.estimators.regressor import MLPRegressor
from cmlp.formats.chain import ConversionError

TAKEN = (
    "MLPClassifier, MLPRegressor, LogisticRegression, LinearRegression, Ridge, or a Pipeline of "
    + ", ".join(SCALERS)
    + " and one of these"
)


def from_sklearn(estimator: Any) -> Any:
    """Return the estimator that a fitted one of scikit-learn is.

    Parameters
    ----------
    estimator : fitted estimator
        MLPClassifier, MLPRegressor, LogisticRegression, LinearRegression, Ridge, or a Pipeline of
        scalers (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler) and one of these, which
        is then folded into the weights: the result takes rows as the pipeline does.

    Returns
    -------
    MLPClassifier or MLPRegressor
        With the same weights, labels and parameters: float64 if the weights are, so
        ``partial_fit`` continues from them (the moments of 'adam' begin anew). A linear model
        becomes a network without a hidden layer, with default parameters.

    Raises
    ------
    ConversionError
        If it is another class, not fitted, or has a part that cmlp does not have.

    Examples
    --------
    >>> from cmlp.estimators.entry_sklearn import from_sklearn
    >>> from sklearn.neural_network import MLPClassifier  # doctest: +SKIP
    >>> clf = from_sklearn(MLPClassifier().fit(X, y))  # doctest: +SKIP
    """
    steps = getattr(estimator, "steps", None)
    if isinstance(steps, list) and steps:
        return _of_pipeline(steps)
    kind = type(estimator).__name__
    if not type(estimator).__module__.startswith("sklearn."):
        raise ConversionError(f"expected {TAKEN}, not {kind} of {type(estimator).__module__}")
    if kind in ("MLPClassifier", "MLPRegressor"):
        return _of_mlp(estimator)
    if kind in ("LogisticRegression", "LinearRegression", "Ridge"):
        return _of_linear(estimator)
    raise ConversionError(f"expected {TAKEN}, not {kind}")


def _of_pipeline(steps: list[tuple[str, Any]]) -> Any:
    """Return the estimator of a pipeline, its scalers in the first layer."""
    last = from_sklearn(steps[-1][1])
    used = [step for step in steps[:-1] if step[1] not in (None, "passthrough")]
    if not used:
        return last
    last.set_params(dtype="float64")
    wide = last.network_.astype(np.float64)
    last.network_ = wide
    chain = replace(chain_of(SimpleNamespace(steps=[*used, (steps[-1][0], last)])), classes=None)
    net = network_of(chain, "squared_error")
    _assign(last, net.weights, net.biases)
    names = getattr(used[0][1], "feature_names_in_", None)
    if names is not None:
        last.feature_names_in_ = names
    return last


def _dtype_of(arrays: list[Array]) -> str:
    return "float32" if all(np.asarray(a).dtype == np.float32 for a in arrays) else "float64"


def _assign(ours: Any, coefs: list[Array], intercepts: list[Array]) -> None:
    """Write weights, of which the estimator makes its network."""
    ours.coefs_ = [np.array(W) for W in coefs]
    ours.intercepts_ = [np.array(b) for b in intercepts]
    ours._check_is_fitted()


def _of_mlp(theirs: Any) -> Any:
    kind = type(theirs).__name__
    if not hasattr(theirs, "coefs_"):
        raise ConversionError(f"this {kind} is not fitted: call fit first")
    parameters = theirs.get_params()
    classifies = kind == "MLPClassifier"
    made: Any = MLPClassifier() if classifies else MLPRegressor()
    shared = made.get_params().keys() & parameters.keys()
    made.set_params(
        **{name: parameters[name] for name in shared},
        dtype=_dtype_of(theirs.coefs_),
    )
    if classifies:
        made._label_binarizer = theirs._label_binarizer
    _assign(made, theirs.coefs_, theirs.intercepts_)
    if made.out_activation_ != theirs.out_activation_:
        made.out_activation_ = theirs.out_activation_
    names = getattr(theirs, "feature_names_in_", None)
    if names is not None:
        made.feature_names_in_ = names
    made.n_iter_, made.t_ = int(theirs.n_iter_), int(theirs.t_)
    for name in ("loss_", "loss_curve_", "best_loss_", "validation_scores_",
                 "best_validation_score_"):  # fmt: skip
        if hasattr(theirs, name):
            value = getattr(theirs, name)
            setattr(made, name, list(value) if isinstance(value, list) else value)
    return made


def _of_linear(theirs: Any) -> Any:
    """Return a network without a hidden layer."""
    kind = type(theirs).__name__
    if not hasattr(theirs, "coef_"):
        raise ConversionError(f"this {kind} is not fitted: call fit first")
    W = np.atleast_2d(np.asarray(theirs.coef_)).T
    if W.dtype.kind != "f":
        raise ConversionError(f"this {kind} has sparse coefficients: call densify first")
    b = np.broadcast_to(np.asarray(theirs.intercept_, W.dtype).reshape(-1), W.shape[1])
    dtype = _dtype_of([W])
    if kind == "LogisticRegression":
        made: Any = MLPClassifier((), dtype=dtype)
        n = len(theirs.classes_)
        rule = getattr(theirs, "multi_class", "auto")
        if n > 2 and (rule == "ovr" or theirs.solver == "liblinear"):
            raise ConversionError(
                "this LogisticRegression has a logistic output per class, divided by their sum "
                "(multi_class='ovr'), but cmlp has softmax"
            )
        if n == 2 and rule == "multinomial":  # softmax of z and -z
            W, b = 2 * W, 2 * b
        made.classes_ = theirs.classes_
    else:
        made = MLPRegressor(hidden_layer_sizes=(), dtype=dtype)
    _assign(made, [W], [b])
    names = getattr(theirs, "feature_names_in_", None)
    if names is not None:
        made.feature_names_in_ = names
    return made
