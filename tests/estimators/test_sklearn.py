"""The estimators in scikit-learn: its checks, its curves, its tools.

Needs scikit-learn, from 1.4 on; ``tools/sklearn_own_tests.py`` runs its own tests of its MLP.
"""

import pickle
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from cores import CORES
from helpers import blobs, covering, fit_quietly, refused, waves

import cmlp
from cmlp import MLPClassifier, MLPRegressor
from cmlp.core import scratch

sklearn = pytest.importorskip("sklearn", minversion="1.4")
from sklearn import neural_network  # noqa: E402
from sklearn.base import clone, is_classifier, is_regressor  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.datasets import make_multilabel_classification  # noqa: E402
from sklearn.exceptions import (  # noqa: E402
    ConvergenceWarning,
    DataConversionWarning,
    NotFittedError,
    UndefinedMetricWarning,
)
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils import estimator_checks  # noqa: E402

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
KINDS = (MLPClassifier, MLPRegressor)

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:.*does not inherit from"),
    pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning"),  # older releases
]


# scikit-learn's checks ---------------------------------------------------------------------------

N_CHECKS = {
    (1, 4): (61, 54),
    (1, 5): (62, 55),
    **dict.fromkeys([(1, 6), (1, 7), (1, 8)], (72, 65)),
    (1, 9): (73, 66),
}
"""Checks of the classifier and of the regressor, by version."""

BELOW_FLOAT32 = {
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
    "check_sample_weights_invariance",
    "check_methods_subset_invariance",
}
"""Checks that compare two fits or two batches to 1e-7, which is less than a rounding of float32."""


def checks_of(kind, number_type, n_ensemble=1):
    """The checks that ``parametrize_with_checks`` would run."""
    estimator = kind(dtype=number_type, max_iter=100, n_ensemble=n_ensemble)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(estimator_checks, "estimator_checks_generator"):
            return list(estimator_checks.estimator_checks_generator(estimator))
        return list(estimator_checks.check_estimator(estimator, generate_only=True))


def name_of(check):
    return getattr(check, "func", check).__name__


CHECKS = [
    pytest.param(estimator, check, id=f"{kind.__name__}-{number_type}-{name_of(check)}")
    for kind in KINDS
    for number_type in ("float64", "float32")
    for estimator, check in checks_of(kind, number_type)
    if number_type == "float64" or name_of(check) not in BELOW_FLOAT32
]
OF_ENSEMBLES = [
    pytest.param(estimator, check, id=f"{kind.__name__}-{name_of(check)}")
    for kind in KINDS
    for estimator, check in checks_of(kind, "float64", n_ensemble=2)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator, check", CHECKS)
def test_checks_of_scikit_learn(estimator, check, monkeypatch):
    """In float64 all of them, in float32 all but those whose tolerance is below its rounding.

    The one on the NumPy core, the other on the fastest, as the ensembles below in float64.
    """
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    with cmlp.use_core(CORES[-1] if estimator.dtype == "float64" else CORES[0]):
        check(estimator)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator, check", OF_ENSEMBLES)
def test_checks_of_scikit_learn_on_ensembles(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    check(estimator)


@pytest.mark.parametrize("n_ensemble", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_no_check_is_missing(kind, n_ensemble):
    counts = {version: n[KINDS.index(kind)] for version, n in N_CHECKS.items()}
    checks = checks_of(kind, "float64", n_ensemble)
    assert len(checks) == counts.get(VERSION, pytest.approx(60, abs=15))


# The same numbers --------------------------------------------------------------------------------

ROWS = 233  # the last batch is a smaller one


def problem(name):
    rng = np.random.RandomState(0)
    X = rng.normal(size=(ROWS, 6))
    smooth = np.sin(X[:, 0]) + 0.1 * rng.normal(size=ROWS)
    if name == "multilabel":
        X, y = make_multilabel_classification(ROWS, 6, n_classes=4, random_state=0)
        return X / 10, y
    targets = {
        "binary": (smooth > 0).astype(int),
        "multiclass": np.digitize(smooth, [-0.5, 0.5]),
        "one output": smooth,
        "three outputs": np.stack([smooth, X[:, 1], smooth * X[:, 2]], axis=1),
        "poisson": rng.poisson(np.exp(0.5 * X[:, 0])).astype(float),
    }
    return X, targets[name]


SOLVERS = {
    "sgd": {"solver": "sgd", "batch_size": 50},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "nesterovs_momentum": False},
    "undamped": {"solver": "sgd", "momentum": 1.0},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "momentum": 0,
                 "n_iter_no_change": 2},
    "adam": {"solver": "adam", "batch_size": 50, "alpha": 0.5},
    "lbfgs": {"solver": "lbfgs", "alpha": 10},
}  # fmt: skip
PROBLEMS = ("binary", "multiclass", "multilabel", "one output", "three outputs", "poisson")


@pytest.mark.parametrize(
    "solver, target, activation",
    covering(SOLVERS, PROBLEMS, ["identity", "logistic", "tanh", "relu", "weighted"]),
)
def test_curves_are_scikit_learns(engine, solver, target, activation):
    """From the same seed: first weights, order of rows, loss curve and last weights are equal.

    Where probabilities are within a rounding of 0 or 1 they are not: scikit-learn's loss has a
    ceiling there, its gradient has not. The problems stay away.
    """
    weights = {}
    if activation == "weighted":
        if VERSION < (1, 7):
            pytest.skip("weights that scikit-learn does not have yet")
        activation, weights = "logistic", {"sample_weight": np.arange(ROWS) % 4 / 2}
    if target == "poisson" and VERSION < (1, 7):
        pytest.skip("a loss that scikit-learn does not have yet")
    X, y = problem(target)
    name = "MLPRegressor" if "output" in target or target == "poisson" else "MLPClassifier"
    params = {"hidden_layer_sizes": (7, 5), "activation": activation, "max_iter": 20,
              "random_state": 5, "learning_rate_init": 0.01, **SOLVERS[solver]}  # fmt: skip
    if target == "poisson":
        params["loss"] = "poisson"
    theirs = getattr(neural_network, name)(**params).fit(X, y, **weights)
    ours = getattr(cmlp, name)(**params, dtype="float64").fit(X, y, **weights)
    # A step of adam divides by gradients' sizes, one of lbfgs by curvatures: roundings grow.
    rtol = {"lbfgs": 1e-8, "adam": 1e-10}.get(solver, 1e-11)
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=rtol)
    assert (ours.n_iter_, ours.t_) == (theirs.n_iter_, theirs.t_)
    assert ours.out_activation_ == theirs.out_activation_
    if solver != "lbfgs":
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=rtol)
        np.testing.assert_allclose(ours.best_loss_, theirs.best_loss_, rtol=rtol)
    for mine, same in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_,
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(mine, same, rtol=100 * rtol, atol=100 * rtol)


@pytest.mark.parametrize("target", PROBLEMS[:-1])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 1 / 3])
def test_early_stopping_is_scikit_learns(target, fraction):
    """The same rows are held out, so the same epoch is the best."""
    X, y = problem(target)
    name = "MLPRegressor" if "output" in target else "MLPClassifier"
    params = {"early_stopping": True, "validation_fraction": fraction, "learning_rate_init": 0.01,
              "hidden_layer_sizes": (7,), "random_state": 1, "n_iter_no_change": 5}  # fmt: skip
    theirs = getattr(neural_network, name)(**params).fit(X, y)
    ours = getattr(cmlp, name)(**params, dtype="float64").fit(X, y)
    assert ours.n_iter_ == theirs.n_iter_ and ours.best_loss_ is theirs.best_loss_ is None
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-9)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_the_constructors_are_scikit_learns(kind):
    theirs = getattr(neural_network, kind)().get_params()
    ours = getattr(cmlp, kind)().get_params()
    if VERSION >= (1, 7):
        assert theirs.items() <= ours.items()
        assert repr(getattr(cmlp, kind)(alpha=3)) == repr(getattr(neural_network, kind)(alpha=3))


# Citizenship -------------------------------------------------------------------------------------


def test_tools_take_it():
    X, y = blobs(90)
    clf = MLPClassifier((8,), max_iter=30, random_state=0, learning_rate_init=0.05)
    assert is_classifier(clf) and is_regressor(MLPRegressor())
    assert clone(clf).get_params() == clf.get_params()
    pipe = make_pipeline(StandardScaler(), clf)
    assert cross_val_score(pipe, X, y, cv=3).mean() > 0.9
    grid = {"mlpclassifier__alpha": [1e-4, 1e-2], "mlpclassifier__hidden_layer_sizes": [(4,), (8,)]}
    search = GridSearchCV(pipe, grid, cv=3).fit(X, y)
    assert search.best_score_ > 0.9
    calibrated = CalibratedClassifierCV(clf, cv=3).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)
    hidden = make_pipeline(clf, MLPClassifier((4,), max_iter=20)).fit(X, y)
    assert hidden.predict(X).shape == y.shape


def test_scorers_by_name():
    X, y = blobs(90, n_classes=2)
    for scoring in ("roc_auc", "neg_log_loss"):
        clf = MLPClassifier((4,), early_stopping=True, scoring=scoring, max_iter=4)
        clf.fit(X, y, sample_weight=np.ones(90))
        assert len(clf.validation_scores_) == 4


def test_errors_and_warnings_are_scikit_learns_too():
    X, y = blobs()
    for kind, ours, theirs in (
        (MLPClassifier, cmlp.NotFittedError, NotFittedError),
        (MLPRegressor, cmlp.NotFittedError, NotFittedError),
    ):
        with pytest.raises(theirs) as caught:
            kind().predict(X)
        assert isinstance(caught.value, ours)
        again = pickle.loads(pickle.dumps(caught.value))
        assert isinstance(again, ours) and str(again) == str(caught.value)
    with pytest.warns(ConvergenceWarning) as warned:
        MLPClassifier(max_iter=1).fit(X, y)
    assert isinstance(warned[0].message, cmlp.ConvergenceWarning)
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge"):
        MLPClassifier(max_iter=1, solver="lbfgs").fit(X, y)
    with pytest.warns(DataConversionWarning) as warned:
        MLPRegressor(max_iter=1).fit(X, y[:, None])
    assert any(issubclass(w.category, cmlp.DataConversionWarning) for w in warned)
    with pytest.warns(UndefinedMetricWarning) as warned:
        MLPRegressor(max_iter=1).fit(X, y).score(X[:1], y[:1])
    assert isinstance(warned[-1].message, cmlp.UndefinedMetricWarning)


def test_filters_of_scikit_learns_module_hold():
    X, y = blobs()
    for module in ("sklearn", "sklearn.neural_network._multilayer_perceptron"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", category=UserWarning, module=module)
            MLPClassifier(max_iter=1, batch_size=100).fit(X, y)
        assert not seen
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        MLPClassifier(max_iter=1).fit(X, y)
    assert [warning.filename for warning in seen] == [__file__]


def test_deviations_are_routed():
    """A pipeline passes ``return_std`` to a last step that requests it."""
    X, y = blobs(n=60)[:2]
    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPRegressor(hidden_layer_sizes=4, max_iter=2, n_ensemble=2)
        model.set_predict_request(return_std=True)
        pipeline = make_pipeline(StandardScaler(), model).fit(X, X[:, 0])
        assert [part.shape for part in pipeline.predict(X, return_std=True)] == [(60,)] * 2
        clf = MLPClassifier(4, max_iter=2, n_ensemble=2).set_predict_proba_request(return_std=True)
        pipeline = make_pipeline(StandardScaler(), clf).fit(X, y)
        proba, std = pipeline.predict_proba(X, return_std=True)
        assert proba.shape == std.shape == (60, len(pipeline.classes_))
        requests = MLPClassifier().set_transform_request(layer=True).get_metadata_routing()
        assert requests.transform.requests["layer"] is True


def test_metadata_is_routed():
    X, y = blobs(90)
    weights = np.linspace(0, 1, 90)
    seen = []

    class Watched(MLPClassifier):
        def fit(self, X, y, sample_weight=None, **more):
            seen.append(sample_weight)
            return super().fit(X, y, sample_weight, **more)

    with sklearn.config_context(enable_metadata_routing=True):
        clf = Watched((4,), max_iter=2).set_fit_request(sample_weight=True)
        assert clf.set_score_request(sample_weight=False) is clf
        routing = clf.get_metadata_routing()
        assert routing.fit.requests["sample_weight"] is True
        assert routing.score.requests["sample_weight"] is False
        assert routing.partial_fit.requests["classes"] is None
        assert clone(clf).get_metadata_routing().fit.requests["sample_weight"] is True
        GridSearchCV(clf, {"alpha": [0.1]}, cv=3).fit(X, y, sample_weight=weights)
        assert sorted(map(len, seen)) == [60, 60, 60, 90]
        with refused(TypeError, "Unexpected args: {'weights'}"):
            clf.set_fit_request(weights=True)
    with refused(RuntimeError, "metadata routing"):
        MLPClassifier().set_fit_request(sample_weight=True)


def test_containers_of_transform():
    pandas = pytest.importorskip("pandas")
    X, y = blobs()
    frame = pandas.DataFrame(X, columns=list("abc"), index=np.arange(60) + 7)
    clf = MLPClassifier((5, 4), max_iter=2).set_output(transform="pandas").fit(frame, y)
    hidden = clf.transform(frame)
    assert list(hidden.columns) == [f"mlpclassifier{i}" for i in range(4)]
    assert list(hidden.index) == list(frame.index)
    assert clf.transform(frame, layer=0).shape == (60, 5)
    clf.set_output(transform="default")
    assert isinstance(clf.transform(frame), np.ndarray)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_data_frames(library):
    module = pytest.importorskip(library)
    X, y = blobs()
    columns = dict(zip("abc", X.T, strict=True))
    frame = {"pyarrow": getattr(module, "table", None)}.get(library) or module.DataFrame
    frame = frame(columns)
    clf = MLPClassifier((4,), solver="lbfgs", random_state=0).fit(frame, y)
    assert list(clf.feature_names_in_) == ["a", "b", "c"]
    plain = MLPClassifier((4,), solver="lbfgs", random_state=0).fit(X, y)
    np.testing.assert_array_equal(clf.predict(frame), plain.predict(X))
    if library == "pandas":
        labels = module.Series(y).map({0: "a", 1: "b", 2: "c"}).astype("category")
        assert set(clf.fit(frame, labels).predict(frame)) == {"a", "b", "c"}
        nullable = frame.astype("Float64")
        assert clf.fit(nullable, labels).score(nullable, labels) == 1
        nullable.iloc[3, 1] = module.NA
        with refused(ValueError, "Input X contains NaN"):
            clf.fit(nullable, labels)


@pytest.mark.parametrize("dtype", ["object", "str", "category"])
def test_text_labels_of_a_data_frame(dtype):
    pandas = pytest.importorskip("pandas")
    X, y = blobs()
    labels = pandas.Series(y).map({0: "a", 1: "b", 2: "c"}).astype(dtype)
    params = {"hidden_layer_sizes": (4,), "max_iter": 2}
    theirs = neural_network.MLPClassifier(**params).fit(X, labels)
    ours = MLPClassifier(**params).fit(X, labels)
    assert ours.classes_.dtype == theirs.classes_.dtype
    assert ours.predict(X).dtype == theirs.predict(X).dtype


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_that_are_refused(library):
    module = pytest.importorskip(library)
    X, y = blobs()
    frame = module.DataFrame(dict(zip("abc", X.T, strict=True)))
    with refused(ValueError, "a 2-dimensional container but got <class", "Pass a DataFrame"):
        MLPClassifier().fit(frame["a"], y)
    if library == "polars":
        for arguments, name in (((frame.lazy(), y), "X"), ((X, frame["a"].to_frame().lazy()), "y")):
            with refused(TypeError, f"{name} is a LazyFrame", f"pass {name}.collect()"):
                MLPClassifier().fit(*arguments)
        return
    dates = module.date_range("2020-01-01", periods=60)
    with refused(TypeError, "not 'Timestamp' (X, row 0, column 'when'); encode text"):
        MLPClassifier().fit(frame.assign(when=dates), y)
    with refused(ValueError, "dtype is datetime64", "(X, row 0, column 'when'); encode text"):
        MLPClassifier().fit(module.DataFrame({"when": dates}), y)


@pytest.mark.filterwarnings("ignore:.*interchange")
def test_data_frames_by_protocol_only():
    pandas = pytest.importorskip("pandas")
    X, y = blobs()

    class Frame:
        def __init__(self, frame):
            self.frame = frame

        def __dataframe__(self, **options):
            return self.frame.__dataframe__(**options)

    frame = pandas.DataFrame(X, columns=list("abc")).assign(c=lambda f: f.c > 0)
    clf = MLPClassifier((4,), solver="lbfgs", random_state=0).fit(Frame(frame), y)
    plain = MLPClassifier((4,), solver="lbfgs", random_state=0).fit(frame.to_numpy(float), y)
    assert list(clf.feature_names_in_) == ["a", "b", "c"]
    np.testing.assert_array_equal(clf.coefs_[0], plain.coefs_[0])
    with refused(ValueError, "X must hold numbers, but column 'c' does not; encode text"):
        clf.fit(Frame(frame.assign(c="text")), y)
    with refused(ValueError, "column 'c' has missing values"):
        clf.fit(Frame(frame.assign(c=[None, *[1.0] * 59])), y)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse_rows(engine, form, solver):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = blobs(90, 8)
    X = np.where(np.abs(X) > 1, X, 0)
    for make in (getattr(sparse, f"{form}_matrix"), getattr(sparse, f"{form}_array")):
        params = {"solver": solver, "max_iter": 10, "dtype": "float64", "random_state": 0}
        dense = MLPClassifier((4,), early_stopping=True, **params).fit(X, y)
        clf = MLPClassifier((4,), early_stopping=True, **params).fit(make(X), y)
        np.testing.assert_allclose(clf.coefs_[0], dense.coefs_[0], rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(clf.predict_proba(make(X)), dense.predict_proba(X), rtol=1e-7)
        np.testing.assert_allclose(clf.input_gradient(make(X)), dense.input_gradient(X), rtol=1e-5,
                                   atol=1e-10)  # fmt: skip
        Y = make(np.eye(3)[y])
        clf = MLPClassifier((4,), **params).fit(make(X), Y)
        assert sparse.issparse(clf.predict(make(X)))
        assert 0 <= clf.score(make(X), Y) <= 1


def test_sparse_rows_stay_sparse():
    sparse = pytest.importorskip("scipy.sparse")
    X = sparse.random(10_000, 2_000, density=1e-3, format="csc", random_state=0)  # 80 MB if dense
    y = np.arange(10_000) % 2
    tracemalloc.start()
    try:
        for solver in ("adam", "lbfgs"):
            MLPClassifier((4,), solver=solver, max_iter=1).fit(X, y).predict(X)
            scratch._kept.clear()  # of 4 MB, for the next training: not this fit's rows
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6


def test_pictures():
    clf = MLPClassifier(alpha=0.25)
    for text in (clf._repr_html_(), clf._repr_mimebundle_()["text/html"]):
        assert "MLPClassifier" in text and "sk-" in text
    assert "cmlp" in sys.modules


@pytest.mark.parametrize("target", ["two", "three", "several", "sparse"])
def test_the_label_binarizer_that_programs_read(target):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = blobs(n_classes=2 if target == "two" else 3)
    names = np.array(["a", "b", "c"])[y]
    one_hot = np.eye(3, dtype=int)[y]
    y = {"several": one_hot, "sparse": sparse.csr_matrix(one_hot)}.get(target, names)
    pair = [kind(max_iter=1).fit(X, y) for kind in (MLPClassifier, neural_network.MLPClassifier)]
    ours, theirs = (clf._label_binarizer for clf in pair)
    assert ours.y_type_ == theirs.y_type_
    assert ours.get_params() == theirs.get_params()
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    if target in ("two", "three"):
        np.testing.assert_array_equal(ours.transform(names), theirs.transform(names))
    assert not hasattr(MLPClassifier(), "_label_binarizer")


WHAT_MOVES = (
    "coefs_", "intercepts_", "n_layers_", "n_outputs_", "out_activation_", "classes_",
    "_label_binarizer",
)  # fmt: skip


def test_a_model_is_moved_as_programs_move_it():
    X, y = blobs()
    names = np.array(["a", "b", "c"])[y]
    theirs = neural_network.MLPClassifier((4,), max_iter=20, random_state=0).fit(X, names)
    ours, back = MLPClassifier(), neural_network.MLPClassifier()
    for name in WHAT_MOVES:
        setattr(ours, name, getattr(theirs, name))
    ours.predict(X)
    for name in WHAT_MOVES:
        setattr(back, name, getattr(ours, name))
    np.testing.assert_array_equal(back.predict(X), theirs.predict(X))
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-5, atol=1e-6)
    for activations in ([X, None, None], [X, *(np.empty((60, n)) for n in (4, 3))]):
        for mine, same in zip(
            ours._forward_pass(list(activations)), theirs._forward_pass(list(activations)),
            strict=True,
        ):  # fmt: skip
            np.testing.assert_allclose(mine, same, rtol=1e-5, atol=1e-6)
    ours.classes_ = ["x", "y", "z"]
    assert set(ours.predict(X)) <= {"x", "y", "z"}
    several = MLPClassifier()
    several._label_binarizer = sklearn.preprocessing.LabelBinarizer().fit(np.eye(3, dtype=int))
    several.coefs_, several.intercepts_ = [np.eye(3)], [np.zeros(3)]
    np.testing.assert_array_equal(several.predict(X), X > 0)


def test_scores_are_scikit_learns():
    from sklearn.metrics import accuracy_score, r2_score

    X, Y = waves(50, 3, 2)
    model = MLPRegressor(max_iter=3).fit(X, Y)
    weights = np.linspace(0, 1, 50)
    assert model.score(X, Y, weights) == pytest.approx(r2_score(Y, model.predict(X),
                                                                sample_weight=weights))  # fmt: skip
    clf = MLPClassifier(max_iter=2).fit(X, Y > 0)
    assert clf.score(X, Y > 0, weights) == pytest.approx(
        accuracy_score(Y > 0, clf.predict(X), sample_weight=weights)
    )


@pytest.mark.parametrize("scoring", ["roc_auc_ovr", "neg_log_loss", "accuracy", "loss"])
def test_scorers_and_labels_that_are_not_sorted(scoring):
    """scikit-learn's scorers take the columns of probabilities as those of sorted labels."""
    X, y = blobs()
    clf = MLPClassifier((4,), random_state=0, max_iter=3, warm_start=True)
    fit_quietly(clf, X, y)
    clf.classes_ = ["low", "mid", "high"]
    clf.set_params(early_stopping=True, scoring=scoring)
    words = np.array(["low", "mid", "high"])[y]
    if scoring in ("accuracy", "loss"):
        fit_quietly(clf, X, words)
        assert clf.history_.metric == scoring
    else:
        with refused(ValueError, scoring, "sorted order", "scoring='loss'"):
            clf.fit(X, words)


def test_attributions_of_a_pipeline():
    """By the names of X, and with its numbers, where a column stays a column."""
    pandas = pytest.importorskip("pandas")
    from sklearn.decomposition import PCA

    X, y = blobs(40)
    frame = pandas.DataFrame(X * [1, 10, 100], columns=["a", "b", "c"])
    for first, names in ((StandardScaler(), ["a", "b", "c"]), (PCA(3), ["pca0", "pca1", "pca2"])):
        clf = MLPClassifier((6,), max_iter=3, random_state=0)
        model = fit_quietly(make_pipeline(first, clf), frame, y)
        found = cmlp.attributions(model, frame[:5], background=frame)
        inner = cmlp.attributions(
            clf, first.transform(frame[:5]), background=first.transform(frame)
        )
        np.testing.assert_array_equal(found.values, inner.values)
        np.testing.assert_array_equal(found.data, frame[:5] if names[0] == "a" else inner.data)
        assert (found.feature_names, found.output_names) == (names, ["0", "1", "2"])
