"""What programs write into an estimator: weights, labels, an output activation."""

import copy
import pickle

import numpy as np
import pytest
from helpers import blobs, data_for, fit_quietly, refused, waves

from cmlp import MLPClassifier, MLPRegressor

BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def answers(estimator, X):
    asks = estimator.predict_proba if isinstance(estimator, MLPClassifier) else estimator.predict
    return asks(X)


def written(fitted, **params):
    """An estimator that was never fitted, with another one's weights."""
    other = type(fitted)(**params)
    other.coefs_ = [W.tolist() for W in fitted.coefs_]
    other.intercepts_ = [b.tolist() for b in fitted.intercepts_]
    if isinstance(fitted, MLPClassifier):
        other.classes_ = fitted.classes_
    return other


# Weights -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("params", [{}, {"hidden_layer_sizes": (4,)}])
def test_weights_make_a_network_without_fit(kind, params):
    X, y = data_for(kind)
    fitted = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2), X, y)
    other = written(fitted, **params)
    assert other.__sklearn_is_fitted__()
    for same in (pickle.loads(pickle.dumps(other)), copy.deepcopy(other), other):
        np.testing.assert_allclose(answers(same, X), answers(fitted, X), **TOLERANCE)
    assert other.score(X, y) == pytest.approx(fitted.score(X, y))
    for name in ("n_layers_", "n_outputs_", "n_features_in_", "out_activation_"):
        assert getattr(other, name) == getattr(fitted, name)
    with refused(ValueError, "is expecting 3 features"):
        other.predict(X[:, :2])


def test_labels_that_nobody_gave_are_numbers():
    X, y = blobs(n_classes=2)
    fitted = fit_quietly(MLPClassifier((4,), random_state=0), X, np.array(["no", "yes"])[y])
    text, unnamed = fitted.predict(X), MLPClassifier()
    np.testing.assert_array_equal(written(fitted).predict(X), text)
    unnamed.coefs_, unnamed.intercepts_ = fitted.coefs_, fitted.intercepts_
    np.testing.assert_array_equal(unnamed.predict(X), (text == "yes").astype(int))
    with refused(AttributeError, "no attribute 'classes_'"):
        unnamed.classes_  # noqa: B018
    unnamed.set_params(hidden_layer_sizes=(4,), warm_start=True)
    fit_quietly(unnamed, X, text)
    assert unnamed.classes_.tolist() == unnamed.network_.classes.tolist() == ["no", "yes"]


def test_two_classes_may_have_an_output_each():
    X = blobs()[0]
    clf = MLPClassifier()
    clf.coefs_, clf.intercepts_ = [np.eye(3)[:, :2]], [np.zeros(2)]
    expected = np.exp(X[:, :2]) / np.exp(X[:, :2]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(X), expected, **TOLERANCE)
    np.testing.assert_array_equal(clf.predict(X), (X[:, 1] > X[:, 0]).astype(int))


@BOTH
def test_lists_of_weights_are_filled_one_by_one(kind):
    estimator = kind(activation="tanh")
    estimator.coefs_, estimator.intercepts_ = [0] * 2, []
    estimator.coefs_[0] = np.ones((3, 2))
    estimator.coefs_[1] = np.ones((2, 1))
    estimator.intercepts_.extend([np.zeros((2,)), np.zeros(1)])
    X = waves()[0]
    z = 2 * np.tanh(X.sum(axis=1))
    expected = z if kind is MLPRegressor else 1 / (1 + np.exp(-z))
    answer = answers(estimator, X)
    np.testing.assert_allclose(answer[:, 1] if answer.ndim == 2 else answer, expected, **TOLERANCE)


@BOTH
@pytest.mark.parametrize("coefs, intercepts", [
    ([np.ones((3, 2)), np.ones((3, 1))], [np.ones(2), np.ones(1)]),
    ([np.ones((3, 2))], [np.ones(3)]),
    ([np.ones((3, 2))], [np.ones(2), np.ones(2)]),
    ([0, 0], [np.ones(1), np.ones(1)]),
    ([], []),
])  # fmt: skip
def test_weights_that_do_not_fit_each_other(kind, coefs, intercepts):
    estimator = kind()
    estimator.coefs_, estimator.intercepts_ = coefs, intercepts
    shapes = [np.shape(W) for W in coefs]
    with refused(ValueError, "coefs_ needs an array (n_in, n_out) per layer", str(shapes)):
        estimator.predict(np.ones((1, 3)))


def test_weights_that_do_not_fit_the_labels():
    clf = MLPClassifier()
    clf.coefs_, clf.intercepts_, clf.classes_ = [np.ones((3, 4))], [np.ones(4)], ["a", "b"]
    with refused(ValueError, "the last layer of coefs_ has 4 outputs, but classes_ has 2 labels"):
        clf.predict(np.ones((1, 3)))


@BOTH
def test_weights_of_other_shapes(kind):
    X, y = data_for(kind)
    estimator = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2), X, y)
    pruned = copy.deepcopy(estimator)
    pruned.coefs_ = [estimator.coefs_[0][:, :2], estimator.coefs_[1][:2]]
    with refused(ValueError, "intercepts_ one of (n_out,)"):
        pruned.predict(X)
    pruned.intercepts_ = [estimator.intercepts_[0][:2], estimator.intercepts_[1]]
    estimator.coefs_[1][2:] = 0
    np.testing.assert_allclose(answers(pruned, X), answers(estimator, X), **TOLERANCE)


@BOTH
def test_weights_that_were_there_before_can_be_brought_back(kind):
    X, y = data_for(kind)
    estimator = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2), X, y)
    before, coefs, intercepts = answers(estimator, X), estimator.coefs_, estimator.intercepts_
    estimator.coefs_ = [0 * W for W in coefs]
    estimator.intercepts_ = [0 * b.reshape(1, -1) for b in intercepts]
    assert (answers(estimator, X) != before).any()
    estimator.coefs_, estimator.intercepts_ = coefs, intercepts
    np.testing.assert_array_equal(answers(estimator, X), before)


@BOTH
def test_a_shallow_copy_has_weights_of_its_own(kind):
    X, y = data_for(kind)
    parent = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2), X, y)
    before, child = answers(parent, X), copy.copy(parent)
    child.coefs_ = [0 * W for W in child.coefs_]
    child.intercepts_[1] = 0 * child.intercepts_[1]
    np.testing.assert_array_equal(answers(parent, X), before)
    assert (answers(child, X) != before).any()
    assert copy.copy(kind(alpha=2)).alpha == 2


@BOTH
def test_given_weights_go_on_learning(kind):
    X, y = data_for(kind)
    params = {"hidden_layer_sizes": (4,), "solver": "sgd", "shuffle": False, "dtype": "float64"}
    fitted = fit_quietly(kind(max_iter=2, random_state=0, **params), X, y)
    curves = []
    for asks in (False, True):
        other = written(fitted, random_state=0, **params)
        if asks:
            answers(other, X)
        for _ in range(3):
            other.partial_fit(X, y)
        curves.append(other.loss_curve_)
        assert other.n_iter_ == 1 and other.t_ == 3 * len(X)
    assert curves[0] == curves[1] and curves[0][0] < fitted.loss_curve_[0]
    again = written(fitted, warm_start=True, max_iter=3, **params)
    answers(again, X)
    assert fit_quietly(again, X, y).loss_curve_ == curves[0]


def test_curves_that_were_emptied_are_gone_on_with():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier(max_iter=2, warm_start=True, random_state=0), X, y)
    clf.loss_curve_, clf.validation_scores_, clf.best_validation_score_ = [], [], -np.inf
    fit_quietly(clf.set_params(early_stopping=True, max_iter=5), X, y)
    assert [len(clf.loss_curve_), len(clf.validation_scores_)] == [5, 5]
    assert len(clf.validation_loss_curve_) == 5


# Activation of the outputs -----------------------------------------------------------------------


def test_another_output_activation_predicts():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier((4,), max_iter=5), X, y)
    before, z = clf.predict_proba(X), clf.decision_function(X)
    clf.out_activation_ = "identity"
    for same in (clf, copy.deepcopy(clf), pickle.loads(pickle.dumps(clf))):
        assert same.out_activation_ == "identity"
        np.testing.assert_allclose(same.predict_proba(X), z, **TOLERANCE)
    with refused(ValueError, "categorical_crossentropy needs outputs between 0 and 1"):
        clf.partial_fit(X, y)
    clf.out_activation_ = "softmax"
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    with refused(ValueError, "Unknown out_activation_ 'soft'"):
        clf.out_activation_ = "soft"


def test_another_output_activation_of_an_ensemble():
    X, y = waves()
    model = fit_quietly(MLPRegressor(n_ensemble=2, max_iter=2), X, y[:, 0])
    z = np.array([member.predict(X) for member in model.estimators_])
    assert model.out_activation_ == "identity"
    model.out_activation_ = "logistic"
    expected = np.mean(1 / (1 + np.exp(-z)), axis=0)
    np.testing.assert_allclose(model.predict(X), expected, **TOLERANCE)
    assert [member.out_activation_ for member in model.estimators_] == ["logistic"] * 2


@BOTH
def test_an_output_activation_before_fit(kind):
    X, y = data_for(kind)
    estimator = kind(max_iter=2)
    with refused(AttributeError, "'out_activation_': it is not fitted"):
        estimator.out_activation_  # noqa: B018
    estimator.out_activation_ = "sigmoid"
    assert estimator.out_activation_ == "sigmoid" and not estimator.__sklearn_is_fitted__()
    fit_quietly(estimator, X, y)
    assert estimator.out_activation_ == ("softmax" if kind is MLPClassifier else "identity")
    other = kind()
    other.coefs_, other.intercepts_ = [np.ones((3, 1))], [np.zeros(1)]
    other.out_activation_ = "tanh"
    answer = answers(other, X)
    expected = np.tanh(X.sum(axis=1))
    np.testing.assert_allclose(answer[:, 1] if answer.ndim == 2 else answer, expected, **TOLERANCE)


# Labels ------------------------------------------------------------------------------------------


def test_labels_are_renamed():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier(max_iter=50, random_state=0), X, y)
    numbers = clf.predict(X)
    clf.classes_ = ["a", "b", "c"]
    assert clf.classes_.tolist() == clf.network_.classes.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(clf.predict(X), np.array(["a", "b", "c"])[numbers])
    clf.partial_fit(X, np.array(["a", "b", "c"])[y])


# Layers ------------------------------------------------------------------------------------------


@BOTH
def test_the_forward_pass_that_programs_know(kind):
    X, y = data_for(kind)
    estimator = fit_quietly(kind(hidden_layer_sizes=(5, 4), max_iter=2), X, y)
    activations = [X[:7], *(np.empty((7, n)) for n in (5, 4, estimator.n_outputs_))]
    assert estimator._forward_pass(activations) is activations
    for number in (0, 1):
        np.testing.assert_array_equal(activations[1 + number], estimator.transform(X[:7], number))
    outputs = estimator._forward_pass_fast(X[:7].tolist())
    assert outputs.shape == (7, estimator.n_outputs_)
    np.testing.assert_allclose(outputs, activations[3], **TOLERANCE)
    np.testing.assert_array_equal(estimator._forward_pass_fast(X[:7], check_input=False), outputs)


# Subclasses --------------------------------------------------------------------------------------


@BOTH
def test_a_subclass_whose_methods_are_never_called(kind):
    class Mixin:
        def _init_coef(self, fan_in, fan_out, dtype):
            raise AssertionError

    with pytest.warns(UserWarning, match="Mixed has _init_coef, but training never calls it"):

        class Mixed(Mixin, kind):
            pass

    with pytest.warns(UserWarning, match="Own has _backprop, _forward_pass, but") as seen:

        class Own(kind):
            def _forward_pass(self, activations):
                raise AssertionError

            def _backprop(self, *arguments):
                raise AssertionError

    assert [warning.filename for warning in seen] == [__file__]
    fit_quietly(Mixed(max_iter=1), *data_for(kind))


@BOTH
@pytest.mark.filterwarnings("error")
def test_a_subclass_of_its_own(kind):
    class Narrow(kind):
        def __init__(self, width=4, **more):
            super().__init__(hidden_layer_sizes=(width,), **more)
            self.width = width

        def fit(self, X, y):
            return super().fit(X, y)

    narrow = fit_quietly(Narrow(3, max_iter=2), *data_for(kind))
    assert narrow.coefs_[0].shape[1] == 3 and narrow.get_params() == {"width": 3}
