"""Tables in, predictions out: the tabular estimators on mixed columns, whatever holds them."""

import copy
import pickle
import threading
import time
import warnings

import numpy as np
import pytest
from helpers import python_output, refused

import cmlp
from cmlp import TabularClassifier, TabularRegressor

pd = pytest.importorskip("pandas")
QUICK = {
    "hidden_layer_sizes": (32, 32), "max_iter": 20, "learning_rate_init": 0.01, "cv": None,
    "random_state": 0, "n_threads": 1,
}  # fmt: skip


def mixed(n=600, seed=0, gaps=0.1):
    """A table of numbers, text, categories, dates, truth values and gaps, and what it decides."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=n)
    city = rng.choice(["Bern", "Oslo", "Rome"], n)
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365, n), "D")
    member = rng.random(n) < 0.5
    signal = level + 2.0 * (city == "Oslo") - 1.5 * member
    frame = pd.DataFrame(
        {
            "level": level,
            "city": city,
            "day": day,
            "member": member,
            "grade": pd.Categorical(rng.choice(["low", "high"], n)),
            "noise": rng.normal(size=n),
            "one": 1,
        }
    )
    frame.loc[rng.random(n) < gaps, "noise"] = np.nan
    frame.loc[rng.random(n) < gaps, "grade"] = None
    return frame, signal


@pytest.fixture(scope="module")
def table():
    return mixed()


@pytest.fixture(scope="module")
def labelled(table):
    X, signal = table
    return X, np.where(signal > 0, "yes", "no")


@pytest.fixture(scope="module")
def classifier(labelled):
    return TabularClassifier(**QUICK).fit(*labelled)


@pytest.fixture(scope="module")
def regressor(table):
    return TabularRegressor(**QUICK).fit(*table)


# Learning ----------------------------------------------------------------------------------------


def test_a_mixed_table_is_learned(classifier, regressor):
    """Far above what the numbers alone allow: the signal needs the city and the truth value."""
    X, signal = mixed(seed=1)
    assert classifier.score(X, np.where(signal > 0, "yes", "no")) > 0.9
    assert regressor.score(X, signal) > 0.9
    numbers = TabularClassifier(**QUICK).fit(*(mixed()[0][["level"]], mixed()[1] > 0))
    assert numbers.score(X[["level"]], signal > 0) < 0.87


def test_what_was_decided_about_columns(classifier, labelled):
    assert classifier.feature_names_in_.tolist() == list(labelled[0])
    assert classifier.n_features_in_ == 7
    kinds = dict(zip(labelled[0], classifier.column_kinds_, strict=True))
    assert kinds == {
        "level": "number", "city": "category", "day": "date", "member": "bool",
        "grade": "category", "noise": "number", "one": "constant",
    }  # fmt: skip
    assert classifier.is_categorical_.tolist() == [False, True, False, True, True, False, False]
    assert classifier.categories_[1].tolist() == ["Bern", "Oslo", "Rome"]


def test_what_a_fit_leaves(classifier, labelled):
    assert classifier.classes_.tolist() == ["no", "yes"]
    assert classifier.n_iter_ == 20 and 1 <= classifier.best_iteration_ <= 20
    scores = classifier.history_["val_score"]
    assert classifier.validation_score_ == max(scores)
    last = len(scores) - scores[::-1].index(max(scores))  # the latest of equals
    assert classifier.best_iteration_ == classifier.history_.best_epoch == last
    assert classifier.history_.metric == "neg_loss"
    assert classifier.network_ is classifier.networks_[0]
    assert classifier.parameters_["max_iter"] == 20 and classifier.parameters_["dropout"] == 0.2
    found = classifier.diagnose(*labelled)
    assert "16-32-32-2" in found.looked_at  # places among knots are no numbers without a scale
    assert not {"unscaled-inputs", "outliers"} & {finding.code for finding in found.findings}


def test_probabilities_and_the_rest_agree(classifier, labelled):
    X, y = labelled
    proba = classifier.predict_proba(X)
    assert proba.shape == (600, 2) and proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-15)
    assert (classifier.predict(X) == classifier.classes_[proba.argmax(axis=1)]).all()
    np.testing.assert_allclose(np.exp(classifier.predict_log_proba(X)), proba)
    odds = classifier.decision_function(X)
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), proba[:, 1], atol=1e-6)
    assert classifier.score(X, y) == np.mean(classifier.predict(X) == y)


def test_the_hidden_layer(classifier, labelled):
    units = classifier.transform(labelled[0])
    assert units.shape == (600, 32)
    assert classifier.get_feature_names_out()[[0, -1]].tolist() == [
        "tabularclassifier0", "tabularclassifier31",
    ]  # fmt: skip
    net = classifier.network_
    proba = units.astype(np.float64) @ net.weights[-1] + net.biases[-1]
    expected = classifier.decision_function(labelled[0])
    np.testing.assert_allclose(proba[:, 1] - proba[:, 0], expected, atol=1e-5)
    with refused(ValueError, "layer=2"):
        classifier.transform(labelled[0], layer=2)


def test_more_than_two_classes_and_one():
    X, signal = mixed()
    y = np.digitize(signal, [-1, 1])
    model = TabularClassifier(**QUICK).fit(X, y)
    assert model.predict_proba(X).shape == (600, 3) and model.score(X, y) > 0.85
    assert model.decision_function(X).shape == (600, 3)
    one = TabularClassifier(**QUICK).fit(X[:30], ["a"] * 30)
    assert one.predict(X[:3]).tolist() == ["a"] * 3 and (one.predict_proba(X) == 1).all()


def test_several_labels_per_row(table):
    X, signal = table
    Y = np.column_stack([signal > 0, X["member"], X["city"] == "Rome"]).astype(int)
    model = TabularClassifier(**QUICK).fit(X, Y)
    assert model.predict_proba(X).shape == (600, 3)
    assert (model.predict(X) == Y).mean() > 0.95
    assert model.predictor()(X.iloc[0].to_dict()) == model.predict(X[:1])[0].tolist()


def test_digits_as_plain_numbers():
    digits = cmlp.load_digits()
    model = TabularClassifier(**QUICK).fit(digits.X_train, digits.y_train)
    assert model.score(digits.X_test, digits.y_test) > 0.9
    assert not hasattr(model, "feature_names_in_")


def test_several_targets(table):
    X, signal = table
    Y = np.column_stack([signal * 1000 + 5000, signal / 1000])
    model = TabularRegressor(**QUICK).fit(X, Y)
    predicted = model.predict(X)
    assert predicted.shape == (600, 2) and model.score(X, Y) > 0.9
    assert model.predictor()(X.iloc[3].to_dict()) == pytest.approx(predicted[3].tolist(), rel=1e-6)
    Y[::2, 1] = np.nan
    Y[5] = np.nan
    gaps = TabularRegressor(**QUICK, missing_targets=True).fit(X, Y)
    assert gaps.score(X, Y) > 0.85
    with refused(ValueError, "row 0"):
        TabularRegressor(**QUICK).fit(X, Y)


def test_predictions_stay_in_the_range_of_the_targets(regressor, table):
    X, signal = table
    far = X.assign(level=1e6)
    assert regressor.predict(far).max() <= signal.max()


@pytest.mark.parametrize("quantile", [0.1, 0.9])
def test_quantiles_cover_their_part(quantile):
    """Of 3,000 new rows, within five standard errors and what 1,600 rows teach."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 2))
    y = X[:, 0] + rng.normal(size=5000) * (1 + np.abs(X[:, 1]))
    model = TabularRegressor(**QUICK, loss="quantile", quantile=quantile).fit(X[:2000], y[:2000])
    assert np.mean(y[2000:] <= model.predict(X[2000:])) == pytest.approx(quantile, abs=0.06)


def test_absolute_error_ignores_outliers(table):
    X, signal = table
    y = signal.copy()
    y[::20] += 500  # the mean moves by 25
    model = TabularRegressor(**QUICK, loss="absolute_error").fit(X, y)
    assert abs(np.median(model.predict(X) - signal)) < 1


def test_counts(table):
    X, signal = table
    y = np.random.default_rng(0).poisson(np.exp(signal / 2))
    model = TabularRegressor(**QUICK, loss="poisson").fit(X, y)
    assert model.predict(X).min() >= 0 and model.score(X, y) > 0.2
    with refused(ValueError, "at least 0"):
        TabularRegressor(**QUICK, loss="poisson").fit(X, y - 100)


# Weights -----------------------------------------------------------------------------------------


def test_rows_without_weight_teach_nothing(labelled):
    """Their labels are wrong, and three of four rows have them."""
    X, y = labelled
    wrong = np.arange(600) % 4 > 0
    noisy = np.where(wrong, "no", y)
    weighted = TabularClassifier(**QUICK).fit(X, noisy, sample_weight=~wrong * 1.0)
    plain = TabularClassifier(**QUICK).fit(X, noisy)
    assert weighted.score(X, y) > 0.85 > plain.score(X, y)


def test_class_weights_move_the_border(table):
    X, signal = table
    y = signal + np.random.default_rng(0).normal(size=600) > 2.5
    plain = TabularClassifier(**QUICK).fit(X, y).predict(X).sum()
    for weight in ("balanced", {True: 8.0}):
        assert TabularClassifier(**QUICK, class_weight=weight).fit(X, y).predict(X).sum() > plain
    with refused(ValueError, "class_weight"):
        TabularClassifier(**QUICK, class_weight={"x": 1}).fit(X, y)


# Validation --------------------------------------------------------------------------------------


def test_given_rows_decide(labelled):
    X, y = labelled
    turned = np.where(y == "yes", "no", "yes")
    model = TabularClassifier(**QUICK).fit(X, y, X_val=X[:100], y_val=turned[:100])
    assert model.best_iteration_ < 4  # the less it has learned, the better
    with refused(ValueError, "X_val and y_val"):
        TabularClassifier(**QUICK).fit(X, y, X_val=X)
    with refused(ValueError, "not both"):
        TabularClassifier(**QUICK | {"cv": 2}).fit(X, y, X_val=X, y_val=y)
    with pytest.raises(ValueError) as caught:
        TabularClassifier(**QUICK).fit(X, y, X_val=X, y_val=["maybe"] * 600)
    assert "X_val" in caught.value.__notes__[0]


def test_without_validation_all_rows_train(labelled):
    model = TabularClassifier(**QUICK, early_stopping=False).fit(*labelled)
    assert "val_score" not in model.history_ and model.validation_score_ is None
    assert model.best_iteration_ == 20 and model.score(*labelled) > 0.9


def test_held_out_rows_do_not_touch_the_statistics(table):
    """One row in the validation part with a number out of all range changes no scale."""
    X, signal = table
    model = TabularRegressor(**QUICK).fit(X[:500], signal[:500], X_val=X[500:], y_val=signal[500:])
    strange = X.copy()
    strange.loc[550, "level"] = 1e30
    again = TabularRegressor(**QUICK).fit(
        strange[:500], signal[:500], X_val=strange[500:], y_val=signal[500:]
    )
    expected = model.encoder_.transform(X)
    np.testing.assert_array_equal(again.encoder_.transform(X), expected)


@pytest.mark.parametrize("scoring", ["accuracy", "loss"])
def test_scoring_decides_which_epoch_is_the_best(labelled, scoring):
    model = TabularClassifier(**QUICK, scoring=scoring).fit(*labelled)
    assert model.history_.metric == {"accuracy": "accuracy", "loss": "neg_loss"}[scoring]
    if scoring == "loss":
        np.testing.assert_array_equal(
            model.history_["val_score"], -np.array(model.history_["val_loss"])
        )


def test_a_scorer_of_ones_own(labelled):
    """It gets an estimator that predicts encoded rows, and labels as they were passed."""
    seen = []

    def scorer(estimator, X, y):
        seen.append((type(estimator), X.shape, set(y), estimator.predict_proba(X).shape))
        return float(np.mean(estimator.predict(X) == y))

    model = TabularClassifier(**QUICK, scoring=scorer).fit(*labelled)
    plain = TabularClassifier(**QUICK, scoring="accuracy").fit(*labelled)
    assert seen[0] == (TabularClassifier, (120, len(model.encoder_.outputs_)), {"yes", "no"},
                       (120, 2))  # fmt: skip
    np.testing.assert_allclose(model.history_["val_score"], plain.history_["val_score"])


def test_a_scorer_sees_numbers_in_their_units(table):
    X, signal = table

    def scorer(estimator, X, y):
        return -float(np.abs(estimator.predict(X) - y).mean())

    model = TabularRegressor(**QUICK | {"cv": 2}, scoring=scorer).fit(X, signal * 100 + 1e4)
    assert -40 < model.validation_score_ < -1


def test_patience_ends_a_training(labelled):
    model = TabularClassifier(**QUICK | {"max_iter": 200}, n_iter_no_change=3).fit(*labelled)
    assert model.n_iter_ == max(model.best_iteration_ + 4, 14)  # the first cycle has 200 / 15
    assert model.history_.stopped == "patience"
    early = TabularClassifier(
        **QUICK | {"max_iter": 200}, n_iter_no_change=1, learning_rate="constant"
    ).fit(*labelled)
    assert early.n_iter_ == early.best_iteration_ + 2 < 200


# Members -----------------------------------------------------------------------------------------


def test_members_are_independent_of_threads(labelled, threads_at_any_size):
    X, y = labelled
    few = QUICK | {"max_iter": 4}
    for more in ({"n_ensemble": 3}, {"cv": 3}, {"cv": 2, "n_ensemble": 2}, {}):
        results = [
            TabularClassifier(**few | more | {"n_threads": n}).fit(X, y).predict_proba(X)
            for n in (1, 2, 3)
        ]
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])


def test_members_answer_by_their_mean(labelled):
    X, y = labelled
    model = TabularClassifier(**QUICK | {"max_iter": 4, "n_ensemble": 2, "cv": 2}).fit(X, y)
    assert len(model.networks_) == len(model.best_iteration_) == 4
    rows = model.encoder_.transform(X)
    mean = np.mean([net.predict(rows).astype(float) for net in model.networks_], axis=0)
    np.testing.assert_allclose(model.predict_proba(X), mean, rtol=1e-6)
    assert model.transform(X).shape == (600, 4 * 32)
    assert len(model.get_feature_names_out()) == 128
    firsts = [net.params[0] for net in model.networks_]
    assert len(set(firsts)) == 4


def test_folds_hold_out_every_row_once(labelled):
    X, y = labelled
    seen = []

    def scorer(estimator, X, y):
        seen.append(len(y))
        return 0.0

    TabularClassifier(**QUICK | {"max_iter": 1, "cv": 4}, scoring=scorer).fit(X, y)
    assert sum(seen) == len(X) and max(seen) - min(seen) <= 1


def test_folds_of_ones_own(table):
    X, signal = table
    past, later = np.arange(400), np.arange(400, 600)
    model = TabularRegressor(**QUICK | {"cv": [(past, later)]}).fit(X, signal)
    assert len(model.networks_) == 1 and model.score(X, signal) > 0.8
    by_hand = TabularRegressor(**QUICK).fit(
        X[:400], signal[:400], X_val=X[400:], y_val=signal[400:]
    )
    columns = [each.encoder_.to_entries()[0]["columns"] for each in (model, by_hand)]
    assert columns[0] == columns[1]
    with refused(ValueError, "fold 0", "row numbers"):
        TabularRegressor(**QUICK | {"cv": [([0, 600], [1])]}).fit(X, signal)


@pytest.mark.parametrize("gap", [0, 250, 450])
def test_folds_of_ones_own_count_all_rows(table, gap):
    """Rows that are left out for their missing target do not shift the row numbers of folds."""
    X, signal = table
    holes = signal.copy()
    holes[gap] = np.nan
    few = QUICK | {"max_iter": 2}
    past, later = np.arange(400), np.arange(400, 600)
    model = TabularRegressor(**few | {"cv": [(past, later)]}, missing_targets=True).fit(X, holes)
    kept = np.delete(np.arange(600), gap)
    at = np.searchsorted(kept, 400)
    pairs = [(np.arange(at), np.arange(at, 599))]
    expected = TabularRegressor(**few | {"cv": pairs}).fit(X.iloc[kept], signal[kept])
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    with refused(ValueError, "between 0 and 599"):
        TabularRegressor(**few | {"cv": [([1, 2], [600])]}, missing_targets=True).fit(X, holes)


def test_a_splitter_is_refused_with_what_to_pass(labelled):
    class Splitter:
        def split(self, X, y=None):
            yield [0], [1]

    with refused(ValueError, "cv.split(X, y)"):
        TabularClassifier(**QUICK | {"cv": Splitter()}).fit(*labelled)


def test_no_hidden_layer(labelled):
    """Logistic regression of encoded columns: there is no dropout without a hidden layer."""
    linear = QUICK | {"hidden_layer_sizes": ()}
    model = TabularClassifier(**linear).fit(*labelled)
    assert len(model.network_.sizes) == 2 and model.score(*labelled) > 0.75
    with refused(ValueError, "dropout"):
        TabularClassifier(**linear, dropout=0.2).fit(*labelled)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_targets_of_any_magnitude(table, scale):
    """A power of two next to `scale` changes predictions by itself, to the bit."""
    X, signal = table
    unit = 2.0 ** round(np.log2(scale))
    few = QUICK | {"max_iter": 3}
    plain = TabularRegressor(**few).fit(X, signal).predict(X)
    np.testing.assert_array_equal(TabularRegressor(**few).fit(X, signal * unit).predict(X),
                                  plain * unit)  # fmt: skip


@pytest.mark.parametrize("scoring", ["accuracy", "roc_auc", "neg_log_loss"])
def test_a_metric_of_labels_is_refused_for_numbers(table, scoring):
    pytest.importorskip("sklearn")
    with refused(ValueError, f"scoring='{scoring}' is not for these targets"):
        TabularRegressor(**QUICK | {"max_iter": 1}, scoring=scoring).fit(*table)


def test_random_state(labelled, engine):
    X, y = labelled
    few = QUICK | {"max_iter": 3}
    same = [TabularClassifier(**few).fit(X, y).predict_proba(X) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    other = TabularClassifier(**few | {"random_state": 1}).fit(X, y).predict_proba(X)
    assert (same[0] != other).any()


def test_max_time_is_kept_by_all_members_together(labelled):
    """Of trainings that would take far longer; and the schedule ends within the time."""
    more = {"max_iter": 100_000, "max_time": 1.5, "n_threads": 2}
    for members in ({}, {"n_ensemble": 5}):
        began = time.perf_counter()
        model = TabularClassifier(**QUICK | more | members).fit(*labelled)
        assert time.perf_counter() - began < 2.5
        assert len(model.networks_) == members.get("n_ensemble", 1)
        assert 0 < model.n_iter_ < 100_000
    assert model.score(*labelled) > 0.8


def test_ctrl_c_keeps_what_is_trained(labelled):
    X, y = labelled

    def interrupt(state):
        if state.epoch == 3:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        model = TabularClassifier(**QUICK, callbacks=[interrupt]).fit(X, y)
    assert model.n_iter_ == 3 and model.history_.stopped == "interrupted"
    assert model.predict(X).shape == (600,)


def test_callbacks_are_called_by_each_member(labelled):
    seen = []
    TabularClassifier(
        **QUICK | {"max_iter": 2, "n_threads": 2}, n_ensemble=2,
        callbacks=[lambda state: seen.append((threading.get_ident(), state.epoch)) and None],
    ).fit(*labelled)  # fmt: skip
    assert sorted(epoch for _, epoch in seen) == [1, 1, 2, 2]


def test_members_that_diverge_are_left_out(table):
    X, signal = table

    class Break:
        """A NaN in the weights of the member that comes first."""

        broken = None
        lock = threading.Lock()

        def on_epoch_end(self, state):
            with self.lock:
                self.broken = self.broken or state.network
            if state.network is self.broken:
                state.network.params[0] = np.nan

    more = {"early_stopping": False, "max_iter": 3}
    with pytest.warns(cmlp.ConvergenceWarning, match="1 of 2 members diverged"):
        model = TabularRegressor(
            **QUICK | more, n_ensemble=2, callbacks=[Break()]
        ).fit(X, signal)  # fmt: skip
    assert len(model.networks_) == 1 and np.isfinite(model.predict(X)).all()
    with pytest.raises(cmlp.DivergenceError):
        TabularRegressor(**QUICK | more, callbacks=[Break()]).fit(X, signal)


def test_verbose_shows_members(labelled, capsys):
    TabularClassifier(**QUICK | {"max_iter": 2}, n_ensemble=2, verbose=1).fit(*labelled)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("networks_[0]: 2 epochs, the best ")
    TabularClassifier(**QUICK | {"max_iter": 2}, verbose=2).fit(*labelled)
    assert len(capsys.readouterr().out.splitlines()) == 2


# Tables ------------------------------------------------------------------------------------------


def test_any_container_gives_the_same_bits(classifier, labelled):
    X, _ = labelled
    expected = classifier.predict_proba(X)
    shuffled = X[list(X)[::-1]].assign(extra=1)
    records = X.astype(object).where(X.notna(), None).to_dict("records")
    forms = [shuffled, records, {name: X[name] for name in X}]
    if pl := pytest.importorskip("polars"):
        forms.append(pl.from_pandas(X))
    if pa := pytest.importorskip("pyarrow"):
        forms.append(pa.Table.from_pandas(X))
    for form in forms:
        np.testing.assert_array_equal(classifier.predict_proba(form), expected)
    assert (classifier.predict_proba(X[:7]) == classifier.predict_proba(records[:7])).all()


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_fit_from_other_libraries(library, labelled):
    module = pytest.importorskip(library)
    X, y = labelled
    expected = TabularClassifier(**QUICK | {"max_iter": 3}).fit(X, y)
    form = module.from_pandas(X) if library == "polars" else module.Table.from_pandas(X)
    targets = module.Series(y.tolist()) if library == "polars" else module.array(y.tolist())
    model = TabularClassifier(**QUICK | {"max_iter": 3}).fit(form, targets)
    np.testing.assert_array_equal(model.predict_proba(form), expected.predict_proba(X))


def test_unseen_levels_are_as_missing_ones(classifier, labelled):
    X, _ = labelled
    unseen, missing = X[:5].assign(city="Lima"), X[:5].assign(city=None)
    np.testing.assert_array_equal(
        classifier.predict_proba(unseen), classifier.predict_proba(missing)
    )


def test_missing_columns_are_named(classifier, labelled):
    with refused(ValueError, "city", "TabularClassifier"):
        classifier.predict(labelled[0].drop(columns="city"))


def test_sparse_rows():
    sparse = pytest.importorskip("scipy.sparse")
    X = sparse.random(500, 40, 0.2, random_state=0, format="csr")
    y = (X.toarray()[:, 0] > 0).astype(int)
    model = TabularClassifier(**QUICK).fit(X, y)
    assert model.score(X, y) > 0.95
    np.testing.assert_array_equal(model.predict(X), model.predict(X.toarray()))
    folds = TabularClassifier(**QUICK | {"cv": 2}).fit(X, y)
    assert folds.score(X, y) > 0.9


def test_very_small_tables():
    one = TabularRegressor(max_iter=2).fit([{"a": 1.0, "b": "x"}], [2.0])
    assert one.predict([{"a": 3.0, "b": "y"}]).tolist() == [2.0]
    two = TabularClassifier(max_iter=2).fit([[1.0], [2.0]], ["a", "b"])
    assert two.predict([[1.0], [2.0]]).shape == (2,)
    constant = TabularClassifier(max_iter=2).fit([[1.0]] * 10, ["a", "b"] * 5)
    assert constant.predict_proba([[5.0]]).shape == (1, 2)


# One row -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [{}, {"n_ensemble": 2}])
def test_one_row_is_answered_as_the_table(table, labelled, members):
    X, signal = table
    few = QUICK | {"max_iter": 3} | members
    classifies = TabularClassifier(**few).fit(*labelled)
    regresses = TabularRegressor(**few).fit(X, signal)
    expected, numbers = classifies.predict(X), regresses.predict(X)
    label_of, number_of = classifies.predictor(), regresses.predictor()
    for place in (0, 1, 17):
        row = X.iloc[place].to_dict()
        assert label_of(row) == label_of(tuple(row.values())) == expected[place]
        assert type(label_of(row)) is str and type(number_of(row)) is float
        assert number_of(row) == pytest.approx(numbers[place], rel=1e-5, abs=1e-6)


# Targets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda y: y.tolist(),
        lambda y: np.array(y, object),
        lambda y: pd.Series(y, dtype="string"),
        lambda y: pd.Series(pd.Categorical(y)),
        lambda y: pd.Series(y, index=np.arange(len(y)) + 7),
    ],
)
def test_labels_of_any_kind(labelled, make):
    X, y = labelled
    model = TabularClassifier(**QUICK | {"max_iter": 2}).fit(X, make(y))
    assert model.classes_.tolist() == ["no", "yes"]
    assert set(model.predict(X)) <= {"no", "yes"}


def test_truth_values_are_labels(table):
    X, signal = table
    model = TabularClassifier(**QUICK | {"max_iter": 2}).fit(X, signal > 0)
    assert model.classes_.tolist() == [False, True]
    nullable = pd.Series(signal > 0, dtype="boolean")
    assert TabularClassifier(**QUICK | {"max_iter": 2}).fit(X, nullable).classes_.dtype == bool


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA])
def test_missing_targets_are_refused_with_their_row_or_left_out(labelled, table, gap):
    X, y = labelled
    holes = pd.Series(y, dtype=object)
    holes[[4, 9]] = gap
    few = QUICK | {"max_iter": 3}
    with refused(ValueError, "row 4", "missing_targets"):
        TabularClassifier(**few).fit(X, holes)
    with refused(ValueError, "row 4"):
        TabularClassifier(**few).fit(X, holes.tolist())
    left = TabularClassifier(**few, missing_targets=True).fit(X, holes, np.ones(600))
    kept = np.delete(np.arange(600), [4, 9])
    expected = TabularClassifier(**few).fit(X.iloc[kept], y[kept], np.ones(598))
    np.testing.assert_array_equal(left.predict_proba(X), expected.predict_proba(X))
    numbers = pd.Series(table[1]).astype("Float64")
    numbers[4] = gap
    with refused(ValueError, "row 4"):
        TabularRegressor(**few).fit(X, numbers)
    assert TabularRegressor(**few, missing_targets=True).fit(X, numbers).predict(X).shape == (600,)


def test_targets_that_cannot_be_learned(table):
    X, signal = table
    infinite = signal.copy()
    infinite[7] = np.inf
    with refused(ValueError, "infinity", "row 7"):
        TabularRegressor(**QUICK).fit(X, infinite)
    with refused(ValueError, "inconsistent", "599"):
        TabularRegressor(**QUICK).fit(X, signal[1:])
    with refused(ValueError, "y"):
        TabularRegressor(**QUICK).fit(X, None)
    with refused(ValueError, "missing"):
        TabularRegressor(**QUICK, missing_targets=True).fit(X, np.full(600, np.nan))
    with refused(ValueError, "continuous"):
        TabularClassifier(**QUICK).fit(X, signal)


# Estimators --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TabularClassifier, TabularRegressor])
def test_parameters_are_checked_when_they_are_used(kind):
    X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]
    wrong = {
        "hidden_layer_sizes": [0, -3, "wide", 1.5], "max_iter": [0, 1.5], "cv": [1, "five"],
        "n_ensemble": [0], "validation_fraction": [0, 1.0, "auto"], "dropout": [1.0, -1, "no"],
        "solver": ["lbfgs"], "scoring": [None, 3], "early_stopping": [1], "max_time": [-1],
        "learning_rate_init": [0], "learning_rate": ["zigzag"], "verbose": [-1],
        "max_categories": [0], "n_iter_no_change": [0], "dtype": ["int8"], "callbacks": [[1]],
        "activation": ["cube"], "n_threads": [0], "random_state": ["x"],
    }  # fmt: skip
    for name, values in wrong.items():
        for value in values:
            with pytest.raises((ValueError, TypeError)):
                kind(max_iter=1).set_params(**{name: value}).fit(X, y)


@pytest.mark.parametrize("kind", [TabularClassifier, TabularRegressor])
def test_get_params_has_what_the_constructor_takes(kind):
    model = kind(max_iter=3, cv=2)
    assert model.get_params()["cv"] == 2 and repr(model) == f"{kind.__name__}(cv=2, max_iter=3)"
    documented = TabularClassifier.__doc__ + kind.__doc__
    for name in model.get_params():
        assert name in documented, name


@pytest.mark.parametrize("kind", [TabularClassifier, TabularRegressor])
def test_before_a_fit(kind):
    for use in ("predict", "transform", "score"):
        with pytest.raises(cmlp.NotFittedError):
            getattr(kind(), use)(*[[[1.0]], [1]][: 1 + (use == "score")])
    with pytest.raises(cmlp.NotFittedError):
        kind().predictor()
    assert not hasattr(kind(), "network_") and not hasattr(kind(), "feature_names_in_")


def test_copies_predict_the_same_bits(classifier, regressor, table):
    for model in (classifier, regressor):
        expected = model.predict(table[0])
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
            np.testing.assert_array_equal(other.predict(table[0]), expected)
            assert other.get_params() == model.get_params()
            assert other.categories_[1].tolist() == ["Bern", "Oslo", "Rome"]


def test_a_failed_fit_leaves_the_model(table):
    X, signal = table
    model = TabularRegressor(**QUICK | {"max_iter": 2}).fit(X, signal)
    expected = model.predict(X)
    with pytest.raises(ValueError):
        model.fit(X, signal[1:])
    np.testing.assert_array_equal(model.predict(X), expected)


def test_a_fit_changes_no_warning_filter_and_no_global_generator(labelled):
    state = np.random.mtrand._rand.get_state()[1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TabularClassifier(**QUICK | {"max_iter": 2}).fit(*labelled)
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], state)


def test_import_loads_neither_estimators_nor_pandas():
    code = (
        "import sys, cmlp; "
        "print([m for m in sys.modules if 'tabular' in m or m in ('pandas', 'cmlp.tables.encode')])"
    )
    assert python_output("-c", code) == (0, "[]\n")
