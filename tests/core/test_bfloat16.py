"""Products of operands rounded to bfloat16: the rounding, the order of the sums, bounds, threads.

Both twins are held to float64 with the same operands, and with exact ones; the compiled cores also
to the order of vdpbf16ps: of two neighbours along the depth the odd one first, then the even one.
ARM's bfmmla has another order, and is held to float64.
"""

import itertools
import platform

import numpy as np
import pytest

import cmlp
from cmlp.core.layout import PRECISION
from cmlp.core.reference.bfloat16 import rounded
from cmlp.core.seam import Objective, SparseRows
from cmlp.core.vocabulary import ACTIVATIONS, LOSSES, NARROW_LAYER
from cmlp.model import passes
from cmlp.model.parameters import cut_record

U = 2.0**-8
EPS = 2.0**-24
EMULATED = "bfloat16-emulated"
ARM = platform.machine() in ("aarch64", "arm64")


def network(sizes, activation="identity", precision=EMULATED, **more):
    if len(sizes) == 2:
        more = {"loss": "squared_error", "out_activation": "identity"} | more
    return cmlp.Network(sizes, activation, precision=precision, seed=0, **more)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def wide(x):
    return np.asarray(x, np.float64)


def nearest(x):
    """Return the nearest numbers of 8 bits, half to even, by another way than the twins."""
    fraction, exponent = np.frexp(wide(x))
    found = np.ldexp(np.rint(fraction * 256) / 256, exponent)
    found = np.where(np.abs(x) < 2.0**-126, 0, found)
    return np.where(np.abs(found) >= 2.0**128, np.copysign(np.inf, x), found)


def patterns():
    """Numbers of every first half, with second halves around the middle, and NaN."""
    high, low = np.arange(0, 2**16, 3, np.uint32) << 16, np.array([0, 1, 0x7FFF, 0x8000, 0x8001])
    return (high[:, None] | low.astype(np.uint32)).ravel().view(np.float32)


def test_numbers_are_rounded_to_the_nearest(core):
    """Through a layer whose weights, or inputs, are 1."""
    x = patterns()
    with np.errstate(all="ignore"):
        expected = nearest(x).astype(np.float32)
    np.testing.assert_array_equal(rounded(x), expected)
    net = network([1, 17])
    net.weights[0][...] = 1
    out = net.predictor(len(x))(x[:, None])
    np.testing.assert_array_equal(out, np.repeat(expected[:, None], 17, axis=1))
    net = network([1, len(x)])
    net.weights[0][...] = x
    for n in (1, 2):
        out = net.predictor(n)(np.ones((n, 1), np.float32))
        np.testing.assert_array_equal(out, np.repeat(expected[None], n, axis=0))


PRECISIONS = [EMULATED, "bfloat16"] if ARM else [EMULATED]
SHAPES = [
    (1, 1, 17), (2, 5, 20), (13, 64, 33), (130, 257, 100), (3, 4100, 48), (37, 2051, 257),
    (3, 9, 2100),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_three_products(core, shape, precision):
    if precision == "bfloat16" and not core.bfloat16:
        pytest.skip("no FEAT_BF16 here")
    n, n_in, n_out = shape
    net, X, y = (
        network([n_in, n_out], precision=precision),
        normal(n, n_in),
        normal(n, n_out, seed=1),
    )
    W = net.weights[0]
    net.biases[0][...] = normal(n_out, seed=2)
    out, found = net.predict(X), net.gradients(X, y)
    delta = (out - y) * np.float32(1 / n)
    check(out, X, W, net.biases[0])
    check(found.weights[0], X.T, delta)
    check(found.inputs, delta, W.T)
    sums, sizes = rounded(delta), np.abs(rounded(delta))
    bound = (n + 8) * EPS * wide(sizes).sum(axis=0)  # delta here may differ by a last bit
    bound += 2 * U * np.abs(wide(delta)).sum(axis=0) * 4 * EPS / U
    assert (np.abs(found.biases[0] - wide(sums).sum(axis=0)) <= bound + U * sizes.max(axis=0)).all()


def check(found, A, B, bias=0.0):
    """Compare a product with that of rounded operands, and with the exact one.

    ARM rounds by up to 2 EPS: the sum of a pair's products, and a sum for every pair of them.
    """
    k, A, B = A.shape[1], np.ascontiguousarray(A), np.ascontiguousarray(B)
    k += k % 2 if ARM else 0
    exact = wide(A) @ wide(B) + bias
    sizes = np.abs(wide(A)) @ np.abs(wide(B)) + np.abs(bias)
    same = wide(rounded(A)) @ wide(rounded(B)) + bias
    assert (np.abs(found - same) <= 1.01 * (k + 2) * EPS * sizes + 1e-30).all()
    assert (np.abs(found - exact) <= (2 * U + U * U + (k + 2) * EPS) * sizes).all()
    if k >= 32 and exact.size >= 500:  # an operand that is cut off, or not rounded, is outside
        typical = np.sqrt((wide(A) ** 2) @ (wide(B) ** 2))
        ratio = np.sqrt(np.mean(((found - exact) / typical) ** 2)) / U
        assert 0.45 < ratio < 0.75


@pytest.mark.parametrize("shape", [(1, 7, 18), (5, 64, 40), (9, 2051, 17)], ids=str)
def test_the_order_of_the_sums(compiled, shape):
    """The bits of the processor's instruction, in whatever tile, and for one row as for many."""
    n, n_in, n_out = shape
    net, X = network([n_in, n_out]), normal(n, n_in)
    net.biases[0][...] = normal(n_out, seed=2)
    a, W = rounded(X), rounded(net.weights[0])
    if n_in % 2:
        a, W = np.pad(a, ((0, 0), (0, 1))), np.pad(W, ((0, 1), (0, 0)))
    sums = np.repeat(net.biases[0][None], n, axis=0)
    for even in range(0, len(W), 2):
        for k in (even + 1, even):
            sums = sums + a[:, k, None] * W[k]
    np.testing.assert_array_equal(net.predict(X), sums)
    np.testing.assert_array_equal(net.predictor()(X[-1]), sums[-1])
    np.testing.assert_array_equal(net.predictor(n)(X), sums)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of that processor")
def test_tiny_numbers_are_zero(compiled):
    """Also sums: the instruction flushes what it reads and what it writes."""
    net = network([2, 20])
    net.weights[0][...] = 2.0**-100
    net.biases[0][...] = 2.0**-127
    X = np.array([[2.0**-27, 0], [2.0**-100, 2.0**-100], [1, 0]], np.float32)
    np.testing.assert_array_equal(net.predict(X)[:, 0], [0, 0, 2.0**-100])


FUNCTIONS = [row.name for row in ACTIVATIONS if not row.output_only]


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_every_layer(core, activation):
    """Sums, deltas and gradients of each layer, from what the core has computed before it."""
    options = {
        "relu": {"normalization": "batch"}, "tanh": {"normalization": "layer"},
        "elu": {"parametric_activation": True},
    }.get(activation, {})  # fmt: skip
    net = network([21, 33, 40, 10], activation, **options)
    X, y = normal(19, 21), np.arange(19) % 10
    net.weights[0][...] *= 0.5
    net.weights[1][...] *= 0.5
    data = net.encode_rows(X, y)
    found = passes.backpropagate(net, data, net.architecture.objective(), deltas=True, inputs=True)
    grads = net.gradients(X, y)
    assert grads.loss == found.loss and (net.plan[:, PRECISION] > 0).tolist() == [True, True, False]
    if options:
        return  # the sums are not those of the products
    z, a = passes.forward(net, data.X)
    deltas = cut_record(net.plan, found.deltas)
    befores = [X, *a[:-1]]
    for layer, before in enumerate(befores):
        W, b, delta = net.weights[layer], net.biases[layer], deltas[layer]
        if layer < 2:
            before, W, delta = rounded(before), rounded(W), rounded(delta)
        close(z[layer], wide(before) @ wide(W) + b, np.abs(wide(before)) @ np.abs(W) + np.abs(b))
        close(grads.weights[layer], wide(before).T @ delta, np.abs(wide(before).T) @ np.abs(delta))
        close(grads.biases[layer], wide(delta).sum(axis=0), np.abs(wide(delta)).sum(axis=0))
        if layer == 0:
            close(grads.inputs, wide(delta) @ W.T, np.abs(wide(delta)) @ np.abs(W.T))


def close(found, expected, sizes):
    assert (np.abs(found - expected) <= 64 * EPS * sizes + 1e-30).all()


@pytest.mark.parametrize("options", [
    {}, {"normalization": "batch"}, {"normalization": "layer"}, {"parametric_activation": True},
    {"inputs": cmlp.Inputs(periodic=[1, 2], levels={0: (5, 3)}, summed={3: 4}, scaled=True)},
], ids=str)  # fmt: skip
def test_steps_of_both_twins(options):
    """Whole nets: a last bit tips a rounding now and then, so weights agree as bfloat16 does."""
    X, y = normal(70, 9), np.arange(70) % 20
    X[:, 0], X[:, 3] = np.arange(70) % 5, np.arange(70) % 4
    moves = {}
    for name in (*dict.fromkeys((cmlp.core_info().core, "python")), "float32"):
        with cmlp.use_core("auto" if name == "float32" else name):
            net = network([9, 50, 70, 20], "silu", **options)
            if name == "float32":
                net.precision = None
            before = net.params.copy()
            net.fit(
                X, y, epochs=3, batch_size=32, dropout=0.1, input_noise=0.01, l2=1e-3, patience=9
            )
            moves[name] = wide(net.params - before)
    twin = moves["python"]
    size = np.linalg.norm(twin)
    assert np.linalg.norm(moves[cmlp.core_info().core] - twin) < 2e-3 * size
    assert 2e-4 * size < np.linalg.norm(moves["float32"] - twin) < 2e-2 * size


@pytest.mark.parametrize("more", [
    {"batch_size": 1}, {"batch_size": 3}, {"batch_size": None}, {"clip_norm": 0.5},
    {"solver": "adam", "weight_decay": 0.01}, {"ema": 0.9},
], ids=str)  # fmt: skip
def test_steps_are_those_of_the_gradient(core, more):
    """Fused or not, of one row, or of more rows than a pass has."""
    n = 1100 if more.get("batch_size", 0) is None else 12
    X, y = normal(n, 12), normal(n, 20, seed=1)
    net = network([12, 40, 20], "tanh", loss="squared_error")
    other = cmlp.Network([12, 40, 20], "tanh", loss="squared_error", seed=0)
    found, size = net.gradients(X, y), net.params.size
    plain = other.gradients(X, y)
    for mine, theirs in zip(found.weights, plain.weights, strict=True):
        assert 1e-4 < np.linalg.norm(mine - theirs) / np.linalg.norm(theirs) < 2e-2
    if more == {"batch_size": None}:
        before = [W.copy() for W in net.weights]
        net.fit(X, y, epochs=1, momentum=0, learning_rate=0.5, shuffle=False, **more)
        for W, old, dW in zip(net.weights, before, found.weights, strict=True):
            np.testing.assert_allclose(W, old - np.float32(0.5) * dW, atol=1e-6)
        return
    losses = net.fit(X, y, epochs=4, learning_rate=0.001, **more)["loss"]
    expected = other.fit(X, y, epochs=4, learning_rate=0.001, **more)["loss"]
    np.testing.assert_allclose(losses, expected, rtol=5e-3)
    assert losses[-1] < losses[0] and net.params.size == size


def test_threads_compute_the_same_bits(compiled, threads_at_any_size):
    X, y = normal(150, 70), np.arange(150) % 10
    results = []
    for n_threads in (1, 2, 3):
        net = network([70, 150, 90, 10], "gelu")
        net.fit(X, y, epochs=2, batch_size=64, n_threads=n_threads)
        results.append(net.params.copy())
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("n", [1, 2, 7, 13, 61])
def test_odd_sizes(core, n):
    """As many inputs and outputs as make the last tile, vector and pair of every length."""
    for n_in, n_out in itertools.product((1, 3, 17, 31, 34, 69), (17, 19, 31, 33, 47, 65, 70)):
        net, X = network([n_in, n_out]), normal(n, n_in)
        net.biases[0][...] = normal(n_out, seed=1)
        a, W, b = wide(rounded(X)), wide(rounded(net.weights[0])), net.biases[0]
        bound = (n_in + 3) * EPS * (np.abs(a) @ np.abs(W) + np.abs(b))
        for out in (net.predict(X), net.predictor(n)(X)):
            assert (np.abs(out - (a @ W + b)) <= bound).all()
        assert (np.abs(net.predictor()(X[-1]) - (a[-1] @ W + b)) <= bound[-1]).all()
    assert net.predict(X[:0]).shape == net.predictor(n)(X[:0]).shape == (0, 70)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38, 1e-40, -1e-45])
def test_extreme_numbers(core, value):
    """In one row of X: that row is what IEEE arithmetic makes of it; no other row knows of it."""
    net, X = network([20, 40, 30, 17], "relu"), normal(7, 20)
    before = net.predict(X)
    X[3, 5] = value
    out = net.predictor(7)(X)
    others = np.arange(7) != 3
    np.testing.assert_array_equal(out[others], before[others])
    assert np.isfinite(out[3]).all() == bool(abs(value) < 1)
    if abs(value) < 1:
        X[3, 5] = 0
        np.testing.assert_array_equal(out, net.predictor(7)(X))


def test_kinds_of_rows(core):
    """Sparse, one-hot and float64 rows are rounded as the same rows in float32 are."""
    X = np.where(normal(90, 24) > 0.8, normal(90, 24, seed=1), 0)
    X[:, 12:] = np.eye(12)[np.arange(90) % 12]
    places = np.nonzero(X)
    indptr = np.concatenate([[0], np.cumsum((X != 0).sum(axis=1))])
    kinds = [X, X.astype(np.float64), SparseRows(X[places], places[1].copy(), indptr, 24)]
    nets = [network([24, 40, 20], "relu") for _ in kinds]
    for net, rows in zip(nets, kinds, strict=True):
        net.fit(rows, np.arange(90) % 20, epochs=2, dropout=0.2)
        np.testing.assert_array_equal(net.params, nets[0].params)
        np.testing.assert_array_equal(net.predict(rows), nets[0].predict(X))


@pytest.mark.parametrize("row", LOSSES, ids=lambda row: row.name)
def test_every_loss(core, row):
    n_out = NARROW_LAYER + 4
    y = np.abs(normal(30, n_out, seed=1))
    if row.classifies:
        y = np.eye(n_out, dtype=np.float32)[np.arange(30) % n_out]
    net = network([6, 40, n_out], "relu", loss=row.name)
    other = cmlp.Network([6, 40, n_out], "relu", loss=row.name, seed=0)
    X = normal(30, 6)
    loss, plain = net.loss(X, y), other.loss(X, y)
    assert 0 < abs(loss - plain) < 1e-2 * plain
    history = net.fit(X, y, epochs=3, learning_rate=0.003)
    assert history["loss"][-1] < history["loss"][0]


def test_narrow_layers_stay_float32(core):
    """Bit by bit what they are without a precision."""
    X, y = normal(40, 30), np.arange(40) % 10
    nets = [cmlp.Network([30, 16, 10], seed=0, precision=p) for p in (None, EMULATED)]
    for net in nets:
        net.fit(X, y, epochs=2)
    np.testing.assert_array_equal(nets[0].params, nets[1].params)


def test_plans_that_cannot_run(compiled):
    net = network([4, 20])
    out, work = np.empty((1, 20), np.float32), np.zeros(10_000, np.float32)
    X = np.ones((1, 4), np.float32)
    plan = net.plan.copy()
    for code in (3, -1):
        plan[0, PRECISION] = code
        with pytest.raises(ValueError, match="layer 0 of the plan"):
            compiled.predict(plan, net.params, X, None, out, work)
    plan[0, PRECISION] = 1
    if not compiled.bfloat16:
        with pytest.raises(ValueError, match="bfloat16-emulated"):
            compiled.predict(plan, net.params, X, None, out, work)
    wide_net = cmlp.Network([4, 20], loss="squared_error", dtype="float64")
    plan = wide_net.plan.copy()
    plan[0, PRECISION] = 2
    with pytest.raises(ValueError, match="layer 0 of the plan"):
        compiled.gradient(
            plan, wide_net.params, X, np.ones((1, 20)), None, None, Objective(0), passes.PLAIN, 0,
            np.zeros_like(wide_net.params), np.empty((0, 0)), np.empty((0, 0)), np.zeros(10_000),
        )  # fmt: skip


@pytest.mark.skipif(ARM, reason="bfmmla rounds sums to odd")
def test_the_instructions_give_the_bits_of_the_emulation(compiled):
    """Where the processor has them; elsewhere tools/bfloat16_words.c in an emulator does."""
    if not compiled.bfloat16:
        pytest.skip("no AVX512_BF16 here")
    X, y = normal(150, 71), np.arange(150) % 20
    results = []
    for precision in ("bfloat16", EMULATED):
        net = cmlp.Network([71, 153, 90, 20], "gelu", precision=precision, seed=0)
        net.fit(X, y, epochs=2, batch_size=63)
        found = net.gradients(X, y)
        results.append([net.params.copy(), net.predict(X), net.predictor()(X[0]), found.inputs])
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)
