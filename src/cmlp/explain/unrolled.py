"""A network layer by layer, as attributions need it: sums, activations and slopes of many rows.

Products are NumPy's, activations those of the core in use. The first layer gets its columns apart:
its sums are a bias and what each column of X adds to them, whatever the column becomes (itself,
periodic features, rows of a table). So everything above is the same for all kinds of inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmlp.core import dispatch, front, layout
from cmlp.core.layout import Array, aligned
from cmlp.core.reference.front import expand
from cmlp.core.seam import SparseRows
from cmlp.core.vocabulary import ACTIVATIONS, lookup
from cmlp.model import passes
from cmlp.model.parameters import Parameters
from cmlp.model.state import State

SOFTMAX = lookup("activation", ACTIVATIONS, "softmax").code

SMOOTH = {
    lookup("activation", ACTIVATIONS, name).code
    for name in ("logistic", "tanh", "gelu", "silu", "mish", "softplus", "exp")
}
"""Activations without a kink, whose slopes tell how they rise between two points that are close."""


@dataclass(frozen=True)
class Answers:
    """What is explained: ``outputs @ matrix + offset``.

    Attributes
    ----------
    matrix : ndarray, (n_out, n_answers)
    offset : ndarray, (n_answers,)
    activated : bool
        Whether the outputs are those after the last activation, or the sums before it.
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    activated: bool

    @property
    def n(self) -> int:
        """Number of answers."""
        return int(self.matrix.shape[1])

    def of(self, net: State, X: Array | SparseRows) -> NDArray[np.float64]:
        """Return the answers about rows, (n, n_answers), by the core."""
        found = (
            passes.predict(net, X) if self.activated else passes.predict_layer(net, X, None, True)
        )
        return np.asarray(found.astype(np.float64) @ self.matrix + self.offset)


class Layer(NamedTuple):
    """One layer; `gamma` and `epsilon` are of a layer norm, `alpha` of a parametric activation.

    `parameter` is that of the activation itself, such as the slope of leaky_relu.
    """

    W: Array
    b: Array
    code: int
    gamma: Array | None
    alpha: Array | None
    epsilon: float
    parameter: float


@dataclass(frozen=True)
class Numbers:
    """A layer's numbers for some rows, (..., units).

    Attributes
    ----------
    z : ndarray
        Weighted sums, before a normalisation.
    y : ndarray
        What the activation is applied to.
    a, slope : ndarray
        Activations and da/dy.
    """

    z: Array
    y: Array
    a: Array
    slope: Array

    def each(self, function: Callable[[Array], Array]) -> Numbers:
        """Return the same with a function applied to each array."""
        return Numbers(*(function(part) for part in (self.z, self.y, self.a, self.slope)))


@dataclass(frozen=True)
class Passed:
    """Rows that have passed the network.

    Attributes
    ----------
    inputs : ndarray, (n, n_in)
        Inputs of the first layer, less their mean over the background.
    codes : dict
        Columns of X that have a table whose rows are summed, by their number, (n,).
    layers : list of Numbers
    """

    inputs: Array
    codes: dict[int, Array]
    layers: list[Numbers]


@dataclass(frozen=True)
class Unrolled:
    """A network for prediction, layer by layer.

    Attributes
    ----------
    column_of : ndarray of int, (n_in,)
        The column of X that each input of the first layer belongs to, in ascending order.
    tables : dict
        Tables whose rows are added to the first layer's sums, by their column.
    """

    net: State
    parameters: Parameters
    layers: list[Layer]
    answers: Answers
    column_of: NDArray[np.int64]
    tables: dict[int, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, net: State, answers: Answers) -> Unrolled:
        """Take a network apart; statistics of 'batch' are folded into its weights."""
        parameters = passes.prediction_parameters(net)
        plan, params = parameters
        rows = layout.layers_of(plan)
        alphas = iter(layout.alpha_views(plan, params))
        gammas = iter(layout.normalization_views(plan, params))
        layers = [
            Layer(
                np.ascontiguousarray(W),
                b,
                int(row[layout.ACTIVATION]),
                next(gammas)[0] if row[layout.NORMALIZATION] else None,
                next(alphas) if row[layout.ALPHA] else None,
                layout.epsilon_of(row),
                layout.parameter_of(row),
            )
            for row, (W, b) in zip(rows, layout.layer_views(plan, params), strict=True)
        ]
        n_columns = net.sizes[0]
        if net.inputs is None:
            return cls(net, parameters, layers, answers, np.arange(n_columns))
        places = net.inputs.places(n_columns)
        widths = [place.stop - place.start for place in places]
        tables = dict(front.tables_of(plan, params, front.SUMMED))
        return cls(
            net, parameters, layers, answers, np.repeat(np.arange(n_columns), widths), tables
        )

    def run(self, X: Array | SparseRows, centre: Array | None = None) -> Passed:
        """Propagate checked rows; without `centre` the inputs stay as they are."""
        net, first = self.net, self.layers[0]
        dense = X.dense(net.dtype) if isinstance(X, SparseRows) else np.asarray(X, net.dtype)
        x = dense * net.dtype.type(net.input_scale)
        sums: Array | None = None
        inputs = x
        if net.inputs is not None:
            expanded = expand(*self.parameters, x)
            inputs, sums = expanded.inputs, expanded.sums
            if not len(self.column_of):  # all columns are summed: one input, always 0
                inputs = inputs[:, :0]
        z = inputs @ first.W[: inputs.shape[1]]
        if sums is not None:
            z = z + sums
        if centre is not None:
            inputs = (inputs - centre).astype(net.dtype)
        return Passed(inputs, {column: x[:, column] for column in self.tables}, self.forward(z))

    def forward(self, z: Array) -> list[Numbers]:
        """Propagate the first layer's sums without its bias, (n, units)."""
        passed: list[Numbers] = []
        for number, layer in enumerate(self.layers):
            if number:
                z = passed[-1].a @ layer.W
            if layer.gamma is None:
                z = z + layer.b
                y = z
            else:
                y = layer.gamma * standardised(z, layer.epsilon) + layer.b
            a, slope = y, y  # softmax: its own rule
            if layer.code != SOFTMAX and (number < len(self.layers) - 1 or self.answers.activated):
                a, slope = activated(layer, y)
            passed.append(Numbers(z, y, a, slope))
        return passed


def standardised(z: Array, epsilon: float) -> Array:
    """Return rows less their means, divided by their deviations."""
    centred, inverse = centred_rows(z, epsilon)
    return centred * inverse


def centred_rows(z: Array, epsilon: float) -> tuple[Array, Array]:
    """Return rows less their means, and 1 / deviation, (..., 1)."""
    centred = z - z.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return centred, 1 / np.sqrt(variance + z.dtype.type(epsilon))


def activated(layer: Layer, y: Array) -> tuple[Array, Array]:
    """Return a layer's activations, and their slopes, by the core."""
    lanes = layout.ALIGNMENT // y.itemsize
    values = aligned((2, -(-max(y.size, 1) // lanes) * lanes), y.dtype)
    values[0, : y.size] = y.ravel()
    dispatch.core.activate(layer.code, values, layer.parameter)
    a, slope = (part[: y.size].reshape(y.shape) for part in values)
    if layer.alpha is not None:
        a, slope = y + layer.alpha * (a - y), 1 + layer.alpha * (slope - 1)
    return a, slope
