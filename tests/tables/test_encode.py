"""Tables of every library become the same matrix, and columns what they should."""

import datetime as dt
import pickle
import types

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmlp.tables.encode import TableEncoder

N = 400
RNG = np.random.default_rng(5)
GAPS = RNG.random((N, 4)) < 0.1


def with_gaps(values, column):
    return [None if gap else value for value, gap in zip(values, GAPS[:, column], strict=True)]


DAYS = [dt.date(2024, 1, 1) + dt.timedelta(days=int(d)) for d in RNG.integers(0, 900, N)]
TIMES = [
    dt.datetime(2024, 2, 28, 5) + dt.timedelta(minutes=int(m)) for m in RNG.integers(0, 10**6, N)
]
TABLE = {
    "price": RNG.lognormal(size=N).round(3).tolist(),
    "rooms": with_gaps(RNG.integers(0, 9, N).tolist(), 0),
    "colour": with_gaps(np.array(["red", "green", "blue"])[RNG.integers(0, 3, N)].tolist(), 1),
    "sold": RNG.integers(0, 2, N).astype(bool).tolist(),
    "town": [f"town {i}" for i in RNG.integers(0, 40, N)],
    "day": DAYS,
    "time": with_gaps(TIMES, 2),
    "span": with_gaps([dt.timedelta(seconds=int(s)) for s in RNG.integers(1, 10**6, N)], 3),
    "same": [7] * N,
    "nothing": [None] * N,
}
"""A table without a library: columns of Python's objects."""


def records(table=TABLE):
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def structured():
    kinds = {"price": "f8", "sold": "?", "day": "M8[D]"}
    dtype = [(name, kinds.get(name, "O")) for name in TABLE]
    return np.array([tuple(row.values()) for row in records()], dtype)


def pandas_frame(table=TABLE, **how):
    return pytest.importorskip("pandas").DataFrame(table, **how)


def pandas_typed():
    frame = pandas_frame().astype({"rooms": "Int64", "town": "category", "colour": "string"})
    frame["time"] = frame["time"].astype("datetime64[ns]")
    return frame


def pandas_arrow():
    pytest.importorskip("pyarrow")
    return pandas_frame().convert_dtypes(dtype_backend="pyarrow")


def polars_frame():
    return pytest.importorskip("polars").DataFrame(TABLE)


def polars_categories():
    polars = pytest.importorskip("polars")
    towns = polars.Enum(sorted(set(TABLE["town"]), reverse=True))
    return polars_frame().with_columns(
        polars.col("colour").cast(polars.Categorical), polars.col("town").cast(towns)
    )


def arrow_table():
    return pytest.importorskip("pyarrow").table(TABLE)


def arrow_chunks():
    pa = pytest.importorskip("pyarrow")
    table = arrow_table()
    table = table.set_column(4, "town", table["town"].dictionary_encode())
    return pa.concat_tables([table.slice(0, 33), table.slice(33, 0), table.slice(33)])


def arrow_batch():
    return arrow_table().combine_chunks().to_batches()[0]


TABLES = {
    "dict of lists": lambda: TABLE,
    "dict of arrays": lambda: {name: np.array(column, object) for name, column in TABLE.items()},
    "list of dicts": records,
    "structured array": structured,
    "pandas": pandas_frame,
    "pandas, objects": lambda: pandas_frame(dtype=object),
    "pandas, its own types": pandas_typed,
    "pandas, Arrow's types": pandas_arrow,
    "polars": polars_frame,
    "polars, categories": polars_categories,
    "Arrow": arrow_table,
    "Arrow, in chunks": arrow_chunks,
    "Arrow, a batch": arrow_batch,
}
WITHOUT_NAMES = {
    "list of tuples": lambda: [tuple(row.values()) for row in records()],
    "array of objects": lambda: np.array([list(row.values()) for row in records()], object),
}


@pytest.fixture(scope="module")
def fitted():
    encoder = TableEncoder(n_knots=6)
    return encoder, encoder.fit_transform(TABLE)


@pytest.mark.parametrize("kind", TABLES)
def test_any_table_is_the_same_matrix(fitted, kind):
    """Fitted to it, and transformed by what was fitted to another one."""
    encoder, expected = fitted
    X = TABLES[kind]()
    np.testing.assert_array_equal(encoder.transform(X), expected)
    other = TableEncoder(n_knots=6)
    np.testing.assert_array_equal(other.fit_transform(X), expected)
    assert other.outputs_ == encoder.outputs_
    assert other.column_kinds_ == encoder.column_kinds_
    assert other.feature_names_in_.tolist() == list(TABLE)


@pytest.mark.parametrize("kind", WITHOUT_NAMES)
def test_rows_without_names(fitted, kind):
    X = WITHOUT_NAMES[kind]()
    np.testing.assert_array_equal(TableEncoder(n_knots=6).fit_transform(X), fitted[1])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        np.testing.assert_array_equal(fitted[0].transform(X), fitted[1])


def test_what_the_columns_are(fitted):
    encoder, E = fitted
    assert encoder.column_kinds_ == [
        "number", "number", "category", "bool", "category", "date", "date", "duration",
        "constant", "empty",
    ]  # fmt: skip
    assert encoder.n_features_in_ == len(TABLE)
    assert encoder.is_categorical_.tolist() == [False, False, True, True, True] + [False] * 5
    assert [column.n_missing for column in encoder.columns_] == [
        0, *GAPS[:, :2].sum(axis=0), 0, 0, 0, *GAPS[:, 2:].sum(axis=0), 0, N,
    ]  # fmt: skip
    levels = encoder.categories_
    assert levels[2].tolist() == ["blue", "green", "red"] and levels[3].tolist() == [False, True]
    assert levels[0] is None and len(levels[4]) == 40 and encoder.columns_[4].n_levels == 40
    assert E.dtype == np.float32 and E.flags.c_contiguous
    assert E.shape == (N, len(encoder.outputs_)) and np.isfinite(E).all()
    uses = {}
    for output in encoder.outputs_:
        uses.setdefault(output.source, []).append((output.use, output.n_levels))
    assert uses["price"] == [("number", 0), ("position", 6)]
    assert uses["rooms"] == [("number", 0), ("position", 6), ("flag", 0)]
    assert uses["colour"] == [("one_hot", 0)] * 3 and uses["sold"] == [("one_hot", 0)]
    assert uses["town"] == [("code", 41)]
    assert "same" not in uses and "nothing" not in uses


def test_the_codes_and_flags_by_hand(fitted):
    encoder, E = fitted
    columns = {output.name: E[:, i] for i, output in enumerate(encoder.outputs_)}
    towns = sorted(set(TABLE["town"]))
    np.testing.assert_array_equal(columns["town"], [1 + towns.index(t) for t in TABLE["town"]])
    np.testing.assert_array_equal(columns["rooms missing"], GAPS[:, 0])
    month = [d.month for d in DAYS]
    assert len(np.unique(columns["day month"])) == len(set(month))
    np.testing.assert_array_equal(
        np.argsort(columns["day month"], kind="stable"), np.argsort(month, kind="stable")
    )


# Scales -------------------------------------------------------------------------------------------


BIG = float(np.finfo(np.float64).max)


def clip3(u):
    return u / np.sqrt(1 + (u / 3) ** 2)


def test_the_robust_scale_by_hand():
    """Quartiles 2 and 4 of 1 to 5; by the range where they are equal; to 0 where a value lacks."""
    table = {"a": [1.0, 2, 3, 4, 5], "b": [0.0, 0, 0, 0, 10], "c": [1.0, None, 3, 4, 6]}
    E = TableEncoder(dtype="float64").fit_transform(table)
    np.testing.assert_allclose(E[:, 0], clip3(np.array([-1, -0.5, 0, 0.5, 1])), rtol=1e-15)
    np.testing.assert_allclose(E[:, 1], clip3(np.array([0, 0, 0, 0, 2.0])), rtol=1e-15)
    spread = 4.5 - 2.5
    np.testing.assert_allclose(
        E[:, 2], clip3((np.array([1, 3.5, 3, 4, 6]) - 3.5) / spread), rtol=1e-15
    )
    np.testing.assert_array_equal(E[:, 3], [0, 1, 0, 0, 0])
    E = TableEncoder(numbers="standard", dtype="float64").fit_transform({"a": table["a"]})
    np.testing.assert_allclose(E[:, 0], np.array([-2, -1, 0, 1, 2]) / np.sqrt(2), rtol=1e-15)


def test_one_hot_by_hand():
    """Two levels: 1, -1 and 0 where it is missing."""
    table = {"two": ["a", "b", None, "a", "a"], "more": ["x", "y", "z", "y", None]}
    E = TableEncoder(dtype="float64").fit_transform(table)
    np.testing.assert_array_equal(E[:, 0], [1, -1, 0, 1, 1])
    for i, level in enumerate("xyz", 1):
        np.testing.assert_array_equal(E[:, i], [each == level for each in table["more"]])


def test_levels_of_few_rows_are_as_missing():
    column = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + [None, "d"]
    encoder = TableEncoder(min_rows=4, max_one_hot=0)
    E = encoder.fit_transform({"x": column})
    np.testing.assert_array_equal(E[:, 0], [1] * 5 + [2] * 4 + [0] * 5)
    assert encoder.outputs_ == [("x", "x", "code", 3)]
    about = encoder.columns_[0]
    assert about.n_levels == 4 and about.n_missing == 1 and "fewer than 4 rows" in about.use
    np.testing.assert_array_equal(encoder.row()({"x": "c"}), [0])
    again = TableEncoder.from_entries(*encoder.to_entries())
    np.testing.assert_array_equal(again.transform({"x": column}), E)
    none = TableEncoder(min_rows=6).fit({"x": column})
    assert none.columns_[0].kind == "constant" and "no value is on 6 rows" in none.columns_[0].use


def test_the_place_of_a_gap():
    """With a flag it is the first knot, which adds nothing; without one it is the median's."""
    values = [0.0, 1.0, 2.0, 3.0, 4.0]
    for column, place in (([*values, None], 0), (values, 2)):
        encoder = TableEncoder(n_knots=5).fit({"x": column})
        at = [output.use for output in encoder.outputs_].index("position")
        assert encoder.transform({"x": [None]})[0, at] == place
        assert encoder.row()({"x": None})[at] == place


def test_two_values_have_no_place():
    encoder = TableEncoder(n_knots=5).fit({"x": [0.0, 1.0, 1.0]})
    assert [output.use for output in encoder.outputs_] == ["number"]


def test_frames_whose_names_are_not_text():
    """The numbers that pandas gives are places; others are names, as text."""
    pandas = pytest.importorskip("pandas")
    values = RNG.normal(size=(30, 3))
    for names in ([0, 1, 2], [30, 10, 20], [("a", 1), ("a", 2), ("b", 1)]):
        frame = pandas.DataFrame(values)
        frame.columns = pandas.Index(names)
        encoder = TableEncoder().fit(frame)
        moved = frame.iloc[:, [2, 0, 1]]
        np.testing.assert_array_equal(encoder.transform(moved), encoder.transform(frame))
        assert hasattr(encoder, "feature_names_in_") == (names != [0, 1, 2])
    np.testing.assert_array_equal(
        TableEncoder().fit(values).transform(pandas.DataFrame(values)[[1, 2, 0]]),
        TableEncoder().fit_transform(values),
    )


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(1, 5)), min_size=1, max_size=8))
def test_quantiles_of_counts_are_numpys(pairs):
    from cmlp.tables.scales import quantiles_of_counts

    values = np.array(sorted({v for v, _ in pairs}), float)
    counts = np.array([pairs[i][1] for i in range(len(values))])
    q = (0.25, 0.5, 0.75)
    expected = np.quantile(np.repeat(values, counts), q)
    np.testing.assert_allclose(quantiles_of_counts(values, counts, q), expected, rtol=1e-14)


SIZES = [[-BIG, 0, 1, BIG], [0, 0, 0, BIG], [1e300, -1e300], [0, 1e-300, 2e-300, 3e-300]]


@pytest.mark.parametrize("values", SIZES)
@pytest.mark.parametrize("numbers", ["robust", "standard"])
def test_numbers_of_any_size_are_scaled(values, numbers):
    encoder = TableEncoder(numbers=numbers, n_knots=3)
    for sign in (1, -1):
        E = encoder.fit_transform({"a": [sign * float(value) for value in values]})
        assert np.isfinite(E).all()
        assert len(np.unique(E[:, 0])) > 1 or (values[-1] < 1e-290 and numbers == "standard")
    E = TableEncoder(numbers=numbers, n_knots=3).fit_transform({"a": [0, 5e-324, 1e-323, 2e-323]})
    assert np.isfinite(E).all()
    encoder = TableEncoder(numbers=numbers).fit({"a": [0.0, 1, 2, 3]})
    E = encoder.transform({"a": [BIG, -BIG]})
    assert np.isfinite(E).all() and E[0, 0] > 2.9 and E[1, 0] < -2.9
    np.testing.assert_array_equal([encoder.row()({"a": BIG})], E[:1])


def test_the_place_among_knots():
    """A heavy value has a knot of its own; outside of the knots a place is the first or last."""
    values = np.concatenate([np.zeros(500), np.linspace(1, 100, 500)])
    encoder = TableEncoder(n_knots=5, numbers=None, dtype="float64").fit({"a": values})
    (output,) = encoder.outputs_
    assert output == ("a", "a position", "position", 5)
    knots = encoder._encoders[0].knots
    assert knots[0] == 0 and knots[1] == 1 and knots[-1] == 100
    E = encoder.transform({"a": [-5.0, 0, 0.5, 1, 100, 1e9, (knots[2] + knots[3]) / 2]})
    np.testing.assert_allclose(E[:, 0], [0, 0, 0.5, 1, 4, 4, 2.5])
    few = TableEncoder(n_knots=9).fit({"a": [3.0, 1, 2, 2]})
    assert few._encoders[0].knots.tolist() == [1, 2, 3]


# Missing and unseen -------------------------------------------------------------------------------


def gaps():
    found = {"None": None, "NaN": np.nan, "NaN of NumPy": np.float32("nan"), "blank": " "}
    try:
        import pandas
    except ImportError:
        return found
    return {**found, "pandas.NA": pandas.NA, "NaT": pandas.NaT}


@pytest.mark.parametrize("gap", gaps().values(), ids=gaps())
def test_every_sign_of_a_gap(gap):
    table = {"n": [1, 2.5, 3, gap, 4], "c": ["a", "b", gap, "c", "a"], "d": [*DAYS[:4], gap]}
    plain = {"n": [1, 2.5, 3, None, 4], "c": ["a", "b", None, "c", "a"], "d": [*DAYS[:4], None]}
    encoder = TableEncoder()
    np.testing.assert_array_equal(encoder.fit_transform(table), encoder.fit_transform(plain))
    assert encoder.column_kinds_ == ["number", "category", "date"]
    np.testing.assert_array_equal(encoder.transform(table), encoder.transform(plain))
    row = encoder.row()
    for i, expected in enumerate(encoder.transform(plain)):
        np.testing.assert_allclose(
            row({name: table[name][i] for name in table}), expected, rtol=1e-6
        )


def test_a_level_that_was_not_there_is_a_missing_one():
    encoder = TableEncoder(max_one_hot=3).fit({"a": list("xyz") * 3, "b": list("pqrstuvwx")})
    E = encoder.transform({"a": ["new", None, ""], "b": ["new", None, float("nan")]})
    np.testing.assert_array_equal(E, np.tile(E[1], (3, 1)))
    assert E[0, -1] == 0


def test_a_gap_only_in_new_rows_is_the_median():
    encoder = TableEncoder().fit({"a": [1.0, 2, 3]})
    np.testing.assert_array_equal(encoder.transform({"a": [None]}), [[0]])


def test_rare_levels_share_one():
    column = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d", "e", "f"]
    encoder = TableEncoder(max_categories=3, max_one_hot=0, dtype="float64")
    E = encoder.fit_transform({"x": column})
    np.testing.assert_array_equal(E[:, 0], [1] * 5 + [2] * 4 + [3] * 6)
    assert encoder.outputs_[0].n_levels == 4 and encoder.columns_[0].n_levels == 6
    assert encoder.transform({"x": ["new"]})[0, 0] == 0
    one_hot = TableEncoder(max_categories=3).fit({"x": column})
    assert [o.name for o in one_hot.outputs_] == ["x a", "x b", "x infrequent"]


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_an_error(value):
    X = np.zeros((5, 2))
    X[:, 0], X[3, 1] = np.arange(5), 1
    encoder = TableEncoder().fit(X)
    X[3, 1] = value
    for refuses in (lambda: encoder.transform(X), lambda: TableEncoder().fit(X)):
        with pytest.raises(ValueError, match=r"column 'x1', row 3: -?inf is not a finite number"):
            refuses()
    with pytest.raises(ValueError, match=r"column 'x1'.*not a finite number"):
        encoder.row()((1, value))


# Names, order, types ------------------------------------------------------------------------------


def test_order_and_further_columns_change_nothing(fitted):
    encoder, E = fitted
    X = {"more": np.arange(N), **{name: TABLE[name] for name in reversed(TABLE)}}
    np.testing.assert_array_equal(encoder.transform(X), E)


def test_all_missing_columns_are_named(fitted):
    X = {name: column for name, column in TABLE.items() if name not in ("price", "town")}
    with pytest.raises(ValueError, match=r"lacks 2 .*'price', 'town'; X has 'Price'"):
        fitted[0].transform({**X, "Price": TABLE["price"]})
    del X["same"], X["nothing"]  # without an effect
    X |= {"price": TABLE["price"], "town": TABLE["town"]}
    np.testing.assert_array_equal(fitted[0].transform(X), fitted[1])


EQUIVALENT = {
    "ints": ([1, 2, 3, 10, 2], [np.int8([1, 2, 3, 10, 2]), ["1", "2", "3", "10", "2"],
             [1.0, 2.0, 3.0, 10.0, 2.0], np.float32([1, 2, 3, 10, 2]),
             [b"1", b"2", b"3", b"10", b"2"]]),
    "fractions": ([0.1, 2.5, 3.25], [np.float32([0.1, 2.5, 3.25]), ["0.1", "2.5", "3.25"]]),
    "bools": ([True, False, True], [["True", "False", "True"], [1, 0, 1], [1.0, 0.0, 1.0],
              ["true", "false", "true"], np.array([True, False, True], object)]),
    "large": ([2**60, 2**60 + 1, 5], [np.array([2**60, 2**60 + 1, 5]),
              [str(2**60), str(2**60 + 1), "5"]]),
}  # fmt: skip


@pytest.mark.parametrize("kind", EQUIVALENT)
@pytest.mark.parametrize("codes", [True, False])
def test_another_dtype_of_the_same_categories(kind, codes):
    column, others = EQUIVALENT[kind]
    how = {"categorical_features": ["a"], "max_one_hot": 0 if codes else 20}
    encoder = TableEncoder(**how)
    E = encoder.fit_transform({"a": column})
    assert encoder.is_categorical_.all() and len(np.unique(E, axis=0)) == len(set(column))
    row = encoder.row()
    for other in others:
        np.testing.assert_array_equal(encoder.transform({"a": other}), E)
        np.testing.assert_array_equal([row({"a": each}) for each in other], E)
    if kind != "bools":
        assert encoder.categories_[0].tolist() == sorted(set(column))


def test_numbers_written_as_text_are_the_same_numbers():
    encoder = TableEncoder()
    E = encoder.fit_transform({"a": [1.5, 2, None, 30]})
    for other in (["1.5", "2", "", "30"], ["1.5", "2", "?", "3e1"], [b"1.5", 2, "NA", " 30 "]):
        np.testing.assert_array_equal(encoder.transform({"a": other}), E)
    with pytest.raises(
        ValueError, match=r"column 'a', row 1: a number expected, '3,5' came.*point"
    ):
        encoder.transform({"a": ["1", "3,5"]})
    with pytest.raises(ValueError, match=r"column 'a': a number expected, 'x' came"):
        encoder.row()({"a": "x"})


def test_the_order_of_category_codes_changes_nothing():
    pandas = pytest.importorskip("pandas")
    values = list("abcabd")
    encoder = TableEncoder(max_one_hot=0)
    E = encoder.fit_transform(pandas.DataFrame({"a": pandas.Categorical(values)}))
    other = pandas.Categorical(values, categories=list("zdcba"), ordered=True)
    np.testing.assert_array_equal(encoder.transform(pandas.DataFrame({"a": other})), E)


def test_mixed_types_are_one_level():
    encoder = TableEncoder(max_one_hot=0)
    E = encoder.fit_transform({"a": [1, "1", "x", 1.0, np.int8(1), "y"]})
    np.testing.assert_array_equal(E[:, 0], [1, 1, 2, 1, 1, 3])
    assert encoder.categories_[0].tolist() == ["1", "x", "y"]


# Kinds --------------------------------------------------------------------------------------------

NUMBERS_AS_TEXT = {
    "fractions": (["1.5", "2", "3"], "number"),
    "a sign of a gap": (["1", "2", "?", "4"], "number"),
    "NA": (["1", "NA", "-3", "4"], "number"),
    "numbers and a sign": ([1, 2, "?", 4], "number"),
    "few whole numbers": (["1", "2", "3", "1"], "category"),
    "many whole numbers": ([str(i) for i in range(40)], "number"),
    "padded": ([f"{i:03d}" for i in range(40)], "category"),
    "a word for gaps": ([*map(str, range(99)), "unknown"], "number"),
    "many words": ([*map(str, range(40)), "a", "b", "c"], "category"),
    "a word that is frequent": ([*map(str, range(50)), *["off"] * 60], "category"),
    "words": (["a", "b", "a"], "category"),
    "signs alone": (["?", "?", "NA"], "category"),
}


@pytest.mark.parametrize("name", NUMBERS_AS_TEXT)
def test_text_that_holds_numbers(name):
    column, kind = NUMBERS_AS_TEXT[name]
    encoder = TableEncoder().fit({"a": column})
    assert encoder.column_kinds_ == [kind]
    if name == "a word for gaps":
        assert "'unknown'" in encoder.columns_[0].use
        E = encoder.transform({"a": ["unknown", "5"]})
        np.testing.assert_array_equal(E[:, -1], [1, 0])
        with pytest.raises(ValueError, match="'other'"):
            encoder.transform({"a": ["other"]})


def test_text_that_is_nearly_unique_is_left_out_with_one_warning():
    names = [f"name {i}" for i in range(200)]
    table = {"id": names, "mail": [f"{i}@x" for i in range(200)], "a": list(range(200))}
    with pytest.warns(UserWarning, match="'id'.*'mail'.*categorical_features") as warned:
        encoder = TableEncoder().fit(table)
    assert len(warned) == 1
    assert encoder.column_kinds_ == ["text", "text", "number"]
    assert len(encoder.outputs_) == 1
    encoder = TableEncoder(categorical_features=["id", "mail"]).fit(table)
    assert encoder.column_kinds_ == ["category", "category", "number"]
    assert TableEncoder(text="category").fit(table).column_kinds_[0] == "category"
    with pytest.raises(ValueError, match="column 'id' is text that is nearly unique"):
        TableEncoder(text="error").fit(table)
    few = {"id": names[:50]}
    assert TableEncoder().fit(few).column_kinds_ == ["category"]


def test_parameters_override_the_dtype():
    table = {
        "a": [1, 2, 3, 1],
        "b": ["1", "2", "3", "1"],
        "c": list("wxyz"),
        "d": [True, False] * 2,
    }

    def kinds(X=table, **how):
        return TableEncoder(**how).fit(X).column_kinds_

    by_dtype = ["number", "category", "category", "bool"]
    assert kinds() == kinds(categorical_features="from_dtype") == by_dtype
    only_a = ["category", "number", "category", "number"]
    for named in (["a"], [0], [-4], [True, False, False, False], np.array([0]), ("a",)):
        assert kinds(categorical_features=named) == only_a
    assert kinds(categorical_features=None) == ["number", "number", "category", "number"]
    assert kinds(ignored_features=["a"])[0] == "ignored"
    assert kinds(numeric_features=["b"])[1] == "number"
    with pytest.raises(ValueError, match=r"column 'c', row 0: a number expected, 'w' came"):
        kinds(numeric_features=["c"])
    with pytest.raises(ValueError, match="names 'e', but X has no such column: 'a'"):
        kinds(categorical_features=["e"])
    with pytest.raises(ValueError, match="mask of 2"):
        kinds(categorical_features=[True, False])
    with pytest.raises(ValueError, match="holds 4"):
        kinds(categorical_features=[4])
    with pytest.raises(ValueError, match="list of names"):
        kinds(categorical_features="a")
    with pytest.raises(ValueError, match="all of one type"):
        kinds(categorical_features=["a", 1])
    matrix = np.array([[1.0, 2], [3, 4], [5, 2]])
    assert kinds(matrix, categorical_features=[1]) == ["number", "category"]
    with pytest.raises(ValueError, match="have none"):
        kinds(matrix, categorical_features=["a"])


def test_a_table_of_constants_has_a_column():
    encoder = TableEncoder()
    E = encoder.fit_transform({"a": [1, 1], "b": [None, None], "c": ["x", "x"], "d": ["", " "]})
    assert encoder.column_kinds_ == ["constant", "empty", "constant", "empty"]
    np.testing.assert_array_equal(E, [[0], [0]])
    assert encoder.outputs_ == [("", "constant", "number", 0)]
    np.testing.assert_array_equal(encoder.row()({}), [0])
    gaps = TableEncoder()
    np.testing.assert_array_equal(gaps.fit_transform({"a": [1, None]}), [[0], [1]])
    assert gaps.column_kinds_ == ["number"] and gaps.outputs_[0].use == "flag"
    E = TableEncoder(dtype="float64").fit_transform({"a": ["x", None, None]})
    np.testing.assert_array_equal(E[:, 0], [1, 0, 0])


# Dates --------------------------------------------------------------------------------------------


def test_dates_by_hand():
    """Seconds, month, day, weekday and hour, each scaled as a number."""
    days = ["2024-01-01T00:00", "2024-02-29T12:30", "2023-12-31T23:59", "1969-07-20T20:17"]
    moments = [dt.datetime.fromisoformat(day) for day in days]
    E = TableEncoder(dtype="float64").fit_transform({"d": moments})
    raw = [
        [(m - dt.datetime(1970, 1, 1)).total_seconds() for m in moments],
        [m.month for m in moments],
        [m.day for m in moments],
        [m.weekday() for m in moments],
        [m.hour + m.minute / 60 for m in moments],
    ]
    for column, values in enumerate(raw):
        low, mid, high = np.quantile(values, [0.25, 0.5, 0.75])
        expected = clip3((np.array(values) - mid) / (high - low))
        np.testing.assert_allclose(E[:, column], expected, rtol=1e-12, atol=1e-14)
    cycles = TableEncoder(date_parts="cycles", dtype="float64")
    E = cycles.fit_transform({"d": moments})
    assert [o.name for o in cycles.outputs_][1:3] == ["d month sin", "d month cos"]
    np.testing.assert_allclose(E[:, 1], np.sin(np.array(raw[1]) / 12 * 2 * np.pi), atol=1e-12)
    assert len(TableEncoder(date_parts=None).fit({"d": moments}).outputs_) == 1


def zoned(zone, hours=48):
    from zoneinfo import ZoneInfo

    try:
        clock = ZoneInfo(zone)
    except KeyError:
        pytest.skip("no time zones on this machine")
    start = dt.datetime(2024, 3, 30, 20, tzinfo=dt.UTC)
    return [(start + dt.timedelta(minutes=30 * i)).astimezone(clock) for i in range(2 * hours)]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_parts_are_of_the_clock_of_the_zone(zone):
    """Also over the night in which the clocks of Berlin change."""
    from cmlp.tables.dates import parts_of, parts_of_one, zone_of

    moments = zoned(zone)
    seconds = np.array([m.timestamp() for m in moments])
    found = parts_of(seconds, zone)
    for part, values in {
        "hour": [m.hour + m.minute / 60 for m in moments],
        "day": [m.day for m in moments],
        "weekday": [m.weekday() for m in moments],
        "month": [m.month for m in moments],
    }.items():
        np.testing.assert_allclose(found[part], values, err_msg=part)
    one = [parts_of_one(second, zone_of(zone)) for second in seconds]
    np.testing.assert_array_equal(np.array(one).T, [found[part] for part in found])


def test_times_with_zones_in_every_library():
    moments = zoned("Europe/Berlin")
    encoder = TableEncoder()
    E = encoder.fit_transform({"t": moments})
    in_utc = [m.astimezone(dt.UTC) for m in moments]
    np.testing.assert_array_equal(encoder.transform({"t": in_utc}), E)
    libraries = 0
    for name, make in {
        "pandas": lambda pd: pd.DataFrame({"t": pd.to_datetime(moments)}),
        "polars": lambda pl: pl.DataFrame({"t": in_utc}).with_columns(
            pl.col("t").dt.convert_time_zone("Europe/Berlin")
        ),
        "pyarrow": lambda pa: pa.table(
            {"t": pa.array(moments, pa.timestamp("us", "Europe/Berlin"))}
        ),
    }.items():
        try:
            X = make(__import__(name))
        except ImportError:
            continue
        libraries += 1
        np.testing.assert_array_equal(encoder.transform(X), E, err_msg=name)
        np.testing.assert_array_equal(TableEncoder().fit_transform(X), E, err_msg=name)
    row = encoder.row()
    np.testing.assert_allclose([row({"t": m}) for m in moments], E, rtol=1e-6, atol=1e-7)
    without = [m.replace(tzinfo=None) for m in moments]
    with pytest.raises(ValueError, match="column 't' has no time zone, but was in 'Europe/Berlin'"):
        encoder.transform({"t": without})
    with pytest.raises(ValueError, match=r"column 't': .*has no time zone"):
        row({"t": without[0]})
    with pytest.raises(ValueError, match="has a time zone, but had none"):
        TableEncoder().fit({"t": without}).transform({"t": moments})
    with pytest.raises(ValueError, match="mixes times with and without"):
        TableEncoder().fit({"t": [without[0], moments[1]]})


def test_iso_text_is_text_unless_it_is_named():
    column = [str(day) for day in DAYS[:40]]
    assert TableEncoder().fit({"d": column}).column_kinds_ == ["category"]
    assert "dates written as text" in TableEncoder().fit({"d": column}).columns_[0].use
    table = {"d": column, "e": list("abcd") * 10, "f": [*column[1:], "2024-02-30"]}
    auto = TableEncoder(date_features="auto").fit(table)
    assert auto.column_kinds_ == ["date", "category", "category"]
    encoder = TableEncoder(date_features=["d"])
    E = encoder.fit_transform({"d": column})
    assert encoder.column_kinds_ == ["date"]
    np.testing.assert_array_equal(E, TableEncoder().fit_transform({"d": DAYS[:40]}))
    np.testing.assert_array_equal(encoder.transform({"d": DAYS[:40]}), E)
    np.testing.assert_allclose([encoder.row()({"d": day}) for day in column], E, rtol=1e-6)
    with pytest.raises(ValueError, match=r"column 'd', row 1: a date in ISO's form.*'31.12.2020'"):
        encoder.transform({"d": ["2020-01-01", "31.12.2020"]})
    with pytest.raises(ValueError, match="column 'd', row 0: a number expected, 2024"):
        TableEncoder().fit({"d": [1.0, 2]}).transform({"d": DAYS[:2]})


def test_numbers_are_no_dates_unless_they_are_named():
    """Nor durations: their unit may be another."""
    seconds = [0.0, 3e7, 6e7]
    days = [dt.datetime(1970, 1, 1) + dt.timedelta(seconds=s) for s in seconds]
    numeric = TableEncoder(date_features=["a"])
    E = numeric.fit_transform({"a": seconds})
    assert numeric.column_kinds_ == ["date"]
    np.testing.assert_array_equal(E, TableEncoder().fit_transform({"a": days}))
    again = TableEncoder.from_entries(*numeric.to_entries())
    np.testing.assert_array_equal(again.transform({"a": seconds}), E)
    np.testing.assert_allclose([numeric.row()({"a": s}) for s in seconds], E, rtol=1e-6)
    spans = [dt.timedelta(seconds=s) for s in seconds]
    columns = {"dates": days, "durations": spans, "numbers": seconds}
    for had, column in columns.items():
        encoder = TableEncoder().fit({"a": column})
        expected = {"dates": "a?.?date", "durations": "duration", "numbers": "number"}[had]
        for other in columns.keys() - {had}:
            with pytest.raises(ValueError, match=rf"column 'a'.*{expected}s? expected"):
                encoder.transform({"a": columns[other]})
            with pytest.raises(ValueError, match=rf"column 'a': a.*{expected}"):
                encoder.row()({"a": columns[other][0]})
        np.testing.assert_array_equal(encoder.transform({"a": [None]})[0, 0], 0)


def test_times_of_the_day_are_durations():
    column = [dt.time(1), dt.time(2, 30), None, dt.time(4)]
    encoder = TableEncoder()
    E = encoder.fit_transform({"t": column})
    assert encoder.column_kinds_ == ["duration"]
    spans = [None if t is None else dt.timedelta(hours=t.hour, minutes=t.minute) for t in column]
    np.testing.assert_array_equal(encoder.transform({"t": spans}), E)
    for library in ("polars", "pyarrow"):
        module = pytest.importorskip(library)
        X = module.DataFrame({"t": column}) if library == "polars" else module.table({"t": column})
        np.testing.assert_array_equal(encoder.transform(X), E)


# Matrices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int8", "uint64", ">f4", "g"])
@pytest.mark.parametrize("n_knots", [None, 4])
def test_a_matrix_is_the_table_of_its_columns(dtype, n_knots):
    X = np.random.default_rng(0).normal(50, 20, (300, 4)).clip(0, 100).astype(dtype)
    if X.dtype.kind == "f":
        X[::7, 1] = np.nan
    X[:, 3] = 1
    encoder = TableEncoder(n_knots=n_knots)
    E = encoder.fit_transform(X)
    names = {f"x{i}": X[:, i] for i in range(4)}
    np.testing.assert_array_equal(E, TableEncoder(n_knots=n_knots).fit_transform(names))
    assert encoder.column_kinds_ == ["number"] * 3 + ["constant"]
    np.testing.assert_array_equal(encoder.transform(X[::-1]), E[::-1])
    np.testing.assert_array_equal(encoder.transform(np.asfortranarray(X)), E)
    np.testing.assert_array_equal(encoder.transform(X.tolist()), E)
    row = encoder.row()
    np.testing.assert_allclose([row(each) for each in X[:20]], E[:20], rtol=1e-6, atol=1e-7)
    assert not hasattr(encoder, "feature_names_in_")


def test_sparse_rows_stay_sparse():
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(200, 5)) * (rng.random((200, 5)) < [0.1, 0.6, 0.9, 1, 0])
    encoder = TableEncoder(dtype="float64")
    E = encoder.fit_transform(sparse.csc_matrix(dense))
    assert sparse.issparse(E) and E.shape == (200, 5) and E.nnz == (dense != 0).sum()
    np.testing.assert_allclose(encoder.transform(dense), E.toarray(), rtol=1e-14)
    for column in range(4):
        low, high = np.quantile(dense[:, column], [0.25, 0.75])
        span = high - low or np.ptp(dense[:, column]) / 2
        np.testing.assert_allclose(
            E.toarray()[:, column], clip3(dense[:, column] / span), rtol=1e-12
        )
    other = TableEncoder().fit(dense)
    np.testing.assert_array_equal(other.transform(sparse.coo_array(dense)), other.transform(dense))
    dense[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"nan at row 3, column 1; a sparse X"):
        TableEncoder().fit(sparse.csr_array(dense))
    with pytest.raises(ValueError, match="X has 4 features, but TableEncoder is expecting 5"):
        encoder.transform(sparse.csr_array(np.ones((2, 4))))


BAD = {
    "no rows": (np.zeros((0, 2)), "0 sample"),
    "no columns": (np.zeros((2, 0)), "0 feature"),
    "a vector": (np.zeros(3), "Reshape your data"),
    "a list": ([1.0, 2.0], "Reshape your data"),
    "three axes": (np.zeros((2, 2, 2)), "dim 3"),
    "complex": (np.zeros((2, 2), complex), "Complex data not supported"),
    "complex objects": ({"a": [1j, 2]}, "Complex data not supported: column 'a'"),
    "masked": (np.ma.array(np.zeros((2, 2)), mask=[[0, 1], [0, 0]]), "masked entries"),
    "lists in cells": ({"a": [[1], [2, 3]]}, "column 'a' holds values of type list"),
    "different lengths": ({"a": [1], "b": [1, 2]}, "differ in length"),
    "single values": ({"a": 1, "b": 2}, r"single value; for one row pass \[X\]"),
    "ragged": ([[1, "a"], [2]], "rows of the same length"),
    "text": ("table.csv", "Expected 2D array"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_a_table(kind):
    X, message = BAD[kind]
    with pytest.raises((ValueError, TypeError), match=message):
        TableEncoder().fit(X)


def test_names_that_occur_twice():
    frame = pandas_frame({"a": [1, 2], "b": [3, 4], "c": [5, 6]})
    frame.columns = ["a", "b", "a"]
    with pytest.raises(ValueError, match="several columns with the name 'a'"):
        TableEncoder().fit(frame)


def test_nested_columns_of_libraries():
    for library, make in {
        "polars": lambda pl: pl.DataFrame({"a": [[1], [2, 3]]}),
        "pyarrow": lambda pa: pa.table({"a": [[1], [2, 3]]}),
        "pandas": lambda pd: pd.DataFrame({"a": [[1], [2, 3]]}),
    }.items():
        X = make(pytest.importorskip(library))
        with pytest.raises(ValueError, match="column 'a' holds values of type"):
            TableEncoder().fit(X)


INVALID = {
    "numbers": "quantile", "date_parts": "x", "text": "x", "max_one_hot": -1, "max_categories": 1,
    "n_knots": 1, "dtype": "int8", "target_statistics": "yes", "prior": -1, "n_permutations": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_parameters_out_of_range(name):
    with pytest.raises((ValueError, TypeError), match=name):
        TableEncoder(**{name: INVALID[name]}).fit(TABLE)


def test_it_must_be_fitted():
    with pytest.raises(ValueError, match="not fitted yet"):
        TableEncoder().transform(TABLE)


def test_copies_are_the_same(fitted):
    copy = pickle.loads(pickle.dumps(fitted[0]))
    np.testing.assert_array_equal(copy.transform(TABLE), fitted[1])


# One row ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"n_knots": 7}, {"date_parts": "cycles"}, {"max_one_hot": 50}])
def test_a_row_is_a_row_of_the_matrix(how):
    encoder = TableEncoder(**how, dtype="float64")
    E = encoder.fit_transform(TABLE)
    row = encoder.row()
    np.testing.assert_allclose([row(each) for each in records()], E, rtol=1e-13, atol=1e-15)
    first = records()[0]
    np.testing.assert_array_equal(row(tuple(first.values())), row(first))
    np.testing.assert_array_equal(row({**first, "more": 1}), row(first))
    np.testing.assert_array_equal(row(types.MappingProxyType(first)), row(first))
    np.testing.assert_array_equal(row(structured()[list(reversed(TABLE))][0]), row(first))
    with pytest.raises(ValueError, match="lacks 'price', 'town'"):
        row({name: value for name, value in first.items() if name not in ("price", "town")})
    with pytest.raises(ValueError, match="a row of 10 values expected, 2 came"):
        row((1, 2))
    with pytest.raises(ValueError, match="column 'town': a list cannot be a category"):
        row({**first, "town": [1]})
    with pytest.raises(TypeError, match="a dict or a tuple"):
        row(5)


# Random tables ------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.none(),
    st.floats(allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.booleans(),
    st.text(max_size=3),
    st.sampled_from(["1", "2.5", "?", "NA", "a", "b", "2024-01-02"]),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-1000, max_value=1000),
)
COLUMNS = st.one_of(
    st.lists(CELLS, min_size=6, max_size=6),
    st.lists(st.floats(allow_infinity=False) | st.none(), min_size=6, max_size=6),
    st.lists(st.sampled_from(["a", "b", "", None]), min_size=6, max_size=6),
    st.lists(st.datetimes() | st.none(), min_size=6, max_size=6),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(COLUMNS, min_size=1, max_size=4), st.sampled_from([None, 2, 3]), st.integers(0, 3))
@example([[None, None, -1e308, None, 1.7e308, None]], None, 0)  # their difference is infinite
def test_any_table_is_encoded_or_refused_by_name(columns, n_knots, max_one_hot):
    """What was fitted transforms itself, row by row, too, and from a file."""
    table = {f"c{i}": column for i, column in enumerate(columns)}
    encoder = TableEncoder(n_knots=n_knots, max_one_hot=max_one_hot, dtype="float64")
    E = encoder.fit_transform(table)
    assert E.shape == (6, len(encoder.outputs_)) and np.isfinite(E).all()
    codes = [i for i, o in enumerate(encoder.outputs_) if o.n_levels]
    most = np.array([encoder.outputs_[i].n_levels for i in codes])
    assert ((E[:, codes] >= 0) & (E[:, codes] <= most - 1)).all()
    rows = [dict(zip(table, values, strict=True)) for values in zip(*columns, strict=True)]
    np.testing.assert_allclose([encoder.row()(row) for row in rows], E, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(encoder.transform(rows), E)
    again = TableEncoder.from_entries(*encoder.to_entries())
    np.testing.assert_array_equal(again.transform(table), E)
    assert again.outputs_ == encoder.outputs_ and again.columns_ == encoder.columns_


def of_one_type(cells):
    return st.lists(st.none() | cells, min_size=7, max_size=7)


TYPED = st.one_of(
    of_one_type(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=2)),
    of_one_type(st.sampled_from(["1", "2.5", "?", "x"])),
    of_one_type(st.integers(-(2**62), 2**62)),
    of_one_type(st.integers(0, 3)),
    of_one_type(st.floats(allow_infinity=False)),
    of_one_type(st.booleans()),
    of_one_type(st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1))),
    of_one_type(st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))),
    of_one_type(st.timedeltas(dt.timedelta(-1000), dt.timedelta(1000))),
)


def libraries():
    """Functions that make a table of a library, of those that are installed."""
    found = {}
    for name in ("pandas", "polars", "pyarrow"):
        try:
            module = __import__(name)
        except ImportError:
            continue
        found[name] = module.table if name == "pyarrow" else module.DataFrame
    return found


LIBRARIES = libraries()


@settings(max_examples=100, deadline=None)
@given(st.lists(TYPED, min_size=1, max_size=3))
def test_random_tables_of_every_library(columns):
    """Equal but for the rounding of dates, which some libraries keep in nanoseconds."""
    table = {f"c{i}": column for i, column in enumerate(columns)}
    encoder = TableEncoder(max_one_hot=2, n_knots=3, dtype="float64")
    E = encoder.fit_transform(table)
    for name, make in LIBRARIES.items():
        X = make(table)
        # a float of 62 bits is the nearest one in each library
        np.testing.assert_allclose(encoder.transform(X), E, rtol=1e-9, atol=1e-9, err_msg=name)
        other = TableEncoder(max_one_hot=2, n_knots=3, dtype="float64")
        np.testing.assert_allclose(other.fit_transform(X), E, rtol=1e-9, atol=1e-9, err_msg=name)
        assert other.outputs_ == encoder.outputs_, name
