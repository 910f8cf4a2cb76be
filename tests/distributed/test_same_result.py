"""Any number of ranks gives the result of one process with the same batches, to rounding."""

import numpy as np
import pytest
from ranks import rows, socket_rings, together, trained, until_the_end

import cmlp
from cmlp.distributed import ThreadRing
from cmlp.distributed.rank import Rank, Settings
from cmlp.training.fit import Options
from cmlp.training.recipe import Recipe
from cmlp.training.trainer import Trainer

N, BATCH = 630, 32  # 20 steps, the last one of 22 rows


def squared(out, y, sample_weight=None):
    difference = out - y
    w = np.ones(len(y)) if sample_weight is None else sample_weight
    w = (w / w.sum()).astype(out.dtype)[:, None]
    return float((w * difference**2).sum()), 2 * w * difference


squared.row_mean = True

STEPS = {
    "plain": {"momentum": 0.0},
    "momentum": {"l2": 0.01, "clip_norm": 0.3},
    "nesterov": {"nesterov": True, "dropout": 0.2},
    "adam": {"solver": "adam", "learning_rate": 0.003, "input_noise": 0.1, "ema": 0.9},
    "adamw": {
        "solver": "adamw", "learning_rate": 0.003, "weight_decay": 0.1, "dropout": [0.1, 0.3],
    },
    "rmsprop": {"solver": "rmsprop", "learning_rate": 0.001, "l1": 0.001, "clip_norm": 1.0},
    "nadam": {"solver": "nadam", "learning_rate": 0.003, "ema": 0.99, "input_noise": 0.05},
    "lion": {"solver": "lion", "learning_rate": 0.0005, "weight_decay": 0.1, "l2": 0.01},
    "everything": {
        "solver": "adam", "learning_rate": 0.003, "l1": 0.001, "l2": 0.01, "weight_decay": 0.01,
        "dropout": 0.2, "input_noise": 0.1, "clip_norm": 0.5, "ema": 0.9,
        "rate_factors": {"biases": 0.5},
    },
}  # fmt: skip

NETS = {
    "layer": {"normalization": "layer", "parametric_activation": True},
    "missing": {"missing_targets": True},
    "custom": {"loss": squared},
    "inputs": {"inputs": cmlp.Inputs(levels={0: (4, 2)}, periodic=[1], scaled=True)},
    "labels": {"loss": "categorical_crossentropy"},
}


def made(dtype, recipe, weighted, options, epochs=1):
    """Return a rank on arrays with a network of its own."""
    X, y, weights = rows(N)
    if weighted == "one row":
        weights[1:] = 0
    X[:, 0] = np.round(np.abs(X[:, 0]))
    if options.get("loss") == "categorical_crossentropy":
        y = np.digitize(y[:, 0], [-0.5, 0.5])
    if options.get("missing_targets"):
        y[::7] = np.nan
    sizes = [5, 8, 6, 1 if y.ndim == 2 else 3]
    net = cmlp.Network(sizes, "tanh", seed=1, dtype=dtype, **options)
    data = net.encode_rows(X, y, weights if weighted else None)
    given = Options(
        epochs=epochs, batch_size=BATCH, shuffle=True, validation_fraction=0.0, patience=None,
        schedule="cosine", dropout_schedule=None, weight_decay_schedule="cosine", callbacks=(),
        max_time=None, n_threads=1, verbose=0,
    )  # fmt: skip
    return Rank(net, data, Settings(Recipe(**recipe), given))


def alone(rank):
    """Train as one process does, in the order of the ranks: fused, by the core's epoch."""
    net, epochs = rank.net, rank.settings.options.epochs
    trainer = Trainer(net, rank.feed.rows, rank.settings.recipe, BATCH, 1)
    trainer.noise = trainer.noise._replace(seed=rank.feed.seed)
    losses = []
    for epoch in range(epochs):
        trainer.progressed.epoch = epoch
        trainer.progressed.rows = 0
        trainer.progressed.loss = trainer.progressed.weight = 0.0
        order = np.concatenate([part.order for part in rank.feed.windows(epoch, 0, None)])
        rates = np.empty((3, rank.rules.n_steps))
        rank.rules.drawn = epoch
        rank.rules.draw(np.empty(0, np.int64), rates)
        losses.append(trainer.epoch(order, rates)[0])
    trainer.close()
    return net, losses


def agree(dtype, tolerance, recipe, weighted=False, options=None, epochs=1, counts=(1, 2, 3, 4)):
    whole, losses = alone(made(dtype, recipe, weighted, options or {}, epochs))
    for n in counts:
        ranks = [made(dtype, recipe, weighted, options or {}, epochs) for _ in range(n)]
        for found in together(
            ThreadRing.make(n), lambda comm, ranks=ranks: until_the_end(ranks[comm.rank], comm)
        ):
            assert isinstance(found, list), found
        for rank in ranks:
            rank.close()
            net = rank.net
            assert net.steps == whole.steps == 20 * epochs
            far = np.abs(net.params - whole.params).max() / np.abs(whole.params).max()
            assert far <= tolerance, (n, far)
            np.testing.assert_allclose(net.history["loss"], losses, rtol=100 * tolerance)
            np.testing.assert_array_equal(net.params, ranks[0].net.params)


@pytest.mark.parametrize("name", STEPS)
def test_solvers_and_penalties(engine, name):
    agree("float64", 1e-12, STEPS[name], weighted=name != "momentum")


@pytest.mark.parametrize("name", NETS)
def test_kinds_of_networks(engine, name):
    recipe = STEPS["everything"] if name in ("labels", "custom") else STEPS["momentum"]
    agree("float64", 1e-12, recipe, name != "missing", NETS[name], counts=(1, 3))


@pytest.mark.parametrize("name", ["momentum", "everything"])
def test_two_hundred_steps_and_float32(name):
    agree("float64", 1e-10, STEPS[name], epochs=10, counts=(2, 4))
    agree("float32", 1e-5, STEPS[name], counts=(2, 3))


def test_threads_of_a_rank_change_nothing(threads_at_any_size):
    """With threads, which share one gradient."""
    X, y, _ = rows()

    def fit(n_threads):
        return lambda net, comm: net.fit(X, y, epochs=1, n_threads=n_threads, comm=comm)

    one, two = trained(2, fit(1))[0], trained(2, fit(2))[0]
    np.testing.assert_array_equal(one.params, two.params)


def test_sockets_and_threads_have_the_same_bits():
    """Sums of up to 64 KB are added in the order of the ranks by both."""
    X, y, _ = rows()

    def fit(net, comm):
        net.fit(X, y, epochs=2, batch_size=50, comm=comm)

    nets = [trained(3, fit, ring=ring) for ring in (ThreadRing.make, socket_rings)]
    for net in nets[1]:
        np.testing.assert_array_equal(net.params, nets[0][0].params)


def test_more_ranks_than_rows_of_a_batch():
    """Some have no row in most steps, one never has any."""
    X, y, weights = rows(13)

    def fit(net, comm):
        net.fit(X, y, epochs=3, batch_size=2, sample_weight=weights, l2=0.1, comm=comm)

    one, many = trained(1, fit)[0], trained(8, fit)
    for net in many:
        np.testing.assert_allclose(net.params, one.params, rtol=0, atol=1e-13)
        np.testing.assert_allclose(net.history["loss"], one.history["loss"], rtol=1e-12)


def test_weights_of_zero_leave_the_penalties(engine):
    """A batch without any weight is a step of the penalties alone."""
    agree("float64", 1e-12, {"l2": 0.1}, "one row", counts=(1, 3))
