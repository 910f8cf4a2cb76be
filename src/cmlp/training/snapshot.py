"""The last finite weights and optimizer state, which a diverged training returns to."""

from __future__ import annotations

import numpy as np

from cmlp.core.layout import Array
from cmlp.core.scratch import Scratch
from cmlp.model.optimizer_state import OptimizerState
from cmlp.model.state import State


class Snapshot:
    """Weights and optimizer state of a network, to return to.

    The moments may be others of the same number later on, not of another.

    Parameters
    ----------
    array : (1 + n_moments, len(params)) array, optional
        Where to copy them; by default memory that is lent.
    """

    def __init__(self, state: State, array: Array | None = None) -> None:
        self.state = state
        self.scratch: Scratch | None = None
        if array is None:
            n_moments, n_params = state.optimizer_state.moments.shape
            self.scratch = Scratch((1 + n_moments, n_params), state.dtype)
            array = self.scratch.array
        self.params, self.moments = array[0], array[1:]
        self.take()

    def take(self) -> None:
        """Remember the present state instead, without a new allocation."""
        present = self.state.optimizer_state
        np.copyto(self.params, self.state.params)
        np.copyto(self.moments, present.moments)
        self.counts = present.to_dict()

    def put_back(self) -> None:
        """Restore what was remembered."""
        np.copyto(self.state.params, self.params)
        state = OptimizerState(len(self.params), self.state.dtype)
        state.moments = self.moments.copy()
        state.set_counts(self.counts)
        self.state.rebind_attributes(optimizer_state=state)

    def close(self) -> None:
        """Leave the memory to the next training; nothing can be restored any more."""
        if self.scratch is not None:
            self.scratch.close()
