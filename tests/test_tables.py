"""The command line's reader: what files mean, on both roads, and what it says about bad ones."""

from __future__ import annotations

import gzip
import importlib.util
import io
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmlp.tables import DataError, read_table

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
        (",a,b\n0,1,2\n", "b", ["x0", "a"]),
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
        (["007", "-0", " 12 "], "i"),
        (["1", "2.0"], "f"),
        (["1", "9223372036854775808"], "f"),
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
    assert table.y.tolist() == (stripped if dtype == "U" else [float(cell) for cell in stripped])


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
    monkeypatch.setattr("cmlp.tables._PANDAS_PAYS", 0)
    assert read_table(path).X.shape == (1, 2)
    assert "cmlp[data]" in complaint(read_table, path, reader="pandas")


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


def test_the_test_arrays_of_an_npz(tmp_path):
    path = tmp_path / "parts.npz"
    train, test = np.full((3, 2), 3), np.full((2, 2), 2)
    np.savez(path, X_train=train, X_test=test, y_train=np.arange(3), y_test=np.arange(2))
    assert len(read_table(path).X) == len(read_table(path).y) == 3
    for target in (None, "y_train", "y_test"):
        table = read_table(path, target, part="test")
        assert table.X.tolist() == [[2, 2], [2, 2]] and table.y.tolist() == [0, 1]
        assert table.target_name == "y_test"
