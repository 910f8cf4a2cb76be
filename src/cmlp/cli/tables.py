"""Reads the tables of the command's arguments."""

from __future__ import annotations

import argparse
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from cmlp.core.layout import Array
from cmlp.core.vocabulary import LOSSES, lookup
from cmlp.data.cells import NUMBER, Task, show
from cmlp.data.table import Table, read_table
from cmlp.network import Network

# train -------------------------------------------------------------------------------------------


def read_as(task: Task, loss: str | None) -> Task:
    """Return what the options say that the target is read for."""
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


def read(args: argparse.Namespace, target: str | None, *, needs_target: bool, **how: Any) -> Table:
    table, path = None, args.data
    if target or not needs_target or path.lower().endswith(".npz"):
        how = {"leave_out": args.ignore, "use_target": needs_target, **how}
        how["header"] = "auto" if args.header is None else args.header
        table = read_table(path, target, **how)
    if table is None or (needs_target and table.y is None):
        raise ValueError(f"{path}: which column is the target? --target NAME, or number (-1: last)")
    return table


def check_names(table: Table) -> None:
    """Refuse features that could not be told apart by their names later on."""
    for name, count in Counter(table.feature_names).items():
        if count > 1:
            raise ValueError(
                f"{table.path}: {count} columns are called {show(name)}; rename all but one, or "
                "leave the others out by their numbers, counted from 0: --ignore NUMBERS"
            )


def listed_names(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


# predict and evaluate ----------------------------------------------------------------------------


def read_for(
    net: Network, args: argparse.Namespace, target: str | None, *, needs_target: bool
) -> Table:
    """Read DATA, its features in the order of the model's."""
    known = net.feature_names or None
    left_out = [*args.ignore, *([args.target] if args.target and not needs_target else [])]
    table = read(
        args, target, needs_target=needs_target, features=known, leave_out=left_out, part="test",
        ignore=[net.target_name] if net.target_name and net.target_name != target else [],
        task="auto" if is_classifier(net) else "regression", classes=net.classes,
    )  # fmt: skip
    if table.X.shape[1] != net.sizes[0]:
        more = "; --target or --ignore leave columns out" if table.X.shape[1] > net.sizes[0] else ""
        raise ValueError(
            f"{table.path} has {table.X.shape[1]} features, but {args.model} expects "
            f"{net.sizes[0]}{more}"
        )
    if table.named and not known:
        names = listed_names(table.feature_names)
        table.notes.append(f"{args.model} knows no names; columns are read in their order: {names}")
    return table


def is_classifier(net: Network) -> bool:
    return net.classes is not None or (net.loss_row is not None and net.loss_row.classifies)
