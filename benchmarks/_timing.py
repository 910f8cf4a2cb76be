"""Measure side by side: turns, the fastest of them, pinning to processors, the machine's peak."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cmlp.core import dispatch

Turn = Callable[[], float]
"""Does some work once, and returns the seconds of a unit of it."""


def fastest(
    turns: Mapping[str, Turn], seconds: float, *, rounds: int = 3, pause: float = 0.0
) -> dict[str, float]:
    """Run all in turns, round after round, and return the fastest turn of each.

    The fastest turn is the least disturbed one: other processes only add time. The turns are
    interleaved, because a machine's speed changes from minute to minute.

    Parameters
    ----------
    seconds : float
        To measure for; 0: one round, to see that all run.
    rounds : int
        Minimum of rounds.
    pause : float
        Seconds to wait after each turn, until spinning threads sleep.
    """
    best = dict.fromkeys(turns, math.inf)
    rounds = rounds if seconds else 1
    start, done = time.perf_counter(), 0
    while done < rounds or time.perf_counter() - start < seconds:
        for name, turn in turns.items():
            best[name] = min(best[name], turn())
            if pause:
                time.sleep(pause)
        done += 1
    return best


def timed(work: Callable[[], object], least: float = 0.02) -> Turn:
    """Make a turn of a function: enough calls to take `least` seconds."""
    calls = 1
    while (spent := _seconds(work, calls)) < least:
        calls = max(2 * calls, int(1.2 * calls * least / max(spent, 1e-9)))
    return lambda: _seconds(work, calls) / calls


def _seconds(work: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return time.perf_counter() - start


def processors(n: int) -> set[int]:
    """Choose n of the processors that this process may use, on different cores if possible."""
    usable = sorted(os.sched_getaffinity(0))
    cores: dict[str, int] = {}
    for cpu in usable:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(path.read_text() if path.exists() else str(cpu), cpu)
    first = [*cores.values(), *(cpu for cpu in usable if cpu not in cores.values())]
    return set(first[:n])


@contextmanager
def pinned(n: int) -> Iterator[None]:
    """Pin this thread, and those that it starts, to n processors; no-op without such a call."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors(n))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Peak:
    """Rate of independent fused multiply-adds in registers, the upper bound of every product.

    Parameters
    ----------
    threads : int
        Threads that run it at the same time, each on its own processor.
    core, dtype : str
        The core, for its vectors, and the number type; the rate of float64 is half of float32's.
    """

    ROUNDS = 100_000  # of one thread: 0.6 ms; of several 20 times as many, as threads start slowly

    def __init__(self, threads: int = 1, *, core: str = "", dtype: str = "float32") -> None:
        self.threads = threads
        module: Any = dispatch._load(core) if core else dispatch.core
        self.multiply_adds = module.multiply_adds
        self.vectors = np.dtype(dtype).itemsize / 4  # as many numbers as in the float32 loop

    def turn(self) -> float:
        """Return the seconds of one operation."""
        if self.threads == 1:
            start = time.perf_counter()
            flop: int = self.multiply_adds(self.ROUNDS)
            return self.vectors * (time.perf_counter() - start) / flop
        flops: list[int] = []

        def run(cpu: int) -> None:
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, {cpu})  # this thread; else two may start on one
            flops.append(self.multiply_adds(20 * self.ROUNDS))

        team = [threading.Thread(target=run, args=(cpu,)) for cpu in self._processors()]
        start = time.perf_counter()
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        return self.vectors * (time.perf_counter() - start) / sum(flops)

    def _processors(self) -> list[int]:
        """Choose a processor for each thread; threads share processors if there are too few."""
        usable = sorted(processors(self.threads)) if hasattr(os, "sched_getaffinity") else [0]
        return [usable[i % len(usable)] for i in range(self.threads)]

    def pinned_turn(self) -> float:
        """Run the loop on as many processors as threads."""
        with pinned(self.threads):
            return self.turn()
