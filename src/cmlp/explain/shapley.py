"""Shapley values: exact over all coalitions of few features, else from random orders.

A feature that is in a coalition has its value in the row, the others have theirs in a row of the
background; the worth of a coalition is the mean answer over the background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.core.seam import SparseRows
from cmlp.explain.pairs import Explained, Run

MOST_EXACT = 10
"""Features up to which all coalitions are computed: 1,024 of them."""

BLOCK = 1 << 20
"""Numbers of the rows that are put together at a time."""

Numbers = NDArray[np.float64]


class Game:
    """Answers about rows whose features come from a row or from the background.

    Parameters
    ----------
    members : sequence of Explained
        Networks whose answers are averaged, with the same rows.
    """

    def __init__(self, members: Sequence[Explained]) -> None:
        self.members = members
        first = members[0]
        self.n_players, self.n_answers = first.n_features, first.answers.n
        self.width = max(member.net.sizes[0] for member in members)

    def rows(self, part: slice) -> list[Array]:
        """Return some rows to explain, for each member."""
        return [_dense(member, member.X, part) for member in self.members]

    def background(self) -> list[Array]:
        """Return the background, for each member."""
        return [_dense(member, member.background, slice(None)) for member in self.members]

    def answers(
        self, inside: NDArray[np.bool_], ones: Sequence[Array], others: Sequence[Array]
    ) -> Numbers:
        """Return the mean answer of the members, (..., n_answers).

        Parameters
        ----------
        inside : ndarray of bool, (..., n_players)
            Which features are in the coalition.
        ones, others : sequence of ndarray, (..., columns)
            Rows of each member; the shapes of all three are broadcast.
        """
        total: Numbers | float = 0.0
        for member, one, other in zip(self.members, ones, others, strict=True):
            mixed = np.where(inside[..., member.groups], one, other)
            found = member.answers.of(member.net, mixed.reshape(-1, mixed.shape[-1]))
            total = total + found.reshape(*mixed.shape[:-1], -1)
        return np.asarray(total / len(self.members))


def _dense(member: Explained, X: Array | SparseRows, part: slice) -> Array:
    rows = X[part]
    return rows.dense(member.net.dtype) if isinstance(rows, SparseRows) else rows


# All coalitions -----------------------------------------------------------------------------------


def exact(game: Game, weights: Numbers, n: int, run: Run) -> Numbers:
    """Return Shapley values over all coalitions, (n, features, answers)."""
    p = game.n_players
    values = np.zeros((n, p, game.n_answers))
    others = game.background()
    coalitions = np.arange(1 << p)
    inside = (coalitions[:, None] >> np.arange(p) & 1).astype(bool)
    sizes = inside.sum(axis=1)
    shares = np.array([factorial(s) * factorial(p - s - 1) / factorial(p) for s in range(p)] + [0])

    def task(part: slice) -> Callable[[], None]:
        def compute() -> None:
            ones = [rows[:, None] for rows in game.rows(part)]
            worth = np.stack(
                [np.einsum("nbk,b->nk", game.answers(each, ones, others), weights)
                 for each in inside]
            )  # fmt: skip
            for player in range(p):
                without = np.flatnonzero(~inside[:, player])
                gains = worth[without | 1 << player] - worth[without]
                values[part, player] = np.einsum("snk,s->nk", gains, shares[sizes[without]])

        return compute

    size = max(1, BLOCK // (game.width * len(weights)))
    run([task(slice(at, min(at + size, n))) for at in range(0, n, size)])
    return values


# Random orders ------------------------------------------------------------------------------------


def sampled(
    game: Game, weights: Numbers, n: int, n_permutations: int, seed: int, run: Run
) -> tuple[Numbers, Numbers]:
    """Return estimates from pairs of opposite orders, and their standard errors.

    Every row of the background has equally many pairs, at least one, so that the sum of a row's
    estimates is the difference of answers. Orders are the same for all rows.

    Returns
    -------
    values, errors : ndarray, (n, features, answers)
        With one pair per row of the background the errors count the differences between these
        rows, too, and are too large rather than too small.
    """
    p, n_others = game.n_players, len(weights)
    rounds = -(-n_permutations // n_others)
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(p), (n_others * rounds, 1)), axis=1)
    orders = orders.reshape(n_others, rounds, p)
    values, errors = (np.zeros((n, p, game.n_answers)) for _ in range(2))
    background = game.background()

    def task(part: slice) -> Callable[[], None]:
        def compute() -> None:
            ones = game.rows(part)
            total = _Mean(weights, rounds)
            for number, of_one in enumerate(orders):
                others = [rows[number] for rows in background]
                total.add(weights[number], [_gains(game, each, ones, others) for each in of_one])
            values[part], errors[part] = total.mean, total.error()

        return compute

    size = max(1, BLOCK // (game.width * 2 * p))
    run([task(slice(at, min(at + size, n))) for at in range(0, n, size)])
    return values, errors


def _gains(game: Game, order: NDArray[np.int64], ones: list[Array], others: list[Array]) -> Numbers:
    """Return what each feature adds, in the mean of an order and its opposite, (n, p, answers)."""
    p = len(order)
    inside = np.zeros((2 * p, p), bool)  # the empty coalition, then one feature more each time
    for step in range(p):
        inside[step + 1 :, order[step]] = True
    inside[p + 1 :] = ~inside[p - 1 : 0 : -1]  # and the last ones first, but for both ends
    worth = game.answers(inside[:, None], ones, others)
    there, back = worth[: p + 1], np.concatenate([worth[:1], worth[p + 1 :], worth[p : p + 1]])
    gains = np.empty((p, *worth.shape[1:]))
    gains[order] = (np.diff(there, axis=0) + np.diff(back, axis=0)[::-1]) / 2
    return gains.transpose(1, 0, 2)


class _Mean:
    """A weighted mean of rows of the background, and its standard error."""

    def __init__(self, weights: Numbers, rounds: int) -> None:
        self.weights, self.rounds = weights, rounds
        self.mean: Numbers | float = 0.0
        self.squares: Numbers | float = 0.0
        self.parts: Numbers | float = 0.0

    def add(self, weight: float, found: list[Numbers]) -> None:
        """Add the estimates with one row of the background."""
        mean = np.mean(found, axis=0)
        self.mean = self.mean + weight * mean
        if self.rounds > 1:
            variance = np.var(found, axis=0, ddof=1) / self.rounds
            self.squares = self.squares + weight**2 * variance
        else:
            self.squares = self.squares + weight**2 * mean**2
            self.parts = self.parts + weight**2 * mean

    def error(self) -> Numbers:
        """Return the standard error; NaN for a single estimate."""
        if self.rounds > 1:
            return np.sqrt(self.squares)
        n, square = len(self.weights), np.square(self.weights).sum()
        spread = self.squares - 2 * self.mean * self.parts + square * np.square(self.mean)
        factor = n / (n - 1) if n > 1 else np.nan
        return np.asarray(np.sqrt(np.maximum(spread, 0) * factor))
