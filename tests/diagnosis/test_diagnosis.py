"""diagnose: every finding with a case that has it and one that has not; silence on healthy fits.

What takes long runs on one core: findings follow from numbers that all cores give alike.
"""

import doctest
import inspect
import io
import json
import pickle
import re
import warnings

import numpy as np
import pytest
from helpers import blobs, python_output, squared_error, waves

import cmlp
from cmlp.diagnosis import examinations, of_curve, of_data, of_fit, of_units, report
from cmlp.formats import training_records
from cmlp.model import history

DIGITS = cmlp.load_digits()
PIXELS, LABELS = DIGITS.X_train / 16, DIGITS.y_train
PIXELS_VAL, LABELS_VAL = DIGITS.X_test / 16, DIGITS.y_test


def classifier(activation="relu", hidden=(32,), **kwargs):
    return cmlp.Network([64, *hidden, 10], activation, seed=0, **kwargs)


def warned(diagnosed):
    """The codes of errors and warnings."""
    return {finding.code for finding in diagnosed if finding.severity != "note"}


def fitted(net, X, y, **kwargs):
    net.fit(X, y, **{"epochs": 20, "learning_rate": 0.05} | kwargs)
    return net


# Silence -----------------------------------------------------------------------------------------

HEALTHY = {
    "relu": (("relu", (32,)), {}),
    "wide": (("relu", (128,)), {}),
    "deep": (("relu", (32, 32, 32)), {}),
    "deep tanh": (("tanh", (32, 32, 32)), {}),
    "deep logistic": (("logistic", (32, 32, 32)), {}),
    "long": (("relu", (32, 32)), {"epochs": 100, "rows": 1000}),
    "short": (("relu", (32,)), {"epochs": 8}),
    "adam": (("tanh", (64,)), {"solver": "adam", "learning_rate": 0.002}),
    "single rows": (
        ("relu", (32,)),
        {"batch_size": 1, "learning_rate": 0.003, "epochs": 10, "rows": 800},
    ),
    "cosine": (("gelu", (32,)), {"schedule": "cosine"}),
    "dropout": (("relu", (64,)), {"dropout": 0.2, "l2": 1e-4}),
    "patience": (("relu", (64,)), {"patience": 3, "epochs": 60}),
}
SLOW = ("long", "single rows")
"""With few rows and one seed: they have many steps."""


@pytest.mark.parametrize("name, seed", [
    *((name, 0) for name in HEALTHY), *((name, 1) for name in HEALTHY if name not in SLOW)
])  # fmt: skip
def test_healthy_classifiers(name, seed):
    (activation, hidden), how = HEALTHY[name]
    X, y = few(how.get("rows"))
    how = {name: value for name, value in how.items() if name != "rows"}
    net = cmlp.Network([64, *hidden, 10], activation, seed=seed)
    fitted(net, X, y, X_val=PIXELS_VAL, y_val=LABELS_VAL, **how)
    found = cmlp.diagnose(net, X, y, X_val=PIXELS_VAL, y_val=LABELS_VAL)
    assert found and found.ok and not warned(found), str(found)
    assert found.codes == ["constant-columns"]


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile", "custom"])
def test_healthy_regressions(dtype, loss):
    X, y = waves(2000)
    y = y + np.random.default_rng(1).normal(0, 0.1, y.shape)
    loss = squared_error if loss == "custom" else loss
    net = cmlp.Network([3, 32, 32, 1], "tanh", loss=loss, seed=0, dtype=dtype)
    assert not warned(cmlp.diagnose(net, X, y))
    fitted(net, X, y, learning_rate=0.02, validation_fraction=0.2)
    found = cmlp.diagnose(net, X, y, X_val=X[:100], y_val=y[:100])
    assert found.codes == [], str(found)
    assert "Nothing is wrong that can be seen." in str(found)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "gelu", "selu"])
def test_healthy_networks_before_they_are_fitted(dtype, activation):
    for hidden in ((), (16,), (100,), (32, 32, 32)):
        net = cmlp.Network([64, *hidden, 10], activation, seed=0, dtype=dtype)
        assert not warned(cmlp.diagnose(net, PIXELS, LABELS)), hidden


def test_healthy_multi_label_poisson_and_text(engine):
    X, y = blobs(600, 4, 3)
    several = np.stack([y == 0, y > 0, y == 2], axis=1).astype(int)
    net = cmlp.Network([4, 16, 3], loss="binary_crossentropy", seed=0)
    assert not warned(cmlp.diagnose(fitted(net, X / 3, several), X / 3, several))
    names = np.array(["low", "middle", "high"])[y]
    assert not warned(cmlp.diagnose(cmlp.Network([4, 16, 3], seed=0), X / 3, names))
    counts = np.random.default_rng(0).poisson(np.exp(1 + X[:, 0] / 6))
    net = cmlp.Network([4, 16, 1], loss="poisson", seed=0)
    assert not warned(cmlp.diagnose(fitted(net, X / 3, counts, learning_rate=0.01), X / 3, counts))


def test_small_data(engine):
    X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    net = cmlp.Network([2, 8, 1], "tanh", loss="binary_crossentropy", seed=0)
    net.fit(X, y, epochs=200, batch_size=4, learning_rate=0.5)
    assert cmlp.diagnose(net, X, y).codes == []
    assert cmlp.diagnose(net, X[:1], y[:1]).findings is not None


# The data ----------------------------------------------------------------------------------------


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 5))
    return X, (X[:, 0] + X[:, 1] > 0).astype(int)


def look(X, y, **kwargs):
    return cmlp.diagnose(cmlp.Network([X.shape[1], 8, 2], seed=0), X, y, **kwargs)


def test_unscaled_inputs(engine, table):
    X, y = table
    assert look(X, y).codes == []
    for factor, shift, what in ((500, 0, "root mean square 4"), (1e-5, 0, "root mean square"),
                                (5, 2000, "mean 2e+03"), (0.002, 1, "mean 1 ")):  # fmt: skip
        raw = X.copy()
        raw[:, 2] = raw[:, 2] * factor + shift
        finding = look(raw, y)["unscaled-inputs"]
        assert finding.severity == "warning" and finding.names == ("2",)
        assert finding.value == pytest.approx(np.sqrt((raw[:, 2] ** 2).mean()), rel=1e-6)
        assert what in finding.meaning and "mean 0 and deviation 1" in finding.advice


def test_names_of_columns(engine, table):
    pandas = pytest.importorskip("pandas")
    X, y = table
    X = pandas.DataFrame(X * [1, 1, 1, 1, 300], columns=["a", "b", "c", "d", "income"])
    finding = look(X, y)["unscaled-inputs"]
    assert finding.names == ("income",) and "'income'" in finding.meaning
    net = cmlp.Network([5, 8, 2], seed=0)
    net.feature_names = list("vwxyz")
    assert cmlp.diagnose(net, X.to_numpy(), y)["unscaled-inputs"].names == ("z",)


def test_bytes(engine):
    X = (PIXELS * 255).astype(np.uint8)
    finding = cmlp.diagnose(classifier(), X, LABELS)["unscaled-inputs"]
    assert (finding.parameter, finding.suggestion) == ("input_scale", 1 / 255)
    assert not warned(cmlp.diagnose(classifier(input_scale=1 / 255), X, LABELS))


def test_columns_of_zeros_and_ones_are_scaled(engine, table):
    X, y = table
    X[:, 3] = np.arange(1000) % 500 == 0  # mean 0.002
    X[:, 4] = np.arange(1000) % 500 != 0  # mean over deviation 22
    assert look(X, y).codes == []


def test_constant_columns(engine, table):
    X, y = table
    X[:, 1] = 1
    found = look(X, y)
    assert found.codes == ["constant-columns"] and found.ok
    assert found["constant-columns"].names == ("1",)


def test_outliers(engine, table):
    X, y = table
    X[7, 2] = 500
    assert look(X, y)["outliers"].severity == "note"
    X[7, 2] = 1e6
    found = look(X, y)
    assert found["outliers"].severity == "warning" and found["outliers"].value == 1e6
    assert "unscaled-inputs" not in found.codes
    X[7, 2] = 0
    mostly_zero = np.where(np.arange(5000).reshape(X.shape) % 7 < 5, 0.0, X)
    mostly_zero[:, 0] = X[:, 0]
    assert look(mostly_zero, y).codes == []
    mostly_zero[5, 1] = 1e8
    assert look(mostly_zero, y)["outliers"].names == ("1",)
    rng = np.random.default_rng(0)
    tails = np.stack([rng.exponential(size=1000), rng.laplace(size=1000)], axis=1)
    assert look(tails, y).codes == []


def test_missing_values(engine, table):
    X, y = table
    X[3, 1], X[4, 1], X[5, 4] = np.nan, np.inf, np.nan
    found = look(X, y)
    assert found.codes == ["not-finite"] and not found
    assert found["not-finite"].names == ("1", "4") and found["not-finite"].value == 3
    target = np.where(np.arange(1000) == 9, np.nan, X[:, 0])
    found = cmlp.diagnose(cmlp.Network([4, 1]), np.delete(X, 1, 1)[:5], target[5:10])
    assert found["not-finite"].names == ("y",)


def test_class_imbalance(engine):
    X, _ = blobs(2000, 3, 2)
    y = np.array(["no", "yes"])[(np.arange(2000) % 40 == 0).astype(int)]
    finding = look(X / 3, y)["class-imbalance"]
    assert finding.value == pytest.approx(0.975) and finding.names == ("no", "yes")
    assert "97.5%" in finding.meaning and finding.parameter == "sample_weight"
    alone = np.where(np.arange(2000) == 7, "yes", "no")
    assert "right on 99.95%" in look(X / 3, alone)["class-imbalance"].meaning
    even = look(X / 3, y, sample_weight=np.where(y == "yes", 39.0, 1.0))
    assert "class-imbalance" not in even.codes
    assert "class-imbalance" not in look(X / 3, np.arange(2000) % 4 == 0).codes
    one_hot = np.eye(2)[(y == "yes").astype(int)]
    assert look(X / 3, one_hot)["class-imbalance"].value == pytest.approx(0.975)


def test_contradictory_labels(engine):
    X = np.random.default_rng(0).integers(0, 3, (2000, 2)) - 1
    y = X[:, 0] > 0
    assert look(X, y).codes == []
    flipped = y ^ (np.arange(2000) % 5 == 0)
    finding = look(X, flipped)["contradictory-labels"]
    assert finding.value == pytest.approx(0.2, abs=0.01) and "80." in finding.meaning


def test_unscaled_targets(dtype):
    X, y = waves(500)
    net = cmlp.Network([3, 16, 1], seed=0, dtype=dtype)
    assert cmlp.diagnose(net, X, y).codes == []
    found = cmlp.diagnose(net, X, 200 + 50 * y)
    assert found["unscaled-targets"].value == pytest.approx(
        np.sqrt(((200 + 50 * y) ** 2).mean()), rel=1e-3
    )
    assert cmlp.diagnose(net, X, y / 1000)["unscaled-targets"].value < 0.01
    fitted(net, X, 20 + 5 * y, epochs=200, solver="adam")
    assert cmlp.diagnose(net, X, 20 + 5 * y)["unscaled-targets"].severity == "note"


# The network -------------------------------------------------------------------------------------


def test_dead_units(dtype):
    net = fitted(classifier(hidden=(20, 20), dtype=dtype), PIXELS, LABELS)
    assert "dead-units" not in net.diagnose(PIXELS, LABELS).codes
    net.biases[1][:12] = -1000
    finding = net.diagnose(PIXELS, LABELS)["dead-units"]
    assert finding.value == pytest.approx(0.6) and finding.severity == "warning"
    assert finding.names == ("layer 2 (20 relu units)",) and "12 units" in finding.meaning
    assert finding.suggestion == pytest.approx(0.005)
    net.biases[0][:] = -1000
    finding = net.diagnose(PIXELS, LABELS)["dead-units"]
    assert finding.severity == "error" and "layer 1" in finding.meaning


@pytest.mark.parametrize("activation", ["tanh", "logistic", "hard_sigmoid"])
def test_saturated_units(dtype, activation):
    net = fitted(classifier(activation, dtype=dtype), PIXELS, LABELS)
    assert "saturated-units" not in net.diagnose(PIXELS, LABELS).codes
    net.weights[0][:, :16] *= 1000
    finding = net.diagnose(PIXELS, LABELS)["saturated-units"]
    assert 0.3 < finding.value <= 0.5 and finding.names == (f"layer 1 (32 {activation} units)",)


def test_vanishing_and_exploding_gradients(dtype):
    hidden = (16,) * 9
    codes = classifier("logistic", hidden, dtype=dtype).diagnose(PIXELS, LABELS).codes
    assert "vanishing-gradients" in codes
    healthy = classifier("relu", hidden, dtype=dtype)
    assert not {"vanishing-gradients", "exploding-gradients"} & set(
        healthy.diagnose(PIXELS, LABELS).codes
    )
    net = fitted(classifier("tanh", (16,) * 5, dtype=dtype), PIXELS, LABELS, epochs=1)
    for W in net.weights[1:-1]:
        W *= 20
    for W in net.weights[:1]:
        W *= 1e-4
    net.params[:] = np.where(net.params == 0, 0, net.params)
    finding = net.diagnose(PIXELS, LABELS)
    assert "exploding-gradients" in finding.codes, str(finding)


def test_outputs_that_are_not_finite(engine):
    net = fitted(classifier(), PIXELS, LABELS, epochs=1)
    net.weights[0][:] = 1e30
    net.weights[1][:] = 1e30
    assert net.diagnose(PIXELS, LABELS)["not-finite-outputs"].severity == "error"


# The curve ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_learning_rate_too_high(dtype, seed):
    net = cmlp.Network([64, 128, 10], seed=seed, dtype=dtype)
    fitted(net, PIXELS, LABELS, learning_rate=0.5)
    found = net.diagnose(PIXELS, LABELS)
    assert {"learning-rate-too-high", "dead-units"} & set(found.codes)
    for finding in found:
        if finding.severity == "warning" and finding.code != "too-few-epochs":  # may still fall
            assert finding.parameter == "learning_rate", str(finding)
            assert finding.suggestion == pytest.approx(0.05)


def test_a_restless_curve():
    net = fitted(classifier(), PIXELS, LABELS)
    net.history["loss"] = [2.3, 1.2, 1.6, 1.0, 1.5, 1.1, 1.6, 1.0, 1.5, 1.0]
    finding = net.diagnose(PIXELS, LABELS)["learning-rate-too-high"]
    assert "jumps" in finding.meaning
    net.history["loss"] = [2.3, 1.2, 0.6, 1.6, 0.5, 0.4, 0.38, 0.36, 0.35, 0.35]  # it healed
    assert "learning-rate-too-high" not in net.diagnose(PIXELS, LABELS).codes


def test_validation_losses_that_are_not_known(engine):
    net, X, y = noisy(epochs=60)
    assert "over-fitting" in net.diagnose(X, y).codes
    for n in (57, 60):  # too few of them, none
        net.history["val_loss"][:n] = [np.nan] * n
        assert "over-fitting" not in net.diagnose(X, y).codes


def test_a_trial_that_diverges(engine):
    def steep(outputs, targets):
        value, slope = squared_error(outputs, targets)
        return value * 1e6, slope * 1e6

    X, y = waves(500)
    finding = cmlp.diagnose(cmlp.Network([3, 16, 1], loss=steep, seed=0), X, y)
    assert finding.codes == ["learning-rate-too-high"]
    assert finding["learning-rate-too-high"].severity == "error"
    assert "diverged" in finding["learning-rate-too-high"].meaning
    assert finding["learning-rate-too-high"].suggestion == pytest.approx(0.001)
    found = cmlp.diagnose(cmlp.Network([3, 16, 1], seed=0), X * 1e6, y * 1e6)
    assert found.codes == ["unscaled-inputs", "unscaled-targets"]  # the reason, not the rate


@pytest.mark.parametrize("rate", [1e-4, 1e-5])
def test_learning_rate_too_low(dtype, rate):
    net = fitted(classifier(dtype=dtype), PIXELS, LABELS, learning_rate=rate)
    finding = net.diagnose(PIXELS, LABELS)["learning-rate-too-low"]
    assert finding.suggestion == pytest.approx(10 * rate) and "per epoch" in finding.meaning
    assert "too-few-epochs" not in net.diagnose(PIXELS, LABELS).codes


def test_too_few_epochs():
    net = fitted(classifier("logistic"), PIXELS, LABELS, learning_rate=0.01, epochs=6)
    finding = net.diagnose(PIXELS, LABELS)["too-few-epochs"]
    assert (finding.parameter, finding.suggestion) == ("epochs", 18)
    net.fit(PIXELS, LABELS, epochs=40, learning_rate=0.05)
    assert "too-few-epochs" not in net.diagnose(PIXELS, LABELS).codes


def test_over_fitting(engine):
    rng = np.random.default_rng(0)
    X, X_val = rng.normal(size=(100, 30)), rng.normal(size=(400, 30))
    y, y_val = (rng.random(len(rows)) < 0.5 + 0.3 * np.sign(rows[:, 0]) for rows in (X, X_val))
    net = cmlp.Network([30, 64, 2], seed=0)
    fitted(net, X, y, epochs=60, X_val=X_val, y_val=y_val)
    from_rows = net.diagnose(X, y, X_val=X_val, y_val=y_val)["over-fitting"]
    assert from_rows.value == pytest.approx(net.score(X, y) - net.score(X_val, y_val))
    from_curve = net.diagnose(X, y)["over-fitting"]
    assert "epoch" in from_curve.meaning and from_curve.parameter == "patience"
    stopped = cmlp.Network([30, 64, 2], seed=0)
    fitted(stopped, X, y, epochs=60, X_val=X_val, y_val=y_val, patience=3)
    assert "over-fitting" not in stopped.diagnose(X, y).codes


@pytest.mark.parametrize("loss", [None, "custom"])
def test_no_better_than_a_constant(dtype, loss):
    X, y = waves(1000)
    rng = np.random.default_rng(0)
    net = cmlp.Network([3, 4, 1], loss=loss and squared_error, seed=0, dtype=dtype)
    noise = rng.normal(size=1000)
    fitted(net, X, noise, learning_rate=0.001)
    assert "no-better-than-constant" in net.diagnose(X, noise).codes
    fitted(net, X, y, epochs=40)
    assert "no-better-than-constant" not in net.diagnose(X, y).codes


def test_labels_that_nothing_explains(engine):
    X, _ = blobs(3000, 3)
    y = np.random.default_rng(0).integers(0, 2, 3000)
    net = fitted(cmlp.Network([3, 8, 1], loss="bce", seed=0), X / 3, y, epochs=10)
    assert warned(net.diagnose(X / 3, y)) == {"no-better-than-constant"}


# Estimators --------------------------------------------------------------------------------------


def converged(model, X, y, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cmlp.ConvergenceWarning)
        return model.fit(X, y, **kwargs)


def test_healthy_estimators():
    names = np.array(list("abcdefghij"))[LABELS]
    clf = cmlp.MLPClassifier((64,), max_iter=30, random_state=0)
    assert not warned(cmlp.diagnose(clf, PIXELS, names)) and not hasattr(clf, "network_")
    converged(clf, PIXELS, names)
    found = clf.diagnose(
        PIXELS, names, X_val=PIXELS_VAL, y_val=np.array(list("abcdefghij"))[LABELS_VAL]
    )
    assert not warned(found), str(found)
    X, y = waves(2000, n_out=2)
    model = cmlp.MLPRegressor(hidden_layer_sizes=(30,), activation="tanh", random_state=0)
    assert cmlp.diagnose(model, X, y).codes == []
    assert converged(model, X, y).diagnose(X, y).codes == []
    lbfgs = cmlp.MLPRegressor(solver="lbfgs", max_iter=50, random_state=0)
    assert lbfgs.diagnose(X, y).codes == [] == converged(lbfgs, X, y).diagnose(X, y).codes


def test_estimators_have_names_of_their_own():
    names = np.where((LABELS == 3) & (np.arange(len(LABELS)) % 2 == 0), "three", "other")[:2000]
    clf = cmlp.MLPClassifier((16,), learning_rate_init=1e-6, random_state=0)
    for model in (clf, converged(clf.set_params(max_iter=20), PIXELS[:2000], names)):
        found = model.diagnose(PIXELS[:2000], names)
        assert found["learning-rate-too-low"].parameter == "learning_rate_init"
    assert found["class-imbalance"].parameter == "class_weight"
    clf.set_params(class_weight="balanced")
    assert "class-imbalance" not in clf.diagnose(PIXELS[:2000], names).codes
    found = clf.diagnose(PIXELS[:2000] * 1000, names)
    assert "StandardScaler" in found["unscaled-inputs"].advice


def test_estimators_that_diverge(engine):
    X, y = waves(500)
    y = y[:, 0]
    model = cmlp.MLPRegressor(
        "huber", (16,), solver="sgd", huber_delta=1e30, learning_rate_init=1e6, random_state=0
    )
    finding = model.diagnose(X, y)["learning-rate-too-high"]
    assert finding.severity == "error" and finding.suggestion == pytest.approx(1e5)
    assert "A trial with learning_rate_init=1e+06 diverged" in finding.meaning
    model.set_params(early_stopping=True, learning_rate_init=1e6)
    with pytest.warns(cmlp.ConvergenceWarning, match="diverged"):
        model.fit(X, y)
    assert "Training with" in model.diagnose(X, y)["learning-rate-too-high"].meaning


def test_estimators_that_stop_on_the_flat(engine):
    X, _ = blobs(2000, 10)
    y = (np.random.default_rng(0).normal(size=(2000, 10)) ** 2).sum(axis=1) > 9.34
    clf = converged(cmlp.MLPClassifier((20, 20), "logistic", random_state=0), X / 3, y)
    finding = clf.diagnose(X / 3, y)["no-better-than-constant"]
    assert clf.n_iter_ < 60 and f"after {clf.n_iter_} epochs" in finding.advice
    assert (finding.parameter, finding.suggestion) == ("n_iter_no_change", 50)


def test_scale_explains_a_rate_that_seems_low():
    X, y = waves(500)
    y = 200 + 100 * y[:, 0]
    model = cmlp.MLPRegressor(random_state=0, max_iter=30)
    assert model.diagnose(X, y).codes == ["unscaled-targets"]
    found = converged(model, X, y).diagnose(X, y)
    assert warned(found) <= {"unscaled-targets", "no-better-than-constant", "too-few-epochs"}
    lbfgs = converged(cmlp.MLPRegressor(solver="lbfgs", random_state=0, max_iter=500), X, y)
    assert lbfgs.score(X, y) > 0.99
    assert lbfgs.diagnose(X, y)["unscaled-targets"].severity == "note"  # learned all the same


def test_early_stopping_is_no_over_fitting(engine):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 30))
    y = rng.random(400) < 0.5 + 0.3 * np.sign(X[:, 0])
    how = {"max_iter": 100, "n_iter_no_change": 200, "random_state": 0, "learning_rate_init": 0.01}
    clf = cmlp.MLPClassifier((64,), **how)
    converged(clf, X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    assert clf.diagnose(X[:200], y[:200])["over-fitting"].parameter == "early_stopping"
    converged(clf.set_params(early_stopping=True), X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    assert "over-fitting" not in clf.diagnose(X[:200], y[:200]).codes


def test_sparse_rows_and_missing_targets(engine):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = sparse.csr_matrix(PIXELS * 1000), LABELS
    net = cmlp.Network([64, 16, 10], seed=0)
    dense = cmlp.diagnose(net, PIXELS * 1000, y)
    assert str(cmlp.diagnose(net, X, y)) == str(dense) and "unscaled-inputs" in dense.codes
    X.data[5] = np.nan
    assert cmlp.diagnose(net, X, y).codes == ["not-finite"]
    X, y = waves(1000, n_out=3)
    y[::3, 1] = np.nan
    net = cmlp.Network([3, 32, 3], "tanh", loss="squared_error", seed=0, missing_targets=True)
    assert cmlp.diagnose(net, X, y).codes == []
    assert cmlp.diagnose(fitted(net, X, y), X, y).codes == []
    model = cmlp.MLPRegressor(hidden_layer_sizes=(30,), activation="tanh", random_state=0)
    assert cmlp.diagnose(model, X, y).codes == [] == converged(model, X, y).diagnose(X, y).codes
    y[0, 1] = np.inf
    assert cmlp.diagnose(model, X, y)["not-finite"].value == 1


# After a file ------------------------------------------------------------------------------------


def few(n=1000):
    """Pixels and labels that are trained on quickly."""
    return PIXELS[:n], LABELS[:n]


def written_into(net, write, X, y, **how):
    fitted(net, X, y, **{"epochs": 2} | how)
    write(net)
    return net, X, y


def at_rate(rate, activation="relu", **how):
    return fitted(classifier(activation), *few(), learning_rate=rate, **how), *few()


def restless():
    losses = [2.3, 1.2, 1.6, 1.0, 1.5, 1.1, 1.6, 1.0, 1.5, 1.0]
    return written_into(classifier(), lambda net: net.history.update(loss=losses), *few())


def noisy(n_train=100, **how):
    rng = np.random.default_rng(0)
    X, X_val = rng.normal(size=(n_train, 30)), rng.normal(size=(400, 30))
    y, y_val = (rng.random(len(rows)) < 0.5 + 0.3 * np.sign(rows[:, 0]) for rows in (X, X_val))
    net = cmlp.Network([30, 64, 2], seed=0)
    return fitted(net, X, y, **{"epochs": 60, "X_val": X_val, "y_val": y_val} | how), X, y


def of_columns(change, loss=None, **how):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    X, y = change(X, y)
    net = cmlp.Network([5, 8, 1 if loss else 2], loss=loss, seed=0)
    return fitted(net, X, y, **{"epochs": 6, "learning_rate": 1e-6} | how), X, y


def written(X, where, value):
    X = X.copy()
    X[where] = value
    return X


def in_layers(factors, activation):
    net = classifier(activation, (16,) * 5)

    def write(net):
        for W, factor in zip(net.weights, factors, strict=True):
            W *= factor

    return written_into(net, write, PIXELS, LABELS, epochs=1)


def saturate(net):
    net.weights[0][:, :16] *= 1000


def kill(net):
    net.biases[0][:20] = -1000


def overflow(net):
    net.params *= 1e30


def unknown_loss(net):
    net.history["loss"][-1] = np.nan


FOUND = {
    "not-finite": lambda: (classifier(), written(PIXELS, (3, 1), np.nan), LABELS),
    "unscaled-inputs": lambda: of_columns(lambda X, y: (X * [1, 1, 300, 1, 1], y)),
    "outliers": lambda: of_columns(lambda X, y: (written(X, (7, 2), 500), y)),
    "constant-columns": lambda: of_columns(lambda X, y: (written(X, np.s_[:, 1], 1), y)),
    "unscaled-targets": lambda: of_columns(lambda X, y: (X, 200 + 50 * X[:, 0]), "mse"),
    "class-imbalance": lambda: of_columns(lambda X, y: (X, X[:, 0] > 1.7)),
    "contradictory-labels": lambda: of_columns(
        lambda X, y: (np.sign(X), y ^ (np.arange(300) % 5 == 0))
    ),
    "not-finite-outputs": lambda: written_into(classifier(), overflow, *few()),
    "dead-units": lambda: written_into(classifier(), kill, *few()),
    "saturated-units": lambda: written_into(classifier("tanh"), saturate, *few()),
    "vanishing-gradients": lambda: (classifier("logistic", (16,) * 9), *few()),
    "exploding-gradients": lambda: in_layers([1e-4, 20, 20, 20, 20, 1], "tanh"),
    "learning-rate-too-high, at rest": lambda: at_rate(0.1, "tanh", solver="rmsprop", epochs=12),
    "learning-rate-too-high, back": lambda: at_rate(1.0, "tanh", epochs=12),
    "learning-rate-too-high, jumps": restless,
    "learning-rate-too-high, diverged": lambda: written_into(classifier(), unknown_loss, *few()),
    "learning-rate-too-low": lambda: at_rate(1e-5),
    "learning-rate-too-low, adam": lambda: at_rate(1e-5, solver="adam"),
    "too-few-epochs": lambda: at_rate(0.01, "logistic"),
    "no-better-than-constant": lambda: of_columns(lambda X, y: (X, X[::-1, 2]), "mse"),
    "over-fitting": noisy,
}
"""A case of every finding: network, X and y."""

SILENT = {
    "patience": lambda: noisy(patience=3),
    "best weights at the end of all epochs": lambda: noisy(patience=50),
    "max_time": lambda: noisy(patience=50, max_time=0.05, epochs=10**6),
    "a callback": lambda: noisy(patience=90, epochs=99, callbacks=[lambda s: s.epoch == 70]),
}
"""Trainings with too many epochs, that ended with their best weights."""


def ways_back(net):
    """The network after a file, a file with the optimizer's state, and a pickle."""
    for optimizer in (False, True):
        file = io.BytesIO()
        net.save(file, optimizer=optimizer)
        file.seek(0)
        yield cmlp.load(file)
    yield pickle.loads(pickle.dumps(net))


@pytest.mark.parametrize("case", FOUND)
def test_the_same_is_said_after_a_file(case):
    net, X, y = FOUND[case]()
    before = net.diagnose(X, y)
    assert case.split(",")[0] in before.codes
    for other in ways_back(net):
        assert str(other.diagnose(X, y)) == str(before)
        assert other.diagnose(X, y).to_dict() == before.to_dict() or "nan" in str(before.to_dict())


def test_every_finding_is_among_them():
    source = "".join(map(inspect.getsource, (examinations, of_curve, of_data, of_fit, of_units)))
    codes = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))
    assert codes == {case.split(",")[0] for case in FOUND} and len(codes) > 15


@pytest.mark.parametrize("case", SILENT)
def test_best_weights_that_came_back_are_no_over_fitting(case):
    net, X, y = SILENT[case]()
    before = net.diagnose(X, y)
    assert "over-fitting" not in before.codes and net.history.restored
    for other in ways_back(net):
        assert str(other.diagnose(X, y)) == str(before)


def test_networks_that_were_never_fitted_after_a_file():
    X, y = few()
    for net in (classifier("tanh"), classifier(dtype="float64", normalization="batch")):
        before = net.diagnose(X, y)
        assert "a trial of" in before.looked_at
        for other in ways_back(net):
            assert str(other.diagnose(X, y)) == str(before)


@pytest.mark.parametrize("how", ["train_epoch", "step"])
def test_networks_without_a_record_after_a_file(engine, how):
    X, y = few()
    net = classifier()
    for _ in range(3):
        getattr(net, how)(X, y, solver="adam")
    before = net.diagnose(X, y)
    assert "0 epochs of training" in before.looked_at
    for other in ways_back(net):
        assert str(other.diagnose(X, y)) == str(before)
        for again in ways_back(other):
            assert str(again.diagnose(X, y)) == str(before)


def test_a_long_record_after_a_file(monkeypatch):
    for module in (history, training_records):
        monkeypatch.setattr(module, "MAX_EPOCHS", 17)
    X, y = few()
    net = fitted(classifier("logistic"), X, y, learning_rate=0.01, epochs=30)
    before = net.diagnose(X, y)
    assert "30 epochs" in before.looked_at
    assert before["too-few-epochs"].suggestion == 90
    assert "ended after 30" in before["too-few-epochs"].meaning
    monkeypatch.setattr(history, "MAX_EPOCHS", 10_000)
    whole = net.diagnose(X, y)["too-few-epochs"].value
    assert before["too-few-epochs"].value == pytest.approx(whole, rel=0.3)
    monkeypatch.setattr(history, "MAX_EPOCHS", 17)
    for other in ways_back(net):
        assert str(other.diagnose(X, y)) == str(before)


@pytest.mark.parametrize("how", [
    {"early_stopping": True}, {"solver": "lbfgs"}, {"solver": "sgd", "learning_rate_init": 1e-6},
    {"class_weight": "balanced", "n_ensemble": 2}, {"normalization": "layer", "ema": 0.9},
], ids=str)  # fmt: skip
def test_networks_of_estimators_after_a_file(how):
    X, y = few()
    names = np.array(list("abcdefghij"))[y]
    clf = converged(cmlp.MLPClassifier((16,), max_iter=12, random_state=0, **how), X, names)
    whole = str(clf.diagnose(X, names))
    assert str(pickle.loads(pickle.dumps(clf)).diagnose(X, names)) == whole
    for member in getattr(clf, "estimators_", [clf]):
        before = member.network_.diagnose(X, names)
        assert "epochs of training" in before.looked_at
        for other in ways_back(member.network_):
            assert str(other.diagnose(X, names)) == str(before)


def test_early_stopping_is_no_over_fitting_after_a_file():
    _, X, y = noisy(400, epochs=1)
    how = {"max_iter": 100, "n_iter_no_change": 200, "random_state": 0, "learning_rate_init": 0.01}
    clf = cmlp.MLPClassifier((64,), early_stopping=True, **how)
    converged(clf, X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    for model in (clf, clf.network_, *ways_back(clf.network_)):
        assert "over-fitting" not in model.diagnose(X[:200], y[:200]).codes
    clf = cmlp.MLPClassifier((64,), **how)
    converged(clf, X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    for model in (clf, clf.network_, *ways_back(clf.network_)):
        assert "over-fitting" in model.diagnose(X[:200], y[:200]).codes


# What it is --------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_is(engine):
    for net in (classifier(), fitted(classifier(), PIXELS, LABELS, epochs=2)):
        params, state = net.params.copy(), net.rng.bit_generator.state
        history, steps, classes = dict(net.history), net.steps, net.classes
        cmlp.diagnose(net, PIXELS, LABELS)
        np.testing.assert_array_equal(net.params, params)
        assert net.rng.bit_generator.state == state and dict(net.history) == history
        assert net.steps == steps and net.classes is classes


def test_the_same_answer_every_time(engine):
    net = fitted(classifier(), PIXELS, LABELS, learning_rate=0.5)
    assert str(net.diagnose(PIXELS, LABELS)) == str(net.diagnose(PIXELS, LABELS))


def test_many_rows_are_sampled(engine):
    X = np.tile(PIXELS, (6, 1)).astype(np.float32)
    net = fitted(classifier(), PIXELS, LABELS, epochs=5)
    found = net.diagnose(X, np.tile(LABELS, 6))
    assert found.looked_at.startswith("4,096 of 22,938 rows")
    assert "network 64-32-10 and 5 epochs" in found.looked_at


def test_a_diagnosis_as_text_dict_and_page(engine, table):
    X, y = table
    X[:, 2] *= 1000
    X[:, 4] = 3
    found = look(X, y)
    assert not found and len(found) == 2 and [f.code for f in found] == found.codes
    assert found.codes == ["unscaled-inputs", "constant-columns"]  # the gravest first
    text = str(found)
    assert text.startswith("1 warning, 1 note. Looked at all 1,000 rows, 5 columns")
    assert "warning: unscaled-inputs" in text and "-> " in text
    assert max(map(len, text.splitlines())) <= 120
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["ok"] is False and plain["findings"][0]["names"] == ["2"]
    assert "<code>unscaled-inputs</code>" in found._repr_html_()
    with pytest.raises(KeyError, match="'nothing-like-it' was not found; found: unscaled"):
        found["nothing-like-it"]


def test_what_does_not_fit_is_refused(engine):
    net = classifier()
    with pytest.raises(ValueError, match="go together"):
        cmlp.diagnose(net, PIXELS, LABELS, X_val=PIXELS)
    with pytest.raises(ValueError, match="as many rows"):
        cmlp.diagnose(net, PIXELS, LABELS[:5])
    with pytest.raises(ValueError, match="64"):
        cmlp.diagnose(net, PIXELS[:, :5], LABELS)
    with pytest.raises(ValueError, match="encode it first"):
        cmlp.diagnose(net, PIXELS.astype(str), LABELS)


def test_nothing_is_printed_or_warned(engine, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cmlp.diagnose(classifier(), PIXELS * 1e4, LABELS)
    assert capsys.readouterr() == ("", "")


def test_it_is_imported_when_it_is_asked_for():
    code = "import sys, cmlp; assert 'cmlp.diagnosis.report' not in sys.modules; cmlp.diagnose"
    assert python_output("-c", code) == (0, "")


def test_a_diagnosis_is_found_under_its_public_name(table):
    found = look(table[0] * 1000, table[1])
    for thing in (found, found.findings[0]):
        assert type(thing).__module__ == "cmlp"
        assert pickle.loads(pickle.dumps(thing)) == thing


def test_the_example_is_right():
    failed, tried = doctest.testmod(report)
    assert tried > 3 and not failed
