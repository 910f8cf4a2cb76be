"""Columns of Arrow become rows of numbers, and targets."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.cells import DataError, listed_near, show
from cmlp.data.numbers import of_arrow

Missing = str | float


def check_missing(missing: Any) -> Missing:
    """Return what is done about missing numbers: "raise", "skip", or the number in their place."""
    if missing in ("raise", "skip"):
        return str(missing)
    if isinstance(missing, (int, float, np.number)) and np.isfinite(missing):
        return float(missing)
    raise ValueError(f"missing must be 'raise', 'skip' or a number, not {missing!r}")


@functools.cache
def pyarrow(what: str) -> Any:
    """Return pyarrow's module for something; raises ImportError that has the way out."""
    try:
        return import_module(what)
    except ImportError as error:
        raise ImportError(f"this needs pyarrow ({error}): pip install pyarrow") from error


def is_number(kind: Any) -> bool:
    """Whether a type of Arrow is one of real numbers; a column of nothing but gaps is."""
    types = pyarrow("pyarrow.types")
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
        or types.is_null(kind)
    )


def dtype_of(kinds: Sequence[Any]) -> np.dtype[Any]:
    """Return float32 where it holds numbers of these types of Arrow exactly, else float64."""
    types = pyarrow("pyarrow.types")
    narrow = all(
        types.is_boolean(kind)
        or types.is_null(kind)
        or (types.is_integer(kind) and kind.bit_width <= 16)
        or (types.is_floating(kind) and kind.bit_width <= 32)
        for kind in kinds
    )
    return np.dtype(np.float32 if narrow else np.float64)


def numbers_of(column: Any) -> Array:
    """Return the numbers of a column of Arrow, NaN where they are missing."""
    types = pyarrow("pyarrow.types")
    if types.is_null(column.type):
        return np.full(len(column), np.nan, np.float32)
    if types.is_decimal(column.type):
        column = column.cast("float64")
    if types.is_boolean(column.type):
        column = column.cast("uint8")
    parts = [of_arrow(chunk) for chunk in getattr(column, "chunks", [column])]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def matrix_of(columns: Sequence[Array], n: int, dtype: np.dtype[Any], missing: Missing) -> Array:
    """Return columns of numbers as rows, with missing ones replaced where there is a number."""
    out = np.empty((n, len(columns)), dtype)
    for number, column in enumerate(columns):
        out[:, number] = column
    return _filled(out, missing)


def rows_of_table(table: Any, dtype: np.dtype[Any], missing: Missing) -> Array:
    """Return a table of Arrow with columns of numbers as rows; see :func:`matrix_of`.

    Columns of one type are turned into rows by Arrow, which is several times as fast.
    """
    out, start, types = np.empty(table.shape, dtype), 0, set(table.schema.types)
    alike = len(types) == 1 and pyarrow("pyarrow.types").is_floating(*types)
    for batch in table.to_batches():
        part = out[start : start + batch.num_rows]
        if alike and hasattr(batch, "to_tensor"):  # since version 17
            part[...] = batch.to_tensor(null_to_nan=True).to_numpy()
        else:
            for number, column in enumerate(batch.columns):
                part[:, number] = numbers_of(column)
        start += batch.num_rows
    return _filled(out, missing)


def _filled(rows: Array, missing: Missing) -> Array:
    """Return rows with missing numbers replaced where there is a number."""
    if isinstance(missing, float):
        rows[np.isnan(rows)] = missing
    return rows


NO_TARGET = (
    "give it a value, or leave such rows out: missing='skip' of the source, or "
    "missing_targets=True of a tabular estimator; of a frame, X.dropna(subset=[y])"
)
"""What to do about a missing target."""


WITHOUT_TARGET = (
    "this source has no target, and is for predictions alone; to train or score, name one: "
    "target=..."
)


def target_of(column: Any, where: Callable[[int], str], keeps_gaps: bool = False) -> Array:
    """Return a column of Arrow as targets: numbers with NaN where they are missing, or text.

    Raises
    ------
    DataError
        For a label that is missing, unless it is kept, as None; `where` gives the place of a row.
    """
    types = pyarrow("pyarrow.types")
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    kind = column.type
    if types.is_dictionary(kind) and is_number(kind.value_type):
        column = column.cast(kind.value_type)
    if keeps_gaps and column.null_count and not types.is_floating(column.type):
        plain = is_number(column.type)
        found = [v if v is None or plain else str(v) for v in column.to_pylist()]
        return np.array(found, object)
    if types.is_nested(column.type):
        raise DataError(
            f"{where(0)}: the target holds {column.type}; expected are numbers, text, dates, or "
            "true and false"
        )
    if is_number(column.type) and not types.is_boolean(column.type):
        return numbers_of(column)
    if types.is_boolean(column.type) and not column.null_count:
        return of_arrow(column.cast("uint8")).view(bool)
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(f"{where(row)}: the target is missing; {NO_TARGET}")
    coded = column if types.is_dictionary(kind) else column.dictionary_encode()
    values = np.array([str(value) for value in coded.dictionary.to_pylist()] or [""])
    texts: Array = values[of_arrow(coded.indices)]
    return texts


def targets_of(
    batch: Any,
    names: Sequence[str],
    weight: str | None,
    where: Callable[[int], str],
    keeps_gaps: bool = False,
) -> tuple[Array, Array | None]:
    """Return targets, (n,) or (n, n_targets), and weights, of a batch or a table of Arrow.

    Parameters
    ----------
    names : sequence of str
        The columns of the targets.
    """
    found = [target_of(batch.column(name), where, keeps_gaps) for name in names]
    found = found or [np.empty((batch.num_rows, 0))]
    y = found[0] if len(found) == 1 else np.column_stack(found)
    weights = None if weight is None else numbers_of(batch.column(weight)).astype(np.float64)
    return y, weights


def text_among(types: Mapping[str, Any], names: Sequence[str], path: str) -> str:
    """Return a message about the first column that is no number by its type; "" without one."""
    for name in names:
        if not is_number(types[name]):
            return (
                f"{path}: the column {show(name)} holds {types[name]}, but a network needs "
                "numbers: choose columns=[...], or fit a TabularClassifier or TabularRegressor, "
                "which take such columns"
            )
    return ""


def chosen_columns(
    names: Sequence[str], target: Any, columns: Any, weight: str | None, path: str
) -> tuple[list[str], list[str]]:
    """Return the names of features and targets among those of a table; refuse unknown ones."""
    if isinstance(columns, str):
        raise TypeError(f"columns must be a list of names: [{columns!r}]")
    targets = [target] if isinstance(target, str) else list(() if target is None else target)
    others = [*targets, *([] if weight is None else [weight])]
    features = columns if columns is not None else [
        name for name in names if name not in others and not name.startswith("__index_level_")
    ]  # fmt: skip
    there, used = Counter(names), Counter([*features, *others])
    for name in used:
        if name not in there:
            raise DataError(
                f"{path}: there is no column {show(name)}; there are "
                f"{listed_near(name, list(names))}"
            )
        if there[name] > 1:
            raise DataError(
                f"{path}: several columns are called {show(name)}; rename all but one, or choose "
                "others: columns=[...]"
            )
        if used[name] > 1:
            what = "is a feature and a target or weight" if name in others else "is named twice"
            raise DataError(f"{path}: the column {show(name)} {what}")
    if not features:
        raise DataError(f"{path}: there are no columns but the target")
    return list(features), targets
