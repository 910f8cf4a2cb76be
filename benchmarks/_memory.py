"""Peak memory of a function call above the memory in use before, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_above(work: Callable[[], object]) -> tuple[float | None, object]:
    """Call a function; return the largest growth of the process during the call, in megabytes.

    Resident memory is counted, including the result. None where the kernel does not report it
    (outside of Linux). Call it in a new process: memory that was freed before is reused without
    being counted.
    """
    try:
        CLEAR.write_text("5")  # resets the peak to the present size
        before = _megabytes("VmRSS")
    except (OSError, KeyError):
        return None, work()
    result = work()
    return _megabytes("VmHWM") - before, result


def _megabytes(name: str) -> float:
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(fields[name].split()[0]) * 1024 / 1e6
