"""What a terminal shows: the progress of a training, and how its labels were read."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def count(number: float) -> str:
    """Write a number short: 950, 12.3k, 4.56M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


class Progress:
    """One line per epoch; with ``verbose=1`` on a terminal, one line that is written over."""

    def __init__(self, verbose: int, epochs: int, metric: str, core: str) -> None:
        self.verbose, self.epochs, self.metric, self.core = verbose, epochs, metric, core
        self.live = verbose == 1 and sys.stdout.isatty()

    def epoch(self, values: Mapping[str, float]) -> None:
        """Show the epoch that has just ended."""
        if not self.verbose:
            return
        number = int(values["epoch"])
        parts = [f"epoch {number:{len(str(self.epochs))}d}", f"loss {values['loss']:.4f}"]
        if "val_loss" in values:
            parts.append(f"val_loss {values['val_loss']:.4f}")
            parts.append(f"val_{self.metric} {values['val_score']:.4f}")
        parts += [f"{count(values['rows_per_second'])} rows/s", self.core]
        line = "  ".join(parts)
        if self.live:
            width = (os.get_terminal_size(sys.stdout.fileno()).columns or 80) - 1  # 0: unknown
            print(f"\r{line:{width}.{width}}", end="", flush=True)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self.live:
            print(flush=True)
            self.live = False


def confusion_table(truth: Array, read: Array, labels: Array) -> str:
    """Return a table of how labels were read: a row per true label, a column per label read.

    `labels` are sorted. Beyond 20 of them, the ten pairs that were confused most often.
    """
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (np.searchsorted(labels, truth), np.searchsorted(labels, read)), 1)
    names = [str(label) for label in labels]
    if len(labels) > 20:
        wrong = counts * (1 - np.eye(len(labels), dtype=np.int64))
        worst = [divmod(int(i), len(labels)) for i in np.argsort(-wrong, axis=None)[:10]]
        pairs = [f"  {names[i]}: {names[j]}, {wrong[i, j]}" for i, j in worst if wrong[i, j]]
        head = f"{len(labels)} classes; most often confused (true: read as, times):"
        return "\n".join([head, *pairs])
    names = [name if len(name) <= 12 else name[:11] + "~" for name in names]
    first = max(map(len, [*names, "true"]))
    width = max(len(text) for text in [*names, str(counts.max())])
    lines = [f"{'true':>{first}} | read as", " " * first + " |"]
    lines[1] += "".join(f" {name:>{width}}" for name in names)
    for name, row in zip(names, counts.tolist(), strict=True):
        lines.append(f"{name:>{first}} |" + "".join(f" {n or '.':>{width}}" for n in row))
    return "\n".join(lines)
