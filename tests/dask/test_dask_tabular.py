"""Tabular estimators on Dask: one reading, and the same result for any number of workers."""

import signal

import numpy as np
import pytest

import cmlp
from cmlp.estimators.storage import Storage
from cmlp.estimators.tabular.sources import StreamedFit

distributed = pytest.importorskip("distributed", minversion="2025.1")
dd = pytest.importorskip("dask.dataframe")
pd = pytest.importorskip("pandas")

WORKERS = 4
N = 3_000
HOW = {"max_iter": 6, "hidden_layer_sizes": 8, "random_state": 0, "dtype": "float64"}


def table(n=N):
    """Return trips: a city of which some are rare, a distance with gaps, a date, a fare."""
    rng = np.random.default_rng(0)
    city, distance = rng.integers(0, 9, n), rng.normal(size=n)
    city[rng.choice(n, 60, replace=False)] = 9 + np.arange(60) % 3
    seconds = pd.to_timedelta(rng.integers(0, 10**7, n), unit="s")
    found = pd.DataFrame({
        "city": [f"city {number}" for number in city],
        "distance": np.where(rng.random(n) < 0.02, np.nan, distance),
        "when": pd.Timestamp("2026-01-01") + seconds,
    })  # fmt: skip
    return found, distance + city % 3


X, FARE = table()
FAR = np.where(FARE > 1, "far", "near")
LAZY = {name: X[name] for name in X}


@pytest.fixture(scope="module")
def trips(tmp_path_factory):
    """Write the trips to seven files, and return them as a source."""
    folder = tmp_path_factory.mktemp("trips")
    for i, rows in enumerate(np.array_split(np.arange(N), 7)):
        X.assign(fare=FARE).iloc[rows].to_parquet(folder / f"{i}.parquet", index=False)
    return cmlp.data.parquet(folder / "*.parquet", "fare")


def test_any_number_of_workers_learns_what_one_machine_does(client, trips):
    """Without dropout, and in one batch, the order of the rows, which is another, plays no part.

    All of one machine's windows is one window then, and only sums are rounded in other ways: those
    of n rows by n * 2^-53 at most, relative to the largest of their terms, and by its root as a
    rule. Adam divides a gradient by its size, so that of a gradient near zero the error is not
    small against it; ten times the root of n bounds what six steps make of it.
    """
    close = 10 * np.sqrt(N) * 2.0**-53 * 6 * 10
    how = HOW | {"batch_size": N, "dropout": 0.0, "learning_rate": "constant"}
    here = cmlp.TabularRegressor(**how)
    StreamedFit(here, trips, Storage()).run()
    X_here = here.encoder_.transform(X)
    for n in (1, 2, 4):
        there = cmlp.dask.DaskTabularRegressor(**how, workers=n, timeout=30).fit(trips)
        assert there.column_kinds_ == ["category", "number", "date"]
        np.testing.assert_array_equal(there.encoder_.transform(X), X_here)
        for name, value in vars(here._members[0].scale).items():
            np.testing.assert_array_equal(getattr(there._members[0].scale, name), value)
        np.testing.assert_allclose(
            there.network_.params, here.network_.params, rtol=close, atol=close
        )
        for name in ("loss", "val_loss", "val_score"):
            np.testing.assert_allclose(there.history_[name], here.history_[name], rtol=close)
        assert there.best_iteration_ == here.best_iteration_
    assert type(there.to_local()) is cmlp.TabularRegressor
    np.testing.assert_array_equal(there.predict(X), there.to_local().predict(X))


def test_workers_lost_or_not_dropout_and_batches_give_the_same(client, processes, trips):
    models = []
    for n in (1, 3):
        kill = lambda s, n=n: n == 3 and s.epoch == 2 and processes.kill(min(processes.workers))  # noqa: E731
        make = cmlp.dask.DaskTabularRegressor
        models.append(make(**HOW, n_ensemble=2, workers=n, timeout=10, callbacks=[kill]).fit(trips))
        assert len(models[-1].networks_) == 2
    for one, other in zip(*(model.networks_ for model in models), strict=True):
        np.testing.assert_allclose(one.params, other.params, rtol=1e-9, atol=1e-9)


def frame(parts=6, **more):
    return dd.from_pandas(X.assign(**more), npartitions=parts)


def test_frames_with_text_gaps_dates_and_levels_that_some_partitions_have(client):
    """A rare city is sorted into one partition; categories are not known, and differ."""
    far = X.assign(far=FAR).sort_values("city")
    far["city"] = far["city"].astype("category")
    by_parts = [
        part.assign(city=part["city"].cat.remove_unused_categories())
        for part in (far.iloc[start : start + 500] for start in range(0, N, 500))
    ]
    lazy = dd.from_delayed(
        [distributed.get_client().submit(lambda part: part, part) for part in by_parts],
        meta=far.iloc[:0].assign(city=far["city"].iloc[:0].cat.set_categories([])),
        verify_meta=False,
    )
    model = cmlp.dask.DaskTabularClassifier(**HOW | {"dtype": "float32"}, class_weight="balanced")
    assert model.fit(lazy, "far") is model
    assert len(model.categories_[0]) == 12 and model.classes_.tolist() == ["far", "near"]
    assert model.n_features_in_ == 3 and list(model.feature_names_in_) == list(X)
    local, rows = model.to_local(), lazy.drop(columns="far")
    assert type(local) is cmlp.TabularClassifier
    plain = rows.compute()
    for what in ("predict", "predict_proba"):
        lazy_answers = getattr(model, what)(rows)
        assert hasattr(lazy_answers, "dask")
        np.testing.assert_array_equal(lazy_answers.compute(), getattr(local, what)(plain))
    y = lazy["far"].compute()
    assert model.score(lazy, "far") == model.score(rows, lazy["far"]) == local.score(plain, y) > 0.6
    unknown = plain.assign(city="nowhere")
    np.testing.assert_array_equal(
        model.predict_proba(dd.from_pandas(unknown, npartitions=2, sort=False)).compute(),
        local.predict_proba(unknown),
    )


def test_arrays_weights_and_files(client, tmp_path):
    da = pytest.importorskip("dask.array")
    A = np.column_stack([X["distance"], FARE])
    lazy, y = da.from_array(A, chunks=(400, 2)), da.from_array(FARE, chunks=400)
    weight = da.from_array(np.ones(N), chunks=400)
    model = cmlp.dask.DaskTabularRegressor(**HOW, early_stopping=False).fit(lazy, y, weight)
    assert abs(model.score(lazy, y, weight) - model.score(A, FARE)) < 1e-12
    assert "val_loss" not in model.history_ and model.score(A, FARE) > 0.5
    sent = cmlp.dask.DaskTabularRegressor(**HOW | {"max_iter": 1}, early_stopping=False)
    sent.fit(A, FARE)
    np.testing.assert_array_equal(sent.encoder_.transform(A), model.encoder_.transform(A))
    with pytest.raises(ValueError, match="no checkpoints"):
        sent.fit(lazy, y, checkpoint=tmp_path / "run.cmlp")
    model.save(tmp_path / "model.cmlp")
    np.testing.assert_array_equal(cmlp.load(tmp_path / "model.cmlp").predict(A), model.predict(A))


def test_it_stops_as_one_machine_does(client):
    how = HOW | {"max_iter": 60, "n_iter_no_change": 1, "learning_rate_init": 0.3}
    model = cmlp.dask.DaskTabularClassifier(**how).fit(frame(far=FAR), "far")
    scores = model.history_["val_score"]
    assert model.history_.stopped == "patience" and len(scores) < 60
    assert model.best_iteration_ == 1 + int(np.argmax(scores))
    assert model.validation_score_ == max(scores)


def test_what_cannot_be_is_refused(client, trips):
    make = cmlp.dask.DaskTabularRegressor
    stream = cmlp.data.batches(lambda: iter([(np.zeros((3, 2)), np.zeros(3))]))
    for how, data, error, said in (
        ({}, (X, FARE), TypeError, "from_pandas"),
        ({}, (trips, FARE), TypeError, "its own targets"),
        ({}, (stream,), TypeError, "a stream has no blocks"),
        ({"cv": 3}, (trips,), ValueError, "cv needs all rows"),
        ({"scoring": "max_error"}, (trips,), ValueError, "scoring must be"),
        ({"missing_targets": True}, (frame(fare=FARE), "fare"), ValueError, "dropna"),
        ({"max_iter": 0}, (trips,), ValueError, "max_iter"),
    ):
        with pytest.raises(error, match=said):
            make(**HOW | how).fit(*data)


def test_estimator_conventions(client):
    base = pytest.importorskip("sklearn.base")
    model = cmlp.dask.DaskTabularRegressor(loss="huber", client=client, retries=7)
    copy = base.clone(model)
    assert copy.retries == 7 and copy.get_params()["loss"] == "huber"
    assert base.is_regressor(copy) and "client" not in copy.get_params()
    with pytest.raises(ValueError, match="not fitted"):
        copy.predict(X)


def test_a_stopped_worker_does_not_hold_the_reading_up(client, processes, trips, monkeypatch):
    monkeypatch.setattr("cmlp.dask.reports.LIMIT", 2.0)
    monkeypatch.setattr("cmlp.sources.survey.GROUP", 1)  # a task for each file
    name = max(processes.workers)
    processes.signal(name, signal.SIGSTOP)
    try:
        model = cmlp.dask.DaskTabularRegressor(**HOW, timeout=3).fit(trips)
    finally:
        processes.signal(name, signal.SIGCONT)
    assert model.score(X, FARE) > 0.3
