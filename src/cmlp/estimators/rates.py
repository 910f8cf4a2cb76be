"""scikit-learn's three learning rates, or a schedule."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp import schedules
from cmlp.estimators.parameters import parameters_at_fault


class Pace:
    """The learning rate, from epoch to epoch.

    'invscaling' and 'adaptive' are scikit-learn's and belong to 'sgd' there; with 'adam' they
    leave the rate alone, as there. Everything else acts with every solver.
    """

    @parameters_at_fault()
    def __init__(self, estimator: Any) -> None:
        name, warmup = estimator.learning_rate, estimator.warmup_fraction
        self.learning_rate = self.initial = float(estimator.learning_rate_init)
        self.power_t, self.epochs = float(estimator.power_t), int(estimator.max_iter)
        self.rule = ""
        if isinstance(name, str) and name in ("constant", "invscaling", "adaptive"):
            self.rule = name if estimator.solver != "adam" else "constant"
            name = "constant"
        self.schedule = schedules.resolve(name)
        if warmup:
            self.schedule = dataclasses.replace(self.schedule, warmup_fraction=warmup)
        self.epoch = 0

    def rates(self, n_steps: int, losses: list[float]) -> NDArray[np.float64]:
        """Return the rate of each step of the next epoch."""
        base = self.learning_rate if self.rule else self.initial
        epoch = min(self.epoch, self.epochs - 1)
        rates = self.schedule.rates(base, epoch, self.epochs, n_steps, losses)
        if not self.rule:
            self.learning_rate = float(rates[-1])
        self.epoch += 1
        return rates

    @property
    def foreseeable(self) -> bool:
        """Whether the rates of the next epochs do not depend on how these go, short of a stall."""
        return self.rule in ("constant", "adaptive") or (
            not self.rule and self.schedule.foreseeable
        )

    def epoch_ends(self, n_rows: int) -> None:
        """Count the rows that were seen so far."""
        if self.rule == "invscaling":
            self.learning_rate = self.initial / (n_rows + 1) ** self.power_t

    def stops(self) -> str:
        """Answer a stall: why training stops, or nothing where it goes on with a smaller rate."""
        if self.rule != "adaptive":
            return " Stopping."
        if self.learning_rate <= 1e-6:
            return " Learning rate too small. Stopping."
        self.learning_rate /= 5.0
        return ""
