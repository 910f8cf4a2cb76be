"""Tables whose columns have been read: each is one of the forms of `columns`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cmlp.core.layout import Array
from cmlp.tables.columns import Form, n_rows


class FormColumn:
    """A column in one of the forms; it has a length, a dimension and rows, as an array does."""

    ndim = 1

    def __init__(self, form: Form) -> None:
        self.form = form

    def __len__(self) -> int:
        return n_rows(self.form)

    def __getitem__(self, rows: Any) -> FormColumn:
        """Return some of the rows."""
        return FormColumn(self.form._replace(**{self.form._fields[0]: self.form[0][rows]}))


class FormTable:
    """Columns that have been read, with names or without; an estimator takes it as X.

    Parameters
    ----------
    names : list of str or None
        None: the columns are known by their place.
    forms : sequence of Form
        Of the same length.
    """

    def __init__(self, names: list[str] | None, forms: Sequence[Form], n_rows: int) -> None:
        self.names, self.forms, self.n_rows = names, list(forms), n_rows

    @property
    def columns(self) -> list[FormColumn]:
        """The columns."""
        return [FormColumn(form) for form in self.forms]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.n_rows, len(self.forms)

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, rows: Array) -> FormTable:
        """Return the rows of some numbers, or of a mask."""
        forms = [column[rows].form for column in self.columns]
        return FormTable(self.names, forms, len(forms[0][0]) if forms else 0)
