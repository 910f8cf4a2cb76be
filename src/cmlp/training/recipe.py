"""How a step is taken: solver, rates, penalties, noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.arrays import refuse_masked
from cmlp.core.checks import check_number
from cmlp.core.groups import LAYER_GROUPS, OTHER_GROUPS, default_factors, factor_row
from cmlp.core.layout import layers_of
from cmlp.core.seam import Noise, Objective, Optimizer
from cmlp.core.vocabulary import SOLVERS, Solver, lookup, unknown
from cmlp.model.architecture import Architecture

Factors = Mapping[str, float | Sequence[float]]
"""For some groups of parameters a number, or one per layer."""


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
    rate_factors: Factors | None = None
    decay_factors: Factors | None = None

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
        self.optimizer(architecture)

    def objective(self, architecture: Architecture) -> Objective:
        """Return what the core minimises."""
        return architecture.objective(label_smoothing=self.label_smoothing, l1=self.l1, l2=self.l2)

    def optimizer(self, architecture: Architecture) -> Optimizer:
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
            factors=self._factors(architecture),
        )

    def _factors(self, architecture: Architecture) -> NDArray[np.float64]:
        """Return the factors of rate and decay, (rows, 2); without rows if there are none."""
        if self.rate_factors is None and self.decay_factors is None:
            return np.empty((0, 2))
        plan = architecture.plan()
        factors, n_layers = default_factors(plan), len(layers_of(plan))
        given = [("rate_factors", self.rate_factors), ("decay_factors", self.decay_factors)]
        for column, (name, by_group) in enumerate(given):
            for group, values in checked_factors(name, by_group, n_layers).items():
                for layer, value in enumerate(values):
                    factors[factor_row(plan, group, layer), column] = value
        same = np.array_equal(factors, default_factors(plan))
        return factors[:0] if same else factors

    def noise(self, architecture: Architecture, seed: int) -> Noise:
        """Return what the core disturbs the rows with."""
        if isinstance(self.dropout, (int, float)) and self.dropout == 0:  # mostly, and quickly
            return Noise(seed, float(self.input_noise), np.empty(0))
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


def checked_factors(
    name: str, by_group: Factors | None, n_layers: int
) -> dict[str, NDArray[np.float64]]:
    """Return each group's factors, one per layer that may have such parameters.

    A group that the network has not is allowed: its factors act on nothing.
    """
    if by_group is None:
        return {}
    if not isinstance(by_group, Mapping):
        raise TypeError(f"{name} must be a dict, such as {{'biases': 0.1}}, not {by_group!r}")
    groups, found = (*LAYER_GROUPS, *OTHER_GROUPS), {}
    for group, given in by_group.items():
        if group not in groups:
            raise unknown(f"group in {name}:", group, groups, groups)
        n = 1 if group in OTHER_GROUPS else n_layers - (group in ("scales", "alphas"))
        expected = "one number" if group in OTHER_GROUPS else f"one number or {n}, one per layer"
        what = f"{name}[{group!r}]"
        refuse_masked(what, given)
        try:
            values = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{what} must be numbers, not {given!r}") from None
        if values.ndim == 0:
            values = np.full(n, values)
        if values.shape != (n,):
            raise ValueError(f"{what} must be {expected}, not {values.size}")
        for value in values:
            check_number(what, value, 0)
        found[group] = values
    return found


PARAMETERS = tuple(field.name for field in fields(Recipe))
"""What a step can be told: the names of a recipe's fields."""


def chosen(kind: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that are fields of a dataclass, so that none is listed twice."""
    return {name: arguments[name] for name in kind.__dataclass_fields__}


def make_recipe(parameters: dict[str, Any]) -> Recipe:
    """Check the names of keyword arguments, and make a recipe of them."""
    for name in parameters:
        if name not in PARAMETERS:
            raise TypeError(str(unknown("parameter", name, PARAMETERS, PARAMETERS)))
    return Recipe(**parameters)
