"""The last finite weights and optimizer state, which a diverged training returns to."""

from __future__ import annotations

import numpy as np

from cmlp.model.state import State


class Snapshot:
    """Weights and optimizer state of a network, to return to."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.params = state.params.copy()
        self.optimizer = state.optimizer_state.copy()

    def take(self) -> None:
        """Remember the present state instead, without a new allocation."""
        present = self.state.optimizer_state
        np.copyto(self.params, self.state.params)
        np.copyto(self.optimizer.moments, present.moments)
        self.optimizer.set_counts(present.to_dict())

    def put_back(self) -> None:
        """Restore what was remembered."""
        np.copyto(self.state.params, self.params)
        self.state.rebind_attributes(optimizer_state=self.optimizer.copy())
