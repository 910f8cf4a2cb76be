"""``cmlp predict``, ``evaluate`` and ``info`` for a tabular estimator: raw rows, by column name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmlp.cli.columns import MOST_ROWS, aligned
from cmlp.core.formatting import score, significant
from cmlp.core.layout import Array
from cmlp.data.cells import show
from cmlp.data.frames import listed
from cmlp.files.csv_layout import Selection
from cmlp.files.raw_table import RawTable, Reading, read_raw
from cmlp.tables.columns import ColumnError, Form, Levels, Numbers
from cmlp.tables.forms import FormTable
from cmlp.tables.kinds import UNUSED, level_values, unseen
from cmlp.training.progress import printable

MOST_NAMES = 10
"""Names in one line."""


@dataclass(frozen=True)
class ModelColumns:
    """The columns that a model was trained with.

    Attributes
    ----------
    names : list of str
        "x0", "x1" ... where it was trained without names.
    kinds : dict
        By name.
    named : bool
        Whether it was trained with names.
    levels : list of ndarray or None
        Of the categories.
    gaps : dict
        Words that stand for gaps, by column.
    """

    names: list[str]
    kinds: dict[str, str]
    named: bool
    levels: list[Array | None]
    gaps: dict[str, list[str]]

    @classmethod
    def of(cls, model: Any) -> ModelColumns:
        """Describe the columns of a fitted estimator."""
        found = getattr(model, "feature_names_in_", None)
        n = model.n_features_in_
        names = [f"x{i}" for i in range(n)] if found is None else list(map(str, found))
        kinds = dict(zip(names, model.column_kinds_, strict=True))
        used = {output.source for each in model.encoders_ for output in each.outputs_}
        if used:  # a column may be constant in one fold alone
            kinds = {name: kind if name in used else "ignored" for name, kind in kinds.items()}
        gaps = getattr(model, "table_", {}).get("gaps", {})
        return cls(names, kinds, found is not None, list(model.categories_), gaps)

    @property
    def used(self) -> list[str]:
        """Names of the columns that predictions depend on."""
        return [name for name in self.names if self.kinds[name] not in UNUSED]


def target_of(model: Any) -> str | None:
    """Return the name of the target that a model was trained to predict."""
    name: str | None = getattr(model, "table_", {}).get("target")
    return name


# Rows ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelRows:
    """Rows of a file as a model takes them.

    Attributes
    ----------
    X : FormTable
    labels : list of str
        What errors of the model call the columns of the file.
    """

    table: RawTable
    X: FormTable
    labels: list[str]
    notes: list[str]

    def answer(self, method: Any) -> Array:
        """Return a method's answers; an error about a value has its line."""
        try:
            return np.asarray(method(self.X))
        except ColumnError as error:
            raise self.table.error(error, self.labels) from None


def read_rows(
    model: Any,
    path: str,
    model_path: str,
    target: str | None,
    *,
    needs_target: bool,
    leave_out: Sequence[str],
    header: bool | None,
) -> ModelRows:
    """Read DATA with the columns of a model, which was loaded from `model_path`."""
    if needs_target and not (target or path.lower().endswith(".npz")):
        raise ValueError(f"{path}: which column is the target? --target NAME, or number (-1: last)")
    columns, own = ModelColumns.of(model), target_of(model)
    classes = getattr(model, "classes_", None)
    selection = Selection(
        target,
        columns.used if columns.named else None,
        [own] if own and own != target else [],
        leave_out,
        "auto" if header is None else header,
    )
    how = Reading(
        kinds=columns.kinds, task="regression" if classes is None else "auto", part="test",
        classes=classes, use_target=needs_target,
    )  # fmt: skip
    table = read_raw(path, selection, how)
    if needs_target and table.y is None:
        raise ValueError(f"{path}: which column is the target? --target NAME, or number (-1: last)")
    return _as_model_takes_it(model, model_path, columns, table)


def _as_model_takes_it(
    model: Any, model_path: str, columns: ModelColumns, table: RawTable
) -> ModelRows:
    """Return the forms of a table in a model's order and types."""
    by_name = columns.named and table.names is not None
    labels = columns.used if by_name else columns.names
    if len(table.forms) != len(labels):
        n, more = len(table.forms), ""
        if n > len(labels):
            more = "; --target or --ignore leave columns out"
        raise ValueError(f"{table.path} has {n} features, but {model_path} expects {len(labels)}"
                         f"{more}")  # fmt: skip
    notes = list(table.notes)
    if table.names is not None and not columns.named:
        shown = listed(table.names, MOST_NAMES)
        notes.append(f"{model_path} knows no names; columns are read in their order: {shown}")
    found = dict(zip(labels, table.forms, strict=True))
    forms: list[Form] = []
    for name, levels in zip(columns.names, columns.levels, strict=True):
        if columns.kinds[name] in UNUSED:
            forms.append(Numbers(np.zeros(table.n_rows)))
            continue
        form = _prepared(found[name], levels, columns.gaps.get(name, ()))
        if levels is not None and isinstance(form, Levels):
            notes += _note_unseen(name, form, levels)
        forms.append(form)
    X = FormTable(columns.names if columns.named else None, forms, table.n_rows)
    return ModelRows(table, X, labels, notes)


def _prepared(form: Form, levels: Array | None, gaps: Sequence[str]) -> Form:
    """Return a column with the levels of a model's, or with the words that stand for gaps."""
    if not isinstance(form, Levels):
        return form
    if levels is not None:
        return level_values(form, levels)
    return form._replace(values=[None if value in gaps else value for value in form.values])


def _note_unseen(name: str, form: Levels, levels: Array) -> list[str]:
    new = unseen(form, levels)
    if not new:
        return []
    rows = sum(new.values())
    return [
        f"column {show(name)}: {listed(list(new), 5, show)} did not occur in training, and count "
        f"as missing ({rows:,} row{'s' * (rows != 1)})"
    ]


# Answers ------------------------------------------------------------------------------------------


def predictions(model: Any, rows: ModelRows) -> tuple[list[str], list[list[Any]]]:
    """Return names of columns, and labels or numbers, a list per row."""
    values = rows.answer(model.predict)
    values = values.reshape(len(values), -1)
    name, n = target_of(model) or "prediction", values.shape[1]
    found: list[list[Any]] = values.tolist()
    if values.dtype.kind == "f" and not hasattr(model, "classes_"):  # the other digits are noise
        found = [[float(f"{value:.12g}") for value in row] for row in found]
    return [name] if n == 1 else [f"{name}_{i}" for i in range(n)], found


def probabilities(model: Any, rows: ModelRows, path: str) -> tuple[list[str], Array]:
    """Return the labels as text, and a probability for each, (n, n_classes)."""
    if not hasattr(model, "predict_proba"):
        raise ValueError(f"--proba needs a classifier; {path} predicts numbers")
    return list(map(str, model.classes_)), rows.answer(model.predict_proba).astype(np.float32)


def matched_targets(model: Any, y: Array) -> Array:
    """Return labels or numbers; one-hot rows become the number of their class."""
    one_hot = y.ndim == 2 and hasattr(model, "classes_") and not model._labels.multilabel
    return y.argmax(axis=1) if one_hot else y


# info ---------------------------------------------------------------------------------------------


def description(model: Any) -> str:
    """Return what `info` prints of a model."""
    nets = model.networks_
    kind = "classifier" if hasattr(model, "classes_") else "regressor"
    n = "1 network" if len(nets) == 1 else f"{len(nets)} networks"
    lines = [
        f"{kind} of tables: {n}",
        "columns",
        *aligned(["column", "kind", "levels", "missing", "use"], _column_rows(model)),
    ]
    if model.n_features_in_ > MOST_ROWS:
        lines.append(f"  and {model.n_features_in_ - MOST_ROWS:,} more")
    if hasattr(model, "classes_"):
        lines.append(f"labels    {printable(listed(model.classes_, MOST_NAMES))}")
    if target_of(model):
        lines.append(f"target    {printable(str(target_of(model)))}")
    lines.append("members   sizes, epochs, the best of them, its validation score")
    for number, net in enumerate(nets[:MOST_NAMES]):
        history = net.history
        best = history.best_epoch or history.epochs
        scores = history.get("val_score", [])
        shown = f", {history.metric} {score(scores[best - 1])}" if len(scores) >= best > 0 else ""
        seconds = significant(sum(history.get("seconds", [0.0])))
        lines.append(
            f"  {number}  {'-'.join(map(str, net.sizes))}, {history.epochs} epochs in {seconds} s, "
            f"the best {best}{shown}"
        )
    if len(nets) > MOST_NAMES:
        lines.append(f"  and {len(nets) - MOST_NAMES} more")
    if model.validation_score_ is not None:
        lines.append(f"score     {score(model.validation_score_)} ({nets[0].history.metric}) on "
                     "rows held out")  # fmt: skip
    return "\n".join(lines)


def _column_rows(model: Any) -> list[tuple[str, ...]]:
    """Return a row per column, for a table."""
    return [
        (column.name, column.kind, f"{column.n_levels:,}" if column.n_levels else "",
         f"{column.n_missing:,}", column.use)
        for column in model.encoder_.columns_[:MOST_ROWS]
    ]  # fmt: skip
