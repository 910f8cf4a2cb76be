"""How a step is taken: solver, rates, penalties, noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cmlp.core.arrays import refuse_masked
from cmlp.core.checks import check_number
from cmlp.core.seam import Noise, Objective, Optimizer
from cmlp.core.vocabulary import SOLVERS, Solver, lookup, unknown
from cmlp.model.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one step does: solver, penalties, noise. Checked when it is made.

    The parameters are those of :meth:`Network.fit`.
    """

    solver: str = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    dropout: float | Sequence[float] = 0.0
    input_noise: float = 0.0
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema: float = 0.0

    def __post_init__(self) -> None:
        self.rule  # noqa: B018 - an unknown solver is refused here
        for name in ("learning_rate", "l1", "l2", "weight_decay", "input_noise"):
            check_number(name, getattr(self, name), 0)
        check_number("momentum", self.momentum, 0, 1)
        for name in ("beta_1", "beta_2", "label_smoothing", "ema"):
            check_number(name, getattr(self, name), 0, 1, open_high=True)
        check_number("epsilon", self.epsilon, 1e-37)  # above zero also as a float32
        if self.clip_norm is not None and not check_number("clip_norm", self.clip_norm, 0):
            raise ValueError("clip_norm must be above 0, or None for no clipping")

    @property
    def rule(self) -> Solver:
        return lookup("solver", SOLVERS, self.solver)

    def check(self, architecture: Architecture) -> None:
        """Check that these parameters suit a network."""
        self.objective(architecture)
        self.noise(architecture, 0)

    def objective(self, architecture: Architecture) -> Objective:
        """Return what the core minimises."""
        return architecture.objective(label_smoothing=self.label_smoothing, l1=self.l1, l2=self.l2)

    def optimizer(self) -> Optimizer:
        """Return how the core moves the parameters."""
        return Optimizer(
            self.rule.code,
            float(self.momentum),
            bool(self.nesterov),
            float(self.beta_1),
            float(self.beta_2),
            float(self.epsilon),
            float(self.weight_decay),
            float(self.clip_norm or 0.0),
            float(self.ema),
        )

    def noise(self, architecture: Architecture, seed: int) -> Noise:
        """Return what the core disturbs the rows with."""
        n_hidden = len(architecture.sizes) - 2
        refuse_masked("dropout", self.dropout)
        try:
            given = np.asarray(self.dropout, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"dropout must be numbers, not {self.dropout!r}") from None
        if given.ndim == 0:
            given = np.full(n_hidden, given)
        if given.shape != (n_hidden,):
            raise ValueError(
                f"dropout must be one number or {n_hidden}, one per hidden layer, not {given.size}"
            )
        for rate in given:
            check_number("dropout", rate, 0, 1, open_high=True)
        if not n_hidden and np.any(np.asarray(self.dropout)):
            raise ValueError("dropout needs a hidden layer; this network has none")
        rates = given if given.any() else given[:0]
        return Noise(seed, float(self.input_noise), np.ascontiguousarray(rates))


PARAMETERS = tuple(field.name for field in fields(Recipe))
"""What a step can be told: the names of a recipe's fields."""


def chosen(kind: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that are fields of a dataclass, so that none is listed twice."""
    return {field.name: arguments[field.name] for field in fields(kind)}


def make_recipe(parameters: dict[str, Any]) -> Recipe:
    """Check the names of keyword arguments, and make a recipe of them."""
    for name in parameters:
        if name not in PARAMETERS:
            raise TypeError(str(unknown("parameter", name, PARAMETERS, PARAMETERS)))
    return Recipe(**parameters)
