"""Missing targets, given as NaN: no cost, no gradient, no part in the score."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import refused, waves
from oracle import PAIRS, Oracle, Problem

import cmlp
from cmlp import Network
from cmlp.core import reference

MASKED = [pair for pair in PAIRS if pair[0] != "categorical_crossentropy"]


def with_holes(problem, seed=0):
    """The same problem with a third of the targets missing, all of the first row among them."""
    holes = np.random.default_rng(seed).random(problem.targets.shape) < 0.3
    holes[0] = True
    problem.targets = np.where(holes, problem.targets.dtype.type(np.nan), problem.targets)
    problem.objective = problem.objective._replace(missing=True)
    return problem, holes


@pytest.mark.parametrize(("loss", "out"), MASKED, ids="-".join)
def test_gradient_and_costs_of_what_is_known(core, dtype, loss, out):
    """Bounds are those of the whole targets: a cost that is left out can only make them larger."""
    options = {"smoothing": 0.1} if loss == "binary_crossentropy" else {}
    whole = Problem((9, 17, 7), ("tanh", out), loss, 13, dtype, weighted=True, **options)
    problem, holes = with_holes(replace(whole))
    exact = problem.gradient(reference)
    loss_value, grads, deltas, dX = problem.gradient(core)
    room = 2e3 * np.finfo(dtype).eps
    for came, expected in ((loss_value, exact[0]), (grads, exact[1]), (dX, exact[3])):
        np.testing.assert_allclose(came, expected, rtol=room, atol=room)
    delta = problem.units(deltas)[-1]
    costs = problem.evaluate(core)[1]
    assert costs[0] == 0 and np.isfinite(costs).all()
    if out != "softmax":  # which makes every delta a matter of every output
        assert not delta[holes].any()
        known = Oracle(whole).output_delta
        np.testing.assert_allclose(
            delta[~holes], known.value[~holes], rtol=0, atol=2 * known.error[~holes].max()
        )


@pytest.mark.parametrize("loss", ["squared_error", "binary_crossentropy", "poisson", "huber"])
def test_the_loss_is_summed_over_known_outputs_and_averaged_over_rows(engine, loss):
    """Row by row it is the loss of a network that has only the known outputs."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)), rng.integers(0, 2, (30, 3)).astype(float)
    y[rng.random(y.shape) < 0.4] = np.nan
    net = Network([4, 8, 3], "tanh", loss=loss, dtype="float64", seed=0, missing_targets=True)
    total = 0.0
    for column in range(3):
        one = Network([4, 8, 1], "tanh", loss=loss, dtype="float64")
        for number, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
            part = slice(column, column + 1) if number else slice(None)
            one.weights[number][...], one.biases[number][...] = W[:, part], b[part]
        known = ~np.isnan(y[:, column])
        total += one.loss(X[known], y[known, column]) * known.sum()
    assert net.loss(X, y) == pytest.approx(total / 30, rel=1e-12)


@pytest.mark.parametrize("loss", ["squared_error", "binary_crossentropy"])
def test_central_differences_agree(engine, loss):
    X, y = waves(20, 3, 4)
    y = y if loss == "squared_error" else (y > 0.5).astype(float)
    y[::3, 1] = y[4] = np.nan
    net = Network([3, 7, 4], "tanh", loss=loss, dtype="float64", seed=1, missing_targets=True)
    assert net.check_gradients(X, y, entries=None)


def test_what_is_missing_does_not_train_its_output(engine):
    X, y = waves(60, 3, 2)
    y[:, 1] = np.nan
    net = Network([3, 8, 2], "tanh", loss="squared_error", seed=0, missing_targets=True)
    before = net.weights[1][:, 1].copy(), net.biases[1][1]
    history = net.fit(X, y, epochs=30, learning_rate=0.1, validation_fraction=0.2)
    assert history["loss"][-1] < 0.3 * history["loss"][0] and history["val_score"][-1] > 0.5
    np.testing.assert_array_equal(net.weights[1][:, 1], before[0])
    assert net.biases[1][1] == before[1]


def test_scores_are_of_what_is_known(engine):
    X, y = waves(50, 3, 2)
    net = Network([3, 8, 2], "tanh", loss="squared_error", seed=0, missing_targets=True)
    weights = np.arange(50.0)
    other = y.copy()
    other[10:, 0] = np.nan
    one = Network([3, 8, 1], "tanh", loss="squared_error", seed=0)
    scores = []
    for column, part in enumerate((slice(10), slice(50))):
        for number in (0, 1):
            at = slice(column, column + 1) if number else slice(None)
            one.weights[number][...] = net.weights[number][:, at]
        scores.append(one.score(X[part], y[part, column], weights[part]))
    assert net.score(X, other, weights) == pytest.approx(np.mean(scores), rel=1e-5)
    assert net.score(X, y) == Network([3, 8, 2], "tanh", loss="squared_error", seed=0).score(X, y)
    other[:, 0] = np.nan  # one output is left
    assert net.score(X, other, weights) == pytest.approx(scores[1], rel=1e-5)
    other[7, 0] = 1.0  # and one row of another, which is too few
    assert net.score(X, other, weights) == pytest.approx(scores[1], rel=1e-5)
    for known in (other[7, 1], np.nan):
        other[:] = np.nan
        other[7] = [1.0, known]
        with pytest.warns(cmlp.UndefinedMetricWarning, match="less than two samples"):
            assert np.isnan(net.score(X, other))
    other[:] = np.nan
    assert net.loss(X, other) == 0
    labels = Network([3, 2], loss="binary_crossentropy", seed=0, missing_targets=True)
    right = (labels.predict(X) > 0.5).astype(float)
    wrong = 1 - right
    wrong[:25], right[:, 1] = np.nan, np.nan
    assert labels.score(X, right) == 1 and labels.score(X, wrong) == 0.5


def test_a_loss_of_ones_own_sees_nan(engine):
    X, y = waves(40, 3, 2)
    y[::2, 0] = np.nan

    def loss(outputs, targets):
        assert np.isnan(targets[:, 0]).any()
        error = np.where(np.isnan(targets), 0, outputs - targets)
        return 0.5 * (error**2).sum(axis=1).mean(), error / len(error)

    mine = Network([3, 6, 2], "tanh", loss=loss, dtype="float64", seed=0, missing_targets=True)
    built_in = Network(
        [3, 6, 2], "tanh", loss="squared_error", dtype="float64", seed=0, missing_targets=True
    )
    for net in (mine, built_in):
        net.fit(X, y, epochs=5, shuffle=False)
    np.testing.assert_allclose(mine.params, built_in.params, rtol=0, atol=1e-12)


def test_threads_give_the_same_bits(engine):
    X, y = waves(1200, 5, 7)
    y[np.random.default_rng(0).random(y.shape) < 0.5] = np.nan
    nets = []
    for n_threads in (1, 2):
        net = Network([5, 300, 7], loss="huber", seed=0, missing_targets=True)
        net.fit(X, y, epochs=2, batch_size=600, n_threads=n_threads)
        nets.append(net.params)
    assert np.isfinite(nets[0]).all()
    np.testing.assert_array_equal(*nets)


def test_without_it_nan_is_an_error(engine):
    X, y = waves(20, 3, 2)
    y[7, 1] = np.nan
    net = Network([3, 4, 2], loss="squared_error", seed=0)
    for ask in (net.fit, net.step, net.train_epoch, net.loss, net.score, net.gradients):
        with refused(ValueError, "y holds nan at row 7, column 1"):
            ask(X, y)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39])
def test_infinity_is_an_error_still(engine, value):
    X, y = waves(20, 3, 2)
    y[7, 1], y[3] = value, np.nan
    net = Network([3, 4, 2], loss="squared_error", seed=0, missing_targets=True)
    with refused(ValueError, "y holds", "at row 7, column 1"):
        net.fit(X, y)
    with refused(ValueError, "X holds nan"):
        net.fit(np.full_like(X, np.nan), y)


def test_targets_out_of_range_are_an_error_still(engine):
    net = Network([3, 2], loss="binary_crossentropy", seed=0, missing_targets=True)
    with refused(ValueError, "y holds 2", "between 0 and 1"):
        net.fit(np.ones((2, 3)), [[np.nan, 2], [0, np.nan]])
    assert net.fit(np.ones((2, 3)), [[None, 1], [0, np.nan]]).stopped == "epochs"


def test_classes_cannot_be_missing():
    with refused(ValueError, "missing_targets", "categorical_crossentropy", "sample_weight"):
        Network([3, 4, 2], missing_targets=True)


def test_it_is_saved(engine, tmp_path):
    net = Network([3, 2], loss="squared_error", seed=0, missing_targets=True)
    net.save(tmp_path / "net.cmlp")
    assert cmlp.load(tmp_path / "net.cmlp").missing_targets is True
