"""Many networks on a cluster: each of them trains in one worker."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cmlp.core.checks import check_integer, check_number
from cmlp.dask.cluster import Cluster, Task, Waiting
from cmlp.dask.errors import TrainingFailed
from cmlp.dask.versions import common_core
from cmlp.dask.worker import Outcome, failed
from cmlp.data.source import is_source, joined, streamed

SECONDS = 2.0
"""Of a task, about: much more than Dask's own time for it, and little enough to lose."""

MOST = 64
"""Networks of a task."""


class Trained(NamedTuple):
    """A network that was trained, and which of the jobs it was."""

    number: int
    network: Any
    history: Any


def fit_many(
    client: Any,
    jobs: Iterable[tuple[Any, Mapping[str, Any]]],
    data: Any,
    *,
    retries: int = 3,
    wait: float = 300,
    timeout: float = 60,
    n_threads: int = 1,
) -> Iterator[Trained]:
    """Train networks side by side on a cluster, and yield them as they come.

    The data are sent, or read, once per worker. Networks are trained in groups by
    :func:`cmlp.fit_many`, whose size follows from their time. Those of a worker that is lost, or
    stopped, or busy with something else, are trained elsewhere.

    Parameters
    ----------
    client : distributed.Client
    jobs : iterable of (Network, dict)
        The networks, which stay as they are, and what is to be different about their training, by
        the parameters of :meth:`cmlp.Network.fit`.
    data : (X, y), (X, y, sample_weight), or Source
        The same for all; it has to fit into a worker.
    retries : int
        Times that a job may be lost.
    wait : float
        Seconds for which no worker may be there, or free.
    timeout : float
        Seconds without a sign of a training after which its jobs are given to another worker.
    n_threads : int
        Of a training.

    Yields
    ------
    Trained
        ``number`` of the job, ``network``, ``history``.

    Raises
    ------
    TrainingFailed
        If a job was lost too often, or no worker trains any.
    ClusterLost
        If the scheduler does not answer any more.
    Exception
        What a training raises, with the jobs, the worker and the traceback as a note.

    Examples
    --------
    >>> jobs = [(cmlp.Network([4, 16, 3], seed=s), {"epochs": 20}) for s in range(200)]
    >>> trained = sorted(cmlp.dask.fit_many(client, jobs, (X, y)))  # doctest: +SKIP
    """
    given = [(net, dict(settings)) for net, settings in jobs]
    limits = (
        check_integer("retries", retries, 0),
        check_number("wait", wait, 0),
        check_number("timeout", timeout, 0.001),
    )
    cluster = Cluster(client, None)
    common_core(cluster, timeout)
    return _Many(cluster, given, data, limits, n_threads).run()


@dataclass(eq=False)
class _Group:
    """Jobs that one task trains; `heard` is when they were given, or last known to be trained."""

    numbers: list[int]
    task: Task
    heard: float


class _Many:
    """Groups of jobs, one for each thread of a worker, and the data in the workers."""

    def __init__(
        self, cluster: Cluster, jobs: list[Any], data: Any, limits: Any, n_threads: int
    ) -> None:
        self.cluster, self.jobs, self.data, self.n_threads = cluster, jobs, _Whole(data), n_threads
        self.retries, self.wait, self.timeout = limits
        self.left, self.lost = list(range(len(jobs))), Counter[int]()
        self.groups: list[_Group] = []
        self.sent: dict[str, Any] = {}
        self.barred: dict[str, float] = {}
        self.size, self.heard = 1, time.monotonic()

    def run(self) -> Iterator[Trained]:
        """Keep every worker busy until all jobs are done."""
        looked, pause = time.monotonic(), min(2.0, self.timeout / 4)
        try:
            while self.left or self.groups:
                self._start()
                Waiting(group.task for group in self.groups).wait(pause)
                for group in [group for group in self.groups if group.task.ended]:
                    yield from self._finish(group)
                if time.monotonic() > looked + pause:
                    self._look()
                    looked = time.monotonic()
        finally:
            self.cluster.forget(group.task for group in self.groups)

    def _start(self) -> None:
        """Give a group to every thread that has none."""
        now, taken = time.monotonic(), Counter(group.task.address for group in self.groups)
        slots = {
            address: max(1, about["nthreads"] // self.n_threads)
            for address, about in self.cluster.members().items()
            if about["status"] == "running" and self.barred.get(address, 0.0) < now
        }
        n = sum(slots.values())
        while self.left and (free := [each for each in slots if taken[each] < slots[each]]):
            address = min(free, key=taken.__getitem__)
            data = self.sent.get(address)
            if data is None or data.status != "finished":
                answers = self.cluster.tell([address], running)  # or it may be stopped
                data = self.cluster.send(address, self.data, 10 * self.timeout) if answers else None
            if data is None:
                self.barred[address] = now + self.timeout
                del slots[address]
                continue
            self.sent[address] = data
            taken[address] += 1
            size = min(self.size, MOST, math.ceil(len(self.left) / n))
            size -= size % (16 if size > 16 else 8 if size > 8 else 1)  # all lanes of vectors
            numbers, self.left = self.left[:size], self.left[size:]
            nets, settings = zip(*(self.jobs[i] for i in numbers), strict=True)
            task = self.cluster.submit(address, train_group, nets, settings, data, self.n_threads)
            self.groups.append(_Group(numbers, task, time.monotonic()))

    def _finish(self, group: _Group) -> list[Trained]:
        """Return what a task has trained; nothing if it was lost."""
        numbers, address = group.numbers, group.task.address
        found: Outcome | None = group.task.outcome(self.timeout)
        if found is None:
            return self._again(group, group.task.why() or "the result was lost")
        self.groups.remove(group)
        if found.kind == "error":
            found.value.add_note(f"This is of the jobs {numbers}, in {address}:\n{found.seen}")
            raise found.value
        seconds, trained = found.value
        self.size, self.heard = max(1, int(SECONDS * len(numbers) / seconds)), time.monotonic()
        return [Trained(i, *one) for i, one in zip(numbers, trained, strict=True)]

    def _look(self) -> None:
        """Take jobs back from workers that have left, do not answer, or do not begin with them."""
        members, now = self.cluster.members(), time.monotonic()
        told = self.cluster.tell({group.task.address for group in self.groups}, running)
        for group in list(self.groups):
            address, answer = group.task.address, told.get(group.task.address)
            if isinstance(answer, set) and group.task.future.key in answer:
                self.heard = group.heard = now
            elif address not in members:
                self._again(group, "its worker has left")
            elif now - group.heard > self.timeout and not group.task.ended:
                self._again(group)
        if now - self.heard > self.wait:
            raise TrainingFailed(f"no worker has trained any of the jobs for {self.wait:g} s")

    def _again(self, group: _Group, lost: str = "") -> list[Trained]:
        """Train these jobs elsewhere, or here later."""
        self.groups.remove(group)
        self.cluster.forget([group.task])
        self.barred[group.task.address] = time.monotonic() + self.timeout
        self.left = group.numbers + self.left
        self.lost.update(group.numbers if lost else ())
        for number in group.numbers:
            if self.lost[number] > self.retries:
                raise TrainingFailed(f"job {number} was lost {self.lost[number]} times: {lost}")
        return []


# In a worker --------------------------------------------------------------------------------------

_running: set[str] = set()
"""Keys of the tasks that train in this process."""

_lock = threading.Lock()


def running() -> set[str]:
    """Return which groups are being trained."""
    return _running.copy()


class _Whole:
    """The data of all jobs; a source is read at its first use in a worker."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.rows: Any = None

    def read(self) -> Any:
        """Return X, y and weights."""
        with _lock:
            if self.rows is None:
                rows = joined(list(streamed(self.data))) if is_source(self.data) else self.data
                self.rows = (*rows, None)[:3]
        return self.rows


def train_group(nets: Any, settings: Any, data: _Whole, n_threads: int) -> Outcome:
    """Train networks in a worker; return the seconds, and them with their records."""
    from distributed import get_worker

    from cmlp.training.many import fit_many as train

    key, began = get_worker().get_current_task(), time.perf_counter()
    _running.add(key)
    try:
        X, y, weight = data.read()
        histories = train(nets, X, y, sample_weight=weight, settings=settings, n_threads=n_threads)
        seconds = time.perf_counter() - began
        return Outcome("done", (seconds, list(zip(nets, histories, strict=True))))
    except Exception as error:
        return failed(error)
    finally:
        _running.discard(key)
