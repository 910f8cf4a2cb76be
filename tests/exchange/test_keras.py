"""Models for Keras, and networks from its models and files, which its loader does not touch."""

import contextlib
import io
import json
import os
import zipfile

import numpy as np
import pytest

import cmlp
from cmlp import from_keras, to_keras, to_safetensors
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.exchange.chains import chain_of
from cmlp.formats import layouts
from cmlp.formats.chain import ConversionError, run
from cmlp.formats.safetensors import ModelFileError

os.environ.setdefault("KERAS_BACKEND", "numpy")
keras = pytest.importorskip("keras", minversion="3")
layers = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore")

HIDDEN = [*(row.name for row in ACTIVATIONS if not row.output_only), "leaky_relu:0.3", "elu:0.5"]
rng = np.random.default_rng(0)
X = rng.normal(size=(40, 7)).astype("f4")
Y = rng.integers(0, 3, 40)


def trained(activation, **more):
    net = cmlp.Network([7, 12, 9, 3], activation, seed=1, **more)
    net.fit(X, Y, epochs=2, batch_size=20, clip_norm=1)
    return net


def of(model, rows=X):
    return np.asarray(model(rows))


@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
@pytest.mark.parametrize("activation", HIDDEN)
def test_outputs_and_back(activation, normalization):
    net = trained(activation, normalization=normalization, input_scale=0.5)
    model = to_keras(net)
    exact = run(chain_of(net), X)
    limit = 4 * np.abs(net.predict(X) - exact).max() + 2e-6
    assert np.abs(of(model) - exact).max() <= limit
    back = from_keras(model)
    plain = to_keras(back)
    assert all(np.array_equal(a, b) for a, b in zip(model.weights, plain.weights, strict=True)) or (
        activation == "identity"
    )
    np.testing.assert_allclose(back.predict(X), net.predict(X), rtol=2e-5, atol=1e-6)


def test_float64():
    net = trained("silu", dtype="float64", normalization="layer")
    model = to_keras(net)
    assert {str(each.dtype) for each in model.weights} == {"float64"}
    back = from_keras(model)
    assert back.dtype == np.float64 and np.array_equal(back.params, net.params)


def test_an_ensemble():
    clf = cmlp.MLPClassifier((8,), "leaky_relu", max_iter=3, tol=0, random_state=0, n_ensemble=3)
    clf.fit(X, Y)
    np.testing.assert_allclose(of(to_keras(clf)), clf.predict_proba(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ending", ["live", "keras", "h5"])
def test_an_ensemble_and_back(ending, dtype, tmp_path):
    clf = cmlp.MLPClassifier((8, 4), "elu:0.5", max_iter=3, tol=0, random_state=0, n_ensemble=3)
    clf.set_params(dtype=dtype).fit(X, Y)
    model = to_keras(clf)
    if ending != "live":
        model.save(tmp_path / f"x.{ending}")
        model = tmp_path / f"x.{ending}"
    back = from_keras(model, classes=clf.classes_)
    for mine, theirs in zip(clf.estimators_, back.estimators_, strict=True):
        assert np.array_equal(mine.network_.params, theirs.network_.params)
        assert mine.network_.activations == theirs.network_.activations
    assert np.array_equal(back.predict_proba(X), clf.predict_proba(X))
    with pytest.raises(ConversionError, match="scale X before"):
        from_keras(model, input_scale=0.5)


def test_averages_that_are_no_ensemble():
    rows = keras.Input((3,))
    other = keras.Input((3,))
    shared, own = layers.Dense(4)(rows), layers.Dense(4)(other)
    deeper = layers.Dense(4)(layers.Dense(3, "relu")(rows))
    cases = {
        "no Dense layer of its own": ([rows], layers.Average()([shared, layers.ReLU()(shared)])),
        "only a model whose layers": (
            [rows],
            layers.Average()([layers.Dense(4)(layers.Add()([shared, shared])), shared]),
        ),
        "different inputs": ([rows, other], layers.Average()([own, shared])),
        "different layers": ([rows], layers.Average()([deeper, shared])),
    }
    for words, (inputs, outputs) in cases.items():
        with pytest.raises(ConversionError, match=words):
            from_keras(keras.Model(inputs, outputs))


def test_means_of_a_scaler():
    pipeline = pytest.importorskip("sklearn.pipeline")
    scalers = pytest.importorskip("sklearn.preprocessing")
    model = pipeline.make_pipeline(
        scalers.StandardScaler(), cmlp.MLPClassifier((8,), max_iter=2, tol=0, random_state=0)
    ).fit(X + 500, Y)
    theirs = to_keras(model)
    np.testing.assert_allclose(of(theirs, X + 500), model.predict_proba(X + 500), atol=1e-5)
    np.testing.assert_allclose(
        from_keras(theirs).predict(X + 500), model.predict_proba(X + 500), atol=1e-5
    )


def test_names_of_the_layout(tmp_path):
    """The names in a file are the paths of Keras' variables."""
    net = trained("tanh", normalization="layer")
    names = [variable.path.split("/", 1)[-1] for variable in to_keras(net).variables]
    ours = [*layouts.arrays_of(chain_of(net), "keras")]
    assert [name.split("/")[-2:] for name in names] == [name.split("/") for name in ours] or (
        [variable.path for variable in to_keras(net).variables] == ours
    )
    to_safetensors(net, tmp_path / "x.safetensors", layout="keras")


# In: models in memory and both kinds of files ------------------------------------------------


def varied():
    """Return a model of whatever has a counterpart, with weights of its own."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((7,)),
            layers.Rescaling(0.5, 0.25),
            layers.BatchNormalization(),
            layers.Dense(6, use_bias=False),
            layers.BatchNormalization(scale=False),
            layers.Activation("gelu"),
            layers.Dropout(0.3),
            keras.Sequential(
                [layers.Dense(5, "hard_sigmoid"), layers.BatchNormalization(center=False)]
            ),
            layers.Dense(5),
            layers.Dense(4),
            layers.LeakyReLU(negative_slope=0.01),
            layers.Dense(5, layers.ReLU(negative_slope=0.1)),
            layers.Dense(4, "leaky_relu"),
            layers.Dense(4),
            layers.LeakyReLU(),
            layers.Dense(4),
            layers.ELU(alpha=0.5),
            layers.Dense(3),
            layers.Softmax(),
        ]
    )
    for variable in model.weights:
        value = rng.normal(size=variable.shape)
        variable.assign(np.abs(value) + 0.1 if "variance" in variable.path else value)
    return model


def functional():
    x = inputs = keras.Input((7,))
    for layer in (layers.Dense(6, "elu"), layers.Dense(5, "mish"), layers.Dense(1, "sigmoid")):
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("make", [varied, functional])
def test_models_and_files(make, tmp_path):
    model = make()
    net = from_keras(model)
    np.testing.assert_allclose(net.predict(X), of(model), rtol=1e-4, atol=1e-5)
    if make is varied:
        slopes = ("leaky_relu", *(f"leaky_relu:0.{n}" for n in (1, 2, 3)), "elu:0.5")
        assert net.activations[2:-1] == slopes
    pytest.importorskip("h5py")
    for suffix in ("keras", "h5"):
        path = tmp_path / f"m.{suffix}"
        model.save(path)
        read = from_keras(path)
        assert np.array_equal(read.params, net.params), suffix
        assert read.activations == net.activations
        assert np.array_equal(from_keras(io.BytesIO(path.read_bytes())).params, net.params)


def test_normalisation_adapted(tmp_path):
    norm = layers.Normalization()
    norm.adapt(X * 3 + 2)
    model = keras.Sequential([keras.Input((7,)), norm, layers.Dense(3, "softmax")])
    net = from_keras(model, classes=["a", "b", "c"])
    np.testing.assert_allclose(net.predict(X), of(model), rtol=1e-4, atol=1e-5)
    assert net.predict_classes(X)[0] in "abc"


def test_flat_pictures():
    model = keras.Sequential(
        [keras.Input((2, 3)), layers.Rescaling(2.0), layers.Flatten(), layers.Dense(2, "tanh")]
    )
    rows = rng.normal(size=(5, 2, 3)).astype("f4")
    got = from_keras(model).predict(rows.reshape(5, 6))
    np.testing.assert_allclose(got, of(model, rows), rtol=1e-5, atol=1e-6)
    unflat = keras.Sequential([keras.Input((3, 7)), layers.Dense(2)])
    with pytest.raises(ConversionError, match="rows have 2 axes; flatten them first"):
        from_keras(unflat)


D = layers.Dense


@pytest.mark.parametrize(
    "stack, text",
    [
        (lambda: [D(5), layers.PReLU(), D(2)], r"layer 3 \(PReLU, .* has no counterpart in cmlp"),
        (lambda: [D(5), layers.ELU(alpha=-0.5), D(2)], r"layer 3 \(ELU.* the alpha -0.5; cmlp has"),
        (lambda: [D(5), layers.ReLU(max_value=6), D(2)], "max_value=6"),
        (lambda: [D(5), layers.ReLU(threshold=1), D(2)], "threshold=1"),
        (lambda: [D(5, "relu6"), D(2)], "relu6"),
        (lambda: [D(5, "softmax"), D(2)], "layer 1 has softmax"),
        (
            lambda: [D(5), layers.LayerNormalization(epsilon=1e-5), layers.ReLU(), D(2)],
            None,  # its bias is 0
        ),
        (lambda: [layers.Reshape((7, 1)), layers.LSTM(3), D(2)], r"layer 2 \(Reshape"),
        (lambda: [layers.Reshape((7, 1)), layers.Conv1D(3, 2), D(2)], r"layer 2 \(Reshape"),
    ],
)
def test_what_does_not_fit(stack, text):
    model = keras.Sequential([keras.Input((7,)), *stack()])
    if text is None:
        np.testing.assert_allclose(from_keras(model).predict(X), of(model), atol=1e-5)
        return
    with pytest.raises(ConversionError, match=text):
        from_keras(model)


def test_branches_and_own_classes():
    a = keras.Input((7,))
    b = layers.Dense(5)(a)
    both = keras.Model(a, layers.Dense(2)(layers.Add()([b, layers.Dense(5)(a)])))
    with pytest.raises(ConversionError, match="layers follow one another"):
        from_keras(both)
    with pytest.raises(ConversionError, match=r"layers follow one another|outputs"):
        from_keras(keras.Model(a, [b, layers.Dense(2)(b)]))
    two = keras.Input((3,))
    with pytest.raises(ConversionError, match="layers follow one another"):
        from_keras(keras.Model([a, two], layers.Concatenate()([a, two])))

    class Own(layers.Dense):
        def call(self, x):
            return -super().call(x)

    with pytest.raises(ConversionError, match=r"which is not Keras'|has no counterpart"):
        from_keras(keras.Sequential([keras.Input((7,)), Own(3)]))
    with pytest.raises(ConversionError, match="expected a model of Keras"):
        from_keras(3)


# Hostile files -----------------------------------------------------------------------------------


def changed(tmp_path, change, version="3.15.1", **weights):
    """Return a file whose description is another."""
    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((7,)), D(5, "tanh"), D(2)]).save(path)
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    config = json.loads(parts["config.json"])
    change(config["config"]["layers"])
    parts["config.json"] = json.dumps(config).encode()
    parts["metadata.json"] = json.dumps({"keras_version": version}).encode()
    parts |= {name.replace("__", "."): data for name, data in weights.items()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in parts.items():
            new.writestr(name, data)
    return path


def test_nothing_in_a_file_runs(tmp_path):
    """Those of the known attacks: a module to import, a Lambda, a custom object."""
    pytest.importorskip("h5py")
    marker = tmp_path / "marker"

    def run_module(stack):
        stack[1] |= {"module": "os", "class_name": "system"}
        stack[1]["config"] = {"command": f"touch {marker}"}

    def run_lambda(stack):
        stack[1] |= {"class_name": "Lambda"}

    def run_activation(stack):
        stack[1]["config"]["activation"] = {
            "module": "builtins", "class_name": "function", "config": "exec",
            "registered_name": "function",
        }  # fmt: skip

    def run_initializer(stack):
        stack[1]["config"]["kernel_initializer"] = {
            "module": "os", "class_name": "system", "config": {"command": f"touch {marker}"}
        }  # fmt: skip

    for change in (run_module, run_lambda, run_activation):
        with pytest.raises(ConversionError):
            from_keras(changed(tmp_path, change))
    from_keras(changed(tmp_path, run_initializer))
    assert not marker.exists()


def test_hard_sigmoid_of_keras_2(tmp_path):
    pytest.importorskip("h5py")

    def hard(stack):
        stack[1]["config"]["activation"] = "hard_sigmoid"

    assert from_keras(changed(tmp_path, hard)).activations[0] == "hard_sigmoid"
    with pytest.raises(ConversionError, match=r"Keras 2\.15\.0, clip\(0\.2 x \+ 1/2"):
        from_keras(changed(tmp_path, hard, "2.15.0"))


def test_weights_elsewhere(tmp_path):
    """External links, external storage, virtual and compressed datasets, soft links."""
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["w"] = np.ones((7, 5), "f4")
    raw = tmp_path / "raw"
    raw.write_bytes(np.ones((7, 5), "f4").tobytes())

    def weights(kind):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            group = file.create_group("layers/dense/vars")
            if kind == "link":
                group["0"] = h5py.ExternalLink(str(secret), "/w")
            elif kind == "soft":
                file["w"] = np.ones((7, 5), "f4")
                group["0"] = h5py.SoftLink("/w")
            elif kind == "storage":
                group.create_dataset("0", (7, 5), "f4", external=[(str(raw), 0, 140)])
            elif kind == "virtual":
                layout = h5py.VirtualLayout((7, 5), "f4")
                layout[...] = h5py.VirtualSource(str(secret), "w", (7, 5))
                group.create_virtual_dataset("0", layout)
            elif kind == "compressed":
                group.create_dataset("0", data=np.ones((7, 5), "f4"), compression="gzip")
            elif kind == "unwritten":
                group.create_dataset("0", (1 << 20, 1 << 14), "f4")
            elif kind == "text":
                group["0"] = np.array([b"a"] * 35).reshape(7, 5)
            if kind != "missing":
                group["1"] = np.zeros(5, "f4")
        return buffer.getvalue()

    kinds = "link soft storage virtual compressed unwritten text missing"
    for kind in kinds.split():
        path = changed(tmp_path, lambda stack: None, model__weights__h5=weights(kind))
        with pytest.raises((ModelFileError, ConversionError)):
            from_keras(path)


def test_damaged_files(tmp_path):
    pytest.importorskip("h5py")
    for data in (b"", b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"text of another kind"):
        with pytest.raises(ModelFileError):
            from_keras(io.BytesIO(data))
    with pytest.raises(FileNotFoundError):
        from_keras(tmp_path / "none.keras")
    for suffix in ("keras", "h5"):
        path = tmp_path / f"m.{suffix}"
        keras.Sequential([keras.Input((7,)), D(5, "tanh"), D(2)]).save(path)
        whole = path.read_bytes()
        if suffix == "h5":  # HDF5 follows an object of size 0 without an end
            heap = whole.index(b"GCOL")
            endless = whole[: heap + 16] + bytes(16) + whole[heap + 32 :]
            with pytest.raises(ModelFileError, match="an object of a heap"):
                from_keras(io.BytesIO(endless))
        random = np.random.default_rng(0)
        for _ in range(150):
            changed_bytes = bytearray(whole)
            for place in random.integers(0, len(whole), random.integers(1, 6)):
                changed_bytes[place] = random.integers(256)
            if random.random() < 0.2:
                del changed_bytes[random.integers(len(whole)) :]
            with contextlib.suppress(ModelFileError, ConversionError):
                from_keras(io.BytesIO(bytes(changed_bytes)))
