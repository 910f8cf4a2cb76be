"""How much memory a piece of work takes on top of what is there, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_above(work: Callable[[], object]) -> tuple[float | None, object]:
    """Call a function; return the megabytes by which the process grew meanwhile, at its largest.

    Counted in resident memory, so what it returns counts too. None where the kernel does not tell
    (outside of Linux). Call it in a process of its own, as memory that was freed before is used
    again without being seen.
    """
    try:
        CLEAR.write_text("5")  # the largest so far becomes the present one
        before = _megabytes("VmRSS")
    except (OSError, KeyError):
        return None, work()
    result = work()
    return _megabytes("VmHWM") - before, result


def _megabytes(name: str) -> float:
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(fields[name].split()[0]) * 1024 / 1e6
