"""What the workers of a cluster have: threads, memory, rows, and the same cmlp as this process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import cmlp
from cmlp.core.formatting import number
from cmlp.dask.cluster import Cluster, Limits, TrainingFailed
from cmlp.dask.partitions import UNEVEN, is_collection
from cmlp.data.source import is_source

LIMIT = 60.0
"""Seconds for the first import of cmlp in a worker."""


def _found_in_worker() -> Any:
    """Return a function that tells what a worker has; it is pickled whole: cmlp may be missing."""

    def found() -> tuple[str, str]:
        import cmlp

        return cmlp.__version__, cmlp.core_info().core

    return found


def checked_cluster(client: Any, limits: Limits) -> Cluster:
    """Return a cluster whose workers have the same cmlp as this process.

    Workers that do not answer within the limit are left out: ranks compare their versions once
    more.

    Raises
    ------
    RuntimeError
        If cmlp is missing in a worker, or is of another version.
    TrainingFailed
        If no worker comes within `wait` seconds.
    """
    cluster, end = Cluster(client, limits), time.monotonic() + limits.wait
    while not cluster.active():
        if time.monotonic() > end:
            named = "" if cluster.only is None else f" of {sorted(cluster.only)}"
            raise TrainingFailed(
                f"there is no worker{named} that starts tasks; waited {limits.wait:g} s",
                [f"{at} is {each['status']}" for at, each in cluster.members().items()],
            )
        time.sleep(0.1)
    addresses = list(cluster.members())
    answers = cluster.tell(addresses, _found_in_worker(), limit=min(limits.timeout, LIMIT))
    wrong = {}
    for address, told in answers.items():
        if isinstance(told, ModuleNotFoundError):
            wrong[address] = "missing"
        elif isinstance(told, Exception):
            told.add_note(f"This is of the worker {address}.")
            raise told
        elif told[0] != cmlp.__version__:
            wrong[address] = told[0]
    if wrong:
        raise RuntimeError(
            f"{len(wrong)} of {len(addresses)} workers do not have cmlp {cmlp.__version__}, as "
            f"this process: {', '.join(f'{at} ({what})' for at, what in wrong.items())}. Install "
            "it there as here, or: from distributed import PipInstall; "
            f'client.register_plugin(PipInstall(["cmlp=={cmlp.__version__}"], restart=True))'
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
    members, found = cluster.members(), Report({}, 0, [])
    answers = cluster.tell(members, _found_in_worker(), limit=LIMIT)
    for address, about in members.items():
        told = answers.get(address, ("does not answer", ""))
        version, core = (type(told).__name__, "") if isinstance(told, Exception) else told
        found.workers[address] = Worker(
            str(about["name"]), about["nthreads"], about["memory_limit"] or 0, about["status"],
            version, core,
        )  # fmt: skip
        if version != cmlp.__version__:
            found.remarks.append(f"{address}: cmlp is {version}, here {cmlp.__version__}")
    if is_source(data):
        found.rows = data.n_rows or 0
        for address, told in cluster.tell(members, _opens, data, limit=LIMIT).items():
            if told:
                found.remarks.append(f"{address} cannot read the source: {told}")
    elif is_collection(data):
        _count(client, data, found)
    elif data is not None:
        raise TypeError(f"data must be a source or a collection of Dask, not {type(data).__name__}")
    return found


def _opens(source: Any) -> str:
    """Return why the first rows cannot be read here, or nothing."""
    try:
        source.first(1)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _count(client: Any, data: Any, found: Report) -> None:
    """Count the rows of computed partitions, each where it is."""
    from distributed import futures_of

    futures = [future for future in futures_of(data) if future.status == "finished"]
    if len(futures) < data.npartitions:
        found.remarks.append(
            f"{data.npartitions - len(futures)} of {data.npartitions} partitions are not computed "
            "yet, and their rows not counted: data = client.persist(data)"
        )
    places, lengths = client.who_has(futures), client.gather(client.map(len, futures, pure=False))
    for future, n in zip(futures, lengths, strict=True):
        worker = found.workers.get(min(places.get(future.key, ()), default=""))
        if worker is not None:
            worker.rows, worker.partitions = worker.rows + n, worker.partitions + 1
    found.rows = sum(lengths)
    most = max((one.rows for one in found.workers.values()), default=0) * len(found.workers)
    if found.rows and most / found.rows > UNEVEN:
        found.remarks.append(
            f"the largest share has {most / found.rows:.2f} times the mean; a training moves "
            "partitions so that all have about as many rows"
        )
