"""Tables without any library of data frames: lists of dicts, from a fit to a file and back."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

import cmlp

SMALL = {"hidden_layer_sizes": (16,), "max_iter": 60, "cv": 2, "random_state": 0, "n_threads": 1}


def people(n=200, seed=0):
    """Text, gaps, dates and a flag; who is old or lives in Ghent is 'yes'."""
    rng = np.random.default_rng(seed)
    day = datetime.date(2026, 1, 1)
    rows = [
        {
            "age": float(rng.integers(1, 90)) if i % 7 else None,
            "city": str(rng.choice(["Ghent", "Lyon", "Porto"])),
            "since": day + datetime.timedelta(days=int(rng.integers(500))),
            "member": bool(rng.random() < 0.5),
        }
        for i in range(n)
    ]
    labels = ["yes" if r["city"] == "Ghent" or (r["age"] or 0) > 60 else "no" for r in rows]
    return rows, labels


@pytest.fixture(scope="module")
def classifier():
    return cmlp.TabularClassifier(**SMALL).fit(*people())


def test_labels_are_learned_from_dicts(classifier):
    rows, labels = people(seed=1)
    assert classifier.score(rows, labels) > 0.8
    assert classifier.column_kinds_ == ["number", "category", "date", "bool"]
    proba = classifier.predict_proba(rows)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert classifier.transform(rows).shape[0] == len(rows)
    assert len(classifier.get_feature_names_out()) == classifier.transform(rows).shape[1]


def test_one_row_is_answered_as_among_many(classifier):
    rows, _ = people(seed=2)
    answer = classifier.predictor()
    assert [answer(row) for row in rows[:20]] == classifier.predict(rows[:20]).tolist()


def test_order_and_other_columns_change_nothing(classifier):
    rows, _ = people(20, seed=3)
    other = [{"new": 1} | dict(reversed(row.items())) for row in rows]
    np.testing.assert_array_equal(classifier.predict_proba(other), classifier.predict_proba(rows))
    with pytest.raises(ValueError, match="city"):
        classifier.predict([{k: v for k, v in row.items() if k != "city"} for row in rows])


def test_a_file_keeps_everything(classifier, tmp_path):
    rows, labels = people(seed=4)
    classifier.save(tmp_path / "people.cmlp")
    again = cmlp.load(tmp_path / "people.cmlp")
    np.testing.assert_array_equal(again.predict_proba(rows), classifier.predict_proba(rows))
    assert again.score(rows, labels) == classifier.score(rows, labels)


def test_diagnose_takes_the_table(classifier):
    report = classifier.diagnose(*people())
    assert type(report) is cmlp.Diagnosis and str(report)


def test_numbers_with_rows_to_validate_on():
    rows, _ = people()
    y = np.array([(row["age"] or 45) / 10 + 3 * row["member"] for row in rows])
    model = cmlp.TabularRegressor(**SMALL | {"cv": None, "max_iter": 30})
    model.fit(rows[:150], y[:150], X_val=rows[150:], y_val=y[150:])
    assert model.score(rows, y) > 0.5 and model.validation_score_ is not None
    assert model.predict(rows).min() >= y[:150].min() - 1e-4
