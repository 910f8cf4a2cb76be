"""Rates and decay per group and layer, and by schedule: against the oracle, and by hand."""

import copy
import math

import numpy as np
import pytest
from cores import CORES
from helpers import DTYPES, alternating, blobs, covering, refused, squared_error
from oracle import (
    QUIET,
    WIDTHS,
    Bounded,
    Problem,
    check_same,
    compact,
    layers,
    padding,
    problems_at_odd_sizes,
    stepped,
)
from test_kernels import (
    OPTIMIZERS,
    TEAMS,
    check_params,
    check_step,
    moments,
    noisy,
    take_epoch,
)

from cmlp import Inputs, Network
from cmlp.core import groups, seam
from cmlp.training.recipe import Recipe

X, Y = blobs(40)


def with_factors(optimizer, plan, seed=0):
    """Factors that differ from row to row; every group decays, but for one."""
    rng = np.random.default_rng(seed)
    factors = np.round(rng.uniform(0.2, 2, groups.default_factors(plan).shape), 2)
    factors[1, 1] = 0
    return optimizer._replace(factors=factors, weight_decay=0.3)


# Against the oracle ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype, name, clip", covering(DTYPES, OPTIMIZERS, [0.0, 0.5]), indirect=["dtype"]
)
def test_update(core, dtype, name, clip):
    problem = Problem((17, 33, 7), ("tanh", "identity"), "squared_error", 1, dtype)
    optimizer = with_factors(OPTIMIZERS[name], problem.plan)._replace(clip_norm=clip)
    rng = np.random.default_rng(2)
    grads, state = problem.like_params(0), moments(problem, optimizer)
    for pair in layers(problem.plan, grads):
        for part in pair:
            part[...] = rng.standard_normal(part.shape)
    exact = compact(problem.plan, grads).astype(np.float64)
    expected, new_state = stepped(problem, optimizer, Bounded(exact, 0 * exact), state, 4, 0.1)
    params = problem.params.copy()
    core.update(problem.plan, params, grads, state, optimizer, 4, 0.1)
    check_params(problem, params, expected, "params")
    for row, moment in zip(state, new_state, strict=True):
        check_params(problem, row, moment, "moment")


@pytest.mark.parametrize(
    "dtype, name, n, clip",
    covering(DTYPES, OPTIMIZERS, [1, 27, 1030], [0.0, 0.005]),
    indirect=["dtype"],
)
def test_one_step(core, dtype, name, n, clip):
    """Fused with the tiles of the gradient, for a single row, and from a gradient written out."""
    problem = Problem((9, 33, 17, 5), ("tanh", "silu", "logistic"), "binary_crossentropy", 40,
                      dtype, l2=0.01)  # fmt: skip
    optimizer = with_factors(OPTIMIZERS[name], problem.plan)._replace(clip_norm=clip)
    noise = noisy(problem) if n > 1 else QUIET
    check_step(core, problem, optimizer, np.random.default_rng(3).integers(0, 40, n), noise)


@pytest.mark.parametrize(
    "core, dtype, case", alternating(CORES, range(len(WIDTHS))), indirect=["core", "dtype"]
)
def test_odd_sizes(core, dtype, case):
    problem = list(problems_at_odd_sizes(dtype))[case]
    optimizer = with_factors(OPTIMIZERS["adam"], problem.plan)
    check_step(core, problem, optimizer, np.arange(problem.n), QUIET)


@pytest.mark.parametrize(
    "sizes", [(150, 70, 2), (150, 4, 100, 1), (300, 129), (21, 600, 5)], ids=str
)
def test_few_and_many_units(core, dtype, sizes):
    activations = ("tanh", "silu", "softplus")[1 - len(sizes) :]
    problem = Problem(sizes, activations, "squared_error", 19, dtype)
    optimizer = with_factors(OPTIMIZERS["rmsprop"], problem.plan)
    check_step(core, problem, optimizer, np.arange(19), QUIET)


@pytest.mark.parametrize(
    "core, dtype, name", alternating(CORES, OPTIMIZERS), indirect=["core", "dtype"]
)
def test_factors_of_1_change_no_bit(core, dtype, name):
    problem = Problem((9, 33, 5), ("tanh", "softmax"), "categorical_crossentropy", 40, dtype,
                      labels=True)  # fmt: skip
    results = []
    for factors in (np.zeros((0, 2)), groups.default_factors(problem.plan)):
        optimizer = OPTIMIZERS[name]._replace(factors=factors)
        for schedules in ((), (np.ones(4), np.ones(4))):
            params, state = problem.params.copy(), moments(problem, optimizer)
            take_epoch(core, problem, params, state, np.arange(40), 13, optimizer,
                       noisy(problem), schedules=schedules)  # fmt: skip
            results.append((params, state))
    for params, state in results[1:]:
        check_same(core, params, results[0][0])
        check_same(core, state, results[0][1])


# Schedules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.0, 0.02], ids=["fused", "clipped"])
def test_an_epoch_with_schedules_is_its_steps(core, dtype, clip):
    """Each with its own rates of dropout, none among them, and its own decay."""
    problem = Problem((9, 17, 5), ("gelu", "softmax"), "categorical_crossentropy", 50, dtype,
                      labels=True)  # fmt: skip
    optimizer = with_factors(OPTIMIZERS["adam"], problem.plan)._replace(clip_norm=clip)
    noise, rows = noisy(problem), np.random.default_rng(3).permutation(50)
    dropout, decay = np.array([1.0, 0.5, 0.0, 2.0]), np.array([0.0, 0.7, 1.0, 3.0])
    whole, state = problem.params.copy(), moments(problem, optimizer)
    take_epoch(core, problem, whole, state, rows, 13, optimizer, noise, schedules=(dropout, decay))
    parts, state_of_parts = problem.params.copy(), moments(problem, optimizer)
    for number, rate in enumerate(np.linspace(0.1, 0.05, 4)):
        now = noise._replace(dropout=noise.dropout * dropout[number])
        rule = optimizer._replace(weight_decay=optimizer.weight_decay * decay[number])
        batch = rows[13 * number : 13 * number + 13]
        take_epoch(core, problem, parts, state_of_parts, batch, 13, rule, now, 4 + number,
                   rates=np.array([rate]))  # fmt: skip
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(state, state_of_parts)


@pytest.mark.parametrize("core, dtype, case", alternating(CORES, TEAMS), indirect=["core", "dtype"])
def test_threads_and_epochs_of_one_call(core, dtype, case):
    """The same bits on 1, 2 and 3 threads, and for two epochs in one call or in two."""
    sizes, activations, n, batch_size, name, clip = TEAMS[case]
    problem = Problem(sizes, activations, "categorical_crossentropy", n, dtype, l1=1e-3,
                      labels=True)  # fmt: skip
    optimizer = with_factors(OPTIMIZERS[name], problem.plan)._replace(clip_norm=clip)
    noise = seam.Noise(3, 0.1, np.full(len(sizes) - 2, 0.2))
    rng, n_steps = np.random.default_rng(0), -(-n // batch_size)
    orders = np.array([rng.permutation(n) for _ in range(2)])
    rates, dropout, decay = rng.uniform(0, 1, (3, 2 * n_steps)) * [[0.1], [1.5], [2]]
    results = []
    for n_threads in (1, 2, 3):
        params, state, losses = problem.params.copy(), moments(problem, optimizer), np.zeros(2)
        take_epoch(core, problem, params, state, orders.ravel(), batch_size, optimizer, noise, 0,
                   n_threads, rates, losses, (dropout, decay))  # fmt: skip
        results.append((params, state))
        assert np.isfinite(params).all() and not padding(problem.plan, params).any()
    params, state = problem.params.copy(), moments(problem, optimizer)
    for epoch, order in enumerate(orders):
        part = slice(epoch * n_steps, (epoch + 1) * n_steps)
        take_epoch(core, problem, params, state, order, batch_size, optimizer, noise,
                   epoch * n_steps, 1, rates[part], None, (dropout[part], decay[part]))  # fmt: skip
    results.append((params, state))
    for params, state in results[1:]:
        np.testing.assert_array_equal(params, results[0][0])
        np.testing.assert_array_equal(state, results[0][1])


@pytest.mark.parametrize("wrong", [
    {"optimizer": np.ones((10, 2))}, {"optimizer": np.ones((11, 3))}, {"optimizer": np.ones(22)},
    {"optimizer": np.ones((11, 2), np.float32)}, {"schedules": (np.ones(3), None)},
    {"schedules": (None, np.ones(3))}, {"schedules": (np.ones(4, np.float32), None)},
], ids=str)  # fmt: skip
def test_guards(compiled, dtype, wrong):
    problem = Problem((9, 33, 5), ("tanh", "softmax"), "categorical_crossentropy", 40, dtype)
    optimizer = OPTIMIZERS["adam"]._replace(factors=wrong.get("optimizer", np.zeros((0, 2))))
    params, state = problem.params.copy(), moments(problem, optimizer)
    with pytest.raises(ValueError):
        take_epoch(compiled, problem, params, state, np.arange(40), 10, optimizer,
                   schedules=wrong.get("schedules", ()))  # fmt: skip
    np.testing.assert_array_equal(params, problem.params)
    if "optimizer" in wrong:
        with pytest.raises(ValueError):
            compiled.update(problem.plan, params, params.copy(), state, optimizer, 0, 0.1)


# By hand, in a network ---------------------------------------------------------------------------


def test_two_steps_of_adam_by_hand(engine, dtype):
    """One weight and one bias; decay comes first, by the rate of the step and its schedule."""
    net = Network([1, 1], dtype=dtype)
    net.weights[0], net.biases[0] = 0.5, 0.25
    net.fit(
        [[2.0]], [[3.0]], epochs=2, batch_size=1, solver="adam", schedule=lambda e: (0.1, 0.2)[e],
        weight_decay=0.4, weight_decay_schedule=lambda e: (1.0, 0.5)[e],
        rate_factors={"weights": [0.5], "biases": 3},
        decay_factors={"weights": 2.0, "biases": 0.25},
    )  # fmt: skip
    theta, m, v = np.array([0.5, 0.25]), np.zeros(2), np.zeros(2)
    phi, rho = np.array([0.5, 3.0]), np.array([2.0, 0.25])
    for t, (eta, decay) in enumerate([(0.1, 0.4), (0.2, 0.2)], 1):
        residual = 2 * theta[0] + theta[1] - 3
        g = residual * np.array([2.0, 1.0])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        theta = theta * (1 - eta * decay * rho)
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        theta = theta - eta * phi * step
    # cmlp adds epsilon before the bias correction: 1e-8 against roots of 0.03 and more
    room = 100 * float(np.finfo(dtype).eps) + 1e-6
    np.testing.assert_allclose([net.weights[0][0, 0], net.biases[0][0]], theta, rtol=room)


FACTORS = {
    "weights": (0.5, 2), "biases": (3, 0.5), "scales": (2, 0.25), "alphas": (0.1, 3),
    "inputs": (6, 36), "embeddings": (0.3, 4), "periodic": (0.7, 8),
}  # fmt: skip


@pytest.mark.parametrize("clip", [None, 1e9], ids=["fused", "from a whole gradient"])
@pytest.mark.parametrize("given", [True, False])
def test_every_group_has_its_own(engine, dtype, given, clip):
    """One plain step of each array, by its gradient; without factors, weights and tables decay."""
    inputs = Inputs(
        periodic=[0, 3], levels={1: (3, 2)}, summed={2: 4}, scaled=True, frequencies=5
    )  # fmt: skip
    net = Network([4, 19, 7, 2], "tanh", loss="squared_error", dtype=dtype, seed=0, inputs=inputs,
                  normalization="layer", parametric_activation=True)  # fmt: skip
    rng = np.random.default_rng(0)
    rows, y = rng.uniform(0, 3, (9, 4)), rng.normal(size=(9, 2))
    before, slopes = copy.copy(net).parameter_views.parts(), net.gradients(rows, y)
    found = {
        f"layers.{number}.{kind}": part
        for kind in ("weight", "bias", "scale", "alpha")
        for number, part in enumerate(getattr(slopes, GROUP_OF[kind]))
    }
    found |= {f"front.{name}": part for name, part in slopes.front.items()}
    settings = {}
    if given:
        settings = {"rate_factors": {name: phi for name, (phi, _) in FACTORS.items()},
                    "decay_factors": {name: rho for name, (_, rho) in FACTORS.items()}}  # fmt: skip
    net.step(rows, y, solver="sgd", momentum=0, learning_rate=0.1, weight_decay=0.02,
             clip_norm=clip, **settings)  # fmt: skip
    after = net.parameter_views.parts()
    assert after.keys() == found.keys()
    for name, part in after.items():
        kind = name.split(".")[1 if name.startswith("front") else 2]
        phi, rho = FACTORS[GROUP_OF[kind]]
        if not given:
            phi, rho = 1, kind in ("weight", "levels", "summed")
        expected = before[name] * (1 - 0.1 * 0.02 * rho) - phi * 0.1 * found[name]
        assert phi == 1 or (part != before[name]).any()
        eps = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(part, expected, rtol=8 * eps, atol=8 * eps, err_msg=name)


GROUP_OF = {
    "weight": "weights", "bias": "biases", "scale": "scales", "alpha": "alphas",
    "factors": "inputs", "levels": "embeddings", "summed": "embeddings", "periodic": "periodic",
}  # fmt: skip
"""Group of an array, by a word of its name."""


def test_the_scaling_of_the_ntk(engine):
    """Adam on W / sqrt(d) with these factors is Adam on W, in a net that divides by sqrt(d)."""
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(30, 9)), rng.normal(size=(30, 1))
    net = Network([9, 1], dtype="float64", seed=0)
    wide = net.weights[0][:, 0] * 3
    plain = Network([9, 1], dtype="float64", seed=0)
    plain.weights[0] = wide[:, None]
    settings = {"solver": "adam", "epsilon": 1e-30, "weight_decay": 0.1, "learning_rate": 0.05}
    for _ in range(5):
        plain.step(rows / 3, y, **settings)
        net.step(rows, y, rate_factors={"weights": 1 / 3}, decay_factors={"weights": 1.0},
                 **settings)  # fmt: skip
    np.testing.assert_allclose(net.weights[0] * 3, plain.weights[0], rtol=1e-12)
    np.testing.assert_allclose(net.biases[0], plain.biases[0], rtol=1e-12)


@pytest.mark.parametrize("loss", ["squared_error", "custom"])
def test_a_fit_is_its_steps(engine, loss):
    """Dropout and decay by schedule, of a loss of the core and of one in Python."""
    y = X[:, :2] * 2
    nets = [
        Network([3, 7, 2], "tanh", loss=squared_error if loss == "custom" else loss,
                dtype="float64", seed=0)
        for _ in range(2)
    ]  # fmt: skip
    settings = {
        "solver": "adam", "weight_decay": 0.5, "decay_factors": {"biases": 0.5},
        "rate_factors": {"biases": [0.1, 3]}, "learning_rate": 0.1,
    }  # fmt: skip
    nets[0].fit(X, y, epochs=3, batch_size=10, shuffle=False, dropout=0.4,
                dropout_schedule=lambda epoch: 0.0, weight_decay_schedule="flat_cos",
                **settings)  # fmt: skip
    for number in range(12):
        t = number / 12
        factor = 1 if t < 0.5 else (1 + math.cos(math.pi * (2 * t - 1))) / 2
        part = slice(number % 4 * 10, number % 4 * 10 + 10)
        nets[1].step(X[part], y[part], **settings | {"weight_decay": 0.5 * factor})
    check_same(engine, nets[0].params, nets[1].params)


def test_schedules_of_dropout(engine):
    """Factors act: of 0 there is no dropout; of 1, that of a constant rate."""

    def trained(**options):
        net = Network([3, 9, 3], "tanh", seed=0)
        net.fit(X, Y, epochs=3, batch_size=10, **options)
        return net.params

    constant = trained(dropout=0.5)
    check_same(engine, trained(dropout=0.5, dropout_schedule="constant"), constant)
    assert (trained(dropout=0.5, dropout_schedule="flat_cos") != constant).any()
    halved = trained(dropout=0.5, dropout_schedule=lambda epoch: 0.5)
    check_same(engine, halved, trained(dropout=0.25))
    custom = [Network([3, 9, 3], "tanh", loss=squared_error, seed=0) for _ in range(2)]
    targets = np.eye(3)[Y]
    custom[0].fit(X, targets, epochs=2, dropout=0.5, dropout_schedule=lambda epoch: 0.5)
    custom[1].fit(X, targets, epochs=2, dropout=0.25)
    check_same(engine, custom[0].params, custom[1].params)


def test_epochs_ahead_are_those_one_by_one(engine):
    """Several epochs in one call of the core, against a callback that needs one call for each."""
    nets = [Network([3, 9, 3], "tanh", seed=0) for _ in range(2)]
    for net, callbacks in zip(nets, ((), (lambda state: None,)), strict=True):
        net.fit(X, Y, epochs=6, batch_size=16, dropout=0.3, dropout_schedule="flat_cos",
                weight_decay=0.1, weight_decay_schedule="coslog4", schedule="coslog4",
                solver="adam", callbacks=callbacks)  # fmt: skip
    check_same(engine, nets[0].params, nets[1].params)


def test_factors_of_a_network():
    net = Network([3, 4, 5, 2], normalization="layer", parametric_activation=True)
    made = Recipe(
        rate_factors={"weights": [1, 2, 3], "scales": 0.5, "alphas": [7, 8]},
        decay_factors={"biases": [0, 0, 4]},
    ).optimizer(net.architecture)  # fmt: skip
    rows = made.factors[:12].reshape(3, 4, 2)
    assert rows[:, 0].tolist() == [[1, 1], [2, 1], [3, 1]]
    assert rows[:, 1].tolist() == [[1, 0], [1, 0], [1, 4]]
    assert rows[:2, 2:].tolist() == [[[0.5, 0], [7, 0]], [[0.5, 0], [8, 0]]]
    assert len(Recipe(rate_factors={"weights": 1.0}).optimizer(net.architecture).factors) == 0


@pytest.mark.parametrize("kind, factors, parts", [
    (ValueError, {"wieghts": 1}, ("wieghts", "'weights'?", "alphas")),
    (ValueError, {"weights": [1, 2, 3]}, ("rate_factors['weights']", "2, one per layer", "3")),
    (ValueError, {"alphas": [1, 2]}, ("one number or 1",)),
    (ValueError, {"inputs": [1, 2]}, ("rate_factors['inputs']", "one number", "not 2")),
    (ValueError, {"biases": -1}, ("rate_factors['biases']", "at least 0")),
    (ValueError, {"biases": np.nan}, ("rate_factors['biases']",)),
    (ValueError, {"biases": np.inf}, ("rate_factors['biases']",)),
    (TypeError, {"biases": "fast"}, ("rate_factors['biases']", "numbers")),
    (TypeError, [1, 2], ("rate_factors", "dict")),
])  # fmt: skip
def test_factors_that_are_refused(kind, factors, parts):
    net = Network([3, 4, 3], seed=0)
    before = net.params.copy()
    for call in (net.fit, net.step, net.train_epoch, net.trace_step):
        with refused(kind, *parts):
            call(X, Y, rate_factors=factors)
    np.testing.assert_array_equal(net.params, before)


def test_schedules_that_are_refused(engine):
    net = Network([3, 4, 3], seed=0)
    with refused(ValueError, "dropout times its schedule must be below 1", "1.2"):
        net.fit(X, Y, dropout=0.6, dropout_schedule=lambda epoch: 2.0)
    with refused(ValueError, "schedule", "flat_cos"):
        net.fit(X, Y, weight_decay_schedule="flat_coss")
    with refused(ValueError, "at least 0"):
        net.fit(X, Y, weight_decay=0.1, weight_decay_schedule=lambda epoch: -1.0)
