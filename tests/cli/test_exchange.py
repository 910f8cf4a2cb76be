"""``cmlp export`` and ``cmlp import``: there and back, and what is refused."""

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest

import cmlp

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


@pytest.fixture
def net(in_folder):
    """A network with labels, saved as net.cmlp."""
    net = cmlp.Network([3, 5, 2], "tanh", loss="categorical_crossentropy", seed=0)
    net.classes = np.array(["cat", "dog"])
    net.save("net.cmlp")
    return net


def test_onnx_there_and_back(run, net):
    code, out, err = run("export", "net.cmlp", "--out", "net.onnx", "--opset", "17")
    assert (code, err) == (0, "")
    assert out.startswith("net.onnx: ")
    assert out.endswith("; 32 parameters of layers, 25 multiply-adds a row\n")
    code, out, err = run("import", "net.onnx", "--out", "again.cmlp")
    assert (code, err) == (0, "")
    assert "3-5-2, tanh, softmax, loss categorical_crossentropy" in out
    again = cmlp.load("again.cmlp")
    np.testing.assert_array_equal(again.params, net.params)
    assert again.classes.tolist() == ["cat", "dog"]


@pytest.mark.parametrize("layout", [None, "keras", "flax"])
def test_weights_there_and_back(run, net, layout):
    given = ["--layout", layout] if layout else []
    assert run("export", "net.cmlp", "--out", "w.safetensors", *given)[0] == 0
    code, _, err = run("import", "w.safetensors", *given, "--activation", "tanh",
                       "--out-activation", "softmax", "--classes", "cat,dog")  # fmt: skip
    assert (code, err) == (0, "")
    again = cmlp.load("model.cmlp")
    np.testing.assert_array_equal(again.params, net.params)
    assert again.predict_classes(X).tolist() == net.predict_classes(X).tolist()


@pytest.mark.skipif(
    not {"keras", "h5py"} <= {n for n in ("keras", "h5py") if importlib.util.find_spec(n)},
    reason="Keras is not installed",
)
@pytest.mark.filterwarnings("ignore")
def test_keras_there_and_back(run, net):
    assert run("export", "net.cmlp", "--out", "net.keras")[0] == 0
    assert run("import", "net.keras", "--out", "again.cmlp")[0] == 0
    np.testing.assert_array_equal(cmlp.load("again.cmlp").params, net.params)


def test_source_code(run, net, in_folder):
    """Python and C run; JavaScript is of either kind of module."""
    for options in ([], ["--pure"]):
        code, out, err = run("export", "net.cmlp", "--out", "net.py", *options)
        assert (code, err) == (0, "") and "25 multiply-adds" in out
        made = subprocess.run(
            [sys.executable, "-c", f"import net; print(net.predict({X.tolist()}))"],
            cwd=in_folder, capture_output=True, text=True,
        )  # fmt: skip
        assert made.stdout.count("cat") == np.sum(net.predict_classes(X) == "cat"), made.stderr
    assert run("export", "net.cmlp", "--out", "net.mjs")[0] == 0
    assert run("export", "net.cmlp", "--out", "net.cjs")[0] == 0
    assert "export {" in (in_folder / "net.mjs").read_text()
    assert "module.exports" in (in_folder / "net.cjs").read_text()


def test_c(run, net, in_folder):
    np.save("rows.npy", X)
    options = ["--name", "pets", "--header", "--int8", "--sample", "rows.npy"]
    code, out, err = run("export", "net.cmlp", "--out", "net.c", *options)
    assert (code, err) == (0, "")
    assert (
        "flash: " in out and "RAM: " in out and "largest deviation" in out and "on 40 rows" in out
    )
    assert "pets_predict" in (in_folder / "net.h").read_text()
    if shutil.which("gcc"):
        build = ["gcc", "-DPETS_SELFTEST", "net.c", "-o", "net", "-lm"]
        subprocess.run(build, cwd=in_folder, check=True)
        assert subprocess.run([in_folder / "net"]).returncode == 0


def test_rows_of_a_tabular_model(run, in_folder):
    """--sample has raw rows, C takes encoded ones."""
    rows = [["b" if i % 3 else "a", i / 7] for i in range(60)]
    model = cmlp.TabularRegressor(
        hidden_layer_sizes=(4,), max_iter=2, n_ensemble=1, cv=None, random_state=0
    ).fit(rows, [row[1] for row in rows])
    model.save("table.cmlp")
    (in_folder / "rows.csv").write_text("".join(f"{a},{b}\n" for a, b in rows))
    code, out, err = run("export", "table.cmlp", "--out", "table.h", "--sample", "rows.csv")
    assert (code, err) == (0, "") and "on 60 rows" in out
    assert run("export", "table.cmlp", "--out", "table.onnx", "--columns")[0] == 0
    assert b"LabelEncoder" in (in_folder / "table.onnx").read_bytes()


REFUSED = {
    "--out net.txt": "--out net.txt: expected a name that ends in .onnx, .c, .h, .py, .js",
    "--out net": "expected a name that ends in",
    "--out net.pt": ".pt may hold code",
    "--out net.py --opset 13": "--opset is for .onnx, not for .py",
    "--out net.onnx --header": "--header is for .c, not for .onnx",
    "--out net.onnx --opset 99": "opset",
    "--out net.onnx --input-dtype int3": "input_dtype must be one of",
    "--out net.c --name 1a": "identifiers",
    "--out net.safetensors --layout caffe": "layout",
    "--out no/net.onnx": "there is no folder",
    "": "--out",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_export_refuses(complaint, net, options, in_folder):
    before = sorted(in_folder.iterdir())
    assert REFUSED[options] in complaint("export", "net.cmlp", *options.split())
    assert sorted(in_folder.iterdir()) == before


def test_a_header_does_not_replace_the_model(complaint, net, in_folder):
    net.save("pets.h")
    error = complaint("export", "pets.h", "--out", "pets.c", "--header")
    assert "--out pets.h: this would replace the file that is read" in error
    assert cmlp.load("pets.h").sizes == net.sizes


def test_what_is_no_model(complaint, net, in_folder):
    for name in ("x.onnx", "x.safetensors", "x.cmlp"):
        (in_folder / name).write_bytes(b"this is no model")
    assert "x.cmlp" in complaint("export", "x.cmlp", "--out", "x.py")
    assert "x.onnx" in complaint("import", "x.onnx")
    assert "x.safetensors" in complaint("import", "x.safetensors")
    assert "No such file" in complaint("import", "y.onnx")
    assert "expected a name that ends in .onnx, .keras, .h5, .safetensors; .pkl may hold code" in (
        complaint("import", "net.pkl")
    )
    assert "--classes is for" in complaint("import", "x.onnx", "--classes", "a,b")
    net.save("own.safetensors")
    assert "own.safetensors: this is a file of cmlp's own" in complaint("import", "own.safetensors")
    assert not (in_folder / "model.cmlp").exists()


def test_import_writes_a_model_file(complaint, net):
    cmlp.to_onnx(net, "net.onnx")
    text = complaint("import", "net.onnx", "--out", "again.onnx")
    assert "again.onnx: a model file of cmlp is written, such as model.cmlp" in text


def test_ensembles_pass_through_onnx(run, complaint, in_folder):
    """A model file holds one network, or a model of tables: estimators and pipelines have none."""
    kind, y = cmlp.MLPRegressor, X[:, 0]
    model = kind(hidden_layer_sizes=(3,), n_ensemble=2, max_iter=1, random_state=0)
    with pytest.warns(cmlp.ConvergenceWarning):
        model.fit(X, y)
    cmlp.to_onnx(model, "mean.onnx")
    text = complaint("import", "mean.onnx")
    assert "mean.onnx is the mean of 2 networks" in text and "cmlp export mean.onnx" in text
    np.savetxt("rows.csv", X, delimiter=",")
    code, out, err = run("export", "mean.onnx", "--out", "mean.c", "--sample", "rows.csv")
    assert (code, err) == (0, "") and "on 40 rows" in out
    assert run("export", "mean.onnx", "--out", "mean.py")[0] == 0
    written = {}
    exec((in_folder / "mean.py").read_text(), written)
    expected = cmlp.from_onnx("mean.onnx").predict(X)
    np.testing.assert_allclose(np.ravel(written["predict"](X)), expected, rtol=1e-6)
    (in_folder / "x.onnx").write_bytes(b"this is no model")
    assert "x.onnx: this is no ONNX file" in complaint("export", "x.onnx", "--out", "x.py")
    assert ".pkl may hold code" in complaint("export", "model.pkl", "--out", "x.py")


def test_ensembles_for_tables(run, in_folder):
    rows = {"size": [i / 7 for i in range(40)], "kind": ["ab"[i % 2] for i in range(40)]}
    how = {"hidden_layer_sizes": (4,), "max_iter": 1, "n_ensemble": 3, "random_state": 0}
    cmlp.TabularClassifier(**how).fit(rows, rows["kind"]).save("table.cmlp")
    for name in ("table.onnx", "table.c", "table.h", "table.py", "table.mjs"):
        code, out, err = run("export", "table.cmlp", "--out", name)
        assert (code, err) == (0, "") and out.startswith(name)
