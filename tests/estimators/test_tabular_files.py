"""A tabular estimator in one file: what is read predicts the same bits, and no file breaks it."""

import io
import json

import numpy as np
import pytest
from helpers import refused

import cmlp
from cmlp import ModelFileError, TabularClassifier, TabularRegressor
from cmlp.formats import safetensors

FEW = {"hidden_layer_sizes": (8,), "max_iter": 3, "cv": None, "random_state": 0, "n_threads": 1}


def rows(n=120, seed=0):
    """Numbers with gaps, and text, as a list of dicts."""
    rng = np.random.default_rng(seed)
    sizes, cities = rng.normal(size=n), rng.choice(["Bern", "Oslo", "Rome"], n)
    gone = rng.random(n) < 0.1
    return [
        {"size": None if gone[i] else float(sizes[i]), "city": str(cities[i])} for i in range(n)
    ]


X = rows()
NUMBERS = np.array([row["size"] or 0 for row in X]) * 1000
LABELS = [f"{row['city']}!" for row in X]
CASES = {
    "classes": (TabularClassifier(**FEW), LABELS),
    "two classes": (TabularClassifier(**FEW, class_weight={3: 2.0}), [3, 4] * 60),
    "truth values": (TabularClassifier(**FEW), [True, False] * 60),
    "one class": (TabularClassifier(**FEW), ["a"] * 120),
    "labels": (TabularClassifier(**FEW), np.eye(3, dtype=int)[np.arange(120) % 3]),
    "number": (TabularRegressor(**FEW), NUMBERS),
    "numbers": (TabularRegressor(**FEW), np.column_stack([NUMBERS, -NUMBERS])),
    "members": (TabularClassifier(**FEW | {"n_ensemble": 2, "cv": 2}), LABELS),
    "quantile": (TabularRegressor(**FEW, loss="quantile", quantile=0.9), NUMBERS),
    "poisson": (TabularRegressor(**FEW, loss="poisson"), abs(NUMBERS)),
    "float64": (TabularRegressor(**FEW, dtype="float64"), NUMBERS),
    "unnamed": (TabularClassifier(**FEW), LABELS),
}


@pytest.fixture(scope="module", params=CASES)
def fitted(request):
    model, y = CASES[request.param]
    table = [list(row.values()) for row in X] if request.param == "unnamed" else X
    return model.fit(table, y), table


def bytes_of(model):
    file = io.BytesIO()
    model.save(file)
    return file.getvalue()


def test_what_is_read_predicts_the_same_bits(fitted, tmp_path):
    model, table = fitted
    model.save(tmp_path / "model.cmlp")
    read = cmlp.load(tmp_path / "model.cmlp")
    assert type(read) is type(model)
    np.testing.assert_array_equal(read.predict(table), model.predict(table))
    np.testing.assert_array_equal(read.transform(table), model.transform(table))
    if isinstance(model, TabularClassifier):
        np.testing.assert_array_equal(read.predict_proba(table), model.predict_proba(table))
        assert read.classes_.dtype == model.classes_.dtype
    assert read.predictor()(table[0]) == model.predictor()(table[0])


def test_what_is_read_knows_the_rest(fitted):
    model, _ = fitted
    read = cmlp.load(io.BytesIO(bytes_of(model)))
    for name in ("n_iter_", "best_iteration_", "validation_score_", "n_features_in_",
                 "n_outputs_", "column_kinds_"):  # fmt: skip
        assert getattr(read, name) == getattr(model, name), name
    assert hasattr(read, "feature_names_in_") == hasattr(model, "feature_names_in_")
    assert dict(read.history_) == dict(model.history_)
    for name, value in model.get_params().items():
        came = read.get_params()[name]
        assert came == (list(value) if name == "hidden_layer_sizes" else value), name
    assert bytes_of(read) == bytes_of(model)


def test_what_is_read_learns_again():
    model, y = CASES["members"]
    read = cmlp.load(io.BytesIO(bytes_of(model.fit(X, y))))
    np.testing.assert_array_equal(read.fit(X, y).predict_proba(X), model.predict_proba(X))


def test_what_no_file_holds_is_left_out():
    model = TabularClassifier(
        **FEW | {"random_state": np.random.default_rng(0)}, callbacks=[lambda state: None],
        scoring=lambda estimator, X, y: 0.0,
    ).fit(X, LABELS)  # fmt: skip
    read = cmlp.load(io.BytesIO(bytes_of(model)))
    assert read.callbacks == () and read.scoring == "loss" and read.random_state is None
    np.testing.assert_array_equal(read.predict_proba(X), model.predict_proba(X))


def test_an_estimator_before_its_fit_has_nothing_to_save(tmp_path):
    with pytest.raises(cmlp.NotFittedError):
        TabularClassifier().save(tmp_path / "model.cmlp")
    assert not list(tmp_path.iterdir())


def test_networks_are_read_as_before(tmp_path):
    net = cmlp.Network([2, 3, 1], seed=0)
    net.save(tmp_path / "net.cmlp")
    assert type(cmlp.load(tmp_path / "net.cmlp")) is cmlp.Network
    CASES["classes"][0].fit(X, LABELS).save(tmp_path / "model.cmlp")
    from cmlp import network

    with refused(ModelFileError, "cmlp.load"):
        network.load(tmp_path / "model.cmlp")


# Files of strangers ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts():
    raw = bytes_of(CASES["members"][0].fit(X, LABELS))
    return safetensors.read(io.BytesIO(raw))


def load_changed(arrays, metadata, about=None):
    file = io.BytesIO()
    if about is not None:
        metadata = metadata | {"tabular": json.dumps(about)}
    safetensors.write(file, arrays, metadata)
    file.seek(0)
    return cmlp.load(file)


WRONG = {
    "kind": "Pickle", "parameters": {"nonsense": 1}, "labels": None, "multilabel": 1,
    "encoders": [], "networks": [], "resolved": [],
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_wrong_entries_are_refused(parts, key):
    arrays, metadata = parts
    about = json.loads(metadata["tabular"])
    with pytest.raises(ModelFileError):
        load_changed(arrays, metadata, about | {key: WRONG[key]})
    del about[key]
    with pytest.raises(ModelFileError):
        load_changed(arrays, metadata, about)


def test_arrays_must_be_those_described(parts):
    arrays, metadata = parts
    for name in arrays:
        with pytest.raises(ModelFileError):
            load_changed({key: a for key, a in arrays.items() if key != name}, metadata)
        with pytest.raises(ModelFileError):
            load_changed(arrays | {name: np.concatenate([arrays[name]] * 2)}, metadata)
    with refused(ModelFileError, "more"):
        load_changed(arrays | {"more": np.zeros(3)}, metadata)


def test_networks_must_fit_their_encoder_and_labels(parts):
    arrays, metadata = parts
    about = json.loads(metadata["tabular"])
    about["networks"][0]["encoder"] = 7
    with refused(ModelFileError, "encoder"):
        load_changed(arrays, metadata, about)
    about = json.loads(metadata["tabular"])
    about["labels"]["labels"].append("Wien!")
    with refused(ModelFileError, "outputs"):
        load_changed(arrays, metadata, about)


def test_a_file_changed_anywhere_raises_nothing_else(parts):
    """A letter of its text at a time; what is still read predicts."""
    arrays, metadata = parts
    text, rng = metadata["tabular"], np.random.default_rng(0)
    for _ in range(300):
        place = int(rng.integers(len(text)))
        letter = rng.choice(list('0123456789-.,:[]{}"eNatruflsz\\'))
        changed = text[:place] + letter + text[place + 1 :]
        try:
            model = load_changed(arrays, metadata | {"tabular": changed})
        except ModelFileError:
            continue
        assert isinstance(model, TabularClassifier)


def test_a_file_that_is_cut_off(parts):
    file = io.BytesIO()
    safetensors.write(file, *parts)
    raw = file.getvalue()
    for n in (0, 7, 100, len(raw) // 2, len(raw) - 1):
        with pytest.raises(ModelFileError):
            cmlp.load(io.BytesIO(raw[:n]))
