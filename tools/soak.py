"""Trains and predicts many times, and reports the growth of the process.

``PYTHONPATH=src python tools/soak.py --rounds 1000000``; returns 1 if it grew by more than 2 MB
after the first tenth.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

import cmlp


def resident():
    """Return the bytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1_000_000)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, 3)), rng.integers(0, 2, 8)
    net = cmlp.Network([3, 5, 2], seed=0)
    start, sizes = time.perf_counter(), []
    for number in range(rounds):
        net.fit(X, y, epochs=1, batch_size=4)
        net.history.clear()  # every call adds an epoch
        net.predict(X)
        net.predict(X[:1])
        if (number + 1) % max(1, rounds // 10) == 0:
            sizes.append(resident())
            done, seconds = number + 1, time.perf_counter() - start
            print(f"{done:12,d} rounds {seconds:8.0f} s {sizes[-1] / 1e6:10.2f} MB", flush=True)
    grown = sizes[-1] - sizes[0]
    print(f"{cmlp.core_info().core}: {grown / 1e3:+.0f} kB after the first tenth")
    return grown > 2_000_000


if __name__ == "__main__":
    sys.exit(main())
