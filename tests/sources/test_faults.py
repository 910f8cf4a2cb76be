"""What is wrong with files, or in them: class of the error, file, place; no thread is left."""

import os
import subprocess
import sys
import threading
import warnings

import made
import numpy as np
import pytest

import cmlp
from cmlp.data import DataError
from cmlp.sources import csv as csv_file
from cmlp.sources.columns import rows_of_table
from cmlp.sources.parquet import ParquetSource
from cmlp.sources.tables import whole_table


@pytest.fixture(autouse=True)
def no_thread_is_left(monkeypatch):
    made.small_pieces(monkeypatch)
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def fails(source, match, memory="30 KB", error=DataError, **more):
    """Check how a fit to a source fails, in windows, and that the weights are finite."""
    net = cmlp.Network([made.D, 4, 3 if source.target_name != "n" else 1], seed=0)
    with pytest.raises(error, match=match), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        net.fit(source, memory=memory, epochs=3, **more)
    assert np.isfinite(net.params).all()


def test_npy_files(tmp_path):
    X, labels, _ = made.rows()
    source = made.write_npy(tmp_path, X, labels)

    def npy(X_paths="X*.npy", y_paths="y*.npy"):
        return cmlp.data.npy(str(tmp_path / X_paths), str(tmp_path / y_paths))

    bad = X.copy()
    bad[1000, 4] = np.inf
    made.write_npy(tmp_path, bad, labels)
    for memory in ("30 KB", "1 GB"):
        fails(npy(), r"X2.npy, row 287: X holds inf at column 4 ", memory)
    fails(source, "0.npy: the file has changed since the source was made")
    whole = (tmp_path / "X1.npy").read_bytes()
    for damage, match in (
        (whole[:-8], "X1.npy: is cut off: .* bytes, .* were expected"),
        (b"text", "X1.npy: not a .npy file"),
    ):
        (tmp_path / "X1.npy").write_bytes(damage)
        with pytest.raises(DataError, match=match):
            npy()
    np.save(tmp_path / "X1.npy", np.zeros((13, 5)))
    with pytest.raises(DataError, match=r"X1.npy: rows of the shape \(5,\), but those of .*X0.npy"):
        npy()
    np.save(tmp_path / "X1.npy", np.zeros(13))
    with pytest.raises(DataError, match=r"X1.npy: X must be \(rows, features\)"):
        npy()
    np.save(tmp_path / "X1.npy", np.zeros((12, made.D)))
    with pytest.raises(DataError, match=r"y has 1,600 rows in 3 files, but X has 1,599 in 3"):
        npy()
    np.save(tmp_path / "X1.npy", np.full((13, made.D), "text"))
    with pytest.raises(DataError, match=r"X1.npy: holds <U4, but .*X0.npy float64"):
        npy()
    np.save(tmp_path / "X1.npy", np.array([[object()] * made.D] * 13))
    with pytest.raises(DataError, match=r"X1.npy: holds Python objects"):
        npy()
    for paths in ("nothing*.npy", "nothing.npy", "."):
        with pytest.raises(DataError, match=r"no file|cannot be read|is a directory"):
            npy(paths)


def test_unknown_labels_and_weights_have_their_row(tmp_path):
    X, labels, _ = made.rows()
    net = cmlp.Network([made.D, 4, 3], seed=0)
    net.fit(X, labels, epochs=0)
    other = labels.astype("<U12").copy()
    other[1203] = "other"
    source = made.write_npy(tmp_path, X, other)
    with pytest.raises(DataError, match=r"y2|X2.npy, row 490: y holds the label 'other'"):
        net.fit(source, memory="30 KB")
    weight = np.ones(made.N)
    weight[30] = -1
    for name, values in (("X", X), ("y", labels), ("w", weight)):
        np.save(tmp_path / f"{name}.npy", values)
    weighted = cmlp.data.npy(*(tmp_path / f"{name}.npy" for name in "Xyw"))
    fails(weighted, r"X.npy, row 30: the weight is -1.0; weights must be finite")


def test_csv_files(tmp_path):
    X, labels, _ = made.rows()
    source = made.write_csv(tmp_path, X, labels)
    path = tmp_path / "t1.csv"
    text = path.read_text()
    lines = text.split("\n")

    def csv(at=None, line="", memory="90 KB", **more):
        changed = list(lines)
        if at is not None:
            changed[at - 1] = line
        path.write_text("\n".join(changed))
        names = [f"c{i}" for i in range(made.D)]
        return cmlp.data.csv(str(tmp_path / "t*.csv"), "target", names, **more)

    at = next(i for i, line in enumerate(lines, 1) if i > 500 and '"' not in line)
    cells = lines[at - 1].split(",")
    for line, match in (
        ("1,2", f"t1.csv: line {at} has 2 cells, but the first row has 7"),
        (
            ",".join(["x", *cells[1:]]),
            f"t1.csv, line {at}, column 'c5': a number expected, 'x' came",
        ),
        (",".join(["", *cells[1:]]), f"t1.csv, line {at}: X holds nan at column 'c5'"),
        (",".join([*cells[:-1], ""]), f"t1.csv, line {at}: the target is ''"),
    ):
        for memory in ("90 KB", "1 GB"):
            fails(csv(at, line), match, memory)
    fails(source, "the file has changed", "90 KB")
    gap = ",".join(["NA", *cells[1:]])
    skipping = csv(at, gap, missing="skip")
    assert skipping.n_rows == made.N - 1 and skipping.n_skipped == 1
    kept = np.concatenate([block.X for block in skipping.stream()])
    assert (kept == np.delete(X, 700 + at - 2, axis=0)).all()
    assert skipping.part(1, 2).place(0, 0).startswith(str(tmp_path))
    row = 700 + at - 2
    block = int(np.searchsorted(np.cumsum(skipping.blocks), row, "right"))
    row -= sum(skipping.blocks[:block])
    assert skipping.place(block, row).endswith(f"line {at + 1}")  # after the one that is skipped
    filled = np.concatenate([block.X for block in csv(at, gap, missing=7.0).stream()])
    assert filled[700 + at - 2, 5] == 7.0
    lines[0] = lines[0].replace("c3", "c9")
    with pytest.raises(DataError, match=r"t1.csv: .*c3"):
        csv()
    for wrong in ("neither", np.nan, None):
        with pytest.raises(ValueError, match="missing must be"):
            csv(missing=wrong)


def test_names_that_occur_twice(tmp_path):
    """A column is found by its name: never another one of the same name in silence."""
    path = tmp_path / "t.csv"
    path.write_text("y,a,y\n" + "1,2,3\n" * 40)
    found = cmlp.data.csv(path, 2).read(0)
    assert found.X.tolist() == [[1, 2]] * 40 and found.y.tolist() == [3] * 40
    with pytest.raises(DataError, match=r"t.csv: several columns are called 'y'; rename all but"):
        cmlp.data.csv(path, 1)
    pa, pq = (pytest.importorskip(f"pyarrow{name}") for name in ("", ".parquet"))
    table = pa.table([[1], [2], [3], [4]], ["a", "y", "a", "__index_level_0__"])
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "_SUCCESS").touch()
    for columns, match in ((None, "several .* 'a'"), (["b"], "no column 'b'")):
        with pytest.raises(DataError, match=match):
            cmlp.data.parquet(str(tmp_path / "t.p*"), "y", columns)
    pq.write_table(table.select([0, 1, 3]), tmp_path / "t.parquet")
    path.unlink()
    source = cmlp.data.parquet(str(tmp_path / "*"), "y")  # without pandas' index
    assert source.feature_names == ["a"] and len(source.files) == 1
    for columns, match in (
        (["a", "a"], "'a' is named twice"),
        (["a", "y"], "'y' is a feature and"),
    ):
        with pytest.raises(DataError, match=match):
            cmlp.data.parquet(tmp_path / "t.parquet", "y", columns)


def test_rows_of_csv_end_after_their_quoted_cells(tmp_path, monkeypatch):
    """Lines in cells, and quotes that begin no cell, wherever a block ends."""
    cells = ["plain", '5" pipe', "a, b", "two\nlines", 'a "word"', "", "ä€", '"']
    path = tmp_path / "räume und leer.csv"
    for size in (50, 133, 700, 1 << 20):
        monkeypatch.setattr(csv_file, "BLOCK_BYTES", size)
        for end, mark in (("\n", ""), ("\r\n", "\ufeff")):
            texts = [cells[(i * i + size) % len(cells)] for i in range(150)]
            quoted = [
                text if "pipe" in text else '"' + text.replace('"', '""') + '"' for text in texts
            ]
            lines = [f"{i},{text},{i % 3}" for i, text in enumerate(quoted)]
            whole = end.join([mark + "number,text,target", *lines[:70], "", *lines[70:]])
            path.write_text(whole, encoding="utf-8", newline="")
            source = cmlp.data.csv(path, "target")
            table, y, _ = whole_table(source, "a test")
            numbers, text = table.forms
            assert (numbers.values == np.arange(150)).all() and (y == np.arange(150) % 3).all()
            read = [text.values[code] if code >= 0 else "" for code in text.codes]
            assert read == texts and (size > 600 or len(source.blocks) > 3)
    path.write_text("a,b,y\n" + "1,x,0\n" * 200 + '2,"x,1\n' + "1,x,0\n" * 200)
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 700)
    with pytest.raises(DataError, match="line 202: a quoted cell is not closed"):
        cmlp.data.csv(path, "y")
    monkeypatch.setattr(csv_file, "LONGEST_ROW", 1000)
    with pytest.raises(DataError, match=r"line 202: more than .* bytes are a row"):
        cmlp.data.csv(path, "y")


def test_files_that_vanish_are_named(tmp_path):
    X, labels, _ = made.rows()
    source = made.write_npy(tmp_path, X, labels)
    path = tmp_path / "X2.npy"

    def remove(state):
        if path.exists():
            path.unlink()

    fails(source, "X2.npy: cannot be read: No such file", callbacks=[remove])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="there are no rows"):
        made.write_npy(empty, X[:0], labels[:0], cuts=())
    one = tmp_path / "one"
    one.mkdir()
    row = made.write_npy(one, X[:1], np.ones(1), cuts=())
    with pytest.raises(ValueError, match="windows of 4 batches of 32 rows need memory="):
        cmlp.Network([made.D, 1]).fit(row, memory=10)
    cmlp.Network([made.D, 1]).fit(row)
    gone = [iter([(X, labels)])]
    fails(cmlp.data.batches(lambda: gone[0], n_rows=9), "must .* the same at each call|same rows")


def test_streams(tmp_path):
    X, labels, _ = made.rows()
    n_calls = [0]

    def shrinking():
        n_calls[0] += 1
        yield X[: 1600 - 100 * n_calls[0]], labels[: 1600 - 100 * n_calls[0]]

    fails(cmlp.data.batches(shrinking), "other rows than at first", shuffle=False)

    def broken():
        yield X[:900], labels[:900]
        raise OSError("the line is dead")

    fails(cmlp.data.batches(broken, n_rows=1600), "the line is dead", error=OSError, shuffle=False)
    for second, match in (
        ((X, labels, np.ones(made.N)), r"\(X, y, weight\) with y of the shape \(n,\)"),
        ((X, labels[:, None]), r"\(X, y\) with y of the shape \(n, 1\)"),
    ):
        source = cmlp.data.batches(lambda second=second: [(X, labels), second])
        fails(source, f"batch 1 is {match}, text, but the first one")
    with pytest.raises(TypeError, match="make must be a function"):
        cmlp.data.batches([(X, labels)])
    for batch, match in (
        (X, "must be .X, y. or"), ((X, labels[:3]), "X of the shape"),
        ((X, labels, [1.0]), "the weights of batch 0"), ((X[:, :2], labels), "has 2 features"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=match):
            list(cmlp.data.batches(lambda batch=batch: [batch], n_features=made.D).stream())
    with pytest.raises(DataError, match="yields nothing"):
        cmlp.data.batches(lambda: [])
    with pytest.raises(TypeError, match="data frame"):
        cmlp.data.arrays(type("Frame", (), {"iloc": 0, "shape": (1, 1)})(), [1])
    with pytest.raises(ValueError, match=r"must have 1600 rows like X"):
        cmlp.data.arrays(X, labels[:10])


def test_parquet_files(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    X, labels, _ = made.rows()
    source = made.write_parquet(tmp_path, X, labels)
    with monkeypatch.context() as patch:
        parsed, real = [], pq.ParquetFile
        patch.setattr(pq, "ParquetFile", lambda *a, metadata, **how: (
            parsed.append(metadata is None), real(*a, metadata=metadata, **how))[1])  # fmt: skip
        list(source.stream())
        assert sum(parsed) == 2 < len(parsed)  # a footer describes all row groups of a file

    def write(**columns):
        table = {f"c{i}": X[700:, i] for i in range(made.D)} | {"target": labels[700:]}
        table = {name: column for name, column in (table | columns).items() if column is not None}
        pq.write_table(pa.table(table), tmp_path / "t1.parquet", row_group_size=250)

    def parquet(**more):
        names = [f"c{i}" for i in range(made.D)]
        return cmlp.data.parquet(str(tmp_path / "t*.parquet"), "target", names, **more)

    holes = X[700:, 2].copy()
    holes[310] = np.nan
    write(c2=pa.array(holes, from_pandas=True))
    fails(source, "t0.parquet|t1.parquet: the file has changed", "90 KB")
    for memory in ("90 KB", "1 GB"):
        fails(parquet(), "t1.parquet, row group 1, row 60: X holds nan at column 'c2'", memory)
        with pytest.raises(DataError, match=r"t1.parquet, row group 1, row 60: X holds nan at"):
            cmlp.MLPClassifier(4, max_iter=1, batch_size=32).fit(parquet(), memory=memory)
    assert parquet(missing="skip").n_rows == made.N - 1
    write(c2=pa.array([int(value) for value in holes[:-1].round().tolist()[:310]] + [None] * 590))
    assert isinstance(parquet(), ParquetSource)  # integers and gaps among floats
    write(c2=pa.array([None] * 900))
    assert np.isnan(parquet().read(len(parquet().blocks) - 1).X[:, 2]).all()
    write(c2=pa.array(["text"] * 900))
    with pytest.raises(DataError, match=r"t1.parquet: the column 'c2' holds string, but double in"):
        parquet()
    write(c2=None)
    with pytest.raises(DataError, match=r"t1.parquet: there is no column 'c2', which .*t0.parquet"):
        parquet()
    write()
    whole = (tmp_path / "t1.parquet").read_bytes()
    damaged = bytearray(whole)
    damaged[2000:6000] = bytes(4000)
    (tmp_path / "t1.parquet").write_bytes(bytes(damaged))
    fails(parquet(), r"t1.parquet, row group \d: is cut off, damaged", "90 KB")
    (tmp_path / "t1.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"t1.parquet: is cut off, damaged or no Parquet file"):
        parquet()
    with pytest.raises(DataError, match="no column 'c77'"):
        cmlp.data.parquet(tmp_path / "t0.parquet", "target", ["c77"])
    text = cmlp.data.parquet(tmp_path / "t0.parquet", "c0")
    with pytest.raises(DataError, match="the column 'target' holds string, but a network needs"):
        cmlp.Network([made.D, 3, 1]).fit(text)


def test_reading_does_not_import_pandas(tmp_path):
    """Half a second in which Ctrl-C is lost, or breaks pandas."""
    pa, pq = (pytest.importorskip(f"pyarrow{name}") for name in ("", ".parquet"))
    columns = {"n": [1.5, None, 3] * 9, "t": ["a", None, "c"] * 9, "b": [True, None, False] * 9}
    columns |= {"i": pa.array([1, None, 3] * 9, pa.int8()), "y": [1, 2, 3] * 9}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("n,t,y\n" + "1,a,2\n,,3\n" * 40)
    program = (
        "import sys, pyarrow.csv, cmlp\nfrom cmlp.sources.tables import forms_of, whole_table\n"
        "for source in cmlp.data.parquet('t.parquet', 'y'), cmlp.data.csv('t.csv', 'y'):\n"
        "    whole_table(source, '')\n"
        "list(cmlp.data.parquet('t.parquet', 'y', ['n', 'i', 'b'], missing=0.0).stream())\n"
        "assert 'pandas' not in sys.modules"
    )
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path,
                   env=os.environ | {"PYTHONPATH": path})  # fmt: skip


@pytest.mark.parametrize(
    "kinds",
    [
        ["float16"] * 2,
        ["float32"] * 3,
        ["float64"] * 2,
        ["float32", "int16", "bool_", "null", "float64"],
        ["int64"] * 2,
    ],
)
def test_gaps_of_columns_of_any_type_are_filled(kinds):
    """Columns of one type are turned into rows by Arrow, others one by one."""
    pa = pytest.importorskip("pyarrow")
    columns = {
        "bool_": [True, None, False, True],
        "null": [None] * 4,
        "float16": [None if value is None else np.float16(value) for value in (1.5, None, 0, -2)],
    }
    table = pa.table([
        pa.array(columns.get(kind, [1, None, 0, 2]), getattr(pa, kind)()) for kind in kinds
    ], names=list("abcde")[: len(kinds)])  # fmt: skip
    parts = pa.concat_tables([table.slice(2), table])  # in two pieces
    expected = [[-3.0 if value is None else float(value) for value in column.to_pylist()]
                for column in parts.columns]  # fmt: skip
    rows = rows_of_table(parts, np.dtype(np.float32), -3.0)
    np.testing.assert_array_equal(rows, np.transpose(expected))
