"""Rings without an engine: processes that ssh, Slurm, Kubernetes or MPI has started."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Sequence
from typing import Any

from cmlp.core.layout import Array
from cmlp.distributed.listener import Listener
from cmlp.distributed.sockets import SocketRing

PORT = 46_711
"""Port of every rank under Slurm, where none is given: plus its number on the machine."""


def ring(
    addresses: Sequence[str] | None = None,
    rank: int | None = None,
    token_file: str | os.PathLike[str] | None = None,
    *,
    timeout: float = 60.0,
    client: ssl.SSLContext | None = None,
    server: ssl.SSLContext | None = None,
) -> SocketRing:
    """Return the communicator of this process, once all ranks are connected.

    Parameters
    ----------
    addresses : sequence of str, optional
        'host:port' of all ranks, in their order, the same in every process. By default one per
        task of Slurm, from ``SLURM_JOB_NODELIST`` and ``SLURM_NTASKS_PER_NODE``.
    rank : int, optional
        Which of them this process is. By default ``SLURM_PROCID``.
    token_file : str or path-like, optional
        A file with a secret of 16 bytes or more, the same for all ranks, that no one else can
        read. By default what the environment variable ``CMLP_TOKEN`` has.
    timeout : float
        Seconds within which all ranks have to be here; later, without a byte of another one.
    client, server : ssl.SSLContext, optional
        Encrypt the connections; without them what is sent can be read on the way.

    Returns
    -------
    SocketRing
        Use it as ``with ring(...) as comm: net.fit(source, comm=comm)``.

    Raises
    ------
    RingBroken
        If a rank is missing; it is named.
    ValueError
        If there are no addresses, no rank, or no token.
    """
    if addresses is None:
        addresses = slurm_addresses(os.environ)
    if rank is None:
        rank = int(os.environ.get("SLURM_PROCID", -1))
    if not 0 <= rank < len(addresses):
        raise ValueError(
            f"rank must be 0 to {len(addresses) - 1}, one for each address, not {rank}; outside "
            "Slurm give it as rank="
        )
    if token_file is None:
        token = os.environ.get("CMLP_TOKEN", "").encode()
    else:
        with open(token_file, "rb") as file:
            token = file.read().strip()
    if len(token) < 16:
        raise ValueError(
            "the ranks need a common secret of 16 bytes or more: token_file=, or the environment "
            "variable CMLP_TOKEN"
        )
    host, _, port = addresses[rank].rpartition(":")
    listener = Listener(host.strip("[]"), int(port))
    return listener.ring(addresses, rank, token, timeout=timeout, client=client, server=server)


def slurm_addresses(environment: Any) -> list[str]:
    """Return 'host:port' of every task of a job, as Slurm's variables describe it.

    Raises
    ------
    ValueError
        If this is no task of Slurm.
    """
    try:
        hosts = expanded(environment["SLURM_JOB_NODELIST"])
        per_host = [
            int(tasks)
            for part in environment["SLURM_STEP_TASKS_PER_NODE"].split(",")
            for tasks in [part.split("(")[0]] * int((re.findall(r"\(x(\d+)\)", part) or [1])[0])
        ]
    except KeyError as missing:
        raise ValueError(
            f"the environment has no {missing}: this is no task of Slurm; give addresses="
        ) from None
    base = int(environment.get("CMLP_PORT", PORT))
    return [
        f"{host}:{base + number}"
        for host, n in zip(hosts, per_host, strict=True)
        for number in range(n)
    ]


def expanded(nodes: str) -> list[str]:
    """Return the names in a list of Slurm's, such as ``node[01-03,7],gpu1``."""
    found = []
    for prefix, ranges in re.findall(r"([^,\[]+)(?:\[([^\]]*)\])?", nodes):
        for part in ranges.split(",") if ranges else [""]:
            first, _, last = part.partition("-")
            if last:
                width = len(first)
                numbers = range(int(first), int(last) + 1)
                found += [f"{prefix}{number:0{width}d}" for number in numbers]
            else:
                found.append(prefix + first)
    return found


class mpi:
    """The communicator of an MPI program: ``net.fit(source, comm=mpi(MPI.COMM_WORLD))``.

    Sums are in the order of the MPI library, so the same bits in every run are not promised. MPI
    ends all processes when one fails: continue from a checkpoint.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    """

    def __init__(self, comm: Any) -> None:
        self.comm, self.rank, self.size = comm, comm.Get_rank(), comm.Get_size()

    def allreduce(self, array: Array, tail: Array | None = None) -> None:
        """Replace an array by the sum of all ranks'."""
        for part in (array,) if tail is None else (array, tail):
            total = part.copy()
            self.comm.Allreduce(part, total)
            part[...] = total

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace an array by that of a rank."""
        self.comm.Bcast(array, root)

    def gather(self, message: bytes) -> list[bytes]:
        """Return the messages of all ranks."""
        found: list[bytes] = self.comm.allgather(message)
        return found

    def close(self, error: BaseException | None = None) -> None:
        """End all processes if there was an error: the others would wait without end."""
        if error is not None:
            self.comm.Abort(1)
