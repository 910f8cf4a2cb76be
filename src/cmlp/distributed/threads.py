"""Ranks that are threads of one process: for tests, and for measurements of local steps."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np

from cmlp.core.layout import Array
from cmlp.distributed.communicator import Communicator, RingBroken


class _Meeting:
    """What threads of one process share: what each has told in each call, and who has left."""

    def __init__(self, size: int) -> None:
        self.size, self.changed = size, threading.Condition()
        self.calls: dict[int, dict[int, Any]] = {}
        self.left: list[int] = []


class ThreadRing(Communicator):
    """A communicator of threads; ``ThreadRing.make(n)`` returns those of all ranks.

    Parameters
    ----------
    rank : int
        The number of this thread, from 0.
    meeting : object
        What the ranks share.
    timeout : float
        Seconds to wait for the others.
    """

    def __init__(self, rank: int, meeting: _Meeting, timeout: float) -> None:
        self.rank, self.size = rank, meeting.size
        self.meeting, self.timeout, self.n_calls = meeting, timeout, 0

    @classmethod
    def make(cls, n: int, timeout: float = 60.0) -> list[ThreadRing]:
        """Return n communicators, one for each thread."""
        meeting = _Meeting(n)
        return [cls(rank, meeting, timeout) for rank in range(n)]

    def _exchanged(self, mine: Any) -> list[Any]:
        """Return what all ranks have told in this call."""
        meeting, number = self.meeting, self.n_calls
        self.n_calls += 1
        with meeting.changed:
            told = meeting.calls.setdefault(number, {})
            meeting.calls.pop(number - 2, None)  # all have read it
            told[self.rank] = mine
            meeting.changed.notify_all()
            meeting.changed.wait_for(
                lambda: len(told) == self.size or bool(meeting.left), self.timeout
            )
            if len(told) == self.size:
                return [told[rank] for rank in range(self.size)]
            seen = "has left" if meeting.left else f"silent for {self.timeout:g} s"
            missing = meeting.left[0] if meeting.left else min({*range(self.size)} - told.keys())
        self.close()
        raise RingBroken(seen, missing)

    def allreduce(self, array: Array, tail: Array | None = None) -> None:
        """Replace an array by the sum of all ranks', added in the order of the ranks."""
        for part in (array,) if tail is None else (array, tail):
            add_in_order(self._exchanged(part.copy()), part)

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replace an array by that of a rank."""
        array[...] = self._exchanged(array.copy() if self.rank == root else None)[root]

    def gather(self, message: bytes) -> list[bytes]:
        """Return the messages of all ranks."""
        return self._exchanged(message)

    def close(self, error: BaseException | None = None) -> None:
        """Let the others know that this rank has left."""
        with self.meeting.changed:
            self.meeting.left.append(self.rank)
            self.meeting.changed.notify_all()


def add_in_order(parts: list[Array], out: Array) -> None:
    """Write the sum of some arrays, added from the first to the last; `out` may be one of them."""
    if len(parts) == 2:
        np.add(parts[0], parts[1], out=out)
    else:
        out[...] = functools.reduce(np.add, parts)
