"""The parts of a step against the machine's limits: products, functions, barrier.

    python -m benchmarks.kernels [--parts products,functions,barrier] [--json FILE]

Products: square matrices from 8 to 2048, for every core and both number types, as GFLOP/s and as
a fraction of that core's own peak, a loop of independent multiply-adds in registers of the same
number type, measured in the same rounds.

Functions: nanoseconds per number (in the second-level cache), and the largest error in units in the
last place. ``activate`` is timed, which writes the derivative in addition to the activation, so
this is more than the function alone; the time of the copy that restores the arguments is
subtracted. The oracle is NumPy in a longer type: float64 for float32, long double for float64
(where it is longer; gelu has no such oracle, as there is no long erfc). Arguments are numbers from
-20 to 20, and those of every size whose e^z and e^-z are normal numbers.

Barrier: a deep net of one vector's width, batch 1, has no work to share between threads, but waits
at two more barriers for each additional layer. The time that a layer adds to a step on two threads,
less the time that it adds on one, is the time of two barriers, with the imbalance of the work
between them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import cmlp
from cmlp.core import dispatch
from cmlp.core.vocabulary import ACTIVATIONS
from cmlp.training import trainer

from . import _report
from ._charts import lines
from ._steps import Steps
from ._timing import Peak, Turn, fastest, pinned, timed
from ._work import Array, Work

PARTS = ("products", "functions", "barrier")
SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
FUNCTIONS = ("exp", "tanh", "logistic", "softplus", "silu", "gelu", "mish")
DTYPES = ("float32", "float64")

COUNT = 8192
"""Numbers in a call of a function: with their derivatives in the second-level cache."""


def main() -> int:
    """Run the benchmark."""
    parser = _report.parser("kernels", __doc__, seconds=1)
    parser.add_argument(
        "--parts", type=_report.list_of(str), default=list(PARTS), help=",".join(PARTS)
    )
    args = parser.parse_args()
    _report.with_one_thread("kernels")
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()!r}; known: {', '.join(PARTS)}")
    about = _report.machine()
    print(_report.headline(about), end="\n\n")
    seconds = _report.seconds_of(args, quick=0.02)
    cores = [core for core in cmlp.core_info().available if core != "python"]
    results: list[dict[str, Any]] = []
    with pinned(1):
        if "products" in args.parts:
            results += products(cores, SIZES[:2] if args.quick else SIZES, seconds)
        if "functions" in args.parts:
            results += functions(cores, FUNCTIONS[:2] if args.quick else FUNCTIONS, seconds)
    if "barrier" in args.parts:
        results += barrier(10 * seconds, rows=2 if args.quick else 500)
    _report.write_json(args.json, about, results)
    if args.chart:
        draw(args.chart, about, results)
    return 0


# Products ----------------------------------------------------------------------------------------


def products(cores: list[str], sizes: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
    """Measure products, print a table for each number type; returns a row for each product."""
    if not cores:
        print("products: no compiled core\n")
        return []
    results: list[dict[str, Any]] = []
    for dtype in DTYPES:
        for size in sizes:
            turns: dict[str, Turn] = {core: product_turn(core, size, dtype) for core in cores}
            peaks = {core: Peak(core=core, dtype=dtype) for core in cores}
            turns |= {f"peak {core}": peak.turn for core, peak in peaks.items()}
            best = fastest(turns, seconds)
            results += [
                {
                    "product": size,
                    "dtype": dtype,
                    "core": core,
                    **_report.rates(2 * size**3, size, best[core], best[f"peak {core}"]),
                }
                for core in cores
            ]
        mine = [row for row in results if row["dtype"] == dtype]
        print(_report.table((f"{dtype} products", *cores), product_lines(mine, sizes)))
        peaks_now = [
            _report.number(max((row["peak_gflops"] or 0) for row in mine if row["core"] == core))
            for core in cores
        ]
        print(f"GFLOP/s, of the peak of {', '.join(peaks_now)}\n", flush=True)
    return results


def product_lines(rows: list[dict[str, Any]], sizes: tuple[int, ...]) -> list[tuple[str, ...]]:
    """Return a table's rows: a size each, a column per core."""
    return [
        (
            f"{size} x {size}",
            *(
                f"{_report.number(row['gflops'])} ({_report.percent(row['of_peak'])})"
                for row in rows
                if row["product"] == size
            ),
        )
        for size in sizes
    ]


def product_turn(core: str, size: int, dtype: str) -> Turn:
    """Return a turn of a square product, after checking its result."""
    module: Any = dispatch._load(core)
    rng = np.random.default_rng(0)
    width = padded(size, dtype)
    n, depth = max(size, 2), size
    parts = np.cumsum([n * depth, depth * width, n * width])
    arrays = aligned((int(parts[-1]) + min(depth, 2048) * 64,), dtype)
    a, b, out, _ = np.split(arrays, parts)
    a[:] = rng.standard_normal(a.shape)
    b.reshape(depth, width)[:, :size] = rng.standard_normal((depth, size))

    repeats = max(1, 200_000 // size**3)  # a call from Python takes longer than a small product

    def run() -> None:
        module.product(n, depth, width, arrays, repeats)

    run()
    exact = a.reshape(n, depth).astype(float) @ b.reshape(depth, width).astype(float)
    if np.abs(out.reshape(n, width) - exact).max() > 4 * size * np.finfo(dtype).eps:
        raise AssertionError(f"the product of {core} is wrong at {size} x {size}, {dtype}")
    turn = timed(run)
    return lambda: turn() / repeats


def padded(n: int, dtype: str) -> int:
    """Round up to 64 bytes."""
    lanes = 64 // np.dtype(dtype).itemsize
    return int(-(-n // lanes) * lanes)


def aligned(shape: tuple[int, ...], dtype: str) -> Array:
    """Return zeros that start at a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    view: Array = raw[start : start + size].view(dtype)
    return view.reshape(shape)


# Functions ---------------------------------------------------------------------------------------


def functions(cores: list[str], names: tuple[str, ...], seconds: float) -> list[dict[str, Any]]:
    """Measure functions, print a table for each number type; returns a row for each."""
    results: list[dict[str, Any]] = []
    for dtype in DTYPES if cores else ():
        rows: list[dict[str, Any]] = []
        for name in names:
            turns = {core: function_turn(core, name, dtype) for core in cores}
            best = fastest({**turns, "copy": copy_turn(dtype)}, seconds)
            for core in cores:
                row = {
                    "function": name,
                    "dtype": dtype,
                    "core": core,
                    "ns": 1e9 * (best[core] - best["copy"]) / COUNT,
                    "ulp": largest_error(core, name, dtype),
                }
                rows.append(row)
        header = [f"{dtype}: ns per number", *cores, *(f"ULP, {core}" for core in cores)]
        lines = []
        for name in names:
            mine = [row for row in rows if row["function"] == name]
            cells = [f"{row['ns']:.2f}" for row in mine]
            cells += [_report.number(row["ulp"], 2) for row in mine]
            lines.append((name, *cells))
        print(_report.table(header, lines), end="\n\n", flush=True)
        results += rows
    return results


def function_turn(core: str, name: str, dtype: str) -> Turn:
    """Return a turn of ``activate`` on COUNT numbers from -8 to 8, which are restored first."""
    activate, code = dispatch._load(core).activate, _code(name)
    values, source = aligned((2, COUNT), dtype), _arguments(dtype)

    def run() -> None:
        values[0] = source
        activate(code, values)

    return timed(run, 0.002)


def copy_turn(dtype: str) -> Turn:
    """Return a turn that only restores the numbers."""
    values, source = aligned((2, COUNT), dtype), _arguments(dtype)

    def run() -> None:
        values[0] = source

    return timed(run, 0.002)


def _arguments(dtype: str) -> Array:
    source = aligned((COUNT,), dtype)
    source[:] = np.random.default_rng(0).uniform(-8, 8, COUNT)
    return source


def _code(name: str) -> int:
    return next(row.code for row in ACTIVATIONS if row.name == name)


def largest_error(core: str, name: str, dtype: str) -> float | None:
    """Return the largest error of a function in units in the last place; None without an oracle."""
    long = np.float64 if dtype == "float32" else np.longdouble
    limits: Any = np.finfo(dtype)
    if np.finfo(long).eps >= limits.eps or (name == "gelu" and dtype == "float64"):
        return None
    z = error_arguments(dtype)
    values = aligned((2, len(z)), dtype)
    values[0] = z
    dispatch._load(core).activate(_code(name), values)
    with np.errstate(all="ignore"):
        exact = ORACLES[name](z.astype(long))
        rounded = exact.astype(dtype)
        unit = np.spacing(np.maximum(np.abs(rounded), limits.tiny))
        error = np.abs(values[0].astype(long) - exact) / unit
    return float(error[np.isfinite(rounded)].max())


def error_arguments(dtype: str) -> Array:
    """Return numbers from -20 to 20, and of every size to the limits of e^z; whole vectors."""
    smallest = -math.log2(np.finfo(dtype).tiny)
    powers = np.linspace(-smallest, math.log2(smallest * math.log(2)), 1 << 14, endpoint=False)
    near, far = np.linspace(-20, 20, 1 << 16), np.exp2(powers)
    return np.asarray(np.concatenate([near, far, -far]), dtype)


def _logistic(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1, e) / (1 + e))


def _mish(z: Array) -> Array:
    """z tanh(log(1 + e^z)), as z n / (n + 2) with n = e^z (e^z + 2), or z where e^z is huge."""
    e = np.exp(np.minimum(z, 40))
    n = e * (e + 2)
    return np.asarray(z * n / (n + 2))


def _gelu(z: Array) -> Array:
    erfc: Any = np.frompyfunc(math.erfc, 1, 1)
    return np.asarray(z * 0.5 * erfc(-z / math.sqrt(2)).astype(np.float64))


ORACLES: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "tanh": np.tanh,
    "logistic": _logistic,
    "softplus": lambda z: np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))),
    "silu": lambda z: z * _logistic(z),
    "gelu": _gelu,
    "mish": _mish,
}
"""The functions in NumPy, accurate in every tail, in the precision of their argument."""


# Barrier -----------------------------------------------------------------------------------------


def barrier(seconds: float, rows: int) -> list[dict[str, Any]]:
    """Measure the barrier of two threads; return a row, or none on one processor."""
    if cmlp.core_info().cpus < 2 or cmlp.core_info().core == "python":
        print("barrier: needs two processors and a compiled core\n")
        return []
    few, many = 4, 36
    least = 0.05 if seconds else 0.001
    steps = {
        (layers, n): Steps(Work((16, *[16] * layers, 16), 1, rows), n_threads=n, least=least)
        for layers in (few, many)
        for n in (1, 2)
    }
    usual, trainer.THREAD_FLOPS = trainer.THREAD_FLOPS, 0  # threads for any step
    try:
        best = fastest({f"{key}": one.turn for key, one in steps.items()}, seconds)
    finally:
        trainer.THREAD_FLOPS = usual
    one, two = (best[f"{(many, n)}"] - best[f"{(few, n)}"] for n in (1, 2))
    row = {
        "barrier": True,
        "ns": 1e9 * (two - one) / (2 * (many - few)),
        "layer_1_thread": 1e9 * one / (many - few),
        "layer_2_threads": 1e9 * two / (many - few),
    }
    print(
        f"barrier of two threads: {_report.number(row['ns'])} ns (a layer of 16 units, one row: "
        f"{_report.number(row['layer_1_thread'])} ns on one thread, "
        f"{_report.number(row['layer_2_threads'])} on two, with two barriers)\n"
    )
    return [row]


def draw(file: str, about: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Draw the products' fraction of the peak over their size."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in results:
        if row.get("product") and row["of_peak"]:
            series = panels.setdefault(row["dtype"], {}).setdefault(row["core"], [])
            series.append((row["product"], row["of_peak"]))
    if panels:
        title = "Square matrix products, part of each core's peak"
        lines(file, about, title, panels, ("rows and columns", "of the peak"), percent=True)


if __name__ == "__main__":
    sys.exit(main())
