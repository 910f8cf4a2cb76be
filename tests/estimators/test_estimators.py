"""MLPClassifier and MLPRegressor as they are without scikit-learn; see also test_sklearn.py."""

import copy
import datetime
import json
import pickle
import re
import warnings

import numpy as np
import pytest
from helpers import blobs, data_for, fit_quietly, python_output, refused, waves

import cmlp
from cmlp import MLPClassifier, MLPRegressor
from cmlp.data import split
from cmlp.estimators.parameters import STOCHASTIC, Estimator
from cmlp.training import trainer

BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])


# Parameters --------------------------------------------------------------------------------------


@BOTH
def test_repr_shows_what_is_not_the_default(kind):
    assert repr(kind()) == f"{kind.__name__}()"
    shown = repr(kind(solver="sgd", alpha=0.1, hidden_layer_sizes=(3, 2)))
    assert shown == f"{kind.__name__}(alpha=0.1, hidden_layer_sizes=(3, 2), solver='sgd')"


@BOTH
def test_parameters_by_name(kind):
    estimator = kind(alpha=0.5)
    params = estimator.get_params()
    assert params["alpha"] == 0.5 and params["dtype"] == "float32"
    assert kind(**params).get_params() == params
    assert estimator.set_params(alpha=2, solver="sgd") is estimator
    assert (estimator.alpha, estimator.solver) == (2, "sgd")
    assert vars(kind(**params)) == params  # the constructor keeps them, and does nothing else
    with refused(ValueError, f"Invalid parameter 'alpa' for estimator {kind.__name__}(", "'alpha'"):
        estimator.set_params(alpa=1)


@BOTH
def test_every_parameter_is_documented(kind):
    described = MLPClassifier.__doc__ + kind.__doc__
    assert not [name for name in kind().get_params() if not re.search(rf"\b{name}\b", described)]


@pytest.mark.parametrize("params, message", [
    ({"dropout": 2}, "dropout must be at least 0 and below 1; it is 2.0"),
    ({"alpha": np.float32(-1)}, "Got -1.0 instead."),
    ({"max_iter": np.int64(0)}, "Got 0 instead."),
    ({"hidden_layer_sizes": np.array([3, 0])}, "hidden_layer_sizes must be > 0, got [3, 0]."),
    ({"class_weight": {np.int64(7): 1.0}}, "class_weight names [7], but the classes are [0, 1, 2]"),
    ({"input_scale": np.float64(0)}, "it is 0.0"),
])  # fmt: skip
def test_messages_show_plain_numbers(params, message):
    with refused(ValueError, message):
        MLPClassifier(**params).fit(*blobs())


def test_nested_parameters():
    class Outer(Estimator):
        def __init__(self, inner=None):
            self.inner = inner

    outer = Outer(MLPClassifier(alpha=3))
    assert outer.get_params()["inner__alpha"] == 3
    assert "inner__alpha" not in outer.get_params(deep=False)
    outer.set_params(inner__alpha=4, inner__solver="sgd")
    assert (outer.inner.alpha, outer.inner.solver) == (4, "sgd")


@BOTH
@pytest.mark.parametrize("params, message", [
    ({"verbose": -1}, "'verbose' parameter .* must be an int in the range .0, inf. or an inst"),
    ({"hidden_layer_sizes": "30"}, "must be an array-like or an int .* Got '30' instead"),
    ({"hidden_layer_sizes": (2.5,)}, r"an int in the range \[1, inf\). Got \(2.5,\) instead"),
    ({"activation": 3}, "activation must be a name or a list of names, not 3"),
    ({"random_state": 2**32}, "Seed must be between 0 and"),
    ({"clip_norm": "small"}, "clip_norm must be a number"),
    ({"alpha": -1}, "'alpha' parameter of MLP.* must be a float in the range .0.0, inf.*Got -1"),
    ({"learning_rate_init": 0}, r"in the range \(0.0, inf\)"),
    ({"tol": "small"}, "'tol' parameter"),
    ({"momentum": True}, "'momentum' parameter"),
    ({"batch_size": 0}, r"'batch_size' .* an int in the range \[1, inf\) or 'auto'. Got 0"),
    ({"max_iter": 2.5}, "'max_iter' parameter .* an int"),
    ({"n_iter_no_change": 0}, "or inf"),
    ({"shuffle": 1}, "'shuffle' .* instance of 'bool'"),
    ({"solver": "newton"}, "'solver' .* a str among .*'lbfgs'"),
    ({"hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes must be > 0, got \[3, 0\]"),
    ({"hidden_layer_sizes": -1}, r"hidden_layer_sizes must be > 0, got \[-1\]"),
    ({"activation": "sigmoidal"}, "Unknown activation 'sigmoidal'"),
    ({"activation": "relu:0.3"}, "relu takes no parameter"),
    ({"activation": ["elu:x"]}, "alpha of elu must be a number"),
    ({"normalization": "layer", "normalization_epsilon": 0}, "normalization_epsilon must be"),
    ({"learning_rate": "cosines"}, "Unknown schedule 'cosines'.*Did you mean 'cosine'"),
    ({"dtype": "float16"}, "dtype must be"),
    ({"dropout": 1.0}, "dropout"),
    ({"n_threads": 0}, "'n_threads'"),
    ({"max_time": -1}, "'max_time'"),
    ({"callbacks": 3}, "callbacks must be a list, not 3"),
    ({"callbacks": ["print"]}, "a callback must be a function or have .* 'print' has none"),
    ({"scoring": 3}, "'scoring'"),
    ({"normalization": "rows"}, "Unknown normalization 'rows'"),
    ({"normalization": "batch", "solver": "lbfgs"}, "use normalization='layer' or another solver"),
    ({"ema": 1}, r"'ema' .* in the range \[0.0, 1.0\)"),
    ({"random_state": "one"}, "'one' cannot be used to seed"),
])  # fmt: skip
def test_parameters_that_are_refused(kind, params, message):
    estimator = kind(**params)  # checks nothing: scikit-learn's rule
    with pytest.raises(cmlp.InvalidParameterError, match=message) as caught:
        estimator.fit(*data_for(kind))
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, TypeError)


# Fits --------------------------------------------------------------------------------------------


SOLVERS = (*STOCHASTIC, "lbfgs")


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_classifier_learns(engine, solver):
    X, y = blobs(120, 4, 3)
    number_type = ("float32", "float64")[SOLVERS.index(solver) % 2]
    clf = MLPClassifier((16,), solver=solver, learning_rate_init=0.05, max_iter=40,
                        random_state=0, dtype=number_type)  # fmt: skip
    assert fit_quietly(clf, X, y) is clf
    assert clf.score(X, y) > 0.95
    P = clf.predict_proba(X)
    assert P.shape == (120, 3) and P.dtype == np.float64 and clf.coefs_[0].dtype == number_type
    np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_array_equal(clf.classes_[P.argmax(axis=1)], clf.predict(X))
    np.testing.assert_array_equal(clf.decision_function(X).argmax(axis=1), P.argmax(axis=1))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(clf.predict_log_proba(X), np.log(P))
    assert [W.shape for W in clf.coefs_] == [(4, 16), (16, 3)]
    assert [b.shape for b in clf.intercepts_] == [(16,), (3,)]
    assert (clf.n_layers_, clf.n_outputs_, clf.out_activation_) == (3, 3, "softmax")
    assert clf.n_features_in_ == 4 and clf.n_iter_ <= 40


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile"])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_regressor_learns(engine, loss, n_outputs):
    X, y = waves(200, 3, n_outputs)
    y = y[:, 0] if n_outputs == 1 else y
    model = MLPRegressor(loss, (32,), "tanh", learning_rate_init=0.02, max_iter=100, random_state=0)
    fit_quietly(model, X, y)
    assert model.score(X, y) > 0.9
    assert model.predict(X).shape == y.shape
    assert model.predict(X).dtype == np.float64
    assert model.predict(X.astype(np.float32)).dtype == np.float32


def test_the_loss_comes_first():
    with refused(ValueError, "loss must be a name or a function, not (30,)", "hidden_layer_sizes="):
        MLPRegressor((30,)).fit(*data_for(MLPRegressor))
    with refused(ValueError, "Unknown loss 'hubert'", "Did you mean 'huber'"):
        MLPRegressor("hubert").fit(*data_for(MLPRegressor))


def test_a_loss_of_ones_own(engine):
    def squared(outputs, targets):
        error = outputs - targets
        return 0.5 * (error**2).mean(), error / len(error)

    X, y = waves(60, 3, 2)
    params = {"max_iter": 4, "random_state": 0, "dtype": "float64", "alpha": 0.1}
    mine = fit_quietly(MLPRegressor(squared, **params), X, y, X_val=X, y_val=y)
    same = fit_quietly(MLPRegressor(**params), X, y, X_val=X, y_val=y)
    np.testing.assert_allclose(mine.loss_curve_, same.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(mine.validation_loss_curve_, same.validation_loss_curve_, rtol=1e-9)
    with refused(ValueError, "sample_weight needs a loss with a third argument"):
        mine.fit(X, y, np.ones(60))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_targets_that_are_not_known(engine, solver):
    """A NaN among several outputs is a missing target; the other targets are learned."""
    X, Y = waves(80, 3, 2)
    known = np.where(np.arange(80)[:, None] % 4 == np.arange(2), np.nan, Y)
    params = {"hidden_layer_sizes": (16,), "random_state": 0, "solver": solver,
              "learning_rate_init": 0.02, "max_iter": 80}  # fmt: skip
    model = fit_quietly(MLPRegressor(**params), X, known)
    assert model.score(X, Y) > 0.8 and model.score(X, known) > 0.8
    only = fit_quietly(MLPRegressor(**params), X, np.c_[Y[:, 0], np.full(80, np.nan)])
    assert MLPRegressor.predict(only, X).shape == (80, 2)
    labels = (Y > 0).astype(float)
    clf = fit_quietly(MLPClassifier(**params), X, np.where(np.isnan(known), np.nan, labels))
    assert clf.score(X, labels) > 0.8
    assert clf.score(X, np.where(np.isnan(known), np.nan, labels)) >= clf.score(X, labels)
    for bad in (np.where(np.isnan(known), np.inf, Y), Y * np.inf):
        with refused(ValueError, "Input y contains infinity"):
            model.fit(X, bad)
    with pytest.raises(ValueError, match=r"^Input y contains NaN\.$"):  # no advice about X
        model.fit(X, known[:, 0])
    with refused(ValueError, "Multioutput target data is not supported"):
        clf.fit(X, np.where(np.isnan(known), np.nan, 2 * labels))


def test_the_network_stands_alone(tmp_path):
    X, y = blobs()
    y = np.array(["a", "b", "c"], dtype=object)[y]
    clf = MLPClassifier((4,), solver="lbfgs", random_state=0).fit(X, y)
    clf.network_.save(tmp_path / "net.cmlp")
    again = cmlp.load(tmp_path / "net.cmlp")
    np.testing.assert_array_equal(again.predict_classes(X), clf.predict(X))


def test_threads_and_their_other_name():
    X, y = blobs()
    fits = [
        fit_quietly(MLPClassifier((64,), max_iter=2, random_state=0, **threads), X, y)
        for threads in ({"n_threads": 1}, {"n_jobs": 2}, {"n_jobs": -1}, {"n_threads": 2})
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(other.coefs_[0], fits[0].coefs_[0])


def test_regularisers(engine):
    X, y = blobs()
    params = {"max_iter": 30, "random_state": 0, "learning_rate_init": 0.01}

    def weights(**more):
        clf = fit_quietly(MLPClassifier((16,), **params, **more), X, y)
        return np.concatenate([W.ravel() for W in clf.coefs_])

    free = np.abs(weights(alpha=0.0))
    assert np.abs(weights(alpha=20.0)).sum() < 0.9 * free.sum()
    sparse = np.abs(weights(alpha=20.0, l1_ratio=1.0))
    assert (sparse < 0.02).mean() > (free < 0.02).mean() + 0.1
    assert np.abs(weights(alpha=0.0, weight_decay=1.0)).sum() < 0.95 * free.sum()
    for more in ({"dropout": 0.3}, {"dropout": [0.3]}, {"input_noise": 0.1}, {"clip_norm": 0.01},
                 {"label_smoothing": 0.1}):  # fmt: skip
        assert (np.abs(weights(alpha=0.0, **more)) != free).any()
    with refused(ValueError, "'label_smoothing' parameter of MLPClassifier"):
        weights(label_smoothing=1.0)


@pytest.mark.parametrize(
    "normalization, solver", [("batch", "adam"), ("layer", "adam"), ("layer", "lbfgs")]
)
def test_normalised_layers(engine, normalization, solver):
    X, y = waves(120)
    model = MLPRegressor(hidden_layer_sizes=(16, 8), activation="tanh", solver=solver, tol=0,
                         learning_rate_init=0.02, max_iter=60, random_state=0, dtype="float64",
                         batch_size=20, normalization=normalization)  # fmt: skip
    fit_quietly(model, X, y[:, 0])
    net = model.network_
    assert net.normalization == normalization
    assert all((gamma != 1).any() for gamma in net.scales)
    assert model.score(X, y[:, 0]) > 0.9
    gradient = model.input_gradient(X)
    for column in range(3):
        step = np.eye(3)[column] * 1e-5
        rise = model.predict(X + step) - model.predict(X - step)
        np.testing.assert_allclose(gradient[:, column], rise / 2e-5, atol=1e-6)
    start = [W.copy() for W in model.coefs_], [b.copy() for b in model.intercepts_]
    again = MLPRegressor(**model.get_params() | {"max_iter": 1, "learning_rate_init": 1e-12})
    fit_quietly(again, X, y[:, 0], coefs_init=start[0], intercepts_init=start[1])
    if solver == "adam":
        np.testing.assert_allclose(again.coefs_[1], start[0][1], atol=1e-9)
        np.testing.assert_allclose(again.intercepts_[0], start[1][0], atol=1e-9)


@pytest.mark.parametrize("name", ["he_normal", "orthogonal", "glorot_normal", "lecun_uniform"])
def test_first_weights_by_name(name):
    X, y = blobs(n_in=200)
    fits = [
        fit_quietly(MLPClassifier((100,), max_iter=1, learning_rate_init=1e-12, random_state=seed,
                            weight_init=name), X, y)
        for seed in (0, 0, 1)
    ]  # fmt: skip
    first, same, other = (fit.coefs_[0] for fit in fits)
    np.testing.assert_array_equal(first, same)
    assert (first != other).any() and np.abs(fits[0].intercepts_[0]).max() < 1e-6


def test_poisson_counts(engine):
    X = np.linspace(0, 1, 200)[:, None]
    y = np.random.default_rng(0).poisson(np.exp(1 + X[:, 0]))
    model = fit_quietly(MLPRegressor("poisson", (4,), "tanh", solver="lbfgs", random_state=1), X, y)
    assert model.out_activation_ == "exp"
    np.testing.assert_allclose(model.predict(X), np.exp(1 + X[:, 0]), rtol=0.2)
    with refused(ValueError, "y of at least 0"):
        model.fit(X, -1.0 - y)


@pytest.mark.parametrize("labels", [
    ["no", "yes"], ["a", "b", "c"], [False, True], [-1, 1], [3, 5, 9], [0.0, 1.0],
])  # fmt: skip
@pytest.mark.parametrize("objects", [False, True])
def test_labels_of_any_type(labels, objects):
    X, y = blobs(60, 3, len(labels))
    y = np.array(labels)[y]
    clf = MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, y.astype(object) if objects
                                                                 else y)  # fmt: skip
    assert clf.classes_.tolist() == sorted(labels)
    assert clf.classes_.dtype == clf.predict(X).dtype == np.array(labels).dtype
    assert clf.score(X, y) == 1
    np.testing.assert_array_equal(clf.predict(X), y)
    assert clf.n_outputs_ == (1 if len(labels) == 2 else 3)
    if len(labels) == 2:
        assert clf.predict_proba(X).shape == (60, 2) and clf.decision_function(X).shape == (60,)


def test_a_list_of_text_has_text_for_classes():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier((4,), max_iter=2), X, [["no", "yes", "maybe"][i] for i in y])
    assert clf.classes_.dtype.kind == clf.predict(X).dtype.kind == "U"


def test_several_labels_per_row(engine):
    X, _ = blobs(80, 3)
    Y = np.stack([X[:, 0] > 0, X[:, 1] > 1, X[:, 2] + X[:, 0] > 0], axis=1).astype(int)
    clf = MLPClassifier((16,), solver="lbfgs", random_state=0).fit(X, Y)
    assert clf.out_activation_ == "logistic" and clf.classes_.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(clf.predict(X), Y)
    assert clf.predict_proba(X).shape == Y.shape
    with refused(ValueError, "y has the shape (80, 2)"):
        clf.score(X, Y[:, :2])


def test_a_single_class():
    X, _ = blobs()
    clf = fit_quietly(MLPClassifier((4,), max_iter=3), X, np.full(60, "only"))
    assert set(clf.predict(X)) == {"only"}


@pytest.mark.parametrize("y, message", [
    (np.linspace(0, 1, 60), "Unknown label type: continuous"),
    (["a", 1] * 30, "Unknown label type: unknown"),
    (["a", None] * 30, "Input y contains NaN"),
    ([0.0, np.nan] * 30, "Input y contains NaN"),
    (np.arange(120).reshape(60, 2), "Multioutput target data is not supported"),
    (np.zeros((2, 3, 10)), "y should be a 1d array"),
    (np.zeros(59), "inconsistent numbers of samples: [60, 59]"),
    (None, "requires y to be passed, but the target y is None"),
])  # fmt: skip
def test_labels_that_are_refused(y, message):
    with refused(ValueError, message):
        MLPClassifier().fit(blobs()[0], y)


@pytest.mark.parametrize("y", [np.array([b"x", b"y"] * 30), [b"x", b"y"] * 30,
                               np.array([b"x", b"y"] * 30, dtype=object)])  # fmt: skip
def test_bytes_are_no_labels(y):
    X, known = blobs()
    clf = fit_quietly(MLPClassifier((4,), max_iter=1), X, known)
    for call in (MLPClassifier().fit, clf.score):
        with refused(TypeError, "labels represented as bytes is not supported. Convert"):
            call(X, y)


@BOTH
@pytest.mark.parametrize("change, message", [
    (lambda X: X[0], "Expected 2D array, got 1D array instead"),
    (lambda X: 1.0, "Expected 2D array, got scalar array instead"),
    (lambda X: X[None], "Found array with dim 3"),
    (lambda X: X[:0], "Found array with 0 sample(s) (shape=(0, 3))"),
    (lambda X: X[:, :0], "Found array with 0 feature(s) (shape=(60, 0))"),
    (lambda X: X * 1j, "Complex data not supported"),
    (lambda X: np.where(X > 2, np.nan, X), "Input X contains NaN."),
    (lambda X: np.where(X > 2, np.inf, X), "Input X contains infinity or a value too"),
    (lambda X: X.astype(str).astype(object) + "?", "could not convert string to float"),
    (lambda X: X.astype("datetime64[s]"), "dtype is datetime64[s] (X, row 0, column 0); encode"),
    (lambda X: np.ma.masked_array(X, X > 0), "masked"),
])  # fmt: skip
def test_rows_that_are_refused(kind, change, message):
    X, y = data_for(kind)
    with refused(ValueError, message):
        kind().fit(change(X), y)


class Lazy:
    """A table that is yet to be computed, like polars' LazyFrame."""

    def collect(self):
        raise AssertionError("that may take long: only its owner does it")


@BOTH
@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("wrap, message", [
    (np.matrix, "np.matrix is not supported. Please convert to a numpy array with np.asarray."),
    (lambda values: Lazy(), "is a Lazy, a plan whose rows are not there yet: pass "),
])  # fmt: skip
def test_containers_that_are_refused(kind, wrap, message):
    X, y = data_for(kind)
    estimator = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=1), X, y)
    for call, arguments in (
        (kind().fit, (wrap(X), y)),
        (kind().fit, (X, wrap(y))),
        (kind().fit, (X, y, wrap(y))),
        (estimator.predict, (wrap(X),)),
        (estimator.score, (X, wrap(y))),
    ):
        with refused(TypeError, message):
            call(*arguments)


def test_numbers_written_as_text():
    """They are read where scikit-learn reads them: X to train on, and anything among objects."""
    X, y = waves()
    X, y = X.astype("U32"), y[:, 0].astype("U32")
    model = MLPRegressor(hidden_layer_sizes=(4,), max_iter=2, random_state=0)
    expected = fit_quietly(model, X.astype(float), y.astype(float)).loss_
    for text in (X, X.tolist(), X.astype(object), X.astype("S32")):
        assert fit_quietly(model, text, y.astype(object)).loss_ == expected
    np.testing.assert_array_equal(model.predict(X.astype(object)), model.predict(X.astype(float)))
    for call, arguments in (
        (model.predict, (X,)),
        (model.predict, (X.tolist(),)),
        (model.fit, (X, y)),
        (model.fit, (X, y.tolist())),
        (model.score, (X.astype(float), y)),
    ):
        with refused(ValueError, "dtype='numeric' is not compatible with arrays of bytes/strings"):
            call(*arguments)


@BOTH
@pytest.mark.parametrize("n_ensemble", [1, 2])
def test_a_refused_fit_leaves_no_trace(kind, n_ensemble):
    X, y = data_for(kind)
    estimator = kind(hidden_layer_sizes=(4,), max_iter=2, n_ensemble=n_ensemble)
    fit_quietly(estimator, Table(X, ["a", "b", "c"]), y)
    before, answer = dict(vars(estimator)), estimator.predict(Table(X, ["a", "b", "c"]))
    others = Table(X[:, :2], ["d", "e"])
    for arguments, more in (
        ((others, y[:7]), {}),
        ((others, y + 1, -np.ones(60)), {}),
        ((others, y + 1), {"X_val": others, "y_val": y[:7] + 1}),
        ((others, y + 1), {"X_val": others}),
    ):
        with pytest.raises(ValueError, match=r"inconsistent|Negative|go together"):
            estimator.fit(*arguments, **more)
        assert vars(estimator) == before
        np.testing.assert_array_equal(estimator.predict(Table(X, ["a", "b", "c"])), answer)


@BOTH
def test_before_and_after_fit(kind):
    X, y = data_for(kind)
    estimator = kind(hidden_layer_sizes=(4,), max_iter=2)
    for ask in ("predict", "transform", "input_gradient", "get_feature_names_out"):
        with refused(cmlp.NotFittedError, f"This {kind.__name__} instance is not fitted yet"):
            getattr(estimator, ask)(X)
    assert not hasattr(estimator, "coefs_")
    fit_quietly(estimator, X, y)
    with refused(ValueError, f"X has 2 features, but {kind.__name__} is expecting 3 features as"):
        estimator.predict(X[:, :2])


def test_the_same_seed_gives_the_same_network():
    X, y = blobs()
    fits = [
        fit_quietly(MLPClassifier((5,), max_iter=4, random_state=seed), X, y)
        for seed in (3, np.random.RandomState(3), 4)
    ]
    for mine, same in zip(fits[0].coefs_, fits[1].coefs_, strict=True):
        np.testing.assert_array_equal(mine, same)
    assert (fits[0].coefs_[0] != fits[2].coefs_[0]).any()
    fit_quietly(MLPClassifier(max_iter=1, random_state=np.random.default_rng(0)), X, y)


@pytest.mark.parametrize("activation, factor", [("relu", 6), ("logistic", 2)])
def test_first_weights_are_uniform_within_the_usual_bound(activation, factor):
    X, y = blobs(n_in=100)
    model = fit_quietly(
        MLPClassifier((400,), activation, max_iter=1, learning_rate_init=1e-12), X, y
    )
    for W, b in zip(model.coefs_, model.intercepts_, strict=True):
        bound = np.sqrt(factor / sum(W.shape))
        assert 0.98 * bound < np.abs(W).max() <= bound * (1 + 1e-6)
        assert 0 < np.abs(b).max() <= bound * (1 + 1e-6)


@BOTH
def test_weights_are_views(kind):
    X, y = data_for(kind)
    estimator = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2), X, y)
    estimator.coefs_[1][:] = 0
    estimator.intercepts_[1] = np.full(estimator.n_outputs_, 3.0)
    expected = {0: 1 / estimator.n_outputs_} if kind is MLPClassifier else {0: 3.0}
    answer = estimator.predict_proba(X) if kind is MLPClassifier else estimator.predict(X)
    np.testing.assert_allclose(answer, expected[0], rtol=1e-6)
    estimator.coefs_ = [np.ones_like(W) for W in estimator.coefs_]
    assert (estimator.coefs_[0] == 1).all()


@BOTH
def test_fit_from_given_weights(kind):
    X, y = data_for(kind)
    first = fit_quietly(kind(hidden_layer_sizes=(4,), max_iter=2, random_state=0), X, y)
    start = [W.copy() for W in first.coefs_], [b.copy() for b in first.intercepts_]
    again = kind(hidden_layer_sizes=(4,), max_iter=1, shuffle=False, learning_rate_init=1e-12)
    fit_quietly(again, X, y, coefs_init=start[0], intercepts_init=start[1])
    np.testing.assert_allclose(again.coefs_[0], start[0][0], atol=1e-6)
    np.testing.assert_allclose(again.intercepts_[1], start[1][1], atol=1e-6)
    with refused(ValueError, "intercepts_init must have arrays of the shapes [(4,)"):
        again.fit(X, y, intercepts_init=start[0])


def test_weights_before_the_first_partial_fit():
    model = MLPRegressor(hidden_layer_sizes=(), solver="sgd", learning_rate_init=1e-12)
    model.coefs_, model.intercepts_ = [np.array([[2.0], [1.0]])], [np.array([0.5])]
    assert model.coefs_[0][0, 0] == 2
    model.partial_fit([[1.0, 1.0]], [0.0])
    np.testing.assert_allclose(model.predict([[1.0, 2.0]]), 4.5)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("n_ensemble", [1, 2])
def test_programs_write_and_draw_by_probabilities(n_classes, n_ensemble):
    X, y = blobs(n_classes=n_classes)
    clf = fit_quietly(MLPClassifier(max_iter=2, n_ensemble=n_ensemble), X, y)
    P = clf.predict_proba(X)
    for p in P:
        assert json.loads(json.dumps(dict(enumerate(p))))["0"] == p[0]
        assert np.random.default_rng(0).choice(n_classes, p=list(p)) < n_classes
    single = clf.predict_proba(X.astype(np.float32))
    assert (P.dtype, single.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(P, single, rtol=1e-6)
    if n_ensemble > 1:
        mean, std = clf.predict_proba(X, return_std=True)
        assert mean.dtype == std.dtype == np.float64 and std.shape == P.shape


# Stopping, curves, validation --------------------------------------------------------------------


@pytest.mark.parametrize("patience", [1, 3])
def test_it_stops_when_the_counter_is_greater(patience):
    X, y = blobs()
    clf = MLPClassifier((4,), tol=1e3, n_iter_no_change=patience, random_state=0).fit(X, y)
    assert clf.n_iter_ == patience + 2  # the first epoch is an improvement on infinity
    assert clf.best_loss_ == min(clf.loss_curve_) and clf.loss_ == clf.loss_curve_[-1]
    assert clf.validation_scores_ is clf.best_validation_score_ is None
    assert clf.t_ == 60 * clf.n_iter_
    assert clf.best_iteration_ == 1 + int(np.argmin(clf.loss_curve_))
    assert clf.history_["loss"] == clf.loss_curve_


def test_too_few_epochs_warn():
    with pytest.warns(cmlp.ConvergenceWarning, match=r"Maximum iterations \(2\) reached") as caught:
        MLPClassifier((4,), max_iter=2).fit(*blobs())
    assert caught[0].filename == __file__


def test_early_stopping_brings_the_best_weights_back(engine):
    X, y = waves(100)
    model = MLPRegressor(hidden_layer_sizes=(30,), early_stopping=True, learning_rate_init=0.1,
                         validation_fraction=0.3, random_state=1)  # fmt: skip
    model.fit(X, y[:, 0])
    assert len(model.validation_scores_) == model.n_iter_ == len(model.validation_loss_curve_)
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.best_loss_ is None
    assert model.best_iteration_ == 1 + int(np.argmax(model.validation_scores_))
    _, held = split.split_like_sklearn(y, 0.3, False, _after_first_weights(model))
    assert model.score(X[held], y[held, 0]) == pytest.approx(model.best_validation_score_)


def _after_first_weights(model):
    """The generator as the fit finds it when it divides the rows."""
    random = np.random.RandomState(model.random_state)
    for W in model.coefs_:
        random.uniform(size=W.shape), random.uniform(size=W.shape[1])
    return random


def test_validation_rows_of_ones_own():
    X, y = blobs(90)
    forms = [
        {"X_val": X[60:], "y_val": y[60:]},
        {"eval_set": [(X[60:], y[60:])]},
        {"validation_data": (X[60:], y[60:])},
        {"X_val": X[60:], "y_val": y[60:], "sample_weight_val": np.ones(30)},
    ]
    curves = []
    for form in forms:
        clf = MLPClassifier((4,), max_iter=5, random_state=0)
        curves.append(fit_quietly(clf, X[:60], y[:60], **form).validation_loss_curve_)
        assert len(curves[-1]) == 5
        assert clf.validation_scores_[-1] == clf.score(X[60:], y[60:])
        assert clf.best_validation_score_ is None  # they watch, and decide nothing
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=1e-6)
    clf = MLPClassifier((4,), early_stopping=True, random_state=0).fit(X[:60], y[:60], **forms[0])
    assert clf.best_validation_score_ == clf.score(X[60:], y[60:])
    for bad, message in (
        ({"X_val": X}, "X_val and y_val go together"),
        ({"eval_set": [(X, y)] * 2}, "eval_set must hold one pair"),
    ):
        with refused(ValueError, message):
            clf.fit(X, y, **bad)
    for held_out in (np.full_like(X, np.nan), X[:, 1:]):
        with pytest.raises(ValueError) as caught:
            clf.fit(X, y, X_val=held_out, y_val=y)
        assert "held out: X_val" in caught.value.__notes__[0]


def test_a_score_of_ones_own_decides():
    X, y = blobs(90)

    def few_zeros(estimator, X, y):
        return float((estimator.predict(X) != 0).mean())

    for scoring in (few_zeros, "loss"):
        clf = MLPClassifier((4,), early_stopping=True, scoring=scoring, max_iter=5, random_state=0)
        fit_quietly(clf, X, y)
        assert len(clf.validation_scores_) == 5
    np.testing.assert_allclose(clf.validation_scores_, -np.array(clf.validation_loss_curve_))


@pytest.mark.parametrize("n_out", [1, 2])
def test_where_rows_held_out_have_no_r2_their_loss_decides(n_out):
    X, y = waves(80, n_out=n_out)
    y = y if n_out > 1 else y[:, 0]
    how = {"learning_rate_init": 0.02, "max_iter": 60, "n_iter_no_change": 5, "random_state": 0}
    model = MLPRegressor(hidden_layer_sizes=(8,), early_stopping=True, **how)
    by_loss = MLPRegressor(hidden_layer_sizes=(8,), early_stopping=True, scoring="loss", **how)
    for each in (model, by_loss):
        fit_quietly(each, X[1:], y[1:], X_val=X[:1], y_val=y[:1])
    assert np.isnan(model.validation_scores_).all()
    np.testing.assert_array_equal(model.coefs_[0], by_loss.coefs_[0])
    assert (model.n_iter_, model.best_iteration_) == (by_loss.n_iter_, by_loss.best_iteration_)
    assert model.best_iteration_ == np.argmin(model.validation_loss_curve_) + 1
    if n_out > 1:  # as few rows that are known
        y[2:, 0] = y[:, 1] = np.nan
        y[0, 0] = np.nan
        fit_quietly(model, X[1:], y[1:], X_val=X[:5], y_val=y[:5])
        assert np.isnan(model.validation_scores_).all() and model.best_iteration_
    model = MLPRegressor(random_state=0)
    for _ in range(3):
        model.partial_fit(X[1:], y[1:], X_val=X[:1], y_val=np.nan_to_num(y[:1]))
    assert np.isnan(model.validation_scores_).all()
    assert model.best_iteration_ == np.argmin(model.validation_loss_curve_) + 1


@pytest.mark.parametrize("y, fraction, message", [
    ([0, 0, 0, 1] * 1, 0.5, "least populated classes in y have only 1 member"),
    ([0, 0, 1, 1], 0.1, "The validation set is too small"),
    ([0, 0, 1, 1], 0.9, "leaves none to train on"),
])  # fmt: skip
def test_splits_that_cannot_be(y, fraction, message):
    X = np.arange(2.0 * len(y)).reshape(-1, 2)
    clf = MLPClassifier(early_stopping=True, validation_fraction=fraction)
    with refused(ValueError, message):
        clf.fit(X, y)


def test_a_split_keeps_the_proportions_of_the_classes():
    y = np.repeat([0, 1], [85, 15])
    train, held = split.split_like_sklearn(y, 0.2, True, np.random.RandomState(0))
    np.testing.assert_array_equal(np.bincount(y[held]), [17, 3])
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held])), np.arange(100))


def test_learning_rates():
    X, y = blobs()

    def rates(solver="sgd", **params):
        clf = MLPClassifier((4,), solver=solver, max_iter=6, learning_rate_init=0.1, **params)
        return fit_quietly(clf, X, y).history_["learning_rate"]

    assert rates() == [0.1] * 6
    expected = [0.1, *(0.1 / (60 * epoch + 1) ** 0.3 for epoch in range(1, 6))]
    np.testing.assert_allclose(rates(learning_rate="invscaling", power_t=0.3), expected)
    stalls = {"learning_rate": "adaptive", "tol": 1e3, "n_iter_no_change": 1}
    np.testing.assert_allclose(rates(**stalls), [0.1, 0.1, 0.1, 0.02, 0.02, 0.004])
    assert rates("adam", learning_rate="invscaling") == [0.1] * 6  # as in scikit-learn
    assert rates("adam", learning_rate="cosine")[-1] < 0.05
    assert rates("rmsprop", learning_rate="invscaling")[-1] < 0.02
    np.testing.assert_allclose(rates(learning_rate=lambda epoch: 0.1 / (epoch + 1))[2], 0.1 / 3)
    np.testing.assert_allclose(rates(warmup_fraction=0.5)[:4], [1 / 30, 2 / 30, 0.1, 0.1])
    step = cmlp.schedules.Step(every=2, multiplier=0.5)
    np.testing.assert_allclose(rates("adam", learning_rate=step)[::2], [0.1, 0.05, 0.025])


def test_verbose_prints_a_line_per_epoch(capsys):
    MLPClassifier((4,), solver="sgd", tol=1e3, n_iter_no_change=1, verbose=True).fit(*blobs())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Iteration 1, loss = ")
    assert lines[-1].startswith("Training loss did not improve more than tol=1000.000000 for 1 ")
    assert lines[-1].endswith(" consecutive epochs. Stopping.")


def test_callbacks_and_time():
    X, y = blobs()
    seen = []

    def watch(state):
        seen.append(state.history["loss"][-1])
        state.stop = len(seen) == 3

    clf = fit_quietly(MLPClassifier((4,), callbacks=[watch]), X, y)
    assert clf.n_iter_ == 3 and seen == clf.loss_curve_
    assert fit_quietly(MLPClassifier((4,), max_time=0), X, y).n_iter_ == 1


def test_an_interrupt_warns_and_keeps_the_model():
    X, y = blobs()

    def interrupt(state):
        if state.epoch == 2:
            raise KeyboardInterrupt

    clf = MLPClassifier((4,), callbacks=[interrupt])
    with pytest.warns(UserWarning, match="Training interrupted by user."):
        clf.fit(X, y)
    assert clf.n_iter_ == 2 and clf.predict(X).shape == y.shape


@pytest.mark.parametrize("options", [
    {}, {"solver": "sgd", "momentum": 0.5}, {"shuffle": False, "batch_size": 7}, {"batch_size": 1},
    {"tol": 0.05, "n_iter_no_change": 2}, {"tol": 1.0, "n_iter_no_change": 1, "max_iter": 3},
    {"learning_rate": "adaptive", "solver": "sgd", "tol": 0.01, "n_iter_no_change": 1},
    {"warmup_fraction": 0.3}, {"dropout": 0.2, "input_noise": 0.1}, {"class_weight": "balanced"},
    {"learning_rate": "cosine"},
    {"n_ensemble": 2}, {"normalization": "batch"}, {"n_iter_no_change": np.inf},
])  # fmt: skip
def test_epochs_in_one_call_are_those_of_many(engine, options, monkeypatch):
    """One has no callback, the other one that is called after each epoch."""
    X, y = blobs(61)
    number_type = "float32" if engine.name == "python" else "float64"
    options = {"random_state": 0, "max_iter": 15, "dtype": number_type} | options
    calls = []
    run = trainer.Trainer.run
    monkeypatch.setattr(trainer.Trainer, "run", lambda *a: calls.append(1) or run(*a))
    counts, fits = [], []
    for callbacks in ([], [lambda state: None]):
        clf = MLPClassifier((6,), callbacks=callbacks, warm_start=True, **options)
        fit_quietly(clf, X, y)
        fits.append(fit_quietly(clf, X, y))
        counts.append(len(calls))
        calls.clear()
    ours, theirs = ([fit] if "n_ensemble" not in options else fit.estimators_ for fit in fits)
    for mine, same in zip(ours, theirs, strict=True):
        assert mine.loss_curve_ == same.loss_curve_ and mine.n_iter_ == same.n_iter_
        for name in ("loss_", "best_loss_", "best_iteration_", "t_", "should_stop_"):
            assert getattr(mine, name) == getattr(same, name), name
        assert mine.network_.params.tobytes() == same.network_.params.tobytes()
        assert mine.network_.moments.tobytes() == same.network_.moments.tobytes()
        assert mine.network_.steps == same.network_.steps
        for name in ("learning_rate", "loss", "epoch"):
            assert mine.history_[name] == same.history_[name]
        assert len(mine.history_["seconds"]) == len(mine.loss_curve_)
    assert counts[0] < counts[1] or (engine.name == "python" and "batch_size" in options)


def test_who_wants_to_look_sees_every_epoch(engine, monkeypatch):
    """A validation score, a clock, a function of the user's, a line per epoch: one call each."""
    X, y = waves()
    y = y[:, 0]
    monkeypatch.delattr(trainer.Trainer, "epochs")
    for options in ({"early_stopping": True}, {"max_time": 100}, {"verbose": 2}, {"ema": 0.9},
                    {"learning_rate": lambda epoch: 0.1},
                    {"learning_rate": "invscaling", "solver": "sgd"},
                    {"loss": lambda a, y: (float(((a - y) ** 2).sum()), 2 * (a - y))}):  # fmt: skip
        model = fit_quietly(MLPRegressor(hidden_layer_sizes=(4,), max_iter=3, **options), X, y)
        assert model.n_iter_ == 3
    with pytest.raises(AttributeError, match="epochs"):
        MLPRegressor(hidden_layer_sizes=(4,), max_iter=3).fit(X, y)


@pytest.mark.parametrize("rate, epoch", [(0.8, 3), (1e20, 1)])
def test_an_epoch_that_diverges_is_found_among_many(engine, rate, epoch):
    X, y = waves()
    errors = []
    for callbacks in ([], [lambda state: None]):
        model = MLPRegressor(hidden_layer_sizes=(8,), activation="identity", solver="sgd",
                             learning_rate_init=rate, momentum=0.5, random_state=0, batch_size=20,
                             callbacks=callbacks, dtype="float64")  # fmt: skip
        with pytest.raises(cmlp.DivergenceError, match=f"diverged in epoch {epoch}") as caught:
            model.fit(X, y[:, 0])
        network = model.network_
        errors.append((str(caught.value), caught.value.history.get("loss"), model.n_iter_,
                       network.params.tobytes(), network.moments.tobytes(),
                       network.steps))  # fmt: skip
    assert errors[0] == errors[1]


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_training_that_diverges(engine, solver):
    X, y = waves()
    model = MLPRegressor(hidden_layer_sizes=(8,), activation="exp", solver=solver,
                         learning_rate_init=1e6, random_state=0)  # fmt: skip
    X = X * (1 if solver == "sgd" else 1e6)
    with refused(ValueError, "Solver produced non-finite parameter weights. The input data may"):
        model.fit(X, y[:, 0])
    with pytest.raises(cmlp.DivergenceError):
        model.fit(X, y[:, 0])
    if solver == "sgd":  # with a validation score there is a best network to return to
        model.set_params(early_stopping=True)
        with pytest.warns(cmlp.ConvergenceWarning, match="training diverged in epoch") as caught:
            model.fit(X, y[:, 0])
        assert caught[0].filename == __file__
        assert np.isnan(model.validation_scores_[-1]) and np.isnan(model.loss_)
        assert np.isfinite(model.coefs_[0]).all()


def test_numbers_beyond_float32():
    with refused(ValueError, "Solver produced non-finite", "too large for float32; scale it"):
        MLPRegressor().fit(np.full((10, 2), 1e300), np.arange(10.0))


def test_the_mean_of_the_weights(engine):
    """One step per epoch: a callback sees the weights after each step, or their mean."""
    X, y = waves(50, n_out=2)
    seen = {0.0: [], 0.8: []}
    for ema, steps in seen.items():
        model = MLPRegressor(
            hidden_layer_sizes=(5,), batch_size=50, max_iter=6, random_state=0, dtype="float64",
            ema=ema, callbacks=[lambda state, to=steps: to.append(state.network.params.copy())],
        )  # fmt: skip
        fit_quietly(model, X, y, X_val=X, y_val=y)
        assert model.validation_scores_[-1] == pytest.approx(model.score(X, y), abs=1e-12)
    for number, mean in enumerate(seen[0.8], 1):
        shares = 0.8 ** np.arange(number)[::-1]
        expected = np.tensordot(shares / shares.sum(), seen[0.0][:number], axes=1)
        np.testing.assert_allclose(mean, expected, atol=1e-12)
    np.testing.assert_array_equal(model.network_.params, seen[0.8][-1])
    np.testing.assert_array_equal(model.network_.moments[-1], seen[0.0][-1])


def test_the_best_mean_comes_back():
    X, y = waves(100)
    seen = []
    model = MLPRegressor(hidden_layer_sizes=(30,), early_stopping=True, learning_rate_init=0.1,
                         ema=0.5, random_state=1,
                         callbacks=[lambda s: seen.append(s.network.params.copy())])  # fmt: skip
    model.fit(X, y[:, 0])
    assert model.best_iteration_ < model.n_iter_
    np.testing.assert_array_equal(model.network_.params, seen[model.best_iteration_ - 1])


def test_a_mean_survives_divergence():
    X, y = waves()
    model = MLPRegressor(hidden_layer_sizes=(8,), solver="sgd", ema=0.9, random_state=0,
                         warm_start=True, max_iter=3, batch_size=4)  # fmt: skip
    fit_quietly(model, X, y[:, 0])
    before = model.network_.params.copy()
    with pytest.raises(cmlp.DivergenceError):
        model.set_params(learning_rate_init=1e30).fit(X, y[:, 0])
    np.testing.assert_array_equal(model.network_.params, before)


# Continuing --------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_partial_fit_is_an_epoch_of_fit(engine, kind, ema):
    X, y = data_for(kind)
    params = {"hidden_layer_sizes": (5,), "random_state": 0, "shuffle": False, "batch_size": 16,
              "ema": ema}  # fmt: skip
    whole = fit_quietly(kind(max_iter=6, **params), X, y, sample_weight=np.linspace(0, 1, 60))
    parts = kind(**params)
    for _ in range(6):
        more = {"classes": [0, 1, 2]} if kind is MLPClassifier else {}
        parts.partial_fit(X, y, np.linspace(0, 1, 60), **more)
        assert parts.n_iter_ == 1
    assert parts.loss_curve_ == whole.loss_curve_ and parts.t_ == whole.t_
    for mine, theirs in zip(parts.coefs_, whole.coefs_, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@BOTH
@pytest.mark.parametrize("n_ensemble", [1, 2])
def test_partial_fit_with_rows_to_validate_on(kind, n_ensemble):
    X, y = data_for(kind)
    more = {"classes": [0, 1, 2]} if kind is MLPClassifier else {}
    model = kind(hidden_layer_sizes=(16,), random_state=0, learning_rate_init=0.05, tol=0.01,
                 n_iter_no_change=3, n_ensemble=n_ensemble)  # fmt: skip
    for calls in range(1, 400):
        model.partial_fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:], **more)
        assert len(model.validation_scores_) == len(model.validation_loss_curve_) == calls
        if model.should_stop_:
            break
    else:
        pytest.fail("it never stops")
    assert model.score(X[40:], y[40:]) > 0.8 and model.best_loss_ is None
    if n_ensemble == 1:
        scores = model.validation_scores_
        assert scores[-1] == pytest.approx(model.score(X[40:], y[40:]))  # weights are not put back
        assert model.best_validation_score_ == max(scores)
        assert model.best_iteration_ == 1 + int(np.argmax(scores))
    with refused(ValueError, "X_val and y_val go together"):
        model.partial_fit(X, y, X_val=X)
    model.partial_fit(X, y)  # from here on it goes by the loss of training
    assert not model.should_stop_ and model.best_loss_ == pytest.approx(model.loss_)


def test_partial_fit_with_several_labels_per_row():
    X, y = blobs()
    Y = np.eye(3, dtype=int)[y]
    clf = MLPClassifier((8,), random_state=0, learning_rate_init=0.05)
    for _ in range(40):
        clf.partial_fit(X, Y, classes=[0, 1, 2])
    assert clf.score(X, Y) > 0.9


def test_partial_fit_and_its_classes():
    X, y = blobs()
    with refused(ValueError, "classes must be passed on the first call to partial_fit."):
        MLPClassifier().partial_fit(X, y)
    clf = MLPClassifier((4,)).partial_fit(X, y, classes=[0, 1, 2, 7])
    assert clf.predict_proba(X).shape == (60, 4)
    clf.partial_fit(X[:3], [7, 7, 7])
    with refused(ValueError, "is not the same as on last call to partial_fit"):
        clf.partial_fit(X, y, classes=[0, 1])
    with refused(ValueError, "`y` has classes not in `self.classes_`"):
        clf.partial_fit(X, y + 1)
    with refused(ValueError, "partial_fit does not support early_stopping=True"):
        clf.set_params(early_stopping=True).partial_fit(X, y)
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    with refused(AttributeError, "lbfgs is not stochastic"):
        MLPRegressor(solver="lbfgs").partial_fit(X, y)


SCHEDULES = ("constant", "invscaling", "adaptive", "cosine", "one_cycle", "step", "exponential",
             lambda epoch: 0.01 / (epoch + 1))  # fmt: skip


@BOTH
@pytest.mark.parametrize("solver", SOLVERS)
def test_parameters_in_combination(kind, solver):
    """Fits, refits and partial fits end with finite numbers.

    Every solver meets every schedule and all triples of the four switches, every schedule each
    switch on and off.
    """
    X, y = data_for(kind)
    for number, schedule in enumerate(SCHEDULES, SOLVERS.index(solver)):
        warm, early, several = (bool(number >> bit & 1) for bit in range(3))
        weights = np.linspace(0, 1, 60) if warm ^ early ^ several else None
        model = kind(hidden_layer_sizes=(5, 4), solver=solver, learning_rate=schedule, max_iter=3,
                     warm_start=warm, early_stopping=early, n_ensemble=1 + several,
                     random_state=0)  # fmt: skip
        losses = [fit_quietly(model, X, y, weights).loss_ for _ in range(2)]
        assert (losses[0] == losses[1]) is not warm
        if solver != "lbfgs":
            assert len(model.loss_curve_) == (6 if warm else 3)
            assert (model.validation_scores_ is not None) is early
            model.set_params(early_stopping=False).partial_fit(X, y, weights)
            losses.append(model.loss_)
            assert len(model.loss_curve_) == (7 if warm else 4)
        assert np.isfinite([*losses, model.score(X, y, weights)]).all()
        assert np.isfinite(model.transform(X)).all()


@BOTH
def test_warm_start_keeps_the_optimizer(kind):
    X, y = data_for(kind)
    params = {"hidden_layer_sizes": (5,), "random_state": 0, "shuffle": False}
    whole = fit_quietly(kind(max_iter=6, **params), X, y)
    warm = kind(max_iter=3, warm_start=True, **params)
    fit_quietly(fit_quietly(warm, X, y), X, y)
    assert warm.n_iter_ == 3
    np.testing.assert_array_equal(warm.loss_curve_, whole.loss_curve_)
    cold = fit_quietly(kind(max_iter=3, **params), X, y)
    fit_quietly(cold, X, y)
    assert len(cold.loss_curve_) == 3
    with refused(ValueError, "the fitted network has the layers (3, 5,"):
        warm.set_params(hidden_layer_sizes=(6,)).fit(X, y)


def test_warm_start_with_another_solver():
    X, y = blobs()
    clf = MLPClassifier((8,), solver="lbfgs", warm_start=True, random_state=0).fit(X, y)
    assert not hasattr(clf, "loss_curve_")
    clf.set_params(solver="sgd", early_stopping=True, max_iter=3)
    assert fit_quietly(clf, X, y).score(X, y) == 1
    clf.set_params(early_stopping=False)
    assert len(fit_quietly(clf, X, y).loss_curve_) == 6 and clf.best_loss_ < np.inf


def test_warm_start_and_its_classes():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier((4,), max_iter=1, warm_start=True), X, y)
    message = r"Previously got \[0 1 2\], `y` has \[1 2 3\]"
    with pytest.raises(ValueError, match=message):
        clf.fit(X, y + 1)


# Weights -----------------------------------------------------------------------------------------


def test_class_weight_is_a_sample_weight():
    X, y = blobs(60, 3, 3)
    X, y = X[:50], y[:50]
    counts = np.bincount(y)
    cases = {
        "balanced": (50 / (3 * counts))[y],
        ((1, 4.0), (2, 0.5)): np.array([1, 4.0, 0.5])[y],
    }
    for class_weight, sample_weight in cases.items():
        given = class_weight if class_weight == "balanced" else dict(class_weight)
        params = {"max_iter": 5, "random_state": 0, "dtype": "float64"}
        mine = fit_quietly(MLPClassifier((4,), class_weight=given, **params), X, y)
        same = fit_quietly(MLPClassifier((4,), **params), X, y, sample_weight)
        np.testing.assert_allclose(mine.loss_curve_, same.loss_curve_, rtol=1e-12)
    for bad, message in (
        ("even", "class_weight must be 'balanced'"),
        ({5: 1.0}, "class_weight names [5], but the classes are [0, 1, 2]"),
    ):
        with refused(ValueError, message):
            MLPClassifier(class_weight=bad).fit(X, y)
    with refused(ValueError, "class_weight needs one label per row"):
        MLPClassifier(class_weight="balanced").fit(X, np.eye(3)[y])


@pytest.mark.parametrize("weights, message", [
    (np.ones(59), "sample_weight.shape == (59,), expected (60,)"),
    (np.ones((60, 2)), "Sample weights must be 1D array or scalar, got 2D array. Expected either a "
     "scalar value or a 1D array of length 60."),
    (-np.ones(60), "Negative values in data passed to `sample_weight`"),
    (np.zeros(60), "Sample weights must contain at least one non-zero number."),
    (np.full(60, np.nan), "Input sample_weight contains NaN"),
])  # fmt: skip
def test_weights_that_are_refused(weights, message):
    with refused(ValueError, message):
        MLPClassifier().fit(*blobs(), weights)


@BOTH
@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_a_row_of_weight_zero_is_no_row(engine, kind, solver):
    X, y = data_for(kind)
    weights = np.r_[np.full(40, 2.0), np.zeros(20)]
    params = {"hidden_layer_sizes": (4,), "max_iter": 8, "shuffle": False, "dtype": "float64",
              "random_state": 0, "alpha": 0.1, "solver": solver, "tol": 1e-12}  # fmt: skip
    weighted = fit_quietly(kind(**params), X, y, weights)
    repeated = fit_quietly(kind(**params), np.r_[X[:40], X[:40]], np.r_[y[:40], y[:40]])
    for mine, theirs in zip(weighted.coefs_, repeated.coefs_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-9)


# Looking inside ----------------------------------------------------------------------------------


def test_transform_returns_hidden_layers(engine):
    X, y = blobs()
    clf = fit_quietly(MLPClassifier((5, 4), ["tanh", "relu"], max_iter=3, random_state=0), X, y)
    first = np.tanh(X @ clf.coefs_[0] + clf.intercepts_[0])
    last = np.maximum(first @ clf.coefs_[1] + clf.intercepts_[1], 0)
    np.testing.assert_allclose(clf.transform(X, 0), first, atol=1e-5)
    np.testing.assert_allclose(clf.transform(X), last, atol=1e-5)
    np.testing.assert_array_equal(clf.transform(X, layer=1), clf.transform(X, layer=-1))
    assert list(clf.get_feature_names_out()) == [f"mlpclassifier{i}" for i in range(4)]
    for layer in (2, -3):
        with refused(ValueError, f"layer={layer} is none of this network's 2 hidden layers"):
            clf.transform(X, layer)
    z = last @ clf.coefs_[2] + clf.intercepts_[2]
    np.testing.assert_allclose(clf.decision_function(X), z, atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_gradient_by_the_inputs(engine, n_classes):
    X, y = blobs(12, 3, n_classes)
    clf = MLPClassifier((6,), "tanh", max_iter=5, dtype="float64", random_state=0, input_scale=0.5)
    dX = fit_quietly(clf, X, y).input_gradient(X)
    assert dX.shape == ((12, 3) if n_classes == 2 else (12, 3, 3))
    for column in range(3):
        move = np.zeros(3)
        move[column] = 1e-6
        change = (clf.predict_proba(X + move) - clf.predict_proba(X - move)) / 2e-6
        expected = change[:, 1] if n_classes == 2 else change
        np.testing.assert_allclose(dX[..., column], expected, atol=1e-8)


@BOTH
def test_copies_and_pickles(kind):
    X, y = data_for(kind)
    estimator = kind(hidden_layer_sizes=(5,), random_state=0).partial_fit(
        X, y, **({"classes": [0, 1, 2]} if kind is MLPClassifier else {})
    )
    for other in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))):
        np.testing.assert_array_equal(other.predict(X), estimator.predict(X))
        other.partial_fit(X, y)
        fresh = copy.deepcopy(estimator).partial_fit(X, y)
        np.testing.assert_array_equal(other.coefs_[0], fresh.coefs_[0])
        assert len(estimator.loss_curve_) == 1


def test_score():
    X, y = blobs()
    clf = MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X, y)
    wrong = np.where(np.arange(60) < 15, (y + 1) % 3, y)
    assert clf.score(X, wrong) == 0.75
    assert clf.score(X, wrong, np.arange(60) >= 15) == 1
    model = MLPRegressor().fit(X, y)
    with pytest.warns(cmlp.UndefinedMetricWarning, match="less than two samples") as warned:
        assert np.isnan(model.score(X[:1], y[:1])) and warned[0].filename == __file__
        assert np.isnan(model.score(X[:1], y[:1], [2.0]))
        assert np.isnan(model.network_.score(X[:1], y[:1]))
    assert len(warned) == 3
    assert model.score(X, y, [1] + [0] * 59) == 0


def test_a_score_needs_targets_like_those_fitted():
    X, y = blobs()
    names, matrix = np.array(["a", "b", "c"])[y], np.eye(3, dtype=int)[y]
    params = {"hidden_layer_sizes": (4,), "max_iter": 1}
    fits = {kind: fit_quietly(MLPClassifier(**params), X, labels)
            for kind, labels in (("numbers", y), ("text", names), ("matrix", matrix))}  # fmt: skip
    for kind, labels, message in (
        ("text", y, "Mix of label input types (string and number); Got [0 1 2] and ['a' 'b' 'c']."),
        ("numbers", names, "Mix of label input types (string and number); Got ['a' 'b' 'c'] and"),
        ("numbers", names.astype(object), "Mix of label input types"),
        ("text", matrix, "y has the shape (60, 3), but this classifier was fitted on one of 3"),
        ("matrix", y, "y has the shape (60,), but this classifier was fitted on a 0/1 matrix of 3"),
    ):
        with refused(ValueError, message):
            fits[kind].score(X, labels)
        with refused(ValueError, message):
            fits[kind].fit(X, {"numbers": y, "text": names, "matrix": matrix}[kind], X_val=X,
                           y_val=labels)  # fmt: skip
    assert 0 <= fits["numbers"].score(X, y.astype(float)) <= 1
    model = fit_quietly(MLPRegressor(**params), X, y)
    with refused(ValueError, "y has the shape (60, 3), the predictions (60,): both need one"):
        model.score(X, matrix)
    with refused(ValueError, "y_val has the shape (60, 3), y has (60,): both need one"):
        model.fit(X, y, X_val=X, y_val=matrix)


def test_a_table_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.utils", None)
    text = MLPClassifier(alpha=0.25, solver="<b>")._repr_html_()
    assert "<td>alpha</td><td>0.25</td>" in text and "&lt;b&gt;" in text
    assert MLPClassifier()._repr_mimebundle_()["text/plain"] == "MLPClassifier()"


def test_warnings_point_at_the_line_of_the_user():
    X, y = blobs(n_classes=2)
    named = MLPClassifier((4,), solver="lbfgs", random_state=0).fit(Table(X, ["a", "b", "c"]), y)
    for act in (
        lambda: named.predict(X),
        lambda: named.score(X, y),
        lambda: named.transform(X),
        lambda: MLPClassifier((4,), max_iter=1).fit(X, y),
        lambda: MLPClassifier((4,), max_iter=1, batch_size=99).fit(X, y[:, None]),
        lambda: MLPClassifier((4,)).partial_fit(X, y[:, None], classes=[0, 1]),
        lambda: MLPClassifier((4,), solver="lbfgs", max_iter=1).fit(X, y),
    ):
        with pytest.warns(UserWarning) as caught:
            act()
        assert {warning.filename for warning in caught} == {__file__}
        assert len(caught) == len({str(warning.message) for warning in caught})


def test_nothing_else_is_imported():
    code = """if True:
        import sys, warnings
        warnings.simplefilter("ignore")
        import numpy as np, cmlp
        assert "cmlp.estimators.classifier" not in sys.modules
        from cmlp import MLPClassifier
        X = np.random.default_rng(0).normal(size=(20, 3))
        clf = MLPClassifier((4,), max_iter=2).fit(X, X[:, 0] > 0)
        clf.predict_proba(X), clf.transform(X), clf.score(X, X[:, 0] > 0), repr(clf)
        print(*[name for name in ("sklearn", "scipy", "pandas", "polars") if name in sys.modules])
    """
    status, text = python_output("-c", code)
    assert (status, text.strip()) == (0, "")


# Tables ------------------------------------------------------------------------------------------


class Table:
    """Rows with names, as a data frame has them, that become an array when asked."""

    def __init__(self, values, columns):
        self.values, self.columns = values, columns

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


def test_names_of_columns():
    X, y = blobs()
    clf = fit_quietly(MLPClassifier((4,), max_iter=2), Table(X, ["a", "b", "c"]), y)
    assert clf.feature_names_in_.tolist() == ["a", "b", "c"]
    expected = clf.predict(Table(X, ["a", "b", "c"]))
    with pytest.warns(UserWarning, match="X does not have valid feature names, but MLPClassifier"):
        np.testing.assert_array_equal(clf.predict(X), expected)
    seen = "unseen at fit time:\n- d\nFeature names seen at fit time, yet now missing:\n- c\n"
    with refused(ValueError, "should match", seen):
        clf.predict(Table(X, ["a", "b", "d"]))
    with refused(ValueError, "must be in the same order"):
        clf.predict(Table(X, ["b", "a", "c"]))
    with refused(TypeError, "only supported if all input features have string names"):
        clf.fit(Table(X, ["a", 1, "c"]), y)
    plain = fit_quietly(clf, X, y)
    assert not hasattr(plain, "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names, but MLPClassifier was fitted"):
        plain.predict(Table(X, ["a", "b", "c"]))
    assert not hasattr(fit_quietly(clf, Table(X, [0, 1, 2]), y), "feature_names_in_")


@pytest.mark.parametrize("number_type", ["uint8", "int64", "bool", "float16", "float64", "O"])
def test_numbers_of_any_type(number_type):
    X = np.random.default_rng(0).integers(0, 2, (40, 3))
    y = X.sum(axis=1)
    expected = fit_quietly(MLPRegressor(max_iter=3, random_state=0), X.astype(np.float32), y)
    model = fit_quietly(MLPRegressor(max_iter=3, random_state=0), X.astype(number_type), y)
    np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])


def test_a_column_of_targets_warns():
    X, y = blobs()
    for estimator in (MLPClassifier((4,), max_iter=1), MLPRegressor(max_iter=1)):
        with pytest.warns(cmlp.DataConversionWarning, match="A column-vector y was passed"):
            fit_quietly(estimator, X, y[:, None])
        assert estimator.predict(X).shape == (60,)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what is not learned from may have any shape
            estimator.score(X, y[:, None])


@pytest.mark.parametrize("value, kind, came", [
    ("x", ValueError, "could not convert string to float: 'x'"),
    (datetime.date(2020, 1, 1), TypeError, "a real number, not 'datetime.date'"),
])  # fmt: skip
def test_what_is_no_number_is_named(value, kind, came):
    X, y = blobs()
    cells = X.astype(object)
    cells[7, 1] = value
    with refused(kind, came, "(X, row 7, column 'b'); encode text, categories and dates as"):
        MLPClassifier().fit(Table(cells, ["a", "b", "c"]), y)
    with refused(kind, came, "(X, row 7, column 1)"):
        MLPClassifier().fit(cells, y)
    with refused(kind, came, "(y, row 7)"):
        MLPRegressor().fit(X, cells[:, 1])
    with refused(TypeError, "(X); encode"):
        MLPRegressor().fit(value if kind is TypeError else object(), y)
