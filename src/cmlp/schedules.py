"""Learning-rate schedules: the step size over the course of training.

``Network.fit(schedule=...)`` takes a name ('constant', 'cosine', 'one_cycle', 'coslog4',
'flat_cos', 'step', 'exponential', 'invscaling', 'adaptive'), an instance of one of these classes,
or a callable that returns the rate of an epoch (counted from 0). The same are factors of dropout
and weight decay, in ``dropout_schedule`` and ``weight_decay_schedule``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.checks import check_integer, check_number
from cmlp.core.errstate import callers_state
from cmlp.core.vocabulary import unknown

Rates = NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """The constant rate, and the base of the others.

    Parameters
    ----------
    warmup_fraction : float
        Part of the training, [0, 1), over which the rate rises in a straight line.
    """

    warmup_fraction: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        check_number("warmup_fraction", self.warmup_fraction, 0, 1, open_high=True)

    @property
    def foreseeable(self) -> bool:
        """Whether the rates of an epoch are independent of the losses of earlier epochs."""
        return type(self).rates is Schedule.rates

    def factor(self, progress: Rates, epochs: Rates) -> Rates:
        """Return the factor of the learning rate before each step.

        Parameters
        ----------
        progress : ndarray
            Part of the training that is done before each step, [0, 1).
        epochs : ndarray
            The same in epochs.
        """
        return np.ones_like(progress)

    def rates(
        self, learning_rate: float, epoch: int, epochs: int, n_steps: int, losses: Sequence[float]
    ) -> Rates:
        """Return the rate of each step of an epoch, (n_steps,).

        `losses` are those of earlier epochs: validation losses if there are any.
        """
        if type(self).factor is Schedule.factor and not self.warmup_fraction:
            return np.full(n_steps, learning_rate, float)  # in a tenth of the time
        done = epoch + np.arange(n_steps) / n_steps
        progress = done / epochs
        factor = self.factor(progress, done)
        if self.warmup_fraction:
            first = 1 / (n_steps * epochs)  # so that the first step has a rate above zero
            factor = factor * np.minimum(1.0, (progress + first) / self.warmup_fraction)
        return np.asarray(learning_rate * factor)


class Constant(Schedule):
    """The same rate at every step."""


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the rate down to ``final`` times it (Loshchilov & Hutter 2017, eq. 5)."""

    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("final", self.final, 0)

    def factor(self, progress: Rates, epochs: Rates) -> Rates:
        return self.final + (1 - self.final) * 0.5 * (1 + np.cos(math.pi * progress))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From ``start`` times the rate up to the rate, then down to ``final`` times it (Smith 2018).

    Parameters
    ----------
    peak : float
        Part of the training at which the full rate is reached.
    start, final : float
        The first and the last rate, as parts of the full one.
    warmup_fraction : float
        As of every :class:`Schedule`.
    """

    peak: float = 0.3
    start: float = 0.04
    final: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("peak", self.peak, 0, 1, open_high=True)
        for name in ("start", "final"):
            check_number(name, getattr(self, name), 0)

    def factor(self, progress: Rates, epochs: Rates) -> Rates:
        rising = 0.5 * (1 - np.cos(math.pi * progress / max(self.peak, 1e-12)))
        falling = 0.5 * (1 + np.cos(math.pi * (progress - self.peak) / (1 - self.peak)))
        return np.where(
            progress < self.peak,
            self.start + (1 - self.start) * rising,
            self.final + (1 - self.final) * falling,
        )


@dataclass(frozen=True)
class CosLog(Schedule):
    """Cycles from 0 to the rate and back to 0, each twice as long as the one before.

    The factor is ``(1 - cos(2 pi log2(1 + (2**cycles - 1) t))) / 2`` where t is the part of the
    training that is done: 0 at the first step. With 4 cycles this is 'coslog4' (Holzmüller et al.
    2024, appendix A.1).
    """

    cycles: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("cycles", self.cycles, 1)

    def factor(self, progress: Rates, epochs: Rates) -> Rates:
        phase = np.log2(1 + (2.0**self.cycles - 1) * progress)
        return np.asarray(0.5 * (1 - np.cos(2 * math.pi * phase)))


@dataclass(frozen=True)
class FlatCos(Schedule):
    """The full rate for the part ``flat`` of the training, then half a cosine down to 0."""

    flat: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("flat", self.flat, 0, 1, open_high=True)

    def factor(self, progress: Rates, epochs: Rates) -> Rates:
        falling = 0.5 * (1 + np.cos(math.pi * (progress - self.flat) / (1 - self.flat)))
        return np.where(progress < self.flat, 1.0, falling)


@dataclass(frozen=True)
class Step(Schedule):
    """Multiplied by ``multiplier`` after every ``every`` epochs."""

    every: int = 10
    multiplier: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("every", self.every, 1)
        check_number("multiplier", self.multiplier, 0)

    def factor(self, progress: Rates, epochs: Rates) -> Rates:
        return np.power(self.multiplier, np.floor(epochs / self.every))


@dataclass(frozen=True)
class Exponential(Schedule):
    """Multiplied by ``multiplier`` after every epoch."""

    multiplier: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("multiplier", self.multiplier, 0)

    def factor(self, progress: Rates, epochs: Rates) -> Rates:
        return np.power(self.multiplier, np.floor(epochs))


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """Divided by ``(epoch + 1) ** power``."""

    power: float = 0.5

    def factor(self, progress: Rates, epochs: Rates) -> Rates:
        return np.asarray(np.power(np.floor(epochs) + 1, -self.power))


@dataclass(frozen=True)
class Adaptive(Schedule):
    """Multiplied by ``multiplier`` after ``patience`` epochs without a loss lower by ``tol``."""

    patience: int = 5
    multiplier: float = 0.2
    tol: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("patience", self.patience, 1)
        check_number("multiplier", self.multiplier, 0)

    def rates(
        self, learning_rate: float, epoch: int, epochs: int, n_steps: int, losses: Sequence[float]
    ) -> Rates:
        best, waited, cuts = math.inf, 0, 0
        for loss in losses:
            waited = 0 if loss < best - self.tol else waited + 1
            best = min(best, loss)
            if waited == self.patience:
                cuts, waited = cuts + 1, 0
        rates = super().rates(learning_rate, epoch, epochs, n_steps, losses)
        return np.asarray(rates * self.multiplier**cuts)


@dataclass(frozen=True)
class Custom(Schedule):
    """The rate that a callable returns for an epoch, counted from 0."""

    rate: Callable[[int], float] = lambda epoch: 1.0

    def rates(
        self, learning_rate: float, epoch: int, epochs: int, n_steps: int, losses: Sequence[float]
    ) -> Rates:
        with callers_state():
            rate = self.rate(epoch)
        rate = check_number(f"schedule({epoch})", rate, 0)
        return np.full(n_steps, rate)


NAMES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "coslog4": CosLog,
    "flat_cos": FlatCos,
    "step": Step,
    "exponential": Exponential,
    "invscaling": InverseScaling,
    "adaptive": Adaptive,
}


def resolve(schedule: Any) -> Schedule:
    """Return the schedule for a name, a class, an instance or a callable.

    Parameters
    ----------
    schedule : str, type, Schedule, callable or None
        None is a constant rate.
    """
    if schedule is None:
        return Constant()
    if isinstance(schedule, type) and issubclass(schedule, Schedule):
        schedule = schedule()
    if isinstance(schedule, Schedule):
        return schedule
    if callable(schedule):
        return Custom(rate=schedule)
    if isinstance(schedule, str) and schedule in NAMES:
        return NAMES[schedule]()
    raise unknown("schedule", schedule, NAMES, NAMES)
