"""Trainings that end badly, or meet others: what is left of them, and what they report."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from dask_processes import Processes, waves

import cmlp

distributed = pytest.importorskip("distributed", minversion="2025.1")


HOW = {"epochs": 3, "batch_size": 64, "learning_rate": 0.02}


def network(**more):
    return cmlp.Network([8, 16, 3], "tanh", dtype="float64", seed=1, **more)


def train(client, source, net=None, **more):
    net = net or network()
    cmlp.dask.train(client, net, source, **({"timeout": 30, "wait": 120} | HOW | more))
    return net


DRIVER = """
import pickle, distributed, cmlp, cmlp.dask
if __name__ == "__main__":
    client = distributed.Client({address!r})
    source = pickle.loads({source!r})
    net = cmlp.Network([8, 16, 3], "tanh", dtype="float64", seed=1)
    tell = lambda state: print(state.epoch, flush=True)
    cmlp.dask.train(client, net, source, epochs=100_000, timeout={timeout}, callbacks=[tell])
"""


def driver(processes, source, timeout=60):
    """Start another process that trains, and wait for its first epoch."""
    script = DRIVER.format(
        address=processes.address(), timeout=timeout, source=pickle.dumps(source)
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    found = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    )
    assert found.stdout.readline() == b"1\n"
    return found


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_workers_of_a_driver_that_has_gone_are_free_after_the_timeout(
    client, processes, source, sent
):
    other = driver(processes, source, timeout=3)
    other.send_signal(sent)
    try:
        train(client, source)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def test_two_trainings_at_once_wait_for_each_other(client, processes, source):
    with distributed.Client(processes.address(), timeout=200) as second:
        nets = []
        for _ in range(5):
            threads = [
                threading.Thread(target=lambda c=c: nets.append(train(c, source)))
                for c in (client, second)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(250)
                assert not thread.is_alive()
    assert len(nets) == 10
    for net in nets[1:]:
        np.testing.assert_allclose(net.params, nets[0].params, rtol=1e-9, atol=1e-12)


def test_a_busy_cluster_says_who_has_it(client, processes, source):
    other = driver(processes, source, timeout=10)  # so long its workers are not free afterwards
    try:
        with pytest.raises(cmlp.dask.TrainingFailed, match=r"busy with training .* since"):
            train(client, source, wait=1)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def test_workers_of_one_process_share_nothing(client, source):
    """Nor does one that has no rows, of a single shard."""
    whole = train(client, source).params
    with (
        distributed.LocalCluster(
            n_workers=2, processes=False, dashboard_address=None, memory_limit=None
        ) as cluster,
        distributed.Client(cluster) as threads,
    ):
        np.testing.assert_allclose(train(threads, source).params, whole, rtol=1e-9, atol=1e-12)
        X, y = waves(4_000)
        net = network()
        cmlp.dask.train(threads, net, X, y, shards=1, epochs=1)
        (trained,) = cmlp.dask.fit_many(threads, [(net, {"epochs": 1})], (X, y))
        assert (trained.network.params != net.params).any()
        paused = distributed.core.Status.paused  # as a worker whose memory is nearly full
        pause = lambda dask_worker: setattr(dask_worker, "status", paused)  # noqa: E731
        known = cluster.scheduler.workers.values()
        for address in (cluster.workers[0].address, cluster.workers[1].address):
            cmlp.dask.train(threads, net, X, y, epochs=1)
            threads.run(pause, workers=[address])
            while all(each.status != paused for each in known if each.address == address):
                time.sleep(0.01)  # the scheduler hears of it a moment later
        with pytest.raises(cmlp.dask.TrainingFailed, match="is paused"):
            cmlp.dask.train(threads, net, X, y, wait=0.5)
        with pytest.raises(cmlp.dask.TrainingFailed, match=r"no worker of \['another'\]"):
            train(threads, source, workers=["another"], wait=0.1)


def test_a_worker_that_is_busy_with_other_tasks_comes_later(client, source):
    address = sorted(client.scheduler_info()["workers"])[0]
    event = distributed.Event("enough", client)
    wait = lambda: distributed.Event("enough").wait()  # noqa: E731
    task = client.submit(wait, workers=[address], pure=False)
    net = train(client, source, timeout=2)
    assert net.history.stopped == "epochs" and task.status == "pending"
    event.set()
    task.result()


class OwnError(Exception):
    pass


class Broken(cmlp.data.Source):
    """A source that fails in the worker that reads the second half of its last block."""

    def __init__(self, X, y):
        self.X, self.y, self.n_features, self.dtype = X, y, X.shape[1], X.dtype
        self.blocks = (1000,) * 4

    def read(self, block, start=0, stop=None):
        if block == 3 and start >= 500:
            raise OwnError(f"block {block} is broken")
        rows = slice(1000 * block + start, 1000 * block + (1000 if stop is None else stop))
        return cmlp.data.Block(self.X[rows], self.y[rows])


def test_an_error_of_a_worker_is_raised_and_not_tried_again(client, source):
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    net = network()
    net.classes = np.arange(3)
    before = net.params.copy()
    with pytest.raises(OwnError, match="block 3 is broken") as caught:
        train(client, Broken(*waves(4000)), net)
    note = "".join(caught.value.__notes__)
    assert "This is of the worker tcp://" in note and "in read" in note
    np.testing.assert_array_equal(net.params, before)
    assert net.history.stopped == "error"
    train(client, source)


def test_divergence_is_told_as_on_one_machine(client, source):
    net = cmlp.Network([8, 16, 3], "relu", loss="squared_error", dtype="float64", seed=1)
    with pytest.raises(cmlp.DivergenceError), np.errstate(all="ignore"):
        train(client, source, net, learning_rate=1e10, epochs=20)
    assert np.isfinite(net.params).all() and net.history.stopped == "diverged"


def test_callbacks_see_the_weights_of_their_epoch_and_stop(client, source):
    X, y = waves(4_000)
    seen = []

    def look(state):
        seen.append(state.network.loss(X, y))
        return state.epoch == 2

    net = train(client, source, callbacks=[look])
    assert len(seen) == 2 and net.history.stopped == "callback"
    assert seen[1] == net.loss(X, y) < seen[0]


def test_an_error_of_a_callback_leaves_the_workers_free(client, source):
    def fail(state):
        raise OwnError("in the callback")

    net = network()
    with pytest.raises(OwnError):
        train(client, source, net, callbacks=[fail])
    assert net.history.epochs == 1
    train(client, source)


def test_max_time_ends_it_with_a_checkpoint(client, source, tmp_path):
    path = tmp_path / "run.cmlp"
    net = train(client, source, epochs=100_000, max_time=1.5, checkpoint=path)
    assert net.history.stopped == "max_time" and net.history.epochs < 100_000
    np.testing.assert_array_equal(cmlp.load(path).params, net.params)


def test_a_checkpoint_continues(client, source, tmp_path):
    path, whole = tmp_path / "run.cmlp", train(client, source, epochs=4)
    how = {"checkpoint": path, "checkpoint_every": 0}
    train(client, source, epochs=2, **how)
    net = train(client, source, epochs=4, resume=True, **how)
    np.testing.assert_allclose(net.params, whole.params, rtol=1e-9, atol=1e-12)
    assert net.history.epochs == 4


def test_ctrl_c_keeps_what_was_learned(processes, source):
    other = driver(processes, source)
    other.send_signal(signal.SIGINT)
    assert other.wait(200) == 0
    other.stdout.close()


def test_a_lost_scheduler_is_told_and_a_checkpoint_is_left(source, tmp_path):
    found, path = Processes(2), tmp_path / "run.cmlp"
    try:
        with distributed.Client(found.address(), timeout=200) as client:
            client.wait_for_workers(2, timeout=200)
            net = network()

            def kill(state):
                if state.epoch == 3:
                    found.scheduler.kill()

            how = {"epochs": 100_000, "checkpoint": path, "checkpoint_every": 0.1}
            with pytest.raises(cmlp.dask.ClusterLost, match="resume=True"):
                train(client, source, net, callbacks=[kill], **how)
    finally:
        found.close()
    assert net.history.epochs >= 1
    assert 1 <= cmlp.load(path).history.epochs <= net.history.epochs


def test_one_machine_continues_a_checkpoint(client, source, tmp_path):
    path = tmp_path / "run.cmlp"
    train(client, source, epochs=2, checkpoint=path)
    net = network()
    net.fit(source, resume=True, checkpoint=path, **HOW | {"epochs": 3})
    assert net.history.epochs == 3
    again = train(client, source, epochs=4, checkpoint=path, resume=True)
    assert again.history.epochs == 4


def test_tabular_estimators_learn_the_same_with_one_and_two_workers(client, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        cells = rng.integers(0, 9, (300, 2))
        rows = [f"city {city},{distance},{distance + city}" for city, distance in cells]
        (tmp_path / f"{number}.csv").write_text("\n".join(["city,distance,fare", *rows]))
    source, models = cmlp.data.csv(tmp_path / "*.csv", "fare"), []
    for n in (1, 2):
        how = {"max_iter": 3, "hidden_layer_sizes": 8, "random_state": 0, "dtype": "float64"}
        models.append(cmlp.dask.DaskTabularRegressor(**how, workers=n, timeout=30).fit(source))
    params = [model.to_local().network_.params for model in models]
    np.testing.assert_allclose(*params, rtol=1e-9, atol=1e-9)
