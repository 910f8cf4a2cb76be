"""Whether the rows of a source are sorted by their targets."""

from __future__ import annotations

import numpy as np

from cmlp.core.layout import Array

SHARE = 0.1
"""Share of the targets' variance between blocks, from which they count as sorted."""

ENOUGH, MOST = 4, 1024
"""Blocks that have to be known, and that are, at most."""

WIDEST = 64
"""Sums that are kept for a block: of outputs, or of classes, by the last digits of their number."""


class Sortedness:
    """Sums of the targets in each block, and what they tell.

    In blocks of random rows, means of blocks differ by the deviation of a mean alone.
    """

    def __init__(self) -> None:
        self.sums: dict[int, tuple[int, Array, Array]] = {}

    def see(self, block: int, targets: Array) -> None:
        """Add encoded targets: class numbers, (n,), or numbers, (n, n_out)."""
        if len(self.sums) == MOST and block not in self.sums:
            return
        if targets.ndim == 1:  # the mean of indicators is a share of the class
            total = squares = np.bincount(targets % WIDEST, minlength=WIDEST)
        else:
            known = np.nan_to_num(targets[:, :WIDEST].astype(np.float64), nan=0.0)
            total, squares = known.sum(axis=0), (known * known).sum(axis=0)
        n, *sums = self.sums.get(block, (0, 0.0, 0.0))
        self.sums[block] = n + len(targets), sums[0] + total, sums[1] + squares

    def is_sorted(self) -> bool:
        """Return whether the targets of blocks differ by far more than by chance."""
        sums = list(dict(self.sums).values())  # another thread may be adding
        if len(sums) < ENOUGH:
            return False
        n = np.array([each[0] for each in sums], np.float64)[:, None]
        total, squares = np.stack([each[1] for each in sums]), sum(each[2] for each in sums)
        rows = n.sum()
        mean = total.sum(axis=0) / rows
        within_and_between = (squares - rows * mean * mean).sum()
        between = (n * (total / n - mean) ** 2).sum()
        if not within_and_between > 0:
            return False
        by_chance = (len(sums) - 1) / max(rows - 1, 1)
        return bool(between / within_and_between > SHARE + 3 * by_chance)
