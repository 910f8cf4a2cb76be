"""The weights to go back to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cmlp.network import Network


class Snapshot:
    """Weights and optimizer state to go back to."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.params = net.params.copy()
        self.solver, self.moments, self.steps = net.solver, net.moments.copy(), net.steps
        self.averaged, self.shown_average = net.averaged, net.shown_average

    def take(self) -> None:
        """Remember the present state instead, without a new allocation."""
        np.copyto(self.params, self.net.params)
        np.copyto(self.moments, self.net.moments)
        self.steps, self.averaged = self.net.steps, self.net.averaged
        self.shown_average = self.net.shown_average

    def put_back(self) -> None:
        """Restore what was remembered."""
        np.copyto(self.net.params, self.params)
        self.net.moments = self.moments.copy()
        self.net.solver, self.net.steps = self.solver, self.steps
        self.net.averaged, self.net.shown_average = self.averaged, self.shown_average
