"""`add_classes`: a fitted classifier gets outputs for labels that come later."""

import pickle
import warnings

import numpy as np
import pytest
from helpers import blobs, covering, refused

import cmlp
from cmlp import MLPClassifier
from cmlp.model.parameters import Parameters

LETTERS = np.array(["b", "d", "f"])
PARAMS = {"hidden_layer_sizes": (16,), "random_state": 0, "learning_rate_init": 0.02}


def fitted(n_classes, epochs=20, **more):
    X, y = blobs(90, n_classes=3)
    rows = y < n_classes
    clf = MLPClassifier(**PARAMS | more)
    for _ in range(epochs):
        clf.partial_fit(X[rows], LETTERS[y[rows]], classes=LETTERS[:n_classes])
    return clf, X, LETTERS[y]


CHANGES = [
    {},
    {"ema": 0.9},
    {"normalization": "batch"},
    {"hidden_layer_sizes": (), "dtype": "float64"},
]


@pytest.mark.parametrize(
    "n_classes, solver, more", covering([2, 3], ["sgd", "adam", "nadam", "lion"], CHANGES)
)
def test_no_prediction_changes_and_the_new_is_learned(engine, n_classes, solver, more):
    clf, X, y = fitted(n_classes, 8, solver=solver, **more | {"learning_rate_init": 0.05})
    P, predicted = clf.predict_proba(X), clf.predict(X)
    assert clf.add_classes(["e", "a", "b"]) is clf
    assert clf.classes_.tolist() == sorted({*LETTERS[:n_classes], "e", "a"})
    Q = clf.predict_proba(X)
    old = np.searchsorted(clf.classes_, LETTERS[:n_classes])
    assert Q.shape == (90, n_classes + 2)
    np.testing.assert_allclose(Q[:, old] / Q[:, old].sum(axis=1, keepdims=True), P, atol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), predicted)
    assert (clf.n_outputs_, clf.out_activation_) == (n_classes + 2, "softmax")
    assert clf.network_.classes.tolist() == clf.classes_.tolist()
    y = np.where(y == "f", "e", y)
    for _ in range(25):
        clf.partial_fit(X, y)
    assert clf.score(X, y) > 0.95 and len(clf.loss_curve_) == 33


def test_what_is_old_stays_to_the_bit():
    clf, X, _ = fitted(3, solver="adam", ema=0.9)
    before = pickle.loads(pickle.dumps(clf)).network_
    net = clf.add_classes("e").network_
    old = [0, 1, 3]
    np.testing.assert_array_equal(net.weights[0], before.weights[0])
    np.testing.assert_array_equal(net.biases[0], before.biases[0])
    np.testing.assert_array_equal(net.weights[1][:, old], before.weights[1])
    np.testing.assert_array_equal(net.biases[1][old], before.biases[1])
    np.testing.assert_allclose(net.weights[1][:, 2], before.weights[1].mean(axis=1), rtol=1e-6)
    for number, (mine, theirs) in enumerate(zip(net.moments, before.moments, strict=True)):
        parts = Parameters(net.plan, mine)
        W, b = parts.weights, parts.biases
        parts = Parameters(before.plan, theirs)
        V, c = parts.weights, parts.biases
        np.testing.assert_array_equal(W[0], V[0])
        np.testing.assert_array_equal(W[1][:, old], V[1])
        np.testing.assert_array_equal(b[1][old], c[1])
        expected = V[1].mean(axis=1) if number == 2 else np.zeros(16)  # 2: the weights that move
        np.testing.assert_allclose(W[1][:, 2], expected, rtol=1e-6)
    assert (net.steps, net.averaged, net.solver) == (before.steps, before.averaged, "adam")
    assert clf.history_ is net.history and clf.history_["loss"] == clf.loss_curve_
    np.testing.assert_array_equal(net.predict(X), clf.predict_proba(X.astype(np.float32)))


def test_the_mean_goes_on_from_the_weights_that_move():
    clf, X, y = fitted(3, ema=0.9)
    clf.add_classes("e").partial_fit(X, y)
    assert clf.network_.averaged == clf.network_.steps == 21
    clf, X, y = fitted(3, ema=0.9)
    clf.coefs_[0][:] = 0.1  # what someone wrote is no mean
    clf.add_classes("e").partial_fit(X, y)
    assert clf.network_.averaged == 1


def test_labels_that_are_known_change_nothing():
    clf, *_ = fitted(2)
    net = clf.network_
    assert clf.add_classes(["b", "d"]).add_classes([]).network_ is net


def test_an_ensemble_grows():
    clf, X, y = fitted(2, n_ensemble=2)
    predicted = clf.predict(X)
    np.testing.assert_array_equal(clf.add_classes("f").predict(X), predicted)
    for _ in range(60):
        clf.partial_fit(X, y)
    assert clf.score(X, y) > 0.95 and clf.n_outputs_ == 3
    assert [member.classes_.tolist() for member in clf.estimators_] == [["b", "d", "f"]] * 2


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_fit_goes_on_with_the_new(solver):
    X, y = blobs(90)
    clf = MLPClassifier(**PARAMS, solver=solver, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cmlp.ConvergenceWarning)
        clf.fit(X[y > 0], y[y > 0]).add_classes(0).fit(X, y)
    assert clf.classes_.tolist() == [0, 1, 2] and clf.score(X, y) > 0.95


def test_what_is_refused():
    X, y = blobs()
    with refused(cmlp.NotFittedError, "not fitted yet"):
        MLPClassifier().add_classes([1])
    clf = MLPClassifier(**PARAMS).partial_fit(X, y, classes=[0, 1, 2])
    with refused(ValueError, "labels must be of the type of those before, [0 1 2]"):
        clf.add_classes(["three"])
    with refused(ValueError, "Unknown label type: continuous"):
        clf.add_classes([0.5])
    with refused(ValueError, "one label per row", "y with more columns"):
        MLPClassifier(**PARAMS).partial_fit(X, np.eye(3)[y], classes=[0, 1, 2]).add_classes([3])
    with refused(ValueError, "knows one class, [1]"):
        MLPClassifier(**PARAMS).partial_fit(X, y * 0 + 1, classes=[1]).add_classes([3])
    two = MLPClassifier(**PARAMS, out_activation="logistic").partial_fit(X, y > 1, classes=[0, 1])
    with refused(ValueError, "out_activation is 'logistic'; leave it None"):
        two.add_classes([3])
