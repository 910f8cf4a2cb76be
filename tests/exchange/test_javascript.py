"""JavaScript files: in Node they predict what the models do."""

import dataclasses
import datetime
import json
import re
import shutil

import numpy as np
import pytest
from written_files import CATEGORIES, ENCODERS, HOSTILE, encoder_and_chain, run_node, table

import cmlp
from cmlp import to_javascript
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.exchange.chains import chain_of
from cmlp.formats.chain import ConversionError, run
from cmlp.formats.js import pieces
from cmlp.formats.js.source import javascript_source, literal
from cmlp.formats.raw_rows import raw_rows_of

rng = np.random.default_rng(0)
X = (rng.normal(size=(100, 7)) * 2).astype(np.float32)
NAMES = [row.name for row in ACTIVATIONS]
SLOPES = ["leaky_relu:0.3", "elu:0.5"]
node = pytest.mark.skipif(shutil.which("node") is None, reason="no Node")


@pytest.fixture(autouse=True)
def twin():
    """The oracle of float32 networks is the NumPy core."""
    with cmlp.use_core("python"):
        yield


def network(activation, dtype="float32", **options):
    if activation == "softmax":
        return cmlp.Network([7, 5], out_activation="softmax", dtype=dtype, seed=1)
    net = cmlp.Network(
        [7, 19, 8, 5], activation, out_activation="identity", loss="squared_error", dtype=dtype,
        seed=1, **options,
    )  # fmt: skip
    for b in net.biases:
        b[...] = rng.normal(size=b.shape) / 4
    return net


def test_every_activation_has_a_row():
    assert list(pieces.ACTIVATIONS) == NAMES


def test_an_activation_without_one_is_refused(monkeypatch):
    monkeypatch.delitem(pieces.ACTIVATIONS, "tanh")
    with pytest.raises(ConversionError, match="'tanh' cannot be written as JavaScript; there are"):
        to_javascript(network("tanh"))


ALL = """
import fs from "fs";
const X = JSON.parse(fs.readFileSync("X.json"));
const found = [];
for (const name of fs.readdirSync(".").filter((name) => /^m\\d+/.test(name)).sort()) {
  const module = await import("./" + name);
  found.push(X.map((row) => (module.default || module).outputs(row)));
}
console.log(JSON.stringify(found));
"""


@node
def test_every_activation(tmp_path):
    rows = X[:20] / 4
    nets = []
    for name in (*NAMES, *SLOPES):
        nets.append(network(name))
        if name != "softmax":
            nets.append(network(name, "float64", normalization="layer"))
            nets.append(network(name, parametric_activation=True))
    nets.append(network("tanh", normalization="batch", input_scale=0.5))
    for number, net in enumerate(nets):
        module = number % 2 == 0
        to_javascript(net, tmp_path / f"m{number:03}.{'mjs' if module else 'cjs'}", module=module)
    (tmp_path / "X.json").write_text(json.dumps(rows.tolist()))
    for values, net in zip(run_node(tmp_path, ALL), nets, strict=True):
        exact, own = run(chain_of(net), rows), net.predict(rows)
        np.testing.assert_allclose(values, exact, rtol=1e-11, atol=1e-12)
        rounding = np.abs(own - exact).max()  # of the twin, in float32
        largest = max(1.0, np.abs(own).max())
        assert np.abs(values - own).max() <= 1e-6 * largest + 4 * rounding


@node
def test_far_inputs_of_activations(tmp_path):
    """One unit of weight 1: the formula alone, on both sides of every branch of it."""
    z = np.array([0, 1e-9, 0.3, 1, 2.4, 2.6, 3.6, 5, 9, 30, 41, 50, 90, 700, 1e4])
    z = np.concatenate([z, -z])[:, None]
    nets = []
    for number, name in enumerate((*NAMES[:-1], *SLOPES)):
        loss = "squared_error"
        net = cmlp.Network([1, 1], out_activation=name, dtype="float64", seed=0, loss=loss)
        net.weights[0][...] = 1
        to_javascript(net, tmp_path / f"m{number:03}.mjs")
        nets.append(net)
    (tmp_path / "X.json").write_text(json.dumps(z.tolist()))
    for values, net in zip(run_node(tmp_path, ALL), nets, strict=True):
        infinite = [[np.inf if value is None else value for value in row] for row in values]
        np.testing.assert_allclose(infinite, net.predict(z), rtol=1e-13, atol=1e-300)


def written(folder, **models):
    """Write models as m0.mjs and so on; return the start of a script that imports them."""
    lines = ['import fs from "fs";', 'const X = JSON.parse(fs.readFileSync("X.json"));']
    for name, model in models.items():
        to_javascript(model, folder / f"{name}.mjs")
        lines.append(f'import * as {name} from "./{name}.mjs";')
    (folder / "X.json").write_text(json.dumps(X.tolist()))
    return "\n".join(lines)


TEXT = np.array(HOSTILE)[np.arange(100) % len(HOSTILE)]
CLASSIFIED = {
    "two": TEXT[np.arange(100) % 2],
    "hostile": TEXT,
    "one": np.repeat(7, 100),
    "truth": X[:, 0] > 0,
    "floats": np.arange(100) % 3 * 0.25 * 4,
    "several": (X[:, :4] > 0).astype(int),
}


@node
@pytest.mark.filterwarnings("ignore")
def test_classifiers_and_regressors(tmp_path):
    models = {
        name: cmlp.MLPClassifier((9,), max_iter=2, random_state=0, n_ensemble=3).fit(X, y)
        for name, y in CLASSIFIED.items()
    }
    for name, y in (("number", X[:, 0]), ("numbers", X[:, :3])):
        models[name] = cmlp.MLPRegressor(hidden_layer_sizes=(9,), max_iter=2).fit(X, y)
    code = (
        written(tmp_path, **models)
        + f"const models = {{ {', '.join(models)} }};"
        + (
            "const found = Object.entries(models).map(([name, m]) => [name, [m.classes,"
            "X.map(m.predict), m.predictProba ? X.map(m.predictProba) : null, m.nOutputs]]);"
            "console.log(JSON.stringify(Object.fromEntries(found)));"
        )
    )
    for name, (classes, predicted, proba, n_outputs) in run_node(tmp_path, code).items():
        model = models[name]
        expected = model.predict(X)
        assert n_outputs == model.n_outputs_
        if name.startswith("number"):
            assert classes is proba is None
            exact = run(chain_of(model), X)  # in doubles, as JavaScript has them
            np.testing.assert_allclose(np.reshape(predicted, exact.shape), exact, atol=1e-6)
        else:
            assert classes == model.classes_.tolist() and predicted == expected.tolist()
            np.testing.assert_allclose(proba, model.predict_proba(X), atol=1e-6)


@node
@pytest.mark.filterwarnings("ignore")
def test_a_front_a_scaler_and_large_labels(tmp_path):
    inputs = cmlp.Inputs(periodic=[0, 1], levels={2: (5, 4)}, summed={3: 9}, scaled=True)
    rows = np.c_[X[:, :2], rng.integers(-1, 6, 100), rng.uniform(-1, 10, 100), X[:, 2:5]]
    rows = rows.astype(np.float32)
    front = cmlp.Network([7, 16, 2], "silu", inputs=inputs, seed=0, loss="squared_error")
    front.fit(rows, X[:, :2], epochs=2)
    labels = np.array([2**64 - 1, 2**53, 7], np.uint64)[np.arange(100) % 3]
    large = cmlp.MLPClassifier((5,), max_iter=2, random_state=0).fit(rows, labels)

    class StandardScaler:
        n_features_in_, mean_, scale_ = 7, np.full(7, 1e5), np.full(7, 2.0)

    class Pipeline:
        def __init__(self):
            self.steps = [("scale", StandardScaler()), ("net", large)]

    code = written(tmp_path, front=front, large=Pipeline())
    (tmp_path / "X.json").write_text(json.dumps(rows.tolist()))
    code += """
    const far = X.map((row) => row.map((value) => 2 * value + 1e5));
    const labels = far.map(large.predict).map(String);
    console.log(JSON.stringify([X.map(front.outputs), far.map(large.outputs), labels]));
    """
    outputs, probabilities, found = run_node(tmp_path, code)
    np.testing.assert_allclose(outputs, front.predict(rows), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(probabilities, large.predict_proba(rows), atol=1e-6)
    assert found == [*map(str, large.predict(rows).tolist())]


# Tables ------------------------------------------------------------------------------------------


def of_json(row):
    """Return a row as JSON holds it: dates as ISO text, durations as seconds."""
    kinds = {
        datetime.datetime: datetime.datetime.isoformat,
        datetime.timedelta: datetime.timedelta.total_seconds,
    }
    return {name: kinds.get(type(value), lambda value: value)(value) for name, value in row.items()}


def odd_rows(rows):
    changes = (
        {"size": "1e3", "two": 1, "level": "0.1"}, {"city": "new", "two": "true"},
        {"size": " ? ", "level": 2, "text": "NaN"}, {"size": True}, {"two": "0", "level": 1.25e-5},
        {"city": " \x1c", "two": None}, {"size": 1e300, "extra": []}, {"level": 35},
    )  # fmt: skip
    return [*rows, *(rows[0] | change for change in changes), dict.fromkeys(rows[0])]


@node
@pytest.mark.filterwarnings("ignore")
def test_raw_rows(tmp_path):
    models, data = {}, {}
    for name, kind, options, zone in (
        ("a", cmlp.TabularClassifier, {}, None),
        ("b", cmlp.TabularClassifier, {"numeric_embedding": "periodic"}, "America/St_Johns"),
        ("c", cmlp.TabularRegressor, {"numeric_embedding": None}, "Europe/Berlin"),
    ):
        rows, target = table(zone=zone)
        y = TEXT[(target > 3).astype(int)] if kind is cmlp.TabularClassifier else target
        models[name] = kind(
            (8,), max_iter=2, random_state=0, n_ensemble=2, categorical_features=CATEGORIES,
            **options,
        ).fit(rows, y)  # fmt: skip
        data[name] = odd_rows(rows)
    code = written(tmp_path, **models)
    text = {name: [*map(of_json, rows)] for name, rows in data.items()}
    (tmp_path / "X.json").write_text(json.dumps(text))
    code += """
    const found = Object.entries({ a, b, c }).map(([name, m]) => [
      X[name].map(m.outputs), X[name].map(m.predict), m.inputs,
      X[name].map((row) => m.predict(m.inputs.map((name) => row[name]))),
    ]);
    console.log(JSON.stringify(found));
    """
    for (name, model), found in zip(models.items(), run_node(tmp_path, code), strict=True):
        outputs, predicted, names, in_order = found
        rows = data[name]
        expected = model.predict(rows)
        if name == "c":
            np.testing.assert_allclose(np.ravel(outputs), expected, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_allclose(outputs, model.predict_proba(rows), atol=1e-6)
            assert predicted == expected.tolist()
        assert names == list(rows[0]) and in_order == predicted


@node
@pytest.mark.filterwarnings("ignore")
def test_what_encoders_can_do(tmp_path):
    data, expected, code = [], [], 'import fs from "fs";\n'
    for number, name in enumerate(ENCODERS):
        encoder, rows, chain = encoder_and_chain(name)
        text = javascript_source(chain, raw=raw_rows_of(encoder))
        (tmp_path / f"e{number}.mjs").write_text(text + "export { numbersOf };\n")
        code += f'import * as e{number} from "./e{number}.mjs";\n'
        encode = encoder.row()
        data.append([*map(of_json, rows[:40])])
        expected.append([*map(encode, rows[:40])])
    (tmp_path / "X.json").write_text(json.dumps(data))
    code += """const X = JSON.parse(fs.readFileSync("X.json"));
    console.log(JSON.stringify([e0, e1, e2, e3].map((m, i) => X[i].map(m.numbersOf))));
    """
    for found, rows in zip(run_node(tmp_path, code), expected, strict=True):
        np.testing.assert_allclose(found, rows, rtol=3e-7, atol=1e-7)


@node
@pytest.mark.filterwarnings("ignore")
def test_values_and_rows_that_do_not_fit(tmp_path):
    rows, target = table()
    model = cmlp.TabularRegressor(
        (4,), max_iter=1, n_ensemble=1, random_state=0, categorical_features=CATEGORIES
    ).fit(rows, target)
    row = of_json(rows[0])
    bad = {
        'column "size": a number expected, "five" came': row | {"size": "five"},
        'column "size": a number expected, "inf" came': row | {"size": "inf"},
        'column "when": a date as 2024-05-31': row | {"when": "May 5"},
        'column "when": a date as 2024-05-31T': row | {"when": "2024-02-30"},
        '2024-05-31T09:30Z" has a time zone': row | {"when": "2024-05-31T09:30Z"},
        'column "city": a category expected': row | {"city": []},
        'the row lacks "__proto__"': {k: v for k, v in row.items() if k != "__proto__"},
        "a row of 8 values expected, 2 came": [1, 2],
        "a row must be an object or an array": "text",
    }
    code = written(tmp_path, table=model, net=network("relu"))
    (tmp_path / "X.json").write_text(json.dumps([*bad.values()]))
    code += """
    const message = (f, x) => { try { f(x); return "none"; } catch (e) { return e.message; } };
    console.log(JSON.stringify([
      ...X.map((row) => message(table.predict, row)),
      message(net.predict, [1, 2]), message(net.predict, null),
      ...[NaN, Infinity, 1e300, null, "", " ", [], undefined].map(
        (x) => message(net.predict, [1, 2, 3, 4, 5, 6, x])),
    ]));
    """
    found = run_node(tmp_path, code)
    for message, expected in zip(found, bad, strict=False):
        part = expected.removesuffix("T") if expected.endswith("31T") else expected
        assert part in message
    assert found[len(bad) :] == [
        *["a row of 7 numbers expected"] * 2,
        *["a row holds NaN, infinity, or a number too large"] * 8,
    ]


# Text and files ----------------------------------------------------------------------------------


@node
def test_literals_are_what_they_were(tmp_path):
    values = [*HOSTILE, "\ud800", 1e-5, 1e22, -0.0, 0.1, 2**53 - 1, True, None, [], ["</script>"]]
    text = literal(values)
    assert text.isascii() and not re.search("[<>&'`]", text)
    found = run_node(tmp_path, f"console.log(JSON.stringify({text}));")
    assert found == values
    assert literal(-(2**64)) == "-18446744073709551616n" and literal(b"\xe9") == '"\\u00e9"'


@pytest.mark.filterwarnings("ignore")
def test_hostile_text_is_data():
    """In a page the file may be a script: no text of the model ends it, or begins a comment."""
    names = [f"{name}\ud800" for name in HOSTILE[:7]]
    rows = [dict(zip(names, values, strict=True)) for values in X.tolist()]
    model = cmlp.TabularClassifier((4,), n_ensemble=1, max_iter=1, numeric_embedding=None)
    text = to_javascript(model.fit(rows, TEXT))
    assert text.isascii() and "\0" not in text
    assert not re.search("script>|<!--|-->|]]>", text, re.I) and "__import__('os')" not in text
    comments = [line for line in text.splitlines() if line.lstrip().startswith("//")]
    other = to_javascript(model.fit(X, np.arange(100) % len(HOSTILE)))
    assert comments == [line for line in other.splitlines() if line.lstrip().startswith("//")]


def test_files_are_whole_and_the_same(tmp_path):
    net = network("gelu")
    path = tmp_path / "m.mjs"
    assert to_javascript(net, path) is None
    text = path.read_text()
    assert text == to_javascript(net) and str(tmp_path) not in text
    net.weights[0][0, 0] = np.nan
    with pytest.raises(ConversionError, match="layer 1 has weights that are not finite"):
        to_javascript(net, path)
    assert path.read_text() == text and [*tmp_path.iterdir()] == [path]
    chain = dataclasses.replace(chain_of(network("relu")), classes=np.array([None] * 5))
    with pytest.raises(ConversionError, match="labels of dtype object"):
        javascript_source(chain)
    with pytest.raises(ConversionError, match="TabularRegressor is not fitted"):
        to_javascript(cmlp.TabularRegressor())
