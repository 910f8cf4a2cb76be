"""Answers about held-out rows: by the members that did not train on them."""

import numpy as np
import pytest

import cmlp
from cmlp.estimators.tabular.validation import held_out_answers

rng = np.random.default_rng(0)
X = rng.normal(size=(90, 3))
y = (X[:, 0] > 0).astype(int)
SMALL = {"hidden_layer_sizes": [8], "max_iter": 4, "random_state": 0}


@pytest.mark.parametrize("options", [{}, {"n_ensemble": 2}, {"cv": 3}, {"cv": 3, "n_ensemble": 2}])
def test_each_row_is_answered_by_its_fold(options):
    """The score of a single member per part is the one that its history has."""
    options = {"cv": None, "n_ensemble": 1, "scoring": "accuracy"} | options
    model = cmlp.TabularClassifier(**SMALL, **options).fit(X, y)
    rows, proba = held_out_answers(model, X)
    n = 90 if options["cv"] else 18
    assert len(rows) == len(set(rows.tolist())) == n and proba.shape == (n, 2)
    if options["n_ensemble"] == 1:
        right = proba.argmax(axis=1) == y[rows]
        assert right.mean() == pytest.approx(model.validation_score_)


def test_nothing_is_held_out():
    model = cmlp.TabularRegressor(**SMALL, cv=None, early_stopping=False).fit(X, X[:, 0])
    assert held_out_answers(model, X) is None
    model.fit(X, X[:, 0], X_val=X[:9], y_val=X[:9, 0])
    assert held_out_answers(model, X) is None


def test_rows_without_a_target_keep_the_numbers_of_the_others():
    """Answers are of the rows of the table that was passed, not of those that are left."""
    holes = X[:, 0].copy()
    holes[:5] = np.nan
    options = SMALL | {"cv": 3, "n_ensemble": 1}
    model = cmlp.TabularRegressor(**options, missing_targets=True).fit(X, holes)
    rows, answers = held_out_answers(model, X)
    expected = cmlp.TabularRegressor(**options).fit(X[5:], holes[5:])
    other_rows, other = held_out_answers(expected, X[5:])
    np.testing.assert_array_equal(rows, other_rows + 5)
    np.testing.assert_array_equal(answers, other)
