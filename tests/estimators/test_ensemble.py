"""Ensembles in one estimator: `n_ensemble` members that differ in their seeds."""

import _thread
import copy
import os
import pickle
import signal
import threading

import numpy as np
import pytest
from helpers import blobs, data_for, fit_quietly, refused, waves

import cmlp
from cmlp import MLPClassifier, MLPRegressor
from cmlp.estimators.answers import log_odds, log_probabilities
from cmlp.plot.units import first_layer_weights

BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
PARAMS = {"hidden_layer_sizes": (6,), "max_iter": 4, "random_state": 0, "n_ensemble": 3}


def alone(member):
    """An estimator like a member, not fitted."""
    return type(member)(**member.get_params())


@BOTH
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_members_are_what_they_would_be_alone(engine, kind, solver):
    X, y = data_for(kind)
    ensemble = fit_quietly(kind(**PARAMS, solver=solver), X, y)
    seeds = np.random.RandomState(0).randint(2**31 - 1, size=3).tolist()
    assert [member.random_state for member in ensemble.estimators_] == seeds
    for member in ensemble.estimators_:
        assert (member.n_ensemble, member.n_threads) == (1, 1)
        same = fit_quietly(alone(member), X, y)
        np.testing.assert_array_equal(same.network_.params, member.network_.params)
        assert same.n_iter_ == member.n_iter_ and same.loss_ == member.loss_
        np.testing.assert_array_equal(same.predict(X), member.predict(X))
    first, second, _ = ensemble.estimators_
    assert (first.coefs_[0] != second.coefs_[0]).all()


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_a_regressor_says_mean_and_deviation(engine, n_outputs):
    X, y = waves(n_out=n_outputs)
    model = fit_quietly(MLPRegressor(**PARAMS, dtype="float64"), X, y.squeeze())
    each = np.stack([member.predict(X) for member in model.estimators_])
    mean, std = model.predict(X, return_std=True)
    assert mean.shape == std.shape == y.squeeze().shape
    np.testing.assert_allclose(mean, each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, each.std(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(model.predict(X), mean)
    assert model.score(X, y.squeeze()) == pytest.approx(cmlp.model.scoring.r2_score(
        y, mean.reshape(y.shape), None))  # fmt: skip
    gradients = np.stack([member.input_gradient(X) for member in model.estimators_])
    np.testing.assert_allclose(model.input_gradient(X), gradients.mean(axis=0), rtol=1e-9)
    model = fit_quietly(MLPRegressor(**PARAMS), X, y.squeeze())
    for rows, number_type in ((X, np.float64), (X.astype(np.float32), np.float32)):
        assert all(part.dtype == number_type for part in model.predict(rows, return_std=True))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_classifier_says_mean_probabilities_and_their_spread(engine, n_classes):
    X, y = blobs(n_classes=n_classes)
    y = np.array(["a", "b", "c"])[y]
    clf = fit_quietly(MLPClassifier(**PARAMS, dtype="float64"), X, y)
    each = np.stack([member.predict_proba(X) for member in clf.estimators_])
    mean, std = clf.predict_proba(X, return_std=True)
    assert mean.shape == std.shape == (60, n_classes)
    np.testing.assert_allclose(mean, each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, each.std(axis=0), rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[mean.argmax(axis=1)])
    np.testing.assert_allclose(clf.predict_log_proba(X), np.log(mean), rtol=1e-9)
    assert clf.score(X, y) == (clf.predict(X) == y).mean()
    decision = clf.decision_function(X)
    if n_classes == 2:
        np.testing.assert_allclose(decision, np.log(mean[:, 1] / mean[:, 0]), rtol=1e-9)
    else:
        np.testing.assert_allclose(decision, np.log(mean), rtol=1e-9)
    np.testing.assert_allclose(
        clf.input_gradient(X),
        np.mean([member.input_gradient(X) for member in clf.estimators_], axis=0),
        rtol=1e-9, atol=1e-15,
    )  # fmt: skip


@pytest.mark.parametrize("join", [log_odds, log_probabilities])
def test_decisions_are_finite_however_large_the_sums_are(join):
    parts = [np.array([[700.0, -900.0, 5.0]], np.float32) * sign for sign in (1, 2)]
    assert np.isfinite(join(parts)).all() and join(parts).dtype == np.float32


def test_several_labels_per_row():
    X, y = blobs()
    Y = np.eye(3, dtype=int)[y]
    clf = fit_quietly(MLPClassifier(**PARAMS | {"max_iter": 100, "learning_rate_init": 0.05}), X, Y)
    assert clf.score(X, Y) > 0.9
    mean, std = clf.predict_proba(X, return_std=True)
    assert mean.shape == std.shape == Y.shape
    np.testing.assert_array_equal(clf.decision_function(X) > 0, mean > 0.5)


@BOTH
def test_any_number_of_threads_gives_the_same(engine, kind):
    X, y = data_for(kind)
    fits = [
        fit_quietly(kind(**PARAMS, early_stopping=True, n_threads=n), X, y) for n in (1, 2, None)
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.predict(X), fits[0].predict(X))
        assert other.loss_curve_ == fits[0].loss_curve_
        for mine, same in zip(other.estimators_, fits[0].estimators_, strict=True):
            np.testing.assert_array_equal(mine.network_.params, same.network_.params)


@BOTH
def test_hidden_layers_stand_side_by_side(kind):
    X, y = data_for(kind)
    ensemble = fit_quietly(kind(**PARAMS | {"hidden_layer_sizes": (6, 4)}), X, y)
    for layer, units in ((-1, 4), (0, 6)):
        parts = [member.transform(X, layer) for member in ensemble.estimators_]
        np.testing.assert_array_equal(ensemble.transform(X, layer), np.hstack(parts))
        assert ensemble.transform(X, layer).shape == (60, 3 * units)
    assert len(ensemble.get_feature_names_out()) == 12


@BOTH
def test_what_belongs_to_one_network_is_found_in_the_members(kind):
    X, y = data_for(kind)
    ensemble = kind(**PARAMS)
    with refused(AttributeError, "'network_': it is not fitted"):
        ensemble.network_  # noqa: B018
    fit_quietly(ensemble, X, y)
    for name in ("network_", "coefs_", "intercepts_", "best_iteration_"):
        assert not hasattr(ensemble, name)
        with refused(
            AttributeError, f"an ensemble has one per member, as in estimators_[0].{name}"
        ):
            getattr(ensemble, name)
    with refused(AttributeError, "call fit(..., coefs_init=...)"):
        ensemble.coefs_ = []
    single = fit_quietly(kind(**PARAMS | {"n_ensemble": 1}), X, y)
    ask = single.predict if kind is MLPRegressor else single.predict_proba
    with refused(ValueError, "return_std compares the members of an ensemble"):
        ask(X, return_std=True)
    fit_quietly(single.set_params(n_ensemble=2), X, y)
    assert not hasattr(single, "network_") and len(single.estimators_) == 2
    fit_quietly(single.set_params(n_ensemble=1), X, y)
    assert not hasattr(single, "estimators_") and single.best_iteration_ == 4


def test_curves_are_means():
    X, y = waves(100)
    model = MLPRegressor(**PARAMS | {"max_iter": 200, "n_iter_no_change": 3}, tol=1e-2,
                         early_stopping=True, learning_rate_init=0.05)  # fmt: skip
    model.fit(X, y[:, 0])
    members = model.estimators_
    epochs = [member.n_iter_ for member in members]
    assert len(set(epochs)) > 1
    assert model.n_iter_ == len(model.loss_curve_) == max(epochs)
    last = [member.loss_curve_[-1] for member in members if member.n_iter_ == model.n_iter_]
    assert model.loss_curve_[-1] == pytest.approx(np.mean(last))
    assert model.loss_curve_[0] == pytest.approx(np.mean([m.loss_curve_[0] for m in members]))
    assert model.loss_ == pytest.approx(np.mean([member.loss_ for member in members]))
    assert model.best_validation_score_ == pytest.approx(
        np.mean([member.best_validation_score_ for member in members])
    )
    assert model.best_loss_ is None
    assert model.history_["val_score"] == model.validation_scores_
    assert len(model.validation_loss_curve_) == model.n_iter_
    assert len({tuple(m.validation_scores_) for m in members}) == 3  # each holds out its own


def test_weights_sparse_rows_and_validation_rows():
    sparse = pytest.importorskip("scipy.sparse")
    X, y = blobs()
    X = np.where(np.abs(X) < 1, 0, X)
    fits = [
        fit_quietly(MLPClassifier(**PARAMS, class_weight="balanced"), rows, y,
              np.linspace(0, 1, 60), X_val=X[:10], y_val=y[:10])
        for rows in (X, sparse.csr_matrix(X))
    ]  # fmt: skip
    np.testing.assert_array_equal(fits[0].predict_proba(X), fits[1].predict_proba(X))
    assert len(fits[0].validation_scores_) == 4
    member = fits[0].estimators_[1]
    same = fit_quietly(alone(member), X, y, np.linspace(0, 1, 60), X_val=X[:10], y_val=y[:10])
    np.testing.assert_array_equal(same.coefs_[0], member.coefs_[0])
    assert same.validation_scores_ == member.validation_scores_


# Continuing --------------------------------------------------------------------------------------


@BOTH
def test_partial_fit(engine, kind):
    X, y = data_for(kind)
    more = {"classes": [0, 1, 2]} if kind is MLPClassifier else {}
    ensemble = kind(**PARAMS)
    for _ in range(3):
        assert ensemble.partial_fit(X, y, **more) is ensemble
    assert len(ensemble.loss_curve_) == 3 and ensemble.t_ == 180
    for member in ensemble.estimators_:
        same = alone(member)
        for _ in range(3):
            same.partial_fit(X, y, **more)
        np.testing.assert_array_equal(same.coefs_[0], member.coefs_[0])


@BOTH
def test_warm_start_and_more_members(kind):
    X, y = data_for(kind)
    ensemble = fit_quietly(kind(**PARAMS, warm_start=True), X, y)
    members = ensemble.estimators_
    fit_quietly(ensemble.set_params(n_ensemble=4), X, y)
    assert ensemble.estimators_[:3] == members and len(ensemble.estimators_) == 4
    assert [len(member.loss_curve_) for member in ensemble.estimators_] == [8, 8, 8, 4]
    assert len({member.random_state for member in ensemble.estimators_}) == 4
    for n_ensemble in (2, 1):
        with refused(ValueError, f"n_ensemble={n_ensemble}, but 4 were fitted", "warm_start=False"):
            ensemble.set_params(n_ensemble=n_ensemble).fit(X, y)
    single = fit_quietly(kind(**PARAMS | {"n_ensemble": 1}, warm_start=True), X, y)
    with refused(ValueError, "n_ensemble=3, but 1 were fitted", "a single network cannot"):
        single.set_params(n_ensemble=3).fit(X, y)


@BOTH
def test_first_weights_that_are_given(kind):
    X, y = data_for(kind)
    first = fit_quietly(kind(**PARAMS), X, y).estimators_[0]
    ensemble = kind(**PARAMS | {"max_iter": 1, "learning_rate_init": 1e-12})
    fit_quietly(ensemble, X, y, coefs_init=first.coefs_, intercepts_init=first.intercepts_)
    for member in ensemble.estimators_:
        np.testing.assert_allclose(member.coefs_[0], first.coefs_[0], atol=1e-6)


@BOTH
def test_clones(kind):
    sklearn = pytest.importorskip("sklearn.base")
    X, y = data_for(kind)
    ensemble = fit_quietly(kind(**PARAMS), X, y)
    clone = sklearn.clone(ensemble)
    assert not hasattr(clone, "estimators_")
    np.testing.assert_array_equal(fit_quietly(clone, X, y).predict(X), ensemble.predict(X))


@BOTH
def test_copies_and_pickles(kind):
    X, y = data_for(kind)
    ensemble = fit_quietly(kind(**PARAMS), X, y)
    assert repr(ensemble).endswith("n_ensemble=3, random_state=0)")
    for other in (copy.deepcopy(ensemble), pickle.loads(pickle.dumps(ensemble))):
        np.testing.assert_array_equal(other.predict(X), ensemble.predict(X))
        other.partial_fit(X, y)
        assert len(ensemble.loss_curve_) == 4 and len(other.loss_curve_) == 5


# What may go wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_ensemble", [0, -1, 1.5, True])
def test_numbers_that_are_refused(n_ensemble):
    with refused(ValueError, "'n_ensemble'", "an int in the range [1, inf)"):
        MLPClassifier(n_ensemble=n_ensemble).fit(*blobs())


def test_a_warning_of_several_members_comes_once():
    with pytest.warns(UserWarning) as caught:
        MLPClassifier(**PARAMS).fit(*blobs())
    (warning,) = caught
    assert warning.category.__name__ == "ConvergenceWarning" and warning.filename == __file__
    assert str(warning.message).startswith("3 of 3 members: Stochastic Optimizer: Maximum iter")


def test_verbose_prints_a_line_per_member(capsys):
    clf = fit_quietly(MLPClassifier(**PARAMS, verbose=True), *blobs())
    lines = sorted(capsys.readouterr().out.splitlines())
    assert lines == [
        f"estimators_[{number}]: 4 iterations, loss = {member.loss_:.8f}"
        for number, member in enumerate(clf.estimators_)
    ]


def test_a_small_loss_of_a_member_is_shown(capsys):
    X, _ = waves()
    how = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 0.0, "tol": 1e-30}
    model = MLPRegressor(**how, n_ensemble=2, random_state=0, verbose=True)
    fit_quietly(model, X, X @ [1e-7, 2e-7, 0])
    lines = capsys.readouterr().out.splitlines()
    losses = sorted(float(line.split("loss = ")[1]) for line in lines)
    expected = sorted(member.loss_ for member in model.estimators_)
    assert losses == pytest.approx(expected, rel=1e-6, abs=0) and losses[1] < 1e-8


def test_callbacks_are_called_by_each_member():
    seen = []

    def watch(state):
        seen.append((state.network, threading.get_ident()))
        state.stop = state.epoch == 2

    clf = fit_quietly(MLPClassifier(**PARAMS, callbacks=[watch], n_threads=2), *blobs())
    assert [member.n_iter_ for member in clf.estimators_] == [2, 2, 2]
    counts = [sum(net is member.network_ for net, _ in seen) for member in clf.estimators_]
    assert counts == [2, 2, 2] and threading.get_ident() not in {thread for _, thread in seen}


def test_an_error_of_one_member_stops_all():
    calls = []

    def fail(state):
        calls.append(state)
        if len(calls) == 5:
            raise ZeroDivisionError("mine")

    clf = MLPClassifier(**PARAMS | {"max_iter": 10**6}, callbacks=[fail], tol=0, n_threads=2,
                        n_iter_no_change=np.inf)  # fmt: skip
    with pytest.raises(ZeroDivisionError, match="mine"):
        clf.fit(*blobs())
    with pytest.raises(cmlp.NotFittedError):
        clf.predict(blobs()[0])


def test_time_is_that_of_all_members():
    clf = MLPClassifier(**PARAMS | {"n_ensemble": 4}, max_time=8, n_threads=1)
    assert fit_quietly(clf, *blobs()).estimators_[0].max_time == 2


def test_members_that_diverge(engine):
    X, y = waves()
    calls = []

    def spoil(state):
        if state.epoch == 1 and not calls:
            calls.append(state.network)
            state.network.weights[0] = np.full((3, 6), np.nan)

    model = MLPRegressor(**PARAMS, callbacks=[spoil], n_threads=1)
    with refused(cmlp.DivergenceError, "Solver produced non-finite", "This is of estimators_[0]; 1 "
                 "of 3 members diverged, [0]; the others are trained."):  # fmt: skip
        fit_quietly(model, X, y[:, 0])
    assert [member.n_iter_ for member in model.estimators_] == [1, 4, 4]
    assert calls[0] is model.estimators_[0].network_
    assert np.isfinite(model.predict(X)).all()


def by_signal():
    os.kill(os.getpid(), signal.SIGINT)


def interrupting(how, at):
    """A callback that sends Ctrl-C to this process once, after so many calls."""
    calls = []

    def callback(state):
        calls.append(state)
        if len(calls) == at:
            how()

    return callback


@pytest.fixture
def listening():
    """Ctrl-C is heard, also in a job in the background, which may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# The second does not wake who waits for a lock, as on Windows, or between two moments elsewhere.
@pytest.mark.parametrize("how", [by_signal, _thread.interrupt_main])
@pytest.mark.parametrize("at", [1, 20, 2000])  # while the members start, and when all wait
def test_an_interrupt_ends_all_members_and_keeps_them(listening, how, at):
    if how is by_signal and os.name == "nt":
        pytest.skip("Windows sends Ctrl-C to the whole console")
    X, y = blobs()
    params = PARAMS | {"n_ensemble": 4, "max_iter": 10**6, "tol": 0, "n_iter_no_change": np.inf}
    clf = MLPClassifier(**params, callbacks=[interrupting(how, at)], n_threads=2)
    with pytest.warns(UserWarning, match=r"interrupted by user. \d of 4 members are kept."):
        clf.fit(X, y)
    assert 1 <= len(clf.estimators_) < 4 and clf.predict(X).shape == (60,)
    clf.set_params(max_iter=1, callbacks=(), warm_start=True)
    assert len(fit_quietly(clf, X, y).estimators_) == 4  # the others are made up for


# Diagnoses and plots -----------------------------------------------------------------------------


def test_diagnose_looks_at_every_member():
    X, y = blobs()
    clf = MLPClassifier(**PARAMS)
    before = cmlp.diagnose(clf, X, y)
    assert before.codes == cmlp.diagnose(MLPClassifier(**PARAMS | {"n_ensemble": 1}), X, y).codes
    fit_quietly(clf, X, y)
    each = [member.diagnose(X, y) for member in clf.estimators_]
    found = clf.diagnose(X, y)
    assert set(found.codes) == {code for diagnosis in each for code in diagnosis.codes}
    assert found.looked_at == f"{len(each)} members; for the first at {each[0].looked_at}"


def test_diagnose_says_how_many_members_have_it():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier(**PARAMS), X, y)
    clf.estimators_[1].intercepts_[0][...] = -100.0  # its relu units are all dead
    healthy, ill = (member.diagnose(X, y) for member in clf.estimators_[:2])
    assert "dead-units" in ill.codes and "dead-units" not in healthy.codes
    n = len(clf.estimators_)
    assert clf.diagnose(X, y)["dead-units"].meaning.startswith(f"In 1 of {n} members: ")
    all_of_them = clf.diagnose(X * np.array([1.0, 1.0, 5000.0]), y)
    assert "members" not in all_of_them["unscaled-inputs"].meaning


def test_pictures_of_an_ensemble():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    from cmlp.plot import classes, curves

    X, y = blobs(n_in=2)
    clf = fit_quietly(MLPClassifier(**PARAMS), X, y, X_val=X, y_val=y)
    (line, *_) = curves.loss_curve(clf).get_lines()
    np.testing.assert_allclose(line.get_ydata(), clf.loss_curve_)
    classes.confusion_matrix(clf, X, y)
    classes.decision_regions(clf, X, y)
    with refused(ValueError, "an ensemble has several networks"):
        first_layer_weights(clf)
    pyplot.close("all")
