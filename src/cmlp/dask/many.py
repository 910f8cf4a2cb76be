"""Many networks on a cluster: each of them trains in one worker."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cmlp.dask.cluster import Cluster, Limits, Task
from cmlp.dask.errors import TrainingFailed
from cmlp.dask.reports import checked_cluster
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
    cluster = checked_cluster(client, Limits(wait=wait, timeout=timeout, retries=retries))
    return _Many(cluster, given, data, n_threads).run()


class _Many:
    """Groups of jobs, one for each thread of a worker, and the data in the workers.

    Attributes
    ----------
    left : list of int
        Jobs that no worker has.
    groups : dict of Task to list of int
        Those that are given to workers.
    sent : dict of str to Future
        The data, by worker.
    barred : dict of str to float
        Workers that get none, and until when.
    """

    def __init__(self, cluster: Cluster, jobs: list[Any], data: Any, n_threads: int) -> None:
        self.cluster, self.limits, self.jobs = cluster, cluster.limits, jobs
        self.data, self.n_threads = _Whole(data), n_threads
        self.left, self.lost = list(range(len(jobs))), Counter[int]()
        self.groups: dict[Task, list[int]] = {}
        self.sent: dict[str, Any] = {}
        self.barred: dict[str, float] = {}
        self.size, self.heard = 1, time.monotonic()

    def run(self) -> Iterator[Trained]:
        """Keep every worker busy until all jobs are done."""
        looked, pause = time.monotonic(), min(2.0, self.limits.timeout / 4)
        while self.left or self.groups:
            self._start()
            for task, outcome in self.cluster.ended(self.groups, pause).items():
                if outcome.kind == "lost":
                    self._again(task, outcome.seen)
                else:
                    yield from self._finish(task, outcome)
            if time.monotonic() > looked + pause:
                self._look()
                looked = time.monotonic()

    def _start(self) -> None:
        """Give a group to every thread that has none."""
        now, taken = time.monotonic(), Counter(task.address for task in self.groups)
        slots = {
            address: max(1, about["nthreads"] // self.n_threads)
            for address, about in self.cluster.members().items()
            if about["status"] == "running" and self.barred.get(address, 0.0) < now
        }
        n = sum(slots.values())
        while self.left and (free := [each for each in slots if taken[each] < slots[each]]):
            address = min(free, key=taken.__getitem__)
            if not self._has_data(address):
                self.barred[address] = now + self.limits.timeout
                del slots[address]
                continue
            taken[address] += 1
            size = min(self.size, MOST, math.ceil(len(self.left) / n))
            size -= size % (16 if size > 16 else 8 if size > 8 else 1)  # all lanes of vectors
            numbers, self.left = self.left[:size], self.left[size:]
            given = [self.jobs[i] for i in numbers], self.sent[address], self.n_threads
            self.groups[self.cluster.submit(address, train_group, *given)] = numbers

    def _has_data(self, address: str) -> bool:
        """Whether a worker has the data; they are sent to one that answers."""
        client, limit = self.cluster.client, 10 * self.limits.timeout
        if address in self.sent and self.sent[address].status == "finished":
            return True
        if address not in self.cluster.tell([address], running):
            return False
        with contextlib.suppress(OSError, TimeoutError):
            how = {"workers": [address], "hash": False, "callback_timeout": limit}
            self.sent[address] = client.sync(client.scatter, [self.data], **how)[0]
            return True
        return False

    def _finish(self, task: Task, found: Outcome) -> list[Trained]:
        """Return what a task has trained."""
        numbers = self.groups.pop(task)
        if found.kind == "error":
            found.value.add_note(f"This is of the jobs {numbers}, in {task.address}:\n{found.seen}")
            raise found.value
        seconds, trained = found.value
        self.size, self.heard = max(1, int(SECONDS * len(numbers) / seconds)), time.monotonic()
        return [Trained(i, *one) for i, one in zip(numbers, trained, strict=True)]

    def _look(self) -> None:
        """Take jobs back from workers that do not answer, or do not begin with them."""
        told = self.cluster.tell({task.address for task in self.groups}, running)
        now = time.monotonic()
        for task in list(self.groups):
            if task.future.key in told.get(task.address, ()):
                self.heard = task.heard = now
            elif now - task.heard > self.limits.timeout and not task.ended:
                self._again(task)
        if now - self.heard > self.limits.wait:
            raise TrainingFailed(
                f"no worker has trained any of the jobs for {self.limits.wait:g} s"
            )

    def _again(self, task: Task, lost: str = "") -> None:
        """Train these jobs elsewhere, or here later."""
        numbers = self.groups.pop(task)
        self.barred[task.address] = time.monotonic() + self.limits.timeout
        self.left = numbers + self.left
        self.lost.update(numbers if lost else ())
        for number in numbers:
            if self.lost[number] > self.limits.retries:
                raise TrainingFailed(f"job {number} was lost {self.lost[number]} times: {lost}")


# In a worker --------------------------------------------------------------------------------------


def running(dask_worker: Any) -> set[str]:
    """Return which tasks are running."""
    return {task.key for task in dask_worker.state.executing}


_lock = threading.Lock()


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


def train_group(jobs: list[Any], data: _Whole, n_threads: int) -> Outcome:
    """Train networks in a worker; return the seconds, and them with their records."""
    from cmlp.training.many import fit_many as train

    began, (nets, settings) = time.perf_counter(), zip(*jobs, strict=True)
    try:
        X, y, weight = data.read()
        histories = train(nets, X, y, sample_weight=weight, settings=settings, n_threads=n_threads)
        trained = list(zip(nets, histories, strict=True))
        return Outcome("done", (time.perf_counter() - began, trained))
    except Exception as error:
        return failed(error)
