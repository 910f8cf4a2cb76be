"""The learning rate from epoch to epoch: scikit-learn's three rules, or a schedule."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp import schedules

RULES = ("constant", "invscaling", "adaptive")
"""scikit-learn's names; the last two change the rate by what has happened."""

SMALLEST = 1e-6
"""'adaptive' ends a training instead of lowering a rate that is not above it."""


class LearningRate:
    """The rate of each step, from epoch to epoch.

    Parameters
    ----------
    rule : str, Schedule or callable
        One of `RULES`, or what :func:`cmlp.schedules.resolve` takes.
    initial : float
        The rate that it starts from.
    epochs : int
        Length of the schedule; the last epoch's rates continue after it.
    power_t : float
        Exponent of 'invscaling'.
    warmup_fraction : float
        Part of `epochs` over which the rate rises from zero.

    Attributes
    ----------
    learning_rate : float
        The rate of the last step, or of the next one under a rule of scikit-learn's.
    """

    def __init__(
        self,
        rule: Any,
        initial: float,
        epochs: int,
        *,
        power_t: float = 0.5,
        warmup_fraction: float = 0.0,
    ) -> None:
        self.rule = rule if isinstance(rule, str) and rule in RULES else ""
        self.schedule = schedules.resolve("constant" if self.rule else rule)
        if warmup_fraction:
            self.schedule = dataclasses.replace(self.schedule, warmup_fraction=warmup_fraction)
        self.learning_rate = self.initial = float(initial)
        self.epochs, self.power_t = int(epochs), float(power_t)
        self.epoch = 0

    def rates(self, n_steps: int, losses: list[float]) -> NDArray[np.float64]:
        """Return the rate of each step of the next epoch, and count the epoch."""
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

    def end_epoch(self, n_rows: int) -> None:
        """Adapt the rate to the rows that were used so far, in all epochs."""
        if self.rule == "invscaling":
            self.learning_rate = self.initial / (n_rows + 1) ** self.power_t

    def end_at_stall(self) -> str:
        """Return why a stall ends the training; lower the rate and return '' where it does not."""
        if self.rule != "adaptive":
            return "Stopping."
        if self.learning_rate <= SMALLEST:
            return "Learning rate too small. Stopping."
        self.learning_rate /= 5.0
        return ""
