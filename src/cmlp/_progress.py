"""What a user sees of a running training."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


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
            width = os.get_terminal_size(sys.stdout.fileno()).columns - 1
            print(f"\r{line:{width}.{width}}", end="", flush=True)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self.live:
            print(flush=True)
            self.live = False
