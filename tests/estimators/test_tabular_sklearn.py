"""The tabular estimators in scikit-learn: its checks and its tools. Needs it, from 1.4 on."""

import warnings

import numpy as np
import pytest

from cmlp import TabularClassifier, TabularRegressor

sklearn = pytest.importorskip("sklearn", minversion="1.4")
pd = pytest.importorskip("pandas")
from sklearn.base import clone, is_classifier, is_regressor  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.inspection import permutation_importance  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: E402
from sklearn.utils import estimator_checks  # noqa: E402

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
KINDS = (TabularClassifier, TabularRegressor)
QUICK = {"hidden_layer_sizes": (16,), "max_iter": 10, "cv": None, "random_state": 0, "n_threads": 1}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not inherit from"),
    pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning"),
]

EXPECTED_TO_FAIL = {
    "check_sample_weight_equivalence_on_dense_data": "batches and held-out rows are drawn by row",
    "check_sample_weight_equivalence_on_sparse_data": "batches and held-out rows are drawn by row",
    "check_sample_weights_invariance": "batches and held-out rows are drawn by row",
    "check_dataframe_column_names_consistency": "columns are matched by name, in any order",
    "check_dtype_object": "before 1.6, text in place of numbers is no error",
    "check_estimators_nan_inf": "before 1.6, NaN is no error",
}
"""Checks that cannot pass, and why."""


def checks_of(kind):
    """The checks that ``parametrize_with_checks`` would run."""
    estimator = kind((32, 32), cv=None, dtype="float64", n_threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(estimator_checks, "estimator_checks_generator"):
            return list(estimator_checks.estimator_checks_generator(estimator))
        return list(estimator_checks.check_estimator(estimator, generate_only=True))


def name_of(check):
    return getattr(check, "func", check).__name__


CHECKS = [
    pytest.param(estimator, check, id=f"{kind.__name__}-{name_of(check)}")
    for kind in KINDS
    for estimator, check in checks_of(kind)
    if name_of(check) not in EXPECTED_TO_FAIL
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator, check", CHECKS)
def test_checks_of_scikit_learn(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    check(estimator)


@pytest.mark.parametrize("kind", KINDS)
def test_few_checks_are_left_out(kind):
    assert len(checks_of(kind)) > 50
    names = {name_of(check) for _, check in checks_of(kind)}
    assert len(names & EXPECTED_TO_FAIL.keys()) <= 6


# Its tools ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "size": rng.normal(size=300),
            "city": rng.choice(["Bern", "Oslo"], 300),
            "noise": rng.normal(size=300),
        }
    )
    X.loc[::9, "noise"] = np.nan
    return X, np.where(2 * (X["city"] == "Oslo") + X["size"] > 1, "yes", "no")


def test_tags():
    for kind, is_kind in zip(KINDS, (is_classifier, is_regressor), strict=True):
        assert is_kind(kind())
        if VERSION >= (1, 6):
            tags = kind().__sklearn_tags__().input_tags
            assert tags.allow_nan and tags.categorical and tags.string and tags.sparse
        else:
            assert kind()._get_tags()["allow_nan"]


def test_clone(table):
    model = TabularClassifier(**QUICK | {"cv": 2}).fit(*table)
    other = clone(model)
    assert other.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        other.predict(table[0])


def test_search_and_cross_validation(table):
    search = GridSearchCV(TabularClassifier(**QUICK), {"dropout": [0.0, 0.3]}, cv=2)
    assert search.fit(*table).best_score_ > 0.6
    assert cross_val_score(TabularClassifier(**QUICK), *table, cv=2).shape == (2,)


def test_pipelines(table):
    X, y = table
    plain = make_pipeline(FunctionTransformer(lambda X: X), TabularClassifier(**QUICK))
    assert plain.fit(X, y).predict(X).shape == (300,)
    columns = ColumnTransformer(
        [("scaled", StandardScaler(), ["size"])],
        remainder="passthrough", verbose_feature_names_out=False,
    ).set_output(transform="pandas")  # fmt: skip
    pipe = make_pipeline(columns, TabularClassifier(**QUICK)).fit(X, y)
    assert pipe[-1].column_kinds_ == ["number", "category", "number"]
    features = make_pipeline(TabularClassifier(**QUICK), StandardScaler()).fit(X, y)
    assert features.transform(X).shape == (300, 16)
    model = TabularClassifier(**QUICK).set_output(transform="pandas").fit(X, y)
    assert list(model.transform(X)) == model.get_feature_names_out().tolist()


def test_importance_and_calibration(table):
    X, y = table
    model = TabularClassifier(**QUICK | {"max_iter": 40}).fit(X, y)
    importance = permutation_importance(model, X, y, n_repeats=2, random_state=0)
    assert importance.importances_mean.argmin() == 2
    calibrated = CalibratedClassifierCV(TabularClassifier(**QUICK), cv=2).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize("scoring", ["roc_auc", "neg_log_loss", "f1_macro"])
def test_its_scorers_decide(table, scoring):
    X, y = table
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = TabularClassifier(**QUICK, scoring=scoring).fit(X, y)
    assert model.history_.metric == scoring
    assert model.validation_score_ == max(model.history_["val_score"])
    if scoring == "neg_log_loss":
        loss = -np.array(model.history_["val_score"])  # the other is at the best temperature
        assert (np.array(model.history_["val_loss"]) < loss * 1.01).all()


def test_its_scorers_of_numbers(table):
    X, _ = table
    model = TabularRegressor(**QUICK, scoring="neg_mean_absolute_error").fit(X, X["size"] * 100)
    assert -100 < model.validation_score_ < 0
