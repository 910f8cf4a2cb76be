"""Python files: run without cmlp, and without NumPy, they predict what the models do."""

import ast
import dataclasses
import datetime
import json
import os
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest
from written_files import (
    CATEGORIES,
    ENCODERS,
    HOSTILE,
    encoder_and_chain,
    old_python,
    run_python,
    table,
)

import cmlp
from cmlp import to_python
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.exchange.chains import chain_of
from cmlp.formats.chain import Activation, ConversionError, run
from cmlp.formats.python import pieces
from cmlp.formats.python.source import python_source
from cmlp.formats.raw_rows import raw_rows_of

rng = np.random.default_rng(0)
X = (rng.normal(size=(1500, 7)) * 2).astype(np.float32)
NAMES = [row.name for row in ACTIVATIONS]
SLOPES = ["leaky_relu:0.3", "elu:0.5"]


@pytest.fixture(autouse=True)
def twin():
    """The files compute what the NumPy core does."""
    with cmlp.use_core("python"):
        yield


def network(activation, dtype="float32", **options):
    if activation == "softmax":
        return cmlp.Network(
            [7, 5], out_activation="softmax", loss="categorical_crossentropy", dtype=dtype, seed=1
        )
    net = cmlp.Network(
        [7, 19, 8, 5], activation, out_activation="identity", loss="squared_error", dtype=dtype,
        seed=1, **options,
    )  # fmt: skip
    for b in net.biases:
        b[...] = rng.normal(size=b.shape) / 4
    return net


@pytest.mark.parametrize("rows", ["NUMPY_ACTIVATIONS", "PURE_ACTIVATIONS"])
def test_every_activation_has_a_row(rows):
    assert list(getattr(pieces, rows)) == NAMES


def test_an_activation_without_one_is_refused(monkeypatch):
    monkeypatch.delitem(pieces.PURE_ACTIVATIONS, "tanh")
    with pytest.raises(ConversionError, match="'tanh' cannot be written as Python; there are"):
        to_python(network("tanh"), pure=True)


WRITE_ALL = """
import numpy as np, glob, importlib, os
X = np.load("X.npy")
for name in sorted(each[:-3] for each in glob.glob("m*.py")):
    module = importlib.import_module(name)
    parts = [module.outputs(X), module.outputs(X[:1]), module.outputs(X[:0])]
    np.save(name, np.concatenate(parts))
print("1")
"""

PURE_ALL = """
import glob, importlib
X = json.load(open("X.json"))
found = {}
for name in sorted(each[:-3] for each in glob.glob("p*.py")):
    found[name] = importlib.import_module(name).outputs(X)
assert "numpy" not in sys.modules
print(json.dumps(found))
"""


def matrix():
    """Return networks of every activation, both dtypes, with layer norm and with alphas."""
    for name in (*NAMES, *SLOPES):
        yield network(name)
        if name != "softmax":
            yield network(name, "float64", normalization="layer")
            yield network(name, parametric_activation=True)


def test_bits_of_every_activation(tmp_path):
    """Also of a row alone, and where a pass ends: products of other shapes may round otherwise."""
    np.save(tmp_path / "X.npy", X[:70])
    nets = [*matrix(), network("tanh", normalization="batch").folded()]
    for number, net in enumerate(nets):
        to_python(net, tmp_path / f"m{number:03}.py")
    run_python(tmp_path, WRITE_ALL)
    for number, net in enumerate(nets):
        found = np.load(tmp_path / f"m{number:03}.npy")
        assert found.dtype == net.dtype
        np.testing.assert_array_equal(found[:-1], net.predict(X[:70]))
        np.testing.assert_array_equal(found[-1:], net.predict(X[:1]))
    np.testing.assert_array_equal(loaded(nets[0])["outputs"](X), nets[0].predict(X))


@pytest.mark.parametrize("python", [sys.executable, old_python()], ids=["this", "old"])
def test_without_numpy(tmp_path, python):
    if python is None:
        pytest.skip("no Python 3.8")
    rows = X[:3] / 4
    (tmp_path / "X.json").write_text(json.dumps(rows.tolist()))
    nets = list(matrix())
    for number, net in enumerate(nets):
        to_python(net, tmp_path / f"p{number:03}.py", pure=True)
    found = run_python(tmp_path, PURE_ALL, "-S", python=python)
    for (name, values), net in zip(found.items(), nets, strict=True):
        exact, twin = run(chain_of(net), rows), net.predict(rows)
        np.testing.assert_allclose(values, exact, rtol=1e-12, atol=1e-12, err_msg=name)
        largest = max(1.0, np.abs(twin).max())
        rounding = np.abs(twin - exact).max()  # of the twin, in float32
        assert np.abs(values - twin).max() <= 1e-6 * largest + 4 * rounding


def loaded(model, **options):
    """Run a written file in this process."""
    module = {"__name__": "written"}
    exec(to_python(model, **options), module)
    return module


def test_a_front():
    inputs = cmlp.Inputs(periodic=[0, 1], levels={2: (5, 4)}, summed={3: 9})
    rows = np.c_[X[:, :2], rng.integers(-1, 6, 1500), rng.uniform(-1, 10, 1500), X[:, 2:4]]
    net = cmlp.Network([6, 16, 2], "silu", inputs=inputs, seed=0, loss="squared_error")
    net.fit(rows, X[:, :2], epochs=2)
    np.testing.assert_array_equal(loaded(net)["outputs"](rows), net.predict(rows))
    pure = loaded(net, pure=True)["outputs"](rows.tolist())
    np.testing.assert_allclose(pure, net.predict(rows), rtol=1e-6, atol=1e-6)
    scaled = cmlp.Inputs(summed={0: 4, 1: 3}, scaled=True)
    net = cmlp.Network([3, 4, 2], inputs=scaled, seed=0, normalization="layer")
    places = rows[:, 2:5]
    np.testing.assert_array_equal(loaded(net)["outputs"](places), net.folded().predict(places))


def fitted(kind, y, **options):
    given = {"hidden_layer_sizes": (9,), "max_iter": 2, "random_state": 0, "n_ensemble": 3}
    return kind(**given | options).fit(X[:100], y[:100])


TEXT = np.array(HOSTILE)[np.arange(1500) % len(HOSTILE)]
CLASSIFIED = {
    "two": TEXT[np.arange(1500) % 2],
    "hostile": TEXT,
    "one": np.repeat(7, 1500),
    "truth": X[:, 0] > 0,
    "floats": np.arange(1500) % 3 * 1e300,
    "large": 2**64 - 1 - np.arange(1500, dtype=np.uint64) % 3,
    "several": (X[:, :4] > 0).astype(int),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("y", CLASSIFIED.values(), ids=CLASSIFIED)
def test_classifiers(y):
    model = fitted(cmlp.MLPClassifier, y)
    file, pure = loaded(model), loaded(model, pure=True)
    assert file["CLASSES"] == model.classes_.tolist() == pure["CLASSES"]
    for rows in (X, X.astype(np.float64)):
        labels, proba = model.predict(rows), model.predict_proba(rows)
        found = file["predict"](rows)
        assert found.dtype == labels.dtype
        np.testing.assert_array_equal(found, labels)
        np.testing.assert_array_equal(file["predict_proba"](rows), proba)
        assert file["predict_proba"](rows).dtype == proba.dtype
    assert np.array_equal(pure["predict"](rows[:20].tolist()), labels[:20])
    np.testing.assert_allclose(pure["predict_proba"](rows[:20].tolist()), proba[:20], atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_regressors():
    for y in (X[:, 0], X[:, :3]):
        model = fitted(cmlp.MLPRegressor, y)
        file, pure = loaded(model), loaded(model, pure=True)
        for rows in (X, X.astype(np.float64)):
            np.testing.assert_array_equal(file["predict"](rows), model.predict(rows))
            assert file["predict"](rows).dtype == model.predict(rows).dtype
        np.testing.assert_allclose(pure["predict"](X[:9].tolist()), model.predict(X[:9]), atol=1e-6)
        assert "predict_proba" not in file


def test_networks():
    for out, n, y in (
        ("softmax", 3, rng.integers(0, 3, 1500)),
        ("logistic", 1, rng.integers(0, 2, 1500)),
        ("logistic", 4, rng.integers(0, 2, (1500, 4))),
    ):
        loss = "binary_crossentropy" if out == "logistic" else "categorical_crossentropy"
        net = cmlp.Network([7, 5, n], out_activation=out, loss=loss, seed=0)
        net.fit(X[:50], y[:50], epochs=1)
        file = loaded(net)
        np.testing.assert_array_equal(file["predict"](X), net.predict_classes(X))
        np.testing.assert_array_equal(file["predict_proba"](X)[:, -n:], net.predict(X))


@pytest.mark.filterwarnings("ignore")
def test_a_scale_and_scalers():
    net = cmlp.Network([7, 5, 2], "tanh", seed=0, input_scale=1 / 255)
    np.testing.assert_allclose(loaded(net)["outputs"](X * 99), net.predict(X * 99), atol=2e-6)
    far = X.astype(np.float64) + 1e5
    model = cmlp.MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, random_state=0)
    model.fit(X, X[:, 0])

    class StandardScaler:
        n_features_in_, mean_, scale_ = 7, np.full(7, 1e5), np.full(7, 2.0)

    class Pipeline:
        def __init__(self):
            self.steps = [("scale", StandardScaler()), ("net", model)]

    expected = model.predict((far - 1e5) / 2)
    for pure in (False, True):
        found = loaded(Pipeline(), pure=pure)["predict"](far[:50].tolist())
        np.testing.assert_allclose(found, expected[:50], atol=1e-6)


# Tables ------------------------------------------------------------------------------------------


def tabular(kind, y, rows, **options):
    """Return a model whose networks are folded already: a file computes their bits."""
    given = {"hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0, "n_ensemble": 2}
    model = kind(categorical_features=CATEGORIES, **given | options).fit(rows, y)
    model._members = [
        dataclasses.replace(each, network=each.network.folded()) for each in model._members
    ]
    return model


def odd_rows(rows):
    """Return rows whose values have other types, are missing, far away or new."""
    changes = (
        {"size": "1e3", "two": 1, "level": "0.1"},
        {"size": 1e300, "city": "new", "two": "true"},
        {"size": " ? ", "level": 2, "text": "NaN"},
        {"size": True, "level": np.float32(0.1), "__proto__": np.int8(3)},
        {"two": "0", "level": 1.25e-5, "text": b"3.5"},
        {"city": "  ", "two": None, "level": float("nan")},
        {"size": np.float32(0.3), "city": "b's", "extra": []},
        {"when": np.datetime64("NaT"), "long": np.timedelta64(7, "s"), "level": Decimal("0.10")},
        {"when": " na ", "long": datetime.time(9, 30, 1), "two": np.bool_(True)},
    )
    return [*rows, *(rows[1] | change for change in changes), dict.fromkeys(rows[0])]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind, options, zone",
    [
        (cmlp.TabularClassifier, {}, None),
        (
            cmlp.TabularClassifier,
            {"numeric_embedding": "periodic", "embedding_size": 2},
            "Asia/Tokyo",
        ),
        (cmlp.TabularRegressor, {"numeric_embedding": None}, "Europe/Berlin"),
        (cmlp.TabularRegressor, {}, "+05:30"),
    ],
)
def test_raw_rows(kind, options, zone):
    named = zone if zone != "+05:30" else None
    rows, target = table(zone=named)
    if zone == "+05:30":
        for row in rows:
            row["when"] = row["when"].isoformat() + zone
        options = options | {"n_ensemble": 1}
    y = np.array(HOSTILE)[(target > 3).astype(int)] if kind is cmlp.TabularClassifier else target
    model = tabular(kind, y, rows, **options)
    rows = odd_rows(rows)
    file, pure = loaded(model), loaded(model, pure=True)
    encode = model.encoder_.row()
    encoded = np.array([encode(row) for row in rows])
    np.testing.assert_array_equal(file["_inputs"](rows), encoded)
    np.testing.assert_array_equal(np.array([*map(pure["_inputs"], rows)], np.float32), encoded)
    np.testing.assert_array_equal(file["predict"](rows), model.predict(rows))
    in_order = [[row[name] for name in file["FEATURE_NAMES"]] for row in rows]
    np.testing.assert_array_equal(file["predict"](in_order), model.predict(rows))
    assert file["predict"](rows[0]) == model.predict(rows[:1])[0]
    if kind is cmlp.TabularClassifier:
        np.testing.assert_array_equal(file["predict_proba"](rows), model.predict_proba(rows))
        assert pure["predict"](rows) == model.predict(rows).tolist()
        np.testing.assert_allclose(
            pure["predict_proba"](rows), model.predict_proba(rows), atol=1e-6
        )
    else:
        np.testing.assert_allclose(pure["predict"](rows), model.predict(rows), atol=1e-5, rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ENCODERS)
def test_what_encoders_can_do(name):
    encoder, rows, chain = encoder_and_chain(name)
    encode, raw = encoder.row(), raw_rows_of(encoder)
    for pure in (False, True):
        file = {}
        exec(python_source(chain, raw=raw, pure=pure), file)
        for row in odd_rows(rows)[-40:]:
            if name == "knots alone" and not isinstance(row["long"], (float, type(None))):
                continue
            found = file["_inputs"](row if pure else [row])
            np.testing.assert_array_equal(np.ravel(found).astype(np.float32), encode(row))


@pytest.fixture(scope="module")
def small():
    """A classifier of a table, and its rows."""
    rows, target = table()
    with cmlp.use_core("python"):
        model = tabular(cmlp.TabularClassifier, np.where(target > 3, "x\n", 'y"'), rows)
    return model, rows


@pytest.mark.filterwarnings("ignore")
def test_raw_rows_of_several_labels(small):
    rows, target = table()
    y = np.c_[target > 0, target > 5].astype(int)
    model = tabular(cmlp.TabularClassifier, y, rows)
    file = loaded(model)
    np.testing.assert_array_equal(file["predict_proba"](rows), model.predict_proba(rows))
    np.testing.assert_array_equal(file["predict"](rows), model.predict(rows))
    assert loaded(model, pure=True)["predict"](rows) == model.predict(rows).tolist()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"size": "five"}, "column 'size': a number expected, 'five' came"),
        ({"size": float("inf")}, "column 'size': inf is not a finite number"),
        ({"size": 10**400}, "column 'size': inf is not a finite number"),
        ({"size": "inf"}, "column 'size': a number expected"),
        ({"when": "May 5"}, "column 'when': a date as 2024-05-31"),
        ({"when": "2024-0531"}, "column 'when': a date as"),
        ({"when": "2024-05-31T09:30Z"}, "'when': '2024-05-31T09:30Z' has a time zone"),
        ({"when": 3.0}, "column 'when': a date expected"),
        ({"long": 3.0}, "column 'long': a duration expected"),
        ({"city": []}, "column 'city': a list cannot be a category"),
    ],
)
def test_values_that_a_column_cannot_hold(small, change, message):
    model, rows = small
    with pytest.raises(ValueError):
        model.predictor()(rows[0] | change)
    for pure in (False, True):
        with pytest.raises(ValueError, match=message):
            loaded(model, pure=pure)["predict"]([rows[0] | change])


def test_rows_that_do_not_fit(small):
    model, rows = small
    predict = loaded(model)["predict"]
    with pytest.raises(ValueError, match="the row lacks '__proto__'"):
        predict([{name: value for name, value in rows[0].items() if name != "__proto__"}])
    with pytest.raises(ValueError, match="a row of 8 values expected, 2 came"):
        predict([[1, 2]])
    with pytest.raises(TypeError, match="a row must be a dict or a list"):
        predict(["text"])
    predict = loaded(network("relu"))["predict"]
    with pytest.raises(ValueError, match=r"X must be \(n, 7\); its shape is \(2, 3\)"):
        predict(np.zeros((2, 3)))
    for bad in (np.nan, np.inf, 1e300):
        with pytest.raises(ValueError, match="X holds NaN, infinity, or a number too large"):
            predict(np.full((1, 7), bad))
        with pytest.raises(ValueError, match="X holds NaN, infinity, or a number too large"):
            loaded(network("relu"), pure=True)["predict"]([[bad] * 7])


# Text, files, programs ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pure", [False, True])
def test_hostile_text_is_data(tmp_path, pure):
    frame = {f"{name}\ud800": column for name, column in zip(HOSTILE, X.T, strict=False)}
    rows = [dict(zip(frame, values, strict=True)) for values in X[:60].tolist()]
    model = cmlp.TabularClassifier(
        (4,), n_ensemble=1, max_iter=1, random_state=0, numeric_embedding=None
    ).fit(rows, TEXT[:60])
    to_python(model, tmp_path / "m.py", pure=pure)
    text = (tmp_path / "m.py").read_bytes()
    assert text.isascii() and b"\0" not in text and b"\r" not in text
    code = f"import m; print(json.dumps([m.CLASSES, m.FEATURE_NAMES, list(m.predict({rows}))]))"
    classes, names, labels = run_python(tmp_path, code)
    assert classes == model.classes_.tolist() and names == list(frame)
    assert labels == model.predict(rows).tolist()
    lines = text.decode().splitlines()
    assert sum("__import__('os')" in line for line in lines) == 1  # in the list of labels


@pytest.mark.parametrize("pure", [False, True])
def test_what_a_file_imports_and_calls(small, pure):
    text = to_python(small[0], pure=pure)
    nodes = [*ast.walk(ast.parse(text, feature_version=(3, 8)))]
    imported = {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    rows = {"bisect", "datetime", "decimal", "re", "zoneinfo", "csv", "os", "sys"}
    assert imported == rows | {"binascii", "math", "struct" if pure else "numpy"}
    assert not any(isinstance(node, ast.ImportFrom) for node in nodes)
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    assert not names & {"eval", "exec", "compile", "__import__", "globals"}


def program(folder, name, cells):
    """Return what a file prints about CSV text, as it is read from standard input."""
    done = subprocess.run(
        [sys.executable, "-I", name], cwd=folder, input=cells, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_as_a_program(tmp_path, small):
    model, rows = small
    to_python(model, tmp_path / "table.py", pure=True)
    row = rows[0] | {"size": "", "long": "", "city": "a", "when": "2001-02-03 04:05"}
    cells = ",".join(["spare", *row]) + "\n0," + ",".join(map(str, row.values())) + "\n"
    label = model.predict([row | {"long": None}])[0]
    assert program(tmp_path, "table.py", cells) == {"x\n": '"x\n"\n', 'y"': '"y"""\n'}[label]
    net = network("tanh")
    net.feature_names = list("abcdefg")
    to_python(net, tmp_path / "net.py")
    turned = "g,f,e,d,c,b,a\n7,6,5,4,3,2,1\n"
    for cells in ("1,2,3,4,5,6,7\n", turned):
        found = np.array(program(tmp_path, "net.py", cells).split(","), float)
        np.testing.assert_array_equal(found, net.predict([[1, 2, 3, 4, 5, 6, 7]])[0])
    for file, cells in (("net.py", turned), ("table.py", ",".join(row) + "\n")):
        other = cells.replace("c", "d", 1)  # columns of another table, which would be predicted
        done = subprocess.run(
            [sys.executable, tmp_path / file], input=other, capture_output=True, text=True
        )
        assert "the first row lacks the columns 'c" in done.stderr and not done.stdout


@pytest.mark.skipif(os.name != "posix", reason="a pipe that is closed is another error there")
def test_a_reader_that_stops(tmp_path):
    """``python net.py < rows.csv | head -1`` ends without a message."""
    to_python(cmlp.Network([1, 2, 1], seed=0), tmp_path / "net.py")
    (tmp_path / "rows.csv").write_text("1\n" * 20_000)  # more than a pipe holds
    command = [sys.executable, "-I", "net.py", "rows.csv"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait() == 0


def test_files_are_whole_and_the_same(tmp_path):
    net = network("gelu")
    path = tmp_path / "m.py"
    assert to_python(net, path) is None
    text = path.read_text()
    assert text == to_python(net) == to_python(net) and str(tmp_path) not in text
    net.weights[0][0, 0] = np.nan
    with pytest.raises(ConversionError, match="layer 1 has weights that are not finite"):
        to_python(net, path)
    assert path.read_text() == text and [*tmp_path.iterdir()] == [path]
    with pytest.raises(OSError, match="nowhere"):
        to_python(network("gelu"), tmp_path / "nowhere" / "m.py")


def test_what_cannot_leave():
    with pytest.raises(ConversionError, match="TabularClassifier is not fitted"):
        to_python(cmlp.TabularClassifier())
    with pytest.raises(ConversionError, match="expected a Network, an estimator"):
        to_python(3)
    chain = chain_of(network("tanh"))
    dates = dataclasses.replace(chain, classes=np.array(["2020-01-01"] * 5, "M8[D]"))
    with pytest.raises(ConversionError, match="labels of dtype datetime64"):
        python_source(dates)
    steps = (*chain.members[0].steps, Activation("snake"))
    member = dataclasses.replace(chain.members[0], steps=steps)
    with pytest.raises(ConversionError, match="'snake' cannot be written"):
        python_source(dataclasses.replace(chain, members=(member,)))


def test_a_pipeline_of_a_table_is_refused(small):
    class Pipeline:
        def __init__(self):
            self.steps = [("model", small[0])]

    with pytest.raises(ConversionError, match="pass the tabular model alone"):
        to_python(Pipeline())
