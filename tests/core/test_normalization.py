"""Normalised hidden layers: twins, finite differences, PyTorch, folded weights."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cores import CORES, ENGINES
from helpers import DTYPES, alternating, blobs, covering, refused, squared_error, waves
from oracle import HIDDEN, QUIET, SOLVERS, check_same

import cmlp
from cmlp import Network
from cmlp.core import reference, seam, vocabulary
from cmlp.core.reference.forward import propagate
from cmlp.model import passes
from cmlp.model.parameters import Parameters, cut_record, new_record

KINDS = ("batch", "layer")
SIZES = {
    "small": (5, 7, 3),
    "one unit": (3, 1, 1, 2),
    "odd": (9, 33, 17, 4),
    "wide": (70, 130, 97, 5),
}
OPTIMIZERS = {
    "momentum": seam.Optimizer(momentum=0.9),
    "adam": seam.Optimizer(SOLVERS["adam"].code, weight_decay=0.1),
    "lion": seam.Optimizer(SOLVERS["lion"].code),
    "clipped": seam.Optimizer(SOLVERS["adam"].code, clip_norm=0.05),
    "averaged": seam.Optimizer(momentum=0.5, ema=0.9),
}


def parts_of(net, flat):
    return Parameters(net.plan, flat).parts()


def network(kind, sizes=(5, 17, 9, 3), dtype="float32", activation="tanh", **options):
    """One whose gammas, betas and running statistics are not those of a beginning."""
    net = Network(sizes, activation, dtype=dtype, seed=0, normalization=kind, **options)
    rng = np.random.default_rng(1)
    for gamma, beta in zip(net.scales, net.biases, strict=False):
        gamma[...] = rng.uniform(0.5, 1.5, gamma.shape)
        beta[...] = rng.uniform(-0.5, 0.5, beta.shape)
    for mean, variance in net.running:
        mean[...] = rng.uniform(-0.5, 0.5, mean.shape)
        variance[...] = rng.uniform(0.5, 1.5, variance.shape)
    return net


def rows_of(net, n, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, net.sizes[0])).astype(np.float32) + 0.5
    return X, rng.integers(0, net.sizes[-1], n)


def padding(net, flat):
    """The numbers between the rows, which mean nothing and have to be zero."""
    used = np.zeros(len(flat), bool)
    for part in parts_of(net, used).values():
        part[...] = True
    return flat[~used]


def objective_of(net, **options):
    return seam.Objective(net.loss_row.code, **options)


def growth(net, X, noise):
    """What the normalisation multiplies roundings by: the largest 1 / deviation."""
    kept = []
    propagate(net.plan, net.params, X, noise, 3, kept=kept)
    return max(float(part[1].max()) for part in kept if part)


def near(came, expected, length, what):
    """The twins sum in another order: a rounding per number."""
    eps = float(np.finfo(came.dtype).eps) if came.dtype == np.float32 else 4e-16
    size = max(1.0, float(np.abs(expected).max(initial=0)))
    room = 100 * eps * np.sqrt(length) * size
    np.testing.assert_allclose(came, expected, rtol=0, atol=room, err_msg=what)


def gradient_of(core, net, X, y, noise=QUIET, weights=None):
    grads, deltas = np.full_like(net.params, np.nan), new_record(net.plan, len(X), net.dtype)
    grads[:] = np.where(np.isin(np.arange(len(grads)), used(net)), np.nan, 0)
    dX = np.full((len(X), net.sizes[0]), np.nan, net.dtype)
    workspace = np.full(core.workspace_size(net.plan, len(X)), np.nan, net.dtype)
    params = net.params.copy()
    loss = core.gradient(
        net.plan, net.params, X, y, weights, None, objective_of(net, l1=1e-3, l2=1e-2), noise, 3,
        grads, deltas, dX, workspace,
    )  # fmt: skip
    np.testing.assert_array_equal(net.params, params)  # also the running statistics
    return loss, grads, deltas, dX


def used(net):
    mask = np.zeros(len(net.params), bool)
    for part in parts_of(net, mask).values():
        part[...] = True
    return np.flatnonzero(mask)


# The twins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "core, dtype, case",
    alternating(
        CORES,
        [
            *covering(KINDS, list(SIZES)[:3], [1, 2, 13, 64, 1024, 1025, 2500], [False, True]),
            *covering(KINDS, ["wide"], [1, 2, 13, 64], [False, True]),
        ],
    ),
    indirect=["core", "dtype"],
)
def test_gradients_of_both_twins(core, dtype, case):
    kind, sizes, n, noisy = case
    net = network(kind, SIZES[sizes], dtype)
    X, y = rows_of(net, n)
    weights = np.random.default_rng(2).integers(1, 4, n) / 2
    rates = np.full(len(net.plan) - 1, 0.3)
    noise = seam.Noise(7, 0.1, rates) if noisy else QUIET
    loss, *came = gradient_of(core, net, X, y, noise, weights)
    wide = net.astype("float64")
    expected_loss, *expected = gradient_of(reference, wide, X, y, noise, weights)
    length = (n + max(net.sizes)) * max(1, growth(wide, X.astype(np.float64), noise)) ** 2
    assert loss == pytest.approx(expected_loss, rel=300 * float(np.finfo(dtype).eps))
    mine, theirs = parts_of(net, came[0]), parts_of(wide, expected[0])
    for name, part in mine.items():
        near(part, theirs[name], length, name)
    near(came[2], expected[2], length, "dX")
    cut = zip(cut_record(net.plan, came[1]), cut_record(wide.plan, expected[1]), strict=True)
    for number, (delta, other) in enumerate(cut):
        near(delta, other, length, f"delta {number}")
    assert not padding(net, came[0]).any()


@pytest.mark.parametrize(
    "engine, kind, activation",
    covering(ENGINES, KINDS, [name for name in HIDDEN if name != "exp"]),
    indirect=["engine"],
)
def test_central_differences(engine, kind, activation):
    net = network(kind, (3, 5, 4, 2), "float64", activation)
    X, y = rows_of(net, 19)
    assert net.check_gradients(X, y, l1=1e-3, l2=1e-2, entries=4)


@pytest.mark.parametrize("kind", KINDS)
def test_central_differences_of_several_passes(engine, kind):
    net = network(kind, (3, 4, 2), "float64")
    assert net.check_gradients(*rows_of(net, 1030), entries=4)


def test_wrong_gammas_are_found(monkeypatch):
    net = network("layer")
    exact = passes.backpropagate

    def wrong(net, *arguments, **options):
        found = exact(net, *arguments, **options)
        Parameters(net.plan, found.gradient).scales[1][2] *= 1.5
        return found

    monkeypatch.setattr(passes, "backpropagate", wrong)
    check = net.check_gradients(*rows_of(net, 10))
    assert not check and check.worst.entry == "gamma[2]"


def epoch(core, net, X, y, batch_size, optimizer, n_threads=1, noise=QUIET):
    """Call ``core.train_epoch`` with arrays amid marks; returns params, state and its result."""
    rows = np.random.default_rng(5).permutation(len(X))
    n_moments = next(r.n_moments for r in vocabulary.SOLVERS if r.code == optimizer.solver)
    params = net.params.copy()
    state = np.zeros((n_moments + (optimizer.ema > 0), len(params)), net.dtype)
    size = core.workspace_size(net.plan, batch_size, n_threads)
    big = np.full(size + 256, 123, net.dtype)
    big[128:-128] = np.nan
    rates, team = np.full(-(-len(X) // batch_size), 0.01), np.zeros(16, np.int64)

    grads = np.zeros_like(params)

    def run(rank):
        return core.train_epoch(
            net.plan, params, state, X, y, None, rows, batch_size, rates, 0,
            objective_of(net, l2=0.01), optimizer, noise, grads, big[128:-128], rank, n_threads,
            team if n_threads > 1 else None,
        )  # fmt: skip

    with ThreadPoolExecutor(n_threads) as pool:
        results = list(pool.map(run, range(n_threads)))
    assert (big[:128] == 123).all() and (big[-128:] == 123).all()
    assert not padding(net, params).any() and not any(padding(net, row).any() for row in state)
    return params, state, results[0]


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
    params, _, (total, steps) = epoch(core, net, X, y, batch_size, OPTIMIZERS[name])
    wide = net.astype("float64")
    others = epoch(reference, wide, X, y, batch_size, OPTIMIZERS[name])
    assert steps == others[2][1] == -(-40 // batch_size)
    room = {"lion": 0.05, "adam": 1e-2, "clipped": 1e-2}.get(name, 2e-4)
    room = room if dtype == np.float32 else 1e-8 * room / 2e-4
    assert total == pytest.approx(others[2][0], rel=room)
    mine, theirs = parts_of(net, params), parts_of(wide, others[0])
    for key, part in mine.items():
        np.testing.assert_allclose(part, theirs[key], rtol=0, atol=room, err_msg=key)


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


# What it means -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 30, 1030])
def test_running_statistics(core, dtype, n):
    """A tenth of each batch's; variance with n - 1; each 1,024 rows of a batch for themselves."""
    net = Network([5, 17, 3], "tanh", dtype=dtype, seed=0, normalization="batch")
    X, y = rows_of(net, n)
    z = X.astype(float) @ net.weights[0].astype(float)
    mean, variance = np.zeros(17), np.ones(17)
    for part in (z[:1024], z[1024:]):
        if len(part):
            mean = 0.9 * mean + 0.1 * part.mean(axis=0)
            variance = 0.9 * variance + 0.1 * part.var(axis=0, ddof=1)
    net.step(X, y)
    ((came_mean, came_variance),) = net.running
    room = 100 * float(np.finfo(dtype).eps) * np.sqrt(n)
    np.testing.assert_allclose(came_mean, mean, rtol=0, atol=room)
    np.testing.assert_allclose(came_variance, variance, rtol=room)


def test_a_last_batch_of_one_row_leaves_the_statistics_alone(core):
    X, y = rows_of(network("batch"), 9)
    nets = network("batch"), network("batch")
    nets[0].fit(X[:8], y[:8], epochs=1, batch_size=8, shuffle=False)
    nets[1].fit(X, y, epochs=1, batch_size=8, shuffle=False)
    for mine, theirs in zip(nets[0].running, nets[1].running, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (nets[0].biases[1] != nets[1].biases[1]).any()
    assert (nets[0].scales[1] == nets[0].scales[1]).all() and np.isfinite(nets[1].params).all()


def by_hand(net, X):
    """Outputs in float64, layer by layer; the running statistics, or the row's own."""
    a = X.astype(np.float64) * net.input_scale
    wide = net.astype("float64")
    for number, (W, b) in enumerate(zip(wide.weights, wide.biases, strict=True)):
        z = a @ W
        if number == len(wide.weights) - 1:
            return z + b
        if net.normalization == "batch":
            mean, variance = wide.running[number]
        else:
            mean, variance = z.mean(axis=1, keepdims=True), z.var(axis=1, keepdims=True)
        a = np.tanh(wide.scales[number] * (z - mean) / np.sqrt(variance + 1e-5) + b)
    raise AssertionError("a network has an output layer")


@pytest.mark.parametrize("n", [1, 2, 50, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_prediction(core, dtype, kind, n):
    net = network(kind, (5, 17, 33, 2), dtype, loss="squared_error", input_scale=0.5)
    X, _ = rows_of(net, n)
    expected = by_hand(net, X)
    room = 300 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(net.predict(X), expected, rtol=0, atol=room)
    for came in (
        net.predict(np.asfortranarray(X).tolist()), net.predictor(n)(X), net.folded().predict(X),
        net.forward(X, return_all=True).a[-1],
    ):  # fmt: skip
        np.testing.assert_allclose(came, expected, rtol=0, atol=room)
    np.testing.assert_allclose(net.predictor()(X[0]), expected[0], rtol=0, atol=room)
    record = net.forward(X, return_all=True)
    np.testing.assert_allclose(np.tanh(record.z[0]), record.a[0], rtol=0, atol=room)
    assert net.loss(X, expected) < room


def test_predictions_see_every_step(core):
    net = network("batch")
    X, y = rows_of(net, 40)
    before = net.predict(X[:1]).copy()
    net.fit(X, y, epochs=1)
    assert (net.predict(X[:1]) != before).any()


def test_a_folded_network_is_plain(core, tmp_path):
    net = network("batch")
    X, y = rows_of(net, 40)
    net.fit(X, y, epochs=2, solver="adam")
    plain = net.folded()
    assert plain.normalization is None and plain.running == [] and plain.scales == []
    assert plain.n_params == net.n_params - 26 and plain.solver == ""
    assert net.normalization == "batch", "a copy"
    assert plain.score(X, y) == net.score(X, y)
    plain.fit(X, y, epochs=1, batch_size=1)
    assert plain.steps == 40 and str(plain.trace_step(X[:2], y[:2]))
    plain.save(tmp_path / "plain.cmlp")
    check_same(core, cmlp.load(tmp_path / "plain.cmlp").predict(X), plain.predict(X))
    layers = network("layer").folded()
    assert layers.normalization == "layer"


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_of_ones_own_sees_the_outputs_of_training(engine, kind):
    X, y = waves(1100, 5, 3)
    nets = [
        network(kind, (5, 17, 3), "float64", loss=loss) for loss in ("squared_error", squared_error)
    ]
    for net in nets:
        net.fit(X, y, epochs=2, batch_size=None, shuffle=False, learning_rate=0.1)
        net.fit(X, y, epochs=1, batch_size=50, shuffle=False, learning_rate=0.1)
    np.testing.assert_allclose(nets[0].params, nets[1].params, rtol=0, atol=1e-10)
    assert nets[1].check_gradients(X[:9], y[:9], entries=20)
    if kind == "batch":
        assert nets[1].loss(X, y) == pytest.approx(nets[0].loss(X, y), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_penalties_leave_gamma_and_beta_alone(core, kind):
    net = network(kind)
    X, y = rows_of(net, 20)
    plain, strong = net.gradients(X, y), net.gradients(X, y, l1=0.5, l2=3.0)
    for mine, theirs in zip(plain.scales, strong.scales, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(plain.biases, strong.biases, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (plain.weights[0] != strong.weights[0]).any() and len(plain.scales) == 2
    before = [gamma.copy() for gamma in net.scales]
    net.step(X, y, learning_rate=0.0, weight_decay=0.5)
    for gamma, kept in zip(net.scales, before, strict=True):
        np.testing.assert_array_equal(gamma, kept)


def test_clipping_measures_gammas_too(core, dtype):
    """The first moment of Adam is a tenth of the gradient, which has the norm that it may have."""
    net = network("layer", dtype=dtype)
    X, y = rows_of(net, 20)
    net.step(X, y, solver="adam", clip_norm=1e-3)
    norm = np.linalg.norm(net.moments[0].astype(np.float64)) * 10
    assert norm == pytest.approx(1e-3, rel=1e-4)


def test_deep_networks_learn_with_it(engine):
    """Many layers of logistic units do not learn without."""
    X, y = blobs(120, 4, 3)
    scores = {}
    for normalization in (None, *KINDS):
        net = Network([4, *[12] * 6, 3], "logistic", seed=0, normalization=normalization)
        net.fit(X, y, epochs=40, batch_size=20, solver="adam", learning_rate=0.003)
        scores[normalization] = net.score(X, y)
    assert min(scores["batch"], scores["layer"]) > 0.9 > scores[None]


# Files, copies, names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype, kind, ema", covering(DTYPES, KINDS, [0.0, 0.9]), indirect=["dtype"]
)
def test_a_saved_training_goes_on(core, dtype, tmp_path, kind, ema):
    net = network(kind, dtype=dtype)
    X, y = rows_of(net, 60)
    recipe = {"solver": "adam", "batch_size": 20, "ema": ema}
    net.fit(X, y, epochs=2, **recipe)
    net.save(tmp_path / "net.cmlp", optimizer=True)
    others = cmlp.load(tmp_path / "net.cmlp"), pickle.loads(pickle.dumps(net)), net.__copy__()
    net.fit(X, y, epochs=2, **recipe)
    for other in others:
        assert other.normalization == kind
        other.fit(X, y, epochs=2, **recipe)
        np.testing.assert_array_equal(other.params, net.params)
        np.testing.assert_array_equal(other.moments, net.moments)
    again = net.astype("float64").astype(dtype)
    np.testing.assert_array_equal(again.params, net.params)


def test_files_of_another_normalization_are_refused(tmp_path):
    path = tmp_path / "net.cmlp"
    network("batch").save(path)
    arrays, metadata = cmlp.formats.safetensors.read(path, lambda *_: None)
    for name in ('"layer"', "null", '"instance"', "1"):
        changed = metadata["network"].replace('"batch"', name)
        assert changed != metadata["network"]
        cmlp.formats.safetensors.write(path, arrays, metadata | {"network": changed})
        with pytest.raises(cmlp.ModelFileError):
            cmlp.load(path)


def test_what_it_says_of_itself():
    net = network("batch")
    assert "normalization='batch'" in repr(net)
    assert "normalised by batch" in net.summary()
    assert net.n_params == Network([5, 17, 9, 3]).n_params + 26
    assert len(net.running) == len(net.scales) == 2 and network("layer").running == []
    net.scales[0] = np.full(17, 2.0)
    assert (net.scales[0] == 2).all()


def test_what_is_refused(core):
    with refused(ValueError, "Unknown normalization 'bach'", "Did you mean 'batch'"):
        Network([3, 4, 2], normalization="bach")
    with refused(ValueError, "normalization needs a hidden layer"):
        Network([3, 2], normalization="layer")
    net = network("batch")
    X, y = rows_of(net, 6)
    for ask in (lambda: net.fit(X, y, batch_size=1), lambda: net.step(X[:1], y[:1])):
        with refused(ValueError, "at least 2 rows", "'layer'"):
            ask()


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_shows_what_lies_between_z_and_a(core, dtype, kind):
    """Each number is made of those above it, and the step is that of `step`."""
    net, other = network(kind, dtype=dtype), network(kind, dtype=dtype)
    X, y = rows_of(net, 12)
    kept = net.params.copy()
    net.trace_step(X, y, apply=False, solver="adam")
    np.testing.assert_array_equal(net.params, kept)
    trace = net.trace_step(X, y, solver="adam")
    other.step(X, y, solver="adam")
    room = 500 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(net.params, other.params, rtol=0, atol=50 * room)
    a, axis = X, 0 if kind == "batch" else 1
    for layer in trace.layers[:-1]:
        z = a @ layer.weights
        zhat = (z - z.mean(axis, keepdims=True)) / np.sqrt(z.var(axis, keepdims=True) + 1e-5)
        normalised = layer.normalization
        y_ = normalised.gamma * zhat + layer.biases
        for came, expected in (
            (layer.z, z), (normalised.zhat, zhat), (normalised.y, y_), (layer.a, np.tanh(y_)),
        ):  # fmt: skip
            np.testing.assert_allclose(came, expected, rtol=0, atol=room)
        a = layer.a
    first, second = trace.layers[:2]
    dy = (second.delta @ second.weights.T) * (1 - first.a**2)
    np.testing.assert_allclose(first.dbiases, dy.sum(axis=0), rtol=0, atol=room)
    dgamma = (dy * first.normalization.zhat).sum(axis=0)
    np.testing.assert_allclose(first.normalization.dgamma, dgamma, rtol=0, atol=room)
    np.testing.assert_allclose(first.dweights, X.T @ first.delta, rtol=0, atol=room)
    np.testing.assert_array_equal(first.normalization.new_gamma, net.scales[0])
    assert trace.layers[-1].normalization is None
    text = str(trace)
    places = [text.find(f"\n  {part}") for part in (
        "gamma ", "beta ", "z = a_before W ", "zhat = ", "y = gamma zhat + beta", "a = ",
        "y ", "dC/dbeta", "dC/dgamma", "delta = dC/dz", "new gamma", "new beta",
    )]  # fmt: skip
    assert -1 not in places
    assert ("1e-5), over the rows" in text) == (kind == "batch")
    assert text.count("zhat = ") == 2 and "new gamma" in trace._repr_html_()


# PyTorch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_pytorch_has_the_same_statistics(core, kind):
    """Ten steps of Adam in PyTorch: weights, gammas, running statistics, outputs in evaluation."""
    torch = pytest.importorskip("torch")
    torch.set_default_dtype(torch.float64)
    net = network(kind, dtype="float64")
    X, y = rows_of(net, 33)
    X = X.astype(np.float64)
    layers = []
    for number, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        linear = torch.nn.Linear(*W.shape, bias=number == 2)
        linear.weight.data = torch.tensor(W.T.copy())
        layers.append(linear)
        if number == 2:
            linear.bias.data = torch.tensor(b.copy())
            break
        width = W.shape[1]
        norm = torch.nn.BatchNorm1d(width) if kind == "batch" else torch.nn.LayerNorm(width)
        norm.weight.data, norm.bias.data = map(torch.tensor, (net.scales[number].copy(), b.copy()))
        if kind == "batch":
            norm.running_mean, norm.running_var = map(
                torch.tensor, (part.copy() for part in net.running[number])
            )
        layers += [norm, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers)
    rule = torch.optim.Adam(model.parameters(), 0.01, eps=1e-30)
    for _ in range(10):
        rule.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.tensor(X)), torch.tensor(y))
        loss.backward()
        rule.step()
        came = net.step(X, y, solver="adam", learning_rate=0.01, epsilon=1e-30)
        assert came == pytest.approx(float(loss.detach()), rel=1e-10)
    model.eval()
    outputs = torch.softmax(model(torch.tensor(X)), 1).detach().numpy()
    np.testing.assert_allclose(net.predict(X), outputs, rtol=0, atol=1e-10)
    for number, gamma in enumerate(net.scales):
        norm = model[3 * number + 1]
        np.testing.assert_allclose(gamma, norm.weight.detach(), rtol=0, atol=1e-10)
        if kind == "batch":
            for mine, theirs in zip(
                net.running[number], (norm.running_mean, norm.running_var), strict=True
            ):
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10)
