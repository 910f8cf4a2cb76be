"""What ends a training on a cluster."""

from __future__ import annotations

from typing import Any


class TrainingFailed(RuntimeError):
    """Rounds failed one after another, or too few workers are left.

    The network holds the state of the last round that was seen whole.

    Attributes
    ----------
    story : list of str
        Who was lost, when, and what was seen.
    """

    def __init__(self, message: str, story: list[str] | None = None) -> None:
        super().__init__("\n  ".join([message, *(story or [])]))
        self.message, self.story = message, story or []

    def __reduce__(self) -> Any:
        return type(self), (self.message, self.story)


class ClusterLost(TrainingFailed):
    """The scheduler has gone, or does not answer."""
