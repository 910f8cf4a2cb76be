"""Which rows make which window: blocks dealt in turn, and rows that are held out.

All of it follows from seeds and numbers of rows, so that a resumed training finds the same windows
without reading those before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int, int]
"""Block, first row, row after the last."""

LANES, MOST_LANES = 64, 256
"""Blocks that are read side by side, at most; and where any row is read as fast as the next one."""


def windows_of(
    counts: Sequence[int],
    sizes: Iterable[int],
    lanes: int,
    key: Sequence[int] | None,
    *,
    turned: bool = False,
) -> Iterator[list[Span]]:
    """Yield what each window of an epoch is made of: spans of so many rows, of the last one fewer.

    Parameters
    ----------
    counts : sequence of int
        Rows of each block.
    sizes : iterable of int
        Rows of each window; without an end.
    lanes : int
        Blocks that are read side by side, a part of each in turn.
    key : sequence of int or None
        What the order of the blocks is drawn by; None keeps it.
    turned : bool
        Whether a block begins with any of its rows, which is drawn, and ends before it: the rows
        of a window are from all parts of blocks that are sorted in themselves.
    """
    n = len(counts)
    rng = np.random.default_rng(key)
    order = iter(range(n) if key is None else rng.permutation(n).tolist())
    opened: list[list[int]] = []  # block, the next of its rows, and how many are left

    def refill() -> None:
        while len(opened) < lanes:
            block = next(order, None)
            if block is None:
                return
            if counts[block]:
                first = int(rng.integers(counts[block])) if turned else 0
                opened.append([block, first, counts[block]])

    for left in sizes:
        spans = []
        refill()
        while left and opened:
            share = -(-left // len(opened))
            for lane in opened:
                block, start, rest = lane
                stop = start + min(share, left, rest, counts[block] - start)
                spans.append((block, start, stop))
                lane[1:] = stop % counts[block], rest - (stop - start)
                left -= stop - start
                if not left:
                    break
            opened = [lane for lane in opened if lane[2]]
            refill()
        if not spans:
            return
        yield spans


# Held-out rows -----------------------------------------------------------------------------------

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's function of numbers: each bit of a result depends on all of them."""
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    return z ^ (z >> np.uint64(31))


class HeldRows:
    """Which rows are held out: by a hash of seed, block and row, the same in every epoch.

    Parameters
    ----------
    seed : int
    fraction : float
        Of the rows, about.
    """

    def __init__(self, seed: int, fraction: float) -> None:
        self.seed, self.fraction = seed, fraction

    def hashes(self, block: int, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
        """Return a hash of each row of a block."""
        key = _mixed(np.array([self.seed, block], np.uint64) * _STEP)
        return _mixed((rows.astype(np.uint64) + key[0]) * _STEP ^ key[1])

    def mask(self, block: int, start: int, stop: int) -> NDArray[np.bool_]:
        """Return whether each row of a part of a block is held out."""
        if not self.fraction:
            return np.zeros(stop - start, bool)
        z = self.hashes(block, np.arange(start, stop))
        return np.asarray((z >> np.uint64(11)) < np.uint64(self.fraction * 2.0**53))

    def kept(self, block: int, n: int) -> NDArray[np.int64]:
        """Return the numbers of the rows of a block that are not held out."""
        return np.flatnonzero(~self.mask(block, 0, n)) if self.fraction else np.arange(n)

    def n_kept(self, blocks: Sequence[int]) -> list[int]:
        """Return how many rows of each block are not held out."""
        if not self.fraction:
            return list(blocks)
        size = 1 << 20
        return [
            n - sum(int(self.mask(block, start, min(start + size, n)).sum())
                    for start in range(0, n, size))
            for block, n in enumerate(blocks)
        ]  # fmt: skip


# Memory ------------------------------------------------------------------------------------------

UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
         "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}  # fmt: skip


def bytes_of(memory: int | float | str, name: str = "memory") -> int:
    """Return a number of bytes, such as "1 GB", "512 MiB" or 1e9."""
    if isinstance(memory, str):
        text = memory.strip().lower().replace(" ", "").replace("_", "")
        digits = text.rstrip("bkmgti")
        unit = text[len(digits) :]
        unit = unit.removesuffix("b") if len(unit) > 1 else unit
        try:
            value = float(digits) * UNITS[unit]
        except (ValueError, KeyError):
            raise ValueError(
                f"{name} must be bytes or text such as '1 GB' or '512 MiB', not {memory!r}"
            ) from None
    elif isinstance(memory, (int, float, np.integer, np.floating)) and not isinstance(memory, bool):
        value = float(memory)
    else:
        raise TypeError(f"{name} must be bytes or text such as '1 GB', not {memory!r}")
    if not 0 < value < 2**62:
        raise ValueError(f"{name} must be above 0, not {memory!r}")
    return int(value)


def in_words(n: float) -> str:
    """Write bytes as text that :func:`bytes_of` reads, rounded up."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if n >= size:
            return f"{np.ceil(n / size * 10) / 10:g} {unit}"
    return f"{int(n)} B"
