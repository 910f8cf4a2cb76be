"""ONNX files in the hands of those that run them: the checker, onnx.reference, ONNX Runtime, tract.

Tolerances: ``|y - exact| <= 4 |float32 core - exact| + 4e-6 max(1, |exact|)``, silu 1e-5 instead,
since the runtime's kernels are absolutely, not relatively, exact in the tails; 1e-12 in float64.
"""

import datetime
import math

import numpy as np
import pytest
from helpers import covering

import cmlp
from cmlp import from_onnx, to_onnx
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.exchange.chains import chain_of
from cmlp.formats.chain import Activation, Affine, Chain, Member, run
from cmlp.formats.onnx import columns, graph, writer
from cmlp.formats.raw_rows import raw_rows_of
from cmlp.tables.encode import TableEncoder

onnx = pytest.importorskip("onnx")

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 4)) * 2
PLACES = rng.permutation(np.arange(60) % 3)
HEADS = ("softmax", "logistic", "labels", "numbers")
NAMES = ("ape", 'b"\n*/', "<script>")


def of_reference(content, X):
    from onnx.reference import ReferenceEvaluator

    with np.errstate(over="ignore"):  # of its Sigmoid
        return ReferenceEvaluator(onnx.load_from_string(content)).run(None, {"X": X})


def of_runtime(content, X):
    ort = pytest.importorskip("onnxruntime")
    ort.set_default_logger_severity(3)
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"X": X})


def of_tract(content, X, path):
    tract = pytest.importorskip("tract")
    (path / "m.onnx").write_bytes(content)
    model = tract.onnx().load(str(path / "m.onnx")).into_model().into_runnable()
    return [_numpy(each) for each in model.run([X])]


def _numpy(tensor):
    """Return a tensor as an array; None for text, which tract computes, but does not hand out."""
    try:
        return tensor.to_numpy()
    except Exception as error:
        if "String" not in str(error):
            raise
        return None


def consumers(content, X, path, wide=False):
    """Yield the outputs of every consumer; tract has no Sigmoid in float64."""
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    yield "reference", of_reference(content, X)
    if pytest.importorskip("onnxruntime"):
        yield "runtime", of_runtime(content, X)
    if not wide:
        yield "tract", of_tract(content, X, path)


def network(head, activation, labels, normalization, dtype, seed=1):
    """Return a network of trained size, with labels."""
    n = 1 if head == "logistic" else 3
    loss = {"softmax": "cross_entropy", "numbers": "squared_error"}.get(head, "binary_crossentropy")
    net = cmlp.Network(
        [4, 9, 6, n], activation, loss=loss, seed=seed, dtype=dtype, normalization=normalization
    )
    y = {"softmax": PLACES, "logistic": PLACES > 0}.get(head, rng.random((60, n)))
    for W in net.weights:
        W *= 0.1 if activation == "exp" else 2
    net.train_epoch(X, y, learning_rate=1e-3)
    if head in ("softmax", "logistic"):
        k = max(n, 2)
        net.classes = {
            "int": np.arange(k) * 5 - 2, "str": np.array(NAMES[:k]), "float": np.arange(k) + 0.5,
            "bool": np.array([False, True]) if k == 2 else np.arange(k),
        }[labels]  # fmt: skip
    return net


def both_classes(p, head):
    return np.concatenate([1 - p, p], 1) if head == "logistic" else p


def check(net, head, content, given, path, wide, silu=False, exact=None):
    """Compare every consumer's outputs with the oracle's."""
    exact = both_classes(run(chain_of(net), given), head) if exact is None else exact
    core = both_classes(net.astype("float32").predict(given), head)
    more = 1e-12 if wide else 1e-5 if silu else 4e-6
    limit = (0 if wide else 4 * np.abs(core - exact)) + more * np.maximum(1, np.abs(exact))
    for who, outputs in consumers(content, given, path, wide):
        assert outputs[-1].shape == exact.shape, who
        assert (np.abs(outputs[-1] - exact) <= limit).all(), who
        if head == "numbers" or len(given) == 0 or outputs[0] is None:
            continue
        if head == "labels":
            assert np.array_equal(outputs[0], exact > 0.5), who
            continue
        two = np.sort(exact, axis=1)
        clear = two[:, -1] - two[:, -2] > 1e-5
        expected = np.asarray(net.classes)[exact.argmax(1)]
        assert np.asarray(outputs[0])[clear].tolist() == expected[clear].tolist(), who


COLUMNS = (
    [*(row.name for row in ACTIVATIONS if not row.output_only), "leaky_relu:0.3", "elu:0.5"],
    ("float32", "float64"), HEADS,
    ("int", "str", "float", "bool"), (None, "batch", "layer"), ("float32", "float64", "uint8"),
    (0, 1, 7), (13, 17, 18, 20, 24),
)  # fmt: skip


@pytest.mark.parametrize("row", covering(*COLUMNS))
def test_the_matrix(row, tmp_path):
    """Every pair of activation, dtype, head, labels, normalisation, input, rows and opset."""
    activation, dtype, head, labels, normalization, given, n, opset = row
    if (activation, dtype) == ("gelu", "float64"):
        pytest.skip("refused: ONNX Runtime has no Erf in float64")
    net = network(head, activation, labels, normalization, dtype)
    rows = (np.abs(X) * 10 if given == "uint8" else X)[:n].astype(given)
    content = to_onnx(net, dtype=dtype, input_dtype=given, opset=opset)
    check(net, head, content, rows, tmp_path, dtype == "float64", activation == "silu")


@pytest.mark.filterwarnings("ignore:.*Stochastic")
def test_ensembles(tmp_path):
    for model, y in (
        (cmlp.MLPClassifier((5,), max_iter=3, random_state=0, n_ensemble=3), PLACES),
        (
            cmlp.MLPRegressor(hidden_layer_sizes=(5,), max_iter=3, random_state=0, n_ensemble=2),
            X[:, :2],
        ),
    ):
        model.fit(X, y)
        content = to_onnx(model)
        expected = model.predict_proba(X) if hasattr(model, "classes_") else model.predict(X)
        for who, outputs in consumers(content, X.astype("f4"), tmp_path):
            np.testing.assert_allclose(outputs[-1], expected, rtol=1e-5, atol=5e-6, err_msg=who)
        again = from_onnx(content)
        assert type(again) is type(model) and len(again.estimators_) == len(model.estimators_)
        np.testing.assert_allclose(again.predict(X), model.predict(X), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*Stochastic")
def test_pipelines_keep_the_digits_of_large_means(tmp_path):
    """Means of 1e5 deviations are subtracted first, in whatever type X comes."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    from sklearn.pipeline import make_pipeline

    for given in ("float32", "float64", "uint8", "int64"):
        rows = np.abs(X) * 20 if given == "uint8" else X + 1e5 if given[0] == "f" else X * 1e3
        rows = rows.astype(given)
        model = make_pipeline(
            preprocessing.StandardScaler(), preprocessing.MinMaxScaler(),
            cmlp.MLPClassifier((5,), max_iter=3, random_state=0),
        ).fit(rows.astype(float), PLACES)  # fmt: skip
        content = to_onnx(model, input_dtype=given)
        expected = model.predict_proba(rows.astype(float))
        for who, outputs in consumers(content, rows, tmp_path):
            np.testing.assert_allclose(outputs[-1], expected, atol=5e-6, err_msg=f"{who} {given}")


def fronts():
    inputs = cmlp.Inputs(
        periodic=[0], levels={2: (5, 4)}, summed={3: 9}, scaled=True, cumulative=(3,)
    )
    return cmlp.Network([4, 16, 2], "silu", loss="squared_error", inputs=inputs, seed=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fronts(dtype, tmp_path):
    """Waves, tables, and places that are outside of a table, or none at all."""
    net = fronts()
    rows = np.c_[X[:, :2], rng.integers(-1, 7, 60), rng.uniform(-3, 12, 60)].astype(dtype)
    net.fit(np.nan_to_num(rows), X[:, :2], epochs=2)
    rows[3, 2] = rows[5, 3] = np.nan
    rows[6, 2], rows[7, 3] = np.inf, -np.inf
    exact, content = run(chain_of(net), rows), to_onnx(net, dtype=dtype)
    for who, outputs in consumers(content, rows, tmp_path, dtype == "float64"):
        np.testing.assert_allclose(outputs[0], exact, rtol=1e-5, atol=1e-5, err_msg=who)


def test_options(tmp_path):
    net = network("softmax", "tanh", "str", None, "float32")
    rows, p = X[:7].astype("f4"), run(chain_of(net), X[:7].astype("f4"))
    scores = run(chain_of(net), rows, raw=True)
    for options, names in (
        ({"labels": False}, ["probabilities"]),
        ({"raw": True}, ["scores"]),
        ({"output_names": ["y", 'the "p"\n']}, ["y", 'the "p"\n']),
        ({"batch": 7}, ["label", "probabilities"]),
    ):
        content = to_onnx(net, **options)
        model = onnx.load_from_string(content)
        assert [each.name for each in model.graph.output] == names
        assert (model.ir_version, model.opset_import[0].version) == (7, 13)
        expected = scores if "raw" in options else p
        for who, outputs in consumers(content, rows, tmp_path):
            np.testing.assert_allclose(outputs[-1], expected, atol=1e-5, err_msg=who)


def test_zipmap():
    ort = pytest.importorskip("onnxruntime")
    for labels in ("int", "str"):
        net = network("softmax", "tanh", labels, None, "float32")
        content = to_onnx(net, zipmap=True)
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        label, maps = session.run(["output_label", "output_probability"], {"X": X[:5].astype("f4")})
        assert {*maps[0]} == {*net.classes.tolist()}
        assert [max(each, key=each.get) for each in maps] == label.tolist()


HOSTILE = ["*/", '"', "\\", "a\nb", "<script>", "??/", "\u202e", "", "💥", "${x}", "%s"]


def test_hostile_labels(tmp_path):
    net = cmlp.Network([4, len(HOSTILE)], loss="cross_entropy", seed=0)
    net.classes = np.array(HOSTILE)
    expected = np.array(HOSTILE)[net.predict(X).argmax(1)].tolist()
    assert len(set(expected)) > 3
    for who, outputs in consumers(to_onnx(net), X.astype("f4"), tmp_path):
        if who != "tract":
            assert np.asarray(outputs[0]).tolist() == expected, who


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_converter():
    """What skl2onnx writes of scikit-learn's networks comes in, and predicts the same."""
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for activation, y in (
        ("tanh", PLACES), ("relu", np.array(NAMES)[PLACES % 2]), ("logistic", np.eye(3)[PLACES]),
        ("identity", X[:, 0]),
    ):  # fmt: skip
        kind = MLPRegressor if y.dtype == float and y.ndim == 1 else MLPClassifier
        y = y.astype(int) if y.ndim == 2 else y
        model = make_pipeline(
            StandardScaler(), kind(hidden_layer_sizes=(5, 4), activation=activation, max_iter=5)
        ).fit(X, y)
        content = skl2onnx.to_onnx(model, X[:1].astype("f4")).SerializeToString()
        net = from_onnx(content)
        if kind is MLPRegressor:
            expected = model.predict(X)[:, None]
        else:
            expected = model.predict_proba(X)[:, 1 if net.sizes[-1] == 1 else 0 :]
            if y.ndim == 1:
                assert net.classes.tolist() == model.classes_.tolist()
        np.testing.assert_allclose(net.predict(X), expected, rtol=1e-5, atol=5e-6)


# Columns of a table ------------------------------------------------------------------------------

START = datetime.datetime(1969, 2, 27, 23, 59, 59)
DATES = [START + datetime.timedelta(days=97 * i, seconds=7919 * i) for i in range(60)]
ZONE = datetime.timezone(datetime.timedelta(hours=-3, minutes=-30))
HOSTILE_LEVELS = ["Ulm", "", 'x"\n*/', "größe", "\u202e<b>", "0"]
TABLE = {
    "age": np.where(PLACES == 1, np.nan, rng.integers(18, 90, 60)),
    "in\ncome": np.exp(rng.normal(10, 2, 60)),
    "city": [HOSTILE_LEVELS[i % 6] for i in range(60)],
    "zip": [(i % 5) * 1000 - 1000 for i in range(60)],
    "half": [i % 5 / 2 for i in range(60)],
    "member": [i % 3 > 0 for i in range(60)],
    "when": DATES,
    "there": [date.replace(tzinfo=ZONE) for date in DATES],
    "took": [datetime.timedelta(seconds=37 * i % 1001) for i in range(60)],
}
CATEGORIES = ["city", "zip", "half"]


def fed(inputs, table):
    """Return the columns as the graph takes them: text, or numbers with NaN."""
    return {
        name: np.array([_fed(value, kind is object) for value in table[name]], kind)[:, None]
        for name, kind in inputs.items()
    }


def _fed(value, text):
    if text:
        return str(value)
    if isinstance(value, datetime.datetime):
        utc = value.replace(tzinfo=value.tzinfo or datetime.UTC)
        return (utc - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)).total_seconds()
    return value.total_seconds() if isinstance(value, datetime.timedelta) else value


def of_columns(content, table):
    """Yield the outputs of the reference and the runtime for a table."""
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    kinds = {1: np.float32, 8: object, 11: np.float64}
    inputs = {each.name: kinds[each.type.tensor_type.elem_type] for each in model.graph.input}
    yield ReferenceEvaluator(model).run(None, fed(inputs, table))
    ort = pytest.importorskip("onnxruntime")
    yield ort.InferenceSession(content).run(None, fed(inputs, table))
    empty = ort.InferenceSession(content).run(None, fed(inputs, {name: [] for name in table}))
    assert all(len(each) == 0 for each in empty)


@pytest.mark.parametrize("row", covering(
    ("robust", "standard", None), (None, 2, 9), (0, 8), (None, 3), ("numbers", "cycles", None),
    ("float32", "float64"), (256, 2),
))  # fmt: skip
def test_encoding_in_the_graph(row, monkeypatch):
    """What the graph makes of raw columns is what the encoder makes of them."""
    numbers, knots, one_hot, most, parts, dtype, compared = row
    monkeypatch.setattr(columns, "MOST_COMPARED", compared)  # levels beyond are looked up
    numbers = numbers if knots else numbers or "robust"  # not neither of them
    encoder = TableEncoder(
        categorical_features=CATEGORIES, numbers=numbers, n_knots=knots,
        max_one_hot=one_hot, max_categories=most, date_parts=parts, dtype=dtype,
    ).fit(TABLE)  # fmt: skip
    strange = {name: list(values) for name, values in TABLE.items()}
    strange["city"][:2], strange["zip"][:3] = ["new", " "], [7, 0.5, math.nan]
    strange["age"][:2], strange["half"][0] = [-1e300, 1e300], 0.25
    width = encoder.transform(TABLE).shape[1]
    eye = Chain(
        width, (Member((Affine(np.eye(width, dtype=dtype), None), Activation("identity"))),)
    )
    options = graph.Options(dtype, "float64")
    content = writer.write(eye, options, raw_rows_of(encoder))
    for table in (TABLE, strange):
        expected = encoder.transform(table)
        for (got,) in of_columns(content, table):
            np.testing.assert_allclose(
                got, expected, rtol=1e-6, atol=1e-12 if dtype == "float64" else 2e-7
            )


@pytest.mark.filterwarnings("ignore")
def test_columns_of_a_tabular_model():
    table = {**TABLE, "label": [1.0] * 59 + [2.0]}
    y = np.array(NAMES)[(np.arange(60) % 5 > 2).astype(int) + PLACES % 2]
    options = {"max_iter": 2, "n_ensemble": 2, "random_state": 0, "hidden_layer_sizes": (8,)}
    model = cmlp.TabularClassifier(**options, categorical_features=CATEGORIES).fit(table, y)
    with pytest.raises(cmlp.ConversionError, match="are 'label', 'probabilities': give output_n"):
        to_onnx(model, columns=True)
    content = to_onnx(model, columns=True, output_names=("answer", "p"))
    for labels, p in of_columns(content, table):
        np.testing.assert_allclose(p, model.predict_proba(table), atol=2e-6)
        assert np.asarray(labels).tolist() == model.predict(table).tolist()
    with pytest.raises(cmlp.ConversionError, match="cmlp wrote this file from a tabular model"):
        from_onnx(content)
    regressor = cmlp.TabularRegressor(**options).fit(table, np.arange(60) * 1e3)
    for (got,) in of_columns(to_onnx(regressor, columns=True, dtype="float64"), table):
        np.testing.assert_allclose(got[:, 0], regressor.predict(table), rtol=1e-6)
    few = {name: table[name] for name in ("age", "zip")}
    regressor.fit(few, np.arange(60.0))
    for (got,) in of_columns(to_onnx(regressor, columns=True, input_dtype="float32"), few):
        np.testing.assert_allclose(got[:, 0], regressor.predict(few), rtol=1e-5)
