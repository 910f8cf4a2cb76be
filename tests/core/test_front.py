"""What happens to X's columns before the first layer: tables, periodic columns, factors.

Against sums worked out by hand, central differences, the float64 twin and NumPy's sine; the same
bits with any number of threads.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cores import COMPILED, CORES
from helpers import alternating, covering, dealt

import cmlp
from cmlp.core import front, groups, layout, reference, seam, vocabulary
from cmlp.core.seam import SparseRows
from cmlp.model.parameters import Parameters, new_record

QUIET = seam.Noise(0, 0.0, np.empty(0))
SOLVERS = {row.name: row for row in vocabulary.SOLVERS}
OPTIMIZERS = {
    "plain": seam.Optimizer(),
    "momentum": seam.Optimizer(momentum=0.9),
    "clipped": seam.Optimizer(momentum=0.5, clip_norm=0.05),
    "adam": seam.Optimizer(SOLVERS["adam"].code, weight_decay=0.3, epsilon=1e-3),
    "factored": seam.Optimizer(SOLVERS["adam"].code, weight_decay=0.3, epsilon=1e-3, factors=None),
    "factored and clipped": seam.Optimizer(
        SOLVERS["nadam"].code, weight_decay=0.3, clip_norm=0.05, epsilon=1e-3, factors=None
    ),
    "averaged": seam.Optimizer(SOLVERS["nadam"].code, ema=0.9, epsilon=1e-3),
    "rmsprop": seam.Optimizer(SOLVERS["rmsprop"].code, epsilon=1e-3),
}

FRONTS = {
    "all": cmlp.Inputs(
        periodic=[0, 1, 4], levels={2: (5, 3), 6: (17, 1)}, summed={3: 9, 7: 1}, scaled=True
    ),
    "sums alone": cmlp.Inputs(summed=dict.fromkeys(range(8), 17)),
    "sums": cmlp.Inputs(summed={3: 17}),
    "tables": cmlp.Inputs(levels={i: (1 + 2 * i, 1 + i) for i in range(8)}),
    "factors": cmlp.Inputs(scaled=True),
    "waves": cmlp.Inputs(periodic=range(8), frequencies=17, width=9),
    "a wave": cmlp.Inputs(periodic=[5], frequencies=1, width=1),
}
SIZES = ((8, 3), (8, 7, 2), (8, 33, 17, 3), (8, 130, 65, 5))
KINDS = (None, "batch", "layer")


def network(name="all", sizes=(8, 33, 17, 3), dtype="float64", kind=None, bent=False):
    kind, bent = (kind, bent) if len(sizes) > 2 else (None, False)
    net = cmlp.Network(
        sizes, "tanh", inputs=FRONTS[name], dtype=dtype, seed=3, normalization=kind,
        parametric_activation=bent,
    )  # fmt: skip
    rng = np.random.default_rng(4)
    for part in net.parameter_views.parts().values():  # nothing is left at 0 or 1
        part += 0.2 * rng.standard_normal(part.shape)
    for _, variance in net.running:
        np.abs(variance, out=variance)
    return net


def rows_of(net, n, seed=0):
    """Rows with whole numbers, fractions, and positions outside of the tables."""
    rng = np.random.default_rng(seed)
    X = rng.normal(3, 5, (n, net.sizes[0]))
    X[:, 2] = rng.integers(-1, 7, n)
    X[::3] = np.round(X[::3])
    return X.astype(net.dtype), rng.integers(0, net.sizes[-1], n)


def padding(net, flat):
    """The numbers between the rows."""
    used = np.zeros(len(flat), bool)
    for part in Parameters(net.plan, used).parts().values():
        part[...] = True
    return flat[~used]


def objective_of(net, **options):
    return net.architecture.objective(**options)


def gradient_of(core, net, X, y, noise=QUIET, weights=None):
    grads, deltas = np.zeros_like(net.params), new_record(net.plan, len(X), net.dtype)
    for part in Parameters(net.plan, grads).parts().values():
        part[...] = np.nan
    dX = np.full((len(X), net.sizes[0]), np.nan, net.dtype)
    workspace = np.full(core.workspace_size(net.plan, len(X)), np.nan, net.dtype)
    loss = core.gradient(
        net.plan, net.params, X, y, weights, None, objective_of(net, l1=1e-3, l2=1e-2), noise, 3,
        grads, deltas, dX, workspace,
    )  # fmt: skip
    return loss, grads, deltas, dX


def near(net, came, expected, length, what, room=100):
    """Roundings of sums of this length, at the size of the largest number."""
    eps = float(np.finfo(net.dtype).eps) if net.dtype == np.float32 else 4e-16
    size = max(1e-3, float(np.abs(expected).max(initial=0)))
    if net.normalization == "batch":  # divides by deviations, and what it takes away cancels
        size, room = max(1.0, size), 10 * room
    room = room * eps * np.sqrt(length) * size
    np.testing.assert_allclose(came, expected, rtol=0, atol=room, err_msg=what)


# By hand -----------------------------------------------------------------------------------------


def test_tables_by_hand(core, dtype):
    """3 + one input of a table, one table of two units, and a bias."""
    inputs = cmlp.Inputs(levels={1: (3, 2)}, summed={2: 2}, scaled=True)
    net = cmlp.Network([3, 2], inputs=inputs, dtype=dtype, loss="squared_error")
    net.front["levels.1"] = [[1, 2], [3, 6], [10, 20]]
    net.front["summed.2"] = [[100, 200], [300, 600]]
    net.front["factors"] = [2, 1, -1]
    net.weights[0] = [[1, 0], [0, 1], [1, 1]]
    net.biases[0] = [0.5, -0.5]
    X = np.array([[3, 1, 0], [3, 0.25, 1], [3, 1.75, 0.5]])
    # x0 twice; (3, 6); (1.5, 3); (8.25, 16.5): the second number is subtracted from both
    expected = [[6 - 6 + 100.5, 3 - 6 + 199.5], [6 - 3 + 300.5, 1.5 - 3 + 599.5],
                [6 - 16.5 + 200.5, 8.25 - 16.5 + 399.5]]  # fmt: skip
    np.testing.assert_array_equal(net.predict(X), expected)
    found = net.gradients(X[2:], np.array([expected[2]]) - [[1, 10]])  # delta = (1, 10)
    dh = [2, 10, -11]  # W delta times the factors
    np.testing.assert_allclose(found.inputs, [[2, 10 * 7 - 11 * 14, 200 + 10 * 400]], rtol=1e-5)
    expected = {
        "factors": [3, 8.25 * 10, 16.5 * 11],
        "levels.1": np.outer([0, 0.25, 0.75], dh[1:]),
        "summed.2": np.outer([0.5, 0.5], [1, 10]),
    }
    assert found.front.keys() == expected.keys()
    for name, slopes in expected.items():
        np.testing.assert_allclose(found.front[name], slopes, rtol=1e-4, err_msg=name)


def test_periodic_by_hand(core, dtype):
    """u = 2 pi w x + b at multiples of a quarter of a turn."""
    net = cmlp.Network(
        [1, 3], inputs=cmlp.Inputs(periodic=[0], frequencies=2, width=2), dtype=dtype,
        loss="squared_error",
    )  # fmt: skip
    net.front["periodic.frequencies"] = [[0.25, 0.5]]
    net.front["periodic.phases"] = [[0, math.pi / 2]]
    net.front["periodic.weights"] = [[[1, 10], [100, 1000]]]
    net.front["periodic.biases"] = [[0.5, 0.25]]
    net.weights[0], net.biases[0] = np.eye(3), 0
    # x = 0, 1, 2, 3: cos(x pi / 2) = 1, 0, -1, 0 and cos(x pi + pi / 2) = 0
    expected = [[1.5, 100.25, 0], [0.5, 0.25, 1], [-0.5, -99.75, 2], [0.5, 0.25, 3]]
    room = 3e4 * np.finfo(dtype).eps  # of u, which is up to 11, times V
    np.testing.assert_allclose(net.predict([[0], [1], [2], [3]]), expected, atol=room, rtol=0)
    x = 1.0  # sin(u) = 1 and -1; delta = (1, 0, 0)
    found = net.gradients([[x]], net.predict([[x]]) - [[1, 0, 0]])
    du = np.array([-1, 10])
    expected = {
        "periodic.frequencies": [2 * math.pi * x * du],
        "periodic.phases": [du],
        "periodic.weights": [[[0, 0], [0, 0]]],
        "periodic.biases": [[1, 0]],
    }
    for name, slopes in expected.items():
        np.testing.assert_allclose(found.front[name], slopes, rtol=1e-5, atol=room, err_msg=name)
    dx = 2 * math.pi * (0.25 * -1 + 0.5 * 10)
    np.testing.assert_allclose(found.inputs, [[dx]], rtol=1e-5)


@pytest.mark.parametrize("turns", [0.3, 10, 1500, 1e5, 1e9, 1e30])
def test_cosines_of_any_size(core, dtype, turns):
    """Also far beyond the range that the reduction is exact for, where the C library answers."""
    net = cmlp.Network(
        [1, 2], inputs=cmlp.Inputs(periodic=[0], frequencies=1, width=1), dtype=dtype,
        loss="squared_error",
    )  # fmt: skip
    net.front["periodic.frequencies"] = 0
    net.front["periodic.weights"], net.front["periodic.biases"] = 1, 0
    net.weights[0], net.biases[0] = np.eye(2), 0
    for phase in np.random.default_rng(0).uniform(-turns, turns, 20):
        u = net.dtype.type(2 * math.pi * phase)
        net.front["periodic.phases"] = u  # a number of this dtype: only the cosine rounds
        expected = math.cos(float(u))
        room = 2 * float(np.finfo(dtype).eps)
        assert net.predict([[1.0]])[0, 0] == pytest.approx(expected, rel=0, abs=room)
        sine = net.gradients([[0.0]], net.predict([[0.0]]) - [[1, 0]]).front["periodic.phases"]
        assert -sine[0, 0] == pytest.approx(math.sin(float(u)), rel=0, abs=room)


def test_positions_outside_of_a_table(core, dtype):
    """They are its first and its last row; a predictor does not refuse NaN."""
    for name, inputs in (
        ("levels.0", cmlp.Inputs(levels={0: (5, 2)})), ("summed.0", cmlp.Inputs(summed={0: 5})),
    ):  # fmt: skip
        net = cmlp.Network([1, 2], inputs=inputs, dtype=dtype, loss="squared_error")
        net.front[name] = E = np.arange(10.0).reshape(5, 2) ** 2
        net.weights[0], net.biases[0] = np.eye(*net.weights[0].shape), 0
        rows = {np.nan: 0, -np.inf: 0, -1e30: 0, -0.0: 0, -0.5: 0, 3: 3, 4: 4, 4.5: 4,
                1e30: 4, np.inf: 4, 2.0**40: 4}  # fmt: skip
        predictor = net.predictor()
        for x, row in rows.items():
            np.testing.assert_array_equal(predictor(np.array([x])), E[row], err_msg=f"{x}")
            if np.isfinite(x):
                np.testing.assert_array_equal(net.predict([[x]])[0], E[row])
                assert x == 3 or x == 0 or not net.gradients([[x]], [[1.0, 2.0]]).inputs.any()
        np.testing.assert_array_equal(net.predict([[3.25]])[0], 0.75 * E[3] + 0.25 * E[4])


# Differences and twins ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "core, name, sizes, kind, bent",
    covering(CORES, FRONTS, SIZES[:3], KINDS, [False, True]),
    indirect=["core"],
)
def test_central_differences(core, name, sizes, kind, bent):
    net = network(name, sizes, kind=kind, bent=bent)
    check = net.check_gradients(*rows_of(net, 6), l2=0.01, entries=4)
    assert check, check
    assert any(layer.name in ("periodic", *net.front) for layer in check.layers)


@pytest.mark.parametrize("name", FRONTS)
def test_differences_by_the_inputs(core, name):
    """Away from the rows of the tables, where the slope jumps."""
    net = network(name, (8, 17, 2))
    X = np.random.default_rng(1).uniform(0.2, 0.8, (4, 8)) + np.arange(4)[:, None] % 3
    y = np.array([0, 1, 1, 0])
    found, h = net.gradients(X, y).inputs, 1e-6
    for j in range(8):
        up, down = X.copy(), X.copy()
        up[:, j] += h
        down[:, j] -= h
        for i in range(4):
            one = slice(i, i + 1)
            slope = (net.loss(up[one], y[one]) - net.loss(down[one], y[one])) / (2 * h)
            assert 4 * found[i, j] == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize(
    "core, dtype, case",
    alternating(CORES, covering(FRONTS, SIZES, KINDS, [1, 7, 40, 1100], [False, True])),
    indirect=["core", "dtype"],
)
def test_the_twins_agree(core, dtype, case):
    name, sizes, kind, n, bent = case
    n = max(n, 2) if kind == "batch" else n
    net = network(name, sizes, dtype, kind, bent)
    X, y = rows_of(net, n)
    noise = seam.Noise(9, 0.2, np.full(len(sizes) - 2, 0.3))
    weights = np.random.default_rng(0).integers(0, 3, n) / 2.0
    weights[0] = 1
    mine = gradient_of(core, net, X, y, noise, weights)
    wide = net.astype("float64")
    others = gradient_of(reference, wide, X.astype("float64"), y, noise, weights)
    length = max(n, *net.architecture.widths)
    assert mine[0] == pytest.approx(others[0], rel=1e-4 if dtype == np.float32 else 1e-11)
    theirs = Parameters(wide.plan, others[1]).parts()
    for key, part in Parameters(net.plan, mine[1]).parts().items():
        near(net, part, theirs[key], length, key)
    near(net, mine[3], others[3], length, "dX")
    assert not padding(net, mine[1]).any()


@pytest.mark.parametrize(
    "core, dtype, name, sizes, kind, bent",
    dealt(CORES, covering(FRONTS, SIZES, KINDS, [False, True])),
    indirect=["core", "dtype"],
)
def test_every_way_to_the_outputs(core, dtype, name, sizes, kind, bent):
    """predict, forward, predictors of one row and of many, and the folded network."""
    net = network(name, sizes, dtype, kind, bent)
    X, y = rows_of(net, 150)
    out, predictor = net.predict(X), net.predictor()
    ways = {
        "forward": net.forward(X, return_all=True).a[-1],
        "the twin": net.astype("float64")._predicted(X.astype("float64")),
        "a predictor": np.array([predictor(x).copy() for x in X]),
        "a predictor of many": net.predictor(150)(X),
        "another order": net.predict(np.asfortranarray(X)),
        "sparse": predict_sparse(core, net, X),
    }
    if kind != "batch" or net.inputs.scaled:
        ways["folded"] = net.folded().predict(X)
    for way, other in ways.items():
        near(net, other, out, 130, way)
    if kind != "batch":
        costs = -np.log(out[np.arange(150), y])
        assert net.loss(X, y) == pytest.approx(costs.mean(), rel=1e-4)


def predict_sparse(core, net, X):
    indptr = np.arange(len(X) + 1) * X.shape[1]
    rows = SparseRows(X.ravel(), np.tile(np.arange(X.shape[1]), len(X)), indptr, X.shape[1])
    out = np.empty((len(X), net.sizes[-1]), net.dtype)
    workspace = np.full(core.workspace_size(net.plan, 1), np.nan, net.dtype)
    core.predict(net.plan, net.params, rows, None, out, workspace)
    return out


def test_codes_of_any_number_type(core):
    net = network("tables", dtype="float32")
    X = np.random.default_rng(0).integers(0, 9, (20, 8))
    expected = net.predict(X.astype(np.float32))
    for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f8"):
        np.testing.assert_array_equal(net.predict(X.astype(kind)), expected, err_msg=kind)


def test_noise_leaves_positions_alone(core):
    """Of one column of numbers and one of positions, only the first one's input changes."""
    inputs = cmlp.Inputs(summed={1: 5})
    net = cmlp.Network([2, 1], inputs=inputs, dtype="float64", loss="squared_error", seed=0)
    X, y = np.array([[2.0, 3.0]]), np.zeros((1, 1))
    _, grads, _, _ = gradient_of(core, net, X, y, seam.Noise(1, 10.0, np.empty(0)))
    dE = Parameters(net.plan, grads).front["summed.1"]
    assert np.flatnonzero(dE).tolist() == [3]
    out = np.empty((1, 1))
    core.evaluate(
        net.plan, net.params, X, y, None, objective_of(net), seam.Noise(1, 10.0, np.empty(0)), 3,
        out, np.empty(1), np.empty(core.workspace_size(net.plan, 1)),
    )  # fmt: skip
    assert out[0, 0] != net.predict(X)[0, 0]


# Steps -------------------------------------------------------------------------------------------


def epochs(core, net, X, y, batch_size, optimizer, n_threads=1, n_epochs=1, noise=QUIET, rate=1e-3):
    """Call ``core.train_epoch`` with arrays amid marks; returns params, state and the losses."""
    rng = np.random.default_rng(5)
    if optimizer.factors is None:
        factors = rng.uniform(0.5, 2, groups.default_factors(net.plan).shape)
        optimizer = optimizer._replace(factors=factors)
    rows = np.concatenate([rng.permutation(len(X)) for _ in range(n_epochs)])
    n_moments = next(r.n_moments for r in vocabulary.SOLVERS if r.code == optimizer.solver)
    params, grads = net.params.copy(), np.zeros_like(net.params)
    state = np.zeros((n_moments + (optimizer.ema > 0), len(params)), net.dtype)
    size = core.workspace_size(net.plan, batch_size, n_threads)
    big = np.full(size + 256, 123, net.dtype)
    big[128:-128] = np.nan
    rates, team = np.full(n_epochs * -(-len(X) // batch_size), rate), np.zeros(16, np.int64)
    losses = np.zeros(n_epochs)

    def run(rank):
        return core.train_epoch(
            net.plan, params, state, X, y, None, rows, batch_size, rates, 0,
            objective_of(net, l2=0.01), optimizer, noise, grads, big[128:-128], rank, n_threads,
            team if n_threads > 1 else None, 1.0, losses,
        )  # fmt: skip

    with ThreadPoolExecutor(n_threads) as pool:
        results = list(pool.map(run, range(n_threads)))
    assert (big[:128] == 123).all() and (big[-128:] == 123).all()
    assert results[0][1] == len(rates)
    for flat in (params, grads, *state):
        assert not padding(net, flat).any()
    return params, state, losses


@pytest.mark.parametrize(
    "core, dtype, name, rule, batch_size, kind, bent",
    dealt(CORES, covering(FRONTS, OPTIMIZERS, [1, 13, 40], KINDS, [False, True])),
    indirect=["core", "dtype"],
)
def test_epochs_of_both_twins(core, dtype, name, rule, batch_size, kind, bent):
    batch_size = max(batch_size, 13) if kind == "batch" else batch_size  # of two, zhat is a sign
    net = network(name, dtype=dtype, kind=kind, bent=bent)
    X, y = rows_of(net, 40)
    params, _, losses = epochs(core, net, X, y, batch_size, OPTIMIZERS[rule])
    wide = net.astype("float64")
    others = epochs(reference, wide, X.astype("float64"), y, batch_size, OPTIMIZERS[rule])
    # RMSprop divides by roots of small sums: the rounding of a gradient near 0 is a step.
    room = (1e-2 if rule == "rmsprop" else 1e-3) if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(losses, others[2], rtol=room)
    theirs = Parameters(wide.plan, others[0]).parts()
    for key, part in Parameters(net.plan, params).parts().items():
        np.testing.assert_allclose(part, theirs[key], rtol=0, atol=room, err_msg=key)


def test_untouched_rows_move(core, dtype):
    """Adam's moments and decay move every row of a table, as dense arrays."""
    net = cmlp.Network([1, 2], inputs=cmlp.Inputs(levels={0: (5, 2)}), dtype=dtype, seed=0)
    X, y = np.array([[1.0], [1.0], [3.0], [3.0]], dtype), np.array([0, 1, 0, 0])
    before = net.front["levels.0"].copy()
    for rows in (slice(0, 2), slice(2, 4)):
        net.step(X[rows], y[rows], solver="adamw", weight_decay=0.5, learning_rate=0.1)
    after = net.front["levels.0"]
    np.testing.assert_allclose(after[0], before[0] * 0.95**2, rtol=1e-5)
    one = net.moments[0]  # row 1 moved in the second step as well, by what was left of its moment
    assert Parameters(net.plan, one).front["levels.0"][1].all()
    assert (np.sign(after[1] - 0.95 * before[1]) == np.sign(-one[front_of(net)][1])).all()


def front_of(net):
    """Where the table of the only part is, (rows, width)."""
    numbers = np.arange(len(net.params))
    return front.table_of(front.front_of(net.plan)[0].tolist(), numbers)


BATCHES = {
    "some": (40, 13, (8, 33, 17, 3)),
    "rows": (6, 1, (8, 130, 5)),
    "one layer": (70, 40, (8, 3)),
    "more than a pass": (2500, 2400, (8, 70, 3)),
}
"""Rows, rows of a batch, and sizes."""


@pytest.mark.parametrize(
    "compiled, dtype, name, rule, batches, bent",
    dealt(COMPILED, covering(FRONTS, OPTIMIZERS, BATCHES, [False, True])),
    indirect=["compiled", "dtype"],
)
def test_threads_change_no_bit(compiled, dtype, name, rule, batches, bent):
    n, batch_size, sizes = BATCHES[batches]
    net = network(name, sizes, dtype, bent=bent)
    X, y = rows_of(net, n)
    noise = seam.Noise(2, 0.1, np.full(len(sizes) - 2, 0.2))
    expected = epochs(compiled, net, X, y, batch_size, OPTIMIZERS[rule], 1, 2, noise)
    for n_threads in (2, 3):
        came = epochs(compiled, net, X, y, batch_size, OPTIMIZERS[rule], n_threads, 2, noise)
        for a, b in zip(came, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_epochs_of_one_call(core, dtype):
    """Several epochs in a call are those of several calls."""
    net = network("all", dtype=dtype)
    X, y = rows_of(net, 20)
    together = cmlp.Network.fit(net, X, y, epochs=5, batch_size=6, solver="adam", shuffle=False)
    alone = network("all", dtype=dtype)
    losses = [alone.train_epoch(X, y, batch_size=6, solver="adam", shuffle=False)
              for _ in range(5)]  # fmt: skip
    np.testing.assert_array_equal(alone.params, net.params)
    np.testing.assert_allclose(together["loss"], losses, rtol=1e-6)


def test_large_batches_add_up(core, dtype):
    """2,300 rows are three passes: their gradient is the mean of the rows' own."""
    net = network("all", dtype=dtype)
    X, y = rows_of(net, 2300)
    whole = gradient_of(core, net, X, y)[1]
    wide = net.astype("float64")
    halves = [gradient_of(reference, wide, X[part].astype("float64"), y[part])[1]
              for part in (slice(0, 1150), slice(1150, None))]  # fmt: skip
    theirs = Parameters(wide.plan, (halves[0] + halves[1]) / 2).parts()
    for key, part in Parameters(net.plan, whole).parts().items():
        near(net, part, theirs[key], 2300, key)


# The plan ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-(2**62), -6, -1, 0, 1, 2**20, 2**40, 2**62])
def test_plans_that_do_not_fit_are_refused(compiled, value):
    """Every column of every part, with any number: refused, or it lies inside the arrays."""
    net = network("all")
    n_layers = len(layout.layers_of(net.plan))
    X = np.zeros((1, 8))
    for row in range(n_layers, len(net.plan)):
        for column in range(net.plan.shape[1]):
            plan = net.plan.copy()
            if plan[row, column] == value:
                continue
            if (plan[row, front.KIND], column, value) == (front.SUMMED, front.CUMULATIVE, 1):
                continue  # it fits: a summed table may be cumulative
            plan[row, column] = value
            with pytest.raises(ValueError, match=r"front|layer"):
                compiled.predict(
                    plan, net.params, X, None, np.empty((1, 3)),
                    np.empty(compiled.workspace_size(net.plan, 1)),
                )  # fmt: skip


def test_arrays_lie_after_the_others(dtype):
    """Networks without a front keep their layout, and one with it has its layers' first."""
    plain = cmlp.Network([8, 5, 3], dtype=dtype)
    net = cmlp.Network([8, 5, 3], dtype=dtype, inputs=cmlp.Inputs(scaled=True))
    np.testing.assert_array_equal(net.plan[:2], plain.plan)
    assert net.plan[2:, layout.FRONT_AT].min() == len(plain.params)
    numbers = np.zeros(len(net.params), int)
    for part in Parameters(net.plan, numbers).parts().values():
        part += 1
    assert numbers.max() == 1 and numbers.sum() == net.n_params
