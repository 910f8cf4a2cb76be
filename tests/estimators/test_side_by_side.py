"""Members of ensembles, and folds, whose networks share vectors: as alone, up to rounding."""

import _thread
import copy
import warnings

import numpy as np
import pytest
from helpers import blobs, data_for, fit_quietly, refused, waves

import cmlp
from cmlp import MLPClassifier, MLPRegressor
from cmlp.core import dispatch
from cmlp.estimators import side_by_side
from cmlp.training import lanes


@pytest.fixture(autouse=True)
def processors(monkeypatch):
    """As many processors as threads are given, on any machine."""
    monkeypatch.setattr(dispatch, "threads_for", lambda n: n or 1)


BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])


@pytest.fixture
def shared(monkeypatch):
    """The numbers of networks of the calls that trained several."""
    found, run = [], side_by_side._run

    def watched(jobs, pool):
        found.append(len(jobs))
        run(jobs, pool)

    monkeypatch.setattr(side_by_side, "_run", watched)
    return found


def params(**more):
    """Parameters of members that lanes take: tanh, as rounding may turn a ReLU over."""
    return {
        "hidden_layer_sizes": (6, 5), "activation": "tanh", "max_iter": 4, "random_state": 0,
        "batch_size": 16, "n_threads": 1,
    } | more  # fmt: skip


def same_numbers(one, other, steps=60):
    """Compare what two estimators have learned: each step rounds sums over rows and units."""
    bound = 4 * steps * np.finfo("f4").eps
    np.testing.assert_allclose(one.network_.params, other.network_.params, 0, bound)
    np.testing.assert_allclose(one.loss_curve_, other.loss_curve_, bound, bound)
    for name in ("n_iter_", "t_", "best_iteration_", "should_stop_", "classes_", "n_features_in_"):
        assert np.array_equal(getattr(one, name, None), getattr(other, name, None))
    for name in ("stopped", "best_epoch", "restored", "metric"):
        assert getattr(one.history_, name) == getattr(other.history_, name)
    assert list(one.history_) == list(other.history_)
    if one.validation_scores_ is not None:
        np.testing.assert_allclose(one.validation_scores_, other.validation_scores_, bound, bound)
    assert one._random_state.randint(1000) == other._random_state.randint(1000)


CASES = {
    "adam": {},
    "penalties": {"alpha": 0.3, "l1_ratio": 0.4, "batch_size": 13},
    "auto": {"batch_size": "auto"},
    "passes": {"batch_size": 45, "alpha": 0.1},
    "sgd": {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.1, "tol": 0.1,
            "n_iter_no_change": 1, "nesterovs_momentum": False},
    "nesterov": {"solver": "sgd", "learning_rate": "invscaling", "weight_decay": 0.01},
    "early": {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2,
              "learning_rate_init": 0.05, "max_iter": 12},
    "schedule": {"learning_rate": "cosine", "warmup_fraction": 0.3, "shuffle": False},
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_members_learn_what_they_would_alone(engine, shared, kind, case):
    """All members share calls, and differ from the estimator of their seed by rounding."""
    n = lanes.lanes_of_core() + 2  # more than one call takes
    X, y = data_for(kind)
    ensemble = fit_quietly(kind(**params(**CASES[case], n_ensemble=n)), X, y)
    assert shared == [n]
    for member in ensemble.estimators_[:: n // 3]:
        alone = fit_quietly(type(member)(**member.get_params()), X, y)
        same_numbers(member, alone)
    assert len({member.loss_ for member in ensemble.estimators_}) == n
    assert ensemble.n_iter_ == max(member.n_iter_ for member in ensemble.estimators_)


def test_several_outputs(engine, shared):
    """Labels, and numbers whose loss is a mean over outputs; missing targets are for no lane."""
    n = lanes.lanes_of_core()
    X, y = blobs()
    for kind, targets in (
        (MLPClassifier, np.eye(3, dtype=int)[y]),
        (MLPRegressor, X[:, :2].copy()),
    ):
        shared.clear()
        ensemble = fit_quietly(kind(**params(n_ensemble=n)), X, targets)
        assert shared == [n]
        alone = fit_quietly(kind(**ensemble.estimators_[2].get_params()), X, targets)
        same_numbers(ensemble.estimators_[2], alone)
    targets[3, 1] = np.nan
    fit_quietly(MLPRegressor(**params(n_ensemble=n, max_iter=1)), X, targets)
    assert shared == [n]


@pytest.mark.parametrize("more", [
    {"n_threads": 2}, {"solver": "lbfgs"}, {"dropout": 0.1}, {"max_time": 60},
    {"class_weight": "balanced"}, {"callbacks": [lambda state: None]}, {"dtype": "float64"},
    {"normalization": "layer"},
])  # fmt: skip
def test_the_rest_is_what_it_was_to_the_bit(shared, more):
    """Also where each of two threads has too few members to fill the lanes."""
    X, y = blobs()
    n = lanes.fewest_of(cmlp.Network((2, 6, 5, 3)), 16)
    ensemble = fit_quietly(MLPClassifier(**params(n_ensemble=n, max_iter=2) | more), X, y)
    assert shared == []
    member = ensemble.estimators_[1]
    alone = fit_quietly(MLPClassifier(**member.get_params()), X, y)
    np.testing.assert_array_equal(member.network_.params, alone.network_.params)


def test_threads_share_the_members(shared):
    """Each trains its part side by side: a member does not depend on those next to it."""
    X, y = blobs()
    n = 2 * lanes.lanes_of_core()
    one, two = (
        fit_quietly(MLPClassifier(**params(n_ensemble=n, n_threads=threads)), X, y)
        for threads in (1, 2)
    )
    assert sorted(shared) == [n // 2, n // 2, n]
    for mine, theirs in zip(one.estimators_, two.estimators_, strict=True):
        np.testing.assert_array_equal(mine.network_.params, theirs.network_.params)


def test_members_that_diverge_side_by_side(engine, shared):
    """They are reported when the others have ended; with early stopping the best are kept."""
    n = lanes.lanes_of_core()
    X, y = waves(40)
    model = MLPRegressor(**params(n_ensemble=n, solver="sgd", learning_rate_init=1e20))
    with pytest.raises(cmlp.DivergenceError, match=rf"{n} of {n} members diverged"):
        fit_quietly(model, X, y[:, 0])
    assert all(np.isfinite(member.network_.params).all() for member in model.estimators_)
    assert {member.history_.stopped for member in model.estimators_} == {"diverged"}
    model.set_params(early_stopping=True)
    with pytest.warns(cmlp.ConvergenceWarning, match=f"{n} of {n} members: training diverged"):
        model.fit(X, y[:, 0])
    alone = MLPRegressor(**model.estimators_[1].get_params())
    with pytest.warns(cmlp.ConvergenceWarning, match="training diverged"):
        alone.fit(X, y[:, 0])
    member = model.estimators_[1]
    assert member.n_iter_ == alone.n_iter_ and member.t_ == alone.t_
    np.testing.assert_array_equal(member.network_.params, alone.network_.params)
    assert shared == [n, n]


def test_warnings_come_once_and_lines_are_printed(engine, shared, capsys):
    n = lanes.lanes_of_core()
    X, y = blobs()
    with pytest.warns(cmlp.ConvergenceWarning, match=rf"{n} of {n} members: Stochastic") as heard:
        MLPClassifier(**params(n_ensemble=n, verbose=True)).fit(X, y)
    assert len(heard) == 1 and shared == [n]
    assert capsys.readouterr().out.count("4 iterations, loss = ") == n


def test_an_interrupt_keeps_the_members_that_have_begun(shared, monkeypatch):
    """Those in lanes; the two that wait for one do not exist."""
    n = lanes.lanes_of_core()
    X, y = blobs()
    calls, see = [], lanes.Lanes._see

    def interrupting(self, lane, job, in_use):
        see(self, lane, job, in_use)
        calls.append(lane)
        if len(calls) == n:
            _thread.interrupt_main()
            while not self.stops_now():
                pass

    def run(self, stops):
        self.stops_now = stops
        original(self, stops)

    original = lanes.Lanes.run
    monkeypatch.setattr(lanes.Lanes, "run", run)
    monkeypatch.setattr(lanes.Lanes, "_see", interrupting)
    model = MLPClassifier(**params(n_ensemble=n + 2, max_iter=5000, tol=0, batch_size=4))
    with pytest.warns(UserWarning, match=f"interrupted by user. {n} of {n + 2} members are kept"):
        model.fit(X, y)
    assert {member.history_.stopped for member in model.estimators_} == {"interrupted"}
    assert model.predict(X).shape == y.shape


# Folds -------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("case", ["adam", "early", "sgd"])
def test_folds_are_fitted_as_they_would_be_alone(engine, shared, kind, case):
    X, y = data_for(kind)
    settings = [{"alpha": alpha} for alpha in (1e-4, 0.1, 0.01)]
    model = kind(**params(**CASES[case]))
    before = copy.deepcopy(vars(model))
    found = fit_quietly_folds(model, X, y, cv=3, settings=settings)
    assert vars(model) == before and found["test_score"].shape == (3, 3)
    assert sum(shared) == 9
    number = np.arange(60) * 3 // 60
    if kind is MLPClassifier:
        number = _stratified(y, 3)
    for own, row, scores in zip(settings, found["estimator"], found["test_score"], strict=True):
        for fold, (member, score) in enumerate(zip(row, scores, strict=True)):
            train, test = number != fold, number == fold
            alone = fit_quietly(kind(**model.get_params() | own), X[train], y[train])
            assert member.get_params() == alone.get_params()
            same_numbers(member, alone)
            assert member.score(X[test], y[test]) == score


def _stratified(y, k):
    """The folds of scikit-learn's StratifiedKFold, class by class."""
    number, codes = np.empty(len(y), int), np.unique(y, return_inverse=True)[1]
    first = [np.flatnonzero(codes == code)[0] for code in range(codes.max() + 1)]
    order = np.argsort(first)
    line = np.repeat(order, np.bincount(codes)[order])
    for code in order:
        number[codes == code] = np.sort(np.arange(len(y))[line == code] % k)
    return number


@pytest.mark.parametrize("labels", [[0, 1, 2], ["b", "a", "c"]])
def test_folds_are_those_of_scikit_learn(labels):
    selection = pytest.importorskip("sklearn.model_selection")
    random = np.random.default_rng(3)
    y = np.array(labels)[random.integers(0, 3, 47)]
    X = random.normal(size=(47, 2))
    seen = []

    def scorer(estimator, rows, targets):
        seen.append(rows[:, 0])
        return 0.5

    for kind, k, folds in (
        (MLPClassifier, 4, selection.StratifiedKFold(4)), (MLPRegressor, 5, selection.KFold(5)),
        (MLPRegressor, folds_of := selection.KFold(3, shuffle=True, random_state=0), folds_of),
    ):  # fmt: skip
        targets = y if kind is MLPClassifier else X[:, 0]
        model = kind(hidden_layer_sizes=(), max_iter=1, learning_rate_init=1e-3)
        seen.clear()
        found = fit_quietly_folds(model, X, targets, cv=k, scoring=scorer)
        parts = [X[test, 0] for _, test in folds.split(X, targets)]
        assert len(parts) == len(seen) and all(map(np.array_equal, parts, seen))
        assert found["test_score"].tolist() == [0.5] * len(parts)
    named = fit_quietly_folds(model, X, X[:, 0], cv=3, scoring="neg_mean_absolute_error")
    assert (named["test_score"] < 0).all()


@BOTH
def test_weights_and_groups_of_folds(shared, kind):
    """Fits and scores take the rows' weights; groups stay together."""
    selection = pytest.importorskip("sklearn.model_selection")
    X, y = data_for(kind)
    y = y[:, 0] if y.ndim == 2 else y
    random = np.random.default_rng(0)
    weights, groups = random.uniform(0.1, 3, len(X)), np.arange(len(X)) % 20
    cv, model = selection.GroupKFold(10), kind(**params())
    more = {"cv": cv, "sample_weight": weights, "groups": groups}
    found = fit_quietly_folds(model, X, y, **more)
    assert shared == []  # weights of a batch are not for lanes
    scores = []
    for member, (train, test) in zip(found["estimator"], cv.split(X, y, groups), strict=True):
        assert not {*groups[train]} & {*groups[test]}
        alone = fit_quietly(kind(**params()), X[train], y[train], sample_weight=weights[train])
        same_numbers(member, alone)
        scores.append(member.score(X[test], y[test], weights[test]))
        assert scores[-1] != member.score(X[test], y[test])
    assert found["test_score"].tolist() == scores
    scorer = {MLPClassifier: "neg_log_loss", MLPRegressor: "neg_mean_squared_error"}[kind]
    weighted = fit_quietly_folds(model, X, y, scoring=scorer, **more)["test_score"]
    plain = fit_quietly_folds(model, X, y, scoring=scorer, cv=cv, groups=groups)["test_score"]
    assert (weighted != plain).all()
    five = fit_quietly_folds(model, X, y, cv=None)["test_score"]
    assert five.tolist() == fit_quietly_folds(model, X, y)["test_score"].tolist() and len(five) == 5


def fit_quietly_folds(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cmlp.cross_validate(*args, **kwargs)


def test_estimators_that_divide_their_rows_themselves(shared):
    """Tables, ensembles, weights of classes, and a fold without one of the classes."""
    X, y = blobs()
    table = {"a": X[:, 0].tolist(), "b": np.where(X[:, 1] > 0, "x", "y").tolist()}
    tabular = cmlp.TabularClassifier((4,), max_iter=2, cv=None, n_ensemble=1, random_state=0)
    found = cmlp.cross_validate(tabular, table, y.tolist(), cv=2)
    assert found["test_score"].shape == (2,) and len(found["estimator"]) == 2
    for more in ({"n_ensemble": 2}, {"class_weight": "balanced"}, {"solver": "lbfgs"}):
        model = MLPClassifier(**params(max_iter=2) | more)
        member = fit_quietly_folds(model, X, y, cv=2)["estimator"][1]
        train = _stratified(y, 2) != 1
        same = fit_quietly(MLPClassifier(**model.get_params()), X[train], y[train])
        np.testing.assert_array_equal(member.predict_proba(X), same.predict_proba(X))
    lacking = [(np.flatnonzero(y != 2), np.flatnonzero(y == 2)), (np.arange(50), np.arange(50, 60))]
    one, two = fit_quietly_folds(MLPClassifier(**params()), X, y, cv=lacking)["estimator"]
    assert len(one.classes_) == 2 and len(two.classes_) == 3 and shared == []


def test_folds_of_labels_in_a_column():
    """Such as ``frame[["label"]]``: divided as the labels themselves."""
    X, y = blobs()
    model = MLPClassifier(**params(max_iter=1))
    seen = []

    def scorer(estimator, rows, targets):
        seen.append(rows)
        return 0.0

    for labels in (y, y[:, None]):
        fit_quietly_folds(model, X, labels, cv=3, scoring=scorer)
    assert all(map(np.array_equal, seen[:3], seen[3:])) and len(seen) == 6


def test_a_fit_of_ones_own_is_called_for_each_fold(shared):
    class Halved(MLPRegressor):
        def fit(self, X, y):
            self.rows_ = len(X)
            return super().fit(X / 2, y)

    X, y = data_for(MLPRegressor)
    found = fit_quietly_folds(Halved(**params(max_iter=1)), X, y, cv=10)
    assert [member.rows_ for member in found["estimator"]] == [54] * 10 and shared == []


def test_fits_of_folds_that_diverge(engine):
    X, y = waves(40)
    model = MLPRegressor(**params(solver="sgd"))
    grid = [{"learning_rate_init": 1e-3}, {"learning_rate_init": 1e20}]
    with pytest.warns(cmlp.ConvergenceWarning) as heard:
        found = cmlp.cross_validate(model, X, y[:, 0], cv=2, settings=grid)
    assert any("2 of 4 fits diverged, [2, 3]" in str(each.message) for each in heard)
    assert np.isfinite(found["test_score"][0]).all() and np.isnan(found["test_score"][1]).all()


def test_what_folds_refuse():
    X, y = blobs()
    model = MLPClassifier(**params(tol=10.0, n_iter_no_change=1))  # ends before max_iter
    for words, error, arguments in (
        ("one of cmlp's", TypeError, {"estimator": object()}),
        ("cv must be", ValueError, {"cv": 1}),
        ("cv must be a number of folds", TypeError, {"cv": 2.5}),
        ("method split, not '5'", TypeError, {"cv": "5"}),
        ("X has 60, and y 50", ValueError, {"y": y[:50]}),
        ("name of one scorer", TypeError, {"scoring": ["accuracy"]}),
        ("must return a number, not None", TypeError, {"scoring": lambda *_: None, "cv": 2}),
        ("settings must be", TypeError, {"settings": {"alpha": [0.1, 1.0]}}),
        ("settings must be", TypeError, {"settings": []}),
        ("settings must be", TypeError, {"settings": [0.1]}),
        ("one per row of X", ValueError, {"sample_weight": [1.0]}),
        ("needs a class of 50 rows", ValueError, {"cv": 50}),
        ("holds no folds", ValueError, {"cv": []}),
        ("fold 0 of cv", ValueError, {"cv": [([0, 1], [60])]}),
        ("rows to train on, and rows to score", ValueError, {"cv": [([0, 1], np.arange(0))]}),
        ("alpa", ValueError, {"settings": [{"alpa": 1}]}),
        ("alpha", ValueError, {"settings": [{"alpha": -1}]}),
    ):  # fmt: skip
        with refused(error, words):
            cmlp.cross_validate(**{"estimator": model, "X": X, "y": y} | arguments)
