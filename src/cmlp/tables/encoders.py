"""One column to numbers: scaled, flagged and placed among knots; codes, one-hot and statistics.

Each encoder has the same contract: ``outputs`` describes its columns of the matrix, ``read``
converts a column, and ``fill`` writes some rows of it to those columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cmlp.core.layout import Array
from cmlp.tables.columns import (
    Codes,
    ColumnError,
    Form,
    as_durations,
    as_levels,
    as_moments,
    as_numbers,
)
from cmlp.tables.dates import PARTS, parts_of
from cmlp.tables.levels import LevelType, with_aliases
from cmlp.tables.scales import Float64s, Scale, knots_of, place_among, scale_of


class Output(NamedTuple):
    """What an encoder tells of a column of the matrix."""

    suffix: str
    use: str
    n_levels: int = 0


class Encoder(Protocol):
    """What all encoders of a column have."""

    @property
    def outputs(self) -> list[Output]: ...

    def read(self, name: str, form: Form) -> Array: ...

    def fill(self, values: Array, out: Array) -> None: ...


@dataclass
class NoEncoder:
    """A column that is left out: constant, empty, ignored, or nearly unique text."""

    outputs: list[Output] = field(default_factory=list)

    def read(self, name: str, form: Form) -> Array:
        """Return nothing of a column."""
        return np.zeros(0)

    def fill(self, values: Array, out: Array) -> None:
        """Write nothing."""


class Options(NamedTuple):
    """How columns are encoded: the parameters of :class:`TableEncoder` that matter to one."""

    numbers: str | None = "robust"
    n_knots: int | None = None
    max_one_hot: int = 8
    max_categories: int | None = None
    min_rows: int = 1
    date_parts: str | None = "numbers"


# Numbers -----------------------------------------------------------------------------------------


@dataclass
class NumberEncoder:
    """A number: scaled, a flag where it is missing, and its place among knots."""

    scale: Scale | None
    """None: without a column of its own."""
    flag: bool = False
    knots: Float64s | None = None
    median: float = 0.0
    """A gap has its place among the knots, unless a flag tells of it: then 0."""
    markers: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Array, how: Options, markers: tuple[str, ...] = ()) -> NumberEncoder:
        """Fit to the numbers of a column, of which NaN is missing."""
        missing = np.isnan(values)
        flag = bool(missing.any())
        present = (values[~missing] if flag else values).astype(np.float64)
        if not len(present) or (present == present[0]).all():
            return cls(None, flag and len(present) > 0, markers=markers)
        scale = None if how.numbers is None else scale_of(present, how.numbers)
        knots = None if how.n_knots is None else knots_of(present, how.n_knots)
        if knots is not None and len(knots) <= 2 and scale is not None:
            knots = None  # the place of two values tells what the number does
        median = 0.0 if knots is None else float(np.median(present))
        return cls(scale, flag, knots, median, markers)

    @property
    def outputs(self) -> list[Output]:
        """Describe the columns."""
        found = [] if self.scale is None else [Output("", "number")]
        if self.knots is not None:
            found.append(Output("position", "position", len(self.knots)))
        return [*found, Output("missing", "flag")] if self.flag else found

    @property
    def place_of_gap(self) -> float:
        """The number whose place a gap has: the lowest, which adds nothing, if it has a flag."""
        return float(self.knots[0]) if self.flag and self.knots is not None else self.median

    @property
    def keeps_zeros(self) -> bool:
        """Whether it scales without an offset, and does nothing else."""
        return len(self.outputs) == 1 and self.scale is not None and self.scale.center == 0

    def read(self, name: str, form: Form) -> Array:
        """Return the numbers of a column."""
        return as_numbers(name, form, self.markers)

    def fill(self, values: Array, out: Array) -> None:
        """Write the outputs of some rows."""
        block = values.astype(np.float64)
        missing = np.isnan(block)
        if self.flag:
            out[:, -1] = missing
        if self.knots is not None:
            there = np.where(missing, self.place_of_gap, block)
            out[:, int(self.scale is not None)] = place_among(there, self.knots)
        if self.scale is not None:
            out[:, 0] = self.scale(block)


@dataclass
class DurationEncoder(NumberEncoder):
    """A duration, or a time of the day: its seconds as a number."""

    def read(self, name: str, form: Form) -> Array:
        """Return the seconds of a column."""
        return as_durations(name, form)


# Dates --------------------------------------------------------------------------------------------


@dataclass
class DateEncoder:
    """A date: seconds since 1970 as a number, and those parts of it that vary."""

    seconds: NumberEncoder
    zone: str | None
    parts: dict[str, NumberEncoder]
    cycles: bool
    """Whether a part is the sine and the cosine of its angle, instead of a number."""
    numeric: bool = False
    """Whether the column has seconds since 1970, and not dates."""

    @classmethod
    def of(
        cls, seconds: Float64s, zone: str | None, how: Options, numeric: bool = False
    ) -> DateEncoder:
        """Fit to the seconds since 1970 of a column, of which NaN is missing."""
        cycles = how.date_parts == "cycles"
        parts = {}
        if how.date_parts is not None:
            for part, values in parts_of(seconds, zone).items():
                found = NumberEncoder.of(values, how)
                found.flag = False  # that of the seconds is enough
                if found.outputs:
                    parts[part] = found
        return cls(NumberEncoder.of(seconds, how), zone, parts, cycles, numeric)

    @property
    def outputs(self) -> list[Output]:
        """Describe the columns."""
        found = list(self.seconds.outputs)
        for part, encoder in self.parts.items():
            if self.cycles:
                found += [Output(f"{part} sin", "number"), Output(f"{part} cos", "number")]
            else:
                found += [
                    Output(f"{part} {each.suffix}".strip(), each.use, each.n_levels)
                    for each in encoder.outputs
                ]
        return found

    def read(self, name: str, form: Form) -> Array:
        """Return the seconds of a column of dates of the same sort, with or without a zone."""
        seconds, zone = as_moments(name, form, self.numeric)
        if (zone is None) != (self.zone is None) and not np.isnan(seconds).all():
            have, had = (
                ("has no", f"was in {self.zone!r}") if zone is None else ("has a", "had none")
            )
            raise ColumnError(
                f"column {name!r} {have} time zone, but {had} in fit; localise or convert it first"
            )
        return seconds

    def fill(self, values: Array, out: Array) -> None:
        """Write the outputs of some rows."""
        at = len(self.seconds.outputs)
        self.seconds.fill(values, out[:, :at])
        if not self.parts:
            return
        found = parts_of(values, self.zone)
        for part, encoder in self.parts.items():
            if self.cycles:
                angle = found[part] * (2 * np.pi / PARTS[part])
                out[:, at] = np.nan_to_num(np.sin(angle))
                out[:, at + 1] = np.nan_to_num(np.cos(angle))
                at += 2
            else:
                width = len(encoder.outputs)
                encoder.fill(found[part], out[:, at : at + width])
                at += width


# Categories ---------------------------------------------------------------------------------------


@dataclass
class CategoryEncoder:
    """A category: one-hot columns, or a code and perhaps statistics of its levels."""

    levels: list[str]
    """Texts of the levels, in the order of their codes."""
    counts: NDArray[np.int64]
    """(levels + 1 + 1,) rows of missing values, of each level, and of all infrequent ones."""
    level_type: LevelType = "text"
    infrequent: list[str] = field(default_factory=list)
    """Levels that share the last code, if there are any."""
    one_hot: bool = False
    statistics: Float64s | None = None
    """(codes, columns): what the level tells of the target, and how often it occurs; scaled."""

    @classmethod
    def of(
        cls, levels: list[str], counts: Array, missing: int, kind: LevelType, how: Options
    ) -> CategoryEncoder:
        """Fit to the levels of a column, their numbers of rows, and those without a level."""
        enough = counts >= how.min_rows
        if not enough.all():  # too few rows to learn from: as if the level had not been seen
            missing += int(counts[~enough].sum())
            levels = [level for level, keeps in zip(levels, enough, strict=True) if keeps]
            counts = counts[enough]
        rare: list[str] = []
        n_rare = 0
        if how.max_categories is not None and len(levels) > how.max_categories:
            order = np.argsort(-counts, kind="stable")
            kept = np.sort(order[: how.max_categories - 1])
            few = np.sort(order[how.max_categories - 1 :])
            rare, n_rare = [levels[i] for i in few.tolist()], int(counts[few].sum())
            levels, counts = [levels[i] for i in kept.tolist()], counts[kept]
        all_counts = np.array([missing, *counts.tolist(), n_rare], np.int64)
        one_hot = len(levels) + bool(rare) <= how.max_one_hot
        return cls(levels, all_counts, kind, rare, one_hot)

    @property
    def n_levels(self) -> int:
        """Number of levels, all infrequent ones counted as one."""
        return len(self.levels) + bool(self.infrequent)

    @property
    def outputs(self) -> list[Output]:
        """Describe the columns."""
        names = [*self.levels, "infrequent"][: self.n_levels]
        if self.one_hot:
            if len(names) == 2:
                return [Output(f"{names[0]} or {names[1]}", "one_hot")]
            return [Output(name, "one_hot") for name in names]
        found = [Output("", "code", self.n_levels + 1)]
        if self.statistics is not None:
            n = self.statistics.shape[1]
            names = [*(f"target {i}" for i in range(n - 1)), "count"]
            found += [Output(name, "statistic") for name in names]
        return found

    @cached_property
    def places(self) -> dict[str, int]:
        """The code of each level's text, and of other names of it."""
        found = {level: code for code, level in enumerate(self.levels, 1)}
        found |= dict.fromkeys(self.infrequent, len(self.levels) + 1)
        return with_aliases(found, truth=self.level_type == "bool")

    @cached_property
    def table(self) -> Float64s:
        """(codes, outputs): the outputs of each code; 0 is a missing or unseen level."""
        n = self.n_levels
        codes = np.arange(n + 1, dtype=np.float64)
        if not self.one_hot:
            table = codes[:, None]
            return table if self.statistics is None else np.hstack([table, self.statistics])
        if n == 2:
            return np.array([[0.0], [1.0], [-1.0]])
        return np.eye(n + 1)[:, 1:]

    def read(self, name: str, form: Form) -> Array:
        """Return the codes of a column."""
        return self.codes_of(*as_levels(name, form))

    def codes_of(self, codes: Codes, keys: list[str | None]) -> Array:
        """Return this encoder's codes of rows whose levels have other codes."""
        places = self.places
        found = [0 if key is None else places.get(key, 0) for key in keys]
        return np.array([*found, 0], np.int32)[codes]

    def fill(self, values: Array, out: Array) -> None:
        """Write the outputs of some rows."""
        out[:] = self.table[values]
