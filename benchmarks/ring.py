"""What ranks cost each other: latency, bandwidth, and efficiency against the formula.

    PYTHONPATH=src python -m benchmarks.ring             # two processes of this machine
    PYTHONPATH=src python -m benchmarks.ring --gigabit   # 1 Gbit/s between them; root, Linux

Two processes of one thread each train one network, in turns with two trainings of the same rows per
step that know nothing of each other: efficiency is the ratio of their rows per second. The time of
a sum is compared with ``T = 2 (K - 1) / K S / B + 2 (K - 1) L``, L and B being measured in the same
run; two ranks send all that they have at once, and wait for one latency in place of two. A rank
waits for the message, and for the slower rank: the lower of both waits is the message alone.
``--gigabit`` puts the processes into network namespaces, which a filter connects.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import cmlp
from cmlp.distributed import Communicator, Listener
from cmlp.distributed.rank import Rank, Settings
from cmlp.training.fit import Options
from cmlp.training.recipe import Recipe

TOKEN = b"of a benchmark, between two ranks"

CASES: dict[str, list[tuple[list[int], int, Any]]] = {
    "one host": [([64, 256, 256, 256, 2], 512, 1), ([784, 128, 10], 1024, 1)],
    "1 Gbit/s": [([784, 512, 512, 10], 8192, 1), ([784, 512, 512, 10], 128, "auto")],
}
"""Networks, rows per step and rank, and `sync_every`."""

LARGE = 500_000
"""Numbers of the sum by which the bandwidth is measured: as gradients, they are in cache."""


# A rank ------------------------------------------------------------------------------------------


def mean_time(comm: Communicator, n: int, repeats: int) -> float:
    """Return the seconds of a sum of n numbers."""
    array, times = np.zeros(n, np.float32), []
    for _ in range(repeats):
        comm.gather(b"")
        began = time.perf_counter()
        comm.allreduce(array)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def run_rank(
    host: str, sizes: list[int], rows: int, every: Any, seconds: float, turns: int
) -> None:
    """Measure, and print what was found as JSON."""
    listener = Listener(host)
    print(json.dumps(listener.address), flush=True)
    rank, addresses = json.loads(sys.stdin.readline())
    if hasattr(os, "sched_setaffinity"):  # else who sends wakes the other one on its own processor
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {usable[rank % len(usable)]})
    rng = np.random.default_rng(0)
    n = rows * max(8, 40_000 // rows)
    X = rng.integers(0, 256, (2 * n, sizes[0]), np.uint8)
    y = rng.integers(0, sizes[-1], 2 * n)
    found: dict[str, Any] = {"together": [], "alone": [], "sum": [], "step": []}
    with listener.ring(addresses, rank, TOKEN) as comm:
        found["L"] = mean_time(comm, 2, 300)
        found["B"] = 4 * LARGE / mean_time(comm, LARGE, 15)
        net = cmlp.Network(sizes, seed=0, input_scale=1 / 255)
        found["S"] = net.params.nbytes
        found["T"] = mean_time(comm, len(net.params), 40)
        options = Options(
            epochs=10**6, batch_size=2 * rows, shuffle=True, validation_fraction=0.0, patience=None,
            schedule=None, dropout_schedule=None, weight_decay_schedule=None, callbacks=(),
            max_time=None, n_threads=1, verbose=0,
        )  # fmt: skip
        ranks = Rank(net, net.encode_rows(X, y), Settings(Recipe(), options, sync_every=every))
        ranks.round(comm, 0.5)
        for _ in range(turns):
            comm.gather(b"")
            began, before, computed, waited = time.perf_counter(), net.steps, 0.0, 0.0
            while True:  # whole epochs, each a round
                over = rank == 0 and time.perf_counter() - began > seconds
                if any(comm.gather(b"over" if over else b"")):
                    break
                part = ranks.round(comm)
                computed, waited = computed + part.computed, waited + part.waited
            steps = net.steps - before
            found["together"].append(steps * rows / (time.perf_counter() - began))
            found["step"].append(computed / steps)
            found["sum"].append(waited / steps)
            found["every"] = ranks.k
            comm.gather(b"")
            other = cmlp.Network(sizes, seed=0, input_scale=1 / 255)
            began = time.perf_counter()
            other.fit(X[:n], y[:n], batch_size=rows, epochs=10**6, max_time=seconds, n_threads=1)
            found["alone"].append(other.steps * rows / (time.perf_counter() - began))
    print(json.dumps(found), flush=True)


# Both --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def places(gigabit: bool) -> Iterator[list[tuple[list[str], str]]]:
    """Yield how each rank is started, and the address that it listens on."""
    if not gigabit:
        yield [([], "127.0.0.1")] * 2
        return
    names = ["cmlp-ring-0", "cmlp-ring-1"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cmlp0", "netns", names[0], "type", "veth", "peer", "cmlp1", "netns",
           names[1])  # fmt: skip
        for number, name in enumerate(names):
            inside = ["netns", "exec", name]
            ip("-n", name, "addr", "add", f"10.99.7.{number + 1}/24", "dev", f"cmlp{number}")
            ip("-n", name, "link", "set", f"cmlp{number}", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip(*inside, "tc", "qdisc", "add", "dev", f"cmlp{number}", "root", "tbf", "rate",
               "1gbit", "burst", "128kb", "latency", "50ms")  # fmt: skip
        yield [
            (["ip", "netns", "exec", name], f"10.99.7.{number + 1}")
            for number, name in enumerate(names)
        ]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def measured(started: list[tuple[list[str], str]], case: list[Any]) -> list[dict[str, Any]]:
    """Run two ranks, and return what each has found."""
    ranks = [
        subprocess.Popen(
            [*prefix, sys.executable, "-m", "benchmarks.ring", "--rank", json.dumps([host, *case])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for prefix, host in started
    ]  # fmt: skip
    try:
        lines = [rank.stdout.readline() for rank in ranks if rank.stdout]
        addresses = [json.loads(line) for line in lines]
        ends = []
        for number, rank in enumerate(ranks):
            assert rank.stdin is not None
            rank.stdin.write(json.dumps([number, addresses]) + "\n")
            rank.stdin.flush()
        for rank in ranks:
            ends.append(json.loads(rank.communicate()[0]))
        return ends
    finally:
        for rank in ranks:
            rank.kill()


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gigabit", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank:
        host, *case = json.loads(given.rank)
        run_rank(host, *case)
        return
    where = "1 Gbit/s" if given.gigabit else "one host"
    print("| network, rows | k | t | T | formula | waits | L | B | efficiency, its range |")
    print("|---|---|---|---|---|---|---|---|---|")
    with places(given.gigabit) as started:
        for sizes, rows, every in CASES[where]:
            both = measured(started, [sizes, rows, every, given.seconds, given.turns])
            one = both[0]
            L, B = (statistics.mean(each[key] for each in both) for key in "LB")
            k = one["every"] or 1
            step = statistics.median(one["step"])
            waits = [k * statistics.median(each["sum"]) for each in both]
            T = statistics.mean(each["T"] for each in both)
            formula = one["S"] / B + L
            share = [
                sum(each["together"][turn] for each in both)
                / sum(each["alone"][turn] for each in both)
                for turn in range(given.turns)
            ]
            print(
                f"| {'-'.join(map(str, sizes))}, {rows} | {k} | {1e3 * step:.2f} ms | "
                f"{1e3 * T:.2f} ms | {1e3 * formula:.2f} ms | {1e3 * waits[0]:.2f}, "
                f"{1e3 * waits[1]:.2f} ms | {1e6 * L:.0f} us | {B / 1e6:.0f} MB/s | "
                f"{statistics.median(share):.2f}, {min(share):.2f} to {max(share):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
