"""Columns of files: what is read of them, what they are, and where their cells are."""

from __future__ import annotations

import csv
import datetime
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmlp.data.cells import MISSING, NUMBER, PADDED, DataError
from cmlp.files import csv_arrow, csv_columns
from cmlp.files.csv_layout import Selection, layout_of, text_of
from cmlp.files.raw_table import Reading, read_raw
from cmlp.tables.columns import ColumnError, Levels, Moments, Numbers
from cmlp.tables.encode import TableEncoder
from cmlp.tables.forms import FormTable
from cmlp.tables.kinds import choose, level_values, unseen


def texts(*cells):
    """Return a column of text as the reader of CSV does."""
    found = {cell: code for code, cell in enumerate(dict.fromkeys(cells))}
    return Levels(np.array([found[cell] for cell in cells], np.int32), list(found))


def values_of(levels):
    return [levels.values[code] if code >= 0 else None for code in levels.codes.tolist()]


CELLS = st.sampled_from(
    ["1", "-2.5", "1e3", ".5", "", "NA", "nan", "inf", "-Infinity", "1_000", "\u0661", "007",
     "0.70", " 3 ", "1e999", "x", "?", "1,5", "true", "+4"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=3, max_size=30), st.integers(1, 9))
def test_cells_are_read_one_by_one(rows, block):
    """Whatever the size of a block: numbers if all cells are, else their text."""
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    data = text_of(file.getvalue().encode())
    layout = layout_of(data, Selection(None, header=True))
    usual, csv_columns.BLOCK = csv_columns.BLOCK, block
    try:
        forms, target, n_rows, _ = csv_columns.read_columns(data, layout, ())
    finally:
        csv_columns.BLOCK = usual
    assert (n_rows, target) == (len(rows), [])

    def number(cell):
        if NUMBER(cell) and not PADDED(cell.strip()) and np.isfinite(float(cell)):
            return float(cell)
        return np.nan if MISSING(cell) and "inf" not in cell.lower() else None

    for form, cells in zip(forms, zip(*rows, strict=True), strict=True):
        expected = [number(cell) for cell in cells]
        if None in expected:
            assert values_of(form) == [cell.strip() for cell in cells]
        else:
            assert np.array_equal(form.values, expected, equal_nan=True)


@pytest.mark.parametrize(("cells", "kind"), [
    (["a", "b", "a", ""], "category"),
    (["007", "012", "007"], "category"),
    (["True", "FALSE", "?"], "bool"),
    (["2024-01-02", "2024-01-03 10:30", ""], "date"),
    (["2024-01-02T10:00:00.25Z", "2024-01-03T10:00+02:00"], "date"),
    (["a", "a"], "constant"),
    (["a", ""], "category"),
    (["", "NA", "-"], "empty"),
    ([f"w{i}" for i in range(60)], "text"),
    ([f"{i}.5" for i in range(60)] + ["lost"], "number"),
    ([f"{i} %" for i in range(9)] * 9, "category"),
])  # fmt: skip
def test_kinds_of_text(cells, kind):
    assert choose("a", texts(*cells), None).kind == kind


def test_dates_are_seconds_of_their_clock_or_of_utc():
    days = texts("2024-01-02", "2024-01-03 10:30", "")
    found = choose("a", days, None).form
    assert isinstance(found, Moments) and found.zone is None
    second = datetime.datetime(2024, 1, 3, 10, 30, tzinfo=datetime.UTC).timestamp()
    assert found.seconds[1] == second and np.isnan(found.seconds[2])
    utc = choose("a", texts("2024-01-03T10:30Z", "2024-01-03T12:30+02:00"), None)
    assert utc.form.seconds.tolist() == [second, second] and utc.form.zone == "UTC"


def test_counts_of_a_column():
    found = choose("a", texts("1", "2", "2", "", "x"), "category")
    assert (found.n_distinct(), found.n_missing()) == (3, 1)
    found = choose("a", Numbers(np.array([1.0, np.nan, 1.0, 3.0])), None)
    assert (found.kind, found.n_distinct(), found.n_missing()) == ("number", 2, 1)
    found = choose("a", Numbers(np.array([1.0, np.nan, 1.0])), "category")
    assert (found.kind, found.n_distinct(), found.n_missing()) == ("category", 1, 1)


def test_levels_are_those_of_the_model():
    """Text for text, numbers for numbers, a sign of a gap where it is a level."""
    known = np.array(["NA", "007", "x"], object)
    assert values_of(level_values(texts("NA", "007", "?", "7"), known)) == ["NA", "007", None, "7"]
    form = level_values(texts("1", "2.0", "x", ""), np.array([1, 2]))
    assert values_of(form)[:3] == [1, 2.0, "x"]
    assert unseen(form, np.array([1, 2])) == {"x": 1}
    assert values_of(level_values(texts("TRUE", "no"), np.array([False, True]))) == [True, "no"]


def test_an_error_has_name_and_row():
    with pytest.raises(ColumnError, match="column 'a', row 2: a number expected") as caught:
        choose("a", texts("1", "2", "x"), "number")
    assert (caught.value.name, caught.value.row) == ("a", 2)
    assert caught.value.what.startswith("a number expected, 'x' came")


def test_a_table_of_forms_is_a_table():
    """It is encoded as the same values in lists are, and its rows can be taken."""
    a, b = [1.0, np.nan, 3.0, 4.0], ["x", "y", "x", None]
    forms = [Numbers(np.array(a)), Levels(np.array([0, 1, 0, -1], np.int32), ["x", "y"], True)]
    table = FormTable(["a", "b"], forms, 4)
    encoder = TableEncoder().fit({"a": a, "b": b})
    expected = encoder.transform({"a": a, "b": b})
    assert np.array_equal(encoder.transform(table), expected)
    assert np.array_equal(TableEncoder().fit_transform(table), expected)
    some = table[np.array([2, 0])]
    assert some.shape == (2, 2) and np.array_equal(encoder.transform(some), expected[[2, 0]])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_places_are_lines_of_the_file(tmp_path, end):
    """Also with blank lines, quoted line ends, and rows without a target in between."""
    lines = ['a,"b",y', '1,"two', 'lines",0', "", "2,x,", "3,z,1", "4,x,0"]
    path = tmp_path / "data.csv"
    path.write_text(end.join(lines), newline="")
    table = read_raw(str(path), Selection("y"), Reading())
    assert table.y.tolist() == [0, 1, 0] and table.forms[0].values.tolist() == [1, 3, 4]
    assert [table.place(row, 1) for row in range(3)] == [
        "line 2, column 'b'", "line 6, column 'b'", "line 7, column 'b'"
    ]  # fmt: skip
    assert table.notes == ["1 row without a target is left out; the first one: line 5, column 'y'"]
    error = table.error(ColumnError("it is odd", "a", 1))
    assert isinstance(error, DataError) and str(error) == f"{path}: line 6, column 'a': it is odd"


COLUMNS = {
    "numbers": ["1", "-2.5", "+4", ".5", "5.", "1e5", "9007199254740993", "1e-320"],
    "gaps": ["1", "", "NA", "nan", "2.5", "#N/A", "-", " ? "],
    "codes": ["007", "1", "2", "3", "4", "5", "6", "7"],
    "infinite": ["1", "inf", "3", "nan", "5", "6", "7", "8"],
    "too large": ["1", "1e400", "3", "4", "5", "6", "7", "8"],
    "joined": ["1_000", "2", "3", "4", "5", "6", "7", "8"],
    "text": ["x", " y ", "Ünï", "NA", "", "it's", "x", "1"],
    "blanks": [" 1", "2 ", "\t3", "4", "5", "6", "7", "8"],
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("broken", ["", "a line of blanks", "a short row"])
def test_arrow_reads_what_csv_reads(monkeypatch, end, broken):
    """Where pyarrow is installed it reads long files; values, texts and messages are the same."""
    pytest.importorskip("pyarrow.csv")
    rows = [";".join(COLUMNS), *map(";".join, zip(*COLUMNS.values(), strict=True))]
    rows[3:3] = {"": [], "a line of blanks": ["  "], "a short row": ["1;2"]}[broken]
    data = text_of(end.join(rows).encode())
    layout = layout_of(data, Selection("text"), ";")
    body = data.split(b"\n", layout.first_line - 1)[-1]
    assert (csv_columns.columns_of(body, layout) is None) == bool(broken)

    def read():
        try:
            found = csv_columns.read_columns(data, layout, (0,))
        except DataError as error:
            return str(error)
        forms = [
            form.values.tobytes() if isinstance(form, Numbers) else values_of(form)
            for form in found.forms
        ]
        return forms, [*map(str.strip, found.target)], found.n_rows, found.notes

    by_arrow = read()
    monkeypatch.setattr(csv_columns, "columns_of", lambda body, layout: None)
    assert by_arrow == read()


def test_more_than_arrow_can_count_is_left_to_csv(monkeypatch):
    pytest.importorskip("pyarrow.csv")
    data = b"a,b\n1,2\n3,4\n"
    layout = layout_of(data, Selection("b"), ",")
    assert csv_arrow.columns_of(data[4:], layout) is not None
    monkeypatch.setattr(csv_arrow, "_MOST", len(data[4:]))
    assert csv_arrow.columns_of(data[4:], layout) is None
