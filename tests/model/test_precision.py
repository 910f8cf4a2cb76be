"""Networks and estimators with a precision: what is refused, kept, assigned and documented."""

import copy
import pickle

import numpy as np
import pytest
from helpers import blobs, data_for, fit_quietly, refused, waves

import cmlp
from cmlp.core import dispatch
from cmlp.core.reference.bfloat16 import rounded
from cmlp.model import precision

EMULATED = "bfloat16-emulated"


def network(sizes=(4, 40, 3), **more):
    return cmlp.Network(list(sizes), **{"precision": EMULATED, "seed": 0} | more)


def wide(x):
    return np.asarray(x, np.float64)


def california(n=400, seed=0):
    """Rows as those of the California housing data are, raw: income, age, latitude, longitude."""
    rng = np.random.default_rng(seed)
    columns = [
        rng.lognormal(1.2, 0.5, n), rng.integers(1, 53, n), rng.uniform(32.5, 42, n),
        rng.uniform(-124.3, -114.3, n),
    ]  # fmt: skip
    X = np.stack(columns, axis=1)
    return X, np.log(X[:, 0]) + 0.1 * (X[:, 2] - 37)


def test_what_is_refused():
    with refused(ValueError, "Unknown precision 'bf16'", "bfloat16", "None"):
        network(precision="bf16")
    with refused(ValueError, "bfloat16-emulated", "float64"):
        network(dtype="float64")
    with refused(ValueError, "dtype='float64'"):
        fit_quietly(cmlp.MLPClassifier(precision=EMULATED, dtype="float64"), *blobs())
    with refused(cmlp.InvalidParameterError, "Unknown precision 16"):
        fit_quietly(cmlp.MLPRegressor(precision=16), *data_for(cmlp.MLPRegressor))


def test_a_processor_without_the_instructions(monkeypatch):
    """What is needed, and what to do; other cores refuse a network that has got so far."""
    monkeypatch.setattr(dispatch.core, "bfloat16", False)
    for make in (
        lambda: network(precision="bfloat16"),
        lambda: setattr(network(), "precision", "bfloat16"),
        lambda: cmlp.MLPClassifier(precision="bfloat16").fit(*blobs()),
    ):
        with refused(ValueError, "AVX512_BF16", dispatch.core.name, "bfloat16-emulated"):
            make()
    monkeypatch.setattr(dispatch.core, "bfloat16", True)
    net = pickle.loads(pickle.dumps(network(precision="bfloat16")))
    assert net.precision == "bfloat16"


@pytest.mark.parametrize("name", ["Latitude", None])
def test_raw_columns_are_refused(name, engine):
    """Latitudes between 32.5 and 42 are 39 numbers in bfloat16; ages are whole, and stay."""
    X, y = california()
    names = ["MedInc", "HouseAge", "Latitude", "Longitude"]
    net = network((4, 40, 1), loss="squared_error")
    if name:
        net.feature_names = names
    other = network((4, 40, 1), loss="squared_error", precision=None)
    before, trainer = other.params.copy(), net.trainer()
    for train in (
        net.fit, net.step, net.train_epoch, trainer.step, trainer.gradients, trainer.backward,
        lambda X, y: cmlp.fit_many([other, net], X, y),
    ):  # fmt: skip
        with refused(ValueError, f"column {name!r}" if name else "column 2", "Standardise"):
            train(X, y)
    assert net.history.get("loss") in (None, []) and net.steps == 0
    np.testing.assert_array_equal(other.params, before)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    assert net.fit(scaled, y, epochs=2)["loss"][-1] < net.loss(0 * scaled, y)
    with refused(ValueError, "column 2", "becomes"):
        fit_quietly(cmlp.MLPRegressor(precision=EMULATED, max_iter=2), X, y)


@pytest.mark.parametrize("column", [
    np.arange(300.0) % 257, np.ones(300) * 37.9, np.linspace(-3, 3, 300) + 4,
    np.arange(300) % 2 * 1000.0,
], ids=["whole", "constant", "near zero", "two values"])  # fmt: skip
def test_columns_that_keep_what_they_tell(column):
    X, y = waves(300)
    X[:, 1] = column
    network((3, 20, 1), loss="squared_error").fit(X, y, epochs=1, learning_rate=1e-9)


@pytest.mark.parametrize("deviation", [1e-22, 1.0, 1e22])
@pytest.mark.parametrize("mean", [0.0, 3.0, 4.5, 7.0])
def test_columns_are_screened_without_a_loss(mean, deviation):
    """No column that would be refused is left out of the closer look; squares may overflow."""
    rng = np.random.default_rng(0)
    x = ((rng.standard_normal((1000, 20)) + mean) * deviation).astype(np.float32)
    errors = (rounded(x) - x).std(axis=0, dtype=np.float64)
    lost = errors > precision.MOST_LOST * x.std(axis=0, dtype=np.float64)
    with np.errstate(all="ignore"):
        kept = precision._surely_kept(x)
    assert not (lost & kept).any()
    assert kept.all() == (mean < 3.5 and deviation == 1)


def test_narrow_first_layers_and_tables_take_raw_columns():
    X, y = california()
    network((4, 16, 32, 1), loss="squared_error").fit(X, y, epochs=1, learning_rate=1e-9)
    X[:, 2] = np.arange(400) % 300 + 0.5
    inputs = cmlp.Inputs(summed={2: 300, 3: 5})
    network((4, 40, 1), loss="squared_error", inputs=inputs).fit(X, y, epochs=1, learning_rate=1e-9)


@pytest.mark.parametrize("copied", ["file", "pickle", "copy", "astype", "folded"])
def test_copies_predict_the_same_bits(copied, tmp_path, engine):
    X, y = blobs(n_in=4)
    net = network()
    net.fit(X, y, epochs=2)
    if copied == "file":
        net.save(tmp_path / "net.cmlp", optimizer=True)
        other = cmlp.load(tmp_path / "net.cmlp")
    else:
        other = {
            "pickle": lambda: pickle.loads(pickle.dumps(net)), "copy": lambda: copy.copy(net),
            "astype": lambda: net.astype("float32"), "folded": net.folded,
        }[copied]()  # fmt: skip
    assert other.precision == EMULATED
    np.testing.assert_array_equal(other.predict(X), net.predict(X))
    plain = net.astype("float64")
    assert plain.precision is None and plain.dtype == np.float64
    assert 0 < np.abs(plain.predict(X) - net.predict(X)).max() < 0.02


def test_files_of_networks_without_one_are_as_before(tmp_path):
    network(precision=None).save(tmp_path / "net.cmlp")
    assert b"precision" not in (tmp_path / "net.cmlp").read_bytes()
    net = network()
    net.save(tmp_path / "net.cmlp")
    text = (tmp_path / "net.cmlp").read_bytes()
    (tmp_path / "net.cmlp").write_bytes(text.replace(EMULATED.encode(), b"bfloat16-emulater"))
    with refused(cmlp.ModelFileError, "unknown precision"):
        cmlp.load(tmp_path / "net.cmlp")


def test_it_may_be_assigned(engine):
    X, _ = blobs(n_in=4)
    net = network(precision=None)
    plain = net.predict(X)
    net.precision = EMULATED
    assert np.abs(net.predict(X) - plain).max() > 1e-5
    assert f"precision={EMULATED!r}" in repr(net) and EMULATED in net.summary()
    net.precision = None
    np.testing.assert_array_equal(net.predict(X), plain)
    assert "precision" not in repr(net)
    with refused(ValueError, "Unknown precision"):
        net.precision = "float16"


def test_one_step_at_a_time(engine):
    """In each of the ways the bits are the same, and no way leaves an operand unrounded."""
    X, y = blobs(n=32, n_in=4)
    X, y = X.astype(np.float32), np.eye(3, dtype=np.float32)[np.unique(y, return_inverse=True)[1]]
    shape = {"sizes": (4, 40, 30, 3), "loss": "squared_error", "activation": "tanh"}
    nets = [network(**shape, out_activation="identity") for _ in range(5)]
    trainers = [net.trainer(solver="adam") for net in nets]
    for _ in range(4):
        a = nets[3].predict(X)
        loss = trainers[0].step(X, y)
        assert loss == nets[1].step(X, y, solver="adam")
        nets[2].fit(X, y, epochs=1, batch_size=32, shuffle=False, solver="adam")
        trainers[3].backward(X, (a - y) / np.float32(len(X)))
        trainers[4].gradients(X, y)
        trainers[4].apply()
    for net in nets[1:3]:
        np.testing.assert_array_equal(net.params, nets[0].params)
    for net in nets[3:]:  # dC/da is rounded elsewhere
        np.testing.assert_allclose(net.params, nets[0].params, atol=1e-4)
    mine, theirs = trainers[0].gradients(X, y, inputs=True), nets[0].gradients(X, y)
    for each, expected in zip([*mine.weights, mine.inputs], [*theirs.weights, theirs.inputs],
                              strict=True):  # fmt: skip
        np.testing.assert_array_equal(each, expected)


def test_trainers_and_followers_know_the_precision(engine):
    X, y = blobs(n=40, n_in=4)
    net, plain = network(), network(precision=None)
    trainer, other = net.trainer(momentum=0), plain.trainer(momentum=0)
    with refused(ValueError, "same architecture", EMULATED):
        plain.copy_from(net)
    follower = copy.deepcopy(net)
    trainer.step(X, y)
    follower.polyak(net, 0.5)
    follower.copy_from(net)
    np.testing.assert_array_equal(follower.predict(X), net.predict(X))
    net.precision = None
    plain.copy_from(net)
    assert other.step(X, y) == trainer.step(X, y)
    np.testing.assert_array_equal(net.params, plain.params)
    plain.precision = EMULATED
    assert 1e-6 < abs(trainer.step(X, y) - other.step(X, y)) < 1e-2


def test_many_networks_learn_what_each_would(engine):
    X, y = blobs(n=60, n_in=4)
    many, alone = ([network(seed=seed) for seed in range(8)] for _ in range(2))
    cmlp.fit_many(many, X, y, epochs=2, learning_rate=list(np.geomspace(0.1, 0.01, 8)))
    for net, other, rate in zip(many, alone, np.geomspace(0.1, 0.01, 8), strict=True):
        other.fit(X, y, epochs=2, learning_rate=float(rate))
        np.testing.assert_array_equal(net.params, other.params)


@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
def test_a_trace_has_the_numbers_of_its_step(normalization, engine):
    X, y = blobs(n=12, n_in=4)
    net = network((4, 40, 30, 3), normalization=normalization)
    W = rounded(net.weights[0])
    trace = net.trace_step(X, y)
    x = wide(rounded(X.astype(np.float32)))
    bound = 8 * 2.0**-24 * (np.abs(x) @ np.abs(W)) + 1e-30
    assert (np.abs(trace.layers[0].z - x @ W) <= bound).all()
    a, delta = wide(rounded(trace.layers[0].a)), wide(rounded(trace.layers[1].delta))
    found = trace.layers[1].dweights
    assert (np.abs(found - a.T @ delta) <= 2e-3 * (np.abs(a.T) @ np.abs(delta)) + 1e-12).all()
    assert "rounded to bfloat16" in str(trace)
    assert "rounded" not in str(network(precision=None).trace_step(X, y))


def test_ways_out_have_the_float32_network():
    X, y = blobs(n_in=4)
    net = network()
    net.fit(X, y, epochs=2)
    plain = copy.deepcopy(net)
    plain.precision = None
    for write in (cmlp.to_c, cmlp.to_python, cmlp.to_javascript, cmlp.to_onnx):
        assert write(net) == write(plain)
    back = cmlp.from_onnx(cmlp.to_onnx(net))
    assert back.precision is None
    np.testing.assert_allclose(back.predict(X), plain.predict(X), atol=1e-6)


def test_members_and_further_batches(engine):
    X, y = blobs(n=90, n_in=4)
    model = cmlp.MLPClassifier((40,), precision=EMULATED, max_iter=3, n_ensemble=2, random_state=0)
    fit_quietly(model, X, y)
    assert [member.network_.precision for member in model.estimators_] == [EMULATED] * 2
    found = model.predict_proba(X)
    for member in model.estimators_:  # as on a processor without the instructions
        member.network_.precision = None
    assert 0 < np.abs(model.predict_proba(X) - found).max() < 0.01
    parts = [cmlp.MLPClassifier((40,), precision=p, random_state=0) for p in (EMULATED, None)]
    for part in parts:
        for _ in range(2):
            part.partial_fit(X, y, classes=np.unique(y))
    assert 0 < np.abs(parts[0].coefs_[0] - parts[1].coefs_[0]).max() < 0.01


@pytest.mark.parametrize("kind", [cmlp.MLPClassifier, cmlp.MLPRegressor])
def test_estimators(kind, engine):
    X, y = blobs(n=90, n_in=4) if kind is cmlp.MLPClassifier else waves(90, 4)
    y = np.asarray(y).reshape(len(X), -1)[:, 0]
    settings = {"hidden_layer_sizes": (40,), "max_iter": 30, "random_state": 0}
    model = fit_quietly(kind(**settings, precision=EMULATED), X, y)
    plain = fit_quietly(kind(**settings), X, y)
    assert model.network_.precision == model.get_params()["precision"] == EMULATED
    assert plain.network_.precision is None
    assert 0 < abs(model.loss_ - plain.loss_) < 0.02 * plain.loss_
    answers = pickle.loads(pickle.dumps(model)).predict(X)
    np.testing.assert_array_equal(answers, model.predict(X))
    model.set_params(warm_start=True, precision=None)
    with refused(ValueError, "precision"):
        model.fit(X, y)


def test_lbfgs_trains_in_float64():
    X, y = waves(60, 4)
    settings = {"hidden_layer_sizes": (40,), "max_iter": 10, "random_state": 0, "solver": "lbfgs"}
    models = [
        fit_quietly(cmlp.MLPRegressor(**settings, precision=p), X, y[:, 0])
        for p in (None, EMULATED)
    ]
    np.testing.assert_array_equal(models[0].coefs_[0], models[1].coefs_[0])
    assert models[0].loss_ == models[1].loss_


def test_the_gradient_check_is_about_the_formulas(engine):
    X, y = blobs(n_in=4)
    net = network(activation="tanh")
    assert net.check_gradients(X, y, entries=20)
    assert net.precision == EMULATED


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_normalised_networks(normalization, engine):
    """A predictor has the statistics in its weights, which are rounded then: equal up to that."""
    X, y = blobs(n=120, n_in=4)
    net = network((4, 40, 40, 3), normalization=normalization)
    net.fit(X, y, epochs=5)
    out = net.predict(X)
    np.testing.assert_allclose(net.predictor(len(X))(X), out, atol=0.02)
    np.testing.assert_allclose(net.folded().predict(X), out, atol=0.02)
    assert net.score(X, y) > 0.95


def test_custom_losses(engine):
    X, y = waves(60, 4)

    def loss(outputs, targets):
        error = outputs - targets
        return 0.5 * (error**2).sum(axis=1).mean(), error / len(error)

    nets = [network((4, 40, 1), loss=each) for each in (loss, "squared_error")]
    for net in nets:
        net.fit(X, y, epochs=2)
    np.testing.assert_allclose(nets[0].params, nets[1].params, atol=1e-4)


@pytest.mark.parametrize("kind", [cmlp.TabularClassifier, cmlp.TabularRegressor])
def test_tabular_estimators(kind, tmp_path, engine):
    rng = np.random.default_rng(0)
    X = {"a": rng.normal(size=300), "b": rng.choice(list("xyz"), 300), "c": rng.normal(size=300)}
    y = X["a"] + (X["b"] == "y")
    y = (y > 0.5).astype(int) if kind is cmlp.TabularClassifier else y
    settings = {"n_ensemble": 1, "max_iter": 15, "hidden_layer_sizes": (48,), "random_state": 0}
    model, plain = (kind(**settings, precision=p).fit(X, y) for p in (EMULATED, None))
    assert model.network_.precision == EMULATED and plain.network_.precision is None
    assert abs(model.score(X, y) - plain.score(X, y)) < 0.02
    model.save(tmp_path / "table.cmlp")
    loaded = cmlp.load(tmp_path / "table.cmlp")
    assert loaded.precision == loaded.network_.precision == EMULATED
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_explanations_are_of_the_float32_network(engine):
    """Shares add up to answers, which those of rounded products would not."""
    X, y = blobs(n=60, n_in=4)
    net = network(activation="tanh")
    net.fit(X, y, epochs=3)
    found = cmlp.attributions(net, X[:5], background=X[5:25])
    np.testing.assert_allclose(
        found.base_values + found.values.sum(axis=1), found.answers, rtol=1e-4, atol=1e-5
    )
