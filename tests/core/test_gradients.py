"""Backpropagation against central differences, and small nets worked out by hand."""

import math
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from cores import ENGINES
from oracle import HIDDEN, KINKS, LOSSES, PAIRS, QUIET, Oracle, Problem, layers

import cmlp
from cmlp.core import seam, vocabulary

DOUBLE = np.dtype(np.float64)
CLASSIFIERS = [loss.name for loss in vocabulary.LOSSES if loss.classifies]

# Central differences -----------------------------------------------------------------------------

STEP = float(np.cbrt(np.finfo(np.float64).eps))
"""Balances the error of cutting off, STEP^2, and of rounding, eps / STEP: both are 4e-11."""

TOLERANCE = 1e-7
"""Of the largest entry: above 4e-11 by the third derivatives and the size of the loss."""

CLEAR = 50 * STEP
"""How far a weighted sum, a residual or a weight has to stay from a kink."""

VARIANTS = {
    "plain": {},
    "l1": {"l1": 0.05},
    "l2": {"l2": 0.1},
    "weights": {"weighted": True},
    "smoothing": {"smoothing": 0.2},
    "dropout": {},
    "noise": {},
}
NOISE = {
    "dropout": seam.Noise(9, 0.0, np.array([0.4])),
    "noise": seam.Noise(9, 0.2, np.empty(0)),
}


def away_from_kinks(problem, noise):
    """Whether no kink is so near that a difference would step over it."""
    oracle = Oracle(problem, noise, 3)
    for name, z in zip(problem.activations, oracle.z, strict=True):
        for kink in KINKS.get(name, ()):
            if np.abs(z.value - kink).min() < CLEAR:
                return False
    residual = np.abs(oracle.a[-1].value - oracle.y)
    edges = [0.0, problem.objective.parameter] if problem.loss == "huber" else [0.0]
    kinked = problem.loss in ("absolute_error", "quantile", "huber")
    if kinked and min(np.abs(residual - edge).min() for edge in edges) < CLEAR:
        return False
    small = min(np.abs(W).min() for W, _ in layers(problem.plan, problem.params))
    return not problem.l1 or small > CLEAR


@cache
def smooth_problem(activations, loss, variant):
    """The first of a row of problems that is clear of all kinks, and its noise."""
    noise = NOISE.get(variant, QUIET)
    for seed in range(200):
        problem = Problem((3, 4, 2), activations, loss, 5, DOUBLE, seed, **VARIANTS[variant])
        if away_from_kinks(problem, noise):
            return problem, noise
    raise AssertionError("every problem has a kink nearby")


def slope_along(core, problem, noise, direction):
    """Central difference of the loss along a direction in the space of the parameters."""
    up, down = (
        problem.gradient(core, problem.params + sign * STEP * direction, noise=noise, step=3)[0]
        for sign in (1, -1)
    )
    return (up - down) / (2 * STEP)


def check_differences(core, activations, loss, variant):
    problem, noise = smooth_problem(activations, loss, variant)
    _, grads, _, dX = problem.gradient(core, noise=noise, step=3)
    scale = max(1.0, float(np.abs(grads).max()))
    if variant == "plain":  # every entry
        unit = problem.like_params(0)
        for (W, b), (dW, db) in zip(
            layers(problem.plan, unit), layers(problem.plan, grads), strict=True
        ):
            for values, slopes in ((W, dW), (b, db)):
                for where in np.ndindex(values.shape):
                    values[where] = 1
                    numeric = slope_along(core, problem, noise, unit)
                    values[where] = 0
                    assert abs(slopes[where] - numeric) <= TOLERANCE * scale, (where, values.shape)
        for where in ((0, 0), (4, 2)):
            losses = []
            for sign in (1, -1):
                X = problem.X.copy()
                X[where] += sign * STEP
                losses.append(problem.gradient(core, X=X)[0])
            assert abs(dX[where] - (losses[0] - losses[1]) / (2 * STEP)) <= TOLERANCE * scale
        return
    rng = np.random.default_rng(0)
    for _ in range(4):  # all entries at once, in four directions
        direction = problem.like_params(0)
        for pair in layers(problem.plan, direction):
            for part in pair:
                part[...] = rng.choice([-1, 1], part.shape)
        numeric = slope_along(core, problem, noise, direction)
        assert abs(grads @ direction - numeric) <= 26 * TOLERANCE * scale, variant


def variants_of(loss, number):
    """Return "plain" and two others, which another number makes others: three make all."""
    others = [v for v in VARIANTS if v != "plain" and (v != "smoothing" or loss in CLASSIFIERS)]
    return ["plain", *(others[(2 * number + k) % len(others)] for k in (0, 1))]


def in_turn(cases):
    """Return each case on one engine, in turn; other tests compare the twins on all of them."""
    return [(ENGINES[number % len(ENGINES)], *case) for number, case in enumerate(cases)]


@pytest.mark.parametrize("engine, loss, out", in_turn(PAIRS), indirect=["engine"])
def test_every_loss_with_every_output(engine, loss, out):
    for variant in variants_of(loss, PAIRS.index((loss, out))):
        check_differences(engine, ("tanh", out), loss, variant)


@pytest.mark.parametrize(
    "engine, loss, hidden", in_turn(product(LOSSES, HIDDEN)), indirect=["engine"]
)
def test_every_loss_with_every_activation(engine, loss, hidden):
    for variant in variants_of(loss, HIDDEN.index(hidden) + list(LOSSES).index(loss)):
        check_differences(engine, (hidden, LOSSES[loss].out_activation), loss, variant)


@pytest.mark.parametrize("loss", LOSSES)
def test_check_gradients(engine, dtype, loss):
    rng = np.random.default_rng(1)
    net = cmlp.Network([4, 6, 3], "tanh", loss=loss, dtype=dtype, seed=3)
    y = rng.uniform(0.1, 0.9, (12, 3))
    y /= y.sum(axis=1, keepdims=True)
    checked = net.check_gradients(rng.uniform(-1, 1, (12, 4)), y, l1=0.01, l2=0.02, entries=8)
    assert checked, str(checked)


def test_check_gradients_sees_a_wrong_one(core):
    def wrong(out, y):
        return float(((out - y) ** 2).sum()) / len(y), 1.001 * 2 * (out - y) / len(y)

    net = cmlp.Network([3, 4, 1], "tanh", loss=wrong, dtype="float64", seed=0)
    assert not net.check_gradients(np.eye(3), np.ones((3, 1)))


def test_gradients_of_a_network_with_weights(core, dtype):
    """dC/dW, dC/db, dC/dX and the loss by the plain formulas of a linear net."""
    net = cmlp.Network([3, 2], loss="squared_error", dtype=dtype, seed=0)
    X, y = np.arange(12.0).reshape(4, 3) / 8, np.arange(8.0).reshape(4, 2)
    w = np.array([1, 2, 0, 1])
    W, b = net.weights[0].astype(float), net.biases[0].astype(float)
    r = X @ W + b - y
    delta = r * w[:, None] / 4
    found = net.gradients(X, y, w, l1=0.1, l2=0.2)
    close = {"rtol": 50 * np.finfo(dtype).eps, "atol": 50 * np.finfo(dtype).eps}
    np.testing.assert_allclose(found.weights[0], X.T @ delta + 0.1 * np.sign(W) + 0.2 * W, **close)
    np.testing.assert_allclose(found.biases[0], delta.sum(axis=0), **close)
    np.testing.assert_allclose(found.inputs, delta @ W.T, **close)
    penalty = 0.1 * np.abs(W).sum() + 0.1 * (W**2).sum()
    np.testing.assert_allclose(found.loss, (r**2 / 2).sum(axis=1) @ w / 4 + penalty, **close)


# By hand -----------------------------------------------------------------------------------------


def network(sizes, activation, out, loss, weights, biases, dtype="float64"):
    net = cmlp.Network(sizes, activation, out, loss, dtype=dtype)
    for mine, given in zip([*net.weights, *net.biases], [*weights, *biases], strict=True):
        mine[...] = given
    return net


def close(dtype):
    return {"rtol": 0, "atol": 8 * float(np.finfo(dtype).eps)}


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def small(loss, dtype):
    """Two inputs, two hidden units, one output, all logistic."""
    return network([2, 2, 1], "logistic", "logistic", loss,
                   [[[0.1, -0.2], [0.4, 0.3]], [[0.5], [-0.6]]], [[0.05, -0.1], [0.2]],
                   dtype)  # fmt: skip


# The forward pass of small() for x = (1, 0.5):
#   z1 = 0.1 * 1 + 0.4 * 0.5 + 0.05 = 0.35          h1 = sigmoid(0.35)
#   z2 = -0.2 * 1 + 0.3 * 0.5 - 0.1 = -0.15         h2 = sigmoid(-0.15)
#   z  = 0.5 h1 - 0.6 h2 + 0.2                      a  = sigmoid(z)
H1, H2 = 0.5866175789173301, 0.46257015465625045
Z = 0.5 * 0.5866175789173301 - 0.6 * 0.46257015465625045 + 0.2
A = 0.5537333714493564


def test_forward_by_hand(core, dtype):
    record = small("squared_error", dtype).forward([[1, 0.5]], return_all=True)
    np.testing.assert_allclose(record.z[0], [[0.35, -0.15]], **close(dtype))
    np.testing.assert_allclose(record.a[0], [[H1, H2]], **close(dtype))
    np.testing.assert_allclose(record.z[1], [[Z]], **close(dtype))
    np.testing.assert_allclose(record.a[1], [[A]], **close(dtype))


@pytest.mark.parametrize(
    ("loss", "delta"),
    [
        # C = (a - 1)^2 / 2:  dC/dz = (a - 1) a (1 - a)
        ("squared_error", (A - 1) * A * (1 - A)),
        # C = -(y log a + (1 - y) log(1 - a)), y = 1:  dC/dz = a - 1
        ("binary_crossentropy", A - 1),
    ],
)
def test_backpropagation_by_hand(core, dtype, loss, delta):
    found = small(loss, dtype).gradients([[1, 0.5]], [[1]])
    d1 = delta * 0.5 * H1 * (1 - H1)
    d2 = delta * -0.6 * H2 * (1 - H2)
    np.testing.assert_allclose(found.biases[1], [delta], **close(dtype))
    np.testing.assert_allclose(found.weights[1], [[delta * H1], [delta * H2]], **close(dtype))
    np.testing.assert_allclose(found.biases[0], [d1, d2], **close(dtype))
    np.testing.assert_allclose(found.weights[0], [[d1, d2], [0.5 * d1, 0.5 * d2]], **close(dtype))
    dX = [[0.1 * d1 - 0.2 * d2, 0.4 * d1 + 0.3 * d2]]
    np.testing.assert_allclose(found.inputs, dX, **close(dtype))


def test_a_published_example(core, dtype):
    """M. Mazur, A Step by Step Backpropagation Example (2015): its numbers to nine digits."""
    net = network([2, 2, 2], "logistic", "logistic", "squared_error",
                  [[[0.15, 0.25], [0.20, 0.30]], [[0.40, 0.50], [0.45, 0.55]]],
                  [[0.35, 0.35], [0.60, 0.60]], dtype)  # fmt: skip
    X, y = [[0.05, 0.10]], [[0.01, 0.99]]
    near = {"rtol": 0, "atol": 1e-8 + 2 * float(np.finfo(dtype).eps)}
    np.testing.assert_allclose(net.predict(X), [[0.75136507, 0.772928465]], **near)
    np.testing.assert_allclose(net.loss(X, y), 0.298371109, **near)
    net.step(X, y, learning_rate=0.5, momentum=0)
    np.testing.assert_allclose(
        net.weights[1], [[0.35891648, 0.511301270], [0.408666186, 0.561370121]], **near
    )
    np.testing.assert_allclose(
        net.weights[0], [[0.149780716, 0.24975114], [0.19956143, 0.29950229]], **near
    )


def test_relu_and_softmax_by_hand(core, dtype):
    """Whole numbers up to the softmax, whose exponents are logarithms of whole numbers."""
    net = network([2, 2, 3], "relu", "softmax", "categorical_crossentropy",
                  [[[1, -1], [2, 1]], [[math.log(2), 0, math.log(5)], [7, 8, 9]]],
                  [[0, 0], [0, 0, 0]], dtype)  # fmt: skip
    # x = (3, -1): z = (3 - 2, -3 - 1) = (1, -4), h = (1, 0), logits = (log 2, 0, log 5)
    record = net.forward([[3, -1]], return_all=True)
    assert record.z[0].tolist() == [[1, -4]] and record.a[0].tolist() == [[1, 0]]
    np.testing.assert_allclose(record.a[1], [[0.25, 0.125, 0.625]], **close(dtype))
    # y = class 2: C = -log(5 / 8), delta = p - y = (2/8, 1/8, -3/8)
    found = net.gradients([[3, -1]], [2])
    np.testing.assert_allclose(found.loss, 0.4700036292457356, **close(dtype))
    np.testing.assert_allclose(found.biases[1], [0.25, 0.125, -0.375], **close(dtype))
    np.testing.assert_allclose(found.weights[1], [[0.25, 0.125, -0.375], [0, 0, 0]], **close(dtype))
    # delta W^T = 0.25 log 2 - 0.375 log 5 for the first unit; the second is off
    d = 0.25 * 0.6931471805599453 - 0.375 * 1.6094379124341003
    np.testing.assert_allclose(found.biases[0], [d, 0], **close(dtype))
    np.testing.assert_allclose(found.weights[0], [[3 * d, 0], [-d, 0]], **close(dtype))
    np.testing.assert_allclose(found.inputs, [[d, 2 * d]], **close(dtype))


# Cross-entropy -----------------------------------------------------------------------------------


def one_logit(dtype):
    """a = logistic(x)."""
    return network([1, 1], [], "logistic", "binary_crossentropy", [[[1]]], [[0]], dtype)


def test_binary_crossentropy_of_a_certain_mistake_is_large_and_finite(core, dtype):
    """p rounds to 0 and 1 there: the cost is -log p from the logit, |z|."""
    net = one_logit(dtype)
    for z, y in ((-1000.0, 1), (1000.0, 0), (-80.0, 1), (80.0, 0)):
        assert net.predict([[z]])[0, 0] == pytest.approx(float(z > 0), abs=1e-30)
        assert net.loss([[z]], [[y]]) == pytest.approx(abs(z), rel=1e-6)
        assert net.loss([[z]], [[1 - y]]) == pytest.approx(0, abs=1e-30)
        assert net.gradients([[z]], [[y]]).inputs[0, 0] == pytest.approx(math.copysign(1, z))


def test_categorical_crossentropy_of_a_certain_mistake_is_large_and_finite(core, dtype):
    net = network([1, 2], [], "softmax", "categorical_crossentropy", [[[1, -1]]], [[0, 0]], dtype)
    for z in (500.0, 1e4):
        assert net.predict([[z]]).tolist() == [[1, 0]]
        assert net.loss([[z]], [1]) == pytest.approx(2 * z)
        assert net.loss([[z]], [0]) == 0


@pytest.mark.parametrize("out", ["hard_sigmoid", "softmax"])
def test_binary_crossentropy_without_a_logit_is_finite(core, dtype, out):
    """Where the output is rounded already, p is kept eps away from 0 and 1."""
    net = network([1, 2], [], out, "binary_crossentropy", [[[1, -1]]], [[0, 0]], dtype)
    eps = float(np.finfo(dtype).eps)
    assert net.loss([[1000]], [[0, 1]]) == pytest.approx(-2 * math.log(eps), rel=0.01)
    assert np.isfinite(net.gradients([[1000]], [[0, 1]]).weights[0]).all()


def test_the_formula_with_a_plus_is_another_one(core):
    """-(y log a + (1 + y) log(1 - a)), as some notes have it, agrees only for y = 0."""
    net = one_logit("float64")
    for z in (-2.0, -0.3, 0.4, 1.7):
        a = sigmoid(z)
        for y in (0, 1):
            right = -(y * math.log(a) + (1 - y) * math.log(1 - a))
            wrong = -(y * math.log(a) + (1 + y) * math.log(1 - a))
            assert net.loss([[z]], [[y]]) == pytest.approx(right, rel=1e-14)
            assert (abs(wrong - right) > 0.1) == (y == 1)
            # d/dz of the wrong one for y = 1 is 3 a - 1, not a - 1: its minimum is not at a = 1
            slope = net.gradients([[z]], [[y]]).inputs[0, 0]
            assert slope == pytest.approx(a - y, rel=1e-13)


def test_binary_crossentropy_of_a_nearly_right_answer_keeps_its_digits(core, dtype):
    """log1p(exp(-z)) for y = 1, without the difference of two large numbers."""
    net = one_logit(dtype)
    for z, y in ((8.0, 1), (-8.0, 0), (14.0, 1), (-14.0, 0)):
        cost = math.log1p(math.exp(-abs(z)))
        assert net.loss([[z]], [[y]]) == pytest.approx(cost, rel=16 * float(np.finfo(dtype).eps))


# Steps by hand -----------------------------------------------------------------------------------


def linear(dtype):
    """a = w x + b with C = (a - y)^2 / 2; x = 1, y = 0, so dC/dw = dC/db = w + b."""
    return network([1, 1], [], "identity", "squared_error", [[[2.0]]], [[0.0]], dtype)


def two_steps(net, **recipe):
    """w after each of two steps."""
    found = []
    for _ in range(2):
        net.step([[1.0]], [[0.0]], **recipe)
        found.append((float(net.weights[0][0, 0]), float(net.biases[0][0])))
    return found


TINY = 1e-30
"""An epsilon that adds nothing."""

STEPS = {
    # g = 2: w = 2 - 0.1 * 2 = 1.8, b = -0.2;  g = 1.6: w = 1.8 - 0.16 = 1.64, b = -0.36
    "sgd": ({"momentum": 0}, [(1.8, -0.2), (1.64, -0.36)]),
    # v = -0.2;  g = 1.6: v = 0.9 * -0.2 - 0.16 = -0.34
    "momentum": ({"momentum": 0.9}, [(1.8, -0.2), (1.46, -0.54)]),
    # v = -0.2, move = 0.9 * -0.2 - 0.2 = -0.38: w = 1.62, b = -0.38
    # g = 1.24: v = -0.18 - 0.124 = -0.304, move = -0.2736 - 0.124 = -0.3976
    "nesterov": ({"momentum": 0.9, "nesterov": True}, [(1.62, -0.38), (1.2224, -0.7776)]),
    # m = 0.2, v = 0.004, rate = 0.1 sqrt(0.001) / 0.1: move = 0.1, w = 1.9, b = -0.1
    # g = 1.8: m = 0.18 + 0.18 = 0.36, v = 0.003996 + 0.00324 = 0.007236
    # rate = 0.1 sqrt(1 - 0.999^2) / (1 - 0.9^2) = 0.1 sqrt(0.001999) / 0.19
    # move = 0.1 sqrt(0.001999) / 0.19 * 0.36 / sqrt(0.007236) = 0.0995871
    "adam": (
        {"solver": "adam", "epsilon": TINY},
        [(1.9, -0.1)]
        + [(1.9 - m, -0.1 - m) for m in (0.1 * (0.001999 / 0.007236) ** 0.5 / 0.19 * 0.36,)],
    ),
    # the same, and w *= 1 - 0.1 * 0.5 first: w = 1.9 - 0.1 = 1.8, b = -0.1
    # g = 1.7: m = 0.18 + 0.17 = 0.35, v = 0.003996 + 0.00289 = 0.006886
    "adamw": (
        {"solver": "adamw", "epsilon": TINY, "weight_decay": 0.5},
        [(1.8, -0.1)]
        + [(1.71 - m, -0.1 - m) for m in (0.1 * (0.001999 / 0.006886) ** 0.5 / 0.19 * 0.35,)],
    ),
    # epsilon is added to sqrt(v) = sqrt(0.004), before the correction:
    # move = 0.1 sqrt(0.001) / 0.1 * 0.2 / (sqrt(0.004) + 0.01)
    "adam's epsilon": (
        {"solver": "adam", "epsilon": 0.01},
        [(2 - m, -m) for m in (0.001**0.5 * 0.2 / (0.004**0.5 + 0.01),)],
    ),
    # v = 0.1 * 4 = 0.4, move = 0.1 * 2 / sqrt(0.4) = 0.1 sqrt(10)
    # g = 2 - 0.2 sqrt(10), v = 0.36 + 0.1 g^2
    "rmsprop": (
        {"solver": "rmsprop", "beta_2": 0.9, "epsilon": TINY},
        [(2 - 0.1 * 10**0.5, -0.1 * 10**0.5)]
        + [
            (2 - 0.1 * 10**0.5 - m, -0.1 * 10**0.5 - m)
            for g in (2 - 0.2 * 10**0.5,)
            for m in (0.1 * g / (0.36 + 0.1 * g * g) ** 0.5,)
        ],
    ),
    # w *= 0.95, then the step: w = 1.9 - 0.2 = 1.7, b = -0.2; g = 1.5: w = 1.615 - 0.15
    "decay": ({"momentum": 0, "weight_decay": 0.5}, [(1.7, -0.2), (1.465, -0.35)]),
    # g_w = 2 + 0.5 * 2 = 3, g_b = 2: w = 1.7, b = -0.2; g_b = 1.5, g_w = 1.5 + 0.85 = 2.35
    "l2": ({"momentum": 0, "l2": 0.5}, [(1.7, -0.2), (1.465, -0.35)]),
    # g_w = 2 + 0.5 = 2.5: w = 1.75, b = -0.2; g_b = 1.55, g_w = 2.05: w = 1.545, b = -0.355
    "l1": ({"momentum": 0, "l1": 0.5}, [(1.75, -0.2), (1.545, -0.355)]),
    # the norm of (2, 2) is sqrt(8): both become 0.5 sqrt(2) for a clip at 1
    "clip": (
        {"momentum": 0, "clip_norm": 1},
        [(2 - k * 0.05 * 2**0.5, -k * 0.05 * 2**0.5) for k in (1, 2)],
    ),
}


@pytest.mark.parametrize("case", STEPS)
def test_two_steps_by_hand(core, dtype, case):
    recipe, expected = STEPS[case]
    found = two_steps(linear(dtype), learning_rate=0.1, **recipe)
    np.testing.assert_allclose(found[: len(expected)], expected, **close(dtype))


@pytest.mark.parametrize("solver", ["adam", "adamw", "rmsprop"])
def test_without_an_epsilon_nothing_is_divided_by_zero(core, dtype, solver):
    """Refuse it, or leave parameters without a gradient (and the padding) as they are."""
    net = network([2, 1], [], "identity", "squared_error", [[[2.0], [3.0]]], [[0.0]], dtype)
    try:
        net.step([[1.0, 0.0]], [[0.0]], solver=solver, epsilon=0)
    except ValueError as error:
        assert "epsilon" in str(error)
    assert np.isfinite(net.params).all()


def test_the_loss_of_a_step_is_the_one_before_it(core, dtype):
    net = linear(dtype)
    assert net.step([[1.0]], [[0.0]], learning_rate=0.1, l1=0.5, l2=1.0) == pytest.approx(2 + 1 + 2)


def test_dropout_keeps_the_expected_sum(core, dtype):
    """1 / (1 - rate) on what is kept: over many rows the mean of the output does not move."""
    problem = Problem((1, 64, 1), ("exp", "identity"), "squared_error", 4000, dtype)
    problem.X[...] = 0
    quiet = problem.evaluate(core)[0].mean(dtype=float)
    noisy = problem.evaluate(core, noise=seam.Noise(1, 0.0, np.array([0.5])))[0]
    terms = Oracle(problem).a[0].value[0] * layers(problem.plan, problem.params)[1][0][:, 0]
    deviation = float(np.sqrt(np.square(terms).sum() / len(noisy)))
    assert abs(noisy.mean(dtype=float) - quiet) < 4 * deviation


def test_input_noise_is_nearly_normal(core, dtype):
    """Mean 0, the given deviation, kurtosis 3 - 0.15: the sum of eight uniform bytes."""
    problem = Problem((1, 1), ("identity",), "squared_error", 20_000, dtype)
    (W, b), *_ = layers(problem.plan, problem.params)
    problem.X[...], W[...], b[...] = 0, 1, 0
    x = problem.evaluate(core, noise=seam.Noise(3, 0.5, np.empty(0)))[0][:, 0].astype(float)
    assert abs(x.mean()) < 4 * 0.5 / math.sqrt(len(x))
    assert abs(x.std() - 0.5) < 4 * 0.5 / math.sqrt(2 * len(x))
    assert abs((x**4).mean() / x.var() ** 2 - 2.85) < 0.15


def test_smoothing_moves_targets(core):
    """Smoothing by s is the loss with targets y + s (u - y), u = 1/n or 1/2."""
    for loss, uniform in (("categorical_crossentropy", 1 / 2), ("binary_crossentropy", 0.5)):
        out = LOSSES[loss].out_activation
        plain = Problem((3, 4, 2), ("tanh", out), loss, 5, DOUBLE)
        smooth = replace(plain, smoothing=0.3)
        moved = plain.targets + 0.3 * (uniform - plain.targets)
        assert smooth.gradient(core)[0] == pytest.approx(plain.gradient(core, targets=moved)[0])


def test_poisson_of_a_right_answer_is_nothing(core, dtype):
    """y (e^d - 1 - d) with d = z - log y; the terms of a - y + y log(y / a) cancel for large y."""
    net = network([1, 1], [], "exp", "poisson", [[[1.0]]], [[0.0]], dtype)
    for y in (0.5, 3.0, 1e6):
        z = float(np.dtype(dtype).type(math.log(y)))
        d = z - math.log(y)
        wanted = y * (math.expm1(d) - d)
        eps = float(np.finfo(dtype).eps)
        assert net.loss([[z]], [[y]]) == pytest.approx(wanted, abs=4 * y * (abs(z) * eps) ** 2)
        assert net.loss([[z]], [[y]]) >= 0


def test_a_penalty_that_is_not_finite_stops(core):
    """A weight after a dead unit has no effect on the loss, but is part of the penalty."""
    net = network([1, 1, 1], ["relu"], "identity", "squared_error", [[[-1.0]], [[1e200]]],
                  [[0.0], [0.0]], np.float64)  # fmt: skip
    with pytest.raises(ArithmeticError):
        net.step([[1.0]], [[0.0]], l2=1e-3)
    assert net.steps == 0 and net.weights[1][0, 0] == 1e200


@pytest.mark.parametrize("l2, expected", [(1e-30, 0.5 * (1e-30 * 1e20) * 1e20), (1, None)])
def test_a_penalty_has_the_products_of_its_type(core, l2, expected):
    """(l2 w) w in float32, of a net that trains by itself and of nets side by side."""
    nets = [
        network([1, 1, 1], ["relu"], "identity", "squared_error", [[[-1.0]], [[1e20]]],
                [[0.0], [0.0]], np.float32)
        for _ in range(16)
    ]  # fmt: skip
    *many, alone = nets
    settings = {"epochs": 1, "learning_rate": 1e-9, "l2": l2}
    if expected:
        record = alone.fit([[1.0]], [[0.0]], **settings)
        records = cmlp.fit_many(many, [[1.0]], [[0.0]], **settings)
        for loss in (record["loss"], *(one["loss"] for one in records)):
            assert loss == pytest.approx([expected], rel=1e-6)
        return
    with pytest.raises(cmlp.DivergenceError):
        alone.fit([[1.0]], [[0.0]], **settings)
    with pytest.warns(cmlp.ConvergenceWarning, match="15 of 15"):
        cmlp.fit_many(many, [[1.0]], [[0.0]], **settings)


def test_a_rate_that_overflows_is_infinite(core):
    """Adam divides it by 1 - beta_1: powers are numbers of C, not complex ones that raise."""
    net = cmlp.Network([2, 3, 1], "tanh", loss="squared_error", dtype="float64", seed=0)
    with pytest.raises(cmlp.DivergenceError):
        net.fit([[1, 2]], [[0.5]], epochs=1, solver="adam", learning_rate=1e300, beta_1=1 - 1e-10)


@pytest.mark.parametrize("loss, out", [
    ("bce", "hard_sigmoid"), ("poisson", "softplus"), ("categorical_crossentropy", "logistic"),
    ("huber", "identity"), ("absolute_error", "identity"), ("quantile", "identity"),
])  # fmt: skip
def test_nan_is_not_clipped_to_a_number(core, dtype, loss, out):
    net = cmlp.Network([2, 2], loss=loss, out_activation=out, dtype=dtype, seed=0)
    net.weights[0][0, 0] = np.nan
    y = [[1.0, 0.0]]
    assert np.isnan(net.loss([[1.0, 1.0]], y))
    assert np.isnan(net.gradients([[1.0, 1.0]], y).biases[0][0])
