"""What a terminal shows: the progress of a training, and how its labels were read."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from cmlp.core.formatting import count, number, score


def in_short(values: Mapping[str, float], metric: str) -> str:
    """Write the numbers of an epoch in one line."""
    parts = [f"loss {number(values['loss'])}"]
    if "val_loss" in values:
        parts.append(f"val_loss {number(values['val_loss'])}")
        parts.append(f"val_{metric} {score(values['val_score'])}")
    parts.append(f"{count(values['rows_per_second'])} rows/s")
    if "waited" in values:
        share = min(values["waited"] / max(values["seconds"], 1e-9), 1)
        parts += [f"waiting for data {share:.0%}"] if share >= 0.005 else []
    return "  ".join(parts)


def cut(text: str, width: int) -> str:
    """Shorten a text, and mark that: 1e-1 must not be read where 1e-12 is too long."""
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}~"


class Progress:
    """One line per epoch; with ``verbose=1`` in a terminal or a notebook, a progress bar.

    The bar is tqdm's, or rich's, where one of them is installed.
    """

    def __init__(self, verbose: int, epochs: int, metric: str, core: str) -> None:
        self.verbose, self.epochs, self.metric, self.core = verbose, epochs, metric, core
        self.live = live(epochs) if verbose == 1 else None

    def epoch(self, values: Mapping[str, float]) -> None:
        """Show the epoch that has just ended."""
        if not self.verbose:
            return
        epoch = f"epoch {int(values['epoch']):{len(str(self.epochs))}d}"
        numbers = f"{in_short(values, self.metric)}  {self.core}"
        if self.live is None:
            print(f"{epoch}  {numbers}", flush=True)
        else:
            self.live.show(epoch, numbers)

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self.live is not None:
            self.live.close()
            self.live = None


class _Line:
    """A line of a terminal that is written over."""

    def show(self, epoch: str, numbers: str) -> None:
        width = (os.get_terminal_size(sys.stdout.fileno()).columns or 80) - 1  # 0: unknown
        print(f"\r{cut(f'{epoch}  {numbers}', width):{width}}", end="", flush=True)

    def close(self) -> None:
        print(flush=True)


class _Tqdm:
    """tqdm's bar, in a terminal or a notebook."""

    def __init__(self, epochs: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a notebook without widgets gets a bar of text
            from tqdm.auto import tqdm

            # tqdm shows nothing in a terminal of unknown size, for which shutil returns 80 by 24.
            size: dict[str, Any] = {"dynamic_ncols": True}
            self.room = sys.maxsize
            if _in_terminal():
                columns, rows = shutil.get_terminal_size()
                size = {"ncols": columns, "nrows": rows}
                self.room = columns - len(f"epoch {epochs}/{epochs} |{12 * ' '}| 0:00:00, ")
            form = "epoch {n_fmt}/{total_fmt} |{bar:12}| {remaining}{postfix}"
            self.bar = tqdm(total=epochs, file=sys.stdout, bar_format=form, **size)

    def show(self, epoch: str, numbers: str) -> None:
        self.bar.set_postfix_str(cut(numbers, self.room), refresh=False)
        self.bar.update()

    def close(self) -> None:
        self.bar.close()


class _Rich:
    """rich's bar, in a terminal or a notebook."""

    def __init__(self, epochs: int) -> None:
        from rich import progress

        self.bar = progress.Progress(
            progress.TextColumn("epoch"),
            progress.MofNCompleteColumn(),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[numbers]}"),
            progress.TimeRemainingColumn(),
        )
        self.task = self.bar.add_task("", total=epochs, numbers="")
        self.bar.start()

    def show(self, epoch: str, numbers: str) -> None:
        self.bar.update(self.task, advance=1, numbers=numbers)

    def close(self) -> None:
        self.bar.stop()


def live(epochs: int) -> _Line | _Tqdm | _Rich | None:
    """Return what can be written over where standard output goes, None in a file or a pipe."""
    terminal = _in_terminal()
    if not terminal and not _in_notebook():
        return None
    for bar in (_Tqdm, _Rich):
        with contextlib.suppress(ImportError):
            return bar(epochs)
    return _Line() if terminal else None


def _in_terminal() -> bool:
    return sys.stdout.isatty()


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this; without importing anything of it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def printable(text: str) -> str:
    """Return text from a file with its control characters written out: they steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
