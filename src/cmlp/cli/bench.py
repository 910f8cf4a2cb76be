"""``cmlp bench``: the speed of the compiled cores on this machine, in one table.

Every core does the same work on the same data from the same weights, in turns in one process; the
fastest round counts, which is the least disturbed. Losses and outputs of the cores are compared,
too. All run with one thread: the threads of a BLAS spin on after a product and would slow down the
next measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch
from cmlp.core.formatting import significant
from cmlp.network import Network

TOLERANCE = 1e-3
"""Largest relative difference between cores: float32 rounding, grown over a few hundred steps."""


ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""Environment in which NumPy's products have one thread; a BLAS reads it when it is loaded."""


SECONDS = (3.5, 0.4)
"""Duration of the measurement of a case: by default, and with --quick."""


@dataclass(frozen=True)
class Case:
    """Some work: `repeats` training steps on batches, or as many predictions of `rows` rows."""

    sizes: tuple[int, ...]
    rows: int
    repeats: int
    trains: bool

    def __str__(self) -> str:
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        return f"{'step' if self.trains else 'predict'}  {'-'.join(map(str, self.sizes))}, {rows}"

    def work(self) -> Callable[[], NDArray[Any]]:
        """Return a function that does the work once, on the core in use, and returns a result."""
        rng = np.random.default_rng(0)
        n = self.rows * (self.repeats if self.trains else 1)
        X = rng.standard_normal((n, self.sizes[0]), dtype=np.float32)
        y = rng.integers(self.sizes[-1], size=n)
        net = Network(self.sizes, seed=0)

        def train() -> NDArray[Any]:
            loss = net.train_epoch(X, y, batch_size=self.rows, shuffle=False, n_threads=1)
            return np.array(loss)

        def predict() -> NDArray[Any]:
            for _ in range(self.repeats):
                out = net.predict(X)
            return out

        return train if self.trains else predict


CASES = (
    Case((784, 16, 16, 10), 32, 50, True),
    Case((784, 128, 10), 128, 10, True),
    Case((4, 32, 32, 2), 1, 300, True),
    Case((784, 16, 16, 10), 1, 300, False),
    Case((784, 128, 10), 1000, 5, False),
)


def measure(case: Case, cores: tuple[str, ...], seconds: float) -> tuple[dict[str, float], float]:
    """Time one case on every core.

    Returns
    -------
    microseconds : dict of str to float
        Of one step or one call, the fastest of at least three rounds.
    difference : float
        The largest between the cores' first results, relative to the last core's.
    """
    work = {core: case.work() for core in cores}
    results: dict[str, NDArray[Any]] = {}
    best = dict.fromkeys(cores, np.inf)
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - start < seconds:
        for core in cores:
            with dispatch.use_core(core):
                began = time.perf_counter()
                result = work[core]()
                best[core] = min(best[core], time.perf_counter() - began)
            results.setdefault(core, result)
        rounds += 1
    oracle = results[cores[-1]]
    difference = max(float(np.abs(results[core] - oracle).max()) for core in cores)
    return (
        {core: 1e6 * best[core] / case.repeats for core in cores},
        difference / float(np.abs(oracle).max()),
    )


def run(*, quick: bool = False) -> int:
    """Print the table; return the exit code: 1 if the cores disagree."""
    cores = dispatch.core_info().available  # the NumPy path is the last
    print("microseconds per step or call, and how many times faster than NumPy (python)\n")
    print(f"{'':33s}" + "".join(f"{core:>18s}" for core in reversed(cores)))
    worst = 0.0
    for case in CASES:
        times, difference = measure(case, cores, SECONDS[quick])
        worst = max(worst, difference)
        faster = {core: significant(times["python"] / times[core]) for core in cores}
        cells = [f"{significant(times[core])}  {faster[core]:>5}x" for core in cores]
        print(f"{case!s:33s}" + "".join(f"{cell:>18s}" for cell in reversed(cells)), flush=True)
    print("\nstep: forward, backpropagation and update of one batch, within train_epoch")
    print("one thread each")
    if len(cores) == 1:
        print(dispatch.describe("python"))
        return 0
    verdict = "agree" if worst <= TOLERANCE else "DISAGREE"
    print(f"losses and outputs {verdict}: largest relative difference {worst:.1e}")
    return 0 if worst <= TOLERANCE else 1
