"""The encoded problem of a fit: targets, and what the outputs of a network stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.rows import Data, HeldOut
from cmlp.data.split import split_like_sklearn
from cmlp.estimators.inputs import Columns
from cmlp.estimators.labels import Labels


@dataclass(frozen=True)
class Outputs:
    """What the outputs of a network stand for.

    Attributes
    ----------
    n : int
        Their number.
    loss : str or callable
        As :class:`cmlp.Network` takes it.
    masks : bool
        Whether NaN stands for a missing target, which contributes no loss.
    labels : Labels or None
        Of a classifier.
    """

    n: int
    loss: Any
    masks: bool = False
    labels: Labels | None = None

    @property
    def classes(self) -> Array | None:
        """The labels that a network keeps."""
        return None if self.labels is None else self.labels.of_network


@dataclass(frozen=True)
class Targets:
    """The targets of some rows, encoded.

    Attributes
    ----------
    y : ndarray
        Labels or numbers as they were read, which a scorer compares with predictions.
    encoded : ndarray
        Class numbers, (n,), or numbers, (n, n_outputs), as the core takes them.
    weights : ndarray or None
        The rows' weights, multiplied with those of their classes.
    outputs : Outputs
        What a network that learns them has for outputs.
    """

    y: Array
    encoded: Array
    weights: NDArray[np.float64] | None
    outputs: Outputs

    @property
    def stratified(self) -> bool:
        """Whether held-out rows keep the proportions of the classes: of two, as in scikit-learn."""
        labels = self.outputs.labels
        return labels is not None and not labels.multilabel and self.encoded.ndim == 2


@dataclass(frozen=True)
class Task:
    """One call of ``fit`` or ``partial_fit``: its rows, checked and encoded, and how to begin.

    Attributes
    ----------
    init : tuple
        First weights and first biases; None for what is not given.
    first : bool
        Whether it begins with a new network.
    once : bool
        Whether every row is used once, as ``partial_fit`` does.
    halted : callable
        Whether an ensemble ends the trainings of its members.
    windows : callable or None
        From the task and a random state to windows of rows that do not fit into memory; `data` are
        a few of them then.
    rows : (n,) ndarray or None
        The numbers of the rows to train on; None: all.
    """

    data: Data
    targets: Targets
    columns: Columns
    held_out: HeldOut | None
    init: tuple[Any, Any]
    first: bool
    once: bool
    halted: Callable[[], bool] = lambda: False
    windows: Callable[[Task, np.random.RandomState], Any] | None = None
    rows: NDArray[np.int64] | None = None

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The numbers of the rows to train on."""
        if self.rows is not None:
            return self.rows
        return np.arange(self.data.X.shape[0], dtype=np.int64)

    def split(
        self, fraction: float, random: np.random.RandomState
    ) -> tuple[NDArray[np.int64], HeldOut]:
        """Return the numbers of the rows to train on, and the rows to validate on."""
        targets, stratified = self.targets, self.targets.stratified
        mine, encoded = self.numbers, targets.encoded
        if self.rows is not None:
            encoded = encoded[mine]
        if stratified and targets.outputs.labels is not None:
            targets.outputs.labels.check_counts(encoded[:, 0])
        rows, held = (
            mine[part] for part in split_like_sklearn(encoded, fraction, stratified, random)
        )
        return rows, HeldOut(self.data, held, self.data.X[held], targets.y[held])
