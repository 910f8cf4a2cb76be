"""What the workers of a cluster have: threads, memory, rows, and the same cmlp as this process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import cmlp
from cmlp.core.formatting import number
from cmlp.dask.cluster import Cluster, Limits, TrainingFailed
from cmlp.dask.partitions import UNEVEN, by_worker, is_collection
from cmlp.dask.worker import outcome_of
from cmlp.data.source import is_source

LIMIT = 60.0
"""Seconds for the first import of cmlp in a worker."""


def _found_in_worker() -> Any:
    """Return a function that tells what a worker has; it is pickled whole: cmlp may be missing."""

    def found() -> tuple[str, str]:
        import cmlp

        return cmlp.__version__, cmlp.core_info().core

    return found


def _versions(cluster: Cluster, limit: float) -> dict[str, tuple[str, str]]:
    """Return cmlp's version and core in each worker that answers, or why it cannot be imported."""
    answers = cluster.tell(cluster.members(), _found_in_worker(), limit=limit)
    refused = {at: (str(told), "") for at, told in answers.items() if isinstance(told, Exception)}
    return answers | refused


def checked_cluster(client: Any, limits: Limits) -> Cluster:
    """Return a cluster whose workers have the same cmlp as this process.

    Workers that do not answer within the limit are left out: ranks compare their versions once
    more.

    Raises
    ------
    RuntimeError
        If cmlp is missing in a worker, cannot be imported, or is of another version.
    TrainingFailed
        If no worker comes within `wait` seconds.
    """
    cluster, here = Cluster(client, limits), cmlp.__version__
    end = time.monotonic() + limits.wait
    while not cluster.active():
        if time.monotonic() > end:
            named = "" if cluster.only is None else f" of {sorted(cluster.only)}"
            raise TrainingFailed(
                f"there is no worker{named} that starts tasks; waited {limits.wait:g} s",
                [f"{at} is {each['status']}" for at, each in cluster.members().items()],
            )
        time.sleep(0.1)
    found = _versions(cluster, min(limits.timeout, LIMIT))
    wrong = [f"{at} ({version})" for at, (version, _) in found.items() if version != here]
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} of {len(found)} workers do not have cmlp {here}, as this process: "
            f"{', '.join(wrong)}. Install it there, or: from distributed import PipInstall; "
            f'client.register_plugin(PipInstall(["cmlp=={here}"], restart=True))'
        )
    return cluster


@dataclass
class Worker:
    """A worker: `rows` are those that it has now, or 0."""

    name: str
    threads: int
    memory: int
    status: str
    version: str
    core: str
    rows: int = 0
    partitions: int = 0

    def __str__(self) -> str:
        memory = f"{number(self.memory / 1e9, 3)} GB" if self.memory else "no limit"
        return (
            f"({self.name}): {self.status}, {self.threads} threads, {memory}, cmlp {self.version} "
            f"{self.core}, {self.rows:,} rows in {self.partitions} partitions"
        )


@dataclass
class Report:
    """What :func:`report` found.

    Attributes
    ----------
    workers : dict of str to Worker
        By address.
    rows : int
        Of the data.
    remarks : list of str
        What is worth a look.
    """

    workers: dict[str, Worker]
    rows: int
    remarks: list[str]

    def __str__(self) -> str:
        first = f"{self.rows:,} rows, {len(self.workers)} workers; cmlp {cmlp.__version__} here"
        workers = [f"{address} {one}" for address, one in self.workers.items()]
        return "\n".join([first, *workers, *self.remarks])


def report(client: Any, data: Any = None) -> Report:
    """Return what each worker has: threads, memory, cmlp, and rows of the data.

    Parameters
    ----------
    client : distributed.Client
    data : Source, dask Array or DataFrame, optional
        Of a collection those partitions are counted that are computed. Of a source every worker
        opens the first rows, and what it cannot open is a remark.
    """
    cluster = Cluster(client)
    members, found, versions = cluster.members(), Report({}, 0, []), _versions(cluster, LIMIT)
    for address, about in members.items():
        found.workers[address] = worker = Worker(
            str(about["name"]), about["nthreads"], about["memory_limit"] or 0, about["status"],
            *versions.get(address, ("does not answer", "")),
        )  # fmt: skip
        if worker.version != cmlp.__version__:
            found.remarks.append(f"{address}: cmlp is {worker.version}, here {cmlp.__version__}")
    if is_source(data):
        found.rows = data.n_rows or 0
        answers = cluster.tell(members, outcome_of, data.first, 1, limit=LIMIT)
        for address, told in answers.items():
            if told.kind == "error":
                found.remarks.append(f"{address} cannot read the source: {told.value!r}")
    elif is_collection(data):
        _count(cluster, data, found)
    elif data is not None:
        raise TypeError(f"data must be a source or a collection of Dask, not {type(data).__name__}")
    return found


def _count(cluster: Cluster, data: Any, found: Report) -> None:
    """Count the rows of computed partitions, each where it is."""
    from distributed import futures_of

    client = cluster.client
    futures = [each for each in futures_of(data) if each.status == "finished"]
    if len(futures) < data.npartitions:
        found.remarks.append(
            f"{data.npartitions - len(futures)} of {data.npartitions} partitions are not computed "
            "yet, and their rows not counted: data = client.persist(data)"
        )
    lengths = client.gather(client.map(len, futures, pure=False))
    for address, numbers in by_worker(cluster, futures).items():
        if address in found.workers:
            worker = found.workers[address]
            worker.rows, worker.partitions = sum(lengths[i] for i in numbers), len(numbers)
    found.rows = sum(lengths)
    most = max((each.rows for each in found.workers.values()), default=0) * len(found.workers)
    if most > UNEVEN * found.rows:
        found.remarks.append(
            f"the largest share has {most / found.rows:.2f} times the mean; a training moves "
            "partitions so that all have about as many rows"
        )
