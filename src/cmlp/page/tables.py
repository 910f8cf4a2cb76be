"""A table of one's own: uploaded, its columns shown, a tabular estimator trained and explained."""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.data.cells import FEW, DataError, show
from cmlp.model import scoring
from cmlp.page import limits
from cmlp.page.host import Host
from cmlp.page.set_up import SetUpError, real, whole

if TYPE_CHECKING:
    from cmlp.files.raw_table import RawTable

WORST = 5
SECONDS = 120.0
FILE = "table.csv"
EXPLAINED = 100
"""Rows that the importance of columns is computed on."""


class TableStory:
    """The table that a page has uploaded."""

    def __init__(self, session: Host) -> None:
        self.session = session
        self.data = bytearray()
        self.expected = 0
        self.name, self.named = "", True
        self.fitting = self.stopped = False

    def handlers(self) -> dict[str, Any]:
        """Return what answers which message."""
        return {"upload": self.upload, "fit": self.fit, "stop": self.stop}

    # The file ------------------------------------------------------------------------------------

    def upload(self, message: dict[str, Any]) -> None:
        """Announce a file: its size first, so that nothing too large is ever sent."""
        self._idle()
        size = message.get("size")
        try:
            self.expected = whole(1, limits.UPLOAD_BYTES)(size)
        except ValueError as error:
            self.expected = 0
            raise SetUpError("upload", f"the size in bytes {error}") from None
        name = message.get("name")
        self.name = name[:80] if isinstance(name, str) else "the file"
        self.data = bytearray()
        self.session.event("ready", part=limits.PART_BYTES)

    def part(self, data: bytes) -> None:
        """Take the next part of it."""
        if len(self.data) + len(data) > self.expected:
            self.expected, self.data = 0, bytearray()
            raise SetUpError("upload", "more came than was announced; nothing was kept")
        self.data += data
        if len(self.data) == self.expected:
            self.expected = 0
            if self.data.count(b"\n") > limits.ROWS + 1:  # before anything is read
                self.data = bytearray()
                raise SetUpError("upload", f"at most {limits.ROWS:,} rows; this table has more")
            self.tell_columns()

    def _read(self, target: str | int | None) -> RawTable:
        """Read the upload by way of a temporary file, whose path no message shows."""
        from cmlp.files.csv_layout import Selection
        from cmlp.files.raw_table import Reading, read_raw

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, FILE)
            with open(path, "wb") as file:
                file.write(self.data)
            try:
                table = read_raw(path, Selection(target), Reading())
                table.labels  # noqa: B018
            except DataError as error:
                raise DataError(_without_options(str(error).replace(path, self.name))) from None
        self.named, names = table.names is not None, table.names
        if names is None:
            others = (i for i in range(len(table.forms) + 1) if i != target)
            names = [f"x{i}" for i, _ in zip(others, table.forms, strict=False)]
        table = dataclasses.replace(table, path=self.name, names=names)
        if table.n_rows > limits.ROWS or len(table.forms) > limits.COLUMNS:
            raise SetUpError(
                "upload",
                f"at most {limits.ROWS:,} rows and {limits.COLUMNS:,} columns; this table "
                f"has {table.n_rows:,} and {len(table.forms):,}",
            )
        return table

    def tell_columns(self) -> None:
        """Send what each column is; without a header, a target is known by its number."""
        table = self._read(None)
        columns = [
            {
                "name": choice.name,
                "target": choice.name if self.named else at,
                "kind": choice.kind,
                "use": choice.use,
                "missing": choice.n_missing(),
                "distinct": choice.n_distinct(),
            }
            for at, choice in enumerate(choices_of(table))
        ]
        self.session.event(
            "columns", name=self.name, rows=table.n_rows, columns=columns, notes=table.notes
        )

    # Training ------------------------------------------------------------------------------------

    def fit(self, message: dict[str, Any]) -> None:
        """Train a tabular estimator for a target, and report what it has learned."""
        from cmlp.tables.forms import FormTable

        self._idle()
        if not self.data:
            raise SetUpError("upload", "drop a CSV file first")
        target = message.get("target")
        if not isinstance(target, (str, int)):
            raise SetUpError("target", "must be the name of a column")
        table = self._read(target)
        ignored = message.get("ignore", [])
        if not isinstance(ignored, list):
            raise SetUpError("ignore", "must be a list of columns")
        used = [
            choice for choice in choices_of(table) if choice.is_used and choice.name not in ignored
        ]
        if not used:
            raise SetUpError("table", "no column is left to learn from: see under Use, why")
        y = table.y
        assert y is not None
        X: Any = FormTable(
            [choice.name for choice in used], [choice.form for choice in used], table.n_rows
        )
        model = self._model(y, real(1, SECONDS)(message.get("seconds", 30)))
        self.session.event(
            "fitting",
            rows=table.n_rows,
            columns=len(used),
            classifies=hasattr(model, "predict_proba"),
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.fitting, self.stopped = True, False
            try:
                model.fit(X, y)
            finally:
                self.fitting = False
        notes = [*table.notes, *(" ".join(str(each.message).split()) for each in caught)]
        found = report(model, X, y)
        for worst in found["worst"]:  # rows without a target are none of these
            worst[0] = table.place(worst[0], 0).partition(",")[0]
        self.session.event("fitted", notes=notes[:10], **found)

    def _model(self, y: Array, seconds: float) -> Any:
        """Return an estimator for labels or for numbers."""
        from cmlp.estimators.tabular.classifier import TabularClassifier
        from cmlp.estimators.tabular.regressor import TabularRegressor

        kind = TabularClassifier if classifies(y) else TabularRegressor
        if kind is TabularClassifier and len(np.unique(y)) < 2:
            raise SetUpError("target", f"is {show(y[0])} on every row: nothing to learn")
        return kind(
            n_ensemble=1,
            cv=None,
            random_state=0,
            n_threads=1,
            max_time=seconds,
            callbacks=[self._after_epoch],
        )

    def _after_epoch(self, state: Any) -> bool:
        """Send an epoch; between two of them the rest of the page is served."""
        history = state.history
        self.session.event(
            "epoch",
            epoch=state.epoch,
            loss=history["loss"][-1],
            val_loss=history.get("val_loss", [None])[-1],
            val_score=history.get("val_score", [None])[-1],
        )
        self.session.turn(0)
        return self.stopped or self.session.hello is not None

    def stop(self, message: dict[str, Any]) -> None:
        """End the training after the present epoch."""
        self.stopped = True

    def _idle(self) -> None:
        """Refuse while a table is being learned."""
        if self.fitting:
            raise SetUpError("table", "a table is being learned; stop it first")


def choices_of(table: RawTable) -> list[Any]:
    """Decide what each column is."""
    from cmlp.tables.columns import ColumnError
    from cmlp.tables.kinds import choose

    found = []
    for at, (name, form) in enumerate(zip(table.labels, table.forms, strict=True)):
        try:
            found.append(choose(name, form, table.wanted.get(at)))
        except ColumnError as error:
            raise DataError(_without_options(str(table.error(error)))) from None
    return found


def _without_options(text: str) -> str:
    """Return an error without what only the command or a program can do about it."""
    return re.split(r"; --|, or give the target's number", text)[0]


def classifies(y: Array) -> bool:
    """Whether a target is labels: text, truth values, or few whole numbers that repeat."""
    if y.dtype.kind in "Ub":
        return True
    n_values = len(np.unique(y))
    return y.dtype.kind in "iu" and n_values <= min(FEW, len(y) // 2)


def report(model: Any, X: Any, y: Array) -> dict[str, Any]:
    """Return scores, confusion or pairs, the worst rows, columns by their share, a diagnosis."""
    from cmlp.estimators.tabular.validation import held_out_answers

    held = held_out_answers(model, X)
    rows, answers = (
        held
        if held is not None
        else (np.arange(len(y)), getattr(model, "predict_proba", model.predict)(X))
    )
    truth = y[rows]
    found: dict[str, Any] = {
        "held_out": held is not None,
        "n": len(rows),
        "best": model.best_iteration_,
        "epochs": model.n_iter_,
    }
    if hasattr(model, "predict_proba"):
        labels = model.classes_
        read = labels[answers.argmax(axis=1)]
        sure = answers[truth[:, None] == labels[None, :]]
        worst = np.argsort(sure)[:WORST]
        found |= {
            "accuracy": float(np.mean(read == truth)),
            "labels": [str(label) for label in labels],
            "confusion": scoring.confusion(truth, read, labels).tolist()
            if len(labels) <= 20
            else [],
            "worst": [[int(rows[i]), str(truth[i]), str(read[i]), float(sure[i])] for i in worst],
        }
    else:
        out = answers.reshape(-1).astype(float)
        error = out - truth
        worst = np.argsort(-abs(error))[:WORST]
        step = max(1, len(rows) // 500)
        found |= {
            "r2": scoring.r2_score(truth[:, None].astype(float), out[:, None], None)
            if len(rows) > 1
            else None,
            "rmse": float(np.sqrt((error**2).mean())),
            "pairs": np.stack([truth, out], axis=1)[::step].tolist(),
            "worst": [
                [int(rows[i]), str(truth[i]), f"{out[i]:.6g}", float(error[i])] for i in worst
            ],
        }
    return found | explained(model, X, y)


def explained(model: Any, X: Any, y: Array) -> dict[str, Any]:
    """Return how much each column adds to the answers, and a diagnosis; what fails is left out."""
    from cmlp.diagnosis.report import diagnose
    from cmlp.estimators.attributions import attributions
    from cmlp.estimators.tabular.tables import take_rows

    found: dict[str, Any] = {"columns": [], "diagnosis": None}
    try:
        some = take_rows(X, np.arange(0, len(y), max(1, len(y) // EXPLAINED)))
        result = attributions(model, some, max_background=32, n_threads=1)
        shares = result.mean_absolute
        shares = shares.sum(axis=1) if shares.ndim == 2 else shares
        found["columns"] = [
            [str(name), float(share)]
            for name, share in zip(result.feature_names, shares, strict=True)
        ]
        found["columns"].sort(key=lambda pair: -pair[1])
    except (TypeError, ValueError) as error:
        found["columns_error"] = str(error)
    try:
        found["diagnosis"] = diagnose(model, X, y).to_dict()
    except (TypeError, ValueError) as error:
        found["diagnosis_error"] = str(error)
    return found
