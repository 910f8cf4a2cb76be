"""Programs of others that run cmlp's estimators on Dask, as they are."""

import numpy as np
import pytest
from dask_processes import waves

import cmlp

distributed = pytest.importorskip("distributed", minversion="2025.1")
da = pytest.importorskip("dask.array")


X, Y = waves(1_000)


def classifier(**more):
    return cmlp.MLPClassifier((8,), max_iter=5, random_state=0, **more)


def test_grid_search_with_joblib(client):
    joblib = pytest.importorskip("joblib")
    search = pytest.importorskip("sklearn.model_selection")
    grid = {"alpha": [1e-4, 1e-2], "learning_rate_init": [0.001, 0.03]}
    with joblib.parallel_config("dask"):
        there = search.GridSearchCV(classifier(), grid, cv=2).fit(X, Y)
    here = search.GridSearchCV(classifier(), grid, cv=2).fit(X, Y)
    np.testing.assert_array_equal(
        there.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"]
    )


def test_incremental_of_dask_ml(client):
    wrappers = pytest.importorskip("dask_ml.wrappers")
    A, b = da.from_array(X, chunks=(250, 8)), da.from_array(Y, chunks=250)
    model = wrappers.Incremental(classifier(learning_rate_init=0.05)).fit(A, b, classes=[0, 1, 2])
    for _ in range(10):
        model.partial_fit(A, b, classes=[0, 1, 2])
    assert (model.predict(A).compute() == Y).mean() > 0.8


def test_hyperband_of_dask_ml(client):
    search = pytest.importorskip("dask_ml.model_selection")
    A, b = da.from_array(X, chunks=(250, 8)), da.from_array(Y, chunks=250)
    found = search.HyperbandSearchCV(
        classifier(), {"learning_rate_init": [0.001, 0.01, 0.05, 0.1]}, max_iter=9, random_state=0
    )
    try:
        found.fit(A, b, classes=[0, 1, 2])
    except RuntimeError as error:
        if "asynchronous Client" not in str(error):
            raise
        pytest.skip(f"dask-ml does not fit this Dask: {error}")
    assert found.best_score_ > 0.7
