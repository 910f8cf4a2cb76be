"""DATA of the command: tables read with a target, or for a model."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from cmlp.core.layout import Array
from cmlp.core.vocabulary import LOSSES, lookup
from cmlp.data.cells import NUMBER, Task, show
from cmlp.data.frames import listed
from cmlp.files.table import Table, read_table
from cmlp.network import Network

MOST_NAMES = 10
"""Names of columns or labels in one line."""


# train -------------------------------------------------------------------------------------------


def read_as(task: Task, loss: str | None) -> Task:
    """Return whether the options make the target labels or numbers, or leave it to its cells."""
    if task == "auto" and loss and (row := lookup("loss", LOSSES, loss)).name != "squared_error":
        return "classification" if row.classifies else "regression"
    return task


def note_alike_labels(classes: Array | None) -> list[str]:
    """Return a note on labels that differ only in case, blanks, Unicode form or zeros (02, 2)."""
    seen: dict[str | Decimal, str] = {}
    for label in () if classes is None or classes.dtype.kind != "U" else classes.tolist():
        text = unicodedata.normalize("NFKC", " ".join(label.split())).casefold()
        key = Decimal(text) if NUMBER(text) else text
        if (other := seen.setdefault(key, label)) != label:
            return [
                f"the labels {show(other)} and {show(label)} are two classes; write them alike if "
                "they mean the same"
            ]
    return []


def read(
    path: str,
    target: str | None,
    *,
    needs_target: bool,
    leave_out: Sequence[str],
    header: bool | None,
    **how: Any,
) -> Table:
    """Read DATA; `how` are further arguments of :func:`~cmlp.files.table.read_table`."""
    table = None
    if target or not needs_target or path.lower().endswith(".npz"):
        table = read_table(
            path, target, leave_out=leave_out, use_target=needs_target,
            header="auto" if header is None else header, **how,
        )  # fmt: skip
    if table is None or (needs_target and table.y is None):
        raise ValueError(f"{path}: which column is the target? --target NAME, or number (-1: last)")
    return table


def check_names(path: str, names: Sequence[str]) -> None:
    """Reject features with equal names: a model could not tell them apart."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(
                f"{path}: {count} columns are called {show(name)}; rename all but one, or "
                "leave the others out by their numbers, counted from 0: --ignore NUMBERS"
            )


# predict and evaluate ----------------------------------------------------------------------------


def read_for(
    net: Network,
    model: str,
    path: str,
    target: str | None,
    *,
    needs_target: bool,
    leave_out: Sequence[str],
    header: bool | None,
) -> Table:
    """Read DATA with the features in the order of a network's, which was loaded from `model`."""
    named = net.feature_names or None
    table = read(
        path, target, needs_target=needs_target, leave_out=leave_out, header=header,
        features=named, part="test",
        ignore=[net.target_name] if net.target_name and net.target_name != target else [],
        task="auto" if is_classifier(net) else "regression", classes=net.classes,
    )  # fmt: skip
    n_in = table.X.shape[1]
    if n_in != net.sizes[0]:
        more = "; --target or --ignore leave columns out" if n_in > net.sizes[0] else ""
        raise ValueError(f"{path} has {n_in} features, but {model} expects {net.sizes[0]}{more}")
    if table.named and not named:
        names = listed(table.feature_names, MOST_NAMES)
        table.notes.append(f"{model} knows no names; columns are read in their order: {names}")
    return table


def is_classifier(net: Network) -> bool:
    """Whether a network predicts labels."""
    return net.classes is not None or (net.loss_row is not None and net.loss_row.classifies)
