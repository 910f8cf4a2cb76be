"""Networks in files, pickles and copies: they are restored completely, or not at all."""

import contextlib
import copy
import enum
import importlib.util
import io as io_
import json
import math
import os
import pickle
import pickletools
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from helpers import blobs, refused, squared_error, waves
from hypothesis import given, settings
from hypothesis import strategies as st

import cmlp
from cmlp import ModelFileError, Network
from cmlp.core.vocabulary import LOSSES
from cmlp.formats import safetensors
from cmlp.model import history

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
def test_every_loss(engine, dtype, loss, path):
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


class Shade(str, enum.Enum):  # noqa: UP042 - str() of its members is another text
    DARK, LIGHT = "dark", "light"

    def __str__(self):
        return f"Shade.{self.name}"


CLASSES = {
    "integers": [-5, 0, 2**62],
    "the ends of 64 bits": [-(2**63), 2**63 - 1],
    "64 bits without a sign": np.array([7, 2**63 + 1025, 2**64 - 1], np.uint64),
    **{f"integers of {code}": np.array([1, 3, 5], code)
       for code in ("i1", "i2", "i4", "u1", "u2", "u4", ">i4", ">u8", ">f8")},
    "truth": [False, True],
    "floats": [0.1, 1.5, 1e300],
    "short floats": np.array([0.1, 1.5, 3], np.float32),
    "half floats": np.array([0.1, 1.5, 65504], np.float16),
    "text": ["a", "bb", "ccc"],
    "unicode": ["ä\n", "日本", "🐝"],
    "half a character": ["\ud800", "x"],
    "text with JSON's signs": ['"],"dtype":"O"', "\\u0041", ""],
    "bytes": [b"a", b"\xff\x00b", b""],
    "an order of their own": ["low", "middle", "high"],
    "numbers in an order of their own": [3, 1, 2],
}  # fmt: skip


@pytest.mark.parametrize("kind", CLASSES)
def test_labels(kind, path):
    net = Network([3, len(CLASSES[kind])], seed=0)
    net.classes = np.array(CLASSES[kind])
    other = through_file(net, path)
    assert other.classes.dtype == net.classes.dtype
    assert other.classes.tolist() == net.classes.tolist()
    np.testing.assert_array_equal(other.predict_classes(X), net.predict_classes(X))
    before = path.read_bytes()
    other.save(path)
    assert path.read_bytes() == before


OBJECTS = {
    "text": (["b", np.str_("a")], "<U1"),
    "members of an enumeration": (list(Shade), "<U5"),
    "bytes": ([b"b", b"aa"], "S2"),
    "truth": ([np.True_, False], "bool"),
    "integers": ([np.int8(3), 2**62], "int64"),
    "long integers": ([0, 2**63 + 1], "uint64"),
    "floats": ([0.5, np.float64(2)], "float64"),
    "floats and integers": ([0.5, 2], "float64"),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_labels_that_are_objects(kind, path):
    labels, dtype = OBJECTS[kind]
    net = Network([3, 2], seed=0)
    objects = np.empty(2, object)
    objects[:] = labels
    net.classes = objects
    other = through_file(net, path)
    assert other.classes.dtype == dtype
    assert other.predict_classes(X).tolist() == net.predict_classes(X).tolist()


def spoil(net, **values):
    """Write attributes past the checks of an assignment, as a change in place does."""
    for name, value in values.items():
        if hasattr(net.architecture, name):
            net.replace_architecture(replace(net.architecture, **{name: value}))
        else:
            object.__setattr__(net, name, value)


UNFIT_LABELS = {
    "one too few": (["a", "b"], "3 labels expected, 2 came"),
    "one too many": (list("abcd"), "3 labels expected, 4 came"),
    "twice": (["b", "a", "b"], "must differ"),
    "zero and minus zero": ([0.0, -0.0, 1.0], "must differ"),
    "no number": ([0.0, math.nan, 1.0], "NaN"),
    "infinite": ([0.0, math.inf, 1.0], "finite"),
    "nothing": (np.array([None, "a", "b"]), "NoneType, str"),
    "text and numbers": (np.array(["a", 1, 2], object), "int, str"),
    "too long integers": (np.array([1, 2, 2**64], object), "whole numbers of 64 bits"),
    "integers of two ranges": (np.array([-1, 2, 2**63], object), "whole numbers of 64 bits"),
    "no exact float": (np.array([0.5, 2, 2**53 + 1], object), "float, int"),
    "dates": (np.array(["2020", "2021", "2022"], "M8[ns]"), "datetime64"),
    "durations": (np.array([1, 2, 3], "m8[s]"), "timedelta64"),
    "complex": (np.array([1, 2, 3j]), "complex128"),
    "records": (np.zeros(3, "i4,i4"), "labels of type"),
    "a matrix": (np.eye(3), "(n,)"),
    "one number": (np.array(3), "(n,)"),
    "masked": (np.ma.array([1, 2, 3], mask=[0, 0, 1]), "masked"),
    "a null at the end": (np.array(["a\0", "b", "c"], object), "null character"),
}


@pytest.mark.parametrize("kind", UNFIT_LABELS)
def test_labels_that_a_file_cannot_keep(kind, path):
    labels, message = UNFIT_LABELS[kind]
    net = Network([3, 3], seed=0)
    net.save(path)
    before = path.read_bytes()
    spoil(net, classes=np.array(labels) if isinstance(labels, list) else labels)
    with refused(ValueError, "cannot be saved", message):
        net.save(path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_one_of_many_labels_may_be_long(path):
    n = 3000
    net = Network([1, n], weight_init="zeros")
    net.classes = np.array([str(number) for number in range(n - 1)] + ["x" * 1000])
    assert through_file(net, path).classes[-1] == "x" * 1000  # 12 MB in memory
    net.classes = np.array([str(number) for number in range(n - 1)] + ["x" * 10_000])
    with refused(ValueError, "shorten it"):
        net.save(path)


def test_names_become_text(path):
    net = Network([3, 1], seed=0)
    net.feature_names, net.target_name = np.array(["a", 2, None], object), 5
    other = through_file(net, path)
    assert (other.feature_names, other.target_name) == (["a", "2", "None"], "5")
    net.feature_names = None
    assert through_file(net, path).feature_names == []
    spoil(net, feature_names=["a"])
    with refused(ValueError, "cannot be saved", "name"):
        net.save(path)


UNFIT = {
    "weight_init": 3, "input_scale": 0.0, "loss_parameter": math.nan, "missing_targets": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_was_spoiled_by_hand_is_not_written(name, path):
    net = Network([3, 4, 1], seed=0)
    spoil(net, **{name: UNFIT[name]})
    with pytest.raises(ValueError, match="cannot be saved"):
        net.save(path)
    assert os.listdir(path.parent) == []


def test_an_output_activation_that_was_given_afterwards(path):
    clf = cmlp.MLPClassifier((4,), max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cmlp.ConvergenceWarning)
        clf.fit(X, Y)
    clf.out_activation_ = "identity"
    other = through_file(clf.network_, path)
    assert other.activations[-1] == "identity"
    np.testing.assert_array_equal(other.predict(X), clf.network_.predict(X))
    again = through_file(other, path)
    np.testing.assert_array_equal(again.predict(X), clf.network_.predict(X))


def test_files_that_are_open(path):
    net, file = small(), io_.BytesIO(b"....")
    file.seek(4)
    net.save(file, optimizer=True)
    file.seek(4)
    assert_goes_on(cmlp.load(file), net)
    file.seek(0)
    with refused(ModelFileError, "the file"):
        cmlp.load(file)
    with open(path, "w+b") as file:
        net.save(file)
        file.seek(0)
        np.testing.assert_array_equal(cmlp.load(file).params, net.params)
        file.seek(9)
        with refused(ModelFileError, path):
            cmlp.load(file)


def test_the_record_of_training(path):
    net = small()
    other = through_file(net, path)
    assert other.history == net.history and other.history.metric == net.history.metric
    assert other.history["val_loss"] == net.history["val_loss"]
    assert vars(other.history) == vars(net.history) | {"solver": "adam"}
    other.fit(X, net.classes[Y], epochs=1)
    assert other.history["epoch"] == [1, 2, 3]


@pytest.mark.parametrize("how", [{"patience": 1, "epochs": 9, "learning_rate": 2.0}, {"epochs": 1}])
def test_why_training_ended_is_kept(path, how):
    net = Network([3, 5, 3], seed=0)
    net.fit(X, Y, validation_fraction=0.2, **how)
    net.history.metric = "a score of mine"
    kept = vars(net.history) | {"solver": "sgd"}
    assert kept["restored"] == ("patience" in how) and kept["best_epoch"]
    assert vars(through_file(net, path).history) == kept
    twice = through_file(through_file(net, path), path)
    assert vars(twice.history) == kept and vars(twice.folded().history) == kept
    assert vars(pickle.loads(pickle.dumps(twice)).history) == kept


def test_records_from_before_they_said_why(saved, path):
    record = json.loads(saved[2]["history"])
    old = {key: record[key] for key in ("metric", "values")}
    safetensors.write(path, saved[1], saved[2] | {"history": json.dumps(old)})
    history = cmlp.load(path).history
    assert dict(history) == record["values"] and history.metric == record["metric"]
    assert (history.stopped, history.best_epoch, history.restored) == ("epochs", None, False)
    older = pickle.loads(pickle.dumps(Network([3, 1])))
    vars(older.history).clear()
    assert (older.history.restored, older.history.solver) == (False, "")


def test_a_record_of_uneven_lists(path):
    """Programs write into it, too: once in an epoch, or now and then."""
    net = small()
    net.history["mine"], net.history["loss"] = [1, np.float32(0.5), math.nan], [2.0]
    other = through_file(net, path)
    assert repr(dict(other.history)) == repr({**net.history, "mine": [1.0, 0.5, math.nan]})
    net.history["mine"] = [None]
    with refused(ValueError, "cannot be saved", "history['mine'] must hold numbers"):
        net.save(path)


def test_a_thinned_record_goes_on_counting(path, monkeypatch):
    monkeypatch.setattr(history, "MAX_EPOCHS", 4)
    monkeypatch.setattr(history, "MAX_EPOCHS", 4)
    net = Network([3, 3], seed=0)
    net.fit(X, Y, epochs=10)
    other = through_file(net, path)
    assert other.history["epoch"] == [1, 4, 7, 10] and other.history.epochs == 10
    other.fit(X, Y, epochs=1)
    assert other.history["epoch"] == [1, 4, 7, 10, 11]


def test_an_input_scale_goes_through_a_file(engine, dtype, path):
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
def test_training_goes_on_as_it_would_have(engine, dtype, solver, path):
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
    return path.read_bytes(), *safetensors.read(path)


def load_or_refuse(path, most=2_000_000):
    """Load a file that may be bad: it is loaded or refused, and takes little memory."""
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
    for at in rng.permutation(header)[:250]:
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
    if value is ...:
        del part[inner[-1]]
    else:
        part[inner[-1]] = value
    return metadata | {key: json.dumps(whole)}


SCALE = ("network", "input_scale")


@pytest.mark.parametrize("field", [*FIELDS, SCALE], ids=".".join)
def test_absurd_metadata(saved, path, field):
    for value in ABSURD:
        safetensors.write(path, saved[1], edited(saved, field, value))
        load_or_refuse(path)


@pytest.mark.parametrize("field", [field for field in FIELDS if len(field) > 1], ids=".".join)
def test_missing_metadata(saved, path, field):
    safetensors.write(path, saved[1], edited(saved, field, ...))
    with refused(ModelFileError, path):
        cmlp.load(path)


def test_files_from_before_there_was_an_input_scale(saved, path):
    safetensors.write(path, saved[1], edited(saved, SCALE, ...))
    assert cmlp.load(path).input_scale == 1


@pytest.mark.parametrize("key", ["format", "format_version", "network", "history"])
def test_missing_parts(saved, path, key):
    metadata = dict(saved[2])
    del metadata[key]
    safetensors.write(path, saved[1], metadata)
    with refused(ModelFileError, path):
        cmlp.load(path)


HOSTILE = {
    "sizes beyond memory": (("network", "sizes"), [10**18, 10**18, 3]),
    "sizes beyond 64 bits": (("network", "sizes"), [10**30, 5, 3]),
    "negative sizes": (("network", "sizes"), [-3, 5, 3]),
    "fractions of units": (("network", "sizes"), [3.0, 5, 3]),
    "truth as a size": (("network", "sizes"), [3, 5, True]),
    "one size": (("network", "sizes"), [3]),
    "a name in capitals": (("network", "activations"), ["Tanh", "softmax"]),
    "another name of a loss": (("network", "loss"), "cross_entropy"),
    "a long name": (("network", "loss"), "cross_entropy" * 10**5),
    "an unknown start": (("network", "weight_init"), "heavy"),
    "truth as a number": (("network", "loss_parameter"), True),
    "a negative parameter": (("network", "loss_parameter"), -1),
    "a parameter that is none": (("network", "loss_parameter"), math.nan),
    "an endless parameter": (("network", "loss_parameter"), math.inf),
    "names that are none": (("network", "feature_names"), ["a", "b", 3]),
    "two names for three inputs": (("network", "feature_names"), ["a", "b"]),
    "a number as a name": (("network", "target_name"), 3),
    "normalised by what": (("network", "normalization"), "Batch"),
    "numbers for truth": (("network", "missing_targets"), 1),
    "a key that comes twice": (("network",), '{"sizes": [3, 5, 3], "sizes": [3, 5, 3]}'),
    "too many layers": (("network", "sizes"), [3, 5, 5, 3]),
    "other sizes": (("network", "sizes"), [3, 6, 3]),
    "unknown activation": (("network", "activations"), ["tanhh", "softmax"]),
    "a slope that is none": (("network", "activations"), ["leaky_relu:nan", "softmax"]),
    "a long slope": (("network", "activations"), ["leaky_relu:0." + "3" * 10**6, "softmax"]),
    "an epsilon without end": (("network", "normalization"), "layer:1e" + "9" * 10**6),
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
    "steps that are true": (("optimizer", "steps"), True),
    "steps with a fraction": (("optimizer", "steps"), 1.0),
    "another generator": (("optimizer", "generator", "bit_generator"), "SFC64"),
    "a function as generator": (("optimizer", "generator", "bit_generator"), "default_rng"),
    "half a word that is true": (("optimizer", "generator", "has_uint32"), True),
    "three halves of a word": (("optimizer", "generator", "has_uint32"), 2),
    "more in the state": (("optimizer", "generator", "state"), {"state": 1, "inc": 1, "x": 1}),
    "a mean of too many steps": (("optimizer", "averaged"), 10**6),
    "a digest of 33 bits": (("optimizer", "shown_average"), 2**32),
    "a negative state": (("optimizer", "generator", "state", "state"), -1),
    "a state too large": (("optimizer", "generator", "state", "inc"), 2**200),
    "a word too large": (("optimizer", "generator", "uinteger"), 2**70),
    "a negative word": (("optimizer", "generator", "uinteger"), -5),
    "labels for others": (("classes", "labels"), ["aaa", "b"]),
    "too many labels": (("classes", "labels"), ["aaa", "b", "c", "d"]),
    "labels twice": (("classes", "labels"), ["aaa", "aaa", "b"]),
    "labels that NumPy takes for one": (("classes", "labels"), ["aa\0", "aa", "bbb"]),
    "nested labels": (("classes", "labels"), [["a"], ["b"], ["c"]]),
    "huge labels": (("classes", "dtype"), "<U3000000"),
    "labels longer than they are": (("classes", "dtype"), "<U4"),
    **{f"labels of the dtype {name!r}": (("classes", "dtype"), name) for name in (
        "f4,f4", "O", "|O", "f4,(", "(2,)i4", "i8", "<i8 ", "<f16", "<c8", "<M8[s]", "|V4", "U3",
        "<U", "<U03", "<U٣", "=U3", "str", "__import__('os')", "[('a', '<i8')]", "", "x" * 10**6,
    )},
    **{f"the dtype {name!r}": (("network", "dtype"), name) for name in (
        "f4", "<f4", "float32 ", "Float32", "f4,(", "O", "single",
    )},
    "an endless number": (("history", "values"), {"loss": [10**400]}),
    "a number as history": (("history", "values"), {"loss": 5}),
    "uneven lists": (("history", "values"), {"loss": [1, 2], "seconds": [1]}),
    "truth in a list": (("history", "values"), {"loss": [True]}),
    "text in a list": (("history", "values"), {"loss": ["1"]}),
    "too many epochs": (("history", "values"), {"loss": [0] * 10_001}),
    "an end that is no text": (("history", "stopped"), 1),
    "a best epoch before the first": (("history", "best_epoch"), 0),
    "a best epoch that is true": (("history", "best_epoch"), True),
    "a solver of the record": (("history", "solver"), "sdg"),
    "nests": (("network",), "[" * 50_000 + "]" * 50_000),
    "a number too long": (("optimizer",), '{"solver": "adam", "steps": ' + "9" * 5000 + "}"),
    "no scale": (SCALE, 0),
    "a negative scale": (SCALE, -0.5),
    "a scale that is no number": (SCALE, math.nan),
    "an endless scale": (SCALE, math.inf),
    "a scale of many digits": (SCALE, 10**400),
    "a scale in words": (SCALE, "1"),
    "a scale that is true": (SCALE, True),
    "no JSON": (("network",), "{"),
    "the future": (("format_version",), "2"),
    "another program": (("format",), "pt"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_metadata(saved, path, case):
    safetensors.write(path, saved[1], edited(saved, *HOSTILE[case]))
    most = 2_000_000 + 20 * path.stat().st_size
    assert load_or_refuse(path, most) is None, "it was loaded"


def test_many_layers_cost_no_more_than_their_header(saved, path):
    n = 30_000
    metadata = edited(saved, ("network", "sizes"), [1] * (n + 1))
    about = json.loads(metadata["network"]) | {"activations": ["tanh"] * n}
    safetensors.write(path, saved[1], metadata | {"network": json.dumps(about)})
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
    safetensors.write(path, arrays, saved[2])
    with refused(ModelFileError, path, "layers."):
        cmlp.load(path)


STATES = {
    ("MT19937", "state", "pos"): (-1, 625, 10**6, True, 3.0),
    ("MT19937", "state", "key"): ([0] * 623, [0] * 625, [2**32] * 624, [-1] * 624, [True] * 624, 0),
    ("Philox", "buffer_pos"): (-1, 5, 2**31),
    ("Philox", "buffer"): ([0] * 3, [0] * 5, [2**64] * 4, [0.0] * 4, None),
    ("Philox", "state", "counter"): ([0] * 3, [2**64] * 4),
    ("SFC64", "state", "state"): ([1] * 5, ["1"] * 4),
}


@pytest.mark.parametrize("field", STATES, ids=".".join)
def test_states_that_a_generator_would_read_beyond(field, path):
    """NumPy takes any place in a buffer from a state, and reads there."""
    net = Network([3, 4, 3], seed=np.random.Generator(getattr(np.random, field[0])(1)))
    net.fit(X, Y, epochs=1)
    net.save(path, optimizer=True)
    saved = (None, *safetensors.read(path))
    for value in STATES[field]:
        safetensors.write(
            path, saved[1], edited(saved, ("optimizer", "generator", *field[1:]), value)
        )
        assert load_or_refuse(path) is None, value


def test_a_generator_of_another_kind_is_not_written(path):
    class Own(np.random.PCG64):
        pass

    net = Network([3, 3], seed=np.random.Generator(Own(1)))
    net.save(path)
    for state, message in (({"word": {1}}, "holds a set"), ({"bit_generator": "Own"}, "'Own'")):
        Own.state = state
        with refused(ValueError, "cannot be saved", message):
            net.save(path, optimizer=True)


@pytest.mark.parametrize("unit", [b"[", b'{"a":'], ids=["lists", "objects"])
def test_nests_in_the_text(saved, path, unit):
    for key in ("network", "history", "classes", "optimizer"):
        safetensors.write(path, saved[1], saved[2] | {key: (unit * 100_000).decode()})
        assert load_or_refuse(path, most=20 * path.stat().st_size) is None


def test_a_file_that_memory_does_not_hold(saved, path, monkeypatch):
    path.write_bytes(saved[0])

    def no_memory(*_):
        raise MemoryError("Unable to allocate 8.00 EiB")

    for function in ("cmlp.formats.safetensors.np.empty", "cmlp.model.state.aligned"):
        with monkeypatch.context() as patch:
            patch.setattr(function, no_memory)
            with refused(ModelFileError, path, "8.00 EiB"):
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
def test_copies(engine, dtype, way):
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


def test_joblib(engine, tmp_path):
    net = small()
    expected = net.predict(X)
    joblib.dump(net, tmp_path / "net.joblib")
    assert_goes_on(joblib.load(tmp_path / "net.joblib"), net)
    mapped = joblib.load(tmp_path / "net.joblib", mmap_mode="r")
    np.testing.assert_array_equal(mapped.predict(X), expected)


def test_a_network_of_any_core_works_on_any_other(engine, path):
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


def test_pickles_name_no_core(engine):
    net = small()
    net.predict(X)
    texts = [str(argument) for _, argument, _ in pickletools.genops(pickle.dumps(net))]
    assert {text for text in texts if text.startswith("cmlp")} == {"cmlp"}


# Files changed at random -------------------------------------------------------------------------

TOOL = Path(__file__).parents[2] / "tools" / "fuzz_files.py"


@pytest.fixture(scope="module")
def fuzz():
    if not TOOL.exists():
        pytest.skip("tools/fuzz_files.py is in the source tree only")
    pytest.importorskip("resource", reason="limits of memory are POSIX's")
    spec = importlib.util.spec_from_file_location("fuzz_files", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_that_were_changed_at_random(fuzz, monkeypatch):
    monkeypatch.setattr(fuzz, "SECOND_FILES", 1)
    counts, wrong, _ = fuzz.run((fuzz.seeds(), 14, 600, None))
    assert not wrong
    assert counts["refused"] > 400 and counts["accepted"] > 20 and counts.total() == 600


PLANTED = {
    "an exception": ("cmlp.formats.cmlp_file.read_classes", lambda *_: 1 // 0),
    "a parser": ("cmlp.formats.label_records._number_labels", lambda *_: np.dtype("f4,(")),
    "memory": ("cmlp.formats.cmlp_file.read_state", lambda record: np.ones(10**6) and {}),
    "a warning": ("cmlp.formats.cmlp_file.read_history",
                  lambda record: warnings.warn("odd", stacklevel=1)),
    "other weights": ("cmlp.formats.safetensors._read_array", lambda file, path, name, info: (
        np.random.default_rng().normal(size=info.shape).astype(info.dtype))),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_faults_that_are_found(fuzz, fault, monkeypatch):
    files = fuzz.seeds()
    monkeypatch.setattr(fuzz, "MEASURED", 1)
    monkeypatch.setattr(fuzz, "SECOND_FILES", 1)
    monkeypatch.setattr(*PLANTED[fault])
    assert fuzz.run((files, 14, 100, None))[1]
