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
from dataclasses import dataclass
from typing import Any

import cloudpickle

import cmlp
from cmlp.dask.partitions import partitions_in
from cmlp.distributed.communicator import RankError, RingBroken

EVICTION = 10.0
"""Seconds that a rank has to end after it was told to."""

QUIET = 10.0
"""Seconds without a sign of its driver for which a claim stands at least."""

BUSY = "busy with other tasks"


@dataclass
class Outcome:
    """What a task returns; tasks raise nothing, so that Dask never runs them again.

    Attributes
    ----------
    kind : str
        'done'; 'broken' (the ring); 'lost' (the task, or its place); 'error'.
    value : object
        The result, or the error.
    waited_for : int or None
        The rank that did not answer.
    seen : str
        What was seen of it; or the traceback of an error.
    """

    kind: str
    value: Any = None
    waited_for: int | None = None
    seen: str = ""


def outcome_of(function: Any, *args: Any) -> Outcome:
    """Return what a function returns or raises, in a task; all of it can be pickled."""
    try:
        return Outcome("done", function(*args))
    except RingBroken as error:
        return Outcome("broken", None, error.waited_for, error.seen)
    except RankError as error:
        return Outcome("broken", seen=str(error))
    except Exception as error:
        seen, found = "".join(traceback.format_exception(error)), error.with_traceback(None)
        try:
            cloudpickle.loads(cloudpickle.dumps(found))  # as Dask does: also classes of notebooks
        except Exception:
            found = RuntimeError(f"{type(error).__name__}: {error}")
        return Outcome("error", found, seen=seen)


class Seat:
    """A training's place in a worker, with a rank: its methods are what tasks do.

    Attributes
    ----------
    ticket : int
        Of the latest task. The driver counts them, and no older one begins any more.
    running : bool
        Whether that task is running.
    left : bool
        Whether the place is given up, as soon as no task is running.
    rank : Rank or None
        Parameters, optimizer and position, which stay between rounds.
    comm : SocketRing, Listener or None
        The ring, or what listens until it stands.
    """

    def __init__(self, run: str, timeout: float, worker: Any) -> None:
        self.run, self.timeout, self.worker = run, timeout, worker
        self.since, self.heard = time.strftime("%H:%M:%S"), time.monotonic()
        self.ticket, self.running, self.left = 0, False, False
        self.abort, self.freed = threading.Event(), threading.Event()
        self.rank: Any = None
        self.comm: Any = None
        threading.Thread(target=self._watch, name="cmlp seat", daemon=True).start()

    def _watch(self) -> None:
        """Give the place up once its driver was not heard of for too long."""
        while not self.freed.wait(max(0.5, self.timeout / 4)):
            with _lock:
                if self.is_stale:
                    self.free()

    @property
    def is_stale(self) -> bool:
        """Whether its driver was not heard of for too long."""
        return time.monotonic() - self.heard > max(self.timeout, QUIET)

    def free(self) -> None:
        """Give the place up; with the lock held."""
        self.left = True
        self.abort.set()
        if not self.running and not self.freed.is_set():
            self.freed.set()
            _seats.pop(self.worker.address, None)
            self.disconnect()
            if self.rank is not None:
                self.rank.feed.close()

    def disconnect(self) -> None:
        """Close what this rank listens on, or its connections."""
        if self.comm is not None:
            self.comm.close()
        self.comm = None

    # Tasks

    def listen(self, place: bytes | None, port: Any, held: dict[int, Any]) -> tuple[str, Any]:
        """Take the partitions that this rank carries, and open a port for a ring.

        `place` is what a rank is made of, where there is none: see :class:`cmlp.distributed.Rank`.
        It is pickled, since workers may share a process with each other, and with the driver.
        """
        from cmlp.distributed.listener import Listener
        from cmlp.distributed.rank import Rank

        made = () if place is None or self.rank is not None else pickle.loads(place)
        partitions = partitions_in(made[1] if made else self.rank.feed.rows)
        if partitions is not None:
            partitions.held = held
        if made:
            net, rows, settings, validation = made
            n_threads = settings.options.n_threads or self.worker.state.nthreads
            self.rank = Rank(net, rows, settings.changed(n_threads=n_threads), validation)
        self.rank.feed.close()
        self.disconnect()
        self.comm = Listener(self.worker.ip, port(self.worker) if callable(port) else port)
        return self.comm.address, self.rank.position

    def connect(self, addresses: list[str], rank: int, token: bytes, state: Any) -> bool:
        """Connect with the other ranks, encrypted where the cluster is; continue from a state."""
        contexts, security = {}, self.worker.security
        if str(self.worker.address).startswith("tls"):
            contexts["client"] = security.get_connection_args("worker")["ssl_context"]
            contexts["server"] = security.get_listen_args("worker")["ssl_context"]
        elif security.require_encryption:
            raise RuntimeError("the cluster requires encryption, and has no TLS for its workers")
        self.comm = self.comm.ring(
            addresses, rank, token, timeout=self.timeout, abort=self.abort, **contexts
        )
        if state is not None:
            self.rank.restore(state)
        return True

    def work(self, seconds: float, fetches: bool) -> tuple[Any, Any]:
        """Run a round; return what it has done, and of rank 0 the state if it is wanted."""
        found = self.rank.round(self.comm, seconds)
        wanted = self.comm.rank == 0 and (fetches or found.ended)
        return found, self.rank.saved() if wanted else None


_seats: dict[str, Seat] = {}
"""By the worker's address: several workers may share a process."""

_over: deque[str] = deque(maxlen=64)
"""Trainings that have left: what a stopped worker hears of them late makes no claim any more."""

_lock = threading.Lock()


# What the driver asks at any time; it is answered by the worker's event loop, and takes no time


def claim(run: str, timeout: float, version: str, dask_worker: Any) -> str:
    """Claim this worker for a training; return what keeps it from that, if anything does."""
    if version != cmlp.__version__:  # of a worker that came later: it would end the training
        return f"has cmlp {cmlp.__version__}, and the driver {version}"
    with _lock:
        seat = _seats.get(dask_worker.address)
        if seat is not None and seat.is_stale:
            seat.free()
            seat = _seats.get(dask_worker.address)
        if run in _over:
            return "this training has ended"
        if seat is not None and seat.left:
            return f"training {seat.run} is ending"
        if seat is not None and seat.run != run:
            return f"busy with training {seat.run} since {seat.since}"
        full = dask_worker.state.executing_count >= dask_worker.state.nthreads
        if full or (seat is not None and seat.running):
            return BUSY
        if seat is None:
            seat = _seats[dask_worker.address] = Seat(run, timeout, dask_worker)
        seat.heard = time.monotonic()
        return ""


def running(dask_worker: Any) -> set[str]:
    """Return the keys of the tasks that are running."""
    return {task.key for task in dask_worker.state.executing}


def renew(run: str, ends: int = -1, *, dask_worker: Any) -> None:
    """Tell that the driver is alive.

    `ends` is the ticket of a task that is to end, or not to begin any more, like any before it.
    """
    with _lock:
        seat = _seats.get(dask_worker.address)
        if seat is not None and seat.run == run:
            seat.heard = time.monotonic()
            if seat.ticket <= ends:
                seat.ticket = ends
                seat.abort.set()


def leave(run: str, ended: bool, dask_worker: Any) -> None:
    """End the claim of a training, and if that has ended any that comes later."""
    with _lock:
        if ended:
            _over.append(run)
        seat = _seats.get(dask_worker.address)
        if seat is not None and seat.run == run:
            seat.free()


# A task -------------------------------------------------------------------------------------------


def perform(run: str, ticket: int, what: str, *args: Any) -> Outcome:
    """Do what one of the methods of a training's seat does, while it has no other task."""
    from distributed import get_worker

    with _lock:
        seat = _seats.get(get_worker().address)
        if seat is None or (seat.run, seat.running) != (run, False) or seat.ticket >= ticket:
            return Outcome("lost", seen="has no place for this task any more")
        seat.running, seat.ticket, seat.heard = True, ticket, time.monotonic()
        seat.abort.clear()
    try:
        found = outcome_of(getattr(seat, what), *args)
        if found.kind != "done":
            seat.disconnect()
        return found
    finally:
        with _lock:
            seat.running, seat.heard = False, time.monotonic()
            if seat.left:
                seat.free()
