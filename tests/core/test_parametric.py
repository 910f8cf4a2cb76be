"""Parametric activations, a = z + alpha (f(z) - z): twins, differences, by hand, files."""

import copy
import pickle

import numpy as np
import pytest
from cores import CORES, ENGINES
from helpers import DTYPES, alternating, covering, refused, squared_error, waves
from oracle import HIDDEN, QUIET, check_same
from test_normalization import (
    OPTIMIZERS,
    epoch,
    gradient_of,
    growth,
    near,
    objective_of,
    padding,
    parts_of,
    rows_of,
)
from test_normalization import network as normalised_network

import cmlp
from cmlp import Network
from cmlp.core import groups, layout, reference, seam
from cmlp.model import passes
from cmlp.model.parameters import Parameters, cut_record

KINDS = (None, "batch", "layer")
SIZES = {
    "small": (5, 7, 3),
    "one unit": (3, 1, 1, 2),
    "odd": (9, 33, 17, 4),
    "wide": (70, 130, 97, 5),
    "few": (40, 2, 16, 3),
}


def network(kind=None, sizes=(5, 17, 9, 3), dtype="float32", activation="tanh", **options):
    """One whose alphas are on both sides of 0 and 1."""
    net = normalised_network(kind, sizes, dtype, activation, parametric_activation=True, **options)
    rng = np.random.default_rng(3)
    for alpha in net.alphas:
        alpha[...] = rng.uniform(-0.5, 1.5, alpha.shape)
    return net


# The twins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "core, dtype, case",
    alternating(
        CORES,
        [
            *covering(KINDS, list(SIZES)[:3], [1, 2, 13, 1024, 1025, 2500], [False, True]),
            *covering(KINDS, ["wide", "few"], [1, 2, 13, 64], [False, True]),
        ],
    ),
    indirect=["core", "dtype"],
)
def test_gradients_of_both_twins(core, dtype, case):
    kind, sizes, n, noisy = case
    net = network(kind, SIZES[sizes], dtype, ("tanh", "silu")[n % 2])
    X, y = rows_of(net, n)
    noise = seam.Noise(7, 0.1, np.full(len(net.plan) - 1, 0.3)) if noisy else QUIET
    weights = np.random.default_rng(2).integers(1, 4, n) / 2
    loss, *came = gradient_of(core, net, X, y, noise, weights)
    wide = net.astype("float64")
    expected_loss, *expected = gradient_of(reference, wide, X, y, noise, weights)
    steep = max(1, growth(wide, X.astype(np.float64), noise)) if kind else 1
    length = (n + max(net.sizes)) * steep**2
    assert loss == pytest.approx(expected_loss, rel=300 * float(np.finfo(dtype).eps))
    mine, theirs = parts_of(net, came[0]), parts_of(wide, expected[0])
    assert {f"layers.{number}.alpha" for number in range(len(net.plan) - 1)} <= mine.keys()
    for name, part in mine.items():
        near(part, theirs[name], length, name)
    near(came[2], expected[2], length, "dX")
    cut = zip(cut_record(net.plan, came[1]), cut_record(wide.plan, expected[1]), strict=True)
    for number, (delta, other) in enumerate(cut):
        near(delta, other, length, f"delta {number}")
    assert not padding(net, came[0]).any()


@pytest.mark.parametrize(
    "core, dtype, case",
    alternating(CORES, covering(KINDS, OPTIMIZERS, [2, 13, 40])),
    indirect=["core", "dtype"],
)
def test_epochs_of_both_twins(core, dtype, case):
    """Few steps: small differences grow where a sum's sign decides, as with Lion."""
    kind, name, batch_size = case
    net = network(kind, dtype=dtype)
    X, y = rows_of(net, 40)
    rng = np.random.default_rng(0)
    factors = rng.uniform(0.5, 2, groups.default_factors(net.plan).shape)
    optimizer = OPTIMIZERS[name]._replace(factors=factors, weight_decay=0.1)
    params, _, (total, steps) = epoch(core, net, X, y, batch_size, optimizer)
    wide = net.astype("float64")
    others = epoch(reference, wide, X, y, batch_size, optimizer)
    assert steps == others[2][1] == -(-40 // batch_size)
    room = {"lion": 0.05, "adam": 1e-2, "clipped": 1e-2}.get(name, 2e-4)
    room = room if dtype == np.float32 else 1e-8 * room / 2e-4
    assert total == pytest.approx(others[2][0], rel=room)
    before, mine, theirs = (parts_of(each, flat) for each, flat in (
        (net, net.params), (net, params), (wide, others[0])
    ))  # fmt: skip
    for key, part in mine.items():
        np.testing.assert_allclose(part, theirs[key], rtol=0, atol=room, err_msg=key)
        if "alpha" in key:
            assert (part != before[key]).any()


TEAMS = {
    "small": ((5, 7, 3), 40, 13, "momentum"),
    "two rows": ((9, 33, 65, 5), 6, 2, "adam"),
    "wide": ((70, 130, 97, 5), 150, 70, "adam"),
    "clipped": ((17, 33, 65, 5), 90, 40, "clipped"),
    "averaged": ((17, 33, 65, 5), 90, 40, "averaged"),
    "passes": ((5, 18, 3), 1300, 1100, "momentum"),
}


@pytest.mark.parametrize("dtype, kind, case", covering(DTYPES, KINDS, TEAMS), indirect=["dtype"])
def test_any_number_of_threads_gives_the_same_bits(core, dtype, kind, case):
    sizes, n, batch_size, name = TEAMS[case]
    net = network(kind, sizes, dtype, "gelu")
    X, y = rows_of(net, n)
    noise = seam.Noise(3, 0.1, np.full(len(sizes) - 2, 0.2))
    first, *others = (
        epoch(core, net, X, y, batch_size, OPTIMIZERS[name], n_threads, noise)
        for n_threads in (1, 2, 3)
    )
    assert np.isfinite(first[0]).all() and (first[0] != net.params).any()
    for params, state, took in others:
        np.testing.assert_array_equal(params, first[0])
        np.testing.assert_array_equal(state, first[1])
        assert took == first[2]


def test_single_rows_on_threads(core):
    net = network("layer", (9, 300, 65, 5))
    X, y = rows_of(net, 5)
    first, second = (epoch(core, net, X, y, 1, OPTIMIZERS["momentum"], n) for n in (1, 2))
    np.testing.assert_array_equal(first[0], second[0])
    plain = network(None, (9, 300, 65, 5))
    first, second = (epoch(core, plain, X, y, 1, OPTIMIZERS["adam"], n) for n in (1, 3))
    np.testing.assert_array_equal(first[0], second[0])


# Differences -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "engine, kind, activation",
    covering(ENGINES, KINDS, [name for name in HIDDEN if name != "exp"]),
    indirect=["engine"],
)
def test_central_differences(engine, kind, activation):
    net = network(kind, (3, 5, 4, 2), "float64", activation)
    X, y = rows_of(net, 19)
    check = net.check_gradients(X, y, l1=1e-3, l2=1e-2, entries=4)
    assert check, str(check)


def test_wrong_alphas_are_found(monkeypatch):
    net = network()
    exact = passes.backpropagate

    def wrong(net, *arguments, **options):
        found = exact(net, *arguments, **options)
        Parameters(net.plan, found.gradient).alphas[1][2] *= 1.5
        return found

    monkeypatch.setattr(passes, "backpropagate", wrong)
    check = net.check_gradients(*rows_of(net, 10))
    assert not check and check.worst.entry == "alpha[2]"


@pytest.mark.parametrize("kind", KINDS)
def test_central_differences_with_dropout(core, kind):
    """The same units are off in every evaluation of a step: their alphas have no part in it."""
    net = network(kind, (5, 9, 6, 3), "float64", "gelu")
    X, y = rows_of(net, 12)
    noise = seam.Noise(5, 0.1, np.array([0.4, 0.3]))
    grads = gradient_of(core, net, X, y, noise)[1]
    workspace = np.zeros(core.workspace_size(net.plan, 12))
    slopes = Parameters(net.plan, grads).alphas
    h = 1e-5
    for alpha, slope in zip(net.alphas, slopes, strict=True):
        for unit in range(len(alpha)):
            kept, losses = alpha[unit], []
            for move in (-h, h):
                alpha[unit] = kept + move
                costs = np.zeros(12)
                core.evaluate(net.plan, net.params, X, y, None, objective_of(net), noise, 3,
                              np.empty((0, 0)), costs, workspace)  # fmt: skip
                losses.append(costs.mean())
            alpha[unit] = kept
            # the third derivative is moderate: h^2 of it, and 1e-15 / h of rounding
            assert slope[unit] == pytest.approx((losses[1] - losses[0]) / (2 * h), abs=1e-8)


# What it means -----------------------------------------------------------------------------------


def test_a_unit_by_hand(engine, dtype):
    net = Network([1, 1, 1], "relu", dtype=dtype, loss="squared_error", parametric_activation=True)
    net.weights[0], net.biases[0], net.alphas[0] = 2.0, -1.0, 0.25
    net.weights[1], net.biases[1] = 3.0, 0.5
    x, y = np.array([[1.5], [-1.0]]), np.array([[1.0], [2.0]])
    z = np.array([2.0, -3.0])  # of x
    a = np.array([2.0, -3.0 + 0.25 * (0 + 3.0)])
    out = 3 * a + 0.5
    np.testing.assert_allclose(net.predict(x)[:, 0], out)
    record = net.forward(x, return_all=True)
    np.testing.assert_allclose(record.z[0][:, 0], z)
    np.testing.assert_allclose(record.a[0][:, 0], a)
    residual = (out - y[:, 0]) / 2
    slope = np.array([1.0, 1 + 0.25 * (0 - 1)])
    found = net.gradients(x, y)
    delta = residual * 3 * slope
    difference = np.array([0.0, 3.0])  # f - z
    np.testing.assert_allclose(found.alphas[0], [(residual * 3 * difference).sum()], rtol=1e-6)
    np.testing.assert_allclose(found.weights[0][0], [(delta * x[:, 0]).sum()], rtol=1e-6)
    np.testing.assert_allclose(found.inputs[:, 0], delta * 2, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_alphas_of_1_and_0(core, dtype, kind):
    """The activation itself, and none at all."""
    X = rows_of(network(kind), 30)[0]
    net = network(kind, dtype=dtype, activation="silu")
    plain = normalised_network(kind, dtype=dtype, activation="silu")
    linear = copy.deepcopy(plain)
    linear.activations = ("identity", "identity", "softmax")
    for other, value in ((plain, 1), (linear, 0)):
        for alpha in net.alphas:
            alpha[...] = value
        room = 200 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(net.predict(X), other.predict(X), rtol=room, atol=room)
    assert (Network([2, 3, 1], parametric_activation=True).alphas[0] == 1).all()


def by_hand(net, X):
    """Outputs in float64, layer by layer."""
    wide = net.astype("float64").folded()
    a = X.astype(np.float64) * net.input_scale
    for number, (W, b) in enumerate(zip(wide.weights, wide.biases, strict=True)):
        z = a @ W + b
        if number == len(wide.weights) - 1:
            return z
        if net.normalization == "layer":
            z -= b
            z = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(z.var(axis=1, keepdims=True) + 1e-5)
            z = wide.scales[number] * z + b
        a = z + wide.alphas[number] * (np.tanh(z) - z)
    raise AssertionError("a network has an output layer")


@pytest.mark.parametrize(
    "core, dtype, case",
    alternating(
        CORES,
        covering(KINDS, [(5, 17, 33, 2), (64, 2, 140, 1), (3, 300, 2, 2)], [1, 2, 50, 300]),
    ),
    indirect=["core", "dtype"],
    ids=str,
)
def test_prediction(core, dtype, case):
    kind, sizes, n = case
    net = network(kind, sizes, dtype, loss="squared_error", input_scale=0.5)
    X, _ = rows_of(net, n)
    expected = by_hand(net, X)
    size = 1 + np.abs(expected).max() + (growth(net, X, None) if kind == "layer" else 0)
    room = 300 * float(np.finfo(dtype).eps) * size
    native = X.astype(dtype)
    for came in (
        net.predict(X), net.predict(native), net.predict(np.asfortranarray(X).tolist()),
        net.predictor(n)(X), net.predictor(n)(native), net.folded().predict(X),
        net.folded().predictor(n)(native), net.forward(X, return_all=True).a[-1],
    ):  # fmt: skip
        np.testing.assert_allclose(came, expected, rtol=0, atol=room)
    np.testing.assert_allclose(net.predictor()(X[0]), expected[0], rtol=0, atol=room)
    assert net.loss(X, expected) < room * size
    record = net.forward(X, return_all=True)
    for number, alpha in enumerate(net.alphas):
        z = record.z[number]
        a = z + alpha * (np.tanh(z) - z)
        np.testing.assert_allclose(record.a[number], a, rtol=0, atol=room)
        hidden = passes.predict_layer(net, native, number + 1)
        np.testing.assert_allclose(hidden, record.a[number], rtol=0, atol=room)
        sums = passes.predict_layer(net, native, number + 1, linear=True)
        np.testing.assert_allclose(sums, z, rtol=0, atol=room)


def test_extreme_sums(core, dtype):
    """Overflow is the caller's to find; no other row or unit is touched by it."""
    net = network(None, (2, 19, 2), dtype, "relu", loss="squared_error")
    X = np.ones((20, 2), dtype)
    expected = net.predict(X)
    X[7] = np.finfo(dtype).max / 4
    with np.errstate(all="ignore"):
        came = net.predict(X)
    keep = np.arange(20) != 7
    check_same(core, came[keep], expected[keep])


# In a network ------------------------------------------------------------------------------------


def test_alphas_learn(engine):
    X, y = waves(60)
    net = Network([3, 9, 1], "silu", seed=0, parametric_activation=True)
    net.fit(X, y, epochs=3, solver="adam", rate_factors={"alphas": 0.0})
    assert (net.alphas[0] == 1).all()
    net.fit(X, y, epochs=3, solver="adam", weight_decay=0.1)
    moved = net.alphas[0].copy()
    assert (moved != 1).all()
    net.fit(X, y, epochs=3, solver="adam", weight_decay=0.5, decay_factors={"alphas": 2.0})
    assert np.abs(net.alphas[0]).mean() < np.abs(moved).mean()


def test_a_loss_of_ones_own(engine):
    X, y = waves(40)
    nets = [
        Network([3, 9, 1], "tanh", dtype="float64", seed=0, parametric_activation=True, loss=loss)
        for loss in ("squared_error", squared_error)
    ]
    for net in nets:
        net.fit(X, y, epochs=2, batch_size=11, dropout=0.2)
    np.testing.assert_allclose(nets[0].params, nets[1].params, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_files(engine, kind, tmp_path):
    net = network(kind)
    X, y = rows_of(net, 40)
    net.fit(X, y, epochs=2, solver="adam")
    net.save(tmp_path / "net.cmlp", optimizer=True)
    for other in (
        cmlp.load(tmp_path / "net.cmlp"), copy.deepcopy(net), pickle.loads(pickle.dumps(net)),
        net.astype("float32"),
    ):  # fmt: skip
        assert other.parametric_activation
        np.testing.assert_array_equal(other.predict(X), net.predict(X))
        for mine, theirs in zip(net.alphas, other.alphas, strict=True):
            np.testing.assert_array_equal(mine, theirs)
            assert not np.shares_memory(mine, theirs)
    loaded = cmlp.load(tmp_path / "net.cmlp")
    for each in (net, loaded):
        each.fit(X, y, epochs=2, solver="adam")
    np.testing.assert_array_equal(net.params, loaded.params)


def test_files_without_alphas_do_not_mention_them(tmp_path):
    Network([3, 4, 2], seed=0).save(tmp_path / "net.cmlp")
    assert b"alpha" not in (data := (tmp_path / "net.cmlp").read_bytes())
    assert b"parametric" not in data
    assert not cmlp.load(tmp_path / "net.cmlp").parametric_activation


def test_a_file_without_its_alphas_is_refused(tmp_path):
    Network([3, 4, 2], seed=0, parametric_activation=True).save(tmp_path / "net.cmlp")
    data = (tmp_path / "net.cmlp").read_bytes()
    (tmp_path / "net.cmlp").write_bytes(data.replace(b"layers.0.alpha", b"layers.0.alphb"))
    with refused(cmlp.ModelFileError, "layers.0.alph"):
        cmlp.load(tmp_path / "net.cmlp")


def test_what_it_is():
    net = Network([3, 4, 5, 2], seed=0, parametric_activation=True)
    assert [alpha.shape for alpha in net.alphas] == [(4,), (5,)]
    assert net.n_params == Network([3, 4, 5, 2]).n_params + 9
    assert "parametric_activation=True" in repr(net) and "alpha per unit" in net.summary()
    net.alphas[0] = 0.5
    assert (net.alphas[0] == 0.5).all() and np.shares_memory(net.alphas[0], net.params)
    plain = Network([3, 4, 5, 2], seed=0)
    assert plain.alphas == [] and not plain.parametric_activation
    n = len(plain.params)
    np.testing.assert_array_equal(net.params[:n], plain.params)  # alphas are the last
    with pytest.raises(AttributeError, match="cannot be assigned"):
        net.parametric_activation = False
    with refused(ValueError, "parametric_activation needs a hidden layer"):
        Network([3, 2], parametric_activation=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace(engine, kind):
    net = network(kind, dtype="float64")
    X, y = rows_of(net, 7)
    trace = net.trace_step(X, y, learning_rate=0.1)
    layer, text = trace.layers[1], str(trace)
    y_of = layer.z if kind is None else layer.normalization.y
    formed = y_of + layer.parametric.alpha * (np.tanh(y_of) - y_of)
    np.testing.assert_allclose(layer.a, formed, rtol=1e-12, atol=1e-14)
    after = layer.parametric.alpha - 0.1 * layer.parametric.dalpha
    np.testing.assert_allclose(layer.parametric.new_alpha, after, rtol=1e-12)
    np.testing.assert_array_equal(net.alphas[1], layer.parametric.new_alpha)
    assert trace.layers[2].parametric is None
    for part in ("a = z + alpha (tanh(z) - z)", "dC/dalpha", "new alpha"):
        assert part in text


@pytest.mark.parametrize("wrong", [10_000, -16, 2**63 - 1, 0])
@pytest.mark.parametrize("layer", [0, 1])
def test_plans_that_are_refused(compiled, wrong, layer):
    net = network(None, (3, 4, 5, 2))
    net.plan[layer, layout.ALPHA] = wrong
    with pytest.raises(ValueError, match=r"layer \d of the plan"):
        compiled.predict(net.plan, net.params, np.zeros((1, 3), np.float32), None,
                         np.zeros((1, 2), np.float32),
                         np.zeros(10**5, np.float32))  # fmt: skip
    last = network(None, (3, 4, 5, 2))
    last.plan[2, layout.ALPHA] = last.plan[0, layout.ALPHA]
    with pytest.raises(ValueError, match="layer 2 of the plan"):
        compiled.update(last.plan, last.params, last.params.copy(),
                        np.zeros((1, len(last.params)), np.float32), seam.Optimizer(), 0,
                        0.1)  # fmt: skip
