"""The numbers that a tabular estimator's "auto" parameters stand for, by what is to be learned.

One function, :func:`preset_for`, decides all of them; nothing else knows a default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmlp.schedules import Rates, Schedule


@dataclass(frozen=True)
class Facts:
    """What is known of a problem before its rows are encoded.

    Attributes
    ----------
    task : str
        'classes' (one label per row), 'labels' (several) or 'numbers'.
    n_rows : int
        Rows to train on.
    n_columns : int
        Columns of the table.
    n_outputs : int
        Classes, labels or numbers.
    scoring : object
        What decides which epoch is the best.
    loss : str
        Of numbers.
    """

    task: str
    n_rows: int
    n_columns: int
    n_outputs: int
    scoring: Any = "loss"
    loss: str = "squared_error"


@dataclass(frozen=True)
class Preset:
    """Everything that is tuned. Fields that are parameters of the estimators have their names.

    Attributes
    ----------
    numbers, n_knots, date_parts, prior, n_permutations
        Of the :class:`cmlp.data.encode.TableEncoder`.
    target_statistics : bool
        Whether columns of codes have columns of what their levels tell of the target.
    n_iter_no_change : float
        Epochs since the best one that end a training.
    stop_factor : float
        Times the best epoch's number, which are added to them.
    first_stop : float
        Part of the training before which no patience ends it: while the rate rises from zero, a
        network has not begun to learn.
    clamps : bool
        Whether predicted numbers stay in the range of the targets that were trained on.
    """

    hidden_layer_sizes: Any
    activation: Any
    max_one_hot: int
    embedding_size: int
    numeric_embedding: str | None
    solver: str
    learning_rate_init: float
    learning_rate: Any
    batch_size: int
    max_iter: int
    n_iter_no_change: float
    weight_decay: float
    dropout: Any
    label_smoothing: float
    cv: Any
    n_ensemble: int
    # What is no parameter:
    numbers: str | None = "robust"
    n_knots: int | None = None
    date_parts: str | None = "numbers"
    target_statistics: bool = False
    prior: float = 1.0
    n_permutations: int = 4
    weight_init: str = "auto"
    beta_1: float = 0.9
    beta_2: float = 0.95
    epsilon: float = 1e-8
    clip_norm: float | None = None
    stop_factor: float = 1.0
    first_stop: float = 1 / 15
    clamps: bool = True


class MultiCycle(Schedule):
    """Four cosine cycles, each about twice as long as the one before; the last ends at zero.

    The factor is ``(1 - cos(2 pi log2(1 + 15 t))) / 2`` at the part t of the training
    (Holzmueller et al. 2024).
    """

    def factor(self, progress: Rates, epochs: Rates) -> Rates:
        return 0.5 * (1 - np.cos(2 * math.pi * np.log2(1 + 15 * progress)))


def preset_for(facts: Facts) -> Preset:
    """Return the numbers for a problem."""
    regresses = facts.task == "numbers"
    smooths = facts.task == "classes" and facts.scoring == "accuracy"
    return Preset(
        hidden_layer_sizes=(256, 256, 256),
        activation="mish" if regresses else "selu",
        max_one_hot=8,
        embedding_size=8,
        numeric_embedding=None,
        solver="adamw",
        learning_rate_init=0.006 if regresses else 0.0025,
        learning_rate=MultiCycle(),
        batch_size=_batch_size(facts.n_rows),
        max_iter=64,
        n_iter_no_change=math.inf,
        weight_decay=0.02,
        dropout=0.15,
        label_smoothing=0.1 if smooths else 0.0,
        cv=None,
        n_ensemble=1,
        clamps=facts.loss != "quantile",
    )


def _batch_size(n_rows: int) -> int:
    """Return rows per step: 256, and fewer where an epoch would have less than 16 steps."""
    return int(min(256, max(16, 2 ** int(math.log2(max(n_rows / 16, 1))))))
