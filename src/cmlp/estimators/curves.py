"""What an estimator has of every epoch: losses, scores, curves, and its best epoch."""

from __future__ import annotations

import math
from typing import Any

from cmlp.training.stopping import NoImprovement

BEST = ("best_iteration_", "best_loss_", "best_validation_score_")
HELD_OUT = ("validation_scores_", "validation_loss_curve_")


class Curves:
    """Writes the record of a training into the attributes of an estimator, epoch by epoch.

    Parameters
    ----------
    validates : bool
        Whether there are held-out rows.
    by_score : bool
        Whether their score decides when training stops, and not the training loss.
    """

    def __init__(self, estimator: Any, *, validates: bool, by_score: bool) -> None:
        self.estimator, self.by_score = estimator, by_score
        self.name_of_best = "best_validation_score_" if by_score else "best_loss_"
        self._begin(validates)
        best = getattr(estimator, self.name_of_best)
        self.stopping = NoImprovement(
            estimator.tol, estimator.n_iter_no_change, -best if by_score else best,
            estimator._no_improvement_count,
        )  # fmt: skip

    def _begin(self, validates: bool) -> None:
        """Begin the curves, or continue those of earlier calls."""
        est = self.estimator
        start: dict[str, Any] = dict.fromkeys((*BEST, *HELD_OUT))
        start |= {"loss_curve_": [], "_no_improvement_count": 0}
        continues = hasattr(est, "loss_curve_")
        for name, value in start.items():
            if not (continues and hasattr(est, name)):
                setattr(est, name, value)
        for name in HELD_OUT:
            if validates and getattr(est, name) is None:
                setattr(est, name, [])
        if getattr(est, self.name_of_best) is None:
            setattr(est, self.name_of_best, -math.inf if self.by_score else math.inf)
        est.n_iter_ = 0

    def add_loss(self, loss: float, n_rows: int) -> None:
        """Record the training loss of an epoch, and the rows that it used."""
        est = self.estimator
        est.n_iter_ += 1
        est.t_ += n_rows
        est.loss_ = loss
        est.loss_curve_.append(loss)

    def add_validation(self, loss: float, score: float) -> None:
        """Record the loss and the score of the held-out rows."""
        self.estimator.validation_loss_curve_.append(loss)
        self.estimator.validation_scores_.append(score)

    def see(self, value: float) -> bool:
        """Count the epoch by its loss or score; return whether it is the best so far."""
        est = self.estimator
        improves = self.stopping.see(-value if self.by_score else value)
        est._no_improvement_count = self.stopping.count
        if improves:
            est.best_iteration_ = len(est.loss_curve_)
            setattr(est, self.name_of_best, value)
        return improves

    def forgive_stall(self) -> None:
        """Count epochs without an improvement anew."""
        self.estimator._no_improvement_count = self.stopping.count = 0


def forget_best(estimator: Any) -> None:
    """Count improvements anew: what follows has other losses and scores."""
    estimator._no_improvement_count = 0
    for name, worst in (("best_loss_", math.inf), ("best_validation_score_", -math.inf)):
        if getattr(estimator, name, None) is not None:
            setattr(estimator, name, worst)
