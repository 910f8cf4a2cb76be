"""Networks in files, pickles and copies: they come back whole, or not at all."""

import contextlib
import copy
import json
import math
import os
import pickle
import pickletools
import tracemalloc

import joblib
import numpy as np
import pytest
from helpers import blobs, refused, squared_error, waves
from hypothesis import given, settings
from hypothesis import strategies as st

import cmlp
from cmlp import ModelFileError, Network, io
from cmlp._spec import LOSSES

X, Y = blobs()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.cmlp"


def small(solver="adam", **options):
    net = Network([3, 5, 3], "tanh", seed=0, **options)
    net.fit(X, np.array(["ape", "bee", "cat"])[Y], solver=solver, epochs=2, validation_fraction=0.2)
    return net


def through_file(net, path, loss=None, **options):
    net.save(path, **options)
    return cmlp.load(path, loss=loss)


def assert_goes_on(net, other, **options):
    """Both train on from here in the same way, to the bit."""
    labels = np.arange(3) if net.classes is None else net.classes
    options = {"solver": net.solver, "epochs": 2, "batch_size": 9, "dropout": 0.2} | options
    history, same = net.fit(X, labels[Y], **options), other.fit(X, labels[Y], **options)
    np.testing.assert_array_equal(net.params, other.params)
    assert history["loss"] == same["loss"] and net.steps == other.steps


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [row.name for row in LOSSES])
def test_every_loss(core, dtype, loss, path):
    net = Network([3, 17, 4, 2], ["gelu", "selu"], loss=loss, dtype=dtype, seed=1, quantile=0.2,
                  huber_delta=0.3)  # fmt: skip
    other = through_file(net, path)
    assert repr(other) == repr(net) and other.dtype == dtype
    assert (other.activations, other.weight_init) == (net.activations, net.weight_init)
    np.testing.assert_array_equal(other.params, net.params)
    np.testing.assert_array_equal(other.predict(X), net.predict(X))
    targets = np.full((len(X), 2), 0.5)
    assert other.loss(X, targets) == net.loss(X, targets)
    assert other.classes is None and other.steps == 0 and other.history == {}


CLASSES = {
    "integers": [-5, 0, 2**62],
    "small integers": np.array([1, 3, 5], np.int8),
    "truth": [False, True],
    "floats": [0.1, 1.5, 1e300],
    "text": ["a", "bb", "ccc"],
    "unicode": ["ä\n", "日本", "🐝"],
}


@pytest.mark.parametrize("kind", CLASSES)
def test_labels(kind, path):
    net = Network([3, len(CLASSES[kind])], seed=0)
    net.classes = np.array(CLASSES[kind])
    other = through_file(net, path)
    assert other.classes.dtype == net.classes.dtype
    np.testing.assert_array_equal(other.classes, net.classes)
    np.testing.assert_array_equal(other.predict_classes(X), net.predict_classes(X))


def test_the_record_of_training(path):
    net = small()
    other = through_file(net, path)
    assert other.history == net.history and other.history.metric == net.history.metric
    assert other.history["val_loss"] == net.history["val_loss"]
    other.fit(X, net.classes[Y], epochs=1)
    assert other.history["epoch"] == [1, 2, 3]


def test_an_input_scale_goes_through_a_file(core, dtype, path):
    net = Network([3, 5, 3], dtype=dtype, seed=0, input_scale=1 / 255)
    net.fit(X, Y, epochs=1)
    other = through_file(net, path, optimizer=True)
    assert other.input_scale == 1 / 255 and repr(other) == repr(net)
    np.testing.assert_array_equal(other.predict(X), net.predict(X))
    assert_goes_on(net, other)


def test_a_long_record_does_not_stop_a_save(path):
    net = small()
    net.history.update({key: list(np.random.default_rng(0).random(150_000)) for key in net.history})
    np.testing.assert_array_equal(through_file(net, path).params, net.params)


@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw", "rmsprop"])
def test_training_goes_on_as_it_would_have(core, dtype, solver, path):
    net = small(solver, dtype=dtype)
    other = through_file(net, path, optimizer=True)
    assert other.steps == net.steps > 0
    assert_goes_on(net, other)


@pytest.mark.parametrize("bits", ["MT19937", "PCG64DXSM", "Philox", "SFC64"])
def test_training_goes_on_with_any_generator(bits, path):
    net = Network([3, 4, 3], seed=np.random.Generator(getattr(np.random, bits)(1)))
    net.fit(X, Y, epochs=1)
    assert_goes_on(net, through_file(net, path, optimizer=True))


def test_without_the_optimizer_it_starts_afresh(path):
    other = through_file(small(), path)
    assert other.steps == 0
    other.fit(X, other.classes[Y], epochs=1)


def test_a_custom_loss_is_given_back(path):
    inputs, targets = waves()
    net = Network([3, 4, 1], loss=squared_error, seed=0)
    net.fit(inputs, targets, epochs=1)
    other = through_file(net, path, squared_error)
    assert other.loss(inputs, targets) == net.loss(inputs, targets)
    lost = cmlp.load(path)
    np.testing.assert_array_equal(lost.predict(inputs), net.predict(inputs))
    with refused(ValueError, "loss of its own", "cmlp.load(path, loss=...)"):
        lost.fit(inputs, targets)


def test_other_programs_read_it(path):
    numpy = pytest.importorskip("safetensors.numpy")
    net = small()
    net.save(path, optimizer=True)
    arrays = numpy.load_file(path)
    for number, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        np.testing.assert_array_equal(arrays[f"layers.{number}.weight"], W)
        np.testing.assert_array_equal(arrays[f"layers.{number}.bias"], b)
    assert len(arrays) == 3 * 4  # and the two moments of adam


def test_an_interrupted_save_leaves_the_old_file(path, monkeypatch):
    net = small()
    net.save(path)
    before = path.read_bytes()
    net.fit(X, net.classes[Y], epochs=1)

    def pull_the_plug(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", pull_the_plug)
    with pytest.raises(KeyboardInterrupt):
        net.save(path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_missing_files_are_missing_files(path):
    with pytest.raises(FileNotFoundError):
        cmlp.load(path)
    with pytest.raises(FileNotFoundError):
        Network([3, 1]).save(path / "deeper")


@settings(max_examples=40, deadline=None, database=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 99),
)
def test_any_network(tmp_path_factory, sizes, dtype, seed):
    net = Network(sizes, dtype=dtype, seed=seed)
    other = through_file(net, tmp_path_factory.getbasetemp() / "any.cmlp")
    assert other.sizes == net.sizes
    np.testing.assert_array_equal(other.params, net.params)


# Damaged files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A real model with everything in it, its bytes, arrays and metadata."""
    path = tmp_path_factory.mktemp("saved") / "net.cmlp"
    net = small()
    net.history.update(seconds=[1.0, 2.0], rows_per_second=[3.0, 4.0])  # the same in every run
    net.save(path, optimizer=True)
    return path.read_bytes(), *io.read(path)


def load_or_refuse(path, most=2_000_000):
    """Load a file that may be bad: it works, or it says that it does not; never in much memory."""
    tracemalloc.start()
    try:
        net = cmlp.load(path)
    except ModelFileError as error:
        assert str(path) in str(error)
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most
    net.predict_classes(X)
    net.summary(), repr(net), net.history
    if net.solver and np.isfinite(net.moments).all() and np.isfinite(net.params).all():
        with contextlib.suppress(cmlp.DivergenceError):
            net.step(X[:3], np.eye(3)[Y[:3]], solver=net.solver)
    return net


def test_cut_at_every_byte(saved, path):
    path.write_bytes(saved[0])
    for length in reversed(range(len(saved[0]))):
        os.truncate(path, length)
        with refused(ModelFileError, path):
            cmlp.load(path)


def test_flipped_bits(saved, path):
    raw = saved[0]
    rng = np.random.default_rng(0)
    header = int.from_bytes(raw[:8], "little") + 8
    for at in rng.permutation(header)[:500]:
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << rng.integers(8)]) + raw[at + 1 :])
        load_or_refuse(path)


ABSURD = (None, True, -1, 0, 1.5, 1e308, 10**30, "", "x", [], {}, [[]], [None], {"a": 1})
FIELDS = [
    ("network",),
    *(("network", key) for key in
      ("sizes", "activations", "loss", "loss_parameter", "weight_init", "dtype")),
    ("history",), ("history", "metric"), ("history", "values"),
    ("classes",), ("classes", "dtype"), ("classes", "labels"),
    ("optimizer",), ("optimizer", "solver"), ("optimizer", "steps"), ("optimizer", "generator"),
    *(("optimizer", "generator", key) for key in
      ("bit_generator", "state", "has_uint32", "uinteger")),
    *(("optimizer", "generator", "state", key) for key in ("state", "inc")),
]  # fmt: skip


def edited(saved, field, value):
    """The metadata with one entry changed, or without it."""
    key, *inner = field
    metadata = dict(saved[2])
    if not inner:
        return metadata | {key: value if isinstance(value, str) else json.dumps(value)}
    whole = part = json.loads(metadata[key])
    for step in inner[:-1]:
        part = part[step]
    assert inner[-1] in part
    if value is ...:
        del part[inner[-1]]
    else:
        part[inner[-1]] = value
    return metadata | {key: json.dumps(whole)}


SCALE = ("network", "input_scale")


@pytest.mark.parametrize("field", [*FIELDS, SCALE], ids=".".join)
def test_absurd_metadata(saved, path, field):
    for value in ABSURD:
        io.write(path, saved[1], edited(saved, field, value))
        load_or_refuse(path)


@pytest.mark.parametrize("field", [field for field in FIELDS if len(field) > 1], ids=".".join)
def test_missing_metadata(saved, path, field):
    io.write(path, saved[1], edited(saved, field, ...))
    with refused(ModelFileError, path):
        cmlp.load(path)


def test_files_from_before_there_was_an_input_scale(saved, path):
    io.write(path, saved[1], edited(saved, SCALE, ...))
    assert cmlp.load(path).input_scale == 1


@pytest.mark.parametrize("key", ["format", "format_version", "network", "history"])
def test_missing_parts(saved, path, key):
    metadata = dict(saved[2])
    del metadata[key]
    io.write(path, saved[1], metadata)
    with refused(ModelFileError, path):
        cmlp.load(path)


HOSTILE = {
    "sizes beyond memory": (("network", "sizes"), [10**18, 10**18, 3]),
    "sizes beyond 64 bits": (("network", "sizes"), [10**30, 5, 3]),
    "negative sizes": (("network", "sizes"), [-3, 5, 3]),
    "fractions of units": (("network", "sizes"), [3.0, 5, 3]),
    "too many layers": (("network", "sizes"), [3, 5, 5, 3]),
    "other sizes": (("network", "sizes"), [3, 6, 3]),
    "unknown activation": (("network", "activations"), ["tanhh", "softmax"]),
    "softmax inside": (("network", "activations"), ["softmax", "softmax"]),
    "no text": (("network", "activations"), [{"tanh": 1}, 3]),
    "pairs that do not suit": (("network", "activations"), ["tanh", "tanh"]),
    "unknown loss": (("network", "loss"), "crossentropie"),
    "unknown dtype": (("network", "dtype"), "float16"),
    "other dtype": (("network", "dtype"), "float64"),
    "unknown solver": (("optimizer", "solver"), "lion"),
    "another solver": (("optimizer", "solver"), "sgd"),
    "steps beyond 64 bits": (("optimizer", "steps"), 10**30),
    "steps before the first": (("optimizer", "steps"), -1),
    "a negative state": (("optimizer", "generator", "state", "state"), -1),
    "a state too large": (("optimizer", "generator", "state", "inc"), 2**200),
    "a word too large": (("optimizer", "generator", "uinteger"), 2**70),
    "a negative word": (("optimizer", "generator", "uinteger"), -5),
    "labels for others": (("classes", "labels"), ["a", "b"]),
    "too many labels": (("classes", "labels"), ["a", "b", "c", "d"]),
    "labels twice": (("classes", "labels"), ["a", "a", "b"]),
    "labels in a wrong order": (("classes", "labels"), ["c", "b", "a"]),
    "nested labels": (("classes", "labels"), [["a"], ["b"], ["c"]]),
    "records as labels": (("classes", "dtype"), "f4,f4"),
    "huge labels": (("classes", "dtype"), "<U3000000"),
    "labels of objects": (("classes", "dtype"), "O"),
    "an endless number": (("history", "values"), {"loss": [10**400]}),
    "a number as history": (("history", "values"), {"loss": 5}),
    "nests": (("network",), "[" * 50_000 + "]" * 50_000),
    "a number too long": (("optimizer",), '{"solver": "adam", "steps": ' + "9" * 5000 + "}"),
    "no scale": (SCALE, 0),
    "a negative scale": (SCALE, -0.5),
    "a scale that is no number": (SCALE, math.nan),
    "an endless scale": (SCALE, math.inf),
    "a scale of many digits": (SCALE, 10**400),
    "a scale in words": (SCALE, "1"),
    "no JSON": (("network",), "{"),
    "the future": (("format_version",), "2"),
    "another program": (("format",), "pt"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_metadata(saved, path, case):
    io.write(path, saved[1], edited(saved, *HOSTILE[case]))
    assert load_or_refuse(path) is None, "it was loaded"


def test_many_layers_cost_no_more_than_their_header(saved, path):
    n = 30_000
    metadata = edited(saved, ("network", "sizes"), [1] * (n + 1))
    about = json.loads(metadata["network"]) | {"activations": ["tanh"] * n}
    io.write(path, saved[1], metadata | {"network": json.dumps(about)})
    assert load_or_refuse(path, most=20 * path.stat().st_size) is None


@pytest.mark.parametrize("change", ["missing", "added", "shape", "dtype"])
def test_arrays_that_do_not_fit(saved, path, change):
    arrays = dict(saved[1])
    name = "layers.1.weight"
    if change == "missing":
        del arrays[name]
    elif change == "added":
        arrays["layers.2.weight"] = arrays[name]
    elif change == "shape":
        arrays[name] = arrays[name].T
    else:
        arrays[name] = arrays[name].astype(np.float64)
    io.write(path, arrays, saved[2])
    with refused(ModelFileError, path, "layers."):
        cmlp.load(path)


def test_nothing_is_executed(path):
    path.write_bytes(pickle.dumps(Network([3, 1])))
    with refused(ModelFileError, path):
        cmlp.load(path)


# Pickles and copies -------------------------------------------------------------------------------

COPIES = {
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "old pickle": lambda net: pickle.loads(pickle.dumps(net, 2)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies(core, dtype, way):
    net = small(dtype=dtype)
    other = COPIES[way](net)
    assert other.history == net.history and other.history.metric == net.history.metric
    np.testing.assert_array_equal(other.predict(X), net.predict(X))
    before = net.params.copy(), len(net.history["loss"]), net.rng.bit_generator.state
    twin = copy.deepcopy(net)
    assert_goes_on(other, twin)
    assert not np.array_equal(other.params, before[0])
    np.testing.assert_array_equal(net.params, before[0])
    assert (len(net.history["loss"]), net.rng.bit_generator.state) == before[1:]


def test_joblib(core, tmp_path):
    net = small()
    expected = net.predict(X)
    joblib.dump(net, tmp_path / "net.joblib")
    assert_goes_on(joblib.load(tmp_path / "net.joblib"), net)
    mapped = joblib.load(tmp_path / "net.joblib", mmap_mode="r")
    np.testing.assert_array_equal(mapped.predict(X), expected)


def test_a_network_of_any_core_works_on_any_other(core, path):
    with cmlp.use_core("auto"):
        net = small()
        expected = net.predict(X)
        net.save(path, optimizer=True)
        raw = pickle.dumps(net)
    for other in (cmlp.load(path), pickle.loads(raw)):
        np.testing.assert_allclose(other.predict(X), expected, rtol=1e-5, atol=1e-7)
        other.fit(X, net.classes[Y], solver="adam", epochs=1)
        with cmlp.use_core("auto"):
            again = copy.deepcopy(net)
            again.fit(X, net.classes[Y], solver="adam", epochs=1)
        np.testing.assert_allclose(other.params, again.params, rtol=1e-3, atol=1e-5)


def test_pickles_name_no_core(core):
    net = small()
    net.predict(X)
    texts = [str(argument) for _, argument, _ in pickletools.genops(pickle.dumps(net))]
    assert not [text for text in texts if "cmlp._core" in text or "_reference" in text]
    assert any("cmlp.network" in text for text in texts)
