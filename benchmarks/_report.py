"""Shared by all benchmark programs: options, the machine's description, tables, JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cmlp
from cmlp.cli.bench import ONE_THREAD

LIBRARIES = ("scikit-learn", "torch", "jax", "onnxruntime")
"""Other libraries whose versions belong to the results."""


def parser(module: str, doc: str | None, seconds: float) -> argparse.ArgumentParser:
    """Return a parser with the options that every program has."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--seconds", type=float, default=None, help=f"to measure each case for ({seconds:g})"
    )
    made.add_argument(
        "--quick", action="store_true", help="a few small cases, fractions of a second"
    )
    made.add_argument("--json", metavar="FILE", help="also write the results here")
    made.add_argument("--chart", metavar="FILE", help="also draw them here (.svg, .png)")
    made.set_defaults(usual_seconds=seconds)
    return made


def seconds_of(args: argparse.Namespace, quick: float = 0.3) -> float:
    """Return the seconds for each case."""
    if args.seconds is not None:
        return float(args.seconds)
    return quick if args.quick else float(args.usual_seconds)


def list_of(kind: type) -> Any:
    """Return a parser of '1,2' to [1, 2]."""

    def parse(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",") if part]

    parse.__name__ = f"list of {kind.__name__}"
    return parse


def with_one_thread(module: str) -> None:
    """Restart this program with one thread for NumPy, whose BLAS reads the limit at import."""
    if os.environ.items() >= ONE_THREAD.items():
        return
    command = [sys.executable, "-m", f"benchmarks.{module}", *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, **ONE_THREAD})


def cpu_model() -> str:
    """Return the processor's name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(libraries: Iterable[str] = ()) -> dict[str, Any]:
    """Describe the machine and the versions of a measurement.

    Parameters
    ----------
    libraries : iterable of str
        Other libraries in the measurement, whose versions to look up.
    """
    found = {}
    for library in libraries:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    info = cmlp.core_info()
    return {
        "cpu": cpu_model(),
        "cpus": info.cpus,
        "core": info.core,
        "vector_bits": 8 * info.vector_bytes,
        "system": platform.system(),
        "python": platform.python_version(),
        "cmlp": cmlp.__version__,
        "numpy": np.__version__,
        **found,
    }


def headline(about: dict[str, Any]) -> str:
    """Describe a machine in a line."""
    return (
        f"{about['cpu']}, {plural(about['cpus'], 'processor')}, {about['core']} core "
        f"({about['vector_bits']}-bit vectors)\n{versions(about)}"
    )


def versions(about: dict[str, Any]) -> str:
    """List the versions in a measurement."""
    names = ("python", "cmlp", "numpy", *LIBRARIES)
    return ", ".join(f"{name} {about[name]}" for name in names if name in about)


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with `digits` significant digits and thousands separated; '-' for None."""
    if value is None or not np.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    decimals = digits - 1 - int(np.floor(np.log10(abs(value))))
    rounded = round(value, decimals)
    return f"{rounded:,.{max(0, decimals)}f}"


def rates(step_flops: float, rows: float, seconds: float, flop: float) -> dict[str, Any]:
    """Return the rates that follow from a step's time.

    Parameters
    ----------
    step_flops : float
        Operations of a step.
    rows : float
        Rows of its batch.
    seconds : float
        Of the step.
    flop : float
        Seconds of an operation at the peak; infinity if it is unknown.
    """
    known = bool(np.isfinite(flop))
    return {
        "us_per_step": 1e6 * seconds,
        "rows_per_second": rows / seconds,
        "gflops": 1e-9 * step_flops / seconds,
        "peak_gflops": 1e-9 / flop if known else None,
        "of_peak": step_flops / seconds * flop if known else None,
    }


RATES = ("us/step", "rows/s", "GFLOP/s", "of peak")
"""Headers of what `rate_cells` returns."""


def rate_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return these rates as cells of a table."""
    return (
        number(row["us_per_step"]),
        number(row["rows_per_second"]),
        number(row["gflops"]),
        percent(row["of_peak"]),
    )


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: '1 row', '1,000 rows'."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def percent(value: float | None) -> str:
    """Format a fraction as a percentage; '-' for None."""
    return "-" if value is None or not np.isfinite(value) else f"{100 * value:.0f}%"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table: the first column aligned left, the others right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_json(file: str | None, about: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Write a program's results, if a file is given."""
    if file:
        text = json.dumps({"about": about, "results": results}, indent=1, default=_plain)
        Path(file).write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return a NumPy number as one of Python's, for JSON."""
    return value.item()
