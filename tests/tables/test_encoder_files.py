"""An encoder in a file: what was written is read, and anything else is refused."""

import copy
import datetime as dt
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmlp.tables.encode import TableEncoder

UTC = dt.UTC
TABLE = {
    "number": [1.5, None, 3, 4, 9, 2],
    "category": ["a", "b", None, "c", "d", "a"],
    "whole": [2**60, 2**60 + 1, 3, 3, 3, 3],
    "bool": [True, False, True, True, None, False],
    "date": [dt.date(2024, m, m) for m in range(1, 7)],
    "zoned": [dt.datetime(2024, m, 1, m, tzinfo=UTC) for m in range(1, 7)],
    "span": [dt.timedelta(m) for m in range(1, 7)],
    "text": ["1.5", "?", "2", "3", "4", "5"],
    "same": [1] * 6,
    "ignored": list("xyzxyz"),
}


def fitted(**how):
    how = {"n_knots": 3, "max_one_hot": 3, "categorical_features": ["category", "whole"], **how}
    encoder = TableEncoder(ignored_features=["ignored"], **how)
    return encoder.fit(TABLE, np.arange(6))


ENCODERS = {
    "all": fitted(),
    "cycles": fitted(date_parts="cycles", dtype="float64"),
    "statistics": fitted(target_statistics="regression", max_one_hot=0, max_categories=2),
    "no names": TableEncoder().fit(np.random.default_rng(0).normal(size=(9, 3))),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_what_is_read_encodes_as_before(kind):
    encoder = ENCODERS[kind]
    X = np.zeros((2, 3)) if kind == "no names" else TABLE
    record, arrays = encoder.to_entries()
    again = TableEncoder.from_entries(json.loads(json.dumps(record)), arrays)
    np.testing.assert_array_equal(again.transform(X), encoder.transform(X))
    assert again.columns_ == encoder.columns_ and again.outputs_ == encoder.outputs_
    assert again.column_kinds_ == encoder.column_kinds_ and again.dtype == encoder.dtype
    for mine, other in zip(again.categories_, encoder.categories_, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or (mine.tolist() == other.tolist() and mine.dtype == other.dtype)
    assert hasattr(again, "feature_names_in_") == (kind != "no names")
    more, same = again.to_entries()
    assert json.dumps(more) == json.dumps(record) and same.keys() == arrays.keys()


def places(value, path=()):
    """Yield the path of every value of JSON."""
    yield path
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


RECORDS = {kind: encoder.to_entries() for kind, encoder in ENCODERS.items()}
PLACES = [(kind, path) for kind, (record, _) in RECORDS.items() for path in places(record)]
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.integers(), st.floats(), st.text(max_size=4),
    st.lists(st.integers(0, 3), max_size=3), st.just({}), st.just(10**400),
    st.sampled_from(["number", "category", "date", "text", "float64", "int", "float", "a", "b"]),
)  # fmt: skip


def encodes_or_refuses(record, arrays):
    """Whether an encoder is read; then it encodes a table, or names the column."""
    try:
        encoder = TableEncoder.from_entries(record, arrays)
    except (ValueError, TypeError) as error:
        assert str(error)
        return False
    assert encoder.categories_ is not None and encoder.is_categorical_ is not None
    try:
        X = TABLE if hasattr(encoder, "feature_names_in_") else np.zeros((2, 3))
        E = encoder.transform(X)
        assert np.isfinite(E).all() or encoder.dtype == "float32"
        encoder.row()
        encoder.to_entries()
    except ValueError as error:
        assert str(error)
    return True


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), JUNK)
def test_a_changed_value_is_refused_or_used(place, junk):
    kind, path = place
    record, arrays = RECORDS[kind]
    encodes_or_refuses(replaced(record, path, junk), arrays)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PLACES), st.data())
def test_a_missing_value_is_refused(place, data):
    kind, path = place
    record, arrays = RECORDS[kind]
    if not path:
        return
    outer = record
    for key in path[:-1]:
        outer = outer[key]
    if not isinstance(outer, dict):
        return
    less = {key: value for key, value in outer.items() if key != path[-1]}
    read = encodes_or_refuses(replaced(record, path[:-1], less), arrays)
    assert not read or path[-2:-1] == ("parts",)


def test_changed_arrays_are_refused():
    for record, arrays in RECORDS.values():
        for name, array in arrays.items():
            others = [
                array[:-1], array[::-1], array.astype("f4"), array[None], array * 0, array - 10**9,
                array.astype(float) * np.nan, array.astype(object),
            ]  # fmt: skip
            for other in [each for each in others if not np.array_equal(each, array)]:
                encodes_or_refuses(record, {**arrays, name: other})
            less = {key: value for key, value in arrays.items() if key != name}
            if name.endswith("counts"):
                assert not encodes_or_refuses(record, less)
        assert not encodes_or_refuses(record, {**arrays, "more": np.zeros(1)})


REFUSED = {
    ("version",): (2, "version 1"),
    ("columns", 0, "kind"): ("nonsense", "unknown kind"),
    ("columns", 0, "encoder", "scale"): ([0.0, float("inf"), True], "must be finite"),
    ("columns", 1, "encoder", "levels"): (["a", "b", "c", "a"], "must differ"),
    ("columns", 2, "encoder", "level_type"): ("bool", "cannot be"),
    ("columns", 5, "encoder", "zone"): ("Nowhere/Land", "time zone 'Nowhere/Land'"),
    ("columns", 0, "name"): ("same", "all different"),
    ("parameters", "dtype"): ("int8", "float32"),
}


@pytest.mark.parametrize("path", REFUSED, ids=str)
def test_errors_tell_what_is_wrong(path):
    new, message = REFUSED[path]
    record, arrays = RECORDS["all"]
    with pytest.raises((ValueError, TypeError), match=message):
        TableEncoder.from_entries(replaced(record, path, new), arrays)
