"""Rings without an engine: processes that ssh, Slurm, Kubernetes or MPI has started."""

from __future__ import annotations

import operator
import os
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmlp.core.layout import Array
from cmlp.distributed.communicator import Communicator
from cmlp.distributed.listener import Listener
from cmlp.distributed.sockets import SocketRing

PORT = 46_711
"""Port of the first rank of each host under Slurm; the others have the next ones."""


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
        task of Slurm, from ``SLURM_JOB_NODELIST`` and ``SLURM_NTASKS``.
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
    OSError
        If this process cannot listen on its address.
    ValueError
        If there are no addresses, no rank, or no token.
    """
    addresses = slurm_addresses(os.environ) if addresses is None else addresses
    for number, address in enumerate(addresses):
        host, _, port = address.rpartition(":")
        known = host and port.isdigit() and int(port) < 1 << 16
        if isinstance(addresses, str) or not known or addresses.count(address) > 1:
            raise ValueError(
                f"addresses must be a list of 'host:port', another one for each rank; that of rank "
                f"{number} is {address!r}"
            )
    rank = int(os.environ.get("SLURM_PROCID", -1)) if rank is None else operator.index(rank)
    if not 0 <= rank < len(addresses):
        raise ValueError(
            f"rank must be 0 to {len(addresses) - 1}, one for each address, not {rank}; outside "
            "Slurm give it as rank="
        )
    token = os.environ.get("CMLP_TOKEN", "").encode()
    if token_file is not None:
        token = Path(token_file).read_bytes().strip()
    if len(token) < 16:
        raise ValueError(
            "the ranks need a common secret of 16 bytes or more: token_file=, or the environment "
            "variable CMLP_TOKEN"
        )
    host, _, port = addresses[rank].rpartition(":")
    try:
        listener = Listener(host.strip("[]"), int(port))
    except OSError as error:
        error.add_note(
            f"This is the address of rank {rank}, {addresses[rank]}: each process needs a rank of "
            "its own, and all the same order of addresses."
        )
        raise
    return listener.ring(addresses, rank, token, timeout=timeout, client=client, server=server)


def slurm_addresses(environment: Mapping[str, str]) -> list[str]:
    """Return 'host:port' of every task of a job of Slurm's, as many on each host.

    Raises
    ------
    ValueError
        If this is no task of Slurm, or hosts have different numbers of them.
    """
    try:
        nodes, n = environment["SLURM_JOB_NODELIST"], int(environment["SLURM_NTASKS"])
    except KeyError as missing:
        raise ValueError(
            f"the environment has no {missing}: this is no task of Slurm; give addresses="
        ) from None
    command = ["scontrol", "show", "hostnames", nodes]
    hosts = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if n % len(hosts):
        raise ValueError(f"{n} tasks on {len(hosts)} hosts: start as many on each, or addresses=")
    return [f"{host}:{PORT + number}" for host in hosts for number in range(n // len(hosts))]


class mpi(Communicator):
    """The communicator of an MPI program: ``net.fit(source, comm=mpi(MPI.COMM_WORLD))``.

    Sums are in the order of the MPI library, so the same bits in every run are not promised. MPI
    ends all processes when one fails: continue from a checkpoint.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        Of all processes that train.
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
