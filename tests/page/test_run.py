"""A run gives the bits of `fit`, however it is cut, and goes back exactly."""

import dataclasses

import numpy as np
import pytest
from helpers import python_output

import cmlp
from cmlp.page import build, limits
from cmlp.page.script import script_of
from cmlp.page.set_up import SetUp

SETUPS = {
    "digits": SetUp(),
    "dropout and Adam": SetUp(dropout=0.2, solver="adam", learning_rate=0.003, input_noise=0.1),
    "moons by squares": SetUp(
        data="moons",
        layers=(8,),
        activation="tanh",
        out_activation="logistic",
        loss="squared_error",
        learning_rate=0.5,
        weight_decay=0.001,
    ),
    "one output": SetUp(
        data="xor",
        layers=(4,),
        one_output=True,
        loss="binary_crossentropy",
        n=50,
        solver="nadam",
        clip_norm=1.0,
        batch_size=7,
    ),
    "own points": SetUp(
        data="points",
        points=tuple((x / 3, (x % 3) / 2 + 3, x % 2) for x in range(7)),
        layers=(),
    ),
    "weights of one's own": SetUp(
        data="xor",
        layers=(2,),
        one_output=True,
        loss="squared_error",
        out_activation="logistic",
        weight_init="orthogonal",
        parameters=((((0.5, -1), (1, 0.5)), (0, 0.5)), (((1,), (-2,)), (0.5,))),
        n=60,
    ),
}
by_setup = pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)


def run_of(setup):
    rows = build.rows_of(setup, None)
    return build.new_run(setup, rows), rows


def fitted(setup, rows, epochs):
    """The same set-up trained by one `fit`."""
    net = build.network_of(setup, rows)
    held_out = {}
    if rows.X_val is not None:
        y_val = build.targets_of(setup, rows.y_val, net.sizes[-1])
        held_out = {"X_val": rows.X_val, "y_val": y_val}
    y = build.targets_of(setup, rows.y, net.sizes[-1])
    more = setup.recipe_arguments() | {"batch_size": setup.batch_size, "epochs": epochs}
    return net, net.fit(rows.X, y, n_threads=1, **more, **held_out)


@by_setup
def test_pieces_of_any_length_give_the_bits_of_fit(engine, setup):
    run, rows = run_of(setup)
    n = 1 if engine.name == "python" else 3
    net, history = fitted(setup, rows, n)
    lengths = np.random.default_rng(0)
    while run.epoch < n:
        run.advance(min(int(lengths.integers(1, 50)), run.batches_left))
    assert np.array_equal(run.net.params, net.params)
    assert np.array_equal(run.net.moments, net.moments)
    epochs, _, loss, held_out, score = zip(*run.curve, strict=True)
    assert epochs == (1, 2, 3)[:n]
    np.testing.assert_allclose(loss, history["loss"], rtol=1e-12)  # sums in another order
    if rows.X_val is not None:
        np.testing.assert_array_equal(held_out, history["val_loss"])
        y_val = build.targets_of(setup, rows.y_val, net.sizes[-1])
        right = net.predict(rows.X_val)
        read = right.argmax(axis=1) if right.shape[1] > 1 else right[:, 0] > 0.5
        assert score[-1] == np.mean(read == rows.y_val), y_val


@by_setup
def test_back_and_forward_again(engine, setup):
    run, _ = run_of(setup)
    last = 130 if engine.name == "python" else 650
    run.advance(last)
    params, moments, curve = run.net.params.copy(), run.net.moments.copy(), list(run.curve)
    for n in (1, 40, 500, last):
        run.seek(last - n)
        assert run.step == max(0, last - n) and run.furthest == last
        assert all(row[1] <= run.step for row in run.curve)
        run.seek(last)
        assert np.array_equal(run.net.params, params) and np.array_equal(run.net.moments, moments)
        np.testing.assert_allclose(run.curve, curve, rtol=1e-12)  # losses are summed in other parts


def test_back_across_a_change_restores_the_recipe():
    run, _ = run_of(SETUPS["digits"])
    run.advance(50)
    before = run.net.params.copy()
    other = dataclasses.replace(run.recipe, dropout=0.3, learning_rate=0.01)
    run.change(other, 16)
    run.advance(300)
    after, recipe = run.net.params.copy(), run.recipe
    run.seek(200)
    run.seek(350)
    assert np.array_equal(run.net.params, after) and run.recipe == recipe == other
    run.seek(50)
    assert np.array_equal(run.net.params, before) and run.batch_size == 16
    run.seek(49)
    assert run.batch_size == 32 and run.recipe.dropout == 0
    run.advance(1)
    assert np.array_equal(run.net.params, before)


def test_another_rate_keeps_the_seed_of_dropout():
    """So that a rate changed there and back changes nothing."""
    run, rows = run_of(SETUPS["dropout and Adam"])
    run.advance(10)
    rate = run.recipe.learning_rate
    for value in (0.5, rate):
        run.change(dataclasses.replace(run.recipe, learning_rate=value), run.batch_size)
    run.advance(110)
    assert np.array_equal(run.net.params, fitted(SETUPS["dropout and Adam"], rows, 1)[0].params)


def test_a_divergence_leaves_the_last_finite_weights():
    run, _ = run_of(SetUp(learning_rate=1e4, loss="squared_error", out_activation="identity"))
    first = run.net.params.copy()
    with pytest.raises(cmlp.DivergenceError, match="learning rate is too high"):
        run.advance(500)
    assert run.step == 0 and np.array_equal(run.net.params, first)


def test_old_checkpoints_are_thinned_and_bounded(monkeypatch):
    run, _ = run_of(SetUp(data="moons", layers=(4,), n=60, batch_size=1))
    run.advance(45 * 400)
    n = len(run.checkpoints)
    assert 20 < n < 150 and run.earliest == 0  # of 180 epochs with one
    steps = np.array([point.step for point in run.checkpoints])
    assert np.diff(steps)[-1] < np.diff(steps)[0]
    monkeypatch.setattr(limits, "HISTORY_BYTES", 10 * run.checkpoints[-1].nbytes)
    run.advance(45 * 30)
    assert len(run.checkpoints) <= 10 and run.earliest > 0
    run.seek(0)
    assert run.step == run.earliest


def test_averages_of_weights_are_refused():
    run, _ = run_of(SETUPS["own points"])
    with pytest.raises(ValueError, match="ema"):
        run.change(dataclasses.replace(run.recipe, ema=0.9), 32)


@by_setup
def test_as_python_repeats_the_run(setup):
    run, _ = run_of(setup)
    run.advance(2 * run.batches_left)
    code = script_of(setup, run.net.sizes[0], run.net.sizes[-1], 2, changed=True)
    names = {}
    exec(compile(code, "run.py", "exec"), names)
    assert np.array_equal(names["net"].params, run.net.params)
    assert "The recipe was changed" in code


def test_as_python_in_a_process_of_its_own():
    setup = SETUPS["moons by squares"]
    run, _ = run_of(setup)
    run.advance(4 * run.batches_left)
    code, text = python_output("-c", script_of(setup, 2, 2, 4, changed=False))
    assert code == 0
    epoch, loss = text.split()[-2:]
    assert float(epoch) == 4
    np.testing.assert_allclose(float(loss), run.curve[-1][2], rtol=1e-12)
