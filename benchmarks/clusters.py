"""Predict the efficiency of many workers, by replaying measured times of steps and messages.

    PYTHONPATH=src python -m benchmarks.clusters

Each worker of the simulation takes a time for its part of a step from those that were measured on
this machine at the start, and every message its latency and its
bytes over the bandwidth; a worker continues when it has what it waits for. So stragglers count,
which the formula leaves out. Two ways of a sum: the ring, and a tree (up by halves, down again)
where the messages of one worker follow each other. The faster one is named.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cmlp
from cmlp.distributed import ThreadRing

CASES = [([784, 128, 10], 1024), ([64, 256, 256, 256, 2], 512), ([784, 512, 512, 10], 2048)]
"""Networks, and rows of a worker and step."""

LINES = {"1 Gbit/s": (118e6, 60e-6), "10 Gbit/s": (1.15e9, 50e-6), "100 Gbit/s": (11e9, 20e-6)}
"""Bytes per second, and seconds of latency; the first as measured, the others assumed."""

ADDING = 4e9
"""Bytes per second that are added to others."""

Times = NDArray[np.float64]


class Clock(ThreadRing):
    """A communicator of one rank, which remembers when each sum was due."""

    def __init__(self) -> None:
        super().__init__(0, 1)
        self.times: list[float] = []

    def allreduce(self, array: Any, tail: Any = None) -> None:
        self.times.append(time.perf_counter())


def step_times(sizes: list[int], rows: int, n: int) -> Times:
    """Measure some steps of a rank, on one thread."""
    rng, comm = np.random.default_rng(0), Clock()
    X = rng.standard_normal((rows * (n + 1), sizes[0]), np.float32)
    net, y = cmlp.Network(sizes, seed=0), np.arange(len(X)) % sizes[-1]
    net.fit(X, y, epochs=1, batch_size=rows, n_threads=1, comm=comm)
    return np.diff(comm.times)[1:]


def ring(ready: Times, size: float, bandwidth: float, latency: float) -> Times:
    """Return when each worker has the sum: 2 (K - 1) messages of a K-th of it each."""
    k, clock = len(ready), ready.copy()
    part = size / k / bandwidth
    for turn in range(2 * (k - 1)):
        adds = size / k / ADDING if turn < k - 1 else 0.0
        clock = np.maximum(clock, np.roll(clock, 1)) + part + latency + adds
    return clock


def tree(ready: Times, size: float, bandwidth: float, latency: float) -> Times:
    """Return the same for sums of pairs, of pairs of pairs, and so on, and the way back."""
    k, clock, message = len(ready), ready.copy(), size / bandwidth + latency
    strides = [1 << level for level in range((k - 1).bit_length())]
    for stride in strides:
        to = np.arange(0, k - stride, 2 * stride)
        clock[to] = np.maximum(clock[to], clock[to + stride]) + message + size / ADDING
    for stride in reversed(strides):
        to = np.arange(0, k - stride, 2 * stride)
        clock[to] += message
        clock[to + stride] = clock[to]
    return clock


def efficiency(
    way: Any, times: Times, k: int, size: float, line: Any, steps: int, every: int
) -> float:
    """Return the rows per second of k workers, over k times those of one."""
    rng, clock, worked = np.random.default_rng(k), np.zeros(k), 0.0
    for step in range(1, steps + 1):
        took = rng.choice(times, k)
        worked += took.mean()
        clock = clock + took
        if step % every == 0:
            clock = way(clock, size, *line)
    return float(worked / clock.max())


def formula(t: float, k: int, size: float, bandwidth: float, latency: float, every: int) -> float:
    """Return what follows from T = 2 (K - 1) / K S / B + 2 (K - 1) L."""
    T = 2 * (k - 1) / k * size / bandwidth + 2 * (k - 1) * latency
    return every * t / (every * t + T)


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers", nargs="+", type=int, default=[8, 64, 1000])
    parser.add_argument("--every", nargs="+", type=int, default=[1, 32], help="sync_every")
    parser.add_argument("--steps", type=int, default=64, help="simulated")
    parser.add_argument("--measured", type=int, default=20, help="steps")
    given = parser.parse_args()
    for sizes, rows in CASES:
        times = step_times(sizes, rows, given.measured)
        size = 4.0 * cmlp.Network(sizes, seed=0).n_params
        t = float(times.mean())
        print(f"\n{'-'.join(map(str, sizes))}, {rows} rows: {1e3 * t:.2f} ms a step, "
              f"{size / 1e6:.2f} MB\n")  # fmt: skip
        print("| workers | k |", *(f"{name} |" for name in LINES))
        print("|---|---|" + "---|" * len(LINES))
        for k in given.workers:
            for every in given.every:
                cells = []
                for line in LINES.values():
                    ways = {way.__name__: efficiency(way, times, k, size, line, given.steps, every)
                            for way in (ring, tree)}  # fmt: skip
                    plain = formula(t, k, size, *line, every)
                    better = ways["tree"] > ways["ring"] + 0.005
                    wins = f", tree {ways['tree']:.2f}" if better else ""
                    cells.append(f"{ways['ring']:.2f} ({plain:.2f}){wins} |")
                print(f"| {k:,} | {every} |", *cells)


if __name__ == "__main__":
    main()
