"""Checks of input: every kind of X and y that users pass, and the errors for all others."""

import tracemalloc

import numpy as np
import pytest
from helpers import blobs, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from cmlp import Network

try:
    import pandas
except ImportError:
    pandas = None  # its kinds are left out below

# X ------------------------------------------------------------------------------------------------

WHOLE = np.random.default_rng(0).integers(0, 100, (50, 3))
"""Numbers that every number type holds."""


class Listed:
    """An array-like of another library."""

    def __array__(self, dtype=None, copy=None):
        return np.asarray(WHOLE, dtype)


def frozen(X):
    X.flags.writeable = False
    return X


def unaligned(X):
    raw = np.zeros(X.nbytes + 1, np.uint8)
    out = raw[1:].view(X.dtype).reshape(X.shape)
    out[...] = X
    return out


KINDS = {
    **{name: WHOLE.astype(name) for name in np.typecodes["AllInteger"] + "efdg"},
    "big-endian floats": WHOLE.astype(">f4"),
    "big-endian integers": WHOLE.astype(">i2"),
    "Fortran": np.asfortranarray(WHOLE, np.float32),
    "every second column": np.repeat(WHOLE, 2, axis=1)[:, ::2],
    "every second row": np.repeat(WHOLE.astype("u1"), 2, axis=0)[::2],
    "reversed": WHOLE[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": frozen(WHOLE.astype(np.float32)),
    "unaligned": unaligned(WHOLE.astype(np.float64)),
    "list": WHOLE.tolist(),
    "tuples of floats": tuple(map(tuple, WHOLE.astype(float).tolist())),
    "objects": WHOLE.astype(object),
    "mask without effect": np.ma.array(WHOLE, mask=False),
    "another library's": Listed(),
}
if pandas:
    KINDS |= {
        "data frame": pandas.DataFrame(WHOLE, columns=list("abc")),
        "mixed data frame": pandas.DataFrame(WHOLE).astype({0: "uint8", 1: "float32"}),
        "nullable data frame": pandas.DataFrame(WHOLE).astype("Int64"),
    }


@pytest.fixture(scope="module")
def net():
    return Network([3, 8, 2], "tanh", "identity", seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_rows(engine, net, kind):
    expected = net.predict(WHOLE.astype(np.float64))
    # Only the place where a row's numbers are converted differs, and whole numbers convert exactly.
    np.testing.assert_array_equal(net.predict(KINDS[kind]), expected)
    assert net.loss(KINDS[kind], WHOLE[:, :2].astype(float)) == net.loss(
        WHOLE, WHOLE[:, :2].astype(float)
    )


def test_truth_values(engine, net):
    X = WHOLE > 50
    for kind in (X, np.asfortranarray(X), X.tolist(), X.astype(object)):
        np.testing.assert_array_equal(net.predict(kind), net.predict(X.astype(np.float32)))


def test_memory_map(engine, net, tmp_path):
    WHOLE.astype(np.uint8).tofile(tmp_path / "rows")
    X = np.memmap(tmp_path / "rows", np.uint8, "r", shape=WHOLE.shape)
    np.testing.assert_array_equal(net.predict(X), net.predict(WHOLE))
    np.testing.assert_array_equal(net.predict(X[::-2]), net.predict(WHOLE[::-2]))


class Sparse:
    shape = (2, 3)

    def toarray(self):
        raise AssertionError("cmlp does not make X dense")


BAD_X = {
    "one row": ([1, 2, 3], ValueError, "(rows, features)", "(3,)", "X.reshape(1, -1)"),
    "one column": (np.arange(6), ValueError, "(rows, features)", "(6,)", "X.reshape(-1, 3)"),
    "nothing": ([], ValueError, "(rows, features)", "(0,)"),
    "a number": (5, ValueError, "(rows, features)", "()"),
    "images": (np.zeros((2, 3, 1)), ValueError, "(2, 3, 1)", "X.reshape(len(X), -1)"),
    "too wide": (np.zeros((2, 4)), ValueError, "X has 4 features", "expects 3"),
    "sparse": (Sparse(), TypeError, "sparse", "X.toarray()"),
    "masked": (np.ma.array(WHOLE, mask=WHOLE > 50), ValueError, "masked", "X.filled(value)"),
    "text": ([["1", "2", "3"]], ValueError, "real numbers", "<U1"),
    "text among objects": (np.array([[1, "b", 3]], object), ValueError, "X", "numbers", "'b'"),
    "nothing among objects": (np.array([[1, None, 3]], object), ValueError, "X", "numbers"),
    "complex": (WHOLE * 1j, ValueError, "real numbers", "complex128"),
    "dates": (WHOLE.astype("M8[D]"), ValueError, "real numbers", "datetime64"),
    "durations": (WHOLE.astype("m8[s]"), ValueError, "real numbers", "timedelta64"),
    "records": (np.zeros((2, 3), "f4,f4"), ValueError, "real numbers"),
    "bytes": (np.array([[b"a", b"b", b"c"]]), ValueError, "real numbers", "|S1"),
}
if pandas:
    holes = pandas.DataFrame({"a": [1, None], "b": [1, 2], "c": [1, 2]}, dtype="Int64")
    BAD_X["missing in a frame"] = holes, ValueError, "X", "numbers"


@pytest.mark.parametrize("case", BAD_X)
def test_rows_that_are_refused(net, case):
    X, kind, *parts = BAD_X[case]
    for ask in (net.predict, net.forward, net.predict_classes):
        with refused(kind, *parts):
            ask(X)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("where", [(0, 0), (4095, 2), (4096, 0), (9999, 1)], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_place_of_a_bad_number_is_named(engine, net, value, where, order):
    X = np.zeros((10_000, 3), np.float32, order)
    X[where] = value
    with refused(ValueError, f"row {where[0]}, column {where[1]}", value, "remove"):
        net.predict(X)
    with refused(ValueError, "X_val", f"row {where[0]}, column {where[1]}"):
        net.fit([[0, 0, 0]], [[0, 0]], X_val=X, y_val=np.zeros((len(X), 2)))


def test_too_large_for_the_networks_type(engine, dtype):
    net = Network([3, 2], dtype=dtype)
    X = np.full((2, 3), 1e300)
    if dtype == np.float64:
        assert np.isfinite(net.forward(X, return_all=True).z[0]).all()
        return
    with refused(ValueError, "1e+300", "row 0, column 0", "float32", "scale"):
        net.predict(X)
    with refused(ValueError, "y holds -1e+300", "row 1", "float32"):
        Network([3, 1]).loss(np.ones((2, 3)), [0.0, -1e300])


def test_the_largest_number_is_not_too_large(net):
    net.predict(np.full((1, 3), np.finfo(np.float32).max))


# Memory -------------------------------------------------------------------------------------------

N_BIG = 500_000


def peak(call):
    """Bytes that a call takes at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["?", "u1", "i2", "i8", "f4", "f8"])
def test_rows_are_never_copied_as_a_whole(engine, kind):
    """A virtual array, 100 columns wide: one byte per entry of a copy would be 50 MB."""
    row = np.random.default_rng(0).integers(0, 2, 100).astype(kind)
    X = np.broadcast_to(row, (N_BIG // 10, 100))
    assert peak(lambda: Network([100, 2, 1]).predict(X)) < X.size / 2


def test_pixels_are_never_copied_as_a_whole(engine, tmp_path):
    net = Network([400, 2, 2])
    shape = (50_000, 400)
    X = np.memmap(tmp_path / "pixels", np.uint8, "w+", shape=shape)  # 20 MB, all holes
    y = np.arange(len(X)) % 2
    small = X.size / 2
    assert peak(lambda: net.predict(X)) < small
    assert peak(lambda: net.loss(X, y)) < small
    assert peak(lambda: net.fit(X, y, epochs=1, batch_size=1000)) < small
    assert peak(lambda: net.fit(X, y, epochs=1, batch_size=1000, validation_fraction=0.2)) < small
    assert peak(lambda: net.fit(X, y, epochs=1, batch_size=1000, X_val=X, y_val=y)) < small


# y ------------------------------------------------------------------------------------------------

TEXT = np.array(["ape", "bee", "cat"])
LABELS = {
    "integers from 0": np.arange(3),
    "integers": np.array([-7, 3, 2**40]),
    "unsigned": np.array([3, 200, 255], np.uint8),
    "whole floats": np.array([1.0, 2.0, 5.0]),
    "text": TEXT,
    "unicode": np.array(["ä", "日本", "🐝🐝"]),
    "text as objects": TEXT.astype(object),
    "long text": np.array(["a" * 300, "b", "c" * 50]),
    "bytes": np.array([b"ape", b"bee", b"cat"]),
}


FORMS = {"array": np.asarray, "list": list, "column": lambda y: y[:, None]}
if pandas:
    FORMS |= {
        "series": pandas.Series,
        "categories": lambda y: pandas.Series(y).astype("category"),
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_type(kind, form):
    X, y = blobs()
    net, plain = Network([3, 3], seed=0), Network([3, 3], seed=0)
    named = LABELS[kind][y]
    net.fit(X, FORMS[form](named), epochs=20, learning_rate=0.1)
    plain.fit(X, y, epochs=20, learning_rate=0.1)
    np.testing.assert_array_equal(net.params, plain.params)
    np.testing.assert_array_equal(net.predict_classes(X), LABELS[kind][plain.predict_classes(X)])
    assert net.score(X, named) == plain.score(X, y) == 1


@pytest.mark.parametrize(
    "labels",
    [[0, 1], [False, True], [-1, 1], [0.0, 1.0], [-1.0, 1.0], ["n", "y"], [3, 4]],
    ids=str,
)
def test_two_labels_for_one_output(labels):
    X, y = blobs(n_classes=2)
    net, plain = (Network([3, 1], loss="bce", seed=0) for _ in range(2))
    named = np.array(labels)[y]
    net.fit(X, named, epochs=5)
    plain.fit(X, y, epochs=5)
    np.testing.assert_array_equal(net.params, plain.params)
    assert net.predict_classes(X).tolist() == np.array(labels)[plain.predict_classes(X)].tolist()


@settings(max_examples=20, deadline=None, database=None)
@given(
    labels=st.one_of(
        st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=6, unique=True),
        st.lists(st.text(min_size=1).filter(lambda t: "\0" not in t), min_size=2, max_size=6,
                 unique=True),
        st.lists(st.integers(-1000, 1000).map(float), min_size=2, max_size=6, unique=True),
    ),
    seed=st.integers(0, 100),
)  # fmt: skip
def test_any_labels_come_back(labels, seed):
    classes = np.sort(np.array(labels))
    rows = np.random.default_rng(seed).permutation(np.tile(np.arange(len(classes)), 3))
    X = np.eye(len(classes))[rows]
    net = Network([len(classes), len(classes)], weight_init="zeros")
    net.weights[0][:] = np.eye(len(classes))
    assert net.score(X, classes[rows]) == 1
    assert net.predict_classes(X).tolist() == classes[rows].tolist()


MATRICES = {
    "one-hot": (np.eye(3), "categorical_crossentropy"),
    "one-hot integers": (np.eye(3, dtype=int), "categorical_crossentropy"),
    "one-hot truth values": (np.eye(3, dtype=bool), "categorical_crossentropy"),
    "one-hot objects": (np.eye(3).astype(object), "categorical_crossentropy"),
    "probabilities": (np.full((3, 3), 1 / 3), "categorical_crossentropy"),
    "several labels": (np.tri(3), "binary_crossentropy"),
    "several labels, truth values": (np.tri(3, dtype=bool), "binary_crossentropy"),
    "numbers": (np.arange(9.0).reshape(3, 3) - 4, "squared_error"),
    "whole numbers": (np.arange(9).reshape(3, 3) - 4, "squared_error"),
    "counts": (np.arange(9, dtype=np.uint8).reshape(3, 3), "poisson"),
}
if pandas:
    MATRICES["one-hot frame"] = pandas.DataFrame(np.eye(3)), "categorical_crossentropy"


@pytest.mark.parametrize("kind", MATRICES)
def test_matrices(engine, kind):
    y, loss = MATRICES[kind]
    net = Network([3, 3], loss=loss, dtype="float64", seed=0)
    gradient = net.gradients(np.eye(3), y)
    delta = (net.predict(np.eye(3)) - np.asarray(y, float)) / 3  # of every loss with its output
    np.testing.assert_allclose(gradient.biases[0], delta.sum(axis=0), rtol=1e-9, atol=1e-15)
    assert net.classes is None


def test_one_hot_rows_are_labels(engine):
    X, y = blobs()
    one_hot, labels = Network([3, 3], seed=0), Network([3, 3], seed=0)
    one_hot.fit(X, np.eye(3)[y], epochs=3)
    labels.fit(X, y, epochs=3)
    np.testing.assert_array_equal(one_hot.params, labels.params)
    assert one_hot.score(X, np.eye(3)[y]) == labels.score(X, y) == labels.score(X, np.eye(3)[y])


X9, Y9 = blobs(9)
BAD_Y = {
    "too short": ([3, 3], {}, [0, 1], ("y must have 9 rows", "(2,)")),
    "a number": ([3, 3], {}, 1, ("y must have 9 rows", "()")),
    "a cube": ([3, 3], {}, np.zeros((9, 3, 1)), ("y must have 9 rows", "(9, 3, 1)")),
    "two columns": ([3, 3], {}, np.zeros((9, 2)), ("2 columns", "3 outputs")),
    "fractions": ([3, 3], {}, Y9 + 0.5, ("3 outputs", "labels", "squared_error")),
    "too many classes": ([3, 2], {}, TEXT[Y9], ("3 classes (ape, bee, cat)", "2 outputs", "3")),
    "too few classes": ([3, 4], {}, TEXT[Y9], ("3 classes (ape, bee, cat)", "4 outputs", "3")),
    "too many for one": ([3, 1], {"loss": "bce"}, TEXT[Y9], ("3 classes", "1 output")),
    "text for numbers": ([3, 1], {}, TEXT[Y9], ("<U3 labels", "loss is for numbers", "binary")),
    "mixed": ([3, 3], {}, [0, "a", 1.5] * 3, ("y ",)),
    "mixed objects": ([3, 3], {}, np.array([0, "a", 2] * 3, object), ("mixes", "int, str")),
    "missing text": ([3, 2], {}, ["a", None, "b"] * 3, ("mixes", "NoneType, str")),
    "missing numbers": ([3, 2], {}, [0, None, 1] * 3, ("y ",)),
    "nothing but None": ([3, 2], {}, [None] * 9, ("y ",)),
    "NaN": ([3, 1], {}, [0.0, np.nan, 1] * 3, ("y holds nan at row 1", "finite")),
    "NaN label": ([3, 3], {}, [0.0, np.nan, 1] * 3, ("y holds nan at row 1", "finite")),
    "infinity": ([3, 1], {}, [0.0, 1, -np.inf] * 3, ("y holds -inf at row 2", "finite")),
    "NaN in a matrix": ([3, 2], {"loss": "mse"}, np.full((9, 2), np.nan), ("row 0, column 0",)),
    "complex": ([3, 1], {}, Y9 * 1j, ("y must hold real numbers", "complex")),
    "text matrix": ([3, 3], {}, np.full((9, 3), "a"), ("y must hold real numbers", "<U1")),
    "two ones": ([3, 3], {}, np.ones((9, 3)), ("row 0 of y sums to 3", "binary_crossentropy")),
    "no one": ([3, 3], {}, np.eye(9)[:, :3], ("row 3 of y sums to 0",)),
    "no probability": ([3, 3], {}, np.tile([2.0, -1, 0], (9, 1)), ("between 0 and 1",)),
    "no 0 or 1": ([3, 2], {"loss": "bce"}, np.full((9, 2), 2), ("2", "between 0 and 1")),
    "no share": ([3, 1], {"loss": "bce"}, np.full(9, 1.5), ("1.5", "between 0 and 1")),
    "negative count": ([3, 1], {"loss": "poisson"}, -Y9, ("poisson", "at least 0")),
    "masked": ([3, 1], {}, np.ma.array(X9[:, 0], mask=X9[:, 0] > 0), ("y", "masked")),
}
if pandas:
    BAD_Y["missing in a series"] = [3, 2], {}, pandas.Series(["a", None, "b"] * 3), ("y ",)


@pytest.mark.parametrize("case", BAD_Y)
def test_targets_that_are_refused(case):
    sizes, options, y, parts = BAD_Y[case]
    net = Network(sizes, seed=0, **options)
    for ask in (net.fit, net.loss, net.gradients, net.step):
        with refused(ValueError, *parts):
            ask(X9, y)
    with refused(ValueError, *(part.replace("y ", "y_val ") for part in parts)):
        net.fit(X9, good_for(net), X_val=X9, y_val=y)


def good_for(net):
    """Targets that suit a network, whatever its loss, and name no labels."""
    n_out = net.sizes[-1]
    return np.full((9, n_out), 1 / n_out if n_out > 1 else 0.5)


def test_sparse_targets_are_named_sparse():
    with refused((TypeError, ValueError), "y", "sparse", "toarray"):
        Network([3, 1]).fit(X9, Sparse())


@pytest.mark.parametrize("later", ["zebra", 5], ids=str)
def test_a_label_that_was_never_seen(later):
    net = Network([3, 3], seed=0)
    net.fit(X9, TEXT[Y9], epochs=1)
    y = TEXT[Y9].astype(object)
    y[4:] = later
    with refused(ValueError, "y"):
        net.fit(X9, y)
    with refused(ValueError, f"the label {later!r} at row 0", "(ape, bee, cat)"):
        net.score(X9, np.full(9, later))


def test_labels_keep_their_order_in_later_parts():
    net = Network([3, 3], seed=0)
    net.fit(X9, TEXT[Y9], epochs=1)
    assert net.loss(X9[2:3], ["cat"]) == net.loss(X9[2:3], [[0, 0, 1]])
    net.step(X9[:2], ["bee", "ape"])
    assert net.classes.tolist() == TEXT.tolist()


def test_a_failed_call_leaves_no_labels():
    net = Network([3, 3], seed=0)
    with refused(ValueError, "sample_weight"):
        net.fit(X9, TEXT[Y9], sample_weight=[1, 2])
    with refused(ValueError, "X_val"):
        net.fit(X9, TEXT[Y9], X_val=X9[:, :2], y_val=TEXT[Y9])
    assert net.classes is None
    net.fit(X9, Y9, epochs=1)
    assert net.classes.tolist() == [0, 1, 2]


def test_one_class_says_what_is_missing():
    for n_out, loss in ((1, "bce"), (3, None)):
        with pytest.raises(ValueError, match="one class only") as caught:
            Network([3, n_out], loss=loss).fit(X9, ["ape"] * 9)
        assert "should be 1" not in str(caught.value)  # a network for one class is no advice


@pytest.mark.parametrize(
    "weight, parts",
    [
        ([1, 2], ("(9,)", "(2,)")),
        (np.ones((9, 1)), ("(9,)", "(9, 1)")),
        (np.r_[np.ones(8), -1], ("negative",)),
        (np.zeros(9), ("zero everywhere",)),
        (np.r_[np.ones(8), np.nan], ("sample_weight holds nan at row 8",)),
        (np.r_[np.inf, np.ones(8)], ("sample_weight holds inf at row 0",)),
        (["a"] * 9, ("sample_weight must hold real numbers",)),
    ],
    ids=str,
)
def test_weights_that_are_refused(weight, parts):
    net = Network([3, 3])
    for ask in (net.fit, net.loss, net.score, net.step, net.train_epoch, net.gradients):
        with refused(ValueError, *parts):
            ask(X9, Y9, sample_weight=weight)
