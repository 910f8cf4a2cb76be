"""Held-out rows of an estimator's training: their loss and score after every epoch."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmlp.core.errors import held_warnings, warn
from cmlp.core.errstate import callers_state
from cmlp.data.rows import HeldOut
from cmlp.estimators.protocols import scorer_named
from cmlp.model.scoring import defines_r2, evaluate, metric_of
from cmlp.model.state import State


class Validation:
    """Evaluates a network on held-out rows, by its own score or by `scoring`.

    Parameters
    ----------
    cost_scale : float
        Factor of the network's loss that makes it the estimator's.
    """

    def __init__(self, estimator: Any, net: State, held_out: HeldOut, cost_scale: float) -> None:
        self.estimator, self.net = estimator, net
        self.held_out, self.cost_scale = held_out, cost_scale

    @property
    def lacks_score(self) -> bool:
        """Whether the rows are too few for R^2: the loss then decides in its place."""
        targets = self.held_out.of(self.held_out.data.targets)
        by_r2 = self.estimator.scoring is None and metric_of(self.net, targets) == "r2"
        return by_r2 and not defines_r2(targets)

    def evaluate(self) -> tuple[float, float]:
        """Return the loss and the score of the present network."""
        held_out, scoring = self.held_out, self.estimator.scoring
        loss, score, _ = evaluate(self.net, held_out.data, held_out.rows)
        loss *= self.cost_scale
        if scoring is None:
            return loss, score
        return loss, -loss if scoring == "loss" else self._scored()

    def _scored(self) -> float:
        """Call a scorer: a function of the estimator, X and y, or one of scikit-learn's."""
        held_out, scoring, weights = self.held_out, self.estimator.scoring, {}
        if isinstance(scoring, str):
            scoring = scorer_named(scoring)
            _check_order_of_labels(self.estimator, scoring)
            if held_out.data.weights is not None:
                weights = {"sample_weight": held_out.of(held_out.data.weights)}
        with held_warnings() as held, callers_state():
            score = float(scoring(self.estimator, held_out.X, held_out.y, **weights))
        for message, kind in held:
            if not message.startswith("X does not have valid feature names"):
                warn(message, kind)
        return score


def name_of_score(scoring: Any, net: State, targets: Any) -> str:
    """Return what val_score is: the name of the scorer, or 'accuracy' or 'r2'."""
    if scoring is None:
        return metric_of(net, targets)
    return scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")


def _check_order_of_labels(estimator: Any, scorer: Any) -> None:
    """Refuse a scorer that would assign the columns of probabilities to other classes."""
    classes = getattr(estimator, "classes_", None)
    by_label = getattr(scorer, "_response_method", "predict") == "predict"
    if classes is None or by_label or np.array_equal(np.unique(classes), classes):
        return
    raise ValueError(
        f"scoring={estimator.scoring!r} takes probabilities in the sorted order of labels, but "
        f"classes_ is {classes.tolist()}: use scoring='loss' or 'accuracy', or assign classes_ "
        "after training"
    )
