"""Cumulative tables: a solver moves the steps from row to row, as weights of columns would."""

from __future__ import annotations

import numpy as np
import pytest

import cmlp

ROWS, LEVELS, UNITS = 9, 5, 20

SOLVERS = {
    "momentum": {"solver": "sgd", "momentum": 0.9},
    "adamw": {"solver": "adamw", "weight_decay": 0.3},
    "rmsprop": {"solver": "rmsprop"},
    "nadam": {"solver": "nadam"},
}


def table(n=300, seed=0):
    """Places among knots, levels and a number; some places lie outside the table."""
    rng = np.random.default_rng(seed)
    X = np.c_[rng.uniform(-1, ROWS, n), rng.integers(0, LEVELS, n), rng.normal(size=n)]
    return X, np.sin(X[:, 0]) + 0.3 * X[:, 1] + X[:, 2]


def written_out(X):
    """The same as columns: how much of each step lies below a place; 0 and 1; the number."""
    steps = np.clip(X[:, :1] - np.arange(ROWS - 1), 0, 1)
    return np.c_[steps, X[:, 1:2] == np.arange(LEVELS), X[:, 2:]]


def pair(dtype="float64"):
    """A network with tables, and one of columns written out with the same weights."""
    inputs = cmlp.Inputs(summed={0: ROWS, 1: LEVELS}, cumulative=(0,))
    net = cmlp.Network([3, UNITS, 1], "tanh", seed=1, dtype=dtype, inputs=inputs)
    plain = cmlp.Network([ROWS - 1 + LEVELS + 1, UNITS, 1], "tanh", seed=1, dtype=dtype)
    plain.weights[0][: ROWS - 1] = np.diff(net.front["summed.0"], axis=0)
    plain.weights[0][ROWS - 1 : -1] = net.front["summed.1"]
    plain.weights[0][-1] = net.weights[0]
    plain.weights[1] = net.weights[1]
    return net, plain


def rows_of(plain):
    """The rows of the table: sums of the steps."""
    return np.cumsum(np.r_[np.zeros((1, UNITS)), plain.weights[0][: ROWS - 1]], axis=0)


@pytest.mark.parametrize("batch_size", [32, 1500], ids=["fused", "parts"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_table_trains_as_columns_written_out(engine, solver, batch_size):
    """Of batches over 1,024 rows the gradient is added up before the update."""
    X, y = table(300 if batch_size == 32 else 1500)
    net, plain = pair()
    for each, rows in ((net, X), (plain, written_out(X))):
        each.fit(
            rows, y, epochs=3, batch_size=batch_size, shuffle=False, learning_rate=0.01,
            **SOLVERS[solver],
        )  # fmt: skip
    np.testing.assert_allclose(net.front["summed.0"], rows_of(plain), rtol=0, atol=1e-10)
    np.testing.assert_allclose(net.predict(X), plain.predict(written_out(X)), rtol=0, atol=1e-10)
    assert not net.front["summed.0"][0].any()


@pytest.mark.parametrize("options", [{"ema": 0.9}, {"clip_norm": 0.1}], ids=["mean", "clipped"])
def test_twins_agree(compiled, options):
    """Float32: 30 steps of a few roundings each, relative to weights of order 1."""
    X, y = table()
    params = {}
    for core in ("python", compiled.name):
        with cmlp.use_core(core):
            net, _ = pair("float32")
            net.fit(X, y, epochs=3, batch_size=32, solver="adam", learning_rate=0.01, **options)
            params[core] = net.params.copy()
    np.testing.assert_allclose(params[compiled.name], params["python"], rtol=0, atol=2e-5)


def test_threads_give_the_same_bits(compiled):
    X, y = table(1500)
    for batch_size in (64, 1500):
        found = []
        for n_threads in (1, 2, 3):
            with cmlp.use_core(compiled.name):
                net, _ = pair("float32")
                net.fit(X, y, epochs=2, batch_size=batch_size, solver="adam", n_threads=n_threads)
            found.append(net.params)
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])


def test_the_gradient_is_that_of_the_rows(engine):
    X, y = table(50)
    net, _ = pair()
    assert net.check_gradients(X, y[:, None], entries=20)


def test_files_and_copies_keep_it(tmp_path, engine):
    X, y = table()
    net, _ = pair("float32")
    net.save(tmp_path / "net.cmlp")
    again = cmlp.load(tmp_path / "net.cmlp")
    assert again.inputs == net.inputs and again.inputs.cumulative == (0,)
    for each in (net, again):
        each.fit(X, y, epochs=2, solver="adam", shuffle=False)
    np.testing.assert_array_equal(again.params, net.params)


def test_only_summed_tables_are_cumulative():
    with pytest.raises(ValueError, match="column 2, which is not in summed"):
        cmlp.Inputs(summed={0: 4}, cumulative=(2,))
    with pytest.raises(TypeError, match="cumulative must be a list"):
        cmlp.Inputs(summed={0: 4}, cumulative="0")
