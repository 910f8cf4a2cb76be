"""Which partitions a rank needs, and how many rows it has."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from cmlp.core.errors import warn
from cmlp.dask.partitions import Partitions
from cmlp.data.source import Shards, Source


def partitions_in(source: Any) -> Partitions | None:
    """Return the partitions that a source consists of, also if it encodes their rows."""
    while not isinstance(source, Partitions) and hasattr(source, "source"):
        source = source.source
    return source if isinstance(source, Partitions) else None


UNEVEN = 1.15
"""Rows of a rank, as a multiple of the mean, from which there is a warning."""


class Shares:
    """The rows of a training, divided between ranks as :class:`cmlp.distributed.Rank` does.

    Parameters
    ----------
    n_shards : int
    verbose : int
        Above 0 the rows of each worker are printed, for each new ring.
    """

    def __init__(self, source: Source, n_shards: int, verbose: int) -> None:
        self.source, self.n_shards, self.verbose, self.warned = source, n_shards, verbose, False
        self.partitions = partitions_in(source)

    def held(self, client: Any, ring: list[str]) -> list[dict[int, Any]]:
        """Return the partitions that each rank carries: futures, which Dask brings there."""
        blocks, k, size = self.source.blocks or (), self.n_shards, len(ring)
        n, pieces = sum(blocks), Shards(list(blocks))
        borders = [n * (k * rank // size) // k for rank in range(size + 1)]
        rows = [stop - start for start, stop in pairwise(borders)]
        self._tell(ring, rows)
        if self.partitions is None:
            return [{} for _ in ring]
        futures = self.partitions.living(client)
        return [
            {block: futures[block] for block, _, _ in pieces.pieces(start, stop)}
            for start, stop in pairwise(borders)
        ]

    def _tell(self, ring: list[str], rows: list[int]) -> None:
        if self.verbose:
            print("rows: " + ", ".join(f"{n:,} in {at}" for at, n in zip(ring, rows, strict=True)))
        most = max(rows) * len(rows) / max(1, sum(rows))
        if most > UNEVEN and not self.warned:
            self.warned = True
            warn(
                f"a worker has {most:.2f} times as many rows as the mean: {max(rows):,}; the "
                f"others wait for it. The rows are cut into {self.n_shards} shards, four for each "
                "worker at the beginning"
            )
