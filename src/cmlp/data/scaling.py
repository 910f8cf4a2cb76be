"""Features and targets of mean 0 and deviation 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array

BLOCK = 4096
"""Rows that are scaled at a time."""


class Scaling(NamedTuple):
    """``(values - mean) * factor``: mean 0 and deviation 1; a constant column becomes 0."""

    mean: Array
    factor: Array

    @classmethod
    def of(cls, values: Array, names: Sequence[str]) -> Scaling:
        """Compute mean and deviation of the columns of `values`, (n, columns), called `names`."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean = values.mean(axis=0, dtype=np.float64)
            squares = (((values[at : at + BLOCK] - mean) ** 2).sum(axis=0)
                       for at in range(0, len(values), BLOCK))  # fmt: skip
            std = np.sqrt(sum(squares) / len(values))
        if not np.isfinite(std).all():
            name = names[int(np.argmin(np.isfinite(std)))]
            raise ValueError(f"column {name!r} holds numbers too large to be scaled")
        varies = std > 1e-12 * np.abs(mean)
        return cls(mean, np.divide(1.0, std, out=np.zeros_like(std), where=varies))

    def __call__(self, values: Array) -> NDArray[np.float32]:
        out = np.empty(values.shape, np.float32)
        for at in range(0, len(values), BLOCK):
            out[at : at + BLOCK] = (values[at : at + BLOCK] - self.mean) * self.factor
        return out


def target_scaling(y: Array, name: str) -> Scaling:
    """Compute mean and deviation of the target, (n,) or (n, outputs).

    All outputs share one deviation, so that scaling changes the unit of the loss and nothing else.
    """
    columns = y.reshape(len(y), -1)
    mean, factor = Scaling.of(columns, [name] * columns.shape[1])
    if not factor.any():
        raise ValueError(f"the {name} is the same on every row: there is nothing to learn")
    std = np.divide(1.0, factor, out=np.zeros_like(factor), where=factor > 0)
    common = 1 / np.sqrt((std**2).mean())
    return Scaling(mean, np.full_like(factor, common))
