"""Ranks that are threads of one process: for tests, and for measurements of local steps."""

from __future__ import annotations

import threading

import numpy as np

from cmlp.core.layout import Array
from cmlp.distributed.communicator import RingBroken


class ThreadRing:
    """A communicator of threads; :meth:`make` returns those of all ranks.

    Parameters
    ----------
    rank : int
    barrier : threading.Barrier
        Where the threads wait for each other.
    slots : list
        What each rank has to tell.
    timeout : float
        Seconds to wait for the others.
    """

    def __init__(
        self, rank: int, barrier: threading.Barrier, slots: list[object], timeout: float
    ) -> None:
        self.rank, self.size = rank, barrier.parties
        self.barrier, self.slots, self.timeout = barrier, slots, timeout

    @classmethod
    def make(cls, n: int, timeout: float = 60.0) -> list[ThreadRing]:
        """Return n communicators, one for each thread."""
        barrier, slots = threading.Barrier(n), [object()] * n
        return [cls(rank, barrier, slots, timeout) for rank in range(n)]

    def _wait(self) -> None:
        try:
            self.barrier.wait(self.timeout)
        except threading.BrokenBarrierError:
            raise RingBroken("a thread has left, or does not answer") from None

    def _exchanged(self, mine: object) -> list[object]:
        """Return what all ranks have told; they may change it after the next call."""
        self.slots[self.rank] = mine
        self._wait()
        found = list(self.slots)
        self._wait()
        return found

    def allreduce(self, array: Array, tail: Array | None = None) -> None:
        """Replace an array by the sum of all ranks', added in the order of the ranks."""
        for part in (array,) if tail is None else (array, tail):
            sums: Array = sum_in_order(self._exchanged(part.copy()))
            part[...] = sums

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace an array by that of a rank."""
        found = self._exchanged(array.copy() if self.rank == root else None)[root]
        np.copyto(array, found)  # type: ignore[arg-type]

    def gather(self, message: bytes) -> list[bytes]:
        """Return the messages of all ranks."""
        return self._exchanged(message)  # type: ignore[return-value]

    def close(self, error: BaseException | None = None) -> None:
        """Let the others know that this rank has left."""
        self.barrier.abort()


def sum_in_order(parts: list[object]) -> Array:
    """Return the sum of arrays, from the first to the last."""
    total: Array = parts[0].copy()  # type: ignore[attr-defined]
    for part in parts[1:]:
        total += part
    return total
