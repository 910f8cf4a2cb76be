"""Attributions from multipliers: rows against a background, some pairs of them at a time.

The sums of the first layer are a bias and parts P(x)[u, c], what column c of X adds to unit u. With
the multipliers m of a row x and a row b of the background, column c has

    sum over b of w_b sum over u of m_u (P(x)[u, c] - P(b)[u, c])

which is what is computed: P(x) times the multipliers' mean, less one product of the multipliers
with all w_b P(b). Parts are counted from the background's mean, so that no digits are lost where
columns are far from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.core.reference import embed as tables
from cmlp.core.seam import SparseRows
from cmlp.explain.multipliers import gauss_legendre, integrated, rescale
from cmlp.explain.unrolled import Answers, Numbers, Passed, Unrolled
from cmlp.model.state import State

BLOCK = 1 << 18
"""Numbers of the widest array of a block of pairs: a few of them stay in a cache."""

CHUNK = 1 << 21
"""Numbers of the rows that a thread takes at a time."""

OTHERS = 32
"""Rows of the background in a block."""

Run = Callable[[Iterable[Callable[[], None]]], None]
"""Runs tasks, one after the other or in threads."""


@dataclass(frozen=True)
class Explained:
    """One network, and rows as it takes them.

    Attributes
    ----------
    X, background : ndarray or SparseRows
        Checked rows.
    groups : ndarray of int, (columns of X,)
        The feature that each column belongs to, in ascending order.
    n_features : int
    """

    net: State
    answers: Answers
    X: Array | SparseRows
    background: Array | SparseRows
    groups: NDArray[np.int64]
    n_features: int


def attribute(
    about: Explained, weights: NDArray[np.float64], n_steps: int | None, run: Run
) -> NDArray[np.float64]:
    """Return attributions, (rows, features, answers).

    Parameters
    ----------
    weights : ndarray, (n_background,)
        Of the background's rows; their sum is 1.
    n_steps : int or None
        Nodes of integrated gradients; None for the rescale rule.
    """
    pairs = _Pairs(about, weights, n_steps)
    n = len(about.X)
    values = np.zeros((n, about.n_features, about.answers.n))
    size = pairs.rows_of_a_chunk()
    run([pairs.task(slice(at, min(at + size, n)), values) for at in range(0, n, size)])
    return values


class _Pairs:
    """What all rows share: the network, and the background that has passed it."""

    def __init__(self, about: Explained, weights: NDArray[np.float64], n_steps: int | None) -> None:
        self.about, self.weights = about, weights
        self.unrolled = unrolled = Unrolled.of(about.net, about.answers)
        dtype = about.net.dtype
        self.nodes = None if n_steps is None else gauss_legendre(n_steps, dtype)
        inputs = unrolled.run(about.background).inputs
        self.centre = weights @ inputs.astype(np.float64)
        self.others = unrolled.run(about.background, self.centre)
        self.W = unrolled.layers[0].W[: len(unrolled.column_of)]
        self.starts, self.features = _runs(about.groups[unrolled.column_of])
        self.table_means = {
            column: weights @ _rows(table, self.others.codes[column]).astype(np.float64)
            for column, table in unrolled.tables.items()
        }

    def rows_of_a_chunk(self) -> int:
        """Return how many rows are computed at a time."""
        units = sum(layer.W.shape[1] for layer in self.unrolled.layers)
        return int(max(1, min(8192, CHUNK // (4 * units + self.about.net.sizes[0]))))

    def task(self, part: slice, values: NDArray[np.float64]) -> Callable[[], None]:
        """Return what computes some rows, and writes them to `values`."""
        return lambda: self._chunk(part, values)

    @np.errstate(all="ignore")
    def _chunk(self, part: slice, values: NDArray[np.float64]) -> None:
        ones = self.unrolled.run(self.about.X[part], self.centre)
        n_others = len(self.weights)
        widest = max(layer.W.shape[1] for layer in self.unrolled.layers)
        step = max(1, min(OTHERS, n_others, BLOCK // (widest * self.about.answers.n)))
        rows = max(1, BLOCK // (widest * self.about.answers.n * step))
        for start in range(0, n_others, step):
            block = slice(start, start + step)
            others = [each.each(lambda z: z[block]) for each in self.others.layers]  # noqa: B023
            added = self._background_parts(block)
            for at in range(0, len(ones.inputs), rows):
                here = slice(at, at + rows)
                found = self._block(ones, here, others, added, self.weights[block])
                values[part][here] += found

    def _block(
        self,
        ones: Passed,
        here: slice,
        others: list[Numbers],
        added: Array,
        weights: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return what a block of pairs adds, (rows, features, answers)."""
        rows = [each.each(lambda z: z[here, None]) for each in ones.layers]
        if self.nodes is None:
            m = rescale(self.unrolled, rows, others)
        else:
            m = integrated(self.unrolled, rows, others, self.nodes)
        n_answers, n, n_others, units = m.shape
        m = np.ascontiguousarray(m)
        mean = np.matmul(weights.astype(m.dtype), m)  # (answers, rows, units)
        found = -(m.reshape(n_answers * n, n_others * units) @ added)
        found = found.reshape(n_answers, n, -1).astype(np.float64)
        self._add(found, mean @ self.W.T * ones.inputs[here])
        for column, table in self.unrolled.tables.items():
            row = self._table_rows(column, table, ones.codes[column][here])
            found[:, :, self.about.groups[column]] += np.einsum("knu,nu->kn", mean, row)
        return found.transpose(1, 2, 0)

    def _background_parts(self, block: slice) -> Array:
        """Return w_b P(b), (others of the block * units, features)."""
        weights, inputs = self.weights[block], self.others.inputs[block]
        units = self.W.shape[1]
        parts = np.zeros((len(weights), units, self.about.n_features), inputs.dtype)
        self._add(parts, self.W.T * inputs[:, None, :])
        for column, table in self.unrolled.tables.items():
            row = self._table_rows(column, table, self.others.codes[column][block])
            parts[:, :, self.about.groups[column]] += row
        parts *= weights[:, None, None].astype(inputs.dtype)
        return parts.reshape(-1, self.about.n_features)

    def _table_rows(self, column: int, table: Array, codes: Array) -> Array:
        """Return what a table adds to the sums, less its mean over the background."""
        return np.asarray(_rows(table, codes) - self.table_means[column].astype(table.dtype))

    def _add(self, parts: NDArray[Any], values: Array) -> None:
        """Add numbers of the first layer's inputs to those of their features, the last axis."""
        if not len(self.features):
            return
        if len(self.features) < values.shape[-1]:
            values = np.add.reduceat(values, self.starts, axis=-1)
        if len(self.features) == parts.shape[-1]:
            parts += values
        else:
            parts[..., self.features] += values


def _rows(table: Array, codes: Array) -> Array:
    """Return what a table has for each code, (rows, units)."""
    embed: Callable[[Array, Array], Array] = tables.embed
    return embed(table, codes)


def _runs(groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where runs of equal numbers begin, and these numbers; they never fall."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return starts, groups[starts]
