"""The work of the benchmarks: nets, the least time of their steps, data, first weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Layers = list[tuple[Array, Array]]
"""Weights (n_in, n_out) and biases (n_out,) of each layer."""


@dataclass(frozen=True)
class Work:
    """A net with ReLU hidden layers and a softmax, trained in batches on so many rows an epoch."""

    sizes: tuple[int, ...]
    batch: int
    rows: int

    def __str__(self) -> str:
        return f"{self.net}, batch {self.batch}"

    @property
    def net(self) -> str:
        """The net's name: 784-128-10."""
        return "-".join(map(str, self.sizes))

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.rows // self.batch)

    @property
    def row_flops(self) -> int:
        """Floating-point operations of training on a row: three products a layer.

        The first layer has two: the gradient with respect to the inputs is not computed.
        """
        products = [n_in * n_out for n_in, n_out in pairwise(self.sizes)]
        return 2 * (3 * sum(products) - products[0])

    @property
    def step_flops(self) -> int:
        """Floating-point operations of training on a batch."""
        return self.batch * self.row_flops

    def smaller(self, divisor: int) -> Work:
        """Return the work with fewer rows per epoch, still whole batches."""
        steps = max(1, self.steps // divisor)
        return replace(self, rows=steps * self.batch)


WORKS = (
    Work((784, 16, 16, 10), 32, 60_000),
    Work((784, 128, 10), 128, 59_904),
    Work((784, 512, 512, 10), 128, 12_288),
    Work((16, 64, 64, 2), 32, 60_000),
    Work((64, 256, 256, 256, 2), 256, 20_480),
    Work((4, 32, 32, 2), 1, 2_000),
    Work((1024, 2048, 2048, 10), 512, 2_048),
)
"""The nets of the training benchmarks; an epoch takes a second at most. Whole batches only."""


def choose(nets: list[str] | None, works: tuple[Work, ...] = WORKS) -> tuple[Work, ...]:
    """Return the works on the nets of these names, or all of them.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    known = [work.net for work in works]
    unknown = [net for net in nets or [] if net not in known]
    if unknown:
        raise ValueError(f"unknown net {unknown[0]!r}; known: {', '.join(known)}")
    return tuple(work for work in works if not nets or work.net in nets)


def data(sizes: tuple[int, ...], rows: int, seed: int = 0) -> tuple[Array, Array]:
    """Draw rows of standard normal float32, and the labels that a random teacher net predicts."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, sizes[0]), dtype=np.float32)
    first = rng.standard_normal((sizes[0], 16), dtype=np.float32) / np.float32(sizes[0] ** 0.5)
    second = rng.standard_normal((16, sizes[-1]), dtype=np.float32)
    return X, (np.tanh(X @ first) @ second).argmax(axis=1)


def first_weights(sizes: tuple[int, ...], seed: int = 1) -> Layers:
    """Draw He's weights for ReLU layers, float32; the biases are zero."""
    rng = np.random.default_rng(seed)
    return [
        (
            (rng.standard_normal((n_in, n_out)) * (2 / n_in) ** 0.5).astype(np.float32),
            np.zeros(n_out, np.float32),
        )
        for n_in, n_out in pairwise(sizes)
    ]


def outputs(layers: Layers, X: Array) -> Array:
    """Return the class probabilities of rows: the net as a NumPy expression."""
    for W, b in layers[:-1]:
        X = np.maximum(X @ W + b, 0)
    W, b = layers[-1]
    z = X @ W + b
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def mean_loss(layers: Layers, X: Array, y: Array) -> float:
    """Return the mean cross-entropy of rows."""
    p = outputs(layers, X)[np.arange(len(X)), y]
    return float(-np.log(np.maximum(p, 1e-30)).mean())
