"""How a training ends: every reason recorded alike, and steps of any length that can be stopped."""

import functools
import math
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cores import CORES
from helpers import blobs, covering, data_for, python_process, refused, squared_error, waves

import cmlp
from cmlp import MLPClassifier, MLPRegressor, Network, schedules
from cmlp.core import seam, team
from cmlp.core.team import Team
from cmlp.model import passes
from cmlp.training import stopping
from cmlp.training.recipe import Recipe
from cmlp.training.trainer import Trainer

# scikit-learn's rule -----------------------------------------------------------------------------


def test_epochs_without_an_improvement_are_counted():
    rule = stopping.NoImprovement(0.1, 2)
    losses = [1.0, 0.95, 0.92, 0.8, 0.75, 0.74, 0.9]
    assert [(rule.see(loss), rule.count, rule.stalled) for loss in losses] == [
        (True, 0, False), (True, 1, False), (True, 2, False), (True, 0, False),
        (True, 1, False), (True, 2, False), (False, 3, True),
    ]  # fmt: skip
    assert (rule.best, rule.epochs_left) == (0.74, 0)


def test_an_earlier_call_is_continued_and_a_nan_is_no_stall():
    rule = stopping.NoImprovement(0.0, 3, best=0.5, count=2)
    assert not rule.see(0.6) and (rule.count, rule.epochs_left) == (3, 1)
    assert not rule.see(math.nan) and (rule.count, rule.best) == (0, 0.5)
    assert not stopping.NoImprovement(0.0, math.inf, count=10**6).stalled


# Reasons -----------------------------------------------------------------------------------------


def returns_true(state):
    return state.epoch == 2


def presses_ctrl_c(state):
    if state.epoch == 2:
        raise KeyboardInterrupt


def fit_network(**options):
    """A network's fit, by the words of the estimators; the validation rows are learned never."""
    X, y = blobs()
    net = Network([3, 8, 3], "tanh", seed=0)
    renamed = {"max_iter": "epochs", "n_iter_no_change": "patience"}
    options = {renamed.get(name, name): value for name, value in options.items()}
    with warnings.catch_warnings(action="ignore"):
        history = net.fit(X, y, X_val=X, y_val=np.roll(y, 1), learning_rate=0.05, **options)
    assert (net.history.stopped, net.history.best_epoch, net.history.metric) == (
        history.stopped, history.best_epoch, history.metric)  # fmt: skip
    return history, len(history["loss"])


def fit_estimator(kind):
    def fit(**options):
        X, y = data_for(kind)
        options["early_stopping"] = "n_iter_no_change" in options
        options.setdefault("n_iter_no_change", np.inf)
        model = kind((8,), "tanh") if kind is MLPClassifier else kind("squared_error", (8,), "tanh")
        model.set_params(learning_rate_init=0.05, random_state=0, **options)
        with warnings.catch_warnings(action="ignore"):
            model.fit(X, y, X_val=X, y_val=np.roll(y, 1))
        assert model.history_ is model.network_.history
        assert model.n_iter_ == len(model.history_.get("loss", []))
        return model.history_, model.n_iter_

    return fit


FITS = {
    "network": fit_network,
    "classifier": fit_estimator(MLPClassifier),
    "regressor": fit_estimator(MLPRegressor),
}
ENDS = {
    "epochs": ({"max_iter": 3}, 3),
    "patience": ({"max_iter": 400, "n_iter_no_change": 2}, None),
    "max_time": ({"max_iter": 10**6, "max_time": 0.05}, None),
    "callback": ({"max_iter": 9, "callbacks": [returns_true]}, 2),
    "interrupted": ({"max_iter": 9, "callbacks": [presses_ctrl_c]}, 2),
}


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("reason", ENDS)
def test_every_reason_is_recorded_alike(engine, kind, reason):
    options, epochs = ENDS[reason]
    history, n = FITS[kind](**options)
    assert history.stopped == reason
    assert n == epochs if epochs else 1 <= n < options["max_iter"]
    assert history.metric == ("r2" if kind == "regressor" else "accuracy")
    assert 1 <= history.best_epoch <= n
    assert history.restored == (reason == "patience")
    best = history.best_epoch - 1
    if reason == "patience" and kind != "network":
        assert history["val_score"][best] == max(history["val_score"])
    else:
        key = "val_loss" if kind == "network" else "loss"
        assert history[key][best] == min(history[key])


def test_the_best_weights_are_restored_whatever_ends_the_training(engine):
    """Whatever ended it; the record tells whether the network has the best weights."""
    X, y = blobs()
    for options, reason in [({"epochs": 3}, "epochs"), ({"max_time": 0.0}, "max_time"),
                            ({"callbacks": [returns_true]}, "callback")]:  # fmt: skip
        net = Network([3, 8, 3], seed=0)
        history = net.fit(X, y, validation_fraction=0.2, patience=50, **options)
        assert (history.stopped, history.restored) == (reason, True)
    assert not Network([3, 3], seed=0).fit(X, y, epochs=1, patience=5).restored


def test_scores_that_are_all_nan_restore_nothing(engine):
    X, y = blobs()
    options = {"max_iter": 5, "early_stopping": True, "random_state": 0}
    options["scoring"] = lambda estimator, X, y: math.nan
    with warnings.catch_warnings(action="ignore"):
        clf = MLPClassifier((4,), **options).fit(X, y)
    assert clf.history_.best_epoch is None and not clf.history_.restored
    assert clf.network_.loss(X, y) < clf.loss_curve_[0]


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_convergence_of_an_estimator_is_tol(engine, kind):
    X, y = data_for(kind)
    model = kind(hidden_layer_sizes=(4,), tol=1e9, random_state=0).fit(X, y)
    history = model.history_
    assert (history.stopped, history.restored) == ("tol", False)
    assert model.n_iter_ == model.n_iter_no_change + 2
    assert history.best_epoch == model.best_iteration_


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_partial_fit_records_how_it_ended(engine, kind):
    X, y = data_for(kind)
    first = {"classes": [0, 1, 2]} if kind is MLPClassifier else {}
    model = kind(hidden_layer_sizes=(4,), random_state=0)
    assert model.partial_fit(X, y, **first).history_.stopped == "epochs"
    model.set_params(callbacks=[lambda state: np.True_])
    assert model.partial_fit(X, y).history_.stopped == "callback" and model.should_stop_


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_members_of_an_ensemble_record_their_own_end(engine, kind):
    X, y = data_for(kind)
    model = kind(hidden_layer_sizes=(4,), n_ensemble=2, random_state=0, tol=1e9).fit(X, y)
    assert [each.history_.stopped for each in model.estimators_] == ["tol", "tol"]
    model.set_params(callbacks=[returns_true], max_iter=7)
    model.fit(X, y)
    assert [each.history_.stopped for each in model.estimators_] == ["callback", "callback"]


def test_divergence_is_recorded(engine):
    X, y = waves(seed=1)
    options = {"solver": "sgd", "learning_rate_init": 1e20, "random_state": 0, "max_iter": 5}
    model = MLPRegressor("squared_error", (4,), "identity", **options)
    with pytest.raises(cmlp.DivergenceError):
        model.fit(X, y[:, 0])
    assert model.history_.stopped == "diverged"
    net = Network([3, 4, 1], "identity", seed=0)
    with pytest.raises(cmlp.DivergenceError):
        net.fit(X, y, learning_rate=1e20, epochs=5)
    assert net.history.stopped == "diverged"
    model.set_params(early_stopping=True)
    with pytest.warns(cmlp.ConvergenceWarning, match="best validation score are kept"):
        model.fit(X, y[:, 0])
    assert model.history_.stopped == "diverged" and not model.history_.restored
    model.set_params(learning_rate_init=0.9, max_iter=100, n_iter_no_change=99)
    with pytest.warns(cmlp.ConvergenceWarning, match="best validation score are kept"):
        model.fit(X, y[:, 0])
    assert model.history_.stopped == "diverged" and model.history_.restored


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("without_scipy", [False, True])
def test_lbfgs_records_how_it_ended(engine, kind, without_scipy, monkeypatch):
    if without_scipy:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    X, y = data_for(kind)
    options = {"hidden_layer_sizes": (4,), "solver": "lbfgs", "random_state": 0}

    def fit(**more):
        with warnings.catch_warnings(action="ignore"):
            return kind(**options | more).fit(X, y)

    assert fit(max_iter=2000, tol=1e-2).history_.stopped == "tol"
    assert fit(max_iter=2).history_.stopped == "epochs"
    timed = fit(max_time=0.0)
    assert timed.history_.stopped == "max_time" and timed.n_iter_ == 0
    assert timed.loss_ > fit(max_iter=1).loss_
    with refused(ValueError, "callbacks", "lbfgs"):
        fit(callbacks=[print])


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_ctrl_c_keeps_the_best_weights_of_lbfgs(engine, kind, monkeypatch):
    X, y = data_for(kind)
    backpropagate, losses = passes.backpropagate, []

    def interrupted(*arguments, **more):
        result = backpropagate(*arguments, **more)
        losses.append(result.loss)
        if len(losses) == 5:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(passes, "backpropagate", interrupted)
    options = {"hidden_layer_sizes": (4,), "solver": "lbfgs", "dtype": "float64", "alpha": 0.0}
    model = kind(random_state=0, **options)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    assert model.history_.stopped == "interrupted"
    assert model.loss_ == min(losses[:4])
    assert model.network_.loss(X, y) == pytest.approx(model.loss_, rel=1e-12)


# Callbacks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [True, np.True_, 1, np.int64(1), np.array(True), "stop"])
def test_what_is_true_ends_the_training(engine, answer):
    X, y = blobs()
    assert len(Network([3, 3], seed=0).fit(X, y, callbacks=[lambda s: answer])["loss"]) == 1
    clf = MLPClassifier((4,), random_state=0, callbacks=[lambda s: answer]).fit(X, y)
    assert clf.n_iter_ == 1 and clf.should_stop_


@pytest.mark.parametrize("answer", [None, False, np.False_, 0, np.array(False), ""])
def test_what_is_false_does_not(engine, answer):
    X, y = blobs()
    assert len(Network([3, 3], seed=0).fit(X, y, callbacks=[lambda s: answer])["loss"]) == 10


@pytest.mark.parametrize("event", ["on_train_begin", "on_epoch_end", "on_train_end"])
def test_an_answer_that_is_neither_is_refused(event):
    X, y = blobs()
    callback = type("Callback", (), {event: lambda self, state: np.ones(3)})()
    with refused(TypeError, "a callback must return True", "Callback", "ndarray"):
        Network([3, 3], seed=0).fit(X, y, epochs=1, callbacks=[callback])


@pytest.mark.parametrize(
    "answer", [np.ma.masked, np.ma.array(True, mask=True), np.ma.array([1.0], mask=[True])], ids=str
)
def test_a_masked_answer_is_refused(answer):
    X, y = blobs()
    for callbacks in ([lambda state: answer], [lambda state: setattr(state, "stop", answer)]):
        with refused(TypeError, "a callback must return True", "masked"):
            Network([3, 3], seed=0).fit(X, y, epochs=2, callbacks=callbacks)


def test_an_answer_that_is_set_must_be_true_or_false():
    X, y = blobs()
    with refused(TypeError, "a callback must return True", "set state.stop to a ndarray"):
        Network([3, 3], seed=0).fit(X, y, callbacks=[lambda s: setattr(s, "stop", np.ones(3))])


def test_the_next_callback_does_not_take_an_answer_back(engine):
    X, y = blobs()
    callbacks = [lambda state: True, lambda state: setattr(state, "stop", False)]
    history = Network([3, 3], seed=0).fit(X, y, callbacks=callbacks)
    assert history.stopped == "callback" and len(history["loss"]) == 1
    clf = MLPClassifier((4,), random_state=0, callbacks=callbacks).fit(X, y)
    assert clf.n_iter_ == 1 and clf.history_.stopped == "callback"


def test_a_training_that_a_callback_ends_before_it_begins(engine):
    X, y = blobs()
    callback = type("Callback", (), {"on_train_begin": lambda self, state: np.True_})()
    net = Network([3, 3], seed=0)
    before = net.params.copy()
    history = net.fit(X, y, callbacks=[callback])
    assert history.stopped == "callback" and not history.get("loss")
    np.testing.assert_array_equal(net.params, before)
    clf = MLPClassifier((4,), random_state=0, callbacks=[callback]).fit(X, y)
    assert clf.history_.stopped == "callback" and clf.n_iter_ == 0
    assert clf.predict(X).shape == y.shape


# Epochs in one call of the core ------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {}, {"solver": "adam", "batch_size": 7}, {"batch_size": 1}, {"batch_size": None},
    {"schedule": "cosine"}, {"schedule": schedules.Step(every=2, warmup_fraction=0.3)},
    {"patience": 2, "learning_rate": 0.3}, {"shuffle": False, "dropout": 0.3, "input_noise": 0.1},
    {"solver": "lion", "l1": 1e-3, "clip_norm": 0.5},
])  # fmt: skip
def test_epochs_in_one_call_are_those_of_many(engine, dtype, options, monkeypatch):
    X, y = blobs(61)
    weights = np.linspace(0.5, 2, len(y)) if len(options) == 1 else None
    calls, run = [], Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda *a: calls.append(1) or run(*a))
    nets, counts = [], []
    for callbacks in ([], [lambda state: None]):
        net = Network([3, 6, 3], "tanh", dtype=dtype, seed=0)
        options = {
            "epochs": 12 if options.get("batch_size") != 1 else 3,
            "sample_weight": weights,
        } | options
        records = [net.fit(X, y, callbacks=callbacks, **options) for _ in range(2)]
        nets.append((net, records))
        counts.append(len(calls))
        calls.clear()
    (net, records), (same, others) = nets
    assert counts[0] < counts[1] or engine.name == "python"
    assert net.params.tobytes() == same.params.tobytes()
    assert net.moments.tobytes() == same.moments.tobytes() and net.steps == same.steps
    assert net.rng.bit_generator.state == same.rng.bit_generator.state
    for record, other in zip(records, others, strict=True):
        for name in ("learning_rate", "loss", "epoch"):
            assert record[name] == other[name]
        assert (record.stopped, record.best_epoch) == (other.stopped, other.best_epoch)
        assert len(record["seconds"]) == len(record["loss"])


@pytest.mark.parametrize("options", [
    {"validation_fraction": 0.2}, {"verbose": 2}, {"max_time": 100}, {"ema": 0.9},
    {"schedule": "adaptive"}, {"schedule": lambda epoch: 0.1}, {"callbacks": [lambda s: None]},
])  # fmt: skip
def test_epochs_that_are_observed_have_a_call_each(engine, options, monkeypatch, capsys):
    X, y = blobs()
    monkeypatch.delattr(Trainer, "epochs")
    assert len(Network([3, 3], seed=0).fit(X, y, epochs=3, **options)["loss"]) == 3
    with pytest.raises(AttributeError, match="epochs"):
        Network([3, 3], seed=0).fit(X, y, epochs=3)


def test_the_epoch_that_diverges_is_found_among_many(engine):
    X, y = waves()
    errors = []
    for callbacks in ([], [lambda state: None]):
        net = Network([3, 4, 1], "identity", seed=0)
        with pytest.raises(cmlp.DivergenceError) as caught:
            net.fit(X, y, learning_rate=0.9, epochs=60, callbacks=callbacks)
        errors.append((str(caught.value), net.params.tobytes(), net.history["loss"]))
    assert errors[0] == errors[1]


# Steps of any length -----------------------------------------------------------------------------


def long_step(net, n=2500, **recipe):
    """A trainer whose only step takes several passes, and its arguments."""
    X, y = blobs(n)
    weights = np.linspace(0.5, 1, n)
    data = net.encode_rows(X, y, weights if net.loss_row is not None else None)
    trainer = Trainer(net, data, Recipe(**recipe), n, 1)
    return trainer, np.arange(n), np.full(1, 0.1)


@pytest.mark.parametrize(
    "n_threads, normalization, n", covering([1, 3], [None, "batch", "layer"], [40, 2500])
)
def test_a_stopped_step_changes_no_weight(core, dtype, n_threads, normalization, n):
    """The flag is set before the call: all threads leave at the first meeting."""
    X, y = blobs(n)
    net = Network([3, 40, 33, 3], "tanh", dtype=dtype, seed=0, normalization=normalization)
    net.optimizer_state.moments_for(Recipe(solver="adam").rule)
    data, recipe = net.encode_rows(X, y), Recipe(solver="adam")
    before = net.params.copy()
    team = seam.places()
    team[seam.TEAM_STOP] = 1
    size = core.workspace_size(net.plan, n, n_threads)
    workspace, grads = np.zeros(size, dtype), np.zeros_like(net.params)

    def run(rank):
        return core.train_epoch(
            net.plan, net.params, net.moments, data.X, data.targets, None, np.arange(n), n,
            np.full(1, 0.1), 0, recipe.objective(net.architecture),
            recipe.optimizer(net.architecture), recipe.noise(net.architecture, 0), grads, workspace,
            rank, n_threads, team, 1.0, None,
        )  # fmt: skip

    with ThreadPoolExecutor(n_threads) as pool:
        results = list(pool.map(run, range(n_threads)))
    assert {taken for _, taken in results} == {0}
    np.testing.assert_array_equal(net.params, before)
    assert not net.moments.any() and team[seam.TEAM_STEPS] == 0


def test_a_stopped_gradient_is_nan(core, dtype):
    X, y = blobs(2500)
    net = Network([3, 8, 3], dtype=dtype, seed=0)
    team = seam.places()
    data, objective = net.encode_rows(X, y), net.architecture.objective()
    assert math.isfinite(passes.backpropagate(net, data, objective, team=team).loss)
    team[seam.TEAM_STOP] = 1
    assert math.isnan(passes.backpropagate(net, data, objective, team=team).loss)


@pytest.mark.parametrize("loss", [None, squared_error], ids=["built-in", "custom"])
@pytest.mark.parametrize("normalization", [None, "batch"])
def test_a_deadline_in_the_first_step(engine, loss, normalization, monkeypatch):
    """No step is done, no epoch recorded, nothing changed; the threads have ended."""
    monkeypatch.setattr(passes, "CALL_FLOPS", 1.0)
    monkeypatch.setattr(team, "POLL", 0.0)
    net = Network([3, 300, 300, 3], loss=loss, seed=0, normalization=normalization)
    X, y = blobs(40_000)
    before, threads = net.params.copy(), threading.active_count()
    for options in ({"solver": "adam"}, {"clip_norm": 1.0}):
        history = net.fit(X, y, batch_size=None, epochs=3, max_time=0.0, **options)
        assert history.stopped == "max_time" and not history.get("loss")
        np.testing.assert_array_equal(net.params, before)
        assert net.steps == 0 and not net.moments.any()
    assert threading.active_count() == threads


def test_a_custom_step_stopped_on_its_way_back_changes_nothing(engine, monkeypatch):
    """Running statistics of the passes that were done are undone with them."""
    monkeypatch.setattr(passes, "CALL_FLOPS", 1.0)
    monkeypatch.setattr(team, "POLL", 0.0)
    net = Network([3, 40, 3], loss=squared_error, seed=0, normalization="batch")
    before, gradient = net.params.copy(), engine.gradient

    def stopped_late(*arguments):
        gradient(*arguments)
        assert not np.array_equal(net.params, before)  # the statistics of all passes
        arguments[-1][seam.TEAM_STOP] = 1
        return math.nan

    monkeypatch.setattr(engine, "gradient", stopped_late)
    X, y = blobs(3000)
    trainer = Trainer(net, net.encode_rows(X, y), Recipe(), 3000, 1)
    trainer.run(np.arange(3000), np.full(1, 0.1))
    trainer.close()
    assert trainer.stopped and net.steps == 0
    np.testing.assert_array_equal(net.params, before)


def test_a_step_that_is_not_stopped_is_the_same(engine, monkeypatch):
    """A long step runs in another thread than the one that waits for it, with the same result."""
    X, y = blobs(3000)
    nets = [Network([3, 40, 3], seed=0, normalization="batch") for _ in range(2)]
    histories = [nets[0].fit(X, y, batch_size=1500, epochs=2)]
    monkeypatch.setattr(passes, "CALL_FLOPS", 1.0)
    histories.append(nets[1].fit(X, y, batch_size=1500, epochs=2))
    np.testing.assert_array_equal(nets[0].params, nets[1].params)
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-12)


def test_a_pass_that_is_long_is_the_same():
    """From 6e10 operations on the update comes after the gradient, so that it can be stopped."""
    n, width = 1024, 3200
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, width)).astype(np.float32)
    y = np.arange(n) % 10
    net = Network([width, width, 10], seed=0)
    assert passes.flops_of(net) * n > 6e10
    gradients = net.gradients(X[:n], y)
    expected = [W - 0.1 * dW for W, dW in zip(net.weights, gradients.weights, strict=True)]
    net.step(X, y, learning_rate=0.1, momentum=0.0)
    for W, wanted in zip(net.weights, expected, strict=True):
        np.testing.assert_allclose(W, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_team_raises_what_a_rank_raises(size):
    def fails(rank, team):
        raise LookupError("mine")

    team = Team(size)
    with pytest.raises(LookupError, match="mine"):
        team.run(fails, seam.places())
    assert team.run(lambda rank, places: rank, seam.places()) == 0
    team.close()


def test_where_no_thread_starts_the_call_runs_in_this_one(engine, monkeypatch):
    def refuses(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    monkeypatch.setattr(passes, "CALL_FLOPS", 1.0)
    X, y = blobs()
    assert len(Network([3, 3], seed=0).fit(X, y, epochs=2, n_threads=1)["loss"]) == 2


def test_a_deadline_knows_its_reason():
    assert not stopping.Deadline(None).is_set and not stopping.Deadline(None)()
    assert stopping.Deadline(0.0)() and stopping.Deadline(0.0).reason == "max_time"
    assert stopping.Deadline(1e9).reason == ""
    assert stopping.Deadline(0.0, lambda: True).reason == "interrupted"
    assert not stopping.Deadline(None, lambda: True).is_set


def test_patience_counts_epochs_since_the_lowest_loss():
    patience = stopping.Patience(3, keeps=True)
    lefts = []
    for epoch, loss in enumerate([5.0, 4.0, 4.0, math.nan, 4.5], 1):
        patience.see(loss, epoch, np.full(2, float(epoch)))
        lefts.append(patience.left(epoch))
    assert lefts == [3, 3, 2, 1, 0] and patience.best_epoch == 2
    np.testing.assert_array_equal(patience.params, [2.0, 2.0])


@pytest.mark.parametrize("epochs", [None, 2])
def test_patience_keeps_weights_if_they_can_be_restored(epochs):
    patience = stopping.Patience(epochs, keeps=epochs is None)
    patience.see(1.0, 1, np.ones(2))
    assert patience.params is None and patience.left(9) == (math.inf if epochs is None else -6)


LONG_STEP = """
import signal, sys, threading, time, warnings
import numpy as np, cmlp

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
warnings.simplefilter("always")
core, n_threads, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
n, sizes = 60_000, [64, 1024, 1024, 10]
if kind == "wide":
    n, sizes = 1024, [3000, 3000, 3000, 10]  # a single pass
X, y = rng.standard_normal((n, sizes[0]), "f4"), np.arange(n) % 10
normalization = kind if kind == "batch" else None
def own(outputs, targets):
    return 0.0, np.zeros_like(outputs)
class Announced:
    def on_train_begin(self, state):
        print("ready", flush=True)
threads = threading.active_count()
with cmlp.use_core(core):
    if kind == "lbfgs":
        clf = cmlp.MLPClassifier((1024, 1024), solver="lbfgs", random_state=0, max_iter=9)
        def announce():
            while not hasattr(clf, "network_"):
                time.sleep(0.01)
            print("ready", flush=True)
        announcer = threading.Thread(target=announce)
        announcer.start()
        clf.fit(X, y)
        history, net, same = clf.history_, clf.network_, True
    else:
        loss = own if kind == "custom" else None
        net = cmlp.Network(sizes, loss=loss, seed=0, normalization=normalization)
        before = net.params.copy()
        options = {"batch_size": None, "n_threads": n_threads, "epochs": 9}
        options["callbacks"] = [Announced()]
        if kind == "max_time":
            options["max_time"] = 0.1
        history = net.fit(X, y, **options)
        same = np.array_equal(before, net.params)
epochs, threads = len(history.get("loss", [])), threading.active_count() - threads
print(history.stopped, net.steps, same, epochs, threads)
"""


LONG_STEPS = [
    ("plain", 1), ("plain", 2), ("batch", 1), ("custom", 1), ("lbfgs", 1), ("wide", 1),
    ("max_time", 2),
]  # fmt: skip


@pytest.mark.skipif(not hasattr(signal, "SIGINT"), reason="no such signal")
@pytest.mark.parametrize("kind, n_threads, core", [
    *((kind, n, CORES[0]) for kind, n in LONG_STEPS),
    *((kind, 1, "python") for kind in ("plain", "wide", "max_time") if CORES[0] != "python"),
])  # fmt: skip
def test_a_step_of_minutes_is_stopped(kind, n_threads, core):
    """By Ctrl-C or the clock, with the weights of the last whole step: there is none."""
    process = python_process("-c", LONG_STEP, core, n_threads, kind)
    try:
        assert process.stdout.readline() == "ready\n"
        if kind != "max_time":
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=100)
    finally:
        process.kill()
    reason = "max_time" if kind == "max_time" else "interrupted"
    assert text.splitlines()[-1] == f"{reason} 0 True 0 0", text


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("normalization", [None, "batch"])
def test_predictions_in_portions_are_those_of_one_call(
    core, dtype, sparse, normalization, monkeypatch
):
    """Ctrl-C is heard between the calls of the core."""
    X, y = blobs(2500)
    if sparse:
        X = pytest.importorskip("scipy.sparse").csr_matrix(np.where(X > 0, X, 0))
    net = Network([3, 8, 3], dtype=dtype, seed=0, normalization=normalization)
    net.fit(X, y, epochs=1)
    clf = MLPClassifier((4,), random_state=0, max_iter=2)
    with warnings.catch_warnings(action="ignore"):
        clf.fit(X, y)

    def answers():
        return net.predict(X), net.loss(X, y), net.score(X, y), clf.transform(X)

    whole, calls, predict = answers(), [], core.predict
    monkeypatch.setattr(passes, "CALL_FLOPS", 1.0)
    monkeypatch.setattr(core, "predict", lambda *a: calls.append(1) or predict(*a))
    for one, other in zip(whole, answers(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(calls) == 6 if sparse or core.name == "python" else len(calls) >= 3


# Weights of the rows for a loss of one's own -----------------------------------------------------


def weighted(outputs, targets, sample_weight=None):
    error = outputs - targets
    shares = np.full(len(error), 1.0) if sample_weight is None else sample_weight
    shares = (shares / shares.sum())[:, None]
    return float((0.5 * error**2 * shares).sum()), error * shares


def requires_weights(outputs, targets, sample_weight):
    assert sample_weight.dtype == np.float64 and sample_weight.shape == (len(outputs),)
    return weighted(outputs, targets, sample_weight)


class Callable:
    def __call__(self, outputs, targets, sample_weight=None):
        return weighted(outputs, targets, sample_weight)


def by_keyword(outputs, targets, *, sample_weight=None):
    return weighted(outputs, targets, sample_weight)


def requires_keyword(outputs, targets, *, sample_weight):
    return requires_weights(outputs, targets, sample_weight)


def fourth(outputs, targets, factor=1.0, sample_weight=None):
    value, slope = weighted(outputs, targets, sample_weight)
    return factor * value, factor * slope


LOSSES = [
    weighted, requires_weights, Callable(), by_keyword, requires_keyword, fourth,
    functools.partial(fourth, factor=1), lambda o, t, w=None: weighted(o, t, w),
]  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch_size", [None, 7])
def test_a_custom_loss_takes_weights(engine, dtype, loss, batch_size):
    """It is the built-in one in training, gradients and loss; also with weights of 0."""
    X, y = waves(60, n_out=2)
    weights = np.where(np.arange(60) % 5, np.linspace(0.5, 2, 60), 0)
    weights[:7] = 0  # a whole batch
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    nets = [Network([3, 8, 2], "tanh", "identity", kind, dtype=dtype, seed=0)
            for kind in ("squared_error", loss)]  # fmt: skip
    options = {"batch_size": batch_size, "epochs": 3, "shuffle": False, "l2": 1e-3}
    histories = [net.fit(X, y, sample_weight=weights, **options) for net in nets]
    np.testing.assert_allclose(histories[1]["loss"], histories[0]["loss"], rtol=tolerance)
    np.testing.assert_allclose(nets[1].params, nets[0].params, rtol=100 * tolerance, atol=tolerance)
    one, other = (net.gradients(X, y, weights) for net in nets)
    for came, expected in zip(other.weights, one.weights, strict=True):
        np.testing.assert_allclose(came, expected, rtol=100 * tolerance, atol=tolerance)
    assert nets[1].loss(X, y, weights) == pytest.approx(nets[0].loss(X, y, weights), rel=tolerance)
    assert nets[1].loss(X, y) == pytest.approx(nets[0].loss(X, y), rel=10 * tolerance)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_an_estimators_custom_loss_takes_weights(engine, solver):
    X, y = waves(60)
    weights = np.where(np.arange(60) % 5, np.linspace(0.5, 2, 60), 0)
    options = {"max_iter": 4, "random_state": 0, "dtype": "float64", "solver": solver, "alpha": 0.1,
               "batch_size": 7}  # fmt: skip
    fits = []
    for loss in ("squared_error", weighted):
        with warnings.catch_warnings(action="ignore"):
            model = MLPRegressor(loss, (8,), **options)
            fits.append(model.fit(X, y[:, 0], weights, X_val=X, y_val=y[:, 0],
                                  sample_weight_val=weights))  # fmt: skip
    one, other = fits
    np.testing.assert_allclose(other.network_.params, one.network_.params, rtol=1e-7, atol=1e-12)
    assert other.loss_ == pytest.approx(one.loss_, rel=1e-9)
    if solver != "lbfgs":
        np.testing.assert_allclose(other.validation_loss_curve_, one.validation_loss_curve_)


def test_a_custom_loss_without_the_argument_refuses_weights():
    X, y = waves(9)
    for ask in (Network([3, 1], loss=squared_error).fit, MLPRegressor(squared_error, (3,)).fit):
        with refused(ValueError, "sample_weight", "loss(outputs, targets, sample_weight)"):
            ask(X, y[:, 0], sample_weight=np.ones(9))


def test_a_third_argument_of_another_meaning_gets_no_weights():
    def scaled(outputs, targets, delta=1.0):
        assert delta == 1.0
        return squared_error(outputs, targets)

    X, y = waves(9)
    net = Network([3, 1], loss=scaled, seed=0)
    with refused(ValueError, "sample_weight needs a loss with a third argument"):
        net.fit(X, y[:, 0], sample_weight=np.ones(9))
    assert np.isfinite(net.fit(X, y[:, 0], epochs=1)["loss"]).all()
