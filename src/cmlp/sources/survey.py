"""What one reading of a source of tables learns, in bounded memory, also in parts side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.data.source import Source
from cmlp.data.summary import Labels, Moments
from cmlp.sources.plan import HeldRows
from cmlp.sources.tables import forms_of, joined_forms, pieces_of, some_rows
from cmlp.tables.columns import Form, Levels, Numbers
from cmlp.tables.forms import FormTable

GROUP, GROUP_ROWS = 64, 1 << 20
"""Blocks, and rows, that are read one after the other."""

MOST_LEVELS = 100_000
"""Levels of a column that are counted; of a column with more, those of the sample are known."""


@dataclass
class Learned:
    """What one reading has found, in bounded memory.

    Attributes
    ----------
    sample : FormTable
        Rows to train on, drawn at random; columns of levels may be longer: they have each level,
        on as many rows as it has, up to `min_rows`. A column of numbers has a gap if there is one.
    n_rows : int
        Rows to train on.
    labels, counts : ndarray or None
        The distinct targets, and on how many rows they are; None for several targets per row.
    low, high, mean, deviation : ndarray
        Of targets that are numbers, (n_targets,).
    """

    sample: FormTable
    n_rows: int
    labels: Array | None
    counts: NDArray[np.int64] | None
    moments: Moments


def learn(source: Source, who: str, held: HeldRows, most: int, min_rows: int, seed: int) -> Learned:
    """Read a source once, and return a sample of the rows to train on and what all of them hold.

    Parameters
    ----------
    most : int
        Rows of the sample; if there are no more than these, all are in it.
    """
    survey = Survey(source, who, held, most, min_rows, seed)
    return survey.learned(survey.of(source, blocks) for blocks in groups_of(source))


def groups_of(source: Source) -> Iterator[range | None]:
    """Yield blocks that are read together: so many, or so many rows; of a stream all."""
    if source.blocks is None:
        yield None
        return
    first = n = 0
    for block, rows in enumerate(source.blocks):
        n += rows
        if n >= GROUP_ROWS or block - first == GROUP - 1 or block == len(source.blocks) - 1:
            yield range(first, block + 1)
            first, n = block + 1, 0


class Survey:
    """One reading of a source, whose blocks may be read apart: the parts are put together again.

    Neither the sample nor anything else depends on where the parts were read.

    Parameters
    ----------
    most, min_rows : int
        Rows of the sample, and of each level, at most.
    """

    def __init__(
        self, source: Source, who: str, held: HeldRows, most: int, min_rows: int, seed: int
    ) -> None:
        self.who, self.held, self.most, self.min_rows = who, held, most, min_rows
        self.seed = seed
        self.limit = 2**64 - 1
        rows = (source.n_rows or 0) * (1 - held.fraction)
        if rows > 2 * most:  # 8 deviations more than `most` rows have a lower hash
            self.limit = int(2**64 * (most + 8 * most**0.5 + 64) / rows)

    def _begun(self) -> Seen:
        return Seen(_Sample(self.most, self.seed, self.limit), self.min_rows)

    def of(self, source: Source, blocks: range | None) -> Seen:
        """Return what some blocks hold."""
        seen = self._begun()
        for piece in pieces_of(source, blocks):
            mask = self.held.mask(piece.block, piece.start, piece.start + len(piece.y))
            kept = np.flatnonzero(~mask)
            names, forms = forms_of(piece.X, self.who)
            y = piece.y
            if len(kept) < len(y):
                forms, y = [some_rows(form, kept) for form in forms], y[kept]
            seen.see(names, forms, y, piece.block, piece.start + kept)
        return seen

    def learned(self, parts: Iterable[Seen]) -> Learned:
        """Return what all of them hold; they come in the order of :func:`groups_of`."""
        whole = self._begun()
        for part in parts:
            whole.merge(part)
        return whole.learned()


class Seen:
    """What some rows hold, in bounded memory."""

    def __init__(self, sample: _Sample, min_rows: int) -> None:
        self.sample, self.min_rows = sample, min_rows
        self.levels: dict[int, _Rare] = {}
        self.labels, self.moments = Labels(), Moments()
        self.names: list[str] | None = None
        self.n = 0

    def see(
        self, names: list[str] | None, forms: list[Form], y: Array, block: int, rows: Array
    ) -> None:
        """Add rows of a block."""
        self.names, self.n = names, self.n + len(y)
        self.labels.see(y)
        if y.dtype.kind in "fiub":
            self.moments.see(y.reshape(len(y), -1))
        self.sample.add(forms, block, rows)
        ids = np.column_stack([np.full(len(rows), block), rows])
        for place, form in enumerate(forms):
            self.levels.setdefault(place, _Rare(self.min_rows)).see(form, ids)

    def merge(self, other: Seen) -> None:
        """Add what was seen of later blocks."""
        if not other.n:
            return
        self.names, self.n = other.names, self.n + other.n
        self.labels.merge(other.labels)
        self.moments.merge(other.moments)
        self.sample.merge(other.sample)
        for place, rare in other.levels.items():
            self.levels.setdefault(place, _Rare(self.min_rows)).merge(rare)

    def learned(self) -> Learned:
        """Return what has been found."""
        forms = self.sample.forms()
        for place, rare in self.levels.items():
            forms[place] = rare.added(forms[place], self.sample.ids)
        table = FormTable(self.names, forms, len(self.sample.ids))
        return Learned(table, self.n, self.labels.labels, self.labels.counts, self.moments)


class _Sample:
    """The rows with the smallest hashes: a sample that is drawn at random, without replacement."""

    def __init__(self, most: int, seed: int, limit: int) -> None:
        self.most, self.hashes = most, HeldRows(seed, 0.0)
        self.limit = np.uint64(limit)
        self.parts: list[tuple[list[Form], NDArray[np.uint64], Array]] = []
        self.n = 0
        self.ids: Array = np.zeros((0, 2), np.int64)

    def add(self, forms: list[Form], block: int, rows: Array) -> None:
        """Add rows of a block."""
        keys = self.hashes.hashes(block, rows)
        taken = np.flatnonzero(keys <= self.limit)
        if len(taken) < len(rows):
            forms = [some_rows(form, taken) for form in forms]
        ids = np.column_stack([np.full(len(taken), block), rows[taken]])
        self.parts.append((forms, keys[taken], ids))
        self._grow(len(taken))

    def merge(self, other: _Sample) -> None:
        """Add the rows of another one."""
        self.parts += other.parts
        self._grow(other.n)

    def _grow(self, n: int) -> None:
        self.n += n
        if self.n > 2 * self.most:
            self._cut()

    def _cut(self) -> None:
        """Keep the rows with the smallest hashes, in their order."""
        forms = [joined_forms(column) for column in zip(*(p[0] for p in self.parts), strict=True)]
        keys = np.concatenate([part[1] for part in self.parts])
        ids = np.concatenate([part[2] for part in self.parts])
        if len(keys) > self.most:
            self.limit = np.partition(keys, self.most - 1)[self.most - 1]
            rows = np.flatnonzero(keys <= self.limit)
            forms = [_pruned(some_rows(form, rows)) for form in forms]
            keys, ids = keys[rows], ids[rows]
        self.parts, self.n = [(forms, keys, ids)], len(keys)

    def forms(self) -> list[Form]:
        """Return the columns of the sample."""
        self._cut()
        forms, _, self.ids = self.parts[0]
        return list(forms)


def _pruned(form: Form) -> Form:
    """Return levels without those that no row has."""
    if not isinstance(form, Levels):
        return form
    used, codes = np.unique(form.codes, return_inverse=True)
    shift = int(len(used) > 0 and used[0] < 0)
    values = [form.values[code] for code in used[shift:].tolist()]
    return form._replace(codes=codes - shift, values=values)


@dataclass
class _Rare:
    """The first rows of each level of a column, and whether it has a gap."""

    min_rows: int
    counts: dict[Any, int] = field(default_factory=dict)
    parts: list[tuple[Form, Array]] = field(default_factory=list)
    gap: bool = False
    gave_up: bool = False

    def see(self, form: Form, ids: Array) -> None:
        """Add rows, of which each has its block and number in `ids`."""
        if not isinstance(form, Levels):
            self.gap = self.gap or bool(form[0].dtype.kind == "f" and np.isnan(form[0]).any())
            return
        if self.gave_up:
            return
        present = np.bincount(form.codes[form.codes >= 0], minlength=len(form.values))
        taken = []
        for code in np.flatnonzero(present).tolist():
            value = form.values[code]
            before = self.counts.get(value, 0)
            if before < self.min_rows:
                taken.append(np.flatnonzero(form.codes == code)[: self.min_rows - before])
                self.counts[value] = before + int(present[code])
        if len(self.counts) > MOST_LEVELS:
            self.gave_up, self.parts = True, []
        elif taken:
            where = np.sort(np.concatenate(taken))
            self.parts.append((_pruned(some_rows(form, where)), ids[where]))

    def merge(self, other: _Rare) -> None:
        """Add what another one has seen of later rows."""
        self.gap = self.gap or other.gap
        if other.gave_up:
            self.gave_up, self.parts = True, []
        for form, ids in other.parts:
            self.see(form, ids)

    def added(self, form: Form, ids: Array) -> Form:
        """Return a column of the sample with these rows, but for those that it has already."""
        if self.gap and isinstance(form, Numbers) and not np.isnan(form.values).any():
            return Numbers(np.append(form.values.astype(np.float64), np.nan))
        known = set(map(tuple, ids.tolist())) if self.parts else set()
        parts = [form]
        for found, its_ids in self.parts:
            new = [row for row, key in enumerate(map(tuple, its_ids.tolist())) if key not in known]
            if new:
                parts.append(some_rows(found, np.array(new)))
        return joined_forms(parts)
