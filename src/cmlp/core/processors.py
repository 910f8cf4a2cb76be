"""How many threads there may be: affinity, the quota of a container, and the environment."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from pathlib import Path

OPENMP = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT")
"""OpenMP's variables, which joblib, dask and batch systems set for the processes they start."""


def usable_cpus() -> int:
    """Count the processors that this process may keep busy."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on; includes -X cpu_count
        cpus = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count()
    return max(1, min(cpus or 1, quota()))


@functools.cache
def quota(root: str = "/") -> int:
    """Return how many processors' time the control groups of this process leave to it.

    A part of a processor counts as one: threads that have used it up wait together.
    """
    least = math.inf
    try:
        groups = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        groups = []
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if not controllers:  # version 2; there may be one of version 1, too
            mount, read = Path(root, "sys/fs/cgroup"), _limit
        elif "cpu" in controllers.split(","):
            mount, read = Path(root, "sys/fs/cgroup/cpu"), _limit_v1
        else:
            continue
        # A container may see the path of its host; folders that are missing are skipped.
        folders = [mount, *(mount / part for part in _beginnings(path))]
        least = min(least, *map(read, folders))
    return math.ceil(least) if least < 1 << 20 else 1 << 20


def _beginnings(path: str) -> list[str]:
    """Return 'a', 'a/b' and 'a/b/c' for '/a/b/c': a group has the limits of all above it."""
    parts = path.strip("/").split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _limit(folder: Path) -> float:
    """Read the limit of a group, version 2: "max 100000" or "150000 100000"."""
    return _ratio(*_read(folder / "cpu.max").partition(" ")[::2])


def _limit_v1(folder: Path) -> float:
    """Read the limit of a group, version 1; -1 stands for none."""
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _ratio(time: str, period: str) -> float:
    """Divide; infinity where one of them is not a positive number."""
    if not (time.isdecimal() and period.isdecimal() and int(time) and int(period)):
        return math.inf
    return int(time) / int(period)


def read_bound(text: str | None) -> int | None:
    """Read ``CMLP_NUM_THREADS``: the most threads to use where `n_threads` is not given."""
    if not text:
        return None
    number = _whole(text)
    if number is None:
        raise ValueError(f"CMLP_NUM_THREADS must be a whole number from 1 on, not {text!r}")
    return number


def openmp_bound(environment: Mapping[str, str] = os.environ) -> tuple[int | None, str]:
    """Return the most threads that OpenMP's variables allow, and the name of the lowest.

    Of a list such as "4,3,2", for nested loops, the first counts. A value that is not valid is
    ignored, as OpenMP ignores it.
    """
    bounds = []
    for name in OPENMP:
        number = _whole(environment.get(name, "").partition(",")[0].strip().removeprefix("+"))
        if number is not None:
            bounds.append((number, name))
    return min(bounds, default=(None, ""))


def _whole(text: str) -> int | None:
    """Read a whole number from 1 on; None for everything else."""
    return int(text) or None if text.isascii() and text.isdecimal() and len(text) < 40 else None
