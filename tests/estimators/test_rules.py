"""The small objects of a fit: the encoded problem, its held-out rows, the record of its epochs."""

import math
import pickle
import pickletools
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import blobs, data_for, fit_quietly, refused, waves

import cmlp
from cmlp import MLPClassifier, MLPRegressor, Network
from cmlp.data.rows import Data, HeldOut
from cmlp.estimators.curves import Curves, forget_best
from cmlp.estimators.inputs import Columns, read_X
from cmlp.estimators.labels import Labels
from cmlp.estimators.targets import Outputs, Targets, Task
from cmlp.estimators.validation import Validation, name_of_score

# The encoded problem -----------------------------------------------------------------------------


def test_columns_are_read_and_compared():
    X, _ = blobs()
    rows, columns = read_X(X, "Mine")
    assert rows is X and columns == Columns(3, None)
    assert read_X(X, "Mine", columns)[1] is columns
    with refused(ValueError, "X has 2 features, but Mine is expecting 3 features"):
        read_X(X[:, :2], "Mine", columns)


@pytest.mark.parametrize("labels, classes", [
    (Labels(np.array(["a", "b", "c"])), ["a", "b", "c"]),
    (Labels(np.arange(3), multilabel=True), None),
    (Labels(np.array(["only"])), None),
    (Labels(np.arange(3), assumed=True), None),
    (None, None),
], ids=str)  # fmt: skip
def test_labels_that_a_network_keeps(labels, classes):
    kept = Outputs(3, "log_loss", labels=labels).classes
    assert kept is None if classes is None else kept.tolist() == classes


def task(y, labels):
    encoded = labels.encode(y)
    targets = Targets(y, encoded, None, Outputs(labels.n_outputs, "log_loss", labels=labels))
    data = Data(np.arange(len(y))[:, None], encoded, None)
    return Task(data, targets, Columns(1), None, (None, None), True, False)


def test_two_classes_keep_their_proportions_among_held_out_rows():
    y = np.array(["no"] * 30 + ["yes"] * 10)
    problem = task(y, Labels.of(y))
    rows, held_out = problem.split(0.2, np.random.RandomState(0))
    assert problem.targets.stratified
    assert sorted([*rows, *held_out.rows]) == list(range(40))
    assert (held_out.y == "yes").sum() == 2 and len(held_out.y) == 8
    np.testing.assert_array_equal(held_out.X[:, 0], held_out.rows)
    few = np.array(["no"] * 30 + ["yes"])
    with refused(ValueError, "have only 1 member", "few members are: ['yes']"):
        task(few, Labels.of(few)).split(0.2, np.random.RandomState(0))


def test_other_targets_are_not_stratified():
    three = np.array(["a", "b", "c"] * 10)
    several = np.eye(3, dtype=np.uint8)[np.arange(30) % 3]
    for y in (three, several):
        assert not task(y, Labels.of(y)).targets.stratified


# Held-out rows -----------------------------------------------------------------------------------


def validation(scoring, X, y, scale=1.0):
    net = Network([3, 4, 1], loss="squared_error", seed=0)
    held_out = HeldOut(Data(X, y, None), None, X, y)
    return Validation(SimpleNamespace(scoring=scoring), net, held_out, scale)


def test_what_scores():
    X, y = waves(20)
    loss, r2 = validation(None, X, y).evaluate()
    assert validation("loss", X, y, 2.0).evaluate() == (2 * loss, -2 * loss)
    assert validation(lambda estimator, X, y: len(X), X, y).evaluate() == (loss, 20)
    assert r2 < 1
    assert validation(None, X[:1], y[:1]).lacks_score
    assert not validation(None, X, y).lacks_score and not validation("loss", X, y).lacks_score


def test_names_of_scores():
    net, targets = Network([3, 1], loss="squared_error"), np.ones((2, 1))
    names = [name_of_score(scoring, net, targets) for scoring in (None, "loss", max, object())]
    assert names == ["r2", "loss", "max", "score"]


# The record --------------------------------------------------------------------------------------


def estimator(**more):
    return SimpleNamespace(tol=0.1, n_iter_no_change=1, t_=0, **more)


def test_curves_are_written_and_continued():
    est = estimator()
    curves = Curves(est, validates=False, by_score=False)
    for loss in (3.0, 1.0, 2.0):
        curves.add_loss(loss, 10)
        curves.see(loss)
    assert (est.loss_curve_, est.loss_, est.t_, est.n_iter_) == ([3, 1, 2], 2, 30, 3)
    assert (est.best_loss_, est.best_iteration_, est._no_improvement_count) == (1, 2, 1)
    assert est.validation_scores_ is est.best_validation_score_ is None
    again = Curves(est, validates=True, by_score=True)
    again.add_loss(0.5, 10)
    again.add_validation(0.7, 0.0)
    assert again.see(0.0) and (est.n_iter_, est.best_iteration_) == (1, 4)
    assert (est.validation_loss_curve_, est.validation_scores_) == ([0.7], [0.0])
    assert math.copysign(1, est.best_validation_score_) == 1
    again.add_loss(0.5, 10)
    assert not again.see(-1.0) and again.stopping.count == est._no_improvement_count == 1
    again.forgive_stall()
    assert again.stopping.count == est._no_improvement_count == 0
    forget_best(est)
    assert (est.best_loss_, est.best_validation_score_) == (math.inf, -math.inf)


# What a refusal leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    {"activation": "relu6"}, {"dropout": [0.1, 0.2]}, {"learning_rate": "cosin"},
    {"weight_init": "hers"}, {"random_state": "seed"}, {"validation_fraction": 0.999},
], ids=str)  # fmt: skip
def test_an_estimator_stays_as_it_was_until_everything_is_checked(change):
    X, y = blobs()
    clf = MLPClassifier((4,), max_iter=2, tol=1e9, n_iter_no_change=1, random_state=0)
    clf.set_params(early_stopping="validation_fraction" in change)
    fit_quietly(clf, X, y)
    before, answer = dict(vars(clf)), clf.predict(X)
    unchanged = {name: before[name] for name in change} | {"activation": clf.activation}
    clf.set_params(**change)
    with pytest.raises((ValueError, TypeError)):
        clf.fit(X[:, :2], y == 0)
    clf.set_params(**unchanged)
    assert vars(clf) == before
    np.testing.assert_array_equal(clf.predict(X), answer)


# Pickles -----------------------------------------------------------------------------------------


def modules_of(thing):
    """The modules of ours that a pickle names."""
    strings = [str(argument) for _, argument, _ in pickletools.genops(pickle.dumps(thing))]
    return {text for text in strings if text.split(".")[0] == "cmlp"}


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("more", [
    {}, {"solver": "lbfgs"}, {"n_ensemble": 2}, {"learning_rate": "cosine"},
    {"early_stopping": True, "learning_rate": "adaptive", "solver": "sgd"},
], ids=str)  # fmt: skip
def test_pickles_name_public_modules_only(kind, more):
    X, y = data_for(kind)
    model = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2, random_state=0, **more), X, y)
    assert modules_of(model) <= {"cmlp", "cmlp.schedules"}
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    if "early_stopping" not in more:
        continued = [each.set_params(warm_start=True) for each in (model, again)]
        first, second = (fit_quietly(each, X, y).predict(X) for each in continued)
        np.testing.assert_array_equal(first, second)


def test_public_classes_name_the_package():
    kinds = [
        MLPClassifier,
        MLPRegressor,
        cmlp.NotFittedError,
        cmlp.InvalidParameterError,
        cmlp.ConvergenceWarning,
        cmlp.DataConversionWarning,
        cmlp.UndefinedMetricWarning,
    ]
    for kind in kinds:
        assert kind.__module__ == "cmlp" and getattr(cmlp, kind.__name__) is kind
