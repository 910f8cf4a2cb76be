"""C source: compiled without a warning, right for every activation and head, with any labels."""

import ctypes
import re
import shutil
import subprocess
import warnings
from dataclasses import replace

import numpy as np
import pytest
from cores import CORES

import cmlp
from cmlp import to_c
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.exchange.chains import chain_of
from cmlp.formats.c import formulas
from cmlp.formats.c.source import narrow, write_c
from cmlp.formats.chain import Affine, Chain, ConversionError, member_of, run, with_scaler
from cmlp.formats.source_text import identifier

WARNINGS = (
    "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wdouble-promotion -Wundef "
    "-Wfloat-conversion -Wcomment -Werror"
)
STRICT = WARNINGS.split()
C = [*STRICT, "-Wstrict-prototypes", "-Wmissing-prototypes"]
HIDDEN = [row.name for row in ACTIVATIONS if not row.output_only]
SLOPES = ["leaky_relu:0.3", "elu:0.5"]
LIBM = {"expf", "logf", "tanhf", "sqrtf", "cosf"}
HOSTILE = [
    'quote " */ end', "back\\slash\\", "new\nline\r\t", "<script>", "what??/ ??' trigraph",
    "\u202eright to left", "%s%n", "12\x0134", "/* open", "é€😀", "",
]  # fmt: skip
rng = np.random.default_rng(0)

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")


def compile(folder, source, *flags, compiler="gcc", suffix=".c", out="program"):
    """Return the path of what a compiler makes of a text."""
    path, program = folder / f"{out}{suffix}", folder / out
    path.write_text(source, encoding="utf-8")
    command = [compiler, *flags, str(path), "-o", str(program), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return program


EACH = """
typedef void (*with_scratch)(const float *, float *, float *);
void each_row(with_scratch f, const float *x, float *y, float *scratch, int n, int n_in, int n_out);
void each_row(with_scratch f, const float *x, float *y, float *scratch, int n, int n_in, int n_out)
{
    for (; n; n--, x += n_in, y += n_out)
        f(x, y, scratch);
}
"""


class Library:
    """Models in one file, compiled to a shared library."""

    def __init__(self, folder, *sources, flags=("-std=c99", "-O1")):
        flags = (*C, *flags, "-shared", "-fPIC")
        text = "\n".join([*sources, EACH])
        self.library = ctypes.CDLL(str(compile(folder, text, *flags, out="lib.so")))

    def outputs(self, name, text, X, what="outputs"):
        """Return the outputs of rows, by `NAME_outputs` or another function."""
        sizes = dict(re.findall(rf"#define {name.upper()}_(\w+) (\d+)", text))
        pointer = ctypes.POINTER(ctypes.c_float)
        function = getattr(self.library, f"{name}_{what}")
        n_out = int(sizes["OUTPUTS"]) + (what == "probabilities")
        y = np.full((len(X), n_out), np.nan, np.float32)
        scratch = np.full(int(sizes["SCRATCH"]) + 2, 7, np.float32)  # guards on both sides
        inside = scratch[1:].ctypes.data_as(pointer)
        function.restype = ctypes.c_int if what == "class" else None
        X, indices = np.ascontiguousarray(X, np.float32), []
        if what not in ("class", "predict"):
            first, to = X.ctypes.data_as(pointer), y.ctypes.data_as(pointer)
            self.library.each_row(function, first, to, inside, len(X), X.shape[1], n_out)
            assert scratch[0] == scratch[-1] == 7
            return y
        for x, row in zip(X, y, strict=True):
            first = x.ctypes.data_as(pointer)
            to = () if what == "class" else (row.ctypes.data_as(pointer),)
            last = () if what == "predict" else (inside,)
            indices.append(function(first, *to, *last))
        assert scratch[0] == scratch[-1] == 7
        return np.array(indices) if what == "class" else y


def shaken(chain):
    """Return a chain whose weights have errors in their last bits, as float32 sums have."""
    noise, members = np.random.default_rng(1), []
    for member in chain.members:
        steps = list(member.steps)
        for number, step in enumerate(steps):
            if isinstance(step, Affine):
                factors = 1 + noise.uniform(-1, 1, step.weights.shape) / 2**22
                steps[number] = replace(step, weights=step.weights * factors)
        members.append(replace(member, steps=tuple(steps)))
    return replace(chain, members=tuple(members))


def close(found, chain, X, cores=(), raw=False):
    """Compare with the oracle, as far as float32 arithmetic lets it."""
    exact = run(chain, np.asarray(X, np.float32), raw=raw)
    allowed = 2e-6 * np.maximum(1, np.abs(exact))
    finite = np.isfinite(exact)
    for core in cores:
        core = core.reshape(exact.shape)
        finite &= np.isfinite(core)
        allowed = np.maximum(allowed, 4 * np.abs(core - exact).max(initial=0, where=finite))
    with np.errstate(invalid="ignore"):
        wrong = finite & ~(np.abs(found - exact) <= allowed)
    assert not wrong.any(), (np.abs(found - exact)[wrong][:5], exact[wrong][:5])
    assert not np.isfinite(found[~finite]).any()


def test_every_activation_has_a_formula():
    assert list(formulas.FORMULAS) == [row.name for row in ACTIVATIONS]


@pytest.fixture(scope="module")
def activations(tmp_path_factory):
    """A library with every hidden activation, the heads by turns, in one file."""
    heads = [
        dict(loss="categorical_crossentropy"), dict(loss="binary_crossentropy"),
        dict(loss="squared_error"), dict(loss="squared_error", out_activation="softplus"),
    ]  # fmt: skip
    models = {}
    for n, (activation, kind) in enumerate([(a, k) for a in (*HIDDEN, *SLOPES) for k in range(2)]):
        net = cmlp.Network(
            [6, 9, 7, (3, 2, 2, 4)[n % 4]], activation, seed=n, **heads[(n + n // 4) % 4],
            normalization=(None, "layer", "batch")[n % 3], parametric_activation=bool(kind),
        )  # fmt: skip
        models[f"{identifier(activation)}_{kind}"] = net
    for activation in HIDDEN:
        models[f"out_{activation}"] = cmlp.Network([6, 5, 2], out_activation=activation, seed=1)
    for net in models.values():
        for array in [*net.biases, *net.scales, *(net.alphas or [])]:
            array[...] += rng.normal(size=array.shape) / 4
    texts = {name: to_c(net, name=name) for name, net in models.items()}
    return models, texts, Library(tmp_path_factory.mktemp("c"), *texts.values())


@needs_gcc
def test_every_activation_and_head(activations):
    models, texts, library = activations
    X = rng.normal(size=(400, 6)).astype(np.float32)
    for name, net in models.items():
        for factor in (1, 30, 1e4):
            with np.errstate(all="ignore"):
                found = library.outputs(name, texts[name], X * np.float32(factor))
                cores = []
                for core in {CORES[0], "python"}:
                    with cmlp.use_core(core):
                        cores.append(net.predict(X * np.float32(factor)))
                cores.append(run(shaken(chain_of(net)), X * np.float32(factor)))
                close(found, chain_of(net), X * np.float32(factor), cores)


# What a file consists of -------------------------------------------------------------------------


def fitted(kind, y, **parameters):
    """Return an estimator, and rows."""
    X = rng.normal(size=(60, 5))
    warnings.simplefilter("ignore", cmlp.ConvergenceWarning)
    defaults = dict(hidden_layer_sizes=(7,), max_iter=3, random_state=0, dtype="float32")
    return getattr(cmlp, kind)(**{**defaults, **parameters}).fit(X, y(X)), X


def three(X):
    return np.digitize(X[:, 0], [-0.5, 0.5])


CASES = {
    "words": lambda: fitted("MLPClassifier", lambda X: np.array(["a", "b", "c"])[three(X)]),
    "numbers": lambda: fitted("MLPClassifier", lambda X: np.array([-(2**31), 0, 7])[three(X)]),
    "linear": lambda: fitted("MLPClassifier", three, hidden_layer_sizes=()),
    "deep": lambda: fitted("MLPClassifier", three, hidden_layer_sizes=(6, 11)),
    "binary": lambda: fitted("MLPClassifier", lambda X: X[:, 0] > 0),
    "labels": lambda: fitted("MLPClassifier", lambda X: (X[:, :3] > 0).astype(int)),
    "regression": lambda: fitted("MLPRegressor", lambda X: X[:, :3]),
    "one": lambda: fitted("MLPRegressor", lambda X: X[:, 0], hidden_layer_sizes=()),
    "float64": lambda: fitted("MLPRegressor", lambda X: X[:, 0], dtype="float64"),
    "ensemble": lambda: fitted("MLPClassifier", three, n_ensemble=3),
    "pair": lambda: fitted("MLPClassifier", lambda X: X[:, 0] > 0, n_ensemble=2),
    "mean": lambda: fitted("MLPRegressor", lambda X: X[:, :2], n_ensemble=2),
}


@pytest.fixture(scope="module")
def estimators(tmp_path_factory):
    """A library with estimators of every kind, plain, raw and 8-bit, and header-only ones."""
    models = {name: make() for name, make in CASES.items()}
    texts = {}
    for name, (model, X) in models.items():
        texts[name] = to_c(model, name=name, X=X)
        texts[f"{name}_raw"] = to_c(model, name=f"{name}_raw", raw=True)
        texts[f"{name}_int8"] = to_c(model, name=f"{name}_int8", weights="int8", X=X)
    return models, texts, Library(tmp_path_factory.mktemp("c"), *texts.values())


@needs_gcc
@pytest.mark.parametrize("name", CASES)
def test_estimators(estimators, name):
    models, texts, library = estimators
    model, X = models[name]
    chain, text = chain_of(model), texts[name]
    X = X.astype(np.float32)
    found = library.outputs(name, text, X)
    close(found, chain, X)
    np.testing.assert_array_equal(library.outputs(name, text, X, "predict"), found)
    close(library.outputs(f"{name}_raw", texts[f"{name}_raw"], X), chain, X, raw=True)
    close(library.outputs(f"{name}_int8", texts[f"{name}_int8"], X), narrow(chain, True), X)
    answers = model.predict(X)
    if chain.head in ("softmax", "logistic"):
        indices = library.outputs(name, text, X, "class")
        np.testing.assert_array_equal(chain.classes[indices], answers)
    if chain.head == "logistic":
        both = library.outputs(name, text, X, "probabilities")
        np.testing.assert_allclose(both, model.predict_proba(X), atol=1e-6)


def test_raw_ensembles_of_classifiers_have_no_class():
    """The mean of scores is not the mean of probabilities."""
    model, _ = CASES["ensemble"]()
    assert "raw_class(" not in to_c(model, name="raw", raw=True)
    assert "raw_class(" in to_c(model, name="raw")


@needs_gcc
def test_fronts_and_units(tmp_path):
    inputs = cmlp.Inputs(
        periodic=[0, 1], levels={3: (5, 4)}, summed={4: 9}, scaled=True, cumulative=(4,)
    )
    x = rng.normal(size=(80, 5))
    X = np.c_[x[:, :3], rng.uniform(-1, 6, 80), rng.uniform(-2, 11, 80)].astype(np.float32)
    X[:20, 3:] = np.rint(X[:20, 3:])
    texts, chains = {}, {}
    for name, sizes in {"hidden": [5, 16, 6, 1], "direct": [5, 2]}.items():
        net = cmlp.Network(sizes, "silu", "softplus", inputs=inputs, loss="squared_error", seed=0)
        net.fit(X, x[:, : sizes[-1]], epochs=3)
        chains[name] = chain_of(net)
        texts[name] = to_c(net, name=name)
    summed = cmlp.Network([1, 4, 1], "tanh", inputs=cmlp.Inputs(summed={0: 9}), seed=0)
    chains["summed"], texts["summed"] = chain_of(summed), to_c(summed, name="summed")
    table = cmlp.TabularRegressor(
        hidden_layer_sizes=(12, 8), max_iter=2, cv=None, n_ensemble=2, random_state=0
    ).fit(X, x[:, 0])
    rows = table.encoder_.transform(X)
    chains["tabular"], texts["tabular"] = chain_of(table), to_c(table, name="tabular", X=rows)
    library = Library(tmp_path, *texts.values())
    for name, text in texts.items():
        columns = {"summed": X[:, 4:], "tabular": rows}.get(name, X)
        exact = run(chains[name], columns.astype(np.float32))
        np.testing.assert_allclose(library.outputs(name, text, columns), exact, atol=2e-5)
    np.testing.assert_allclose(
        library.outputs("tabular", texts["tabular"], rows)[:, 0], table.predict(X), atol=1e-4
    )


@needs_gcc
def test_means_are_subtracted(tmp_path):
    """A mean of 1e5 deviations costs nothing, not even its own rounding to float32."""
    net = cmlp.Network([5, 12, 3], "tanh", seed=1)
    mean = 1e5 + rng.uniform(size=5)
    chain = with_scaler(Chain(5, (member_of(net),)), mean, np.full(5, 2.0))
    X = (mean + rng.normal(size=(50, 5))).astype(np.float32)
    text = write_c(chain, "far").source
    close(Library(tmp_path, text).outputs("far", text, X), chain, X)


# Compilers ---------------------------------------------------------------------------------------


BOTH, FLOATS, BYTES = ("float32", "int8"), ("float32",), ("int8",)
VARIANTS = [
    ("gcc", ["-std=c99", "-O3", "-ffast-math"], FLOATS), ("gcc", ["-std=c17", "-Os"], BYTES),
    ("gcc", ["-std=c11", "-O0", "-m32"], FLOATS), ("g++", ["-std=c++98", "-O2"], BYTES),
    ("clang", ["-std=c99", "-O2", "-Weverything"], FLOATS), ("tcc", [], BOTH),
    ("gcc", ["-std=c99", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], BOTH),
]  # fmt: skip
SILENT = [
    "-Wno-disabled-macro-expansion", "-Wno-declaration-after-statement",
    "-Wno-float-equal", "-Wno-unused-macros",
]  # fmt: skip
"""Warnings of clang's that are about style."""


@needs_gcc
@pytest.mark.parametrize("compiler, flags, kinds", VARIANTS, ids=lambda v: "".join(v))
def test_the_self_test_passes(compiler, flags, kinds, tmp_path):
    """Of weights in float32 in a source, and in 8 bits in a header."""
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    if "-m32" in flags:
        (tmp_path / "m32.c").write_text("#include <math.h>\nint main(void) { return 0; }\n")
        if subprocess.run(["gcc", "-m32", "m32.c"], cwd=tmp_path, capture_output=True).returncode:
            pytest.skip("there is no 32-bit library")
    strict = STRICT if "++" in compiler else [] if compiler == "tcc" else C
    if "-Weverything" in flags:
        flags = [*flags, *SILENT]
    net = cmlp.Network(
        [6, 9, 7, 3], ["gelu", "mish"], loss="categorical_crossentropy", seed=0,
        normalization="layer", parametric_activation=True,
    )  # fmt: skip
    suffix = ".cpp" if "++" in compiler else ".c"
    for weights in kinds:
        header = weights == "int8"
        text = to_c(net, name="net", header=header, weights=weights)
        (tmp_path / "net.h").write_text(text)
        source = '#include "net.h"\n' if header else text
        flags = [*strict, *flags, "-DNET_SELFTEST"]
        program = compile(tmp_path, source, *flags, compiler=compiler, suffix=suffix)
        assert subprocess.run([program]).returncode == 0


@needs_gcc
def test_the_self_test_fails(tmp_path):
    """With one weight changed, or a class."""
    text = to_c(cmlp.Network([6, 9, 3], loss="categorical_crossentropy", seed=0), name="net")
    for pattern, spoiled in (
        (r"(w1\[54\] NET_FLASH = \{\n *)[^,]*,", r"\g<1>0.1f,"),
        (r"net_class\(x, scratch\) != \d", "net_class(x, scratch) != 4"),
    ):
        other, count = re.subn(pattern, spoiled, text)
        assert count
        assert subprocess.run([compile(tmp_path, other, "-DNET_SELFTEST")]).returncode == 1


@needs_gcc
def test_two_models_in_one_program(tmp_path):
    """One by its header, in C++ with a source in C; the other one static."""
    net = cmlp.Network([3, 4, 2], "relu", loss="categorical_crossentropy", seed=0)
    to_c(net, tmp_path / "first.c", header=True)
    to_c(net, tmp_path / "second.h", weights="int8")
    (tmp_path / "main.cpp").write_text(
        '#include "first.h"\n#include "first.h"\n#include "second.h"\n'
        "int main() { float x[3] = {1, 2, -1}, y[2], z[2]; first_predict(x, y);"
        " second_predict(x, z); float d = y[0] - z[0]; return !(d < 0.05f && d > -0.05f)"
        " || first_class_values[1] != second_class_values[1]; }\n"
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "first.c",
        "first.h",
        "second.h",
        "main.cpp",
    }
    for command in (
        ["gcc", *C, "-c", "first.c"], ["g++", *STRICT, "main.cpp", "first.o", "-o", "main", "-lm"],
        ["./main"],
    ):  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@needs_gcc
def test_objects_are_constant_and_small(tmp_path):
    """No data and no bss; of other objects only functions of math.h; the stack is as promised."""
    net = cmlp.Network([16, 32, 32, 4], ["tanh", "softplus"], loss="binary_crossentropy", seed=0)
    text = to_c(net, name="net")
    object_ = compile(tmp_path, text, *C, "-std=c99", "-Os", "-c", "-fstack-usage", "-fno-pie")
    size = subprocess.run(["size", object_], capture_output=True, text=True).stdout
    assert size.splitlines()[1].split()[1:3] == ["0", "0"]
    names = subprocess.run(["nm", "-u", object_], capture_output=True, text=True).stdout.split()
    assert set(names) - {"U"} <= {*LIBM, "memcpy", "memset"}
    promised = int(re.search(r"stack: at most (\d+)", text)[1])
    used = [int(n) for n in re.findall(r"\t(\d+)\t", next(tmp_path.glob("*.su")).read_text())]
    assert 0 < sum(used) <= promised


@needs_gcc
def test_class_of_a_relu_net_needs_no_library(tmp_path):
    net = cmlp.Network([4, 8, 3], "relu", loss="categorical_crossentropy", seed=0)
    main = "\nint main(void) { float x[4] = {0}, s[NET_SCRATCH]; return net_class(x, s) > 2; }\n"
    program = compile(
        tmp_path, to_c(net, name="net") + main, "-Os", "-ffunction-sections", "-Wl,--gc-sections",
    )  # fmt: skip
    names = subprocess.run(["nm", "-u", program], capture_output=True, text=True).stdout
    assert "expf" not in names


# Text of strangers -------------------------------------------------------------------------------


@needs_gcc
@pytest.mark.parametrize("compiler", ["gcc", "g++"])
def test_hostile_labels_are_printed_back(tmp_path, compiler):
    net = cmlp.Network([2, len(HOSTILE)], loss="categorical_crossentropy", seed=0)
    net.classes, net.feature_names = np.array(HOSTILE), ["*/ int x;", "a\\\n??/"]
    main = (
        "\n#include <stdio.h>\nint main(void) { int i; for (i = 0; i < NET_CLASSES; i++)"
        " { fputs(net_class_names[i], stdout); putchar(0); } return 0; }\n"
    )
    text = to_c(net, name="net")
    standard = "-std=c99" if compiler == "gcc" else "-std=c++98"  # with trigraphs
    suffix = ".c" if compiler == "gcc" else ".cpp"
    program = compile(tmp_path, text + main, *STRICT, standard, compiler=compiler, suffix=suffix)
    printed = subprocess.run([program], capture_output=True).stdout
    assert printed.decode().split("\0")[:-1] == HOSTILE
    assert re.fullmatch(r"[\n -~]+", text)
    assert "int x" not in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def test_labels_that_c_has_no_string_for():
    for label in ("a\0b", "x" * 5000):
        net = cmlp.Network([2, 2], loss="categorical_crossentropy", seed=0)
        net.classes = np.array([label, "b"])
        with pytest.raises(ConversionError, match=r"NUL|4095"):
            to_c(net)


def test_one_class_has_no_index():
    net = cmlp.Network([2, 1], loss="binary_crossentropy", seed=0)
    with pytest.raises(ConversionError, match=r"one class, \['a'\]"):
        write_c(Chain(2, (member_of(net),), classes=np.array(["a"])), "model")


@pytest.mark.parametrize(
    "name", ["", "1a", "a-b", "int", "class", "_a", "a__b", "a" * 49, "é", "a\n", "a */"]
)
def test_names_that_are_no_identifiers(name):
    with pytest.raises(ConversionError, match="identifiers"):
        to_c(cmlp.Network([2, 2], seed=0), name=name)


# The file ----------------------------------------------------------------------------------------


def test_text_is_deterministic_and_narrow(tmp_path):
    net = cmlp.Network([30, 8, 3], seed=0)
    net.feature_names = [f"f{n}" for n in range(30)]
    text = to_c(net, name="net")
    assert text == to_c(net, name="net")
    assert max(map(len, text.splitlines())) <= 120
    assert to_c(net, tmp_path / "net.c") is None
    assert (tmp_path / "net.c").read_bytes().decode() == text
    to_c(net, bytes(tmp_path / "net.h"))
    assert (tmp_path / "net.h").read_text() == to_c(net, name="net", header=True)
    assert "net_predict(" not in to_c(net, name="net", stack_limit=16)


def test_weights_are_the_same_after_the_way_through_text():
    net = cmlp.Network([30, 8, 3], seed=0)
    table = re.search(r"net_w1\[240\] NET_FLASH = \{(.*?)\}", to_c(net, name="net"), re.DOTALL)[1]
    back = np.array([float(word.rstrip("f")) for word in table.replace(",", " ").split()])
    np.testing.assert_array_equal(back.astype(np.float32), net.weights[0].ravel())


def test_what_does_not_fit(tmp_path):
    net = cmlp.Network([2, 2], seed=0, dtype="float64")
    with pytest.raises(ConversionError, match="weights='int4'"):
        to_c(net, weights="int4")
    with pytest.raises(ConversionError, match="shape"):
        to_c(net, X=np.zeros((3, 3)))
    net.weights[0][0, 0] = 1e300
    with pytest.raises(ConversionError, match="layer 1 has numbers that are not finite in float32"):
        to_c(net)
    (tmp_path / "net.c").write_text("old")
    with pytest.raises(ConversionError):
        to_c(net, tmp_path / "net.c")
    assert (tmp_path / "net.c").read_text() == "old"
    with pytest.raises(OSError, match="no_folder"):
        to_c(cmlp.Network([2, 2], seed=0), tmp_path / "no_folder" / "net.c")


def test_large_tables_and_models():
    wide = cmlp.Network([1000, 1010, 2], weight_init="zeros", seed=0)
    with pytest.warns(UserWarning, match="ONNX"):
        text = to_c(wide, name="net", weights="int8")
    assert '#error "net_w1 has 1010000 bytes' in text
