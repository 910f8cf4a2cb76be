"""What an optimizer carries from step to step, and the mean of the weights that it may take."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from cmlp.core.checks import check_integer
from cmlp.core.layout import Array, aligned
from cmlp.core.vocabulary import SOLVERS, Solver, lookup


class OptimizerState:
    """The rule of the last steps, and its memory.

    Attributes
    ----------
    solver : str
        The rule; empty before the first step.
    moments : (n_moments, len(params)) array
        Where weights are averaged, there is one more row, the last: the mean, or the weights that
        training continues from, whichever is not in the parameters.
    steps : int
        Steps taken with these moments.
    average_steps : int
        Steps that are averaged; 0 without averaging.
    average_digest : int or None
        Of the mean, while it is in the parameters; None while it is among the moments.
    """

    def __init__(self, n_params: int, dtype: np.dtype[Any]) -> None:
        self.solver = ""
        self.moments = np.zeros((0, n_params), dtype)
        self.steps = self.average_steps = 0
        self.average_digest: int | None = None

    def moments_for(self, rule: Solver, averages: bool = False) -> Array:
        """Return the moments that a rule needs; those of another rule are dropped.

        If it `averages`, there is one more row, for a mean of the parameters.
        """
        fresh = rule.name != self.solver
        if fresh:
            self.solver, self.steps = rule.name, 0
        if fresh or len(self.moments) != rule.n_moments + averages:
            shape = (rule.n_moments + averages, self.moments.shape[1])
            moments = aligned(shape, self.moments.dtype)
            if not fresh:
                moments[: rule.n_moments] = self.moments[: rule.n_moments]
            self.moments, self.average_steps, self.average_digest = moments, 0, None
        return self.moments

    def copy(self) -> OptimizerState:
        """Return a copy that shares no memory."""
        other = OptimizerState(self.moments.shape[1], self.moments.dtype)
        other.moments = self.moments.copy()
        other.set_counts(self.to_dict())
        return other

    def set_counts(self, described: dict[str, Any]) -> None:
        """Set everything but the moments to what :meth:`to_dict` returned."""
        self.solver, self.steps = described["solver"], described["steps"]
        self.average_steps = described["averaged"]
        self.average_digest = described["shown_average"]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the moments, by the names in a file."""
        return {
            "solver": self.solver,
            "steps": self.steps,
            "averaged": self.average_steps,
            "shown_average": self.average_digest,
        }

    @classmethod
    def from_dict(
        cls, described: dict[str, Any], n_params: int, dtype: np.dtype[Any]
    ) -> OptimizerState:
        """Return a state with these counts, and room for its moments."""
        state = cls(n_params, dtype)
        if described["solver"]:
            rule = lookup("solver", SOLVERS, described["solver"])
            state.moments_for(rule, described["averaged"] > 0)
        state.set_counts(described)
        return state

    def check(self) -> None:
        """Check that training can continue from this; a program may have assigned parts of it."""
        n_moments = lookup("solver", SOLVERS, self.solver).n_moments if self.solver else 0
        shape = n_moments + (self.average_steps > 0), self.moments.shape[1]
        if self.moments.shape != shape:
            raise ValueError(
                f"moments must be {shape} for solver={self.solver!r} and "
                f"averaged={self.average_steps}; they are {self.moments.shape}"
            )
        averaged = check_integer("averaged", self.average_steps, 0)
        if not averaged <= check_integer("steps", self.steps, 0):
            raise ValueError(f"averaged={averaged} is more than the steps={self.steps}")

    # The mean of the weights ---------------------------------------------------------------------

    def _exchange(self, params: Array) -> None:
        """Put the mean in the place of the parameters, and them in the place of the mean."""
        kept = params.copy()
        params[:] = self.moments[-1]
        self.moments[-1] = kept

    def show_average(self, params: Array) -> None:
        """Put the mean into the parameters, if there is one that is not there yet."""
        if self.average_steps and self.average_digest is None:
            self._exchange(params)
            self.average_digest = digest(params)

    def resume_from_average(self, params: Array) -> None:
        """Restore the parameters that the mean is of, so that training continues from them.

        If the parameters are not the mean that was left in them, a program has written others:
        training continues from those, and a new mean begins.
        """
        if self.average_steps and self.average_digest is not None:
            if self.average_digest == digest(params):
                self._exchange(params)
            else:
                self.average_steps = 0
        if not self.average_steps:
            self.moments[-1] = 0
        self.average_digest = None


def digest(params: Array) -> int:
    """Return a checksum by which parameters are recognised again."""
    return zlib.crc32(params.data)
