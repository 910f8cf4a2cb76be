"""Every kernel of every core against the twin in float64, within derived bounds (see oracle.py)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from cores import CORES
from helpers import DTYPES, alternating, covering
from oracle import (
    HIDDEN,
    PAIRS,
    QUIET,
    SOLVERS,
    WIDTHS,
    Bounded,
    Oracle,
    Problem,
    check_same,
    compact,
    layers,
    padding,
    problems_at_odd_sizes,
    stepped,
)

import cmlp
from cmlp.core import seam, vocabulary
from cmlp.core.layout import ALIGNMENT, make_plan

BATCHES = (1, 5, 12, 13, 1023, 1024, 1025, 2500)
"""Around the rows of a tile, and around the 1024 rows of one pass."""


WIDE = [(65, 130, 97, 70), (129, 257, 33), (3, 200, 3), (4100, 70, 66), (70, 4100, 40), (300, 129)]
"""Wider than two tiles of any core, and longer than a panel (4096)."""


def noisy(problem, seed=12345):
    """Input noise, and dropout in the first and the third hidden layer."""
    return seam.Noise(seed, 0.1, np.array([0.3, 0.0, 0.5])[: len(problem.plan) - 1])


FEW_UNITS = [
    (16, 32, 1),
    (32, 16, 2),
    (64, 2, 16, 3),
    (16, 4, 4),
    (16, 5),
    (37, 2),
    (150, 4, 100, 1),
]

HALF_VECTORS = [(24, 8), (7, 40, 20), (36, 100, 56, 6)]
"""Layers whose last vector is padding for half of it or more, in float32, float64 or both."""

OPTIMIZERS = {
    "sgd": seam.Optimizer(),
    "momentum": seam.Optimizer(momentum=0.9),
    "nesterov": seam.Optimizer(momentum=0.9, nesterov=True),
    "adam": seam.Optimizer(SOLVERS["adam"].code),
    "adamw": seam.Optimizer(SOLVERS["adamw"].code, weight_decay=0.1),
    "rmsprop": seam.Optimizer(SOLVERS["rmsprop"].code, beta_2=0.9, weight_decay=0.05),
    "nadam": seam.Optimizer(SOLVERS["nadam"].code, weight_decay=0.05),
    "averaged": seam.Optimizer(SOLVERS["adam"].code, ema=0.9),
    "lion": seam.Optimizer(SOLVERS["lion"].code, beta_2=0.99, weight_decay=0.05),
}
REGULARISERS = {
    "plain": {},
    "l1": {"l1": 0.01},
    "l2": {"l2": 0.02},
    "weights": {"weighted": True, "l1": 0.003, "l2": 0.004},
}


def check_forward(core, problem):
    """Compare predict, forward and evaluate with the oracle; returns it."""
    oracle = Oracle(problem)
    oracle.a[-1].check(problem.predict(core), "predict")
    z, a = problem.record(value=np.nan), problem.record(value=np.nan)
    core.forward(
        problem.plan, problem.params, problem.X, z, a, problem.scratch(core), problem.input_scale
    )
    for number in range(len(problem.plan)):
        oracle.z[number].check(problem.units(z)[number], f"z of layer {number + 1}")
        oracle.a[number].check(problem.units(a)[number], f"a of layer {number + 1}")
    out, costs = problem.evaluate(core)
    oracle.a[-1].check(out, "outputs of evaluate")
    oracle.costs.check(costs, "costs")
    return oracle


# Forward and backward ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", range(len(WIDTHS)))
def test_odd_sizes(core, dtype, case):
    problem = list(problems_at_odd_sizes(dtype))[case]
    check_forward(core, problem).check_gradient(problem.gradient(core))


@pytest.mark.parametrize("core, dtype, pair", alternating(CORES, PAIRS), indirect=["core", "dtype"])
def test_every_loss_and_output(core, dtype, pair):
    loss, out = pair
    hidden = HIDDEN[PAIRS.index((loss, out)) % len(HIDDEN)]
    problem = Problem((9, 17, 7), (hidden, out), loss, 13, dtype)
    check_forward(core, problem).check_gradient(problem.gradient(core))


@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_hidden_activation(core, dtype, hidden):
    problem = Problem((8, 33, 16, 3), (hidden, hidden, "softmax"), "categorical_crossentropy", 20,
                      dtype, 3, labels=True)  # fmt: skip
    oracle = check_forward(core, problem)
    oracle.check_gradient(problem.gradient(core))
    rates = seam.Noise(7, 0.0, np.array([0.4, 0.2]))
    Oracle(problem, rates, 5).check_gradient(problem.gradient(core, noise=rates, step=5))


@pytest.mark.parametrize("core, dtype, n", alternating(CORES, BATCHES), indirect=["core", "dtype"])
def test_passes_of_a_large_batch_add_up(core, dtype, n):
    problem = Problem((5, 18, 4), ("silu", "softmax"), "categorical_crossentropy", n, dtype, n,
                      smoothing=0.1, l1=0.01, l2=0.02, weighted=True, labels=True)  # fmt: skip
    check_forward(core, replace(problem, smoothing=0.0))
    Oracle(problem).check_gradient(problem.gradient(core))


@pytest.mark.parametrize(
    "core, dtype, sizes", alternating(CORES, WIDE), indirect=["core", "dtype"], ids=str
)
def test_wide_layers(core, dtype, sizes):
    """Layers of which columns are copied to a panel first, and some too long for one."""
    activations = ("gelu", "tanh", "logistic", "softmax")[-len(sizes) + 1 :]
    problem = Problem(sizes, activations, "categorical_crossentropy", 29, dtype, l2=0.01,
                      labels=True)  # fmt: skip
    check_forward(core, problem).check_gradient(problem.gradient(core))
    check_step(core, problem, OPTIMIZERS["momentum"], np.arange(29)[::-1].copy(), QUIET)


@pytest.mark.parametrize(
    "dtype, sizes, n",
    covering(DTYPES, FEW_UNITS, [1, 2, 15, 16, 17, 40]),
    indirect=["dtype"],
    ids=str,
)
def test_layers_of_few_units(core, dtype, sizes, n):
    activations = (*("elu", "softplus")[: len(sizes) - 2], "softmax")
    problem = Problem(sizes, activations, "categorical_crossentropy", n, dtype)
    check_forward(core, problem).check_gradient(problem.gradient(core))


@pytest.mark.parametrize(
    "dtype, sizes, n",
    covering(DTYPES, HALF_VECTORS, [2, 19, 61]),
    indirect=["dtype"],
    ids=str,
)
def test_half_vectors(core, dtype, sizes, n):
    activations = (*("tanh", "relu")[: len(sizes) - 2], "softmax")
    problem = Problem(sizes, activations, "categorical_crossentropy", n, dtype, l2=0.01)
    check_forward(core, problem).check_gradient(problem.gradient(core))
    check_step(core, problem, OPTIMIZERS["adam"], np.arange(n)[::-1].copy(), QUIET)


@pytest.mark.parametrize("activations", [("identity",), ("logistic",), ("softmax",)], ids="-".join)
def test_one_layer(core, dtype, activations):
    problem = Problem((33, 5), activations, "squared_error", 26, dtype, weighted=True)
    check_forward(core, problem).check_gradient(problem.gradient(core))


def test_rows_may_repeat_and_come_in_any_order(core, dtype):
    problem = Problem((6, 9, 3), ("tanh", "logistic"), "binary_crossentropy", 40, dtype,
                      weighted=True)  # fmt: skip
    rows = np.random.default_rng(1).integers(0, 40, 77)
    oracle = Oracle(problem, rows=rows)
    oracle.check_gradient(problem.gradient(core, rows=rows))
    oracle.a[-1].check(problem.predict(core, rows=rows), "predict")
    out, costs = problem.evaluate(core, rows)
    oracle.a[-1].check(out, "outputs")
    oracle.costs.check(costs, "costs")


@pytest.mark.parametrize(
    "loss", ["binary_crossentropy", "categorical_crossentropy"], ids=["binary", "categorical"]
)
@pytest.mark.parametrize("labels", [False, True], ids=["matrix", "labels"])
def test_label_smoothing(core, dtype, loss, labels):
    out = "logistic" if loss.startswith("binary") else "softmax"
    problem = Problem((4, 8, 5), ("relu", out), loss, 30, dtype, smoothing=0.2, labels=labels)
    oracle = Oracle(problem)
    oracle.check_gradient(problem.gradient(core))
    oracle.costs.check(problem.evaluate(core)[1], "costs")


@pytest.mark.parametrize("n_out", [2, 4, 5, 26])
def test_costs_of_sure_answers_keep_their_digits(core, dtype, n_out):
    """log(1 + a few times exp(-z)), of which 1 + exp(-z) would show nothing."""
    problem = Problem((n_out, n_out), ("softmax",), "categorical_crossentropy", 9, dtype)
    problem.X[:] = 0
    problem.X[:, 1] = z = np.linspace(1, 60, 9)
    ((W, b),) = layers(problem.plan, problem.params)
    W[:], b[:], problem.targets[:] = np.eye(n_out), 0, np.eye(n_out)[1]
    _, costs = problem.evaluate(core)
    expected = np.log1p((n_out - 1) * np.exp(-z.astype(dtype).astype(float)))
    np.testing.assert_allclose(costs, expected, rtol=20 * np.finfo(dtype).eps)


def test_an_external_loss_is_the_gradient_by_the_outputs(core, dtype):
    problem = Problem((5, 17, 4), ("tanh", "softplus"), "squared_error", 19, dtype)
    problem.objective = problem.objective._replace(loss=vocabulary.EXTERNAL_LOSS)
    external = problem.gradient(core)
    assert external[0] == 0
    slopes = problem.X[:, :1] * problem.targets  # any numbers
    twice = problem.gradient(core, targets=2 * slopes)[1]
    np.testing.assert_allclose(twice, 2 * problem.gradient(core, targets=slopes)[1], rtol=0,
                               atol=64 * np.finfo(dtype).eps)  # fmt: skip
    squared = Problem((5, 17, 4), ("tanh", "softplus"), "squared_error", 19, dtype)
    residual = (squared.predict(core) - squared.targets) / dtype.type(19)
    Oracle(squared).check_gradient(
        (squared.gradient(core)[0], *problem.gradient(core, targets=residual)[1:])
    )


def test_no_weight_at_all_gives_no_gradient(core, dtype):
    problem = Problem((3, 4, 2), ("tanh", "identity"), "squared_error", 6, dtype)
    loss, grads, deltas, dX = problem.gradient(core, weights=np.zeros(6))
    assert loss == 0
    assert not grads.any() and not dX.any() and not any(d.any() for d in problem.units(deltas))


# Noise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [13, 1025])
def test_noise_is_the_same_in_both_twins(core, dtype, n):
    problem = Problem((7, 33, 17, 15, 3), ("tanh", "gelu", "elu", "softmax"),
                      "categorical_crossentropy", n, dtype, labels=True)  # fmt: skip
    noise = noisy(problem)
    for step in (0, 1, 2**20) if n == 13 else (1,):
        oracle = Oracle(problem, noise, step)
        came = problem.gradient(core, noise=noise, step=step)
        oracle.check_gradient(came)
        out, costs = problem.evaluate(core, noise=noise, step=step)
        oracle.a[-1].check(out, "outputs")
        oracle.costs.check(costs, "costs")
        first, last = problem.units(came[2])[0], problem.units(came[2])[2]
        np.testing.assert_array_equal(first == 0, oracle.slopes[0].value == 0)
        assert 0.2 < (first == 0).mean() < 0.4 and (last == 0).mean() > 0.4


def test_noise_changes_with_seed_and_step(core):
    problem = Problem((7, 33, 3), ("tanh", "identity"), "squared_error", 20, np.dtype("f4"))
    noise = noisy(problem)
    one = problem.evaluate(core, noise=noise, step=1)[0]
    np.testing.assert_array_equal(one, problem.evaluate(core, noise=noise, step=1)[0])
    assert (one != problem.evaluate(core, noise=noise, step=2)[0]).any()
    assert (one != problem.evaluate(core, noise=noisy(problem, 6), step=1)[0]).any()


# What X may be -----------------------------------------------------------------------------------


def mapped(X, tmp_path):
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode="r")


def unaligned(X):
    raw = np.empty(X.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(X.tobytes(), np.uint8)
    return np.frombuffer(raw.data, X.dtype, X.size, offset=1).reshape(X.shape)


def amid_nan(X):
    """Every second row and column of an array that holds NaN elsewhere."""
    big = np.full((2 * len(X) + 3, 2 * X.shape[1] + 5), np.nan, X.dtype)
    part = big[1 : 2 * len(X) + 1 : 2, 2 : 2 * X.shape[1] + 2 : 2]
    part[...] = X
    return part


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


LAYOUTS = {
    "fortran": np.asfortranarray,
    "reversed": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "transposed": lambda X: X.T.copy().T,
    "amid_nan": amid_nan,
    "read_only": read_only,
    "unaligned": unaligned,
    "big_endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
    "list": np.ndarray.tolist,
    "object": lambda X: X.astype(object),
}
KINDS = ("?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d", "g", ">i2", ">f8")


def same_network(problem):
    """A Network with a problem's weights, for what the boundary converts."""
    net = cmlp.Network(problem.sizes, list(problem.activations[:-1]), problem.activations[-1],
                       problem.loss, dtype=problem.dtype, seed=0,
                       input_scale=problem.input_scale)  # fmt: skip
    net.params[:] = problem.params
    return net


@pytest.mark.parametrize(
    "core, dtype, layout", alternating(CORES, LAYOUTS), indirect=["core", "dtype"]
)
def test_memory_layouts(core, dtype, layout):
    problem = Problem((7, 17, 3), ("tanh", "identity"), "squared_error", 140, dtype)
    net, X = same_network(problem), LAYOUTS[layout](problem.X)
    check_same(core, net.predict(X), problem.predict(core))
    y = LAYOUTS[layout](problem.targets)
    plain, other = same_network(problem), same_network(problem)
    plain.train_epoch(problem.X, problem.targets, batch_size=9)
    other.train_epoch(X, y, batch_size=9)
    check_same(core, plain.params, other.params)


def test_memory_map(core, dtype, tmp_path):
    problem = Problem((7, 17, 3), ("tanh", "identity"), "squared_error", 140, dtype)
    X = mapped(problem.X, tmp_path)
    check_same(core, problem.predict(core, X), problem.predict(core))
    grads = problem.gradient(core, X=X)[1]
    check_same(core, grads, problem.gradient(core)[1])


@pytest.mark.parametrize(
    "dtype, kind, layout, scale",
    covering(DTYPES, KINDS, ["plain", "amid"], [1, 0.01]),
    indirect=["dtype"],
)
def test_number_formats(core, dtype, kind, layout, scale):
    """Whole numbers are exact in every format, so the same bits must come out."""
    problem = Problem((7, 17, 3), ("tanh", "identity"), "squared_error", 40, dtype,
                      input_scale=scale)  # fmt: skip
    rng = np.random.default_rng(0)
    low = 0 if kind in "?BHILQ" else -100
    values = rng.integers(low, 2 if kind == "?" else 100, problem.X.shape)
    problem.X = values.astype(dtype)
    X = np.asarray(values, dtype=kind)
    if layout == "amid":
        X = np.repeat(np.repeat(X, 3, axis=0), 2, axis=1)[1::3, ::2]
    check_same(core, same_network(problem).predict(X), problem.predict(core))
    rows = rng.permutation(40)
    if np.dtype(kind).isnative and kind not in "eg":
        grads = problem.gradient(core, rows=rows, X=X)[1]
        check_same(core, grads, problem.gradient(core, rows=rows)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_target_formats(engine, dtype, kind):
    problem = Problem((7, 5, 4), ("tanh", "logistic"), "binary_crossentropy", 40, dtype)
    zeros_and_ones = np.random.default_rng(0).integers(0, 2, (40, 4))
    plain, other = same_network(problem), same_network(problem)
    plain.train_epoch(problem.X, zeros_and_ones.astype(dtype), batch_size=7)
    other.train_epoch(problem.X, np.asarray(zeros_and_ones, dtype=kind), batch_size=7)
    check_same(engine, plain.params, other.params)


@pytest.mark.parametrize(
    "core, dtype, case",
    alternating(
        CORES, [((19, 33, 4), 1), ((784, 5, 4), 1), ((19, 33, 4), 1030), ((784, 5, 4), 13)]
    ),
    indirect=["core", "dtype"],
    ids=str,
)
def test_pixels_are_scaled_on_the_way(core, dtype, case):
    sizes, n = case
    problem = Problem(sizes, ("gelu", "softmax"), "categorical_crossentropy", n, dtype, n, l2=0.01,
                      weighted=True, labels=True, input_scale=1 / 255)  # fmt: skip
    rng = np.random.default_rng(n)
    problem.X = rng.integers(0, 256, problem.X.shape).astype(np.uint8)
    noise = noisy(problem)
    check_forward(core, problem).check_gradient(problem.gradient(core))
    Oracle(problem, noise, 3).check_gradient(problem.gradient(core, noise=noise, step=3))
    check_step(core, problem, OPTIMIZERS["momentum"], rng.integers(0, n, n), noise)


# Steps -------------------------------------------------------------------------------------------


def moments(problem, optimizer, seed=5):
    """An optimizer's state in the middle of a training: no square is tiny."""
    n = next(row.n_moments for row in SOLVERS.values() if row.code == optimizer.solver)
    n += optimizer.ema > 0
    state = np.zeros((n, len(problem.params)), problem.dtype)
    rng = np.random.default_rng(seed)
    for row in state:
        for part in (part for pair in layers(problem.plan, row) for part in pair):
            part[...] = rng.uniform(0.5, 1.5, part.shape)
    return state


def take_epoch(core, problem, params, state, rows, batch_size, optimizer, noise=QUIET, step=4,
               n_threads=1, rates=None, losses=None, schedules=()):  # fmt: skip
    """Call ``core.train_epoch``, on each thread of a team."""
    if rates is None:
        rates = np.linspace(0.1, 0.05, -(-len(rows) // batch_size))
    grads = problem.like_params(np.nan)
    workspace = problem.scratch(core, n_threads, batch_size)
    team = np.zeros(16, np.int64) if n_threads > 1 else None

    def run(rank):
        return core.train_epoch(
            problem.plan, params, state, problem.X, problem.targets, problem.weights, rows,
            batch_size, rates, step, problem.objective, optimizer, noise, grads, workspace, rank,
            n_threads, team, problem.input_scale, losses, *schedules,
        )  # fmt: skip

    if n_threads == 1:
        return run(0)
    with ThreadPoolExecutor(n_threads) as pool:
        results = list(pool.map(run, range(n_threads)))
    return results[0]


def check_params(problem, came, expected, what):
    expected.check(compact(problem.plan, came), what)
    assert not padding(problem.plan, came).any(), f"padding of {what}"


@pytest.mark.parametrize(
    "dtype, name, clip", covering(DTYPES, OPTIMIZERS, [0.0, 0.5]), indirect=["dtype"]
)
def test_update(core, dtype, name, clip):
    problem = Problem((17, 33, 7), ("tanh", "identity"), "squared_error", 1, dtype)
    optimizer = OPTIMIZERS[name]._replace(clip_norm=clip)
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
    "dtype, name, regulariser, clip",
    covering(DTYPES, OPTIMIZERS, REGULARISERS, [0.0, 0.005]),
    indirect=["dtype"],
)
def test_one_step_of_an_epoch(core, dtype, name, regulariser, clip):
    problem = Problem((9, 33, 17, 5), ("tanh", "silu", "logistic"), "binary_crossentropy", 40,
                      dtype, **REGULARISERS[regulariser])  # fmt: skip
    optimizer = OPTIMIZERS[name]._replace(clip_norm=clip)
    noise = noisy(problem) if regulariser == "weights" else QUIET
    rows = np.random.default_rng(3).integers(0, 40, 27)
    check_step(core, problem, optimizer, rows, noise)


@pytest.mark.parametrize(
    "dtype, sizes, n",
    covering(DTYPES, [(9, 5), (9, 18, 5)], BATCHES),
    indirect=["dtype"],
    ids=str,
)
def test_one_step_of_any_batch(core, dtype, n, sizes):
    activations = ("relu", "softmax")[-len(sizes) + 1 :]
    problem = Problem(sizes, activations, "categorical_crossentropy", n, dtype, n, l2=0.01,
                      labels=True)  # fmt: skip
    check_step(core, problem, OPTIMIZERS["momentum"], np.arange(n)[::-1].copy(), QUIET)


def check_step(core, problem, optimizer, rows, noise):
    """Compare one step of train_epoch with the oracle's gradient and update."""
    params, state = problem.params.copy(), moments(problem, optimizer)
    oracle = Oracle(problem, noise, 4, rows)
    slopes = oracle.backward[0]
    grads = Bounded(*(
        np.concatenate([getattr(part, kind).ravel() for _, *pair in slopes for part in pair])
        for kind in ("value", "error")
    ))  # fmt: skip
    expected, new_state = stepped(problem, optimizer, grads, state, 4, 0.1)
    total, n_steps = take_epoch(core, problem, params, state, rows, len(rows), optimizer, noise)
    weight = len(rows) if problem.weights is None else problem.weights[rows].sum()
    assert n_steps == 1
    oracle.loss.times(weight).check(total, "loss")
    check_params(problem, params, expected, "params")
    for row, moment in zip(state, new_state, strict=True):
        check_params(problem, row, moment, "moment")


@pytest.mark.parametrize(
    "dtype, name, clip", covering(DTYPES, OPTIMIZERS, [0.0, 0.02]), indirect=["dtype"]
)
def test_an_epoch_is_its_steps(core, dtype, name, clip):
    """One call for all batches gives the bits of one call for each."""
    problem = Problem((9, 17, 5), ("gelu", "softmax"), "categorical_crossentropy", 50, dtype,
                      l1=1e-3, weighted=True, labels=True)  # fmt: skip
    optimizer = OPTIMIZERS[name]._replace(clip_norm=clip)
    noise, rows = noisy(problem), np.random.default_rng(3).permutation(50)
    whole, state = problem.params.copy(), moments(problem, optimizer)
    total, n_steps = take_epoch(core, problem, whole, state, rows, 13, optimizer, noise)
    assert n_steps == 4
    parts, state_of_parts, sum_of_parts = problem.params.copy(), moments(problem, optimizer), 0.0
    for number, rate in enumerate(np.linspace(0.1, 0.05, 4)):
        batch = rows[13 * number : 13 * number + 13]
        loss, taken = core.train_epoch(
            problem.plan, parts, state_of_parts, problem.X, problem.targets, problem.weights,
            batch, 13, np.array([rate]), 4 + number, problem.objective, optimizer, noise,
            problem.like_params(0), problem.scratch(core, n=13),
        )  # fmt: skip
        sum_of_parts += loss
        assert taken == 1
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(state, state_of_parts)
    assert total == sum_of_parts
    assert not padding(problem.plan, whole).any()
    assert not any(padding(problem.plan, row).any() for row in state)


@pytest.mark.parametrize("clip", [0.0, 0.02], ids=["fused", "clipped"])
@pytest.mark.parametrize("weighted", [False, True])
def test_penalties_per_batch(core, dtype, clip, weighted):
    """They are those of a step whose penalties the caller has divided by the batch's weight."""
    problem = Problem((9, 17, 5), ("tanh", "identity"), "squared_error", 50, dtype, l1=0.3, l2=0.4,
                      weighted=weighted)  # fmt: skip
    optimizer = OPTIMIZERS["momentum"]._replace(clip_norm=clip)
    rows = np.random.default_rng(3).permutation(50)
    if weighted:
        problem.weights[rows[13:26]] = 0  # a batch that weighs nothing has no penalty
    plain = problem.objective
    problem.objective = plain._replace(per_batch=True, cost_scale=0.25)
    whole, state = problem.params.copy(), moments(problem, optimizer)
    total, n_steps = take_epoch(core, problem, whole, state, rows, 13, optimizer)
    assert n_steps == 4
    parts, state, expected = problem.params.copy(), moments(problem, optimizer), 0.0
    for number, rate in enumerate(np.linspace(0.1, 0.05, 4)):
        batch = rows[13 * number : 13 * number + 13]
        weight = problem.weights[batch].sum() if weighted else float(len(batch))
        weight = weight or np.inf
        mine = problem.gradient(core, parts, batch)
        problem.objective = plain._replace(l1=0, l2=0)
        cost = problem.gradient(core, parts, batch)[0]
        problem.objective = plain._replace(l1=0.3 / weight, l2=0.4 / weight)
        loss, grads, *_ = problem.gradient(core, parts, batch)
        check_same(core, mine[1], grads)
        loss -= 0.75 * cost
        np.testing.assert_allclose(mine[0], loss, rtol=1e-5)
        expected += loss * len(batch) * np.isfinite(weight)
        core.train_epoch(
            problem.plan, parts, state, problem.X, problem.targets, problem.weights, batch, 13,
            np.array([rate]), 4 + number, problem.objective, optimizer, QUIET,
            problem.like_params(0), problem.scratch(core, n=13),
        )  # fmt: skip
        problem.objective = plain._replace(per_batch=True, cost_scale=0.25)
    np.testing.assert_allclose(whole, parts, rtol=64 * np.finfo(dtype).eps,
                               atol=64 * np.finfo(dtype).eps)  # fmt: skip
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_no_rows(core, dtype):
    problem = Problem((3, 4, 2), ("tanh", "identity"), "squared_error", 6, dtype, l2=0.5)
    nothing = np.empty(0, np.int64)
    params, state = problem.params.copy(), moments(problem, OPTIMIZERS["sgd"])
    assert take_epoch(core, problem, params, state, nothing, 5, OPTIMIZERS["sgd"]) == (0.0, 0)
    np.testing.assert_array_equal(params, problem.params)
    assert problem.predict(core, rows=nothing).shape == (0, 2)
    assert problem.evaluate(core, nothing)[1].shape == (0,)


@pytest.mark.parametrize(
    ("out", "loss"),
    [("identity", "squared_error"), ("softmax", "categorical_crossentropy")],
)
def test_a_loss_that_is_not_finite_takes_no_step(core, dtype, out, loss):
    problem = Problem((3, 4, 2), ("relu", out), loss, 30, dtype)
    problem.X[25] = np.nan
    params, state = problem.params.copy(), moments(problem, OPTIMIZERS["momentum"])
    before, state_before = params.copy(), state.copy()
    rows = np.arange(30)
    with np.errstate(all="ignore"):
        total, n_steps = take_epoch(core, problem, params, state, rows, 10, OPTIMIZERS["momentum"])
    assert n_steps == 2 and np.isfinite(total)
    for number, rate in enumerate(np.linspace(0.1, 0.05, 3)[:2]):
        part = rows[10 * number : 10 * number + 10]
        core.train_epoch(
            problem.plan, before, state_before, problem.X, problem.targets, None, part, 10,
            np.array([rate]), 4 + number, problem.objective, OPTIMIZERS["momentum"], QUIET,
            problem.like_params(0), problem.scratch(core),
        )  # fmt: skip
    np.testing.assert_array_equal(params, before)
    np.testing.assert_array_equal(state, state_before)


@pytest.mark.parametrize("n_epochs", [0, 4, 31])
def test_rows_that_are_no_whole_epochs(core, dtype, n_epochs):
    problem = Problem((3, 4, 2), ("tanh", "identity"), "squared_error", 30, dtype)
    params, state = problem.params.copy(), moments(problem, OPTIMIZERS["sgd"])
    with pytest.raises(ValueError):
        take_epoch(core, problem, params, state, np.arange(30), 5, OPTIMIZERS["sgd"],
                   rates=np.full(31, 0.1), losses=np.zeros(n_epochs))  # fmt: skip
    np.testing.assert_array_equal(params, problem.params)


def test_epochs_up_to_one_that_fails(core, dtype):
    """The sums of the epochs before it are there, and its own steps before the failing one."""
    problem = Problem((3, 4, 2), ("relu", "identity"), "squared_error", 30, dtype)
    problem.X[25] = np.nan
    rows, rates = np.r_[np.arange(20), np.arange(20), np.arange(10, 30)], np.full(6, 0.1)
    results = []
    for part, losses in ((rows, np.full(3, -1.0)), (rows[:40], np.full(2, -1.0))):
        params, state = problem.params.copy(), moments(problem, OPTIMIZERS["momentum"])
        with np.errstate(all="ignore"):
            _, n_steps = take_epoch(core, problem, params, state, part, 10,
                                    OPTIMIZERS["momentum"], rates=rates, losses=losses)  # fmt: skip
        results.append((n_steps, losses.tolist(), params))
    assert results[0][0] == 5 and results[1][0] == 4
    assert results[0][1] == [*results[1][1], -1.0] and min(results[1][1]) > 0
    assert not np.array_equal(results[0][2], results[1][2])


# Threads -----------------------------------------------------------------------------------------

TEAMS = {
    "one layer": ((17, 5), ("softmax",), 26, 13, "momentum", 0.0),
    "one row": ((9, 33, 5), ("gelu", "softmax"), 5, 1, "adam", 0.0),
    "one row, lion": ((9, 33, 5), ("gelu", "softmax"), 5, 1, "lion", 0.0),
    "averaged": ((17, 33, 5), ("tanh", "softmax"), 40, 13, "averaged", 0.0),
    "averaged, clipped": ((17, 33, 5), ("tanh", "softmax"), 40, 13, "averaged", 0.01),
    "wide, nadam": ((70, 130, 97, 5), ("tanh", "silu", "softmax"), 60, 28, "nadam", 0.0),
    "under a tile": ((9, 33, 5), ("relu", "softmax"), 20, 5, "nesterov", 0.0),
    "a tile": ((33, 65, 5), ("tanh", "softmax"), 36, 12, "rmsprop", 0.0),
    "over a tile": ((65, 31, 33, 5), ("elu", "mish", "softmax"), 39, 13, "adamw", 0.0),
    "clipped": ((17, 33, 5), ("tanh", "softmax"), 40, 13, "adam", 0.01),
    "clipped layer": ((17, 5), ("softmax",), 40, 7, "momentum", 0.01),
    "wide": ((70, 130, 97, 5), ("tanh", "silu", "softmax"), 60, 28, "adam", 0.0),
    "wide, clipped": ((131, 67, 5), ("tanh", "softmax"), 60, 28, "adam", 0.01),
    "a wide row": ((21, 600, 300, 5), ("tanh", "relu", "softmax"), 3, 1, "momentum", 0.0),
    "passes": ((5, 7, 3), ("silu", "softmax"), 1300, 1100, "sgd", 0.0),
    "few units": ((150, 2, 70, 2), ("tanh", "silu", "softmax"), 60, 20, "adam", 0.0),
    "few units, clipped": ((150, 70, 2), ("tanh", "softmax"), 60, 20, "adam", 0.01),
    "few units, passes": ((150, 2), ("softmax",), 1300, 1100, "momentum", 0.0),
}


@pytest.mark.parametrize("core, dtype, case", alternating(CORES, TEAMS), indirect=["core", "dtype"])
def test_several_epochs_in_one_call(core, dtype, case):
    """The same bits as by a call for each; the last batch of an epoch may be a short one."""
    n_threads = 1 if dtype == np.float64 else 3
    sizes, activations, n, batch_size, name, clip = TEAMS[case]
    problem = Problem(sizes, activations, "categorical_crossentropy", n, dtype, l1=1e-3, l2=1e-3,
                      weighted=True, labels=True)  # fmt: skip
    optimizer = OPTIMIZERS[name]._replace(clip_norm=clip)
    noise = seam.Noise(3, 0.1, np.full(len(sizes) - 2, 0.2))
    rng = np.random.default_rng(0)
    orders = np.array([rng.permutation(n)[: n - 1] for _ in range(3)])
    n_steps = -(-(n - 1) // batch_size)
    rates = np.linspace(0.1, 0.05, 3 * n_steps)
    at_once, losses = problem.params.copy(), np.full(3, np.nan)
    state_at_once = moments(problem, optimizer)
    total, taken = take_epoch(core, problem, at_once, state_at_once, orders.ravel(), batch_size,
                              optimizer, noise, 0, n_threads, rates, losses)  # fmt: skip
    assert taken == 3 * n_steps
    np.testing.assert_allclose(total, losses.sum(), rtol=1e-12)
    params, state = problem.params.copy(), moments(problem, optimizer)
    for epoch, order in enumerate(orders):
        part = rates[epoch * n_steps : (epoch + 1) * n_steps]
        loss, _ = take_epoch(core, problem, params, state, order, batch_size, optimizer, noise,
                             epoch * n_steps, n_threads, part)  # fmt: skip
        assert loss == losses[epoch]
    assert params.tobytes() == at_once.tobytes() and state.tobytes() == state_at_once.tobytes()


@pytest.mark.parametrize("core, dtype, case", alternating(CORES, TEAMS), indirect=["core", "dtype"])
def test_any_number_of_threads_gives_the_same_bits(core, dtype, case):
    sizes, activations, n, batch_size, name, clip = TEAMS[case]
    problem = Problem(sizes, activations, "categorical_crossentropy", n, dtype, l1=1e-3, l2=1e-3,
                   weighted=True, labels=True)  # fmt: skip
    problem.objective = problem.objective._replace(per_batch=list(TEAMS).index(case) % 2 == 0)
    optimizer = OPTIMIZERS[name]._replace(clip_norm=clip)
    noise = seam.Noise(3, 0.1, np.full(len(sizes) - 2, 0.2))
    rows = np.random.default_rng(0).permutation(n)
    results = []
    for n_threads in (1, 2, 3):
        params, state = problem.params.copy(), moments(problem, optimizer)
        took = take_epoch(core, problem, params, state, rows, batch_size, optimizer, noise, 0,
                          n_threads)  # fmt: skip
        results.append((params, state, took))
        assert np.isfinite(params).all() and not padding(problem.plan, params).any()
    for params, state, took in results[1:]:
        np.testing.assert_array_equal(params, results[0][0])
        np.testing.assert_array_equal(state, results[0][1])
        assert took == results[0][2]
    assert (results[0][0] != problem.params).any()


@pytest.mark.parametrize(
    "dtype, name, sizes",
    covering(DTYPES, OPTIMIZERS, [(4, 32, 32, 2), (33, 18, 5), (64, 3, 300, 1)]),
    indirect=["dtype"],
    ids=str,
)
def test_plain_steps_on_single_rows(core, dtype, name, sizes):
    """One thread takes them in a shorter way, with the bits of several threads."""
    activations = (*("relu", "tanh", "softplus")[: len(sizes) - 2], "softmax")
    problem = Problem(sizes, activations, "categorical_crossentropy", 6, dtype, weighted=True,
                      labels=True)  # fmt: skip
    rows = np.random.default_rng(0).permutation(6)
    check_step(core, problem, OPTIMIZERS[name], rows[rows == 0], QUIET)
    results = []
    for n_threads in (1, 3):
        params, state = problem.params.copy(), moments(problem, OPTIMIZERS[name])
        took = take_epoch(core, problem, params, state, rows, 1, OPTIMIZERS[name], QUIET, 0,
                          n_threads)  # fmt: skip
        results.append((params, state, took))
        assert not padding(problem.plan, params).any()
    for params, state, took in results[1:]:
        np.testing.assert_array_equal(params, results[0][0])
        np.testing.assert_array_equal(state, results[0][1])
        assert took == results[0][2]


# Memory ------------------------------------------------------------------------------------------


class Fences:
    """Arrays that lie in the middle of larger ones; what is around them must not change."""

    MARK = 123.0

    def __init__(self):
        self.whole = []

    def around(self, array):
        big = np.full(array.size + 256, self.MARK, array.dtype)
        big[128:-128] = array.ravel()
        self.whole.append(big)
        return big[128:-128].reshape(array.shape)

    def check(self):
        for big in self.whole:
            assert (big[:128] == self.MARK).all() and (big[-128:] == self.MARK).all()


@pytest.mark.parametrize(
    "core, dtype, case", alternating(CORES, range(len(WIDTHS) + 1)), indirect=["core", "dtype"]
)
def test_nothing_is_written_outside_the_arrays(core, dtype, case):
    wide = Problem((131, 97, 70), ("gelu", "identity"), "squared_error", 61, dtype)
    problem = [*problems_at_odd_sizes(dtype, l2=0.01), wide][case]
    n, (n_in, _, n_out) = problem.n, problem.sizes
    fences = Fences()
    params, workspace = fences.around(problem.params), fences.around(problem.scratch(core))
    grads, deltas = fences.around(problem.like_params(0)), fences.around(problem.record())
    z, a = fences.around(problem.record()), fences.around(problem.record())
    out, dX = (fences.around(np.zeros((n, k), dtype)) for k in (n_out, n_in))
    costs = fences.around(np.zeros(n, dtype))
    core.predict(problem.plan, params, problem.X, None, out, workspace)
    core.forward(problem.plan, params, problem.X, z, a, workspace)
    core.evaluate(problem.plan, params, problem.X, problem.targets, None, problem.objective, QUIET,
                  0, out, costs, workspace)  # fmt: skip
    core.gradient(problem.plan, params, problem.X, problem.targets, None, None, problem.objective,
                  QUIET, 0, grads, deltas, dX, workspace)  # fmt: skip
    np.testing.assert_array_equal(params, problem.params)  # a reading call leaves them alone
    for clip in (0.0, 0.001):
        optimizer = OPTIMIZERS["adamw"]._replace(clip_norm=clip)
        state = fences.around(moments(problem, optimizer))
        core.train_epoch(
            problem.plan, params, state, problem.X, problem.targets, None, np.arange(n), n,
            np.array([0.1]), 0, problem.objective, optimizer, QUIET, grads, workspace,
        )  # fmt: skip
        core.update(problem.plan, params, grads, state, optimizer, 1, 0.1)
    fences.check()
    assert not padding(problem.plan, params).any()


def test_inputs_are_left_alone(core, dtype):
    problem = Problem((5, 9, 3), ("tanh", "softmax"), "categorical_crossentropy", 20, dtype,
                      weighted=True)  # fmt: skip
    kept = problem.X.copy(), problem.targets.copy(), problem.weights.copy(), problem.plan.copy()
    problem.X, problem.targets = read_only(problem.X), read_only(problem.targets)
    problem.weights, problem.plan = read_only(problem.weights), read_only(problem.plan)
    problem.params = read_only(problem.params)
    problem.predict(core)
    problem.evaluate(core, read_only(np.arange(20)), noisy(problem))
    params, state = problem.params.copy(), moments(problem, OPTIMIZERS["adam"])
    rows = read_only(np.arange(20))
    take_epoch(core, problem, params, state, rows, 7, OPTIMIZERS["adam"], noisy(problem))
    now = problem.X, problem.targets, problem.weights, problem.plan
    for before, after in zip(kept, now, strict=True):
        np.testing.assert_array_equal(before, after)


def test_lion_is_that_of_the_paper(core, dtype):
    """Chen et al. 2023, algorithm 2, as a loop over single numbers."""
    problem = Problem((3, 5, 2), ("tanh", "identity"), "squared_error", 8, dtype)
    optimizer = seam.Optimizer(SOLVERS["lion"].code, beta_1=0.9, beta_2=0.99, weight_decay=0.1)
    params, state = problem.params.copy(), np.zeros((1, len(problem.params)), dtype)
    numbers, means = params.astype(float).tolist(), [0.0] * len(params)
    is_weight = problem.like_params(0)
    for W, _ in layers(problem.plan, is_weight):
        W[...] = 1
    for step in range(30):
        grads = problem.gradient(core, params)[1]
        for j, gradient in enumerate(grads.tolist()):
            update = 0.9 * means[j] + 0.1 * gradient
            direction = (update > 0) - (update < 0)
            numbers[j] -= 0.02 * (direction + 0.1 * numbers[j] * float(is_weight[j]))
            means[j] = 0.99 * means[j] + 0.01 * gradient
        core.update(problem.plan, params, grads, state, optimizer, step, 0.02)
    np.testing.assert_allclose(params, numbers, rtol=0, atol=100 * np.finfo(dtype).eps)
    assert not padding(problem.plan, params).any()


def test_the_momentum_of_nadam_is_found_without_a_memory(core, dtype):
    """The product of all momenta so far, from the number of the step alone."""
    optimizer = seam.Optimizer(SOLVERS["nadam"].code, beta_1=0.99, epsilon=1e-30)
    plan = make_plan((1, 1), ["identity"], dtype)
    product, lanes = 1.0, ALIGNMENT // dtype.itemsize
    for step in range(150):
        momentum, following = (0.99 * (1 - 0.5 * 0.96 ** ((step + t) * 0.004)) for t in (1, 2))
        product *= momentum
        params, state = np.zeros(2 * lanes, dtype), np.zeros((2, 2 * lanes), dtype)
        grads = np.zeros(2 * lanes, dtype)
        grads[0] = 1
        core.update(plan, params, grads, state, optimizer, step, 1.0)
        expected = (1 - momentum) / (1 - product) + following * 0.01 / (1 - product * following)
        expected *= np.sqrt((1 - 0.999 ** (step + 1)) / 0.001)
        assert params[0] == pytest.approx(-expected, rel=1e3 * float(np.finfo(dtype).eps))
