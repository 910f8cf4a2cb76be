"""Layers that PyTorch does not have, as modules of it; PyTorch is imported when one is used.

They are found here by name when a model that has them is unpickled.
"""

from __future__ import annotations

import functools
from typing import Any

NAMES = ("Exp", "Subtract", "Parametric", "Unit", "MeanOfMembers")


@functools.cache
def modules() -> dict[str, Any]:
    """Return the classes by their names."""
    import torch

    Module: Any = torch.nn.Module

    class Exp(Module):  # type: ignore[misc]
        """``exp(z)``."""

        def forward(self, z: Any) -> Any:
            return torch.exp(z)

    class Subtract(Module):  # type: ignore[misc]
        """``x - mean``: what a scaler does first."""

        def __init__(self, mean: Any) -> None:
            super().__init__()
            self.register_buffer("mean", mean)

        def forward(self, x: Any) -> Any:
            return x - self.mean

    class Parametric(Module):  # type: ignore[misc]
        """``z + alpha (f(z) - z)``, with an alpha per unit."""

        def __init__(self, f: Any, alpha: Any) -> None:
            super().__init__()
            self.f = f
            self.alpha = torch.nn.Parameter(alpha)

        def forward(self, z: Any) -> Any:
            return z + self.alpha * (self.f(z) - z)

    class Unit(Module):  # type: ignore[misc]
        """``clip(spread y + centre, low, high)``: numbers in the unit of the targets."""

        def __init__(self, spread: Any, centre: Any, low: Any, high: Any) -> None:
            super().__init__()
            for name, value in dict(spread=spread, centre=centre, low=low, high=high).items():
                self.register_buffer(name, value)

        def forward(self, y: Any) -> Any:
            scaled = y * self.spread + self.centre
            return torch.minimum(torch.maximum(scaled, self.low), self.high)

    class MeanOfMembers(Module):  # type: ignore[misc]
        """The mean of the outputs of several networks."""

        def __init__(self, members: Any) -> None:
            super().__init__()
            self.members = torch.nn.ModuleList(members)

        def forward(self, x: Any) -> Any:
            return sum(member(x) for member in self.members) / len(self.members)

    kinds = (Exp, Subtract, Parametric, Unit, MeanOfMembers)
    for kind in kinds:
        kind.__module__, kind.__qualname__ = __name__, kind.__name__
    return {kind.__name__: kind for kind in kinds}


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return modules()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
