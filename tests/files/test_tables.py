"""The command's reader of files: what it reads, with and without pandas, and its errors."""

from __future__ import annotations

import bz2
import csv
import gzip
import importlib.util
import io
import lzma
import sys
import threading
import zipfile
from itertools import cycle, islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmlp.data.cells import DataError
from cmlp.files.table import read_table

HAS_PANDAS = importlib.util.find_spec("pandas") is not None
READERS = ["numpy", *(["pandas"] if HAS_PANDAS else [])]


@pytest.fixture(params=READERS)
def read(request, tmp_path):
    """Write text (or bytes) to a file and read it by one of the two roads."""

    def read(text, target=None, name="data.csv", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(path, target, reader=request.param, **options)

    return read


def complaint(call, *args, **kwargs):
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(a, b):
    assert (a.feature_names, a.target_name) == (b.feature_names, b.target_name)
    for left, right in ((a.X, b.X), (a.y, b.y)):
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype and left.tobytes() == right.tobytes()


# CSV that is well formed -------------------------------------------------------------------------


def test_header_and_text_target(read):
    table = read("a,b,kind\n1,2.5, setosa \n-3,1e2,virginica\n", "kind")
    assert table.feature_names == ["a", "b"] and table.target_name == "kind"
    assert table.X.dtype == np.float64 and table.X.tolist() == [[1, 2.5], [-3, 100]]
    assert table.y.tolist() == ["setosa", "virginica"] and table.path.endswith("data.csv")


@pytest.mark.parametrize("target", [-1, 2, "2", "-1"])
def test_no_header_target_by_number(read, target):
    table = read("1,2,7\n3,4,8\n", target)
    assert table.feature_names == ["x0", "x1"] and table.target_name is None
    assert table.X.tolist() == [[1, 2], [3, 4]] and table.y.dtype == np.int64
    assert table.y.tolist() == [7, 8]


def test_a_name_wins_over_a_number(read):
    assert read("1,0,a\n5,6,7\n", "0").y.tolist() == [6]


def test_without_target_and_with_ignored_columns(read):
    table = read("a,y,b\n1,x,2\n3,,4\n", ignore=("y", "z"))
    assert table.y is None and table.target_name is None and table.feature_names == ["a", "b"]
    assert table.X.tolist() == [[1, 2], [3, 4]]
    assert read("a,b,y\n1,2,x\n3,4,\n", ignore=["y"]).X.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "target", "names"),
    [
        ("5.1,3.5,setosa\n4.9,3.0,virginica\n", -1, None),  # the text column is the target
        ("label,0,1\n3,0,0\n", "label", ["0", "1"]),  # text above a number
        ("0,1,label\n3,0,cat\n", "label", ["0", "1"]),  # the target is named
        ("a,b\nNA,1\n", "a", ["b"]),  # no number in row one
        ("1,2,B\n3,4,7\n5,6,C\n", 2, None),  # letters and digits as classes
        ("1,2\n", -1, None),
        ("?,2,3\n1,2,3\n", 0, None),  # a hole is not a name
        (",a,b\n0,1,2\n", "b", ["a"]),  # a column without a name is no feature
    ],
)
def test_header_auto(read, text, target, names):
    try:
        table = read(text, target)
    except DataError as error:
        assert "missing" in str(error) and ("line 1" in str(error)) == (names is None)
    else:
        assert table.feature_names == names or (
            names is None and table.feature_names == ["x0", "x1"][: table.X.shape[1]]
        )


def test_header_forced(read):
    assert read("1,2\n3,4\n", header=True).feature_names == ["1", "2"]
    assert read("1,2\n3,4\n", header=False).X.shape == (2, 2)
    assert "line 1, column 0" in complaint(read, "a,b\n3,4\n", header=False)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_sniffed(read, delimiter):
    lines = ["a,b,c", "1,2,'x;y|z'", "3,4,'p, q'"]
    text = "\n".join(line.replace(",", delimiter).replace("'", '"') for line in lines)
    assert read(text, "c").X.tolist() == [[1, 2], [3, 4]]


def test_delimiter_given(read):
    assert read("1 2\n3 4\n", delimiter=" ").X.tolist() == [[1, 2], [3, 4]]
    assert read("1:2\n3:4\n", delimiter=":").X.tolist() == [[1, 2], [3, 4]]
    assert "one character" in complaint(read, "1,2\n", delimiter=",,")


@pytest.mark.parametrize(
    "cell", ["1e5", " 3 ", "+2.5", "-0", ".5", "5.", "1E-3", "007", '"4"', "9007199254740993"]
)
def test_numbers(read, cell):
    table = read(f"a,b\n{cell},1\n", "b")
    assert table.X.tobytes() == np.array(float(cell.strip('"'))).tobytes()


@pytest.mark.parametrize(
    "cell",
    [
        *["1_000", "0x10", "nan", "inf", "-Infinity", "NA", "1e999", "abc", "1e", "true", "None"],
        *["\u0661", "1.2.3", "-", "1+2", "'1'", "", " ", "1,5", "1 2", '""'],
    ],
)
def test_not_finite_numbers(read, cell):
    quoted = f'"{cell}"' if "," in cell else cell
    said = complaint(read, f"a,b,y\n1,2,3\n4,{quoted},6\n", "y")
    assert "line 3, column 'b'" in said and "must be numeric" in said
    assert repr(cell.strip('"')) in said or not cell.strip()


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        (["7", "-0", " 12 "], "i"),
        (["007", "-0", " 12 "], "U"),  # whoever writes zeros in front means labels
        (["1", "2.0"], "f"),
        (["1", "9223372036854775808"], "u"),
        (["-1", "9223372036854775808"], "U"),
        (["1", "18446744073709551616"], "U"),
        (["007", "x"], "U"),
        (["1_0", "2"], "U"),
        (["NA", "NZ"], "U"),  # Namibia
        (["+", "-"], "U"),
        (["naïve", "日本"], "U"),
    ],
)
def test_target_types(read, cells, dtype):
    table = read("a,y\n" + "".join(f"1,{cell}\n" for cell in cells), "y")
    assert table.y.dtype.kind == dtype
    stripped = [cell.strip() for cell in cells]
    number = float if dtype == "f" else int
    assert table.y.tolist() == (stripped if dtype == "U" else [number(cell) for cell in stripped])


@pytest.mark.parametrize("cells", [["1", "nan"], ["1", ""], ["x", ""], ["2", "1e999"], ["1", "?"]])
def test_target_missing(read, cells):
    said = complaint(read, "a,y\n" + "".join(f"1,{cell}\n" for cell in cells), "y")
    assert "line 3, column 'y': the target is" in said and repr(cells[1]) in said


def test_dialects(read):
    plain = read('a,b,"c ""x"", d"\n1,2,p\n3,4,q\n', 'c "x", d')
    same(plain, read(b'\xef\xbb\xbfa,b,"c ""x"", d"\r\n1,2,p\r\n\r\n3, 4,"q"', 'c "x", d'))
    same(plain, read('\n  \na,b,"c ""x"", d"\r1,2,p\r3,4,q', 'c "x", d'))
    zipped = gzip.compress(b'a;b;"c ""x"", d"\n1;2;p\n3;4;q\n')
    same(plain, read(zipped, 'c "x", d', name="data.csv.gz"))


@pytest.mark.parametrize("name", ["d.tsv", "d.txt", "d.data", "d.unknown", "plain"])
def test_other_extensions(read, name):
    assert read("1\t2\n3\t4\n", name=name).X.shape == (2, 2)


def test_duplicate_names(read):
    assert read("a,a,y\n1,2,3\n", "y").feature_names == ["a", "a"]
    assert "2 columns are called 'y'" in complaint(read, "a,y,y\n1,2,3\n", "y")
    assert read("a,y,y\n1,2,3\n", "2").y.tolist() == [3]


# CSV that is not ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target", "parts"),
    [
        ("", None, ["empty"]),
        ("\n \n", None, ["empty"]),
        ("a,b,c\n", "c", ["only a header"]),
        ("age,height,Kind\n1,2,3\n", "kind", ["no column 'kind'; there are 'Kind', "]),
        ("1,2\n3,4\n", "kind", ["no column 'kind'", "no names", "0 to 1"]),
        ("1,2\n3,4\n", 2, ["no column 2", "0 to 1"]),
        ("1,2\n3,4\n", "-3", ["no column -3"]),
        ("y\n1\n2\n", "y", ["no feature column", "cut at ','"]),
        ("a,b\n1,2\n\n3,4,5\n", "b", ["line 4 has 3 cells", "first row has 2", "','"]),
        ("a,b\n1,2\n3\n", "b", ["line 3 has 1 cells"]),
        ("a,b\n1,2,\n", "b", ["line 2 has 3 cells"]),
        ('a,b\n1,"p\nq"\nz,3\n', "b", ["line 4, column 'a': 'z' is text"]),
        ('a,b\n1,2\n3,"4\n5,6\n', "b", ["line 3", "quoted cell is not closed"]),
        ('a,b\n1,"2"x\n', "b", ["line 2", "after its closing quote"]),
        ("a;b\n1,5;2\n", "b", ["line 2, column 'a': '1,5'", "decimal point"]),
        (b"a,b\n1,\xff\n", "b", ["byte 6 (0xff)", "UTF-8"]),
        (b"a,b\n1,2\0\n", "b", ["byte 7 (0x00)", "binary"]),
        ("a,b\n1,2\n".encode("utf-16"), "b", ["byte 0", "UTF-16"]),
        (b"PK\x03\x04\0\0", None, ["byte 4", "zip"]),
        (gzip.compress(b"1,2\n" * 99)[:-9], None, ["gzip file is cut off"]),
    ],
)
def test_bad_csv(read, text, target, parts):
    said = complaint(read, text, target)
    assert "data.csv: " in said
    assert [part for part in parts if part not in said] == []


def test_long_lists_and_long_cells_are_shortened(read):
    header = ",".join(f"pixel{i}" for i in range(784))
    row = ",".join("0" * 784)
    said = complaint(read, f"{header},Label\n{row},1\n", "label")
    assert "there are 'Label', " in said and "and 775 more" in said and len(said) < 300
    assert len(complaint(read, f"a,b\n{'x' * 9999},1\n", "b")) < 300


def test_culprit_far_down(read):
    lines = ["a,b,y", *(f"{i},{i / 7},{i}" for i in range(9000))]
    lines[8766] = "1,oops,2"
    assert "line 8767, column 'b': 'oops'" in complaint(read, "\n".join(lines), "y")
    lines[8766] = "1,2,3,4"
    assert "line 8767 has 4 cells" in complaint(read, "\n".join(lines), "y")


@pytest.mark.parametrize("words", ["True False", "TRUE TRUE", "false true", "t f", "nan nan"])
def test_booleans_are_text(read, words):
    text = "a,y\n" + "".join(f"{word},1\n" for word in words.split())
    assert "line 2, column 'a'" in complaint(read, text, "y")


@pytest.mark.parametrize("line", [1, 4096, 4097, 4098])
@pytest.mark.parametrize("short", [None, 50, 5000])
def test_pandas_never_cuts_or_pads(read, line, short):
    """A long row at the start or the edge of pandas' chunk, perhaps made up for by a short one."""
    lines = ["a,b,y", *["1,2,w"] * 6000]
    lines[line] = "1,2,w,9"
    if short:
        lines[short] = "1,2"
    said = complaint(read, "\n".join(lines), ignore=["y"])
    assert f"line {min(line, short or line) + 1} has" in said


def test_paths(tmp_path):
    assert "No such file" in complaint(read_table, tmp_path / "no.csv")
    assert "No such file" in complaint(read_table, str(tmp_path / "no.npz"))
    (tmp_path / "d.npy").mkdir()
    assert "directory" in complaint(read_table, tmp_path)
    assert "directory" in complaint(read_table, tmp_path / "d.npy")


def test_without_pandas(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("1,2\n")
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setattr("cmlp.files.csv_file._PANDAS_PAYS", 0)
    assert read_table(path).X.shape == (1, 2)
    assert "cmlp[data]" in complaint(read_table, path, reader="pandas")


# Which line is the header ------------------------------------------------------------------------


def lines(*columns, n=60, seed=0):
    """Lines of a table: columns of decimals, of integers up to a limit, of some words, as given."""
    rng = np.random.default_rng(seed)

    def made(column):
        if isinstance(column, float):
            return [f"{value:.3f}" for value in rng.normal(size=n)]
        if isinstance(column, int):
            return rng.integers(0, column, n)
        return rng.choice(column, n) if isinstance(column, list) else islice(cycle(column), n)

    return [",".join(map(str, row)) for row in zip(*map(made, columns), strict=True)]


D, TREES = 0.0, ["oak", "elm"]
HEADERS = [
    # numbers, and a word that never occurs again above words that do
    ("0,1,2,species", (D, D, D, TREES), True),
    ("0,1,2,species", (9, 9, 9, TREES), True),
    ("0,1,2,3", (D, D, D, TREES), True),
    ("1990,1995,2000,species", (9, 9, 9, TREES), True),
    ("5.1,3.5,1.4,elm", (D, D, D, TREES), False),
    ("0,1,2,elm", (D, D, D, TREES), False),
    # a word above numbers, of which one may be bad
    ("0,1,conc", (D, D, ("1.5", "2.5", "3.5", *["4.25"] * 26, "<0.5")), True),
    ("0,0,label", (D, D, 2), True),
    ("oops,2.5,3.5,elm", (D, D, D, TREES), False),
    ("NA,2.5,3.5,elm", (D, D, D, TREES), False),
    (",2.5,3.5,elm", (D, D, D, TREES), False),
    # numbers alone
    ("0,1,2", (D, D, D), True),
    ("0.0,1.0,2.0", (D, D, D), True),
    ("0,1,2", (9, 9, 9), True),
    ("0,1", (D, D), True),
    ("400.5,401.0,401.5", (D, D, D), True),
    ("1990,1995,2000", (900, 900, 900), True),
    ("1990,1995,2000", (9000, 9000, 9000), True),
    ("2000,1996,1990", (9, 9, 9), True),
    ("3,1,2", (D, D, D), True),  # not one of 180 decimals is written without a point
    ("5,3", (D, D), True),
    ("5,3", (D, (*["1.5"] * 30, "2")), False),
    ("3,1,2", (9, 9, 9), False),
    ("0,0,1", (D, D, D), False),
    ("1,2,7", (9, 9, 9), False),
    ("0,1,2", (range(1, 61), D, D), True),
    ("0,5,9", (range(1, 61), D, D), False),  # the first column counts on: time, or rows
    ("0,1", (tuple(f"{i / 10}" for i in range(1, 61)), D), False),
    # quotes, and an index
    ('"0","1","2"', (9, 9, 9), True),
    ('"7","3","5"', (9, 9, 9), True),
    ("7,3,5", (['"1"', '"2"'], 9, 9), False),
    (",0,1", (range(60), D, D), True),
    (",7,9", (tuple(range(60, 0, -1)), 9, 9), True),
]


@pytest.mark.parametrize(("first", "columns", "header"), HEADERS)
def test_a_header_is_unlike_the_rows_below(read, first, columns, header):
    text = "\n".join([first, *lines(*columns)])
    try:
        table = read(text, -1)
    except DataError as error:
        bad = "<0.5" in str(error)  # the bad cell of the column under 'conc'
        assert ("'conc'" in str(error)) if bad else "line 1, column 0 (counted" in str(error)
        assert header == bad
        return
    assert table.named == header and len(table.X) == 60 + (not header)
    names = [cell.strip('"') for cell in first.split(",")]
    if header:
        assert [*table.feature_names, table.target_name] == [name for name in names if name]


def test_a_close_decision_is_said(read):
    text = "\n".join(["0,1,2", *lines(D, D, D)])
    assert read(text).notes == [
        "line 1 ('0', '1', '2') is taken for the names of the columns; --no-header if it is data"
    ]
    table = read("\n".join(["0,1", *lines(9, 9)]))
    assert table.notes == ["line 1 ('0', '1') is taken for data; --header if it names the columns"]
    rare = "\n".join(["5.1,3.5,yew", *lines(D, D, TREES)])
    assert not read(rare, -1).named and "'yew') is taken for data" in read(rare, -1).notes[0]
    for header in (True, False):
        table = read(text, header=header)
        assert table.named == header and table.notes == [] and len(table.X) == 61 - header
    assert read("\n".join(["0,1,2,kind", *lines(D, D, D, TREES)]), -1).notes == []
    assert read("\n".join(lines(D, D, D)), -1).notes == []


def test_a_label_far_below_tells_that_the_first_line_is_data(read):
    """B is a class: the lines that are examined have only numbers below it, but it occurs again."""
    rows = [f"{i % 7},{i % 3}" for i in range(90_000)]
    rows[50_001] = "5,B"
    assert read("\n".join(["3,B", *rows]), -1, task="classification").y[0] == "B"
    rows[50_001] = "5,1"
    table = read("\n".join(["3,B", *rows]), -1)
    assert (table.feature_names, table.target_name, len(table.X)) == (["3"], "B", 90_000)


def test_what_is_known_decides_the_header(read):
    text = "\n".join(["300,7,1995", *lines(900, 9, 9000)])
    assert not read(text, -1).named
    assert read(text, "1995").target_name == "1995"  # no number of a column
    assert read(text, leave_out=["300"]).feature_names == ["7", "1995"]
    table = read(text, features=["1995", "300"])
    assert table.feature_names == ["1995", "300"] and len(table.X) == 60
    assert "no column '8' " in complaint(read, text, features=["300", "8", "7"]).replace(",", " ")
    one = read("1\n5\n9\n", features=["1"])
    assert one.X.tolist() == [[5], [9]] and "--no-header" in one.notes[0]
    assert "only a header" in complaint(read, "1\n", features=["1"])


# Columns by name ---------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("x0", "x1"), ("a", "b"), ("0", "1"), ("1990", "2000")])
def test_columns_are_read_by_name(read, names):
    a, b = names
    rows = [(f"{i}.5", f"{-i}.25") for i in range(1, 30)]
    expected = np.array(rows, float)

    def table(first, row, **options):
        text = "\n".join([first, *(row.format(*cells, i=i) for i, cells in enumerate(rows))])
        return read(text, features=names, **options)

    for header, row in [
        (f"{a},{b}", "{0},{1}"),
        (f"{b},{a}", "{1},{0}"),
        (f",{b},{a}", "{i},{1},{0}"),  # an index
        (f"Unnamed: 0,{a},{b}", "{i},{0},{1}"),
        (f"id,{a},,{b},note,note", "q,{0},?,{1},,w x"),  # text, gaps, names that are there twice
        (f'{b},"a,\nb",{a},', '{1},"p, ""q""\n{i}",{0},'),
        ("", "{0},{1}"),  # no names at all: by position
    ]:
        got = table(header, row)
        assert np.array_equal(got.X, expected), header
        assert got.named == bool(header) and (not header or got.feature_names == list(names))
    twice = complaint(table, f"{a},{b},{a}", "{0},{1},9")
    assert f"2 columns are called '{a}'" in twice and "--ignore 2" in twice
    assert np.array_equal(table(f"{a},{b},{a}", "{0},{1},9", leave_out=["2"]).X, expected)
    assert f"no column '{b}', which" in complaint(table, f"{a},{b}s,c", "{0},{1},5")
    assert "(and 1 more)" in complaint(table, "what,else", "{0},{1}", header=True)
    for taken in ({"target": a}, {"leave_out": [a]}):
        assert f"needs the column '{a}'" in complaint(table, f"{a},{b}", "{0},{1}", **taken)
    with_target = table(f"y,{b},z,{a}", "{i},{1},,{0}", target="y")
    assert np.array_equal(with_target.X, expected) and with_target.y.tolist() == list(range(29))


def test_names_that_are_nearly_the_same_are_shown_first(read):
    text = "id,weight,Petal  Length,petal width\n1,2,3,4\n"
    said = complaint(read, text, features=["petal length", "petal width"])
    assert "no column 'petal length', which the model was trained with" in said
    assert "there are 'Petal  Length', 'petal width'" in said
    assert read(text, features=[" petal width "]).X.tolist() == [[4]]
    said = complaint(read, text, features=["id", "id"])
    assert "several features called 'id'" in said


def test_columns_without_a_name_are_left_out_with_a_word(read):
    for header in (",a,,y", "Unnamed: 0,a,Unnamed: 2,y"):
        table = read(f"{header}\n0,1,x,3\n1,2,,4\n", "y")
        assert table.feature_names == ["a"] and table.X.tolist() == [[1], [2]]
        assert [note.partition(" (")[0] for note in table.notes] == [
            "columns without a name are left out: 0, 2"
        ]
        [note] = read(f"{header}\n0,1,x,3\n", "y", leave_out=["2"]).notes
        assert "left out: 0 (counted from 0)" in note
    table = read("a,b,\n1,2,3\n4,5,6\n", -1)
    assert (table.y.tolist(), table.target_name, table.notes) == ([3, 6], None, [])
    assert "no feature column is left" in complaint(read, ",,y\n1,2,3\n", "y", header=True)


# Targets -----------------------------------------------------------------------------------------


def column(cells, name="y"):
    """A table with this target."""
    quoted = (f'"{cell}"' if "," in str(cell) else cell for cell in cells)
    return f"a,{name}\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(quoted))


MANY = [f"{1.5 + i / 8}" for i in range(40)]


@pytest.mark.parametrize(
    ("cells", "parts"),
    [
        ([*MANY[:9], "<0.5", *MANY], ["line 11", "'<0.5'", "the number alone, as 0.5"]),
        ([*MANY, "n.d."], ["line 42", "'n.d.'", "turn it into a number"]),
        ([*["n.d."] * 60, *MANY], ["line 2", "'n.d.'"]),  # most cells are bad
        ([*map(str, range(40)), "1O"], ["line 42", "'1O'"]),
        ([*["0", "1"] * 30, "l"], ["line 62", "'l'"]),  # a class of one row
        ([*["0.5", "1.5"] * 30, "l", "l"], ["line 62", "'l'"]),
        ([cell.replace(".", ",") for cell in MANY], ["line 2", "'1,5'", "decimal point, not a"]),
        (["1,0", "1,5"] * 20, ["line 2", "'1,0'", "decimal point"]),
        ([f"{i},000" for i in range(1, 41)], ["write 1000 if", "1.000 if it is a decimal comma"]),
        ([f"1,{i},000" for i in range(100, 140)], ["without separators of thousands"]),
        ([f"1.{i},5" for i in range(100, 140)], ["without separators", "decimal point"]),
        ([f"1 {i}" for i in range(100, 140)], ["without separators of thousands"]),
        ([f"${i}" for i in range(40)], ["'$0'", "the number alone, as 0"]),
        ([f"{i} \u20ac" for i in range(40)], ["the number alone, as 0"]),
        ([f"{i}.5%" for i in range(40)], ["'0.5%'", "as 0.5"]),
        ([f"{i}.5 kg" for i in range(40)], ["'0.5 kg'", "as 0.5"]),
        ([f"\u2212{i}.5" for i in range(40)], ["as -0.5"]),
        ([f"2024-01-{i:02d}" for i in range(1, 32)], ["'2024-01-01', a date or a time"]),
        (["2024-01-01 12:30", "2024-01-02 12:30"] * 9, ["a date or a time"]),
        ([f"name {i}" for i in range(40)], ["'name 0'", "one of 40 different values on 40 rows"]),
        (
            [f"0{i}" for i in range(100, 140)],
            ["'0100'", "--task regression takes them for numbers"],
        ),
        ([f"{10**20 + i}" for i in range(40)], ["'100000000000000000000'", "--task regression"]),
    ],
)
def test_targets_that_are_not_classes(read, cells, parts):
    said = complaint(read, column(cells), "y")
    assert [part for part in [*parts, "column 'y': the target is"] if part not in said] == []
    assert f"--task classification takes all {len(set(cells))} different" in said
    assert read(column(cells), "y", task="classification").y.tolist() == cells
    numbers = "turn it into a number" not in said and not {",", "a date", "alone"} & {*said.split()}
    if numbers and all(cell.isdigit() for cell in cells):
        assert read(column(cells), "y", task="regression").y.tolist() == [*map(float, cells)]
    else:
        assert "regression needs numbers" in complaint(read, column(cells), "y", task="regression")


@pytest.mark.parametrize("cells", [
    ["007", "012"], ["007", "1.0"], ["+1", "-1"], ["1", "2", "x"], ["1.0", "2.0", "x"],
    ["1e3", "+1", "007", "x"], ["A", "7", "3"], ["NA", "EU"], ["none", "mild"], ["null", "x"],
    ["True", "False"], ["5%", "10%"], ["$1", "$2"], ["<5", "5"], ["1-2", "3-4"],
    ["18446744073709551616", "18446744073709551617"], ["-1", "18446744073709551615"],
])  # fmt: skip
def test_labels_keep_their_text(read, cells):
    for task in ("auto", "classification"):
        assert read(column(cells * 20), "y", task=task).y.tolist() == cells * 20


def test_labels_that_are_numbers(read):
    for cells, expected in [
        (["1.0", "2.0"], ["1.0", "2.0"]),
        (["1e3", "+2"], ["1e3", "+2"]),
        (["1", "2"], [1, 2]),
        (["1", "1.0", "2"], [1, 1, 2]),  # one label, written in two ways
        (["0.5", "1.0"], [0.5, 1.0]),  # choose_task refuses them
        (["1", "none"], ["1", "none"]),
    ]:
        assert read(column(cells * 9), "y", task="classification").y.tolist() == expected * 9
    assert read(column(["1.0", "2.0"] * 9), "y").y.dtype == np.float64
    said = complaint(read, column(["1", "none"] * 9), "y")
    assert "missing or infinite" in said and "--task classification takes it for a label" in said
    assert "line 3" in complaint(read, column(["x", ""] * 9), "y", task="classification")


IDS = [2**53 + 1, 2**62 + 1, 2**62 + 2, 2**63 - 1]


@pytest.mark.parametrize("ids", [IDS, [-i for i in IDS], [5, 2**63, 2**63 + 1, 2**64 - 1]])
def test_whole_numbers_keep_their_digits(read, tmp_path, ids):
    for task in ("auto", "classification", "regression"):
        y = read(column(ids * 5), "y", task=task).y
        assert y.tolist() == ids * 5 and y.dtype == (np.uint64 if max(ids) >= 2**63 else np.int64)
    given = np.array(ids, np.uint64 if max(ids) >= 2**63 else np.int64)
    np.savez(tmp_path / "ids.npz", X=np.eye(4), y=given)
    y = read_table(tmp_path / "ids.npz").y
    assert y.tolist() == ids and y.dtype == given.dtype
    np.save(tmp_path / "ids.npy", np.column_stack([given, given[::-1]]))
    assert read_table(tmp_path / "ids.npy", 1).y.tolist() == ids[::-1]
    known = read(column(ids[:2]), "y", classes=given)
    assert known.y.dtype == given.dtype and known.y.tolist() == ids[:2]
    near = next(i for i in (ids[1] - 1, ids[1] + 1) if i not in ids)
    said = complaint(read, column([near]), "y", classes=given)
    assert f"the label '{near}' is not one of the model's" in said


@pytest.mark.parametrize(
    ("classes", "cells", "expected"),
    [
        (["1", "2", "x"], ["1", "2", "1"], ["1", "2", "1"]),
        (["none", "mild"], ["none", "none"], ["none", "none"]),
        (["NA", "EU"], ["NA"], ["NA"]),
        (["007", "012"], ["012", "7"], "'7' is not one of the model's: '007', '012'"),
        ([1, 2, 3], ["1.0", "02", "3"], [1, 2, 3]),
        ([1, 2], ["1", "x"], "line 3, column 'y': the label 'x' is not one of the model's"),
        ([1, 2], ["1.5"], "'1.5' is not one"),
        ([1, 2], ["1", "NA"], "line 3, column 'y': the target is 'NA', which is missing"),
        ([1.0, 2.0], ["1", "2.0"], [1.0, 2.0]),
        ([False, True], ["True", "false", "1"], [True, False, True]),
        ([2**62 + 1, 2**62 + 2], [f"{2**62 + 2}.0"], [2**62 + 2]),
        ([b"a", b"b"], ["b"], [b"b"]),
        (["a", "b"], ["a", ""], "line 3, column 'y': the target is '', which is missing"),
    ],
)
def test_a_models_labels(read, classes, cells, expected):
    options = {"target": "y", "classes": np.unique(classes)}
    if isinstance(expected, str):
        assert expected in complaint(read, column(cells), **options)
    else:
        assert read(column(cells), **options).y.tolist() == expected


def test_a_models_labels_in_arrays(tmp_path):
    for y, classes, expected in [
        (["1", "2"], ["1", "2", "x"], ["1", "2"]),
        ([1.0, 2.0], [1, 2, 3], [1, 2]),
        ([1, 2], ["1", "2", "x"], ["1", "2"]),
        ([5], np.array([5, 2**63], np.uint64), [5]),
    ]:
        path = saved(tmp_path, X=np.eye(len(y)), y=np.array(y))
        assert read_table(path, classes=np.array(classes)).y.tolist() == expected
    said = complaint(read_table, path, classes=np.array([1, 2]))
    assert "row 0 (counted from 0): the label '5' is not one of the model's" in said


# Cells and lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("quote", ["", '"'])
def test_cells_of_any_length(read, quote):
    essay = quote + "word " * 40_000 + quote
    text = f"a,essay,y\n1,{essay},2\n3,x,4\n"
    limit = csv.field_size_limit()
    assert read(text, "y", leave_out=["essay"]).X.tolist() == [[1], [3]]
    assert read(text, "y", features=["a"]).y.tolist() == [2, 4]
    assert "line 3, column 'a': 'z' is text" in complaint(
        read, text.replace("\n3,", "\nz,"), "y", leave_out=["essay"]
    )
    if quote:
        said = complaint(read, text.replace(' ",', " ,"), "y", leave_out=["essay"])
        assert "line 2: a quoted cell is not closed" in said
    assert csv.field_size_limit() == limit


def test_the_limit_of_a_cell_is_put_back(tmp_path):
    """csv has one for the whole process: several threads lift it, and an error keeps a frame."""
    path, seen = tmp_path / "data.csv", []
    path.write_text("a,e,y\n" + f"1,{'w' * 900},2\n" * 50 + "x,y,2\n")

    def work():
        seen.append(read_table(path, "a", features=["y"], reader="numpy", task="classification").X)
        with pytest.raises(DataError, match="line 52, column 'a': 'x' is text") as caught:
            read_table(path, "y", leave_out=["e"], reader="numpy")
        seen.append(caught)  # whose traceback holds on to the reader

    usual = csv.field_size_limit(500)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert csv.field_size_limit() == 500 and len(seen) == 8
    finally:
        csv.field_size_limit(usual)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x\n1\n\n3\n", 3),
        ("x\n1\n  \n3\n", 3),
        ("x\n1\n\t\n3\n", 3),
        ('x\n1\n""\n3\n', 3),
        ('x\n1\n3\n""\n', 4),  # pandas writes a gap of a single column so
        ("x\r\n1\r\n\r\n3\r\n", 3),
        ("x\r1\r\r3\r", 3),
        ("\n\nx\n1\n\n3\n", 5),
        ("1\n\n3\n", 2),
        ("x\n1\n3\n\n\n", None),
        ("x\n1\n3\n  \n", None),
        ("x\n1\n3\n \t \n\n", None),
        ("\n \nx\n1\n3", None),
        ("1\n3\n\n", None),
        ("x,\n1,\n\n3,\n", None),  # a table of two columns
    ],
)
def test_blank_lines_of_one_column(read, text, expected):
    for name, data in [("d.csv", text.encode()), ("d.csv.gz", gzip.compress(text.encode()))]:
        if expected is None:
            assert read(data, name=name).X.tolist() == [[1], [3]]
        else:
            said = complaint(read, data, name=name)
            assert f"line {expected}, column" in said and "'' is an empty cell" in said


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("1,5;2,5\n3,5;4,5\n", "1,5"),
        ("1.234,5;2\n3.234,5;4\n", "1.234,5"),
        ("2020-01-01;1,5\n2020-01-02;2,5\n", "2020-01-02"),
        ("1,5\t2,5\n3,5\t4,5\n", "1,5"),
        ('a,b\n"1,234",2\n"2,345",3\n', "1,234"),
        ("5%,50%\n1,2\nx,3\n", "x"),  # words above numbers
        ("$1;$2\n$3;$4\n", "$1"),
    ],
)
def test_numbers_in_disguise_are_neither_cut_nor_names(read, text, cell):
    assert f": {cell!r} is text, but" in complaint(read, text)


@pytest.mark.parametrize("cell", ["1,5", "1,234", "1,234.5", "$5", "5%"])
def test_features_get_the_same_advice_as_targets(read, cell):
    text = f"a;b;y\n1;2;3\n{cell};5;6\n"
    feature = complaint(read, text, "y").partition("finite; ")[2]
    target = complaint(read, text, "a", task="regression").partition("needs numbers; ")[2]
    assert feature == target and feature


# Both roads --------------------------------------------------------------------------------------


def outcome(path, reader, **options):
    try:
        return read_table(path, reader=reader, **options)
    except DataError as error:
        return str(error)


def agree(path, text, **options):
    path.write_bytes(text.encode())
    one, two = (outcome(path, reader, **options) for reader in ("numpy", "pandas"))
    if isinstance(one, str) or isinstance(two, str):
        assert one == two
    else:
        same(one, two)


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CELLS = r"""1  2.5  -0  1e5  1e-320  x  "5"  "a,b"  q"r  NA  1_0  True  é  1e400  0x1  \  2**3  '"""
CELL = st.sampled_from([*CELLS.split("  "), "", " ", " 3", "4\t", "\x0b7", "\x1c8", "\xa09"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.integers().map(str)


@pytest.mark.skipif(not HAS_PANDAS, reason="needs pandas")
@FUZZ
@given(
    st.lists(st.lists(CELL | NUMBERS, min_size=1, max_size=4), max_size=6),
    st.sampled_from([None, 0, -1]),
    st.sampled_from([",", "\t"]),
)
def test_readers_agree_on_anything(tmp_path, rows, target, delimiter):
    text = "\n".join(delimiter.join(row) for row in rows)
    agree(tmp_path / "a.csv", text, target=target, header=False)


@pytest.mark.skipif(not HAS_PANDAS, reason="needs pandas")
@FUZZ
@given(st.lists(st.tuples(NUMBERS, NUMBERS, CELL), min_size=1, max_size=9))
def test_readers_agree_on_numbers(tmp_path, rows):
    text = "\n".join(["a,b,c", *map(",".join, rows)])
    agree(tmp_path / "a.csv", text, target="c", delimiter=",")
    agree(tmp_path / "a.csv", text, ignore=["c"], delimiter=",")
    agree(tmp_path / "a.csv", text, features=["b", "a"], delimiter=",")
    agree(tmp_path / "a.csv", text, features=["b"], target="a", delimiter=",")


@pytest.mark.skipif(not HAS_PANDAS, reason="needs pandas")
@FUZZ
@given(
    st.lists(st.tuples(CELL, NUMBERS, CELL, NUMBERS) | st.tuples(NUMBERS, CELL), min_size=1),
    st.sampled_from([["b"], ["d", "b"], ["a"]]),
)
def test_readers_agree_where_other_columns_hold_anything(tmp_path, rows, features):
    text = "\n".join(["a,b,c,d", *map(",".join, rows)])
    agree(tmp_path / "a.csv", text, features=features)


@pytest.mark.skipif(not HAS_PANDAS, reason="needs pandas")
@FUZZ
@given(st.lists(NUMBERS | st.sampled_from(["", " ", "\t", '""', "x"]), max_size=6))
def test_readers_agree_on_one_column(tmp_path, rows):
    agree(tmp_path / "a.csv", "\n".join(["x", *rows]), header=True)
    agree(tmp_path / "a.csv", "\n".join(rows), header=False)


# .npy and .npz -----------------------------------------------------------------------------------


def saved(tmp_path, array=None, **arrays):
    path = tmp_path / ("a.npy" if array is not None else "a.npz")
    if array is not None:
        np.save(path, array)
    else:
        np.savez(path, **arrays)
    return path


def test_npy(tmp_path):
    path = saved(tmp_path, np.arange(6, dtype=np.uint8).reshape(2, 3))
    table = read_table(path)
    assert table.X.dtype == np.uint8 and table.y is None and table.feature_names[2] == "x2"
    table = read_table(path, "-1")
    assert table.X.tolist() == [[0, 1], [3, 4]] and table.y.tolist() == [2, 5]
    assert table.y.dtype == np.int64 and table.target_name is None
    path = saved(tmp_path, np.array([[1.5, 1.0], [2.5, 2.0]], ">f4"))
    assert read_table(path, 0).y.dtype == np.float64 and read_table(path, 1).y.dtype == np.int64
    assert read_table(path).X.dtype == np.float32 and read_table(path).X.dtype.isnative


def test_npz(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = saved(tmp_path, X=images, labels=np.array(["a ", "b"]), other=np.eye(2))
    table = read_table(path)
    assert table.X.shape == (2, 12) and table.target_name == "labels"
    assert table.y.tolist() == ["a", "b"]
    assert read_table(path, ignore=["labels"]).y is None
    assert read_table(path, "other").y.tolist() == [[1, 0], [0, 1]]
    assert read_table(path, 0).y.tolist() == [0, 12]
    path = saved(tmp_path, x_train=images, y_train=[[1], [0]], y=[1, 2, 3], x_test=images[:1])
    assert read_table(path).y.tolist() == [1, 0]
    path = saved(tmp_path, x=images > 3, y=np.array([b"1", b"2"]))
    assert read_table(path).y.tolist() == [1, 2] and read_table(path).X.dtype == np.uint8


@pytest.mark.parametrize(
    ("arrays", "target", "parts"),
    [
        ({"Z": np.eye(2), "Y": [1, 2]}, None, ["features called 'X'", "'Z'", "'Y'"]),
        ({"X": np.eye(2), "labels": [1, 2]}, "label", ["no 'label'; there are 'labels', 'X'"]),
        ({"X": np.eye(2), "y": [1, 2, 3]}, None, ["2 rows", "(3,)"]),
        ({"X": np.eye(2), "y": 3}, None, ["2 rows", "()"]),
        ({"X": np.eye(2), "y": [1, np.nan]}, None, ["row 1", "target", "missing"]),
        ({"X": np.eye(2), "y": ["x", ""]}, None, ["row 1", "target", "missing"]),
        ({"X": np.eye(2), "y": [1j, 2]}, None, ["targets", "complex128"]),
        ({"X": np.eye(2) * 1j}, None, ["features", "complex128", "real numbers"]),
        ({"X": np.array([["a", "b"]])}, None, ["features", "<U1"]),
        ({"X": np.array([[1, None]])}, None, ["Python objects"]),
        ({"X": np.eye(2), "y": np.array([1, None])}, None, ["Python objects"]),
        ({"X": np.array([[1, 2], [3, np.inf]])}, None, ["row 1, column 1", "inf", "finite"]),
        ({"X": np.arange(3)}, None, ["(rows, columns)", "(3,)"]),
        ({"X": np.empty((0, 3))}, None, ["(0, 3)"]),
        ({"X": np.eye(2)}, 2, ["no column 2", "0 to 1"]),
        ({"X": np.ones((2, 1))}, 0, ["no feature column"]),
        ({"X": np.zeros(2, "i4,f8")}, None, ["real numbers"]),
    ],
)
def test_bad_arrays(tmp_path, arrays, target, parts):
    said = complaint(read_table, saved(tmp_path, **arrays), target)
    assert [part for part in parts if part not in said] == []
    if list(arrays) == ["X"]:
        said = complaint(read_table, saved(tmp_path, arrays["X"]), target)
        assert [part for part in parts if part not in said] == []


def test_not_numpy_files(tmp_path):
    for name in ("a.npy", "a.npz"):
        path = tmp_path / name
        path.write_bytes(b"")
        assert "empty" in complaint(read_table, path)
        path.write_bytes(b"a,b\n1,2\n")
        assert "begins with" in complaint(read_table, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X", "1,2")
    assert "does not hold NumPy arrays" in complaint(read_table, path)
    path = tmp_path / "a.csv"
    np.save(tmp_path / "a.npy", np.eye(3))
    path.write_bytes((tmp_path / "a.npy").read_bytes())
    assert ".npy" in complaint(read_table, path)


def test_columns_of_arrays_that_are_left_out(tmp_path):
    path = saved(tmp_path, np.arange(8).reshape(2, 4))
    table = read_table(path, 3, leave_out=["0", 1])
    assert table.X.tolist() == [[2], [6]] and table.y.tolist() == [3, 7]
    assert "'3' cannot be left out" in complaint(read_table, path, 3, leave_out=["3"])
    assert "no 'id' to leave out" in complaint(read_table, path, 3, leave_out=["id"])
    assert "are for CSV" in complaint(read_table, path, 3, header=False)
    path = saved(tmp_path, X=np.eye(2), y=np.array([np.nan, 1]))
    assert read_table(path, leave_out=["y"]).y is None
    assert read_table(path, use_target=False).y is None
    assert "there are 'y', 'X'" in complaint(read_table, path, leave_out=["Y"])


def test_true_and_false_are_labels(tmp_path):
    path = saved(tmp_path, X=np.eye(2), y=np.array([True, False]))
    assert read_table(path).y.tolist() == [True, False] and read_table(path).y.dtype == bool
    assert read_table(path, task="regression").y.dtype == np.int64


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_damaged_numpy_files(tmp_path, kind):
    buffer = io.BytesIO()
    X = np.random.default_rng(0).integers(0, 9, (30, 4))
    if kind == "npy":
        np.save(buffer, X)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(buffer, X=X, y=X[:, 0])
    whole = buffer.getvalue()
    path = tmp_path / f"a.{kind[:3] if kind != 'compressed' else 'npz'}"
    for end in range(1, len(whole), 37):
        path.write_bytes(whole[:end])
        complaint(read_table, path)
    for at in range(0, min(len(whole), 1400), 3):
        for flip in (0x01, 0xFF):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            outcome(path, "auto")  # a table or a DataError, nothing else


def test_columns_that_are_left_out_have_to_be_there(read):
    table = read("id,a,b,y\n1,2,3,0\n2,3,4,1\n", "y", leave_out=["id", "2"])
    assert table.feature_names == ["a"] and table.X.tolist() == [[2], [3]]
    message = complaint(read, "id,a,y\n1,2,0\n", "y", leave_out=["ids"])
    assert "'ids'" in message and "id" in message.split("'ids'")[1]
    assert "'y'" in complaint(read, "id,a,y\n1,2,0\n", "y", leave_out=["y"])


@pytest.mark.parametrize("hint", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;\r"])
@pytest.mark.parametrize("first", ["a;y\n", ""])
def test_the_first_line_may_name_the_delimiter(read, hint, first):
    table = read(f"{hint}\n{first}1;2\n3;5\n5;6\n", "y" if first else 1, header=bool(first))
    assert table.X.tolist() == [[1], [3], [5]] and table.y.tolist() == [2, 5, 6]
    assert "line 4" in complaint(read, f"{hint}\na;y\n1;2\nx;4\n", "y")


@pytest.mark.parametrize(
    "text",
    [
        "# made by a tool\na,b,y\n1,2,3\n4,5,6\n",
        "# made by a tool, today\na,b,y\n1,2,3\n4,5,6\n",
        '"a","b"\n"1",2,3\n"2",4,5\n"3",4,5\n',  # row names of R, which has none above them
        "a,b,y,\n1,2,3\n4,5,6\n7,8,9\n",
    ],
)
def test_a_first_line_of_another_width(read, text):
    message = complaint(read, text, "y")
    assert "line 1" in message and "write a name above each column" in message
    message = complaint(read, "1,2\n1,2,3\n4,5,6\n", 0)  # data, as far as one can tell
    assert "line 2 has 3 cells" in message


def test_lines_that_are_not_cut(read):
    message = complaint(read, "a b y\n1 2 3\n4 5 6\n", "y")
    assert "cells are cut at ';', '|', ',' or a tab" in message
    assert "of which line 1 has none" in complaint(read, "1 2 3\n4 5 6\n", -1)


@pytest.mark.parametrize(
    "rows, line",
    [
        (["1,2,3", "a,b,y", "4,5,6"], 3),
        (["m,s,kg", "1,2,3", "4,5,6"], 2),
        ([",,kg", "1,2,3", "4,5,6"], 2),
        (["1,2,3", "4,5,6", "Total,,9"], 4),
    ],
)
def test_lines_of_names_and_units_among_the_rows(read, rows, line):
    message = complaint(read, "\n".join(["a,b,y", *rows]), "y")
    assert f"line {line}," in message and "remove a line of names, units or totals" in message
    message = complaint(read, "a,b,y\nx,u,1\nz,v,2\n", "y")  # columns of text
    assert "--ignore" in message and "totals" not in message


@pytest.mark.parametrize(
    "data, kind",
    [
        ("größe,y\n1,2\n".encode("latin-1"), "another encoding"),
        ("a,y\n1,2\n".encode("utf-16"), "UTF-16"),
        ("a,y\n1,2\n".encode("utf-16-le"), "UTF-16"),
        ("a,y\n1,2\n".encode("utf-16-be"), "UTF-16"),
        ("a,y\n1,2\n".encode("utf-32"), "UTF-32"),
        (bz2.compress(b"a,y\n1,2\n"), "bzip2"),
        (lzma.compress(b"a,y\n1,2\n"), "xz"),
        (bytes(range(256)), "binary"),
    ],
)
def test_bytes_that_are_not_utf_8_are_called_what_they_are(read, data, kind):
    assert kind in complaint(read, data)


@pytest.mark.parametrize("gap", ["-", ".", "--", "<NA>", "#N/A", "#DIV/0!"])
def test_more_ways_to_write_a_missing_value(read, gap):
    text = "a,y\n" + "".join(f"{i}.5,{i % 2}\n" for i in range(30))
    assert "missing" in complaint(read, f"{text}1,{gap}\n2,{gap}\n", "y")
    assert "missing" in complaint(read, f"{text}{gap},1\n", "y")
    table = read(f"{text}1,{gap}\n2,{gap}\n", "y", task="classification")
    assert gap in table.y.tolist()
    assert read("#a,y\n1,+\n2,-\n3,+\n", "y").feature_names == ["#a"]  # labels, and a name


@pytest.mark.parametrize("form", ["{}-Jan-2020", "Jan {}, 2020", "{} March 2021", "{}.10.20"])
def test_more_ways_to_write_a_date(read, form):
    text = "a,y\n" + "".join(f'{i}.5,"{form.format(10 + i % 9)}"\n' for i in range(60))
    assert "a date or a time" in complaint(read, text, "y")
    text = "a,y\n" + "".join(f"{i}.5,{('may', 'march', 'may 1')[i % 3]}\n" for i in range(60))
    assert {*read(text, "y").y} == {"may", "march", "may 1"}


def test_a_models_labels_that_are_texts_of_numbers(read):
    classes = np.array(["0.0", "1.0"])
    table = read("a,y\n1,1\n2,0\n3,1.00\n4,1.0\n", "y", classes=classes)
    assert table.y.tolist() == ["1.0", "0.0", "1.0", "1.0"]
    for cell in ("01", "2", "0.5"):
        assert "not one of" in complaint(read, f"a,y\n1,{cell}\n", "y", classes=classes)
    both = np.array(["1", "1.0"])
    assert read("a,y\n1,1.0\n2,1\n", "y", classes=both).y.tolist() == ["1.0", "1"]
    assert "not one of" in complaint(read, "a,y\n1,1.00\n", "y", classes=both)
    assert "not one of" in complaint(read, "a,y\n1,7\n", "y", classes=np.array(["007", "08"]))


def test_an_empty_first_cell_of_one_column(read):
    for text in ("\n1\n3\n", '""\n1\n3\n', "  \n1.5\n3\n"):
        assert "line 1 is empty" in complaint(read, text)
    assert read("\nx\n1\n3\n").X.tolist() == [[1], [3]]
    assert read("\n1,2\n3,4\n").X.tolist() == [[1, 2], [3, 4]]


def test_a_byte_order_mark_below_the_header(read):
    assert "line 2" in complaint(read, "a,y\n\ufeff1,2\n3,4\n", "y")
    assert "line 3" in complaint(read, "a,y\n1,2\n\ufeff3,4\n", "y")


def test_features_that_lose_digits_are_noted(read):
    rows = "".join(f"{2**53 + 1 + i},{i}.5,1\n" for i in range(9))
    (note,) = read("id,a,y\n" + rows, "y").notes
    assert "column 'id'" in note and "--ignore" in note and "90071992547" in note
    assert not read("id,a,y\n" + rows, "y", leave_out=["id"]).notes
    assert not read("a,y\n1e20,1\n9007199254740992,2\n", "y").notes
    (note,) = read("a,y\n1,1\n-9007199254740993,2\n", "y").notes
    assert "line 3" in note


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_features_of_arrays_that_lose_digits_are_noted(tmp_path, dtype):
    X = np.array([[1, 2], [3, 2**60 + 1]], dtype)
    (note,) = read_table(saved(tmp_path, X)).notes
    assert "row 1, column 1" in note and str(2**60 + 1) in note
    assert not read_table(saved(tmp_path, X), leave_out=["1"]).notes
    assert not read_table(saved(tmp_path, X.astype(float))).notes
    if dtype == np.int64:
        (note,) = read_table(saved(tmp_path, -X)).notes
        assert str(-(2**60) - 1) in note


def test_the_test_arrays_of_an_npz(tmp_path):
    path = tmp_path / "parts.npz"
    train, test = np.full((3, 2), 3), np.full((2, 2), 2)
    np.savez(path, X_train=train, X_test=test, y_train=np.arange(3), y_test=np.arange(2))
    assert len(read_table(path).X) == len(read_table(path).y) == 3
    for target in (None, "y_train", "y_test"):
        table = read_table(path, target, part="test")
        assert table.X.tolist() == [[2, 2], [2, 2]] and table.y.tolist() == [0, 1]
        assert table.target_name == "y_test"
