"""ONNX without the package of that name: files that are written, read, made by hand and damaged."""

import datetime
import importlib.util
import json
import math
import zoneinfo
from pathlib import Path

import numpy as np
import pytest
from helpers import covering

import cmlp
from cmlp import from_onnx, to_onnx
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.exchange.chains import chain_of
from cmlp.formats.chain import Activation, Affine, Chain, ConversionError, Member, run
from cmlp.formats.onnx import graph, reader, writer
from cmlp.formats.onnx import messages as om
from cmlp.formats.onnx import protobuf as pb
from cmlp.formats.onnx.activations import FLOAT32, FLOAT64, PARAMETRIC32, PARAMETRIC64
from cmlp.formats.raw_rows import raw_rows_of
from cmlp.tables.encode import TableEncoder

rng = np.random.default_rng(0)
X = rng.normal(size=(30, 3))
NAMES = ["Lyon", "Graz", "x\0"]
PLACES = np.arange(30) % 3
HIDDEN = [*(row.name for row in ACTIVATIONS if not row.output_only), "leaky_relu:0.3", "elu:0.5"]


def test_every_activation_has_a_row():
    both = FLOAT32.keys() | PARAMETRIC32.keys(), FLOAT64.keys() | PARAMETRIC64.keys()
    assert both[0] == both[1] == {row.name for row in ACTIVATIONS}


# Protocol buffers --------------------------------------------------------------------------------


def test_numbers_on_the_wire():
    """The examples of the format's own documentation, and the ends of the range."""
    assert pb.integer(1, 150) == bytes([0x08, 0x96, 0x01])
    assert pb.text(2, "testing") == b"\x12\x07testing"
    assert pb.varint(-1) == b"\xff" * 9 + b"\x01"
    for n in (0, 1, 127, 128, 2**63 - 1, -(2**63), -1):
        [(field, wire, value)] = pb.fields(memoryview(pb.integer(5, n)))
        assert (field, wire, pb.as_int(value)) == (5, 0, n)
    [(_, wire, value)] = pb.fields(memoryview(pb.float32(3, 0.1)))
    assert pb.as_float32(wire, value) == np.float32(0.1)
    packed = pb.chunk(8, pb.varint(3), pb.varint(-2), pb.varint(300))
    [(_, _, value)] = pb.fields(memoryview(packed))
    assert list(pb.integers(value)) == [3, -2, 300]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x08", "cut off"),
        (b"\x08" + b"\xff" * 11, "ten bytes"),
        (b"\x12\x05abc", "claims 5 bytes, 3 are left"),
        (b"\x12\xff\xff\xff\xff\x7fabc", "3 are left"),
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "number 0"),
        (b"\x0d\x00", "claims 4"),
    ],
)
def test_damaged_messages(raw, message):
    with pytest.raises(pb.WireError, match=message):
        list(pb.fields(memoryview(raw)))


# There and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", covering(
    HIDDEN, ("float32", "float64"), (None, "layer", "batch"), (False, True), (13, 17, 18, 24)
))  # fmt: skip
def test_networks_there_and_back(row):
    activation, dtype, normalization, parametric, opset = row
    if (activation, dtype) == ("gelu", "float64"):
        return
    net = cmlp.Network(
        [3, 7, 5, 2], activation, "identity", dtype=dtype, seed=1,
        normalization=normalization, parametric_activation=parametric,
    )  # fmt: skip
    for number, alphas in enumerate(net.alphas):
        alphas[...] = np.linspace(0.3 + number, 1.2, alphas.size)
    again = from_onnx(to_onnx(net, dtype=dtype, opset=opset))
    expected = net.predict(X)
    limit = (5e-6 if dtype == "float32" else 1e-13) * np.abs(expected).max()
    np.testing.assert_allclose(again.predict(X), expected, rtol=0, atol=limit)
    if activation != "identity" and normalization != "batch":
        assert again.activations == net.activations
        assert again.params.tobytes() == net.params.tobytes()


def classifier(labels, **more):
    return cmlp.MLPClassifier((4,), max_iter=2, random_state=0, **more).fit(X, labels)


@pytest.mark.filterwarnings("ignore:Stochastic")
@pytest.mark.parametrize(
    "labels",
    [
        PLACES, PLACES * 7 - 3, PLACES > 0, PLACES + 0.5 - 0.5, (PLACES * 2).astype(np.uint8),
        np.array(["ape", "bee", "cat"])[PLACES], np.array(["no", "yes"])[PLACES % 2],
    ],
)  # fmt: skip
def test_labels_there_and_back(labels):
    model = classifier(labels)
    for options in ({}, {"labels": False}):
        net = from_onnx(to_onnx(model, **options))
        assert net.classes.tolist() == model.classes_.tolist()
        np.testing.assert_array_equal(net.predict_classes(X.astype("f4")), model.predict(X))


@pytest.mark.filterwarnings("ignore:Stochastic")
def test_several_labels_there_and_back():
    model = classifier(np.stack([PLACES > 0, PLACES == 1], 1).astype(int))
    net = from_onnx(to_onnx(model))
    assert net.loss_name == "binary_crossentropy" and net.sizes == (3, 4, 2)
    np.testing.assert_allclose(net.predict(X), model.predict_proba(X), rtol=1e-5, atol=1e-6)


def test_names_there_and_back():
    net = cmlp.Network([3, 2, 1], "tanh", seed=0)
    net.feature_names, net.target_name = ["a", "b\n", "\u202e*/"], 'y"'
    again = from_onnx(to_onnx(net))
    assert again.feature_names == net.feature_names and again.target_name == net.target_name


HOSTILE = [
    "*/",
    '"',
    "'",
    "\\",
    "a\nb",
    "<script>alert(1)</script>",
    "??/",
    "\u202e",
    "a\x00b",
    "",
    "💥",
    "${x}",
    "%s%n",
    "\x7f\x1b[2J",
    "'''\"\"\"",
    "X",
    "label",
]


def test_hostile_labels():
    net = cmlp.Network([2, len(HOSTILE)], loss="cross_entropy", seed=0)
    net.classes = np.array(HOSTILE)
    net.feature_names = ["]}\u2028", "\x00x"]
    again = from_onnx(to_onnx(net))
    assert again.classes.tolist() == HOSTILE and again.feature_names == net.feature_names
    net.classes = np.array(["\ud800", *HOSTILE[1:]])
    with pytest.raises(ConversionError, match="cannot be encoded"):
        to_onnx(net)


def test_bytes_are_latin_1():
    net = cmlp.Network([2, 3], loss="cross_entropy", seed=0)
    net.classes = np.array([b"x\xff", b"", b"abc"])
    assert from_onnx(to_onnx(net)).classes.tolist() == ["x\xff", "", "abc"]


def test_the_same_model_gives_the_same_bytes(tmp_path):
    net = cmlp.Network([3, 4, 2], "gelu", loss="cross_entropy", seed=0)
    assert to_onnx(net) == to_onnx(net)
    assert to_onnx(net, tmp_path / "a.onnx") is None
    assert (tmp_path / "a.onnx").read_bytes() == to_onnx(net)
    assert from_onnx(tmp_path / "a.onnx").params.tobytes() == net.params.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_what_cannot_leave(tmp_path):
    net = cmlp.Network([3, 4, 3], "gelu", loss="cross_entropy", seed=0)
    floats = cmlp.Network([3, 3], loss="cross_entropy", seed=0)
    floats.classes = np.array([0.5, 1, 2])
    large = cmlp.Network([3, 3], loss="cross_entropy", seed=0)
    large.classes = np.array([0, 1, 2**63], np.uint64)
    wide = cmlp.Network([1, 1], dtype="float64", seed=0)
    wide.weights[0][...] = 1e300
    for model, options, message in (
        (net, {"dtype": "float64"}, "gelu.*dtype='float32'"),
        (net, {"dtype": "float16"}, "float16"),
        (net, {"input_dtype": "int8"}, "int8"),
        (net, {"opset": 12}, "13 to 24"),
        (net, {"opset": 25}, "13 to 24"),
        (net, {"output_names": ["a"]}, "must be 2"),
        (net, {"output_names": ["a", "X"]}, "differ"),
        (net, {"input_name": ""}, "none be"),
        (net, {"input_name": "\ud800"}, "encoded"),
        (floats, {"zipmap": True}, "zipmap"),
        (large, {}, "too large"),
        (wide, {}, "dtype='float64'"),
        (cmlp.MLPClassifier(), {}, "not fitted"),
        (object(), {}, "object"),
    ):
        with pytest.raises(ConversionError, match=message):
            to_onnx(model, tmp_path / "m.onnx", **options)
    assert not list(tmp_path.iterdir())


# Files of other programs -------------------------------------------------------------------------


def f4(*shape):
    return rng.normal(size=shape).astype("f4")


def file(nodes, tensors, output="y", opset=13, n=3, more=b"", outputs=None):
    """Return a file: nodes as (kind, inputs, output, attributes), tensors by name."""
    parts = [pb.chunk(1, om.node(k, i.split(), [o], a, *d)) for k, i, o, a, *d in nodes]
    parts += [pb.text(2, "g")]
    parts += [pb.chunk(5, om.tensor(name, np.asarray(t))) for name, t in tensors.items()]
    parts += [pb.chunk(11, om.tensor_value("x", om.FLOAT, ("N", n)))]
    parts += [pb.chunk(12, om.tensor_value(o, om.FLOAT, ())) for o in outputs or [output]]
    model = [pb.integer(1, 7), pb.chunk(7, *parts, more)]
    return b"".join([*model, pb.chunk(8, pb.text(1, ""), pb.integer(2, opset))])


W, V, b, c = f4(3, 4), f4(2, 4), f4(4), f4(2)
GAMMA, BETA, MEAN, VARIANCE = f4(4), f4(4), f4(4), np.abs(f4(4)) + 0.1
TENSORS = {
    "W": W, "WT": np.ascontiguousarray(W.T), "V": V, "VT": np.ascontiguousarray(V.T), "b": b,
    "b1": b[None], "c": c, "gamma": GAMMA, "beta": BETA, "mean": MEAN, "var": VARIANCE,
    "slope": np.linspace(0.1, 0.9, 4, dtype="f4"), "half": np.float32(0.5), "one": np.float32(1),
    "root": np.float32(math.sqrt(2)), "shape": np.array([-1, 3]), "m3": f4(3), "s3": f4(3) ** 2 + 1,
    "two": np.float32(2), "eps": np.float32(1e-5), "places": np.array([7, 3]),
    "names": np.array(["no", "yes"], object),
}  # fmt: skip
x = X.astype("f4")
z = x.astype(float) @ W + b


def erf(values):
    return np.vectorize(math.erf)(values)


def normed(values):
    centred = values - values.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)


def softmax(values):
    e = np.exp(values - values.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


FIRST = ("Gemm", "x W b", "z", {})
LAST = ("Gemm", "a V c", "y", {"transB": 1})


def end(a):
    return a @ V.T + c


GRAPHS = {
    "PyTorch's Gemm": ([("Gemm", "x WT b", "z", {"transB": 1, "alpha": 1.0, "beta": 1.0}),
                        ("Relu", "z", "a", {}), LAST], lambda: end(np.maximum(z, 0))),
    "alpha, beta, a row of biases": ([("Gemm", "x W b1", "z", {"alpha": 0.5, "beta": 2.0}),
                        ("Tanh", "z", "a", {}), LAST],
                       lambda: end(np.tanh((z - b) * 0.5 + 2 * b))),
    "scikit-learn's": ([("Cast", "x", "x1", {"to": 1}), ("MatMul", "x1 W", "m", {}),
                        ("Add", "m b1", "z", {}), ("Sigmoid", "z", "a", {}),
                        ("MatMul", "a VT", "m2", {}), ("Add", "m2 c", "y", {})],
                       lambda: end(1 / (1 + np.exp(-z)))),
    "gelu of PyTorch": ([FIRST, ("Div", "z root", "d", {}), ("Erf", "d", "e", {}),
                         ("Add", "e one", "p", {}), ("Mul", "z p", "q", {}),
                         ("Mul", "q half", "a", {}), LAST],
                        lambda: end(z * (1 + erf(z / math.sqrt(2))) / 2)),
    "gelu, half first": ([FIRST, ("Mul", "z half", "h", {}), ("Div", "z root", "d", {}),
                          ("Erf", "d", "e", {}), ("Add", "one e", "p", {}),
                          ("Mul", "p h", "a", {}), LAST],
                         lambda: end(z * (1 + erf(z / math.sqrt(2))) / 2)),
    "silu, mish": ([FIRST, ("Sigmoid", "z", "s", {}), ("Mul", "s z", "a", {}),
                    ("Gemm", "a W2 b", "z2", {}), ("Softplus", "z2", "p", {}),
                    ("Tanh", "p", "t", {}), ("Mul", "z2 t", "a2", {}),
                    ("Gemm", "a2 V c", "y", {"transB": 1})],
                   lambda: (lambda u: end(u * np.tanh(np.log1p(np.exp(u)))))(
                       z / (1 + np.exp(-z)) @ W2 + b)),
    "batch norm after": ([FIRST, ("Relu", "z", "r", {}),
                           ("BatchNormalization", "r gamma beta mean var", "a", {"epsilon": 1e-3}),
                           LAST],
                          lambda: end((np.maximum(z, 0) - MEAN) / np.sqrt(VARIANCE + 1e-3) * GAMMA
                                      + BETA)),
    "batch norm before": ([FIRST, ("BatchNormalization", "z gamma beta mean var", "n", {}),
                           ("Elu", "n", "a", {}), LAST],
                          lambda: (lambda n: end(np.where(n > 0, n, np.expm1(n))))(
                              (z - MEAN) / np.sqrt(VARIANCE + 1e-5) * GAMMA + BETA)),
    "scaler, flat": ([("Sub", "x m3", "s", {}), ("Div", "s s3", "x1", {}),
                      ("Flatten", "x1", "x2", {}), ("Reshape", "x2 shape", "x3", {}),
                      ("Identity", "x3", "x4", {}), ("Gemm", "x4 W b", "z", {}),
                      ("Dropout", "z", "d", {}), ("Softplus", "d", "a", {}), LAST],
                     lambda: end(np.log1p(np.exp((x - TENSORS["m3"]) / TENSORS["s3"] @ W + b)))),
    "PRelu, LeakyRelu": ([FIRST, ("PRelu", "z slope", "a", {}), ("Gemm", "a W2 b", "z2", {}),
                          ("LeakyRelu", "z2", "a2", {"alpha": 0.2}),
                          ("Gemm", "a2 V c", "y", {"transB": 1})],
                         lambda: (lambda u: end(np.where(u > 0, u, np.float32(0.2) * u)))(
                             np.where(z > 0, z, TENSORS["slope"] * z) @ W2 + b)),
    "Celu": ([FIRST, ("Celu", "z", "a", {"alpha": 2.5}), LAST],
             lambda: end(np.where(z > 0, z, 2.5 * np.expm1(z / 2.5)))),
    "ReLU6": ([FIRST, ("Clip", "z zero six", "a", {}), LAST], lambda: end(np.clip(z, 0, 6))),
    "layer norm of parts": ([("MatMul", "x W", "z", {}), ("ReduceMean", "z", "mu", {"axes": [-1]}),
                    ("Sub", "z mu", "d", {}), ("Pow", "d two", "sq", {}),
                    ("ReduceMean", "sq", "v", {"axes": [1]}), ("Add", "v eps", "ve", {}),
                    ("Sqrt", "ve", "sd", {}), ("Div", "d sd", "n", {}), ("Mul", "n gamma", "g", {}),
                    ("Add", "g beta", "h", {}), ("Tanh", "h", "a", {}), LAST],
                   lambda: end(np.tanh(normed(x.astype(float) @ W) * GAMMA + BETA))),
    "Keras' hard_sigmoid of old": ([FIRST, ("HardSigmoid", "z", "a", {}), LAST],
                                   lambda: end(np.clip(np.float32(0.2) * z + 0.5, 0, 1))),
    "two layers in a row": ([FIRST, ("Gemm", "z V c", "y", {"transB": 1})], lambda: end(z)),
    "LogSoftmax": ([FIRST, ("LogSoftmax", "z", "y", {"axis": 1})], lambda: softmax(z)),
    "a constant's transpose": ([("Transpose", "WT", "Wt", {"perm": [1, 0]}),
                                ("MatMul", "x Wt", "m", {}), ("Add", "b m", "z", {}),
                                ("Clip", "z zero", "a", {}), LAST],
                               lambda: end(np.maximum(z, 0))),
}  # fmt: skip
W2 = f4(4, 4)
TENSORS |= {"W2": W2, "zero": np.float32(0), "six": np.float32(6), "million": np.float32(1e6)}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_of_other_programs(name):
    nodes, expected = GRAPHS[name]
    net = from_onnx(file(nodes, TENSORS))
    np.testing.assert_allclose(net.predict(x), expected(), rtol=2e-5, atol=5e-6)


def test_scikit_learns_labels():
    """As its converter writes them for two classes, with a map of probabilities."""
    ml = "ai.onnx.ml"
    nodes = [
        FIRST, ("Relu", "z", "a", {}), ("MatMul", "a v1", "m", {}), ("Sigmoid", "m", "p", {}),
        ("Sub", "one p", "q", {}), ("Concat", "q p", "both", {"axis": 1}),
        ("ArgMax", "both", "k", {"axis": 1}),
        ("ZipMap", "both", "maps", {"classlabels_strings": ["no", "yes"]}, ml),
        ("ArrayFeatureExtractor", "names k", "row", {}, ml),
        ("Reshape", "row minus", "y", {}),
    ]  # fmt: skip
    tensors = TENSORS | {"v1": f4(4, 1), "minus": np.array([-1])}
    net = from_onnx(file(nodes, tensors, outputs=["y", "maps"]))
    assert net.classes.tolist() == ["no", "yes"] and net.loss_name == "binary_crossentropy"
    several = [*nodes[:2], (*LAST[:2], "s", *LAST[3:]), ("Sigmoid", "s", "p", {}),
               ("Binarizer", "p", "above", {"threshold": 0.5}, ml),
               ("Cast", "above", "y", {"to": 7})]  # fmt: skip
    assert from_onnx(file(several, TENSORS, outputs=["y", "p"])).loss_name == "binary_crossentropy"


def test_labels_of_scores():
    """The place of the largest score is that of the largest probability."""
    nodes = [FIRST, ("Relu", "z", "a", {}), (*LAST[:2], "s", LAST[3]),
             ("ArgMax", "s", "k", {"axis": 1, "keepdims": 0}),
             ("Gather", "places k", "y", {})]  # fmt: skip
    net = from_onnx(file(nodes, TENSORS, outputs=["y"]))
    assert net.activations[-1] == "softmax" and net.classes.tolist() == [7, 3]


def tensor_with(*fields):
    return pb.chunk(5, pb.text(8, "T"), *fields)


REFUSED = {
    "no counterpart": (file([("Conv", "x W", "y", {})], TENSORS), r"'y' \('Conv'\).*linear layers"),
    "tanh gelu": (file([FIRST, ("Gelu", "z", "y", {"approximate": "tanh"})], TENSORS), "Gelu"),
    "elu": (file([FIRST, ("Elu", "z", "y", {"alpha": -0.5})], TENSORS), "Elu"),
    "leaky": (file([FIRST, ("LeakyRelu", "z", "y", {"alpha": math.nan})], TENSORS), "LeakyRelu"),
    "slopes of outputs": (file([FIRST, ("PRelu", "z slope", "y", {})], TENSORS), "slopes of their"),
    "below 0, of outputs": (file([FIRST, ("LeakyRelu", "z", "y", {"alpha": -0.5})], TENSORS),
                            "hidden layers only"),
    "no slope": (file([FIRST, ("LeakyRelu", "z", "a", {"alpha": -math.inf}), LAST], TENSORS),
                 "not finite"),
    "labels of relu": (file([FIRST, ("Relu", "z", "r", {}), ("Greater", "r half", "y", {})],
                            TENSORS), "outputs are relu"),
    "hidden softmax": (file([FIRST, ("Softmax", "z", "a", {}), LAST], TENSORS), "softmax"),
    "a residual": (file([FIRST, ("Relu", "z", "r", {}), ("Add", "r z", "a", {}), LAST], TENSORS),
                   "no counterpart"),
    "slopes, added": (file([FIRST, ("PRelu", "z slope", "r", {}), ("Mul", "r half", "s", {}),
                            ("Add", "r s", "a", {}), LAST], TENSORS), "no counterpart"),
    "a wide Clip": (file([FIRST, ("Clip", "z zero million", "a", {}), LAST], TENSORS), "Clip"),
    "Celu": (file([FIRST, ("Celu", "z", "a", {"alpha": -1.0}), LAST], TENSORS), "Celu"),
    "a loop": (file([("Gemm", "y W b", "y", {})], TENSORS), "nothing before it makes"),
    "twice": (file([FIRST, FIRST, ("Relu", "z", "y", {})], TENSORS), "exists"),
    "no tensor": (file([("Gemm", "x Q b", "y", {})], TENSORS), "'Q'"),
    "columns": (file([FIRST, ("Relu", "z", "y", {})], TENSORS, n=5), "5 columns"),
    "two outputs": (file([FIRST, ("Relu", "z", "y", {})], TENSORS, outputs=["z", "y"]),
                    "both outputs"),
    "a constant": (file([("Identity", "W", "y", {})], TENSORS), "depend"),
    "transA": (file([("Gemm", "x W b", "y", {"transA": 1})], TENSORS), "Gemm"),
    "external": (file([("MatMul", "x T", "y", {})], {}, more=tensor_with(
        pb.integer(1, 3), pb.integer(1, 1), pb.integer(2, 1),
        pb.chunk(13, pb.text(1, "location"), pb.text(2, "/etc/passwd")), pb.integer(14, 1))),
        "another file"),
    "a lie": (file([("MatMul", "x T", "y", {})], {}, more=tensor_with(
        pb.integer(1, 2**30), pb.integer(1, 2**30), pb.integer(2, 1), pb.chunk(9, b"1234"))),
        "4 bytes"),
    "integers": (file([("MatMul", "x T", "y", {})], {}, more=tensor_with(
        pb.integer(1, 3), pb.integer(1, 1), pb.integer(2, 3), pb.chunk(9, b"123"))), "MatMul"),
    "nothing": (b"", "no graph"),
    "text": (b"hello, world", "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart(name):
    raw, message = REFUSED[name]
    with pytest.raises(ConversionError, match=message):
        from_onnx(raw)


def test_a_number_is_no_file():
    with pytest.raises(TypeError, match="PathLike"):  # 0 is standard input
        from_onnx(0)


def test_numbers_of_every_type():
    """Numbers one by one, packed, of 16 bits: widened, and exact."""
    values = np.array([0.5, -1.25, 3.0], "f4")
    bfloat = (values.view("<u4") >> 16).astype("<u2")
    shape = [pb.integer(1, 3), pb.integer(1, 1)]
    for fields in (
        [pb.integer(2, 1), *(pb.float32(4, v) for v in values)],
        [pb.integer(2, 1), pb.chunk(4, values.tobytes())],
        [pb.integer(2, 11), pb.chunk(10, values.astype("f8").tobytes())],
        [pb.integer(2, 10), pb.chunk(9, values.astype("f2").tobytes())],
        [pb.integer(2, 16), pb.chunk(9, bfloat.tobytes())],
    ):
        net = from_onnx(file([("MatMul", "x T", "y", {})], {}, more=tensor_with(*shape, *fields)))
        assert net.weights[0].ravel().tolist() == values.tolist()


# Files changed at random -------------------------------------------------------------------------

TOOL = Path(__file__).parents[2] / "tools" / "fuzz_onnx.py"


@pytest.fixture(scope="module")
def fuzz():
    if not TOOL.exists():
        pytest.skip("tools/fuzz_onnx.py is in the source tree only")
    pytest.importorskip("resource", reason="limits of memory are POSIX's")
    spec = importlib.util.spec_from_file_location("fuzz_onnx", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_that_were_changed_at_random(fuzz):
    files = fuzz.seeds()
    assert all(fuzz.encoded(seed.tree) == seed.raw for seed in files)
    counts, wrong, _ = fuzz.run((files, 17, 500, None))
    assert not wrong
    assert counts["refused"] > 250 and counts["accepted"] > 30 and counts.total() == 500
    assert counts["accepted as before"] > 50


@pytest.mark.parametrize("place", ["operator", "memory"])
def test_faults_that_are_found(fuzz, place, monkeypatch):
    monkeypatch.setattr(fuzz.fuzz_files, "MEASURED", 1)
    if place == "operator":
        monkeypatch.setitem(reader.OPERATORS, "Gemm", lambda *_: 1 // 0)
    else:
        monkeypatch.setattr(reader, "_head_of", lambda value: np.ones(10**6).sum() * 0 or None)
    assert fuzz.run((fuzz.seeds(), 17, 50, None))[1]


def bomb(kind):
    """Return a small file that claims, or adds up, a lot."""
    if kind == "width":
        return file([("Mul", "x half", "s", {}), ("Relu", "s", "y", {})], TENSORS, n=2**31 - 1)
    if kind == "product":
        T = {"A": np.ones((3, 1), "f4"), "B": np.ones((1, 20000), "f4"),
             "C": np.ones((20000, 1), "f4")}  # fmt: skip
        chain = [("MatMul", "x A", "h0", {})]
        for n in range(2):
            chain += [("MatMul", f"h{n} B", f"g{n}", {}), ("MatMul", f"g{n} C", f"h{n + 1}", {})]
        return file([*chain, ("Identity", "h2", "y", {})], T)
    if kind == "constants":
        T = {"A": np.ones((3, 50000), "f4"), "r": np.ones(50000, "f4")}
        nodes = [("MatMul", "x A", "h0", {})]
        nodes += [("Add", f"h{n} r", f"h{n + 1}", {}) for n in range(400)]
        return file([*nodes, ("Relu", "h400", "y", {})], T)
    nodes = [FIRST, ("Relu", "z", "h0", {})]
    nodes += [("Add", f"h{n} h{n}", f"h{n + 1}", {}) for n in range(60)]
    return file([*nodes, ("Relu", "h60", "y", {})], TENSORS)


@pytest.mark.parametrize("kind", ["width", "product", "constants", "sums"])
def test_memory_is_bounded_by_the_file(kind):
    import tracemalloc

    raw = bomb(kind)
    tracemalloc.start()
    try:
        try:
            reader.read(raw)
        except ConversionError:
            assert kind != "product"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20 + 100 * len(raw)


def test_metadata_is_not_trusted():
    """Labels that the graph has are the labels, whatever the metadata tell."""
    nodes = [FIRST, ("Softmax", "z", "p", {}), ("ArgMax", "p", "k", {"axis": 1, "keepdims": 0}),
             ("Gather", "four k", "y", {})]  # fmt: skip
    raw = file(nodes, TENSORS | {"four": np.arange(4)}, outputs=["y", "p"])
    for noted in ([9, 8, 7, 6], "abcd", {"a": 1}, [[0], 1, 2, 3], [1, 2], None, [0, 0, 0, 0]):
        pair = pb.chunk(14, pb.text(1, "cmlp.classes"), pb.text(2, json.dumps(noted)))
        assert from_onnx(raw + pair).classes.tolist() == [0, 1, 2, 3]
    net = chain_of(from_onnx(raw))
    np.testing.assert_allclose(run(net, x), softmax(z), rtol=1e-6)


# Columns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", ["numbers", "cycles"])
def test_an_input_for_each_column(parts):
    """The graph's form; test_onnx_consumers.py runs it. Every node comes after what it takes."""
    start = datetime.datetime(2024, 2, 28, 5)
    table = {
        "age": [None if i % 7 == 0 else i % 11 / 3 for i in range(60)],
        "city": [None if i % 13 == 0 else NAMES[i % 3] for i in range(60)],
        "member": [i % 3 > 0 for i in range(60)],
        "when": [start + datetime.timedelta(hours=41 * i) for i in range(60)],
        "took": [datetime.timedelta(seconds=37 * i % 1001) for i in range(60)],
        "always": ["one"] * 60,
    }
    encoder = TableEncoder(date_parts=parts, n_knots=5).fit(table)
    width = encoder.transform(table).shape[1]
    chain = Chain(width, (Member((Affine(np.eye(width), None), Activation("identity"))),))
    options = graph.Options("float32", "float64")
    found = om.parse(writer.write(chain, options, raw_rows_of(encoder)))
    assert found.inputs.keys() == table.keys() - {"always"}
    assert {node.kind for node in found.nodes if node.domain} == {"LabelEncoder"}
    known = found.inputs.keys() | found.tensors.keys()
    for node in found.nodes:
        assert {name for name in node.inputs if name} <= known, node
        known |= set(node.outputs)
    assert set(found.outputs) <= known


def test_levels_that_are_numbers():
    """Few are compared, which every runtime can; many are looked up, as text is."""
    for n, operator in ((9, "Equal"), (300, "LabelEncoder")):
        table = {"place": [i % n for i in range(2 * n)]}
        encoder = TableEncoder(categorical_features=["place"], max_one_hot=0).fit(table)
        width = encoder.transform(table).shape[1]
        chain = Chain(width, (Member((Affine(np.eye(width), None), Activation("identity"))),))
        content = writer.write(chain, graph.Options("float32", "float64"), raw_rows_of(encoder))
        kinds = [node.kind for node in om.parse(content).nodes]
        assert operator in kinds and ("LabelEncoder" in kinds) == (operator == "LabelEncoder")


@pytest.mark.parametrize("columns", [True, False])
def test_tables_do_not_return(columns):
    """The message names the file that does; of another producer's graph the part, as always."""
    table = {"size": np.arange(40) % 7 + 0.5, "city": [NAMES[i % 3] for i in range(40)]}
    how = {"max_iter": 1, "n_ensemble": 1, "random_state": 0}
    levels = cmlp.Network([2, 3, 2], inputs=cmlp.Inputs(levels={0: (3, 2)}), seed=0)
    files = [to_onnx(levels)]
    for names in (["size"], ["city"], ["size", "city"]):
        model = cmlp.TabularRegressor(**how).fit({name: table[name] for name in names}, range(40))
        files.append(to_onnx(model, columns=columns))
    for raw in files:
        with pytest.raises(ConversionError, match=r"tabular model.* by cmlp\.load"):
            from_onnx(raw)
        with pytest.raises(ConversionError, match="counterpart"):
            from_onnx(raw.replace(b"\x12\x04cmlp", b"\x12\x04CMLP", 1))


def test_columns_that_cannot_leave():
    days = [datetime.datetime(2024, 1, 1) + datetime.timedelta(days=i) for i in range(60)]
    berlin = {"when": [day.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")) for day in days]}
    options = {"max_iter": 1, "n_ensemble": 1, "random_state": 0, "cv": None}
    model = cmlp.TabularRegressor(**options).fit(berlin, np.arange(60.0))
    with pytest.raises(ConversionError, match="'when': the clock of Europe/Berlin changes"):
        to_onnx(model, columns=True)
    for other, more in (
        (cmlp.Network([3, 2]), {}),
        (model, {"input_name": "rows"}),
        (model, {"input_dtype": "uint8"}),
    ):
        with pytest.raises(ConversionError, match="columns=True"):
            to_onnx(other, columns=True, **more)
