"""The fit loop: what it repeats exactly, when it stops, and what it keeps after a failure."""

import math
import re
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import blobs, covering, python_process, refused, squared_error, waves

import cmlp
from cmlp import DivergenceError, Network
from cmlp.core import dispatch
from cmlp.data import split
from cmlp.model import passes
from cmlp.training import fit
from cmlp.training.recipe import Recipe
from cmlp.training.trainer import Trainer

EVERYTHING = {
    "solver": "adamw",
    "weight_decay": 0.01,
    "dropout": 0.2,
    "input_noise": 0.1,
    "label_smoothing": 0.1,
    "clip_norm": 1.0,
    "l1": 1e-4,
    "l2": 1e-3,
    "schedule": "one_cycle",
    "validation_fraction": 0.2,
    "patience": 3,
}
LEARNED = ("epoch", "loss", "val_loss", "val_score", "learning_rate")
"""Parts of a history that the clock has no hand in."""


def trained(X, y, sizes=(3, 8, 3), dtype="float32", seed=0, loss=None, **options):
    """A network and the history of its training."""
    net = Network(sizes, "tanh", loss=loss, dtype=dtype, seed=seed)
    return net, net.fit(X, y, **options)


def assert_same(net, other):
    """Two networks agree in every bit from which training continues."""
    np.testing.assert_array_equal(net.params, other.params)
    np.testing.assert_array_equal(net.moments, other.moments)
    assert net.steps == other.steps


# Repeatable ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_the_seed_decides(engine, dtype, options):
    X, y = blobs()
    net, history = trained(X, y, dtype=dtype, **options)
    again, same = trained(X, y, dtype=dtype, **options)
    assert_same(net, again)
    for key in LEARNED:
        assert history.get(key) == same.get(key)
    other, _ = trained(X, y, dtype=dtype, seed=1, **options)
    assert not np.array_equal(net.params, other.params)


@pytest.mark.usefixtures("threads_at_any_size")
@pytest.mark.parametrize(
    "sizes, batch_size, options",
    covering([(3, 3), (3, 1, 3), (3, 40, 33, 3)], [1, 7, None], [{}, EVERYTHING]),
)
def test_the_number_of_threads_does_not_matter(core, dtype, sizes, batch_size, options):
    X, y = blobs(45)
    if len(sizes) == 2:
        options = {**options, "dropout": 0.0}
    nets = [
        trained(X, y, sizes, dtype, batch_size=batch_size, epochs=3, n_threads=n, **options)[0]
        for n in (1, 2, 3)
    ]
    assert_same(nets[0], nets[1])
    assert_same(nets[0], nets[2])


@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw", "rmsprop"])
def test_two_fits_are_one_longer(engine, dtype, solver):
    X, y = blobs()
    options = {"solver": solver, "shuffle": False, "batch_size": 25}
    whole, history = trained(X, y, dtype=dtype, epochs=5, **options)
    parts, first = trained(X, y, dtype=dtype, epochs=2, **options)
    second = parts.fit(X, y, epochs=3, **options)
    assert_same(whole, parts)
    assert first["loss"] + second["loss"] == history["loss"] == parts.history["loss"]
    assert second["epoch"] == [3, 4, 5] and parts.history["epoch"] == [1, 2, 3, 4, 5]


def test_another_solver_starts_afresh(engine):
    X, y = blobs()
    net, _ = trained(X, y, solver="adam", epochs=2)
    net.fit(X, y, solver="sgd", epochs=1, batch_size=None)
    assert net.steps == 1 and net.moments.shape == (1, len(net.params))


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_steps_are_an_epoch_are_a_fit(engine, dtype, solver):
    X, y = blobs(50)
    recipe = {"solver": solver, "learning_rate": 0.02}
    nets = [Network([3, 8, 3], "tanh", dtype=dtype, seed=0) for _ in range(3)]
    loss = nets[0].fit(X, y, epochs=1, batch_size=20, shuffle=False, **recipe)["loss"][0]
    assert nets[1].train_epoch(X, y, batch_size=20, shuffle=False, **recipe) == loss
    parts = [nets[2].step(X[at : at + 20], y[at : at + 20], **recipe) for at in (0, 20, 40)]
    assert loss == pytest.approx((20 * parts[0] + 20 * parts[1] + 10 * parts[2]) / 50, rel=1e-6)
    assert_same(nets[0], nets[1])
    assert_same(nets[0], nets[2])


def test_a_step_is_the_textbooks(engine):
    X, y = waves(8)
    net = Network([3, 4, 1], "tanh", dtype="float64", seed=0)
    dC, before = net.gradients(X, y), [W.copy() for W in net.weights]
    assert net.step(X, y, learning_rate=0.1, momentum=0) == pytest.approx(dC.loss, rel=1e-14)
    for W, old, dW in zip(net.weights, before, dC.weights, strict=True):
        np.testing.assert_allclose(W, old - 0.1 * dW, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("batch_size, steps", [(1, 60), (32, 2), (59, 2), (None, 1), (1000, 1)])
def test_batches(engine, batch_size, steps):
    X, y = blobs()
    net, history = trained(X, y, batch_size=batch_size, epochs=3)
    assert net.steps == 3 * steps
    assert len(history["loss"]) == 3 and history["loss"][-1] < history["loss"][0]


def test_shuffling_changes_the_order_only(engine):
    X, y = blobs()
    shuffled, _ = trained(X, y, batch_size=7, epochs=1, dtype="float64")
    straight, _ = trained(X, y, batch_size=7, epochs=1, shuffle=False, dtype="float64")
    assert not np.array_equal(shuffled.params, straight.params)
    whole, _ = trained(X, y, batch_size=None, epochs=1, dtype="float64")
    plain, _ = trained(X, y, batch_size=None, epochs=1, shuffle=False, dtype="float64")
    np.testing.assert_allclose(whole.params, plain.params, rtol=1e-10, atol=1e-14)


def test_inputs_are_left_alone(engine):
    X, y = waves(30)
    kept = X.copy(), y.copy()
    net = Network([3, 4, 1], loss=spoiling, dtype="float64", seed=0)
    net.fit(X, y, epochs=1)
    net.loss(X, y), net.gradients(X, y), net.check_gradients(X, y, entries=1)
    trained(X, y, (3, 4, 1), dtype="float64", input_noise=0.5)
    np.testing.assert_array_equal(X, kept[0])
    np.testing.assert_array_equal(y, kept[1])


def spoiling(outputs, targets):
    """A loss that writes into what it was given."""
    value, slope = squared_error(outputs, targets)
    targets[:] = outputs[:] = 0
    return value, slope


# Odd data -----------------------------------------------------------------------------------------

X60, Y60 = blobs()
ODD = {
    "one row": (X60[:1], Y60[:1], (3, 4, 3), {}),
    "one class": (X60, Y60 * 0, (3, 4, 3), {}),
    "constant features": (np.ones((60, 3)), Y60, (3, 4, 3), {}),
    "zero features": (np.zeros((60, 3)), Y60, (3, 4, 3), {"solver": "adam"}),
    "a batch without weight": (
        X60, Y60, (3, 4, 3), {"sample_weight": np.r_[np.zeros(20), np.ones(40)], "shuffle": False},
    ),
    "one row with weight": (X60, Y60, (3, 4, 3), {"sample_weight": np.eye(60)[7]}),
    "units of one": (X60, Y60, (3, 1, 1, 1, 3), {}),
    "fifty layers": (X60, Y60, (3, *[5] * 50, 3), {"solver": "adam"}),
    "wide": (X60, Y60, (3, 700, 3), {}),
    "no hidden layer": (X60, Y60, (3, 3), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_data(core, dtype, case):
    X, y, sizes, options = ODD[case]
    net, history = trained(X, y, sizes, dtype, batch_size=20, epochs=2, **options)
    assert np.isfinite(net.params).all() and np.isfinite(history["loss"]).all()
    assert np.isfinite(net.predict(X)).all()


def test_rows_without_weight_teach_nothing(engine):
    X, y = blobs()
    weight = np.r_[np.ones(40), np.zeros(20)]
    spoiled = X.copy()
    spoiled[40:] = 99
    options = {"sample_weight": weight, "shuffle": False, "batch_size": 20, "dtype": "float64"}
    net, history = trained(X, y, **options)
    other, same = trained(spoiled, y, **options)
    np.testing.assert_array_equal(net.params, other.params)
    assert history["loss"] == same["loss"]


def test_validation_rows_without_weight(engine):
    X, y = blobs(20)
    weight = np.r_[np.ones(5), np.zeros(15)]
    for seed in range(5):
        _, history = trained(
            X, y, seed=seed, sample_weight=weight, validation_fraction=0.1, epochs=1
        )
        assert not math.isinf(history["val_loss"][0])


# Parameters ---------------------------------------------------------------------------------------

WRONG = {
    "solver": ("adamm", ValueError, ("Unknown solver 'adamm'", "'adam'?")),
    "learning_rate": (-0.1, ValueError, ("learning_rate", "at least 0", "-0.1")),
    "momentum": (1.5, ValueError, ("momentum", "at most 1", "1.5")),
    "beta_1": (-0.1, ValueError, ("beta_1", "at least 0")),
    "beta_2": (1, ValueError, ("beta_2", "below 1")),
    "epsilon": (-1e-8, ValueError, ("epsilon",)),
    "l1": (-1, ValueError, ("l1", "at least 0")),
    "l2": (math.nan, ValueError, ("l2", "nan")),
    "weight_decay": ("a", TypeError, ("weight_decay", "number", "'a'")),
    "input_noise": (None, TypeError, ("input_noise", "number", "None")),
    "label_smoothing": (1.0, ValueError, ("label_smoothing", "below 1")),
    "clip_norm": (0, ValueError, ("clip_norm", "above 0", "None")),
    "dropout": (1.0, ValueError, ("dropout", "below 1")),
    "epochs": (2.5, TypeError, ("epochs", "whole number", "2.5")),
    "batch_size": (0, ValueError, ("batch_size", "at least 1", "0")),
    "patience": (0, ValueError, ("patience", "at least 1")),
    "n_threads": (0, ValueError, ("n_threads", "at least 1")),
    "max_time": (-1, ValueError, ("max_time", "at least 0")),
    "validation_fraction": (1.0, ValueError, ("validation_fraction", "below 1")),
    "schedule": ("cosin", ValueError, ("schedule 'cosin'", "'cosine'?", "one_cycle")),
    "callbacks": ([3], TypeError, ("a function or have a method on_train_begin", "; 3 has none")),
    "X_val": (X60, ValueError, ("X_val and y_val go together",)),
    "y_val": (Y60, ValueError, ("X_val and y_val go together",)),
}
PER_EPOCH = ("batch_size", "n_threads", "learning_rate", "solver", "dropout", "momentum")


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_are_refused(name):
    value, kind, parts = WRONG[name]
    net = Network([3, 4, 3], seed=0)
    before = net.params.copy()
    with refused(kind, *parts):
        net.fit(X60, Y60, **{name: value})
    if name in PER_EPOCH:
        with refused(kind, *parts):
            net.train_epoch(X60, Y60, **{name: value})
    np.testing.assert_array_equal(net.params, before)


@pytest.mark.parametrize("name", ["learning_rate", "l2", "weight_decay", "input_noise"])
@pytest.mark.parametrize("value", ["0.1", math.inf], ids=repr)
def test_text_and_infinity_are_no_numbers(name, value):
    with refused((TypeError, ValueError), name, repr(value)):
        Network([3, 3]).fit(X60, Y60, **{name: value})


@pytest.mark.parametrize(
    "sizes, dropout, parts",
    [
        ((3, 4, 3), [0.1, 0.2], ("dropout", "1", "not 2", "hidden layer")),
        ((3, 4, 4, 3), [0.1], ("dropout", "2", "not 1", "hidden layer")),
        ((3, 3), 0.1, ("dropout needs a hidden layer",)),
        ((3, 4, 4, 3), [0.1, -0.1], ("dropout", "at least 0")),
        ((3, 4, 3), "much", ("dropout", "much")),
    ],
    ids=str,
)
def test_wrong_dropout(sizes, dropout, parts):
    with refused((ValueError, TypeError), *parts):
        Network(sizes).fit(X60, Y60, dropout=dropout)


def test_dropout_per_layer(engine):
    net, _ = trained(X60, Y60, (3, 8, 8, 3), dropout=[0.5, 0.0], epochs=1)
    other, _ = trained(X60, Y60, (3, 8, 8, 3), dropout=[0.0, 0.5], epochs=1)
    assert not np.array_equal(net.params, other.params)
    np.testing.assert_array_equal(net.predict(X60), net.predict(X60))  # training only


@pytest.mark.parametrize("loss", ["squared_error", "huber", "poisson", squared_error], ids=str)
def test_label_smoothing_is_for_labels(loss):
    with refused(ValueError, "label_smoothing", "cross-entropy"):
        Network([3, 1], loss=loss).fit(X60, Y60, label_smoothing=0.1)


def test_one_kind_of_validation():
    with refused(ValueError, "not both"):
        trained(X60, Y60, X_val=X60, y_val=Y60, validation_fraction=0.1)


def test_unknown_options_are_named():
    net = Network([3, 3])
    for call in (net.fit, net.train_epoch, net.step, net.trace_step):
        with refused(TypeError, "learningrate"):
            call(X60, Y60, learningrate=0.1)


# Validation and stopping --------------------------------------------------------------------------


class Spy:
    """A callback with every event; keeps the weights of each epoch."""

    def __init__(self):
        self.events, self.params = [], []

    def on_train_begin(self, state):
        self.events.append(("begin", state.epoch))

    def on_epoch_end(self, state):
        self.events.append(("epoch", state.epoch))
        self.params.append(state.network.params.copy())

    def on_train_end(self, state):
        self.events.append(("end", state.epoch))
        self.params.append(state.network.params.copy())


def test_every_event_is_told(engine):
    spy, seen = Spy(), []
    _, history = trained(
        X60, Y60, epochs=2, callbacks=[spy, lambda s: seen.append(s.history["loss"][-1])]
    )
    assert spy.events == [("begin", 0), ("epoch", 1), ("epoch", 2), ("end", 2)]
    assert seen == history["loss"] and history.stopped == "epochs"


def test_the_best_weights_come_back(engine, dtype):
    spy = Spy()
    rng = np.random.default_rng(0)
    net, history = trained(
        X60, rng.permutation(Y60), (3, 50, 3), dtype, X_val=X60, y_val=rng.permutation(Y60),
        epochs=200, learning_rate=0.3, patience=4, callbacks=[spy],
    )  # fmt: skip
    best = int(np.argmin(history["val_loss"]))
    assert history.stopped == "patience" and history.best_epoch == best + 1
    assert len(history["loss"]) == best + 1 + 4
    np.testing.assert_array_equal(net.params, spy.params[best])
    np.testing.assert_array_equal(spy.params[-1], spy.params[best])  # the end is told after it
    assert net.loss(X60, rng.permutation(Y60)) != history["val_loss"][best]


def test_patience_without_validation_watches_the_training_loss(engine):
    spy = Spy()
    net, history = trained(
        X60, Y60, epochs=50, learning_rate=0.0, patience=3, shuffle=False, callbacks=[spy]
    )
    assert history.stopped == "patience" and len(history["loss"]) == 4
    assert history.best_epoch == 1 and "val_loss" not in history
    np.testing.assert_array_equal(net.params, spy.params[-2])


def test_one_validation_row_has_no_r2(engine):
    """The loss decides, as ever; the score is NaN, without a word in every epoch."""
    X, y = waves(40)
    net = Network([3, 6, 1], "tanh", seed=0)
    history = net.fit(X[1:], y[1:], X_val=X[:1], y_val=y[:1], epochs=8, patience=3, verbose=2)
    assert np.isnan(history["val_score"]).all()
    losses = history["val_loss"]
    assert history.best_epoch == np.argmin(losses) + 1
    assert net.loss(X[:1], y[:1]) == pytest.approx(min(losses), rel=1e-6)
    with pytest.raises(ValueError, match="no validation scores"):
        cmlp.plot.validation_curve(net)
    history = net.fit(X, y, validation_fraction=0.02, epochs=1)
    assert np.isnan(history["val_score"]).all() and np.isfinite(history["val_loss"]).all()
    assert net.diagnose(X, y, X_val=X[:1], y_val=y[:1]).findings is not None


def test_patience_in_the_last_epoch_brings_the_best_back():
    spy = Spy()
    net, history = trained(
        X60, Y60, X_val=X60, y_val=np.roll(Y60, 1), epochs=5, learning_rate=0.5, patience=50,
        callbacks=[spy],
    )  # fmt: skip
    assert history.stopped == "epochs"
    np.testing.assert_array_equal(net.params, spy.params[int(np.argmin(history["val_loss"]))])


def test_validation_numbers_are_the_networks_own(engine):
    net, history = trained(X60, Y60, X_val=X60[::2], y_val=Y60[::2], epochs=3)
    assert history["val_loss"][-1] == net.loss(X60[::2], Y60[::2])
    assert history["val_score"][-1] == net.score(X60[::2], Y60[::2])
    assert history.metric == "accuracy"
    X, y = waves()
    assert trained(X, y, (3, 1), X_val=X, y_val=y, epochs=1)[1].metric == "r2"


def test_the_networks_history_has_all_epochs():
    net, _ = trained(X60, Y60, X_val=X60, y_val=Y60, epochs=2)
    assert net.history.metric == "accuracy"
    net.fit(X60, Y60, epochs=1)
    net.fit(X60, Y60, X_val=X60, y_val=Y60, epochs=1)
    assert {key: len(values) for key, values in net.history.items()} == dict.fromkeys(
        net.history, 4
    ), "columns of different length cannot be read side by side"


@pytest.mark.parametrize("n_out, loss", [(2, None), (1, "bce")])
def test_held_out_rows_keep_the_proportions(n_out, loss):
    y = (np.arange(200) >= 180).astype(int)
    X = np.arange(200.0)[:, None]
    X[:, 0] /= 200
    held_out = []
    for seed in range(8):
        net = Network([1, n_out], loss=loss, seed=seed)
        train, validation = split.split(
            fit._strata(net, net.encode_rows(X, y).targets), 0.2, net.rng
        )
        np.testing.assert_array_equal(np.sort(np.r_[train, validation]), np.arange(200))
        assert len(validation) == 40 and y[validation].sum() == 4
        held_out.append(tuple(validation))
    assert len(set(held_out)) == 8, "the split does not depend on the seed"


def test_rows_held_out_are_not_trained_on(engine):
    """Wrong labels on a held-out row change nothing but the validation loss."""
    X, y = np.repeat(np.eye(3), 20, axis=0), np.repeat(np.arange(3), 20)
    net, history = trained(X, y, validation_fraction=0.25, epochs=3)
    changed = y.copy()
    probe = Network([3, 8, 3], "tanh", seed=0)
    _, validation = split.split(probe.encode_rows(X, y).targets, 0.25, probe.rng)
    swap = validation[:3], validation[-3:]  # of different classes, so that the split stays
    changed[swap[0]], changed[swap[1]] = y[swap[1]], y[swap[0]]
    order = np.arange(60)
    order[swap[0]], order[swap[1]] = swap[1], swap[0]
    other, different = trained(X[order], y, validation_fraction=0.25, epochs=3)
    np.testing.assert_array_equal(net.params, other.params)
    assert history["loss"] == different["loss"]


@pytest.mark.parametrize("fraction, n", [(0.01, 10), (0.99, 10), (0.5, 1)])
def test_a_part_without_rows_is_refused(fraction, n):
    with refused(ValueError, f"validation_fraction={fraction:g} of {n} rows", "at least one"):
        trained(X60[:n], Y60[:n], validation_fraction=fraction)


@pytest.mark.parametrize("way", ["returns", "sets"])
def test_a_callback_ends_training(engine, way):
    def enough(state):
        if state.epoch == 2 and way == "sets":
            state.stop = True
        return state.epoch == 2 and way == "returns"

    net, history = trained(X60, Y60, epochs=9, callbacks=[enough])
    assert history.stopped == "callback" and len(history["loss"]) == 2 and net.steps == 4


def test_an_early_stop_before_the_first_epoch():
    class Never:
        def on_train_begin(self, state):
            return True

    net, history = trained(X60, Y60, callbacks=[Never()])
    assert history == {} and history.best_epoch is None and net.steps == 0
    assert trained(X60, Y60, epochs=0)[1] == {}


@pytest.mark.usefixtures("threads_at_any_size")
@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_failing_callback_leaves_no_threads(engine, n_threads):
    def fails(state):
        raise LookupError("mine")

    before = threading.active_count()
    net = Network([3, 8, 3], seed=0)
    with pytest.raises(LookupError, match="mine"):
        net.fit(X60, Y60, callbacks=[fails], n_threads=n_threads)
    assert threading.active_count() == before
    assert len(net.history["loss"]) == 1
    net.fit(X60, Y60, epochs=1, n_threads=n_threads)


class Slow:
    """Wait after some calls of the core, and count them."""

    def __init__(self, monkeypatch, seconds):
        self.calls, self.seconds, self.run = 0, seconds, Trainer.run
        monkeypatch.setattr(Trainer, "run", lambda *args: self(*args))

    def __call__(self, *args):
        self.calls += 1
        time.sleep(self.seconds)
        return self.run(*args)


def test_max_time_ends_within_an_epoch(engine, monkeypatch):
    monkeypatch.setattr(passes, "CALL_FLOPS", 1.0)  # one step per call
    slow = Slow(monkeypatch, 0.02)
    net, history = trained(X60, Y60, batch_size=1, epochs=5, max_time=0.05)
    assert history.stopped == "max_time" and len(history["loss"]) == 1
    assert slow.calls == net.steps <= 4
    assert np.isfinite(history["loss"][0])


@pytest.mark.parametrize("kind", ["built-in", "custom"])
def test_max_time_with_tiny_steps(engine, kind):
    X = np.zeros((200_000, 2), np.float32)
    net = Network([2, 1], loss=squared_error if kind == "custom" else None)
    history = net.fit(X, X[:, 0], epochs=100, batch_size=1, max_time=0.1)
    assert history.stopped == "max_time" and len(history["loss"]) < 50


def test_max_time_that_is_not_reached(engine):
    net, history = trained(X60, Y60, epochs=2, max_time=60)
    assert history.stopped == "epochs" and net.steps == 4


# Ctrl-C -------------------------------------------------------------------------------------------


def interrupt(state):
    if state.epoch == 2:
        raise KeyboardInterrupt


@pytest.mark.usefixtures("threads_at_any_size")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_between_epochs(engine, n_threads):
    before = threading.active_count()
    with pytest.warns(UserWarning, match="interrupted after 2 of 9 epochs"):
        net, history = trained(
            X60, Y60, epochs=9, callbacks=[interrupt], n_threads=n_threads, patience=5,
            X_val=X60, y_val=Y60,
        )  # fmt: skip
    assert history.stopped == "interrupted" and len(history["loss"]) == 2
    assert net.loss(X60, Y60) == min(history["val_loss"])
    assert threading.active_count() == before


def test_ctrl_c_after_the_weights_have_gone(engine, monkeypatch):
    """The last finite weights, as without the Ctrl-C."""

    def bad_luck(trainer, *arguments):
        trainer.net.params[0] = np.nan
        raise KeyboardInterrupt

    net, _ = trained(X60, Y60, epochs=1)
    kept = net.params.copy()
    monkeypatch.setattr(Trainer, "run", bad_luck)
    with warnings.catch_warnings(action="ignore"):
        net.fit(X60, Y60, epochs=1)
    np.testing.assert_array_equal(net.params, kept)


class LatePool:
    """A pool in which one of the threads does not start, or a Ctrl-C comes in between."""

    def __init__(self, pool, fails_at, error):
        self.pool, self.fails_at, self.error, self.submitted = pool, fails_at, error, 0

    def submit(self, *args):
        self.submitted += 1
        if self.submitted == self.fails_at:
            raise self.error
        return self.pool.submit(*args)


@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("can't start new thread")])
def test_a_team_that_is_not_complete_does_not_begin(engine, fails_at, error):
    net = Network([64, 256, 10], seed=0)
    X = np.random.default_rng(0).normal(size=(512, 64))
    data = net.encode_rows(X, np.arange(512) % 10)
    trainer = Trainer(net, data, Recipe(), 128, 1)
    trainer.n_threads, kept = 2, net.params.copy()
    trainer.workspace = np.zeros(engine.workspace_size(net.plan, 128, 2), net.dtype)
    with ThreadPoolExecutor(2) as pool:
        trainer.team.size, trainer.team.pool = 2, LatePool(pool, fails_at, error)
        with pytest.raises(type(error)):
            trainer.run(np.arange(512), np.full(4, 0.1))
    if engine.name != "python":  # where one thread does it all, the first may have begun
        np.testing.assert_array_equal(net.params, kept)
        assert net.steps == 0


def test_a_ctrl_c_at_the_end_of_a_call_counts_its_steps(engine, monkeypatch):
    net = Network([3, 4, 3], seed=0)
    trainer = Trainer(net, net.encode_rows(X60, Y60), Recipe(solver="adam"), 10, 1)
    run = trainer._run_rank

    def interrupted(*args):
        run(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_run_rank", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(np.arange(60), np.full(6, 0.1))
    assert net.steps == 6


def test_epochs_are_numbered_over_all_calls(engine):
    net, first = trained(X60, Y60, X_val=X60, y_val=Y60, epochs=3)
    second = net.fit(X60, Y60, X_val=X60, y_val=Y60, epochs=2)
    assert first["epoch"] == [1, 2, 3] and second["epoch"] == [4, 5]
    assert second.best_epoch in second["epoch"]
    assert net.history.best_epoch == second.best_epoch


def test_plain_training_draws_nothing_but_the_order(engine):
    """Two fits of one epoch are one of two: dropout alone would need more random numbers."""
    once, twice = (Network([3, 4, 3], seed=0) for _ in range(2))
    once.fit(X60, Y60, epochs=2)
    for _ in range(2):
        twice.fit(X60, Y60, epochs=1)
    np.testing.assert_array_equal(once.params, twice.params)


LONG_EPOCH = """
import signal, sys, threading, time, warnings
import numpy as np, cmlp
from cmlp.training import trainer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
warnings.simplefilter("always")
trainer.THREAD_FLOPS = 0
n_threads, core = int(sys.argv[1]), sys.argv[2]
X = np.random.default_rng(0).standard_normal((400_000, 64), "f4")
net = cmlp.Network([64, 256, 10], seed=0)
before = threading.active_count()

def announce():
    while not net.steps:
        time.sleep(0.01)
    print("ready", flush=True)

threading.Thread(target=announce, daemon=True).start()
options = {"epochs": 100, "learning_rate": 1e-3, "n_threads": n_threads}
with cmlp.use_core(core):
    history = net.fit(X, np.arange(len(X)) % 10, **options)
threads = threading.active_count() - before
print(history.stopped, net.steps > 0, np.isfinite(net.params).all(), threads)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGINT"), reason="no such signal")
@pytest.mark.parametrize("n_threads", [1, 3])
def test_ctrl_c_within_an_epoch(engine, n_threads):
    process = python_process("-c", LONG_EPOCH, n_threads, engine.name)
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=100)
    finally:
        process.kill()
    assert text.splitlines()[-1] == "interrupted True True 0", text
    assert re.search(r"interrupted after \d+ of 100 epochs", text)


def test_small_steps_stay_on_one_thread(engine, monkeypatch):
    monkeypatch.setattr(dispatch, "usable_cpus", lambda: 4)
    X, y = blobs()
    for width, n_threads, expected in [(4, 2, 1), (4, None, 1), (900, 2, 2), (900, None, 4)]:
        net = Network([3, width, width, 3], seed=0)
        trainer = Trainer(net, net.encode_rows(X, y), Recipe(), 32, n_threads)
        trainer.close()
        assert trainer.n_threads == (1 if engine.name == "python" else expected)


# Divergence ---------------------------------------------------------------------------------------


def diverges(net, X, y, **options):
    """Train until it fails; the message, and the weights after each good epoch (and before all)."""
    spy = Spy()
    good = [net.params.copy()]
    with pytest.raises(DivergenceError) as caught:
        net.fit(X, y, callbacks=[spy], **options)
    good += spy.params
    assert len(caught.value.history.get("loss", [])) == len(good) - 1
    np.testing.assert_array_equal(net.params, good[-1])
    assert np.isfinite(net.moments).all() and (len(good) > 1 or not net.moments.any())
    return str(caught.value), good


@pytest.mark.usefixtures("threads_at_any_size")
@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_divergence_in_the_first_epoch(engine, dtype, solver, n_threads):
    X, y = waves()
    net = Network([3, 8, 1], dtype=dtype, seed=0)
    text, good = diverges(
        net, X, y, learning_rate=1e200 if dtype == np.float64 else 1e30, solver=solver,
        n_threads=n_threads, batch_size=10,
    )  # fmt: skip
    assert len(good) == 1 and net.steps == 0
    for part in ("epoch 1", "layer", "learning rate", "end of epoch 0", "clip_norm=1"):
        assert part in text
    net.fit(X, y, learning_rate=1e-3, solver=solver)  # and all is well again


def test_divergence_after_good_epochs(engine, dtype):
    X, y = waves()
    rates = [1e-3, 1e-3, 1e300 if dtype == np.float64 else 1e38]
    net = Network([3, 8, 1], dtype=dtype, seed=0)
    text, good = diverges(net, X, y, epochs=5, schedule=lambda epoch: rates[epoch])
    assert len(good) == 3 and "epoch 3" in text and "end of epoch 2" in text
    assert len(net.history["loss"]) == 2


def test_divergence_in_the_last_step_of_an_epoch(engine, dtype):
    """The loss is of before the step, so that only the weights show what the last step did."""
    X, y = waves(64)
    net = Network([3, 8, 1], "tanh", dtype=dtype, seed=0)
    kept = net.params.copy()
    y[-1] = np.finfo(dtype).max / 1e3
    text, good = diverges(net, X, y, shuffle=False, batch_size=63, epochs=1, learning_rate=1e4,
                          momentum=0.0)  # fmt: skip
    np.testing.assert_array_equal(good[0], kept)
    assert "epoch 1" in text


@pytest.mark.parametrize("size", [1e15, 1e30])
@pytest.mark.parametrize("solver", ["sgd", "adam", "rmsprop"])
def test_huge_inputs_diverge_or_learn_but_never_stall(engine, dtype, size, solver):
    X, y = blobs()
    X = X * size
    net = Network([3, 8, 3], "tanh", dtype=dtype, seed=0)
    before = net.params.copy()
    try:
        net.fit(X, y, solver=solver, epochs=3)
        assert not np.array_equal(net.params, before)
    except DivergenceError as error:
        assert "X is not scaled" in str(error)
    assert np.isfinite(net.params).all() and np.isfinite(net.moments).all()


@pytest.mark.parametrize(
    "scale, hint",
    [(1, "values up to 255; bring them to about 1, as Network(..., input_scale=1/255) does"),
     (0.5, "values up to 128; bring them to about 1)"), (1 / 255, None)],
)  # fmt: skip
def test_divergence_of_pixels(engine, scale, hint):
    X, y = waves()
    pixels = np.uint8(np.clip(100 * X + 120, 0, 255))
    assert pixels.max() == 255
    net = Network([3, 8, 1], seed=0, input_scale=scale)
    text, _ = diverges(net, pixels, y, learning_rate=1e30)
    assert hint in text if hint else "X is not scaled" not in text


def test_the_layer_is_named(engine):
    X, y = waves()
    net = Network([3, 8, 5, 1], "relu", seed=0)
    net.weights[1][:] = 3e38
    with refused(DivergenceError, "sums of layer 2 (8 -> 5, relu)", "epoch 1"):
        net.fit(np.abs(X) + 1, y)
    net.weights[2][0] = np.nan
    with refused(DivergenceError, "weights of layer 3 (5 -> 1, identity)"):
        net.fit(X, y)


def test_a_step_or_an_epoch_that_diverges_keeps_finite_weights(engine):
    X, y = waves()
    for batch_size in (10, None):
        net = Network([3, 8, 1], seed=0)
        with pytest.raises(DivergenceError):
            for _ in range(20):
                net.train_epoch(X, y, batch_size=batch_size, learning_rate=1e20)
        assert np.isfinite(net.params).all() and np.isfinite(net.moments).all()
    net = Network([3, 8, 1], seed=0)
    with pytest.raises(DivergenceError):
        for _ in range(20):
            net.step(X, y, learning_rate=1e20)
    assert np.isfinite(net.params).all()


# Losses of one's own ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3, "input_noise": 0.2, "l2": 0.01}])
def test_a_custom_loss_is_the_built_in_one(engine, dtype, options):
    X, y = waves(2500, n_out=2)
    nets = [
        trained(X, y, (3, 8, 2), dtype, loss=loss, batch_size=1200, epochs=3, **options)
        for loss in ("squared_error", squared_error)
    ]
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    (net, history), (other, same) = nets
    np.testing.assert_allclose(net.params, other.params, rtol=tolerance * 100, atol=tolerance)
    np.testing.assert_allclose(history["loss"], same["loss"], rtol=tolerance)


def test_gradients_of_a_custom_loss(engine):
    X, y = waves(9, n_out=2)
    nets = [Network([3, 5, 2], "tanh", "identity", loss, dtype="float64", seed=0)
            for loss in ("squared_error", squared_error)]  # fmt: skip
    one, other = (net.gradients(X, y) for net in nets)
    assert one.loss == pytest.approx(other.loss, rel=1e-14)
    np.testing.assert_allclose(one.inputs, other.inputs, rtol=1e-12, atol=1e-16)
    for came, expected in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(came, expected, rtol=1e-12, atol=1e-16)
    assert nets[1].check_gradients(X, y)


def test_labels_reach_a_custom_loss_as_one_hot_rows(engine):
    seen = []

    def spy(outputs, targets):
        seen.append(targets.copy())
        return squared_error(outputs, targets)

    Network([3, 3], loss=spy, seed=0).fit(
        X60, np.array(["a", "b", "c"])[Y60], shuffle=False, epochs=1
    )
    np.testing.assert_array_equal(np.vstack(seen), np.eye(3)[Y60])


BAD_LOSSES = {
    "nothing": (lambda o, y: None, TypeError, ("custom loss", "(value, gradient)", "NoneType")),
    "a number": (lambda o, y: 1.0, TypeError, ("custom loss", "(value, gradient)", "float")),
    "three": (lambda o, y: (1.0, o, o), TypeError, ("custom loss", "(value, gradient)")),
    "a loss per row": (lambda o, y: (o, o), (TypeError, ValueError), ("custom loss", "value")),
    "text": (lambda o, y: ("low", o), (TypeError, ValueError), ("custom loss", "value")),
    "a flat gradient": (lambda o, y: (1.0, o[:, 0]), ValueError, ("shape (32, 1)", "(32,)")),
    "no gradient": (lambda o, y: (1.0, None), (TypeError, ValueError), ("custom loss", "gradient")),
}


@pytest.mark.parametrize("case", BAD_LOSSES)
def test_what_a_custom_loss_must_return(case):
    loss, kind, parts = BAD_LOSSES[case]
    X, y = waves(32)
    net = Network([3, 1], loss=loss, seed=0)
    for ask in (net.fit, net.loss, net.gradients, net.step):
        with refused(kind, *parts):
            ask(X, y)


def test_a_custom_loss_that_fails():
    def fails(outputs, targets):
        raise LookupError("mine")

    X, y = waves()
    before = threading.active_count()
    with pytest.raises(LookupError, match="mine"):
        Network([3, 1], loss=fails).fit(X, y, n_threads=2)
    assert threading.active_count() == before


@pytest.mark.parametrize("bad", ["value", "gradient"])
def test_a_custom_loss_that_is_not_finite(engine, bad):
    def loss(outputs, targets):
        value, slope = squared_error(outputs, targets)
        return (math.nan, slope) if bad == "value" else (value, slope * np.inf)

    X, y = waves()
    diverges(Network([3, 4, 1], loss=loss, seed=0), X, y)


# Progress -----------------------------------------------------------------------------------------


def test_lines_in_a_pipe(engine, capsys):
    trained(X60, Y60, epochs=2, verbose=1, X_val=X60, y_val=Y60)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "\r" not in "".join(lines)
    for number, line in enumerate(lines, 1):
        for part in (
            f"epoch {number}",
            "loss ",
            "val_loss ",
            "val_accuracy ",
            "rows/s",
            engine.name,
        ):
            assert part in line
    trained(X60, Y60, epochs=2)
    assert capsys.readouterr().out == ""


def test_history_of_the_clock(engine):
    _, history = trained(X60, Y60, epochs=2)
    assert set(history) == {"epoch", "loss", "learning_rate", "seconds", "rows_per_second"}
    assert all(second > 0 for second in history["seconds"])
    assert all(rate > 0 for rate in history["rows_per_second"])
    assert cmlp.History is type(history)
