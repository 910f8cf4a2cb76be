"""New outputs for new classes, in a network that continues to learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array, layers_of
from cmlp.core.vocabulary import SOLVERS, lookup
from cmlp.model.optimizer_state import digest
from cmlp.model.parameters import Parameters
from cmlp.model.state import State


def add_outputs(small: State, large: State, places: NDArray[np.intp]) -> None:
    """Copy weights and optimizer state into a network with more outputs.

    A new class has the mean of the old weighted sums, so no row is taken for it; softmax of the
    old ones is in proportion what it was. Its optimizer state is zero.

    Parameters
    ----------
    places : ndarray of int
        Which of the larger network's outputs the old classes have.
    """
    old, new = small.optimizer_state, large.optimizer_state
    copy = _Copy(small, large, places)
    copy(small.params, large.params, weights=True)
    if old.solver:
        rule = lookup("solver", SOLVERS, old.solver)
        new.moments_for(rule, len(old.moments) > rule.n_moments)
        for number, (before, after) in enumerate(zip(old.moments, new.moments, strict=True)):
            averaged = number == rule.n_moments  # the weights that a mean is of
            copy(before, after, weights=averaged)
    new.steps, new.average_steps = old.steps, old.average_steps
    shown = old.average_digest == digest(small.params)
    new.average_digest = digest(large.params) if shown else old.average_digest
    large.rng, large.history, large.target_name = small.rng, small.history, small.target_name


class _Copy:
    """Copies vectors laid out like the parameters: the last layer's columns get new places."""

    def __init__(self, small: State, large: State, places: Array) -> None:
        self.small, self.large, self.places = small.plan, large.plan, places

    def __call__(self, flat: Array, target: Array, *, weights: bool) -> None:
        last = f"layers.{len(layers_of(self.small)) - 1}."
        views = Parameters(self.large, target).parts()
        for name, part in Parameters(self.small, flat).parts().items():
            if not name.startswith(last):
                views[name][...] = part
                continue
            if part.shape[-1] == 1:  # a logistic output is softmax of minus and plus its half
                part = np.concatenate([-part / 2, part / 2], axis=-1) * weights
            views[name][...] = part.mean(axis=-1, keepdims=True) if weights else 0
            views[name][..., self.places] = part
