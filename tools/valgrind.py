"""Runs every function of the cores under valgrind, and shows the reports that name a core.

``python tools/valgrind.py`` with a core that was built in place; returns 1 if there is one.
valgrind does not support AVX-512. Reports about Python and NumPy alone are counted, not shown.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).parents[1]
sys.path[:0] = [str(TOP / "tests" / "support"), str(TOP / "src")]


def work(core):
    """Call every function on arrays of the heap, where valgrind tracks what was written."""
    import guarded
    import numpy as np

    import cmlp

    class Heap(guarded.Pages):
        def __init__(self, side):
            pass

        def put(self, array):
            return array.copy()

    guarded.Pages, guarded.SIDES = Heap, ("on the heap",)
    guarded.main(core)
    X, y = np.random.default_rng(0).normal(size=(50, 5)), np.arange(50) % 3
    for options in ({"n_threads": 2}, {"batch_size": 1}, {"solver": "adam", "clip_norm": 1.0}):
        net = cmlp.Network([5, 17, 3], "tanh", seed=0)
        net.fit(X, y, epochs=2, dropout=0.1, validation_fraction=0.2, **options)
        net.predict(X), net.gradients(X, y), net.trace_step(X, y), net.predictor()(X[0])


def reports(log):
    """Split valgrind's text into reports."""
    lines = [line.partition("== ")[2] for line in log.splitlines()]
    return [piece for piece in "\n".join(lines).split("\n\n") if " at 0x" in piece]


def main():
    from cmlp.core.dispatch import COMPILED

    found = 0
    for core in COMPILED[COMPILED.index("avx2") :]:
        with tempfile.NamedTemporaryFile("r") as log:
            subprocess.run(
                ["valgrind", "--quiet", f"--log-file={log.name}", "--num-callers=40",
                 sys.executable, __file__, core],
                env={**os.environ, "PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL, check=True,
            )  # fmt: skip
            all_reports = reports(log.read())
        ours = [text for text in all_reports if "/cmlp/core/_c" in text]
        found += len(ours)
        print(f"{core}: {len(ours)} reports name a core, {len(all_reports) - len(ours)} do not")
        print(*ours, sep="\n\n")
    return found > 0


if __name__ == "__main__":
    sys.exit(work(sys.argv[1]) if len(sys.argv) > 1 else main())
