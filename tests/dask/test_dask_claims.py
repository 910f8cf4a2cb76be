"""Without a cluster: a training's place in a worker, and the advice about efficiency."""

import threading
import warnings
from types import SimpleNamespace

import pytest

from cmlp.dask import worker
from cmlp.dask.rounds import Keeper
from cmlp.dask.training import Training
from cmlp.distributed.rank import Position, Round

distributed = pytest.importorskip("distributed", minversion="2025.1")


@pytest.fixture
def place(monkeypatch):
    """A worker that is nothing but an address."""
    found = SimpleNamespace(address="tcp://here:1")
    monkeypatch.setattr(distributed, "get_worker", lambda: found)
    yield found
    worker._seats.clear()
    worker._over.clear()


def claim(place, run, timeout=60.0):
    return worker.claim(run, timeout, place)


def test_a_claim_that_is_renewed_too_late_ends_with_its_task(place):
    assert claim(place, "first") == ""
    with worker._Task("first", 1):
        worker.leave("first", True, place)
        worker.renew("first", dask_worker=place)
        assert "is ending" in claim(place, "second")
    assert claim(place, "second") == ""


def test_a_claim_that_arrives_after_its_training_is_refused(place):
    worker.leave("late", True, place)
    assert "has ended" in claim(place, "late")
    assert claim(place, "next") == ""


def test_a_training_that_waits_for_another_may_claim_again(place):
    assert claim(place, "patient") == ""
    worker.leave("patient", False, place)
    assert claim(place, "patient") == ""


def test_a_claim_ends_if_its_driver_was_not_heard_of_for_too_long(place, monkeypatch):
    monkeypatch.setattr(worker, "QUIET", 0.2)
    assert claim(place, "first", 0.2) == ""
    assert "busy with training first" in claim(place, "second")
    assert not worker.renew("first", dask_worker=place)  # no task of it is running
    seat = worker._seats[place.address]
    seat.heard -= 1
    assert claim(place, "second") == ""
    assert not worker.renew("first", dask_worker=place)
    worker._seats[place.address].timer.cancel()


def test_a_round_ends_that_is_not_of_a_later_attempt(place):
    assert claim(place, "run") == ""
    with worker._Task("run", 2) as seat:
        assert worker.renew("run", 1, dask_worker=place) and not seat.abort.is_set()
        assert worker.renew("run", 2, dask_worker=place) and seat.abort.is_set()


def test_tasks_of_several_attempts_run_one_after_another_and_none_after_a_later_one(place):
    assert claim(place, "run") == ""
    order, inside, together = [], [], []

    def run(attempt):
        with worker._Task("run", attempt) as seat:
            if seat is not None:
                inside.append(attempt)
                order.append(attempt)
                together.append(len(inside))
                seat.abort.wait(0.05)
                inside.remove(attempt)

    threads = [threading.Thread(target=run, args=(attempt,)) for attempt in (3, 1, 2, 5, 4) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == sorted(order) and order[-1] == 5
    assert set(together) == {1}


def test_claims_are_renewed_after_an_error(place):
    told, enough = [], threading.Event()

    def tell(addresses, *args, limit):
        told.append(addresses)
        if len(told) == 3:
            enough.set()
        raise KeyError("of a cluster that is in disorder")

    keeper = Keeper(SimpleNamespace(tell=tell), "run", 0.1, {place.address})
    assert enough.wait(250)
    keeper.close()
    assert told[:3] == [[place.address]] * 3


def advise(computed, waited, *, n_ranks=2, step=25, k=1):
    training = Training.__new__(Training)
    training.rank = SimpleNamespace(n_rows=10_000, batch_size=32, k=k)
    training.computed, training.waited, training.advised = 0.0, 0.0, False
    for _ in range(2):  # it warns once
        round_ = Round(Position(0, step), [], computed=computed, waited=waited)
        training._advise(round_, n_ranks)


def test_a_warning_names_what_brings_the_share_of_computing_to_85_percent():
    """A step k times as long, with as much waiting, computes k / (k + 3) of the time."""
    with pytest.warns(UserWarning, match="compute 25 % of the time") as caught:
        advise(1.0, 3.0)
    assert 17 / (17 + 3) == 0.85 and len(caught) == 1
    assert f"batch_size={17 * 32} or sync_every=17 would" in str(caught[0].message)
    with pytest.warns(UserWarning, match=r"batch_size=544 or sync_every=68 "):
        advise(1.0, 3.0, k=4)


def test_no_advice_above_a_share_of_70_percent_for_one_worker_or_before_20_steps():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advise(0.71, 0.29)
        advise(1.0, 3.0, n_ranks=1)
        advise(1.0, 3.0, step=19)
