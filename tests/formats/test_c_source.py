"""C source: compiled without a warning, right for every activation and head, whatever the labels."""

import ctypes
import re
import shutil
import subprocess

import numpy as np
import pytest

import cmlp
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.estimators.chains import chain_of
from cmlp.estimators.exit_c import to_c
from cmlp.formats import c_formulas
from cmlp.formats.c_source import narrow, write_c
from cmlp.formats.chain import Chain, ConversionError, member_of, run, with_scaler

STRICT = (
    "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wdouble-promotion -Wundef -Wfloat-conversion "
    "-Wcomment -Werror"
).split()
C = [*STRICT, "-Wstrict-prototypes", "-Wmissing-prototypes"]
HIDDEN = [row.name for row in ACTIVATIONS if not row.output_only]
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


class Library:
    """Models in one file, compiled to a shared library."""

    def __init__(self, folder, *sources, flags=("-std=c99", "-O1")):
        flags = (*C, *flags, "-shared", "-fPIC")
        self.library = ctypes.CDLL(str(compile(folder, "\n".join(sources), *flags, out="lib.so")))

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
        indices = []
        for x, row in zip(np.ascontiguousarray(X, np.float32), y, strict=True):
            first = x.ctypes.data_as(pointer)
            to = () if what == "class" else (row.ctypes.data_as(pointer),)
            last = () if what == "predict" else (inside,)
            indices.append(function(first, *to, *last))
        assert scratch[0] == scratch[-1] == 7
        return np.array(indices) if what == "class" else y


def close(found, chain, X, core=None, raw=False):
    """Compare with the oracle, as far as float32 arithmetic lets it."""
    exact = run(chain, np.asarray(X, np.float32), raw=raw)
    allowed = 2e-6 * np.maximum(1, np.abs(exact))
    finite = np.isfinite(exact)
    if core is not None:
        core = core.reshape(exact.shape)
        finite = np.isfinite(core)
        allowed = allowed + 4 * np.abs(core - exact).max(axis=0, initial=0, where=finite)
    with np.errstate(invalid="ignore"):
        wrong = finite & ~(np.abs(found - exact) <= allowed)
    assert not wrong.any(), (np.abs(found - exact)[wrong][:5], exact[wrong][:5])
    assert not np.isfinite(found[~finite]).any()


def test_every_activation_has_a_formula():
    assert list(c_formulas.FORMULAS) == [row.name for row in ACTIVATIONS]


@pytest.fixture(scope="module")
def activations(tmp_path_factory):
    """A library with every hidden activation, the heads by turns, in one file."""
    heads = [
        dict(loss="categorical_crossentropy"), dict(loss="binary_crossentropy"),
        dict(loss="squared_error"), dict(loss="squared_error", out_activation="softplus"),
    ]  # fmt: skip
    models = {}
    for n, (activation, kind) in enumerate([(a, k) for a in HIDDEN for k in range(2)]):
        net = cmlp.Network(
            [6, 9, 7, (3, 2, 2, 4)[n % 4]], activation, seed=n, **heads[(n + n // 4) % 4],
            normalization=(None, "layer", "batch")[n % 3], parametric_activation=bool(kind),
        )  # fmt: skip
        models[f"{activation}_{kind}"] = net
    for activation in HIDDEN:
        models[f"out_{activation}"] = cmlp.Network([6, 5, 2], out_activation=activation, seed=1)
    texts = {name: to_c(net, name=name) for name, net in models.items()}
    return models, texts, Library(tmp_path_factory.mktemp("c"), *texts.values())


@needs_gcc
def test_every_activation_and_head(activations):
    models, texts, library = activations
    X = rng.normal(size=(100, 6)).astype(np.float32)
    for name, net in models.items():
        for factor in (1, 30, 1e4):
            with np.errstate(all="ignore"):
                found = library.outputs(name, texts[name], X * np.float32(factor))
                core = net.predict(X * np.float32(factor))
                close(found, chain_of(net), X * np.float32(factor), core)
