"""Models for scikit-learn, which is imported when they are made, and estimators from there."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.estimators.classifier import MLPClassifier
from cmlp.estimators.mlp import MLP
from cmlp.estimators.protocols import label_binarizer
from cmlp.estimators.regressor import MLPRegressor
from cmlp.exchange.chains import SCALERS, chain_of
from cmlp.exchange.ensembles import ensemble_of
from cmlp.exchange.networks import network_of
from cmlp.formats.building import joined
from cmlp.formats.chain import Activation, Chain, ConversionError, LayerNorm, Member

HIDDEN = ("identity", "logistic", "tanh", "relu")
"""What scikit-learn has for hidden layers."""

ELSEWHERE = "; to_torch and to_onnx have it"

TAKEN = (
    "MLPClassifier, MLPRegressor, LogisticRegression, LinearRegression, Ridge, the mean of some of "
    "them (VotingClassifier, VotingRegressor), or a Pipeline of "
    + ", ".join(SCALERS)
    + " and one of the first five"
)


def to_sklearn(model: Any) -> Any:
    """Return a model as a fitted one of scikit-learn's own classes.

    Parameters
    ----------
    model : Network, estimator, or Pipeline of scikit-learn
        With hidden activations of one kind, 'identity', 'logistic', 'tanh' or 'relu', and without
        layer normalisation and ``inputs=...``; batch normalisation is folded.

    Returns
    -------
    MLPClassifier or MLPRegressor
        It predicts, trains on by ``partial_fit``, and can be cloned, pickled and converted.
        Weights are copies in the network's number type; two outputs with softmax become one with
        logistic, as scikit-learn has it, and labels are sorted. Parameters of the estimator that
        scikit-learn's class has, too, are kept where it accepts them. An ensemble becomes a
        VotingClassifier or VotingRegressor, a pipeline's scaler a StandardScaler that subtracts
        the means, in a Pipeline.

    Raises
    ------
    ConversionError
        Naming the part that scikit-learn does not have.
    ImportError
        Without scikit-learn.

    Examples
    --------
    >>> import cmlp
    >>> clf = cmlp.to_sklearn(cmlp.Network([4, 8, 3], seed=0))  # doctest: +SKIP
    >>> clf.classes_  # doctest: +SKIP
    array([0, 1, 2])
    """
    from sklearn.pipeline import make_pipeline

    chain = chain_of(model)
    steps = getattr(model, "steps", None)
    source = steps[-1][1] if isinstance(steps, list) and steps else model
    fitted = list(getattr(source, "estimators_", [source]))
    if len(fitted) != len(chain.members):  # of an estimator for tables
        fitted = [None] * len(chain.members)
    several = len(chain.members) > 1
    classes = _classes(chain, np.arange(_n_classes(chain)) if several else None)
    made = [
        _estimator(chain, member, one, classes)
        for member, one in zip(chain.members, fitted, strict=True)
    ]
    whole = _voting(chain, made) if several else made[0]
    if chain.mean is None:
        return whole
    return make_pipeline(_subtracting(chain), whole)


# One network -------------------------------------------------------------------------------------


def _n_classes(chain: Chain) -> int:
    return 0 if chain.classes is None else len(chain.classes)


def _classes(chain: Chain, names: Array | None) -> Array | None:
    """Return the labels of a classifier, in its outputs' order; `names` replace them."""
    if chain.head == "numbers":
        return None
    if chain.head == "labels":
        return np.arange(chain.n_out)
    if chain.classes is None:
        raise ConversionError("this network has outputs for classes, but no labels")
    if chain.classes.dtype.kind == "S":
        raise ConversionError("scikit-learn has no labels of bytes: decode them first")
    return chain.classes if names is None else np.argsort(np.argsort(chain.classes))


def _weights(
    chain: Chain, member: Member, classes: Array | None
) -> tuple[list[Array], list[Array], Array | None]:
    """Return weights, biases and sorted labels, as scikit-learn has them."""
    coefs = [np.array(step.weights) for step in member.affine]
    biases = [
        np.zeros(step.weights.shape[1], step.weights.dtype)
        if step.bias is None
        else np.array(step.bias)
        for step in member.affine
    ]
    if classes is None or chain.head == "labels":
        return coefs, biases, classes
    order = np.argsort(classes)
    if chain.head == "softmax" and len(order) == 2:
        first, second = order
        for arrays in (coefs, biases):
            last = arrays[-1].astype(np.float64)
            arrays[-1] = (last[..., [second]] - last[..., [first]]).astype(chain.dtype)
    elif chain.head == "softmax":
        coefs[-1], biases[-1] = coefs[-1][:, order], biases[-1][order]
    elif len(order) == 2 and order[0] == 1:  # the output is of the label that comes first
        coefs[-1], biases[-1] = -coefs[-1], -biases[-1]
    return coefs, biases, classes[order]


def _check_member(member: Member, head: str) -> str:
    """Return the activation of the hidden layers, if scikit-learn has all of the network."""
    if member.front:
        raise ConversionError(
            "scikit-learn has no inputs=... of a network (tables, periodic features): use to_onnx, "
            "to_c, to_python or to_javascript"
        )
    if member.unit is not None:
        raise ConversionError("scikit-learn has no unit of the targets" + ELSEWHERE)
    for step in member.steps:
        if isinstance(step, LayerNorm):
            raise ConversionError("scikit-learn has no layer normalisation" + ELSEWHERE)
        if isinstance(step, Activation) and step.alphas is not None:
            raise ConversionError("scikit-learn has no parametric activations" + ELSEWHERE)
    *hidden, out = [step.name for step in member.steps if isinstance(step, Activation)]
    for number, name in enumerate(hidden, 1):
        if name not in HIDDEN:
            raise ConversionError(
                f"hidden layer {number} has {name}, but scikit-learn has {', '.join(HIDDEN)} "
                f"only{ELSEWHERE}"
            )
        if name != hidden[0]:
            raise ConversionError(
                f"hidden layer {number} has {name}, the first has {hidden[0]}, but scikit-learn "
                f"has one activation for all{ELSEWHERE}"
            )
    expected = {"softmax": "softmax", "logistic": "logistic", "labels": "logistic"}.get(head)
    if out not in ((expected,) if expected else ("identity", "exp")):
        raise ConversionError(
            f"the outputs have {out}, but scikit-learn has {expected or 'identity'} there"
            f"{ELSEWHERE}"
        )
    return hidden[0] if hidden else "relu"


def _estimator(chain: Chain, member: Member, source: Any, classes: Array | None) -> Any:
    """Return one fitted estimator."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    activation = _check_member(member, chain.head)
    coefs, biases, labels = _weights(chain, member, classes)
    out = member.steps[-1]
    assert isinstance(out, Activation)
    estimator: Any = MLPRegressor() if labels is None else MLPClassifier()
    if isinstance(source, MLP):
        _copy_parameters(source, estimator)
    sizes = tuple(int(W.shape[1]) for W in coefs[:-1])
    estimator.set_params(hidden_layer_sizes=sizes, activation=activation)
    if labels is None and out.name == "exp":
        if "loss" not in estimator.get_params():
            raise ConversionError(
                "the outputs have exp, but this scikit-learn has identity there; 1.7 has both"
            )
        estimator.set_params(loss="poisson")
    vars(estimator).update(
        coefs_=coefs,
        intercepts_=biases,
        n_layers_=len(coefs) + 1,
        n_outputs_=coefs[-1].shape[1],
        n_features_in_=chain.n_in,
        out_activation_="logistic" if coefs[-1].shape[1] == 1 and labels is not None else out.name,
        _best_coefs=[W.copy() for W in coefs],
        _best_intercepts=[b.copy() for b in biases],
        **_record(source, estimator),
    )
    if labels is not None:
        estimator._label_binarizer = label_binarizer(labels, multilabel=chain.head == "labels")
        estimator.classes_ = estimator._label_binarizer.classes_
    _name_features(chain, estimator)
    return estimator


def _copy_parameters(source: Any, estimator: Any) -> None:
    """Give an estimator the parameters of ours that its class has and accepts."""
    defaults = estimator.get_params()
    ours = source.get_params()
    for name in sorted(defaults.keys() & ours.keys() - {"activation", "hidden_layer_sizes"}):
        if name == "loss" and ours[name] not in ("squared_error", "poisson"):
            continue
        estimator.set_params(**{name: ours[name]})
        try:
            estimator._validate_params()
        except ValueError:
            estimator.set_params(**{name: defaults[name]})


def _record(source: Any, estimator: Any) -> dict[str, Any]:
    """Return what a fit leaves apart from the weights: that of ours, or nothing yet."""
    from sklearn.utils import check_random_state

    history = getattr(source, "history_", getattr(source, "history", None)) or {}
    curve = list(getattr(source, "loss_curve_", None) or history.get("loss", []))
    early = bool(estimator.early_stopping)
    best = getattr(source, "best_loss_", None)
    scores = getattr(source, "validation_scores_", None)
    best_score = getattr(source, "best_validation_score_", None)
    return {
        "n_iter_": int(getattr(source, "n_iter_", len(curve))),
        "t_": int(getattr(source, "t_", 0)),
        "loss_": float(getattr(source, "loss_", curve[-1] if curve else np.nan)),
        "loss_curve_": curve,
        "best_loss_": None if early else min(curve, default=np.inf) if best is None else best,
        "validation_scores_": list(scores or []) if early else None,
        "best_validation_score_": (-np.inf if best_score is None else best_score)
        if early
        else None,
        "_no_improvement_count": 0,
        "_random_state": check_random_state(estimator.random_state),
    }


def _name_features(chain: Chain, estimator: Any) -> None:
    if chain.feature_names is not None:
        estimator.feature_names_in_ = np.array(chain.feature_names, dtype=object)


# Several, and scalers ----------------------------------------------------------------------------


def _voting(chain: Chain, made: list[Any]) -> Any:
    """Return what predicts the mean of the members."""
    from sklearn.ensemble import VotingClassifier, VotingRegressor
    from sklearn.preprocessing import LabelEncoder
    from sklearn.utils import Bunch

    if chain.head == "labels" or (chain.head == "numbers" and chain.n_out > 1):
        raise ConversionError(
            "scikit-learn's voting has no several outputs or labels a row: convert each of "
            "estimators_, or use to_torch"
        )
    named = [(f"member_{number}", each) for number, each in enumerate(made)]
    if chain.head == "numbers":
        voting: Any = VotingRegressor(named)
    else:
        voting = VotingClassifier(named, voting="soft")
        voting.le_ = LabelEncoder().fit(chain.classes)
        voting.classes_ = voting.le_.classes_
    voting.estimators_ = [each for _, each in named]
    voting.named_estimators_ = Bunch(**dict(named))
    _name_features(chain, voting)
    return voting


def _subtracting(chain: Chain) -> Any:
    """Return the scaler that subtracts the means of the columns."""
    from sklearn.preprocessing import StandardScaler

    assert chain.mean is not None
    scaler = StandardScaler(with_std=False)
    vars(scaler).update(
        mean_=np.array(chain.mean),
        var_=None,
        scale_=None,
        n_features_in_=chain.n_in,
        n_samples_seen_=1,
    )
    _name_features(chain, scaler)
    return scaler


# In -----------------------------------------------------------------------------------------------


def from_sklearn(estimator: Any) -> Any:
    """Return the estimator that a fitted one of scikit-learn is.

    Parameters
    ----------
    estimator : fitted estimator
        MLPClassifier, MLPRegressor, LogisticRegression, LinearRegression, Ridge, a
        VotingClassifier or VotingRegressor of these that predicts their mean, or a Pipeline of
        scalers (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler) and one of the first
        five, which is then folded into the weights: the result takes rows as the pipeline does.

    Returns
    -------
    MLPClassifier or MLPRegressor
        With the same weights, labels and parameters: float64 if the weights are, so
        ``partial_fit`` continues from them (the moments of 'adam' begin anew). A linear model
        becomes a network without a hidden layer, with default parameters; of several estimators
        one with their networks in `estimators_`.

    Raises
    ------
    ConversionError
        If it is another class, not fitted, or has a part that cmlp does not have.

    Examples
    --------
    >>> import cmlp
    >>> from sklearn.neural_network import MLPClassifier  # doctest: +SKIP
    >>> clf = cmlp.from_sklearn(MLPClassifier().fit(X, y))  # doctest: +SKIP
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
    if kind in ("VotingClassifier", "VotingRegressor"):
        return _of_voting(estimator)
    raise ConversionError(f"expected {TAKEN}, not {kind}")


def _of_voting(theirs: Any) -> Any:
    """Return the ensemble that predicts the mean of several estimators."""
    kind = type(theirs).__name__
    if not hasattr(theirs, "estimators_"):
        raise ConversionError(f"this {kind} is not fitted: call fit first")
    if theirs.weights is not None or getattr(theirs, "voting", "soft") != "soft":
        raise ConversionError(
            f"this {kind} has weights, or counts votes (voting='hard'), but cmlp predicts the mean"
        )
    members = [from_sklearn(each) for each in theirs.estimators_]
    names = getattr(theirs, "feature_names_in_", None)
    chain = joined(
        [chain_of(each) for each in members],
        classes=getattr(theirs, "classes_", None),
        feature_names=None if names is None else tuple(map(str, names)),
    )
    return ensemble_of(chain, parameters=members[0].get_params(deep=False))


def _of_pipeline(steps: list[tuple[str, Any]]) -> Any:
    """Return the estimator of a pipeline, its scalers in the first layer."""
    last = from_sklearn(steps[-1][1])
    used = [step for step in steps[:-1] if step[1] not in (None, "passthrough")]
    if not used:
        return last
    last.set_params(dtype="float64")
    members = getattr(last, "estimators_", [last])
    for each in members:
        each.network_ = each.network_.astype(np.float64)
    chain = chain_of(SimpleNamespace(steps=[*used, (steps[-1][0], last)]))
    names = getattr(used[0][1], "feature_names_in_", None)
    if len(members) > 1:
        chain = replace(chain, feature_names=None if names is None else tuple(map(str, names)))
        return ensemble_of(chain, parameters=members[0].get_params(deep=False))
    net = network_of(replace(chain, classes=None), "squared_error")
    _assign(last, net.weights, net.biases)
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
