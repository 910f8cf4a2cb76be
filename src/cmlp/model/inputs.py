"""Inputs: what happens to the columns of X before the first layer, as a user describes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cmlp.core import front
from cmlp.core.checks import check_integer
from cmlp.core.front import Part
from cmlp.core.public import set_module

_TEXT = {
    front.PLAIN: "as it is",
    front.PERIODIC: "periodic",
    front.LEVELS: "of levels",
    front.SUMMED: "of summed levels",
    front.FACTORS: "a factor for each input",
}


MOST_ROWS = 1 << 24
"""Rows of a table: as many as float32 can count."""


@set_module("cmlp")
@dataclass(frozen=True)
class Inputs:
    """What happens to the columns of X before the first layer; see :class:`cmlp.Network`.

    A column that is not named is an input as it is. The inputs of the first layer are in the order
    of the columns.

    Parameters
    ----------
    periodic : sequence of int
        Columns of numbers x that become ``V cos(2 pi w x + b) + d`` and, after it, x itself
        (Gorishniy et al. 2022; Holzmueller et al. 2024), with arrays of each column's own.
        `width` + 1 inputs each.
    levels : mapping of int to (int, int)
        Columns with a table of (rows, width) numbers, which is learned: x is the number of a row,
        from 0, and that row becomes `width` inputs. Between two rows x is a place between them,
        and the inputs are ``(1 - f) E[c] + f E[c + 1]``. x below 0, or NaN, is row 0; above the
        last row it is that one.
    summed : mapping of int to int
        Columns with such a table of this many rows, as wide as the first layer, to whose weighted
        sums its row is added: what weights of one-hot columns would do (whole x), or a function
        of a number that is linear between knots (fractional x), without writing them out.
    scaled : bool
        Multiply every input (not what is summed) by a factor that is learned and starts at 1.
    frequencies : int
        Of each periodic column.
    width : int
        Numbers that a periodic column becomes, without x.
    cumulative : sequence of int
        Columns of `summed` whose tables are learned by the steps from row to row: a solver moves a
        step, and with it all rows from there on, and weight decay shrinks steps. So numbers learn
        from their neighbours; row 0 stays as it is, 0 at first. Places among knots should be
        cumulative, levels without an order should not.

    Raises
    ------
    ValueError, TypeError
        If a column is named twice, or a number is out of range.

    Examples
    --------
    Two numbers, the first periodic; a category of 5 levels; and places among 9 knots:

    >>> import cmlp
    >>> inputs = cmlp.Inputs(periodic=[0], levels={2: (5, 8)}, summed={3: 9}, scaled=True)
    >>> net = cmlp.Network([4, 16, 1], inputs=inputs)
    >>> net.weights[0].shape, net.front["summed.3"].shape
    ((13, 16), (9, 16))
    """

    periodic: tuple[int, ...] = ()
    levels: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    summed: Mapping[int, int] = field(default_factory=dict)
    scaled: bool = False
    frequencies: int = 16
    width: int = 3
    cumulative: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        periodic = tuple(sorted(_column(column) for column in _listed("periodic", self.periodic)))
        levels = {_column(column): _table(shape) for column, shape in _items("levels", self.levels)}
        summed = {
            _column(column): _count("rows of summed", rows)
            for column, rows in _items("summed", self.summed)
        }
        cumulative = {_column(column) for column in _listed("cumulative", self.cumulative)}
        if other := cumulative - set(summed):
            raise ValueError(f"cumulative names column {min(other)}, which is not in summed")
        if not isinstance(self.scaled, bool):
            raise TypeError(f"scaled must be True or False, not {self.scaled!r}")
        uses = Counter([*periodic, *levels, *summed])
        column, n_uses = max(uses.items(), key=lambda item: item[1], default=(0, 0))
        if n_uses > 1:
            raise ValueError(f"inputs names column {column} {n_uses} times: a column has one use")
        for name, value in (
            ("periodic", periodic),
            ("levels", dict(sorted(levels.items()))),
            ("summed", dict(sorted(summed.items()))),
            ("frequencies", _count("frequencies", self.frequencies)),
            ("width", _count("width", self.width)),
            ("cumulative", tuple(sorted(cumulative))),
        ):
            object.__setattr__(self, name, value)

    @property
    def is_plain(self) -> bool:
        """Whether every column is an input as it is."""
        return not (self.periodic or self.levels or self.summed or self.scaled)

    @property
    def columns_of_levels(self) -> list[int]:
        """Columns that hold numbers of rows, in which another scale or noise has no meaning."""
        return sorted([*self.levels, *self.summed])

    def parts(self, n_columns: int, n_units: int) -> list[Part]:
        """Return the parts of the front of a network.

        Parameters
        ----------
        n_columns : int
            Columns of X.
        n_units : int
            Units of the first layer.

        Raises
        ------
        ValueError
            If a column that is named is not there, or there is nothing to scale.
        """
        named = [*self.periodic, *self.levels, *self.summed]
        if named and max(named) >= n_columns:
            raise ValueError(
                f"inputs names column {max(named)}, but X has {n_columns}: the last one is "
                f"{n_columns - 1}"
            )
        parts: list[Part] = []
        for column in sorted(named):
            done = parts[-1].first + parts[-1].count if parts else 0
            if done < column:
                parts.append(Part(front.PLAIN, done, column - done))
            if column in self.levels:
                parts.append(Part(front.LEVELS, column, 1, *self.levels[column]))
            elif column in self.summed:
                steps = column in self.cumulative
                parts.append(Part(front.SUMMED, column, 1, self.summed[column], n_units, steps))
            elif parts and parts[-1].kind == front.PERIODIC:
                parts[-1] = replace(parts[-1], count=parts[-1].count + 1)
            else:
                parts.append(Part(front.PERIODIC, column, 1, self.frequencies, self.width))
        done = parts[-1].first + parts[-1].count if parts else 0
        if done < n_columns:
            parts.append(Part(front.PLAIN, done, n_columns - done))
        n_inputs = sum(part.n_inputs for part in parts)
        if self.scaled and not n_inputs:
            raise ValueError("scaled=True needs an input to scale, but every column is summed")
        if self.scaled:
            parts.append(Part(front.FACTORS, n_columns, 0, 1, n_inputs))
        return parts

    def places(self, n_columns: int) -> list[slice]:
        """Return which inputs of the first layer each column of X becomes; none of a summed one."""
        slices, at, periodic = [], 0, set(self.periodic)
        for column in range(n_columns):
            n = 1
            if column in self.summed:
                n = 0
            elif column in self.levels:
                n = self.levels[column][1]
            elif column in periodic:
                n = self.width + 1
            slices.append(slice(at, at + n))
            at += n
        return slices

    def n_params(self, n_columns: int, n_units: int) -> int:
        """Return how many numbers are learned before the first layer, and in tables of it."""
        return sum(part.n_params for part in self.parts(n_columns, n_units))

    def shapes(self, n_columns: int, n_units: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array, by the names of :attr:`cmlp.Network.front`."""
        shapes: dict[str, tuple[int, ...]] = {}
        for part in self.parts(n_columns, n_units):
            if part.kind == front.FACTORS:
                shapes["factors"] = (part.width,)
            elif part.kind in (front.LEVELS, front.SUMMED):
                name = "levels" if part.kind == front.LEVELS else "summed"
                shapes[f"{name}.{part.first}"] = (part.rows, part.width)
        if self.periodic:
            n, k, j = len(self.periodic), self.frequencies, self.width
            shapes |= zip(front.WAVES, ((n, k), (n, k), (n, j, k), (n, j)), strict=True)
        return shapes

    # As text -------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers and lists, as a file holds it."""
        return {
            "periodic": list(self.periodic),
            "levels": [[column, *shape] for column, shape in self.levels.items()],
            "summed": [list(item) for item in self.summed.items()],
            "scaled": self.scaled,
            "frequencies": self.frequencies,
            "width": self.width,
            "cumulative": list(self.cumulative),
        }

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> Inputs:
        """Return what :meth:`to_dict` described; every entry is checked as a user's would be.

        Parameters
        ----------
        described : dict
            With the keys that :meth:`to_dict` writes.
        """
        return cls(
            tuple(described["periodic"]),
            {column: (rows, width) for column, rows, width in described["levels"]},
            {column: rows for column, rows in described["summed"]},
            described["scaled"],
            described["frequencies"],
            described["width"],
            tuple(described["cumulative"]),
        )

    def lines(self, n_columns: int, n_units: int) -> list[str]:
        """Return a line about each kind of column, for a summary."""
        parts = self.parts(n_columns, n_units)
        lines = []
        for kind, text in _TEXT.items():
            some = [part for part in parts if part.kind == kind]
            if not some:
                continue
            n, numbers = sum(part.count for part in some), sum(part.n_params for part in some)
            inputs = sum(part.n_inputs for part in some)
            if kind == front.FACTORS:
                lines.append(f"{text}: {numbers:,} numbers")
                continue
            of = f"{n} column{'s' * (n != 1)} {text}"
            becomes = "no input, but sums" if kind == front.SUMMED else f"{inputs} inputs"
            lines.append(f"{of}: {becomes}" + (f", {numbers:,} numbers" if numbers else ""))
        return lines

    def __str__(self) -> str:
        said = [
            f"{name}={value!r}"
            for name, value in (
                ("periodic", list(self.periodic)),
                ("levels", self.levels),
                ("summed", self.summed),
            )
            if value
        ]
        if self.cumulative:
            said.append(f"cumulative={list(self.cumulative)}")
        if self.periodic and (self.frequencies, self.width) != (16, 3):
            said.append(f"frequencies={self.frequencies}, width={self.width}")
        return f"Inputs({', '.join([*said, *(['scaled=True'] if self.scaled else [])])})"


def _column(column: Any) -> int:
    return check_integer("every column of inputs", column, 0)


def _count(name: str, value: Any) -> int:
    count = check_integer(name, value, 1)
    if count > MOST_ROWS:
        raise ValueError(f"{name} must be at most {MOST_ROWS:,}; it is {value:,}")
    return count


def _listed(name: str, columns: Any) -> Iterable[Any]:
    if isinstance(columns, (str, bytes)) or not isinstance(columns, Iterable):
        raise TypeError(f"{name} must be a list of numbers of columns, not {columns!r}")
    return columns


def _items(name: str, tables: Any) -> Iterable[tuple[Any, Any]]:
    if not isinstance(tables, Mapping):
        raise TypeError(f"{name} must be a dict by the numbers of columns, not {tables!r}")
    return tables.items()


def _table(shape: Any) -> tuple[int, int]:
    try:
        rows, width = shape
    except (TypeError, ValueError):
        raise TypeError(f"levels must be (rows, width) for each column, not {shape!r}") from None
    return (
        _count("rows of levels", rows),
        _count("width of levels", width),
    )
