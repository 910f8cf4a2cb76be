"""The threads that train the members of an ensemble."""

import _thread
import threading
import time

import pytest

from cmlp.estimators.pool import Pool


@pytest.mark.parametrize("n_workers", [1, 2, 9])
def test_results_have_the_order_of_their_tasks(n_workers):
    pool = Pool(n_workers)
    seen = set()

    def task(number):
        seen.add(threading.current_thread().name)
        return number**2

    before = threading.active_count()
    results = pool.run([lambda number=number: task(number) for number in range(5)])
    assert results == [0, 1, 4, 9, 16] and not (pool.interrupted or pool.stopped())
    assert len(seen) <= n_workers and all(name.startswith("cmlp-member") for name in seen)
    assert threading.active_count() == before


def test_an_error_stops_the_others():
    pool, begun = Pool(2), []

    def fail():
        raise ZeroDivisionError("mine")

    def wait():
        begun.append(1)
        while not pool.stopped():
            time.sleep(0.001)

    with pytest.raises(ZeroDivisionError, match="mine"):
        pool.run([fail, wait, wait, wait])
    assert len(begun) <= 2


def test_an_interrupt_lets_those_that_have_begun_end():
    pool = Pool(2)

    def interrupt():
        _thread.interrupt_main()
        while not pool.stopped():
            time.sleep(0.001)
        return "ended"

    results = pool.run([interrupt, interrupt, interrupt])
    assert pool.interrupted and "ended" in results and results[2] is None


def test_without_any_thread(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Pool(2).run([int])
