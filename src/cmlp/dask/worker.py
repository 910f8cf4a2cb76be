"""What runs in Dask workers: a claim for one training, and the rank that lives between rounds.

A worker's process is claimed by one training at a time. The claim ends with the training; it also
ends `timeout` seconds (10 at least) after the driver was last heard of.
"""

from __future__ import annotations

import pickle
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from cmlp.dask.shares import partitions_in
from cmlp.distributed.communicator import RankError, RingBroken

EVICTION = 10.0
"""Seconds that a rank has to end after it was told to."""

QUIET = 10.0
"""Seconds without a sign of its driver for which a claim stands at least."""


@dataclass
class Outcome:
    """What a task returns; tasks raise nothing, so that Dask never runs them again.

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
    rank : Rank or None
        Parameters, optimizer and position, which stay between rounds.
    running : bool
        Whether a task of this training is running.
    left : bool
        Whether the training has ended, and the running task is to vacate the place.
    """

    run: str
    timeout: float
    since: str = field(default_factory=lambda: time.strftime("%H:%M:%S"))
    attempt: int = -1
    number: int = -1
    rank: Any = None
    listener: Any = None
    comm: Any = None
    place: Any = None
    running: bool = False
    left: bool = False
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
        return self.left or time.monotonic() - self.heard > max(self.timeout, QUIET)


_seats: dict[str, Seat] = {}
"""By the worker's address: several workers may share a process."""

_over: deque[str] = deque(maxlen=64)
"""Trainings that have left: what a stopped worker hears of them late makes no claim any more."""

_lock = threading.Lock()


# What the driver asks at any time; it is answered by the worker's event loop, and takes no time


def claim(run: str, timeout: float, dask_worker: Any) -> str:
    """Claim this worker for a training; return what keeps it from that, if anything does."""
    with _lock:
        seat = _seats.get(dask_worker.address)
        if run in _over:
            return "this training has ended"
        if seat is not None and seat.run == run:
            seat.heard = time.monotonic()
            return ""
        if seat is not None:
            if not seat.is_stale:
                return f"busy with training {seat.run} since {seat.since}"
            seat.abort.set()
            if seat.running:
                return f"training {seat.run}, whose driver has gone, is ending"
            _vacate(dask_worker.address, seat)
        seat = _seats[dask_worker.address] = Seat(run, timeout)
        _watch(dask_worker.address, seat)
    return ""


def renew(run: str, ends: int = -1, *, dask_worker: Any) -> bool:
    """Tell that the driver is alive; return whether a task of this training is running.

    `ends` is an attempt whose round, or that of an earlier one, is to end.
    """
    with _lock:
        seat = _seats.get(dask_worker.address)
        if seat is None or seat.run != run:
            return False
        seat.heard = time.monotonic()
        if seat.attempt <= ends:
            seat.abort.set()
        return seat.running


def leave(run: str, ended: bool, dask_worker: Any) -> None:
    """End the claim of a training, and if that has ended any that comes later."""
    with _lock:
        if ended:
            _over.append(run)
        seat = _seats.get(dask_worker.address)
        if seat is not None and seat.run == run:
            seat.abort.set()
            if not seat.running:
                _vacate(dask_worker.address, seat)
            else:
                seat.left = True


def _vacate(address: str, seat: Seat) -> None:
    """Free the place; with the lock held."""
    if _seats.get(address) is seat:
        del _seats[address]
    if seat.timer is not None:
        seat.timer.cancel()
    seat.disconnect()
    if seat.rank is not None:
        seat.rank.close_shards()
    seat.rank = seat.place = None


def _watch(address: str, seat: Seat) -> None:
    """Free the place once its driver was not heard of for too long."""

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
    """What a rank is made of; see :class:`cmlp.distributed.Rank`."""

    net: Any
    source: Any
    settings: Any
    validation: Any


@dataclass
class Ring:
    """Who is in a ring.

    Attributes
    ----------
    addresses : list of str
        Where each rank listens.
    state : dict or None
        The driver's state, for one rank, where no rank has a later one.
    """

    addresses: list[str]
    rank: int
    token: bytes
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
                    seat.running, seat.attempt, seat.heard = True, self.attempt, time.monotonic()
                    seat.abort.clear()
                    self.seat = seat
                    return seat
                seat.abort.set()  # another task, which has not ended yet
            if time.monotonic() > end:
                return None
            time.sleep(0.02)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is not None:
            self.outcome = failed(error)
        if self.seat is not None:
            with _lock:
                self.seat.running, self.seat.heard = False, time.monotonic()
                if error is not None:
                    self.seat.disconnect()
                if self.seat.left:
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
    """Take place in a worker; make the rank, unless it needs partitions first."""
    with (task := _Task(run, attempt)) as seat:
        if seat is not None:
            if seat.rank is None:
                seat.place = place
                if partitions_in(place.source) is None:
                    _make(seat, task.worker)
            task.outcome = Outcome("done")
    return task.outcome


def _make(seat: Seat, worker: Any) -> None:
    """Make the rank, with as many threads as the worker has, if none are given."""
    from cmlp.distributed.rank import Rank

    place, settings = seat.place, seat.place.settings
    if settings.options.n_threads is None:
        options = replace(settings.options, n_threads=worker.state.nthreads)
        settings = replace(settings, options=options)
    seat.rank = Rank(place.net, place.source, settings, place.validation)


def listen(run: str, attempt: int, port: Any, held: dict[int, Any]) -> Outcome:
    """Prepare for a ring: take the partitions that this rank carries, and open a port."""
    from cmlp.distributed.listener import Listener

    with (task := _Task(run, attempt)) as seat:
        if seat is not None and seat.place is not None:
            if held:
                partitions_in(seat.place.source).held = held  # type: ignore[union-attr]
                if seat.rank is not None:
                    seat.rank.close_shards()
            if seat.rank is None:
                _make(seat, task.worker)
            seat.disconnect()
            host = task.worker.ip
            seat.listener = Listener(host, port(task.worker) if callable(port) else port)
            task.outcome = Outcome("done", (seat.listener.address, seat.rank.position))
    return task.outcome


def work(
    run: str, attempt: int, number: int, ring: Ring | None, seconds: float, fetches: bool
) -> Outcome:
    """Run a round, the first one of a ring after connecting it; rank 0 may return its state, too.

    `number` counts the rounds of all rings: Dask runs a task again whose result it has lost.
    """
    with (task := _Task(run, attempt)) as seat:
        ready = seat is not None and (seat.listener if ring else seat.comm) is not None
        if seat is not None and ready and number > seat.number:
            seat.number = number
            if ring is not None:
                _connect(seat, ring, attempt, task.worker)
            found = seat.rank.round(seat.comm, seconds)
            wanted = seat.comm.rank == 0 and (fetches or found.ended)
            state = seat.rank.state() if wanted else None
            task.outcome = Outcome("done", (found, state))
    return task.outcome


def _connect(seat: Seat, ring: Ring, attempt: int, worker: Any) -> None:
    """Connect with the other ranks, encrypted where the cluster is."""
    contexts: dict[str, Any] = {}
    if str(worker.address).startswith("tls"):
        security = worker.security
        contexts["client"] = security.get_connection_args("worker")["ssl_context"]
        contexts["server"] = security.get_listen_args("worker")["ssl_context"]
    elif worker.security.require_encryption:
        raise RuntimeError("the cluster requires encryption, and has no TLS for its workers")
    seat.comm = seat.listener.ring(
        ring.addresses, ring.rank, ring.token, timeout=seat.timeout, attempt=attempt,
        abort=seat.abort, **contexts,
    )  # fmt: skip
    seat.listener = None
    if ring.state is not None:
        seat.rank.restore(ring.state)
