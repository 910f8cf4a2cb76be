"""Steps whose preparations are kept: of `net.step`, of trainers, and of fits that are one step.

The witness is the training loop, which prepares everything at every call: the same bits, the same
errors. The NumPy core has no other way, so it is compared there with itself.
"""

import copy
import pickle
import threading

import numpy as np
import pytest
from helpers import covering

import cmlp
from cmlp.core import dispatch, scratch
from cmlp.core.errstate import undisturbed
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.data.numbers import is_finite
from cmlp.training import fit
from cmlp.training.recipe import make_recipe

RNG = np.random.default_rng(5)


@pytest.fixture
def fastest():
    """The fastest core alone: what is Python above the seam, and slow."""


@undisturbed
def plain_step(net, X, y, sample_weight=None, **recipe):
    """Take a step as a training of one epoch and one batch."""
    made = make_recipe(recipe)
    data = net.encode_rows(X, y, sample_weight)
    return fit.run_epoch(net, data, made, None, shuffle=False, n_threads=1)


def trained(net):
    """All that a step changes, to the bit."""
    return (
        net.params.tobytes(), net.moments.tobytes(), net.steps, net.solver, net.averaged,
        str(net.rng.bit_generator.state), None if net.classes is None else net.classes.tolist(),
    )  # fmt: skip


def outcome(function, *args, **kwargs):
    """What a call returns, or what it raises."""
    try:
        return function(*args, **kwargs)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        return type(error), str(error)


def is_quick(net):
    """Whether a step of the present network is one call of a compiled core."""
    return isinstance(net._stepper.bound, dispatch.core.BoundTrainer)


# The same bits -----------------------------------------------------------------------------------

NETWORKS = {
    "classes": (([7, 12, 9, 4],), "labels"),
    "two classes, one output": (([7, 9, 1], "tanh", None, "binary_crossentropy"), "labels"),
    "several labels": (([7, 9, 4], "elu", None, "binary_crossentropy"), "marks"),
    "probabilities": (([7, 9, 4],), "shares"),
    "one number": (([7, 9, 1],), "number"),
    "numbers": (([7, 9, 3], "gelu", None, "huber"), "numbers"),
    "no hidden layer": (([7, 1], "relu", None, "poisson"), "count"),
}


def targets(kind, n, n_out):
    return {
        "labels": lambda: RNG.integers(0, max(n_out, 2), n),
        "marks": lambda: RNG.integers(0, 2, (n, n_out)),
        "shares": lambda: RNG.dirichlet(np.ones(n_out), n),
        "number": lambda: RNG.normal(size=n).astype(np.float32),
        "numbers": lambda: RNG.normal(size=(n, n_out)),
        "count": lambda: RNG.poisson(2, (n, 1)),
    }[kind]()


FEATURES = (
    {}, {"dtype": "float64"}, {"normalization": "batch"}, {"normalization": "layer"},
    {"parametric_activation": True}, {"input_scale": 0.25}, {"missing_targets": True},
    {"inputs": cmlp.Inputs(periodic=[0], levels={2: (5, 3)}, summed={3: 4}, scaled=True)},
)  # fmt: skip
RECIPES = (
    {}, {"momentum": 0.0}, {"solver": "adam", "clip_norm": 0.1}, {"solver": "lion", "l2": 0.01},
    {"nesterov": True, "dropout": 0.25}, {"solver": "nadam", "l1": 0.01}, {"input_noise": 0.1},
    {"solver": "rmsprop", "weight_decay": 0.1}, {"ema": 0.5}, {"rate_factors": {"biases": 0.5}},
    {"label_smoothing": 0.1},
)  # fmt: skip
ROWS = (1, 2, 5, 33, 1100)
X_TYPES = ("f4", "f8", "i2", "u1", "?", "f2")
CASES = covering(NETWORKS, FEATURES, RECIPES, ROWS, X_TYPES)


def test_a_step_is_that_of_a_training(compiled):
    """Also its loss, the optimizer's state, and the random numbers that it draws."""
    quick = 0
    for name, feature, recipe, n, kind in CASES:
        (arguments, y_kind), case = NETWORKS[name], (name, feature, recipe, n, kind)
        try:
            first = cmlp.Network(*arguments, seed=1, **feature)
        except ValueError:
            continue  # a feature that the network cannot have
        one, two = copy.deepcopy(first), copy.deepcopy(first)
        for number in range(4):
            rows = n + (number == 2)
            X = RNG.integers(0, 5, (rows, 7)).astype(kind)
            y = targets(y_kind, rows, arguments[0][-1])
            weights = RNG.random(rows) if number % 2 else None
            expected = outcome(plain_step, one, X, y, weights, **recipe)
            assert outcome(two.step, X, y, sample_weight=weights, **recipe) == expected, case
            assert trained(one) == trained(two), case
        quick += is_quick(two)
    assert quick > 40


def test_a_trainer_takes_the_same_steps(engine):
    """And follows its network, whoever else trains it."""
    X, y = RNG.normal(size=(20, 7)).astype("f4"), RNG.integers(0, 4, 20)
    one = cmlp.Network([7, 12, 4], seed=1)
    two = copy.deepcopy(one)
    trainer = two.trainer(solver="adam", batch_size=20, learning_rate=0.01)

    def both(change, **recipe):
        change(one), change(two)
        for _ in range(3):
            expected = plain_step(one, X, y, solver="adam", **recipe)
            assert trainer.step(X, y) == expected
            assert trained(one) == trained(two)

    both(lambda net: None)
    trainer.learning_rate = 0.5
    changes = (
        lambda net: net.fit(X, y, epochs=2, solver="sgd"),
        lambda net: net.fit(X, y, epochs=1, solver="adam", ema=0.9),
        lambda net: setattr(net, "activations", ["tanh", "softmax"]),
        lambda net: setattr(net, "params", net.params.copy()),
        lambda net: setattr(net, "input_scale", 0.5),
        lambda net: setattr(net, "classes", [3, 1, 0, 2]),
        lambda net: setattr(net, "classes", [0, 1, 2, 3]),
        lambda net: setattr(net, "moments", np.ones_like(net.moments)),
        lambda net: setattr(net, "steps", 10**6),
        lambda net: setattr(net, "solver", "nadam"),
        lambda net: net.weights[0].fill(0.25),
        lambda net: setattr(net, "rng", 3),
    )
    for change in changes:
        both(change, learning_rate=0.5)


def test_a_trainer_follows_the_core():
    X, y = RNG.normal(size=(20, 7)).astype("f4"), RNG.integers(0, 4, 20)
    one = cmlp.Network([7, 12, 4], seed=1)
    two = copy.deepcopy(one)
    trainer = two.trainer()
    for name in cmlp.core_info().available * 2:
        with cmlp.use_core(name):
            for _ in range(3):
                assert trainer.step(X, y) == plain_step(one, X, y)
            assert trained(one) == trained(two)


# Data that need a closer look --------------------------------------------------------------------

GOOD = RNG.normal(size=(6, 7)).astype("f4")
LABELS = np.array([0, 1, 2, 3, 2, 1])


def with_one(value, dtype="f4"):
    X = GOOD.astype(dtype)
    X[3, 2] = value
    return X


ROWS_AS = {
    "a list": GOOD.tolist(), "columns first": np.asfortranarray(GOOD),
    "backwards": GOOD[::-1, ::-1], "every second": np.repeat(GOOD, 2, axis=1)[:, ::2],
    "one row for all": np.broadcast_to(GOOD[:1], GOOD.shape), "bytes swapped": GOOD.astype(">f4"),
    "read-only": np.frombuffer(GOOD.tobytes(), "f4").reshape(6, 7), "objects": GOOD.astype(object),
    "not aligned": np.frombuffer(b"x" + GOOD.tobytes(), "f4", offset=1).reshape(6, 7),
    "masked": np.ma.masked_array(GOOD, GOOD > 9), "a matrix": GOOD.view(np.matrix),
    "long": GOOD.astype("g"), "large": with_one(3e38), "large halves": with_one(2e38),
    "NaN": with_one(np.nan), "infinite": with_one(-np.inf), "too large": with_one(1e39, "f8"),
    "narrow": GOOD[:, :6], "wide": np.ones((6, 8), "f4"), "flat": GOOD[0], "deep": GOOD[None],
    "fewer": GOOD[:5], "none": GOOD[:0], "nothing": None, "complex": GOOD.astype(complex),
    "text": GOOD.astype(str), "a number": 3.0, "not readable": object(),
    "masked entries": np.ma.masked_array(GOOD, GOOD > 0),
}  # fmt: skip
LABELS_AS = {
    "int32": LABELS.astype("i4"), "uint64": LABELS.astype("u8"), "floats": LABELS.astype("f4"),
    "a column": LABELS[:, None], "every second": np.repeat(LABELS, 2)[::2], "list": LABELS.tolist(),
    "text": LABELS.astype(str), "truth values": LABELS > 1, "one-hot": np.eye(4)[LABELS],
    "shares": np.full((6, 4), 0.25), "not shares": np.full((6, 4), 0.26), "beyond": LABELS + 1,
    "below": LABELS - 1, "far beyond": LABELS + 2**40, "fractions": LABELS + 0.5,
    "NaN": np.where(LABELS == 1, np.nan, LABELS), "fewer": LABELS[:5], "none": LABELS[:0],
    "deep": LABELS[:, None, None], "narrow": np.eye(4)[LABELS][:, :3], "a number": 1,
    "backwards": LABELS[::-1], "bytes swapped": LABELS.astype(">i8"),
}  # fmt: skip
WEIGHTS_AS = {
    "floats": np.full(6, 0.5, "f4"), "integers": np.arange(6), "a list": [1.0] * 6,
    "zero": np.zeros(6), "below zero": np.arange(6.0) - 1, "NaN": np.full(6, np.nan),
    "infinite": np.full(6, np.inf), "large": np.full(6, 1e250), "fewer": np.ones(5),
    "a column": np.ones((6, 1)), "one for all": 1.0, "every second": np.arange(12.0)[::2],
}  # fmt: skip


def test_anything_else_goes_the_long_way(fastest):
    """What it returns, its errors, and the network after them are those of a training."""
    for known in (False, True):
        for losses in ("categorical_crossentropy", "squared_error"):
            first = cmlp.Network([7, 5, 4], loss=losses, seed=2)
            for _ in range(3 * known):
                first.step(GOOD, LABELS)
            tries = [(X, LABELS, None) for X in ROWS_AS.values()]
            tries += [(GOOD, y, None) for y in LABELS_AS.values()]
            tries += [(GOOD, LABELS, weights) for weights in WEIGHTS_AS.values()]
            for names, (X, y, weights) in zip(
                [*ROWS_AS, *LABELS_AS, *WEIGHTS_AS], tries, strict=True
            ):
                one, two, three = copy.deepcopy(first), copy.deepcopy(first), copy.deepcopy(first)
                two.step(GOOD, LABELS), plain_step(one, GOOD, LABELS)
                trainer = three.trainer()
                trainer.step(GOOD, LABELS)
                for _ in range(2):
                    expected = outcome(plain_step, one, X, y, weights)
                    assert outcome(two.step, X, y, sample_weight=weights) == expected, names
                    assert outcome(trainer.step, X, y, weights) == expected, names
                    assert trained(one) == trained(two) == trained(three), names


def test_numbers_that_are_no_labels(engine):
    """A truth value is none for a loss of numbers; NaN is one only where targets may be missing."""
    numbers = np.linspace(0, 1, 6)
    for tried in (numbers > 0.5, np.append(numbers[1:], np.nan), np.append(numbers[1:], 1e300)):
        for missing in (False, True):
            one = cmlp.Network([7, 1], seed=2, missing_targets=missing)
            two = copy.deepcopy(one)
            for y in (numbers, numbers, tried, tried[:, None], numbers):
                assert outcome(two.step, GOOD, y) == outcome(plain_step, one, GOOD, y)
                assert trained(one) == trained(two)


@pytest.mark.parametrize("recipe", [
    {"learning_rate": -1}, {"learning_rate": "fast"}, {"learning_rate": None}, {"momentum": 2},
    {"learning_rate": float("inf")}, {"solver": "best"}, {"momentun": 0.5}, {"dropout": [0.5] * 4},
    {"learning_rate": np.array([0.1, 0.2])}, {"momentum": np.array([0.5, 0.5])}, {"l2": None},
])  # fmt: skip
def test_parameters_are_checked_at_every_step(recipe):
    """Also those that differ from the last step's, and those that cannot be compared."""
    one = cmlp.Network([7, 5, 4], seed=2)
    two = copy.deepcopy(one)
    for parameters in ({}, {}, recipe, {}, {"learning_rate": 1}, {"momentum": np.float32(0.5)}):
        expected = outcome(plain_step, one, GOOD, LABELS, **parameters)
        assert outcome(two.step, GOOD, LABELS, **parameters) == expected
    assert trained(one) == trained(two)
    with pytest.raises((ValueError, TypeError)):
        cmlp.Network([7, 5, 4]).trainer(**recipe)


def test_a_list_of_rates_that_changes():
    rates = [0.5]
    one = cmlp.Network([7, 5, 4], seed=2)
    two = copy.deepcopy(one)
    for rate in (0.5, 0.5, 0.1, 0.9):
        rates[0] = rate
        assert two.step(GOOD, LABELS, dropout=rates) == plain_step(one, GOOD, LABELS, dropout=rate)
    assert trained(one) == trained(two)


def test_a_step_with_a_loss_that_is_not_finite_is_not_taken(engine):
    net = cmlp.Network([7, 5, 4], seed=2)
    trainer = net.trainer()
    for number in range(3):
        trainer.step(GOOD, LABELS)
        before = net.weights[0].copy(), net.steps
        net.weights[0][0, 0] = np.nan
        for step in (trainer.step, net.step):
            with pytest.raises(cmlp.DivergenceError, match="step that saw it was not taken"):
                step(GOOD, LABELS)
        assert net.steps == before[1] == number + 1
        net.weights[0] = before[0]
    assert np.isfinite(net.params).all()


# Gradients of one's own --------------------------------------------------------------------------


def test_a_step_from_the_derivatives_by_the_outputs(core):
    """Those of the squared error give the step of the squared error."""
    for recipe in ({}, {"solver": "adam", "clip_norm": 0.5}, {"l2": 0.1, "momentum": 0.0}):
        for dtype, n, out in (("f4", 20, "tanh"), ("f8", 1, "identity"), ("f8", 1500, "softmax")):
            one = cmlp.Network([7, 6, 3], "tanh", out, "squared_error", dtype=dtype, seed=3)
            two = copy.deepcopy(one)
            mine, theirs = one.trainer(**recipe), two.trainer(**recipe)
            for _ in range(4):
                X, y = RNG.normal(size=(n, 7)), RNG.normal(size=(n, 3))
                slope = (two.predict(X) - y) / n
                mine.step(X, y)
                assert theirs.backward(X, slope) is None
                assert one.steps == two.steps
            eps = 1e4 * np.finfo(dtype).eps  # Adam divides by gradients that are nearly 0
            np.testing.assert_allclose(two.params, one.params, rtol=eps, atol=eps)


def test_one_output_takes_a_vector(engine):
    net = cmlp.Network([7, 5, 1], seed=3)
    other = copy.deepcopy(net)
    trainer, theirs = net.trainer(), other.trainer()
    slope = RNG.normal(size=6)
    for _ in range(3):
        trainer.backward(GOOD, slope)
        theirs.backward(GOOD.tolist(), slope[:, None].tolist())
    assert trained(net) == trained(other)


def test_gradients_are_those_of_the_network(engine):
    X, y = RNG.integers(0, 5, (9, 7)) / 1.0, RNG.integers(0, 4, 9)
    inputs = cmlp.Inputs(periodic=[0], levels={2: (5, 3)}, summed={3: 4}, scaled=True)
    for more in ({"normalization": "layer", "parametric_activation": True}, {"inputs": inputs}):
        net = cmlp.Network([7, 5, 4], seed=3, **more)
        trainer, before = net.trainer(l2=0.01, dropout=0.5, clip_norm=1e-3), net.params.copy()
        for n in (9, 4):
            mine = trainer.gradients(X[:n], y[:n], inputs=True)
            theirs = net.gradients(X[:n], y[:n], l2=0.01)
            assert mine.loss == theirs.loss
            for name in ("weights", "biases", "scales", "alphas", "inputs"):
                for a, b in zip(getattr(mine, name), getattr(theirs, name), strict=True):
                    np.testing.assert_array_equal(a, b)
            for name, part in theirs.front.items():
                np.testing.assert_array_equal(mine.front[name], part)
        assert trainer.gradients(X, y).inputs.shape == (0, 7)
        assert trainer.gradients(X, y).weights[0] is mine.weights[0]  # nothing is allocated
        np.testing.assert_array_equal(net.params, before)


def test_gradients_through_another_network(engine):
    """dC/dX of a critic is dC/da of the actor before it: against finite differences."""
    actor = cmlp.Network([3, 4, 2], "tanh", "tanh", "squared_error", dtype="float64", seed=1)
    critic = cmlp.Network([2, 5, 1], "tanh", dtype="float64", seed=2)
    S = RNG.normal(size=(8, 3))

    def cost():
        return critic.predict(actor.predict(S)).mean()

    found = critic.trainer().backward(
        actor.predict(S), np.full((8, 1), 1 / 8), apply=False, inputs=True
    )
    gradient = actor.trainer().backward(S, found.inputs, apply=False).weights[0]
    W, h = actor.weights[0], 1e-6
    for index in np.ndindex(W.shape):
        at = W[index]
        W[index] = at + h
        above = cost()
        W[index] = at - h
        below = cost()
        W[index] = at
        assert abs((above - below) / (2 * h) - gradient[index]) < 1e-8


def test_apply_takes_the_step_of_the_gradients(engine):
    """Also when they were changed; what a custom loss gives is applied alike."""

    def squared(outputs, y):
        return 0.5 * ((outputs - y) ** 2).sum(axis=1).mean(), (outputs - y) / len(y)

    y = RNG.normal(size=(6, 4))
    for loss in ("squared_error", squared):
        one = cmlp.Network([7, 5, 4], loss=loss, out_activation="identity", seed=2)
        two = copy.deepcopy(one)
        trainer, theirs = one.trainer(solver="adam"), two.trainer(solver="adam")
        for _ in range(3):
            trainer.gradients(GOOD, y)
            trainer.apply()
            theirs.step(GOOD, y)
        np.testing.assert_allclose(one.params, two.params, rtol=1e-4, atol=1e-5)
        before = one.params.copy()
        for gradient in (*(found := trainer.gradients(GOOD, y)).weights, *found.biases):
            gradient[...] = 0
        one.moments[...] = 0
        trainer.apply()
        np.testing.assert_array_equal(one.params, before)


def test_errors_of_gradients_of_ones_own(engine):
    net = cmlp.Network([7, 5, 4], seed=2)
    trainer = net.trainer()
    with pytest.raises(ValueError, match="call gradients"):
        trainer.apply()
    good = np.zeros((6, 4))
    for X, slope, match in (
        (GOOD, good[:, :3], r"dC_da must be \(6, 4\), .* its shape is \(6, 3\)"),
        (GOOD, good[:5], r"dC_da must be \(6, 4\)"), (GOOD, LABELS, r"dC_da must be \(6, 4\)"),
        (GOOD, good + np.nan, "dC_da holds nan at row 0"), (GOOD, good + 1e300, "too large"),
        (GOOD, good.astype(str), "dC_da must hold"), (GOOD[:0], good[:0], "X has no rows"),
        (GOOD[:, :3], good, "X has 3 features"), (ROWS_AS["NaN"], good, "X holds nan at row 3"),
    ):  # fmt: skip
        for _ in range(2):
            with pytest.raises(ValueError, match=match):
                trainer.backward(X, slope)
            with pytest.raises(ValueError, match=match):
                trainer.backward(X, slope, apply=False)
            trainer.backward(GOOD, good)
    with pytest.raises(ValueError, match="inputs=True is for apply=False"):
        trainer.backward(GOOD, good, inputs=True)
    with pytest.raises(ValueError, match=r"polyak\(net, tau\)"):
        net.trainer(ema=0.9)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        net.trainer(batch_size=0)
    batched = cmlp.Network([7, 5, 4], normalization="batch").trainer()
    with pytest.raises(ValueError, match="at least 2 rows"):
        batched.backward(GOOD[:1], good[:1])
    trainer.gradients(GOOD, LABELS)
    net.weights[0][0, 0] = np.nan
    with pytest.raises(cmlp.DivergenceError):
        trainer.gradients(GOOD, LABELS)
    with pytest.raises(ValueError, match="call gradients"):
        trainer.apply()


# Networks that follow another one ----------------------------------------------------------------


def test_a_network_follows_another_one(core):
    for dtype in ("float32", "float64"):
        net = cmlp.Network([7, 6, 4], normalization="batch", seed=1, dtype=dtype)
        slow = cmlp.Network([7, 6, 4], normalization="batch", seed=2, dtype=dtype)
        expected, predict = slow.params.astype("f8"), slow.predictor()
        for tau in (0.25, 0.0, 1e-3, 1.0):
            slow.polyak(net, tau)
            expected += tau * (net.params - expected)
            eps = 8 * np.finfo(dtype).eps  # of numbers below 1
            np.testing.assert_allclose(slow.params, expected, rtol=eps, atol=eps)
        np.testing.assert_array_equal(slow.params, net.params)
        net.step(GOOD, LABELS)
        slow.copy_from(net)
        np.testing.assert_array_equal(slow.params, net.params)
        assert slow.steps == 0 and slow.classes is None and net.classes is not None
        assert predict(GOOD[0]).shape == (4,)


def test_only_a_like_network_is_followed(engine):
    net = cmlp.Network([7, 6, 4])
    for other in (
        cmlp.Network([7, 5, 4]), cmlp.Network([7, 6, 4], dtype="float64"),
        cmlp.Network([7, 6, 4], "tanh"), cmlp.Network([7, 6, 4], normalization="layer"),
    ):  # fmt: skip
        for follow in (net.copy_from, lambda other: net.polyak(other, 0.5)):
            with pytest.raises(ValueError, match="must have the same architecture: this one is"):
                follow(other)
    with pytest.raises(TypeError, match="another network was expected"):
        net.copy_from(net.params)
    for tau in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="tau must be"):
            net.polyak(net, tau)
    with pytest.raises(ValueError, match="bytes cannot be blended"):
        engine.blend(np.ones(3), np.ones(4), 0.5)


# Fits that are one step --------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [
    {}, {"solver": "adam", "shuffle": False}, {"input_noise": 0.5, "n_threads": 2}, {"ema": 0.9},
    {"clip_norm": 0.1, "batch_size": None}, {"schedule": "cosine"}, {"patience": 3},
])  # fmt: skip
def test_a_fit_of_one_step_is_that_of_a_training(engine, recipe):
    """One network is fitted in the middle with another parameter, which changes nothing."""
    for sizes, y in (
        ([7, 5, 4], LABELS), ([7, 5, 1], GOOD[:, 0]), ([7, 5, 3], GOOD[:, :3]), ([7, 3], LABELS),
    ):  # fmt: skip
        loss = "squared_error" if y is not LABELS else None
        one = cmlp.Network(sizes, loss=loss, seed=4)
        two = copy.deepcopy(one)
        if y is LABELS and sizes[-1] == 3:
            y = y % 3
        for number in range(4):
            rate = 0.1 / (1 + number)
            one._short_fit = None
            histories = [
                net.fit(GOOD, y, epochs=1, learning_rate=rate, **recipe) for net in (one, two)
            ]
            for key in ("epoch", "loss", "learning_rate"):
                assert histories[0][key] == histories[1][key]
            for name in ("metric", "stopped", "best_epoch", "restored"):
                assert getattr(histories[0], name) == getattr(histories[1], name)
                assert getattr(one.history, name) == getattr(two.history, name)
            assert list(histories[0]) == list(histories[1]) and list(one.history) == list(
                two.history
            )
            assert one.history["loss"] == two.history["loss"]
            assert trained(one) == trained(two)


def test_a_fit_of_one_step_takes_anything(fastest):
    net = cmlp.Network([7, 5, 4], seed=2)
    for _ in range(3):
        net.fit(GOOD, LABELS, epochs=1)
    for X in ROWS_AS.values():
        for y in (LABELS, LABELS.tolist()):
            one, two = copy.deepcopy(net), copy.deepcopy(net)
            for _ in range(2):
                two.fit(GOOD, LABELS, epochs=1), one.fit(GOOD, LABELS, epochs=1)
            one._short_fit = None
            found = [outcome(net.fit, X, y, epochs=1) for net in (one, two)]
            assert isinstance(found[0], dict) or found[0] == found[1]
            assert trained(one) == trained(two)


def test_a_fit_of_one_step_that_diverges(engine):
    """In its loss, or in a weight after it: the network is what it was, the error that of any."""
    for rate, weight in ((0.1, np.nan), (1e39, 1.0)):
        one = cmlp.Network([7, 5, 4], seed=2)
        for _ in range(3):
            one.fit(GOOD, LABELS, epochs=1, learning_rate=0.1)
        one.weights[0][0, 0] = weight
        two = copy.deepcopy(one)
        two.fit(GOOD[:0:-1], LABELS[:0:-1], epochs=1, learning_rate=0.0) if weight == 1 else None
        one, two = copy.deepcopy(two), two
        before = two.params.tobytes(), two.steps
        texts = [outcome(net.fit, GOOD, LABELS, epochs=1, learning_rate=rate) for net in (one, two)]
        assert texts[0] == texts[1] and texts[0][0] is cmlp.DivergenceError
        assert (two.params.tobytes(), two.steps) == before
        assert trained(one) == trained(two)
        assert one.history.stopped == two.history.stopped == "diverged"


@pytest.mark.parametrize("rate", (0.1, 1e39))
def test_a_fit_of_one_step_of_a_wide_network(compiled, rate):
    """Weights and moments are too large to be kept a second time with it: room is lent."""
    one = cmlp.Network([9, 800, 800, 3], seed=3)
    X, y = RNG.normal(size=(4, 9)).astype("f4"), np.arange(4) % 3
    one.fit(X, y, epochs=1, learning_rate=0.1)
    two = copy.deepcopy(one)
    two.fit(X, y, epochs=1, learning_rate=0.1), one.fit(X, y, epochs=1, learning_rate=0.1)
    one._short_fit = None
    assert two._short_fit.stepper.ready(two) and two._short_fit._room(two) is None
    found = [outcome(net.fit, X, y, epochs=1, learning_rate=rate) for net in (one, two)]
    assert two.history.stopped == ("epochs" if rate < 1 else "diverged")
    assert rate < 1 or found[0] == found[1]
    assert trained(one) == trained(two) and one.history["loss"] == two.history["loss"]


HIDDEN = tuple(row.name for row in ACTIVATIONS if row.name not in ("softmax", "exp"))


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_what_a_step_cannot_reach(compiled, dtype):
    """Where bounds prove that no number of a step is too large, none is; else nothing happens.

    Weights, moments, rows and rates are of all magnitudes.
    """
    random, answers = np.random.default_rng(11), []
    largest = np.log10(np.finfo(dtype).max)
    problems = (
        ([7, 5, 6, 4], None, LABELS), ([7, 5, 1], "squared_error", GOOD[:, :1]),
        ([7, 6, 5, 3], "binary_crossentropy", GOOD[:, :3] > 0),
    )  # fmt: skip
    for number in range(240):
        sizes, loss, y = problems[number % 3]
        y = np.asarray(y, dtype if y is not LABELS else int)
        hidden, solver = HIDDEN[number % len(HIDDEN)], ("sgd", "adam")[number % 2]
        net = cmlp.Network(sizes, hidden, loss=loss, dtype=dtype, seed=number)
        recipe = {"solver": solver, "l2": 0.1, "weight_decay": 0.1, "nesterov": number % 4 == 0}
        for _ in range(2):
            net.fit(GOOD, y, epochs=1, learning_rate=0.01, **recipe)
        bound = net._short_fit.stepper.ready(net)
        scale = 10.0 ** (random.uniform(-1, 1, 4) * largest * random.integers(0, 2, 4))
        if number < 12:
            scale[:] = 1
        net.params[:] *= np.clip(scale[0], 0, 1e4 if number % 5 else None)
        net.moments[:] *= scale[1]
        if solver == "adam" and number % 7 == 0:
            net.moments[1, 0] = -scale[1]
        X = (GOOD * scale[2]).astype(dtype)
        before = net.params.copy(), net.moments.copy()
        found = bound.take(X, y, None, 0.01 * scale[3], net.rng, False, True)
        answers.append(found is not None)
        if found is None:
            assert np.array_equal(net.params, before[0], equal_nan=True)
            assert np.array_equal(net.moments, before[1], equal_nan=True)
        else:
            assert np.isfinite(found) and np.isfinite(net.params).all()
            assert np.isfinite(net.moments).all()
            after = net.params.copy()
            net.params[:], net.moments[:] = before
            bound.steps -= 1
            assert bound.take(X, y, None, 0.01 * scale[3], net.rng, False, False) == found
            assert net.params.tobytes() == after.tobytes()
    assert all((number % 2 and number % 7 == 0) or answers[number] for number in range(12))
    assert 20 < sum(answers) < 220


@pytest.mark.parametrize(("x", "y", "rate", "recipe"), [
    (1e-20, 1e15, 1e24, {"momentum": 0.0}),  # the gradient of a bias has no factor x
    (1e30, 1e10, 1e-12, {"momentum": 0.0}),  # a gradient is infinite, whatever the rate
    (1.0, 1e12, 1e30, {"solver": "adam", "epsilon": 1e20}),  # multiplied before it is divided
    (1.0, 0.0, 0.1, {"weight_decay": 1e40}),  # infinite as a float, times a weight of 0
])  # fmt: skip
def test_a_fit_of_one_step_that_overflows(compiled, x, y, rate, recipe):
    """It raises, and the network is what it was."""
    net = cmlp.Network([2, 1], seed=1)
    X, y = np.full((3, 2), x, "f4"), np.full((3, 1), y)
    net.fit(np.ones_like(X), 0 * y, epochs=1, learning_rate=0.0, **recipe)
    net.params[:] = 0
    net.moments[:] = 0
    before = trained(net)
    with pytest.raises(cmlp.DivergenceError):
        net.fit(X, y, epochs=1, learning_rate=rate, **recipe)
    assert trained(net) == before


def test_one_batch_has_no_order(engine):
    """It is trained as it lies, and nothing is drawn for it; any order teaches the same."""
    for sizes, batch_size, y in (([7, 5, 4], None, LABELS), ([7, 5, 1], 64, GOOD[:, 0])):
        one = cmlp.Network(sizes, "tanh", dtype="float64", seed=3)
        two, three = copy.deepcopy(one), copy.deepcopy(one)
        order = np.random.default_rng(5).permutation(len(GOOD))
        common = {"epochs": 20, "batch_size": batch_size, "learning_rate": 0.05}
        one.fit(GOOD, y, **common)
        two.fit(GOOD, y, shuffle=False, **common)
        three.fit(GOOD[order], y[order], **common)
        assert trained(one) == trained(two)
        assert one.rng.bit_generator.state == cmlp.Network(sizes, seed=3).rng.bit_generator.state
        eps = 20 * len(GOOD) * np.finfo("f8").eps  # of each of 20 sums over the rows
        np.testing.assert_allclose(three.params, one.params, rtol=100 * eps, atol=10 * eps)
        one.train_epoch(GOOD, y, batch_size=batch_size), two.step(GOOD, y)
        np.testing.assert_allclose(one.params, two.params, rtol=100 * eps, atol=10 * eps)


def test_passes_with_statistics_of_their_own_are_shuffled(engine):
    """With normalization='batch', a batch of several passes has those of the rows in each."""
    X = np.random.default_rng(0).normal(size=(1100, 2)).astype("f4")
    one, two = (cmlp.Network([2, 3, 2], normalization="batch", seed=1) for _ in range(2))
    one.fit(X, X[:, 0] > 0, epochs=1, batch_size=None, learning_rate=0.01)
    two.fit(X, X[:, 0] > 0, epochs=1, batch_size=None, learning_rate=0.01, shuffle=False)
    assert one.rng.bit_generator.state != two.rng.bit_generator.state
    assert not np.array_equal(one.params, two.params)


@pytest.mark.parametrize("n", (1, 8192, 8193, 20_000, 40_000))
def test_weights_that_are_not_finite_are_seen(n):
    with np.errstate(all="raise"):
        for value in (0.0, 1e30, -3e38, np.nan, np.inf, -np.inf):
            for place in (0, n // 2, n - 1):
                params = np.full(n, 0.5, "f4")
                params[place] = value
                assert is_finite(params) == np.isfinite(value)


def test_an_interrupted_fit_of_one_step(compiled):
    """Ctrl-C after the step: it is counted, and the fit returns with a warning."""
    net = cmlp.Network([7, 5, 4], seed=2)
    for _ in range(3):
        net.fit(GOOD, LABELS, epochs=1)
    take = net._short_fit.stepper.take

    def interrupted(*args):
        take(*args)
        raise KeyboardInterrupt

    net._short_fit.stepper.take = interrupted
    with pytest.warns(UserWarning, match="interrupted after 0 of 1 epochs"):
        history = net.fit(GOOD, LABELS, epochs=1)
    assert history.stopped == "interrupted" and net.steps == 4
    assert net.history.epochs == 3


# What is kept ------------------------------------------------------------------------------------


def test_copies_are_made_without_what_is_kept():
    net = cmlp.Network([7, 5, 4], seed=2)
    for _ in range(3):
        net.step(GOOD, LABELS)
        net.fit(GOOD, LABELS, epochs=1)
    assert b"Stepper" not in pickle.dumps(net) and b"BoundTrainer" not in pickle.dumps(net)
    for other in (copy.deepcopy(net), copy.copy(net), pickle.loads(pickle.dumps(net))):
        assert vars(other).keys() & {"_stepper", "_short_fit"} == set()
        assert other.step(GOOD, LABELS) == copy.deepcopy(net).step(GOOD, LABELS)
    trainer = net.trainer()
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="do so with its network"):
            copied(trainer)
        with pytest.raises(TypeError, match="do so with its network"):
            copied(net._stepper.bound)


def test_a_network_is_freed_with_what_it_kept():
    """Nothing that is kept refers to the network: it goes without a garbage collection."""
    gone = []

    class Watched(cmlp.Network):
        def __del__(self):
            gone.append(True)

    net = Watched([7, 5, 4], seed=2)
    for _ in range(3):
        net.step(GOOD, LABELS)
        net.fit(GOOD, LABELS, epochs=1)
    assert is_quick(net)
    del net
    assert gone


def test_an_encoder_of_ones_own_is_called_at_every_step(compiled):
    class Halved(cmlp.Network):
        def encode_rows(self, X, *args, **kwargs):
            return super().encode_rows(np.asarray(X) / 2, *args, **kwargs)

    one, two = Halved([7, 5, 4], seed=2), cmlp.Network([7, 5, 4], seed=2)
    for _ in range(3):
        assert one.step(GOOD, LABELS) == two.step(GOOD / 2, LABELS)


def test_large_memory_is_not_kept_with_a_network(compiled):
    """Four megabytes are the most; a trainer, which a program holds, keeps what it needs."""
    X, y = np.ones((1000, 2000), "f4"), np.arange(1000) % 2
    one = cmlp.Network([2000, 2, 2], seed=0)
    two = copy.deepcopy(one)
    trainer = two.trainer(batch_size=1000)
    for _ in range(3):
        assert one.step(X, y) == trainer.step(X, y)
        assert one.step(X[:9], y[:9]) == trainer.step(X[:9], y[:9])
    assert trained(one) == trained(two)


def test_the_memory_of_a_training_may_hold_anything(compiled):
    """What one training leaves to the next is not read: NaN everywhere changes no bit."""
    X, y = RNG.normal(size=(600, 40)).astype("f4"), np.arange(600) % 3
    results = []
    for garbage in (0, 255):
        scratch._kept.clear()
        for size in (1 << 20, 1 << 22):
            lent = scratch.Scratch((size,), np.dtype("u1"))
            lent.array[:] = garbage
            lent.close()
        assert len(scratch._kept) == 2
        net = cmlp.Network([40, 150, 150, 3], normalization="layer", seed=1)
        net.fit(X, y, epochs=2, batch_size=600, learning_rate=0.01)
        net.fit(X, y, epochs=2, batch_size=100, learning_rate=0.01, clip_norm=1.0)
        results.append(trained(net))
    assert results[0] == results[1]


def test_memory_is_lent_to_one_training_at_a_time():
    scratch._kept.clear()
    one = scratch.Scratch((1 << 18,), np.dtype("f4"))
    assert one.array.ctypes.data % 64 == 0 and not scratch._kept
    one.close(), one.close()
    assert list(scratch._kept) == [1 << 20]
    two, three = (scratch.Scratch((1 << 15,), np.dtype("f8")) for _ in range(2))
    assert np.shares_memory(one.array, two.array) and not np.shares_memory(two.array, three.array)
    small = scratch.Scratch((1 << 10,), np.dtype("f4"))
    large = scratch.Scratch(((1 << 24) + 1,), np.dtype("f4"))
    for lent in (small, large):
        lent.close()
    assert not scratch._kept  # neither is kept
    for lent in (two, three, scratch.Scratch((1 << 19,), np.dtype("f8"))):
        lent.close()
    assert sorted(scratch._kept) == [1 << 18, 1 << 22]


# Threads -----------------------------------------------------------------------------------------


def test_threads_do_not_train_one_network_at_once():
    net = cmlp.Network([7, 5, 4], seed=2)
    trainer, refused = net.trainer(), []
    for _ in range(3):
        net.step(GOOD, LABELS), trainer.step(GOOD, LABELS)
        net.fit(GOOD, LABELS, epochs=1)
    trainer.gradients(GOOD, LABELS)

    def others():
        for call in (
            lambda: net.step(GOOD, LABELS), lambda: trainer.step(GOOD, LABELS),
            lambda: net.fit(GOOD, LABELS, epochs=1), lambda: trainer.gradients(GOOD, LABELS),
            lambda: trainer.backward(GOOD, np.zeros((6, 4))), trainer.apply,
            lambda: net.copy_from(net), lambda: net.polyak(net, 0.5),
        ):  # fmt: skip
            refused.append(outcome(call))

    before = trained(net)
    with net.exclusive_training():
        thread = threading.Thread(target=others)
        thread.start(), thread.join()
        net.step(GOOD, LABELS)  # this thread may, as from a callback
    assert len(refused) == 8
    assert all(kind is RuntimeError and "another thread" in text for kind, text in refused)
    assert trained(net) != before


def test_networks_train_in_threads_of_their_own(compiled):
    """Each as it does alone, with steps, trainers and fits whose memory is lent."""
    X, y = RNG.normal(size=(64, 7)).astype("f4"), RNG.integers(0, 4, 64)

    def train(seed, results):
        net = cmlp.Network([7, 64, 64, 4], seed=seed)
        trainer = net.trainer(learning_rate=0.01, batch_size=64)
        for _ in range(60):
            net.step(X, y)
            trainer.step(X, y)
            net.fit(X, y, epochs=1, batch_size=64)
            net.fit(X, y, epochs=2, batch_size=33)
        results[seed] = net.params.tobytes()

    alone, together = {}, {}
    for seed in range(3):
        train(seed, alone)
    threads = [threading.Thread(target=train, args=(seed, together)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alone == together
