"""Columns of DATA: what each is, as a table, and as an estimator takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cmlp.data.cells import DataError, show
from cmlp.files.raw_table import RawTable
from cmlp.tables.columns import ColumnError, Form, Numbers
from cmlp.tables.forms import FormTable
from cmlp.tables.kinds import Choice, choose
from cmlp.training.progress import cut, printable

MOST_ROWS = 30
"""Columns that are listed one by one."""

MANY = 20
"""Rows whose numbers are unlikely to be 1, 2, 3 ... by chance."""


def choices_of(table: RawTable) -> list[Choice]:
    """Decide what each column of a table is.

    Raises
    ------
    DataError
        For cells that are not what their column is, and if no column is left.
    """
    found = []
    for at, (name, form) in enumerate(zip(table.labels, table.forms, strict=True)):
        try:
            found.append(choose(name, form, table.wanted.get(at)))
        except ColumnError as error:
            raise table.error(error) from None
    if not any(choice.is_used for choice in found):
        reasons = Counter(choice.kind for choice in found)
        raise DataError(
            f"{table.path}: no feature column is left; those left out are "
            + ", ".join(f"{kind} ({n})" for kind, n in reasons.items())
            + "; --categories NAMES takes text columns for categories"
        )
    return found


def training_table(table: RawTable, choices: Sequence[Choice]) -> FormTable:
    """Return the columns that a model learns from.

    Columns without names are known by their place, so that none of them can go: those that are left
    out are constant.
    """
    nothing: Form = Numbers(np.zeros(table.n_rows))
    if table.names is None:
        forms = [choice.form if choice.is_used else nothing for choice in choices]
        return FormTable(None, forms, table.n_rows)
    used = [choice for choice in choices if choice.is_used]
    names = [choice.name for choice in used]
    return FormTable(names, [choice.form for choice in used], table.n_rows)


def notes_on(choices: Sequence[Choice]) -> list[str]:
    """Return notes on columns that may be better treated otherwise."""
    notes = [choice.note for choice in choices if choice.note]
    for choice in choices:
        if choice.kind == "text" and not choice.note:
            notes.append(
                f"{show(choice.name)} is text that is nearly unique per row: it is left out, "
                f"unless --categories names it"
            )
        elif choice.kind == "number" and _counts_rows(choice.form):
            notes.append(f"{show(choice.name)} counts the rows; --ignore it if it is an identifier")
    return notes


def _counts_rows(form: Form) -> bool:
    """Whether each number is the one before plus 1."""
    values = form[0]
    return len(values) >= MANY and bool((np.diff(values) == 1).all())


# As text ------------------------------------------------------------------------------------------


def table_of(choices: Sequence[Choice]) -> str:
    """Return a line per column: its name, kind, distinct and missing values, and use."""
    rows = [
        (choice.name, choice.kind, f"{choice.n_distinct():,}", f"{choice.n_missing():,}",
         choice.use)
        for choice in choices[:MOST_ROWS]
    ]  # fmt: skip
    lines = aligned(["column", "kind", "distinct", "missing", "use"], rows)
    if rest := choices[MOST_ROWS:]:
        kinds = Counter(choice.kind for choice in rest)
        counted = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())
        lines.append(f"  and {len(rest):,} more: {counted}")
    return "\n".join(lines)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of a table: words to the left, numbers to the right."""
    cells = [[cut(printable(cell), 60 if i == len(row) - 1 else 24) for i, cell in enumerate(row)]
             for row in rows]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    left = (0, 1, len(head) - 1)
    return [
        "  " + "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *cells]
    ]  # fmt: skip
