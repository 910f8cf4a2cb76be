"""First weights from rows: every unit's sum begins with deviation 1 and a bias among the data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.core.seam import SparseRows
from cmlp.model import passes
from cmlp.model.state import State

MOST_ROWS = 20_000
"""Rows that the statistics are taken of, at most."""

EPSILON = 1e-8
"""Added to a deviation; one below it is that of a unit that is the same on all rows."""

BIAS_ROWS = 5
"""Rows that a bias is a weighted mean of."""


def initialise_from(
    state: State, X: Array | SparseRows, rng: np.random.Generator | None = None
) -> None:
    """Draw the first weights of all layers, the last one's too, by the rows of a training.

    Layer by layer, weights are normal, each unit's divided by the deviation of its sum over the
    rows; its bias is minus a mean of its sums over five random rows, with weights from a flat
    Dirichlet distribution ("he+5", Holzmüller et al. 2024, appendix A.1). Biases of normalised
    layers are 0. Scales and alphas are left as they are.

    Parameters
    ----------
    X : (n, n_in) array or SparseRows
        Checked rows, of which 20,000 are drawn if there are more.
    rng : Generator, optional
        By default the network's.

    Raises
    ------
    ValueError
        If there is no row.
    """
    rng = state.rng if rng is None else rng
    if len(X) == 0:
        raise ValueError("the first weights need rows of X, of which there are none")
    if len(X) > MOST_ROWS:
        X = X[np.sort(rng.choice(len(X), MOST_ROWS, replace=False))]
    last = len(state.weights) - 1
    for number, (W, b) in enumerate(zip(state.weights, state.biases, strict=True)):
        before = _inputs(state, X, number)
        drawn = rng.standard_normal(W.shape) / np.sqrt(len(W))
        z = before @ drawn
        deviation = z.std(axis=0)
        # The sum of a unit that is the same on all rows varies by rounding only.
        constant = deviation <= EPSILON * (1 + np.abs(z).max(axis=0))
        deviation = np.where(constant, 1.0, deviation + EPSILON)
        W[...] = drawn / deviation
        normalised = state.normalization is not None and number < last
        b[...] = 0 if normalised else -_mean_of_some(z / deviation, rng)


def _inputs(state: State, X: Array | SparseRows, number: int) -> NDArray[np.float64]:
    """Return what a layer's weights are multiplied by, (n, n_in) in float64."""
    if number:
        return passes.predict_layer(state, X, number).astype(np.float64)
    rows = X.dense(state.dtype) if isinstance(X, SparseRows) else X
    return np.asarray(rows, np.float64) * state.input_scale


def _mean_of_some(z: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a mean of each column over a few random rows, with random weights."""
    n, n_out = z.shape
    chosen = rng.integers(0, n, (BIAS_ROWS, n_out))
    shares = rng.dirichlet(np.ones(BIAS_ROWS), n_out).T
    mean: NDArray[np.float64] = (shares * np.take_along_axis(z, chosen, axis=0)).sum(axis=0)
    return mean
