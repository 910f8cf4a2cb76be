"""Measure the C of cmlp.to_c and of what else writes C for such networks: emlearn and onnx2c.

    PYTHONPATH=src python tools/c_rivals.py --emlearn PYTHON --onnx2c PROGRAM [--level=-O2]

PYTHON has emlearn installed, PROGRAM is a compiled onnx2c; without them they are named as missing.
Every writer gets the same trained weights. Flash (text and data), RAM (data and bss) and stack are
what the model adds to an empty program with the same input and output, its library functions
included; instructions are qemu's, one call. The host is `gcc -O2`. Deviations are from
float64, of the outputs and largest over the rows; `x 1e-6` is the same network with first weights
of 1e-6 times the size for rows of 1e6 times the size.
"""

from __future__ import annotations

import argparse
import functools
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from c_targets import ARM_CORES, ARM_SCRIPT, ARM_START, Missing, run

import cmlp
from cmlp.datasets import load_digits

warnings.simplefilter("ignore")

# The networks, and float64 -----------------------------------------------------------------------


def trained(factor: float) -> dict[str, tuple[cmlp.Network, np.ndarray]]:
    """Return networks of relu and softmax, and rows, whose first weights have a factor."""
    digits = load_digits()
    X = digits.X_train.astype("f4") / np.float32(factor)
    large = cmlp.Network([64, 32, 10], "relu", seed=0, input_scale=factor)
    large.fit(X, digits.y_train, epochs=20)
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(1000, 16)) / factor).astype("f4")
    labels = (rows[:, 0] * rows[:, 1] > 0).astype(int)
    small = cmlp.Network([16, 64, 64, 2], "relu", seed=0, input_scale=factor)
    small.fit(rows, labels, epochs=20)
    rows_of_digits = (digits.X_test / factor).astype("f4")
    return {"64-32-10": (large, rows_of_digits), "16-64-64-2": (small, rows)}


def layers(net: cmlp.Network) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return weights and biases in float32, with the factor of the inputs, as all writers get."""
    first = np.float64(net.input_scale) * net.weights[0]
    return [*zip([first.astype("f4"), *net.weights[1:]], net.biases, strict=True)]


def exact(net: cmlp.Network, X: np.ndarray) -> np.ndarray:
    """Return the probabilities, computed in float64 from the weights in float32."""
    a = X.astype("f8")
    *hidden, (V, c) = layers(net)
    for W, b in hidden:
        a = np.maximum(a @ W.astype("f8") + b, 0)
    z = a @ V.astype("f8") + c
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


# The writers: each a C text with `void model(const float *x, float *y)` --------------------------

CALL = "\nvoid model(const float *x, float *y);\nvoid model(const float *x, float *y)\n"


def of_cmlp(net: cmlp.Network, folder: Path, weights: str) -> str:
    """cmlp.to_c, with the scratch as a static array."""
    text = cmlp.to_c(net, name="net", weights=weights)
    assert text is not None
    return text + "static float scratch[NET_SCRATCH];" + CALL + "{ net_outputs(x, y, scratch); }\n"


IN_EMLEARN = """
import sys, numpy, emlearn
from importlib.metadata import version
from sklearn.neural_network import MLPClassifier
arrays = numpy.load("net.npz")
n = len(arrays.files) // 2
clf = MLPClassifier(activation="relu")
clf.coefs_ = [arrays[f"W{k}"] for k in range(n)]
clf.intercepts_ = [arrays[f"b{k}"] for k in range(n)]
clf.n_layers_, clf.out_activation_ = n + 1, "softmax"
clf.n_outputs_ = len(clf.intercepts_[-1])
model = emlearn.convert(clf, method="loadable")
for way in ("loadable", "inline"):
    try:
        model.save(name="net", file=f"emlearn_{way}.c", inference=[way])
    except Exception as error:
        open(f"emlearn_{way}.txt", "w").write(f"{type(error).__name__}: {error}")
X = numpy.load("X.npy")[:100]
try:
    p = model.predict_proba(X)
    numpy.save("emlearn_probabilities.npy", p)
    numpy.save("emlearn_classes.npy", model.predict(X))
except Exception as error:
    print("predict_proba:", str(error)[-200:])
print(version("emlearn"), emlearn.includedir)
"""


@functools.cache
def has(program: str, module: str) -> bool:
    """Whether a Python can import a module."""
    if shutil.which(program) is None:
        return False
    return not subprocess.run([program, "-c", f"import {module}"], capture_output=True).returncode


def of_emlearn(net: cmlp.Network, folder: Path, python: str | None, way: str) -> str:
    """emlearn.convert, of a network in scikit-learn's form."""
    if python is None or not has(python, "emlearn"):
        raise Missing("emlearn: give --emlearn a Python that has it")
    if not (folder / "emlearn.txt").exists():
        arrays = {}
        for k, (W, b) in enumerate(layers(net)):
            arrays |= {f"W{k}": W, f"b{k}": b}
        np.savez(folder / "net.npz", **arrays)
        printed = run([python, "-c", IN_EMLEARN], folder).strip().splitlines()
        (folder / "emlearn.txt").write_text(printed[-1])
        for line in printed[:-1]:
            print("emlearn:", line)
    if (folder / f"emlearn_{way}.txt").exists():
        raise RuntimeError((folder / f"emlearn_{way}.txt").read_text())
    text = (folder / f"emlearn_{way}.c").read_text()
    n_in, n_out = net.sizes[0], net.sizes[-1]
    if way == "loadable":
        return f"{text}{CALL}{{ eml_net_regress(&net, x, {n_in}, y, {n_out}); }}\n"
    return (
        f"{text}#include <string.h>{CALL}{{\n"
        f"    net_infer(x, {n_in}, net_activations1, net_activations2, net_activations_length);\n"
        f"    memcpy(y, net_activations2, {n_out} * sizeof *y);\n}}\n"
    )


def of_onnx2c(net: cmlp.Network, folder: Path, program: str | None) -> str:
    """onnx2c, of what cmlp.to_onnx writes for one row."""
    if program is None or shutil.which(program) is None:
        raise Missing("onnx2c: give --onnx2c its program")
    cmlp.to_onnx(net, folder / "net.onnx", labels=False, batch=1)
    done = subprocess.run(
        [program, "net.onnx"], cwd=folder, capture_output=True, text=True, check=True
    )
    sizes = net.sizes[0], net.sizes[-1]
    casts = f"(const float (*)[{sizes[0]}])x, (float (*)[{sizes[1]}])y"
    return f"{done.stdout}{CALL}{{ entry({casts}); }}\n"


Writer = Callable[[cmlp.Network, Path], str]


def writers(emlearn: str | None, onnx2c: str | None) -> dict[str, Writer]:
    """Return all writers by name."""
    return {
        "cmlp": functools.partial(of_cmlp, weights="float32"),
        "cmlp int8": functools.partial(of_cmlp, weights="int8"),
        "emlearn inline": functools.partial(of_emlearn, python=emlearn, way="inline"),
        "emlearn loadable": functools.partial(of_emlearn, python=emlearn, way="loadable"),
        "onnx2c": functools.partial(of_onnx2c, program=onnx2c),
    }


EMPTY = CALL + "{ y[0] = x[0]; }\n"

# The host ----------------------------------------------------------------------------------------

HOST = r"""
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <time.h>
void model(const float *x, float *y);
static float X[ROWS][INPUTS], Y[ROWS][OUTPUTS];
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
int main(void)
{
    int repeat, r;
    double best = 1e300;
    FILE *f = fopen("X.bin", "rb");
    if (!f || fread(X, sizeof X, 1, f) != 1) return 1;
    fclose(f);
    for (repeat = 0; repeat < 100; repeat++) {
        double start = now(), spent;
        for (r = 0; r < ROWS; r++) model(X[r], Y[r]);
        spent = (now() - start) / ROWS;
        if (spent < best) best = spent;
    }
    f = fopen("Y.bin", "wb");
    if (!f || fwrite(Y, sizeof Y, 1, f) != 1) return 1;
    fclose(f);
    printf("%.0f\n", best);
    return 0;
}
"""


def on_host(text: str, net: cmlp.Network, X: np.ndarray, folder: Path) -> tuple[int, np.ndarray]:
    """Return nanoseconds a row, the best of 100 times all rows, and the outputs."""
    (folder / "model.c").write_text(text)
    (folder / "host.c").write_text(HOST)
    np.ascontiguousarray(X, "f4").tofile(folder / "X.bin")
    sizes = [f"-DROWS={len(X)}", f"-DINPUTS={net.sizes[0]}", f"-DOUTPUTS={net.sizes[-1]}"]
    files = ["host.c", "model.c", "-o", "host", "-lm"]
    run(["gcc", "-O2", "-w", *includes(folder), *sizes, *files], folder)
    ns = int(run([str(folder / "host")], folder))
    return ns, np.fromfile(folder / "Y.bin", "f4").reshape(len(X), -1)


def includes(folder: Path) -> list[str]:
    """Return where emlearn's headers are, once it has run."""
    told = folder / "emlearn.txt"
    return ["-I", told.read_text().split(" ", 1)[1]] if told.exists() else []


# Microcontrollers --------------------------------------------------------------------------------

ARM_MEASURE = r"""
void model(const float *x, float *y);
static float X[INPUTS], Y[OUTPUTS];
#define PAINTED 4096
void reset(void)
{
    unsigned long before, after, i;
    unsigned mark, *p;
#ifdef __ARM_FP
    *(volatile unsigned *)0xE000ED88 |= 0xFu << 20;
    __asm__ volatile("dsb\nisb");
#endif
    for (i = 0; i < INPUTS; i++)
        X[i] = (float)(i * 37 % 17) / SCALE;
    __asm__ volatile("mov %0, sp" : "=r"(mark));
    for (p = (unsigned *)mark - PAINTED; p < (unsigned *)mark; p++)
        *(volatile unsigned *)p = 0xA5A5A5A5u;
    model(X, Y);
    for (p = (unsigned *)mark - PAINTED; *(volatile unsigned *)p == 0xA5A5A5A5u; p++) {}
    SYSTICK[1] = 0xFFFFFF;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5;
    before = SYSTICK[2];
    for (i = 0; i < 20; i++)
        model(X, Y);
    after = SYSTICK[2];
    print_number((before - after & 0xFFFFFF) * 2);
    print(" ");
    print_number(p < (unsigned *)mark ? mark - (unsigned long)p : 0);
    print("\n");
    semihost(0x18, (const void *)0x20026);
    for (;;) {}
}
"""


def on_arm(text: str, net: cmlp.Network, core: str, level: str, folder: Path) -> np.ndarray:
    """Return flash, RAM, stack and instructions of a program."""
    flags, machine = ARM_CORES[core]
    (folder / "model.c").write_text(text)
    (folder / "arm.c").write_text(ARM_START + ARM_MEASURE)
    (folder / "arm.ld").write_text(ARM_SCRIPT)
    defined = [f"-DINPUTS={net.sizes[0]}", f"-DOUTPUTS={net.sizes[-1]}", "-DSCALE=4.0f"]
    sections = ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-w"]
    link = ["-nostartfiles", "-T", "arm.ld", "--specs=nano.specs", "--specs=nosys.specs"]
    run(
        ["arm-none-eabi-gcc", "-mthumb", *flags, level, *sections, *defined, *includes(folder),
         "arm.c", "model.c", *link, "-o", "arm", "-lm"], folder,
    )  # fmt: skip
    sizes = run(["arm-none-eabi-size", "arm"], folder).splitlines()[1].split()
    code, data, zeros = map(int, sizes[:3])
    qemu = ["qemu-system-arm", "-M", machine, "-nographic", "-icount", "shift=0"]
    semihosting = ["-semihosting-config", "enable=on,target=native", "-kernel", "arm"]
    count, stack = run([*qemu, *semihosting], folder, timeout=120).split()[-2:]
    return np.array([code + data, data + zeros, int(stack), int(count)])


# The tables --------------------------------------------------------------------------------------


def agreement(net: cmlp.Network, X: np.ndarray, folder: Path) -> None:
    """Print whether emlearn's own predict_proba has the classes in their order."""
    if not (folder / "emlearn_probabilities.npy").exists():
        return
    p, expected = np.load(folder / "emlearn_probabilities.npy"), exact(net, X[:100])
    worst, swapped = (np.abs(p - each).max() for each in (expected, expected[:, ::-1]))
    classes = np.load(folder / "emlearn_classes.npy")
    same = (classes == expected.argmax(1)).mean()
    print(
        f"emlearn's predict_proba: {worst:.1e} from float64, {swapped:.1e} with the columns "
        f"reversed; its predict: {same:.0%} of the classes"
    )


def measured(name: str, level: str, chosen: dict[str, Writer], folder: Path) -> None:
    """Print the table of one network."""
    net, X = trained(1.0)[name]
    tiny, large = trained(1e-6)[name]
    nothing = {core: on_arm(EMPTY, net, core, level, folder) for core in ARM_CORES}
    for way, write in chosen.items():
        places = {}
        for kind, rows in {"": X, "tiny": large}.items():
            places[kind] = folder / f"{name}{kind}"
            places[kind].mkdir(exist_ok=True)
            np.save(places[kind] / "X.npy", rows)
        try:
            text = write(net, places[""])
            ns, found = on_host(text, net, X, places[""])
            cells = [name, way, f"{ns:,}"]
            for core in ARM_CORES:
                added = on_arm(text, net, core, level, places[""]) - nothing[core]
                cells += [f"{number:,}" for number in added]
            cells.append(f"{np.abs(found - exact(net, X)).max():.1e}")
            _, found = on_host(write(tiny, places["tiny"]), tiny, large, places["tiny"])
            cells.append(f"{np.abs(found - exact(tiny, large)).max():.1e}")
        except Missing as missing:
            cells = [name, way, f"not measured: there is no {missing}"]
        except RuntimeError as error:
            cells = [name, way, f"failed: {re.sub(chr(10), ' ', str(error))[-300:]}"]
        print("| " + " | ".join(cells) + " |", flush=True)
    agreement(net, X, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emlearn", metavar="PYTHON")
    parser.add_argument("--onnx2c", metavar="PROGRAM")
    parser.add_argument("--level", default="-Os", choices=("-Os", "-O2", "-O3"), help="on Arm")
    args = parser.parse_args()
    head = ["network", "writer", "host, ns a row"]
    for core in ARM_CORES:
        head += [f"{core} {args.level} flash", "RAM", "stack", "instructions"]
    head += ["deviation", "x 1e-6"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("64-32-10", "16-64-64-2"):
            measured(name, args.level, writers(args.emlearn, args.onnx2c), Path(folder))


if __name__ == "__main__":
    main()
