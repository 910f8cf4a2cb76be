"""Workers, schedulers and drivers that are killed and stopped while a network learns."""

import signal
import threading
import time

import numpy as np
import pytest
from dask_processes import Processes, stored, waves

import cmlp

distributed = pytest.importorskip("distributed", minversion="2025.1")


WORKERS = 3

HOW = {"epochs": 4, "batch_size": 16, "learning_rate": 0.02, "solver": "adam"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("rows"), *waves(12_000))


def network():
    return cmlp.Network([8, 16, 3], "tanh", dtype="float64", seed=1)


@pytest.fixture(scope="module")
def undisturbed(processes, source):
    net = network()
    with distributed.Client(processes.address(), timeout=200) as client:
        client.wait_for_workers(1, timeout=200)
        cmlp.dask.train(client, net, source, workers=1, **HOW)
    return net


class At:
    """A callback that does something during the epoch after the first one."""

    def __init__(self, do, delay=0.15):
        self.do, self.delay, self.epochs = do, delay, []

    def __call__(self, state):
        self.epochs.append(state.epoch)
        if state.epoch == 1:
            threading.Timer(self.delay, self.do).start()


def trained(client, source, do, **more):
    """Return a network that has seen a fault."""
    net, at = network(), At(do)
    how = {"timeout": 5, "wait": 120, "callbacks": [at], "round_seconds": 2} | HOW | more
    history = cmlp.dask.train(client, net, source, **how)
    assert at.epochs == [1, 2, 3, 4] and len(history["loss"]) == 4
    return net


def close_to(net, other):
    np.testing.assert_allclose(net.params, other.params, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("who", [["w0"], ["w1"], ["w1", "w2"]])
def test_a_killed_worker_costs_a_round(client, processes, source, undisturbed, who):
    victims = sorted(processes.workers)
    victims = [victims[int(name[1])] for name in who]
    net = trained(client, source, lambda: [processes.kill(v) for v in victims])
    close_to(net, undisturbed)


def test_a_stopped_worker_is_left_out_and_comes_back(client, processes, source, undisturbed):
    victim, epochs = sorted(processes.workers)[1], []

    def go_on(state):  # in epoch 2 it is stopped, and only those after it let it continue
        epochs.append(state.epoch)
        if state.epoch == 3:
            processes.signal(victim, signal.SIGCONT)

    stop = At(lambda: processes.signal(victim, signal.SIGSTOP), 0.0)
    net = network()
    how = HOW | {"timeout": 5, "wait": 120, "round_seconds": 2}
    cmlp.dask.train(client, net, source, callbacks=[stop, go_on], **how)
    assert epochs == [1, 2, 3, 4]
    close_to(net, undisturbed)
    net = network()
    cmlp.dask.train(client, net, source, **how, min_workers=3)  # it is used again
    close_to(net, undisturbed)


def ring_of(dask_worker):
    """Return how many ranks the ring of a worker has."""
    from cmlp.dask import worker  # in a process that may not have it yet

    seat = worker._seats.get(dask_worker.address)
    return 0 if seat is None or seat.comm is None else seat.comm.size


def test_a_worker_that_its_nanny_starts_again_takes_part_again(source):
    found = Processes(1)
    try:
        name, net, other = found.add("--nanny"), network(), network()
        with distributed.Client(found.address(), timeout=200) as client:
            client.wait_for_workers(2, timeout=200)
            before = set(client.scheduler_info()["workers"])

            def fault(state):
                if state.epoch == 1:
                    found.kill(name)
                time.sleep(0.3)
                sizes = client.run(ring_of, on_error="return")
                return list(sizes.values()) == [2, 2] and sizes.keys() != before

            how = {"timeout": 5, "wait": 120}
            cmlp.dask.train(
                client, net, source, callbacks=[fault], **how, **HOW | {"epochs": 10_000}
            )
            cmlp.dask.train(
                client, other, source, workers=1, **how, **HOW | {"epochs": net.history.epochs}
            )
    finally:
        found.close()
    close_to(net, other)


def test_the_only_workers_are_killed_and_new_ones_continue(client, processes, source, undisturbed):
    def kill():
        for name in list(processes.workers):
            processes.kill(name)
        for _ in range(2):
            processes.add()

    net = trained(client, source, kill)
    close_to(net, undisturbed)


def test_a_new_worker_takes_part_from_the_next_round(
    client, processes, source, undisturbed, capsys
):
    processes.kill(sorted(processes.workers)[0])
    net, at = network(), At(processes.add, 0.0)

    def until(state):
        time.sleep(0.2)
        return list(client.run(ring_of).values()) == [3, 3, 3]

    how = HOW | {"epochs": 10_000}
    cmlp.dask.train(client, net, source, callbacks=[at, until], verbose=1, timeout=5, **how)
    shown = [line.count("tcp:") for line in capsys.readouterr().out.splitlines() if "rows:" in line]
    assert shown == [2, 3]


def test_a_retired_worker_leaves(client, processes, source, undisturbed):
    name = sorted(processes.workers)[0]
    address = next(a for a, w in client.scheduler_info()["workers"].items() if w["name"] == name)
    retire = lambda: client.retire_workers([address], close_workers=True)  # noqa: E731
    net = trained(client, source, retire)
    processes.workers.pop(name).wait(200)
    close_to(net, undisturbed)


def test_a_stopped_worker_has_no_place_of_few(client, processes, source, undisturbed):
    """The first of `workers=1` does not answer: another one trains."""
    _, about = min(client.scheduler_info()["workers"].items())
    processes.signal(about["name"], signal.SIGSTOP)
    try:
        net = network()
        cmlp.dask.train(client, net, source, workers=1, timeout=2, wait=200, **HOW)
    finally:
        processes.signal(about["name"], signal.SIGCONT)
    close_to(net, undisturbed)


def test_adaptive_scaling_up_and_down_costs_rounds_and_nothing_else(source):
    """Dask starts workers by itself, and retires them."""
    net, other, sizes = network(), network(), []
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, timeout=200) as client,
    ):
        steps = iter(((1, 1), (3, 3), (1, 1)))

        def scale(state):
            """Change the number of workers whenever the ring has as many as it should."""
            time.sleep(0.1)
            found = sorted(client.run(ring_of, on_error="return").values(), key=str)
            wanted = sizes[-1] if sizes else None
            if wanted is None or found == [wanted] * wanted:
                step = next(steps, None)
                if step is None:
                    return True
                sizes.append(step[0])
                cluster.adapt(minimum=step[0], maximum=step[1], interval="100ms", wait_count=1)
            return False

        how = {"timeout": 20, "wait": 200} | HOW
        cmlp.dask.train(client, net, source, callbacks=[scale], **how | {"epochs": 10_000})
        assert sizes == [1, 3, 1] and net.history.stopped == "callback"
        epochs = net.history.epochs
        cmlp.dask.train(client, other, source, **how | {"epochs": epochs, "workers": 1})
    close_to(net, other)


def test_too_few_workers_end_a_training_with_its_story(client, processes, source):
    victim = sorted(processes.workers)[0]
    how = {"min_workers": 3, "timeout": 5} | HOW
    cmlp.dask.train(client, network(), source, **how | {"epochs": 1})  # all have imported cmlp
    with pytest.raises(cmlp.dask.TrainingFailed, match="2 workers can take part, and at least 3"):
        net = network()
        at = At(lambda: processes.kill(victim))
        cmlp.dask.train(client, net, source, callbacks=[at], wait=5, **how)
    assert net.history.epochs == len(at.epochs) >= 1
    assert net.history.stopped == "error"
