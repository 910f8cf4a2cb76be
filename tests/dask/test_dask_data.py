"""Arrays and frames of Dask, estimators, lazy predictions, many networks."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from dask_processes import Processes, stored, waves

import cmlp
from cmlp.core import dispatch

distributed = pytest.importorskip("distributed", minversion="2025.1")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
pd = pytest.importorskip("pandas")


X, Y = waves(3_000)
NAMES = [f"c{i}" for i in range(8)]


def chunked(rows=500):
    return da.from_array(X, chunks=(rows, 8)), da.from_array(Y, chunks=rows)


def dask_of(function, dtype="f8"):
    """Return an array whose blocks a function makes, and which declares a dtype."""
    return chunked()[0].map_blocks(function, dtype=dtype, meta=np.empty((0, 0), dtype))


def frame(parts=5, labels=Y):
    return dd.from_pandas(pd.DataFrame(X, columns=NAMES).assign(y=labels), npartitions=parts)


def train(client, *data, net=None, **more):
    net = net or cmlp.Network([8, 16, 3], "tanh", dtype="float64", seed=1)
    how = {"epochs": 8, "batch_size": 64, "learning_rate": 0.05, "timeout": 10} | more
    cmlp.dask.train(client, net, *data, **how)
    return net


def test_any_kind_of_data_is_learned(client, tmp_path):
    weight = np.ones(3_000)
    rows = {"validation": (frame()[["y", *reversed(NAMES)]], "y")}  # columns in another order
    for data, more in (
        ((stored(tmp_path, X, Y),), {}),
        ((X, Y), {"sample_weight": weight}),
        (chunked(), {"sample_weight": da.from_array(weight, chunks=500)}),
        ((frame(), "y"), rows),
        ((frame()[NAMES], frame()["y"]), {}),
    ):
        net = train(client, *data, **more)
        assert net.score(X, Y) > 0.95
        assert more is not rows or net.history["val_score"][-1] == net.score(X, Y)


def test_one_and_two_workers_learn_the_same(client, tmp_path):
    source = stored(tmp_path, X, Y)
    nets = [train(client, source, workers=n, dropout=0.2, solver="adam") for n in (1, 2)]
    np.testing.assert_allclose(nets[0].params, nets[1].params, rtol=1e-9, atol=1e-11)


def test_labels_that_only_some_partitions_have(client):
    order = np.argsort(Y, kind="stable")
    A, b = da.from_array(X[order], chunks=(300, 8)), da.from_array(Y[order], chunks=300)
    net = train(client, A, b)
    assert net.classes.tolist() == [0, 1, 2] and net.score(X, Y) > 0.95


def test_a_lost_worker_of_collections(client, processes):
    """What can be computed again is; what was sent from here is sent again."""
    for data in (chunked(), (X, Y)):
        while len(processes.workers) < 2:
            processes.add()
        client.wait_for_workers(2, timeout=200)
        kill = lambda state: state.epoch == 2 and processes.kill(min(processes.workers))  # noqa: E731
        net = train(client, *data, callbacks=[lambda s, k=kill: k(s) and None])
        assert net.score(X, Y) > 0.95


def test_scattered_partitions_of_a_lost_worker_are_named(client, processes):
    delayed = pytest.importorskip("dask").delayed
    address = sorted(client.scheduler_info()["workers"])
    name = client.scheduler_info()["workers"][address[0]]["name"]
    parts = [client.scatter(X[i : i + 500], workers=[address[0]]) for i in range(0, 3000, 500)]
    A = da.concatenate([da.from_delayed(delayed(p), (500, 8), X.dtype) for p in parts])

    def kill(state):
        if state.epoch == 2:
            processes.kill(name)
            processes.add()

    with pytest.raises((cmlp.data.DataError, cmlp.dask.TrainingFailed)) as caught:
        train(client, A, da.from_array(Y, chunks=500), callbacks=[kill], retries=1, wait=10)
    del parts
    assert "lost" in str(caught.value)


def test_an_empty_worker_and_one_with_ten_times_the_rows(client):
    address = sorted(client.scheduler_info()["workers"])
    (A, b), (C, d) = chunked(), chunked(250)
    with_all = client.persist([A, b], workers=address[:1])
    assert train(client, *with_all).score(X, Y) > 0.95
    del with_all
    sizes = (2500, 125, 125, 125, 125)
    uneven = client.persist([A.rechunk((sizes, 8)), b.rechunk((sizes,))])
    assert train(client, *uneven).score(X, Y) > 0.95
    del C, d


def test_partitions_follow_each_other_as_ranks_do(client, monkeypatch):
    """Otherwise two workers exchange all that they have."""
    from cmlp.dask.cluster import Cluster
    from cmlp.dask.partitions import partitions_of

    cluster = Cluster(client)
    (A, b), order = client.persist(list(chunked())), list(cluster.members())
    distributed.wait([A, b])
    for ranks in (order, order[::-1]):
        monkeypatch.setattr(Cluster, "members", lambda self, ranks=ranks: dict.fromkeys(ranks))
        source = partitions_of(cluster, A, b)
        places = client.who_has([x for x, _, _ in source.futures])
        found = [places[x.key][0] for x, _, _ in source.futures]
        assert found == sorted(found, key=ranks.index) and set(found) == set(ranks)


@pytest.mark.parametrize(
    "data, said",
    [
        (lambda: (chunked()[0].rechunk((500, 4)), chunked()[1]), "rechunk({1: -1})"),
        (lambda: (chunked()[0], chunked(250)[1]), "rechunk({0: X.chunks[0]})"),
        (lambda: (chunked()[0][chunked()[0][:, 0] > 0], chunked()[1]), "compute_chunk_sizes"),
        (lambda: (chunked()[0], Y), "dask.array.from_array"),
        (lambda: (frame(), chunked()[1]), "to_dask_array(lengths=True)"),
        (lambda: (frame(), "no such"), "a column of X"),
        (lambda: (frame(), None), "a column of X"),
        (lambda: (frame().rename(columns={"c1": "c0"}), "y"), "the same name: ['c0']"),
        (lambda: (dask_of(lambda x: x, "int64"), chunked()[1]), "X holds float64, and its coll"),
        (lambda: (dask_of(lambda x: np.ma.masked_greater(x, 1)), chunked()[1]), "masked entries"),
        (lambda: (chunked()[0], chunked()[1].map_blocks(lambda y: y[1:])), "its y 499"),
        (lambda: (frame(labels=Y.astype(str)), "c0"), "get_dummies(X.categorize())"),
        (lambda: (frame().assign(k=frame()["y"].astype("category")), "y"), "categorize"),
    ],
)
def test_collections_that_cannot_be_used_name_what_repairs_them(client, data, said):
    import re

    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        train(client, *data())


def test_estimators(client):
    clf = cmlp.dask.DaskMLPClassifier((16,), max_iter=30, random_state=0, timeout=10)
    A, b = chunked()
    assert clf.fit(A, b) is clf and clf.score(A, b) > 0.9
    lazy = clf.predict(A)
    assert lazy.chunks[0] == A.chunks[0]
    local = clf.to_local()
    assert type(local) is cmlp.MLPClassifier
    np.testing.assert_array_equal(lazy.compute(), local.predict(X))
    np.testing.assert_array_equal(clf.predict_proba(A).compute(), local.predict_proba(X))
    assert "client" not in clf.get_params() and clf.get_params()["timeout"] == 10
    assert clf.score(X, Y) == clf.score(A, b)
    for wrong, said in (
        (lambda y: np.repeat(y, 2), "its y 1000"),
        (lambda y: y.astype(str), "y holds"),
    ):
        with pytest.raises(ValueError, match=said):  # neither broadcast nor compared
            clf.score(A, b.map_blocks(wrong))
    nullable = frame()[NAMES].astype("Float64")
    assert (
        cmlp.dask.predict(client, clf.network_, nullable).compute() == clf.network_.predict(X)
    ).all(None)
    assert clf.predict(A[A[:, 0] > 99]).compute().shape == (0,)  # all of its blocks are empty
    lock = threading.Lock()  # which no worker could get
    reg = cmlp.dask.DaskMLPRegressor(
        hidden_layer_sizes=(16,), max_iter=30, learning_rate_init=0.01, random_state=0,
        early_stopping=True, callbacks=[lambda state: lock and None],
    )  # fmt: skip
    t = X[:, 0] + 2 * X[:, 1]
    reg.fit(A, da.from_array(t, chunks=500))
    assert reg.score(A, da.from_array(t, chunks=500)) > 0.9
    assert abs(reg.score(A, da.from_array(t, chunks=500)) - reg.score(X, t)) < 1e-6
    how = {"max_iter": 1, "random_state": 0, "dtype": "float64"}
    curves = [
        cmlp.dask.DaskMLPClassifier((16,), **how).fit(
            A, b, X_val=A[:n], y_val=b[:n], sample_weight_val=weight, coefs_init=clf.coefs_
        ).validation_loss_curve_
        for n, weight in ((100, np.arange(100) < 50), (50, None))
    ]  # fmt: skip
    np.testing.assert_allclose(*curves, rtol=1e-12)
    assert reg.score(A, b * 0) == reg.score(X, Y * 0)
    with pytest.raises(TypeError, match="return_std"):
        reg.predict(A, return_std=True)
    some = cmlp.dask.DaskMLPClassifier((16,), learning_rate_init=0.03, random_state=0)
    for _ in range(3):
        some.partial_fit(A, b, classes=[0, 1, 2])
    assert some.n_iter_ == 3 and some.score(X, Y) > 0.5
    with pytest.raises(ValueError, match="needs all rows"):
        cmlp.dask.DaskMLPClassifier(solver="lbfgs").fit(A, b)


def test_classes_are_weighted_by_the_labels_of_all_workers(client):
    """As sample weights of the same numbers do."""
    how = {"max_iter": 2, "random_state": 0, "timeout": 10, "dtype": "float64"}
    counts, source = np.bincount(Y), cmlp.data.arrays
    for given, factor in (
        ({0: 1, 1: 5, 2: 0.5}, np.array([1, 5, 0.5])), ("balanced", len(Y) / (3 * counts)),
    ):  # fmt: skip
        weighted = cmlp.dask.DaskMLPClassifier((4,), class_weight=given, **how).fit(source(X, Y))
        other = cmlp.dask.DaskMLPClassifier((4,), **how).fit(source(X, Y, factor[Y]))
        params = [model.network_.params for model in (weighted, other)]
        np.testing.assert_allclose(*params, rtol=1e-9, atol=1e-12)
    A, b = chunked()
    balanced = cmlp.dask.DaskMLPClassifier((4,), class_weight="balanced", **how).fit(A, b)
    assert abs(balanced.loss_ - other.loss_) < 0.1  # in another order


def test_an_ensemble_predicts_the_mean_of_its_members(client, tmp_path):
    A, b = chunked()
    make = cmlp.dask.DaskMLPClassifier
    how = {"max_iter": 2, "timeout": 10, "dtype": "float64"}
    source = cmlp.data.arrays(X, Y)
    model = make((8,), n_ensemble=2, random_state=0, **how).fit(source)
    parts = [member.predict_proba(X) for member in model.estimators_]
    assert len(parts) == 2 and np.abs(parts[0] - parts[1]).max() > 1e-3
    np.testing.assert_allclose(model.predict_proba(A).compute(), np.mean(parts, axis=0), rtol=1e-12)
    alone = make((8,), random_state=model.estimators_[1].random_state, **how).fit(source)
    np.testing.assert_allclose(alone.predict_proba(X), parts[1], rtol=1e-9)
    for how, given, said in (
        ({"warm_start": True}, {}, "nor with warm_start"),
        ({}, {"checkpoint": tmp_path / "run.cmlp"}, "need n_ensemble=1"),
    ):
        with pytest.raises(ValueError, match=said):
            make((8,), n_ensemble=2, **how).fit(A, b, **given)


@pytest.mark.parametrize(
    "how, said",
    [
        ({"solver": "sgd", "learning_rate": "adaptive"}, "take a schedule"),
        ({"n_ensemble": 2}, "is not for partial_fit"),
        ({"early_stopping": True}, "partial_fit does not support"),
    ],
)
def test_parameters_that_need_all_rows_in_one_place(client, how, said):
    with pytest.raises(ValueError, match=said):
        cmlp.dask.DaskMLPClassifier(**how).partial_fit(X, Y, classes=[0, 1, 2])


def test_estimators_can_be_cloned(client):
    base = pytest.importorskip("sklearn.base")
    clf = cmlp.dask.DaskMLPClassifier((4,), client=client, retries=7)
    assert base.clone(clf).retries == 7


def rounding(net):
    """Return how far answers about blocks may be from those about all rows: nothing, compiled.

    The other core's sums are BLAS's, in an order that depends on the number of rows. A sum of n
    terms is off by n eps of their sizes, at most, in either order; activations add nothing to that,
    and softmax a few eps.
    """
    if dispatch.core.name != "python":
        return 0.0
    sizes = np.abs(X)
    for weights, biases in zip(net.weights, net.biases, strict=True):
        sizes = sizes @ np.abs(weights) + np.abs(biases)
    return 2 * np.finfo(net.dtype).eps * (sum(net.sizes) * sizes.max() + 8)


def test_predictions_are_lazy_and_the_same_to_the_bit(client):
    net = cmlp.Network([8, 16, 3], seed=0)
    net.fit(X, Y, epochs=1)
    A, _ = chunked(333)
    off = rounding(net)
    ordered = np.sort(net.predict(X), axis=1)
    clear = ordered[:, -1] - ordered[:, -2] >= 2 * off  # whose class rounding does not change
    for what, sure in (("predict", slice(None)), ("predict_classes", clear)):
        here = getattr(net, what)(X)
        lazy = cmlp.dask.predict(client, net, A, what)
        assert lazy.dtype == here.dtype and lazy.shape == here.shape
        np.testing.assert_allclose(lazy.compute()[sure], here[sure], rtol=0, atol=off)
        rows = cmlp.dask.predict(client, net, frame()[NAMES], what)
        found = rows.compute()
        np.testing.assert_allclose(found.to_numpy()[sure], here[sure], rtol=0, atol=off)
        assert found.index.tolist() == list(range(3_000))
    unknown = A[A[:, 0] > 0]
    assert np.isnan(cmlp.dask.predict(client, net, unknown).chunks[0][0])
    with pytest.raises(TypeError, match="of Dask"):
        cmlp.dask.predict(client, net, X)
    with pytest.raises(ValueError, match="no method"):
        cmlp.dask.predict(client, net, A, "guess")


def test_many_networks_come_also_when_a_worker_is_lost(client, processes):
    jobs = [(cmlp.Network([8, 8, 3], seed=i), {"epochs": 2 + i % 2}) for i in range(60)]
    found = []
    for trained in cmlp.dask.fit_many(client, jobs, (X, Y)):
        found.append(trained)
        if len(found) == 5:
            processes.kill(min(processes.workers))
    assert sorted(each.number for each in found) == list(range(60))
    one = next(each for each in found if each.number == 7)
    alone = cmlp.Network([8, 8, 3], seed=7)
    alone.fit(X, Y, epochs=3)
    np.testing.assert_allclose(one.network.params, alone.params, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="the jobs"):
        list(cmlp.dask.fit_many(client, [(cmlp.Network([5, 3]), {})], (X, Y)))


def test_jobs_of_a_stopped_and_of_a_busy_worker_are_done_by_others(client, processes):
    jobs = [(cmlp.Network([8, 8, 3], seed=i), {"epochs": 2}) for i in range(12)]
    addresses = {w["name"]: a for a, w in client.scheduler_info()["workers"].items()}
    victim = min(processes.workers)
    event = distributed.Event("done", client)
    wait = lambda: distributed.Event("done").wait()  # noqa: E731
    busy = client.submit(wait, workers=[addresses[victim]], pure=False)
    found = list(cmlp.dask.fit_many(client, jobs, (X, Y), timeout=2))
    assert {each.number for each in found} == set(range(12)) and busy.status == "pending"
    event.set()
    busy.result()
    training = cmlp.dask.fit_many(client, jobs, (X, Y), timeout=2)
    numbers = [next(training).number]
    processes.signal(victim, signal.SIGSTOP)
    try:
        numbers += [each.number for each in training]
    finally:
        processes.signal(victim, signal.SIGCONT)
    assert sorted(numbers) == list(range(12))


def test_many_networks_need_a_worker(client):
    job = cmlp.Network([8, 8, 3], seed=0), {}
    event, wait = distributed.Event("last", client), lambda: distributed.Event("last").wait()
    addresses = client.scheduler_info()["workers"]
    tasks = [client.submit(wait, workers=[each], pure=False) for each in addresses]
    begun = lambda dask_worker: dask_worker.state.executing_count  # noqa: E731
    while not all(client.run(begun).values()):
        time.sleep(0.05)
    try:
        with pytest.raises(cmlp.dask.TrainingFailed, match="no worker has done anything"):
            list(cmlp.dask.fit_many(client, [job], (X, Y), timeout=1, wait=2))
    finally:
        event.set()
    client.gather(tasks)


def test_report(client):
    A, b = client.persist(list(chunked()))
    distributed.wait([A, b])
    text = str(cmlp.dask.report(client, A))
    assert text.count("tcp://") == 2 and "3,000 rows" in text and cmlp.__version__ in text
    assert "6 of 6 partitions are not computed" in str(cmlp.dask.report(client, chunked()[0]))
    uneven = client.persist(A + 1, workers=list(client.scheduler_info()["workers"])[:1])
    distributed.wait(uneven)
    assert "2.00 times the mean" in str(cmlp.dask.report(client, uneven))
    with pytest.raises(TypeError, match="not ndarray"):
        cmlp.dask.report(client, X)


def test_versions_are_compared(client, monkeypatch):
    monkeypatch.setattr(cmlp, "__version__", "9.9")
    with pytest.raises(RuntimeError, match=r"do not have cmlp 9\.9, .* tcp://"):
        train(client, *chunked())


def test_missing_packages_are_named(processes, tmp_path):
    """A worker whose path has no cmlp."""
    environment = {"PYTHONPATH": str(tmp_path)}
    found = Processes(0)
    try:
        if os.environ.get("PYTHONPATH") is None:
            pytest.skip("cmlp is installed here")
        found.environment = environment
        found.add()
        with distributed.Client(found.address(), timeout=200) as client:
            client.wait_for_workers(1)
            with pytest.raises(
                RuntimeError, match=r"1 of 1 workers .*No module named.* PipInstall"
            ):
                train(client, X, Y)
    finally:
        found.close()
