"""Points in two dimensions: moons, circles, spirals, XOR, blobs.

Every recipe returns X, (n, 2) within about -1 to 1, and labels, (n,). Each function stands alone:
its source is copied into the scripts that repeat a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def moons(n: int, noise: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return two half circles that reach into each other."""
    y = rng.permutation(n) % 2
    angle = np.pi * rng.random(n)
    X = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    X = np.where(y[:, None] == 1, [1, 0.5] - X, X) * [0.6, 0.9] - [0.3, 0.225]
    return X + noise * rng.normal(size=X.shape), y


def circles(n: int, noise: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return a ring, and a disc in it."""
    y = rng.permutation(n) % 2
    angle = 2 * np.pi * rng.random(n)
    radius = np.where(y == 1, 0.4 * np.sqrt(rng.random(n)), 0.7 + 0.2 * rng.random(n))
    X = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return X + noise * rng.normal(size=X.shape), y


def spirals(n: int, noise: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return two arms of a spiral."""
    y = rng.permutation(n) % 2
    along = np.sqrt(rng.random(n))
    angle = 2.8 * np.pi * along + np.pi * y
    X = 0.95 * along[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return X + noise * rng.normal(size=X.shape), y


def xor(n: int, noise: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return four quarters, whose opposite ones belong together."""
    X = 0.1 + 0.8 * rng.random((n, 2))
    quarter = rng.permutation(n) % 4
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])[quarter]
    return signs * X + noise * rng.normal(size=X.shape), quarter % 2


def blobs(n: int, noise: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return three heaps."""
    y = rng.permutation(n) % 3
    angle = 2 * np.pi * y / 3 + np.pi / 2
    X = 0.55 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return X + (0.15 + noise) * rng.normal(size=X.shape), y


RECIPES: dict[str, Callable[[int, float, np.random.Generator], tuple[Any, Any]]] = {
    "moons": moons,
    "circles": circles,
    "spirals": spirals,
    "xor": xor,
    "blobs": blobs,
}
"""By their names on the page."""


HELD_OUT = 4
"""One of so many points is held out."""

HELD_OUT_SEED = 987654321
"""Another than those of points, whose labels would follow the same permutation."""


def held_out(n: int) -> Any:
    """Return which of n points are held out."""
    return np.random.default_rng(HELD_OUT_SEED).permutation(n) % HELD_OUT == HELD_OUT - 1


def in_box(X: Any) -> Any:
    """Shift and scale both columns by the same factor, so that they lie within -1 to 1."""
    low, high = X.min(axis=0), X.max(axis=0)
    half = max(float((high - low).max()) / 2, 1e-12)
    if (abs(X) <= 1).all() and half > 0.25:
        return X
    return (X - (low + high) / 2) / half * 0.95
