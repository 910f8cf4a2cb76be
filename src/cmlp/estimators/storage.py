"""Sources in place of X: how an estimator reads them, and what of them is read at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmlp.data.source import Source, no_targets, streamed


@dataclass(frozen=True)
class Storage:
    """How a fit reads and keeps; the parameters of ``fit`` by these names."""

    memory: int | str = "1 GB"
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: float = 300
    resume: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether there are no checkpoints."""
        if self.resume and self.checkpoint is None:
            raise ValueError("resume=True needs the file to continue from: checkpoint=...")
        return self.checkpoint is None


def targets_of(X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Return targets and weights, those of a source if X is one."""
    if not isinstance(X, Source):
        return y, sample_weight
    no_targets(y, sample_weight)
    pieces = list(streamed(X, targets_only=True))
    weights = [piece.weight for piece in pieces if piece.weight is not None]
    targets = np.concatenate([piece.y for piece in pieces])
    return targets, np.concatenate(weights) if weights else None


def answers_of(source: Source, answer: Any) -> Any:
    """Return the answers about all rows: arrays, or tuples of them."""
    from cmlp.sources.fitting import blocks_of

    parts = [answer(data.X) for data in blocks_of(source)]
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    return np.concatenate(parts)
