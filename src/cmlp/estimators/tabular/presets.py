"""The numbers that a tabular estimator's "auto" parameters stand for, by what is to be learned.

One function, :func:`preset_for`, decides all of them; nothing else knows a default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from cmlp.schedules import FlatCos

MEMBERS = 4
"""Networks whose answers are averaged: twice as many take twice the time, for 0.5 % less error."""

FOLDS = 8
"""Parts that the rows are divided into; each member is validated on another one."""

MOST_VISITS = 2_500_000
"""Rows that a member sees in all its epochs together, if each is seen 4 times at least."""

LEAST_STEPS = 480
"""Steps that a member takes in all its epochs together, if there are fewer than 120."""


@dataclass(frozen=True)
class Facts:
    """What is known of a problem before its rows are encoded.

    Attributes
    ----------
    task : str
        'classes' (one label per row), 'labels' (several) or 'numbers'.
    n_rows : int
        Rows of the table.
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
    numbers, n_knots, min_rows, date_parts
        Of the :class:`cmlp.tables.encode.TableEncoder`; knots only with "piecewise" numbers.
    rate_of_tables : float
        Times the rate, of tables: of categories, and of numbers among knots.
    by_member : tuple of dict
        Fields that members have in turn, if there are several.
    n_iter_no_change : float
        Epochs since the best one that end a training.
    stop_factor : float
        Times the best epoch's number, which are added to them.
    folds_used : int or None
        How many of the folds are validated on, if not all.
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
    n_knots: int = 48
    min_rows: int = 10
    date_parts: str | None = "numbers"
    rate_of_tables: float = 0.3
    by_member: tuple[dict[str, Any], ...] = ({"dropout": 0.1}, {"dropout": 0.35})
    beta_1: float = 0.9
    beta_2: float = 0.95
    epsilon: float = 1e-8
    clip_norm: float | None = None
    stop_factor: float = 1.5
    folds_used: int | None = None
    clamps: bool = True

    def of_member(self, number: int) -> Preset:
        """Return the preset of one of several members."""
        own = self.by_member[number % len(self.by_member)] if self.by_member else {}
        return replace(self, **own)


def preset_for(facts: Facts) -> Preset:
    """Return the numbers for a problem."""
    n_train = facts.n_rows - facts.n_rows // FOLDS
    folds = _folds(facts.n_rows)
    batch_size = _batch_size(n_train)
    return Preset(
        hidden_layer_sizes=(256, 256),
        activation="mish",
        max_one_hot=2,
        embedding_size=0,
        numeric_embedding="piecewise",
        solver="adamw",
        learning_rate_init=0.006 * math.sqrt(batch_size / 256),
        learning_rate=FlatCos(0.3, warmup_fraction=0.05),
        batch_size=batch_size,
        max_iter=_epochs(n_train, batch_size),
        n_iter_no_change=5,
        weight_decay=0.01,
        dropout=0.2,
        label_smoothing=0.0,
        cv=folds,
        n_ensemble=1 if folds else MEMBERS,
        n_knots=min(48, max(4, facts.n_rows // 12)),
        min_rows=min(10, max(1, facts.n_rows // 80)),
        clamps=facts.loss != "quantile",
        folds_used=MEMBERS if folds else None,
    )


def _batch_size(n_rows: int) -> int:
    """Return rows per step: 256, and fewer where an epoch would have less than 16 steps."""
    return int(min(256, max(8, 2 ** int(math.log2(max(n_rows / 16, 1))))))


def _epochs(n_rows: int, batch_size: int) -> int:
    """Return epochs: 30, more where these are few steps, and fewer where they are many rows."""
    most = max(4, MOST_VISITS // max(n_rows, 1))
    steps = max(1, n_rows // batch_size)
    return min(most, max(30, min(120, LEAST_STEPS // steps)))


def _folds(n_rows: int) -> int | None:
    """Return folds: as many as members, and fewer where they would be of less than 25 rows."""
    if n_rows < 16:
        return None
    return FOLDS if n_rows >= 25 * FOLDS else FOLDS // 2
