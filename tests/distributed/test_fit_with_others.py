"""``net.fit(..., comm=comm)``: data, stops, errors and checkpoints of several ranks."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from ranks import Faulty, Stored, rows, together, trained

import cmlp
from cmlp.distributed import OutOfStepError, RankError, RingBroken, ThreadRing
from cmlp.distributed.rank import Settings
from cmlp.distributed.shards import dealt
from cmlp.distributed.steps import RankTrainer
from cmlp.sources import windows

X, y, weights = rows(640)
FIT = {"epochs": 3, "batch_size": 32, "solver": "adam", "learning_rate": 0.01, "dropout": 0.1}


def network(**options):
    return cmlp.Network([5, 8, 6, 1], "tanh", seed=1, **{"dtype": "float64"} | options)


def fit(*data, **options):
    """Return what fits a network as one of several ranks."""
    return lambda net, comm: net.fit(*data, comm=comm, **FIT | options)


def errors(n, work, make=network):
    """Return the networks and what each rank has raised, or returned."""
    nets = [make() for _ in range(n)]
    return nets, together(ThreadRing.make(n), lambda comm: work(nets[comm.rank], comm))


def same(nets, other, tolerance=1e-11):
    for net in nets:
        np.testing.assert_array_equal(net.params, nets[0].params)
        np.testing.assert_allclose(net.params, other.params, rtol=0, atol=tolerance)
        for key in ("loss", "val_loss", "val_score"):
            if key in other.history:
                np.testing.assert_allclose(net.history[key], other.history[key], rtol=1e-9)


# Data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[5, 5, 5, 5], [0, 1, 9, 30], [1], [3, 0, 0, 4]])
def test_rows_are_dealt_in_proportion(counts):
    """Each row once: the number of a shard never falls, and those of all add up."""
    n = sum(counts)
    steps = np.array([dealt(i, counts) for i in range(n + 1)])
    assert (steps.sum(axis=1) == np.arange(n + 1)).all()
    assert (np.diff(steps, axis=0) >= 0).all() and steps[-1].tolist() == counts
    exact = np.arange(n + 1)[:, None] * np.array(counts) / n
    assert np.abs(steps - exact).max() <= len(counts)


@pytest.mark.parametrize("given", [{"memory": "1 GB"}, {"memory": 40_000}])
@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_sources_give_the_same_on_any_number_of_ranks(given, fraction, monkeypatch):
    """In memory, and in windows of a few batches; rows are held out by their number."""
    monkeypatch.setattr(windows, "PIECE", 2000)
    source = cmlp.data.batches(lambda: [(X, y, weights)])
    with pytest.raises(TypeError, match="shuffled"):
        trained(1, fit(source))
    stored = Stored(X, y, weights)
    nets = [trained(n, fit(stored, validation_fraction=fraction, **given)) for n in (1, 2, 3)]
    for others in nets[1:]:
        same(others, nets[0][0])
    assert nets[0][0].history["loss"][-1] < 0.45


def test_a_source_in_memory_is_the_same_as_arrays():
    of_arrays = trained(2, fit(X, y, sample_weight=weights))
    of_source = trained(3, fit(Stored(X, y, weights)))
    same(of_source, of_arrays[0])


def test_rows_to_validate_on_are_shared():
    more, truth, _ = rows(91, seed=5)
    nets = [trained(n, fit(X, y, X_val=more, y_val=truth, patience=9)) for n in (1, 3)]
    same(nets[1], nets[0][0])
    net = nets[1][2]
    np.testing.assert_allclose(net.history["val_loss"][-1], net.loss(more, truth), rtol=1e-12)
    np.testing.assert_allclose(net.history["val_score"][-1], net.score(more, truth), rtol=1e-9)


def test_labels_and_accuracy():
    labels = np.array(["low", "middle", "high"])[np.digitize(y[:, 0], [-0.5, 0.5])]

    def make():
        return cmlp.Network([5, 8, 3], "tanh", seed=1, dtype="float64")

    whole, parts = (trained(n, fit(X, labels, validation_fraction=0.25), make) for n in (1, 3))
    same(parts, whole[0])
    assert parts[2].classes.tolist() == ["high", "low", "middle"]
    assert 0.5 < parts[0].history["val_score"][-1] <= 1


def test_weights_of_rank_0_are_those_that_train():
    """Networks of other seeds: all get what rank 0 has, its random state included."""
    seeds = iter(range(9))
    nets = trained(3, fit(X, y), lambda: cmlp.Network([5, 8, 1], seed=next(seeds)))
    for net in nets[1:]:
        np.testing.assert_array_equal(net.params, nets[0].params)
        np.testing.assert_array_equal(net.moments, nets[0].moments)
        assert net.rng.bit_generator.state == nets[0].rng.bit_generator.state


# Steps of one's own ------------------------------------------------------------------------------


def test_averaging_plain_steps_at_each_step_is_a_sum_of_gradients():
    """With equal shares, without momentum: to rounding."""
    nets = [trained(2, fit(X, y, solver="sgd", momentum=0.0, dropout=0.0, sync_every=every))[0]
            for every in (1, (3, 8), (0, 2))]  # fmt: skip
    np.testing.assert_array_equal(nets[0].params, nets[1].params)
    assert np.abs(nets[2].params - nets[0].params).max() > 1e-6
    assert nets[2].history["loss"][-1] < nets[2].history["loss"][0]


@pytest.mark.parametrize("every", [3, 8, (1, 4), "auto"])
def test_local_steps_learn(every):
    nets = trained(3, fit(X, y, epochs=8, sync_every=every, ema=0.5, validation_fraction=0.2))
    for net in nets:
        np.testing.assert_array_equal(net.params, nets[0].params)
        np.testing.assert_array_equal(net.moments, nets[0].moments)
    assert nets[0].history["val_score"][-1] > 0.35


def test_statistics_of_batches_are_averaged_with_local_steps():
    nets = trained(2, fit(X, y, sync_every=4), lambda: network(normalization="batch"))
    assert np.abs(nets[0].running[0][1] - 1).max() > 1e-3
    np.testing.assert_array_equal(nets[0].params, nets[1].params)


# Stops -------------------------------------------------------------------------------------------


def ended(nets, why, epochs):
    for net in nets:
        assert net.history.stopped == why
        assert net.history.get("epoch", []) == list(range(1, epochs + 1))
        np.testing.assert_array_equal(net.params, nets[0].params)
        assert net.steps == nets[0].steps


def test_callbacks_are_of_rank_0_and_see_its_weights():
    seen = []

    def callback(state):
        loss = state.network.loss(X, y)
        seen.append((state.epoch, loss, state.history["val_loss"][-1]))
        return state.epoch == 2

    nets = trained(3, fit(X, y, callbacks=[callback], X_val=X, y_val=y))
    ended(nets, "callback", 2)
    assert [epoch for epoch, _, _ in seen] == [1, 2]
    for _, loss, recorded in seen:
        np.testing.assert_allclose(loss, recorded, rtol=1e-12)


def test_patience_restores_the_best_weights_on_all_ranks():
    options = {"epochs": 40, "learning_rate": 0.5, "validation_fraction": 0.3, "patience": 2}
    nets = trained(3, fit(X, y, **options))
    ended(nets, "patience", len(nets[0].history["loss"]))
    assert nets[0].history.restored and nets[2].history.best_epoch == nets[0].history.best_epoch


def test_a_clock_ends_all_ranks_after_the_same_step():
    for seconds in (0.3, 3, 30):  # a busy machine may not come to the first step
        nets = trained(3, fit(X, y, epochs=100_000, max_time=seconds))
        ended(nets, "max_time", len(nets[0].history.get("loss", [])))
        if nets[0].steps:
            return
    raise AssertionError("no step in half a minute")


def test_ctrl_c_ends_all_ranks_after_the_same_step():
    """The first one is heard between steps; signals reach the main thread, where rank 1 is."""
    comms, nets = ThreadRing.make(2), [network() for _ in range(2)]
    other = threading.Thread(target=lambda: fit(X, y, epochs=10**6)(nets[0], comms[0]))
    timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    other.start()
    timer.start()
    with pytest.warns(UserWarning, match="training was interrupted"):
        fit(X, y, epochs=10**6)(nets[1], comms[1])
        other.join(60)  # rank 0 warns
    ended(nets, "interrupted", len(nets[0].history["loss"]))


@pytest.mark.filterwarnings("ignore:training was interrupted")
def test_no_epochs():
    ended(trained(2, fit(X, y, epochs=0)), "epochs", 0)


# Errors ------------------------------------------------------------------------------------------


def test_divergence_ends_all_ranks_alike():
    nets, found = errors(3, fit(X * 1e150, y * 1e200, solver="sgd", learning_rate=1e100))
    assert all(isinstance(error, cmlp.DivergenceError) for error in found), found
    assert "layer" in str(found[2]) and nets[0].history.stopped == "diverged"
    for net in nets:
        np.testing.assert_array_equal(net.params, network().params)


def test_an_error_of_one_rank_names_it():
    class Broken(Stored):
        def read(self, block, start=0, stop=None):
            if threading.current_thread().name.endswith("rank 2") and block > 5:
                raise cmlp.data.DataError("the file has changed")
            return super().read(block, start, stop)

    def work(net, comm):
        threading.current_thread().name += f"rank {comm.rank}"
        return fit(Broken(X, y, weights))(net, comm)

    nets, found = errors(3, work)
    assert isinstance(found[2], cmlp.data.DataError)
    for error in found[:2]:
        assert isinstance(error, RankError), found
        assert str(error) == "rank 2 has failed: DataError: the file has changed"
    assert nets[0].history.stopped == "error"


def test_a_ring_that_breaks_leaves_the_last_whole_round():
    """The weights are those after so many epochs, on every rank, and so is the record."""
    whole = trained(2, fit(X, y, epochs=1, schedule=lambda epoch: 0.01))[0]
    calls = 1 + 20 + 1 + 5  # an epoch, and part of the next one

    def work(net, comm):
        comm = Faulty(comm, calls) if comm.rank else comm
        return fit(X, y, schedule=lambda epoch: 0.01)(net, comm)

    nets, found = errors(2, work)
    assert all(isinstance(error, RingBroken) for error in found), found
    for net in nets:
        np.testing.assert_array_equal(net.params, whole.params)
        np.testing.assert_array_equal(net.moments, whole.moments)
        assert (net.steps, net.history["epoch"]) == (20, [1])
        assert net.history.stopped == "error"


@pytest.mark.parametrize(
    "name, change",
    [("batch_size", {"batch_size": 31}), ("l2", {"l2": 0.1}), ("sizes", {}),
     ("dtype", {}), ("rows", {}), ("cmlp version", {}),
     ("a checksum of the first rows (all ranks pass all of them)", {})],
)  # fmt: skip
def test_ranks_that_do_not_fit_each_other_say_why(name, change, monkeypatch):
    def work(net, comm):
        data = (X, y)
        if comm.rank == 1:
            if name == "sizes":
                net = cmlp.Network([5, 9, 1], dtype="float64")
            elif name == "dtype":
                net = network(dtype="float32")
            elif name == "rows":
                data = X[1:], y[1:]
            elif "checksum" in name:
                data = X[::-1], y[::-1]
            return fit(*data, **change)(net, comm)
        return fit(*data)(net, comm)

    if name == "cmlp version":
        described = Settings.described
        numbers = iter("12")
        monkeypatch.setattr(
            Settings, "described",
            lambda *arguments: described(*arguments) | {"cmlp version": next(numbers)},
        )  # fmt: skip
    _, found = errors(2, work)
    for error in found:
        assert isinstance(error, OutOfStepError) and f": {name} is " in str(error), found


def test_weights_that_differ_are_found(monkeypatch):
    update = RankTrainer._update

    def wrong(trainer, *arguments):
        update(trainer, *arguments)
        if threading.current_thread().name.endswith("rank 1"):
            trainer.net.params[0] += 1e-9

    monkeypatch.setattr(RankTrainer, "_update", wrong)

    def work(net, comm):
        threading.current_thread().name += f"rank {comm.rank}"
        return fit(X, y)(net, comm)

    _, found = errors(3, work)
    assert all(isinstance(error, OutOfStepError) and "ranks [1]" in str(error) for error in found)


def test_what_ranks_cannot_share_is_refused():
    def refused(match, make=network, error=ValueError, **options):
        with pytest.raises(error, match=match):
            trained(2, fit(X, y, **options), make)

    refused("'layer'", lambda: network(normalization="batch"))
    refused("'layer'", lambda: network(normalization="batch"), sync_every=(1, 4))
    refused("row_mean = True", lambda: network(loss=lambda out, y: (0.0, out)))
    for every in (0, 2.5, "often", (1,), (-1, 4)):
        refused("sync_every", error=(TypeError, ValueError), sync_every=every)


# Checkpoints -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before, after", [(3, 2), (2, 0), (1, 3)])
@pytest.mark.parametrize("calls", [1 + 20 + 1 + 7, 4])
def test_a_checkpoint_continues_on_any_number_of_ranks(before, after, calls, tmp_path):
    """Also on one machine without a communicator (0), in the order that it was begun in."""
    path = tmp_path / "run.cmlp"
    whole = trained(1, fit(X, y))[0]

    def breaks(net, comm):
        comm = Faulty(comm, calls)
        return fit(X, y, checkpoint=path, checkpoint_every=0)(net, comm)

    _, found = errors(before, breaks)
    assert any(isinstance(error, RingBroken) for error in found)
    if after:
        nets = trained(after, fit(X, y, checkpoint=path, resume=True))
    else:
        nets = [network()]
        nets[0].fit(X, y, checkpoint=path, resume=True, **FIT)
    same(nets, whole)
    assert nets[0].history["epoch"] == [1, 2, 3]
    again = trained(2, fit(X, y, checkpoint=path, resume=True))  # it is complete
    same(again, whole)
    np.testing.assert_array_equal(cmlp.load(path).params, nets[0].params)


def test_a_checkpoint_in_the_middle_of_an_epoch(tmp_path):
    """By the clock: a round is not an epoch then."""
    path, whole = tmp_path / "run.cmlp", trained(1, fit(X, y, epochs=60))[0]
    nets = trained(2, fit(X, y, epochs=60, checkpoint=path, max_time=0.1))
    assert nets[0].history.stopped == "max_time"
    began = time.monotonic()
    while nets[0].history.stopped == "max_time" and time.monotonic() < began + 60:
        nets = trained(3, fit(X, y, epochs=60, checkpoint=path, resume=True, max_time=0.2))
    same(nets, whole, 1e-9)


def test_a_checkpoint_of_one_machine_continues_on_several(tmp_path):
    path, seen = tmp_path / "run.cmlp", []
    net = network()
    net.fit(X, y, checkpoint=path, callbacks=[lambda state: seen.append(1) or state.epoch == 1],
            **FIT)  # fmt: skip
    assert net.history.stopped == "callback"
    net = network()
    with pytest.raises(ZeroDivisionError):
        net.fit(X, y, checkpoint=path, checkpoint_every=0,
                callbacks=[lambda state: state.epoch == 2 and 1 / 0], **FIT)  # fmt: skip
    nets = trained(2, fit(X, y, checkpoint=path, resume=True))
    assert nets[1].history["epoch"] == [1, 2, 3] and nets[1].steps == 60
