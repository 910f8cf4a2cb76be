"""What the workers of a cluster have, before a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cmlp
from cmlp.core.formatting import number
from cmlp.dask.cluster import Cluster
from cmlp.dask.partitions import is_collection
from cmlp.dask.shares import UNEVEN
from cmlp.dask.versions import LIMIT, found_in_worker
from cmlp.data.source import is_source


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
    busy: str = ""


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
        lines = [f"{self.rows:,} rows, {len(self.workers)} workers; cmlp {cmlp.__version__} here"]
        for address, one in self.workers.items():
            memory = f"{number(one.memory / 1e9, 3)} GB" if one.memory else "no limit"
            lines.append(
                f"{address} ({one.name}): {one.status}, {one.threads} threads, {memory}, cmlp "
                f"{one.version} {one.core}, {one.rows:,} rows in {one.partitions} partitions"
            )
        return "\n".join(lines + self.remarks)


def report(client: Any, data: Any = None) -> Report:
    """Return what each worker has: threads, memory, cmlp, and rows of the data.

    Parameters
    ----------
    client : distributed.Client
    data : Source, dask Array or DataFrame, optional
        Of a collection those partitions are counted that are computed. Of a source every worker
        opens the first rows, and what it cannot open is a remark.
    """
    cluster = Cluster(client, None)
    members, remarks = cluster.members(), []
    answers = cluster.tell(members, found_in_worker(), limit=LIMIT)
    workers = {}
    for address, about in members.items():
        told = answers.get(address, ("does not answer", ""))
        version, core = (type(told).__name__, "") if isinstance(told, Exception) else told
        workers[address] = Worker(
            str(about["name"]), about["nthreads"], about["memory_limit"] or 0, about["status"],
            version, core,
        )  # fmt: skip
        if version != cmlp.__version__:
            remarks.append(f"{address}: cmlp is {version}, here {cmlp.__version__}")
    n_rows = 0
    if is_source(data):
        n_rows = data.n_rows or 0
        for address, told in cluster.tell(members, _opens, data, limit=LIMIT).items():
            if told:
                remarks.append(f"{address} cannot read the source: {told}")
    elif is_collection(data):
        n_rows = _count(client, data, workers)
        most = max((one.rows for one in workers.values()), default=0) * len(workers)
        if n_rows and most / n_rows > UNEVEN:
            remarks.append(
                f"the largest share has {most / n_rows:.2f} times the mean; a training moves "
                "partitions so that all have about as many rows"
            )
    return Report(workers, n_rows, remarks)


def _opens(source: Any) -> str:
    """Return why the first rows cannot be read here, or nothing."""
    try:
        source.first(1)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _count(client: Any, data: Any, workers: dict[str, Worker]) -> int:
    """Count the rows of computed partitions, each where it is."""
    from distributed import futures_of

    futures = [future for future in futures_of(data) if future.status == "finished"]
    lengths = client.gather([client.submit(len, future, pure=False) for future in futures])
    places = client.who_has(futures)
    for future, n in zip(futures, lengths, strict=True):
        for address in places.get(future.key, ())[:1]:
            if address in workers:
                workers[address].rows += n
                workers[address].partitions += 1
    return sum(lengths)
