"""What happens to X's columns before the first layer: rows of the plan after those of the layers.

Each of these rows is a part: some columns of X next to each other, and what becomes of them.

=========  ==========================================  ===========================================
part       inputs of the first layer                   arrays
=========  ==========================================  ===========================================
PLAIN      the numbers themselves
PERIODIC   V cos(2 pi w x + b) + d, then x itself      of each column w, b, (frequencies,), V,
                                                       (width, frequencies), and d, (width,)
LEVELS     row x of a table; between two rows          E, (rows, width)
           (1 - f) E[c] + f E[c + 1]
SUMMED     none: the same, added to the layer's sums   E, (rows, units of the first layer)
FACTORS    every input times a factor                  s, (inputs,)
=========  ==========================================  ===========================================

Their arrays lie after all others of the network, rows padded to 64 bytes: FACTORS, LEVELS, SUMMED,
PERIODIC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cmlp.core.layout import (
    ALIGNMENT,
    FRONT_AT,
    FRONT_END,
    FRONT_SUMMED,
    N_IN,
    Array,
    layers_of,
    params_size,
)

(KIND, FIRST, COUNT, TO, ROWS, WIDTH, STRIDE, AT, END, CUMULATIVE) = (
    *range(7),
    FRONT_AT,
    FRONT_END,
    FRONT_END + 1,
)
"""Columns of a part's row: its kind; first column of X, and how many; its first input (-1: none);
rows of a table or frequencies; numbers of a row of a table, of V, or factors; the same with its
padding (of a periodic part: frequencies with their padding); offsets of its arrays, begin and end;
1 for a summed table that is cumulative, else 0."""

PLAIN, PERIODIC, LEVELS, SUMMED, FACTORS = -1, -2, -3, FRONT_SUMMED, -5
"""Kinds. They are negative: a layer has its fan-in in this place."""


@dataclass(frozen=True)
class Part:
    """Some columns of X next to each other, and what becomes of them.

    A solver moves the steps from row to row of a `cumulative` table, in place of its rows.
    """

    kind: int
    first: int
    count: int
    rows: int = 0
    width: int = 0
    cumulative: bool = False

    @property
    def n_inputs(self) -> int:
        """Inputs of the first layer that this part makes."""
        each = {PLAIN: 1, PERIODIC: self.width + 1, LEVELS: self.width}
        return self.count * each.get(self.kind, 0)

    @property
    def n_params(self) -> int:
        """Numbers of its arrays, without the padding."""
        if self.kind == PERIODIC:
            return self.count * (self.rows * (2 + self.width) + self.width)
        return self.rows * self.width


def n_inputs(parts: Iterable[Part]) -> int:
    """Return the fan-in of the first layer; a first layer of sums alone has one input, always 0."""
    return max(1, sum(part.n_inputs for part in parts))


def with_front(
    plan: NDArray[np.int64], parts: Sequence[Part], dtype: DTypeLike
) -> NDArray[np.int64]:
    """Return a plan of layers with the rows of these parts after them.

    Parameters
    ----------
    parts : sequence of Part
        They cover X's columns in order, and there may be one of kind FACTORS at the end.
    """
    lanes = ALIGNMENT // np.dtype(dtype).itemsize
    rows = np.zeros((len(parts), plan.shape[1]), np.int64)
    offset, to = params_size(plan), 0
    for row, part in zip(rows, parts, strict=True):
        row[: TO + 1] = part.kind, part.first, part.count, to if part.n_inputs else -1
        row[ROWS], row[WIDTH], row[CUMULATIVE] = part.rows, part.width, part.cumulative
        padded = part.rows if part.kind == PERIODIC else part.width
        row[STRIDE] = -(-padded // lanes) * lanes
        to += part.n_inputs
    for kind in (FACTORS, LEVELS, SUMMED, PERIODIC, PLAIN):
        for number in np.flatnonzero(rows[:, KIND] == kind):
            size = _size(rows[number].tolist(), lanes)
            rows[number, AT], rows[number, END] = offset, offset + size
            offset += size
    return np.concatenate([plan, rows])


def _size(row: list[int], lanes: int) -> int:
    """Return how many numbers a part's arrays are."""
    if row[KIND] in (LEVELS, SUMMED):
        return row[ROWS] * row[STRIDE]
    if row[KIND] == PERIODIC:
        d = -(-row[WIDTH] // lanes) * lanes
        return row[COUNT] * ((2 + row[WIDTH]) * row[STRIDE] + d)
    return row[STRIDE]


def front_of(plan: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of the front, a view; of most networks there are none."""
    return plan[len(layers_of(plan)) :]


def columns_of(plan: NDArray[np.int64]) -> int:
    """Return how many columns X has."""
    front = front_of(plan)
    return int(front[:, COUNT].sum()) if len(front) else int(plan[0, N_IN])


# Views into a flat vector ------------------------------------------------------------------------


def table_of(row: Sequence[int], flat: Array) -> Array:
    """Cut the table of a part of levels, (rows, width)."""
    return flat[row[AT] : row[END]].reshape(row[ROWS], row[STRIDE])[:, : row[WIDTH]]


class Waves(NamedTuple):
    """The arrays of some periodic columns, as views: e = V cos(2 pi w x + b) + d."""

    w: Array
    """(columns, frequencies)."""
    b: Array
    """(columns, frequencies)."""
    V: Array
    """(columns, width, frequencies)."""
    d: Array
    """(columns, width)."""


def waves_of(row: Sequence[int], flat: Array, n_columns: int | None = None) -> Waves:
    """Cut the arrays of a periodic part."""
    n, stride, width, at = row[ROWS], row[STRIDE], row[WIDTH], row[AT]
    n_columns = row[COUNT] if n_columns is None else n_columns
    block = (row[END] - row[AT]) // row[COUNT]
    blocks = flat[at : at + n_columns * block].reshape(n_columns, block)
    V = blocks[:, 2 * stride : (2 + width) * stride].reshape(n_columns, width, stride)
    d = blocks[:, (2 + width) * stride :][:, :width]
    return Waves(blocks[:, :n], blocks[:, stride : stride + n], V[:, :, :n], d)


def factors_of(plan: NDArray[np.int64], flat: Array) -> Array | None:
    """Cut the factors of the inputs, (inputs,), if there are any."""
    for row in front_of(plan).tolist():
        if row[KIND] == FACTORS:
            return flat[row[AT] : row[AT] + row[WIDTH]]
    return None


def cumulative_tables(plan: NDArray[np.int64], flat: Array) -> list[Array]:
    """Return the tables whose steps from row to row a solver moves, (rows, width) each."""
    rows = front_of(plan)
    return [table_of(row, flat) for row in rows[rows[:, CUMULATIVE] > 0].tolist()]


def tables_of(plan: NDArray[np.int64], flat: Array, kind: int) -> Iterator[tuple[int, Array]]:
    """Yield the column and the table, (rows, width), of the parts of levels of a kind."""
    for row in front_of(plan).tolist():
        if row[KIND] == kind:
            yield row[FIRST], table_of(row, flat)


def front_views(plan: NDArray[np.int64], flat: Array) -> dict[str, Array]:
    """Cut all arrays of the front, by name.

    The periodic columns share four arrays, with a row for each of them in the order of X.
    """
    views: dict[str, Array] = {}
    factors = factors_of(plan, flat)
    if factors is not None:
        views["factors"] = factors
    for name, kind in (("levels", LEVELS), ("summed", SUMMED)):
        views |= {f"{name}.{column}": E for column, E in tables_of(plan, flat, kind)}
    periodic = [row for row in front_of(plan).tolist() if row[KIND] == PERIODIC]
    if periodic:  # one part's arrays follow those of the other
        waves = waves_of(periodic[0], flat, sum(row[COUNT] for row in periodic))
        views |= zip(WAVES, waves, strict=True)
    return views


WAVES = ("periodic.frequencies", "periodic.phases", "periodic.weights", "periodic.biases")
"""Names of w, b, V and d of the periodic columns."""
