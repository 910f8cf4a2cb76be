"""Masked entries are refused in every array; masked arrays without such entries are accepted."""

import numpy as np
import pytest
from helpers import blobs, refused, waves

import cmlp
from cmlp import MLPClassifier, MLPRegressor, Network

try:
    import pandas
except ImportError:
    pandas = None  # its kinds are left out below

X, Y = blobs(40, n_classes=2)
NUMBERS = waves(40)[1][:, 0]
SEVERAL = np.stack([Y, 1 - Y], axis=1)
TEXT = np.array(["ape", "bee"])[Y]
WEIGHTS = np.linspace(1, 2, 40)


def listed(values, mask):
    """The values as lists, with NumPy's constant for what is masked."""
    if values.ndim == 1:
        pairs = zip(values.tolist(), mask, strict=True)
        return [np.ma.masked if hides else value for value, hides in pairs]
    return [listed(row, hides) for row, hides in zip(values, mask, strict=True)]


FORMS = {
    "masked array": lambda values, mask: np.ma.array(values, mask=mask),
    "list": listed,
    "tuple": lambda values, mask: tuple(listed(values, mask)),
    "list of masked arrays": lambda values, mask: list(np.ma.array(values, mask=mask)),
    "objects": lambda values, mask: np.array(listed(values, mask), object),
}
if pandas:
    FORMS["frame or series"] = lambda values, mask: (
        pandas.Series if values.ndim == 1 else pandas.DataFrame
    )(np.array(listed(values, mask), object))


@pytest.fixture(scope="module")
def models():
    """Fitted models, of which no test changes any weights."""
    rows = np.asfortranarray(X)
    return {
        "clf": MLPClassifier((4,), max_iter=1000, tol=1, random_state=0).fit(rows, Y),
        "several": MLPClassifier((4,), max_iter=1000, tol=1, random_state=0).fit(rows, SEVERAL),
        "reg": MLPRegressor(hidden_layer_sizes=(4,), max_iter=1000, tol=1).fit(rows, NUMBERS),
        "net": Network([3, 4, 2], seed=0),
        "line": Network([3, 4, 1], seed=0),
    }


def new(kind=MLPClassifier, **more):
    return kind(hidden_layer_sizes=(4,), max_iter=1000, tol=1, random_state=0, **more)


def estimators_X(m, X):
    for name in (
        "predict", "predict_proba", "predict_log_proba", "decision_function", "transform",
        "input_gradient", "_forward_pass_fast",
    ):  # fmt: skip
        yield getattr(m["clf"], name)
    yield m["reg"].predict
    yield lambda X: m["clf"].score(X, Y)
    yield lambda X: m["clf"].diagnose(X, Y)
    yield lambda X: m["clf"].diagnose(m["X"], Y, X_val=X, y_val=Y)
    yield lambda X: new().fit(X, Y)
    yield lambda X: new(MLPRegressor).fit(X, NUMBERS)
    yield lambda X: new().partial_fit(X, Y, classes=[0, 1])
    yield lambda X: new().fit(m["X"], Y, X_val=X, y_val=Y)


def networks_X(m, X):
    net = m["net"]
    yield from (net.predict, net.predict_classes, net.forward)
    for name in (
        "fit", "step", "train_epoch", "loss", "score", "gradients", "trace_step", "diagnose",
        "check_gradients",
    ):  # fmt: skip
        yield lambda X, name=name: getattr(net, name)(X, Y)
    yield lambda X: net.forward(X, return_all=True)
    yield lambda X: Network([3, 4, 2]).fit(m["X"], Y, X_val=X, y_val=Y)


def labels(m, y):
    clf, net, rows = m["clf"], m["net"], m["X"]
    yield lambda y: new().fit(rows, y)
    yield lambda y: new(n_ensemble=2).fit(rows, y)
    yield lambda y: new().partial_fit(rows, y, classes=sorted(set(TEXT if y is TEXT else Y)))
    yield lambda y: new().fit(rows, Y, X_val=rows, y_val=y)
    yield lambda y: new().fit(rows, Y, eval_set=[(rows, y)])
    yield lambda y: clf.score(rows, y)
    yield lambda y: clf.diagnose(rows, y)
    yield lambda y: clf.diagnose(rows, Y, X_val=rows, y_val=y)
    for name in ("fit", "step", "train_epoch", "loss", "score", "gradients", "diagnose"):
        yield lambda y, name=name: getattr(net, name)(rows, y)
    yield lambda y: Network([3, 4, 2]).fit(rows, Y, X_val=rows, y_val=y)


def several(m, y):
    rows = m["X"]
    yield lambda y: new().fit(rows, y)
    yield lambda y: m["several"].score(rows, y)
    yield lambda y: new(MLPRegressor).fit(rows, y)
    yield lambda y: Network([3, 2], loss="bce", missing_targets=True).fit(rows, y)
    yield lambda y: Network([3, 2]).loss(rows, y)


def numbers(m, y):
    rows = m["X"]
    yield lambda y: new(MLPRegressor).fit(rows, y)
    yield lambda y: new(MLPRegressor).partial_fit(rows, y)
    yield lambda y: new(MLPRegressor).fit(rows, NUMBERS, X_val=rows, y_val=y)
    yield lambda y: m["reg"].score(rows, y)
    yield lambda y: m["line"].fit(rows, y)
    yield lambda y: m["line"].score(rows, y)


def weights(m, w):
    clf, net, rows = m["clf"], m["net"], m["X"]
    yield lambda w: new().fit(rows, Y, w)
    yield lambda w: new(MLPRegressor).fit(rows, NUMBERS, w)
    yield lambda w: new().fit(rows, Y, X_val=rows, y_val=Y, sample_weight_val=w)
    yield lambda w: clf.score(rows, Y, w)
    yield lambda w: m["reg"].score(rows, NUMBERS, w)
    yield lambda w: clf.diagnose(rows, Y, w)
    for name in ("fit", "step", "train_epoch", "loss", "score", "gradients"):
        yield lambda w, name=name: getattr(net, name)(rows, Y, sample_weight=w)


GIVEN = {
    "rows of estimators": (X, estimators_X),
    "rows of networks": (X, networks_X),
    "labels": (Y, labels),
    "text": (TEXT, labels),
    "several labels": (SEVERAL, several),
    "numbers": (NUMBERS, numbers),
    "weights": (WEIGHTS, weights),
}


@pytest.mark.filterwarnings("ignore:lbfgs", "ignore:Stochastic")
@pytest.mark.parametrize("what", GIVEN)
@pytest.mark.parametrize("form", FORMS)
def test_masked_entries_are_refused(engine, models, what, form):
    values, calls = GIVEN[what]
    mask = np.zeros(values.shape, bool)
    mask[3::10] = True
    hidden = FORMS[form](values, mask)
    for number, call in enumerate(calls({**models, "X": X}, values)):
        with pytest.raises((ValueError, TypeError)) as caught:
            call(hidden)
        assert "mask" in str(caught.value), (number, caught.value)


@pytest.mark.parametrize("what", [what for what in GIVEN if what != "text"])
def test_a_masked_array_in_which_nothing_is_masked_is_an_array(engine, models, what):
    values, calls = GIVEN[what]
    for array in (np.ma.array(values), np.ma.array(values, mask=np.zeros(values.shape, bool))):
        for call in calls({**models, "X": X}, values):
            call(array)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_short_way_of_a_prediction_knows_masks(engine, models, kind):
    rows = np.ma.array(X.astype(kind), mask=np.eye(40, 3))
    for ask in (models["net"].predict, models["clf"].predict, models["reg"].predict):
        ask(rows.data)
        with refused(ValueError, "X has masked entries", "X.filled(value)"):
            ask(rows)
        np.testing.assert_array_equal(ask(np.ma.array(rows.data)), ask(rows.data))


def test_masked_numbers_of_a_sparse_matrix(models):
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(X)
    sparse.data = np.ma.array(sparse.data, mask=np.arange(sparse.data.size) == 0)
    asks = models["clf"].predict, models["net"].predict
    learns = new().fit, models["net"].fit, models["net"].diagnose, models["clf"].diagnose
    for call, y in [*((ask, ()) for ask in asks), *((learn, (Y,)) for learn in learns)]:
        with refused(ValueError, "X has masked entries"):
            call(sparse, *y)


TWO = np.ma.array([5, 6], mask=[False, True])
ONE = [np.ma.array(np.ones((3, 4)), mask=np.eye(3, 4)), np.ones((4, 1))]
BIASES = [np.ma.array(np.zeros(4), mask=[1, 0, 0, 0]), np.zeros(1)]
NAMES = np.ma.array(list("abc"), mask=[0, 1, 0])


def assign(model, name, value):
    setattr(model, name, value)


ASSIGNED = {
    "classes of partial_fit": lambda clf, net: new().partial_fit(X, Y, classes=TWO),
    "a list of them": lambda clf, net: new().partial_fit(X, Y, classes=[0, np.ma.masked]),
    "add_classes": lambda clf, net: clf.add_classes(TWO),
    "one class": lambda clf, net: clf.add_classes(np.ma.masked),
    "class_weight": lambda clf, net: new(class_weight={0: np.ma.masked}).fit(X, Y),
    "classes_": lambda clf, net: assign(clf, "classes_", TWO),
    "classes": lambda clf, net: assign(net, "classes", TWO),
    "coefs_init": lambda clf, net: new().fit(X, Y, coefs_init=ONE),
    "intercepts_init": lambda clf, net: new().fit(X, Y, intercepts_init=BIASES),
    "coefs_": lambda clf, net: assign(clf, "coefs_", ONE),
    "intercepts_": lambda clf, net: assign(clf, "intercepts_", BIASES),
    "coefs_ of other shapes": lambda clf, net: assign(clf, "coefs_", [ONE[0][:, :2], ONE[1]]),
    "coefs_ before fit": lambda clf, net: assign(new(), "coefs_", ONE),
    "params": lambda clf, net: assign(net, "params", np.ma.array(net.params, mask=net.params > 1)),
    "one layer": lambda clf, net: net.weights.__setitem__(0, ONE[0]),
    "feature_names": lambda clf, net: assign(net, "feature_names", NAMES),
    "feature_names_in_": lambda clf, net: assign(clf, "feature_names_in_", NAMES),
    "target_name": lambda clf, net: assign(net, "target_name", np.ma.masked),
    "input_scale": lambda clf, net: assign(net, "input_scale", np.ma.masked),
    "gradient of a loss": lambda clf, net: Network(
        [3, 1], loss=lambda out, y: (0.0, np.ma.masked_less(out, 9))
    ).loss(X, NUMBERS),
}


@pytest.mark.parametrize("what", ASSIGNED)
def test_masked_entries_are_not_assigned(what):
    clf, net = new().fit(X, Y), Network([3, 4, 2], seed=0)
    before = clf.predict_proba(X), net.predict(X)
    with pytest.raises((ValueError, TypeError), match="mask"):
        ASSIGNED[what](clf, net)
    np.testing.assert_array_equal(clf.predict_proba(X), before[0])
    np.testing.assert_array_equal(net.predict(X), before[1])


def test_pictures_of_masked_data():
    plt = pytest.importorskip("matplotlib.pyplot")
    flat = new().fit(X[:, :2], Y)
    net = Network([2, 4, 2], seed=0)
    mask = np.arange(40) % 5 == 0
    hidden, rows = np.ma.array(Y, mask=mask), np.ma.array(X[:, :2], mask=np.c_[mask, mask])
    for model in (flat, net):
        for draw in (
            cmlp.plot.confusion_matrix, cmlp.plot.decision_regions, cmlp.plot.gradient_norms,
        ):  # fmt: skip
            for given in ((rows, Y), (X[:, :2], hidden)):
                with refused(ValueError, "masked entries"):
                    draw(model, *given)
        with refused(ValueError, "x has masked entries"):
            cmlp.plot.activations(model, np.ma.array([1.0, 2.0], mask=[0, 1]))
    plt.close("all")


def test_a_predictor_refuses_masked_rows(engine):
    net = Network([3, 4, 2], seed=0)
    predict = net.predictor(batch_size=5)
    X = np.arange(15.0).reshape(5, 3)
    for masked in (np.ma.masked_greater(X, 7), np.ma.masked_less(X[0], 1)):
        with refused(ValueError, "x has masked entries"):
            predict(masked)
    np.testing.assert_array_equal(predict(np.ma.array(X)), predict(X))


@pytest.mark.parametrize("dropout", [np.ma.masked, np.ma.array([0.1], mask=[True])], ids=str)
def test_masked_parameters(dropout):
    with refused(ValueError, "dropout has masked entries"):
        Network([3, 4, 2]).fit(X, Y, dropout=dropout)
