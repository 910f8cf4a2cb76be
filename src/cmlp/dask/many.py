"""Many networks on a cluster: each of them trains in one worker."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cmlp.dask.cluster import Cluster
from cmlp.dask.errors import TrainingFailed
from cmlp.dask.versions import common_core

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
    n_threads: int = 1,
) -> Iterator[Trained]:
    """Train networks side by side on a cluster, and yield them as they come.

    The data are sent, or read, once per worker. Networks are trained in groups by
    :func:`cmlp.fit_many`, whose size follows from their time. Those of a worker that is lost are
    trained again elsewhere.

    Parameters
    ----------
    client : distributed.Client
    jobs : iterable of (Network, dict)
        The networks, which stay as they are, and what is to be different about their training, by
        the parameters of :meth:`cmlp.Network.fit`.
    data : (X, y), (X, y, sample_weight), or Source
        The same for all; it has to fit into a worker.
    retries : int
        Times that a group may be lost.
    n_threads : int
        Of a training.

    Yields
    ------
    Trained
        ``number`` of the job, ``network``, ``history``.

    Raises
    ------
    TrainingFailed
        If a group was lost too often.
    Exception
        What a training raises.

    Examples
    --------
    >>> jobs = [(cmlp.Network([4, 16, 3], seed=s), {"epochs": 20}) for s in range(200)]
    >>> trained = sorted(cmlp.dask.fit_many(client, jobs, (X, y)))  # doctest: +SKIP
    """
    given = [(net, dict(settings)) for net, settings in jobs]
    cluster = Cluster(client, None)
    common_core(cluster, list(cluster.members()))
    return _run(_Many(cluster, given, data, retries, n_threads))


class _Many:
    """Groups of jobs, and the data in the workers."""

    def __init__(
        self, cluster: Cluster, jobs: list[Any], data: Any, retries: int, n_threads: int
    ) -> None:
        self.client, self.cluster = cluster.client, cluster
        self.jobs, self.data, self.retries, self.n_threads = jobs, data, retries, n_threads
        self.left, self.lost = list(range(len(jobs))), dict.fromkeys(range(len(jobs)), 0)
        self.sent: Any = None
        self.group = 1
        self.began: dict[Any, tuple[list[int], float]] = {}

    def slots(self) -> int:
        """Return how many tasks run at a time."""
        members = self.cluster.members().values()
        return max(1, sum(max(1, int(about["nthreads"]) // self.n_threads) for about in members))

    def start(self) -> Any:
        """Start the next group."""
        size = min(self.group, MOST, max(1, math.ceil(len(self.left) / self.slots())))
        numbers, self.left = self.left[:size], self.left[size:]
        if self.sent is None or self.sent.status != "finished":
            self.sent = self.client.scatter([_Whole(self.data)], hash=False)[0]
        nets = [self.jobs[number][0] for number in numbers]
        settings = [self.jobs[number][1] for number in numbers]
        task = self.client.submit(
            train_group, nets, settings, self.sent, self.n_threads, pure=False
        )
        self.began[task] = numbers, time.monotonic()
        return task

    def finish(self, task: Any) -> list[Trained]:
        """Return what a task has trained; nothing if it was lost."""
        numbers, _ = self.began.pop(task)
        if task.status == "finished":
            try:
                seconds, found = task.result(timeout=60)
            except (OSError, TimeoutError):
                return self._again(numbers, "its result was lost")
            if isinstance(found, Exception):
                found.add_note(f"This is of the jobs {numbers}.")
                raise found
            self.group = max(1, int(SECONDS * len(numbers) / max(seconds, 1e-3)))
            return [Trained(i, *one) for i, one in zip(numbers, found, strict=True)]
        return self._again(numbers, task.status)

    def _again(self, numbers: list[int], why: str) -> list[Trained]:
        for number in numbers:
            self.lost[number] += 1
            if self.lost[number] > self.retries:
                raise TrainingFailed(f"job {number} was lost {self.lost[number]} times: {why}")
        self.left = numbers + self.left
        return []


class _Whole:
    """The data of all jobs; a source is read at its first use in a worker."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.rows: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self.data, "rows": None}

    def read(self) -> Any:
        """Return X, y and weights."""
        from cmlp.data.source import is_source, joined, streamed

        if self.rows is None:
            rows = joined(list(streamed(self.data))) if is_source(self.data) else self.data
            self.rows = (*rows, None)[:3]
        return self.rows


def train_group(nets: list[Any], settings: list[Any], data: _Whole, n_threads: int) -> Any:
    """Train networks in a worker; return the seconds, and them with their records or the error."""
    from cmlp.training.many import fit_many as train

    began = time.perf_counter()
    try:
        X, y, weight = data.read()
        histories = train(nets, X, y, sample_weight=weight, settings=settings, n_threads=n_threads)
    except Exception as error:
        return 0.0, error
    return time.perf_counter() - began, list(zip(nets, histories, strict=True))


def _run(many: _Many) -> Iterator[Trained]:
    """Keep every worker busy, with one group waiting for it, until all jobs are done."""
    from distributed import as_completed

    running = as_completed([], loop=many.client.loop)
    try:
        while many.left or many.began:
            while many.left and len(many.began) < 2 * many.slots():
                running.add(many.start())
            yield from many.finish(next(running))
    finally:
        many.client.cancel(list(many.began))
