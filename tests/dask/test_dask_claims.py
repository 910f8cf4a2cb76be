"""The place of a training in a worker: who has it, for how long, and which task runs there."""

import threading
from types import SimpleNamespace

import pytest

from cmlp.dask import worker
from cmlp.dask.keeper import Keeper

distributed = pytest.importorskip("distributed", minversion="2025.1")


@pytest.fixture
def place(monkeypatch):
    """A worker that is nothing but an address."""
    found = SimpleNamespace(address="tcp://here:1")
    monkeypatch.setattr(distributed, "get_worker", lambda: found)
    yield found
    worker._seats.clear()
    worker._over.clear()


def claim(place, run, owner="me", gone=None):
    return worker.claim(run, owner, 60.0, gone, place)[0]


def test_a_claim_that_is_renewed_too_late_ends_with_its_task(place):
    assert claim(place, "first") == ""
    with worker._Task("first", 1):
        worker.leave("first", True, place)
        worker.renew("first", place)
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


def test_a_claim_ends_if_its_own_driver_has_gone(place):
    assert claim(place, "first", owner="a") == ""
    assert "busy with training first" in claim(place, "second", owner="b")
    assert "busy with training first" in claim(place, "second", owner="b", gone="c")
    assert claim(place, "second", owner="b", gone="a") == ""


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
