"""Many networks on a cluster: each of them trains in one worker."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cmlp.core.checks import check_integer
from cmlp.dask.cluster import Cluster, Limits
from cmlp.dask.pool import Pool
from cmlp.dask.reports import checked_cluster
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
    check_integer("n_threads", n_threads, 1)
    given = [(net, dict(settings)) for net, settings in jobs]
    cluster = checked_cluster(client, Limits(wait=wait, timeout=timeout, retries=retries))
    return _trained(cluster, given, data, n_threads)


def _trained(cluster: Cluster, jobs: list[Any], data: Any, n_threads: int) -> Iterator[Trained]:
    """Train groups of jobs in the workers, and yield the networks as they come."""
    whole, size, client = _Whole(data), 1, cluster.client
    sent: dict[str, Any] = {}  # the data in each worker

    def take(address: str) -> tuple[list[int], tuple[Any, ...]] | None:
        """Take a group of jobs, once the worker has the data."""
        if address not in sent or sent[address].status != "finished":
            limit = 10 * cluster.limits.timeout
            how = {"workers": [address], "hash": False, "callback_timeout": limit}
            try:
                sent[address] = client.sync(client.scatter, [whole], **how)[0]
            except (OSError, TimeoutError):
                return None
        n = min(size, MOST, math.ceil(len(pool.left) / sum(pool.slots.values())))
        n -= n % (16 if n > 16 else 8 if n > 8 else 1)  # all lanes of vectors
        numbers, pool.left = pool.left[:n], pool.left[n:]
        return numbers, (train_group, [jobs[i] for i in numbers], sent[address], n_threads)

    pool = Pool(cluster, len(jobs), take, n_threads)
    for numbers, task in pool.tasks():
        found = pool.result(numbers, task)
        if found is not None:
            seconds, pairs = found
            size = max(1, int(SECONDS * len(numbers) / seconds))
            yield from (Trained(i, *pair) for i, pair in zip(numbers, pairs, strict=True))


# In a worker --------------------------------------------------------------------------------------


_lock = threading.Lock()


class _Whole:
    """The data of all jobs; a source is read at its first use in a worker."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def read(self) -> Any:
        """Return X, y and weights."""
        with _lock:
            if is_source(self.data):
                self.data = joined(list(streamed(self.data)))
        return (*self.data, None)[:3]


def train_group(jobs: list[Any], data: _Whole, n_threads: int) -> tuple[float, list[Any]]:
    """Train networks in a worker; return the seconds, and them with their records."""
    from cmlp.training.many import fit_many as train

    began, (nets, settings) = time.perf_counter(), zip(*jobs, strict=True)
    nets = copy.deepcopy(nets)  # those of the driver, if this is its process
    X, y, weight = data.read()
    histories = train(nets, X, y, sample_weight=weight, settings=settings, n_threads=n_threads)
    return time.perf_counter() - began, list(zip(nets, histories, strict=True))
