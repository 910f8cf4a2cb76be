"""A table as people have it becomes one matrix of numbers for a network: :class:`TableEncoder`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cmlp.core.checks import check_dtype
from cmlp.core.errors import NotFittedError, sklearn_instance, warn
from cmlp.core.layout import Array
from cmlp.data.cells import show
from cmlp.data.frames import is_sparse, listed
from cmlp.tables import encoder_records
from cmlp.tables.choice import decided, options_of, wanted_kinds
from cmlp.tables.columns import (
    ColumnError,
    Numbers,
    as_durations,
    as_levels,
    as_moments,
    as_numbers,
    sorted_levels,
)
from cmlp.tables.containers import columns_of, is_plain, matched
from cmlp.tables.encoders import (
    CategoryEncoder,
    DateEncoder,
    DurationEncoder,
    Encoder,
    NoEncoder,
    NumberEncoder,
    Options,
)
from cmlp.tables.levels import typed
from cmlp.tables.readers import read_column
from cmlp.tables.row_encoder import RowEncoder
from cmlp.tables.sparse import check_sparse_table, fit_sparse, scale_sparse
from cmlp.tables.target_statistics import TargetStatistics

BLOCK = 8192
"""Rows that are encoded at a time."""


@dataclass(frozen=True)
class Column:
    """What an input column is, and what becomes of it."""

    name: str
    kind: str
    """One of :data:`cmlp.tables.columns.KINDS`."""
    use: str
    """What is done with it, in words."""
    n_levels: int = 0
    """Distinct values of a category."""
    n_missing: int = 0
    """Rows without a value, of those that the encoder was fitted to."""


class OutputColumn(NamedTuple):
    """A column of the encoded matrix."""

    source: str
    """Name of the input column; empty for the column that a table of constants has."""
    name: str
    """Name of this column: that of the input, and what it tells of it."""
    use: str
    """"number", "flag", "one_hot", "code", "position" or "statistic"."""
    n_levels: int = 0
    """Rows of the table that it indexes: for a code its values, 0 included; for a position the
    knots; else 0."""


class TableEncoder:
    """Encode tables of numbers, categories, dates and gaps as matrices of numbers.

    Every statistic is of the rows that :meth:`fit` gets. Columns are found by their names; their
    order, further columns, and another dtype of the same values change nothing.

    Parameters
    ----------
    categorical_features : "from_dtype", None, or sequence of str, int or bool
        Names, places or a mask of the categories. "from_dtype": those that hold text, truth values
        or other objects, and those whose dtype is one of categories. Otherwise those named are
        categories, and the others numbers if all their values are.
    numeric_features, ignored_features : sequence of str or int
        Columns to read as numbers, or not at all.
    date_features : sequence of str or int, or "auto"
        Columns to read as dates: ISO text, or seconds since 1970. "auto": text columns all of whose
        values are dates in ISO's form. By default they are categories.
    numbers : "robust", "standard" or None
        Scale of numbers: ``f((x - median) / (q75 - q25))``, with f(u) = u / sqrt(1 + (u/3)^2); mean
        0 and deviation 1; or no such columns.
    n_knots : int, optional
        Add the place of each number among so many quantiles of its column at the most.
    max_one_hot : int
        Categories of at most so many levels are one-hot columns, the others codes.
    max_categories : int, optional
        Largest number of levels of a column; the least frequent ones share the last of them.
    min_rows : int
        Levels on fewer rows are as missing ones.
    date_parts : "numbers", "cycles" or None
        How month, day, weekday and hour are encoded, those that vary: as numbers, as sine and
        cosine, or not at all.
    text : "drop", "category" or "error"
        What to do with text that is nearly unique per row.
    target_statistics : None, "classification" or "regression"
        Add to each column of codes what its levels tell of the target (per class, of at most 10;
        one column for two classes), and how often they occur. See :meth:`fit_transform`.
    prior : float
        Rows that the mean of all targets counts as, in the mean of a level.
    n_permutations, random_state : int
        Random orders whose statistics are averaged, and their seed.
    dtype : "float32" or "float64"
        Number type of the matrix.
    who : str
        Name of the estimator, for messages.

    Attributes
    ----------
    columns_ : list of Column
        What each input column is, and what becomes of it.
    outputs_ : list of OutputColumn
        What each column of the matrix is.
    n_features_in_ : int
        Number of input columns.
    feature_names_in_ : ndarray of object, (n_features_in_,)
        Names of the input columns, if all are text.

    Notes
    -----
    What a column is, where no parameter names it:

    - **number**: numbers of any dtype; objects that are numbers; text whose cells are numbers or
      usual signs of a gap ("?", "NA", empty), if they have fractions or gaps or more than 30 values
      (whole numbers without a gap are codes, and so are padded ones: "007"). Up to two other words
      on a tenth of the rows are gaps, too.
    - **category**: other text, and a dtype of categories, whose levels are compared as text: 1, 1.0
      and "1" are one. Empty text is missing; "?" and "NA" among words are levels.
    - **bool**: truth values; 1, "True" and "true" are True.
    - **date**: dates and times, as seconds since 1970 and the parts that vary: month, day, weekday,
      and hour with its fraction, of the clock of the column's zone.
    - **duration**: durations and times of the day, in seconds.
    - **text**: text with more than 50 values on more than half of the rows is left out, with a
      warning. A column with one value is **constant**, one without values **empty**: both have no
      output, and need not be in what is transformed.

    A gap is 0 after scaling, which is the median, with a flag of its own if the fit has seen gaps
    in the column; among categories it is code 0, or 0 in all one-hot columns. Infinity is an error.
    If no column is left, the matrix has one of zeros.
    """

    columns_: list[Column]
    outputs_: list[OutputColumn]
    n_features_in_: int
    feature_names_in_: Array

    def __init__(
        self,
        *,
        categorical_features: Any = "from_dtype",
        numeric_features: Iterable[str | int] = (),
        date_features: Iterable[str | int] | str = (),
        ignored_features: Iterable[str | int] = (),
        numbers: str | None = "robust",
        n_knots: int | None = None,
        max_one_hot: int = 8,
        max_categories: int | None = None,
        min_rows: int = 1,
        date_parts: str | None = "numbers",
        text: str = "drop",
        target_statistics: str | None = None,
        prior: float = 1.0,
        n_permutations: int = 4,
        random_state: int = 0,
        dtype: Any = "float32",
        who: str = "TableEncoder",
    ) -> None:
        self.categorical_features = categorical_features
        self.numeric_features = numeric_features
        self.date_features = date_features
        self.ignored_features = ignored_features
        self.numbers = numbers
        self.n_knots = n_knots
        self.max_one_hot = max_one_hot
        self.max_categories = max_categories
        self.min_rows = min_rows
        self.date_parts = date_parts
        self.text = text
        self.target_statistics = target_statistics
        self.prior = prior
        self.n_permutations = n_permutations
        self.random_state = random_state
        self.dtype = dtype
        self.who = who

    # Fitting --------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> TableEncoder:
        """Decide what each column is, and compute the statistics of these rows.

        Parameters
        ----------
        X : table, (n, n_features_in_)
            A data frame of pandas or polars, an Arrow table, a structured array, a list of dicts, a
            dict of columns, an array, a list of rows, or a sparse matrix.
        y : array-like, (n,) or (n, n_targets), optional
            Targets, where `target_statistics` needs them.
        sample_weight : array-like, (n,), optional
            Weights of the rows, for the statistics of the target alone.

        Raises
        ------
        ValueError, TypeError
            For a table without rows, columns that share a name, values that no column can hold,
            infinity, and parameters out of range. The message names the column and the row.
        """
        self._fit(X, y, sample_weight)
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> TargetStatistics | None:
        """Fit, and return the targets for the statistics of levels, if there are any."""
        how = options_of(self)
        if is_sparse(X):
            self._fit_sparse(X, how)
            return None
        columns = columns_of(X, self.who)
        wanted = wanted_kinds(self, columns)
        statistics = None
        if self.target_statistics is not None:
            statistics = TargetStatistics.of(self, y, sample_weight, columns.n_rows)
        found, encoders, unique = [], [], []
        for place, raw in enumerate(columns.raw):
            name = columns.label(place)
            column, encoder = self._fit_column(name, raw, wanted.get(place), how, statistics)
            found.append(column)
            encoders.append(encoder)
            if column.kind == "text":
                unique.append(f"{show(name)} ({column.use})")
        if unique:
            warn(
                f"text that is nearly unique per row is left out: {listed(unique, 10)}. To use "
                "such a column, name it in categorical_features, or derive numbers or categories "
                "from it; to leave it out without this warning, drop it"
            )
        self._set(columns.names, found, encoders)
        return statistics

    def _fit_sparse(self, X: Any, how: Options) -> None:
        """Fit to a sparse matrix, all columns of which are numbers."""
        X = check_sparse_table(X, self.who)
        columns = [Column(f"x{i}", "number", "scaled, not centred") for i in range(X.shape[1])]
        self._set(None, columns, list(fit_sparse(X, how)))

    def _fit_column(
        self,
        name: str,
        raw: Any,
        wanted: str | None,
        how: Options,
        statistics: TargetStatistics | None,
    ) -> tuple[Column, Encoder]:
        """Decide what a column is, and fit its encoder."""
        if wanted == "ignored":
            return Column(name, "ignored", "left out, as requested"), NoEncoder()
        form = read_column(name, raw)
        kind, use, markers, level_type = decided(form, wanted)
        if kind == "text":
            if self.text == "error":
                raise ColumnError(
                    f"column {name!r} is text that is nearly unique per row ({use}); drop it, or "
                    "name it in categorical_features"
                )
            if self.text == "drop":
                return Column(name, "text", use, 0, 0), NoEncoder()
            kind, use = "category", ""
        encoder: Encoder
        if kind in ("category", "bool"):
            codes, keys = as_levels(name, form)
            levels, counts, missing = sorted_levels(codes, keys)
            n = len(levels)
            category = CategoryEncoder.of(levels, counts, missing, level_type, how)
            if not category.levels or (n == 1 and not missing):
                if n > 1:
                    use = f"left out: no value is on {self.min_rows} rows"
                    return Column(name, "constant", use, n, missing), NoEncoder()
                return _without_values(name, n, missing)
            if len(category.levels) + len(category.infrequent) < n:
                use += f"; values on fewer than {self.min_rows} rows are as missing ones"
            if statistics is not None and not category.one_hot:
                statistics.fit(category, category.codes_of(codes, keys))
            shown = ("one-hot" if category.one_hot else "level codes") + use
            return Column(name, kind, shown, n, missing), category
        if kind == "date":
            numeric = isinstance(form, Numbers)  # only where a parameter names it
            moments = as_moments(name, form, numeric)
            values: Array = moments.seconds
            encoder = DateEncoder.of(values, moments.zone, how, numeric)
        elif kind == "duration":
            values = as_durations(name, form)
            encoder = DurationEncoder.of(values, how)
        else:
            values = as_numbers(name, form, markers)
            encoder = NumberEncoder.of(values, how, markers)
        missing = int(np.isnan(values).sum())
        if not encoder.outputs:
            return _without_values(name, int(missing < len(values)), missing)
        return Column(name, kind, use or _USES[kind], 0, missing), encoder

    def _set(self, names: list[str] | None, columns: list[Column], encoders: list[Encoder]) -> None:
        """Set the fitted attributes."""
        self._names, self.columns_, self._encoders = names, columns, encoders
        self._widths = [len(encoder.outputs) for encoder in encoders]
        self.n_features_in_ = len(columns)
        self.__dict__.pop("feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = np.array([*names, None], object)[:-1]
        self.outputs_ = [
            OutputColumn(column.name, f"{column.name} {suffix}".strip(), use, n)
            for column, encoder in zip(columns, encoders, strict=True)
            for suffix, use, n in encoder.outputs
        ] or [OutputColumn("", "constant", "number")]

    # Transforming ---------------------------------------------------------------------------------

    def transform(self, X: Any) -> Any:
        """Encode rows.

        Returns
        -------
        ndarray of `dtype`, (n, len(outputs_))
            In C order. A level that was not seen in fit is as a missing one. A sparse matrix stays
            sparse if the encoder was fitted to one.

        Raises
        ------
        ValueError, TypeError
            For a table that lacks columns, and values that their columns cannot hold.
        """
        return self._transform(X, None)

    def _transform(self, X: Any, training: TargetStatistics | None) -> Any:
        self._check_fitted()
        dtype = check_dtype(self.dtype)
        numeric = all(isinstance(each, (NumberEncoder, NoEncoder)) for each in self._encoders)
        if is_sparse(X):
            return self._transform_sparse(X, dtype)
        columns = columns_of(X, self.who)
        needed = [width > 0 for width in self._widths]
        places = matched(columns, self._names, needed, self.who)
        out = np.empty((columns.n_rows, len(self.outputs_)), dtype)
        if not any(needed):
            out[:] = 0
        if is_plain(X) and numeric:
            self._fill_from_matrix(X, out)
            return out
        at = 0
        for column, encoder, width, place in zip(
            self.columns_, self._encoders, self._widths, places, strict=True
        ):
            if width and place is not None:
                values = encoder.read(column.name, read_column(column.name, columns.raw[place]))
                for start in range(0, len(out), BLOCK):
                    rows = slice(start, start + BLOCK)
                    encoder.fill(values[rows], out[rows, at : at + width])
                if training is not None and isinstance(encoder, CategoryEncoder):
                    training.fill(encoder, values, out[:, at : at + width])
            at += width
        return out

    def _transform_sparse(self, X: Any, dtype: np.dtype[Any]) -> Any:
        """Scale the numbers of a sparse matrix, if no column needs more than that."""
        X = check_sparse_table(X, self.who)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {self.who} is expecting {self.n_features_in_} "
                "features as input."
            )
        encoders = [each for each in self._encoders if isinstance(each, NumberEncoder)]
        if len(encoders) < X.shape[1] or not all(each.keeps_zeros for each in encoders):
            return self._transform(X.toarray(), None)
        return scale_sparse(X, encoders, dtype)

    def _fill_from_matrix(self, X: Array, out: Array) -> None:
        """Encode numbers some rows at a time, all columns of which stay in a cache."""
        for start in range(0, len(out), BLOCK):
            rows, at = slice(start, start + BLOCK), 0
            for place, encoder in enumerate(self._encoders):
                width = self._widths[place]
                if width:
                    values = X[rows, place]
                    if values.dtype.kind == "f" and np.isinf(values).any():
                        name = self.columns_[place].name  # the error counts from the first row
                        as_numbers(name, read_column(name, X[:, place]))
                    encoder.fill(values, out[rows, at : at + width])
                at += width

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit to rows and encode them.

        The result is that of :meth:`fit` and :meth:`transform`, but for statistics of the target:
        those of a row are of the rows before it in a random order, without its own target.
        """
        return self._transform(X, self._fit(X, y, sample_weight))

    def row(self) -> RowEncoder:
        """Return a function that encodes one row in microseconds: a dict, or a tuple of values."""
        self._check_fitted()
        names = [column.name for column in self.columns_]
        return RowEncoder(names, self._encoders, check_dtype(self.dtype))

    # Files ----------------------------------------------------------------------------------------

    def to_entries(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what :meth:`transform` needs: values for JSON, and arrays by name.

        The parameters that choose columns (`categorical_features` and the like), and those of the
        statistics of the target, are for :meth:`fit` alone and left out.
        """
        self._check_fitted()
        parameters = {name: getattr(self, name) for name in _OF_FILES}
        parameters["dtype"] = check_dtype(self.dtype).name
        columns = [vars(column) for column in self.columns_]
        return encoder_records.write(parameters, self._names is not None, columns, self._encoders)

    @classmethod
    def from_entries(
        cls, record: object, arrays: Mapping[str, Array], who: str = "TableEncoder"
    ) -> TableEncoder:
        """Return the encoder that :meth:`to_entries` has described.

        Raises
        ------
        ValueError, TypeError
            For entries and arrays that are not those of an encoder.
        """
        stored = encoder_records.read(record, arrays)
        encoder = cls(**stored.parameters, who=who)
        columns = [Column(**column) for column in stored.columns]
        names = [column.name for column in columns]
        encoder._set(names if stored.named else None, columns, stored.encoders)
        return encoder

    def _check_fitted(self) -> None:
        if not hasattr(self, "outputs_"):
            raise sklearn_instance(
                NotFittedError, f"this {self.who} is not fitted yet: call fit(X) first"
            )

    # What was decided -----------------------------------------------------------------------------

    @property
    def is_categorical_(self) -> Array:
        """Whether each input column is a category: bool, (n_features_in_,)."""
        self._check_fitted()
        return np.array([column.kind in ("category", "bool") for column in self.columns_])

    @property
    def column_kinds_(self) -> list[str]:
        """The kind of each input column."""
        self._check_fitted()
        return [column.kind for column in self.columns_]

    @property
    def categories_(self) -> list[Array | None]:
        """The levels of each input column that is a category, by code; None for the others."""
        self._check_fitted()
        return [
            typed([*each.levels, *each.infrequent], each.level_type)
            if isinstance(each, CategoryEncoder)
            else None
            for each in self._encoders
        ]


_OF_FILES = (
    "numbers", "n_knots", "max_one_hot", "max_categories", "min_rows", "date_parts", "text",
    "dtype",
)  # fmt: skip
"""Parameters that a file keeps."""

_USES = {"number": "scaled", "date": "seconds and parts", "duration": "seconds, scaled"}


def _without_values(name: str, n: int, n_missing: int) -> tuple[Column, Encoder]:
    """Describe a column whose values are all the same, or missing."""
    if n:
        return Column(name, "constant", "left out: one value", n, n_missing), NoEncoder()
    return Column(name, "empty", "left out: no values", 0, n_missing), NoEncoder()
