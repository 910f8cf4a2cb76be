"""Parameters: one flat vector, its plan, and the views that people and files know by name."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core.arrays import refuse_masked
from cmlp.core.front import front_views
from cmlp.core.layout import (
    N_OUT,
    STRIDE,
    UNITS,
    Array,
    alpha_views,
    layer_views,
    layers_of,
    normalization_views,
)
from cmlp.core.public import set_module
from cmlp.core.vocabulary import NORMALIZATION_VECTORS


@set_module("cmlp")
class Propagation(NamedTuple):
    """Every layer's numbers for some rows: lists with one array per layer, (rows, n_out)."""

    z: list[Array]
    """Weighted sums, ``a_before W + b``."""
    a: list[Array]
    """Activations; the last is the output."""


@set_module("cmlp")
class Gradients(NamedTuple):
    """Derivatives of the loss."""

    weights: list[Array]
    """dC/dW of each layer, (n_in, n_out)."""
    biases: list[Array]
    """dC/db of each layer, (n_out,)."""
    inputs: Array
    """dC/dX, (rows, n_in)."""
    loss: float
    scales: list[Array]
    """dC/dgamma of each normalised layer, (n_out,); empty if there is none."""
    alphas: list[Array] = []  # noqa: RUF012
    """dC/dalpha of each layer whose activation is parametric, (n_out,); empty if there is none."""
    front: dict[str, Array] = {}  # noqa: RUF012
    """Derivatives by what is learned before the first layer, by the names of ``net.front``."""


class Views(list[Array]):
    """Arrays that share the parameters' memory: ``net.weights[0] = W`` writes W into it."""

    def __setitem__(self, index: Any, value: Any) -> None:
        refuse_masked("the value", value)
        with np.errstate(under="ignore"):  # too large a number is worth NumPy's warning
            self[index][...] = value


class NamedViews(dict[str, Array]):
    """Arrays that share the parameters' memory: ``net.front["factors"] = s`` writes s into it."""

    def __setitem__(self, name: str, value: Any) -> None:
        refuse_masked("the value", value)
        with np.errstate(under="ignore"):
            self[name][...] = value


class Parameters(NamedTuple):
    """A flat vector with its plan: parameters, their gradient, or one of the optimizer's moments.

    All that this returns are views of `flat`.
    """

    plan: NDArray[np.int64]
    flat: Array

    @property
    def weights(self) -> Views:
        """W of each layer, (n_in, n_out)."""
        return Views(W for W, _ in layer_views(self.plan, self.flat))

    @property
    def biases(self) -> Views:
        """b of each layer, (n_out,)."""
        return Views(b for _, b in layer_views(self.plan, self.flat))

    @property
    def scales(self) -> Views:
        """gamma of each normalised layer, (n_out,)."""
        return Views(gamma for gamma, *_ in normalization_views(self.plan, self.flat))

    @property
    def alphas(self) -> Views:
        """alpha of each layer whose activation is parametric, (n_out,)."""
        return Views(alpha_views(self.plan, self.flat))

    @property
    def running(self) -> list[tuple[Array, Array]]:
        """Running mean and variance of each layer normalised by 'batch'."""
        parts = normalization_views(self.plan, self.flat)
        return [(part[1], part[2]) for part in parts if len(part) == 3]

    @property
    def front(self) -> NamedViews:
        """What is learned before the first layer, by name; see :attr:`cmlp.Network.front`."""
        return NamedViews(front_views(self.plan, self.flat))

    def parts(self, prefix: str = "") -> dict[str, Array]:
        """Return everything but the padding, by the names in a file."""
        kinds: dict[str, Any] = {"weight": self.weights, "bias": self.biases}
        normalization = zip(*normalization_views(self.plan, self.flat), strict=True)
        kinds |= zip(NORMALIZATION_VECTORS["batch"], normalization, strict=False)
        kinds["alpha"] = self.alphas
        layers = {
            f"{prefix}layers.{number}.{kind}": part
            for kind, parts in kinds.items()
            for number, part in enumerate(parts)
        }
        return layers | {f"{prefix}front.{name}": part for name, part in self.front.items()}


def new_record(plan: NDArray[np.int64], n: int, dtype: np.dtype[Any]) -> Array:
    """Return room for one number per row and unit: sums, activations or deltas."""
    last = layers_of(plan)[-1]
    return np.zeros((n, int(last[UNITS] + last[STRIDE])), dtype)


def cut_record(plan: NDArray[np.int64], record: Array) -> list[Array]:
    """Cut a record into layers, (rows, n_out) each."""
    return [record[:, row[UNITS] : row[UNITS] + row[N_OUT]] for row in layers_of(plan).tolist()]
