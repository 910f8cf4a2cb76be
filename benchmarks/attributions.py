"""Attributions: rows per second of each method, and next to them SHAP's DeepExplainer.

    python -m benchmarks.attributions [--seconds 10] [--rows 10000] [--json FILE]

A net 30-100-50-3 in float32, 100 rows of background, one thread, pinned to one processor; seconds
are those that the process has had of it, since other programs only take them away. With SHAP
and PyTorch installed, DeepExplainer explains a copy of the net, on 100 of the rows; its values
and cmlp's must agree. The program returns 1 if they do not, or if sums are off by more than
rounding (integrated gradients: than 5 % of the answers' range).
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

import numpy as np

import cmlp

from . import _report
from ._timing import pinned

SIZES = (30, 100, 50, 3)
BACKGROUND = 100
SHAP_ROWS = 100

METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "deeplift": ({"method": "deeplift"}, 1.0),
    "integrated gradients, 8 steps": ({"method": "integrated_gradients", "n_steps": 8}, 0.1),
    "integrated gradients": ({"method": "integrated_gradients"}, 0.05),
    "shapley, 100 pairs of orders": ({"method": "shapley"}, 0.05),
}
"""Options of each method, and the part of the rows that it explains."""


def main() -> int:
    """Run the benchmark; 1 if values or sums are wrong."""
    parser = _report.parser("attributions", __doc__, seconds=10)
    parser.add_argument("--rows", type=int, default=10_000, help="to explain (10000)")
    args = parser.parse_args()
    _report.with_one_thread("attributions")
    about = _report.machine(("shap", "torch"))
    print(_report.headline(about), end="\n\n")
    rows = min(args.rows, 200) if args.quick else args.rows
    results = []
    with pinned(1):
        for activation in ("relu",) if args.quick else ("relu", "tanh"):
            results += measure(activation, rows, _report.seconds_of(args))
    lines = [
        (row["activation"], row["by"], f"{row['rows']:,}", _report.number(row["seconds"]),
         _report.number(row["rows_per_second"]), f"{row['error']:.1e}")
        for row in results
    ]  # fmt: skip
    print(_report.table(("", "by", "rows", "seconds", "rows/s", "error"), lines))
    _report.write_json(args.json, about, results)
    right = all(row["error"] <= row["allowed"] for row in results)
    print(f"\nsums and values {'agree' if right else 'DISAGREE'}")
    return 0 if right else 1


def measure(activation: str, rows: int, seconds: float) -> list[dict[str, Any]]:
    """Explain rows of a net by all methods, for so many seconds each; the fastest time counts."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, SIZES[0])).astype("float32")
    background = rng.normal(size=(BACKGROUND, SIZES[0])).astype("float32")
    net = cmlp.Network(SIZES, activation, seed=0)
    found = []
    for name, (how, part) in METHODS.items():
        some = X[: max(1, int(part * rows))]

        def explain(some: Any = some, how: dict[str, Any] = how) -> Any:
            return cmlp.attributions(net, some, background=background, n_threads=1, **how)

        best, values = fastest_of(explain, seconds)
        span = float(np.ptp(values.answers))
        allowed = (0.05 if "gradients" in name else 1e-5) * span
        found.append(described(activation, name, len(some), best, values.error, allowed))
    shap = deep_explainer(net, activation, background)
    if shap is not None:
        best, theirs = fastest_of(lambda: shap(X[:SHAP_ROWS]), seconds)
        ours = cmlp.attributions(net, X[:SHAP_ROWS], background=background).values
        difference = float(np.abs(theirs - ours).max())
        n = len(theirs)
        found.append(described(activation, "SHAP's DeepExplainer", n, best, difference, 1e-4))
    return found


def fastest_of(work: Any, seconds: float) -> tuple[float, Any]:
    """Return the least seconds of the processor of a call, and its result."""
    best, start, result = np.inf, time.perf_counter(), None
    while result is None or time.perf_counter() - start < seconds:
        begin = time.process_time()
        result = work()
        best = min(best, time.process_time() - begin)
    return float(best), result


def described(
    activation: str, by: str, rows: int, seconds: float, error: float, allowed: float
) -> dict[str, Any]:
    """Return a result."""
    return {
        "activation": activation, "by": by, "rows": rows, "seconds": seconds,
        "rows_per_second": rows / seconds, "error": error, "allowed": allowed,
    }  # fmt: skip


def deep_explainer(net: cmlp.Network, activation: str, background: Any) -> Any:
    """Return a function that explains rows by SHAP; None where it is not installed."""
    try:
        shap, torch = (importlib.import_module(name) for name in ("shap", "torch"))
    except ImportError:
        return None
    torch.set_num_threads(1)
    parts: list[Any] = []
    for W, b in zip(net.weights, net.biases, strict=True):
        layer = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            layer.weight[:], layer.bias[:] = torch.tensor(W.T.copy()), torch.tensor(b.copy())
        parts += [layer, torch.nn.ReLU() if activation == "relu" else torch.nn.Tanh()]
    explainer = shap.DeepExplainer(torch.nn.Sequential(*parts[:-1]), torch.tensor(background))
    return lambda X: explainer.shap_values(torch.tensor(X))


if __name__ == "__main__":
    sys.exit(main())
