"""What runs in Dask workers: a claim for one training, and the rank that lives between rounds.

A worker's process is claimed by one training at a time. The claim ends with the training; it also
ends `timeout` seconds after the driver was last heard of, and at once when another driver finds
that the scheduler knows that one no more.
"""

from __future__ import annotations

import pickle
import threading
import time
import traceback
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from cmlp.distributed import RankError, RingBroken

EVICTION = 10.0
"""Seconds that a rank has to end after it was told to."""


@dataclass
class Outcome:
    """What a task says at its end; tasks raise nothing, so that Dask never runs them again.

    Attributes
    ----------
    kind : str
        'done'; 'broken' (the ring); 'gone' (this process does not know the training); 'error'.
    value : object
        The result.
    waited_for : int or None
        The rank that did not answer.
    seen : str
        What was seen of it; or the traceback of an error.
    """

    kind: str
    value: Any = None
    waited_for: int | None = None
    seen: str = ""


@dataclass
class Seat:
    """A training's place in a worker.

    Attributes
    ----------
    owner : str
        The client that trains.
    rank : Rank or None
        Parameters, optimizer and position, which stay between rounds.
    running : int
        Tasks of this training that are running.
    """

    run: str
    owner: str
    timeout: float
    since: str = field(default_factory=lambda: time.strftime("%H:%M:%S"))
    attempt: int = -1
    rank: Any = None
    listener: Any = None
    comm: Any = None
    core: Any = None
    running: int = 0
    abort: threading.Event = field(default_factory=threading.Event)
    heard: float = field(default_factory=time.monotonic)
    timer: Any = None

    def disconnect(self) -> None:
        """Close what this rank listens on, and its connections."""
        for closing in (self.listener, self.comm):
            if closing is not None:
                closing.close()
        self.listener = self.comm = None

    @property
    def is_stale(self) -> bool:
        """Whether its driver was not heard of for too long."""
        return time.monotonic() - self.heard > self.timeout


_seats: dict[str, Seat] = {}
"""By the worker's address: several workers may share a process."""

_lock = threading.Lock()


# What the driver asks at any time; it is answered by the worker's event loop, and takes no time


def claim(
    run: str, owner: str, timeout: float, clients: Collection[str], dask_worker: Any
) -> str:
    """Claim this worker for a training; return what keeps it from that, or nothing."""
    with _lock:
        seat = _seats.get(dask_worker.address)
        if seat is not None and seat.run == run:
            seat.heard = time.monotonic()
            return ""
        if seat is not None:
            if not (seat.is_stale or seat.owner not in clients):
                return f"busy with training {seat.run} since {seat.since}"
            seat.abort.set()
            if seat.running:
                return f"training {seat.run}, whose driver has gone, is ending"
            _vacate(dask_worker.address, seat)
        seat = _seats[dask_worker.address] = Seat(run, owner, timeout)
        _watch(dask_worker.address, seat)
    return ""


def renew(run: str, dask_worker: Any) -> bool:
    """Tell that the driver is alive; return whether a task of this training is running."""
    with _lock:
        seat = _seats.get(dask_worker.address)
        if seat is None or seat.run != run:
            return False
        seat.heard = time.monotonic()
        return seat.running > 0


def interrupt(run: str, attempt: int, dask_worker: Any) -> bool:
    """End the round of this attempt or an earlier one; return whether one is running."""
    with _lock:
        seat = _seats.get(dask_worker.address)
        if seat is None or seat.run != run:
            return False
        seat.heard = time.monotonic()
        if seat.attempt <= attempt:
            seat.abort.set()
        return seat.running > 0


def leave(run: str, dask_worker: Any) -> None:
    """End the claim of a training."""
    with _lock:
        seat = _seats.get(dask_worker.address)
        if seat is not None and seat.run == run:
            seat.abort.set()
            if not seat.running:
                _vacate(dask_worker.address, seat)
            else:
                seat.heard = -1e9  # the running task vacates it


def _vacate(address: str, seat: Seat) -> None:
    """Give the place free; with the lock held."""
    if _seats.get(address) is seat:
        del _seats[address]
    if seat.timer is not None:
        seat.timer.cancel()
    seat.disconnect()
    if seat.core is not None:
        seat.core.__exit__()
    seat.rank = seat.core = None


def _watch(address: str, seat: Seat) -> None:
    """Give the place free by itself, once its driver was not heard of for too long."""

    def look() -> None:
        with _lock:
            if _seats.get(address) is not seat:
                return
            if seat.is_stale:
                seat.abort.set()
                if not seat.running:
                    _vacate(address, seat)
                    return
            _watch(address, seat)

    seat.timer = threading.Timer(max(0.5, seat.timeout / 4), look)
    seat.timer.daemon = True
    seat.timer.start()


# Tasks --------------------------------------------------------------------------------------------


@dataclass
class Place:
    """What a rank is made of."""

    net: Any
    source: Any
    settings: Any
    core: str


@dataclass
class Ring:
    """Who is in a ring.

    Attributes
    ----------
    carried : list of int or None
        Shards of this rank; None where a division by rank will do.
    root : int
        The rank whose state all take.
    state : object
        The driver's state, for the root alone, if none of the ranks has a later one.
    """

    attempt: int
    addresses: list[Any]
    rank: int
    token: bytes
    root: int
    carried: list[int] | None = None
    state: Any = None


class _Task:
    """The seat of a running task; what goes wrong becomes its outcome."""

    def __init__(self, run: str, attempt: int) -> None:
        from distributed import get_worker

        self.worker: Any = get_worker()
        self.run, self.attempt = run, attempt
        self.outcome = Outcome("gone")
        self.seat: Seat | None = None

    def __enter__(self) -> Seat | None:
        end = time.monotonic() + EVICTION
        while True:
            with _lock:
                seat = _seats.get(self.worker.address)
                if seat is None or seat.run != self.run or seat.attempt > self.attempt:
                    return None
                if not seat.running:
                    break
                seat.abort.set()  # a task of an earlier attempt, which has not ended yet
            if time.monotonic() > end:
                return None
            time.sleep(0.02)
        with _lock:
            if _seats.get(self.worker.address) is not seat or seat.running:
                return None
            seat.running, seat.attempt = 1, self.attempt
            seat.abort.clear()
        self.seat = seat
        return seat

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is not None:
            self.outcome = failed(error)
        if self.seat is not None:
            with _lock:
                self.seat.running = 0
                if error is not None:
                    self.seat.disconnect()
                if self.seat.is_stale and self.seat.heard < 0:
                    _vacate(self.worker.address, self.seat)
        return error is None or isinstance(error, Exception)


def failed(error: BaseException) -> Outcome:
    """Return an error as an outcome that can be pickled."""
    if isinstance(error, RingBroken):
        return Outcome("broken", None, error.waited_for, error.seen)
    if isinstance(error, RankError):
        return Outcome("broken", None, None, str(error))
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return Outcome("error", error.with_traceback(None), None, text)


def admit(run: str, attempt: int, place: Place) -> Outcome:
    """Make the rank of a worker."""
    from cmlp.core.dispatch import use_core
    from cmlp.distributed import Rank

    with (task := _Task(run, attempt)) as seat:
        if seat is not None:
            if seat.rank is None:
                seat.core = use_core(place.core)
                net = place.network()
                seat.rank = Rank(net, place.source, place.settings)
            task.outcome = Outcome("done")
    return task.outcome


def listen(run: str, attempt: int, port: Any, held: dict[int, Any]) -> Outcome:
    """Prepare for a ring: take the partitions that this rank carries, and wait for the others."""
    from cmlp.distributed import Listener

    with (task := _Task(run, attempt)) as seat:
        if seat is not None and seat.rank is not None:
            if hasattr(seat.rank.source, "held"):
                seat.rank.source.held = held
            seat.disconnect()
            host = task.worker.ip
            seat.listener = Listener(host, port(task.worker) if callable(port) else port)
            task.outcome = Outcome("done", (seat.listener.address, seat.rank.position))
    return task.outcome


def work(run: str, attempt: int, ring: Ring | None, seconds: float, wants: bool) -> Outcome:
    """Run a round, the first one of a ring after connecting it."""
    with (task := _Task(run, attempt)) as seat:
        if seat is not None and (seat.listener if ring else seat.comm) is not None:
            if ring is not None:
                _connect(seat, ring, task.worker)
            found = seat.rank.round(seat.comm, seconds)
            state = seat.rank.state() if wants or found.done else None
            task.outcome = Outcome("done", (found, state))
    return task.outcome


def _connect(seat: Seat, ring: Ring, worker: Any) -> None:
    contexts: dict[str, Any] = {}
    if str(worker.address).startswith("tls"):
        security = worker.security
        contexts = {
            "ssl_out": security.get_connection_args("worker")["ssl_context"],
            "ssl_in": security.get_listen_args("worker")["ssl_context"],
        }
    seat.comm = seat.listener.ring(
        ring.addresses, ring.rank, ring.token, timeout=seat.timeout, abort=seat.abort, **contexts
    )
    seat.listener = None
    if ring.state is not None:
        seat.rank.restore(ring.state)
    seat.rank.carried = ring.carried
    seat.rank.synchronise(seat.comm, ring.root)


def state_of(run: str, attempt: int) -> Outcome:
    """Return the state of this rank, as of its last round."""
    with (task := _Task(run, attempt)) as seat:
        if seat is not None and seat.rank is not None:
            task.outcome = Outcome("done", (seat.rank.position, seat.rank.state()))
    return task.outcome
