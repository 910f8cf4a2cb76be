"""Labels are returned unchanged: every digit of whole numbers, in any order of the outputs."""

import copy
import pickle

import numpy as np
import pytest
from helpers import blobs, fit_quietly, refused

import cmlp
from cmlp import MLPClassifier, Network
from cmlp.data.labels import equal, joined, places

try:
    import pandas
except ImportError:
    pandas = None  # its kinds are left out below
try:
    import polars
except ImportError:
    polars = None

LARGE = 2**63 + 1025
"""As a float it is 2**63 + 1024."""

X, Y = blobs(n_classes=3)
X2, Y2 = blobs(n_classes=2)
FITS = {"hidden_layer_sizes": (4,), "solver": "sgd", "learning_rate_init": 0.1, "random_state": 0}


def fitted(y, rows=X, **more):
    return fit_quietly(MLPClassifier(max_iter=20, **{**FITS, **more}), rows, y)


# Digits ------------------------------------------------------------------------------------------

IDENTIFIERS = [7, LARGE, 2**64 - 1]
KINDS = {
    **{
        name: lambda ids, name=name: np.array(ids, dtype=name) for name in ("uint64", ">u8", object)
    },
    "list": list,
    "tuple": tuple,
    "NumPy's integers": lambda ids: [np.int64(i) if i < 2**63 else np.uint64(i) for i in ids],
    "arrays of one": lambda ids: [np.array(i) for i in ids],
    "NumPy's integers as objects": lambda ids: np.array([np.uint64(i) for i in ids], object),
    "column": lambda ids: [[i] for i in ids],
    "with floats": lambda ids: [i if i > 7 else float(i) for i in ids],
}
if pandas:
    KINDS |= {
        "nullable series": lambda ids: pandas.Series(ids, dtype="UInt64"),
        "series of objects": lambda ids: pandas.Series(ids, dtype=object),
        "categories": lambda ids: pandas.Series(ids, dtype=object).astype("category"),
        "frame": lambda ids: pandas.DataFrame({"id": pandas.array(ids, dtype="UInt64")}),
    }
if polars:
    KINDS["polars"] = lambda ids: polars.Series(ids, dtype=polars.UInt64)


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("n", [2, 3])
def test_whole_numbers_keep_their_digits(tmp_path, kind, n):
    rows, place = (X2, Y2) if n == 2 else (X, Y)
    ids = [IDENTIFIERS[number] for number in place]
    y = KINDS[kind](ids)
    clf = fitted(y, rows)
    assert clf.predict(rows).tolist() == ids and clf.score(rows, y) == 1
    net = clf.network_
    net.save(tmp_path / "ids.cmlp")
    for same in (net, cmlp.load(tmp_path / "ids.cmlp"), copy.deepcopy(clf).network_):
        assert same.predict_classes(rows).tolist() == ids
        assert same.score(rows, y) == 1
    alone = Network([3, 1 if n == 2 else 3], loss="bce" if n == 2 else None, seed=0)
    alone.fit(rows, y, epochs=20, learning_rate=0.5)
    assert alone.predict_classes(rows).tolist() == ids


EXTREMES = {
    **{
        name: [np.iinfo(name).min, 1, np.iinfo(name).max]
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    ">i8": [-(2**63), 2**53 + 1, 2**63 - 1],
}


@pytest.mark.parametrize("dtype", EXTREMES)
def test_integers_of_any_size(dtype):
    y = np.array(EXTREMES[dtype], dtype)[Y]
    clf = fitted(y)
    assert clf.predict(X).tolist() == clf.network_.predict_classes(X).tolist() == y.tolist()
    assert clf.predict(X).dtype == clf.network_.classes.dtype == y.dtype.newbyteorder("=")


def test_labels_of_another_type_are_compared_digit_by_digit():
    ids = np.array([5, 7, 2**63 - 1])[Y]  # int64
    clf = fitted(ids)
    net = copy.deepcopy(clf.network_)
    for other in (ids.astype(np.uint64), ids.astype(object), ids.tolist()):
        assert clf.score(X, other) == net.score(X, other) == 1
        assert net.loss(X, other) == net.loss(X, ids)
        clf.partial_fit(X, other)
    near = np.where(ids == 2**63 - 1, np.uint64(2**63), ids.astype(np.uint64))
    assert clf.score(X, near) == pytest.approx(2 / 3)
    assert clf.score(X, near.astype(float)) == pytest.approx(2 / 3)
    for call in (clf.partial_fit, net.fit, net.score, net.step):
        with refused(ValueError, 2**63):
            call(X, near)
    small = fitted(Y)
    for other in (Y.astype(float), Y.astype(np.uint64), Y.astype(np.float16), Y.astype(object)):
        assert small.score(X, other) == small.network_.score(X, other) == 1


def test_truth_values():
    truth = Y2 == 1
    kinds = [truth, truth.tolist(), truth.astype(object)]
    if pandas:
        kinds.append(pandas.Series(truth, dtype="boolean"))
    for y in kinds:
        clf = fitted(y, X2)
        assert clf.predict(X2).tolist() == truth.tolist() and clf.classes_.dtype == bool
        assert clf.network_.predict_classes(X2).tolist() == truth.tolist()
    assert clf.score(X2, truth.astype(int)) == clf.network_.score(X2, truth.astype(int)) == 1


def test_weights_of_classes_go_by_every_digit():
    y = np.array([LARGE - 1, LARGE], np.uint64)[Y2]
    by_class = fitted(y, X2, class_weight={np.uint64(LARGE): 3, LARGE - 1: 0.5})
    by_row = fit_quietly(
        MLPClassifier(max_iter=20, **FITS), X2, y, sample_weight=np.where(Y2, 3, 0.5)
    )
    np.testing.assert_array_equal(by_class.predict_proba(X2), by_row.predict_proba(X2))
    with refused(ValueError, f"class_weight names [{LARGE + 1}]"):
        fitted(y, X2, class_weight={LARGE + 1: 2})
    for weight in (np.nan, -1, np.inf, "a"):
        with refused(ValueError, f"class_weight[{LARGE}]"):
            fitted(y, X2, class_weight={LARGE: weight})


def test_new_classes_keep_their_digits():
    clf = fitted(np.array([5, 7])[Y2], X2)
    clf.add_classes(LARGE).add_classes([np.uint64(2**64 - 1), 7])
    assert clf.classes_.tolist() == [5, 7, LARGE, 2**64 - 1]
    clf.partial_fit(X2, [LARGE, 5] * 30, classes=[LARGE, 7, 5, np.uint64(2**64 - 1)])
    assert clf.network_.classes is clf.classes_
    for label in (-1, 2**64):
        with refused(ValueError, "more than 64 bits", "as text"):
            clf.add_classes(label)
    first = MLPClassifier(**FITS).partial_fit(X2, [7, LARGE] * 30, classes=[LARGE, 7])
    assert first.classes_.tolist() == [7, LARGE]


def test_labels_of_a_first_call_that_was_refused_are_forgotten():
    clf = MLPClassifier(**FITS)
    for y in ([7, None] * 30, np.ma.array(Y2, mask=Y2), [7, 8] * 30):
        with pytest.raises(ValueError):
            clf.partial_fit(X2, y, classes=[5, 6])
        assert not hasattr(clf, "classes_")
    assert clf.partial_fit(X2, ["a", "b"] * 30, classes=["b", "a"]).classes_.tolist() == ["a", "b"]


def test_an_ensemble_keeps_them():
    y = np.array([7, LARGE, 2**64 - 1], np.uint64)[Y]
    ensemble = fitted(y, n_ensemble=2)
    assert ensemble.predict(X).tolist() == y.tolist() and ensemble.score(X, y) == 1
    assert ensemble.estimators_[0].network_.predict_classes(X).tolist() == y.tolist()


TOO_LARGE = {"beyond 64 bits": [2**64, 1, 2], "of both signs": [-1, 2**63, 5]}


@pytest.mark.parametrize("case", TOO_LARGE)
@pytest.mark.parametrize("as_array", [False, True])
def test_what_64_bits_do_not_hold_is_refused(case, as_array):
    y = [TOO_LARGE[case][number] for number in Y]
    y = np.array(y, object) if as_array else y
    for call in (fitted(Y).score, Network([3, 3]).fit, MLPClassifier().fit):
        with refused(ValueError, "whole numbers that need more than 64 bits", "as text"):
            call(X, y)


TEXTS = {
    "NumPy's text as objects": [np.str_("a"), np.str_("bb"), np.str_("c")],
    "objects": ["a", "bb", "c"],
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_of_any_kind(kind):
    y = np.array(TEXTS[kind], object)[Y]
    assert fitted(y).predict(X).tolist() == y.tolist()
    assert Network([3, 3]).score(X, y) >= 0


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy 1 has no such text")
def test_text_of_any_length(tmp_path):
    y = np.array(["a", "a long one", ""], np.dtypes.StringDType())[Y]
    clf = fitted(y)
    clf.network_.save(tmp_path / "text.cmlp")
    assert cmlp.load(tmp_path / "text.cmlp").predict_classes(X).tolist() == y.tolist()


@pytest.mark.skipif(pandas is None, reason="needs pandas")
@pytest.mark.parametrize("dtype", ["Int64", "boolean", "string", "category"])
def test_missing_labels_are_refused(dtype):
    labels = [None, "a", "b"] if dtype in ("string", "category") else [None, 0, 1]
    y = pandas.Series([labels[number] for number in Y], dtype=dtype)
    for call in (MLPClassifier().fit, fitted(Y).score):
        with refused(ValueError, "Input y contains NaN"):
            call(X, y)
    with refused(ValueError, "y "):
        Network([3, 3]).fit(X, y)


@pytest.mark.skipif(pandas is None, reason="needs pandas")
def test_missing_ones_among_several_labels_teach_nothing():
    several = np.stack([Y == 0, Y == 1], axis=1).astype(float)
    several[::7, 1] = np.nan
    frame = pandas.DataFrame(several).astype("boolean")
    clf, same = fitted(several), fitted(frame)
    np.testing.assert_array_equal(same.predict_proba(X), clf.predict_proba(X))
    assert same.score(X, frame) == clf.score(X, several)


@pytest.mark.parametrize("y", [np.array(["2020"] * 60, "M8[Y]"), np.zeros(60, "i4,i4")], ids=str)
def test_what_no_file_could_hold_is_refused(y):
    for call in (MLPClassifier().fit, Network([3, 3]).fit):
        with refused(ValueError, "use text or numbers"):
            call(X, y)


# Order -------------------------------------------------------------------------------------------

WORDS = np.array(["low", "middle", "high"])
"""In the order of the outputs; sorted they are another one."""


def networks(n_out, loss=None):
    """Two networks that have learned the same, one with words for its labels."""
    plain, named = (Network([3, 4, n_out], loss=loss, seed=0) for _ in range(2))
    n = max(n_out, 2)
    for net in (plain, named):
        net.fit(X, Y % n, epochs=2)
    named.classes = WORDS[:n].tolist()
    return plain, named, Y % n, WORDS[Y % n]


@pytest.mark.parametrize("n_out, loss", [(3, None), (2, None), (1, "bce")])
def test_a_network_goes_on_with_labels_in_any_order(n_out, loss):
    plain, named, y, words = networks(n_out, loss)
    weights = np.linspace(1, 2, 60)
    assert named.score(X, words) == plain.score(X, y)
    for net, labels in ((plain, y), (named, words)):
        net.fit(X, labels, epochs=2, sample_weight=weights, validation_fraction=0.2)
        net.step(X, labels)
        net.trace_step(X[:3], labels[:3])
    np.testing.assert_array_equal(named.params, plain.params)
    assert named.predict_classes(X).tolist() == WORDS[plain.predict_classes(X)].tolist()
    assert str(named.diagnose(X, words)) == str(plain.diagnose(X, y))
    with refused(ValueError, "the label 0 at row 0", "(low, middle"):
        named.score(X, y)


def test_labels_may_be_given_before_the_first_fit():
    plain, named = (Network([3, 4, 3], seed=0) for _ in range(2))
    named.classes = WORDS
    plain.fit(X, Y, epochs=2)
    named.fit(X, WORDS[Y], epochs=2)
    np.testing.assert_array_equal(named.params, plain.params)


@pytest.mark.parametrize("more", [
    {}, {"n_ensemble": 2}, {"early_stopping": True, "validation_fraction": 0.2},
    {"class_weight": "balanced"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("n", [2, 3])
def test_an_estimator_goes_on_with_labels_in_any_order(n, more):
    y = Y % n
    plain = fitted(y, warm_start=True, **more)
    named = pickle.loads(pickle.dumps(plain))
    named.classes_, words = WORDS[:n], WORDS[y]
    assert named.predict(X).tolist() == WORDS[plain.predict(X)].tolist()
    fit_quietly(plain, X, y)
    fit_quietly(named, X, words)
    if not more.get("early_stopping"):
        plain.partial_fit(X, y, X_val=X, y_val=y)
        named.partial_fit(X, words, classes=sorted(WORDS[:n]), X_val=X, y_val=words)
        assert named.validation_scores_ == plain.validation_scores_
    np.testing.assert_array_equal(named.predict_proba(X), plain.predict_proba(X))
    assert named.score(X, words) == plain.score(X, y)
    assert str(named.diagnose(X, words)) == str(plain.diagnose(X, y))
    for each in named.__dict__.get("estimators_", [named]):
        assert each.predict(X).tolist() == each.network_.predict_classes(X).tolist()
    for old in (named.fit, named.partial_fit):
        with refused(ValueError, "`y` has [0"):
            old(X, y)


def test_weights_of_classes_in_any_order():
    plain = fitted(Y, warm_start=True)
    named = copy.deepcopy(plain).set_params(class_weight=dict(zip(WORDS, (3, 2, 1), strict=True)))
    named.classes_ = WORDS
    plain.set_params(class_weight={0: 3, 1: 2, 2: 1})
    fit_quietly(plain, X, Y)
    fit_quietly(named, X, WORDS[Y])
    np.testing.assert_array_equal(named.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("n", [2, 3])
def test_new_classes_beside_labels_in_any_order(n):
    clf = fitted(Y % n)
    clf.classes_ = WORDS[:n]
    before, shares = clf.predict(X), clf.predict_proba(X)
    clf.add_classes("zero")
    assert clf.classes_.tolist() == sorted([*WORDS[:n], "zero"])
    assert clf.predict(X).tolist() == clf.network_.predict_classes(X).tolist() == before.tolist()
    old = clf.predict_proba(X)[:, [clf.classes_.tolist().index(word) for word in WORDS[:n]]]
    np.testing.assert_allclose(old / old.sum(axis=1, keepdims=True), shares, atol=1e-6)
    assert set(clf.partial_fit(X, ["zero", "low"] * 30).predict(X)) <= {*WORDS[:n], "zero"}


def test_labels_in_any_order_in_a_table():
    from cmlp.cli.report import confusion_table

    table = confusion_table(WORDS[[0, 1, 1, 2]], WORDS[[0, 1, 2, 2]], WORDS).split("\n")
    assert [line.split() for line in table[1:]] == [
        ["|", "low", "middle", "high"], ["low", "|", "1", ".", "."],
        ["middle", "|", ".", "1", "1"], ["high", "|", ".", ".", "1"],
    ]  # fmt: skip


# Functions for labels ----------------------------------------------------------------------------

PAIRS = {
    "equal types": ([3, 1, 2], [1, 2, 3, 4], [1, 2, 0, -1]),
    "integers": (np.array([200, 3], np.uint8), [-56, 3, 200], [-1, 1, 0]),
    "64 bits": ([2**64 - 1, 5], [-1, 5], [-1, 1]),
    "64 bits, the other way": ([-1, 5], [2**64 - 1, 5], [-1, 1]),
    "floats": ([2**53 + 1, 2**53], [2.0**53], [1]),
    "integers among floats": ([2.0**53, 1.0], [2**53 + 1, 1, 2**53], [-1, 1, 0]),
    "truth values": ([True, False], [0, 1, 2], [1, 0, -1]),
    "text": (["b", "a"], ["a", "bb", "b"], [1, -1, 0]),
    "text and numbers": (["1", "2"], [1, 2], [-1, -1]),
    "bytes and text": ([b"a", b"b"], ["a", "b"], [-1, -1]),
}


@pytest.mark.parametrize("case", PAIRS)
def test_places_among_classes(case):
    classes, labels, expected = (np.asarray(part) for part in PAIRS[case])
    assert places(classes, labels).tolist() == expected.tolist()
    same = equal(labels, classes[expected])
    assert same.tolist() == (expected >= 0).tolist()


def test_both_arrays_of_labels_are_joined():
    assert joined("y", np.array([5, -1]), np.array([5], np.uint8)).tolist() == [-1, 5]
    both = joined("y", np.array([5]), np.array([LARGE], np.uint64))
    assert both.tolist() == [5, LARGE] and both.dtype == np.uint64
    with refused(ValueError, "more than 64 bits"):
        joined("y", np.array([-1]), np.array([LARGE], np.uint64))


def test_labels_of_the_network_are_those_of_its_estimator():
    clf = fitted(Y)
    places = clf.predict(X)
    clf.network_.classes = ["low", "middle", "high"]
    words = np.array(["low", "middle", "high"])[places]
    for each in (clf, copy.copy(clf), copy.deepcopy(clf), pickle.loads(pickle.dumps(clf))):
        assert each.predict(X).tolist() == words.tolist() and each.score(X, words) == 1
        assert each.classes_.tolist() == each.network_.classes.tolist() == ["low", "middle", "high"]
    clf.partial_fit(X, words)
    clf.add_classes(["none"])
    assert clf.classes_.tolist() == ["high", "low", "middle", "none"]
    assert clf.predict(X).tolist() == clf.network_.predict_classes(X).tolist()
    fit_quietly(clf, X, Y)  # anew, with labels of its own
    assert clf.classes_.tolist() == clf.network_.classes.tolist() == [0, 1, 2]


def test_text_that_numpy_would_cut_is_refused():
    y = np.array(["a", "a\0", "b"], dtype=object)[Y]
    for labels in (y, y.tolist(), np.array([b"a", b"a\0", b"b"], dtype=object)[Y]):
        with refused(ValueError, "ends in \\0"):
            Network([3, 3]).fit(X, labels)
    with refused(ValueError, "ends in \\0"):
        fitted(y)


def test_numbers_of_more_digits_than_a_float():
    clf, long = fitted(Y), np.finfo(np.longdouble).nmant >= 63
    with refused(ValueError, "more digits than a float has"):
        clf.classes_ = [2**53 + 1, 2.5, 1]
    if long:  # not on every platform
        y = np.array([7, 9, 2**63], np.longdouble) + np.array([0, 0, 1025], np.longdouble)
        assert fitted(y[Y]).classes_.tolist() == [7, 9, LARGE]
    net = Network([3, 1], seed=0)
    net.fit(X / 100, [2**53 + 1 if each else 2.5 for each in Y], epochs=1, learning_rate=1e-30)


@pytest.mark.parametrize("wrong", [[1, 2, 3], np.ones(3), 5.0], ids=str)
def test_weights_of_classes_are_a_mapping(wrong):
    with refused(ValueError, "class_weight must be 'balanced', a dict"):
        fitted(Y, class_weight=wrong)
