"""Model: what a Network or an estimator passes to a diagnosis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from cmlp.core.layout import Array
from cmlp.model.state import State
from cmlp.training.recipe import Recipe

AnyState = TypeVar("AnyState", bound=State)

ESTIMATOR_WORDS = {
    "learning_rate": "learning_rate_init",
    "epochs": "max_iter",
    "l2": "alpha",
    "patience": "early_stopping",
}
"""Parameters of ``Network.fit`` that estimators have under another name."""


class Train(Protocol):
    """Trains a copy for some epochs, and returns it."""

    def __call__(
        self, X: Array, y: Array, sample_weight: Array | None, *, epochs: int, max_time: float
    ) -> Model: ...


@dataclass(frozen=True)
class Model:
    """A Network, or an estimator with one network."""

    network: State | None
    """None for an estimator before its first fit."""
    fitted: bool
    """Whether its weights and its curve are examined; otherwise those of a trial."""
    classifies: bool
    unbounded: bool
    """Whether the outputs may be any number, as in a regression."""
    train: Train
    is_estimator: bool = False
    labels: Array | None = None
    """An estimator's labels in the order of its outputs."""
    names: Sequence[Any] = ()
    """Of the columns; empty if they have none."""
    balanced: bool = False
    """Whether the model weighs classes itself."""
    solver: str = ""
    """An estimator's; a network has another one in each training."""
    rate: float = Recipe().learning_rate
    """The learning rate that a trial begins with."""
    batch_size: int | None = 32
    planned: int = 10
    """Epochs of a training, before it: those of the estimator, or the default of ``fit``."""
    patience: float = math.inf
    """Epochs without an improvement after which training stops."""

    def word(self, name: str) -> str:
        """Return what this kind of model calls a parameter of ``Network.fit``."""
        return ESTIMATOR_WORDS.get(name, name) if self.is_estimator else name


def model_of_network(net: State, fit: Callable[..., object]) -> Model:
    """Describe a network.

    Parameters
    ----------
    fit : callable
        ``fit(net, X, y, sample_weight=..., epochs=..., max_time=...)`` trains a network.
    """

    def train(X: Array, y: Array, sample_weight: Array | None, **limits: Any) -> Model:
        trial = untrained(net)
        fit(trial, X, y, sample_weight=sample_weight, **limits)
        return model_of_network(trial, fit)

    return Model(
        network=net,
        fitted=bool(net.history.get("loss") or net.last_solver),
        classifies=net.architecture.classifies,
        unbounded=is_unbounded(net),
        train=train,
        names=net.feature_names,
    )


def is_unbounded(net: State) -> bool:
    """Whether the outputs may be any number, as in a regression."""
    return net.activations[-1] == "identity"


def untrained(net: AnyState) -> AnyState:
    """Return a copy that begins to train in the same way whatever was done before.

    Neither the optimizer's state nor the random generator is in every file.
    """
    copied = net.astype(net.dtype)
    copied.rng = np.random.default_rng(0)
    return copied
