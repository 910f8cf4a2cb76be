"""Without a cluster: a training's place in a worker, and the advice about efficiency."""

import contextlib
import threading
import warnings
from types import SimpleNamespace

import pytest

import cmlp
from cmlp.dask import worker
from cmlp.dask.cluster import Limits
from cmlp.dask.rounds import Rounds
from cmlp.distributed.rank import Position, Round

distributed = pytest.importorskip("distributed", minversion="2025.1")


@pytest.fixture
def place(monkeypatch):
    """A worker that is nothing but an address, and threads."""
    found = SimpleNamespace(address="tcp://here:1", state=SimpleNamespace())
    found.state.executing_count, found.state.nthreads = 0, 1
    monkeypatch.setattr(distributed, "get_worker", lambda: found)
    yield found
    worker._seats.clear()
    worker._over.clear()


def claim(place, run, timeout=60.0):
    return worker.claim(run, timeout, cmlp.__version__, place)


@contextlib.contextmanager
def task(run, ticket):
    """A task that runs during the block, and yields its seat; None if it has none."""
    begun, ends, found = threading.Event(), threading.Event(), []

    def work(seat):
        found.append(seat)
        begun.set()
        ends.wait(250)

    def perform():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker.Seat, "work", work)
            worker.perform(run, ticket, "work")
        begun.set()

    thread = threading.Thread(target=perform)
    thread.start()
    assert begun.wait(250)
    try:
        yield found[0] if found else None
    finally:
        ends.set()
        thread.join()


def test_a_claim_that_is_renewed_too_late_ends_with_its_task(place):
    assert claim(place, "first") == ""
    with task("first", 1) as seat:
        assert not seat.abort.is_set()
        worker.leave("first", True, place)
        worker.renew("first", dask_worker=place)
        assert seat.abort.is_set()
        assert "is ending" in claim(place, "second")
    assert claim(place, "second") == ""


def test_a_claim_that_arrives_after_its_training_is_refused(place):
    worker.leave("late", True, place)
    assert "has ended" in claim(place, "late")
    assert "and the driver 9.9" in worker.claim("next", 60.0, "9.9", place)
    assert claim(place, "next") == ""


def test_a_training_that_waits_for_another_may_claim_again(place):
    assert claim(place, "patient") == ""
    worker.leave("patient", False, place)
    assert claim(place, "patient") == ""


def test_a_worker_without_a_free_thread_is_claimed_later(place):
    place.state.executing_count = 1
    assert claim(place, "first") == worker.BUSY
    place.state.executing_count = 0
    assert claim(place, "first") == ""
    place.state.nthreads = 4
    with task("first", 1):
        assert claim(place, "first") == worker.BUSY
    assert claim(place, "first") == ""


def test_a_claim_ends_if_its_driver_was_not_heard_of_for_too_long(place, monkeypatch):
    monkeypatch.setattr(worker, "QUIET", 0.2)
    assert claim(place, "first", 0.2) == ""
    seat = worker._seats[place.address]
    assert seat.freed.wait(250)
    assert claim(place, "second") == ""


def test_a_place_of_a_driver_that_has_gone_is_taken_at_once(place):
    assert claim(place, "first") == ""
    assert "busy with training first" in claim(place, "second")
    worker._seats[place.address].heard -= 61
    assert claim(place, "second") == ""
    assert worker._seats[place.address].run == "second"


def test_a_round_ends_whose_ticket_is_not_later(place):
    assert claim(place, "run") == ""
    with task("run", 2) as seat:
        for ticket in (1, 2):
            worker.renew("run", ticket, dask_worker=place)
            assert seat.abort.is_set() is (ticket == 2)
    worker.renew("run", 4, dask_worker=place)
    for ticket, begins in ((4, False), (5, True)):  # one that was to end does not begin late
        with task("run", ticket) as seat:
            assert (seat is not None) is begins


def test_one_task_at_a_time_and_none_again_or_after_a_later_one(place):
    assert claim(place, "run") == ""
    with task("run", 2) as seat, task("run", 3) as other:
        assert seat is not None and other is None
    for run, ticket, begins in (("run", 2, False), ("run", 1, False), ("run", 3, True)):
        with task(run, ticket) as seat:
            assert (seat is not None) is begins
    with task("another", 9) as seat:
        assert seat is None


def test_claims_are_renewed_after_an_error(place):
    told, enough = [], threading.Event()

    def tell(addresses, *args, limit):
        told.append(addresses)
        if len(told) == 3:
            enough.set()
        raise KeyError("of a cluster that is in disorder")

    rounds = Rounds.__new__(Rounds)
    rounds.cluster, rounds.limits = SimpleNamespace(tell=tell), Limits(timeout=0.1)
    rounds.name, rounds.claimed, rounds.closed = "run", {place.address: True}, threading.Event()
    thread = threading.Thread(target=rounds.keep_alive)
    thread.start()
    assert enough.wait(250)
    rounds.closed.set()
    thread.join()
    assert told[:3] == [[place.address]] * 3


def advise(computed, waited, *, n_ranks=2, step=25, k=1):
    rounds = Rounds.__new__(Rounds)
    rounds.feed, rounds.k = SimpleNamespace(n_rows=10_000, batch_size=32), k
    rounds.computed, rounds.waited, rounds.advised = 0.0, 0.0, False
    rounds.ring = ["tcp://here:1"] * n_ranks
    for _ in range(2):  # it warns once
        rounds._advise(Round(Position(0, step), computed=computed, waited=waited))


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
