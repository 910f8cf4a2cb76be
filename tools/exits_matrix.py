"""Print how far each way out of cmlp is from float64, for activations, outputs and normalisations.

    PYTHONPATH=src python tools/exits_matrix.py [--only NAME ...]

A cell is the largest ``|found - exact| / max(1, |exact|)`` over the rows and networks that it
names, in float32; exact is the network in float64, not folded, by the NumPy core. Every activation
meets every kind of output and every normalisation. "-" is what a way refuses; "WRONG" stands
for a wrong label and for numbers that are not finite. Ways whose program or library is missing are
named. A cell above 1e-4 makes the program return 1.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cmlp
from cmlp.core.vocabulary import ACTIVATIONS

os.environ.setdefault("KERAS_BACKEND", "numpy")
warnings.simplefilter("ignore")

HIDDEN = [*(row.name for row in ACTIVATIONS if not row.output_only), "leaky_relu:0.3", "elu:0.5"]
NORMALIZATIONS = (None, "batch", "layer")
HEADS = {
    "softmax": (3, "softmax", "categorical_crossentropy"),
    "binary": (1, "logistic", "binary_crossentropy"),
    "multilabel": (3, "logistic", "binary_crossentropy"),
    "linear": (2, "identity", "squared_error"),
    "exp": (2, "exp", "poisson"),
}
LABELS = {"softmax": ["ape", 'b"\n*/', "<\u00fc>"], "binary": ["no", "yes"]}
WRONG = 1e-4
X = np.random.default_rng(0).normal(size=(60, 7)).astype("f4") * 2


@dataclass
class Case:
    """A network with its outputs in float64."""

    number: int
    activation: str
    head: str
    normalization: str | None
    net: cmlp.Network
    exact: np.ndarray
    expected: list[Any] | None
    """The label of each row; None of a row that is nearly undecided."""


def cases() -> list[Case]:
    """Return networks that hold every pair of activation, head and normalisation."""
    found = []
    for i, activation in enumerate(HIDDEN):
        for j, (head, (n_out, out, loss)) in enumerate(HEADS.items()):
            rng = np.random.default_rng((i, j))
            normalization = NORMALIZATIONS[(i + j) % 3]
            net = cmlp.Network(
                [7, 12, 9, n_out],
                activation,
                out,
                loss,
                seed=i,
                normalization=normalization,
                input_scale=0.25,
            )
            if head == "softmax" or head == "binary":
                y = np.array(LABELS[head])[rng.integers(0, len(LABELS[head]), len(X))]
            else:
                y = rng.integers(0, 2, (len(X), n_out)).astype("f4")
            net.fit(X, y, epochs=3, batch_size=20, learning_rate=1e-3, clip_norm=1)
            exact, labels = computed(net, head)
            found.append(Case(len(found), activation, head, normalization, net, exact, labels))
    return found


def computed(net: cmlp.Network, head: str) -> tuple[np.ndarray, list[Any] | None]:
    """Return outputs in float64, and labels if the network has labels."""
    with cmlp.use_core("python"):
        exact = net.astype("float64").predict(X)
    if head not in LABELS:
        return exact, None
    p = np.concatenate([1 - exact, exact], axis=1) if head == "binary" else exact
    two = np.sort(p, axis=1)[:, -2:]
    sure = two[:, 1] - two[:, 0] > WRONG
    labels = np.asarray(net.classes)[p.argmax(1)]
    return exact, [str(each) if known else None for each, known in zip(labels, sure, strict=True)]


def network(case: Case) -> np.ndarray:
    """Return the outputs of the network itself."""
    return case.net.predict(X)


# One network at a time: each returns outputs, or outputs and labels ------------------------------

Answer = Any
Each = Callable[[Case], Answer]


def need(name: str) -> Any:
    """Import what a way needs."""
    return importlib.import_module(name)


def ours() -> tuple[str, Each]:
    return f"cmlp's own core ({cmlp.__version__})", network


def onnx_reference() -> tuple[str, Each]:
    onnx, reference = need("onnx"), need("onnx.reference")

    def each(case: Case) -> Answer:
        model = onnx.load_from_string(cmlp.to_onnx(case.net))
        return of_onnx(reference.ReferenceEvaluator(model).run(None, {"X": X}), case)

    return f"ONNX, onnx.reference {onnx.__version__}", each


def onnx_runtime() -> tuple[str, Each]:
    ort = need("onnxruntime")
    ort.set_default_logger_severity(3)

    def each(case: Case) -> Answer:
        session = ort.InferenceSession(cmlp.to_onnx(case.net), providers=["CPUExecutionProvider"])
        return of_onnx(session.run(None, {"X": X}), case)

    return f"ONNX, onnxruntime {ort.__version__}", each


def of_onnx(found: list[Any], case: Case) -> Answer:
    """Return what a runtime computed: labels are the first output where there are labels."""
    if case.expected is None:
        return found[-1]
    return found[-1], [str(label) for label in found[0]]


def sklearn() -> tuple[str, Each]:
    version = need("sklearn").__version__

    def each(case: Case) -> Answer:
        model = cmlp.to_sklearn(case.net)
        if case.expected is None:
            return getattr(model, "predict_proba", model.predict)(X)
        return model.predict_proba(X), [str(label) for label in model.predict(X)]

    return f"scikit-learn {version}", each


def torch() -> tuple[str, Each]:
    library = need("torch")

    def each(case: Case) -> Answer:
        with library.no_grad():
            return cmlp.to_torch(case.net)(library.from_numpy(X)).numpy()

    return f"PyTorch {library.__version__}", each


def keras() -> tuple[str, Each]:
    library = need("keras")

    def each(case: Case) -> Answer:
        return library.ops.convert_to_numpy(cmlp.to_keras(case.net)(X))

    return f"Keras {library.__version__} on {library.backend.backend()}", each


def flax() -> tuple[str, Each]:
    linen, jax = need("flax.linen"), need("jax")
    nn = jax.nn
    functions = {
        "identity": lambda z: z, "logistic": nn.sigmoid, "exp": jax.numpy.exp,
        "tanh": jax.numpy.tanh, "gelu": lambda z: nn.gelu(z, approximate=False),
        "leaky_relu:0.3": lambda z: nn.leaky_relu(z, 0.3), "elu:0.5": lambda z: nn.elu(z, 0.5),
    }  # fmt: skip

    def each(case: Case) -> Answer:
        variables = cmlp.to_flax(case.net)
        a: Any = X
        for k, name in enumerate(case.net.activations):
            dense = variables["params"][f"Dense_{k}"]
            layer = linen.Dense(dense["kernel"].shape[1], use_bias="bias" in dense)
            a = layer.apply({"params": dense}, a)
            if f"LayerNorm_{k}" in variables["params"]:
                norm = linen.LayerNorm(epsilon=1e-5, use_fast_variance=False)
                a = norm.apply({"params": variables["params"][f"LayerNorm_{k}"]}, a)
            a = (functions.get(name) or getattr(nn, name))(a)
        return np.asarray(a)

    return f"Flax {need('flax').__version__}, JAX {jax.__version__}", each


def safetensors() -> tuple[str, Each]:
    """There and back, through the three layouts in turn."""

    def each(case: Case) -> Answer:
        layout, file = ("torch", "keras", "flax")[case.number % 3], io.BytesIO()
        cmlp.to_safetensors(case.net, file, layout)
        file.seek(0)
        *hidden, out = case.net.activations
        back = cmlp.from_safetensors(file, layout, activation=hidden, out_activation=out)
        return back.predict(X)

    return "safetensors, there and back", each


# All networks in one program: each returns an answer per case -------------------------------------

Together = Callable[[list[Case], Path], list[Answer]]


def version_of(*command: str) -> str:
    """Return the first line of what a program prints as its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]


def printed(command: list[str], folder: Path) -> Any:
    """Run a program and return what it prints as JSON."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def pairs(found: list[Any], several: list[Case]) -> list[Answer]:
    """Return outputs with labels where the case has labels."""
    return [
        np.array(outputs) if case.expected is None else (np.array(outputs), list(map(str, labels)))
        for case, (outputs, labels) in zip(several, found, strict=True)
    ]


def c() -> tuple[str, Together]:
    version = version_of("gcc", "-dumpfullversion")

    def together(several: list[Case], folder: Path) -> list[Answer]:
        parts = ["#include <stdio.h>\n"]
        calls = []
        for case in several:
            name = f"n{case.number}"
            parts.append(cmlp.to_c(case.net, name=name) or "")
            has = case.expected is not None
            at = f"(int){name}_class(X + 7 * r, s)" if has else "0"
            calls.append(
                f"    {{ float y[{name.upper()}_OUTPUTS], s[{name.upper()}_SCRATCH];\n"
                f"    for (r = 0; r < {len(X)}; r++) {{ {name}_outputs(X + 7 * r, y, s);\n"
                f'        fwrite(y, sizeof y, 1, f);\n        printf("%d ", {at}); }} }}'
            )
        numbers = ",".join(f"{float(x).hex()}f" for x in X.ravel())
        (folder / "all.c").write_text(
            "\n".join(parts) + f"\nstatic const float X[] = {{{numbers}}};\nint main(void)\n{{\n"
            '    int r;\n    FILE *f = fopen("y.bin", "wb");\n' + "\n".join(calls)
            + "\n    fclose(f);\n    return 0;\n}\n"
        )  # fmt: skip
        subprocess.run(["gcc", "-O1", "all.c", "-o", "all", "-lm"], cwd=folder, check=True)
        places = subprocess.run(
            [str(folder / "all")], cwd=folder, capture_output=True, check=True
        ).stdout.split()
        flat, rows = np.fromfile(folder / "y.bin", "f4"), iter(places)
        found, begin = [], 0
        for case in several:
            end = begin + case.exact.size
            at = [int(next(rows)) for _ in X]
            labels = np.asarray(case.net.classes)[at] if case.expected is not None else at
            found.append((flat[begin:end].reshape(case.exact.shape), labels))
            begin = end
        return pairs(found, several)

    return f"C, gcc {version}", together


def python(pure: bool) -> tuple[str, Together]:
    what = "alone" if pure else f"with NumPy {np.__version__}"

    def together(several: list[Case], folder: Path) -> list[Answer]:
        for case in several:
            cmlp.to_python(case.net, folder / f"m{case.number}.py", pure=pure)
        (folder / "x.json").write_text(json.dumps(X.tolist()))
        wanted = [(case.number, case.expected is not None) for case in several]
        (folder / "go.py").write_text(
            "import importlib, json\nX, found = json.load(open('x.json')), []\n"
            f"for k, labels in {wanted!r}:\n"
            "    m = importlib.import_module(f'm{k}')\n"
            "    y = [[float(v) for v in row] for row in m.outputs(X)]\n"
            "    found.append([y, [str(v) for v in m.predict(X)] if labels else None])\n"
            "print(json.dumps(found))\n"
        )
        return pairs(printed([sys.executable, "go.py"], folder), several)

    return f"Python {platform.python_version()} {what}", together


def javascript() -> tuple[str, Together]:
    version = version_of("node", "--version")

    def together(several: list[Case], folder: Path) -> list[Answer]:
        for case in several:
            cmlp.to_javascript(case.net, folder / f"m{case.number}.mjs")
        wanted = [[case.number, case.expected is not None] for case in several]
        (folder / "go.mjs").write_text(
            f"const X = {json.dumps(X.tolist())}, found = [];\n"
            f"for (const [k, labels] of {json.dumps(wanted)}) {{\n"
            "  const m = await import(`./m${k}.mjs`);\n"
            "  found.push([X.map(m.outputs), labels ? X.map(m.predict) : null]);\n}\n"
            "console.log(JSON.stringify(found));\n"
        )
        return pairs(printed(["node", "go.mjs"], folder), several)

    return f"JavaScript, node {version}", together


# The matrices ------------------------------------------------------------------------------------

ALONE = {
    "core": ours, "onnx": onnx_reference, "onnxruntime": onnx_runtime, "sklearn": sklearn,
    "torch": torch, "keras": keras, "flax": flax, "safetensors": safetensors,
}  # fmt: skip
PROGRAMS = {
    "c": c, "python": lambda: python(False), "pure": lambda: python(True),
    "javascript": javascript,
}  # fmt: skip


def difference(case: Case, answer: Answer) -> float:
    """Return the largest difference; infinity if a label, a shape or a number is wrong."""
    outputs, labels = answer if isinstance(answer, tuple) else (answer, None)
    n_out = case.exact.shape[1]
    outputs = np.asarray(outputs, "f8").reshape(len(X), -1)[:, -n_out:]  # binary: of both classes
    if labels is not None and case.expected is not None:
        both = zip(labels, case.expected, strict=True)
        if any(came != expected for came, expected in both if expected is not None):
            return np.inf
    worst = np.abs(outputs - case.exact) / np.maximum(1, np.abs(case.exact))
    return float(worst.max()) if np.isfinite(worst).all() else np.inf


def measure(name: str, several: list[Case]) -> tuple[str, list[float | None]]:
    """Return a way's name with its version, and a difference per case (None: refused)."""
    if name in PROGRAMS:
        title, together = PROGRAMS[name]()
        with tempfile.TemporaryDirectory() as folder:
            answers = together(several, Path(folder))
        return title, [difference(*pair) for pair in zip(several, answers, strict=True)]
    title, each = ALONE[name]()
    found: list[float | None] = []
    for case in several:
        try:
            found.append(difference(case, each(case)))
        except cmlp.ConversionError:
            found.append(None)
    return title, found


def cell(found: list[float | None]) -> str:
    """Return the largest number of a cell as text."""
    numbers = [number for number in found if number is not None]
    if not numbers:
        return "-"
    worst = max(numbers)
    return "WRONG" if worst == np.inf else f"{worst:.0e}".replace("e-0", "e-")


def show(results: dict[str, list[float | None]], several: list[Case], names: list[str]) -> None:
    """Print one matrix, a row for each way; a column holds the cases that have its name."""
    width = max(map(len, results)) + 1
    print(" " * width + " ".join(f"{name[:10]:>{max(5, len(name[:10]))}}" for name in names))
    for title, found in results.items():
        cells = []
        for name in names:
            chosen = [
                number
                for case, number in zip(several, found, strict=True)
                if name in (case.activation, case.head, f"norm {case.normalization}")
            ]
            cells.append(f"{cell(chosen):>{max(5, len(name[:10]))}}")
        print(f"{title:{width}}" + " ".join(cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*ALONE, *PROGRAMS])
    args = parser.parse_args()
    several = cases()
    results, missing = {}, []
    for name in args.only or [*ALONE, *PROGRAMS]:
        try:
            title, found = measure(name, several)
            results[title] = found
        except (ImportError, FileNotFoundError) as error:
            missing.append(f"{name} ({error})")
    print(f"{len(several)} networks 7-12-9-n, {len(X)} rows, float32\n")
    show(results, several, HIDDEN)
    print()
    show(results, several, [*HEADS, *(f"norm {each}" for each in NORMALIZATIONS)])
    for title, found in results.items():
        if None in found:
            print(f"\n{title}: {found.count(None)} of {len(found)} networks refused")
    if missing:
        print("\nmissing:", "; ".join(missing))
    wrong = [
        f"{title}: {case.activation}, {case.head}, {case.normalization}: {number:.1e}"
        for title, found in results.items()
        for case, number in zip(several, found, strict=True)
        if number is not None and number > WRONG
    ]
    print("\n" + "\n".join(wrong or ["no cell above 1e-4"]))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
